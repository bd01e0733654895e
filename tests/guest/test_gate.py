"""What stands between guest and worker in a machine: whole frames, quotes, and disks that fail."""

from __future__ import annotations

import os
import queue
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sealdeal.guest.gate import DiskFailed, DiskWatch, Gate
from sealdeal.guest.stream import Channel, Decoder, Frame, Kind, Refused, encode
from sealdeal.guest.tsm import Reports
from sealdeal.model.evidence import Evidence
from sealdeal.model.types import hexstr

from .test_tsm import DATA, Kernel

AEAD = b"3,812,9001,-;device-mapper: crypt: dm-1: INTEGRITY AEAD ERROR, sector 64\n SUBSYSTEM=block\n"
OTHER = b"6,811,9000,-;a message of no concern\n"


@dataclass
class Place:
    """A gate, with a guest's channel on one side, and the worker's end of the stream on the other."""

    folder: Path
    stopped: queue.Queue[str] = field(default_factory=queue.Queue)

    def __post_init__(self) -> None:
        Kernel(self.folder)
        self.log = self.folder / "kmsg"
        self.log.write_bytes(AEAD)  # of before
        (self.guest_in, to_guest), (from_guest, self.guest_out) = os.pipe(), os.pipe()
        self._worker, self._port = socket.socketpair()
        self.worker = self._worker.fileno()
        self.gate = Gate(
            self._port.fileno(),
            to_guest=to_guest,
            from_guest=from_guest,
            reports=Reports.here(self.folder),
            watch=DiskWatch(self.log),
            stop=self.stopped.put,
        )
        self.gate.begin()
        self.channel = Channel(self.guest_in, self.guest_out)

    def happens(self, record: bytes) -> None:
        with self.log.open("ab") as log:
            log.write(record)

    def close(self) -> None:
        self._worker.close()
        self._port.close()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.close()


def frames_of(handle: int, count: int) -> list[Frame]:
    decoder, found = Decoder(), list[Frame]()
    while len(found) < count:
        found += decoder.feed(os.read(handle, 1 << 16))
    return found


def test_the_guests_question_is_answered_in_its_machine_and_all_else_passes(place: Place) -> None:
    channel, worker = place.channel, place.worker
    os.write(worker, encode(Kind.HELLO, 0, {"version": 1})[:5])
    os.write(worker, encode(Kind.HELLO, 0, {"version": 1})[5:])
    assert channel.hello() == {"version": 1}
    fetch = channel.call("fetch", name="image")
    quote = channel.call("quote", reportData=hexstr(DATA))
    evidence = Evidence.from_json(quote.answer())
    assert DATA in evidence.quote and quote.read() == b""
    bad = channel.call("quote", reportData="0x00")
    with pytest.raises(Refused, match="64 bytes") as refused:
        bad.answer()
    assert refused.value.cause == "InvalidInput"
    (asked,) = frames_of(worker, 1)  # and nothing of the quotes
    assert asked.json() == {"call": "fetch", "name": "image", "body": False}
    os.write(worker, encode(Kind.ANSWER, asked.call, {"size": 3}))
    os.write(worker, encode(Kind.DATA, asked.call, b"abc") + encode(Kind.END, asked.call))
    assert fetch.answer() == {"size": 3} and fetch.content(10) == b"abc"
    place.happens(OTHER)
    channel.event("done", last="word")
    os.close(place.guest_out)
    place.gate.finish()
    assert frames_of(worker, 1)[0].json() == {"event": "done", "last": "word"}
    assert place.stopped.empty()


def test_a_worker_that_breaks_the_stream_ends_it_for_the_guest(place: Place) -> None:
    os.write(place.worker, b"\xff" * 9)
    assert os.read(place.guest_in, 1) == b""


@pytest.mark.parametrize("record", [AEAD, b"3,9,9,-;Buffer I/O error on dev dm-2, logical block 7\n"])
def test_nothing_leaves_after_a_disk_has_failed(place: Place, record: bytes) -> None:
    place.channel.event("status", phase="COMPUTING")
    assert len(frames_of(place.worker, 1)) == 1
    place.happens(record)
    place.channel.event("done", error="the app exited with code 1")
    place.gate.finish()
    assert "error" in place.stopped.get(timeout=10).lower()
    with pytest.raises(BlockingIOError):
        socket.socket(fileno=os.dup(place.worker)).recv(1, socket.MSG_DONTWAIT)


def test_a_log_that_cannot_be_followed_is_a_failure(tmp_path: Path) -> None:
    watch = DiskWatch(tmp_path)  # a folder: opened, and not read
    with pytest.raises(DiskFailed, match="cannot be followed"):
        watch.check()
