"""Guests, hosts, nodes and chains that would like a secret or a grant that is not theirs.

On real contracts, with real nodes, their databases and HTTP faces, and quotes of the simulated platform.
"""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
from collections.abc import Awaitable, Callable, Sequence
from secrets import token_bytes
from typing import Any

import httpx2
import pytest

from sealdeal.chain import Anvil, Hub, Reverted, Rpc
from sealdeal.model.deals import Assignment, Deal, enclave_message, pool_domain, task_id
from sealdeal.model.eip712 import digest
from sealdeal.model.errors import IntegrityError, RateLimited, SecretRefused, Unauthorized
from sealdeal.model.evidence import WrongRegister, WrongReportData
from sealdeal.model.keys import Key
from sealdeal.model.orders import Signed
from sealdeal.model.release import gather
from sealdeal.model.sealing import (
    Door,
    Revocation,
    SealingKey,
    SecretKind,
    owner_challenge,
    release_info,
    secrets_domain,
    share_secret,
    vouch_challenge,
    with_push,
)
from sealdeal.model.types import ZERO, ZERO32, keccak
from sealdeal.sdk.http import in_memory
from sealdeal.sdk.sms import (
    AssignmentRefused,
    AttemptTaken,
    ChainDisputed,
    ClockBehind,
    DeadlinePassed,
    ManifestDiffers,
    NonceRefused,
    NotFinalYet,
    SecretRevoked,
    SmsClient,
    TaskNotActive,
    TooManyAttempts,
)
from sealdeal.sms.app import create_app
from sealdeal.sms.limits import Limits
from sealdeal.sms.nonces import NONCE_SECONDS
from sealdeal.sms.store import MAX_ATTEMPTS
from sealdeal.sms.view import CLOCK_BEHIND, WITNESS_AHEAD
from tests.network import CHAIN_ID, NODES, QUICK, Network
from tests.sms.conftest import CONFIRMATIONS, Guest, Nodes

GuestOf = Callable[..., Awaitable[Guest]]
SECRET = b"the key of the dataset, base64 of 32 bytes"
KEY = (SecretKind.DATASET_KEY.value, "")


async def protected(nodes: Nodes, **options: Any) -> Deal:
    """A deal whose dataset's key is split among the nodes."""
    deal = await nodes.network.deal(**options)
    await nodes.split(SECRET, deal.dataset.pointer, nodes.network.key("data_provider"))
    return deal


async def finish(network: Network, guest: Guest, authorisation: bytes) -> None:
    """The guest's result, on chain."""
    task, value = guest.assignment.task, keccak(b"result")
    signature = guest.key.sign_message(enclave_message(guest.assignment.worker, task, value))
    await network.as_("worker").contribute_and_finalize(
        task, value, b"result", b"", guest.key.address, signature, authorisation
    )
    await network.mine(CONFIRMATIONS)


# --- what was good once, or elsewhere -------------------------------------------------------------


async def test_replayed_request(nodes: Nodes, network: Network, guest_of: GuestOf) -> None:
    """What it gets again is sealed to the enclave that asked first; after the task's end it gets nothing."""
    guest = await guest_of(await protected(nodes))
    nonces, manifest = await guest.nonces(), await guest.manifest()
    evidence = guest.evidence(manifest, nonces)
    again = [await guest.ask(nodes.first, nonces, evidence=lambda m, n: evidence) for _ in range(2)]
    host = SealingKey.generate(token_bytes)
    for answer in again:
        info = release_info(manifest.hash(), answer.node, *KEY, 1)
        assert guest.sealing.open(answer.sealed[0].ciphertext, info)
        with pytest.raises(SecretRefused):
            host.open(answer.sealed[0].ciphertext, info)
    await finish(network, guest, (await guest.gather()).authorisation)
    with pytest.raises(TaskNotActive):
        await guest.ask(nodes.first, nonces, evidence=lambda m, n: evidence)


async def test_old_quote_with_new_nonce(nodes: Nodes, guest_of: GuestOf) -> None:
    """The quote's report data covers the nonces that were given for it."""
    guest = await guest_of(await protected(nodes))
    old = guest.evidence(await guest.manifest(), await guest.nonces())
    with pytest.raises(WrongReportData):
        await guest.refused(evidence=lambda manifest, nonces: old)


async def test_expired_nonce(nodes: Nodes, guest_of: GuestOf) -> None:
    """A nonce says until when it is good, and the node's MAC covers that."""
    guest = await guest_of(await protected(nodes), deadline=2**40)
    nonces = await guest.nonces()
    nodes.clock.offset = NONCE_SECONDS
    with pytest.raises(NonceRefused, match="expired"):
        await guest.ask(nodes.first, nonces)
    longer = {node: bytes([0xFF]) + nonce[1:] for node, nonce in nonces.items()}
    with pytest.raises(NonceRefused, match="that this node gave"):
        await guest.ask(nodes.first, longer)


async def test_nonce_of_another_task(nodes: Nodes, network: Network, guest_of: GuestOf) -> None:
    """The node's MAC covers task, worker and attempt."""
    deal = await protected(nodes, volume=2)
    first = await guest_of(deal)
    await network.as_("pool_owner").initialize(deal.dealid, deal.bot_first + 1)
    await network.mine(CONFIRMATIONS)
    second = await guest_of(deal, initialise=False, task=deal.task_ids()[1])
    second.index = 1
    stolen = await first.nonces()
    with pytest.raises(NonceRefused, match="for this task, worker and attempt"):
        await second.ask(nodes.first, stolen)


async def test_quote_of_another_task(nodes: Nodes, network: Network, guest_of: GuestOf) -> None:
    """The quote's report data covers the manifest, which names the task."""
    deal = await protected(nodes, volume=2)
    first = await guest_of(deal)
    await network.as_("pool_owner").initialize(deal.dealid, deal.bot_first + 1)
    await network.mine(CONFIRMATIONS)
    second = await guest_of(deal, initialise=False, task=deal.task_ids()[1])
    second.index = 1
    nonces = await second.nonces()
    stolen = first.evidence(await first.manifest(), nonces)
    with pytest.raises(WrongReportData):
        await second.ask(nodes.first, nonces, evidence=lambda manifest, nonces: stolen)
    with pytest.raises(ManifestDiffers, match="taskId: expected"):
        await second.ask(nodes.first, nonces, manifest=await first.manifest())


async def test_manifest_of_another_chain(nodes: Nodes, guest_of: GuestOf) -> None:
    """Each node builds the manifest from its own chain, chain id and contracts included."""
    guest = await guest_of(await protected(nodes))
    for lie, named in (({"chain_id": 1}, "chainId"), ({"hub": ZERO}, "hub"), ({"quorum": ZERO}, "quorum")):
        with pytest.raises(ManifestDiffers, match=f"{named}: expected"):
            await guest.refused(manifest=await guest.manifest(**lie))


# --- tasks that deserve nothing -------------------------------------------------------------------


async def test_task_without_a_deal(nodes: Nodes, guest_of: GuestOf) -> None:
    """A node finds the task on its own chain, or gives nothing."""
    guest = await guest_of(await protected(nodes), task=task_id(b"\x01" * 32, 0))
    with pytest.raises(TaskNotActive, match="is UNSET"):
        await guest.nonces()


async def test_finalised_task(nodes: Nodes, network: Network, guest_of: GuestOf) -> None:
    """Secrets leave only while the task waits for its result, by the node's final block."""
    guest = await guest_of(await protected(nodes))
    nonces = await guest.nonces()
    await finish(network, guest, (await guest.gather()).authorisation)
    for refused in (guest.nonces(), guest.ask(nodes.first, nonces)):
        with pytest.raises(TaskNotActive, match="it is COMPLETED"):
            await refused


async def test_failed_task(nodes: Nodes, network: Network, guest_of: GuestOf) -> None:
    """Time is over when the chain or the node's clock says so, and a claimed task waits for nothing."""
    deal = await protected(nodes, category=QUICK)
    guest = await guest_of(deal)
    await network.pass_time(60)
    await network.mine(CONFIRMATIONS)
    with pytest.raises(DeadlinePassed):
        await guest.nonces()
    await network.as_("requester").claim(deal.task_ids()[0])
    await network.mine(CONFIRMATIONS)
    with pytest.raises(TaskNotActive, match="it is FAILED"):
        await guest.nonces()


async def test_deal_without_the_money(nodes: Nodes, network: Network, guest_of: GuestOf) -> None:
    """The contract makes no deal that the requester's escrow does not cover: there is no task to ask for."""
    requester = network.as_("requester")
    stake = (await network.hub.account(network.address("requester"))).stake
    await requester.withdraw(stake - 1)
    orders = await network.orders()
    with pytest.raises(Reverted):
        await requester.match_orders(*orders)
    taskid = task_id(keccak(orders[3].order.struct_hash() + bytes(32)), 0)
    await nodes.split(SECRET, orders[3].order.dataset, network.key("data_provider"))
    assignment = Assignment(taskid, network.address("worker"), 1, int(nodes.clock()) + 600)
    signed = network.key("pool_owner").sign_digest(
        digest(pool_domain(CHAIN_ID, network.addresses.hub), assignment)
    )
    with pytest.raises(TaskNotActive):
        await nodes.first.nonces(assignment, signed)


async def test_app_that_the_dataset_order_does_not_allow(nodes: Nodes, network: Network) -> None:
    """The contract makes no deal of a dataset with an app that its owner's order does not name."""
    assets = await network.assets()
    app, dataset, pool, request = await network.orders(assets)
    other, _ = await network.as_("app_provider").create_app("other", "DOCKER", b"/ipfs/x", keccak(b"x"))
    assert dataset is not None
    strict = network.sign("data_provider", dataclasses.replace(dataset.order, apprestrict=other))
    with pytest.raises(Reverted):
        await network.as_("requester").match_orders(app, strict, pool, request)
    loosened = Signed(dataclasses.replace(strict.order, apprestrict=ZERO), strict.sign)
    with pytest.raises(Reverted):
        await network.as_("requester").match_orders(app, loosened, pool, request)


async def test_another_app_in_the_enclave(nodes: Nodes, guest_of: GuestOf) -> None:
    """The app's measurement is in the quote, and the one that counts is the checksum on chain."""
    guest = await guest_of(await protected(nodes))
    with pytest.raises(WrongRegister):
        await guest.refused(evidence=lambda m, n: guest.evidence(m, n, checksum=keccak(b"evil")))


async def test_app_without_a_measurement(nodes: Nodes, network: Network, guest_of: GuestOf) -> None:
    """Without a checksum on chain any app would do, so none gets a secret: only the word that nothing ran."""
    _, dataset, pool = await network.assets()
    app, _ = await network.as_("app_provider").create_app("bare", "DOCKER", b"/ipfs/app", ZERO32)
    guest = await guest_of(await protected(nodes, assets=(app, dataset, pool)))
    assert (await guest.gather()).secrets == {}


async def test_revoked_dataset(nodes: Nodes, network: Network, guest_of: GuestOf) -> None:
    """A closed order makes no deal; after a revocation later deals get no key, earlier ones keep theirs."""
    owner, assets = network.key("data_provider"), await network.assets()
    before = await protected(nodes, assets=assets)
    revocation = Revocation(SecretKind.DATASET_KEY.value, assets[1], "", 1, before.start_time + 1)
    signed = owner.sign_digest(digest(secrets_domain(CHAIN_ID, network.addresses.hub), revocation))
    for client in nodes.clients.values():
        assert await client.revoke(revocation, signed) > before.start_time
    await network.pass_time(5)
    orders = await network.orders(assets, salt=b"\x01" * 32)
    dealid, _ = await network.as_("requester").match_orders(*orders)
    late = await guest_of(await network.hub.deal(dealid))
    with pytest.raises(SecretRevoked):
        await late.gather()
    assert (await (await guest_of(before)).gather()).secrets[KEY] == SECRET

    app, dataset, pool, request = await network.orders(assets, salt=b"\x02" * 32)
    assert dataset is not None
    await network.as_("data_provider").manage_order(dataset, "close")
    with pytest.raises(Reverted):
        await network.as_("requester").match_orders(app, dataset, pool, request)


# --- hosts and guests that cheat ------------------------------------------------------------------


async def test_keys_swapped_by_the_host(nodes: Nodes, guest_of: GuestOf) -> None:
    """The quote's report data covers the guest's keys: nothing is sealed to, or granted to, others."""
    guest = await guest_of(await protected(nodes))
    swaps: list[dict[str, Any]] = [
        {"hpke_key": SealingKey.generate(token_bytes).public},
        {"enclave": Key(b"\x01" * 32).address},
    ]
    for swap in swaps:
        with pytest.raises(WrongReportData):
            await guest.refused(**swap)


async def test_share_sealed_for_another_enclave(nodes: Nodes, guest_of: GuestOf) -> None:
    """A share is sealed to one enclave's key, for one manifest and purpose."""
    guest = await guest_of(await protected(nodes))
    manifest = await guest.manifest()
    answer = await guest.ask(nodes.first, await guest.nonces(), manifest=manifest)
    other = SealingKey.generate(token_bytes)
    info = release_info(manifest.hash(), answer.node, *KEY, 1)
    with pytest.raises(SecretRefused):
        other.open(answer.sealed[0].ciphertext, info)
    with pytest.raises(SecretRefused):
        guest.sealing.open(answer.sealed[0].ciphertext, release_info(manifest.hash(), answer.node, *KEY, 2))
    with pytest.raises(SecretRefused, match="another manifest or enclave"):
        answer.check(manifest, other.public, guest.key.address)


async def test_more_attempts_than_there_may_be(nodes: Nodes, guest_of: GuestOf) -> None:
    """An attempt has one enclave, and a task three attempts, by rows that the database keeps unique."""
    deal = await protected(nodes)
    await (await guest_of(deal)).gather()
    with pytest.raises(AttemptTaken):
        await (await guest_of(deal, initialise=False)).gather()
    for attempt in range(2, MAX_ATTEMPTS + 1):
        await (await guest_of(deal, initialise=False, attempt=attempt)).gather()
    with pytest.raises(TooManyAttempts):
        await (await guest_of(deal, initialise=False, attempt=MAX_ATTEMPTS + 1)).gather()


async def test_nonce_race(nodes: Nodes, guest_of: GuestOf) -> None:
    """Of enclaves that show one nonce at once, the one whose transaction comes first has it."""
    guest = await guest_of(await protected(nodes))
    rivals = [dataclasses.replace(guest, key=Key.generate(token_bytes)) for _ in range(4)]
    nonces = await guest.nonces()
    found = await asyncio.gather(*(r.ask(nodes.first, nonces) for r in rivals), return_exceptions=True)
    assert sorted(isinstance(answer, NonceRefused | AttemptTaken) for answer in found) == [False] + [True] * 3


async def test_challenge_flood(nodes: Nodes, guest_of: GuestOf) -> None:
    """Nonces are not stored before they are spent, and one attempt gets so many and no more."""
    guest = await guest_of(await protected(nodes))
    node = await nodes.start(NODES[0], limits=Limits(asks=5))
    size = (nodes.folder / f"{NODES[0]}.db").stat().st_size
    for _ in range(5):
        await guest.nonces([nodes.first])
    for _ in range(3):
        with pytest.raises(RateLimited, match="come again in"):
            await guest.nonces([nodes.first])
    assert (nodes.folder / f"{NODES[0]}.db").stat().st_size == size
    assert await node.store.audit() == []
    other = await guest_of(guest.deal, initialise=False, worker="second_worker")
    assert await other.nonces([nodes.first])


async def test_junk_in_another_workers_name(nodes: Nodes, guest_of: GuestOf) -> None:
    """Failures count against worker and signer together, and nobody else can sign as the deal's pool."""
    await nodes.start(NODES[0], limits=Limits(failures=3, asks=4))
    deal = await protected(nodes)
    honest = await guest_of(deal)
    forger = await guest_of(deal, initialise=False, pool="second_worker")  # names the honest worker
    for _ in range(4):
        with pytest.raises(AssignmentRefused):
            await forger.nonces([nodes.first])
    with pytest.raises(RateLimited):
        await forger.nonces([nodes.first])
    assert await honest.nonces([nodes.first])


# --- nodes that cheat -----------------------------------------------------------------------------


async def test_lying_node(nodes: Nodes, guest_of: GuestOf) -> None:
    """The owner committed to each share: a false one is set aside, its node named, and others suffice."""
    guest = await guest_of(await protected(nodes))
    liar = nodes.running[nodes.network.address(NODES[0])]
    true = liar.store.find_all

    async def false(names: Any) -> Any:
        found = await true(names)
        return {n: (dataclasses.replace(h, value=bytes(len(h.value))), c) for n, (h, c) in found.items()}

    liar.store.find_all = false  # type: ignore[method-assign]  # what a node that cheats does
    found = await guest.gather()
    assert found.secrets[KEY] == SECRET and "lied" in found.blamed[liar.address]
    with pytest.raises(SecretRefused, match="lied"):
        await guest.gather(NODES[:2])


async def test_one_node_too_few(nodes: Nodes, guest_of: GuestOf) -> None:
    """Shares and grants of fewer nodes than the threshold are worth nothing."""
    guest = await guest_of(await protected(nodes))
    nonces, manifest = await guest.nonces(), await guest.manifest()
    for client in nodes.clients.values():
        answer = await guest.ask(client, nonces, manifest=manifest)
        with pytest.raises(SecretRefused, match="expected 2 grants, got 1"):
            gather(manifest, guest.sealing, guest.key.address, [answer])
        assert SECRET.hex() not in str(answer.to_json())


async def test_node_that_splits_a_secret_of_its_own_making(
    nodes: Nodes, network: Network, guest_of: GuestOf
) -> None:
    """The guest checks the owner's signature over the recombined secret, and names the node that vouched."""
    deal = await protected(nodes)
    liar, app, value = network.key(NODES[0]), deal.app.pointer, b"the node's own"
    pushed = liar.sign_message(owner_challenge(SecretKind.APP_SECRET, app, "1", value))
    document, shares = share_secret(
        with_push(value, pushed),
        kind=SecretKind.APP_SECRET,
        subject=app,
        name="1",
        version=1,
        threshold=2,
        nodes=sorted(nodes.clients, key=str.lower),
        rng=token_bytes,
    )
    signed = digest(secrets_domain(CHAIN_ID, network.addresses.hub), document)
    vouched = liar.sign_message(vouch_challenge(signed))
    stranger = network.key("worker").sign_message(vouch_challenge(signed))
    for node, client in nodes.clients.items():
        with pytest.raises(Unauthorized, match="member of the quorum"):
            await client.post_share(document, stranger, shares[node], door=Door.SPLIT)
        await client.post_share(document, vouched, shares[node], door=Door.SPLIT)
    found = await (await guest_of(deal)).gather()
    assert set(found.secrets) == {KEY} and "and not by its owner" in found.blamed[liar.address]


async def test_copied_database(nodes: Nodes, network: Network) -> None:
    """What a node stores is encrypted under a key that is not in its database."""
    deal = await protected(nodes)
    held = await nodes.running[network.address(NODES[0])].store.find(
        SecretKind.DATASET_KEY, deal.dataset.pointer, ""
    )
    assert held is not None
    for file in nodes.folder.iterdir():
        assert held.value not in file.read_bytes()
    with pytest.raises(IntegrityError, match="storage key is not this database's"):
        await nodes.start(NODES[0], storage_key=token_bytes(32))


async def test_database_set_back(nodes: Nodes, network: Network, guest_of: GuestOf) -> None:
    """A node takes no nonce from before its start unless its last process handed over, so that nonces which a
    restored copy has forgotten are worth nothing; and one node's word is below the threshold."""
    guest = await guest_of(await protected(nodes))
    nonces, role = await guest.nonces(), NODES[0]
    for file in nodes.folder.glob(f"{role}.db*"):
        shutil.copy(file, nodes.folder / f"old-{file.name}")
    await guest.gather()
    await guest.ask(nodes.first, nonces)
    address = network.address(role)
    await nodes.clients.pop(address).close()
    await nodes.running.pop(address).close()
    for file in nodes.folder.glob(f"{role}.db*"):
        file.unlink()
    for file in nodes.folder.glob(f"old-{role}.db*"):
        file.rename(nodes.folder / file.name.removeprefix("old-"))
    await nodes.start(role)
    rival = dataclasses.replace(
        guest, key=Key.generate(token_bytes), sealing=SealingKey.generate(token_bytes)
    )
    with pytest.raises(NonceRefused, match="since it was started"):
        await rival.ask(nodes.first, nonces)
    with pytest.raises(AttemptTaken):  # of the nodes that remember
        await rival.gather()


async def test_clock_set_back(nodes: Nodes, network: Network, guest_of: GuestOf) -> None:
    """A node whose clock is behind its chain's gives nothing: certificates would live longer by it."""
    guest = await guest_of(await protected(nodes))
    nonces = await guest.nonces()
    nodes.clock.offset = -CLOCK_BEHIND - 60
    for refused in (guest.nonces(), guest.ask(nodes.first, nonces)):
        with pytest.raises(ClockBehind, match="its operator must set it"):
            await refused


# --- chains that are not what they were -----------------------------------------------------------


async def test_reorganisation_between_release_and_finality(
    nodes: Nodes, network: Network, guest_of: GuestOf
) -> None:
    """Secrets wait for the configured depth; a task id that became a rival pool's needs that pool's word."""
    assets = await network.assets()
    orders = await network.orders(assets)
    await nodes.split(SECRET, assets[1], network.key("data_provider"))
    before = await network.rpc.call("evm_snapshot")
    dealid, _ = await network.as_("requester").match_orders(*orders)
    deal = await network.hub.deal(dealid)
    await network.as_("pool_owner").initialize(deal.dealid, deal.bot_first)
    guest = await guest_of(deal, initialise=False)
    with pytest.raises(NotFinalYet):  # the deal is there, and not deep enough
        await guest.nonces()
    assert await network.rpc.call("evm_revert", before)

    fresh = Network(network.anvil, network.addresses)
    rival, _ = await fresh.as_("second_worker").create_workerpool("rival")
    rivals = fresh.sign("second_worker", dataclasses.replace(orders[2].order, workerpool=rival))
    again, _ = await fresh.as_("requester").match_orders(orders[0], orders[1], rivals, orders[3])
    assert again == dealid
    await fresh.as_("second_worker").initialize(dealid, 0)
    await fresh.mine(CONFIRMATIONS)
    with pytest.raises(AssignmentRefused):
        await guest.nonces()


async def test_node_on_a_forked_chain(nodes: Nodes, network: Network, guest_of: GuestOf) -> None:
    """A second RPC is asked for the block that the node acts on, and must give the same one."""
    guest = await guest_of(await protected(nodes))
    head = (await network.hub.block()).number
    async with Anvil(chain_id=CHAIN_ID) as fork:
        await nodes.start(NODES[0], witness=fork.rpc)
        with pytest.raises(NotFinalYet, match="witness has not seen"):
            await guest.nonces([nodes.first])
        await fork.rpc.call("anvil_mine", hex(head + 2))
        with pytest.raises(ChainDisputed, match="one of the two is on a fork"):
            await guest.nonces([nodes.first])
    await nodes.start(NODES[0], witness=network.rpc)
    assert await guest.nonces([nodes.first])


class HeldBack(Rpc):
    """An endpoint that answers truly, and as of a block of its choice."""

    newest = "latest"

    async def _ask(self, calls: Sequence[tuple[Any, ...]], patience: float) -> list[Any]:
        old = [tuple(self.newest if part == "latest" else part for part in call) for call in calls]
        return await super()._ask(old, patience)


async def test_node_whose_chain_is_held_back(nodes: Nodes, network: Network, guest_of: GuestOf) -> None:
    """A witness that is minutes ahead shows that the node's own RPC keeps newer blocks from it."""
    async with HeldBack(network.url) as rpc:
        await nodes.start(NODES[0], hub=Hub(rpc, network.addresses), witness=network.rpc)
        guest = await guest_of(await protected(nodes))
        assert await guest.nonces([nodes.first])
        rpc.newest = hex((await network.hub.block()).number)
        await network.pass_time(WITNESS_AHEAD + 60)
        await network.mine(CONFIRMATIONS + 1)
        nodes.clock.offset = WITNESS_AHEAD + 60
        with pytest.raises(ChainDisputed, match="held back"):
            await guest.nonces([nodes.first])


async def test_shares_of_before_a_refresh(nodes: Nodes, network: Network, guest_of: GuestOf) -> None:
    """The newest version that its owner signed counts; a node that was left out closes its old share."""
    deal, owner = await protected(nodes), network.key("data_provider")
    left, *stay = nodes.clients
    others = {node: nodes.clients[node] for node in stay}
    fresh = b"another key"
    await nodes.split(fresh, deal.dataset.pointer, owner, version=2, clients=others)
    guest = await guest_of(deal)
    assert (await guest.gather()).secrets[KEY] == fresh
    roles = [role for role in NODES if network.address(role) != stay[0]]
    with pytest.raises(SecretRefused, match="expected 2 shares"):  # one of each version
        await guest.gather(roles)
    revocation = Revocation(SecretKind.DATASET_KEY.value, deal.dataset.pointer, "", 1, 0)
    signed = owner.sign_digest(digest(secrets_domain(CHAIN_ID, network.addresses.hub), revocation))
    await nodes.clients[left].revoke(revocation, signed)
    assert (await nodes.clients[left].share_info(SecretKind.DATASET_KEY, deal.dataset.pointer)).revokedAt
    assert (await guest.gather()).secrets[KEY] == fresh


async def test_simulated_node_asked_from_elsewhere(nodes: Nodes, network: Network) -> None:
    """A node whose trust class is simulated answers programs of its own machine only."""
    node = nodes.running[network.address(NODES[0])]
    far = httpx2.ASGITransport(app=create_app(node), client=("192.0.2.1", 1))
    async with httpx2.AsyncClient(transport=far, base_url="http://node") as http:
        assert (await http.get("/node")).json()["code"] == "SimulatedOnly"
    async with SmsClient("http://node", in_memory(create_app(node))) as near:
        assert (await near.node()).trust == "simulated"
