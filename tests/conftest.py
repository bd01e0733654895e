"""Fixtures that every room's tests share: a chain, and a network's contracts on it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from sealdeal.chain import Addresses, Anvil, Rpc, sender
from tests.network import CHAIN_ID, Network, build


@pytest.fixture(scope="session")
async def anvil() -> AsyncIterator[Anvil]:
    """One anvil for the whole session, on a free port. Tests that change it use `chain` or `network`."""
    async with Anvil(chain_id=CHAIN_ID, states=100_000) as running:  # each test's undone blocks count
        yield running


@asynccontextmanager
async def undone(rpc: Rpc) -> AsyncIterator[None]:
    """What happens to the chain inside is undone afterwards, its clock included."""
    snapshot = await rpc.call("evm_snapshot")
    yield
    await rpc.call("evm_setAutomine", True)
    await rpc.call("anvil_dropAllTransactions")
    assert await rpc.call("evm_revert", snapshot)
    sender._LANES.clear()  # nor may a later test's sender fill a gap with what this one's had on their way
    await rpc.call("evm_setTime", int(time.time()))  # a revert turns the clock back by what the test took


@pytest.fixture
async def chain(anvil: Anvil) -> AsyncIterator[Rpc]:
    """The session's chain; what the test does to it is undone."""
    async with undone(anvil.rpc):
        yield anvil.rpc


@pytest.fixture(scope="session")
async def contracts(anvil: Anvil) -> Addresses:
    """The network's contracts, deployed once, and its actors, funded once."""
    return await build(anvil)


@pytest.fixture
async def network(anvil: Anvil, contracts: Addresses) -> AsyncIterator[Network]:
    """Contracts with funded actors (see tests/network.py); what the test does to them is undone."""
    async with undone(anvil.rpc):
        yield Network(anvil, contracts)
