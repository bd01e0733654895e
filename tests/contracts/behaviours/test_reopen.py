"""reopen (poco.md §8)."""

from __future__ import annotations

from sealdeal.model.types import ZERO32
from tests.contracts.behaviours.stage import (
    ACTIVE,
    NO_DATA,
    RESULTS,
    act,
    later,
    moves,
    refused,
    reveal,
    revealing,
    task_of,
    trusting,
)
from tests.contracts.world import World


def silent(world: World, seconds: int = 0) -> bytes:
    """A task that nobody revealed until its deadline; the next transaction is `seconds` later."""
    taskid = revealing(world, "worker", "worker2", **trusting(3))
    world.chain.at(task_of(world, taskid).revealDeadline + seconds)
    return taskid


def refuses(world: World, taskid: bytes, by: str = "scheduler") -> None:
    assert refused(world, by, "reopen", taskid) == NO_DATA


def test_reopen_task_after_reveal_deadline(world: World) -> None:
    """Those who agreed are rejected, and stay in the list with their stake locked."""
    taskid = silent(world)
    before = task_of(world, taskid)
    with moves(world) as moved:
        assert act(world, "scheduler", "reopen", taskid).events == [("TaskReopen", taskid)]
    assert moved == {}
    reset = {"status": ACTIVE, "consensusValue": ZERO32, "revealDeadline": 0, "winnerCounter": 0}
    assert task_of(world, taskid) == before | reset
    for worker in ("worker", "worker2"):
        assert world.hub.viewContribution(taskid, world.who(worker)).status == 3


def test_not_reopen_task_when_sender_is_not_the_scheduler(world: World) -> None:
    taskid = silent(world)
    for role in ("worker", "requester", "owner"):
        refuses(world, taskid, role)


def test_not_reopen_task_when_status_is_before_revealing(world: World) -> None:
    taskid = world.task(**trusting(3))
    world.contribute(taskid)
    refuses(world, taskid)


def test_not_reopen_task_when_status_is_after_revealing(world: World) -> None:
    taskid = world.task()
    world.direct(taskid, RESULTS)
    world.chain.at(task_of(world, taskid).revealDeadline)
    refuses(world, taskid)


def test_not_reopen_task_after_final_deadline(world: World) -> None:
    taskid = silent(world)
    later(world, task_of(world, taskid).dealid, 10)
    refuses(world, taskid)


def test_not_reopen_task_before_reveal_deadline(world: World) -> None:
    refuses(world, revealing(world))


def test_not_reopen_task_with_at_least_1_reveal(world: World) -> None:
    taskid = revealing(world, "worker", "worker2", **trusting(3))
    reveal(world, taskid)
    world.chain.at(task_of(world, taskid).revealDeadline)
    refuses(world, taskid)
