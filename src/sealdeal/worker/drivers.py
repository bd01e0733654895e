"""The sandbox drivers by name: what `SEALDEAL_WORKER_DRIVER` may say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from sealdeal.model.errors import InvalidInput
from sealdeal.sdk.guest_release import GuestRelease

from .cgroups import Bounds
from .oci import OciSandbox
from .sandbox import BubblewrapSandbox, Sandbox
from .vm.image import MACHINES, MachineImage, Parts, build
from .vm.qemu import VmSandbox

Make = Callable[[GuestRelease, str, Bounds, Path], Sandbox]
"""(release, a name that is this worker's own on this machine, bounds of each guest, folder for volumes).
Raises Unavailable, saying what is missing, on a machine that cannot do it."""

DEFAULT: Final = "bubblewrap"
DRIVERS: Final[Mapping[str, Make]] = {
    "bubblewrap": BubblewrapSandbox,
    "runc": partial(OciSandbox, runtime="runc"),
    "crun": partial(OciSandbox, runtime="crun"),
    "vm": VmSandbox,
    "vm-emulated": partial(VmSandbox, accelerator="tcg"),
}
MACHINE_DRIVERS: Final = frozenset(("vm", "vm-emulated"))


def sandbox(driver: str, release: GuestRelease, name: str, bounds: Bounds, scratch: Path) -> Sandbox:
    """The driver of this name. Raises InvalidInput for an unknown one, Unavailable as the drivers do."""
    if driver not in DRIVERS:
        raise InvalidInput(f"expected a driver among {', '.join(DRIVERS)}; got {driver!r}")
    return DRIVERS[driver](release, name, bounds, scratch)


def machine(driver: str, release: GuestRelease, cache: Path) -> MachineImage | None:
    """What guests of this driver start from, where it is more than their release; built in `cache`.

    Raises Unavailable when a part of it is missing.
    """
    return build(release, Parts.below(), cache / MACHINES) if driver in MACHINE_DRIVERS else None
