"""What a batch is on our side; that contracts agree is tested in tests/contracts/test_batch.py."""

from __future__ import annotations

import pytest
from eth_account.messages import encode_typed_data
from eth_utils import keccak
from hypothesis import given
from hypothesis import strategies as st

from sealdeal.model.batches import (
    MAX_TASKS,
    MAX_WORKERS,
    PAGE,
    Batch,
    Leaf,
    Proof,
    batch_message,
    batch_result,
    short_digest,
)
from sealdeal.model.eip712 import hub_domain
from sealdeal.model.errors import InvalidInput
from sealdeal.model.types import Address, address

DEAL = keccak(b"deal")
HUB = address(b"\x07" * 20)


def who(number: int) -> Address:
    return address(number.to_bytes(20, "big"))


def leaf(index: int, worker: int = 1) -> Leaf:
    return Leaf(index, who(worker), who(1000 + index))


@given(
    st.integers(0, 2**23),
    st.integers(0, 9),
    st.dictionaries(st.integers(0, PAGE - 1), st.integers(1, MAX_WORKERS), min_size=1, max_size=MAX_TASKS),
)
def test_leaves_come_back(first: int, page: int, workers: dict[int, int]) -> None:
    leaves = [leaf(first + PAGE * page + place, worker) for place, worker in workers.items()]
    batch = Batch.of(DEAL, first, leaves)
    assert batch.leaves(first) == sorted(leaves, key=lambda each: each.index)
    assert Batch.from_json(batch.to_json()) == batch
    assert bool(batch.assigned) == (len(set(workers.values())) > 1)


def test_what_is_signed_is_typed_data() -> None:
    batch = Batch.of(DEAL, 5, [leaf(5, 1), leaf(9, 2)])
    data = {
        "primaryType": "Batch",
        "domain": {"name": "iExecODB", "version": "5.0.0", "chainId": 1, "verifyingContract": HUB},
        "message": {name: value for (name, _), value in zip(Batch.fields(), batch.as_tuple(), strict=True)},
        "types": {
            "EIP712Domain": [
                {"name": "name", "type": "string"},
                {"name": "version", "type": "string"},
                {"name": "chainId", "type": "uint256"},
                {"name": "verifyingContract", "type": "address"},
            ],
            "Batch": [{"name": name, "type": kind} for name, kind in Batch.fields()],
        },
    }
    signable = encode_typed_data(full_message=data)
    expected = keccak(b"\x19" + signable.version + signable.header + signable.body)
    assert batch_message(hub_domain(1, HUB), batch) == expected


@pytest.mark.parametrize(
    ("leaves", "reason"),
    [
        ([], "expected 1 to 128 tasks for a batch, got 0"),
        ([leaf(i) for i in range(MAX_TASKS + 1)], "got 129"),
        ([leaf(3), leaf(3, 2)], "each task once"),
        ([leaf(250), leaf(260)], "256 from 0 on, got 250 to 260"),
        ([leaf(i, i + 1) for i in range(MAX_WORKERS + 1)], "at most 32 workers in a batch, got 33"),
    ],
)
def test_no_batch(leaves: list[Leaf], reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        Batch.of(DEAL, 0, leaves)
    with pytest.raises(InvalidInput):
        Batch.of(DEAL, 300, leaves)


@pytest.mark.parametrize(
    "changes",
    [
        {"tasks": 0},
        {"tasks": 0b1},
        {"tasks": 0b11 | 1 << PAGE},
        {"workers": b""},
        {"workers": b"\x01" * 21},
        {"workers": b"\x01" * 20},
        {"assigned": b""},
        {"assigned": b"\x00\x02"},
        {"enclaves": b"\x01" * 20},
    ],
)
def test_parts_that_do_not_fit(changes: dict[str, object]) -> None:
    batch = Batch.of(DEAL, 0, [leaf(0, 1), leaf(1, 2)])
    with pytest.raises(InvalidInput):
        Batch.from_json(batch.to_json() | changes).leaves(0)


def test_settle() -> None:
    batch = Batch.of(DEAL, 256, [leaf(600, 1), leaf(601, 2), leaf(603, 1)])
    proofs = {
        603: Proof(b"\x01\x02" + bytes(30), b"\x0a" * 32 + b"\x0b" * 32 + b"\x1c"),
        600: Proof(b"\x03" * 3 + bytes(29), b"\x0c" * 32 + b"\x0d" * 32 + b"\x1b"),
    }
    arguments = batch.settle(256, proofs, "QmX", b"sign")
    assert arguments == (
        DEAL,
        1,
        0b1011 << 88,
        0b1001 << 88,
        [who(1), who(2)],
        bytes([0, 1, 0]),
        3,
        b"\x03\x03\x03\x01\x02\x00",
        [
            (b"\x0c" * 32, b"\x0d" * 32),
            (bytes(12) + (1601).to_bytes(20, "big"), bytes(32)),
            (b"\x0a" * 32, b"\x8b" + b"\x0b" * 31),
        ],
        b"QmX",
        b"sign",
    )
    for wrong in ({}, {602: proofs[600]}, {600: Proof(proofs[600].digest, b"\x01" * 64)}):
        with pytest.raises(InvalidInput):
            batch.settle(256, wrong, "QmX", b"sign")


def test_results_and_digests() -> None:
    assert batch_result("QmX", 12) == b'{ "storage": "ipfs", "location": "/ipfs/QmX/12" }'
    assert short_digest(b"\x01" * 32) == b"\x01" * 20 + bytes(12)
