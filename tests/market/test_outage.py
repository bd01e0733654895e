"""A database that goes away and comes back: the market says so, waits, and misses nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from sealdeal.market.subgraphs import Subgraphs
from sealdeal.model.errors import SealdealError
from tests.market.conftest import INTERVAL, Running
from tests.market.test_index import four, status
from tests.postgres import away


async def test_a_database_may_go_away(on_postgres: Running) -> None:
    book = await on_postgres.start()
    network = book.network
    subgraphs = await Subgraphs.open(on_postgres.url, network.hub, interval=INTERVAL)
    graphs = asyncio.create_task(subgraphs.run())
    app, *_ = await network.orders()
    published = await book.publish("app_provider", app)
    with away(on_postgres.url):
        for path, query in (("/apporders", {"app": "any"}), ("/deals", {}), ("/metrics", {})):
            answer = await book.get(path, **query)
            assert (answer.status_code, answer.json()["error"]) == (
                500,
                "Something went wrong, you should retry later.",
            )
        await network.as_("app_provider").manage_order(app, "close")
        await asyncio.sleep(1)
    assert await soon(lambda: status(book, published), ("canceled", 0))
    _, orders = await four(book, salt=b"\1" * 32, assets=await network.assets("other"))
    assert await soon(lambda: status(book, orders[3]), ("filled", 0)), "it matches again"
    assert await soon(lambda: subgraphs.store.count("poco", "Deal"), 1)
    graphs.cancel()
    await asyncio.gather(graphs, return_exceptions=True)
    await subgraphs.close()


async def soon(ask: Callable[[], Awaitable[Any]], wanted: Any) -> bool:
    """Whether that is answered within 20 s."""
    for _ in range(200):
        with suppress(SealdealError):
            if await ask() == wanted:
                return True
        await asyncio.sleep(0.1)
    return False
