"""The last steps of a sandbox's start that need the worker's own rights: run as a program of its own.

    python -I -S launch.py '{"cgroups": [...], "uid": 200000, "root": "/…", "point": "/mnt", "parent": 1,
                             "command": ["bwrap", …]}'

It joins the control groups, makes the guest's files reachable, gives up root for good, and becomes the
command. Only the standard library: it starts in a few milliseconds.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys

CLONE_NEWNS, MS_BIND, MS_REC, MS_PRIVATE, PR_SET_PDEATHSIG = 0x20000, 0x1000, 0x4000, 0x40000, 1


def main() -> None:
    told = json.loads(sys.argv[1])
    libc = ctypes.CDLL(None, use_errno=True)

    def must(result: int, what: str) -> None:
        if result != 0:
            code = ctypes.get_errno()
            raise OSError(code, f"{what}: {os.strerror(code)}")

    for path in told["cgroups"]:
        with open(path, "w") as handle:
            handle.write("0")
    if told["root"] is not None:
        # The files lie below a folder that the sandbox's user may not enter (/root, say). In a mount
        # namespace of its own they also lie where it may.
        must(libc.unshare(CLONE_NEWNS), "unshare")
        must(libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None), "mount --make-rprivate /")
        must(libc.mount(told["root"].encode(), told["point"].encode(), None, MS_BIND, None), "mount --bind")
    if told["uid"] is not None:
        os.setgroups([])
        os.setresgid(told["uid"], told["uid"], told["uid"])
        os.setresuid(told["uid"], told["uid"], told["uid"])
        os.chdir("/")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    must(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
    if os.getppid() != told["parent"]:
        sys.exit("the worker died while the sandbox started")
    os.execvpe(told["command"][0], told["command"], {"PATH": "/usr/local/bin:/usr/bin:/bin"})


if __name__ == "__main__":
    main()
