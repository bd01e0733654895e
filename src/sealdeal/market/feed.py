"""The journal as it grows: a stream (SSE) that resumes where it broke off, and Socket.IO (wire.md §1.7).

One task reads the journal, also what other nodes of the market wrote, and wakes whoever waits. A stream reads
on from its own cursor: from what is remembered here, or from the journal when it is further behind. So a slow
client costs nothing but its connection.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, cast

import socketio
from starlette.responses import StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from sealdeal.model.errors import InvalidInput
from sealdeal.model.types import Address
from sealdeal.sdk.events import TOPICS

from .journal import UNREACHABLE, Journal, Recorded
from .limits import OpenStreams

log = logging.getLogger("sealdeal.market")

HEARTBEAT = 15.0
"""Seconds after which a stream that has nothing to tell says so: proxies cut silent ones."""
REMEMBERED = 1000
"""Events that are at hand for streams; those further behind read the journal."""
_PART = 500
_FORGET_EVERY = 3600.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events a stream is about."""

    topics: Collection[str] = TOPICS
    requester: Address | None = None
    dealid: bytes | None = None

    def admits(self, event: Recorded) -> bool:
        if event.topic not in self.topics:
            return False
        if self.requester is not None and event.requester != self.requester:
            return False
        return self.dealid is None or event.dealid == self.dealid


class Feed:
    """The live end of a market's journal."""

    def __init__(self, journal: Journal, interval: float = 0.5) -> None:
        """`interval`: seconds between looks at the journal, for what other nodes wrote."""
        self._journal, self._interval = journal, interval
        self._events: deque[Recorded] = deque(maxlen=REMEMBERED)
        self._from = self._at = sys.maxsize  # the events after _from, up to _at, are those of _events
        self._woken, self._grown = asyncio.Event(), asyncio.Event()
        self.listeners: list[Callable[[Recorded], Awaitable[None]]] = []

    def wake(self) -> None:
        """Look at the journal now: something was written."""
        self._woken.set()

    async def run(self) -> None:
        """Follow the journal for ever; ends by cancellation only."""
        self._from = self._at = await self._journal.newest()
        self._tell()  # streams that began before, of what was written until now
        forget_at = time.monotonic()
        while True:
            try:
                if time.monotonic() >= forget_at:
                    await self._journal.forget()
                    forget_at = time.monotonic() + _FORGET_EVERY
                while found := await self._journal.after(self._at, _PART):
                    await self._add(found)
            except UNREACHABLE as wrong:
                log.warning("the event stream waits: %s", wrong)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._interval):
                    await self._woken.wait()
            self._woken.clear()

    async def _add(self, found: list[Recorded]) -> None:
        for event in found:
            if len(self._events) == self._events.maxlen:
                self._from = self._events[0].id
            self._events.append(event)
        self._at = found[-1].id
        self._tell()
        for event in found:
            for listener in self.listeners:
                try:
                    await listener(event)
                except Exception:
                    log.exception("event %d was not passed on", event.id)

    def _tell(self) -> None:
        self._grown.set()
        self._grown = asyncio.Event()

    async def _after(self, cursor: int) -> list[Recorded]:
        if cursor < self._from:
            return await self._journal.after(cursor, _PART)
        return list(takewhile(lambda event: event.id > cursor, reversed(self._events)))[::-1]

    async def stream(self, wanted: Wanted, after: int | None = None) -> AsyncIterator[str]:
        """Events as text/event-stream: those after the cursor `after` (0: all that are kept), or new ones.

        A cursor that is older than what is kept is answered with `reset`: read the lists again.
        """
        newest = await self._journal.newest()
        lost = after is not None and (after > newest or 0 < after < await self._journal.oldest())
        cursor = newest if after is None or lost else after
        yield f"retry: 2000\nid: {cursor}\n\n"
        if lost:
            yield _text("reset", cursor, {"reason": "the cursor is not in the journal: read the lists again"})
        while True:
            grown = self._grown
            found = await self._after(cursor)
            for event in found:
                cursor = event.id
                if wanted.admits(event):
                    yield _text(event.name, event.id, event.document)
            if not found:
                try:
                    async with asyncio.timeout(HEARTBEAT):
                        await grown.wait()
                except TimeoutError:
                    yield f": nothing new\nid: {cursor}\n\n"


class EventStream(StreamingResponse):
    """An answer that goes on; `end` is called once when it ends, however it does."""

    def __init__(self, stream: AsyncIterator[str], end: Callable[[], None]) -> None:
        still = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(stream, media_type="text/event-stream", headers=still)
        self._end = end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._end()


def _text(name: str, id: int, document: Any) -> str:
    data = json.dumps(document, separators=(",", ":"))
    return f"id: {id}\nevent: {name}\ndata: {data}\n\n"


def cursor_of(text: str | None) -> int | None:
    """A cursor as clients send it: the id of the last event that they saw."""
    if text is None or text == "":
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 18):
        raise InvalidInput("Last-Event-ID must be the id of an event")
    return int(text)


# ----------------------------------------------------------------------------------------- Socket.IO


def sockets(feed: Feed, chain_id: int, streams: OpenStreams) -> tuple[ASGIApp, Callable[[], Awaitable[None]]]:
    """The Socket.IO feed of orders and deals, for path /ws; and how it is ended.

    Clients join `{chainId, topic}`. Topic `tasks` is ours.
    """
    # Browsers of any origin may call: the application's own headers say so, for polling
    server = socketio.AsyncServer(async_mode="asgi", cors_allowed_origins=[], max_http_buffer_size=10_000)

    def room(data: object) -> str | None:
        if not isinstance(data, dict) or str(data.get("chainId")) != str(chain_id):
            return None
        topic = data.get("topic")
        return str(topic) if topic in TOPICS else None

    async def connect(sid: str, environ: dict[str, Any], _: object = None) -> bool:
        client = environ.get("asgi.scope", {}).get("sealdeal.client", "")
        if not streams.open(client):
            return False
        await server.save_session(sid, {"client": client})
        return True

    async def disconnect(sid: str, _: object = None) -> None:
        streams.close((await server.get_session(sid)).get("client", ""))

    async def join(sid: str, data: object = None) -> bool:
        if topic := room(data):
            await server.enter_room(sid, topic)
        return True  # to whatever it was, as the official marketplace does

    async def leave(sid: str, data: object = None) -> bool:
        if topic := room(data):
            await server.leave_room(sid, topic)
        return True

    async def leave_all(sid: str, _: object = None) -> bool:
        for topic in TOPICS:
            await server.leave_room(sid, topic)
        return True

    async def tell(event: Recorded) -> None:
        document: Any = event.document
        if event.name.endswith("order_unpublished"):
            document = document["orderHash"]
        elif event.topic != "orders":
            document = {**document, "chainId": chain_id}
        await server.emit(event.name, document, room=event.topic)

    handlers = {"connect": connect, "disconnect": disconnect, "join": join, "leave": leave}
    for name, handler in {**handlers, "leaveAll": leave_all}.items():
        server.on(name, handler)
    feed.listeners.append(tell)
    return cast(ASGIApp, socketio.ASGIApp(server, socketio_path="ws")), server.shutdown
