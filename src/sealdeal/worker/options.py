"""What an operator says of the workers on a machine: which driver, how many slots, how much of everything."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from sealdeal.guest.hello import Limits

from .cgroups import Bounds
from .drivers import DEFAULT
from .machine import Machine

_ON_DISK: Final = 4
"""Image, data and output each may have this part of a guest's disk space, and the rest is for input files and
what a file system itself needs. Data are decrypted while they come; when the output's archive is packed, they
are gone."""


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """Of all workers that one process runs. None: derived from the machine."""

    driver: str = DEFAULT
    slots: int = 1
    """Of each worker: guests that it runs at a time."""
    machine: Machine | None = None
    """What all of them have together."""
    image_bytes: int | None = None
    """Of an app's image, unpacked."""
    dataset_bytes: int | None = None
    """Of a dataset, or of one input file."""
    output_bytes: int | None = None
    """Of what an app may leave as its result."""

    def bounds(self, workers: int) -> Bounds:
        """Of each guest, on a machine that so many workers share.

        Raises InvalidInput when a guest would get too little to run anything.
        """
        return (self.machine or Machine.here()).divided(workers).bounds(self.slots)

    def limits(self, bounds: Bounds) -> Limits:
        """What is accepted from a deal, its time apart, by guests of these bounds."""
        limits = Limits(seconds=0)
        if bounds.disk:
            part = bounds.disk // _ON_DISK
            limits = replace(limits, image_bytes=part, dataset_bytes=part, output_bytes=part)
        for name in ("image_bytes", "dataset_bytes", "output_bytes"):
            if (given := getattr(self, name)) is not None:
                limits = replace(limits, **{name: given})
        return limits
