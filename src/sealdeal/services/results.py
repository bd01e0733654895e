"""A result store."""

from __future__ import annotations

from sealdeal.model.types import keccak
from sealdeal.results.app import create_app
from sealdeal.results.places import open_blobs
from sealdeal.results.uploads import Results

from .hosting import Process


async def start(process: Process, place: str) -> None:
    """Open it; the process's key signs its receipts. `place`: where content is kept (results.places); empty:
    a folder in its state."""
    listener = process.listen()
    blobs = open_blobs(place, process.hosting.state / "blobs")
    process.closes(blobs.close)
    tokens = keccak(b"sealdeal upload tokens" + process.key.secret)
    results = await Results.open(process.database, blobs, process.hub, process.key, tokens)
    process.closes(results.close)
    process.serve(create_app(results), listener)
