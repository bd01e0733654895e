"""Nothing outside the enclave ever holds the data, its key or the result: every file, database, log and HTTP
body of every party is searched during a deal. Each place also gets a real leak, which must be found."""

from __future__ import annotations

import base64
import contextlib
import gzip
import logging
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sealdeal.model import sealing
from sealdeal.model.deals import TaskStatus
from sealdeal.model.errors import SealdealError
from sealdeal.model.keys import Rng
from sealdeal.sdk.pool import Attempt, PoolClient, Report

from .conftest import QUICK, World, local_network
from .leaks import places_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

APP = """
import json, os
out = os.environ["IEXEC_OUT"]
data = open(os.path.join(os.environ["IEXEC_IN"], os.environ["IEXEC_DATASET_FILENAME"]), "rb").read()
print("the app saw", data)
secret = data.decode().split()[1]
with open(os.path.join(out, "result.txt"), "w") as file:
    file.write("result:" + secret[::-1])
with open(os.path.join(out, "computed.json"), "w") as file:
    json.dump({"deterministic-output-path": os.path.join(out, "result.txt")}, file)
"""


class Wire:
    """Writes every body that a service is sent or answers with into one file for each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def __call__(self, name: str, app: ASGIApp) -> ASGIApp:
        log = (self.folder / name).open("ab", buffering=0)

        async def watched(scope: Scope, receive: Receive, send: Send) -> None:
            async def heard() -> Message:
                message = await receive()
                log.write(message.get("body", b""))
                return message

            async def said(message: Message) -> None:
                log.write(message.get("body", b""))
                await send(message)

            if scope["type"] == "http":
                log.write(b"\n" + scope["raw_path"] + b"?" + scope["query_string"] + b"\n")
                log.write(b"\n".join(value for _, value in scope["headers"]) + b"\n")
            await app(scope, heard, said)

        return watched


class Watched:
    """A network of which every trace is kept, and can be searched."""

    def __init__(self, world: World, folder: Path, markers: list[bytes]) -> None:
        self.world, self.folder, self.markers = world, folder, markers

    def leaks(self) -> set[str]:
        return places_of(self.folder, self.markers)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def watched(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> AsyncIterator[Watched]:
    folder = tmp_path_factory.mktemp("watched")
    logger, handler = logging.getLogger(), logging.FileHandler(folder / "log")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        async with local_network(folder / "state", cache, tap=Wire(folder / "wire")) as network:
            world = World(network, folder.parent / f"{folder.name}-apps", cache)
            async with world.stack:
                yield Watched(world, folder, [])
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


async def test_no_party_but_the_enclave_sees_data_key_or_result(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = watched.world
    provider, owner, requester = await world.person(), await world.person(), await world.requester()
    app = await world.app(provider, APP)
    marker = secrets.token_hex(24)
    keys: list[str] = []
    make = sealing.dataset_key

    def remembered(rng: Rng) -> str:
        keys.append(make(rng))
        return keys[-1]

    monkeypatch.setattr(sealing, "dataset_key", remembered)
    data = await world.data(owner, f"patient {marker}".encode(), app.address)
    deal = await world.buy(requester, app.address, dataset=data.address)
    task = await world.ended(requester, deal)
    assert task.status is TaskStatus.COMPLETED
    files = (await world.result(requester, task.taskid)).files
    assert files["result.txt"].decode() == "result:" + marker[::-1]
    (key,) = keys
    watched.markers += [marker.encode(), marker[::-1].encode(), key.encode(), base64.b64decode(key)]
    await world.network.anvil.save()
    assert watched.leaks() == set()


@pytest.mark.parametrize(
    "end", ["raise RuntimeError(data)", "while True: pass"], ids=["crashes", "loops for ever"]
)
async def test_an_app_that_fails_while_it_shouts_the_data_leaks_nothing(watched: Watched, end: str) -> None:
    world = watched.world
    provider, owner, requester = await world.person(), await world.person(), await world.requester()
    app = await world.app(provider, APP.split("secret = ")[0] + f"print(data, flush=True)\n{end}\n")
    marker = secrets.token_hex(24)
    data = await world.data(owner, f"patient {marker}".encode(), app.address)
    deal = await world.buy(requester, app.address, dataset=data.address, category=QUICK)
    ended = world.ended if "raise" in end else world.given_up
    task = await ended(requester, deal)
    assert task.status is (TaskStatus.COMPLETED if "raise" in end else TaskStatus.FAILED)
    await world.attempts(requester, task.taskid)
    watched.markers[:] = [marker.encode()]
    await world.network.anvil.save()
    assert watched.leaks() == set()


@pytest.mark.parametrize(
    "place", ["worker's disk", "scheduler", "market", "result store", "sms node", "chain", "log"]
)
async def test_a_leak_is_found(watched: Watched, place: str) -> None:
    """The control: the same search finds a marker that really went through each place."""
    world = watched.world
    leaked = secrets.token_hex(24)
    watched.markers[:] = [leaked.encode()]
    assert watched.leaks() == set()
    user = await world.requester()
    if place == "worker's disk":
        cached = world.network.state / "worker-1" / "leak"
        cached.parent.mkdir(exist_ok=True)
        cached.write_bytes(gzip.compress(leaked.encode()))
        expected = "state/worker-1/leak"
    elif place == "scheduler":
        provider = await world.person()
        deal = await world.buy(user, (await world.app(provider, "import time; time.sleep(60)")).address)
        worker = world.network.worker_keys()[0]
        url = world.network.network.services.scheduler or ""
        async with PoolClient(url, key=worker) as pool:
            with contextlib.suppress(SealdealError):  # it may be another's attempt: the body was sent
                await pool.report(deal.task_ids()[0], 1, Report(status=Attempt.COMPUTING, message=leaked))
        expected = "wire/scheduler"
    elif place == "market":
        with contextlib.suppress(SealdealError):
            await user.market.request(
                "GET", f"/deals/{leaked}", params={"chainId": str(world.network.chain_id)}
            )
        expected = "wire/market"
    elif place == "result store":
        await user.results.add(leaked.encode())
        expected = "state/blobs"
    elif place == "sms node":
        await user.nodes[0].push_named_secret(user.key, "leak", leaked)
        expected = "wire/sms-0"
    elif place == "chain":
        await user.hub.create_dataset(leaked, b"nowhere", bytes(32))
        await world.network.anvil.save()
        expected = "state/chain.json.gz"
    else:
        logging.getLogger("sealdeal.worker").info(
            "the data are %s", base64.b64encode(leaked.encode()).decode()
        )
        expected = "log"
    assert any(found.startswith(expected) for found in watched.leaks()), watched.leaks()
