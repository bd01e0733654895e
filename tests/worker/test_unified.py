"""Version 2 of the control groups, on a kernel that has nothing else, in a virtual machine.

The machine's root is the guest's release with the worker's modules added. What runs in it is UNIFIED, below.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import sealdeal
from sealdeal.sdk.guest_release import GuestRelease
from sealdeal.worker.sandbox import SYSTEM_PATH
from sealdeal.worker.vm import initrd

ROOT = Path(__file__).parents[2]
SECONDS = 400
BOOT = """#!/bin/busybox sh
/bin/busybox mkdir -p /new
/bin/busybox mount -t tmpfs -o size=80% none /new
/bin/busybox tar -x -f /root.tar -C /new && /bin/busybox rm /root.tar
exec /bin/busybox switch_root /new /start
"""
START = """#!/bin/busybox sh
export PATH=/usr/local/bin:/usr/bin:/usr/sbin:/bin
/bin/busybox mount -t proc none /proc
/bin/busybox mount -t sysfs none /sys
/bin/busybox mount -t devtmpfs none /dev
/bin/busybox mount -t cgroup2 none /sys/fs/cgroup
/bin/busybox mount --bind / /release
/usr/local/bin/python3 -I -S -B /unified.py 2>&1
/bin/busybox poweroff -f
"""
UNIFIED = """
import asyncio, os, sys, time, traceback
sys.path.insert(0, "/opt/guest")
from pathlib import Path
from sealdeal.guest.stream import Kind, encode
from sealdeal.sdk.guest_release import GuestRelease
from sealdeal.worker import cgroups
from sealdeal.worker.cgroups import Bounds, Group
from sealdeal.worker.oci import OciSandbox
from sealdeal.worker.sandbox import BubblewrapSandbox

PYTHON = "/usr/local/bin/python3"

def inside(group, program):
    child = os.fork()
    if child == 0:
        for door in group.doors:
            Path(door).write_text("0")
        os.execv(PYTHON, [PYTHON, "-I", "-S", "-c", program])
    return child

def controllers():
    assert cgroups._unified() and not cgroups.hybrid()
    assert cgroups.missing() == {}, cgroups.missing()

def limits():
    group = Group("limits")
    group.make(Bounds(memory=64 << 20, processes=9, cpus=0.5))
    folder = cgroups.MOUNT / group.name
    assert (folder / "memory.max").read_text() == f"{64 << 20}\\n"
    assert (folder / "pids.max").read_text() == "9\\n"
    assert (folder / "cpu.max").read_text() == "50000 100000\\n"
    assert cgroups.leftovers("limits")[0].name == group.name
    group.remove()
    assert cgroups.leftovers("limits") == []

def memory_bomb():
    group = Group("memory")
    group.make(Bounds(memory=64 << 20))
    child = inside(group, "eaten = []\\nwhile True: eaten.append(bytearray(1 << 20))")
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == 9, status
    assert group.out_of_memory()
    group.remove()

def fork_bomb():
    group = Group("forks")
    group.make(Bounds(processes=20))
    bomb = "import os, time\\nwhile True:\\n try: os.fork()\\n except OSError: time.sleep(0.01)"
    child = inside(group, bomb)
    for _ in range(600):
        if len(group.members()) >= 20:
            break
        time.sleep(0.05)
    assert len(group.members()) == 20, group.members()
    group.remove()
    os.waitpid(child, 0)
    assert group.members() == [] and not (cgroups.MOUNT / group.name).exists()

def cpu_hog():
    group = Group("cpu")
    group.make(Bounds(cpus=0.2))
    child = inside(group, "while True: pass")
    begun = time.monotonic()
    time.sleep(4)
    words = (cgroups.MOUNT / group.name / "cpu.stat").read_text().split()
    used, wall = int(words[words.index("usage_usec") + 1]) / 1e6, time.monotonic() - begun
    group.remove()
    os.waitpid(child, 0)
    assert used < 0.2 * wall + 0.2, (used, wall)

async def guest(driver):
    bounds = Bounds(memory=200 << 20, work=16 << 20, processes=33, cpus=1.5)
    release = GuestRelease(Path("/release"), bytes(32))
    if driver == "bubblewrap":
        sandbox = BubblewrapSandbox(release, "unified", bounds)
    else:
        sandbox = OciSandbox(release, "unified", bounds, runtime=driver)
    assert sandbox.capabilities.missing == ()
    running = await sandbox.start(0)
    running.stdin.write(encode(Kind.HELLO, 0, {"version": -1}))
    said = await asyncio.wait_for(running.stdout.read(1 << 16), 120)
    assert b"failed" in said, (said, running.complaint)
    assert await running.wait() == 0 and cgroups.leftovers("unified") == []
    running = await sandbox.start(1)
    group = Group("unified-1")
    for _ in range(600):
        found = [p.read_text() for p in map(status, group.members()) if p.exists()]
        users = {text.split("Uid:")[1].split()[0] for text in found}
        if users == {"200001"}:
            break
        await asyncio.sleep(0.1)
    assert users == {"200001"}, users
    folder = cgroups.MOUNT / group.name
    assert (folder / "memory.max").read_text() == f"{200 << 20}\\n"
    assert (folder / "pids.max").read_text() == "33\\n"
    await running.kill()
    assert cgroups.leftovers("unified") == []

def status(pid):
    return Path(f"/proc/{pid}/status")

def main():
    checks = [controllers, limits, memory_bomb, fork_bomb, cpu_hog]
    for check in checks:
        yield check.__name__, check
    for driver in DRIVERS:
        yield f"guest_{driver}", lambda: asyncio.run(guest(driver))

for name, check in main():
    try:
        check()
        print(f"UNIFIED {name} passed", flush=True)
    except BaseException:
        print(f"UNIFIED {name} failed", flush=True)
        traceback.print_exc()
print("UNIFIED end", flush=True)
"""


def libraries(program: Path) -> list[Path]:
    said = subprocess.run(["ldd", str(program)], capture_output=True, text=True).stdout
    return [Path(path) for path in re.findall(r"(/\S+) \(0x", said)]


def imported() -> set[Path]:
    """The installed packages and modules that the drivers need."""
    program = (
        "import sys, sealdeal.worker.oci; print([getattr(m, '__file__', None) for m in sys.modules.values()])"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    tops = {Path(top) for top in re.findall(r"'(/[^']*/site-packages/[^/']+)", said)}
    return tops | {told for top in tops for told in top.parent.glob(f"{top.stem}-*.dist-info")}


def root_of(release: GuestRelease, busybox: Path) -> tuple[bytes, list[str]]:
    """The machine's root as a tar, and the drivers in it."""
    runtimes = [found for name in ("runc", "crun") if (found := shutil.which(name, path=SYSTEM_PATH))]
    names = ["bubblewrap", *(Path(found).name for found in runtimes)]
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:

        def text(path: str, content: str) -> None:
            member = tarfile.TarInfo(path)
            member.size, member.mode = len(content.encode()), 0o755
            tar.addfile(member, io.BytesIO(content.encode()))

        def folder(path: str) -> None:
            member = tarfile.TarInfo(path)
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(member)

        tar.add(release.rootfs, arcname=".")
        for path in ("release", "mnt", "sys", "bin"):
            folder(path)
        tar.add(busybox, arcname="bin/busybox")
        present = {str(path.relative_to(release.rootfs)) for path in release.rootfs.rglob("*")}
        for runtime in map(Path, runtimes):
            tar.add(runtime.resolve(), arcname=f"usr/sbin/{runtime.name}")
            for library in libraries(runtime):
                place = str(library).lstrip("/")
                if place not in present:
                    present.add(place)
                    tar.add(library.resolve(), arcname=place)
        ours = Path(sealdeal.__file__).parent
        for package in ("sdk", "worker"):
            for source in sorted((ours / package).rglob("*.py")):
                tar.add(source, arcname=f"opt/guest/sealdeal/{source.relative_to(ours)}")
        for installed in imported():
            if not (release.rootfs / "opt" / "guest" / installed.name).exists():
                tar.add(installed, arcname=f"opt/guest/{installed.name}")
        text("start", START)
        text("unified.py", f"DRIVERS = {names!r}\n{UNIFIED}")
    return out.getvalue(), names


@pytest.mark.soak
def test_limits_and_drivers_where_version_2_is_all_there_is(release: GuestRelease, tmp_path: Path) -> None:
    qemu = shutil.which("qemu-system-x86_64")
    kernels = sorted((ROOT / ".dev" / "apt").glob("linux-image-*/boot/vmlinuz-*"))
    busybox = ROOT / ".dev" / "apt" / "busybox-static" / "bin" / "busybox"
    if qemu is None or not kernels or not busybox.exists():
        pytest.skip("qemu-system-x86_64, a kernel or busybox is not here: ./dev soak brings them")
    root, names = root_of(release, busybox)
    entries: dict[str, initrd.Entry] = {
        "init": initrd.Program(BOOT.encode()),
        "bin/busybox": initrd.Program(busybox.read_bytes()),
        "dev/console": initrd.Device(5, 1),
        "root.tar": root,
    }
    (tmp_path / "initrd").write_bytes(initrd.archive(entries))
    machine = subprocess.run(
        [
            *(qemu, "-machine", "q35", "-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "1536M"),
            *("-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio"),
            *("-kernel", str(kernels[-1]), "-initrd", str(tmp_path / "initrd")),
            *("-append", "console=ttyS0 quiet panic=-1 cgroup_no_v1=all"),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=SECONDS,
    )
    (tmp_path / "initrd").unlink()
    passed = set(re.findall(r"UNIFIED (\w+) passed", machine.stdout))
    checks = {"controllers", "limits", "memory_bomb", "fork_bomb", "cpu_hog"}
    assert passed == checks | {f"guest_{name}" for name in names}, machine.stdout + machine.stderr
    assert "UNIFIED end" in machine.stdout
