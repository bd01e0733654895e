"""The words everything is said in: addresses, 32-byte values, amounts, blocks."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Context, Decimal, InvalidOperation
from functools import lru_cache
from typing import NewType

from Crypto.Hash import keccak as _keccak

from .errors import InvalidInput

Address = NewType("Address", str)
"""A 20-byte address as text, in its EIP-55 spelling: made only by `address()`."""

Bytes32 = bytes
"""Exactly 32 bytes: a hash, a tag, a salt."""

RLC = 10**9
"""One RLC in nRLC, the unit of every amount in this code."""

MAX_UINT256 = 2**256 - 1


def keccak(data: bytes) -> Bytes32:
    """keccak-256, the hash of the EVM (not NIST's SHA3-256)."""
    return _keccak.new(data=data, digest_bits=256).digest()


def hexstr(data: bytes) -> str:
    """`0x` and lower-case hexadecimal."""
    return "0x" + data.hex()


def unhex(text: str) -> bytes:
    """Bytes of `0x…` hexadecimal (the prefix may be missing).

    Raises InvalidInput for anything else.
    """
    try:
        return bytes.fromhex(text[2:] if text[:2] in ("0x", "0X") else text)
    except (ValueError, TypeError, AttributeError):
        raise InvalidInput(f"expected hexadecimal bytes (0x…), got {str(text)[:80]!r}") from None


def as_bytes(value: object) -> bytes:
    """Bytes as they are, or of `0x…` hexadecimal.

    Raises InvalidInput for anything else: of a number, `bytes` would make that many zeros.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if not isinstance(value, str):
        raise InvalidInput(f"expected hexadecimal bytes (0x…), got a {type(value).__name__}")
    return unhex(value)


@lru_cache(maxsize=65_536)
def _checksummed(low: str) -> Address:
    digest = keccak(low.encode()).hex()
    return Address("0x" + "".join(c.upper() if digest[i] > "7" else c for i, c in enumerate(low)))


def address(value: str | bytes) -> Address:
    """The address in `value`: 20 bytes, or `0x` and 40 hexadecimal digits in any case.

    Raises InvalidInput for anything else.
    """
    raw = as_bytes(value)
    if len(raw) != 20:
        raise InvalidInput(f"expected a 20-byte address (0x and 40 hex digits), got {str(value)[:80]!r}")
    return _checksummed(raw.hex())


def address_bytes(value: Address) -> bytes:
    """The 20 bytes of an address."""
    return bytes.fromhex(value[2:])


def bytes32(value: str | bytes) -> Bytes32:
    """Exactly 32 bytes, from bytes or hexadecimal.

    Raises InvalidInput for another length.
    """
    raw = as_bytes(value)
    if len(raw) != 32:
        raise InvalidInput(f"expected 32 bytes (0x and 64 hex digits), got {len(raw)} bytes")
    return raw


ZERO = address(bytes(20))
ZERO32 = bytes(32)


@dataclass(frozen=True, slots=True)
class Block:
    """The one block that a decision reads."""

    number: int
    hash: Bytes32
    timestamp: int
    """Seconds since 1970, as the chain says."""


_WIDE = Context(prec=100)
"""Enough digits for any 256-bit amount: the default of 28 would round large ones in silence."""


def format_rlc(amount: int) -> str:
    """An amount of nRLC for people: `1.5 RLC`."""
    sign, whole, part = "-" if amount < 0 else "", abs(amount) // RLC, abs(amount) % RLC
    return f"{sign}{whole}{'.' + f'{part:09d}'.rstrip('0') if part else ''} RLC"


def parse_rlc(text: str) -> int:
    """An amount people type, in nRLC: `1.5`, `1.5 RLC` or `1500000000 nRLC`.

    Raises InvalidInput when it is not a number, is negative, or is finer than one nRLC.
    """
    words = text.split()
    unit = {"rlc": RLC, "nrlc": 1}.get(words[1].lower() if len(words) == 2 else "rlc")
    try:
        exact = _WIDE.multiply(Decimal(words[0]), unit) if unit and 1 <= len(words) <= 2 else None
    except (InvalidOperation, IndexError):
        exact = None
    if exact is None or not exact.is_finite() or exact < 0 or exact != exact.to_integral_value():
        raise InvalidInput(f"expected an amount such as '1.5', '1.5 RLC' or '20 nRLC', got {text!r}")
    return int(exact)
