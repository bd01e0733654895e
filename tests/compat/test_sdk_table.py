"""docs/sdk.md says of each method of the official SDK what does the same in ours."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

from sealdeal.chain import Hub
from sealdeal.sdk.client import Sealdeal
from sealdeal.sdk.market import MarketClient
from sealdeal.sdk.pool import PoolClient
from sealdeal.sdk.secrets import Secrets
from sealdeal.sdk.sms import SmsClient

from .world import ROOT, node, place, surface

PARTS = {
    "hub": Hub,
    "market": MarketClient,
    "scheduler": PoolClient,
    "secrets": Secrets,
    "nodes": SmsClient,
}
GIVEN = {"network"}
"""What a client is made of, and no method."""
ROWS = re.findall(r"^\| (`\w+\.\w+`.*?) \| (.*) \|$", (ROOT / "docs" / "sdk.md").read_text(), re.MULTILINE)


def named(cells: list[str]) -> list[str]:
    return [name for cell in cells for name in re.findall(r"`([\w.]+\.\w+)`", cell)]


def exists(name: str) -> bool:
    first, *rest = name.split(".")
    if first == "deals":
        if len(rest) > 1:
            return hasattr(PARTS[rest[0]], rest[1])
        return rest[0] in GIVEN or hasattr(Sealdeal, rest[0])
    if first != "sealdeal":
        return True  # of the network's file
    for end in range(len(rest), 0, -1):
        try:
            found: Any = importlib.import_module(".".join([first, *rest[:end]]))
        except ModuleNotFoundError:
            continue
        for part in rest[end:]:
            found = getattr(found, part, None)
        return found is not None
    return False


def test_all_names_of_ours_are_there() -> None:
    ours = named([cell for _, cell in ROWS])
    assert len(ours) > 80
    assert [name for name in ours if not exists(name)] == []


@pytest.mark.skipif(
    node() is None, reason="the official JavaScript tools are not here: ./dev setup fetches them"
)
async def test_every_method_of_the_official_sdk_is_in_the_table(tmp_path: Path) -> None:
    offered = (await surface(place(tmp_path)))["methods"]
    told = named([cell for cell, _ in ROWS])
    assert len(told) == len(set(told))
    assert sorted(offered) == sorted(told)
