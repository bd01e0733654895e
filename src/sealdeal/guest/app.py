"""Run the app in its own sandbox, inside the guest's: its image as a read-only root, no network.

Layout for the app (wire.md §5): /iexec_in read-only, /iexec_out, a small /tmp and /dev/shm. It has no
privilege, and sees neither files nor processes of the guest.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import resource
import selectors
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sealdeal.model.images import Process

from . import seccomp
from .failures import AppFault, Failure
from .hello import Limits
from .network import Network

UID: Final = 65534
MOUNT_POINTS: Final = ("proc", "dev", "tmp", "iexec_in", "iexec_out")
_SHARED: Final = {False: (), True: ("--share-net",)}
"""A network's namespace is made before, with its proxy inside; else bubblewrap makes an empty one."""
_SHELL_OFFSET: Final = 128
"""bubblewrap tells of a signal as a shell does: 128 + its number."""
_SET_CHILD_SUBREAPER: Final = 36
"""prctl's, of linux/prctl.h."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How the app ended by itself."""

    exit_code: int
    """0 to 255; 128 + n after signal n."""
    stdout: bytes
    stderr: bytes


def run_app(
    bwrap: Path,
    root: Path,
    inputs: Path,
    outputs: Path,
    process: Process,
    arguments: str,
    environment: Mapping[str, str],
    limits: Limits,
    network: Network | None = None,
) -> Ended:
    """Run the image's program with the deal's `arguments` (split like a shell) until it ends. With a
    `network` it reaches the hosts of that, else none.

    Raises Failure when it ran out of time, was killed, or could not be started for a reason that is not the
    image's; AppFault when the image's program cannot be executed, or the arguments cannot be split.
    """
    try:
        command = process.command(shlex.split(arguments))
    except ValueError as error:
        raise AppFault(
            "APP_COMPUTE_FAILED", f"the deal's arguments cannot be split like a shell's: {error}"
        ) from None
    for name in MOUNT_POINTS:
        point = root / name
        if point.is_symlink() or (point.exists() and not point.is_dir()):
            point.unlink()
        point.mkdir(exist_ok=True)
    _adopt()
    filter_fd, status_read, status_write = _filter(), *os.pipe()
    small = ["--size", str(limits.temporary_bytes), "--tmpfs"]
    argv = [
        *(str(bwrap), "--unshare-all", *_SHARED[network is not None], "--unshare-user"),
        *("--uid", str(UID), "--gid", str(UID)),
        *("--hostname", "app", "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv"),
        *(
            "--ro-bind",
            str(root),
            "/",
            "--proc",
            "/proc",
            "--dev",
            "/dev",
            *small,
            "/tmp",
            *small,
            "/dev/shm",
            "--remount-ro",
            "/dev",
        ),
        *("--ro-bind", str(inputs), "/iexec_in", "--bind", str(outputs), "/iexec_out"),
        *("--chdir", process.folder, "--seccomp", str(filter_fd), "--json-status-fd", str(status_write)),
    ]
    proxied = network.environment if network is not None else {}
    for name, value in {**dict(process.environment), **environment, **proxied}.items():
        argv += ["--setenv", name, value]
    try:
        with subprocess.Popen(
            [*argv, "--", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(filter_fd, status_write),
            env={},
            preexec_fn=lambda: _restrain(limits, network),
        ) as running:
            os.close(status_write)
            status_write = -1
            stdout, stderr, in_time = _listen(running, limits, network)
            if not in_time:
                raise Failure(
                    "APP_COMPUTE_TIMEOUT", f"the app ran longer than its category's {limits.seconds} s"
                )
    finally:
        if status_write >= 0:
            os.close(status_write)
        os.close(filter_fd)
        _end_all()
        with open(status_read, "rb") as handle:
            said = handle.read(4096)
    return _ended(said, stdout, stderr, command[0])


def _ended(said: bytes, stdout: bytes, stderr: bytes, program: str) -> Ended:
    codes = [v["exit-code"] for line in said.splitlines() if "exit-code" in (v := json.loads(line))]
    if not codes:  # it never came to run the program
        if stderr.startswith(b"bwrap: execvp"):
            raise AppFault("APP_COMPUTE_FAILED", f"the image's program {program!r} cannot be executed", 127)
        reason = stderr[:300].decode(errors="replace").strip()
        raise Failure("TEE_PREPARATION_FAILED", f"the app's sandbox cannot be set up here: {reason}")
    code = codes[0] & 0xFF  # it comes from a process that the app may have taken over
    if code == _SHELL_OFFSET + signal.SIGKILL:
        raise Failure("APP_COMPUTE_FAILED", "the app was killed (SIGKILL): out of memory, most likely")
    return Ended(code, stdout, stderr)


def _restrain(limits: Limits, network: Network | None) -> None:
    """Between fork and exec: what the app inherits."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits.output_bytes, limits.output_bytes))
    files = min(4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    with open("/proc/self/oom_score_adj", "w") as handle:
        handle.write("1000")  # when memory is short the app goes, not the guest
    if network is not None:
        network.enter()


def _adopt() -> None:
    """Become the parent of whatever is left when a child of ours ends."""
    if ctypes.CDLL(None, use_errno=True).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def _end_all() -> None:
    """Kill what is left of the app, and wait until nothing is: then its output stands still.

    When the sandbox's monitor is gone, its first process is ours, and ends after everything in its namespace
    has. It dies with its monitor, unless the app, whose user it has, took it over and turned that off.
    """
    with contextlib.suppress(ChildProcessError):
        while True:
            for child in _children():
                os.kill(child, signal.SIGKILL)
            os.waitpid(-1, 0)


def _children() -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):  # gone meanwhile
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                found += [int(entry.name)] if parent == os.getpid() else []
    return found


def _filter() -> int:
    handle = os.memfd_create("seccomp", 0)
    os.write(handle, seccomp.program(platform.machine()))
    os.lseek(handle, 0, os.SEEK_SET)
    return handle


def _listen(
    running: subprocess.Popen[bytes], limits: Limits, network: Network | None
) -> tuple[bytes, bytes, bool]:
    """Keep the beginning of both outputs, drop the rest, and serve the app's network, until it ends or its
    time is over.
    """
    assert running.stdout is not None and running.stderr is not None
    kept = {running.stdout.fileno(): bytearray(), running.stderr.fileno(): bytearray()}
    ended = os.pidfd_open(running.pid)
    awaited = {*kept, ended}
    give_up = time.monotonic() + limits.seconds
    try:
        with selectors.DefaultSelector() as ready:
            for handle in awaited:
                ready.register(handle, selectors.EVENT_READ)
            if network is not None:
                network.serve(ready)
            while awaited:
                left = give_up - time.monotonic()
                if left <= 0:
                    return _stop(running)
                for key, events in ready.select(left):
                    if key.data is not None:
                        key.data(events)
                        continue
                    data = os.read(key.fd, 64 << 10) if key.fd in kept else b""
                    if data:
                        store = kept[key.fd]
                        store += data[: max(0, limits.log_bytes - len(store))]
                    else:
                        ready.unregister(key.fd)
                        awaited.discard(key.fd)
            if network is not None:
                network.close()
    except BaseException:
        _stop(running)  # nobody waits for it any more
        raise
    finally:
        os.close(ended)
    running.wait()
    stdout, stderr = kept.values()
    return bytes(stdout), bytes(stderr), True


def _stop(running: subprocess.Popen[bytes]) -> tuple[bytes, bytes, bool]:
    running.kill()  # the sandbox's monitor: everything in its namespace dies with it
    running.wait()
    return b"", b"", False
