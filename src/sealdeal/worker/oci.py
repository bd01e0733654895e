"""The outer sandbox by an OCI runtime, runc or crun: where operators trust and watch one of these.

The bundle is written for each guest, into a file system of its own that goes with it. The container has a
user namespace with two users: the guest, and one who exists while the runtime sets up. Its control groups are
the worker's own (cgroups.py), so the same limits hold in the same way as under bubblewrap.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Final

from sealdeal.model.errors import Unavailable
from sealdeal.sdk.guest_release import COMMAND, GuestRelease

from . import cgroups
from .cgroups import Bounds
from .sandbox import FIRST_UID, GUEST_UID, SYSTEM_PATH, TMP_BYTES, Launched

SETUP_UID: Final = 300_000
"""Slot n's runtime sets up as uid 300000 + n, which is root in there; no process keeps it."""
_SPEC: Final = "1.0.2"
_NAMESPACES: Final = ("pid", "network", "ipc", "uts", "mount", "user", "cgroup")
_CAPABILITIES: Final = ("bounding", "effective", "inheritable", "permitted", "ambient")


class OciSandbox(Launched):
    """Guests in containers. Needs root, and control groups."""

    def __init__(
        self,
        release: GuestRelease,
        name: str,
        bounds: Bounds | None = None,
        scratch: Path | None = None,
        *,
        runtime: str = "runc",
    ) -> None:
        """`runtime`: runc or crun. Raises Unavailable when it is missing, or cannot do its work here."""
        found = shutil.which(runtime, path=SYSTEM_PATH)
        if found is None:
            raise Unavailable(f"{runtime} is missing: install it (apt install {runtime})")
        if os.geteuid() != 0:
            raise Unavailable(f"the {runtime} driver needs root; bubblewrap does without")
        self._runtime, self.driver = found, runtime
        super().__init__(release, name, bounds, scratch)
        if not self._grouped:
            raise Unavailable(
                f"the {runtime} driver needs control groups: {'; '.join(self.capabilities.missing)}"
            )
        if self._point is None:
            raise Unavailable(
                f"the {runtime} driver needs an empty folder to show the guest's files at: mkdir /mnt"
            )

    def _told(self, slot: int) -> dict[str, Any]:
        # crun takes a machine of both versions of control groups for a broken one of version 2.
        hide = self.driver == "crun" and cgroups.hybrid()
        config = self._config(slot)
        return {
            "root": str(self._release.rootfs.resolve()),
            "joins": False,  # the runtime has the container join; its own processes stay outside
            "oci": {"runtime": self._runtime, "config": config, "hide_unified": hide},
        }

    def _config(self, slot: int) -> dict[str, Any]:
        user = int(GUEST_UID)
        mapping = [
            {"containerID": 0, "hostID": SETUP_UID + slot, "size": 1},
            {"containerID": user, "hostID": FIRST_UID + slot, "size": 1},
        ]
        own = f"uid={user},gid={user},mode=0700"
        mounts = [
            _mount("/proc", "proc", "nosuid", "noexec", "nodev"),
            _mount("/dev", "tmpfs", "nosuid", "noexec", "strictatime", "mode=0755", f"size={TMP_BYTES}"),
            _mount("/tmp", "tmpfs", "nosuid", "nodev", *own.split(","), f"size={TMP_BYTES}"),
            _mount("/work", "tmpfs", "nosuid", "nodev", *own.split(","), f"size={self._bounds.work}"),
        ]
        if self._bounds.disk:
            mounts[-1] = {
                "destination": "/work",
                "type": "bind",
                "source": f"{self._point}/work",
                "options": ["bind", "rw", "nosuid", "nodev"],
            }
        return {
            "ociVersion": _SPEC,
            "hostname": "guest",
            "root": {"path": f"{self._point}/root", "readonly": True},
            "mounts": mounts,
            "process": {
                "terminal": False,
                "user": {"uid": user, "gid": user},
                "args": list(COMMAND),
                "env": ["LC_ALL=C.UTF-8"],
                "cwd": "/",
                "noNewPrivileges": True,
                "capabilities": {name: [] for name in _CAPABILITIES},
                "rlimits": [{"type": "RLIMIT_CORE", "hard": 0, "soft": 0}],
            },
            "linux": {
                "namespaces": [{"type": kind} for kind in _NAMESPACES],
                "uidMappings": mapping,
                "gidMappings": mapping,
                "cgroupsPath": f"/{cgroups.PREFIX}{self._name}-{slot}",
                # No masked or read-only paths below /proc: the app's own sandbox inside mounts a fresh /proc,
                # which the kernel allows only where the outer one is whole. Both are a user namespace's.
                "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            },
        }


def _mount(place: str, kind: str, *options: str) -> dict[str, Any]:
    return {"destination": place, "type": kind, "source": kind, "options": list(options)}
