"""What happened in the market, in order: the tables behind the event stream, and the webhooks' post.

`market_events` is written in the transaction of what it tells of, so that a reader misses nothing and sees
nothing that was not. Ids grow with the time and in the order in which transactions end, also when the table
is made anew: a cursor from before is recognised. `market_tasks` shows what the chain says of tasks that have
begun. Webhooks, and what is still to be sent to them, are owned.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from sealdeal.db import DERIVED, OWNED, AddressColumn, Bytes32, Database, tables_of
from sealdeal.model.orders import Kind, Signed
from sealdeal.model.types import ZERO, Address, Block, hexstr, keccak
from sealdeal.sdk.events import FILTERS

tables = tables_of("market")

events = sa.Table(
    "market_events",
    tables,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("topic", sa.Text, nullable=False),  # orders, deals or tasks
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("requester", AddressColumn),  # whose deal or task it is
    sa.Column("dealid", Bytes32),
    sa.Column("document", sa.JSON, nullable=False),
    info=DERIVED,
)

tasks = sa.Table(
    "market_tasks",
    tables,
    sa.Column("taskid", Bytes32, primary_key=True),
    sa.Column("dealid", Bytes32, nullable=False),
    sa.Column("idx", sa.BigInteger, nullable=False),
    sa.Column("status", sa.Text, nullable=False),  # active, completed or failed
    sa.Column("began_block", sa.BigInteger, nullable=False),
    sa.Column("began_at", sa.BigInteger, nullable=False),  # seconds since 1970, of that block
    sa.Column("ended_block", sa.BigInteger),
    sa.Column("ended_at", sa.BigInteger),
    sa.Index("market_tasks_by_deal", "dealid", "idx"),
    sa.Index("market_tasks_by_begin", "began_block"),
    sa.Index("market_tasks_by_end", "ended_block"),
    info=DERIVED,
)

webhooks = sa.Table(
    "market_webhooks",
    tables,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("account", AddressColumn, nullable=False),  # who made it
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("secret", sa.LargeBinary, nullable=False),
    sa.Column("field", sa.Text, nullable=False),  # of the deal: which tasks it wants to hear of
    sa.Column("value", sa.LargeBinary, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),  # ms since 1970
    sa.Index("market_webhooks_by_account", "account"),
    sa.Index("market_webhooks_by_value", "value"),
    info=OWNED,
)

deliveries = sa.Table(
    "market_deliveries",
    tables,
    sa.Column("id", sa.Text, primary_key=True),  # the same for the same end of a task: receivers compare it
    sa.Column("webhook", sa.Text, nullable=False),
    sa.Column("block", sa.BigInteger, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("due_at", sa.BigInteger),  # ms since 1970
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("ended_at", sa.BigInteger),  # ms since 1970; kept, so that it is not sent again
    sa.Index("market_deliveries_by_due", "due_at"),
    info=OWNED,
)

KEPT = 7 * 24 * 3600
"""Seconds for which events are kept, and can be read from a cursor on."""
UNREACHABLE = (sa.exc.SQLAlchemyError, OSError)
"""What is raised while the database does not answer."""
_TURN = 0x5EA1DE02  # PostgreSQL advisory lock: who writes events, until the transaction ends
_ENDS = {"completed": "task_completed", "failed": "task_failed"}


@dataclass(frozen=True, slots=True)
class Happening:
    """An event about to be written."""

    topic: str
    name: str
    document: Mapping[str, Any]
    requester: Address | None = None
    dealid: bytes | None = None


@dataclass(frozen=True, slots=True)
class Recorded(Happening):
    """An event that was written."""

    id: int = field(kw_only=True)
    """Its place in the journal: about the milliseconds since 1970."""


@dataclass(frozen=True, slots=True)
class TaskStep:
    """What a block did to a task."""

    taskid: bytes
    dealid: bytes
    idx: int
    status: str
    """`active`, `completed` or `failed`."""
    block: int
    at: int
    """The block's time, seconds since 1970."""
    tx_hash: bytes
    results: bytes | None = None
    """What the hub was given as the result, of a completed task."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where somebody wants to hear of tasks that ended."""

    id: str
    account: Address
    url: str
    secret: bytes
    field: str
    """One of FILTERS."""
    value: bytes
    created_at: int
    """Milliseconds since 1970."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message to a webhook."""

    id: str
    webhook: Webhook
    body: str
    attempts: int
    """How often it was tried before."""


def iso_time(seconds: float) -> str:
    """ISO 8601 with milliseconds and `Z`, as JavaScript writes it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def order_document(
    hash: bytes,
    kind: Kind,
    signed: Signed[Any],
    signer: Address,
    status: str,
    remaining: int,
    published_at: int,
    bulk_from: int,
) -> dict[str, Any]:
    """An order as the wire shows it, less its chain. `bulk_from`: least volume of an offer for bulks."""
    document = {
        "orderHash": hexstr(hash),
        "order": signed.to_json(),
        "remaining": remaining,
        "status": status,
        "publicationTimestamp": iso_time(published_at / 1000),
        "signer": signer,
    }
    if kind is Kind.DATASET:
        order = signed.order
        document["bulk"] = order.volume >= bulk_from and order.datasetprice == 0
    return document


# ------------------------------------------------------------- written in a transaction of the store


def is_news(block: Block) -> bool:
    """Whether what this block did is told at all: a new index reads years of it."""
    return block.timestamp > time.time() - KEPT


async def record(connection: AsyncConnection, happened: Iterable[Happening]) -> None:
    """Write events, in this order, behind all that are there."""
    rows = [
        {
            "topic": one.topic,
            "name": one.name,
            "document": dict(one.document),
            "requester": one.requester,
            "dealid": one.dealid,
        }
        for one in happened
    ]
    if not rows:
        return
    if connection.dialect.name == "postgresql":
        await connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({_TURN})"))
    last = (await connection.execute(sa.select(sa.func.max(events.c.id)))).scalar() or 0
    first = max(last + 1, int(time.time() * 1000))
    await connection.execute(sa.insert(events), [{"id": first + n, **row} for n, row in enumerate(rows)])


async def begin(connection: AsyncConnection) -> None:
    """Mark the begin of a new journal, so that cursors of an earlier one are recognised."""
    if (await connection.execute(sa.select(events.c.id).limit(1))).first() is None:
        await record(connection, [Happening("journal", "journal_began", {})])


async def note_tasks(
    connection: AsyncConnection,
    steps: Sequence[TaskStep],
    deals: Mapping[bytes, Mapping[str, Any]],
    news: bool,
) -> list[Happening]:
    """Write what a block did to tasks, and post it. `deals`: by id, the documents of their deals."""
    happened = []
    for step in steps:
        ended = {"ended_block": step.block, "ended_at": step.at} if step.status in _ENDS else {}
        changed = await connection.execute(
            sa.update(tasks).where(tasks.c.taskid == step.taskid).values(status=step.status, **ended)
        )
        if not changed.rowcount:
            await connection.execute(
                sa.insert(tasks).values(
                    taskid=step.taskid,
                    dealid=step.dealid,
                    idx=step.idx,
                    status=step.status,
                    began_block=step.block,
                    began_at=step.at,
                    **ended,
                )
            )
        if not news:
            continue
        deal = deals.get(step.dealid, {})
        document = task_document(step, deal)
        name = _ENDS.get(step.status, "task_initialized")
        happened.append(Happening("tasks", name, document, deal.get("requester"), step.dealid))
        if step.status in _ENDS:
            await _post(connection, step, name, document, deal)
    return happened


def task_document(step: TaskStep, deal: Mapping[str, Any]) -> dict[str, Any]:
    """A task's step as streams and webhooks show it."""
    parties = {name: deal[name]["pointer"] for name in ("app", "dataset", "workerpool") if name in deal}
    parties |= {name: deal[name] for name in ("requester", "beneficiary", "category") if name in deal}
    results = {"results": hexstr(step.results)} if step.results is not None else {}
    return {
        "taskid": hexstr(step.taskid),
        "dealid": hexstr(step.dealid),
        "index": step.idx,
        "status": step.status.upper(),
        **parties,
        **results,
        "blockNumber": step.block,
        "blockTimestamp": iso_time(step.at),
        "transactionHash": hexstr(step.tx_hash),
    }


async def _post(
    connection: AsyncConnection,
    step: TaskStep,
    name: str,
    document: Mapping[str, Any],
    deal: Mapping[str, Any],
) -> None:
    """Queue the end of a task for every webhook that wants to hear of it."""
    values = {"dealid": step.dealid}
    for name_, value in document.items():
        if name_ in FILTERS and name_ != "dealid" and value != ZERO:
            values[name_] = bytes.fromhex(value[2:])
    wanted = await connection.execute(
        sa.select(webhooks.c.id).where(
            sa.or_(*(sa.and_(webhooks.c.value == v, webhooks.c.field == f) for f, v in values.items()))
        )
    )
    told = {"type": name.replace("_", "."), "timestamp": document["blockTimestamp"], "data": dict(document)}
    body = json.dumps(told, separators=(",", ":"))
    for (webhook,) in wanted.all():
        id = f"msg_{keccak(step.taskid + name.encode() + webhook.encode())[:16].hex()}"
        present = await connection.execute(sa.select(deliveries.c.id).where(deliveries.c.id == id))
        if present.first() is None:
            row = {"id": id, "webhook": webhook, "block": step.block, "body": body, "attempts": 0}
            await connection.execute(sa.insert(deliveries).values(**row, due_at=int(time.time() * 1000)))


async def forget_tasks_after(connection: AsyncConnection, number: int) -> list[Happening]:
    """Undo what blocks above `number` did to tasks; what was not sent yet is not sent."""
    lost = (await connection.execute(sa.select(tasks).where(tasks.c.began_block > number))).all()
    await connection.execute(sa.delete(tasks).where(tasks.c.began_block > number))
    undone = (await connection.execute(sa.select(tasks).where(tasks.c.ended_block > number))).all()
    await connection.execute(
        sa.update(tasks)
        .where(tasks.c.ended_block > number)
        .values(status="active", ended_block=None, ended_at=None)
    )
    await connection.execute(sa.delete(deliveries).where(deliveries.c.block > number))
    happened = []
    for row, status in [*((row, "UNSET") for row in lost), *((row, "ACTIVE") for row in undone)]:
        document = {"taskid": hexstr(row.taskid), "dealid": hexstr(row.dealid), "index": row.idx}
        happened.append(Happening("tasks", "task_reverted", {**document, "status": status}, None, row.dealid))
    return happened


# --------------------------------------------------------------------------------------------- asked


class Journal:
    """Questions to the journal, and the webhooks' post office."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def newest(self) -> int:
        """The id of the last event; 0 when there is none."""
        async with self._db.read() as connection:
            return (await connection.execute(sa.select(sa.func.max(events.c.id)))).scalar() or 0

    async def oldest(self) -> int:
        """The id of the first event that is kept; 0 when there is none."""
        async with self._db.read() as connection:
            return (await connection.execute(sa.select(sa.func.min(events.c.id)))).scalar() or 0

    async def after(self, id: int, limit: int) -> list[Recorded]:
        """Up to `limit` events after this one, in order."""
        query = sa.select(events).where(events.c.id > id).order_by(events.c.id).limit(limit)
        async with self._db.read() as connection:
            return [
                Recorded(row.topic, row.name, row.document, row.requester, row.dealid, id=row.id)
                for row in await connection.execute(query)
            ]

    async def forget(self) -> None:
        """Drop events that are older than KEPT, but for the last: a cursor before the first is too old."""
        async with self._db.write() as connection:
            last = (await connection.execute(sa.select(sa.func.max(events.c.id)))).scalar() or 0
            before = min(last, int((time.time() - KEPT) * 1000))
            await connection.execute(sa.delete(events).where(events.c.id < before))
            await connection.execute(sa.delete(deliveries).where(deliveries.c.ended_at < before))

    # --- webhooks

    async def add_webhook(self, new: Webhook, most: int) -> bool:
        """Keep a webhook; False when its account has `most` already."""
        async with self._db.write() as connection:
            if connection.dialect.name == "postgresql":
                await connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({_TURN})"))
            query = sa.select(sa.func.count()).where(webhooks.c.account == new.account)
            if (await connection.execute(query)).scalar_one() >= most:
                return False
            row = {column.name: getattr(new, column.name) for column in webhooks.c}
            await connection.execute(sa.insert(webhooks).values(**row))
            return True

    async def webhooks(self, account: Address) -> list[Webhook]:
        """The webhooks of an account, oldest first."""
        query = sa.select(webhooks).where(webhooks.c.account == account)
        async with self._db.read() as connection:
            rows = await connection.execute(query.order_by(webhooks.c.created_at, webhooks.c.id))
            return [_webhook(row) for row in rows]

    async def drop_webhook(self, id: str, account: Address | None = None) -> bool:
        """Forget a webhook, and what was to be sent there; False when the account has no such one."""
        where = [webhooks.c.id == id] + ([webhooks.c.account == account] if account else [])
        async with self._db.write() as connection:
            gone = await connection.execute(sa.delete(webhooks).where(*where))
            if gone.rowcount:
                await connection.execute(sa.delete(deliveries).where(deliveries.c.webhook == id))
            return bool(gone.rowcount)

    async def take_deliveries(
        self, now: int, until: int, limit: int, busy: Collection[str]
    ) -> list[Delivery]:
        """What is due at `now` (ms), one message of each webhook, none of the `busy` ones.

        It is this caller's until `until`; then it is due again, should the caller have died.
        """
        taken = []
        async with self._db.write() as connection:
            first = (
                sa.select(deliveries.c.webhook, sa.func.min(deliveries.c.due_at).label("due_at"))
                .where(deliveries.c.due_at <= now, deliveries.c.webhook.not_in(busy))
                .group_by(deliveries.c.webhook)
                .order_by(sa.literal_column("due_at"))
                .limit(limit)
                .subquery()
            )
            query = (
                sa.select(
                    webhooks, deliveries.c.id.label("message"), deliveries.c.body, deliveries.c.attempts
                )
                .join(webhooks, webhooks.c.id == deliveries.c.webhook)
                .join(
                    first,
                    sa.and_(first.c.webhook == deliveries.c.webhook, first.c.due_at == deliveries.c.due_at),
                )
            )
            seen: set[str] = set()
            for row in (await connection.execute(query)).all():
                if row.id in seen:
                    continue
                claimed = await connection.execute(
                    sa.update(deliveries)
                    .where(deliveries.c.id == row.message, deliveries.c.due_at <= now)
                    .values(due_at=until, attempts=row.attempts + 1)
                )
                if claimed.rowcount:
                    seen.add(row.id)
                    taken.append(Delivery(row.message, _webhook(row), row.body, row.attempts))
        return taken

    async def settle_delivery(self, id: str, due_at: int | None) -> None:
        """Try a message again at `due_at` (ms), or never."""
        where = deliveries.c.id == id
        async with self._db.write() as connection:
            values: dict[str, Any] = {"due_at": due_at}
            if due_at is None:
                values |= {"ended_at": int(time.time() * 1000), "body": ""}
            await connection.execute(sa.update(deliveries).where(where).values(**values))

    async def next_due(self) -> int | None:
        """When the next message is due, in ms since 1970."""
        async with self._db.read() as connection:
            found: int | None = (
                await connection.execute(sa.select(sa.func.min(deliveries.c.due_at)))
            ).scalar()
            return found


def _webhook(row: Any) -> Webhook:
    return Webhook(row.id, row.account, row.url, row.secret, row.field, row.value, row.created_at)
