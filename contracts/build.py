"""Compile the contracts: every CamelCase.vy becomes build/<Name>.json.

    python contracts/build.py            # what changed
    python contracts/build.py --force    # everything
    python contracts/build.py --check    # compile everything, compare with what is there, write nothing

An artefact holds, with sorted keys:

- `abi`: what clients load. The Hub's is that of its one address: of all pieces together.
- `own_abi` (of the pieces): what the piece itself answers
- `bytecode`: creation code, without constructor arguments
- `runtime`: deployed code, without the immutables that deployment appends
- `layout`: where storage, transient storage and immutables lie
- `compiler`, `settings`, and `source_hash`: sha256 over the file and every module it imports
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import vyper
from vyper.compiler import CompilerData, output
from vyper.compiler.input_bundle import FilesystemInputBundle
from vyper.compiler.settings import OptimizationLevel, Settings

SOURCES = Path(__file__).parent
BUILD = SOURCES / "build"
SETTINGS = {"evm_version": "cancun", "optimize": "gas", "experimental_codegen": False}

# What a chain accepts as a contract's code (EIP-170).
CODE_LIMIT = 24_576

# The pieces behind the hub's address, in the order of delegation.
HUB_PIECES = ("Hub", "HubAdmin", "HubBoost", "HubBatch", "HubViews")

# Errors with names of their own, which Vyper 0.4 cannot declare.
HUB_ERRORS = {
    "CallerIsNotTheRequester": [],
    "IncompatibleDatasetOrder": [("string", "reason")],
    "SafeCastOverflowedUintDowncast": [("uint8", "bits"), ("uint256", "value")],
    "NotContractOwner": [("address", "_user"), ("address", "_contractOwner")],
    "OperationFailed": [],
    "UnsupportedOperation": [("bytes4", "selector")],
}

# Arguments of an event that Vyper cannot name as the ABI does.
EVENT_ARGUMENTS = {"from_": "from"}

Artefact = dict[str, Any]


class BuildError(Exception):
    """A contract that compiles but must not be shipped: the message says which, and why."""


def names() -> list[str]:
    """Every contract that deploys, by the house rule CamelCase.vy."""
    return sorted(path.stem for path in SOURCES.glob("*.vy") if path.stem[0].isupper())


def compile_contract(name: str) -> Artefact:
    """The artefact of one contract, before the hub's ABIs are merged."""
    data = _load(name)
    runtime = bytes.fromhex(output.build_bytecode_runtime_output(data).removeprefix("0x"))
    layout = json.loads(json.dumps(output.build_layout_output(data)))
    immutables = sum(entry["length"] for entry in _leaves(layout.get("code_layout", {})))
    if len(runtime) + immutables > CODE_LIMIT:
        raise BuildError(
            f"{name}: {len(runtime) + immutables} bytes of code, a chain accepts {CODE_LIMIT}; "
            f"move a rarely used function on to the next piece"
        )
    return {
        "abi": [_official(entry) for entry in output.build_abi_output(data)],
        "bytecode": output.build_bytecode_output(data),
        "compiler": f"vyper {vyper.__version__}",
        "layout": layout,
        "runtime": "0x" + runtime.hex(),
        "settings": SETTINGS,
        "source_hash": source_hash(data),
    }


def source_hash(data: CompilerData) -> str:
    """sha256 over (name, contents) of a contract and of every module it imports, ordered by name."""
    files = {data.file_input.path.name: data.file_input.contents}
    for source in data.resolved_imports.compiler_inputs:
        path = Path(source.resolved_path)
        if path.is_relative_to(SOURCES):
            files[str(path.relative_to(SOURCES))] = source.contents
    digest = hashlib.sha256()
    for name, contents in sorted(files.items()):
        digest.update(f"{name}\0{contents}\0".encode())
    return digest.hexdigest()


def merge_hub(artefacts: dict[str, Artefact]) -> None:
    """Give Hub the ABI of its address, and make sure that the pieces agree where everything lies."""
    pieces = [artefacts[name] for name in HUB_PIECES]
    for name, piece in zip(HUB_PIECES, pieces, strict=True):
        piece["own_abi"] = piece["abi"]
        for kind in ("storage_layout", "transient_storage_layout"):
            if piece["layout"].get(kind) != pieces[0]["layout"].get(kind):
                raise BuildError(
                    f"{name}: its {kind} differs from Hub's; initialise the same modules in the same order"
                )
    merged: dict[str, Any] = {}
    for name, piece in zip(HUB_PIECES, pieces, strict=True):
        for entry in piece["own_abi"]:
            if entry["type"] == "constructor" and name != "Hub":
                continue
            key = entry["type"] + entry.get("name", "") + json.dumps(entry.get("inputs", []))
            if entry["type"] == "function" and key in merged:
                raise BuildError(
                    f"{name}: {entry['name']} is in an earlier piece already and could never be reached"
                )
            merged[key] = entry
    for error, inputs in HUB_ERRORS.items():
        merged[f"error{error}"] = {
            "type": "error",
            "name": error,
            "inputs": [{"type": kind, "name": argument} for kind, argument in inputs],
        }
    merged["receive"] = {"type": "receive", "stateMutability": "payable"}
    pieces[0]["abi"] = sorted(merged.values(), key=lambda e: (e["type"], e.get("name", "")))


def build(*, force: bool = False) -> list[str]:
    """Write the artefacts whose sources changed; returns the names of those compiled."""
    BUILD.mkdir(exist_ok=True)
    every = names()
    stale = {name for name in every if force or not _fresh(name)}
    if stale & set(HUB_PIECES):
        stale |= set(HUB_PIECES)
    artefacts = {name: compile_contract(name) for name in every if name in stale}
    if set(HUB_PIECES) <= set(artefacts):
        merge_hub(artefacts)
    for name, artefact in artefacts.items():
        (BUILD / f"{name}.json").write_text(render(artefact))
    for path in BUILD.glob("*.json"):
        if path.stem not in every:
            path.unlink()
    return sorted(artefacts)


def compile_all() -> dict[str, Artefact]:
    """Every artefact, compiled anew."""
    artefacts = {name: compile_contract(name) for name in names()}
    merge_hub(artefacts)
    return artefacts


def render(artefact: Artefact) -> str:
    return json.dumps(artefact, indent=1, sort_keys=True) + "\n"


def _load(name: str) -> CompilerData:
    bundle = FilesystemInputBundle([SOURCES])
    settings = Settings(
        optimize=OptimizationLevel.GAS, evm_version=SETTINGS["evm_version"], experimental_codegen=False
    )
    return CompilerData(bundle.load_file(Path(f"{name}.vy")), input_bundle=bundle, settings=settings)


def _fresh(name: str) -> bool:
    path = BUILD / f"{name}.json"
    if not path.exists():
        return False
    held = json.loads(path.read_text())
    return bool(
        held["source_hash"] == source_hash(_load(name))
        and held["settings"] == SETTINGS
        and held["compiler"] == f"vyper {vyper.__version__}"
    )


def _official(entry: dict[str, Any]) -> dict[str, Any]:
    if entry["type"] != "event":
        return entry
    inputs = [
        {**argument, "name": EVENT_ARGUMENTS.get(argument["name"], argument["name"])}
        for argument in entry["inputs"]
    ]
    return {**entry, "inputs": inputs}


def _leaves(layout: dict[str, Any]) -> list[dict[str, Any]]:
    if "length" in layout:
        return [layout]
    return [leaf for child in layout.values() for leaf in _leaves(child)]


def main() -> int:
    parser = argparse.ArgumentParser(description="Compile the contracts into contracts/build.")
    parser.add_argument("--force", action="store_true", help="compile everything, changed or not")
    parser.add_argument("--check", action="store_true", help="compare with what is there, write nothing")
    arguments = parser.parse_args()
    if arguments.check:
        differing = [
            name
            for name, artefact in compile_all().items()
            if not (BUILD / f"{name}.json").exists()
            or (BUILD / f"{name}.json").read_text() != render(artefact)
        ]
        for name in differing:
            print(f"contracts/build/{name}.json does not match its sources: run python contracts/build.py")
        return 1 if differing else 0
    for name in build(force=arguments.force):
        size = len(bytes.fromhex(json.loads((BUILD / f"{name}.json").read_text())["runtime"][2:]))
        print(f"{name}: {size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
