"""The chunked format of datasets: what opens is what was written, all of it and in order."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from sealdeal.model import sealing, streams
from sealdeal.model.errors import IntegrityError, InvalidInput
from sealdeal.model.streams import HEADER_BYTES, Format, decrypt, encrypt, format_of, new_key

CHUNK = 1 << 16
KEY = "sealdeal1:" + base64.b64encode(b"k" * 32).decode()
OTHER = "sealdeal1:" + base64.b64encode(b"o" * 32).decode()


def zeros(size: int) -> bytes:
    return bytes(size)


def sealed(plain: bytes, key: str = KEY) -> bytes:
    return b"".join(encrypt([plain], key, zeros, chunk_bits=16))


def opened(data: bytes, key: str = KEY) -> bytes:
    return b"".join(decrypt([data], key))


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 5])
def test_what_was_written_is_read_whatever_the_pieces(size: int) -> None:
    plain = bytes(i % 251 for i in range(size))
    made = sealed(plain)
    chunks = max(1, -(-size // CHUNK))
    assert len(made) == HEADER_BYTES + size + 16 * chunks
    assert opened(made) == plain
    pieces = [made[i : i + 1000] for i in range(0, len(made), 1000)]
    assert b"".join(decrypt(pieces, KEY)) == plain
    assert b"".join(encrypt([plain[:7], b"", plain[7:]], KEY, zeros, chunk_bits=16)) == made


def test_the_format_is_as_documented() -> None:
    plain = b"a" * CHUNK + b"b"
    made = b"".join(encrypt([plain], KEY, lambda size: bytes(range(size)), chunk_bits=16))
    header = b"SDST\x01\x10" + bytes(range(32)) + bytes(range(7))
    file_key = HKDF(SHA256(), 32, bytes(range(32)), b"sealdeal dataset 1" + header).derive(b"k" * 32)
    first = AESGCM(file_key).encrypt(bytes(range(7)) + b"\0\0\0\0" + b"\0", b"a" * CHUNK, None)
    last = AESGCM(file_key).encrypt(bytes(range(7)) + b"\0\0\0\1" + b"\1", b"b", None)
    assert made == header + first + last


def test_the_key_chooses_the_format_and_not_the_file() -> None:
    chunked, standard = (
        new_key(form, lambda size: b"k" * size) for form in (Format.CHUNKED, Format.STANDARD)
    )
    assert (chunked, standard) == (KEY, KEY.removeprefix("sealdeal1:"))
    assert (format_of(chunked), format_of(standard)) == (Format.CHUNKED, Format.STANDARD)
    classic = sealing.encrypt_dataset(b"data", standard, zeros)
    assert b"".join(decrypt([classic], standard)) == b"data"
    assert b"".join(encrypt([b"data"], standard, zeros)) == classic
    with pytest.raises(IntegrityError, match="does not begin as one"):
        opened(classic)
    with pytest.raises(IntegrityError):
        b"".join(decrypt([sealed(b"data")], standard))


ALTERED: dict[str, Callable[[bytes], bytes]] = {
    "no bytes": lambda made: b"",
    "half a header": lambda made: made[:20],
    "the header alone": lambda made: made[:HEADER_BYTES],
    "another magic": lambda made: b"X" + made[1:],
    "another chunk size": lambda made: made[:5] + b"\x11" + made[6:],
    "a chunk size out of bounds": lambda made: made[:5] + b"\xff" + made[6:],
    "another salt": lambda made: made[:6] + b"\1" + made[7:],
    "another prefix": lambda made: made[: HEADER_BYTES - 1] + b"\1" + made[HEADER_BYTES:],
    "a flipped bit": lambda made: made[:-20] + bytes([made[-20] ^ 1]) + made[-19:],
    "cut in a chunk": lambda made: made[:-1],
    "cut at a chunk": lambda made: made[: HEADER_BYTES + 2 * (CHUNK + 16)],
    "cut to one chunk": lambda made: made[: HEADER_BYTES + CHUNK + 16],
    "a byte more": lambda made: made + b"\0",
    "an empty chunk more": lambda made: made + bytes(16),
    "the last chunk twice": lambda made: made + made[HEADER_BYTES + 2 * (CHUNK + 16) :],
    "chunks swapped": lambda made: (
        made[:HEADER_BYTES]
        + made[HEADER_BYTES + CHUNK + 16 : HEADER_BYTES + 2 * (CHUNK + 16)]
        + made[HEADER_BYTES : HEADER_BYTES + CHUNK + 16]
        + made[HEADER_BYTES + 2 * (CHUNK + 16) :]
    ),
    "a chunk left out": lambda made: made[:HEADER_BYTES] + made[HEADER_BYTES + CHUNK + 16 :],
    "a file in front": lambda made: made + made,
}


@pytest.mark.parametrize("name", ALTERED)
def test_an_altered_file_is_refused(name: str) -> None:
    made = sealed(b"p" * (2 * CHUNK + 100))
    with pytest.raises(IntegrityError):
        opened(ALTERED[name](made))


def test_a_chunk_of_another_file_is_refused() -> None:
    plain = b"p" * (CHUNK + 1)
    one = b"".join(encrypt([plain], KEY, lambda n: b"1" * n, chunk_bits=16))
    two = b"".join(encrypt([plain], KEY, lambda n: b"2" * n, chunk_bits=16))
    with pytest.raises(IntegrityError, match="chunk 0"):
        opened(one[:HEADER_BYTES] + two[HEADER_BYTES:])
    with pytest.raises(IntegrityError, match="chunk 1"):
        opened(one[: HEADER_BYTES + CHUNK + 16] + two[HEADER_BYTES + CHUNK + 16 :])


def test_an_empty_last_chunk_is_for_empty_files_only() -> None:
    """Else one plain file would have two forms."""
    header = sealed(b"")[:HEADER_BYTES]
    cipher = streams._cipher(b"k" * 32, header)
    prefix = header[-7:]
    full = cipher.encrypt(streams._nonce(prefix, 0, False), b"x" * CHUNK, None)
    empty = cipher.encrypt(streams._nonce(prefix, 1, True), b"", None)
    with pytest.raises(IntegrityError, match="cut off"):
        opened(header + full + empty)


def test_another_key_does_not_open() -> None:
    with pytest.raises(IntegrityError, match="chunk 0"):
        opened(sealed(b"data"), OTHER)


@pytest.mark.parametrize("key", ["sealdeal1:", "sealdeal1:AA==", "sealdeal1:?", "sealdeal2:" + KEY[10:]])
def test_malformed_keys_are_refused(key: str) -> None:
    with pytest.raises(InvalidInput, match="dataset key"):
        b"".join(encrypt([b"x"], key, zeros))
    with pytest.raises(InvalidInput, match="dataset key"):
        opened(sealed(b"x"), key)


@pytest.mark.parametrize("bits", [15, 21])
def test_chunk_sizes_are_bounded(bits: int) -> None:
    with pytest.raises(InvalidInput, match="expected chunks"):
        b"".join(encrypt([b""], KEY, zeros, chunk_bits=bits))


@given(noise=st.binary(max_size=300), begin=st.booleans(), standard=st.booleans())
def test_noise_is_refused_by_name(noise: bytes, begin: bool, standard: bool) -> None:
    """Any bytes give an IntegrityError; in the network's format, which has no integrity, some give data."""
    data = sealed(b"")[: HEADER_BYTES if begin else 0] + noise
    key = KEY.removeprefix("sealdeal1:") if standard else KEY
    try:
        b"".join(decrypt([data[:10], data[10:]], key))
    except IntegrityError:
        return
    assert standard


@given(data=st.data())
def test_every_changed_byte_is_detected(data: st.DataObject) -> None:
    made = bytearray(sealed(b"some data"))
    at = data.draw(st.integers(0, len(made) - 1))
    made[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(IntegrityError):
        opened(bytes(made))
