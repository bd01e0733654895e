"""The committed artefacts are what the sources give, and their gas is what it was."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bench import gas

CONTRACTS = Path(__file__).parents[2] / "contracts"


def script() -> ModuleType:
    """contracts/build.py, which is no package's module."""
    spec = importlib.util.spec_from_file_location("contracts_build", CONTRACTS / "build.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def build() -> ModuleType:
    return script()


@pytest.fixture(scope="module")
def compiled(build: ModuleType) -> dict[str, Any]:
    artefacts: dict[str, Any] = build.compile_all()
    return artefacts


def test_artefacts_are_of_these_sources(build: ModuleType, compiled: dict[str, Any]) -> None:
    held = {path.stem: path.read_text() for path in (CONTRACTS / "build").glob("*.json")}
    assert held.keys() == compiled.keys()
    for name, artefact in compiled.items():
        assert held[name] == build.render(artefact), f"run python contracts/build.py: {name} differs"


def test_every_contract_fits_on_a_chain(build: ModuleType, compiled: dict[str, Any]) -> None:
    for name, artefact in compiled.items():
        assert len(artefact["runtime"]) // 2 - 1 < build.CODE_LIMIT, name


def test_the_pieces_share_one_layout(build: ModuleType, compiled: dict[str, Any]) -> None:
    hub, *others = [compiled[name]["layout"] for name in build.HUB_PIECES]
    for kind in ("storage_layout", "transient_storage_layout"):
        assert hub[kind]
        assert all(layout[kind] == hub[kind] for layout in others)


def test_pieces_that_are_asked_answer_a_word(build: ModuleType, compiled: dict[str, Any]) -> None:
    """A longer answer would mean that the piece has no such function, and the next one would be asked."""
    word = re.compile(r"address|bool|u?int\d+|bytes\d+")
    for name in build.HUB_PIECES[1:-1]:
        functions = [entry for entry in compiled[name]["own_abi"] if entry["type"] == "function"]
        assert functions
        for function in functions:
            kinds = [output["type"] for output in function["outputs"]]
            assert len(kinds) <= 1 and all(map(word.fullmatch, kinds)), (name, function["name"], kinds)


def test_pieces_that_disagree_are_refused(build: ModuleType, compiled: dict[str, Any]) -> None:
    broken = json.loads(json.dumps({name: compiled[name] for name in build.HUB_PIECES}))
    for piece in broken.values():
        piece["abi"] = piece["own_abi"]
    broken["HubViews"]["layout"]["storage_layout"] = {}
    with pytest.raises(build.BuildError, match="HubViews: its storage_layout differs"):
        build.merge_hub(broken)


def test_a_function_that_could_not_be_reached_is_refused(build: ModuleType, compiled: dict[str, Any]) -> None:
    broken = json.loads(json.dumps({name: compiled[name] for name in build.HUB_PIECES}))
    for piece in broken.values():
        piece["abi"] = piece["own_abi"]
    broken["HubViews"]["abi"].append(
        next(e for e in broken["Hub"]["own_abi"] if e.get("name") == "initialize")
    )
    with pytest.raises(build.BuildError, match="could never be reached"):
        build.merge_hub(broken)


# ---- Gas ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def measured() -> dict[str, dict[str, Any]]:
    return {row["scenario"]: row for row in gas.run()}


def test_gas_is_as_committed(measured: dict[str, dict[str, Any]]) -> None:
    """Equal to the last unit: keys, salts and addresses are the same in every run."""
    held = json.loads(gas.SNAPSHOT.read_text())
    assert gas.snapshot(list(measured.values())) == held, (
        "run python -m bench.gas --write, and look at the diff"
    )


def test_a_tee_deal_costs_at_most_027_of_the_official(measured: dict[str, dict[str, Any]]) -> None:
    assert measured["b_tee_fast_dataset_broker"]["ratio"] <= 0.27
