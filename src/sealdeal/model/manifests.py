"""OCI's documents: what an image is made of, and how its program starts. Read from strangers, so strictly.

An image is named by the digest of its manifest for one platform. An index names several images and measures
none, and a document that could be read as either is refused, as is one that says something twice.

Formats: https://github.com/opencontainers/image-spec (descriptor, manifest, config), and Docker's schema 2,
whose documents differ in the names of types only.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from .errors import InvalidInput
from .hosts import Host, declared_hosts
from .types import Bytes32

MANIFEST_TYPE: Final = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE: Final = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE: Final = "application/vnd.oci.image.layer.v1.tar"
INDEX_TYPE: Final = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
_DOCKER_CONFIG: Final = "application/vnd.docker.container.image.v1+json"
_PLAIN: Final = (LAYER_TYPE, "application/vnd.docker.image.rootfs.diff.tar")
_GZIP: Final = (LAYER_TYPE + "+gzip", "application/vnd.docker.image.rootfs.diff.tar.gzip")

MACHINES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
"""OCI's names of machines, by the kernel's."""
MAX_DOCUMENT_BYTES: Final = 4 << 20
"""The OCI distribution specification's own bound for a manifest."""
MAX_LAYERS: Final = 127
"""As many as Docker's overlay driver stacks."""


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Bytes that a document points to."""

    digest: Bytes32
    size: int
    media_type: str

    @property
    def packed(self) -> bool:
        """Whether it is a layer in gzip."""
        return self.media_type in _GZIP


@dataclass(frozen=True, slots=True)
class Manifest:
    """The parts of one platform's image."""

    config: Descriptor
    layers: tuple[Descriptor, ...]


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


@dataclass(frozen=True, slots=True)
class Configuration:
    """What an image's configuration says."""

    process: Process
    diff_ids: tuple[Bytes32, ...]
    """The digest of each layer's tar, as it is before it is packed."""
    platform: tuple[str, str]
    """(operating system, machine), in OCI's words: linux, amd64."""
    labels: tuple[tuple[str, str], ...]


def read_manifest(data: bytes) -> Manifest:
    """Raises InvalidInput, which for an index names the images in it."""
    document = _document(data, "the manifest")
    kind = document.get("mediaType", MANIFEST_TYPE)
    if "manifests" in document or kind in (INDEX_TYPE, DOCKER_LIST):
        raise InvalidInput(
            "expected the checksum of one platform's manifest, got an index: it names several images and "
            f"measures none. Register the digest of one of them: {_images_in(document)}"
        )
    if kind not in (MANIFEST_TYPE, DOCKER_MANIFEST) or document.get("schemaVersion", 2) != 2:
        raise InvalidInput(f"expected an image's manifest of schema 2, got one of type {kind!r:.100}")
    try:
        config = descriptor(document["config"], "the configuration", CONFIG_TYPE)
        given = document["layers"]
        if not isinstance(given, list):
            raise InvalidInput(f"expected a list of layers in the image's manifest, got {given!r:.40}")
        layers = tuple(descriptor(layer, f"layer {n}") for n, layer in enumerate(given, 1))
    except KeyError as error:
        raise InvalidInput(f"the image's manifest lacks {error}") from None
    if config.media_type not in (CONFIG_TYPE, _DOCKER_CONFIG):
        raise InvalidInput(f"expected a manifest of an image, got one of {config.media_type!r:.100}")
    for number, layer in enumerate(layers, 1):
        if layer.media_type not in _PLAIN + _GZIP:
            raise InvalidInput(
                f"layer {number}: expected an uncompressed or gzip layer, got {layer.media_type!r:.100}; "
                "push the image again with gzip layers"
            )
    if not 1 <= len(layers) <= MAX_LAYERS:
        raise InvalidInput(f"expected 1 to {MAX_LAYERS} layers in an image, got {len(layers)}")
    return Manifest(config, layers)


def read_configuration(data: bytes, manifest: Manifest) -> Configuration:
    """The configuration of that manifest's image. Raises InvalidInput."""
    document = _document(data, "the configuration")
    try:
        given = document["rootfs"]["diff_ids"]
        process = document.get("config") or {}
        if not isinstance(given, list) or not isinstance(process, dict):
            raise InvalidInput("expected diff_ids and a config in the image's configuration")
        labels = process.get("Labels") or {}
        found = Configuration(
            Process(
                entrypoint=_texts(process.get("Entrypoint")),
                environment=tuple(_setting(line) for line in _texts(process.get("Env"))),
                folder=_folder(process.get("WorkingDir")),
                arguments=_texts(process.get("Cmd")),
                hosts=declared_hosts(process),
            ),
            tuple(parse_digest(each) for each in given),
            (str(document.get("os", "")), str(document.get("architecture", ""))),
            tuple((str(name), str(value)) for name, value in labels.items()),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise InvalidInput(f"the image's configuration lacks something, or has it wrong: {error}") from None
    if len(manifest.layers) != len(found.diff_ids):
        raise InvalidInput(
            "expected a diff_id for each layer of the image; "
            f"got {len(manifest.layers)} layers and {len(found.diff_ids)} diff_ids"
        )
    return found


def read_index(data: bytes) -> list[tuple[Descriptor, tuple[str, str]]]:
    """The manifests that an index names, each with its platform, empty where it says none."""
    document = _document(data, "the index")
    if "layers" in document or "config" in document or not isinstance(document.get("manifests"), list):
        raise InvalidInput("expected an index of images, got another document")
    found = []
    for each in document["manifests"]:
        platform = each.get("platform") if isinstance(each, dict) else None
        platform = platform if isinstance(platform, dict) else {}
        known = (str(platform.get("os", "")), str(platform.get("architecture", "")))
        found.append((descriptor(each, "a manifest of the index", MANIFEST_TYPE), known))
    return found


def descriptor(given: Any, what: str, kind: str = "") -> Descriptor:
    """`kind`: the type that it has when it says none. Raises InvalidInput."""
    try:
        digest, size, media_type = given["digest"], given["size"], given.get("mediaType", kind)
    except (KeyError, TypeError, AttributeError):
        raise InvalidInput(f"expected mediaType, digest and size of {what}, got {given!r:.100}") from None
    if type(size) is not int or not 0 <= size < 1 << 63:
        raise InvalidInput(f"expected the size of {what} of the image in bytes, got {size!r:.40}")
    return Descriptor(parse_digest(digest), size, str(media_type))


def parse_digest(given: Any) -> Bytes32:
    """The bytes of `sha256:HEX`. Raises InvalidInput."""
    kind, _, value = str(given).partition(":")
    if kind != "sha256" or len(value) != 64 or set(value) - set("0123456789abcdef"):
        raise InvalidInput(f"expected a sha256 digest in an image's documents, got {given!r:.100}")
    return bytes.fromhex(value)


def digest_text(digest: Bytes32) -> str:
    return f"sha256:{digest.hex()}"


def _document(data: bytes, what: str) -> dict[str, Any]:
    if len(data) > MAX_DOCUMENT_BYTES:
        raise InvalidInput(f"expected at most {MAX_DOCUMENT_BYTES} bytes as {what} of the image")
    try:
        document = json.loads(data, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise InvalidInput(f"expected a JSON object as {what} of the image")
    return document


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of two members of one name, one reader takes the first and another the last."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise InvalidInput("expected each member of an image's JSON documents once")
    return found


def _images_in(index: dict[str, Any]) -> str:
    lines = []
    given = index.get("manifests")
    for each in given[:20] if isinstance(given, list) else ():
        if isinstance(each, dict):
            platform = each.get("platform")
            platform = platform if isinstance(platform, dict) else {}
            name = f"{platform.get('os', '?')}/{platform.get('architecture', '?')}"
            lines.append(f"{name:.40} {each.get('digest', '?')!s:.80}")
    return "; ".join(lines) or "(it lists none)"


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


def _folder(value: Any) -> str:
    folder = value or "/"
    if not isinstance(folder, str) or not folder.startswith("/") or "\0" in folder:
        raise InvalidInput(f"expected an absolute WorkingDir of the image, got {value!r:.80}")
    return folder
