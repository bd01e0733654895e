"""docs/gas.svg: how the cost of a deal moves, on ours and on the official contracts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from bench._gas_scenes import SUITES, Scenes
from sealdeal.chain.local import HARDFORK
from sealdeal.model.deals import task_id
from tests.contracts.world import Suite, World, key

PLOT = Path(__file__).parents[1] / "docs" / "gas.svg"

Curve = dict[int, int]
"""x -> total gas of the deal."""
Curves = dict[str, dict[str, Curve]]
"""Panel -> suite -> curve."""


@dataclass(frozen=True)
class Panel:
    title: str
    unit: str
    points: Sequence[int]
    play: Callable[[Scenes, int], None]


def _params(scenes: Scenes, length: int) -> None:
    scenes.fast(scenes.task(request={"params": "x" * length}))


def _results(scenes: Scenes, length: int) -> None:
    taskid = scenes.task()
    scenes.note("contributeAndFinalize", scenes.world.direct(taskid, b"x" * length))


def _contributors(scenes: Scenes, count: int) -> None:
    trust = {"trust": 2**count}  # what `count` equal contributions of unknown workers just reach
    workers = [f"worker {number}" for number in range(count)]
    dealid = scenes.deal(pool=trust, request=trust)
    scenes.note("initialize", scenes.world.hub.initialize(dealid, 0))
    taskid = task_id(dealid, 0)
    for worker in workers:
        scenes.contribute(taskid, worker)
    for worker in workers:
        scenes.reveal(taskid, worker)
    scenes.finalize(taskid)


PANELS = {
    "params": Panel("length of params", "bytes", (0, 32, 64, 128, 256, 512, 1024, 2048, 3072, 4096), _params),
    "results": Panel("length of results", "bytes", (0, 31, 32, 64, 128, 256, 384, 512, 768, 1024), _results),
    "contributors": Panel(
        "workers on the task", "", (1, 2, 3, 4, 6, 8, 10, 12, 14, 16, 18, 20), _contributors
    ),
}


def measured(suites: Sequence[Suite] = SUITES, points: Mapping[str, Sequence[int]] | None = None) -> Curves:
    """Play the deals of every panel, or of these points of these panels."""
    wanted = points or {name: panel.points for name, panel in PANELS.items()}
    curves: Curves = {name: {} for name in wanted}
    for suite in suites:
        world = World.start(suite=suite)
        try:
            for number in range(max(wanted.get("contributors", (0,)))):
                world.keys[f"worker {number}"] = key(f"worker {number}")
                world.enrich(world.who(f"worker {number}"))
            scenes = Scenes(world)
            scenes.open_market()
            for name, xs in wanted.items():
                curves[name][suite] = {x: _total(scenes, PANELS[name].play, x) for x in xs}
        finally:
            world.chain.close()
    return curves


def _total(scenes: Scenes, play: Callable[[Scenes, int], None], x: int) -> int:
    return sum(gas for _, gas in scenes.played(lambda at: play(at, x)))


def kept() -> Curves:
    """The curves of docs/gas.svg."""
    text = PLOT.read_text()
    start, end = text.index("<metadata>") + len("<metadata>"), text.index("</metadata>")
    return {
        panel: {suite: {int(x): y for x, y in curve.items()} for suite, curve in each.items()}
        for panel, each in json.loads(text[start:end]).items()
    }


# ---- Drawing -----------------------------------------------------------------------------------------------

WIDTH, HEIGHT = 300, 230
"""Of a panel's axes, in user units."""
LEFT, TOP, BOTTOM, GAP = 58, 44, 52, 62
COLOURS = {"official": "#8a8a8a", "ours": "#0b6e4f"}


def drawn(curves: Curves) -> str:
    """The SVG. Its <metadata> are the curves as JSON."""
    names = list(curves)
    width = LEFT + len(names) * WIDTH + (len(names) - 1) * GAP + 50
    height = TOP + HEIGHT + BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="sans-serif" font-size="11" fill="#333">',
        f"<title>Gas of a deal, ours and the official PoCo 6.1.0, hardfork {HARDFORK}</title>",
        f"<metadata>{json.dumps(curves, separators=(',', ':'))}</metadata>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for number, suite in enumerate(SUITES):
        x = LEFT + 190 * number
        label = {"official": "official PoCo 6.1.0", "ours": "ours"}[suite]
        parts.append(
            f'<line x1="{x}" y1="16" x2="{x + 22}" y2="16" stroke="{COLOURS[suite]}" stroke-width="2"/>'
            f'<text x="{x + 28}" y="20">{escape(label)}</text>'
        )
    for number, name in enumerate(names):
        parts += _panel(PANELS[name], curves[name], LEFT + number * (WIDTH + GAP))
    return "\n".join((*parts, "</svg>")) + "\n"


def _panel(panel: Panel, curves: dict[str, Curve], left: int) -> list[str]:
    most_x = max(panel.points)
    step = _step(max(max(curve.values()) for curve in curves.values()))
    ticks = -(-max(max(curve.values()) for curve in curves.values()) // step)
    most_y = ticks * step

    def at(x: int, y: int) -> tuple[float, float]:
        return round(left + WIDTH * x / most_x, 1), round(TOP + HEIGHT * (1 - y / most_y), 1)

    parts = []
    for y in range(0, most_y + 1, step):
        _, height = at(0, y)
        parts.append(
            f'<line x1="{left}" y1="{height}" x2="{left + WIDTH}" y2="{height}" stroke="#e4e4e4"/>'
            f'<text x="{left - 6}" y="{height + 4}" text-anchor="end">{_short(y)}</text>'
        )
    for fourth in range(5):
        x = most_x * fourth // 4
        parts.append(f'<text x="{at(x, 0)[0]}" y="{TOP + HEIGHT + 16}" text-anchor="middle">{x}</text>')
    unit = f" ({panel.unit})" if panel.unit else ""
    parts.append(
        f'<text x="{left + WIDTH / 2}" y="{TOP + HEIGHT + 36}" text-anchor="middle" font-size="12">'
        f"{escape(panel.title + unit)}</text>"
    )
    parts.append(f'<text x="{left - 6}" y="{TOP - 10}" text-anchor="end">gas</text>')
    for suite, curve in curves.items():
        points = [at(x, y) for x, y in sorted(curve.items())]
        line = " ".join(f"{x},{y}" for x, y in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{COLOURS[suite]}" stroke-width="2"/>')
        parts += [f'<circle cx="{x}" cy="{y}" r="2.4" fill="{COLOURS[suite]}"/>' for x, y in points]
    parts += _ratios(curves, at)
    return parts


def _ratios(curves: dict[str, Curve], at: Callable[[int, int], tuple[float, float]]) -> list[str]:
    """The ratio at both ends of ours."""
    ours, official = curves["ours"], curves["official"]
    found = []
    for x, anchor, rise in ((min(ours), "start", 16), (max(ours), "end", 8)):
        left, top = at(x, ours[x])
        found.append(
            f'<text x="{left}" y="{top - rise}" text-anchor="{anchor}" fill="{COLOURS["ours"]}">'
            f"{ours[x] / official[x]:.2f}×</text>"
        )
    return found


def _step(most: int) -> int:
    """A round distance between four to eight ticks up to `most`."""
    size = 1
    while True:
        for factor in (1, 2, 5):
            if most / (size * factor) <= 8:
                return size * factor
        size *= 10


def _short(gas: int) -> str:
    return f"{gas / 1_000_000:g}M" if gas >= 1_000_000 else f"{gas // 1_000}k" if gas else "0"
