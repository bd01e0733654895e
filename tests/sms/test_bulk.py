"""Many datasets in one task: nodes release the keys that the owners let the deal have, and no others."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from sealdeal.model.bulk import BulkDataset, Documents, bulk_datasets, told
from sealdeal.model.cid import cid_of
from sealdeal.model.deals import Deal
from sealdeal.model.errors import InvalidInput, SecretRefused
from sealdeal.model.orders import TEE_TDX, DatasetOrder, Params, Signed, tag
from sealdeal.model.release import Gathered, gather
from sealdeal.model.sealing import SecretKind
from sealdeal.model.types import Address, keccak
from sealdeal.sdk.sms import ManifestDiffers
from tests.network import Network
from tests.sms.conftest import Guest, Nodes

GuestOf = Callable[..., Awaitable[Guest]]
FREE: dict[str, Any] = {"datasetprice": 0, "volume": 2**53 - 1, "tag": tag(TEE_TDX)}
KEY = SecretKind.DATASET_KEY.value


def documents(slices: Iterable[Iterable[Signed[DatasetOrder]]], index: int = 0) -> tuple[str, Documents]:
    """The CID of a bulk, and what is shown of task `index`."""
    parts = [json.dumps([signed.to_json() for signed in part]).encode() for part in slices]
    listed = json.dumps([cid_of(part) for part in parts]).encode()
    return cid_of(listed), Documents(listed, parts[index])


@dataclass
class Bulk:
    """A deal with a bulk, and the guest of its first task."""

    nodes: Nodes
    guest: Guest
    shown: Documents
    datasets: tuple[BulkDataset, ...]

    async def gather(
        self, roles: tuple[str, ...] = ("node_0", "node_1", "node_2"), **changes: Any
    ) -> Gathered:
        clients = [self.nodes.clients[self.nodes.network.address(role)] for role in roles]
        nonces = await self.guest.nonces(clients)
        manifest = await self.guest.manifest(datasets=changes.pop("datasets", self.datasets))
        terms: dict[str, Any] = {"bulk": self.shown, **changes}
        answers = [await self.guest.ask(c, nonces, manifest=manifest, **terms) for c in clients]
        return gather(manifest, self.guest.sealing, self.guest.key.address, answers)


async def data(network: Network, name: str) -> Address:
    made, _ = await network.as_("data_provider").create_dataset(name, b"/ipfs/data", keccak(name.encode()))
    return made


async def bulk_of(
    nodes: Nodes, guest_of: GuestOf, orders: list[Signed[DatasetOrder]], deal: Deal | None = None
) -> Bulk:
    network = nodes.network
    cid, shown = documents([orders])
    deal = deal or await network.deal(with_dataset=False, params=Params(bulk_cid=cid))
    infos = await network.hub.datasets([signed.order.dataset for signed in orders])
    return Bulk(nodes, await guest_of(deal), shown, bulk_datasets(orders, network.domain, map(told, infos)))


async def test_keys_are_released_for_the_orders_that_fit_the_deal(
    nodes: Nodes, network: Network, guest_of: GuestOf
) -> None:
    names = (
        "good",
        "counted",
        "for another app",
        "for money",
        "revoked",
        "not signed by its owner",
        "without a key",
    )
    place = {name: await data(network, name) for name in names}
    order = {name: DatasetOrder(place[name], **FREE) for name in names}
    order["counted"] = replace(order["counted"], volume=10)
    order["for money"] = replace(order["for money"], datasetprice=1)
    order["for another app"] = replace(order["for another app"], apprestrict=network.address("worker"))
    signed = {name: network.sign("data_provider", one) for name, one in order.items()}
    signed["not signed by its owner"] = network.sign("worker", order["not signed by its owner"])
    await network.as_("data_provider").manage_order(signed["revoked"], "close")
    for name in names[:-1]:
        await nodes.split(name.encode(), place[name], network.key("data_provider"))
    found = await (await bulk_of(nodes, guest_of, list(signed.values()))).gather()
    assert found.secrets == {(KEY, place["good"]): b"good"}
    assert not found.blamed


async def test_two_nodes_of_three_suffice_and_one_neither_gives_nor_leaves_out(
    nodes: Nodes, network: Network, guest_of: GuestOf
) -> None:
    given, kept = await data(network, "given"), await data(network, "kept")
    await nodes.split(b"secret", given, network.key("data_provider"))
    orders = [network.sign("data_provider", DatasetOrder(one, **FREE)) for one in (given, kept)]
    bulk = await bulk_of(nodes, guest_of, orders)
    assert (await bulk.gather(("node_0", "node_2"))).secrets == {(KEY, given): b"secret"}
    nonces = await bulk.guest.nonces()
    manifest = await bulk.guest.manifest(datasets=bulk.datasets)
    answers = [
        await bulk.guest.ask(client, nonces, manifest=manifest, bulk=bulk.shown)
        for client in nodes.clients.values()
    ]
    # a node that says nothing of the dataset that has no key does not leave it out
    silent = [replace(answer, missing=()) for answer in answers[1:]]
    silent = [
        answer.signed(network.key(role)) for answer, role in zip(silent, ("node_1", "node_2"), strict=True)
    ]
    with pytest.raises(SecretRefused, match="leave it out"):
        gather(manifest, bulk.guest.sealing, bulk.guest.key.address, [answers[0], *silent])


async def test_a_slice_of_another_bulk_or_other_data_are_refused(
    nodes: Nodes, network: Network, guest_of: GuestOf
) -> None:
    mine, others = await data(network, "mine"), await data(network, "others")
    for one in (mine, others):
        await nodes.split(b"secret", one, network.key("data_provider"))
    bulk = await bulk_of(nodes, guest_of, [network.sign("data_provider", DatasetOrder(mine, **FREE))])
    _, false = documents([[network.sign("data_provider", DatasetOrder(others, **FREE))]])
    for shown in (false, Documents(bulk.shown.index, false.slice), None):
        with pytest.raises(InvalidInput, match="expected the"):
            await bulk.gather(("node_0",), bulk=shown)
    lies = [(), (replace(bulk.datasets[0], multiaddr="/ipfs/false"),), bulk.datasets * 2]
    for lie in lies:
        with pytest.raises(ManifestDiffers, match="datasets"):
            await bulk.gather(("node_0",), datasets=lie)


async def test_a_deal_without_a_bulk_gets_no_key_by_showing_one(
    nodes: Nodes, network: Network, guest_of: GuestOf
) -> None:
    mine = await data(network, "mine")
    await nodes.split(b"secret", mine, network.key("data_provider"))
    deal = await network.deal(with_dataset=False)
    bulk = await bulk_of(nodes, guest_of, [network.sign("data_provider", DatasetOrder(mine, **FREE))], deal)
    with pytest.raises(ManifestDiffers, match="datasets"):
        await bulk.gather(("node_0",))
    assert (await bulk.gather(datasets=())).secrets == {}


async def test_true_documents_that_are_wrong_give_a_grant_and_no_key(
    nodes: Nodes, network: Network, guest_of: GuestOf
) -> None:
    listed = json.dumps([cid_of(b"{}")]).encode()
    deal = await network.deal(with_dataset=False, params=Params(bulk_cid=cid_of(listed)))
    bulk = Bulk(nodes, await guest_of(deal), Documents(listed, b"{}"), ())
    found = await bulk.gather()
    assert found.secrets == {} and found.authorisation
