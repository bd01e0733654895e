"""Verify evidence: bytes and collateral to Claims. The trust class follows from the root that signed."""

from collections.abc import Sequence

from sealdeal.model.evidence import Claims, Evidence, NotAuthentic, UnknownKind, Verifier

from .dcap import DcapVerifier
from .nitro import NitroVerifier
from .sev import SevVerifier
from .simulated import SimulatedPlatform


def vendors() -> tuple[Verifier, ...]:
    """Verifiers of every kind of evidence, each under its vendor's root: what a hardware network trusts."""
    return DcapVerifier(), SevVerifier(), NitroVerifier()


def verify(verifiers: Sequence[Verifier], evidence: Evidence, now: int) -> Claims:
    """Claims from the first of `verifiers` whose root signed this evidence; `now` is unix time.

    Raises UnknownKind when none takes the kind, else what the last of them refused with.
    """
    fitting = [verifier for verifier in verifiers if verifier.kind == evidence.kind]
    if not fitting:
        known = ", ".join(sorted({verifier.kind for verifier in verifiers})) or "none"
        raise UnknownKind(f"expected evidence of a kind with a verifier ({known}), got {evidence.kind!r}")
    for verifier in fitting[:-1]:
        try:
            return verifier.verify(evidence, now)
        except NotAuthentic:
            continue
    return fitting[-1].verify(evidence, now)


__all__ = ["DcapVerifier", "NitroVerifier", "SevVerifier", "SimulatedPlatform", "vendors", "verify"]
