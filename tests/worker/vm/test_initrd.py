"""What runs before the root disk is open: the archive, and the kernel modules in it."""

from __future__ import annotations

import gzip
import lzma
import subprocess
from pathlib import Path

import pytest

from sealdeal.model.errors import Unavailable
from sealdeal.worker.vm.initrd import Device, Entry, Program, archive, modules

from .parts import BUSYBOX

ENTRIES: dict[str, Entry] = {
    "bin/run": Program(b"#!/bin/run\n"),
    "a": b"text",
    "deep/er/file": b"",
    "dev/console": Device(5, 1),
    "proc": None,
}


@pytest.mark.skipif(not BUSYBOX.exists(), reason="busybox is not unpacked (./dev soak does)")
def test_busybox_reads_the_archive(tmp_path: Path) -> None:
    command = [str(BUSYBOX), "cpio", "-t", "-v"]
    done = subprocess.run(command, input=gzip.decompress(archive(ENTRIES)), capture_output=True, check=True)
    lines = [line.split() for line in done.stdout.decode().splitlines()]
    assert {words[-1]: words[0] for words in lines} == {
        "a": "-rw-r--r--",
        "bin": "drwxr-xr-x",
        "bin/run": "-rwxr-xr-x",
        "deep": "drwxr-xr-x",
        "deep/er": "drwxr-xr-x",
        "deep/er/file": "-rw-r--r--",
        "dev": "drwxr-xr-x",
        "dev/console": "crw-------",
        "proc": "drwxr-xr-x",
    }
    subprocess.run(
        [BUSYBOX, "cpio", "-i", "-d", "a", "bin/run"],
        input=gzip.decompress(archive(ENTRIES)),
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    assert (tmp_path / "a").read_bytes() == b"text"
    assert (tmp_path / "bin/run").read_bytes() == b"#!/bin/run\n"


def test_the_same_entries_give_the_same_bytes() -> None:
    assert archive(ENTRIES) == archive(dict(reversed(ENTRIES.items())))
    assert archive(ENTRIES) != archive({**ENTRIES, "a": b"Text"})


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    """Modules as Linux lays them: top needs middle_one, which needs base; one is compressed, one built in."""

    def module(name: str, depends: str) -> bytes:
        return b"\x7fELF\0license=GPL\0depends=" + depends.encode() + b"\0name=" + name.encode() + b"\0"

    folder = tmp_path / "6.1.0"
    (folder / "kernel/drivers").mkdir(parents=True)
    (folder / "kernel/base.ko").write_bytes(module("base", ""))
    (folder / "kernel/drivers/middle-one.ko.xz").write_bytes(lzma.compress(module("middle_one", "base")))
    (folder / "kernel/drivers/top.ko").write_bytes(module("top", "middle_one,base"))
    (folder / "modules.builtin").write_text("kernel/fs/inside.ko\n")
    return folder


def test_modules_come_after_those_that_they_need(kernel: Path) -> None:
    found = modules(kernel, ["top", "inside", "middle-one"], ["base", "of-newer-kernels"])
    assert [content.split(b"name=")[1].strip(b"\0") for content in found] == [b"base", b"middle_one", b"top"]


def test_a_kernel_without_what_is_needed_is_refused_by_name(kernel: Path) -> None:
    with pytest.raises(Unavailable, match=r"6\.1\.0 has none called erofs"):
        modules(kernel, ["top", "erofs"], [])
