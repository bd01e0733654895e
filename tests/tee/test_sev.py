"""The SEV-SNP verifier, on reports of a pretended AMD and on a real one."""

from __future__ import annotations

import base64
import dataclasses
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from sealdeal.model.errors import EvidenceRefused
from sealdeal.model.evidence import (
    SEV_SNP,
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
from sealdeal.model.policy import MinTcb, Registers
from sealdeal.tee import SevVerifier
from sealdeal.tee.certificates import key_hash
from sealdeal.tee.sev import ROOTS
from tests.tee.amd import CHIP, DAY, HOST_DATA, MEASUREMENT, TCB, Amd, pem

pytestmark = pytest.mark.filterwarnings("ignore:Parsed a serial number")  # a real VCEK's is 0
NOW = 1_790_000_000
BOUND = b"\x33" * 64
MILAN, GENOA, TURIN = (Amd(product, NOW) for product in ("Milan", "Genoa", "Turin"))


def verifier(amd: Amd, *, revocation: bool = True) -> SevVerifier:
    return SevVerifier(amd.root.public_bytes(Encoding.DER), revocation=revocation)


VERIFIER, GOOD = verifier(MILAN), MILAN.evidence(BOUND)


@pytest.mark.parametrize("kind", ["VCEK", "VLEK"])
@pytest.mark.parametrize("amd", [MILAN, GENOA, TURIN], ids=lambda amd: amd.product)
def test_reports_of_every_line_and_key_verify(amd: Amd, kind: str) -> None:
    claims = verifier(amd).verify(amd.evidence(BOUND, kind=kind), NOW)
    assert (claims.tee, claims.trust, claims.debug) == ("sev-snp", TrustClass.SIMULATED, False)
    assert (claims.report_data, claims.tcb_status) == (BOUND, "")
    assert claims.platform_id == (CHIP[:8] if amd is TURIN else CHIP)
    assert claims.tcb == {part: level for part, level in TCB.items() if part != "fmc" or amd is TURIN}
    assert NOW < claims.valid_until <= NOW + 30 * DAY  # the revocation list's end comes first
    Registers.exactly({"measurement": MEASUREMENT, "host_data": HOST_DATA}).check(claims, NOW)
    MinTcb({"microcode": 115}).check(claims, NOW)
    with pytest.raises(WrongTcb):
        MinTcb({"microcode": 116}).check(claims, NOW)


@pytest.mark.parametrize("version", [2, 3, 4, 5])
def test_all_versions_of_the_report_verify(version: int) -> None:
    evidence = dataclasses.replace(GOOD, quote=MILAN.report(BOUND, version=version))
    assert VERIFIER.verify(evidence, NOW).report_data == BOUND


def test_the_chips_certificate_names_a_chip_that_its_report_hides() -> None:
    hidden = dataclasses.replace(GOOD, quote=MILAN.report(BOUND, chip=bytes(64)))
    assert VERIFIER.verify(hidden, NOW).platform_id == CHIP
    cloud = Evidence(SEV_SNP, MILAN.report(kind="VLEK", chip=bytes(64)), MILAN.collateral(kind="VLEK"))
    assert VERIFIER.verify(cloud, NOW).platform_id == b""  # nobody can know it


def refused(quote: bytes | None = None, collateral: bytes | None = None, now: int = NOW) -> EvidenceRefused:
    with pytest.raises(EvidenceRefused) as raised:
        VERIFIER.verify(Evidence(SEV_SNP, quote or GOOD.quote, collateral or GOOD.collateral), now)
    return raised.value


def test_what_has_power_over_the_guest_is_refused() -> None:
    assert isinstance(refused(MILAN.report(policy=0x3001F | 1 << 19)), DebugEnabled)
    assert isinstance(refused(MILAN.report(policy=0x3001F | 1 << 18)), Supervised)
    for level in (1, 2, 3, 0xFFFFFFFF):
        assert isinstance(refused(MILAN.report(vmpl=level)), Supervised)


def test_every_certificate_counts_in_its_time_only() -> None:
    for now in (NOW - 2 * DAY, NOW + 3651 * DAY):
        assert isinstance(refused(now=now), CollateralExpired)
    assert "revocation list valid at" in str(refused(now=NOW + 31 * DAY))
    assert isinstance(refused(now=2**70), NotAuthentic)


def test_a_revoked_authority_is_refused() -> None:
    for authority in (MILAN.authority, MILAN.cloud_authority):
        listed = MILAN.revocations([authority])
        kind = "VCEK" if authority is MILAN.authority else "VLEK"
        quote, collateral = MILAN.report(kind=kind), MILAN.collateral(kind=kind, revocations=listed)
        assert isinstance(refused(quote, collateral), Revoked)
    key = MILAN.key("VLEK", serial=4711)
    gone = MILAN.collateral(key, kind="VLEK", revocations=MILAN.revocations([key]))
    assert isinstance(refused(MILAN.report(kind="VLEK"), gone), Revoked)


def test_a_revocation_list_must_come_along_and_be_the_roots() -> None:
    alone = pem(MILAN.key(), MILAN.authority, MILAN.root)
    assert "expected the revocation list of ARK-Milan" in str(refused(collateral=alone))
    verifier(MILAN, revocation=False).verify(dataclasses.replace(GOOD, collateral=alone), NOW)
    foreign = Amd("Milan", NOW, foreign=rsa.generate_private_key(65537, 2048)).revocations()
    for lenient in (True, False):  # one that is there counts in any case
        evidence = dataclasses.replace(GOOD, collateral=MILAN.collateral(revocations=foreign))
        with pytest.raises(NotAuthentic, match="signed by ARK-Milan"):
            verifier(MILAN, revocation=lenient).verify(evidence, NOW)


def test_another_root_is_refused() -> None:
    for other in (SevVerifier(), verifier(GENOA)):  # these share a key, and the names tell them apart
        with pytest.raises(NotAuthentic):
            other.verify(GOOD, NOW)
    with pytest.raises(WrongRoot, match=r"expected a chain that ends at a pinned root .* got ARK-Milan"):
        SevVerifier().verify(GOOD, NOW)


def test_report_and_certificate_are_of_one_platform() -> None:
    assert "firmware levels" in str(refused(MILAN.report(tcb={**TCB, "snp": 9})))
    assert "firmware levels" in str(refused(MILAN.report(tcb={**TCB, "microcode": 114})))
    assert "certificate of chip" in str(refused(MILAN.report(chip=bytes(63) + b"\1")))
    assert "expected a Milan processor" in str(refused(MILAN.report(model=(0x19, 0x11))))
    assert "of the report's VLEK" in str(refused(MILAN.report(kind="VLEK")))
    assert "of the report's VCEK" in str(refused(collateral=MILAN.collateral(kind="VLEK")))
    stranger = Amd("Milan", NOW, chip_key=ec.generate_private_key(ec.SECP384R1()))
    assert "does not verify" in str(refused(stranger.report(BOUND)))
    assert "does not verify" in str(refused(collateral=stranger.collateral()))


def test_an_authority_is_one_by_its_certificate() -> None:
    key = MILAN.key()
    for chain in ([key, key, MILAN.root], [key], [MILAN.root], [MILAN.root, MILAN.authority, key]):
        assert isinstance(refused(collateral=pem(*chain, MILAN.revocations())), NotAuthentic)
    many = MILAN.collateral() * 3
    assert "at most" in str(refused(collateral=many))


def test_evidence_of_another_kind_is_refused_by_name() -> None:
    with pytest.raises(UnknownKind, match="expected evidence of kind sev-snp, got 'dcap'"):
        VERIFIER.verify(dataclasses.replace(GOOD, kind="dcap"), NOW)
    with pytest.raises(NotAuthentic, match="got none"):
        VERIFIER.verify(dataclasses.replace(GOOD, collateral=None), NOW)


def test_every_signed_byte_counts() -> None:
    for position in range(0x2A0):
        quote = bytearray(GOOD.quote)
        quote[position] ^= 1
        refused(bytes(quote))


@given(st.integers(0, len(GOOD.quote) - 1), st.integers(1, 255))
def test_a_changed_byte_changes_no_claim_that_counts(position: int, flip: int) -> None:
    quote = bytearray(GOOD.quote)
    quote[position] ^= flip
    try:
        claims = VERIFIER.verify(dataclasses.replace(GOOD, quote=bytes(quote)), NOW)
    except EvidenceRefused:
        return
    assert claims == VERIFIER.verify(GOOD, NOW)


@given(st.binary(max_size=1200) | st.binary(min_size=1184, max_size=1184))
def test_any_bytes_as_report_are_refused(noise: bytes) -> None:
    with pytest.raises(EvidenceRefused):
        VERIFIER.verify(dataclasses.replace(GOOD, quote=noise), NOW)


@given(
    st.binary(max_size=500)
    | st.binary(max_size=500).map(
        lambda noise: x509_block(noise) + (GOOD.collateral or b"")  # where certificates are read
    )
)
def test_any_bytes_as_certificates_are_refused(noise: bytes) -> None:
    with pytest.raises(EvidenceRefused):
        VERIFIER.verify(dataclasses.replace(GOOD, collateral=noise), NOW)


@given(st.integers(0, len(GOOD.collateral or b"") - 1), st.binary(min_size=1, max_size=3))
def test_damaged_certificates_never_change_a_claim(position: int, damage: bytes) -> None:
    collateral = bytearray(GOOD.collateral or b"")
    collateral[position : position + len(damage)] = damage
    try:
        claims = VERIFIER.verify(dataclasses.replace(GOOD, collateral=bytes(collateral)), NOW)
    except EvidenceRefused:
        return
    assert claims == VERIFIER.verify(GOOD, NOW)


def x509_block(body: bytes) -> bytes:
    return b"-----BEGIN CERTIFICATE-----\n" + base64.b64encode(body) + b"\n-----END CERTIFICATE-----\n"


# --- real evidence --------------------------------------------------------------------------------

VECTORS = Path(__file__).parents[3] / "shared" / "vectors" / "sev"
REAL = pytest.mark.skipif(
    not (VECTORS / "test-report.bin").exists(), reason="AMD's sample report is not in ../shared/vectors/sev"
)
THEN = 1_704_067_200  # 2024-01-01


def real(key: str = "test-vcek.der", authority: int = 0) -> Evidence:
    chain = x509.load_pem_x509_certificates((VECTORS / "milan_ask_ark_asvk.pem").read_bytes())
    parts = [(VECTORS / key).read_bytes(), *(chain[i].public_bytes(Encoding.DER) for i in (authority, 1))]
    return Evidence(
        SEV_SNP, (VECTORS / "test-report.bin").read_bytes(), b"".join(x509_block(part) for part in parts)
    )


@REAL
def test_a_real_report_verifies_under_amds_root_alone() -> None:
    claims = SevVerifier(revocation=False).verify(real(), THEN)
    assert claims.trust is TrustClass.HARDWARE and not claims.debug
    assert claims.tcb == {"bootloader": 3, "tee": 0, "snp": 8, "microcode": 115}
    assert len(claims.platform_id) == 64 and claims.platform_id.hex().startswith("c38427a30d4c7af9")
    with pytest.raises(WrongRoot, match="got ARK-Milan"):
        verifier(MILAN, revocation=False).verify(real(), THEN)
    with pytest.raises(NotAuthentic, match="revocation list of ARK-Milan"):
        SevVerifier().verify(real(), THEN)
    for now in (THEN - 400 * DAY, THEN + 3000 * DAY):
        with pytest.raises(CollateralExpired):
            SevVerifier(revocation=False).verify(real(), now)


@REAL
def test_a_real_report_with_foreign_parts_is_refused() -> None:
    good, lenient = real(), SevVerifier(revocation=False)
    tampered = bytearray(good.quote)
    tampered[0x90] ^= 1
    for bad in (
        dataclasses.replace(good, quote=bytes(tampered)),
        dataclasses.replace(good, quote=good.quote[:-1]),
        dataclasses.replace(good, collateral=GOOD.collateral),
        real("test-vcek-invalid-new.der"),
        real(authority=2),  # the authority for clouds' keys
    ):
        with pytest.raises(NotAuthentic):
            lenient.verify(bad, THEN)


@REAL
def test_the_pinned_root_of_milan_is_the_samples() -> None:
    chain = x509.load_pem_x509_certificates((VECTORS / "milan_ask_ark_asvk.pem").read_bytes())
    assert ROOTS[key_hash(chain[1])] == "Milan"
