"""What a machine can do, told from files and programs that a test lays out."""

from __future__ import annotations

from pathlib import Path

import pytest

from sealdeal.tee.host import Ability, run, survey


def machine(root: Path, files: dict[str, str], programs: tuple[str, ...] = ()) -> dict[str, Ability]:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)

    def answers(arguments: list[str]) -> str | None:
        return f"{arguments[0]} 1.0" if arguments[0] in programs else None

    return {ability.name: ability for ability in survey(root, answers)}


def test_an_empty_machine_can_do_nothing_and_is_told_what_it_needs(tmp_path: Path) -> None:
    found = machine(tmp_path, {})
    assert not any(ability.there for ability in found.values())
    for name, package in {
        "bubblewrap": "bubblewrap",
        "OCI runtime": "runc",
        "QEMU": "qemu-system-x86",
    }.items():
        assert found[name].install == f"apt install {package}"


def test_a_tdx_host_is_recognised(tmp_path: Path) -> None:
    files = {"sys/module/kvm_intel/parameters/tdx": "Y\n", "proc/cpuinfo": "flags\t: fpu tdx_host_platform\n"}
    found = machine(tmp_path, files)
    assert found["TDX host"].there and "kvm_intel with tdx" in found["TDX host"].found
    assert not found["SEV-SNP host"].there


def test_an_snp_host_is_recognised(tmp_path: Path) -> None:
    files = {
        "sys/module/kvm_amd/parameters/sev_snp": "Y",
        "proc/cpuinfo": "flags : fpu sev_snp\n",
        "dev/kvm": "",
    }
    found = machine(tmp_path, files, ("qemu-system-x86_64",))
    assert found["SEV-SNP host"].there and found["KVM"].there and found["QEMU"].there


def test_guests_are_recognised(tmp_path: Path) -> None:
    (tmp_path / "sys/kernel/config/tsm/report").mkdir(parents=True)
    found = machine(tmp_path, {"dev/tdx_guest": "", "dev/nsm": ""})
    assert found["TDX guest"].there and found["Nitro enclave"].there and found["configfs-tsm"].there
    assert not found["SEV-SNP guest"].there


@pytest.mark.parametrize(
    ("mounts", "version"),
    [
        ("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n", "version 2"),
        (
            "cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n"
            "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n",
            "version 1 and 2 (hybrid)",
        ),
        ("cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n", "version 1"),
    ],
)
def test_control_groups_are_told_apart(tmp_path: Path, mounts: str, version: str) -> None:
    found = machine(tmp_path, {"proc/mounts": "proc /proc proc rw 0 0\n" + mounts})
    assert found["control groups"].there and found["control groups"].found == version


def test_user_namespaces_may_be_closed(tmp_path: Path) -> None:
    limit = {"proc/sys/user/max_user_namespaces": "100\n"}
    assert machine(tmp_path, limit)["user namespaces"].there
    assert not machine(tmp_path, {**limit, "proc/sys/kernel/unprivileged_userns_clone": "0\n"})[
        "user namespaces"
    ].there
    assert not machine(tmp_path, {"proc/sys/user/max_user_namespaces": "0"})["user namespaces"].there


def test_an_installed_bubblewrap_that_cannot_work_is_not_there(tmp_path: Path) -> None:
    def only_its_version(arguments: list[str]) -> str | None:
        return "bubblewrap 0.8.0" if arguments == ["bwrap", "--version"] else None

    found = {ability.name: ability for ability in survey(tmp_path, only_its_version)}["bubblewrap"]
    assert not found.there and found.found == "installed, and cannot make namespaces"
    assert found.install == "user namespaces, see above"


def test_programs_are_really_run() -> None:
    assert run(["no-such-program-at-all"]) is None
    assert run(["false"]) is None
    assert run(["echo", "first\nsecond"]) == "first"
    assert run(["true"]) == ""
