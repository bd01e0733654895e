"""What is kept of the gas benchmark, docs/gas.md and docs/gas.svg, is of these contracts, like with like.

That contracts/gas.json is of them, test_build.py checks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from bench import _gas_page as page
from bench import _gas_plot as plot
from bench import _gas_scenes as scenes
from bench.__main__ import main

SLOW = {"d_bag100", "d_bag100_fast", "d_batch100", "e_boost_bag100"}
"""Hundreds of transactions that say no more than the bags of ten."""
AGAIN = "run ./dev bench gas --write --plot, and look at the diff"


def held() -> Iterator[tuple[str, str, int, int]]:
    """contracts/gas.json: scenario, transaction, and the count and sum of its gas."""
    for scenario, each in json.loads(scenes.SNAPSHOT.read_text()).items():
        for name, gas in each.items():
            if isinstance(gas, dict):
                yield scenario, name, gas["count"], gas["total"]
            else:
                gases = gas if isinstance(gas, list) else [gas]
                yield scenario, name, len(gases), sum(gases)


def table(head: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """The table of docs/gas.md with this head: first cell -> column -> cell."""
    lines = page.PAGE.read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    start = cells.index(list(head)) + 2
    found = {}
    for row in cells[start:]:
        if len(row) != len(head):
            break
        found[row[0]] = dict(zip(head, row, strict=True))
    return found


def number(text: str) -> int | None:
    return None if text == page.NOTHING else int(text.replace(",", ""))


def test_the_page_tells_the_committed_totals() -> None:
    totals: dict[str, int] = {}
    for scenario, _, _, total in held():
        totals[scenario] = totals.get(scenario, 0) + total
    rows = table(page.SCENARIO_HEAD)
    assert list(rows) == list(scenes.SCENARIOS)
    for scenario, row in rows.items():
        ours, official = number(row["ours"]), number(row["official"])
        assert ours == totals.get(scenario), f"{scenario}: {AGAIN}"
        assert official and row["target"] == f"{scenes.target(scenario):.2f}"
        if ours is None:
            assert row["ratio"] == row["holds"] == page.NOTHING
        else:
            assert row["ratio"] == f"{ours / official:.3f}"
            assert row["holds"] == ("yes" if ours / official <= scenes.target(scenario) else "no")


def test_a_batch_of_100_costs_20000_for_each_task_at_most() -> None:
    assert json.loads(scenes.SNAPSHOT.read_text())["d_batch100"]["settleBatch[100]"] <= 100 * 20_000


def test_the_page_tells_the_committed_means_of_each_transaction() -> None:
    sums: dict[str, tuple[int, int]] = {}
    for _, name, count, total in held():
        before = sums.get(name, (0, 0))
        sums[name] = (before[0] + count, before[1] + total)
    rows = table(page.FUNCTION_HEAD)
    assert sums.keys() <= rows.keys(), AGAIN
    for name, row in rows.items():
        expected = round(sums[name][1] / sums[name][0]) if name in sums else None
        assert number(row["ours"]) == expected, f"{name}: {AGAIN}"
        assert name not in sums or number(row["calls"]) == sums[name][0]


@pytest.mark.parametrize("panel", plot.PANELS)
def test_the_plot_is_of_these_contracts(panel: str) -> None:
    kept = plot.kept()[panel]["ours"]
    assert list(kept) == list(plot.PANELS[panel].points)
    few = [min(kept), 80 if 80 in kept else sorted(kept)[3], max(kept)]
    again = plot.measured(("ours",), {panel: few})[panel]["ours"]
    assert again == {x: kept[x] for x in few}, AGAIN


def test_the_plot_can_be_read() -> None:
    """Well-formed, with both lines in each of three panels."""
    from xml.etree import ElementTree

    root = ElementTree.fromstring(plot.drawn(plot.kept()))
    space = {"svg": "http://www.w3.org/2000/svg"}
    lines = [line.get("stroke") for line in root.findall("svg:polyline", space)]
    assert lines == [plot.COLOURS["official"], plot.COLOURS["ours"]] * 3
    texts = [text.text or "" for text in root.findall("svg:text", space)]
    assert {"ours", "official PoCo 6.1.0", "workers on the task", "4096", "1024", "20"} <= set(texts)
    assert len([text for text in texts if re.fullmatch(r"\d\.\d\d×", text)]) == 6
    assert plot.drawn(plot.kept()) == plot.PLOT.read_text()


# ---- The official contracts --------------------------------------------------------------------------------


def test_official_totals_are_the_ones_recorded_elsewhere() -> None:
    names = [name for name in scenes.SCENARIOS if name not in SLOW]
    rows = scenes.run(names, suites=("official",))
    assert [row["scenario"] for row in rows if not row["agrees"]] == []
    assert all(row["official"] and row["ours"] is None and row["holds"] is None for row in rows)


def test_every_recorded_scenario_is_played_and_every_class_is_of_scenarios() -> None:
    assert json.loads(scenes.RECORDED.read_text()).keys() == scenes.SCENARIOS.keys() - scenes.OURS_ALONE
    classes = (scenes.ADMINISTRATION, scenes.CONTRIBUTORS, scenes.FASTEST, scenes.OTHER_CODE)
    for each in classes:
        assert set(each) <= scenes.SCENARIOS.keys()
    targets: dict[float, int] = {}
    for name in scenes.SCENARIOS:
        targets[scenes.target(name)] = targets.get(scenes.target(name), 0) + 1
    assert targets == {0.04: 1, 0.27: 3, 0.3: 25, 0.40: 4, 0.55: 7, 1.0: 4}


@pytest.mark.parametrize(
    ("difference", "agrees"),
    [(0, True), (12, True), (-36 * 3, True), (-36 * 3 - 12, False), (1, False), (20_000, False)],
)
def test_another_total_does_not_agree(difference: int, agrees: bool) -> None:
    recorded = json.loads(scenes.RECORDED.read_text())
    assert scenes.agree("a_fast", recorded["a_fast"] + difference, 3) is agrees


def test_a_total_through_another_base_token_agrees_within_its_share() -> None:
    recorded = json.loads(scenes.RECORDED.read_text())["setup"]
    assert scenes.agree("setup", recorded + 5_000, 5) and not scenes.agree("setup", recorded + 7_000, 5)


def test_a_benchmark_without_options_refuses_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["orders", "--write"]) == 2
    assert main(["gas", "orders", "--write"]) == 2
    assert main(["gas", "--frobnicate"]) == 2
    assert "--frobnicate" in capsys.readouterr().err


def test_what_is_not_there_in_ours_is_said() -> None:
    rows: list[dict[str, Any]] = scenes.run(["e_boost", "g_broadcast"])
    for row in rows[:1]:
        row |= {"ours": None, "ratio": None, "holds": None, "agrees": False, "recorded": 1}
    said = page.verdict(rows)
    assert "not there in ours: e_boost" in said and "1 of 1 targets hold" in said
    assert "note: e_boost costs" in said and "but 1 was recorded" in said
