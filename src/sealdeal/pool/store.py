"""What a scheduler keeps.

Owned: the attempts (the assignments it signed and what became of them), the results of batched deals, the
steps it saw, workers' logs.
Derived from the chain: its pool's deals and tasks, and the blocks it has followed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from sealdeal.db import DERIVED, OWNED, AddressColumn, Bytes32, Database, Uint256, open_database, tables_of
from sealdeal.model.deals import Assignment, Deal, task_id
from sealdeal.model.errors import NotFound
from sealdeal.model.types import Address, Block, hexstr
from sealdeal.sdk.pool import Attempt, TaskEvent

TRAIL = 64
"""Followed blocks that are kept, to find how far back a reorganisation reaches."""
LOG_SECONDS = 3 * 24 * 3600
"""Logs are kept for three days (wire.md §4.1)."""

tables = tables_of("pool")

attempts = sa.Table(
    "pool_attempts",
    tables,
    sa.Column("task", Bytes32, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("worker", AddressColumn, nullable=False, index=True),
    sa.Column("deadline", sa.BigInteger, nullable=False),
    sa.Column("signature", sa.LargeBinary, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("ended", sa.Boolean, nullable=False, index=True),
    sa.Column("step", sa.Text, nullable=False),
    sa.Column("cause", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("exit_code", sa.Integer),
    sa.Column("tx_hash", Bytes32),
    sa.Column("enclave", AddressColumn),
    sa.Column("seen", sa.Float, nullable=False),  # when its worker was last heard of, by any scheduler
    info=OWNED,
)

events = sa.Table(
    "pool_events",
    tables,
    sa.Column("cursor", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("task", Bytes32, nullable=False, index=True),
    sa.Column("time", sa.Float, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("worker", AddressColumn),
    sa.Column("attempt", sa.Integer),
    sa.Column("step", sa.Text, nullable=False),
    sa.Column("cause", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("tx_hash", Bytes32),
    sa.Column("block", sa.BigInteger),
    sa.Column("once", sa.Text, unique=True),  # what may be said of a task only once
    sqlite_autoincrement=True,
    info=OWNED,
)

logs = sa.Table(
    "pool_logs",
    tables,
    sa.Column("task", Bytes32, primary_key=True),
    sa.Column("worker", AddressColumn, primary_key=True),
    sa.Column("stdout", sa.Text, nullable=False),
    sa.Column("stderr", sa.Text, nullable=False),
    sa.Column("time", sa.BigInteger, nullable=False, index=True),
    info=OWNED,
)

results = sa.Table(
    "pool_results",
    tables,
    sa.Column("task", Bytes32, primary_key=True),
    sa.Column("worker", AddressColumn, nullable=False),
    sa.Column("enclave", AddressColumn, nullable=False),
    sa.Column("digest", Bytes32, nullable=False),
    sa.Column("signature", sa.LargeBinary, nullable=False),
    sa.Column("authorisation", sa.LargeBinary, nullable=False),
    sa.Column("cid", sa.Text, nullable=False),
    info=OWNED,
)

deals = sa.Table(
    "pool_deals",
    tables,
    sa.Column("dealid", Bytes32, primary_key=True),
    sa.Column("block", sa.BigInteger, nullable=False, index=True),
    sa.Column("ended_at", sa.BigInteger, index=True),  # the block at which every task had ended
    info=DERIVED,
)

tasks = sa.Table(
    "pool_tasks",
    tables,
    sa.Column("taskid", Bytes32, primary_key=True),
    sa.Column("dealid", Bytes32, nullable=False, index=True),
    sa.Column("task_index", Uint256, nullable=False),
    info=DERIVED,
)

blocks = sa.Table(
    "pool_blocks",
    tables,
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("hash", Bytes32, nullable=False),
    sa.Column("timestamp", sa.BigInteger, nullable=False),
    info=DERIVED,
)


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """An attempt, and all that its worker has said about it."""

    assignment: Assignment
    signature: bytes
    status: Attempt
    step: str
    cause: str
    message: str
    exit_code: int | None
    tx_hash: bytes | None
    enclave: Address | None
    seen: float

    @property
    def task(self) -> bytes:
        return self.assignment.task

    @property
    def worker(self) -> Address:
        return self.assignment.worker

    @property
    def number(self) -> int:
        return self.assignment.attempt


@dataclass(frozen=True, slots=True)
class ResultRow:
    """A result of a batched deal's task, as its worker handed it in and the scheduler checked it."""

    task: bytes
    worker: Address
    enclave: Address
    digest: bytes
    signature: bytes
    """The enclave's, 65 bytes."""
    authorisation: bytes
    """The quorum's word for (worker, task, enclave)."""
    cid: str
    """Where the result lies in the store."""


@dataclass(frozen=True, slots=True)
class Step:
    """Something that happened to a task, to be told to those who follow it."""

    task: bytes
    status: str
    kind: str = "task"
    worker: Address | None = None
    attempt: int | None = None
    step: str = ""
    cause: str = ""
    message: str = ""
    tx_hash: bytes | None = None
    block: int | None = None
    once: str | None = None
    """When given: a step of this name is kept once for the task, however often it is told."""


@dataclass(frozen=True, slots=True)
class Log:
    """What an app wrote, as its worker sent it."""

    worker: Address
    stdout: str
    stderr: str


class PoolStore:
    """The tables of pool/."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self.database, self._clock = database, clock
        self._insert: Any = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}[database.dialect]

    @classmethod
    async def open(cls, url: str, clock: Callable[[], float]) -> PoolStore:
        return cls(await open_database(url, tables), clock)

    async def close(self) -> None:
        await self.database.close()

    async def _rows(self, query: sa.Select[Any]) -> Sequence[Any]:
        async with self.database.read() as connection:
            rows: Sequence[Any] = (await connection.execute(query)).all()
        return rows

    # --- the chain, derived

    async def trail(self) -> list[Block]:
        """The blocks that were followed last, for the follower to go on from."""
        return [Block(*row) for row in await self._rows(sa.select(blocks))]

    async def advance(self, block: Block, found: Iterable[tuple[Deal, int]], steps: Iterable[Step]) -> None:
        """One step along the chain: new deals, each with its block, and what happened to tasks."""
        async with self.database.write() as connection:
            for deal, number in found:
                row = self._insert(deals).values(dealid=deal.dealid, block=number)
                await connection.execute(row.on_conflict_do_nothing())
                rows = [
                    {"taskid": task_id(deal.dealid, index), "dealid": deal.dealid, "task_index": index}
                    for index in deal.indices()
                ]
                await connection.execute(self._insert(tasks).on_conflict_do_nothing(), rows)
            for step in steps:
                await self._tell(connection, step)
            row = self._insert(blocks).values(number=block.number, hash=block.hash, timestamp=block.timestamp)
            changed = {"hash": block.hash, "timestamp": block.timestamp}
            await connection.execute(row.on_conflict_do_update(index_elements=["number"], set_=changed))
            oldest = sa.select(blocks.c.number).order_by(blocks.c.number.desc()).offset(TRAIL).limit(1)
            await connection.execute(sa.delete(blocks).where(blocks.c.number <= oldest.scalar_subquery()))

    async def roll_back(self, to: int) -> None:
        """The chain dropped every block above number `to`."""
        async with self.database.write() as connection:
            gone = sa.select(deals.c.dealid).where(deals.c.block > to)
            await connection.execute(sa.delete(tasks).where(tasks.c.dealid.in_(gone)))
            await connection.execute(sa.delete(deals).where(deals.c.block > to))
            await connection.execute(sa.update(deals).where(deals.c.ended_at > to).values(ended_at=None))
            await connection.execute(sa.delete(events).where(events.c.block > to))
            await connection.execute(sa.delete(blocks).where(blocks.c.number > to))

    async def open_deals(self) -> list[bytes]:
        """Deals that have a task which has not ended."""
        query = sa.select(deals.c.dealid).where(deals.c.ended_at.is_(None)).order_by(deals.c.block)
        return [row.dealid for row in await self._rows(query)]

    async def counts(self) -> tuple[int, int]:
        """(deals ever seen, the newest block with one)."""
        query = sa.select(sa.func.count(), sa.func.coalesce(sa.func.max(deals.c.block), 0)).select_from(deals)
        ((count, newest),) = await self._rows(query)
        return count, newest

    async def forget(self, dealid: bytes, block: int) -> None:
        """Every task of the deal had ended at this block."""
        async with self.database.write() as connection:
            await connection.execute(sa.update(deals).where(deals.c.dealid == dealid).values(ended_at=block))

    async def deal_of(self, taskid: bytes) -> tuple[bytes, int]:
        """(dealid, index) of a task of this pool. Raises NotFound."""
        found = await self._rows(sa.select(tasks).where(tasks.c.taskid == taskid))
        if not found:
            raise NotFound(f"task {hexstr(taskid)} is not a task of this pool (yet: deals wait for depth)")
        return found[0].dealid, found[0].task_index

    async def known(self, taskids: Iterable[bytes]) -> set[bytes]:
        """Which of these are tasks of this pool."""
        query = sa.select(tasks.c.taskid).where(tasks.c.taskid.in_(list(taskids)))
        return {row.taskid for row in await self._rows(query)}

    # --- attempts

    async def assign(self, given: Assignment, signature: bytes) -> bool:
        """Record an assignment; False when that attempt was given already (by another scheduler)."""
        row = self._insert(attempts).values(
            task=given.task,
            number=given.attempt,
            worker=given.worker,
            deadline=given.deadline,
            signature=signature,
            status=Attempt.CREATED,
            ended=False,
            step="",
            cause="",
            message="",
            seen=self._clock(),
        )
        async with self.database.write() as connection:
            added: int = (await connection.execute(row.on_conflict_do_nothing())).rowcount
            if added:
                await self._tell(connection, _step(given, Attempt.CREATED))
        return bool(added)

    async def change(
        self,
        given: Assignment,
        status: Attempt,
        *,
        tell: bool = True,
        result: ResultRow | None = None,
        **values: Any,
    ) -> bool:
        """Move a live attempt on; False when it has ended. `values`: columns, as `Report` names them.

        `result`: what it handed in, kept with its step or not at all.
        """
        row = (
            sa.update(attempts)
            .where(
                attempts.c.task == given.task,
                attempts.c.number == given.attempt,
                attempts.c.ended == sa.false(),
            )
            .values(status=status, ended=status.ended, seen=self._clock(), **values)
        )
        told = {name: values.get(name, "") for name in ("step", "cause", "message")}
        async with self.database.write() as connection:
            changed: int = (await connection.execute(row)).rowcount
            if changed and result is not None:
                kept = self._insert(results).values(asdict(result))
                said = {name: value for name, value in asdict(result).items() if name != "task"}
                await connection.execute(kept.on_conflict_do_update(index_elements=["task"], set_=said))
            if changed and tell:
                await self._tell(connection, _step(given, status, tx_hash=values.get("tx_hash"), **told))
        return bool(changed)

    async def complete(self, given: Assignment, **values: Any) -> None:
        """Keep what the worker of a completed attempt says about it, after the chain said it first."""
        which = (attempts.c.task == given.task) & (attempts.c.number == given.attempt)
        said = {name: value for name, value in values.items() if value not in (None, "")}
        async with self.database.write() as connection:
            if said:
                await connection.execute(sa.update(attempts).where(which).values(said))

    async def heard_of(self, worker: Address) -> None:
        """The worker of these live attempts is there; other schedulers of the pool see it by this."""
        mine = (attempts.c.worker == worker) & (attempts.c.ended == sa.false())
        async with self.database.write() as connection:
            await connection.execute(sa.update(attempts).where(mine).values(seen=self._clock()))

    async def close_attempt(self, given: Assignment, status: Attempt, cause: str, message: str) -> bool:
        """End a live attempt; False when it had ended. Without a cause, what its worker said stays."""
        if not cause:
            return await self.change(given, status)
        return await self.change(given, status, cause=cause, message=message)

    async def attempts_of(self, taskids: Sequence[bytes]) -> list[AttemptRow]:
        """All attempts at these tasks, in order."""
        found: list[AttemptRow] = []
        for start in range(0, len(taskids), 500):
            some = attempts.c.task.in_(taskids[start : start + 500])
            query = sa.select(attempts).where(some).order_by(attempts.c.task, attempts.c.number)
            found += map(_attempt, await self._rows(query))
        return found

    async def results_of(self, taskids: Sequence[bytes]) -> dict[bytes, ResultRow]:
        """The results that were handed in for these tasks."""
        found: list[Any] = []
        for start in range(0, len(taskids), 500):
            some = results.c.task.in_(taskids[start : start + 500])
            found += await self._rows(sa.select(results).where(some))
        return {row.task: ResultRow(**row._asdict()) for row in found}

    async def live_attempts(self, worker: Address | None = None) -> list[AttemptRow]:
        """Attempts that have not ended, of one worker or of all."""
        query = sa.select(attempts).where(attempts.c.ended == sa.false())
        if worker is not None:
            query = query.where(attempts.c.worker == worker)
        return list(map(_attempt, await self._rows(query.order_by(attempts.c.deadline))))

    async def attempt(self, task: bytes, number: int) -> AttemptRow:
        """One attempt. Raises NotFound."""
        query = sa.select(attempts).where(attempts.c.task == task, attempts.c.number == number)
        found = await self._rows(query)
        if not found:
            raise NotFound(f"task {hexstr(task)} has no attempt {number} here")
        return _attempt(found[0])

    # --- steps

    async def tell(self, steps: Iterable[Step]) -> None:
        """Keep steps for those who follow their tasks."""
        async with self.database.write() as connection:
            for step in steps:
                await self._tell(connection, step)

    async def _tell(self, connection: AsyncConnection, step: Step) -> None:
        once = f"{hexstr(step.task)}:{step.once}" if step.once else None
        values = {**asdict(step), "once": once, "time": self._clock()}
        await connection.execute(self._insert(events).values(values).on_conflict_do_nothing())

    async def events(self, task: bytes, after: int) -> list[TaskEvent]:
        """The steps of a task after a cursor, at most 500."""
        query = sa.select(events).where(events.c.task == task, events.c.cursor > after)
        rows = await self._rows(query.order_by(events.c.cursor).limit(500))
        return [
            TaskEvent(
                **{name: value for name, value in row._asdict().items() if name not in ("task", "once")}
            )
            for row in rows
        ]

    async def ended(self, task: bytes) -> bool:
        """Whether the task was seen to end."""
        last = events.c.status.in_(("COMPLETED", "FAILED"))
        query = sa.select(events.c.cursor).where(events.c.task == task, events.c.kind == "task", last)
        return bool(await self._rows(query.limit(1)))

    async def noted(self, taskids: Sequence[bytes]) -> set[tuple[bytes, str]]:
        """(task, cause) of the notes that were made about these tasks."""
        found: set[tuple[bytes, str]] = set()
        for start in range(0, len(taskids), 500):
            query = sa.select(events.c.task, events.c.cause).where(
                events.c.task.in_(taskids[start : start + 500]),
                events.c.kind == "task",
                events.c.cause != "",
            )
            found |= {(row.task, row.cause) for row in await self._rows(query)}
        return found

    # --- logs

    async def keep_log(self, task: bytes, given: Log) -> None:
        """Keep a worker's log of a task in place of its earlier one, and drop logs that are too old."""
        now = int(self._clock())
        row = self._insert(logs).values(
            task=task, worker=given.worker, stdout=given.stdout, stderr=given.stderr, time=now
        )
        changed = {"stdout": given.stdout, "stderr": given.stderr, "time": now}
        async with self.database.write() as connection:
            await connection.execute(sa.delete(logs).where(logs.c.time < now - LOG_SECONDS))
            await connection.execute(
                row.on_conflict_do_update(index_elements=["task", "worker"], set_=changed)
            )

    async def logs_of(self, task: bytes) -> list[Log]:
        """The logs that are kept of a task."""
        fresh = logs.c.time >= int(self._clock()) - LOG_SECONDS
        query = sa.select(logs).where(logs.c.task == task, fresh)
        return [Log(row.worker, row.stdout, row.stderr) for row in await self._rows(query)]


def _step(given: Assignment, status: Attempt, **told: Any) -> Step:
    return Step(given.task, status, "attempt", given.worker, given.attempt, **told)


def _attempt(row: Any) -> AttemptRow:
    return AttemptRow(
        assignment=Assignment(row.task, row.worker, row.number, row.deadline),
        signature=row.signature,
        status=Attempt(row.status),
        step=row.step,
        cause=row.cause,
        message=row.message,
        exit_code=row.exit_code,
        tx_hash=row.tx_hash,
        enclave=row.enclave,
        seen=row.seen,
    )
