"""A pretended AWS: attestation documents under a root of its own, in the real format."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from sealdeal.model.evidence import NITRO, Evidence

PCRS = {index: bytes([index + 1]) * 48 for index in range(3)} | {index: bytes(48) for index in range(3, 16)}
_KEYS = [ec.generate_private_key(ec.SECP384R1()) for _ in range(3)]


def time(seconds: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, dt.UTC)


@dataclass(frozen=True)
class Aws:
    """Root, one authority, one enclave."""

    now: int
    root_key: ec.EllipticCurvePrivateKey = _KEYS[0]
    leaf_seconds: int = 3 * 3600

    @cached_property
    def root(self) -> x509.Certificate:
        return self._certificate("root", "root", self.root_key, self.root_key, 2, 10**8)

    @property
    def root_der(self) -> bytes:
        return self.root.public_bytes(Encoding.DER)

    @cached_property
    def authority(self) -> x509.Certificate:
        return self._certificate("zone", "root", _KEYS[1], self.root_key, 0, 10**6)

    @cached_property
    def leaf(self) -> x509.Certificate:
        return self._certificate("enclave", "zone", _KEYS[2], _KEYS[1], None, self.leaf_seconds)

    def _certificate(
        self,
        subject: str,
        issuer: str,
        key: ec.EllipticCurvePrivateKey,
        signer: ec.EllipticCurvePrivateKey,
        length: int | None,
        seconds: int,
    ) -> x509.Certificate:
        def name(common: str) -> x509.Name:
            return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"pretended {common}")])

        usage = [False] * 9
        usage[0], usage[5] = length is None, length is not None
        return (
            x509.CertificateBuilder()
            .subject_name(name(subject))
            .issuer_name(name(issuer))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(time(self.now - 60))
            .not_valid_after(time(self.now + seconds))
            .add_extension(x509.BasicConstraints(length is not None, length), True)
            .add_extension(x509.KeyUsage(*usage), True)
            .sign(signer, hashes.SHA384())
        )

    def document(self, report_data: bytes = bytes(64), *, tagged: bool = False, **changes: Any) -> bytes:
        """A signed document; `changes` replace members of its payload."""
        payload = cbor2.dumps(
            {
                "module_id": "i-0123456789abcdef0-enc0123456789abcdef",
                "digest": "SHA384",
                "timestamp": self.now * 1000,
                "pcrs": PCRS,
                "certificate": self.leaf.public_bytes(Encoding.DER),
                "cabundle": [self.root_der, self.authority.public_bytes(Encoding.DER)],
                "public_key": None,
                "user_data": report_data,
                "nonce": None,
                **changes,
            }
        )
        protected = cbor2.dumps({1: -35})
        signed = cbor2.dumps(["Signature1", protected, b"", payload])
        r, s = decode_dss_signature(_KEYS[2].sign(signed, ec.ECDSA(hashes.SHA384())))
        cose = [protected, {}, payload, r.to_bytes(48, "big") + s.to_bytes(48, "big")]
        return cbor2.dumps(cbor2.CBORTag(18, cose) if tagged else cose)

    def evidence(self, report_data: bytes = bytes(64), **changes: Any) -> Evidence:
        return Evidence(NITRO, self.document(report_data, **changes))
