"""Ends of tasks told to the web: signed, again until heard, and nowhere that a stranger should not reach."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response

from sealdeal.market import journal, webhooks
from sealdeal.market.webhooks import MOST_WEBHOOKS
from sealdeal.model.deals import Deal, task_id
from sealdeal.model.types import hexstr
from tests.market.conftest import Running, Stand
from tests.market.server import served
from tests.market.test_index import reorganise
from tests.network import CHAIN_ID, QUICK


@dataclass
class Receiver:
    """Somebody's server: what it was sent, and what it answers."""

    url: str = ""
    answers: list[int] = field(default_factory=list)
    """The next ones; 204 after them."""
    heard: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    came: asyncio.Event = field(default_factory=asyncio.Event)
    location: str = ""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        self.heard.append((dict(request.headers), await request.body()))
        self.came.set()
        status = self.answers.pop(0) if self.answers else 204
        headers = {"location": self.location} if self.location else None
        await Response(status_code=status, headers=headers)(scope, receive, send)

    async def messages(self, count: int) -> list[dict[str, Any]]:
        """What it was sent, once there are as many."""
        async with asyncio.timeout(20):
            while len(self.heard) < count:
                self.came.clear()
                await self.came.wait()
        return [json.loads(body) for _, body in self.heard]

    def check(self, secret: str) -> None:
        """Every message verifies, as the specification's libraries do it."""
        key = base64.b64decode(secret.removeprefix("whsec_"))
        for headers, body in self.heard:
            said = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
            right = base64.b64encode(hmac.new(key, said, hashlib.sha256).digest()).decode()
            assert headers["webhook-signature"] == f"v1,{right}"
            assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60


@asynccontextmanager
async def receiving(*answers: int) -> AsyncIterator[Receiver]:
    receiver = Receiver(answers=list(answers))
    async with served(None, receiver) as url:
        receiver.url = f"{url}/hook?of=me"
        yield receiver


@pytest.fixture
async def near(running: Running) -> Stand:
    """A market that may call its own network."""
    return await running.start(matching=False, private_webhooks=True)


async def make(stand: Stand, role: str, **body: Any) -> tuple[int, Any]:
    answer = await stand.http.post(
        "/webhooks",
        params={"chainId": str(CHAIN_ID)},
        json=body,
        headers=await stand.authorization(role),
    )
    return answer.status_code, answer.json().get("webhook") or answer.json()["error"]


async def made(stand: Stand, role: str, **body: Any) -> dict[str, Any]:
    status, document = await make(stand, role, **body)
    assert status == 200, document
    return dict(document)


async def failed(stand: Stand, deal: Deal, index: int = 0) -> bytes:
    """Let a task of a quick deal fail."""
    await stand.network.as_("requester").initialize_and_claim_array([(deal.dealid, index)])
    return task_id(deal.dealid, index)


async def test_ends_of_tasks_are_told_and_signed(near: Stand) -> None:
    network = near.network
    async with receiving() as mine, receiving() as pools, receiving() as others:
        hook = await made(near, "requester", url=mine.url)
        assert hook["url"] == mine.url and hook["requester"] == network.address("requester")
        await made(near, "worker", url=others.url)
        deal = await network.deal(category=QUICK, volume=2)
        pool = await made(near, "worker", url=pools.url, workerpool=deal.workerpool.pointer.lower())
        taskid = await network.complete(deal)
        ping, ended = await mine.messages(2)
        assert (ping["type"], ping["data"]) == ("webhook.ping", {"webhook": hook["id"]})
        assert ended["type"] == "task.completed" and ended["data"]["taskid"] == hexstr(taskid)
        assert ended["data"]["requester"] == network.address("requester")
        assert (await pools.messages(2))[1] == ended
        await network.pass_time(60)
        lost = await failed(near, deal, 1)
        told = (await mine.messages(3))[2]
        assert (told["type"], told["data"]["taskid"]) == ("task.failed", hexstr(lost))
        mine.check(hook["secret"])
        await pools.messages(3)
        pools.check(pool["secret"])
        assert len(others.heard) == 1
        ids = [headers["webhook-id"] for headers, _ in mine.heard + pools.heard]
        assert len(set(ids)) == len(ids)


async def test_two_nodes_on_postgresql_send_once(on_postgres: Running) -> None:
    one = await on_postgres.start(matching=False, private_webhooks=True)
    await on_postgres.start(matching=False, private_webhooks=True)
    async with receiving(200, 500) as receiver:
        await made(one, "requester", url=receiver.url)
        deal = await one.network.deal(volume=3)
        for index in range(3):
            await one.network.complete(deal, index)
        await receiver.messages(4)
        async with asyncio.timeout(15):
            while await one.market.store.journal.next_due() is not None:
                await asyncio.sleep(0.05)
        told = [headers["webhook-id"] for headers, _ in receiver.heard]
        assert len(told) == 5 and len(set(told)) == 4, "one was refused at first, none was sent twice"


async def test_a_message_is_sent_until_it_is_heard_also_after_a_restart(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "PAUSES", (0, 0, 1, 1, 1, 1, 1, 1))
    monkeypatch.setattr(webhooks, "TIMEOUT", 1.0)  # of which three are the time until another tries
    near = await running.start(matching=False, private_webhooks=True)
    async with receiving(200, 500, 302, 404) as receiver:
        receiver.location = "/elsewhere"
        hook = await made(near, "requester", url=receiver.url)
        deal = await near.network.deal()
        await near.network.complete(deal)
        await receiver.messages(4)
        await running.stop()
        near = await running.start(matching=False, private_webhooks=True)
        *_, last, again = (await receiver.messages(5))[-2:]
        assert last == again
        receiver.check(hook["secret"])
        assert len({headers["webhook-id"] for headers, _ in receiver.heard[1:]}) == 1
        while await near.market.store.journal.next_due() is not None:
            await asyncio.sleep(0.02)
        assert len(receiver.heard) == 5


async def test_an_index_made_anew_does_not_send_again(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    near = await running.start(matching=False, private_webhooks=True)
    async with receiving() as receiver:
        await made(near, "requester", url=receiver.url)
        deal = await near.network.deal(volume=2)
        await near.network.complete(deal)
        await receiver.messages(2)
        while await near.market.store.journal.next_due() is not None:
            await asyncio.sleep(0.02)
        await running.stop()
        monkeypatch.setitem(journal.tables.info, "derived_version", 999)
        near = await running.start(matching=False, private_webhooks=True)
        await near.network.complete(deal, 1)
        *_, last = await receiver.messages(3)
        assert last["data"]["index"] == 1


async def test_who_answers_gone_is_not_told_again(near: Stand) -> None:
    async with receiving(200, 410) as receiver:
        await made(near, "requester", url=receiver.url)
        await near.network.complete(await near.network.deal())
        await receiver.messages(2)
        async with asyncio.timeout(10):
            while await near.market.store.journal.webhooks(near.network.address("requester")):
                await asyncio.sleep(0.02)


async def test_what_a_reorganisation_undoes_before_it_was_sent_is_not_sent(near: Stand) -> None:
    network = near.network
    async with receiving(200, 500) as receiver:
        await made(near, "requester", url=receiver.url)
        deal = await network.deal()
        snapshot = await network.rpc.call("evm_snapshot")
        await network.complete(deal)
        await receiver.messages(2)
        assert await near.market.store.journal.next_due() is not None
        await reorganise(network, snapshot)
        await near.market.index.caught_up()
        assert await near.market.store.journal.next_due() is None


async def test_webhooks_are_the_wallets_own(near: Stand) -> None:
    async with receiving() as receiver:
        hook = await made(near, "requester", url=receiver.url, dealid="0x" + "ab" * 32)
        assert hook["dealid"] == "0x" + "ab" * 32

        async def ask(method: str, path: str, role: str) -> tuple[int, Any]:
            headers = await near.authorization(role)
            query = {"chainId": str(CHAIN_ID)}
            answer = await near.http.request(method, path, params=query, headers=headers)
            return answer.status_code, answer.json()

        del hook["secret"]
        assert (await ask("GET", "/webhooks", "requester"))[1] == {"ok": True, "webhooks": [hook]}
        assert (await ask("GET", "/webhooks", "worker"))[1] == {"ok": True, "webhooks": []}
        path = f"/webhooks/{hook['id']}"
        assert await ask("DELETE", path, "worker") == (404, {"ok": False, "error": "webhook not found"})
        assert (await ask("DELETE", path, "requester"))[0] == 200
        assert (await ask("DELETE", path, "requester"))[0] == 404
        bare = await near.http.get("/webhooks", params={"chainId": str(CHAIN_ID)})
        assert (bare.status_code, bare.json()["error"]) == (403, "invalid authorization")
        for _ in range(MOST_WEBHOOKS):
            await made(near, "worker", url=receiver.url)
        status, error = await make(near, "worker", url=receiver.url)
        assert status == 403 and error.startswith("maximum of 20 webhooks has been reached for wallet 0x")


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("", "url is a required field"),
        ("rubbish", "url must begin with https://"),
        ("http://example.org/", "url must begin with https://"),
        ("file:///etc/passwd", "url must begin with https://"),
        ("https://", "url must have a host, and neither user, password nor fragment"),
        ("https://me@example.org/", "url must have a host, and neither user, password nor fragment"),
        ("https://example.org:99999/", "url is not a valid URL"),
        ("https://example.org/\r\nx: y", "url is not a valid URL"),
        ("https://127.0.0.1/", "127.0.0.1 is not on the public internet"),
        ("https://localhost:8545/", "localhost is not on the public internet"),
        ("https://[::1]/", "::1 is not on the public internet"),
        ("https://[::ffff:10.0.0.1]/", "::ffff:10.0.0.1 is not on the public internet"),
        ("https://169.254.169.254/latest/meta-data", "169.254.169.254 is not on the public internet"),
        ("https://0x7f000001/", "0x7f000001 is not on the public internet"),
        ("https://2130706433/", "2130706433 is not on the public internet"),
    ],
)
async def test_addresses_that_are_not_called(book: Stand, url: str, error: str) -> None:
    status, told = await make(book, "requester", url=url)
    assert status == 400 and told.endswith(error)


async def test_a_name_that_leads_home_is_not_called(book: Stand) -> None:
    """One address of several suffices, and the address that was looked at is the one that is called."""
    asked = []

    async def rebinding(name: str, port: int) -> list[str]:
        asked.append((name, port))
        return ["93.184.216.34", "10.0.0.1"] if len(asked) == 1 else ["10.0.0.1"]

    book.market.webhooks._resolve = rebinding
    for _ in range(2):
        status, told = await make(book, "requester", url="https://rebind.example/")
        assert status == 400 and told.endswith("rebind.example is not on the public internet")
    assert asked == [("rebind.example", 443)] * 2
