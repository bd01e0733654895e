"""What an app sees from inside its sandbox, what is left of it, and the filter of system calls.

What it cannot do is in tests/attacks/test_sandbox.py.
"""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from sealdeal.guest import seccomp
from sealdeal.model.errors import InvalidInput

from .test_task import MakeScene

PROBE = """
    import json, os
    found = {}
    LOOK
    open("/iexec_out/found.json", "w").write(json.dumps(found))
    open("/iexec_out/computed.json", "w").write('{"deterministic-output-path": "/iexec_out/found.json"}')
"""


async def test_an_app_sees_only_its_own_world(scene: MakeScene) -> None:
    look = """
        found["processes"] = sorted(int(p) for p in os.listdir("/proc") if p.isdigit())
        found["user"] = [os.getuid(), os.geteuid(), os.getgid()]
        found["interfaces"] = [line.split(":")[0].strip() for line in open("/proc/net/dev")][2:]
        found["root"] = sorted(os.listdir("/"))
        found["descriptors"] = sorted(int(f) for f in os.listdir("/proc/self/fd"))
        status = dict(line.split(":\\t", 1) for line in open("/proc/self/status") if ":\\t" in line)
        found["capabilities"] = status["CapEff"].strip()
        found["no new privileges"] = status["NoNewPrivs"].strip()
        found["filtered"] = status["Seccomp"].strip()
        found["input"] = os.listdir("/iexec_in")
        found["host"] = os.uname().nodename
    """
    task = scene(PROBE.replace("LOOK", textwrap.indent(textwrap.dedent(look), "    ").strip()), dataset=b"x")
    await task.run()
    found = json.loads(task.result()["found.json"])
    assert max(found["processes"]) <= 4
    assert found["user"] == [65534, 65534, 65534] and found["interfaces"] == ["lo"]
    places = {"app", "dev", "etc", "iexec_in", "iexec_out", "lib", "lib64", "opt", "proc", "tmp", "usr"}
    assert set(found["root"]) <= places
    assert len([d for d in found["descriptors"] if d > 2]) <= 1
    assert found["capabilities"] == "0" * 16
    assert (found["no new privileges"], found["filtered"]) == ("1", "2")
    assert found["input"] == [task.deal.dataset.pointer] and found["host"] == "app"


ORPHANS = """
import os, signal, sys, time
from sealdeal.guest import app
app._adopt()
if os.fork() == 0:
    for _ in range(3):
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(600)
    os._exit(0)
time.sleep(0.2)
before = len(app._children())
app._end_all()
print(before, app._children())
"""


def test_nothing_of_an_app_is_left_when_it_has_ended() -> None:
    """Children of children that have ended are the guest's, and go."""
    run = subprocess.run([sys.executable, "-c", ORPHANS], capture_output=True, text=True, timeout=60)
    assert run.stdout == "4 []\n", run.stderr  # three, and the zombie who was their parent


# --- the filter itself ----------------------------------------------------------------------------

_HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}
_DANGEROUS = (
    *(
        "ptrace",
        "mount",
        "umount2",
        "unshare",
        "setns",
        "bpf",
        "keyctl",
        "add_key",
        "request_key",
        "pivot_root",
    ),
    *("io_uring_setup", "io_uring_enter", "userfaultfd", "perf_event_open", "kexec_load", "init_module"),
    *("chroot", "swapon", "reboot", "settimeofday", "clock_settime", "process_vm_readv", "process_vm_writev"),
    *(
        "open_by_handle_at",
        "name_to_handle_at",
        "move_mount",
        "fsopen",
        "fsmount",
        "open_tree",
        "finit_module",
    ),
)


@pytest.mark.parametrize("machine", _HEADERS)
def test_numbers_are_the_kernels(machine: str) -> None:
    if not _HEADERS[machine].exists():
        pytest.skip("the kernel's headers are not installed here")
    text = _HEADERS[machine].read_text()
    known = {name: int(number) for name, number in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", text)}
    if machine == "aarch64":
        known["newfstatat"] = known["fstatat"]
    ours = seccomp.numbers(machine)
    assert {name: known[name] for name in ours} == ours
    assert not set(ours) & set(_DANGEROUS)


def judge(program: bytes, number: int, *, arch: int, first: int = 0) -> int:
    """Run a classic BPF program over one call, as the kernel does."""
    steps = list(struct.iter_unpack("=HBBI", program))
    data = struct.pack("<IIQQ", number, arch, 0, first & 0xFFFFFFFFFFFFFFFF)
    at, accumulator = 0, 0
    while True:
        code, yes, no, value = steps[at]
        at += 1
        if code == 0x06:
            return int(value)
        if code == 0x20:
            accumulator = struct.unpack_from("<I", data, value)[0]
            continue
        tests = {0x15: accumulator == value, 0x25: accumulator > value}
        tests |= {0x35: accumulator >= value, 0x45: bool(accumulator & value)}
        at += yes if tests[code] else no


ALLOW, EPERM, ENOSYS = 0x7FFF0000, 0x50001, 0x50026


@pytest.mark.parametrize(("machine", "arch"), [("x86_64", 0xC000003E), ("aarch64", 0xC00000B7)])
def test_the_program_allows_exactly_the_list(machine: str, arch: int) -> None:
    program, numbers = seccomp.program(machine), seccomp.numbers(machine)
    special = {"clone", "clone3", "personality", "socket"}
    allowed = {number for name, number in numbers.items() if name not in special}
    for number in range(451):
        if number not in {numbers[name] for name in special}:
            expected = ALLOW if number in allowed else EPERM
            assert judge(program, number, arch=arch) == expected, number
    assert judge(program, 451, arch=arch) == judge(program, 9999, arch=arch) == ENOSYS
    assert judge(program, 0x40000000 + numbers["read"], arch=arch) == EPERM
    assert judge(program, numbers["read"], arch=0x40000003) == EPERM  # 32-bit x86
    assert judge(program, numbers["clone3"], arch=arch) == ENOSYS
    assert judge(program, numbers["clone"], arch=arch, first=0x3D0F00) == ALLOW  # a thread
    for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert judge(program, numbers["clone"], arch=arch, first=flag | 17) == EPERM
    for family in range(64):
        expected = ALLOW if family in (1, 2, 10) else EPERM
        assert judge(program, numbers["socket"], arch=arch, first=family) == expected
    assert judge(program, numbers["personality"], arch=arch, first=0xFFFFFFFF) == ALLOW
    assert judge(program, numbers["personality"], arch=arch, first=0x40000) == EPERM


def test_an_unknown_machine_has_no_filter() -> None:
    with pytest.raises(InvalidInput):
        seccomp.program("riscv64")
