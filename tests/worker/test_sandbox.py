"""The outer sandbox: guests start, stay inside their bounds, and are gone afterwards, however they end."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sealdeal.guest.stream import Decoder, Frame, Kind, encode
from sealdeal.sdk.guest_release import GuestRelease, build_guest_release
from sealdeal.worker import cgroups
from sealdeal.worker.cgroups import Bounds, Group
from sealdeal.worker.sandbox import BubblewrapSandbox, Guest

ROOT = os.geteuid() == 0
BOUNDED = ROOT and not cgroups.missing()
needs_cgroups = pytest.mark.skipif(not BOUNDED, reason="cgroups cannot be written here")


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> GuestRelease:
    return build_guest_release(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def name(tmp_path: Path) -> str:
    """Of the test's own: sweeping must not meet another test's guests."""
    return hashlib.sha256(str(tmp_path).encode()).hexdigest()[:12]


@contextlib.asynccontextmanager
async def running(sandbox: BubblewrapSandbox, slot: int = 0) -> AsyncIterator[Guest]:
    guest = await sandbox.start(slot)
    try:
        yield guest
    finally:
        await guest.kill()


async def ready(guest: Guest) -> None:
    """Until it waits for its HELLO: it breaks off when it gets nonsense."""
    guest.stdin.write(encode(Kind.HELLO, 0, {"version": -1}))
    frames: list[Frame] = []
    decoder = Decoder()
    while not frames:
        frames = list(decoder.feed(await asyncio.wait_for(guest.stdout.read(1 << 16), 20)))
    assert frames[0].json()["event"] == "failed"


def own(name: str) -> list[int]:
    """Processes in the guest's control groups."""
    return [pid for group in cgroups.leftovers(name) for pid in group.members()]


def parts(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


async def test_a_guest_speaks_and_ends(release: GuestRelease, name: str) -> None:
    async with running(BubblewrapSandbox(release, name)) as guest:
        await ready(guest)
        assert await asyncio.wait_for(guest.wait(), 10) == 0
        assert not guest.out_of_memory() and guest.complaint == ""
    assert own(name) == [] and cgroups.leftovers(name) == []


@needs_cgroups
async def test_no_process_of_a_guest_is_root_and_slots_differ(release: GuestRelease, name: str) -> None:
    sandbox = BubblewrapSandbox(release, name)
    async with running(sandbox, 0), running(sandbox, 1):
        users: dict[str, set[str]] = {}
        for slot in ("0", "1"):
            for _ in range(200):
                found = [parts(pid) for pid in Group(f"{name}-{slot}").members()]
                users[slot] = {uid for part in found for uid in part["Uid"].split()}
                if len(found) >= 3 and "0" not in users[slot]:
                    break
                await asyncio.sleep(0.01)
        assert users == {"0": {"200000"}, "1": {"200001"}}


@needs_cgroups
async def test_bounds_are_the_kernels(release: GuestRelease, name: str) -> None:
    bounds = Bounds(memory=300 << 20, processes=33, cpus=0.5)
    async with running(BubblewrapSandbox(release, name, bounds)):
        group = Group(f"{name}-0")
        values = {
            path.name: path.read_text().split()
            for door in group.doors
            for path in Path(door).parent.iterdir()
            if path.name in ("memory.limit_in_bytes", "memory.max", "pids.max", "cpu.cfs_quota_us", "cpu.max")
        }
        assert [str(300 << 20)] in values.values() and ["33"] in values.values()
        assert ["50000"] in values.values() or ["50000", "100000"] in values.values()


async def test_killing_is_complete_and_may_be_repeated(release: GuestRelease, name: str) -> None:
    guest = await BubblewrapSandbox(release, name).start(0)
    await asyncio.sleep(0.1)
    await guest.kill()
    await guest.kill()
    assert own(name) == [] and cgroups.leftovers(name) == []
    assert await guest.wait() == -signal.SIGKILL


@needs_cgroups
async def test_a_killed_worker_takes_its_guests_along_and_the_next_one_tidies_up(
    release: GuestRelease, name: str
) -> None:
    """SIGKILL of the worker's process: the kernel ends its guests; their empty groups wait for `sweep`."""
    program = """
import asyncio, sys
from pathlib import Path
from sealdeal.sdk.guest_release import GuestRelease
from sealdeal.worker.sandbox import BubblewrapSandbox
async def main():
    await BubblewrapSandbox(GuestRelease(Path(sys.argv[1]), bytes(32)), sys.argv[2]).start(0)
    print("started", flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    worker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, str(release.rootfs), name), stdout=asyncio.subprocess.PIPE
    )
    assert worker.stdout is not None
    assert await worker.stdout.readline() == b"started\n"
    for _ in range(300):
        if len(own(name)) >= 3:
            break
        await asyncio.sleep(0.01)
    guests = own(name)
    assert len(guests) >= 3
    worker.kill()
    await worker.wait()
    for _ in range(500):
        if not own(name):
            break
        await asyncio.sleep(0.01)
    assert own(name) == []
    assert BubblewrapSandbox(release, name).sweep() == 1
    assert cgroups.leftovers(name) == []


async def test_a_release_that_only_root_may_enter_is_shown_to_the_guest_alone(
    tmp_path: Path, name: str
) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir(mode=0o700)
    release = build_guest_release(hidden)
    async with running(BubblewrapSandbox(release, name)) as guest:
        await ready(guest)
    mounts = Path("/proc/self/mounts").read_text()
    assert not any(f" {point} " in mounts for point in ("/mnt", "/media", "/srv"))


async def test_a_guest_that_cannot_start_says_why(release: GuestRelease, name: str) -> None:
    nowhere = GuestRelease(release.rootfs / "usr", release.digest)
    async with running(BubblewrapSandbox(nowhere, name)) as guest:
        assert await asyncio.wait_for(guest.stdout.read(), 10) == b""
        assert await guest.wait() != 0
        assert "bwrap" in guest.complaint


@needs_cgroups
def test_a_group_is_killed_even_while_it_forks(name: str) -> None:
    group = Group(f"{name}-bomb")
    group.make(Bounds(processes=40))
    bomb = "import os, time\nwhile True:\n try: os.fork()\n except OSError: time.sleep(0.001)"
    pid = os.fork()
    if pid == 0:
        for door in group.doors:
            Path(door).write_text("0")
        os.execv(sys.executable, [sys.executable, "-c", bomb])
    for _ in range(500):
        if len(group.members()) >= 40:
            break
        time.sleep(0.01)
    assert len(group.members()) >= 40
    group.remove()
    os.waitpid(pid, 0)
    assert group.members() == [] and cgroups.leftovers(name) == []


def test_what_is_not_enforced_is_named(
    release: GuestRelease, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cgroups, "MOUNT", tmp_path / "nothing")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    missing = BubblewrapSandbox(release, name).capabilities.missing
    assert [line.split(":")[0] for line in missing] == ["memory", "pids", "cpu", "user"]


def test_a_unified_hierarchy_gets_its_own_limits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Version 2, by its file names: this machine's kernel need not have it."""
    monkeypatch.setattr(cgroups, "MOUNT", tmp_path)
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids\n")
    (tmp_path / "cgroup.subtree_control").write_text("")
    group = Group("x")
    folder = tmp_path / "sealdeal-x"
    folder.mkdir()
    for file in ("memory.max", "memory.swap.max", "pids.max", "cpu.max", "cgroup.kill", "cgroup.procs"):
        (folder / file).write_text("")
    group.make(Bounds(memory=1000, processes=5, cpus=0.25))
    wrote = {p.name: p.read_text() for p in folder.iterdir() if p.read_text()}
    assert wrote == {"memory.max": "1000", "memory.swap.max": "0", "pids.max": "5", "cpu.max": "25000 100000"}
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"
    assert group.doors == [str(folder / "cgroup.procs")] and not group.out_of_memory()
    (folder / "memory.events").write_text("low 0\noom 3\noom_kill 2\n")
    assert group.out_of_memory() and all(group.controls(c) for c in ("memory", "pids", "cpu"))
    group.kill()
    assert (folder / "cgroup.kill").read_text() == "1"
