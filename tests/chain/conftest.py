"""A small contract to call, and wallets to call it with."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from vyper import compile_code

from sealdeal.chain import Anvil, Contract, Rpc, Sender, Wallet
from sealdeal.chain.abi import Abi, encode
from sealdeal.chain.local import ETHER
from sealdeal.model.keys import Key
from sealdeal.model.types import keccak, unhex

COUNTER = """
# pragma version 0.4.3
event Counted:
    by: indexed(address)
    total: uint256
    note: String[64]

struct Pair:
    a: address
    b: uint256

total: public(uint256)
last: public(HashMap[address, uint256])

@external
def count(step: uint256, note: String[64]) -> uint256:
    assert step != 0, "Counter: step is zero"
    self.total += step
    self.last[msg.sender] = step
    log Counted(by=msg.sender, total=self.total, note=note)
    return self.total

@external
def at_most(limit: uint256):
    assert self.total < limit, "Counter: limit reached"
    self.total += 1
    log Counted(by=msg.sender, total=self.total, note="at most")

@external
@view
def pair() -> Pair:
    return Pair(a=self, b=self.total)

@external
@view
def refuse(data: Bytes[256]):
    raw_revert(data)

@external
@view
def silent():
    assert self.total == max_value(uint256)

@external
@view
def subtract(a: uint256, b: uint256) -> uint256:
    return a - b
"""
ERRORS = [
    {"type": "error", "name": "NotContractOwner", "inputs": [{"type": "address"}, {"type": "address"}]},
    {"type": "error", "name": "IncompatibleDatasetOrder", "inputs": [{"type": "string"}]},
]


@pytest.fixture(scope="session")
def counter_code() -> tuple[bytes, Abi]:
    compiled = compile_code(COUNTER, output_formats=["bytecode", "abi"])
    return unhex(compiled["bytecode"]), Abi([*compiled["abi"], *ERRORS])


def wallet(role: str) -> Wallet:
    return Wallet(Key(keccak(b"test " + role.encode())))


@dataclass
class Counter:
    rpc: Rpc
    sender: Sender
    contract: Contract


@pytest.fixture
async def counter(chain: Rpc, anvil: Anvil, counter_code: tuple[bytes, Abi]) -> Counter:
    """A counter on the chain, and a funded sender that nobody used before."""
    code, abi = counter_code
    sender = Sender(chain, wallet("operator"), patience=20.0)
    await anvil.fund(sender.address, 100 * ETHER)
    receipt = await sender.send(None, code + encode(abi.constructor, []))
    assert receipt.contract
    return Counter(chain, sender, Contract(receipt.contract, abi))
