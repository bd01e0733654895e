"""What the hostile app of test_sandbox.py tries, one expression each, and the app itself."""

from __future__ import annotations

from typing import Final

CALLS: Final = {
    "add_key": (248, 217),
    "bpf": (321, 280),
    "clone": (56, 220),
    "clone3": (435, 435),
    "finit_module": (313, 273),
    "init_module": (175, 105),
    "io_uring_setup": (425, 425),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "mount": (165, 40),
    "open_by_handle_at": (304, 265),
    "perf_event_open": (298, 241),
    "pivot_root": (155, 41),
    "process_vm_readv": (310, 270),
    "ptrace": (101, 117),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "setns": (308, 268),
    "swapon": (167, 224),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
}
"""Number on x86_64 and on aarch64."""

PROBES: Final = {
    "tcp out": 'connect(socket.AF_INET, ("1.1.1.1", 443))',
    "udp out": 'socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("1.1.1.1", 53))',
    "tcp6 out": 'connect(socket.AF_INET6, ("2606:4700:4700::1111", 443))',
    "loopback": 'connect(socket.AF_INET, ("127.0.0.1", PORT))',
    "metadata": 'connect(socket.AF_INET, ("169.254.169.254", 80))',
    "abstract": 'connect(socket.AF_UNIX, "\\0ABSTRACT")',
    "packet": "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
    "vsock": "socket.socket(40, socket.SOCK_STREAM)",
    "alg": "socket.socket(38, socket.SOCK_SEQPACKET)",
    "netlink": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "raw": "socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
    "ping": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 1)",
    "write image": 'open("/app/main.py", "a")',
    "write root": 'os.mkdir("/new")',
    "write input": 'open("/iexec_in/new", "w")',
    "write dev": 'open("/dev/new", "w")',
    "write sysctl": 'open("/proc/sys/kernel/core_pattern", "w")',
    "write sysrq": 'open("/proc/sysrq-trigger", "w")',
    "host file": 'open("SECRET").read()',
    "host passwords": 'open("/etc/shadow").read()',
    "guest work": 'os.listdir("/work")',
    "guest program": 'os.listdir("/opt/guest")',
    "outer root": 'os.listdir("/proc/1/root/opt/guest")',
    "guest signal": "[os.kill(p, 9) for p in range(3, 60) if p != os.getpid()]",
    "mknod": 'os.mknod("/tmp/memory", 0o20600, os.makedev(1, 1))',
    "mount": 'call("mount", b"none", b"/tmp", b"tmpfs", 0, None)',
    "umount": 'call("umount2", b"/iexec_in", 2)',
    "pivot root": 'call("pivot_root", b"/tmp", b"/tmp")',
    "chroot": 'os.chroot("/tmp")',
    "unshare": 'call("unshare", 0x10000000)',
    "clone": 'call("clone", 0x10000000 | 17, 0, 0, 0, 0)',
    "clone3": 'call("clone3", None, 0)',
    "setns": 'call("setns", 0, 0)',
    "handle": 'call("open_by_handle_at", 0, None, 0)',
    "ptrace": 'call("ptrace", 0, 0, 0, 0)',
    "vm readv": 'call("process_vm_readv", 1, None, 0, None, 0, 0)',
    "bpf": 'call("bpf", 0, None, 0)',
    "keyctl": 'call("keyctl", 0, -3, 0)',
    "add key": 'call("add_key", b"user", b"x", b"y", 1, -3)',
    "request key": 'call("request_key", b"user", b"x", None, 0)',
    "io_uring": 'call("io_uring_setup", 8, None)',
    "perf": 'call("perf_event_open", None, 0, -1, -1, 0)',
    "userfaultfd": 'call("userfaultfd", 0)',
    "kexec": 'call("kexec_load", 0, 0, None, 0)',
    "kexec file": 'call("kexec_file_load", -1, -1, 0, None, 0)',
    "init module": 'call("init_module", None, 0, b"")',
    "finit module": 'call("finit_module", -1, b"", 0)',
    "swapon": 'call("swapon", b"/tmp/x", 0)',
    "reboot": 'call("reboot", 0xfee1dead, 672274793, 0x1234567, None)',
    "set time": "time.clock_settime(time.CLOCK_REALTIME, 0)",
    "setuid": "os.setuid(0)",
    "setgid": "os.setgid(0)",
    "limits": "resource.setrlimit(resource.RLIMIT_NOFILE, (1 << 20, 1 << 20))",
    "cores": "resource.setrlimit(resource.RLIMIT_CORE, (1, 1))",
    "set-uid file": 'suid("/iexec_out/true")',
    "x32": "number(0x40000000 + 39)",
    "fill shm": 'fill("/dev/shm/x")',
    "fill tmp": 'fill("/tmp/x")',
    "fill one file": 'fill("/iexec_out/x")',
}
"""What the app evaluates; it tells what came out."""

PROBE: Final = """
    import ctypes, json, os, platform, resource, signal, socket, subprocess, sys, time
    libc = ctypes.CDLL(None, use_errno=True)
    calls = CALLS
    column = ["x86_64", "aarch64"].index(platform.machine())

    def number(number, *arguments):
        ctypes.set_errno(0)
        result = libc.syscall(number, *arguments)
        if result < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return result

    def call(name, *arguments):
        return number(calls[name][column], *arguments)

    def connect(family, where):
        with socket.socket(family, socket.SOCK_STREAM) as s:
            s.settimeout(2)
            s.connect(where)

    def fill(path):
        written, error = 0, ""
        try:
            with open(path, "wb", buffering=0) as file:
                while written < 1 << 30:
                    written += file.write(bytes(1 << 20))
        except OSError as full:
            error = full.strerror
        os.unlink(path)
        return written, error

    def suid(path):
        open(path, "wb").write(open(os.path.realpath(sys.executable), "rb").read())
        os.chmod(path, 0o4755)
        code, home = "import os; print(os.geteuid())", {"PYTHONHOME": sys.base_prefix}
        try:
            return subprocess.run([path, "-S", "-c", code], capture_output=True, text=True, env=home).stdout
        finally:
            os.unlink(path)

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    found = {}
    for name, attack in PROBES.items():
        try:
            found[name] = "done: " + repr(eval(attack))
        except BaseException as error:
            found[name] = type(error).__name__ + ": " + str(error)
    open("/iexec_out/found.json", "w").write(json.dumps(found))
    open("/iexec_out/computed.json", "w").write('{"deterministic-output-path": "/iexec_out/found.json"}')
"""
