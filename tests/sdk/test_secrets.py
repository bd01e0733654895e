"""The owner's side of secrets, against real nodes: choices, refresh, revocation, expiry, audits."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from sealdeal.model.errors import Conflict, InvalidInput, NotFound, Unavailable
from sealdeal.model.keys import Key
from sealdeal.model.sealing import Door, SecretKind
from sealdeal.model.types import Address, hexstr
from sealdeal.sdk import network as documents
from sealdeal.sdk.client import Sealdeal
from sealdeal.sdk.custody import Audit, SecretId
from sealdeal.sdk.http import in_memory
from sealdeal.sdk.secrets import RevocationIncomplete, Secrets, SplitIncomplete
from sealdeal.sdk.sms import AuditLine, SecretRevoked, SmsClient
from sealdeal.sms.app import create_app
from tests.network import CHAIN_ID, NODES, THRESHOLD, Network
from tests.sms.conftest import CONFIRMATIONS, Guest, Nodes, guest_of, nodes

__all__ = ["guest_of", "nodes"]  # fixtures

VALUE = b"the key"
DEAD = "http://127.0.0.1:9"


@dataclass
class Owner:
    """A dataset's owner before three nodes, some of which may be out of reach."""

    nodes: Nodes
    key: Key
    dataset: SecretId
    clients: list[SmsClient]
    all: tuple[Address, ...]

    def secrets(self, *, without: Address | None = None, **changes: Any) -> Secrets:
        network = self.nodes.network
        clients = [
            SmsClient(DEAD, timeout=2) if node == without else client
            for node, client in zip(self.all, self.clients, strict=True)
        ]
        options = {"chain_id": CHAIN_ID, "hub": network.addresses.hub, "quorum": network.quorum}
        return Secrets(clients, **{**options, "clock": self.nodes.clock, **changes})

    async def held(self) -> dict[Address, int]:
        """The version that each node really has."""
        found = {}
        for node, running in self.nodes.running.items():
            if held := await running.store.find(*dataclasses.astuple(self.dataset)):
                assert VALUE not in held.value
                found[node] = held.version
        return found


@pytest.fixture
async def owner(nodes: Nodes, network: Network) -> AsyncIterator[Owner]:
    dataset = (await network.assets())[1]
    every = tuple(network.address(role) for role in NODES)
    clients = [
        SmsClient(f"http://node-{number}", in_memory(create_app(nodes.running[node])))
        for number, node in enumerate(every)
    ]
    yield Owner(nodes, network.key("data_provider"), SecretId.dataset(dataset), clients, every)
    for client in clients:
        await client.close()


async def test_the_owner_chooses_nodes_and_threshold(owner: Owner) -> None:
    secrets, (first, second, third) = owner.secrets(), owner.all
    receipt = await secrets.split(owner.key, owner.dataset, VALUE, nodes=["http://node-0/", third.lower()])
    assert set(receipt.document.nodes) == {first, third}
    assert receipt.document.threshold == THRESHOLD == 2
    assert await owner.held() == {first: 1, third: 1}
    status = await secrets.status(owner.dataset)
    (group,) = status.groups
    assert (group.door, group.version, group.threshold) == (Door.OWN, 1, 2)
    assert set(group.nodes) == set(group.holders) == {first, third} and group.complete
    assert status.available(secrets.now()) and status.silent == {}
    assert [holding.info is None for holding in status.holdings] == [False, True, False]

    mine = SecretId.requester(owner.nodes.network.address("requester"), "token")
    everyone = await secrets.split(owner.nodes.network.key("requester"), mine, b"x", threshold=3)
    assert (everyone.document.threshold, set(everyone.document.nodes)) == (3, set(owner.all))
    assert second in everyone.document.nodes


async def test_a_wallet_shares_several_of_its_own_at_once(owner: Owner, network: Network) -> None:
    inside = {
        f"http://node-{number}": in_memory(create_app(owner.nodes.running[node]))
        for number, node in enumerate(owner.all)
    }
    at = documents.Services(DEAD, DEAD, None, tuple(inside))
    told = documents.Network(network.url, CHAIN_ID, network.addresses, at)
    async with Sealdeal(told, network.key("requester"), transports=inside) as requester:
        me = requester.key.address
        found = await requester.share_secrets({"login": b"me", "password": b"mine"}, threshold=3)
        assert {name: one.document.threshold for name, one in found.items()} == {"login": 3, "password": 3}
        with pytest.raises(Conflict, match=r"'login' of .* is there already"):
            await requester.share_secrets({"login": b"you", "token": b"new"})
        for name in ("login", "password", "token"):
            status = await requester.secrets.status(SecretId.requester(me, name))
            assert [(group.version, group.complete) for group in status.groups] == [(1, True)], name


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"threshold": 0}, "from 1 to 3"),
        ({"threshold": 4}, "from 1 to 3"),
        ({"nodes": ["http://node-1"]}, "say how many shall suffice"),
        ({"nodes": ["http://node-9"]}, "no node of this network"),
        ({"expires": int(time.time()) - 1}, "in the future"),
    ],
    ids=["none", "more than there are", "fewer than the quorum needs", "unknown", "expired"],
)
async def test_a_choice_that_cannot_work_sends_nothing(
    owner: Owner, options: dict[str, Any], why: str
) -> None:
    with pytest.raises((InvalidInput, Unavailable), match=why):
        await owner.secrets().split(owner.key, owner.dataset, VALUE, **options)
    assert await owner.held() == {}


async def test_nodes_that_no_guest_would_ask_hold_no_shares(owner: Owner, network: Network) -> None:
    """Another network's node, one that claims another's address, and one outside the quorum."""
    stranger = await owner.nodes.start("worker")
    outside = SmsClient("http://outside", in_memory(create_app(stranger)))
    twin = SmsClient("http://twin", in_memory(create_app(owner.nodes.running[owner.all[0]])))
    secrets = owner.secrets()
    secrets.clients += (outside, twin)
    with pytest.raises(InvalidInput, match="no guest would ask it"):
        await secrets.split(owner.key, owner.dataset, VALUE, nodes=["http://outside"], threshold=1)
    found, silent = await secrets.nodes()
    assert set(found) == {*owner.all, stranger.address} and "as http://node-0 does" in silent["http://twin"]
    with pytest.raises(Unavailable, match=r"not all nodes answer.*http://twin"):
        await secrets.split(owner.key, owner.dataset, VALUE)
    elsewhere = owner.secrets(chain_id=CHAIN_ID + 1)
    with pytest.raises(Unavailable, match="not this network's"):
        await elsewhere.split(owner.key, owner.dataset, VALUE)
    assert await owner.held() == {}
    secrets.clients = secrets.clients[:-1]
    assert set((await secrets.split(owner.key, owner.dataset, VALUE)).document.nodes) == set(owner.all)
    for client in (outside, twin):
        await client.close()


async def test_a_silent_node_is_named_and_can_be_left_out(owner: Owner) -> None:
    first, second, third = owner.all
    secrets = owner.secrets(without=third)
    with pytest.raises(Unavailable, match=f"not all nodes answer.*{DEAD}.*name those that shall hold"):
        await secrets.split(owner.key, owner.dataset, VALUE)
    assert await owner.held() == {}
    await secrets.split(owner.key, owner.dataset, VALUE, nodes=[first, second])
    status = await secrets.status(owner.dataset)
    assert list(status.silent) == [DEAD] and status.available(secrets.now())


async def test_what_is_there_is_replaced_by_a_refresh_only(owner: Owner) -> None:
    secrets = owner.secrets()
    with pytest.raises(NotFound, match="split it first"):
        await secrets.refresh(owner.key, owner.dataset, VALUE)
    await secrets.split(owner.key, owner.dataset, VALUE)
    with pytest.raises(Conflict, match="version 1: refresh it"):
        await secrets.split(owner.key, owner.dataset, VALUE)
    done = await secrets.refresh(owner.key, owner.dataset, VALUE, threshold=3)
    assert (done.receipt.document.version, done.revoked, done.untold) == (2, {}, {})
    assert set((await owner.held()).values()) == {2}
    assert [group.threshold for group in (await secrets.status(owner.dataset)).groups] == [3]


async def test_what_was_given_whole_is_not_split_over(owner: Owner) -> None:
    first, second, third = owner.all
    await owner.clients[0].push_dataset_key(owner.key, owner.dataset.subject, "whole")
    secrets = owner.secrets()
    (group,) = (await secrets.status(owner.dataset)).groups
    assert (group.door, group.holders, group.threshold) == (Door.SINGLE, (first,), 1)
    with pytest.raises(Conflict, match=f"given whole to {first}"):
        await secrets.refresh(owner.key, owner.dataset, VALUE)
    assert set(await owner.held()) == {first}
    await secrets.refresh(owner.key, owner.dataset, VALUE, nodes=[second, third])
    assert await owner.held() == {first: 1, second: 2, third: 2}
    doors = {group.door for group in (await secrets.status(owner.dataset)).groups}
    assert doors == {Door.OWN, Door.SINGLE}, "that a node has seen it is told for ever"


async def deal_of(owner: Owner, salt: int) -> Any:
    """A deal for the owner's dataset, made now."""
    network = owner.nodes.network
    app, _, pool = await network.assets(f"other {salt}")
    assets = (app, owner.dataset.subject, pool)
    return await network.deal(assets=assets, salt=bytes([salt]) * 32)


async def test_a_refresh_moves_a_secret_to_other_nodes(
    owner: Owner, guest_of: Callable[..., Awaitable[Guest]]
) -> None:
    first, second, third = owner.all
    secrets, network = owner.secrets(), owner.nodes.network
    await secrets.split(owner.key, owner.dataset, VALUE, nodes=[first, second])
    before = await deal_of(owner, 1)
    with pytest.raises(InvalidInput, match="whose grants a task needs, got 1"):
        await secrets.refresh(owner.key, owner.dataset, VALUE, nodes=[third], threshold=1)
    done = await secrets.refresh(owner.key, owner.dataset, VALUE, nodes=[second, third])
    assert set(done.receipt.document.nodes) == {second, third} and done.untold == {}
    assert list(done.revoked) == [first]
    newest, oldest = (await secrets.status(owner.dataset)).groups
    assert (newest.version, newest.open(secrets.now()), oldest.version) == (2, True, 1)
    assert set(oldest.revoked) == {first}

    await network.pass_time(5)
    owner.nodes.clock.offset += 5
    after = await deal_of(owner, 2)
    for deal, roles in ((before, NODES), (after, NODES[1:])):
        guest = await guest_of(deal)
        found = await guest.gather(roles)
        assert found.secrets[SecretKind.DATASET_KEY, ""] == VALUE
        assert found.doors[SecretKind.DATASET_KEY, ""] is Door.OWN
    with pytest.raises(SecretRevoked):
        await guest.gather(NODES[:2])


async def test_a_node_that_is_gone_is_told_of_when_its_shares_move(owner: Owner) -> None:
    first, second, third = owner.all
    await owner.secrets().split(owner.key, owner.dataset, VALUE)
    done = await owner.secrets(without=first).refresh(owner.key, owner.dataset, VALUE, nodes=[second, third])
    assert done.revoked == {} and list(done.untold) == [DEAD]
    assert await owner.held() == {first: 1, second: 2, third: 2}


async def test_revoked_for_later_deals_alone(owner: Owner, guest_of: Callable[..., Awaitable[Guest]]) -> None:
    first, network = owner.all[0], owner.nodes.network
    secrets = owner.secrets()
    with pytest.raises(NotFound):
        await secrets.revoke(owner.key, owner.dataset)
    await secrets.split(owner.key, owner.dataset, VALUE)
    before = await deal_of(owner, 1)
    with pytest.raises(RevocationIncomplete, match=f"2 nodes were told.*{DEAD}") as raised:
        await owner.secrets(without=first).revoke(owner.key, owner.dataset)
    assert set(raised.value.told) == set(owner.all[1:])
    assert set(await secrets.revoke(owner.key, owner.dataset)) == set(owner.all)
    await network.pass_time(5)
    owner.nodes.clock.offset += 5
    (group,) = (await secrets.status(owner.dataset)).groups
    assert set(group.revoked) == set(owner.all) and not group.open(secrets.now()) and group.enough

    found = await (await guest_of(before)).gather()
    assert found.secrets[SecretKind.DATASET_KEY, ""] == VALUE
    late = await guest_of(await deal_of(owner, 2))
    with pytest.raises(SecretRevoked, match="version 1, is revoked"):
        await late.gather()

    await secrets.refresh(owner.key, owner.dataset, VALUE)
    status = await secrets.status(owner.dataset)
    assert (status.version, status.available(secrets.now())) == (2, True)
    with pytest.raises(SplitIncomplete, match=r"0 did.*signature of"):
        await secrets.refresh(network.key("worker"), owner.dataset, VALUE)


async def test_an_end_is_set_and_shown(owner: Owner) -> None:
    secrets = owner.secrets()
    end = secrets.now() + 3600
    await secrets.split(owner.key, owner.dataset, VALUE, expires=end)
    (group,) = (await secrets.status(owner.dataset)).groups
    assert group.expires == end and group.open(end - 1) and not group.open(end)


async def test_named_values_go_whole_to_every_node(owner: Owner) -> None:
    network, first = owner.nodes.network, owner.all[0]
    requester = network.key("requester")
    named = SecretId.named(requester.address, "iexec-result-encryption-public-key")
    with pytest.raises(InvalidInput, match="push them"):
        await owner.secrets().split(requester, named, b"x")
    with pytest.raises(Unavailable, match=f"repeat it: {DEAD}"):
        await owner.secrets(without=first).push_named(requester, named.name, "one")
    for value in ("one", "two"):
        assert set(await owner.secrets().push_named(requester, named.name, value)) == set(owner.all)
    for running in owner.nodes.running.values():
        held = await running.store.find(*dataclasses.astuple(named))
        assert held is not None and held.value == b"two"


# --- audits ---------------------------------------------------------------------------------------


async def test_an_audit_tells_each_use_by_each_nodes_word(
    owner: Owner, guest_of: Callable[..., Awaitable[Guest]]
) -> None:
    secrets, network = owner.secrets(), owner.nodes.network
    await secrets.split(owner.key, owner.dataset, VALUE)
    guest = await guest_of(await deal_of(owner, 1))
    await guest.gather()
    await network.mine(CONFIRMATIONS)
    audit = await secrets.audit(owner.key, owner.dataset)
    assert audit.answered == owner.all and audit.silent == {} and audit.disagreements == ()
    (use,) = audit.uses
    assert set(use.nodes) == set(owner.all)
    line = use.line
    assert (line.task, line.deal, line.attempt) == (
        hexstr(guest.assignment.task),
        hexstr(guest.deal.dealid),
        1,
    )
    assert (line.worker, line.enclave, line.app) == (
        guest.assignment.worker,
        guest.key.address,
        guest.deal.app.pointer,
    )
    assert (line.version, line.door) == (1, "own") and line.measurement

    away = await owner.secrets(without=owner.all[2]).audit(owner.key, owner.dataset)
    assert list(away.silent) == [DEAD] and away.answered == owner.all[:2]
    stranger = await secrets.audit(network.key("worker"), owner.dataset)
    assert stranger.uses == () and len(stranger.silent) == len(owner.all)
    assert all("signature of" in why for why in stranger.silent.values())


def line(**changes: Any) -> AuditLine:
    worker = "0x" + "11" * 20
    return AuditLine(
        **{
            "id": 1,
            "time": 5,
            "task": "0x01",
            "deal": "0x02",
            "app": worker,
            "appChecksum": "0x03",
            "worker": worker,
            "attempt": 1,
            "enclave": worker,
            "platform": "0x04",
            "measurement": {"mrtd": "0x05"},
            "version": 1,
            "door": "own",
            **changes,
        }
    )


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("worker", "0x" + "22" * 20),
        ("appChecksum", "0x99"),
        ("measurement", {"mrtd": "0x06"}),
        ("deal", "0x98"),
    ],
)
def test_nodes_that_contradict_each_other_are_named(owner_id: SecretId, what: str, said: Any) -> None:
    one, two, three = (Address("0x" + digit * 40) for digit in "abc")
    told = {one: [line(), line(id=2, time=6)], two: [line(time=4, version=2)], three: [line(**{what: said})]}
    audit = Audit.of(owner_id, told, {})
    assert len(audit.uses) == 1 and audit.uses[0].line.time == 4
    (found,) = audit.disagreements
    assert f"the {what} is" in found and three in found and f"{one}, {two}" in found
    assert Audit.of(owner_id, {one: told[one], two: told[two]}, {}).disagreements == ()
    later = Audit.of(owner_id, {one: [line()], two: [line(attempt=2, worker="0x" + "22" * 20)]}, {})
    assert len(later.uses) == 2 and later.disagreements == ()


@pytest.fixture
def owner_id() -> SecretId:
    return SecretId.dataset(Address("0x" + "dd" * 20))
