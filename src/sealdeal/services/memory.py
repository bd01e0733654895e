"""How a process that streams keeps no more memory than it uses."""

from __future__ import annotations

import contextlib
import ctypes

_LARGE_BLOCK = 4 << 20
"""Bytes: above the pieces in which data stream, so that these are not mapped and unmapped one by one."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h


def give_back() -> None:
    """Have glibc return large blocks to the system when they are freed, and keep one heap for all threads.

    It raises its thresholds to the largest block that was ever freed, otherwise, and the 40 MiB in which a
    guest's release was built stay with a process that holds less than that of data. And each thread that
    hashes or writes a piece of a stream would have a heap of its own, with a few pieces that were freed.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        for option, value in (
            (_M_MMAP_THRESHOLD, _LARGE_BLOCK),
            (_M_TRIM_THRESHOLD, _LARGE_BLOCK),
            (_M_ARENA_MAX, 1),
        ):
            ctypes.CDLL(None).mallopt(option, value)
