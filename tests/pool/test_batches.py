"""Batched deals on the real contracts, with real SMS nodes and a real result store; workers are played."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from sealdeal.chain import Receipt
from sealdeal.model.batches import short_digest
from sealdeal.model.cid import path_in
from sealdeal.model.deals import Deal, TaskStatus, enclave_message
from sealdeal.model.errors import InvalidInput, NotFound
from sealdeal.model.orders import BATCH, TEE_TDX
from sealdeal.model.results import result_location
from sealdeal.model.types import RLC, keccak
from sealdeal.results.app import create_app as results_app
from sealdeal.results.blobs import FolderStore
from sealdeal.results.uploads import Results
from sealdeal.sdk.http import in_memory
from sealdeal.sdk.pool import Attempt, Handed, Report, Work
from sealdeal.sdk.results import Authorisation, ResultsClient
from sealdeal.sms.app import create_app as sms_app
from tests.network import NODES, Network, key
from tests.sms.conftest import CONFIRMATIONS, Guest, Nodes

from .conftest import Pool, Started, until


@dataclass
class Stage:
    """A quorum, a result store, and a way to start this pool's scheduler, again and again."""

    network: Network
    nodes: Nodes
    store: ResultsClient
    store_app: Any
    start: Started

    def pool(self, away: tuple[str, ...] = (), **options: Any) -> Any:
        """A scheduler to which these nodes do not answer."""
        inside: dict[str, Any] = {"http://results": in_memory(self.store_app)}
        for role in NODES:
            node = self.nodes.running[self.network.address(role)]
            if role not in away:
                inside[f"http://{role}"] = in_memory(sms_app(node))
        return self.start(transports=inside, roles=NODES, **options)

    async def bag(self, pool: Pool, volume: int, **options: Any) -> Deal:
        deal = await pool.deal(volume=volume, bits=TEE_TDX | BATCH, with_dataset=False, **options)
        assert deal.batched
        await self.network.mine(CONFIRMATIONS)
        return deal

    async def result(self, deal: Deal, work: Work, role: str, nodes: tuple[str, ...] = NODES) -> Handed:
        """What an honest guest has made of a task, which lies in the store then."""
        index = work.index - deal.bot_first
        guest = Guest(self.nodes, deal, work.assignment, work.signature, index=index)
        blob = (await guest.gather(nodes)).authorisation
        worker, enclave = self.network.address(role), guest.key
        archive = b"result of %d" % work.index
        digest = short_digest(keccak(archive))
        signature = enclave.sign_message(enclave_message(worker, work.task, digest))
        given = Authorisation(work.task, worker, enclave.address, blob, work.dealid, work.index)
        token = await self.store.token(given, key(role))
        await self.store.upload(
            token, task=work.task, digest=digest, enclave_signature=signature, archive=archive
        )
        return Handed(enclave=enclave.address, digest=digest, signature=signature, authorisation=blob)

    async def do(self, pool: Pool, deal: Deal, role: str = "worker", **options: Any) -> Work:
        """One task, from the poll to the hand-in."""
        work = await pool.work(role, tags=TEE_TDX | BATCH)
        await self.hand_in(pool, work, await self.result(deal, work, role, **options), role)
        return work

    async def hand_in(self, pool: Pool, work: Work, handed: Handed, role: str = "worker") -> None:
        report = Report(status=Attempt.CONTRIBUTE_AND_FINALIZE_ONGOING, result=handed)
        async with pool.client(role) as client:
            await client.report(work.task, work.attempt, report)

    async def ended(self, deal: Deal, *wanted: TaskStatus) -> list[Receipt]:
        """Wait for the tasks' ends; the transactions that completed them, each once."""

        async def all_ended() -> bool:
            return [task.status for task in await self.network.hub.tasks(deal.task_ids())] == list(wanted)

        await until(all_ended)
        done = [t for t, w in zip(deal.task_ids(), wanted, strict=True) if w is TaskStatus.COMPLETED]
        hub = self.network.as_("pool_owner")
        receipts = {r.tx_hash: r for r in [await hub.settlement(taskid) for taskid in done]}
        return list(receipts.values())


@pytest.fixture
async def stage(network: Network, tmp_path: Path, start: Started) -> AsyncIterator[Stage]:
    nodes = Nodes(network, tmp_path)
    for role in NODES:
        await nodes.start(role)
    url = f"sqlite+aiosqlite:///{tmp_path}/results.db"
    results = await Results.open(url, FolderStore(tmp_path / "blobs"), network.hub, key("store"), bytes(32))
    app = results_app(results)
    async with ResultsClient("http://results", in_memory(app)) as client:
        yield Stage(network, nodes, client, app, start)
    await results.close()
    await nodes.close()


DONE, FAILED = TaskStatus.COMPLETED, TaskStatus.FAILED


async def test_a_bag_of_two_workers_ends_in_one_transaction(stage: Stage) -> None:
    network = stage.network
    roles = ("worker", "second_worker", "pool_owner", "requester", "app_provider")
    before = [await network.hub.account(network.address(role)) for role in roles]
    async with stage.pool() as pool:
        deal = await stage.bag(pool, 3)
        first = await stage.do(pool, deal)
        second = await stage.do(pool, deal, "second_worker")
        tasks = await network.hub.tasks(deal.task_ids())
        assert {task.status for task in tasks} == {TaskStatus.UNSET}, "nobody begins them one by one"
        third = await stage.do(pool, deal)
        (settled,) = await stage.ended(deal, DONE, DONE, DONE)
        assert [event.name for event in settled.events].count("TaskFinalize") == 3

        for work, role in ((first, "worker"), (second, "second_worker"), (third, "worker")):
            task = await network.hub.task(work.task)
            assert task.contributors == (network.address(role),)
            location = result_location(task.results)
            assert path_in(location)[1] == str(work.index)
            assert await stage.store.fetch(await stage.store.cid_at(location)) == b"result of %d" % work.index
            row = (await pool.scheduler.store.attempts_of([work.task]))[0]
            await until(lambda row=row: _status(pool, row.task, Attempt.COMPLETED))  # type: ignore[misc]
    after = [await network.hub.account(network.address(role)) for role in roles]
    changes = [(a.stake + a.locked) - (b.stake + b.locked) for a, b in zip(after, before, strict=True)]
    each = 40 * RLC - 40 * RLC // 100
    assert changes == [2 * each, each, 3 * 40 * RLC // 100, -3 * 43 * RLC, 3 * 3 * RLC]


async def _status(pool: Pool, task: bytes, wanted: Attempt) -> bool:
    return (await pool.scheduler.store.attempts_of([task]))[-1].status == wanted


async def test_what_was_handed_in_is_settled_after_a_crash(stage: Stage) -> None:
    async with stage.pool(away=NODES[1:]) as pool:
        deal = await stage.bag(pool, 2)
        await stage.do(pool, deal)
        await stage.do(pool, deal)
        await asyncio.sleep(1)
        tasks = await stage.network.hub.tasks(deal.task_ids())
        assert {task.status for task in tasks} == {TaskStatus.UNSET}, "one node is not the quorum"
    async with stage.pool():
        assert len(await stage.ended(deal, DONE, DONE)) == 1


async def test_a_worker_that_leaves_after_it_handed_in_is_not_missed(stage: Stage) -> None:
    async with stage.pool() as pool:
        deal = await stage.bag(pool, 2)
        first = await stage.do(pool, deal)
        async with pool.client("worker") as client:  # started again: it knows nothing of what it ran
            work = await pool.work("worker", tags=TEE_TDX | BATCH)
            assert work.task != first.task
            await client.report(work.task, work.attempt, Report(status=Attempt.COMPUTE_FAILED))
        assert (await stage.do(pool, deal, "second_worker")).attempt == 2
        assert len(await stage.ended(deal, DONE, DONE)) == 1
        assert len(await pool.scheduler.store.attempts_of([first.task])) == 1


async def test_nodes_that_were_away_for_some_tasks_sign_for_the_others(stage: Stage) -> None:
    async with stage.pool() as pool:
        deal = await stage.bag(pool, 3)
        await stage.do(pool, deal, nodes=NODES[:2])
        await stage.do(pool, deal, nodes=NODES[1:])
        await stage.do(pool, deal, nodes=NODES[1:])
        assert len(await stage.ended(deal, DONE, DONE, DONE)) == 2


async def test_what_others_began_or_ended_holds_nothing_up(stage: Stage) -> None:
    network = stage.network
    async with stage.pool() as pool:
        deal = await stage.bag(pool, 3)
        await network.as_("requester").initialize(deal.dealid, deal.bot_first)
        works = [await pool.work("worker", tags=TEE_TDX | BATCH, slots=3)]
        handed = await stage.result(deal, works[0], "worker")
        await network.complete(deal, deal.bot_first + 2)
        await stage.hand_in(pool, works[0], handed)
        while len(works) < 2:
            work = await pool.work("worker", tags=TEE_TDX | BATCH)
            if work.index != deal.bot_first + 2:
                works.append(work)
                await stage.hand_in(pool, work, await stage.result(deal, work, "worker"))
        assert len(await stage.ended(deal, DONE, DONE, DONE)) == 2


async def test_when_time_runs_out_what_is_there_is_settled_and_the_rest_refunded(stage: Stage) -> None:
    network = stage.network
    async with stage.pool() as pool:
        deal = await stage.bag(pool, 2)
        work = await stage.do(pool, deal)
        await asyncio.sleep(0.5)
        assert (await network.hub.task(work.task)).status is TaskStatus.UNSET
        task = await network.hub.task_of(deal, work.index)
        now = (await network.hub.block()).timestamp
        await network.pass_time(task.contribution_deadline - 200 - now)
        await pool.status(work.task, DONE)
        (other,) = set(deal.task_ids()) - {work.task}
        await network.pass_time(task.final_deadline - task.contribution_deadline + 200)
        await pool.status(other, FAILED)
        assert (await network.hub.account(network.address("requester"))).locked == 0


async def test_what_the_hub_would_not_settle_is_not_taken(stage: Stage) -> None:
    async with stage.pool() as pool:
        deal = await stage.bag(pool, 2)
        work = await pool.work("worker", tags=TEE_TDX | BATCH)
        sound = await stage.result(deal, work, "worker")
        enclave = key("enclave")
        long = keccak(b"a digest of 32 bytes")
        message = enclave_message(stage.network.address("worker"), work.task, sound.digest)
        for wrong, reason in (
            ({"digest": long}, "short digest"),
            ({"enclave": enclave.address}, "to sign the digest"),
            (
                {"authorisation": stage.network.authorisation(enclave.address, work.task, enclave.address)},
                "hub",
            ),
            ({"enclave": enclave.address, "signature": enclave.sign_message(message)}, "the hub says no"),
        ):
            with pytest.raises(InvalidInput, match=reason):
                await stage.hand_in(pool, work, sound.model_copy(update=wrong))
        await stage.hand_in(pool, work, sound)
        await stage.hand_in(pool, work, sound)  # the answer was lost: said again

        other = await pool.work("worker", tags=TEE_TDX | BATCH)
        worker = stage.network.address("worker")
        unstored = Handed(
            enclave=enclave.address,
            digest=sound.digest,
            signature=enclave.sign_message(enclave_message(worker, other.task, sound.digest)),
            authorisation=stage.network.authorisation(worker, other.task, enclave.address),
        )
        with pytest.raises(NotFound, match="no result"):
            await stage.hand_in(pool, other, unstored)

        plain = await pool.deal(salt=b"\1".rjust(32, b"\0"))
        await pool.status(plain.task_ids()[0], TaskStatus.ACTIVE)
        row = replace((await pool.scheduler.store.attempts_of([work.task]))[0])
        with pytest.raises(InvalidInput, match="does not ask for batches"):
            await pool.scheduler._batches.take(row, plain, sound)
