"""What a scheduler keeps, on both databases: one attempt for all, steps told once, and a way back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sealdeal.model.deals import Assignment, Deal, Resource, task_id
from sealdeal.model.errors import NotFound
from sealdeal.model.types import ZERO, ZERO32, Block, address, keccak
from sealdeal.pool.store import LOG_SECONDS, TRAIL, Log, PoolStore, ResultRow, Step
from sealdeal.sdk.pool import Attempt
from tests.postgres import postgres_url  # noqa: F401  # a fixture

WORKER = address("0x" + "11" * 20)
NOBODY = Resource(ZERO, ZERO, 0)


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def a_deal(name: bytes, size: int = 2) -> Deal:
    rest: tuple[Any, ...] = (1, 0, ZERO32, ZERO, ZERO, ZERO, "", 0, 5, size, 0, 1, ZERO)
    return Deal(keccak(name), NOBODY, NOBODY, NOBODY, *rest)


def a_block(number: int, fork: bytes = b"") -> Block:
    return Block(number, keccak(b"%d" % number + fork), 1_000 + number)


@pytest.fixture(params=["sqlite", "postgresql"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[PoolStore]:
    url = f"sqlite+aiosqlite:///{tmp_path}/pool.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url")
    store = await PoolStore.open(url, Clock())
    yield store
    if request.param == "postgresql":
        async with store.database.write() as connection:
            for name in ("attempts", "results", "events", "logs", "deals", "tasks", "blocks"):
                await connection.exec_driver_sql(f"DELETE FROM pool_{name}")
    await store.close()


async def test_deals_tasks_and_the_way_back(store: PoolStore) -> None:
    old, new = a_deal(b"old"), a_deal(b"new", size=1)
    received = [Step(task, "RECEIVED", block=3, once="RECEIVED") for task in new.task_ids()]
    await store.advance(a_block(2), [(old, 2)], [])
    await store.advance(a_block(3), [(new, 3)], received)
    await store.advance(a_block(3), [(new, 3)], received)  # another scheduler says the same
    assert await store.open_deals() == [old.dealid, new.dealid]
    assert await store.counts() == (2, 3)
    assert await store.deal_of(task_id(old.dealid, 6)) == (old.dealid, 6)
    assert await store.known([*new.task_ids(), keccak(b"none")]) == set(new.task_ids())
    assert [e.status for e in await store.events(new.task_ids()[0], 0)] == ["RECEIVED"]
    await store.forget(old.dealid, 3)
    assert await store.open_deals() == [new.dealid]

    await store.roll_back(2)
    assert await store.open_deals() == [old.dealid]
    assert await store.events(new.task_ids()[0], 0) == []
    with pytest.raises(NotFound, match="not a task of this pool"):
        await store.deal_of(new.task_ids()[0])
    assert await store.trail() == [a_block(2)]
    await store.advance(a_block(3, b"fork"), [(new, 3)], received)
    assert a_block(3, b"fork") in await store.trail()
    assert [e.status for e in await store.events(new.task_ids()[0], 0)] == ["RECEIVED"]


async def test_the_trail_is_bounded(store: PoolStore) -> None:
    for number in range(TRAIL + 10):
        await store.advance(a_block(number), [], [])
    trail = await store.trail()
    assert len(trail) == TRAIL
    assert max(block.number for block in trail) == TRAIL + 9


async def test_an_attempt_is_given_once_and_ends_once(store: PoolStore) -> None:
    task = keccak(b"task")
    given = [Assignment(task, address(bytes(19) + bytes([n])), 1, 5_000) for n in range(1, 5)]
    won = await asyncio.gather(*(store.assign(one, bytes(65)) for one in given))
    assert sum(won) == 1
    winner = given[won.index(True)]
    (row,) = await store.attempts_of([task])
    assert (row.assignment, row.status) == (winner, Attempt.CREATED)
    assert await store.change(winner, Attempt.COMPUTING, step="app", tx_hash=keccak(b"tx"))
    assert await store.close_attempt(winner, Attempt.WORKER_LOST, "WORKER_LOST", "silence")
    assert not await store.change(winner, Attempt.COMPUTED)
    assert not await store.close_attempt(winner, Attempt.COMPLETED, "", "")
    assert await store.live_attempts() == []
    row = await store.attempt(task, 1)
    assert (row.status, row.cause, row.step, row.tx_hash) == (
        Attempt.WORKER_LOST,
        "WORKER_LOST",
        "app",
        keccak(b"tx"),
    )
    told = await store.events(task, 0)
    assert [event.status for event in told] == ["CREATED", "COMPUTING", "WORKER_LOST"]
    assert [event.status for event in await store.events(task, told[0].cursor)] == [
        "COMPUTING",
        "WORKER_LOST",
    ]


async def test_notes_and_ends(store: PoolStore) -> None:
    task = keccak(b"task")
    note = Step(task, "RUNNING_FAILED", cause="ATTEMPTS_EXHAUSTED", once="ATTEMPTS_EXHAUSTED")
    await store.tell([note, note])
    assert len(await store.events(task, 0)) == 1
    assert await store.noted([task]) == {(task, "ATTEMPTS_EXHAUSTED")}
    assert not await store.ended(task)
    await store.tell([Step(task, "FAILED", once="FAILED")])
    assert await store.ended(task)


async def test_logs_are_kept_for_three_days(store: PoolStore) -> None:
    clock = store._clock
    assert isinstance(clock, Clock)
    task = keccak(b"task")
    await store.keep_log(task, Log(WORKER, "first", ""))
    await store.keep_log(task, Log(WORKER, "second", "warned"))
    assert await store.logs_of(task) == [Log(WORKER, "second", "warned")]
    clock.now += LOG_SECONDS + 1
    assert await store.logs_of(task) == []
    await store.keep_log(keccak(b"another"), Log(WORKER, "", ""))
    clock.now -= LOG_SECONDS
    assert await store.logs_of(task) == [], "an old log is gone for good"


async def test_a_result_is_kept_with_its_step_or_not_at_all(store: PoolStore) -> None:
    task, other = keccak(b"task"), keccak(b"other")
    given = Assignment(task, WORKER, 1, 99)
    row = ResultRow(task, WORKER, address(bytes(20)), bytes(32), b"signature", b"word", "Qm1")
    ongoing = Attempt.CONTRIBUTE_AND_FINALIZE_ONGOING
    assert not await store.change(given, ongoing, result=row), "there is no such attempt"
    assert await store.results_of([task]) == {}
    await store.assign(given, b"signature")
    assert await store.change(given, ongoing, result=row)
    assert await store.change(given, ongoing, result=replace(row, cid="Qm2")), "said again"
    assert await store.results_of([task, other]) == {task: replace(row, cid="Qm2")}
    await store.close_attempt(given, Attempt.ABORTED, "TASK_NOT_ACTIVE", "")
    assert not await store.change(given, ongoing, result=row)
    assert (await store.results_of([task]))[task].cid == "Qm2"
