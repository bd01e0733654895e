"""Boost, beyond its titles in behaviours/: the order of refusals, narrow fields, classic deals beside it,
records at their bounds, whole bags (poco.md §10).

On both suites, ours and the official one; what runs on ours alone says why.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from eth_abi.abi import encode
from hypothesis import given
from hypothesis import strategies as st

from sealdeal.model.deals import deal_id, result_seal, task_id
from sealdeal.model.orders import NO_DATASET, Signed, tag
from sealdeal.model.types import RLC, ZERO, address, keccak
from tests.contracts.behaviours.boost import BoostAgreed, boost, push, pushing, refusal, refused_push
from tests.contracts.behaviours.stage import (
    BAD_FORMAT,
    COMPLETED,
    FAILED,
    KINDS,
    NO_DATA,
    PARTS,
    PRICE,
    RESULTS,
    SCHEDULER_REWARD,
    STAKE,
    TOO_POOR,
    UNSET,
    WORKER_REWARD,
    YES,
    Four,
    act,
    answer,
    answering,
    consumed,
    install,
    moves,
    recorded,
    recorder,
    refused,
    reward,
    seize,
    task_of,
    tuples,
    with_sign,
)
from tests.contracts.revm import Revm
from tests.contracts.world import APP_PRICE, DATASET_PRICE, POOL_PRICE, TIMEREF, Suite, World, text

SOMEBODY = address("0x" + "5b" * 20)
A, D, P, R = "app", "data", "pool", "request"
Changes = dict[str, Any]
"""To the four: part -> field -> what it is."""
FREE: Changes = {A: {"appprice": 0}, D: {"datasetprice": 0}, P: {"workerpoolprice": 0}}


@pytest.fixture(scope="module", params=["ours", "official"])
def deployed(request: pytest.FixtureRequest) -> World:
    suite: Suite = request.param
    return World.start(Revm(), suite)


@pytest.fixture
def world(deployed: World) -> Iterator[World]:
    with deployed.chain.undone():
        yield deployed


@pytest.fixture(scope="module")
def ours() -> World:
    return World.start(Revm())


def sealed(world: World, dealid: bytes, index: int, data: bytes) -> bytes:
    """The enclave's signature of these results, or data for the callback, of the worker."""
    seal = result_seal(world.who("worker"), task_id(dealid, index), keccak(data))
    return world.keys["enclave"].sign_message(seal)


def refusal_of(world: World, orders: Four) -> bytes:
    return refused(world, "stranger", "matchOrdersBoost", *tuples(orders))


# ---- The order of refusals ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Flaw:
    """What is wrong with four orders, and what is said of it."""

    words: str
    changes: Changes = field(default_factory=dict)
    sign: str = ""
    """The kind of order that a stranger signs."""


def restricted(part: str, name: str, who: str, by: str) -> Flaw:
    return Flaw(f"{who} restricted by {by} order", {part: {name: SOMEBODY}})


FLAWS = (
    Flaw("Bad trust level", {R: {"trust": 2}}),
    Flaw("Category mismatch", {P: {"category": 1}}),
    Flaw("Unknown category", {P: {"category": 9}, R: {"category": 9}}),
    Flaw("Overpriced app", {R: {"appmaxprice": APP_PRICE - 1}}),
    Flaw("Overpriced dataset", {R: {"datasetmaxprice": DATASET_PRICE - 1}}),
    Flaw("Overpriced workerpool", {R: {"workerpoolmaxprice": POOL_PRICE - 1}}),
    Flaw("Workerpool tag does not match demand", {R: {"tag": tag(1 << 200)}}),
    Flaw("App tag does not match demand", {P: {"tag": tag(1)}, R: {"tag": tag(1)}}),
    Flaw("App mismatch", {R: {"app": SOMEBODY}}),
    Flaw("Dataset mismatch", {R: {"dataset": SOMEBODY}}),
    restricted(R, "workerpool", "Workerpool", "request"),
    restricted(A, "datasetrestrict", "Dataset", "app"),
    restricted(A, "workerpoolrestrict", "Workerpool", "app"),
    restricted(A, "requesterrestrict", "Requester", "app"),
    restricted(D, "apprestrict", "App", "dataset"),
    restricted(D, "workerpoolrestrict", "Workerpool", "dataset"),
    restricted(D, "requesterrestrict", "Requester", "dataset"),
    restricted(P, "apprestrict", "App", "workerpool"),
    restricted(P, "datasetrestrict", "Dataset", "workerpool"),
    restricted(P, "requesterrestrict", "Requester", "workerpool"),
    Flaw("App not registered", {A: {"app": SOMEBODY}, R: {"app": SOMEBODY}}),
    Flaw("Invalid app order signature", sign="App"),
    Flaw("Dataset not registered", {D: {"dataset": SOMEBODY}, R: {"dataset": SOMEBODY}}),
    Flaw("Invalid dataset order signature", sign="Dataset"),
    Flaw("Workerpool not registered", {P: {"workerpool": SOMEBODY}}),
    Flaw("Invalid workerpool order signature", sign="Workerpool"),
    Flaw("Invalid request order signature", sign="Request"),
    Flaw("One or more orders consumed", {D: {"volume": 0}}),
)


def with_flaws(world: World, *flaws: Flaw, **more: Any) -> Four:
    """Four orders with a dataset; of two that change the same field, the first decides."""
    changes: Changes = dict(more)
    for flaw in reversed(flaws):
        for part, fields in flaw.changes.items():
            changes[part] = {**changes.get(part, {}), **fields}
    orders = world.four(dataset=True, **changes)
    for flaw in flaws:
        if flaw.sign:
            order = orders[KINDS.index(flaw.sign)].order
            orders = with_sign(orders, flaw.sign, world.signed(order, "stranger").sign)
    return orders


@pytest.mark.parametrize("flaw", FLAWS, ids=[flaw.words for flaw in FLAWS])
def test_each_flaw_has_its_words(world: World, flaw: Flaw) -> None:
    assert refusal_of(world, with_flaws(world, flaw)) == refusal(flaw.words)


@pytest.mark.parametrize("index", range(len(FLAWS) - 1), ids=[flaw.words for flaw in FLAWS[:-1]])
def test_a_flaw_is_told_before_the_next(world: World, index: int) -> None:
    orders = with_flaws(world, *FLAWS[index : index + 2])
    assert refusal_of(world, orders) == refusal(FLAWS[index].words)


def overflow(bits: int, number: int) -> bytes:
    selector = keccak(b"SafeCastOverflowedUintDowncast(uint8,uint256)")[:4]
    return selector + encode(["uint8", "uint256"], [bits, number])


HUGE = 2**96
PRICES: list[tuple[str, Changes]] = [
    ("app", {A: {"appprice": HUGE}, R: {"appmaxprice": HUGE}}),
    ("pool", {P: {"workerpoolprice": HUGE + 1}, R: {"workerpoolmaxprice": HUGE + 1}}),
    ("dataset", {D: {"datasetprice": HUGE + 2}, R: {"datasetmaxprice": HUGE + 2}}),
]
"""Prices of too many bits; each differs from the others, to be told apart."""


def huge(*names: str) -> Flaw:
    changes: Changes = {}
    for name, change in PRICES:
        for part, fields in change.items() if name in names else ():
            changes[part] = {**changes.get(part, {}), **fields}
    return Flaw("", changes)


def test_what_is_too_wide_is_told_in_order(world: World) -> None:
    """Prices of app and pool, the number of the first task, the number of tasks, the price of the dataset."""
    long: Changes = {part: {"volume": 2**17} for part in PARTS.values()}

    def wide(*names: str) -> bytes:
        return refusal_of(world, with_flaws(world, huge(*names), **long))

    assert wide("app", "pool", "dataset") == overflow(96, HUGE)
    assert wide("pool", "dataset") == overflow(96, HUGE + 1)
    assert wide("dataset") == overflow(16, 2**17)
    short = with_flaws(world, huge("dataset"))
    assert refusal_of(world, short) == overflow(96, HUGE + 2)


def test_a_first_task_of_too_many_bits(world: World) -> None:
    """A request whose earlier deals took 2**16 tasks: the next would begin where 16 bits cannot tell."""
    long: Changes = {part: {"volume": 2**18, **FREE.get(part, {})} for part in PARTS.values()}
    app, dataset, _, request = world.four(dataset=True, **long)
    for volume in (2**16 - 1, 1):
        pool = world.signed(world.pool_order(volume=volume, workerpoolprice=0))
        boost(world, (app, dataset, pool, request))
    for volume in (1, 2**17):
        pool = world.signed(world.pool_order(volume=volume))
        assert refusal_of(world, (app, dataset, pool, request)) == overflow(16, 2**16)


def test_a_price_that_nobody_can_lock(world: World) -> None:
    """Up to the widest that is accepted, and above what our packing holds."""
    for price in (2**64 - 1, 2**64, HUGE - 1):
        for part, name in ((A, "appprice"), (P, "workerpoolprice"), (D, "datasetprice")):
            changes: Changes = {part: {name: price}, R: {name.replace("price", "maxprice"): price}}
            assert refusal_of(world, world.four(dataset=True, **changes)) == TOO_POOR


@pytest.mark.parametrize("function", ["pushResultBoost", "claimBoost"])
def test_the_end_of_a_task_is_refused_in_order(world: World, function: str) -> None:
    """Existence, status, time; then, for a push, what is signed."""
    dealid = boost(world, world.four(tee=True, volume=2, request={"callback": SOMEBODY}))
    deadline = world.hub.viewDealBoost(dealid).deadline

    def ends(index: int, **options: Any) -> bytes:
        if function == "claimBoost":
            return refused(world, "stranger", "claimBoost", dealid, index)
        return refused_push(world, dealid, index, **options)

    push(world, dealid, 0, tee=True, callback=b"data")
    if function == "claimBoost":
        assert ends(0) == refusal("Task status not unset")
        assert ends(1) == refusal("Deadline not reached")
    world.chain.at(deadline - 1)
    assert ends(2) == refusal("Unknown task")
    if function == "pushResultBoost":
        assert ends(1, signer="worker") == refusal("Tag requires enclave challenge")
        invalid = refusal("Invalid contribution authorization signature")
        assert ends(1, tee=True, signer="worker", enclave="stranger") == invalid
        *arguments, sign = pushing(world, dealid, 1, tee=True)
        assert refused(world, "worker", function, *arguments, sign[:64] + b"\x1d") == refusal(
            "Invalid enclave signature"
        )
        assert refused(world, "worker", function, *arguments, sign[:63]) == BAD_FORMAT
        assert ends(1, tee=True) == refusal(
            "Invalid enclave signature"
        )  # of the results; there is a callback
        empty = pushing(world, dealid, 1, tee=True)
        signed = sealed(world, dealid, 1, b"")
        assert refused(world, "worker", function, *empty[:-1], signed) == refusal("Callback requires data")
    world.chain.at(deadline)
    assert ends(2) == refusal("Unknown task")
    assert ends(0) == refusal("Task status not unset")
    if function == "pushResultBoost":
        assert ends(1, signer="worker") == refusal("Deadline reached")
    else:
        answer(world, "stranger", "claimBoost", dealid, 1)


# ---- Beside classic deals ----------------------------------------------------------------------------------


def test_one_used_volume_for_both(world: World) -> None:
    """Ids go on from one kind of deal to the other; a boost task's index begins at zero all the same."""
    app, dataset, _, request = world.four(dataset=True, volume=6)

    def part(volume: int) -> Four:
        return app, dataset, world.signed(world.pool_order(volume=volume)), request

    first = boost(world, part(1))
    second, _ = world.match(part(2))
    third = boost(world, part(2))
    hashed = request.hash(world.domain)
    assert [first, second, third] == [deal_id(hashed, used) for used in (0, 1, 3)]
    assert world.hub.computeDealVolume(*tuples(part(9))) == 1
    assert consumed(world, part(9)) == [5, 5, 0, 5]
    deal = world.hub.viewDealBoost(third)
    assert (deal.botFirst, deal.botSize) == (3, 2)
    push(world, third, 0)
    push(world, third, 1)
    assert refused_push(world, third, 3) == refusal("Unknown task")
    assert world.hub.viewDeal(second).botFirst == 1
    world.first_task(second, 1)


@pytest.mark.parametrize("volume", [1, 2, 300])
def test_a_request_that_a_boost_deal_used_up(world: World, volume: int) -> None:
    orders = world.four(volume=volume, **FREE)
    boost(world, orders)
    again = (*world.four(volume=volume, **FREE)[:3], orders[3])
    assert refusal_of(world, again) == refusal("One or more orders consumed")
    assert refused(world, "stranger", "matchOrders", *tuples(again)) == text("iExecV5-matchOrders-0x60")
    assert world.hub.viewConsumed(orders[3].hash(world.domain)) == volume
    assert world.hub.computeDealVolume(*tuples(again)) == 0


def test_a_request_that_is_closed(world: World) -> None:
    """Before its first deal, and after a boost deal."""
    for used in (0, 1):
        app, dataset, _, request = world.four(dataset=True, volume=3)
        if used:
            boost(world, (app, dataset, world.signed(world.pool_order()), request))
        act(world, "requester", "manageRequestOrder", (request.as_tuple(), 1, b""))
        assert world.hub.viewConsumed(request.hash(world.domain)) == 3
        pool = world.signed(world.pool_order())
        assert refusal_of(world, (app, dataset, pool, request)) == refusal("One or more orders consumed")
        nothing = deal_id(request.hash(world.domain), 3 * used)
        assert world.hub.viewDealBoost(nothing).botSize == 0
        assert refused_push(world, nothing) == refusal("Unknown task")


def empty(world: World, view: str) -> Any:
    return world.hub.call(view, keccak(b"no deal"))


@pytest.mark.parametrize("options", [{}, {"request": {"callback": SOMEBODY}}, {"dataset": True, "tee": True}])
def test_a_boost_deal_is_no_classic_one(world: World, options: dict[str, Any]) -> None:
    dealid = boost(world, world.four(volume=2, **options))
    taskid = task_id(dealid, 0)
    assert world.hub.viewDeal(dealid) == empty(world, "viewDeal")
    for index in (0, 1):
        assert refused(world, "stranger", "initialize", dealid, index) == NO_DATA
        assert refused(world, "stranger", "initializeAndClaimArray", [dealid], [index]) == NO_DATA
    assert refused(world, "stranger", "claim", taskid) == NO_DATA
    data = world.signed(world.dataset_order())
    incompatible = keccak(b"IncompatibleDatasetOrder(string)")[:4] + encode(["string"], ["Deal not found"])
    assert (
        refused(world, "stranger", "assertDatasetDealCompatibility", data.as_tuple(), dealid) == incompatible
    )


def test_an_ended_boost_task_is_no_classic_one(world: World) -> None:
    dealid = boost(world, world.four(volume=2))
    push(world, dealid)
    world.chain.at(world.hub.viewDealBoost(dealid).deadline + 10 * TIMEREF)
    act(world, "stranger", "claimBoost", dealid, 1)
    for index in (0, 1):
        taskid = task_id(dealid, index)
        made = world.enclave(taskid)
        contribution = made.challenge, made.sign, made.authorization
        for call in (
            ("initialize", dealid, index),
            ("contribute", taskid, made.hash, made.seal, *contribution),
            ("contributeAndFinalize", taskid, made.digest, RESULTS, b"", *contribution),
            ("reveal", taskid, made.digest),
            ("claim", taskid),
            ("claimArray", [taskid]),
        ):
            assert refused(world, "worker", *call) == NO_DATA
        assert refused(world, "scheduler", "reopen", taskid) == NO_DATA
        assert refused(world, "scheduler", "finalize", taskid, RESULTS, b"") == NO_DATA


def test_a_classic_deal_is_no_boost_one(world: World) -> None:
    for options in ({}, {"dataset": True, "tee": True, "volume": 300, **FREE}):
        dealid = world.deal(**options)
        assert world.hub.viewDealBoost(dealid) == empty(world, "viewDealBoost")
        assert refused_push(world, dealid) == refusal("Unknown task")
        assert refused(world, "stranger", "claimBoost", dealid, 0) == refusal("Unknown task")
        assert refused_push(world, bytes(10) + dealid[10:]) == refusal("Unknown task")


def test_a_deal_whose_id_ends_like_another(world: World) -> None:
    """Our key of a deal is the end of its id; the rest is compared."""
    dealid = boost(world, world.four())
    other = bytes(10) + dealid[10:]
    assert world.hub.viewDealBoost(other) == empty(world, "viewDealBoost")
    assert refused_push(world, other) == refusal("Unknown task")
    assert refused(world, "stranger", "claimBoost", other, 0) == refusal("Unknown task")


def test_a_boost_deal_made_to_look_like_a_classic_one(ours: World) -> None:
    """Attack on our records: where a classic deal keeps the high part of its id, prices put a boost deal's,
    for the id does not depend on them. Were it taken for a classic deal, its money could be had twice."""
    world = ours
    with world.chain.undone():
        rich = 2**55
        for role in ("requester", "scheduler"):
            world.enrich(world.who(role), rich)
        while True:
            request = world.request_order(appmaxprice=rich, workerpoolmaxprice=rich)
            dealid = deal_id(Signed(request, b"").hash(world.domain), 0)
            # Bytes 29 to 38 of the record are the end of the app's price, and all but the last of the pool's.
            app_price, pool_price = (
                int.from_bytes(part, "big") for part in (dealid[:3], dealid[3:10] + b"\0")
            )
            if app_price + pool_price < rich:
                break
        pool = world.pool_order(workerpoolprice=pool_price)
        orders = world.app_order(appprice=app_price), pool, request
        app, pool_, request_ = (world.signed(order) for order in orders)
        assert boost(world, (app, NO_DATASET, pool_, request_)) == dealid
        assert world.hub.viewDeal(dealid) == empty(world, "viewDeal")
        assert refused(world, "stranger", "initialize", dealid, 0) == NO_DATA
        push(world, dealid)


# ---- Views -------------------------------------------------------------------------------------------------


def test_views_show_the_status_and_nothing_else(world: World) -> None:
    dealid = boost(world, world.four(volume=3, request={"callback": recorder(world)}))
    push(world, dealid, 0, callback=b"for the callback")
    world.chain.at(world.hub.viewDealBoost(dealid).deadline)
    act(world, "stranger", "claimBoost", dealid, 1)
    nothing = task_of(world, keccak(b"no task"))
    for index, status in enumerate((COMPLETED, FAILED, UNSET)):
        taskid = task_id(dealid, index)
        assert task_of(world, taskid) == {**nothing, "status": status}
        flat = world.hub.viewTaskABILegacy(taskid)
        assert flat == (status, *world.hub.viewTaskABILegacy(keccak(b"no task"))[1:])
        assert world.hub.viewContribution(taskid, world.who("worker")).status == 0
        if status == COMPLETED:
            assert world.hub.resultFor(taskid) == b""
        else:
            assert refused(world, "stranger", "resultFor", taskid) == text("task-pending")


@given(data=st.data())
def test_a_record_shows_what_went_in(ours: World, data: st.DataObject) -> None:
    """Ours alone packs it."""
    world = ours
    some = st.integers(0, 2**16) | st.sampled_from([0, RLC, 2**40, 10**15])
    prices = {name: data.draw(some, name) for name in ("app", "dataset", "pool")}
    dataset, sponsored = data.draw(st.booleans(), "dataset"), data.draw(st.booleans(), "sponsored")
    each = prices["app"] + prices["pool"] + (prices["dataset"] if dataset else 0)
    volume = data.draw(st.sampled_from([1, 2, 255, 256, 2**16 - 1]) | st.integers(1, 2**16 - 1), "volume")
    volume = max(1, min(volume, 10**16 // max(each, 1)))
    bits = data.draw(st.integers(0, 2**24 - 1), "tag") & ~1
    ratio = data.draw(st.integers(0, 100), "ratio")
    callback = data.draw(st.sampled_from([ZERO, SOMEBODY, address("0x" + "ff" * 20)]), "callback")
    payer = "sponsor" if sponsored else "requester"
    with world.chain.undone():
        pool = world.entry("Workerpool", world.pool, world.who("scheduler"))
        pool.send("changePolicy", 30, ratio)
        for role in ("requester", "sponsor", "scheduler"):
            world.enrich(world.who(role), 10**16)
        orders = world.four(
            dataset=dataset,
            volume=volume,
            app={"appprice": prices["app"]},
            data={"datasetprice": prices["dataset"]},
            pool={"workerpoolprice": prices["pool"], "tag": tag(2**24 - 1)},
            request={
                "appmaxprice": prices["app"],
                "datasetmaxprice": prices["dataset"] if dataset else 0,
                "workerpoolmaxprice": prices["pool"],
                "callback": callback,
                "tag": tag(bits),
            },
        )
        dealid = boost(world, orders, payer)
        expected = BoostAgreed(orders, volume=volume, payer=payer).deal(world, world.chain.now())
        reward = prices["pool"] * (100 - ratio) // 100
        assert world.hub.viewDealBoost(dealid) == {**expected, "workerReward": reward}
        assert world.hub.viewDeal(dealid) == empty(world, "viewDeal")
        assert world.hub.viewConsumed(orders[3].hash(world.domain)) == volume


# ---- Money -------------------------------------------------------------------------------------------------


def comes_out_even(world: World, payer: str) -> None:
    """Of 130 tasks most are pushed and the rest claimed, in any order: no lock is left, nothing is lost."""
    size, lost = 130, {0, 1, 64, 127, 128, 129}
    with moves(world) as moved:
        dealid = boost(world, world.four(dataset=True, volume=size), payer)
        for index in reversed(range(size)):
            if index not in lost:
                push(world, dealid, index, worker=("worker", "worker2", "worker3")[index % 3])
        world.chain.at(world.hub.viewDealBoost(dealid).deadline)
        for index in lost:
            act(world, "stranger", "claimBoost", dealid, index)
    done = size - len(lost)
    workers = {role: amounts for role, amounts in moved.items() if role.startswith("worker")}
    assert sum(free for free, _ in workers.values()) == done * WORKER_REWARD
    assert {role: amounts for role, amounts in moved.items() if role not in workers} == {
        payer: (-done * PRICE, 0),
        "app": (done * APP_PRICE, 0),
        "dataset": (done * DATASET_PRICE, 0),
        "scheduler": (done * SCHEDULER_REWARD - len(lost) * STAKE, 0),
        "kitty": (0, len(lost) * STAKE),
    }
    for index in range(size):
        expected = FAILED if index in lost else COMPLETED
        assert task_of(world, task_id(dealid, index)).status == expected
        assert refused_push(world, dealid, index) == refusal("Task status not unset")


def test_a_bag_comes_out_even(world: World) -> None:
    comes_out_even(world, "requester")


def test_a_sponsored_bag_comes_out_even(ours: World) -> None:
    """(The official hub would seize the requester.)"""
    with ours.chain.undone():
        comes_out_even(ours, "sponsor")


def test_one_account_in_every_role(world: World) -> None:
    """App, dataset, pool, request and work are all the requester's: what it paid it has again."""
    app, dataset, pool = (
        new("mine", "requester") for new in (world.new_app, world.new_dataset, world.new_pool)
    )
    orders = (
        world.app_order(app=app),
        world.dataset_order(dataset=dataset),
        world.pool_order(workerpool=pool),
        world.request_order(app=app, dataset=dataset),
    )
    with moves(world) as moved:
        dealid = boost(world, tuple(world.signed(order, "requester") for order in orders))
        assert world.account("requester")[1] == PRICE + STAKE
        push(world, dealid, worker="requester", signer="requester")
    assert moved == {}


@pytest.mark.parametrize("price", [0, 1, 3, POOL_PRICE, 1_000 * RLC])
def test_the_kitty_gives_a_tenth_one_rlc_at_least_all_at_most(world: World, price: int) -> None:
    """Fed with the stake of a lost task of this price."""
    dear: Changes = {P: {"workerpoolprice": price}, R: {"workerpoolmaxprice": price}}
    lost = boost(world, world.four(**dear))
    world.chain.at(world.hub.viewDealBoost(lost).deadline)
    act(world, "stranger", "claimBoost", lost, 0)
    won = boost(world, world.four(**dear))
    kitty = price * 30 // 100
    share = min(max(kitty // 10, RLC), kitty)
    done = push(world, won)
    taskid = task_id(won, 0)
    fee = price - price * 95 // 100
    told = [
        *(seize(world, "kitty", share, taskid) if kitty else []),
        *reward(world, "scheduler", fee + share, taskid),
        ("ResultPushedBoost", won, 0, RESULTS),
    ]
    assert done.events[-len(told) :] == told
    assert world.account("0x99c2268479b93fDe36232351229815DF80837e23") == (0, kitty - share)


def test_free_resources_are_not_rewarded_but_all_else_is_told(world: World) -> None:
    dealid = boost(world, world.four(dataset=True, **FREE))
    names = ["Seize", "Transfer", "Reward", "Transfer", "Unlock", "Transfer", "Reward", "ResultPushedBoost"]
    assert push(world, dealid).names == names


def test_the_price_of_an_absent_dataset_counts_for_nothing(ours: World) -> None:
    """Even one that no arithmetic could add. (The official hub adds it: Panic, or a lock for ever.)"""
    with ours.chain.undone():
        for price in (1, 2**64, 2**256 - 1):
            absent = replace(NO_DATASET, order=replace(NO_DATASET.order, datasetprice=price))
            app, _, pool, request = ours.four(request={"datasetmaxprice": price})
            with moves(ours) as moved:
                dealid = boost(ours, (app, absent, pool, request))
            assert moved["requester"] == (DATASET_PRICE - PRICE, PRICE - DATASET_PRICE)
            assert ours.hub.viewDealBoost(dealid).datasetPrice == 0


# ---- Signatures, results, callbacks ------------------------------------------------------------------------


def test_who_may_sign_a_push(world: World) -> None:
    """Short signatures, wallets as enclave and as broker; who has no enclave asks no broker."""
    dealid = boost(world, world.four(volume=4))
    *head, challenge, sign = pushing(world, dealid, 0)
    r, s, v = head[4][:32], int.from_bytes(head[4][32:64], "big"), head[4][64]
    short = r + (s | (v - 27) << 255).to_bytes(32, "big")
    act(world, "worker", "pushResultBoost", *head[:4], short, challenge, sign)
    wallet = answering(world, YES)
    act(world, "owner", "setTeeBroker", wallet)
    push(world, dealid, 1)
    act(world, "worker", "pushResultBoost", dealid, 2, RESULTS, b"", b"any", wallet, b"any length at all")
    act(world, "owner", "setTeeBroker", answering(world, bytes(32)))
    invalid = refusal("Invalid contribution authorization signature")
    assert refused_push(world, dealid, 3, tee=True) == invalid


def test_the_zero_address_is_no_enclave(world: World) -> None:
    """Where the tag asks for one, it does not count; elsewhere nothing is signed for it."""
    *arguments, _ = pushing(world, boost(world, world.four(tee=True)))
    junk = b"\x07" * 65
    asked = refusal("Tag requires enclave challenge")
    assert refused(world, "worker", "pushResultBoost", *arguments, junk) == asked
    *arguments, _ = pushing(world, boost(world, world.four()))
    act(world, "worker", "pushResultBoost", *arguments, junk)


def test_data_without_a_callback_are_not_signed(world: World) -> None:
    """The enclave signs the results."""
    dealid = boost(world, world.four(tee=True))
    _, _, results, _, authorised, challenge, _ = pushing(world, dealid, tee=True)
    arguments = dealid, 0, results, b"data that nobody gets", authorised, challenge
    wrong = sealed(world, dealid, 0, b"data that nobody gets")
    invalid = refusal("Invalid enclave signature")
    assert refused(world, "worker", "pushResultBoost", *arguments, wrong) == invalid
    act(world, "worker", "pushResultBoost", *arguments, sealed(world, dealid, 0, results))


def test_a_callback_sees_its_task_completed(world: World) -> None:
    """It comes last: whatever it calls finds the task ended and everyone paid."""
    consumer = recorder(world)
    dealid = boost(world, world.four(request={"callback": consumer}))
    done = push(world, dealid, callback=b"\x01" * 1024)
    assert done.names[-1] == "ResultPushedBoost"
    told = encode(["bytes32", "bytes"], [task_id(dealid, 0), b"\x01" * 1024])
    assert recorded(world, consumer)[0] == keccak(keccak(b"receiveResult(bytes32,bytes)")[:4] + told)


def test_the_longest_results(ours: World) -> None:
    """1024 bytes, as in classic tasks. (The official hub has no bound.)"""
    with ours.chain.undone():
        dealid = boost(ours, ours.four())
        *head, _, callback, signed, challenge, sign = pushing(ours, dealid)
        assert head == [dealid, 0]
        for results, data in ((b"x" * 1025, b""), (b"", b"x" * 1025)):
            arguments = dealid, 0, results, data, signed, challenge, sign
            assert refused(ours, "worker", "pushResultBoost", *arguments) == NO_DATA
        done = act(
            ours, "worker", "pushResultBoost", dealid, 0, b"x" * 1024, callback, signed, challenge, sign
        )
        assert done.events[-1] == ("ResultPushedBoost", dealid, 0, b"x" * 1024)


def test_answers_of_a_match(world: World) -> None:
    """Both forms answer the deal's id."""
    for by, function in (("stranger", "matchOrdersBoost"), ("sponsor", "sponsorMatchOrdersBoost")):
        orders = world.four()
        expected = deal_id(orders[3].hash(world.domain), 0)
        assert answer(world, by, function, *tuples(orders)) == expected


def test_a_sponsor_pays_for_its_own_match_alone(world: World) -> None:
    """What follows in the same transaction is paid by its requester."""
    hub = world.hub.address[2:]
    call = f"5f5f 82 5f5f 73{hub} 5af1 50"
    # Calls the hub with as many bytes as the first word says, then with the rest.
    both = install(world, bytes.fromhex(f"5f35 80 6020 5f37 {call} 6020 81 01 80 36 03 80 82 5f37 {call} 00"))
    act(world, "owner", "approve", world.hub.address, PRICE, on=world.token)
    act(world, "owner", "depositFor", PRICE, both)
    for function in ("matchOrdersBoost", "matchOrders"):
        first, second = (tuples(world.four(dataset=True)) for _ in range(2))
        sponsored = world.hub.encode("sponsorMatchOrdersBoost", *first)
        data = len(sponsored).to_bytes(32, "big") + sponsored + world.hub.encode(function, *second)
        with world.chain.undone():
            with moves(world) as moved:
                world.chain.send(both, data, world.who("stranger"))
            assert world.account(both) == (0, PRICE)
            assert moved == {"requester": (-PRICE, PRICE), "scheduler": (-2 * STAKE, 2 * STAKE)}
