"""The journeys of the official JavaScript SDK, unmodified, on an embedded network: a test for each step."""

from __future__ import annotations

import pytest

from .conftest import Outcomes

pytestmark = pytest.mark.asyncio(loop_scope="module")

JOURNEYS = ("deal", "wallet", "assets", "secrets", "orders", "claim")


async def test_step(outcomes: Outcomes, journey: str, check: str) -> None:
    went = (await outcomes(journey))[check]
    assert went.ok, went.error
