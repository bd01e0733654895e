"""A real EVM inside the test process (titanoboa on py-evm): compiled contracts, and refusals to the byte."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import boa
import pytest
from eth_abi.abi import encode
from vyper.compiler.output import build_abi_output

from sealdeal.model.types import keccak

CONTRACTS = Path(__file__).parents[2] / "contracts"
ZERO = "0x" + "00" * 20


@cache
def compiled(name: str) -> Any:
    """The deployer of `contracts/<name>.vy`."""
    return boa.load_partial(str(CONTRACTS / f"{name}.vy"))


def code(name: str) -> bytes:
    """Creation code without constructor arguments."""
    return bytes(compiled(name).compiler_data.bytecode)


@cache
def abi(name: str) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = build_abi_output(compiled(name).compiler_data)
    return entries


def at(name: str, address: str) -> Any:
    """The contract at an address, known by its ABI only, as clients know it."""
    return boa.loads_abi(json.dumps(abi(name)), name=name).at(address)


def signatures(name: str) -> set[str]:
    """Functions of a contract's ABI, such as `approve(address,uint256)`."""
    return {
        f"{entry['name']}({','.join(item['type'] for item in entry['inputs'])})"
        for entry in abi(name)
        if entry["type"] == "function"
    }


def calldata(signature: str, *args: Any) -> bytes:
    """Selector and encoded arguments, by eth-abi: beyond the bounds of the contract's own ABI too."""
    types = signature[signature.index("(") + 1 : -1].split(",")
    return keccak(signature.encode())[:4] + encode(types, args)


def inline(source: str, *args: Any) -> Any:
    """Deploy a few lines of Vyper that a test needs around the contract."""
    return boa.loads(f"# pragma version 0.4.3\n{source}", *args)


def account(role: str) -> str:
    """An account with an address of its own for each role."""
    return str(boa.env.generate_address(role))


@contextmanager
def refused(reason: str | None = None) -> Iterator[None]:
    """The call inside reverts with exactly Error(reason), or without data when there is no reason."""
    expected = bytes.fromhex("08c379a0") + encode(["string"], [reason]) if reason is not None else b""
    with pytest.raises(boa.BoaError) as caught:
        yield
    assert caught.value.call_trace.computation.output == expected
