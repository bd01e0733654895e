"""Our client of a market's events and webhooks, against a market."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sealdeal.model.errors import BadSignature, InvalidInput, NotFound, Unavailable
from sealdeal.model.types import hexstr
from sealdeal.sdk import events
from sealdeal.sdk.events import (
    add_webhook,
    drop_webhook,
    list_webhooks,
    signature,
    verify_webhook,
    watch,
)
from sealdeal.sdk.market import MarketClient
from tests.market.conftest import Running
from tests.market.server import served
from tests.market.test_webhooks import receiving
from tests.network import CHAIN_ID, Network

SECRET = b"s" * 32
TEXT = f"whsec_{base64.b64encode(SECRET).decode()}"


@pytest.fixture
async def running(network: Network, tmp_path: Path) -> AsyncIterator[Running]:
    markets = Running(network, tmp_path)
    yield markets
    await markets.stop()


async def test_a_watch_goes_on_over_a_restart_of_the_market(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_RETRY", 0.05)
    book = await running.start(matching=False)
    network = book.network
    me = network.address("requester")
    async with served(book.market) as url:
        port = url
        client = MarketClient(url, CHAIN_ID)
        watching = watch(client, topics=["deals", "tasks"], requester=me, after=0)
        deal = await network.deal()
        first = await anext(watching)
        assert (first.name, first.data["dealid"]) == ("deal_created", hexstr(deal.dealid))
    await running.stop()
    taskid = await network.complete(deal)
    book = await running.start(matching=False)
    waiting = asyncio.ensure_future(anext(watching))
    await asyncio.sleep(0.2)
    async with served(book.market, port=int(port.rpartition(":")[2])):
        begun, ended = await waiting, await anext(watching)
        assert (begun.name, ended.name) == ("task_initialized", "task_completed")
        assert ended.data["taskid"] == hexstr(taskid) and ended.id > begun.id > first.id
        await watching.aclose()  # type: ignore[attr-defined]
    with pytest.raises(Unavailable):
        await anext(watch(client))
    await client.close()


async def test_a_refusal_is_raised(running: Running) -> None:
    book = await running.start(matching=False)
    async with served(book.market) as url, MarketClient(url, CHAIN_ID) as client:
        with pytest.raises(InvalidInput, match="topics must be one or more of"):
            await anext(watch(client, topics=["nothing"]))  # type: ignore[list-item]


async def test_webhooks_are_made_verified_and_ended(running: Running) -> None:
    book = await running.start(matching=False, private_webhooks=True)
    me = book.network.key("requester")
    async with receiving() as receiver:
        hook = await add_webhook(book.client, receiver.url, me)
        assert hook.secret and hook.filter == {"requester": me.address}
        other = await add_webhook(book.client, receiver.url, me, dealid=b"\1" * 32)
        listed = await list_webhooks(book.client, me)
        assert {found.id for found in listed} == {hook.id, other.id} and not listed[0].secret
        taskid = await book.network.complete(await book.network.deal())
        await receiver.messages(3)
        headers, body = receiver.heard[2]
        message = verify_webhook(hook.secret, headers, body)
        assert message["type"] == "task.completed" and message["data"]["taskid"] == hexstr(taskid)
        with pytest.raises(BadSignature):
            verify_webhook(hook.secret, headers, body + b" ")
        await drop_webhook(book.client, hook.id, me)
        with pytest.raises(NotFound):
            await drop_webhook(book.client, hook.id, me)


def test_old_and_foreign_messages_are_refused() -> None:
    body, now = b'{"type":"x"}', 1_000_000
    headers = {"Webhook-Id": "msg_1", "Webhook-Timestamp": str(now)}
    signed = headers | {"Webhook-Signature": f"v1,other {signature(SECRET, 'msg_1', now, body)}"}
    assert verify_webhook(TEXT, signed, body, now=now + 299) == {"type": "x"}
    for wrong in (
        {"headers": signed, "now": now + 301},
        {"headers": signed, "now": now - 301},
        {"headers": signed | {"Webhook-Id": "msg_2"}, "now": now},
        {"headers": signed | {"Webhook-Timestamp": str(now + 1)}, "now": now},
        {"headers": headers, "now": now},
        {"headers": headers | {"Webhook-Signature": ""}, "now": now},
    ):
        with pytest.raises(BadSignature):
            verify_webhook(TEXT, body=body, **wrong)  # type: ignore[arg-type]
