"""Each example is run as a user would, against one network of this machine."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from sealdeal.market.options import MarketOptions
from sealdeal.model.errors import InvalidInput, NotFound
from sealdeal.sdk import client, sync
from sealdeal.sdk.network import Network

from .conftest import local_network

JOURNEYS = Path(__file__).parents[2] / "examples" / "journeys"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def network(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> AsyncIterator[Path]:
    """A running network's file."""
    state = tmp_path_factory.mktemp("examples") / "state"
    async with local_network(state, cache, market=MarketOptions(private_webhooks=True)):
        yield state / "network.json"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(network: Path) -> dict[str, asyncio.Task[tuple[int | None, str]]]:
    """All examples at once: (exit code, output) of each."""
    room = asyncio.Semaphore(2)

    async def run(script: Path) -> tuple[int | None, str]:
        async with room:
            child = await asyncio.create_subprocess_exec(
                *(sys.executable, str(script), str(network)),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            try:
                out, _ = await asyncio.wait_for(child.communicate(), 120)
            finally:
                if child.returncode is None:
                    child.kill()
                    await child.wait()
            return child.returncode, out.decode()

    return {script.name: asyncio.create_task(run(script)) for script in sorted(JOURNEYS.glob("*.py"))}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", sorted(script.name for script in JOURNEYS.glob("*.py")))
async def test_it_runs(running: dict[str, asyncio.Task[tuple[int | None, str]]], name: str) -> None:
    code, output = await running[name]
    assert code == 0, output
    assert output.strip(), "it says what it did"


def test_each_is_in_the_table() -> None:
    told = (JOURNEYS / "README.md").read_text()
    assert [s.name for s in JOURNEYS.glob("*.py") if f"| `{s.name}` |" not in told] == []


@pytest.mark.asyncio(loop_scope="module")
async def test_the_client_without_await_has_all_that_the_other_has(network: Path) -> None:
    """The same names, parameters and docstrings; the same errors, out of its own thread."""
    for name, method in inspect.getmembers(client.Sealdeal, inspect.isfunction):
        if name.startswith("_"):
            continue
        found = getattr(sync.Sealdeal, name)
        assert found.__doc__ or name == "close"
        if inspect.iscoroutinefunction(method) and name != "close":
            assert inspect.signature(found) == inspect.signature(method), name

    def use() -> None:
        with sync.Sealdeal(Network.load(network)) as reader:
            assert len(reader.do(reader.hub.categories())) >= 5
            with pytest.raises(NotFound, match="no deal"):
                reader.do(reader.hub.deal(bytes(32)))
            with pytest.raises(InvalidInput, match="wallet"):
                reader.deposit(1)

            async def nested() -> None:
                reader.do(reader.hub.categories())

            with pytest.raises(InvalidInput, match="wait for itself"):
                reader.do(nested())
        reader.close()

    await asyncio.to_thread(use)
