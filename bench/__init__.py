"""Benchmarks. Each figure is a ratio of two things measured in the same run: machines differ, ratios less.

`./dev bench [NAME…]` runs this folder's modules. Each has `measure()`, plain or async, which yields `Ratio`s.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Ratio:
    """Ours against a reference, in the same unit, from the same run."""

    name: str
    """What was measured."""
    ours: float
    against: str
    """What it is compared with."""
    reference: float
    unit: str
    """Of both: "s", "µs", "gas", "1/s"."""

    @property
    def ratio(self) -> float:
        """ours / reference."""
        return self.ours / self.reference


def fastest(act: Callable[[], object], rounds: int = 5, number: int = 1) -> float:
    """Seconds of one `act()`: of `rounds` rounds of `number` calls the best, which was disturbed least."""
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(number):
            act()
        best = min(best, (time.perf_counter() - start) / number)
    return best
