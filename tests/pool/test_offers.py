"""A pool's offers, kept open in a real market on the real contracts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from sealdeal.market.app import create_app as market_app
from sealdeal.market.market import Market
from sealdeal.model.orders import TEE_TDX, WorkerpoolOrder, tag
from sealdeal.model.types import RLC, Address
from sealdeal.pool.offers import Offer, Offers
from sealdeal.sdk.http import in_memory
from sealdeal.sdk.market import MarketClient
from tests.network import CHAIN_ID, STAKE, Network

OFFER = Offer(category=0, price=10 * RLC, volume=20)


class Shop:
    """A market, and one pool's offers in it."""

    def __init__(self, network: Network, client: MarketClient, workerpool: Address) -> None:
        self.network, self.client, self.workerpool = network, client, workerpool

    def offers(self, *offers: Offer) -> Offers:
        owner = self.network.key("pool_owner")
        return Offers(self.network.as_("pool_owner"), owner, self.workerpool, self.client, offers)

    async def open(self) -> list[WorkerpoolOrder]:
        found = await self.client.workerpool_orders(workerpool=self.workerpool, app="any", requester="any")
        return [one.order for one in found.items]


@pytest.fixture
async def shop(network: Network, tmp_path: Path) -> AsyncIterator[Shop]:
    database = f"sqlite+aiosqlite:///{tmp_path}/market.db"
    market = await Market.open(database, network.hub, matching=False, interval=0.02)
    task = asyncio.create_task(market.run())
    client = MarketClient("http://market", CHAIN_ID, in_memory(market_app(market)))
    workerpool, _ = await network.as_("pool_owner").create_workerpool("the pool of these tests")
    yield Shop(network, client, workerpool)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await client.close()
    await market.close()


async def test_an_offer_is_published_once(shop: Shop) -> None:
    offers = shop.offers(OFFER)
    await offers.renew_all()
    (order,) = await shop.open()
    assert (order.workerpoolprice, order.volume, order.tag, order.category) == (10 * RLC, 20, tag(TEE_TDX), 0)
    assert await offers.renew(OFFER) is None
    assert await shop.open() == [order]


async def test_another_price_is_another_offer(shop: Shop) -> None:
    await shop.offers(OFFER).renew_all()
    await shop.offers(replace(OFFER, price=9 * RLC)).renew_all()
    assert [order.workerpoolprice for order in await shop.open()] == [9 * RLC, 10 * RLC]


async def test_an_offer_that_is_gone_is_published_again(shop: Shop) -> None:
    offers = shop.offers(OFFER)
    first = await offers.renew(OFFER)
    (published,) = (await shop.client.workerpool_orders(workerpool=shop.workerpool)).items
    await shop.network.as_("pool_owner").manage_order(published.signed, "close")
    second = await offers.renew(OFFER)
    assert second not in (None, first)
    assert len(await shop.open()) == 1


async def test_no_more_is_offered_than_the_stake_covers(shop: Shop) -> None:
    dear = replace(OFFER, price=100 * RLC, volume=1_000)
    await shop.offers(dear).renew_all()
    (order,) = await shop.open()
    assert order.volume == STAKE // (30 * RLC)


async def test_without_stake_nothing_is_offered_and_it_is_said_once(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    await shop.network.as_("pool_owner").withdraw(STAKE)
    with caplog.at_level(logging.WARNING):
        offers = shop.offers(OFFER)
        assert await offers.renew(OFFER) is None
    assert "no free stake is left to offer category 0" in caplog.text
    assert await shop.open() == []


async def test_a_refusal_is_said_once(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    free = replace(OFFER, price=0, volume=2**60)
    offers = shop.offers(free)
    with caplog.at_level(logging.WARNING):
        await offers.renew_all()
        await offers.renew_all()
    assert caplog.text.count("the offer for category 0 is not in the market") == 1
