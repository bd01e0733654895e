"""A market's API on a port: what streams, and cannot be seen in memory."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import uvicorn

from sealdeal.market.app import create_app
from sealdeal.market.market import Market
from sealdeal.sdk import serving


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


@contextlib.asynccontextmanager
async def served(market: Market | Any, app: Any = None, port: int = 0) -> AsyncIterator[str]:
    """The URL of a market (or of any application), as the node serves it."""
    listener = socket.create_server(("127.0.0.1", port))
    server = _Server(serving.config(app or create_app(market)))
    running = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await running
