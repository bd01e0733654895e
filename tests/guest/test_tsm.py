"""Evidence from the hardware, against a folder that behaves as the kernel documents its own. No test here
has seen hardware."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sealdeal.guest.stream import Channel, Decoder, Frame, Kind, Refused, encode
from sealdeal.guest.tsm import Answering, Reports
from sealdeal.model.errors import InvalidInput, Unavailable
from sealdeal.model.evidence import DCAP, Evidence
from sealdeal.model.types import hexstr
from sealdeal.tee.dcap import DcapVerifier
from sealdeal.tee.simulated import SimulatedPlatform

DATA = bytes(range(64))
NOW = int(time.time())


class Kernel:
    """The folder of one report: reading `outblob` makes a quote over what `inblob` holds. The kernel counts
    writes into `generation`; a plain folder cannot, and counts when it is read."""

    def __init__(self, configfs: Path, *, provider: str = "tdx_guest", steps: int = 1) -> None:
        self.platform = SimulatedPlatform.generate(NOW)
        self.entry = configfs / "tsm/report/sealdeal"
        self.entry.mkdir(parents=True)
        (self.entry / "generation").write_text("6\n")
        (self.entry / "provider").write_text(f"{provider}\n")
        os.mkfifo(self.entry / "outblob")
        self._steps = steps
        threading.Thread(target=self._answer, daemon=True).start()

    def _answer(self) -> None:
        with contextlib.suppress(OSError):  # the folder is gone
            while True:
                with (self.entry / "outblob").open("wb") as out:
                    generation = int((self.entry / "generation").read_text())
                    (self.entry / "generation").write_text(f"{generation + self._steps}\n")
                    out.write(self._quote((self.entry / "inblob").read_bytes()))
                time.sleep(0.05)  # until the reader has seen the end

    def _quote(self, data: bytes) -> bytes:
        return self.platform.quote(data, self.platform.measure(b"\1" * 32, b"\2" * 32))


def test_a_machine_without_reports_has_none(tmp_path: Path) -> None:
    assert Reports.here(tmp_path) is None


def test_a_quote_is_over_what_was_asked(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path)
    reports = Reports.here(tmp_path)
    assert reports is not None
    evidence = reports.evidence(DATA)
    assert evidence.kind == DCAP and evidence.collateral is None
    whole = Evidence(DCAP, evidence.quote, kernel.platform.collateral(NOW))
    assert DcapVerifier(kernel.platform.root_der).verify(whole, NOW).report_data == DATA


def test_what_is_no_report_is_refused(tmp_path: Path) -> None:
    reports = Reports(tmp_path / "nothing")
    with pytest.raises(InvalidInput, match="64 bytes"):
        reports.evidence(DATA[1:])
    with pytest.raises(Unavailable, match="gives no quote"):
        reports.evidence(DATA)


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [({"provider": "sev_guest"}, "expected reports of tdx_guest, got those of 'sev_guest'"),
     ({"steps": 2}, "at the same time")],
)  # fmt: skip
def test_other_hardware_and_crossed_reports_are_refused(
    tmp_path: Path, behaviour: dict[str, object], words: str
) -> None:
    Kernel(tmp_path, **behaviour)  # type: ignore[arg-type]
    reports = Reports.here(tmp_path)
    assert reports is not None
    with pytest.raises(Unavailable, match=words):
        reports.evidence(DATA)


@pytest.fixture
def between(tmp_path: Path) -> Iterator[tuple[Channel, int, Answering, list[int]]]:
    """A guest's channel, and the worker's end of the stream; between them the machine's first process."""
    Kernel(tmp_path)
    reports = Reports.here(tmp_path)
    assert reports is not None
    (guest_in, to_guest), (from_guest, guest_out) = os.pipe(), os.pipe()

    worker, port = socket.socketpair()
    answering = Answering(reports, port.fileno(), to_guest=to_guest, from_guest=from_guest)
    answering.begin()
    with worker, port:
        yield Channel(guest_in, guest_out), worker.fileno(), answering, [guest_in, guest_out]


def frames_of(handle: int, count: int) -> list[Frame]:
    decoder, found = Decoder(), list[Frame]()
    while len(found) < count:
        found += decoder.feed(os.read(handle, 1 << 16))
    return found


def test_the_guests_question_is_answered_in_its_machine_and_all_else_passes(
    between: tuple[Channel, int, Answering, list[int]],
) -> None:
    channel, worker, answering, (_, guest_out) = between
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
    for frame in ((Kind.ANSWER, {"size": 3}), (Kind.DATA, b"abc"), (Kind.END, b"")):
        os.write(worker, encode(frame[0], asked.call, frame[1]))
    assert fetch.answer() == {"size": 3} and fetch.content(10) == b"abc"
    channel.event("done", last="word")
    os.close(guest_out)
    answering.finish()
    assert frames_of(worker, 1)[0].json() == {"event": "done", "last": "word"}


def test_a_worker_that_breaks_the_stream_ends_it_for_the_guest(
    between: tuple[Channel, int, Answering, list[int]],
) -> None:
    _, worker, _, (guest_in, _) = between
    os.write(worker, b"\xff" * 9)
    assert os.read(guest_in, 1) == b""
