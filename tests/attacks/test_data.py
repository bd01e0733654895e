"""Attacks on data on its way into the app: by the store, the worker, or whoever can write to either."""

from __future__ import annotations

import secrets
from collections.abc import Callable

import pytest

from sealdeal.model import streams
from sealdeal.model.streams import HEADER_BYTES
from sealdeal.worker.relay import AttemptFailed
from tests.guest.world import Scene

MakeScene = Callable[..., Scene]

TELL = """
    import json
    open("/iexec_out/started", "w").write("the app has run")
    json.dump({"deterministic-output-path": "/iexec_out/started"}, open("/iexec_out/computed.json", "w"))
"""
CHUNK = (1 << streams.CHUNK_BITS) + 16


async def refused(task: Scene) -> AttemptFailed:
    """The attempt's error; the app was not started, and nothing has left."""
    with pytest.raises(AttemptFailed) as failed:
        await task.run()
    assert "COMPUTING" not in [status["phase"] for status in task.statuses]
    assert not task.store.archive and not task.store.proof
    return failed.value


def registered(task: Scene, altered: bytes) -> Scene:
    """With `altered` in the store, and its checksum on chain: what the owner's own entry would not show."""
    task.encrypted = altered
    task.files["dataset"].write_bytes(altered)
    return task


async def test_altered_dataset(scene: MakeScene) -> None:
    """The guest compares the file's SHA-256 with the chain's before the app starts."""
    task = scene(TELL, dataset=b"patients " * 1000)
    task.files["dataset"].write_bytes(task.encrypted[:-1] + bytes([task.encrypted[-1] ^ 1]))
    assert (await refused(task)).cause == "PRE_COMPUTE_INVALID_DATASET_CHECKSUM"


async def test_substituted_dataset(scene: MakeScene) -> None:
    """Another file, even one encrypted under the right key, has not the checksum that the chain promises."""
    task = scene(TELL, dataset=b"patients " * 1000)
    other = scene(TELL, dataset=b"made up " * 1000)
    key = streams.new_key(streams.Format.STANDARD, secrets.token_bytes)
    for substitute in (
        other.encrypted,
        b"".join(streams.encrypt([b"made up "], key, secrets.token_bytes)),
    ):
        task.files["dataset"].write_bytes(substitute)
        assert (await refused(task)).cause == "PRE_COMPUTE_INVALID_DATASET_CHECKSUM"


async def test_dataset_that_never_ends(scene: MakeScene) -> None:
    """The guest stops reading at the bytes that its limits allow, whatever the worker goes on to send."""
    task = scene(TELL, dataset=b"patients ", limits={"dataset_bytes": 1 << 20})
    task.files["dataset"].write_bytes(bytes(8 << 20))
    failed = await refused(task)
    assert failed.cause == "PRE_COMPUTE_DATASET_DOWNLOAD_FAILED" and "1048576 bytes" in str(failed)


async def test_chunks_of_a_dataset_cut_off(scene: MakeScene) -> None:
    """In the chunked format the last chunk says so under its authentication: without it nothing is shown."""
    task = scene(TELL, dataset=bytes(3 << streams.CHUNK_BITS), form=streams.Format.CHUNKED)
    failed = await refused(registered(task, task.encrypted[: HEADER_BYTES + 2 * CHUNK]))
    assert failed.cause == "PRE_COMPUTE_DATASET_DECRYPTION_FAILED" and "chunk 1" in str(failed)


async def test_chunks_of_a_dataset_in_another_order(scene: MakeScene) -> None:
    """In the chunked format a chunk's number is part of its nonce: it opens in its place only."""
    task = scene(TELL, dataset=bytes(3 << streams.CHUNK_BITS), form=streams.Format.CHUNKED)
    head, rest = task.encrypted[:HEADER_BYTES], task.encrypted[HEADER_BYTES:]
    swapped = rest[CHUNK : 2 * CHUNK] + rest[:CHUNK] + rest[2 * CHUNK :]
    failed = await refused(registered(task, head + swapped))
    assert failed.cause == "PRE_COMPUTE_DATASET_DECRYPTION_FAILED" and "chunk 0" in str(failed)


async def test_dataset_that_claims_the_weaker_format(scene: MakeScene) -> None:
    """The key's text chooses the format, not the file: a key of the chunked one opens nothing else."""
    task = scene(TELL, dataset=b"patients ", form=streams.Format.CHUNKED)
    failed = await refused(registered(task, secrets.token_bytes(32)))
    assert failed.cause == "PRE_COMPUTE_DATASET_DECRYPTION_FAILED" and "chunked format" in str(failed)
