"""Random lives: what is drawn, which rule comes next, and how a life that fails is made short.

A *draw* takes a random generator and gives a value. A class with methods under `@rule` can be lived: each
step draws a rule whose `when` holds, draws its arguments, and calls it. Everything follows from the seed. A
life that fails is lived again without this step or that, and with simpler arguments, as long as it fails in
the same way.

(Hypothesis can do all this, and was tried. A step here is hundreds of calls: its shrinking took minutes where
this takes seconds, and most of its lives were small variations of lives that went nowhere.)
"""

from __future__ import annotations

import dataclasses
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any, TypeVar

Draw = Callable[[Random], Any]
F = TypeVar("F", bound=Callable[..., Any])

PATIENCE = 40
"""Seconds that a failing life is made shorter."""


def just(value: Any) -> Draw:
    return lambda _: value


def any_of(values: Iterable[Any]) -> Draw:
    listed = list(values)
    return lambda random: random.choice(listed)


def one_of(*draws: Draw) -> Draw:
    return lambda random: random.choice(draws)(random)


def maybe(draw: Draw, chance: float = 0.5) -> Draw:
    """None otherwise."""
    return lambda random: draw(random) if random.random() < chance else None


def several(draw: Draw, least: int, most: int) -> Draw:
    return lambda random: tuple(draw(random) for _ in range(random.randint(least, most)))


def each(*draws: Draw) -> Draw:
    return lambda random: tuple(draw(random) for draw in draws)


def made(cls: Callable[..., Any], **draws: Draw) -> Draw:
    return lambda random: cls(**{name: draw(random) for name, draw in draws.items()})


coin = any_of((False, True))


# ---- Rules -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rule:
    weight: float
    draws: dict[str, Draw]
    when: Callable[[Any], Any]


def rule(
    weight: float = 1, when: Callable[[Any], Any] = lambda life: True, **draws: Draw
) -> Callable[[F], F]:
    """A method that may be a step, this often among the others, while `when(life)` holds."""

    def mark(method: F) -> F:
        method.rule = Rule(weight, draws, when)  # type: ignore[attr-defined]
        return method

    return mark


@dataclass(frozen=True)
class Step:
    name: str
    given: dict[str, Any]

    def but(self, name: str, value: Any) -> Step:
        return Step(self.name, {**self.given, name: value})

    def __repr__(self) -> str:
        return f"life.{self.name}({', '.join(f'{name}={value!r}' for name, value in self.given.items())})"


class Lived(ABC):
    """Something that steps happen to. Made anew for each life."""

    @abstractmethod
    def end(self) -> None:
        """The life is over: last checks, unless it failed, and everything as it was before it."""

    @classmethod
    @cache
    def rules(cls) -> dict[str, Rule]:
        found = {name: getattr(getattr(cls, name), "rule", None) for name in dir(cls)}
        return {name: value for name, value in found.items() if isinstance(value, Rule)}

    def live(self, random: Random, steps: int) -> Iterator[Step]:
        """Draw steps and take them; each is given before it is taken."""
        # Some rules are left out of a life, and some come often: so that unusual lives come about.
        weights = {name: r.weight * random.choice((0.2, 1, 1, 1, 4)) for name, r in self.rules().items()}
        for _ in range(steps):
            open_ = {name: r for name, r in self.rules().items() if r.when(self)}
            [name] = random.choices(list(open_), [weights[name] for name in open_])
            step = Step(name, {key: draw(random) for key, draw in open_[name].draws.items()})
            yield step
            self.take(step)

    def take(self, step: Step) -> None:
        getattr(self, step.name)(**step.given)


# ---- Lives -------------------------------------------------------------------------------------------------


class Failed(AssertionError):
    """A life that failed, as short as it could be made; `cause` is how."""

    def __init__(self, seed: object, steps: Sequence[Step], cause: AssertionError) -> None:
        lines = [str(cause), "", f"after this life (seed {seed}):", *(f"  {step!r}" for step in steps)]
        super().__init__("\n".join(lines))
        self.steps, self.cause = steps, cause


def live(
    start: Callable[[], Lived],
    seed: object,
    steps: int,
    alike: Callable[[AssertionError], object],
    patience: float = PATIENCE,
) -> None:
    """One life. Raises Failed; `alike` says by what failures are the same."""
    life, taken = start(), []
    try:
        try:
            for step in life.live(Random(f"{seed}"), steps):
                taken.append(step)
        finally:
            life.end()
    except AssertionError as cause:
        shortest, cause = shortened(start, taken, cause, alike, patience)
        raise Failed(seed, shortest, cause) from None


def failure(start: Callable[[], Lived], steps: Sequence[Step]) -> AssertionError | None:
    """How these steps fail, if they do. A step that can no longer be taken is left out."""
    life = start()
    try:
        try:
            for step in steps:
                if life.rules()[step.name].when(life):
                    life.take(step)
        finally:
            life.end()
    except AssertionError as cause:
        return cause
    return None


def shortened(
    start: Callable[[], Lived],
    steps: Sequence[Step],
    cause: AssertionError,
    alike: Callable[[AssertionError], object],
    patience: float,
) -> tuple[Sequence[Step], AssertionError]:
    """Fewer and simpler steps that fail in the same way."""
    deadline = time.monotonic() + patience

    def attempt(candidate: Sequence[Step]) -> bool:
        nonlocal steps, cause
        if time.monotonic() > deadline:
            return False
        try:
            found = failure(start, candidate)
        except Exception:  # arguments that make no sense any more
            return False
        if found is None or alike(found) != alike(cause):
            return False
        steps, cause = candidate, found
        return True

    before = None
    while before != steps:
        before = steps
        size = max(1, len(steps) // 2)
        while size:
            at = 0
            while at < len(steps):
                if not attempt([*steps[:at], *steps[at + size :]]):
                    at += size
            size //= 2
        for at, step in enumerate(steps):
            for name in step.given:
                while any(
                    attempt(
                        [*steps[:at], Step(step.name, {**steps[at].given, name: value}), *steps[at + 1 :]]
                    )
                    for value in simpler(steps[at].given[name])
                ):
                    pass
    return steps, cause


def simpler(value: Any) -> Iterator[Any]:
    """What might stand in place of a value, to say the same with less."""
    if isinstance(value, bool):
        if value:
            yield False
    elif isinstance(value, int):
        if value:
            yield 0
    elif isinstance(value, tuple):
        for at, item in enumerate(value):
            yield value[:at] + value[at + 1 :]
            for less in simpler(item):
                yield (*value[:at], less, *value[at + 1 :])
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            now = getattr(value, field.name)
            if field.default is not dataclasses.MISSING and now != field.default:
                yield dataclasses.replace(value, **{field.name: field.default})
            for less in simpler(now):
                yield dataclasses.replace(value, **{field.name: less})
