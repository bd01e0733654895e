"""A server and its slow clients: none of them holds a connection for longer than it may."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI, Request

from sealdeal.sdk import serving
from sealdeal.sdk.serving import Patient

OBSERVER = 5
"""Seconds between two questions of the official SDK's observers."""
POST = b"POST /take HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n"
GET = b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n"


class Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


@pytest.fixture
async def port(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    """A service whose clients have a second and a half for each thing."""
    monkeypatch.setattr(Patient, "head_seconds", 1.5)
    monkeypatch.setattr(Patient, "body_seconds", 1.5)
    app = FastAPI()

    @app.post("/take")
    async def take(request: Request) -> int:
        return len(await request.body())

    @app.get("/slow")
    async def slow() -> str:
        await asyncio.sleep(2)
        return "done"

    listener = socket.create_server(("127.0.0.1", 0))
    server = Server(serving.config(app))
    running = asyncio.create_task(server.serve(sockets=[listener]))
    yield listener.getsockname()[1]
    server.should_exit = True
    await running


async def talk(port: int, *pieces: bytes, pause: float = 0.05) -> bytes:
    """Send the pieces, with pauses; what came until the server closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def send() -> None:
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(pause)

    sending, came = asyncio.create_task(send()), b""
    try:
        async with asyncio.timeout(30):
            with contextlib.suppress(ConnectionResetError):  # it closed while we were talking
                while piece := await reader.read(1 << 16):
                    came += piece
        return came
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        writer.close()


async def test_who_says_nothing_is_not_waited_for(port: int) -> None:
    assert await talk(port) == b""


async def test_headers_in_drops_win_no_time(port: int) -> None:
    drops = [bytes([letter]) for letter in GET + b"x" * 100]
    assert await talk(port, *drops, pause=0.06) == b""


async def test_a_body_that_stops_is_not_waited_for(port: int, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        assert b"200 OK" not in await talk(port, POST + b"12345")
        await asyncio.sleep(0.05)
    assert not caplog.records  # who goes away is no error of ours


async def test_a_body_in_pieces_is_taken_whole(port: int) -> None:
    answer = await talk(port, POST, *(b"%d" % n for n in range(10)), pause=0.2)
    assert answer.endswith(b"\r\n\r\n10")


async def test_an_answer_may_take_longer_and_the_next_request_has_its_own_time(port: int) -> None:
    answer = await talk(port, GET, *[b""] * 4, POST + b"1234567890", pause=0.2)
    assert answer.count(b"200 OK") == 2
    assert (await talk(port, GET, GET)).count(b'"done"') == 2


async def test_the_second_requests_headers_are_not_waited_for_either(port: int) -> None:
    drops = [bytes([letter]) for letter in b"POST /take HTTP/1.1\r\nX: " + b"x" * 100]
    answer = await talk(port, POST + b"1234567890", *drops, pause=0.06)
    assert answer.count(b"200 OK") == 1


def test_a_connection_outlasts_the_pauses_of_an_observer() -> None:
    """Else it is now and then closed just when the next question is on its way."""
    assert serving.config(FastAPI()).timeout_keep_alive > 2 * OBSERVER
    assert Patient.head_seconds > 2 * OBSERVER
