"""Evidence in a file: which it is, and what it says before anyone has verified it."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

import dcap_qvl  # type: ignore[import-untyped]

from sealdeal.model.errors import InvalidInput
from sealdeal.model.evidence import (
    DCAP,
    MAX_COLLATERAL_BYTES,
    MAX_QUOTE_BYTES,
    NITRO,
    SEV_SNP,
    Evidence,
    UnknownKind,
)
from sealdeal.model.types import hexstr

from .certificates import common_name, foreign, key_hash, load, load_pem
from .nitro import NitroDocument
from .sev import REPORT_BYTES, SevReport

MAX_FILE_BYTES = 2 * (MAX_QUOTE_BYTES + MAX_COLLATERAL_BYTES) + (1 << 20)
"""Evidence as JSON doubles its bytes; a receipt has a few more members."""


def read_evidence(data: bytes, collateral: bytes | None = None) -> Evidence:
    """Evidence as its JSON, as a member of other JSON (a receipt's), or as a vendor's bare bytes.

    `collateral` takes the place of what the file has. Raises InvalidInput for what is neither.
    """
    if len(data) > MAX_FILE_BYTES:
        raise InvalidInput(f"expected evidence of at most {MAX_FILE_BYTES} bytes, got {len(data)}")
    if data.lstrip()[:1] == b"{":
        try:
            value = json.loads(data)
        except (ValueError, RecursionError) as wrong:
            raise InvalidInput(f"expected evidence as JSON, got damaged JSON: {wrong}") from None
        for outer in ("proof", "evidence"):  # a receipt has it in its proof
            if isinstance(value, dict) and isinstance(value.get(outer), dict):
                value = value[outer]
        found = Evidence.from_json(value)
    else:
        found = Evidence(_kind(data), data)
    return found if collateral is None else Evidence(found.kind, found.quote, collateral)


def _kind(quote: bytes) -> str:
    if len(quote) == REPORT_BYTES and 2 <= struct.unpack_from("<I", quote)[0] <= 5:
        return SEV_SNP
    if len(quote) > 48 and struct.unpack_from("<HH", quote) in ((3, 2), (4, 2), (5, 2)):
        return DCAP  # a version, and ECDSA P-256
    if quote[:3] in (b"\xd2\x84\x44", b"\x84\x44\xa1"):
        return NITRO  # COSE_Sign1, with its tag or without
    raise InvalidInput(
        "expected evidence: its JSON, an Intel quote (version 3, 4, 5), an SEV-SNP report of "
        f"{REPORT_BYTES} bytes or a Nitro document; got {len(quote)} bytes, first {hexstr(quote[:8])}"
    )


@foreign
def inspect(evidence: Evidence) -> dict[str, Any]:
    """Every field of evidence, for people. Nothing of it is verified. Raises NotAuthentic, UnknownKind."""
    if evidence.kind == DCAP:
        return {"kind": DCAP, "verified": False, **_intel(evidence)}
    if evidence.kind == SEV_SNP:
        return {"kind": SEV_SNP, "verified": False, **_amd(evidence)}
    if evidence.kind == NITRO:
        return {"kind": NITRO, "verified": False, **_nitro(evidence)}
    raise UnknownKind(f"expected evidence of kind {DCAP}, {SEV_SNP} or {NITRO}, got {evidence.kind!r}")


def _intel(evidence: Evidence) -> dict[str, Any]:
    quote = dcap_qvl.Quote.parse(evidence.quote)
    chain, _ = load_pem(bytes(quote.cert_chain_pem_bytes()))
    report, header = quote.report, quote.header
    fields = {
        name: hexstr(value)
        for name in sorted(dir(report))
        if not name.startswith("_") and isinstance(value := getattr(report, name), bytes)
    }
    pck = quote.pck_extension()
    return {
        "tee": str(quote.quote_type()).lower(),
        "version": header.version,
        "report": fields,
        "platform_id": hexstr(bytes(pck.ppid)),
        "fmspc": str(quote.fmspc()),
        "certificates": [_certificate(certificate) for certificate in chain],
        "collateral": _intel_collateral(evidence.collateral) if evidence.collateral else None,
    }


def _intel_collateral(collateral: bytes) -> Mapping[str, Any]:
    members = json.loads(collateral)
    info = json.loads(members["tcb_info"])
    names = ("id", "fmspc", "issueDate", "nextUpdate", "tcbEvaluationDataNumber")
    return {name: info.get(name) for name in names}


def _amd(evidence: Evidence) -> dict[str, Any]:
    report = SevReport.parse(evidence.quote)
    chain, lists = load_pem(evidence.collateral or b"")
    product = report.product or "Milan"
    return {
        "tee": SEV_SNP,
        "version": report.version,
        "product": report.product,
        "vmpl": report.vmpl,
        "debug": bool(report.policy >> 19 & 1),
        "migration_agent": bool(report.policy >> 18 & 1),
        "signing_key": "VLEK" if report.signing_key == 1 else "VCEK",
        "report": {name: hexstr(value) for name, value in report.registers.items()},
        "report_data": hexstr(report.report_data),
        "tcb": report.tcb(product),
        "platform_id": hexstr(report.chip_id),
        "certificates": [_certificate(certificate) for certificate in chain],
        "revocation_lists": [str(found.next_update_utc) for found in lists],
    }


def _nitro(evidence: Evidence) -> dict[str, Any]:
    document = NitroDocument(evidence.quote)
    return {
        "tee": NITRO,
        "module_id": document.module_id,
        "timestamp": document.timestamp // 1000,
        "report": {name: hexstr(value) for name, value in document.registers.items()},
        "report_data": hexstr(document.user_data),
        "certificates": [_certificate(load(der)) for der in document.certificates],
    }


def _certificate(certificate: Any) -> dict[str, str]:
    return {
        "name": common_name(certificate),
        "until": certificate.not_valid_after_utc.isoformat(),
        "key": key_hash(certificate),
    }
