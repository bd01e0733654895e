"""Certificates and revocation lists from strangers: chains that must end at a root we pinned."""

from __future__ import annotations

import datetime as dt
import hashlib
import re
import warnings
from base64 import b64decode
from collections.abc import Callable, Sequence
from functools import wraps
from typing import ParamSpec, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.utils import CryptographyDeprecationWarning

from sealdeal.model.errors import EvidenceRefused
from sealdeal.model.evidence import CollateralExpired, NotAuthentic, Revoked, WrongRoot

MAX_PARTS = 8
"""Certificates and lists that may come along: real chains have three to five."""

# AMD gives each VCEK the serial number 0, which RFC 5280 forbids; a later `cryptography` may refuse it.
warnings.filterwarnings("ignore", "Parsed a serial number which wasn't pos", CryptographyDeprecationWarning)

_PEM = re.compile(rb"-----BEGIN (CERTIFICATE|X509 CRL)-----([A-Za-z0-9+/=\s]*)-----END \1-----")

P = ParamSpec("P")
R = TypeVar("R")


def foreign(parse: Callable[P, R]) -> Callable[P, R]:
    """A function that reads strangers' bytes: whatever a parser below it throws becomes NotAuthentic.

    X.509 and its keys have more ways to be malformed than `cryptography` documents exceptions for.
    """

    @wraps(parse)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return parse(*args, **kwargs)
        except EvidenceRefused:
            raise
        except Exception as wrong:
            said = " ".join(str(wrong).split())[:200]
            raise NotAuthentic(
                f"expected well-formed evidence, got what cannot be read: {type(wrong).__name__}: {said}"
            ) from None

    return guarded


@foreign
def load(der: bytes) -> x509.Certificate:
    """One certificate. Raises NotAuthentic."""
    return x509.load_der_x509_certificate(der)


@foreign
def load_root(data: bytes) -> x509.Certificate:
    """A root certificate that somebody configured, PEM or DER. Raises NotAuthentic."""
    certificates, _ = load_pem(data) if b"-----BEGIN" in data else ([load(data)], [])
    if len(certificates) != 1:
        raise NotAuthentic(f"expected one root certificate, got {len(certificates)}")
    return certificates[0]


@foreign
def load_pem(
    data: bytes,
) -> tuple[list[x509.Certificate], list[x509.CertificateRevocationList]]:
    """Certificates and revocation lists of a PEM text, each in its order. Raises NotAuthentic."""
    blocks = _PEM.findall(data)
    if len(blocks) > MAX_PARTS:
        raise NotAuthentic(f"expected at most {MAX_PARTS} certificates and lists, got {len(blocks)}")
    certificates = [load(b64decode(body)) for kind, body in blocks if kind == b"CERTIFICATE"]
    lists = [x509.load_der_x509_crl(b64decode(body)) for kind, body in blocks if kind == b"X509 CRL"]
    return certificates, lists


def key_hash(certificate: x509.Certificate) -> str:
    """SHA-256 of a certificate's public key (SubjectPublicKeyInfo), which survives a renewal."""
    spki = certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(spki).hexdigest()


def common_name(certificate: x509.Certificate) -> str:
    """The subject's common name, or an empty text."""
    names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""


@foreign
def check_chain(chain: Sequence[x509.Certificate], pinned: frozenset[str], now: int) -> int:
    """`chain`, leaf first, ends at a root whose `key_hash` is pinned; unix time at which it ceases to hold.

    Raises WrongRoot, CollateralExpired, NotAuthentic.
    """
    if not 2 <= len(chain) <= MAX_PARTS:
        raise NotAuthentic(f"expected a chain of 2 to {MAX_PARTS} certificates, got {len(chain)}")
    root = chain[-1]
    if key_hash(root) not in pinned:
        raise WrongRoot(
            f"expected a chain that ends at a pinned root (key {', '.join(sorted(pinned))}), got "
            f"{common_name(root) or 'a root without a name'} (key {key_hash(root)})"
        )
    for depth, certificate in enumerate(chain):
        issuer = chain[min(depth + 1, len(chain) - 1)]
        name = common_name(certificate)
        try:
            certificate.verify_directly_issued_by(issuer)
        except (InvalidSignature, ValueError, TypeError):
            raise NotAuthentic(
                f"expected certificate {name} to be issued by {common_name(issuer)}, its signature is not"
            ) from None
        if isinstance(key := certificate.public_key(), rsa.RSAPublicKey) and key.key_size < 2048:
            raise NotAuthentic(f"expected keys of at least 2048 bits, {name} has {key.key_size}")
        if depth:
            _may_issue(certificate, depth, name)
        begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if not begins.timestamp() <= now <= ends.timestamp():
            raise CollateralExpired(
                f"expected certificates valid at {_text(now)}, {name} is from {begins} to {ends}"
            )
    return min(int(certificate.not_valid_after_utc.timestamp()) for certificate in chain)


def _may_issue(certificate: x509.Certificate, depth: int, name: str) -> None:
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    below = depth - 1  # authorities between it and the leaf
    too_deep = constraints.path_length is not None and constraints.path_length < below
    if not constraints.ca or not usage.key_cert_sign or too_deep:
        raise NotAuthentic(f"expected an authority, {name} may not issue the certificate below it")


@foreign
def check_revocation(
    chain: Sequence[x509.Certificate], lists: Sequence[x509.CertificateRevocationList], now: int
) -> int:
    """No certificate of `chain` (leaf first, already checked) is on its root's list; when that list ends.

    The root of AMD signs one list for all levels. Raises Revoked, CollateralExpired, NotAuthentic.
    """
    root = chain[-1]
    own = [found for found in lists if found.issuer == root.subject]
    if not own:
        raise NotAuthentic(
            f"expected the revocation list of {common_name(root)} with the certificates, got none: "
            "fetch it from the vendor"
        )
    until = 2**63
    for found in own:
        key = root.public_key()
        if not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey) or not found.is_signature_valid(
            key
        ):
            raise NotAuthentic(f"expected a revocation list signed by {common_name(root)}, got another's")
        begins, ends = found.last_update_utc, found.next_update_utc
        if ends is None or not begins.timestamp() <= now <= ends.timestamp():
            raise CollateralExpired(
                f"expected a revocation list valid at {_text(now)}, got one from {begins} to {ends}"
            )
        until = min(until, int(ends.timestamp()))
        for certificate in chain:
            serial = certificate.serial_number
            if serial and found.get_revoked_certificate_by_serial_number(serial) is not None:
                raise Revoked(
                    f"expected certificates in force, {common_name(certificate)} ({serial:x}) is revoked"
                )
    return until


@foreign
def check_ecdsa384(certificate: x509.Certificate, r: int, s: int, signed: bytes) -> None:
    """`(r, s)` is the certificate's P-384 signature of `signed`, by SHA-384. Raises NotAuthentic."""
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise NotAuthentic(f"expected a P-384 key in {common_name(certificate)}, got another kind")
    try:
        key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        raise NotAuthentic(
            f"expected evidence signed by {common_name(certificate)}, its signature does not verify: it was "
            "altered, or is another machine's"
        ) from None


def _text(now: int) -> str:
    return dt.datetime.fromtimestamp(now, dt.UTC).isoformat()
