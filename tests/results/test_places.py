"""Content in a bucket of a real S3 server process, and in another node that speaks kubo's API."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
from fastapi import FastAPI

from sealdeal.model.cid import CHUNK, block_cid, cid_of, directory_block
from sealdeal.model.errors import IntegrityError, InvalidInput, NotFound, TooLarge, Unavailable
from sealdeal.results.blobs import BLOCK_LIMIT, Blobs, FolderStore
from sealdeal.results.buckets import BucketStore
from sealdeal.results.kubo import kubo_routes
from sealdeal.results.nodes import NodeStore
from sealdeal.results.places import open_blobs
from sealdeal.sdk import serving

BUCKET = "results"


async def stream(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def read(blobs: Blobs, cid: str, start: int = 0, stop: int | None = None) -> bytes:
    return b"".join([piece async for piece in blobs.read(cid, start, stop)])


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an S3 server of its own, with an empty bucket."""
    log = tmp_path_factory.mktemp("s3") / "log"
    with log.open("w") as file:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
        server = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 60
        while "Running on http" not in log.read_text():
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        url = log.read_text().partition("Running on ")[2].split()[0]
        answer = httpx2.put(f"{url}/{BUCKET}", trust_env=False)
        assert answer.status_code == 200, answer.text
        yield url
    finally:
        server.terminate()
        server.wait(60)


@asynccontextmanager
async def far_node(folder: Path) -> AsyncIterator[str]:
    """The URL of an IPFS node's API on a socket."""
    node = FastAPI()
    node.include_router(kubo_routes(FolderStore(folder / "node")))
    server = uvicorn.Server(serving.config(node))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        running = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await running


@pytest.fixture(params=["folder", "bucket", "node"])
async def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Blobs]:
    made: Blobs
    async with AsyncExitStack() as stack:
        if request.param == "folder":
            made = open_blobs("", tmp_path / "blobs")
        elif request.param == "bucket":
            monkeypatch: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
            for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
                monkeypatch.setenv(name, "testing")
            url = request.getfixturevalue("s3")
            made = open_blobs(
                f"s3://{BUCKET}/{tmp_path.name}?endpoint={url}&region=us-east-1", tmp_path / "wait"
            )
        else:
            made = NodeStore(await stack.enter_async_context(far_node(tmp_path)))
        yield made
        await made.close()


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("size", [0, 1, 5 * CHUNK + 7, 17 << 20])
async def test_what_was_put_is_read_back(blobs: Blobs, size: int, version: int) -> None:
    data = bytes(i % 251 for i in range(1000)) * (size // 1000 + 1)
    data = data[:size]
    stored = await blobs.put(stream(data[: size // 3], data[size // 3 :]), version)
    assert (stored.cid, stored.size) == (cid_of(data, version), size)
    assert await blobs.put(stream(data), version) == stored
    assert await blobs.size(stored.cid) == size
    assert await read(blobs, stored.cid) == data
    assert await read(blobs, stored.cid, size // 4, size // 2) == data[size // 4 : size // 2]


async def test_directories(blobs: Blobs) -> None:
    stored = await blobs.put(stream(b"content"))
    block = directory_block({"a": (stored.cid, 15)})
    await blobs.put_directory(block)
    assert await blobs.directory(block_cid(block)) == block
    assert await blobs.directory(block_cid(block, 1)) == block
    with pytest.raises(NotFound):
        await blobs.size(block_cid(block))
    with pytest.raises(NotFound):
        await blobs.directory(stored.cid)
    with pytest.raises(InvalidInput):
        await blobs.put_directory(b"no directory")
    with pytest.raises(TooLarge):
        await blobs.put_directory(bytes(BLOCK_LIMIT + 1))


async def test_what_is_not_there(blobs: Blobs) -> None:
    missing = cid_of(b"never stored")
    for ask in (blobs.size(missing), blobs.directory(missing), read(blobs, missing)):
        with pytest.raises(NotFound, match=missing):
            await ask
    for ask in (blobs.size("../up"), blobs.directory("../up"), read(blobs, "../up")):
        with pytest.raises(InvalidInput, match="expected a CID"):
            await ask


async def test_over_the_limit_nothing_is_kept(blobs: Blobs) -> None:
    with pytest.raises(TooLarge, match="10 bytes"):
        await blobs.put(stream(b"12345678", b"90a"), limit=10)
    with pytest.raises(NotFound):
        await blobs.size(cid_of(b"1234567890a"))


async def test_a_store_that_is_away(tmp_path: Path, unused_tcp_port: int) -> None:
    node = NodeStore(f"http://127.0.0.1:{unused_tcp_port}")
    with pytest.raises(Unavailable, match="is it running"):
        await node.size(cid_of(b"x"))
    await node.close()


async def test_a_bucket_that_is_none(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    blobs = BucketStore("nothing-here", "", tmp_path, endpoint=s3, region="us-east-1")
    with pytest.raises((Unavailable, NotFound)):
        await blobs.put(stream(b"x"))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


async def test_a_node_that_lies_is_found_out() -> None:
    other = cid_of(b"something else")

    def lies(request: httpx2.Request) -> httpx2.Response:
        if request.url.path.endswith("block/get"):
            return httpx2.Response(200, content=directory_block({}))
        return httpx2.Response(200, json={"Name": "file", "Hash": other, "Size": "1", "Key": other})

    node = NodeStore("http://node", httpx2.MockTransport(lies))
    for ask in (node.put(stream(b"x")), node.put_directory(directory_block({})), node.directory(other)):
        with pytest.raises(IntegrityError, match="expected the IPFS node"):
            await ask
    await node.close()


async def test_a_node_that_fails_says_why() -> None:
    def fails(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(500, json={"Message": "the disk is full", "Code": 0, "Type": "error"})

    node = NodeStore("http://node", httpx2.MockTransport(fails))
    with pytest.raises(Unavailable, match="the disk is full"):
        await node.put(stream(b"x"))
    await node.close()


@pytest.mark.parametrize(
    ("place", "kind"),
    [("", FolderStore), ("ipfs+http://127.0.0.1:5001", NodeStore), ("s3://bucket/a/b", BucketStore)],
)
def test_places(tmp_path: Path, place: str, kind: type[Any]) -> None:
    assert isinstance(open_blobs(place, tmp_path), kind)
    assert isinstance(open_blobs(str(tmp_path / "there"), tmp_path), FolderStore)


@pytest.mark.parametrize(
    "place",
    ["ftp://x", "s3://", "s3://key:secret@bucket", "s3://b?acl=public", "dropbox://x", "ipfs+http://"],
)
def test_places_that_are_none(tmp_path: Path, place: str) -> None:
    with pytest.raises(InvalidInput, match="expected a folder"):
        open_blobs(place, tmp_path)


def test_dropbox_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="Dropbox"):
        open_blobs("dropbox://folder", tmp_path)
