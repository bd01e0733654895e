"""What runs in a guest's machine before its root disk is open: a few programs, kernel modules and `init`.

Written as a cpio archive in the kernel's "newc" form (documentation: buffer-format.rst), without times or
owners, so that the same files give the same bytes.
"""

from __future__ import annotations

import gzip
import lzma
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sealdeal.model.errors import Unavailable

MODULES: Final = (
    "virtio_pci", "virtio_blk", "virtio_console", "erofs", "dm-verity",
    "dm-crypt", "dm-integrity", "gcm", "ctr", "ghash-generic",
)  # fmt: skip
"""What a machine cannot do without, where its kernel has it as a module."""
WELCOME: Final = ("sha256-ssse3", "aesni-intel", "ghash-clmulni-intel", "configfs", "tsm", "tdx-guest")
"""Taken along where the kernel has them: faster ciphers, and evidence from hardware."""
_SUFFIXES: Final = ("", ".xz")
_DEPENDS: Final = re.compile(rb"\0depends=([^\0]*)\0")


@dataclass(frozen=True, slots=True)
class Device:
    """A character device."""

    major: int
    minor: int


@dataclass(frozen=True, slots=True)
class Program:
    """A file that may be run."""

    content: bytes


Entry = bytes | Program | Device | None
"""A file's content, or a program, a device, or a folder."""


def archive(entries: Mapping[str, Entry]) -> bytes:
    """The entries by path, compressed. Folders above them are made."""
    whole: dict[str, Entry] = {}
    for path in entries:
        for above in reversed(Path(path).parents):
            whole.setdefault(str(above), None)
    whole |= entries
    whole.pop(".", None)
    parts = [_member(number, path, whole[path]) for number, path in enumerate(sorted(whole), 1)]
    parts.append(_member(0, "TRAILER!!!", b""))
    return gzip.compress(b"".join(parts), 6, mtime=0)


def _member(number: int, path: str, entry: Entry) -> bytes:
    content, device = b"", Device(0, 0)
    match entry:
        case None:
            mode = stat.S_IFDIR | 0o755
        case Device():
            mode, device = stat.S_IFCHR | 0o600, entry
        case Program():
            mode, content = stat.S_IFREG | 0o755, entry.content
        case _:
            mode, content = stat.S_IFREG | 0o644, entry
    name = path.encode() + b"\0"
    # number, mode, uid, gid, links, time, size, device of the file system (2), own device (2), name, checksum
    numbers = (
        *(number, mode, 0, 0, 1, 0, len(content), 0, 0),
        *(device.major, device.minor, len(name), 0),
    )
    head = b"070701" + b"".join(b"%08x" % value for value in numbers) + name
    return _four(head) + _four(content)


def _four(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def modules(folder: Path, wanted: Iterable[str] = MODULES, welcome: Iterable[str] = WELCOME) -> list[bytes]:
    """Modules of the kernel whose files are at `folder` (…/lib/modules/VERSION), each after those it needs.

    Raises Unavailable when one that is wanted is neither a module of this kernel nor built into it.
    """
    files: dict[str, Path] = {}
    for suffix in _SUFFIXES:
        for file in sorted((folder / "kernel").rglob(f"*.ko{suffix}")):
            files[_plain(file.name.removesuffix(suffix).removesuffix(".ko"))] = file
    listed = folder / "modules.builtin"
    built_in = {_plain(Path(line).stem) for line in listed.read_text().split()} if listed.exists() else set()
    found: dict[str, bytes] = {}

    def take(name: str) -> None:
        if name in found or name in built_in:
            return
        if name not in files:
            raise Unavailable(
                f"the kernel with modules at {folder} has none called {name}: use another kernel"
            )
        content = files[name].read_bytes()
        if files[name].suffix == ".xz":
            content = lzma.decompress(content)
        depends = _DEPENDS.search(content)
        for needed in depends[1].decode().split(",") if depends and depends[1] else ():
            take(_plain(needed))
        found[name] = content

    for name in wanted:
        take(_plain(name))
    for name in welcome:
        if _plain(name) in files:
            take(_plain(name))
    return list(found.values())


def _plain(name: str) -> str:
    return name.replace("-", "_")
