"""What every sandbox driver must do. A driver's tests are `class TestIt(Battery)` with its name."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import sys
import textwrap
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import ClassVar

import pytest

from sealdeal.guest.stream import Decoder, Frame, Kind, encode
from sealdeal.sdk.guest_release import GuestRelease
from sealdeal.sdk.images import BuiltImage, build_app_image
from sealdeal.tee.simulated import SimulatedPlatform
from sealdeal.worker import cgroups, drivers
from sealdeal.worker.cgroups import Bounds, Group
from sealdeal.worker.relay import AttemptFailed
from sealdeal.worker.sandbox import Guest, Sandbox
from tests.guest.world import Scene

BOUNDED = os.geteuid() == 0 and not cgroups.missing()
SMALL = Bounds(memory=384 << 20, work=640 << 20, processes=64)
ECHO = """
    import json, os, sys
    out, room = os.environ["IEXEC_OUT"], os.statvfs(os.environ["IEXEC_OUT"])
    data = open(os.environ["IEXEC_IN"] + "/" + os.environ["IEXEC_DATASET_FILENAME"]).read()
    json.dump([data.upper(), room.f_blocks * room.f_frsize], open(out + "/said", "w"))
    json.dump({"deterministic-output-path": out + "/said"}, open(out + "/computed.json", "w"))
"""
EATER = "eaten = []\nwhile True: eaten.append(bytearray(16 << 20))"


def app_of(text: str, cache: Path) -> BuiltImage:
    """The image of an app that is this Python text."""
    folder = cache / "apps" / hashlib.sha256(text.encode()).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "main.py").write_text(textwrap.dedent(text))
    (folder / "sealdeal.toml").write_text('name = "app"\nentrypoint = ["python3", "main.py"]\n')
    return build_app_image(folder, cache=cache)


@contextlib.asynccontextmanager
async def running(sandbox: Sandbox, slot: int = 0) -> AsyncIterator[Guest]:
    guest = await sandbox.start(slot)
    try:
        yield guest
    finally:
        await guest.kill()


async def ready(guest: Guest, patience: float = 20) -> None:
    """Until it waits for its HELLO: it breaks off when it gets nonsense."""
    guest.stdin.write(encode(Kind.HELLO, 0, {"version": -1}))
    frames: list[Frame] = []
    decoder = Decoder()
    while not frames:
        data = await asyncio.wait_for(guest.stdout.read(1 << 16), patience)
        assert data, guest.complaint
        frames = list(decoder.feed(data))
    assert frames[0].json()["event"] == "failed"


def own(name: str) -> list[int]:
    """Processes in the guests' control groups."""
    return [pid for group in cgroups.leftovers(name) for pid in group.members()]


def parts(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


class Battery:
    """Guests start, stay inside their bounds, and are gone afterwards, however they end."""

    driver: ClassVar[str]

    @pytest.fixture
    def name(self, tmp_path: Path) -> str:
        """Of the test's own: sweeping must not meet another test's guests."""
        return hashlib.sha256(str(tmp_path).encode()).hexdigest()[:12]

    def make(
        self, release: GuestRelease, name: str, bounds: Bounds = SMALL, scratch: Path = Path("/nowhere")
    ) -> Sandbox:
        return drivers.sandbox(self.driver, release, name, bounds, scratch)

    async def test_a_guest_speaks_and_ends(self, release: GuestRelease, name: str) -> None:
        sandbox = self.make(release, name)
        assert sandbox.capabilities.driver == self.driver
        async with running(sandbox) as guest:
            await ready(guest)
            assert await asyncio.wait_for(guest.wait(), 60) == 0
            assert not guest.out_of_memory() and guest.complaint == ""
        assert own(name) == [] and cgroups.leftovers(name) == []

    @pytest.mark.skipif(not BOUNDED, reason="cgroups cannot be written here")
    async def test_no_process_of_a_guest_is_root_and_slots_differ(
        self, release: GuestRelease, name: str
    ) -> None:
        sandbox = self.make(release, name)
        async with running(sandbox, 0), running(sandbox, 1):
            users: dict[str, set[str]] = {}
            for slot in ("0", "1"):
                for _ in range(300):
                    members = Group(f"{name}-{slot}").members()
                    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # of the start, and over
                        found = [parts(pid) for pid in members]
                        users[slot] = {uid for part in found for uid in part["Uid"].split()}
                        here = "".join(part["Name"] for part in found)
                        if len(users[slot]) == 1 and "0" not in users[slot] and "python" in here:
                            break
                    await asyncio.sleep(0.01)
            assert users == {"0": {"200000"}, "1": {"200001"}}

    @pytest.mark.skipif(not BOUNDED, reason="cgroups cannot be written here")
    async def test_bounds_are_the_kernels(self, release: GuestRelease, name: str) -> None:
        bounds = Bounds(memory=300 << 20, work=200 << 20, processes=33, cpus=0.5)
        async with running(self.make(release, name, bounds)) as guest:
            await ready(guest)  # whoever starts it has had its say
            group = Group(f"{name}-0")
            values = {
                path.name: path.read_text().split()
                for door in group.doors
                for path in Path(door).parent.iterdir()
                if path.name
                in ("memory.limit_in_bytes", "memory.max", "pids.max", "cpu.cfs_quota_us", "cpu.max")
            }
            assert [str(300 << 20)] in values.values() and ["33"] in values.values()
            assert ["50000"] in values.values() or ["50000", "100000"] in values.values()

    async def test_killing_is_complete_and_may_be_repeated(self, release: GuestRelease, name: str) -> None:
        guest = await self.make(release, name).start(0)
        await asyncio.sleep(0.2)
        await guest.kill()
        await guest.kill()
        assert own(name) == [] and cgroups.leftovers(name) == []
        assert await guest.wait() == -signal.SIGKILL

    @pytest.mark.skipif(not BOUNDED, reason="cgroups cannot be written here")
    async def test_a_killed_worker_takes_its_guests_along_and_the_next_one_tidies_up(
        self, release: GuestRelease, name: str
    ) -> None:
        """SIGKILL of the worker's process: the kernel ends its guests; `sweep` removes their groups, and
        would end what is only being started, and so not tied to the worker yet."""
        program = """
import asyncio, sys
from pathlib import Path
from sealdeal.sdk.guest_release import GuestRelease
from sealdeal.worker import drivers
from sealdeal.worker.cgroups import Bounds
async def main():
    release = GuestRelease(Path(sys.argv[2]), bytes(32))
    guest = await drivers.sandbox(sys.argv[1], release, sys.argv[3], Bounds(), Path("/nowhere")).start(0)
    print("started", flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
        worker = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", program, self.driver, str(release.rootfs), name),
            stdout=asyncio.subprocess.PIPE,
        )
        assert worker.stdout is not None
        assert await worker.stdout.readline() == b"started\n"

        def guests() -> list[int]:
            found = [parts(pid) for pid in own(name)]
            inside = [one for one in found if len(one["NSpid"].split()) > 1]  # not what starts them
            return [int(one["Pid"]) for one in inside if "python" in one["Name"]]

        for _ in range(3000):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if guests():
                    break
            await asyncio.sleep(0.01)
        assert guests()
        worker.kill()
        await worker.wait()
        for _ in range(3000):
            if not own(name):
                break
            await asyncio.sleep(0.01)
        assert own(name) == []
        assert self.make(release, name).sweep() == 1
        assert cgroups.leftovers(name) == []
        assert not list(cgroups.MOUNT.glob(f"**/{cgroups.PREFIX}{name}*"))

    async def test_a_guest_that_cannot_start_says_why(self, release: GuestRelease, name: str) -> None:
        nowhere = GuestRelease(release.rootfs / "usr", release.digest)
        async with running(self.make(nowhere, name)) as guest:
            assert await asyncio.wait_for(guest.stdout.read(), 60) == b""
            assert await guest.wait() != 0
            assert guest.complaint

    @pytest.mark.skipif(os.geteuid() != 0, reason="a volume needs root")
    async def test_a_task_is_done_on_a_volume_of_which_nothing_stays(
        self, release: GuestRelease, cache: Path, name: str, tmp_path: Path
    ) -> None:
        """The disk's share of the work is a file system of its own, which ends with the guest."""
        bounds = Bounds(memory=256 << 20, work=64 << 20, disk=600 << 20)
        sandbox = self.make(release, name, bounds, tmp_path / "scratch")
        platform = SimulatedPlatform.generate(int(time.time()))
        scene = Scene(app_of(ECHO, cache), release, sandbox, platform, dataset=b"patients", folder=tmp_path)
        done = await scene.run()
        assert done.exit_code == 0
        said = scene.result()["said"].decode()
        assert said.startswith('["PATIENTS", ')
        assert (500 << 20) < int(said.split(", ")[1].rstrip("]")) <= (600 << 20)
        assert list((tmp_path / "scratch").iterdir()) == []
        assert str(tmp_path) not in Path("/proc/self/mounts").read_text()
        for _ in range(3000):  # the kernel takes a volume down a moment after the last who saw it
            devices = Path("/sys/block").glob("loop*/loop/backing_file")
            with contextlib.suppress(FileNotFoundError):
                if not [file for file in devices if str(tmp_path) in file.read_text()]:
                    return
            await asyncio.sleep(0.01)
        raise AssertionError("a volume's loop device is still there after 30 s")

    @pytest.mark.skipif(not BOUNDED, reason="cgroups cannot be written here")
    async def test_an_app_out_of_memory_is_named(
        self, release: GuestRelease, cache: Path, name: str, tmp_path: Path
    ) -> None:
        platform = SimulatedPlatform.generate(int(time.time()))
        scene = Scene(app_of(EATER, cache), release, self.make(release, name), platform, folder=tmp_path)
        with pytest.raises(AttemptFailed) as failed:
            await scene.run()
        assert failed.value.cause == "APP_OUT_OF_MEMORY"
        assert own(name) == [] and cgroups.leftovers(name) == []
