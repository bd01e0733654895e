"""What a node judges evidence by: its own collateral, and its operator's lists of platforms."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sealdeal.model.errors import EvidenceRefused
from sealdeal.model.evidence import (
    DCAP,
    Evidence,
    Manifest,
    MeasurementExpired,
    NotAuthentic,
    PlatformRefused,
    WrongTcb,
)
from sealdeal.model.policy import MinTcbEvaluation, PlatformIn, PlatformNotIn
from sealdeal.model.types import Address
from sealdeal.tee.collateral import Collateral, Need
from tests.network import NODES

from .conftest import PLATFORM, RELEASE, Guest, Nodes

GuestOf = Callable[..., Awaitable[Guest]]


class Vendor:
    """The simulated platform's own word on itself, as of now."""

    def __init__(self, **knobs: Any) -> None:
        self.knobs = knobs

    async def fetch(self, need: Need, now: int) -> bytes:
        return PLATFORM.collateral(now, **self.knobs)


async def test_a_node_has_its_own_collateral(nodes: Nodes, guest_of: GuestOf) -> None:
    """What a host brings along, or leaves out, changes nothing."""
    guest = await guest_of(await nodes.network.deal(with_dataset=False))

    def bare(manifest: Manifest, nonces: dict[Address, bytes]) -> Evidence:
        return dataclasses.replace(guest.evidence(manifest, nonces), collateral=None)

    with pytest.raises(NotAuthentic):
        await guest.refused(evidence=bare)
    await nodes.start(NODES[0], collateral=Collateral({DCAP: Vendor()}))
    assert await guest.refused(evidence=bare)
    await nodes.start(NODES[0], collateral=Collateral({DCAP: Vendor(revoke_pck=True)}))
    with pytest.raises(EvidenceRefused, match="revoked"):
        await guest.refused()  # with collateral of yesterday, when it was not


async def test_platforms_that_the_operator_lists(nodes: Nodes, guest_of: GuestOf) -> None:
    guest = await guest_of(await nodes.network.deal(with_dataset=False))
    others = frozenset([b"\x01" * 16])
    for policy, refusal in (
        (PlatformNotIn(frozenset([PLATFORM.ppid])), PlatformRefused),
        (PlatformIn(others), PlatformRefused),
        (MinTcbEvaluation(10**6), WrongTcb),
    ):
        await nodes.start(NODES[0], policies=[policy])
        with pytest.raises(refusal):
            await guest.refused()
    await nodes.start(NODES[0], policies=[PlatformIn(frozenset([PLATFORM.ppid])), PlatformNotIn(others)])
    assert await guest.refused()


async def test_a_guests_release_is_trusted_for_a_time(nodes: Nodes, guest_of: GuestOf) -> None:
    """A host can't go on starting a release whose flaw is known."""
    guest = await guest_of(await nodes.network.deal(with_dataset=False))
    now = int(nodes.clock())
    await nodes.start(NODES[0], guest_releases={RELEASE: now + 60, b"\x01" * 32: None})
    assert await guest.refused()
    nodes.clock.offset = 61
    with pytest.raises(MeasurementExpired, match="start a newer one"):
        await guest.refused()
