"""What a worker tells its scheduler about an attempt."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from sealdeal.model.errors import SealdealError, Unavailable
from sealdeal.model.types import hexstr
from sealdeal.sdk.pool import Attempt, AttemptEnded, PoolClient, Report, Work

log = logging.getLogger("sealdeal.worker")

CLOSING_SECONDS: Final = 60.0
"""How long an attempt that has ended tries to tell its scheduler."""
BACK_OFF: Final = (0.5, 15.0)
"""Seconds between tries while a scheduler or chain does not answer: first, at most."""


class Reports:
    """An attempt's reports on their way, in order. A scheduler that is away holds nothing up."""

    def __init__(self, pool: PoolClient, work: Work) -> None:
        self._pool, self._work = pool, work
        self._queue: asyncio.Queue[Report | None] = asyncio.Queue()
        self.last = Attempt.CREATED
        self.refused = False
        """Whether the scheduler said that the attempt is over."""
        self.refusal: SealdealError | None = None
        """Why the scheduler did not take the last report, if it did not."""
        self.stop: Callable[[], Any] = lambda: None
        """Called once then."""
        self._sending = asyncio.create_task(self._send())

    def add(self, report: Report) -> None:
        self.last = report.status
        self._queue.put_nowait(report)

    def say(self, said: Mapping[str, Any]) -> None:
        """A guest's status event."""
        try:
            phase = Attempt(str(said.get("phase")))
        except ValueError:
            return
        if self.last.rank <= phase.rank <= Attempt.RESULT_UPLOADED.rank:
            self.add(
                Report(
                    status=phase, step=str(said.get("step", ""))[:100], message=str(said.get("message", ""))
                )
            )

    async def _send(self) -> None:
        while (report := await self._queue.get()) is not None:
            self.refusal = None
            for wait in waits():
                try:
                    await self._pool.report(self._work.task, self._work.attempt, report)
                    break
                except AttemptEnded:
                    self.refused = True
                    self.stop()
                    return
                except Unavailable:
                    await asyncio.sleep(wait)
                except SealdealError as error:
                    self.refusal = error
                    log.warning("the scheduler refused a report: %s: %s", error.code, error)
                    break
            self._queue.task_done()

    async def said(self) -> None:
        """Wait until the scheduler has heard all that was added."""
        await self._queue.join()

    def drop(self) -> None:
        """Send nothing more."""
        self._sending.cancel()

    async def close(self) -> None:
        """Send what is left, unless the scheduler stays away."""
        self._queue.put_nowait(None)
        _, late = await asyncio.wait([self._sending], timeout=CLOSING_SECONDS)
        if late:
            log.warning("the scheduler did not hear how %s ended", hexstr(self._work.task))
            self.drop()


def waits() -> Iterator[float]:
    """Growing pauses, without end."""
    first, most = BACK_OFF
    wait = first
    while True:
        yield wait
        wait = min(wait * 2, most)
