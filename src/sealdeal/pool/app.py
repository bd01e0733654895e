"""The scheduler's routes: the public ones of wire.md §4.1 and Compass, ours for workers, and live steps."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

import pydantic
from fastapi import FastAPI, Header, Request, Response
from fastapi.responses import PlainTextResponse

from sealdeal import __version__
from sealdeal.model.deals import Task
from sealdeal.model.errors import InvalidInput, NotFound, TooLarge
from sealdeal.model.types import Address, address, bytes32, hexstr
from sealdeal.sdk.http import answer_errors
from sealdeal.sdk.pool import MAX_WAIT, Granted, Report, WorkerState

from .decide import TaskView
from .gate import Gate
from .official import replicate, task_document, task_status
from .scheduler import Scheduler
from .store import Log

BODY_LIMIT = 1 << 20
"""Bytes of a worker's message: two logs of 100,000 characters fit."""

Authorization = Annotated[str, Header()]
M = TypeVar("M", bound=pydantic.BaseModel)


def create_app(scheduler: Scheduler, secret: bytes | None = None) -> FastAPI:
    """The HTTP face of a scheduler. `secret`: makes log challenges; the same in every process of a pool."""
    app = FastAPI(title="Sealdeal scheduler", version=__version__)
    answer_errors(app)
    store, settings = scheduler.store, scheduler.settings
    gate = Gate(
        scheduler.hub,
        scheduler.chain_id,
        scheduler.key.address,
        secret or secrets.token_bytes(32),
        scheduler.clock,
    )

    @app.get("/version", response_class=PlainTextResponse)
    async def version() -> str:
        return __version__

    @app.get("/actuator/health")
    async def health() -> dict[str, str]:
        return {"status": "UP" if scheduler.block else "OUT_OF_SERVICE"}

    @app.get("/metrics")
    async def metrics() -> dict[str, Any]:
        present, open_tasks = scheduler.workers.present(), scheduler.open_tasks
        total, live = sum(state.slots for state in present.values()), len(await store.live_attempts())
        deals, newest = await store.counts()
        block = scheduler.block
        return {
            "aliveWorkers": len(present),
            "aliveComputingCpu": min(live, total),
            "aliveRegisteredCpu": total,
            "aliveAvailableCpu": max(0, total - live),
            "aliveTotalCpu": total,
            "aliveComputingGpu": 0,
            "aliveRegisteredGpu": 0,
            "aliveAvailableGpu": 0,
            "aliveTotalGpu": 0,
            "currentTaskStatusesCount": Counter(task.status.name for task in open_tasks),
            "latestBlockMetric": {
                "blockNumber": block.number,
                "blockHash": hexstr(block.hash),
                "blockTimestamp": block.timestamp,
            }
            if block
            else None,
            "dealEventsCount": deals,
            "dealsCount": deals,
            "replayDealsCount": 0,
            "latestBlockNumberWithDeal": newest,
        }

    @app.get("/workers/config")
    async def config() -> Any:
        return scheduler.config().model_dump(by_alias=True, mode="json")

    @app.get("/{chain_id:int}/workerpools/{workerpool}")
    async def compass(chain_id: int, workerpool: str) -> dict[str, str]:
        """Compass: where the scheduler of a workerpool is."""
        if chain_id != scheduler.chain_id or address(workerpool) != settings.workerpool:
            raise NotFound(f"no scheduler is known here for workerpool {workerpool} on chain {chain_id}")
        return {"apiUrl": settings.public_url}

    # --- tasks. The challenge's route stands first: its path would fit a task's as well.

    @app.get("/tasks/logs/challenge")
    async def challenge(address: str) -> dict[str, Any]:  # the wire's name of the parameter
        made, domain = gate.challenge(_address(address))
        return made.typed_data(domain)

    async def replicates(taskid: bytes, task: Task) -> list[dict[str, Any]]:
        steps = await store.events(taskid, 0)
        logs = {log.worker: log for log in await store.logs_of(taskid)}
        latest = {row.worker: row for row in await store.attempts_of([taskid])}
        return [replicate(row, steps, logs.get(row.worker), task) for row in latest.values()]

    @app.get("/tasks/{taskid}")
    async def task(taskid: str) -> dict[str, Any]:
        """A task in the official scheduler's words, with our attempts' causes."""
        known = bytes32(taskid)
        dealid, index = await store.deal_of(known)
        deal = await scheduler.deal(dealid)
        hub, at = scheduler.hub, scheduler.block
        task, info, category = await asyncio.gather(
            hub.task(known, at), hub.app(deal.app.pointer, at), hub.category(deal.category, at)
        )
        view = TaskView.of(deal, index, task, category.reference_time)
        steps, attempts = await store.events(known, 0), await store.attempts_of([known])
        sent = any(step.status == "INITIALIZING" for step in steps)
        status = task_status(task, attempts, view.contribution_deadline, scheduler.clock(), sent)
        deadlines = (view.contribution_deadline, view.final_deadline)
        parts = await replicates(known, task)
        return task_document(
            known, task, deal, info, category.reference_time, status, steps, parts, deadlines
        )

    @app.get("/tasks/{taskid}/events")
    async def events(taskid: str, after: int = 0, wait: float = MAX_WAIT) -> Any:
        """The steps of a task after a cursor; held until there is one."""
        found = await scheduler.events(bytes32(taskid), after, wait)
        return found.model_dump(by_alias=True, mode="json")

    @app.get("/tasks/{taskid}/replicates/{wallet}")
    async def one_replicate(taskid: str, wallet: str) -> dict[str, Any]:
        known, wanted = bytes32(taskid), address(wallet)
        if any(row.worker == wanted for row in await store.attempts_of([known])):
            for found in await replicates(known, await scheduler.hub.task(known, scheduler.block)):
                if found["walletAddress"] == wanted:
                    return found
        raise NotFound(f"worker {wanted} has no part in task {taskid}")

    async def logs_of(taskid: str, authorization: str) -> list[Log]:
        known = bytes32(taskid)
        dealid, _ = await store.deal_of(known)
        await gate.requester(authorization, (await scheduler.deal(dealid)).requester)
        return await store.logs_of(known)

    @app.get("/tasks/{taskid}/logs")
    async def logs(taskid: str, authorization: Authorization = "") -> dict[str, Any]:
        """What the app wrote, for the deal's requester only."""
        found = await logs_of(taskid, authorization)
        if not found:
            raise NotFound(
                "there are no logs of this task: they are kept for 3 days, and where only the beneficiary "
                "can read the result, they are in there alone"
            )
        return {"chainTaskId": taskid, "computeLogsList": [_log(log) for log in found]}

    @app.get("/tasks/{taskid}/replicates/{wallet}/logs")
    async def replicate_logs(taskid: str, wallet: str, authorization: Authorization = "") -> dict[str, str]:
        wanted = address(wallet)
        for log in await logs_of(taskid, authorization):
            if log.worker == wanted:
                return _log(log)
        raise NotFound(f"there are no logs of worker {wanted} for this task (they are kept for 3 days)")

    # --- workers

    async def signed(request: Request) -> tuple[Address, bytes]:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > BODY_LIMIT:
                raise TooLarge(f"a worker's message may have {BODY_LIMIT} bytes")
        path = request.url.path
        return gate.worker(request.method, path, bytes(body), request.headers), bytes(body)

    @app.post("/workers/{wallet}/assignments")
    async def poll(wallet: str, request: Request, wait: float = MAX_WAIT) -> Response:
        """A worker's long poll: its heartbeat, and its next assignment."""
        worker, body = await signed(request)
        if worker != address(wallet):
            raise InvalidInput(f"expected worker {wallet} to ask for its own work, {worker} did")
        work = await scheduler.workers.poll(worker, _parse(WorkerState, body), wait, _gone(request))
        if work is None:
            return Response(status_code=204)
        return Response(work.json_bytes(), media_type="application/json")

    @app.post("/tasks/{taskid}/attempts/{attempt}", status_code=204)
    async def report(taskid: str, attempt: int, request: Request) -> Response:
        """A worker tells how its attempt goes."""
        worker, body = await signed(request)
        await scheduler.workers.report(worker, bytes32(taskid), attempt, _parse(Report, body))
        return Response(status_code=204)

    @app.post("/tasks/{taskid}/attempts/{attempt}/authorisation")
    async def authorise(taskid: str, attempt: int, request: Request) -> dict[str, str]:
        """The pool owner's authorisation: for a standard deal, or of an enclave on a hub without a broker."""
        worker, body = await signed(request)
        granted = _parse(Granted, body) if body else None
        word = await scheduler.workers.authorise(worker, bytes32(taskid), attempt, granted)
        return {"signature": hexstr(word)}

    return app


def _address(text: str) -> Address:
    return address(text)


def _log(log: Log) -> dict[str, str]:
    return {"walletAddress": log.worker, "stdout": log.stdout, "stderr": log.stderr}


def _parse(kind: type[M], body: bytes) -> M:
    try:
        return kind.model_validate_json(body)
    except pydantic.ValidationError as wrong:
        found = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in wrong.errors())
        raise InvalidInput(f"expected a {kind.__name__}: {found}") from None


def _gone(request: Request) -> Callable[[], Awaitable[object]]:
    """Returns when the client's connection breaks (after its body was read, nothing else is received)."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    return gone
