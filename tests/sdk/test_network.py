"""A network's address card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sealdeal.chain import Addresses
from sealdeal.model.errors import InvalidInput, NotFound
from sealdeal.model.types import address
from sealdeal.sdk.network import Network, Services

HERE = address(b"n" * 20)
CARD = Network(
    rpc_url="http://127.0.0.1:1",
    chain_id=5,
    contracts=Addresses(HERE, HERE, HERE, HERE, HERE, HERE),
    services=Services(market="http://m", results="http://r", scheduler=None, sms=("http://a", "http://b")),
    workerpool=HERE,
    trust="simulated",
)


def test_a_card_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "network.json"
    path.write_text(json.dumps(CARD.to_json()))
    assert Network.load(path) == CARD


def test_a_hand_written_card_needs_little() -> None:
    card = CARD.to_json()
    short: dict[str, Any] = {name: card[name] for name in ("rpc_url", "chain_id", "contracts")}
    short["services"] = {"market": "http://m", "results": "http://r", "scheduler": None, "sms": []}
    read = Network.from_json(short)
    assert (read.trust, read.workerpool, read.accounts) == ("hardware", None, {})


def test_without_a_card_one_is_told_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="sealdeal up"):
        Network.load(tmp_path / "network.json")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "3", '{"services": 1}', json.dumps({**CARD.to_json(), "new": 1})]
)
def test_what_is_no_card_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "network.json"
    path.write_text(text)
    with pytest.raises(InvalidInput):
        Network.load(path)
