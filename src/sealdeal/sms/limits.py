"""What a node lets one worker ask, so that junk from one costs the others nothing.

A worker is counted together with the key that signed its assignment: whoever names another's worker without
the pool's signature is counted by themselves. All counts are in memory, of bounded size, and forgotten by a
restart.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Hashable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from sealdeal.model.errors import (
    EvidenceRefused,
    InvalidInput,
    RateLimited,
    SecretRefused,
    Unauthorized,
    Unavailable,
)

REMEMBERED = 10_000
"""Keys of each kind of count; the longest unused go first."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is too much."""

    failures: int = 60
    """Refusals of one worker in `seconds`: evidence, nonces, manifests that do not hold."""
    asks: int = 60
    """Answers of one kind for one attempt in `attempt_seconds`: an honest guest wants one, or a few."""
    polls: int = 600
    """The same, those included that were not ready yet: a guest asks 4 times a second, for a minute."""
    seconds: float = 60.0
    attempt_seconds: float = 600.0
    strangers: int = 16
    """Requests at once that make the node read the chain, of those that have not succeeded yet."""
    queue: int = 256
    """How many more of these may wait for their turn."""


class Gate:
    """Who may come in now."""

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self.limits = limits
        self._failures = _Counter(limits.failures, limits.seconds, clock)
        self._asks = _Counter(limits.asks, limits.attempt_seconds, clock)
        self._polls = _Counter(limits.polls, limits.attempt_seconds, clock)
        self._known: OrderedDict[Hashable, None] = OrderedDict()
        self._places = asyncio.Semaphore(limits.strangers)
        self._waiting = 0

    @asynccontextmanager
    async def admit(self, who: Hashable, attempt: Hashable) -> AsyncIterator[None]:
        """Around a request. `who`: its worker and signer; `attempt`: these, and what it is about.

        Raises RateLimited instead of letting in, with the seconds after which to come again. A refusal inside
        counts against `who`; that something is not ready yet does not.
        """
        self._failures.check(who, "refused requests of this worker")
        for counter in (self._polls, self._asks):
            counter.add(attempt)
            counter.check(attempt, "requests for this attempt")
        if who in self._known:
            self._known.move_to_end(who)
            with self._counting(who, attempt):
                yield
            return
        if self._places.locked() and self._waiting >= self.limits.queue:
            raise RateLimited("too many new workers ask at once: come again in a moment", retry_after=1)
        self._waiting += 1
        try:
            await self._places.acquire()
        finally:
            self._waiting -= 1
        try:
            with self._counting(who, attempt):
                yield
        finally:
            self._places.release()

    @contextmanager
    def _counting(self, who: Hashable, attempt: Hashable) -> Iterator[None]:
        try:
            yield
        except Unavailable:
            self._asks.add(attempt, -1)
            raise
        except (SecretRefused, EvidenceRefused, InvalidInput, Unauthorized):
            self._failures.add(who)
            raise
        self._known[who] = None
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)


class _Counter:
    """Events by key, in windows that begin with a key's first event."""

    def __init__(self, most: int, seconds: float, clock: Callable[[], float]) -> None:
        self._most, self._seconds, self._clock = most, seconds, clock
        self._counts: OrderedDict[Hashable, tuple[float, int]] = OrderedDict()

    def _current(self, key: Hashable) -> tuple[float, int]:
        now = self._clock()
        begun, count = self._counts.get(key, (now, 0))
        return (begun, count) if 0 <= now - begun < self._seconds else (now, 0)

    def add(self, key: Hashable, number: int = 1) -> None:
        begun, count = self._current(key)
        self._counts[key] = begun, max(0, count + number)
        self._counts.move_to_end(key)
        if len(self._counts) > REMEMBERED:
            self._counts.popitem(last=False)

    def check(self, key: Hashable, what: str) -> None:
        """Raises RateLimited once there were more than the most."""
        begun, count = self._current(key)
        if count > self._most:
            wait = max(1, int(begun + self._seconds - self._clock()) + 1)
            raise RateLimited(
                f"expected at most {self._most} {what} in {self._seconds:g} seconds: come again in {wait}",
                retry_after=wait,
            )
