"""Contracts that stand around a hub: wallets, groups, callbacks, spenders, and things that answer oddly."""

from __future__ import annotations

from functools import cache

from eth_abi.abi import encode
from vyper import compile_code

from sealdeal.model.types import Address, unhex
from tests.contracts.world import text

WALLET = """
# An EIP-1271 wallet of one signer. Anyone may send its calls: a test needs no more.
SIGNER: immutable(address)

@deploy
def __init__(signer: address):
    SIGNER = signer

@external
@view
def isValidSignature(digest: bytes32, sign: Bytes[2048]) -> bytes4:
    if len(sign) == 65:
        v: uint256 = convert(slice(sign, 64, 1), uint256)
        r: uint256 = convert(extract32(sign, 0), uint256)
        s: uint256 = convert(extract32(sign, 32), uint256)
        if ecrecover(digest, v, r, s) == SIGNER:
            return 0x1626ba7e
    return 0xffffffff

@external
@raw_return
def execute(to: address, data: Bytes[32768]) -> Bytes[32768]:
    return raw_call(to, data, max_outsize=32768)
"""

GROUP = """
# An ERC-734 group: its accounts are keys of purpose 4.
members: HashMap[bytes32, bool]

@deploy
def __init__(accounts: DynArray[address, 16]):
    for account: address in accounts:
        self.members[convert(convert(account, uint256), bytes32)] = True

@external
@view
def keyHasPurpose(account: bytes32, purpose: uint256) -> bool:
    return purpose == 4 and self.members[account]
"""

RECORDER = """
# A callback that keeps what it is told.
event Received:
    hub: address
    taskid: bytes32
    data: Bytes[2048]

@external
def receiveResult(taskid: bytes32, data: Bytes[2048]):
    log Received(hub=msg.sender, taskid=taskid, data=data)
"""

MEDDLER = """
# A callback that reads the hub and calls back into it while the hub is settling its task.
event Tried:
    done: bool
    answer: Bytes[4096]

@external
def receiveResult(taskid: bytes32, data: Bytes[2048]):
    # Below this, the price of the hub's answers, which may differ, would decide how far it comes.
    if msg.gas < 700_000:
        return
    self._try(msg.sender, abi_encode(taskid, method_id=method_id("viewTask(bytes32)")))
    self._try(msg.sender, abi_encode(taskid, method_id=method_id("resultFor(bytes32)")))
    self._try(msg.sender, abi_encode(self, method_id=method_id("viewAccount(address)")))
    self._try(msg.sender, abi_encode(taskid, method_id=method_id("claim(bytes32)")))
    self._try(msg.sender, abi_encode(taskid, method_id=method_id("reopen(bytes32)")))
    self._try(msg.sender, abi_encode(convert(1, uint256), method_id=method_id("withdraw(uint256)")))
    one: uint256 = 1
    self._try(msg.sender, abi_encode(tx.origin, one, method_id=method_id("transfer(address,uint256)")))

@internal
def _try(hub: address, call: Bytes[128]):
    done: bool = False
    answer: Bytes[4096] = b""
    done, answer = raw_call(hub, call, max_outsize=4096, revert_on_failure=False)
    log Tried(done=done, answer=answer)
"""


@cache
def compiled(source: str) -> bytes:
    """Creation code of one of the sources above."""
    return unhex(compile_code(f"# pragma version 0.4.3\n{source}", output_formats=["bytecode"])["bytecode"])


def says(answer: bytes, *, reverts: bool = False) -> bytes:
    """Creation code of a contract that answers every call with these bytes, 200 at most, or reverts so."""
    # PUSH1 length DUP1 PUSH1 9 PUSH0 CODECOPY PUSH0 RETURN|REVERT, then the answer
    runtime = bytes([0x60, len(answer), 0x80, 0x60, 9, 0x5F, 0x39, 0x5F, 0xFD if reverts else 0xF3]) + answer
    return bytes([0x60, len(runtime), 0x80, 0x60, 9, 0x5F, 0x39, 0x5F, 0xF3]) + runtime


BURNS = bytes([0x60, 1, 0x80, 0x60, 9, 0x5F, 0x39, 0x5F, 0xF3]) + b"\xfe"
"""Creation code of a contract that uses up all gas of every call."""

MAGIC = unhex("1626ba7e").ljust(32, b"\0")
"""The answer of an EIP-1271 wallet that means yes."""
RECEIVED = unhex("150b7a02").ljust(32, b"\0")
"""The answer of a contract that takes ERC-721 tokens."""


def odd(owner: Address) -> dict[str, bytes]:
    """Name -> creation code of everything that answers any call in one way."""
    return {
        "says magic": says(MAGIC),
        "says magic and more": says(MAGIC[:4] + b"\xff" * 28),
        "says magic twice": says(MAGIC * 2),
        "says four bytes": says(MAGIC[:4]),
        "says nothing": says(b""),
        "says zero": says(bytes(32)),
        "says true": says(b"\1".rjust(32, b"\0")),
        "says two": says(b"\2".rjust(32, b"\0")),
        "says an owner": says(encode(["address"], [owner])),
        "says received": says(RECEIVED),
        "says received and more": says(RECEIVED[:4] + b"\xff" * 28),
        "reverts": says(b"", reverts=True),
        "reverts with text": says(text("no"), reverts=True),
        "burns": BURNS,
    }
