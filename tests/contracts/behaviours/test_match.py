"""matchOrders and sponsorMatchOrders (poco.md §7)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sealdeal.model.orders import NO_DATASET, tag
from sealdeal.model.types import ZERO, address
from tests.contracts.behaviours.stage import (
    FALSE,
    KINDS,
    NO,
    NO_DATA,
    NOBODY_PAYS,
    PARTS,
    PRICE,
    STAKE,
    TOO_POOR,
    TRUE,
    Agreed,
    Four,
    act,
    answering,
    consumed,
    leave,
    moves,
    naming,
    owned_by,
    refused,
    started,
    tuples,
    who,
    with_sign,
    word,
)
from tests.contracts.world import APP_PRICE, DATASET_PRICE, POOL_PRICE, World, text

SOMEBODY = address("0x" + "5b" * 20)
FRAMEWORKS = {"tee": 0b1, "scone": 0b11, "gramine": 0b101, "tdx": 0b1001, "all": 0b1111}
RESTRICTIONS = [
    ("App", "datasetrestrict", "13"),
    ("App", "workerpoolrestrict", "14"),
    ("App", "requesterrestrict", "15"),
    ("Dataset", "apprestrict", "16"),
    ("Dataset", "workerpoolrestrict", "17"),
    ("Dataset", "requesterrestrict", "18"),
    ("Workerpool", "apprestrict", "19"),
    ("Workerpool", "datasetrestrict", "1a"),
    ("Workerpool", "requesterrestrict", "1b"),
]
EACH_RESTRICTION = pytest.mark.parametrize(
    ("kind", "name", "code"), RESTRICTIONS, ids=[f"{kind}-{name}" for kind, name, _ in RESTRICTIONS]
)


def code(two: str) -> bytes:
    return text(f"iExecV5-matchOrders-0x{two}")


def refusal_of(world: World, orders: Four) -> bytes:
    return refused(world, "stranger", "matchOrders", *tuples(orders))


def refuses(world: World, two: str, **changes: Any) -> None:
    """Four orders that fit but for these changes are refused with this code."""
    assert refusal_of(world, world.four(dataset=True, **changes)) == code(two)


def matches(world: World, agreed: Agreed, function: str = "matchOrders", by: str = "stranger") -> None:
    """A match locks, records, counts and tells exactly this."""
    before = consumed(world, agreed.orders)
    with moves(world) as moved:
        done = act(world, by, function, *tuples(agreed.orders))
    dealid = agreed.dealid(world)
    sponsored = [("DealSponsored", dealid, who(world, by))] if function.startswith("sponsor") else []
    assert moved == agreed.moved()
    assert done.events == agreed.events(world) + sponsored
    assert world.hub.viewDeal(dealid) == agreed.deal(world, started(world, dealid))
    grown = [agreed.volume, agreed.volume if agreed.has_dataset else 0, agreed.volume, agreed.volume]
    assert consumed(world, agreed.orders) == [a + b for a, b in zip(before, grown, strict=True)]


def everything(world: World, *, tee: bool) -> Four:
    """A bag of three replicated tasks with all that orders can say."""
    extras = {"beneficiary": world.who("sponsor"), "callback": SOMEBODY, "params": "some params", "trust": 5}
    return world.four(dataset=True, tee=tee, volume=3, pool={"trust": 5}, request=extras)


# ---- What matches ------------------------------------------------------------------------------------------


def test_match_orders_with_all_assets_beneficiary_bot_callback_replication(world: World) -> None:
    matches(world, Agreed(everything(world, tee=True), volume=3))


def test_standard_match_orders_with_all_assets_beneficiary_bot_callback_replication(world: World) -> None:
    matches(world, Agreed(everything(world, tee=False), volume=3))


def test_match_orders_without_beneficiary_bot_callback_replication(world: World) -> None:
    matches(world, Agreed(world.four(dataset=True, tee=True, request={"beneficiary": ZERO})))


def test_match_orders_without_dataset(world: World) -> None:
    matches(world, Agreed(world.four()))


def test_match_orders_with_full_restrictions_in_all_orders(world: World) -> None:
    requester = world.who("requester")
    app = {"datasetrestrict": world.dataset, "workerpoolrestrict": world.pool, "requesterrestrict": requester}
    data = {"apprestrict": world.app, "workerpoolrestrict": world.pool, "requesterrestrict": requester}
    pool = {"apprestrict": world.app, "datasetrestrict": world.dataset, "requesterrestrict": requester}
    request = {"workerpool": world.pool}
    matches(world, Agreed(world.four(dataset=True, app=app, data=data, pool=pool, request=request)))


@EACH_RESTRICTION
def test_match_orders_with_restriction_in_order(world: World, kind: str, name: str, code: str) -> None:
    """To an address, and to a group that it belongs to."""
    admitted = {
        "apprestrict": world.app,
        "datasetrestrict": world.dataset,
        "workerpoolrestrict": world.pool,
        "requesterrestrict": world.who("requester"),
    }
    for restriction in (admitted[name], answering(world, TRUE)):
        changes: dict[str, Any] = {PARTS[kind]: {name: restriction}}
        matches(world, Agreed(world.four(dataset=True, **changes)))


def test_match_orders_with_any_workerpool_when_request_order_has_no_workerpool_restriction(
    world: World,
) -> None:
    for pool in (world.pool, owned_by(world, world.who("scheduler"), "Workerpool")):
        orders = world.four(pool={"workerpool": pool}, request={"workerpool": ZERO})
        dealid, _ = world.match(orders)
        assert world.hub.viewDeal(dealid).workerpool.pointer == pool


@pytest.mark.parametrize("pool", FRAMEWORKS)
@pytest.mark.parametrize("dataset", FRAMEWORKS)
def test_match_orders_with_compatible_tee_tags(world: World, suite: str, dataset: str, pool: str) -> None:
    """As 6.2.0, which ignores a dataset's framework bits; 6.1.0 compares them."""
    asked, offered = FRAMEWORKS[dataset], FRAMEWORKS[pool]
    orders = world.four(dataset=True, tee=True, data={"tag": tag(asked)}, pool={"tag": tag(offered)})
    if suite == "official" and asked & ~offered:
        assert refusal_of(world, orders) == code("06")
    else:
        dealid, _ = world.match(orders)
        assert world.hub.viewDeal(dealid).tag == tag(asked if suite == "official" else 1)


# ---- Terms that do not fit ---------------------------------------------------------------------------------


def test_fail_when_categories_are_different(world: World) -> None:
    refuses(world, "00", pool={"category": 1})


def test_fail_when_category_is_unknown(world: World) -> None:
    last = world.hub.countCategory()
    refuses(world, "01", pool={"category": last}, request={"category": last})


def test_fail_when_requested_trust_is_above_workerpool_trust(world: World) -> None:
    refuses(world, "02", pool={"trust": 3}, request={"trust": 4})


def test_fail_when_app_max_price_is_less_than_app_price(world: World) -> None:
    refuses(world, "03", request={"appmaxprice": APP_PRICE - 1})


def test_fail_when_dataset_max_price_is_less_than_dataset_price(world: World) -> None:
    refuses(world, "04", request={"datasetmaxprice": DATASET_PRICE - 1})


def test_fail_when_workerpool_max_price_is_less_than_workerpool_price(world: World) -> None:
    refuses(world, "05", request={"workerpoolmaxprice": POOL_PRICE - 1})


def test_fail_when_workerpool_tag_does_not_satisfy_app_dataset_and_request_requirements(world: World) -> None:
    """Each of the three alone suffices, and so does any bit."""
    for kind in ("App", "Dataset", "Request"):
        refuses(world, "06", **{PARTS[kind]: {"tag": tag(1)}})
        refuses(world, "06", pool={"tag": tag(1)}, **{PARTS[kind]: {"tag": tag(1 << 255)}})


def test_fail_when_dataset_has_other_bits_set_that_are_not_ignored(world: World) -> None:
    refuses(world, "06", data={"tag": tag(0b10000)})


def test_fail_when_the_last_bit_of_app_tag_does_not_satisfy_dataset_or_request_requirements(
    world: World,
) -> None:
    for part in ("data", "request"):
        refuses(world, "07", pool={"tag": tag(1)}, **{part: {"tag": tag(1)}})


def test_fail_when_apps_are_different(world: World) -> None:
    refuses(world, "10", request={"app": SOMEBODY})


def test_fail_when_datasets_are_different(world: World) -> None:
    refuses(world, "11", request={"dataset": SOMEBODY})


def test_fail_when_request_order_mismatches_workerpool_restriction(world: World) -> None:
    for restriction in (SOMEBODY, answering(world, FALSE)):
        refuses(world, "12", request={"workerpool": restriction})


@EACH_RESTRICTION
def test_fail_when_order_mismatches_restriction(world: World, kind: str, name: str, code: str) -> None:
    for restriction in (SOMEBODY, answering(world, FALSE), answering(world, TRUE, revert=True)):
        refuses(world, code, **{PARTS[kind]: {name: restriction}})


# ---- Assets and signatures ---------------------------------------------------------------------------------


def refuses_unregistered(world: World, kind: str, two: str) -> None:
    """One that has an owner; one that has no code does not even get that far."""
    owned = answering(world, word(world.who("stranger")))
    for asset, expected in ((owned, code(two)), (SOMEBODY, NO_DATA)):
        assert refusal_of(world, world.four(dataset=True, **naming(kind, asset))) == expected


def refuses_sign_of_stranger(world: World, kind: str, two: str) -> None:
    orders = world.four(dataset=True)
    order = orders[KINDS.index(kind)].order
    assert refusal_of(world, with_sign(orders, kind, world.signed(order, "stranger").sign)) == code(two)


def refuses_without_consent(world: World, kind: str, two: str) -> None:
    """The owner is a wallet that says no."""
    wallet = answering(world, NO)
    asset = wallet if kind == "Request" else owned_by(world, wallet, kind)
    refuses(world, two, **naming(kind, asset))


def test_fail_when_app_is_not_registered(world: World) -> None:
    refuses_unregistered(world, "App", "20")


def test_fail_when_invalid_app_order_signature_from_eoa(world: World) -> None:
    refuses_sign_of_stranger(world, "App", "21")


def test_fail_when_invalid_app_order_signature_from_sc(world: World) -> None:
    refuses_without_consent(world, "App", "21")


def test_fail_when_dataset_is_not_registered(world: World) -> None:
    refuses_unregistered(world, "Dataset", "30")


def test_fail_when_invalid_dataset_order_signature_from_eoa(world: World) -> None:
    refuses_sign_of_stranger(world, "Dataset", "31")


def test_fail_when_invalid_dataset_order_signature_from_sc(world: World) -> None:
    refuses_without_consent(world, "Dataset", "31")


def test_fail_when_workerpool_is_not_registered(world: World) -> None:
    refuses_unregistered(world, "Workerpool", "40")


def test_fail_when_invalid_workerpool_order_signature_from_eoa(world: World) -> None:
    refuses_sign_of_stranger(world, "Workerpool", "41")


def test_fail_when_invalid_workerpool_order_signature_from_sc(world: World) -> None:
    refuses_without_consent(world, "Workerpool", "41")


def test_fail_when_invalid_request_order_signature_from_eoa(world: World) -> None:
    refuses_sign_of_stranger(world, "Request", "50")


def test_fail_when_invalid_request_order_signature_from_sc(world: World) -> None:
    refuses_without_consent(world, "Request", "50")


# ---- Volumes and money -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_fail_if_one_or_more_orders_are_consumed(world: World, kind: str) -> None:
    used, fresh = world.four(dataset=True), world.four(dataset=True)
    world.match(used)
    mixed = tuple(u if k == kind else f for k, u, f in zip(KINDS, used, fresh, strict=True))
    assert refusal_of(world, mixed) == code("60")


def test_fail_when_requester_has_insufficient_balance(world: World) -> None:
    orders = world.four(dataset=True)
    leave(world, "requester", PRICE - 1)
    assert refusal_of(world, orders) == TOO_POOR
    act(world, "app", "transfer", world.who("requester"), 1)
    world.match(orders)


def test_fail_when_scheduler_has_insufficient_balance(world: World) -> None:
    orders = world.four(dataset=True)
    leave(world, "scheduler", STAKE - 1)
    assert refusal_of(world, orders) == TOO_POOR
    act(world, "app", "transfer", world.who("scheduler"), 1)
    world.match(orders)


def test_sponsor_match_orders(world: World) -> None:
    agreed = Agreed(everything(world, tee=True), volume=3, payer="sponsor")
    matches(world, agreed, "sponsorMatchOrders", by="sponsor")


def test_fail_when_sponsor_has_insufficient_balance(world: World) -> None:
    orders = world.four(dataset=True)
    leave(world, "sponsor", PRICE - 1)
    assert refused(world, "sponsor", "sponsorMatchOrders", *tuples(orders)) == TOO_POOR


# ---- Beyond the list ---------------------------------------------------------------------------------------


def test_a_sponsored_request_of_the_zero_address(world: World, suite: str) -> None:
    """The official hub takes any 65 bytes for its signature: a failed recovery gives the zero address."""
    orders = with_sign(world.four(request={"requester": ZERO}), "Request", b"\x07" * 65)
    assert refusal_of(world, orders) == (NOBODY_PAYS if suite == "official" else code("50"))
    if suite == "official":
        matches(world, Agreed(orders, payer="sponsor"), "sponsorMatchOrders", by="sponsor")
    else:
        assert refused(world, "sponsor", "sponsorMatchOrders", *tuples(orders)) == code("50")


def test_prices_and_restrictions_of_an_absent_dataset_count(world: World) -> None:
    app, _, pool, request = world.four()
    for change, two in (({"datasetprice": DATASET_PRICE + 1}, "04"), ({"apprestrict": SOMEBODY}, "16")):
        absent = replace(NO_DATASET, order=replace(NO_DATASET.order, **change))
        assert refusal_of(world, (app, absent, pool, request)) == code(two)
