"""The command `sealdeal`: one file per noun, each a client of the same API that users have.

A command's modules are imported when it is called, so that `sealdeal wallet list` does not load a node.
Exit codes: 0 done, 1 refused or failed (the reason on standard error), 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import asyncio
import sys

from cyclopts import App

from sealdeal import __version__
from sealdeal.model.errors import SealdealError

command = App(
    name="sealdeal",
    help="Deals for confidential computation: apps, data and computing power, traded through signed orders.",
    version=__version__,
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)
for noun, what in {
    "demo": "Watch one whole deal on a network made for it.",
    "up": "Start the local network and keep it.",
    "run": "Run one service of a network in a process of its own.",
    "units": "Write keys, settings, systemd units and a compose file for many processes.",
    "app": "Build and publish apps.",
    "dataset": "Protect data and grant its use.",
    "secret": "Share secrets with SMS nodes, and see who has them.",
    "deal": "Buy runs and look at deals.",
    "task": "Look at tasks, or follow one.",
    "result": "Fetch results.",
    "market": "Watch what the market tells.",
    "webhook": "Have ends of tasks told to a program.",
    "account": "Money in the hub's escrow.",
    "wallet": "Keys on this machine.",
    "contracts": "Deploy a network's contracts, compare them, change a quorum.",
    "tee": "Look at evidence, and at what this machine can do.",
}.items():
    command.command(f"sealdeal.cli.{noun}:{noun}", name=noun, help=what)


def main() -> None:
    """Run the command line; the process ends with its exit code."""
    try:
        code = command()
    except SealdealError as refused:
        print(f"sealdeal: {refused}", file=sys.stderr)
        sys.exit(1)
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)
