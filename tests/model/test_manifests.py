"""OCI's documents from strangers: read in one way, or refused by name."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealdeal.model.errors import InvalidInput
from sealdeal.model.manifests import (
    CONFIG_TYPE,
    DOCKER_LIST,
    INDEX_TYPE,
    LAYER_TYPE,
    MANIFEST_TYPE,
    Descriptor,
    Manifest,
    read_configuration,
    read_index,
    read_manifest,
)

DIGEST = "sha256:" + "ab" * 32
MANIFEST: dict[str, Any] = {
    "schemaVersion": 2,
    "mediaType": MANIFEST_TYPE,
    "config": {"mediaType": CONFIG_TYPE, "digest": DIGEST, "size": 2},
    "layers": [{"mediaType": LAYER_TYPE, "digest": DIGEST, "size": 3}],
}
CONFIG: dict[str, Any] = {
    "os": "linux",
    "architecture": "amd64",
    "config": {"Entrypoint": ["a"], "Env": ["A=b"], "WorkingDir": "/x", "Labels": {"l": "m"}},
    "rootfs": {"type": "layers", "diff_ids": [DIGEST]},
}
PARTS = Manifest(Descriptor(bytes(32), 2, CONFIG_TYPE), (Descriptor(bytes(32), 3, LAYER_TYPE),))


def text(document: Any) -> bytes:
    return json.dumps(document).encode()


def configuration(data: bytes) -> object:
    return read_configuration(data, PARTS)


def test_good_documents_are_read() -> None:
    manifest = read_manifest(text(MANIFEST))
    assert manifest.layers[0] == Descriptor(bytes.fromhex("ab" * 32), 3, LAYER_TYPE)
    assert not manifest.layers[0].packed
    found = read_configuration(text(CONFIG), manifest)
    assert found.platform == ("linux", "amd64") and found.labels == (("l", "m"),)
    assert found.process.command(["b"]) == ("a", "b") and found.process.folder == "/x"


@pytest.mark.parametrize("kind", [INDEX_TYPE, DOCKER_LIST, None])
def test_an_index_is_refused_with_what_it_names(kind: str | None) -> None:
    platform = {"os": "linux", "architecture": "amd64"}
    index = {"schemaVersion": 2, "manifests": [{**MANIFEST["config"], "platform": platform}]}
    if kind:
        index["mediaType"] = kind
    with pytest.raises(InvalidInput, match=f"linux/amd64 {DIGEST}"):
        read_manifest(text(index))
    assert read_index(text(index))[0][1] == ("linux", "amd64")


def test_a_document_that_is_both_a_manifest_and_an_index_is_neither() -> None:
    both = {**MANIFEST, "manifests": []}
    with pytest.raises(InvalidInput, match="an index"):
        read_manifest(text(both))
    with pytest.raises(InvalidInput, match="another document"):
        read_index(text(both))


@pytest.mark.parametrize("size", [-1, 1.0, "3", True, None, 1 << 63])
def test_sizes_are_whole_numbers(size: object) -> None:
    wrong = {**MANIFEST, "layers": [{**MANIFEST["layers"][0], "size": size}]}
    with pytest.raises(InvalidInput, match="the size of layer 1"):
        read_manifest(text(wrong))


@pytest.mark.parametrize(
    "document",
    [
        {**MANIFEST, "schemaVersion": 1},
        {**MANIFEST, "mediaType": "text/plain"},
        {**MANIFEST, "config": {**MANIFEST["config"], "mediaType": "application/x-policy"}},
        {**MANIFEST, "layers": MANIFEST["layers"] * 128},
        {**MANIFEST, "layers": []},
        {**MANIFEST, "layers": {}},
        {**MANIFEST, "config": None},
    ],
)
def test_other_documents_are_no_manifests(document: Any) -> None:
    with pytest.raises(InvalidInput):
        read_manifest(text(document))


@pytest.mark.parametrize(
    "changed",
    [
        {"Env": ["=x"]},
        {"Env": "A=b"},
        {"Entrypoint": "sh"},
        {"Entrypoint": ["a\0b"]},
        {"WorkingDir": "relative"},
        {"WorkingDir": ["/"]},
        {"Labels": ["a"]},
    ],
)
def test_what_starts_no_program_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        configuration(text({**CONFIG, "config": {**CONFIG["config"], **changed}}))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from([DIGEST, LAYER_TYPE]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from([read_manifest, configuration, read_index]), st.data())
def test_any_document_is_read_or_refused_by_name(
    read: Callable[[bytes], object], data: st.DataObject
) -> None:
    """Good documents with any value in any place, and bytes that are none."""
    document = json.loads(
        text(data.draw(st.sampled_from([MANIFEST, CONFIG, {"manifests": [MANIFEST["config"]]}])))
    )
    for _ in range(data.draw(st.integers(0, 3))):
        where: Any = document
        while isinstance(where, dict | list) and where:
            keys = list(where) if isinstance(where, dict) else list(range(len(where)))
            key = data.draw(st.sampled_from(keys))
            if data.draw(st.booleans()) or not isinstance(where[key], dict | list):
                where[key] = data.draw(JSON)
                break
            where = where[key]
    with contextlib.suppress(InvalidInput):
        read(text(document))
    with contextlib.suppress(InvalidInput):
        read(data.draw(st.binary(max_size=60)))


def test_nesting_without_end_is_refused() -> None:
    for data in (b"[" * 100_000, b'{"a":' * 100_000, b'{"layers":[]' + b"}" * 9):
        with pytest.raises(InvalidInput):
            read_manifest(data)
