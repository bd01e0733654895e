"""Rlc: the ERC-20 that a network without RLC of its own deploys."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.contracts.evm import ZERO, account, compiled, inline, refused, signatures

SUPPLY = 87_000_000 * 10**9

SPENDER = """
answer: bool
sender: public(address)
amount: public(uint256)
token: public(address)
data: public(Bytes[12288])

@deploy
def __init__(answer: bool):
    self.answer = answer

@external
def receiveApproval(sender: address, amount: uint256, token: address, data: Bytes[12288]) -> bool:
    self.sender = sender
    self.amount = amount
    self.token = token
    self.data = data
    return self.answer
"""


@pytest.fixture(autouse=True)
def undone() -> Iterator[None]:
    with boa.env.anchor():
        yield


@pytest.fixture
def holder() -> str:
    return account("holder")


@pytest.fixture
def spender() -> str:
    return account("spender")


@pytest.fixture
def token(holder: str) -> Any:
    return compiled("Rlc").deploy(holder)


def test_metadata_and_supply(holder: str) -> None:
    token = compiled("Rlc").deploy(holder)
    [minted] = token.get_logs()
    assert (minted.from_, minted.to, minted.value) == (ZERO, holder, SUPPLY)
    assert (token.name(), token.symbol(), token.decimals()) == ("RLC", "RLC", 9)
    assert token.totalSupply() == token.balanceOf(holder) == SUPPLY


def test_functions() -> None:
    assert signatures("Rlc") == {
        "name()",
        "symbol()",
        "decimals()",
        "totalSupply()",
        "balanceOf(address)",
        "allowance(address,address)",
        "transfer(address,uint256)",
        "transferFrom(address,address,uint256)",
        "approve(address,uint256)",
        "approveAndCall(address,uint256,bytes)",
    }


def test_transfer(token: Any, holder: str, spender: str) -> None:
    assert token.transfer(spender, 5, sender=holder) is True
    [moved] = token.get_logs()
    assert (moved.from_, moved.to, moved.value) == (holder, spender, 5)
    assert (token.balanceOf(holder), token.balanceOf(spender)) == (SUPPLY - 5, 5)
    assert token.transfer(holder, 0, sender=account("stranger"))
    with refused("ERC20: transfer amount exceeds balance"):
        token.transfer(holder, 6, sender=spender)
    with refused("ERC20: transfer to the zero address"):
        token.transfer(ZERO, 1, sender=spender)


def test_a_transfer_to_oneself_makes_nothing(token: Any, holder: str) -> None:
    token.transfer(holder, SUPPLY, sender=holder)
    assert token.balanceOf(holder) == SUPPLY


def test_allowances(token: Any, holder: str, spender: str) -> None:
    assert token.approve(spender, 10, sender=holder) is True
    [approval] = token.get_logs()
    assert (approval.owner, approval.spender, approval.value) == (holder, spender, 10)
    assert token.transferFrom(holder, account("worker"), 4, sender=spender) is True
    assert token.allowance(holder, spender) == 6
    with refused("ERC20: transfer amount exceeds allowance"):
        token.transferFrom(holder, spender, 7, sender=spender)
    with refused("ERC20: transfer to the zero address"):
        token.transferFrom(holder, ZERO, 1, sender=spender)
    with refused("ERC20: approve to the zero address"):
        token.approve(ZERO, 1, sender=holder)
    token.approve(holder, 1, sender=spender)
    with refused("ERC20: transfer amount exceeds balance"):
        token.transferFrom(spender, holder, 1, sender=holder)


@pytest.mark.parametrize("data", [b"", b"order" * 2000])
def test_approve_and_call(token: Any, holder: str, data: bytes) -> None:
    hub = inline(SPENDER, True)
    assert token.approveAndCall(hub.address, 12, data, sender=holder) is True
    assert (hub.sender(), hub.amount(), hub.token(), hub.data()) == (holder, 12, token.address, data)
    assert token.allowance(holder, hub.address) == 12


def test_approve_and_call_refused(token: Any, holder: str, spender: str) -> None:
    unwilling = inline(SPENDER, False)
    with refused("approval-refused"):
        token.approveAndCall(unwilling.address, 1, b"", sender=holder)
    assert token.allowance(holder, unwilling.address) == 0
    with refused("ERC20: approve to the zero address"):
        token.approveAndCall(ZERO, 1, b"", sender=holder)
    with refused():  # nobody there to answer
        token.approveAndCall(spender, 1, b"", sender=holder)


moves = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 3 * 10**16)), max_size=8)


@given(moves=moves)
def test_money_is_neither_made_nor_lost(moves: list[tuple[int, int, int]]) -> None:
    with boa.env.anchor():
        actors = [account(role) for role in ("requester", "worker", "scheduler")]
        token = compiled("Rlc").deploy(actors[0])
        expected = [SUPPLY, 0, 0]
        for source, target, amount in moves:
            if amount <= expected[source]:
                token.transfer(actors[target], amount, sender=actors[source])
                expected[source] -= amount
                expected[target] += amount
            else:
                with refused("ERC20: transfer amount exceeds balance"):
                    token.transfer(actors[target], amount, sender=actors[source])
        assert [token.balanceOf(actor) for actor in actors] == expected
