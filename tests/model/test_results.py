"""Digests of results, and the archives that carry them."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import padding
from hypothesis import given
from hypothesis import strategies as st

from sealdeal.model.errors import IntegrityError, InvalidInput, SealdealError, TooLarge
from sealdeal.model.results import (
    COMPUTED,
    UnsafeArchive,
    check_digest,
    check_result_key,
    decrypt_result,
    digest_of,
    encrypt_result,
    generate_result_key,
    is_encrypted_result,
    result_location,
    sealed_digest,
    told_digest,
    unzip_result,
)
from sealdeal.model.types import address, keccak

DATASET, HUB = address(b"\x07" * 20), address(b"\x01" * 20)
NODES = tuple(address(bytes([n]) * 20) for n in (0xA1, 0xB2, 0xC3, 0xD4, 0xE5))


def rng_of(seed: int) -> Callable[[int], bytes]:
    return random.Random(seed).randbytes


@pytest.fixture(scope="module")
def result_key() -> tuple[bytes, str]:
    return generate_result_key(2048)


def archive_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in files.items():
            made.writestr(name, data)
    return buffer.getvalue()


def encrypted(archive: bytes, key_text: str) -> bytes:
    buffer = io.BytesIO()
    encrypt_result(buffer, archive, key_text, rng_of(3))
    return buffer.getvalue()


FILES = {"computed.json": b"{}", "result/model.json": b"[1]", "empty.txt": b""}


def test_result_round_trip(result_key: tuple[bytes, str]) -> None:
    private, public = result_key
    sealed = encrypted(archive_of(FILES), public)
    assert is_encrypted_result(sealed) and not is_encrypted_result(archive_of(FILES))
    assert decrypt_result(sealed, private) == FILES == unzip_result(archive_of(FILES))
    assert b"computed.json" not in sealed


def test_the_format_is_the_networks(result_key: tuple[bytes, str]) -> None:
    """As an unmodified client reads it: two entries, PKCS#1 v1.5, IV in front (wire.md §3.2)."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    private, public = result_key
    assert base64.b64decode(public).startswith(b"-----BEGIN PUBLIC KEY-----")
    sealed = zipfile.ZipFile(io.BytesIO(encrypted(archive_of(FILES), public)))
    assert sealed.namelist() == ["iexec_out.zip.aes", "aes-key.rsa"]
    rsa_key: Any = serialization.load_pem_private_key(private, None)
    key = rsa_key.decrypt(sealed.read("aes-key.rsa"), padding.PKCS1v15())
    body = sealed.read("iexec_out.zip.aes")
    decryptor = Cipher(algorithms.AES(key), modes.CBC(body[:16])).decryptor()
    plain = decryptor.update(body[16:]) + decryptor.finalize()
    assert plain[: -plain[-1]] == archive_of(FILES) and len(key) == 32


def test_another_key_or_altered_bytes_do_not_open(result_key: tuple[bytes, str]) -> None:
    private, public = result_key
    other, _ = generate_result_key(2048)
    sealed = encrypted(archive_of(FILES), public)
    with pytest.raises((IntegrityError, UnsafeArchive)):
        decrypt_result(sealed, other)
    with pytest.raises(UnsafeArchive, match=r"iexec_out\.zip\.aes"):
        decrypt_result(archive_of(FILES), private)
    with pytest.raises(InvalidInput):
        decrypt_result(sealed, b"no key")
    start = sealed.index(b"iexec_out.zip.aes") + 17
    for position in range(start, start + 200, 20):
        bad = bytearray(sealed)
        bad[position] ^= 1
        with pytest.raises((IntegrityError, UnsafeArchive)):
            decrypt_result(bytes(bad), private)


@pytest.mark.parametrize("text", ["", "xx", base64.b64encode(b"no pem").decode(), "é"])
def test_unusable_result_keys_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="expected a result encryption key"):
        check_result_key(text)


def test_weak_result_keys_are_refused() -> None:
    from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

    for weak in (rsa.generate_private_key(65537, 1024), ed25519.Ed25519PrivateKey.generate()):
        spki = weak.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        with pytest.raises(InvalidInput):
            check_result_key(base64.b64encode(spki).decode())


def _entry(name: str, mode: int = 0o100644) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


@pytest.mark.parametrize(
    "name",
    [
        "../up",
        "/root",
        "a/../../b",
        "a\\b",
        "c:x",
        "a//b",
        "./a",
        "a/./b",
        "new\nline",
        "a" * 2000,
        "/".join("a" * 40),
    ],
)
def test_names_that_leave_the_folder_are_refused(name: str) -> None:
    with pytest.raises(UnsafeArchive, match="relative names"):
        unzip_result(archive_of({name: b"x"}))


@pytest.mark.parametrize("mode", [0o120777, 0o010644, 0o020644, 0o060644, 0o140644])
def test_special_files_are_refused(mode: int) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        made.writestr(_entry("link", mode), b"/etc/passwd")
    with pytest.raises(UnsafeArchive, match="special"):
        unzip_result(buffer.getvalue())


def test_repeated_names_and_files_below_files_are_refused() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        made.writestr("a", b"1")
        with pytest.warns(UserWarning, match="Duplicate name"):
            made.writestr("a", b"2")
    with pytest.raises(UnsafeArchive, match="twice"):
        unzip_result(buffer.getvalue())
    with pytest.raises(UnsafeArchive, match="below another file"):
        unzip_result(archive_of({"a": b"", "a/b": b""}))


def test_bombs_are_stopped_by_what_comes_out() -> None:
    bomb = archive_of({"zeros": bytes(4 << 20)})
    assert len(bomb) < 10_000
    with pytest.raises(TooLarge):
        unzip_result(bomb, max_bytes=1 << 20)
    lying = bytearray(bomb)  # the headers say 5 bytes
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = lying.index(signature) + offset
        lying[at : at + 4] = (5).to_bytes(4, "little")
    with pytest.raises((TooLarge, UnsafeArchive)):
        unzip_result(bytes(lying), max_bytes=1 << 20)
    with pytest.raises(TooLarge, match="at most 3 files"):
        unzip_result(archive_of({str(n): b"" for n in range(4)}), max_files=3)


def test_encrypted_entries_and_odd_methods_are_refused() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_LZMA) as made:
        made.writestr("a", b"x")
    with pytest.raises(UnsafeArchive):
        unzip_result(buffer.getvalue())


@given(st.binary(max_size=400))
def test_noise_is_refused_by_name(noise: bytes) -> None:
    for read in (unzip_result, is_encrypted_result):
        with pytest.raises(UnsafeArchive):
            read(noise)


@given(st.data())
def test_damaged_archives_give_the_files_or_a_named_error(data: st.DataObject) -> None:
    bad = bytearray(archive_of(FILES))
    for _ in range(data.draw(st.integers(1, 4))):
        bad[data.draw(st.integers(0, len(bad) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = unzip_result(bytes(bad), max_bytes=1 << 20)
    except SealdealError:
        return
    assert all(isinstance(content, bytes) for content in found.values())


def test_where_a_result_lies() -> None:
    assert result_location(b'{ "storage": "ipfs", "location": "/ipfs/Qm" }') == "/ipfs/Qm"
    for bad in (b"", b"[]", b"{}", b'{"storage":"dropbox","location":"/x"}', b'{"storage":"ipfs"}', b"\xff"):
        with pytest.raises(InvalidInput):
            result_location(bad)


def test_nothing_of_a_result_is_written_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    unzip_result(archive_of(FILES))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"deterministic-output-path": "/iexec_out/a.txt"}, hashlib.sha256(b"a").digest()),
        ({"deterministic-output-path": "/iexec_out/./a.txt"}, hashlib.sha256(b"a").digest()),
        (
            {"deterministic-output-path": "/iexec_out/folder"},
            keccak(hashlib.sha256(b"b").digest() + hashlib.sha256(b"c").digest()),
        ),
        ({"callback-data": "0x0102", "deterministic-output-path": "/nowhere"}, keccak(b"\x01\x02")),
    ],
)
def test_what_counts_is_what_computed_json_names(said: dict[str, str], expected: bytes) -> None:
    files = {"a.txt": b"a", "folder/b": b"b", "folder/c": b"c", "folder/deeper/d": b"d"}
    assert digest_of({**files, COMPUTED: json.dumps(said).encode()}) == expected


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"[]",
        b"{}",
        b'{"deterministic-output-path": "/iexec_outside/a"}',
        b'{"deterministic-output-path": "/iexec_out/nothing"}',
        b'{"deterministic-output-path": 3}',
        b'{"callback-data": "0xz"}',
    ],
)
def test_a_result_that_names_nothing_has_no_digest(said: bytes) -> None:
    with pytest.raises(IntegrityError, match=r"computed\.json"):
        digest_of({"a": b"a", COMPUTED: said})
    with pytest.raises(IntegrityError, match=r"computed\.json"):
        digest_of({"a": b"a"})


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)
TOLD = st.dictionaries(st.sampled_from(["deterministic-output-path", "callback-data", "salt", "x"]), JUNK)


@given(st.binary(max_size=60) | (TOLD | JUNK).map(lambda value: json.dumps(value).encode()))
def test_whatever_computed_json_and_a_seal_say_ends_in_a_digest_or_a_named_error(said: bytes) -> None:
    with contextlib.suppress(IntegrityError):
        assert len(told_digest(said, {"a", "b/c"}, lambda name: keccak(name.encode()))) == 32
    with contextlib.suppress(IntegrityError):
        assert check_digest(bytes(32), said, sealed_digest(bytes(32), bytes(32)), lambda d: d) == "sealed"


@pytest.mark.soak  # loading the private key takes as long as everything else here
@given(st.data())
def test_damaged_encrypted_results_give_files_or_a_named_error(
    result_key: tuple[bytes, str], data: st.DataObject
) -> None:
    private, public = result_key
    bad = bytearray(encrypted(archive_of(FILES), public))
    for _ in range(data.draw(st.integers(1, 4))):
        bad[data.draw(st.integers(0, len(bad) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(SealdealError):
        decrypt_result(bytes(bad), private, max_bytes=1 << 20)
