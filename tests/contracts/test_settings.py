"""What a deployment chooses, what the owner changes later, and what that can do to nobody.

Broker, gas of callbacks, registries, the kitty's cap; scores of the past; requests that choose their matcher.
Titles of the official suite about configuration are in behaviours/test_configuration.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from eth_abi.abi import encode

from sealdeal.model.deals import (
    FINAL_RATIO,
    KITTY,
    Execute,
    authorisation_blob,
    authorisation_message,
    deal_id,
    quorum_domain,
    task_id,
)
from sealdeal.model.eip712 import digest
from sealdeal.model.types import RLC, ZERO, Address, address, keccak
from tests.contracts.revm import Revm
from tests.contracts.world import (
    CATEGORIES,
    CHAIN_ID,
    POOL_PRICE,
    Contract,
    Done,
    Options,
    World,
    code,
    refusal,
    text,
)

NOT_OWNER = text("Ownable: caller is not the owner")
SOMEBODY = address("0x" + "5b" * 20)
FINAL = FINAL_RATIO * max(seconds for *_, seconds in CATEGORIES)
"""Seconds from a match to the final deadline, in the longest category."""
BOTH = Options(kitty_capped=True, changes_delayed=True)
STAKE = POOL_PRICE * 30 // 100

# A contract that answers 7 to everything: a hub of version 3.
ANSWER = bytes.fromhex("600a600c600039600a6000f3600760005260206000f3")
# One that answers 1: a registry that knows every entry.
YES = bytes.fromhex("600a600c600039600a6000f3600160005260206000f3")


@cache
def deployed(options: Options) -> World:
    return World.start(Revm(), options=options)


def using(options: Options) -> Iterator[World]:
    world = deployed(options)
    with world.chain.undone():
        yield world


@pytest.fixture
def world() -> Iterator[World]:
    yield from using(Options())


@pytest.fixture
def strict() -> Iterator[World]:
    """With both options."""
    yield from using(BOTH)


def selector(signature: str) -> bytes:
    return keccak(signature.encode())[:4]


BROKER, GAS, REGISTRIES = (
    selector(f"{name}({','.join(kinds)})")
    for name, kinds in (
        ("setTeeBroker", ["address"]),
        ("setCallbackGas", ["uint256"]),
        ("changeRegistries", ["address"] * 3),
    )
)


# ---- The kitty ---------------------------------------------------------------------------------------------


def filled_kitty(world: World, amount: int) -> None:
    """A task that nobody works on leaves its scheduler's stake in the kitty."""
    price = amount * 100 // 30
    taskid = world.task(pool={"workerpoolprice": price}, request={"workerpoolmaxprice": price})
    world.chain.at(world.chain.now() + FINAL)
    world.hub.claim(taskid)
    assert world.hub.frozenOf(KITTY) == amount


def settled(world: World, price: int, how: str) -> Done:
    """The transaction that ends a task whose pool costs this."""
    orders = world.four(pool={"workerpoolprice": price}, request={"workerpoolmaxprice": price})
    if how == "boost":
        world.hub.matchOrdersBoost(*(order.as_tuple() for order in orders))
        dealid = deal_id(orders[3].hash(world.domain), 0)
        worker = world.who("worker")
        message = authorisation_message(worker, task_id(dealid, 0), ZERO)
        sign = world.keys["scheduler"].sign_message(message)
        pushed: Done = world.hub.pushResultBoost(dealid, 0, b"results", b"", sign, ZERO, b"", sender=worker)
        return pushed
    taskid = world.first_task(world.match(orders)[0])
    if how == "direct":
        return world.direct(taskid, b"results")
    world.contribute(taskid)
    world.hub.reveal(taskid, keccak(b"result"), sender=world.who("worker"))
    done: Done = world.hub.finalize(taskid, b"results", b"", sender=world.who("scheduler"))
    return done


def paid(done: Done) -> list[int]:
    """What the kitty paid, as its events tell."""
    return [event[2] for event in done.events if event[0] == "Seize" and event[1] == KITTY]


KITTY_HOLDS = 90 * RLC


@pytest.mark.parametrize("how", ["direct", "finalize", "boost"])
@pytest.mark.parametrize(
    ("price", "official", "capped"),
    [
        (0, 9 * RLC, 0),
        (10 * RLC, 9 * RLC, 3 * RLC),
        (30 * RLC, 9 * RLC, 9 * RLC),
        (100 * RLC, 9 * RLC, 9 * RLC),
    ],
)
def test_a_capped_kitty_pays_no_more_than_the_scheduler_risked(
    world: World, strict: World, price: int, official: int, capped: int, how: str
) -> None:
    for one, share in ((world, official), (strict, capped)):
        filled_kitty(one, KITTY_HOLDS)
        before = one.account("scheduler")[0]
        done = settled(one, price, how)
        assert paid(done) == ([share] if share else [])
        assert one.hub.frozenOf(KITTY) == KITTY_HOLDS - share
        reward = price - price * 95 // 100
        assert one.account("scheduler")[0] - before == reward + share


def test_the_cap_is_of_this_task_not_of_the_deal(strict: World) -> None:
    filled_kitty(strict, KITTY_HOLDS)
    price = 10 * RLC
    dealid = strict.deal(volume=3, pool={"workerpoolprice": price}, request={"workerpoolmaxprice": price})
    assert paid(strict.direct(strict.first_task(dealid), b"results")) == [3 * RLC]


def test_a_deployment_says_its_options(world: World, strict: World) -> None:
    assert (world.hub.kitty_capped(), world.hub.changes_delayed()) == (False, False)
    assert (strict.hub.kitty_capped(), strict.hub.changes_delayed()) == (True, True)
    for one in deployed(Options(kitty_capped=True)), deployed(Options(changes_delayed=True)):
        assert one.hub.kitty_capped() != one.hub.changes_delayed()


def test_nothing_changes_the_options(strict: World) -> None:
    """They share a slot with broker, callback gas and kitty."""
    filled_kitty(strict, KITTY_HOLDS)
    for function, argument in (("setTeeBroker", "0x" + "ff" * 20), ("setCallbackGas", 2**30 - 1)):
        getattr(strict.hub, function)(argument)
    strict.chain.at(strict.chain.now() + FINAL)
    strict.hub.applyChange(BROKER)
    strict.hub.applyChange(GAS)
    settled(strict, 10 * RLC, "direct")
    assert (strict.hub.teebroker(), strict.hub.callbackgas()) == (address("0x" + "ff" * 20), 2**30 - 1)
    assert (strict.hub.kitty_capped(), strict.hub.changes_delayed()) == (True, True)
    assert strict.hub.frozenOf(KITTY) == KITTY_HOLDS - 3 * RLC


# ---- Delayed changes ---------------------------------------------------------------------------------------


def words(*values: Address | int) -> list[int]:
    """Arguments as `viewChange` shows them."""
    numbers = [int(value, 16) if isinstance(value, str) else value for value in values]
    return numbers + [0] * (3 - len(numbers))


def state(world: World) -> tuple[Any, ...]:
    hub = world.hub
    return (
        hub.teebroker(),
        hub.callbackgas(),
        (hub.appregistry(), hub.datasetregistry(), hub.workerpoolregistry()),
    )


CHANGES = [
    ("setTeeBroker", BROKER, (SOMEBODY,), 0),
    ("setCallbackGas", GAS, (54321,), 1),
    ("changeRegistries", REGISTRIES, (SOMEBODY, ZERO, address("0x" + "5c" * 20)), 2),
]


@pytest.mark.parametrize(("function", "name", "arguments", "place"), CHANGES)
def test_a_change_waits_until_every_deal_of_its_day_has_ended(
    strict: World, function: str, name: bytes, arguments: tuple[Any, ...], place: int
) -> None:
    hub, before = strict.hub, state(strict)
    taskid = strict.task(pool={"category": 2}, request={"category": 2})
    assert refusal(hub, function, *arguments, sender=strict.who("stranger")) == NOT_OWNER
    done = hub.send(function, *arguments)
    effective = strict.chain.now() + FINAL
    assert done.events == [("ChangeScheduled", name, tuple(words(*arguments)), effective)]
    assert state(strict) == before
    assert tuple(hub.viewChange(name).values()) == (tuple(words(*arguments)), effective)
    assert hub.viewTask(taskid).finalDeadline <= effective
    strict.chain.at(effective - 1)
    assert refusal(hub, "applyChange", name) == text("configuration: too early")
    strict.chain.at(effective)
    done = hub.applyChange(name, sender=strict.who("stranger"))
    assert done.events == [("ChangeApplied", name, tuple(words(*arguments)))]
    after = state(strict)
    assert after[place] == (arguments if place == 2 else arguments[0])
    assert [after[n] for n in range(3) if n != place] == [before[n] for n in range(3) if n != place]
    assert refusal(hub, "applyChange", name) == text("configuration: nothing waits")
    assert tuple(hub.viewChange(name).values()) == ((0, 0, 0), 0)


def test_a_decision_replaces_the_one_that_waits(strict: World) -> None:
    hub = strict.hub
    hub.setTeeBroker(SOMEBODY)
    strict.chain.at(strict.chain.now() + FINAL - 10)
    hub.setTeeBroker(ZERO)
    second = strict.chain.now()
    strict.chain.at(second + FINAL - 1)
    assert refusal(hub, "applyChange", BROKER) == text("configuration: too early")
    strict.chain.at(second + FINAL)
    hub.applyChange(BROKER)
    assert hub.teebroker() == ZERO


def test_what_waits_waits_apart(strict: World) -> None:
    hub = strict.hub
    hub.setTeeBroker(SOMEBODY)
    hub.setCallbackGas(7)
    strict.chain.at(strict.chain.now() + FINAL)
    hub.applyChange(GAS)
    assert state(strict)[:2] == (ZERO, 7)
    hub.applyChange(BROKER)
    assert state(strict)[:2] == (SOMEBODY, 7)


def test_a_longer_category_delays_later_changes_only(strict: World) -> None:
    hub = strict.hub
    hub.setTeeBroker(SOMEBODY)
    first = hub.viewChange(BROKER).effective
    hub.createCategory("long", "", 10 * FINAL)
    assert hub.viewChange(BROKER).effective == first
    hub.setCallbackGas(9)
    assert hub.viewChange(GAS).effective == strict.chain.now() + 100 * FINAL
    hub.createCategory("short", "", 1)
    hub.setCallbackGas(9)
    assert hub.viewChange(GAS).effective == strict.chain.now() + 100 * FINAL


def test_only_these_wait(strict: World) -> None:
    assert refusal(strict.hub, "applyChange", b"\0" * 4) == text("configuration: nothing waits")
    assert refusal(strict.hub, "setCallbackGas", 2**30) == text("settings: callback gas above 2**30")
    number = strict.hub.call("createCategory", "n", "d", 5)
    strict.hub.createCategory("n", "d", 5)
    assert strict.hub.viewCategory(number).workClockTimeRef == 5
    strict.hub.transferOwnership(SOMEBODY)
    assert strict.hub.owner() == SOMEBODY


def test_without_the_option_nothing_waits(world: World) -> None:
    for function, name, arguments, place in CHANGES:
        assert world.hub.send(function, *arguments).events == []
        assert state(world)[place] == (arguments if place == 2 else arguments[0])
        assert world.hub.viewChange(name).effective == 0
        assert refusal(world.hub, "applyChange", name) == text("configuration: nothing waits")


def test_the_first_broker_is_there_at_once() -> None:
    for delayed in (False, True):
        first = World.start(Revm(), furnished=False, options=Options(SOMEBODY, changes_delayed=delayed))
        assert first.hub.teebroker() == SOMEBODY


# ---- Registries --------------------------------------------------------------------------------------------


def another(world: World, kind: str, hub: Address | None = None) -> Contract:
    """A second registry of this kind that tells the hub of its entries."""
    arguments = encode(["address", "bytes"], [hub or world.hub.address, code(kind)])
    at = world.chain.deploy(code(f"{kind}Registry") + arguments, world.owner.address)
    return Contract(world.chain, f"{kind}Registry", at, world.owner.address)


def changed(world: World, apps: Address) -> None:
    """This is the registry of apps from now on."""
    world.hub.changeRegistries(apps, world.datasets.address, world.workerpools.address)


def unregistered(world: World, orders: tuple[Any, ...]) -> bool:
    """Whether a match is refused for the app."""
    arguments = (order.as_tuple() for order in orders)
    try:
        world.hub.call("matchOrders", *arguments)
    except Exception as refused:
        assert getattr(refused, "data", b"") == text("iExecV5-matchOrders-0x20")
        return True
    return False


def test_entries_of_a_former_registry_count_until_they_are_looked_up(world: World) -> None:
    orders, registry = world.four(), another(world, "App")
    changed(world, registry.address)
    assert not unregistered(world, orders)
    world.hub.updateEntries([world.app], sender=world.who("stranger"))
    assert unregistered(world, orders)
    # And count again when their registry is back.
    changed(world, world.apps.address)
    assert unregistered(world, orders)
    world.hub.updateEntries([world.app, world.dataset, world.pool, SOMEBODY])
    assert not unregistered(world, orders)
    world.deal(dataset=True)


def test_entries_that_the_new_registry_takes_over_go_on(world: World) -> None:
    """By its chain of previous registries, as officially."""
    orders, registry = world.four(), another(world, "App")
    registry.initialize(world.apps.address)
    changed(world, registry.address)
    world.hub.updateEntries([world.app])
    assert not unregistered(world, orders)
    # Their sales are told by the registry they are in.
    app = int(world.app, 16)
    world.apps.transferFrom(world.who("app"), SOMEBODY, app, sender=world.who("app"))
    assert unsigned(world, orders)


def unsigned(world: World, orders: tuple[Any, ...]) -> bool:
    said = refusal(world.hub, "matchOrders", *(order.as_tuple() for order in orders))
    return said == text("iExecV5-matchOrders-0x21")


def test_a_sale_in_a_former_registry_counts(world: World) -> None:
    """Looked up or not, the former owner cannot sign any more."""
    orders = world.four()
    changed(world, another(world, "App").address)
    app = int(world.app, 16)
    world.apps.transferFrom(world.who("app"), world.who("sponsor"), app, sender=world.who("app"))
    assert unsigned(world, orders)
    sold = replace(orders[0], sign=world.signed(orders[0].order, "sponsor").sign)
    assert not unregistered(world, (sold, *orders[1:]))
    world.hub.updateEntries([world.app])
    world.apps.transferFrom(world.who("sponsor"), world.who("app"), app, sender=world.who("sponsor"))
    assert unregistered(world, orders)
    changed(world, world.apps.address)
    world.hub.updateEntries([world.app])
    assert not unregistered(world, orders)


def test_new_entries_of_a_former_registry_do_not_count(world: World) -> None:
    changed(world, another(world, "App").address)
    late = world.new_app("late")
    assert unregistered(world, world.four(app={"app": late}, request={"app": late}))
    world.hub.updateEntries([late])
    assert unregistered(world, world.four(app={"app": late}, request={"app": late}))


def test_entries_of_a_new_registry_count_at_once(world: World) -> None:
    registry = another(world, "App")
    arguments = (world.who("app"), "new", "DOCKER", b"", b"\1" * 32, b"")
    refused = text("settings: not a registry of this kind")
    assert refusal(registry, "createApp", *arguments) == refused
    changed(world, registry.address)
    made = registry.call("createApp", *arguments)
    registry.createApp(*arguments)
    dealid = world.deal(app={"app": made}, request={"app": made})
    assert world.hub.viewDeal(dealid).app.pointer == made


def test_a_registry_tells_of_its_own_entries_only(world: World) -> None:
    """The owner's registry cannot take an entry that another one made, nor one that does not exist yet."""
    thief = world.who("stranger")
    changed(world, thief)
    record = int(thief, 16) | 1 << 184
    refused = text("settings: not an entry of this registry")
    assert refusal(world.hub, "sync", world.app, record, sender=thief) == refused
    late = world.apps.call("createApp", world.who("app"), "later", "DOCKER", b"", b"\1" * 32, b"")
    assert refusal(world.hub, "sync", late, record, sender=thief) == b""
    assert refusal(world.hub, "sync", world.app, record | 2 << 184, sender=thief) == text(
        "settings: not a registry of this kind"
    )
    # What says that it is the thief's may be the thief's.
    own = world.chain.deploy(naming(thief), thief)
    world.hub.sync(own, record, sender=thief)
    assert world.hub.viewDeal(world.deal()).app.owner == world.who("app")


def naming(registry: Address) -> bytes:
    """Creation code of a contract that answers this address to everything."""
    runtime = b"\x73" + bytes.fromhex(registry[2:]) + bytes.fromhex("60005260206000f3")
    return bytes([0x60, len(runtime), 0x80, 0x60, 9, 0x5F, 0x39, 0x5F, 0xF3]) + runtime


def test_a_registry_cannot_tell_of_what_would_break_a_settlement(world: World) -> None:
    """A scheduler's ratio above 100 % would pay out more than there is."""
    thief = world.who("stranger")
    world.hub.changeRegistries(world.apps.address, world.datasets.address, thief)
    own = world.chain.deploy(naming(thief), thief)
    record = int(thief, 16) | 3 << 184
    refused = text("settings: scheduler ratio above 100")
    assert refusal(world.hub, "sync", own, record | 101 << 176, sender=thief) == refused
    world.hub.sync(own, record | 100 << 176, sender=thief)


def test_a_registry_that_knows_everything_registers_no_stranger(world: World) -> None:
    """Such as an app as a workerpool: the kind is that of the registry that made the entry."""
    liar = world.chain.deploy(YES, world.owner.address)
    world.hub.changeRegistries(liar, liar, liar)
    world.hub.updateEntries([world.app, world.dataset, world.pool])
    world.deal(dataset=True)
    orders = world.four(dataset=True, pool={"workerpool": world.app})
    assert refusal(world.hub, "matchOrders", *(o.as_tuple() for o in orders)) == text(
        "iExecV5-matchOrders-0x40"
    )


def test_a_registry_keeps_its_kind(world: World) -> None:
    """So an owner who mixes them up cannot stop sales."""
    world.hub.changeRegistries(world.datasets.address, world.apps.address, world.workerpools.address)
    app = int(world.app, 16)
    world.apps.transferFrom(world.who("app"), SOMEBODY, app, sender=world.who("app"))
    assert world.apps.ownerOf(app) == SOMEBODY


def test_deals_of_before_do_not_change(world: World) -> None:
    dealid = world.deal(dataset=True)
    before, taskid = world.hub.viewDeal(dealid), world.first_task(dealid)
    changed(world, another(world, "App").address)
    world.hub.updateEntries([world.app])
    assert world.hub.viewDeal(dealid) == before
    world.direct(taskid, b"results")
    assert world.account("app")[0] == 10_003 * RLC


# ---- The past ----------------------------------------------------------------------------------------------


def with_scores(runtime: bytes) -> tuple[World, str]:
    """A network whose older hub is this contract, and its worker."""
    chain = Revm()
    older = chain.deploy(runtime, address("0x" + "01" * 20))
    return World.start(chain, options=Options(v3hub=older)), "worker"


def test_scores_are_imported_once() -> None:
    world, role = with_scores(ANSWER)
    worker = world.who(role)
    free = world.account(role)
    assert world.hub.importScore(worker, sender=world.who("stranger")).events == []
    assert world.hub.viewScore(worker) == 7
    assert world.account(role) == free
    assert refusal(world.hub, "importScore", worker) == text("score-already-imported")
    # A higher score of one's own stays.
    other = world.who("worker2")
    for _ in range(19):
        taskid = world.task(pool={"trust": 3}, request={"trust": 3})
        for name in ("worker2", "worker3"):
            if world.hub.viewTask(taskid).status == 1:
                world.contribute(taskid, name)
        for name in ("worker2", "worker3"):
            if world.hub.viewContribution(taskid, world.who(name)).status == 1:
                world.hub.reveal(taskid, keccak(b"result"), sender=world.who(name))
        world.hub.finalize(taskid, b"", b"", sender=world.who("scheduler"))
    own = world.hub.viewScore(other)
    assert own > 7
    world.hub.importScore(other)
    assert world.hub.viewScore(other) == own


def test_a_score_has_a_bound() -> None:
    """2^64 - 1 is taken, 2^64 is not."""
    for number, taken in ((2**64 - 1, True), (2**64, False)):
        runtime = b"\x68" + number.to_bytes(9, "big") + bytes.fromhex("60005260206000f3")
        world, role = with_scores(
            bytes([0x60, len(runtime), 0x80, 0x60, 9, 0x5F, 0x39, 0x5F, 0xF3]) + runtime
        )
        if taken:
            world.hub.importScore(world.who(role))
            assert world.hub.viewScore(world.who(role)) == number
        else:
            above = text("configuration: score above 2**64")
            assert refusal(world.hub, "importScore", world.who(role)) == above


# ---- Who may match -----------------------------------------------------------------------------------------


def chosen_four(world: World, matcher: Address, **options: Any) -> tuple[Any, ...]:
    salt = b"sealdeal:mtc" + bytes.fromhex(matcher[2:])
    return world.four(request={"salt": salt}, **options)


def matched(world: World, orders: tuple[Any, ...], function: str, sender: str) -> bytes:
    """The refusal of a match, empty if there is none."""
    arguments = tuple(order.as_tuple() for order in orders)
    with world.chain.undone():
        try:
            world.hub.send(function, *arguments, sender=world.who(sender))
        except Exception as refused:
            return bytes(refused.data)  # type: ignore[attr-defined]
    return b""


@pytest.mark.parametrize(
    "function", ["matchOrders", "sponsorMatchOrders", "matchOrdersBoost", "sponsorMatchOrdersBoost"]
)
def test_a_request_may_choose_its_matcher(world: World, function: str) -> None:
    orders = chosen_four(world, world.who("sponsor"))
    others = text("iExecV5-matchOrders-0x51")
    if function.endswith("Boost"):
        others = text("PocoBoost: Request order chooses another matcher")
    assert matched(world, orders, function, "sponsor") == b""
    assert matched(world, orders, function, "requester") == b""
    for role in ("scheduler", "app", "worker"):
        assert matched(world, orders, function, role) == others
    # Nobody but the requester, if nobody is chosen.
    nobody = chosen_four(world, ZERO)
    assert matched(world, nobody, function, "requester") == b""
    assert matched(world, nobody, function, "sponsor") == others


def test_another_salt_chooses_nobody(world: World) -> None:
    tail = bytes.fromhex(world.who("sponsor")[2:])
    for head in (b"sealdeal:mtd", b"Sealdeal:mtc", bytes(12), b"\0sealdeal:mt"):
        orders = world.four(request={"salt": head + tail})
        assert matched(world, orders, "matchOrders", "worker") == b""


def test_a_deposit_that_matches_is_the_requesters_own(world: World) -> None:
    """Through the token, which says who sends it; not by anyone's word to the hub."""
    orders = chosen_four(world, world.who("sponsor"))
    data = world.hub.encode("matchOrders", *(order.as_tuple() for order in orders))
    requester, hub = world.who("requester"), world.hub.address
    arguments = requester, 0, world.token.address, data
    refused = refusal(world.hub, "receiveApproval", *arguments, sender=world.who("stranger"))
    assert refused == text("iExecV5-matchOrders-0x51")
    assert world.hub.call("receiveApproval", *arguments, sender=world.who("sponsor")) is True
    done = world.token.approveAndCall(hub, 0, data, sender=requester)
    names = [event[0] for event in world.hub.events(done.receipt)]
    assert names[-1] == "OrdersMatched"
    # Another's tokens pay for nobody's request.
    again = chosen_four(world, world.who("sponsor"))
    data = world.hub.encode("matchOrders", *(order.as_tuple() for order in again))
    world.token.transfer(world.who("sponsor"), RLC)
    assert refusal(world.token, "approveAndCall", hub, RLC, data, sender=world.who("sponsor")) == selector(
        "CallerIsNotTheRequester()"
    )


# ---- Deposits that match -----------------------------------------------------------------------------------


def test_anyone_may_make_a_deposit_match_and_gains_nothing(world: World) -> None:
    """For somebody with an allowance: the tokens go to the account of whom they come from, and only a request
    that this one signed can be matched, which anyone can do anyway."""
    requester, token = world.who("requester"), world.token
    token.transfer(requester, 5 * RLC)
    token.approve(world.hub.address, 5 * RLC, sender=requester)
    orders = world.four()
    data = world.hub.encode("matchOrders", *(order.as_tuple() for order in orders))
    before = world.account("requester")
    stranger = world.account("stranger")
    world.hub.receiveApproval(requester, 5 * RLC, token.address, data, sender=world.who("stranger"))
    price = POOL_PRICE + 3 * RLC
    assert world.account("requester") == (before[0] + 5 * RLC - price, before[1] + price)
    assert world.account("stranger") == stranger
    assert world.hub.viewDeal(deal_id(orders[3].hash(world.domain), 0)).sponsor == requester


def test_data_that_hides_another_requester_is_refused(world: World) -> None:
    """The requester is read where the match reads it, wherever the offsets point."""
    mine, theirs = world.four(), world.four(request={"requester": world.who("sponsor")})
    good = world.hub.encode("matchOrders", *(order.as_tuple() for order in mine))
    bad = world.hub.encode("matchOrders", *(order.as_tuple() for order in theirs))
    body = good[4:]
    # The head of `bad`, whose request lies behind the whole of `good`.
    start = int.from_bytes(bad[4 + 96 : 4 + 128], "big")
    crafted = good[:100] + (len(body)).to_bytes(32, "big") + good[132:] + bad[4 + start :]
    requester, token = world.who("requester"), world.token.address
    said = refusal(world.hub, "receiveApproval", requester, 0, token, crafted, sender=requester)
    assert said == selector("CallerIsNotTheRequester()")
    for offset in (2**256 - 32, 2**255, len(body) - 32, 2**16):
        crafted = good[:100] + offset.to_bytes(32, "big") + good[132:]
        assert refusal(world.hub, "receiveApproval", requester, 0, token, crafted, sender=requester) == b""


# ---- Owned by the quorum -----------------------------------------------------------------------------------


def test_the_quorum_owns_a_hub(strict: World) -> None:
    """What its members sign, it does as the hub's owner."""
    chain, keys = strict.chain, sorted(strict.keys.values(), key=lambda key: int(key.address, 16))[:3]
    members = [key.address for key in keys]
    arguments = encode(["address[]", "uint256", "uint256", "string"], [members, 2, 60, "simulated"])
    at = chain.deploy(code("Quorum") + arguments, strict.owner.address)
    quorum = Contract(chain, "Quorum", at, strict.owner.address)
    strict.hub.transferOwnership(at)
    data = strict.hub.encode("setTeeBroker", at)
    wanted = Execute(strict.hub.address, data, 0, chain.now() + 60)
    signed = digest(quorum_domain(CHAIN_ID, at), wanted)
    *fields, until = wanted.as_tuple()
    blob = authorisation_blob(until, {key.address: key.sign_digest(signed) for key in keys[:2]})
    assert refusal(strict.hub, "setTeeBroker", at) == NOT_OWNER
    quorum.execute(*fields, blob, sender=strict.who("stranger"))
    assert strict.hub.viewChange(BROKER).arguments == tuple(words(at))
    chain.at(chain.now() + FINAL)
    strict.hub.applyChange(BROKER)
    assert strict.hub.teebroker() == at
