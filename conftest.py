"""What holds for every test run: hypothesis' profiles, which skips are allowed where, what tests report."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

import hypothesis
import pytest

hypothesis.settings.register_profile("sealdeal", deadline=None, max_examples=60)
hypothesis.settings.register_profile("soak", deadline=None, max_examples=5_000)
hypothesis.settings.load_profile("sealdeal")

ALLOWED_SKIP = "shared/vectors"
"""The one reason to skip in CI: recorded material that lies beside the checkout, and is not ours to ship."""


RECURSION = sys.getrecursionlimit()
"""Python's own. The EVM that contract tests import raises it so far that hostile nesting, which has to end in
an error, would overflow this process's stack instead."""


LONG = {"attacks", "compat", "contracts", "system", "worker"}
"""Folders of tests of which a file may take minutes."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--examples", type=int, help="of each property test, in place of the profile's number")


@pytest.hookimpl(trylast=True)  # after hypothesis has loaded the profile that was asked for
def pytest_configure(config: pytest.Config) -> None:
    if examples := config.getoption("--examples"):
        hypothesis.settings.register_profile("asked", hypothesis.settings(), max_examples=examples)
        hypothesis.settings.load_profile("asked")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first: whoever comes to the end early has nothing to do while another runs a long one. By
    their names, so that networks, which mostly wait, and contracts, which compute, run side by side."""

    def place(item: pytest.Item) -> tuple[bool, str, Path]:
        return not LONG.intersection(item.path.parts), item.path.name, item.path

    items.sort(key=place)


def pytest_collection_finish() -> None:
    """What has been loaded stays, and is not searched for garbage again; the rest is, but not after every 700
    objects: that takes a compiler of contracts a quarter of its time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if "contracts" not in item.path.parts:
        sys.setrecursionlimit(RECURSION)
    elif "eth" in sys.modules:
        sys.setrecursionlimit(sys.modules["eth"].EVM_RECURSION_LIMIT)


def _unexpected_skips(config: pytest.Config) -> list[str]:
    """In CI a check that cannot run has failed. Elsewhere a machine may lack something; pytest names it."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") != "true" or reporter is None or hasattr(config, "workerinput"):
        return []
    skipped = []
    for report in reporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if ALLOWED_SKIP not in reason:
            skipped.append(f"{report.nodeid}: {reason}")
    return skipped


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if exitstatus == pytest.ExitCode.OK and _unexpected_skips(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    for report in reports:
        if getattr(report, "when", "") == "teardown":
            for name, line in report.user_properties:
                if name == "says":
                    terminalreporter.line(f"{report.nodeid}: {line}")
    if skipped := _unexpected_skips(config):
        terminalreporter.section("skipped, which CI allows for ../shared/vectors only", red=True)
        for line in skipped:
            terminalreporter.line(line, red=True)
