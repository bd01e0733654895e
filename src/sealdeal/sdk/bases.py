"""Images that apps are built on: an OCI layout, as a folder or in one tar, or what a registry has.

Tools write such layouts with `skopeo copy … oci-archive:FILE`, `buildah push … oci:FOLDER`, `docker save` (of
Docker 25 and newer). Of a layout with images for several machines the one for this machine is taken.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from sealdeal.model.errors import IntegrityError, InvalidInput, NotFound
from sealdeal.model.images import Blob
from sealdeal.model.manifests import (
    DOCKER_LIST,
    INDEX_TYPE,
    MAX_DOCUMENT_BYTES,
    Configuration,
    Descriptor,
    digest_text,
    read_configuration,
    read_index,
    read_manifest,
)
from sealdeal.model.tars import Kind, members
from sealdeal.model.types import Bytes32

from .registry import Reference, Registries

MAX_BASE_BYTES: Final = 16 << 30
"""Of a base image's layers as a registry stores them."""
_CHUNK: Final = 1 << 20
_DEPTH: Final = 3


@dataclass(frozen=True, slots=True)
class Base:
    """An image to build on. Its documents are verified; whoever reads its layers compares them."""

    digest: Bytes32
    """Of its manifest."""
    configuration: Configuration
    layers: tuple[Blob, ...]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a file of a layout lies."""

    path: Path
    start: int
    size: int

    def read(self) -> bytes:
        if self.size > MAX_DOCUMENT_BYTES:
            raise InvalidInput(f"{self.path}: expected a document of at most {MAX_DOCUMENT_BYTES} bytes")
        return b"".join(self.chunks())

    def chunks(self) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            file.seek(self.start)
            left = self.size
            while left and (piece := file.read(min(left, _CHUNK))):
                left -= len(piece)
                yield piece


def read_base(source: Path, machine: str) -> Base:
    """The image for `machine` (OCI's name) in the layout at `source`.

    Raises InvalidInput, IntegrityError, NotFound when there is no such file.
    """
    if not source.exists():
        raise NotFound(f"expected an image's layout at {source}, which is not there")
    files = _files_in(source)
    if "index.json" not in files:
        raise InvalidInput(
            f"{source}: expected an OCI layout, with an index.json; write one with "
            "`skopeo copy … oci-archive:FILE` or a `docker save` of Docker 25"
        )
    found = list(_manifests(files, files["index.json"].read(), source))
    fitting = [d for d, platform in found if platform in (("linux", machine), ("", ""))]
    if len(fitting) != 1:
        listed = ", ".join(f"{'/'.join(p)} {digest_text(d.digest)}" for d, p in found) or "none"
        raise InvalidInput(f"{source}: expected one image for linux/{machine}, got: {listed:.1000}")
    digest = fitting[0].digest
    manifest = read_manifest(_blob(files, digest, source))
    configuration = read_configuration(_blob(files, manifest.config.digest, source), manifest)
    if configuration.platform != ("linux", machine):
        raise InvalidInput(
            f"{source}: expected an image for linux/{machine}, got one for {'/'.join(configuration.platform)}"
        )
    layers = []
    for layer, diff_id in zip(manifest.layers, configuration.diff_ids, strict=True):
        place = _place(files, layer.digest, source)
        if place.size != layer.size:
            raise IntegrityError(f"{source}: expected {layer.size} bytes of a layer, got {place.size}")
        layers.append(
            Blob(layer.digest, layer.size, partial(place.chunks), diff_id if layer.packed else None)
        )
    return Base(digest, configuration, tuple(layers))


async def fetch_base(text: str, cache: Path, registries: Registries) -> Path:
    """The archive of a registry's image, kept in `cache`; `text` names it by digest.

    Raises InvalidInput, and what `Registries.pull` raises.
    """
    reference = Reference.parse(text)
    if reference.digest is None:
        raise InvalidInput(
            f"expected a base image by digest, as {reference.host}/{reference.repository}@sha256:…, got "
            f"{text!r:.200}: what a tag names changes, and with it the app's checksum"
        )
    place = cache / "bases" / f"{reference.digest.hex()}.tar"
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        await registries.pull(reference, reference.digest, place, limit=MAX_BASE_BYTES)
    return place


def _files_in(source: Path) -> Mapping[str, _Place]:
    if source.is_dir():
        inside = [path for path in source.rglob("*") if path.is_file()]
        return {str(path.relative_to(source)): _Place(path, 0, path.stat().st_size) for path in inside}
    found = {}
    try:
        with source.open("rb") as file:
            for member in members(file):
                if member.kind is Kind.FILE:
                    found[member.name.removeprefix("./")] = _Place(source, file.tell(), member.size)
    except InvalidInput as error:
        raise InvalidInput(f"{source}: expected an image's layout in a tar, got: {error}") from None
    return found


def _manifests(
    files: Mapping[str, _Place], index: bytes, source: Path, depth: int = _DEPTH
) -> Iterator[tuple[Descriptor, tuple[str, str]]]:
    """The manifests of an index and of the indexes in it."""
    for descriptor, platform in read_index(index):
        if descriptor.media_type in (INDEX_TYPE, DOCKER_LIST):
            if not depth:
                raise InvalidInput(f"{source}: expected indexes in indexes at most {_DEPTH} deep")
            yield from _manifests(files, _blob(files, descriptor.digest, source), source, depth - 1)
        else:
            yield descriptor, platform


def _place(files: Mapping[str, _Place], digest: Bytes32, source: Path) -> _Place:
    try:
        return files[f"blobs/sha256/{digest.hex()}"]
    except KeyError:
        raise InvalidInput(f"{source}: the layout lacks {digest_text(digest)}") from None


def _blob(files: Mapping[str, _Place], digest: Bytes32, source: Path) -> bytes:
    data = _place(files, digest, source).read()
    if (came := hashlib.sha256(data).digest()) != digest:
        raise IntegrityError(f"{source}: expected {digest_text(digest)}, got {digest_text(came)}")
    return data
