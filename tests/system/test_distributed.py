"""Deals on a network of twelve processes and PostgreSQL, as docs/operate.md makes it; parts are killed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from sealdeal.model.deals import TaskStatus
from sealdeal.model.errors import SealdealError
from sealdeal.model.orders import BATCH, tag_bits
from tests.postgres import programs

from .conftest import ECHO, World, told
from .spread import Spread, spread
from .test_outages import SLOW, until

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(programs() is None, reason="PostgreSQL is not installed (apt install postgresql)"),
]


def soak(name: str) -> object:
    """One that only long runs kill: test_outages.py kills a worker each time."""
    return pytest.param(name, marks=pytest.mark.soak)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def there(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> AsyncIterator[tuple[World, Spread]]:
    folder = tmp_path_factory.mktemp("spread")
    async with spread(folder, cache) as made:
        yield made


async def offered(world: World) -> None:
    """Wait until the schedulers have put their offers into the market."""
    reader = await world.person(0)
    for _ in range(300):
        with contextlib.suppress(SealdealError):
            found = await reader.market.workerpool_orders(
                workerpool=world.network.network.workerpool, category=0, app="any", dataset="any"
            )
            if found.items:
                assert tag_bits(found.items[0].order.tag) & BATCH, "an offer settles in batches if asked"
                return
        await asyncio.sleep(0.2)
    raise AssertionError("no workerpool order after a minute")


async def test_a_deal_is_run_and_only_its_requester_reads_the_result(there: tuple[World, Spread]) -> None:
    world, _ = there
    await offered(world)
    provider, owner, requester = await world.person(), await world.person(), await world.requester()
    app = await world.app(provider, ECHO)
    data = await world.data(owner, b"x" * 1000, app.address)
    deal = await world.buy(requester, app.address, dataset=data.address, volume=3)
    tasks = await asyncio.gather(*(world.ended(requester, deal, n, timeout=120) for n in range(3)))
    assert {task.status for task in tasks} == {TaskStatus.COMPLETED}
    assert [told(await world.result(requester, task.taskid))["bytes"] for task in tasks] == [1000] * 3


@pytest.mark.parametrize("victim", [soak("market-0"), "pool-0", soak("sms-0")])
async def test_others_of_its_kind_go_on_without_it(there: tuple[World, Spread], victim: str) -> None:
    world, processes = there
    provider, requester = await world.person(), await world.requester()
    app = await world.app(provider, SLOW)
    before = await world.buy(requester, app.address)
    await until(world, before.task_ids()[0], "COMPUTING")
    await processes.kill(victim)
    elsewhere = World(processes.seen_from(0 if victim == "sms-0" else 1), world.folder, world.cache)
    async with elsewhere.stack:
        client = await elsewhere.stack.enter_async_context(
            type(requester)(elsewhere.network.network, requester.key)
        )
        during = await elsewhere.buy(client, app.address)
        for deal in (before, during):
            assert (await elsewhere.ended(client, deal, timeout=180)).status is TaskStatus.COMPLETED
    await processes.start(victim)
    assert (await world.ended(requester, during, timeout=60)).status is TaskStatus.COMPLETED


@pytest.mark.parametrize("kind", [soak("worker"), "results"])
async def test_one_that_has_no_other_goes_on_when_it_is_back(there: tuple[World, Spread], kind: str) -> None:
    world, processes = there
    provider, requester = await world.person(), await world.requester()
    app = await world.app(provider, SLOW)
    deal = await world.buy(requester, app.address)
    await until(world, deal.task_ids()[0], "COMPUTING")
    victim = kind
    if kind == "worker":
        assert requester.scheduler is not None
        (attempt,) = (await requester.scheduler.task(deal.task_ids()[0]))["replicates"]
        addresses = {processes.key(name).address: name for name in processes.children if "worker" in name}
        victim = addresses[attempt["walletAddress"]]
    await processes.kill(victim)
    await asyncio.sleep(1)
    await processes.start(victim)
    assert (await world.ended(requester, deal, timeout=180)).status is TaskStatus.COMPLETED
    assert told(await world.result(requester, deal.task_ids()[0]))["index"] == 0


async def test_a_service_answers_others_whatever_one_client_does(there: tuple[World, Spread]) -> None:
    """1,000 idle connections, slow requests, bodies without end, a flood of challenges."""
    world, processes = there
    requester = await world.requester()
    who = f"chainId={world.network.network.chain_id}&address={requester.key.address}"
    posted, flooded = {"market-0": "/apporders?" + who, "results": "/api/v0/add"}, f"/challenge?{who}"
    posted |= {"pool-0": f"/workers/{requester.key.address}/assignments", "sms-0": "/shares"}
    for name, path in posted.items():
        host, port = processes.url(name).removeprefix("http://").split(":")
        away = (processes.stranger, 0)
        open_ = [await asyncio.open_connection(host, int(port), local_addr=away) for _ in range(1000)]
        pouring = []
        try:
            for _, writer in open_[:50]:
                writer.write(b"GET / HTTP/1.1\r\nHost: slow\r\nX-Slow: ")
            pouring = [asyncio.create_task(pour(writer, path)) for _, writer in open_[50:60]]
            for _, writer in open_[60:160]:
                writer.write(f"GET {flooded} HTTP/1.1\r\nHost: flood\r\n\r\n".encode() * 20)
            for _ in range(5):
                reader, writer = await asyncio.open_connection(host, int(port))
                writer.write(b"GET /version HTTP/1.1\r\nHost: other\r\nConnection: close\r\n\r\n")
                answer = await asyncio.wait_for(reader.read(), 60)
                assert answer.startswith(b"HTTP/1.1 200"), answer[:100]
                writer.close()
            if name != "results":  # which takes files of any size that its limits allow
                ends = asyncio.gather(*(told_off(reader) for reader, _ in open_[50:60]))
                assert all(await asyncio.wait_for(ends, 30))
        finally:
            for task in pouring:
                task.cancel()
            await asyncio.gather(*pouring, return_exceptions=True)
            for _, writer in open_:
                writer.close()
    app = await world.app(await world.person(), ECHO)
    deal = await world.buy(requester, app.address)
    assert (await world.ended(requester, deal, timeout=180)).status is TaskStatus.COMPLETED


async def told_off(reader: asyncio.StreamReader) -> bool:
    """Whether it was refused, or cut off."""
    with contextlib.suppress(ConnectionError):
        return (await reader.readline())[9:10] in (b"", b"4")
    return True


async def pour(writer: asyncio.StreamWriter, path: str) -> None:
    """A body that has no end."""
    form = "multipart/form-data; boundary=b" if path.startswith("/api") else "application/json"
    head = f"POST {path} HTTP/1.1\r\nHost: big\r\nContent-Type: {form}\r\nTransfer-Encoding: chunked\r\n\r\n"
    first = b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n' if "form" in form else b'{"order":"'
    writer.write(head.encode() + f"{len(first):x}\r\n".encode() + first + b"\r\n")
    with contextlib.suppress(ConnectionError):
        while True:
            writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            await writer.drain()
