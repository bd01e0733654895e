"""The way out of an app, on the worker's side: what is connected to, what is carried, when it ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from sealdeal.guest.stream import WINDOW, Frame, Kind
from sealdeal.model.hosts import Host
from sealdeal.worker import proxy as proxies
from sealdeal.worker.proxy import NotConnected, Proxy, Terms, is_foreign, way_out
from sealdeal.worker.relay import AttemptFailed, Done, Relay, World

from .scripted import ScriptedGuest
from .test_relay import DONE, ENCLAVE, Hello

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back what comes, and end when that ends."""
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def host(serve: Serve = echo) -> AsyncIterator[int]:
    """A host of the internet: its port on this machine."""
    talks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        talks.add(task)
        try:
            with contextlib.suppress(ConnectionError):
                await serve(reader, writer)
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in talks:
            task.cancel()
        await asyncio.gather(*talks, return_exceptions=True)


async def here(name: str, port: int) -> list[str]:
    return ["127.0.0.1"]


def proxy(port: int, **terms: Any) -> Proxy:
    """One that takes this machine for the internet."""
    hosts = (Host("api.example.org", port),)
    return Proxy(hosts, Terms(**terms), resolve=here, permitted=lambda _: True)


class Guest:
    """A guest's end of one connection, in a script."""

    def __init__(
        self, guest: ScriptedGuest, port: int, number: int = 1, name: str = "api.example.org"
    ) -> None:
        self.guest, self.number, self.received = guest, number, bytearray()
        self.frames: list[Kind] = []
        guest.say(Kind.CALL, number, {"call": "connect", "body": True, "host": name, "port": port})

    async def hear(self) -> Frame:
        frame = await self.guest.hear()
        assert frame.call == self.number
        self.frames.append(frame.kind)
        if frame.kind is Kind.DATA:
            self.received += frame.payload
        return frame

    async def until(self, *kinds: Kind) -> Frame:
        while (frame := await self.hear()).kind not in kinds:
            if frame.kind is Kind.DATA:
                self.say(Kind.CREDIT, len(frame.payload).to_bytes(4, "big"))
        return frame

    def say(self, kind: Kind, payload: Any = b"") -> None:
        self.guest.say(kind, self.number, payload)


async def serve(way: Proxy, script: Callable[[ScriptedGuest], Awaitable[None]]) -> Done:
    """Play a guest whose app may use this proxy."""

    async def network() -> Proxy:
        return way

    async def nothing(*_: Any) -> Any:
        raise AssertionError("not asked for")

    async def play(guest: ScriptedGuest) -> None:
        await guest.hear()
        await script(guest)
        guest.tell("done", **DONE)

    guest = ScriptedGuest(play)
    none: Any = None
    world = World(evidence=nothing, files={}, nodes={}, results=none, login=nothing, network=network)
    try:
        async with asyncio.timeout(60):
            return await Relay(guest, world, lambda _: None).run(Hello())  # type: ignore[arg-type]
    finally:
        await guest.kill()


async def test_bytes_go_both_ways_and_each_end_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    async with host() as port:
        way = proxy(port)

        async def script(guest: ScriptedGuest) -> None:
            link = Guest(guest, port)
            assert (await link.hear()).kind is Kind.ANSWER
            link.say(Kind.DATA, b"hello ")
            link.say(Kind.DATA, b"world")
            link.say(Kind.END)
            await link.until(Kind.END)
            assert link.received == b"hello world"

        assert (await serve(way, script)).enclave == ENCLAVE
    assert way.spent == 22 and way._open == 0


async def test_far_more_than_a_window_is_carried() -> None:
    total = 3 * WINDOW + 17
    async with host() as port:

        async def script(guest: ScriptedGuest) -> None:
            link, left, allowed = Guest(guest, port), total, WINDOW
            await link.hear()
            while len(link.received) < total:
                while left and allowed:
                    piece = min(left, allowed, 100_000)
                    link.say(Kind.DATA, b"x" * piece)
                    left, allowed = left - piece, allowed - piece
                frame = await link.hear()
                if frame.kind is Kind.CREDIT:
                    allowed += int.from_bytes(frame.payload, "big")
                elif frame.kind is Kind.DATA:
                    link.say(Kind.CREDIT, len(frame.payload).to_bytes(4, "big"))
            link.say(Kind.END)
            await link.until(Kind.END)

        await serve(proxy(port), script)


async def test_a_guest_that_takes_nothing_gets_a_window_and_no_more() -> None:
    async def pour(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b"y" * 65536)
            await writer.drain()

    async with host(pour) as port:

        async def script(guest: ScriptedGuest) -> None:
            link = Guest(guest, port)
            while len(link.received) < WINDOW:
                await link.hear()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(link.hear(), 0.2)
            assert len(link.received) == WINDOW
            link.say(Kind.CREDIT, (5).to_bytes(4, "big"))
            await link.hear()
            assert len(link.received) == WINDOW + 5

        await serve(proxy(port), script)


async def test_a_host_that_hangs_up_is_told_and_so_is_a_guest_that_does() -> None:
    ended = asyncio.Event()

    async def abrupt(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.read(1) == b"!":
            writer.transport.abort()
        else:
            with contextlib.suppress(ConnectionError):
                await reader.read()
            ended.set()

    async with host(abrupt) as port:
        way = proxy(port)

        async def script(guest: ScriptedGuest) -> None:
            lost = Guest(guest, port)
            await lost.hear()
            lost.say(Kind.DATA, b"!")
            assert (await lost.until(Kind.ERROR, Kind.END)).kind in (Kind.ERROR, Kind.END)
            given_up = Guest(guest, port, number=2)
            await given_up.hear()
            given_up.say(Kind.DATA, b"?")
            await given_up.hear()
            given_up.say(Kind.ERROR, {"cause": "closed"})
            await asyncio.wait_for(ended.wait(), 60)
            given_up.say(Kind.DATA, b"too late, and dropped")

        await serve(way, script)
        assert way._open == 0


async def test_nothing_stays_open_when_the_guest_is_gone() -> None:
    ended = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read()
        ended.set()

    async with host(wait) as port:
        way = proxy(port)

        async def script(guest: ScriptedGuest) -> None:
            await Guest(guest, port).hear()

        await serve(way, script)
        assert way._open == 0
        await asyncio.wait_for(ended.wait(), 60)


BREAKS: dict[str, tuple[Kind, Any]] = {
    "more than the window": (Kind.DATA, b"z" * (WINDOW + 1)),
    "empty pieces without end": (Kind.DATA, b""),
    "a credit beyond the window": (Kind.CREDIT, b"\0\0\0\1"),
    "a credit of nothing": (Kind.CREDIT, b"\0\0\0\0"),
    "a credit that is none": (Kind.CREDIT, b"1"),
}


@pytest.mark.parametrize(("kind", "payload"), BREAKS.values(), ids=BREAKS.keys())
async def test_a_guest_that_breaks_the_flow_loses_its_task(kind: Kind, payload: bytes) -> None:
    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    async with host(silent) as port:

        async def script(guest: ScriptedGuest) -> None:
            link = Guest(guest, port)
            await link.hear()
            link.say(kind, payload)
            await asyncio.sleep(60)

        with pytest.raises(AttemptFailed) as failed:
            await serve(proxy(port), script)
        assert failed.value.cause == "GUEST_LOST"


async def refused(way: Proxy, name: str = "api.example.org", port: int = 443) -> str:
    with pytest.raises(NotConnected) as no:
        async with way.connection(Host(name, port)):
            pass
    assert str(no.value)
    return no.value.cause


async def test_why_not_is_named() -> None:
    api = (Host("api.example.org", 443),)

    async def nobody(name: str, port: int) -> list[str]:
        raise OSError("no such name")

    async def slow(name: str, port: int) -> list[str]:
        await asyncio.sleep(60)
        return []

    assert await refused(Proxy(api, resolve=nobody)) == "HOST_UNKNOWN"
    assert await refused(Proxy(api, Terms(patience=0.05), resolve=slow)) == "HOST_SILENT"
    async with host() as port:
        pass  # it is gone now
    assert await refused(proxy(port), port=port) == "HOST_UNREACHABLE"
    assert await refused(proxy(port), port=port + 1) == "HOST_NOT_DECLARED"
    assert await refused(proxy(port), name="example.org", port=port) == "HOST_NOT_DECLARED"


async def test_an_address_that_does_not_answer_is_not_the_last_one() -> None:
    async with host() as port:

        async def two(name: str, port: int) -> list[str]:
            return ["::1", "127.0.0.1"]

        way = Proxy((Host("api.example.org", port),), resolve=two, permitted=lambda _: True)
        async with way.connection(Host("api.example.org", port)) as (_, writer):
            assert writer.get_extra_info("peername")[0] == "127.0.0.1"


async def test_what_a_task_may_use_is_counted() -> None:
    async with host() as port:
        way = proxy(port, at_once=2, connections=3)
        async with (
            way.connection(Host("api.example.org", port)),
            way.connection(Host("api.example.org", port)),
        ):
            assert await refused(way, port=port) == "TOO_MANY_CONNECTIONS"
        async with way.connection(Host("api.example.org", port)):
            pass
        assert await refused(way, port=port) == "TOO_MANY_CONNECTIONS"
        way = proxy(port, bytes=10)
        way.count(10)
        with pytest.raises(NotConnected):
            way.count(1)
        assert await refused(way, port=port) == "TOO_MANY_BYTES"


def test_this_machines_own_addresses_are_not_foreign(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_foreign("1.1.1.1") and is_foreign("2606:4700:4700::1111")
    monkeypatch.setattr(proxies, "is_public", lambda _: True)
    assert not is_foreign("127.0.0.1") and not is_foreign("127.9.9.9")


async def test_a_worker_that_offers_nothing_says_so(tmp_path: Path) -> None:
    async def image() -> Path:
        return tmp_path / "none"

    with pytest.raises(NotConnected) as no:
        await way_out("off", image, bytes(32))()
    assert no.value.cause == "NETWORK_NOT_OFFERED"
