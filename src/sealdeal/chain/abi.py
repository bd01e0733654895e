"""The contract ABI: values to bytes and back, for the types that contracts here use.

Format: https://docs.soliditylang.org/en/latest/abi-spec.html. Decoding is strict: every offset and length
is checked against the data, and padding must be zero where a value would change without.
"""

from __future__ import annotations

import json
import re
from collections import namedtuple
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sealdeal.model.errors import InvalidInput
from sealdeal.model.types import Address, address, hexstr, keccak, unhex

from .errors import BadAnswer

_TYPE = re.compile(r"(uint|int|bytes|address|bool|string|tuple)(\d*)((?:\[\d*\])*)")


@dataclass(frozen=True, slots=True)
class Kind:
    """A type: `base` with its `size` (bits, bytes, or array length; 0 for open ones) and its parts."""

    base: str
    size: int = 0
    parts: tuple[Kind, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def dynamic(self) -> bool:
        """Is it encoded in the tail, behind an offset?"""
        if self.base in ("string", "array") or (self.base == "bytes" and not self.size):
            return True
        return any(part.dynamic for part in self.parts)

    @property
    def head(self) -> int:
        """Bytes that it takes in the head of what holds it."""
        if self.dynamic or not self.parts:
            return 32
        return sum(part.head for part in self.parts) * (self.size if self.base == "fixed" else 1)

    def __str__(self) -> str:
        if self.base == "tuple":
            return f"({','.join(map(str, self.parts))})"
        if self.base in ("array", "fixed"):
            return f"{self.parts[0]}[{self.size if self.base == 'fixed' else ''}]"
        return f"{self.base}{self.size or ''}"


def kind(entry: Mapping[str, Any]) -> Kind:
    """The type of one ABI JSON entry `{"type": …, "components": […]}`. Raises InvalidInput."""
    match = _TYPE.fullmatch(entry["type"])
    if not match:
        raise InvalidInput(f"expected an ABI type such as uint256 or bytes32[], got {entry['type']!r}")
    base, size, suffix = match.groups()
    if base == "tuple":
        members = entry.get("components", [])
        found = Kind("tuple", 0, tuple(map(kind, members)), tuple(m.get("name", "") for m in members))
    else:
        found = Kind(base, int(size or (256 if base in ("uint", "int") else 0)))
    for length in re.findall(r"\[(\d*)\]", suffix):
        found = Kind("fixed", int(length), (found,)) if length else Kind("array", 0, (found,))
    return found


def encode(kinds: Sequence[Kind], values: Sequence[Any]) -> bytes:
    """The ABI encoding of `values`. Raises InvalidInput, naming the type that does not fit."""
    if len(kinds) != len(values):
        raise InvalidInput(f"expected {len(kinds)} values ({', '.join(map(str, kinds))}), got {len(values)}")
    offset = sum(k.head for k in kinds)
    heads, tails = [], []
    for k, value in zip(kinds, values, strict=True):
        data = _encode_one(k, value)
        if k.dynamic:
            heads.append(offset.to_bytes(32, "big"))
            tails.append(data)
            offset += len(data)
        else:
            heads.append(data)
    return b"".join(heads + tails)


def _encode_one(k: Kind, value: Any) -> bytes:
    match k.base:
        case "uint" | "int":
            if not isinstance(value, int) or not _fits(k, value):
                raise InvalidInput(f"expected a {k}, got {value!r}")
            return int(value).to_bytes(32, "big", signed=k.base == "int")
        case "address":
            return bytes(12) + unhex(address(value))
        case "bool":
            if not isinstance(value, bool):
                raise InvalidInput(f"expected a bool, got {value!r}")
            return int(value).to_bytes(32, "big")
        case "bytes" | "string":
            raw = value.encode() if k.base == "string" and isinstance(value, str) else value
            if not isinstance(raw, bytes) or (k.size and len(raw) != k.size):
                raise InvalidInput(f"expected {k}, got {value!r:.100}")
            padded = raw + bytes(-len(raw) % 32)
            return padded if k.size else len(raw).to_bytes(32, "big") + padded
        case "tuple":
            return encode(k.parts, _sequence(k, value))
        case _:
            items = _sequence(k, value)
            if k.base == "fixed" and len(items) != k.size:
                raise InvalidInput(f"expected {k.size} items of {k.parts[0]}, got {len(items)}")
            data = encode(k.parts * len(items), items)
            return data if k.base == "fixed" else len(items).to_bytes(32, "big") + data


def _read_text(k: Kind, text: Any) -> Any:
    """A value of this type from a text, or from what JSON has for one."""
    try:
        if k.parts:
            items = json.loads(text) if isinstance(text, str) else text
            kinds = k.parts if k.base == "tuple" else k.parts * len(items)
            return [_read_text(part, item) for part, item in zip(kinds, items, strict=True)]
        match k.base:
            case "uint" | "int":
                return int(text, 0) if isinstance(text, str) else text
            case "bool":
                return {"true": True, "false": False}[text] if isinstance(text, str) else text
            case "bytes":
                return unhex(text)
    except (ValueError, TypeError, KeyError):
        raise InvalidInput(f"expected a {k}, got {text!r:.100}") from None
    return text


def _fits(k: Kind, number: int) -> bool:
    bits = k.size - (k.base == "int")
    return (-(1 << bits) if k.base == "int" else 0) <= number < 1 << bits


def _sequence(k: Kind, value: Any) -> Sequence[Any]:
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise InvalidInput(f"expected a sequence for {k}, got {value!r:.100}")
    return value


def decode(kinds: Sequence[Kind], data: bytes) -> tuple[Any, ...]:
    """The values in `data`: ints, bools, `Address`es, bytes, strings, lists, and named tuples for structs.

    Raises BadAnswer when the data is cut short or not canonical.
    """
    return tuple(_decode_many(kinds, data, 0))


def _decode_many(kinds: Sequence[Kind], data: bytes, base: int) -> list[Any]:
    values, at = [], base
    for k in kinds:
        values.append(_decode_one(k, data, base + _uint(data, at) if k.dynamic else at))
        at += k.head
    return values


def _word(data: bytes, at: int) -> bytes:
    word = data[at : at + 32]
    if len(word) != 32:
        raise BadAnswer(f"expected ABI data of at least {at + 32} bytes, got {len(data)}")
    return word


def _uint(data: bytes, at: int) -> int:
    return int.from_bytes(_word(data, at), "big")


def _decode_one(k: Kind, data: bytes, at: int) -> Any:
    match k.base:
        case "uint" | "int":
            number = int.from_bytes(_word(data, at), "big", signed=k.base == "int")
            if not _fits(k, number):
                raise BadAnswer(f"expected a {k}, got {number}")
            return number
        case "address":
            word = _word(data, at)
            if any(word[:12]):
                raise BadAnswer(f"expected an address, got {hexstr(word)}")
            return address(word[12:])
        case "bool":
            number = _uint(data, at)
            if number > 1:
                raise BadAnswer(f"expected a bool, got {number}")
            return bool(number)
        case "bytes" | "string":
            if k.size:
                return _word(data, at)[: k.size]
            size = _uint(data, at)
            raw = data[at + 32 : at + 32 + size]
            if len(raw) != size:
                raise BadAnswer(f"expected {size} bytes of {k}, got {len(raw)}")
            return raw if k.base == "bytes" else raw.decode(errors="replace")
        case "tuple":
            return _struct(k.names)(*_decode_many(k.parts, data, at))
        case _:
            count, start = (k.size, at) if k.base == "fixed" else (_uint(data, at), at + 32)
            if count * k.parts[0].head > len(data) - start:
                raise BadAnswer(f"expected {count} items of {k.parts[0]}, got {len(data) - start} bytes")
            return _decode_many(k.parts * count, data, start)


@cache
def _struct(names: tuple[str, ...]) -> Any:
    return namedtuple("Struct", names, rename=True)


@dataclass(frozen=True)
class Event:
    """A log of a contract, decoded. `event["taskid"]` is one of its arguments."""

    name: str
    args: Mapping[str, Any]
    address: Address
    """The contract that emitted it."""
    block_number: int
    block_hash: bytes
    tx_hash: bytes
    log_index: int
    """Its place among all logs of the block."""
    removed: bool = False
    """Its block was reorganised away (only in answers of subscriptions and filters)."""

    def __getitem__(self, name: str) -> Any:
        return self.args[name]


@dataclass(frozen=True, slots=True)
class _Function:
    name: str
    signature: str
    selector: bytes
    inputs: tuple[Kind, ...]
    outputs: tuple[Kind, ...]


@dataclass(frozen=True, slots=True)
class _EventType:
    name: str
    topic: bytes
    members: tuple[tuple[str, Kind, bool], ...]


class Abi:
    """What a contract answers, from its ABI JSON."""

    def __init__(self, entries: Iterable[Mapping[str, Any]]) -> None:
        self.entries = list(entries)
        self._functions: dict[str, list[_Function]] = {}
        self._events: dict[tuple[bytes, int], _EventType] = {}
        self._topics: dict[str, bytes] = {}
        self._errors: dict[bytes, tuple[str, tuple[Kind, ...]]] = {}
        self.constructor: tuple[Kind, ...] = ()
        for entry in self.entries:
            inputs = tuple(kind(i) for i in entry.get("inputs", []))
            name = entry.get("name", "")
            signature = f"{name}({','.join(map(str, inputs))})"
            match entry["type"]:
                case "function":
                    outputs = tuple(kind(o) for o in entry.get("outputs", []))
                    found = _Function(name, signature, keccak(signature.encode())[:4], inputs, outputs)
                    self._functions.setdefault(name, []).append(found)
                    self._functions[signature] = [found]
                case "event":
                    names = [i.get("name", "") or f"arg{n}" for n, i in enumerate(entry["inputs"])]
                    flags = [bool(i.get("indexed")) for i in entry["inputs"]]
                    event = _EventType(
                        name, keccak(signature.encode()), tuple(zip(names, inputs, flags, strict=True))
                    )
                    self._events[event.topic, sum(flags)] = event
                    self._topics[name] = event.topic
                case "error":
                    self._errors[keccak(signature.encode())[:4]] = (name, inputs)
                case "constructor":
                    self.constructor = inputs

    def __contains__(self, function: str) -> bool:
        return function in self._functions

    def _find(self, function: str, count: int | None = None) -> _Function:
        found = self._functions.get(function, [])
        if count is not None and len(found) > 1:
            found = [f for f in found if len(f.inputs) == count]
        if len(found) != 1:
            raise InvalidInput(
                f"the ABI has {len(found)} functions {function}"
                + ("" if count is None else f" of {count} arguments")
            )
        return found[0]

    def encode(self, function: str, *args: Any) -> bytes:
        """Calldata: `function` is a name, or a signature `name(type,…)` where names are overloaded."""
        found = self._find(function, len(args))
        try:
            return found.selector + encode(found.inputs, args)
        except InvalidInput as wrong:
            raise InvalidInput(f"{found.signature}: {wrong}") from None

    def encode_texts(self, function: str, texts: Sequence[str]) -> bytes:
        """Calldata, from arguments as people write them. Raises InvalidInput.

        Numbers are decimal or 0x hexadecimal, bytes 0x hexadecimal, bools true or false; lists are JSON.
        """
        found = self._find(function, len(texts))
        if len(found.inputs) != len(texts):
            raise InvalidInput(f"{found.signature}: expected {len(found.inputs)} arguments, got {len(texts)}")
        values = [_read_text(k, text) for k, text in zip(found.inputs, texts, strict=True)]
        return self.encode(function, *values)

    def decode(self, function: str, data: bytes) -> Any:
        """What the function returned: nothing as None, one value itself, many as a tuple."""
        outputs = self._find(function).outputs
        try:
            values = decode(outputs, data)
        except BadAnswer as wrong:
            raise BadAnswer(f"the answer of {function}: {wrong}") from None
        return values[0] if len(values) == 1 else values or None

    def has_event(self, name: str) -> bool:
        """Does the contract emit events of that name?"""
        return name in self._topics

    def topic(self, event: str) -> bytes:
        """The first topic of the logs of `event`. Raises InvalidInput for an unknown name."""
        if event not in self._topics:
            raise InvalidInput(f"the ABI has no event {event}; it has {', '.join(sorted(self._topics))}")
        return self._topics[event]

    def event(self, log: Mapping[str, Any]) -> Event | None:
        """The event in a log of JSON-RPC; None when it is none of this ABI."""
        topics = [unhex(topic) for topic in log["topics"]]
        found = self._events.get((topics[0], len(topics) - 1)) if topics else None
        if found is None:
            return None
        plain = iter(decode([k for _, k, indexed in found.members if not indexed], unhex(log["data"])))
        rest = iter(topics[1:])
        args = {}
        for name, k, indexed in found.members:
            if not indexed:
                args[name] = next(plain)
            elif k.dynamic or k.parts:
                args[name] = next(rest)  # only its hash is in the log
            else:
                args[name] = decode([k], next(rest))[0]
        return Event(
            found.name,
            args,
            address(log["address"]),
            int(log["blockNumber"], 16),
            unhex(log["blockHash"]),
            unhex(log["transactionHash"]),
            int(log["logIndex"], 16),
            bool(log.get("removed")),
        )

    def reason(self, data: bytes) -> str | None:
        """A custom error of this ABI as `Name(args)`; None when the data is none of them."""
        if data[:4] not in self._errors:
            return None
        name, inputs = self._errors[data[:4]]
        try:
            values = decode(inputs, data[4:])
        except BadAnswer:
            return f"{name}(unreadable)"
        if len(values) == 1 and isinstance(values[0], str) and not values[0].startswith("0x"):
            return f"{name}: {values[0]}"
        return f"{name}({', '.join(hexstr(v) if isinstance(v, bytes) else str(v) for v in values)})"
