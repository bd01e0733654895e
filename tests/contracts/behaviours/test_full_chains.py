"""Whole deals, from the match to the last payment, with everybody's balance at the end (poco.md §7 to §9)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from sealdeal.model.types import ZERO, keccak
from tests.contracts.behaviours.stage import (
    ACTIVE,
    COMPLETED,
    DIGEST,
    FAILED,
    PRICE,
    REVEALING,
    STAKE,
    WORKER_STAKE,
    act,
    finalize,
    later,
    moves,
    recorded,
    recorder,
    reveal,
    task_of,
    tasks_of,
    trusting,
    tuples,
)
from tests.contracts.world import APP_PRICE, DATASET_PRICE, POOL_PRICE, SCHEDULER_RATIO, World, key

WORKERS = ["worker", "worker2", "worker3", "worker4", "worker5"]
TRUST_OF = {1: 1, 2: 3, 3: 5, 4: 9, 5: 17}
"""A trust for which this many equal contributions are just enough."""
CALLBACK = b"what the callback gets"
WRONG = keccak(b"a wrong result")


@pytest.fixture(autouse=True)
def fifth_worker(world: World) -> Iterator[None]:
    world.keys["worker5"] = key("worker5")
    world.enrich(world.who("worker5"))
    yield
    del world.keys["worker5"]


@dataclass
class Books:
    """What everybody must have gained in the end; no lock may be left."""

    payer: str = "requester"
    gained: dict[str, int] = field(default_factory=dict)

    def note(self, role: str, amount: int) -> None:
        self.gained[role] = self.gained.get(role, 0) + amount

    def completed(self, winners: list[str], losers: list[str] | None = None) -> None:
        """Winners share the pool's price and the losers' stakes; the scheduler gets its part and the rest."""
        pot = POOL_PRICE + WORKER_STAKE * len(losers or [])
        each = pot * (100 - SCHEDULER_RATIO) // 100 // len(winners)
        for role, amount in (
            (self.payer, -PRICE),
            ("app", APP_PRICE),
            ("dataset", DATASET_PRICE),
            ("scheduler", pot - each * len(winners)),
            *((winner, each) for winner in winners),
            *((loser, -WORKER_STAKE) for loser in losers or []),
        ):
            self.note(role, amount)

    def balance(self, moved: dict[str, tuple[int, int]]) -> None:
        assert moved == {role: (amount, 0) for role, amount in self.gained.items()}


def contributed(world: World, taskid: bytes, *workers: str, digest: bytes = DIGEST) -> None:
    for worker in workers:
        world.contribute(taskid, worker, digest=digest)


def completed(world: World, taskid: bytes, *workers: str, callback: bytes = b"") -> None:
    """These workers agree and reveal, and the scheduler finalizes."""
    digest = keccak(callback) if callback else DIGEST
    contributed(world, taskid, *workers, digest=digest)
    for worker in workers:
        reveal(world, taskid, worker, digest)
    finalize(world, taskid, callback=callback)
    assert task_of(world, taskid).status == COMPLETED


# ---- Deals that go well ------------------------------------------------------------------------------------


def runs(world: World, *, sponsored: bool, extras: bool, bag: bool, replicated: bool) -> None:
    """A deal with these traits, all its tasks completed; `extras` are a beneficiary and a callback."""
    consumer, volume = recorder(world), 3 if bag else 1
    workers = WORKERS[: 2 if replicated else 1]
    changes = trusting(TRUST_OF[len(workers)])
    if extras:
        changes["request"] |= {"beneficiary": world.who("stranger"), "callback": consumer}
    else:
        changes["request"] |= {"beneficiary": ZERO}
    orders = world.four(dataset=True, volume=volume, **changes)
    books = Books("sponsor" if sponsored else "requester")
    with moves(world) as moved:
        function, by = ("sponsorMatchOrders", "sponsor") if sponsored else ("matchOrders", "stranger")
        done = act(world, by, function, *tuples(orders))
        dealid = next(event[1] for event in done.events if event[0] == "OrdersMatched")
        for index, taskid in enumerate(tasks_of(dealid, volume)):
            world.first_task(dealid, index)
            completed(world, taskid, *workers, callback=CALLBACK if extras else b"")
            books.completed(workers)
    books.balance(moved)
    assert (recorded(world, consumer)[1] > 0) == extras
    expected = volume if replicated else 0
    assert [world.hub.viewScore(world.who(worker)) for worker in workers] == [expected] * len(workers)


def test_1_sponsorship_beneficiary_callback_bot_replication(world: World) -> None:
    runs(world, sponsored=True, extras=True, bag=True, replicated=True)


def test_2_no_sponsorship_beneficiary_callback_bot_replication(world: World) -> None:
    runs(world, sponsored=False, extras=True, bag=True, replicated=True)


def test_3_sponsorship_beneficiary_callback_bot_no_replication(world: World) -> None:
    runs(world, sponsored=True, extras=True, bag=True, replicated=False)


def test_4_no_sponsorship_beneficiary_callback_bot_no_replication(world: World) -> None:
    runs(world, sponsored=False, extras=True, bag=True, replicated=False)


def test_5_no_sponsorship_no_beneficiary_no_callback_no_bot_no_replication(world: World) -> None:
    runs(world, sponsored=False, extras=False, bag=False, replicated=False)


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_6_no_sponsorship_no_beneficiary_no_callback_no_bot_up_to_workers(world: World, count: int) -> None:
    books, workers = Books(), WORKERS[:count]
    with moves(world) as moved:
        taskid = world.task(dataset=True, **trusting(TRUST_OF[count]))
        completed(world, taskid, *workers)
        books.completed(workers)
    books.balance(moved)
    assert [world.hub.viewScore(world.who(worker)) for worker in workers] == [1] * count


def test_7_no_sponsorship_no_beneficiary_no_callback_no_bot_up_to_5_workers_with_1_bad_worker(
    world: World,
) -> None:
    books, (bad, *good) = Books(), WORKERS
    with moves(world) as moved:
        taskid = world.task(dataset=True, **trusting(5))
        contributed(world, taskid, bad, digest=WRONG)
        completed(world, taskid, *good)
        books.completed(good, [bad])
    books.balance(moved)
    assert [world.hub.viewScore(world.who(worker)) for worker in WORKERS] == [0, 1, 1, 1, 1]


# ---- Deals that do not -------------------------------------------------------------------------------------


def test_task_lifecycle_with_bot_replication_and_error_handling(world: World) -> None:
    """A bag of three: all agree; one is wrong; nobody agrees, and the requester gets the money back."""
    books = Books()
    with moves(world) as moved:
        dealid = world.deal(dataset=True, volume=3, **trusting(5))
        first, second, third = (world.first_task(dealid, index) for index in range(3))
        completed(world, first, "worker", "worker2", "worker3")
        books.completed(["worker", "worker2", "worker3"])
        contributed(world, second, "worker4", digest=WRONG)
        completed(world, second, "worker", "worker2", "worker3", "worker5")
        books.completed(["worker", "worker2", "worker3", "worker5"], ["worker4"])
        contributed(world, third, "worker")
        contributed(world, third, "worker2", digest=WRONG)
        assert task_of(world, third).status == ACTIVE
        later(world, dealid, 10)
        act(world, "requester", "claim", third)
        books.note("scheduler", -STAKE)
    assert task_of(world, third).status == FAILED
    assert moved.pop("kitty") == (0, STAKE)
    books.balance(moved)


def test_1_no_sponsorship_no_beneficiary_no_callback_bot_no_replication_2_workerpool_orders(
    world: World,
) -> None:
    """A request of five tasks is served by two pool orders, of two tasks and of three."""
    app, dataset, _, request = world.four(dataset=True, volume=5)
    books = Books()
    with moves(world) as moved:
        for volume in (2, 3):
            pool = world.signed(world.pool_order(volume=volume))
            dealid, _ = world.match((app, dataset, pool, request))
            deal = world.hub.viewDeal(dealid)
            assert (deal.botFirst, deal.botSize) == ((0, 2) if volume == 2 else (2, 3))
            for index in range(deal.botFirst, deal.botFirst + volume):
                completed(world, world.first_task(dealid, index), "worker")
                books.completed(["worker"])
    books.balance(moved)


def test_1_task_lifecycle_with_contributions_and_reopening(world: World) -> None:
    """Two agree and keep silent; after the reopening three others do the work and get their stakes."""
    books = Books()
    with moves(world) as moved:
        taskid = world.task(dataset=True, **trusting(3))
        contributed(world, taskid, "worker", "worker2", digest=WRONG)
        world.chain.at(task_of(world, taskid).revealDeadline)
        act(world, "scheduler", "reopen", taskid)
        contributed(world, taskid, "worker3")
        assert task_of(world, taskid).status == ACTIVE
        contributed(world, taskid, "worker4")
        assert task_of(world, taskid).status == REVEALING
        for worker in ("worker3", "worker4"):
            reveal(world, taskid, worker)
        finalize(world, taskid)
        books.completed(["worker3", "worker4"], ["worker", "worker2"])
    books.balance(moved)
