"""The documentation is complete (errors, settings, commands, routes), and its links lead somewhere."""

from __future__ import annotations

import importlib
import pkgutil
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import cyclopts
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic_settings import BaseSettings

import sealdeal
from sealdeal.model.errors import SealdealError

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "decisions").glob("*.md")]
SERVICES = ["market", "pool", "sms", "results"]


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


def modules() -> Iterator[str]:
    for module in pkgutil.walk_packages(sealdeal.__path__, "sealdeal."):
        if not module.name.endswith("__main__") and ".migrations" not in module.name:
            yield module.name


def errors() -> set[str]:
    for name in modules():
        importlib.import_module(name)
    found, waiting = set(), [SealdealError]
    while waiting:
        error = waiting.pop()
        waiting.extend(error.__subclasses__())
        if error.__module__.startswith("sealdeal."):
            found.add(error.code)
    return found


def settings() -> set[str]:
    module = importlib.import_module("sealdeal.settings")
    return {
        f"{cls.model_config.get('env_prefix', '')}{field}".upper()
        for cls in vars(module).values()
        if isinstance(cls, type) and issubclass(cls, BaseSettings) and cls is not BaseSettings
        for field in cls.model_fields
    }


def commands(app: cyclopts.App, name: str) -> Iterator[str]:
    inner = [word for word in app if not word.startswith("-")]
    if not inner or app.default_command is not None:
        yield name
    for word in inner:
        yield from commands(app[word], f"{name} {word}")


def routes(service: str) -> set[str]:
    """`GET /path` of every route of a service, but those by which FastAPI describes it."""
    nothing = Mock()  # what a service keeps matters to its answers, not to its routes
    app: FastAPI = importlib.import_module(f"sealdeal.{service}.app").create_app(nothing)
    found = [route for route in app.routes if isinstance(route, APIRoute)]
    return {f"{verb} {route.path_format}" for route in found for verb in route.methods or ()}


def missing(things: set[str], name: str) -> list[str]:
    """Those that the page does not show as code, in a row of a table or a line of a listing."""
    assert things, (
        f"nothing found that docs/{name} should list: the search in this test looks in the wrong place"
    )
    text = page(name)
    return sorted(thing for thing in things if not re.search(rf"[`\n]{re.escape(thing)}[`\s(]", text))


def test_every_error_is_documented() -> None:
    assert missing(errors(), "errors.md") == []


def test_every_setting_is_documented() -> None:
    assert missing(settings(), "settings.md") == []


def test_every_command_is_documented() -> None:
    app = importlib.import_module("sealdeal.cli").command
    assert missing(set(commands(app, "sealdeal")), "cli.md") == []


@pytest.mark.parametrize("service", SERVICES)
def test_every_route_is_documented(service: str) -> None:
    assert missing(routes(service), "http.md") == []


def test_nothing_is_documented_that_is_not_there() -> None:
    named = set(re.findall(r"^\| `(\w+)` \|", page("errors.md"), re.MULTILINE))
    assert named - errors() == set()
    named = set(re.findall(r"^\| `(SEALDEAL_\w+)` \|", page("settings.md"), re.MULTILINE))
    assert named - settings() == set()
    named = set(
        re.findall(r"^\| `((?:GET|HEAD|POST|PUT|DELETE|PATCH) /\S*)` \|", page("http.md"), re.MULTILINE)
    )
    assert named - {route for service in SERVICES for route in routes(service)} == set()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s#]+)[^)]*\)", path.read_text()):
        if "://" not in target and not target.startswith("mailto:"):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


@pytest.mark.parametrize("path", sorted((ROOT / "decisions").glob("[0-9]*.md")), ids=lambda path: path.stem)
def test_a_decision_says_what_why_cost_and_what_would_change_it(path: Path) -> None:
    text = path.read_text()
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert headings == ["What", "Why", "Cost", "What would change our mind"]
    assert len(text.splitlines()) <= 50, "half a page"


def test_decisions_are_numbered_without_gaps() -> None:
    numbers = [int(path.name[:4]) for path in sorted((ROOT / "decisions").glob("[0-9]*.md"))]
    assert numbers == list(range(len(numbers))) or numbers == list(range(1, len(numbers) + 1))


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == sealdeal.__version__
    assert f"## [{sealdeal.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_the_table_of_attacks_is_what_is_tried() -> None:
    table = importlib.import_module("tests.attacks.__main__")
    assert (ROOT / "SECURITY.md").read_text() == table.page(), "python -m tests.attacks --write"
