"""Apps on other images: what lies below comes from a layout or a registry, byte for byte or not at all."""

from __future__ import annotations

import gzip
import hashlib
import json
import platform
import tarfile
from pathlib import Path
from typing import Any

import pytest

from sealdeal.model.errors import IntegrityError, InvalidInput, NotFound
from sealdeal.model.hosts import HOSTS_LABEL
from sealdeal.model.images import Entry, layer
from sealdeal.model.manifests import DOCKER_MANIFEST, INDEX_TYPE, LAYER_TYPE, MACHINES, MANIFEST_TYPE
from sealdeal.sdk.bases import fetch_base, read_base
from sealdeal.sdk.images import build_app_image
from sealdeal.sdk.registry import Reference, Registries
from tests.registry import running

from .test_images import blobs, config, project, run, unpacked

HERE = MACHINES.get(platform.machine(), platform.machine())
OTHER = "s390x"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Layout:
    """An OCI layout in a folder, as other tools write it: gzip layers, indexes in indexes, Docker's types."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "blobs/sha256").mkdir(parents=True)
        (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def put(self, data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
        (self.folder / "blobs" / digest(data).replace(":", "/")).write_bytes(data)
        return {"mediaType": media_type, "digest": digest(data), "size": len(data), **more}

    def image(self, text: bytes, machine: str = HERE, **process: Any) -> dict[str, Any]:
        tar = b"".join(layer([Entry("base/file", lambda: text)]))
        told = {
            "architecture": machine,
            "os": "linux",
            "config": {"Env": ["PATH=/base", "LANG=C"], **process},
            "rootfs": {"type": "layers", "diff_ids": [digest(tar), digest(tar)]},
        }
        document = {
            "schemaVersion": 2,
            "mediaType": DOCKER_MANIFEST,
            "config": self.put(json.dumps(told).encode(), "application/vnd.docker.container.image.v1+json"),
            "layers": [
                self.put(gzip.compress(tar), "application/vnd.docker.image.rootfs.diff.tar.gzip"),
                self.put(tar, LAYER_TYPE),
            ],
        }
        where = {"os": "linux", "architecture": machine}
        return self.put(json.dumps(document).encode(), DOCKER_MANIFEST, platform=where)

    def index(self, *manifests: dict[str, Any], top: bool = True) -> dict[str, Any]:
        data = json.dumps({"schemaVersion": 2, "manifests": manifests}).encode()
        if top:
            (self.folder / "index.json").write_bytes(data)
        return self.put(data, INDEX_TYPE)


def test_an_app_on_another_apps_image_runs_with_what_lies_below(tmp_path: Path, cache: Path) -> None:
    below = project(tmp_path / "below", main="print('below')", hosts=["api.example.org:443"])
    (below / "tool.py").write_text("def greet(): return 'from below'")
    base = build_app_image(below, cache=cache)
    folder = project(tmp_path / "above", main="import tool; print(tool.greet())")
    built = build_app_image(folder, cache=cache, base=base.archive)
    assert run(unpacked(built, tmp_path / "root"), "python3", "main.py") == "from below\n"
    told = config(built)
    labels = told["config"]["Labels"]
    assert labels["org.opencontainers.image.base.digest"] == "sha256:" + base.checksum.hex()
    assert HOSTS_LABEL in config(base)["config"]["Labels"] and HOSTS_LABEL not in labels
    assert told["rootfs"]["diff_ids"][:2] == config(base)["rootfs"]["diff_ids"]
    again = build_app_image(folder, cache=tmp_path / "elsewhere", base=base.archive)
    assert again.checksum == built.checksum


def test_layers_stay_as_they_are_packed_and_the_machines_image_is_found(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "layout")
    inner = layout.index(
        layout.image(b"other", OTHER), wanted := layout.image(b"here", Entrypoint=["x"]), top=False
    )
    attestation = {
        **layout.put(b"{}", MANIFEST_TYPE),
        "platform": {"os": "unknown", "architecture": "unknown"},
    }
    layout.index(inner, attestation)
    with tarfile.open(tmp_path / "layout.tar", "w") as archive:
        archive.add(layout.folder, ".")
    folder = project(tmp_path / "app")
    from_folder = build_app_image(folder, cache=tmp_path / "cache", base=layout.folder)
    from_tar = build_app_image(folder, cache=tmp_path / "other", base=tmp_path / "layout.tar")
    assert from_folder.checksum == from_tar.checksum
    told = config(from_folder)
    assert told["config"]["Env"] == ["PATH=/base", "LANG=C"] and told["architecture"] == HERE
    assert told["config"]["Entrypoint"] == ["python3", "main.py"]
    assert told["config"]["Labels"]["org.opencontainers.image.base.digest"] == wanted["digest"]
    manifest = json.loads(blobs(from_folder)["blobs/sha256/" + from_folder.checksum.hex()])
    kinds = [each["mediaType"] for each in manifest["layers"]]
    assert kinds == [f"{LAYER_TYPE}+gzip", LAYER_TYPE, LAYER_TYPE]


def test_a_base_that_is_not_one_is_named(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "layout")
    with pytest.raises(NotFound):
        read_base(tmp_path / "nowhere", HERE)
    with pytest.raises(InvalidInput, match=r"index\.json"):
        read_base(layout.folder, HERE)
    one, two, other = layout.image(b"1"), layout.image(b"2"), layout.image(b"3", OTHER)
    layout.index(one, two)
    with pytest.raises(InvalidInput, match="expected one image"):
        read_base(layout.folder, HERE)
    layout.index(other)
    with pytest.raises(InvalidInput, match=f"linux/{OTHER} sha256:"):
        read_base(layout.folder, HERE)
    del other["platform"]
    layout.index(other)
    with pytest.raises(InvalidInput, match=f"got one for linux/{OTHER}"):
        read_base(layout.folder, HERE)
    (tmp_path / "file").write_bytes(b"no tar at all" * 100)
    with pytest.raises(InvalidInput, match="layout in a tar"):
        read_base(tmp_path / "file", HERE)


@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_a_changed_base_is_refused_and_nothing_is_kept(tmp_path: Path, place: int) -> None:
    layout = Layout(tmp_path / "layout")
    layout.index(layout.image(b"hello"))
    files = sorted((layout.folder / "blobs/sha256").iterdir(), key=lambda f: f.stat().st_size)
    files = [file for file in files if b"manifests" not in file.read_bytes()]
    data = bytearray(files[place].read_bytes())
    data[-1] ^= 1
    files[place].write_bytes(data)
    folder = project(tmp_path / "app")
    with pytest.raises(IntegrityError):
        build_app_image(folder, cache=tmp_path / "cache", base=layout.folder)
    assert list((tmp_path / "cache/images").iterdir()) == []


def test_needs_are_no_matter_of_a_base(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "layout")
    layout.index(layout.image(b"hello"))
    folder = project(tmp_path / "app", needs="needs.txt")
    (folder / "needs.txt").write_text("")
    with pytest.raises(InvalidInput, match="another image"):
        build_app_image(folder, cache=tmp_path / "cache", base=layout.folder)


async def test_a_base_from_a_registry_is_named_by_digest(tmp_path: Path, cache: Path) -> None:
    known = Registries(loopback=True)
    base = build_app_image(project(tmp_path / "below"), cache=cache)
    folder = project(tmp_path / "above", main="print('above')")
    with running() as registry:
        reference = await known.push(base.archive, Reference.parse(f"{registry.host}/team/base:1"))
        with pytest.raises(InvalidInput, match="by digest"):
            await fetch_base(f"{registry.host}/team/base:1", tmp_path / "cache", known)
        fetched = await fetch_base(str(reference), tmp_path / "cache", known)
        assert fetched.read_bytes() == base.archive.read_bytes()
        assert await fetch_base(str(reference), tmp_path / "cache", known) == fetched
        built = build_app_image(folder, cache=tmp_path / "cache", base=fetched)
        assert built.checksum == build_app_image(folder, cache=cache, base=base.archive).checksum
        pushed = await known.push(built.archive, Reference.parse(f"{registry.host}/team/app"))
        assert pushed.digest == built.checksum
