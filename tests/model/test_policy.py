"""What policies refuse, and how they compose."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealdeal.model.errors import EvidenceRefused
from sealdeal.model.evidence import (
    Claims,
    CollateralExpired,
    DebugEnabled,
    EmptyPolicy,
    MeasurementExpired,
    PlatformRefused,
    TrustClass,
    WrongRegister,
    WrongReportData,
    WrongTcb,
    WrongTee,
    WrongTrust,
    tdx_registers,
)
from sealdeal.model.policy import (
    AllOf,
    AnyOf,
    Measurement,
    MeasurementIn,
    MinTcb,
    MinTcbEvaluation,
    NoDebug,
    NotExpired,
    PlatformIn,
    PlatformNotIn,
    Policy,
    Registers,
    ReportData,
    TcbStatusIn,
    TeeIs,
    TrustIs,
)

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
    tcb={"svn0": 5, "svn1": 1},
)


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
    (MinTcb({}), EmptyPolicy, "an empty policy refuses"),
    (MinTcb({"svn0": 6}), WrongTcb, "expected security version 6 or later of svn0, got 5"),
    (MinTcb({"svn0": 5, "microcode": 1}), WrongTcb, "of microcode, got none"),
    (MeasurementIn({}), EmptyPolicy, "an empty policy refuses"),
    (MeasurementIn({"1.0": Measurement({})}), EmptyPolicy, "an empty policy refuses"),
    (
        MeasurementIn({"1.0": Measurement({"mrtd": bytes(48)})}),
        WrongRegister,
        "the measurement of 1.0, got mrtd",
    ),
    (MeasurementIn({"1.0": Measurement({"pcr0": bytes(48)})}), WrongRegister, "got pcr0 = none"),
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


def test_a_list_of_measurements_lets_each_entry_end() -> None:
    mine = tdx_registers(RELEASE, CHECKSUM)
    listed = MeasurementIn(
        {
            "1.0": Measurement({**mine, "mrtd": bytes(48)}),
            "1.1": Measurement({"mrtd": mine["mrtd"]}, valid_until=500),
        }
    )
    listed.check(CLAIMS, 500)
    with pytest.raises(
        MeasurementExpired, match=r"still accepted at 501, got 1\.1, until 500: start a newer"
    ):
        listed.check(CLAIMS, 501)
    assert issubclass(MeasurementExpired, WrongRegister)
    MeasurementIn({**listed.entries, "the same, longer": Measurement(mine, 600)}).check(CLAIMS, 501)


def test_a_machine_that_hides_its_id_is_in_no_list_and_may_be_banned() -> None:
    hidden = dataclasses.replace(CLAIMS, platform_id=b"")
    for policy in (PlatformIn(frozenset({CLAIMS.platform_id})), PlatformNotIn(frozenset({b"other"}))):
        with pytest.raises(PlatformRefused):
            policy.check(hidden, 500)
    PlatformNotIn(frozenset()).check(hidden, 500)  # nothing is banned


def test_security_versions_are_least_ones() -> None:
    MinTcb({"svn0": 5, "svn1": 0}).check(CLAIMS, 500)


POLICIES: st.SearchStrategy[Policy] = st.recursive(
    st.sampled_from([TeeIs("tdx"), TeeIs("sgx"), NoDebug(), MinTcbEvaluation(18)]),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda several: AllOf(*several))
        | st.lists(inner, max_size=3).map(lambda several: AnyOf(*several))
    ),
    max_leaves=8,
)


def accepts(policy: Policy) -> bool:
    try:
        policy.check(CLAIMS, 500)
    except EvidenceRefused:
        return False
    return True


@given(st.lists(POLICIES, max_size=4))
def test_composition_is_and_and_or_but_never_of_nothing(policies: list[Policy]) -> None:
    each = [accepts(policy) for policy in policies]
    assert accepts(AllOf(*policies)) == (bool(each) and all(each))
    assert accepts(AnyOf(*policies)) == any(each)


def test_claims_json_is_for_people() -> None:
    shown = json.loads(json.dumps(CLAIMS.to_json()))
    assert (
        shown["tcb"] == {"svn0": 5, "svn1": 1}
        and shown["trust"] == "simulated"
        and shown["registers"]["mrtd"].startswith("0x1111")
    )
