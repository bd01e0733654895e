"""AMD's SEV-SNP reports, versions 2 to 5, under AMD's own roots: Milan, Genoa (and Siena, Bergamo), Turin.

A report is signed by a key of the chip (VCEK) or of a cloud (VLEK), derived from the chip's firmware levels.
Its certificate, the authority's and the root's come along as PEM, leaf first, with the root's revocation
list: what AMD's key server answers, one file after another. AMD gives no status to a firmware level: require
one with `MinTcb`. Layouts: AMD 56860 (SEV-SNP ABI), 57230 (VCEK).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from cryptography import x509

from sealdeal.model.evidence import (
    MAX_COLLATERAL_BYTES,
    SEV_SNP,
    Claims,
    DebugEnabled,
    Evidence,
    NotAuthentic,
    Supervised,
    TrustClass,
    UnknownKind,
)
from sealdeal.model.types import hexstr

from .certificates import (
    check_chain,
    check_ecdsa384,
    check_revocation,
    common_name,
    foreign,
    key_hash,
    load_pem,
    load_root,
)

ROOTS = {
    "9f056bee44377e29308cb5ffa895bdfb62d18881fa6bed8d6f075b0204089cb9": "Milan",
    "429a69c9422aa258ee4d8db5fcda9c6470ef15f8cd5a9cebd6cbc7d90b863831": "Genoa",
    "4f125410563a2ab9a50356f9243f6fe0b6f73de98603f53f90339c70e9d7ad08": "Turin",
}
"""SHA-256 of the public keys of AMD's roots (ARK), by processor line."""

REPORT_BYTES = 1184
_SIGNED_BYTES = 0x2A0
_OID = "1.3.6.1.4.1.3704.1"
"""AMD's extensions of a VCEK: .2 product, .3.n security versions, .4 the chip's id."""
_VERSIONS = {"bootloader": 1, "tee": 2, "snp": 3, "microcode": 8}
"""Parts of a TCB, and where a certificate has them under .3."""
_PLACES = {"bootloader": 0, "tee": 1, "snp": 6, "microcode": 7}
_PLACES_TURIN = {"fmc": 0, "bootloader": 1, "tee": 2, "snp": 3, "microcode": 7}
"""And which byte of a report's TCB is which."""


@dataclass(frozen=True, slots=True)
class SevReport:
    """A report's fields, unchecked."""

    version: int
    policy: int
    """Bit 18: a migration agent may be bound; bit 19: debug."""
    vmpl: int
    """Privilege level that asked for the report; 0 is the highest."""
    signing_key: int
    """0: VCEK, 1: VLEK."""
    registers: dict[str, bytes]
    report_data: bytes
    reported_tcb: bytes
    chip_id: bytes
    """All zero when the host masks it."""
    product: str | None
    """By the processor's family and model; None in version 2, which has neither, or for an unknown one."""

    @classmethod
    def parse(cls, quote: bytes) -> SevReport:
        """Raises NotAuthentic for another length, version or signature algorithm."""
        if len(quote) != REPORT_BYTES:
            raise NotAuthentic(f"expected an SEV-SNP report of {REPORT_BYTES} bytes, got {len(quote)}")
        version, _, policy = struct.unpack_from("<IIQ", quote)
        vmpl, algorithm = struct.unpack_from("<II", quote, 0x30)
        (keys,) = struct.unpack_from("<I", quote, 0x48)
        if not 2 <= version <= 5 or algorithm != 1:
            raise NotAuthentic(
                f"expected an SEV-SNP report of version 2 to 5, signed with ECDSA P-384 (1), got version "
                f"{version}, algorithm {algorithm}"
            )
        registers = {
            "measurement": quote[0x90:0xC0],
            "host_data": quote[0xC0:0xE0],
            "family_id": quote[0x10:0x20],
            "image_id": quote[0x20:0x30],
            "id_key_digest": quote[0xE0:0x110],
            "author_key_digest": quote[0x110:0x140],
            "policy": quote[0x08:0x10],
            "platform_info": quote[0x40:0x48],
        }
        return cls(
            version=version,
            policy=policy,
            vmpl=vmpl,
            signing_key=keys >> 2 & 7,
            registers=registers,
            report_data=quote[0x50:0x90],
            reported_tcb=quote[0x180:0x188],
            chip_id=quote[0x1A0:0x1E0],
            product=_product(quote[0x188], quote[0x189]) if version >= 3 else None,
        )

    def tcb(self, product: str) -> dict[str, int]:
        """The reported security versions, by part."""
        places = _PLACES_TURIN if product == "Turin" else _PLACES
        return {part: self.reported_tcb[place] for part, place in places.items()}


class SevVerifier:
    """Evidence of kind `sev-snp` to Claims, under AMD's roots or one of somebody's own."""

    kind = SEV_SNP

    def __init__(self, root: bytes | None = None, *, revocation: bool = True) -> None:
        """`root`: another root's certificate (PEM or DER; its name is `ARK-` and a product): None is AMD's,
        which alone makes `trust` hardware. `revocation`: the root's list has to come along.
        """
        self.trust = TrustClass.HARDWARE if root is None else TrustClass.SIMULATED
        self._revocation = revocation
        self._products = dict(ROOTS)
        if root is not None:
            own = load_root(root)
            self._products = {key_hash(own): common_name(own).removeprefix("ARK-")}

    def verify(self, evidence: Evidence, now: int) -> Claims:
        """Authentic claims at unix time `now`, not yet judged.

        Raises UnknownKind, WrongRoot, Revoked, CollateralExpired, DebugEnabled, Supervised, NotAuthentic.
        """
        if evidence.kind != self.kind:
            raise UnknownKind(f"expected evidence of kind {self.kind}, got {evidence.kind!r}")
        return self._verify(evidence, now)

    @foreign
    def _verify(self, evidence: Evidence, now: int) -> Claims:
        report = SevReport.parse(evidence.quote)
        if evidence.collateral is None or len(evidence.collateral) > MAX_COLLATERAL_BYTES:
            raise NotAuthentic(
                f"expected certificates in PEM (VCEK or VLEK, its authority, AMD's root) of at most "
                f"{MAX_COLLATERAL_BYTES} bytes, got {'none' if evidence.collateral is None else 'more'}"
            )
        chain, lists = load_pem(evidence.collateral)
        until = check_chain(chain, frozenset(self._products), now)
        if self._revocation or lists:
            until = min(until, check_revocation(chain, lists, now))
        key, product = chain[0], self._products[key_hash(chain[-1])]
        r, s = (int.from_bytes(evidence.quote[at : at + 72], "little") for at in (0x2A0, 0x2E8))
        check_ecdsa384(key, r, s, evidence.quote[:_SIGNED_BYTES])
        platform = _same_platform(report, key, product)
        if report.policy >> 19 & 1:
            raise DebugEnabled(
                "expected a TEE without debug, got a policy that lets its host read its memory"
            )
        if report.vmpl != 0:
            raise Supervised(
                f"expected a report from privilege level 0, got one from {report.vmpl}: a paravisor above "
                "the guest can read its memory"
            )
        if report.policy >> 18 & 1:
            raise Supervised("expected a guest that nobody may migrate, got a policy with a migration agent")
        return Claims(
            tee="sev-snp",
            trust=self.trust,
            registers=report.registers,
            report_data=report.report_data,
            tcb_status="",
            advisories=(),
            debug=False,
            platform_id=platform,
            valid_until=until,
            tcb_eval=0,
            tcb=report.tcb(product),
        )


def _same_platform(report: SevReport, key: x509.Certificate, product: str) -> bytes:
    """The report and the certificate of the key that signed it speak of one platform; its id."""
    name = common_name(key)
    if name not in ("SEV-VCEK", "SEV-VLEK") or (name == "SEV-VLEK") != (report.signing_key == 1):
        raise NotAuthentic(
            f"expected the certificate of the report's {'VLEK' if report.signing_key == 1 else 'VCEK'}, got "
            f"{name!r}"
        )
    stated = key_product(key)
    if stated != product or (report.version >= 3 and report.product != product):
        raise NotAuthentic(
            f"expected a {product} processor under the root of {product}, the certificate is for {stated}, "
            f"the report of {report.product or 'an unnamed one'}"
        )
    for part, came in report.tcb(product).items():
        number = 9 if part == "fmc" else _VERSIONS[part]
        if (signed := _integer(_extension(key, f"3.{number}"))) != came:
            raise NotAuthentic(
                f"expected firmware levels as in the key's certificate ({part} {signed}), got {part} {came}"
            )
    if name == "SEV-VLEK":  # it says nothing of the chip, and the host may hide the chip's id
        return report.chip_id[: 8 if product == "Turin" else 64] if any(report.chip_id) else b""
    chip = key_chip(key)
    if any(report.chip_id) and report.chip_id[: len(chip)] != chip:
        raise NotAuthentic(
            f"expected the certificate of chip {hexstr(report.chip_id)[:18]}…, got the one of "
            f"{hexstr(chip)[:18]}…"
        )
    return chip


def key_product(key: x509.Certificate) -> str:
    """The processor line whose root signs for this VCEK or VLEK: its product without the stepping."""
    name = _extension(key, "2")
    line = name[2:].decode("ascii").partition("-")[0] if name[:1] in (b"\x16", b"\x0c") else ""
    return "Genoa" if line in ("Siena", "Bergamo") else line


def key_chip(key: x509.Certificate) -> bytes:
    """The id of a VCEK's chip: 64 bytes, from Turin on 8."""
    value = _extension(key, "4")
    if value[:1] == b"\x04" and len(value) - 2 == value[1] and len(value) in (10, 66):
        value = value[2:]  # newer ones wrap it in an OCTET STRING
    if len(value) not in (8, 64):
        raise NotAuthentic(f"expected a chip id of 64 or 8 bytes in the certificate, got {len(value)}")
    return value


def _extension(key: x509.Certificate, number: str) -> bytes:
    for extension in key.extensions:
        value = extension.value
        if extension.oid.dotted_string == f"{_OID}.{number}" and isinstance(
            value, x509.UnrecognizedExtension
        ):
            return value.value
    raise NotAuthentic(f"expected AMD's extension {_OID}.{number} in {common_name(key)}, it is not there")


def _integer(der: bytes) -> int:
    if der[:1] != b"\x02" or len(der) != 2 + der[1]:
        raise NotAuthentic(f"expected a DER integer as security version, got {hexstr(der)[:40]}")
    return int.from_bytes(der[2:], "big")


def _product(family: int, model: int) -> str | None:
    if family == 0x19:
        return "Milan" if model <= 0x0F else "Genoa" if model <= 0x1F or 0xA0 <= model <= 0xAF else None
    return "Turin" if family == 0x1A and model <= 0x11 else None
