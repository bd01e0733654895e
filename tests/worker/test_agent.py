"""The worker's loop on a real chain: what it accepts, what it contributes, and how it ends.

The scheduler is played by the test, and the guest follows a script; both have tests with the real ones in
tests/system.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sealdeal.chain import Sender, Wallet
from sealdeal.guest.stream import Kind
from sealdeal.model.deals import (
    Assignment,
    Deal,
    TaskStatus,
    authorisation_message,
    enclave_message,
    pool_domain,
    task_id,
)
from sealdeal.model.eip712 import digest
from sealdeal.model.errors import InvalidInput, Unavailable
from sealdeal.model.orders import BATCH, TEE_TDX
from sealdeal.model.types import ZERO, hexstr, keccak, unhex
from sealdeal.sdk.guest_release import GuestRelease
from sealdeal.sdk.pool import Attempt, AttemptEnded, Granted, Report, Work, WorkerState
from sealdeal.sdk.results import ResultsClient
from sealdeal.worker.agent import Worker
from sealdeal.worker.relay import Done
from tests.network import CHAIN_ID, Network, key

from .scripted import ScriptedGuest, ScriptedSandbox

FAR = 2_000_000_000


class Pool:
    """A scheduler that gives what it is told to, and keeps what it is told."""

    def __init__(self) -> None:
        self.work: asyncio.Queue[Work] = asyncio.Queue()
        self.states: list[WorkerState] = []
        self.reports: list[Report] = []
        self.away = 0
        """How many more requests fail."""
        self.over = False
        self.refuses: Attempt | None = None
        self.signer = "pool_owner"
        """Whose word lets workers contribute to deals without a TEE."""
        self.silent = 0
        """How many more times nobody gives it."""
        self.heard = asyncio.Condition()

    def _answer(self) -> None:
        if self.away:
            self.away -= 1
            raise Unavailable("the scheduler is away")

    async def poll(self, state: WorkerState, wait: float = 25.0) -> Work | None:
        self._answer()
        self.states.append(state)
        with contextlib.suppress(TimeoutError):
            return await asyncio.wait_for(self.work.get(), 5)
        return None

    async def report(self, task: bytes, attempt: int, report: Report) -> None:
        self._answer()
        if self.over:
            raise AttemptEnded("this attempt is over")
        if report.status == self.refuses:
            raise InvalidInput("no such result is wanted")
        async with self.heard:
            self.reports.append(report)
            self.heard.notify_all()

    async def last(self, *statuses: Attempt) -> Report:
        """The report with one of these statuses, once it came."""
        async with asyncio.timeout(60), self.heard:
            await self.heard.wait_for(lambda: any(r.status in statuses for r in self.reports))
        return next(r for r in self.reports if r.status in statuses)

    async def authorise(self, task: bytes, attempt: int, granted: Granted | None = None) -> bytes:
        if self.silent:
            self.silent -= 1
            raise Unavailable("the scheduler is away")
        enclave = granted.enclave if granted else ZERO
        return key(self.signer).sign_message(authorisation_message(key("worker").address, task, enclave))

    @property
    def said(self) -> list[Attempt]:
        return [r.status for r in self.reports]


class Platform:
    def measure(self, *_: Any) -> dict[str, bytes]:
        return {}

    def evidence(self, *_: Any) -> Any:
        raise AssertionError("no script asks for evidence")


class Stage:
    """A deal with an open task, a worker, and whatever guest the test scripts."""

    def __init__(self, network: Network, folder: Path) -> None:
        self.network, self.folder, self.pool = network, folder, Pool()
        self.scripts: list[Any] = []
        self.sender = Sender(network.rpc, Wallet(key("worker")), outbox=folder / "outbox", patience=5.0)

    async def open(self, **options: Any) -> Work:
        """Make a deal, open its task, and assign it to the worker."""
        app, dataset, pool, request = await self.network.orders(with_dataset=False, **options)
        pool = self.network.sign("pool_owner", replace(pool.order, trust=options.get("trust", 0)))
        hub = self.network.as_("requester")
        dealid, _ = await hub.match_orders(app, dataset, pool, request)
        self.deal: Deal = await hub.deal(dealid)
        if not self.deal.batched:
            await self.network.as_("pool_owner").initialize(self.deal.dealid, 0)
        self.task = task_id(self.deal.dealid, 0)
        return self.assigned()

    def assigned(self, signer: str = "pool_owner", **changes: Any) -> Work:
        told = {"task": self.task, "worker": self.sender.address, "attempt": 1, "deadline": FAR, **changes}
        assignment = Assignment(**told)
        domain = pool_domain(CHAIN_ID, self.network.addresses.hub)
        signature = key(signer).sign_digest(digest(domain, assignment))
        return Work(assignment=assignment, signature=signature, dealid=self.deal.dealid, index=0, tee=True)

    def honest(self, enclave: str = "enclave", **changes: Any) -> dict[str, Any]:
        """What a good guest says at the end."""
        signer, results = key(enclave), b'{"storage":"ipfs","location":"/ipfs/Qm"}'
        worker, value = self.sender.address, keccak(b"digest")
        said = {
            "enclave": signer.address,
            "digest": hexstr(value),
            "results": hexstr(results),
            "callback": "0x",
            "enclaveSignature": hexstr(signer.sign_message(enclave_message(worker, self.task, value))),
            "authorization": hexstr(self.network.authorisation(worker, self.task, signer.address)),
            "error": None,
            "exitCode": 0,
        }
        return {**said, **changes}

    @contextlib.asynccontextmanager
    async def working(
        self, script: Callable[[ScriptedGuest], Awaitable[None]] | None = None, **options: Any
    ) -> AsyncIterator[Worker]:
        async def honest(guest: ScriptedGuest) -> None:
            assert (await guest.hear()).kind is Kind.HELLO
            guest.tell("status", phase="COMPUTING", step="app")
            guest.tell("done", **self.honest())

        self.sandbox = ScriptedSandbox(script or honest)
        worker = Worker(
            hub=self.network.hub,
            sender=self.sender,
            pool=self.pool,  # type: ignore[arg-type]
            results=ResultsClient("http://127.0.0.1:9"),
            sms={},
            platform=Platform(),
            release=GuestRelease(self.folder, bytes(32)),
            cache=self.folder / "cache",
            sandbox=self.sandbox,
            **options,
        )
        running = asyncio.create_task(worker.run())
        try:
            yield worker
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        assert all(guest.killed for guest in self.sandbox.guests)
        assert not worker._running

    async def status(self) -> TaskStatus:
        return (await self.network.hub.task(self.task)).status


@pytest.fixture
async def stage(network: Network, tmp_path: Path) -> Stage:
    return Stage(network, tmp_path)


async def test_a_task_is_run_contributed_and_reported(stage: Stage) -> None:
    work = await stage.open()
    async with stage.working():
        stage.pool.work.put_nowait(work)
        done = await stage.pool.last(Attempt.CONTRIBUTE_AND_FINALIZE_DONE)
        assert await stage.status() is TaskStatus.COMPLETED
        assert done.tx_hash and done.enclave == key("enclave").address and not done.cause
        assert stage.pool.said == [
            Attempt.STARTING,
            Attempt.STARTED,
            Attempt.COMPUTING,
            Attempt.CONTRIBUTE_AND_FINALIZE_ONGOING,
            Attempt.CONTRIBUTE_AND_FINALIZE_DONE,
        ]
        assert stage.sandbox.swept == 1


async def test_the_result_of_a_batched_deal_is_handed_to_the_scheduler(stage: Stage) -> None:
    work = await stage.open(bits=TEE_TDX | BATCH)
    async with stage.working():
        stage.pool.work.put_nowait(work)
        await stage.pool.last(Attempt.STARTED)
        stage.pool.away = 3
        handed = await stage.pool.last(Attempt.CONTRIBUTE_AND_FINALIZE_ONGOING)
        said = stage.honest()
        assert handed.result is not None and handed.result.enclave == said["enclave"]
        assert hexstr(handed.result.digest) == said["digest"]
        assert hexstr(handed.result.signature) == said["enclaveSignature"]
        assert len(handed.result.authorisation) == len(unhex(said["authorization"]))
        while stage.pool.states[-1].running:
            await asyncio.sleep(0.05)
    assert await stage.status() is TaskStatus.UNSET
    assert Attempt.CONTRIBUTE_AND_FINALIZE_DONE not in stage.pool.said


async def test_a_scheduler_that_takes_no_result_hears_that_the_attempt_failed(stage: Stage) -> None:
    work = await stage.open(bits=TEE_TDX | BATCH)
    stage.pool.refuses = Attempt.CONTRIBUTE_AND_FINALIZE_ONGOING
    async with stage.working():
        stage.pool.work.put_nowait(work)
        failed = await stage.pool.last(Attempt.CONTRIBUTE_AND_FINALIZE_FAILED)
        assert "no such result" in failed.message


async def test_the_guest_is_told_what_the_chain_shows(stage: Stage) -> None:
    work = await stage.open()
    heard: list[dict[str, Any]] = []

    async def listen(guest: ScriptedGuest) -> None:
        heard.append((await guest.hear()).json())
        guest.tell("failed", cause="UNKNOWN", message="enough")

    async with stage.working(listen):
        stage.pool.work.put_nowait(work)
        await stage.pool.last(Attempt.START_FAILED)
    [hello] = heard
    assert hello["app_multiaddr"] == "/ipfs/app" and hello["app_checksum"] == hexstr(keccak(b"image"))
    assert hello["dataset_multiaddr"] == "" and hello["worker"] == stage.sender.address
    assert hello["nodes"] == list(await stage.network.quorum.members()) and hello["threshold"] == 2
    assert hello["deal"]["requester"] == stage.network.address("requester")
    category = await stage.network.hub.category(stage.deal.category)
    assert hello["limits"]["seconds"] == category.reference_time


async def test_a_worker_offers_no_network_unless_told_to(stage: Stage) -> None:
    work = await stage.open()
    answers: list[dict[str, Any]] = []

    async def needy(guest: ScriptedGuest) -> None:
        await guest.hear()
        answers.append((await guest.ask(1, "network"))[-1].json())
        guest.tell("failed", **answers[-1])

    async with stage.working(needy):
        stage.pool.work.put_nowait(work)
        failed = await stage.pool.last(Attempt.START_FAILED)
    assert failed.cause == "NETWORK_NOT_OFFERED" and "SEALDEAL_WORKER_NETWORK" in failed.message


async def test_an_attested_fault_is_contributed_and_named(stage: Stage) -> None:
    work = await stage.open()
    fault = {"cause": "APP_COMPUTE_FAILED", "message": "the app exited with code 3"}

    async def faulty(guest: ScriptedGuest) -> None:
        guest.tell("done", **stage.honest(error=fault, exitCode=3))

    async with stage.working(faulty):
        stage.pool.work.put_nowait(work)
        done = await stage.pool.last(Attempt.CONTRIBUTE_AND_FINALIZE_DONE)
        assert (done.cause, done.exit_code) == ("APP_COMPUTE_FAILED", 3)
        assert await stage.status() is TaskStatus.COMPLETED


async def test_a_deal_without_a_tee_is_contributed_on_the_pools_word(stage: Stage) -> None:
    work = await stage.open(bits=0)
    heard: list[dict[str, Any]] = []

    async def standard(guest: ScriptedGuest) -> None:
        heard.append((await guest.hear()).json())
        nothing = {"enclave": ZERO, "enclaveSignature": "0x", "authorization": "0x"}
        guest.tell("done", **stage.honest(**nothing))

    stage.pool.silent = 2
    async with stage.working(standard):
        stage.pool.work.put_nowait(work)
        done = await stage.pool.last(Attempt.CONTRIBUTE_AND_FINALIZE_DONE)
        assert await stage.status() is TaskStatus.COMPLETED
        assert done.tx_hash and done.enclave is None
    assert stage.pool.states[0].standard
    [hello] = heard
    assert (hello["quorum"], hello["nodes"], hello["threshold"]) == (ZERO, [], 0)
    contribution = await stage.network.hub.contribution(stage.task, stage.sender.address)
    assert contribution.enclave == ZERO


async def test_without_the_pools_word_the_hub_takes_nothing(stage: Stage) -> None:
    work = await stage.open(bits=0)
    stage.pool.signer = "requester"
    async with stage.working():
        stage.pool.work.put_nowait(work)
        failed = await stage.pool.last(Attempt.CONTRIBUTE_AND_FINALIZE_FAILED)
        assert failed.cause == "CHAIN_RECEIPT_NOT_VALID"
        assert await stage.status() is TaskStatus.ACTIVE


REFUSED = {
    "signed by a stranger": ({"signer": "requester"}, "WORKERPOOL_AUTHORIZATION_NOT_FOUND"),
    "for another worker": ({"worker": key("second_worker").address}, "TASK_DESCRIPTION_INVALID"),
    "whose time is over": ({"deadline": 1}, "CONTRIBUTION_TIMEOUT"),
}


@pytest.mark.parametrize(("changes", "cause"), REFUSED.values(), ids=REFUSED.keys())
async def test_an_assignment_that_is_not_right_starts_no_guest(
    stage: Stage, changes: dict[str, Any], cause: str
) -> None:
    await stage.open()
    async with stage.working():
        stage.pool.work.put_nowait(stage.assigned(**changes))
        failed = await stage.pool.last(Attempt.START_FAILED)
        assert failed.cause == cause and not stage.sandbox.guests


async def test_an_index_outside_the_deal_is_refused(stage: Stage) -> None:
    work = await stage.open()
    async with stage.working():
        stage.pool.work.put_nowait(work.model_copy(update={"index": 1}))
        assert (await stage.pool.last(Attempt.START_FAILED)).cause == "TASK_DESCRIPTION_INVALID"


async def test_a_deal_that_needs_a_stake_names_it(stage: Stage) -> None:
    work = await stage.open(trust=5)
    account = await stage.network.hub.account(stage.sender.address)
    async with stage.working():
        stage.pool.work.put_nowait(work)
        failed = await stage.pool.last(Attempt.START_FAILED)
        assert failed.cause == "TRUST_NOT_1"
    await stage.network.as_("worker").withdraw(account.stake)
    stage.pool = Pool()
    async with stage.working():
        stage.pool.work.put_nowait(work)
        failed = await stage.pool.last(Attempt.START_FAILED)
        assert failed.cause == "STAKE_TOO_LOW" and "deposit" in failed.message


async def test_a_finished_task_is_not_run_again(stage: Stage) -> None:
    work = await stage.open()
    async with stage.working():
        stage.pool.work.put_nowait(work)
        await stage.pool.last(Attempt.CONTRIBUTE_AND_FINALIZE_DONE)
        stage.pool.reports.clear()
        stage.pool.work.put_nowait(stage.assigned(attempt=2))
        await stage.pool.last(Attempt.CONTRIBUTE_AND_FINALIZE_DONE)  # it was ours: a crash forgot to tell
        assert len(stage.sandbox.guests) == 1


async def test_another_workers_finished_task_is_refused(stage: Stage) -> None:
    work = await stage.open()
    other = key("second_worker").address
    signer, value = key("enclave"), keccak(b"theirs")
    await stage.network.as_("second_worker").contribute_and_finalize(
        stage.task,
        value,
        b"r",
        b"",
        signer.address,
        signer.sign_message(enclave_message(other, stage.task, value)),
        stage.network.authorisation(other, stage.task, signer.address),
    )
    async with stage.working():
        stage.pool.work.put_nowait(work)
        assert (await stage.pool.last(Attempt.START_FAILED)).cause == "TASK_NOT_ACTIVE"


async def test_it_waits_for_the_configured_depth(stage: Stage) -> None:
    work = await stage.open()
    async with stage.working(confirmations=3):
        stage.pool.work.put_nowait(work)
        await stage.pool.last(Attempt.STARTING)
        await asyncio.sleep(0.5)
        assert not stage.sandbox.guests
        await stage.network.mine(3)
        await stage.pool.last(Attempt.CONTRIBUTE_AND_FINALIZE_DONE)


@pytest.mark.parametrize(
    "lie",
    [
        {"enclaveSignature": "0x" + "11" * 65},
        {"authorization": "0x" + "00" * 97},
        {"digest": "0x" + "99" * 32},
    ],
)
async def test_what_the_contract_refuses_is_a_failed_contribution(stage: Stage, lie: dict[str, Any]) -> None:
    work = await stage.open()

    async def liar(guest: ScriptedGuest) -> None:
        guest.tell("done", **stage.honest(**lie))

    async with stage.working(liar):
        stage.pool.work.put_nowait(work)
        failed = await stage.pool.last(Attempt.CONTRIBUTE_AND_FINALIZE_FAILED)
        assert failed.cause == "CHAIN_RECEIPT_NOT_VALID"
        assert await stage.status() is TaskStatus.ACTIVE


async def test_a_worker_without_gas_money_says_so(stage: Stage) -> None:
    work = await stage.open()
    await stage.network.rpc.call("anvil_setBalance", stage.sender.address, "0x0")
    async with stage.working():
        stage.pool.work.put_nowait(work)
        assert (await stage.pool.last(Attempt.CONTRIBUTE_AND_FINALIZE_FAILED)).cause == "OUT_OF_GAS"


async def test_a_second_guest_of_one_task_never_contributes_twice(stage: Stage) -> None:
    """As after a crash between sending and hearing: the same intent gives the first one's transaction."""
    work = await stage.open()
    async with stage.working() as worker:
        task = await stage.network.hub.task(stage.task)
        first = await worker._contribute(work, task, Done.read(stage.honest()))
        again = Done.read(stage.honest(enclave="enclave again"))
        assert await worker._contribute(work, task, again) == first


async def test_phases_name_how_an_attempt_failed(stage: Stage) -> None:
    phases = {
        "APP_DOWNLOADING": Attempt.APP_DOWNLOAD_FAILED,
        "DATA_DOWNLOADING": Attempt.DATA_DOWNLOAD_FAILED,
        "COMPUTING": Attempt.COMPUTE_FAILED,
        "RESULT_UPLOADING": Attempt.RESULT_UPLOAD_FAILED,
    }
    await stage.open()
    script: list[str] = []

    async def fails(guest: ScriptedGuest) -> None:
        guest.tell("status", phase="NONSENSE")
        guest.tell("status", phase=script[0])
        guest.tell("failed", cause="SOME_CAUSE", message="words")

    async with stage.working(fails):
        for attempt, (phase, failed) in enumerate(phases.items(), 1):
            script[:] = [phase]
            stage.pool.work.put_nowait(stage.assigned(attempt=attempt))
            report = await stage.pool.last(failed)
            assert (report.cause, report.message) == ("SOME_CAUSE", "words")


async def test_a_scheduler_that_is_away_holds_nothing_up(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sealdeal.worker.reports.BACK_OFF", (0.01, 0.05))
    work = await stage.open()
    stage.pool.away = 3
    async with stage.working():
        stage.pool.work.put_nowait(work)
        await stage.pool.last(Attempt.STARTING)
        stage.pool.away = 5
        await stage.pool.last(Attempt.CONTRIBUTE_AND_FINALIZE_DONE)


async def test_an_error_of_the_workers_own_is_reported_and_survived(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def mistaken(work: Work) -> None:
        raise KeyError("a mistake")

    work = await stage.open()
    async with stage.working() as worker:
        monkeypatch.setattr(worker, "_look", mistaken)
        stage.pool.work.put_nowait(work)
        failed = await stage.pool.last(Attempt.FAILED)
        assert failed.cause == "UNKNOWN" and "KeyError" in failed.message and "mistake" not in failed.message
        monkeypatch.undo()
        stage.pool.work.put_nowait(stage.assigned(attempt=2))
        await stage.pool.last(Attempt.CONTRIBUTE_AND_FINALIZE_DONE)


async def test_an_attempt_that_is_over_is_stopped(stage: Stage) -> None:
    work = await stage.open()

    async def endless(guest: ScriptedGuest) -> None:
        await guest.hear()
        stage.pool.over = True
        guest.tell("status", phase="COMPUTING")
        await asyncio.sleep(3600)

    async with stage.working(endless):
        stage.pool.work.put_nowait(work)
        async with asyncio.timeout(60):
            while not (stage.sandbox.guests and stage.sandbox.guests[0].killed):
                await asyncio.sleep(0.02)
            while stage.pool.states[-1].running:
                await asyncio.sleep(0.02)


async def test_a_stopped_worker_leaves_no_guest(stage: Stage) -> None:
    work = await stage.open()

    async def endless(guest: ScriptedGuest) -> None:
        guest.tell("status", phase="COMPUTING")
        await asyncio.sleep(3600)

    async with stage.working(endless):
        stage.pool.work.put_nowait(work)
        await stage.pool.last(Attempt.COMPUTING)
    assert stage.pool.said[-1] is Attempt.COMPUTING  # no failure is reported: the task may go on elsewhere


async def test_slots_work_side_by_side_and_are_told(stage: Stage) -> None:
    await stage.open(volume=2)
    await stage.network.as_("pool_owner").initialize(stage.deal.dealid, 1)
    gate = asyncio.Event()

    async def wait(guest: ScriptedGuest) -> None:
        index = (await guest.hear()).json()["index"]
        await gate.wait()
        stage.task = task_id(stage.deal.dealid, index)
        guest.tell("done", **stage.honest())

    async with stage.working(wait, slots=2):
        for index in (0, 1):
            work = stage.assigned(task=task_id(stage.deal.dealid, index))
            stage.pool.work.put_nowait(work.model_copy(update={"index": index}))
        async with asyncio.timeout(60):
            while len(stage.sandbox.guests) < 2 or len(stage.pool.states[-1].running) < 2:
                await asyncio.sleep(0.02)
        gate.set()
        async with asyncio.timeout(60):
            while stage.pool.said.count(Attempt.CONTRIBUTE_AND_FINALIZE_DONE) < 2:
                await asyncio.sleep(0.02)
            while stage.pool.states[-1].running:
                await asyncio.sleep(0.02)


async def test_a_hub_without_a_quorum_is_not_served(stage: Stage) -> None:
    work = await stage.open()
    stage.network = replace(stage.network, addresses=replace(stage.network.addresses, quorum=None))
    async with stage.working():
        stage.pool.work.put_nowait(work)
        assert (await stage.pool.last(Attempt.START_FAILED)).cause == "TEE_NOT_SUPPORTED"
