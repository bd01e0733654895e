"""What evidence of a guest's machine shows: the registers of a TDX guest that was started from its parts.

    mrtd          the firmware
    mr_config_id  the app's checksum ‖ 16 zero bytes, as the host set it at the start
    rtmr0         zero; on hardware the machine's shape and its ACPI tables, which run in the guest's kernel
    rtmr1         the kernel
    rtmr2         the command line (with the root disk's hash), then the initrd
    rtmr3         zero: nothing is measured at run time

A register is extended by r' = SHA-384(r ‖ SHA-384(what is measured)). On hardware the firmware decides what
exactly it measures (its version's event log tells), so that there the values to accept are those that a
machine of one's own shows, once that was checked against its log.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sealdeal.model.evidence import Evidence
from sealdeal.model.policy import Measurement
from sealdeal.model.types import bytes32

from ..relay import Platform
from .image import MachineImage

FIRMWARE: Final = b"sealdeal simulated firmware 1"
"""Stands for the firmware, which a machine without a TEE is not measured with."""
_ZERO: Final = bytes(48)


def extended(register: bytes, *measured: bytes) -> bytes:
    """The register after these were measured, one after the other."""
    for what in measured:
        register = hashlib.sha384(register + hashlib.sha384(what).digest()).digest()
    return register


def registers(image: MachineImage, app_checksum: bytes) -> dict[str, bytes]:
    """Of a machine started from this image for this app."""
    return {
        "mrtd": hashlib.sha384(FIRMWARE).digest(),
        "mr_config_id": bytes32(app_checksum) + bytes(16),
        "rtmr0": _ZERO,
        "rtmr1": extended(_ZERO, image.kernel),
        "rtmr2": extended(_ZERO, image.command_line.encode(), image.initrd),
        "rtmr3": _ZERO,
    }


def accepted(image: MachineImage, app_checksum: bytes, valid_until: int | None = None) -> Measurement:
    """What a policy compares: everything."""
    return Measurement(registers(image, app_checksum), valid_until)


def of_any_app(image: MachineImage) -> dict[str, bytes]:
    """What a node that knows the app from the chain is told of a machine."""
    compared = registers(image, bytes(32))
    del compared["mr_config_id"]
    return compared


@dataclass(frozen=True, slots=True)
class MachinePlatform:
    """A platform that vouches for machines of this image. The host computes the registers, so that this shows
    the path of evidence, and proves nothing against the host.
    """

    image: MachineImage
    platform: Platform

    def measure(self, guest_release: bytes, app_checksum: bytes, /) -> Mapping[str, bytes]:
        return registers(self.image, app_checksum)

    def evidence(self, report_data: bytes, registers: Mapping[str, bytes], now: int, /) -> Evidence:
        return self.platform.evidence(report_data, registers, now)
