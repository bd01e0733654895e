"""Where a service runs: in a process of its own, beside others on this machine or elsewhere.

`run` starts one for the network that a document describes (sdk.network). What it keeps lies in its database
and its state folder, so that a process that is killed goes on where it was when it is started again. Two
markets, schedulers or result stores may share a PostgreSQL database; each SMS node has its own. `node` opens
several in one process: its parts are a `Process` each, and reach each other in memory.
"""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sealdeal.chain import Hub, Rpc, Sender, Wallet
from sealdeal.model.errors import InvalidInput
from sealdeal.model.keys import Key
from sealdeal.sdk.guest_release import GuestRelease, build_guest_release
from sealdeal.sdk.http import Transport
from sealdeal.sdk.network import Network

from . import memory

if TYPE_CHECKING:
    from starlette.types import ASGIApp

PATIENCE = 60.0
"""Seconds for which a chain that does not answer is asked again."""


@dataclass(frozen=True)
class Hosting:
    """What an operator says of any service."""

    network: Network
    key: Key
    """A market's matcher's, the workerpool's owner's, a worker's, an SMS node's, or a result store's."""
    state: Path
    """Folder of this service's own: transactions on their way, caches, an SQLite database."""
    cache: Path
    """Folder of what can be made again: the guest's release."""
    database: str = ""
    """URL; empty: an SQLite file in `state`."""
    listen: tuple[str, int] = ("127.0.0.1", 0)
    public_url: str = ""
    """As others reach this service; empty: as it listens."""
    confirmations: int = 1
    origin: int = 0
    """A block before the network's contracts were deployed, from which the chain is read."""


class Process:
    """What a service finds where it runs, what it opens there, and what closes at the end."""

    transports: Mapping[str, Transport] = {}
    """By URL: how services in this process are reached."""

    def __init__(
        self, hosting: Hosting, stack: AsyncExitStack, rpc: Rpc | None = None, outbox: Path | None = None
    ) -> None:
        """`rpc`: the chain's, if it is open already; `outbox`: if not in the service's state."""
        self.hosting, self.stack = hosting, stack
        self.network, self.key = hosting.network, hosting.key
        self.work: list[Coroutine[Any, Any, None]] = []
        """What runs until the process ends."""
        self.name = ""
        """Its URL, or a worker's address."""
        hosting.state.mkdir(parents=True, exist_ok=True)
        self.rpc = rpc or Rpc(self.network.rpc_url, patience=PATIENCE)
        if rpc is None:
            self.closes(self.rpc.aclose)
        self.sender = Sender(self.rpc, Wallet(self.key), outbox=outbox or hosting.state / "outbox")
        self.hub = Hub(self.rpc, self.network.contracts)
        self.acting = self.hub.using(self.sender)

    def closes(self, close: Callable[[], Awaitable[Any]]) -> None:
        """Have something closed at the end, what was opened last first."""
        self.stack.push_async_callback(close)

    @property
    def database(self) -> str:
        file = (self.hosting.state / "service.db").absolute()
        return self.hosting.database or f"sqlite+aiosqlite:///{file}"

    def transport(self, _: str, /) -> Transport | None:
        """How to reach the service at a URL, if it may be in this process."""
        return None

    async def release(self) -> GuestRelease:
        """What guests start from, and nodes trust. Raises as `build_guest_release`."""
        return await asyncio.to_thread(build_guest_release, self.hosting.cache)

    def listen(self) -> socket.socket:
        """Bind, so that the URL is known; who connects from now on is answered once `serve` runs."""
        host, port = self.hosting.listen
        try:
            family, kind, protocol, _, where = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=socket.AI_PASSIVE
            )[0]
            listener = socket.socket(family, kind, protocol)
            self.stack.callback(listener.close)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(where)
        except OSError as failed:
            raise InvalidInput(
                f"expected an address to listen at, got {host}:{port}: {failed.strerror}"
            ) from None
        shown = f"[{host}]" if ":" in host else host
        self.name = self.hosting.public_url or f"http://{shown}:{listener.getsockname()[1]}"
        return listener

    def serve(self, app: ASGIApp, listener: socket.socket) -> None:
        """Answer at a socket that `listen` made."""
        from sealdeal.sdk import serving  # here: a worker answers nobody

        self.work.append(serving.Server(serving.config(app)).answer(listener))


Start = Callable[[Process], Awaitable[object]]
"""Opens a service in a process, and adds its `work`. Raises InvalidInput for what does not fit."""


async def run(start: Start, hosting: Hosting, ready: Callable[[str], None]) -> None:
    """Run one service until cancelled; `ready` is told its URL (a worker's address) when it answers.

    Raises what the service fails with.
    """
    memory.give_back()
    _allow_many_files()
    async with AsyncExitStack() as stack:
        process = Process(hosting, stack)
        await start(process)
        try:
            async with asyncio.TaskGroup() as group:
                for work in process.work:
                    group.create_task(work)
                ready(process.name)
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None  # the first says why; the others were stopped for it


def _allow_many_files() -> None:
    """Have as many connections as the system allows: a shell's 1,024 are soon used up by idle clients."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
