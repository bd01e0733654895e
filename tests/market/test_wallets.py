"""Contracts (EIP-1271), and keys with code (EIP-7702), authorise requests, publish orders and are matched."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from eth_abi.abi import encode
from eth_account import Account

from sealdeal.chain import Hub, Rpc
from sealdeal.market.app import create_app
from sealdeal.model.errors import Forbidden, SealdealError
from sealdeal.model.keys import Key, SmartWallet
from sealdeal.model.orders import Kind, Params, Signed, WorkerpoolOrder
from sealdeal.model.types import RLC, Address, Bytes32, hexstr, keccak
from sealdeal.sdk.challenges import challenge_hash
from sealdeal.sdk.client import Sealdeal
from sealdeal.sdk.events import list_webhooks
from sealdeal.sdk.http import in_memory
from sealdeal.sdk.network import Network as Card
from sealdeal.sdk.network import Services
from tests.contracts.actors import WALLET, compiled, odd
from tests.market.conftest import Running, Stand
from tests.market.test_engine import deals, salt
from tests.market.test_market import line_to
from tests.network import CHAIN_ID, Network

FICKLE = """
# An EIP-1271 wallet whose key anybody may change, which it tells nobody: a test needs no more.
signer: address

@deploy
def __init__(signer: address):
    self.signer = signer

@external
def change(signer: address):
    self.signer = signer

@external
@view
def isValidSignature(digest: bytes32, sign: Bytes[65]) -> bytes4:
    v: uint256 = convert(slice(sign, 64, 1), uint256)
    r: uint256 = convert(extract32(sign, 0), uint256)
    s: uint256 = convert(extract32(sign, 32), uint256)
    if ecrecover(digest, v, r, s) == self.signer:
        return 0x1626ba7e
    return 0xffffffff
"""

GREEDY = """
# An EIP-1271 wallet that agrees with everything, but takes nearly all gas for it, and wants a million.
@external
@view
def isValidSignature(digest: bytes32, sign: Bytes[65]) -> bytes4:
    assert msg.gas > 1_000_000
    for _: uint256 in range(1_000_000):
        if msg.gas < 20_000:
            break
    return 0x1626ba7e
"""


async def deployed(network: Network, code: bytes) -> Address:
    made = (await network.as_("hub_owner").sender.send(None, code)).contract
    assert made
    return made


async def wallet_of(network: Network, role: str, source: str = WALLET) -> SmartWallet:
    """A new contract that believes a role's key."""
    code = compiled(source) + encode(["address"], [network.address(role)])
    return SmartWallet(await deployed(network, code), network.key(role))


async def staked(network: Network, role: str) -> SmartWallet:
    """A new wallet with half of the role's stake in the escrow."""
    wallet = await wallet_of(network, role)
    await network.as_(role).transfer_stake(wallet.address, 250 * RLC)
    return wallet


# -------------------------------------------------------------------------------------- authorization


async def test_a_contract_answers_a_challenge_with_what_it_believes(book: Stand) -> None:
    wallet = await wallet_of(book.network, "app_provider")
    assert await list_webhooks(book.client, wallet) == []
    for stranger in (
        SmartWallet(wallet.address, book.network.key("worker")),
        SmartWallet(book.network.address("worker"), wallet.key),  # an account without code
    ):
        with pytest.raises(Forbidden, match=r"^invalid authorization$"):
            await list_webhooks(book.client, stranger)


async def test_whatever_else_a_contract_does_is_an_invalid_authorization(book: Stand) -> None:
    """It reverts, burns its gas, says too little or nonsense: nobody is believed, and nothing breaks."""
    owner = book.network.key("worker")
    agreed = set()
    for name, code in odd(owner.address).items():
        wallet = SmartWallet(await deployed(book.network, code), owner)
        try:
            await list_webhooks(book.client, wallet)
            agreed.add(name)
        except Forbidden as refused:
            assert str(refused) == "invalid authorization"
    assert agreed == {"says magic", "says magic twice"}


class Shouting(SmartWallet):
    """Signs longer than any wallet reads."""

    def sign_digest(self, digest: Bytes32) -> bytes:
        return bytes(3000)


async def test_a_signature_longer_than_the_hub_takes_is_invalid(book: Stand) -> None:
    wallet = await wallet_of(book.network, "worker")
    with pytest.raises(Forbidden, match=r"^invalid authorization$"):
        await list_webhooks(book.client, Shouting(wallet.address, wallet.key))


async def test_what_answers_no_open_challenge_costs_no_chain_read(running: Running) -> None:
    """While the chain is away keys are still believed; a contract cannot be asked."""
    network = running.network
    wallet = await wallet_of(network, "worker")
    async with line_to(network.url) as line, Rpc(line.url, patience=0.2) as rpc:
        book = await running.start(matching=False, hub=Hub(rpc, network.addresses))
        await book.market.index.caught_up()
        await line.cut()
        never = challenge_hash(CHAIN_ID, "Sign this")
        invented = f"{hexstr(never)}_{hexstr(wallet.sign_digest(never))}_{wallet.address}"
        answer = await book.http.get(
            "/webhooks", params={"chainId": str(CHAIN_ID)}, headers={"authorization": invented}
        )
        assert (answer.status_code, answer.json()["error"]) == (403, "invalid authorization")
        assert await list_webhooks(book.client, network.key("worker")) == []
        with pytest.raises(SealdealError, match="Something went wrong, you should retry later"):
            await list_webhooks(book.client, wallet)
        await running.stop()


async def delegate(network: Network, role: str, to: Address) -> None:
    """Have a role's account run a contract's code, by a transaction that anyone sends (EIP-7702)."""
    secret = network.key(role).secret
    payer = Key(keccak(b"payer"))
    accounts = (network.address(role), payer.address)
    counts = [await network.rpc.call("eth_getTransactionCount", one, "latest") for one in accounts]
    nonce, paid = (int(count, 16) for count in counts)
    signed = Account.sign_authorization({"chainId": CHAIN_ID, "address": to, "nonce": nonce}, secret)
    await network.anvil.fund(payer.address, 10**18)
    transaction = {
        "type": 4,
        "chainId": CHAIN_ID,
        "nonce": paid,
        "gas": 200_000,
        "maxFeePerGas": 10**11,
        "maxPriorityFeePerGas": 1,
        "to": payer.address,
        "value": 0,
        "data": b"",
        "accessList": [],
        "authorizationList": [signed],
    }
    raw = Account.sign_transaction(transaction, payer.secret).raw_transaction
    sent = await network.rpc.call("eth_sendRawTransaction", hexstr(bytes(raw)))
    async with asyncio.timeout(10):
        while await network.rpc.call("eth_getTransactionReceipt", sent) is None:
            await asyncio.sleep(0.02)
    code = await network.rpc.call("eth_getCode", network.address(role), "latest")
    assert code == "0xef0100" + to[2:].lower()


async def test_a_key_with_code_answers_by_its_key_and_as_its_code_says(book: Stand) -> None:
    """Code that refuses takes nothing from the key; code that believes another key adds that."""
    network = book.network
    app, *_ = await network.orders()
    await delegate(
        network, "app_provider", await deployed(network, odd(network.address("worker"))["reverts"])
    )
    await book.publish("app_provider", app)
    other = SmartWallet(network.address("app_provider"), network.key("worker"))
    second: Signed[Any] = Signed.by(other, replace(app.order, salt=salt(1)), network.domain)
    with pytest.raises(Forbidden, match="invalid authorization"):
        await book.client.publish(second, other)
    await delegate(network, "app_provider", (await wallet_of(network, "worker")).address)
    await book.client.publish(second, other)
    await book.publish("app_provider", network.sign("app_provider", replace(app.order, salt=salt(2))))
    assert (await book.client.app_orders(app.order.app)).count == 3


# ------------------------------------------------------------------------------------ orders and deals


async def test_an_order_that_its_contract_does_not_agree_with_is_refused(book: Stand) -> None:
    """The account's key authorises; whether the order's signature counts, its code says (EIP-7702)."""
    network = book.network
    app, *_ = await network.orders()
    provider = network.address("app_provider")
    codes = {**odd(provider), "takes a million gas": compiled(GREEDY)}
    for number, (name, code) in enumerate(codes.items()):
        runtime = await network.rpc.call("eth_getCode", await deployed(network, code), "latest")
        await network.rpc.call("anvil_setCode", provider, runtime)
        order = Signed(replace(app.order, salt=salt(number)), bytes(70))
        if name in ("says magic", "says magic twice"):
            await book.publish("app_provider", order)
            continue
        with pytest.raises(Forbidden, match=r"^invalid sign$"):
            await book.publish("app_provider", order)
    assert (await book.client.app_orders(app.order.app)).count == 2


async def test_four_wallets_that_are_contracts_make_a_deal(stand: Stand) -> None:
    """Each owns an asset, or asks: signed and published by their owners' keys, matched by the market."""
    network = stand.network
    provider, donor = [await wallet_of(network, role) for role in ("app_provider", "data_provider")]
    scheduler, requester = [await staked(network, role) for role in ("pool_owner", "requester")]
    image = keccak(b"image")
    app, _ = await network.as_("worker").create_app(
        "a", "DOCKER", b"/ipfs/app", image, owner=provider.address
    )
    data, _ = await network.as_("worker").create_dataset("d", b"/ipfs/data", image, owner=donor.address)
    pool, _ = await network.as_("worker").create_workerpool("[simulated] p", owner=scheduler.address)
    fitting = await network.orders((app, data, pool))
    orders: list[Any] = [signed.order for signed in fitting if signed]
    orders[3] = replace(orders[3], requester=requester.address)
    for order, owner in zip(orders, (provider, donor, scheduler, requester), strict=True):
        signed: Signed[Any] = Signed.by(owner, order, network.domain)
        published = await stand.client.publish(signed, owner)
        assert published.hash == signed.hash(network.domain)
    (deal,) = await deals(stand, 1)
    assert (deal.app.owner, deal.dataset.owner) == (provider.address, donor.address)
    assert (deal.workerpool.owner, deal.requester) == (scheduler.address, requester.address)
    again = replace(orders[2], salt=salt(1))
    await stand.client.publish(Signed.by(scheduler, again, network.domain), scheduler)
    assert len(await stand.client.unpublish_all(Kind.WORKERPOOL, pool, scheduler)) == 1


async def test_an_order_whose_wallet_changes_its_mind_is_set_aside(stand: Stand) -> None:
    """No event tells: the simulation finds it, `why` names the wallet's order, and another is taken."""
    network = stand.network
    app, dataset, pool, request = await network.orders()
    wallet = await wallet_of(network, "worker", FICKLE)
    await network.as_("pool_owner").transfer_stake(wallet.address, 100 * RLC)
    place, _ = await network.as_("worker").create_workerpool("[simulated] fickle", owner=wallet.address)
    cheap = replace(pool.order, workerpool=place, workerpoolprice=RLC)
    given: Signed[WorkerpoolOrder] = Signed.by(wallet, cheap, network.domain)
    await stand.publish_all(app, dataset)
    await stand.client.publish(given, wallet)
    change = keccak(b"change(address)")[:4] + encode(["address"], [network.address("requester")])
    await network.as_("worker").sender.send(wallet.address, change)
    await stand.publish("requester", request)
    assert stand.market.engine
    hash = given.hash(network.domain)
    async with asyncio.timeout(10):
        while hash not in stand.market.engine.notes(request.hash(network.domain)):
            await asyncio.sleep(0.02)
    why = await stand.client.why(request.hash(network.domain))
    assert why.constraint and "iExecV5-matchOrders-0x41" in why.constraint
    assert why.workerpoolorders[0].order_hash == hash and not why.apporders[0].failing
    await stand.publish("pool_owner", pool)
    (deal,) = await deals(stand, 1)
    assert deal.workerpool_hash == pool.hash(network.domain)
    with pytest.raises(Forbidden, match="invalid authorization"):
        await stand.client.unpublish(Kind.WORKERPOOL, hash, wallet)


async def test_who_takes_the_gas_is_blamed_and_not_an_order_presigned_on_chain(stand: Stand) -> None:
    """The match fails without a word: whose wallet did it is asked of those who signed here."""
    network = stand.network
    app, dataset, pool, request = await network.orders()
    await network.as_("app_provider").manage_order(app.order, "sign")
    wallet = await wallet_of(network, "worker")
    await network.as_("pool_owner").transfer_stake(wallet.address, 100 * RLC)
    place, _ = await network.as_("worker").create_workerpool("[simulated] burns", owner=wallet.address)
    cheap = replace(pool.order, workerpool=place, workerpoolprice=RLC)
    await stand.publish_all(replace(app, sign=b""), dataset, pool)
    given: Signed[WorkerpoolOrder] = Signed.by(wallet, cheap, network.domain)
    await stand.client.publish(given, wallet)
    greedy = await deployed(network, compiled(GREEDY))
    code = await network.rpc.call("eth_getCode", greedy, "latest")
    await network.rpc.call("anvil_setCode", wallet.address, code)
    await stand.publish("requester", request)
    (deal,) = await deals(stand, 1)
    assert deal.workerpool_hash == pool.hash(network.domain)
    assert deal.app_hash == app.hash(network.domain)
    assert stand.market.engine
    aside = stand.market.engine.notes(request.hash(network.domain))
    assert set(aside) == {given.hash(network.domain)}


async def test_the_client_acts_for_a_wallet(book: Stand) -> None:
    """It publishes, asks, matches unpublished and cancels as the contract; its key only pays the gas."""
    network, where = book.network, "http://market"
    provider = await wallet_of(network, "app_provider")
    requester = await staked(network, "requester")
    services = Services(where, "http://results", None, ())
    card = Card(network.url, CHAIN_ID, network.addresses, services)
    inside = {where: in_memory(create_app(book.market))}
    made, _ = await network.as_("worker").create_app(
        "a", "DOCKER", b"/ipfs/app", keccak(b"image"), owner=provider.address
    )
    app, _, pool, _ = await network.orders(with_dataset=False)
    offer = replace(app.order, app=made)
    async with (
        Sealdeal(card, network.key("worker"), signer=provider, transports=inside) as owner,
        Sealdeal(card, network.key("worker"), signer=requester, transports=inside) as buyer,
    ):
        await owner.publish(offer)
        await book.publish_all(pool)
        prices = await buyer.quote(made)
        hash = await buyer.request(made, params=Params(), max_prices=prices, unpublished=True)
        deal = await buyer.deal_of(hash)
        assert deal.requester == requester.address and deal.app.owner == provider.address
        assert deal.beneficiary == network.address("worker"), "whose key a result is encrypted for"
        another = await owner.sign(replace(offer, salt=salt(1)))
        receipt = await owner.cancel(another)
        assert receipt.event("ClosedAppOrder")["appHash"] == another.hash(network.domain)
        assert await owner.webhooks() == []
