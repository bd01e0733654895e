"""Gas estimates with a margin: what a wallet sends exactly is enough when the chain moves in between."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from sealdeal.chain import Anvil, Rpc
from sealdeal.chain.door import BODY_LIMIT, LEAST, GasDoor
from sealdeal.model.types import Address
from sealdeal.sdk.http import in_memory
from tests.network import CHAIN_ID, Network


@pytest.fixture
async def http(anvil: Anvil) -> AsyncIterator[httpx2.AsyncClient]:
    door = GasDoor(anvil.url)
    async with httpx2.AsyncClient(base_url="http://door", transport=in_memory(door.app)) as http:
        yield http
    await door.close()


def call(method: str, *params: Any, number: Any = 1) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


def transfer(network: Network, sender: Address, to: Address, amount: int) -> dict[str, str]:
    data = "0xa9059cbb" + to[2:].lower().rjust(64, "0") + f"{amount:064x}"
    return {"from": sender, "to": network.addresses.token, "data": data}


async def test_an_estimate_lasts_when_an_account_is_emptied(
    network: Network, chain: Rpc, http: httpx2.AsyncClient
) -> None:
    rich, other = network.address("requester"), network.address("enclave")
    for account in (rich, other):
        await chain.call("anvil_impersonateAccount", account)
        await chain.call("anvil_setBalance", account, hex(10**18))

    async def send(what: dict[str, str], gas: str = hex(200_000)) -> bool:
        hashed = await chain.call("eth_sendTransaction", what | {"gas": gas})
        while (receipt := await chain.call("eth_getTransactionReceipt", hashed)) is None:
            await asyncio.sleep(0.02)  # it answers before it has mined, when the machine is busy
        return bool(int(receipt["status"], 16))

    assert await send(transfer(network, rich, other, 5))
    gift = transfer(network, rich, other, 1)
    exact = await chain.call("eth_estimateGas", gift)
    padded = (await http.post("/", json=call("eth_estimateGas", gift))).json()["result"]
    assert await send(transfer(network, other, rich, 5))  # the account is empty now
    assert not await send(gift, exact)
    assert await send(gift, padded)


async def test_what_is_padded_and_by_how_much(network: Network, chain: Rpc, http: httpx2.AsyncClient) -> None:
    rich, other = network.address("requester"), network.address("enclave")
    gift = transfer(network, rich, other, 0)
    bare = {"from": rich, "to": other, "value": "0x1"}
    exact = int(await chain.call("eth_estimateGas", gift), 16)
    batch = [
        call("eth_estimateGas", gift, number="a"),
        call("eth_chainId", number=2),
        call("eth_estimateGas", bare, number=None),
        call("eth_estimateGas", gift | {"gas": hex(exact + 7)}, number=4),
        call("eth_estimateGas", {"to": network.addresses.token, "data": "0xffffffff"}, number=5),
    ]
    answers = (await http.post("/", json=batch)).json()
    found = {answer["id"]: answer for answer in answers}
    assert int(found["a"]["result"], 16) == exact + max(exact // 4, LEAST)
    assert int(found[2]["result"], 16) == CHAIN_ID
    assert found[None]["result"] == hex(21_000)
    assert int(found[4]["result"], 16) == exact + 7
    assert found[5]["error"]["message"]


async def test_all_else_passes_as_it_is(anvil: Anvil, http: httpx2.AsyncClient) -> None:
    asked = call("eth_getBlockByNumber", "latest", True)
    async with httpx2.AsyncClient(trust_env=False) as direct:
        assert (await http.post("/", json=asked)).json() == (await direct.post(anvil.url, json=asked)).json()
    assert (await http.post("/", json=call("no_such_method"))).json()["error"]["code"] == -32601
    assert "error" in (await http.post("/", content=b"{not json eth_estimateGas")).json()


async def test_pages_of_any_origin_may_ask(http: httpx2.AsyncClient) -> None:
    headers = {"Origin": "https://anywhere.example", "Access-Control-Request-Method": "POST"}
    headers["Access-Control-Request-Headers"] = "content-type"
    before = await http.options("/", headers=headers)
    assert (before.status_code, before.headers["access-control-allow-origin"]) == (200, "*")
    answer = await http.post("/", json=call("eth_chainId"), headers={"Origin": "https://anywhere.example"})
    assert answer.headers["access-control-allow-origin"] == "*"


async def test_a_node_that_is_away_and_a_body_that_is_too_large(http: httpx2.AsyncClient) -> None:
    assert (await http.post("/", content=b" " * (BODY_LIMIT + 1))).status_code == 413
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # nobody else gets the port, and nobody listens there
        door = GasDoor(f"http://127.0.0.1:{silent.getsockname()[1]}")
        async with httpx2.AsyncClient(base_url="http://door", transport=in_memory(door.app)) as alone:
            answer = await alone.post("/", json=call("eth_chainId"))
    assert (answer.status_code, "does not answer" in answer.json()["error"]["message"]) == (502, True)
    await door.close()
