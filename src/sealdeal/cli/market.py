"""`sealdeal market`: what the market tells, as it happens."""

from __future__ import annotations

import json as json_
from typing import Any

from cyclopts import App

from sealdeal.model.errors import InvalidInput
from sealdeal.model.types import address, bytes32
from sealdeal.sdk.events import TOPICS, Event, Topic

from . import session
from .session import AsJson, Words

market = App(name="market", help="Watch what the market tells.")


@market.command
async def events(
    *,
    topics: Words = (),
    requester: str | None = None,
    deal: str | None = None,
    after: int | None = None,
    count: int | None = None,
    json: AsJson = False,
) -> None:
    """Print orders, deals and tasks as they happen, until Ctrl-C; with `--json`, a document on each line.

    It connects again when the market went away, and misses nothing. `--after` goes on where an earlier one
    ended.

    Parameters
    ----------
    topics
        Of `orders`, `deals` and `tasks`; all by default.
    requester
        Only deals and tasks of this requester.
    deal
        Only this deal and its tasks.
    after
        Go on after the event with this id; 0: from the first that the market keeps. Default: from now on.
    count
        Stop after so many.
    """
    if unknown := set(topics).difference(TOPICS):
        raise InvalidInput(f"expected topics of {', '.join(TOPICS)}, got {min(unknown)!r}")
    if count is not None and count < 1:
        raise InvalidInput(f"expected a count from 1, got {count}")
    wanted: list[Topic] = [topic for topic in TOPICS if topic in topics]
    left = count
    async with session.connected() as client:
        async for event in client.events(
            topics=wanted,
            requester=address(requester) if requester else None,
            dealid=bytes32(deal) if deal else None,
            after=after,
        ):
            print(_line(event, as_json=json), flush=True)
            left = None if left is None else left - 1
            if left == 0:
                return


def _line(event: Event, *, as_json: bool) -> str:
    if as_json:
        return json_.dumps({"id": event.id, "event": event.name, "data": event.data})
    data: dict[str, Any] = event.data
    what = next((data[name] for name in ("taskid", "dealid", "orderHash", "reason") if name in data), "")
    more = f" of deal {data['dealid']}" if "taskid" in data else ""
    return f"{event.id}  {event.name}  {what}{more}"
