"""An app's image, wherever the chain says that it is: in the network's store, on the web, in a registry.

The checksum on chain says which image it is. A registry's is fetched by it, compared with it piece by piece,
and kept beside other content; the guest compares everything again, as it trusts no worker.
"""

from __future__ import annotations

import platform
from pathlib import Path

from sealdeal.model.manifests import MACHINES
from sealdeal.model.references import Reference
from sealdeal.model.types import Bytes32
from sealdeal.sdk.registry import Registries

from .downloads import Downloads


class Images:
    """Images that guests ask for, kept within the bound of `downloads`."""

    def __init__(self, downloads: Downloads, registries: Registries, *, limit: int) -> None:
        """`limit`: bytes of one image's layers as a registry stores them."""
        self._downloads, self._registries, self._limit = downloads, registries, limit

    async def get(self, location: str, checksum: Bytes32) -> Path:
        """The image as an archive (`model.images`). `location`: the app's multiaddr as text.

        Raises what `Downloads.get` and `Registries.pull` raise.
        """
        if location.startswith(("/", "http://", "https://")):
            return await self._downloads.get(location)
        reference = Reference.parse(location)
        reference.check(checksum)  # also when it is kept: the address would say another thing

        async def fetch(place: Path) -> None:
            machine = platform.machine()
            await self._registries.pull(
                reference, checksum, place, limit=self._limit, machine=MACHINES.get(machine, machine)
            )

        return await self._downloads.keep(f"image-{checksum.hex()}", fetch)
