"""Evidence from the hardware, asked for inside the guest's machine: Linux's configfs-tsm (kernel 6.7 on).

A report is a folder there: 64 bytes into `inblob`, and `outblob` is the quote (kernel documentation,
ABI/testing/configfs-tsm). Only root may ask, so the machine's first process does, and answers the guest's
`quote` in the worker's place (gate.py). This has run against a folder that imitates the kernel's, not on
hardware.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from sealdeal.model.errors import InvalidInput, Unavailable
from sealdeal.model.evidence import DCAP, Evidence

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
