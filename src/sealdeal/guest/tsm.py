"""Evidence from the hardware, asked for inside the guest's machine: Linux's configfs-tsm (kernel 6.7 on).

A report is a folder there: 64 bytes into `inblob`, and `outblob` is the quote (kernel documentation,
ABI/testing/configfs-tsm). Only root may ask, so the machine's first process does, and answers the guest's
`quote` in the worker's place. This has run against a folder that imitates the kernel's, not on hardware.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from sealdeal.model.errors import InvalidInput, SealdealError, Unavailable
from sealdeal.model.evidence import DCAP, Evidence
from sealdeal.model.types import unhex

from .stream import MAX_PAYLOAD, BrokenStream, Decoder, Frame, Kind, encode

CONFIGFS: Final = Path("/dev/configfs")
_KINDS: Final = {"tdx_guest": DCAP}
"""What the kernel calls a provider -> the kind of its evidence."""


@dataclass(frozen=True, slots=True)
class Reports:
    """The kernel's folder of reports."""

    folder: Path

    @classmethod
    def here(cls, configfs: Path = CONFIGFS) -> Self | None:
        """None on a machine whose hardware gives no reports."""
        folder = configfs / "tsm" / "report"
        return cls(folder) if folder.is_dir() else None

    def evidence(self, report_data: bytes) -> Evidence:
        """A quote over 64 bytes. Raises InvalidInput for another length, Unavailable when there is none."""
        if len(report_data) != 64:
            raise InvalidInput(f"expected 64 bytes of report data, got {len(report_data)}")
        entry = self.folder / "sealdeal"
        try:
            entry.mkdir(exist_ok=True)
            before = int((entry / "generation").read_text())
            (entry / "inblob").write_bytes(report_data)
            quote = (entry / "outblob").read_bytes()
            provider = (entry / "provider").read_text().strip()
            after = int((entry / "generation").read_text())
        except (OSError, ValueError) as error:
            raise Unavailable(f"the hardware gives no quote: {error}") from None
        if after != before + 1:
            raise Unavailable("another report was asked for at the same time: ask again")
        if provider not in _KINDS:
            raise Unavailable(f"expected reports of {', '.join(_KINDS)}, got those of {provider!r:.40}")
        return Evidence(_KINDS[provider], quote)


class Answering:
    """Passes the stream on between worker and guest, and answers `quote` itself."""

    def __init__(self, reports: Reports, port: int, *, to_guest: int, from_guest: int) -> None:
        """File descriptors: the worker's stream, and the two ends of the guest's."""
        self._reports, self._port = reports, port
        self._to_guest, self._from_guest = to_guest, from_guest
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
                    if frame.kind is Kind.CALL and (question := frame.json()).get("call") == "quote":
                        self._quote(frame, str(question.get("reportData")))
                    else:
                        _write(self._port, encode(frame.kind, frame.call, frame.payload))
        except (OSError, BrokenStream) as error:
            print(f"the stream from the guest ended: {error}", file=sys.stderr, flush=True)

    def _quote(self, frame: Frame, report_data: str) -> None:
        try:
            evidence = self._reports.evidence(unhex(report_data))
        except SealdealError as error:
            self._tell(Kind.ERROR, frame.call, {"cause": error.code, "message": str(error)})
        else:
            self._tell(Kind.ANSWER, frame.call, json.dumps(evidence.to_json()).encode())
            self._tell(Kind.END, frame.call)

    def _tell(self, kind: Kind, call: int, payload: bytes | dict[str, str] = b"") -> None:
        with self._writing:
            if self._to_guest >= 0:
                _write(self._to_guest, encode(kind, call, payload))


def _write(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]
