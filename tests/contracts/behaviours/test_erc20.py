"""The staked tokens as an ERC-20 (poco.md §6.2)."""

from __future__ import annotations

from typing import Any

import pytest

from sealdeal.model.types import Address, address
from tests.contracts.behaviours.stage import (
    FALSE,
    NO_DATA,
    TRUE,
    act,
    answer,
    answering,
    moves,
    recorder,
    refused,
    who,
)
from tests.contracts.world import WEALTH, World, text

SOMEBODY = address("0x" + "5b" * 20)
FROM_ZERO, TO_ZERO = (text(f"ERC20: transfer {way} the zero address") for way in ("from", "to"))
APPROVE_FROM_ZERO, APPROVE_TO_ZERO = (
    text(f"ERC20: approve {way} the zero address") for way in ("from", "to")
)


@pytest.fixture
def spender(world: World) -> Address:
    """May take 10 of the requester's."""
    act(world, "requester", "approve", world.who("worker"), 10)
    return world.who("worker")


def refuses_nobody(world: World, function: str, *args: Any) -> None:
    """The zero address can send nothing, so nobody can tell but with a simulated call."""
    assert refused(world, "nobody", function, *args) == APPROVE_FROM_ZERO


# ---- Supply and balances -----------------------------------------------------------------------------------


def test_get_total_supply(world: World) -> None:
    """Deposits less withdrawals: what the hub holds of the base token."""
    assert world.hub.totalSupply() == world.token.balanceOf(world.hub.address) == WEALTH * len(world.ROLES)


def test_get_balance_when_account_has_no_tokens(world: World) -> None:
    assert world.hub.balanceOf(SOMEBODY) == 0


def test_get_balance_when_account_has_some_tokens(world: World) -> None:
    """Free ones: a deal's are locked."""
    assert world.hub.balanceOf(world.who("requester")) == WEALTH
    world.deal()
    free, locked = world.account("requester")
    assert free == world.hub.balanceOf(world.who("requester")) == WEALTH - locked < WEALTH


# ---- Transfers ---------------------------------------------------------------------------------------------


def test_transfer_tokens(world: World) -> None:
    to = world.who("worker")
    assert answer(world, "requester", "transfer", to, 7) is True
    with moves(world) as moved:
        done = act(world, "requester", "transfer", to, 7)
    assert done.events == [("Transfer", world.who("requester"), to, 7)]
    assert moved == {"requester": (-7, 0), "worker": (7, 0)}


def test_transfer_zero_tokens(world: World) -> None:
    done = act(world, "requester", "transfer", SOMEBODY, 0)
    assert done.events == [("Transfer", world.who("requester"), SOMEBODY, 0)]


def test_not_transfer_from_the_zero_address(world: World) -> None:
    assert refused(world, "nobody", "transfer", SOMEBODY, 0) == FROM_ZERO


def test_not_transfer_to_the_zero_address(world: World) -> None:
    assert refused(world, "requester", "transfer", who(world, "nobody"), 0) == TO_ZERO


def test_not_transfer_when_sender_balance_is_too_low(world: World) -> None:
    assert refused(world, "requester", "transfer", SOMEBODY, WEALTH + 1) == NO_DATA


# ---- Allowances --------------------------------------------------------------------------------------------


def sets_allowance(world: World, function: str, amount: int, expected: int) -> None:
    requester, spender = world.who("requester"), world.who("worker")
    assert answer(world, "requester", function, spender, amount) is True
    done = act(world, "requester", function, spender, amount)
    assert done.events == [("Approval", requester, spender, expected)]
    assert world.hub.allowance(requester, spender) == expected


def test_approve_tokens(world: World) -> None:
    sets_allowance(world, "approve", 10, 10)
    sets_allowance(world, "approve", 3, 3)


def test_not_approve_from_the_zero_address(world: World) -> None:
    refuses_nobody(world, "approve", SOMEBODY, 1)


def test_not_approve_the_zero_address(world: World) -> None:
    assert refused(world, "requester", "approve", who(world, "nobody"), 1) == APPROVE_TO_ZERO


def test_increase_allowance(world: World, spender: Address) -> None:
    sets_allowance(world, "increaseAllowance", 5, 15)


def test_not_increase_allowance_from_the_zero_address(world: World) -> None:
    refuses_nobody(world, "increaseAllowance", SOMEBODY, 1)


def test_not_increase_allowance_for_the_zero_address(world: World) -> None:
    assert refused(world, "requester", "increaseAllowance", who(world, "nobody"), 1) == APPROVE_TO_ZERO


def test_increase_allowance_past_the_maximum(world: World, spender: Address) -> None:
    assert refused(world, "requester", "increaseAllowance", spender, 2**256 - 10) == NO_DATA


def test_decrease_allowance(world: World, spender: Address) -> None:
    sets_allowance(world, "decreaseAllowance", 4, 6)


def test_not_decrease_allowance_of_a_value_greater_than_old_allowance(world: World, spender: Address) -> None:
    assert refused(world, "requester", "decreaseAllowance", spender, 11) == NO_DATA


def test_not_decrease_allowance_from_the_zero_address(world: World) -> None:
    refuses_nobody(world, "decreaseAllowance", SOMEBODY, 0)


def test_not_decrease_allowance_for_the_zero_address(world: World) -> None:
    assert refused(world, "requester", "decreaseAllowance", who(world, "nobody"), 0) == APPROVE_TO_ZERO


# ---- approveAndCall ----------------------------------------------------------------------------------------


def test_approve_and_call(world: World) -> None:
    requester, receiver = world.who("requester"), answering(world, TRUE)
    assert answer(world, "requester", "approveAndCall", receiver, 5, b"extra") is True
    done = act(world, "requester", "approveAndCall", receiver, 5, b"extra")
    assert done.events == [("Approval", requester, receiver, 5)]
    assert world.hub.allowance(requester, receiver) == 5


def test_not_approve_and_call_from_the_zero_address(world: World) -> None:
    refuses_nobody(world, "approveAndCall", answering(world, TRUE), 5, b"")


def test_not_approve_and_call_for_the_zero_address(world: World) -> None:
    assert refused(world, "requester", "approveAndCall", who(world, "nobody"), 5, b"") == APPROVE_TO_ZERO


def test_not_approve_and_call_when_receiver_refuses_approval(world: World) -> None:
    """It says no, or is no contract, or answers nothing."""
    for receiver, expected in (
        (answering(world, FALSE), text("approval-refused")),
        (SOMEBODY, NO_DATA),
        (recorder(world), NO_DATA),
    ):
        assert refused(world, "requester", "approveAndCall", receiver, 5, b"") == expected


# ---- transferFrom ------------------------------------------------------------------------------------------


def test_transferfrom_some_tokens(world: World, spender: Address) -> None:
    requester = world.who("requester")
    arguments: tuple[Any, ...] = requester, world.who("app"), 4
    assert answer(world, "worker", "transferFrom", *arguments) is True
    with moves(world) as moved:
        done = act(world, "worker", "transferFrom", *arguments)
    assert done.events == [("Transfer", *arguments), ("Approval", requester, spender, 6)]
    assert moved == {"requester": (-4, 0), "app": (4, 0)}
    assert world.hub.allowance(requester, spender) == 6


def test_not_transferfrom_when_owner_is_the_zero_address(world: World) -> None:
    assert refused(world, "worker", "transferFrom", who(world, "nobody"), SOMEBODY, 0) == FROM_ZERO


def test_not_transferfrom_to_the_zero_address(world: World, spender: Address) -> None:
    arguments = world.who("requester"), who(world, "nobody"), 1
    assert refused(world, "worker", "transferFrom", *arguments) == TO_ZERO


def test_not_transferfrom_when_owner_balance_is_too_low(world: World) -> None:
    act(world, "requester", "approve", world.who("worker"), WEALTH + 1)
    arguments = world.who("requester"), SOMEBODY, WEALTH + 1
    assert refused(world, "worker", "transferFrom", *arguments) == NO_DATA


def test_not_transferfrom_when_spender_allowance_is_too_low(world: World, spender: Address) -> None:
    assert refused(world, "worker", "transferFrom", world.who("requester"), SOMEBODY, 11) == NO_DATA
