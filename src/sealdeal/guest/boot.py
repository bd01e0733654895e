"""The first process of a guest's machine once its root disk is open: starts the guest, and ends the machine.

    python3 -I -S -B boot.py COMMAND…

The guest has the port /dev/stream as its standard input and output, the console as its standard error, and
no privilege. Where the hardware gives evidence, or the work lies on a disk, the stream passes a gate
(gate.py).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import sys
from pathlib import Path
from typing import Final, NoReturn

HOME: Final = str(Path(__file__).parents[2])
STREAM: Final = "/dev/stream"
UID: Final = 65534
PROCESSES: Final = 512
"""Of the guest and its app together."""
SAYS: Final = "sealdeal: "
ENDED: Final = "the guest ended with status "
"""The console's last words, and the status: what the driver waits for."""
_POWER_OFF: Final = 0x4321FEDC
_PR_SET_NO_NEW_PRIVS: Final = 38


def main(command: list[str]) -> NoReturn:
    sys.path.insert(0, HOME)
    from sealdeal.guest import gate, tsm

    port, reports, watch = os.open(STREAM, os.O_RDWR), tsm.Reports.here(), gate.DiskWatch.here()
    passing = None
    if reports is None and watch is None:
        child = start(command, port, port)
    else:
        below, above = os.pipe(), os.pipe()
        child = start(command, below[0], above[1])
        for end in (below[0], above[1]):
            os.close(end)
        passing = gate.Gate(
            port, to_guest=below[1], from_guest=above[0], reports=reports, watch=watch, stop=stop
        )
        passing.begin()
    status = await_end(child)
    if passing is not None:
        passing.finish()
    stop(f"{ENDED}{status}")


def stop(word: str) -> NoReturn:
    """Say so on the console, and turn the machine off."""
    print(f"{SAYS}{word}", file=sys.stderr, flush=True)
    ctypes.CDLL(None).reboot(_POWER_OFF)
    os._exit(1)  # the kernel panics without its first process


def start(command: list[str], source: int, sink: int) -> int:
    """Run the guest without privileges; returns its process id."""
    if child := os.fork():
        return child
    try:
        os.dup2(source, 0)
        os.dup2(sink, 1)
        os.closerange(3, 256)
        os.setsid()
        os.chdir("/")
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_NPROC, (PROCESSES, PROCESSES))
        os.setgroups([])
        os.setresgid(UID, UID, UID)
        os.setresuid(UID, UID, UID)
        if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_NO_NEW_PRIVS)")
        os.execve(command[0], command, {"LC_ALL": "C.UTF-8"})
    except BaseException as error:
        print(f"the guest cannot be started: {error!r}", file=sys.stderr, flush=True)
    os._exit(1)


def await_end(child: int) -> int:
    """Take the status of all that ends until it is the guest's, which is returned; 128 + n after signal n."""
    while True:
        with contextlib.suppress(InterruptedError):
            ended, how = os.wait()
            if ended == child:
                status = os.waitstatus_to_exitcode(how)
                return status if status >= 0 else 128 - status


if __name__ == "__main__":
    main(sys.argv[1:])
