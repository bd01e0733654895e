"""A pretended AMD: reports, chip and cloud keys, authorities, revocation lists in the real formats."""

from __future__ import annotations

import datetime as dt
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from sealdeal.model.evidence import SEV_SNP, Evidence

CHIP = bytes(range(64))
TCB = {"fmc": 1, "bootloader": 3, "tee": 2, "snp": 8, "microcode": 115}
MEASUREMENT, HOST_DATA = b"\x0a" * 48, b"\x0b" * 32
MODELS = {"Milan": (0x19, 0x01), "Genoa": (0x19, 0x11), "Turin": (0x1A, 0x02)}
DAY = 86_400

_PSS = padding.PSS(padding.MGF1(hashes.SHA384()), 48)
_RSA = [rsa.generate_private_key(65537, 2048) for _ in range(3)]
"""Keys of all roots, authorities for chips, authorities for clouds: making them takes the most time here."""
_CHIP_KEY = ec.generate_private_key(ec.SECP384R1())


def time(seconds: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, dt.UTC)


def pem(*parts: x509.Certificate | x509.CertificateRevocationList) -> bytes:
    return b"".join(part.public_bytes(Encoding.PEM) for part in parts)


@dataclass(frozen=True)
class Amd:
    """One processor line: its root, both authorities, and one chip."""

    product: str
    now: int
    chip: bytes = CHIP
    days: int = 3650
    """Life of the certificates."""
    foreign: rsa.RSAPrivateKey | None = None
    """Another root key than the one that all lines here share."""
    chip_key: ec.EllipticCurvePrivateKey = _CHIP_KEY

    def name(self, common: str) -> x509.Name:
        organisation = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "PRETENDED - NOT AMD")
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common), organisation])

    @property
    def root_key(self) -> rsa.RSAPrivateKey:
        return self.foreign or _RSA[0]

    @cached_property
    def root(self) -> x509.Certificate:
        return self.certificate(f"ARK-{self.product}", f"ARK-{self.product}", self.root_key, self.root_key, 1)

    @cached_property
    def authority(self) -> x509.Certificate:
        return self.certificate(f"SEV-{self.product}", f"ARK-{self.product}", _RSA[1], self.root_key, 0)

    @cached_property
    def cloud_authority(self) -> x509.Certificate:
        return self.certificate(f"SEV-VLEK-{self.product}", f"ARK-{self.product}", _RSA[2], self.root_key, 0)

    def key(
        self, kind: str = "VCEK", *, tcb: Mapping[str, int] = TCB, stepping: str = "B0", serial: int = 77
    ) -> x509.Certificate:
        """The certificate of the chip's or the cloud's key."""
        chip = self.chip[:8] if self.product == "Turin" else self.chip
        extensions = {
            "2": bytes([0x16, len(self.product) + 1 + len(stepping)]) + f"{self.product}-{stepping}".encode(),
            **{
                f"3.{number}": _integer(tcb[part])
                for part, number in {"bootloader": 1, "tee": 2, "snp": 3, "microcode": 8, "fmc": 9}.items()
            },
        }
        if kind == "VCEK":
            extensions["4"] = chip
        issuer, key = (
            (f"SEV-{self.product}", _RSA[1]) if kind == "VCEK" else (f"SEV-VLEK-{self.product}", _RSA[2])
        )
        return self.certificate(f"SEV-{kind}", issuer, self.chip_key, key, None, extensions, serial)

    def certificate(
        self,
        subject: str,
        issuer: str,
        key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey,
        signer: rsa.RSAPrivateKey,
        length: int | None,
        extensions: Mapping[str, bytes] | None = None,
        serial: int | None = None,
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(self.name(subject))
            .issuer_name(self.name(issuer))
            .public_key(key.public_key())
            .serial_number(serial or x509.random_serial_number())
            .not_valid_before(time(self.now - DAY))
            .not_valid_after(time(self.now + self.days * DAY))
        )
        if length is not None:
            usage = [False] * 9
            usage[5] = usage[6] = True
            builder = builder.add_extension(x509.BasicConstraints(True, length), True)
            builder = builder.add_extension(x509.KeyUsage(*usage), True)
        for number, value in (extensions or {}).items():
            oid = x509.ObjectIdentifier(f"1.3.6.1.4.1.3704.1.{number}")
            builder = builder.add_extension(x509.UnrecognizedExtension(oid, value), False)
        return builder.sign(signer, hashes.SHA384(), rsa_padding=_PSS)

    def revocations(
        self, revoked: Iterable[x509.Certificate] = (), *, days: int = 30, issued: int | None = None
    ) -> x509.CertificateRevocationList:
        at = time(issued if issued is not None else self.now - 60)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.root.subject)
            .last_update(at)
            .next_update(at + dt.timedelta(days=days))
        )
        for certificate in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(certificate.serial_number)
            builder = builder.add_revoked_certificate(entry.revocation_date(at).build())
        return builder.sign(self.root_key, hashes.SHA384(), rsa_padding=_PSS)

    def collateral(
        self,
        key: x509.Certificate | None = None,
        *,
        kind: str = "VCEK",
        revocations: x509.CertificateRevocationList | None = None,
    ) -> bytes:
        """PEM: key, authority, root, list."""
        authority = self.authority if kind == "VCEK" else self.cloud_authority
        chain = [key or self.key(kind), authority, self.root]
        listed = self.revocations() if revocations is None else revocations  # an empty list is false
        return pem(*chain) + pem(listed)

    def report(
        self,
        report_data: bytes = bytes(64),
        *,
        version: int = 3,
        policy: int = 0x3001F,
        vmpl: int = 0,
        kind: str = "VCEK",
        tcb: Mapping[str, int] = TCB,
        chip: bytes | None = None,
        model: tuple[int, int] | None = None,
    ) -> bytes:
        """A signed report."""
        body = bytearray(0x2A0)
        struct.pack_into("<IIQ", body, 0, version, 4, policy)
        struct.pack_into("<II", body, 0x30, vmpl, 1)
        struct.pack_into("<I", body, 0x48, (kind == "VLEK") << 2)
        body[0x50:0x90], body[0x90:0xC0], body[0xC0:0xE0] = report_data, MEASUREMENT, HOST_DATA
        places = {"bootloader": 0, "tee": 1, "snp": 6, "microcode": 7}
        if self.product == "Turin":
            places = {"fmc": 0, "bootloader": 1, "tee": 2, "snp": 3, "microcode": 7}
        for part, place in places.items():
            body[0x180 + place] = tcb[part]
        if version >= 3:
            body[0x188:0x18A] = bytes(model or MODELS[self.product])
        own = self.chip[:8] + bytes(56) if self.product == "Turin" else self.chip
        body[0x1A0:0x1E0] = own if chip is None else chip
        r, s = decode_dss_signature(self.chip_key.sign(bytes(body), ec.ECDSA(hashes.SHA384())))
        return bytes(body) + r.to_bytes(72, "little") + s.to_bytes(72, "little") + bytes(368)

    def evidence(self, report_data: bytes = bytes(64), *, kind: str = "VCEK") -> Evidence:
        return Evidence(SEV_SNP, self.report(report_data, kind=kind), self.collateral(kind=kind))


def _integer(value: int) -> bytes:
    body = value.to_bytes(value.bit_length() // 8 + 1, "big")
    return bytes([2, len(body)]) + body
