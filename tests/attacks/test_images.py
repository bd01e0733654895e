"""Attacks on an app's image: by the registry that serves it, by who published it, by what lies in its layers.

Layers are attacked where the guest lays them, with files beside the root that must stay as they are. What is
laid without harm is looked at by an app inside the real double sandbox.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import itertools
import json
import tarfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from sealdeal.guest.unpack import unpack_image
from sealdeal.model.errors import Forbidden, IntegrityError, InvalidInput, TooLarge
from sealdeal.model.images import Blob, BuiltArchive, ImageReader, archive, of_bytes
from sealdeal.model.manifests import INDEX_TYPE, digest_text
from sealdeal.sdk.bases import read_base
from sealdeal.sdk.guest_release import GuestRelease
from sealdeal.sdk.images import BuiltImage
from sealdeal.sdk.registry import Registries
from sealdeal.tee.simulated import SimulatedPlatform
from sealdeal.worker.relay import AttemptFailed
from sealdeal.worker.sandbox import Sandbox
from tests.guest.test_unpack import member, tar
from tests.guest.world import Scene
from tests.model.test_tars import END, extended, header, record
from tests.registry import Running, running
from tests.worker.test_registry import HERE, Answer, content, image, images, played, pushed

MakeScene = Callable[..., Scene]
Members = tuple[tarfile.TarInfo, bytes]


# --- the registry -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def registry() -> Iterator[Running]:
    with running() as started:
        yield started


@pytest.fixture
def near(registry: Running) -> Registries:
    return Registries.read([f"http://{registry.host}"])


async def test_tampered_registry(tmp_path: Path, registry: Running, near: Registries) -> None:
    """The worker compares each blob with its digest while it arrives, and keeps nothing of another one."""
    built = image(b"honest" * 1000)
    blobs = {digest_text(blob.digest): b"".join(blob.chunks()) for blob in _parts(built)}
    reference = await pushed(tmp_path, registry, built)
    for digest in list(blobs)[1:]:  # this registry looks at manifests itself
        place = registry.blob(bytes.fromhex(digest.removeprefix("sha256:")))
        honest = place.read_bytes()
        place.write_bytes(honest[:-1] + b"?")
        with pytest.raises(IntegrityError):
            await images(tmp_path / "worker", near).get(str(reference), built.checksum)
        place.write_bytes(honest)
    changes: list[Callable[[bytes], bytes]] = [
        lambda data: data[:-1] + b"?",
        lambda data: data + b"?",
        lambda data: data[:-1],
        lambda data: b"",
    ]
    for digest, change in itertools.product(blobs, changes):

        def serve(
            path: str, headers: Mapping[str, str], digest: str = digest, change: Any = change
        ) -> Answer:
            asked = path.rpartition("/")[2]
            return 200, {}, change(blobs[asked]) if asked == digest else blobs[asked]

        async with played(serve) as it:
            known = Registries({it.host: f"http://{it.host}"})
            with pytest.raises(IntegrityError, match=r"expected sha256|should have"):
                await images(tmp_path / "worker", known).get(f"{it.host}/team/app", built.checksum)
    assert list((tmp_path / "worker/content").iterdir()) == []
    honest_place = await images(tmp_path / "worker", near).get(str(reference), built.checksum)
    assert honest_place.read_bytes() == content(built)


async def test_tag_moved_to_another_image(tmp_path: Path, registry: Running, near: Registries) -> None:
    """A tag is never asked for: what is fetched is the checksum that the app has on chain."""
    honest, other = image(b"honest"), image(b"malicious")
    await pushed(tmp_path, registry, honest, ":1.0")
    await pushed(tmp_path, registry, other, ":1.0")
    address = f"{registry.host}/team/app:1.0"
    worker = images(tmp_path / "worker", near)
    assert (await worker.get(address, honest.checksum)).read_bytes() == content(honest)


async def test_index_in_place_of_a_platforms_manifest(tmp_path: Path) -> None:
    """An index is refused, also one that can be read as a manifest: it measures nothing."""
    built = image()
    blobs = {digest_text(blob.digest): b"".join(blob.chunks()) for blob in _parts(built)}
    told = {"digest": digest_text(built.checksum), "size": len(blobs[digest_text(built.checksum)])}
    platform = {"os": "linux", "architecture": HERE}
    index: dict[str, Any] = {"schemaVersion": 2, "manifests": [{**told, "platform": platform}]}
    both = {**json.loads(blobs[digest_text(built.checksum)]), "manifests": []}
    for number, document in enumerate((index, {**index, "mediaType": INDEX_TYPE}, both)):
        data = json.dumps(document).encode()
        blobs[digest_text(checksum := hashlib.sha256(data).digest())] = data

        def serve(path: str, headers: Mapping[str, str]) -> Answer:
            return 200, {"Content-Type": INDEX_TYPE}, blobs[path.rpartition("/")[2]]

        async with played(serve) as it:
            worker = images(tmp_path / str(number), Registries({it.host: f"http://{it.host}"}))
            with pytest.raises(InvalidInput, match="an index"):
                await worker.get(f"{it.host}/team/app", checksum)
        whole = tar(*(member(f"blobs/sha256/{d.removeprefix('sha256:')}", b) for d, b in blobs.items()))
        with pytest.raises((InvalidInput, IntegrityError)):
            ImageReader(io.BytesIO(whole), checksum, max_bytes=1 << 20).config()


async def test_image_address_in_the_workers_network(tmp_path: Path, registry: Running) -> None:
    """The worker speaks https to public addresses only, and to registries that its operator has named."""
    built = image()
    reference = await pushed(tmp_path, registry, built)
    for address in (str(reference), "169.254.169.254:80/latest/meta-data", "localhost:5432/x", "[::1]:80/x"):
        with pytest.raises((Forbidden, InvalidInput)):
            await images(tmp_path / "worker", Registries()).get(address, built.checksum)


async def test_registry_that_leads_into_the_workers_network(tmp_path: Path, registry: Running) -> None:
    """Each redirection, and each place where tokens are issued, is looked at as the first address is."""
    inner = f"http://{registry.host}/v2/"
    answers: list[Answer] = [
        (307, {"Location": inner}, b""),
        (401, {"WWW-Authenticate": f'Bearer realm="{inner}"'}, b""),
    ]
    for number, answer in enumerate(answers):

        def serve(path: str, headers: Mapping[str, str], answer: Answer = answer) -> Answer:
            return answer

        async with played(serve) as it:
            known = Registries({it.host: f"http://{it.host}"}, {it.host: ("user", "word")})
            with pytest.raises(Forbidden):
                await images(tmp_path / str(number), known).get(f"{it.host}/team/app", bytes(32))


def _parts(built: BuiltArchive) -> list[Blob]:
    with tarfile.open(fileobj=io.BytesIO(content(built))) as whole:
        named = [whole.extractfile(m) for m in whole if m.name.startswith("blobs/")]
        return [of_bytes(file.read()) for file in named if file is not None]


# --- layers that are refused --------------------------------------------------------------------------


class Ground:
    """A root with files beside it, as the guest's own lie beside an app's."""

    def __init__(self, folder: Path) -> None:
        self.root, self.beside = folder / "work/root", folder / "work/dataset"
        self.root.mkdir(parents=True)
        self.beside.write_text("patients")
        (folder / "outside").mkdir()
        (folder / "outside/precious").write_text("precious")
        self.outside = folder / "outside"
        self.folder = folder

    def lay(self, *layers: bytes, packed: bool = False, limit: int = 1 << 24) -> None:
        """Lay an image of these layers. Raises what the guest would refuse it with."""
        blobs = [of_bytes(data) for data in layers]
        if packed:
            blobs = [_packed(data) for data in layers]
        built = archive([("", b) for b in blobs], architecture=HERE, process={"Cmd": ["/a"]}, labels={})
        reader = ImageReader(io.BytesIO(content(built)), built.checksum, max_bytes=limit)
        unpack_image(reader, self.root)

    def refuses(self, layer_: bytes, error: type[Exception] = InvalidInput, **options: Any) -> None:
        """The layer is refused, alone and on top of another, and nothing beside the root has changed."""
        with pytest.raises(error):
            self.lay(layer_, **options)
        self.is_whole()

    def is_whole(self) -> None:
        files = {str(p.relative_to(self.folder)): p for p in self.folder.rglob("*") if p.is_file()}
        found = {name: path.read_text() for name, path in files.items() if "root/" not in name}
        assert found == {"work/dataset": "patients", "outside/precious": "precious"}


def _packed(data: bytes) -> Blob:
    small = gzip.compress(data, 1, mtime=0)
    return Blob(hashlib.sha256(small).digest(), len(small), lambda: (small,), hashlib.sha256(data).digest())


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(tmp_path)


def link(name: str, target: str | Path, kind: bytes = tarfile.SYMTYPE) -> Members:
    return member(name, type=kind, linkname=str(target))


def test_layer_with_a_path_that_climbs_out(ground: Ground) -> None:
    """A path with `..` in it is refused; an absolute one starts at the image's root."""
    for name in ("../dataset", "a/../../dataset", "..", "a/..", "./../dataset"):
        ground.refuses(tar(member(name, b"x")))
        ground.refuses(extended(b"x", record("path", name)) + header("a") + END)
        ground.refuses(extended(b"L", name.encode() + b"\0") + header("a") + END)
    ground.lay(tar(member(str(ground.beside), b"x")))
    ground.is_whole()


def test_layer_that_writes_through_a_symlink(ground: Ground) -> None:
    """Every path is walked from the root's descriptor, and no link on the way is followed, in any layer."""
    for target in (ground.outside, "..", "../../outside"):
        ground.refuses(tar(link("way", target), member("way/new", b"x")))
    for name in ("way2/new", "way2/.wh.precious", "way2/.wh..wh..opq", "way2/deep/er"):
        with pytest.raises(InvalidInput):
            ground.lay(tar(link("way2", ground.outside)), tar(member(name, b"")))
        ground.is_whole()
    ground.lay(tar(link("file", ground.outside / "precious")), tar(member("file", b"own")))
    ground.is_whole()


def test_layer_with_a_hard_link_to_what_is_not_in_it(ground: Ground) -> None:
    """A hard link leads to a plain file inside the root, on a path without links, or is refused."""
    for target in ("../dataset", "../../outside/precious", ground.beside, "nothing", "a/../../dataset", ""):
        ground.refuses(tar(link("h", target, tarfile.LNKTYPE)))
    ground.refuses(tar(link("way", ground.outside), link("h", "way/precious", tarfile.LNKTYPE)))
    ground.refuses(tar(link("way3", ground.beside), link("h", "way3", tarfile.LNKTYPE)))


def test_layer_with_a_whiteout_of_what_is_above(ground: Ground) -> None:
    """A whiteout names something in its own folder: `.wh...` would remove the one above, and is refused."""
    for name in (".wh...", ".wh..", ".wh.", "a/.wh...", "a/b/.wh..", ".wh..wh..", ".wh..wh.plnk"):
        ground.refuses(tar(member(name, b"")))


def test_layer_that_is_read_in_two_ways(ground: Ground) -> None:
    """What one reader of tars sees and another skips is refused: names told twice, members behind the end."""
    hidden = header("hidden") + END
    for data in (
        tar(member("a", b"1"), member("a", b"2")),
        header("a") + END + hidden,
        header("a") + bytes(512) + hidden,
        header("a") + b"x" * 512 + hidden,
        header("l", 512, type=tarfile.SYMTYPE, linkname="x") + hidden,
        extended(b"L", b"one\0") + extended(b"x", record("path", "two")) + hidden,
        extended(b"g", record("path", "all")) + hidden,
    ):
        ground.refuses(data)


def test_gzip_bomb(ground: Ground) -> None:
    """Bytes are counted as they are unpacked, up to the bound for an image, and no further."""
    bomb = tar(member("zeros", bytes(64 << 20)))
    assert _packed(bomb).size < 1 << 20
    ground.refuses(bomb, TooLarge, packed=True, limit=8 << 20)
    assert sum(p.stat().st_size for p in ground.root.rglob("*") if p.is_file()) <= 8 << 20


def test_sparse_file_bomb(ground: Ground) -> None:
    """Sparse files are refused: a few bytes of a layer would become any size."""
    records = record("GNU.sparse.major", "1") + record("GNU.sparse.realsize", str(1 << 40))
    ground.refuses(
        extended(b"x", records + record("GNU.sparse.name", "s")) + header("s", 512) + bytes(512) + END
    )
    ground.refuses(header("s", type=b"S") + END)


def test_bomb_of_names(ground: Ground) -> None:
    """Headers, paths and their depth have bounds of their own, and folders made on the way count as files."""
    ground.refuses(header("x", 8 << 30, type=b"x") + bytes(1024))
    ground.refuses(extended(b"x", record("path", "a/" * 5000 + "a")) + header("a") + END)
    ground.refuses(extended(b"x", record("path", "a/" * 500 + "a")) + header("a") + END)


def test_size_that_lies(ground: Ground) -> None:
    """A member ends where its header says, within the layer; a size below zero is no size."""
    for size in (b"\xff" * 12, b"\x80" + b"\x7f" * 11, b"77777777777\0", b"-0000000001\0"):
        block = bytearray(header("a"))
        block[124:136] = size
        block[148:156] = b"%06o\0 " % (sum(block[:148]) + 256 + sum(block[156:]))
        ground.refuses(bytes(block) + END)


async def test_image_that_is_not_the_registered_one(scene: MakeScene, app: Callable[..., BuiltImage]) -> None:
    """The guest compares manifest, configuration and layers with the checksum on chain, whoever brings it."""
    honest, other = app("print('honest')"), app("print('malicious')")
    task = scene(honest)
    task.files["image"] = other.archive
    with pytest.raises(AttemptFailed, match="the manifest") as failed:
        await task.run()
    assert failed.value.cause == "APP_IMAGE_DOWNLOAD_FAILED"
    assert "COMPUTING" not in [status["phase"] for status in task.statuses]


# --- layers that are laid, and do no harm -----------------------------------------------------------

LOOK = """
    import json, os, stat

    found = {}
    for name in ("memory", "disk", "pipe", "suid", "capable", "shadow", "up", "secret", "same"):
        path = "/app/" + name
        try:
            status = os.lstat(path)
            found[name] = {"mode": stat.filemode(status.st_mode), "owner": status.st_uid}
            found[name]["attributes"] = os.listxattr(path, follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode) or stat.S_ISREG(status.st_mode):
                with open(path) as file:
                    found[name]["text"] = file.read()
        except OSError as error:
            found.setdefault(name, {})["error"] = type(error).__name__
    for name in ("iexec_in", "iexec_out", "tmp", "proc", "dev"):
        mode = stat.filemode(os.lstat("/" + name).st_mode)
        found[name] = {"mode": mode, "files": sorted(os.listdir("/" + name))}
    with open("/iexec_out/found.json", "w") as file:
        json.dump(found, file)
    with open("/iexec_out/computed.json", "w") as file:
        json.dump({"deterministic-output-path": "/iexec_out/found.json"}, file)
"""
SECRET = "a file of the host"


@pytest.fixture(scope="module")
async def seen(
    app: Callable[..., BuiltImage],
    release: GuestRelease,
    sandbox: Sandbox,
    platform: SimulatedPlatform,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[dict[str, Any]]:
    """What an app sees of a hostile layer that lies on top of its own."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "secret").write_text(SECRET)
    base = read_base(app(LOOK).archive, HERE)
    capability = {"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00 \x00\x00"}
    hostile = tar(
        member("app/memory", type=tarfile.CHRTYPE, devmajor=1, devminor=1, mode=0o666),
        member("app/disk", type=tarfile.BLKTYPE, devmajor=8, devminor=0, mode=0o666),
        member("app/pipe", type=tarfile.FIFOTYPE, mode=0o666),
        member("app/suid", b"#!/bin/sh", mode=0o6755, uid=0, gid=0),
        member("app/capable", b"#!/bin/sh", mode=0o755, pax_headers=capability),
        link("app/shadow", "/etc/shadow"),
        link("app/up", "../" * 20 + str(folder / "secret").lstrip("/")),
        link("app/secret", folder / "secret"),
        link("app/same", "app/suid", tarfile.LNKTYPE),
        link("iexec_in", "/app"),
        link("iexec_out", "/app"),
        link("dev", "/app"),
        link("proc", folder),
        member("tmp", b"a file"),
    )
    layers = [("", blob) for blob in (*base.layers, of_bytes(hostile))]
    process = {"Entrypoint": ["python3", "main.py"], "WorkingDir": "/app", "Env": ["PATH=/usr/local/bin"]}
    built = archive(layers, architecture=HERE, process=process, labels={})
    (folder / "image.tar").write_bytes(content(built))
    hostile_image = BuiltImage("hostile", built.checksum, folder / "image.tar", 0)
    task = Scene(hostile_image, release, sandbox, platform, folder=folder)
    done = await task.run()
    assert done.exit_code == 0, task.result()
    yield json.loads(task.result()["found.json"])


def test_layer_with_a_device(seen: dict[str, Any]) -> None:
    """Devices and FIFOs of a layer are not made."""
    for name in ("memory", "disk", "pipe"):
        assert seen[name] == {"error": "FileNotFoundError"}


def test_layer_with_a_set_uid_program(seen: dict[str, Any]) -> None:
    """Set-uid bits, owners and capabilities of a layer's files are dropped."""
    for name in ("suid", "capable", "same"):
        assert seen[name]["mode"] == "-rwxr-xr-x" and seen[name]["attributes"] == []


def test_layer_with_a_link_to_the_hosts_files(seen: dict[str, Any]) -> None:
    """The image is the app's whole world: a link leads to a place in it, or nowhere."""
    for name in ("shadow", "up", "secret"):
        assert seen[name]["mode"] == "lrwxrwxrwx" and seen[name]["error"] == "FileNotFoundError"
    assert SECRET not in json.dumps(seen)


def test_layer_with_links_in_place_of_the_apps_folders(seen: dict[str, Any]) -> None:
    """The guest puts folders of its own where it mounts: inputs, outputs, /tmp, /proc, /dev."""
    for name in ("iexec_in", "iexec_out", "tmp", "proc", "dev"):
        assert seen[name]["mode"][0] == "d"
    assert seen["iexec_in"]["files"] == [] and seen["tmp"]["files"] == []
    assert "main.py" not in seen["iexec_out"]["files"] and "null" in seen["dev"]["files"]
