"""Look for what should not be there: in files, also inside archives, and however it is written."""

from __future__ import annotations

import base64
import gzip
import io
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path


def places_of(folder: Path, markers: Iterable[bytes]) -> set[str]:
    """The files below a folder (relative paths) that hold any of the markers."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(files) > 20, "there is something to search"
    wanted = list(markers)
    return {
        str(path.relative_to(folder))
        for path in files
        if any(holds(path.read_bytes(), marker) for marker in wanted)
    }


def forms(marker: bytes) -> Iterator[bytes]:
    """A marker as it might be written: raw, in hexadecimal, and in base64 at each alignment."""
    yield marker
    yield marker.hex().encode()
    for shift in range(3):
        coded = base64.b64encode(bytes(shift) + marker)
        yield coded[4 * (shift > 0) : len(coded) // 4 * 4 - 4]


def holds(data: bytes, marker: bytes) -> bool:
    """Whether bytes hold a marker, also inside gzip and zip."""
    if any(form in data for form in forms(marker)):
        return True
    if data[:2] == b"\x1f\x8b":
        return holds(gzip.decompress(data), marker)
    if zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return any(holds(archive.read(name), marker) for name in archive.namelist())
    return False
