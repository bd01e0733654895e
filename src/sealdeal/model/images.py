"""Application images: OCI images in one tar (the OCI image layout), written and verified as a stream.

An image is named by its checksum, the sha256 of its OCI manifest (`m_appChecksum` on chain): every other
byte of the archive follows from it by digest. The same entries give the same archive.

Format: https://github.com/opencontainers/image-spec (manifest, config, image-layout). One order is asked
of an archive beyond the specification, so that it can be verified in a single pass that keeps nothing: the
manifest, then the configuration, then the layers in the manifest's order.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from .errors import IntegrityError, InvalidInput, TooLarge
from .manifests import (
    CONFIG_TYPE,
    INDEX_TYPE,
    LAYER_TYPE,
    MANIFEST_TYPE,
    MAX_DOCUMENT_BYTES,
    Configuration,
    Descriptor,
    Manifest,
    digest_text,
    read_configuration,
    read_manifest,
)
from .manifests import Process as Process
from .tars import Kind, Member, members
from .tars import Readable as Readable
from .types import Bytes32

_BLOBS: Final = "blobs/sha256/"
_PIECE: Final = 1 << 20


# ---- writing ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Entry:
    """One member of a layer: a file, a symbolic link or (neither) a folder. Owned by uid 0, of time 0."""

    path: str
    """Inside the image, without a leading slash."""
    read: Callable[[], bytes] | None = None
    """Gives the content of a file; called once, when its turn comes."""
    link: str | None = None
    """Where a symbolic link points to."""
    executable: bool = False


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes known by their digest."""

    digest: Bytes32
    size: int
    chunks: Callable[[], Iterable[bytes]]
    unpacked: Bytes32 | None = None
    """Of a layer in gzip: the digest of its tar."""


def of_bytes(data: bytes) -> Blob:
    """A blob that lies in memory."""
    return Blob(hashlib.sha256(data).digest(), len(data), lambda: (data,))


def _header(name: str, **fields: Any) -> bytes:
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.PAX_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)


def layer(entries: Iterable[Entry]) -> Iterator[bytes]:
    """The uncompressed tar of one layer, in chunks: entries sorted by path, parent folders added."""
    made: set[str] = set()
    for entry in sorted(entries, key=lambda e: e.path):
        parts = entry.path.split("/")
        if entry.path in made or not all(parts) or {".", ".."} & set(parts):
            raise InvalidInput(f"expected each path of an image once, relative and plain, got {entry.path!r}")
        for depth in range(1, len(parts)):
            if (folder := "/".join(parts[:depth])) not in made:
                made.add(folder)
                yield _header(folder + "/", type=tarfile.DIRTYPE, mode=0o755)
        made.add(entry.path)
        if entry.link is not None:
            yield _header(entry.path, type=tarfile.SYMTYPE, linkname=entry.link, mode=0o777)
        elif entry.read is None:
            yield _header(entry.path + "/", type=tarfile.DIRTYPE, mode=0o755)
        else:
            data = entry.read()
            yield _header(entry.path, size=len(data), mode=0o755 if entry.executable else 0o644)
            yield data
            yield _padding(len(data))
    yield bytes(2 * tarfile.BLOCKSIZE)


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _descriptor(media_type: str, blob: Blob | Descriptor) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_text(blob.digest), "size": blob.size}


@dataclass(frozen=True, slots=True)
class BuiltArchive:
    """An image ready to be written."""

    checksum: Bytes32
    """sha256 of the manifest: the app's `m_appChecksum`."""
    chunks: Callable[[], Iterator[bytes]]
    """The archive's bytes."""


def archive(
    layers: Iterable[tuple[str, Blob]],
    *,
    architecture: str,
    process: Mapping[str, Any],
    labels: Mapping[str, str],
) -> BuiltArchive:
    """An image of `layers` (a line for its history, and the layer).

    `process` holds the OCI configuration's `Entrypoint`, `Env` and `WorkingDir`.
    """
    stack = list(layers)
    config = of_bytes(
        _json(
            {
                "architecture": architecture,
                "os": "linux",
                "config": {**process, "Labels": dict(labels)},
                "rootfs": {
                    "type": "layers",
                    "diff_ids": [digest_text(b.unpacked or b.digest) for _, b in stack],
                },
                "history": [{"created_by": line} for line, _ in stack],
            }
        )
    )
    types = [LAYER_TYPE if blob.unpacked is None else f"{LAYER_TYPE}+gzip" for _, blob in stack]
    manifest = of_bytes(
        _json(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST_TYPE,
                "config": _descriptor(CONFIG_TYPE, config),
                "layers": [_descriptor(kind, blob) for kind, (_, blob) in zip(types, stack, strict=True)],
            }
        )
    )
    top = Descriptor(manifest.digest, manifest.size, MANIFEST_TYPE)

    def chunks() -> Iterator[bytes]:
        yield archive_head(top)
        for blob in (manifest, config, *(b for _, b in stack)):
            yield blob_header(blob)
            yield from blob.chunks()
            yield _padding(blob.size)
        yield ARCHIVE_END

    return BuiltArchive(manifest.digest, chunks)


def archive_head(manifest: Descriptor) -> bytes:
    """What an archive begins with. Then come the manifest, the configuration and the layers, each with its
    `blob_header` and filled up to whole blocks of a tar; then `ARCHIVE_END`."""
    index = {
        "schemaVersion": 2,
        "mediaType": INDEX_TYPE,
        "manifests": [_descriptor(manifest.media_type, manifest)],
    }
    out = b""
    for name, document in {"oci-layout": {"imageLayoutVersion": "1.0.0"}, "index.json": index}.items():
        data = _json(document)
        out += _header(name, size=len(data), mode=0o644) + data + _padding(len(data))
    return out


def blob_header(blob: Blob | Descriptor) -> bytes:
    """What stands before a blob in an archive."""
    return _header(_BLOBS + blob.digest.hex(), size=blob.size, mode=0o644)


ARCHIVE_END: Final = bytes(2 * tarfile.BLOCKSIZE)


# ---- reading ------------------------------------------------------------------------------------------


class _Checked:
    """Reads a blob and raises IntegrityError at its end if it is not the one that was promised."""

    def __init__(self, source: Readable, digest: Bytes32, what: str, limit: int) -> None:
        self._source, self._digest, self._what, self._limit = source, digest, what, limit
        self.count = 0
        """Bytes read so far."""
        self._hash = hashlib.sha256()
        self._verified = False

    def read(self, size: int, /) -> bytes:
        data = self._source.read(size)
        self.count += len(data)
        if self.count > self._limit:
            raise TooLarge(f"{self._what} of the image is larger than it says or than is accepted")
        self._hash.update(data)
        if not data and not self._verified:
            if (came := self._hash.digest()) != self._digest:
                raise IntegrityError(
                    f"{self._what} of the image: expected {digest_text(self._digest)}, "
                    f"got {digest_text(came)}"
                )
            self._verified = True
        return data

    def drain(self) -> None:
        """Reads what is left, so that the digest covers every byte."""
        while self.read(_PIECE):
            pass


class _Gunzip:
    """Reads the content of a gzip stream, of all its members, never expanding more than asked for at once."""

    def __init__(self, source: Readable) -> None:
        self._source = source
        self._inflate = zlib.decompressobj(31)
        self._pending = b""
        self._begun = False

    def read(self, size: int, /) -> bytes:
        while True:
            if self._inflate.eof:
                self._pending, self._begun = self._inflate.unused_data, False
                self._inflate = zlib.decompressobj(31)
            self._pending = self._pending or self._source.read(64 << 10)
            if not self._pending:
                if self._begun:
                    raise IntegrityError("a layer of the image ends in the middle of its gzip stream")
                return b""
            self._begun = True
            try:
                data = self._inflate.decompress(self._pending, size)
            except zlib.error as error:
                raise IntegrityError(f"a layer of the image is not gzip: {error}") from None
            self._pending = self._inflate.unconsumed_tail
            if data:
                return data


class ImageReader:
    """Verifies an image while it streams by.

    `config()` first, then every layer of `layers()` to its end: a byte that was read is authentic only once
    the layer's iteration has moved on without raising. Raises IntegrityError, InvalidInput, TooLarge.
    """

    def __init__(self, stream: Readable, checksum: Bytes32, *, max_bytes: int) -> None:
        """`max_bytes`: bound of all layers together, unpacked."""
        self._checksum, self._max = checksum, max_bytes
        self._members = members(stream)
        self._manifest: Manifest | None = None
        self._configuration: Configuration | None = None

    def _blob(self, digest: Bytes32, what: str, later: Iterable[Descriptor] = ()) -> Member:
        """The next member that holds this blob; `later`: blobs that come after it."""
        name, others = digest.hex(), {layer.digest.hex() for layer in later}
        for member in self._members:
            blob = member.name.removeprefix(_BLOBS) if member.kind is Kind.FILE else ""
            if blob == name:
                return member
            if blob in others:
                break
        raise IntegrityError(
            f"expected {what} ({digest_text(digest)}) next in the image archive; it is missing or out of "
            "order (manifest, configuration, layers): build it with `sealdeal app build`"
        )

    def _document(self, digest: Bytes32, what: str, size: int | None = None) -> bytes:
        member = self._blob(digest, what, self._manifest.layers if self._manifest else ())
        if size is not None and member.size != size:
            raise IntegrityError(f"{what} of the image: expected {size} bytes, got {member.size}")
        blob = _Checked(member, digest, what, MAX_DOCUMENT_BYTES)
        data = b""
        while piece := blob.read(_PIECE):
            data += piece
        return data

    def config(self) -> Process:
        """The verified configuration's way to start the program."""
        manifest = read_manifest(self._document(self._checksum, "the manifest"))
        self._manifest = manifest
        document = self._document(manifest.config.digest, "the configuration", manifest.config.size)
        self._configuration = read_configuration(document, manifest)
        process = self._configuration.process
        if not process.command(()):
            raise InvalidInput("the image names no program: set Entrypoint (sealdeal.toml: entrypoint)")
        return process

    def layers(self) -> Iterator[Readable]:
        """Each layer's tar, uncompressed, in order. Read one to its end before the next."""
        if self._manifest is None or self._configuration is None:
            raise InvalidInput("expected config() to be read before the layers")
        left, layers = self._max, self._manifest.layers
        for number, (layer_, diff_id) in enumerate(zip(layers, self._configuration.diff_ids, strict=True), 1):
            what = f"layer {number}"
            member = self._blob(layer_.digest, what, layers[number:])
            if member.size != layer_.size:
                raise IntegrityError(f"{what} of the image: expected {layer_.size} bytes, got {member.size}")
            stored = _Checked(member, layer_.digest, what, left)
            content = _Checked(_Gunzip(stored), diff_id, what, left) if layer_.packed else stored
            if not layer_.packed and diff_id != layer_.digest:
                raise IntegrityError(f"{what} of the image: its diff_id is not the digest of its tar")
            yield content
            content.drain()
            stored.drain()
            left -= content.count
