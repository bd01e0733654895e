"""One network for the tests of the hub: deployed once, each test undone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contracts.world import World


@pytest.fixture(scope="session")
def deployed() -> Iterator[World]:
    world = World.start()
    yield world
    world.chain.close()


@pytest.fixture
def world(deployed: World) -> Iterator[World]:
    with deployed.chain.undone():
        yield deployed
