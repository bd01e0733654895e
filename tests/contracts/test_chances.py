"""Random lives: a seed is a life, and a life that fails is told with what it needs and no more."""

from __future__ import annotations

import pytest

from tests.contracts.chances import Failed, Lived, any_of, live, rule, several


class Till(Lived):
    """Fails when coins are put in while it is closed and has more than two."""

    def __init__(self) -> None:
        self.coins = 0
        self.open = False

    def end(self) -> None:
        pass

    @rule(1, when=lambda till: till.coins < 9, coins=several(any_of(range(1, 9)), 1, 4))
    def put(self, coins: tuple[int, ...]) -> None:
        assert self.open or self.coins < 3, "closed"
        self.coins += len(coins)

    @rule(1)
    def turn(self) -> None:
        self.open = not self.open


def fail(seed: int, patience: float = 10) -> Failed:
    with pytest.raises(Failed) as caught:
        for life in range(50):
            live(Till, f"{seed}/{life}", 40, type, patience)
    return caught.value


def test_a_failing_life_is_made_short() -> None:
    failed = fail(1)
    coins = [step.given["coins"] for step in failed.steps]
    assert all(step.name == "put" for step in failed.steps)
    assert sum(map(len, coins[:-1])) == 3 and coins[-1] == ()
    assert {coin for given in coins for coin in given} == {0}
    assert "life.put(coins=" in str(failed) and "closed" in str(failed)


def test_without_patience_it_is_told_as_it_was() -> None:
    found = [fail(seed, patience=0) for seed in range(10)]
    assert max(len(failed.steps) for failed in found) > len(fail(1).steps)


def test_a_seed_is_a_life() -> None:
    first, second, other = (repr(fail(seed, patience=0).steps) for seed in (1, 1, 2))
    assert first == second != other
