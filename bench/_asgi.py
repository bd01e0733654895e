"""An ASGI application asked in this process: what a route takes, without a client or a socket."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit


async def ask(
    app: Any, url: str, method: str = "GET", body: bytes = b"", headers: Mapping[str, str] | None = None
) -> bytes:
    """The body of the answer, which must be a good one. `url`: path and query."""
    parts = urlsplit(url)
    named = {"host": "bench", "content-length": str(len(body)), **(headers or {})}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": parts.path,
        "raw_path": parts.path.encode(),
        "query_string": parts.query.encode(),
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in named.items()],
        "client": ("127.0.0.1", 1),
        "server": ("bench", 80),
    }
    status, answer, told = 0, bytearray(), False

    async def receive() -> dict[str, Any]:
        nonlocal told
        if told:
            await asyncio.Event().wait()  # a client that stays until it has its answer
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Mapping[str, Any]) -> None:
        nonlocal status
        status = message.get("status", status)
        answer.extend(message.get("body", b""))

    await app(scope, receive, send)
    assert 200 <= status < 300, f"{method} {url} answered {status}: {bytes(answer[:300])!r}"
    return bytes(answer)


async def bare(scope: Mapping[str, Any], receive: Any, send: Any) -> None:
    """The least application: reads the request and answers a few bytes of JSON."""
    await receive()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"11")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b'{"ok":true}'})
