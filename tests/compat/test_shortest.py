"""Our SDK and the official one do the same on one network, ours in fewer lines.

examples/journeys/README.md has the figures. Counting takes no time; that all those lines do what they say is
left to the soak, because each part of them is run elsewhere.
"""

from __future__ import annotations

import ast
import asyncio
import re
from pathlib import Path

import pytest

from sealdeal.model.keys import Key
from sealdeal.model.types import RLC, unhex
from sealdeal.node import LocalNetwork
from sealdeal.sdk.images import build_app_image
from sealdeal.sdk.sync import Sealdeal

from . import shortest
from .conftest import Outcomes
from .world import APP, ROOT, purses
from .world import JOURNEYS as SOURCES

pytestmark = pytest.mark.asyncio(loop_scope="module")

JOURNEYS = (("shortest", pytest.mark.soak),)
NAMES = ("money", "offer", "secrets", "protect", "run", "bulk")
WIDTH = 115
"""Characters that a line of theirs may have: some more than ours."""


async def test_step(outcomes: Outcomes, journey: str, check: str) -> None:
    went = (await outcomes(journey)).checks[check]
    assert went.ok, went.error


@pytest.mark.soak
async def test_the_same_with_our_sdk(network: LocalNetwork, tmp_path: Path) -> None:
    told = network.network
    keys = [Key(unhex(key)) for key in await purses(told, 3)]
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "sealdeal.toml").write_text('name = "echo"\nentrypoint = ["python3", "main.py"]\n')
    (folder / "main.py").write_text(APP)
    image = build_app_image(folder, cache=network.cache)

    def all_of_it() -> None:
        with Sealdeal(told, keys[0]) as developer, Sealdeal(told, keys[1]) as owner:
            assert shortest.money(developer, keys[2].address) == 2 * RLC
            app = shortest.offer(developer, image)
            shortest.secrets(developer, app)
            data = [shortest.protect(owner, plain, app) for plain in (b"one", b"two")]
        with Sealdeal(told, keys[2]) as requester:
            requester.deposit(50 * RLC)
            assert shortest.run(requester, app, data[0]) == "one"
            assert shortest.bulk(requester, app, data) == ["one", "two"]

    await asyncio.to_thread(all_of_it)


def ours() -> dict[str, int]:
    """Lines of each function's body, as the house formats them."""
    tree = ast.parse(Path(shortest.__file__).read_text())
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    return {f.name: (f.end_lineno or 0) - f.body[0].lineno + 1 for f in functions}


def theirs() -> dict[str, int]:
    """The same, but for lines of nothing but a closing bracket."""
    source = (SOURCES / "shortest.mjs").read_text()
    assert max(map(len, source.splitlines())) <= WIDTH
    bodies = re.findall(r"^async function (\w+)\([^\n]*\n(.*?)^\}$", source, re.MULTILINE | re.DOTALL)
    return {name: sum(line.strip() != "}" for line in body.splitlines()) for name, body in bodies}


async def test_ours_takes_fewer_lines_for_each_and_the_figures_are_told() -> None:
    here, there = ours(), theirs()
    assert tuple(here) == tuple(there) == NAMES
    assert all(here[name] < there[name] for name in NAMES)
    assert 2 * sum(here.values()) < sum(there.values())
    table = (ROOT / "examples" / "journeys" / "README.md").read_text()
    for name in NAMES:
        assert re.search(rf"\| `{name}` \|.*\| {here[name]} \| {there[name]} \|", table), (name, here, there)
