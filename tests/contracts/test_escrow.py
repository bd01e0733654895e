"""Deposits, withdrawals and staked RLC as an ERC-20 (poco.md §6), and that the ledger is always solvent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sealdeal.model.deals import KITTY
from sealdeal.model.types import RLC, ZERO, Address, address
from tests.contracts.world import TIMEREF, WEALTH, Refused, World, refusal, text

SOMEBODY = address("0x" + "5b" * 20)


def refused(world: World, function: str, *args: Any, by: str = "requester") -> bytes:
    return refusal(world.hub, function, *args, sender=world.who(by))


@pytest.fixture
def rich(world: World) -> World:
    """The requester has 100 RLC in its wallet, all approved."""
    world.token.transfer(world.who("requester"), 100 * RLC)
    world.token.approve(world.hub.address, 100 * RLC, sender=world.who("requester"))
    return world


# ---- Deposits ----------------------------------------------------------------------------------------------


def test_deposit(rich: World) -> None:
    requester, supply = rich.who("requester"), rich.hub.totalSupply()
    done = rich.hub.deposit(30 * RLC, sender=requester)
    assert done.events == [("Transfer", ZERO, requester, 30 * RLC)]
    assert rich.account("requester") == (WEALTH + 30 * RLC, 0)
    assert rich.hub.balanceOf(requester) == WEALTH + 30 * RLC
    assert rich.hub.totalSupply() == supply + 30 * RLC
    assert rich.token.balanceOf(rich.hub.address) == supply + 30 * RLC
    assert rich.hub.call("deposit", 0, sender=requester) is True
    assert refused(rich, "deposit", 71 * RLC) == text("ERC20: transfer amount exceeds allowance")


def test_deposit_for(rich: World) -> None:
    requester = rich.who("requester")
    done = rich.hub.depositFor(5, SOMEBODY, sender=requester)
    assert done.events == [("Transfer", ZERO, SOMEBODY, 5)]
    assert refused(rich, "depositFor", 5, ZERO) == text("ERC20: mint to the zero address")
    done = rich.hub.depositForArray([1, 0, 2], [SOMEBODY, SOMEBODY, requester], sender=requester)
    assert done.events == [
        ("Transfer", ZERO, SOMEBODY, 1),
        ("Transfer", ZERO, SOMEBODY, 0),
        ("Transfer", ZERO, requester, 2),
    ]
    assert rich.hub.call("depositForArray", [], [], sender=requester) is True
    assert refused(rich, "depositForArray", [1], []) == text("invalid-array-length")


def test_approve_and_call_deposits(world: World) -> None:
    world.token.transfer(world.who("requester"), 9)
    world.token.approveAndCall(world.hub.address, 9, b"", sender=world.who("requester"))
    assert world.account("requester")[0] == WEALTH + 9


def test_receive_approval_may_be_called_by_anyone(rich: World) -> None:
    requester, token = rich.who("requester"), rich.token.address
    done = rich.hub.receiveApproval(requester, 40 * RLC, token, b"", sender=rich.who("stranger"))
    assert done.events == [("Transfer", ZERO, requester, 40 * RLC)]
    assert refused(rich, "receiveApproval", requester, 1, SOMEBODY, b"") == text("wrong-token")


def test_a_token_that_answers_false(world: World) -> None:
    """The base token's own code, replaced by one that returns zero to everything."""
    world.chain.rpc("anvil_setCode", world.token.address, "0x60205ff3")
    assert refused(world, "deposit", 1) == text("failled-transferFrom")
    assert refused(world, "depositFor", 1, SOMEBODY) == text("failled-transferFrom")
    assert world.hub.call("withdraw", 1, sender=world.who("requester")) is True  # its answer is ignored


def test_the_supply_has_a_bound(world: World) -> None:
    world.chain.rpc("anvil_setCode", world.token.address, "0x60015f5260205ff3")  # true to everything
    room = 2**64 - 1 - world.hub.totalSupply()
    assert refused(world, "deposit", room + 1) == text("ledger: supply above 2**64")
    world.hub.deposit(room, sender=world.who("requester"))


# ---- Withdrawals -------------------------------------------------------------------------------------------


def test_withdraw(world: World) -> None:
    requester, supply = world.who("requester"), world.hub.totalSupply()
    done = world.hub.withdraw(7, sender=requester)
    assert done.events == [("Transfer", requester, ZERO, 7)]
    done = world.hub.withdrawTo(8, SOMEBODY, sender=requester)
    assert done.events == [("Transfer", requester, ZERO, 8)]
    assert (world.token.balanceOf(requester), world.token.balanceOf(SOMEBODY)) == (7, 8)
    assert world.hub.totalSupply() == supply - 15
    assert refused(world, "withdraw", WEALTH - 14) == b""
    assert refused(world, "withdrawTo", WEALTH - 14, SOMEBODY) == b""


def test_locked_stake_cannot_leave(world: World) -> None:
    world.deal()
    free = world.account("requester")[0]
    assert free == WEALTH - 43 * RLC
    assert refused(world, "withdraw", free + 1) == b""
    assert refused(world, "transfer", SOMEBODY, free + 1) == b""
    world.hub.withdraw(free, sender=world.who("requester"))
    assert world.account("requester") == (0, 43 * RLC)


def test_locked_tokens_are_not_the_hubs_balance(world: World) -> None:
    supply = world.hub.totalSupply()
    world.deal()
    assert world.hub.frozenOf(world.who("requester")) == 43 * RLC
    assert world.hub.balanceOf(world.hub.address) == 0
    assert world.hub.totalSupply() == supply


def test_recover(world: World) -> None:
    assert refused(world, "recover") == text("Ownable: caller is not the owner")
    world.token.transfer(world.hub.address, 33)
    assert world.hub.call("recover") == 33
    done = world.hub.recover()
    assert done.events == [("Transfer", ZERO, world.owner.address, 33)]
    assert world.hub.call("recover") == 0


# ---- ERC-20 ------------------------------------------------------------------------------------------------


def test_metadata(world: World) -> None:
    assert (world.hub.name(), world.hub.symbol(), world.hub.decimals()) == ("Staked RLC", "SRLC", 9)
    assert world.hub.token() == world.token.address


def test_transfer(world: World) -> None:
    requester = world.who("requester")
    done = world.hub.transfer(SOMEBODY, 11, sender=requester)
    assert done.events == [("Transfer", requester, SOMEBODY, 11)]
    world.hub.transfer(requester, 5, sender=requester)
    assert world.hub.balanceOf(requester) == WEALTH - 11
    world.hub.transfer(world.hub.address, 1, sender=requester)
    assert world.hub.balanceOf(world.hub.address) == 1
    assert refused(world, "transfer", ZERO, 1) == text("ERC20: transfer to the zero address")
    assert refused(world, "transfer", SOMEBODY, WEALTH) == b""


def test_allowances(world: World) -> None:
    requester, spender = world.who("requester"), world.who("worker")
    done = world.hub.approve(spender, 10, sender=requester)
    assert done.events == [("Approval", requester, spender, 10)]
    done = world.hub.transferFrom(requester, SOMEBODY, 4, sender=spender)
    assert done.events == [("Transfer", requester, SOMEBODY, 4), ("Approval", requester, spender, 6)]
    assert refused(world, "transferFrom", requester, SOMEBODY, 7, by="worker") == b""
    world.hub.increaseAllowance(spender, 4, sender=requester)
    world.hub.decreaseAllowance(spender, 9, sender=requester)
    assert world.hub.allowance(requester, spender) == 1
    assert refused(world, "decreaseAllowance", spender, 2) == b""
    assert refused(world, "increaseAllowance", spender, 2**256 - 1) == b""
    assert refused(world, "approve", ZERO, 1) == text("ERC20: approve to the zero address")
    assert refused(world, "transferFrom", ZERO, SOMEBODY, 0) == text("ERC20: transfer from the zero address")
    world.hub.approve(spender, 2**256 - 1, sender=requester)
    world.hub.transferFrom(requester, SOMEBODY, 1, sender=spender)
    assert world.hub.allowance(requester, spender) == 2**256 - 2  # no infinite allowance


def test_approve_and_call(world: World) -> None:
    spender = world.chain.deploy(
        bytes.fromhex("6008600c60003960086000f360015f5260205ff3"), world.who("stranger")
    )
    done = world.hub.approveAndCall(spender, 3, b"data", sender=world.who("requester"))
    assert done.events == [("Approval", world.who("requester"), spender, 3)]
    refuser = world.chain.deploy(bytes.fromhex("6004600c60003960046000f360205ff3"), world.who("stranger"))
    assert refused(world, "approveAndCall", refuser, 3, b"") == text("approval-refused")
    assert refused(world, "approveAndCall", SOMEBODY, 3, b"") == b""
    world.hub.call("approveAndCall", spender, 3, b"x" * 12288)
    assert refused(world, "approveAndCall", spender, 3, b"x" * 12289) == b""


def test_native_currency_and_unknown_calls_are_refused(world: World) -> None:
    sender = world.owner.address
    cases: list[tuple[str, str]] = [
        ("0x", "0x1"),
        ("0x", "0x0"),
        ("0x12", "0x0"),
        ("0xdeadbeef", "0x0"),
        ("0x715018a6", "0x0"),
    ]
    for data, value in cases:
        with pytest.raises(Refused) as caught:
            world.chain.rpc(
                "eth_call", {"from": sender, "to": world.hub.address, "data": data, "value": value}, "latest"
            )
        assert caught.value.data == text("fallback-disabled"), (data, value)
    for function in ("deposit", "transfer", "claim", "matchOrders"):
        arguments: tuple[Any, ...] = {
            "deposit": (0,),
            "transfer": (SOMEBODY, 0),
            "claim": (bytes(32),),
            "matchOrders": tuple(o.as_tuple() for o in world.four()),
        }[function]
        call = {
            "from": sender,
            "to": world.hub.address,
            "data": "0x" + world.hub.encode(function, *arguments).hex(),
        }
        with pytest.raises(Refused) as caught:
            world.chain.rpc("eth_call", call | {"value": "0x1"}, "latest")
        assert caught.value.data == b"", function


# ---- Solvency ----------------------------------------------------------------------------------------------

Step = tuple[str, int, int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            (
                "deal sponsored direct contribute reveal finalize reopen claim pass transfer withdraw deposit"
            ).split()
        ),
        st.integers(0, 3),
        st.integers(0, 50 * RLC),
    ),
    max_size=25,
)


class Play:
    """Random steps on the hub; those that are refused are no-ops."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.tasks: list[bytes] = []

    def step(self, kind: str, number: int, amount: int) -> None:
        world = self.world
        worker = ("worker", "worker2", "worker3", "worker4")[number]
        task = self.tasks[number % len(self.tasks)] if self.tasks else bytes(32)
        acts: dict[str, Callable[[], Any]] = {
            "deal": lambda: self.deal("matchOrders", number, amount),
            "sponsored": lambda: self.deal("sponsorMatchOrders", number, amount),
            "direct": lambda: world.direct(task, b"r", worker=worker),
            "contribute": lambda: world.contribute(task, worker, digest=bytes([amount % 2]) * 32),
            "reveal": lambda: world.hub.reveal(task, bytes([amount % 2]) * 32, sender=world.who(worker)),
            "finalize": lambda: world.hub.finalize(task, b"r", b"", sender=world.who("scheduler")),
            "reopen": lambda: world.hub.reopen(task, sender=world.who("scheduler")),
            "claim": lambda: world.hub.claim(task),
            "pass": lambda: world.chain.at(world.chain.now() + (number + 1) * TIMEREF),
            "transfer": lambda: world.hub.transfer(world.who(worker), amount, sender=world.who("requester")),
            "withdraw": lambda: world.hub.withdraw(amount, sender=world.who(worker)),
            "deposit": lambda: world.enrich(world.who(worker), amount),
        }
        try:
            acts[kind]()
        except Refused:
            return

    def deal(self, method: str, number: int, price: int) -> None:
        trust = 2 * number
        orders = self.world.four(
            dataset=bool(number % 2),
            volume=1 + number,
            pool={"workerpoolprice": price, "trust": trust},
            request={"workerpoolmaxprice": price, "trust": trust},
        )
        sender = self.world.who("sponsor")
        done = self.world.hub.send(method, *(o.as_tuple() for o in orders), sender=sender)
        dealid = next(event[1] for event in done.events if event[0] == "OrdersMatched")
        self.tasks.append(self.world.first_task(dealid))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_balances_and_locks_are_the_supply(world: World, steps: list[Step]) -> None:
    """After any steps: Σ balances + Σ frozen = supply = the base tokens that the hub holds."""
    with world.chain.undone():
        play = Play(world)
        for step in steps:
            play.step(*step)
        accounts: list[Address] = [k.address for k in world.keys.values()] + [KITTY, world.owner.address]
        total = sum(sum(world.account(at)) for at in accounts)
        assert total == world.hub.totalSupply() == world.token.balanceOf(world.hub.address)
        # Nothing stays locked once every task of a deal has ended and the rest is claimed.
        world.chain.at(world.chain.now() + 100 * TIMEREF)
        for taskid in play.tasks:
            dealid = world.hub.viewTask(taskid).dealid
            for index in range(world.hub.viewDeal(dealid).botSize):
                for function, arguments in (
                    ("claim", (taskid,)),
                    ("initializeAndClaimArray", ([dealid], [index])),
                ):
                    try:
                        world.hub.send(function, *arguments)
                    except Refused:
                        continue
        assert all(world.account(role)[1] == 0 for role in World.ROLES)
