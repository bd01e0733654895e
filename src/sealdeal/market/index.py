"""What the chain does to orders (wire.md §1.6): deals, closings, sales, stakes, categories.

Events only say which orders to look at; what becomes of them is read from the chain at the batch's block
and judged by `book.status_of`. So a batch applied twice does nothing, and after a reorganisation the orders
read on the lost branch are simply read again where the branches part.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sealdeal.chain import Batch, Event, Follower, Hub, Progress
from sealdeal.model.deals import Deal, Resource, task_id
from sealdeal.model.errors import NotFound
from sealdeal.model.orders import Kind, owner_field
from sealdeal.model.types import ZERO, Address, Block, address, hexstr

from .book import Status, stake_needed, status_of
from .boost import boost_deals, claimed_tasks
from .following import keep_up, readable
from .journal import TaskStep, iso_time
from .records import Change, Record
from .store import MarketStore

log = logging.getLogger("sealdeal.market")

NAMES = (
    "OrdersMatched",
    "SchedulerNoticeBoost",
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
AWAITED = 64
"""Blocks for which orders that died with a branch are looked at again: most of what it had comes back."""
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
    boosts: list[Event] = field(default_factory=list)
    """What is told of those matches that made Boost deals."""
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
        self._progress = Progress(hub, confirmations)
        self.caught_up, self.reached = self._progress.caught_up, self._progress.reached
        """For readers: see `chain.Progress`."""
        self._orphans: dict[bytes, int] = {}
        """Orders that died with a branch -> the block up to which they are looked at again."""
        self.listeners: list[Callable[[Moved], None]] = []

    @property
    def cursor(self) -> Block | None:
        """The block that the store shows; None until the first is read."""
        return self._progress.block

    async def run(self) -> None:
        """Follow the chain for ever; ends by cancellation only."""
        await keep_up(
            "the index waits",
            self._start,
            apply=self._apply,
            roll_back=self._roll_back,
            interval=self._interval,
        )

    async def _start(self) -> Follower:
        known = await self._store.recent_blocks()
        self._progress.begin(known[0] if known else None)
        if known:
            died = await self._store.orphans(known[0].number - AWAITED)
            self._orphans = {hash: block + AWAITED for hash, block in died.items()} | self._orphans
            self._tell(Moved(known[0]))
        return Follower(
            self._hub.rpc,
            self._hub.contracts,
            confirmations=self._confirmations,
            start=known or None,
            origin=self._origin,
            names=NAMES,
            interval=self._interval,
        )

    def _move(self, moved: Moved) -> None:
        self._progress.move(moved.block)
        self._tell(moved)

    def _tell(self, moved: Moved) -> None:
        for listener in self.listeners:
            listener(moved)

    # --- one step

    async def _apply(self, batch: Batch) -> None:
        found = self._read(batch.events)
        block = await readable(self._hub, batch.block) if batch.events else batch.block
        times = await self._times(batch.block, [*found.matches, *found.categories, *found.steps])
        deals = await self._deals(found, times, block)
        categories = [_category_row(event, times[event.block_number]) for event in found.categories]
        steps = await self._steps(found.steps, times, block, deals)
        self._orphans = {hash: until for hash, until in self._orphans.items() if until >= batch.block.number}
        records = await self._store.touched(
            hashes=found.hashes | self._orphans.keys(), assets=found.assets, signers=found.debited
        )
        changes = await self._changes(records, block, found.closed, revive=self._orphans.keys())
        changed = await self._store.apply(
            self.cursor, batch.block, changes, deals, categories, steps, read_at=block.number
        )
        documents = [row["document"] for row in deals]
        self._move(Moved(batch.block, frozenset(changed), frozenset(found.credited), documents))

    async def _roll_back(self, to: Block) -> None:
        records = await self._store.read_after(to.number)
        block = await readable(self._hub, to)
        changes = await self._changes(records, block, revive={record.hash for record in records})
        changed = await self._store.roll_back(to, changes, read_at=block.number)
        self._orphans |= dict.fromkeys(changed, max([to.number, *(r.block for r in records)]) + AWAITED)
        log.info("reorganisation: back at block %d, %d orders changed", to.number, len(changed))
        self._move(Moved(to, frozenset(changed)))

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
            elif event.name == "SchedulerNoticeBoost":
                found.boosts.append(event)
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
        self,
        records: Sequence[Record],
        block: Block,
        closed: Iterable[bytes] = (),
        *,
        revive: Collection[bytes] = (),
    ) -> list[Change]:
        """What these orders are at `block`. A dead order stays dead, but those in `revive`."""
        hub, closed = self._hub, frozenset(closed)
        consumed = await hub.consumed_many([record.hash for record in records], block) if records else []
        assets = {owner_field(r.signed.order) for r in records if r.kind is not Kind.REQUEST}
        payers = {r.signer for r in records if stake_needed(r.signed.order, 1)}
        owners = await _each(assets, lambda asset: self._owner_of(asset, block))
        accounts = await _each(payers, lambda payer: hub.account(payer, block))
        changes = []
        for record, used in zip(records, consumed, strict=True):
            order = record.signed.order
            owner = record.signer if record.kind is Kind.REQUEST else owners[owner_field(order)]
            stake = accounts[record.signer].stake if record.signer in accounts else 0
            status = status_of(order, used, record.hash in closed, record.signer, owner, stake)
            if status is Status.OPEN and record.status is Status.DEAD and record.hash not in revive:
                status = Status.DEAD
            remaining = 0 if status is Status.CANCELED else order.volume - used
            if (status, remaining) != (record.status, record.remaining):
                changes.append(Change(record.hash, status, remaining))
        return changes

    async def _owner_of(self, asset: Address, block: Block) -> Address:
        """The zero address for an asset that is not there: it was made on a branch that is gone."""
        try:
            return await self._hub.owner_of(asset, block)
        except NotFound:
            return ZERO

    async def _deals(self, found: _Findings, times: dict[int, int], block: Block) -> list[dict[str, Any]]:
        """Rows of the deals that were made."""
        boosts = await boost_deals(self._hub, found.boosts, times, block)
        ids = [dealid for event in found.matches if (dealid := bytes(event["dealid"])) not in boosts]
        classic = {deal.dealid: deal for deal in (await self._hub.deals(ids, block) if ids else [])}
        rows = []
        for event in found.matches:
            at, dealid = times[event.block_number], bytes(event["dealid"])
            if (boost := boosts.get(dealid)) is not None:
                rows.append(_deal_row(event, boost.deal, at) | {"boost_until": boost.until})
            else:
                rows.append(_deal_row(event, classic[dealid], at) | {"boost_until": None})
        return rows

    async def _steps(
        self,
        events: Sequence[Event],
        times: dict[int, int],
        block: Block,
        deals: Sequence[Mapping[str, Any]],
    ) -> list[TaskStep]:
        """What these events say of tasks. `deals`: those that were made in the same batch."""
        named = sorted({bytes(event["taskid"]) for event in events if event.name != "ResultPushedBoost"})
        views = {task.taskid: task for task in await self._hub.tasks(named, block)} if named else {}
        bare = [e for e in events if e.name == "TaskClaimed" and not any(views[bytes(e["taskid"])].dealid)]
        last = max(times.values(), default=0)
        claimed = await claimed_tasks(self._hub, bare, self._overdue(deals, last)) if bare else {}
        steps = []
        for event in events:
            if event.name == "ResultPushedBoost":
                dealid, idx = bytes(event["dealId"]), int(event["index"])
                taskid = task_id(dealid, idx)
            else:
                taskid = bytes(event["taskid"])
                dealid, idx = views[taskid].dealid, views[taskid].idx
                if not any(dealid):
                    if taskid not in claimed:
                        log.warning("task %s was claimed: of which Boost deal, is not known", hexstr(taskid))
                        continue
                    dealid, idx = claimed[taskid]
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

    async def _overdue(self, made: Sequence[Mapping[str, Any]], at: int) -> AsyncIterator[tuple[bytes, int]]:
        """Boost deals that may be claimed from, and how many tasks each has: these, and those stored."""
        for row in made:
            if row["boost_until"] is not None and row["boost_until"] <= at:
                yield row["dealid"], row["document"]["botSize"]
        async for dealid, size in self._store.overdue_boosts(at):
            yield dealid, size

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
