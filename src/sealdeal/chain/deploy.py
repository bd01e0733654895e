"""A network's contracts, put on a chain.

Every address follows from the account and its first nonce, so a deployment that stopped half way goes on from
what the chain shows: nothing else has to be remembered.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from sealdeal.model.errors import ChainError, IntegrityError, InvalidInput, SealdealError, Unavailable
from sealdeal.model.types import ZERO, Address

from .contract import Contract, artefact, hub_pieces
from .errors import DeploymentStopped, OutOfGasMoney, Reverted, RpcError
from .hub import Hub
from .reads import Addresses, Reader
from .sender import GAS_EXTRA, GAS_MARGIN, Sender
from .verify import EARLY_CATEGORIES, REGISTRIES, arguments, verify
from .wallet import create_address

CATEGORIES = (
    ("XS", "about 5 minutes", 300),
    ("S", "about 20 minutes", 1_200),
    ("M", "about an hour", 3_600),
    ("L", "about 3 hours", 10_800),
    ("XL", "about 10 hours", 36_000),
)
"""(name, description, reference time in seconds) of categories 0 to 4, as on every network (poco.md §3)."""

BASE_URI = "https://nfts-metadata.iex.ec"
"""Where the official registries say that their tokens are described (poco.md §13)."""

SETTING_GAS = 100_000
"""Gas of one setting after the contracts are there, at most (a category with long texts aside)."""


@dataclass(frozen=True)
class QuorumTerms:
    """The TEE broker to deploy."""

    members: Sequence[Address]
    """The SMS nodes' addresses, 15 at most."""
    threshold: int
    trust: Literal["hardware", "simulated"]
    """The only evidence that its members accept, for ever."""
    grace: int = 3_600
    """Seconds for which grants of a removed member still count."""


@dataclass(frozen=True)
class DeployOptions:
    """What to deploy; by default what the official networks are."""

    categories: Sequence[tuple[str, str, int]] = CATEGORIES
    """(name, description, reference time in seconds), numbered from 0."""
    token: Address | None = None
    """A base token that exists already; else one is deployed."""
    holder: Address | None = None
    """Who gets the deployed token's whole supply; else the account that pays."""
    broker: QuorumTerms | Address | None = None
    """The hub's TEE broker: a quorum to deploy, or what exists already; else each pool's owner is its own."""
    owner: Address | Literal["quorum"] | None = None
    """Whose the hub and the registries are in the end: the quorum's, this account's, else that of who
    pays. Zero: nobody's, for ever."""
    kitty_capped: bool = False
    """The kitty pays for a task at most the stake that its scheduler had in it; officially it may be more."""
    changes_delayed: bool = False
    """A change of broker, callback gas or registries takes effect when every deal of its day has ended."""
    v3hub: Address = ZERO
    """A hub of version 3, whose workers' scores count."""
    previous: tuple[Address, Address, Address] = (ZERO, ZERO, ZERO)
    """Earlier registries of apps, datasets, workerpools, whose entries count as registered."""
    base_uri: str = BASE_URI
    """Tokens of apps are described below `BASE_URI/app/CHAIN/`, and so on; empty: nowhere."""


async def deploy(
    sender: Sender, options: DeployOptions | None = None, *, first: int | None = None
) -> Addresses:
    """Deploy a network's contracts, settle what they start with, compare them with the artefacts.

    Nothing else may be sent from the account meanwhile: addresses follow from its nonces. `first`: go on with
    the deployment that began with this nonce, with the same options. Raises InvalidInput or ChainError before
    anything is sent, DeploymentStopped after that, IntegrityError when what is there in the end is not what
    was meant.
    """
    used = await _used(sender)
    begun = int(await sender.rpc.call("eth_blockNumber"), 16) if first is None else 0
    deployment = _Deployment(sender, options or DeployOptions(), used if first is None else first)
    missing = await deployment.missing(used)
    gas = await deployment.gas(missing)
    with deployment.resumable():
        await deployment.create(missing, gas)
        await deployment.settle(await sender.rpc.chain_id())
    return await deployment.check(begun)


async def deploy_data_protector(sender: Sender, datasetregistry: Address) -> Address:
    """Deploy DataProtector for a network that has none yet. Raises ChainError."""
    return await _alone(sender, "DataProtector", datasetregistry)


async def deploy_quorum(sender: Sender, terms: QuorumTerms) -> Address:
    """Deploy a quorum beside a hub of somebody else's, which knows nothing of it. Raises ChainError."""
    return await _alone(sender, "Quorum", list(terms.members), terms.threshold, terms.grace, terms.trust)


async def _alone(sender: Sender, name: str, *arguments: Any) -> Address:
    made = (await sender.send(None, artefact(name).creation(*arguments))).contract
    if made is None:
        raise ChainError(f"expected the address of a contract in the receipt of {name}, got none")
    return made


async def _used(sender: Sender) -> int:
    """The account's next nonce, as soon as nothing of its own is on its way."""
    clock = asyncio.get_running_loop().time
    began = clock()
    while True:
        left = await sender.recover()  # sends again what the node may have forgotten
        used = int(await sender.rpc.call("eth_getTransactionCount", sender.address, "latest"), 16)
        if not left and used >= await sender.next_nonce():
            return used
        if clock() - began > sender.patience:
            raise Unavailable(
                f"transactions of {sender.address} are in no block after {sender.patience:.0f} s; "
                "wait until they are"
            )
        await asyncio.sleep(0.5)


@dataclass(frozen=True)
class _Setting:
    """One transaction after the contracts are there, and what they answer when it is done."""

    contract: Contract
    answers: tuple[tuple[Any, tuple[str, *tuple[Any, ...]]], ...]
    """(answer, (function, arguments…))."""
    act: tuple[str, *tuple[Any, ...]]
    """(function, arguments…)."""


class _Deployment:
    def __init__(self, sender: Sender, options: DeployOptions, first: int) -> None:
        self.sender, self.options, self.first = sender, options, first
        self.rpc, self.reader = sender.rpc, Reader(sender.rpc)
        self.terms = options.broker if isinstance(options.broker, QuorumTerms) else None
        names = [] if options.token else ["Rlc"]
        names += [*reversed(hub_pieces()[1:]), *(f"{entry}Registry" for entry in REGISTRIES)]
        names += ["DataProtector", *(["Quorum"] if self.terms else [])]
        names.append("Hub")  # last: half a deployment has none
        self.place = {name: create_address(sender.address, first + n) for n, name in enumerate(names)}
        if options.owner == "quorum" and not self.terms:
            raise InvalidInput("expected the terms of a quorum: the one that is deployed is to own the hub")
        apps, datasets, pools = (self.place[f"{entry}Registry"] for entry in REGISTRIES)
        token = options.token or self.place["Rlc"]
        quorum, protector = self.place.get("Quorum"), self.place["DataProtector"]
        self.addresses = Addresses(self.place["Hub"], token, apps, datasets, pools, quorum, protector)

    @cached_property
    def arguments(self) -> dict[str, Any]:
        """Constructor arguments of all contracts, by name."""
        given: dict[str, Any] = {
            "holder": self.options.holder or self.sender.address,
            "categories": list(self.options.categories[:EARLY_CATEGORIES]),
            "teebroker": self.place["Quorum"] if self.terms else self.options.broker or ZERO,
            "v3hub": self.options.v3hub,
            "kitty_capped": self.options.kitty_capped,
            "changes_delayed": self.options.changes_delayed,
        }
        if self.terms:
            given |= {"members": list(self.terms.members), "threshold": self.terms.threshold}
            given |= {"grace": self.terms.grace, "trust": self.terms.trust}
        pieces = {name: place for name, place in self.place.items() if name in hub_pieces()[1:]}
        return given | arguments(self.addresses, pieces)

    def creation(self, name: str) -> bytes:
        """The data of the transaction that creates one."""
        made = artefact(name)
        return made.creation(*(self.arguments[parameter] for parameter in made.parameters))

    @contextlib.contextmanager
    def resumable(self) -> Iterator[None]:
        """Say of any failure inside how to go on."""
        try:
            yield
        except DeploymentStopped:
            raise
        except SealdealError as wrong:
            raise DeploymentStopped(
                f"{wrong}; what is deployed stays: go on with the same options from nonce {self.first} of "
                f"{self.sender.address} (--resume {self.first})",
                self.first,
            ) from wrong

    async def missing(self, used: int) -> list[str]:
        """The contracts that are not there yet. Raises InvalidInput, DeploymentStopped."""
        if used < self.first:
            raise InvalidInput(
                f"expected the first nonce of a deployment of {self.sender.address}, which has used {used}, "
                f"got {self.first}"
            )
        there = list(self.place)[: used - self.first]
        for name in there:
            code = await self.rpc.call("eth_getCode", self.place[name], "latest")
            if not code.startswith("0x" + artefact(name).runtime.hex()):
                raise self._lost(name, "is not there, though its nonce is used")
        return list(self.place)[len(there) :]

    def _lost(self, name: str, what: str) -> DeploymentStopped:
        return DeploymentStopped(
            f"{name}, expected at {self.place[name]}, {what}: the deployment that began with nonce "
            f"{self.first} of {self.sender.address} cannot be completed; begin another, from an account that "
            "nothing else uses",
            None,
        )

    async def gas(self, missing: Sequence[str]) -> dict[str, int]:
        """Gas limits of the creations. Raises ChainError when they would fail, or cost too much."""
        head = await self.rpc.call("eth_getBlockByNumber", "latest", False)
        limit, found = int(head["gasLimit"], 16), {}
        for name in missing:
            request = {"from": self.sender.address, "data": "0x" + self.creation(name).hex()}
            try:
                needed = int(await self.rpc.call("eth_estimateGas", request), 16)
            except Reverted as refused:
                raise Reverted(refused.data, reason=refused.reason, doing=f"to create {name}") from None
            except RpcError as refused:
                raise ChainError(
                    f"{name} cannot be created here, where a block holds {limit} gas: {refused.message}"
                ) from None
            found[name] = min(int(needed * GAS_MARGIN) + GAS_EXTRA, limit)
        price = 2 * int(await self.rpc.call("eth_gasPrice"), 16)
        if self.sender.max_fee is not None:
            price = min(price, self.sender.max_fee)
        most = price * (sum(found.values()) + SETTING_GAS * len(list(self._settings(0))))
        owned = int(await self.rpc.call("eth_getBalance", self.sender.address, "latest"), 16)
        if owned < most:
            raise OutOfGasMoney(
                f"{self.sender.address} has {owned} wei, and at today's price a deployment may take up to "
                f"{most} wei of gas: fund it (what is not used stays)"
            )
        return found

    async def create(self, missing: Sequence[str], gas: dict[str, int]) -> None:
        """Create the contracts, all on their way at once."""
        sent = {name: await self.sender.submit(None, self.creation(name), gas=gas[name]) for name in missing}
        for name, submitted in sent.items():
            try:
                created = (await submitted.receipt()).contract
            except Reverted as refused:
                raise self._lost(name, f"was refused ({refused})") from None
            if created != self.place[name]:
                raise self._lost(name, f"is at {created}, because another transaction came in between")

    def _settings(self, chain_id: int) -> Iterator[_Setting]:
        options, at = self.options, self.addresses
        hub = Contract(at.hub, artefact("Hub").abi)
        places = (at.appregistry, at.datasetregistry, at.workerpoolregistry)
        registries = [Contract(place, artefact("AppRegistry").abi) for place in places]
        for entry, registry, previous in zip(REGISTRIES, registries, options.previous, strict=True):
            answers = ((True, ("initialized",)), (previous, ("previous",)))
            yield _Setting(registry, answers, ("initialize", previous))
            uri = f"{options.base_uri.rstrip('/')}/{entry.lower()}/{chain_id}/" if options.base_uri else ""
            yield _Setting(registry, ((uri, ("baseURI",)),), ("setBaseURI", uri))
        for number, category in list(enumerate(options.categories))[EARLY_CATEGORIES:]:
            yield _Setting(hub, ((category, ("viewCategory", number)),), ("createCategory", *category))
        owner = at.quorum if options.owner == "quorum" else options.owner or self.sender.address
        yield _Setting(hub, ((owner, ("owner",)),), ("transferOwnership", owner))
        for registry in registries:
            act = ("transferOwnership", owner) if owner != ZERO else ("renounceOwnership",)
            yield _Setting(registry, ((owner, ("owner",)),), act)

    async def _open(self, chain_id: int) -> list[_Setting]:
        """The settings that are not made yet."""
        found = []
        for setting in self._settings(chain_id):
            try:
                said = await self.reader.read_many([(setting.contract, *call) for _, call in setting.answers])
            except Reverted:
                said = []
            if said != [wanted for wanted, _ in setting.answers]:
                found.append(setting)
        return found

    async def settle(self, chain_id: int) -> None:
        """Make the settings, all on their way at once, ownership last."""
        sent = []
        for setting in await self._open(chain_id):
            function, *values = setting.act
            data = setting.contract.abi.encode(function, *values)
            sent.append(await self.sender.submit(setting.contract.address, data))
        for submitted in sent:
            await submitted.receipt()
        if left := await self._open(chain_id):
            acts = ", ".join(f"{setting.act[0]} of {setting.contract.address}" for setting in left)
            raise DeploymentStopped(f"{acts} had not the effect it should: begin another deployment", None)

    async def check(self, since: int) -> Addresses:
        """What was deployed, if it is what was meant. Raises IntegrityError."""
        found = []
        for one in await verify(self.rpc, self.addresses, since=since):
            if one.name not in self.place and one.address == self.options.token:
                continue
            found += [f"{one.name}: {difference}" for difference in one.differences]
            found += [
                f"{one.name}: {name}: expected {self.arguments[name]}, found {value}"
                for name, value in one.choices.items()
                if name in self.arguments and _plain(value) != _plain(self.arguments[name])
            ]
        if found:
            raise IntegrityError(f"what is deployed is not what was meant, do not use it: {'; '.join(found)}")
        connected = (await Hub.connect(self.rpc, self.addresses.hub)).addresses
        return replace(connected, dataprotector=self.addresses.dataprotector)


def _plain(value: Any) -> Any:
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value
