"""Data and results from disk to disk: a file protected in our own format, a result with a sealed digest."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sealdeal.model.errors import Conflict, IntegrityError, InvalidInput
from sealdeal.model.orders import Params
from sealdeal.model.results import SEAL_ENTRY, digest_of
from sealdeal.model.streams import Format
from sealdeal.model.types import hexstr

from .conftest import ECHO, World

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_from_a_file_to_a_folder(world: World, tmp_path: Path) -> None:
    owner, requester = await world.person(), await world.requester()
    app = await world.app(owner, ECHO)
    (file := tmp_path / "data.csv").write_bytes(b"row\n" * 300_000)
    data = await owner.protect_dataset(file, name="rows", form=Format.CHUNKED)
    stored = await owner.results.fetch(data.multiaddr.removeprefix("/ipfs/"))
    assert stored.startswith(b"SDST")
    await owner.grant(data.address, app=app.address)

    params = Params(result_encryption=True, sealed_digest=True)
    deal = await requester.deal_of(await requester.request(app.address, dataset=data.address, params=params))
    task = await world.ended(requester, deal)
    private = world.result_keys[requester.key.address]
    saved = await requester.save_result(task.taskid, tmp_path / "result", private)
    assert saved.files == ("computed.json", "result.json", SEAL_ENTRY, "stderr.txt", "stdout.txt")
    assert json.loads((tmp_path / "result" / "result.json").read_text())["bytes"] == 1_200_000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.csv", "result"]

    receipt = saved.receipt
    assert receipt is not None and receipt.sealed_digest
    in_memory = await requester.result(task.taskid, private)
    assert set(in_memory.files) == set(saved.files) and in_memory.receipt == receipt
    plain = digest_of(in_memory.files)
    assert hexstr(plain) != receipt.digest == hexstr(task.result_digest)
    with pytest.raises(IntegrityError, match="digest"):
        await requester.verify(replace(receipt, digest=hexstr(plain)))  # what a guesser would need
    with pytest.raises(InvalidInput, match="private key"):
        await requester.save_result(task.taskid, tmp_path / "other")
    with pytest.raises(Conflict, match="exists already"):
        await requester.save_result(task.taskid, tmp_path / "result", private)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.csv", "result"]
