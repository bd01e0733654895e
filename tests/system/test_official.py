"""The way out: our SDK, market, scheduler and workers on the official contracts, unmodified.

Their hub has no TEE broker. There it takes the word of the workerpool's owner for an enclave, and our
scheduler gives it only for what enough SMS nodes granted.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from sealdeal.model.deals import TaskStatus
from sealdeal.model.orders import Params
from sealdeal.model.types import RLC, ZERO
from sealdeal.sdk.images import build_app_image
from tests.compat.world import APP, PURSES, document, names, node, place, purses, push_app, run

from .conftest import ECHO, POOL_PRICE, QUICK, World, local_network, told
from .official import OfficialNetwork
from .test_standard import bought

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("official")
    async with local_network(folder / "state", cache, kind=OfficialNetwork) as network:
        made = World(network, folder, cache)
        async with made.stack:
            yield made


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
