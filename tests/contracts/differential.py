"""Two suites side by side: one call, given to both, must have one outcome.

Entries and hubs lie at different addresses on the two sides, so everything that depends on an address
differs too: hashes of orders, deals, tasks, signatures. Calls are therefore written with *names*
(`Name("deal#2")`); each side puts its own values in their places, and in what comes back, names stand again
where the values were. After that an outcome is compared byte for byte: success, return or revert data, every
event of every contract in order.

What may differ is in differences.py and nowhere else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyrevm
from eth_abi.abi import encode

from sealdeal.model.deals import KITTY
from sealdeal.model.keys import Key
from sealdeal.model.orders import ORDER_TYPES, Kind
from sealdeal.model.types import RLC, ZERO, Address, address, address_bytes, keccak
from tests.contracts import actors
from tests.contracts.chain import GAS
from tests.contracts.revm import REVERTED, Revm
from tests.contracts.world import WEALTH, World, abi_of, key, signature

if TYPE_CHECKING:
    from tests.contracts.life import Life

OFFICIAL_ABI = Path(__file__).parents[1] / "vectors" / "poco-abi.txt"
N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
"""Order of secp256k1."""


# ---- Names -------------------------------------------------------------------------------------------------


class Name(str):
    """What both sides call something whose value differs: an account, an entry, a hash, a deal, a task."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{self}>"


STRANGER = Name("stranger")


@lru_cache(maxsize=100_000)
def _stand_in(name: str, width: int) -> bytes:
    """The word that takes the place of a named value in outcomes."""
    return keccak(name.encode())[:width].rjust(32, b"\0")


LABELS: dict[bytes, str] = {}
"""Stand-in -> its name, for people who read a counterexample."""


class Sided(ABC):
    """An argument that each side makes its own value of."""

    @abstractmethod
    def on(self, side: Side) -> Any:
        """As it goes into that side's calldata."""


class Bench(Revm):
    """A chain whose time stands still between calls, and whose calls tell all that they did."""

    def run(self, to: str, data: bytes, sender: str, value: int = 0, *, static: bool = False) -> Outcome:
        """Carry out a call; addresses and hashes are the chain's own."""
        self._evm.reset_transient_storage()
        try:
            answer = self._evm.message_call(sender, to, data, value, GAS, is_static=static)
        except RuntimeError as error:
            if found := REVERTED.fullmatch(str(error)):
                return Outcome(False, bytes.fromhex(found[1]))
            if str(error).startswith("Halt"):
                return Outcome(False, b"")
            raise
        if static:
            return Outcome(True, answer)
        assert self._evm.result is not None
        logs = []
        for log in self._evm.result.logs:
            topics, data = log.data
            logs.append((bytes.fromhex(log.address[2:]).rjust(32, b"\0"), tuple(topics), data))
        return Outcome(True, answer, tuple(logs))

    def code(self, account: str) -> bytes:
        return bytes(self._evm.get_code(account) or b"")

    def put(self, account: str, code: bytes) -> None:
        """Give an account code, whatever it was."""
        self._evm.insert_account_info(account, pyrevm.AccountInfo(nonce=1, code=code))

    def plant(self, before: bytes, after: bytes) -> int:
        """Change bytes in the code of every contract; in how many they were."""
        changed = 0
        for account in list(self._evm.journal_state):
            if before in (code := self.code(account)):
                self.put(account, code.replace(before, after))
                changed += 1
        return changed


class Side:
    """One suite on its chain, and what the names mean there."""

    def __init__(self, title: str, world: World) -> None:
        assert isinstance(world.chain, Bench)
        self.title, self.world, self.chain = title, world, world.chain
        self.values: dict[Name, bytes] = {}
        self.functions = {
            signature(entry) for entry in abi_of(world.suite)("Hub") if entry["type"] == "function"
        }
        """Signatures of the hub's."""
        self._addresses: dict[str, Address] = {}
        self.orders: dict[Name, tuple[Any, ...]] = {}
        """ABI tuples of orders, without their signatures."""
        self._stand_ins: dict[bytes, bytes] = {}
        self._signatures: dict[bytes, list[tuple[tuple[bytes, ...], tuple[bytes, ...]]]] = {}
        """First word of a signature -> the words of each signature that begins so, and their stand-ins."""

    def learn(self, name: Name, value: bytes) -> None:
        """From now on `name` means these 20 or 32 bytes here."""
        self.values[name] = value
        self._addresses.pop(name, None)
        if not any(value):
            return  # a number as often as an address, and the same everywhere
        stand_in = _stand_in(name, len(value))
        self._stand_ins[value.rjust(32, b"\0")] = stand_in
        LABELS[stand_in] = name

    def known(self) -> tuple[Any, ...]:
        """What `forget` takes to go back to now."""
        return dict(self.values), dict(self._stand_ins), dict(self._signatures)

    def forget(self, values: Any, stand_ins: Any, signatures: Any) -> None:
        self.values, self._stand_ins, self._signatures = values, stand_ins, signatures
        self.orders.clear()
        self._addresses.clear()

    def at(self, name: str) -> Address:
        if name not in self._addresses:
            self._addresses[name] = address(self.values[Name(name)])
        return self._addresses[name]

    def resolve(self, thing: Any) -> Any:
        """The same with this side's values in place of names, orders and signatures."""
        if isinstance(thing, Name):
            return self.values[thing]
        if isinstance(thing, tuple | list):
            return [self.resolve(item) for item in thing]
        if isinstance(thing, Sided):
            return thing.on(self)
        return thing

    def learn_signature(self, signature: bytes, stand_in: bytes) -> None:
        """A signature as it lies in ABI data: padded to whole words."""
        found, instead = _words(signature), _words(stand_in[: len(signature)])
        if found:
            known = self._signatures.setdefault(found[0], [])
            if (found, instead) not in known:
                known.append((found, instead))
                known.sort(key=lambda pair: -len(pair[0]))

    def named(self, data: bytes) -> bytes:
        """ABI data with stand-ins for this side's values. A selector before the words is left alone."""
        head = len(data) % 32
        if head not in (0, 4):
            return data
        words = [data[i : i + 32] for i in range(head, len(data), 32)]
        at = 0
        while at < len(words):
            word = words[at]
            if word in self._stand_ins:
                words[at] = self._stand_ins[word]
            for signed, instead in self._signatures.get(word, ()):
                if tuple(words[at : at + len(signed)]) == signed:
                    words[at : at + len(signed)] = instead
                    at += len(signed) - 1
                    break
            at += 1
        return data[:head] + b"".join(words)


def _words(data: bytes) -> tuple[bytes, ...]:
    return tuple(data[i : i + 32].ljust(32, b"\0") for i in range(0, len(data), 32))


# ---- What is signed ----------------------------------------------------------------------------------------


def _s(signature: bytes) -> int:
    return int.from_bytes(signature[32:64], "big")


def _high(signature: bytes) -> bytes:
    """The other signature of the same message, which EIP-2 forbids."""
    return signature[:32] + (N - _s(signature)).to_bytes(32, "big") + bytes([55 - signature[64]])


def _compact(signature: bytes) -> bytes:
    parity = (signature[64] - 27) << 255
    return signature[:32] + (_s(signature) | parity).to_bytes(32, "big")


FORMS: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda s: s,
    "compact": _compact,
    "high s": _high,
    "compact high s": lambda s: s[:32] + (N - _s(s)).to_bytes(32, "big"),
    "v 0 or 1": lambda s: s[:64] + bytes([s[64] - 27]),
    "v 29": lambda s: s[:64] + b"\x1d",
    "r zero": lambda s: bytes(32) + s[32:],
    "junk": lambda s: b"\xab" * 65,
    "empty": lambda s: b"",
    "1 byte": lambda s: b"\xab",
    "63 bytes": lambda s: s[:63],
    "66 bytes": lambda s: s + b"\0",
    "130 bytes": lambda s: s + s,
    "1024 bytes": lambda s: s.ljust(1024, b"\0"),
    "1025 bytes": lambda s: s.ljust(1025, b"\0"),
}
"""How a good signature is spoilt, or said otherwise."""
LONGEST = 1024
"""Bytes of signature that ours takes."""


@dataclass(frozen=True)
class Sign(Sided):
    """A signature of 32 bytes that have a name."""

    signer: str
    message: Name
    form: str = "plain"

    def on(self, side: Side) -> bytes:
        made = FORMS[self.form](_signature(signing_key(self.signer), side.values[self.message]))
        side.learn_signature(made, _stand_in_signature(f"{self!r}", len(made)))
        return made

    def __repr__(self) -> str:
        form = "" if self.form == "plain" else f", {self.form}"
        return f"{self.signer}'s signature of <{self.message}>{form}"


@lru_cache(maxsize=20_000)
def _signature(signer: Key, message: bytes) -> bytes:
    return signer.sign_digest(message)


@lru_cache(maxsize=20_000)
def _stand_in_signature(name: str, length: int) -> bytes:
    block = b"".join(keccak(f"{name} {i}".encode()) for i in range(-(-length // 32)))
    return block[:length]


@cache
def signing_key(signer: str) -> Key:
    """Wallets sign with the key that their code knows; everyone else with their own."""
    return key("wallet signer" if signer == "wallet" else signer)


PARTS = {Kind.APP: "app", Kind.DATASET: "dataset", Kind.WORKERPOOL: "pool", Kind.REQUEST: "request"}


@dataclass(frozen=True)
class Order(Sided):
    """An order of any kind, its addresses named. `name` is its hash's."""

    name: Name
    kind: Kind
    fields: tuple[tuple[str, Any], ...]

    def __getitem__(self, name: str) -> Any:
        return dict(self.fields)[name]

    @property
    def asset(self) -> Name:
        """What it is about: app, dataset or workerpool; for requests, the app."""
        name: Name = self.fields[0][1]
        return name

    def model(self, side: Side) -> Any:
        """As the side's owner would sign it."""
        return ORDER_TYPES[self.kind](
            **{n: address(side.values[v]) if isinstance(v, Name) else v for n, v in self.fields}
        )

    def on(self, side: Side) -> tuple[Any, ...]:
        if self.name not in side.orders:
            side.orders[self.name] = self.model(side).as_tuple()
        return side.orders[self.name]

    def __repr__(self) -> str:
        plain = ORDER_TYPES[self.kind](**{PARTS_ASSET[self.kind]: ZERO})
        told = {n: v for n, v in self.fields if v not in (getattr(plain, n), "zero") and n != "salt"}
        return f"{self.name}({', '.join(f'{n}={short(v)}' for n, v in told.items())})"


PARTS_ASSET = {Kind.APP: "app", Kind.DATASET: "dataset", Kind.WORKERPOOL: "workerpool", Kind.REQUEST: "app"}
"""The first field of each kind."""


@dataclass(frozen=True)
class TokenId(Sided):
    """An entry as the number that its registry knows it by."""

    entry: Name

    def on(self, side: Side) -> int:
        return int.from_bytes(side.values[self.entry], "big")


@dataclass(frozen=True)
class SignedOrder(Sided):
    order: Order
    sign: Sign | bytes

    def on(self, side: Side) -> tuple[Any, ...]:
        return (*self.order.on(side), side.resolve(self.sign))

    def __repr__(self) -> str:
        sign = self.sign if isinstance(self.sign, Sign) else f"sign {self.sign.hex() or 'empty'}"
        return f"{self.order!r} with {sign}"


# ---- Calls and outcomes ------------------------------------------------------------------------------------


@cache
def hub_functions() -> dict[str, tuple[str, str]]:
    """Name -> (signature, mutability) of the official hub's functions."""
    lines = [line.split(maxsplit=2) for line in OFFICIAL_ABI.read_text().splitlines() if line[:2] == "0x"]
    return {s.split("(")[0]: (s, kind) for _, kind, s in lines if kind != "event"}


@cache
def events() -> dict[bytes, str]:
    lines = [line.split(maxsplit=2) for line in OFFICIAL_ABI.read_text().splitlines() if line[:2] == "0x"]
    return {bytes.fromhex(topic[2:]): s.split("(")[0] for topic, kind, s in lines if kind == "event"}


@cache
def _types(signature: str) -> list[str]:
    """Types of a signature's arguments, tuples whole."""
    inner, depth, types = signature[signature.index("(") + 1 : -1], 0, [""]
    for letter in inner:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and not depth:
            types.append("")
        else:
            types[-1] += letter
    return [t for t in types if t]


WORDS: dict[str, Callable[[Any], bytes]] = {
    "address": lambda value: value.rjust(32, b"\0"),
    "bytes32": lambda value: value,
    "uint256": lambda value: value.to_bytes(32, "big"),
    "bool": lambda value: bytes(31) + bytes([value]),
}
"""How values of one word are encoded."""


def abi(types: Sequence[str], values: Sequence[Any]) -> bytes:
    """ABI encoding: fast where every value is a word, as in most views."""
    if all(kind in WORDS for kind in types):
        return b"".join(WORDS[kind](value) for kind, value in zip(types, values, strict=True))
    return encode(types, values)


@cache
def _selector(signature: str) -> bytes:
    return keccak(signature.encode())[:4]


SPOILS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda d: d,
    "a byte more": lambda d: d + b"\1",
    "a word more": lambda d: d + b"\xff" * 32,
    "a byte less": lambda d: d[:-1],
    "a word less": lambda d: d[:-32],
    "selector alone": lambda d: d[:4],
    "three bytes": lambda d: d[:3],
    "no data": lambda d: b"",
    "unknown selector": lambda d: b"\xde\xad\xbe\xef" + d[4:],
    "high bits in the first word": lambda d: d[:4] + b"\xff" + d[5:],
    "high bits in the second word": lambda d: d[:36] + b"\xff" + d[37:],
    "last word all ones": lambda d: d[:-32] + b"\xff" * 32,
}
"""What is done to the calldata of calls that no client would make."""


@dataclass(frozen=True)
class Call:
    """A call as both sides get it. `function` is one of the hub's by name, or any signature."""

    to: Name
    function: str
    args: tuple[Any, ...] = ()
    sender: Name = STRANGER
    value: int = 0
    spoil: str = ""
    """What is done to the calldata."""

    @property
    def signature(self) -> str:
        return self.function if "(" in self.function else hub_functions()[self.function][0]

    @property
    def what(self) -> str:
        return self.function.split("(")[0]

    def data(self, side: Side) -> bytes:
        signature = self.signature
        data = _selector(signature) + abi(_types(signature), side.resolve(self.args))
        return SPOILS[self.spoil](data)

    def __repr__(self) -> str:
        value = f" with {self.value} wei" if self.value else ""
        spoilt = f", calldata: {self.spoil}" if self.spoil else ""
        return f"{self.to}.{self.what}({', '.join(map(short, self.args))}) by {self.sender}{value}{spoilt}"


def short(value: Any) -> str:
    """A value for people."""
    if isinstance(value, Name):
        return repr(value)
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(short, value))}]"
    if isinstance(value, bytes):
        return (
            label(value) if len(value) == 32 else f"{value[:40].hex()}…({len(value)})" if value else "empty"
        )
    if isinstance(value, int) and not isinstance(value, bool) and value > 10**6:
        return f"{value // RLC} RLC" if value % RLC == 0 and value < 10**18 else hex(value)
    return repr(value)


def label(word: bytes) -> str:
    """A word of an outcome for people."""
    if word in LABELS:
        return f"<{LABELS[word]}>"
    number = int.from_bytes(word, "big")
    return short(number) if number < 2**80 else word.hex()


@dataclass(frozen=True)
class Calldata(Sided):
    """A call among another's arguments."""

    call: Call

    def on(self, side: Side) -> bytes:
        return self.call.data(side)

    def __repr__(self) -> str:
        return f"calldata of {self.call!r}"


@dataclass(frozen=True)
class Outcome:
    """What a call did, in names."""

    ok: bool
    data: bytes
    """What was returned, or the revert data."""
    logs: tuple[tuple[bytes, tuple[bytes, ...], bytes], ...] = ()
    """(emitter as a word, topics, data) of every event, in order."""

    @property
    def reason(self) -> str:
        """Revert data for people."""
        if self.data[:4] == bytes.fromhex("08c379a0"):
            length = int.from_bytes(self.data[36:68], "big")
            return repr(self.data[68 : 68 + length].decode(errors="replace"))
        return (
            f"{self.data[:4].hex()} {' '.join(map(label, _words(self.data[4:])))}" if self.data else "no data"
        )

    def lines(self) -> Iterator[str]:
        if not self.ok:
            yield f"reverts: {self.reason}"
            return
        yield f"returns: {' '.join(map(label, _words(self.data))) or 'nothing'}"
        for emitter, topics, data in self.logs:
            name = events().get(topics[0], topics[0].hex()) if topics else "anonymous"
            yield f"{label(emitter)} {name}: {' '.join(map(label, (*topics[1:], *_words(data))))}"


# ---- Both sides --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answers:
    """What a call did on both sides."""

    call: Call
    official: Outcome
    ours: Outcome
    pair: Pair


@dataclass(frozen=True)
class Difference:
    """One way in which the two may answer differently, told in docs/compatibility.md."""

    row: str
    """Words that stand in its row there."""
    concerns: Callable[[Call], bool]
    """Whether it can play a role in this call."""
    allowed: Callable[[Answers], bool]
    """Whether the answers differ in this way."""
    example: Callable[[Life], Call]
    """A call whose outcomes do differ so."""
    leaves_a_trace: bool = False
    """Even where the outcomes are equal, the states after them are not: such a call is always undone."""


class Mismatch(AssertionError):
    """The two sides answered differently, and no difference allows that."""

    def __init__(self, call: Call, sides: Sequence[str], outcomes: Sequence[Outcome]) -> None:
        lines = [repr(call)]
        for title, outcome in zip(sides, outcomes, strict=True):
            lines += [f"  {title}:", *(f"    {line}" for line in outcome.lines())]
        super().__init__("\n".join(lines))


@dataclass
class Count:
    """How often a function was called, to see that a run did reach something."""

    done: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    """Reason -> how often."""


class Pair:
    """The two sides, in step: what one is given, the other is given too."""

    ROLES = (
        *("owner", "app", "dataset", "scheduler", "requester", "sponsor", "broker", "enclave", "stranger"),
        *("worker", "worker2", "worker3", "worker4"),
    )

    def __init__(self, left: Side, right: Side, differences: Sequence[Difference] = ()) -> None:
        LABELS.clear()
        self.sides = (left, right)
        self.differences = differences
        self.counts: dict[str, Count] = {}
        self.differed: dict[str, int] = {}
        """Row of a difference -> how often it showed."""
        self.failed = False
        for side in self.sides:
            self._furnish(side)
        self.time = max(side.chain.now() for side in self.sides)
        self.wait(1000)

    @staticmethod
    def _furnish(side: Side) -> None:
        """Everyone's name, and the contracts that stand around a hub; where we can, at equal addresses."""
        world = side.world
        for role in Pair.ROLES:
            side.learn(Name(role), address_bytes(key(role).address))
            side.chain.fund(key(role).address, 10**18)
        for name, at in {
            **{"zero": ZERO, "kitty": KITTY, "hub": world.hub.address, "token": world.token.address},
            **{"apps": world.apps.address, "datasets": world.datasets.address},
            **{"pools": world.workerpools.address},
            **{"app#0": world.app, "dataset#0": world.dataset, "pool#0": world.pool},
        }.items():
            side.learn(Name(name), address_bytes(at))
        side.learn(Name("domain separator"), world.domain.separator)

        def deploy(name: str, code: bytes, arguments: bytes = b"") -> None:
            at = side.chain.deploy(code + arguments, key("deployer of actors").address)
            side.learn(Name(name), address_bytes(at))

        signer = encode(["address"], [signing_key("wallet").address])
        deploy("wallet", actors.compiled(actors.WALLET), signer)
        side.chain.put(key("delegated").address, side.chain.code(side.at("wallet")))
        side.learn(Name("delegated"), address_bytes(key("delegated").address))
        members = ["requester", "app#0", "dataset#0", "pool#0"]
        for group, accounts in {"group of all": members, "group of nobody": []}.items():
            deploy(
                group,
                actors.compiled(actors.GROUP),
                encode(["address[]"], [[side.at(account) for account in accounts]]),
            )
        deploy("recorder", actors.compiled(actors.RECORDER))
        deploy("meddler", actors.compiled(actors.MEDDLER))
        for name, code in actors.odd(key("requester").address).items():
            deploy(name, code)
        for role in world.ROLES:
            world.token.transfer(side.at(role), WEALTH)
            world.token.approve(world.hub.address, WEALTH // 2, sender=side.at(role))
        rich = ("wallet", "delegated", "meddler")
        world.token.approve(world.hub.address, len(rich) * WEALTH)
        for account in rich:
            world.hub.depositFor(WEALTH, side.at(account))
        registry_owner = world.owner.address
        for registry in (world.apps, world.datasets, world.workerpools):
            if not registry.initialized():
                registry.initialize(ZERO, sender=registry_owner)
            registry.setBaseURI("https://example.org/", sender=registry_owner)

    def missing(self, function: str) -> bool:
        """Whether a side's hub lacks this function of the official ABI."""
        return any(hub_functions()[function][0] not in side.functions for side in self.sides)

    def everyone(self) -> set[Name]:
        """A name for each account that has one."""
        return set({v: n for n, v in self.sides[0].values.items() if len(v) == 20}.values())

    # ---- Time and names

    def wait(self, seconds: int) -> None:
        self.until(self.time + seconds)

    def until(self, timestamp: int) -> None:
        self.time = timestamp
        for side in self.sides:
            side.chain.at(timestamp)

    @contextmanager
    def undone(self) -> Iterator[None]:
        """What happens inside never happened, on either side; names given inside are forgotten."""
        before = self.time
        with ExitStack() as stack:
            for side in self.sides:
                stack.enter_context(side.chain.undone())
                stack.callback(side.forget, *side.known())
            self.failed = False
            yield
        self.time = before

    def define(self, name: str, value: Callable[[Side], bytes]) -> Name:
        """Give a name to what each side computes for itself."""
        named = Name(name)
        for side in self.sides:
            if named not in side.values:
                side.learn(named, value(side))
        return named

    # ---- Calls

    def both(self, call: Call) -> Outcome:
        """The one outcome of a call on both sides. Raises Mismatch when there are two."""
        suspects = [d for d in self.differences if d.concerns(call)]
        if suspects:
            with self._trial():
                outcomes = self._outcomes(call)
            if outcomes[0] != outcomes[1]:
                return self._excused(call, outcomes, suspects)
            if any(d.leaves_a_trace for d in suspects):
                return Outcome(False, b"")
        outcomes = self._outcomes(call)
        if outcomes[0] != outcomes[1]:
            return self._excused(call, outcomes, ())
        count = self.counts.setdefault(call.what, Count())
        if outcomes[0].ok:
            count.done += 1
        else:
            count.refused[outcomes[0].reason] = count.refused.get(outcomes[0].reason, 0) + 1
        return outcomes[0]

    def joined(self, apart: Sequence[Call], together: Call, empty: bytes) -> Outcome:
        """Several calls on the first side, and one on the second that does what they do, or nothing.

        If the last is refused without data, the one is refused with `empty`. Nothing is done where a
        difference could play a role.
        """
        if any(difference.concerns(call) for difference in self.differences for call in apart):
            return Outcome(False, b"")
        left, right = self.sides
        with self._trial():
            parts = [self._outcome(left, call) for call in apart]
            after = self._outcome(right, together)
        refusals = [part.data for part in parts if not part.ok]
        if not refusals:
            before = Outcome(True, after.data, tuple(log for part in parts for log in part.logs))
        else:
            before = Outcome(False, refusals[0] or (empty if parts[0].ok else b""))
        if before != after:
            return self._excused(together, (before, after), ())
        if after.ok:
            for call in apart:
                self._outcome(left, call)
            self._outcome(right, together)
            count = self.counts.setdefault(f"{together.what} and {apart[-1].what}", Count())
            count.done += 1
        return after

    def ask(self, call: Call) -> Outcome:
        """The same for a call that changes nothing."""
        outcomes = self._outcomes(call, static=True)
        if outcomes[0] != outcomes[1]:
            return self._excused(call, outcomes, [d for d in self.differences if d.concerns(call)])
        return outcomes[0]

    def view(self, call: Call) -> Outcome:
        """What the first side answers: to decide what to do, not to compare."""
        outcome = self.sides[0].chain.run(
            self.sides[0].at(call.to), call.data(self.sides[0]), self.sides[0].at(call.sender), static=True
        )
        assert outcome.ok, f"{call} reverted: {outcome.reason}"
        return outcome

    def number(self, to: str, function: str, *args: Any) -> int:
        """The first word of such a view."""
        return int.from_bytes(self.view(Call(Name(to), function, args)).data[:32], "big")

    def _outcomes(self, call: Call, *, static: bool = False) -> tuple[Outcome, Outcome]:
        left, right = self.sides
        return self._outcome(left, call, static=static), self._outcome(right, call, static=static)

    @staticmethod
    def _outcome(side: Side, call: Call, *, static: bool = False) -> Outcome:
        to, data, sender = side.at(call.to), call.data(side), side.at(call.sender)
        if call.sender == "wallet":
            # A contract cannot send a transaction; anyone makes this one call for itself.
            arguments = encode(["address", "bytes"], [to, data])
            to, data, sender = sender, _selector("execute(address,bytes)") + arguments, side.at("stranger")
        found = side.chain.run(to, data, sender, call.value, static=static)
        return Outcome(
            found.ok,
            side.named(found.data),
            tuple(
                (side.named(emitter), tuple(map(side.named, topics)), side.named(data))
                for emitter, topics, data in found.logs
            ),
        )

    @contextmanager
    def _trial(self) -> Iterator[None]:
        """Only chains are put back."""
        with ExitStack() as stack:
            for side in self.sides:
                stack.enter_context(side.chain.undone())
            yield

    def _excused(
        self, call: Call, outcomes: tuple[Outcome, Outcome], suspects: Sequence[Difference]
    ) -> Outcome:
        """Outcomes that differ as one of the differences allows. Nothing was done then: gives a refusal."""
        for difference in suspects:
            if difference.allowed(Answers(call, *outcomes, self)):
                self.differed[difference.row] = self.differed.get(difference.row, 0) + 1
                return Outcome(False, b"")
        self.failed = True
        raise Mismatch(call, [side.title for side in self.sides], outcomes)
