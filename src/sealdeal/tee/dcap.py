"""Intel's quotes (TDX v4 and v5, SGX v3), by dcap-qvl: one path for Intel's root and a simulated one.

dcap-qvl checks the PCK chain, revocation lists, TCB info, QE identity and the signatures, and refuses
debug, service TDs and migration. It judges no status here (`claims_only`): that is a policy's. Its reasons
are terse, so after a refusal we look ourselves, only to name it. Quotes are malleable (bytes that nobody
signs can change): never use a quote's hash as an identity.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

import dcap_qvl  # type: ignore[import-untyped]
from cryptography import x509

from sealdeal.model.errors import EvidenceRefused
from sealdeal.model.evidence import (
    DCAP,
    MAX_COLLATERAL_BYTES,
    MAX_QUOTE_BYTES,
    Claims,
    CollateralExpired,
    DebugEnabled,
    Evidence,
    NotAuthentic,
    Revoked,
    Supervised,
    TrustClass,
    UnknownKind,
    WrongRoot,
    WrongTcb,
)

from .certificates import common_name, foreign, key_hash, load_pem, load_root

INTEL_ROOT = "a0af031289f5d5d4132f9186068a7fc13628633ba235777472e29b6b6c67a49e"
"""SHA-256 of the public key of Intel's SGX root: to name a refusal. What verifies is dcap-qvl's own copy."""

_TIME_WORDS = ("expired", "issue date is in the future", "not yet valid", "notvalidyet", "certexpired")
_TCB_WORDS = ("tcb level", "tcb status")
_SUPERVISED_WORDS = ("service td", "td migration")

_TDX = {"mrtd": "mr_td", **{f"rtmr{i}": f"rt_mr{i}" for i in range(4)}} | {
    name: name for name in ("mr_config_id", "mr_owner", "mr_owner_config", "mr_seam", "td_attributes", "xfam")
}
"""Our register names to dcap-qvl's."""


class DcapVerifier:
    """Evidence of kind `dcap` to Claims, under one root."""

    kind = DCAP

    def __init__(self, root_der: bytes | None = None) -> None:
        """`root_der`: a simulated platform's root; None is Intel's, and that alone makes `trust` hardware."""
        self.trust = TrustClass.HARDWARE if root_der is None else TrustClass.SIMULATED
        self._root = INTEL_ROOT if root_der is None else key_hash(load_root(root_der))
        self._verifier = dcap_qvl.QuoteVerifier(root_der)

    def verify(self, evidence: Evidence, now: int) -> Claims:
        """Authentic claims at unix time `now`, not yet judged.

        Raises UnknownKind, WrongRoot, Revoked, CollateralExpired (or not valid yet), WrongTcb (a level that
        the vendor revoked or does not know), DebugEnabled, Supervised, NotAuthentic (all else).
        """
        if evidence.kind != self.kind:
            raise UnknownKind(f"expected evidence of kind {self.kind}, got {evidence.kind!r}")
        if evidence.collateral is None:
            raise NotAuthentic(
                "expected a quote with its collateral, got one without: fetch it from the vendor"
            )
        if len(evidence.quote) > MAX_QUOTE_BYTES or len(evidence.collateral) > MAX_COLLATERAL_BYTES:
            raise NotAuthentic(
                f"expected a quote of at most {MAX_QUOTE_BYTES} bytes and its collateral, got more"
            )
        try:
            collateral = dcap_qvl.QuoteCollateralV3.from_json(evidence.collateral.decode())
            report = self._verifier.verify_with_policy(
                evidence.quote, collateral, now, dcap_qvl.QuotePolicy.claims_only(now)
            )
            found = json.loads(report.to_json())
        except (ValueError, OverflowError) as refusal:
            raise self._refusal(str(refusal), evidence, now) from None
        return self._claims(found)

    def _refusal(self, reason: str, evidence: Evidence, now: int) -> EvidenceRefused:
        reason, low = " ".join(reason.split())[:300], reason.lower()
        if any(word in low for word in _TIME_WORDS):
            return CollateralExpired(f"expected collateral valid at {now}, got: {reason}")
        if "debug" in low:
            return DebugEnabled(f"expected a TEE without debug, got: {reason}")
        if any(word in low for word in _SUPERVISED_WORDS):
            return Supervised(f"expected a TD that nothing else has power over, got: {reason}")
        if any(word in low for word in _TCB_WORDS):
            return WrongTcb(f"expected a TCB level that the vendor lists and has not revoked, got: {reason}")
        root = "Intel's root" if self.trust is TrustClass.HARDWARE else "the simulated platform's root"
        expected = f"expected an Intel quote signed under {root}"
        try:
            return self._cause(evidence, expected)
        except NotAuthentic:  # it cannot even be read so far
            return NotAuthentic(f"{expected}, got: {reason}")

    @foreign
    def _cause(self, evidence: Evidence, expected: str) -> NotAuthentic:
        """The refusal that dcap-qvl does not name. Raises NotAuthentic when this finds nothing either."""
        chain, _ = load_pem(bytes(dcap_qvl.Quote.parse(evidence.quote).cert_chain_pem_bytes()))
        members = json.loads(evidence.collateral or b"")
        issuers, _ = load_pem(members["tcb_info_issuer_chain"].encode())
        for what, root in (("a quote", chain[-1]), ("collateral", issuers[-1])):
            if key_hash(root) != self._root:
                return WrongRoot(f"{expected}, got {what} under {common_name(root)} (key {key_hash(root)})")
        for name, held in (("pck_crl", chain[0]), ("root_ca_crl", chain[1])):
            revoked = x509.load_der_x509_crl(bytes.fromhex(members[name]))
            if revoked.get_revoked_certificate_by_serial_number(held.serial_number) is not None:
                return Revoked(
                    f"expected certificates in force, {common_name(held)} ({held.serial_number:x}) is revoked"
                )
        raise NotAuthentic("nothing found")

    def _claims(self, found: dict[str, Any]) -> Claims:
        ((kind, body),) = found["report"].items()
        if kind == "SgxEnclave":
            tee, names = "sgx", {"mr_enclave": "mr_enclave", "mr_signer": "mr_signer"}
            extra = {"isv": struct.pack("<HH", body["isv_prod_id"], body["isv_svn"])}
            debug = bool(bytes.fromhex(body["attributes"])[0] & 2)
        else:
            tee, names, extra = "tdx", _TDX, {}
            while "base" in body:  # 1.5 wraps 1.0
                body = {**body["base"], **{k: v for k, v in body.items() if k != "base"}}
            debug = bool(bytes.fromhex(body["td_attributes"])[0] & 1)
        pck = found["platform"]["pck"]
        tcb = {f"cpu{i}": svn for i, svn in enumerate(pck["cpu_svn"])} | {"pce": pck["pce_svn"]}
        if tee == "tdx":
            tcb |= {f"svn{i}": svn for i, svn in enumerate(bytes.fromhex(body["tee_tcb_svn"]))}
        registers: Mapping[str, bytes] = {ours: bytes.fromhex(body[theirs]) for ours, theirs in names.items()}
        return Claims(
            tee=tee,
            trust=self.trust,
            registers={**registers, **extra},
            report_data=bytes.fromhex(body["report_data"]),
            tcb_status=found["tcb"]["status"],
            advisories=tuple(found["tcb"]["advisory_ids"]),
            debug=debug,
            platform_id=bytes(pck["ppid"]),
            valid_until=min(found["earliest_expiration_date"], found["qe_iden_earliest_expiration_date"]),
            tcb_eval=found["tcb"]["eval_data_number"],
            tcb=tcb,
        )
