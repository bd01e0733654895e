"""finalize: settlement, the kitty, callbacks (poco.md §8, §9)."""

from __future__ import annotations

import pytest
from eth_abi.abi import encode

from sealdeal.model.types import RLC, address, keccak
from tests.contracts.behaviours.stage import (
    COMPLETED,
    NO_DATA,
    PRICE,
    RESULTS,
    SCHEDULER_REWARD,
    STAKE,
    WORKER_REWARD,
    WORKER_STAKE,
    Agreed,
    act,
    finalize,
    install,
    later,
    moves,
    payment,
    recorded,
    recorder,
    refused,
    reveal,
    revealed,
    revealing,
    reward,
    seize,
    task_of,
    trusting,
    tuples,
    unlock,
)
from tests.contracts.world import APP_PRICE, DATASET_PRICE, POOL_PRICE, SCHEDULER_RATIO, World

CALLBACK = b"what the callback gets"
PROMISE = keccak(CALLBACK)


def refuses(
    world: World, taskid: bytes, by: str = "scheduler", results: bytes = RESULTS, callback: bytes = b""
) -> None:
    assert refused(world, by, "finalize", taskid, results, callback) == NO_DATA


def promised(world: World, target: str) -> bytes:
    """A task whose worker has revealed the hash of the callback's data, to be sent to the target."""
    taskid = world.task(request={"callback": target})
    world.contribute(taskid, digest=PROMISE)
    reveal(world, taskid, digest=PROMISE)
    return taskid


def test_finalize_task_of_deal_payed_by_sponsor(world: World) -> None:
    consumer = recorder(world)
    agreed = Agreed(world.four(dataset=True, request={"callback": consumer}), payer="sponsor")
    act(world, "sponsor", "sponsorMatchOrders", *tuples(agreed.orders))
    taskid = world.first_task(agreed.dealid(world))
    world.contribute(taskid, digest=PROMISE)
    reveal(world, taskid, digest=PROMISE)
    before = task_of(world, taskid)
    with moves(world) as moved:
        done = finalize(world, taskid, callback=CALLBACK)
    assert moved == {
        "sponsor": (0, -PRICE),
        "app": (APP_PRICE, 0),
        "dataset": (DATASET_PRICE, 0),
        "scheduler": (STAKE + SCHEDULER_REWARD, -STAKE),
        "worker": (WORKER_STAKE + WORKER_REWARD, -WORKER_STAKE),
    }
    assert done.events == [
        *payment(world, taskid, payer="sponsor"),
        *unlock(world, "worker", WORKER_STAKE),
        *reward(world, "worker", WORKER_REWARD, taskid),
        *reward(world, "scheduler", SCHEDULER_REWARD, taskid),
        ("TaskFinalize", taskid, RESULTS),
    ]
    ended = {"status": COMPLETED, "results": RESULTS, "resultsCallback": CALLBACK}
    assert task_of(world, taskid) == before | ended
    call = keccak(b"receiveResult(bytes32,bytes)")[:4] + encode(["bytes32", "bytes"], [taskid, CALLBACK])
    hashed, gas = recorded(world, consumer)
    assert hashed == keccak(call)
    assert 99_900 < gas < 100_000  # callbackgas, less what the consumer used to read it
    assert world.hub.viewScore(world.who("worker")) == 0


def test_finalize_task_of_deal_payed_by_requester(world: World) -> None:
    taskid = revealed(world)
    before = task_of(world, taskid)
    with moves(world) as moved:
        done = finalize(world, taskid)
    assert moved == {
        "requester": (0, DATASET_PRICE - PRICE),
        "app": (APP_PRICE, 0),
        "scheduler": (STAKE + SCHEDULER_REWARD, -STAKE),
        "worker": (WORKER_STAKE + WORKER_REWARD, -WORKER_STAKE),
    }
    assert done.events == [
        *payment(world, taskid, dataset=False),
        *unlock(world, "worker", WORKER_STAKE),
        *reward(world, "worker", WORKER_REWARD, taskid),
        *reward(world, "scheduler", SCHEDULER_REWARD, taskid),
        ("TaskFinalize", taskid, RESULTS),
    ]
    assert task_of(world, taskid) == before | {"status": COMPLETED, "results": RESULTS}


def test_finalize_task_when_callback_address_is_eoa(world: World) -> None:
    taskid = promised(world, address("0x" + "cc" * 20))
    finalize(world, taskid, callback=CALLBACK)
    assert task_of(world, taskid).status == COMPLETED


def test_finalize_task_when_callback_address_is_non_eip1154_contract(world: World) -> None:
    """One that has no such function and reverts, and one that is a token."""
    for target in (install(world, bytes.fromhex("5f5ffd")), world.token.address):
        taskid = promised(world, target)
        finalize(world, taskid, callback=CALLBACK)
        assert task_of(world, taskid).status == COMPLETED


@pytest.mark.parametrize(
    ("filled", "share"),
    [(6 * RLC // 10, 6 * RLC // 10), (6 * RLC, RLC), (60 * RLC, 6 * RLC)],
    ids=["all of less than 1 RLC", "1 RLC at least", "a tenth"],
)
def test_finalize_task_with_scheduler_kitty_part_reward_where(world: World, filled: int, share: int) -> None:
    price = filled * 100 // 30
    lost = world.task(pool={"workerpoolprice": price}, request={"workerpoolmaxprice": price})
    later(world, task_of(world, lost).dealid, 10)
    act(world, "stranger", "claim", lost)
    taskid = revealed(world)
    with moves(world) as moved:
        done = finalize(world, taskid)
    assert moved["kitty"] == (0, -share)
    assert moved["scheduler"] == (STAKE + SCHEDULER_REWARD + share, -STAKE)
    assert done.events == [
        *payment(world, taskid, dataset=False),
        *seize(world, "kitty", share, taskid),
        *reward(world, "scheduler", share, taskid),
        *unlock(world, "worker", WORKER_STAKE),
        *reward(world, "worker", WORKER_REWARD, taskid),
        *reward(world, "scheduler", SCHEDULER_REWARD, taskid),
        ("TaskFinalize", taskid, RESULTS),
    ]


def test_finalize_task_after_reveal_deadline_with_at_least_one_reveal(world: World) -> None:
    """The silent lose their stake to those who revealed, and a third of a score that they do not have yet."""
    taskid = revealing(world, "worker", "worker2", **trusting(3))
    reveal(world, taskid, "worker2")
    world.chain.at(task_of(world, taskid).revealDeadline)
    total = POOL_PRICE + WORKER_STAKE
    pot = total * (100 - SCHEDULER_RATIO) // 100
    with moves(world) as moved:
        done = finalize(world, taskid)
    assert moved == {
        "requester": (0, DATASET_PRICE - PRICE),
        "app": (APP_PRICE, 0),
        "worker": (0, -WORKER_STAKE),
        "worker2": (WORKER_STAKE + pot, -WORKER_STAKE),
        "scheduler": (STAKE + total - pot, -STAKE),
    }
    assert [e for e in done.events if e[0].endswith("Contribution")] == [
        ("FaultyContribution", world.who("worker"), taskid),
        ("AccurateContribution", world.who("worker2"), taskid),
    ]
    assert [world.hub.viewScore(world.who(w)) for w in ("worker", "worker2")] == [0, 1]


def test_not_finalize_when_caller_is_not_scheduler(world: World) -> None:
    taskid = revealed(world)
    for role in ("worker", "requester", "owner"):
        refuses(world, taskid, role)


def test_not_finalize_task_when_task_status_is_not_revealing(world: World) -> None:
    taskid = world.task(**trusting(3))
    world.contribute(taskid)
    refuses(world, taskid)
    done = revealed(world)
    finalize(world, done)
    refuses(world, done)


def test_not_finalize_task_after_final_deadline(world: World) -> None:
    taskid = revealed(world)
    later(world, task_of(world, taskid).dealid, 10)
    refuses(world, taskid)


def test_not_finalize_when_winner_counter_is_not_reached_nor_at_least_one_worker_revealed(
    world: World,
) -> None:
    taskid = revealing(world, "worker", "worker2", **trusting(3))
    with world.chain.undone():
        reveal(world, taskid)
        refuses(world, taskid)  # one of two, before the deadline
    world.chain.at(task_of(world, taskid).revealDeadline)
    refuses(world, taskid)  # none, after it


def test_not_finalize_task_when_resultscallback_is_not_expected(world: World) -> None:
    """A deal without callback takes callback data only if its hash is what was revealed."""
    refuses(world, revealed(world), callback=CALLBACK)
    taskid = world.task()
    world.contribute(taskid, digest=PROMISE)
    reveal(world, taskid, digest=PROMISE)
    finalize(world, taskid, callback=CALLBACK)
    assert world.hub.resultFor(taskid) == CALLBACK


def test_not_finalize_task_when_result_callback_is_bad(world: World) -> None:
    taskid = promised(world, recorder(world))
    for callback in (b"", CALLBACK + b"!"):
        refuses(world, taskid, callback=callback)
    finalize(world, taskid, callback=CALLBACK)
