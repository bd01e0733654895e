"""The official JavaScript SDK, command line and DataProtector, unmodified, on an embedded network: a test for
each step of their journeys, which all run at once. And whether the journeys leave anything out that the tools
offer."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .conftest import Outcomes
from .world import JOURNEYS as SOURCES
from .world import ROOT, browser, node, place, surface

pytestmark = pytest.mark.asyncio(loop_scope="module")

SDK = ("deal", "deals", "wallet", "assets", "secrets", "orders", "claim", "protector")
NO_BROWSER = "chromium-headless-shell is missing: ./dev test installs it as root on Debian"
PAGE = ("page", pytest.mark.skipif(browser() is None, reason=NO_BROWSER))
JOURNEYS = (*SDK, PAGE, "cli", ("cli_more", pytest.mark.soak))


async def test_step(outcomes: Outcomes, journey: str, check: str) -> None:
    went = (await outcomes(journey)).checks[check]
    assert went.ok, went.error


async def test_every_method_is_called(outcomes: Outcomes, tmp_path: Path) -> None:
    """Of the SDK, its utilities and DataProtector; docs/compatibility.md names what cannot be."""
    called = frozenset[str]().union(*[(await outcomes(journey)).called for journey in SDK])
    offered = (await surface(place(tmp_path)))["methods"]
    assert len(offered) > 100
    assert _unexplained(set(offered) - called) == []


@pytest.mark.skipif(
    node() is None, reason="the official JavaScript tools are not here: ./dev setup fetches them"
)
async def test_every_command_is_given(tmp_path: Path) -> None:
    source = "".join((SOURCES / f"{journey}.mjs").read_text() for journey in ("cli", "cli_more"))
    given = set(re.findall(r"\.run\(\s*'([^']+)'", source))
    offered = (await surface(place(tmp_path)))["commands"]
    assert len(offered) > 60
    assert _unexplained(set(offered) - given) == []


def _unexplained(left_out: set[str]) -> list[str]:
    said = (ROOT / "docs" / "compatibility.md").read_text()
    return sorted(name for name in left_out if f"`{name}`" not in said)
