"""A contract at an address, and the compiled contracts that this package deploys and calls."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
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
class Artefact:
    """A compiled contract: `contracts/build/NAME.json`."""

    name: str
    abi: Abi
    bytecode: bytes
    """Creation code, without constructor arguments."""

    def creation(self, *args: Any) -> bytes:
        """The data of the transaction that deploys it."""
        return self.bytecode + abi.encode(self.abi.constructor, args)


@cache
def artefact(name: str) -> Artefact:
    """The compiled contract of that name: from the installed package, else from the repository.

    Raises NotFound.
    """
    for folder in (_PACKAGE, _REPOSITORY):
        path = folder / f"{name}.json"
        if path.is_file():
            found = json.loads(path.read_text())
            return Artefact(name, Abi(found["abi"]), unhex(found["bytecode"]))
    raise NotFound(f"expected the compiled contract {name}.json in {_REPOSITORY}; compile the contracts")


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
