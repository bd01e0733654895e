"""Data and results from disk to disk: a file protected in our own format, a result with a sealed digest; and
the data of many owners in one deal."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sealdeal.model.deals import TaskStatus
from sealdeal.model.errors import Conflict, IntegrityError, InvalidInput, NotFound
from sealdeal.model.orders import TEE_TDX, AppOrder, Params, RequestOrder, Signed, tag
from sealdeal.model.results import SEAL_ENTRY, digest_of
from sealdeal.model.streams import Format
from sealdeal.model.types import RLC, Address, hexstr

from .conftest import ECHO, World, told

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


MANY = """
import json, os
into, out = os.environ["IEXEC_IN"], os.environ["IEXEC_OUT"]
size = int(os.environ["IEXEC_BULK_SLICE_SIZE"])
names = [os.environ[f"IEXEC_DATASET_{n}_FILENAME"] for n in range(1, size + 1)]
seen = {name: open(f"{into}/{name}").read() if os.path.exists(f"{into}/{name}") else None for name in names}
json.dump({"seen": seen, "files": len(os.listdir(into))}, open(out + "/result.json", "w"))
json.dump({"deterministic-output-path": out + "/result.json"}, open(out + "/computed.json", "w"))
"""
"""An app that says what it can read of its bulk."""


async def test_data_of_many_owners_in_one_deal_but_those_that_their_owner_took_back(world: World) -> None:
    """Whoever takes back a grant after the bulk was made is left out, and costs the others nothing."""
    provider, requester = await world.person(), await world.requester()
    owners = [await world.person() for _ in range(2)]
    app = await world.app(provider, MANY)
    data: list[Address] = []
    for n, text in enumerate([b"one", b"two", b"three"]):
        made = await owners[n % 2].protect_dataset(text, name=f"part {n}")
        await owners[n % 2].grant(made.address, app=app.address, bulk=True)
        data.append(made.address)
    bulk = await requester.prepare_bulk(app.address, data, per_task=2)
    assert bulk.slices == ((data[0], data[1]), (data[2],))
    (taken,) = (await requester.market.dataset_orders(data[1], app=app.address)).items
    await owners[1].cancel(taken.signed)

    params = Params(bulk_cid=bulk.cid, result_encryption=True)
    request = await requester.request(app.address, params=params, volume=bulk.volume)
    deal = await requester.deal_of(request)
    for index in range(deal.bot_size):
        assert (await world.ended(requester, deal, index)).status is TaskStatus.COMPLETED
    first, second = [told(await world.result(requester, task)) for task in deal.task_ids()]
    assert first == {"seen": {data[0]: "one", data[1]: None}, "files": 1}
    assert second == {"seen": {data[2]: "three"}, "files": 1}
    assert [(await owner.balance()).total for owner in owners] == [100 * RLC] * 2  # nobody pays for a bulk

    with pytest.raises(NotFound, match=f"dataset {data[1]} in bulk"):
        await requester.prepare_bulk(app.address, data)


async def test_data_are_found_by_the_schema_that_their_owner_told(world: World) -> None:
    owner, other = await world.person(), await world.person()
    mail = await owner.protect_dataset(
        b"zip", name="mail", schema={"email": "string", "more": {"age": "f64"}}
    )
    photo = await other.protect_dataset(b"zip", name="photo", schema={"email": "string"})
    await owner.protect_dataset(b"zip", name="nothing told")
    found = await owner.protected_data(schema=["email:string"])
    assert {one.address for one in found} == {photo.address, mail.address}
    (told_of,) = await owner.protected_data(schema=["more.age:f64"])
    assert (told_of.name, told_of.owner, told_of.multiaddr) == ("mail", owner.key.address, mail.multiaddr)
    assert told_of.schema == {"email:string", "more.age:f64"} and told_of.created_at > 0
    assert [one.address for one in await owner.protected_data(owner=other.key.address)] == [photo.address]
    assert await owner.protected_data(since=told_of.created_at + 10**6) == []
    assert await owner.protected_data(page=1) == []
    app = await world.app(owner, MANY)
    await owner.grant(mail.address, app=app.address)  # it is a dataset as any other


async def test_a_grant_is_one_for_bulks_only_when_its_owner_says_so(world: World) -> None:
    owner, requester = await world.person(), await world.requester()
    app = await world.app(owner, MANY)
    data = await owner.protect_dataset(b"for money", name="priced")
    await owner.grant(data.address, app=app.address)
    await owner.grant(data.address, app=app.address, price=RLC)
    with pytest.raises(NotFound, match="in bulk"):
        await requester.prepare_bulk(app.address, [data.address])
    mistakes: list[dict[str, Any]] = [{"price": RLC}, {"volume": 3}]
    for wrong in mistakes:
        with pytest.raises(InvalidInput, match="nobody pays for data in bulk"):
            await owner.grant(data.address, app=app.address, bulk=True, **wrong)


CALL = """
import json
json.dump({"callback-data": "0x0102"}, open("/iexec_out/computed.json", "w"))
"""


async def test_a_result_for_a_contract_is_called_back_and_has_a_receipt(world: World) -> None:
    """It is on the chain, and in no store; what the enclave signed is published all the same."""
    provider, requester = await world.person(), await world.requester()
    app = await world.app(provider, CALL)
    domain = await requester.hub.domain()
    pool = (await requester.market.workerpool_orders(category=0)).items[0].signed
    offer = Signed.by(provider.key, AppOrder(app=app.address, tag=tag(TEE_TDX)), domain)
    asked = RequestOrder(
        app=app.address,
        workerpoolmaxprice=pool.order.workerpoolprice,
        requester=requester.key.address,
        tag=tag(TEE_TDX),
        callback=provider.key.address,
        params=Params().to_text(),
    )
    dealid, receipt = await requester.hub.match_orders(
        offer, None, pool, Signed.by(requester.key, asked, domain)
    )
    task = await world.ended(requester, await requester.hub.deal(dealid, receipt.block))
    assert (task.status, task.results_callback) == (TaskStatus.COMPLETED, b"\x01\x02")
    found = await requester.receipt(task)
    assert found is not None and found.proof["storeReceipt"] is None
