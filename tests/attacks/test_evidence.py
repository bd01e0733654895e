"""Evidence that an attacker would like to pass: altered, old, foreign, of a guest that others rule.

Each is put to the real verifiers, and what verifies to the policy that an SMS node demands; where more than
the evidence counts, to a real node.
"""

from __future__ import annotations

import ast
import dataclasses
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from secrets import token_bytes

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

import sealdeal
from sealdeal.model.errors import EvidenceRefused, InvalidInput
from sealdeal.model.evidence import (
    DCAP,
    SEV_SNP,
    Claims,
    CollateralExpired,
    CollateralRollback,
    DebugEnabled,
    EmptyPolicy,
    Evidence,
    MeasurementExpired,
    NotAuthentic,
    PlatformRefused,
    Revoked,
    StaleEvidence,
    Supervised,
    TrustClass,
    UnknownKind,
    WrongRegister,
    WrongReportData,
    WrongRoot,
    WrongTcb,
    WrongTrust,
)
from sealdeal.model.policy import (
    AllOf,
    AnyOf,
    Measurement,
    MeasurementIn,
    MinTcbEvaluation,
    NoDebug,
    NotExpired,
    PlatformIn,
    PlatformNotIn,
    Policy,
    ReportData,
    TcbStatusIn,
    TrustIs,
)
from sealdeal.model.sealing import SealingKey
from sealdeal.tee import DcapVerifier, NitroVerifier, SevVerifier, SimulatedPlatform, vendors, verify
from sealdeal.tee.collateral import Collateral, Need
from tests.network import NODES, Network
from tests.sms.conftest import PLATFORM as SIMULATED
from tests.sms.conftest import Guest, Nodes
from tests.tee.amd import TCB, Amd, pem
from tests.tee.aws import PCRS, Aws

NOW = 1_790_000_000
DAY = 86_400
BOUND = b"\x33" * 64
RELEASE, CHECKSUM = b"\x11" * 32, b"\x22" * 32

GuestOf = Callable[..., Awaitable[Guest]]
PLATFORM = SimulatedPlatform.generate(NOW)
REGISTERS = PLATFORM.measure(RELEASE, CHECKSUM)
GOOD = PLATFORM.evidence(BOUND, REGISTERS, NOW)
MILAN, GENOA = Amd("Milan", NOW), Amd("Genoa", NOW)
AWS = Aws(NOW)
TRUSTED = (DcapVerifier(PLATFORM.root_der), SevVerifier(pem(MILAN.root)), NitroVerifier(AWS.root_der))
STATUS = TcbStatusIn(frozenset({"UpToDate", ""}))  # AMD and AWS name none


def judge(
    evidence: Evidence, *more: Policy, now: int = NOW, trust: TrustClass = TrustClass.SIMULATED
) -> Claims:
    """As a node does: verify under its roots, then demand what it demands of every guest, and `more`."""
    claims = verify(TRUSTED, evidence, now)
    AllOf(TrustIs(trust), NoDebug(), STATUS, NotExpired(), ReportData(BOUND), *more).check(claims, now)
    return claims


def intel(quote: bytes | None = None, collateral: bytes | None = None) -> Evidence:
    """Good Intel evidence, but for the given part."""
    return Evidence(DCAP, GOOD.quote if quote is None else quote, collateral or GOOD.collateral)


def amd(quote: bytes | None = None, collateral: bytes | None = None) -> Evidence:
    """Good AMD evidence, but for the given part."""
    return Evidence(SEV_SNP, quote or MILAN.report(BOUND), collateral or MILAN.collateral())


@pytest.fixture(autouse=True, scope="module")
def unaltered() -> None:
    """What is attacked here is good, so that each refusal is of its attack alone."""
    for evidence in (GOOD, amd(), AWS.evidence(BOUND)):
        assert judge(evidence).report_data == BOUND


def test_bit_flips() -> None:
    """The platform's signature covers every byte that claims are read from, for all three vendors."""
    signed = {DCAP: 632, SEV_SNP: 0x2A0, "nitro": len(AWS.document(BOUND)) - 98}
    for good in (GOOD, amd(), AWS.evidence(BOUND)):
        for position in range(0, signed[good.kind], 7):
            quote = bytearray(good.quote)
            quote[position] ^= 0x10
            with pytest.raises(EvidenceRefused):
                judge(dataclasses.replace(good, quote=bytes(quote)))


def test_truncated() -> None:
    """Parsers want every byte of a quote, report or document, and end in a named refusal when one lacks."""
    for good in (GOOD, amd(), AWS.evidence(BOUND)):
        for length in range(0, len(good.quote) - 1, 61):
            with pytest.raises(EvidenceRefused):
                judge(dataclasses.replace(good, quote=good.quote[:length]))


def test_wrong_root() -> None:
    """Roots are pinned by their public keys, in the code or in the network's file."""
    stranger = SimulatedPlatform.generate(NOW)
    foreign = Amd("Milan", NOW, foreign=rsa.generate_private_key(65537, 2048))
    other = Aws(NOW, root_key=ec.generate_private_key(ec.SECP384R1()))
    for evidence in (
        stranger.evidence(BOUND, REGISTERS, NOW),
        foreign.evidence(BOUND),
        other.evidence(BOUND),
    ):
        with pytest.raises(WrongRoot):
            judge(evidence)


async def test_simulator_root_on_hardware_policy(nodes: Nodes) -> None:
    """The trust class follows from the root that verified; a policy demands one, and a node serves one."""
    with pytest.raises(WrongTrust, match="expected evidence of trust class hardware, got simulated"):
        judge(GOOD, trust=TrustClass.HARDWARE)
    for evidence in (GOOD, amd(), AWS.evidence(BOUND)):  # a hardware node does not even have that root
        with pytest.raises(WrongRoot):
            verify(vendors(), evidence, NOW)
    for roots in (vendors(), (*vendors(), DcapVerifier(SIMULATED.root_der)), ()):
        with pytest.raises(InvalidInput, match="a node serves one trust class"):
            await nodes.start(NODES[0], verifiers=roots)


def test_debug() -> None:
    """Verifiers refuse a TEE in debug mode, whatever the policy says."""
    for evidence in (
        intel(PLATFORM.quote(BOUND, REGISTERS, debug=True)),
        intel(PLATFORM.quote(BOUND, REGISTERS, debug=True, version=5)),
        amd(MILAN.report(BOUND, policy=0x3001F | 1 << 19)),
    ):
        with pytest.raises(DebugEnabled):
            judge(evidence)


def test_revoked_pck() -> None:
    """Intel's revocation lists are checked, and the collateral that has them is the node's own."""
    with pytest.raises(Revoked, match="is revoked"):
        judge(intel(collateral=PLATFORM.collateral(NOW, revoke_pck=True)))
    with pytest.raises(Revoked, match="is revoked"):
        judge(intel(collateral=PLATFORM.collateral(NOW, revoke_authority=True)))


def test_revoked_authority_of_chips() -> None:
    """AMD's revocation list has to come with the certificates, signed by the root, and is checked."""
    gone = MILAN.revocations([MILAN.authority])
    with pytest.raises(Revoked):
        judge(amd(collateral=MILAN.collateral(revocations=gone)))
    with pytest.raises(NotAuthentic, match="expected the revocation list"):
        judge(amd(collateral=pem(MILAN.key(), MILAN.authority, MILAN.root)))


def test_expired_collateral() -> None:
    """Every list, level and certificate is checked against the node's clock."""
    for evidence, now in ((GOOD, NOW + 31 * DAY), (amd(), NOW + 31 * DAY)):
        with pytest.raises(CollateralExpired):
            judge(evidence, now=now)


def test_early_collateral() -> None:
    """Collateral of the future is as invalid as that of the past."""
    for evidence in (
        intel(collateral=PLATFORM.collateral(NOW + 2 * DAY)),
        amd(collateral=Amd("Milan", NOW + 3 * DAY).collateral()),
    ):
        with pytest.raises(CollateralExpired):
            judge(evidence)


def test_tcb_out_of_date() -> None:
    """The policy names the statuses that it accepts."""
    for status in ("OutOfDate", "OutOfDateConfigurationNeeded", "SWHardeningNeeded", "ConfigurationNeeded"):
        with pytest.raises(WrongTcb, match=f"got {status}"):
            judge(intel(collateral=PLATFORM.collateral(NOW, tcb_status=status)))


def test_tcb_revoked() -> None:
    """The verifier refuses a level that its vendor revoked, whatever the policy says."""
    with pytest.raises(WrongTcb, match="Revoked"):
        judge(intel(collateral=PLATFORM.collateral(NOW, tcb_status="Revoked")))


def test_module_svn_too_low() -> None:
    """A quote of an old TDX module matches no level of the vendor's list."""
    with pytest.raises(WrongTcb):
        judge(intel(PLATFORM.quote(BOUND, REGISTERS, svn=bytes([3, 1, 2] + [0] * 13))))


def test_edited_tcb_info() -> None:
    """TCB info and quoting-enclave identity are signed by the vendor, under the pinned root."""
    for name in ("tcb_info", "qe_identity"):
        for old, new in (('"UpToDate"', '"UpTodate"'), ('Number":17', 'Number":99'), ("2026-", "2036-")):
            members = json.loads(GOOD.collateral or b"")
            assert old in members[name]
            members[name] = members[name].replace(old, new)
            with pytest.raises(EvidenceRefused):
                judge(intel(collateral=json.dumps(members).encode()))


def test_other_platforms_collateral() -> None:
    """TCB info names the model (FMSPC) that it is about, and the verifier compares it with the quote's."""
    other = PLATFORM.sibling(NOW, fmspc=b"\x01" * 6)
    with pytest.raises(NotAuthentic, match="Fmspc mismatch"):
        judge(intel(collateral=other.collateral(NOW)))


def test_sgx_collateral_for_tdx() -> None:
    """TCB info and identity name the kind of TEE that they are about."""
    with pytest.raises(NotAuthentic, match="for the quote TEE type"):
        judge(intel(collateral=PLATFORM.collateral(NOW, sgx=True)))


def test_forged_vcek() -> None:
    """A chip's certificate must be signed by AMD's authority; the right words on it are not enough."""
    forger = Amd("Milan", NOW, chip_key=ec.generate_private_key(ec.SECP384R1()))
    stranger = rsa.generate_private_key(65537, 2048)
    self_made = forger.certificate("SEV-VCEK", "SEV-Milan", forger.chip_key, stranger, None)
    with pytest.raises(NotAuthentic, match="expected certificate SEV-VCEK to be issued by SEV-Milan"):
        judge(amd(forger.report(BOUND), MILAN.collateral(self_made)))


def test_other_chips_vcek() -> None:
    """The report's signature, chip id and firmware levels must be those of the certificate."""
    other = Amd("Milan", NOW, chip=b"\x05" * 64, chip_key=ec.generate_private_key(ec.SECP384R1()))
    with pytest.raises(NotAuthentic, match="its signature does not verify"):
        judge(amd(collateral=MILAN.collateral(other.key())))
    twin = Amd("Milan", NOW, chip=b"\x05" * 64)  # even with the same key
    with pytest.raises(NotAuthentic, match="expected the certificate of chip"):
        judge(amd(collateral=MILAN.collateral(twin.key())))
    with pytest.raises(NotAuthentic, match="expected firmware levels as in the key's certificate"):
        judge(amd(MILAN.report(BOUND, tcb={**TCB, "snp": TCB["snp"] + 1})))


def test_genoa_root_for_milan() -> None:
    """The certificate and the report name their processor line, and it must be the root's."""
    both = SevVerifier(pem(GENOA.root))
    mixed = pem(MILAN.key(), GENOA.authority, GENOA.root, GENOA.revocations())
    with pytest.raises(EvidenceRefused):
        both.verify(amd(collateral=mixed), NOW)
    wrong = pem(GENOA.key(), GENOA.authority, GENOA.root, GENOA.revocations())
    with pytest.raises(NotAuthentic, match="expected a Genoa processor under the root of Genoa"):
        both.verify(amd(collateral=wrong), NOW)


def test_stale_nitro_document() -> None:
    """A document counts for five minutes from the time in it, and never before."""
    for seconds in (301, 3000, -120):
        with pytest.raises(StaleEvidence):
            judge(AWS.evidence(BOUND, timestamp=(NOW - seconds) * 1000))


def test_nitro_debug_that_measures_nothing() -> None:
    """A Nitro enclave in debug mode has PCR 0 of zero, which the verifier refuses."""
    with pytest.raises(DebugEnabled):
        judge(AWS.evidence(BOUND, pcrs={**PCRS, 0: bytes(48)}))


async def test_collateral_rollback_inside_its_life() -> None:
    """A node fetches its own collateral, never takes an older one, and can demand a least evaluation."""
    given = PLATFORM.collateral(NOW, tcb_eval=18)

    class Service:
        async def fetch(self, need: Need, now: int) -> bytes:
            return given

    own = Collateral({DCAP: Service()})
    assert await own.for_(GOOD, NOW) == given
    given, fresh = (
        GOOD.collateral or b"",
        given,
    )  # the attacker answers for the service, with what is still valid
    assert await own.for_(GOOD, NOW + 2 * DAY) == fresh
    with pytest.raises(CollateralRollback):
        given = PLATFORM.collateral(NOW + 31 * DAY, tcb_eval=17)
        await own.for_(GOOD, NOW + 31 * DAY)
    with pytest.raises(WrongTcb, match="expected TCB evaluation number 18 or later, got 17"):
        judge(GOOD, MinTcbEvaluation(18))


def test_service_td() -> None:
    """A TD that a service TD is bound to is refused, since that one may read or change its state."""
    with pytest.raises(Supervised):
        judge(intel(PLATFORM.quote(BOUND, REGISTERS, version=5, service_td=b"\x01" * 48)))


def test_migration_of_the_guest() -> None:
    """A guest that its host may migrate is refused, for TDX and SEV-SNP."""
    with pytest.raises(Supervised):
        judge(intel(PLATFORM.quote(BOUND, REGISTERS, migratable=True)))
    with pytest.raises(Supervised):
        judge(amd(MILAN.report(BOUND, policy=0x3001F | 1 << 18)))


def test_paravisor_above_the_guest() -> None:
    """Only reports from privilege level 0 count: nothing more privileged is inside the VM."""
    for level in (1, 2, 3):
        with pytest.raises(Supervised, match=f"got one from {level}"):
            judge(amd(MILAN.report(BOUND, vmpl=level)))


async def test_banned_platform(nodes: Nodes, network: Network, guest_of: GuestOf) -> None:
    """A node keeps a list of machines that it refuses, by the id that the vendor certified."""
    await nodes.start(NODES[0], policies=[PlatformNotIn(frozenset({SIMULATED.ppid}))])
    guest = await guest_of(await network.deal())
    with pytest.raises(PlatformRefused, match="is banned"):
        await guest.refused()
    other = SIMULATED.sibling(int(nodes.clock()))
    await guest.refused(evidence=lambda told, nonces: guest.evidence(told, nonces, platform=other))


async def test_collateral_chosen_by_the_worker(nodes: Nodes, network: Network, guest_of: GuestOf) -> None:
    """A node judges by the collateral that it fetched itself, whatever came with the evidence."""

    class Vendor:
        async def fetch(self, need: Need, now: int) -> bytes:
            return SIMULATED.collateral(now, revoke_pck=True)

    guest = await guest_of(await network.deal())
    await guest.refused()  # what the worker brings says nothing of the revocation
    await nodes.start(NODES[0], collateral=Collateral({DCAP: Vendor()}))
    with pytest.raises(Revoked):
        await guest.refused()


def test_banned_platform_that_hides_its_id() -> None:
    """With a list of banned machines, one whose host hides the chip's id behind a cloud's key is refused."""
    hidden = amd(MILAN.report(BOUND, kind="VLEK", chip=bytes(64)), MILAN.collateral(kind="VLEK"))
    judge(hidden)
    with pytest.raises(PlatformRefused, match="expected a machine that shows its id"):
        judge(hidden, PlatformNotIn(frozenset({b"\x07" * 64})))


def test_forged_quote_from_a_genuine_key_of_another_machine() -> None:
    """A key extracted from one machine (the TEE.fail class) passes for no other: an allow list names them."""
    extracted = PLATFORM.sibling(NOW)
    forged = extracted.evidence(BOUND, REGISTERS, NOW)
    judge(forged)  # nothing else tells it from a good one
    with pytest.raises(PlatformRefused, match="expected one of 1 listed platforms"):
        judge(forged, PlatformIn(frozenset({PLATFORM.ppid})))


def test_app_rollback_to_an_old_measurement() -> None:
    """Each accepted measurement can have an end, set when a flaw of it is known."""
    listed = MeasurementIn(
        {
            "1.0": Measurement({"mrtd": REGISTERS["mrtd"]}, valid_until=NOW - 1),
            "1.1": Measurement({"mrtd": b"\x12" * 48}),
        }
    )
    with pytest.raises(MeasurementExpired, match=r"got 1\.0, until"):
        judge(GOOD, listed)


def test_another_guest() -> None:
    """Its measurement differs, and the policy names the ones that are accepted."""
    evil = PLATFORM.evidence(BOUND, PLATFORM.measure(b"\x66" * 32, CHECKSUM), NOW)
    with pytest.raises(WrongRegister):
        judge(evil, MeasurementIn({"1.0": Measurement(REGISTERS)}))


def test_evidence_of_another_session() -> None:
    """Report data binds the manifest, the guest's keys and the nonces of this session."""
    for evidence in (
        PLATFORM.evidence(bytes(64), REGISTERS, NOW),
        MILAN.evidence(bytes(64)),
        AWS.evidence(bytes(64)),
        AWS.evidence(user_data=None),
    ):
        with pytest.raises(WrongReportData):
            judge(evidence)


def test_wrong_kind() -> None:
    """The kind names the verifier, and evidence of a kind without one is refused by name."""
    for kind in ("snp", "tpm", "sgx-epid", "", "DCAP"):
        with pytest.raises(UnknownKind, match="expected evidence of a kind with a verifier"):
            judge(dataclasses.replace(GOOD, kind=kind))
    for good in (GOOD, amd(), AWS.evidence(BOUND)):
        for kind in {DCAP, SEV_SNP, "nitro"} - {good.kind}:
            with pytest.raises(NotAuthentic):
                judge(dataclasses.replace(good, kind=kind))


def test_empty_policy() -> None:
    """A policy that requires nothing refuses, so that a forgotten setting lets nobody in."""
    claims = judge(GOOD)
    empty: list[Policy] = [AllOf(), AnyOf(), MeasurementIn({}), AllOf(AnyOf(), AllOf())]
    for policy in empty:
        with pytest.raises(EmptyPolicy):
            policy.check(claims, NOW)


async def test_malleable_quote(nodes: Nodes, network: Network, guest_of: GuestOf) -> None:
    """No claim comes from a byte that nobody signed, and nothing is keyed by a quote: nonces stop replays."""
    same = judge(GOOD)
    variants = 0
    for position in range(632, len(GOOD.quote), 11):
        quote = bytearray(GOOD.quote)
        quote[position] ^= 1
        try:
            assert judge(intel(bytes(quote))) == same
        except EvidenceRefused:
            continue
        variants += 1
    assert judge(intel(GOOD.quote + b"\0" * 9)) == same
    assert variants  # else there were nothing to fear

    guest = await guest_of(await network.deal())
    nonces, told = await guest.nonces(), await guest.manifest()
    good = guest.evidence(told, nonces)
    variant = dataclasses.replace(good, quote=good.quote + b"\0" * 9)
    await guest.ask(nodes.first, nonces, evidence=lambda *_: good)
    with pytest.raises(WrongReportData):  # the host's own key, in a quote that no node has seen
        await guest.ask(
            nodes.first, nonces, evidence=lambda *_: variant, hpke_key=SealingKey.generate(token_bytes).public
        )
    with pytest.raises(WrongReportData):
        await guest.refused(evidence=lambda *_: variant)

    keyed = []
    for path in Path(sealdeal.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and _hashes(node.func) and any(map(_mentions_quote, node.args)):
                keyed.append(f"{path.name}:{node.lineno}")
            if isinstance(node, ast.Subscript) and _mentions_quote(node.slice):
                keyed.append(f"{path.name}:{node.lineno}")
    assert keyed == []


def _hashes(function: ast.expr) -> bool:
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in {"sha256", "sha384", "sha512", "keccak", "blake2b", "hash", "digest", "add"}


def _mentions_quote(node: ast.expr) -> bool:
    return any(isinstance(part, ast.Attribute) and part.attr == "quote" for part in ast.walk(node))
