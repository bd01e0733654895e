"""reveal (poco.md §8)."""

from __future__ import annotations

from typing import Any

from sealdeal.model.deals import result_hash
from sealdeal.model.types import keccak
from tests.contracts.behaviours.stage import (
    DIGEST,
    NO_DATA,
    act,
    contribution,
    refused,
    reveal,
    revealing,
    task_of,
    trusting,
)
from tests.contracts.world import World

OTHER = keccak(b"another result")


def refuses(world: World, taskid: bytes, worker: str = "worker", digest: bytes = DIGEST) -> None:
    assert refused(world, worker, "reveal", taskid, digest) == NO_DATA


def contribute_with(world: World, taskid: bytes, place: int, value: bytes) -> None:
    """A contribution whose hash (1) or seal (2) is this one."""
    arguments: list[Any] = list(contribution(world, taskid))
    arguments[place] = value
    act(world, "worker", "contribute", *arguments)


def test_reveal_task_contribution(world: World) -> None:
    taskid = revealing(world, "worker", "worker2", **trusting(3))
    before = task_of(world, taskid)
    for count, worker in enumerate(("worker2", "worker"), 1):
        who = world.who(worker)
        assert reveal(world, taskid, worker).events == [("TaskReveal", taskid, who, DIGEST)]
        assert world.hub.viewContribution(taskid, who).status == 2
        assert task_of(world, taskid) == before | {"revealCounter": count, "resultDigest": DIGEST}


def test_not_reveal_when_task_is_not_in_revealing_status(world: World) -> None:
    taskid = world.task(**trusting(3))
    world.contribute(taskid)
    refuses(world, taskid)


def test_not_reveal_after_deadline(world: World) -> None:
    taskid = revealing(world)
    world.chain.at(task_of(world, taskid).revealDeadline)
    refuses(world, taskid)


def test_not_reveal_when_did_not_contribute(world: World) -> None:
    refuses(world, revealing(world), "worker2")


def test_not_reveal_twice(world: World) -> None:
    taskid = revealing(world, "worker", "worker2", **trusting(3))
    reveal(world, taskid)
    refuses(world, taskid)


def test_not_reveal_when_outside_consensus(world: World) -> None:
    taskid = world.task(**trusting(3))
    world.contribute(taskid, "worker3", digest=OTHER)
    for worker in ("worker", "worker2", "worker4"):
        world.contribute(taskid, worker)
    assert task_of(world, taskid).consensusValue == result_hash(taskid, DIGEST)
    refuses(world, taskid, "worker3", OTHER)
    reveal(world, taskid)


def test_not_reveal_when_unable_to_prove_result_value(world: World) -> None:
    taskid = world.task()
    contribute_with(world, taskid, 1, keccak(b"a hash of no result"))
    refuses(world, taskid)
    refuses(world, revealing(world), digest=OTHER)


def test_not_reveal_when_unable_to_prove_result_ownership(world: World) -> None:
    """A copied hash comes without the seal that only the result's knowledge gives."""
    taskid = world.task()
    contribute_with(world, taskid, 2, contribution(world, taskid, worker="worker2")[2])
    refuses(world, taskid)
