"""What people do with their money, on a real chain."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

import pytest

from sealdeal.chain import Reverted
from sealdeal.model.deals import TaskStatus
from sealdeal.model.errors import Conflict
from sealdeal.model.keys import Key
from sealdeal.model.types import RLC
from sealdeal.sdk import network as documents
from sealdeal.sdk.purse import Balance, Purse
from tests.network import PURSE, QUICK, STAKE, Network

NOWHERE = "http://127.0.0.1:1"
ETHER = 10**18


@pytest.fixture
async def purse(network: Network) -> AsyncIterator[Purse]:
    """The requester's."""
    at = documents.Services(NOWHERE, NOWHERE, None, ())
    told = documents.Network(network.url, 65432, network.addresses, at)
    made = Purse(told, network.key("requester"), None)
    yield made
    await made.rpc.aclose()


async def test_money_is_sent(network: Network, purse: Purse) -> None:
    other = Key.generate(secrets.token_bytes).address
    await purse.send(other, 3 * RLC)
    await purse.send_ether(other, 5)
    assert ((await purse.balance(other)).total, await purse.ether(other)) == (3 * RLC, 5)
    await purse.send(other, RLC, gas_money=7)
    with pytest.raises(Conflict, match=f"a payment of {PURSE} was asked for"):
        await purse.send(other, PURSE, gas_money=1)
    assert ((await purse.balance(other)).total, await purse.ether(other)) == (4 * RLC, 12)


async def test_what_goes_into_the_escrow_and_out_of_it_is_told_with_what_is_left(
    network: Network, purse: Purse
) -> None:
    paid = await purse.deposit(3 * RLC)
    assert paid.balance == Balance(PURSE - 3 * RLC, STAKE + 3 * RLC, 0)
    back = await purse.withdraw(STAKE)
    assert back.balance == Balance(PURSE - 3 * RLC + STAKE, 3 * RLC, 0)
    assert back.receipt.block.number > paid.receipt.block.number
    assert back.balance == await purse.balance()
    await purse.deposit(1)
    assert back.balance != await purse.balance(), "of that time"
    with pytest.raises(Conflict, match="are free in the escrow"):
        await purse.withdraw(4 * RLC)


async def test_another_account_takes_what_was_approved_and_no_more(network: Network, purse: Purse) -> None:
    """The escrow is an ERC-20 token of its own: what is approved there is the free stake."""
    me, spender = purse.key.address, network.as_("worker")
    await purse.approve(network.address("worker"), 10 * RLC)
    assert await purse.allowance(network.address("worker")) == 10 * RLC
    await spender.transfer_stake(network.address("worker"), 4 * RLC, source=me)
    assert await purse.allowance(network.address("worker")) == 6 * RLC
    assert (await purse.balance()).stake == STAKE - 4 * RLC
    assert (await purse.balance(network.address("worker"))).stake == STAKE + 4 * RLC
    with pytest.raises(Reverted):
        await spender.transfer_stake(me, 7 * RLC, source=me)
    await purse.approve(network.address("worker"), 0)
    with pytest.raises(Reverted):
        await spender.transfer_stake(me, 1, source=me)
    await purse.hub.transfer_stake(network.address("worker"), RLC)
    assert (await purse.balance()).stake == STAKE - 5 * RLC


async def test_a_swept_wallet_is_empty_but_for_what_gas_might_have_cost(
    network: Network, purse: Purse
) -> None:
    other = Key.generate(secrets.token_bytes).address
    before = await purse.ether()
    done = await purse.sweep(other)
    assert len(done) == 2
    left = await purse.balance()
    assert (left.wallet, left.stake, (await purse.balance(other)).wallet) == (0, STAKE, PURSE)
    spent = sum(one.gas_used * one.effective_gas_price for one in done)
    rest = await purse.ether()
    assert await purse.ether(other) == before - spent - rest
    price = int(await network.rpc.call("eth_gasPrice"), 16)
    assert rest < 2 * 21_000 * price * 2
    await network.rpc.call("anvil_setBalance", purse.key.address, hex(rest // 10))
    assert await purse.sweep(other) == []


async def test_a_deal_that_nobody_worked_on_is_claimed_at_once(network: Network, purse: Purse) -> None:
    deal = await network.deal(category=QUICK, volume=3)
    began = await network.as_("pool_owner").initialize(deal.dealid, deal.bot_first + 1)
    assert began.event("TaskInitialize")
    with pytest.raises(Reverted):
        await purse.claim(deal.dealid)
    locked = (await purse.balance()).locked
    await network.pass_time(30)
    assert len(await purse.claim(deal.dealid)) == 2  # one for those that had not begun
    assert {task.status for task in await network.hub.tasks(deal.task_ids())} == {TaskStatus.FAILED}
    now = await purse.balance()
    assert (now.locked, now.stake) == (0, STAKE)
    assert locked == 3 * deal.price
    assert await purse.claim(deal.dealid) == []


async def test_many_tasks_are_claimed_in_several_transactions(
    network: Network, purse: Purse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sealdeal.chain.hub.CLAIMS", 2)
    deal = await network.deal(category=QUICK, volume=5)
    await network.pass_time(30)
    assert len(await purse.claim(deal.dealid)) == 3
    assert (await purse.balance()).locked == 0
