"""Results on disk: all of a verified result, or nothing."""

from __future__ import annotations

import hashlib
import io
import json
import secrets
import zipfile
from pathlib import Path

import pytest

from sealdeal.model.errors import IntegrityError, InvalidInput, SealdealError, TooLarge
from sealdeal.model.results import (
    COMPUTED,
    PADDING_ENTRY,
    SEAL_ENTRY,
    encrypt_result,
    generate_result_key,
    seal_text,
    sealed_digest,
)
from sealdeal.model.types import Bytes32
from sealdeal.sdk.archives import unpack_result

SAID = json.dumps({"deterministic-output-path": "/iexec_out/answer"}).encode()
FILES = {"answer": b"yes", COMPUTED: SAID, "deep/er/file": b"x" * 100_000}
PLAIN = hashlib.sha256(b"yes").digest()
SALT = bytes(range(32))


@pytest.fixture(scope="module")
def keys() -> tuple[bytes, str]:
    return generate_result_key(2048)


def archive(place: Path, files: dict[str, bytes], key: str = "") -> Path:
    plain = io.BytesIO()
    with zipfile.ZipFile(plain, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in files.items():
            made.writestr(name, data)
    with (place / "archive").open("wb") as out:
        if key:
            encrypt_result(out, plain.getvalue(), key, secrets.token_bytes)
        else:
            out.write(plain.getvalue())
    return place / "archive"


def same(digest: Bytes32) -> Bytes32:
    return digest


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_result_is_in_its_folder(tmp_path: Path, keys: tuple[bytes, str], encrypted: bool) -> None:
    private, public = keys
    source = archive(tmp_path, FILES, public if encrypted else "")
    found = unpack_result(source, tmp_path / "out", expected=PLAIN, settled=same, private_key=private)
    assert (found.files, found.digest) == (tuple(sorted(FILES)), "plain")
    assert {name: (tmp_path / "out" / name).read_bytes() for name in FILES} == FILES
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive", "out"]


def test_a_sealed_digest_needs_the_salt_that_lies_in_the_result(tmp_path: Path) -> None:
    sealed = {**FILES, SEAL_ENTRY: seal_text(SALT), PADDING_ENTRY: bytes(1000)}
    expected = sealed_digest(PLAIN, SALT)
    found = unpack_result(archive(tmp_path, sealed), tmp_path / "out", expected=expected, settled=same)
    assert (found.files, found.digest) == (tuple(sorted({*FILES, SEAL_ENTRY})), "sealed")
    for files in (FILES, {**FILES, SEAL_ENTRY: seal_text(bytes(32))}, {**FILES, SEAL_ENTRY: b"{}"}):
        with pytest.raises(IntegrityError):
            unpack_result(archive(tmp_path, files), tmp_path / "other", expected=expected, settled=same)


def test_a_short_digest_of_a_batch(tmp_path: Path) -> None:
    found = unpack_result(
        archive(tmp_path, FILES), tmp_path / "out", expected=PLAIN[:20], settled=lambda digest: digest[:20]
    )
    assert found.digest == "plain"


def test_other_files_than_the_chain_says_leave_nothing(tmp_path: Path, keys: tuple[bytes, str]) -> None:
    private, public = keys
    wrong: list[tuple[dict[str, bytes], str, type[SealdealError]]] = [
        ({**FILES, "answer": b"no"}, "", IntegrityError),
        ({"answer": b"yes"}, "", IntegrityError),
        ({**FILES, "../up": b""}, "", InvalidInput),
        ({**FILES, "/up": b""}, public, InvalidInput),
        ({**FILES, "bomb": bytes(3 << 20)}, public, TooLarge),
    ]
    for files, key, error in wrong:
        with pytest.raises(error):
            unpack_result(
                archive(tmp_path, files, key),
                tmp_path / "out",
                expected=PLAIN,
                settled=same,
                private_key=private,
                limit=2 << 20,
            )
        assert [path.name for path in tmp_path.iterdir()] == ["archive"]
    with pytest.raises(InvalidInput, match="private key"):
        unpack_result(archive(tmp_path, FILES, public), tmp_path / "out", expected=PLAIN, settled=same)
