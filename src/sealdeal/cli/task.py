"""`sealdeal task`: what became of a task, and what is happening to it now."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from cyclopts import App, Parameter

from sealdeal.model.deals import Task
from sealdeal.model.errors import NotFound, Unavailable
from sealdeal.model.types import Bytes32, bytes32, hexstr
from sealdeal.sdk.client import Sealdeal

from . import session
from .session import AsJson

task = App(name="task", help="Look at tasks, or follow one.")


@task.command
async def show(
    taskid: str,
    *,
    follow: Annotated[bool, Parameter(negative=())] = False,
    timeout: float = 600,
    json: AsJson = False,
) -> None:
    """A task as the chain shows it, and what its scheduler tells of each attempt.

    Parameters
    ----------
    taskid
        The task's id, 0x and 64 digits.
    follow
        Print each step as it happens, until the task has ended.
    timeout
        Seconds to follow.
    """
    wanted = bytes32(taskid)
    async with session.connected() as client:
        if follow:
            await _follow(client, wanted, quiet=json, timeout=timeout)
        session.show(await _described(client, wanted), as_json=json)


async def follow(client: Sealdeal, taskid: Bytes32, *, quiet: bool = False, timeout: float = 600) -> Task:
    """Print a task's steps as they happen; its last state. Raises Unavailable after `timeout` seconds."""
    return await _follow(client, taskid, quiet=quiet, timeout=timeout)


async def _follow(client: Sealdeal, taskid: Bytes32, *, quiet: bool, timeout: float) -> Task:
    printing = asyncio.create_task(_print_steps(client, taskid, quiet))
    try:
        ended = await client.wait(taskid, timeout=timeout)
        await asyncio.wait([printing], timeout=2)  # the scheduler's last words may come after the chain's
        return ended
    finally:
        printing.cancel()
        await asyncio.gather(printing, return_exceptions=True)


async def _print_steps(client: Sealdeal, taskid: Bytes32, quiet: bool) -> None:
    if client.scheduler is None or quiet:
        return
    async for event in client.steps(taskid):
        who = f" by {event.worker}" if event.worker else ""
        why = f" ({event.cause}: {event.message})" if event.cause else ""
        print(f"  {event.status}{f' {event.step}' if event.step else ''}{who}{why}", flush=True)


async def _described(client: Sealdeal, taskid: Bytes32) -> dict[str, Any]:
    found = await client.hub.task(taskid)
    answer: dict[str, Any] = {
        "task": hexstr(taskid),
        "status": found.status.name,
        "deal": hexstr(found.dealid),
        "index": found.idx,
        "contribution_deadline": found.contribution_deadline,
        "final_deadline": found.final_deadline,
        "workers": list(found.contributors),
        "digest": hexstr(found.result_digest),
        "results": found.results.decode(errors="replace"),
    }
    if client.scheduler is not None:
        try:
            told = await client.scheduler.task(taskid)
        except (NotFound, Unavailable) as silent:
            answer["scheduler"] = str(silent)
        else:
            answer["scheduler_status"] = told["currentStatus"]
            answer["attempts"] = [
                {"worker": r["walletAddress"], "status": r["currentStatus"], "updates": r["statusUpdateList"]}
                for r in told["replicates"]
            ]
    return answer
