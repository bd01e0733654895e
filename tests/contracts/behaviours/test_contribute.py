"""contribute (poco.md §8)."""

from __future__ import annotations

from typing import Any

from tests.contracts.behaviours.stage import (
    ACTIVE,
    BAD_FORMAT,
    NO_DATA,
    REVEALING,
    TOO_POOR,
    WORKER_STAKE,
    act,
    contribution,
    later,
    lock,
    moves,
    refused,
    task_of,
    trusting,
)
from tests.contracts.world import TIMEREF, World


def contributes(world: World, taskid: bytes, worker: str = "worker", *, last: bool, **options: Any) -> None:
    """A contribution locks a stake, is recorded and told; the last one makes the consensus."""
    arguments = contribution(world, taskid, worker=worker, **options)
    _, hashed, seal, challenge, *_ = arguments
    before = task_of(world, taskid)
    with moves(world) as moved:
        done = act(world, worker, "contribute", *arguments)
    who = world.who(worker)
    assert moved == {worker: (-WORKER_STAKE, WORKER_STAKE)}
    assert done.events == [
        *lock(world, worker, WORKER_STAKE),
        ("TaskContribute", taskid, who, hashed),
        *([("TaskConsensus", taskid, hashed)] if last else []),
    ]
    assert world.hub.viewContribution(taskid, who) == {
        "status": 1,
        "resultHash": hashed,
        "resultSeal": seal,
        "enclaveChallenge": challenge,
        "weight": 1,
    }
    changed: dict[str, Any] = {"contributors": [*before.contributors, who]}
    if last:
        changed |= {
            "status": REVEALING,
            "consensusValue": hashed,
            "revealDeadline": world.chain.now() + 2 * TIMEREF,
            "winnerCounter": len(before.contributors) + 1,
        }
    assert task_of(world, taskid) == before | changed


def refuses(world: World, taskid: bytes, expected: bytes = NO_DATA, **options: Any) -> None:
    arguments = contribution(world, taskid, **options)
    assert refused(world, options.get("worker", "worker"), "contribute", *arguments) == expected


def test_contribute_tee_task_with_multiple_workers_and_broker(world: World, broker: str) -> None:
    taskid = world.task(tee=True, **trusting(3))
    contributes(world, taskid, last=False, tee=True, signer=broker)
    contributes(world, taskid, "worker2", last=True, tee=True, signer=broker)


def test_contribute_tee_task_with_one_worker(world: World) -> None:
    """Without a broker the scheduler authorises enclaves."""
    contributes(world, world.task(tee=True), last=True, tee=True)


def test_contribute_standard_task(world: World) -> None:
    contributes(world, world.task(), last=True)


def test_not_contribute_when_task_not_active(world: World) -> None:
    dealid = world.deal(volume=2)
    taskid = world.first_task(dealid)
    world.contribute(taskid)
    refuses(world, taskid, worker="worker2")
    refuses(world, dealid)  # no task of this id
    assert task_of(world, taskid).status == REVEALING


def test_not_contribute_after_deadline(world: World) -> None:
    taskid = world.task()
    later(world, task_of(world, taskid).dealid, 7)
    refuses(world, taskid)


def test_not_contribute_twice(world: World) -> None:
    taskid = world.task(**trusting(3))
    world.contribute(taskid)
    refuses(world, taskid)
    assert task_of(world, taskid).status == ACTIVE


def test_not_contribute_when_enclave_challenge_for_tee_task_is_missing(world: World) -> None:
    refuses(world, world.task(tee=True))


def test_not_contribute_when_scheduler_signature_is_invalid(world: World) -> None:
    taskid = world.task()
    refuses(world, taskid, signer="worker")
    *rest, sign = contribution(world, taskid)
    assert refused(world, "worker", "contribute", *rest, sign[:63]) == BAD_FORMAT
    assert refused(world, "worker2", "contribute", *rest, sign) == NO_DATA  # another's authorisation


def test_not_contribute_when_enclave_signature_is_invalid(world: World) -> None:
    taskid = world.task(tee=True)
    hashed, *_, sign, authorisation = contribution(world, taskid, tee=True)[1:]
    others = contribution(world, taskid, worker="worker2", tee=True)
    arguments = (taskid, hashed, others[2], others[3], sign, authorisation)
    assert refused(world, "worker", "contribute", *arguments) == NO_DATA


def test_not_contribute_when_no_deposit(world: World) -> None:
    taskid = world.task()
    act(world, "worker", "withdraw", world.account("worker")[0] - WORKER_STAKE + 1)
    refuses(world, taskid, TOO_POOR)


def test_an_enclave_is_authorised_by_the_broker_alone(world: World, broker: str) -> None:
    taskid = world.task(tee=True)
    refuses(world, taskid, tee=True, signer="scheduler")
    refuses(world, world.task(), signer=broker)  # where there is no enclave, the scheduler alone
