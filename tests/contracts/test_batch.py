"""Many tasks of a deal in one transaction (contracts/batches.vy): as if each had been settled by itself.

What differs is stated there: events, and that money moves at once. So each test settles the same tasks of the
same deal one by one, takes that back, settles them in a batch, and compares.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from typing import Any

import pytest
from eth_abi.abi import encode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sealdeal.model.batches import Batch, Leaf, Proof, batch_message, batch_result, short_digest
from sealdeal.model.deals import (
    KITTY,
    Grant,
    authorisation_blob,
    authorisation_message,
    enclave_message,
    quorum_domain,
    task_id,
)
from sealdeal.model.eip712 import digest as typed_digest
from sealdeal.model.eip712 import hub_domain
from sealdeal.model.keys import Key
from sealdeal.model.orders import BATCH, GPU, TEE, tag
from sealdeal.model.types import RLC, ZERO, ZERO32, Address, Bytes32, address, keccak
from tests.contracts.world import (
    CHAIN_ID,
    DATASET_PRICE,
    POOL_PRICE,
    TIMEREF,
    Done,
    Refused,
    World,
    code,
    key,
    refusal,
    text,
)

DIRECTORY = "QmUbh7ugQ9WVprTVYjzrCS4d9cCy73zUz4MMchsrqzzu1w"
UNSET, ACTIVE, REVEALING, COMPLETED, FAILED = range(5)
ASKS = tag(TEE | BATCH)
EVERYONE = (*World.ROLES, KITTY)


@cache
def enclave(index: int) -> Key:
    """That of a task, by its index."""
    return key(f"enclave {index}")


def digest_of(index: int) -> Bytes32:
    return short_digest(keccak(b"result %d" % index))


class Bag:
    """A deal that asks for batches: its tasks, who works on each, what they make of it."""

    def __init__(self, world: World, size: int, workers: Sequence[str] = ("worker",), **options: Any) -> None:
        self.world, self.workers = world, workers
        options = {"pool": {"tag": ASKS}, "request": {"tag": ASKS}} | options
        if world.hub.teebroker() == ZERO:
            world.hub.setTeeBroker(world.who("broker"))
        world.enrich(world.who("requester"), 100 * size * RLC)
        world.enrich(world.who("scheduler"), 100 * size * RLC)
        self.dealid = world.deal(volume=size, tee=True, **options)
        self.deal = world.hub.viewDeal(self.dealid)
        self.first: int = self.deal.botFirst
        self.indices = range(self.first, self.first + self.deal.botSize)

    def task(self, index: int) -> Bytes32:
        return task_id(self.dealid, index)

    def worker(self, index: int) -> str:
        return self.workers[index % len(self.workers)]

    def initialize(self, *indices: int) -> None:
        self.world.hub.initializeArray([self.dealid] * len(indices), list(indices))

    def batch(self, indices: Collection[int]) -> Batch:
        leaves = (Leaf(i, self.world.who(self.worker(i)), enclave(i).address) for i in indices)
        return Batch.of(self.dealid, self.first, leaves)

    def proof(self, index: int, digest: Bytes32 | None = None) -> Proof:
        made = digest or digest_of(index)
        message = enclave_message(self.world.who(self.worker(index)), self.task(index), made)
        return Proof(made, enclave(index).sign_message(message))

    def arguments(
        self,
        indices: Collection[int],
        settle: Collection[int] | None = None,
        *,
        digests: Mapping[int, Bytes32] | None = None,
        directory: str = DIRECTORY,
        sign: Callable[[Bytes32], bytes] | None = None,
    ) -> list[Any]:
        """Of settleBatch, for tasks by index: all that are authorised, and those to be settled."""
        batch = self.batch(indices)
        sign = sign or self.world.keys["broker"].sign_digest
        authorisation = sign(batch_message(self.world.domain, batch))
        chosen = {i: self.proof(i, (digests or {}).get(i)) for i in settle or indices}
        return list(batch.settle(self.first, chosen, directory, authorisation))

    def settle(self, *args: Any, **options: Any) -> Done:
        done: Done = self.world.hub.settleBatch(
            *self.arguments(*args, **options), sender=self.world.who("scheduler")
        )
        return done

    def alone(self, index: int, digest: Bytes32 | None = None, directory: str = DIRECTORY) -> Done:
        """The same by contributeAndFinalize; the task was initialised."""
        taskid, proof = self.task(index), self.proof(index, digest)
        who, challenge = self.world.who(self.worker(index)), enclave(index).address
        authorisation = self.world.keys["broker"].sign_message(authorisation_message(who, taskid, challenge))
        results = batch_result(directory, index)
        done: Done = self.world.hub.contributeAndFinalize(
            taskid, proof.digest, results, b"", challenge, proof.signature, authorisation, sender=who
        )
        return done

    def refused(self, arguments: Sequence[Any], by: str = "scheduler") -> bytes:
        return refusal(self.world.hub, "settleBatch", *arguments, sender=self.world.who(by))

    def seen(self, indices: Collection[int] | None = None) -> list[Any]:
        """All that views say of these tasks, but for times of settlement."""
        hub, found = self.world.hub, []
        for index in self.indices if indices is None else indices:
            task = hub.viewTask(self.task(index))
            legacy = list(hub.viewTaskABILegacy(self.task(index)))
            task["revealDeadline"] = legacy[5] = 0
            people = [self.world.who(role) for role in dict.fromkeys(self.workers)] + [
                self.world.who("stranger")
            ]
            found.append((task, legacy))
            found += [hub.viewContribution(self.task(index), who) for who in people]
            found += [hub.viewContributionABILegacy(self.task(index), who) for who in people]
            if task.status == COMPLETED:
                found.append(hub.resultFor(self.task(index)))
        return found

    def money(self) -> dict[str, tuple[int, int]]:
        return {role: self.world.account(role) for role in EVERYONE}


def owed(done: Done) -> Counter[tuple[str, Address]]:
    """What a transaction's events say was moved: (event, account) -> nRLC."""
    sums: Counter[tuple[str, Address]] = Counter()
    for name, *values in done.events:
        if name in ("Reward", "Seize", "Unlock", "Lock"):
            sums[name, values[0]] += values[1]
    return sums


def quorum(world: World, signers: int) -> Callable[[Bytes32], bytes]:
    """Make a quorum of two in three the hub's broker: how so many of them sign what it is asked about."""
    nodes = [world.keys[name] for name in ("worker2", "worker3", "worker4")]
    members = [node.address for node in nodes]
    made = encode(["address[]", "uint256", "uint256", "string"], [members, 2, 600, "simulated"])
    at = world.chain.deploy(code("Quorum") + made, world.owner.address)
    world.hub.setTeeBroker(at)
    until = world.chain.now() + 60

    def sign(asked: Bytes32) -> bytes:
        granted = typed_digest(quorum_domain(CHAIN_ID, at), Grant(asked, until))
        return authorisation_blob(
            until, {node.address: node.sign_digest(granted) for node in nodes[:signers]}
        )

    return sign


def told(done: Done, bag: Bag, indices: Collection[int]) -> None:
    """These tasks, and no others, were said to have ended, each with its own result."""
    said = [event[1:] for event in done.events if event[0] == "TaskFinalize"]
    assert said == [(bag.task(i), batch_result(DIRECTORY, i)) for i in sorted(indices)]


def said(reason: str) -> bytes:
    return text(f"batches: {reason}")


# ---- As if one by one --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kitty", [False, True])
@pytest.mark.parametrize(
    ("size", "workers", "options"),
    [
        (2, ("worker",), {}),
        (13, ("worker",), {"dataset": True}),
        (12, ("worker", "worker2", "worker3"), {"dataset": True}),
        (9, ("scheduler",), {}),
    ],
)
def test_as_if_one_by_one(
    world: World, size: int, workers: tuple[str, ...], options: dict[str, Any], kitty: bool
) -> None:
    if kitty:
        world.enrich(world.who("scheduler"))
        failed = world.task()
        world.chain.at(world.hub.viewTask(failed).finalDeadline)
        world.hub.claim(failed)
    prices = {"pool": {"tag": ASKS, "workerpoolprice": 7 * RLC + 9}, "app": {"appprice": 1}}
    bag = Bag(world, size, workers, **prices, **options)
    with world.chain.undone():
        bag.initialize(*bag.indices)
        moved: Counter[tuple[str, Address]] = Counter()
        for index in bag.indices:
            moved += owed(bag.alone(index))
        money, seen = bag.money(), bag.seen()
    done = bag.settle(bag.indices)
    assert bag.money() == money
    assert bag.seen() == seen
    assert owed(done) == moved
    assert {event[3] for event in done.events if event[0] in ("Reward", "Seize")} == {bag.dealid}
    assert money[KITTY] == (0, 0) or kitty
    assert world.hub.viewTask(bag.task(bag.first)).revealDeadline == done.timestamp + 2 * TIMEREF


def test_events(world: World) -> None:
    bag = Bag(world, 3, ("worker", "worker2"), dataset=True)
    done = bag.settle(bag.indices)
    hub, who, dealid = world.hub.address, world.who, bag.dealid
    share = POOL_PRICE * 95 // 100
    each = [
        event
        for i in bag.indices
        for event in (
            ("TaskInitialize", bag.task(i), world.pool),
            ("TaskFinalize", bag.task(i), batch_result(DIRECTORY, i)),
        )
    ]
    assert done.events == [
        *each,
        ("Seize", who("requester"), 3 * 48 * RLC, dealid),
        ("Transfer", hub, who("app"), 3 * 3 * RLC),
        ("Reward", who("app"), 3 * 3 * RLC, dealid),
        ("Transfer", hub, who("dataset"), 3 * DATASET_PRICE),
        ("Reward", who("dataset"), 3 * DATASET_PRICE, dealid),
        ("Transfer", hub, who("scheduler"), 3 * 12 * RLC),
        ("Unlock", who("scheduler"), 3 * 12 * RLC),
        ("Transfer", hub, who("worker"), 2 * share),
        ("Reward", who("worker"), 2 * share, dealid),
        ("Transfer", hub, who("worker2"), share),
        ("Reward", who("worker2"), share, dealid),
        ("Transfer", hub, who("scheduler"), 3 * (POOL_PRICE - share)),
        ("Reward", who("scheduler"), 3 * (POOL_PRICE - share), dealid),
    ]
    answer = world.hub.call("settleBatch", *Bag(world, 2).arguments([0, 1]), sender=who("scheduler"))
    assert answer == 2


def test_views_tell_everything(world: World) -> None:
    """In numbers, not only as the other path does."""
    bag = Bag(world, 2, ("worker", "worker2"))
    done = bag.settle(bag.indices)
    task = world.hub.viewTask(bag.task(1))
    start = bag.deal.startTime
    hashed = keccak(bag.task(1) + digest_of(1))
    assert dict(task) == {
        "status": COMPLETED,
        "dealid": bag.dealid,
        "idx": 1,
        "timeref": TIMEREF,
        "contributionDeadline": start + 7 * TIMEREF,
        "revealDeadline": done.timestamp + 2 * TIMEREF,
        "finalDeadline": start + 10 * TIMEREF,
        "consensusValue": hashed,
        "revealCounter": 1,
        "winnerCounter": 1,
        "contributors": [world.who("worker2")],
        "resultDigest": digest_of(1),
        "results": batch_result(DIRECTORY, 1),
        "resultsTimestamp": 0,
        "resultsCallback": b"",
    }
    entry = world.hub.viewContribution(bag.task(1), world.who("worker2"))
    seal = keccak(bytes.fromhex(world.who("worker2")[2:]) + bag.task(1) + digest_of(1))
    assert dict(entry) == {
        "status": 2,
        "resultHash": hashed,
        "resultSeal": seal,
        "enclaveChallenge": enclave(1).address,
        "weight": 0,
    }
    assert world.hub.resultFor(bag.task(1)) == b""


@pytest.mark.parametrize(("first", "size"), [(0, 128), (95, 14), (995, 10), (99_995, 10), (1_000, 2)])
def test_indices_in_results(world: World, first: int, size: int) -> None:
    """The number grows by one from task to task, over 9, 99 and so on; a deal need not begin at 0."""
    volume = first + size
    orders = world.four(
        volume=volume,
        tee=True,
        pool={"tag": ASKS, "workerpoolprice": 0},
        request={"tag": ASKS},
        app={"appprice": 0},
    )
    world.hub.setTeeBroker(world.who("broker"))
    if first:
        other = world.signed(world.pool_order(tag=ASKS, workerpoolprice=0, volume=first))
        world.match((*orders[:2], other, orders[3]))
    dealid, _ = world.match(orders)
    bag = Bag.__new__(Bag)
    bag.world, bag.workers, bag.dealid, bag.first = world, ("worker",), dealid, first
    bag.indices = range(first, volume)
    done = bag.settle(bag.indices)
    results = [event[2] for event in done.events if event[0] == "TaskFinalize"]
    assert results == [batch_result(DIRECTORY, i) for i in bag.indices]
    for index in (first, volume - 1):
        task = world.hub.viewTask(bag.task(index))
        assert (task.idx, task.results) == (index, batch_result(DIRECTORY, index))


@pytest.mark.parametrize(
    "directory",
    [
        "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi",
        "k51qzi5uqu5dlvj2baxnqndepeb86cbk3ng7n3i46uzyxzyqj2xjonzllnv0v8",
        "x" * 32,
        "x" * 64,
    ],
)
def test_directories(world: World, directory: str) -> None:
    bag = Bag(world, 11)
    done = bag.settle(bag.indices, directory=directory)
    results = [event[2] for event in done.events if event[0] == "TaskFinalize"]
    assert results == [batch_result(directory, i) for i in bag.indices]
    assert [world.hub.viewTask(bag.task(i)).results for i in bag.indices] == results


def test_directories_without_room_for_the_index(world: World) -> None:
    bag = Bag(world, 2)
    assert bag.refused(bag.arguments([0], directory="x" * 52)) == said("the index needs another word")
    assert bag.refused(bag.arguments([0], directory="x" * 31)) == said("a directory is named by its CID")


@pytest.mark.parametrize("width", [0, 1, 20, 31, 32])
def test_digests_of_any_length(world: World, width: int) -> None:
    bag = Bag(world, 10)
    digests = {i: keccak(bytes([i]))[:width].ljust(32, b"\0") for i in bag.indices}
    digests[3] = ZERO32
    arguments = bag.arguments(bag.indices, digests=digests)
    assert arguments[6] == width
    world.hub.settleBatch(*arguments, sender=world.who("scheduler"))
    assert [world.hub.viewTask(bag.task(i)).resultDigest for i in bag.indices] == list(digests.values())


# ---- Parts, and what ended otherwise -----------------------------------------------------------------------


def test_in_several_transactions(world: World) -> None:
    """Of one list, any part at a time; each task once."""
    bag = Bag(world, 20, ("worker", "worker2"))
    with world.chain.undone():
        bag.initialize(*range(18))
        for index in range(18):
            bag.alone(index)
        money, seen = bag.money(), bag.seen()
    for part in ((3, 4, 5, 17), (0,), (1, 2, *range(6, 17))):
        told(bag.settle(range(18), part), bag, part)
    assert bag.money() == money
    assert bag.seen() == seen
    assert bag.refused(bag.arguments(range(18), (3, 17))) == said("every task has ended")


def test_lists_with_gaps(world: World) -> None:
    bag = Bag(world, 30, ("worker", "worker2"))
    chosen = (2, 3, 9, 10, 11, 29)
    with world.chain.undone():
        bag.initialize(*chosen)
        for index in chosen:
            bag.alone(index)
        money, seen = bag.money(), bag.seen()
    told(bag.settle(chosen), bag, chosen)
    assert (bag.money(), bag.seen()) == (money, seen)


def test_what_has_ended_is_skipped(world: World) -> None:
    """Nobody can block a batch: it settles what is left, and pays for that alone."""
    bag = Bag(world, 8, ("worker", "worker2"))
    bag.initialize(1, 2, 3)
    bag.alone(1)
    world.keys["enclave"] = enclave(2)
    world.contribute(bag.task(2), bag.worker(2), tee=True, signer="broker")
    bag.settle((5,))
    with world.chain.undone():
        bag.initialize(0, 4, 6, 7)
        for index in (0, 3, 4, 6, 7):
            bag.alone(index)
        money, seen = bag.money(), bag.seen()
    before = bag.seen((1, 2, 5))
    done = bag.settle(bag.indices)
    assert world.hub.viewTask(bag.task(2)).status == REVEALING
    assert bag.seen((1, 2, 5)) == before
    assert (bag.money(), bag.seen()) == (money, seen)
    begun = [event[1] for event in done.events if event[0] == "TaskInitialize"]
    assert begun == [bag.task(i) for i in (0, 4, 6, 7)]
    told(done, bag, (0, 3, 4, 6, 7))
    world.hub.reveal(bag.task(2), keccak(b"result"), sender=world.who(bag.worker(2)))
    world.hub.finalize(bag.task(2), b"/ipfs/x", b"", sender=world.who("scheduler"))


def test_reopened_tasks_are_skipped(world: World) -> None:
    bag = Bag(world, 2)
    bag.initialize(0)
    world.keys["enclave"] = enclave(0)
    world.contribute(bag.task(0), tee=True, signer="broker")
    world.chain.at(world.hub.viewTask(bag.task(0)).revealDeadline)
    world.hub.reopen(bag.task(0), sender=world.who("scheduler"))
    assert world.hub.viewTask(bag.task(0)).status == ACTIVE
    bag.settle((0, 1))
    assert [world.hub.viewTask(bag.task(i)).status for i in (0, 1)] == [ACTIVE, COMPLETED]


def test_nothing_more_happens_to_a_task_of_a_batch(world: World) -> None:
    bag = Bag(world, 3)
    bag.initialize(1)
    bag.settle((0, 1))
    hub, scheduler = world.hub, world.who("scheduler")
    world.keys["enclave"] = enclave(0)
    for index in (0, 1):
        taskid = bag.task(index)
        assert refusal(hub, "initialize", bag.dealid, index) == b""
        assert refusal(hub, "initializeArray", [bag.dealid], [index]) == b""
        with pytest.raises(Refused):
            world.contribute(taskid, tee=True, signer="broker")
        with pytest.raises(Refused):
            bag.alone(index)
        assert refusal(hub, "reveal", taskid, digest_of(index), sender=world.who("worker")) == b""
        assert refusal(hub, "finalize", taskid, b"", b"", sender=scheduler) == b""
        assert refusal(hub, "reopen", taskid, sender=scheduler) == b""
    bag.initialize(2)
    world.chain.at(bag.deal.startTime + 10 * TIMEREF)
    for index in (0, 1):
        assert refusal(hub, "claim", bag.task(index)) == b""
        assert refusal(hub, "initializeAndClaimArray", [bag.dealid], [index]) == b""
    hub.claim(bag.task(2))
    # Everything that the deal has locked is free again.
    assert world.account("requester")[1] == 0 == world.account("scheduler")[1] == world.account("worker")[1]


def test_pages(world: World) -> None:
    """A page has 256 tasks, a batch 128 of one page."""
    bag = Bag(world, 300, pool={"tag": ASKS, "workerpoolprice": 0}, app={"appprice": 0})
    bag.initialize(256, 44)
    parts = (range(200, 256), range(256, 300), range(100, 200), range(100))
    for part in parts:
        bag.settle(part)
    for index in (0, 44, 99, 100, 199, 200, 255, 256, 299):
        task = world.hub.viewTask(bag.task(index))
        assert (task.status, task.idx, task.resultDigest) == (COMPLETED, index, digest_of(index))
        assert refusal(world.hub, "initialize", bag.dealid, index) == b""


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_parts_in_any_order(world: World, data: st.DataObject) -> None:
    """Tasks begun, contributed to, ended, batched, in any mixture: money and views as one by one."""
    size = data.draw(st.integers(2, 20))
    indices = st.sets(st.integers(0, size - 1), min_size=1)
    steps = data.draw(
        st.lists(
            st.one_of(
                st.tuples(st.just("begin"), indices),
                st.tuples(st.just("alone"), indices),
                st.tuples(st.just("batch"), indices, indices),
            ),
            min_size=1,
            max_size=5,
        )
    )
    workers = data.draw(st.sampled_from([("worker",), ("worker", "worker2", "worker3")]))
    with world.chain.undone():
        bag = Bag(world, size, workers, pool={"tag": ASKS, "workerpoolprice": RLC + 7})
        outcomes = []
        for batched in (False, True):
            begun, ended = set[int](), set[int]()
            with world.chain.undone():
                for step, chosen, *more in steps:
                    if step == "batch":
                        settle = chosen & more[0] or chosen
                        left = settle - ended
                        if batched and left:
                            told(bag.settle(chosen, settle), bag, left)
                        elif not batched:
                            bag.initialize(*(left - begun))
                            for index in left:
                                bag.alone(index)
                        begun, ended = begun | left, ended | left
                    else:
                        new = chosen - begun
                        bag.initialize(*new)
                        begun |= new
                        if step == "alone":
                            for index in chosen - ended:
                                bag.alone(index)
                            ended |= chosen
                outcomes.append((bag.money(), bag.seen()))
        assert outcomes[0] == outcomes[1]


def test_views_find_each_of_many_batches(world: World) -> None:
    bags = [Bag(world, 4, ("worker", "worker2")) for _ in range(3)]
    for part in ((0, 2), (1,), (3,)):
        for bag in bags:
            bag.settle(part)
    for bag in bags:
        found = [world.hub.viewTask(bag.task(i)) for i in bag.indices]
        assert [(t.dealid, t.idx, t.resultDigest) for t in found] == [
            (bag.dealid, i, digest_of(i)) for i in bag.indices
        ]
    assert world.hub.viewTask(keccak(b"nothing")).status == UNSET
    assert refusal(world.hub, "resultFor", keccak(b"nothing")) == text("task-pending")


# ---- Who may, and what is checked --------------------------------------------------------------------------


def test_only_the_scheduler(world: World) -> None:
    """It vouches for where the results lie. The one at the match, whoever owns the workerpool now."""
    bag = Bag(world, 2)
    arguments = bag.arguments([0, 1])
    for role in ("worker", "requester", "broker", "stranger"):
        assert bag.refused(arguments, role) == said("the sender is not the scheduler")
    pools, pool = world.workerpools, int(world.pool, 16)
    pools.transferFrom(world.who("scheduler"), world.who("stranger"), pool, sender=world.who("scheduler"))
    assert bag.refused(arguments, "stranger") == said("the sender is not the scheduler")
    world.hub.settleBatch(*arguments, sender=world.who("scheduler"))


def test_only_what_the_broker_authorised(world: World) -> None:
    bag, other = Bag(world, 5, ("worker", "worker2")), Bag(world, 5, ("worker", "worker2"))
    unauthorised = said("not authorised")
    good = bag.arguments(range(4), (0, 1))
    assert bag.refused(bag.arguments(range(4), sign=world.keys["scheduler"].sign_digest)) == unauthorised

    def changed(**changes: Any) -> list[Any]:
        names = ["dealid", "page", "tasks", "settle", "workers", "assigned", "width", "digests", "signatures"]
        found = list(good)
        for name, value in changes.items():
            found[names.index(name)] = value
        return found

    workers = [world.who("worker"), world.who("worker2")]
    assert bag.refused(changed(dealid=other.dealid)) == unauthorised
    assert bag.refused(changed(workers=workers[::-1])) == unauthorised
    assert bag.refused(changed(workers=[*workers, world.who("worker3")])) == unauthorised
    assert bag.refused(changed(assigned=bytes([1, 1, 0, 1]))) == unauthorised
    assert bag.refused(changed(digests=good[7][:-1] + b"\x01")) == unauthorised
    assert bag.refused(changed(tasks=0b10111)) == unauthorised
    swapped = [good[8][1], good[8][0], *good[8][2:]]
    assert bag.refused(changed(signatures=swapped)) == unauthorised
    elsewhere = [*good[8][:3], (bytes(12) + b"\x01" * 20, ZERO32)]
    assert bag.refused(changed(signatures=elsewhere)) == unauthorised
    # Bits above an address do not spill over into the enclave before it.
    spill = [*good[8][:3], (b"\xff" * 12 + good[8][3][0][12:], ZERO32)]
    world.hub.call("settleBatch", *changed(signatures=spill), sender=world.who("scheduler"))
    # A single authorisation, as for contributeAndFinalize, authorises no batch, nor the other way round.
    message = authorisation_message(world.who("worker"), bag.task(0), enclave(0).address)
    alone = bag.arguments([0], sign=lambda _: world.keys["broker"].sign_message(message))
    assert bag.refused(alone) == unauthorised
    bag.initialize(0)
    proof, blob = bag.proof(0), bag.arguments([0])[-1]
    direct = (bag.task(0), proof.digest, b"", b"", enclave(0).address, proof.signature, blob)
    assert refusal(world.hub, "contributeAndFinalize", *direct, sender=world.who("worker")) == b""
    world.hub.settleBatch(*good, sender=world.who("scheduler"))


def test_another_hub_or_chain(world: World) -> None:
    bag = Bag(world, 2)
    batch = bag.batch([0])
    for chain, hub in ((CHAIN_ID + 1, world.hub.address), (CHAIN_ID, world.who("stranger"))):
        message = batch_message(hub_domain(chain, hub), batch)
        arguments = bag.arguments([0])
        arguments[-1] = world.keys["broker"].sign_digest(message)
        assert bag.refused(arguments) == said("not authorised")


def test_the_broker(world: World) -> None:
    """It has to be there, it is today's, and it may be a quorum."""
    bag = Bag(world, 3)
    world.hub.setTeeBroker(ZERO)
    assert bag.refused(bag.arguments([0])) == said("there is no TEE broker")
    by_scheduler = bag.arguments([0], sign=world.keys["scheduler"].sign_digest)
    assert bag.refused(by_scheduler) == said("there is no TEE broker")
    world.hub.setTeeBroker(world.who("stranger"))
    assert bag.refused(bag.arguments([0])) == said("not authorised")
    bag.settle([0], sign=world.keys["stranger"].sign_digest)

    grants = quorum(world, 1)
    assert bag.refused(bag.arguments([1, 2], sign=grants)) == said("not authorised")
    bag.settle([1, 2], sign=quorum(world, 2))


def test_signatures(world: World) -> None:
    bag = Bag(world, 3)
    arguments = bag.arguments(range(3))
    good = arguments[8]
    for wrong in ((ZERO32, ZERO32), (good[1][0], ZERO32), (b"\xff" * 32, good[1][1])):
        arguments[8] = [good[0], wrong, good[2]]
        assert bag.refused(arguments) == said("an enclave's signature is not valid")
    stranger = world.keys["stranger"].sign_message(
        enclave_message(world.who("worker"), bag.task(1), digest_of(1))
    )
    s = int.from_bytes(stranger[32:64], "big") | (stranger[64] - 27) << 255
    arguments[8] = [good[0], (stranger[:32], s.to_bytes(32, "big")), good[2]]
    assert bag.refused(arguments) == said("not authorised")
    # The enclave is named, but it is to sign: no address in the place of a signature.
    arguments[8] = [good[0], (bytes(12) + bytes.fromhex(enclave(1).address[2:]), ZERO32), good[2]]
    assert bag.refused(arguments) == said("an enclave's signature is not valid")
    arguments = bag.arguments(range(3), (0,))
    arguments[8] = [arguments[8][0], (ZERO32, ZERO32), arguments[8][2]]
    assert bag.refused(arguments) == said("an enclave is missing")


def test_until_the_deadline_of_contributions(world: World) -> None:
    bag = Bag(world, 2)
    arguments = bag.arguments([0])
    deadline = bag.deal.startTime + 7 * TIMEREF
    with world.chain.undone():
        world.chain.at(deadline - 2)
        world.hub.settleBatch(*arguments, sender=world.who("scheduler"))
    world.chain.at(deadline)
    assert bag.refused(arguments) == said("contributions have ended")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"request": {"tag": tag(TEE)}}, "not a bag that asks for batches"),
        (
            {"request": {"tag": tag(TEE | GPU)}, "pool": {"tag": tag(TEE | GPU)}},
            "not a bag that asks for batches",
        ),
        ({"request": {"tag": ASKS}, "volume": 1}, "not a bag that asks for batches"),
        (
            {"tee": False, "pool": {"tag": tag(BATCH)}, "request": {"tag": tag(BATCH)}},
            "the deal is not for a TEE",
        ),
        (
            {"pool": {"tag": ASKS, "trust": 2}, "request": {"tag": ASKS, "trust": 2}},
            "the deal's trust is above 1",
        ),
        ({"request": {"tag": ASKS, "callback": address(b"\x01" * 20)}}, "the deal has a callback"),
    ],
)
def test_other_deals(world: World, options: dict[str, Any], reason: str) -> None:
    """They are refused, and their tasks live as they always did."""
    world.hub.setTeeBroker(world.who("broker"))
    dealid = world.deal(**{"volume": 2, "tee": True, "pool": {"tag": ASKS}} | options)
    bag = Bag.__new__(Bag)
    bag.world, bag.workers, bag.dealid, bag.first = world, ("worker",), dealid, 0
    assert bag.refused(bag.arguments([0])) == said(reason)
    assert world.hub.viewDeal(dealid).tag == options["request"]["tag"]
    taskid = world.first_task(dealid)
    assert refusal(world.hub, "initialize", dealid, 0) == b""
    world.contribute(taskid, tee=True, signer="broker")
    assert world.hub.viewTask(taskid).status in (ACTIVE, REVEALING)


def test_tasks_that_are_not_the_deals(world: World) -> None:
    bag = Bag(world, 3)
    foreign = said("a task is not the deal's")
    arguments = bag.arguments(range(3))
    for page, tasks in ((0, 0b1111), (1, 0b111), (2**248, 0b111), (2**256 - 1, 0b111), (0, 2**255)):
        arguments[1:3] = [page, tasks]
        assert bag.refused(arguments) == foreign
    arguments = bag.arguments(range(2))
    arguments[3] = 0b111
    assert bag.refused(arguments) == said("a task is not authorised")
    arguments[3] = 0
    assert bag.refused(arguments) == said("every task has ended")
    arguments = bag.arguments(range(2))
    arguments[0] = keccak(b"no deal")
    assert bag.refused(arguments) == b""
    arguments[0] = bytes([bag.dealid[0] ^ 1]) + bag.dealid[1:]
    assert bag.refused(arguments) == said("no such deal")


def test_parts_that_do_not_fit_each_other(world: World) -> None:
    bag = Bag(world, 4, ("worker", "worker2"))
    good = bag.arguments(range(4))
    proofs, digests, assigned, width = 8, 7, 5, 6

    def refused(place: int, value: Any) -> bytes:
        found = list(good)
        found[place] = value
        return bag.refused(found)

    missing = said("not a signature for each task")
    assert refused(proofs, good[proofs][:3]) == missing
    assert refused(proofs, []) == missing
    assert refused(proofs, [*good[proofs], good[proofs][0]]) != b""
    assert refused(digests, good[digests] + b"\x01") == said("not a digest for each task")
    assert refused(digests, good[digests][:-1]) != said("not authorised")
    assert refused(assigned, good[assigned] + b"\x00") == said("not a worker for each task")
    assert refused(assigned, good[assigned][:-1]) == said("not a worker for each task")
    assert refused(assigned, bytes([0, 1, 2, 0])) == b""
    assert refused(width, 33) == said("a digest has 32 bytes at most")
    assert refused(4, []) == b""
    alone = Bag(world, 2)
    arguments = alone.arguments(range(2))
    arguments[assigned] = bytes(2)
    assert alone.refused(arguments) == said("not authorised")
    arguments[assigned] = b"\0"
    assert alone.refused(arguments) == said("not a worker for each task")


def test_a_deal_that_asks_but_is_not_batched_lives_as_any_other(world: World) -> None:
    bag = Bag(world, 3, app={"tag": tag(TEE)})
    plain = world.deal(volume=3, tee=True)
    for dealid in (bag.dealid, plain):
        for index in range(3):
            done = world.hub.initialize(dealid, index)
            assert done.events == [("TaskInitialize", task_id(dealid, index), world.pool)]
            assert refusal(world.hub, "initialize", dealid, index) == b""
        assert refusal(world.hub, "initialize", dealid, 3) == b""
    for index in range(3):
        bag.alone(index)
    assert {world.hub.viewTask(bag.task(i)).status for i in range(3)} == {COMPLETED}


@pytest.mark.parametrize(("workers", "bound"), [(("worker",), 20_000), (World.ROLES[-4:], 21_000)])
def test_gas_of_a_task(world: World, workers: tuple[str, ...], bound: int) -> None:
    """Of 100 in one transaction, with a dataset, authorised by a quorum; everyone was paid before."""
    Bag(world, 2, workers, dataset=True).settle((0,))
    Bag(world, 5, workers, dataset=True).settle(range(5))
    bag = Bag(world, 100, workers, dataset=True)
    sign = quorum(world, 2)
    done = bag.settle(bag.indices, sign=sign)
    assert 17_000 < done.gas / 100 <= bound


def test_contracts_hold_what_the_quorum_signs_in_one_place() -> None:
    assert Batch.type_string() == (
        "Batch(bytes32 dealid,uint256 page,uint256 tasks,bytes workers,bytes assigned,bytes enclaves)"
    )
