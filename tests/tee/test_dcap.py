"""The DCAP verifier, on quotes of the simulated platform and on real ones."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealdeal.model.errors import EvidenceRefused
from sealdeal.model.evidence import (
    DCAP,
    CollateralExpired,
    DebugEnabled,
    Evidence,
    NotAuthentic,
    Revoked,
    Supervised,
    TrustClass,
    UnknownKind,
    WrongRoot,
    WrongTcb,
)
from sealdeal.model.policy import MinTcb, TcbStatusIn
from sealdeal.tee import DcapVerifier, SimulatedPlatform, verify

NOW = 1_790_000_000
RELEASE, CHECKSUM, BOUND = b"\x11" * 32, b"\x22" * 32, b"\x33" * 64
DAY = 86_400

PLATFORM = SimulatedPlatform.generate(NOW)
VERIFIER = DcapVerifier(PLATFORM.root_der)
REGISTERS = PLATFORM.measure(RELEASE, CHECKSUM)
GOOD = PLATFORM.evidence(BOUND, REGISTERS, NOW)


@pytest.mark.parametrize("version", [4, 5])
def test_a_simulated_quote_verifies_under_its_root(version: int) -> None:
    evidence = dataclasses.replace(GOOD, quote=PLATFORM.quote(BOUND, REGISTERS, version=version))
    claims = VERIFIER.verify(evidence, NOW)
    assert (claims.tee, claims.trust, claims.debug) == ("tdx", TrustClass.SIMULATED, False)
    assert (claims.report_data, claims.platform_id) == (BOUND, PLATFORM.ppid)
    assert {name: claims.registers[name] for name in REGISTERS} == REGISTERS
    assert claims.tcb_status == "UpToDate" and claims.tcb_eval == 17
    assert NOW < claims.valid_until <= NOW + 30 * DAY


def test_another_root_refuses() -> None:
    other = SimulatedPlatform.generate(NOW)
    for verifier in (DcapVerifier(), DcapVerifier(other.root_der)):
        with pytest.raises(
            WrongRoot, match=r"expected an Intel quote signed under .* got a quote under Simul"
        ):
            verifier.verify(GOOD, NOW)
    mixed = Evidence(DCAP, GOOD.quote, other.collateral(NOW))
    with pytest.raises(WrongRoot, match="got collateral under"):
        VERIFIER.verify(mixed, NOW)
    with pytest.raises(WrongRoot, match="got a quote under"):
        DcapVerifier(other.root_der).verify(mixed, NOW)


def test_debug_is_refused() -> None:
    quote = PLATFORM.quote(BOUND, REGISTERS, debug=True)
    with pytest.raises(DebugEnabled):
        VERIFIER.verify(dataclasses.replace(GOOD, quote=quote), NOW)


@pytest.mark.parametrize(
    ("knob", "name"), [("revoke_pck", "PCK Certificate"), ("revoke_authority", "PCK Platform CA")]
)
def test_a_revoked_platform_is_refused(knob: str, name: str) -> None:
    knobs: dict[str, Any] = {knob: True}
    with pytest.raises(Revoked, match=f"Simulated {name} .* is revoked"):
        VERIFIER.verify(dataclasses.replace(GOOD, collateral=PLATFORM.collateral(NOW, **knobs)), NOW)


def test_another_machine_of_the_same_model_has_its_own_id() -> None:
    sibling = PLATFORM.sibling(NOW)
    claims = VERIFIER.verify(Evidence(DCAP, sibling.quote(BOUND, REGISTERS), GOOD.collateral), NOW)
    assert claims.platform_id == sibling.ppid != PLATFORM.ppid


def test_the_firmwares_versions_are_told() -> None:
    claims = VERIFIER.verify(GOOD, NOW)
    assert (claims.tcb["svn0"], claims.tcb["svn1"], claims.tcb["pce"], claims.tcb["cpu0"]) == (5, 1, 11, 3)
    MinTcb({"svn0": 5, "pce": 11}).check(claims, NOW)


@pytest.mark.parametrize("svn", [bytes([3, 1, 2] + [0] * 13), bytes([5, 1, 1] + [0] * 13)])
def test_a_level_that_the_vendor_does_not_list_is_refused(svn: bytes) -> None:
    with pytest.raises(WrongTcb, match="expected a TCB level that the vendor lists"):
        VERIFIER.verify(dataclasses.replace(GOOD, quote=PLATFORM.quote(BOUND, REGISTERS, svn=svn)), NOW)


def test_what_has_power_over_a_td_is_refused() -> None:
    for quote in (
        PLATFORM.quote(BOUND, REGISTERS, version=5, service_td=b"\1" * 48),
        PLATFORM.quote(BOUND, REGISTERS, migratable=True),
    ):
        with pytest.raises(Supervised, match="expected a TD that nothing else has power over"):
            VERIFIER.verify(dataclasses.replace(GOOD, quote=quote), NOW)


@pytest.mark.parametrize("now", [NOW + 31 * DAY, NOW - DAY, 0])
def test_collateral_counts_in_its_time_only(now: int) -> None:
    with pytest.raises(CollateralExpired, match=f"expected collateral valid at {now}"):
        VERIFIER.verify(GOOD, now)


@pytest.mark.parametrize("now", [-1, 2**70])
def test_impossible_times_are_refused(now: int) -> None:
    with pytest.raises(EvidenceRefused):
        VERIFIER.verify(GOOD, now)


def test_a_clock_a_little_behind_is_fine() -> None:
    VERIFIER.verify(GOOD, NOW - 600)


@pytest.mark.parametrize("status", ["OutOfDate", "SWHardeningNeeded", "ConfigurationNeeded"])
def test_the_tcb_status_is_told_and_judged_by_policy(status: str) -> None:
    evidence = dataclasses.replace(GOOD, collateral=PLATFORM.collateral(NOW, tcb_status=status))
    claims = VERIFIER.verify(evidence, NOW)
    assert (claims.tcb_status, claims.advisories) == (status, ("SIMULATED-SA-00001",))
    with pytest.raises(WrongTcb, match=f"got {status}"):
        TcbStatusIn(frozenset({"UpToDate"})).check(claims, NOW)


@pytest.mark.parametrize("name", ["tcb_info", "qe_identity"])
def test_edited_collateral_is_refused(name: str) -> None:
    members = json.loads(GOOD.collateral or b"")
    members[name] = members[name].replace('"tcbEvaluationDataNumber":17', '"tcbEvaluationDataNumber":99')
    with pytest.raises(NotAuthentic):
        VERIFIER.verify(dataclasses.replace(GOOD, collateral=json.dumps(members).encode()), NOW)


@pytest.mark.parametrize("collateral", [None, b"", b"{}", b"[]", b"\xff", b"null", b"x" * (1 << 20)])
def test_collateral_must_be_there_and_sound(collateral: bytes | None) -> None:
    with pytest.raises(NotAuthentic):
        VERIFIER.verify(dataclasses.replace(GOOD, collateral=collateral), NOW)


@given(st.integers(0, len(GOOD.quote) - 1), st.integers(1, 255))
def test_a_changed_byte_changes_no_claim_that_counts(position: int, flip: int) -> None:
    """Quotes are malleable, so some changes verify; what we read from them must then be the same."""
    quote = bytearray(GOOD.quote)
    quote[position] ^= flip
    try:
        claims = VERIFIER.verify(dataclasses.replace(GOOD, quote=bytes(quote)), NOW)
    except EvidenceRefused:
        return
    assert claims == VERIFIER.verify(GOOD, NOW)


@given(st.integers(0, len(GOOD.quote) - 1))
def test_a_cut_quote_is_refused(length: int) -> None:
    with pytest.raises(NotAuthentic):
        VERIFIER.verify(dataclasses.replace(GOOD, quote=GOOD.quote[:length]), NOW)


@given(st.binary(max_size=2000))
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises(NotAuthentic):
        VERIFIER.verify(dataclasses.replace(GOOD, quote=noise), NOW)


@given(st.integers(0, len(GOOD.quote) - 1), st.integers(0, 8), st.binary(max_size=200))
def test_damaged_quotes_are_refused_or_say_the_same(position: int, cut: int, damage: bytes) -> None:
    quote = GOOD.quote[:position] + damage + GOOD.quote[position + cut :]
    try:
        claims = VERIFIER.verify(dataclasses.replace(GOOD, quote=quote), NOW)
    except EvidenceRefused:
        return
    assert claims == VERIFIER.verify(GOOD, NOW)


MEMBERS = json.loads(GOOD.collateral or b"")


@given(
    st.sampled_from(sorted(MEMBERS)),
    st.text(max_size=50)
    | st.none()
    | st.integers()
    | st.lists(st.integers(), max_size=2)
    | st.binary(max_size=60).map(bytes.hex),
)
def test_any_collateral_member_is_refused_or_says_the_same(name: str, value: Any) -> None:
    """The same, because dcap-qvl takes the issuers of the PCK's list from the quote."""
    collateral = json.dumps({**MEMBERS, name: value}).encode()
    try:
        claims = VERIFIER.verify(dataclasses.replace(GOOD, collateral=collateral), NOW)
    except EvidenceRefused:
        return
    assert claims == VERIFIER.verify(GOOD, NOW) and name.endswith("issuer_chain")


@pytest.mark.parametrize("name", ["root_ca_crl", "pck_crl", "tcb_info", "qe_identity", "tcb_info_signature"])
def test_every_part_of_collateral_is_signed_under_the_root(name: str) -> None:
    """A stranger's part under the same names, as one who would hide a revocation makes it."""
    stranger = json.loads(SimulatedPlatform.generate(NOW).collateral(NOW, tcb_eval=18))
    collateral = json.dumps({**MEMBERS, name: stranger[name]}).encode()
    with pytest.raises(NotAuthentic):
        VERIFIER.verify(dataclasses.replace(GOOD, collateral=collateral), NOW)


@given(st.integers(0, len(GOOD.collateral or b"") - 1), st.integers(0, 4), st.binary(max_size=8))
def test_damaged_collateral_is_refused_or_says_the_same(position: int, cut: int, damage: bytes) -> None:
    whole = GOOD.collateral or b""
    collateral = whole[:position] + damage + whole[position + cut :]
    try:
        claims = VERIFIER.verify(dataclasses.replace(GOOD, collateral=collateral), NOW)
    except EvidenceRefused:
        return
    assert claims == VERIFIER.verify(GOOD, NOW)


def test_every_signed_byte_counts() -> None:
    """Header and body (632 bytes) are signed: no flip there verifies."""
    for position in range(0, 632):
        quote = bytearray(GOOD.quote)
        quote[position] ^= 1
        with pytest.raises(EvidenceRefused):
            VERIFIER.verify(dataclasses.replace(GOOD, quote=bytes(quote)), NOW)


def test_evidence_of_another_kind_is_refused_by_name() -> None:
    foreign = Evidence("snp", GOOD.quote, GOOD.collateral)
    with pytest.raises(UnknownKind, match="expected evidence of kind dcap, got 'snp'"):
        VERIFIER.verify(foreign, NOW)
    with pytest.raises(UnknownKind, match=r"a verifier \(dcap\), got 'snp'"):
        verify([VERIFIER], foreign, NOW)
    with pytest.raises(UnknownKind, match=r"a verifier \(none\)"):
        verify([], GOOD, NOW)


def test_the_root_that_signed_decides_among_several() -> None:
    assert verify([DcapVerifier(), VERIFIER], GOOD, NOW).trust is TrustClass.SIMULATED
    assert verify([VERIFIER, DcapVerifier()], GOOD, NOW).trust is TrustClass.SIMULATED
    with pytest.raises(NotAuthentic):
        verify([DcapVerifier()], GOOD, NOW)


# --- real evidence --------------------------------------------------------------------------------

VECTORS = Path(__file__).parents[3] / "shared" / "vectors" / "intel"
REAL = pytest.mark.skipif(
    not (VECTORS / "tdx_quote").exists(), reason="Intel's sample quotes are not in ../shared/vectors/intel"
)


def real(name: str) -> Evidence:
    return Evidence(DCAP, (VECTORS / name).read_bytes(), (VECTORS / f"{name}_collateral.json").read_bytes())


def at(text: str) -> int:
    return int(dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC).timestamp())


@REAL
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tdx_quote", {"tee": "tdx", "tcb_status": "UpToDate"}),
        ("sgx_quote", {"tee": "sgx", "tcb_status": "ConfigurationAndSWHardeningNeeded"}),
    ],
)
def test_real_evidence_verifies_under_intels_root_alone(name: str, expected: dict[str, Any]) -> None:
    now = at("2025-06-20T12:00:00")
    claims = DcapVerifier().verify(real(name), now)
    assert claims.trust is TrustClass.HARDWARE and not claims.debug
    assert {key: getattr(claims, key) for key in expected} == expected
    assert len(claims.platform_id) == 16 and claims.valid_until > now
    with pytest.raises(NotAuthentic):
        VERIFIER.verify(real(name), now)
    for late in (now + 400 * DAY, now - 400 * DAY):
        with pytest.raises(CollateralExpired):
            DcapVerifier().verify(real(name), late)


@REAL
def test_real_evidence_with_foreign_parts_is_refused() -> None:
    now, tdx, sgx = at("2025-06-20T12:00:00"), real("tdx_quote"), real("sgx_quote")
    tampered = bytearray(tdx.quote)
    tampered[600] ^= 1  # in the report data
    for bad in (
        dataclasses.replace(tdx, collateral=sgx.collateral),
        dataclasses.replace(tdx, quote=bytes(tampered)),
        dataclasses.replace(tdx, quote=tdx.quote[:-1000]),
        dataclasses.replace(tdx, collateral=PLATFORM.collateral(now)),
    ):
        with pytest.raises(NotAuthentic):
            DcapVerifier().verify(bad, now)
