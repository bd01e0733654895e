"""Orders on chain: presigning, closing, broadcasting, hashes, signatures (poco.md §4, §5, §7.1)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from eth_abi.abi import encode

from sealdeal.model.eip712 import Typed, hub_domain
from sealdeal.model.orders import (
    NO_DATASET,
    AppOrder,
    DatasetOrder,
    RequestOrder,
    Signed,
    WorkerpoolOrder,
    tag,
)
from sealdeal.model.types import ZERO, keccak
from tests.contracts.world import CHAIN_ID, World, refusal, text

KINDS = {"App": 0, "Dataset": 1, "Workerpool": 2, "Request": 3}
OWNERS = {"App": "app", "Dataset": "dataset", "Workerpool": "scheduler", "Request": "requester"}
TYPES: dict[str, type[Typed]] = {
    "App": AppOrder,
    "Dataset": DatasetOrder,
    "Workerpool": WorkerpoolOrder,
    "Request": RequestOrder,
}
SIGN, CLOSE = 0, 1


def operation_sign(world: World, kind: str, signed: Signed[Any], operation: int, role: str) -> bytes:
    """The signature of an operation, its struct hash spelled out as in poco.md §4."""
    cls = TYPES[kind]
    full = f"{cls.__name__}Operation({cls.__name__} order,uint256 operation){cls.type_string()}"
    struct = keccak(keccak(full.encode()) + signed.order.struct_hash() + operation.to_bytes(32, "big"))
    return world.keys[role].sign_digest(keccak(b"\x19\x01" + world.domain.separator + struct))


def manage(world: World, kind: str, signed: Signed[Any], operation: int, by: str, sign: bytes = b"") -> Any:
    return world.hub.send(f"manage{kind}Order", (signed.as_tuple(), operation, sign), sender=world.who(by))


def refused(
    world: World, kind: str, signed: Signed[Any], operation: int, by: str, sign: bytes = b""
) -> bytes:
    return refusal(
        world.hub, f"manage{kind}Order", (signed.as_tuple(), operation, sign), sender=world.who(by)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_sign_and_close(world: World, kind: str) -> None:
    signed = world.four(dataset=True, volume=9, request={"params": "some params"})[KINDS[kind]]
    hashed = signed.hash(world.domain)
    owner = OWNERS[kind]
    done = manage(world, kind, signed, SIGN, owner)
    assert done.events == [(f"Signed{kind}Order", hashed)]
    assert world.hub.viewPresigned(hashed) == world.who(owner)
    assert world.hub.viewConsumed(hashed) == 0
    assert world.hub.verifyPresignature(world.who(owner), hashed) is True
    assert world.hub.verifyPresignature(world.who("stranger"), hashed) is False
    done = manage(world, kind, signed, CLOSE, owner)
    assert done.events == [(f"Closed{kind}Order", hashed)]
    assert world.hub.viewConsumed(hashed) == 9
    manage(world, kind, signed, CLOSE, owner)
    assert world.hub.viewConsumed(hashed) == 9


@pytest.mark.parametrize("operation", [SIGN, CLOSE])
@pytest.mark.parametrize("kind", KINDS)
def test_by_the_owners_signature(world: World, kind: str, operation: int) -> None:
    signed = world.four(dataset=True)[KINDS[kind]]
    owner = OWNERS[kind]
    sign = operation_sign(world, kind, signed, operation, owner)
    manage(world, kind, signed, operation, "stranger", sign)
    invalid = text("invalid-sender-or-signature")
    assert refused(world, kind, signed, 1 - operation, "stranger", sign) == invalid
    forged = operation_sign(world, kind, signed, operation, "stranger")
    assert refused(world, kind, signed, operation, "stranger", forged) == invalid
    assert refused(world, kind, signed, operation, "stranger") == text("invalid-signature-format")
    assert refused(world, kind, signed, 2, owner) == b""


@pytest.mark.parametrize("kind", ["App", "Dataset", "Workerpool"])
def test_the_owner_is_asked_of_the_asset(world: World, kind: str) -> None:
    signed = world.four(dataset=True)[KINDS[kind]]
    field = {"App": "app", "Dataset": "dataset", "Workerpool": "workerpool"}[kind]
    elsewhere = replace(signed, order=replace(signed.order, **{field: world.who("stranger")}))
    assert refused(world, kind, elsewhere, SIGN, "stranger") == b""
    # Not only registered assets: whatever answers owner().
    registry = replace(signed, order=replace(signed.order, **{field: world.apps.address}))
    arguments = (registry.as_tuple(), SIGN, b"")
    world.hub.send(f"manage{kind}Order", arguments, sender=world.owner.address)


@pytest.mark.parametrize("kind", KINDS)
def test_closed_orders_do_not_match(world: World, kind: str) -> None:
    orders = world.four(dataset=True, volume=3)
    manage(world, kind, orders[KINDS[kind]], CLOSE, OWNERS[kind])
    arguments = [o.as_tuple() for o in orders]
    assert world.hub.computeDealVolume(*arguments) == 0
    assert refusal(world.hub, "matchOrders", *arguments) == text("iExecV5-matchOrders-0x60")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("taken", [1, 3])
def test_orders_closed_after_a_deal(world: World, kind: str, taken: int) -> None:
    """Whether the deal took a part or all of it."""
    volumes: dict[str, Any] = {name: {"volume": 3} for name in ("app", "data", "pool", "request")}
    smallest = "pool" if kind != "Workerpool" else "app"
    volumes[smallest]["volume"] = taken
    orders = world.four(dataset=True, **volumes)
    signed = orders[KINDS[kind]]
    dealid, _ = world.match(orders)
    before = world.hub.viewDeal(dealid)
    assert world.hub.viewConsumed(signed.hash(world.domain)) == taken
    manage(world, kind, signed, CLOSE, OWNERS[kind])
    assert world.hub.viewConsumed(signed.hash(world.domain)) == 3
    assert world.hub.viewDeal(dealid) == before
    world.first_task(dealid)


def test_a_closed_request_leaves_no_deal(world: World) -> None:
    orders = world.four(volume=2**255)
    manage(world, "Request", orders[3], CLOSE, "requester")
    hashed = orders[3].hash(world.domain)
    assert world.hub.viewConsumed(hashed) == 2**255
    dealid = keccak(hashed + bytes(32))
    assert world.hub.viewDeal(dealid).requester == ZERO
    assert refusal(world.hub, "initialize", dealid, 0) == b""


# ---- Broadcasts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_broadcast(world: World, kind: str) -> None:
    signed = world.four(dataset=True, request={"params": "é"})[KINDS[kind]]
    done = world.hub.send(f"broadcast{kind}Order", signed.as_tuple(), sender=world.who("stranger"))
    [(name, order)] = done.events
    assert name == f"Broadcast{kind}Order"
    assert tuple(order.values()) == signed.as_tuple()


# ---- Hashes and signatures ---------------------------------------------------------------------------------


def test_domain(world: World) -> None:
    assert world.hub.domain() == {
        "name": "iExecODB",
        "version": "5.0.0",
        "chainId": CHAIN_ID,
        "verifyingContract": world.hub.address,
    }
    assert world.hub.eip712domain_separator() == hub_domain(CHAIN_ID, world.hub.address).separator


def test_the_domain_follows_the_chain(world: World) -> None:
    orders, other = world.four(), hub_domain(CHAIN_ID + 1, world.hub.address)
    try:
        world.chain.rpc("anvil_setChainId", CHAIN_ID + 1)
        assert world.hub.domain()["chainId"] == CHAIN_ID + 1
        assert world.hub.eip712domain_separator() == other.separator
        arguments = [o.as_tuple() for o in orders]
        assert refusal(world.hub, "matchOrders", *arguments) == text("iExecV5-matchOrders-0x21")
        owners = (world.keys[role] for role in ("app", "dataset", "scheduler", "requester"))
        again = [Signed.by(key, o.order, other) for key, o in zip(owners, orders, strict=True)]
        arguments = [o.as_tuple() for o in (again[0], NO_DATASET, *again[2:])]
        assert world.hub.call("matchOrders", *arguments) is not None
    finally:
        world.chain.rpc("anvil_setChainId", CHAIN_ID)


def test_verify_signature(world: World) -> None:
    hashed, key = keccak(b"something"), world.keys["requester"]
    sign = key.sign_digest(hashed)
    for name in ("verifySignature", "verifyPresignatureOrSignature"):
        assert world.hub.call(name, key.address, hashed, sign) is True
        assert world.hub.call(name, world.who("worker"), hashed, sign) is False
        assert world.hub.call(name, key.address, keccak(sign), sign) is False
        for junk in (b"", sign[:63], sign + b"\0"):
            assert refusal(world.hub, name, key.address, hashed, junk) == text("invalid-signature-format")
        # The zero address has signed nothing (the official contracts take junk for its signature).
        assert world.hub.call(name, ZERO, hashed, b"\x07" * 65) is False
    assert world.hub.verifyPresignature(ZERO, hashed) is False


def test_volume_of_consumed_orders(world: World) -> None:
    orders = world.four(volume=5, pool={"volume": 2})
    arguments = [o.as_tuple() for o in orders]
    assert world.hub.computeDealVolume(*arguments) == 2
    world.match(orders)
    assert world.hub.computeDealVolume(*arguments) == 0
    fresh = world.signed(world.pool_order(volume=9)).as_tuple()
    assert world.hub.computeDealVolume(arguments[0], arguments[1], fresh, arguments[3]) == 3
    # Signatures and registries are not looked at.
    unsigned = [(*a[:-1], b"") for a in arguments]
    assert world.hub.computeDealVolume(unsigned[0], unsigned[1], fresh, unsigned[3]) == 3


# ---- Adding a dataset to a deal ----------------------------------------------------------------------------


def incompatible(reason: str) -> bytes:
    return keccak(b"IncompatibleDatasetOrder(string)")[:4] + encode(["string"], [reason])


def test_dataset_compatibility(world: World) -> None:
    dealid = world.deal(tee=True)

    def answer(signed: Signed[Any], deal: bytes = dealid) -> bytes:
        return refusal(world.hub, "assertDatasetDealCompatibility", signed.as_tuple(), deal)

    good = world.signed(world.dataset_order())
    world.hub.assertDatasetDealCompatibility(good.as_tuple(), dealid)
    closed = world.signed(world.dataset_order())
    manage(world, "Dataset", closed, CLOSE, "dataset")
    assert answer(closed) == incompatible("Dataset order is revoked or fully consumed")
    assert answer(NO_DATASET) == incompatible("Dataset order is revoked or fully consumed")
    stranger = world.who("stranger")
    assert answer(world.signed(world.dataset_order(dataset=stranger))) == b""
    forged = world.signed(world.dataset_order(), "stranger")
    assert answer(forged) == incompatible("Invalid dataset order signature")
    assert answer(replace(good, sign=b"")) == text("invalid-signature-format")
    assert answer(good, keccak(b"no deal")) == incompatible("Deal not found")
    assert answer(good, world.deal(dataset=True)) == incompatible("Deal already has a dataset")
    for field, reason in (
        ("apprestrict", "App restriction not satisfied"),
        ("workerpoolrestrict", "Workerpool restriction not satisfied"),
        ("requesterrestrict", "Requester restriction not satisfied"),
    ):
        assert answer(world.signed(world.dataset_order(**{field: stranger}))) == incompatible(reason)
    for bits in (1, 0b1110, 0b1111):
        fits = world.signed(world.dataset_order(tag=tag(bits)))
        world.hub.assertDatasetDealCompatibility(fits.as_tuple(), dealid)
    wrong = world.signed(world.dataset_order(tag=tag(16)))
    assert answer(wrong) == incompatible("Tag compatibility not satisfied")
