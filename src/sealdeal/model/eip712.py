"""EIP-712: one declaration of a type gives its type string, its hash, its ABI tuple and its JSON.

A signed type is a frozen dataclass that derives from `Typed`, with fields annotated by the types below.
Only what our types need is here: static values, `string`, `bytes`, and arrays of static values.
Format: EIP-712 (https://eips.ethereum.org/EIPS/eip-712).
"""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Self

from . import types as t
from .errors import InvalidInput
from .types import Bytes32, address_bytes, hexstr, keccak


@dataclass(frozen=True, slots=True)
class Sol:
    """The Solidity name of a field's type."""

    name: str


Address = Annotated[t.Address, Sol("address")]
Bytes32_ = Annotated[bytes, Sol("bytes32")]
Uint256 = Annotated[int, Sol("uint256")]
Bool = Annotated[bool, Sol("bool")]
String = Annotated[str, Sol("string")]
Bytes = Annotated[bytes, Sol("bytes")]
AddressList = Annotated[tuple[t.Address, ...], Sol("address[]")]
Bytes32List = Annotated[tuple[bytes, ...], Sol("bytes32[]")]


def _uint(value: Any) -> int:
    try:
        number = int(value, 0) if isinstance(value, str) else value
    except ValueError:
        number = None
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= t.MAX_UINT256:
        raise InvalidInput(f"expected an integer from 0 to 2^256 - 1, got {value!r}")
    return number


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidInput(f"expected a string, got {value!r:.80}")
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can write
        raise InvalidInput("expected a string of whole characters, got half of one") from None
    return value


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise InvalidInput(f"expected true or false, got {value!r}")
    return value


_PARSE: dict[str, Any] = {
    "address": t.address,
    "bytes32": t.bytes32,
    "uint256": _uint,
    "bool": _truth,
    "string": _text,
    "bytes": t.as_bytes,
}
_ENCODE: dict[str, Any] = {
    "address": lambda v: bytes(12) + address_bytes(v),
    "bytes32": lambda v: v,
    "uint256": lambda v: v.to_bytes(32, "big"),
    "bool": lambda v: int(v).to_bytes(32, "big"),
    "string": lambda v: keccak(v.encode()),
    "bytes": keccak,
}


def _parse(kind: str, value: Any) -> Any:
    if kind.endswith("[]"):
        if isinstance(value, str | bytes) or not hasattr(value, "__iter__"):
            raise InvalidInput(f"expected a list of {kind[:-2]}, got {value!r}")
        return tuple(_parse(kind[:-2], v) for v in value)
    return _PARSE[kind](value)


def _encode(kind: str, value: Any) -> bytes:
    if kind.endswith("[]"):
        return keccak(b"".join(_encode(kind[:-2], v) for v in value))
    encoded: bytes = _ENCODE[kind](value)
    return encoded


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return hexstr(value)
    return [_plain(v) for v in value] if isinstance(value, tuple) else value


@dataclass(frozen=True)
class Typed:
    """Base of signed types. Values are checked and put in canonical form when one is made."""

    def __post_init__(self) -> None:
        for name, kind in self.fields():
            try:
                object.__setattr__(self, name, _parse(kind, getattr(self, name)))
            except InvalidInput as wrong:
                raise InvalidInput(f"{type(self).__name__}.{name}: {wrong}") from None

    @classmethod
    @cache
    def fields(cls) -> tuple[tuple[str, str], ...]:
        """(name, Solidity type) of each field, in order."""
        hints = typing.get_type_hints(cls, include_extras=True)
        found = []
        for field in dataclasses.fields(cls):
            sol = next(a for a in typing.get_args(hints[field.name])[1:] if isinstance(a, Sol))
            found.append((field.name, sol.name))
        return tuple(found)

    @classmethod
    @cache
    def type_string(cls) -> str:
        """`Name(type field,…)`, the text whose hash names the type."""
        return f"{cls.__name__}({','.join(f'{kind} {name}' for name, kind in cls.fields())})"

    @classmethod
    @cache
    def type_hash(cls) -> Bytes32:
        return keccak(cls.type_string().encode())

    def struct_hash(self) -> Bytes32:
        """hashStruct of EIP-712."""
        words = [_encode(kind, getattr(self, name)) for name, kind in self.fields()]
        return keccak(self.type_hash() + b"".join(words))

    def as_tuple(self) -> tuple[Any, ...]:
        """The values in ABI order."""
        return tuple(getattr(self, name) for name, _ in self.fields())

    def to_json(self) -> dict[str, Any]:
        """JSON values: integers as numbers, bytes as 0x hexadecimal, addresses checksummed."""
        return {name: _plain(getattr(self, name)) for name, _ in self.fields()}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """The opposite of `to_json`; numeric strings are accepted. Raises InvalidInput, naming the field."""
        if not isinstance(value, dict):
            raise InvalidInput(f"expected a JSON object of a {cls.__name__}, got {value!r}")
        names = [name for name, _ in cls.fields()]
        if missing := [name for name in names if name not in value]:
            raise InvalidInput(f"{cls.__name__} lacks {', '.join(missing)}")
        if unknown := [name for name in value if name not in names]:
            raise InvalidInput(f"{cls.__name__} has no field {', '.join(map(str, unknown))}")
        return cls(**value)


@dataclass(frozen=True)
class Domain:
    """Where a signature counts: an application, a chain, a contract."""

    name: str
    version: str
    chain_id: int | None = None
    verifying_contract: t.Address | None = None

    def fields(self) -> list[tuple[str, str, Any]]:
        """(name, Solidity type, value) of the members that are present."""
        members = [("name", "string", self.name), ("version", "string", self.version)]
        if self.chain_id is not None:
            members.append(("chainId", "uint256", self.chain_id))  # type: ignore[arg-type]
        if self.verifying_contract is not None:
            members.append(("verifyingContract", "address", self.verifying_contract))
        return members

    @property
    def separator(self) -> Bytes32:
        """domainSeparator of EIP-712."""
        return _separator(self)


@cache
def _separator(domain: Domain) -> Bytes32:
    members = domain.fields()
    kind = f"EIP712Domain({','.join(f'{sol} {name}' for name, sol, _ in members)})"
    return keccak(keccak(kind.encode()) + b"".join(_encode(sol, value) for _, sol, value in members))


def digest(domain: Domain, message: Typed) -> Bytes32:
    """The 32 bytes that are signed for `message` under `domain`."""
    return keccak(b"\x19\x01" + domain.separator + message.struct_hash())


def hub_domain(chain_id: int, hub: t.Address) -> Domain:
    """The domain of orders: every deployment of the protocol calls itself iExecODB 5.0.0 (poco.md §4)."""
    return Domain("iExecODB", "5.0.0", chain_id, hub)
