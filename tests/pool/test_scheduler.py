"""The scheduler on the real contracts: from the match to the payment, and everything that gets in between."""

from __future__ import annotations

import asyncio
import socket
import time
from dataclasses import replace

import pytest
import uvicorn

from sealdeal.chain import ChainUnreachable, Hub, Rpc, Sender, Wallet
from sealdeal.model.deals import Deal, TaskStatus, authorisation_message, task_id
from sealdeal.model.errors import Forbidden, InvalidInput
from sealdeal.model.keys import recover_message
from sealdeal.model.orders import TEE_TDX, tag
from sealdeal.model.types import RLC, ZERO, Address, keccak
from sealdeal.pool.rules import PoolSettings, Rules
from sealdeal.pool.scheduler import Scheduler
from sealdeal.pool.workers import RECONNECT
from sealdeal.sdk.pool import (
    Attempt,
    AttemptEnded,
    Granted,
    PoolClient,
    Report,
    Running,
    TaskEvent,
    WorkerState,
)
from tests.market.test_market import line_to
from tests.network import QUICK, THRESHOLD, Network, key

from .conftest import Pool, Started, until


async def statuses(pool: Pool, task: bytes) -> list[str]:
    async with pool.client() as client:
        return [event.status for event in (await client.events(task, wait=0)).events]


async def test_a_task_from_match_to_payment(pool: Pool) -> None:
    network = pool.network
    deal = await pool.deal()
    work = await pool.work()
    assert (work.task, work.attempt, work.index, work.tee) == (deal.task_ids()[0], 1, 0, True)
    assert work.assignment.worker == network.address("worker")
    assert [node.url for node in work.nodes] == ["http://node_0", "http://node_1"]
    work.check(pool.scheduler.domain, deal.workerpool.owner)
    assert (await network.hub.task(work.task)).status == TaskStatus.ACTIVE

    async with pool.client("worker") as worker, pool.client() as user:
        seen = asyncio.create_task(_collect(user, work.task))
        for status, step in [
            (Attempt.STARTED, ""),
            (Attempt.COMPUTING, "attested"),
            (Attempt.COMPUTING, "app"),
        ]:
            await worker.report(work.task, 1, Report(status=status, step=step))
        await pool.finish(work)
        done = Report(status=Attempt.CONTRIBUTE_AND_FINALIZE_DONE, exit_code=0)
        await worker.report(work.task, 1, done)
        told = await asyncio.wait_for(seen, 60)
    kinds = [(event.status, event.step) for event in told]
    expected = [
        "RECEIVED",
        "INITIALIZING",
        "INITIALIZED",
        "CREATED",
        "STARTED",
        "RUNNING",
        "COMPUTING",
        "COMPLETED",
    ]
    assert [status for status in expected if status not in dict(kinds)] == []
    assert ("COMPUTING", "attested") in kinds and ("COMPUTING", "app") in kinds
    assert (await network.hub.account(network.address("worker"))).stake > 500 * RLC
    await until(lambda: _no_live(pool))
    (row,) = await pool.scheduler.store.attempts_of([work.task])
    assert (row.status, row.exit_code) == (Attempt.COMPLETED, 0)
    await until(lambda: _forgotten(pool))


async def _collect(client: PoolClient, task: bytes) -> list[TaskEvent]:
    return [event async for event in client.follow(task)]


async def _no_live(pool: Pool) -> bool:
    return not await pool.scheduler.store.live_attempts()


async def _forgotten(pool: Pool) -> bool:
    return not await pool.scheduler.store.open_deals()


async def test_many_tasks_over_two_workers(pool: Pool) -> None:
    deal = await pool.deal(volume=5)
    done: set[bytes] = set()

    async def serve(role: str) -> None:
        async with pool.client(role) as client:
            while len(done) < 5:
                work = await client.poll(WorkerState(), wait=1)
                if work is not None:
                    await pool.finish(work, role)
                    done.add(work.task)
                    await client.report(work.task, 1, Report(status=Attempt.CONTRIBUTE_AND_FINALIZE_DONE))

    async with asyncio.timeout(60):
        await asyncio.gather(serve("worker"), serve("second_worker"))
    assert done == set(deal.task_ids())
    assert [t.status for t in await pool.network.hub.tasks(deal.task_ids())] == [TaskStatus.COMPLETED] * 5


async def test_a_failure_is_stored_and_another_worker_tries(pool: Pool) -> None:
    await pool.deal()
    work = await pool.work("worker")
    async with pool.client("worker") as client:
        failed = Report(
            status=Attempt.DATA_DOWNLOAD_FAILED,
            cause="DATASET_FILE_BAD_CHECKSUM",
            message="expected sha256 0x12, got 0x34",
        )
        await client.report(work.task, 1, failed)
        assert await client.poll(WorkerState(), wait=1) is None  # never again the one that failed
        with pytest.raises(AttemptEnded, match="DATASET_FILE_BAD_CHECKSUM"):
            await client.report(work.task, 1, Report(status=Attempt.COMPUTING))
    again = await pool.work("second_worker")
    assert (again.task, again.attempt) == (work.task, 2)
    async with pool.client() as client:
        document = await client.task(work.task)
        first = next(r for r in document["replicates"] if r["walletAddress"] == work.assignment.worker)
    assert (first["currentStatus"], first["cause"]) == ("DATA_DOWNLOAD_FAILED", "DATASET_FILE_BAD_CHECKSUM")
    assert first["message"] == "expected sha256 0x12, got 0x34"


async def test_an_answer_that_got_lost_is_given_again(pool: Pool) -> None:
    await pool.deal()
    first = await pool.work()
    second = await pool.work()
    assert second == first
    third = await pool.client("worker").poll(
        WorkerState(running=(Running(task=first.task, attempt=1),)), wait=0.3
    )
    assert third is None


async def test_a_worker_that_still_runs_what_is_over_gets_nothing_in_its_place(start: Started) -> None:
    """Its answer could only be to ask again at once, for as long as the old attempt lasts."""
    async with start(rules=Rules(lost_after=1.0)) as pool:
        deal = await pool.deal(volume=2)
        work = await pool.work()
        await until(lambda: _ended(pool, work.task, 1))
        async with pool.client("worker") as client:
            running = (Running(task=work.task, attempt=1),)
            for _ in range(3):
                assert await client.poll(WorkerState(running=running), wait=0.3) is None
            more = await client.poll(WorkerState(running=running, slots=2), wait=10)
            assert more is not None and more.task in set(deal.task_ids()) - {work.task}


async def _ended(pool: Pool, task: bytes, attempt: int) -> bool:
    return (await pool.scheduler.store.attempt(task, attempt)).status.ended


async def test_a_worker_started_again_loses_its_attempt(pool: Pool) -> None:
    await pool.deal()
    work = await pool.work()
    async with pool.client("worker") as client:
        await client.report(work.task, 1, Report(status=Attempt.COMPUTING))
        again = await client.poll(WorkerState(), wait=10)  # it remembers nothing
        assert again is not None
        assert (again.task, again.attempt) == (work.task, 2)
        with pytest.raises(AttemptEnded, match="WORKER_LOST"):
            await client.report(work.task, 1, Report(status=Attempt.COMPUTED))


async def test_a_silent_worker_is_lost_and_another_takes_over(start: Started) -> None:
    async with start(rules=Rules(lost_after=1.0)) as pool:
        await pool.deal()
        work = await pool.work("worker")
        async with pool.client("worker") as client:
            await client.report(work.task, 1, Report(status=Attempt.COMPUTING))
        again = await pool.work("second_worker")
        assert (again.task, again.attempt) == (work.task, 2)
        (first, _) = await pool.scheduler.store.attempts_of([work.task])
        assert (first.status, first.cause) == (Attempt.WORKER_LOST, "WORKER_LOST")


async def test_a_broken_connection_is_noticed_at_once(pool: Pool) -> None:
    """A killed worker's kernel closes its socket: nobody waits for the full minute."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(pool.app, log_level="warning"))
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    await until(lambda: _started(server))
    worker = pool.network.key("worker")
    async with PoolClient(f"http://127.0.0.1:{listening.getsockname()[1]}", key=worker) as client:
        poll = asyncio.create_task(client.poll(WorkerState()))
        await until(lambda: _seen(pool, worker.address, 0.0))
        poll.cancel()
        soon = pool.scheduler.settings.rules.lost_after - RECONNECT
        await until(lambda: _seen(pool, worker.address, soon))
    server.should_exit = True
    await serving


async def _started(server: uvicorn.Server) -> bool:
    return server.started


async def _seen(pool: Pool, worker: Address, ago: float) -> bool:
    """Whether the scheduler knows the worker, and counts it as last heard of that many seconds ago."""
    known = pool.scheduler.workers.known()
    return worker in known and time.time() - known[worker][1] >= ago


async def test_a_scheduler_started_again_goes_on(start: Started) -> None:
    """Killed in the middle of a task: a new one on the same database knows all that matters."""
    async with start() as pool:
        deal = await pool.deal()
        work = await pool.work()
        async with pool.client("worker") as client:
            await client.report(work.task, 1, Report(status=Attempt.COMPUTING))
    async with start() as pool, pool.client("worker") as client:
        await client.report(work.task, 1, Report(status=Attempt.COMPUTED))
        running = (Running(task=work.task, attempt=1),)
        assert await client.poll(WorkerState(running=running), wait=0.5) is None
        assert await pool.client("second_worker").poll(WorkerState(), wait=0.5) is None
        await pool.finish(work)
        await until(lambda: _forgotten(pool))
        assert len(await pool.scheduler.store.attempts_of(deal.task_ids())) == 1


async def test_a_scheduler_that_was_away_catches_up(start: Started) -> None:
    async with start():
        pass
    async with start() as pool:
        await pool.deal()
        await pool.work()


async def test_two_schedulers_of_one_pool(start: Started) -> None:
    """Two processes on one database: each gives work to those who poll it, no task is given twice."""
    rules = Rules(lost_after=2.0)
    async with start(rules=rules) as one, start(rules=rules) as other:
        await one.deal(volume=3)
        first, second = await asyncio.gather(one.work("worker"), other.work("second_worker"))
        assert first.task != second.task
        running = (Running(task=first.task, attempt=1),)
        async with one.client("worker") as worker, other.client("second_worker") as speaks_to_both:
            await speaks_to_both.report(second.task, 1, Report(status=Attempt.STARTED))
            for _ in range(3):  # longer than `lost_after`: the other scheduler never hears of this worker
                await worker.poll(WorkerState(running=running), wait=1)
        rows = await one.scheduler.store.attempts_of([first.task])
        assert [row.status for row in rows] == [Attempt.CREATED]


async def test_nobody_came_and_the_requester_is_refunded(start: Started) -> None:
    async with start() as pool:
        network = pool.network
        before = await network.hub.account(network.address("requester"))
        deal = await pool.deal(category=QUICK, volume=2)
        await network.pass_time(21)
        for task in deal.task_ids():
            await pool.status(task, TaskStatus.FAILED)
        assert await network.hub.account(network.address("requester")) == before
        await until(lambda: _forgotten(pool))
        seen = await statuses(pool, deal.task_ids()[0])
        assert "CONTRIBUTION_TIMEOUT" in seen and seen[-1] == "FAILED"


async def test_one_task_opened_by_somebody_else_does_not_hold_up_the_others(start: Started) -> None:
    async with start() as pool:
        pass
    deal = await pool.deal(volume=3)
    await pool.network.as_("worker").initialize(deal.dealid, 1)
    async with start() as pool:
        for task in deal.task_ids():
            await pool.status(task, TaskStatus.ACTIVE)


async def test_assignments_wait_for_depth(start: Started) -> None:
    async with start(confirmations=2) as pool:
        deal = await pool.deal()
        (task,) = deal.task_ids()
        async with pool.client("worker") as client:
            assert await client.poll(WorkerState(), wait=1) is None
            assert (await pool.network.hub.task(task)).status == TaskStatus.UNSET
            await pool.network.mine(2)
            await pool.status(task, TaskStatus.ACTIVE)
            assert await client.poll(WorkerState(), wait=1) is None  # open, and not deep enough
            await pool.network.mine(2)
            work = await client.poll(WorkerState(), wait=10)
            assert work is not None and work.task == task


async def test_a_reorganisation_takes_a_deal_and_its_attempt(pool: Pool) -> None:
    network = pool.network
    await network.mine(2)
    snapshot = await network.rpc.call("evm_snapshot")
    deal = await pool.deal()
    work = await pool.work()
    await network.rpc.call("evm_revert", snapshot)
    await network.mine(10)  # another chain, and a longer one
    await until(lambda: _no_live(pool))
    (row,) = await pool.scheduler.store.attempts_of([work.task])
    assert (row.status, row.cause) == (Attempt.ABORTED, "TASK_NOT_ACTIVE")
    assert await statuses(pool, deal.task_ids()[0]) != []  # what was tried is still told


async def test_standard_deals_are_finished_on_the_pools_word(pool: Pool) -> None:
    """No order can refuse a request without a tag, so the pool must be able to serve it."""
    network = pool.network
    deal = await _standard_deal(pool)
    assert not deal.tee
    async with pool.client("second_worker") as client:
        assert await client.poll(WorkerState(), wait=1) is None  # it did not say that it does those
    work = await pool.work("worker", standard=True)
    assert not work.tee
    async with pool.client("worker") as client:
        authorisation = await client.authorise(work.task, work.attempt)
        with pytest.raises(Forbidden, match="was given to"):
            await pool.client("second_worker").authorise(work.task, work.attempt)
    value = keccak(b"result")
    await network.as_("worker").contribute_and_finalize(
        work.task, value, b"result", b"", ZERO, b"", authorisation
    )
    await pool.status(work.task, TaskStatus.COMPLETED)


async def _standard_deal(pool: Pool) -> Deal:
    """A request without any tag, matched with a TEE offer: the contract allows it (poco.md §7, rule 7)."""
    network = pool.network
    app, _, offer, request = await network.orders(pool.assets, bits=0, with_dataset=False)
    tee_offer = network.sign("pool_owner", replace(offer.order, tag=tag(TEE_TDX)))
    dealid, receipt = await network.as_("requester").match_orders(app, None, tee_offer, request)
    return await network.hub.deal(dealid, receipt.block)


async def test_no_zero_enclave_authorisation_for_tee_deals(pool: Pool) -> None:
    await pool.deal()
    work = await pool.work()
    with pytest.raises(Forbidden, match="TEE deal"):
        await pool.client("worker").authorise(work.task, work.attempt)


async def test_the_pool_vouches_for_an_enclave_only_where_the_hub_has_no_broker_and_nodes_granted(
    pool: Pool,
) -> None:
    """The official hub has none, and takes the word of the workerpool's owner."""
    network = pool.network
    await pool.deal()
    work, enclave = await pool.work(), key("enclave").address
    worker, other = network.address("worker"), network.address("requester")

    def granted(whose: Address = worker, nodes: int = THRESHOLD, life: int = 3600) -> Granted:
        blob = network.authorisation(whose, work.task, enclave, nodes=nodes, life=life)
        return Granted(enclave=enclave, authorisation=blob)

    client = pool.client("worker")
    with pytest.raises(Forbidden, match=r"TEE broker 0x.* authorises enclaves, not the pool"):
        await client.authorise(work.task, work.attempt, granted())

    await network.as_("hub_owner").set_tee_broker(ZERO)
    for wrong in (granted(other), granted(nodes=THRESHOLD - 1), granted(life=-3600)):
        with pytest.raises(Forbidden, match="the quorum says no"):
            await client.authorise(work.task, work.attempt, wrong)
    with pytest.raises(Forbidden, match="TEE deal"):
        await client.authorise(work.task, work.attempt, Granted(enclave=ZERO, authorisation=b""))
    word = await client.authorise(work.task, work.attempt, granted())
    assert recover_message(authorisation_message(worker, work.task, enclave), word) == network.address(
        "pool_owner"
    )


async def test_only_the_owner_of_the_workerpool_schedules(network: Network, start: Started) -> None:
    async with start() as pool:
        workerpool = pool.assets[2]
    with pytest.raises(InvalidInput, match="who owns workerpool"):
        await Scheduler.open(
            "sqlite+aiosqlite:///unused.db",
            network.as_("worker"),
            network.key("worker"),
            PoolSettings(workerpool),
        )


async def test_deals_of_other_pools_are_none_of_ours(pool: Pool) -> None:
    network = pool.network
    app, dataset, _ = pool.assets
    other, _ = await network.as_("pool_owner").create_workerpool("another")
    deal = await network.deal(assets=(app, dataset, other))
    await network.mine()
    await pool.deal(salt=keccak(b"ours"))
    work = await pool.work()
    assert work.dealid != deal.dealid
    assert (await network.hub.task(task_id(deal.dealid, 0))).status == TaskStatus.UNSET


async def test_the_chain_goes_away_and_comes_back(start: Started, network: Network) -> None:
    async with line_to(network.url) as line, Rpc(line.url) as rpc:
        sender = Sender(rpc, Wallet(network.key("pool_owner")), patience=30.0)
        async with start(hub=Hub(rpc, network.addresses, sender)) as pool:
            await line.cut()
            with pytest.raises(ChainUnreachable):
                await pool.scheduler.hub.block()
            await pool.deal()
            await asyncio.sleep(0.5)  # in which it asks in vain
            await line.mend()
            await pool.finish(await pool.work())
            await until(lambda: _forgotten(pool))
