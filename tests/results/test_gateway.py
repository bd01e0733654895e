"""kubo's add and the gateway, over HTTP; and the client, which believes no store."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealdeal.model.cid import CHUNK, cid_of, directory_block
from sealdeal.model.errors import IntegrityError, InvalidInput, NotFound, TooLarge
from sealdeal.model.keys import Key
from sealdeal.results.app import create_app
from sealdeal.results.blobs import BLOCK_LIMIT, FolderStore
from sealdeal.results.gateway import byte_range
from sealdeal.results.uploads import Results
from sealdeal.sdk.http import in_memory
from sealdeal.sdk.results import ResultsClient

HELLO = "Qmf412jQZiuVUtdgnB36FXFX7xg5V6KEbSJ4dpQuhkLyfD"


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[Any]:
    """A store whose content routes are used: those never ask the chain."""
    url = f"sqlite+aiosqlite:///{tmp_path}/results.db"
    key = Key(bytes(31) + b"\x07")
    results = await Results.open(url, FolderStore(tmp_path / "blobs"), cast(Any, None), key, bytes(32))
    yield create_app(results)
    await results.close()


@pytest.fixture
async def client(app: Any) -> AsyncIterator[ResultsClient]:
    async with ResultsClient("http://store", in_memory(app)) as client:
        yield client


@pytest.fixture
async def http(app: Any) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url="http://store", transport=in_memory(app)) as http:
        yield http


async def test_add_answers_as_kubo(http: httpx2.AsyncClient) -> None:
    files = [("file", ("a.txt", b"hello world")), ("file", ("../b.txt", b""))]
    answer = await http.post("/api/v0/add?stream-channels=true&progress=false", files=files)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [(line["Name"], line["Hash"]) for line in lines] == [
        ("a.txt", HELLO),
        ("b.txt", "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH"),
    ]


@pytest.mark.parametrize(
    "query",
    [
        "cid-version=2",
        "chunker=rabin",
        "trickle=true",
        "hash=blake3",
        "inline=true",
        "preserve-mode=1",
        "wrap-with-directory=perhaps",
        "raw-leaves=true",
    ],
)
async def test_options_that_would_change_the_cid_are_refused(http: httpx2.AsyncClient, query: str) -> None:
    answer = await http.post(f"/api/v0/add?{query}", files={"file": ("a", b"x")})
    assert answer.status_code == 400, answer.text


@pytest.mark.parametrize("form", [{"content": b"not a form"}, {"data": {}, "files": None}])
async def test_add_without_a_file(http: httpx2.AsyncClient, form: dict[str, Any]) -> None:
    answer = await http.post("/api/v0/add", **form)
    assert answer.status_code == 400
    assert "multipart/form-data" in answer.json()["Message"]


async def test_gateway_serves_and_describes(http: httpx2.AsyncClient, client: ResultsClient) -> None:
    await client.add(b"hello world")
    got = await http.get(f"/ipfs/{HELLO}", headers={"Origin": "https://anywhere.example"})
    assert (got.status_code, got.content) == (200, b"hello world")
    assert got.headers["access-control-allow-origin"] == "*"
    assert got.headers["x-content-type-options"] == "nosniff"
    head = await http.head(f"/ipfs/{HELLO}")
    assert (head.status_code, head.headers["content-length"], head.content) == (200, "11", b"")
    again = await http.get(f"/ipfs/{HELLO}", headers={"If-None-Match": got.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    ("asked", "status", "content", "described"),
    [
        ("bytes=0-4", 206, b"hello", "bytes 0-4/11"),
        ("bytes=6-", 206, b"world", "bytes 6-10/11"),
        ("bytes=-5", 206, b"world", "bytes 6-10/11"),
        ("bytes=6-99", 206, b"world", "bytes 6-10/11"),
        ("bytes=0-10", 200, b"hello world", None),
        ("bytes=4-2", 200, b"hello world", None),
        ("bytes=0-1,3-4", 200, b"hello world", None),
        ("lines=0-1", 200, b"hello world", None),
        ("bytes=11-", 416, None, "bytes */11"),
        ("bytes=-0", 416, None, "bytes */11"),
    ],
)
async def test_ranges(
    http: httpx2.AsyncClient,
    client: ResultsClient,
    asked: str,
    status: int,
    content: bytes | None,
    described: str | None,
) -> None:
    await client.add(b"hello world")
    got = await http.get(f"/ipfs/{HELLO}", headers={"Range": asked})
    assert (got.status_code, got.headers.get("content-range")) == (status, described)
    if content is not None:
        assert got.content == content
        assert got.headers["content-length"] == str(len(content))


@given(st.text(max_size=30) | st.from_regex(r"bytes=\d{0,3}-\d{0,3}", fullmatch=True), st.integers(0, 200))
def test_a_range_is_always_within_the_file(header: str, size: int) -> None:
    found = byte_range(header, size)
    assert found is None or 0 <= found[0] <= found[1] <= size


@pytest.mark.parametrize("name", ["x", "..%2F..%2Fetc%2Fpasswd", "Qm" + "0" * 44, "%00"])
async def test_gateway_refuses_what_is_no_cid(http: httpx2.AsyncClient, name: str) -> None:
    assert (await http.get(f"/ipfs/{name}")).status_code in (400, 404)


@pytest.mark.parametrize("version", [0, 1])
async def test_a_file_through_the_client(client: ResultsClient, tmp_path: Path, version: int) -> None:
    source, copy = tmp_path / "source", tmp_path / "copy"
    source.write_bytes(b"\xffdata" * CHUNK)
    cid = await client.add(source, version=version)
    assert cid == cid_of(source.read_bytes(), version)
    assert await client.size(cid) == source.stat().st_size
    assert await client.download(cid, copy) == source.stat().st_size
    assert copy.read_bytes() == source.read_bytes()
    assert await client.fetch(cid) == source.read_bytes()


async def test_client_errors(client: ResultsClient, tmp_path: Path) -> None:
    cid = await client.add(b"12345")
    with pytest.raises(TooLarge, match="larger than the 4 bytes"):
        await client.fetch(cid, limit=4)
    with pytest.raises(NotFound, match="not in this store"):
        await client.fetch(cid_of(b"never stored"))
    with pytest.raises(InvalidInput, match="expected a CID"):
        await client.fetch("../up")
    with pytest.raises(NotFound):
        await client.download(cid_of(b"never stored"), tmp_path / "copy")
    assert not [path for path in tmp_path.iterdir() if "copy" in path.name or "partial" in path.name]


async def test_a_lying_store_is_caught(client: ResultsClient, tmp_path: Path) -> None:
    cid = await client.add(b"true content")
    (blob,) = (path for path in (tmp_path / "blobs").rglob("*") if path.is_file())
    blob.write_bytes(b"fake content")
    with pytest.raises(IntegrityError, match=cid):
        await client.fetch(cid)
    with pytest.raises(IntegrityError, match=cid):
        await client.download(cid, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


async def test_a_store_that_names_other_content_is_caught() -> None:
    def lies(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, text=json.dumps({"Name": "x", "Hash": HELLO, "Size": "1"}))

    async with ResultsClient("http://store", httpx2.MockTransport(lies)) as client:
        with pytest.raises(IntegrityError, match=HELLO):
            await client.add(b"something else")


async def test_a_directory_is_served_by_name(client: ResultsClient, http: httpx2.AsyncClient) -> None:
    files = {"0": b"zero", "10": b"ten"}
    cids = {name: await client.add(data) for name, data in files.items()}
    directory = await client.put_directory(cids)
    assert await client.put_directory(cids) == directory
    for name, data in files.items():
        answer = await http.get(f"/ipfs/{directory}/{name}")
        assert (answer.status_code, answer.content) == (200, data)
        assert answer.headers["x-ipfs-path"] == f"/ipfs/{directory}/{name}"
        assert (await http.get(f"/ipfs/{directory}/{name}", headers={"Range": "bytes=1-1"})).content == data[
            1:2
        ]
        assert await client.cid_at(f"/ipfs/{directory}/{name}") == cids[name]
    assert await client.cid_at(f"/ipfs/{cids['0']}") == cids["0"]
    assert (await http.head(f"/ipfs/{directory}/10")).headers["content-length"] == "3"
    for path in (f"{directory}/1", f"{cids['0']}/1", f"{cids['0']}?format=raw"):
        assert (await http.get(f"/ipfs/{path}")).status_code == 404, path
    with pytest.raises(NotFound):
        await client.cid_at(f"/ipfs/{directory}/1")
    with pytest.raises(NotFound):
        await client.put_directory({"0": cid_of(b"not here")})


async def test_a_folder_is_added_as_kubo_adds_one(http: httpx2.AsyncClient) -> None:
    """The forms of kubo-rpc-client: paths are URL-encoded, and directories come last, each with its CID."""
    files = [("file", ("site%2Findex.html", b"<p>hi")), ("file-1", ("site%2Fsub%2Fa%20b.txt", b"a"))]
    files.append(("dir-2", ("site%2Fempty", b"", "application/x-directory")))  # type: ignore[arg-type]
    answer = await http.post("/api/v0/add?wrap-with-directory=true&progress=false", files=files)
    lines = [json.loads(line) for line in answer.text.splitlines()]
    names = ["site/index.html", "site/sub/a b.txt", "site/sub", "site/empty", "site", ""]
    assert [line["Name"] for line in lines] == names
    found = {line["Name"]: (line["Hash"], int(line["Size"])) for line in lines}
    assert found["site/empty"] == (
        "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn",
        4,
    )
    root = found[""][0]
    assert (await http.get(f"/ipfs/{root}/site/sub/a%20b.txt")).content == b"a"
    page = await http.get(f"/ipfs/{root}/site/")
    assert (page.content, page.headers["content-type"].partition(";")[0]) == (b"<p>hi", "text/html")
    assert page.headers["content-security-policy"] == "sandbox"
    listing = await http.get(f"/ipfs/{root}/site/sub")
    assert f'href="/ipfs/{root}/site/sub/a%20b.txt"' in listing.text
    again = await http.post("/api/v0/add?wrap-with-directory=true&only-hash=true", files=files)
    assert [json.loads(line) for line in again.text.splitlines()] == lines
    assert (await http.get(f"/ipfs/{root}/nothing")).status_code == 404


async def test_sizes_are_of_all_blocks_and_progress_is_told(http: httpx2.AsyncClient) -> None:
    files = {"file": ("", b"hello world\n")}
    answer = await http.post("/api/v0/add?progress=true&pin=false", files=files)
    name = "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o"
    assert [json.loads(line) for line in answer.text.splitlines()] == [
        {"Name": name, "Bytes": 12},
        {"Name": name, "Hash": name, "Size": "20"},
    ]
    first = (await http.post("/api/v0/add?cid-version=1", files=files)).json()
    assert first["Size"] == "12"  # raw leaves have nothing around them


async def test_only_hash_keeps_nothing(http: httpx2.AsyncClient, client: ResultsClient) -> None:
    answer = await http.post("/api/v0/add?only-hash=true", files={"file": ("a", b"not kept")})
    assert answer.json()["Hash"] == cid_of(b"not kept")
    with pytest.raises(NotFound):
        await client.fetch(cid_of(b"not kept"))


async def test_the_api_reads_what_it_added(http: httpx2.AsyncClient, client: ResultsClient) -> None:
    cid = await client.add(b"hello world")
    assert (await http.post(f"/api/v0/cat?arg=/ipfs/{cid}&offset=6&length=3")).content == b"wor"
    assert (await http.post(f"/api/v0/cat?arg={cid}&offset=99")).content == b""
    assert (await http.post(f"/api/v0/pin/add?arg={cid}")).json() == {"Pins": [cid]}
    stat = (await http.post(f"/api/v0/files/stat?arg=/ipfs/{cid}")).json()
    assert (stat["Type"], stat["Size"], stat["CumulativeSize"]) == ("file", 11, 19)
    directory = await client.put_directory({"a": cid})
    assert (await http.post(f"/api/v0/cat?arg={directory}/a")).content == b"hello world"
    assert (await http.post(f"/api/v0/files/stat?arg=/ipfs/{directory}")).json()["Type"] == "directory"
    assert (await http.post(f"/api/v0/block/get?arg={directory}")).content == directory_block(
        {"a": (cid, 19)}
    )
    missing = await http.post(f"/api/v0/cat?arg={cid_of(b'never stored')}")
    assert (missing.status_code, missing.json()["Type"]) == (404, "error")
    assert (await http.post("/api/v0/cat?arg=junk")).status_code == 400
    assert "Version" in (await http.post("/api/v0/version")).json()


async def test_names_types_and_conditions(http: httpx2.AsyncClient, client: ResultsClient) -> None:
    cid = await client.add(b"hello world")
    named = await http.get(f"/ipfs/{cid}?filename=a.txt&download=true")
    assert named.headers["content-type"].startswith("text/plain")
    assert named.headers["content-disposition"] == "attachment; filename*=UTF-8''a.txt"
    stale = await http.get(f"/ipfs/{cid}", headers={"Range": "bytes=0-1", "If-Range": '"other"'})
    assert (stale.status_code, stale.content) == (200, b"hello world")
    fresh = await http.get(f"/ipfs/{cid}", headers={"Range": "bytes=0-1", "If-Range": f'"{cid}"'})
    assert (fresh.status_code, fresh.content) == (206, b"he")
    weak = await http.get(f"/ipfs/{cid}", headers={"If-None-Match": f'"x", W/"{cid}"'})
    assert weak.status_code == 304
    other = cid_of(b"never stored")
    assert (await http.get(f"/ipfs/{other}", headers={"If-None-Match": f'"{other}"'})).status_code == 404
    assert (await http.get(f"/ipfs/{cid}", headers={"Accept": "application/zip"})).status_code == 200


async def test_only_directories_are_blocks(http: httpx2.AsyncClient) -> None:
    for path, block in (
        ("/api/v0/block/put", directory_block({})),
        ("/api/v0/block/put?cid-codec=raw", directory_block({})),
        ("/api/v0/block/put?cid-codec=dag-pb", b"a file"),
        ("/api/v0/block/put?cid-codec=dag-pb", b""),
    ):
        assert (await http.post(path, files={"file": ("block", block)})).status_code == 400, (path, block)
    large = bytes(BLOCK_LIMIT + 1)
    answer = await http.post("/api/v0/block/put?cid-codec=dag-pb", files={"file": ("block", large)})
    assert answer.status_code == 413


async def test_a_store_that_lies_about_a_directory_is_found_out(
    client: ResultsClient, tmp_path: Path
) -> None:
    directory = await client.put_directory({"0": await client.add(b"mine")})
    other = directory_block({"0": (await client.add(b"another's"), 17)})
    (path,) = (tmp_path / "blobs").rglob("*.directory")
    path.write_bytes(other)
    with pytest.raises(IntegrityError, match="other bytes"):
        await client.cid_at(f"/ipfs/{directory}/0")
