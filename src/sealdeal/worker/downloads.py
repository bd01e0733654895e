"""What a worker keeps on disk: images and encrypted data, by content. Never anything in the clear."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections import defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import httpx2

from sealdeal.model.cid import cid_in
from sealdeal.model.errors import InvalidInput, NotFound, TooLarge, Unavailable
from sealdeal.sdk.outside import parse_url, public_address, request_at
from sealdeal.sdk.results import ResultsClient

KEPT_BYTES: Final = 8 << 30
"""Of content kept for another task; the least recently used goes first."""
_WEB: Final = ".web-"
_TIMEOUT: Final = 30.0


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

    def forget(self, place: Path) -> None:
        """A task is over: what was fetched from the web for it alone goes."""
        if place.name.startswith(_WEB):
            place.unlink(missing_ok=True)

    async def _from_web(self, text: str) -> Path:
        url = parse_url(text)
        if url.scheme not in ("http", "https") or not url.host or url.userinfo:
            raise InvalidInput(f"expected http(s)://host/path, got {text!r:.200}")
        address = await public_address(url.host)
        handle, name = tempfile.mkstemp(prefix=_WEB, dir=self._folder)
        left = self._limit
        try:
            with open(handle, "wb") as file:
                async with httpx2.AsyncClient(timeout=_TIMEOUT) as client:
                    request = request_at(client, "GET", url, address, {"accept-encoding": "identity"})
                    response = await client.send(request, stream=True)
                    if response.status_code in (404, 410):
                        raise NotFound(f"{text:.200} is not there")
                    if not response.is_success:  # nor is a redirection followed
                        raise Unavailable(f"{text:.200} answered {response.status_code}")
                    async for piece in response.aiter_bytes():
                        left -= len(piece)
                        if left < 0:
                            raise TooLarge(f"{text:.200} has more than the {self._limit} bytes allowed here")
                        file.write(piece)
        except httpx2.HTTPError as failed:
            Path(name).unlink()
            raise Unavailable(f"{text:.200} does not answer ({type(failed).__name__}: {failed})") from None
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
