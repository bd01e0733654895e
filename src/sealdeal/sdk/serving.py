"""How services answer on a socket. A client that is slow, or says nothing, is not waited for."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
from collections.abc import Iterator
from typing import ClassVar

import h11
import uvicorn
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol


def config(app: ASGIApp) -> uvicorn.Config:
    """A server for one of our services; signals and sockets are its caller's business."""
    return uvicorn.Config(
        _heard(app),
        http=Patient,
        log_level="warning",
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=1,
        # `Patient` ends idle connections. Who asks every five seconds, as the official SDK's observers do,
        # would meet uvicorn's own end of five now and then: a request into a closing connection.
        timeout_keep_alive=math.ceil(Patient.head_seconds),
    )


def _heard(app: ASGIApp) -> ASGIApp:
    """`app`, but whoever goes away in the middle of a request is no error in our log."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        with contextlib.suppress(ClientDisconnect):
            await app(scope, receive, send)

    return answer


class Patient(H11Protocol):
    """HTTP/1.1 with bounds on how long a client may take. How long we take to answer is our affair."""

    head_seconds: ClassVar[float] = 20.0
    """From the connection, or the last answer, to the end of the next request's headers."""
    body_seconds: ClassVar[float] = 60.0
    """Between two pieces of a body, while we want them."""
    _timer: asyncio.TimerHandle | None = None
    _for_body = False
    _upgraded = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._upgraded:
            self._expect()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._forget()  # the WebSocket has pings of its own
        self._upgraded = True
        super().handle_websocket_upgrade(event)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        super().connection_lost(exc)

    def _expect(self) -> None:
        """Start, go on with or end the time for what the client should send next."""
        if self.cycle is None or self.cycle.response_complete:
            if self._for_body:
                self._forget()
            if self._timer is None:  # pieces of headers win no time
                self._timer = self.loop.call_later(self.head_seconds, self._late)
            return
        self._forget()
        if self.cycle.more_body:
            self._for_body = True
            self._timer = self.loop.call_later(self.body_seconds, self._late)

    def _late(self) -> None:
        self._timer = None
        if self._for_body and self.flow.read_paused:
            self._expect()  # it is we who take nothing at present
        else:
            self.transport.close()

    def _forget(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._for_body = None, False


class Server(uvicorn.Server):
    """A server that leaves signals to whoever assembled the network, and stops in order when cancelled."""

    async def answer(self, listener: socket.socket) -> None:
        """Serve until cancelled. A server that is only cancelled would leave its socket in the event loop."""
        serving = asyncio.create_task(self.serve(sockets=[listener]))
        try:
            await asyncio.shield(serving)
        finally:
            self.should_exit = True
            await serving

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
