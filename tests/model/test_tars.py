"""Tars of strangers: what could be understood in two ways is refused, all else is read as others read it."""

from __future__ import annotations

import contextlib
import io
import tarfile
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealdeal.model.errors import InvalidInput
from sealdeal.model.tars import MAX_HEADER_BYTES, Kind, members

KINDS = {
    tarfile.REGTYPE: Kind.FILE,
    tarfile.AREGTYPE: Kind.FILE,
    tarfile.CONTTYPE: Kind.FILE,
    tarfile.DIRTYPE: Kind.FOLDER,
    tarfile.SYMTYPE: Kind.SYMBOLIC_LINK,
    tarfile.LNKTYPE: Kind.HARD_LINK,
    tarfile.FIFOTYPE: Kind.SPECIAL,
    tarfile.CHRTYPE: Kind.SPECIAL,
}
Found = tuple[str, Kind, str, bytes, bool]


def header(name: str, size: int = 0, **fields: Any) -> bytes:
    """A header as it stands in a tar, whatever it says."""
    info = tarfile.TarInfo(name)
    info.size = size
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.GNU_FORMAT)


def patched(block: bytes, at: int, value: bytes) -> bytes:
    """A header with a field replaced and its checksum made right again."""
    block = block[:at] + value + block[at + len(value) :]
    total = sum(block[:148]) + 8 * 32 + sum(block[156:512])
    return block[:148] + b"%06o\0 " % total + block[156:]


def extended(kind: bytes, data: bytes) -> bytes:
    """An extended header with its content."""
    return patched(header("ext", len(data)), 156, kind) + data + bytes(-len(data) % 512)


def record(name: str, value: str) -> bytes:
    rest = f" {name}={value}\n".encode()
    length = len(rest) + 1
    while len(str(length)) + len(rest) != length:
        length += 1
    return str(length).encode() + rest


def read(data: bytes) -> list[Found]:
    found = []
    for member in members(io.BytesIO(data)):
        content = b""
        while piece := member.read(700):
            content += piece
        found.append((member.name.rstrip("/"), member.kind, member.link, content, member.executable))
    return found


END = bytes(1024)

names = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=60)
paths = st.lists(names.filter(lambda n: n not in (".", "..")), min_size=1, max_size=6).map("/".join)


@st.composite
def infos(draw: st.DrawFn) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(draw(paths))
    info.type = draw(st.sampled_from(list(KINDS)))
    info.mode = draw(st.integers(0, 0o7777))
    content = b""
    if info.type in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        info.linkname = draw(paths)
    elif KINDS[info.type] is Kind.FILE:
        content = draw(st.binary(max_size=1500))
    info.size = len(content)
    return info, content


@given(st.lists(infos(), max_size=5), st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]))
def test_it_reads_what_the_standard_library_writes(
    given_: list[tuple[tarfile.TarInfo, bytes]], form: int
) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form, encoding="utf-8") as archive:
        for info, content in given_:
            archive.addfile(info, io.BytesIO(content))
    expected = [
        (info.name, KINDS[info.type], info.linkname, content, bool(info.mode & 0o111))
        for info, content in given_
    ]
    assert read(out.getvalue()) == expected


@given(st.binary(max_size=3000))
def test_any_bytes_are_read_or_refused_by_name(data: bytes) -> None:
    with contextlib.suppress(InvalidInput):
        read(data)


@given(st.data())
def test_a_header_with_a_right_checksum_is_read_or_refused_by_name(data: st.DataObject) -> None:
    blocks = b""
    for _ in range(data.draw(st.integers(1, 4))):
        block = header(data.draw(names), data.draw(st.integers(0, 2000)))
        for _ in range(data.draw(st.integers(0, 4))):
            at = data.draw(st.sampled_from([0, 100, 124, 125, 130, 156, 156, 157, 257, 345]))
            block = patched(block, at, data.draw(st.binary(min_size=1, max_size=12)))
        blocks += block + data.draw(st.binary(max_size=1100))
    with contextlib.suppress(InvalidInput):
        read(blocks)


REFUSED = {
    "a header that was changed": header("a")[:-1] + b"x" + END,
    "content cut off": header("a", 600) + bytes(512),
    "a header cut off": header("a")[:300],
    "a size below zero": patched(header("a"), 124, b"\xff" * 12) + END,
    "a size that is no number": patched(header("a"), 124, b"9999") + END,
    "a folder with content": header("d", 10, type=tarfile.DIRTYPE) + bytes(512) + END,
    "a link with content": header("l", 512, type=tarfile.SYMTYPE, linkname="x") + header("hidden") + END,
    "a sparse file in GNU's way": patched(header("s"), 156, b"S") + END,
    "a sparse file in pax's way": extended(b"x", record("GNU.sparse.major", "1")) + header("s") + END,
    "a member of an unknown type": patched(header("v"), 156, b"V") + END,
    "a zero block in the middle": header("a") + bytes(512) + header("hidden") + END,
    "members behind the end": header("a") + END + header("hidden") + END,
    "damage in the middle": header("a") + b"x" * 512 + header("hidden") + END,
    "a path for all members": extended(b"g", record("path", "all")) + header("a") + END,
    "a size for all members": extended(b"g", record("size", "512")) + header("a") + END,
    "two pax headers": extended(b"x", b"") * 2 + header("a") + END,
    "names in two ways": extended(b"L", b"one\0") + extended(b"x", record("path", "two")) + header("a") + END,
    "a record of a wrong length": extended(b"x", b"99 path=b\n") + header("a") + END,
    "a record without a name": extended(b"x", b"6 abc\n") + header("a") + END,
    "a record of length zero": extended(b"x", b"0 path=b\n") + header("a") + END,
    "a size in a pax header below zero": extended(b"x", record("size", "-1")) + header("a") + END,
    "a zero byte in a name": extended(b"x", record("path", "a\0b")) + header("a") + END,
    "an extended header alone": extended(b"x", record("path", "a")),
    "an extended header of gigabytes": patched(header("x", 8 << 30), 156, b"x") + bytes(2048),
    "a long name of gigabytes": patched(header("x", 8 << 30), 156, b"L") + bytes(2048),
    "a file whose name ends like a folder's": patched(header("a"), 0, b"a/") + END,
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED.keys())
def test_what_could_be_understood_in_two_ways_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        read(data)


def test_no_length_makes_room_before_its_bytes_came() -> None:
    class Asked(io.BytesIO):
        most = 0

        def read(self, size: int | None = -1, /) -> bytes:
            assert size is not None
            Asked.most = max(Asked.most, size)
            return super().read(size)

    for block in (header("a", 8 << 30), patched(header("a"), 124, b"\x80" + b"\x7f" * 11)):
        with pytest.raises(InvalidInput, match="ends early"):
            for member in members(Asked(block + bytes(2048))):
                while member.read(1 << 60):
                    pass
    assert Asked.most <= MAX_HEADER_BYTES


def test_old_and_unusual_tars_are_read() -> None:
    old = patched(patched(header("d/"), 156, b"\0"), 257, bytes(8))
    assert read(old + header("f", mode=0o755)) == [  # without an end mark
        ("d", Kind.FOLDER, "", b"", False),
        ("f", Kind.FILE, "", b"", True),
    ]
    named = extended(b"g", record("comment", "x")) + extended(
        b"x", record("path", "") + record("mtime", "1.5")
    )
    assert read(named + header("kept") + END)[0][0] == "kept"
    binary = patched(header("b"), 124, b"\x80" + (3).to_bytes(11, "big"))
    assert read(binary + b"abc" + bytes(509) + END)[0][3] == b"abc"
    sized = extended(b"x", record("size", "3")) + header("p")
    assert read(sized + b"abc" + bytes(509) + END)[0][3] == b"abc"
