"""A node's routes: the table of wire.md §2, shares, and who may come in."""

from __future__ import annotations

import re
from secrets import token_bytes
from typing import Any

import httpx2
import pytest

from sealdeal.model.eip712 import digest
from sealdeal.model.errors import (
    BadSignature,
    Conflict,
    InvalidInput,
    NotFound,
    SecretRefused,
    TooLarge,
    Unauthorized,
)
from sealdeal.model.keys import Key
from sealdeal.model.sealing import MAX_SECRET_BYTES, SecretKind, owner_challenge, secrets_domain, share_secret
from sealdeal.model.types import Address, address_bytes, hexstr, keccak
from sealdeal.sdk.secrets import SplitIncomplete
from sealdeal.sdk.sms import SmsClient
from sealdeal.sms.app import create_app
from sealdeal.sms.wire import BODY_LIMIT, SECRET_BODY_LIMIT
from tests.network import CHAIN_ID, NODES, Network

from .conftest import CONFIRMATIONS, Nodes

VALUE = "a secret value"
DOMAIN = keccak(b"IEXEC_SMS_DOMAIN")


class Door:
    """One row of the wire's table, spoken without our client."""

    def __init__(
        self, kind: SecretKind, path: str, query: dict[str, str], owner: Key, challenge: bytes
    ) -> None:
        self.kind, self.path, self.query, self.owner, self.challenge = kind, path, query, owner, challenge

    def sign(self, value: bytes, key: Key | None = None) -> str:
        return hexstr((key or self.owner).sign_message(keccak(self.challenge + keccak(value))))


@pytest.fixture
async def doors(network: Network) -> dict[SecretKind, Door]:
    app, dataset, _ = await network.assets()
    requester = network.key("requester")
    subject = address_bytes(requester.address)
    return {
        SecretKind.DATASET_KEY: Door(
            SecretKind.DATASET_KEY,
            "/secrets/web3",
            {"secretAddress": dataset},
            network.key("data_provider"),
            DOMAIN + address_bytes(dataset),
        ),
        SecretKind.NAMED: Door(
            SecretKind.NAMED,
            "/secrets/web2",
            {"ownerAddress": requester.address, "secretName": "my name"},
            requester,
            DOMAIN + subject + keccak(b"my name"),
        ),
        SecretKind.APP_SECRET: Door(
            SecretKind.APP_SECRET,
            f"/apps/{app}/secrets",
            {},
            network.key("app_provider"),
            DOMAIN + address_bytes(app) + keccak(b"1"),
        ),
        SecretKind.REQUESTER_SECRET: Door(
            SecretKind.REQUESTER_SECRET,
            f"/requesters/{requester.address}/secrets/my-Key_1",
            {},
            requester,
            DOMAIN + subject + keccak(b"my-Key_1"),
        ),
    }


@pytest.fixture
def http(nodes: Nodes) -> httpx2.AsyncClient:
    return nodes.first._http


async def send(
    http: httpx2.AsyncClient,
    method: str,
    door: Door,
    value: bytes = VALUE.encode(),
    signature: str | None = None,
) -> httpx2.Response:
    headers = (
        {}
        if method == "HEAD"
        else {"Authorization": signature if signature is not None else door.sign(value)}
    )
    content = None if method == "HEAD" else value
    return await http.request(method, door.path, params=door.query, headers=headers, content=content)


ALL = list(SecretKind)


@pytest.mark.parametrize("kind", ALL)
async def test_add_and_exists(
    http: httpx2.AsyncClient, doors: dict[SecretKind, Door], kind: SecretKind
) -> None:
    door = doors[kind]
    assert (await send(http, "HEAD", door)).status_code == 404
    assert (await send(http, "POST", door)).status_code == 204
    assert (await send(http, "HEAD", door)).status_code == 204
    again = await send(http, "POST", door)
    assert again.status_code == 409 and again.json()["code"] == "Conflict"


@pytest.mark.parametrize("kind", ALL)
async def test_only_the_owner_adds(
    http: httpx2.AsyncClient, network: Network, doors: dict[SecretKind, Door], kind: SecretKind
) -> None:
    door = doors[kind]
    stranger = door.sign(VALUE.encode(), network.key("worker"))
    other_value = door.sign(b"another")
    for signature in (
        stranger,
        other_value,
        "",
        "0x",
        "junk",
        "0x" + "00" * 65,
        door.sign(VALUE.encode())[:-4],
    ):
        assert (await send(http, "POST", door, signature=signature)).status_code == 401, signature
    assert (await send(http, "HEAD", door)).status_code == 404


@pytest.mark.parametrize("kind", ALL)
async def test_signature_then_size_then_existence(
    http: httpx2.AsyncClient, doors: dict[SecretKind, Door], kind: SecretKind
) -> None:
    door, big = doors[kind], b"x" * (MAX_SECRET_BYTES + 1)
    too_big = 400 if kind is SecretKind.REQUESTER_SECRET else 413
    assert (await send(http, "POST", door, big, signature="0x00")).status_code == 401
    assert (await send(http, "POST", door, big)).status_code == too_big
    assert (await send(http, "POST", door, b"x" * MAX_SECRET_BYTES)).status_code == 204
    assert (await send(http, "POST", door, big)).status_code == too_big
    assert (await send(http, "POST", door, b"")).status_code == 400
    huge = await send(http, "POST", door, b"x" * (SECRET_BODY_LIMIT + 1), signature="0x00")
    assert huge.status_code == too_big


async def test_named_secrets_alone_are_replaced(
    http: httpx2.AsyncClient, doors: dict[SecretKind, Door]
) -> None:
    door = doors[SecretKind.NAMED]
    assert (await send(http, "PUT", door)).status_code == 404
    assert (await send(http, "POST", door)).status_code == 204
    assert (await send(http, "PUT", door, b"new")).status_code == 204
    assert (await send(http, "PUT", door, b"new", signature=door.sign(b"old"))).status_code == 401
    assert (await send(http, "PUT", door, b"x" * 4097)).status_code == 413
    for kind in set(ALL) - {SecretKind.NAMED}:
        assert (await send(http, "PUT", doors[kind])).status_code == 405


@pytest.mark.parametrize("kind", ALL)
async def test_there_is_no_way_to_read(
    http: httpx2.AsyncClient, doors: dict[SecretKind, Door], kind: SecretKind
) -> None:
    door = doors[kind]
    await send(http, "POST", door)
    answer = await http.get(
        door.path, params=door.query, headers={"Authorization": door.sign(VALUE.encode())}
    )
    assert answer.status_code == 405 and VALUE not in answer.text


async def test_unknown_resources_and_malformed_addresses(
    http: httpx2.AsyncClient, network: Network, doors: dict[SecretKind, Door]
) -> None:
    nowhere = network.address("worker")
    door = doors[SecretKind.DATASET_KEY]
    signed = hexstr(
        network.key("worker").sign_message(keccak(DOMAIN + address_bytes(nowhere) + keccak(b"v")))
    )
    query = {"secretAddress": nowhere}
    answer = await http.post(door.path, params=query, headers={"Authorization": signed}, content=b"v")
    assert answer.status_code == 401 and "has no owner" in answer.json()["error"]
    assert (await http.head(door.path, params={"secretAddress": "0x12"})).status_code == 400
    assert (await http.head(door.path)).status_code == 400
    assert (await http.head(f"/apps/{'z' * 40}/secrets")).status_code == 400


@pytest.mark.parametrize("key", ["a b", "a" * 65, "é", "a.b", "%00"])
async def test_requester_names_are_bounded(http: httpx2.AsyncClient, network: Network, key: str) -> None:
    requester = network.key("requester")
    challenge = keccak(DOMAIN + address_bytes(requester.address) + keccak(key.encode()) + keccak(b"v"))
    headers = {"Authorization": hexstr(requester.sign_message(challenge))}
    answer = await http.post(f"/requesters/{requester.address}/secrets/{key}", headers=headers, content=b"v")
    assert answer.status_code == 400


async def test_names_of_named_secrets_are_bounded(nodes: Nodes, network: Network) -> None:
    owner = network.key("requester")
    await nodes.first.push_named_secret(owner, "é" * 128, "v")
    for name in ("", "x" * 257):
        with pytest.raises(InvalidInput, match="1 to 256 bytes"):
            await nodes.first.push_named_secret(owner, name, "v")


async def test_browsers_of_any_origin_may_call(http: httpx2.AsyncClient) -> None:
    headers = {
        "Origin": "https://app.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    answer = await http.options("/secrets/web3", headers=headers)
    assert answer.status_code == 200 and answer.headers["access-control-allow-origin"] == "*"
    assert (await http.get("/version", headers={"Origin": "https://app.example"})).headers[
        "access-control-allow-origin"
    ] == "*"


async def test_the_node_says_who_it_is(nodes: Nodes, network: Network) -> None:
    info = await nodes.first.node()
    assert (info.address, info.hub, info.quorum) == (
        network.address(NODES[0]),
        network.addresses.hub,
        network.addresses.quorum,
    )
    assert (info.chainId, info.trust, info.confirmations) == (CHAIN_ID, "simulated", CONFIRMATIONS)
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", await nodes.first.version())


async def test_bodies_are_bounded_before_they_are_read(http: httpx2.AsyncClient) -> None:
    for path in ("/shares", "/tee/nonces", "/tee/releases", "/secrets/web3"):
        answer = await http.post(path, content=b"x" * (BODY_LIMIT + 1))
        assert answer.status_code == 413 and answer.json()["code"] == "TooLarge"


@pytest.mark.parametrize("path", ["/shares", "/tee/nonces", "/tee/releases"])
@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"{}", b'{"assignment":1}', b"\xff", b'{"document":{},"x":1}']
)
async def test_malformed_bodies_are_named(http: httpx2.AsyncClient, path: str, body: bytes) -> None:
    answer = await http.post(path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400 and set(answer.json()) == {"error", "code"}


async def test_deeply_nested_json_is_refused(http: httpx2.AsyncClient) -> None:
    body = b'{"assignment":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    answer = await http.post("/tee/nonces", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400


# --- who may come in ------------------------------------------------------------------------------


async def test_a_simulated_node_answers_this_machine_only(nodes: Nodes) -> None:
    node = nodes.running[nodes.network.address(NODES[0])]

    async def get(client: Any, headers: dict[str, str] | None = None, **options: Any) -> int:
        transport = httpx2.ASGITransport(app=create_app(node, **options), client=client)
        async with httpx2.AsyncClient(transport=transport, base_url="http://node") as http:
            return (await http.get("/node", headers=headers)).status_code

    for near in (("127.0.0.1", 1), ("::1", 1), ("127.8.9.1", 1), ("::ffff:127.0.0.1", 1)):
        assert await get(near) == 200
    for far in (
        ("10.0.0.7", 1),
        ("192.0.2.1", 1),
        ("2001:db8::1", 1),
        ("::ffff:192.0.2.1", 1),
        ("testclient", 1),
    ):
        assert await get(far) == 403
        assert await get(far, unsafe_simulated_public=True) == 200
    assert await get(("127.0.0.1", 1), {"X-Forwarded-For": "192.0.2.1, 127.0.0.1"}) == 403
    assert await get(("127.0.0.1", 1), {"X-Real-IP": "192.0.2.1"}) == 403
    assert await get(("127.0.0.1", 1), {"X-Forwarded-For": "127.0.0.1"}) == 200


# --- shares ---------------------------------------------------------------------------------------


@pytest.fixture
async def dataset(network: Network) -> Address:
    return (await network.assets())[1]


async def test_a_split_secret_is_seen_as_existing(nodes: Nodes, network: Network, dataset: Address) -> None:
    owner = network.key("data_provider")
    receipt = await nodes.split(b"key", dataset, owner)
    assert receipt.document.nodes == tuple(sorted(nodes.clients, key=str.lower))
    for client in nodes.clients.values():
        assert await client.has_secret(SecretKind.DATASET_KEY, dataset)
        with pytest.raises(Conflict, match="never replaced"):
            await client.push_dataset_key(owner, dataset, "whole")


async def test_what_was_given_whole_is_never_called_split(
    nodes: Nodes, network: Network, dataset: Address
) -> None:
    owner = network.key("data_provider")
    await nodes.first.push_dataset_key(owner, dataset, "whole")
    with pytest.raises(SplitIncomplete, match=r"2 did.*refused: .*can't be made t of n any more") as raised:
        await nodes.split(b"key", dataset, owner)
    assert set(raised.value.stored) == set(nodes.clients) - {network.address(NODES[0])}


async def test_splitting_may_be_repeated_until_all_have_stored(
    nodes: Nodes, network: Network, dataset: Address
) -> None:
    owner, gone = network.key("data_provider"), network.address(NODES[2])
    dead = SmsClient("http://127.0.0.1:9", timeout=2)
    with pytest.raises(SplitIncomplete, match=f"{gone}: .*does not answer") as raised:
        await nodes.split(b"key", dataset, owner, clients={**nodes.clients, gone: dead})
    await dead.close()
    assert len(raised.value.stored) == 2 and raised.value.retry is not None
    receipt = await raised.value.retry.send(nodes.clients)
    assert await nodes.clients[gone].has_secret(SecretKind.DATASET_KEY, dataset)
    assert receipt == await raised.value.retry.send(nodes.clients)

    with pytest.raises(SplitIncomplete, match=r"holds version 1.*split it again with a higher one"):
        await nodes.split(b"key", dataset, owner)
    await nodes.split(b"key", dataset, owner, version=2)
    with pytest.raises(SplitIncomplete, match="holds version 2"):
        await raised.value.retry.send(nodes.clients)


async def test_shares_that_do_not_fit_are_refused(nodes: Nodes, network: Network, dataset: Address) -> None:
    owner, own = network.key("data_provider"), network.address(NODES[0])
    everyone = sorted(nodes.clients)

    def made(**changes: Any) -> tuple[Any, dict[Address, bytes]]:
        terms: dict[str, Any] = {
            "kind": SecretKind.DATASET_KEY,
            "subject": dataset,
            "name": "",
            "version": 1,
            "threshold": 2,
            "nodes": everyone,
            "rng": token_bytes,
        }
        return share_secret(b"key", **{**terms, **changes})

    async def post(document: Any, share: bytes, key: Key = owner, chain_id: int = CHAIN_ID) -> None:
        signature = key.sign_digest(digest(secrets_domain(chain_id, network.addresses.hub), document))
        await nodes.first.post_share(document, signature, share)

    document, shares = made()
    other = next(node for node in everyone if node != own)
    with pytest.raises(SecretRefused, match="lied"):
        await post(document, shares[other])
    with pytest.raises(SecretRefused, match="lied"):
        await post(document, b"")
    with pytest.raises(Unauthorized, match="the signature of"):
        await post(document, shares[own], network.key("worker"))
    with pytest.raises(Unauthorized):
        await post(document, shares[own], chain_id=1)
    with pytest.raises(BadSignature):
        await nodes.first.post_share(document, b"\x00" * 65, shares[own])
    with pytest.raises(SecretRefused, match="one of the secret's nodes"):
        await post(made(nodes=[other], threshold=1)[0], shares[own])
    for bad in (
        {"name": "x"},
        {"kind": SecretKind.APP_SECRET, "name": "2"},
        {"kind": SecretKind.NAMED, "name": "x"},
    ):
        document, shares = made(**bad)
        with pytest.raises(InvalidInput):
            await post(document, shares[own])
    with pytest.raises(NotFound):
        await nodes.first.request("HEAD", "/secrets/web3", params={"secretAddress": dataset})


async def test_a_share_for_another_owners_dataset_is_refused(
    nodes: Nodes, network: Network, dataset: Address
) -> None:
    with pytest.raises(SplitIncomplete, match="the owner of"):
        await nodes.split(b"key", dataset, network.key("requester"))
    await nodes.split(
        b"mine",
        network.address("requester"),
        network.key("requester"),
        kind=SecretKind.REQUESTER_SECRET,
        name="k",
    )


# --- the client -----------------------------------------------------------------------------------


async def test_the_client_speaks_the_wire(nodes: Nodes, network: Network, dataset: Address) -> None:
    app, _, _ = await network.assets("second")
    client, requester = nodes.first, network.key("requester")
    await client.push_dataset_key(network.key("data_provider"), dataset, VALUE)
    await client.push_app_secret(network.key("app_provider"), app, VALUE)
    await client.push_requester_secret(requester, "k", VALUE)
    await client.push_named_secret(requester, "a name/with ?", VALUE)
    await client.push_named_secret(requester, "a name/with ?", "replaced")
    assert await client.has_secret(SecretKind.DATASET_KEY, dataset)
    assert await client.has_secret(SecretKind.APP_SECRET, app, "1")
    assert await client.has_secret(SecretKind.REQUESTER_SECRET, requester.address, "k")
    assert await client.has_secret(SecretKind.NAMED, requester.address, "a name/with ?")
    assert not await client.has_secret(SecretKind.NAMED, requester.address, "another")
    with pytest.raises(TooLarge):
        await client.push_named_secret(requester, "k", "x" * 4097)
    with pytest.raises(Unauthorized):
        await client.push_app_secret(requester, app, VALUE)
    with pytest.raises(InvalidInput, match="a kind of secret"):
        await client.has_secret("password", app)
    held = await nodes.running[network.address(NODES[0])].store.find(
        SecretKind.NAMED, requester.address, "a name/with ?"
    )
    assert held is not None and (held.version, held.value) == (2, b"replaced")
    assert held.signature == requester.sign_message(
        owner_challenge(SecretKind.NAMED, requester.address, "a name/with ?", b"replaced")
    )
