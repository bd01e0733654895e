"""The outer sandbox: where a guest runs, cut off from everything but its stream to the worker.

`Sandbox` is what every driver offers; `drivers.py` lists them. `Launched` is what those have in common that
run the guest on the worker's own kernel: namespaces of its own for everything, the guest's release as a
read-only root, a file system of bounded size for its work, no network, no capability, never uid 0. The one
here is bubblewrap. They stand in for a TEE; they do not protect the guest from the machine that it runs on.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import signal
import stat
import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from sealdeal.model.errors import Unavailable
from sealdeal.sdk.guest_release import COMMAND, GuestRelease

from . import cgroups
from .cgroups import Bounds

FIRST_UID: Final = 200_000
"""Slot n of a worker that runs as root has its guest as uid 200000 + n: nobody's, and not each other's."""
_POINTS: Final = ("/mnt", "/media", "/srv", "/opt")
_LAUNCH: Final = Path(__file__).with_name("launch.py")
_STDERR_LINES: Final = 40
_PIPE_BYTES: Final = 1 << 20
"""As much as Linux gives to anybody."""
_AHEAD: Final = 256 << 10
"""Bytes: asyncio reads twice as many ahead of the relay, while that waits for whom a body goes to."""
GUEST_UID: Final = "65534"
"""What a guest is to itself."""
TMP_BYTES: Final = 1 << 20
_HALT_ROUNDS: Final = 200
_HALT_PAUSE: Final = 0.005
"""Seconds between looks at a monitor that was told to halt: one second in all, then it is killed as it is."""
SYSTEM_PATH: Final = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
"""Where root's programs are, also for a worker whose own PATH lacks them."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a driver's isolation is worth on this machine."""

    driver: str
    missing: tuple[str, ...]
    """Each bound that is not enforced here, with the reason."""


class Guest(Protocol):
    """A running guest."""

    stdin: asyncio.StreamWriter
    stdout: asyncio.StreamReader

    async def wait(self) -> int:
        """Its exit status, negative after a signal; its last words are in `complaint`."""

    async def kill(self) -> None:
        """Kill it with everything in it, and wait until it is gone. Harmless when it has ended."""

    def out_of_memory(self) -> bool:
        """Whether something in it was killed for want of memory."""

    @property
    def complaint(self) -> str:
        """The end of what it, or its sandbox, wrote to standard error."""


class Sandbox(Protocol):
    """A driver: starts guests."""

    @property
    def capabilities(self) -> Capabilities: ...

    async def start(self, slot: int, app_checksum: bytes = bytes(32), /) -> Guest:
        """A guest in this slot, waiting for its HELLO; `app_checksum`: of the app that it will run, for
        hardware that measures it from the start. Raises Unavailable when it cannot start."""

    def sweep(self) -> int:
        """Kill what an earlier worker process of this name left running; returns how many guests."""


class Launched(ABC):
    """Guests as processes of this machine, started by launch.py. `name` must be this worker's own on this
    machine: `sweep` goes by it. `scratch`: where the volumes of `bounds.disk` lie, if there is to be one.
    """

    driver: str

    def __init__(
        self, release: GuestRelease, name: str, bounds: Bounds | None = None, scratch: Path | None = None
    ) -> None:
        """Raises Unavailable when this machine cannot do what was asked for."""
        self._release, self._name, self._bounds = release, name, bounds or Bounds()
        self._root = os.geteuid() == 0
        lacking = cgroups.missing()
        self._grouped = len(lacking) < 3
        if not self._root:
            lacking["user"] = "not started as root, so guests run as the worker's own user"
        self.capabilities = Capabilities(self.driver, tuple(f"{k}: {v}" for k, v in lacking.items()))
        self._scratch = scratch
        self._point = next((p for p in _POINTS if Path(p).is_dir() and not Path(p).is_symlink()), None)
        if self._bounds.disk:
            self._expect_volumes()

    def _expect_volumes(self) -> None:
        lacking = {
            "a folder for it": self._scratch is None,
            "to be started as root": not self._root,
            "loop devices (/dev/loop-control)": not Path("/dev/loop-control").exists(),
            "mkfs.ext4 (apt install e2fsprogs)": shutil.which("mkfs.ext4", path=SYSTEM_PATH) is None,
        }
        if missing := [what for what, lacks in lacking.items() if lacks]:
            raise Unavailable(
                f"a guest's disk space needs {', '.join(missing)}: add that, or give memory only"
            )

    def sweep(self) -> int:
        left = cgroups.leftovers(f"{self._name}-") if self._grouped else []
        for group in left:
            group.remove()
        return len(left)

    async def start(self, slot: int, app_checksum: bytes = bytes(32), /) -> Guest:
        group = cgroups.Group(f"{self._name}-{slot}") if self._grouped else None
        told: dict[str, Any] = {
            "uid": None,
            "root": None,
            "volume": None,
            "command": None,
            "oci": None,
            "joins": True,
            "parent": os.getpid(),
        }
        if self._bounds.disk:
            assert self._scratch is not None  # by _expect_volumes
            self._scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
            volume = {"folder": str(self._scratch), "bytes": self._bounds.disk, "owner": FIRST_UID + slot}
            told["volume"] = volume
        told |= self._told(slot)
        covered = told["root"] is not None or told["volume"] is not None
        if covered and self._point is None:
            raise Unavailable(
                f"the guest's files at {self._release.rootfs} have to be shown at another place, and none of "
                f"{', '.join(_POINTS)} exists for that: make one, empty"
            )
        told["point"] = self._point if covered else None
        if group is not None:
            group.make(self._bounds)
        told["cgroups"] = group.doors if group is not None and told.pop("joins") else []
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(_LAUNCH), json.dumps(told)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
                limit=_AHEAD,
            )
        except BaseException:
            if group is not None:
                group.remove()
            raise
        return _LaunchedGuest(process, group)

    @abstractmethod
    def _told(self, slot: int) -> dict[str, Any]:
        """What launch.py is told for this driver."""


class BubblewrapSandbox(Launched):
    """Guests in bubblewrap, also without root."""

    driver = "bubblewrap"

    def __init__(
        self, release: GuestRelease, name: str, bounds: Bounds | None = None, scratch: Path | None = None
    ) -> None:
        """Raises Unavailable when bubblewrap is missing."""
        found = shutil.which("bwrap")
        if found is None:
            raise Unavailable("bubblewrap is missing: install it (apt install bubblewrap)")
        self._bwrap = found
        super().__init__(release, name, bounds, scratch)

    def _told(self, slot: int) -> dict[str, Any]:
        rootfs, uid = self._release.rootfs.resolve(), FIRST_UID + slot if self._root else None
        hidden = uid is not None and not _reachable(rootfs)
        root = f"{self._point}/root" if hidden else str(rootfs)
        return {"uid": uid, "root": str(rootfs) if hidden else None, "command": self._command(root)}

    def _command(self, root: str) -> list[str]:
        work = ["--size", str(self._bounds.work), "--perms", "0700", "--tmpfs", "/work"]
        if self._bounds.disk:
            work = ["--bind", f"{self._point}/work", "/work"]
        return [
            *(self._bwrap, "--unshare-all", "--unshare-user", "--uid", GUEST_UID, "--gid", GUEST_UID),
            *("--hostname", "guest", "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv"),
            *("--ro-bind", root, "/", "--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"),
            *("--size", str(TMP_BYTES), "--perms", "0700", "--tmpfs", "/tmp", *work),
            *("--setenv", "LC_ALL", "C.UTF-8", "--chdir", "/", "--", *COMMAND),
        ]


class _LaunchedGuest:
    def __init__(self, process: asyncio.subprocess.Process, group: cgroups.Group | None) -> None:
        assert process.stdin is not None and process.stdout is not None
        self.stdin, self.stdout = process.stdin, process.stdout
        with contextlib.suppress(OSError, AttributeError):  # an image is large; fewer, longer writes
            fcntl.fcntl(process.stdin.transport.get_extra_info("pipe"), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._process, self._group = process, group
        self._short_of_memory = False
        self._lines: deque[str] = deque(maxlen=_STDERR_LINES)
        self._listening = asyncio.create_task(self._listen())
        self._gone = False

    async def _listen(self) -> None:
        assert self._process.stderr is not None
        with contextlib.suppress(ValueError):  # a line longer than the stream's limit
            async for line in self._process.stderr:
                self._lines.append(line[:500].decode(errors="replace").rstrip())

    async def wait(self) -> int:
        status = await self._process.wait()
        await self._clear()
        return status

    async def kill(self) -> None:
        if self._process.returncode is None:
            await asyncio.to_thread(_kill, self._process.pid)
        if self._group is not None:
            await asyncio.to_thread(self._group.kill)
        await self._process.wait()
        await self._clear()

    async def _clear(self) -> None:
        if self._gone:
            return
        self._gone = True
        await asyncio.wait([self._listening], timeout=2)
        self._listening.cancel()
        if self._group is not None:
            self._short_of_memory = self._group.out_of_memory()
            await asyncio.to_thread(self._group.remove)

    def out_of_memory(self) -> bool:
        return self._short_of_memory or (self._group is not None and self._group.out_of_memory())

    @property
    def complaint(self) -> str:
        return "\n".join(self._lines)


def _kill(monitor: int) -> None:
    """Kill a sandbox's monitor and its child, the first process of a namespace, which takes the rest with it.

    The child dies with the monitor only once it has asked for that (PR_SET_PDEATHSIG): a moment after its
    start it would outlive the monitor, and keep the guest's pipes open. So the monitor is halted first.
    """
    with contextlib.suppress(ProcessLookupError):
        os.killpg(monitor, signal.SIGSTOP)
        for _ in range(_HALT_ROUNDS):
            if _state(monitor) not in "RSD":
                break
            time.sleep(_HALT_PAUSE)
        for child in _children(monitor):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        os.killpg(monitor, signal.SIGKILL)


def _state(process: int) -> str:
    """One letter, as in proc(5); X for a process that is gone."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def _children(process: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:
        return []


def _reachable(folder: Path) -> bool:
    """Whether everybody may enter this folder."""
    everybody = stat.S_IXOTH | stat.S_IROTH
    parents = folder.resolve().parents
    enterable = all(parent.stat().st_mode & stat.S_IXOTH for parent in parents)
    return enterable and folder.stat().st_mode & everybody == everybody
