"""How much of its machine a worker gives, and how that is divided among its guests.

A guest's time comes from its deal's category; everything else from here and from the worker's settings.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

from sealdeal.guest.hello import PROMISED_BYTES
from sealdeal.model.errors import InvalidInput

from .cgroups import Bounds

LEAST_MEMORY: Final = 256 << 20
"""Bytes of memory below which a guest cannot unpack an image and run an app."""
LEAST_CPUS: Final = 0.1
LEAST_PROCESSES: Final = 32
LEAST_FILES: Final = 3 * PROMISED_BYTES
"""Bytes of files that a guest must be able to hold: image, and twice what every app may leave. Where an app
could have met a smaller bound, the guest contributes no error as the app's own."""
_KEPT: Final = 4
"""One part in so many of the machine's memory is left to the worker, its neighbours and the system."""
_IN_FILES: Final = 2
"""One part in so many of a guest's memory may be files; the rest is for the guest and its app to run in."""
_NO_LIMIT: Final = 1 << 60
"""Where version 1 of the control groups says that there is none, it says a number above this."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What all guests of a worker may use together."""

    memory: int
    """Bytes."""
    cpus: float
    processes: int = 256
    """Of each guest, not together: ids of processes are not what a machine is short of."""
    disk: int = 0
    """Bytes. With 0, data of guests lie in memory only."""

    @classmethod
    def here(cls) -> Self:
        """Three quarters of this machine's memory, or of what this process may have of it; every processor
        that it may run on; no disk."""
        return cls(memory=_memory() * (_KEPT - 1) // _KEPT, cpus=float(len(os.sched_getaffinity(0))))

    def divided(self, parts: int) -> Self:
        """One of so many equal parts: of a worker among several on a machine."""
        _at_least("parts", parts, 1)
        return replace(self, memory=self.memory // parts, cpus=self.cpus / parts, disk=self.disk // parts)

    def bounds(self, slots: int) -> Bounds:
        """Of each guest, when the worker runs so many at a time.

        Raises InvalidInput when a guest would get too little to run anything.
        """
        _at_least("slots", slots, 1)
        part = self.divided(slots)
        why = f"for each of {slots} slots: have fewer, or give the worker more"
        _at_least("bytes of memory", part.memory, LEAST_MEMORY, why)
        _at_least("processors", part.cpus, LEAST_CPUS, why)
        _at_least("processes", part.processes, LEAST_PROCESSES, "for each guest")
        if part.disk:
            _at_least("bytes of disk", part.disk, LEAST_FILES, why)
        return Bounds(
            memory=part.memory,
            work=max(part.memory // _IN_FILES, LEAST_FILES),  # of a small memory, memory is the bound
            disk=part.disk,
            processes=part.processes,
            cpus=part.cpus,
        )


def _at_least(what: str, value: float, least: float, why: str = "") -> None:
    if value < least:
        raise InvalidInput(f"expected at least {least} {what} {why}".rstrip() + f"; got {value:g}")


def _memory() -> int:
    """Bytes: the machine's, or what control groups leave of it to this process."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in ("memory.max", "memory/memory.limit_in_bytes"):  # as a container sees its own
        with contextlib.suppress(OSError, ValueError):
            if 0 < (limit := int((Path("/sys/fs/cgroup") / file).read_text())) < _NO_LIMIT:
                total = min(total, limit)
    return total
