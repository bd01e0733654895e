"""A deal whose task runs in a virtual machine, on a network whose SMS nodes accept that machine alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from sealdeal.model.deals import TaskStatus
from sealdeal.model.evidence import Evidence
from sealdeal.tee.dcap import DcapVerifier
from sealdeal.worker import drivers
from sealdeal.worker.cgroups import Bounds
from sealdeal.worker.options import WorkerOptions
from sealdeal.worker.vm.image import Parts
from sealdeal.worker.vm.measure import accepted
from tests.worker.vm.parts import here, needs_machine

from .conftest import ECHO, World, local_network, told

PATIENCE = 400.0
"""Seconds: the machine is emulated."""


@needs_machine
@pytest.mark.soak
@pytest.mark.parametrize("disk", [0, 1 << 30], ids=["memory", "disk"])
async def test_a_deal_is_done_in_a_machine(
    disk: int, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From signed orders to a result, and a receipt that shows the machine."""
    kept = here()
    monkeypatch.setattr(Parts, "below", lambda: kept)  # an operator's lie below /
    options = WorkerOptions(driver="vm-emulated")
    bounds = Bounds(memory=640 << 20, disk=disk, cpus=2)
    async with local_network(tmp_path / "state", cache, worker=options, bounds=bounds, workers=1) as network:
        world = World(network, tmp_path, cache)
        async with world.stack:
            provider, owner, requester = (
                await world.person(),
                await world.person(),
                await world.requester(),
            )
            app = await world.app(provider, ECHO)
            data = await world.data(owner, b"x" * 123_456, app.address)
            deal = await world.buy(requester, app.address, dataset=data.address)
            task = await world.ended(requester, deal, timeout=PATIENCE)
            assert task.status is TaskStatus.COMPLETED
            result = await world.result(requester, deal.task_ids()[0])
            assert told(result)["bytes"] == 123_456
            assert result.receipt is not None
            shown = Evidence.from_json(result.receipt.proof["evidence"])
            claims = DcapVerifier(network.platform.root_der).verify(
                Evidence(shown.kind, shown.quote, network.platform.collateral(deal.start_time)),
                deal.start_time,
            )
            image = drivers.machine("vm-emulated", network.release, cache)
            assert image is not None
            expected = accepted(image, (await requester.hub.app(app.address)).checksum).registers
            assert {name: claims.registers[name] for name in expected} == expected
