"""Evidence verified per second, against the bare verification of the same bytes.

Intel: our verifier, which reads claims, and then a node's policy, against dcap-qvl alone. AMD and AWS: our
verifiers against the signatures that they cannot do without: the chain's and the evidence's.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable

import cbor2
import dcap_qvl  # type: ignore[import-untyped]
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from bench import Ratio, fastest
from sealdeal.model.evidence import DCAP, Evidence, TrustClass, Verifier
from sealdeal.model.policy import (
    AllOf,
    AnyOf,
    NoDebug,
    NotExpired,
    PlatformNotIn,
    Registers,
    ReportData,
    TcbStatusIn,
    TeeIs,
    TrustIs,
)
from sealdeal.tee import DcapVerifier, NitroVerifier, SevVerifier, SimulatedPlatform
from sealdeal.tee.certificates import load_pem
from sealdeal.tee.collateral import Collateral, Need
from sealdeal.tee.nitro import NitroDocument
from tests.tee.amd import Amd, pem
from tests.tee.aws import Aws

NOW = 1_790_000_000
BOUND = b"\x33" * 64
NUMBER = 200
"""Verifications in one round."""


async def measure() -> AsyncIterator[Ratio]:
    """Per second, the best of a few rounds."""
    platform = SimulatedPlatform.generate(NOW)
    registers = platform.measure(b"\x11" * 32, b"\x22" * 32)
    for version in (4, 5):
        evidence = Evidence(DCAP, platform.quote(BOUND, registers, version=version), platform.collateral(NOW))
        verifier, bare = DcapVerifier(platform.root_der), _bare_dcap(platform.root_der, evidence)
        name, against = f"TDX quote v{version}", "dcap-qvl alone"
        yield _ratio(f"{name}, to claims", _verifying(verifier, evidence), against, bare)
        yield _ratio(f"{name}, to a node's verdict", _judging(verifier, evidence, registers), against, bare)
    cached = await _cached(platform, evidence)
    yield Ratio(
        "a node's own collateral, from its cache", cached, against, NUMBER / fastest(_often(bare)), "1/s"
    )
    amd, aws = Amd("Milan", NOW), Aws(NOW)
    report, document = amd.evidence(BOUND), aws.evidence(BOUND)
    sev, nitro = SevVerifier(pem(amd.root)), NitroVerifier(aws.root_der)
    against = "its signatures alone"
    yield _ratio("SEV-SNP report, to claims", _verifying(sev, report), against, _bare_sev(report))
    yield _ratio("Nitro document, to claims", _verifying(nitro, document), against, _bare_nitro(document))


def _often(act: Callable[[], object]) -> Callable[[], None]:
    def often() -> None:
        for _ in range(NUMBER):
            act()

    return often


def _ratio(name: str, ours: Callable[[], object], against: str, bare: Callable[[], object]) -> Ratio:
    """The best round of each; rounds alternate, so that what disturbs a machine disturbs both."""
    pairs = [(fastest(_often(ours), 1), fastest(_often(bare), 1)) for _ in range(8)]
    best = (NUMBER / min(times) for times in zip(*pairs, strict=True))
    return Ratio(name, next(best), against, next(best), "1/s")


def _verifying(verifier: Verifier, evidence: Evidence) -> Callable[[], object]:
    return lambda: verifier.verify(evidence, NOW)


def _judging(verifier: Verifier, evidence: Evidence, registers: dict[str, bytes]) -> Callable[[], object]:
    policy = AllOf(
        TrustIs(TrustClass.SIMULATED),
        TeeIs("tdx"),
        NoDebug(),
        TcbStatusIn(frozenset({"UpToDate"})),
        NotExpired(),
        PlatformNotIn(frozenset({b"banned"})),
        AnyOf(Registers.exactly({"mrtd": bytes(48)}), Registers.exactly(registers)),
        ReportData(BOUND),
    )
    return lambda: policy.check(verifier.verify(evidence, NOW), NOW)


def _bare_dcap(root: bytes, evidence: Evidence) -> Callable[[], object]:
    verifier = dcap_qvl.QuoteVerifier(root)
    text = (evidence.collateral or b"").decode()

    def bare() -> object:  # the collateral is of the moment, so reading it is part of it
        collateral = dcap_qvl.QuoteCollateralV3.from_json(text)
        policy = dcap_qvl.QuotePolicy.claims_only(NOW)
        return verifier.verify_with_policy(evidence.quote, collateral, NOW, policy)

    return bare


async def _cached(platform: SimulatedPlatform, evidence: Evidence) -> float:
    """Questions to the cache per second."""

    class Vendor:
        async def fetch(self, need: Need, now: int) -> bytes:
            return platform.collateral(now)

    own, best = Collateral({DCAP: Vendor()}), float("inf")
    for _ in range(6):
        start = time.perf_counter()
        for _ in range(NUMBER):
            await own.for_(evidence, NOW)
        best = min(best, time.perf_counter() - start)
    return NUMBER / best


def _bare_sev(evidence: Evidence) -> Callable[[], object]:
    quote = evidence.quote
    r, s = (int.from_bytes(quote[at : at + 72], "little") for at in (0x2A0, 0x2E8))

    def bare() -> None:
        chain, (revoked,) = load_pem(evidence.collateral or b"")
        _signatures(chain, r, s, quote[:0x2A0])
        key = chain[-1].public_key()
        assert not isinstance(key, ec.EllipticCurvePublicKey) and revoked.is_signature_valid(key)  # type: ignore[arg-type]

    return bare


def _bare_nitro(evidence: Evidence) -> Callable[[], object]:
    def bare() -> None:
        document = NitroDocument(evidence.quote)
        chain = [x509.load_der_x509_certificate(der) for der in document.certificates]
        halves = document.signature[:48], document.signature[48:]
        r, s = (int.from_bytes(half, "big") for half in halves)
        _signatures(chain, r, s, cbor2.dumps(["Signature1", document.protected, b"", document.payload]))

    return bare


def _signatures(chain: list[x509.Certificate], r: int, s: int, signed: bytes) -> None:
    for certificate, issuer in zip(chain, [*chain[1:], chain[-1]], strict=True):
        certificate.verify_directly_issued_by(issuer)
    key = chain[0].public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(hashes.SHA384()))
