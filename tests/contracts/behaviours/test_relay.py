"""broadcastAppOrder, …DatasetOrder, …WorkerpoolOrder, …RequestOrder (poco.md §7.1)."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from sealdeal.model.orders import Signed
from tests.contracts.behaviours.stage import KINDS, act
from tests.contracts.world import World


@pytest.mark.parametrize("kind", KINDS)
def test_broadcast_order(world: World, kind: str) -> None:
    """Anyone's, unchecked, and told whole."""
    order = Signed(world.four(dataset=True, volume=7)[KINDS.index(kind)].order, b"any signature")
    done = act(world, "stranger", f"broadcast{kind}Order", order.as_tuple())
    assert done.events == [(f"Broadcast{kind}Order", asdict(order.order) | {"sign": b"any signature"})]
