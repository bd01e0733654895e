"""What a guest's machine starts from: kernel, command line, initrd and root disk, built from a guest release.

The same release, kernel and programs give the same bytes, so that whoever writes a policy can build them too
and compare. Sizes of a machine are in none of them.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from sealdeal.model.errors import Unavailable
from sealdeal.sdk import interpreter as pythons
from sealdeal.sdk.guest_release import COMMAND, GuestRelease
from sealdeal.sdk.images import settle

from ..sandbox import SYSTEM_PATH
from . import initrd
from .disks import BLOCK, write_erofs, write_verity
from .initrd import Device, Entry, Program

MACHINES: Final = "machines"
"""The folder of images in a cache."""
KERNEL, INITRD, ROOT, COMMAND_LINE = "vmlinuz", "initrd", "root", "cmdline"
_INIT: Final = Path(__file__).with_name("init")
_PROGRAMS: Final = {"dmsetup": "dmsetup", "mkfs.ext4": "e2fsprogs"}
"""Programs of the initrd beside busybox, and Debian's packages of them."""
_OPTIONS: Final = (
    "console=ttyS0 quiet loglevel=4 panic=-1 oops=panic lockdown=confidentiality random.trust_cpu=on"
)


@dataclass(frozen=True, slots=True)
class Parts:
    """What comes from the distribution."""

    kernel: Path
    modules: Path
    """…/lib/modules/VERSION of that kernel."""
    busybox: Path
    """A static one."""

    @classmethod
    def below(cls, root: Path = Path("/"), busybox: Path = Path("/bin/busybox")) -> Self:
        """The newest kernel below `root`. Raises Unavailable when there is none that has its modules."""
        for kernel in sorted((root / "boot").glob("vmlinuz-*"), reverse=True):
            modules = root / "lib/modules" / kernel.name.removeprefix("vmlinuz-")
            if modules.is_dir():
                return cls(kernel, modules, busybox)
        raise Unavailable(
            f"virtual machines need a kernel: expected {root / 'boot'}/vmlinuz-VERSION and its modules in "
            f"{root / 'lib/modules'} (apt install linux-image-cloud-amd64)"
        )


@dataclass(frozen=True, slots=True)
class MachineImage:
    """A folder with the files that a machine starts from."""

    folder: Path
    command_line: str

    @property
    def kernel(self) -> bytes:
        return (self.folder / KERNEL).read_bytes()

    @property
    def initrd(self) -> bytes:
        return (self.folder / INITRD).read_bytes()


def build(release: GuestRelease, parts: Parts, cache: Path) -> MachineImage:
    """The machine of this release, made in `cache` unless it is there.

    Raises Unavailable when a part is missing.
    """
    try:
        kernel = parts.kernel.read_bytes()
        first = initrd.archive(_entries(parts))
    except OSError as error:
        raise Unavailable(f"virtual machines need {error.filename}, which cannot be read: {error}") from None
    identity = hashlib.sha256(b"machine 1")
    for part in (kernel, first, release.digest):
        identity.update(hashlib.sha256(part).digest())
    home = cache / identity.hexdigest()
    if not home.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=cache))
        try:
            (fresh / KERNEL).write_bytes(kernel)
            (fresh / INITRD).write_bytes(first)
            (fresh / COMMAND_LINE).write_text(f"{_OPTIONS} sealdeal.root={_root(release, fresh / ROOT)}")
            fresh.chmod(0o755)
            for file in fresh.iterdir():
                file.chmod(0o644)
            settle(fresh, home)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return MachineImage(home, (home / COMMAND_LINE).read_text())


def _root(release: GuestRelease, place: Path) -> str:
    """Write the root disk; returns what opens it: hash, salt and number of blocks."""
    salt = release.digest
    with place.open("w+b") as disk:
        blocks = write_erofs(release.rootfs, disk)
        tree = place.with_suffix(".tree")
        with tree.open("w+b") as file:
            root = write_verity(disk, blocks, salt, file)
            disk.seek(blocks * BLOCK)
            file.seek(0)
            shutil.copyfileobj(file, disk)
        tree.unlink()
    return f"{root.hex()},{salt.hex()},{blocks}"


def _entries(parts: Parts) -> dict[str, Entry]:
    entries: dict[str, Entry] = dict.fromkeys(("dev", "proc", "sys", "root", "run"))
    entries["dev/console"] = Device(5, 1)
    entries["init"] = Program(_INIT.read_bytes())
    entries["command"] = " ".join(_boot_command()).encode()
    busybox = pythons.read_elf(parts.busybox) if parts.busybox.exists() else None
    if busybox is None or busybox.loader:
        raise Unavailable(
            f"virtual machines need a busybox that is linked statically at {parts.busybox}: "
            "install it (apt install busybox-static)"
        )
    entries["bin/busybox"] = Program(parts.busybox.read_bytes())
    found: list[Path] = []
    for name, package in _PROGRAMS.items():
        if (path := shutil.which(name, path=SYSTEM_PATH)) is None:
            raise Unavailable(f"virtual machines need {name}: install it (apt install {package})")
        found.append(Path(path).resolve())
        entries[f"bin/{name}"] = Program(found[-1].read_bytes())
    for place, library in pythons.libraries(found, pythons.inspect(sys.executable)).items():
        entries[place] = Program(library.read_bytes())
    for number, module in enumerate(initrd.modules(parts.modules)):
        entries[f"modules/{number:02}"] = module
    return entries


def _boot_command() -> tuple[str, ...]:
    """The second program of the machine: `sealdeal.guest.boot`, told how to start the guest."""
    python, *options, home, _work = COMMAND
    return (python, *options, f"{home}/sealdeal/guest/boot.py", *COMMAND)
