"""A contract at an address, and the compiled contracts that this package deploys and calls."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sealdeal.model.errors import NotFound
from sealdeal.model.types import Address, hexstr, unhex

from . import abi
from .abi import Abi, Event
from .errors import BadAnswer, Reverted

_PACKAGE = Path(__file__).parent.parent / "contracts"
_REPOSITORY = Path(__file__).parents[3] / "contracts" / "build"


@dataclass(frozen=True)
class Immutable:
    """A value that a constructor writes behind the code it deploys."""

    name: str
    """As in the source, without its module."""
    kind: abi.Kind
    """`string` and `bytes` have the size of their bound, which the ABI does not know."""
    offset: int
    """In bytes, from the end of the compiled code."""
    length: int
    """In bytes: a multiple of 32."""

    def encode(self, value: Any) -> bytes:
        """The bytes of a value: as in the ABI, but texts have their length before them and a fixed size."""
        if not self.kind.dynamic:
            return abi.encode([self.kind], [value])
        return abi.encode([self.kind], [value])[32:].ljust(self.length, b"\0")

    def decode(self, data: bytes) -> Any:
        """The opposite of `encode`. Raises BadAnswer."""
        word = (32).to_bytes(32, "big")
        (value,) = abi.decode([self.kind], word + data if self.kind.dynamic else data)
        return value


@dataclass(frozen=True)
class Artefact:
    """A compiled contract: `contracts/build/NAME.json`."""

    name: str
    abi: Abi
    bytecode: bytes
    """Creation code, without constructor arguments."""
    runtime: bytes
    """Deployed code, without the immutables that follow it."""
    immutables: tuple[Immutable, ...]
    compiler: str
    """Name and version."""
    source_hash: str
    """sha256 over the sources (contracts/build.py), in hexadecimal."""

    def creation(self, *args: Any) -> bytes:
        """The data of the transaction that deploys it."""
        return self.bytecode + abi.encode(self.abi.constructor, args)

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the constructor's arguments, without the `_` that keeps a name from hiding another."""
        inputs = [e.get("inputs", []) for e in self.abi.entries if e["type"] == "constructor"]
        return tuple(i["name"].strip("_") for i in (inputs[0] if inputs else []))


@cache
def artefact(name: str) -> Artefact:
    """The compiled contract of that name: from the installed package, else from the repository.

    Raises NotFound.
    """
    if path := _path(name):
        found = json.loads(path.read_text())
        return Artefact(
            name,
            Abi(found["abi"]),
            unhex(found["bytecode"]),
            unhex(found["runtime"]),
            tuple(_immutables(found["layout"].get("code_layout", {}))),
            found["compiler"],
            found["source_hash"],
        )
    raise NotFound(f"expected the compiled contract {name}.json in {_REPOSITORY}; compile the contracts")


def _path(name: str) -> Path | None:
    paths = [folder / f"{name}.json" for folder in (_PACKAGE, _REPOSITORY)]
    return next((path for path in paths if path.is_file()), None)


def _immutables(layout: Mapping[str, Any]) -> Iterator[Immutable]:
    for name, entry in layout.items():
        if "length" not in entry:
            yield from _immutables(entry)
            continue
        bounded = re.fullmatch(r"(String|Bytes)\[\d+\]", entry["type"])
        kind = abi.kind({"type": bounded[1].lower() if bounded else entry["type"]})
        yield Immutable(name, kind, entry["offset"], entry["length"])


@cache
def hub_pieces() -> tuple[str, ...]:
    """The contracts behind the hub's address, Hub first: each is named in the code of one before it."""
    found = ["Hub"]
    for name in found:  # which grows
        found += [p for i in artefact(name).immutables if (p := piece(i)) and p not in found]
    return tuple(found)


def piece(immutable: Immutable) -> str | None:
    """The piece of the hub that an immutable is the address of: `ADMIN` is where HubAdmin is."""
    name = f"Hub{immutable.name.capitalize()}"
    return name if immutable.kind.base == "address" and _path(name) else None


@dataclass(frozen=True)
class Contract:
    """An address that answers an ABI."""

    address: Address
    abi: Abi

    def request(self, function: str, *args: Any) -> dict[str, str]:
        """The transaction object of an eth_call."""
        return {"to": self.address, "data": hexstr(self.abi.encode(function, *args))}

    def decode(self, function: str, answer: Any) -> Any:
        """The values in an eth_call's answer. Raises BadAnswer when there is no such contract or function."""
        if answer == "0x" and self.abi._find(function).outputs:
            raise BadAnswer(f"expected {function}() to answer at {self.address}; no such contract is there")
        return self.abi.decode(function, unhex(answer))

    def explain(self, refused: Reverted, function: str) -> Reverted:
        """The same refusal, naming the function and any custom error of this contract."""
        return Reverted(
            refused.data,
            reason=self.abi.reason(refused.data) or refused.reason,
            doing=function.partition("(")[0],
            tx_hash=refused.tx_hash,
        )


def events(logs: Iterable[Mapping[str, Any]], contracts: Iterable[Contract]) -> list[Event]:
    """The logs that these contracts emitted, decoded, in the order given; others are left out."""
    known = {contract.address.lower(): contract for contract in contracts}
    found = []
    for log in logs:
        contract = known.get(log["address"].lower())
        if contract and (event := contract.abi.event(log)):
            found.append(event)
    return found
