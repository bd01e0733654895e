"""Results: which bytes a task's digest stands for, and the archives that carry them (wire.md §3.2, §5.3).

An app leaves files and a `computed.json` that names the ones that count, or gives data for a callback. The
digest of what counts goes on chain; all files travel in a zip, which may be encrypted for the beneficiary.
Randomness is passed in as `rng`; RSA key generation and padding draw on the operating system themselves.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15

from .errors import IntegrityError, InvalidInput, NotFound, TooLarge
from .keys import Rng
from .sealing import decrypt_cbc, encrypt_cbc, pieces_of
from .types import Bytes32, bytes32, hexstr, keccak, unhex

# --- what counts (wire.md §5.3) -------------------------------------------------------------------

COMPUTED: Final = "computed.json"
OUT: Final = "/iexec_out"
"""Where the app sees its output folder."""
MAX_CALLBACK: Final = 1024
"""Bytes of a callback's data: what the hub takes."""
SEAL_ENTRY, PADDING_ENTRY = "sealdeal-digest.json", "sealdeal-padding"
"""Files that only the guest adds to a result, when its digest is sealed: the salt, and zeros."""


Settled = Callable[[Bytes32], Bytes32]
"""A result's digest -> as the chain keeps it (`Deal.settled_digest`)."""


@dataclass(frozen=True, slots=True)
class Computed:
    """What computed.json said, and the digest of it."""

    digest: Bytes32
    callback: bytes | None
    """Bytes of `callback-data`, when the app gave some."""


def computed(said: Mapping[str, Any], names: Collection[str], sha256: Callable[[str], Bytes32]) -> Computed:
    """The digest of what the JSON object of computed.json names.

    `names`: the files, relative to the output folder; `sha256`: of one of them. With callback-data the
    digest is its keccak-256; for a file its sha256; for a folder keccak-256 of its files' sha256, by name.
    Raises InvalidInput when it is not as agreed, NotFound when what it names is not there.
    """
    if (text := said.get("callback-data")) is not None:
        try:
            data = unhex(text)
        except InvalidInput:
            raise InvalidInput("callback-data must be 0x and hexadecimal digits") from None
        if len(data) > MAX_CALLBACK:
            raise InvalidInput(f"callback-data may have {MAX_CALLBACK} bytes, it has {len(data)}")
        return Computed(keccak(data), data)
    path = said.get("deterministic-output-path")
    if not isinstance(path, str) or not (path == OUT or path.startswith(OUT + "/")):
        raise InvalidInput(f"deterministic-output-path must name a file or folder in {OUT}")
    inside = "/".join(part for part in path.removeprefix(OUT).split("/") if part not in ("", "."))
    if inside in names:
        return Computed(sha256(inside), None)
    prefix = f"{inside}/" if inside else ""
    children = sorted(name for name in names if name.startswith(prefix) and "/" not in name[len(prefix) :])
    if not children:
        raise NotFound(f"{COMPUTED} names an output that is not there, or a folder without files")
    return Computed(keccak(b"".join(sha256(child) for child in children)), None)


def digest_of(files: Mapping[str, bytes]) -> Bytes32:
    """The digest that a result's files stand for, by their own computed.json.

    Raises IntegrityError when they stand for none.
    """
    said = files.get(COMPUTED)
    return told_digest(said, files, lambda name: hashlib.sha256(files[name]).digest())


def told_digest(said: bytes | None, names: Collection[str], sha256: Callable[[str], Bytes32]) -> Bytes32:
    """`digest_of`, of files that lie elsewhere; `said`: the content of computed.json, if there is one."""
    try:
        told = json.loads(said) if said is not None else None
        if not isinstance(told, dict):
            raise InvalidInput("it must hold a JSON object")
        return computed(told, names, sha256).digest
    except (ValueError, RecursionError, InvalidInput, NotFound) as wrong:
        raise IntegrityError(f"expected a result with a {COMPUTED} that names its output: {wrong}") from None


def sealed_digest(plain: Bytes32, salt: Bytes32) -> Bytes32:
    """A digest that says nothing to who lacks the salt: sha256("sealdeal sealed digest 1" ‖ salt ‖ plain).

    The protocol's own is of the plain output, so that anyone can test a guess of a short one.
    """
    return hashlib.sha256(b"sealdeal sealed digest 1" + bytes32(salt) + bytes32(plain)).digest()


def seal_text(salt: Bytes32) -> bytes:
    """The content of SEAL_ENTRY."""
    return json.dumps({"digest": "sealed", "salt": hexstr(salt)}).encode()


def salt_of(content: bytes) -> Bytes32:
    """The salt in a SEAL_ENTRY. Raises IntegrityError when there is none."""
    try:
        return bytes32(json.loads(content)["salt"])
    except (ValueError, KeyError, TypeError, RecursionError, InvalidInput):
        raise IntegrityError(f"expected a {SEAL_ENTRY} with a salt, got {content[:80]!r}") from None


def check_digest(plain: Bytes32, seal: bytes | None, expected: Bytes32, settled: Settled) -> str:
    """How the files with the digest `plain` stand behind `expected` on chain: "plain", or "sealed" with the
    salt in `seal`, the content of SEAL_ENTRY. `settled`: how a digest is kept there.

    Raises IntegrityError when they do not.
    """
    if settled(plain) == expected:
        return "plain"
    if seal is not None and settled(sealed_digest(plain, salt_of(seal))) == expected:
        return "sealed"
    raise IntegrityError(
        f"the result's digest is {hexstr(settled(plain))}; on chain it is {hexstr(expected)}"
    )


# --- archives (wire.md §3.2) ----------------------------------------------------------------------

_BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, OSError, OverflowError)
_AES_ENTRY, _KEY_ENTRY = "iexec_out.zip.aes", "aes-key.rsa"
_MAX_SEALED_KEY: Final = 1000
_PIECE: Final = 1 << 20
MAX_RESULT_BYTES, MAX_RESULT_FILES = 1 << 30, 10_000
"""Limits of what a result archive may hold, unpacked: the protocol's clients stop at 1 GB."""
JSON_ARCHIVE_BYTES: Final = (48 << 20) - 4096
"""The largest archive that fits into the protocol's upload, as base64 in a JSON body of 64 MiB; larger ones
are sent as they are."""


class UnsafeArchive(InvalidInput):
    """The archive is malformed, or made to harm whoever unpacks it: do not use it."""


def generate_result_key(bits: int = 3072) -> tuple[bytes, str]:
    """(private key as PEM PKCS#8, public key text for the SMS = base64 of PEM SPKI). 3072 bits take 0.3 s."""
    private = rsa.generate_private_key(65537, bits)
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pem, result_key_text(pem)


def result_key_text(private_pem: bytes) -> str:
    """The public half of a result key, as it is pushed to the SMS."""
    public = _private_key(private_pem).public_key()
    spki = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(spki).decode()


def check_result_key(key_text: str) -> rsa.RSAPublicKey:
    """The key in `key_text`. Raises InvalidInput unless it is base64 of a PEM RSA key, 2048 to 7680 bits."""
    try:
        key = serialization.load_pem_public_key(base64.b64decode(key_text.strip(), validate=True))
    except (binascii.Error, ValueError):
        key = None
    if not isinstance(key, rsa.RSAPublicKey) or not 2048 <= key.key_size <= 7680:
        raise InvalidInput(
            "expected a result encryption key: base64 of the PEM of an RSA public key of 2048 to 7680 bits, "
            f"got {key_text[:40]!r}"
        )
    return key


def encrypt_result(
    out: IO[bytes], archive: bytes | Iterable[bytes], key_text: str, rng: Rng, *, large: bool = False
) -> None:
    """Writes to `out` the zip of `iexec_out.zip.aes` (IV ‖ AES-256-CBC of the archive) and `aes-key.rsa`
    (RSA PKCS#1 v1.5 of the AES key; the format is the network's). `large`: it may have 2 GiB or more, and is
    written as zip64. Raises InvalidInput for a bad key."""
    public, key = check_result_key(key_text), rng(32)
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as container:
        with container.open(zipfile.ZipInfo(_AES_ENTRY), "w", force_zip64=large) as entry:
            for piece in encrypt_cbc(pieces_of(archive), key, rng(16)):
                entry.write(piece)
        container.writestr(zipfile.ZipInfo(_KEY_ENTRY), public.encrypt(key, PKCS1v15()))


def decrypt_result(
    archive: bytes, private_pem: bytes, *, max_bytes: int = MAX_RESULT_BYTES
) -> dict[str, bytes]:
    """The files of an encrypted result, by name. Whoever has the public key can make one: compare its
    digest with the chain's before believing it.

    Raises UnsafeArchive, TooLarge, or IntegrityError when the key does not open it.
    """
    inner, left = bytearray(), max_bytes
    for piece in decrypted_pieces(io.BytesIO(archive), private_pem):
        left -= len(piece)
        if left < 0:
            raise TooLarge(f"expected a result of at most {max_bytes} bytes, got more")
        inner += piece
    return unzip_result(bytes(inner), max_bytes=max_bytes)


def decrypted_pieces(archive: IO[bytes], private_pem: bytes) -> Iterator[bytes]:
    """The archive inside an encrypted result, piece by piece. None of it is verified: see `decrypt_result`.

    `archive` can be sought in. Raises UnsafeArchive, or IntegrityError when the key does not open it.
    """
    private = _private_key(private_pem)
    with _zip_errors(), zipfile.ZipFile(archive) as container:
        infos = _judged(container.infolist(), MAX_RESULT_FILES)
        if set(infos) != {_AES_ENTRY, _KEY_ENTRY}:
            raise UnsafeArchive(
                f"expected an encrypted result with {_AES_ENTRY} and {_KEY_ENTRY}, "
                f"got {', '.join(sorted(infos)[:5]) or 'nothing'}"
            )
        with container.open(infos[_KEY_ENTRY]) as entry:
            sealed = entry.read(_MAX_SEALED_KEY + 1)
        try:
            key = private.decrypt(sealed, PKCS1v15())
        except ValueError:
            key = b""
        if len(key) != 32:
            raise IntegrityError("expected a result encrypted for this key, got one for another key")
        with container.open(infos[_AES_ENTRY]) as entry:
            yield from decrypt_cbc(iter(lambda: entry.read(_PIECE), b""), key, "result")


def is_encrypted_result(archive: bytes | IO[bytes]) -> bool:
    """Whether a result archive says that it is encrypted. Raises UnsafeArchive when it is no zip."""
    source = io.BytesIO(archive) if isinstance(archive, bytes) else archive
    with _zip_errors(), zipfile.ZipFile(source) as container:
        return _AES_ENTRY in container.namelist()


def result_location(results: bytes) -> str:
    """Where a task's `results` on chain say that its result lies: `/ipfs/CID`.

    Raises InvalidInput for anything but the JSON {storage: "ipfs", location: …} of wire.md §3.2.
    """
    try:
        told = json.loads(results)
        storage, location = told["storage"], told["location"]
    except (ValueError, KeyError, TypeError, RecursionError):
        storage, location = None, None
    if storage != "ipfs" or not isinstance(location, str):
        raise InvalidInput(f"expected a result in ipfs storage, got {results[:200]!r}")
    return location


def unzip_result(
    archive: bytes, *, max_bytes: int = MAX_RESULT_BYTES, max_files: int = MAX_RESULT_FILES
) -> dict[str, bytes]:
    """The regular files of a plain zip by relative name, in memory; nothing is written anywhere.

    Raises as `archive_files`.
    """
    found = archive_files(io.BytesIO(archive), max_bytes=max_bytes, max_files=max_files)
    return {name: b"".join(pieces) for name, pieces in found}


def archive_files(
    archive: IO[bytes], *, max_bytes: int = MAX_RESULT_BYTES, max_files: int = MAX_RESULT_FILES
) -> Iterator[tuple[str, Iterator[bytes]]]:
    """The regular files of a plain zip: relative name, and content in pieces, to be read before the next.

    `archive` can be sought in. All names are judged before the first content. Raises UnsafeArchive
    (malformed, escaping or repeated names, special files) or TooLarge, judged on the bytes that come out and
    not on what the headers say.
    """
    left = max_bytes

    def content(entry: IO[bytes]) -> Iterator[bytes]:
        nonlocal left
        while True:
            with _zip_errors():
                piece = entry.read(min(_PIECE, left + 1))
            if not piece:
                return
            left -= len(piece)
            if left < 0:
                raise TooLarge(f"expected a result of at most {max_bytes} bytes, got more")
            yield piece

    with _zip_errors(), zipfile.ZipFile(archive) as container:
        for name, info in _judged(container.infolist(), max_files).items():
            with container.open(info) as entry:
                pieces = content(entry)
                yield name, pieces
                for _ in pieces:  # what was not read is checked as well
                    pass


@contextmanager
def _zip_errors() -> Iterator[None]:
    """What the library raises on malformed archives, as one error of ours."""
    try:
        yield
    except _BROKEN_ZIP as wrong:
        raise UnsafeArchive(f"expected a zip archive, got one that cannot be read: {wrong}") from None


def _judged(infos: list[zipfile.ZipInfo], max_files: int) -> dict[str, zipfile.ZipInfo]:
    """The regular files among `infos`, by name. Raises UnsafeArchive, TooLarge."""
    if len(infos) > max_files:
        raise TooLarge(f"expected at most {max_files} files in a result, got {len(infos)}")
    seen: set[str] = set()
    files = {}
    for info in infos:
        name = _safe_name(info)
        if name in seen:
            raise UnsafeArchive(f"expected different names in a result, got {name!r} twice")
        seen.add(name)
        if not info.is_dir():
            files[name] = info
    for name in seen:
        parts = name.split("/")
        if any("/".join(parts[:i]) in files for i in range(1, len(parts))):
            raise UnsafeArchive(f"expected a tree of files, got {name!r} below another file")
    return files


def _safe_name(info: zipfile.ZipInfo) -> str:
    name, kind = info.filename.rstrip("/"), (info.external_attr >> 16) & 0o170000
    parts = name.split("/")
    if (
        any(part in ("", ".", "..") for part in parts)
        or any(c in "\\:\x7f" or ord(c) < 32 for c in name)
        or len(parts) > 32
        or len(name.encode()) > 1024
    ):
        raise UnsafeArchive(f"expected relative names in a result, got {info.filename[:80]!r}")
    if kind not in (0, 0o100000, 0o040000):
        raise UnsafeArchive(f"expected regular files in a result, got a special one: {name[:80]!r}")
    if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise UnsafeArchive(f"expected stored or deflated entries, got another method: {name[:80]!r}")
    return name


def _private_key(pem: bytes) -> rsa.RSAPrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise InvalidInput("expected a result private key: the PEM of an RSA key without a password")
    return key
