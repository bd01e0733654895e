"""The zip that a result travels in, made piece by piece: it is never whole in memory.

The same files give the same bytes. Files that do not compress are stored inside their deflate stream, which
every reader reads. A padded archive says of its contents' size only in which step of `padded_size` it lies.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sealdeal.model.results import PADDING_ENTRY

_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip can say."""
_SAMPLE: Final = 64 << 10
_WORTH_IT: Final = 0.95
_LEAST: Final = 16 << 10
"""Bytes of the smallest padded archive: an answer of one word looks like one of a page."""
_LOCAL, _DESCRIPTOR, _CENTRAL, _END = 30, 16, 46, 22
"""Bytes of a zip's headers, without names."""
_ZEROS: Final = bytes(1 << 20)


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of an archive."""

    name: str
    size: int
    pieces: Iterable[bytes]


def bytes_entry(name: str, data: bytes) -> Entry:
    """A file that is in memory."""
    return Entry(name, len(data), (data,))


def file_pieces(path: Path, size: int = 1 << 20) -> Iterator[bytes]:
    """A file's bytes."""
    with path.open("rb") as handle:
        while piece := handle.read(size):
            yield piece


def padded_size(size: int) -> int:
    """The size to which an archive of `size` bytes is padded: Padmé's steps (Nikitin et al., 2019), at most
    an eighth more, from 16 KiB.
    """
    if size <= _LEAST:
        return _LEAST
    exponent = size.bit_length() - 1
    step = 1 << (exponent - exponent.bit_length())
    return -(-size // step) * step


def zip_pieces(entries: Iterable[Entry], *, pad: bool = False) -> Iterator[bytes]:
    """A zip of `entries`. With `pad` its last entry is PADDING_ENTRY: zeros up to `padded_size`."""
    sink, names = _Sink(), [PADDING_ENTRY]
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry in entries:
            names.append(entry.name)
            yield from _add(archive, sink, entry, zipfile.ZIP_DEFLATED)
        if pad:
            # Exact below 4 GiB, where headers have one form each; beyond, a few dozen bytes of a step off.
            told = sum(_CENTRAL + len(name.encode()) for name in names) + _END
            bare = sink.size + _LOCAL + len(PADDING_ENTRY) + _DESCRIPTOR + told
            zeros = padded_size(bare) - bare
            pieces = (_ZEROS[: zeros - start] for start in range(0, zeros, len(_ZEROS)))
            yield from _add(archive, sink, Entry(PADDING_ENTRY, zeros, pieces), zipfile.ZIP_STORED)
    yield sink.drain()


def _add(archive: zipfile.ZipFile, sink: _Sink, entry: Entry, method: int) -> Iterator[bytes]:
    info = zipfile.ZipInfo(entry.name, _EPOCH)
    info.compress_type, info.external_attr, info.file_size = method, 0o100644 << 16, entry.size
    pieces = iter(entry.pieces)
    first = next(pieces, b"")
    sample = first[:_SAMPLE]
    if len(sample) == _SAMPLE and len(zlib.compress(sample, 1)) > _WORTH_IT * _SAMPLE:
        setattr(info, "_compresslevel", 0)  # noqa: B010  (public from Python 3.13 on)
    with archive.open(info, "w") as out:
        out.write(first)
        yield sink.drain()
        for piece in pieces:
            out.write(piece)
            yield sink.drain()


class _Sink:
    """What a zip is written to: nothing can be sought in it, and what was drained is gone."""

    def __init__(self) -> None:
        self.size = 0
        self._parts: list[bytes] = []

    def write(self, data: bytes, /) -> int:
        self._parts.append(bytes(data))
        self.size += len(data)
        return len(data)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass

    def drain(self) -> bytes:
        joined = b"".join(self._parts)
        self._parts.clear()
        return joined
