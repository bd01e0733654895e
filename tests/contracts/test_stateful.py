"""A machine of random actors against the hub, and proof that it would notice."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from eth_abi.abi import encode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sealdeal.model.types import keccak
from tests.contracts import world
from tests.contracts.chain import artefact, code
from tests.contracts.machine import PROFILES, Machine, Stage
from tests.contracts.sources import Flaw

STEPS = st.lists(st.integers(0, 2**32 - 1), min_size=120, max_size=300)
"""A run: see machine.py. Zeros do nothing, so that a counterexample has few other numbers."""
UNTRIED = {
    # They say something and change nothing.
    "broadcastAppOrder",
    "broadcastDatasetOrder",
    "broadcastWorkerpoolOrder",
    "broadcastRequestOrder",
    # Calls a stranger's contract: test_reentrancy.py.
    "approveAndCall",
}
"""Functions of the hub that change something and that the machine does not call."""


@pytest.fixture(scope="module", params=PROFILES)
def stage(request: pytest.FixtureRequest) -> Stage:
    return Stage(request.param)


@pytest.fixture(autouse=True)
def counted(request: pytest.FixtureRequest) -> Iterator[None]:
    """The end of the session says how much was done."""
    if "stage" not in request.fixturenames:
        yield
        return
    chain, start = request.getfixturevalue("stage").chain, time.monotonic()
    transactions, reads = chain.transactions, chain.reads
    yield
    transactions, reads = chain.transactions - transactions, chain.reads - reads
    rate = (transactions + reads) / (time.monotonic() - start)
    line = f"{transactions:,} transactions and {reads:,} reads, {rate:,.0f} a second"
    request.node.user_properties.append(("says", line))


@settings(suppress_health_check=list(HealthCheck))
@given(steps=STEPS)
def test_nothing_that_anyone_does_breaks_an_invariant(stage: Stage, steps: list[int]) -> None:
    with stage.run() as machine:
        for number in steps:
            machine.step(number)
        machine.check()
        machine.settle()


def test_the_machine_gets_everywhere(stage: Stage) -> None:
    """Every function that changes the hub is taken in some run and refused in another."""
    stage.accepted.clear()
    stage.refused.clear()
    for number in range(20):
        with stage.run() as machine:
            _run(machine, number, 300)
    functions = {
        entry["name"]
        for entry in artefact("Hub")["abi"]
        if entry["type"] == "function" and entry["stateMutability"] not in ("view", "pure")
    }
    never = {"sync", "configure"} | (set() if stage.options.changes_delayed else {"applyChange"})
    assert functions - set(stage.accepted) - UNTRIED == never
    always = {"approve", "increaseAllowance", "updateEntries", "updateDomainSeparator"}
    assert functions - set(stage.refused) - UNTRIED <= always


def _run(machine: Machine, number: int, steps: int) -> None:
    rng = Random(number)
    for _ in range(steps):
        machine.step(rng.randrange(1, 2**32))
    machine.check()
    machine.settle()


# ---- It would notice ---------------------------------------------------------------------------------------

FLAWS = {
    "an unlock leaves the lock": Flaw(
        "ledger.vy",
        "unsafe_add(unsafe_sub(word, amount << FROZEN), amount)",
        "unsafe_add(word, amount)",
        "HubAdmin",
    ),
    "a seizure takes from the stake": Flaw(
        "ledger.vy",
        "self.accounts[account] = unsafe_sub(word, amount << FROZEN)",
        "self.accounts[account] = unsafe_sub(word, amount)",
    ),
    "rounding is lost": Flaw(
        "settlement.vy",
        "ledger._reward(scheduler, unsafe_sub(price, reward), taskid)",
        "ledger._reward(scheduler, price * ratio // 100, taskid)",
    ),
    "the kitty keeps what it pays": Flaw(
        "ledger.vy", "settings._set_kitty(kitty - share)", "settings._set_kitty(kitty)"
    ),
    "who was wrong counts as right": Flaw(
        "settlement.vy",
        "if contributor >> tasks.MARK == tasks.PROVED:\n            weights",
        "if contributor >> tasks.MARK != tasks.REJECTED:\n            weights",
    ),
    "a failed task costs the scheduler nothing": Flaw(
        "settlement.vy",
        "ledger._seize(self._owner(deal.workerpool_owner, deal.workerpool), stake, taskid)",
        "ledger._unlock(self._owner(deal.workerpool_owner, deal.workerpool), stake)",
        "HubAdmin",
    ),
    "a score falls to a half": Flaw("ledger.vy", "* 2 // 3", "// 2"),
    "a claim comes a second late": Flaw(
        "life.vy",
        "types.FINAL_DEADLINE_RATIO <= block.timestamp",
        "types.FINAL_DEADLINE_RATIO < block.timestamp",
        "HubAdmin",
    ),
}


@pytest.mark.parametrize("flaw", FLAWS.values(), ids=FLAWS)
def test_a_flaw_in_the_contracts_is_noticed(
    flaw: Flaw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = flaw.code(tmp_path)
    monkeypatch.setattr(world, "code", lambda name: made if name == flaw.piece else code(name))
    assert _notices(Stage())


def _notices(stage: Stage) -> bool:
    for number in range(40):
        with stage.run() as machine:
            try:
                _run(machine, number, 300)
            except AssertionError:
                return True
    return False


@pytest.mark.parametrize("what", ["a stake", "a lock", "a score", "the kitty", "the supply"])
def test_a_changed_balance_is_noticed(what: str) -> None:
    """A bit of the ledger that nobody's call turned."""
    stage = Stage()
    layout = artefact("Hub")["layout"]["storage_layout"]
    ledger, settings = layout["ledger"], layout["settings"]
    of = encode(["uint256", "address"], [ledger["accounts"]["slot"], stage.world.who("requester")])
    account = int.from_bytes(keccak(of), "big")
    slot, bit = {
        "a stake": (account, 3),
        "a lock": (account, 64 + 3),
        "a score": (account, 128 + 3),
        "the kitty": (settings["common"]["slot"], 192 + 3),
        "the supply": (ledger["supply"]["slot"], 3),
    }[what]
    with stage.run() as machine:
        machine.check()
        stage.chain.turn(machine.hub.address, slot, bit)
        with pytest.raises(AssertionError):
            machine.check()
