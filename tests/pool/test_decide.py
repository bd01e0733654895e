"""decide: one table of single decisions, and what holds whatever happens."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealdeal.model.deals import TaskStatus, task_id
from sealdeal.model.orders import TEE_TDX
from sealdeal.model.types import Block, address, keccak
from sealdeal.pool.decide import (
    BATCH,
    BLOCK,
    SHORTEST_ATTEMPT,
    Action,
    Assign,
    AttemptView,
    Claim,
    ClaimUnset,
    End,
    Forget,
    Initialize,
    Note,
    Settle,
    TaskView,
    View,
    WorkerView,
    decide,
)
from sealdeal.pool.rules import Rules
from sealdeal.sdk.pool import Attempt

NOW = 1_000_000
T = 300
DEAL = keccak(b"deal")
FIRST, SECOND, THIRD = (address(bytes(19) + bytes([n])) for n in (1, 2, 3))


def a_task(index: int = 0, start: int = NOW, **given: object) -> TaskView:
    usual = TaskView(
        taskid=task_id(DEAL, index),
        dealid=DEAL,
        index=index,
        status=TaskStatus.ACTIVE,
        contributors=(),
        contribution_deadline=start + 7 * T,
        final_deadline=start + 10 * T,
        tag=TEE_TDX,
        tee=True,
        trust=1,
        worker_stake=0,
    )
    return replace(usual, **given)  # type: ignore[arg-type]


def a_worker(who: str = FIRST, **given: object) -> WorkerView:
    return replace(WorkerView(address(who), 1, TEE_TDX, False, NOW), **given)  # type: ignore[arg-type]


def an_attempt(number: int = 1, who: str = FIRST, **given: object) -> AttemptView:
    usual = AttemptView(a_task().taskid, address(who), number, NOW + 100, Attempt.COMPUTING)
    return replace(usual, **given)  # type: ignore[arg-type]


def see(
    *tasks: TaskView,
    workers: tuple[WorkerView, ...] = (),
    attempts: tuple[AttemptView, ...] = (),
    rules: Rules | None = None,
    noted: frozenset[tuple[bytes, str]] = frozenset(),
    handed: tuple[int, ...] = (),
) -> View:
    results = frozenset(a_task(index).taskid for index in handed)
    return View(Block(7, bytes(32), NOW), tasks, workers, attempts, noted, rules or Rules(), results)


def in_a_bag(index: int = 0, start: int = NOW, **given: object) -> TaskView:
    """A task of a batched deal, which has not begun."""
    usual = {"status": TaskStatus.UNSET, "batched": True, "block": index // BLOCK, **given}
    return a_task(index, start, **usual)


def settle(*indices: int) -> Settle:
    return Settle(DEAL, tuple(a_task(index).taskid for index in indices))


ID = a_task().taskid
DEADLINE = NOW + 7 * T // 3


def assign(number: int = 1, who: str = FIRST, deadline: int = DEADLINE) -> Assign:
    return Assign(ID, address(who), number, deadline)


LOST, FAILED, ABORTED = Attempt.WORKER_LOST, Attempt.COMPUTE_FAILED, Attempt.ABORTED

CASES: dict[str, tuple[View, list[Action]]] = {
    "nothing to do": (see(), []),
    "a new task is opened": (see(a_task(status=TaskStatus.UNSET)), [Initialize(((DEAL, 0),))]),
    "an open task waits for a worker": (see(a_task()), []),
    "a free worker gets it": (see(a_task(), workers=(a_worker(),)), [assign()]),
    "a live attempt goes on": (
        see(a_task(), workers=(a_worker(), a_worker(SECOND)), attempts=(an_attempt(),)),
        [],
    ),
    "a busy worker gets nothing": (
        see(
            a_task(),
            a_task(1),
            workers=(a_worker(),),
            attempts=(an_attempt(),),
        ),
        [],
    ),
    "a second slot is used": (
        see(a_task(), a_task(1), workers=(a_worker(slots=2),), attempts=(an_attempt(),)),
        [Assign(a_task(1).taskid, FIRST, 1, DEADLINE)],
    ),
    "the most urgent task goes first": (
        see(a_task(), a_task(1, start=NOW - T), workers=(a_worker(),)),
        [Assign(a_task(1).taskid, FIRST, 1, NOW + 7 * T // 3)],
    ),
    "an absent worker gets nothing": (see(a_task(), workers=(a_worker(seen=NOW - 60),)), []),
    "a machine without the tag's bits gets nothing": (
        see(a_task(tag=TEE_TDX | 1 << 8), workers=(a_worker(),)),
        [Note(ID, "NO_ABLE_WORKER", "no worker present has the tag bits 0x109 that the deal asks for")],
    ),
    "a standard deal that nobody serves is not passed over in silence": (
        see(a_task(tag=0, tee=False), workers=(a_worker(),)),
        [
            Note(
                ID,
                "NO_ABLE_WORKER",
                "the deal asks for no TEE, and no worker present runs such deals: unless one comes in time, "
                "the requester is refunded and the pool loses its stake",
            )
        ],
    ),
    "a standard deal needs a worker for it": (
        see(a_task(tag=0, tee=False), workers=(a_worker(), a_worker(SECOND, standard=True))),
        [assign(who=SECOND)],
    ),
    "a task of a bag is not begun": (see(in_a_bag()), []),
    "a task of a bag is given before it begins": (see(in_a_bag(), workers=(a_worker(),)), [assign()]),
    "a bag waits for its last task": (
        see(in_a_bag(), in_a_bag(1), handed=(0,), attempts=(an_attempt(),)),
        [],
    ),
    "a bag is settled when all is there": (
        see(in_a_bag(), in_a_bag(1, status=TaskStatus.ACTIVE), handed=(0, 1)),
        [settle(0, 1)],
    ),
    "what has ended is not waited for": (
        see(in_a_bag(), in_a_bag(1, status=TaskStatus.COMPLETED), handed=(0,)),
        [settle(0)],
    ),
    "what somebody contributed to is not settled": (
        see(in_a_bag(), in_a_bag(1, status=TaskStatus.ACTIVE, contributors=(SECOND,)), handed=(0, 1)),
        [settle(0)],
    ),
    "what nobody can do any more is not waited for": (
        see(
            in_a_bag(1),
            in_a_bag(),
            handed=(1,),
            attempts=tuple(an_attempt(n, FIRST, status=LOST) for n in (1, 2, 3)),
            noted=frozenset({(ID, "ATTEMPTS_EXHAUSTED")}),
        ),
        [settle(1)],
    ),
    "each block is settled by itself": (
        see(in_a_bag(BLOCK - 1), in_a_bag(BLOCK), in_a_bag(BLOCK + 1), handed=(BLOCK - 1, BLOCK)),
        [settle(BLOCK - 1)],
    ),
    "near the deadline what is there is settled": (
        see(in_a_bag(0, NOW - 6 * T), in_a_bag(1, NOW - 6 * T), handed=(0,)),
        [settle(0)],
    ),
    "a little earlier it is not": (see(in_a_bag(0, NOW - 6 * T + 1), in_a_bag(1, NOW), handed=(0,)), []),
    "after the deadline nothing is settled": (
        see(
            in_a_bag(0, NOW - 7 * T),
            handed=(0,),
            noted=frozenset({(ID, "CONTRIBUTION_TIMEOUT")}),
        ),
        [],
    ),
    "a bag's tasks that never began are begun and claimed": (
        see(
            in_a_bag(0, NOW - 10 * T),
            in_a_bag(1, NOW - 10 * T, status=TaskStatus.ACTIVE),
            noted=frozenset({(a_task(n).taskid, "CONTRIBUTION_TIMEOUT") for n in (0, 1)}),
        ),
        [Claim((a_task(1).taskid,)), ClaimUnset(((DEAL, 0),))],
    ),
    "who handed in is neither late nor lost, and is free": (
        see(
            in_a_bag(),
            in_a_bag(1),
            workers=(a_worker(),),
            attempts=(an_attempt(deadline=NOW - 1), an_attempt(2, SECOND, task=a_task(2).taskid)),
            handed=(0,),
        ),
        [
            End(a_task(2).taskid, 2, ABORTED, "TASK_NOT_ACTIVE", "the deal is not on the chain any more"),
            Assign(a_task(1).taskid, FIRST, 1, DEADLINE),
        ],
    ),
    "who failed never gets it again": (
        see(a_task(), workers=(a_worker(),), attempts=(an_attempt(status=FAILED),)),
        [],
    ),
    "another tries after a failure": (
        see(a_task(), workers=(a_worker(), a_worker(SECOND)), attempts=(an_attempt(status=FAILED),)),
        [assign(2, SECOND)],
    ),
    "who was lost comes last": (
        see(a_task(), workers=(a_worker(), a_worker(SECOND)), attempts=(an_attempt(status=LOST),)),
        [assign(2, SECOND)],
    ),
    "who was lost may try again": (
        see(a_task(), workers=(a_worker(),), attempts=(an_attempt(status=LOST),)),
        [assign(2)],
    ),
    "who was stopped may try again": (
        see(a_task(), workers=(a_worker(),), attempts=(an_attempt(status=ABORTED),)),
        [assign(2)],
    ),
    "who still runs the attempt that is over does not get the next": (
        see(
            a_task(),
            workers=(a_worker(slots=2, running=frozenset({a_task().taskid})),),
            attempts=(an_attempt(status=LOST),),
        ),
        [],
    ),
    "three attempts are enough": (
        see(
            a_task(),
            workers=(a_worker(THIRD),),
            attempts=tuple(an_attempt(n, FIRST, status=LOST) for n in (1, 2, 3)),
        ),
        [Note(ID, "ATTEMPTS_EXHAUSTED", "3 attempts failed; see each one's cause")],
    ),
    "a note is made once": (
        see(
            a_task(),
            attempts=tuple(an_attempt(n, FIRST, status=LOST) for n in (1, 2, 3)),
            noted=frozenset({(ID, "ATTEMPTS_EXHAUSTED")}),
        ),
        [],
    ),
    "a lost worker's attempt ends and another gets it": (
        see(
            a_task(),
            workers=(a_worker(seen=NOW - 60), a_worker(SECOND)),
            attempts=(an_attempt(),),
        ),
        [
            End(ID, 1, LOST, "WORKER_LOST", "nothing heard of it for 60 s"),
            assign(2, SECOND),
        ],
    ),
    "an attempt expires": (
        see(a_task(), workers=(a_worker(),), attempts=(an_attempt(deadline=NOW),)),
        [End(ID, 1, Attempt.FAILED, "ASSIGNMENT_EXPIRED", "the attempt's own deadline passed")],
    ),
    "what is said to be done is waited for": (
        see(
            a_task(),
            workers=(a_worker(SECOND),),
            attempts=(an_attempt(status=Attempt.CONTRIBUTE_AND_FINALIZE_DONE, deadline=NOW),),
        ),
        [],
    ),
    "a completed task completes its attempt": (
        see(
            a_task(status=TaskStatus.COMPLETED, contributors=(FIRST,)),
            workers=(a_worker(),),
            attempts=(an_attempt(),),
        ),
        [End(ID, 1, Attempt.COMPLETED, "", ""), Forget(DEAL)],
    ),
    "another completed it": (
        see(
            a_task(status=TaskStatus.COMPLETED, contributors=(SECOND,)),
            workers=(a_worker(),),
            attempts=(an_attempt(),),
        ),
        [
            End(ID, 1, ABORTED, "TASK_ALREADY_CONTRIBUTED", "another worker completed the task"),
            Forget(DEAL),
        ],
    ),
    "a deal that a reorganisation took": (
        see(workers=(a_worker(),), attempts=(an_attempt(),)),
        [End(ID, 1, ABORTED, "TASK_NOT_ACTIVE", "the deal is not on the chain any more")],
    ),
    "too late to contribute": (
        see(a_task(start=NOW - 7 * T), workers=(a_worker(SECOND),), attempts=(an_attempt(),)),
        [
            End(ID, 1, Attempt.FAILED, "CONTRIBUTION_TIMEOUT", "the contribution deadline passed"),
            Note(ID, "CONTRIBUTION_TIMEOUT", "no result in time; the requester will be refunded"),
        ],
    ),
    "an overdue task is claimed": (
        see(a_task(start=NOW - 10 * T), noted=frozenset({(ID, "CONTRIBUTION_TIMEOUT")})),
        [Claim((ID,))],
    ),
    "an overdue consensus is claimed": (
        see(a_task(start=NOW - 10 * T, status=TaskStatus.REVEALING)),
        [Claim((ID,))],
    ),
    "an overdue task that was never opened is opened, to be claimed": (
        see(a_task(start=NOW - 10 * T, status=TaskStatus.UNSET)),
        [Initialize(((DEAL, 0),))],
    ),
    "a claimed task is forgotten": (see(a_task(status=TaskStatus.FAILED)), [Forget(DEAL)]),
    "a deal with an open task is not forgotten": (
        see(a_task(status=TaskStatus.FAILED), a_task(1)),
        [],
    ),
    "a deal of more trust is left alone": (
        see(a_task(trust=3), workers=(a_worker(),)),
        [Note(ID, "TRUST_NOT_1", "this pool takes trust 1 only, the deal asks for 3")],
    ),
    "a pool may ask for stake": (
        see(
            a_task(worker_stake=5),
            workers=(a_worker(stake=4), a_worker(SECOND, stake=5)),
            rules=Rules(require_stake=True),
        ),
        [assign(who=SECOND)],
    ),
    "nobody has the stake": (
        see(a_task(worker_stake=5), workers=(a_worker(stake=4),), rules=Rules(require_stake=True)),
        [
            Note(
                ID,
                "STAKE_TOO_LOW",
                "no worker present has 5 nRLC of free stake, which this pool asks of workers",
            )
        ],
    ),
    "stake does not matter unless asked for": (
        see(a_task(worker_stake=5), workers=(a_worker(stake=4),)),
        [assign()],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_decisions(case: str) -> None:
    view, expected = CASES[case]
    assert decide(view, NOW) == expected


def test_an_attempts_time() -> None:
    """A third of what the deal gives, at least half a minute, never over the contribution deadline."""
    ((late),) = decide(see(a_task(start=NOW - 6 * T), workers=(a_worker(),)), NOW)
    assert isinstance(late, Assign)
    assert late.deadline == NOW + T
    quick = replace(a_task(), contribution_deadline=NOW + 14, final_deadline=NOW + 20)
    ((short),) = decide(see(quick, workers=(a_worker(),)), NOW)
    assert isinstance(short, Assign)
    assert short.deadline == NOW + 14 < NOW + SHORTEST_ATTEMPT


def test_many_tasks_go_in_batches() -> None:
    many = [a_task(i, status=TaskStatus.UNSET) for i in range(2 * BATCH + 1)]
    actions = decide(see(*many), NOW)
    assert all(isinstance(action, Initialize) for action in actions)
    assert [len(action.tasks) for action in actions] == [BATCH, BATCH, 1]  # type: ignore[union-attr]


# --- a whole life, with everything going wrong at random


class World:
    """A chain, workers and a scheduler's store, as far as `decide` can tell them apart."""

    def __init__(self, seed: int, tasks: int, workers: int) -> None:
        self.random = random.Random(seed)
        self.now = NOW
        self.tasks = {t.taskid: t for t in (a_task(i, status=TaskStatus.UNSET) for i in range(tasks))}
        self.workers = [a_worker(bytes(19) + bytes([n + 1]), slots=n % 2 + 1) for n in range(workers)]  # type: ignore[arg-type]
        self.attempts: dict[tuple[bytes, int], AttemptView] = {}
        self.noted: set[tuple[bytes, str]] = set()
        self.forgotten: set[bytes] = set()

    def view(self) -> View:
        tasks = tuple(t for t in self.tasks.values() if t.dealid not in self.forgotten)
        return View(
            Block(1, bytes(32), self.now),
            tasks,
            tuple(self.workers),
            tuple(self.attempts.values()),
            frozenset(self.noted),
        )

    def do(self, action: Action) -> None:
        """As the chain and the store take it: what was done already is refused, silently."""
        match action:
            case Initialize(which):
                for dealid, index in which:
                    task = self.tasks[task_id(dealid, index)]
                    if task.status == TaskStatus.UNSET:
                        self.tasks[task.taskid] = replace(task, status=TaskStatus.ACTIVE)
            case Claim(ids):
                for taskid in ids:
                    task = self.tasks[taskid]
                    if task.status == TaskStatus.ACTIVE and self.now >= task.final_deadline:
                        self.tasks[taskid] = replace(task, status=TaskStatus.FAILED)
            case Assign(task=taskid, worker=worker, attempt=number, deadline=deadline):
                attempt = AttemptView(taskid, worker, number, deadline, Attempt.CREATED)
                self.attempts.setdefault((taskid, number), attempt)
            case End(task=taskid, attempt=number, status=status):
                if (attempt := self.attempts[taskid, number]).live:
                    self.attempts[taskid, number] = replace(attempt, status=status)
            case Note(task=taskid, cause=cause):
                self.noted.add((taskid, cause))
            case Forget(dealid):
                self.forgotten.add(dealid)

    def happen(self) -> None:
        """Time passes; workers come, go, succeed and fail."""
        self.now += self.random.choice([0, 1, 10, 100])
        for number, worker in enumerate(self.workers):
            if self.random.random() < 0.7:
                self.workers[number] = replace(worker, seen=self.now)
        for key, attempt in self.attempts.items():
            if attempt.live and self.random.random() < 0.4:
                status = self.random.choice(
                    [Attempt.COMPUTING, Attempt.COMPUTE_FAILED, Attempt.ABORTED, None]
                )
                task = self.tasks[attempt.task]
                if status is None and task.status == TaskStatus.ACTIVE:
                    if self.now < task.contribution_deadline:
                        done = replace(task, status=TaskStatus.COMPLETED, contributors=(attempt.worker,))
                        self.tasks[attempt.task] = done
                elif status is not None:
                    self.attempts[key] = replace(attempt, status=status)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 6), st.integers(0, 4), st.booleans())
def test_every_task_ends_and_is_given_to_one_at_a_time(
    seed: int, tasks: int, workers: int, twice: bool
) -> None:
    world = World(seed, tasks, workers)
    for _ in range(200):
        view = world.view()
        actions = decide(view, world.now)
        for action in actions * (2 if twice else 1):
            world.do(action)
        live = [attempt.task for attempt in world.attempts.values() if attempt.live]
        assert len(live) == len(set(live)), "two live attempts at one task"
        for worker in world.workers:
            mine = [a for a in world.attempts.values() if a.live and a.worker == worker.address]
            assert len(mine) <= worker.slots
        world.happen()
    assert all(task.ended for task in world.tasks.values())
    assert world.forgotten == {DEAL}
    for task in world.tasks.values():
        made = [a for a in world.attempts.values() if a.task == task.taskid]
        assert sorted(a.number for a in made) == list(range(1, len(made) + 1))
        assert len(made) <= Rules().attempts
        reported = [a.worker for a in made if a.status == Attempt.COMPUTE_FAILED]
        assert len(reported) == len(set(reported)), "a worker failed one task twice"


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 30))
def test_deciding_again_at_once_changes_nothing(seed: int, steps: int) -> None:
    world = World(seed, 4, 3)
    for _ in range(steps):
        for action in decide(world.view(), world.now):
            world.do(action)
        world.happen()
    for _ in range(3):  # opening an overdue task makes it claimable, claiming makes it forgettable
        for action in decide(world.view(), world.now):
            world.do(action)
    assert decide(world.view(), world.now) == []
