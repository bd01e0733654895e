"""Images built from this machine's Python: the same inputs give the same digest, and what is in them runs."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from sealdeal.model.errors import InvalidInput
from sealdeal.model.hosts import Host
from sealdeal.model.images import ImageReader
from sealdeal.sdk import interpreter
from sealdeal.sdk.guest_release import build_guest_release
from sealdeal.sdk.images import BuiltImage, build_app_image, read_project

PYTHONS = list(
    {os.path.realpath(p): p for p in (sys.executable, "/usr/bin/python3") if os.path.exists(p)}.values()
)
"""This environment's, and the system's where there is one: laid out differently."""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def project(folder: Path, main: str = "print('hello')", **manifest: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "main.py").write_text(main)
    told = {"name": "app", "entrypoint": ["python3", "main.py"], **manifest}
    lines = [f"{key} = {json.dumps(value)}" for key, value in told.items() if value is not None]
    (folder / "sealdeal.toml").write_text("\n".join(lines))
    return folder


def blobs(image: BuiltImage) -> dict[str, bytes]:
    with tarfile.open(image.archive) as archive:
        files = {m.name: archive.extractfile(m) for m in archive}
        return {name: file.read() for name, file in files.items() if file is not None}


def config(image: BuiltImage) -> dict[str, Any]:
    parts = blobs(image)
    manifest = json.loads(parts["blobs/sha256/" + image.checksum.hex()])
    found = json.loads(parts["blobs/" + manifest["config"]["digest"].replace(":", "/")])
    assert isinstance(found, dict)
    return found


def unpacked(image: BuiltImage, root: Path) -> Path:
    parts = blobs(image)
    for layer in json.loads(parts["blobs/sha256/" + image.checksum.hex()])["layers"]:
        with tarfile.open(fileobj=io.BytesIO(parts["blobs/" + layer["digest"].replace(":", "/")])) as tar:
            tar.extractall(root)  # our own archive; `filter` is newer than some Python 3.11
    for name in ("proc", "dev", "tmp"):
        (root / name).mkdir()
    return root


def run(root: Path, *argv: str) -> str:
    """Run something with the image as its whole world."""
    bwrap = ["bwrap", "--unshare-all", "--clearenv", "--ro-bind", str(root), "/", "--proc", "/proc"]
    bwrap += ["--dev", "/dev", "--tmpfs", "/tmp", "--chdir", "/app", "--setenv", "PATH", "/usr/local/bin"]
    bwrap += ["--setenv", "PYTHONPATH", "/app:/opt/wheels", "--"]
    done = subprocess.run([*bwrap, *argv], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def wheel(folder: Path, name: str, text: str, **extra: bytes) -> str:
    """A tiny wheel; returns its line of requirements."""
    files = {f"{name}.py": text.encode(), **extra}
    info = f"{name}-1.0.dist-info"
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode()
    files[f"{info}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    lines = []
    for path, data in files.items():
        hashed = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        lines.append(f"{path},sha256={hashed},{len(data)}")
    files[f"{info}/RECORD"] = ("\n".join([*lines, f"{info}/RECORD,,"]) + "\n").encode()
    folder.mkdir(exist_ok=True)
    place = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(place, "w") as archive:
        for path, data in files.items():
            archive.writestr(zipfile.ZipInfo(path), data)
    return f"{name}==1.0 --hash=sha256:{hashlib.sha256(place.read_bytes()).hexdigest()}"


def test_two_clones_give_one_digest_and_another_byte_another(tmp_path: Path, cache: Path) -> None:
    first = build_app_image(project(tmp_path / "here" / "app"), cache=cache)
    clone = shutil.copytree(tmp_path / "here" / "app", tmp_path / "elsewhere" / "copy")
    for file in clone.iterdir():
        file.chmod(0o600)
        os.utime(file, (1, 1))
    second = build_app_image(clone, cache=tmp_path / "empty-cache")
    assert first.checksum == second.checksum
    assert first.archive.read_bytes() == second.archive.read_bytes()
    (clone / "main.py").write_text("print('other')")
    assert build_app_image(clone, cache=cache).checksum != first.checksum


def test_the_archive_names_no_machine_and_lists_its_inputs(tmp_path: Path, cache: Path) -> None:
    image = build_app_image(project(tmp_path / "app"), cache=cache)
    with tarfile.open(image.archive) as archive:
        assert all((m.mtime, m.uid, m.gid, m.uname, m.gname) == (0, 0, 0, "", "") for m in archive)
    told = config(image)
    assert str(tmp_path) not in json.dumps(told)
    labels = told["config"]["Labels"]
    digest = hashlib.sha256(b"print('hello')").hexdigest()
    assert labels["io.sealdeal.app.main.py"] == f"sha256:{digest}"
    assert len(told["rootfs"]["diff_ids"]) == len(told["history"]) == 2
    assert image.size == image.archive.stat().st_size
    parts = blobs(image)
    assert hashlib.sha256(parts["blobs/sha256/" + image.checksum.hex()]).digest() == image.checksum


@pytest.mark.parametrize("python", PYTHONS)
def test_the_interpreter_runs_alone_in_its_image(tmp_path: Path, cache: Path, python: str) -> None:
    image = build_app_image(project(tmp_path / "app"), cache=cache, interpreter=python)
    root = unpacked(image, tmp_path / "root")
    assert run(root, "python3", "main.py") == "hello\n"
    asked = "import ssl, sqlite3, ctypes, lzma, bz2, decimal, zoneinfo, uuid, asyncio, pwd, json, sys; "
    asked += "zoneinfo.ZoneInfo('Europe/Paris'); print(sys.prefix, pwd.getpwuid(65534).pw_dir)"
    assert run(root, "python3", "-c", asked) == "/usr/local /tmp\n"
    names = {p.relative_to(root).as_posix() for p in root.rglob("*")}
    assert not [n for n in names if n.endswith(".pyc") or "/test/" in n or "tkinter" in n or "idlelib" in n]


def test_wheels_are_unzipped_and_their_hashes_kept(tmp_path: Path, cache: Path) -> None:
    folder = project(
        tmp_path / "app", "import tiny; print(tiny.WORD)", needs="requirements.txt", files=["main.py"]
    )
    line = wheel(folder / "wheels", "tiny", "WORD = 'from a wheel'", **{"tiny-1.0.data/scripts/tool": b"#!x"})
    (folder / "requirements.txt").write_text(f"--no-index\n--find-links ./wheels\n{line}\n")
    image = build_app_image(folder, cache=cache)
    root = unpacked(image, tmp_path / "root")
    assert run(root, "python3", "main.py") == "from a wheel\n"
    assert not list(root.rglob("tool"))
    labels = config(image)["config"]["Labels"]
    assert labels["io.sealdeal.wheel.tiny-1.0-py3-none-any.whl"] == "sha256:" + line.rpartition(":")[2]
    shutil.rmtree(folder / "wheels")  # kept by the hash of what was asked for
    assert build_app_image(folder, cache=cache).checksum == image.checksum


def test_needs_are_fetched_without_an_installed_pip(tmp_path: Path, cache: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    folder = project(tmp_path / "app", "import bare; print(bare.WORD)", needs="needs.txt", files=["main.py"])
    line = wheel(folder / "wheels", "bare", "WORD = 'still'")
    (folder / "needs.txt").write_text(f"--no-index\n--find-links ./wheels\n{line}\n")
    image = build_app_image(folder, cache=cache, interpreter=str(tmp_path / "bare/bin/python"))
    assert run(unpacked(image, tmp_path / "root"), "python3", "main.py") == "still\n"


def test_a_wheel_with_another_hash_is_refused(tmp_path: Path, cache: Path) -> None:
    folder = project(tmp_path / "app", needs="requirements.txt")
    line = wheel(folder / "wheels", "tiny", "WORD = 1")
    other = line[:-4] + ("0000" if line[-4:] != "0000" else "1111")
    (folder / "requirements.txt").write_text(f"--no-index\n--find-links ./wheels\n{other}\n")
    with pytest.raises(InvalidInput, match=r"(?is)requirements\.txt.*hash"):
        build_app_image(folder, cache=cache)


def test_a_need_without_a_hash_is_refused(tmp_path: Path, cache: Path) -> None:
    folder = project(tmp_path / "app", needs="requirements.txt")
    wheel(folder / "wheels", "tiny", "WORD = 1")
    (folder / "requirements.txt").write_text("--no-index\n--find-links ./wheels\ntiny==1.0\n")
    with pytest.raises(InvalidInput, match=r"(?i)hash"):
        build_app_image(folder, cache=cache)


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        ({"name": None}, "set name"),
        ({"entrypoint": "python3 main.py"}, "entrypoint must be a list"),
        ({"entrypoint": []}, "set name"),
        ({"entry": ["x"]}, "unknown key 'entry'"),
        ({"hosts": ["10.0.0.1:80"]}, "sealdeal.toml: hosts: expected a public host"),
        ({"needs": "absent.txt"}, "not a file"),
        ({"files": ["*.R"]}, "nothing matches"),
        ({"files": ["../*"]}, "leaves the folder"),
    ],
)
def test_a_wrong_manifest_says_what_is_wrong(tmp_path: Path, manifest: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        read_project(project(tmp_path / "app", **manifest))


def test_what_goes_in_is_plain_and_chosen(tmp_path: Path) -> None:
    folder = project(tmp_path / "app")
    for name in (".git/config", "__pycache__/main.pyc", "data/rows.csv", "lib/code.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("x")
    assert [f.name for f in read_project(folder).files] == ["rows.csv", "code.py", "main.py"]
    (folder / "sealdeal.toml").write_text('name = "a"\nentrypoint = ["x"]\nfiles = ["main.py", "lib/*"]\n')
    assert [f.name for f in read_project(folder).files] == ["code.py", "main.py"]
    (folder / "lib" / "link").symlink_to("/etc/passwd")
    with pytest.raises(InvalidInput, match="no links"):
        read_project(folder)


@pytest.mark.parametrize("text", ["name = ", "[[[", "\ud800"])
def test_no_manifest_or_a_broken_one_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidInput, match=r"with a sealdeal\.toml"):
        read_project(tmp_path)
    (tmp_path / "sealdeal.toml").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(InvalidInput, match=r"sealdeal\.toml"):
        read_project(tmp_path)


@pytest.mark.parametrize("program", ["/bin/true", "/nonexistent", "/bin/cat"])
def test_what_is_no_interpreter_is_refused(program: str) -> None:
    with pytest.raises(InvalidInput, match="expected a Python interpreter"):
        interpreter.inspect(program)


def test_a_torn_layer_is_built_again(tmp_path: Path) -> None:
    folder = project(tmp_path / "app")
    image = build_app_image(folder, cache=tmp_path / "cache")
    whole = image.archive.read_bytes()
    for layer in (tmp_path / "cache" / "layers").iterdir():
        layer.write_bytes(layer.read_bytes()[:-1000])
    (tmp_path / "cache" / "images" / image.archive.name).unlink()
    again = build_app_image(folder, cache=tmp_path / "cache")
    assert again.checksum == image.checksum and again.archive.read_bytes() == whole


def test_elf_files_tell_what_they_need_and_others_nothing() -> None:
    python = interpreter.inspect(sys.executable)
    elf = interpreter.read_elf(python.program)
    assert elf is not None and "libc.so.6" in elf.needed and elf.loader is not None
    assert interpreter.read_elf(Path(__file__)) is None
    found = interpreter.files(python)
    listed = subprocess.run(["ldd", python.program], capture_output=True, text=True).stdout
    for line in listed.splitlines():
        if "=>" in line:
            assert any(path.endswith("/" + line.split()[0]) for path in found), line


def test_a_damaged_elf_is_named(tmp_path: Path) -> None:
    damaged = tmp_path / "lib.so"
    damaged.write_bytes(b"\x7fELF\x02\x01" + bytes(40))
    with pytest.raises(InvalidInput, match="is not one"):
        interpreter.read_elf(damaged)


def test_the_guest_release_is_the_same_each_time_and_mended_when_touched(tmp_path: Path, cache: Path) -> None:
    first = build_guest_release(cache)
    other = build_guest_release(tmp_path / "other")
    assert first.digest == other.digest
    module = next(first.rootfs.rglob("guest/task.py"))
    for place in (module, first.rootfs / "extra"):
        place.write_text("evil")
        again = build_guest_release(cache)
        assert again == first and "evil" not in module.read_text()
        assert not (first.rootfs / "extra").exists()
    compiled = list(first.rootfs.rglob("opt/guest/sealdeal/guest/__pycache__/task.*.pyc"))
    assert compiled and compiled[0].read_bytes()[4:8] == (1).to_bytes(4, "little")


def test_declared_hosts_are_measured_with_the_app(cache: Path, tmp_path: Path) -> None:
    alone = build_app_image(project(tmp_path / "alone"), cache=cache)
    declared = [
        build_app_image(project(tmp_path / name, hosts=hosts), cache=cache)
        for name, hosts in {
            "one": ["api.example.org:443", "db.example.org:5432"],
            "same": ["db.example.org:5432", "api.example.org:443"],
            "other": ["api.example.org:443", "db.example.org:5433"],
        }.items()
    ]
    assert len({image.checksum for image in (alone, *declared)}) == 3
    assert declared[0].checksum == declared[1].checksum
    with declared[0].archive.open("rb") as archive:
        read = ImageReader(archive, declared[0].checksum, max_bytes=1 << 30).config()
    assert read.hosts == (Host("api.example.org", 443), Host("db.example.org", 5432))
