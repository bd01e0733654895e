"""The outer sandbox by bubblewrap: the battery of all drivers, and what is bubblewrap's alone."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from sealdeal.sdk.guest_release import GuestRelease
from sealdeal.worker import cgroups
from sealdeal.worker.sandbox import BubblewrapSandbox

from .battery import Battery, ready, running


class TestBubblewrap(Battery):
    driver = "bubblewrap"

    async def test_a_release_that_only_root_may_enter_is_shown_to_the_guest_alone(
        self, release: GuestRelease, name: str
    ) -> None:
        assert any(not parent.stat().st_mode & 0o001 for parent in release.rootfs.parents)
        async with running(BubblewrapSandbox(release, name)) as guest:
            await ready(guest)
        mounts = Path("/proc/self/mounts").read_text()
        assert "sealdeal" not in mounts

    async def test_a_release_that_is_open_to_all_stays_where_it_is(
        self, release: GuestRelease, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("sealdeal.worker.sandbox._POINTS", ())
        with tempfile.TemporaryDirectory() as folder:
            Path(folder).chmod(0o755)
            shutil.copytree(release.rootfs, Path(folder) / "root", symlinks=True)
            public = GuestRelease(Path(folder) / "root", release.digest)
            async with running(BubblewrapSandbox(public, name)) as guest:
                await ready(guest)

    async def test_killing_is_complete_at_any_moment_of_the_start(
        self, release: GuestRelease, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Without control groups, which would find whatever is left. One kill in 25 came too early once."""
        monkeypatch.setattr(cgroups, "missing", lambda: dict.fromkeys(("memory", "pids", "cpu"), "not now"))
        sandbox = BubblewrapSandbox(release, name)
        for moment in range(40):
            guest = await sandbox.start(0)
            await asyncio.sleep(0.02 + moment / 1000)
            await asyncio.wait_for(guest.kill(), 60)  # it ends once nobody has the guest's pipes


def test_what_is_not_enforced_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cgroups, "MOUNT", tmp_path / "nothing")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    missing = BubblewrapSandbox(GuestRelease(tmp_path, bytes(32)), "x").capabilities.missing
    assert [line.split(":")[0] for line in missing] == ["memory", "pids", "cpu", "user"]
