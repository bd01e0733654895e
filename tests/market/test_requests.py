"""Requests matched by their own wallets, unpublished, with what the market quotes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sealdeal.market.app import create_app
from sealdeal.model.errors import NotFound
from sealdeal.model.orders import Kind, Params, choosing
from sealdeal.model.types import RLC
from sealdeal.sdk.buying import match_by_oneself
from sealdeal.sdk.client import Quote, Sealdeal
from sealdeal.sdk.http import in_memory
from sealdeal.sdk.network import Network, Services
from tests.market.conftest import Stand
from tests.market.test_engine import deals, salt
from tests.network import CHAIN_ID


async def test_a_request_is_matched_unpublished_with_the_best_offers(book: Stand) -> None:
    """Two offers serve it, the cheaper one first, though its salt chooses another matcher."""
    network = book.network
    app, dataset, pool, request = await network.orders(volume=5)
    offers = [
        network.sign("pool_owner", replace(pool.order, volume=n, workerpoolprice=price * RLC, salt=salt(n)))
        for n, price in ((3, 30), (2, 10))
    ]
    await book.publish_all(app, dataset, *offers)
    requester = network.as_("requester")
    chosen = network.sign("requester", replace(request.order, salt=choosing(network.address("worker"))))
    assert await match_by_oneself(requester, book.client, chosen) == chosen.hash(network.domain)
    made = await deals(book, 2, chosen.hash(network.domain))
    assert [(deal.volume, deal.workerpool.price) for deal in made] == [(2, 10 * RLC), (3, 30 * RLC)]
    assert not (await book.client.orders(Kind.REQUEST)).items


async def test_what_costs_more_than_the_request_gives_is_not_bought(book: Stand) -> None:
    network = book.network
    app, dataset, pool, request = await network.orders(volume=2)
    await book.publish_all(app, dataset, pool)
    requester = network.as_("requester")
    poor = network.sign("requester", replace(request.order, workerpoolmaxprice=39 * RLC))
    with pytest.raises(NotFound, match="2 of 2 tasks could not be had: the best offers now ask"):
        await match_by_oneself(requester, book.client, poor)
    more = network.sign("requester", replace(request.order, volume=3))
    with pytest.raises(NotFound, match="1 of 3 tasks could not be had"):
        await match_by_oneself(requester, book.client, more)
    (deal,) = await deals(book, 1)
    assert deal.volume == 2


async def test_the_client_buys_unpublished_within_its_slippage(book: Stand) -> None:
    """The market never shows the request; a cheaper offer than the quoted one is taken all the same."""
    network, where = book.network, "http://market"
    app, _, pool, _ = await network.orders(with_dataset=False, volume=3)
    await book.publish_all(app, pool)
    card = Network(network.url, CHAIN_ID, network.addresses, Services(where, "http://results", None, ()))
    key = network.key("requester")
    async with Sealdeal(card, key, transports={where: in_memory(create_app(book.market))}) as client:
        quote = await client.quote(app.order.app, volume=2)
        assert (quote.app, quote.workerpool) == (3 * RLC, 40 * RLC)
        cheap = network.sign("pool_owner", replace(pool.order, workerpoolprice=30 * RLC, salt=salt(1)))
        await book.publish("pool_owner", cheap)
        request = await client.request(
            app.order.app, params=Params(), volume=2, max_prices=quote, slippage=10, unpublished=True
        )
        deal = await client.deal_of(request)
        assert (deal.bot_size, deal.price) == (2, 33 * RLC)
        assert not (await book.client.orders(Kind.REQUEST)).items
        with pytest.raises(NotFound):
            await book.client.order(Kind.REQUEST, request)
        with pytest.raises(NotFound, match="did not make this deal"):
            await client.check_match(deal.dealid)


def test_slippage_is_rounded_up() -> None:
    assert Quote(1, 100, 0).raised(0) == Quote(1, 100, 0)
    assert Quote(1, 100, 0).raised(5) == Quote(2, 105, 0)
