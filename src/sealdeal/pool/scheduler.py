"""The scheduler: sees, decides, acts, and wakes whoever waits.

It follows the chain at the configured depth, and takes every decision on the block it was shown last.
Everything it must not forget is on chain or in its store, so recovery is starting again: whatever was
under way is seen in the next view and decided anew.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress

from sealdeal.chain import Batch, Follower, Hub, Quorum, Receipt, Reverted, RolledBack
from sealdeal.model.deals import Assignment, Deal, pool_domain, task_id
from sealdeal.model.eip712 import Domain, digest
from sealdeal.model.errors import Forbidden, InvalidInput, SealdealError
from sealdeal.model.keys import Key, message_digest
from sealdeal.model.types import ZERO, Block, hexstr, keccak
from sealdeal.sdk.http import Transport
from sealdeal.sdk.pool import MAX_WAIT, Events, PoolConfig, SmsNode

from .batches import Batches
from .decide import (
    Action,
    Assign,
    AttemptView,
    Claim,
    ClaimUnset,
    End,
    Forget,
    Initialize,
    Note,
    Settle,
    TaskView,
    View,
    WorkerView,
    decide,
)
from .rules import PoolSettings
from .store import PoolStore, Step
from .workers import Signals, Workers

log = logging.getLogger("sealdeal.pool")

TICK = 0.5
"""Seconds between looks at the clock while a task is open; without one, only events wake the scheduler."""
RETRY = 1.0
"""Seconds to wait after the chain did not answer."""
FOLLOWED = ("SchedulerNotice", "TaskInitialize", "TaskFinalize", "TaskClaimed")

_TASK_EVENTS = {
    "TaskInitialize": ("INITIALIZED",),
    "TaskFinalize": ("FINALIZED", "COMPLETED"),
    "TaskClaimed": ("FINAL_DEADLINE_REACHED", "FAILED"),
}
_NOTES = {
    "CONTRIBUTION_TIMEOUT": "CONTRIBUTION_TIMEOUT",
    "STAKE_TOO_LOW": "INITIALIZED",
    "NO_ABLE_WORKER": "INITIALIZED",
}

Waiting = Callable[[str], AbstractContextManager[None]]


class Scheduler:
    """One workerpool's scheduler. Several may run on one PostgreSQL database with the same key."""

    def __init__(
        self,
        store: PoolStore,
        hub: Hub,
        key: Key,
        settings: PoolSettings,
        chain_id: int,
        *,
        waiting: Waiting | None = None,
        clock: Callable[[], float] = time.time,
        transports: Mapping[str, Transport] | None = None,
    ) -> None:
        self.store, self.hub, self.key, self.settings, self.chain_id = store, hub, key, settings, chain_id
        self.domain: Domain = pool_domain(chain_id, hub.addresses.hub)
        self.clock = clock
        self.block: Block | None = None
        """The block that decisions read now."""
        self._waiting: Waiting = waiting or (lambda _: nullcontext())
        self._started = clock()
        self._wake = asyncio.Event()
        self._sight = asyncio.Lock()  # the tables and `block` change together, as a view sees them
        self._signals = Signals()
        self._batches = Batches(hub, chain_id, settings, transports)
        self.workers = Workers(
            store,
            settings,
            key,
            self._signals,
            self.deal,
            self._batches.take,
            self._granted,
            self._wake.set,
            clock,
        )
        self._deals: dict[bytes, Deal] = {}
        self._times: dict[int, int] = {}
        self._seen: tuple[bytes, tuple[TaskView, ...]] = (b"", ())
        self._acts: dict[object, int | None] = {}
        """What was sent and the block that is read can't show: mined in that block, or None: on its way."""
        self._sending: set[asyncio.Task[None]] = set()

    async def _granted(self, message: bytes, blob: bytes) -> bool:
        """Whether enough SMS nodes vouch for an enclave, for a hub that does not ask them itself.

        Raises Forbidden on a hub that does.
        """
        quorum = self.hub.addresses.quorum
        if (broker := await self.hub.tee_broker()) != ZERO or quorum is None:
            raise Forbidden(
                f"the hub's TEE broker {broker} authorises enclaves, not the pool"
                if broker != ZERO
                else "no quorum of SMS nodes is known here, on whose word the pool could authorise an enclave"
            )
        return await Quorum(self.hub.rpc, quorum).is_valid(message_digest(message), blob)

    @classmethod
    async def open(
        cls,
        database_url: str,
        hub: Hub,
        key: Key,
        settings: PoolSettings,
        *,
        waiting: Waiting | None = None,
        clock: Callable[[], float] = time.time,
        transports: Mapping[str, Transport] | None = None,
    ) -> Scheduler:
        """`hub` acts with the wallet of `key`, which owns the workerpool.

        `waiting`: a local chain's heartbeat, held while only the clock is waited for. `transports`: by URL,
        for services in this process. Raises InvalidInput when the key does not own the workerpool.
        """
        owner = await hub.owner_of(settings.workerpool)
        if key.address != owner:
            raise InvalidInput(
                f"expected the key of {owner}, who owns workerpool {settings.workerpool}, got {key.address}"
            )
        store = await PoolStore.open(database_url, clock)
        chain_id = await hub.rpc.chain_id()
        return cls(store, hub, key, settings, chain_id, waiting=waiting, clock=clock, transports=transports)

    async def close(self) -> None:
        """Give back the database. Transactions that are on their way go on: the next start sees them."""
        for sending in self._sending:
            sending.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)
        await self._batches.close()
        await self.store.close()

    async def run(self) -> None:
        """Schedule until cancelled. Outlives the chain's absences."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow())
            group.create_task(self._work())

    # --- seeing

    async def _follow(self) -> None:
        """Keep the derived tables and `block` at the chain, `confirmations` below its head."""
        while True:
            trail = await self.store.trail()
            follower = Follower(
                self.hub.rpc,
                [self.hub.hub],
                confirmations=self.settings.confirmations,
                start=trail or None,
                origin=self.settings.origin,
                names=FOLLOWED,
            )
            try:
                if self.block is None and trail:
                    # Started again, perhaps on a chain that makes no block unless somebody acts.
                    final = await self.hub.final_block(self.settings.confirmations)
                    if final == max(trail, key=lambda block: block.number):
                        self.block = final
                        self._wake.set()
                async for item in follower:
                    async with self._sight:
                        if isinstance(item, Batch):
                            await self._advance(item)
                            self.block = item.block
                        else:
                            await self._roll_back(item)
                            self.block = item.to
                    self._wake.set()
            except SealdealError as failed:  # the chain moved or went away in between: go on from the store
                log.warning("following the chain again: %s", failed)
                await asyncio.sleep(RETRY)

    async def _advance(self, batch: Batch) -> None:
        blocks = {}
        for event in batch.events:
            if event.name == "SchedulerNotice" and event["workerpool"] == self.settings.workerpool:
                blocks[bytes(event["dealid"])] = event
        deals = await self.hub.deals(list(blocks), batch.block) if blocks else []
        # A deal of an earlier owner can't be served: only that owner's signature counts for it.
        deals = [deal for deal in deals if deal.workerpool.owner == self.key.address]
        steps = [
            Step(taskid, "RECEIVED", tx_hash=e.tx_hash, block=e.block_number, once="RECEIVED")
            for deal in deals
            for e in [blocks[deal.dealid]]
            for taskid in deal.task_ids()
        ]
        about = [event for event in batch.events if event.name in _TASK_EVENTS]
        ours = {step.task for step in steps} | await self.store.known({bytes(e["taskid"]) for e in about})
        steps += [
            Step(bytes(e["taskid"]), status, tx_hash=e.tx_hash, block=e.block_number, once=status)
            for e in about
            if bytes(e["taskid"]) in ours
            for status in _TASK_EVENTS[e.name]
        ]
        found = [(deal, blocks[deal.dealid].block_number) for deal in deals]
        await self.store.advance(batch.block, found, steps)
        for deal in deals:
            self._deals[deal.dealid] = deal
            log.info("deal %s: %d tasks", hexstr(deal.dealid), deal.bot_size)
        self._tell(step.task for step in steps)

    async def _roll_back(self, item: RolledBack) -> None:
        log.warning("the chain went back to block %d", item.to.number)
        await self.store.roll_back(item.to.number)
        self._deals.clear()
        self._acts = {act: mined for act, mined in self._acts.items() if mined is None}

    async def _view(self, block: Block) -> View:
        tasks = await self._tasks(block)
        ids = [task.taskid for task in tasks]
        attempts = {(row.task, row.number): row for row in await self.store.attempts_of(ids)}
        live = {(row.task, row.number): row for row in await self.store.live_attempts()}
        attempts |= live
        workers = []
        for address, (state, seen) in self.workers.known().items():
            asks = self.settings.rules.require_stake
            stake = (await self.hub.account(address, block)).stake if asks else 0
            # What it still runs although it is over here takes a slot too.
            over = sum((one.task, one.attempt) not in live for one in state.running)
            slots = max(0, state.slots - over)
            runs = frozenset(one.task for one in state.running)
            workers.append(WorkerView(address, slots, state.tags, state.standard, seen, stake, runs))
        heard = {row.worker: row.seen for row in sorted(attempts.values(), key=lambda row: row.seen)}
        for missing in set(heard) - {there.address for there in workers}:
            # It speaks to another scheduler, or spoke before this one started: it has as long as any.
            seen = max(heard[missing], self._started)
            workers.append(WorkerView(missing, 0, 0, False, seen))
        return View(
            block=block,
            tasks=tasks,
            workers=tuple(workers),
            attempts=tuple(
                AttemptView(row.task, row.worker, row.number, row.assignment.deadline, row.status)
                for row in attempts.values()
            ),
            noted=frozenset(await self.store.noted(ids)),
            rules=self.settings.rules,
            handed=frozenset(await self.store.results_of([task.taskid for task in tasks if task.batched])),
        )

    async def _tasks(self, block: Block) -> tuple[TaskView, ...]:
        """The tasks of open deals at `block`; read once for each block."""
        dealids = await self.store.open_deals()
        if self._seen[0] == block.hash and {task.dealid for task in self._seen[1]} == set(dealids):
            return self._seen[1]
        if missing := [dealid for dealid in dealids if dealid not in self._deals]:
            self._deals |= {deal.dealid: deal for deal in await self.hub.deals(missing, block)}
        deals = [self._deals[dealid] for dealid in dealids]
        for number in {deal.category for deal in deals} - set(self._times):
            self._times[number] = (await self.hub.category(number, block)).reference_time
        which = [(deal, index) for deal in deals for index in deal.indices()]
        found = await self.hub.tasks([task_id(deal.dealid, index) for deal, index in which], block)
        tasks = tuple(
            TaskView.of(deal, index, task, self._times[deal.category])
            for (deal, index), task in zip(which, found, strict=True)
        )
        self._seen = (block.hash, tasks)
        return tasks

    # --- acting

    async def _work(self) -> None:
        while True:
            pause = None
            with ExitStack() as held:
                try:
                    if self.block is not None:
                        async with self._sight:
                            view = await self._view(self.block)
                        self._acts = {
                            act: mined
                            for act, mined in self._acts.items()
                            if mined is None or mined > view.block.number
                        }
                        now = max(self.clock(), view.block.timestamp)
                        for action in decide(view, now):
                            await self._do(action, view.block)
                        if any(not task.ended for task in view.tasks):
                            pause = TICK
                        if any(now >= t.contribution_deadline and not t.ended for t in view.tasks):
                            held.enter_context(self._waiting("a task's final deadline"))
                except SealdealError as failed:
                    log.warning("deciding again in %g s: %s", RETRY, failed)
                    pause = RETRY
                with suppress(TimeoutError):
                    # not wait_for: on Python 3.11 it loses a cancellation that comes with the wake
                    async with asyncio.timeout(pause):
                        await self._wake.wait()
                self._wake.clear()

    async def _do(self, action: Action, block: Block) -> None:
        match action:
            case Initialize(tasks):
                unsent = [task for task in tasks if ("initialize", *task) not in self._acts]
                if unsent:
                    self._send("initialize", unsent, self._initialize(unsent))
            case Claim(taskids):
                due = [(taskid,) for taskid in taskids if ("claim", taskid) not in self._acts]
                if due:
                    self._send("claim", due, self._claim([taskid for (taskid,) in due]))
            case ClaimUnset(tasks):
                unsent = [task for task in tasks if ("claim unset", *task) not in self._acts]
                if unsent:
                    self._send("claim unset", unsent, self._claim_unset(unsent))
            case Settle(dealid, taskids):
                due = [(taskid,) for taskid in taskids if ("settle", taskid) not in self._acts]
                if due:
                    self._send("settle", due, self._settle(dealid, [taskid for (taskid,) in due]))
            case Assign():
                await self._assign(action)
            case End():
                assignment = (await self.store.attempt(action.task, action.attempt)).assignment
                log.info(
                    "%s attempt %d: %s", hexstr(action.task), action.attempt, action.cause or "completed"
                )
                await self.store.close_attempt(assignment, action.status, action.cause, action.message)
                self._tell([action.task])
            case Note():
                log.warning("%s: %s, %s", hexstr(action.task), action.cause, action.message)
                status = _NOTES.get(action.cause, "RUNNING_FAILED")
                note = Step(
                    action.task, status, cause=action.cause, message=action.message, once=action.cause
                )
                await self.store.tell([note])
                self._tell([action.task])
            case Forget(dealid):
                await self.store.forget(dealid, block.number)
                self._deals.pop(dealid, None)

    async def _assign(self, action: Assign) -> None:
        given = Assignment(action.task, action.worker, action.attempt, action.deadline)
        if await self.store.assign(given, self.key.sign_digest(digest(self.domain, given))):
            log.info("%s attempt %d: given to %s", hexstr(given.task), given.attempt, given.worker)
            self._signals.set(given.worker)
            self._tell([given.task])

    def _send(
        self, name: str, acts: Sequence[tuple[object, ...]], sending: Awaitable[Receipt | None]
    ) -> None:
        """Send in the background: decisions go on while a transaction waits to be mined."""

        async def send() -> None:
            mined: int | None = -1
            try:
                receipt = await sending
                mined = receipt.block.number if receipt else -1
            except SealdealError as failed:
                log.warning("%s of %d tasks: %s", name, len(acts), failed)
                await asyncio.sleep(RETRY)
            finally:
                for act in acts:
                    self._acts[(name, *act)] = mined
                self._wake.set()

        for act in acts:
            self._acts[(name, *act)] = None
        task = asyncio.create_task(send())
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _initialize(self, tasks: Sequence[tuple[bytes, int]]) -> Receipt | None:
        ids = [task_id(*task) for task in tasks]
        await self.store.tell(Step(taskid, "INITIALIZING", once="INITIALIZING") for taskid in ids)
        self._tell(ids)
        intents = {task: keccak(b"initialize" + task_id(*task)) for task in tasks}
        if len(tasks) > 1:
            try:
                intent = keccak(b"".join(intents.values()))
                return await self.hub.initialize_array(tasks, intent=intent)
            except Reverted:
                pass  # one of them is open already: the others must not wait for that
        return await _each(self.hub.initialize(*task, intent=intents[task]) for task in tasks)

    async def _claim(self, taskids: Sequence[bytes]) -> Receipt | None:
        if len(taskids) > 1:
            try:
                return await self.hub.claim_array(taskids, intent=keccak(b"claim" + b"".join(taskids)))
            except Reverted:
                pass
        return await _each(self.hub.claim(taskid, intent=keccak(b"claim" + taskid)) for taskid in taskids)

    async def _claim_unset(self, tasks: Sequence[tuple[bytes, int]]) -> Receipt | None:
        def intent(some: Sequence[tuple[bytes, int]]) -> bytes:
            return keccak(b"initializeAndClaim" + b"".join(task_id(*task) for task in some))

        if len(tasks) > 1:
            try:
                return await self.hub.initialize_and_claim_array(tasks, intent=intent(tasks))
            except Reverted:
                pass
        return await _each(
            self.hub.initialize_and_claim_array([task], intent=intent([task])) for task in tasks
        )

    async def _settle(self, dealid: bytes, taskids: Sequence[bytes]) -> Receipt | None:
        deal, found = await self.deal(dealid), await self.store.results_of(taskids)
        indices = {task_id(dealid, index): index for index in deal.indices()}
        return await self._batches.settle(deal, {indices[taskid]: row for taskid, row in found.items()})

    def _tell(self, taskids: Iterable[bytes]) -> None:
        for taskid in set(taskids):
            self._signals.set(taskid)

    # --- users

    async def deal(self, dealid: bytes) -> Deal:
        """A deal of this pool. Raises NotFound."""
        if dealid not in self._deals:
            self._deals[dealid] = await self.hub.deal(dealid, self.block)
        return self._deals[dealid]

    async def events(self, task: bytes, after: int, wait: float) -> Events:
        """The steps of a task after a cursor, waiting for the first. Raises NotFound."""
        deadline = asyncio.get_running_loop().time() + min(max(wait, 0.0), MAX_WAIT)
        while True:
            signal = self._signals.of(task)
            ended = await self.store.ended(task)
            found = await self.store.events(task, after)
            if not found:
                await self.store.deal_of(task)  # raises NotFound when it is not ours
            left = deadline - asyncio.get_running_loop().time()
            if found or ended or left <= 0:
                cursor = found[-1].cursor if found else after
                return Events(events=tuple(found), cursor=cursor, ended=ended and len(found) < 500)
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await signal.wait()

    def config(self) -> PoolConfig:
        """What everyone may know of this scheduler."""
        settings = self.settings
        return PoolConfig(
            worker_pool_address=settings.workerpool,
            scheduler_public_address=settings.public_url,
            config_server_url=settings.public_url,
            result_repository_url=settings.results_url,
            ask_for_replicate_period=5000,
            required_worker_version=settings.required_worker_version,
            scheduler=self.key.address,
            chain_id=self.chain_id,
            hub=self.hub.addresses.hub,
            nodes=tuple(SmsNode(address=address, url=url) for address, url in settings.nodes),
            lost_after=settings.rules.lost_after,
        )

    @property
    def open_tasks(self) -> tuple[TaskView, ...]:
        """Tasks that have not ended, as the last decision saw them."""
        return tuple(task for task in self._seen[1] if not task.ended)


async def _each(sendings: Iterable[Awaitable[Receipt]]) -> Receipt | None:
    """One after another, whatever becomes of each; the last receipt. What reverts was done already."""
    receipt = None
    for sending in sendings:
        try:
            receipt = await sending
        except Reverted as refused:
            log.info("not needed: %s", refused)
    return receipt
