"""Every finding of the static analysis is answered, and every answer is of a finding that there is.

Why it is ours, and slither is not run: decisions/0037.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.contracts.analysis import ANSWERS, CHECKS, Program
from tests.contracts.sources import SOURCES, Flaw


@pytest.fixture(scope="module")
def program() -> Program:
    return Program(SOURCES, *sorted(path.stem for path in SOURCES.glob("[A-Z]*.vy")))


def answered(check: str) -> set[str]:
    return {finding for answer in ANSWERS.get(check, []) for finding in answer["found"]}


@pytest.mark.parametrize("check", CHECKS)
def test_what_is_found_is_answered(check: str, program: Program) -> None:
    found = set(CHECKS[check](program))
    assert not found - answered(check), "answer these in analysis.toml, or repair them"
    assert not answered(check) - found, "these are gone: so may their answers"


def test_an_answer_gives_a_reason_and_each_finding_has_one() -> None:
    assert ANSWERS.keys() <= CHECKS.keys()
    for check, answers in ANSWERS.items():
        assert all(len(answer["why"]) > 20 for answer in answers), check
        assert sum(len(answer["found"]) for answer in answers) == len(answered(check)), "answered twice"


def flawed(check: str, finding: str, before: str, after: str, file: str = "Rlc", piece: str = "") -> Any:
    return pytest.param(check, Flaw(f"{file}.vy", before, after, piece or file), finding, id=finding)


TRANSFER, MOVE = "self._transfer(msg.sender, to, amount)", "self.balanceOf[to] += amount"
APPROVED = "extcall Spender(spender).receiveApproval(msg.sender, amount, self, data)"
NONCE = "self.nonce = nonce + 1\n    log Executed(target=target, nonce=nonce, data=data)\n"
CALL = 'raw_call(msg.sender, b"")'


@pytest.mark.parametrize(
    ("check", "flaw", "finding"),
    [
        flawed("warnings", "Rlc: `print` should only be used for debugging!", TRANSFER, "print(to)"),
        flawed("opcodes", "Rlc: ORIGIN", TRANSFER, "self._transfer(tx.origin, to, amount)"),
        flawed(
            "unsafe",
            "Rlc._transfer: unsafe_add(self.balanceOf[to], amount)",
            MOVE,
            "self.balanceOf[to] = min(unsafe_add(self.balanceOf[to], amount), amount)",
        ),
        flawed("calls", f"Rlc.transfer: {CALL}", TRANSFER, CALL),
        flawed(
            "late",
            "Quorum.execute writes Quorum.nonce after Quorum.execute: raw_call(target, data)",
            f"{NONCE}    raw_call(target, data)",
            "raw_call(target, data)\n    self.nonce = nonce + 1",
            "Quorum",
        ),
        flawed(  # the call in another function, before what stands left of it
            "late",
            f"Rlc.transfer writes Rlc.balanceOf after Rlc._told: {CALL}",
            f"{MOVE}\n    log Transfer(from_=source, to=to, value=amount)\n",
            "self.balanceOf[to] += self._told(amount)\n    log Transfer(from_=source, to=to, value=amount)\n"
            f"\n@internal\ndef _told(amount: uint256) -> uint256:\n    {CALL}\n    return amount\n",
        ),
        flawed(  # the next time round
            "late",
            f"life.claim writes tasks.words after life.claim: {CALL}",
            "    self._claim(_taskid)",
            "    for i: uint256 in range(2):\n        self._claim(_taskid)\n"
            f"        if i == 0:\n            {CALL}",
            "life",
            "HubAdmin",
        ),
        flawed(
            "ignored",
            f"Rlc.approveAndCall: {APPROVED}"[:80],
            f'assert {APPROVED}, "approval-refused"',
            APPROVED,
        ),
        flawed(
            "ignored", "Rlc.transfer: left is never read", TRANSFER, "left: uint256 = 0\n    left = amount"
        ),
        flawed(
            "recoveries",
            "Quorum._signed: ecrecover(digest, 27, r, s)",
            "ecrecover(digest, v, r, s)",
            "ecrecover(digest, 27, r, s)",
            "Quorum",
        ),
        flawed("ether", "Rlc.transfer takes ether", "def transfer(", "@payable\ndef transfer("),
        flawed("ether", "Rlc.transfer sends ether", TRANSFER, 'raw_call(to, b"", value=amount)'),
        flawed(
            "open",
            "registry.setBaseURI",
            "self._only_owner()\n    self.baseURI",
            "self.baseURI",
            "registry",
            "AppRegistry",
        ),
        flawed(
            "loops",
            'Quorum._remove repeats Quorum._drop: raw_call(account, b"", is_static_call=True)',
            "last: address = self._members.pop()",
            'raw_call(account, b"", is_static_call=True)\n    last: address = self._members.pop()',
            "Quorum",
        ),
        flawed(
            "packed",
            "registry._salt: concat(setup, setup, convert(owner, bytes20))",
            "keccak256(concat(setup, ",
            "keccak256(concat(setup, setup, ",
            "registry",
            "AppRegistry",
        ),
        flawed(
            "uncommented", "Rlc.balanceOf", "# Account -> its tokens, in nRLC. They sum to the supply.", ""
        ),
        flawed(
            "dead",
            "Rlc._forget is never called",
            "# Account ->",
            "@internal\ndef _forget():\n    pass\n\n# Account ->",
        ),
        flawed("dead", "Rlc.minter is never read", "# Account ->", "minter: address\n\n# Account ->"),
        flawed("dead", "Rlc.minter is never written", "# Account ->", "minter: address\n\n# Account ->"),
    ],
)
def test_a_flaw_is_found(check: str, flaw: Flaw, finding: str, tmp_path: Path) -> None:
    assert finding not in answered(check)
    assert finding in set(CHECKS[check](Program(flaw.sources(tmp_path), flaw.piece)))
