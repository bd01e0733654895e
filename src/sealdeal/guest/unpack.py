"""Unpack a verified image below a folder, trusting its names and links with nothing.

Every path is walked from the root's own descriptor without following a link, so that no layer can write
through a link that an earlier entry planted. Devices, FIFOs, owners, extended attributes and set-uid bits are
dropped.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sealdeal.model.errors import InvalidInput, TooLarge
from sealdeal.model.images import ImageReader, Process, Readable
from sealdeal.model.tars import Kind, Member, members

MAX_ENTRIES: Final = 500_000
"""Files and folders of one image: more would exhaust the inodes of a tmpfs before its bytes."""
MAX_DEPTH: Final = 128
"""Folders in folders: each costs a descriptor when a tree is removed."""
MAX_PATH: Final = 4096
"""Bytes of a path or of a link's target, as in the kernel."""
_OPAQUE: Final = ".wh..wh..opq"
_WHITEOUT: Final = ".wh."
_COPY: Final = 1 << 20
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def unpack_image(reader: ImageReader, root: Path) -> Process:
    """Lay the image's layers into the empty folder `root`; returns how its program starts.

    Raises IntegrityError, InvalidInput or TooLarge; `root` is then to be thrown away.
    """
    process = reader.config()
    top = os.open(root, _FOLDER)
    try:
        tree = _Tree(top)
        for content in reader.layers():
            tree.apply(content)
    finally:
        os.close(top)
    return process


@dataclass(slots=True)
class _Tree:
    """The folder that layers are laid into."""

    top: int
    entries: int = 0
    """Made so far, in all layers."""
    placed: set[str] = field(default_factory=set)
    """Paths that the present layer has laid: its own whiteouts leave them alone."""
    above: set[str] = field(default_factory=set)
    """The folders above what it has laid."""

    def apply(self, content: Readable) -> None:
        self.placed.clear()
        self.above.clear()
        for member in members(content):
            self._count()
            path = _parts(member.name)
            if not path:
                continue
            parent = self._folder(path[:-1], member.name)
            try:
                self._place(member, parent, path)
            except OSError as error:
                raise _named(error, f"{member.name!r:.200} cannot be laid there: {error}") from None
            finally:
                os.close(parent)

    def _count(self) -> None:
        self.entries += 1
        if self.entries > MAX_ENTRIES:
            raise TooLarge(f"expected at most {MAX_ENTRIES} files in an image, got more")

    def _folder(self, path: tuple[str, ...], name: str) -> int:
        """A descriptor of the folder at `path`, made where missing; a link on the way is refused."""
        here = os.dup(self.top)
        for part in path:
            try:
                try:
                    inner = os.open(part, _FOLDER, dir_fd=here)
                except FileNotFoundError:
                    self._count()
                    os.mkdir(part, 0o755, dir_fd=here)
                    inner = os.open(part, _FOLDER, dir_fd=here)
            except OSError as error:
                words = f"expected folders only on the way to {name!r:.200}, {part!r:.200} is none"
                raise _named(error, words) from None
            finally:
                os.close(here)
            here = inner
        return here

    def _place(self, member: Member, parent: int, path: tuple[str, ...]) -> None:
        name = path[-1]
        if name == _OPAQUE:
            self._hide_below(parent, "/".join(path[:-1]))
            return
        if name.startswith(_WHITEOUT):
            hidden = name.removeprefix(_WHITEOUT)
            if hidden in ("", ".", "..") or hidden.startswith(_WHITEOUT):
                raise InvalidInput(f"expected a whiteout of a name in its folder, got {member.name!r:.200}")
            self._hide(hidden, parent, "/".join((*path[:-1], hidden)))
            return
        there = _is_folder(name, parent)
        if self._laid("/".join(path)) and not (there and member.kind is Kind.FOLDER):
            raise InvalidInput(f"expected each path once in a layer, got {member.name!r:.200} again")
        self._keep(path)
        if member.kind is Kind.FOLDER:
            if not there:
                _remove(name, parent)
                os.mkdir(name, 0o755, dir_fd=parent)
            return
        if member.kind is Kind.HARD_LINK:
            self._link(member, parent, name)
            return
        _remove(name, parent)
        if member.kind is Kind.SYMBOLIC_LINK:
            os.symlink(member.link, name, dir_fd=parent)
        elif member.kind is Kind.FILE:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(name, flags, 0o600, dir_fd=parent), "wb") as out:
                while piece := member.read(_COPY):
                    out.write(piece)
                os.fchmod(out.fileno(), 0o755 if member.executable else 0o644)
        # A device or a FIFO has no place in an image: it hides what was there, and is not made.

    def _link(self, member: Member, parent: int, name: str) -> None:
        target = _parts(member.link)
        if not target:
            raise InvalidInput(f"expected a hard link inside the image, got one to {member.link!r:.200}")
        source = self._folder(target[:-1], member.link)
        try:
            status = os.stat(target[-1], dir_fd=source, follow_symlinks=False)
            if not stat.S_ISREG(status.st_mode):
                raise InvalidInput(f"expected a hard link to a file, {member.link!r:.200} is none")
            _remove(name, parent)
            os.link(target[-1], name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            raise InvalidInput(f"a hard link leads to {member.link!r:.200}, which is not there") from None
        finally:
            os.close(source)

    def _laid(self, path: str) -> bool:
        """Whether the present layer has something there, or below."""
        return path in self.placed or path in self.above

    def _keep(self, path: tuple[str, ...]) -> None:
        self.placed.add("/".join(path))
        for depth in range(len(path) - 1, 0, -1):
            if (folder := "/".join(path[:depth])) in self.above:
                break
            self.above.add(folder)

    def _hide(self, name: str, parent: int, path: str) -> None:
        """Remove what lower layers have at `path`, and leave what this layer has there."""
        if not self._laid(path):
            _remove(name, parent)
        elif _is_folder(name, parent):
            inner = os.open(name, _FOLDER, dir_fd=parent)
            try:
                self._hide_below(inner, path)
            finally:
                os.close(inner)

    def _hide_below(self, folder: int, path: str) -> None:
        for child in os.listdir(folder):
            self._hide(child, folder, f"{path}/{child}" if path else child)


def _parts(name: str) -> tuple[str, ...]:
    """The names on a path inside the image. Raises InvalidInput for a path that leaves it, or is too long."""
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if ".." in parts:
        raise InvalidInput(f"expected paths inside the image, got {name!r:.200}")
    if len(parts) > MAX_DEPTH or len(os.fsencode(name)) > MAX_PATH:
        raise InvalidInput(
            f"expected paths of at most {MAX_PATH} bytes and {MAX_DEPTH} folders, got {name!r:.200}"
        )
    return parts


def _named(error: OSError, words: str) -> InvalidInput | TooLarge:
    if error.errno == errno.ENOSPC:
        return TooLarge("the image does not fit into the guest's memory")
    return InvalidInput(words)


def _is_folder(name: str, parent: int) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _remove(name: str, parent: int) -> None:
    try:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(status.st_mode):
        shutil.rmtree(name, dir_fd=parent)
    else:
        os.unlink(name, dir_fd=parent)
