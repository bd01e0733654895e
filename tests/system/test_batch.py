"""Bags that ask for it are settled in batches: many tasks, one transaction."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path

import pytest

from sealdeal.model.cid import path_in
from sealdeal.model.deals import Deal, TaskStatus
from sealdeal.model.errors import NotFound, Unavailable
from sealdeal.model.orders import BATCH, Params, tag_bits
from sealdeal.model.receipts import Receipt
from sealdeal.model.results import result_location
from sealdeal.model.types import RLC, hexstr
from sealdeal.sdk.client import Sealdeal
from sealdeal.sdk.pool import Attempt

from .conftest import ECHO, POOL_PRICE, World, distributed, told

pytestmark = pytest.mark.asyncio(loop_scope="module")

FAULTY = (
    ECHO
    + """
if os.environ["IEXEC_TASK_INDEX"] == "1":
    sys.exit(3)
"""
)


async def bag(world: World, requester: Sealdeal, app: str, volume: int, category: int = 0) -> Deal:
    request = await requester.request(
        app,  # type: ignore[arg-type]
        volume=volume,
        category=category,
        params=Params(result_encryption=True),
        batch=True,
    )
    return await requester.deal_of(request)


async def settlements(client: Sealdeal, deal: Deal) -> list[str]:
    """Hashes of the transactions that completed the deal's tasks, one for each task."""
    return [hexstr((await client.hub.settlement(taskid)).tx_hash) for taskid in deal.task_ids()]


async def test_a_bag_is_settled_in_one_transaction(world: World) -> None:
    provider, requester = await world.person(), await world.requester()
    app = await world.app(provider, ECHO, price=2 * RLC)
    operator = world.network.network.accounts["workerpool_owner"]["address"]
    workers = [key.address for key in world.network.worker_keys()]
    everyone = [provider.key.address, requester.key.address, operator, *workers]
    before = [(await requester.balance(who)).total for who in everyone]  # type: ignore[arg-type]

    deal = await bag(world, requester, app.address, 5)
    assert tag_bits(deal.tag) & BATCH and deal.batched
    tasks = await asyncio.gather(*(world.ended(requester, deal, i) for i in range(5)))
    assert [task.status for task in tasks] == [TaskStatus.COMPLETED] * 5
    assert len(set(await settlements(requester, deal))) == 1
    assert len({path_in(result_location(task.results))[0] for task in tasks}) == 1
    assert [path_in(result_location(task.results))[1] for task in tasks] == ["0", "1", "2", "3", "4"]

    results = [await world.result(requester, task.taskid) for task in tasks]
    assert [told(found)["index"] for found in results] == [0, 1, 2, 3, 4]
    for found in results:
        assert found.receipt is not None
        await requester.verify(Receipt.from_json(json.loads(json.dumps(found.receipt.to_json()))))

    after = [(await requester.balance(who)).total for who in everyone]  # type: ignore[arg-type]
    changes = [b - a for a, b in zip(before, after, strict=True)]
    assert changes[:3] == [5 * 2 * RLC, -5 * (2 * RLC + POOL_PRICE), 5 * POOL_PRICE // 100]
    assert sum(changes[3:]) == 5 * (POOL_PRICE - POOL_PRICE // 100)
    assert sum(changes) == 0
    for task in tasks:
        assert await world.attempts(requester, task.taskid) == [("COMPLETED", "")]


async def test_a_failure_of_the_app_is_settled_with_the_others(world: World) -> None:
    provider, requester = await world.person(), await world.requester()
    app = await world.app(provider, FAULTY)
    deal = await bag(world, requester, app.address, 3)
    tasks = await asyncio.gather(*(world.ended(requester, deal, i) for i in range(3)))
    assert [task.status for task in tasks] == [TaskStatus.COMPLETED] * 3
    assert len(set(await settlements(requester, deal))) == 1
    files = (await world.result(requester, tasks[1].taskid)).files
    assert b"APP_COMPUTE_FAILED" in files["error.txt"]
    assert told(await world.result(requester, tasks[2].taskid))["index"] == 2


async def test_a_task_that_somebody_began_is_settled_with_the_others(world: World) -> None:
    provider, requester = await world.person(), await world.requester()
    app = await world.app(provider, ECHO)
    deal = await bag(world, requester, app.address, 3)
    await requester.hub.initialize(deal.dealid, 1)
    tasks = await asyncio.gather(*(world.ended(requester, deal, i) for i in range(3)))
    assert [task.status for task in tasks] == [TaskStatus.COMPLETED] * 3
    assert len(set(await settlements(requester, deal))) == 1
    assert told(await world.result(requester, tasks[1].taskid))["index"] == 1


async def test_a_bag_that_does_not_ask_is_settled_task_by_task(world: World) -> None:
    provider, requester = await world.person(), await world.requester()
    app = await world.app(provider, ECHO)
    deal = await world.buy(requester, app.address, volume=2)
    for index in range(2):
        assert (await world.ended(requester, deal, index)).status is TaskStatus.COMPLETED
    assert len(set(await settlements(requester, deal))) == 2


SLOW = "import time\ntime.sleep(2)\n" + ECHO


@pytest.mark.soak
async def test_a_lost_worker_and_a_killed_scheduler_cost_nothing_but_time(
    tmp_path: Path, cache: Path
) -> None:
    here = ("chain", "results", "sms-0", "sms-1", "sms-2", "market", "worker-0")
    async with distributed(tmp_path, cache, here, ("scheduler",), ("worker-1",)) as (world, processes):
        scheduler, worker = processes
        provider, requester = await world.person(), await world.requester()
        app = await world.app(provider, SLOW, price=RLC)
        deal = await bag(world, requester, app.address, 4)
        lost = world.network.worker_keys()[1].address
        assert requester.scheduler is not None
        theirs: list[bytes] = []
        while not theirs:
            for taskid in deal.task_ids():
                with contextlib.suppress(NotFound, Unavailable):
                    found = await requester.scheduler.replicate(taskid, lost)
                    if found["currentStatus"] == Attempt.COMPUTING:
                        theirs.append(taskid)
            await asyncio.sleep(0.05)
        await worker.kill()
        steps: set[str] = set()
        while not {"handed in", "WORKER_LOST"} <= steps:
            for taskid in deal.task_ids():
                events = (await requester.scheduler.events(taskid, wait=0)).events
                steps |= {word for event in events for word in (event.step, event.status)}
            await asyncio.sleep(0.05)
        await scheduler.kill()
        await scheduler.start()
        tasks = await asyncio.gather(*(world.ended(requester, deal, i, timeout=120) for i in range(4)))
        assert [task.status for task in tasks] == [TaskStatus.COMPLETED] * 4
        assert len(set(await settlements(requester, deal))) == 1
        assert "WORKER_LOST" in {cause for _, cause in await world.attempts(requester, theirs[0])}
        assert [told(await world.result(requester, t.taskid))["index"] for t in tasks] == [0, 1, 2, 3]
        assert (await requester.balance()).total == 100 * RLC - 4 * (RLC + POOL_PRICE)
