"""Each title of the official suite's tests has a test here, or a reason why it has none (titles.txt).

A test has its title's words: lower case, without "Should" and the parts that vary between repetitions, and
without a few others where it would be too long.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
CHECKLIST = HERE.parents[3] / "shared" / "reference" / "poco-behaviours.md"
"""The titles themselves. They lie beside the checkout and are not ours to ship."""


@dataclass(frozen=True)
class Line:
    """What answers for one title: a test, or a reason why there is none."""

    file: str = ""
    test: str = ""
    reason: str = ""
    named: bool = True
    """After the title."""


def answers() -> dict[str, list[Line]]:
    """Section -> what answers for each of its titles."""
    sections: dict[str, list[Line]] = {}
    sizes: dict[str, int] = {}
    file = section = ""
    for raw in (HERE / "titles.txt").read_text().splitlines():
        text, _, times = raw.partition(" *")
        if not text or text.startswith("#"):
            continue
        if text.startswith("= "):
            size, _, section = text[2:].partition(" ")
            sections[section], sizes[section] = [], int(size)
        elif text.startswith("["):
            file = text.strip("[]")
        else:
            if text.startswith("- "):
                line = Line(reason=text[2:])
            elif text.startswith("~ "):
                shown_by, _, test = text[2:].partition("::")
                line = Line(shown_by, test, named=False)
            else:
                line = Line(file, text)
            sections[section] += [line] * int(times or 1)
    assert {name: len(lines) for name, lines in sections.items()} == sizes
    return sections


@cache
def written(file: str) -> set[str]:
    """The tests of a file, without `test_`."""
    tree = ast.parse((HERE / f"{file}.py").read_text())
    names = (node.name for node in tree.body if isinstance(node, ast.FunctionDef))
    return {name.removeprefix("test_") for name in names if name.startswith("test_")}


def titles() -> list[list[str]]:
    """The checklist's, by section."""
    sections = re.split(r"\n## ", CHECKLIST.read_text())
    found = [re.findall(r"^ *- \[ \] (.*)$", section, re.MULTILINE) for section in sections]
    return [section for section in found if section]


def is_named_after(test: str, title: str) -> bool:
    """Are the test's words among the title's, in their order?"""
    bare = re.sub(r"\{[^}]*\}| \(runs \d+ times\)$| — skipped upstream$", "", title)
    words = re.findall(r"[a-z0-9]+", bare.replace(">", " above ").lower())
    return re.fullmatch("".join(f"(?:{word}_)?" for word in words), f"{test}_") is not None


def test_every_title_has_a_test_or_a_reason() -> None:
    sections = answers()
    assert sum(map(len, sections.values())) == 430
    missing = [
        f"{line.file}::{line.test}"
        for lines in sections.values()
        for line in lines
        if not line.reason and line.test not in written(line.file)
    ]
    assert missing == []


if CHECKLIST.exists():

    def test_tests_are_named_after_their_titles() -> None:
        sections = list(answers().values())
        assert [len(lines) for lines in sections] == [len(section) for section in titles()]
        misnamed = [
            (line.test, title)
            for lines, section in zip(sections, titles(), strict=True)
            for line, title in zip(lines, section, strict=True)
            if line.test and line.named and not is_named_after(line.test, title)
        ]
        assert misnamed == []
