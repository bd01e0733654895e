"""What a worker keeps on disk: images and encrypted data, by content. Never anything in the clear."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import tempfile
from collections import defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from sealdeal.model.cid import cid_in
from sealdeal.model.errors import Forbidden, InvalidInput, TooLarge
from sealdeal.sdk.http import Client
from sealdeal.sdk.results import ResultsClient

KEPT_BYTES: Final = 8 << 30
"""Of content kept for another task; the least recently used goes first."""


class Downloads:
    """A folder of content by CID, filled from the network's store."""

    def __init__(self, folder: Path, results: ResultsClient, *, limit: int, kept: int = KEPT_BYTES) -> None:
        """`limit`: bytes of one file."""
        self._folder, self._results, self._limit, self._kept = folder, results, limit, kept
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        folder.mkdir(parents=True, exist_ok=True)
        for torn in folder.glob(".*"):
            torn.unlink()

    async def get(self, location: str) -> Path:
        """The file at `/ipfs/CID` (verified, kept) or at an http(s) URL (fetched each time).

        Raises NotFound, TooLarge, IntegrityError, Unavailable, or InvalidInput for another kind of location.
        """
        if location.startswith(("http://", "https://")):
            return await self._from_web(location)
        cid = cid_in(location)
        return await self.keep(cid, lambda place: self._results.download(cid, place, limit=self._limit))

    async def keep(self, name: str, fetch: Callable[[Path], Awaitable[object]]) -> Path:
        """The file of content that has this name; `fetch` writes it, whole, unless it is there."""
        place = self._folder / name
        async with self._locks[name]:
            if place.exists():
                place.touch()
            else:
                await fetch(place)
                await asyncio.to_thread(self._make_room, place)
        return place

    async def _from_web(self, url: str) -> Path:
        parts = urlsplit(url)
        if parts.hostname is None or parts.username is not None:
            raise InvalidInput(f"expected http(s)://host/path, got {url[:200]!r}")
        await _only_public(parts.hostname)
        handle, name = tempfile.mkstemp(prefix=".web-", dir=self._folder)
        left = self._limit
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        try:
            with open(handle, "wb") as file:
                async with Client(f"{parts.scheme}://{parts.netloc}") as client:
                    async for piece in client.stream(path, headers={"Accept-Encoding": "identity"}):
                        left -= len(piece)
                        if left < 0:
                            raise TooLarge(f"{url} has more than the {self._limit} bytes allowed here")
                        file.write(piece)
        except BaseException:
            Path(name).unlink()
            raise
        return Path(name)

    def _make_room(self, new: Path) -> None:
        """Forget the least recently used content; open files stay readable."""
        files = [(p.stat(), p) for p in self._folder.iterdir() if not p.name.startswith(".")]
        total = sum(status.st_size for status, _ in files)
        for status, path in sorted(files, key=lambda item: item[0].st_mtime):
            if total <= self._kept:
                break
            if path != new:
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()
                total -= status.st_size


async def _only_public(host: str) -> None:
    """A stranger chose this URL: it must not lead into the worker's own network. Raises Forbidden."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise InvalidInput(f"the host {host!r} has no address: {error}") from None
    for *_, address in found:
        if not ipaddress.ip_address(address[0]).is_global:
            raise Forbidden(f"expected a public host, {host!r} leads to {address[0]}")
