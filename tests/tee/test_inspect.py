"""What evidence says before it is verified, from files of any shape."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealdeal.model.errors import EvidenceRefused, InvalidInput
from sealdeal.model.evidence import DCAP, NITRO, SEV_SNP, Evidence, UnknownKind
from sealdeal.tee import SimulatedPlatform
from sealdeal.tee.inspect import MAX_FILE_BYTES, inspect, read_evidence
from tests.tee.amd import CHIP, Amd
from tests.tee.aws import Aws

NOW = 1_790_000_000
BOUND = b"\x33" * 64
PLATFORM = SimulatedPlatform.generate(NOW)
INTEL = PLATFORM.evidence(BOUND, PLATFORM.measure(b"\x11" * 32, b"\x22" * 32), NOW)
AMD, AWS = Amd("Turin", NOW).evidence(BOUND), Aws(NOW).evidence(BOUND)


@pytest.mark.parametrize("evidence", [INTEL, AMD, AWS], ids=lambda evidence: evidence.kind)
def test_evidence_is_read_as_bytes_as_json_and_from_a_receipt(evidence: Evidence) -> None:
    assert read_evidence(evidence.quote, evidence.collateral) == evidence
    text = evidence.to_json()
    for shape in (text, {"evidence": text, "more": 1}, {"version": 1, "proof": {"evidence": text}}):
        assert read_evidence(b"\n " + json.dumps(shape).encode()) == evidence
    assert read_evidence(json.dumps(text).encode(), b"other").collateral == b"other"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"{}",
        b"noise" * 300,
        b"[" * 10,
        b'{"evidence":{}}',
        b'{"a":' * 5000,
        b"x" * (MAX_FILE_BYTES + 1),
    ],
)
def test_what_is_no_evidence_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        read_evidence(data)


def test_every_vendors_fields_are_shown() -> None:
    intel, amd, aws = inspect(INTEL), inspect(AMD), inspect(AWS)
    assert {shown["verified"] for shown in (intel, amd, aws)} == {False}
    assert (intel["kind"], intel["tee"], intel["version"]) == (DCAP, "tdx", 4)
    assert (
        intel["report"]["mr_td"].startswith("0x1111") and intel["report"]["report_data"] == "0x" + "33" * 64
    )
    assert intel["collateral"]["tcbEvaluationDataNumber"] == 17
    assert [c["name"] for c in intel["certificates"]][-1] == "Simulated TEE Root CA"
    assert (amd["kind"], amd["product"], amd["tcb"]["fmc"], amd["debug"]) == (SEV_SNP, "Turin", 1, False)
    assert amd["platform_id"] == "0x" + CHIP[:8].hex() + "00" * 56
    assert [c["name"] for c in amd["certificates"]] == ["SEV-VCEK", "SEV-Turin", "ARK-Turin"]
    assert (aws["kind"], aws["timestamp"], aws["report_data"]) == (NITRO, NOW, "0x" + "33" * 64)
    json.dumps([intel, amd, aws])


def test_an_unknown_kind_is_refused_by_name() -> None:
    with pytest.raises(UnknownKind, match="got 'tpm'"):
        inspect(Evidence("tpm", b""))


@given(
    st.sampled_from([INTEL, AMD, AWS]),
    st.integers(0, 1183),
    st.binary(min_size=1, max_size=8),
    st.none() | st.binary(max_size=60),
)
def test_damaged_evidence_is_shown_or_refused(
    good: Evidence, position: int, damage: bytes, collateral: bytes | None
) -> None:
    quote = bytearray(good.quote)
    quote[position : position + len(damage)] = damage
    with contextlib.suppress(EvidenceRefused):
        json.dumps(inspect(Evidence(good.kind, bytes(quote), collateral or good.collateral)))


@given(st.binary(max_size=1300))
def test_any_bytes_are_evidence_or_refused(data: bytes) -> None:
    with contextlib.suppress(EvidenceRefused, InvalidInput):
        inspect(read_evidence(data))


VECTORS = Path(__file__).parents[3] / "shared" / "vectors" / "intel"


@pytest.mark.skipif(
    not (VECTORS / "tdx_quote_4.dat").exists(),
    reason="Intel's sample quotes are not in ../shared/vectors/intel",
)
def test_a_real_quote_without_collateral_is_shown() -> None:
    shown = inspect(read_evidence((VECTORS / "tdx_quote_4.dat").read_bytes()))
    assert (shown["tee"], shown["version"], shown["fmspc"]) == ("tdx", 4, "50806F000000")
    assert shown["certificates"][-1]["name"] == "Intel SGX Root CA" and shown["collateral"] is None
