"""The worker's proxy: it connects an app to the hosts that its image declares, and to nothing nearer.

An app asks its guest, the guest asks here, one connection per call of the stream (guest.stream tells how
bytes flow). Both are strangers' programs, and so is whoever answers a name in DNS: all are bounded here.

- A host has to be declared in the image whose checksum is on chain: read by this worker, not told to it.
- Its name is resolved once. If any address is not of the public internet, or is this machine's own, nothing
  is connected to. The connection goes to the address that was looked at, not to the name, which can change.
- Connections at once, connections in all, bytes both ways and idle time are bounded for each task.
- Everything ends with the task.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

from sealdeal.guest.stream import WINDOW, BrokenStream, Kind
from sealdeal.model.errors import SealdealError
from sealdeal.model.hosts import Host, is_public
from sealdeal.model.images import ImageReader

log = logging.getLogger("sealdeal.worker")

NetworkMode = Literal["off", "declared"]
"""What a worker offers: nothing, or what apps declare."""
_PIECE: Final = 64 << 10

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Resolve = Callable[[str, int], Awaitable[list[str]]]
"""(name, port) -> addresses. Raises OSError when there are none."""


class NotConnected(SealdealError):
    """A connection that an app asked for is not made, or ends early; `cause` is for the app."""

    status = 403

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Terms:
    """What one task may use of this machine's network."""

    at_once: int = 16
    """Connections open at the same time."""
    connections: int = 1000
    """Connections in all, those that failed included."""
    bytes: int = 4 << 30
    """Both ways, all connections together."""
    patience: float = 15.0
    """Seconds to resolve a name and connect."""
    idle: float = 300.0
    """Seconds without a byte after which a connection is closed."""


def declared(image: Path, checksum: bytes) -> tuple[Host, ...]:
    """The hosts that an image's archive declares. Blocks; raises what ImageReader does."""
    with image.open("rb") as archive:
        return ImageReader(archive, checksum, max_bytes=0).config().hosts


async def resolve(name: str, port: int) -> list[str]:
    """By this machine's resolver."""
    found = await asyncio.get_running_loop().getaddrinfo(name, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


def is_foreign(address: str) -> bool:
    """Whether an address is public, and not one of this machine's own."""
    if not is_public(address):
        return False
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))  # which only works at home
        except OSError:
            return True
    return False


class Proxy:
    """The connections of one task."""

    def __init__(
        self,
        hosts: tuple[Host, ...],
        terms: Terms | None = None,
        *,
        resolve: Resolve = resolve,
        permitted: Callable[[str], bool] = is_foreign,
    ) -> None:
        """`resolve`, `permitted`: how names become addresses, and which of these may be connected to."""
        self.hosts, self.terms = frozenset(hosts), terms or Terms()
        self._resolve, self._permitted = resolve, permitted
        self._open = self._made = 0
        self.spent = 0
        """Bytes so far, both ways."""

    @contextlib.asynccontextmanager
    async def connection(self, host: Host) -> AsyncIterator[Connection]:
        """A connection, closed at the end. Raises NotConnected."""
        terms = self.terms
        if host not in self.hosts:
            raise NotConnected("HOST_NOT_DECLARED", f"the app's image does not declare {host}")
        if self._open >= terms.at_once:
            raise NotConnected(
                "TOO_MANY_CONNECTIONS", f"expected at most {terms.at_once} connections at once"
            )
        if self._made >= terms.connections:
            raise NotConnected("TOO_MANY_CONNECTIONS", f"a task may make {terms.connections} connections")
        self.count(0)
        self._open += 1
        self._made += 1
        writer: asyncio.StreamWriter | None = None
        try:
            try:
                async with asyncio.timeout(terms.patience):
                    reader, writer = await self._dial(host)
            except TimeoutError:
                raise NotConnected(
                    "HOST_SILENT", f"{host} did not answer in {terms.patience:.0f} s"
                ) from None
            writer.transport.set_write_buffer_limits(high=0)  # written is what the kernel has taken
            yield reader, writer
        finally:
            self._open -= 1
            if writer is not None:
                writer.transport.abort()

    async def _dial(self, host: Host) -> Connection:
        try:
            addresses = list(dict.fromkeys(await self._resolve(host.name, host.port)))
        except (OSError, UnicodeError) as error:
            raise NotConnected("HOST_UNKNOWN", f"{host.name} has no address: {error}") from None
        for address in addresses:
            if not self._permitted(address):
                log.warning("an app's host %s leads to %s: not connected", host, address)
                raise NotConnected(
                    "ADDRESS_NOT_PUBLIC", f"{host.name} leads to an address that is not public"
                )
        failed: Exception = OSError("it has no address")
        for address in addresses:
            try:
                async with asyncio.timeout(self.terms.patience / len(addresses)):
                    return await asyncio.open_connection(address, host.port, limit=_PIECE)
            except OSError as error:  # TimeoutError is one
                failed = error
        raise NotConnected("HOST_UNREACHABLE", f"{host} cannot be connected to: {failed}")

    def count(self, more: int) -> None:
        """Raises NotConnected when the task has used up its bytes."""
        self.spent += more
        if self.spent > self.terms.bytes:
            raise NotConnected("TOO_MANY_BYTES", f"a task may send and receive {self.terms.bytes} bytes")


Send = Callable[[Kind, bytes | dict[str, Any]], Awaitable[None]]
"""A frame of this connection to the guest."""


class Tunnel:
    """One connection between a guest and a host. Its memory is bounded by WINDOW each way."""

    def __init__(self, question: dict[str, Any]) -> None:
        self.question = question
        self.task: asyncio.Task[None] | None = None
        """What runs it; it may be cancelled at any time."""
        self._from_guest = bytearray()
        self._allowed = WINDOW
        """Bytes that the guest may still send."""
        self._credit = WINDOW
        """Bytes that the guest still takes."""
        self._guest_is_done = False
        self._more, self._room = asyncio.Event(), asyncio.Event()

    # --- frames of the guest: none of these waits --------------------------------------------------

    def take(self, piece: bytes | None) -> None:
        """DATA, or (None) END. Raises BrokenStream."""
        if self._guest_is_done:
            raise BrokenStream("a connection goes on after its end")
        if piece is None:
            self._guest_is_done = True
        elif not piece or len(piece) > self._allowed:
            raise BrokenStream("a guest sent nothing, or more than a connection's window")
        else:
            self._allowed -= len(piece)
            self._from_guest += piece
        self._more.set()

    def give(self, credit: int) -> None:
        """CREDIT. Raises BrokenStream."""
        self._credit += credit
        if self._credit > WINDOW:
            raise BrokenStream("a guest gave more credit than a connection's window")
        self._room.set()

    def abort(self) -> None:
        """ERROR."""
        if self.task is not None:
            self.task.cancel()

    def close(self) -> None:
        """The call is over."""
        self._from_guest.clear()

    # --- the work ---------------------------------------------------------------------------------

    async def run(self, proxy: Proxy, send: Send) -> None:
        """Connect, and carry bytes until both sides have ended. Raises NotConnected."""
        try:
            host = Host.parse(f"{self.question['host']}:{self.question['port']}")
        except (KeyError, SealdealError):
            raise NotConnected("HOST_NOT_DECLARED", "expected a host and a port") from None
        async with proxy.connection(host) as (reader, writer):
            await send(Kind.ANSWER, {})
            try:
                async with asyncio.timeout(proxy.terms.idle) as idle, asyncio.TaskGroup() as both:
                    moved = partial(_moved, proxy, idle)
                    both.create_task(self._out(writer, moved, send))
                    both.create_task(self._in(reader, moved, send))
            except TimeoutError:
                raise NotConnected("CONNECTION_IDLE", f"no byte in {proxy.terms.idle:.0f} s") from None
            except ExceptionGroup as group:
                error = group.exceptions[0]
                if isinstance(error, OSError):
                    raise NotConnected("CONNECTION_LOST", f"{host}: {error}") from None
                raise error from None

    async def _out(self, writer: asyncio.StreamWriter, moved: Callable[[int], None], send: Send) -> None:
        while True:
            await self._more.wait()
            self._more.clear()
            while self._from_guest:
                piece = bytes(self._from_guest)
                self._from_guest.clear()
                moved(len(piece))
                writer.write(piece)
                await writer.drain()
                self._allowed += len(piece)
                if not self._guest_is_done:
                    await send(Kind.CREDIT, len(piece).to_bytes(4, "big"))
            if self._guest_is_done:
                writer.write_eof()
                return

    async def _in(self, reader: asyncio.StreamReader, moved: Callable[[int], None], send: Send) -> None:
        while True:
            while not self._credit:
                self._room.clear()
                await self._room.wait()
            piece = await reader.read(min(_PIECE, self._credit))
            if not piece:
                await send(Kind.END, b"")
                return
            moved(len(piece))
            self._credit -= len(piece)
            await send(Kind.DATA, piece)


def _moved(proxy: Proxy, idle: asyncio.Timeout, count: int) -> None:
    proxy.count(count)
    idle.reschedule(asyncio.get_running_loop().time() + proxy.terms.idle)


async def nothing_offered() -> Proxy:
    """The way out of a worker that lets no app reach hosts."""
    raise NotConnected(
        "NETWORK_NOT_OFFERED",
        "this worker lets no app reach hosts (its operator may set SEALDEAL_WORKER_NETWORK=declared)",
    )


def way_out(
    mode: NetworkMode, image: Callable[[], Awaitable[Path]], checksum: bytes, terms: Terms | None = None
) -> Callable[[], Awaitable[Proxy]]:
    """How the guest of one task is given its proxy: always the same one, made when it is first asked for.

    `image`: the archive, once it is there. Raises NotConnected when called and nothing is offered.
    """
    if mode == "off":
        return nothing_offered
    made: list[Proxy] = []
    lock = asyncio.Lock()

    async def ask() -> Proxy:
        async with lock:
            if not made:
                made.append(Proxy(await asyncio.to_thread(declared, await image(), checksum), terms))
        return made[0]

    return ask
