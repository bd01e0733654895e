"""Boost deals to their end, with everybody's balance (poco.md §10)."""

from __future__ import annotations

import pytest
from eth_abi.abi import encode

from sealdeal.model.deals import task_id
from sealdeal.model.types import keccak
from tests.contracts.behaviours.boost import boost, push
from tests.contracts.behaviours.stage import (
    KINDS,
    PRICE,
    SCHEDULER_REWARD,
    STAKE,
    WORKER_REWARD,
    Four,
    act,
    moves,
    presign,
    recorded,
    recorder,
)
from tests.contracts.world import APP_PRICE, DATASET_PRICE, World

pytestmark = pytest.mark.needs("matchOrdersBoost")

CALLBACK = b"what the callback gets"
EARNED = {"app": (APP_PRICE, 0), "dataset": (DATASET_PRICE, 0), "worker": (WORKER_REWARD, 0)}


def tee(world: World, **request: str) -> Four:
    return world.four(dataset=True, tee=True, request=request)


# ---- matchOrders -------------------------------------------------------------------------------------------


def test_match_orders_tee(world: World) -> None:
    """All tasks of a bag are pushed and paid."""
    with moves(world) as moved:
        dealid = boost(world, world.four(dataset=True, tee=True, volume=2))
        for index in range(2):
            push(world, dealid, index, tee=True)
    assert moved == {
        "requester": (-2 * PRICE, 0),
        "scheduler": (2 * SCHEDULER_REWARD, 0),
        **{role: (2 * amount, 0) for role, (amount, _) in EARNED.items()},
    }


def test_match_orders_with_pre_signatures_tee(world: World) -> None:
    orders = tee(world)
    for kind, order in zip(KINDS, orders, strict=True):
        presign(world, kind, order)
    with moves(world) as moved:
        push(world, boost(world, orders), tee=True)
    assert moved == {"requester": (-PRICE, 0), "scheduler": (SCHEDULER_REWARD, 0), **EARNED}


def test_sponsor_match_orders_tee(world: World) -> None:
    """The requester pays nothing, and has nothing locked."""
    with moves(world) as moved:
        boost(world, tee(world), "sponsor")
    assert moved == {"sponsor": (-PRICE, PRICE), "scheduler": (-STAKE, STAKE)}


# ---- pushResult --------------------------------------------------------------------------------------------


def completes(world: World, signer: str, **request: str) -> bytes:
    """A deal made and pushed; its id."""
    with moves(world) as moved:
        dealid = boost(world, tee(world, **request))
        push(world, dealid, tee=True, signer=signer, callback=CALLBACK if request else b"")
    assert moved == {"requester": (-PRICE, 0), "scheduler": (SCHEDULER_REWARD, 0), **EARNED}
    return dealid


def test_push_result_tee_callback(world: World) -> None:
    consumer = recorder(world)
    taskid = task_id(completes(world, "scheduler", callback=consumer), 0)
    told = encode(["bytes32", "bytes"], [taskid, CALLBACK])
    assert recorded(world, consumer)[0] == keccak(keccak(b"receiveResult(bytes32,bytes)")[:4] + told)


def test_push_result_tee_with_contribution_authorization_signed_by_scheduler(world: World) -> None:
    completes(world, "scheduler")


def test_push_result_tee_with_contribution_authorization_signed_by_broker(world: World, broker: str) -> None:
    completes(world, broker)


# ---- Claim -------------------------------------------------------------------------------------------------


def refunds(world: World, payer: str) -> None:
    with moves(world) as moved:
        dealid = boost(world, tee(world), payer)
        world.chain.at(world.hub.viewDealBoost(dealid).deadline)
        act(world, "worker", "claimBoost", dealid, 0)
    assert moved == {"scheduler": (-STAKE, 0), "kitty": (0, STAKE)}


def test_refund_requester_on_claim_of_non_sponsored_deal_tee(world: World) -> None:
    refunds(world, "requester")


def test_refund_sponsor_on_claim_of_a_sponsored_deal_tee(world: World) -> None:
    refunds(world, "sponsor")
