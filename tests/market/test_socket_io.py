"""The feed on /ws as the official JavaScript client hears it: polling, by WebSocket, and over a restart."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sealdeal.model.orders import Kind
from sealdeal.model.types import hexstr
from tests.compat.world import PACKAGES, node
from tests.market.conftest import Running
from tests.market.server import served
from tests.market.test_index import four
from tests.network import CHAIN_ID

SCRIPT = Path(__file__).with_name("socket_io.mjs")
WAYS = ("polling", "websocket", "upgrading")


class Clients:
    """What the script's clients say, each in its order."""

    def __init__(self, said: asyncio.StreamReader) -> None:
        self._said = said
        self._waiting: dict[str, list[tuple[str, Any]]] = {way: [] for way in WAYS}

    async def next(self, way: str) -> tuple[str, Any]:
        async with asyncio.timeout(20):
            while not self._waiting[way]:
                line = json.loads(await self._said.readline())
                self._waiting[line["name"]].append((line["event"], line.get("data")))
        return self._waiting[way].pop(0)


@asynccontextmanager
async def clients(folder: Path, url: str) -> AsyncIterator[Clients]:
    program = node()
    if program is None or not (PACKAGES / "socket.io-client").is_dir():
        pytest.skip("the JavaScript client of Socket.IO is not here: ./dev setup fetches it")
    shutil.copy(SCRIPT, folder)
    (folder / "node_modules").symlink_to(PACKAGES, target_is_directory=True)
    child = await asyncio.create_subprocess_exec(
        program, SCRIPT.name, url, str(CHAIN_ID), cwd=folder, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert child.stdout
        yield Clients(child.stdout)
    finally:
        child.kill()
        await child.wait()


async def test_the_official_client_hears_of_orders_and_deals(running: Running, tmp_path: Path) -> None:
    book = await running.start(matching=False)
    network = book.network
    async with served(book.market) as url:  # for its port only: nobody answers there when the clients begin
        port = int(url.rpartition(":")[2])
    async with clients(tmp_path, url) as heard:
        async with served(book.market, port=port):
            for way in WAYS:
                assert await heard.next(way) == ("joined", [True, True])
            signed, published = await four(book)
            for way in WAYS:
                for kind, one in zip(Kind, published, strict=True):
                    name, document = await heard.next(way)
                    assert (name, document["orderHash"]) == (f"{kind}order_published", hexstr(one.hash))
                    assert "chainId" not in document and document["order"]["sign"]
            assert await heard.next("polling") == ("left", True)
            for way in WAYS:
                used = "polling" if way == "polling" else "websocket"
                assert await heard.next(way) == ("transport", used)
            dealid, _ = await network.as_("requester").match_orders(*signed)
            for way in WAYS:
                name, deal = await heard.next(way)
                assert (name, deal["dealid"], deal["chainId"]) == ("deal_created", hexstr(dealid), CHAIN_ID)
            for way in ("websocket", "upgrading"):
                gone = [await heard.next(way) for _ in Kind]
                assert {name for name, _ in gone} == {f"{kind}order_unpublished" for kind in Kind}
                assert {hash for _, hash in gone} == {hexstr(one.hash) for one in published}
        for way in WAYS:  # who left a topic has heard no more of it
            assert (await heard.next(way))[0] == "disconnected"
        async with served(book.market, port=port):
            for way in WAYS:
                assert await heard.next(way) == ("joined", [True, True])
            app = signed[0].order.app
            again = network.sign("app_provider", replace(signed[0].order, salt=b"\7" * 32))
            await book.publish("app_provider", again)
            for way in WAYS:
                name, document = await heard.next(way)
                assert (name, document["order"]["app"]) == ("apporder_published", app)
