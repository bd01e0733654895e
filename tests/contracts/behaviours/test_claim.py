"""claim, claimArray, initializeAndClaimArray (poco.md §8, §9)."""

from __future__ import annotations

from typing import Any

import pytest

from sealdeal.model.deals import task_id
from sealdeal.model.types import keccak
from tests.contracts.behaviours.stage import (
    ACTIVE,
    FAILED,
    NO_DATA,
    PRICE,
    RESULTS,
    REVEALING,
    STAKE,
    UNSET,
    WORKER_STAKE,
    Agreed,
    act,
    answer,
    feed_kitty,
    later,
    moves,
    refused,
    revealing,
    seize,
    task_of,
    tasks_of,
    trusting,
    tuples,
    unlock,
)
from tests.contracts.world import World


def failure(world: World, taskid: bytes, payer: str, *workers: str) -> list[tuple[Any, ...]]:
    """Events of a claim."""
    return [
        *unlock(world, payer, PRICE),
        *seize(world, "scheduler", STAKE, taskid),
        *feed_kitty(STAKE, taskid),
        *(event for worker in workers for event in unlock(world, worker, WORKER_STAKE)),
        ("TaskClaimed", taskid),
    ]


def lost(payer: str, *workers: str, tasks: int = 1) -> dict[str, tuple[int, int]]:
    """What claims move: all back, but the scheduler's stake to the kitty."""
    return {
        payer: (PRICE * tasks, -PRICE * tasks),
        "scheduler": (0, -STAKE * tasks),
        "kitty": (0, STAKE * tasks),
        **dict.fromkeys(workers, (WORKER_STAKE, -WORKER_STAKE)),
    }


@pytest.fixture
def dealid(world: World) -> bytes:
    """A deal of two tasks."""
    return world.deal(dataset=True, volume=2)


def test_claim_task_of_deal_payed_by_sponsor(world: World) -> None:
    agreed = Agreed(world.four(dataset=True), payer="sponsor")
    act(world, "sponsor", "sponsorMatchOrders", *tuples(agreed.orders))
    taskid = world.first_task(agreed.dealid(world))
    world.contribute(taskid)
    later(world, agreed.dealid(world), 10)
    with moves(world) as moved:
        assert act(world, "stranger", "claim", taskid).events == failure(world, taskid, "sponsor", "worker")
    assert moved == lost("sponsor", "worker")


def test_claim_task_of_deal_payed_by_requester(world: World) -> None:
    """Two have agreed, one of them has revealed: all the same to a claim."""
    taskid = revealing(world, "worker", "worker2", dataset=True, **trusting(3))
    act(world, "worker2", "reveal", taskid, keccak(b"result"))
    before = task_of(world, taskid)
    later(world, before.dealid, 10)
    with moves(world) as moved:
        done = act(world, "stranger", "claim", taskid)
    assert done.events == failure(world, taskid, "requester", "worker", "worker2")
    assert moved == lost("requester", "worker", "worker2")
    assert before.status == REVEALING
    assert task_of(world, taskid) == before | {"status": FAILED}
    assert world.hub.viewScore(world.who("worker2")) == 0


def test_claim_active_task_after_deadline(world: World, dealid: bytes) -> None:
    taskid = world.first_task(dealid, 1)
    assert task_of(world, taskid).status == ACTIVE
    later(world, dealid, 10)
    with moves(world) as moved:
        assert act(world, "stranger", "claim", taskid).events == failure(world, taskid, "requester")
    assert moved == lost("requester")


def test_not_claim_unset_task(world: World, dealid: bytes) -> None:
    later(world, dealid, 10)
    assert refused(world, "stranger", "claim", task_id(dealid, 0)) == NO_DATA


def test_not_claim_completed_task(world: World, dealid: bytes) -> None:
    taskid = world.first_task(dealid)
    world.direct(taskid, RESULTS)
    later(world, dealid, 10)
    assert refused(world, "stranger", "claim", taskid) == NO_DATA


def test_not_claim_before_deadline(world: World, dealid: bytes) -> None:
    taskid = world.first_task(dealid)
    later(world, dealid, 10, seconds=-1)
    assert refused(world, "stranger", "claim", taskid) == NO_DATA
    later(world, dealid, 10)
    act(world, "stranger", "claim", taskid)
    assert refused(world, "stranger", "claim", taskid) == NO_DATA


# ---- Arrays ------------------------------------------------------------------------------------------------


def test_claim_array(world: World, dealid: bytes) -> None:
    taskids = tasks_of(dealid, 2)
    act(world, "stranger", "initializeArray", [dealid, dealid], [0, 1])
    later(world, dealid, 10)
    assert answer(world, "stranger", "claimArray", taskids) is True
    with moves(world) as moved:
        done = act(world, "stranger", "claimArray", taskids)
    assert done.events == [event for taskid in taskids for event in failure(world, taskid, "requester")]
    assert moved == lost("requester", tasks=2)


def test_not_claim_array_when_one_is_not_claimable(world: World, dealid: bytes) -> None:
    taskid = world.first_task(dealid)
    later(world, dealid, 10)
    assert refused(world, "stranger", "claimArray", tasks_of(dealid, 2)) == NO_DATA
    assert task_of(world, taskid).status == ACTIVE


def test_initialize_and_claim_array(world: World, dealid: bytes) -> None:
    later(world, dealid, 10)
    arguments = [dealid, dealid], [0, 1]
    assert answer(world, "stranger", "initializeAndClaimArray", *arguments) is True
    with moves(world) as moved:
        done = act(world, "stranger", "initializeAndClaimArray", *arguments)
    assert done.events == [
        event
        for taskid in tasks_of(dealid, 2)
        for event in [("TaskInitialize", taskid, world.pool), *failure(world, taskid, "requester")]
    ]
    assert moved == lost("requester", tasks=2)


def test_not_initialize_and_claim_array_if_incompatible_length_of_inputs(world: World, dealid: bytes) -> None:
    later(world, dealid, 10)
    for indices in ([0], [0, 1, 1]):
        assert refused(world, "stranger", "initializeAndClaimArray", [dealid, dealid], indices) == NO_DATA


def test_not_initialize_and_claim_array_if_one_specific_fails(world: World, dealid: bytes) -> None:
    later(world, dealid, 10)
    assert refused(world, "stranger", "initializeAndClaimArray", [dealid, dealid], [0, 2]) == NO_DATA
    assert task_of(world, task_id(dealid, 0)).status == UNSET
