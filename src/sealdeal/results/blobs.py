"""Content by its CID: what a store of it does, and one on a folder.

A file's name is made of its CID's codec and digest, never of anything a client typed. A file appears whole
or not at all: it is written aside, flushed to the disk, and renamed. Putting the same content twice keeps
one file. `buckets.py` and `nodes.py` keep content elsewhere.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, ClassVar, Protocol

from sealdeal.model.cid import CidHasher, block_cid, directory_links
from sealdeal.model.errors import NotFound, SealdealError, TooLarge
from sealdeal.sdk.results import ADD_LIMIT, ContentCheck, content_key

PIECE = 1 << 20
"""Bytes written, hashed and read at a time: what one transfer keeps in memory."""
RESERVE = 256 << 20
"""Bytes of the disk that are left free."""
BLOCK_LIMIT = 1 << 20
"""Bytes of a directory's block: what every IPFS node transfers."""
STALE = 24 * 3600
"""Seconds after which an unfinished file is debris of a crash."""


class StoreFull(SealdealError):
    """The store's disk is nearly full: free some space, or raise the store's capacity."""

    status: ClassVar[int] = 507


@dataclass(frozen=True, slots=True)
class Stored:
    """What `put` has kept."""

    cid: str
    size: int


class Blobs(Protocol):
    """Where content lies."""

    async def put(self, pieces: AsyncIterable[bytes], version: int = 0, *, limit: int = ADD_LIMIT) -> Stored:
        """Keep a file. Raises TooLarge, StoreFull."""

    async def size(self, cid: str) -> int:
        """Bytes of a file. Raises InvalidInput when `cid` is none, NotFound when it is not here."""

    def read(self, cid: str, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
        """Bytes `start` to `stop` (exclusive) of a file, in pieces. Raises as `size`."""

    async def put_directory(self, block: bytes) -> None:
        """Keep a directory, given as its block. Raises InvalidInput when it is none, TooLarge, StoreFull."""

    async def directory(self, cid: str) -> bytes:
        """The block of a directory. Raises InvalidInput when `cid` is none, NotFound when it is not here."""

    async def close(self) -> None:
        """Close its connections."""


def key_name(cid: str) -> str:
    """The name under which content lies. Raises InvalidInput when `cid` is none."""
    codec, digest = content_key(cid)
    name = digest.hex()
    return f"{name[:2]}/{name if codec == 0x70 else f'{name}.{codec:02x}'}"


def check_directory(block: bytes) -> None:
    """Raises InvalidInput when `block` is no directory, TooLarge when IPFS nodes would not transfer it."""
    if len(block) > BLOCK_LIMIT:
        raise TooLarge(f"a directory's block may have {BLOCK_LIMIT} bytes, this one has {len(block)}")
    directory_links(block)


class FolderStore:
    """Content in a folder of this machine."""

    def __init__(self, folder: Path, reserve: int = RESERVE) -> None:
        """`reserve`: bytes of the disk that are never used."""
        self.folder, self.reserve = folder, reserve
        self._incoming = folder / "incoming"
        self._incoming.mkdir(parents=True, exist_ok=True)
        for debris in self._incoming.iterdir():
            if time.time() - debris.stat().st_mtime > STALE:
                debris.unlink(missing_ok=True)

    def _path(self, cid: str) -> Path:
        return self.folder / key_name(cid)

    async def put(self, pieces: AsyncIterable[bytes], version: int = 0, *, limit: int = ADD_LIMIT) -> Stored:
        """Keep a file. Raises TooLarge, StoreFull."""
        async with self.received(pieces, version, limit) as (file, stored):
            await asyncio.to_thread(self._install, file, self._path(stored.cid))
        return stored

    @asynccontextmanager
    async def received(
        self, pieces: AsyncIterable[bytes], version: int, limit: int
    ) -> AsyncIterator[tuple[Path, Stored]]:
        """A file that has come whole and is on the disk; it goes at the end, unless it was moved away.

        Raises TooLarge, StoreFull.
        """
        temporary = self._incoming / secrets.token_hex(16)
        hasher, size = CidHasher(version), 0
        try:
            with temporary.open("xb") as file:
                async for piece in gathered(pieces):
                    size += len(piece)
                    if size > limit:
                        raise TooLarge(f"a file may have {limit} bytes here, this one is longer")
                    self._check_room(len(piece))
                    await asyncio.to_thread(_feed, file, hasher, piece)
                await asyncio.to_thread(_flush, file)
            yield temporary, Stored(await asyncio.to_thread(hasher.cid), size)
        finally:
            temporary.unlink(missing_ok=True)

    def _install(self, temporary: Path, final: Path) -> None:
        final.parent.mkdir(exist_ok=True)
        os.replace(temporary, final)
        folder = os.open(final.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # else the name may not survive a power cut that the bytes survive
        finally:
            os.close(folder)

    def _check_room(self, wanted: int) -> None:
        disk = os.statvfs(self._incoming)
        free = disk.f_bavail * disk.f_frsize
        if free - wanted < self.reserve:
            raise StoreFull(f"the store keeps {self.reserve} bytes of its disk free, {free} are left")

    def _find(self, cid: str) -> Path:
        path = self._path(cid)
        if not path.is_file():
            raise NotFound(f"{cid} is not in this store")
        return path

    async def size(self, cid: str) -> int:
        """Bytes of a file. Raises InvalidInput when `cid` is none, NotFound when it is not here."""
        return self._find(cid).stat().st_size

    async def read(self, cid: str, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
        """Bytes `start` to `stop` (exclusive) of a file, in pieces. Raises as `size`."""
        with self._find(cid).open("rb") as file:
            left = (os.fstat(file.fileno()).st_size if stop is None else stop) - start
            file.seek(start)
            while left > 0 and (piece := await asyncio.to_thread(file.read, min(left, PIECE))):
                left -= len(piece)
                yield piece

    async def put_directory(self, block: bytes) -> None:
        """Keep a directory, given as its block. Raises InvalidInput when it is none, TooLarge, StoreFull."""
        check_directory(block)
        self._check_room(len(block))
        temporary = self._incoming / secrets.token_hex(16)
        final = self._directory_path(block_cid(block))

        def write() -> None:
            with temporary.open("xb") as file:
                file.write(block)
                _flush(file)
            self._install(temporary, final)

        try:
            await asyncio.to_thread(write)
        finally:
            temporary.unlink(missing_ok=True)

    def _directory_path(self, cid: str) -> Path:
        path = self._path(cid)  # beside files, which lie under their content's name without their own blocks
        return path.with_name(f"{path.name}.directory")

    async def directory(self, cid: str) -> bytes:
        """The block of a directory. Raises InvalidInput when `cid` is none, NotFound when it is not here."""
        try:
            return await asyncio.to_thread(self._directory_path(cid).read_bytes)
        except FileNotFoundError:
            raise NotFound(f"{cid} is no directory in this store") from None

    async def close(self) -> None:
        """Nothing is kept open."""

    async def check(self, cid: str) -> None:
        """Read a file back. Raises IntegrityError when the disk has changed it."""
        check = ContentCheck(cid)
        async for piece in self.read(cid):
            await asyncio.to_thread(check.update, piece)
        check.verify()


def _feed(file: BinaryIO, hasher: CidHasher, piece: bytes) -> None:
    file.write(piece)
    hasher.update(piece)


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


async def gathered(pieces: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Small pieces joined to about 1 MiB: a thread is worth its start then."""
    waiting, size = [], 0
    async for piece in pieces:
        waiting.append(piece)
        size += len(piece)
        if size >= PIECE:
            yield b"".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)
