"""Our tasks in the words of the official scheduler (wire.md §4.1, §4.3, §4.4), for its clients."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sealdeal.model.cid import multiaddr_text
from sealdeal.model.deals import AppInfo, Deal, Task, TaskStatus
from sealdeal.model.errors import InvalidInput
from sealdeal.model.types import ZERO32, hexstr
from sealdeal.sdk.pool import Attempt, TaskEvent

from .rules import ATTEMPTS
from .store import AttemptRow, Log


def date(seconds: float) -> str:
    """ISO 8601 with milliseconds, as its JSON has dates."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def task_status(task: Task, attempts: Sequence[AttemptRow], deadline: int, now: float, sent: bool) -> str:
    """The official task status of what the chain and our attempts show.

    `deadline`: the contribution deadline. `sent`: whether the initialisation was sent.
    """
    if task.status == TaskStatus.COMPLETED:
        return "COMPLETED"
    if task.status == TaskStatus.FAILED:
        return "FAILED"
    if task.status == TaskStatus.REVEALING:
        return "AT_LEAST_ONE_REVEALED" if task.reveal_counter else "CONSENSUS_REACHED"
    if now >= deadline:
        return "CONTRIBUTION_TIMEOUT"
    if task.status == TaskStatus.UNSET and not attempts:
        return "INITIALIZING" if sent else "RECEIVED"
    if len(attempts) >= ATTEMPTS and all(row.status.failed for row in attempts):
        return "RUNNING_FAILED"
    return "RUNNING" if any(row.status != Attempt.CREATED for row in attempts) else "INITIALIZED"


def replicate(row: AttemptRow, steps: Sequence[TaskEvent], log: Log | None, task: Task) -> dict[str, Any]:
    """One worker's part in a task: the official scheduler knows one attempt of each, ours shows the last.

    What it contributed is told once the chain has it.
    """
    contributed = row.worker in task.contributors
    updates = [
        {"status": step.status, "date": date(step.time), "cause": step.cause or None}
        for step in steps
        if step.kind == "attempt" and step.worker == row.worker and step.attempt == row.number
    ]
    return {
        "self": f"/tasks/{hexstr(row.task)}/replicates/{row.worker}",
        "chainTaskId": hexstr(row.task),
        "walletAddress": row.worker,
        "currentStatus": row.status,
        "statusUpdateList": updates,
        "resultLink": _location(task.results) if contributed else None,
        "chainCallbackData": _called_back(task) if contributed else None,
        "contributionHash": _consensus(task) if contributed else None,
        "appLogs": f"/tasks/{hexstr(row.task)}/replicates/{row.worker}/logs" if log else None,
        "appExitCode": row.exit_code,
        "teeSessionGenerationError": None,
        # ours
        "attempt": row.number,
        "step": row.step,
        "cause": row.cause or None,
        "message": row.message or None,
        "enclave": row.enclave,
        "txHash": hexstr(row.tx_hash) if row.tx_hash else None,
    }


def task_document(
    taskid: bytes,
    task: Task,
    deal: Deal,
    app: AppInfo,
    reference_time: int,
    status: str,
    steps: Sequence[TaskEvent],
    replicates: Sequence[dict[str, Any]],
    deadlines: tuple[int, int],
) -> dict[str, Any]:
    """The answer of GET /tasks/{taskId}. `deadlines`: contribution and final, in seconds since 1970."""
    seen = [step for step in steps if step.kind == "task" and not step.cause]
    opened = next((step for step in seen if step.status == "INITIALIZED"), None)
    try:
        name = multiaddr_text(app.multiaddr)
    except InvalidInput:
        name = hexstr(app.multiaddr)
    return {
        "chainTaskId": hexstr(taskid),
        "replicates": list(replicates),
        "maxExecutionTime": reference_time,
        "tag": hexstr(deal.tag),
        "dappType": app.type,
        "dappName": name,
        "commandLine": deal.parsed_params.args,
        "initializationBlockNumber": opened.block if opened else 0,
        "currentStatus": status,
        "trust": deal.trust,
        "uploadingWorkerWalletAddress": task.contributors[0] if task.contributors else None,
        "consensus": _consensus(task),
        "contributionDeadline": date(deadlines[0]),
        "revealDeadline": date(task.reveal_deadline) if task.reveal_deadline else None,
        "finalDeadline": date(deadlines[1]),
        "resultLink": _location(task.results),
        "chainCallbackData": _called_back(task),
        "dateStatusList": [
            {
                "date": date(step.time),
                "status": step.status,
                "chainReceipt": {"blockNumber": step.block, "txHash": hexstr(step.tx_hash)}
                if step.tx_hash
                else None,
            }
            for step in seen
        ],
        # ours
        "dealId": hexstr(deal.dealid),
        "taskIndex": task.idx,
        "notes": [
            {"date": date(step.time), "cause": step.cause, "message": step.message}
            for step in steps
            if step.kind == "task" and step.cause
        ],
    }


def _called_back(task: Task) -> str | None:
    return hexstr(task.results_callback) if task.results_callback else None


def _consensus(task: Task) -> str | None:
    return hexstr(task.consensus_value) if task.consensus_value != ZERO32 else None


def _location(results: bytes) -> str | None:
    """Where a result lies, of the `results` that went on chain (wire.md §3.2)."""
    try:
        found = json.loads(results)
        return str(found["location"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
