"""SECURITY.md's table of attacks, from the tests themselves: it cannot claim what is not tried.

    python -m tests.attacks --write

A row is a test function here: its name is the attack, its docstring what stops it.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "SECURITY.md"
BEGIN, END = "<!-- attacks: from tests/attacks -->\n", "<!-- /attacks -->\n"


def attacks() -> Iterator[tuple[str, str, str]]:
    """(group, attack, what stops it) of every test, in the order of the files.

    Raises ValueError for a test without a docstring.
    """
    for path in sorted(HERE.glob("test_*.py")):
        group = path.stem.removeprefix("test_")
        for node in ast.parse(path.read_text()).body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or node.name[:5] != "test_":
                continue
            words = " ".join((ast.get_docstring(node) or "").split())
            if not words:
                raise ValueError(f"expected a docstring that says what stops it: {path.name} {node.name}")
            yield group, node.name.removeprefix("test_").replace("_", " "), words


def table() -> str:
    """The table, in Markdown."""
    lines = ["| group | attack | what stops it |", "|---|---|---|"]
    before = ""
    for group, attack, stopped in attacks():
        shown = f"[{group}](tests/attacks/test_{group}.py)" if group != before else ""
        lines.append(f"| {shown} | {attack} | {stopped.replace('|', chr(92) + '|')} |")
        before = group
    return "\n".join(lines) + "\n"


def page() -> str:
    """SECURITY.md with the table as it should be."""
    head, rest = PAGE.read_text().split(BEGIN)
    return head + BEGIN + table() + END + rest.split(END)[1]


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        PAGE.write_text(page())
    else:
        print(table(), end="")
