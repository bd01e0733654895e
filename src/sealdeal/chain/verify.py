"""A network's contracts on a chain, compared with the compiled ones of this package, byte for byte.

What an address runs is compiled code and, behind it, the immutables that its constructor wrote. The code must
be equal, and each immutable the one value that the network's addresses give it; those that a deployer chooses
are told. Equal code may still have been created by another constructor, one that hands out money or rights
that no function would: so the transaction that created each contract with a state of its own must be that of
the compiled creation code. Pieces of the hub, masters of entries and DataProtector have none that anything
reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sealdeal.model.deals import quorum_domain
from sealdeal.model.eip712 import hub_domain
from sealdeal.model.types import ZERO, Address, address, address_bytes, hexstr, keccak, unhex

from . import abi
from .contract import Artefact, Contract, Immutable, artefact, hub_pieces, piece
from .errors import BadAnswer, RpcError
from .reads import Addresses, Reader
from .rpc import Rpc
from .wallet import create_address

_PROXY_HEAD, _PROXY_TAIL = (
    unhex("602d3d8160093d39f3363d3d373d3d3d363d73"),
    unhex("5af43d82803e903d91602b57fd5bf3"),
)
"""Creation code of an ERC-1167 proxy, before and after the address of what it stands for."""

REGISTRIES = {
    "App": ("iExec Application Registry (V5)", "iExecAppsV5", 1 << 184),
    "Dataset": ("iExec Dataset Registry (V5)", "iExecDatasetsV5", 2 << 184),
    "Workerpool": ("iExec Workerpool Registry (V5)", "iExecWorkerpoolV5", 3 << 184 | 1 << 176 | 30 << 160),
}
"""Entry -> its registry's name and symbol (poco.md §13), and bits 160 to 191 of a record (registry.vy)."""

EARLY_CATEGORIES = 8
"""How many categories the hub's constructor takes (settings.vy)."""

_OPTIONS = ("kitty_capped", "changes_delayed")
"""What a hub was deployed with, and answers for ever: arguments of its constructor, and views."""

_BIRTHS = {
    "Hub": ("OwnershipTransferred", True),
    "AppRegistry": ("OwnershipTransferred", True),
    "DatasetRegistry": ("OwnershipTransferred", True),
    "WorkerpoolRegistry": ("OwnershipTransferred", True),
    "Rlc": ("Transfer", True),
    "Quorum": ("ThresholdChanged", False),
}
"""The event whose first log is the constructor's, and whether that is the one from the zero address."""


@dataclass(frozen=True)
class Compared:
    """One contract of a network."""

    name: str
    address: Address
    differences: tuple[str, ...] = ()
    """What is not as compiled, one sentence each."""
    choices: Mapping[str, Any] = field(default_factory=dict)
    """Immutables and constructor arguments that a deployer is free to choose."""
    ours: bool = True
    """False: another token or TEE broker than this package's; there is nothing to compare it with."""


async def verify(
    rpc: Rpc, addresses: Addresses, *, since: int = 0, code_only: bool = False
) -> list[Compared]:
    """Compare a hub, its pieces, registries, entries' masters, token, quorum and DataProtector, as far as
    `addresses` name them, with the compiled contracts.

    `since`: the block of the deployment, or one before it, for nodes that do not search all blocks at once.
    `code_only`: do not look at how the contracts were created. What differs is in the answer; raises
    Unavailable or ChainError only when the node fails.
    """
    comparison = _Comparison(rpc, addresses, await rpc.chain_id(), None if code_only else since)
    return await comparison.run()


def arguments(at: Addresses, pieces: Mapping[str, Address]) -> dict[str, Any]:
    """Constructor arguments, by name, that follow from where a network's contracts are."""
    return {
        "hub": at.hub,
        "token": at.token,
        "appregistry": at.appregistry,
        "datasetregistry": at.datasetregistry,
        "workerpoolregistry": at.workerpoolregistry,
        **{name.removeprefix("Hub").lower(): place for name, place in pieces.items()},
        **{f"{entry.lower()}_code": artefact(entry).bytecode for entry in REGISTRIES},
    }


class _Comparison:
    def __init__(self, rpc: Rpc, addresses: Addresses, chain_id: int, since: int | None) -> None:
        self.rpc, self.addresses, self.chain_id, self.since = rpc, addresses, chain_id, since
        self.reader = Reader(rpc)
        self.hub = Contract(addresses.hub, artefact("Hub").abi)
        self.pieces: dict[str, Address] = {}
        """Where the code of the hub, or of another piece, says that they are."""
        self.early_clocks: dict[str, int] = {}
        """Piece -> the time references that its code holds."""

    async def run(self) -> list[Compared]:
        at = self.addresses
        domain = hub_domain(self.chain_id, at.hub).separator
        known = {"TOKEN": at.token, "CHAIN": self.chain_id, "SEPARATOR": domain}
        found = [await self._compare("Hub", at.hub, known)]
        for name in hub_pieces()[1:]:
            if name in self.pieces:  # else the hub differs, and has said so
                found.append(await self._compare(name, self.pieces[name], known))
        broker = ZERO
        if not any(one.differences for one in found):  # else there is no hub to ask
            says, broker, chosen = await self._answers()
            found = [replace(one, differences=tuple(says.get(one.name, ()))) for one in found]
            found[0] = replace(found[0], choices=chosen)
        places = (at.appregistry, at.datasetregistry, at.workerpoolregistry)
        for (entry, (label, symbol, traits)), place in zip(REGISTRIES.items(), places, strict=True):
            master = create_address(place, 1)
            proxy = _PROXY_HEAD + address_bytes(master) + _PROXY_TAIL
            known = {"HUB": at.hub, "TRAITS": traits, "name": label, "symbol": symbol}
            known |= {"master": master, "proxyCode": proxy, "proxyCodeHash": keccak(proxy)}
            found.append(await self._compare(f"{entry}Registry", place, known))
            found.append(await self._compare(entry, master, {"registry": place}))
        if at.dataprotector:
            known = {"registry": at.datasetregistry}
            found.append(await self._compare("DataProtector", at.dataprotector, known))
        code = await self._code(at.token)
        if not code or code.startswith(artefact("Rlc").runtime):
            found.append(await self._compare("Rlc", at.token, {}))
        else:
            found.append(Compared("token", at.token, ours=False))
        if at.quorum:
            domain = quorum_domain(self.chain_id, at.quorum).separator
            known = {"CHAIN": self.chain_id, "SEPARATOR": domain}
            found.append(await self._compare("Quorum", at.quorum, known))
        elif broker != ZERO:
            found.append(Compared("TEE broker", broker, ours=False))
        return found if self.since is None else [await self._created(one) for one in found]

    async def _answers(self) -> tuple[dict[str, list[str]], Address, dict[str, Any]]:
        """What is wrong with the state of a hub whose code is right, by piece; its broker; its options."""
        wanted = {**self.addresses.to_json(), "teebroker": self.addresses.quorum}
        del wanted["hub"], wanted["quorum"], wanted["dataprotector"]
        reads = [(self.hub, name) for name in wanted]
        options = [(self.hub, name) for name in _OPTIONS]
        *said, count = await self.reader.read_many([*options, *reads, (self.hub, "countCategory")])
        chosen, said = dict(zip(_OPTIONS, said, strict=False)), said[len(_OPTIONS) :]
        categories = await self.reader.read_many(
            [(self.hub, "viewCategory", n) for n in range(min(count, EARLY_CATEGORIES))]
        )
        clocks = [(category.workClockTimeRef + 1) << 32 * n for n, category in enumerate(categories)]
        wrong = {
            "Hub": [
                f"{name}(): expected {place}, found {other}"
                for (name, place), other in zip(wanted.items(), said, strict=True)
                if place and other != place
            ]
        }
        for name, word in self.early_clocks.items():
            # a piece may leave out any category, whose slot it reads then
            expected = sum(clock for n, clock in enumerate(clocks) if word >> 32 * n & 0xFFFFFFFF)
            if word != expected:
                wrong.setdefault(name, []).append(f"EARLY_CLOCKS: expected {expected:#x}, found {word:#x}")
        return wrong, said[-1], chosen

    async def _code(self, at: Address) -> bytes:
        return unhex(await self.rpc.call("eth_getCode", at, "latest"))

    async def _compare(self, name: str, at: Address, known: dict[str, Any]) -> Compared:
        """`known`: immutables that can have one value only; those of one contract go for the next."""
        made, found, choices = artefact(name), list[str](), dict[str, Any]()
        code = await self._code(at)
        size, tail = len(made.runtime), sum(i.length for i in made.immutables)
        found += _differing("code", made.runtime, code[:size])
        if len(code) == size + tail:
            for immutable in made.immutables:
                raw = code[size + immutable.offset :][: immutable.length]
                if immutable.name == "EARLY_CLOCKS":
                    self.early_clocks[name] = int.from_bytes(raw, "big")
                else:
                    found += self._immutable(immutable, raw, known, choices)
        elif not found:
            found.append(f"immutables: expected {tail} bytes of them, found {len(code) - size}")
        return Compared(name, at, tuple(found), choices)

    def _immutable(
        self, immutable: Immutable, raw: bytes, known: dict[str, Any], choices: dict[str, Any]
    ) -> Iterator[str]:
        """What is wrong with one. It is added to what is known, or to the choices."""
        name = immutable.name
        try:
            value = immutable.decode(raw)
        except BadAnswer as broken:
            yield f"{name}: {broken}"
            return
        expected = known.get(name, value)
        if name not in known and (other := piece(immutable)):
            self.pieces[other] = known[name] = value
        elif name not in known:
            if immutable.kind.base == "address":
                yield f"{name}: nothing is known of {value}, and so of what it may do"
            known[name] = choices[name] = value
        if value != expected:
            yield f"{name}: expected {_shown(expected)}, found {_shown(value)}"
        elif raw != immutable.encode(value):
            yield f"{name}: expected zeros behind it, found {hexstr(raw)}"

    async def _created(self, one: Compared) -> Compared:
        """The same, with what its creation adds."""
        if one.name not in _BIRTHS:
            return one
        choices = dict(one.choices)
        differences = await self._creation(artefact(one.name), one.address, choices)
        return replace(one, differences=(*one.differences, *differences), choices=choices)

    async def _creation(self, made: Artefact, at: Address, choices: dict[str, Any]) -> list[str]:
        """What is wrong with how a contract was created; its arguments are added to the choices."""
        event, from_nobody = _BIRTHS[made.name]
        topics = [hexstr(made.abi.topic(event)), *([hexstr(bytes(32))] if from_nobody else [])]
        wanted = {"address": at, "topics": topics, "fromBlock": hex(self.since or 0), "toBlock": "latest"}
        try:
            logs = await self.rpc.call("eth_getLogs", wanted)
        except RpcError as refused:
            return [
                f"creation: not seen, the node does not search the blocks from {self.since} on "
                f"({refused.message}); name the block of the deployment"
            ]
        if not logs:
            return [f"creation: not seen, it is not in the blocks from {self.since} on"]
        tx_hash = logs[0]["transactionHash"]
        calls = [(f"eth_getTransaction{what}", tx_hash) for what in ("ByHash", "Receipt")]
        sent, receipt = await self.rpc.batch(calls)
        if sent is None or receipt is None:
            return [f"creation: not seen, the node does not give transaction {tx_hash}"]
        if not receipt.get("contractAddress") or address(receipt["contractAddress"]) != at:
            return [
                f"creation: by another contract, in transaction {tx_hash}, not by the compiled creation code"
            ]
        data = unhex(sent["input"])
        if differing := _differing("creation code", made.bytecode, data[: len(made.bytecode)]):
            return differing
        return self._arguments(made, data[len(made.bytecode) :], choices)

    def _arguments(self, made: Artefact, data: bytes, choices: dict[str, Any]) -> list[str]:
        try:
            values = abi.decode(made.abi.constructor, data)
        except BadAnswer as broken:
            return [f"constructor arguments: {broken}"]
        if abi.encode(made.abi.constructor, values) != data:
            return ["constructor arguments: more than the constructor has"]
        known = arguments(self.addresses, self.pieces)
        named = dict(zip(made.parameters, values, strict=True))
        choices |= {name: value for name, value in named.items() if name not in known}
        return [
            f"constructor argument {name}: expected {_shown(known[name])}, found {_shown(value)}"
            for name, value in named.items()
            if name in known and value != known[name]
        ]


def _differing(what: str, expected: bytes, found: bytes) -> list[str]:
    """The sentence that says where two strings of bytes differ; none if they do not."""
    if not found:
        return [f"{what}: none is there"]
    places = [n for n, (a, b) in enumerate(zip(expected, found, strict=False)) if a != b]
    places += range(min(len(expected), len(found)), max(len(expected), len(found)))
    if not places:
        return []
    first = places[0]
    here, there = (hexstr(code[first : first + 8]) for code in (expected, found))
    return [
        f"{what}: {len(places)} of {len(expected)} bytes differ, from byte {first} on: "
        f"expected {here}…, found {there}…"
    ]


def _shown(value: Any) -> str:
    if isinstance(value, bytes):
        return hexstr(value) if len(value) <= 64 else f"{len(value)} bytes with hash {hexstr(keccak(value))}"
    return str(value)
