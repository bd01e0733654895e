"""The scheduler's routes: the wire's documents, who may ask what, and hostile requests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data

from sealdeal.model.eip712 import digest
from sealdeal.model.errors import BadSignature, Forbidden, InvalidInput, NotFound, Unauthorized
from sealdeal.model.types import address, hexstr, keccak
from sealdeal.sdk.http import in_memory
from sealdeal.sdk.pool import (
    CLOCK_WINDOW,
    LOG_LIMIT,
    Attempt,
    AttemptEnded,
    Report,
    WorkerMessage,
    WorkerState,
    worker_domain,
)
from tests.network import CHAIN_ID, key

from .conftest import Pool, Started, until


@pytest.fixture
async def http(pool: Pool) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url="http://scheduler", transport=in_memory(pool.app)) as http:
        yield http


async def test_config_and_compass(pool: Pool, http: httpx2.AsyncClient) -> None:
    workerpool = pool.assets[2]
    config = (await http.get("/workers/config")).json()
    assert {
        "workerPoolAddress": workerpool,
        "schedulerPublicAddress": "http://scheduler",
        "resultRepositoryURL": "http://results",
        "askForReplicatePeriod": 5000,
        "requiredWorkerVersion": "",
    }.items() <= config.items()
    found = await http.get(f"/{CHAIN_ID}/workerpools/{workerpool.lower()}")
    assert found.json() == {"apiUrl": "http://scheduler"}
    assert (await http.get(f"/1/workerpools/{workerpool}")).status_code == 404
    assert (await http.get(f"/{CHAIN_ID}/workerpools/{address(bytes(20))}")).status_code == 404
    assert (await http.get(f"/{CHAIN_ID}/workerpools/junk")).status_code == 400


async def test_metrics_count(pool: Pool, http: httpx2.AsyncClient) -> None:
    await pool.deal()
    await pool.work(slots=3)
    metrics = (await http.get("/metrics")).json()
    expected = {
        "aliveWorkers": 1,
        "aliveTotalCpu": 3,
        "aliveComputingCpu": 1,
        "aliveAvailableCpu": 2,
        "dealsCount": 1,
    }
    assert {name: metrics[name] for name in expected} == expected
    assert metrics["latestBlockMetric"]["blockNumber"] >= metrics["latestBlockNumberWithDeal"] > 0


async def test_the_task_document_is_the_wires(pool: Pool, http: httpx2.AsyncClient) -> None:
    deal = await pool.deal()
    work = await pool.work()
    async with pool.client("worker") as client:
        await client.report(work.task, 1, Report(status=Attempt.STARTED))
        running = (await http.get(f"/tasks/{hexstr(work.task)}")).json()
        await pool.finish(work)
        done = Report(status=Attempt.CONTRIBUTE_AND_FINALIZE_DONE, exit_code=3, cause="APP_COMPUTE_FAILED")
        await client.report(work.task, 1, done)
        assert [event async for event in client.follow(work.task)]
    await until(lambda: _completed(pool, work.task))
    assert running["currentStatus"] == "RUNNING"
    found = (await http.get(f"/tasks/{hexstr(work.task)}")).json()
    assert set(found) >= {
        "chainTaskId", "replicates", "maxExecutionTime", "tag", "dappType", "dappName", "commandLine",
        "initializationBlockNumber", "currentStatus", "trust", "uploadingWorkerWalletAddress", "consensus",
        "contributionDeadline", "revealDeadline", "finalDeadline", "resultLink", "chainCallbackData",
        "dateStatusList",
    }  # fmt: skip
    assert (found["currentStatus"], found["commandLine"], found["trust"]) == ("COMPLETED", "run", 1)
    assert found["tag"] == hexstr(deal.tag)
    assert found["initializationBlockNumber"] > 0
    words = [step["status"] for step in found["dateStatusList"]]
    assert words[:3] == ["RECEIVED", "INITIALIZING", "INITIALIZED"] and words[-1] == "COMPLETED"
    (replicate,) = found["replicates"]
    assert replicate["walletAddress"] == pool.network.address("worker")
    assert (replicate["appExitCode"], replicate["cause"]) == (3, "APP_COMPUTE_FAILED")
    assert [step["status"] for step in replicate["statusUpdateList"]][:2] == ["CREATED", "STARTED"]
    assert replicate["contributionHash"] == found["consensus"] != running["consensus"]
    assert replicate["resultLink"] == found["resultLink"]
    assert running["replicates"][0]["contributionHash"] is None
    one = await http.get(f"/tasks/{hexstr(work.task)}/replicates/{replicate['walletAddress'].lower()}")
    assert one.json() == replicate


async def _completed(pool: Pool, task: bytes) -> bool:
    return (await pool.scheduler.store.attempt(task, 1)).status == Attempt.COMPLETED


async def test_what_a_worker_says_after_the_chain_said_it(pool: Pool) -> None:
    """The chain may be quicker than the reports that carry the app's exit code and its log."""
    await pool.deal()
    work = await pool.work()
    await pool.finish(work)
    await until(lambda: _completed(pool, work.task))
    async with pool.client("worker") as client:
        ongoing = Attempt.CONTRIBUTE_AND_FINALIZE_ONGOING
        await client.report(work.task, 1, Report(status=ongoing, exit_code=3, stdout="said"))
        done = Report(status=Attempt.CONTRIBUTE_AND_FINALIZE_DONE, cause="APP_COMPUTE_FAILED")
        await client.report(work.task, 1, done)
        with pytest.raises(AttemptEnded, match="COMPLETED"):
            await client.report(work.task, 1, Report(status=Attempt.CONTRIBUTE_AND_FINALIZE_FAILED))
        replicate = await client.replicate(work.task, work.assignment.worker)
        (log,) = await client.logs(work.task, pool.network.key("requester"))
    assert log["stdout"] == "said"
    assert (replicate["currentStatus"], replicate["appExitCode"]) == ("COMPLETED", 3)
    assert replicate["cause"] == "APP_COMPUTE_FAILED"


@pytest.mark.parametrize("path", ["", "/events?wait=0", "/logs", "/replicates/0x" + "11" * 20])
async def test_unknown_tasks(http: httpx2.AsyncClient, path: str) -> None:
    assert (await http.get(f"/tasks/{hexstr(keccak(b'none'))}{path}")).status_code == 404
    assert (await http.get(f"/tasks/0x12{path}")).status_code == 400


async def test_logs_are_for_the_requester_alone(pool: Pool, http: httpx2.AsyncClient) -> None:
    await pool.deal()
    work = await pool.work()
    async with pool.client("worker") as client:
        told = Report(status=Attempt.COMPUTED, stdout="x" * LOG_LIMIT + "the end", stderr="warned")
        await client.report(work.task, 1, told)
        (log,) = await client.logs(work.task, pool.network.key("requester"))
        with pytest.raises(Forbidden, match="only the deal's requester"):
            await client.logs(work.task, pool.network.key("worker"))
    assert log["walletAddress"] == pool.network.address("worker")
    assert log["stdout"].endswith("the end") and len(log["stdout"]) == LOG_LIMIT
    assert log["stderr"] == "warned"

    requester = pool.network.key("requester")
    challenge = (
        await http.get(f"/tasks/logs/challenge?address={requester.address}&chainId={CHAIN_ID}")
    ).json()
    assert challenge["domain"] == {"name": "iExec Core", "version": "1", "chainId": CHAIN_ID}
    assert challenge["primaryType"] == "Challenge"
    junk = hexstr(bytes(32))
    signed_junk = f"{junk}_{hexstr(requester.sign_digest(bytes(32)))}_{requester.address}"
    for authorization in ("", "a_b_c", "only", f"{junk}_0x_{requester.address}", signed_junk):
        answer = await http.get(f"/tasks/{hexstr(work.task)}/logs", headers={"Authorization": authorization})
        assert answer.status_code == 401, authorization


async def test_a_challenge_signed_by_somebody_else(pool: Pool, http: httpx2.AsyncClient) -> None:
    await pool.deal()
    work = await pool.work()
    async with pool.client("worker") as client:
        await client.report(work.task, 1, Report(status=Attempt.COMPUTED, stdout="mine"))
    requester = pool.network.address("requester")
    data = (await http.get(f"/tasks/logs/challenge?address={requester}")).json()
    message = encode_typed_data(full_message=data)  # as any wallet would sign it

    async def ask(role: str) -> httpx2.Response:
        signed = Account.sign_message(message, pool.network.key(role).secret)
        proof = f"0x{bytes(signed.message_hash).hex()}_0x{bytes(signed.signature).hex()}_{requester}"
        url = f"/tasks/{hexstr(work.task)}/replicates/{pool.network.address('worker')}/logs"
        return await http.get(url, headers={"Authorization": proof})

    assert (await ask("requester")).json()["stdout"] == "mine"
    assert (await ask("worker")).status_code == 401


# --- workers' signatures


def headers(
    pool: Pool, path: str, body: bytes, *, stamp: int | None = None, role: str = "worker"
) -> dict[str, str]:
    wallet = key(role)
    stamp = stamp or time.time_ns() // 1_000_000
    message = WorkerMessage(pool.scheduler.key.address, f"POST {path}", keccak(body), stamp)
    domain = worker_domain(CHAIN_ID, pool.network.addresses.hub)
    return {
        "X-Sealdeal-Worker": wallet.address,
        "X-Sealdeal-Timestamp": str(stamp),
        "X-Sealdeal-Signature": hexstr(wallet.sign_digest(digest(domain, message))),
    }


async def test_what_a_signature_covers(pool: Pool, http: httpx2.AsyncClient) -> None:
    worker = pool.network.address("worker")
    path, body = f"/workers/{worker}/assignments", WorkerState().json_bytes()
    good = headers(pool, path, body)
    cases: dict[str, tuple[str, bytes, dict[str, str]]] = {
        "another body": (path, WorkerState(slots=9).json_bytes(), good),
        "another path": (path.replace("assignments", "other"), body, headers(pool, path, body)),
        "another worker's name": (
            path,
            body,
            good | {"X-Sealdeal-Worker": pool.network.address("requester")},
        ),
        "another time": (
            path,
            body,
            good | {"X-Sealdeal-Timestamp": str(int(good["X-Sealdeal-Timestamp"]) + 1)},
        ),
        "no signature": (path, body, {k: v for k, v in good.items() if "Signature" not in k}),
        "junk": (path, body, good | {"X-Sealdeal-Signature": "0x1234"}),
        "an old clock": (
            path,
            body,
            headers(pool, path, body, stamp=int((time.time() - CLOCK_WINDOW - 5) * 1000)),
        ),
        "a fast clock": (
            path,
            body,
            headers(pool, path, body, stamp=int((time.time() + CLOCK_WINDOW + 5) * 1000)),
        ),
    }
    for name, (where, what, said) in cases.items():
        answer = await http.post(f"{where}?wait=0", content=what, headers=said)
        assert answer.status_code in (401, 404), (name, answer.text)
    assert worker not in pool.scheduler.workers.present()
    assert (await http.post(f"{path}?wait=0", content=body, headers=good)).status_code == 204
    again = await http.post(f"{path}?wait=0", content=body, headers=good)
    assert (again.status_code, "made before" in again.json()["error"]) == (401, True)


async def test_nobody_polls_or_reports_for_another(pool: Pool, http: httpx2.AsyncClient) -> None:
    other = pool.network.address("second_worker")
    path, body = f"/workers/{other}/assignments", WorkerState().json_bytes()
    answer = await http.post(f"{path}?wait=0", content=body, headers=headers(pool, path, body))
    assert answer.status_code == 400
    await pool.deal()
    work = await pool.work("worker")
    async with pool.client("second_worker") as client:
        with pytest.raises(Forbidden, match="was given to"):
            await client.report(work.task, 1, Report(status=Attempt.COMPUTED))
        with pytest.raises(NotFound, match="no attempt 7"):
            await client.report(work.task, 7, Report(status=Attempt.COMPUTED))


async def test_reports_that_make_no_sense(pool: Pool) -> None:
    await pool.deal()
    work = await pool.work()
    async with pool.client("worker") as client:
        for reserved in (Attempt.CREATED, Attempt.COMPLETED, Attempt.WORKER_LOST):
            with pytest.raises(InvalidInput, match="scheduler to say"):
                await client.report(work.task, 1, Report(status=reserved))
        await client.report(work.task, 1, Report(status=Attempt.COMPUTED))
        with pytest.raises(InvalidInput, match="can't go back"):
            await client.report(work.task, 1, Report(status=Attempt.STARTED))


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"slots":-1}', b'{"slots":"many"}', b'{"surprise":1}', b"[" * 100_000]
)
async def test_malformed_polls(pool: Pool, http: httpx2.AsyncClient, body: bytes) -> None:
    path = f"/workers/{pool.network.address('worker')}/assignments"
    answer = await http.post(f"{path}?wait=0", content=body, headers=headers(pool, path, body))
    assert answer.status_code == 400
    assert "expected a WorkerState" in answer.json()["error"]


async def test_too_long_a_message(pool: Pool, http: httpx2.AsyncClient) -> None:
    path = f"/workers/{pool.network.address('worker')}/assignments"
    answer = await http.post(path, content=b"x" * (2 << 20), headers=headers(pool, path, b""))
    assert answer.status_code == 413


async def test_a_pool_with_a_list_of_workers(start: Started) -> None:
    async with start(whitelist=frozenset({key("worker").address})) as pool:
        async with pool.client("worker") as client:
            assert await client.poll(WorkerState(), wait=0) is None
        async with pool.client("second_worker") as client:
            with pytest.raises(Forbidden, match="not in this pool's list"):
                await client.poll(WorkerState(), wait=0)


async def test_a_client_without_a_key(pool: Pool) -> None:
    async with pool.client() as client:
        with pytest.raises(InvalidInput, match="worker's key"):
            await client.poll(WorkerState())


async def test_work_signed_by_another_pool(pool: Pool) -> None:
    await pool.deal()
    work = await pool.work()
    work.check(pool.scheduler.domain, pool.network.address("pool_owner"))
    with pytest.raises(Unauthorized, match="pool's owner"):
        work.check(pool.scheduler.domain, pool.network.address("requester"))
    with pytest.raises((BadSignature, Unauthorized)):
        forged = work.model_copy(update={"signature": bytes(65)})
        forged.check(pool.scheduler.domain, pool.network.address("pool_owner"))


async def test_events_wait_and_go_on_from_a_cursor(pool: Pool, http: httpx2.AsyncClient) -> None:
    await pool.deal()
    work = await pool.work()
    url = f"/tasks/{hexstr(work.task)}/events"
    first = (await http.get(url, params={"wait": 0})).json()
    assert first["events"][0]["status"] == "RECEIVED"
    assert not first["ended"]
    rest: dict[str, Any] = (await http.get(url, params={"wait": 0, "after": first["cursor"]})).json()
    assert (rest["events"], rest["cursor"]) == ([], first["cursor"])
    async with pool.client("worker") as worker, pool.client() as user:
        waiting = asyncio.create_task(user.events(work.task, first["cursor"], wait=10))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await worker.report(work.task, 1, Report(status=Attempt.STARTED))
        assert (await waiting).events[0].status == "STARTED"


def test_reports_are_bounded() -> None:
    with pytest.raises(ValueError, match="pattern"):
        Report(status=Attempt.COMPUTED, cause="lower case")
    assert Report(status=Attempt.FAILED, message="x" * 10_000).message == "x" * 2_000
