"""What evidence of a machine shows, and what is accepted of it."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from pathlib import Path

import pytest

from sealdeal.model.evidence import Claims, MeasurementExpired, WrongRegister
from sealdeal.model.policy import MeasurementIn
from sealdeal.tee.dcap import DcapVerifier
from sealdeal.tee.simulated import SimulatedPlatform
from sealdeal.worker.vm.image import INITRD, KERNEL, MachineImage
from sealdeal.worker.vm.measure import MachinePlatform, accepted, registers

APP = b"\x07" * 32
NOW = int(time.time())


@pytest.fixture
def image(tmp_path: Path) -> MachineImage:
    (tmp_path / KERNEL).write_bytes(b"kernel")
    (tmp_path / INITRD).write_bytes(b"initrd")
    return MachineImage(tmp_path, "console=ttyS0 sealdeal.root=00,11,2")


def test_registers_are_extended_as_hardware_does(image: MachineImage) -> None:
    def h(data: bytes) -> bytes:
        return hashlib.sha384(data).digest()

    found = registers(image, APP)
    assert found["rtmr1"] == h(bytes(48) + h(b"kernel"))
    assert found["rtmr2"] == h(h(bytes(48) + h(image.command_line.encode())) + h(b"initrd"))
    assert found["mr_config_id"] == APP + bytes(16)
    assert found["rtmr0"] == found["rtmr3"] == bytes(48)


def test_a_policy_takes_this_machine_and_no_other(image: MachineImage) -> None:
    """Through a quote and its verification, as a node does it."""
    simulated = SimulatedPlatform.generate(NOW)
    platform = MachinePlatform(image, simulated)
    verifier = DcapVerifier(simulated.root_der)
    policy = MeasurementIn({"first": accepted(image, APP, valid_until=NOW + 9)})

    def claims(platform: MachinePlatform, app: bytes = APP) -> Claims:
        measured = platform.measure(b"\0" * 32, app)
        return verifier.verify(platform.evidence(bytes(64), measured, NOW), NOW)

    policy.check(claims(platform), NOW)
    with pytest.raises(MeasurementExpired):
        policy.check(claims(platform), NOW + 10)
    with pytest.raises(WrongRegister):
        policy.check(claims(platform, b"\x08" * 32), NOW)
    other = dataclasses.replace(image, command_line=image.command_line.replace("00,", "01,"))
    with pytest.raises(WrongRegister):
        policy.check(claims(MachinePlatform(other, simulated)), NOW)
    for part in (KERNEL, INITRD):
        (image.folder / part).write_bytes(b"another")
        with pytest.raises(WrongRegister):
            policy.check(claims(platform), NOW)
