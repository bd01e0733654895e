"""Content by its CID on a folder: whole or not at all, and never under a name that a client chose."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sealdeal.model.cid import CHUNK, cid_of
from sealdeal.model.errors import IntegrityError, InvalidInput, NotFound, TooLarge
from sealdeal.results.blobs import FolderStore, StoreFull


async def stream(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def read(store: FolderStore, cid: str, start: int = 0, stop: int | None = None) -> bytes:
    return b"".join([piece async for piece in store.read(cid, start, stop)])


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


async def test_known_cid(tmp_path: Path) -> None:
    stored = await FolderStore(tmp_path).put(stream(b"hello ", b"world"))
    assert stored.cid == "Qmf412jQZiuVUtdgnB36FXFX7xg5V6KEbSJ4dpQuhkLyfD"
    assert stored.size == 11


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("size", [0, 1, CHUNK, CHUNK + 1, 5 * CHUNK + 7])
async def test_what_was_put_is_read_back(tmp_path: Path, size: int, version: int) -> None:
    data = bytes(i % 251 for i in range(size))
    store = FolderStore(tmp_path)
    stored = await store.put(stream(data[: size // 3], data[size // 3 :]), version)
    assert stored.cid == cid_of(data, version)
    assert await store.size(stored.cid) == size
    assert await read(store, stored.cid) == data
    assert await read(store, stored.cid, size // 4, size // 2) == data[size // 4 : size // 2]
    await store.check(stored.cid)


async def test_same_content_is_kept_once(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    first, second = await store.put(stream(b"same")), await store.put(stream(b"sa", b"me"))
    assert first == second
    assert len(files(tmp_path)) == 1


async def test_either_spelling_finds_a_file(tmp_path: Path) -> None:
    """CIDv1 in base32 may spell the very node that a CIDv0 names."""
    import base64

    from sealdeal.model.cid import parse_cid

    store = FolderStore(tmp_path)
    stored = await store.put(stream(b"hello world"))
    raw = b"\x01\x70" + parse_cid(stored.cid)
    assert await read(store, "b" + base64.b32encode(raw).decode().lower().rstrip("=")) == b"hello world"


async def test_over_the_limit_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TooLarge, match="10 bytes"):
        await FolderStore(tmp_path).put(stream(b"12345678", b"90a"), limit=10)
    assert files(tmp_path) == []


async def test_a_broken_upload_leaves_nothing(tmp_path: Path) -> None:
    async def breaks() -> AsyncIterator[bytes]:
        yield b"half"
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await FolderStore(tmp_path).put(breaks())
    assert files(tmp_path) == []


async def test_a_nearly_full_disk_refuses(tmp_path: Path) -> None:
    with pytest.raises(StoreFull, match="free"):
        await FolderStore(tmp_path, reserve=1 << 60).put(stream(b"x"))
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    "name",
    ["", "../../etc/passwd", "Qm/../../x", "Qm" + "0" * 44, "b" + "a" * 58, "incoming", "\0", "Qmé" * 15],
)
async def test_hostile_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput, match="expected a CID"):
        await FolderStore(tmp_path).size(name)
    with pytest.raises(InvalidInput, match="expected a CID"):
        await read(FolderStore(tmp_path), name)


async def test_unknown_content(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="is not in this store"):
        await FolderStore(tmp_path).size(cid_of(b"never stored"))


async def test_a_changed_disk_is_noticed(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    stored = await store.put(stream(b"precious"))
    files(tmp_path)[0].write_bytes(b"precioux")
    with pytest.raises(IntegrityError, match=stored.cid):
        await store.check(stored.cid)


async def test_debris_of_a_crash_goes_and_work_in_progress_stays(tmp_path: Path) -> None:
    import os
    import time

    from sealdeal.results.blobs import STALE

    FolderStore(tmp_path)
    old, new = tmp_path / "incoming" / "old", tmp_path / "incoming" / "new"
    old.write_bytes(b"x")
    new.write_bytes(b"y")
    os.utime(old, (0, time.time() - STALE - 1))
    FolderStore(tmp_path)
    assert files(tmp_path) == [new]
