"""What a plain result archive says: its digest, computed from its own files (wire.md §3.1, §5.3)."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from typing import IO, Final

from sealdeal.model.errors import IntegrityError, TooLarge
from sealdeal.model.results import COMPUTED, archive_files, told_digest
from sealdeal.model.types import Bytes32

from .blobs import Blobs

UNPACKED_LIMIT: Final = 16 << 30
"""Bytes of all files of an archive."""
SAID_LIMIT: Final = 1 << 20
"""Bytes of computed.json."""


async def digest_of_archive(blobs: Blobs, cid: str) -> Bytes32:
    """The digest that the archive stands for. Raises UnsafeArchive, TooLarge, IntegrityError."""
    with tempfile.TemporaryFile() as file:  # a zip is read from its end
        async for piece in blobs.read(cid):
            await asyncio.to_thread(file.write, piece)
        return await asyncio.to_thread(_digest, file)


def _digest(archive: IO[bytes]) -> Bytes32:
    said, digests = None, {}
    for name, pieces in archive_files(archive, max_bytes=UNPACKED_LIMIT):
        digest, kept = hashlib.sha256(), bytearray()
        for piece in pieces:
            digest.update(piece)
            if name == COMPUTED:
                kept += piece
                if len(kept) > SAID_LIMIT:
                    raise TooLarge(f"{COMPUTED} may have {SAID_LIMIT} bytes")
        digests[name] = digest.digest()
        if name == COMPUTED:
            said = bytes(kept)
    if said is None:
        raise IntegrityError(f"expected a result with a {COMPUTED}, it has none")
    return told_digest(said, digests, digests.__getitem__)
