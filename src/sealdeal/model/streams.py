"""Datasets as streams: the network's format, and a chunked one of ours that detects every change.

The key's text chooses the format, so that a file cannot choose its own: `sealdeal1:` and base64 is ours, bare
base64 the network's (wire.md §3.3, AES-256-CBC without integrity). Ours, by the STREAM construction (Hoang,
Reyhanitabar, Rogaway and Vizár, 2015):

    file     = header ‖ chunk ‖ … ‖ last chunk
    header   = "SDST" ‖ 0x01 ‖ log2 of a chunk's plain bytes (1 byte, 16 to 20) ‖ salt (32) ‖ prefix (7)
    file key = HKDF-SHA256(dataset key, salt, info = "sealdeal dataset 1" ‖ header)
    chunk n  = AES-256-GCM(file key, nonce = prefix ‖ n (4 bytes, big endian) ‖ 1 if it is the last else 0)

All chunks but the last are full, and the last is empty in an empty file only: a plain file has one form. A
changed header gives another key; a chunk that was changed, moved, cut or added does not open.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from . import sealing
from .errors import IntegrityError, InvalidInput, TooLarge
from .keys import Rng

KEY_PREFIX: Final = "sealdeal1:"
CHUNK_BITS: Final = 18
"""256 KiB of plain bytes in a chunk: as fast as larger ones, and little to hold in memory."""
LEAST_BITS, MOST_BITS = 16, 20
_MAGIC: Final = b"SDST\x01"
_SALT, _PREFIX, _TAG = 32, 7, 16
HEADER_BYTES: Final = len(_MAGIC) + 1 + _SALT + _PREFIX
_MAX_CHUNKS: Final = 1 << 32


class Format(StrEnum):
    """How a dataset is encrypted."""

    STANDARD = "standard"
    """The network's: everybody's tools can make and read it. Its integrity is the checksum on chain alone."""
    CHUNKED = "chunked"
    """Ours: each chunk proves itself. Tools that know the network's format only cannot open it."""


def new_key(form: Format, rng: Rng) -> str:
    """A new dataset key as it is kept: this text is the secret, and says the format."""
    text = sealing.dataset_key(rng)
    return KEY_PREFIX + text if form is Format.CHUNKED else text


def format_of(key: str) -> Format:
    """The format that a dataset key is for."""
    return Format.CHUNKED if key.strip().startswith(KEY_PREFIX) else Format.STANDARD


def encrypt(plain: Iterable[bytes], key: str, rng: Rng, *, chunk_bits: int = CHUNK_BITS) -> Iterator[bytes]:
    """The encrypted file, piece by piece, in the format that `key` is for.

    `chunk_bits`: log2 of a chunk's bytes, ours only. Raises InvalidInput for a malformed key or size,
    TooLarge for more than 2³² chunks.
    """
    if format_of(key) is Format.STANDARD:
        yield from sealing.encrypt_dataset_pieces(plain, key, rng)
        return
    if not LEAST_BITS <= chunk_bits <= MOST_BITS:
        raise InvalidInput(f"expected chunks of 2^{LEAST_BITS} to 2^{MOST_BITS} bytes, got 2^{chunk_bits}")
    raw, prefix = _raw_key(key), rng(_PREFIX)
    header = _MAGIC + bytes([chunk_bits]) + rng(_SALT) + prefix
    yield header
    cipher = _cipher(raw, header)
    for number, (block, last) in enumerate(_blocks(plain, 1 << chunk_bits)):
        yield cipher.encrypt(_nonce(prefix, number, last), block, None)


def decrypt(encrypted: Iterable[bytes], key: str) -> Iterator[bytes]:
    """The plain file, piece by piece, from the format that `key` is for.

    Ours: each piece is verified when it comes, and whether there should be more only at the end; so use none
    of it before the end. Raises IntegrityError for altered bytes or another key, InvalidInput for a malformed
    key.
    """
    if format_of(key) is Format.STANDARD:
        yield from sealing.decrypt_dataset(encrypted, key)
        return
    raw = _raw_key(key)
    header, rest = _split(encrypted, HEADER_BYTES)
    bits = header[len(_MAGIC)] if len(header) == HEADER_BYTES else 0
    if not header.startswith(_MAGIC) or not LEAST_BITS <= bits <= MOST_BITS:
        raise IntegrityError(
            "expected a dataset in Sealdeal's chunked format, as its key says; the file does not begin as one"
        )
    cipher, prefix = _cipher(raw, header), header[-_PREFIX:]
    for number, (block, last) in enumerate(_blocks(rest, (1 << bits) + _TAG)):
        if last and len(block) <= _TAG and (number or len(block) < _TAG):
            raise IntegrityError(f"expected another chunk after {number}: the dataset was cut off")
        try:
            yield cipher.decrypt(_nonce(prefix, number, last), block, None)
        except InvalidTag:
            raise IntegrityError(
                f"chunk {number} of the dataset does not open: it was altered, moved, cut off or added to, "
                "or the key is another one"
            ) from None


def _raw_key(key: str) -> bytes:
    try:
        raw = base64.b64decode(key.strip().removeprefix(KEY_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != 32:
        raise InvalidInput(f"expected a dataset key: {KEY_PREFIX} and the base64 text of 32 bytes")
    return raw


def _cipher(raw: bytes, header: bytes) -> AESGCM:
    salt = header[len(_MAGIC) + 1 :][:_SALT]
    return AESGCM(HKDF(SHA256(), 32, salt, b"sealdeal dataset 1" + header).derive(raw))


def _nonce(prefix: bytes, number: int, last: bool) -> bytes:
    if number >= _MAX_CHUNKS:
        raise TooLarge(f"expected a dataset of at most {_MAX_CHUNKS} chunks, got more")
    return prefix + number.to_bytes(4, "big") + bytes([last])


def _blocks(pieces: Iterable[bytes], size: int) -> Iterator[tuple[bytes, bool]]:
    """Blocks of `size` bytes, and whether each is the last, which may be shorter; of nothing, one empty."""
    held = bytearray()
    for piece in pieces:
        held += piece
        while len(held) > size:
            with memoryview(held) as view:
                block = bytes(view[:size])
            del held[:size]
            yield block, False
    yield bytes(held), True


def _split(pieces: Iterable[bytes], size: int) -> tuple[bytes, Iterator[bytes]]:
    """The first `size` bytes, or fewer at the end, and what follows them."""
    source, head = iter(pieces), bytearray()
    while len(head) < size and (piece := next(source, None)) is not None:
        head += piece

    def rest() -> Iterator[bytes]:
        yield bytes(head[size:])
        yield from source

    return bytes(head[:size]), rest()
