"""The zip of a result, made in pieces: deterministic, readable by everyone, and padded when asked."""

from __future__ import annotations

import io
import random
import zipfile
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealdeal.guest.archive import Entry, bytes_entry, padded_size, zip_pieces
from sealdeal.model.results import PADDING_ENTRY, unzip_result


def made(files: dict[str, bytes], *, pad: bool = False) -> bytes:
    return b"".join(zip_pieces([bytes_entry(name, data) for name, data in files.items()], pad=pad))


FILES = {"a.txt": b"a" * 100_000, "folder/é": random.Random(1).randbytes(200_000), "empty": b""}


def test_what_goes_in_comes_out_and_the_same_bytes_each_time() -> None:
    archive = made(FILES)
    assert unzip_result(archive) == FILES
    assert made(FILES) == archive
    assert zipfile.ZipFile(io.BytesIO(archive)).testzip() is None
    assert len(archive) < 202_000  # what repeats is compressed, noise is not made longer


def test_an_entry_is_read_while_the_zip_is_made() -> None:
    """No more than a piece is held: the archive's first bytes come before the entry's last are read."""
    read: list[int] = []

    def content() -> Iterator[bytes]:
        for number in range(8):
            read.append(number)
            yield random.Random(number).randbytes(1 << 20)

    pieces = zip_pieces([Entry("large", 8 << 20, content())])
    largest = 0
    for piece in pieces:
        largest = max(largest, len(piece))
        if read[-1] == 3:
            break
    assert largest < 3 << 20 and read == [0, 1, 2, 3]


def test_an_entry_beyond_2_gib_is_announced_as_such() -> None:
    """The header is written before the content: it must have room for what is said to come."""
    head = next(zip_pieces([Entry("large", 5 << 30, iter([b"x"]))]))
    assert head[:4] == b"PK\x03\x04" and int.from_bytes(head[4:6], "little") >= 45  # version needed: zip64


@given(st.integers(0, 1 << 40))
def test_steps_of_padding(size: int) -> None:
    step = padded_size(size)
    assert size <= step <= max(16 << 10, size + size // 8)
    assert padded_size(step) == step


@pytest.mark.parametrize("size", [0, 1, 5_000, 100_000, 3_000_000])
def test_a_padded_archive_has_the_size_of_a_step(size: int) -> None:
    files = {"result": random.Random(size).randbytes(size), "stdout.txt": b"said"}
    archive = made(files, pad=True)
    assert len(archive) == padded_size(len(archive)) <= max(16 << 10, len(made(files)) * 9 // 8 + 300)
    found = unzip_result(archive)
    assert not any(found.pop(PADDING_ENTRY)) and found == files
    longer = {**files, "result": files["result"] + b"!"}
    if size < 5_000:
        assert len(made(longer, pad=True)) == len(archive)
