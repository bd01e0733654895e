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
from sealdeal.model.errors import EvidenceRefused, InvalidInput
from sealdeal.model.evidence import (
    Claims,
    CollateralExpired,
    DebugEnabled,
    EmptyPolicy,
    Evidence,
    Manifest,
    PlatformRefused,
    TrustClass,
    WrongRegister,
    WrongReportData,
    WrongTcb,
    WrongTee,
    WrongTrust,
    report_data,
    tdx_registers,
)
from sealdeal.model.policy import (
    AllOf,
    AnyOf,
    MinTcbEvaluation,
    NoDebug,
    NotExpired,
    PlatformIn,
    PlatformNotIn,
    Registers,
    ReportData,
    TcbStatusIn,
    TeeIs,
    TrustIs,
)
from sealdeal.model.types import ZERO, address, address_bytes

HUB, QUORUM, WORKER, ENCLAVE = (address(bytes([n]) * 20) for n in (1, 2, 3, 4))
NODES = tuple(address(bytes([n]) * 20) for n in (0xA1, 0xB2, 0xC3))
RELEASE, CHECKSUM = b"\x11" * 32, b"\x22" * 32

CLAIMS = Claims(
    tee="tdx",
    trust=TrustClass.SIMULATED,
    registers=tdx_registers(RELEASE, CHECKSUM),
    report_data=b"\x33" * 64,
    tcb_status="UpToDate",
    advisories=(),
    debug=False,
    platform_id=b"\x44" * 16,
    valid_until=1000,
    tcb_eval=17,
)


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


REFUSED = [
    (TrustIs(TrustClass.HARDWARE), WrongTrust, "expected evidence of trust class hardware, got simulated"),
    (TeeIs("sgx"), WrongTee, "expected evidence of a sgx TEE, got tdx"),
    (TcbStatusIn(frozenset({"OutOfDate"})), WrongTcb, "expected TCB status OutOfDate, got UpToDate"),
    (MinTcbEvaluation(18), WrongTcb, "expected TCB evaluation number 18"),
    (Registers.exactly({"mrtd": bytes(48)}), WrongRegister, "expected register mrtd = 0x00"),
    (Registers.exactly({"pcr0": bytes(48)}), WrongRegister, "got none"),
    (Registers({"mrtd": frozenset()}), WrongRegister, "no value is allowed"),
    (ReportData(bytes(64)), WrongReportData, "expected report data 0x00"),
    (PlatformIn(frozenset({b"other"})), PlatformRefused, "expected one of 1 listed platforms"),
    (PlatformNotIn(frozenset({CLAIMS.platform_id})), PlatformRefused, "is banned"),
    (Registers({}), EmptyPolicy, "an empty policy refuses"),
    (AllOf(), EmptyPolicy, "an empty policy refuses"),
    (AnyOf(), EmptyPolicy, "an empty policy refuses"),
    (TcbStatusIn(frozenset()), WrongTcb, "none is allowed"),
]


@pytest.mark.parametrize(("policy", "refusal", "says"), REFUSED, ids=lambda value: type(value).__name__)
def test_a_policy_refuses_and_says_what_was_expected_and_what_came(
    policy: Any, refusal: Any, says: str
) -> None:
    with pytest.raises(refusal, match=says):
        policy.check(CLAIMS, 500)


def test_debug_expiry_and_denied_advisories_are_refused() -> None:
    with pytest.raises(DebugEnabled):
        NoDebug().check(dataclasses.replace(CLAIMS, debug=True), 500)
    with pytest.raises(CollateralExpired, match="valid at 1001, got one that expired at 1000"):
        NotExpired().check(CLAIMS, 1001)
    advised = dataclasses.replace(CLAIMS, advisories=("INTEL-SA-00001",))
    with pytest.raises(WrongTcb, match="INTEL-SA-00001"):
        TcbStatusIn(frozenset({"UpToDate"}), frozenset({"INTEL-SA-00001"})).check(advised, 500)


def test_policies_compose() -> None:
    mine, other = Registers.exactly(tdx_registers(RELEASE, CHECKSUM)), Registers.exactly({"mrtd": bytes(48)})
    AllOf(
        TrustIs(TrustClass.SIMULATED),
        TeeIs("tdx"),
        NoDebug(),
        NotExpired(),
        TcbStatusIn(frozenset({"UpToDate"})),
        MinTcbEvaluation(17),
        AnyOf(other, mine),
        PlatformIn(frozenset({CLAIMS.platform_id})),
        ReportData(CLAIMS.report_data),
    ).check(CLAIMS, 1000)
    with pytest.raises(WrongRegister, match="none of the accepted alternatives fits"):
        AnyOf(other, other).check(CLAIMS, 500)
    with pytest.raises(EvidenceRefused, match="; or expected evidence of a sgx TEE"):
        AnyOf(other, TeeIs("sgx")).check(CLAIMS, 500)
    with pytest.raises(WrongTee):
        AllOf(mine, TeeIs("sgx")).check(CLAIMS, 500)


def test_registers_tell_guest_and_app_apart() -> None:
    expected = tdx_registers(RELEASE, CHECKSUM)
    assert expected["mrtd"] == RELEASE + bytes(16) and expected["mr_config_id"] == CHECKSUM + bytes(16)
    assert {len(value) for value in expected.values()} == {48}
    for release, app in ((CHECKSUM, CHECKSUM), (RELEASE, RELEASE)):
        with pytest.raises(WrongRegister):
            Registers.exactly(tdx_registers(release, app)).check(CLAIMS, 0)


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


def test_claims_json_is_for_people() -> None:
    shown = json.loads(json.dumps(CLAIMS.to_json()))
    assert shown["trust"] == "simulated" and shown["registers"]["mrtd"].startswith("0x1111")


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
