"""Data and results on disk: encrypted, opened, unpacked and checked without being in memory as a whole."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from sealdeal.model import streams
from sealdeal.model.errors import InvalidInput
from sealdeal.model.results import (
    COMPUTED,
    PADDING_ENTRY,
    SEAL_ENTRY,
    Settled,
    archive_files,
    check_digest,
    decrypted_pieces,
    is_encrypted_result,
    told_digest,
)
from sealdeal.model.types import Bytes32

from .results import file_pieces

UNPACKED_LIMIT: Final = 16 << 30
"""Bytes of a result's files."""
SAID_LIMIT: Final = 1 << 20
"""Bytes of computed.json, and of a seal."""
_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def encrypt_file(plain: bytes | Path, key: str, to: Path) -> Bytes32:
    """Encrypt data into the new file `to`, in the format that the dataset key is for; returns its checksum.

    Raises InvalidInput for a malformed key or a file that cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with to.open("xb") as out:
            source = [plain] if isinstance(plain, bytes) else file_pieces(plain)
            for piece in streams.encrypt(source, key, secrets.token_bytes):
                digest.update(piece)
                out.write(piece)
    except OSError as wrong:
        raise InvalidInput(f"cannot encrypt {wrong.filename or 'the data'}: {wrong.strerror}") from None
    return digest.digest()


@dataclass(frozen=True, slots=True)
class Unpacked:
    """A result in a folder."""

    files: tuple[str, ...]
    """Relative names, sorted."""
    digest: str
    """"plain" or "sealed": how its files stand behind the digest on chain."""


def unpack_result(
    archive: Path,
    folder: Path,
    *,
    expected: Bytes32,
    settled: Settled,
    private_key: bytes | None = None,
    limit: int = UNPACKED_LIMIT,
) -> Unpacked:
    """Write a result's files into the new folder `folder`, all of them and verified, or nothing.

    `expected`: the digest on chain; `settled`: how a digest is kept there. `private_key`: PEM, for an
    encrypted result. Raises InvalidInput when that is missing, UnsafeArchive, TooLarge, or IntegrityError for
    files that are not what the chain says.
    """
    aside = folder.with_name(f".{folder.name}.{secrets.token_hex(8)}.partial")
    aside.mkdir(mode=0o700)
    try:
        with archive.open("rb") as source:
            if not is_encrypted_result(source):
                unpacked = _unpack(source, aside / "files", expected, settled, limit)
            elif private_key is None:
                raise InvalidInput("the result is encrypted for its beneficiary: give the private key")
            else:
                with (aside / "archive").open("x+b") as plain:
                    plain.writelines(decrypted_pieces(source, private_key))
                    unpacked = _unpack(plain, aside / "files", expected, settled, limit)
        (aside / "files").rename(folder)
    finally:
        shutil.rmtree(aside)
    return unpacked


def _unpack(source: IO[bytes], folder: Path, expected: Bytes32, settled: Settled, limit: int) -> Unpacked:
    folder.mkdir()
    digests: dict[str, bytes] = {}
    for name, pieces in archive_files(source, max_bytes=limit):
        place, digest = folder / name, hashlib.sha256()
        place.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(place, _FLAGS, 0o644), "wb") as out:
            for piece in pieces:
                digest.update(piece)
                out.write(piece)
        digests[name] = digest.digest()
    plain = told_digest(_said(folder, COMPUTED, digests), digests, digests.__getitem__)
    form = check_digest(plain, _said(folder, SEAL_ENTRY, digests), expected, settled)
    if form == "sealed" and digests.pop(PADDING_ENTRY, None) is not None:
        (folder / PADDING_ENTRY).unlink()
    return Unpacked(tuple(sorted(digests)), form)


def _said(folder: Path, name: str, known: dict[str, bytes]) -> bytes | None:
    if name not in known:
        return None
    with (folder / name).open("rb") as file:
        return file.read(SAID_LIMIT)
