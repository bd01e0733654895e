"""Evidence from the hardware, against a folder that behaves as the kernel documents its own. No test here
has seen hardware."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path

import pytest

from sealdeal.guest.tsm import Reports
from sealdeal.model.errors import InvalidInput, Unavailable
from sealdeal.model.evidence import DCAP, Evidence
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
        answered = 0
        with contextlib.suppress(OSError):  # the folder is gone
            while self.entry.exists():
                if self._asked == answered:
                    time.sleep(0.005)
                    continue
                with (self.entry / "outblob").open("wb") as out:  # once somebody reads
                    answered = self._asked
                    generation = int((self.entry / "generation").read_text())
                    (self.entry / "generation").write_text(f"{generation + self._steps}\n")
                    out.write(self._quote((self.entry / "inblob").read_bytes()))

    @property
    def _asked(self) -> int:
        """When `inblob` was written last."""
        asked = self.entry / "inblob"
        return asked.stat().st_mtime_ns if asked.exists() else 0

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
