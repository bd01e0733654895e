"""The life of tasks: contributions, consensus, results, claims, settlement (poco.md §8, §9)."""

from __future__ import annotations

from typing import Any

import pytest
from eth_abi.abi import encode

from sealdeal.model.deals import (
    KITTY,
    Grant,
    authorisation_blob,
    quorum_domain,
    result_hash,
    result_seal,
    task_id,
)
from sealdeal.model.eip712 import digest as typed_digest
from sealdeal.model.keys import message_digest
from sealdeal.model.types import RLC, ZERO, Address, address, keccak
from tests.contracts.world import (
    APP_PRICE,
    CHAIN_ID,
    POOL_PRICE,
    TIMEREF,
    Contract,
    Refused,
    World,
    code,
    key,
    panic,
    refusal,
    text,
)

RESULTS = b'{ "storage": "ipfs", "location": "/ipfs/QmUbh7ugQ9WVprTVYjzrCS4d9cCy73zUz4MMchsrqzzu1w" }'
DIGEST = keccak(b"result")
BAD_FORMAT = text("invalid-signature-format")
PRICE = APP_PRICE + POOL_PRICE
STAKE = POOL_PRICE * 30 // 100
WORKER_STAKE = POOL_PRICE * 35 // 100
UNSET, ACTIVE, REVEALING, COMPLETED, FAILED = range(5)


def start_of(world: World, taskid: bytes) -> int:
    return int(world.hub.viewDeal(world.hub.viewTask(taskid).dealid).startTime)


def reveal(world: World, taskid: bytes, worker: str = "worker", digest: bytes = DIGEST) -> Any:
    return world.hub.reveal(taskid, digest, sender=world.who(worker))


def finalize(world: World, taskid: bytes, results: bytes = RESULTS, callback: bytes = b"") -> Any:
    return world.hub.finalize(taskid, results, callback, sender=world.who("scheduler"))


def refused(world: World, function: str, *args: Any, by: str) -> bytes:
    return refusal(world.hub, function, *args, sender=world.who(by))


def contribution(world: World, taskid: bytes, **options: Any) -> tuple[Any, ...]:
    made = world.enclave(taskid, **options)
    return taskid, made.hash, made.seal, made.challenge, made.sign, made.authorization


# ---- Beginning ---------------------------------------------------------------------------------------------


def test_initialize(world: World) -> None:
    dealid = world.deal(volume=3)
    done = world.hub.initialize(dealid, 2)
    taskid = task_id(dealid, 2)
    assert done.events == [("TaskInitialize", taskid, world.pool)]
    start = world.hub.viewDeal(dealid).startTime
    task = world.hub.viewTask(taskid)
    assert (task.status, task.dealid, task.idx, task.timeref) == (ACTIVE, dealid, 2, TIMEREF)
    assert (task.contributionDeadline, task.revealDeadline) == (start + 7 * TIMEREF, 0)
    assert task.finalDeadline == start + 10 * TIMEREF
    for again in (2, 3, 2**255):
        assert refused(world, "initialize", dealid, again, by="worker") == b""
    assert world.hub.call("initialize", dealid, 0) == task_id(dealid, 0)
    assert refused(world, "initialize", keccak(b"no deal"), 0, by="worker") == b""


def test_tasks_of_a_later_part(world: World) -> None:
    app, dataset, _, request = world.four(app={"volume": 9}, request={"volume": 9})
    deals = [
        world.match((app, dataset, world.signed(world.pool_order(volume=n)), request))[0] for n in (4, 5)
    ]
    assert refused(world, "initialize", deals[0], 4, by="worker") == b""
    assert refused(world, "initialize", deals[1], 3, by="worker") == b""
    world.hub.initialize(deals[1], 4)
    world.hub.initialize(deals[1], 8)
    assert refused(world, "initialize", deals[1], 9, by="worker") == b""


def test_indices_of_wide_deals(world: World) -> None:
    dealid = world.deal(volume=70_000, app={"appprice": 0}, pool={"workerpoolprice": 0})
    taskid = world.first_task(dealid, 69_999)
    assert world.hub.viewTask(taskid).idx == 69_999
    assert refused(world, "initialize", dealid, 70_000, by="worker") == b""
    world.direct(taskid, RESULTS)


def test_arrays(world: World) -> None:
    first, second = world.deal(volume=2), world.deal(volume=2)
    done = world.hub.initializeArray([first, second], [1, 0])
    assert done.names == ["TaskInitialize"] * 2
    assert world.hub.call("initializeArray", [], []) is True
    assert refused(world, "initializeArray", [first], [], by="worker") == b""
    assert refused(world, "initializeArray", [first, first], [0, 1], by="worker") == b""
    late = world.hub.viewDeal(second).startTime + 10 * TIMEREF
    assert refused(world, "claimArray", [task_id(first, 1)], by="worker") == b""
    assert refused(world, "initializeAndClaimArray", [first], [0], by="worker") == b""
    world.chain.at(late)
    done = world.hub.claimArray([task_id(first, 1), task_id(second, 0)])
    assert done.names.count("TaskClaimed") == 2
    done = world.hub.initializeAndClaimArray([first, second], [0, 1])
    assert done.names.count("TaskInitialize") == done.names.count("TaskClaimed") == 2
    assert world.account("requester")[1] == world.account("scheduler")[1] == 0
    assert world.hub.call("claimArray", []) is True
    assert refused(world, "initializeAndClaimArray", [first], [], by="worker") == b""


def test_calldata_that_end_too_early_are_read_as_zeros(world: World) -> None:
    data = world.hub.encode("initializeArray", [], [])[:-1]
    assert world.chain.call(world.hub.address, data, world.who("stranger")) == encode(["bool"], [True])


def test_arrays_have_128_items_at_most(world: World) -> None:
    dealid = world.deal(volume=129)
    assert world.hub.call("initializeArray", [dealid] * 128, list(range(128))) is True
    assert refused(world, "initializeArray", [dealid] * 129, list(range(129)), by="worker") == b""


# ---- Contributing ------------------------------------------------------------------------------------------


def test_contribute(world: World) -> None:
    taskid = world.task()
    made = world.enclave(taskid)
    done = world.contribute(taskid)
    worker, hub = world.who("worker"), world.hub.address
    assert done.events == [
        ("Transfer", worker, hub, WORKER_STAKE),
        ("Lock", worker, WORKER_STAKE),
        ("TaskContribute", taskid, worker, made.hash),
        ("TaskConsensus", taskid, made.hash),
    ]
    task = world.hub.viewTask(taskid)
    assert (task.status, task.contributors, task.consensusValue) == (REVEALING, [worker], made.hash)
    assert (task.winnerCounter, task.revealCounter) == (1, 0)
    assert task.revealDeadline == done.timestamp + 2 * TIMEREF
    assert world.hub.viewContribution(taskid, worker) == {
        "status": 1,
        "resultHash": made.hash,
        "resultSeal": made.seal,
        "enclaveChallenge": ZERO,
        "weight": 1,
    }
    assert world.hub.viewContribution(taskid, world.who("worker2")).status == 0


def test_contribute_refusals_in_order(world: World) -> None:
    taskid = world.task(pool={"trust": 5}, request={"trust": 5})
    good = contribution(world, taskid)
    assert refused(world, "contribute", keccak(b"none"), *good[1:], by="worker") == b""
    assert refused(world, "contribute", *good, by="worker2") == b""  # authorised for another
    short = (*good[:5], b"\x01" * 64 + b"\x02\x03")
    assert refused(world, "contribute", *short, by="worker") == BAD_FORMAT
    world.contribute(taskid)
    assert refused(world, "contribute", *short, by="worker") == b""  # a second one, before the signature
    world.contribute(taskid, "worker2")
    world.contribute(taskid, "worker3")
    assert world.hub.viewTask(taskid).status == REVEALING
    late = contribution(world, taskid, worker="worker4")
    assert refused(world, "contribute", *late, by="worker4") == b""


def test_contribute_until_the_deadline(world: World) -> None:
    taskid = world.task()
    deadline = world.hub.viewTask(taskid).contributionDeadline
    with world.chain.undone():
        world.chain.at(deadline - 2)
        world.contribute(taskid)
    world.chain.at(deadline)
    assert refused(world, "contribute", *contribution(world, taskid), by="worker") == b""
    direct = world.direct_arguments(taskid, RESULTS)
    assert refused(world, "contributeAndFinalize", *direct, by="worker") == b""


def test_a_worker_without_stake(world: World) -> None:
    taskid = world.task()
    free = world.account("worker")[0]
    world.hub.withdraw(free - WORKER_STAKE + 1, sender=world.who("worker"))
    poor = text("IexecEscrow: Transfer amount exceeds balance")
    assert refused(world, "contribute", *contribution(world, taskid), by="worker") == poor
    world.direct(taskid, RESULTS)  # needs none


def test_a_task_has_63_contributors_at_most(world: World) -> None:
    taskid = world.task(pool={"workerpoolprice": 0, "trust": 5}, request={"trust": 5})
    for number in range(63):
        role = f"crowd{number}"
        world.keys[role] = key(role)
        world.contribute(taskid, role, digest=keccak(role.encode()))  # no two agree
    assert len(world.hub.viewTask(taskid).contributors) == 63
    full = text("tasks: too many contributors")
    assert refused(world, "contribute", *contribution(world, taskid), by="worker") == full


# ---- Authorisation and enclaves ----------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["contribute", "contributeAndFinalize"])
def test_enclaves_and_authorisations(world: World, way: str) -> None:
    taskid = world.task(tee=True)

    def arguments(**options: Any) -> tuple[Any, ...]:
        if way == "contribute":
            return contribution(world, taskid, **options)
        return world.direct_arguments(taskid, RESULTS, **options)

    def fails(*args: Any) -> bytes:
        return refused(world, way, *args, by="worker")

    assert fails(*arguments()) == b""  # the tag asks for an enclave
    assert fails(*arguments(tee=True, signer="stranger")) == b""
    assert fails(*arguments(tee=True, worker="worker2")) == b""
    good = arguments(tee=True)
    assert fails(*good[:-2], b"\x01" * 65, good[-1]) == b""  # the enclave's signature
    assert fails(*good[:-2], b"", good[-1]) == BAD_FORMAT
    assert fails(*good[:-2], b"", b"") == BAD_FORMAT
    assert fails(*good[:-2], b"", b"\x01" * 65) == b""  # the authorisation comes first
    world.hub.call(way, *good, sender=world.who("worker"))

    world.hub.setTeeBroker(world.who("broker"))
    assert fails(*good) == b""  # now the broker authorises
    world.hub.call(way, *arguments(tee=True, signer="broker"), sender=world.who("worker"))


def test_the_broker_has_no_say_without_an_enclave(world: World) -> None:
    world.hub.setTeeBroker(world.who("broker"))
    world.contribute(world.task())
    taskid = world.task()
    assert refused(world, "contribute", *contribution(world, taskid, signer="broker"), by="worker") == b""


def test_an_enclave_may_contribute_where_none_is_asked_for(world: World) -> None:
    taskid = world.task()
    world.contribute(taskid, tee=True)
    seen = world.hub.viewContribution(taskid, world.who("worker"))
    assert seen.enclaveChallenge == world.who("enclave")


def test_a_quorum_as_broker(world: World) -> None:
    nodes = sorted(
        (world.keys[n] for n in ("worker2", "worker3", "worker4")), key=lambda k: int(k.address, 16)
    )
    members = [n.address for n in nodes]
    arguments = encode(["address[]", "uint256", "uint256", "string"], [members, 2, 600, "simulated"])
    quorum = world.chain.deploy(code("Quorum") + arguments, world.owner.address)
    world.hub.setTeeBroker(quorum)
    taskid = world.task(tee=True)
    made = world.enclave(taskid, tee=True)
    asked = message_digest(
        keccak(bytes.fromhex(world.who("worker")[2:]) + taskid + bytes.fromhex(made.challenge[2:]))
    )
    until = world.chain.now() + 60
    signed = typed_digest(quorum_domain(CHAIN_ID, quorum), Grant(asked, until))

    def fill(count: int) -> tuple[Any, ...]:
        blob = authorisation_blob(until, {n.address: n.sign_digest(signed) for n in nodes[:count]})
        return taskid, made.digest, RESULTS, b"", made.challenge, made.sign, blob

    assert refused(world, "contributeAndFinalize", *fill(1), by="worker") == b""
    assert refused(world, "contributeAndFinalize", *fill(2), by="worker2") == b""
    world.hub.contributeAndFinalize(*fill(2), sender=world.who("worker"))
    assert world.hub.viewTask(taskid).status == COMPLETED


# ---- Revealing ---------------------------------------------------------------------------------------------


def test_reveal(world: World) -> None:
    taskid = world.task()
    assert refused(world, "reveal", taskid, DIGEST, by="worker") == b""
    world.contribute(taskid)
    assert refused(world, "reveal", taskid, keccak(b"other"), by="worker") == b""
    assert refused(world, "reveal", taskid, DIGEST, by="worker2") == b""
    done = reveal(world, taskid)
    assert done.events == [("TaskReveal", taskid, world.who("worker"), DIGEST)]
    task = world.hub.viewTask(taskid)
    assert (task.revealCounter, task.resultDigest) == (1, DIGEST)
    assert world.hub.viewContribution(taskid, world.who("worker")).status == 2
    assert refused(world, "reveal", taskid, DIGEST, by="worker") == b""


def test_reveal_until_its_deadline(world: World) -> None:
    taskid = world.task()
    world.contribute(taskid)
    world.chain.at(world.hub.viewTask(taskid).revealDeadline)
    assert refused(world, "reveal", taskid, DIGEST, by="worker") == b""


def test_a_copied_hash_cannot_be_revealed(world: World) -> None:
    """The seal binds a contribution to its worker."""
    taskid = world.task(pool={"trust": 4}, request={"trust": 4})
    made = world.enclave(taskid)
    copier = world.enclave(taskid, worker="worker2")
    world.contribute(taskid)
    arguments = (taskid, made.hash, made.seal, ZERO, b"", copier.authorization)
    world.hub.contribute(*arguments, sender=world.who("worker2"))
    assert refused(world, "reveal", taskid, DIGEST, by="worker2") == b""
    reveal(world, taskid)


# ---- Finalising --------------------------------------------------------------------------------------------


def test_worked_example(world: World) -> None:
    """Every payment of poco.md §9, in order, with a dataset."""
    taskid = world.task(dataset=True)
    before = {role: sum(world.account(role)) for role in World.ROLES}
    world.contribute(taskid)
    reveal(world, taskid)
    done = finalize(world, taskid)
    hub, who = world.hub.address, world.who
    assert done.events == [
        ("Seize", who("requester"), 48 * RLC, taskid),
        ("Transfer", hub, who("app"), 3 * RLC),
        ("Reward", who("app"), 3 * RLC, taskid),
        ("Transfer", hub, who("dataset"), 5 * RLC),
        ("Reward", who("dataset"), 5 * RLC, taskid),
        ("Transfer", hub, who("scheduler"), 12 * RLC),
        ("Unlock", who("scheduler"), 12 * RLC),
        ("Transfer", hub, who("worker"), 14 * RLC),
        ("Unlock", who("worker"), 14 * RLC),
        ("Transfer", hub, who("worker"), 38 * RLC),
        ("Reward", who("worker"), 38 * RLC, taskid),
        ("Transfer", hub, who("scheduler"), 2 * RLC),
        ("Reward", who("scheduler"), 2 * RLC, taskid),
        ("TaskFinalize", taskid, RESULTS),
    ]
    change = {role: sum(world.account(role)) - before[role] for role in World.ROLES}
    paid = {"requester": -48, "app": 3, "dataset": 5, "worker": 38, "scheduler": 2}
    assert change == {role: paid.get(role, 0) * RLC for role in World.ROLES}
    assert all(world.account(role)[1] == 0 for role in World.ROLES)
    assert world.hub.viewScore(who("worker")) == 0  # alone: no praise


def test_finalize_refusals(world: World) -> None:
    taskid = world.task()
    arguments = (taskid, RESULTS, b"")
    assert refused(world, "finalize", *arguments, by="scheduler") == b""
    world.contribute(taskid)
    assert refused(world, "finalize", *arguments, by="scheduler") == b""
    reveal(world, taskid)
    assert refused(world, "finalize", *arguments, by="worker") == b""
    assert refused(world, "finalize", taskid, RESULTS, b"not the digest's", by="scheduler") == b""
    final = world.hub.viewTask(taskid).finalDeadline
    with world.chain.undone():
        world.chain.at(final - 2)
        finalize(world, taskid)
        assert refused(world, "finalize", *arguments, by="scheduler") == b""
    world.chain.at(final)
    assert refused(world, "finalize", *arguments, by="scheduler") == b""


STORED = [
    b"",
    b"x",
    RESULTS,
    RESULTS + b" ",
    RESULTS[:-3],
    RESULTS.replace(b"Qm", b"ba"),
    b'{ "storage": "ipfs", "location": "/ipfs/Qm" }',
    b'{ "storage": "ipfs", "location": "/ipfs/Qmx" }',
    b"\x00" * 33,
    bytes(range(256)) * 4,
]


@pytest.mark.parametrize("results", STORED, ids=range(len(STORED)))
@pytest.mark.parametrize("callback", [b"", b"data", b"\x00" * 1024], ids=["none", "data", "long"])
@pytest.mark.parametrize("direct", [False, True], ids=["standard", "direct"])
def test_results_are_kept_as_given(world: World, results: bytes, callback: bytes, direct: bool) -> None:
    taskid = world.task()
    digest = keccak(callback) if callback else DIGEST
    if direct:
        done = world.direct(taskid, results, callback)
    else:
        world.contribute(taskid, digest=digest)
        reveal(world, taskid, digest=digest)
        done = finalize(world, taskid, results, callback)
    assert done.events[-1] == ("TaskFinalize", taskid, results)
    task = world.hub.viewTask(taskid)
    assert (task.status, task.results, task.resultsCallback) == (COMPLETED, results, callback)
    assert task.resultDigest == digest
    assert task.contributors == [world.who("worker")]
    assert world.hub.resultFor(taskid) == callback
    seen = world.hub.viewContribution(taskid, world.who("worker"))
    assert (seen.status, seen.resultHash) == (2, task.consensusValue)
    assert seen.resultSeal == result_seal(world.who("worker"), taskid, digest)


def test_longer_results_are_refused(world: World) -> None:
    taskid = world.task()
    for results, callback in ((b"x" * 1025, b""), (b"x", b"c" * 1025)):
        arguments = world.direct_arguments(taskid, results, callback)
        assert refused(world, "contributeAndFinalize", *arguments, by="worker") == b""


def test_result_for_waits(world: World) -> None:
    taskid = world.task()
    assert refused(world, "resultFor", taskid, by="worker") == text("task-pending")
    assert refused(world, "resultFor", keccak(b"none"), by="worker") == text("task-pending")


# ---- Directly ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tee", [False, True])
def test_contribute_and_finalize(world: World, tee: bool) -> None:
    taskid = world.task(dataset=True, tee=tee)
    world.hub.withdraw(world.account("worker")[0], sender=world.who("worker"))
    done = world.direct(taskid, RESULTS, tee=tee)
    hub, who = world.hub.address, world.who
    hashed = result_hash(taskid, DIGEST)
    assert done.events == [
        ("Seize", who("requester"), 48 * RLC, taskid),
        ("Transfer", hub, who("app"), 3 * RLC),
        ("Reward", who("app"), 3 * RLC, taskid),
        ("Transfer", hub, who("dataset"), 5 * RLC),
        ("Reward", who("dataset"), 5 * RLC, taskid),
        ("Transfer", hub, who("scheduler"), 12 * RLC),
        ("Unlock", who("scheduler"), 12 * RLC),
        ("Transfer", hub, who("worker"), 38 * RLC),
        ("Reward", who("worker"), 38 * RLC, taskid),
        ("Transfer", hub, who("scheduler"), 2 * RLC),
        ("Reward", who("scheduler"), 2 * RLC, taskid),
        ("TaskContribute", taskid, who("worker"), hashed),
        ("TaskConsensus", taskid, hashed),
        ("TaskReveal", taskid, who("worker"), DIGEST),
        ("TaskFinalize", taskid, RESULTS),
    ]
    task = world.hub.viewTask(taskid)
    assert (task.status, task.revealCounter, task.winnerCounter) == (COMPLETED, 1, 1)
    assert task.revealDeadline == done.timestamp + 2 * TIMEREF
    assert world.hub.viewContribution(taskid, who("worker")) == {
        "status": 2,
        "resultHash": hashed,
        "resultSeal": result_seal(who("worker"), taskid, DIGEST),
        "enclaveChallenge": who("enclave") if tee else ZERO,
        "weight": 0,
    }
    assert world.hub.viewContribution(taskid, who("worker2")).status == 0
    again = world.direct_arguments(taskid, RESULTS, tee=tee)
    assert refused(world, "contributeAndFinalize", *again, by="worker") == b""


def test_free_resources_emit_nothing(world: World) -> None:
    free = world.task(app={"appprice": 0}, pool={"workerpoolprice": 0})
    done = world.direct(free, RESULTS)
    hub, who = world.hub.address, world.who
    assert done.events[:8] == [
        ("Seize", who("requester"), 0, free),
        ("Transfer", hub, who("scheduler"), 0),
        ("Unlock", who("scheduler"), 0),
        ("Transfer", hub, who("worker"), 0),
        ("Reward", who("worker"), 0, free),
        ("Transfer", hub, who("scheduler"), 0),
        ("Reward", who("scheduler"), 0, free),
        ("TaskContribute", free, who("worker"), result_hash(free, DIGEST)),
    ]


def test_direct_needs_trust_1_and_an_untouched_task(world: World) -> None:
    trusted = world.task(pool={"trust": 2}, request={"trust": 2})
    assert (
        refused(world, "contributeAndFinalize", *world.direct_arguments(trusted, RESULTS), by="worker") == b""
    )
    taskid = world.task()
    world.contribute(taskid, "worker2")
    arguments = world.direct_arguments(taskid, RESULTS)
    assert refused(world, "contributeAndFinalize", *arguments, by="worker") == b""
    world.chain.at(world.hub.viewTask(taskid).revealDeadline)
    world.hub.reopen(taskid, sender=world.who("scheduler"))
    assert refused(world, "contributeAndFinalize", *arguments, by="worker") == b""


# ---- Callbacks ---------------------------------------------------------------------------------------------


def recorder(world: World, loop: bool = False) -> Address:
    """Keeps keccak256(its calldata) and the gas it had in slots 0 and 1; or burns all gas."""
    runtime = bytes.fromhex("5b5f56") if loop else bytes.fromhex("5a600155365f5f37365f205f5500")
    init = bytes([0x60, len(runtime), 0x80, 0x60, 9, 0x5F, 0x39, 0x5F, 0xF3]) + runtime
    return world.chain.deploy(init, world.who("stranger"))


@pytest.mark.parametrize("direct", [False, True], ids=["standard", "direct"])
def test_callback(world: World, direct: bool) -> None:
    target = recorder(world)
    taskid = world.task(request={"callback": target})
    data = b"the consumer's data"
    if direct:
        bad = world.direct_arguments(taskid, RESULTS, digest=DIGEST)
        assert refused(world, "contributeAndFinalize", *bad, by="worker") == b""
        world.direct(taskid, RESULTS, data)
    else:
        world.contribute(taskid, digest=keccak(data))
        reveal(world, taskid, digest=keccak(data))
        assert refused(world, "finalize", taskid, RESULTS, b"", by="scheduler") == b""
        finalize(world, taskid, RESULTS, data)
    call = keccak(b"receiveResult(bytes32,bytes)")[:4] + encode(["bytes32", "bytes"], [taskid, data])
    kept = [world.chain.rpc("eth_getStorageAt", target, hex(n), "latest") for n in (0, 1)]
    assert kept[0] == "0x" + keccak(call).hex()
    assert 99_900 < int(kept[1], 16) < 100_000
    assert world.hub.resultFor(taskid) == data


def test_a_callback_may_fail_but_must_have_had_its_gas(world: World) -> None:
    data = b"data"
    for target in (recorder(world, loop=True), address("0x" + "cc" * 20)):
        world.direct(world.task(request={"callback": target}), RESULTS, data)
    world.hub.setCallbackGas(10_000_000)
    taskid = world.task(request={"callback": recorder(world, loop=True)})
    arguments = world.direct_arguments(taskid, RESULTS, data)
    with pytest.raises(Refused) as caught:
        world.hub.send("contributeAndFinalize", *arguments, sender=world.who("worker"), gas=5_000_000)
    assert caught.value.data == panic(1)
    world.direct(taskid, RESULTS, data)


# ---- Consensus ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trust", "needed"), [(0, 1), (1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (8, 3), (9, 4)]
)
def test_how_many_agree(world: World, trust: int, needed: int) -> None:
    taskid = world.task(pool={"trust": trust}, request={"trust": trust})
    workers = ("worker", "worker2", "worker3", "worker4")[:needed]
    for i, worker in enumerate(workers):
        assert world.hub.viewTask(taskid).status == ACTIVE
        done = world.contribute(taskid, worker)
        assert ("TaskConsensus" in done.names) == (i == needed - 1)
    task = world.hub.viewTask(taskid)
    assert (task.status, task.winnerCounter) == (REVEALING, needed)
    assert task.contributors == [world.who(w) for w in workers]
    for worker in workers:
        reveal(world, taskid, worker)
        assert refused(world, "reveal", taskid, DIGEST, by=worker) == b""
    finalize(world, taskid)
    assert all(world.account(role)[1] == 0 for role in World.ROLES)


def test_three_workers_share(world: World) -> None:
    taskid = world.task(dataset=True, pool={"trust": 5}, request={"trust": 5})
    workers = ("worker", "worker2", "worker3")
    before = {role: sum(world.account(role)) for role in World.ROLES}
    for worker in workers:
        world.contribute(taskid, worker)
    for worker in workers:
        reveal(world, taskid, worker)
    done = finalize(world, taskid)
    share = 12_666_666_666
    change = {role: sum(world.account(role)) - before[role] for role in World.ROLES}
    assert [change[w] for w in workers] == [share] * 3
    assert change["scheduler"] == 2_000_000_002
    assert done.names.count("AccurateContribution") == 3
    assert [world.hub.viewScore(world.who(w)) for w in workers] == [1, 1, 1]
    hub = world.hub.address
    assert done.events[7:12] == [
        ("Transfer", hub, world.who("worker"), WORKER_STAKE),
        ("Unlock", world.who("worker"), WORKER_STAKE),
        ("Transfer", hub, world.who("worker"), share),
        ("Reward", world.who("worker"), share, taskid),
        ("AccurateContribution", world.who("worker"), taskid),
    ]


def test_the_wrong_lose_their_stake(world: World) -> None:
    taskid = world.task(pool={"trust": 3}, request={"trust": 3})
    before = {role: sum(world.account(role)) for role in World.ROLES}
    world.contribute(taskid, "worker", digest=keccak(b"wrong"))
    for worker in ("worker2", "worker3", "worker4"):
        if world.hub.viewTask(taskid).status == ACTIVE:
            world.contribute(taskid, worker)
    task = world.hub.viewTask(taskid)
    assert task.consensusValue == result_hash(taskid, DIGEST) and task.winnerCounter == 3
    assert refused(world, "reveal", taskid, keccak(b"wrong"), by="worker") == b""
    for worker in ("worker2", "worker3", "worker4"):
        reveal(world, taskid, worker)
    done = finalize(world, taskid)
    assert ("Seize", world.who("worker"), WORKER_STAKE, taskid) in done.events
    assert ("FaultyContribution", world.who("worker"), taskid) in done.events
    pot = (POOL_PRICE + WORKER_STAKE) * 95 // 100
    change = {role: sum(world.account(role)) - before[role] for role in World.ROLES}
    assert change["worker"] == -WORKER_STAKE
    assert [change[w] for w in ("worker2", "worker3", "worker4")] == [pot // 3] * 3
    assert change["scheduler"] == POOL_PRICE + WORKER_STAKE - 3 * (pot // 3)
    assert world.hub.viewContribution(taskid, world.who("worker")).status == 1


def test_a_result_hash_of_zero_is_a_group_like_another(world: World) -> None:
    taskid = world.task(pool={"trust": 3}, request={"trust": 3})
    made = contribution(world, taskid)
    world.hub.contribute(taskid, bytes(32), *made[2:], sender=world.who("worker"))
    world.contribute(taskid, "worker2")
    assert world.hub.viewTask(taskid).status == ACTIVE
    world.contribute(taskid, "worker3")
    assert world.hub.viewTask(taskid).status == ACTIVE  # 2·2 of a total of 1 + 2 + 4 is not above two thirds
    world.contribute(taskid, "worker4")
    assert world.hub.viewTask(taskid).status == REVEALING


def test_scores_weigh(world: World) -> None:
    """Twelve accurate contributions give weight 3: one such worker convinces where two were needed."""
    for _ in range(12):
        taskid = world.task(pool={"trust": 3}, request={"trust": 3})
        for worker in ("worker", "worker2"):
            world.contribute(taskid, worker)
        for worker in ("worker", "worker2"):
            reveal(world, taskid, worker)
        finalize(world, taskid)
    assert world.hub.viewScore(world.who("worker")) == 12
    # A group of weight 3 in a total of 1 + 3 convinces for trust 3 (3·3 > 4·2), not for trust 4 (3·4 = 4·3).
    taskid = world.task(pool={"trust": 4}, request={"trust": 4})
    world.contribute(taskid, "worker")
    assert world.hub.viewTask(taskid).status == ACTIVE
    assert world.hub.viewContribution(taskid, world.who("worker")).weight == 1
    taskid = world.task(pool={"trust": 3}, request={"trust": 3})
    world.contribute(taskid, "worker")
    assert world.hub.viewTask(taskid).status == REVEALING
    reveal(world, taskid)
    finalize(world, taskid)
    assert world.hub.viewScore(world.who("worker")) == 12  # alone: no praise


# ---- Reopening ---------------------------------------------------------------------------------------------


def test_reopen_and_settle(world: World) -> None:
    """Two silent winners are rejected, two others do the work: the last line of poco.md §9's example."""
    taskid = world.task(pool={"trust": 3}, request={"trust": 3})
    before = {role: sum(world.account(role)) for role in World.ROLES}
    for worker in ("worker", "worker2"):
        world.contribute(taskid, worker, digest=keccak(b"wrong"))
    assert refused(world, "reopen", taskid, by="scheduler") == b""
    world.chain.at(world.hub.viewTask(taskid).revealDeadline)
    assert refused(world, "reopen", taskid, by="worker") == b""
    done = world.hub.reopen(taskid, sender=world.who("scheduler"))
    assert done.events == [("TaskReopen", taskid)]
    task = world.hub.viewTask(taskid)
    assert (task.status, task.winnerCounter, task.revealDeadline) == (ACTIVE, 0, 0)
    assert task.consensusValue == bytes(32)
    assert [world.hub.viewContribution(taskid, world.who(w)).status for w in ("worker", "worker2")] == [3, 3]
    assert refused(world, "contribute", *contribution(world, taskid), by="worker") == b""
    assert refused(world, "reopen", taskid, by="scheduler") == b""
    for worker in ("worker3", "worker4"):
        world.contribute(taskid, worker)
    for worker in ("worker3", "worker4"):
        reveal(world, taskid, worker)
    finalize(world, taskid)
    change = {role: sum(world.account(role)) - before[role] for role in World.ROLES}
    assert change["worker3"] == change["worker4"] == 32_300_000_000
    assert change["scheduler"] == 3_400_000_000
    assert change["worker"] == change["worker2"] == -14 * RLC


def test_a_rejected_hash_may_win_again(world: World) -> None:
    """Rejected contributions of the same hash neither count as winners nor may reveal."""
    taskid = world.task(pool={"trust": 3}, request={"trust": 3})
    for worker in ("worker", "worker2"):
        world.contribute(taskid, worker)
    world.chain.at(world.hub.viewTask(taskid).revealDeadline)
    world.hub.reopen(taskid, sender=world.who("scheduler"))
    for worker in ("worker3", "worker4"):
        world.contribute(taskid, worker)
    assert world.hub.viewTask(taskid).winnerCounter == 2
    assert refused(world, "reveal", taskid, DIGEST, by="worker") == b""
    for worker in ("worker3", "worker4"):
        reveal(world, taskid, worker)
    finalize(world, taskid)
    assert world.account("worker")[1] == 0


def test_reopen_with_trust_1(world: World) -> None:
    taskid = world.task()
    world.contribute(taskid, "worker", digest=keccak(b"silent"))
    world.chain.at(world.hub.viewTask(taskid).revealDeadline)
    world.hub.reopen(taskid, sender=world.who("scheduler"))
    world.contribute(taskid, "worker2")
    task = world.hub.viewTask(taskid)
    assert (task.status, task.winnerCounter) == (REVEALING, 1)
    assert task.consensusValue == result_hash(taskid, DIGEST)
    assert refused(world, "reveal", taskid, keccak(b"silent"), by="worker") == b""
    reveal(world, taskid, "worker2")
    done = finalize(world, taskid)
    assert ("FaultyContribution", world.who("worker"), taskid) in done.events
    assert ("AccurateContribution", world.who("worker2"), taskid) in done.events
    assert world.account("worker")[1] == world.account("worker2")[1] == 0


def test_reopen_has_an_end(world: World) -> None:
    taskid = world.task()
    world.contribute(taskid)
    with world.chain.undone():
        reveal(world, taskid)
        world.chain.at(world.hub.viewTask(taskid).revealDeadline)
        assert refused(world, "reopen", taskid, by="scheduler") == b""  # somebody revealed
    world.chain.at(world.hub.viewTask(taskid).finalDeadline)
    assert refused(world, "reopen", taskid, by="scheduler") == b""


def test_silent_winners_lose_at_a_timeout(world: World) -> None:
    taskid = world.task(pool={"trust": 5}, request={"trust": 5})
    for worker in ("worker", "worker2", "worker3"):
        world.contribute(taskid, worker)
    reveal(world, taskid, "worker")
    assert refused(world, "finalize", taskid, RESULTS, b"", by="scheduler") == b""
    world.chain.at(world.hub.viewTask(taskid).revealDeadline)
    before = {role: sum(world.account(role)) for role in World.ROLES}
    finalize(world, taskid)
    change = {role: sum(world.account(role)) - before[role] for role in World.ROLES}
    assert change["worker2"] == change["worker3"] == -WORKER_STAKE
    assert change["worker"] == (POOL_PRICE + 2 * WORKER_STAKE) * 95 // 100


# ---- Claiming ----------------------------------------------------------------------------------------------


def test_claim_of_nothing_done(world: World) -> None:
    taskid = world.task(dataset=True)
    final = world.hub.viewTask(taskid).finalDeadline
    world.chain.at(final - 1)
    assert refused(world, "claim", taskid, by="stranger") == b""
    world.chain.at(final)
    done = world.hub.claim(taskid, sender=world.who("stranger"))
    hub, requester, scheduler = world.hub.address, world.who("requester"), world.who("scheduler")
    assert done.events == [
        ("Transfer", hub, requester, 48 * RLC),
        ("Unlock", requester, 48 * RLC),
        ("Seize", scheduler, STAKE, taskid),
        ("Reward", KITTY, STAKE, taskid),
        ("Lock", KITTY, STAKE),
        ("TaskClaimed", taskid),
    ]
    assert world.hub.viewTask(taskid).status == FAILED
    assert world.account(KITTY) == (0, STAKE)
    assert world.hub.frozenOf(KITTY) == STAKE
    assert refused(world, "claim", taskid, by="stranger") == b""
    assert refused(world, "contribute", *contribution(world, taskid), by="worker") == b""


@pytest.mark.parametrize("revealed", [False, True])
def test_claim_while_revealing(world: World, revealed: bool) -> None:
    taskid = world.task()
    world.contribute(taskid)
    if revealed:
        reveal(world, taskid)
    world.chain.at(world.hub.viewTask(taskid).finalDeadline)
    done = world.hub.claim(taskid)
    assert done.events[-3:-1] == [
        ("Transfer", world.hub.address, world.who("worker"), WORKER_STAKE),
        ("Unlock", world.who("worker"), WORKER_STAKE),
    ]
    assert world.account("worker")[1] == world.account("requester")[1] == 0


def test_claim_gives_even_the_rejected_their_stake(world: World) -> None:
    taskid = world.task(pool={"trust": 3}, request={"trust": 3})
    for worker in ("worker", "worker2"):
        world.contribute(taskid, worker)
    world.chain.at(world.hub.viewTask(taskid).revealDeadline)
    world.hub.reopen(taskid, sender=world.who("scheduler"))
    world.contribute(taskid, "worker3", digest=keccak(b"other"))
    world.chain.at(world.hub.viewTask(taskid).finalDeadline)
    done = world.hub.claim(taskid)
    assert done.names.count("Unlock") == 4
    assert all(world.account(w)[1] == 0 for w in ("worker", "worker2", "worker3"))
    assert world.hub.viewScore(world.who("worker")) == 0


def test_claims_of_unknown_and_finished_tasks(world: World) -> None:
    assert refused(world, "claim", keccak(b"none"), by="stranger") == b""
    taskid = world.task()
    world.direct(taskid, RESULTS)
    world.chain.at(world.hub.viewTask(taskid).finalDeadline)
    assert refused(world, "claim", taskid, by="stranger") == b""


def test_a_sponsored_task_refunds_its_sponsor(world: World) -> None:
    orders = world.four()
    done = world.hub.sponsorMatchOrders(*(o.as_tuple() for o in orders), sender=world.who("sponsor"))
    dealid = done.events[-1][1]
    taskid = world.first_task(dealid)
    with world.chain.undone():
        world.direct(taskid, RESULTS)
        assert world.account("sponsor")[1] == 0
        assert sum(world.account("sponsor")) + PRICE == 10_000 * RLC
    world.chain.at(world.hub.viewTask(taskid).finalDeadline)
    world.hub.claim(taskid)
    assert world.account("sponsor") == (10_000 * RLC, 0)


# ---- The kitty ---------------------------------------------------------------------------------------------


def failed(world: World, price: int) -> None:
    taskid = world.task(pool={"workerpoolprice": price}, request={"workerpoolmaxprice": price})
    with_deadline = world.hub.viewTask(taskid).finalDeadline
    world.chain.at(max(with_deadline, world.chain.now() + 1))
    world.hub.claim(taskid)


@pytest.mark.parametrize(
    ("price", "share"),
    [(40 * RLC, 12 * RLC // 10), (RLC, RLC * 30 // 100), (5 * RLC, RLC), (100 * RLC, 3 * RLC)],
)
def test_the_kitty_is_paid_out_by_tenths(world: World, price: int, share: int) -> None:
    failed(world, price)
    kitty = price * 30 // 100
    assert world.account(KITTY) == (0, kitty)
    taskid = world.task()
    done = world.direct(taskid, RESULTS)
    scheduler = world.who("scheduler")
    assert done.events[5:8] == [
        ("Seize", KITTY, share, taskid),
        ("Transfer", world.hub.address, scheduler, share),
        ("Reward", scheduler, share, taskid),
    ]
    assert world.account(KITTY) == (0, kitty - share)


def test_the_kitty_can_be_given_tokens_of_its_own(world: World) -> None:
    world.hub.transfer(KITTY, 7, sender=world.who("requester"))
    failed(world, 40 * RLC)
    assert world.account(KITTY) == (7, STAKE)
    assert world.hub.balanceOf(KITTY) == 7


# ---- Settings read at use ----------------------------------------------------------------------------------


def test_categories_of_later(world: World) -> None:
    world.hub.createCategory("long", "later than the constructor's", 50_000)
    category = world.hub.countCategory() - 1
    options: dict[str, Any] = {"pool": {"category": category}, "request": {"category": category}}
    taskid = world.task(**options)
    start = start_of(world, taskid)
    task = world.hub.viewTask(taskid)
    assert (task.timeref, task.contributionDeadline) == (50_000, start + 350_000)
    done = world.direct(taskid, RESULTS)
    assert world.hub.viewTask(taskid).revealDeadline == done.timestamp + 100_000


def test_policies_apply_to_later_deals(world: World) -> None:
    early = world.deal()
    Contract(world.chain, "Workerpool", world.pool, world.who("scheduler")).changePolicy(200, 100)
    late = world.hub.viewDeal(world.deal())
    assert (late.workerStake, late.schedulerRewardRatio) == (2 * POOL_PRICE, 100)
    assert world.hub.viewDeal(early).schedulerRewardRatio == 5
    taskid = world.task()
    done = world.direct(taskid, RESULTS)
    assert ("Reward", world.who("worker"), 0, taskid) in done.events
    assert ("Reward", world.who("scheduler"), POOL_PRICE, taskid) in done.events
