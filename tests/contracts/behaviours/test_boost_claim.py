"""claimBoost (poco.md §10)."""

from __future__ import annotations

from typing import Any

import pytest

from sealdeal.model.deals import task_id
from sealdeal.model.types import keccak
from tests.contracts.behaviours.boost import boost, push, refusal
from tests.contracts.behaviours.stage import (
    FAILED,
    PRICE,
    STAKE,
    act,
    feed_kitty,
    moves,
    refused,
    seize,
    task_of,
    unlock,
)
from tests.contracts.world import World

pytestmark = pytest.mark.needs("claimBoost")


def expired(world: World, payer: str = "requester", **options: Any) -> bytes:
    """A boost deal whose deadline is now."""
    dealid = boost(world, world.four(dataset=True, **options), payer)
    world.chain.at(world.hub.viewDealBoost(dealid).deadline)
    return dealid


def claims(
    world: World, dealid: bytes, index: int = 0, payer: str = "requester", by: str = "requester"
) -> None:
    """All goes back to the payer, and the scheduler's stake to the kitty."""
    taskid = task_id(dealid, index)
    with moves(world) as moved:
        done = act(world, by, "claimBoost", dealid, index)
    assert moved == {payer: (PRICE, -PRICE), "scheduler": (0, -STAKE), "kitty": (0, STAKE)}
    assert done.events == [
        *unlock(world, payer, PRICE),
        *seize(world, "scheduler", STAKE, taskid),
        *feed_kitty(STAKE, taskid),
        ("TaskClaimed", taskid),
    ]
    assert task_of(world, taskid).status == FAILED


def refuses(world: World, dealid: bytes, index: int, words: str) -> None:
    assert refused(world, "stranger", "claimBoost", dealid, index) == refusal(words)


def test_claim(world: World) -> None:
    claims(world, expired(world))


def test_claim_two_tasks(world: World) -> None:
    dealid = expired(world, volume=3)
    claims(world, dealid, 0)
    claims(world, dealid, 2)


def test_claim_by_anyone_when_match_orders_is_sponsored(world: World) -> None:
    claims(world, expired(world, "sponsor"), payer="sponsor", by="stranger")


def test_not_claim_if_wrong_deal_id(world: World) -> None:
    refuses(world, keccak(expired(world)), 0, "Unknown task")


def test_not_claim_if_out_of_range_task_index(world: World) -> None:
    dealid = expired(world, volume=2)
    for index in (2, 2**256 - 1):
        refuses(world, dealid, index, "Unknown task")


def test_not_claim_twice(world: World) -> None:
    dealid = expired(world)
    claims(world, dealid)
    refuses(world, dealid, 0, "Task status not unset")


def test_not_claim_if_task_not_unset(world: World) -> None:
    dealid = boost(world, world.four(dataset=True))
    push(world, dealid)
    world.chain.at(world.hub.viewDealBoost(dealid).deadline)
    refuses(world, dealid, 0, "Task status not unset")


def test_not_claim_before_deadline(world: World) -> None:
    dealid = boost(world, world.four(dataset=True))
    world.chain.at(world.hub.viewDealBoost(dealid).deadline - 1)
    refuses(world, dealid, 0, "Deadline not reached")
    assert world.hub.viewDealBoost(dealid).deadline == world.chain.now() + 1
