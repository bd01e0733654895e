"""The same random lives on the official contracts and on ours: same outcomes, events, views, balances.

differential.py compares, life.py lives, differences.py says what may differ.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

from sealdeal.model.types import keccak
from tests.contracts.chances import PATIENCE, Failed, live
from tests.contracts.differences import DIFFERENCES
from tests.contracts.differential import Bench, Difference, Pair, Side, hub_functions
from tests.contracts.life import Life
from tests.contracts.world import World

COMPATIBILITY = Path(__file__).parents[2] / "docs" / "compatibility.md"


def side(suite: str) -> Side:
    return Side(suite, World.start(Bench(), "official" if suite == "official" else "ours"))


def suites() -> Pair:
    return Pair(side("official"), side("ours"), DIFFERENCES)


@pytest.fixture(scope="module")
def pair() -> Pair:
    return suites()


STEPS = 80
"""Of a life."""
RENEWAL = 500
"""Lives after which the chains are made anew: they remember what they were asked, and grow."""
REFUSED = {"configure", "importScore"}
"""What both refuse after deployment."""


def lives(pair: Pair, seed: object, numbers: range, patience: float = PATIENCE) -> None:
    """So many lives. Raises Failed at the first that is not the same on both sides."""
    for number in numbers:
        live(lambda: Life(pair), f"{seed}/{number}", STEPS, called, patience)


def called(cause: AssertionError) -> str:
    """What two failures share that are the same: whose outcome it was."""
    return str(cause).partition("(")[0]


@pytest.mark.hypothesis
def test_both_live_alike() -> None:
    """Twice as many lives as the profile has examples, unless the environment says otherwise: LIVES, SEED.

    In `./dev test` they are the same lives each time; longer runs take new ones.
    """
    number = int(os.environ.get("LIVES") or 2 * hypothesis.settings().max_examples)
    seed = os.environ.get("SEED") or (time.time_ns() if number > 200 else "test")
    done: set[str] = set()
    for first in range(0, number, RENEWAL):
        pair = suites()
        lives(pair, seed, range(first, min(first + RENEWAL, number)))
        done |= {function for function, count in pair.counts.items() if count.done}
    official = {name for name, (_, kind) in hub_functions().items() if kind == "nonpayable"}
    unreached = {name for name in official - done - REFUSED if not pair.missing(name)}
    assert number < 100 or not unreached, "these were never called with success: the lives are too narrow"


@pytest.mark.parametrize("difference", DIFFERENCES, ids=[difference.row for difference in DIFFERENCES])
def test_each_difference_is_real(pair: Pair, difference: Difference) -> None:
    life = Life(pair)
    try:
        call = difference.example(life)
        before = pair.differed.get(difference.row, 0)
        ask = pair.ask if "view" in call.what or "balance" in call.what else pair.both
        ask(call)
        assert pair.differed.get(difference.row, 0) == before + 1
    finally:
        life.end()


def test_each_difference_is_told() -> None:
    told = COMPATIBILITY.read_text()
    assert [difference.row for difference in DIFFERENCES if difference.row not in told] == []


SEIZE = keccak(b"Seize(address,uint256,bytes32)")
PLANTED: dict[str, Callable[[Side], object]] = {
    "another event": lambda side: side.chain.plant(SEIZE, SEIZE[:-1] + bytes([SEIZE[-1] ^ 1])),
    "another text": lambda side: side.chain.plant(b"iExecV5-matchOrders-0x", b"iExecV5-matchOrders-0X"),
    "another balance": lambda side: side.world.enrich(side.world.who("worker"), 1),
}


@pytest.mark.parametrize("what", PLANTED)
def test_a_planted_difference_is_found(what: str) -> None:
    spoilt = side("ours")
    assert PLANTED[what](spoilt) != 0
    with pytest.raises(Failed):
        lives(Pair(side("ours"), spoilt), what, range(200), patience=0)


def test_ours_is_like_ours() -> None:
    """What is found above is what was planted."""
    lives(Pair(side("ours"), side("ours")), "ours", range(10))
