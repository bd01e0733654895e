"""Gas of the protocol on our contracts and on the official PoCo 6.1.0, side by side.

./dev bench gas            # the tables
./dev bench gas --write    # and contracts/gas.json, docs/gas.md
./dev bench gas --plot     # and docs/gas.svg
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence

from bench import Ratio
from bench import _gas_page as page
from bench import _gas_plot as plot
from bench._gas_scenes import SNAPSHOT, run, snapshot
from sealdeal.chain.local import HARDFORK

__all__ = ["SNAPSHOT", "measure", "report", "run", "snapshot"]


def measure() -> Iterator[Ratio]:
    """The totals, for `python -m bench`."""
    for row in run():
        if row["ratio"]:
            yield Ratio(row["scenario"], row["ours"], f"PoCo 6.1.0, {HARDFORK}", row["official"], "gas")


def report(options: Sequence[str]) -> int:
    """`./dev bench gas`: print the tables; with `--write` and `--plot`, write what is kept of them."""
    if unknown := set(options) - {"--write", "--plot"}:
        print(f"gas knows --write and --plot, not {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    rows = run()
    print(page.tables(rows))
    print(page.verdict(rows))
    if "--write" in options:
        SNAPSHOT.write_text(json.dumps(snapshot(rows), indent=1) + "\n")
        page.PAGE.write_text(page.page(rows))
    if "--plot" in options:
        plot.PLOT.write_text(plot.drawn(plot.measured()))
    return 0


if __name__ == "__main__":
    sys.exit(report(sys.argv[1:]))
