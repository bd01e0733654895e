"""Unpack a verified image below a folder, trusting its names and links with nothing.

Every path is walked from the root's own descriptor without following a link, so that no layer can write
through a link that an earlier entry planted. Devices, FIFOs, owners and set-uid bits are dropped.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tarfile
from pathlib import Path
from typing import Final

from sealdeal.model.errors import InvalidInput, TooLarge
from sealdeal.model.images import ImageReader, Process, Readable, open_tar

MAX_ENTRIES: Final = 500_000
"""Files of one image: more would exhaust the inodes of a tmpfs before its bytes."""
_OPAQUE: Final = ".wh..wh..opq"
_WHITEOUT: Final = ".wh."
_COPY: Final = 1 << 20
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def unpack_image(reader: ImageReader, root: Path) -> Process:
    """Lay the image's layers into the empty folder `root`; returns how its program starts.

    Raises IntegrityError, InvalidInput or TooLarge; `root` is then to be thrown away.
    """
    process = reader.config()
    entries = 0
    top = os.open(root, _FOLDER)
    try:
        for content in reader.layers():
            entries = _apply(content, root, top, entries)
    finally:
        os.close(top)
    return process


def _apply(content: Readable, root: Path, top: int, entries: int) -> int:
    try:
        with open_tar(content) as tar:
            for member in tar:
                entries += 1
                if entries > MAX_ENTRIES:
                    raise TooLarge(f"expected at most {MAX_ENTRIES} files in an image, got more")
                parts = [p for p in member.name.split("/") if p not in ("", ".")]
                if not parts:
                    continue
                if ".." in parts or "\0" in member.name + member.linkname:
                    raise InvalidInput(f"expected paths inside the image, got {member.name!r}")
                parent = _folder(top, parts[:-1], member.name)
                try:
                    _place(tar, member, parent, parts[-1], top)
                except OSError as error:
                    if error.errno == errno.ENOSPC:
                        raise TooLarge("the image does not fit into the guest's memory") from None
                    raise InvalidInput(f"{member.name!r} cannot be laid there: {error}") from None
                finally:
                    os.close(parent)
    except tarfile.TarError as error:
        raise InvalidInput(f"a layer of the image is no tar: {error}") from None
    return entries


def _folder(top: int, parts: list[str], name: str) -> int:
    """A descriptor of the folder at `parts`, made where missing; a link on the way is refused."""
    here = os.dup(top)
    for part in parts:
        try:
            try:
                inner = os.open(part, _FOLDER, dir_fd=here)
            except FileNotFoundError:
                os.mkdir(part, 0o755, dir_fd=here)
                inner = os.open(part, _FOLDER, dir_fd=here)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise TooLarge("the image does not fit into the guest's memory") from None
            raise InvalidInput(f"expected folders only on the way to {name!r}, {part!r} is none") from None
        finally:
            os.close(here)
        here = inner
    return here


def _remove(name: str, parent: int) -> None:
    try:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(status.st_mode):
        shutil.rmtree(name, dir_fd=parent)
    else:
        os.unlink(name, dir_fd=parent)


def _place(tar: tarfile.TarFile, member: tarfile.TarInfo, parent: int, name: str, top: int) -> None:
    if name == _OPAQUE:
        for child in os.listdir(parent):
            _remove(child, parent)
        return
    if name.startswith(_WHITEOUT):
        _remove(name.removeprefix(_WHITEOUT), parent)
        return
    if member.isdir():
        try:
            os.mkdir(name, 0o755, dir_fd=parent)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                _remove(name, parent)
                os.mkdir(name, 0o755, dir_fd=parent)
        return
    if member.issym():
        _remove(name, parent)
        os.symlink(member.linkname, name, dir_fd=parent)
    elif member.islnk():
        parts = [p for p in member.linkname.split("/") if p not in ("", ".")]
        if not parts or ".." in parts:
            raise InvalidInput(f"expected a hard link inside the image, got one to {member.linkname!r}")
        source = _folder(top, parts[:-1], member.linkname)
        try:
            status = os.stat(parts[-1], dir_fd=source, follow_symlinks=False)
            if not stat.S_ISREG(status.st_mode):
                raise InvalidInput(f"expected a hard link to a file, {member.linkname!r} is none")
            _remove(name, parent)
            os.link(parts[-1], name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            raise InvalidInput(f"a hard link leads to {member.linkname!r}, which is not there") from None
        finally:
            os.close(source)
    elif member.isreg():
        _remove(name, parent)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(name, flags, 0o600, dir_fd=parent), "wb") as out:
            content = tar.extractfile(member)
            assert content is not None
            shutil.copyfileobj(content, out, _COPY)
            os.fchmod(out.fileno(), 0o755 if member.mode & 0o111 else 0o644)
    # Anything else (devices, FIFOs) has no place in an image and is left out.
