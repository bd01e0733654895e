"""The escrow: deposits, withdrawals, recovery (poco.md §6.1)."""

from __future__ import annotations

from typing import Any

import pytest

from sealdeal.model.types import ZERO, Address, keccak
from tests.contracts.behaviours.stage import (
    FALLBACK,
    NO_DATA,
    NOT_OWNER,
    act,
    answer,
    moves,
    paying,
    refused,
    refused_raw,
    who,
)
from tests.contracts.world import WEALTH, World, text

BASE_TOKEN_ALLOWANCE = text("ERC20: transfer amount exceeds allowance")
MINT_TO_ZERO = text("ERC20: mint to the zero address")


@pytest.fixture
def payer(world: World) -> Address:
    """A stranger with 100 base tokens, of which the hub may take 50."""
    stranger = world.who("stranger")
    act(world, "owner", "transfer", stranger, 100, on=world.token)
    act(world, "stranger", "approve", world.hub.address, 50, on=world.token)
    return stranger


def holds(world: World, account: Address) -> tuple[int, int, int]:
    """(base tokens of the account, base tokens of the hub, supply of staked tokens)."""
    balance = world.token.balanceOf
    return balance(account), balance(world.hub.address), world.hub.totalSupply()


def pays_in(world: World, payer: Address, function: str, *args: Any, minted: dict[str, int]) -> None:
    """A deposit mints what it takes of the base token."""
    before, total = holds(world, payer), sum(minted.values())
    assert answer(world, "stranger", function, *args) is True
    with moves(world) as moved:
        done = act(world, "stranger", function, *args)
    assert done.events == [("Transfer", ZERO, who(world, role), amount) for role, amount in minted.items()]
    assert moved == {role: (amount, 0) for role, amount in minted.items() if amount}
    assert holds(world, payer) == (before[0] - total, before[1] + total, before[2] + total)


def pays_out(world: World, function: str, amount: int, *target: Address) -> None:
    """A withdrawal burns what it pays of the base token."""
    to = target[0] if target else world.who("requester")
    before = holds(world, to)
    assert answer(world, "requester", function, amount, *target) is True
    with moves(world) as moved:
        done = act(world, "requester", function, amount, *target)
    assert done.events == [("Transfer", world.who("requester"), ZERO, amount)]
    assert moved == ({"requester": (-amount, 0)} if amount else {})
    assert holds(world, to) == (before[0] + amount, before[1] - amount, before[2] - amount)


# ---- Receive and fallback ----------------------------------------------------------------------------------


def test_revert_on_receive(world: World) -> None:
    assert refused_raw(world, paying(world, world.hub.address)) == FALLBACK
    assert refused_raw(world, world.hub.address) == FALLBACK


def test_revert_on_fallback(world: World) -> None:
    """With value or without; `renounceOwnership()` is no function of the hub either."""
    for to in (paying(world, world.hub.address), world.hub.address):
        for data in (b"\x12", b"\xde\xad\xbe\xef", keccak(b"renounceOwnership()")[:4]):
            assert refused_raw(world, to, data) == FALLBACK


def test_functions_take_no_native_currency(world: World) -> None:
    pay = paying(world, world.hub.address)
    calls: list[tuple[Any, ...]] = [("deposit", 0), ("transfer", pay, 0), ("claimArray", []), ("name",)]
    for call in calls:
        assert refused_raw(world, pay, world.hub.encode(*call)) == NO_DATA


# ---- Deposits ----------------------------------------------------------------------------------------------


def test_deposit_tokens(world: World, payer: Address) -> None:
    pays_in(world, payer, "deposit", 50, minted={"stranger": 50})


def test_deposit_0_token(world: World, payer: Address) -> None:
    pays_in(world, payer, "deposit", 0, minted={"stranger": 0})


def test_not_deposit_tokens_when_spending_is_not_approved(world: World, payer: Address) -> None:
    assert refused(world, "stranger", "deposit", 51) == BASE_TOKEN_ALLOWANCE


def test_not_deposit_tokens_when_caller_is_address_0(world: World) -> None:
    assert refused(world, "nobody", "deposit", 0) == MINT_TO_ZERO


def test_deposit_tokens_for_another_account(world: World, payer: Address) -> None:
    pays_in(world, payer, "depositFor", 50, world.who("app"), minted={"app": 50})


def test_not_deposit_tokens_for_another_account_when_spending_is_not_approved(
    world: World, payer: Address
) -> None:
    assert refused(world, "stranger", "depositFor", 51, world.who("app")) == BASE_TOKEN_ALLOWANCE


def test_not_deposit_tokens_for_zero_address(world: World, payer: Address) -> None:
    assert refused(world, "stranger", "depositFor", 1, ZERO) == MINT_TO_ZERO


def test_deposit_tokens_for_multiple_accounts(world: World, payer: Address) -> None:
    targets = [world.who("app"), world.who("worker")]
    pays_in(world, payer, "depositForArray", [20, 30], targets, minted={"app": 20, "worker": 30})


def test_not_deposit_tokens_for_multiple_accounts_with_mismatched_array_lengths(
    world: World, payer: Address
) -> None:
    for amounts in ([1], [1, 2, 3]):
        targets = [world.who("app"), world.who("worker")]
        assert refused(world, "stranger", "depositForArray", amounts, targets) == text("invalid-array-length")


def test_not_deposit_tokens_for_multiple_accounts_with_address_zero_in_target(
    world: World, payer: Address
) -> None:
    targets = [world.who("app"), ZERO]
    assert refused(world, "stranger", "depositForArray", [20, 30], targets) == MINT_TO_ZERO


# ---- Withdrawals -------------------------------------------------------------------------------------------


def test_withdraw_tokens(world: World) -> None:
    pays_out(world, "withdraw", WEALTH)


def test_withdraw_zero_token(world: World) -> None:
    pays_out(world, "withdraw", 0)


def test_not_withdraw_tokens_with_empty_balance(world: World) -> None:
    assert refused(world, "stranger", "withdraw", 1) == NO_DATA


def test_not_withdraw_tokens_with_insufficient_balance(world: World) -> None:
    """Locked stake does not count."""
    assert refused(world, "requester", "withdraw", WEALTH + 1) == NO_DATA
    world.deal()
    assert refused(world, "requester", "withdraw", WEALTH) == NO_DATA


def test_withdraw_to_another_address(world: World) -> None:
    pays_out(world, "withdrawTo", WEALTH, world.who("stranger"))


def test_withdraw_to_another_address_with_zero_token(world: World) -> None:
    pays_out(world, "withdrawTo", 0, world.who("stranger"))


def test_not_withdraw_to_another_address_with_empty_balance(world: World) -> None:
    assert refused(world, "stranger", "withdrawTo", 1, world.who("app")) == NO_DATA


def test_not_withdraw_to_another_address_with_insufficient_balance(world: World) -> None:
    assert refused(world, "requester", "withdrawTo", WEALTH + 1, world.who("app")) == NO_DATA


# ---- Recovery ----------------------------------------------------------------------------------------------


def test_recover_from_balance_deviation(world: World) -> None:
    """Tokens that somebody sent to the hub without a deposit become the owner's."""
    act(world, "owner", "transfer", world.hub.address, 33, on=world.token)
    assert answer(world, "owner", "recover") == 33
    with moves(world) as moved:
        done = act(world, "owner", "recover")
    assert done.events == [("Transfer", ZERO, world.owner.address, 33)]
    assert moved == {"owner": (33, 0)}
    assert world.hub.totalSupply() == world.token.balanceOf(world.hub.address)


def test_recover_0_token_when_balance_matches_total_supply(world: World) -> None:
    assert answer(world, "owner", "recover") == 0
    assert act(world, "owner", "recover").events == [("Transfer", ZERO, world.owner.address, 0)]


def test_not_recover_token_when_caller_is_not_the_owner(world: World) -> None:
    assert refused(world, "requester", "recover") == NOT_OWNER
