"""What a worker keeps on disk: verified content, within bounds, and nothing from its own network."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from sealdeal.model.cid import cid_of
from sealdeal.model.errors import (
    Forbidden,
    IntegrityError,
    InvalidInput,
    NotFound,
    SealdealError,
    Unavailable,
)
from sealdeal.results.blobs import FolderStore
from sealdeal.results.gateway import gateway_routes
from sealdeal.sdk.http import answer_errors, in_memory
from sealdeal.sdk.results import ResultsClient
from sealdeal.worker.downloads import Downloads


class Store:
    """A result store's gateway, on a folder, and which content it was asked for."""

    def __init__(self, folder: Path) -> None:
        self.blobs = FolderStore(folder)
        self.asked: list[str] = []
        self._app = FastAPI()
        answer_errors(self._app)
        self._app.include_router(gateway_routes(self.blobs))
        self.client = ResultsClient("http://127.0.0.1:8080", in_memory(self))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked.append(scope["path"].removeprefix("/ipfs/"))
        await self._app(scope, receive, send)

    async def add(self, content: bytes) -> str:
        """The CID of content that it has from now on."""

        async def whole() -> AsyncIterator[bytes]:
            yield content

        return (await self.blobs.put(whole())).cid

    def downloads(self, folder: Path, *, limit: int = 1000, kept: int = 1 << 20) -> Downloads:
        return Downloads(folder / "content", self.client, limit=limit, kept=kept)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    made = Store(tmp_path / "store")
    yield made
    await made.client.close()


async def test_content_is_fetched_once_however_many_ask(tmp_path: Path, store: Store) -> None:
    cid = await store.add(b"image")
    kept = store.downloads(tmp_path)
    places = await asyncio.gather(*(kept.get(f"/ipfs/{cid}") for _ in range(5)), kept.get(f"/p2p/{cid}"))
    assert {p.read_bytes() for p in places} == {b"image"} and store.asked == [cid]
    assert (await store.downloads(tmp_path).get(f"/ipfs/{cid}")).read_bytes() == b"image"
    assert store.asked == [cid]


async def test_the_least_recently_used_goes_first(tmp_path: Path, store: Store) -> None:
    cids = [await store.add(bytes([n]) * 100) for n in range(3)]
    kept = store.downloads(tmp_path, kept=250)
    for number, cid in enumerate(cids[:2]):
        os.utime(await kept.get(f"/ipfs/{cid}"), (number, number))
    await kept.get(f"/ipfs/{cids[0]}")  # used again, now
    await kept.get(f"/ipfs/{cids[2]}")
    left = {p.read_bytes()[0] for p in (tmp_path / "content").iterdir()}
    assert left == {0, 2}


async def test_what_the_disk_of_the_store_changed_is_not_taken(tmp_path: Path, store: Store) -> None:
    cid = await store.add(b"image")
    (place,) = (path for path in (tmp_path / "store").rglob("*") if path.is_file())
    place.write_bytes(b"imagf")
    with pytest.raises(IntegrityError):
        await store.downloads(tmp_path).get(f"/ipfs/{cid}")
    assert not list((tmp_path / "content").iterdir())


async def test_what_is_not_there_is_not_remembered(tmp_path: Path, store: Store) -> None:
    kept = store.downloads(tmp_path)
    for _ in range(2):
        with pytest.raises(NotFound):
            await kept.get(f"/ipfs/{cid_of(b'absent')}")
    assert len(store.asked) == 2 and not list((tmp_path / "content").iterdir())


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8545/",
        "http://localhost/x",
        "http://169.254.169.254/latest/meta-data",
        "http://10.0.0.1/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "https://0.0.0.0/",
    ],
)
async def test_a_strangers_url_does_not_lead_into_the_workers_network(
    tmp_path: Path, store: Store, url: str
) -> None:
    with pytest.raises(Forbidden):
        await store.downloads(tmp_path).get(url)


@pytest.mark.parametrize(
    "location", ["", "ftp://x/y", "file:///etc/passwd", "/etc/passwd", "http://", "/ipfs/../x"]
)
async def test_other_locations_are_refused(tmp_path: Path, store: Store, location: str) -> None:
    with pytest.raises((InvalidInput, NotFound)):
        await store.downloads(tmp_path).get(location)


async def test_the_networks_own_store_is_asked_by_content_wherever_it_is(
    tmp_path: Path, store: Store
) -> None:
    cid, kept, own = await store.add(b"input"), store.downloads(tmp_path), store.client.base_url
    assert (await kept.get(f"{own}/ipfs/{cid}")).read_bytes() == b"input"
    for other in (f"/ipfs/{cid}/a", f"/ipfs/../{cid}", f"/{cid}", "/ipfs/x", f"0/ipfs/{cid}"):
        with pytest.raises((Forbidden, InvalidInput, Unavailable)):
            await kept.get(own + other)
    assert store.asked == [cid]


async def test_a_public_file_comes_within_the_bound(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await reader.readuntil(b"\r\n\r\n")).split()[1]
        body = b"table" if path == b"/t?a=1" else bytes(5000)
        status = path[1:] if path[1:].isdigit() else b"200"
        writer.write(
            b"HTTP/1.1 "
            + status
            + b" x\r\nLocation: /t?a=1\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body)
            + body
        )
        await writer.drain()
        writer.close()

    monkeypatch.setattr("sealdeal.sdk.outside.is_public", lambda address: True)
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    kept = store.downloads(tmp_path)
    async with server:
        assert (await kept.get(f"http://127.0.0.1:{port}/t?a=1")).read_bytes() == b"table"
        with pytest.raises(SealdealError, match="more than the 1000 bytes"):
            await kept.get(f"http://127.0.0.1:{port}/long")
        for status in ("404", "302", "500"):
            with pytest.raises((NotFound, Unavailable), match=status if status != "404" else "not there"):
                await kept.get(f"http://127.0.0.1:{port}/{status}")
        again = await kept.get(f"http://127.0.0.1:{port}/t?a=1")
    assert len(list((tmp_path / "content").iterdir())) == 2
    kept.forget(again)
    assert len(list((tmp_path / "content").iterdir())) == 1
    store.downloads(tmp_path)  # begins by clearing what an earlier run fetched for itself
    assert not list((tmp_path / "content").iterdir())


async def test_a_name_that_leads_elsewhere_the_second_time_is_connected_to_where_it_led_first(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def saying(word: bytes) -> Any:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            body = word + b" as " + head.lower().split(b"host: ")[1].split(b":")[0]
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body))
            writer.write(body)
            await writer.drain()
            writer.close()

        return serve

    outer = await asyncio.start_server(saying(b"outer"), "127.0.0.2", 0)
    port = outer.sockets[0].getsockname()[1]
    inner = await asyncio.start_server(saying(b"inner"), "127.0.0.1", port)
    loop = asyncio.get_running_loop()
    resolve, answers = loop.getaddrinfo, ["127.0.0.2", "127.0.0.1"]

    async def rebound(host: Any, *more: Any, **options: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        return await resolve(answers.pop(0) if name == "rebound.example.org" else host, *more, **options)

    monkeypatch.setattr(loop, "getaddrinfo", rebound)
    monkeypatch.setattr("sealdeal.sdk.outside.is_public", lambda address: address == "127.0.0.2")
    async with outer, inner:
        kept = store.downloads(tmp_path)
        place = await kept.get(f"http://rebound.example.org:{port}/")
        assert place.read_bytes() == b"outer as rebound.example.org"
        with pytest.raises(Forbidden):
            await kept.get(f"http://rebound.example.org:{port}/")
