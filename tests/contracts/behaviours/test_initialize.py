"""initialize and initializeArray (poco.md §8)."""

from __future__ import annotations

import pytest

from sealdeal.model.deals import task_id
from sealdeal.model.types import ZERO32
from tests.contracts.behaviours.stage import ACTIVE, NO_DATA, UNSET, act, answer, refused, started, task_of
from tests.contracts.world import TIMEREF, World


@pytest.fixture
def dealid(world: World) -> bytes:
    """A deal of two tasks, 2 and 3: the second part of its request."""
    app, dataset, _, request = world.four(volume=4)
    parts = [world.signed(world.pool_order(volume=2)) for _ in range(2)]
    return [world.match((app, dataset, pool, request))[0] for pool in parts][1]


def test_initialize(world: World, dealid: bytes) -> None:
    taskid = task_id(dealid, 3)
    assert answer(world, "stranger", "initialize", dealid, 3) == taskid
    assert act(world, "stranger", "initialize", dealid, 3).events == [("TaskInitialize", taskid, world.pool)]
    assert task_of(world, taskid) == {
        "status": ACTIVE,
        "dealid": dealid,
        "idx": 3,
        "timeref": TIMEREF,
        "contributionDeadline": started(world, dealid) + 7 * TIMEREF,
        "revealDeadline": 0,
        "finalDeadline": started(world, dealid) + 10 * TIMEREF,
        "consensusValue": ZERO32,
        "revealCounter": 0,
        "winnerCounter": 0,
        "contributors": [],
        "resultDigest": ZERO32,
        "results": b"",
        "resultsTimestamp": 0,
        "resultsCallback": b"",
    }


def test_not_initialize_since_index_is_too_low(world: World, dealid: bytes) -> None:
    for index in (0, 1):
        assert refused(world, "stranger", "initialize", dealid, index) == NO_DATA


def test_not_initialize_since_index_is_too_high(world: World, dealid: bytes) -> None:
    for index in (4, 2**256 - 1):
        assert refused(world, "stranger", "initialize", dealid, index) == NO_DATA


def test_not_initialize_twice(world: World, dealid: bytes) -> None:
    act(world, "stranger", "initialize", dealid, 2)
    assert refused(world, "stranger", "initialize", dealid, 2) == NO_DATA


def test_initialize_array(world: World, dealid: bytes) -> None:
    other = world.deal()
    assert answer(world, "stranger", "initializeArray", [dealid, other], [2, 0]) is True
    done = act(world, "stranger", "initializeArray", [dealid, other], [2, 0])
    taskids = [task_id(dealid, 2), task_id(other, 0)]
    assert done.events == [("TaskInitialize", taskid, world.pool) for taskid in taskids]
    assert [task_of(world, taskid).status for taskid in taskids] == [ACTIVE, ACTIVE]
    assert answer(world, "stranger", "initializeArray", [], []) is True


def test_not_initialize_array_if_incompatible_length_of_inputs(world: World, dealid: bytes) -> None:
    for indices in ([2], [2, 3, 3]):
        assert refused(world, "stranger", "initializeArray", [dealid, dealid], indices) == NO_DATA


def test_not_initialize_array_if_one_specific_fails(world: World, dealid: bytes) -> None:
    """None of the others is kept."""
    assert refused(world, "stranger", "initializeArray", [dealid, dealid], [2, 4]) == NO_DATA
    assert task_of(world, task_id(dealid, 2)).status == UNSET
