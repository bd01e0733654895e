"""Nodes that deceive owners, and neighbours who would use an owner's gateway or copies."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from secrets import token_bytes
from typing import Any

import httpx2
import pytest

from sealdeal.model.errors import IntegrityError, Unavailable
from sealdeal.model.keys import Key
from sealdeal.model.sealing import owner_challenge
from sealdeal.model.types import Address, hexstr
from sealdeal.sdk.custody import SecretId
from sealdeal.sdk.http import in_memory
from sealdeal.sdk.secrets import Secrets
from sealdeal.sdk.sms import SmsClient
from sealdeal.sdk.vault import Vault
from sealdeal.sms.app import create_app
from sealdeal.sms.gateway import Gateway
from sealdeal.sms.gateway import create_app as gateway_app
from tests.network import CHAIN_ID, NODES, Network
from tests.sms.conftest import Guest, Nodes


def secrets_of(nodes: Nodes, *clients: SmsClient) -> Secrets:
    network = nodes.network
    here = clients or tuple(nodes.clients[network.address(role)] for role in NODES)
    options: dict[str, Any] = {"chain_id": CHAIN_ID, "hub": network.addresses.hub, "quorum": network.quorum}
    return Secrets(here, **options, clock=nodes.clock)


async def used(nodes: Nodes, guest_of: Callable[..., Awaitable[Guest]]) -> tuple[Key, SecretId]:
    """The owner and the id of a dataset's key that one guest got from every node."""
    network = nodes.network
    deal, owner = await network.deal(), network.key("data_provider")
    which = SecretId.dataset(deal.dataset.pointer)
    await secrets_of(nodes).split(owner, which, b"the key")
    await (await guest_of(deal)).gather()
    return owner, which


class Censor(SmsClient):
    """A node whose answers lose their audit's lines on the way."""

    async def json(self, method: str, path: str, **options: Any) -> Any:
        answer = await super().json(method, path, **options)
        return {**answer, "lines": []} if path == "/audit" else answer


async def test_audit_altered_on_the_way(nodes: Nodes, guest_of: Callable[..., Awaitable[Guest]]) -> None:
    """A node signs its whole answer with the key that signs its grants: a cut one is named and left out."""
    owner, which = await used(nodes, guest_of)
    first, *others = (nodes.clients[nodes.network.address(role)] for role in NODES)
    cut = Censor("http://cut", in_memory(create_app(nodes.running[nodes.network.address(NODES[0])])))
    audit = await secrets_of(nodes, cut, *others).audit(owner, which)
    assert "not signed by its key" in audit.silent["http://cut"] and len(audit.uses) == 1
    assert (await secrets_of(nodes, first, *others).audit(owner, which)).silent == {}
    await cut.close()


async def test_node_that_hides_a_use(nodes: Nodes, guest_of: Callable[..., Awaitable[Guest]]) -> None:
    """Threshold nodes took part in each use: what one leaves out of its audit, the others still tell."""
    owner, which = await used(nodes, guest_of)
    hider = nodes.network.address(NODES[1])

    async def nothing(*_: Any, **__: Any) -> list[Any]:
        return []

    nodes.running[hider].store.trail = nothing  # type: ignore[method-assign]  # and its answer is well signed
    audit = await secrets_of(nodes).audit(owner, which)
    (use,) = audit.uses
    assert set(audit.answered) - set(use.nodes) == {hider}


async def test_node_under_two_addresses_of_the_network(nodes: Nodes, network: Network) -> None:
    """Two services that say to be the same node count as one, and nothing is sent while one is in doubt."""
    owner, which = network.key("data_provider"), SecretId.dataset((await network.assets())[1])
    first, second, _ = (nodes.clients[network.address(role)] for role in NODES)
    twin = SmsClient("http://twin", in_memory(create_app(nodes.running[network.address(NODES[0])])))
    with pytest.raises(Unavailable, match=r"http://twin: it says to be"):
        await secrets_of(nodes, first, second, twin).split(owner, which, b"the key")
    assert (await secrets_of(nodes).status(which)).groups == ()
    await twin.close()


async def pushed(nodes: Nodes, value: bytes, signature: bytes, client: str, headers: dict[str, str]) -> int:
    """The status of a push to the gateway of the requester's wallet."""
    network = nodes.network
    requester = network.key("requester")
    app = gateway_app(Gateway(secrets_of(nodes), network.hub, [requester]))
    transport = httpx2.ASGITransport(app=app, client=(client, 1))
    async with httpx2.AsyncClient(transport=transport, base_url="http://gateway") as http:
        sent = {"Authorization": hexstr(signature), **headers}
        url = f"/requesters/{requester.address}/secrets/token"
        return (await http.post(url, content=value, headers=sent)).status_code


def signed(key: Key, subject: Address, value: bytes) -> bytes:
    return key.sign_message(owner_challenge("requester-secret", subject, "token", value))


async def test_page_that_uses_the_owners_gateway(nodes: Nodes, network: Network) -> None:
    """The gateway splits only what its owner's wallet signed: this very value, under this very name."""
    requester, page = network.key("requester"), {"Origin": "https://evil.example"}
    stolen = signed(requester, requester.address, b"what the owner pushed")
    for signature in (b"", bytes(65), stolen, signed(network.key("worker"), requester.address, b"planted")):
        assert await pushed(nodes, b"planted", signature, "127.0.0.1", page) == 401
    which = SecretId.requester(requester.address, "token")
    assert (await secrets_of(nodes).status(which)).groups == ()
    assert await pushed(nodes, b"what the owner pushed", stolen, "127.0.0.1", page) == 204
    assert await pushed(nodes, b"what the owner pushed", stolen, "127.0.0.1", page) == 409, "once"


async def test_gateway_asked_from_elsewhere(nodes: Nodes, network: Network) -> None:
    """It listens on loopback, and refuses other machines, also those that a proxy passes on."""
    requester = network.key("requester")
    good = signed(requester, requester.address, b"x")
    assert await pushed(nodes, b"x", good, "192.0.2.7", {}) == 403
    assert await pushed(nodes, b"x", good, "127.0.0.1", {"X-Forwarded-For": "192.0.2.7"}) == 403
    assert await pushed(nodes, b"x", good, "127.0.0.1", {}) == 204


def test_stolen_copy_of_a_secret(tmp_path: Path) -> None:
    """An owner's copies are encrypted under a key that follows from the wallet's, each for its own secret."""
    owner, thief = Key.generate(token_bytes), Key.generate(token_bytes)
    which = SecretId.requester(owner.address, "token")
    path = Vault(tmp_path, owner).keep(which, b"the secret value")
    assert b"the secret value" not in path.read_bytes() and owner.secret not in path.read_bytes()
    with pytest.raises(IntegrityError):
        Vault(tmp_path, thief).get(which)
    assert Vault(tmp_path, owner).get(which) == b"the secret value"
