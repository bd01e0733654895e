"""The tables of `./dev bench gas`, and docs/gas.md around them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench._gas_scenes import CALLBACK_DATA, PARAMS, RESULTS, functions
from sealdeal.chain.local import HARDFORK

PAGE = Path(__file__).parents[1] / "docs" / "gas.md"
NOTHING = "–"
SCENARIO_HEAD = ("scenario", "official", "ours", "ratio", "target", "holds")
FUNCTION_HEAD = ("transaction", "calls", "official", "ours", "ratio")

Rows = Sequence[dict[str, Any]]


def page(rows: Rows) -> str:
    """docs/gas.md."""
    return f"""\
# What the protocol costs in gas

Ours and the official PoCo 6.1.0 (its npm artefacts, with boost), from receipts of the same anvil in one run,
hardfork {HARDFORK}. Written by `./dev bench gas --write`: do not edit.

Each scenario is played on both with the same keys, salts, base token and calls. Unless its name says
otherwise it starts from a market that lives: accounts hold stake, everyone was paid once, another deal is
open, the kitty is empty. Params are {len(PARAMS)} bytes, results {len(RESULTS)}, a callback's data \
{len(CALLBACK_DATA)}; every order is new.
`fast` is contributeAndFinalize, `standard` is contribute, reveal, finalize; `bagN` is one deal of N tasks;
without `trust` one worker suffices. The official totals were also measured elsewhere (`bench/recorded.json`):
equal but for the zero bytes of other keys' addresses and signatures, 12 gas each, and for code around the hub
that was another there: the base token (`h_escrow`, `setup`), the group, the wallet. The run says when not.

Targets: a TEE deal with a dataset settled in one transaction 0.27, other deals 0.30, several workers on a
task 0.40, boost 0.55; escrow, registries and orders closed or told on chain 1.0.

`d_batch100` is ours alone: 100 tasks of a TEE deal settled in one transaction, each with an enclave of its
own, digests of 20 bytes, one worker, a broker with a key; on the official contracts the same bag is settled
task by task. `settleBatch` may cost 20,000 for each task, all that its transaction costs included. This is
the hub's first batch, which costs 170 more for each task than those that follow; a quorum of two as broker
costs 170 more, a dataset 90, each further worker about 300 (`tests/contracts/test_batch.py`).

Some miss theirs; the arithmetic says why, and no form is known that would keep every view exact and meet
them:

- `e_boost_bagN`: `viewTask` finds a boost task by its id alone, so each push writes a slot of its own, for
  22,100. With 21,000 for the transaction, 4,600 for its data, 16,900 for the events, 20,000 for four
  accounts, and 8,000 for a signature, the record and the kitty, that is 92,600 before the first
  instruction; 0.55 would be 78,100. In a boost of one task the cheaper match makes up for it.
- `a_standard_callback`: results and callback data are 100 bytes, of which 71 find room in slots that the
  task has already. The rest takes one more, 22,100.
- `g_presigned`: four transactions that each sign an order cost 21,000 and a new slot, 22,100, and their
  data; with the match that follows, 0.294 before the first instruction.

## Scenarios

Total gas.

{scenario_table(rows)}

## Transactions

Mean over every call in the scenarios above, new slots and used ones together.

{function_table(rows)}

## How it moves

![Gas of a deal against the length of params, the length of results, and the number of workers](gas.svg)

Left and middle: a deal of one task settled by contributeAndFinalize. Right: a deal of one task with the trust
that takes that many workers, each contributing and revealing. `./dev bench gas --plot` draws it.
"""


def tables(rows: Rows) -> str:
    """Both tables, for a terminal."""
    return f"{scenario_table(rows)}\n\n{function_table(rows)}\n"


def scenario_table(rows: Rows) -> str:
    return _table(
        SCENARIO_HEAD,
        [
            (
                row["scenario"],
                _number(row["official"]),
                _number(row["ours"]),
                _ratio(row["ratio"]),
                f"{row['target']:.2f}",
                {True: "yes", False: "no", None: NOTHING}[row["holds"]],
            )
            for row in rows
        ],
    )


def function_table(rows: Rows) -> str:
    return _table(
        FUNCTION_HEAD,
        [
            (
                each["function"],
                _number(each["calls"]),
                _number(each["official"]),
                _number(each["ours"]),
                _ratio(each["ratio"]),
            )
            for each in functions(rows)
        ],
    )


def verdict(rows: Rows) -> str:
    """What the run found, in a few lines: targets, and official totals that are not the recorded ones."""
    played = [row for row in rows if row["ratio"]]
    held = sum(row["holds"] for row in played)
    lines = [f"hardfork {HARDFORK}: {held} of {len(played)} targets hold"]
    if absent := [row["scenario"] for row in rows if not row["ours"]]:
        lines.append(f"not there in ours: {', '.join(absent)}")
    wrong = [row for row in rows if row["agrees"] is False]
    for row in wrong:
        lines.append(
            f"note: {row['scenario']} costs {row['official']:,} on the official contracts, "
            f"but {row['recorded']:,} was recorded"
        )
    if not wrong:
        lines.append("the official totals are the recorded ones, but for zero bytes and code around the hub")
    return "\n".join(lines)


def _number(value: int | None) -> str:
    return f"{value:,}" if value is not None else NOTHING


def _ratio(value: float | None) -> str:
    return f"{value:.3f}" if value is not None else NOTHING


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Markdown, aligned for the eye too: the first column to the left, the others to the right."""
    widths = [max(len(line[column]) for line in (head, *lines)) for column in range(len(head))]

    def row(cells: Sequence[str]) -> str:
        first, *rest = (cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
        return f"| {' | '.join((first.strip().ljust(widths[0]), *rest))} |"

    rule = f"|{'-' * (widths[0] + 2)}|{'|'.join('-' * (width + 1) + ':' for width in widths[1:])}|"
    return "\n".join((row(head), rule, *map(row, lines)))
