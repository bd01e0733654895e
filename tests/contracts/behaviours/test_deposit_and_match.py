"""receiveApproval: a deposit, and in 6.2.0 a match in the same transaction (poco.md §6.1, §15).

A hub of 6.1.0 ignores the data, so that there the deposit is all. A hub whose ABI knows the error
UnsupportedOperation does as 6.2.0.
"""

from __future__ import annotations

from typing import Any

import pytest

from sealdeal.model.types import ZERO, address, keccak
from tests.contracts.behaviours.stage import (
    NO_DATA,
    PRICE,
    Agreed,
    Four,
    act,
    answer,
    consumed,
    has,
    moves,
    refused,
    started,
    tuples,
)
from tests.contracts.world import DATASET_PRICE, WEALTH, World, text

SOMEBODY = address("0x" + "5b" * 20)


@pytest.fixture(autouse=True)
def poor_requester(world: World) -> None:
    """Has base tokens and nothing staked."""
    act(world, "requester", "withdraw", WEALTH)


def matches_too(world: World) -> bool:
    return has(world.suite, "UnsupportedOperation")


def call(world: World, orders: Four) -> bytes:
    return world.hub.encode("matchOrders", *tuples(orders))


def deposits(
    world: World, amount: int, data: bytes, by: str = "requester", then: list[Any] | None = None
) -> None:
    """The transaction mints, and then these events follow."""
    arguments = world.hub.address, amount, data
    assert answer(world, by, "approveAndCall", *arguments, on=world.token) is True
    receipt = act(world, by, "approveAndCall", *arguments, on=world.token).receipt
    assert world.hub.events(receipt) == [("Transfer", ZERO, world.who(by), amount), *(then or [])]


def deposits_and_matches(world: World, agreed: Agreed, amount: int) -> None:
    """The amount goes in, the price is locked; or, as 6.1.0, only the amount goes in."""
    data = call(world, agreed.orders)
    if not matches_too(world):
        deposits(world, amount, data)
        assert consumed(world, agreed.orders) == [0, 0, 0, 0]
        return
    with moves(world) as moved:
        deposits(world, amount, data, then=agreed.events(world))
    free, locked = agreed.moved()["requester"]
    assert moved == agreed.moved() | {"requester": (free + amount, locked)}
    dealid = agreed.dealid(world)
    assert world.hub.viewDeal(dealid) == agreed.deal(world, started(world, dealid))


def refuses(world: World, data: bytes, expected: bytes, by: str = "requester") -> None:
    """With nothing deposited; 6.1.0 deposits whatever the data is."""
    if matches_too(world):
        arguments = world.hub.address, PRICE, data
        assert refused(world, by, "approveAndCall", *arguments, on=world.token) == expected
    else:
        deposits(world, PRICE, data, by)


# ---- Deposits ----------------------------------------------------------------------------------------------


def test_deposit_tokens_via_approveandcall_with_empty_data(world: World) -> None:
    with moves(world) as moved:
        deposits(world, 7, b"")
    assert moved == {"requester": (7, 0)}
    assert world.token.balanceOf(world.who("requester")) == WEALTH - 7


def test_deposit_0_tokens_via_approveandcall(world: World) -> None:
    deposits(world, 0, b"")


def test_only_the_base_token_deposits(world: World) -> None:
    """Anyone may call for an account that allows the hub to take its base tokens."""
    act(world, "requester", "approve", world.hub.address, 7, on=world.token)
    arguments = world.who("requester"), 7
    wrong = refused(world, "stranger", "receiveApproval", *arguments, world.hub.address, b"")
    assert wrong == text("wrong-token")
    done = act(world, "stranger", "receiveApproval", *arguments, world.token.address, b"")
    assert done.events == [("Transfer", ZERO, *arguments)]


# ---- Deposits that match -----------------------------------------------------------------------------------


def test_approve_deposit_and_execute_matchorders_operation_with_all_assets(world: World) -> None:
    deposits_and_matches(world, Agreed(world.four(dataset=True, tee=True)), PRICE)


def test_approve_deposit_and_match_orders_without_dataset(world: World) -> None:
    deposits_and_matches(world, Agreed(world.four()), PRICE - DATASET_PRICE)


def test_work_when_requester_has_existing_balance(world: World) -> None:
    deposits(world, PRICE - 5, b"")
    deposits_and_matches(world, Agreed(world.four(dataset=True)), 5)


def test_handle_multiple_sequential_approveandcall_operations(world: World) -> None:
    for volume in (1, 2):
        agreed = Agreed(world.four(dataset=True, volume=volume), volume=volume)
        deposits_and_matches(world, agreed, PRICE * volume)


def test_handle_zero_price_orders(world: World) -> None:
    orders = world.four(
        dataset=True, app={"appprice": 0}, data={"datasetprice": 0}, pool={"workerpoolprice": 0}
    )
    if matches_too(world):
        deposits(world, 0, call(world, orders), then=free_match(world, orders))
    else:
        deposits(world, 0, call(world, orders))


def free_match(world: World, orders: Four) -> list[tuple[Any, ...]]:
    """Events of a match that costs nothing."""
    agreed = Agreed(orders)
    return [(*e[:-1], 0) if e[0] in ("Transfer", "Lock") else e for e in agreed.events(world)]


# ---- Refusals ----------------------------------------------------------------------------------------------


def test_not_match_orders_when_caller_is_not_requester(world: World) -> None:
    act(world, "owner", "transfer", world.who("sponsor"), PRICE, on=world.token)
    refuses(
        world, call(world, world.four(dataset=True)), keccak(b"CallerIsNotTheRequester()")[:4], by="sponsor"
    )


def test_bubble_up_error_when_matchorders_fails(world: World) -> None:
    orders = world.four(dataset=True, pool={"category": 1})
    refuses(world, call(world, orders), text("iExecV5-matchOrders-0x00"))


def test_revert_with_unsupported_operation_error_for_unknown_function_selector(world: World) -> None:
    error = keccak(b"UnsupportedOperation(bytes4)")[:4]
    for data in (b"\xde\xad\xbe\xef", world.hub.encode("sponsorMatchOrders", *tuples(world.four()))):
        refuses(world, data, error + data[:4].ljust(32, b"\0"))


def test_not_match_orders_with_invalid_calldata(world: World) -> None:
    """Shorter than a selector, or cut off."""
    data = call(world, world.four(dataset=True))
    for broken in (b"\x12", data[:3], data[:4], data[: len(data) // 2]):
        refuses(world, broken, NO_DATA)


def test_revert_with_operation_failed_error_when_delegatecall_fails_silently(world: World) -> None:
    """An app without code: a match refuses it without data."""
    orders = world.four(dataset=True, app={"app": SOMEBODY}, request={"app": SOMEBODY})
    refuses(world, call(world, orders), keccak(b"OperationFailed()")[:4])
