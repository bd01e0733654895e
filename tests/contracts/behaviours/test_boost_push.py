"""pushResultBoost (poco.md §10)."""

from __future__ import annotations

from typing import Any

import pytest
from eth_abi.abi import encode

from sealdeal.model.deals import task_id
from sealdeal.model.types import ZERO, ZERO32, Address, address, keccak
from tests.contracts.behaviours.boost import boost, push, pushing, refusal, refused_push
from tests.contracts.behaviours.stage import (
    BAD_FORMAT,
    COMPLETED,
    PRICE,
    RESULTS,
    SCHEDULER_REWARD,
    STAKE,
    WORKER_REWARD,
    act,
    answer,
    answering,
    burner,
    moves,
    recorded,
    recorder,
    refused,
    reward,
    seize,
    task_of,
    tuples,
    unlock,
    with_sign,
)
from tests.contracts.world import APP_PRICE, DATASET_PRICE, Refused, World, panic

pytestmark = pytest.mark.needs("pushResultBoost")

CALLBACK = b"what the callback gets"
INVALID_AUTHORISATION = refusal("Invalid contribution authorization signature")


def deal_of(world: World, *, payer: str = "requester", **options: Any) -> bytes:
    """A boost deal with a dataset."""
    return boost(world, world.four(dataset=True, **options), payer)


def settles(world: World, dealid: bytes, index: int = 0, kitty: int = 0, **options: Any) -> None:
    """A push pays everyone in one transaction; of the task nothing is kept but its status."""
    taskid = task_id(dealid, index)
    with moves(world) as moved:
        done = push(world, dealid, index, **options)
    share = SCHEDULER_REWARD + kitty
    assert moved == {
        "requester": (0, -PRICE),
        "app": (APP_PRICE, 0),
        "dataset": (DATASET_PRICE, 0),
        "worker": (WORKER_REWARD, 0),
        "scheduler": (STAKE + share, -STAKE),
    } | ({"kitty": (0, -kitty)} if kitty else {})
    assert done.events == [
        *seize(world, "requester", PRICE, taskid),
        *reward(world, "worker", WORKER_REWARD, taskid),
        *reward(world, "app", APP_PRICE, taskid),
        *reward(world, "dataset", DATASET_PRICE, taskid),
        *unlock(world, "scheduler", STAKE),
        *(seize(world, "kitty", kitty, taskid) if kitty else []),
        *reward(world, "scheduler", share, taskid),
        ("ResultPushedBoost", dealid, index, RESULTS),
    ]
    task = task_of(world, taskid)
    assert task.status == COMPLETED
    assert {task[n] for n in ("dealid", "consensusValue", "resultDigest")} == {ZERO32}
    assert (task.results, task.contributors, task.timeref) == (b"", [], 0)
    assert world.hub.resultFor(taskid) == b""


# ---- What is paid ------------------------------------------------------------------------------------------


def test_push_result_tee_callback(world: World) -> None:
    consumer = recorder(world)
    dealid = deal_of(world, tee=True, request={"callback": consumer})
    settles(world, dealid, tee=True, callback=CALLBACK)
    told = encode(["bytes32", "bytes"], [task_id(dealid, 0), CALLBACK])
    hashed, gas = recorded(world, consumer)
    assert hashed == keccak(keccak(b"receiveResult(bytes32,bytes)")[:4] + told)
    assert 99_900 < gas < 100_000


def test_push_result_tee_with_contribution_authorization_signed_by_scheduler(world: World) -> None:
    settles(world, deal_of(world, tee=True), tee=True)


def test_push_result_tee_with_contribution_authorization_signed_by_broker(world: World, broker: str) -> None:
    settles(world, deal_of(world, tee=True), tee=True, signer=broker)


def test_push_result(world: World) -> None:
    """The second task of a bag, in the second part of its request: its index is still 1."""
    app, dataset, _, request = world.four(dataset=True, volume=4)
    for _ in range(2):
        dealid = boost(world, (app, dataset, world.signed(world.pool_order(volume=2)), request))
    assert world.hub.viewDealBoost(dealid).botFirst == 2
    settles(world, dealid, 1)


def pushes_whatever_the_callback_does(world: World, target: Address) -> None:
    settles(world, deal_of(world, request={"callback": target}), callback=CALLBACK)


def test_push_result_even_if_callback_target_is_not_a_contract(world: World) -> None:
    pushes_whatever_the_callback_does(world, address("0x" + "cc" * 20))


def test_push_result_even_if_callback_reverts(world: World) -> None:
    pushes_whatever_the_callback_does(world, answering(world, b"no", revert=True))


def test_push_result_even_if_callback_consumes_maximum_gas(world: World) -> None:
    pushes_whatever_the_callback_does(world, burner(world))


# ---- What is refused ---------------------------------------------------------------------------------------


def test_not_push_result_if_wrong_deal_id(world: World) -> None:
    assert refused_push(world, keccak(deal_of(world))) == refusal("Unknown task")


def test_not_push_result_if_out_of_range_task_index(world: World) -> None:
    dealid = deal_of(world, volume=2)
    for index in (2, 2**256 - 1):
        assert refused_push(world, dealid, index) == refusal("Unknown task")


def test_not_push_result_twice(world: World) -> None:
    dealid = deal_of(world)
    push(world, dealid)
    assert refused_push(world, dealid) == refusal("Task status not unset")


def test_not_push_result_after_deadline(world: World) -> None:
    dealid = deal_of(world)
    deadline = world.hub.viewDealBoost(dealid).deadline
    world.chain.at(deadline - 1)
    answer(world, "worker", "pushResultBoost", *pushing(world, dealid))
    world.chain.at(deadline)
    assert refused_push(world, dealid) == refusal("Deadline reached")


def test_not_push_result_without_enclave_challenge_for_tee_task(world: World) -> None:
    assert refused_push(world, deal_of(world, tee=True)) == refusal("Tag requires enclave challenge")


def test_not_push_result_with_invalid_scheduler_signature(world: World) -> None:
    dealid = deal_of(world)
    assert refused_push(world, dealid, signer="worker") == INVALID_AUTHORISATION
    arguments = pushing(world, dealid)
    assert refused(world, "worker2", "pushResultBoost", *arguments) == INVALID_AUTHORISATION
    short = (*arguments[:4], arguments[4][:63], *arguments[5:])
    assert refused(world, "worker", "pushResultBoost", *short) == BAD_FORMAT


def test_not_push_result_with_invalid_broker_signature(world: World, broker: str) -> None:
    dealid = deal_of(world, tee=True)
    for signer in ("scheduler", "worker"):
        assert refused_push(world, dealid, tee=True, signer=signer) == INVALID_AUTHORISATION


def test_not_push_result_with_invalid_enclave_signature(world: World) -> None:
    """Of another enclave, or of other results."""
    dealid = deal_of(world, tee=True)
    *mine, sign = pushing(world, dealid, tee=True)
    others = pushing(world, dealid, tee=True, enclave="stranger")[-1]
    for arguments in ((*mine, others), (*mine[:2], b"other results", *mine[3:], sign)):
        expected = refusal("Invalid enclave signature")
        assert refused(world, "worker", "pushResultBoost", *arguments) == expected


def test_not_push_result_with_missing_data_for_callback(world: World) -> None:
    dealid = deal_of(world, request={"callback": recorder(world)})
    assert refused_push(world, dealid) == refusal("Callback requires data")


def test_not_push_result_without_enough_gas_for_callback(world: World) -> None:
    act(world, "owner", "setCallbackGas", 10_000_000)
    dealid = deal_of(world, request={"callback": burner(world)})
    arguments = pushing(world, dealid, callback=CALLBACK)
    with pytest.raises(Refused) as caught:
        world.hub.send("pushResultBoost", *arguments, sender=world.who("worker"), gas=5_000_000)
    assert caught.value.data == refusal("Not enough gas after callback")
    act(world, "worker", "pushResultBoost", *arguments)


# ---- Beyond the list ---------------------------------------------------------------------------------------


def test_the_scheduler_gets_its_kitty_share_in_the_same_payment(world: World) -> None:
    lost = deal_of(world)
    world.chain.at(world.hub.viewDealBoost(lost).deadline)
    act(world, "stranger", "claimBoost", lost, 0)
    settles(world, deal_of(world), kitty=STAKE // 10)


def test_a_sponsored_deal_of_a_requester_without_locks(world: World) -> None:
    """The official hub would take the price from the requester, and cannot; ours from the sponsor."""
    dealid = deal_of(world, payer="sponsor")
    if world.suite == "official":
        assert refused_push(world, dealid) == panic(0x11)
    else:
        with moves(world) as moved:
            push(world, dealid)
        assert moved["sponsor"] == (0, -PRICE)
        assert "requester" not in moved


def test_a_sponsored_deal_of_a_requester_with_locks_for_another(world: World) -> None:
    """The official hub spends them: the other deal's money can then not come back."""
    own = world.task(dataset=True)
    with moves(world) as moved:
        push(world, deal_of(world, payer="sponsor"))
    spent = (-PRICE, PRICE), (0, -PRICE)
    world.chain.at(task_of(world, own).finalDeadline)
    if world.suite == "official":
        assert (moved["sponsor"], moved["requester"]) == spent
        assert refused(world, "stranger", "claim", own) == panic(0x11)
    else:
        assert moved["sponsor"] == (-PRICE, 0)
        assert "requester" not in moved
        act(world, "stranger", "claim", own)


def test_a_sponsored_deal_of_the_zero_address(world: World) -> None:
    """Made by the official hub only; there is nobody to seize its price from."""
    orders = with_sign(world.four(request={"requester": ZERO}), "Request", b"\x07" * 65)
    if world.suite == "official":
        assert refused_push(world, boost(world, orders, "sponsor")) == panic(0x11)
    else:
        arguments = tuples(orders)
        invalid = refusal("Invalid request order signature")
        assert refused(world, "sponsor", "sponsorMatchOrdersBoost", *arguments) == invalid
