"""What happens is told: by an event stream that resumes, and by Socket.IO, polled and pushed."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import httpx2
import pytest
import socketio
from simple_websocket import AioClient, ConnectionClosed

from sealdeal.market.app import create_app
from sealdeal.market.feed import Feed, Wanted
from sealdeal.market.limits import OpenStreams
from sealdeal.model.deals import task_id
from sealdeal.model.orders import AppOrder, Kind
from sealdeal.model.types import hexstr
from sealdeal.sdk.serving import Patient
from tests.market.conftest import Running, Stand
from tests.market.server import served
from tests.market.test_index import four, reorganise
from tests.network import CHAIN_ID, QUICK

CHAIN = str(CHAIN_ID)


@dataclass(frozen=True)
class Told:
    id: int
    name: str
    data: Any


class Stream:
    """An EventSource: what a browser makes of the stream."""

    def __init__(self, lines: AsyncIterator[str]) -> None:
        self._lines = lines
        self.last_id = 0

    async def next(self) -> Told:
        name = data = ""
        async with asyncio.timeout(10):
            async for line in self._lines:
                key, _, value = line.partition(": ")
                if key == "id":
                    self.last_id = int(value)
                elif key == "event":
                    name = value
                elif key == "data":
                    data = value
                elif line == "" and name:
                    return Told(self.last_id, name, json.loads(data))
        raise AssertionError("the stream ended")

    async def begun(self) -> None:
        async with asyncio.timeout(10):
            while not self.last_id:
                line = await anext(self._lines)
                if line.startswith("id: "):
                    self.last_id = int(line[4:])

    async def several(self, count: int) -> list[Told]:
        return [await self.next() for _ in range(count)]


@asynccontextmanager
async def stream(url: str, after: int | None = None, **query: str) -> AsyncIterator[Stream]:
    headers = {"origin": "https://market.example"}
    headers |= {} if after is None else {"last-event-id": str(after)}
    async with (
        httpx2.AsyncClient(base_url=url, timeout=20) as client,
        client.stream("GET", "/events", params={"chainId": CHAIN, **query}, headers=headers) as answer,
    ):
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["access-control-allow-origin"] == "*"
        yield Stream(answer.aiter_lines())


# ------------------------------------------------------------------------------------- event stream


async def test_a_stream_tells_of_orders_deals_and_tasks_as_they_happen(book: Stand) -> None:
    network = book.network
    async with served(book.market) as url, stream(url) as all_, stream(url, topics="tasks,deals") as some:
        for one in (all_, some):
            await one.begun()
        signed, published = await four(book, volume=2)
        told = await all_.several(4)
        assert [one.name for one in told] == [f"{kind}order_published" for kind in Kind]
        shown = (await book.get(f"/apporders/{hexstr(published[0].hash)}")).json()
        assert told[0].data == {name: shown[name] for name in shown if name not in ("ok", "chainId")}
        half = network.sign("requester", replace(signed[3].order, volume=1, salt=b"\1" * 32))
        dealid, receipt = await network.as_("requester").match_orders(signed[0], signed[1], signed[2], half)
        made, *changed = await all_.several(4)
        assert made.name == "deal_created" and made.data["dealid"] == hexstr(dealid)
        assert {one.name for one in changed} == {f"{k}order_updated" for k in list(Kind)[:3]}
        assert all(one.data["remaining"] == 1 for one in changed)
        deal = await network.hub.deal(dealid)
        taskid = await network.complete(deal)
        begun, ended = await all_.several(2)
        assert (begun.name, ended.name) == ("task_initialized", "task_completed")
        assert ended.data["taskid"] == hexstr(taskid) == begun.data["taskid"]
        assert ended.data["status"] == "COMPLETED" and bytes.fromhex(ended.data["results"][2:]) == b"result"
        assert ended.data["requester"] == network.address("requester")
        assert [one.name for one in await some.several(3)] == [
            "deal_created",
            "task_initialized",
            "task_completed",
        ]
        ids = [one.id for one in (*told, made, *changed, begun, ended)]
        assert ids == sorted(set(ids))
        await book.client.unpublish(Kind.APP, published[0].hash, network.key("app_provider"))
        gone, dead = await all_.several(2)
        assert (gone.name, gone.data) == ("apporder_unpublished", {"orderHash": hexstr(published[0].hash)})
        assert (dead.name, dead.data["orderHash"]) == (
            "requestorder_unpublished",
            hexstr(published[3].hash),
        )
        assert receipt.block.number == made.data["blockNumber"]


async def test_a_stream_resumes_where_it_broke_off_also_after_a_restart(running: Running) -> None:
    book = await running.start(matching=False)
    network = book.network
    async with served(book.market) as url, stream(url) as first:
        await first.begun()
        _, published = await four(book)
        seen = await first.several(2)
    await running.stop()
    book = await running.start(matching=False)
    async with served(book.market) as url:
        async with stream(url, seen[-1].id) as resumed:
            assert [one.name for one in await resumed.several(2)] == [
                "workerpoolorder_published",
                "requestorder_published",
            ]
            await book.client.unpublish(Kind.WORKERPOOL, published[2].hash, network.key("pool_owner"))
            assert (await resumed.next()).name == "workerpoolorder_unpublished"
        async with stream(url, 0) as everything:
            assert (await everything.next()).id == seen[0].id
        for lost in (5, seen[-1].id + 10**9):
            async with stream(url, lost) as behind:
                assert (await behind.next()).name == "reset"


async def test_a_stream_can_be_of_one_deal_or_requester(book: Stand) -> None:
    network = book.network
    async with served(book.market) as url:
        mine = network.address("requester")
        async with (
            stream(url, requester=mine) as of_mine,
            stream(url, requester=network.address("worker")) as of_others,
        ):
            await of_mine.begun()
            await of_others.begun()
            deal = await network.deal(volume=2)
            other = await network.deal(assets=await network.assets("other"))
            async with stream(url, 0, dealid=hexstr(other.dealid)) as of_deal:
                await network.as_("pool_owner").initialize(deal.dealid, 0)
                taskid = await network.complete(other)
                names = [(one.name, one.data["dealid"]) for one in await of_mine.several(5)]
                assert names[:2] == [("deal_created", hexstr(d.dealid)) for d in (deal, other)]
                for name in ("deal_created", "task_initialized", "task_completed"):
                    one = await of_deal.next()
                    assert one.name == name and one.data["dealid"] == hexstr(other.dealid)
                assert one.data["taskid"] == hexstr(taskid)
            assert of_others.last_id < of_mine.last_id


async def test_a_task_that_is_claimed_has_failed(book: Stand) -> None:
    network = book.network
    async with served(book.market) as url, stream(url, topics="tasks") as tasks:
        await tasks.begun()
        deal = await network.deal(category=QUICK, volume=2)
        await network.as_("pool_owner").initialize(deal.dealid, 0)
        assert (await tasks.next()).data["status"] == "ACTIVE"
        await network.pass_time(60)
        await network.as_("requester").claim(task_id(deal.dealid, 0))
        failed = await tasks.next()
        assert (failed.name, failed.data["status"], failed.data["index"]) == ("task_failed", "FAILED", 0)
        await network.as_("requester").initialize_and_claim_array([(deal.dealid, 1)])
        begun, ended = await tasks.several(2)
        assert (begun.name, ended.name) == ("task_initialized", "task_failed")
        assert begun.data["index"] == ended.data["index"] == 1


async def test_what_a_reorganisation_undoes_is_told(book: Stand) -> None:
    network = book.network
    signed, _ = await four(book)
    async with served(book.market) as url, stream(url) as all_:
        await all_.begun()
        snapshot = await network.rpc.call("evm_snapshot")
        dealid, _ = await network.as_("requester").match_orders(*signed)
        taskid = await network.complete(await network.hub.deal(dealid))
        told = {one.name for one in await all_.several(7)}
        assert told >= {"deal_created", "task_completed", "apporder_unpublished"}
        await reorganise(network, snapshot)
        undone = {one.name: one.data for one in await all_.several(6)}
        assert undone["task_reverted"] == {
            "taskid": hexstr(taskid),
            "dealid": hexstr(dealid),
            "index": 0,
            "status": "UNSET",
        }
        assert undone["deal_removed"] == {"dealid": hexstr(dealid)}
        assert {f"{kind}order_published" for kind in Kind} <= set(undone)


async def test_what_a_stream_cannot_be_asked(book: Stand) -> None:
    answers = {
        "topics must be one or more of the following values: orders, deals, tasks; got 'x'": {"topics": "x"},
        "Last-Event-ID must be the id of an event": {"lastEventId": "-1"},
        "requester is not a valid ethereum address": {"requester": "any"},
    }
    for error, query in answers.items():
        answer = await book.get("/events", **query)
        assert (answer.status_code, answer.json()["error"]) == (400, error)
    assert (await book.http.get("/events")).json()["error"] == "chainId is a required field"


async def test_a_stream_that_fell_behind_what_is_remembered_misses_nothing(running: Running) -> None:
    book = await running.start(matching=False)
    book.market.feed._events = deque(maxlen=3)
    network = book.network
    program, *_ = await network.assets()
    async with served(book.market) as url, stream(url) as live:
        await live.begun()
        began = live.last_id
        signed = [network.sign("app_provider", AppOrder(program, i, salt=bytes([i]) * 32)) for i in range(12)]
        published = await book.publish_all(*signed)
        seen = await live.several(12)
        async with stream(url, began) as behind:
            assert await behind.several(12) == seen
        async with stream(url, seen[9].id) as near:
            assert await near.several(2) == seen[10:]
        assert [one.data["orderHash"] for one in seen] == [hexstr(one.hash) for one in published]


async def test_a_stream_that_begins_before_its_market_runs_misses_nothing(book: Stand) -> None:
    """As clients do who come back at once when a node starts again."""
    program, *_ = await book.network.assets()
    journal, one, other = (
        book.market.store.journal,
        *(
            book.network.sign("app_provider", AppOrder(program, price, salt=bytes([price]) * 32))
            for price in (1, 2)
        ),
    )
    await book.publish("app_provider", one)
    feed = Feed(journal)
    early = feed.stream(Wanted(), 0)
    async with asyncio.timeout(10):
        assert (await anext(early)).startswith("retry") and "apporder_published" in await anext(early)
        waiting = asyncio.ensure_future(anext(early))
        await asyncio.sleep(0.05)
        await book.publish("app_provider", other)  # before the feed looks for the first time
        running = asyncio.create_task(feed.run())
        assert "apporder_published" in await waiting
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_client_has_so_many_streams(running: Running) -> None:
    """Counted by client, and given back when one ends."""
    book = await running.start(matching=False)
    streams = OpenStreams(2, in_all=3)
    assert streams.open("8.8.8.8") and streams.open("8.8.8.8") and not streams.open("8.8.8.8")
    assert streams.open("127.0.0.1") and not streams.open("127.0.0.1")
    streams.close("8.8.8.8")
    assert streams.open("127.0.0.1")
    most = OpenStreams(50, in_all=4)
    app = create_app(book.market, streams=most)
    async with served(book.market, app) as url:
        for _ in range(3):
            async with stream(url) as one, stream(url) as two, stream(url), stream(url):
                await one.begun()
                await two.begun()
                async with httpx2.AsyncClient(base_url=url) as client:
                    over = await client.get("/events", params={"chainId": CHAIN})
                    assert (over.status_code, over.json()["error"]) == (429, "Rate limit exceeded")
            async with asyncio.timeout(5):
                while most.in_use:
                    await asyncio.sleep(0.01)


# ---------------------------------------------------------------------------------------- Socket.IO


class Polled:
    """A Socket.IO client that polls, written from the protocol's description."""

    def __init__(self, client: httpx2.AsyncClient, sid: str) -> None:
        self._client, self._query = client, {"EIO": "4", "transport": "polling", "sid": sid}
        self._waiting: list[str] = []

    @classmethod
    async def open(cls, client: httpx2.AsyncClient) -> Polled:
        answer = await client.get("/ws/", params={"EIO": "4", "transport": "polling"})
        assert answer.status_code == 200 and answer.text[0] == "0", answer.text
        opened = cls(client, json.loads(answer.text[1:])["sid"])
        await opened.send("40")
        assert (await opened.receive()).startswith("40{")
        return opened

    async def send(self, packet: str) -> None:
        answer = await self._client.post("/ws/", params=self._query, content=packet)
        assert answer.text.upper() == "OK"

    async def receive(self) -> str:
        while not self._waiting:
            answer = await self._client.get("/ws/", params=self._query)
            assert answer.status_code == 200, answer.text
            self._waiting = [packet for packet in answer.text.split("\x1e") if packet != "2"]
        return self._waiting.pop(0)

    async def join(self, topic: str, chain: Any = CHAIN_ID) -> None:
        await self.send(f"420{json.dumps(['join', {'chainId': chain, 'topic': topic}])}")
        assert await self.receive() == "430[true]"

    async def event(self) -> tuple[str, Any]:
        packet = await self.receive()
        assert packet[:2] == "42"
        name, data = json.loads(packet[2:])
        return name, data


async def test_socket_io_by_polling(book: Stand) -> None:
    network = book.network
    async with (
        served(book.market) as url,
        httpx2.AsyncClient(base_url=url, timeout=20, headers={"origin": "https://market.example"}) as client,
    ):
        answer = await client.get("/ws/", params={"EIO": "4", "transport": "polling"})
        assert answer.headers.get_list("access-control-allow-origin") == ["*"]
        polled = await Polled.open(client)
        await polled.join("orders")
        await polled.join("orders", chain="7")
        signed, published = await four(book)
        told = [await polled.event() for _ in Kind]
        assert [name for name, _ in told] == [f"{kind}order_published" for kind in Kind]
        document = told[0][1]
        assert document["orderHash"] == hexstr(published[0].hash) and "chainId" not in document
        assert document["order"] == signed[0].to_json() and document["status"] == "open"
        await book.client.unpublish(Kind.APP, published[0].hash, network.key("app_provider"))
        assert await polled.event() == ("apporder_unpublished", hexstr(published[0].hash))
        assert await polled.event() == ("requestorder_unpublished", hexstr(published[3].hash))
        await polled.send(f"421{json.dumps(['leave', {'chainId': CHAIN, 'topic': 'orders'}])}")
        assert await polled.receive() == "431[true]"
        await polled.join("deals", chain=CHAIN)
        await book.publish("app_provider", signed[0])
        dealid, _ = await network.as_("requester").match_orders(*signed)
        name, deal = await polled.event()
        assert (name, deal["dealid"], deal["chainId"]) == ("deal_created", hexstr(dealid), CHAIN_ID)
        assert deal == {
            k: v for k, v in (await book.get(f"/deals/{hexstr(dealid)}")).json().items() if k != "ok"
        }


async def test_a_client_that_others_wrote(book: Stand) -> None:
    """python-socketio's own, over HTTP: connects, joins, hears."""
    heard: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def hear(name: str, data: Any) -> None:
        loop.call_soon_threadsafe(heard.put_nowait, (name, data))

    client = socketio.Client(reconnection=False)
    client.on("*", hear)
    async with served(book.market) as url:
        connect = partial(client.connect, url, transports=["polling"], socketio_path="ws", wait_timeout=10)
        await asyncio.to_thread(connect)
        joined = await asyncio.to_thread(client.call, "join", {"chainId": CHAIN, "topic": "orders"})
        assert joined is True
        _, published = await four(book)
        async with asyncio.timeout(10):
            names = [(await heard.get())[0] for _ in published]
        assert names == [f"{kind}order_published" for kind in Kind]
        assert await asyncio.to_thread(client.call, "leaveAll") is True
        client.eio.disconnect(abort=True)  # the other way waits for a poll to come back, sometimes 25 s


async def test_socket_io_by_websocket_outlives_the_time_for_headers(
    book: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Patient, "head_seconds", 0.3)
    async with served(book.market) as url:
        address = url.replace("http", "ws") + "/ws/?EIO=4&transport=websocket"
        socket = await AioClient.connect(address)
        assert (await socket.receive(timeout=5)).startswith("0{")
        await socket.send("40")
        assert (await socket.receive(timeout=5)).startswith("40{")
        await socket.send(f"420{json.dumps(['join', {'chainId': CHAIN, 'topic': 'orders'}])}")
        assert await socket.receive(timeout=5) == "430[true]"
        await asyncio.sleep(0.6)
        app, *_ = await book.network.orders()
        published = await book.publish("app_provider", app)
        name, data = json.loads((await socket.receive(timeout=5))[2:])
        assert (name, data["orderHash"]) == ("apporder_published", hexstr(published.hash))
        await socket.close()


@pytest.mark.parametrize(
    "rubbish", ["420[]", '420["join"]', '420["join",5]', '420["join",{"topic":[]}]', "9"]
)
async def test_socket_io_survives_rubbish(book: Stand, rubbish: str) -> None:
    async with served(book.market) as url:
        address = url.replace("http", "ws") + "/ws/?EIO=4&transport=websocket"
        socket = await AioClient.connect(address)
        await socket.receive(timeout=5)
        await socket.send("40")
        await socket.receive(timeout=5)
        with suppress(ConnectionClosed):
            await socket.send(rubbish)
            await socket.receive(timeout=0.3)
        async with httpx2.AsyncClient(base_url=url, timeout=20) as client:
            await (await Polled.open(client)).join("orders")
        with suppress(ConnectionClosed):
            await socket.close()


async def test_two_nodes_tell_the_same(running: Running) -> None:
    """The journal is the database's: what one node took is told by the other too."""
    one, other = await running.start(matching=False), await running.start(matching=False)
    async with served(other.market) as url, stream(url) as told:
        await told.begun()
        app, *_ = await one.network.orders()
        published = await one.publish("app_provider", app)
        heard = await told.next()
        assert (heard.name, heard.data["orderHash"]) == ("apporder_published", hexstr(published.hash))
