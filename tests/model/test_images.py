"""Image archives, written: deterministic, and read back by the reader."""

from __future__ import annotations

import hashlib
import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealdeal.model.errors import InvalidInput
from sealdeal.model.images import Blob, Entry, ImageReader, archive, layer, of_bytes

names = st.text("abcxyz._-é", min_size=1, max_size=8).filter(lambda n: n not in (".", ".."))
paths = st.lists(names, min_size=1, max_size=4).map("/".join)


def entries(files: dict[str, bytes]) -> list[Entry]:
    return [Entry(path, lambda data=data: data) for path, data in files.items()]  # type: ignore[misc]


def clean(files: dict[str, bytes]) -> dict[str, bytes]:
    """Without files that lie below other files."""
    return {p: d for p, d in files.items() if not any(p.startswith(other + "/") for other in files)}


def built(*layers: bytes, entrypoint: tuple[str, ...] = ("run",)) -> tuple[bytes, bytes]:
    process = {"Entrypoint": list(entrypoint), "Env": ["A=b=c"], "WorkingDir": "/app"}
    image = archive(
        [(f"layer {n}", of_bytes(data)) for n, data in enumerate(layers)],
        architecture="amd64",
        process=process,
        labels={"x": "y"},
    )
    return b"".join(image.chunks()), image.checksum


@given(st.dictionaries(paths, st.binary(max_size=600), max_size=6).map(clean), st.randoms())
def test_a_layer_depends_on_its_files_only_and_holds_them(files: dict[str, bytes], random: object) -> None:
    shuffled = entries(files)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    data = b"".join(layer(entries(files)))
    assert data == b"".join(layer(shuffled))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        found = {m.name: tar.extractfile(m) for m in tar if m.isreg()}
        assert {name: file.read() for name, file in found.items() if file} == files
        assert all(m.mtime == m.uid == m.gid == 0 and not m.uname for m in tar)


@pytest.mark.parametrize("bad", ["/a", "a//b", "a/", "../a", "a/../b", "./a", ""])
def test_paths_are_relative_and_plain(bad: str) -> None:
    with pytest.raises(InvalidInput):
        list(layer([Entry(bad, lambda: b"")]))


def test_a_path_is_there_once() -> None:
    with pytest.raises(InvalidInput):
        list(layer([Entry("a", lambda: b"1"), Entry("a", lambda: b"2")]))


@given(st.lists(st.binary(max_size=2000), min_size=1, max_size=4))
def test_the_reader_gives_back_what_was_written(layers: list[bytes]) -> None:
    data, checksum = built(*layers)
    reader = ImageReader(io.BytesIO(data), checksum, max_bytes=1 << 20)
    process = reader.config()
    assert process.command(["1"]) == ("run", "1")
    assert process.environment == (("A", "b=c"),) and process.folder == "/app"
    came = []
    for content in reader.layers():
        parts = []
        while part := content.read(7):
            parts.append(part)
        came.append(b"".join(parts))
    assert came == layers


def test_the_archive_is_an_oci_layout_whose_checksum_is_the_manifests() -> None:
    data, checksum = built(b"tar")
    assert data == built(b"tar")[0] and checksum != built(b"other")[1]
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.getnames()[:3] == ["oci-layout", "index.json", f"blobs/sha256/{checksum.hex()}"]
        for member in tar:
            if member.name.startswith("blobs/"):
                file = tar.extractfile(member)
                assert file and member.name.endswith(hashlib.sha256(file.read()).hexdigest())


def test_default_arguments_give_way_to_the_callers() -> None:
    data, checksum = built(b"tar", entrypoint=())
    with pytest.raises(InvalidInput, match="names no program"):
        ImageReader(io.BytesIO(data), checksum, max_bytes=9999).config()


def test_a_blob_knows_its_digest() -> None:
    blob: Blob = of_bytes(b"x")
    assert blob.digest == hashlib.sha256(b"x").digest() and list(blob.chunks()) == [b"x"]
