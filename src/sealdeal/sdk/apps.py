"""What an app is, for whoever is to trust it: from the chain, and from the image of that checksum."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import Final, Protocol

from sealdeal.chain import Hub
from sealdeal.model.cid import cid_in, multiaddr_text
from sealdeal.model.errors import IntegrityError, InvalidInput, NotFound
from sealdeal.model.hosts import Host
from sealdeal.model.images import ImageReader
from sealdeal.model.manifests import MAX_DOCUMENT_BYTES, Process
from sealdeal.model.types import Address, Bytes32

from .results import ResultsClient

_FIRST: Final = 64 << 10
"""Bytes of an archive in which manifest and configuration usually lie."""
_MOST: Final = 2 * MAX_DOCUMENT_BYTES + _FIRST


class Elsewhere(Protocol):
    """How images are read that lie in no store of ours."""

    async def head(self, location: str, checksum: Bytes32, /) -> bytes:
        """The beginning of an image's archive, up to its configuration."""


@dataclass(frozen=True, slots=True)
class AppFacts:
    """An app's entry, and what its measured image says."""

    owner: Address
    name: str
    multiaddr: str
    checksum: Bytes32
    process: Process

    @property
    def hosts(self) -> tuple[Host, ...]:
        """What the app may reach: it can send there whatever it reads."""
        return self.process.hosts


async def look(
    app: Address, hub: Hub, results: ResultsClient, elsewhere: Elsewhere | None = None
) -> AppFacts:
    """An app's facts; of its image no more is fetched than its configuration.

    Raises NotFound when there is no app at the address (a group of apps is none), or no image;
    IntegrityError when its image is not the one of its checksum, InvalidInput when it lies where we cannot
    look, Unavailable.
    """
    entry = await hub.app(app)
    location = multiaddr_text(entry.multiaddr)
    if not any(entry.checksum):
        raise InvalidInput(f"app {app} has no checksum on chain: nothing tells which image it is")
    if location.startswith(("/ipfs/", "/p2p/")):
        process = await _configuration(results, cid_in(location), entry.checksum)
    elif elsewhere is not None:
        head = await elsewhere.head(location, entry.checksum)
        process = _read(head, entry.checksum)
    else:
        raise InvalidInput(f"the image of app {app} is at {location[:200]}, where we cannot look")
    return AppFacts(entry.owner, entry.name, location, entry.checksum, process)


async def _configuration(results: ResultsClient, cid: str, checksum: Bytes32) -> Process:
    head = b""
    for count in (_FIRST, _MOST):
        asked = {"Range": f"bytes=0-{count - 1}", "Accept-Encoding": "identity"}
        status, head = await results.exchange("GET", f"/ipfs/{cid}", limit=_MOST, headers=asked)
        if status not in (200, 206):
            raise NotFound(f"{results.base_url} has no {cid} (status {status})")
        with contextlib.suppress(IntegrityError):  # it may only be incomplete
            return _read(head, checksum)
    return _read(head, checksum)


def _read(head: bytes, checksum: Bytes32) -> Process:
    return ImageReader(io.BytesIO(head), checksum, max_bytes=0).config()
