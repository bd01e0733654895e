"""`sealdeal wallet` and `sealdeal account`, in this process: money as people move it."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from sealdeal.chain import Wallet
from sealdeal.cli import command, session
from sealdeal.model.errors import Conflict, InvalidInput
from sealdeal.model.keys import Key
from sealdeal.sdk.network import Network as AddressCard
from sealdeal.sdk.network import Services
from tests.network import CHAIN_ID, Network

NOWHERE = "http://127.0.0.1:1"
Said = Callable[..., Awaitable[Any]]


@pytest.fixture
async def said(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> AsyncIterator[Said]:
    """The JSON that a command prints in a requester's terminal."""
    monkeypatch.setenv("SEALDEAL_NETWORK", str(tmp_path / "network.json"))
    monkeypatch.setenv("SEALDEAL_WALLETS", str(tmp_path / "wallets"))
    monkeypatch.setenv("SEALDEAL_PASSWORD", "correct horse")
    session.settings.cache_clear()
    card = AddressCard(network.url, CHAIN_ID, network.addresses, Services(NOWHERE, NOWHERE, None, ()))
    (tmp_path / "network.json").write_text(json.dumps(card.to_json()))
    path = session.wallet_file("default")
    path.parent.mkdir()
    Wallet(network.key("requester")).save(path, "correct horse", scrypt_n=1024)

    async def run(*arguments: str) -> Any:
        await asyncio.to_thread(command, [*arguments, "--json"])
        return json.loads(capsys.readouterr().out)

    yield run
    session.settings.cache_clear()


async def test_money_is_sent_and_swept(said: Said, network: Network) -> None:
    other = Key.generate(secrets.token_bytes).address
    before = await network.hub.token_balance(network.address("requester"))
    answer = await said("wallet", "send", other, "1.5 RLC")
    assert answer["address"] == network.address("requester") and len(answer["transaction"]) == 66
    assert await network.hub.token_balance(other) == 1_500_000_000
    await said("wallet", "send", other, "7", "--ether")
    assert int(await network.rpc.call("eth_getBalance", other, "latest"), 16) == 7
    with pytest.raises(Conflict, match="fund it first"):
        await said("wallet", "send", other, "1000000")
    with pytest.raises(InvalidInput, match="whole wei"):
        await said("wallet", "send", other, "0.5", "--ether")
    swept = await said("wallet", "sweep", other)
    assert (swept["wallet"], len(swept["transactions"])) == ("0 RLC", 2)
    assert await network.hub.token_balance(other) == before


async def test_a_spender_is_approved_and_not_any_more(said: Said, network: Network) -> None:
    spender, owner = network.address("worker"), network.address("requester")
    answer = await said("account", "approve", spender, "2.5")
    assert (answer["owner"], answer["spender"], answer["allowance"]) == (owner, spender, "2.5 RLC")
    assert await network.hub.allowance(owner, spender) == 2_500_000_000
    assert await said("account", "allowance", spender) == await said(
        "account", "allowance", spender, "--owner", owner
    )
    assert (await said("account", "approve", spender, "0"))["allowance"] == "0 RLC"
