"""Fixtures that every room's tests share: a chain, and a network's contracts on it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from sealdeal.chain import Anvil, Rpc


@pytest.fixture(scope="session")
async def anvil() -> AsyncIterator[Anvil]:
    """One anvil for the whole session, on a free port. Tests that change it use `chain` or `network`."""
    async with Anvil(chain_id=65432) as running:
        yield running


@pytest.fixture
async def chain(anvil: Anvil) -> AsyncIterator[Rpc]:
    """The session's chain; what the test does to it is undone afterwards."""
    snapshot = await anvil.rpc.call("evm_snapshot")
    yield anvil.rpc
    await anvil.rpc.call("evm_revert", snapshot)
