"""A simulated TDX platform: quotes in Intel's real format, under a root made on this machine.

It protects nothing: whoever runs it can sign any measurement. What it is for is that every byte of the
verification path (quote, PCK chain, revocation lists, TCB info, QE identity, registers) is the one that
hardware takes, and that the root alone tells the two apart.

Keys, serial numbers and signatures draw on the operating system's randomness, inside `cryptography`.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import json
import secrets
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID

from sealdeal.model.errors import InvalidInput
from sealdeal.model.evidence import DCAP, Evidence, tdx_registers
from sealdeal.model.types import Bytes32

from .collateral import Need

_SGX_OID = "1.2.840.113741.1.13.1"
"""Intel's SGX extension of a PCK certificate: identifies the machine and its TCB."""
_INTEL_QE_VENDOR = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")  # verifiers require Intel's
_FMSPC = bytes.fromhex("50494d000000")
_QE_MRSIGNER = hashlib.sha256(b"sealdeal simulated TD quoting enclave").digest()
_CPU_SVN, _PCE_SVN = bytes([3] * 8 + [0] * 8), 11
_TEE_TCB_SVN = bytes([5, 1, 2] + [0] * 13)
_TCB_EVALUATION = 17
_XFAM = bytes.fromhex("e702060000000000")
_QE_ATTRIBUTES = bytes.fromhex("1500000000000000e700000000000000")
_CLOCK_SKEW = 3600
"""Collateral is dated back by this many seconds, so that a node whose clock is a little behind takes it."""
_ROLES = ("root", "pckca", "pck", "tcb", "attestation")

PrivateKey = ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True, repr=False)
class SimulatedPlatform:
    """One pretended manufacturer (root, PCK authority, TCB signer) and one machine (PCK, attestation key)."""

    ppid: bytes
    keys: Mapping[str, PrivateKey]
    certificates: Mapping[str, x509.Certificate]
    fmspc: bytes = _FMSPC
    """Six bytes that name the machine's model: collateral is per model."""

    @classmethod
    def generate(cls, now: int) -> Self:
        """A new root and machine; certificates last ten years from unix time `now`."""
        keys = {role: ec.generate_private_key(ec.SECP256R1()) for role in _ROLES}
        ppid = secrets.token_bytes(16)
        root = _certificate("Simulated TEE Root CA", keys["root"], None, keys["root"], now, ca=1)
        pckca = _certificate("Simulated PCK Platform CA", keys["pckca"], root, keys["root"], now, ca=0)
        pck = _pck_certificate(keys, pckca, ppid, _FMSPC, now)
        tcb = _certificate("Simulated TCB Signing", keys["tcb"], root, keys["root"], now)
        return cls(ppid, keys, {"root": root, "pckca": pckca, "pck": pck, "tcb": tcb})

    def sibling(self, now: int, *, fmspc: bytes | None = None) -> Self:
        """Another machine of the same manufacturer; `fmspc` (6 bytes) names another model."""
        keys = {
            **self.keys,
            **{role: ec.generate_private_key(ec.SECP256R1()) for role in ("pck", "attestation")},
        }
        ppid, model = secrets.token_bytes(16), fmspc or self.fmspc
        pck = _pck_certificate(keys, self.certificates["pckca"], ppid, model, now)
        return dataclasses.replace(
            self, ppid=ppid, keys=keys, certificates={**self.certificates, "pck": pck}, fmspc=model
        )

    def to_json(self) -> str:
        """Everything, private keys included: keep it where only the platform's owner reads (mode 600)."""
        return json.dumps(
            {
                "version": 1,
                "ppid": self.ppid.hex(),
                "fmspc": self.fmspc.hex(),
                "keys": {
                    role: key.private_bytes(
                        serialization.Encoding.PEM,
                        serialization.PrivateFormat.PKCS8,
                        serialization.NoEncryption(),
                    ).decode()
                    for role, key in self.keys.items()
                },
                "certificates": {role: _pem(certificate) for role, certificate in self.certificates.items()},
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The opposite of `to_json`. Raises InvalidInput."""
        try:
            kept = json.loads(text)
            keys: dict[str, PrivateKey] = {}
            for role in _ROLES:
                key = serialization.load_pem_private_key(kept["keys"][role].encode(), password=None)
                if not isinstance(key, ec.EllipticCurvePrivateKey):
                    raise ValueError(f"{role} is not an elliptic-curve key")
                keys[role] = key
            certificates = {
                role: x509.load_pem_x509_certificate(pem.encode())
                for role, pem in kept["certificates"].items()
            }
            if set(certificates) != {"root", "pckca", "pck", "tcb"}:
                raise ValueError("certificates are lacking")
            model = bytes.fromhex(kept.get("fmspc", _FMSPC.hex()))  # earlier files have none
            return cls(bytes.fromhex(kept["ppid"]), keys, certificates, model)
        except (ValueError, KeyError, TypeError, AttributeError) as wrong:
            raise InvalidInput(
                f"expected a simulated platform as it was written, got a damaged one ({wrong}): start anew"
            ) from None

    @property
    def root_der(self) -> bytes:
        """The root certificate: what a node of a simulated network trusts."""
        return self.certificates["root"].public_bytes(serialization.Encoding.DER)

    @staticmethod
    def measure(guest_release: Bytes32, app_checksum: Bytes32) -> dict[str, bytes]:
        """The registers of a guest of this release, started for this app."""
        return tdx_registers(guest_release, app_checksum)

    def evidence(self, report_data: bytes, registers: Mapping[str, bytes], now: int) -> Evidence:
        """A quote over `report_data` (64 bytes) with fresh collateral, at unix time `now`."""
        return Evidence(DCAP, self.quote(report_data, registers), self.collateral(now))

    def quote(
        self,
        report_data: bytes,
        registers: Mapping[str, bytes],
        *,
        version: int = 4,
        debug: bool = False,
        svn: bytes = _TEE_TCB_SVN,
        service_td: bytes = bytes(48),
        migratable: bool = False,
    ) -> bytes:
        """A TDX quote, version 4 or 5. `registers` as `measure` gives them, 48 bytes each.

        The rest are knobs for tests: `svn` is the TDX module's security version (16 bytes), `service_td` the
        measurement of a service TD (version 5 only). Raises InvalidInput for a register that lacks or another
        length.
        """
        names = ("mrtd", "mr_config_id", "rtmr0", "rtmr1", "rtmr2", "rtmr3")
        values = {name: registers.get(name, b"") for name in names}
        if (
            len(report_data) != 64
            or any(len(value) != 48 for value in values.values())
            or version not in (4, 5)
        ):
            raise InvalidInput(
                f"expected 64 bytes of report data, registers {', '.join(names)} of 48 bytes, version 4, 5; "
                f"got {len(report_data)} bytes, {[len(v) for v in values.values()]}, version {version}"
            )
        header = struct.pack("<HHIHH", version, 2, 0x81, 0, 0) + _INTEL_QE_VENDOR + bytes(20)
        attributes = struct.pack("<Q", 1 << 28 | int(migratable) << 29 | int(debug))  # 28: SEPT_VE_DISABLE
        body = svn + bytes(48 + 48 + 8) + attributes + _XFAM
        body += values["mrtd"] + values["mr_config_id"] + bytes(48 + 48)
        body += b"".join(values[f"rtmr{i}"] for i in range(4)) + report_data
        if version == 5:  # a TD 1.5 body, behind its type and size
            body += svn + service_td
            body = struct.pack("<HI", 3, len(body)) + body
        signed = header + body
        signature = self._quote_signature(signed)
        return signed + struct.pack("<I", len(signature)) + signature

    def _quote_signature(self, signed: bytes) -> bytes:
        public = (
            self.keys["attestation"]
            .public_key()
            .public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)[1:]
        )
        authentication = bytes(range(32))
        report = (
            bytes(16 + 4 + 28)
            + _QE_ATTRIBUTES
            + hashlib.sha256(b"sealdeal simulated QE").digest()
            + bytes(32)
            + _QE_MRSIGNER
            + bytes(96)
            + struct.pack("<HH", 2, 6)
            + bytes(60)
            + hashlib.sha256(public + authentication).digest()
            + bytes(32)
        )
        chain = "".join(_pem(self.certificates[role]) for role in ("pck", "pckca", "root")).encode()
        certification = (
            report
            + _raw_signature(self.keys["pck"], report)
            + struct.pack("<H", len(authentication))
            + authentication
            + struct.pack("<HI", 5, len(chain))
            + chain
        )
        own = _raw_signature(self.keys["attestation"], signed) + public
        return own + struct.pack("<HI", 6, len(certification)) + certification

    def collateral(
        self,
        now: int,
        *,
        days: int = 30,
        tcb_status: str = "UpToDate",
        tcb_eval: int = _TCB_EVALUATION,
        revoke_pck: bool = False,
        revoke_authority: bool = False,
        sgx: bool = False,
    ) -> bytes:
        """QuoteCollateralV3 as a PCCS answers it, issued at unix time `now`; the knobs are for tests.

        `sgx`: the TCB levels and the identity of SGX instead of TDX.
        """
        issued = _time(now - _CLOCK_SKEW)
        until = issued + dt.timedelta(days=days)
        times = {"issueDate": _zulu(issued), "nextUpdate": _zulu(until)}
        advisories = [] if tcb_status == "UpToDate" else ["SIMULATED-SA-00001"]

        def level(tcb: dict[str, Any], status: str, advisory: Iterable[str] = ()) -> dict[str, Any]:
            dated = {"tcb": tcb, "tcbDate": _zulu(issued - dt.timedelta(days=10)), "tcbStatus": status}
            return {**dated, "advisoryIDs": list(advisory)} if advisory else dated

        module = {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8}
        components = {
            "sgxtcbcomponents": [{"svn": svn} for svn in _CPU_SVN],
            "pcesvn": _PCE_SVN,
            **({} if sgx else {"tdxtcbcomponents": [{"svn": svn} for svn in _TEE_TCB_SVN]}),
        }
        tcb_info: dict[str, Any] = {
            "id": "SGX" if sgx else "TDX",
            "version": 3,
            **times,
            "fmspc": self.fmspc.hex().upper(),
            "pceId": "0000",
            "tcbType": 0,
            "tcbEvaluationDataNumber": tcb_eval,
            "tcbLevels": [level(components, tcb_status, advisories)],
        }
        if not sgx:
            identity = {"id": "TDX_01", **module, "tcbLevels": [level({"isvsvn": 4}, "UpToDate")]}
            tcb_info |= {"tdxModule": module, "tdxModuleIdentities": [identity]}
        qe_identity = {
            "id": "QE" if sgx else "TD_QE",
            "version": 2,
            **times,
            "tcbEvaluationDataNumber": tcb_eval,
            "miscselect": "00" * 4,
            "miscselectMask": "FF" * 4,
            "attributes": "11" + "00" * 15,
            "attributesMask": "FB" + "FF" * 7 + "00" * 8,
            "mrsigner": _QE_MRSIGNER.hex().upper(),
            "isvprodid": 2,
            "tcbLevels": [level({"isvsvn": 4}, "UpToDate")],
        }
        members: dict[str, str] = {
            "pck_crl_issuer_chain": _pem(self.certificates["pckca"]) + _pem(self.certificates["root"]),
            "root_ca_crl": self._revocations("root", ("pckca",) if revoke_authority else (), issued, until),
            "pck_crl": self._revocations("pckca", ("pck",) if revoke_pck else (), issued, until),
        }
        for name, content in (("tcb_info", tcb_info), ("qe_identity", qe_identity)):
            text = json.dumps(content, separators=(",", ":"))
            members[name] = text
            members[f"{name}_signature"] = _raw_signature(self.keys["tcb"], text.encode()).hex()
            members[f"{name}_issuer_chain"] = _pem(self.certificates["tcb"]) + _pem(self.certificates["root"])
        return json.dumps(members).encode()

    async def fetch(self, need: Need, now: int) -> bytes:
        """As the vendor that a node asks for collateral of its own (`tee.collateral.Source`)."""
        return self.collateral(now)

    def _revocations(
        self, issuer: str, revoked: Iterable[str], issued: dt.datetime, until: dt.datetime
    ) -> str:
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.keys[issuer].public_key())
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificates[issuer].subject)
            .last_update(issued)
            .next_update(until)
            .add_extension(x509.CRLNumber(1), critical=False)
            .add_extension(authority, critical=False)
        )
        for role in revoked:
            serial = self.certificates[role].serial_number
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(issued).build()
            builder = builder.add_revoked_certificate(entry)
        signed = builder.sign(self.keys[issuer], hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.DER).hex()


# --- certificates and their DER -------------------------------------------------------------------


def _certificate(
    name: str,
    key: PrivateKey,
    issuer: x509.Certificate | None,
    issuer_key: PrivateKey,
    now: int,
    *,
    ca: int | None = None,
    sgx: bytes | None = None,
) -> x509.Certificate:
    """`ca`: the path length of an authority, None for a leaf."""
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, name),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "SIMULATED TEE - NOT HARDWARE"),
        ]
    )
    usage = x509.KeyUsage(
        digital_signature=ca is None,
        content_commitment=ca is None,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca is not None,
        crl_sign=ca is not None,
        encipher_only=False,
        decipher_only=False,
    )
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_time(now) - dt.timedelta(days=1))
        .not_valid_after(_time(now) + dt.timedelta(days=3653))
        .add_extension(authority, critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(usage, critical=True)
        .add_extension(x509.BasicConstraints(ca is not None, ca), critical=True)
    )
    if sgx is not None:
        extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(_SGX_OID), sgx)
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _pck_certificate(
    keys: Mapping[str, PrivateKey], issuer: x509.Certificate, ppid: bytes, fmspc: bytes, now: int
) -> x509.Certificate:
    name, sgx = "Simulated PCK Certificate", _sgx_extension(ppid, fmspc)
    return _certificate(name, keys["pck"], issuer, keys["pckca"], now, sgx=sgx)


def _sgx_extension(ppid: bytes, fmspc: bytes) -> bytes:
    tcb = b"".join(_member(f"2.{i}", _integer(svn)) for i, svn in enumerate(_CPU_SVN, 1))
    tcb += _member("2.17", _integer(_PCE_SVN)) + _member("2.18", _der(0x04, _CPU_SVN))
    configuration = b"".join(_member(f"7.{i}", _der(0x01, b"\0")) for i in (1, 2, 3))  # all three: no
    return _der(
        0x30,
        _member("1", _der(0x04, ppid))
        + _member("2", _der(0x30, tcb))
        + _member("3", _der(0x04, bytes(2)))
        + _member("4", _der(0x04, fmspc))
        + _member("5", _der(0x0A, b"\1"))
        + _member("6", _der(0x04, hashlib.sha256(ppid).digest()[:16]))
        + _member("7", _der(0x30, configuration)),
    )


def _der(tag: int, body: bytes) -> bytes:
    size = len(body)
    if size < 128:
        return bytes([tag, size]) + body
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + body


def _integer(value: int) -> bytes:
    return _der(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _member(suffix: str, value: bytes) -> bytes:
    first, second, *rest = (int(part) for part in f"{_SGX_OID}.{suffix}".split("."))
    encoded = bytearray([first * 40 + second])
    for number in rest:
        digits = [number & 0x7F]
        while number := number >> 7:
            digits.append(0x80 | (number & 0x7F))
        encoded += bytes(reversed(digits))
    return _der(0x30, _der(0x06, bytes(encoded)) + value)


def _raw_signature(key: PrivateKey, data: bytes) -> bytes:
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _time(seconds: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, dt.UTC)


def _zulu(moment: dt.datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
