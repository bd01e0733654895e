"""contributeAndFinalize (poco.md §8, §9)."""

from __future__ import annotations

from typing import Any

import pytest
from eth_abi.abi import encode

from sealdeal.model.deals import result_hash, result_seal
from sealdeal.model.types import ZERO, Address, keccak
from tests.contracts.behaviours.stage import (
    BAD_FORMAT,
    COMPLETED,
    NO_DATA,
    PRICE,
    RESULTS,
    SCHEDULER_REWARD,
    STAKE,
    WORKER_REWARD,
    act,
    later,
    moves,
    payment,
    recorded,
    recorder,
    refused,
    reward,
    task_of,
    trusting,
)
from tests.contracts.world import APP_PRICE, DATASET_PRICE, TIMEREF, World

CALLBACK = b"what the callback gets"


def completes(world: World, taskid: bytes, callback: bytes = b"", **options: Any) -> None:
    """One transaction contributes, agrees, reveals and settles; a worker needs no stake for it."""
    act(world, "worker", "withdraw", world.account("worker")[0])
    arguments = world.direct_arguments(taskid, RESULTS, callback, **options)
    before, digest, enclave = task_of(world, taskid), arguments[1], arguments[4]
    with moves(world) as moved:
        done = act(world, "worker", "contributeAndFinalize", *arguments)
    worker = world.who("worker")
    hashed = result_hash(taskid, digest)
    assert moved == {
        "requester": (0, -PRICE),
        "app": (APP_PRICE, 0),
        "dataset": (DATASET_PRICE, 0),
        "scheduler": (STAKE + SCHEDULER_REWARD, -STAKE),
        "worker": (WORKER_REWARD, 0),
    }
    assert done.events == [
        *payment(world, taskid),
        *reward(world, "worker", WORKER_REWARD, taskid),
        *reward(world, "scheduler", SCHEDULER_REWARD, taskid),
        ("TaskContribute", taskid, worker, hashed),
        ("TaskConsensus", taskid, hashed),
        ("TaskReveal", taskid, worker, digest),
        ("TaskFinalize", taskid, RESULTS),
    ]
    assert task_of(world, taskid) == before | {
        "status": COMPLETED,
        "consensusValue": hashed,
        "revealDeadline": world.chain.now() + 2 * TIMEREF,
        "revealCounter": 1,
        "winnerCounter": 1,
        "contributors": [worker],
        "resultDigest": digest,
        "results": RESULTS,
        "resultsCallback": callback,
    }
    assert world.hub.viewContribution(taskid, worker) == {
        "status": 2,
        "resultHash": hashed,
        "resultSeal": result_seal(worker, taskid, digest),
        "enclaveChallenge": enclave,
        "weight": 0,
    }
    assert world.hub.viewScore(worker) == 0


def refuses(world: World, taskid: bytes, callback: bytes = b"", **options: Any) -> None:
    arguments = world.direct_arguments(taskid, RESULTS, callback, **options)
    assert refused(world, "worker", "contributeAndFinalize", *arguments) == NO_DATA


@pytest.fixture
def consumer(world: World) -> Address:
    """A contract that gets results."""
    return recorder(world)


def test_contributeandfinalize_tee_task_with_broker_callback_and_a_single_worker(
    world: World, broker: str, consumer: Address
) -> None:
    taskid = world.task(dataset=True, tee=True, request={"callback": consumer})
    completes(world, taskid, CALLBACK, tee=True, signer=broker)
    call = keccak(b"receiveResult(bytes32,bytes)")[:4] + encode(["bytes32", "bytes"], [taskid, CALLBACK])
    assert recorded(world, consumer)[0] == keccak(call)
    assert world.hub.resultFor(taskid) == CALLBACK


def test_contributeandfinalize_standard_task_with_a_single_worker(world: World) -> None:
    completes(world, world.task(dataset=True))


def test_not_contributeandfinalize_when_task_is_not_active(world: World) -> None:
    dealid = world.deal()
    refuses(world, keccak(dealid))
    taskid = world.first_task(dealid)
    world.direct(taskid, RESULTS)
    refuses(world, taskid)


def test_not_contributeandfinalize_after_deadline(world: World) -> None:
    taskid = world.task()
    later(world, task_of(world, taskid).dealid, 7)
    refuses(world, taskid)


def test_not_contributeandfinalize_when_someone_else_has_already_contributed(world: World) -> None:
    """With trust 1 that is after a reopen only, since the first contribution ends the active phase."""
    taskid = world.task()
    world.contribute(taskid, "worker2")
    refuses(world, taskid)
    world.chain.at(task_of(world, taskid).revealDeadline)
    act(world, "scheduler", "reopen", taskid)
    refuses(world, taskid)


def test_not_contributeandfinalize_when_trust_is_above_1(world: World) -> None:
    """0 is recorded as 1."""
    refuses(world, world.task(**trusting(2)))
    world.direct(world.task(**trusting(0)), RESULTS)


def test_not_contributeandfinalize_when_result_digest_does_not_match_callback_data_hash(
    world: World, consumer: Address
) -> None:
    taskid = world.task(request={"callback": consumer})
    refuses(world, taskid, CALLBACK, digest=keccak(b"other data"))
    refuses(world, taskid)
    refuses(world, world.task(), CALLBACK, digest=keccak(b"other data"))  # without a callback as well


def test_not_contributeandfinalize_when_enclave_challenge_is_missing(world: World) -> None:
    refuses(world, world.task(tee=True))


def test_not_contributeandfinalize_when_scheduler_signature_is_invalid(world: World) -> None:
    taskid = world.task()
    refuses(world, taskid, signer="worker")
    *rest, sign = world.direct_arguments(taskid, RESULTS)
    assert refused(world, "worker", "contributeAndFinalize", *rest, sign[:63]) == BAD_FORMAT


def test_not_contributeandfinalize_when_authorization_is_not_signed_by_tee_broker(
    world: World, broker: str
) -> None:
    taskid = world.task(tee=True)
    refuses(world, taskid, tee=True, signer="scheduler")
    world.direct(taskid, RESULTS, tee=True, signer=broker)


def test_not_contributeandfinalize_when_enclave_signature_is_invalid(world: World) -> None:
    taskid = world.task(tee=True)
    *given, _, authorisation = world.direct_arguments(taskid, RESULTS, tee=True)
    others = world.direct_arguments(taskid, RESULTS, tee=True, enclave="stranger")
    assert given[4] != ZERO
    assert refused(world, "worker", "contributeAndFinalize", *given, others[5], authorisation) == NO_DATA
