"""The gateway on an owner's machine: the wire's routes outside, shares at the nodes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import astuple, dataclass
from typing import Any

import httpx2
import pytest

from sealdeal.model.errors import Conflict, Unavailable
from sealdeal.model.keys import Key
from sealdeal.model.sealing import MAX_SECRET_BYTES, Door, SecretKind, owner_challenge
from sealdeal.model.types import hexstr
from sealdeal.sdk.custody import SecretId
from sealdeal.sdk.http import in_memory
from sealdeal.sdk.secrets import Secrets, SplitIncomplete
from sealdeal.sdk.sms import RESULT_KEY_NAME, SmsClient
from sealdeal.sms.gateway import Gateway, WalletMissing, create_app
from tests.network import CHAIN_ID, NODES, Network

from .conftest import Guest, Nodes

VALUE = "a secret value"
DEAD = "http://127.0.0.1:9"
SPLIT = [SecretKind.DATASET_KEY, SecretKind.APP_SECRET, SecretKind.REQUESTER_SECRET]


@dataclass
class World:
    """A gateway with every owner's wallet, its nodes, and a secret of each kind with its owner."""

    nodes: Nodes
    gateway: Gateway
    client: SmsClient
    owners: dict[SecretKind, tuple[SecretId, Key]]

    async def push(self, kind: SecretKind, value: str = VALUE, *, update: bool = False) -> None:
        """As an unmodified client does: the value and the owner's signature of it, by the wire's route."""
        which, key = self.owners[kind]
        await self.client.push(kind, key, which.subject, which.name, value, update=update)

    async def has(self, kind: SecretKind) -> bool:
        which, _ = self.owners[kind]
        return await self.client.has_secret(kind, which.subject, which.name)

    async def raw(
        self, kind: SecretKind, value: bytes, *, signer: Key | None = None, method: str = "POST"
    ) -> int:
        """The status of a push that may be false."""
        which, key = self.owners[kind]
        signed = (signer or key).sign_message(owner_challenge(kind, which.subject, which.name, value))
        routes: dict[SecretKind, tuple[str, dict[str, str]]] = {
            SecretKind.DATASET_KEY: ("/secrets/web3", {"secretAddress": which.subject}),
            SecretKind.NAMED: ("/secrets/web2", {"ownerAddress": which.subject, "secretName": which.name}),
            SecretKind.APP_SECRET: (f"/apps/{which.subject}/secrets", {}),
            SecretKind.REQUESTER_SECRET: (f"/requesters/{which.subject}/secrets/{which.name}", {}),
        }
        path, query = routes[kind]
        headers = {"Authorization": hexstr(signed)}
        answer = await self.client._http.request(method, path, params=query, headers=headers, content=value)
        return answer.status_code

    def silence(self, count: int) -> None:
        """Let the last nodes of the gateway's network not answer."""
        clients = self.gateway.secrets.clients
        dead = (SmsClient(DEAD, timeout=2) for _ in range(count))
        self.gateway.secrets.clients = (*clients[: len(clients) - count], *dead)


@pytest.fixture
async def world(nodes: Nodes, network: Network) -> AsyncIterator[World]:
    app, dataset, _ = await network.assets()
    requester = network.key("requester")
    owners = {
        SecretKind.DATASET_KEY: (SecretId.dataset(dataset), network.key("data_provider")),
        SecretKind.APP_SECRET: (SecretId.app(app), network.key("app_provider")),
        SecretKind.REQUESTER_SECRET: (SecretId.requester(requester.address, "my-Key_1"), requester),
        SecretKind.NAMED: (SecretId.named(requester.address, RESULT_KEY_NAME), requester),
    }
    secrets = Secrets(
        [nodes.clients[network.address(role)] for role in NODES],
        chain_id=CHAIN_ID,
        hub=network.addresses.hub,
        quorum=network.quorum,
        clock=nodes.clock,
    )
    gateway = Gateway(secrets, network.hub, [key for _, key in owners.values()])
    async with SmsClient("http://gateway", in_memory(create_app(gateway))) as client:
        yield World(nodes, gateway, client, owners)


async def test_what_is_pushed_whole_reaches_the_nodes_in_shares(world: World) -> None:
    for kind in SPLIT:
        assert not await world.has(kind)
        await world.push(kind)
        assert await world.has(kind)
        with pytest.raises(Conflict, match="never replaced through a gateway"):
            await world.push(kind, "another")
        for node, running in world.nodes.running.items():
            held = await running.store.find(*astuple(world.owners[kind][0]))
            assert held is not None and held.door == Door.OWN and held.document is not None
            assert VALUE.encode() not in held.value, f"{node} can read it"
            assert (held.document.threshold, len(held.document.nodes)) == (2, 3)


async def test_named_values_are_passed_on_whole_and_replaced(world: World) -> None:
    kind = SecretKind.NAMED
    assert not await world.has(kind)
    assert await world.raw(kind, b"x", method="PUT") == 404
    await world.push(kind)
    assert await world.has(kind)
    assert await world.raw(kind, b"x") == 409
    await world.push(kind, "replaced", update=True)
    for running in world.nodes.running.values():
        held = await running.store.find(*astuple(world.owners[kind][0]))
        assert held is not None and held.value == b"replaced"
    assert await world.raw(kind, b"\xff") == 409
    assert await world.raw(kind, b"\xff", method="PUT") == 400


@pytest.mark.parametrize("kind", list(SecretKind))
async def test_signature_then_size_then_existence(world: World, network: Network, kind: SecretKind) -> None:
    big, stranger = b"x" * (MAX_SECRET_BYTES + 1), network.key("worker")
    too_big = 400 if kind is SecretKind.REQUESTER_SECRET else 413
    assert await world.raw(kind, b"x", signer=stranger) == 401
    assert await world.raw(kind, big, signer=stranger) == 401
    assert await world.raw(kind, big) == too_big
    assert await world.raw(kind, b"") == 400
    assert not await world.has(kind)
    await world.push(kind)
    assert await world.raw(kind, big) == too_big
    if kind is not SecretKind.NAMED:
        assert await world.raw(kind, b"x", method="PUT") == 405
    assert await world.raw(kind, b"x", method="GET") == 405


async def test_another_owners_secret_is_refused_in_clear_words(
    world: World, network: Network, caplog: pytest.LogCaptureFixture
) -> None:
    which, key = world.owners[SecretKind.DATASET_KEY]
    del world.gateway.keys[key.address]
    with pytest.raises(WalletMissing, match=f"this one is of {key.address}.*sealdeal secret gateway"):
        await world.push(SecretKind.DATASET_KEY)
    assert await world.raw(SecretKind.DATASET_KEY, b"x") == 403
    assert caplog.messages[-1].startswith("refused: this gateway") and VALUE not in caplog.text
    assert await world.raw(SecretKind.DATASET_KEY, b"x", signer=network.key("worker")) == 401
    assert (await world.gateway.secrets.status(which)).groups == ()


async def test_a_push_that_failed_half_way_is_made_again(world: World) -> None:
    whole = world.gateway.secrets.clients
    which, key = world.owners[SecretKind.DATASET_KEY]

    class Deaf(SmsClient):
        """Answers, but stores nothing."""

        async def post_share(self, *_: Any, **__: Any) -> None:
            raise Unavailable("its disk is full")

    deaf = Deaf("http://node", in_memory(_app(whole[2])))
    world.gateway.secrets.clients = (*whole[:2], deaf)
    with pytest.raises(SplitIncomplete, match=r"2 did.*its disk is full"):
        await world.push(SecretKind.DATASET_KEY)
    world.gateway.secrets.clients = whole
    await world.push(SecretKind.DATASET_KEY)
    (group,) = (await world.gateway.secrets.status(which)).groups
    assert group.complete and group.version == 1, "the same shares went on"
    with pytest.raises(Conflict):
        await world.push(SecretKind.DATASET_KEY)

    await world.gateway.secrets.revoke(key, which)
    world.nodes.clock.offset += 5
    assert not await world.has(SecretKind.DATASET_KEY), "what is closed to new deals is not there"
    await world.push(SecretKind.DATASET_KEY, "another")
    assert (await world.gateway.secrets.status(which)).version == 2
    await deaf.close()


def _app(client: SmsClient) -> Any:
    """The service behind a client in memory."""
    transport = client._http._transport
    assert isinstance(transport, httpx2.ASGITransport)
    return transport.app


async def test_silent_nodes_are_not_taken_for_an_absence(world: World) -> None:
    kind = SecretKind.DATASET_KEY
    whole = world.gateway.secrets.clients
    await world.push(kind)
    world.silence(1)
    assert await world.has(kind)
    assert not await world.has(SecretKind.APP_SECRET), "one silent node can't hold enough"
    assert await world.raw(SecretKind.APP_SECRET, b"x") == 503
    world.gateway.secrets.clients = whole
    world.silence(2)
    with pytest.raises(Unavailable, match="answered 503"):
        await world.has(kind)
    assert await world.raw(kind, b"x") == 503


async def test_a_guest_gets_what_came_through_the_gateway(
    world: World, guest_of: Callable[..., Awaitable[Guest]]
) -> None:
    network = world.nodes.network
    dataset, app = (world.owners[k][0].subject for k in (SecretKind.DATASET_KEY, SecretKind.APP_SECRET))
    for kind in SPLIT[:2]:
        await world.push(kind)
    pool, _ = await network.as_("pool_owner").create_workerpool("[simulated] gateway")
    found = await (await guest_of(await network.deal(assets=(app, dataset, pool)))).gather()
    assert set(found.secrets.values()) == {VALUE.encode()} and len(found.secrets) == 2
    assert set(found.doors.values()) == {Door.OWN}


async def test_web_pages_may_use_it_and_other_machines_may_not(world: World) -> None:
    asked = {
        "Origin": "https://app.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
        "Access-Control-Request-Private-Network": "true",
    }
    answer = await world.client._http.options("/secrets/web3", headers=asked)
    assert answer.status_code == 200 and answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["access-control-allow-private-network"] == "true"
    for client, status in ((("127.0.0.1", 1), 200), (("192.0.2.1", 1), 403)):
        transport = httpx2.ASGITransport(app=create_app(world.gateway), client=client)
        async with httpx2.AsyncClient(transport=transport, base_url="http://gateway") as http:
            assert (await http.get("/version")).status_code == status
            assert (await http.get("/actuator/health")).status_code == status
