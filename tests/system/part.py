"""Run parts of a test network's folder in this process, which tests kill: `part.py STATE CACHE PART…`."""

import asyncio
import sys
from pathlib import Path

from tests.system.conftest import local_network


async def main(state: str, cache: str, *parts: str) -> None:
    async with local_network(Path(state), Path(cache), parts=parts) as network:
        print("ready", flush=True)
        await network.wait()


asyncio.run(main(*sys.argv[1:]))
