"""One embedded network for the journeys of a module, and each journey run once, by Node."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from sealdeal.node import LocalNetwork
from sealdeal.sdk.images import build_app_image
from sealdeal.worker.cgroups import Bounds

from .world import APP, PURSES, Check, Run, document, names, node, place, purses, push_app, run

CHAIN_ID = 421_614
"""DataProtector knows its networks by their ids (wire.md §0.10); the SDK takes any."""
IDLE = ("idle", "1 second, for claims", 1)
"""A category that is added, and that nobody offers: all ends 10 s after a match."""

AFTER = {"cli_more": "cli"}
"""Journeys that wait for the end of another: a command is a process that works, and seldom waits."""

Outcomes = Callable[[str], Awaitable[Run]]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test for each check that a module's journeys name. A journey is a name, or (name, a mark)."""
    if {"journey", "check"} <= set(metafunc.fixturenames):
        found = []
        for one in metafunc.module.JOURNEYS:
            name, *marks = (one,) if isinstance(one, str) else one
            found += [pytest.param(name, check, id=f"{name}: {check}", marks=marks) for check in names(name)]
        metafunc.parametrize(("journey", "check"), found)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def network(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalNetwork]:
    if node() is None:
        pytest.skip("the official JavaScript tools are not here: ./dev setup fetches them")
    folder = tmp_path_factory.mktemp("compat")
    async with LocalNetwork(
        folder / "state",
        cache=folder / "cache",
        chain_id=CHAIN_ID,
        categories=(IDLE,),
        bounds=Bounds(memory=512 << 20, work=640 << 20),
    ) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def outcomes(
    request: pytest.FixtureRequest, network: LocalNetwork, tmp_path_factory: pytest.TempPathFactory
) -> Outcomes:
    """How a journey's checks went. All journeys that are asked for run at once, but those that are AFTER
    another: most of their time is waiting for blocks."""
    folder = tmp_path_factory.mktemp("journeys")
    app = await push_app(network.network, build_app_image(_app(folder), cache=network.cache))
    journeys = place(folder)
    running: dict[str, asyncio.Task[Run]] = {}
    funding = asyncio.Lock()

    async def begin(name: str) -> Run:
        if name in AFTER and AFTER[name] in running:
            await running[AFTER[name]]
        async with funding:  # one faucet, one sequence of nonces
            keys = await purses(network.network, PURSES, network.transports)
        went = await run(journeys, name, document(network.network, keys, app))
        if missing := set(names(name)) - set(went.checks):
            lines = went.said.strip().splitlines()[-20:]
            end = Check(False, 0.0, "the journey ended before this check:\n" + "\n".join(lines))
            went.checks.update(dict.fromkeys(missing, end))
        return went

    def started(name: str) -> asyncio.Task[Run]:
        if name not in running:
            running[name] = asyncio.create_task(begin(name))
        return running[name]

    for item in request.session.items:
        chosen = getattr(item, "callspec", None)  # as pytest_generate_tests made it
        if item.path == request.path and chosen and "journey" in chosen.params:
            started(chosen.params["journey"])

    async def outcome(name: str) -> Run:
        return await started(name)

    return outcome


def _app(folder: Path) -> Path:
    made = folder / f"app-{secrets.token_hex(4)}"
    made.mkdir()
    (made / "sealdeal.toml").write_text('name = "echo"\nentrypoint = ["python3", "main.py"]\n')
    (made / "main.py").write_text(APP)
    return made
