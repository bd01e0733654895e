"""What a worker keeps on disk: verified content, within bounds, and nothing from its own network."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from sealdeal.model.cid import cid_of
from sealdeal.model.errors import Forbidden, InvalidInput, NotFound, SealdealError, Unavailable
from sealdeal.worker.downloads import Downloads


class Store:
    """Content by CID."""

    def __init__(self, *contents: bytes) -> None:
        self.contents = {cid_of(content): content for content in contents}
        self.asked: list[str] = []

    async def download(self, cid: str, to: Path, *, limit: int | None = None) -> int:
        self.asked.append(cid)
        await asyncio.sleep(0.01)
        if cid not in self.contents:
            raise NotFound("no such content")
        return to.write_bytes(self.contents[cid])


def downloads(folder: Path, store: Store, kept: int = 1 << 20) -> Downloads:
    return Downloads(folder / "content", store, limit=1000, kept=kept)  # type: ignore[arg-type]


async def test_content_is_fetched_once_however_many_ask(tmp_path: Path) -> None:
    store = Store(b"image")
    kept = downloads(tmp_path, store)
    location = f"/ipfs/{cid_of(b'image')}"
    places = await asyncio.gather(
        *(kept.get(location) for _ in range(5)), kept.get(f"/p2p/{cid_of(b'image')}")
    )
    assert {p.read_bytes() for p in places} == {b"image"} and len(store.asked) == 1
    assert (await downloads(tmp_path, store).get(location)).read_bytes() == b"image"
    assert len(store.asked) == 1


async def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    contents = [bytes([n]) * 100 for n in range(4)]
    store = Store(*contents)
    kept = downloads(tmp_path, store, kept=250)
    for number, content in enumerate(contents[:2]):
        os.utime(await kept.get(f"/ipfs/{cid_of(content)}"), (number, number))
    await kept.get(f"/ipfs/{cid_of(contents[0])}")  # used again, now
    await kept.get(f"/ipfs/{cid_of(contents[2])}")
    left = {p.read_bytes()[0] for p in (tmp_path / "content").iterdir()}
    assert left == {0, 2}


async def test_what_is_not_there_is_not_remembered(tmp_path: Path) -> None:
    store = Store()
    kept = downloads(tmp_path, store)
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
async def test_a_strangers_url_does_not_lead_into_the_workers_network(tmp_path: Path, url: str) -> None:
    with pytest.raises(Forbidden):
        await downloads(tmp_path, Store()).get(url)


@pytest.mark.parametrize(
    "location", ["", "ftp://x/y", "file:///etc/passwd", "/etc/passwd", "http://", "/ipfs/../x"]
)
async def test_other_locations_are_refused(tmp_path: Path, location: str) -> None:
    with pytest.raises((InvalidInput, NotFound)):
        await downloads(tmp_path, Store()).get(location)


async def test_a_public_file_comes_within_the_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    kept = downloads(tmp_path, Store())
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
    downloads(tmp_path, Store())  # begins by clearing what an earlier run fetched for itself
    assert not list((tmp_path / "content").iterdir())


async def test_a_name_that_leads_elsewhere_the_second_time_is_connected_to_where_it_led_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
        kept = downloads(tmp_path, Store())
        place = await kept.get(f"http://rebound.example.org:{port}/")
        assert place.read_bytes() == b"outer as rebound.example.org"
        with pytest.raises(Forbidden):
            await kept.get(f"http://rebound.example.org:{port}/")
