"""Parts of a network in a process of their own, whose memory is theirs: `_data_part STATE CACHE PART…`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from sealdeal.node import LocalNetwork
from sealdeal.worker.cgroups import Bounds
from sealdeal.worker.options import WorkerOptions

DISK = 16 << 30
"""Bytes of the guest's volume; it lies in a file with holes, and takes what is written."""


def network(state: Path, cache: Path, parts: tuple[str, ...]) -> LocalNetwork:
    """The same network in each process: guests have little memory and a large volume."""
    bounds = Bounds(memory=512 << 20, work=256 << 20, disk=DISK, cpus=2)
    return LocalNetwork(state, cache=cache, workers=1, parts=parts, bounds=bounds, worker=WorkerOptions())


async def main(state: str, cache: str, *parts: str) -> None:
    async with network(Path(state), Path(cache), parts) as running:
        print("ready", flush=True)
        await running.wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
