"""The root disk: Linux reads the file system, and veritysetup agrees about the hash tree."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealdeal.model.errors import InvalidInput
from sealdeal.worker.sandbox import SYSTEM_PATH
from sealdeal.worker.vm.disks import BLOCK, write_erofs, write_verity

MOUNTS = os.geteuid() == 0 and "erofs" in Path("/proc/filesystems").read_text()
VERITY = shutil.which("veritysetup", path=SYSTEM_PATH)
SALT = bytes(range(32))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Folders of one, two and many blocks of entries, files around the size of a block, links."""
    root = tmp_path / "tree"
    (root / "empty").mkdir(parents=True)
    (root / "many").mkdir()
    for number in range(700):
        (root / "many" / f"file with a longer name {number}").write_bytes(b"%d" % number)
    for size in (0, 1, 4095, 4096, 4097, 100_000):
        (root / f"of {size}").write_bytes(os.urandom(size))
    (root / "run").write_bytes(b"#!/bin/sh\n")
    (root / "run").chmod(0o4755)
    (root / "link").symlink_to("many/../of 1")
    (root / "long").symlink_to("x" * 4000)
    (root / "ümlaut").mkdir(mode=0o700)
    return root


def listed(root: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = os.readlink(path)
        else:
            found[name] = "folder" if path.is_dir() else (path.stat().st_mode & 0o111, path.read_bytes())
    return found


@pytest.mark.skipif(not MOUNTS, reason="mounting EROFS needs root and a kernel that has it")
def test_linux_reads_what_was_written(tree: Path, tmp_path: Path) -> None:
    image, point = tmp_path / "image", tmp_path / "point"
    with image.open("w+b") as out:
        blocks = write_erofs(tree, out)
    assert image.stat().st_size == blocks * BLOCK
    point.mkdir()
    subprocess.run(["mount", "-t", "erofs", "-o", "loop,ro", image, point], check=True)
    try:
        assert listed(point) == listed(tree)
        about = (point / "run").stat()
        assert (about.st_uid, about.st_gid, about.st_mode & 0o7777) == (0, 0, 0o755)
        assert (point / "many").stat().st_nlink == 2 and point.stat().st_nlink == 5
    finally:
        subprocess.run(["umount", point], check=True)


def test_the_same_folder_gives_the_same_bytes_wherever_and_whenever_it_was_made(
    tree: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(tree, other, symlinks=True)
    os.utime(other / "of 1", (1, 1))
    first, second = io.BytesIO(), io.BytesIO()
    write_erofs(tree, first)
    write_erofs(other, second)
    assert first.getvalue() == second.getvalue()
    (other / "of 1").write_bytes(b"!")
    third = io.BytesIO()
    write_erofs(other, third)
    assert first.getvalue() != third.getvalue()


def test_only_files_folders_and_links_go_onto_a_disk(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="expected a folder"):
        write_erofs(Path(__file__), io.BytesIO())
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidInput, match=r"files, folders and symbolic links.*pipe"):
        write_erofs(tmp_path, io.BytesIO())


@pytest.mark.skipif(VERITY is None, reason="veritysetup is not installed")
@pytest.mark.parametrize("blocks", [2, 128, 129, 128 * 128 + 1])
def test_veritysetup_accepts_the_tree(blocks: int, tmp_path: Path) -> None:
    data, tree = tmp_path / "data", tmp_path / "hashes"
    with data.open("w+b") as disk, tree.open("w+b") as out:
        for number in range(blocks):
            disk.write(number.to_bytes(8, "big") * (BLOCK // 8))
        root = write_verity(disk, blocks, SALT, out)
    assert VERITY is not None
    command = [VERITY, "verify", "--no-superblock", f"--salt={SALT.hex()}", f"--data-blocks={blocks}"]
    command += [data, tree, root.hex()]  # type: ignore[list-item]
    subprocess.run(command, check=True, capture_output=True)
    with data.open("r+b") as disk:
        disk.seek((blocks - 1) * BLOCK + 7)
        disk.write(b"!")
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode != 0 and "erification" in refused.stderr


@given(blocks=st.integers(1, 300), place=st.integers(0), change=st.integers(1, 255))
def test_every_byte_counts(blocks: int, place: int, change: int) -> None:
    data = bytearray(bytes(blocks * BLOCK))
    before = write_verity(io.BytesIO(data), blocks, SALT, io.BytesIO())
    data[place % len(data)] ^= change
    assert write_verity(io.BytesIO(data), blocks, SALT, io.BytesIO()) != before


def test_a_disk_of_other_than_whole_blocks_has_no_tree() -> None:
    with pytest.raises(InvalidInput, match="whole blocks"):
        write_verity(io.BytesIO(bytes(BLOCK + 1)), 2, SALT, io.BytesIO())
