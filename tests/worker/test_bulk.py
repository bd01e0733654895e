"""What a worker tells its guest of a bulk, of which a deal without a TEE has nobody else's word."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sealdeal.model.bulk import BULK_VOLUME, make_documents
from sealdeal.model.cid import cid_of
from sealdeal.model.deals import Deal
from sealdeal.model.orders import DatasetOrder, Params, Signed
from sealdeal.model.types import ZERO32, address, keccak
from sealdeal.worker.bulk import look_at_bulk
from sealdeal.worker.downloads import Downloads
from sealdeal.worker.relay import AttemptFailed
from tests.network import Network

from .test_downloads import Store


async def downloads(folder: Path, *contents: bytes) -> Downloads:
    store = Store(folder / "store")
    for content in contents:
        await store.add(content)
    return store.downloads(folder, limit=1 << 20)


async def deal_of(network: Network, cid: str) -> Deal:
    return await network.deal(with_dataset=False, params=Params(bulk_cid=cid), bits=0)


async def test_orders_that_fit_the_deal_give_their_data_and_others_do_not(
    network: Network, tmp_path: Path
) -> None:
    names = ("good", "for money", "counted", "for another app", "not signed by its owner", "revoked")
    orders: dict[str, Signed[DatasetOrder]] = {}
    for name in names:
        made, _ = await network.as_("data_provider").create_dataset(name, b"/ipfs/x", keccak(name.encode()))
        order = DatasetOrder(made, volume=BULK_VOLUME)
        changes: dict[str, dict[str, Any]] = {
            "for money": {"datasetprice": 1},
            "counted": {"volume": BULK_VOLUME - 1},
            "for another app": {"apprestrict": network.address("worker")},
        }
        signer = "worker" if name == "not signed by its owner" else "data_provider"
        orders[name] = network.sign(signer, replace(order, **changes.get(name, {})))
    await network.as_("data_provider").manage_order(orders["revoked"], "close")
    nobody = network.sign("data_provider", DatasetOrder(address(bytes([9]) * 20), volume=BULK_VOLUME))
    own = json.dumps([signed.to_json() for signed in (*orders.values(), nobody)]).encode()
    listed = json.dumps([cid_of(own)]).encode()
    deal = await deal_of(network, cid_of(listed))
    found = await look_at_bulk(
        network.hub, await downloads(tmp_path, listed, own), deal, 0, await network.hub.block()
    )
    assert [place.usable for place in found] == [True, *[False] * len(names)]
    assert [place.checksum for place in found] == [*(keccak(n.encode()) for n in names), ZERO32]
    assert {place.multiaddr for place in found[:-1]} == {"/ipfs/x"} and found[-1].multiaddr == ""


async def test_documents_that_are_wrong_give_nothing_and_missing_ones_end_the_attempt(
    network: Network, tmp_path: Path
) -> None:
    order = network.sign("data_provider", DatasetOrder(network.address("worker"), volume=BULK_VOLUME))
    listed, (own,) = make_documents([order])
    block = await network.hub.block()
    deal = await deal_of(network, cid_of(listed))
    assert await look_at_bulk(network.hub, await downloads(tmp_path, listed, own), deal, 7, block) == ()
    for number, contents in enumerate(((), (listed,))):
        with pytest.raises(AttemptFailed) as failed:
            there = await downloads(tmp_path / str(number), *contents)
            await look_at_bulk(network.hub, there, deal, 0, block)
        assert failed.value.cause == "PRE_COMPUTE_INPUT_FILE_DOWNLOAD_FAILED"
