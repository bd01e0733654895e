"""Requests matched by their own wallets, unpublished, with what the market quotes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sealdeal.model.errors import NotFound
from sealdeal.model.orders import Kind, choosing
from sealdeal.model.types import RLC
from sealdeal.sdk.buying import match_by_oneself
from sealdeal.sdk.client import Quote
from tests.market.conftest import Stand
from tests.market.test_engine import deals, salt


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


def test_slippage_is_rounded_up() -> None:
    assert Quote(1, 100, 0).raised(0) == Quote(1, 100, 0)
    assert Quote(1, 100, 0).raised(5) == Quote(2, 105, 0)
