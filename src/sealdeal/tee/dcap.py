"""Intel's quotes (TDX v4 and v5, SGX v3), by dcap-qvl: one path for Intel's root and a simulated one.

dcap-qvl checks the PCK chain, revocation lists, TCB info, QE identity and the signatures, and refuses
debug. It judges no status here (`claims_only`): that is a policy's. Quotes are malleable (bytes that nobody
signs can change): never use a quote's hash as an identity.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

import dcap_qvl  # type: ignore[import-untyped]

from sealdeal.model.evidence import (
    DCAP,
    MAX_COLLATERAL_BYTES,
    MAX_QUOTE_BYTES,
    Claims,
    CollateralExpired,
    DebugEnabled,
    Evidence,
    NotAuthentic,
    TrustClass,
    UnknownKind,
)

_TIME_WORDS = ("expired", "issue date is in the future", "not yet valid", "notvalidyet", "certexpired")

_TDX = {"mrtd": "mr_td", **{f"rtmr{i}": f"rt_mr{i}" for i in range(4)}} | {
    name: name for name in ("mr_config_id", "mr_owner", "mr_owner_config", "mr_seam")
}
"""Our register names to dcap-qvl's."""


class DcapVerifier:
    """Evidence of kind `dcap` to Claims, under one root."""

    kind = DCAP

    def __init__(self, root_der: bytes | None = None) -> None:
        """`root_der`: a simulated platform's root; None is Intel's, and that alone makes `trust` hardware."""
        self.trust = TrustClass.HARDWARE if root_der is None else TrustClass.SIMULATED
        self._verifier = dcap_qvl.QuoteVerifier(root_der)

    def verify(self, evidence: Evidence, now: int) -> Claims:
        """Authentic claims at unix time `now`, not yet judged.

        Raises UnknownKind, NotAuthentic (malformed, altered, revoked, another root, no collateral),
        CollateralExpired (or not valid yet), DebugEnabled.
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
            raise self._refusal(str(refusal), now) from None
        return self._claims(found)

    def _refusal(self, reason: str, now: int) -> NotAuthentic | CollateralExpired | DebugEnabled:
        reason, low = " ".join(reason.split())[:300], reason.lower()
        if any(word in low for word in _TIME_WORDS):
            return CollateralExpired(f"expected collateral valid at {now}, got: {reason}")
        if "debug" in low:
            return DebugEnabled(f"expected a TEE without debug, got: {reason}")
        root = "Intel's root" if self.trust is TrustClass.HARDWARE else "the simulated platform's root"
        return NotAuthentic(f"expected an Intel quote signed under {root}, got: {reason}")

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
        registers: Mapping[str, bytes] = {ours: bytes.fromhex(body[theirs]) for ours, theirs in names.items()}
        return Claims(
            tee=tee,
            trust=self.trust,
            registers={**registers, **extra},
            report_data=bytes.fromhex(body["report_data"]),
            tcb_status=found["tcb"]["status"],
            advisories=tuple(found["tcb"]["advisory_ids"]),
            debug=debug,
            platform_id=bytes(found["platform"]["pck"]["ppid"]),
            valid_until=min(found["earliest_expiration_date"], found["qe_iden_earliest_expiration_date"]),
            tcb_eval=found["tcb"]["eval_data_number"],
        )
