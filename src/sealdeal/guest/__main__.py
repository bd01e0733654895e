"""The guest's first process. Its one argument is an empty folder to work in.

Standard input and output are the stream to the worker; nothing else is ever written there.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from sealdeal.model.errors import SealdealError

from . import task
from .failures import Failure
from .stream import BrokenStream, Channel

BWRAP = Path("/usr/bin/bwrap")


def main() -> int:
    source, sink = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(2, 1)  # a stray print must not break the stream
    for handle in (source, sink):
        os.set_inheritable(handle, False)
    channel = Channel(source, sink)
    try:
        task.run(channel, Path(sys.argv[1]), BWRAP)
    except Failure as failure:
        channel.event("failed", cause=failure.cause, message=str(failure)[:4000])
    except BrokenStream as broken:
        print(f"guest: {broken}", file=sys.stderr)
        return 1
    except SealdealError as error:
        channel.event("failed", cause="UNKNOWN", message=f"{error.code}: {error}"[:4000])
    except Exception as error:
        # Where it happened may be told; what it was about may hold a secret.
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        place = f"{trace.tb_frame.f_code.co_qualname} line {trace.tb_lineno}" if trace else "?"
        channel.event("failed", cause="UNKNOWN", message=f"the guest met {type(error).__name__} in {place}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
