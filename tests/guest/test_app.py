"""What an app can't do from inside its sandbox: every attack runs in the real double sandbox."""

from __future__ import annotations

import json
import platform
import re
import struct
import textwrap
from pathlib import Path

import pytest

from sealdeal.guest import seccomp
from sealdeal.model.errors import InvalidInput

from .test_task import MakeScene

PROBE = """
    import ctypes, errno, json, os, resource, signal, socket, subprocess, sys, time
    libc = ctypes.CDLL(None, use_errno=True)
    found = {}

    def attempt(name, act):
        try:
            found[name] = repr(act())
        except BaseException as error:
            found[name] = type(error).__name__ + ": " + str(error)

    def call(number, *arguments):
        ctypes.set_errno(0)
        result = libc.syscall(number, *arguments)
        if result < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return result

    def connect(family, kind, where):
        with socket.socket(family, kind) as s:
            s.settimeout(2)
            s.connect(where)

    ATTEMPTS
    open("/iexec_out/found.json", "w").write(json.dumps(found))
    open("/iexec_out/computed.json", "w").write('{"deterministic-output-path": "/iexec_out/found.json"}')
"""

FORBIDDEN = {
    "reach the internet": 'connect(socket.AF_INET, socket.SOCK_STREAM, ("1.1.1.1", 443))',
    "reach the machine's loopback": 'connect(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 22))',
    "reach a cloud's metadata": 'connect(socket.AF_INET, socket.SOCK_STREAM, ("169.254.169.254", 80))',
    "use a socket of the machine": 'connect(socket.AF_UNIX, socket.SOCK_STREAM, "\\0/tmp/.X11-unix/X0")',
    "open a raw socket": "socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
    "open a packet socket": "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
    "open a vsock": "socket.socket(40, socket.SOCK_STREAM)",
    "open a netlink socket": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "open a crypto socket": "socket.socket(38, socket.SOCK_SEQPACKET)",
    "write its own image": 'open("/app/main.py", "a")',
    "write the root": 'os.mkdir("/new")',
    "write its input": 'open("/iexec_in/new", "w")',
    "see the guest's work": 'os.listdir("/work")',
    "see the guest's program": 'os.listdir("/opt/guest")',
    "mount": 'call(165, b"none", b"/tmp", b"tmpfs", 0, None)',
    "make a user namespace": "call(272, 0x10000000)",
    "clone into a namespace": "call(56, 0x10000000 | 17, 0, 0, 0, 0)",
    "enter a namespace": "call(308, 0, 0)",
    "trace a process": "call(101, 0, 0, 0, 0)",
    "read another's memory": "call(310, 1, None, 0, None, 0, 0)",
    "load a BPF program": "call(321, 0, None, 0)",
    "use the kernel's keys": "call(250, 0, -3, 0)",
    "set up io_uring": "call(425, 8, None)",
    "count with perf": "call(298, None, 0, -1, -1, 0)",
    "use userfaultfd": "call(323, 0)",
    "load a kernel": "call(246, 0, 0, None, 0)",
    "reboot": "call(169, 0xfee1dead, 672274793, 0x1234567, None)",
    "set the clock": "time.clock_settime(time.CLOCK_REALTIME, 0)",
    "become root": "os.setuid(0)",
    "make a device": 'os.mknod("/tmp/kmem", 0o20600, os.makedev(1, 2))',
    "change the root": 'os.chroot("/tmp")',
    "raise its limit of core files": "resource.setrlimit(resource.RLIMIT_CORE, (1, 1))",
    "call through the x32 door": "call(0x40000000 + 39)",
    "kill the guest": "[os.kill(p, 9) for p in range(3, 40)]",
}


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers of system calls are x86_64's")
async def test_an_app_is_alone_and_powerless(scene: MakeScene) -> None:
    attempts = "\n    ".join(f"attempt({name!r}, lambda: {act})" for name, act in FORBIDDEN.items())
    task = scene(PROBE.replace("ATTEMPTS", attempts), dataset=b"x")
    done = await task.run()
    assert done.exit_code == 0
    found = json.loads(task.result()["found.json"])
    expected = (
        r"PermissionError|FileNotFoundError|ConnectionRefusedError|ProcessLookupError|ValueError|OSError: \["
    )
    assert set(found) == set(FORBIDDEN)
    for name, outcome in found.items():
        assert re.match(expected, outcome), f"an app could {name}: {outcome}"


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
    task = scene(
        PROBE.replace("ATTEMPTS", textwrap.indent(textwrap.dedent(look), "    ").strip()), dataset=b"x"
    )
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
