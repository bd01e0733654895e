"""Parts that go away in the middle of a task: the network goes on when they return."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
from pathlib import Path

import pytest

from sealdeal.model.deals import TaskStatus
from sealdeal.model.errors import NotFound
from sealdeal.model.types import RLC

from .conftest import ECHO, World, distributed, local_network, told
from .leaks import places_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

HERE = {"chain", "results", "market", "sms-0", "sms-1", "sms-2"}
SLOW = "import time\ntime.sleep(4)\n" + ECHO


async def until(world: World, taskid: bytes, status: str) -> None:
    """Wait until an attempt at the task has reached a status."""
    reader = await world.person(0)
    assert reader.scheduler is not None
    for _ in range(1200):
        with contextlib.suppress(NotFound):
            events = (await reader.scheduler.events(taskid, wait=0)).events
            if any(event.kind == "attempt" and event.status == status for event in events):
                return
        await asyncio.sleep(0.05)
    raise AssertionError(f"no attempt has reached {status}")


@pytest.mark.parametrize("victim", ["scheduler", "worker"])
async def test_a_part_killed_in_the_middle_of_a_task_goes_on_where_it_was(
    tmp_path: Path, cache: Path, victim: str
) -> None:
    async with distributed(tmp_path, cache, HERE, ("scheduler",), ("worker-0",)) as (world, processes):
        provider, owner, requester = await world.person(), await world.person(), await world.requester()
        app = await world.app(provider, SLOW)
        marker = secrets.token_hex(24).encode()
        data = await world.data(owner, marker, app.address)
        deal = await world.buy(requester, app.address, dataset=data.address)
        await until(world, deal.task_ids()[0], "COMPUTING")
        killed = processes[0 if victim == "scheduler" else 1]
        await killed.kill()
        await asyncio.sleep(1)
        await killed.start()
        task = await world.ended(requester, deal, timeout=120)
        assert task.status is TaskStatus.COMPLETED
        assert len(task.contributors) == 1
        assert told(await world.result(requester, task.taskid))["bytes"] == len(marker)
        assert (await requester.balance()).total == 100 * RLC - deal.price
        assert places_of(tmp_path, [marker]) == set()


@pytest.mark.soak
async def test_the_chain_may_go_away_for_30_seconds(world: World) -> None:
    provider, requester = await world.person(), await world.requester()
    app = await world.app(provider, SLOW)
    deal = await world.buy(requester, app.address)
    await until(world, deal.task_ids()[0], "COMPUTING")
    pid = world.network.anvil.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(30)
    finally:
        os.kill(pid, signal.SIGCONT)
    task = await world.ended(requester, deal, timeout=120)
    assert task.status is TaskStatus.COMPLETED


async def test_a_stopped_network_continues_where_it_was(tmp_path: Path, cache: Path) -> None:
    state = tmp_path / "state"
    async with local_network(state, cache) as network:
        world = World(network, tmp_path, cache)
        async with world.stack:
            provider, requester = await world.person(), await world.requester()
            app = await world.app(provider, ECHO)
            first = await world.buy(requester, app.address)
            done = await world.ended(requester, first)
            before, where = await requester.balance(), network.network
    async with local_network(state, cache) as network:
        assert network.network == where
        again = World(network, tmp_path, cache)
        async with again.stack:
            back = await again.stack.enter_async_context(type(requester)(where, requester.key))
            again.result_keys = world.result_keys
            assert await back.balance() == before
            assert told(await again.result(back, done.taskid))["index"] == 0
            second = await again.buy(back, app.address)
            assert (await again.ended(back, second)).status is TaskStatus.COMPLETED
