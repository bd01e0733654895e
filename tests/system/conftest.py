"""Whole deals on whole networks. `world` is one embedded network shared by a module's tests."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from sealdeal.model.deals import Deal, Task
from sealdeal.model.errors import NotFound
from sealdeal.model.keys import Key
from sealdeal.model.orders import Params
from sealdeal.model.results import generate_result_key
from sealdeal.model.types import RLC, ZERO, Address, unhex
from sealdeal.node import LocalNetwork
from sealdeal.pool.offers import OFFERS, Offer
from sealdeal.sdk.assets import Published
from sealdeal.sdk.client import Sealdeal
from sealdeal.sdk.images import build_app_image
from sealdeal.sdk.pool import Attempt
from sealdeal.sdk.receiving import Result
from sealdeal.worker.cgroups import Bounds

QUICK = len(OFFERS)
"""Id of the category that test networks add: an app may run for 2 s, and all ends 20 s after a match."""
QUICK_CATEGORY = ("quick", "2 seconds, for tests", 2)
QUICK_OFFER = Offer(category=QUICK, price=RLC, volume=200)
POOL_PRICE = RLC


def local_network(
    state: Path, cache: Path, *, kind: type[LocalNetwork] = LocalNetwork, **options: Any
) -> LocalNetwork:
    """A test's network: with the quick category and an offer for it, and guests of half a GiB."""
    settings: dict[str, Any] = {
        "categories": (QUICK_CATEGORY,),
        "offers": (*OFFERS, QUICK_OFFER),
        "bounds": Bounds(memory=512 << 20, work=640 << 20),
    }
    return kind(state, cache=cache, **{**settings, **options})


class World:
    """A network and the people on it. Everyone is a fresh key, funded by the faucet."""

    def __init__(self, network: LocalNetwork, folder: Path, cache: Path) -> None:
        self.network, self.folder, self.cache = network, folder, cache
        self.stack = AsyncExitStack()
        self.result_keys: dict[Address, bytes] = {}

    async def person(self, amount: int = 100 * RLC, *, in_escrow: int = 0) -> Sealdeal:
        """A funded user; `in_escrow` of the amount is deposited."""
        there = self.network.network
        key = Key.generate(secrets.token_bytes)
        funder = Key(unhex(there.accounts["funder"]["key"]))
        async with Sealdeal(there, funder, transports=self.network.transports) as faucet:
            await faucet.faucet(key.address, amount)
        made = await self.stack.enter_async_context(Sealdeal(there, key, transports=self.network.transports))
        if in_escrow:
            await made.deposit(in_escrow)
        return made

    async def requester(self, amount: int = 100 * RLC) -> Sealdeal:
        """A user with money in escrow and a result key."""
        made = await self.person(amount, in_escrow=amount)
        private, text = generate_result_key(2048)
        await made.share_result_key(text)
        self.result_keys[made.key.address] = private
        return made

    def image_folder(self, source: str, name: str = "app") -> Path:
        folder = self.folder / f"{name}-{secrets.token_hex(4)}"
        folder.mkdir(parents=True)
        (folder / "sealdeal.toml").write_text(f'name = "{name}"\nentrypoint = ["python3", "main.py"]\n')
        (folder / "main.py").write_text(source)
        return folder

    async def app(self, provider: Sealdeal, source: str, price: int = 0) -> Published:
        return await provider.publish_app(
            build_app_image(self.image_folder(source), cache=self.cache), price=price
        )

    async def data(self, owner: Sealdeal, plain: bytes, app: Address, price: int = 0) -> Published:
        made = await owner.protect_dataset(plain, name="data")
        await owner.grant(made.address, app=app, price=price)
        return made

    async def buy(
        self,
        requester: Sealdeal,
        app: Address,
        *,
        dataset: Address = ZERO,
        category: int = 0,
        volume: int = 1,
        args: str = "",
    ) -> Deal:
        request = await requester.request(
            app,
            dataset=dataset,
            category=category,
            volume=volume,
            params=Params(args=args, result_encryption=True),
        )
        return await requester.deal_of(request)

    async def result(self, requester: Sealdeal, taskid: bytes) -> Result:
        return await requester.result(taskid, self.result_keys[requester.key.address])

    async def attempts(self, client: Sealdeal, taskid: bytes) -> list[tuple[str, str]]:
        """(status, cause) of each attempt, as the scheduler stores them, once all have ended."""
        assert client.scheduler is not None
        for _ in range(600):
            found = (await client.scheduler.task(taskid))["replicates"]
            if all(Attempt(one["currentStatus"]).ended for one in found):
                break
            await asyncio.sleep(0.05)  # the worker's report comes after its transaction
        last = [[update["cause"] for update in one["statusUpdateList"] if update["cause"]] for one in found]
        return [(one["currentStatus"], (causes or [""])[-1]) for one, causes in zip(found, last, strict=True)]

    async def ended(self, client: Sealdeal, deal: Deal, index: int = 0, timeout: float = 120) -> Task:
        return await client.wait(deal.task_ids()[index], timeout=timeout)

    async def given_up(self, client: Sealdeal, deal: Deal) -> Task:
        """The deal's task once it has failed. When each worker has tried it in vain, nothing more can happen
        until its time is over: the chain's clock jumps there."""
        assert client.scheduler is not None
        taskid, workers = deal.task_ids()[0], {key.address for key in self.network.worker_keys()}
        async with asyncio.timeout(90):
            while not (task := await client.hub.task(taskid)).ended:
                await asyncio.sleep(0.1)
                with contextlib.suppress(NotFound):  # the scheduler has not seen the deal yet
                    found = (await client.scheduler.task(taskid))["replicates"]
                    ended = [one for one in found if Attempt(one["currentStatus"]).ended]
                    if {one["walletAddress"] for one in ended} == workers:
                        break
        if not task.ended:
            await self.pass_time(task.final_deadline)
        return await self.ended(client, deal)

    async def pass_time(self, until: int) -> None:
        """Have the chain's clock say so, unless it is later there."""
        newest = await self.network.rpc.call("eth_getBlockByNumber", "latest", False)
        if int(newest["timestamp"], 16) < until:
            await self.network.rpc.call("evm_setNextBlockTimestamp", until)
            await self.network.rpc.call("anvil_mine", "0x2")  # services do not believe the newest block


ECHO = """
import json, os, sys
out = os.environ["IEXEC_OUT"]
path = os.path.join(os.environ["IEXEC_IN"], os.environ["IEXEC_DATASET_FILENAME"])
data = open(path, "rb").read() if os.path.isfile(path) else b""
with open(os.path.join(out, "result.json"), "w") as file:
    json.dump({"bytes": len(data), "args": sys.argv[1:], "index": int(os.environ["IEXEC_TASK_INDEX"])}, file)
with open(os.path.join(out, "computed.json"), "w") as file:
    json.dump({"deterministic-output-path": os.path.join(out, "result.json")}, file)
"""
"""An app that says how much data it was given."""


def told(result: Result) -> dict[str, object]:
    found: dict[str, object] = json.loads(result.files["result.json"])
    return found


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
        assert await asyncio.wait_for(self.child.stdout.readline(), 120) == b"ready\n"

    async def kill(self) -> None:
        """SIGKILL: no farewell."""
        assert self.child is not None
        if self.child.returncode is None:
            self.child.send_signal(signal.SIGKILL)
        await self.child.wait()


@asynccontextmanager
async def distributed(
    folder: Path, cache: Path, here: Collection[str], *groups: tuple[str, ...]
) -> AsyncIterator[tuple[World, list[Process]]]:
    """A network with some parts here, and each group of others in a process of its own."""
    async with AsyncExitStack() as stack:
        network = await stack.enter_async_context(local_network(folder / "state", cache, parts=here))
        processes = [Process(folder / "state", cache, *group) for group in groups]
        for process in processes:
            await process.start()
            stack.push_async_callback(process.kill)
        world = World(network, folder, cache)
        await stack.enter_async_context(world.stack)
        yield world, processes


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built images, shared by the tests of a session."""
    return tmp_path_factory.mktemp("cache")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("network")
    async with local_network(folder / "state", cache) as network:
        made = World(network, folder, cache)
        async with made.stack:
            yield made
