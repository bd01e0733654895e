"""A market on the test network, running, with its API in memory and a client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from sealdeal.chain import Hub
from sealdeal.market.app import create_app
from sealdeal.market.market import Market
from sealdeal.model.orders import Signed, kind_of
from sealdeal.sdk.challenges import authorization
from sealdeal.sdk.http import in_memory
from sealdeal.sdk.market import MarketClient
from sealdeal.sdk.market_answers import Published
from tests.network import CHAIN_ID, Network
from tests.postgres import postgres_url  # noqa: F401  # a fixture

INTERVAL = 0.02
"""Seconds between the index's looks at the chain: tests make blocks faster than chains do."""


@dataclass
class Stand:
    """A market and what is needed to use it as any role."""

    network: Network
    market: Market
    client: MarketClient
    http: httpx2.AsyncClient

    async def publish(self, role: str, signed: Signed[Any], **options: Any) -> Published[Any]:
        return await self.client.publish(signed, self.network.key(role), **options)

    async def publish_all(self, *signed: Signed[Any] | None, **options: Any) -> list[Published[Any]]:
        """Publish orders as their signers, in the order given."""
        roles = {
            "app": "app_provider",
            "dataset": "data_provider",
            "workerpool": "pool_owner",
            "request": "requester",
        }
        found = []
        for one in signed:
            if one is not None:
                kind = kind_of(one.order)
                found.append(await self.publish(roles[kind], one, **(options if kind == "request" else {})))
        return found

    async def authorization(self, role: str) -> dict[str, str]:
        """The header of one authorised request."""
        signer = self.network.key(role)
        document = await self.client.challenge(signer.address)
        return {"authorization": authorization(CHAIN_ID, document, signer)}

    async def get(self, path: str, **query: Any) -> httpx2.Response:
        return await self.http.get(path, params={"chainId": str(CHAIN_ID), **query})


class Running:
    """Opens markets, runs them, and ends them all."""

    def __init__(self, network: Network, folder: Path) -> None:
        self.network, self.url = network, f"sqlite+aiosqlite:///{folder}/market.db"
        self._open: list[tuple[Market, asyncio.Task[None], MarketClient, httpx2.AsyncClient]] = []

    async def start(self, *, matching: bool = True, hub: Hub | None = None, **options: Any) -> Stand:
        hub = hub or (self.network.as_("hub_owner") if matching else self.network.hub)
        market = await Market.open(self.url, hub, matching=matching, interval=INTERVAL, **options)
        task = asyncio.create_task(market.run())
        app = create_app(market)
        client = MarketClient("http://market", CHAIN_ID, in_memory(app))
        http = httpx2.AsyncClient(transport=in_memory(app), base_url="http://market")
        self._open.append((market, task, client, http))
        return Stand(self.network, market, client, http)

    async def stop(self) -> None:
        """End every market started, as a crash would: nothing is told."""
        for market, task, client, http in self._open:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await client.close()
            await http.aclose()
            await market.close()
        self._open = []


@pytest.fixture
async def running(network: Network, tmp_path: Path) -> AsyncIterator[Running]:
    markets = Running(network, tmp_path)
    yield markets
    await markets.stop()


@pytest.fixture
async def on_postgres(running: Running, request: pytest.FixtureRequest) -> Running:
    """Markets that keep everything in an empty PostgreSQL database."""
    running.url = await emptied(request.getfixturevalue("postgres_url"))
    return running


async def emptied(url: str) -> str:
    """The same PostgreSQL database, without what others left in it."""
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.execute(sa.text("DROP SCHEMA public CASCADE"))
        await connection.execute(sa.text("CREATE SCHEMA public"))
    await engine.dispose()
    return url


@pytest.fixture
async def book(running: Running) -> Stand:
    """A market that keeps the book and matches nothing."""
    return await running.start(matching=False)


@pytest.fixture
async def stand(running: Running) -> Stand:
    """A market that matches, with the hub owner's wallet."""
    return await running.start()
