"""The whole market: on PostgreSQL, with two nodes, and over an absence of the chain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from urllib.parse import urlsplit

import pytest

from sealdeal.chain import Hub, Rpc, Sender, Wallet
from sealdeal.model.errors import SealdealError
from sealdeal.model.orders import TEE, TEE_TDX, Kind, tag
from tests.market.conftest import Running
from tests.market.test_engine import deals, salt


async def test_a_deal_on_postgresql(on_postgres: Running) -> None:
    stand = await on_postgres.start()
    network, client = stand.network, stand.client
    app, dataset, pool, request = await network.orders(volume=2)
    await stand.publish_all(app, dataset)
    high = network.sign("app_provider", replace(app.order, tag=tag(TEE_TDX | 1 << 255), salt=salt(1)))
    await stand.publish("app_provider", high)
    assert (await client.app_orders(app.order.app, min_tag=1 << 255)).count == 1
    assert (await client.app_orders(app.order.app, max_tag=TEE_TDX)).count == 1
    assert (await client.app_orders(app.order.app, min_tag=TEE)).count == 2
    await stand.publish("requester", request)
    assert (await client.why(request.hash(network.domain))).constraint == "no workerpool order in category 0"
    first = network.sign("pool_owner", replace(pool.order, volume=1, salt=salt(1)))
    await stand.publish_all(first)
    await deals(stand, 1)
    await on_postgres.stop()
    stand = await on_postgres.start()
    await stand.publish_all(pool)
    made = await deals(stand, 2)
    assert [deal.bot_first for deal in made] == [0, 1]
    assert (await stand.client.order(Kind.REQUEST, request.hash(network.domain))).status == "filled"


async def test_two_nodes_on_postgresql_show_the_same_and_match_once(on_postgres: Running) -> None:
    """Both match with wallets of their own: the chain decides, and no task is bought twice."""
    one = await on_postgres.start()
    network = one.network
    other = await on_postgres.start(hub=network.as_("worker"))
    app, dataset, pool, request = await network.orders(volume=5)
    asks = [network.sign("requester", replace(request.order, volume=1, salt=salt(i))) for i in range(5)]
    await one.publish_all(app, dataset)
    nodes = (one, other)
    await asyncio.gather(*(nodes[i % 2].publish("requester", ask) for i, ask in enumerate(asks)))
    await other.publish_all(pool)
    for node in nodes:
        made = await deals(node, 5)
        assert len({deal.request_hash for deal in made}) == 5
        assert (await node.client.workerpool_orders()).count == 0


@asynccontextmanager
async def line_to(url: str) -> AsyncIterator[Line]:
    line = Line(url)
    await line.mend()
    yield line
    await line.cut()


class Line:
    """A relay to the chain's node that can be cut."""

    def __init__(self, url: str) -> None:
        target = urlsplit(url)
        self._to = (target.hostname or "", target.port or 0)
        self._port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def mend(self) -> None:
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        if self._server:
            self._server.close()
            for writer in self._writers:
                writer.transport.abort()
            self._server = None

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*self._to)
        self._writers |= {writer, back}

        async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            try:
                while data := await source.read(65536):
                    target.write(data)
                    await target.drain()
            except ConnectionError:
                pass
            finally:
                target.close()

        await asyncio.gather(copy(reader, back), copy(there, writer))
        self._writers -= {writer, back}


async def test_a_chain_that_goes_away_and_returns_stops_nothing_for_good(running: Running) -> None:
    network = running.network
    async with line_to(network.url) as line, Rpc(line.url) as rpc:
        hub = Hub(rpc, network.addresses, Sender(rpc, Wallet(network.key("hub_owner")), patience=30.0))
        stand = await running.start(hub=hub)
        app, dataset, pool, request = await network.orders(volume=2)
        first = network.sign("requester", replace(request.order, volume=1, salt=salt(1)))
        await stand.publish_all(app, dataset, pool)
        await stand.publish("requester", first)
        await deals(stand, 1)

        await line.cut()
        second = network.sign("requester", replace(request.order, volume=1, salt=salt(2)))
        with pytest.raises(SealdealError, match="Something went wrong, you should retry later"):
            await stand.publish("requester", second)
        assert (await stand.client.deals()).count == 1, "what is known can still be read"
        await network.as_("requester").match_orders(app, dataset, pool, second)
        await line.mend()

        await deals(stand, 2)
        states = [
            (await stand.client.order(Kind(k), o.hash(network.domain))).status
            for k, o in (("app", app), ("workerpool", pool))
        ]
        assert states == ["filled", "filled"]
        await running.stop()
