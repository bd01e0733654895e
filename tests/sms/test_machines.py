"""A node that trusts guests' machines: by all registers of theirs that it was told, and the app's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import pytest

from sealdeal.model.errors import InvalidInput
from sealdeal.model.evidence import Evidence, Manifest, WrongRegister, report_data
from sealdeal.model.orders import TEE_TDX
from sealdeal.model.types import Address
from tests.network import NODES, Network

from .conftest import PLATFORM, Guest, Nodes

MACHINE = {name: name.encode().ljust(48, b".") for name in ("mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3")}


def showing(guest: Guest, **registers: bytes) -> Callable[[Manifest, Mapping[Address, bytes]], Evidence]:
    """Evidence of a machine of that kind, made for the deal's app unless told."""

    def make(manifest: Manifest, nonces: Mapping[Address, bytes]) -> Evidence:
        bound = report_data(manifest.hash(), guest.sealing.public, guest.key.address, nonces.items())
        app = {"mr_config_id": manifest.app_checksum + bytes(16)}
        return PLATFORM.evidence(bound, {**MACHINE, **app, **registers}, int(guest.nodes.clock()))

    return make


async def test_a_node_trusts_the_machines_that_it_was_told_of_and_no_guest_release(
    nodes: Nodes, network: Network, guest_of: Callable[..., Awaitable[Guest]]
) -> None:
    await nodes.start(NODES[0], guest_releases=[], machines=[{"mrtd": bytes(48)}, MACHINE])
    guest = await guest_of(await network.deal(bits=TEE_TDX, with_dataset=False))
    for name, value in {**MACHINE, "mr_config_id": b"\1" * 48}.items():
        with pytest.raises(WrongRegister, match=name):
            await guest.refused(evidence=showing(guest, **{name: value[::-1]}))
    with pytest.raises(WrongRegister):
        await guest.refused()
    assert (await guest.refused(evidence=showing(guest))).grant


async def test_a_machine_without_registers_would_be_any(nodes: Nodes) -> None:
    with pytest.raises(InvalidInput, match="it would be any machine"):
        await nodes.start(NODES[0], machines=[MACHINE, {}])
