"""Keeping secrets: sealed to one key (HPKE), split among nodes (Shamir), datasets encrypted.

Randomness is passed in as `rng` wherever the primitive takes it. Three draw on the operating system
themselves, inside `cryptography`: HPKE's ephemeral key, RSA key generation and RSA's padding.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke, padding
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from .eip712 import Address, AddressList, Bytes32_, Bytes32List, Domain, String, Typed, Uint256
from .errors import IntegrityError, InvalidInput, SecretRefused, TooLarge
from .keys import Rng
from .types import Address as AddressType
from .types import Bytes32, address_bytes, bytes32, keccak

MAX_SECRET_BYTES = 4096
"""The protocol's limit for one secret (wire.md §2)."""


class SecretKind(StrEnum):
    """What a secret is for, and so whose it is."""

    DATASET_KEY = "dataset-key"
    """Decrypts a dataset; subject = the dataset, its owner's."""
    APP_SECRET = "app-secret"
    """Given to an app by its developer; subject = the app, its owner's."""
    REQUESTER_SECRET = "requester-secret"
    """Given to an app by who pays the run; subject = the requester."""
    NAMED = "named"
    """Anything else with a name; subject = its owner."""


def owner_challenge(kind: str, subject: AddressType, name: str, value: bytes) -> Bytes32:
    """What the owner personally signs to push a whole secret (wire.md §2).

    keccak(keccak("IEXEC_SMS_DOMAIN") ‖ subject ‖ [keccak(name)] ‖ keccak(value)); dataset keys are nameless.
    """
    named = b"" if kind == SecretKind.DATASET_KEY else keccak(name.encode())
    return keccak(keccak(b"IEXEC_SMS_DOMAIN") + address_bytes(subject) + named + keccak(value))


APP_SECRET_NAME = "1"
"""The network has one secret per app, of this index."""


class Door(StrEnum):
    """How a secret reached the nodes: recorded for ever, and shown."""

    OWN = "own"
    """Split by its owner: no node ever saw it whole."""
    SPLIT = "split"
    """Given whole to one node, which split it among all and kept nothing. That node saw it: not t of n."""
    SINGLE = "single"
    """Given whole to one node, which can read it. Never to be called t of n."""


# --- HPKE -----------------------------------------------------------------------------------------

_SUITE = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)


class SealingKey:
    """An X25519 key that opens what was sealed to it (RFC 9180, base mode, HKDF-SHA256, AES-256-GCM)."""

    __slots__ = ("_key", "public")

    def __init__(self, secret: bytes) -> None:
        """`secret`: 32 bytes. Raises InvalidInput for another length."""
        self._key = X25519PrivateKey.from_private_bytes(bytes32(secret))
        self.public: bytes = self._key.public_key().public_bytes_raw()
        """The 32 bytes that others seal to."""

    @classmethod
    def generate(cls, rng: Rng) -> SealingKey:
        return cls(rng(32))

    def open(self, sealed: bytes, info: bytes) -> bytes:
        """The plaintext. Raises SecretRefused when sealed to another key, for another `info`, or altered."""
        try:
            return _SUITE.decrypt(sealed, self._key, info)
        except (InvalidTag, ValueError):
            raise SecretRefused(
                "expected a secret sealed to this key for this purpose, got one that does not open: "
                "altered, or sealed for another enclave, task, node or name"
            ) from None


def seal(public: bytes, plaintext: bytes, info: bytes) -> bytes:
    """Only the holder of `public`'s key, given the same `info`, can open the answer (32 + n + 16 bytes).

    Raises InvalidInput when `public` is not a usable X25519 key.
    """
    try:
        return _SUITE.encrypt(plaintext, X25519PublicKey.from_public_bytes(public), info)
    except ValueError:
        raise InvalidInput(f"expected a 32-byte X25519 public key, got 0x{public[:40].hex()}") from None


def release_info(manifest_hash: Bytes32, node: AddressType, kind: str, name: str, version: int) -> bytes:
    """HPKE's `info` for one secret from one node: it opens for this manifest and purpose only."""
    texts = b"".join(len(t).to_bytes(4, "big") + t for t in (kind.encode(), name.encode()))
    return (
        b"sealdeal release 1"
        + bytes32(manifest_hash)
        + address_bytes(node)
        + texts
        + version.to_bytes(32, "big")
    )


# --- Shamir over GF(256) --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, repr=False)
class Share:
    """One point of the polynomials: less than `threshold` of them say nothing."""

    index: int
    """x, from 1 to 255."""
    value: bytes
    """y, one byte per byte of the secret."""


def split(secret: bytes, threshold: int, count: int, rng: Rng) -> list[Share]:
    """`count` shares of which any `threshold` give the secret back.

    Table look-ups are not constant-time: split where the secret is at home, in its owner's client.
    Raises InvalidInput unless 1 ≤ threshold ≤ count ≤ 255.
    """
    if not 1 <= threshold <= count <= 255:
        raise InvalidInput(f"expected 1 ≤ threshold ≤ count ≤ 255, got {threshold} of {count}")
    if not secret:
        raise InvalidInput("expected a secret to split, got no bytes")
    coefficients = [rng(len(secret)) for _ in range(threshold - 1)] + [secret]
    shares = []
    for x in range(1, count + 1):
        value = bytes(len(secret))
        for coefficient in coefficients:  # Horner, highest power first
            value = _xor(value.translate(_times(x)), coefficient)
        shares.append(Share(x, value))
    return shares


def combine(shares: Sequence[Share]) -> bytes:
    """The polynomials at 0. Too few or false shares give other bytes, silently: check what comes out.

    Raises InvalidInput for no shares, repeated or zero indices, or different lengths.
    """
    indices = [share.index for share in shares]
    if not shares or len(set(indices)) != len(indices) or not all(1 <= x <= 255 for x in indices):
        raise InvalidInput(f"expected shares of different indices from 1 to 255, got {indices}")
    if len({len(share.value) for share in shares}) != 1:
        raise InvalidInput("expected shares of one length, got several")
    secret = bytes(len(shares[0].value))
    for share in shares:
        weight = 1
        for x in indices:
            if x != share.index:
                weight = _times(_times(weight)[x])[_inverse(x ^ share.index)]
        secret = _xor(secret, share.value.translate(_times(weight)))
    return secret


@cache
def _times(factor: int) -> bytes:
    """table[y] = factor · y in GF(2⁸) modulo x⁸+x⁴+x³+x+1, the field of AES."""
    table = bytearray(256)
    for y in range(256):
        a, b = factor, y
        while b:
            table[y] ^= a if b & 1 else 0
            a, b = (a << 1) ^ (0x11B if a & 0x80 else 0), b >> 1
    return bytes(table)


def _inverse(value: int) -> int:
    return _times(value).index(1)


def _xor(left: bytes, right: bytes) -> bytes:
    return (int.from_bytes(left, "big") ^ int.from_bytes(right, "big")).to_bytes(len(left), "big")


# --- secrets split among nodes --------------------------------------------------------------------


@dataclass(frozen=True)
class SecretShares(Typed):
    """The owner's signed word on a split secret: who holds which share, and how to tell a false one.

    `nodes[i]` holds the share of index i + 1. What is split is a payload that begins with 32 random bytes,
    so neither `commitments` nor `secretHash` lets anyone test a guess of a short secret.
    """

    kind: String
    subject: Address
    """The dataset, app or account that the secret belongs to."""
    name: String
    version: Uint256
    """From 1; a later one replaces it."""
    threshold: Uint256
    nodes: AddressList
    commitments: Bytes32List
    """`commitment` of each node's share, in the order of `nodes`."""
    secretHash: Bytes32_
    """keccak of the payload."""
    expires: Uint256 = 0
    """Unix time: deals made then or later get nothing of it. 0: never."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.threshold <= len(self.nodes) <= 255:
            raise InvalidInput(
                f"SecretShares: expected 1 ≤ threshold ≤ nodes ≤ 255, got {self.threshold}, {len(self.nodes)}"
            )
        if len(set(self.nodes)) != len(self.nodes) or len(self.commitments) != len(self.nodes):
            raise InvalidInput("SecretShares: expected different nodes with one commitment each")
        if self.version < 1 or self.kind not in set(SecretKind):
            raise InvalidInput(
                f"SecretShares: expected version ≥ 1 and a kind of {', '.join(SecretKind)}, "
                f"got version {self.version}, kind {self.kind[:40]!r}"
            )

    def check_share(self, node: AddressType, value: bytes) -> Share:
        """`node`'s share, if it equals its commitment. Raises SecretRefused, naming the node, otherwise."""
        if node not in self.nodes:
            raise SecretRefused(f"expected a share from one of the secret's nodes, got one from {node}")
        index = self.nodes.index(node)
        if commitment(index + 1, value) != self.commitments[index]:
            raise SecretRefused(f"node {node} lied: its share is not the one that the owner committed to")
        return Share(index + 1, value)


@dataclass(frozen=True)
class Revocation(Typed):
    """The owner's signed word that deals made from `time` on get a secret no more.

    Deals made before keep what they were promised: else their pools would lose their stake.
    """

    kind: String
    subject: Address
    name: String
    version: Uint256
    """This one and all before it are closed: a node takes a later version only."""
    time: Uint256
    """Unix time, by the chain's blocks. A node counts from its newest block when that is later."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.version < 1 or self.kind not in set(SecretKind) - {SecretKind.NAMED}:
            raise InvalidInput(
                "Revocation: expected version ≥ 1 of a dataset's, an app's or a requester's secret, "
                f"got version {self.version}, kind {self.kind[:40]!r}"
            )


def secrets_domain(chain_id: int, hub: AddressType) -> Domain:
    """Where owners' documents count."""
    return Domain("Sealdeal Secrets", "1", chain_id, hub)


def vouch_challenge(document_digest: Bytes32) -> Bytes32:
    """What a node that split a whole secret signs personally. `document_digest`: on `secrets_domain`."""
    return keccak(b"sealdeal split 1" + bytes32(document_digest))


MAX_PUSHED_BYTES = MAX_SECRET_BYTES + 66


def with_push(secret: bytes, signature: bytes) -> bytes:
    """What a node splits (door `split`): the secret, and its owner's signature of `owner_challenge`.

    The signature is split with it, because whoever sees it can try guesses of the secret on it.
    """
    return bytes([len(signature)]) + signature + secret


def without_push(payload: bytes) -> tuple[bytes, bytes]:
    """(secret, its owner's signature): the opposite, of any bytes."""
    end = 1 + (payload[0] if payload else 0)
    return payload[end:], payload[1:end]


AUDIT_SECONDS = 300
"""A signature that asks for an audit names a period of this length; it is good in that and the next one."""


def audit_challenge(node: AddressType, kind: str, subject: AddressType, name: str, period: int) -> Bytes32:
    """What an owner signs personally to read a node's audit. `period`: unix time // AUDIT_SECONDS."""
    texts = b"".join(len(t).to_bytes(4, "big") + t for t in (kind.encode(), name.encode()))
    whose = address_bytes(node) + address_bytes(subject)
    return keccak(b"sealdeal audit 1" + whose + texts + period.to_bytes(8, "big"))


def commitment(index: int, value: bytes) -> Bytes32:
    """Binds a share to its index. Hiding, because what is split is salted."""
    return hashlib.sha256(b"sealdeal share 1" + bytes([index]) + value).digest()


_SALT_BYTES, _PAD_BYTES = 32, 64


def share_secret(
    secret: bytes,
    *,
    kind: str,
    subject: AddressType,
    name: str,
    version: int,
    threshold: int,
    nodes: Sequence[AddressType],
    rng: Rng,
    expires: int = 0,
    limit: int = MAX_SECRET_BYTES,
) -> tuple[SecretShares, dict[AddressType, bytes]]:
    """The document for the owner to sign, and each node's share.

    The payload is salt (32) ‖ length (4) ‖ secret ‖ zeros up to a multiple of 64 bytes, so that shares
    hide the secret's exact length too. Raises TooLarge over `limit` bytes, InvalidInput when empty.
    """
    if len(secret) > limit:
        raise TooLarge(f"expected a secret of at most {limit} bytes, got {len(secret)}")
    if not secret:
        raise InvalidInput("expected a secret, got no bytes")
    payload = rng(_SALT_BYTES) + len(secret).to_bytes(4, "big") + secret
    payload += bytes(-len(payload) % _PAD_BYTES)
    shares = split(payload, threshold, len(nodes), rng)
    document = SecretShares(
        kind=kind,
        subject=subject,
        name=name,
        version=version,
        threshold=threshold,
        nodes=tuple(nodes),
        commitments=tuple(commitment(share.index, share.value) for share in shares),
        secretHash=keccak(payload),
        expires=expires,
    )
    return document, {node: share.value for node, share in zip(document.nodes, shares, strict=True)}


def recover_secret(document: SecretShares, shares: Mapping[AddressType, bytes]) -> bytes:
    """The secret, from at least `threshold` true shares; false ones are set aside.

    Raises SecretRefused when too few are true, naming the nodes whose shares are false.
    """
    good, lies = [], []
    for node, value in shares.items():
        try:
            good.append(document.check_share(node, value))
        except SecretRefused as lie:
            lies.append(str(lie))
    if len(good) < document.threshold:
        detail = f" ({'; '.join(lies)})" if lies else ""
        raise SecretRefused(
            f"expected {document.threshold} shares of {document.kind} {document.subject}, "
            f"got {len(good)}{detail}"
        )
    payload = combine(good[: document.threshold])
    size = int.from_bytes(payload[_SALT_BYTES : _SALT_BYTES + 4], "big")
    secret = payload[_SALT_BYTES + 4 :][:size]
    if keccak(payload) != document.secretHash or len(secret) != size:
        raise SecretRefused(
            f"the shares of {document.kind} {document.subject} are those committed to, but do not give "
            "the secret that the document promises: its owner must split it again"
        )
    return secret


# --- datasets (wire.md §3.3) ----------------------------------------------------------------------


def dataset_key(rng: Rng) -> str:
    """A new dataset key as it is kept: base64 of 32 bytes. This text is the secret."""
    return base64.b64encode(rng(32)).decode()


def encrypt_dataset(plain: bytes, key: str, rng: Rng) -> bytes:
    """The encrypted file: IV (16) ‖ AES-256-CBC with PKCS#7. No integrity of its own: the checksum on chain
    gives it. Raises InvalidInput for a malformed key."""
    return b"".join(encrypt_dataset_pieces([plain], key, rng))


def encrypt_dataset_pieces(plain: Iterable[bytes], key: str, rng: Rng) -> Iterator[bytes]:
    """`encrypt_dataset` piece by piece, for what does not fit in memory."""
    return encrypt_cbc(plain, _dataset_key_bytes(key), rng(16))


def checksum(data: bytes) -> Bytes32:
    """What a registry entry says of a dataset: sha256 of the encrypted file."""
    return hashlib.sha256(data).digest()


def decrypt_dataset(encrypted: bytes | Iterable[bytes], key: str) -> Iterator[bytes]:
    """The plain file in pieces. Raises IntegrityError, possibly after some pieces, for a wrong key or
    altered bytes; check the checksum first."""
    return decrypt_cbc(pieces_of(encrypted), _dataset_key_bytes(key), "dataset")


def _dataset_key_bytes(key: str) -> bytes:
    try:
        raw = base64.b64decode(key.strip(), validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != 32:
        raise InvalidInput("expected a dataset key: the base64 text of 32 bytes")
    return raw


def pieces_of(data: bytes | Iterable[bytes]) -> Iterable[bytes]:
    """Bytes, or pieces of bytes, as pieces."""
    return [data] if isinstance(data, bytes) else data


def encrypt_cbc(plain: Iterable[bytes], key: bytes, iv: bytes) -> Iterator[bytes]:
    """The network's cipher: IV ‖ AES-256-CBC with PKCS#7, in pieces. It has no integrity of its own."""
    encryptor, padder = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor(), padding.PKCS7(128).padder()
    yield iv
    for piece in plain:
        yield encryptor.update(padder.update(piece))
    yield encryptor.update(padder.finalize()) + encryptor.finalize()


def decrypt_cbc(encrypted: Iterable[bytes], key: bytes, what: str) -> Iterator[bytes]:
    """The opposite. Raises IntegrityError naming `what`, possibly after some pieces."""
    head, source = b"", iter(encrypted)
    while len(head) < 16 and (piece := next(source, None)) is not None:
        head += piece
    if len(head) < 16:
        raise IntegrityError(f"expected an encrypted {what} of at least 32 bytes, got {len(head)}")
    decryptor = Cipher(algorithms.AES(key), modes.CBC(head[:16])).decryptor()
    unpadder = padding.PKCS7(128).unpadder()
    try:
        yield unpadder.update(decryptor.update(head[16:]))
        for piece in source:
            yield unpadder.update(decryptor.update(piece))
        yield unpadder.update(decryptor.finalize()) + unpadder.finalize()
    except ValueError:
        raise IntegrityError(
            f"expected an encrypted {what} that this key opens, got another key, or altered or cut bytes"
        ) from None
