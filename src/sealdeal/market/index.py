"""What the chain does to orders (wire.md §1.6): deals, closings, sales, stakes, categories.

Events only say which orders to look at; what becomes of them is read from the chain at the batch's block
and judged by `book.status_of`. So a batch applied twice does nothing, and after a reorganisation the orders
read on the lost branch are simply read again where the branches part.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sealdeal.chain import Batch, BlockGone, ChainUnreachable, Event, Follower, Hub, RolledBack
from sealdeal.model.deals import Deal, Resource, task_id
from sealdeal.model.errors import ChainError, Unavailable
from sealdeal.model.orders import Kind, owner_field
from sealdeal.model.types import ZERO, Address, Block, address, hexstr

from .book import Status, stake_needed, status_of
from .journal import TaskStep, iso_time
from .store import Change, MarketStore, Overtaken, Record

log = logging.getLogger("sealdeal.market")

NAMES = (
    "OrdersMatched",
    "ClosedAppOrder",
    "ClosedDatasetOrder",
    "ClosedWorkerpoolOrder",
    "ClosedRequestOrder",
    "Transfer",
    "CreateCategory",
    "TaskInitialize",
    "TaskFinalize",
    "TaskClaimed",
    "ResultPushedBoost",
)
PATIENCE = 5.0
"""Seconds that a reader waits for the index to reach the head of the chain."""
STATES = 64
"""Blocks below the head whose state every node still has (full nodes keep 128)."""
_RETRY = 1.0  # seconds after the chain, not the index, was at fault
_AT_ONCE = 100  # reads on their way at a time

_V = TypeVar("_V")


@dataclass(frozen=True, slots=True)
class Moved:
    """The index took a step."""

    block: Block
    changed: frozenset[bytes] = frozenset()
    """Hashes of the orders whose state changed."""
    credited: frozenset[Address] = frozenset()
    """Accounts whose free stake grew."""
    deals: Sequence[dict[str, Any]] = ()
    """Documents of new deals."""


@dataclass
class _Findings:
    """What the events of one batch ask to be looked at."""

    hashes: set[bytes] = field(default_factory=set)
    closed: set[bytes] = field(default_factory=set)
    assets: set[tuple[Kind, Address]] = field(default_factory=set)
    debited: set[Address] = field(default_factory=set)
    credited: set[Address] = field(default_factory=set)
    matches: list[Event] = field(default_factory=list)
    categories: list[Event] = field(default_factory=list)
    steps: list[Event] = field(default_factory=list)
    """What happened to tasks."""


class Index:
    """Keeps a market's store at the head of the chain, or `confirmations` blocks below it.

    `origin`: a block before the hub's first event. `interval`: seconds between looks at the chain.
    """

    def __init__(
        self, store: MarketStore, hub: Hub, *, origin: int = 0, interval: float = 0.2, confirmations: int = 0
    ) -> None:
        self._store, self._hub, self._origin, self._interval = store, hub, origin, interval
        self._confirmations = confirmations
        self._registries = {contract.address: kind for kind, contract in hub.registries.items()}
        self._cursor: Block | None = None
        self._step = asyncio.Event()
        self.listeners: list[Callable[[Moved], None]] = []

    @property
    def cursor(self) -> Block | None:
        """The block that the store shows; None until the first is read."""
        return self._cursor

    async def run(self) -> None:
        """Follow the chain for ever; ends by cancellation only."""
        while True:
            known = await self._store.recent_blocks()
            self._move(Moved(known[0]) if known else None)
            follower = Follower(
                self._hub.rpc,
                self._hub.contracts,
                confirmations=self._confirmations,
                start=known or None,
                origin=self._origin,
                names=NAMES,
                interval=self._interval,
            )
            try:
                async for item in follower:
                    if isinstance(item, RolledBack):
                        await self._roll_back(item.to)
                    else:
                        await self._apply(item)
            except (Overtaken, BlockGone):  # another market node was quicker, or the chain moved: start over
                await asyncio.sleep(self._interval)
            except (ChainError, Unavailable) as wrong:
                log.warning("the index waits: %s", wrong)
                await asyncio.sleep(_RETRY)

    async def caught_up(self, patience: float = PATIENCE) -> Block:
        """The block that the store shows, once it is no older than the head at the time of the call.

        A chain that does not answer is not waited for: what is known is as good as it gets. Raises
        Unavailable when the index does not get there within `patience` seconds.
        """
        try:
            async with asyncio.timeout(patience):
                head = await self._hub.final_block(self._confirmations)
        except (ChainUnreachable, TimeoutError):
            if self._cursor is None:
                raise Unavailable("the chain does not answer and nothing is indexed yet; try again") from None
            return self._cursor
        return await self.reached(head, patience)

    async def reached(self, block: Block, patience: float = PATIENCE) -> Block:
        """Wait until the store shows `block` or a later one. Raises Unavailable after `patience` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while not self._shows(block):
                    await self._step.wait()
        if self._cursor is None or not self._shows(block):
            at = "nothing" if self._cursor is None else f"block {self._cursor.number}"
            raise Unavailable(f"the index shows {at}, the chain is at block {block.number}; try again")
        return self._cursor

    def _shows(self, block: Block) -> bool:
        at = self._cursor
        return at is not None and (at.number > block.number or at.hash == block.hash)

    def _move(self, moved: Moved | None) -> None:
        if moved is None:
            return
        self._cursor = moved.block
        self._step.set()
        self._step = asyncio.Event()
        for listener in self.listeners:
            listener(moved)

    # --- one step

    async def _apply(self, batch: Batch) -> None:
        found = self._read(batch.events)
        block = await self._readable(batch.block) if batch.events else batch.block
        matches = [bytes(event["dealid"]) for event in found.matches]
        times = await self._times(batch.block, [*found.matches, *found.categories, *found.steps])
        views = await self._hub.deals(matches, block) if matches else []
        deals = [
            _deal_row(event, deal, times[event.block_number])
            for event, deal in zip(found.matches, views, strict=True)
        ]
        categories = [_category_row(event, times[event.block_number]) for event in found.categories]
        steps = await self._steps(found.steps, times, block)
        records = await self._store.touched(hashes=found.hashes, assets=found.assets, signers=found.debited)
        changes = await self._changes(records, block, found.closed)
        changed = await self._store.apply(
            self._cursor, batch.block, changes, deals, categories, steps, read_at=block.number
        )
        documents = [row["document"] for row in deals]
        self._move(Moved(batch.block, frozenset(changed), frozenset(found.credited), documents))

    async def _roll_back(self, to: Block) -> None:
        records = await self._store.read_after(to.number)
        block = await self._readable(to)
        changes = await self._changes(records, block, revive=True)
        changed = await self._store.roll_back(to, changes, read_at=block.number)
        log.info("reorganisation: back at block %d, %d orders changed", to.number, len(changed))
        self._move(Moved(to, frozenset(changed)))

    async def _readable(self, block: Block) -> Block:
        """`block`, or, when nodes may have forgotten its state, one that is settled and still readable.

        Then orders are judged by what is to come; the events in between judge them so again.
        """
        settled = await self._hub.final_block(STATES)
        return settled if settled.number > block.number else block

    def _read(self, events: Iterable[Event]) -> _Findings:
        found, hub = _Findings(), self._hub.addresses.hub
        for event in events:
            if event.name == "Transfer" and event.address in self._registries:
                if event["from"] != ZERO:
                    asset = address(event["tokenId"].to_bytes(20, "big"))
                    found.assets.add((self._registries[event.address], asset))
            elif event.address != hub:
                continue
            elif event.name == "Transfer":
                if event["value"]:
                    found.debited.add(event["from"])
                    found.credited.add(event["to"])
            elif event.name == "OrdersMatched":
                found.matches.append(event)
                found.hashes |= {bytes(event[name]) for name in _MATCHED}
            elif event.name == "CreateCategory":
                found.categories.append(event)
            elif event.name in _STEPS:
                found.steps.append(event)
            else:  # Closed…Order(hash)
                (closed,) = event.args.values()
                found.closed.add(bytes(closed))
                found.hashes.add(bytes(closed))
        return found

    async def _changes(
        self, records: Sequence[Record], block: Block, closed: Iterable[bytes] = (), *, revive: bool = False
    ) -> list[Change]:
        """What these orders are at `block`. A dead order stays dead unless it died on a branch now lost."""
        hub, closed = self._hub, frozenset(closed)
        consumed = await hub.consumed_many([record.hash for record in records], block) if records else []
        assets = {owner_field(r.signed.order) for r in records if r.kind is not Kind.REQUEST}
        payers = {r.signer for r in records if stake_needed(r.signed.order, 1)}
        owners = await _each(assets, lambda asset: hub.owner_of(asset, block))
        accounts = await _each(payers, lambda payer: hub.account(payer, block))
        changes = []
        for record, used in zip(records, consumed, strict=True):
            order = record.signed.order
            owner = record.signer if record.kind is Kind.REQUEST else owners[owner_field(order)]
            stake = accounts[record.signer].stake if record.signer in accounts else 0
            status = status_of(order, used, record.hash in closed, record.signer, owner, stake)
            if status is Status.OPEN and record.status is Status.DEAD and not revive:
                status = Status.DEAD
            remaining = 0 if status is Status.CANCELED else order.volume - used
            if revive or (status, remaining) != (record.status, record.remaining):
                changes.append(Change(record.hash, status, remaining))
        return changes

    async def _steps(self, events: Sequence[Event], times: dict[int, int], block: Block) -> list[TaskStep]:
        """What these events say of tasks; which deal a task is of, its record says."""
        named = sorted({bytes(event["taskid"]) for event in events if event.name != "ResultPushedBoost"})
        views = {task.taskid: task for task in await self._hub.tasks(named, block)} if named else {}
        steps = []
        for event in events:
            if event.name == "ResultPushedBoost":
                dealid, idx = bytes(event["dealId"]), int(event["index"])
                taskid = task_id(dealid, idx)
            else:
                taskid = bytes(event["taskid"])
                dealid, idx = views[taskid].dealid, views[taskid].idx
                if not any(dealid):
                    continue  # of a deal whose tasks have no record, claimed: nothing tells which
            steps.append(
                TaskStep(
                    taskid,
                    dealid,
                    idx,
                    _STEPS[event.name],
                    event.block_number,
                    times[event.block_number],
                    event.tx_hash,
                    bytes(event["results"]) if _STEPS[event.name] == "completed" else None,
                )
            )
        return steps

    async def _times(self, last: Block, events: Sequence[Event]) -> dict[int, int]:
        """Block number -> timestamp, for the blocks of these events."""
        numbers = {event.block_number for event in events} - {last.number}
        blocks = await _each(numbers, self._hub.block)
        return {number: block.timestamp for number, block in blocks.items()} | {last.number: last.timestamp}


async def _each(keys: Iterable[Any], read: Callable[[Any], Awaitable[_V]]) -> dict[Any, _V]:
    found: dict[Any, _V] = {}
    rest = list(keys)
    while rest:
        now, rest = rest[:_AT_ONCE], rest[_AT_ONCE:]
        found |= dict(zip(now, await asyncio.gather(*map(read, now)), strict=True))
    return found


# ----------------------------------------------------------------------------------------- documents

_MATCHED = {
    "appHash": "apporderHash",
    "datasetHash": "datasetorderHash",
    "workerpoolHash": "workerpoolorderHash",
    "requestHash": "requestorderHash",
}
"""Name in the event and in the deal's document -> name of the filter."""
_STEPS = {
    "TaskInitialize": "active",
    "TaskFinalize": "completed",
    "TaskClaimed": "failed",
    "ResultPushedBoost": "completed",
}
"""Event -> what the task is then."""


def _deal_row(event: Event, deal: Deal, timestamp: int) -> dict[str, Any]:
    hashes = {name: bytes(event[name]) for name in _MATCHED}
    document = {
        "dealid": hexstr(deal.dealid),
        "app": _resource(deal.app),
        "dataset": _resource(deal.dataset),
        "workerpool": _resource(deal.workerpool),
        "requester": deal.requester,
        "beneficiary": deal.beneficiary,
        "callback": deal.callback,
        **{name: hexstr(value) for name, value in hashes.items()},
        "params": deal.params,
        "volume": deal.bot_size,
        "category": deal.category,
        "tag": hexstr(deal.tag),
        "trust": deal.trust,
        "startTime": deal.start_time,
        "botFirst": deal.bot_first,
        "botSize": deal.bot_size,
        "schedulerRewardRatio": deal.scheduler_reward_ratio,
        "workerStake": deal.worker_stake,
        "sponsor": deal.sponsor,
        "blockNumber": event.block_number,
        "blockTimestamp": iso_time(timestamp),
        "transactionHash": hexstr(event.tx_hash),
    }
    return {
        "dealid": deal.dealid,
        "block": event.block_number,
        "timestamp": timestamp,
        "document": document,
        "category": deal.category,
        "requester": deal.requester,
        "beneficiary": deal.beneficiary,
        "app": deal.app.pointer,
        "dataset": deal.dataset.pointer,
        "workerpool": deal.workerpool.pointer,
        "appOwner": deal.app.owner,
        "datasetOwner": deal.dataset.owner,
        "workerpoolOwner": deal.workerpool.owner,
        **{column: hashes[name] for name, column in _MATCHED.items()},
    }


def _resource(resource: Resource) -> dict[str, Any]:
    return {"pointer": resource.pointer, "owner": resource.owner, "price": resource.price}


def _category_row(event: Event, timestamp: int) -> dict[str, Any]:
    catid, seconds = int(event["catid"]), int(event["workClockTimeRef"])
    document = {
        "catid": catid,
        "name": event["name"],
        "description": event["description"],
        "workClockTimeRef": seconds,
        "transactionHash": hexstr(event.tx_hash),
        "blockNumber": event.block_number,
        "blockTimestamp": iso_time(timestamp),
    }
    return {
        "catid": catid,
        "block": event.block_number,
        "work_clock_time_ref": min(seconds, 2**63 - 1),  # to sort by; the document has it all
        "document": document,
    }
