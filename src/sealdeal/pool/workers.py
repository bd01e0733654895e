"""The pool's workers: who is there, what they are given, what they say.

A worker is there while it holds a long poll. What it was given stays in the store until it speaks of it, so
an answer that never arrived is given again. Presence is memory only: workers tell it again to whoever asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from weakref import WeakValueDictionary

from sealdeal.model.deals import Deal, authorisation_message
from sealdeal.model.errors import Forbidden, InvalidInput, NotFound
from sealdeal.model.keys import Key
from sealdeal.model.types import ZERO, Address, hexstr
from sealdeal.sdk.pool import (
    MAX_WAIT,
    RESERVED,
    Attempt,
    AttemptEnded,
    Granted,
    Handed,
    Report,
    SmsNode,
    Work,
    WorkerState,
)

from .rules import PoolSettings
from .store import AttemptRow, Log, PoolStore, ResultRow, Step

RECONNECT = 5.0
"""Seconds that a worker whose connection broke has to come back, before it counts as lost."""


class Signals:
    """Wakes those who wait for a key. Take `of(key)` first, then look, then wait: nothing is missed."""

    def __init__(self) -> None:
        self._waiting: WeakValueDictionary[object, asyncio.Event] = WeakValueDictionary()

    def of(self, key: object) -> asyncio.Event:
        event = self._waiting.get(key)
        if event is None:
            self._waiting[key] = event = asyncio.Event()
        return event

    def set(self, key: object) -> None:
        if event := self._waiting.pop(key, None):
            event.set()


@dataclass
class _Presence:
    state: WorkerState
    seen: float
    polls: int = 0
    """Long polls held now: it is there."""


class Workers:
    """What workers may do with a scheduler. Who they are was checked before (see `gate`)."""

    def __init__(
        self,
        store: PoolStore,
        settings: PoolSettings,
        key: Key,
        signals: Signals,
        deal: Callable[[bytes], Awaitable[Deal]],
        take: Callable[[AttemptRow, Deal, Handed], Awaitable[ResultRow]],
        granted: Callable[[bytes, bytes], Awaitable[bool]],
        wake: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        self._store, self._settings, self._key, self._signals = store, settings, key, signals
        self._deal, self._take, self._wake, self._clock = deal, take, wake, clock
        self._granted = granted
        self._there: dict[Address, _Presence] = {}

    def known(self) -> dict[Address, tuple[WorkerState, float]]:
        """What each worker said last, and when it was last there (seconds since 1970)."""
        now = self._clock()
        kept = 2 * self._settings.rules.lost_after
        self._there = {a: one for a, one in self._there.items() if one.polls or now - one.seen < kept}
        return {a: (one.state, now if one.polls else one.seen) for a, one in self._there.items()}

    def present(self) -> dict[Address, WorkerState]:
        """The workers that do not count as lost."""
        since = self._clock() - self._settings.rules.lost_after
        return {address: state for address, (state, seen) in self.known().items() if seen > since}

    def _admit(self, worker: Address) -> None:
        if self._settings.whitelist is not None and worker not in self._settings.whitelist:
            raise Forbidden(f"worker {worker} is not in this pool's list: ask its operator to be admitted")

    async def poll(
        self, worker: Address, state: WorkerState, wait: float, gone: Callable[[], Awaitable[object]]
    ) -> Work | None:
        """A worker's heartbeat, and its next task if one comes within `wait` seconds.

        `gone` returns when the worker's connection breaks. Raises Forbidden when it is not admitted.
        """
        self._admit(worker)
        there = self._there.setdefault(worker, _Presence(state, self._clock()))
        there.state, there.seen, there.polls = state, self._clock(), there.polls + 1
        leaving = asyncio.ensure_future(gone())
        limit = min(max(wait, 0.0), MAX_WAIT, self._settings.rules.lost_after / 2)
        deadline = asyncio.get_running_loop().time() + limit
        try:
            await self._compare(worker, state)
            self._wake()
            while True:
                signal = self._signals.of(worker)
                if work := await self._undelivered(worker, state):
                    return work
                left = deadline - asyncio.get_running_loop().time()
                if left <= 0:
                    return None
                waiting = asyncio.ensure_future(signal.wait())
                try:
                    await asyncio.wait({waiting, leaving}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    waiting.cancel()
                if leaving.done():
                    return None
        finally:
            there.polls -= 1
            there.seen = self._clock()
            if leaving.done() and not leaving.cancelled():
                # Its machine closed the connection: it has little time to come back.
                there.seen -= max(0.0, self._settings.rules.lost_after - RECONNECT)
            leaving.cancel()

    async def _compare(self, worker: Address, state: WorkerState) -> None:
        """Close the attempts that the worker had begun and does not know any more: it was started again."""
        running = {(one.task, one.attempt) for one in state.running}
        if live := await self._store.live_attempts(worker):
            await self._store.heard_of(worker)
        handed = await self._store.results_of([row.task for row in live])
        for row in live:
            begun = row.status not in (Attempt.CREATED, Attempt.CONTRIBUTE_AND_FINALIZE_DONE)
            if row.task not in handed and begun and (row.task, row.number) not in running:
                why = "the worker was started again and knows nothing of this attempt"
                await self._store.close_attempt(row.assignment, Attempt.WORKER_LOST, "WORKER_LOST", why)
                self._signals.set(row.task)

    async def _undelivered(self, worker: Address, state: WorkerState) -> Work | None:
        """Something given to the worker that it does not know of (or whose answer never arrived).

        Nothing while its slots are taken, or while it runs an attempt at the same task that is over here:
        it could only refuse, and would ask again at once.
        """
        if len(state.running) >= state.slots:
            return None
        busy_with = {one.task for one in state.running}
        for row in await self._store.live_attempts(worker):
            if row.status == Attempt.CREATED and row.task not in busy_with:
                try:
                    dealid, index = await self._store.deal_of(row.task)
                    return self._work_of(row, await self._deal(dealid), index)
                except NotFound:
                    continue  # a reorganisation took the deal; the next decision ends the attempt
        return None

    def _work_of(self, row: AttemptRow, deal: Deal, index: int) -> Work:
        return Work(
            assignment=row.assignment,
            signature=row.signature,
            dealid=deal.dealid,
            index=index,
            tee=deal.tee,
            nodes=tuple(SmsNode(address=address, url=url) for address, url in self._settings.nodes),
            results=self._settings.results_url,
        )

    async def _own(
        self, worker: Address, task: bytes, attempt: int, *, also: Attempt | None = None
    ) -> AttemptRow:
        """An attempt of this worker that is live, or `also`. Raises NotFound, Forbidden, AttemptEnded."""
        row = await self._store.attempt(task, attempt)
        if row.worker != worker:
            raise Forbidden(f"attempt {attempt} at this task was given to {row.worker}, not to {worker}")
        if row.status.ended and row.status != also:
            why = f"{row.cause}: {row.message}" if row.status.failed else row.status
            raise AttemptEnded(
                f"attempt {attempt} at task {hexstr(task)} is over ({why}); stop working on it"
            )
        return row

    async def report(self, worker: Address, task: bytes, attempt: int, report: Report) -> None:
        """Note what a worker says about its attempt; a failure has the task given to another."""
        if report.status in RESERVED:
            raise InvalidInput(f"{report.status} is for the scheduler to say, from what the chain shows")
        late_is_fine = None if report.status.failed else Attempt.COMPLETED  # the chain may be quicker
        row = await self._own(worker, task, attempt, also=late_is_fine)
        if report.status.rank < row.status.rank and not row.status.ended:
            raise InvalidInput(f"the attempt is {row.status} already, it can't go back to {report.status}")
        if there := self._there.get(worker):
            there.seen = self._clock()
        result = None
        if report.result is not None:
            dealid, _ = await self._store.deal_of(task)
            result = await self._take(row, await self._deal(dealid), report.result)
        values = {
            "step": report.step,
            "cause": report.cause or ("UNKNOWN" if report.status.failed else ""),
            "message": report.message,
            "exit_code": row.exit_code if report.exit_code is None else report.exit_code,
            "tx_hash": report.tx_hash or row.tx_hash,
            "enclave": report.enclave or row.enclave,
        }
        tell = (row.status, row.step) != (report.status, report.step) or bool(report.cause)
        late = row.status.ended
        if not late and not await self._store.change(
            row.assignment, report.status, tell=tell, result=result, **values
        ):
            await self._own(worker, task, attempt, also=late_is_fine)  # it ended in between
            late = True
        if late:
            await self._store.complete(row.assignment, **values)
        if report.stdout is not None or report.stderr is not None:
            await self._store.keep_log(task, Log(worker, report.stdout or "", report.stderr or ""))
        if late:
            return
        if not report.status.ended and report.status.rank >= Attempt.STARTED.rank:
            await self._store.tell([Step(task, "RUNNING", once="RUNNING")])
        self._signals.set(task)
        self._wake()

    async def authorise(
        self, worker: Address, task: bytes, attempt: int, granted: Granted | None = None
    ) -> bytes:
        """The pool owner's authorisation to contribute: without an enclave, for a standard deal's worker;
        with one, where the hub has no TEE broker and the SMS nodes granted it.

        A workerpool order can't refuse requests whose tag is zero, and a deal left undone costs the pool
        its stake; so a worker that the pool trusts may finish it on its own word. For a TEE deal it is the
        nodes' word that counts: a hub with a broker would take no other, and neither does this pool.
        """
        row = await self._own(worker, task, attempt)
        dealid, _ = await self._store.deal_of(task)
        deal = await self._deal(dealid)
        if deal.trust > 1:
            raise Forbidden(f"the deal asks for trust {deal.trust}: one worker's word is not enough")
        enclave = granted.enclave if granted else ZERO
        message = authorisation_message(row.worker, task, enclave)
        if deal.tee:
            if granted is None or enclave == ZERO:
                raise Forbidden("this is a TEE deal: the quorum's grants authorise its enclave, not the pool")
            if not await self._granted(message, granted.authorisation):
                raise Forbidden(f"expected enough SMS nodes to grant enclave {enclave}: the quorum says no")
        elif granted is not None:
            raise InvalidInput("expected no enclave: this deal does not ask for a TEE")
        return self._key.sign_message(message)
