"""The journeys of DataProtector, unmodified, on an embedded network: a test for each step."""

from __future__ import annotations

import pytest

from .conftest import Outcomes

pytestmark = pytest.mark.asyncio(loop_scope="module")

JOURNEYS = ("protector",)


async def test_step(outcomes: Outcomes, journey: str, check: str) -> None:
    went = (await outcomes(journey))[check]
    assert went.ok, went.error
