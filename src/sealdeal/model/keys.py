"""secp256k1 keys and signatures, as the EVM's accounts use them.

Signatures are 65 bytes r ‖ s ‖ v with v 27 or 28 and low s (EIP-2); the compact 64 bytes of EIP-2098
are read too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import coincurve

from .errors import BadSignature, InvalidInput
from .types import Address, Bytes32, address, keccak

Rng = Callable[[int], bytes]
"""n -> n random bytes; `secrets.token_bytes` outside tests."""


class Signer(Protocol):
    """Who signs as an account: its key, or whoever its contract believes."""

    @property
    def address(self) -> Address:
        """The account, not the key."""

    def sign_digest(self, digest: Bytes32) -> bytes:
        """What the account shows for its signature of a 32-byte digest."""


_HALF_N = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0


def message_digest(message: Bytes32) -> Bytes32:
    """What a personal signature of 32 raw bytes signs (EIP-191, version 0x45)."""
    return keccak(b"\x19Ethereum Signed Message:\n32" + message)


class Key:
    """A private key in memory. Its text form shows the address only."""

    __slots__ = ("_key", "address")

    def __init__(self, secret: bytes) -> None:
        """`secret`: 32 bytes, 1 ≤ value < n. Raises InvalidInput otherwise."""
        try:
            if len(secret) != 32:
                raise ValueError
            self._key = coincurve.PrivateKey(secret)
        except ValueError:
            raise InvalidInput("expected a private key: 32 bytes between 1 and the curve's order") from None
        self.address: Address = _address_of(self._key.public_key)

    @classmethod
    def generate(cls, rng: Rng) -> Key:
        """A fresh key from `rng`."""
        return cls(hashlib.sha256(b"sealdeal key" + rng(48)).digest())

    @property
    def secret(self) -> bytes:
        """The 32 secret bytes. Handle with care."""
        return self._key.secret

    def sign_digest(self, digest: Bytes32) -> bytes:
        """Deterministic (RFC 6979) 65-byte signature of a 32-byte digest."""
        raw = self._key.sign_recoverable(digest, hasher=None)
        return raw[:64] + bytes([raw[64] + 27])

    def sign_message(self, message: Bytes32) -> bytes:
        """Personal signature (EIP-191) of 32 raw bytes."""
        return self.sign_digest(message_digest(message))

    def __repr__(self) -> str:
        return f"Key({self.address})"


@dataclass(frozen=True)
class SmartWallet:
    """An account that is a contract, and takes `key`'s signature of a digest for its own (EIP-1271).

    A wallet that wants digests wrapped, or several signatures, has another `Signer`.
    """

    address: Address
    key: Key

    def sign_digest(self, digest: Bytes32) -> bytes:
        """The key's signature, 65 bytes."""
        return self.key.sign_digest(digest)


def _address_of(public: coincurve.PublicKey) -> Address:
    return address(keccak(public.format(compressed=False)[1:])[12:])


def recover_digest(digest: Bytes32, signature: bytes) -> Address:
    """Who signed a 32-byte digest. Raises BadSignature when nobody can have."""
    if len(signature) == 64:  # EIP-2098: the top bit of s is the parity
        top = signature[32] >> 7
        signature = signature[:32] + bytes([signature[32] & 0x7F]) + signature[33:] + bytes([27 + top])
    if len(signature) != 65 or signature[64] not in (27, 28):
        raise BadSignature(f"expected 65 bytes r‖s‖v with v 27 or 28 (or 64 compact), got {len(signature)}")
    if int.from_bytes(signature[32:64], "big") > _HALF_N:
        raise BadSignature("the signature's s is in the upper half (EIP-2 forbids it)")
    try:
        public = coincurve.PublicKey.from_signature_and_message(
            signature[:64] + bytes([signature[64] - 27]), digest, hasher=None
        )
    except Exception:  # coincurve raises bare Exception for a point that is not on the curve
        raise BadSignature("the signature recovers to no key") from None
    return _address_of(public)


def recover_message(message: Bytes32, signature: bytes) -> Address:
    """Who made a personal signature of 32 raw bytes. Raises BadSignature."""
    return recover_digest(message_digest(message), signature)
