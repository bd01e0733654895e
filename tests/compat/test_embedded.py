"""The official JavaScript SDK, command line and DataProtector, unmodified, on an embedded network: a test for
each step of their journeys, which run at once, those of the commands in turn. And whether the journeys leave
anything out that the tools offer."""

from __future__ import annotations

import re

import httpx2
import pytest
import pytest_asyncio

from sealdeal.node import LocalNetwork

from .conftest import Outcomes
from .world import JOURNEYS as SOURCES
from .world import ROOT, browser, node, place, surface

pytestmark = pytest.mark.asyncio(loop_scope="module")

SDK = ("deal", "deals", "wallet", "assets", "secrets", "orders", "claim", "protector")
NO_BROWSER = "chromium-headless-shell is missing: ./dev test installs it as root on Debian"
PAGE = ("page", pytest.mark.skipif(browser() is None, reason=NO_BROWSER))
JOURNEYS = (*SDK, PAGE, "cli", "cli_more")


async def test_step(outcomes: Outcomes, journey: str, check: str) -> None:
    went = (await outcomes(journey)).checks[check]
    assert went.ok, went.error


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def offered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What the tools that are installed have for their users."""
    if node() is None:
        pytest.skip("the official JavaScript tools are not here: ./dev setup fetches them")
    return await surface(place(tmp_path_factory.mktemp("surface")))


async def test_every_method_is_called(outcomes: Outcomes, offered: dict[str, list[str]]) -> None:
    """Of the SDK, its utilities and DataProtector; docs/compatibility.md names what cannot be."""
    called = frozenset[str]().union(*[(await outcomes(journey)).called for journey in SDK])
    assert len(offered["methods"]) > 100
    assert _unexplained(set(offered["methods"]) - called) == []


async def test_pages_of_any_origin_may_ask_every_service(network: LocalNetwork) -> None:
    """As a browser asks before it sends what a form could not."""
    at = network.network.services
    wanted = {
        "Origin": "https://anywhere.example",
        "Access-Control-Request-Method": "PUT",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    doors = [
        network.network.rpc_url,
        at.market,
        at.scheduler,
        at.compass,
        at.ipfs_node,
        at.ipfs_gateway,
        *at.sms,
    ]
    async with httpx2.AsyncClient(trust_env=False) as http:
        for door in doors:
            before = await http.options(f"{door}/", headers=wanted)
            assert before.status_code == 200, door
            allowed = before.headers["access-control-allow-headers"].lower()
            assert before.headers["access-control-allow-origin"] == "*", door
            assert "PUT" in before.headers["access-control-allow-methods"], door
            assert "authorization" in allowed and "content-type" in allowed, door


async def test_every_command_is_given(offered: dict[str, list[str]]) -> None:
    source = "".join((SOURCES / f"{journey}.mjs").read_text() for journey in ("cli", "cli_more"))
    given = set(re.findall(r"\.run\(\s*'([^']+)'", source))
    assert len(offered["commands"]) > 60
    assert _unexplained(set(offered["commands"]) - given) == []


def _unexplained(left_out: set[str]) -> list[str]:
    said = (ROOT / "docs" / "compatibility.md").read_text()
    return sorted(name for name in left_out if f"`{name}`" not in said)
