"""The root disk of a guest's machine: a folder as an EROFS file system, and the dm-verity tree over it.

Both are written here, byte for byte the same for the same folder, so that anybody can compute the root hash
that a guest release must have. EROFS: linux/fs/erofs/erofs_fs.h, compact inodes with plain data, no
compression. dm-verity: version 1, SHA-256, blocks of 4096 bytes (kernel documentation, verity.rst).
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from sealdeal.model.errors import InvalidInput

BLOCK: Final = 4096
_MAGIC: Final = 0xE0F5E1E2
_SUPER_OFFSET: Final = 1024
_INODE: Final = 32
_DIRENT: Final = 12
_META_BLOCK: Final = 1
"""Inodes begin there, so that the number of an inode is its place in units of 32 bytes."""
_FILE, _FOLDER, _LINK = 1, 2, 7
_COPY: Final = 1 << 20


@dataclass(slots=True)
class _Node:
    """A file, folder or symbolic link."""

    path: Path
    kind: int
    mode: int
    number: int
    parent: int
    """Number of its folder; the root's is its own."""
    size: int
    """Bytes of its content: of a file, a link's target, or a folder's entries."""
    data: bytes = b""
    """Content, but of files."""
    children: list[tuple[bytes, _Node]] = field(default_factory=list)
    block: int = 0
    """Where its content begins."""


def write_erofs(folder: Path, out: BinaryIO) -> int:
    """Write `folder` as a file system; returns its number of blocks. Everything belongs to root in it.

    Owners and times are left out. Raises InvalidInput for what is no file, folder or symbolic link.
    """
    nodes = list(_walk(folder))
    for node in nodes:
        if node.kind == _FOLDER:
            node.data = _entries(node)
            node.size = len(node.data)
    end = _META_BLOCK + _blocks(len(nodes) * _INODE)
    for node in nodes:
        node.block, end = end, end + _blocks(node.size)
    start = out.tell()
    out.write(bytes(_SUPER_OFFSET) + _super(len(nodes), end))
    _pad(out, start)
    for node in nodes:
        out.write(_inode(node))
    _pad(out, start)
    for node in nodes:
        _write_content(node, out)
        _pad(out, start)
    return end


def _walk(folder: Path) -> Iterator[_Node]:
    """Every node, the root first, in the order of their names."""
    found = [_node(folder, 0, 0)]
    if found[0].kind != _FOLDER:
        raise InvalidInput(f"expected a folder to make a disk of, got {folder}")
    count, place = 1, 0
    while place < len(found):
        node = found[place]
        place += 1
        yield node
        if node.kind == _FOLDER:
            for name in sorted(os.listdir(os.fsencode(node.path))):
                child = _node(node.path / os.fsdecode(name), count, node.number)
                count += 1
                node.children.append((name, child))
                found.append(child)


def _node(path: Path, number: int, parent: int) -> _Node:
    about = path.lstat()
    mode = stat.S_IMODE(about.st_mode) & 0o755
    if stat.S_ISDIR(about.st_mode):
        return _Node(path, _FOLDER, stat.S_IFDIR | 0o755, number, parent, 0)
    if stat.S_ISREG(about.st_mode):
        return _Node(path, _FILE, stat.S_IFREG | mode, number, parent, about.st_size)
    if stat.S_ISLNK(about.st_mode):
        target = os.fsencode(path.readlink())
        return _Node(path, _LINK, stat.S_IFLNK | 0o777, number, parent, len(target), target)
    raise InvalidInput(f"expected files, folders and symbolic links on a disk, got {path}")


def _entries(folder: _Node) -> bytes:
    """A folder's content: blocks of entries sorted by name, in each the fixed parts before the names."""
    listed = [(b".", folder.number, _FOLDER), (b"..", folder.parent, _FOLDER)]
    listed += [(name, child.number, child.kind) for name, child in folder.children]
    blocks: list[bytes] = []
    rest = sorted(listed)
    while rest:
        taken, room = 0, BLOCK
        while taken < len(rest) and _DIRENT + len(rest[taken][0]) <= room:
            room -= _DIRENT + len(rest[taken][0])
            taken += 1
        fixed, names = b"", b""
        for name, number, kind in rest[:taken]:
            fixed += struct.pack("<QHBx", number, taken * _DIRENT + len(names), kind)
            names += name
        blocks.append(fixed + names)
        rest = rest[taken:]
    return b"".join(block.ljust(BLOCK, b"\0") for block in blocks[:-1]) + blocks[-1]


def _super(inodes: int, blocks: int) -> bytes:
    head = struct.pack("<IIIBBHQQIIII", _MAGIC, 0, 0, 12, 0, 0, inodes, 0, 0, blocks, _META_BLOCK, 0)
    return (head + bytes(16) + b"sealdeal".ljust(16, b"\0")).ljust(128, b"\0")


def _inode(node: _Node) -> bytes:
    links = 2 + sum(child.kind == _FOLDER for _, child in node.children) if node.kind == _FOLDER else 1
    if node.size >= 1 << 32 or links >= 1 << 16:
        raise InvalidInput(f"expected files below 4 GiB and folders below 65,536, got more at {node.path}")
    return struct.pack(
        "<HHHHIIIIHHI", 0, 0, node.mode, links, node.size, 0, node.block, node.number + 1, 0, 0, 0
    )


def _write_content(node: _Node, out: BinaryIO) -> None:
    if node.kind != _FILE:
        out.write(node.data)
        return
    left = node.size
    with node.path.open("rb") as file:
        while piece := file.read(_COPY):
            left -= len(piece)
            out.write(piece)
    if left:
        raise InvalidInput(f"{node.path} changed while a disk was made of it")


def _blocks(size: int) -> int:
    return -(-size // BLOCK)


def _pad(out: BinaryIO, start: int) -> None:
    out.write(bytes(-(out.tell() - start) % BLOCK))


def write_verity(data: BinaryIO, blocks: int, salt: bytes, out: BinaryIO) -> bytes:
    """Write the hash tree over the first `blocks` blocks of `data`; returns the root hash.

    The tree has no header of its own: whoever opens it knows blocks, salt and root.
    """
    data.seek(0)
    hashes = bytearray()
    for _ in range(blocks):
        hashes += _hash(salt, data.read(BLOCK))
    levels = [_filled(hashes)]
    while len(levels[-1]) > BLOCK:
        below = levels[-1]
        above = b"".join(_hash(salt, below[at : at + BLOCK]) for at in range(0, len(below), BLOCK))
        levels.append(_filled(above))
    for level in reversed(levels):
        out.write(level)
    return _hash(salt, levels[-1])


def _hash(salt: bytes, block: bytes) -> bytes:
    if len(block) != BLOCK:
        raise InvalidInput(f"expected whole blocks of {BLOCK} bytes, got one of {len(block)}")
    return hashlib.sha256(salt + block).digest()


def _filled(hashes: bytes | bytearray) -> bytes:
    return bytes(hashes) + bytes(-len(hashes) % BLOCK)
