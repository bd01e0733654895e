"""A scheduler on the real contracts, and workers that speak to it over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sealdeal.chain import Hub
from sealdeal.model.deals import Deal, TaskStatus, enclave_message
from sealdeal.model.keys import Key
from sealdeal.model.types import Address, keccak
from sealdeal.pool.app import create_app
from sealdeal.pool.rules import PoolSettings, Rules
from sealdeal.pool.scheduler import Scheduler
from sealdeal.sdk.http import in_memory
from sealdeal.sdk.pool import PoolClient, Work, WorkerState
from tests.network import Network

SECRET = bytes(32)


@dataclass
class Pool:
    """A scheduler that runs, and where to speak to it."""

    network: Network
    scheduler: Scheduler
    app: Any
    assets: tuple[Address, Address, Address]

    def client(self, role: str | None = None) -> PoolClient:
        key = self.network.key(role) if role else None
        return PoolClient("http://scheduler", key=key, transport=in_memory(self.app))

    async def deal(self, **options: Any) -> Deal:
        return await self.network.deal(assets=self.assets, **options)

    async def work(self, role: str = "worker", **state: Any) -> Work:
        """Poll until there is work."""
        async with self.client(role) as client, asyncio.timeout(60):
            while (work := await client.poll(WorkerState(**state), wait=10)) is None:
                pass
            return work

    async def finish(self, work: Work, role: str = "worker") -> None:
        """What an honest worker puts on chain."""
        network, worker, enclave = self.network, self.network.address(role), self.network.key("enclave")
        results, digest = b"result", keccak(b"result")
        authorisation = network.authorisation(worker, work.task, enclave.address)
        signature = enclave.sign_message(enclave_message(worker, work.task, digest))
        await network.as_(role).contribute_and_finalize(
            work.task, digest, results, b"", enclave.address, signature, authorisation
        )

    async def status(self, task: bytes, wanted: TaskStatus) -> None:
        await until(lambda: self._is(task, wanted))

    async def _is(self, task: bytes, wanted: TaskStatus) -> bool:
        return (await self.network.hub.task(task)).status == wanted


async def until(happens: Callable[[], Awaitable[object]], seconds: float = 60.0) -> None:
    """Wait until it does; fail after `seconds`."""
    async with asyncio.timeout(seconds):
        while not await happens():
            await asyncio.sleep(0.05)


Started = Callable[..., Any]


@pytest.fixture
async def start(network: Network, tmp_path: Path) -> Started:
    """`async with start(**settings) as pool:` the same database and workerpool each time."""
    assets = await network.assets("pool")

    @asynccontextmanager
    async def started(
        rules: Rules | None = None,
        waiting: Any = None,
        database: str = "pool.db",
        transports: Any = None,
        roles: tuple[str, ...] = ("node_0", "node_1"),
        hub: Hub | None = None,
        **options: Any,
    ) -> AsyncIterator[Pool]:
        nodes = tuple((network.address(node), f"http://{node}") for node in roles)
        settings = PoolSettings(
            assets[2],
            nodes=nodes,
            results_url="http://results",
            public_url="http://scheduler",
            rules=rules or Rules(),
            **options,
        )
        key: Key = network.key("pool_owner")
        url = f"sqlite+aiosqlite:///{tmp_path}/{database}"
        hub = hub or network.as_("pool_owner")
        scheduler = await Scheduler.open(url, hub, key, settings, waiting=waiting, transports=transports)
        running = asyncio.create_task(scheduler.run())
        try:
            yield Pool(network, scheduler, create_app(scheduler, SECRET), assets)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await scheduler.close()

    return started


@pytest.fixture
async def pool(start: Started) -> AsyncIterator[Pool]:
    """A scheduler with its usual settings."""
    async with start() as running:
        yield running
