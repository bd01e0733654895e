"""Evidence, policies, manifests."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealdeal.model.deals import Deal, Resource, task_id
from sealdeal.model.errors import InvalidInput
from sealdeal.model.evidence import (
    Evidence,
    Manifest,
    report_data,
)
from sealdeal.model.types import ZERO, address, address_bytes

HUB, QUORUM, WORKER, ENCLAVE = (address(bytes([n]) * 20) for n in (1, 2, 3, 4))
NODES = tuple(address(bytes([n]) * 20) for n in (0xA1, 0xB2, 0xC3))
RELEASE, CHECKSUM = b"\x11" * 32, b"\x22" * 32


def deal(**changes: Any) -> Deal:
    who = address(b"\x09" * 20)
    values: dict[str, Any] = {
        "dealid": b"\x05" * 32,
        "app": Resource(address(b"\x06" * 20), who, 1),
        "dataset": Resource(address(b"\x07" * 20), who, 2),
        "workerpool": Resource(address(b"\x08" * 20), who, 3),
        "trust": 1,
        "category": 0,
        "tag": bytes(31) + b"\x09",
        "requester": address(b"\x0a" * 20),
        "beneficiary": address(b"\x0b" * 20),
        "callback": ZERO,
        "params": '{"iexec_args":"é"}',
        "start_time": 100,
        "bot_first": 4,
        "bot_size": 2,
        "worker_stake": 0,
        "scheduler_reward_ratio": 5,
        "sponsor": who,
    }
    return Deal(**{**values, **changes})


def manifest(**changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "chain_id": 65432,
        "hub": HUB,
        "quorum": QUORUM,
        "deal": deal(),
        "task_index": 5,
        "worker": WORKER,
        "attempt": 1,
        "app_multiaddr": "/ipfs/app",
        "app_checksum": CHECKSUM,
        "dataset_multiaddr": "/ipfs/data",
        "dataset_checksum": b"\x55" * 32,
        "result_key": "",
        "nodes": NODES,
        "threshold": 2,
    }
    return Manifest.of(**{**values, **changes})


def test_evidence_json_round_trip_and_limits() -> None:
    for evidence in (Evidence("dcap", b"quote", b"{}"), Evidence("snp", b"", None)):
        assert Evidence.from_json(json.loads(json.dumps(evidence.to_json()))) == evidence
    good = Evidence("dcap", b"q", None).to_json()
    malformed: list[Any] = [None, [], {}]
    for bad in (
        *malformed,
        {**good, "more": 1},
        {**good, "kind": 5},
        {**good, "quote": None},
        {**good, "quote": "0x" + "00" * (64 * 1024 + 1)},
        {**good, "collateral": "zz"},
    ):
        with pytest.raises(InvalidInput):
            Evidence.from_json(bad)


# --- manifests ------------------------------------------------------------------------------------


def test_manifest_holds_what_the_deal_says() -> None:
    made = manifest()
    assert made.task_id == task_id(deal().dealid, 5)
    assert made.deal_hash == deal().fingerprint()
    assert (made.requester, made.beneficiary, made.params) == (
        deal().requester,
        deal().beneficiary,
        deal().params,
    )
    assert made.nodes == NODES == manifest(nodes=reversed(NODES)).nodes


def test_manifest_is_canonical() -> None:
    text = manifest().canonical()
    assert (
        text
        == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    )
    assert "é".encode() in text
    assert manifest().hash() == hashlib.sha256(text).digest()


def test_manifest_json_round_trip() -> None:
    made = manifest()
    assert Manifest.from_json(json.loads(json.dumps(made.to_json()))) == made
    for change in (
        {"chainId": "65432"},
        {"attempt": True},
        {"attempt": -1},
        {"hub": "0x12"},
        {"taskId": "0x12"},
        {"params": None},
        {"nodes": "0x"},
        {"nodes": [NODES[0], NODES[0]]},
        {"threshold": 4},
        {"threshold": 0},
        {"surprise": 1},
    ):
        with pytest.raises(InvalidInput, match=f"manifest.*{next(iter(change))}"):
            Manifest.from_json({**made.to_json(), **change})
    lacking = made.to_json()
    del lacking["dealHash"]
    with pytest.raises(InvalidInput, match="manifest lacks dealHash"):
        Manifest.from_json(lacking)


CHANGES: list[tuple[str, Any]] = [
    ("chain_id", 1),
    ("hub", ENCLAVE),
    ("quorum", ENCLAVE),
    ("deal_id", b"\x01" * 32),
    ("deal_hash", b"\x01" * 32),
    ("task_id", b"\x01" * 32),
    ("task_index", 4),
    ("worker", ENCLAVE),
    ("attempt", 2),
    ("params", "{}"),
    ("app", ENCLAVE),
    ("app_owner", ENCLAVE),
    ("app_multiaddr", "/ipfs/other"),
    ("app_checksum", RELEASE),
    ("dataset", ENCLAVE),
    ("dataset_owner", ENCLAVE),
    ("dataset_multiaddr", ""),
    ("dataset_checksum", RELEASE),
    ("requester", ENCLAVE),
    ("beneficiary", ENCLAVE),
    ("callback", ENCLAVE),
    ("result_key", "key"),
    ("nodes", NODES[:2]),
    ("threshold", 3),
    ("version", 2),
]


def test_every_field_of_a_manifest_is_tried_below() -> None:
    assert [name for name, _ in CHANGES if name != "version"] == [
        f.name for f in dataclasses.fields(Manifest) if f.name != "version"
    ]


@pytest.mark.parametrize(("name", "value"), CHANGES, ids=[name for name, _ in CHANGES])
def test_a_changed_field_changes_the_hash_and_is_named(name: str, value: Any) -> None:
    told = dataclasses.replace(manifest(), **{name: value})
    assert told.hash() != manifest().hash()
    (difference,) = manifest().differences(told)
    words = name.split("_")
    assert difference.startswith(words[0] + "".join(word.capitalize() for word in words[1:]) + ": expected ")


@pytest.mark.parametrize(
    "field", [f.name for f in dataclasses.fields(Deal) if f.name not in ("app", "dataset", "workerpool")]
)
def test_the_deal_hash_covers_every_field(field: str) -> None:
    value = getattr(deal(), field)
    other: Any = value + 1 if isinstance(value, int) else ENCLAVE if len(value) == 42 else RELEASE
    if field == "params":
        other = "{}"
    assert deal(**{field: other}).fingerprint() != deal().fingerprint()


def test_a_task_outside_the_deal_is_refused() -> None:
    for index in (3, 6):
        with pytest.raises(InvalidInput, match="task index"):
            manifest(task_index=index)


# --- report data ----------------------------------------------------------------------------------

NONCES = [(node, bytes([i]) * 48) for i, node in enumerate(NODES)]


def test_report_data_is_as_the_design_says() -> None:
    def h(data: bytes) -> bytes:
        return hashlib.sha256(data).digest()

    gathered = b"".join(address_bytes(node) + h(nonce) for node, nonce in NONCES)
    expected = hashlib.sha512(
        b"sealdeal report data 1" + RELEASE + h(b"k" * 32) + address_bytes(ENCLAVE) + h(gathered)
    ).digest()
    assert report_data(RELEASE, b"k" * 32, ENCLAVE, NONCES) == expected
    assert report_data(RELEASE, b"k" * 32, ENCLAVE, list(reversed(NONCES))) == expected


def test_report_data_binds_everything() -> None:
    base = report_data(RELEASE, b"k" * 32, ENCLAVE, NONCES)
    swapped = [(NODES[0], NONCES[1][1]), (NODES[1], NONCES[0][1]), NONCES[2]]
    assert (
        len(
            {
                base,
                report_data(CHECKSUM, b"k" * 32, ENCLAVE, NONCES),
                report_data(RELEASE, b"j" * 32, ENCLAVE, NONCES),
                report_data(RELEASE, b"k" * 32, WORKER, NONCES),
                report_data(RELEASE, b"k" * 32, ENCLAVE, NONCES[:2]),
                report_data(RELEASE, b"k" * 32, ENCLAVE, swapped),
            }
        )
        == 6
    )
    for bad in ([], [NONCES[0], NONCES[0]]):
        with pytest.raises(InvalidInput):
            report_data(RELEASE, b"k" * 32, ENCLAVE, bad)


@given(
    st.recursive(
        st.none() | st.booleans() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_hostile_json_never_makes_a_manifest_or_evidence(value: Any) -> None:
    for kind in (Manifest, Evidence):
        with pytest.raises(InvalidInput):
            kind.from_json(value)
