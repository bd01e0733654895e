"""The worker's end of a guest's stream: does what the guest asks, and understands none of it.

A guest may ask for evidence (`quote`), for what its task needs (`fetch`: image, dataset, input files), to
talk to an SMS node or the result store (`http`), for a token to upload with (`login`), and whether its app
may reach hosts (`network`), to `connect` to one of these then. Everything is bounded in bytes, number and
time: a guest that misbehaves loses its task and nothing else.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

from sealdeal.guest.hello import Hello
from sealdeal.guest.stream import MAX_PAYLOAD, BrokenStream, Decoder, Frame, Kind, credit_of, encode
from sealdeal.model.errors import SealdealError
from sealdeal.model.evidence import Evidence
from sealdeal.model.types import Address, address, unhex
from sealdeal.sdk.http import Client

from .proxy import NotConnected, Proxy, Tunnel, nothing_offered
from .sandbox import Guest

MAX_CALLS: Final = 64
"""Questions of a guest under way at once."""
MAX_ANSWER: Final = 4 << 20
"""Bytes of an answer to `http`."""
MAX_BODY: Final = 64 << 20
"""Bytes that a guest may send with one `http` call: the result store's own bound. An archive that is sent as
it is may have more, by the task's limit of output."""
CALL_SECONDS: Final = 120.0
"""Time for one `http` call; an archive has the attempt's."""
_ARCHIVE: Final = re.compile(r"/v1/results/0x[0-9a-f]{64}/archive\?[a-z0-9=&]*")
_SMS_PATHS: Final = ("/tee/nonces", "/tee/releases")
_QUEUED: Final = 2
"""Frames of a body that wait for whom it goes to."""


class Platform(Protocol):
    """What vouches for guests on this machine: the simulated platform, or the hardware's own."""

    def measure(self, guest_release: bytes, app_checksum: bytes, /) -> Mapping[str, bytes]: ...

    def evidence(self, report_data: bytes, registers: Mapping[str, bytes], now: int, /) -> Evidence: ...


class AttemptFailed(SealdealError):
    """The attempt ends here, and nothing is contributed."""

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Done:
    """What a guest hands over at the end: all that a contribution needs."""

    enclave: Address
    digest: bytes
    results: bytes
    callback: bytes
    enclave_signature: bytes
    authorisation: bytes
    fault_cause: str
    """Empty, or what failed inside the app: an error that is contributed."""
    fault_message: str
    exit_code: int | None
    stdout: str | None = None
    stderr: str | None = None
    """The ends of what the app wrote, if its result is one that everybody may read."""

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> Done:
        """Raises AttemptFailed when the guest said something else."""
        try:
            error, code = said["error"] or {}, said["exitCode"]
            return cls(
                enclave=address(said["enclave"]),
                digest=unhex(said["digest"]),
                results=unhex(said["results"]),
                callback=unhex(said["callback"]),
                enclave_signature=unhex(said["enclaveSignature"]),
                authorisation=unhex(said["authorization"]),
                fault_cause=str(error.get("cause", "")),
                fault_message=str(error.get("message", "")),
                exit_code=None if code is None else int(code),
                stdout=_text(said.get("stdout")),
                stderr=_text(said.get("stderr")),
            )
        except (KeyError, TypeError, ValueError, AttributeError, SealdealError) as wrong:
            raise AttemptFailed("GUEST_LOST", f"the guest's last word is malformed: {wrong!r}") from None


def _text(said: Any) -> str | None:
    """A log of base64; what is no text in it is replaced. Raises ValueError, TypeError."""
    if said is None:
        return None
    return base64.b64decode(said, validate=True).decode(errors="replace").replace("\0", "\ufffd")


Status = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True)
class World:
    """What a guest's questions lead to."""

    evidence: Callable[[bytes], Awaitable[Evidence]]
    """Report data -> evidence of this guest."""
    files: Mapping[str, Callable[[], Awaitable[Path]]]
    """Name -> a file of this machine, once it is there."""
    nodes: Mapping[Address, Client]
    results: Client
    login: Callable[[Address, bytes], Awaitable[str]]
    """(enclave, authorisation) -> a token of the result store."""
    network: Callable[[], Awaitable[Proxy]] = nothing_offered
    """The app's way out. Raises NotConnected."""


class _Asked:
    """A call under way: its body arrives while it is being answered."""

    def __init__(self, question: dict[str, Any]) -> None:
        self.question = question
        self.body: asyncio.Queue[bytes | None] = asyncio.Queue(_QUEUED)
        self.over = False

    async def take(self, piece: bytes | None) -> None:
        if not self.over:
            await self.body.put(piece)

    def close(self) -> None:
        """Nobody reads the body any more; whoever waits to add to it goes on."""
        self.over = True
        while not self.body.empty():
            self.body.get_nowait()

    async def pieces(self, limit: int) -> AsyncIterator[bytes]:
        left = limit
        while (piece := await self.body.get()) is not None:
            left -= len(piece)
            if left < 0:
                raise AttemptFailed("POST_COMPUTE_IPFS_UPLOAD_FAILED", f"a body has more than {limit} bytes")
            yield piece


class Relay:
    """Serves one guest from HELLO to its last word."""

    def __init__(self, guest: Guest, world: World, status: Status) -> None:
        """`status` is told of each step."""
        self._guest, self._world, self._status = guest, world, status
        self._asked: dict[int, _Asked | Tunnel] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._writing = asyncio.Lock()
        self._token = ""
        self._archive_limit = MAX_BODY

    async def run(self, hello: Hello) -> Done:
        """Raises AttemptFailed with the guest's cause, or why the guest was lost."""
        # zipped, encrypted and padded it is at most an eighth longer; logs and names beside
        self._archive_limit = max(MAX_BODY, hello.limits.output_bytes // 8 * 9 + MAX_BODY)
        try:
            await self._send(encode(Kind.HELLO, 0, hello.to_json()))
            return await self._serve()
        except (BrokenPipeError, ConnectionResetError):
            raise await self._lost() from None
        except BrokenStream as broken:
            raise AttemptFailed("GUEST_LOST", f"the guest broke the protocol: {broken}") from None
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self) -> Done:
        decoder = Decoder()
        while data := await self._guest.stdout.read(MAX_PAYLOAD):
            for frame in decoder.feed(data):
                if (said := await self._take(frame)) is not None:
                    return Done.read(said)
        raise await self._lost()

    async def _lost(self) -> AttemptFailed:
        status = await self._guest.wait()
        if self._guest.out_of_memory():
            return AttemptFailed("APP_OUT_OF_MEMORY", "the guest was killed: its memory was exhausted")
        words = self._guest.complaint[-300:].strip() or "no word"
        return AttemptFailed("GUEST_LOST", f"the guest ended early with status {status}: {words}")

    async def _take(self, frame: Frame) -> Mapping[str, Any] | None:
        """Deal with one frame; returns the guest's `done`."""
        match frame.kind:
            case Kind.EVENT:
                said = frame.json()
                match said.get("event"):
                    case "status":
                        self._status(said)
                    case "done":
                        return said
                    case "failed":
                        raise self._failed(said)
                    case other:
                        raise BrokenStream(f"unknown event {other!r:.40}")
            case Kind.CALL:
                if frame.call in self._asked or len(self._asked) >= MAX_CALLS:
                    raise BrokenStream(f"expected at most {MAX_CALLS} calls at once, each with its number")
                question = frame.json()
                asked = Tunnel(question) if question.get("call") == "connect" else _Asked(question)
                self._asked[frame.call] = asked
                if isinstance(asked, _Asked) and not question.get("body"):
                    await asked.take(None)
                task = asyncio.create_task(self._answer(frame.call, asked))
                if isinstance(asked, Tunnel):
                    asked.task = task
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            case Kind.DATA | Kind.END:
                piece = frame.payload if frame.kind is Kind.DATA else None
                match self._asked.get(frame.call):
                    case Tunnel() as tunnel:
                        tunnel.take(piece)
                    case _Asked() as under_way:
                        await under_way.take(piece)
            case Kind.CREDIT | Kind.ERROR:
                match self._asked.get(frame.call):
                    case Tunnel() as tunnel if frame.kind is Kind.CREDIT:
                        tunnel.give(credit_of(frame))
                    case Tunnel() as tunnel:
                        tunnel.abort()
                    case _Asked():
                        raise BrokenStream(f"a frame of kind {frame.kind.name} belongs to a connection")
            case _:
                raise BrokenStream(f"a guest sends no frame of kind {frame.kind.name}")
        return None

    def _failed(self, said: Mapping[str, Any]) -> AttemptFailed:
        cause, message = str(said.get("cause", "UNKNOWN")), str(said.get("message", ""))
        if cause == "APP_COMPUTE_FAILED" and self._guest.out_of_memory():
            cause, message = (
                "APP_OUT_OF_MEMORY",
                "the app was killed: the memory of its sandbox was exhausted",
            )
        return AttemptFailed(cause, message)

    async def _answer(self, number: int, asked: _Asked | Tunnel) -> None:
        try:
            await self._do(number, asked)
        except (AttemptFailed, NotConnected) as failed:
            await self._refuse(number, failed.cause, str(failed))
        except SealdealError as error:
            await self._refuse(number, error.code, str(error))
        except TimeoutError:
            await self._refuse(number, "Unavailable", f"no answer within {CALL_SECONDS:.0f} s")
        except (KeyError, TypeError, ValueError, OSError) as error:
            await self._refuse(number, "InvalidInput", f"the worker cannot do that: {error!r}")
        finally:
            self._asked.pop(number, None)
            asked.close()

    async def _refuse(self, number: int, cause: str, message: str) -> None:
        said = {"cause": cause, "message": message[:4000]}
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            await self._send(encode(Kind.ERROR, number, said))

    async def _do(self, number: int, asked: _Asked | Tunnel) -> None:
        if isinstance(asked, Tunnel):
            await asked.run(await self._world.network(), partial(self._frame, number))
            return
        question = asked.question
        match question.get("call"):
            case "quote":
                evidence = await self._world.evidence(unhex(question["reportData"]))
                await self._reply(number, evidence.to_json(), b"")
            case "fetch":
                path = await self._world.files[question["name"]]()
                with path.open("rb") as file:
                    size = os.fstat(file.fileno()).st_size
                    await self._send(encode(Kind.ANSWER, number, {"size": size}))
                    while piece := await asyncio.to_thread(file.read, MAX_PAYLOAD):
                        await self._send(encode(Kind.DATA, number, piece))
                await self._send(encode(Kind.END, number))
            case "login":
                enclave, blob = address(question["enclave"]), unhex(question["authorization"])
                self._token = await self._world.login(enclave, blob)
                await self._reply(number, {}, b"")
            case "http":
                whole = _ARCHIVE.fullmatch(str(question.get("path")))
                async with asyncio.timeout(None if whole else CALL_SECONDS):
                    status, body = await self._http(question, asked)
                await self._reply(number, {"status": status}, body)
            case "network":
                await self._world.network()
                await self._reply(number, {}, b"")
            case other:
                raise BrokenStream(f"expected quote, fetch, login, http or network, got {other!r:.40}")

    async def _http(self, question: dict[str, Any], asked: _Asked) -> tuple[int, bytes]:
        kind, _, who = str(question["dest"]).partition(":")
        method, path = str(question["method"]), str(question["path"])
        headers = {"content-type": str(question.get("headers", {}).get("content-type", "application/json"))}
        if kind == "sms" and method == "POST" and path in _SMS_PATHS:
            client = self._world.nodes.get(address(who))
            if client is None:
                raise AttemptFailed("Unavailable", f"this worker knows no URL of SMS node {who}")
            content: Any = b"".join([piece async for piece in asked.pieces(MAX_BODY)])
        elif kind == "results" and (path == "/v1/results" or path.startswith("/v1/results/")):
            limit = self._archive_limit if method == "PUT" and _ARCHIVE.fullmatch(path) else MAX_BODY
            client, content = self._world.results, asked.pieces(limit) if question.get("body") else None
            headers["authorization"] = self._token
        else:
            raise AttemptFailed("InvalidInput", f"a guest has no business at {method} {path} of {kind}")
        return await client.exchange(method, path, limit=MAX_ANSWER, content=content, headers=headers)

    async def _reply(self, number: int, head: dict[str, Any], body: bytes) -> None:
        await self._send(encode(Kind.ANSWER, number, head))
        for start in range(0, len(body), MAX_PAYLOAD):
            await self._send(encode(Kind.DATA, number, body[start : start + MAX_PAYLOAD]))
        await self._send(encode(Kind.END, number))

    async def _frame(self, number: int, kind: Kind, payload: bytes | dict[str, Any]) -> None:
        await self._send(encode(kind, number, payload))

    async def _send(self, frame: bytes) -> None:
        async with self._writing:
            self._guest.stdin.write(frame)
            await self._guest.stdin.drain()
