"""The way out: our SDK, market, scheduler and workers on the official contracts, unmodified.

Their hub has no TEE broker. There it takes the word of the workerpool's owner for an enclave, and our
scheduler gives it only for what enough SMS nodes granted. That `sealdeal units` sets up such a network is
tested in tests/cli/test_units.py; here its processes run.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio

from sealdeal.chain import Anvil, Hub
from sealdeal.cli import units
from sealdeal.model.deals import TaskStatus
from sealdeal.model.keys import Key
from sealdeal.model.orders import Params
from sealdeal.model.types import RLC, ZERO, hexstr
from sealdeal.sdk.client import Sealdeal
from sealdeal.sdk.guest_release import build_guest_release
from sealdeal.sdk.images import build_app_image
from tests.compat.world import APP, PURSES, document, names, node, place, purses, push_app, run

from .conftest import ECHO, POOL_PRICE, QUICK, World, local_network, told
from .official import OfficialNetwork, official_contracts
from .spread import Spread
from .test_distributed import offered
from .test_standard import bought

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("official")
    async with local_network(folder / "state", cache, kind=OfficialNetwork) as network:
        made = World(network, folder, cache)
        async with made.stack:
            yield made


def ports() -> dict[str, int]:
    """First port of each kind of service, as `units.PORTS`: free ones, three in a row."""
    found: dict[str, int] = {}
    while len(found) < len(units.PORTS):
        with ExitStack() as stack, suppress(OSError):
            first = stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
            for port in (first + 1, first + 2):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            if all(abs(first - other) > 2 for other in found.values()):
                found[list(units.PORTS)[len(found)]] = first
    return found


async def test_a_standard_deal_is_run_and_paid(world: World) -> None:
    provider, requester, deal = await bought(world, ECHO, Params(args="one"), price=2 * RLC)
    task = await world.ended(requester, deal)
    assert task.status is TaskStatus.COMPLETED
    assert told(await requester.result(task.taskid))["args"] == ["one"]
    assert (await provider.balance()).total == 102 * RLC
    assert (await requester.balance()).total == 100 * RLC - 2 * RLC - POOL_PRICE


async def test_a_deal_with_protected_data_is_run_in_an_enclave_that_the_pool_vouches_for(
    world: World,
) -> None:
    provider, owner, requester = await world.person(), await world.person(), await world.requester()
    assert await requester.hub.tee_broker() == ZERO
    app = await world.app(provider, ECHO, price=RLC)
    data = await world.data(owner, b"a row\n", app.address, price=2 * RLC)
    deal = await world.buy(requester, app.address, dataset=data.address)
    task = await world.ended(requester, deal)
    assert task.status is TaskStatus.COMPLETED and deal.tee
    result = await world.result(requester, task.taskid)
    assert told(result)["bytes"] == 6
    assert (await requester.hub.contribution(task.taskid, task.contributors[0])).enclave != ZERO
    assert result.receipt is not None, "what the nodes granted is proven, though the hub did not ask for it"
    assert (await provider.balance()).total == 101 * RLC
    assert (await owner.balance()).total == 102 * RLC
    assert (await requester.balance()).total == 100 * RLC - 3 * RLC - POOL_PRICE


@pytest.mark.soak
async def test_a_pool_of_separate_processes_serves_the_official_hub(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As docs/pool.md says: `sealdeal units --hub`, a deposit, and a `sealdeal run` for each service."""
    monkeypatch.setattr(units, "PORTS", ports())
    network = tmp_path / "network"
    async with Anvil(chain_id=65_535) as anvil, AsyncExitStack() as stack:
        funder = Key.generate(secrets.token_bytes)
        addresses = await official_contracts(anvil, funder)
        await units.write(network, rpc_url=anvil.url, hub=addresses.hub, worker=1)
        spread = Spread(network, cache, "", "127.0.0.1")
        there = spread.network
        assert await Hub(anvil.rpc, addresses).tee_broker() == ZERO and there.contracts.quorum
        for key, give in ((funder, True), (spread.key("pool"), False)):
            async with Sealdeal(there, key) as one:
                await (
                    one.send(spread.key("pool").address, 1_000 * RLC) if give else one.deposit(1_000 * RLC)
                )
        await asyncio.to_thread(build_guest_release, cache)
        stack.push_async_callback(spread.end)
        names = ["results", "sms-0", "sms-1", "sms-2", "market-0", "pool-0", "worker-0"]
        await asyncio.gather(*(spread.start(name) for name in names))

        accounts = {"funder": {"address": funder.address, "key": hexstr(funder.secret)}}
        seen: Any = SimpleNamespace(network=replace(there, accounts=accounts), transports={})
        world = World(seen, tmp_path, cache)
        await stack.enter_async_context(world.stack)
        await offered(world)
        provider, owner, requester = await world.person(), await world.person(), await world.requester()
        app = await world.app(provider, ECHO, price=RLC)
        data = await world.data(owner, b"a row\n", app.address, price=2 * RLC)
        deal = await world.buy(requester, app.address, dataset=data.address)
        task = await world.ended(requester, deal, timeout=180)
        assert task.status is TaskStatus.COMPLETED and deal.tee
        result = await world.result(requester, task.taskid)
        assert told(result)["bytes"] == 6 and result.receipt is not None
        assert (await owner.balance()).total == 102 * RLC


@pytest.mark.skipif(
    node() is None, reason="the official JavaScript tools are not here: ./dev setup fetches them"
)
async def test_a_deal_made_by_the_official_sdk_is_run(world: World, tmp_path: Path) -> None:
    """From an app and a dataset to a decrypted result, by the unmodified SDK on the unmodified contracts."""
    network = world.network
    image = build_app_image(world.image_folder(APP), cache=world.cache)
    app = await push_app(network.network, image)
    keys = await purses(network.network, PURSES, network.transports)
    went = await run(place(tmp_path), "deal", document(network.network, keys, app, QUICK))
    assert set(went.checks) == set(names("deal")), went.said[-2000:]
    assert {name: check.error for name, check in went.checks.items() if not check.ok} == {}
