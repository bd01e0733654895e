"""The ledger's arithmetic and every packed record, for all values at once.

symbolic/Check*.vy are contracts around our modules whose `check_…` functions demand what must hold. halmos
runs them with symbols for arguments, and a solver looks for values with which a demand does not hold: there
must be none. What a check assumes of its arguments stands at its beginning.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from vyper.compiler import output

from tests.contracts.sources import SOURCES, Flaw, compiled

CHECKS = Path(__file__).parent / "symbolic"
HALMOS = Path(__file__).parents[2] / ".dev" / "halmos" / "bin"
PASSED, REFUTED = 0, 1
"""Exit codes of a check; others say that halmos could not tell."""
LOOPS = 70
"""How often a loop may be gone round: more than any of ours. A check that needs more is not told passed."""

pytestmark = pytest.mark.skipif(
    not (HALMOS / "halmos").exists(), reason="halmos is not installed: ./dev setup installs it"
)


@dataclass(frozen=True)
class Check:
    contract: str
    name: str

    def __str__(self) -> str:
        return f"{self.contract}.{self.name}"


def checks() -> list[Check]:
    return [
        Check(path.stem, name)
        for path in sorted(CHECKS.glob("Check*.vy"))
        for name in re.findall(r"^def (check_\w+)", path.read_text(), re.MULTILINE)
    ]


def run(folder: Path, contract: str, sources: Path = SOURCES, check: str = "check_") -> dict[str, Any]:
    """Checks of a contract that begin so -> what halmos says of them."""
    _lay_out(folder, contract, sources)
    answer = folder / "answer.json"
    command = [
        str(HALMOS / "halmos"),
        *("--root", str(folder)),
        *("--function", check),
        *("--storage-layout", "generic"),  # Vyper's
        *("--loop", str(LOOPS)),
        *("--solver-command", f"{HALMOS / 'yices-smt2'} --smt2-model-format --bvconst-in-decimal"),
        *("--solver-threads", "1"),
        *("--solver-timeout-branching", "100ms"),  # only decides how many impossible paths are followed
        *("--solver-timeout-assertion", "600s"),  # none takes a second; a busy machine may be slow
        *("--json-output", str(answer)),
        "--no-status",
    ]
    # It asks forge to build first; what it would have built is there already.
    forge = folder / "bin" / "forge"
    forge.parent.mkdir()
    forge.write_text("#!/bin/sh\nexit 0\n")
    forge.chmod(0o755)
    path = f"{forge.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    environment = {**os.environ, "PATH": path, "TMPDIR": str(folder)}
    said = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=1800)
    assert answer.exists(), said.stdout[-4000:] + said.stderr[-4000:]
    (results,) = json.loads(answer.read_text())["test_results"].values()
    return {result["name"].partition("(")[0]: result for result in results}


def _lay_out(folder: Path, contract: str, sources: Path) -> None:
    """What Foundry would have built of the contract, as far as halmos reads it."""
    data = compiled(CHECKS / f"{contract}.vy", sources)
    code, runtime = output.build_bytecode_output(data), output.build_bytecode_runtime_output(data)
    selectors = output.build_method_identifiers_output(data)
    node = {"nodeType": "ContractDefinition", "name": contract, "contractKind": "contract", "nodes": []}
    built = {
        "abi": output.build_abi_output(data),
        "bytecode": {"object": code, "linkReferences": {}, "sourceMap": ""},
        "deployedBytecode": {"object": runtime, "linkReferences": {}, "sourceMap": ""},
        "methodIdentifiers": {name: selector[2:].zfill(8) for name, selector in selectors.items()},
        "metadata": {"compiler": {"version": "vyper"}, "output": {}},
        "ast": {"absolutePath": f"{contract}.vy", "nodeType": "SourceUnit", "nodes": [node]},
        "id": 0,
    }
    place = folder / "out" / f"{contract}.sol" / f"{contract}.json"
    place.parent.mkdir(parents=True)
    place.write_text(json.dumps(built))


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return cache(lambda contract: run(tmp_path_factory.mktemp(contract), contract))


@pytest.mark.parametrize("check", checks(), ids=str)
def test_what_is_demanded_holds_for_all_values(check: Check, answers: Any) -> None:
    answer = answers(check.contract)[check.name]
    assert answer["exitcode"] == PASSED, answer
    assert answer["num_bounded_loops"] == 0, "a loop was not followed to its end"


# ---- It would notice ---------------------------------------------------------------------------------------

FLAWS = {
    "the supply has no bound": (
        Check("CheckLedger", "check_mint"),
        Flaw("ledger.vy", 'assert supply < SUPPLY_LIMIT, "ledger: supply above 2**64"', "pass"),
    ),
    "more is locked than there is": (
        Check("CheckLedger", "check_lock"),
        Flaw(
            "ledger.vy",
            'assert amount <= word & AMOUNT_MASK, "IexecEscrow: Transfer amount exceeds balance"',
            "pass",
        ),
    ),
    "a seizure reaches into the score": (
        Check("CheckLedger", "check_seize"),
        Flaw(
            "ledger.vy",
            "self.accounts[account] = unsafe_sub(word, amount << FROZEN)",
            "self.accounts[account] = unsafe_sub(word, amount << SCORE)",
        ),
    ),
    "a long start is cut off": (
        Check("CheckDeals", "check_titles"),
        Flaw("deals.vy", "or deal.start > MASK_32", "or deal.start > MASK_64"),
    ),
    "two parts of a deal overlap": (
        Check("CheckDeals", "check_accounts"),
        Flaw("deals.vy", "FIXED: constant(uint256) = 59", "FIXED: constant(uint256) = 58"),
    ),
    "a boost deal's dataset is cheaper": (
        Check("CheckBoost", "check_numbers"),
        Flaw(
            "boost.vy",
            "dataset_price = (part >> 160) & deals.MASK_64",
            "dataset_price = (part >> 160) & deals.MASK_32",
        ),
    ),
    "a heavy worker is of another group": (
        Check("CheckWords", "check_weight"),
        Flaw("tasks.vy", "(min(weight, WEIGHT_MASK) << WEIGHT)", "(weight << WEIGHT)"),
    ),
    "an l is read as a digit": (
        Check("CheckWords", "check_digits"),
        Flaw("tasks.vy", "unsafe_mul(20, ones)", "unsafe_mul(19, ones)"),
    ),
}


@pytest.mark.parametrize(("check", "flaw"), FLAWS.values(), ids=FLAWS)
def test_a_flaw_is_refuted(check: Check, flaw: Flaw, tmp_path: Path) -> None:
    sources = flaw.sources(tmp_path)
    answer = run(tmp_path / "run", check.contract, sources, check.name)[check.name]
    assert answer["exitcode"] == REFUTED, answer
    assert answer["num_models"] > 0, "no values were found with which it does not hold"
