"""What a hub answers, at a block.

Every read takes `at`, the block it is pinned to (by hash, where the node can), or None for the newest. A
decision takes one block first and passes it to all its reads; when a reorganisation removes that block
in between, they raise BlockGone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sealdeal.model.deals import (
    AccountState,
    AppInfo,
    Category,
    Contribution,
    ContributionStatus,
    DatasetInfo,
    Deal,
    Resource,
    Task,
    TaskStatus,
    WorkerpoolInfo,
    task_id,
)
from sealdeal.model.eip712 import Domain, hub_domain
from sealdeal.model.errors import NotFound
from sealdeal.model.orders import DatasetOrder, Kind, Signed
from sealdeal.model.types import ZERO, Address, Block, Bytes32, address, hexstr, unhex

from .abi import Abi
from .contract import Contract, artefact
from .errors import BlockGone, Reverted, RpcError
from .rpc import Rpc

Request = tuple[Contract, str, *tuple[Any, ...]]
"""(contract, function, arguments…)."""

GROUP_GAS = 200_000
"""For one answer of a group."""
WALLET_GAS = 700_000
"""For one answer of a smart wallet, with what the hub needs to ask it."""
COMPATIBLE_GAS = 3_000_000
"""For the check of one dataset order against a deal."""

_GONE = (
    "not found",
    "unknown block",
    "not canonical",
    "missing trie node",
    "state is not",
    "historical state",
    "outofrange",
    "pruned",
)
"""What nodes say (geth, Erigon, Nethermind, anvil) of a block or a state that they do not have."""
_GROUP = Abi(
    [
        {
            "type": "function",
            "name": "keyHasPurpose",
            "inputs": [{"type": "bytes32"}, {"type": "uint256"}],
            "outputs": [{"type": "bool"}],
        }
    ]
)
"""ERC-734, as far as restrictions ask it; purpose 4 is membership (poco.md §5)."""


@dataclass(frozen=True)
class Addresses:
    """Where a network's contracts are."""

    hub: Address
    token: Address
    appregistry: Address
    datasetregistry: Address
    workerpoolregistry: Address
    quorum: Address | None = None
    """The SMS nodes' quorum: the hub's TEE broker, or, where it has none, whom its workerpools believe."""
    dataprotector: Address | None = None
    """Where DataProtector's clients register datasets; no other contract knows of it."""

    def to_json(self) -> dict[str, str | None]:
        """Name -> address."""
        return asdict(self)

    @classmethod
    def from_json(cls, found: dict[str, str | None]) -> Addresses:
        """The opposite of `to_json`. Raises InvalidInput for what is no address."""
        return cls(**{name: address(value) if value else None for name, value in found.items()})  # type: ignore[arg-type]


class Reader:
    """Calls of contracts, pinned to a block, many in one round trip."""

    def __init__(self, rpc: Rpc) -> None:
        self.rpc = rpc
        self._by_hash = True

    async def read(self, contract: Contract, function: str, *args: Any, at: Block | None = None) -> Any:
        """What one function answers. Raises Reverted, BlockGone."""
        (answer,) = await self.read_many([(contract, function, *args)], at=at)
        return answer

    async def read_many(self, requests: Sequence[Request], *, at: Block | None = None) -> list[Any]:
        """What many functions answer, in order. The first refusal is raised."""
        if not requests:
            return []
        calls = [contract.request(function, *args) for contract, function, *args in requests]
        answers = await self._call(calls, at)
        results = []
        for (contract, function, *_), answer in zip(requests, answers, strict=True):
            if isinstance(answer, Reverted):
                raise contract.explain(answer, function)
            if isinstance(answer, RpcError):
                raise self._failed(answer, at)
            results.append(contract.decode(function, answer))
        return results

    def _failed(self, answer: RpcError, at: Block | None) -> RpcError | BlockGone:
        if at is None or not any(word in answer.message.lower() for word in _GONE):
            return answer
        return BlockGone(
            f"block {at.number} ({hexstr(at.hash)}) is no longer readable: it was reorganised away, or its "
            f"state was dropped ({answer.message}); take a new block"
        )

    async def _call(self, calls: Sequence[dict[str, str]], at: Block | None) -> list[Any]:
        if at is None:
            return await self.rpc.batch([("eth_call", call, "latest") for call in calls], raising=False)
        if self._by_hash:
            tag = {"blockHash": hexstr(at.hash), "requireCanonical": True}
            answers = await self.rpc.batch([("eth_call", call, tag) for call in calls], raising=False)
            first = answers[0]
            if not (isinstance(first, RpcError) and first.number == -32602 and "unmarshal" in first.message):
                return answers
            self._by_hash = False  # the node does not know EIP-1898
        header: tuple[Any, ...] = ("eth_getBlockByNumber", hex(at.number), False)
        *answers, now = await self.rpc.batch(
            [*(("eth_call", call, hex(at.number)) for call in calls), header], raising=False
        )
        if not isinstance(now, dict) or unhex(now["hash"]) != at.hash:
            raise BlockGone(f"block {at.number} ({hexstr(at.hash)}) was reorganised away; take a new block")
        return answers

    # --- blocks

    async def block(self, which: int | str | bytes = "latest") -> Block:
        """A block by number, tag or hash. Raises NotFound."""
        if isinstance(which, bytes):
            found = await self.rpc.call("eth_getBlockByHash", hexstr(which), False)
        else:
            number = hex(which) if isinstance(which, int) else which
            found = await self.rpc.call("eth_getBlockByNumber", number, False)
        if found is None:
            raise NotFound(
                f"{self.rpc.name} has no block {hexstr(which) if isinstance(which, bytes) else which}"
            )
        return header_block(found)

    async def final_block(self, confirmations: int) -> Block:
        """The block `confirmations` below the newest (the first block of a chain younger than that)."""
        while True:
            head = await self.block()
            if not confirmations:
                return head
            try:
                return await self.block(max(0, head.number - confirmations))
            except NotFound:  # the chain went back below it in between
                await asyncio.sleep(0.05)


def header_block(header: dict[str, Any]) -> Block:
    """The Block of a header of JSON-RPC."""
    return Block(int(header["number"], 16), unhex(header["hash"]), int(header["timestamp"], 16))


class HubReads(Reader):
    """The views of a hub, its token and its registries. Unknown ids raise NotFound, or read as zero."""

    def __init__(self, rpc: Rpc, addresses: Addresses) -> None:
        super().__init__(rpc)
        self.addresses = addresses
        self.hub = Contract(addresses.hub, artefact("Hub").abi)
        self.token = Contract(addresses.token, artefact("Rlc").abi)
        self.registries = {
            Kind.APP: Contract(addresses.appregistry, artefact("AppRegistry").abi),
            Kind.DATASET: Contract(addresses.datasetregistry, artefact("DatasetRegistry").abi),
            Kind.WORKERPOOL: Contract(addresses.workerpoolregistry, artefact("WorkerpoolRegistry").abi),
        }

    @property
    def contracts(self) -> tuple[Contract, ...]:
        """All of them: what a follower watches."""
        return (self.hub, self.token, *self.registries.values())

    async def domain(self) -> Domain:
        """The EIP-712 domain that this hub's orders are signed in."""
        return hub_domain(await self.rpc.chain_id(), self.addresses.hub)

    # --- deals and tasks

    async def deal(self, dealid: Bytes32, at: Block | None = None) -> Deal:
        """A deal. Raises NotFound."""
        (found,) = await self.deals([dealid], at)
        return found

    async def deals(self, dealids: Sequence[Bytes32], at: Block | None = None) -> list[Deal]:
        """Many deals, in order. Raises NotFound for the first unknown one."""
        found = await self.read_many([(self.hub, "viewDeal", dealid) for dealid in dealids], at=at)
        return [_deal(dealid, view) for dealid, view in zip(dealids, found, strict=True)]

    async def task(self, taskid: Bytes32, at: Block | None = None) -> Task:
        """A task; one that was never initialised is UNSET with everything zero."""
        (found,) = await self.tasks([taskid], at)
        return found

    async def tasks(self, taskids: Sequence[Bytes32], at: Block | None = None) -> list[Task]:
        """Many tasks, in order."""
        found = await self.read_many([(self.hub, "viewTask", taskid) for taskid in taskids], at=at)
        return [_task(taskid, view) for taskid, view in zip(taskids, found, strict=True)]

    async def task_of(self, deal: Deal, index: int, at: Block | None = None) -> Task:
        """A task of a deal; one that has not begun is UNSET, with the deadlines that it will have."""
        task = await self.task(task_id(deal.dealid, index), at)
        if task.status is not TaskStatus.UNSET:
            return task
        return deal.to_begin(index, (await self.category(deal.category, at)).reference_time)

    async def contribution(self, taskid: Bytes32, worker: Address, at: Block | None = None) -> Contribution:
        """A worker's contribution to a task; UNSET when there is none."""
        status, *rest = await self.read(self.hub, "viewContribution", taskid, worker, at=at)
        return Contribution(ContributionStatus(status), *rest)

    async def category(self, number: int, at: Block | None = None) -> Category:
        """A category. Raises NotFound."""
        try:
            return Category(number, *await self.read(self.hub, "viewCategory", number, at=at))
        except Reverted:
            raise NotFound(f"this hub has no category {number}") from None

    async def categories(self, at: Block | None = None) -> list[Category]:
        """All categories, by number."""
        count = await self.read(self.hub, "countCategory", at=at)
        found = await self.read_many([(self.hub, "viewCategory", number) for number in range(count)], at=at)
        return [Category(number, *view) for number, view in enumerate(found)]

    # --- accounts and orders

    async def account(self, account: Address, at: Block | None = None) -> AccountState:
        """Free stake and locked stake, in nRLC."""
        return AccountState(*await self.read(self.hub, "viewAccount", account, at=at))

    async def token_balance(self, account: Address, at: Block | None = None) -> int:
        """nRLC in the wallet, outside the hub."""
        return int(await self.read(self.token, "balanceOf", account, at=at))

    async def allowance(self, owner: Address, spender: Address, at: Block | None = None) -> int:
        """How many nRLC of `owner`'s free stake `spender` may still move."""
        return int(await self.read(self.hub, "allowance", owner, spender, at=at))

    async def consumed(self, order_hash: Bytes32, at: Block | None = None) -> int:
        """How much of an order's volume deals have used; all of it after it was closed."""
        return int(await self.read(self.hub, "viewConsumed", order_hash, at=at))

    async def consumed_many(self, order_hashes: Sequence[Bytes32], at: Block | None = None) -> list[int]:
        """`consumed` of many orders, in order."""
        return await self.read_many([(self.hub, "viewConsumed", h) for h in order_hashes], at=at)

    async def presigned(self, order_hash: Bytes32, at: Block | None = None) -> Address:
        """Who signed an order on chain; the zero address when nobody did."""
        return address(await self.read(self.hub, "viewPresigned", order_hash, at=at))

    async def verify_signature(
        self, identity: Address, digest: Bytes32, signature: bytes, at: Block | None = None
    ) -> bool:
        """The hub's own answer: is it `identity`'s signature (a key's, or EIP-1271) of the digest?"""
        try:
            return bool(await self.read(self.hub, "verifySignature", identity, digest, signature, at=at))
        except Reverted as refused:
            if refused.reason == "invalid-signature-format":
                return False
            raise

    async def agrees(
        self, account: Address, digest: Bytes32, signature: bytes, at: Block | None = None
    ) -> bool:
        """As `verify_signature`, but a contract may use WALLET_GAS, and whatever else it does is a no."""
        asked = self.hub.request("verifySignature", account, digest, signature) | {"gas": hex(WALLET_GAS)}
        (answer,) = await self._call([asked], at)
        if isinstance(answer, RpcError) and "gas" not in answer.message.lower():
            raise self._failed(answer, at)
        if isinstance(answer, Reverted | RpcError):
            return False
        return bool(self.hub.decode("verifySignature", answer))

    async def admits(self, restriction: Address, account: Address, at: Block | None = None) -> bool:
        """Does an order's restriction admit an account? Zero admits all; a group (ERC-734), its members."""
        if restriction in (ZERO, account):
            return True
        group = Contract(restriction, _GROUP)
        asked = group.request("keyHasPurpose", unhex(account).rjust(32, b"\0"), 4)
        (answer,) = await self._call([asked], at)
        if isinstance(answer, RpcError):
            raise self._failed(answer, at)
        if isinstance(answer, Reverted) or answer == "0x":
            return False
        return bool(group.decode("keyHasPurpose", answer))

    async def group_answers(
        self, pairs: Sequence[tuple[Address, Address]], at: Block | None = None
    ) -> list[bool | None]:
        """Does each group (ERC-734) admit its account? None of what does not answer as a group does.

        A group may use GROUP_GAS: it is somebody's code.
        """
        calls = []
        for group, account in pairs:
            asked = Contract(group, _GROUP).request("keyHasPurpose", unhex(account).rjust(32, b"\0"), 4)
            calls.append(asked | {"gas": hex(GROUP_GAS)})
        found: list[bool | None] = []
        for answer in await self._call(calls, at) if calls else []:
            if isinstance(answer, RpcError) and isinstance(gone := self._failed(answer, at), BlockGone):
                raise gone
            a_word = isinstance(answer, str) and len(answer) == 66
            found.append(int(answer, 16) == 1 if a_word else None)
        return found

    async def score(self, worker: Address, at: Block | None = None) -> int:
        """A worker's score, which weighs its contributions."""
        return int(await self.read(self.hub, "viewScore", worker, at=at))

    async def tee_broker(self, at: Block | None = None) -> Address:
        """Who authorises enclaves; the zero address: each pool's owner."""
        return address(await self.read(self.hub, "teebroker", at=at))

    # --- assets

    async def app(self, app: Address, at: Block | None = None) -> AppInfo:
        """An app's entry. Raises NotFound when nothing of the kind is there."""
        return AppInfo(*await self._entry("viewApp", app, at))

    async def dataset(self, dataset: Address, at: Block | None = None) -> DatasetInfo:
        """A dataset's entry. Raises NotFound."""
        return DatasetInfo(*await self._entry("viewDataset", dataset, at))

    async def datasets(
        self, datasets: Sequence[Address], at: Block | None = None
    ) -> list[DatasetInfo | None]:
        """Many datasets' entries, in order; None where there is none."""
        if not datasets:
            return []
        answers = await self._call([self.hub.request("viewDataset", each) for each in datasets], at)
        found: list[DatasetInfo | None] = []
        for answer in answers:
            if isinstance(answer, RpcError):
                raise self._failed(answer, at)
            gone = isinstance(answer, Reverted)
            found.append(None if gone else DatasetInfo(*self.hub.decode("viewDataset", answer)))
        return found

    async def compatible(
        self, orders: Sequence[Signed[DatasetOrder]], dealid: Bytes32, at: Block | None = None
    ) -> list[bool]:
        """Whether each dataset order could be added to a deal that was made without a dataset.

        The hub checks its signature, its restrictions and its tag, and that something is left of it. What
        takes more than `COMPATIBLE_GAS` (an owner or a group may be anybody's contract) is not compatible.
        """
        if not orders:
            return []
        asked = [
            {
                **self.hub.request("assertDatasetDealCompatibility", order.as_tuple(), dealid),
                "gas": hex(COMPATIBLE_GAS),
            }
            for order in orders
        ]
        answers = await self._call(asked, at)
        found = []
        for answer in answers:
            if isinstance(answer, RpcError) and "gas" not in answer.message.lower():
                raise self._failed(answer, at)
            found.append(not isinstance(answer, Reverted | RpcError))
        return found

    async def workerpool(self, workerpool: Address, at: Block | None = None) -> WorkerpoolInfo:
        """A workerpool's entry. Raises NotFound."""
        return WorkerpoolInfo(*await self._entry("viewWorkerpool", workerpool, at))

    async def _entry(self, function: str, asset: Address, at: Block | None) -> tuple[Any, ...]:
        try:
            return tuple(await self.read(self.hub, function, asset, at=at))
        except Reverted:
            kind = function.removeprefix("view").lower()
            raise NotFound(f"there is no {kind} at {asset} on this chain; check the address") from None

    async def owner_of(self, asset: Address, at: Block | None = None) -> Address:
        """Who owns an app, dataset or workerpool. Raises NotFound."""
        entry = Contract(asset, artefact("App").abi)
        (answer,) = await self._call([entry.request("owner")], at)
        if isinstance(answer, Reverted) or answer == "0x":
            raise NotFound(f"there is no app, dataset or workerpool at {asset}; check the address")
        if isinstance(answer, RpcError):
            raise self._failed(answer, at)
        return address(entry.decode("owner", answer))

    async def is_registered(self, kind: Kind | str, asset: Address, at: Block | None = None) -> bool:
        """Is the asset an entry of this network's registry of that kind?"""
        return bool(await self.read(self.registries[Kind(kind)], "isRegistered", asset, at=at))

    async def assets_of(self, kind: Kind | str, owner: Address, at: Block | None = None) -> list[Address]:
        """The assets of that kind that somebody owns."""
        registry = self.registries[Kind(kind)]
        count = await self.read(registry, "balanceOf", owner, at=at)
        calls: list[Request] = [(registry, "tokenOfOwnerByIndex", owner, i) for i in range(count)]
        return [address(found.to_bytes(20, "big")) for found in await self.read_many(calls, at=at)]


def _deal(dealid: Bytes32, view: Any) -> Deal:
    app, dataset, pool, *rest = view
    deal = Deal(dealid, Resource(*app), Resource(*dataset), Resource(*pool), *rest)
    if not deal.bot_size:
        raise NotFound(f"there is no deal {hexstr(dealid)} on this chain at that block")
    return deal


def _task(taskid: Bytes32, view: Any) -> Task:
    status, *head, contributors, digest, results, _timestamp, callback = view
    tail = (tuple(contributors), digest, results, callback)
    return Task(taskid, TaskStatus(status), *(*head, *tail))
