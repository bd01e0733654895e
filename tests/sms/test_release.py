"""What a node lets go, and to whom not. On real contracts, nodes over HTTP."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from secrets import token_bytes
from typing import Any

import pytest

from sealdeal.model.batches import Batch, Leaf, batch_message
from sealdeal.model.deals import authorisation_blob, authorisation_message, enclave_message, task_id
from sealdeal.model.errors import InvalidInput, SecretRefused
from sealdeal.model.evidence import (
    CollateralExpired,
    DebugEnabled,
    Evidence,
    NotAuthentic,
    TrustClass,
    UnknownKind,
    WrongRegister,
    WrongReportData,
    WrongTcb,
)
from sealdeal.model.keys import Key, message_digest
from sealdeal.model.orders import BATCH, TEE_TDX, Params
from sealdeal.model.release import gather
from sealdeal.model.results import generate_result_key
from sealdeal.model.sealing import Door, SealingKey, SecretKind, release_info
from sealdeal.model.types import ZERO, ZERO32, Address, hexstr, keccak, unhex
from sealdeal.sdk.sms import (
    RESULT_KEY_NAME,
    AssignmentRefused,
    AttemptTaken,
    BatchRefused,
    DeadlinePassed,
    ManifestDiffers,
    NonceRefused,
    NotFinalYet,
    NotInQuorum,
    NotTeeDeal,
    TaskNotActive,
    TooManyAttempts,
)
from sealdeal.sms.nonces import NONCE_SECONDS
from sealdeal.sms.store import MAX_ATTEMPTS
from sealdeal.tee import DcapVerifier, SimulatedPlatform
from tests.network import NODES, QUICK, THRESHOLD, Network

from .conftest import CONFIRMATIONS, PLATFORM, RELEASE, Guest, Nodes

GuestOf = Callable[..., Awaitable[Guest]]

SECRET = b"the key of the dataset, base64 of 32 bytes"


async def protected(nodes: Nodes, **options: Any) -> Any:
    """A deal whose dataset's key is split among the nodes."""
    deal = await nodes.network.deal(**options)
    await nodes.split(SECRET, deal.dataset.pointer, nodes.network.key("data_provider"))
    return deal


# --- what an honest guest gets --------------------------------------------------------------------


async def test_two_of_three_nodes_give_the_key_and_a_grant_that_the_hub_accepts(
    nodes: Nodes, network: Network, guest_of: GuestOf
) -> None:
    guest = await guest_of(await protected(nodes))
    found = await guest.gather()
    assert found.secrets == {(SecretKind.DATASET_KEY, ""): SECRET}
    assert found.doors == {(SecretKind.DATASET_KEY, ""): Door.OWN}
    worker, taskid, value = network.address("worker"), guest.assignment.task, keccak(b"result")
    asked = message_digest(authorisation_message(worker, taskid, guest.key.address))
    assert await network.quorum.is_valid(asked, found.authorisation)
    signature = guest.key.sign_message(enclave_message(worker, taskid, value))
    await network.as_("worker").contribute_and_finalize(
        taskid, value, b"result", b"", guest.key.address, signature, found.authorisation
    )


async def test_any_two_nodes_suffice_and_one_does_not(nodes: Nodes, guest_of: GuestOf) -> None:
    guest = await guest_of(await protected(nodes))
    nonces, manifest = await guest.nonces(), await guest.manifest()
    answers = {a: await guest.ask(c, nonces, manifest=manifest) for a, c in nodes.clients.items()}
    for alone in answers:
        others = [answer for node, answer in answers.items() if node != alone]
        found = gather(manifest, guest.sealing, guest.key.address, others)
        assert found.secrets == {(SecretKind.DATASET_KEY, ""): SECRET}
        with pytest.raises(SecretRefused):
            gather(manifest, guest.sealing, guest.key.address, [answers[alone]])


async def test_nothing_that_one_node_holds_or_answers_is_the_secret(nodes: Nodes, guest_of: GuestOf) -> None:
    guest = await guest_of(await protected(nodes))
    nonces = await guest.nonces()
    for node, client in nodes.clients.items():
        held = await nodes.running[node].store.find(SecretKind.DATASET_KEY, guest.deal.dataset.pointer, "")
        assert held is not None and SECRET not in held.value and held.door == Door.OWN
        answer = await guest.ask(client, nonces)
        assert SECRET.hex() not in str(answer.to_json())
    for file in nodes.folder.iterdir():
        assert SECRET not in file.read_bytes()


async def test_the_shares_at_rest_are_not_in_the_clear(nodes: Nodes) -> None:
    deal = await protected(nodes)
    shares = []
    for node in nodes.running.values():
        held = await node.store.find(SecretKind.DATASET_KEY, deal.dataset.pointer, "")
        assert held is not None
        shares.append(held.value)
    for file in nodes.folder.iterdir():
        assert not any(share in file.read_bytes() for share in shares)


async def test_app_and_requester_secrets_go_along(nodes: Nodes, network: Network, guest_of: GuestOf) -> None:
    deal = await protected(nodes, params=Params(args="run", secrets={1: "token", 2: "absent", 0: "never"}))
    requester, provider = network.key("requester"), network.key("app_provider")
    await nodes.split(b"api", deal.app.pointer, provider, kind=SecretKind.APP_SECRET, name="1")
    for client in nodes.clients.values():
        await client.push_requester_secret(requester, "token", "whole")
        await client.push_requester_secret(requester, "never", "not asked for")
    guest = await guest_of(deal)
    found = await guest.gather()
    assert found.secrets == {
        ("dataset-key", ""): SECRET,
        ("app-secret", "1"): b"api",
        ("requester-secret", "token"): b"whole",
    }
    assert found.doors[("requester-secret", "token")] is Door.SINGLE
    nonces = await guest.nonces()
    assert (await guest.ask(nodes.first, nonces)).missing == (("requester-secret", "absent"),)


async def test_without_a_dataset_a_guest_gets_a_grant_and_no_key(nodes: Nodes, guest_of: GuestOf) -> None:
    guest = await guest_of(await nodes.network.deal(with_dataset=False))
    found = await guest.gather()
    assert found.secrets == {} and len(found.authorisation) == 32 + THRESHOLD * 65


async def test_the_beneficiarys_key_is_in_the_manifest(
    nodes: Nodes, network: Network, guest_of: GuestOf
) -> None:
    deal = await protected(nodes, params=Params(args="run", result_encryption=True))
    guest = await guest_of(deal)
    await guest.nonces()
    assert guest.result_key == ""
    beneficiary = network.key("requester")
    for client in nodes.clients.values():
        await client.push_named_secret(beneficiary, RESULT_KEY_NAME, "not a key")
    await guest.nonces()
    assert guest.result_key == ""
    _, text = generate_result_key(2048)
    for client in nodes.clients.values():
        await client.push_named_secret(beneficiary, RESULT_KEY_NAME, text)
    assert (await guest.gather()).secrets[("dataset-key", "")] == SECRET
    assert guest.result_key == text
    with pytest.raises(ManifestDiffers, match="resultKey: expected"):
        await guest.refused(manifest=await guest.manifest(result_key=""))
    nonces = await guest.nonces()
    await nodes.first.push_named_secret(beneficiary, RESULT_KEY_NAME, generate_result_key(2048)[1])
    with pytest.raises(ManifestDiffers, match="resultKey: expected"):
        await guest.ask(nodes.first, nonces, manifest=await guest.manifest())


async def test_the_same_guest_may_ask_again(nodes: Nodes, guest_of: GuestOf) -> None:
    guest = await guest_of(await protected(nodes))
    nonces = await guest.nonces()
    answers = [await guest.ask(nodes.first, nonces) for _ in range(2)]
    answers.append(await guest.ask(nodes.first, await guest.nonces()))
    assert len({answer.grant for answer in answers}) == 1
    assert [[i.kind for i in a.sealed] for a in answers] == [["dataset-key"]] * 3


async def test_a_restarted_node_keeps_its_word(nodes: Nodes, guest_of: GuestOf) -> None:
    guest = await guest_of(await protected(nodes))
    nonces = await guest.nonces()
    await guest.ask(nodes.first, nonces)
    await nodes.start(NODES[0])
    await guest.ask(nodes.first, nonces)
    other = dataclasses.replace(guest, key=Key.generate(token_bytes))
    with pytest.raises(NonceRefused, match="another enclave has spent"):
        await other.ask(nodes.first, nonces)
    with pytest.raises(AttemptTaken):
        await other.refused()


async def test_the_audit_says_what_left_for_whom(nodes: Nodes, network: Network, guest_of: GuestOf) -> None:
    guest = await guest_of(await protected(nodes))
    with pytest.raises(ManifestDiffers):
        await guest.refused(manifest=await guest.manifest(attempt=2))
    await guest.gather()
    store = nodes.running[network.address(NODES[0])].store
    (line,) = await store.audit(task=guest.assignment.task)
    assert (line.worker, line.enclave, line.attempt) == (network.address("worker"), guest.key.address, 1)
    assert line.released == [["dataset-key", guest.deal.dataset.pointer, "", 1, "own"]]
    assert line.measurement["mrtd"] == hexstr(RELEASE + bytes(16)) and line.platform == hexstr(PLATFORM.ppid)
    assert await store.audit(dataset=guest.deal.dataset.pointer) == [line]
    assert await store.audit(dataset=network.address("worker")) == []


# --- the chain ------------------------------------------------------------------------------------


async def test_nothing_leaves_before_the_depth(nodes: Nodes, network: Network, guest_of: GuestOf) -> None:
    deal = await protected(nodes)
    await network.mine(CONFIRMATIONS)
    guest = await guest_of(deal, initialise=False)
    with pytest.raises(TaskNotActive, match="is UNSET"):
        await guest.nonces()
    await network.as_("pool_owner").initialize(deal.dealid, deal.bot_first)
    with pytest.raises(NotFinalYet, match=f"not {CONFIRMATIONS} blocks deep"):
        await guest.nonces()
    await network.mine(CONFIRMATIONS)
    assert (await guest.gather()).secrets


async def test_a_task_that_ended_gets_nothing(nodes: Nodes, network: Network, guest_of: GuestOf) -> None:
    guest = await guest_of(await protected(nodes))
    nonces = await guest.nonces()
    value = keccak(b"result")
    found = await guest.gather()
    signature = guest.key.sign_message(enclave_message(guest.assignment.worker, guest.assignment.task, value))
    await network.as_("worker").contribute_and_finalize(
        guest.assignment.task, value, b"result", b"", guest.key.address, signature, found.authorisation
    )
    await network.mine(CONFIRMATIONS)
    with pytest.raises(TaskNotActive, match="it is COMPLETED"):
        await guest.ask(nodes.first, nonces)
    with pytest.raises(TaskNotActive):
        await guest.nonces()


async def test_deadlines_of_task_and_assignment(nodes: Nodes, network: Network, guest_of: GuestOf) -> None:
    deal = await protected(nodes)
    guest = await guest_of(deal)
    late = await guest_of(deal, initialise=False, deadline=int(nodes.clock()))
    with pytest.raises(DeadlinePassed, match="the assignment ended"):
        await late.nonces()
    nodes.clock.offset = 601
    with pytest.raises(DeadlinePassed, match="the assignment ended"):
        await guest.nonces()
    nodes.clock.offset = 7 * 300
    patient = await guest_of(deal, initialise=False, deadline=2**40)
    with pytest.raises(DeadlinePassed, match="contribution deadline"):
        await patient.nonces()


async def test_the_chains_clock_counts_too(nodes: Nodes, network: Network, guest_of: GuestOf) -> None:
    deal = await protected(nodes, category=QUICK)
    guest = await guest_of(deal)
    await network.pass_time(60)
    await network.mine(CONFIRMATIONS)
    with pytest.raises(DeadlinePassed):
        await guest.nonces()


async def test_an_unknown_task_gets_nothing(nodes: Nodes, guest_of: GuestOf) -> None:
    guest = await guest_of(await protected(nodes), task=b"\x01" * 32)
    with pytest.raises(TaskNotActive, match="is UNSET"):
        await guest.nonces()


async def test_a_deal_without_tee_gets_neither_secret_nor_grant(nodes: Nodes, guest_of: GuestOf) -> None:
    guest = await guest_of(await protected(nodes, bits=0))
    with pytest.raises(NotTeeDeal):
        await guest.nonces()


async def test_an_app_without_checksum_gets_no_secret(
    nodes: Nodes, network: Network, guest_of: GuestOf
) -> None:
    _, dataset, pool = await network.assets()
    app, _ = await network.as_("app_provider").create_app("bare", "DOCKER", b"/ipfs/app", ZERO32)
    guest = await guest_of(await protected(nodes, assets=(app, dataset, pool)))
    found = await guest.gather()
    assert found.secrets == {} and len(found.authorisation) == 32 + THRESHOLD * 65


async def test_without_the_beneficiarys_key_there_is_a_grant_and_no_secret(
    nodes: Nodes, guest_of: GuestOf
) -> None:
    """So that the enclave can say on chain why the task cannot be run."""
    guest = await guest_of(await protected(nodes, params=Params(result_encryption=True)))
    found = await guest.gather()
    assert found.secrets == {} and len(found.authorisation) == 32 + THRESHOLD * 65


async def test_only_the_deals_pool_owner_assigns(nodes: Nodes, guest_of: GuestOf) -> None:
    deal = await protected(nodes)
    await guest_of(deal)
    for stranger in ("worker", "requester", "data_provider"):
        guest = await guest_of(deal, initialise=False, pool=stranger)
        with pytest.raises(AssignmentRefused, match="signed by the workerpool's owner"):
            await guest.nonces()
    guest = await guest_of(deal, initialise=False)
    nonces = await guest.nonces()
    altered = dataclasses.replace(guest, assignment=dataclasses.replace(guest.assignment, attempt=2))
    with pytest.raises(AssignmentRefused):
        await altered.nonces()
    with pytest.raises(AssignmentRefused):
        await dataclasses.replace(guest, signature=b"").nonces()
    with pytest.raises(AssignmentRefused):
        await dataclasses.replace(guest, signature=b"\x01" * 65).ask(nodes.first, nonces)


async def test_after_a_reorganisation_the_same_task_is_judged_anew(
    nodes: Nodes, network: Network, guest_of: GuestOf
) -> None:
    """The request is matched again by another pool: same ids, and the old assignment is worth nothing."""
    assets = await network.assets()
    orders = await network.orders(assets)
    await nodes.split(SECRET, assets[1], network.key("data_provider"))
    before = await network.rpc.call("evm_snapshot")
    dealid, _ = await network.as_("requester").match_orders(*orders)
    guest = await guest_of(await network.hub.deal(dealid))
    assert await guest.nonces()
    assert await network.rpc.call("evm_revert", before)

    fresh = Network(network.anvil, network.addresses)
    rival, _ = await fresh.as_("second_worker").create_workerpool("rival")
    pool_order = dataclasses.replace(orders[2].order, workerpool=rival)
    rivals = fresh.sign("second_worker", pool_order)
    again, _ = await fresh.as_("requester").match_orders(orders[0], orders[1], rivals, orders[3])
    assert again == dealid
    await fresh.as_("second_worker").initialize(dealid, 0)
    await fresh.mine(CONFIRMATIONS)
    with pytest.raises(AssignmentRefused):
        await guest.nonces()


# --- manifest, nonces, evidence -------------------------------------------------------------------

LIES: list[dict[str, Any]] = [
    {"chain_id": 1},
    {"hub": ZERO},
    {"quorum": ZERO},
    {"deal_id": ZERO32},
    {"deal_hash": ZERO32},
    {"task_id": ZERO32},
    {"task_index": 1},
    {"worker": ZERO},
    {"attempt": 2},
    {"params": '{"iexec_args":"steal"}'},
    {"app": ZERO},
    {"app_owner": ZERO},
    {"app_multiaddr": "/ipfs/evil"},
    {"app_checksum": ZERO32},
    {"dataset": ZERO},
    {"dataset_owner": ZERO},
    {"dataset_multiaddr": "/ipfs/evil"},
    {"dataset_checksum": ZERO32},
    {"requester": ZERO},
    {"beneficiary": ZERO},
    {"callback": Key(b"\x01" * 32).address},
    {"result_key": "mine"},
    {"threshold": 1},
    {"nodes": (ZERO, Key(b"\x01" * 32).address)},
    {"version": 2},
]


async def test_every_lie_in_the_manifest_is_named(nodes: Nodes, guest_of: GuestOf) -> None:
    guest = await guest_of(await protected(nodes))
    honest, nonces = await guest.manifest(), await guest.nonces()
    assert {next(iter(lie)) for lie in LIES} == {f.name for f in dataclasses.fields(honest)}
    for lie in LIES:
        name, *rest = next(iter(lie)).split("_")
        field = name + "".join(word.capitalize() for word in rest)
        with pytest.raises(ManifestDiffers, match=f"{field}: expected "):
            await guest.ask(nodes.first, nonces, manifest=dataclasses.replace(honest, **lie))
    assert (await guest.ask(nodes.first, nonces)).node in nodes.clients  # a refusal spends nothing


async def test_nonces_are_for_one_node_task_worker_and_attempt(nodes: Nodes, guest_of: GuestOf) -> None:
    deal = await protected(nodes)
    guest, own = await guest_of(deal), nodes.network.address(NODES[0])
    nonces = await guest.nonces()
    others = {node: nonce for node, nonce in nonces.items() if node != own}
    second = await guest_of(deal, initialise=False, attempt=2)
    colleague = await guest_of(deal, initialise=False, worker="second_worker")
    cases: list[dict[Address, bytes]] = [
        others,
        {**others, own: next(iter(others.values()))},
        {**others, own: nonces[own][:-1] + bytes([nonces[own][-1] ^ 1])},
        {**others, own: bytes([0xFF]) + nonces[own][1:]},
        {**others, own: b""},
        {**others, own: nonces[own] + b"\x00"},
        {**others, own: (await second.nonces())[own]},
        {**others, own: (await colleague.nonces())[own]},
    ]
    for case in cases:
        with pytest.raises(NonceRefused):
            await guest.ask(nodes.first, case)
    with pytest.raises(NonceRefused, match="nonces of the quorum's nodes"):
        await guest.ask(nodes.first, {**nonces, guest.key.address: b"\x01" * 48})


async def test_nonces_expire(nodes: Nodes, guest_of: GuestOf) -> None:
    guest = await guest_of(await protected(nodes), deadline=2**40)
    nonces = await guest.nonces()
    nodes.clock.offset = NONCE_SECONDS - 5
    await guest.ask(nodes.first, nonces)
    nodes.clock.offset = NONCE_SECONDS
    with pytest.raises(NonceRefused, match="expired"):
        await guest.ask(nodes.first, nonces)


def forged(guest: Guest, **options: Any) -> Any:
    return lambda manifest, nonces: guest.evidence(manifest, nonces, **options)


async def test_evidence_that_does_not_convince(nodes: Nodes, guest_of: GuestOf) -> None:
    guest = await guest_of(await protected(nodes))
    now = int(nodes.clock())
    honest = guest.evidence(await guest.manifest(), await guest.nonces())
    registers = PLATFORM.measure(RELEASE, (await guest.manifest()).app_checksum)

    def quote(**options: Any) -> Any:
        def make(manifest: Any, nonces: Any) -> Evidence:
            bound = DcapVerifier(PLATFORM.root_der).verify(guest.evidence(manifest, nonces), now).report_data
            return dataclasses.replace(honest, quote=PLATFORM.quote(bound, registers, **options))

        return make

    def collateral(**options: Any) -> Any:
        return lambda m, n: dataclasses.replace(
            guest.evidence(m, n), collateral=PLATFORM.collateral(options.pop("at", now), **options)
        )

    cases: list[tuple[Any, type[Exception]]] = [
        (forged(guest, platform=SimulatedPlatform.generate(now)), NotAuthentic),
        (forged(guest, release=b"\x01" * 32), WrongRegister),
        (forged(guest, checksum=b"\x01" * 32), WrongRegister),
        (quote(debug=True), DebugEnabled),
        (collateral(at=now - 40 * 86_400), CollateralExpired),
        (collateral(at=now + 86_400), CollateralExpired),
        (collateral(tcb_status="OutOfDate"), WrongTcb),
        (collateral(revoke_pck=True), NotAuthentic),
        (lambda m, n: dataclasses.replace(guest.evidence(m, n), collateral=None), NotAuthentic),
        (lambda m, n: dataclasses.replace(guest.evidence(m, n), quote=b"\x00" * 4000), NotAuthentic),
        (lambda m, n: dataclasses.replace(guest.evidence(m, n), kind="snp"), UnknownKind),
        (lambda m, n: honest, WrongReportData),  # yesterday's quote with today's nonces
        (lambda m, n: guest.evidence(m, dict(list(n.items())[:2])), WrongReportData),
        (lambda m, n: guest.evidence(dataclasses.replace(m, attempt=2), n), WrongReportData),
    ]
    for evidence, refusal in cases:
        with pytest.raises(refusal):
            await guest.refused(evidence=evidence)
    assert await guest.refused(evidence=quote(version=5))
    audit = await nodes.running[nodes.network.address(NODES[0])].store.audit()
    assert len(audit) == 1


async def test_a_host_that_swaps_a_key_in_transit_gets_nothing(nodes: Nodes, guest_of: GuestOf) -> None:
    guest = await guest_of(await protected(nodes))
    for swap in (
        {"hpke_key": SealingKey.generate(token_bytes).public},
        {"enclave": Key(b"\x01" * 32).address},
    ):
        with pytest.raises(WrongReportData):
            await guest.refused(**swap)
    with pytest.raises(InvalidInput, match="zero address"):
        await guest.refused(enclave=ZERO)


async def test_one_enclave_per_attempt_and_three_attempts(nodes: Nodes, guest_of: GuestOf) -> None:
    deal = await protected(nodes)
    await (await guest_of(deal)).gather()
    second = await guest_of(deal, initialise=False)
    with pytest.raises(AttemptTaken, match="must start another attempt"):
        await second.gather()
    rival = await guest_of(deal, initialise=False, worker="second_worker")
    with pytest.raises(AttemptTaken):
        await rival.gather()
    for attempt in range(2, MAX_ATTEMPTS + 1):
        await (await guest_of(deal, initialise=False, attempt=attempt, worker="second_worker")).gather()
    with pytest.raises(TooManyAttempts, match=f"at most {MAX_ATTEMPTS} attempts"):
        await (await guest_of(deal, initialise=False, attempt=MAX_ATTEMPTS + 1)).gather()


async def test_of_two_enclaves_at_once_one_gets_the_attempt(nodes: Nodes, guest_of: GuestOf) -> None:
    deal = await protected(nodes)
    guests = [await guest_of(deal), *[await guest_of(deal, initialise=False) for _ in range(3)]]
    found = await asyncio.gather(*(guest.refused() for guest in guests), return_exceptions=True)
    assert sorted(isinstance(answer, AttemptTaken) for answer in found) == [False, True, True, True]


async def test_a_sealed_share_opens_for_its_enclave_alone(nodes: Nodes, guest_of: GuestOf) -> None:
    guest = await guest_of(await protected(nodes))
    manifest = await guest.manifest()
    answer = await guest.ask(nodes.first, await guest.nonces(), manifest=manifest)
    other = SealingKey.generate(token_bytes)
    with pytest.raises(SecretRefused):
        answer.check(manifest, other.public, guest.key.address)
    item = answer.sealed[0]
    info = release_info(manifest.hash(), answer.node, item.kind, item.name, item.version)
    assert guest.sealing.open(item.ciphertext, info)
    with pytest.raises(SecretRefused):
        other.open(item.ciphertext, info)


async def test_another_tasks_grant_does_not_pass(nodes: Nodes, network: Network, guest_of: GuestOf) -> None:
    deal = await protected(nodes, volume=2)
    guest = await guest_of(deal)
    found = await guest.gather()
    other = task_id(deal.dealid, deal.bot_first + 1)
    asked = message_digest(authorisation_message(guest.assignment.worker, other, guest.key.address))
    assert not await network.quorum.is_valid(asked, found.authorisation)


# --- starting -------------------------------------------------------------------------------------


async def test_a_node_of_another_trust_class_refuses_to_start(nodes: Nodes) -> None:
    with pytest.raises(InvalidInput, match=f"is for {TrustClass.SIMULATED} evidence.*hardware"):
        await nodes.start(NODES[0], verifiers=[DcapVerifier()])
    with pytest.raises(InvalidInput, match="serves one trust class"):
        await nodes.start(NODES[0], verifiers=[DcapVerifier(), DcapVerifier(PLATFORM.root_der)])
    with pytest.raises(InvalidInput, match="configured here are none"):
        await nodes.start(NODES[0], verifiers=[])
    with pytest.raises(InvalidInput, match="at least one guest release"):
        await nodes.start(NODES[0], guest_releases=[])


async def test_a_node_outside_the_quorum_gives_nothing(nodes: Nodes, guest_of: GuestOf) -> None:
    guest = await guest_of(await protected(nodes))
    stranger = await nodes.start("worker")
    with pytest.raises(NotInQuorum):
        await guest.nonces([nodes.clients[stranger.address]])


# --- batches ------------------------------------------------------------------------------------------


async def test_a_batch_is_granted_only_leaf_by_leaf(
    nodes: Nodes, network: Network, guest_of: GuestOf
) -> None:
    """Tasks that have not begun: each guest gets its grant, and the node then signs for what it granted."""
    deal = await network.deal(bits=TEE_TDX | BATCH, volume=3, with_dataset=False)
    guests: list[Guest] = []
    for index in range(2):
        guest = await guest_of(deal, initialise=False, task=deal.task_ids()[index])
        guest.index = index
        if not guests:
            with pytest.raises(NotFinalYet):
                await guest.nonces()
            await network.mine(CONFIRMATIONS)
        await guest.gather()
        guests.append(guest)
    worker = network.address("worker")
    leaves = [Leaf(guest.place[1], worker, guest.key.address) for guest in guests]
    batch = Batch.of(deal.dealid, deal.bot_first, leaves)
    grants = [await client.grant_batch(batch) for client in nodes.clients.values()]
    until = (await network.hub.task_of(deal, deal.bot_first)).contribution_deadline
    assert {grant.validUntil for grant in grants} == {until}
    blob = authorisation_blob(until, {g.node: unhex(g.signature) for g in grants[:THRESHOLD]})
    assert await network.quorum.is_valid(batch_message(network.domain, batch), blob)

    other = Leaf(deal.bot_first + 2, worker, guests[0].key.address)
    for wrong in (
        [*leaves, other],
        [dataclasses.replace(leaves[0], worker=network.address("second_worker"))],
        [dataclasses.replace(leaves[0], enclave=guests[1].key.address)],
        [dataclasses.replace(leaves[0], index=deal.bot_first + 3)],
    ):
        with pytest.raises(BatchRefused):
            await nodes.first.grant_batch(Batch.of(deal.dealid, deal.bot_first, wrong))
    with pytest.raises(InvalidInput):
        await nodes.first.grant_batch(dataclasses.replace(batch, enclaves=batch.enclaves[:20]))
    with pytest.raises(NotFinalYet):
        await nodes.first.grant_batch(dataclasses.replace(batch, dealid=ZERO32))
    await network.pass_time(until)
    await network.mine(CONFIRMATIONS)
    with pytest.raises(DeadlinePassed):
        await nodes.first.grant_batch(batch)


async def test_deals_that_do_not_ask_get_no_batch(nodes: Nodes, network: Network, guest_of: GuestOf) -> None:
    deal = await network.deal(with_dataset=False, volume=2)
    guest = await guest_of(deal)
    await guest.gather()
    leaf = Leaf(deal.bot_first, network.address("worker"), guest.key.address)
    with pytest.raises(BatchRefused, match="does not ask"):
        await nodes.first.grant_batch(Batch.of(deal.dealid, deal.bot_first, [leaf]))
    unbegun = await guest_of(deal, initialise=False, task=deal.task_ids()[1])
    unbegun.index = 1
    with pytest.raises(TaskNotActive):
        await unbegun.nonces()
