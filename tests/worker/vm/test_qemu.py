"""Guests in machines of their own: the battery of all drivers, and what is a machine's alone.

The machines here are emulated: slow, but with the same kernel, disks and stream as on hardware.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from sealdeal.model.errors import Unavailable
from sealdeal.sdk.guest_release import GuestRelease
from sealdeal.tee.simulated import SimulatedPlatform
from sealdeal.worker import cgroups
from sealdeal.worker.cgroups import Bounds, Group
from sealdeal.worker.relay import AttemptFailed
from sealdeal.worker.sandbox import SYSTEM_PATH, Guest
from sealdeal.worker.vm import qemu
from sealdeal.worker.vm.image import INITRD, KERNEL, ROOT, MachineImage, Parts, build
from sealdeal.worker.vm.measure import accepted, registers
from sealdeal.worker.vm.qemu import VmSandbox
from tests.guest import world
from tests.guest.world import Scene
from tests.worker import battery
from tests.worker.battery import BOUNDED, EATER, ECHO, Battery, app_of, own, parts, running

from .parts import here, needs_machine

PATIENCE = 240.0
"""Seconds. An emulated machine with a guest in it needs ten of a processor's, which others use here too."""
ROOMY = Bounds(memory=640 << 20, processes=64)
MARK = b"MARKED SECRET "
SPY = """
    import json, os, time
    out = os.environ["IEXEC_OUT"]
    with open(out + "/said", "w") as file:
        file.write("MARK" "ED SECRET " * 100_000)
        file.flush()
        os.fsync(file.fileno())
    os.sync()
    time.sleep(5)
    json.dump({"deterministic-output-path": out + "/said"}, open(out + "/computed.json", "w"))
"""
READER = """
    import json, mmap, os, sys, time
    out = os.environ["IEXEC_OUT"]
    with open(out + "/said", "wb") as file:
        file.write(os.urandom(8 << 20))
        file.flush()
        os.fsync(file.fileno())
    handle, buffer = os.open(out + "/said", os.O_RDONLY | os.O_DIRECT), mmap.mmap(-1, 1 << 20)
    while True:  # until it cannot be read
        os.preadv(handle, [buffer], 0)
        time.sleep(0.2)
"""
"""An app that fails when its disk does, as an app may."""
WORKER = """
import asyncio, sys
from pathlib import Path
from sealdeal.sdk.guest_release import GuestRelease
from sealdeal.worker.cgroups import Bounds
from sealdeal.worker.vm.image import Parts
from sealdeal.worker.vm.qemu import VmSandbox
async def main():
    rootfs, digest, cache, name, *parts = sys.argv[1:]
    release = GuestRelease(Path(rootfs), bytes.fromhex(digest))
    kept = Parts(*map(Path, parts))
    bounds = Bounds(memory=640 << 20)
    await VmSandbox(release, name, bounds, accelerator="tcg", parts=kept, cache=Path(cache)).start(0)
    print("started", flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""


_ready = battery.ready


async def ready(guest: Guest, patience: float = PATIENCE) -> None:
    await _ready(guest, patience)


def machines(release: GuestRelease) -> Path:
    """Where images of machines are kept for the tests of this module: apart for what is no whole release."""
    whole = release.rootfs.parent.name == "guests"
    return release.rootfs.parents[1 if whole else 2] / ("machines" if whole else "others")


def sandbox_of(
    release: GuestRelease, name: str, bounds: Bounds = ROOMY, scratch: Path = Path("/nowhere")
) -> VmSandbox:
    return VmSandbox(release, name, bounds, scratch, accelerator="tcg", parts=here(), cache=machines(release))


def vouching(image: MachineImage) -> SimulatedPlatform:
    """A platform that measures this machine."""

    class Vouching(SimulatedPlatform):
        @staticmethod
        def measure(guest_release: bytes, app_checksum: bytes) -> dict[str, bytes]:
            return registers(image, app_checksum)

    return Vouching.generate(int(time.time()))


def disk_of(name: str) -> Path | None:
    """The file of the second disk of the machine that runs under this name."""
    for pid in own(name):
        with contextlib.suppress(OSError):
            for handle in Path(f"/proc/{pid}/fd").iterdir():
                if os.readlink(handle).endswith("/disk/disk"):
                    return handle
    return None


def content(file: Path) -> bytes:
    """All that was written to a sparse file."""
    found = bytearray()
    with contextlib.suppress(OSError), file.open("rb") as disk:  # no data any more, or the machine has ended
        at = 0
        while True:
            at = os.lseek(disk.fileno(), at, os.SEEK_DATA)
            end = os.lseek(disk.fileno(), at, os.SEEK_HOLE)
            found += os.pread(disk.fileno(), end - at, at)
            at = end
    return bytes(found)


def damage(file: Path) -> bool:
    """Change one byte of each block that was written beyond the file system's own beginning."""
    with file.open("r+b", buffering=0) as disk:
        at = 32 << 20
        while True:
            try:
                at = os.lseek(disk.fileno(), at, os.SEEK_DATA)
            except OSError:  # no more data
                return True
            end = os.lseek(disk.fileno(), at, os.SEEK_HOLE)
            for place in range(at, end, 4096):
                (byte,) = os.pread(disk.fileno(), 1, place)
                os.pwrite(disk.fileno(), bytes([byte ^ 1]), place)
            at = end


@needs_machine
@pytest.mark.soak
class TestMachine(Battery):
    driver = "vm"

    image: MachineImage
    """The one that nodes accept: of the sandbox that was made last."""

    @pytest.fixture(autouse=True)
    def patient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def expected(_: bytes, app_checksum: bytes) -> Mapping[str, bytes]:
            return accepted(self.image, app_checksum).registers

        monkeypatch.setattr(battery, "ready", ready)
        monkeypatch.setattr(world, "tdx_registers", expected)

    def make(
        self, release: GuestRelease, name: str, bounds: Bounds = ROOMY, scratch: Path = Path("/nowhere")
    ) -> VmSandbox:
        sandbox = sandbox_of(release, name, bounds, scratch)
        self.image = sandbox.image
        return sandbox

    @pytest.mark.skipif(not BOUNDED, reason="cgroups cannot be written here")
    async def test_no_process_of_a_guest_is_root_and_slots_differ(
        self, release: GuestRelease, name: str
    ) -> None:
        async with running(self.make(release, name), 1) as guest:
            await ready(guest)
            found = [parts(pid) for pid in Group(f"{name}-1").members()]
            assert {uid for part in found for uid in part["Uid"].split()} == {"200001"}
            (machine,) = [part for part in found if part["Name"].startswith("qemu")]
            assert machine["CapEff"] == machine["CapBnd"] == "0000000000000000"
            assert machine["NoNewPrivs"] == "1" and machine["Seccomp"] == "2"

    @pytest.mark.skipif(not BOUNDED, reason="cgroups cannot be written here")
    async def test_bounds_are_the_kernels(self, release: GuestRelease, name: str) -> None:
        """The machine starts with the least memory that is accepted, and QEMU fits into the rest."""
        memory = qemu.LEAST_MEMORY + qemu.OWN_MEMORY["tcg"]
        bounds = Bounds(memory=memory, processes=33, cpus=0.9)
        async with running(self.make(release, name, bounds)) as guest:
            await ready(guest)
            files = [file for door in Group(f"{name}-0").doors for file in Path(door).parent.iterdir()]
            values = {
                file.name: file.read_text().split()[0]
                for file in files
                if file.name
                in ("memory.limit_in_bytes", "memory.max", "pids.max", "cpu.cfs_quota_us", "cpu.max")
            }
            assert sorted(values.values()) == sorted(["33", "90000", str(memory)])
            assert not guest.out_of_memory()

    @pytest.mark.skipif(not BOUNDED, reason="cgroups cannot be written here")
    async def test_a_killed_worker_takes_its_guests_along_and_the_next_one_tidies_up(
        self, release: GuestRelease, name: str
    ) -> None:
        sandbox, kept = self.make(release, name), here()
        told = (release.rootfs, release.digest.hex(), machines(release), name)
        worker = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", WORKER, *map(str, told)),
            *map(str, (kept.kernel, kept.modules, kept.busybox)),
            stdout=asyncio.subprocess.PIPE,
        )
        assert worker.stdout is not None
        assert await worker.stdout.readline() == b"started\n"

        async def until(wanted: bool) -> None:
            async with asyncio.timeout(PATIENCE):
                while any(parts(pid)["Name"].startswith("qemu") for pid in own(name)) is not wanted:
                    await asyncio.sleep(0.05)

        await until(True)
        worker.kill()
        await worker.wait()
        await until(False)
        assert sandbox.sweep() == 1
        assert not list(cgroups.MOUNT.glob(f"**/{cgroups.PREFIX}{name}*"))

    async def test_a_guest_that_cannot_start_says_why(self, release: GuestRelease, name: str) -> None:
        nowhere = GuestRelease(release.rootfs / "usr", release.digest)
        async with running(self.make(nowhere, name)) as guest:
            assert await asyncio.wait_for(guest.stdout.read(), PATIENCE) == b""
            assert await guest.wait() != 0
            assert "the guest cannot be started" in guest.complaint or "mount" in guest.complaint

    async def test_a_task_is_done_on_a_volume_of_which_nothing_stays(
        self,
        release: GuestRelease,
        cache: Path,
        name: str,
        tmp_path: Path,
    ) -> None:
        """A deal's task with a dataset, from evidence to result; the disk is the machine's own, encrypted."""
        sandbox = self.make(release, name, dataclasses.replace(ROOMY, disk=600 << 20), tmp_path / "scratch")
        scene = Scene(
            *(app_of(ECHO, cache), release, sandbox, vouching(sandbox.image)),
            dataset=b"patients",
            folder=tmp_path,
            seconds=int(PATIENCE),
            patience=PATIENCE,
        )
        done = await scene.run()
        assert done.exit_code == 0 and done.fault_cause == ""
        said = scene.result()["said"].decode()
        assert said.startswith('["PATIENTS", ')
        assert (500 << 20) < int(said.split(", ")[1].rstrip("]")) <= (600 << 20)
        assert list((tmp_path / "scratch").iterdir()) == []
        backing = [file.read_text() for file in Path("/sys/block").glob("loop*/loop/backing_file")]
        assert not [file for file in backing if str(tmp_path) in file]

    @pytest.mark.skipif(not BOUNDED, reason="cgroups cannot be written here")
    async def test_what_an_app_writes_is_on_the_workers_disk_encrypted(
        self,
        release: GuestRelease,
        cache: Path,
        name: str,
        tmp_path: Path,
    ) -> None:
        sandbox = self.make(release, name, dataclasses.replace(ROOMY, disk=600 << 20), tmp_path / "scratch")
        scene = Scene(
            *(app_of(SPY, cache), release, sandbox, vouching(sandbox.image)),
            folder=tmp_path,
            seconds=int(PATIENCE),
            patience=PATIENCE,
        )
        running = asyncio.create_task(scene.run())
        most = 0
        while not running.done():
            await asyncio.sleep(1)
            if (disk := disk_of(name)) is not None:
                written = await asyncio.to_thread(content, disk)
                assert MARK not in written and b"IEXEC" not in written
                most = max(most, len(written))
        await running
        assert scene.result()["said"] == MARK * 100_000
        assert most > len(MARK) * 100_000  # it was there to be found

    @pytest.mark.skipif(not BOUNDED, reason="cgroups cannot be written here")
    async def test_a_worker_that_changes_the_disk_is_not_paid_for_the_error(
        self, release: GuestRelease, cache: Path, name: str, tmp_path: Path
    ) -> None:
        """The app ends with an error of its own making; it is not signed for."""
        sandbox = self.make(release, name, dataclasses.replace(ROOMY, disk=600 << 20), tmp_path / "scratch")
        scene = Scene(
            *(app_of(READER, cache), release, sandbox, vouching(sandbox.image)),
            folder=tmp_path,
            seconds=int(PATIENCE),
            patience=PATIENCE,
        )
        running = asyncio.create_task(scene.run())
        changed = False
        while not running.done():
            await asyncio.sleep(1)
            disk = disk_of(name)
            computing = any(status["phase"] == "COMPUTING" for status in scene.statuses)
            if not changed and disk is not None and computing:
                await asyncio.sleep(10)  # the app's file is written
                changed = await asyncio.to_thread(damage, disk)
        assert changed
        with pytest.raises(AttemptFailed, match=r"sealdeal: .*(INTEGRITY AEAD|I/O) [Ee]") as failed:
            await running
        assert failed.value.cause == "GUEST_LOST"

    @pytest.mark.skipif(not BOUNDED, reason="cgroups cannot be written here")
    async def test_an_app_out_of_memory_is_named(
        self,
        release: GuestRelease,
        cache: Path,
        name: str,
        tmp_path: Path,
    ) -> None:
        """It is the machine's kernel that kills the app; the guest lives to tell."""
        sandbox = self.make(release, name)
        scene = Scene(
            *(app_of(EATER, cache), release, sandbox, vouching(sandbox.image)),
            folder=tmp_path,
            seconds=int(PATIENCE),
            patience=PATIENCE,
        )
        with pytest.raises(AttemptFailed) as failed:
            await scene.run()
        assert failed.value.cause == "APP_OUT_OF_MEMORY"
        assert own(name) == [] and cgroups.leftovers(name) == []

    async def test_a_changed_root_disk_stops_the_machine(
        self, release: GuestRelease, name: str, tmp_path: Path
    ) -> None:
        """One byte of the guest's own program, changed by the host that keeps the disk."""
        sandbox = self.make(release, name)
        shutil.copytree(sandbox.image.folder, tmp_path / "changed")
        with (tmp_path / "changed" / ROOT).open("r+b") as disk:
            whole = disk.read()
            place = whole.index(b"The first process of a guest's machine")
            disk.seek(place)
            disk.write(b"X")
        sandbox.image = dataclasses.replace(sandbox.image, folder=tmp_path / "changed")
        tmp_path.chmod(0o755)
        async with running(sandbox) as guest:
            assert await asyncio.wait_for(guest.stdout.read(), PATIENCE) == b""
            assert await guest.wait() != 0
            assert "verity" in guest.complaint and "corrupted" in guest.complaint
            assert "Kernel panic" in guest.complaint

    async def test_a_machine_that_was_started_from_something_else_gets_no_secret(
        self,
        release: GuestRelease,
        cache: Path,
        name: str,
        tmp_path: Path,
    ) -> None:
        """A host that adds a program to the initrd: the machine runs, its evidence says so, nodes refuse."""
        sandbox = self.make(release, name)
        shutil.copytree(sandbox.image.folder, tmp_path / "changed")
        with (tmp_path / "changed" / INITRD).open("ab") as first:
            first.write(bytes(512))
        other = dataclasses.replace(sandbox.image, folder=tmp_path / "changed")
        sandbox.image = other
        scene = Scene(
            *(app_of(ECHO, cache), release, sandbox, vouching(other)),
            dataset=b"patients",
            folder=tmp_path,
            patience=PATIENCE,
        )
        with pytest.raises(AttemptFailed, match=r"WrongRegister.*rtmr2"):
            await scene.run()


@needs_machine
@pytest.mark.soak
def test_the_same_parts_make_the_same_machine(release: GuestRelease, tmp_path: Path) -> None:
    images = [build(release, here(), tmp_path / name) for name in ("one", "two")]
    for file in (KERNEL, INITRD, ROOT):
        first, second = ((image.folder / file).read_bytes() for image in images)
        assert first == second
    assert images[0].command_line == images[1].command_line


NOWHERE = GuestRelease(Path("/nowhere"), bytes(32))


def test_a_missing_emulator_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu, "SYSTEM_PATH", "/nowhere")
    with pytest.raises(Unavailable, match="apt install qemu-system-x86 bubblewrap"):
        VmSandbox(NOWHERE, "x")


def test_a_missing_kernel_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="apt install linux-image"):
        Parts.below(tmp_path)
    (tmp_path / "boot").mkdir()
    (tmp_path / "boot/vmlinuz-7").touch()
    with pytest.raises(Unavailable, match="and its modules"):
        Parts.below(tmp_path)
    (tmp_path / "lib/modules/7").mkdir(parents=True)
    assert Parts.below(tmp_path).kernel == tmp_path / "boot/vmlinuz-7"


def present(*programs: str) -> bool:
    return all(shutil.which(program, path=SYSTEM_PATH) for program in programs)


emulator = pytest.mark.skipif(
    not present("qemu-system-x86_64", "bwrap"), reason="qemu-system-x86 or bubblewrap is not installed"
)


@emulator
def test_too_little_memory_for_a_machine_is_refused() -> None:
    with pytest.raises(Unavailable, match=r"at least 352 MiB.*got 256.*fewer slots"):
        VmSandbox(NOWHERE, "x", Bounds(memory=256 << 20), accelerator="tcg")


@emulator
def test_a_host_without_trust_domains_starts_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(qemu, "_TDX", tmp_path / "tdx")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert qemu.best() in ("kvm", "tcg")
    with pytest.raises(Unavailable, match=r"does not offer TDX|has none"):
        VmSandbox(NOWHERE, "x", accelerator="tdx")
    (tmp_path / "tdx").write_text("Y\n")
    assert qemu.best() == "tdx"


@emulator
def test_a_trust_domain_is_told_its_app_and_keeps_its_devices_on_shared_pages(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What is written for hardware; nothing here has it."""
    monkeypatch.setattr(qemu, "_TDX", tmp_path / "tdx")
    monkeypatch.setattr(qemu, "_FIRMWARE", tmp_path / "tdx")
    (tmp_path / "tdx").write_text("Y\n")
    monkeypatch.setattr(qemu.VmSandbox, "_check_accelerator", lambda _: None)
    monkeypatch.setattr(qemu, "build", lambda *_: MachineImage(tmp_path, "quiet"))
    sandbox = VmSandbox(NOWHERE, "x", ROOMY, parts=Parts(*[tmp_path] * 3), cache=tmp_path)
    assert sandbox.accelerator == "tdx"
    words = sandbox.command(b"\x05" * 32)
    domain = json.loads(next(word for word in words if "tdx-guest" in word))
    assert base64.b64decode(domain["mrconfigid"]) == b"\x05" * 32 + bytes(16)
    machine = words[words.index("-machine") + 1]
    assert machine == f"q35,kernel-irqchip=split,confidential-guest-support={domain['id']}"
    devices = [word for word in words if word.startswith("virtio-")]
    assert len(devices) == 2 and all("iommu_platform=on" in device for device in devices)
    assert not [word for word in words if "net" in word or "9p" in word or "fs" in word.split(",")[0]]
