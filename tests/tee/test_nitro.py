"""The Nitro verifier, on documents of a pretended AWS and on real ones; its CBOR against cbor2."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from sealdeal.model.errors import EvidenceRefused
from sealdeal.model.evidence import (
    NITRO,
    CollateralExpired,
    DebugEnabled,
    Evidence,
    NotAuthentic,
    StaleEvidence,
    TrustClass,
    UnknownKind,
    WrongRoot,
)
from sealdeal.tee import NitroVerifier
from sealdeal.tee.nitro import NitroDocument, decode
from tests.tee.aws import PCRS, Aws

NOW = 1_790_000_000
BOUND = b"\x33" * 64
AWS = Aws(NOW)
VERIFIER, GOOD = NitroVerifier(AWS.root_der), AWS.evidence(BOUND)


@pytest.mark.parametrize("tagged", [False, True])
def test_a_document_verifies_under_its_root(tagged: bool) -> None:
    claims = VERIFIER.verify(AWS.evidence(BOUND, tagged=tagged), NOW + 5)
    assert (claims.tee, claims.trust, claims.debug) == ("nitro", TrustClass.SIMULATED, False)
    assert (claims.report_data, claims.platform_id) == (BOUND, b"i-0123456789abcdef0")
    assert claims.registers == {f"pcr{index}": value for index, value in PCRS.items()}
    assert claims.valid_until == NOW + 300 and claims.tcb_status == ""


def test_a_document_without_user_data_binds_nothing() -> None:
    assert VERIFIER.verify(AWS.evidence(BOUND, user_data=None), NOW).report_data == b""


@pytest.mark.parametrize("seconds", [301, -61, 3000])
def test_a_document_counts_for_minutes(seconds: int) -> None:
    with pytest.raises(StaleEvidence, match=f"got one that is {seconds} seconds old"):
        VERIFIER.verify(AWS.evidence(timestamp=(NOW - seconds) * 1000), NOW)


def test_its_certificates_count_in_their_time_only() -> None:
    for now in (NOW + 4 * 3600, NOW - 3600):
        with pytest.raises(CollateralExpired):
            VERIFIER.verify(GOOD, now)


def test_debug_is_refused() -> None:
    with pytest.raises(DebugEnabled):
        VERIFIER.verify(AWS.evidence(pcrs={**PCRS, 0: bytes(48)}), NOW)


def test_another_root_is_refused() -> None:
    other = Aws(NOW, root_key=ec.generate_private_key(ec.SECP384R1()))
    for verifier in (NitroVerifier(), NitroVerifier(other.root_der)):
        with pytest.raises(WrongRoot, match="expected a chain that ends at a pinned root"):
            verifier.verify(GOOD, NOW)
    with pytest.raises(NotAuthentic, match="to be issued by pretended"):  # theirs, with our root behind it
        VERIFIER.verify(other.evidence(cabundle=[AWS.root_der, other.root_der]), NOW)


def test_evidence_of_another_kind_is_refused_by_name() -> None:
    with pytest.raises(UnknownKind, match="expected evidence of kind nitro, got 'sev-snp'"):
        VERIFIER.verify(dataclasses.replace(GOOD, kind="sev-snp"), NOW)


@pytest.mark.parametrize(
    "changes",
    [
        {"digest": "SHA256"},
        {"pcrs": {}},
        {"pcrs": {0: "text", 1: b"", 2: b""}},
        {"pcrs": []},
        {"module_id": 5},
        {"timestamp": "now"},
        {"timestamp": True},
        {"cabundle": []},
        {"cabundle": [b"\x30"] * 9},
        {"cabundle": {}},
        {"certificate": b"noise"},
        {"user_data": "text"},
        {"user_data": False},
    ],
    ids=str,
)
def test_malformed_documents_are_refused_though_signed(changes: dict[str, Any]) -> None:
    with pytest.raises(NotAuthentic):
        VERIFIER.verify(AWS.evidence(**changes), NOW)


def test_only_es384_counts() -> None:
    outer = cbor2.loads(GOOD.quote)
    for bad in (
        [cbor2.dumps({1: -7}), *outer[1:]],
        [b"", *outer[1:]],
        [outer[0], {}, outer[2], outer[3][:-1]],
        outer[:3],
        {"a": 1},
        5,
    ):
        with pytest.raises(NotAuthentic):
            VERIFIER.verify(Evidence(NITRO, cbor2.dumps(bad)), NOW)


@given(st.integers(0, len(GOOD.quote) - 1), st.integers(1, 255))
def test_a_changed_byte_changes_no_claim_that_counts(position: int, flip: int) -> None:
    quote = bytearray(GOOD.quote)
    quote[position] ^= flip
    try:
        claims = VERIFIER.verify(Evidence(NITRO, bytes(quote)), NOW)
    except EvidenceRefused:
        return
    assert claims == VERIFIER.verify(GOOD, NOW)


@given(st.integers(0, len(GOOD.quote) - 1))
def test_a_cut_document_is_refused(length: int) -> None:
    with pytest.raises(NotAuthentic):
        VERIFIER.verify(Evidence(NITRO, GOOD.quote[:length]), NOW)


CBOR: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**64), 2**64 - 1) | st.binary() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.integers(0, 99), inner, max_size=4)
    ),
    max_leaves=10,
)


@given(st.tuples(CBOR, CBOR, CBOR, CBOR))
def test_any_values_in_a_document_are_refused(members: tuple[Any, ...]) -> None:
    for value in (members[0], list(members), [cbor2.dumps(member) for member in members]):
        with pytest.raises(EvidenceRefused):
            VERIFIER.verify(Evidence(NITRO, cbor2.dumps(value)), NOW)


@given(st.binary(max_size=300))
def test_any_bytes_are_refused(noise: bytes) -> None:
    with pytest.raises(EvidenceRefused):
        VERIFIER.verify(Evidence(NITRO, noise), NOW)


@given(CBOR)
def test_what_our_cbor_reads_is_what_cbor2_reads(value: Any) -> None:
    def depth(inner: Any) -> int:
        members = inner if isinstance(inner, list) else inner.values() if isinstance(inner, dict) else ()
        return 1 + max(map(depth, members), default=0) if isinstance(inner, list | dict) else 0

    encoded = cbor2.dumps(value)
    try:
        read = decode(encoded)
    except NotAuthentic:
        assert depth(value) > 4
        return
    assert read == cbor2.loads(encoded) == value


@pytest.mark.parametrize(
    "hostile",
    [
        b"\x9b" + b"\xff" * 8,  # a list of 2^64 members
        b"\x5b\x7f" + b"\xff" * 7,  # 2^63 bytes
        b"\x81" * 100_000,  # nesting
        b"\x9f" * 1000,  # without an end
        cbor2.dumps({1: 2}) + b"\x00",  # something behind it
        b"\xa2\x01\x02\x01\x03",  # a key twice
        b"\xa1\x80\x01",  # a list as key
        b"\xa1\xf5\x01",  # true as key
        b"\xd8\x23\x66(a+)+$",  # a regular expression
        b"\xf9\x7e\x00",  # not a number
        b"\x62\xff\xff",  # not UTF-8
        b"",
    ],
    ids=lambda hostile: hostile[:4].hex(),
)
def test_hostile_cbor_is_refused_at_once(hostile: bytes) -> None:
    with pytest.raises(NotAuthentic):
        decode(hostile)
    with pytest.raises(NotAuthentic):
        VERIFIER.verify(Evidence(NITRO, hostile), NOW)


# --- real evidence --------------------------------------------------------------------------------

VECTORS = Path(__file__).parents[3] / "shared" / "vectors" / "nitro"
REAL = pytest.mark.skipif(
    not (VECTORS / "sample_prod_doc.bin").exists(),
    reason="AWS' sample documents are not in ../shared/vectors/nitro",
)


def real(name: str) -> tuple[Evidence, int]:
    quote = (VECTORS / name).read_bytes()
    return Evidence(NITRO, quote), NitroDocument(quote).timestamp // 1000


@REAL
def test_a_real_document_verifies_under_awss_root_alone() -> None:
    evidence, then = real("sample_prod_doc.bin")
    claims = NitroVerifier().verify(evidence, then + 5)
    assert claims.trust is TrustClass.HARDWARE
    assert claims.platform_id == b"i-078824548edcf6519"
    assert claims.registers["pcr0"].hex().startswith("2d151586641b790f")
    with pytest.raises(WrongRoot, match=r"got aws\.nitro-enclaves"):
        VERIFIER.verify(evidence, then + 5)
    with pytest.raises(StaleEvidence):
        NitroVerifier().verify(evidence, then + 301)
    with pytest.raises(CollateralExpired):
        NitroVerifier().verify(evidence, then + 86_400)
    for position in (100, len(evidence.quote) - 1):
        tampered = bytearray(evidence.quote)
        tampered[position] ^= 1
        with pytest.raises(NotAuthentic):
            NitroVerifier().verify(Evidence(NITRO, bytes(tampered)), then + 5)


@REAL
def test_a_real_document_of_a_debug_enclave_is_refused() -> None:
    evidence, then = real("eternis_0.cbor")
    with pytest.raises(DebugEnabled):
        NitroVerifier().verify(evidence, then + 5)
