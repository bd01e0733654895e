"""Debian's kernel and busybox as `./dev` unpacks them for the soak."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sealdeal.model.errors import Unavailable
from sealdeal.worker.sandbox import SYSTEM_PATH
from sealdeal.worker.vm.image import Parts

APT = Path(__file__).parents[3] / ".dev/apt"
BUSYBOX = APT / "busybox-static/bin/busybox"


def found() -> Parts | None:
    try:
        return Parts.below(next(APT.glob("linux-image-cloud-*")), BUSYBOX) if BUSYBOX.exists() else None
    except (Unavailable, StopIteration):
        return None


def here() -> Parts:
    kept = found()
    assert kept is not None
    return kept


def missing() -> list[str]:
    """What a machine needs and is not here, by Debian's names."""
    programs = {"qemu-system-x86_64": "qemu-system-x86", "mkfs.ext4": "e2fsprogs", "dmsetup": "dmsetup"}
    programs["bwrap"] = "bubblewrap"
    lacking = [p for name, p in programs.items() if shutil.which(name, path=SYSTEM_PATH) is None]
    return lacking if found() else [*lacking, "linux-image-cloud-amd64 and busybox-static (./dev soak)"]


needs_machine = pytest.mark.skipif(bool(missing()), reason=f"not installed: {', '.join(missing())}")
