"""manageAppOrder, manageDatasetOrder, manageWorkerpoolOrder, manageRequestOrder (poco.md §7.1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sealdeal.model.orders import Signed
from sealdeal.model.types import ZERO
from tests.contracts.behaviours.stage import (
    BAD_FORMAT,
    KINDS,
    NO,
    OWNERS,
    YES,
    act,
    answering,
    operation_sign,
    owned_by,
    refused,
)
from tests.contracts.world import World, text

SIGN, CLOSE = 0, 1
NOT_ALLOWED = text("invalid-sender-or-signature")
EACH_KIND = pytest.mark.parametrize("kind", KINDS)


def order_of(world: World, kind: str) -> Signed[Any]:
    """One of volume 7. Its own signature is nobody's: managing does not look at it."""
    return Signed(world.four(dataset=True, volume=7)[KINDS.index(kind)].order, b"junk")


def manages(world: World, kind: str, operation: int, by: str, sign: bool) -> None:
    """The operation, by its owner or by a stranger with the owner's signature, changes just this."""
    order = order_of(world, kind)
    hashed, owner = order.hash(world.domain), OWNERS[kind]
    signature = operation_sign(world, kind, order.order, operation, owner) if sign else b""
    done = act(world, by, f"manage{kind}Order", (order.as_tuple(), operation, signature))
    assert done.events == [(f"{'Closed' if operation else 'Signed'}{kind}Order", hashed)]
    assert world.hub.viewPresigned(hashed) == (ZERO if operation else world.who(owner))
    assert world.hub.viewConsumed(hashed) == (7 if operation else 0)


@EACH_KIND
def test_presign_order_when_operation_is_sent_by(world: World, kind: str) -> None:
    manages(world, kind, SIGN, OWNERS[kind], sign=False)


@EACH_KIND
def test_presign_order_when_operation_is_signed_by(world: World, kind: str) -> None:
    manages(world, kind, SIGN, "stranger", sign=True)


@EACH_KIND
def test_close_order_when_operation_is_sent_by(world: World, kind: str) -> None:
    manages(world, kind, CLOSE, OWNERS[kind], sign=False)


@EACH_KIND
def test_close_order_when_operation_is_signed_by(world: World, kind: str) -> None:
    manages(world, kind, CLOSE, "stranger", sign=True)


@EACH_KIND
@pytest.mark.parametrize("operation", [SIGN, CLOSE])
def test_not_manage_order_when_invalid_sender_or_signature(world: World, kind: str, operation: int) -> None:
    order = order_of(world, kind)

    def refuses(sign: bytes, expected: bytes, by: str = "stranger") -> None:
        arguments = order.as_tuple(), operation, sign
        assert refused(world, by, f"manage{kind}Order", arguments) == expected

    refuses(b"", BAD_FORMAT)
    refuses(operation_sign(world, kind, order.order, operation, "stranger"), NOT_ALLOWED)
    refuses(operation_sign(world, kind, order.order, 1 - operation, OWNERS[kind]), NOT_ALLOWED)
    refuses(world.signed(order.order).sign, NOT_ALLOWED)  # of the order, not of the operation


@EACH_KIND
def test_a_wallet_manages_by_its_consent(world: World, kind: str) -> None:
    for says, allowed in ((YES, True), (NO, False)):
        wallet = answering(world, says)
        asset = wallet if kind == "Request" else owned_by(world, wallet, kind)
        builder: Callable[..., Any] = {
            "App": world.app_order,
            "Dataset": world.dataset_order,
            "Workerpool": world.pool_order,
            "Request": world.request_order,
        }[kind]
        field = "requester" if kind == "Request" else kind.lower()
        order: Signed[Any] = Signed(builder(**{field: asset}), b"")
        operation = order.as_tuple(), SIGN, b"any length"
        if allowed:
            act(world, "stranger", f"manage{kind}Order", operation)
            assert world.hub.viewPresigned(order.hash(world.domain)) == wallet
        else:
            assert refused(world, "stranger", f"manage{kind}Order", operation) == NOT_ALLOWED
