"""`sealdeal units`: what is written for each process, for whom, and what is kept."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from sealdeal.chain import DeployOptions, Hub, Quorum, Rpc, Sender, Wallet, deploy
from sealdeal.chain.local import give_gas_money
from sealdeal.cli.units import write
from sealdeal.model.errors import InvalidInput
from sealdeal.model.keys import Key
from sealdeal.model.types import ZERO, unhex
from sealdeal.sdk.network import Network
from tests.market.server import served

DATABASE = "postgresql+asyncpg://us:er@db/{service}"


async def written(folder: Path, chain: Rpc, **options: Any) -> dict[str, Any]:
    """Write a network's folder; what the command printed."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        await write(folder, rpc_url=chain.url, json=True, **options)
    printed: dict[str, Any] = json.loads(out.getvalue())
    return printed


def environment(folder: Path, name: str) -> dict[str, str]:
    lines = (folder / f"{name}.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


def unit(folder: Path, name: str) -> str:
    return (folder / "systemd" / f"sealdeal-{name}.service").read_text()


async def test_a_folder_has_what_each_process_needs_and_is_kept(chain: Rpc, tmp_path: Path) -> None:
    folder = tmp_path / "net"
    hosts = ("10.0.0.2", "sms-1=10.0.0.9")
    printed = await written(folder, chain, database=DATABASE, host=hosts, market=2, pool=2, worker=1)
    names = ["results", "sms-0", "sms-1", "sms-2", "market-0", "market-1", "pool-0", "pool-1", "worker-0"]
    assert list(printed) == ["network", *names]
    assert (printed["sms-1"], printed["market-1"]) == ("http://10.0.0.9:7201", "http://10.0.0.2:7301")

    network = Network.load(folder / "network.json")
    assert network.trust == "simulated" and network.services.market == printed["market-0"]
    assert network.services.sms == tuple(printed[f"sms-{n}"] for n in range(3))
    assert network.workerpool and network.contracts.dataprotector
    assert (await Hub.connect(chain, network.contracts.hub)).addresses.quorum == network.contracts.quorum

    private = [*(folder / "keys").iterdir(), folder / "network.json", *folder.glob("*.env")]
    assert {stat.S_IMODE(path.stat().st_mode) for path in private} == {0o600}
    own = {"results", "sms-0", "sms-1", "sms-2", "market-0", "market-1", "pool", "worker-0"}
    assert {path.stem for path in (folder / "keys").glob("*.key")} == {*own, "owner", "funder"}

    sms, pools = environment(folder, "sms-1"), [environment(folder, f"pool-{n}") for n in range(2)]
    assert sms["SEALDEAL_DATABASE"].endswith("/sms_1") and sms["SEALDEAL_LISTEN"] == "10.0.0.9:7201"
    assert (
        Path(sms["SEALDEAL_SMS_STORAGE_KEY_FILE"]).read_text() != Path(sms["SEALDEAL_KEY_FILE"]).read_text()
    )
    assert pools[0]["SEALDEAL_KEY_FILE"] == pools[1]["SEALDEAL_KEY_FILE"]
    assert (
        pools[0]["SEALDEAL_DATABASE"] == pools[1]["SEALDEAL_DATABASE"] == "postgresql+asyncpg://us:er@db/pool"
    )
    assert pools[0]["SEALDEAL_STATE"] != pools[1]["SEALDEAL_STATE"]
    worker = environment(folder, "worker-0")
    assert worker["SEALDEAL_SCHEDULERS"] == f"{printed['pool-0']},{printed['pool-1']}"
    assert "SEALDEAL_LISTEN" not in worker and "SEALDEAL_DATABASE" not in worker

    composed = json.loads((folder / "compose.yaml").read_text())["services"]
    assert list(composed) == names
    assert composed["worker-0"]["privileged"] and composed["market-0"]["read_only"]
    assert composed["sms-0"]["command"] == ["run", "sms", "--unsafe-simulated-public"]

    before = {path: path.read_bytes() for path in (folder / "keys").iterdir()}
    again = await written(folder, chain, database=DATABASE, worker=2)
    assert again["worker-0"] == printed["worker-0"] and again["market-0"] == "http://127.0.0.1:7300"
    assert {path: path.read_bytes() for path in before} == before
    assert Network.load(folder / "network.json").contracts == network.contracts
    assert composed["sms-0"]["command"] != ["run", "sms"]
    assert json.loads((folder / "compose.yaml").read_text())["services"]["sms-0"]["command"] == ["run", "sms"]


async def test_a_hub_without_a_broker_gets_a_quorum_beside_it(chain: Rpc, tmp_path: Path) -> None:
    """As the official one, which is not ours to change; only on a development chain without being asked."""
    owner = Sender(chain, Wallet(Key(bytes([7]) * 32)))
    await give_gas_money(chain, owner.address)
    hub = (await deploy(owner)).hub
    await written(tmp_path / "net", chain, hub=hub)
    network = Network.load(tmp_path / "net" / "network.json")
    assert network.contracts.quorum and network.contracts.hub == hub
    assert await Hub(chain, network.contracts).tee_broker() == ZERO
    quorum = Quorum(chain, network.contracts.quorum)
    keys = [(tmp_path / "net" / "keys" / f"sms-{n}.key").read_text().strip() for n in range(3)]
    assert sorted(await quorum.members()) == sorted(Key(unhex(key)).address for key in keys)
    assert (await quorum.threshold(), await quorum.trust()) == (2, "simulated")

    await written(tmp_path / "named", chain, hub=hub, quorum=network.contracts.quorum)
    named = Network.load(tmp_path / "named" / "network.json")
    assert named.contracts.quorum == network.contracts.quorum
    broker = (await deploy(owner, DeployOptions(broker=network.contracts.quorum))).hub
    with pytest.raises(InvalidInput, match="has the TEE broker"):
        await written(tmp_path / "other", chain, hub=broker, quorum=network.contracts.quorum)


async def test_units_are_for_the_manager_of_whoever_writes_them(
    chain: Rpc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root's start with the machine and are shut in; another's need nothing that only root may do."""
    folder = tmp_path / "net"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    await written(folder, chain, market=2, worker=1)
    market, worker = unit(folder, "market-0"), unit(folder, "worker-0")
    assert f"ExecStart={shutil.which('sealdeal') or '/usr/local/bin/sealdeal'} run market\n" in market
    assert f"EnvironmentFile={folder}/market-0.env\n" in market and "After=network-online.target" in market
    assert "ProtectSystem=strict\n" in market and "CapabilityBoundingSet=\n" in market
    assert f"ReadWritePaths={folder}/state {folder}/cache\n" in market
    assert "Delegate=yes\n" in worker and "RestrictNamespaces" not in worker and "Capability" not in worker
    target = (folder / "systemd" / "sealdeal.target").read_text()
    assert "WantedBy=multi-user.target" in target and "sealdeal-worker-0.service" in target
    # two markets without a server share a file, which both may write
    shared = {environment(folder, f"market-{n}")["SEALDEAL_DATABASE"] for n in range(2)}
    assert shared == {f"sqlite+aiosqlite:///{folder}/state/market.db"}

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    await written(folder, chain, market=2, worker=1)
    market = unit(folder, "market-0")
    assert "RestrictNamespaces=yes\n" in market and "NoNewPrivileges=yes\n" in market
    for system in ("network-online", "Protect", "Private", "Capability", "multi-user"):
        assert system not in market
    assert "WantedBy=default.target" in (folder / "systemd" / "sealdeal.target").read_text()
    assert "Delegate=yes\n" in unit(folder, "worker-0")


@pytest.fixture
async def public(chain: Rpc) -> AsyncIterator[Rpc]:
    """The chain at a node that has no methods of a development chain's."""
    refused = {"jsonrpc": "2.0", "error": {"code": -32601, "message": "method not found"}}
    async with httpx2.AsyncClient() as node:

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            asked = await Request(scope, receive).json()
            if isinstance(asked, dict) and asked["method"].startswith("hardhat_"):
                answered: Any = {**refused, "id": asked["id"]}
            else:
                answered = (await node.post(chain.url, json=asked)).json()
            await JSONResponse(answered)(scope, receive, send)

        async with served(None, answer) as url:
            rpc = Rpc(url)
            yield rpc
            await rpc.aclose()


async def test_on_another_chain_the_accounts_to_fund_are_told_first(
    chain: Rpc, public: Rpc, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "net"
    accounts = await written(folder, public)
    assert {"pool", "market-0", "sms-0", "worker-1"} <= accounts.keys()
    told = capsys.readouterr().err
    assert "sealdeal contracts deploy" in told and accounts["sms-2"] in told and "--threshold 2" in told
    assert not (folder / "network.json").exists() and not list(folder.glob("*.env"))

    owner = Sender(chain, Wallet(Key(bytes([7]) * 32)))
    await give_gas_money(chain, owner.address)
    accounts = await written(folder, public, hub=(await deploy(owner)).hub)  # which has no broker
    told = capsys.readouterr().err
    assert "sealdeal contracts quorum deploy" in told and accounts["sms-2"] in told and "--quorum" in told
    assert not (folder / "network.json").exists()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"database": "postgresql+asyncpg://db/one"}, "services do not share a database"),
        ({"host": ("10.0.0.1", "10.0.0.2")}, "expected one --host for all"),
        ({"host": ("kitchen-0=10.0.0.1",)}, "kitchen-0"),
        ({"market": 0}, "expected 1 to 100 of market"),
        ({"worker": 101}, "expected 1 to 100 of worker"),
    ],
)
async def test_what_makes_no_network_is_refused_before_anything_is_written(
    options: dict[str, Any], why: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match=why):
        await write(tmp_path / "net", rpc_url="http://127.0.0.1:9", **options)
    assert list(tmp_path.iterdir()) == []
