"""What people install: a wheel that has all it needs, the compiled contracts above all."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from sealdeal.chain import Anvil

ROOT = Path(__file__).parents[1]
BUILT = {path.name: path.read_bytes() for path in (ROOT / "contracts" / "build").glob("*.json")}

BUILD = "import hatchling.build, sys; print(hatchling.build.build_wheel(sys.argv[1]))"

COMMAND = """
import sys
sys.modules["vyper"] = sys.modules["boa"] = None  # whoever imports a compiler fails
import sealdeal.cli
assert sealdeal.__file__.startswith(sys.path[1]), sealdeal.__file__
sealdeal.cli.main()
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel holds."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-c", BUILD, str(folder)]
    built = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    with zipfile.ZipFile(folder / built.stdout.split()[-1]) as wheel:
        wheel.extractall(folder / "installed")
    return folder / "installed"


def test_the_compiled_contracts_are_in_it(installed: Path) -> None:
    there = {path.name: path.read_bytes() for path in (installed / "sealdeal" / "contracts").iterdir()}
    assert there == BUILT
    for content in there.values():
        artefact = json.loads(content)
        assert {"abi", "bytecode", "runtime", "layout", "compiler", "source_hash"} <= artefact.keys()
        assert {"storage_layout", "code_layout"} & artefact["layout"].keys()  # DataProtector stores nothing


async def test_a_user_deploys_and_verifies_without_a_compiler(installed: Path) -> None:
    environment = {"PYTHONPATH": str(installed), "HOME": str(installed)}
    async with Anvil(chain_id=1234) as chain:

        def run(*arguments: str) -> str:
            command = [
                sys.executable,
                "-c",
                COMMAND,
                "contracts",
                *arguments,
                "--rpc-url",
                chain.url,
                "--json",
            ]
            done = subprocess.run(command, cwd=installed, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            return done.stdout

        made = json.loads(run("deploy"))
        assert json.loads(run("verify", made["hub"]))["verified"] is True


def test_the_command_and_the_examples_are_in_it(installed: Path) -> None:
    (entry_points,) = installed.glob("sealdeal-*.dist-info/entry_points.txt")
    assert "sealdeal = sealdeal.cli:main" in entry_points.read_text()
    examples = {path.name for path in (ROOT / "examples").iterdir() if path.name != "__pycache__"}
    assert {path.name for path in (installed / "sealdeal" / "examples").iterdir()} == examples
