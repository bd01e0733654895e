"""Run benchmarks and print their ratios: `python -m bench [--json] [NAME… [OPTION…]]`.

A benchmark that has a `report(options)` prints in its own way; options go to it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
import json
import pkgutil
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

from bench import Ratio


def names() -> list[str]:
    """The benchmarks there are."""
    modules = pkgutil.iter_modules([str(Path(__file__).parent)])
    return sorted(module.name for module in modules if not module.name.startswith("_"))


async def run(name: str, tell: Callable[[Ratio], None]) -> None:
    """Measure all ratios of one benchmark, and tell each as soon as it is there."""
    measured: AsyncIterator[Ratio] | Iterator[Ratio] = importlib.import_module(f"bench.{name}").measure()
    if isinstance(measured, AsyncIterator):
        async for ratio in measured:
            tell(ratio)
    else:
        for ratio in measured:
            tell(ratio)


def main(arguments: list[str]) -> int:
    as_json = "--json" in arguments
    options = [a for a in arguments if a.startswith("--") and a != "--json"]
    wanted = [a for a in arguments if not a.startswith("--")] or names()
    if unknown := [name for name in wanted if name not in names()]:
        print(f"no benchmark {', '.join(unknown)}; there are: {', '.join(names())}", file=sys.stderr)
        return 2
    reports = {name: getattr(importlib.import_module(f"bench.{name}"), "report", None) for name in wanted}
    if options and (as_json or len(wanted) > 1 or not reports[wanted[0]]):
        print(f"{' '.join(options)}: no such option here", file=sys.stderr)
        return 2
    document = []
    for name in wanted:
        report = reports[name]
        if report and not as_json:
            if failed := report(options):
                return int(failed)
            continue
        found: list[Ratio] = []
        asyncio.run(run(name, found.append if as_json else show))
        document += [{"bench": name, **dataclasses.asdict(one), "ratio": one.ratio} for one in found]
    if as_json:
        print(json.dumps(document, indent=1))
    return 0


def show(ratio: Ratio) -> None:
    """Print a ratio as a line."""
    print(
        f"{ratio.ratio:8.3g}×  {ratio.name}: {ratio.ours:,.5g} {ratio.unit}"
        f"  against {ratio.reference:,.5g} {ratio.unit} ({ratio.against})",
        flush=True,
    )


if __name__ == "__main__":
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(143)
    )  # what was started is stopped, what was made removed
    sys.exit(main(sys.argv[1:]))
