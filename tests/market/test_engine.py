"""The matcher on real contracts: the last order makes the deal, whichever it is; refusals are set aside."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest

from sealdeal.chain import Wallet
from sealdeal.market.market import Market
from sealdeal.model.errors import InvalidInput
from sealdeal.model.orders import (
    TEE,
    AppOrder,
    Kind,
    RequestOrder,
    Signed,
    WorkerpoolOrder,
    choosing,
    chosen_matcher,
    tag,
)
from sealdeal.model.types import RLC, hexstr
from sealdeal.sdk.market_answers import DealRecord
from tests.market.conftest import Running, Stand
from tests.network import Network


def salt(number: int) -> bytes:
    return number.to_bytes(32, "big")


async def deals(stand: Stand, count: int, requestorder: bytes | None = None) -> Sequence[DealRecord]:
    """The deals, oldest first, once there are `count` of them."""
    async with asyncio.timeout(20):
        while (page := await stand.client.deals(requestorder=requestorder)).count < count:
            await asyncio.sleep(0.02)
    assert page.count == count
    return page.items[::-1]


async def quiet(stand: Stand, seconds: float = 0.3) -> int:
    """How many deals there are after the engine had time to make one too many."""
    await asyncio.sleep(seconds)
    return (await stand.client.deals()).count


@pytest.mark.parametrize("last", range(4), ids=["app", "dataset", "workerpool", "request"])
async def test_the_order_that_completes_a_match_makes_the_deal(stand: Stand, last: int) -> None:
    network = stand.network
    orders = list(await network.orders())
    completing = orders.pop(last)
    await stand.publish_all(*orders, standing=True)
    assert await quiet(stand) == 0
    await stand.publish_all(completing)
    (deal,) = await deals(stand, 1)
    assert deal.volume == 1 and deal.requester == network.address("requester")
    receipt = await stand.network.rpc.call("eth_getTransactionByHash", hexstr(deal.transaction_hash))
    assert receipt["from"] == network.address("hub_owner").lower(), "the market's own wallet"


async def test_the_cheapest_workerpool_wins_and_of_equal_ones_the_first(stand: Stand) -> None:
    network = stand.network
    app, dataset, pool, request = await network.orders()
    prices = [30, 20, 20, 25]
    offers = [
        network.sign("pool_owner", replace(pool.order, workerpoolprice=price * RLC, salt=salt(i)))
        for i, price in enumerate(prices)
    ]
    published = await stand.publish_all(app, dataset, *offers)
    await stand.publish("requester", request)
    (deal,) = await deals(stand, 1)
    assert deal.workerpool_hash == published[3].hash and deal.workerpool.price == 20 * RLC


async def test_of_two_requests_the_better_paying_is_served_first(stand: Stand) -> None:
    network = stand.network
    app, dataset, pool, request = await network.orders()
    await stand.publish_all(
        network.sign("app_provider", replace(app.order, volume=9)),
        network.sign("data_provider", replace(dataset.order, volume=9)) if dataset else None,
    )
    asked = {}
    for number, price in enumerate([41, 50, 45]):
        order = replace(request.order, workerpoolmaxprice=price * RLC, salt=salt(number))
        asked[price] = (await stand.publish("requester", network.sign("requester", order))).hash
    await stand.publish("pool_owner", network.sign("pool_owner", replace(pool.order, volume=2)))
    assert [deal.request_hash for deal in await deals(stand, 2)] == [asked[50], asked[45]]
    assert (await stand.client.order(Kind.REQUEST, asked[41])).status == "open"


async def test_a_request_is_filled_across_several_offers(stand: Stand) -> None:
    network = stand.network
    app, dataset, pool, request = await network.orders(volume=6)
    small = [
        network.sign(
            "pool_owner", replace(pool.order, volume=volume, workerpoolprice=price, salt=salt(price))
        )
        for volume, price in ((2, 30), (1, 10), (2, 20))
    ]
    await stand.publish_all(app, dataset, *small)
    waiting = await stand.publish("requester", request)
    made = await deals(stand, 3, waiting.hash)
    assert [(deal.bot_first, deal.volume, deal.workerpool.price) for deal in made] == [
        (0, 1, 10),
        (1, 2, 20),
        (3, 2, 30),
    ]
    left = await stand.client.order(Kind.REQUEST, waiting.hash)
    assert (left.status, left.remaining) == ("open", 1)
    await stand.publish("pool_owner", network.sign("pool_owner", replace(pool.order, salt=salt(99))))
    assert (await deals(stand, 4, waiting.hash))[-1].bot_first == 5
    assert (await stand.client.order(Kind.REQUEST, waiting.hash)).status == "filled"


async def test_a_request_without_dataset_is_matched_without(stand: Stand) -> None:
    await stand.publish_all(*await stand.network.orders(with_dataset=False))
    (deal,) = await deals(stand, 1)
    assert deal.dataset_hash == bytes(32) and int(deal.dataset.pointer, 16) == 0


async def test_orders_that_do_not_fit_wait_and_why_tells(stand: Stand) -> None:
    network = stand.network
    app, dataset, pool, request = await network.orders()
    await stand.publish_all(app, dataset, request)
    hash = request.hash(network.domain)
    why = await stand.client.why(hash)
    assert why.constraint == "no workerpool order in category 0" and why.workerpoolorders == ()
    assert [near.failing for near in (*why.apporders, *why.datasetorders)] == [(), ()]

    plain = replace(pool.order, tag=tag(TEE), salt=salt(1))
    await stand.publish("pool_owner", network.sign("pool_owner", plain))
    assert (await stand.client.why(hash)).constraint == "no workerpool order in category 0 has tag tee,tdx"

    dear = network.sign("pool_owner", replace(pool.order, workerpoolprice=43 * RLC, salt=salt(2)))
    published = await stand.publish("pool_owner", dear)
    why = await stand.client.why(hash)
    assert why.constraint == "the workerpool's price is 3 RLC above the maximum of 40 RLC"
    assert (why.workerpoolorders[0].order_hash, why.workerpoolorders[0].price) == (published.hash, 43 * RLC)
    assert len(why.workerpoolorders) == 2 and await quiet(stand) == 0

    await stand.publish("pool_owner", pool)
    await deals(stand, 1)
    why = await stand.client.why(hash)
    assert (why.status, why.constraint) == ("filled", "the request order's volume is used up")


async def test_a_requester_without_money_is_set_aside_until_it_comes(stand: Stand) -> None:
    """One whose stake left after the publication, but not as far as the index kills the order."""
    network = stand.network
    app, dataset, pool, request = await network.orders(volume=10)
    half = network.sign("requester", replace(request.order, salt=salt(1)))
    first = await stand.publish_all(app, dataset, request)
    await stand.publish("requester", half)
    await stand.publish("pool_owner", pool)
    (deal,) = await deals(stand, 1)
    assert deal.request_hash == first[2].hash and deal.volume == 10
    # 480 RLC are locked now: the second request's stake is gone, and so is the request
    assert (await stand.client.order(Kind.REQUEST, half.hash(network.domain))).status == "dead"


async def test_a_pool_owner_without_stake_does_not_stop_the_next_pool(stand: Stand) -> None:
    """The cheapest pool's owner spends his stake on another deal; the request goes to the next one."""
    network = stand.network
    market = stand.market
    assert market.engine
    app, dataset, pool, request = await network.orders()
    cheap = network.sign("pool_owner", replace(pool.order, workerpoolprice=20 * RLC, salt=salt(1)))
    second, _ = await network.as_("worker").create_workerpool("[simulated] second")
    dear = network.sign("worker", replace(pool.order, workerpool=second))
    await stand.publish_all(app, dataset, cheap)
    await stand.publish("worker", dear)
    # the escrow empties in the same block as the request arrives: the book does not know yet
    market.store.touched = _nothing  # type: ignore[method-assign]
    await network.as_("pool_owner").withdraw(500 * RLC)
    await stand.publish("requester", request)
    (deal,) = await deals(stand, 1)
    assert deal.workerpool.pointer == second
    notes = market.engine.notes(request.hash(network.domain))
    assert notes[cheap.hash(network.domain)] == (
        "the workerpool's owner has 0 RLC in escrow, a deal locks 6 RLC"
    )


async def _nothing(**_: Any) -> list[Any]:
    return []


LAG = 3
"""Confirmations that a market waits for whose book shall not know yet."""


async def confirmed(stand: Stand, count: int) -> Sequence[DealRecord]:
    """All deals, once there are `count` and the chain has grown far enough to list them."""
    mining = asyncio.create_task(_grow(stand.network))
    try:
        return await deals(stand, count)
    finally:
        mining.cancel()
        await asyncio.gather(mining, return_exceptions=True)


async def _grow(network: Network) -> None:
    while True:
        await network.mine()
        await asyncio.sleep(0.1)


async def test_an_order_whose_signature_stopped_counting_is_set_aside_and_named(running: Running) -> None:
    """The app was sold and the book does not know: the chain's refusal blames the app's order alone."""
    stand = await running.start(confirmations=LAG)
    network = stand.network
    app, dataset, pool, request = await network.orders()
    await network.mine(LAG)
    await stand.publish_all(app, dataset, pool)
    await network.as_("app_provider").transfer_asset(Kind.APP, app.order.app, network.address("worker"))
    waiting = await stand.publish("requester", request, standing=True)
    async with asyncio.timeout(10):
        while (why := await stand.client.why(waiting.hash)).constraint is None:
            await asyncio.sleep(0.02)
    assert "iExecV5-matchOrders-0x21" in why.constraint
    assert why.apporders[0].failing and not why.workerpoolorders[0].failing
    await network.mine(LAG)
    other = network.sign("worker", replace(app.order, salt=salt(5)))
    await stand.publish("worker", other)
    (deal,) = await confirmed(stand, 1)
    assert deal.app_hash == other.hash(network.domain)


async def test_a_race_lost_to_another_matcher_is_survived(stand: Stand) -> None:
    """The requester matches by itself at the same moment; the remaining volume is matched by the engine."""
    network = stand.network
    app, dataset, pool, request = await network.orders(volume=4)
    one = network.sign("requester", replace(request.order, volume=1, salt=salt(1)))
    await stand.publish_all(app, dataset, pool)
    await asyncio.gather(
        network.as_("requester").match_orders(app, dataset, pool, one),
        stand.publish("requester", request),
    )
    made = await deals(stand, 2)
    assert sorted(deal.volume for deal in made) in ([1, 3], [1, 4], [3, 1])
    assert sum(deal.volume for deal in made) <= 4


async def test_many_requests_and_offers_are_all_matched_and_nothing_twice(stand: Stand) -> None:
    network = stand.network
    app, _, pool, request = await network.orders(with_dataset=False)
    await stand.publish("app_provider", network.sign("app_provider", replace(app.order, volume=100)))
    pools = [replace(pool.order, workerpoolprice=i, volume=3, salt=salt(i)) for i in range(1, 5)]
    asks = [replace(request.order, workerpoolmaxprice=9, salt=salt(i)) for i in range(10)]
    jobs: list[tuple[str, Signed[Any]]] = [("requester", network.sign("requester", ask)) for ask in asks]
    jobs += [("pool_owner", network.sign("pool_owner", order)) for order in pools]
    await asyncio.gather(*(stand.publish(role, signed) for role, signed in jobs))
    made = await deals(stand, 10)
    assert len({deal.request_hash for deal in made}) == 10
    left = await stand.client.workerpool_orders()
    assert sum(order.remaining for order in left.items) == 12 - 10


async def test_a_market_started_again_matches_what_waits(running: Running) -> None:
    stand = await running.start(matching=False)
    await stand.publish_all(*await stand.network.orders())
    await running.stop()
    await deals(await running.start(), 1)


async def test_matching_needs_a_wallet(running: Running) -> None:
    with pytest.raises(InvalidInput, match="give the Hub a Sender"):
        await Market.open(running.url, running.network.hub)
    assert isinstance(Wallet(running.network.key("requester")).address, str)


async def test_whatever_order_offers_came_in_the_price_decides(running: Running) -> None:
    network = running.network
    book = await running.start(matching=False)
    program, _, pool = await network.assets()
    offers = [WorkerpoolOrder(pool, price, salt=salt(price)) for price in (3, 1, 2)]
    await book.publish("app_provider", network.sign("app_provider", AppOrder(program, volume=3)))
    requester = network.address("requester")
    ask = RequestOrder(app=program, workerpoolmaxprice=9, requester=requester, volume=3)
    await book.publish("requester", network.sign("requester", ask))
    for shuffled in permutations(offers):
        for offer in shuffled:
            await book.publish("pool_owner", network.sign("pool_owner", offer))
        candidates = await book.market.lists.candidates(ask)
        assert [offer.price for offer in candidates.workerpools] == [1]
        await book.client.unpublish_all(Kind.WORKERPOOL, pool, network.key("pool_owner"))


AGREES = "0x631626ba7e60e01b60005260206000f3"
"""Code of an account that calls every signature its own."""
BURNS = "0x5b600056"
"""Code that takes all gas there is."""


async def test_a_smart_account_that_burns_gas_is_set_aside_with_all_its_orders(stand: Stand) -> None:
    """The account has a key and code (EIP-7702): its orders count until the code says otherwise, without a
    word. Three of them are tried, within the gas that a match may use; no transaction is sent for any."""
    network = stand.network
    app, dataset, pool, request = await network.orders()
    owner = network.address("pool_owner")
    await network.rpc.call("anvil_setCode", owner, AGREES)
    cheap = [
        Signed(replace(pool.order, workerpoolprice=n, salt=salt(n)), bytes([n]) * 70) for n in range(1, 6)
    ]
    await stand.publish_all(app, dataset, *cheap)
    await network.rpc.call("anvil_setCode", owner, BURNS)
    other, _ = await network.as_("worker").create_workerpool("[simulated] honest")
    honest = network.sign("worker", replace(pool.order, workerpool=other, workerpoolprice=9 * RLC))
    await stand.publish("worker", honest)
    sent = await network.rpc.call("eth_getTransactionCount", network.address("hub_owner"), "latest")
    await stand.publish("requester", request)
    (deal,) = await deals(stand, 1)
    assert deal.workerpool_hash == honest.hash(network.domain)
    told = await stand.client.match_of(deal.dealid)
    assert set(told.said.aside) == {order.hash(network.domain) for order in cheap}
    now = await network.rpc.call("eth_getTransactionCount", network.address("hub_owner"), "latest")
    assert int(now, 16) == int(sent, 16) + 1, "the deal's alone"


async def test_a_request_that_chooses_its_matcher_is_left_to_it(stand: Stand) -> None:
    network = stand.network
    app, dataset, pool, request = await network.orders()
    theirs = network.sign("requester", replace(request.order, salt=choosing(network.address("worker"))))
    ours = network.sign("requester", replace(request.order, salt=choosing(network.address("hub_owner"))))
    await stand.publish_all(app, dataset, pool)
    waiting = await stand.publish("requester", theirs)
    assert await quiet(stand) == 0
    why = await stand.client.why(waiting.hash)
    assert why.constraint and f"chooses matcher {network.address('worker')}" in why.constraint
    await stand.publish("requester", ours)
    (deal,) = await deals(stand, 1)
    assert deal.request_hash == ours.hash(network.domain)
    assert chosen_matcher(theirs.order.salt) == network.address("worker")
    assert chosen_matcher(request.order.salt) is None
