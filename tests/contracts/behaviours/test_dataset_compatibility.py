"""assertDatasetDealCompatibility: may a dataset be used in a deal that was made without one (poco.md §7)?"""

from __future__ import annotations

from typing import Any

import pytest
from eth_abi.abi import encode

from sealdeal.model.orders import Signed, tag
from sealdeal.model.types import address, keccak
from tests.contracts.behaviours.stage import (
    BAD_FORMAT,
    FALSE,
    NO,
    TRUE,
    YES,
    act,
    answering,
    operation_sign,
    owned_by,
    presign,
    refused,
)
from tests.contracts.world import World

SOMEBODY = address("0x" + "5b" * 20)
FRAMEWORKS = {"tee": 0b1, "scone": 0b11, "gramine": 0b101, "tdx": 0b1001, "all": 0b1111}


@pytest.fixture
def dealid(world: World) -> bytes:
    return world.deal()


def order(world: World, **changes: Any) -> Signed[Any]:
    return world.signed(world.dataset_order(**changes))


def admits(world: World, dataset: Signed[Any], dealid: bytes) -> None:
    world.hub.assertDatasetDealCompatibility(dataset.as_tuple(), dealid)


def refuses(world: World, dataset: Signed[Any], dealid: bytes, words: str) -> None:
    error = keccak(b"IncompatibleDatasetOrder(string)")[:4] + encode(["string"], [words])
    arguments = dataset.as_tuple(), dealid
    assert refused(world, "stranger", "assertDatasetDealCompatibility", *arguments) == error


def refuses_restriction(world: World, dealid: bytes, field: str, words: str, member: str) -> None:
    """Of somebody else and of a group without the one it is about; with that one or everyone it is fine."""
    for restriction in (SOMEBODY, answering(world, FALSE), answering(world, TRUE, revert=True)):
        refuses(world, order(world, **{field: restriction}), dealid, words)
    for admitting in (member, answering(world, TRUE)):
        admits(world, order(world, **{field: admitting}), dealid)


def test_not_revert_when_dataset_order_is_compatible_with_deal(world: World, dealid: bytes) -> None:
    """Signed, presigned, or a wallet's. Prices and what is left of the volume beyond 0 do not matter."""
    admits(world, order(world, datasetprice=2**255), dealid)
    presigned = Signed(world.dataset_order(), b"")
    presign(world, "Dataset", presigned)
    admits(world, presigned, dealid)
    theirs = owned_by(world, answering(world, YES), "Dataset")
    admits(world, Signed(world.dataset_order(dataset=theirs), b"any"), dealid)


@pytest.mark.parametrize("deal", FRAMEWORKS)
@pytest.mark.parametrize("dataset", FRAMEWORKS)
def test_not_revert_with_compatible_tee_tags(world: World, dataset: str, deal: str) -> None:
    """As 6.2.0, which ignores a dataset's framework bits; 6.1.0 compares them."""
    asked, given = FRAMEWORKS[dataset], FRAMEWORKS[deal]
    dealid = world.deal(tee=True, pool={"tag": tag(given)}, request={"tag": tag(given)})
    tagged = order(world, tag=tag(asked))
    if world.suite == "official" and asked & ~given:
        refuses(world, tagged, dealid, "Tag compatibility not satisfied")
    else:
        admits(world, tagged, dealid)


def test_revert_when_the_dataset_order_is_revoked_or_fully_consumed(world: World, dealid: bytes) -> None:
    words = "Dataset order is revoked or fully consumed"
    revoked = order(world)
    act(world, "dataset", "manageDatasetOrder", (revoked.as_tuple(), 1, b""))
    refuses(world, revoked, dealid, words)
    orders = world.four(dataset=True)
    world.match(orders)
    refuses(world, orders[1], dealid, words)
    refuses(world, order(world, volume=0), dealid, words)


def test_revert_when_dataset_order_signature_is_invalid(world: World, dealid: bytes) -> None:
    words, mine = "Invalid dataset order signature", world.dataset_order()
    refuses(world, world.signed(mine, "stranger"), dealid, words)
    refuses(world, Signed(mine, operation_sign(world, "Dataset", mine, 0, "dataset")), dealid, words)
    theirs = owned_by(world, answering(world, NO), "Dataset")
    refuses(world, Signed(world.dataset_order(dataset=theirs), b"any"), dealid, words)
    arguments = Signed(mine, b"short").as_tuple(), dealid
    assert refused(world, "stranger", "assertDatasetDealCompatibility", *arguments) == BAD_FORMAT


def test_revert_when_the_deal_is_not_found(world: World, dealid: bytes) -> None:
    refuses(world, order(world), keccak(dealid), "Deal not found")


def test_revert_when_the_deal_already_has_a_dataset(world: World) -> None:
    refuses(world, order(world), world.deal(dataset=True), "Deal already has a dataset")


def test_revert_when_app_restriction_is_not_satisfied(world: World, dealid: bytes) -> None:
    refuses_restriction(world, dealid, "apprestrict", "App restriction not satisfied", world.app)


def test_revert_when_workerpool_restriction_is_not_satisfied(world: World, dealid: bytes) -> None:
    words = "Workerpool restriction not satisfied"
    refuses_restriction(world, dealid, "workerpoolrestrict", words, world.pool)


def test_revert_when_requester_restriction_is_not_satisfied(world: World, dealid: bytes) -> None:
    words = "Requester restriction not satisfied"
    refuses_restriction(world, dealid, "requesterrestrict", words, world.who("requester"))


def test_revert_when_tag_compatibility_with_deal_is_not_satisfied(world: World, dealid: bytes) -> None:
    refuses(world, order(world, tag=tag(1)), dealid, "Tag compatibility not satisfied")


def test_revert_when_dataset_has_bit_4_set_and_deal_does_not(world: World) -> None:
    tagged = order(world, tag=tag(0b10001))
    refuses(world, tagged, world.deal(tee=True), "Tag compatibility not satisfied")
    wide = {"tag": tag(0b10001)}
    admits(world, tagged, world.deal(tee=True, pool=wide, request=wide))
