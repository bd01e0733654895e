"""Content by its CID in an IPFS node, over the RPC API that kubo has.

The node is not believed: what it takes and says that it took is hashed here too. It is asked for what it
has, never to go and find something on the network: anybody could keep it busy with that.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from sealdeal.model.cid import CidHasher, block_cid, directory_links
from sealdeal.model.errors import IntegrityError, InvalidInput, NotFound, TooLarge, Unavailable
from sealdeal.sdk.http import Transport
from sealdeal.sdk.results import ADD_LIMIT, content_key

from .blobs import BLOCK_LIMIT, Stored, check_directory, gathered

ANSWER_LIMIT = 64 << 10
"""Bytes of an answer that is not content."""


class NodeStore:
    """Content in the IPFS node whose API is at `url`, such as `http://127.0.0.1:5001`."""

    def __init__(self, url: str, transport: Transport | None = None, timeout: float = 60.0) -> None:
        """`timeout`: seconds without progress after which the node counts as gone."""
        self.url = url.rstrip("/")
        self._http = httpx2.AsyncClient(
            base_url=f"{self.url}/api/v0", transport=transport, timeout=timeout, trust_env=False
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def put(self, pieces: AsyncIterable[bytes], version: int = 0, *, limit: int = ADD_LIMIT) -> Stored:
        """Keep and pin a file. Raises TooLarge, Unavailable, IntegrityError for another hash."""
        hasher, size = CidHasher(version), 0

        async def counted() -> AsyncIterator[bytes]:
            nonlocal size
            async for piece in gathered(pieces):
                size += len(piece)
                if size > limit:
                    raise TooLarge(f"a file may have {limit} bytes here, this one is longer")
                hasher.update(piece)
                yield piece

        query = {"cid-version": str(version), "raw-leaves": "true" if version else "false", "pin": "true"}
        answer = await self._send("add", {**query, "progress": "false"}, counted())
        self._check(answer.get("Hash"), hasher.cid())
        return Stored(hasher.cid(), size)

    async def size(self, cid: str) -> int:
        """Bytes of a file. Raises InvalidInput when `cid` is none, NotFound when it is not here."""
        content_key(cid)
        async with self._ask("files/stat", {"arg": f"/ipfs/{cid}"}, cid) as answer:
            said = await _object(answer)
        if said.get("Type") != "file" or not isinstance(said.get("Size"), int):
            raise NotFound(f"{cid} is no file in this store")
        return int(said["Size"])

    async def read(self, cid: str, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
        """Bytes `start` to `stop` (exclusive) of a file, in pieces. Raises as `size`."""
        stop = await self.size(cid) if stop is None else stop
        if start >= stop:
            return
        query = {"arg": cid, "offset": str(start), "length": str(stop - start)}
        async with self._ask("cat", query, cid) as answer:
            async for piece in answer.aiter_bytes():
                yield piece

    async def put_directory(self, block: bytes) -> None:
        """Keep a directory, given as its block. Raises InvalidInput when it is none, TooLarge."""
        check_directory(block)

        async def whole() -> AsyncIterator[bytes]:
            yield block

        answer = await self._send("block/put", {"cid-codec": "dag-pb", "mhtype": "sha2-256"}, whole())
        cid = block_cid(block)
        self._check(answer.get("Key"), cid)
        # the block alone: its files are pinned by themselves, and need not all be here
        async with self._ask("pin/add", {"arg": cid, "recursive": "false"}, cid):
            pass

    async def directory(self, cid: str) -> bytes:
        """The block of a directory. Raises InvalidInput when `cid` is none, NotFound when it is not here."""
        content_key(cid)
        async with self._ask("block/get", {"arg": cid}, cid) as answer:
            block = b""
            async for piece in answer.aiter_bytes():
                block += piece
                if len(block) > 4 * BLOCK_LIMIT:
                    raise NotFound(f"{cid} is no directory in this store")
        self._check(block_cid(block), cid)
        try:
            directory_links(block)
        except InvalidInput:
            raise NotFound(f"{cid} is no directory in this store") from None
        return block

    def _check(self, said: object, own: str) -> None:
        try:
            if content_key(str(said)) == content_key(own):
                return
        except InvalidInput:
            pass
        raise IntegrityError(f"expected the IPFS node at {self.url} to know {own}, it says {str(said)[:100]}")

    async def _send(self, command: str, query: dict[str, str], data: AsyncIterator[bytes]) -> dict[str, Any]:
        """The last line of the answer to a form with one file."""
        boundary = secrets.token_hex(16)

        async def form() -> AsyncIterator[bytes]:
            head = 'Content-Disposition: form-data; name="file"; filename="file"'
            yield f"--{boundary}\r\n{head}\r\nContent-Type: application/octet-stream\r\n\r\n".encode()
            async for piece in data:
                yield piece
            yield f"\r\n--{boundary}--\r\n".encode()

        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        async with self._ask(command, query, command, content=form(), headers=headers) as answer:
            return await _object(answer)

    @asynccontextmanager
    async def _ask(
        self, command: str, query: dict[str, str], what: str, **options: Any
    ) -> AsyncIterator[httpx2.Response]:
        try:
            params = {**query, "offline": "true"}
            async with self._http.stream("POST", f"/{command}", params=params, **options) as answer:
                if answer.status_code != 200:
                    message = str((await _object(answer)).get("Message", ""))[:300]
                    missing = ("not found", "could not find", "not in this store", "no link named", "no file")
                    if answer.status_code == 404 or any(word in message for word in missing):
                        raise NotFound(f"{what} is not in this store")
                    raise Unavailable(
                        f"the IPFS node at {self.url} refuses {command}: {answer.status_code} {message}"
                    )
                yield answer
        except httpx2.HTTPError as failed:
            raise Unavailable(
                f"the IPFS node at {self.url} does not answer ({type(failed).__name__}); is it running?"
            ) from None


async def _object(answer: httpx2.Response) -> dict[str, Any]:
    """The last JSON object of an answer's lines; an empty one when there is none."""
    body = b""
    async for piece in answer.aiter_bytes():
        body = (body + piece)[-ANSWER_LIMIT:]
    try:
        found = json.loads(body.strip().splitlines()[-1])
    except (ValueError, IndexError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {}
