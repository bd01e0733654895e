"""What a batch of events makes of the subgraphs' entities.

Events say which deals, tasks and assets to look at; what these are is read at the batch's block.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

from sealdeal.chain import Batch, Event, Hub
from sealdeal.model.deals import Deal, Task
from sealdeal.model.errors import NotFound
from sealdeal.model.orders import Kind
from sealdeal.model.types import ZERO, Address, Block, address, hexstr, unhex

from .store import Add, Changes, GraphStore

NAMES = (
    "Transfer", "Lock", "Unlock", "Reward", "Seize", "SchedulerNotice", "SchedulerNoticeBoost",
    "OrdersMatched", "TaskInitialize", "TaskContribute", "TaskConsensus", "TaskReveal", "TaskReopen",
    "TaskFinalize", "TaskClaimed", "AccurateContribution", "FaultyContribution", "CreateCategory",
    "DatasetSchema",
)  # fmt: skip
_AT_ONCE = 50

SCHEMA_TYPES = frozenset(
    "boolean number string bool i128 f64 application/octet-stream application/pdf application/xml "
    "application/zip audio/midi audio/mpeg audio/x-wav image/bmp image/gif image/jpeg image/png image/webp "
    "video/mp4 video/mpeg video/x-msvideo".split()
)
"""What a field of protected data may be (wire.md §3.4, and two names of earlier versions)."""
_IN_PATHS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")
_DEEP = 20

_STATUSES = ("UNSET", "ACTIVE", "REVEALING", "COMPLETED", "FAILLED")
_ASSETS = {Kind.APP: "App", Kind.DATASET: "Dataset", Kind.WORKERPOOL: "Workerpool"}


class Reading:
    """One batch of events, and what it makes of entities."""

    def __init__(self, hub: Hub, store: GraphStore, batch: Batch, block: Block) -> None:
        """`block`: where the chain's state is read, the batch's or a later one."""
        self._hub, self._store, self._batch, self._block = hub, store, batch, block
        self._registries = {contract.address: kind for kind, contract in hub.registries.items()}
        self._out = Changes()
        self._times: dict[int, int] = {}
        self._new: dict[tuple[Kind, str], int] = {}
        """Assets to read -> when they were registered, or 0 when that was in another registry."""
        self._moved: dict[str, str] = {}
        """Dataset -> its new owner."""
        self._deals: list[Event] = []
        self._boosts: set[bytes] = set()
        """Deals that are no entities: the schema knows classic ones only."""
        self._tasks: dict[str, int] = {}
        """Tasks to read -> when they changed."""
        self._ended: list[Event] = []
        self._schemas: list[Event] = []

    async def changes(self) -> Changes:
        await self._read_times()
        for event in self._batch.events:
            self._take(event)
        await self._read_deals()
        await self._read_tasks()
        await self._read_assets()
        await self._read_schemas()
        return self._out

    async def _read_times(self) -> None:
        last = self._batch.block
        numbers = sorted({event.block_number for event in self._batch.events} - {last.number})
        self._times = {last.number: last.timestamp}
        for start in range(0, len(numbers), _AT_ONCE):
            found = await asyncio.gather(*map(self._hub.block, numbers[start : start + _AT_ONCE]))
            self._times |= {block.number: block.timestamp for block in found}

    def _take(self, event: Event) -> None:
        out, time = self._out, self._times[event.block_number]
        tx, id = hexstr(event.tx_hash), f"{event.block_number}_{event.log_index}"
        base = {"transaction": tx, "timestamp": time}
        known = True
        if event.name == "Transfer" and event.address in self._registries:
            self._transferred(event, id, base)
        elif event.name == "DatasetSchema":
            self._schemas.append(event)
        elif event.address != self._hub.addresses.hub:
            known = False
        elif event.name == "Transfer":
            ends = {"from": self._account(event["from"]), "to": self._account(event["to"])}
            out.put("Transfer", id, value=event["value"], **ends, **base)
        elif event.name in ("Lock", "Unlock", "Reward", "Seize"):
            values = {"task": hexstr(event["ref"])} if "ref" in event.args else {}
            owner = self._account(event["owner"])
            out.put(event.name, id, account=owner, value=event["amount"], **values, **base)
        elif event.name in ("AccurateContribution", "FaultyContribution"):
            worker = self._account(event["worker"])
            out.put(
                event.name, id, account=worker, contribution=f"{hexstr(event['taskid'])}-{worker}", **base
            )
        elif event.name == "SchedulerNotice":
            pool = event["workerpool"].lower()
            out.put("SchedulerNotice", id, workerpool=pool, deal=hexstr(event["dealid"]), **base)
        elif event.name == "SchedulerNoticeBoost":  # comes before the match that it is about
            self._boosts.add(bytes(event["dealId"]))
        elif event.name == "OrdersMatched":
            if bytes(event["dealid"]) in self._boosts:
                return
            self._deals.append(event)
            out.put("OrdersMatched", id, deal=hexstr(event["dealid"]), **base)
        elif event.name == "CreateCategory":
            out.put(
                "Category",
                str(event["catid"]),
                name=plain_text(event["name"]),
                description=plain_text(event["description"]),
                workClockTimeRef=event["workClockTimeRef"],
                timestamp=time,
            )
        else:
            self._task_event(event, id, base)
        if known:
            out.put("Transaction", tx, timestamp=time, blockNumber=event.block_number)

    def _account(self, whose: str) -> str:
        id = whose.lower()
        self._out.put("Account", id)
        return id

    def _transferred(self, event: Event, id: str, base: dict[str, Any]) -> None:
        kind = self._registries[event.address]
        name, asset = _ASSETS[kind], address(event["tokenId"].to_bytes(20, "big")).lower()
        ends = {"from": self._account(event["from"]), "to": self._account(event["to"])}
        self._out.put(f"{name}Transfer", id, **{kind.value: asset}, **ends, **base)
        if event["from"] == ZERO:
            self._new[kind, asset] = base["timestamp"]
        self._out.put(name, asset, owner=ends["to"], timestamp=base["timestamp"])
        if kind is Kind.DATASET:
            self._moved[asset] = ends["to"]

    def _task_event(self, event: Event, id: str, base: dict[str, Any]) -> None:
        task = hexstr(event["taskid"])
        self._tasks[task] = base["timestamp"]
        values: dict[str, Any] = {"task": task}
        for name, value in event.args.items():
            if name == "workerpool":
                values[name] = value.lower()
            elif name == "worker":
                values[name] = self._account(value)
            elif name != "taskid":
                values[name] = hexstr(value)
        self._out.put(event.name, id, **values, **base)
        if event.name == "TaskContribute":
            self._out.put(
                "Contribution",
                f"{task}-{values['worker']}",
                timestamp=base["timestamp"],
                task=task,
                worker=values["worker"],
                hash=values["hash"],
            )
        elif event.name in ("TaskFinalize", "TaskClaimed"):
            self._ended.append(event)

    async def _read_deals(self) -> None:
        ids = [bytes(event["dealid"]) for event in self._deals]
        for start in range(0, len(ids), _AT_ONCE):
            some = self._deals[start : start + _AT_ONCE]
            found = await self._hub.deals(ids[start : start + _AT_ONCE], self._block)
            for event, deal in zip(some, found, strict=True):
                self._deal(event, deal)

    def _deal(self, event: Event, deal: Deal) -> None:
        out, time, id = self._out, self._times[event.block_number], hexstr(deal.dealid)
        hashes = {kind: hexstr(event[f"{kind}Hash"]) for kind in ("app", "dataset", "workerpool", "request")}
        parts = {Kind.APP: deal.app, Kind.DATASET: deal.dataset, Kind.WORKERPOOL: deal.workerpool}
        values: dict[str, Any] = {}
        for kind, part in parts.items():
            owner, there = self._account(part.owner), part.pointer != ZERO
            pointer = part.pointer.lower() if there else None
            values |= {kind.value: pointer, f"{kind}Owner": owner, f"{kind}Price": part.price}
            if not there:
                continue
            values[f"{kind}order"] = hashes[kind.value]
            out.put(_ASSETS[kind], part.pointer.lower(), usageCount=Add(1), lastUsageTimestamp=time)
            self._new.setdefault((kind, part.pointer.lower()), 0)
            more = {"category": str(deal.category)} if kind is Kind.WORKERPOOL else {}
            order = {kind.value: pointer, f"{kind}price": part.price}
            out.put(f"{_ASSETS[kind]}Order", hashes[kind.value], **order, **more)
        requester, category = self._account(deal.requester), str(deal.category)
        out.put("RequestOrder", hashes["request"], requester=requester, category=category)
        bulk = deal.parsed_params.bulk_cid
        if bulk:
            out.put("Bulk", id, hash=plain_text(bulk), sliceCount=None)
        out.put(
            "Deal",
            id,
            **values,
            requestorder=hashes["request"],
            bulk=id if bulk else None,
            trust=deal.trust,
            category=category,
            tag=hexstr(deal.tag),
            requester=requester,
            beneficiary=self._account(deal.beneficiary),
            callback=self._account(deal.callback),
            params=plain_text(deal.params),
            startTime=deal.start_time,
            botFirst=deal.bot_first,
            botSize=deal.bot_size,
            completedTasksCount=Add(0),
            claimedTasksCount=Add(0),
            workerStake=deal.worker_stake,
            schedulerRewardRatio=deal.scheduler_reward_ratio,
            sponsor=self._account(deal.sponsor),
            timestamp=time,
        )

    async def _read_tasks(self) -> None:
        ids = list(self._tasks)
        found: dict[str, Task] = {}
        for start in range(0, len(ids), _AT_ONCE):
            some = ids[start : start + _AT_ONCE]
            tasks = await self._hub.tasks([unhex(id) for id in some], self._block)
            found |= dict(zip(some, tasks, strict=True))
        deals = {hexstr(task.dealid) for task in found.values()}
        stored = await self._store.get("poco", "Deal", deals)
        for id, task in found.items():
            deal = hexstr(task.dealid)
            known = stored.get(deal) or self._out.rows.get(("poco", "Deal", deal))
            if known is None:  # of a Boost deal
                self._drop_task(id)
                continue
            self._out.put(
                "Task",
                id,
                status=_STATUSES[task.status],
                deal=deal,
                index=task.idx,
                requester=known["requester"],
                consensus=_some(task.consensus_value),
                resultDigest=_some(task.result_digest),
                results=plain_text(task.results.decode(errors="replace")) if task.results else None,
                resultsCallback=hexstr(task.results_callback) if task.results_callback else None,
                contributionDeadline=task.contribution_deadline,
                revealDeadline=task.reveal_deadline or None,
                finalDeadline=task.final_deadline,
                timestamp=self._tasks[id],
            )
        for event in self._ended:
            ended = found[hexstr(event["taskid"])]
            count = "completedTasksCount" if event.name == "TaskFinalize" else "claimedTasksCount"
            if ("poco", "Task", hexstr(event["taskid"])) in self._out.rows:
                self._out.put("Deal", hexstr(ended.dealid), **{count: Add(1)})

    def _drop_task(self, id: str) -> None:
        for key, values in list(self._out.rows.items()):
            if values.get("task") == id and key[1] not in ("Reward", "Seize"):
                del self._out.rows[key]

    async def _read_assets(self) -> None:
        """What assets are called, of those that are new here."""
        for kind, name in _ASSETS.items():
            wanted = [asset for k, asset in self._new if k is kind]
            stored = await self._store.get("poco", name, wanted)
            missing = [asset for asset in wanted if asset not in stored]
            for start in range(0, len(missing), _AT_ONCE):
                some = missing[start : start + _AT_ONCE]
                infos = await asyncio.gather(*(self._info(kind, address(asset)) for asset in some))
                for asset, info in zip(some, infos, strict=True):
                    row = self._out.rows[("poco", name, asset)]
                    values = {"timestamp": 0, "usageCount": Add(0), "lastUsageTimestamp": 0, **info}
                    self._out.put(name, asset, **{n: v for n, v in values.items() if n not in row})

    async def _info(self, kind: Kind, asset: Address) -> dict[str, Any]:
        if kind is Kind.WORKERPOOL:
            pool = await self._hub.workerpool(asset, self._block)
            return {"owner": self._account(pool.owner), "description": plain_text(pool.description)}
        entry = await (self._hub.app if kind is Kind.APP else self._hub.dataset)(asset, self._block)
        found: dict[str, Any] = {
            "owner": self._account(entry.owner),
            "name": plain_text(entry.name),
            "multiaddr": hexstr(entry.multiaddr),
            "checksum": hexstr(entry.checksum),
        }
        if kind is Kind.APP:
            app = await self._hub.app(asset, self._block)
            found |= {"type": plain_text(app.type), "mrenclave": hexstr(app.mrenclave)}
        return found

    async def _read_schemas(self) -> None:
        """DataProtector's own."""
        out = self._out
        for event in self._schemas:
            id, tx = event["dataset"].lower(), hexstr(event.tx_hash)
            try:
                info = await self._hub.dataset(event["dataset"], self._block)
            except NotFound:
                continue
            entries = schema_entries(event["schema"])
            for path, kind in entries:
                out.put("SchemaEntry", f"{path}:{kind}", "dataprotector", path=path, type=kind)
            owner = self._moved.get(id, info.owner.lower())
            out.put("Account", owner, "dataprotector")
            out.put(
                "ProtectedData",
                id,
                "dataprotector",
                owner=owner,
                name=plain_text(info.name),
                jsonSchema=plain_text(event["schema"]),
                schema=[f"{path}:{kind}" for path, kind in entries],
                multiaddr=hexstr(info.multiaddr),
                checksum=hexstr(info.checksum),
                creationTimestamp=self._times[event.block_number],
                transactionHash=tx,
                blockNumber=event.block_number,
            )
        for id in await self._store.get("dataprotector", "ProtectedData", self._moved):
            out.put("Account", self._moved[id], "dataprotector")
            out.put("ProtectedData", id, "dataprotector", owner=self._moved[id])


def schema_entries(text: str) -> list[tuple[str, str]]:
    """(path, type) of each leaf of a schema that is one; what is none is passed over."""
    found: dict[tuple[str, str], None] = {}

    def walk(value: Any, path: str, deep: int) -> None:
        if isinstance(value, dict) and deep < _DEEP:
            for name, below in value.items():
                if name and not set(name) - _IN_PATHS:
                    walk(below, f"{path}.{name}" if path else name, deep + 1)
        elif isinstance(value, str) and path and value in SCHEMA_TYPES:
            found[path, value] = None

    with suppress(ValueError, RecursionError):
        walk(json.loads(text), "", 0)
    return list(found)


def plain_text(value: str) -> str:
    """A stranger's text, as every database takes it."""
    return value.replace("\0", "�")


def _some(value: bytes) -> str | None:
    return hexstr(value) if any(value) else None
