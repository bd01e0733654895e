"""Parts that go away in the middle of a task: the network goes on when they return."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from sealdeal.model.deals import TaskStatus
from sealdeal.model.errors import NotFound
from sealdeal.model.types import RLC

from .conftest import ECHO, World, local_network, told

pytestmark = pytest.mark.asyncio(loop_scope="module")

SLOW = "import time\ntime.sleep(4)\n" + ECHO
HERE = {"chain", "results", "market", "sms-0", "sms-1", "sms-2"}


class Process:
    """Some parts of a network in a process of their own, that a test may kill."""

    def __init__(self, state: Path, cache: Path, *parts: str) -> None:
        self.command = [sys.executable, "-m", "tests.system.part", str(state), str(cache), *parts]
        self.child: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self.child = await asyncio.create_subprocess_exec(
            *self.command, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2]
        )
        assert self.child.stdout is not None
        assert await asyncio.wait_for(self.child.stdout.readline(), 60) == b"ready\n"

    async def kill(self) -> None:
        """SIGKILL: no farewell."""
        assert self.child is not None
        if self.child.returncode is None:
            self.child.send_signal(signal.SIGKILL)
        await self.child.wait()


@asynccontextmanager
async def distributed(
    folder: Path, cache: Path, *groups: tuple[str, ...]
) -> AsyncIterator[tuple[World, list[Process]]]:
    """A network with each group of parts in a process of its own, and the rest here."""
    async with AsyncExitStack() as stack:
        network = await stack.enter_async_context(local_network(folder / "state", cache, parts=HERE))
        processes = [Process(folder / "state", cache, *group) for group in groups]
        for process in processes:
            await process.start()
            stack.push_async_callback(process.kill)
        world = World(network, folder, cache)
        await stack.enter_async_context(world.stack)
        yield world, processes


async def until(world: World, taskid: bytes, status: str) -> None:
    """Wait until an attempt at the task has reached a status."""
    reader = await world.person(0)
    assert reader.scheduler is not None
    for _ in range(600):
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
    async with distributed(tmp_path, cache, ("scheduler",), ("worker-0",)) as (world, processes):
        provider, requester = await world.person(), await world.requester()
        app = await world.app(provider, SLOW)
        deal = await world.buy(requester, app.address)
        await until(world, deal.task_ids()[0], "COMPUTING")
        killed = processes[0 if victim == "scheduler" else 1]
        await killed.kill()
        await asyncio.sleep(1)
        await killed.start()
        task = await world.ended(requester, deal, timeout=120)
        assert task.status is TaskStatus.COMPLETED
        assert len(task.contributors) == 1
        assert told(await world.result(requester, task.taskid))["index"] == 0
        assert (await requester.balance()).total == 100 * RLC - deal.price


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
