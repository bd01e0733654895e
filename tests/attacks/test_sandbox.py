"""A hostile app inside its sandbox: the whole guest runs, in each driver, around an app that tries.

What takes one system call is tried by one app (probes.py), and each test looks at its own attack.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import socket
import tempfile
import textwrap
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from sealdeal.sdk.guest_release import GuestRelease, build_guest_release
from sealdeal.tee.simulated import SimulatedPlatform
from sealdeal.worker import cgroups, drivers
from sealdeal.worker.cgroups import Bounds
from sealdeal.worker.relay import AttemptFailed
from sealdeal.worker.sandbox import SYSTEM_PATH, Sandbox
from tests.guest.world import Scene
from tests.worker.battery import BOUNDED, app_of

from .probes import CALLS, PROBE, PROBES

needs_cgroups = pytest.mark.skipif(not BOUNDED, reason="cgroups cannot be written here")
PIDS: Final = 64
BOUNDS: Final = Bounds(memory=1 << 30, work=640 << 20, processes=PIDS)
SMALL_FILES: Final = 8 << 20
"""Of /tmp and /dev/shm."""
REFUSED: Final = "PermissionError: [Errno 1]"
"""EPERM: the filter's answer, or the kernel's to who has no capability."""
READ_ONLY: Final = "OSError: [Errno 30]"
ABSENT: Final = "FileNotFoundError"
UNREACHABLE: Final = "OSError: [Errno 101]"
DENIED: Final = "PermissionError: [Errno 13]"

Play = Callable[..., Scene]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def release(cache: Path) -> GuestRelease:
    return build_guest_release(cache)


@pytest.fixture(scope="module")
def play(cache: Path, release: GuestRelease) -> Play:
    """`play(text of the app, driver=…, bounds=…, …)`: an attempt about to be made with a hostile app."""
    simulated = SimulatedPlatform.generate(int(time.time()))
    own = hashlib.sha256(str(cache).encode()).hexdigest()[:12]

    def make(text: str, *, driver: str = "bubblewrap", bounds: Bounds = BOUNDS, **changes: Any) -> Scene:
        sandbox: Sandbox = drivers.sandbox(driver, release, own, bounds, cache / "scratch")
        folder = Path(tempfile.mkdtemp(dir=cache))
        limits = {"temporary_bytes": SMALL_FILES}
        return Scene(
            app_of(text, cache), release, sandbox, simulated, folder=folder, limits=limits, **changes
        )

    return make


def installed(driver: str) -> None:
    """Skips, by name, where a driver cannot run."""
    program = {"bubblewrap": "bwrap"}.get(driver, driver)
    if shutil.which(program, path=SYSTEM_PATH) is None:
        pytest.skip(f"{program} is not installed")
    if driver != "bubblewrap" and not BOUNDED:
        pytest.skip(f"{driver} needs root and cgroups")


@pytest.fixture(scope="module", params=["bubblewrap", "runc"])
async def probe(request: pytest.FixtureRequest, play: Play) -> AsyncIterator[Callable[[str], str]]:
    """What came of each of PROBES, by name. This machine has all that they want to reach."""
    installed(request.param)
    with (
        socket.create_server(("127.0.0.1", 0)) as loopback,
        socket.socket(socket.AF_UNIX) as abstract,
        tempfile.NamedTemporaryFile("w") as secret,
    ):
        name = f"sealdeal-test-{os.getpid()}"
        abstract.bind("\0" + name)
        abstract.listen()
        secret.write("of the machine")
        secret.flush()
        os.chmod(secret.name, 0o644)
        loopback.setblocking(False)
        abstract.setblocking(False)
        text = textwrap.dedent(PROBE).replace("CALLS", repr(CALLS), 1).replace("PROBES", repr(PROBES), 1)
        text = text.replace("PORT", str(loopback.getsockname()[1])).replace("ABSTRACT", name)
        scene = play(text.replace("SECRET", secret.name), driver=request.param, dataset=b"data")
        done = await scene.run()
        assert done.exit_code == 0, scene.result()
        found = json.loads(scene.result()["found.json"])
        assert set(found) == set(PROBES)
        for listener in (loopback, abstract):
            with pytest.raises(BlockingIOError):
                listener.accept()
    yield lambda attack: str(found[attack])


def refused(probe: Callable[[str], str], *attacks: str, by: str = REFUSED) -> None:
    for attack in attacks:
        assert probe(attack).startswith(by), f"{attack}: {probe(attack)}"


# --- the network ----------------------------------------------------------------------------------


def test_tcp_out(probe: Callable[[str], str]) -> None:
    """The app's network namespace is empty: there is no route to anywhere."""
    refused(probe, "tcp out", "udp out", "tcp6 out", by=UNREACHABLE)


def test_loopback_of_the_host(probe: Callable[[str], str]) -> None:
    """The app's loopback is its namespace's own; a server that listens on the machine's is not in it."""
    refused(probe, "loopback", by="ConnectionRefusedError")


def test_cloud_metadata_address(probe: Callable[[str], str]) -> None:
    """The app's network namespace is empty: link-local addresses lead nowhere."""
    refused(probe, "metadata", by=UNREACHABLE)


def test_abstract_socket_of_the_host(probe: Callable[[str], str]) -> None:
    """Abstract names belong to a network namespace, and the app's is its own."""
    refused(probe, "abstract", by="ConnectionRefusedError")


def test_packet_vsock_alg_and_netlink_sockets(probe: Callable[[str], str]) -> None:
    """The filter of system calls allows sockets of three families: Unix, IPv4, IPv6."""
    refused(probe, "packet", "vsock", "alg", "netlink")


def test_raw_sockets(probe: Callable[[str], str]) -> None:
    """The app has no capability, and none can be had."""
    refused(probe, "raw")
    refused(probe, "ping", by=DENIED)


# --- files ----------------------------------------------------------------------------------------


def test_write_outside_the_output(probe: Callable[[str], str]) -> None:
    """Image, input and devices are mounted read-only; the output and two small tmpfs are left to write."""
    refused(probe, "write image", "write root", "write input", "write dev", by=READ_ONLY)
    for attack in ("write sysctl", "write sysrq"):
        expected = r"PermissionError|OSError: \[Errno 30\]|FileNotFoundError"  # some kernels have no sysrq
        assert re.match(expected, probe(attack)), probe(attack)


def test_files_of_the_host_and_the_guest(probe: Callable[[str], str]) -> None:
    """The app's root is its image: nothing of the machine or of the guest is mounted in there."""
    refused(probe, "host file", "host passwords", "guest work", "guest program", by=ABSENT)
    refused(probe, "outer root", by=ABSENT)


def test_open_by_handle(probe: Callable[[str], str]) -> None:
    """The filter of system calls: a file has to be reached by a path inside the sandbox."""
    refused(probe, "handle")


# --- the kernel -----------------------------------------------------------------------------------


def test_mknod(probe: Callable[[str], str]) -> None:
    """Devices cannot be made in a user namespace, and every writable mount is `nodev`."""
    refused(probe, "mknod")


def test_mount(probe: Callable[[str], str]) -> None:
    """The filter of system calls, with every other way to change what is seen: umount, pivot_root, chroot."""
    refused(probe, "mount", "umount", "pivot root", "chroot")


def test_unshare(probe: Callable[[str], str]) -> None:
    """The filter of system calls sees the flags of new namespaces in unshare and clone, and hides clone3."""
    refused(probe, "unshare", "clone", "setns")
    refused(probe, "clone3", by="OSError: [Errno 38]")


def test_ptrace(probe: Callable[[str], str]) -> None:
    """The filter of system calls, for reading another process's memory too."""
    refused(probe, "ptrace", "vm readv")


def test_kill_the_guest(probe: Callable[[str], str]) -> None:
    """The app's namespace of process ids holds its own processes only."""
    refused(probe, "guest signal", by="ProcessLookupError")


def test_bpf(probe: Callable[[str], str]) -> None:
    """The filter of system calls."""
    refused(probe, "bpf")


def test_keyctl(probe: Callable[[str], str]) -> None:
    """The filter of system calls: keyrings are not in any namespace."""
    refused(probe, "keyctl", "add key", "request key")


def test_io_uring(probe: Callable[[str], str]) -> None:
    """The filter of system calls: what goes through a ring is not seen by it."""
    refused(probe, "io_uring")


def test_perf_events(probe: Callable[[str], str]) -> None:
    """The filter of system calls."""
    refused(probe, "perf")


def test_userfaultfd(probe: Callable[[str], str]) -> None:
    """The filter of system calls: it makes races in the kernel easy to win."""
    refused(probe, "userfaultfd")


def test_kexec_and_kernel_modules(probe: Callable[[str], str]) -> None:
    """The filter of system calls."""
    refused(probe, "kexec", "kexec file", "init module", "finit module", "swapon")


def test_reboot(probe: Callable[[str], str]) -> None:
    """The filter of system calls."""
    refused(probe, "reboot")


def test_set_the_clock(probe: Callable[[str], str]) -> None:
    """The filter of system calls."""
    refused(probe, "set time")


def test_become_root(probe: Callable[[str], str]) -> None:
    """The app's namespace has one user, and no program brings privileges (no_new_privs), set-uid or not."""
    assert probe("setuid").startswith(("PermissionError", "OSError: [Errno 22]"))
    assert probe("setgid").startswith(("PermissionError", "OSError: [Errno 22]"))
    assert probe("set-uid file") == "done: '65534\\n'"
    for attack in ("limits", "cores"):
        assert probe(attack).startswith(("PermissionError", "ValueError"))


def test_another_abi_of_system_calls(probe: Callable[[str], str]) -> None:
    """The filter knows the architecture: calls by the x32 or the 32-bit door are refused."""
    assert probe("x32").startswith((REFUSED, "OSError: [Errno 38]"))


# --- exhaustion -----------------------------------------------------------------------------------


def test_fill_dev_shm(probe: Callable[[str], str]) -> None:
    """/dev/shm is a tmpfs of a fixed size."""
    assert probe("fill shm") == f"done: ({SMALL_FILES}, 'No space left on device')"


def test_fill_tmp(probe: Callable[[str], str]) -> None:
    """/tmp is a tmpfs of a fixed size."""
    assert probe("fill tmp") == f"done: ({SMALL_FILES}, 'No space left on device')"


def test_a_file_without_end(probe: Callable[[str], str]) -> None:
    """A limit on the size of a file: that of a whole result."""
    assert probe("fill one file") == f"done: ({256 << 20}, 'File too large')"


FORK_BOMB = """
    import json, os, signal, time
    alive = 0
    for _ in range(1000):
        try:
            if os.fork() == 0:
                time.sleep(60)
        except BlockingIOError:
            break
        alive += 1
    json.dump(alive, open("/iexec_out/alive", "w"))
    json.dump({"deterministic-output-path": "/iexec_out/alive"}, open("/iexec_out/computed.json", "w"))
"""


@needs_cgroups
@pytest.mark.parametrize("driver", ["bubblewrap", "runc"])
async def test_fork_bomb(play: Play, driver: str) -> None:
    """A limit on processes by a control group; when the app ends, the kernel ends its whole namespace."""
    installed(driver)
    scene = play(FORK_BOMB, driver=driver)
    await scene.run()
    assert 8 < int(scene.result()["alive"]) < PIDS
    assert cgroups.leftovers(scene.sandbox._name) == []  # type: ignore[attr-defined]


@needs_cgroups
async def test_memory_bomb(play: Play) -> None:
    """A limit on memory by a control group; the app is the kernel's first choice, and the attempt says so."""
    small = replace(BOUNDS, memory=256 << 20)
    with pytest.raises(AttemptFailed) as failed:
        await play("eaten = []\nwhile True: eaten.append(bytearray(16 << 20))", bounds=small).run()
    assert failed.value.cause == "APP_OUT_OF_MEMORY"


async def test_disk_fill(play: Play) -> None:
    """Output lies on a file system of a fixed size; an app that fills it ends in an error that is its own."""
    scene = play("""
        import os
        number = 0
        try:
            while True:
                with open(f"/iexec_out/{number}", "wb", buffering=0) as file:
                    for _ in range(32):
                        file.write(bytes(1 << 20))
                number += 1
        except OSError as full:
            assert full.errno == 28
        open("/tmp/reached", "w")
        print(number)
    """)
    done = await scene.run()
    assert (done.fault_cause, done.exit_code) == ("POST_COMPUTE_OUT_FOLDER_ZIP_FAILED", 0)
    assert "error.txt" in scene.result()


async def test_a_worker_that_starves_an_app_of_room(play: Play) -> None:
    """The guest looks at its room: where that is less than apps may count on, no error is the app's."""
    with pytest.raises(AttemptFailed, match="less than 512 MiB") as failed:
        await play("raise SystemExit(1)", bounds=replace(BOUNDS, work=400 << 20)).run()
    assert failed.value.cause == "APP_COMPUTE_FAILED"


async def test_inode_fill(play: Play) -> None:
    """Memory for inodes is the sandbox's own; more files than a result may have are an error of the app's."""
    scene = play("""
        import os
        os.mkdir("/iexec_out/d")
        for number in range(20_000):
            open(f"/iexec_out/d/{number}", "w").close()
    """)
    done = await scene.run()
    assert (done.fault_cause, done.exit_code) == ("POST_COMPUTE_OUT_FOLDER_ZIP_FAILED", 0)


@needs_cgroups
async def test_cpu_hog(play: Play) -> None:
    """A share of processor time by a control group, whatever number of processes spin."""
    scene = play(
        """
        import json, os, resource, time
        begun, children = time.monotonic(), []
        for _ in range(6):
            child = os.fork()
            if child == 0:
                while time.monotonic() < begun + 1.5:
                    pass
                os._exit(0)
            children.append(child)
        for child in children:
            os.waitpid(child, 0)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        found = [used.ru_utime + used.ru_stime, time.monotonic() - begun]
        json.dump(found, open("/iexec_out/found", "w"))
        json.dump({"deterministic-output-path": "/iexec_out/found"}, open("/iexec_out/computed.json", "w"))
        """,
        bounds=replace(BOUNDS, cpus=0.5),
    )
    await scene.run()
    used, wall = json.loads(scene.result()["found"])
    assert used < 0.5 * wall + 0.3, (used, wall)


async def test_sleep_forever(play: Play) -> None:
    """The app's wall time is its category's; then everything in its namespace is killed."""
    with pytest.raises(AttemptFailed) as failed:
        await play("import time\ntime.sleep(600)", seconds=1).run()
    assert failed.value.cause == "APP_COMPUTE_TIMEOUT"


async def test_sleep_forever_behind_closed_outputs(play: Play) -> None:
    """The guest waits for the app's end, not only for that of its outputs, and never longer than its time."""
    with pytest.raises(AttemptFailed) as failed:
        await play("import os, time\nos.closerange(0, 3)\ntime.sleep(600)", seconds=1).run()
    assert failed.value.cause == "APP_COMPUTE_TIMEOUT"


async def test_stdout_flood(play: Play) -> None:
    """Of both outputs the beginning is kept and the rest dropped, without waiting for the reader of it."""
    scene = play("""
        import json, os
        for _ in range(64):
            os.write(1, b"x" * (1 << 20))
            os.write(2, b"y" * (1 << 20))
        open("/iexec_out/done", "w").write("done")
        json.dump({"deterministic-output-path": "/iexec_out/done"}, open("/iexec_out/computed.json", "w"))
    """)
    await scene.run()
    files = scene.result()
    assert files["stdout.txt"] == b"x" * (1 << 20) and files["stderr.txt"] == b"y" * (1 << 20)


@needs_cgroups
async def test_orphans_without_end(play: Play) -> None:
    """The first process of the app's namespace reaps what nobody waits for: zombies use up no limit."""
    scene = play("""
        import json, os
        for _ in range(300):
            child = os.fork()
            if child == 0:
                if os.fork() == 0:
                    os._exit(0)
                os._exit(0)
            os.waitpid(child, 0)
        open("/iexec_out/done", "w").write("done")
        json.dump({"deterministic-output-path": "/iexec_out/done"}, open("/iexec_out/computed.json", "w"))
    """)
    done = await scene.run()
    assert (done.fault_cause, done.exit_code) == ("", 0)


async def test_a_process_that_outlives_the_app(play: Play) -> None:
    """The guest reads the output after the last process of the app's namespace is gone: it stands still."""
    scene = play("""
        import json, os, time
        open("/iexec_out/result", "w").write("0" * 1000)
        json.dump({"deterministic-output-path": "/iexec_out/result"}, open("/iexec_out/computed.json", "w"))
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.closerange(0, 3)
                number = 0
                while True:
                    number += 1
                    with open("/iexec_out/result", "r+") as file:
                        file.write(chr(97 + number % 26) * 1000)
            os._exit(0)
        while open("/iexec_out/result").read(1) in ("", "0"):
            time.sleep(0.01)
    """)
    done = await scene.run()
    assert hashlib.sha256(scene.result()["result"]).digest() == done.digest
    assert scene.result()["result"] != b"0" * 1000  # it did run


TAKE_OVER = """
    import ctypes, os, time
    # prctl(PR_SET_PDEATHSIG, 0); for (;;) pause();
    code = bytes.fromhex("b89d000000bf0100000031f60f05" "b8220000000f05ebf7")
    words = open("/proc/1/syscall").read().split()
    with open("/proc/1/mem", "r+b", buffering=0) as memory:  # the kernel lets a writer ignore protection
        memory.seek(int(words[-1], 16))
        assert memory.write(code) == len(code)
    if os.fork() == 0:
        os._exit(0)  # an orphan, soon: it wakes the first process, which waits
    os.write(1, b"x")
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the code is x86_64's")
async def test_take_over_the_sandboxes_first_process(play: Play) -> None:
    """It may do no more than the app, whose user it has; and the guest kills it by name when time is over."""
    with pytest.raises(AttemptFailed) as failed:
        await play(TAKE_OVER, seconds=2).run()
    assert failed.value.cause == "APP_COMPUTE_TIMEOUT"
