"""The documents of a bulk: true or not, right or wrong."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealdeal.model.bulk import (
    BULK_VOLUME,
    MAX_DATASETS,
    BulkDataset,
    BulkFault,
    Documents,
    bulk_datasets,
    gives_in_bulk,
    make_documents,
    signer_of,
    slice_orders,
    told,
)
from sealdeal.model.cid import cid_of, multiaddr_bytes
from sealdeal.model.deals import DatasetInfo
from sealdeal.model.eip712 import hub_domain
from sealdeal.model.errors import InvalidInput
from sealdeal.model.keys import Key
from sealdeal.model.orders import DatasetOrder, Signed
from sealdeal.model.types import ZERO, ZERO32, address

OWNER = Key(bytes([1]) * 32)
DATASET = address(bytes([4]) * 20)
DOMAIN = hub_domain(65432, address(bytes([9]) * 20))
ORDER = Signed.by(OWNER, DatasetOrder(DATASET, volume=2**53 - 1), DOMAIN)


def shown(*slices: bytes, index: int = 0, version: int = 0) -> tuple[str, Documents]:
    listed = json.dumps([cid_of(part, version) for part in slices]).encode()
    return cid_of(listed, version), Documents(listed, slices[index])


def a_slice(count: int = 1, **more: object) -> bytes:
    return json.dumps([{**ORDER.to_json(), **more}] * count).encode()


@pytest.mark.parametrize("version", [0, 1])
def test_a_task_has_the_orders_of_its_own_slice(version: int) -> None:
    cid, documents = shown(a_slice(2), a_slice(1), index=1, version=version)
    assert documents.orders(cid, 1) == (ORDER,)
    with pytest.raises(InvalidInput, match="expected the content of") as wrong:
        documents.orders(cid, 0)
    assert not isinstance(wrong.value, BulkFault)
    assert Documents.from_json(documents.to_json()) == documents


def test_members_that_clients_add_and_numbers_as_texts_are_read_over() -> None:
    assert slice_orders(a_slice(1, chainId=1, remaining=3, volume=str(2**53 - 1))) == (ORDER,)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b"[1]",
        b"\xff",
        b"[{}]",
        a_slice(MAX_DATASETS + 1),
        a_slice(1, tag="0x1"),
        b"[" * 9999,
    ],
    ids=["empty", "object", "nothing", "number", "no text", "no order", "too many", "bad tag", "deep"],
)
def test_a_true_slice_that_is_wrong_is_the_deals_fault(content: bytes) -> None:
    cid, documents = shown(content)
    with pytest.raises(BulkFault):
        documents.orders(cid, 0)


def test_a_list_that_is_wrong_is_the_deals_fault() -> None:
    cid, documents = shown(a_slice())
    with pytest.raises(BulkFault, match="a slice for task 7"):
        documents.orders(cid, 7)
    for listed in (b"{}", b"[1]", b'["no cid"]'):
        with pytest.raises(BulkFault):
            Documents(listed, b"").orders(cid_of(listed), 0)
    with pytest.raises(BulkFault):
        documents.orders("no cid", 0)


def test_a_guest_is_told_what_no_block_changes() -> None:
    info = DatasetInfo(ZERO, "name", multiaddr_bytes(f"/ipfs/{cid_of(b'data')}"), bytes([7]) * 32)
    (found,) = bulk_datasets([ORDER], DOMAIN, [told(info)])
    assert found == BulkDataset(DATASET, OWNER.address, f"/ipfs/{cid_of(b'data')}", bytes([7]) * 32)
    assert found.somewhere and BulkDataset.from_json(found.to_json()) == found
    assert told(None) == ("", ZERO32)
    assert told(DatasetInfo(ZERO, "", b"\xff", bytes(32))) == ("", ZERO32)
    assert not BulkDataset(DATASET, ZERO, "ftp://host/file", bytes(32)).somewhere
    assert signer_of(Signed(ORDER.order, b"\1\2"), DOMAIN) == ZERO


@pytest.mark.parametrize(("price", "volume"), [(1, BULK_VOLUME), (0, BULK_VOLUME - 1)])
def test_what_costs_something_or_is_counted_is_not_given_in_bulk(price: int, volume: int) -> None:
    order = DatasetOrder(DATASET, datasetprice=price, volume=volume)
    assert not gives_in_bulk(order)
    assert gives_in_bulk(DatasetOrder(DATASET, volume=BULK_VOLUME))
    with pytest.raises(InvalidInput, match=f"got {volume} uses at {price} nRLC of {DATASET}"):
        make_documents([ORDER, Signed.by(OWNER, order, DOMAIN)])


@given(st.integers(1, 60), st.integers(1, MAX_DATASETS))
def test_what_is_made_is_what_is_read(count: int, per_task: int) -> None:
    signed = [Signed(DatasetOrder(address(n.to_bytes(20)), volume=BULK_VOLUME), b"") for n in range(count)]
    index, slices = make_documents(signed, per_task)
    read = [Documents(index, part).orders(cid_of(index), n) for n, part in enumerate(slices)]
    assert [one for part in read for one in part] == signed
    assert [len(part) for part in read[:-1]] == [per_task] * (len(read) - 1)


def test_a_bulk_has_datasets_and_no_more_than_a_task_can_have() -> None:
    for orders, per_task in (([], 1), ([ORDER], 0), ([ORDER], MAX_DATASETS + 1)):
        with pytest.raises(InvalidInput, match="expected"):
            make_documents(orders, per_task)


@given(st.binary(max_size=200) | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(
    lambda value: json.dumps(value).encode()
))  # fmt: skip
def test_strangers_documents_are_read_or_refused(content: bytes) -> None:
    cid, documents = shown(content)
    with pytest.raises(BulkFault):
        documents.orders(cid, 0)
