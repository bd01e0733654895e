"""The worker: asks its scheduler for tasks, runs each in a guest, and contributes what the guest hands over.

It keeps no state of its own: what is assigned is the scheduler's, what is contributed is the chain's, and a
transaction under way is in the sender's outbox. Recovery is starting again.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import sealdeal
from sealdeal.chain import Hub, Quorum, Sender
from sealdeal.chain.errors import BlockGone, NotMined, OutOfGasMoney, Reverted
from sealdeal.guest.hello import VERSION, Hello, Limits
from sealdeal.model.cid import multiaddr_text
from sealdeal.model.deals import (
    ContributionStatus,
    Deal,
    Task,
    TaskStatus,
    authorisation_message,
    pool_domain,
    task_id,
)
from sealdeal.model.errors import NotFound, SealdealError, Unauthorized, Unavailable
from sealdeal.model.evidence import Evidence
from sealdeal.model.types import ZERO, Address, Block, hexstr, keccak
from sealdeal.sdk.guest_release import GuestRelease
from sealdeal.sdk.http import Client
from sealdeal.sdk.pool import Attempt, Granted, Handed, PoolClient, Report, Running, Work, WorkerState
from sealdeal.sdk.registry import Registries
from sealdeal.sdk.results import Authorisation, ResultsClient
from sealdeal.sdk.sms import SmsClient

from . import drivers
from .bulk import bulk_files, look_at_bulk
from .cgroups import Bounds
from .downloads import Downloads
from .machine import Machine
from .proxy import NetworkMode, way_out
from .registry import Images
from .relay import AttemptFailed, Done, Platform, Relay, World
from .reports import Reports, waits
from .sandbox import Sandbox

log = logging.getLogger("sealdeal.worker")

VISIBLE_SECONDS: Final = 60.0
"""How long a worker waits for a task that its scheduler sees on chain and it does not see yet."""
AROUND_SECONDS: Final = 600.0
"""Allowed to a guest around its app's time: images and data arrive, nodes answer, results leave."""
_PAUSE: Final = 0.2
_CHAIN_PAUSE: Final = 1.0
_FAILED: Final = {
    Attempt.CREATED: Attempt.START_FAILED,
    Attempt.STARTING: Attempt.START_FAILED,
    Attempt.STARTED: Attempt.START_FAILED,
    Attempt.APP_DOWNLOADING: Attempt.APP_DOWNLOAD_FAILED,
    Attempt.APP_DOWNLOADED: Attempt.START_FAILED,
    Attempt.DATA_DOWNLOADING: Attempt.DATA_DOWNLOAD_FAILED,
    Attempt.DATA_DOWNLOADED: Attempt.DATA_DOWNLOAD_FAILED,
    Attempt.COMPUTING: Attempt.COMPUTE_FAILED,
    Attempt.COMPUTED: Attempt.RESULT_UPLOAD_FAILED,
    Attempt.RESULT_UPLOADING: Attempt.RESULT_UPLOAD_FAILED,
}
"""How an attempt has failed, from how far it was; anything later is a failed contribution."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A task as this worker's own final block shows it."""

    block: Block
    deal: Deal
    task: Task
    hello: Hello
    broker: Address
    """Who authorises enclaves; zero: the workerpool's owner."""


class Worker:
    """One worker of one workerpool, with `slots` guests at a time."""

    def __init__(
        self,
        *,
        hub: Hub,
        sender: Sender,
        pool: PoolClient,
        results: ResultsClient,
        sms: Mapping[Address, SmsClient],
        platform: Platform,
        release: GuestRelease,
        cache: Path,
        slots: int = 1,
        confirmations: int = 0,
        driver: str = drivers.DEFAULT,
        bounds: Bounds | None = None,
        limits: Limits | None = None,
        sandbox: Sandbox | None = None,
        registries: Registries | None = None,
        network: NetworkMode = "off",
        clock: Callable[[], float] = time.time,
        name: str = "",
    ) -> None:
        """`sender`: of the worker's wallet, with an outbox that survives. `sms`: clients by node; nodes that
        only the scheduler knows are reached at the URL it gives. `cache`: a folder of this worker's own.
        `confirmations`: blocks on top of a task before work on it begins. `registries`: those of images that
        this worker's operator knows. `driver`: one of `drivers.DRIVERS`. `bounds`, `limits`: of each guest;
        without bounds, this machine is divided among the slots.
        `network`: whether apps may reach the hosts that they declare, through this machine.

        Raises Unavailable when this machine cannot start guests, InvalidInput when they would be too small.
        """
        self.hub, self.sender, self.pool, self.results = hub.using(sender), sender, pool, results
        self.sms, self.platform, self.release = dict(sms), platform, release
        self.slots, self.confirmations, self.clock, self.name = slots, confirmations, clock, name
        self.limits = limits or Limits(seconds=0)
        self.network: NetworkMode = network
        own = hashlib.sha256(f"{cache.resolve()} {sender.address}".encode()).hexdigest()[:16]
        self.sandbox: Sandbox = sandbox or drivers.sandbox(
            driver, release, own, bounds or Machine.here().bounds(slots), cache / "scratch"
        )
        limit = max(self.limits.image_bytes, self.limits.dataset_bytes)
        self.downloads = Downloads(cache / "content", results, limit=limit)
        self.images = Images(self.downloads, registries or Registries(), limit=self.limits.image_bytes)
        self._running: dict[bytes, tuple[int, asyncio.Task[None]]] = {}
        self._free = list(range(slots))
        self._changed = asyncio.Event()

    @property
    def address(self) -> Address:
        return self.sender.address

    @property
    def missing(self) -> tuple[str, ...]:
        """Limits on guests that this machine does not enforce, each with its reason. Whoever starts a worker
        names them to its operator."""
        return self.sandbox.capabilities.missing

    # --- the loop ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work until cancelled; then every guest is gone."""
        for limit in self.missing:
            log.info("worker %s: this machine does not enforce: %s", self.address, limit)
        try:
            if left := await asyncio.to_thread(self.sandbox.sweep):
                log.warning("worker %s: killed %d guests of an earlier run", self.address, left)
            await self._recover()
            await self._poll_for_ever()
        finally:
            tasks = [task for _, task in self._running.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _recover(self) -> None:
        """Wait until what an earlier run had sent is mined, so that no task is begun twice."""
        for wait in waits():
            try:
                if not await self.sender.recover():
                    return
            except Unavailable as error:
                log.warning("worker %s: the chain does not answer: %s", self.address, error)
            await asyncio.sleep(wait)

    async def _poll_for_ever(self) -> None:
        pauses = waits()
        while True:
            self._changed.clear()
            poll = asyncio.create_task(self.pool.poll(self._state()))
            changed = asyncio.create_task(self._changed.wait())
            try:
                await asyncio.wait({poll, changed}, return_when=asyncio.FIRST_COMPLETED)
                if not poll.done():
                    continue  # what it told the scheduler is no longer true
                work = poll.result()
                pauses = waits()
            except (SealdealError, ValueError) as error:  # an answer that is none is a ValueError
                log.warning("worker %s: its scheduler: %s: %s", self.address, type(error).__name__, error)
                await asyncio.sleep(next(pauses))
                continue
            finally:
                for each in (poll, changed):
                    each.cancel()
                await asyncio.gather(poll, changed, return_exceptions=True)
            if work is not None and work.task not in self._running and self._free:
                self._begin(work)

    def _state(self) -> WorkerState:
        running = tuple(Running(task=task, attempt=attempt) for task, (attempt, _) in self._running.items())
        return WorkerState(
            slots=self.slots, running=running, name=self.name, version=sealdeal.__version__, standard=True
        )

    def _begin(self, work: Work) -> None:
        slot = self._free.pop(0)
        task = asyncio.create_task(self._attempt(work, slot))
        self._running[work.task] = work.attempt, task

        def ended(task: asyncio.Task[None]) -> None:
            del self._running[work.task]
            self._free.append(slot)
            self._changed.set()
            if not task.cancelled() and (error := task.exception()) is not None:
                log.error("worker %s: an attempt ended in an error of its own", self.address, exc_info=error)

        task.add_done_callback(ended)

    # --- one attempt ------------------------------------------------------------------------------

    async def _attempt(self, work: Work, slot: int) -> None:
        reports = Reports(self.pool, work)
        doing = asyncio.create_task(self._do(work, slot, reports))
        reports.stop = doing.cancel
        try:
            await doing
        except asyncio.CancelledError:
            if not reports.refused:
                reports.drop()  # this worker is being stopped: the scheduler will notice
                raise
            log.info("worker %s: %s is over for the scheduler", self.address, hexstr(work.task))
        finally:
            doing.cancel()
            await asyncio.gather(doing, return_exceptions=True)
            await reports.close()

    async def _do(self, work: Work, slot: int, reports: Reports) -> None:
        try:
            reports.add(Report(status=Attempt.STARTING))
            seen = await self._look(work)
            if seen.task.status is TaskStatus.COMPLETED:  # by us, before a crash
                reports.add(Report(status=Attempt.CONTRIBUTE_AND_FINALIZE_DONE))
                return
            reports.add(Report(status=Attempt.STARTED))
            done = await self._run_guest(work, slot, seen, reports)
            told = Report(
                status=Attempt.CONTRIBUTE_AND_FINALIZE_ONGOING,
                cause=done.fault_cause,
                message=done.fault_message,
                exit_code=done.exit_code,
                stdout=done.stdout,
                stderr=done.stderr,
                enclave=done.enclave if seen.deal.tee else None,
            )
            if seen.deal.batched:
                await self._hand_in(seen.task, done, told, reports)
                return
            reports.add(told)
            reports.stop = lambda: None  # a contribution that has begun is brought to its end
            transaction = await self._contribute(work, seen.task, done)
            sent = {
                "status": Attempt.CONTRIBUTE_AND_FINALIZE_DONE,
                "tx_hash": transaction,
                "stdout": None,
                "stderr": None,
            }
            reports.add(told.model_copy(update=sent))
        except (SealdealError, OSError) as error:
            cause = error.cause if isinstance(error, AttemptFailed) else _cause_of(error)
            failed = _FAILED.get(reports.last, Attempt.CONTRIBUTE_AND_FINALIZE_FAILED)
            log.warning("worker %s: %s: %s: %s", self.address, hexstr(work.task), cause, error)
            reports.add(Report(status=failed, cause=cause, message=str(error)))
        except Exception as error:
            log.exception("worker %s: %s: an error of its own", self.address, hexstr(work.task))
            said = f"the worker met {type(error).__name__}; its log says more"
            reports.add(Report(status=Attempt.FAILED, cause="UNKNOWN", message=said))

    async def _look(self, work: Work) -> Seen:
        """The task and all that belongs to it, at this worker's final block; checked for it to be worked on.

        Raises AttemptFailed that says why not.
        """
        give_up = asyncio.get_running_loop().time() + VISIBLE_SECONDS
        while True:
            try:
                block = await self.hub.final_block(self.confirmations)
                deal = await self.hub.deal(work.dealid, block)
                task = await self.hub.task(work.task, block)
                if task.status is not TaskStatus.UNSET or deal.batched:
                    return await self._check(work, block, deal)
            except (NotFound, BlockGone):
                pass
            if asyncio.get_running_loop().time() > give_up:
                raise AttemptFailed(
                    "BLOCK_NOT_REACHED",
                    f"the task is not on chain {self.confirmations} blocks deep, as this worker sees it",
                )
            await asyncio.sleep(_PAUSE)

    async def _check(self, work: Work, block: Block, deal: Deal) -> Seen:
        chain_id = await self.hub.rpc.chain_id()
        hub, assignment = self.hub.addresses.hub, work.assignment
        work.check(pool_domain(chain_id, hub), deal.workerpool.owner)
        if assignment.worker != self.address:
            raise AttemptFailed(
                "TASK_DESCRIPTION_INVALID", f"the assignment is for worker {assignment.worker}"
            )
        if work.index not in deal.indices() or task_id(deal.dealid, work.index) != assignment.task:
            raise AttemptFailed(
                "TASK_DESCRIPTION_INVALID", f"the task is none of deal {hexstr(deal.dealid)}'s"
            )
        task = await self.hub.task_of(deal, work.index, block)
        account, mine = await asyncio.gather(
            self.hub.account(self.address, block), self.hub.contribution(work.task, self.address)
        )
        now = await self.hub.task_of(deal, work.index)
        ours = mine.status is not ContributionStatus.UNSET
        if not deal.awaits(now) and not (now.status is TaskStatus.COMPLETED and ours):
            raise AttemptFailed("TASK_NOT_ACTIVE", f"the task is {now.status.name} already")
        if deal.trust > 1:
            stake = f"deals of trust {deal.trust} ask a worker to lock {deal.worker_stake} nRLC"
            if account.stake < deal.worker_stake:
                raise AttemptFailed(
                    "STAKE_TOO_LOW", f"{stake}, and {self.address} has {account.stake}: deposit"
                )
            raise AttemptFailed("TRUST_NOT_1", f"{stake}, and this worker contributes alone only")
        if min(task.contribution_deadline, work.deadline) <= block.timestamp:
            raise AttemptFailed("CONTRIBUTION_TIMEOUT", "the time to contribute to the task is over")
        hello, broker = await asyncio.gather(
            self._hello(work, block, deal, chain_id), self.hub.tee_broker(block)
        )
        return Seen(block, deal, now, hello, broker)

    async def _hello(self, work: Work, block: Block, deal: Deal, chain_id: int) -> Hello:
        app, category, (broker, nodes, threshold) = await asyncio.gather(
            self.hub.app(deal.app.pointer, block),
            self.hub.category(deal.category, block),
            self._vouchers(deal, block),
        )
        dataset = await self.hub.dataset(deal.dataset.pointer, block) if deal.has_dataset else None
        bulk_cid = deal.parsed_params.bulk_cid
        bulk = await look_at_bulk(self.hub, self.downloads, deal, work.index, block) if bulk_cid else ()
        return Hello(
            version=VERSION,
            chain_id=chain_id,
            hub=self.hub.addresses.hub,
            quorum=broker,
            nodes=nodes,
            threshold=threshold,
            deal=deal,
            index=work.index,
            worker=self.address,
            attempt=work.attempt,
            app_multiaddr=multiaddr_text(app.multiaddr),
            app_checksum=app.checksum,
            dataset_multiaddr=multiaddr_text(dataset.multiaddr) if dataset else "",
            dataset_checksum=dataset.checksum if dataset else bytes(32),
            assignment=work.assignment,
            signature=work.signature,
            limits=replace(self.limits, seconds=category.reference_time),
            bulk=bulk,
        )

    async def _vouchers(self, deal: Deal, block: Block) -> tuple[Address, tuple[Address, ...], int]:
        """The quorum, its nodes, and how many of them it takes; nobody for a deal without a TEE."""
        if not deal.tee:
            return ZERO, (), 0
        broker = self.hub.addresses.quorum
        if broker is None:
            raise AttemptFailed(
                "TEE_NOT_SUPPORTED", "the hub has no TEE-broker quorum to vouch for an enclave"
            )
        quorum = Quorum(self.hub.rpc, broker)
        nodes, threshold = await asyncio.gather(quorum.members(block), quorum.threshold(block))
        return broker, tuple(nodes), threshold

    async def _run_guest(self, work: Work, slot: int, seen: Seen, reports: Reports) -> Done:
        hello, clients = seen.hello, dict[Address, Client](self.sms) if seen.deal.tee else {}
        word = b"" if seen.deal.tee else await self._pools_word(work)
        async with contextlib.AsyncExitStack() as stack:
            for node in work.nodes:
                if node.address in hello.nodes and node.address not in clients:
                    clients[node.address] = await stack.enter_async_context(SmsClient(node.url))
            files = self._files(hello, stack)
            guest = await self.sandbox.start(slot, hello.app_checksum)
            stack.push_async_callback(_gone, guest.kill)
            world = World(
                evidence=partial(self._evidence, hello.app_checksum),
                files=files,
                nodes=clients,
                results=self.results,
                login=partial(self._login, work, seen, word),
                network=way_out(self.network, files["image"], hello.app_checksum),
            )
            left = min(seen.task.contribution_deadline, work.deadline) - seen.block.timestamp
            seconds = min(left, hello.limits.seconds + AROUND_SECONDS)
            try:
                async with asyncio.timeout(seconds):
                    done = await Relay(guest, world, reports.say).run(hello)
            except TimeoutError:
                raise AttemptFailed(
                    "GUEST_TIMEOUT", f"the guest did not end within {seconds:.0f} s"
                ) from None
        if not seen.deal.tee:
            return replace(done, enclave=ZERO, enclave_signature=b"", authorisation=word)
        if done.enclave == ZERO or not done.enclave_signature:
            raise AttemptFailed("ENCLAVE_SIGNATURE_NOT_FOUND", "the guest handed over no signature")
        word = await self._authorisation(work, seen, done.enclave, done.authorisation)
        return replace(done, authorisation=word)

    async def _authorisation(self, work: Work, seen: Seen, enclave: Address, blob: bytes) -> bytes:
        """What the hub takes for an enclave: the nodes' grants, or, without a TEE broker, the pool's word for
        them."""
        if seen.broker != ZERO:
            return blob
        return await self._pools_word(work, Granted(enclave=enclave, authorisation=blob))

    async def _pools_word(self, work: Work, granted: Granted | None = None) -> bytes:
        """The pool owner's authorisation to contribute; waits for a pool that is away."""
        pauses = waits()
        while True:
            try:
                return await self.pool.authorise(work.task, work.attempt, granted)
            except Unavailable as away:
                if self.clock() >= work.deadline:
                    raise AttemptFailed("WORKERPOOL_AUTHORIZATION_NOT_FOUND", str(away)) from None
                await asyncio.sleep(next(pauses))

    def _files(
        self, hello: Hello, stack: contextlib.AsyncExitStack
    ) -> dict[str, Callable[[], Awaitable[Path]]]:
        """What the guest may fetch; the downloads begin at once, while the guest starts."""
        wanted = {"image": self.images.get(hello.app_multiaddr, hello.app_checksum)}
        if hello.deal.has_dataset:
            wanted["dataset"] = self.downloads.get(hello.dataset_multiaddr)
        for number, url in enumerate(hello.deal.parsed_params.input_files, 1):
            wanted[f"input/{number}"] = self.downloads.get(url)

        def begin(download: Coroutine[Any, Any, Path]) -> Callable[[], Awaitable[Path]]:
            task = asyncio.create_task(download)
            stack.push_async_callback(self._settled, task)
            return lambda: asyncio.shield(task)

        def later(download: Callable[[], Coroutine[Any, Any, Path]]) -> Callable[[], Awaitable[Path]]:
            return lambda: begin(download())()

        many = {name: later(download) for name, download in bulk_files(self.downloads, hello).items()}
        return {name: begin(download) for name, download in wanted.items()} | many

    async def _settled(self, download: asyncio.Task[Path]) -> None:
        """A task is over, and what was fetched for it alone goes."""
        download.cancel()
        (place,) = await asyncio.gather(download, return_exceptions=True)
        if isinstance(place, Path):
            self.downloads.forget(place)

    async def _evidence(self, app_checksum: bytes, report_data: bytes) -> Evidence:
        registers = self.platform.measure(self.release.digest, app_checksum)
        return await asyncio.to_thread(self.platform.evidence, report_data, registers, int(self.clock()))

    async def _login(self, work: Work, seen: Seen, word: bytes, enclave: Address, blob: bytes) -> str:
        """A token of the result store, for the guest's grants, or for the pool's `word` in their place."""
        signature = word or await self._authorisation(work, seen, enclave, blob)
        asked = Authorisation(
            work.task, self.address, enclave, signature, dealid=work.dealid, index=work.index
        )
        return await self.results.token(asked, self.sender.wallet.key)

    async def _contribute(self, work: Work, task: Task, done: Done) -> bytes | None:
        """Give the result and end the task, once; waits for a chain that is away until the time is over.

        Returns the transaction's hash. Raises AttemptFailed.
        """
        message = authorisation_message(self.address, work.task, done.enclave)
        give_up = self.clock() + max(0, task.contribution_deadline - (await self._now()))
        while True:
            try:
                receipt = await self.hub.contribute_and_finalize(
                    work.task,
                    done.digest,
                    done.results,
                    done.callback,
                    done.enclave,
                    done.enclave_signature,
                    done.authorisation,
                    intent=keccak(b"contributeAndFinalize" + work.task),
                )
                return receipt.tx_hash
            except OutOfGasMoney as poor:
                raise AttemptFailed("OUT_OF_GAS", str(poor)) from None
            except Reverted as refused:
                late = self.clock() >= give_up
                cause = "CONTRIBUTION_TIMEOUT" if late else "CHAIN_RECEIPT_NOT_VALID"
                raise AttemptFailed(cause, f"{refused} (authorisation of {hexstr(message)})") from None
            except (NotMined, Unavailable) as away:
                if self.clock() >= give_up:
                    raise AttemptFailed("CHAIN_UNREACHABLE", str(away)) from None
                log.warning("worker %s: contribution waits for the chain: %s", self.address, away)
                await asyncio.sleep(_CHAIN_PAUSE)

    async def _hand_in(self, task: Task, done: Done, told: Report, reports: Reports) -> None:
        """Give the result to the scheduler, which settles it in a batch; waits for one that is away until the
        time is over. Raises AttemptFailed, or the scheduler's refusal."""
        handed = Handed(
            enclave=done.enclave,
            digest=done.digest,
            signature=done.enclave_signature,
            authorisation=done.authorisation,
        )
        reports.add(told.model_copy(update={"step": "handed in", "result": handed}))
        try:
            async with asyncio.timeout(max(0, task.contribution_deadline - (await self._now()))):
                await reports.said()
        except TimeoutError:
            raise AttemptFailed("CONTRIBUTION_TIMEOUT", "the scheduler took no result in time") from None
        if reports.refusal is not None:
            raise reports.refusal

    async def _now(self) -> int:
        """The chain's time, or this machine's while the chain is away."""
        try:
            return (await self.hub.block()).timestamp
        except Unavailable:
            return int(self.clock())


def _cause_of(error: Exception) -> str:
    if isinstance(error, Unavailable):
        return "CHAIN_UNREACHABLE"
    if isinstance(error, Unauthorized):
        return "WORKERPOOL_AUTHORIZATION_NOT_FOUND"
    return "UNKNOWN" if isinstance(error, OSError) else "TASK_DESCRIPTION_INVALID"


async def _gone(kill: Callable[[], Awaitable[None]]) -> None:
    """A guest is gone, also when this worker is being cancelled meanwhile."""
    await asyncio.shield(asyncio.ensure_future(kill()))
