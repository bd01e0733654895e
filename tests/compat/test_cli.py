"""The journeys of the official command line, unmodified, on an embedded network: a test for each step."""

from __future__ import annotations

import pytest

from .conftest import Outcomes

pytestmark = pytest.mark.asyncio(loop_scope="module")

JOURNEYS = ("cli", ("cli_more", pytest.mark.soak))


async def test_step(outcomes: Outcomes, journey: str, check: str) -> None:
    went = (await outcomes(journey))[check]
    assert went.ok, went.error
