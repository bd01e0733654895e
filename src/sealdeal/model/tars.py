"""Read a tar that a stranger made, in one pass, and understand it in one way only.

Formats: POSIX.1-2017 pax (ustar and its extended headers), and GNU's long names, as builders of images write
them. Readers of tars differ in what they make of odd ones: what a scanner skips, a runtime may lay down. So
whatever could be read in two ways is refused: headers that contradict each other or that reach over several
members, content of members that have none, sparse files, damage in the middle, bytes behind the end.
Nothing is believed before it was read: no length makes room for more than `MAX_HEADER_BYTES`.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Final, Protocol

from .errors import InvalidInput

BLOCK: Final = 512
MAX_HEADER_BYTES: Final = 1 << 20
"""Of one extended header: a path has at most 4096 bytes, attributes that nobody uses here some more."""
_PIECE: Final = 1 << 20
_ZEROS: Final = bytes(BLOCK)
_DECIDING: Final = ("path", "linkpath", "size")
"""The records of an extended header that decide something here."""


class Readable(Protocol):
    """What `read(n)` can be called on: at most n bytes, none at the end."""

    def read(self, size: int, /) -> bytes: ...


class Kind(enum.Enum):
    """What a member is."""

    FILE = enum.auto()
    HARD_LINK = enum.auto()
    SYMBOLIC_LINK = enum.auto()
    FOLDER = enum.auto()
    SPECIAL = enum.auto()
    """A device or a FIFO."""


_KINDS: Final = {
    b"0": Kind.FILE,
    b"\0": Kind.FILE,
    b"7": Kind.FILE,
    b"1": Kind.HARD_LINK,
    b"2": Kind.SYMBOLIC_LINK,
    b"5": Kind.FOLDER,
    b"3": Kind.SPECIAL,
    b"4": Kind.SPECIAL,
    b"6": Kind.SPECIAL,
}


class Member:
    """One member of a tar. A file's content is read from it, before the next member is asked for."""

    def __init__(self, name: str, kind: Kind, link: str, size: int, executable: bool, source: Source) -> None:
        self.name, self.kind, self.link, self.size, self.executable = name, kind, link, size, executable
        self._left, self._padding, self._source = size, -size % BLOCK, source

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes of the content, none at its end."""
        data = self._source.exactly(min(size, self._left, _PIECE), f"the content of {self.name!r:.200}")
        self._left -= len(data)
        return data

    def skip(self) -> None:
        while self.read(_PIECE):
            pass
        self._source.exactly(self._padding, f"the padding of {self.name!r:.200}")
        self._padding = 0


class Source:
    """Reads a stream without short reads."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream

    def up_to(self, size: int) -> bytes:
        parts: list[bytes] = []
        while size and (part := self._stream.read(size)):
            parts.append(part)
            size -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def exactly(self, size: int, what: str) -> bytes:
        data = self.up_to(size)
        if len(data) != size:
            raise InvalidInput(f"the tar ends early, in {what}: {len(data)} bytes of {size} came")
        return data


def members(stream: Readable) -> Iterator[Member]:
    """The members of a tar, to its end and the stream's. Raises InvalidInput for what it does not understand.

    It may end without an end mark, as some writers leave it; then it ends behind a member.
    """
    source = Source(stream)
    while block := source.up_to(BLOCK):
        if block == _ZEROS:
            break
        member = _member(block, source)
        yield member
        member.skip()
    while rest := source.up_to(_PIECE):
        if rest.count(0) != len(rest):
            raise InvalidInput(
                "expected nothing behind the end of the tar, got more: some readers would see it"
            )


def _member(block: bytes, source: Source) -> Member:
    """The member whose first header is `block`."""
    records: dict[str, str] = {}
    seen: set[bytes] = set()
    while True:
        kind, size = _checked(block)
        if kind not in b"xgLK":
            break
        if kind in seen:
            raise InvalidInput("expected one extended header of a kind for a member of the tar, got two")
        seen.add(kind)
        if size > MAX_HEADER_BYTES:
            raise InvalidInput(
                f"expected at most {MAX_HEADER_BYTES} bytes of a tar's extended header, got {size}"
            )
        data = source.exactly(size, "an extended header")
        source.exactly(-size % BLOCK, "an extended header's padding")
        if kind == b"g":
            if found := set(_records(data)) & {*_DECIDING, "GNU.sparse"}:
                raise InvalidInput(f"expected no {sorted(found)[0]} for all members of a tar at once")
        elif kind == b"x":
            records |= _records(data)
        else:
            records["path" if kind == b"L" else "linkpath"] = _text(data.rstrip(b"\0"))
        block = source.exactly(BLOCK, "the header behind an extended one")
    if b"x" in seen and seen & {b"L", b"K"}:
        raise InvalidInput("expected a long name in pax's way or in GNU's, got both for one member of a tar")
    if "GNU.sparse" in records:
        raise InvalidInput("expected no sparse file in a tar: its content is not what the archive holds")
    if kind not in _KINDS:
        raise InvalidInput(f"expected a file, folder, link or device in a tar, got a member of type {kind!r}")
    return _made(block, _KINDS[kind], size, records, source)


def _made(block: bytes, kind: Kind, size: int, records: dict[str, str], source: Source) -> Member:
    name = _field(block, 0, 100)
    if block[257:263] == b"ustar\0" and (prefix := _field(block, 345, 155)):
        name = f"{prefix}/{name}"
    name = records.get("path", name)
    link = records.get("linkpath", _field(block, 157, 100))
    if "size" in records:
        size = _whole(records["size"])
    if kind is Kind.FILE and name.endswith("/"):
        if block[156:157] != b"\0":
            raise InvalidInput(f"expected a file's name, got {name!r:.200}")
        kind = Kind.FOLDER  # as it was written before tar knew folders
    if kind is not Kind.FILE and size:
        raise InvalidInput(f"expected no content of {name!r:.200}, which is no file; got {size} bytes")
    if "\0" in name or "\0" in link:
        raise InvalidInput(f"expected names without a zero byte, got {name!r:.200}")
    return Member(name, kind, link, size, bool(_number(block[100:108]) & 0o111), source)


def _checked(block: bytes) -> tuple[bytes, int]:
    """(type, size) of a header whose checksum is right."""
    if len(block) != BLOCK:
        raise InvalidInput(f"the tar ends early, in a header: {len(block)} bytes of {BLOCK} came")
    total = sum(block) - sum(block[148:156]) + 8 * 0x20  # the checksum itself counts as spaces
    if (said := _number(block[148:156])) != total:
        signed = total - 256 * sum(byte > 127 for byte in block[:148] + block[156:])
        if said != signed:  # as some old writers add
            raise InvalidInput("expected a header of a tar, got bytes whose checksum is another")
    return block[156:157], _number(block[124:136])


def _number(field: bytes) -> int:
    """Octal digits, or GNU's binary numbers. Raises InvalidInput, for a negative one as well."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if not all(0x30 <= digit <= 0x37 for digit in digits):
        raise InvalidInput(f"expected an octal number in a tar's header, got {field!r}")
    return int(digits or b"0", 8)


def _records(data: bytes) -> dict[str, str]:
    """The records of a pax header that decide something; the last of a name counts, an empty one is none.

    Any record about sparse files stands under `GNU.sparse`.
    """
    found: dict[str, str] = {}
    while data:
        digits, space, _ = data[:10].partition(b" ")
        if not space or not digits.isdigit() or not (len(digits) + 3 <= int(digits) <= len(data)):
            raise InvalidInput(f"expected records `length name=value` in a pax header, got {data[:40]!r}")
        record, data = data[len(digits) + 1 : int(digits)], data[int(digits) :]
        name, equals, value = record.partition(b"=")
        if not equals or not value.endswith(b"\n"):
            raise InvalidInput(f"expected records `length name=value` in a pax header, got {record[:40]!r}")
        if name.startswith(b"GNU.sparse"):
            found["GNU.sparse"] = "yes"
        elif (key := _text(name)) in _DECIDING:
            found[key] = _text(value[:-1])
    return {name: value for name, value in found.items() if value}


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 19:
        raise InvalidInput(f"expected a size in a pax header, got {text!r:.40}")
    return int(text)


def _field(block: bytes, start: int, length: int) -> str:
    return _text(block[start : start + length].partition(b"\0")[0])


def _text(data: bytes) -> str:
    """A name as Python's file functions take it, whatever its bytes are."""
    return data.decode("utf-8", "surrogateescape")
