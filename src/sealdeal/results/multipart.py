"""multipart/form-data as a stream (RFC 7578, RFC 2046): files of any size through one small buffer."""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, AsyncIterator
from urllib.parse import unquote_plus

from sealdeal.model.errors import InvalidInput, TooLarge

HEADER_LIMIT = 16 << 10
"""Bytes of one part's headers."""


def boundary_of(content_type: str) -> bytes:
    """The boundary that a Content-Type names. Raises InvalidInput."""
    found = re.search(
        r'(?i)^multipart/form-data\s*;.*\bboundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))', content_type
    )
    if not found:
        raise InvalidInput(
            f"expected Content-Type multipart/form-data with a boundary, got {content_type[:100]!r}"
        )
    return (found[1] or found[2]).encode("latin-1", "replace")


def filename_of(headers: str) -> str:
    """The path that a part declares as its file name, without steps upwards, or nothing."""
    found = re.search(r'(?i)\bfilename="((?:[^"\\]|\\.)*)"', headers) or re.search(
        r"(?i)\bfilename=([^\s;]+)", headers
    )
    path = unquote_plus(found[1]) if found else ""  # as clients of IPFS nodes quote it
    names = [name.rpartition("\\")[2][:255] for name in path.split("/")]
    return "/".join(name for name in names if name not in ("", ".", ".."))


class Multipart:
    """The parts of a body, in order. What a caller leaves of a part is skipped."""

    def __init__(self, body: AsyncIterable[bytes], boundary: bytes) -> None:
        self._body = aiter(body)
        self._delimiter = b"\r\n--" + boundary
        self._buffer = bytearray(b"\r\n")  # the first delimiter has no line before it
        self._open = True

    async def parts(self) -> AsyncIterator[str]:
        """The headers of each part, as text; its bytes are `data()` then. Raises InvalidInput, TooLarge."""
        while True:
            async for _ in self.data():
                pass
            while len(self._buffer) < 2:
                await self._more()
            if self._buffer.startswith(b"--"):
                return
            while (end := self._buffer.find(b"\r\n\r\n")) < 0:
                if len(self._buffer) > HEADER_LIMIT:
                    raise TooLarge(f"the headers of a part may have {HEADER_LIMIT} bytes")
                await self._more()
            headers = self._buffer[:end].decode("utf-8", "replace")
            del self._buffer[: end + 4]
            self._open = True
            yield headers

    async def data(self) -> AsyncIterator[bytes]:
        """The bytes of the current part, in pieces. Raises InvalidInput when the body ends within."""
        held = len(self._delimiter) - 1  # bytes that may be the beginning of a delimiter
        while self._open:
            at = self._buffer.find(self._delimiter)
            end = at if at >= 0 else max(0, len(self._buffer) - held)
            piece = bytes(self._buffer[:end])
            if at >= 0:
                del self._buffer[: at + len(self._delimiter)]
                self._open = False
            else:
                del self._buffer[:end]
            if piece:
                yield piece
            if self._open:
                await self._more()

    async def _more(self) -> None:
        try:
            self._buffer += await anext(self._body)
        except StopAsyncIteration:
            raise InvalidInput("the multipart body ends before its last boundary") from None
