"""The one byte stream between a guest and its worker: frames of calls, answers and pieces of bodies.

    frame = payload length (4 bytes, big endian) ‖ kind (1 byte) ‖ call number (4 bytes) ‖ payload

The worker opens with HELLO. Then the guest asks (CALL, a JSON object with the member `call`; a body may
follow as DATA frames and END) and the worker answers under the same number: ANSWER (a JSON object), DATA
frames, END; or ERROR (`{"cause", "message"}`), which ends it. Calls overlap freely. EVENTs (number 0) tell
the worker what happens; the last one is `done` or `failed`.

A call may be a connection (guest.network): then both sides send DATA until their END, at most WINDOW bytes
more than the other has taken, which it tells in CREDITs (4 bytes, big endian: so many bytes more). ERROR of
either side ends it at once.

`Decoder` and `encode` serve both sides; `Channel` is the guest's, which blocks.
"""

from __future__ import annotations

import json
import os
import select
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final, Protocol, TypeVar

from sealdeal.model.errors import SealdealError, TooLarge

MAX_PAYLOAD: Final = 1 << 20
"""Bytes of one frame's payload."""
WINDOW: Final = 256 << 10
"""Bytes that each side of a connection may have on the way to the other, who holds them for a slow reader."""
_HEADER: Final = 9


class Kind(IntEnum):
    HELLO = 0
    CALL = 1
    ANSWER = 2
    DATA = 3
    END = 4
    ERROR = 5
    EVENT = 6
    CREDIT = 7


_KINDS: Final = frozenset(int(kind) for kind in Kind)


class BrokenStream(SealdealError):
    """The other side does not speak this protocol, or went away: the task cannot go on."""


class Refused(SealdealError):
    """The worker could not do what was asked of it."""

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Frame:
    kind: Kind
    call: int
    payload: bytes

    def json(self) -> dict[str, Any]:
        """The payload's JSON object. Raises BrokenStream for anything else."""
        try:
            value = json.loads(self.payload)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise BrokenStream(f"expected a JSON object in a frame of kind {self.kind.name}")
        return value


def encode(kind: Kind, call: int, payload: bytes | dict[str, Any] = b"") -> bytes:
    """One frame. Raises TooLarge over MAX_PAYLOAD."""
    data = payload if isinstance(payload, bytes) else json.dumps(payload, separators=(",", ":")).encode()
    if len(data) > MAX_PAYLOAD:
        raise TooLarge(f"expected at most {MAX_PAYLOAD} bytes in a frame, got {len(data)}")
    return len(data).to_bytes(4, "big") + bytes([kind]) + call.to_bytes(4, "big") + data


def body_frames(call: int, pieces: Iterable[bytes]) -> Iterator[bytes]:
    """DATA frames of at most MAX_PAYLOAD bytes each, and END."""
    for piece in pieces:
        for start in range(0, len(piece), MAX_PAYLOAD):
            yield encode(Kind.DATA, call, bytes(piece[start : start + MAX_PAYLOAD]))
    yield encode(Kind.END, call)


def credit_of(frame: Frame) -> int:
    """The bytes of a CREDIT. Raises BrokenStream for what is none."""
    if len(frame.payload) != 4 or not (count := int.from_bytes(frame.payload, "big")):
        raise BrokenStream("expected a credit of 4 bytes and more than nothing")
    return count


class Taker(Protocol):
    """Where the frames of one call go."""

    number: int
    ended: bool
    """Whether no more will come."""

    def take(self, frame: Frame, /) -> None: ...


class Decoder:
    """Cuts a byte stream into frames, however it arrives. Holds at most one incomplete frame."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that `data` completes. Raises BrokenStream for what can be no frame."""
        self._buffer += data
        start = 0
        while len(self._buffer) - start >= _HEADER:
            length = int.from_bytes(self._buffer[start : start + 4], "big")
            if length > MAX_PAYLOAD or self._buffer[start + 4] not in _KINDS:
                raise BrokenStream("expected a frame of a known kind and length; the stream is corrupt")
            end = start + _HEADER + length
            if len(self._buffer) < end:
                break
            kind, call = Kind(self._buffer[start + 4]), self._buffer[start + 5 : start + _HEADER]
            payload = bytes(self._buffer[start + _HEADER : end])
            start = end
            yield Frame(kind, int.from_bytes(call, "big"), payload)
        del self._buffer[:start]

    @property
    def idle(self) -> bool:
        """Whether the stream may end here: no frame is incomplete."""
        return not self._buffer


@dataclass(slots=True)
class Call:
    """A question under way: first `answer`, then `read` until it gives nothing."""

    channel: Channel
    number: int
    _head: dict[str, Any] | None = None
    _error: Refused | None = None
    _pieces: deque[bytes] = field(default_factory=deque)
    ended: bool = False
    """Whether the whole answer has arrived."""

    def answer(self) -> dict[str, Any]:
        """The answer's JSON object. Raises Refused."""
        while self._head is None and self._error is None:
            self.channel.pump()
        if self._error is not None:
            raise self._error
        assert self._head is not None
        return self._head

    def read(self, size: int = MAX_PAYLOAD, /) -> bytes:
        """At most `size` bytes of the answer's body; nothing at its end. Raises Refused."""
        while not self._pieces and not self.ended:
            self.channel.pump()
        if self._error is not None:
            raise self._error
        if not self._pieces:
            return b""
        piece = self._pieces.popleft()
        if len(piece) > size:
            self._pieces.appendleft(piece[size:])
            piece = piece[:size]
        return piece

    def content(self, limit: int) -> bytes:
        """The whole body. Raises Refused, or TooLarge over `limit` bytes."""
        found = bytearray()
        while piece := self.read():
            found += piece
            if len(found) > limit:
                raise TooLarge(f"expected an answer of at most {limit} bytes, got more")
        return bytes(found)

    def take(self, frame: Frame) -> None:
        """Called by the channel with each frame of this call."""
        match frame.kind:
            case Kind.ANSWER if self._head is None:
                self._head = frame.json()
            case Kind.DATA if self._head is not None:
                self._pieces.append(frame.payload)
            case Kind.END if self._head is not None:
                self.ended = True
            case Kind.ERROR:
                said = frame.json()
                self._error = Refused(str(said.get("cause", "UNKNOWN")), str(said.get("message", "")))
                self.ended = True
            case _:
                raise BrokenStream(f"a frame of kind {frame.kind.name} came out of turn")


_Connection = TypeVar("_Connection", bound=Taker)


class Channel:
    """The guest's end of the stream."""

    def __init__(self, source: int, sink: int) -> None:
        """File descriptors to read from and to write to."""
        self._source, self._sink = source, sink
        self._decoder = Decoder()
        self._arrived: deque[Frame] = deque()
        self._calls: dict[int, Taker] = {}
        self._next = 1

    def hello(self) -> dict[str, Any]:
        """The worker's opening word."""
        frame = self._receive()
        if frame.kind is not Kind.HELLO:
            raise BrokenStream(f"expected HELLO first, got {frame.kind.name}")
        return frame.json()

    def event(self, name: str, /, **members: Any) -> None:
        """Tell the worker something."""
        self._send(encode(Kind.EVENT, 0, {"event": name, **members}))

    def call(self, question: str, body: Iterable[bytes] | None = None, /, **members: Any) -> Call:
        """Ask for something; `body` is sent after the question."""
        call = Call(self, self._number())
        self._ask(call, question, body=body is not None, **members)
        if body is not None:
            for frame in body_frames(call.number, body):
                self._send(frame)
        return call

    def connect(self, make: Callable[[int], _Connection], /, **members: Any) -> _Connection:
        """Ask for a connection. `make` is given its number; what it gives takes the frames that come."""
        connection = make(self._number())
        self._ask(connection, "connect", body=True, **members)
        return connection

    def say(self, kind: Kind, number: int, payload: bytes | dict[str, Any] = b"") -> None:
        """One frame of a connection."""
        self._send(encode(kind, number, payload))

    @property
    def source(self) -> int:
        """What to wait at before `hear`."""
        return self._source

    def hear(self, *, wait: bool = True) -> None:
        """Hand out every frame that has arrived; with `wait`, after reading once what the worker sent."""
        if wait:
            self._read()
        while self._arrived:
            self._give(self._arrived.popleft())

    def first_ended(self, calls: Sequence[Call], within: float) -> Call | None:
        """Waits until one of `calls` has its whole answer; None when none has within so many seconds."""
        give_up = time.monotonic() + within
        while True:
            for call in calls:
                if call.ended:
                    return call
            left = give_up - time.monotonic()
            if not self._arrived and not (left > 0 and select.select([self._source], [], [], left)[0]):
                return None
            self.pump()

    def abandon(self, call: Taker) -> None:
        """Forget a call: what still arrives of its answer is dropped."""
        self._calls.pop(call.number, None)

    def pump(self) -> None:
        """Waits for one frame and hands it to its call."""
        self._give(self._receive())

    def _number(self) -> int:
        self._next += 1
        return self._next - 1

    def _ask(self, taker: Taker, question: str, **members: Any) -> None:
        self._send(encode(Kind.CALL, taker.number, {"call": question, **members}))
        self._calls[taker.number] = taker

    def _give(self, frame: Frame) -> None:
        if (call := self._calls.get(frame.call)) is None:
            return
        call.take(frame)
        if call.ended:
            self._calls.pop(frame.call, None)

    def _receive(self) -> Frame:
        while not self._arrived:
            self._read()
        return self._arrived.popleft()

    def _read(self) -> None:
        data = os.read(self._source, MAX_PAYLOAD)
        if not data:
            raise BrokenStream("the worker closed the stream")
        self._arrived.extend(self._decoder.feed(data))

    def _send(self, frame: bytes) -> None:
        view = memoryview(frame)
        while view:
            view = view[os.write(self._sink, view) :]
