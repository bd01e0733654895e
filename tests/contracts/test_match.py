"""matchOrders: every rule, its code and its place in the order; volumes; the record (poco.md §5, §7)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from eth_abi.abi import encode

from sealdeal.model.deals import deal_id
from sealdeal.model.orders import NO_DATASET, Signed, tag
from sealdeal.model.types import RLC, ZERO, address, keccak
from tests.contracts.world import (
    APP_PRICE,
    DATASET_PRICE,
    POOL_PRICE,
    SCHEDULER_RATIO,
    WORKER_RATIO,
    World,
    panic,
    refusal,
    text,
)

SOMEBODY = address("0x" + "5b" * 20)
BALANCE = "IexecEscrow: Transfer amount exceeds balance"


def code(two: str) -> bytes:
    return text(f"iExecV5-matchOrders-0x{two}")


def refused(world: World, orders: tuple[Signed[Any], ...]) -> bytes:
    return refusal(world.hub, "matchOrders", *(o.as_tuple() for o in orders), sender=world.who("stranger"))


# ---- Rules -------------------------------------------------------------------------------------------------

A, D, P, R = "app", "data", "pool", "request"
RULES: list[tuple[str, dict[str, dict[str, Any]]]] = [
    ("00", {P: {"category": 1}}),
    ("01", {P: {"category": 9}, R: {"category": 9}}),
    ("02", {P: {"trust": 1}, R: {"trust": 2}}),
    ("03", {R: {"appmaxprice": APP_PRICE - 1}}),
    ("04", {R: {"datasetmaxprice": DATASET_PRICE - 1}}),
    ("05", {R: {"workerpoolmaxprice": POOL_PRICE - 1}}),
    ("06", {R: {"tag": tag(1 << 200)}}),
    ("07", {P: {"tag": tag(1)}, R: {"tag": tag(1)}}),
    ("10", {R: {"app": SOMEBODY}}),
    ("11", {R: {"dataset": SOMEBODY}}),
    ("12", {R: {"workerpool": SOMEBODY}}),
    ("13", {A: {"datasetrestrict": SOMEBODY}}),
    ("14", {A: {"workerpoolrestrict": SOMEBODY}}),
    ("15", {A: {"requesterrestrict": SOMEBODY}}),
    ("16", {D: {"apprestrict": SOMEBODY}}),
    ("17", {D: {"workerpoolrestrict": SOMEBODY}}),
    ("18", {D: {"requesterrestrict": SOMEBODY}}),
    ("19", {P: {"apprestrict": SOMEBODY}}),
    ("1a", {P: {"datasetrestrict": SOMEBODY}}),
    ("1b", {P: {"requesterrestrict": SOMEBODY}}),
]


def merged(*changes: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """All changes at once; the first to touch a field keeps it."""
    result: dict[str, dict[str, Any]] = {}
    for change in reversed(changes):
        for part, fields in change.items():
            result[part] = {**result.get(part, {}), **fields}
    return result


@pytest.mark.parametrize(("two", "changes"), RULES, ids=[two for two, _ in RULES])
def test_each_rule_has_its_code(world: World, two: str, changes: dict[str, Any]) -> None:
    assert refused(world, world.four(dataset=True, **changes)) == code(two)


@pytest.mark.parametrize("index", range(len(RULES) - 1))
def test_a_rule_is_checked_before_the_next(world: World, index: int) -> None:
    """Every pair of neighbours, broken together, is refused for the first."""
    (two, first), (_, second) = RULES[index : index + 2]
    assert refused(world, world.four(dataset=True, **merged(first, second))) == code(two)


def test_terms_come_before_signatures(world: World) -> None:
    app, dataset, pool, request = world.four(dataset=True, pool={"requesterrestrict": SOMEBODY})
    assert refused(world, (replace(app, sign=b"\x01" * 65), dataset, pool, request)) == code("1b")


def test_prices_and_restrictions_of_no_dataset_count(world: World) -> None:
    app, _, pool, request = world.four()
    for change, two in (({"datasetprice": DATASET_PRICE + 1}, "04"), ({"apprestrict": SOMEBODY}, "16")):
        none = Signed(replace(NO_DATASET.order, **change), b"")
        assert refused(world, (app, none, pool, request)) == code(two)


def test_framework_bits_of_a_dataset_order_are_ignored(world: World) -> None:
    dealid = world.deal(dataset=True, data={"tag": tag(0b1110)})
    assert world.hub.viewDeal(dealid).tag == tag(0)
    assert refused(world, world.four(dataset=True, data={"tag": tag(16)})) == code("06")


def test_a_tee_dataset_asks_for_a_tee_app(world: World) -> None:
    assert refused(world, world.four(dataset=True, data={"tag": tag(1)}, pool={"tag": tag(1)})) == code("07")


# ---- Registration ------------------------------------------------------------------------------------------

KNOWN = {"20": A, "30": D, "40": P}
ASSET = {A: "app", D: "dataset", P: "workerpool"}


def unregistered(world: World, part: str, at: str) -> tuple[Signed[Any], ...]:
    field = ASSET[part]
    changes: dict[str, Any] = {part: {field: at}, R: {field: at} if part != P else {}}
    return world.four(dataset=True, **changes)


@pytest.mark.parametrize("two", KNOWN)
def test_an_address_without_an_owner_reverts_without_data(world: World, two: str) -> None:
    assert refused(world, unregistered(world, KNOWN[two], SOMEBODY)) == b""
    assert refused(world, unregistered(world, KNOWN[two], world.token.address)) == b""


@pytest.mark.parametrize("two", KNOWN)
def test_what_has_an_owner_but_is_of_no_registry(world: World, two: str) -> None:
    registry = world.apps.address  # it answers owner()
    assert refused(world, unregistered(world, KNOWN[two], registry)) == code(two)


@pytest.mark.parametrize(("part", "two"), [(A, "20"), (D, "30"), (P, "40")])
def test_an_entry_of_another_registry_does_not_pass(world: World, part: str, two: str) -> None:
    other = world.dataset if part != D else world.app
    assert refused(world, unregistered(world, part, other)) == code(two)


# ---- Signatures --------------------------------------------------------------------------------------------

SIGNED = {"21": 0, "31": 1, "41": 2, "50": 3}


def with_sign(orders: tuple[Signed[Any], ...], place: int, sign: bytes) -> tuple[Signed[Any], ...]:
    return tuple(replace(o, sign=sign) if i == place else o for i, o in enumerate(orders))


@pytest.mark.parametrize("two", SIGNED)
def test_who_signs(world: World, two: str) -> None:
    orders = world.four(dataset=True)
    place = SIGNED[two]
    stranger = world.signed(orders[place].order, "stranger").sign
    assert refused(world, with_sign(orders, place, stranger)) == code(two)
    for length in (0, 63, 66):
        assert refused(world, with_sign(orders, place, b"\x01" * length)) == text("invalid-signature-format")
    r, s, v = orders[place].sign[:32], orders[place].sign[32:64], orders[place].sign[64]
    compact = r + bytes([s[0] | (v - 27) << 7]) + s[1:]
    world.match(with_sign(orders, place, compact))


@pytest.mark.parametrize("two", SIGNED)
def test_malleable_signatures(world: World, two: str) -> None:
    order_of_curve = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    orders = world.four(dataset=True)
    sign = orders[SIGNED[two]].sign
    high = (order_of_curve - int.from_bytes(sign[32:64], "big")).to_bytes(32, "big")
    for bad in (sign[:32] + high + bytes([55 - sign[64]]), sign[:64] + bytes([sign[64] - 27])):
        assert refused(world, with_sign(orders, SIGNED[two], bad)) == code(two)


@pytest.mark.parametrize("junk", [b"", b"\x01", b"\x07" * 65])
def test_presigned_orders_need_no_signature(world: World, junk: bytes) -> None:
    orders = world.four(dataset=True)
    for kind, signed, role in zip(
        ("App", "Dataset", "Workerpool", "Request"),
        orders,
        ("app", "dataset", "scheduler", "requester"),
        strict=True,
    ):
        world.hub.send(f"manage{kind}Order", (signed.as_tuple(), 0, b""), sender=world.who(role))
    world.match(tuple(replace(o, sign=junk) for o in orders))


def test_a_presignature_is_the_owners_of_that_time(world: World) -> None:
    app, *rest = world.four()
    world.hub.manageAppOrder((app.as_tuple(), 0, b""), sender=world.who("app"))
    world.apps.transferFrom(
        world.who("app"), world.who("sponsor"), int(world.app, 16), sender=world.who("app")
    )
    assert refused(world, (replace(app, sign=b""), *rest)) == text("invalid-signature-format")
    assert refused(world, (app, *rest)) == code("21")
    world.match((world.signed(app.order, "sponsor"), *rest))


def test_a_request_of_nobody_is_refused(world: World) -> None:
    """The official contracts take it in sponsored deals: a failed recovery gives the zero address."""
    orders = world.four(request={"requester": ZERO})
    junk = with_sign(orders, 3, b"\x07" * 65)
    assert refused(world, junk) == code("50")
    arguments = [o.as_tuple() for o in junk]
    assert refusal(world.hub, "sponsorMatchOrders", *arguments, sender=world.who("sponsor")) == code("50")


# ---- Contract wallets and groups ---------------------------------------------------------------------------

YES, NO = bytes.fromhex("1626ba7e").ljust(32, b"\0"), b"\xff" * 4 + bytes(28)


def answering(world: World, answer: bytes, revert: bool = False) -> str:
    """A contract that gives this answer to whatever it is asked."""
    size = len(answer)
    body = bytes([0x60, size, 0x60, 12, 0x5F, 0x39, 0x60, size, 0x5F, 0xFD if revert else 0xF3]).ljust(
        12, b"\0"
    )
    runtime = body + answer
    init = bytes([0x60, len(runtime), 0x80, 0x60, 9, 0x5F, 0x39, 0x5F, 0xF3]) + runtime
    return world.chain.deploy(init, world.who("stranger"))


@pytest.mark.parametrize(
    ("answer", "revert", "expected"),
    [
        (YES, False, None),
        (NO, False, code("50")),
        (YES, True, code("50")),
        (YES[:31], False, b""),
        (b"", False, b""),
        (YES[:4] + b"\1" * 28, False, b""),
        (YES + b"more", False, None),
    ],
    ids=["yes", "no", "reverts", "31 bytes", "nothing", "dirty", "longer"],
)
def test_smart_wallet_requester(world: World, answer: bytes, revert: bool, expected: bytes | None) -> None:
    wallet = answering(world, answer, revert)
    world.enrich(address(wallet))
    for sign in (b"", b"\x01" * 300, b"\x07" * 65):
        orders = with_sign(world.four(request={"requester": wallet}), 3, sign)
        if expected is None:
            dealid, _ = world.match(orders)
            assert world.hub.viewDeal(dealid).requester == wallet
        else:
            assert refused(world, orders) == expected


def test_an_account_with_code_may_sign_with_its_key(world: World) -> None:
    # As an EIP-7702 delegation leaves it; whatever the code would answer is not asked.
    orders = world.four()
    world.chain.rpc("anvil_setCode", world.who("requester"), "0x5f5ffd")
    strangers = with_sign(orders, 3, world.signed(orders[3].order, "stranger").sign)
    assert refused(world, strangers) == code("50")
    world.match(orders)


def test_a_wallet_longer_than_the_bound_is_refused(world: World) -> None:
    wallet = answering(world, YES)
    orders = with_sign(world.four(request={"requester": wallet}), 3, b"\x01" * 1025)
    assert refused(world, orders) == b""


GROUPS = [
    ("12", R, "workerpool"),
    ("13", A, "datasetrestrict"),
    ("14", A, "workerpoolrestrict"),
    ("15", A, "requesterrestrict"),
    ("16", D, "apprestrict"),
    ("17", D, "workerpoolrestrict"),
    ("18", D, "requesterrestrict"),
    ("19", P, "apprestrict"),
    ("1a", P, "datasetrestrict"),
    ("1b", P, "requesterrestrict"),
]
ONE = (1).to_bytes(32, "big")


@pytest.mark.parametrize(("two", "part", "name"), GROUPS, ids=[g[0] for g in GROUPS])
def test_restrictions_may_be_groups(world: World, two: str, part: str, name: str) -> None:
    def of(answer: bytes, revert: bool = False) -> tuple[Signed[Any], ...]:
        changes: dict[str, Any] = {part: {name: answering(world, answer, revert)}}
        return world.four(dataset=True, **changes)

    assert refused(world, of(bytes(32))) == code(two)
    assert refused(world, of(ONE, revert=True)) == code(two)
    assert refused(world, of(ONE[:31])) == b""
    assert refused(world, of((2).to_bytes(32, "big"))) == b""
    world.match(of(ONE))


def test_a_group_is_asked_about_purpose_4(world: World) -> None:
    """A group that admits only if asked `keyHasPurpose(pool, 4)`."""
    question = keccak(b"keyHasPurpose(bytes32,uint256)")[:4] + encode(["address", "uint256"], [world.pool, 4])
    hashed = keccak(question)
    # keccak256(calldata) == hashed
    runtime = (
        bytes([0x36, 0x5F, 0x5F, 0x37, 0x36, 0x5F, 0x20, 0x7F])
        + hashed
        + bytes([0x14, 0x5F, 0x52, 0x60, 32, 0x5F, 0xF3])
    )
    group = world.chain.deploy(
        bytes([0x60, len(runtime), 0x80, 0x60, 9, 0x5F, 0x39, 0x5F, 0xF3]) + runtime, world.who("stranger")
    )
    world.deal(request={"workerpool": group})
    world.deal(app={"workerpoolrestrict": group})
    assert refused(world, world.four(app={"requesterrestrict": group})) == code("15")


def test_restrictions_by_address(world: World) -> None:
    world.deal(
        dataset=True,
        app={
            "datasetrestrict": world.dataset,
            "workerpoolrestrict": world.pool,
            "requesterrestrict": world.who("requester"),
        },
        data={
            "apprestrict": world.app,
            "workerpoolrestrict": world.pool,
            "requesterrestrict": world.who("requester"),
        },
        pool={
            "apprestrict": world.app,
            "datasetrestrict": world.dataset,
            "requesterrestrict": world.who("requester"),
        },
        request={"workerpool": world.pool},
    )


# ---- Volumes -----------------------------------------------------------------------------------------------


def consumed(world: World, orders: tuple[Signed[Any], ...]) -> list[int]:
    return [world.hub.viewConsumed(o.hash(world.domain)) for o in orders]


@pytest.mark.parametrize("place", range(4))
def test_the_smallest_volume_decides(world: World, place: int) -> None:
    volumes = [7, 7, 7, 7]
    volumes[place] = 3
    orders = world.four(
        dataset=True,
        app={"volume": volumes[0]},
        data={"volume": volumes[1]},
        pool={"volume": volumes[2]},
        request={"volume": volumes[3]},
    )
    tuples = [o.as_tuple() for o in orders]
    assert world.hub.computeDealVolume(*tuples) == 3
    dealid, done = world.match(orders)
    assert done.events[-1][-1] == 3
    assert world.hub.viewDeal(dealid).botSize == 3
    assert consumed(world, orders) == [3, 3, 3, 3]
    assert world.hub.computeDealVolume(*tuples) == 0
    assert refused(world, orders) == code("60")


def test_a_request_is_served_in_parts(world: World) -> None:
    app, _, _, request = world.four(app={"volume": 100}, request={"volume": 10})
    firsts = []
    for volume in (4, 5, 6):
        pool = world.signed(world.pool_order(volume=volume))
        dealid, _ = world.match((app, NO_DATASET, pool, request))
        deal = world.hub.viewDeal(dealid)
        firsts.append((deal.botFirst, deal.botSize))
        assert dealid == deal_id(request.hash(world.domain), deal.botFirst)
    assert firsts == [(0, 4), (4, 5), (9, 1)]
    assert world.hub.viewConsumed(request.hash(world.domain)) == 10
    pool = world.signed(world.pool_order(volume=1))
    assert refused(world, (app, NO_DATASET, pool, request)) == code("60")


def test_without_a_dataset_nothing_is_consumed_for_it(world: World) -> None:
    orders = world.four()
    world.match(orders)
    assert world.hub.viewConsumed(bytes(32)) == 0
    assert consumed(world, orders)[0] == 1


TOO_LARGE = text("deals: volume above 2**24 or trust above 2**32")


def test_a_volume_above_the_bound_names_it(world: World) -> None:
    free: dict[str, Any] = {"app": {"appprice": 0}, "pool": {"workerpoolprice": 0}}
    assert refused(world, world.four(volume=2**24, **free)) == TOO_LARGE
    dealid = world.deal(volume=2**24 - 1, **free)
    assert world.hub.viewDeal(dealid).botSize == 2**24 - 1
    # All deals of one request order together: an index is kept in 24 bits.
    half: dict[str, Any] = {"app": {"appprice": 0, "volume": 2**25}, "request": {"volume": 2**25}}
    app, dataset, pool, request = world.four(pool={"workerpoolprice": 0, "volume": 2**23}, **half)
    world.match((app, dataset, pool, request))
    last = world.signed(world.pool_order(workerpoolprice=0, volume=2**23 - 1))
    dealid, _ = world.match((app, dataset, last, request))
    assert world.hub.viewTask(world.first_task(dealid, 2**24 - 2)).idx == 2**24 - 2
    more = world.signed(world.pool_order(workerpoolprice=0, volume=1))
    assert refused(world, (app, dataset, more, request)) == TOO_LARGE


def test_a_trust_above_the_bound_names_it(world: World) -> None:
    orders = world.four(pool={"trust": 2**32}, request={"trust": 2**32})
    assert refused(world, orders) == TOO_LARGE


# ---- Money -------------------------------------------------------------------------------------------------


def test_locks_and_events(world: World) -> None:
    orders = world.four(dataset=True, volume=2)
    dealid, done = world.match(orders)
    hub, requester, scheduler = world.hub.address, world.who("requester"), world.who("scheduler")
    paid, staked = 2 * (APP_PRICE + DATASET_PRICE + POOL_PRICE), 2 * (POOL_PRICE * 30 // 100)
    assert done.events == [
        ("Transfer", requester, hub, paid),
        ("Lock", requester, paid),
        ("Transfer", scheduler, hub, staked),
        ("Lock", scheduler, staked),
        ("SchedulerNotice", world.pool, dealid),
        ("OrdersMatched", dealid, *(o.hash(world.domain) for o in orders), 2),
    ]
    assert world.account("requester")[1] == paid
    assert world.account("scheduler")[1] == staked


def test_the_stake_is_floored_per_task(world: World) -> None:
    _, done = world.match(world.four(volume=10, pool={"workerpoolprice": 9}))
    assert done.events[3] == ("Lock", world.who("scheduler"), 20)


def test_a_deal_without_dataset_has_no_dataset_hash(world: World) -> None:
    orders = world.four()
    _, done = world.match(orders)
    assert done.events[-1][3] == bytes(32)


def test_a_payer_who_cannot(world: World) -> None:
    requester, scheduler = world.account("requester")[0], world.account("scheduler")[0]
    world.hub.withdraw(requester - 47 * RLC, sender=world.who("requester"))
    assert refused(world, world.four(dataset=True)) == text(BALANCE)
    world.deal()
    world.hub.withdraw(scheduler - 23 * RLC, sender=world.who("scheduler"))
    assert refused(world, world.four(request={"requester": world.who("sponsor")})) == code("50")
    world.enrich(world.who("requester"), 100 * RLC)
    assert refused(world, world.four()) == text(BALANCE)


@pytest.mark.parametrize("price", [2**64 - 1, 2**64, 2**255, 2**256 - 1])
def test_a_price_that_nobody_has(world: World, price: int) -> None:
    expected = panic(0x11) if price * WORKER_RATIO >= 2**256 else text(BALANCE)
    assert refused(
        world, world.four(pool={"workerpoolprice": price}, request={"workerpoolmaxprice": price})
    ) == (expected)


def test_prices_that_overflow(world: World) -> None:
    top = 2**256 - 1
    request = {"appmaxprice": top, "datasetmaxprice": top}
    both = world.four(dataset=True, app={"appprice": top}, data={"datasetprice": 1}, request=request)
    assert refused(world, both) == panic(0x11)
    times = world.four(volume=3, app={"appprice": 2**255}, request=request)
    assert refused(world, times) == panic(0x11)


def test_sponsored(world: World) -> None:
    orders = world.four(dataset=True)
    before = world.account("requester")
    done = world.hub.sponsorMatchOrders(*(o.as_tuple() for o in orders), sender=world.who("sponsor"))
    dealid = done.events[-2][1]
    assert done.names[-3:] == ["SchedulerNotice", "OrdersMatched", "DealSponsored"]
    assert done.events[-1] == ("DealSponsored", dealid, world.who("sponsor"))
    assert done.events[0][1] == world.who("sponsor")
    assert world.account("sponsor")[1] == 48 * RLC
    assert world.account("requester") == before
    assert world.hub.viewDeal(dealid).sponsor == world.who("sponsor")
    # The next deal of the same transaction's kind is the requester's own again.
    assert world.hub.viewDeal(world.deal()).sponsor == world.who("requester")


def test_the_refusal_of_a_sponsored_match_is_passed_on(world: World) -> None:
    orders = [o.as_tuple() for o in world.four(pool={"category": 1})]
    assert refusal(world.hub, "sponsorMatchOrders", *orders, sender=world.who("sponsor")) == code("00")


# ---- The record --------------------------------------------------------------------------------------------

OTHER, CALLBACK = address("0x" + "0b" * 20), address("0x" + "cb" * 20)
RECORDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "dataset": {"dataset": True},
    "callback": {"request": {"callback": CALLBACK}},
    "beneficiary": {"dataset": True, "request": {"beneficiary": OTHER}},
    "no beneficiary": {"request": {"beneficiary": ZERO}},
    "tag of one bit": {"tee": True},
    "wide tag": {"app": {"tag": tag(2**255 + 1)}, "pool": {"tag": tag(2**256 - 1)}},
    "params": {"request": {"params": "x" * 80}},
    "long params": {"dataset": True, "request": {"params": "é" * 2048}},
    "trust 1": {"pool": {"trust": 5}, "request": {"trust": 1}},
    "trust 16": {"pool": {"trust": 16}, "request": {"trust": 16}},
    "wide trust": {"pool": {"trust": 2**40}, "request": {"trust": 2**32 - 1}},
    "category": {"pool": {"category": 2}, "request": {"category": 2}},
    "odd prices": {
        "dataset": True,
        "app": {"appprice": 1},
        "data": {"datasetprice": 123_456_789},
        "pool": {"workerpoolprice": 3 * RLC + 1},
    },
    "high prices": {"app": {"appprice": 5_000 * RLC}, "request": {"appmaxprice": 2**64}},
    "wide volume": {"volume": 256, "app": {"appprice": 0}, "pool": {"workerpoolprice": RLC // 10}},
    "everything": {
        "dataset": True,
        "volume": 300,
        "app": {"appprice": 7, "tag": tag(2**200)},
        "data": {"datasetprice": 11},
        "pool": {"workerpoolprice": 1001, "tag": tag(2**200), "trust": 300},
        "request": {"callback": CALLBACK, "beneficiary": OTHER, "params": '{"iexec_args":"a"}', "trust": 300},
    },
}


@pytest.mark.parametrize("sponsored", [False, True])
@pytest.mark.parametrize("name", RECORDS)
def test_view_deal_is_what_was_signed(world: World, name: str, sponsored: bool) -> None:
    orders = world.four(**RECORDS[name])
    app, dataset, pool, request = (o.order for o in orders)
    method = "sponsorMatchOrders" if sponsored else "matchOrders"
    done = world.hub.send(method, *(o.as_tuple() for o in orders), sender=world.who("sponsor"))
    dealid = deal_id(orders[3].hash(world.domain), 0)
    no = dataset.dataset == ZERO
    assert world.hub.viewDeal(dealid) == {
        "app": {"pointer": app.app, "owner": world.who("app"), "price": app.appprice},
        "dataset": {
            "pointer": dataset.dataset,
            "owner": ZERO if no else world.who("dataset"),
            "price": 0 if no else dataset.datasetprice,
        },
        "workerpool": {
            "pointer": pool.workerpool,
            "owner": world.who("scheduler"),
            "price": pool.workerpoolprice,
        },
        "trust": max(request.trust, 1),
        "category": request.category,
        "tag": bytes(a | d | r for a, d, r in zip(app.tag, dataset.tag, request.tag, strict=True)),
        "requester": request.requester,
        "beneficiary": request.beneficiary,
        "callback": request.callback,
        "params": request.params,
        "startTime": done.timestamp,
        "botFirst": 0,
        "botSize": request.volume,
        "workerStake": pool.workerpoolprice * WORKER_RATIO // 100,
        "schedulerRewardRatio": SCHEDULER_RATIO,
        "sponsor": world.who("sponsor" if sponsored else "requester"),
    }


def test_owners_and_policies_are_those_of_the_match(world: World) -> None:
    dealid = world.deal(dataset=True)
    before = world.hub.viewDeal(dealid)
    for registry, asset, role in (
        (world.apps, world.app, "app"),
        (world.datasets, world.dataset, "dataset"),
        (world.workerpools, world.pool, "scheduler"),
    ):
        registry.transferFrom(world.who(role), world.who("sponsor"), int(asset, 16), sender=world.who(role))
    assert world.hub.viewDeal(dealid) == before
    orders = [
        Signed.by(world.keys["sponsor"], o.order, world.domain) if i < 3 else o
        for i, o in enumerate(world.four(dataset=True))
    ]
    after = world.hub.viewDeal(world.match(tuple(orders))[0])
    assert {after.app.owner, after.dataset.owner, after.workerpool.owner} == {world.who("sponsor")}
    assert (after.app.pointer, after.workerpool.pointer) == (world.app, world.pool)


def test_an_asset_that_comes_back_is_its_first_owners_again(world: World) -> None:
    for source, to in (("app", "sponsor"), ("sponsor", "app")):
        world.apps.transferFrom(
            world.who(source), world.who(to), int(world.app, 16), sender=world.who(source)
        )
    deal = world.hub.viewDeal(world.deal())
    assert (deal.app.pointer, deal.app.owner) == (world.app, world.who("app"))


def test_unknown_deals_are_empty(world: World) -> None:
    dealid = world.deal(dataset=True)
    empty = world.hub.viewDeal(keccak(b"no such deal"))
    assert empty.requester == ZERO and empty.app.pointer == ZERO and empty.params == ""
    # A blob's key is the low part of the dealid: the rest has to be right too.
    forged = bytes([dealid[0] ^ 1]) + dealid[1:]
    assert world.hub.viewDeal(forged) == empty
    assert refusal(world.hub, "initialize", forged, 0) == b""


def test_params_above_the_bound_are_refused(world: World) -> None:
    assert refused(world, world.four(request={"params": "x" * 4097})) == b""
