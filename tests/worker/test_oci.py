"""The outer sandbox by OCI runtimes: the battery of all drivers, and what is theirs alone."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from sealdeal.model.errors import InvalidInput, Unavailable
from sealdeal.sdk.guest_release import GuestRelease
from sealdeal.worker import cgroups, drivers, oci
from sealdeal.worker.cgroups import Bounds
from sealdeal.worker.oci import OciSandbox
from sealdeal.worker.sandbox import SYSTEM_PATH

from .battery import BOUNDED, Battery

ANY = GuestRelease(Path("/nowhere"), bytes(32))


def needs(runtime: str) -> pytest.MarkDecorator:
    missing = shutil.which(runtime, path=SYSTEM_PATH) is None
    reason = f"{runtime} is not installed" if missing else f"{runtime} needs root and cgroups"
    return pytest.mark.skipif(missing or not BOUNDED, reason=reason)


@needs("runc")
class TestRunc(Battery):
    driver = "runc"


@needs("crun")
class TestCrun(Battery):
    driver = "crun"


def test_an_unknown_driver_is_refused_by_name() -> None:
    with pytest.raises(InvalidInput, match=r"bubblewrap, runc, crun, vm.*'docker'"):
        drivers.sandbox("docker", ANY, "x", Bounds(), Path("/nowhere"))


def test_a_runtime_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oci, "SYSTEM_PATH", "/nowhere")
    with pytest.raises(Unavailable, match="apt install crun"):
        OciSandbox(ANY, "x", runtime="crun")


@needs("runc")
def test_without_root_or_cgroups_there_are_no_containers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: 1000)
        with pytest.raises(Unavailable, match="needs root"):
            OciSandbox(ANY, "x")
    monkeypatch.setattr(cgroups, "MOUNT", tmp_path / "nothing")
    with pytest.raises(Unavailable, match="needs control groups: memory"):
        OciSandbox(ANY, "x")
