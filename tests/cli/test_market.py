"""`sealdeal market` and `sealdeal webhook`, in this process, against a market of the test's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sealdeal.chain import Wallet
from sealdeal.cli import command, session
from sealdeal.model.errors import BadSignature, InvalidInput, NotFound
from sealdeal.model.types import hexstr
from sealdeal.sdk.network import Network as AddressCard
from sealdeal.sdk.network import Services
from tests.market.conftest import Running, Stand
from tests.market.server import served
from tests.market.test_webhooks import receiving
from tests.network import CHAIN_ID, Network


@dataclass
class Shell:
    """A requester's terminal, and the market that its network file names."""

    stand: Stand
    folder: Path
    capsys: pytest.CaptureFixture[str]

    async def said(self, *arguments: str) -> str:
        await asyncio.to_thread(command, list(arguments))
        return self.capsys.readouterr().out

    async def json(self, *arguments: str) -> Any:
        return json.loads(await self.said(*arguments, "--json"))


@pytest.fixture
async def shell(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> AsyncIterator[Shell]:
    markets = Running(network, tmp_path)
    stand = await markets.start(matching=False, private_webhooks=True)
    monkeypatch.setenv("SEALDEAL_NETWORK", str(tmp_path / "network.json"))
    monkeypatch.setenv("SEALDEAL_WALLETS", str(tmp_path / "wallets"))
    monkeypatch.setenv("SEALDEAL_PASSWORD", "correct horse")
    session.settings.cache_clear()
    async with served(stand.market) as url:
        card = AddressCard(network.url, CHAIN_ID, network.addresses, Services(url, url, None, ()))
        (tmp_path / "network.json").write_text(json.dumps(card.to_json()))
        path = session.wallet_file("default")
        path.parent.mkdir()
        Wallet(network.key("requester")).save(path, "correct horse", scrypt_n=1024)
        yield Shell(stand, tmp_path, capsys)
    session.settings.cache_clear()
    await markets.stop()


async def test_events_are_printed_from_a_cursor_on(shell: Shell) -> None:
    network = shell.stand.network
    deal = await network.deal(volume=2)
    taskid = await network.complete(deal)
    every = ("market", "events", "--after", "0", "--count")
    printed = (await shell.said(*every, "3", "--json")).splitlines()
    made, begun, ended = map(json.loads, printed)
    assert [one["event"] for one in (made, begun, ended)] == [
        "deal_created",
        "task_initialized",
        "task_completed",
    ]
    assert made["data"]["dealid"] == hexstr(deal.dealid)
    assert ended["data"]["taskid"] == hexstr(taskid)
    after = ("market", "events", "--after", str(begun["id"]), "--count", "1")
    line = await shell.said(*after, "--topics", "tasks", "--deal", hexstr(deal.dealid))
    assert line.split() == [
        *(str(ended["id"]), "task_completed", hexstr(taskid), "of", "deal", hexstr(deal.dealid))
    ]
    other = await network.deal(assets=await network.assets("other"))
    only = ("--requester", network.address("requester"), "--topics", "deals")
    told = [json.loads(line) for line in (await shell.said(*every, "2", *only, "--json")).splitlines()]
    assert [one["data"]["dealid"] for one in told] == [hexstr(deal.dealid), hexstr(other.dealid)]
    with pytest.raises(InvalidInput, match="expected topics of orders, deals, tasks, got 'x'"):
        await shell.said(*every, "1", "--topics", "x")


async def test_a_webhook_is_added_checked_listed_and_dropped(shell: Shell) -> None:
    network = shell.stand.network
    async with receiving() as receiver:
        hook = await shell.json("webhook", "add", receiver.url)
        assert hook["requester"] == network.address("requester") and hook["secret"].startswith("whsec_")
        deal = "0x" + "ab" * 32
        of_deal = await shell.json("webhook", "add", receiver.url, "--of", f"dealid={deal}")
        assert of_deal["dealid"] == deal
        listed = await shell.json("webhook", "list")
        assert {one["id"] for one in listed} == {hook["id"], of_deal["id"]}
        assert not any("secret" in one for one in listed)
        assert hook["id"] in await shell.said("webhook", "list")
        with pytest.raises(InvalidInput, match=r"expected a filter of requester, .* got 'owner'"):
            await shell.said("webhook", "add", receiver.url, "--of", "owner=0x")

        taskid = await network.complete(await network.deal())
        await receiver.messages(3)
        headers, body = receiver.heard[2]
        (shell.folder / "body").write_bytes(body)
        (shell.folder / "secret").write_text(hook["secret"] + "\n")
        signed = [f"{name}={headers[name]}" for name in headers if name.startswith("webhook-")]
        check = ("webhook", "check", str(shell.folder / "body"), "--secret", str(shell.folder / "secret"))
        said = await shell.json(*check, "--header", *signed)
        assert (said["type"], said["data"]["taskid"]) == ("task.completed", hexstr(taskid))
        (shell.folder / "body").write_bytes(body + b" ")
        with pytest.raises(BadSignature):
            await shell.said(*check, "--header", *signed)
        with pytest.raises(InvalidInput, match="NAME=VALUE"):
            await shell.said(*check, "--header", "webhook-id")
        with pytest.raises(NotFound, match="cannot be read"):
            await shell.said("webhook", "check", "nowhere", "--secret", str(shell.folder / "secret"))

        assert await shell.json("webhook", "drop", hook["id"]) == {"dropped": hook["id"]}
        with pytest.raises(NotFound):
            await shell.said("webhook", "drop", hook["id"])
