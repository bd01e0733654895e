"""A small contract to call, and wallets to call it with."""

from __future__ import annotations

from dataclasses import dataclass

from sealdeal.chain import Contract, Rpc, Sender, Wallet
from sealdeal.model.keys import Key
from sealdeal.model.types import keccak

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


def wallet(role: str) -> Wallet:
    return Wallet(Key(keccak(b"test " + role.encode())))


@dataclass
class Counter:
    rpc: Rpc
    sender: Sender
    contract: Contract
