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
from typing import IO, Any, Final, Protocol, cast

from .errors import IntegrityError, InvalidInput, TooLarge
from .hosts import Host, declared_hosts
from .types import Bytes32

MANIFEST_TYPE: Final = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE: Final = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE: Final = "application/vnd.oci.image.layer.v1.tar"
INDEX_TYPE: Final = "application/vnd.oci.image.index.v1+json"
_DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"

MAX_MANIFEST_BYTES: Final = 4 << 20
"""The OCI distribution specification's own bound for a manifest."""
MAX_LAYERS: Final = 127
"""As many as Docker's overlay driver stacks."""

_BLOBS: Final = "blobs/sha256/"


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


def _descriptor(media_type: str, blob: Blob) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": f"sha256:{blob.digest.hex()}", "size": blob.size}


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
    """An image of uncompressed `layers` (a line for its history, and the tar).

    `process` holds the OCI configuration's `Entrypoint`, `Env` and `WorkingDir`.
    """
    stack = list(layers)
    config = of_bytes(
        _json(
            {
                "architecture": architecture,
                "os": "linux",
                "config": {**process, "Labels": dict(labels)},
                "rootfs": {"type": "layers", "diff_ids": [f"sha256:{b.digest.hex()}" for _, b in stack]},
                "history": [{"created_by": line} for line, _ in stack],
            }
        )
    )
    manifest = of_bytes(
        _json(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST_TYPE,
                "config": _descriptor(CONFIG_TYPE, config),
                "layers": [_descriptor(LAYER_TYPE, blob) for _, blob in stack],
            }
        )
    )
    index = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [_descriptor(MANIFEST_TYPE, manifest)]}
    head = {"oci-layout": {"imageLayoutVersion": "1.0.0"}, "index.json": index}

    def chunks() -> Iterator[bytes]:
        for name, document in head.items():
            data = _json(document)
            yield _header(name, size=len(data), mode=0o644) + data + _padding(len(data))
        for blob in (manifest, config, *(b for _, b in stack)):
            yield _header(_BLOBS + blob.digest.hex(), size=blob.size, mode=0o644)
            yield from blob.chunks()
            yield _padding(blob.size)
        yield bytes(2 * tarfile.BLOCKSIZE)

    return BuiltArchive(manifest.digest, chunks)


# ---- reading ------------------------------------------------------------------------------------------


class Readable(Protocol):
    """What `read(n)` can be called on: at most n bytes, none at the end."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Process:
    """How an image says its program is started."""

    entrypoint: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    folder: str
    """Where it starts; `/` when the image does not say."""
    arguments: tuple[str, ...]
    """Used when the caller gives none (OCI's Cmd)."""
    hosts: tuple[Host, ...] = ()
    """What the program may reach; nothing else answers it."""

    def command(self, arguments: Iterable[str]) -> tuple[str, ...]:
        """The whole command line: the caller's arguments replace the image's default ones."""
        return self.entrypoint + (tuple(arguments) or self.arguments)


class _Checked:
    """Reads a blob and raises IntegrityError at its end if it is not the one that was promised."""

    def __init__(self, source: Readable, digest: str, what: str, limit: int) -> None:
        self._source, self._digest, self._what, self._limit = source, digest, what, limit
        self.count = 0
        """Bytes read so far."""
        self._hash = hashlib.sha256()
        self._verified = False

    def read(self, size: int, /) -> bytes:
        try:
            data = self._source.read(size)
        except tarfile.TarError as error:
            raise IntegrityError(f"{self._what} of the image: the archive ends early ({error})") from None
        self.count += len(data)
        if self.count > self._limit:
            raise TooLarge(f"{self._what} of the image is larger than it says or than is accepted")
        self._hash.update(data)
        if not data and not self._verified:
            came = f"sha256:{self._hash.hexdigest()}"
            if came != self._digest:
                raise IntegrityError(f"{self._what} of the image: expected {self._digest}, got {came}")
            self._verified = True
        return data

    def drain(self) -> None:
        """Reads what is left, so that the digest covers every byte."""
        while self.read(1 << 20):
            pass


class _Gunzip:
    """Reads the content of a gzip stream, never expanding more than asked for at once."""

    def __init__(self, source: Readable) -> None:
        self._source, self._inflate = source, zlib.decompressobj(31)
        self._pending = b""

    def read(self, size: int, /) -> bytes:
        while not self._inflate.eof:
            self._pending = self._inflate.unconsumed_tail or self._source.read(64 << 10)
            try:
                data = self._inflate.decompress(self._pending, size)
            except zlib.error as error:
                raise IntegrityError(f"a layer of the image is not gzip: {error}") from None
            if data:
                return data
            if not self._pending:
                raise IntegrityError("a layer of the image ends in the middle of its gzip stream")
        return b""


class ImageReader:
    """Verifies an image while it streams by.

    `config()` first, then every layer of `layers()` to its end: a byte that was read is authentic only once
    the layer's iteration has moved on without raising. Raises IntegrityError, InvalidInput, TooLarge.
    """

    def __init__(self, stream: Readable, checksum: Bytes32, *, max_bytes: int) -> None:
        """`max_bytes`: bound of all layers together, unpacked."""
        self._checksum, self._max = checksum, max_bytes
        try:
            self._tar = open_tar(stream)
        except tarfile.TarError as error:
            raise InvalidInput(f"expected an OCI image layout in a tar, got: {error}") from None
        self._layers: list[dict[str, Any]] = []
        self._diff_ids: list[str] = []

    def _blob(self, digest: str, what: str) -> Readable:
        name = _BLOBS + digest.removeprefix("sha256:")
        later = {_BLOBS + str(layer["digest"]).removeprefix("sha256:") for layer in self._layers}
        try:
            while (member := self._tar.next()) is not None:
                if member.name == name and member.isreg():
                    return cast(Readable, self._tar.extractfile(member))
                if member.name in later:
                    break
        except tarfile.TarError as error:
            raise IntegrityError(f"the image archive is damaged: {error}") from None
        raise IntegrityError(
            f"expected {what} ({digest}) next in the image archive; it is missing or out of order "
            "(manifest, configuration, layers): build it with `sealdeal app build`"
        )

    def _document(self, digest: str, what: str) -> dict[str, Any]:
        blob = _Checked(self._blob(digest, what), digest, what, MAX_MANIFEST_BYTES)
        data = blob.read(MAX_MANIFEST_BYTES)
        blob.drain()
        try:
            document = json.loads(data)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise InvalidInput(f"expected a JSON object as {what} of the image")
        return document

    def config(self) -> Process:
        """The verified configuration's way to start the program."""
        manifest = self._document(f"sha256:{self._checksum.hex()}", "the manifest")
        if manifest.get("mediaType", MANIFEST_TYPE) not in (MANIFEST_TYPE, _DOCKER_MANIFEST):
            raise InvalidInput(
                f"expected the checksum of one platform's manifest, got {manifest['mediaType']!r}: "
                "an index names several images and measures none"
            )
        try:
            config_digest = _digest(manifest["config"])
            layers = [{"digest": _digest(d), "type": str(d["mediaType"])} for d in manifest["layers"]]
            document = self._document(config_digest, "the configuration")
            diff_ids = [str(d) for d in document["rootfs"]["diff_ids"]]
            process = document.get("config") or {}
            found = Process(
                entrypoint=_texts(process.get("Entrypoint")),
                environment=tuple(_setting(line) for line in _texts(process.get("Env"))),
                folder=str(process.get("WorkingDir") or "/"),
                arguments=_texts(process.get("Cmd")),
                hosts=declared_hosts(process),
            )
        except (KeyError, TypeError) as error:
            raise InvalidInput(f"the image's manifest or configuration lacks {error}") from None
        if not layers or len(layers) != len(diff_ids) or len(layers) > MAX_LAYERS:
            raise InvalidInput(
                f"expected 1 to {MAX_LAYERS} layers, each with its diff_id; "
                f"got {len(layers)} layers and {len(diff_ids)} diff_ids"
            )
        if not found.command(()):
            raise InvalidInput("the image names no program: set Entrypoint (sealdeal.toml: entrypoint)")
        self._layers, self._diff_ids = layers, diff_ids
        return found

    def layers(self) -> Iterator[Readable]:
        """Each layer's tar, uncompressed, in order. Read one to its end before the next."""
        left = self._max
        pending = list(zip(self._layers, self._diff_ids, strict=True))
        for number, (layer_, diff_id) in enumerate(pending, 1):
            what = f"layer {number}"
            self._layers = [later for later, _ in pending[number:]]
            stored = _Checked(self._blob(layer_["digest"], what), layer_["digest"], what, left)
            kind = layer_["type"].partition("+")[2] or layer_["type"].rpartition(".")[2]
            if kind not in ("tar", "gzip"):
                raise InvalidInput(f"{what}: expected an uncompressed or gzip layer, got {layer_['type']!r}")
            content = _Checked(_Gunzip(stored), diff_id, what, left) if kind == "gzip" else stored
            if kind == "tar" and diff_id != layer_["digest"]:
                raise IntegrityError(f"{what} of the image: its diff_id is not the digest of its tar")
            yield content
            content.drain()
            stored.drain()
            left -= content.count


def open_tar(stream: Readable) -> tarfile.TarFile:
    """A tar read in one pass. Raises tarfile.TarError."""
    return tarfile.open(fileobj=cast(IO[bytes], _FullReads(stream)), mode="r|")


class _FullReads:
    """tarfile takes a short read for the end."""

    def __init__(self, source: Readable) -> None:
        self._source = source

    def read(self, size: int, /) -> bytes:
        parts: list[bytes] = []
        while size and (part := self._source.read(size)):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


def _digest(descriptor: Any) -> str:
    digest = str(descriptor["digest"])
    kind, _, value = digest.partition(":")
    if kind != "sha256" or len(value) != 64 or set(value) - set("0123456789abcdef"):
        raise InvalidInput(f"expected a sha256 digest in the image's manifest, got {digest!r}")
    return digest


def _texts(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(v, str) and "\0" not in v for v in value):
        raise InvalidInput(f"expected a list of strings in the image's configuration, got {value!r:.80}")
    return tuple(value)


def _setting(line: str) -> tuple[str, str]:
    name, separator, value = line.partition("=")
    if not separator or not name:
        raise InvalidInput(f"expected NAME=VALUE in the image's Env, got {line!r:.80}")
    return name, value
