"""Hostile images: nothing leaves the root, and what differs from its digest is refused."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import shutil
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sealdeal.guest.unpack import unpack_image
from sealdeal.model import images
from sealdeal.model.errors import IntegrityError, InvalidInput, SealdealError, TooLarge
from sealdeal.model.images import ImageReader
from sealdeal.model.manifests import INDEX_TYPE, MANIFEST_TYPE

LAYER = "application/vnd.oci.image.layer.v1.tar"


def member(name: str, data: bytes | None = None, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data or b"")
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data or b""


def tar(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Image:
    """An archive of these layers; each part can be replaced before it is written."""

    def __init__(self, *layers: bytes, types: tuple[str, ...] = (), diff_ids: tuple[str, ...] = ()) -> None:
        self.layers = layers
        config = {
            "config": {"Entrypoint": ["/bin/app"]},
            "rootfs": {"diff_ids": list(diff_ids or map(digest, layers))},
        }
        self.config = json.dumps(config).encode()
        types = types or (LAYER,) * len(layers)
        self.manifest = {
            "mediaType": MANIFEST_TYPE,
            "config": {"digest": digest(self.config), "size": len(self.config)},
            "layers": [
                {"mediaType": t, "digest": digest(x), "size": len(x)}
                for t, x in zip(types, layers, strict=True)
            ],
        }

    def archive(self, reorder: Callable[[list[Any]], list[Any]] = lambda blobs: blobs) -> tuple[bytes, bytes]:
        """(the archive, its checksum)"""
        manifest = json.dumps(self.manifest).encode()
        blobs = [(digest(b), b) for b in (manifest, self.config, *self.layers)]
        named = [member("oci-layout", b"{}")]
        named += [member("blobs/sha256/" + d.removeprefix("sha256:"), b) for d, b in reorder(blobs)]
        return tar(*named), hashlib.sha256(manifest).digest()


def unpack(image: Image | tuple[bytes, bytes], root: Path, limit: int = 1 << 24) -> images.Process:
    data, checksum = image.archive() if isinstance(image, Image) else image
    root.mkdir()
    return unpack_image(ImageReader(io.BytesIO(data), checksum, max_bytes=limit), root)


def test_layers_stack_with_whiteouts_links_and_modes(tmp_path: Path) -> None:
    lower = tar(
        member("bin/app", b"old", mode=0o6755, uid=7),
        member("etc/old", b"x"),
        member("var/", type=tarfile.DIRTYPE),
        member("var/a", b"a"),
        member("var/b", b"b"),
        member("name", type=tarfile.SYMTYPE, linkname="bin/app"),
        member("same", type=tarfile.LNKTYPE, linkname="bin/app"),
        member("dev/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
        member("pipe", type=tarfile.FIFOTYPE),
    )
    upper = tar(
        member("etc/.wh.old", b""),
        member("var/.wh..wh..opq", b""),
        member("var/c", b"c"),
        member("bin/app", b"new", mode=0o755),
    )
    process = unpack(Image(lower, upper), tmp_path / "root")
    root = tmp_path / "root"
    assert process.command(["x"]) == ("/bin/app", "x")
    assert (root / "bin/app").read_bytes() == b"new" and (root / "same").read_bytes() == b"old"
    assert (root / "bin/app").stat().st_mode & 0o7777 == 0o755
    assert os.readlink(root / "name") == "bin/app"
    assert sorted(p.name for p in (root / "var").iterdir()) == ["c"]
    assert not (root / "etc/old").exists() and not (root / "pipe").exists()
    assert not (root / "dev/null").exists()


ESCAPES = {
    "a path upwards": [member("../outside", b"x")],
    "a path upwards inside": [member("a/../../outside", b"x")],
    "a folder link, then through it": [
        member("way", type=tarfile.SYMTYPE, linkname="OUTSIDE"),
        member("way/file", b"x"),
    ],
    "a relative folder link, then through it": [
        member("way", type=tarfile.SYMTYPE, linkname=".."),
        member("way/outside", b"x"),
    ],
    "a whiteout through a link": [
        member("way", type=tarfile.SYMTYPE, linkname="OUTSIDE"),
        member("way/.wh.precious", b""),
    ],
    "an opaque mark through a link": [
        member("way", type=tarfile.SYMTYPE, linkname="OUTSIDE"),
        member("way/.wh..wh..opq", b""),
    ],
    "a hard link upwards": [member("h", type=tarfile.LNKTYPE, linkname="../precious")],
    "a hard link through a link": [
        member("way", type=tarfile.SYMTYPE, linkname="OUTSIDE"),
        member("h", type=tarfile.LNKTYPE, linkname="way/precious"),
    ],
    "a hard link to a link": [
        member("way", type=tarfile.SYMTYPE, linkname="OUTSIDE/precious"),
        member("h", type=tarfile.LNKTYPE, linkname="way"),
    ],
}


@pytest.mark.parametrize("members", ESCAPES.values(), ids=ESCAPES.keys())
def test_no_layer_reaches_outside_the_root(
    tmp_path: Path, members: list[tuple[tarfile.TarInfo, bytes]]
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("precious")
    for info, _ in members:
        info.linkname = info.linkname.replace("OUTSIDE", str(outside))
    with pytest.raises(InvalidInput):
        unpack(Image(tar(*members)), tmp_path / "root")
    assert {p.name: p.read_text() for p in outside.iterdir()} == {"precious": "precious"}


@pytest.mark.parametrize(
    "name", [".wh.", ".wh..", ".wh...", "d/.wh..", "d/.wh...", ".wh..wh.", "d/.wh..wh.x"]
)
def test_a_whiteout_hides_a_name_in_its_folder_and_nothing_else(tmp_path: Path, name: str) -> None:
    beside = tmp_path / "inner" / "beside"
    beside.parent.mkdir()
    beside.write_text("precious")
    with pytest.raises(InvalidInput, match="a whiteout of a name"):
        unpack(Image(tar(member("d/f", b"x"), member(name, b""))), tmp_path / "inner" / "root")
    assert beside.read_text() == "precious" and (tmp_path / "inner/root/d/f").read_bytes() == b"x"


def test_whiteouts_hide_lower_layers_only_wherever_they_stand(tmp_path: Path) -> None:
    lower = tar(member("d/old", b""), member("d/e/old", b""), member("f", b"old"), member("g/old", b""))
    upper = tar(
        member("d/.first", b"new"),
        member("d/e/new", b"new"),
        member("d/.wh..wh..opq", b""),
        member("f", b"new"),
        member(".wh.f", b""),
        member("g/", type=tarfile.DIRTYPE),
        member(".wh.g", b""),
    )
    unpack(Image(lower, upper), tmp_path / "root")
    root = tmp_path / "root"
    assert sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()) == [
        *("d/.first", "d/e/new", "f"),
    ]
    assert (root / "f").read_bytes() == b"new" and list((root / "g").iterdir()) == []


@pytest.mark.parametrize(
    "members",
    [
        [member("a", b"1"), member("a", b"2")],
        [member("a", b"1"), member("./a", b"2")],
        [member("a/b", b"1"), member("a", b"2")],
        [member("a", b"1"), member("a/", type=tarfile.DIRTYPE)],
        [member("a", b"1"), member("a", type=tarfile.FIFOTYPE)],
        [member("a", b"1"), member("b", b"2"), member("b", type=tarfile.LNKTYPE, linkname="a")],
        [member("a", type=tarfile.SYMTYPE, linkname="b"), member("a", b"1")],
    ],
)
def test_a_layer_lays_a_path_once(tmp_path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    with pytest.raises(InvalidInput, match="once in a layer"):
        unpack(Image(tar(*members)), tmp_path / "root")


def test_a_device_hides_what_was_there_and_is_not_made(tmp_path: Path) -> None:
    upper = tar(member("f", type=tarfile.CHRTYPE), member("d", type=tarfile.FIFOTYPE))
    unpack(Image(tar(member("f", b"1"), member("d/g", b"2")), upper), tmp_path / "root")
    assert list((tmp_path / "root").iterdir()) == []


def test_deep_trees_and_long_paths_are_refused(tmp_path: Path) -> None:
    unpack(Image(tar(member("d/" * 127 + "f", b"")), tar(member(".wh.d", b""))), tmp_path / "deep")
    assert list((tmp_path / "deep").iterdir()) == []
    for number, name in enumerate(("d/" * 128 + "f", "x" * 300, "/".join(["y" * 200] * 21))):
        with pytest.raises(InvalidInput):
            unpack(Image(tar(member(name, b""))), tmp_path / str(number))


def test_folders_on_the_way_count_as_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sealdeal.guest.unpack.MAX_ENTRIES", 5)
    unpack(Image(tar(member("a/b/c/d/", type=tarfile.DIRTYPE))), tmp_path / "four")
    with pytest.raises(TooLarge, match="at most 5 files"):
        unpack(Image(tar(member("a/b/c/d/e/f", b""))), tmp_path / "six")


def test_absolute_names_are_inside_the_root(tmp_path: Path) -> None:
    name = str(tmp_path / "escaped")
    unpack(Image(tar(member(name, b"x"))), tmp_path / "root")
    assert not (tmp_path / "escaped").exists()
    assert (tmp_path / "root" / name.lstrip("/")).read_bytes() == b"x"


def test_a_file_replaces_a_link_without_following_it(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    first = tar(member("file", type=tarfile.SYMTYPE, linkname=str(victim)))
    unpack(Image(first, tar(member("file", b"new"))), tmp_path / "root")
    assert victim.read_text() == "precious"
    assert (tmp_path / "root" / "file").read_bytes() == b"new"


def test_gzip_layers_are_read_and_their_bombs_stopped(tmp_path: Path) -> None:
    plain = tar(member("zeros", bytes(1 << 20)))
    packed, kind = gzip.compress(plain, mtime=0), LAYER + "+gzip"
    good = Image(packed, types=(kind,), diff_ids=(digest(plain),))
    unpack(good, tmp_path / "good")
    assert (tmp_path / "good/zeros").stat().st_size == 1 << 20
    with pytest.raises(TooLarge):
        unpack(good, tmp_path / "small", limit=100_000)
    lies = Image(packed, types=(kind,), diff_ids=(digest(b"something else"),))
    with pytest.raises(IntegrityError):
        unpack(lies, tmp_path / "lies")
    several = gzip.compress(plain[:5000], mtime=0) + gzip.compress(plain[5000:], mtime=0)
    unpack(Image(several, types=(kind,), diff_ids=(digest(plain),)), tmp_path / "several")
    assert (tmp_path / "several/zeros").stat().st_size == 1 << 20
    for name, tail in {"zeros": bytes(512), "more": b"PK"}.items():
        with pytest.raises(IntegrityError):
            unpack(Image(packed + tail, types=(kind,), diff_ids=(digest(plain),)), tmp_path / name)
    with pytest.raises(IntegrityError):
        cut = Image(packed[:-50], types=(kind,), diff_ids=(digest(plain),))
        unpack(cut, tmp_path / "cut")


def test_a_layer_may_not_exceed_what_is_left(tmp_path: Path) -> None:
    with pytest.raises(TooLarge):
        unpack(Image(tar(member("a", bytes(1 << 20)))), tmp_path / "root", limit=1 << 19)


def test_digests_bind_every_blob(tmp_path: Path) -> None:
    image = Image(tar(member("a", b"one")), tar(member("b", b"two")))
    archive, checksum = image.archive()
    for number, needle in enumerate((b'"layers"', b"Entrypoint", b"one", b"two")):
        altered = bytearray(archive)
        altered[altered.index(needle)] ^= 1
        with pytest.raises(IntegrityError):
            unpack((bytes(altered), checksum), tmp_path / str(number))
    with pytest.raises(IntegrityError, match="manifest"):
        unpack((archive, bytes(32)), tmp_path / "other")


def test_parts_out_of_order_or_missing_are_named(tmp_path: Path) -> None:
    image = Image(tar(member("a", b"1")), tar(member("b", b"2")))
    backwards = image.archive(lambda blobs: blobs[::-1])
    with pytest.raises(IntegrityError, match="out of order"):
        unpack(backwards, tmp_path / "backwards")
    with pytest.raises(IntegrityError, match="layer 2"):
        unpack(image.archive(lambda blobs: blobs[:-1]), tmp_path / "short")


def test_sizes_that_lie_are_refused(tmp_path: Path) -> None:
    for number, part in enumerate(("config", "layers")):
        for difference in (-1, 1):
            image = Image(tar(member("a", b"1")))
            told = image.manifest[part]
            told = told[0] if isinstance(told, list) else told
            assert isinstance(told, dict)
            told["size"] += difference
            with pytest.raises(IntegrityError, match="bytes, got"):
                unpack(image, tmp_path / f"{number}{difference}")


def test_documents_that_say_a_thing_twice_are_refused(tmp_path: Path) -> None:
    image = Image(tar(member("a", b"1")))
    image.config = image.config.replace(b'{"config"', b'{"config": {"Entrypoint": ["/evil"]}, "config"')
    image.manifest["config"] = {"digest": digest(image.config), "size": len(image.config)}
    with pytest.raises(InvalidInput, match="once"):
        unpack(image, tmp_path / "root")


@pytest.mark.parametrize(
    "kind", [LAYER + "+zstd", "application/vnd.oci.image.layer.nondistributable.v1.tar", ""]
)
def test_layers_of_other_types_are_named(tmp_path: Path, kind: str) -> None:
    with pytest.raises(InvalidInput, match="uncompressed or gzip layer"):
        unpack(Image(tar(member("a", b"1")), types=(kind,)), tmp_path / "root")


def test_an_index_is_no_image(tmp_path: Path) -> None:
    image = Image(tar(member("a", b"1")))
    image.manifest["mediaType"] = INDEX_TYPE
    with pytest.raises(InvalidInput, match="one platform"):
        unpack(image, tmp_path / "root")


@pytest.mark.parametrize(
    "change",
    [
        {"layers": []},
        {"layers": [{"digest": "md5:00", "mediaType": LAYER}]},
        {"layers": "none"},
        {"layers": [{"digest": "sha256:../../x", "mediaType": LAYER}]},
        {"config": {}},
    ],
)
def test_malformed_manifests_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    image = Image(tar(member("a", b"1")))
    image.manifest |= change
    with pytest.raises(SealdealError):
        unpack(image, tmp_path / "root")


@pytest.mark.parametrize("data", [b"", b"not a tar", b"\x00" * 10240, b"\x1f\x8b"])
def test_what_is_no_archive_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises((IntegrityError, InvalidInput)):
        unpack((data, bytes(32)), tmp_path / "root")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_archive_never_raises_anything_unnamed(tmp_path: Path, data: st.DataObject) -> None:
    archive, checksum = Image(tar(member("a/b", b"one"), member("c", b"two"))).archive()
    altered = bytearray(archive[: data.draw(st.integers(0, len(archive)))])
    for _ in range(data.draw(st.integers(0, 6))):
        if altered:
            altered[data.draw(st.integers(0, len(altered) - 1))] = data.draw(st.integers(0, 255))
    root = tmp_path / hashlib.sha256(altered).hexdigest()
    if root.exists():
        return
    with contextlib.suppress(SealdealError):
        unpack((bytes(altered), checksum), root)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_hostile_tar_of_the_right_digest_is_unpacked_inside_or_refused(
    tmp_path: Path, data: st.DataObject
) -> None:
    members = [
        member("d/f", b"one"),
        member("l", type=tarfile.SYMTYPE, linkname="d"),
        member("d/g" * 40, b"2"),
    ]
    layer = bytearray(tar(*members, member("h", type=tarfile.LNKTYPE, linkname="d/f")))
    for _ in range(data.draw(st.integers(1, 12))):
        layer[data.draw(st.integers(0, len(layer) - 1))] = data.draw(st.integers(0, 255))
    inner = tmp_path / hashlib.sha256(layer).hexdigest()
    if inner.exists():
        return
    inner.mkdir()
    with contextlib.suppress(SealdealError):
        unpack(Image(bytes(layer)), inner / "root")
    assert [p.name for p in inner.iterdir()] == ["root"]


NASTY = st.sampled_from(
    [
        "a",
        "b",
        "d",
        "..",
        ".",
        "",
        ".wh.a",
        ".wh.d",
        ".wh..wh..opq",
        ".wh.",
        ".wh..",
        ".wh...",
        "dataset",
        "é",
    ]
)
WAYS = st.lists(NASTY, min_size=1, max_size=4).map("/".join)
TYPES = (tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE)


@st.composite
def hostile_members(draw: st.DrawFn) -> tuple[tarfile.TarInfo, bytes]:
    """A member with a right header, and names and links that mean no good."""
    kind = draw(st.sampled_from(TYPES))
    data = draw(st.binary(max_size=9)) if kind == tarfile.REGTYPE else b""
    target = draw(WAYS | st.just("OUTSIDE") | st.just("../dataset")) if kind in TYPES[2:4] else ""
    return member(draw(WAYS) or "x", data, type=kind, linkname=target, mode=draw(st.integers(0, 0o7777)))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(hostile_members(), max_size=6), min_size=1, max_size=3), st.uuids(version=4))
def test_layers_that_mean_no_good_change_nothing_beside_the_root(
    tmp_path: Path, layers: list[list[tuple[tarfile.TarInfo, bytes]]], name: object
) -> None:
    folder = tmp_path / str(name)
    (folder / "work").mkdir(parents=True)
    (folder / "outside").mkdir()
    for place in ("work/dataset", "outside/a"):
        (folder / place).write_text("precious")
    for info, _ in (each for layer in layers for each in layer):
        info.linkname = info.linkname.replace("OUTSIDE", str(folder / "outside"))
    with contextlib.suppress(InvalidInput):
        unpack(Image(*(tar(*layer) for layer in layers)), folder / "work/root")
    files = {str(p.relative_to(folder)): p for p in folder.rglob("*") if not p.is_dir()}
    beside = {name: p.read_text() for name, p in files.items() if not name.startswith("work/root/")}
    assert beside == {"work/dataset": "precious", "outside/a": "precious"}
    for path in (folder / "work/root").rglob("*"):
        status = path.lstat()
        assert stat.S_IFMT(status.st_mode) in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK)
        assert stat.S_ISLNK(status.st_mode) or not status.st_mode & 0o7022
    shutil.rmtree(folder)
