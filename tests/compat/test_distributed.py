"""The SDK's whole deal on a network whose services are processes of their own: a test for each step."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from sealdeal.node import LocalNetwork
from tests.system.conftest import distributed

from .conftest import Outcomes
from .world import node

pytestmark = pytest.mark.asyncio(loop_scope="module")

JOURNEYS = ("deal",)
APART = (("results", "market"), ("sms-0",), ("sms-1", "sms-2"), ("scheduler",), ("worker-0", "worker-1"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def network(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalNetwork]:
    if node() is None:
        pytest.skip("the official JavaScript tools are not here: ./dev setup fetches them")
    folder = tmp_path_factory.mktemp("apart")
    async with distributed(folder, folder / "cache", ["chain"], *APART) as (made, _):
        yield made.network


async def test_step(outcomes: Outcomes, journey: str, check: str) -> None:
    went = (await outcomes(journey)).checks[check]
    assert went.ok, went.error
