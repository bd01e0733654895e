"""A contract that calls back, and a token that lets it."""

from __future__ import annotations

from functools import cache
from typing import Any

from vyper import compile_code


@cache
def abi(source: str) -> list[dict[str, Any]]:
    """Of one of the sources below."""
    made: list[dict[str, Any]] = compile_code(f"# pragma version 0.4.3\n{source}", output_formats=["abi"])[
        "abi"
    ]
    return made


IMP = """
# Plays every part that a contract can play around a hub: wallet, owner, scheduler, worker, group, spender,
# callback, receiver of tokens, entry, registry, an older hub. Once armed, it makes the call it was armed with
# from inside the next hook.
#
# A hook inside a STATICCALL cannot write down what came of it: there it answers as it should if the call was
# refused, and refuses otherwise.

# What is called.
target: address
data: Bytes[24576]

# Whether the call is still to be made.
armed: public(bool)

# Whether a hook made it, and whether it succeeded.
struck: public(bool)
done: public(bool)

# Of an entry that an imp pretends to be.
OWNER: immutable(address)

# Enough for any call; what a failing call in a STATICCALL burns.
GAS: constant(uint256) = 6_000_000


@deploy
def __init__(owner: address):
    OWNER = owner


@external
def arm(target: address, data: Bytes[24576]):
    self.target = target
    self.data = data
    self.armed = True


@external
@payable
@raw_return
def execute(to: address, data: Bytes[24576]) -> Bytes[24576]:
    return raw_call(to, data, max_outsize=24576)


@internal
def _strike():
    if self.armed:
        self.armed = False
        self.struck = True
        self.done = raw_call(self.target, self.data, gas=GAS, revert_on_failure=False)


@internal
def _refused() -> bool:
    if not self.armed:
        return True
    return not raw_call(self.target, self.data, gas=GAS, revert_on_failure=False)


# ---- Hooks that may write

@external
def moved():
    self._strike()


@external
def receiveResult(taskid: bytes32, data: Bytes[2048]):
    self._strike()


@external
def receiveApproval(sender: address, amount: uint256, token: address, data: Bytes[24576]) -> bool:
    self._strike()
    return True


@external
def onERC721Received(operator: address, source: address, id: uint256, data: Bytes[4096]) -> bytes4:
    self._strike()
    return 0x150b7a02


# ---- Hooks in a STATICCALL

@external
def isValidSignature(digest: bytes32, sign: Bytes[2048]) -> bytes4:
    return 0x1626ba7e if self._refused() else 0xffffffff


@external
def keyHasPurpose(account: bytes32, purpose: uint256) -> bool:
    return self._refused()


@external
def owner() -> address:
    assert self._refused()
    return OWNER


@external
def counted() -> bool:
    assert self._refused()
    return True


@external
def viewScore(worker: address) -> uint256:
    assert self._refused()
    return 5


@external
def registry() -> address:
    assert self._refused()
    return self


@external
def isRegistered(entry: address) -> bool:
    return self._refused()
"""

HOOKED = """
# A base token that tells an imp of every movement, before it or after it; or of every question for a balance.
interface Imp:
    def moved(): nonpayable
    def counted() -> bool: view

balances: HashMap[address, uint256]
allowance: public(HashMap[address, HashMap[address, uint256]])

# Whom it tells, from when on, and when.
imp: address
late: bool
asked: bool

@deploy
def __init__(holder: address):
    self.balances[holder] = 87_000_000 * 10**9

@external
def tell(imp: address, late: bool, asked: bool):
    self.imp = imp
    self.late = late
    self.asked = asked

@external
@view
def balanceOf(account: address) -> uint256:
    if self.asked:
        quiet: bool = staticcall Imp(self.imp).counted()
    return self.balances[account]

@external
def approve(spender: address, amount: uint256) -> bool:
    self.allowance[msg.sender][spender] = amount
    return True

@external
def transfer(to: address, amount: uint256) -> bool:
    self._move(msg.sender, to, amount)
    return True

@external
def transferFrom(source: address, to: address, amount: uint256) -> bool:
    self.allowance[source][msg.sender] -= amount
    self._move(source, to, amount)
    return True

@internal
def _move(source: address, to: address, amount: uint256):
    if self.imp != empty(address) and not self.late:
        extcall Imp(self.imp).moved()
    self.balances[source] -= amount
    self.balances[to] += amount
    if self.imp != empty(address) and self.late:
        extcall Imp(self.imp).moved()
"""

WITNESS = """
# Reads, and keeps a hash of all it read.
seen: public(bytes32)

@external
def read(to: address, calls: DynArray[Bytes[512], 128]):
    seen: bytes32 = empty(bytes32)
    for call: Bytes[512] in calls:
        done: bool = False
        answer: Bytes[16384] = b""
        done, answer = raw_call(to, call, max_outsize=16384, is_static_call=True, revert_on_failure=False)
        seen = keccak256(concat(seen, keccak256(answer)))
    self.seen = seen
"""
