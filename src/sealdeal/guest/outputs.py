"""Read what the app left in /iexec_out, trusting nothing of it: computed.json, the digest, the archive.

The app has ended, so the tree stands still; but every entry may be a trap. Each is opened through its
parent's descriptor without following links, and only plain files with one name count.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from sealdeal.model import results
from sealdeal.model.errors import InvalidInput, NotFound
from sealdeal.model.results import COMPUTED, OUT, PADDING_ENTRY, SEAL_ENTRY, Computed
from sealdeal.model.types import Bytes32

from .archive import Entry, bytes_entry
from .failures import AppFault, Failure
from .hello import Limits

MAX_NAME: Final = 31
"""Characters of a result file's name (wire.md §5.4)."""
MAX_DEPTH: Final = 16
MAX_COMPUTED: Final = 1 << 20
"""Bytes of computed.json; its callback data goes on chain, where far less fits."""
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PIECE: Final = 1 << 20


class Outputs:
    """The app's output folder. Raises AppFault, on opening, unless it holds plain files within limits.

    Over limits that are lower than an app may count on, it raises Failure.
    """

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._top = os.open(folder, _FOLDER)
        self._limits = limits
        self.files: dict[str, int] = {}
        """Relative path -> bytes, sorted."""
        try:
            self._walk(self._top, "", 0)
        except BaseException:
            self.close()
            raise
        self.files = dict(sorted(self.files.items()))

    def close(self) -> None:
        os.close(self._top)

    def _walk(self, folder: int, prefix: str, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise AppFault(
                "POST_COMPUTE_OUT_FOLDER_ZIP_FAILED", f"its output is nested deeper than {MAX_DEPTH} folders"
            )
        for name in os.listdir(folder):
            try:
                name.encode("utf-8")
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            except UnicodeEncodeError:
                raise AppFault(
                    "POST_COMPUTE_OUT_FOLDER_ZIP_FAILED", "an output's name is not UTF-8"
                ) from None
            if stat.S_ISDIR(status.st_mode):
                os.chmod(name, 0o700, dir_fd=folder)  # it may have locked itself out
                inner = os.open(name, _FOLDER, dir_fd=folder)
                try:
                    self._walk(inner, f"{prefix}{name}/", depth + 1)
                finally:
                    os.close(inner)
                continue
            if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
                raise AppFault(
                    "POST_COMPUTE_OUT_FOLDER_ZIP_FAILED",
                    "its output holds something else than plain files (a link, a FIFO, a socket)",
                )
            if len(name) > MAX_NAME:
                raise AppFault(
                    "POST_COMPUTE_TOO_LONG_RESULT_FILE_NAME",
                    f"an output's name has {len(name)} characters; at most {MAX_NAME} are allowed",
                )
            self.files[prefix + name] = status.st_size
            if (
                len(self.files) > self._limits.output_files
                or sum(self.files.values()) > self._limits.output_bytes
            ):
                raise (AppFault if self._limits.as_promised else Failure)(
                    "POST_COMPUTE_OUT_FOLDER_ZIP_FAILED",
                    f"its output has more than {self._limits.output_files} files or "
                    f"{self._limits.output_bytes} bytes",
                )

    def pieces(self, path: str) -> Iterator[bytes]:
        """The content of one of `files`."""
        parts = path.split("/")
        here = os.dup(self._top)
        try:
            for part in parts[:-1]:
                inner = os.open(part, _FOLDER, dir_fd=here)
                os.close(here)
                here = inner
            handle = os.open(parts[-1], _FILE, dir_fd=here)
        finally:
            os.close(here)
        with open(handle, "rb") as file:
            while piece := file.read(_PIECE):
                yield piece

    def sha256(self, path: str) -> Bytes32:
        digest = hashlib.sha256()
        for piece in self.pieces(path):
            digest.update(piece)
        return digest.digest()

    def computed(self) -> Computed:
        """The digest by the rules of wire.md §5.3. Raises AppFault."""
        said = self._read_computed()
        try:
            return results.computed(said, self.files, self.sha256)
        except InvalidInput as wrong:
            raise _faulty(str(wrong)) from None
        except NotFound as missing:
            raise AppFault("POST_COMPUTE_RESULT_DIGEST_COMPUTATION_FAILED", f"its {missing}") from None

    def _read_computed(self) -> dict[str, Any]:
        if COMPUTED not in self.files:
            raise AppFault("POST_COMPUTE_COMPUTED_FILE_NOT_FOUND", f"it wrote no {OUT}/{COMPUTED}")
        if self.files[COMPUTED] > MAX_COMPUTED:
            raise _faulty(f"it may have at most {MAX_COMPUTED} bytes")
        try:
            said = json.loads(b"".join(self.pieces(COMPUTED)))
        except (ValueError, RecursionError):
            said = None
        if not isinstance(said, dict):
            raise _faulty("it must hold a JSON object")
        return said

    def entries(self, extra: Mapping[str, bytes], *, sealed: bool = False) -> list[Entry]:
        """Everything, and `extra` where the app wrote no file of that name, for an archive.

        Raises AppFault when the digest is to be `sealed` and the app has taken a name that this needs.
        """
        if sealed and (taken := {SEAL_ENTRY, PADDING_ENTRY} & set(self.files)):
            raise AppFault(
                "POST_COMPUTE_OUT_FOLDER_ZIP_FAILED",
                f"its output has a file {taken.pop()}: that name is taken",
            )
        own = [Entry(path, size, self.pieces(path)) for path, size in self.files.items()]
        return own + [
            bytes_entry(name, data) for name, data in sorted(extra.items()) if name not in self.files
        ]


def _faulty(what: str) -> AppFault:
    return AppFault(
        "POST_COMPUTE_RESULT_DIGEST_COMPUTATION_FAILED", f"its {COMPUTED} is not as agreed: {what}"
    )
