"""What stands between a guest and its worker where the machine's first process has a say (boot.py).

It passes frames on, both ways. A question for a quote it answers itself, where the hardware gives reports.
And before anything of the guest's leaves, it looks whether the kernel has met a block of the machine's disk
that it cannot believe: the host changed it, or did not give it. Whatever an app did after that is not its own
doing, and must not be signed for as such: the machine stops.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

from sealdeal.model.errors import SealdealError
from sealdeal.model.types import unhex

from .stream import MAX_PAYLOAD, BrokenStream, Decoder, Frame, Kind, encode
from .tsm import Reports

KERNEL_LOG: Final = Path("/dev/kmsg")
_RECORD: Final = 8192
"""Bytes that a record of the log has at most."""
_TROUBLE: Final = (b"INTEGRITY AEAD ERROR", b"I/O error")
"""What the kernel says before whoever reads the block is told."""


class DiskFailed(SealdealError):
    """A disk gave what cannot be believed, or nothing."""


class DiskWatch:
    """The kernel's log from now on."""

    def __init__(self, log: Path = KERNEL_LOG) -> None:
        self._log = os.open(log, os.O_RDONLY | os.O_NONBLOCK)
        os.lseek(self._log, 0, os.SEEK_END)

    @classmethod
    def here(cls) -> Self | None:
        """None in a machine without a disk for its work, which is given no log."""
        return cls() if KERNEL_LOG.exists() else None

    def check(self) -> None:
        """Raises DiskFailed when a disk has failed since it began, or if that cannot be told any more."""
        while True:
            try:
                record = os.read(self._log, _RECORD)
            except BlockingIOError:
                return
            except OSError as error:  # records were overwritten before they were read
                raise DiskFailed(f"the kernel's log cannot be followed: {error}") from None
            if not record:
                return
            if any(words in record for words in _TROUBLE):
                raise DiskFailed(record.decode(errors="replace").partition(";")[2].splitlines()[0][:200])


class Gate:
    """Passes the stream on."""

    def __init__(
        self,
        port: int,
        *,
        to_guest: int,
        from_guest: int,
        reports: Reports | None,
        watch: DiskWatch | None,
        stop: Callable[[str], None],
    ) -> None:
        """File descriptors: the worker's stream, and the two ends of the guest's. `stop` is to end the
        machine, and is told why."""
        self._port, self._to_guest, self._from_guest = port, to_guest, from_guest
        self._reports, self._watch, self._stop = reports, watch, stop
        self._writing = threading.Lock()
        self._leaving = threading.Thread(target=self._upwards, daemon=True)

    def begin(self) -> None:
        """Serve in the background until a side ends."""
        self._leaving.start()
        threading.Thread(target=self._downwards, daemon=True).start()

    def finish(self) -> None:
        """After the guest's end: wait until its last words have left."""
        self._leaving.join()

    def _downwards(self) -> None:
        """From the worker: whole frames, since answers of ours go in between."""
        decoder = Decoder()
        try:
            while data := os.read(self._port, MAX_PAYLOAD):
                for frame in decoder.feed(data):
                    self._tell(frame.kind, frame.call, frame.payload)
        except (OSError, BrokenStream) as error:
            print(f"the stream from the worker ended: {error}", file=sys.stderr, flush=True)
        with self._writing:
            os.close(self._to_guest)
            self._to_guest = -1

    def _upwards(self) -> None:
        decoder = Decoder()
        try:
            while data := os.read(self._from_guest, MAX_PAYLOAD):
                for frame in decoder.feed(data):
                    if not self._answered(frame):
                        if self._watch is not None:
                            self._watch.check()
                        _write(self._port, encode(frame.kind, frame.call, frame.payload))
        except DiskFailed as failed:
            self._stop(str(failed))
        except (OSError, BrokenStream) as error:
            print(f"the stream from the guest ended: {error}", file=sys.stderr, flush=True)

    def _answered(self, frame: Frame) -> bool:
        """Whether it was a question for a quote, which is answered now."""
        if self._reports is None or frame.kind is not Kind.CALL:
            return False
        question = frame.json()
        if question.get("call") != "quote":
            return False
        try:
            evidence = self._reports.evidence(unhex(str(question.get("reportData"))))
        except SealdealError as error:
            self._tell(Kind.ERROR, frame.call, {"cause": error.code, "message": str(error)})
        else:
            self._tell(Kind.ANSWER, frame.call, json.dumps(evidence.to_json()).encode())
            self._tell(Kind.END, frame.call)
        return True

    def _tell(self, kind: Kind, call: int, payload: bytes | dict[str, str] = b"") -> None:
        with self._writing:
            if self._to_guest >= 0:
                _write(self._to_guest, encode(kind, call, payload))


def _write(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]
