"""matchOrdersBoost and sponsorMatchOrdersBoost (poco.md §10)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from eth_abi.abi import encode

from sealdeal.model.orders import NO_DATASET, tag
from sealdeal.model.types import ZERO, address, keccak
from tests.contracts.behaviours.boost import BoostAgreed, boost, push, refusal
from tests.contracts.behaviours.stage import (
    FALSE,
    KINDS,
    NO,
    NOBODY_PAYS,
    PARTS,
    PRICE,
    STAKE,
    TOO_POOR,
    TRUE,
    YES,
    Four,
    act,
    answering,
    consumed,
    leave,
    moves,
    naming,
    owned_by,
    presign,
    refused,
    tuples,
    with_sign,
    word,
)
from tests.contracts.world import APP_PRICE, DATASET_PRICE, POOL_PRICE, World

pytestmark = pytest.mark.needs("matchOrdersBoost")

SOMEBODY = address("0x" + "5b" * 20)
RESTRICTIONS = [
    ("App", "datasetrestrict", "Dataset"),
    ("App", "workerpoolrestrict", "Workerpool"),
    ("App", "requesterrestrict", "Requester"),
    ("Dataset", "apprestrict", "App"),
    ("Dataset", "workerpoolrestrict", "Workerpool"),
    ("Dataset", "requesterrestrict", "Requester"),
    ("Workerpool", "apprestrict", "App"),
    ("Workerpool", "datasetrestrict", "Dataset"),
    ("Workerpool", "requesterrestrict", "Requester"),
]


def refusal_of(world: World, orders: Four) -> bytes:
    return refused(world, "stranger", "matchOrdersBoost", *tuples(orders))


def refuses(world: World, words: str, **changes: Any) -> None:
    assert refusal_of(world, world.four(dataset=True, **changes)) == refusal(words)


def matches(world: World, agreed: BoostAgreed) -> None:
    """A match locks, records, counts and tells exactly this."""
    before = consumed(world, agreed.orders)
    sponsored = agreed.payer != "requester"
    by, function = (
        (agreed.payer, "sponsorMatchOrdersBoost") if sponsored else ("stranger", "matchOrdersBoost")
    )
    with moves(world) as moved:
        done = act(world, by, function, *tuples(agreed.orders))
    assert moved == agreed.moved()
    assert done.events == agreed.events(world)
    assert world.hub.viewDealBoost(agreed.dealid(world)) == agreed.deal(world, done.timestamp)
    grown = [agreed.volume, agreed.volume if agreed.has_dataset else 0, agreed.volume, agreed.volume]
    assert consumed(world, agreed.orders) == [a + b for a, b in zip(before, grown, strict=True)]


def everything(world: World, **options: Any) -> Four:
    """A bag of three tasks with all that orders can say."""
    extras = {"beneficiary": world.who("sponsor"), "callback": SOMEBODY, "params": "some params"}
    return world.four(dataset=True, volume=3, request=extras, **options)


# ---- What matches ------------------------------------------------------------------------------------------


def test_match_orders(world: World) -> None:
    matches(world, BoostAgreed(everything(world, tee=True), volume=3))


def test_sponsor_match_orders(world: World) -> None:
    matches(world, BoostAgreed(everything(world, tee=True), volume=3, payer="sponsor"))


def test_match_orders_with_trust_equals_1(world: World) -> None:
    """The pool's trust is not asked."""
    matches(world, BoostAgreed(world.four(dataset=True, pool={"trust": 0}, request={"trust": 1})))


def test_match_orders_when_assets_and_requester_belongs_to_identity_groups(world: World) -> None:
    everyone = answering(world, TRUE)
    changes: dict[str, Any] = {"request": {"workerpool": everyone}}
    for kind, name, _ in RESTRICTIONS:
        changes.setdefault(PARTS[kind], {})[name] = everyone
    matches(world, BoostAgreed(world.four(dataset=True, **changes)))


def test_match_orders_if_signers_are_smart_contracts(world: World) -> None:
    """All four; their signatures may have any length."""
    wallet = answering(world, YES)
    act(world, "owner", "approve", world.hub.address, 2 * PRICE, on=world.token)
    act(world, "owner", "depositFor", 2 * PRICE, wallet)
    assets = {kind: owned_by(world, wallet, kind) for kind in KINDS[:3]}
    request = {"app": assets["App"], "dataset": assets["Dataset"], "requester": wallet}
    orders = world.four(
        dataset=True,
        app={"app": assets["App"]},
        data={"dataset": assets["Dataset"]},
        pool={"workerpool": assets["Workerpool"]},
        request=request,
    )
    deal = world.hub.viewDealBoost(boost(world, tuple(replace(o, sign=b"any") for o in orders)))
    assert {deal.appOwner, deal.datasetOwner, deal.workerpoolOwner, deal.requester} == {wallet}


def test_match_orders_with_pre_signatures(world: World) -> None:
    orders = everything(world, tee=True)
    for kind, order in zip(KINDS, orders, strict=True):
        presign(world, kind, order)
    matches(world, BoostAgreed(tuple(replace(o, sign=b"") for o in orders), volume=3))


def test_match_orders_without_dataset(world: World) -> None:
    matches(world, BoostAgreed(world.four(tee=True)))


def smallest(world: World, part: str) -> None:
    """This order's volume of 2 decides, where the others' are 9."""
    volumes: dict[str, Any] = {p: {"volume": 2 if p == part else 9} for p in PARTS.values()}
    matches(world, BoostAgreed(world.four(dataset=True, **volumes), volume=2))


def test_match_orders_with_low_workerpool_order_volume(world: World) -> None:
    smallest(world, "pool")


def test_match_orders_with_low_request_order_volume(world: World) -> None:
    smallest(world, "request")


def test_match_orders_with_low_dataset_order_volume(world: World) -> None:
    smallest(world, "data")


def test_match_request_order_multiple_times_until_fully_consumed(world: World) -> None:
    app, dataset, _, request = world.four(dataset=True, volume=6)
    first = 0
    for volume in (1, 2, 3):
        pool = world.signed(world.pool_order(volume=volume))
        matches(world, BoostAgreed((app, dataset, pool, request), volume=volume, first=first))
        first += volume
    more = world.four(dataset=True)
    assert refusal_of(world, (*more[:3], request)) == refusal("One or more orders consumed")


# ---- Terms that do not fit ---------------------------------------------------------------------------------


def test_fail_when_trust_is_greater_than_1(world: World) -> None:
    refuses(world, "Bad trust level", pool={"trust": 2}, request={"trust": 2})


def test_fail_when_categories_are_different(world: World) -> None:
    refuses(world, "Category mismatch", pool={"category": 1})


def test_fail_when_category_unknown(world: World) -> None:
    last = world.hub.countCategory()
    refuses(world, "Unknown category", pool={"category": last}, request={"category": last})


def test_fail_when_app_max_price_is_less_than_app_price(world: World) -> None:
    refuses(world, "Overpriced app", request={"appmaxprice": APP_PRICE - 1})


def test_fail_when_dataset_max_price_is_less_than_dataset_price(world: World) -> None:
    refuses(world, "Overpriced dataset", request={"datasetmaxprice": DATASET_PRICE - 1})


def test_fail_when_workerpool_max_price_is_less_than_workerpool_price(world: World) -> None:
    refuses(world, "Overpriced workerpool", request={"workerpoolmaxprice": POOL_PRICE - 1})


def test_fail_when_workerpool_tag_does_not_satisfy_app_dataset_and_request_requirements(world: World) -> None:
    for part in ("app", "data", "request"):
        refuses(world, "Workerpool tag does not match demand", **{part: {"tag": tag(1)}})


def test_fail_when_the_last_bit_of_app_tag_does_not_satisfy_dataset_or_request_requirements(
    world: World,
) -> None:
    for part in ("data", "request"):
        refuses(world, "App tag does not match demand", pool={"tag": tag(1)}, **{part: {"tag": tag(1)}})


def test_fail_when_app_are_different(world: World) -> None:
    refuses(world, "App mismatch", request={"app": SOMEBODY})


def test_fail_when_dataset_are_different(world: World) -> None:
    refuses(world, "Dataset mismatch", request={"dataset": SOMEBODY})


def test_fail_when_request_order_workerpool_mismatches_workerpool_order_workerpool(world: World) -> None:
    for restriction in (SOMEBODY, answering(world, FALSE)):
        refuses(world, "Workerpool restricted by request order", request={"workerpool": restriction})


@pytest.mark.parametrize(
    ("kind", "name", "restricted"), RESTRICTIONS, ids=[f"{kind}-{name}" for kind, name, _ in RESTRICTIONS]
)
def test_fail_when_order_mismatch_restriction(world: World, kind: str, name: str, restricted: str) -> None:
    for restriction in (SOMEBODY, answering(world, FALSE), answering(world, TRUE, revert=True)):
        words = f"{restricted} restricted by {kind.lower()} order"
        refuses(world, words, **{PARTS[kind]: {name: restriction}})


# ---- Assets and signatures ---------------------------------------------------------------------------------


def refuses_unregistered(world: World, kind: str) -> None:
    """The registry is asked before the asset, so that one without code is refused in words too."""
    for asset in (answering(world, word(world.who("stranger"))), SOMEBODY):
        refuses(world, f"{kind} not registered", **naming(kind, asset))


def refuses_sign_of_stranger(world: World, kind: str) -> None:
    orders = world.four(dataset=True)
    sign = world.signed(orders[KINDS.index(kind)].order, "stranger").sign
    expected = refusal(f"Invalid {kind.lower()} order signature")
    assert refusal_of(world, with_sign(orders, kind, sign)) == expected


def refuses_without_consent(world: World, kind: str) -> None:
    """The owner is a wallet that says no."""
    wallet = answering(world, NO)
    asset = wallet if kind == "Request" else owned_by(world, wallet, kind)
    refuses(world, f"Invalid {kind.lower()} order signature", **naming(kind, asset))


def test_fail_when_app_not_registered(world: World) -> None:
    refuses_unregistered(world, "App")


def test_fail_when_invalid_app_order_signature_from_eoa(world: World) -> None:
    refuses_sign_of_stranger(world, "App")


def test_fail_when_invalid_app_order_signature_from_contract(world: World) -> None:
    refuses_without_consent(world, "App")


def test_fail_when_dataset_not_registered(world: World) -> None:
    refuses_unregistered(world, "Dataset")


def test_fail_when_invalid_dataset_order_signature_from_eoa(world: World) -> None:
    refuses_sign_of_stranger(world, "Dataset")


def test_fail_when_invalid_dataset_order_signature_from_contract(world: World) -> None:
    refuses_without_consent(world, "Dataset")


def test_fail_when_workerpool_not_registered(world: World) -> None:
    refuses_unregistered(world, "Workerpool")


def test_fail_when_invalid_workerpool_order_signature_from_eoa(world: World) -> None:
    refuses_sign_of_stranger(world, "Workerpool")


def test_fail_when_invalid_workerpool_order_signature_from_contract(world: World) -> None:
    refuses_without_consent(world, "Workerpool")


def test_fail_when_invalid_request_order_signature_from_eoa(world: World) -> None:
    refuses_sign_of_stranger(world, "Request")


def test_fail_when_invalid_request_order_signature_from_contract(world: World) -> None:
    refuses_without_consent(world, "Request")


# ---- Volumes and money -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_fail_if_one_or_more_orders_are_consumed(world: World, kind: str) -> None:
    """By a boost deal or by another."""
    for match in (boost, World.match):
        used, fresh = world.four(dataset=True), world.four(dataset=True)
        match(world, used)
        mixed = tuple(u if k == kind else f for k, u, f in zip(KINDS, used, fresh, strict=True))
        assert refusal_of(world, mixed) == refusal("One or more orders consumed")


def test_fail_when_requester_has_insufficient_balance(world: World) -> None:
    leave(world, "requester", PRICE - 1)
    assert refusal_of(world, world.four(dataset=True)) == TOO_POOR


def test_fail_when_scheduler_has_insufficient_balance(world: World) -> None:
    leave(world, "scheduler", STAKE - 1)
    assert refusal_of(world, world.four(dataset=True)) == TOO_POOR


def test_fail_when_sponsor_has_insufficient_balance(world: World) -> None:
    leave(world, "sponsor", PRICE - 1)
    orders = tuples(world.four(dataset=True))
    assert refused(world, "sponsor", "sponsorMatchOrdersBoost", *orders) == TOO_POOR


# ---- Beyond the list ---------------------------------------------------------------------------------------


def test_a_sponsored_request_of_the_zero_address(world: World) -> None:
    """The official hub takes any 65 bytes for its signature: a failed recovery gives the zero address."""
    orders = with_sign(world.four(request={"requester": ZERO}), "Request", b"\x07" * 65)
    invalid = refusal("Invalid request order signature")
    assert refusal_of(world, orders) == (NOBODY_PAYS if world.suite == "official" else invalid)
    if world.suite == "official":
        matches(world, BoostAgreed(orders, payer="sponsor"))
    else:
        assert refused(world, "sponsor", "sponsorMatchOrdersBoost", *tuples(orders)) == invalid


def test_the_price_of_an_absent_dataset(world: World) -> None:
    """The official hub locks it for ever; ours does not lock it."""
    app, _, pool, request = world.four()
    absent = replace(NO_DATASET, order=replace(NO_DATASET.order, datasetprice=DATASET_PRICE))
    with moves(world) as moved:
        push(world, boost(world, (app, absent, pool, request)))
    left = DATASET_PRICE if world.suite == "official" else 0
    assert moved["requester"] == (DATASET_PRICE - PRICE - left, left)


def test_a_volume_beyond_16_bits(world: World) -> None:
    free: dict[str, Any] = {"app": {"appprice": 0}, "pool": {"workerpoolprice": 0}}
    overflow = keccak(b"SafeCastOverflowedUintDowncast(uint8,uint256)")[:4]
    orders = world.four(volume=2**16, **free)
    assert refusal_of(world, orders) == overflow + encode(["uint8", "uint256"], [16, 2**16])
    boost(world, world.four(volume=2**16 - 1, **free))
