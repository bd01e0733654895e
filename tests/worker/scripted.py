"""A guest that follows a script, in place of a sandbox: to see what the worker makes of its words."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from sealdeal.guest.stream import Decoder, Frame, Kind, encode
from sealdeal.worker.sandbox import Capabilities, Guest


class Sink:
    """The worker's writes, cut into frames."""

    def __init__(self) -> None:
        self.frames: asyncio.Queue[Frame] = asyncio.Queue()
        self._decoder = Decoder()
        self.broken = False

    def write(self, data: bytes) -> None:
        if self.broken:
            raise BrokenPipeError
        for frame in self._decoder.feed(data):
            self.frames.put_nowait(frame)

    async def drain(self) -> None:
        await asyncio.sleep(0)


class ScriptedGuest:
    """`script(guest)` plays it; when that returns, the guest has ended with `status`."""

    def __init__(self, script: Callable[[ScriptedGuest], Awaitable[None]]) -> None:
        self.stdin: Any = Sink()
        self.stdout = asyncio.StreamReader()
        self.status, self.starved, self.killed = 0, False, False
        self.complaint = "last words"
        self._task = asyncio.create_task(self._play(script))

    async def _play(self, script: Callable[[ScriptedGuest], Awaitable[None]]) -> None:
        try:
            await script(self)
        finally:
            self.stdout.feed_eof()

    async def hear(self) -> Frame:
        frame: Frame = await self.stdin.frames.get()
        return frame

    def say(self, kind: Kind, call: int = 0, payload: Any = b"") -> None:
        self.stdout.feed_data(encode(kind, call, payload))

    def tell(self, event: str, **members: Any) -> None:
        self.say(Kind.EVENT, 0, {"event": event, **members})

    async def ask(self, call: int, question: str, *body: bytes, **members: Any) -> list[Frame]:
        """Everything that is answered, up to END or ERROR."""
        self.say(Kind.CALL, call, {"call": question, "body": bool(body), **members})
        for piece in body:
            self.say(Kind.DATA, call, piece)
        if body:
            self.say(Kind.END, call)
        frames: list[Frame] = []
        while not frames or frames[-1].kind not in (Kind.END, Kind.ERROR):
            frames.append(await self.hear())
        return frames

    async def wait(self) -> int:
        await asyncio.wait([self._task])
        return self.status

    async def kill(self) -> None:
        self.killed = True
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def out_of_memory(self) -> bool:
        return self.starved


class ScriptedSandbox:
    """Starts scripted guests, and remembers them."""

    capabilities = Capabilities("scripted", ())

    def __init__(self, script: Callable[[ScriptedGuest], Awaitable[None]]) -> None:
        self.script, self.guests, self.swept = script, list[ScriptedGuest](), 0

    async def start(self, slot: int, app_checksum: bytes = bytes(32), /) -> Guest:
        self.guests.append(ScriptedGuest(self.script))
        return self.guests[-1]

    def sweep(self) -> int:
        self.swept += 1
        return 0
