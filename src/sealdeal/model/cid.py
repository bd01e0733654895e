"""Content identifiers, equal to those of IPFS's default importer, and the multiaddrs that carry them.

UnixFS files: chunks of 256 KiB, a balanced DAG of width 174, dag-pb nodes, sha2-256. CIDv0 wraps each
leaf in a UnixFS node; CIDv1 keeps leaves raw. Directories are one dag-pb node, without sharding. Formats: https://docs.ipfs.tech/concepts/content-addressing
and the UnixFS and multiformats specifications.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping

from .errors import InvalidInput

CHUNK, WIDTH = 262_144, 174
_DAG_PB, _RAW = 0x70, 0x55
_P2P = 421
_DIRECTORY = b"\x08\x01"  # UnixFS: Type = Directory
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

Node = tuple[bytes, int, int]
"""(binary CID, bytes of the DAG below, bytes of file data below)."""


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def _read_varint(data: bytes) -> tuple[int, bytes]:
    number = 0
    for i, byte in enumerate(data[:9]):
        number |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            return number, data[i + 1 :]
    raise InvalidInput("expected a varint, got bytes that never end one")


def _field(number: int, value: bytes | int) -> bytes:
    """One protobuf field: bytes are length-delimited, integers are varints."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _cid(codec: int, block: bytes, version: int) -> bytes:
    digest = b"\x12\x20" + hashlib.sha256(block).digest()
    return digest if version == 0 else _varint(1) + _varint(codec) + digest


def _leaf(chunk: bytes, version: int) -> Node:
    if version == 1:
        return _cid(_RAW, chunk, 1), len(chunk), len(chunk)
    unixfs = _field(1, 2) + (_field(2, chunk) if chunk else b"") + _field(3, len(chunk))
    block = _field(1, unixfs)
    return _cid(_DAG_PB, block, 0), len(block), len(chunk)


def _parent(children: list[Node], version: int) -> Node:
    links = b"".join(_field(2, _field(1, c) + _field(2, b"") + _field(3, total)) for c, total, _ in children)
    size = sum(data for _, _, data in children)
    unixfs = _field(1, 2) + _field(3, size) + b"".join(_field(4, data) for _, _, data in children)
    block = links + _field(1, unixfs)
    return _cid(_DAG_PB, block, version), len(block) + sum(total for _, total, _ in children), size


class CidHasher:
    """Feeds on a file piece by piece; `cid()` is its content identifier. Keeps one chunk in memory, and of
    each level of the tree what has no parent yet."""

    def __init__(self, version: int = 0) -> None:
        self.version = version
        self._rest = bytearray()
        self._levels: list[list[Node]] = [[]]

    def update(self, data: bytes) -> None:
        self._rest += data
        whole = len(self._rest) - len(self._rest) % CHUNK
        for start in range(0, whole, CHUNK):
            self._add(_leaf(bytes(self._rest[start : start + CHUNK]), self.version))
        del self._rest[:whole]

    def _add(self, node: Node) -> None:
        for height, level in enumerate(self._levels):
            level.append(node)
            if len(level) < WIDTH:
                return
            node = _parent(level, self.version)
            level.clear()
            if height + 1 == len(self._levels):
                self._levels.append([])

    def cid(self) -> str:
        levels = [list(level) for level in self._levels]
        if self._rest or not any(levels):
            levels[0].append(_leaf(bytes(self._rest), self.version))
        for height, level in enumerate(levels):
            if len(level) == 1 and not any(levels[height + 1 :]):
                return _text(level[0][0])
            if level:
                if height + 1 == len(levels):
                    levels.append([])
                levels[height + 1].append(_parent(level, self.version))
        raise AssertionError("a tree without a root")


def cid_of(data: bytes | Iterable[bytes], version: int = 0) -> str:
    """The CID of a file's bytes, or of its pieces in order. Version 0 is what on-chain links expect."""
    hasher = CidHasher(version)
    for piece in [data] if isinstance(data, bytes) else data:
        hasher.update(piece)
    return hasher.cid()


def dag_size(size: int) -> int:
    """Bytes of all blocks of a file of `size` bytes (version 0): what links to it state."""
    whole, rest = divmod(size, CHUNK)  # sizes depend on no content
    level = [_leaf(bytes(CHUNK), 0)] * whole + ([_leaf(bytes(rest), 0)] if rest or not whole else [])
    while len(level) > 1:
        level = [_parent(level[i : i + WIDTH], 0) for i in range(0, len(level), WIDTH)]
    return level[0][1]


def directory_block(entries: Mapping[str, tuple[str, int]]) -> bytes:
    """The block of a directory: name -> (CID, bytes of all blocks below it)."""
    links = (
        _field(2, _field(1, parse_cid(cid)) + _field(2, name) + _field(3, size))
        for name, (cid, size) in sorted((name.encode(), entry) for name, entry in entries.items())
    )
    return b"".join(links) + _field(1, _DIRECTORY)


def block_cid(block: bytes, version: int = 0) -> str:
    """The CID of one dag-pb block."""
    return _text(_cid(_DAG_PB, block, version))


def directory_links(block: bytes) -> dict[str, str]:
    """Name -> CID of what a directory's block holds. Raises InvalidInput when it is no such block."""
    links, data = {}, b""
    for number, value in _fields(block):
        if number == 1 and isinstance(value, bytes):
            data = value
        elif number == 2 and isinstance(value, bytes):
            link = dict(_fields(value))
            raw, name = link.get(1), link.get(2)
            if not isinstance(raw, bytes) or not isinstance(name, bytes):
                raise InvalidInput("expected a directory, got a node whose links have no name")
            cid = _text(raw)
            parse_cid(cid)
            try:
                links[name.decode()] = cid
            except UnicodeDecodeError:
                raise InvalidInput("expected names in UTF-8 in a directory") from None
    if data != _DIRECTORY:
        raise InvalidInput("expected the dag-pb block of a UnixFS directory, got something else")
    return links


def _fields(message: bytes) -> Iterator[tuple[int, bytes | int]]:
    """The fields of a protobuf message that has varints and length-delimited ones only."""
    while message:
        key, message = _read_varint(message)
        number, message = _read_varint(message)
        if key & 7 == 0:
            yield key >> 3, number
        elif key & 7 == 2 and number <= len(message):
            yield key >> 3, message[:number]
            message = message[number:]
        else:
            raise InvalidInput("expected a dag-pb block, got something else")


def _text(raw: bytes) -> str:
    if raw[:1] == b"\x01":
        return "b" + base64.b32encode(raw).decode().lower().rstrip("=")
    return _base58(raw)


def _base58(raw: bytes) -> str:
    number, out = int.from_bytes(raw, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        out = _BASE58[digit] + out
    return "1" * (len(raw) - len(raw.lstrip(b"\0"))) + out


def _unbase58(text: str) -> bytes:
    number = 0
    for letter in text:
        number = number * 58 + _BASE58.index(letter)
    body = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return bytes(len(text) - len(text.lstrip("1"))) + body


def parse_cid(text: str) -> bytes:
    """The binary form of a CID (version 0, or version 1 in base32) with a sha2-256 digest.

    Raises InvalidInput for anything else.
    """
    try:
        if len(text) == 46 and text.startswith("Qm"):
            raw = _unbase58(text)
            if len(raw) == 34 and raw[:2] == b"\x12\x20":
                return raw
        elif text.startswith("b") and len(text) < 100:
            body = text[1:].upper()
            raw = base64.b32decode(body + "=" * (-len(body) % 8))
            if len(raw) == 36 and raw[:1] == b"\x01" and raw[2:4] == b"\x12\x20":
                return raw
    except ValueError:
        pass
    raise InvalidInput(f"expected a CID (Qm… or b…, sha2-256), got {text[:100]!r}")


def cid_version(text: str) -> int:
    """0 or 1. Raises InvalidInput when `text` is no CID."""
    return 1 if parse_cid(text)[:1] == b"\x01" else 0


def multiaddr_bytes(text: str) -> bytes:
    """What goes on chain for a dataset: `/ipfs/CID` in binary, other text as UTF-8 (wire.md §3.3)."""
    for prefix in ("/ipfs/", "/p2p/"):
        if text.startswith(prefix):
            raw = parse_cid(text[len(prefix) :])
            return _varint(_P2P) + _varint(len(raw)) + raw
    return text.encode()


def multiaddr_text(data: bytes) -> str:
    """The opposite: `/ipfs/CID`, or the text as it stands. Raises InvalidInput for undecodable bytes."""
    if data[:2] == _varint(_P2P):
        length, raw = _read_varint(data[2:])
        if length == len(raw):
            return f"/ipfs/{_text(raw)}"
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise InvalidInput(f"expected a multiaddr or UTF-8 text, got 0x{data[:40].hex()}") from None


def cid_in(location: str) -> str:
    """The CID in `/ipfs/CID` or `/p2p/CID`. Raises InvalidInput for another location."""
    for prefix in ("/ipfs/", "/p2p/"):
        if location.startswith(prefix):
            parse_cid(location[len(prefix) :])
            return location[len(prefix) :]
    raise InvalidInput(f"expected a location /ipfs/CID, got {location[:100]!r}")


def path_in(location: str) -> tuple[str, str]:
    """(CID, name in that directory) in `/ipfs/CID/NAME`; the name is empty in `/ipfs/CID`.

    Raises InvalidInput for another location.
    """
    found = re.fullmatch(r"(/ipfs/[^/]+)/([^/]+)", location)
    return (cid_in(found[1]), found[2]) if found else (cid_in(location), "")


def pieces(data: bytes, size: int = CHUNK) -> Iterator[bytes]:
    """`data` in pieces of `size` bytes."""
    return (data[i : i + size] for i in range(0, len(data), size))
