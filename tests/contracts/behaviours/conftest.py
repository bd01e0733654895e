"""Every behaviour test runs on both suites, ours and the official one; each test is undone.

A test of what a suite may lack says so, `pytest.mark.needs("claimBoost")`, and runs where it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import pytest

from tests.contracts.behaviours.stage import has
from tests.contracts.revm import Revm
from tests.contracts.world import Suite, World

SUITES: tuple[Suite, ...] = "ours", "official"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*names): only on suites whose hub has these functions")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "suite" in metafunc.fixturenames:
        needed = [name for mark in metafunc.definition.iter_markers("needs") for name in mark.args]
        metafunc.parametrize("suite", [suite for suite in SUITES if has(suite, *needed)])


@cache
def deployed(suite: Suite) -> World:
    return World.start(Revm(), suite)


@pytest.fixture
def world(suite: Suite) -> Iterator[World]:
    world = deployed(suite)
    with world.chain.undone():
        yield world


@pytest.fixture
def broker(world: World) -> str:
    """The role of the TEE broker, once it is set on the hub."""
    world.hub.setTeeBroker(world.who("broker"), sender=world.owner.address)
    return "broker"
