"""Control groups: what is bounded, also where a group fights being ended."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from pathlib import Path

import pytest

from sealdeal.worker import cgroups
from sealdeal.worker.cgroups import Bounds, Group

needs_cgroups = pytest.mark.skipif(
    os.geteuid() != 0 or bool(cgroups.missing()), reason="cgroups cannot be written here"
)


@needs_cgroups
def test_a_group_is_killed_even_while_it_forks(tmp_path: Path) -> None:
    name = hashlib.sha256(str(tmp_path).encode()).hexdigest()[:12]
    group = Group(f"{name}-bomb")
    group.make(Bounds(processes=40))
    bomb = "import os, time\nwhile True:\n try: os.fork()\n except OSError: time.sleep(0.001)"
    pid = os.fork()
    if pid == 0:
        for door in group.doors:
            Path(door).write_text("0")
        os.execv(sys.executable, [sys.executable, "-c", bomb])
    for _ in range(3000):
        if len(group.members()) >= 40:
            break
        time.sleep(0.01)
    assert len(group.members()) >= 40
    group.remove()
    os.waitpid(pid, 0)
    assert group.members() == [] and cgroups.leftovers(name) == []


def test_a_unified_hierarchy_gets_its_own_limits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Version 2, by its file names: this machine's kernel need not have it."""
    monkeypatch.setattr(cgroups, "MOUNT", tmp_path)
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids\n")
    (tmp_path / "cgroup.subtree_control").write_text("")
    group = Group("x")
    folder = tmp_path / "sealdeal-x"
    folder.mkdir()
    for file in ("memory.max", "memory.swap.max", "pids.max", "cpu.max", "cgroup.kill", "cgroup.procs"):
        (folder / file).write_text("")
    group.make(Bounds(memory=1000, processes=5, cpus=0.25))
    wrote = {p.name: p.read_text() for p in folder.iterdir() if p.read_text()}
    assert wrote == {"memory.max": "1000", "memory.swap.max": "0", "pids.max": "5", "cpu.max": "25000 100000"}
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"
    assert group.doors == [str(folder / "cgroup.procs")] and not group.out_of_memory()
    (folder / "memory.events").write_text("low 0\noom 3\noom_kill 2\n")
    assert group.out_of_memory() and all(group.controls(c) for c in ("memory", "pids", "cpu"))
    group.kill()
    assert (folder / "cgroup.kill").read_text() == "1"
