"""The outer sandbox by QEMU: each guest in a machine of its own, with a kernel of its own.

The machine has two disks at most (the guest's release, read-only under dm-verity; and, where guests have disk
space, one that it encrypts under a key of its own), the stream as a virtio port, and a console that is only
read. It has no network device. QEMU itself runs in bubblewrap, so that whoever breaks out of the machine
stands in an empty namespace, without a privilege.

On a host with Intel TDX the machine is a trust domain: the same image, with its memory encrypted and evidence
from the hardware (`sealdeal.guest.tsm`). THAT PART HAS NEVER RUN ON HARDWARE: it is written to the
documentation of QEMU 10.1 and Linux 6.16. Everywhere else the machine keeps a guest in, and does not protect
it from the host.
"""

from __future__ import annotations

import asyncio
import base64
import json
import math
import os
import shutil
import stat
from pathlib import Path
from typing import Any, Final, Literal

from sealdeal.guest.boot import ENDED
from sealdeal.model.errors import Unavailable
from sealdeal.model.types import bytes32
from sealdeal.sdk.guest_release import GuestRelease

from ..cgroups import Bounds
from ..sandbox import FIRST_UID, GUEST_UID, SYSTEM_PATH, Guest, Launched
from .image import INITRD, KERNEL, MACHINES, ROOT, Parts, build

Accelerator = Literal["tdx", "kvm", "tcg"]

OWN_MEMORY: Final[dict[Accelerator, int]] = {"tdx": 128 << 20, "kvm": 128 << 20, "tcg": 192 << 20}
"""Bytes of a guest's memory that QEMU itself may use; the rest is the machine's."""
LEAST_MEMORY: Final = 160 << 20
"""Bytes with which a machine starts, and its guest waits for a HELLO."""
_TRANSLATED: Final = 48
"""MiB of QEMU's cache of translated code, without hardware that runs the machine."""
_PROGRAM: Final = "qemu-system-x86_64"
_SANDBOX: Final = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
_FIRMWARE: Final = Path("/usr/share/ovmf/OVMF.fd")
_TDX: Final = Path("/sys/module/kvm_intel/parameters/tdx")
_QUOTES: Final = {"type": "vsock", "cid": "2", "port": "4050"}
"""Where Intel's quote generation service listens on a TDX host."""
_ON_DISK: Final = 16, 15
"""Of so many parts of the disk space so many are the machine's disk: the volume below it needs the rest."""
_OUT_OF_MEMORY: Final = "Out of memory: Killed process"
"""What the machine's kernel says on the console."""


class VmSandbox(Launched):
    """Guests in virtual machines. `Bounds.memory` is QEMU's and the machine's together. `Bounds.work` has no
    effect: files in memory have half of the machine's, or 768 MiB, since nothing of a size is measured."""

    driver = "vm"

    def __init__(
        self,
        release: GuestRelease,
        name: str,
        bounds: Bounds | None = None,
        scratch: Path | None = None,
        *,
        accelerator: Accelerator | None = None,
        parts: Parts | None = None,
        cache: Path | None = None,
    ) -> None:
        """`accelerator`: tdx, kvm, or tcg, which is slow and needs nothing; the first that this machine has.
        `parts`: the distribution's, by default this machine's own kernel. `cache`: where images of machines
        are built, by default beside the release.

        Raises Unavailable, saying what is missing.
        """
        found = {program: shutil.which(program, path=SYSTEM_PATH) for program in (_PROGRAM, "bwrap")}
        packages = {_PROGRAM: "qemu-system-x86", "bwrap": "bubblewrap"}
        if missing := [packages[program] for program, path in found.items() if path is None]:
            raise Unavailable(f"the vm driver needs {' and '.join(missing)}: apt install {' '.join(missing)}")
        self._qemu, self._bwrap = str(found[_PROGRAM]), str(found["bwrap"])
        super().__init__(release, name, bounds, scratch)
        self.accelerator: Accelerator = accelerator or best()
        self._check_accelerator()
        self._apps: dict[int, bytes] = {}
        """Slot -> the app of the guest that it starts."""
        self._memory = self._bounds.memory - OWN_MEMORY[self.accelerator]
        if self._memory < LEAST_MEMORY:
            raise Unavailable(
                f"expected at least {(LEAST_MEMORY + OWN_MEMORY[self.accelerator]) >> 20} MiB of memory for "
                f"each guest in a machine of its own; got {self._bounds.memory >> 20}: have fewer slots"
            )
        cache = cache or release.rootfs.parent.parent / MACHINES
        self.image = build(release, parts or Parts.below(), cache)

    def _check_accelerator(self) -> None:
        if self.accelerator == "tcg":
            return
        try:
            mode = Path("/dev/kvm").stat().st_mode
        except OSError:
            raise Unavailable("the vm driver needs /dev/kvm, and this machine has none: use tcg") from None
        if self._root and mode & (stat.S_IROTH | stat.S_IWOTH) != stat.S_IROTH | stat.S_IWOTH:
            raise Unavailable(
                "guests' machines run as users of their own, who may not use /dev/kvm: chmod 666 /dev/kvm, "
                "and make it last by a rule of udev"
            )
        if self.accelerator == "tdx" and not has_tdx():
            raise Unavailable(f"this machine's kernel does not offer TDX ({_TDX} says no, or is missing)")
        if self.accelerator == "tdx" and not _FIRMWARE.exists():
            raise Unavailable(f"TDX needs a firmware at {_FIRMWARE}: apt install ovmf")

    async def start(self, slot: int, app_checksum: bytes = bytes(32), /) -> Guest:
        self._apps[slot] = bytes32(app_checksum)
        return VmGuest(await super().start(slot))

    def _told(self, slot: int) -> dict[str, Any]:
        uid = FIRST_UID + slot if self._root else None
        folder = self.image.folder.resolve()
        shown = uid is not None and self._point is not None
        files = f"{self._point}/root" if shown else str(folder)
        return {
            "uid": uid,
            "root": str(folder) if shown else None,
            "command": self._confined(files, self._apps.get(slot, bytes(32))),
        }

    def _confined(self, files: str, app_checksum: bytes) -> list[str]:
        inside = [
            *(self._bwrap, "--unshare-all", "--unshare-user", "--uid", GUEST_UID, "--gid", GUEST_UID),
            *("--hostname", "machine", "--die-with-parent", "--new-session", "--cap-drop", "ALL"),
            *("--clearenv", "--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin"),
            *(
                "--symlink",
                "usr/lib",
                "/lib",
                "--symlink",
                "usr/lib64",
                "/lib64",
                "--proc",
                "/proc",
                "--dev",
                "/dev",
                "--tmpfs",
                "/tmp",
            ),
            *("--ro-bind", files, "/machine"),
        ]
        if self.accelerator != "tcg":
            inside += ["--dev-bind", "/dev/kvm", "/dev/kvm"]
        make = "true"
        if self._bounds.disk:
            whole, given = _ON_DISK
            inside += ["--bind", f"{self._point}/work", "/disk"]
            make = f"truncate -s {(self._bounds.disk // whole * given) >> 20}M /disk/disk"
        # The console goes where the standard error goes, by a descriptor that QEMU may take over.
        script = f'{make} && exec "$@" 3>&2'
        return [*inside, "--chdir", "/", "--", "/bin/sh", "-c", script, "sh", *self.command(app_checksum)]

    def command(self, app_checksum: bytes) -> list[str]:
        """QEMU and its arguments, with the image at /machine and the disk, if any, at /disk."""
        virtio = ",disable-legacy=on"
        match self.accelerator:
            case "tcg":
                kind = ["-machine", "q35", "-accel", f"tcg,tb-size={_TRANSLATED}", "-cpu", "max"]
            case "kvm":
                kind = ["-machine", "q35", "-accel", "kvm", "-cpu", "host"]
            case "tdx":
                app = base64.b64encode(bytes32(app_checksum) + bytes(16)).decode()
                domain = {"qom-type": "tdx-guest", "id": "domain", "mrconfigid": app}
                kind = ["-object", json.dumps({**domain, "quote-generation-socket": _QUOTES})]
                kind += ["-machine", "q35,kernel-irqchip=split,confidential-guest-support=domain"]
                kind += ["-accel", "kvm", "-cpu", "host", "-bios", str(_FIRMWARE)]
                virtio += ",iommu_platform=on"  # devices see shared pages only
        drives = [("root", f"/machine/{ROOT}", "on")]
        if self._bounds.disk:
            drives.append(("disk", "/disk/disk", "off"))
        disks: list[str] = []
        for name, path, fixed in drives:
            disks += ["-blockdev", f"driver=file,node-name={name},filename={path},read-only={fixed}"]
            disks += ["-device", f"virtio-blk-pci,drive={name},werror=report,rerror=report{virtio}"]
        return [
            *(self._qemu, *kind, "-m", f"{self._memory >> 20}M"),
            *("-smp", str(max(1, math.ceil(self._bounds.cpus)))),
            *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-vga", "none"),
            *("-object", "main-loop,id=loop,thread-pool-max=4", "-sandbox", _SANDBOX),
            *("-kernel", f"/machine/{KERNEL}", "-initrd", f"/machine/{INITRD}"),
            *("-append", self.image.command_line, *disks),
            *("-add-fd", "fd=3,set=1", "-chardev", "file,id=console,path=/dev/fdset/1,append=on"),
            *("-serial", "chardev:console"),
            *("-chardev", "stdio,id=stream,signal=off", "-device", f"virtio-serial-pci,max_ports=2{virtio}"),
            *("-device", "virtserialport,chardev=stream,name=sealdeal"),
        ]


def best() -> Accelerator:
    """The best that this machine has."""
    if has_tdx():
        return "tdx"
    return "kvm" if os.access("/dev/kvm", os.R_OK | os.W_OK) else "tcg"


def has_tdx() -> bool:
    """Whether this machine's kernel starts trust domains."""
    try:
        return _TDX.read_text().strip() in ("Y", "1")
    except OSError:
        return False


class VmGuest:
    """A machine with a guest in it. What the guest says to its standard error is on the console, as is how it
    ended."""

    def __init__(self, process: Guest) -> None:
        self.stdin: asyncio.StreamWriter = process.stdin
        self.stdout: asyncio.StreamReader = process.stdout
        self._process = process

    async def wait(self) -> int:
        status = await self._process.wait()
        if status != 0:
            return status
        ended = self._ended
        return 1 if ended is None else ended

    @property
    def _ended(self) -> int | None:
        """The guest's own status, once the machine has told it."""
        for line in reversed(self._process.complaint.splitlines()):
            _, found, status = line.partition(ENDED)
            if found and status.isdecimal():
                return int(status)
        return None

    async def kill(self) -> None:
        await self._process.kill()

    def out_of_memory(self) -> bool:
        return self._process.out_of_memory() or _OUT_OF_MEMORY in self._process.complaint

    @property
    def complaint(self) -> str:
        return "" if self._ended == 0 else self._process.complaint
