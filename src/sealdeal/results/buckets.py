"""Content by its CID in a bucket of an S3-compatible store.

A CID is known when the last byte has come, and an object's name cannot be changed: what arrives waits in a
folder of this machine, then goes up, in parts if it is large, and appears whole or not at all.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import S3Store

from sealdeal.model.cid import block_cid
from sealdeal.model.errors import InvalidInput, NotFound, Unavailable
from sealdeal.sdk.results import ADD_LIMIT

from .blobs import PIECE, FolderStore, Stored, check_directory, key_name

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Config

PART = 8 << 20
"""Bytes of each part of a large upload: the 10,000 parts that S3 allows are 80 GB."""
PARTS_AT_ONCE = 4


class BucketStore:
    """Content in a bucket, whose credentials come from where AWS's own tools take them."""

    def __init__(
        self, bucket: str, prefix: str, incoming: Path, *, endpoint: str = "", region: str = ""
    ) -> None:
        """`incoming`: the folder where uploads wait. `endpoint`: URL of a store that is not Amazon's.

        `region`: `us-east-1` if neither it nor AWS_REGION says otherwise.
        """
        self.name = f"bucket {bucket}"
        self._incoming = FolderStore(incoming)
        config: S3Config = {}
        options: ClientConfig = {}
        if region:
            config["region"] = region
        if endpoint:
            config["endpoint"] = endpoint
            options["allow_http"] = endpoint.startswith("http://")
        try:
            self._store = S3Store(
                bucket, prefix=prefix.strip("/") or None, config=config, client_options=options
            )
        except BaseError as wrong:
            raise InvalidInput(f"expected an S3 bucket: {_reason(wrong)}") from None

    async def put(self, pieces: AsyncIterable[bytes], version: int = 0, *, limit: int = ADD_LIMIT) -> Stored:
        """Keep a file. Raises TooLarge, StoreFull, Unavailable."""
        async with self._incoming.received(pieces, version, limit) as (file, stored):
            with self._answering(stored.cid):
                await obstore.put_async(
                    self._store, key_name(stored.cid), file, chunk_size=PART, max_concurrency=PARTS_AT_ONCE
                )
        return stored

    async def size(self, cid: str) -> int:
        """Bytes of a file. Raises InvalidInput when `cid` is none, NotFound when it is not here."""
        key = key_name(cid)
        with self._answering(cid):
            return int((await obstore.head_async(self._store, key))["size"])

    async def read(self, cid: str, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
        """Bytes `start` to `stop` (exclusive) of a file, in pieces. Raises as `size`."""
        key = key_name(cid)
        stop = await self.size(cid) if stop is None else stop
        if start >= stop:
            return
        with self._answering(cid):
            found = await obstore.get_async(self._store, key, options={"range": (start, stop)})
            async for piece in found.stream(min_chunk_size=PIECE):
                yield bytes(piece)

    async def put_directory(self, block: bytes) -> None:
        """Keep a directory, given as its block. Raises InvalidInput when it is none, TooLarge."""
        check_directory(block)
        cid = block_cid(block)
        with self._answering(cid):
            await obstore.put_async(self._store, f"{key_name(cid)}.directory", block)

    async def directory(self, cid: str) -> bytes:
        """The block of a directory. Raises InvalidInput when `cid` is none, NotFound when it is not here."""
        key = f"{key_name(cid)}.directory"
        with self._answering(cid):
            return bytes(await (await obstore.get_async(self._store, key)).bytes_async())

    async def close(self) -> None:
        """Nothing is kept open."""

    @contextmanager
    def _answering(self, cid: str) -> Iterator[None]:
        try:
            yield
        except (NotFoundError, FileNotFoundError):
            raise NotFound(f"{cid} is not in this store") from None
        except BaseError as wrong:
            raise Unavailable(f"the result store's {self.name} refuses: {_reason(wrong)}") from None


def _reason(wrong: Exception) -> str:
    return (str(wrong).splitlines() or [type(wrong).__name__])[0][:300]
