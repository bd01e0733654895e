"""How a worker's machine is divided: whole among its slots, and never into parts that can run nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealdeal.cli.options import workers
from sealdeal.guest.hello import Limits
from sealdeal.model.errors import InvalidInput, Unavailable
from sealdeal.node import LocalNetwork
from sealdeal.sdk.guest_release import GuestRelease
from sealdeal.settings import Settings
from sealdeal.worker.cgroups import Bounds
from sealdeal.worker.machine import LEAST_CPUS, LEAST_FILES, LEAST_MEMORY, Machine
from sealdeal.worker.options import WorkerOptions
from sealdeal.worker.sandbox import BubblewrapSandbox

GIB = 1 << 30


@given(st.integers(0, 1 << 44), st.floats(0, 512), st.integers(0, 1 << 44), st.integers(1, 600))
def test_slots_together_have_no_more_than_the_machine(
    memory: int, cpus: float, disk: int, slots: int
) -> None:
    machine = Machine(memory, cpus, disk=disk)
    try:
        each = machine.bounds(slots)
    except InvalidInput as refused:
        assert f"each of {slots} slots" in str(refused)
        return
    assert each.memory * slots <= memory and each.disk * slots <= disk
    assert each.work == max(each.memory // 2, LEAST_FILES)
    assert each.cpus * slots <= cpus * 1.000001
    assert each.memory >= LEAST_MEMORY and each.cpus >= LEAST_CPUS


@pytest.mark.parametrize(
    ("machine", "slots", "what"),
    [
        (Machine(2 * GIB, 8), 9, "bytes of memory for each of 9 slots: have fewer"),
        (Machine(64 * GIB, 1), 11, "processors for each of 11 slots"),
        (Machine(64 * GIB, 8, disk=5 * GIB), 8, "bytes of disk for each of 8 slots"),
        (Machine(64 * GIB, 8, processes=31), 1, "at least 32 processes"),
        (Machine(64 * GIB, 8), 0, "at least 1 slots"),
    ],
)
def test_a_slot_that_would_be_too_small_is_refused(machine: Machine, slots: int, what: str) -> None:
    with pytest.raises(InvalidInput, match=what):
        machine.bounds(slots)


def test_a_machine_is_divided_among_workers_and_then_slots() -> None:
    each = Machine(64 * GIB, 16, disk=400 * GIB).divided(2).bounds(4)
    assert each == Bounds(memory=8 * GIB, work=4 * GIB, disk=50 * GIB, processes=256, cpus=2.0)


def test_this_machine_keeps_some_of_its_memory() -> None:
    here = Machine.here()
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < here.memory <= total * 3 // 4
    assert 1 <= here.cpus <= (os.cpu_count() or 1) and here.disk == 0


def test_disk_space_that_cannot_be_given_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Unavailable, match="needs a folder for it, to be started as root"):
        BubblewrapSandbox(GuestRelease(Path("/nowhere"), bytes(32)), "x", Bounds(disk=GIB))


def test_a_network_whose_guests_would_be_too_small_is_refused_before_it_starts(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="for each of 1000 slots: have fewer"):
        LocalNetwork(tmp_path, cache=tmp_path, worker=WorkerOptions(slots=1000))
    assert list(tmp_path.iterdir()) == []


def test_what_a_deal_may_bring_follows_from_the_disk_unless_it_is_said() -> None:
    in_memory, on_disk = Bounds(), Bounds(disk=100 * GIB)
    assert WorkerOptions().limits(in_memory) == Limits(seconds=0)
    limits = WorkerOptions(output_bytes=GIB).limits(on_disk)
    assert (limits.image_bytes, limits.dataset_bytes, limits.output_bytes) == (25 * GIB, 25 * GIB, GIB)


def test_workers_are_as_the_settings_say(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"DRIVER": "runc", "SLOTS": "3", "MEMORY": "12GiB", "CPUS": "1.5", "DISK": "90GiB"}
    for name, value in {**said, "PROCESSES": "100", "DATASET_SIZE": "10GiB"}.items():
        monkeypatch.setenv(f"SEALDEAL_WORKER_{name}", value)
    options = workers(Settings())
    assert (options.driver, options.slots) == ("runc", 3)
    bounds = options.bounds(2)
    assert bounds == Bounds(2 * GIB, GIB, disk=15 * GIB, processes=100, cpus=0.25)
    assert options.limits(bounds).dataset_bytes == 10 * GIB
