"""What a machine can do for confidential computation: its TEE, its virtual machines, its sandboxes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

_TIMEOUT = 20.0
"""Seconds for a program that is tried."""

Run = Callable[[list[str]], str | None]
"""Runs a program: its first line of output, or None when it is not there or fails."""


@dataclass(frozen=True, slots=True)
class Ability:
    """One thing that a machine has or lacks."""

    name: str
    there: bool
    found: str
    """What was seen."""
    use: str
    """What it is good for here."""
    install: str = ""
    """What to do when it lacks; empty when nothing helps."""


def run(arguments: list[str]) -> str | None:
    """The first line that a program prints; None when it lacks, fails or hangs."""
    if shutil.which(arguments[0]) is None:
        return None
    try:
        done = subprocess.run(
            arguments, capture_output=True, stdin=subprocess.DEVNULL, timeout=_TIMEOUT, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    lines = (done.stdout or done.stderr).decode(errors="replace").splitlines()
    return lines[0][:100] if lines else ""


def survey(root: Path = Path("/"), run: Run = run) -> list[Ability]:
    """All abilities of this machine. `root` is where its files are looked for."""
    return [*_tee(root), *_machines(root, run), *_sandboxes(root, run)]


def _tee(root: Path) -> Iterator[Ability]:
    flags = _flags(root)
    yield Ability(
        "TDX host",
        _read(root, "sys/module/kvm_intel/parameters/tdx") in ("Y", "1"),
        "kvm_intel with tdx" if "tdx_host_platform" in flags else "the processor does not say so",
        "start trust domains of Intel TDX",
        "a processor with TDX, enabled in its firmware; a Linux ≥ 6.16 with kvm_intel.tdx=1",
    )
    yield Ability(
        "SEV-SNP host",
        _read(root, "sys/module/kvm_amd/parameters/sev_snp") in ("Y", "1"),
        "sev_snp among the processor's flags" if "sev_snp" in flags else "the processor does not say so",
        "start confidential VMs of AMD SEV-SNP",
        "an EPYC from Milan on, SNP enabled in its firmware; a Linux ≥ 6.11 with kvm_amd.sev_snp=1",
    )
    for name, device, use in (
        ("TDX guest", "dev/tdx_guest", "be a trust domain: take TDX quotes here"),
        ("SEV-SNP guest", "dev/sev-guest", "be a confidential VM: take SEV-SNP reports here"),
        ("Nitro enclave", "dev/nsm", "be an enclave: take Nitro documents here"),
        ("Nitro host", "dev/nitro_enclaves", "start AWS Nitro enclaves"),
    ):
        there = (root / device).exists()
        yield Ability(name, there, f"/{device} {'is' if there else 'is not'} there", use)
    reports = root / "sys/kernel/config/tsm/report"
    yield Ability(
        "configfs-tsm",
        reports.is_dir(),
        f"/{reports.relative_to(root)} {'is' if reports.is_dir() else 'is not'} there",
        "how a guest asks its TEE for evidence",
        "inside a confidential VM: Linux ≥ 6.7 with CONFIG_TSM_REPORTS, and configfs mounted",
    )


def _machines(root: Path, run: Run) -> Iterator[Ability]:
    kvm = root / "dev/kvm"
    usable = kvm.exists() and os.access(kvm, os.R_OK | os.W_OK)
    yield Ability(
        "KVM",
        usable,
        "/dev/kvm is usable"
        if usable
        else "/dev/kvm is there, and not for us"
        if kvm.exists()
        else "no /dev/kvm",
        "run virtual machines at full speed; without it they are emulated",
        "virtualisation enabled in the firmware, and membership in the group kvm",
    )
    yield _program("QEMU", run(["qemu-system-x86_64", "--version"]), "the VM driver", "qemu-system-x86")
    yield _program(
        "veritysetup", run(["veritysetup", "--version"]), "measured disks of VMs", "cryptsetup-bin"
    )


def _sandboxes(root: Path, run: Run) -> Iterator[Ability]:
    mounts = _read(root, "proc/mounts")
    unified = re.search(r"^\S+ /sys/fs/cgroup cgroup2 ", mounts, re.MULTILINE)
    beside = re.search(r"^\S+ /sys/fs/cgroup/unified cgroup2 ", mounts, re.MULTILINE)
    older = re.search(r"^\S+ /sys/fs/cgroup/\S+ cgroup ", mounts, re.MULTILINE)
    version = "version 2" if unified else "version 1 and 2 (hybrid)" if older and beside else "version 1"
    yield Ability(
        "control groups",
        bool(unified or older),
        version if unified or older else "none is mounted",
        "bounds on memory, processes and processor time",
        "mount cgroup2 at /sys/fs/cgroup",
    )
    limit = _read(root, "proc/sys/user/max_user_namespaces")
    allowed = limit not in ("", "0") and _read(root, "proc/sys/kernel/unprivileged_userns_clone") != "0"
    yield Ability(
        "user namespaces",
        allowed,
        f"at most {limit}" if allowed else "not for everyone here",
        "sandboxes without root",
        "sysctl user.max_user_namespaces=15000 kernel.unprivileged_userns_clone=1, or run the worker as root",
    )
    version_of = run(["bwrap", "--version"])
    works = (
        version_of is not None and run(["bwrap", "--ro-bind", "/", "/", "--unshare-all", "true"]) is not None
    )
    yield Ability(
        "bubblewrap",
        works,
        version_of
        if works and version_of
        else "installed, and cannot make namespaces"
        if version_of
        else "not there",
        "the default sandbox",
        "apt install bubblewrap" if version_of is None else "user namespaces, see above",
    )
    runtime = run(["runc", "--version"]) or run(["crun", "--version"])
    yield _program("OCI runtime", runtime, "the runc driver", "runc")


def _program(name: str, version: str | None, use: str, package: str) -> Ability:
    there = version is not None
    return Ability(name, there, version or ("there" if there else "not there"), use, f"apt install {package}")


def _read(root: Path, name: str) -> str:
    try:
        return (root / name).read_text(errors="replace").strip()
    except OSError:
        return ""


def _flags(root: Path) -> set[str]:
    found = re.search(r"^flags\s*:(.*)$", _read(root, "proc/cpuinfo"), re.MULTILINE)
    return set(found.group(1).split()) if found else set()
