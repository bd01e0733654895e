"""The last steps of a sandbox's start that need the worker's own rights: run as a program of its own.

    python -I -S launch.py '{"cgroups": […], "uid": 200000, "point": "/mnt", "root": "/…", "volume": null,
                             "parent": 1, "command": ["bwrap", …], "oci": null}'

It joins the control groups, makes the guest's files reachable, gives up root for good, and becomes the
command. For an OCI runtime it stays instead, as the first process of a namespace of process ids, and ends
with the container's status; with it the kernel ends everything in there. What it mounts is in a namespace of
its own, so nothing is left behind, however it ends. Only the standard library: it starts in a few
milliseconds.

`point` is an empty folder of the machine that is covered with what the sandbox needs: `root`, the guest's
release, where its own place is closed to the sandbox's user, or an OCI runtime wants it; `work`, a volume of
`volume.bytes` on the disk below `volume.folder`, in a file that has no name any more; `bundle` and `state`,
the OCI runtime's.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import resource
import select
import signal
import struct
import sys
from typing import Any

CLONE_NEWNS, CLONE_NEWPID = 0x20000, 0x20000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_NOATIME = 0x2, 0x4, 0x8, 0x400
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
MNT_DETACH, PR_SET_PDEATHSIG = 2, 1
LOOP_SET_FD, LOOP_SET_STATUS64, LOOP_CTL_GET_FREE, LO_FLAGS_AUTOCLEAR = 0x4C00, 0x4C04, 0x4C82, 4
LOOP_ROUNDS = 50
UNIFIED = "/sys/fs/cgroup/unified"

libc = ctypes.CDLL(None, use_errno=True)


def must(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    texts = [None if text is None else text.encode() for text in (source, target, kind, options)]
    must(libc.mount(*texts[:3], ctypes.c_ulong(flags), texts[3]), f"mount {kind or source} at {target}")


def cover(point: str, told: dict[str, Any]) -> None:
    """Put what the sandbox needs at `point`, in a mount namespace of our own."""
    must(libc.unshare(CLONE_NEWNS), "unshare")
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    root, volume = told["root"], told["volume"]
    handle = os.open(root, os.O_PATH) if root is not None else -1  # it may lie below the point
    scratch = os.open(volume["folder"], os.O_PATH) if volume is not None else -1
    mount("sealdeal", point, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=1m")
    if root is not None:
        os.mkdir(f"{point}/root")
        mount(f"/proc/self/fd/{handle}", f"{point}/root", None, MS_BIND)
        os.close(handle)
    if volume is not None:
        os.mkdir(f"{point}/work")
        make_volume(f"/proc/self/fd/{scratch}", volume["bytes"], volume["owner"], f"{point}/work")
        os.close(scratch)


def make_volume(folder: str, size: int, owner: int, target: str) -> None:
    """An empty file system of `size` bytes in a nameless file, which the kernel drops after its last user."""
    import subprocess
    import tempfile

    file, name = tempfile.mkstemp(dir=folder)
    os.unlink(name)
    os.truncate(file, size)
    options = f"lazy_itable_init=1,nodiscard,root_owner={owner}:{owner}"
    made = subprocess.run(
        ["mkfs.ext4", "-q", "-F", "-m", "0", "-O", "^has_journal", "-E", options, f"/proc/self/fd/{file}"],
        pass_fds=(file,),
        capture_output=True,
        text=True,
        env={"PATH": "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"},
    )
    if made.returncode:
        sys.exit(f"no scratch volume can be made: {made.stderr.strip()}")
    for _ in range(LOOP_ROUNDS):  # another sandbox may take the device between question and answer
        with open("/dev/loop-control") as control:
            number = fcntl.ioctl(control, LOOP_CTL_GET_FREE)
        device = os.open(f"/dev/loop{number}", os.O_RDWR)
        try:
            fcntl.ioctl(device, LOOP_SET_FD, file)
        except OSError:
            os.close(device)
            continue
        break
    else:
        sys.exit("no scratch volume can be made: every loop device is taken")
    # struct loop_info64: 5 × u64, 4 × u32 (the fourth: flags), names, key, init
    fcntl.ioctl(
        device,
        LOOP_SET_STATUS64,
        struct.pack("=5Q4I64s64s32s2Q", *[0] * 8, LO_FLAGS_AUTOCLEAR, *[b""] * 3, 0, 0),
    )
    mount(f"/dev/loop{number}", target, "ext4", MS_NOSUID | MS_NODEV | MS_NOATIME)
    os.close(device)
    os.close(file)
    os.rmdir(f"{target}/lost+found")


def contain(point: str, oci: dict[str, Any]) -> int:
    """Run a container as the first process of a namespace; returns its status."""
    must(libc.unshare(CLONE_NEWPID), "unshare")
    watched, held = os.pipe()
    child = os.fork()
    if child:
        os.close(watched)
        for standard in (0, 1):  # the stream is the container's alone: its end must be seen
            os.close(standard)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return status if status >= 0 else 128 - status
    os.close(held)
    must(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
    if select.select([watched], [], [], 0)[0]:
        os._exit(1)  # the parent is gone already
    try:
        os._exit(first_process(point, oci))
    except BaseException as error:
        print(f"launch: {error}", file=sys.stderr, flush=True)
        os._exit(1)


def first_process(point: str, oci: dict[str, Any]) -> int:
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    if oci["hide_unified"]:
        must(libc.umount2(UNIFIED.encode(), MNT_DETACH), f"umount {UNIFIED}")
    for name in ("bundle", "state"):
        os.mkdir(f"{point}/{name}", 0o700 if name == "state" else 0o755)
    with open(f"{point}/bundle/config.json", "w") as file:
        json.dump(oci["config"], file)
    program = [oci["runtime"], "--root", f"{point}/state", "run", "--detach", "--bundle", f"{point}/bundle"]
    program += ["--pid-file", f"{point}/pid", "guest"]
    starter = os.posix_spawn(program[0], program, {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
    if status := os.waitstatus_to_exitcode(os.waitpid(starter, 0)[1]):
        return status if status > 0 else 128 - status
    with open(f"{point}/pid") as file:
        guest = int(file.read())
    for standard in (0, 1):
        os.close(standard)
    while True:  # what others leave behind is reaped too
        gone, how = os.waitpid(-1, 0)
        if gone == guest:
            status = os.waitstatus_to_exitcode(how)
            return status if status >= 0 else 128 - status


def main() -> None:
    told = json.loads(sys.argv[1])
    for path in told["cgroups"]:
        with open(path, "w") as handle:
            handle.write("0")
    if told["point"] is not None:
        cover(told["point"], told)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if told["uid"] is not None:
        os.setgroups([])
        os.setresgid(told["uid"], told["uid"], told["uid"])
        os.setresuid(told["uid"], told["uid"], told["uid"])
        os.chdir("/")
    must(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")  # after setresuid, which clears it
    if os.getppid() != told["parent"]:
        sys.exit("the worker died while the sandbox started")
    if told["oci"] is not None:
        sys.exit(contain(told["point"], told["oci"]))
    os.execvpe(told["command"][0], told["command"], {"PATH": "/usr/local/bin:/usr/bin:/bin"})


if __name__ == "__main__":
    main()
