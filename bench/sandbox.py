"""Starting a guest in each driver, against the same program in bare bubblewrap, with no limits around it.

A start is all from the call to the guest's first word, and its end: it is told nonsense, so that it ends.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from bench import Ratio, fastest
from sealdeal.guest.stream import Kind, encode
from sealdeal.model.errors import Unavailable
from sealdeal.sdk.guest_release import COMMAND, GuestRelease, build_guest_release
from sealdeal.worker import drivers
from sealdeal.worker.cgroups import Bounds
from sealdeal.worker.sandbox import Sandbox

NONSENSE = encode(Kind.HELLO, 0, {"version": -1})
ROUNDS = 15


async def measure() -> AsyncIterator[Ratio]:
    """The fastest of a few starts each; drivers that this machine lacks are left out."""
    with tempfile.TemporaryDirectory(prefix="sealdeal-bench-") as folder:
        release = build_guest_release(Path(folder))
        guest, true = fastest(lambda: _bare(release, COMMAND), ROUNDS), fastest(_true, ROUNDS)
        for driver in drivers.DRIVERS:
            for bounds, what in ((Bounds(), ""), (Bounds(disk=8 << 30), " on a disk volume")):
                with contextlib.suppress(Unavailable):
                    name = f"bench-{os.getpid()}"
                    sandbox = drivers.sandbox(driver, release, name, bounds, Path(folder) / "scratch")
                    ours = min([await _start(sandbox) for _ in range(ROUNDS)])
                    named = f"a guest in {driver}{what}, to its first word and its end"
                    yield Ratio(named, ours, "the same program in bare bubblewrap", guest, "s")
                    if not what:
                        yield Ratio(named, ours, "`true` in bare bubblewrap", true, "s")


async def _start(sandbox: Sandbox) -> float:
    began = time.perf_counter()
    guest = await sandbox.start(0)
    try:
        guest.stdin.write(NONSENSE)
        assert await guest.stdout.read(1)
        await guest.wait()
        return time.perf_counter() - began
    finally:
        await guest.kill()


def _bare(release: GuestRelease, command: tuple[str, ...]) -> None:
    """Namespaces, a root, a tmpfs: what bubblewrap alone does."""
    options = ["--unshare-all", "--ro-bind", str(release.rootfs), "/", "--proc", "/proc", "--dev", "/dev"]
    options += ["--tmpfs", "/tmp", "--tmpfs", "/work"]
    said = subprocess.run(["bwrap", *options, *command], input=NONSENSE, capture_output=True, check=True)
    assert said.stdout


def _true() -> None:
    subprocess.run(["bwrap", "--unshare-all", "--ro-bind", "/", "/", "/bin/true"], check=True)
