"""Control groups: how a sandbox's memory, processes and processor time are bounded by the kernel.

Version 1, version 2, and hybrids of both (then version 1 holds the controllers). Where the worker may not
make groups, `missing` says so; nothing is dropped silently.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MOUNT: Final = Path("/sys/fs/cgroup")
PREFIX: Final = "sealdeal-"
_PERIOD: Final = 100_000
"""Microseconds over which processor time is counted."""
_V1: Final = ("memory", "pids", "cpu", "freezer")
_KILL_ROUNDS: Final = 200
_PAUSE: Final = 0.01


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one guest, its app and its files in memory may use together."""

    memory: int = 2 << 30
    """Bytes, tmpfs included."""
    work: int = 1 << 30
    """Bytes of the guest's tmpfs: image, data and result lie there. Part of `memory`."""
    disk: int = 0
    """Bytes on the worker's disk that take the tmpfs' place, for data larger than memory; 0: none. Drivers
    that only stand in for a TEE do not encrypt them."""
    processes: int = 256
    cpus: float = 1.0


def _unified() -> bool:
    return (MOUNT / "cgroup.controllers").exists()


def hybrid() -> bool:
    """Whether version 1 holds the controllers, and version 2 is mounted beside it."""
    return not _unified() and (MOUNT / "unified" / "cgroup.controllers").exists()


def _homes() -> dict[str, Path]:
    """Controller -> folder in which groups can be made by us."""
    if _unified():
        controllers = (MOUNT / "cgroup.controllers").read_text().split()
        with contextlib.suppress(OSError):
            (MOUNT / "cgroup.subtree_control").write_text(" ".join(f"+{c}" for c in controllers if c in _V1))
        return dict.fromkeys(("memory", "pids", "cpu"), MOUNT)
    return {name: MOUNT / name for name in _V1 if (MOUNT / name / "cgroup.procs").exists()}


def missing() -> dict[str, str]:
    """Which bounds this machine lets us not enforce: name -> why."""
    probe = Group(f"probe-{os.getpid()}")
    why = {}
    try:
        probe.make(Bounds())
    except OSError as error:
        why = dict.fromkeys(("memory", "pids", "cpu"), f"cgroups cannot be written ({error.strerror})")
    else:
        for name in ("memory", "pids", "cpu"):
            if not probe.controls(name):
                why[name] = f"no {name} controller among this machine's cgroups"
    finally:
        probe.remove()
    return why


class Group:
    """The control groups of one sandbox, in every hierarchy that there is."""

    def __init__(self, name: str) -> None:
        self.name = PREFIX + name
        self._homes = _homes()
        self._folders = {c: home / self.name for c, home in self._homes.items()}

    def make(self, bounds: Bounds) -> None:
        """Create it with its limits. Raises OSError where that is not allowed."""
        for folder in dict.fromkeys(self._folders.values()):
            folder.mkdir(exist_ok=True)
        quota = int(bounds.cpus * _PERIOD)
        if _unified():
            self._set("memory", "memory.max", bounds.memory)
            self._set("memory", "memory.swap.max", 0)
            self._set("memory", "memory.oom.group", 0)
            self._set("cpu", "cpu.max", f"{quota} {_PERIOD}")
        else:
            self._set("memory", "memory.limit_in_bytes", bounds.memory)
            self._set("memory", "memory.memsw.limit_in_bytes", bounds.memory)
            self._set("cpu", "cpu.cfs_period_us", _PERIOD)
            self._set("cpu", "cpu.cfs_quota_us", quota)
        self._set("pids", "pids.max", bounds.processes)

    def _set(self, controller: str, name: str, value: object) -> None:
        folder = self._folders.get(controller)
        if folder is not None and (folder / name).exists():
            (folder / name).write_text(str(value))

    def controls(self, controller: str) -> bool:
        """Whether this controller's limits exist here."""
        names = {"memory": ("memory.max", "memory.limit_in_bytes"), "pids": ("pids.max",)}
        folder = self._folders.get(controller)
        wanted = names.get(controller, ("cpu.max", "cpu.cfs_quota_us"))
        return folder is not None and any((folder / name).exists() for name in wanted)

    @property
    def doors(self) -> list[str]:
        """The files through which a process joins."""
        return [str(f / "cgroup.procs") for f in dict.fromkeys(self._folders.values()) if f.is_dir()]

    def out_of_memory(self) -> bool:
        """Whether the kernel killed a process here for want of memory."""
        folder = self._folders.get("memory", MOUNT)
        for name in ("memory.events", "memory.oom_control"):
            with contextlib.suppress(OSError, ValueError):
                words = (folder / name).read_text().split()
                return int(words[words.index("oom_kill") + 1]) > 0
        return False

    def members(self) -> list[int]:
        """Processes that are in it."""
        for folder in self._folders.values():
            with contextlib.suppress(OSError):
                return [int(line) for line in (folder / "cgroup.procs").read_text().split()]
        return []

    def kill(self) -> None:
        """Kill every process in it, also one that forks faster than it can be killed."""
        if _unified():
            with contextlib.suppress(OSError):
                self._set("pids", "cgroup.kill", 1)
        for _ in range(_KILL_ROUNDS):
            with contextlib.suppress(OSError):
                self._set("freezer", "freezer.state", "FROZEN")
            found = self.members()
            for process in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            with contextlib.suppress(OSError):
                self._set("freezer", "freezer.state", "THAWED")
            if not found:
                return
            time.sleep(_PAUSE)

    def remove(self) -> None:
        """Kill what is left in it and take it away."""
        self.kill()
        others = [] if _unified() else MOUNT.glob(f"*/{self.name}")  # an OCI runtime uses every hierarchy
        for folder in dict.fromkeys([*self._folders.values(), *others]):
            for _ in range(_KILL_ROUNDS):
                try:
                    folder.rmdir()
                except FileNotFoundError:
                    break
                except OSError:  # a killed process is not quite gone
                    time.sleep(_PAUSE)
                else:
                    break


def leftovers(name: str) -> list[Group]:
    """Groups whose name begins with `name`, left by a worker that was killed."""
    found = {folder.name for home in _homes().values() for folder in home.glob(f"{PREFIX}{name}*")}
    return [Group(folder.removeprefix(PREFIX)) for folder in sorted(found)]
