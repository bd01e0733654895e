"""The commands as people run them: in processes of their own, against a network that another one keeps."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from sealdeal.chain import Addresses, Anvil, Hub, Sender, Wallet
from sealdeal.model.errors import NotFound
from sealdeal.model.keys import Key
from sealdeal.model.types import RLC, ZERO, address, hexstr, unhex
from tests.registry import Running as Registry
from tests.registry import program, running

from .conftest import ECHO

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOT = Path(__file__).parents[2]


class Shell:
    """A person's terminal: an environment, and what commands print there."""

    def __init__(self, home: Path, cache: Path) -> None:
        self.home = home
        self.environment = os.environ | {
            "PYTHONPATH": str(ROOT / "src"),
            "XDG_STATE_HOME": str(home / "state"),
            "XDG_DATA_HOME": str(home / "data"),
            "SEALDEAL_CACHE": str(cache),
            "SEALDEAL_PASSWORD": "correct horse",
        }

    async def start(self, *arguments: str, mark: str = "") -> asyncio.subprocess.Process:
        """`mark` is in the environment of the process and of all that it starts."""
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "sealdeal",
            *arguments,
            cwd=self.home,
            env=self.environment | {"SEALDEAL_TEST_MARK": mark},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def run(self, *arguments: str, code: int = 0) -> tuple[str, str]:
        """What a command prints on standard output and error."""
        process = await self.start(*arguments)
        out, err = await asyncio.wait_for(process.communicate(), 120)
        assert process.returncode == code, (arguments, out.decode(), err.decode())
        return out.decode(), err.decode()

    async def json(self, *arguments: str) -> dict[str, Any]:
        """The one document that a command prints with --json."""
        found: dict[str, Any] = json.loads((await self.run(*arguments, "--json"))[0])
        return found


def closed(url: str) -> bool:
    """Whether nobody listens at a URL any more."""
    at = urlsplit(url)
    with socket.socket() as probe:
        return probe.connect_ex((at.hostname or "", at.port or 0)) != 0


class Up:
    """`sealdeal up --json`, running."""

    def __init__(self, process: asyncio.subprocess.Process, document: dict[str, Any]) -> None:
        self.process, self.document = process, document

    @classmethod
    async def start(cls, shell: Shell) -> Up:
        process = await shell.start("up", "--json")
        assert process.stdout is not None
        return cls(process, json.loads(await asyncio.wait_for(process.stdout.readline(), 120)))

    async def stop(self, number: int = signal.SIGINT) -> None:
        """As Ctrl-C does; nothing of it may be left."""
        if self.process.returncode is None:
            self.process.send_signal(number)
            await asyncio.wait_for(self.process.communicate(), 120)
        services = self.document["services"]
        urls = [self.document["rpc_url"], services["market"], services["results"], *services["sms"]]
        assert all(closed(url) for url in urls)


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry | None]:
    """A registry of images that the network's workers know; none where there is no program for one."""
    with contextlib.ExitStack() as stack:
        started = None
        with contextlib.suppress(pytest.skip.Exception):  # only what needs it is skipped
            started = stack.enter_context(running())
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shell(tmp_path_factory: pytest.TempPathFactory, cache: Path, registry: Registry | None) -> Shell:
    made = Shell(tmp_path_factory.mktemp("home"), cache)
    if registry is not None:
        made.environment["SEALDEAL_REGISTRIES"] = f"http://{registry.host}"
    return made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def up(shell: Shell) -> AsyncIterator[Up]:
    running = await Up.start(shell)
    yield running
    await running.stop()


async def test_up_says_where_everything_is(up: Up) -> None:
    said = up.document
    assert set(said["contracts"]) == {
        "hub",
        "token",
        "appregistry",
        "datasetregistry",
        "workerpoolregistry",
        "quorum",
        "dataprotector",
    }
    assert set(said["services"]) == {
        "market",
        "results",
        "ipfs_gateway",
        "ipfs_node",
        "scheduler",
        "compass",
        "subgraph",
        "poco_subgraph",
        "web",
        "sms",
    }
    assert len(said["services"]["sms"]) == 3
    assert said["services"]["web"] is None
    assert set(said["accounts"]) == {"funder", "hub_owner", "workerpool_owner"}
    assert all(set(account) == {"address", "key"} for account in said["accounts"].values())
    assert said["chain_id"] == 65_535
    assert said["workerpool"].startswith("0x")


async def test_a_deal_from_another_terminal_by_commands_alone(shell: Shell, up: Up) -> None:
    project = shell.home / "echo"
    project.mkdir()
    (project / "sealdeal.toml").write_text('name = "echo"\nentrypoint = ["python3", "main.py"]\n')
    (project / "main.py").write_text(ECHO)
    (shell.home / "patients.csv").write_text("1,2,3\n")

    wallet = await shell.json("wallet", "create")
    assert (await shell.json("wallet", "list")) == {"default": wallet["address"]}
    assert (await shell.json("wallet", "fund", "50"))["wallet"] == "50 RLC"
    assert (await shell.json("account", "deposit", "20 RLC"))["stake"] == "20 RLC"
    built = await shell.json("app", "build", "echo")
    assert await shell.json("app", "build", "echo", "--push") == built
    app = await shell.json("app", "publish", "echo", "--price", "0.5")
    assert (app["checksum"], app["multiaddr"]) == (built["checksum"], built["multiaddr"])
    data = await shell.json("dataset", "protect", "patients.csv", "--format", "chunked")
    assert (await shell.json("app", "show", app["app"]))["hosts"] == []
    granted = await shell.json("dataset", "grant", data["dataset"], "--app", app["app"], "--price", "0.25")
    assert granted["hosts"] == []
    (project / "sealdeal.toml").write_text(
        'name = "sender"\nentrypoint = ["python3", "main.py"]\nhosts = ["api.example.org:443"]\n'
    )
    sender = await shell.json("app", "publish", "echo")
    _, why = await shell.run("dataset", "grant", data["dataset"], "--app", sender["app"], code=1)
    assert "api.example.org:443" in why and "--allow-hosts" in why
    allowed = ("dataset", "grant", data["dataset"], "--app", sender["app"], "--allow-hosts")
    assert (await shell.json(*allowed))["hosts"] == ["api.example.org:443"]
    assert (await shell.json("secret", "split", "requester", "word", "--file", "patients.csv"))[
        "version"
    ] == 1
    quote = await shell.json("deal", "quote", app["app"], "--dataset", data["dataset"])
    assert (quote["volume"], quote["missing"], quote["time"]) == (1, None, None)
    bought = ("--dataset", data["dataset"], "--args", "one two", "--secret", "2=word", "--slippage", "10")
    deal = await shell.json("deal", "run", app["app"], *bought)
    signed = await shell.json("deal", "check-match", deal["deal"])
    assert signed["said"]["request"] == deal["request"] and signed["said"]["volume"] == 1
    unmatched = await shell.json("deal", "why", deal["request"])
    assert (unmatched["status"], unmatched["constraint"]) == (
        "filled",
        "the request order's volume is used up",
    )
    (taskid,) = deal["tasks"]
    told = await shell.json("deal", "show", deal["deal"])
    assert told["tasks"] == {taskid: "COMPLETED"} and '"iexec_secrets":{"2":"word"}' in told["params"]
    shown = await shell.json("task", "show", taskid)
    assert shown["status"] == "COMPLETED"
    steps, _ = await shell.run("task", "show", taskid, "--follow")
    assert "attested" in steps
    got = await shell.json("result", "get", taskid, "--out", "result")
    assert json.loads((shell.home / "result" / "result.json").read_text())["bytes"] == 6
    checked = await shell.json("result", "verify", got["receipt"])
    assert (checked["verified"], checked["digest"]) == (True, "plain")
    owned = await shell.json("account", "show")
    assert (owned["stake"], owned["locked"]) == ("19 RLC", "0 RLC")  # it sold the app and the data to itself
    await shell.json("account", "withdraw", "19")
    assert (await shell.json("wallet", "show"))["wallet"] == "49 RLC"


async def test_an_owner_moves_closes_and_audits_a_secret(shell: Shell, up: Up) -> None:
    (shell.home / "rows.csv").write_text("1\n")
    nodes = up.document["services"]["sms"]
    made = await shell.json("dataset", "protect", "rows.csv", "--nodes", *nodes[:2], "--expires", "90d")
    key = ("dataset", made["dataset"])
    _, err = await shell.run("secret", "split", *key, code=1)
    assert "version 1: refresh it" in err
    moved = await shell.json("secret", "refresh", *key, "--nodes", *nodes[1:])  # the copy beside the wallet
    assert (moved["version"], moved["threshold"], len(moved["nodes"]), moved["door"]) == (2, 2, 2, "own")
    assert len(moved["left"]) == 1 and moved["untold"] == {}
    assert len((await shell.json("secret", "revoke", *key))["revoked_from"]) == 3
    told, _ = await shell.run("secret", "status", *key)
    assert "version 2" in told and "shares on 2 of 2 nodes, 2 recombine it (door own); ends" in told
    audit = await shell.json("secret", "audit", *key)
    assert (len(audit["answered"]), audit["silent"], audit["uses"]) == (3, {}, [])


async def test_a_gateway_splits_what_a_client_pushes(shell: Shell, up: Up) -> None:
    (shell.home / "token").write_text("a token\n")
    running = await shell.start("secret", "gateway", "--port", "0", "--json")
    assert running.stdout is not None
    at = json.loads(await asyncio.wait_for(running.stdout.readline(), 120))
    pushed = await shell.json("secret", "push", "requester", "token", "--file", "token", "--to", at["url"])
    assert pushed["to"] == at["url"]
    status = await shell.json("secret", "status", "requester", "token", "--owner", at["owners"][0])
    (group,) = status["groups"]
    assert (group["door"], group["threshold"], len(group["holders"])) == ("own", 2, 3)
    assert status["available"] and not group["seen_whole"]
    running.send_signal(signal.SIGINT)
    _, err = await asyncio.wait_for(running.communicate(), 120)
    assert (running.returncode, err) == (0, b"")
    assert closed(at["url"])


async def test_an_app_lies_in_a_registry_on_an_image_from_there(
    shell: Shell, up: Up, registry: Registry | None
) -> None:
    if registry is None:
        program()  # skips this test, and says why
    assert registry is not None
    host = registry.host
    base = (await shell.json("app", "build", "echo", "--to", f"{host}/team/echo:1"))["multiaddr"]
    assert base.startswith(f"{host}/team/echo@sha256:")
    project = shell.home / "above"
    project.mkdir()
    (project / "sealdeal.toml").write_text('name = "above"\nentrypoint = ["python3", "above.py"]\n')
    (project / "above.py").write_text("import main\n")  # which lies in the image below
    app = await shell.json("app", "publish", "above", "--base", base, "--to", f"{host}/team/above")
    assert app["multiaddr"] == f"{host}/team/above@sha256:{app['checksum'].removeprefix('0x')}"
    assert (await shell.json("app", "show", app["app"]))["entrypoint"] == ["python3", "above.py"]
    await shell.json("account", "deposit", "5 RLC")
    (taskid,) = (await shell.json("deal", "run", app["app"], "--args", "three", "--seal", "--unpublished"))[
        "tasks"
    ]
    got = await shell.json("result", "get", taskid, "--out", "above-result")
    assert "sealdeal-digest.json" in got["files"] and "sealdeal-padding" not in got["files"]
    assert json.loads((shell.home / "above-result/result.json").read_text())["args"] == ["three"]


async def test_mistakes_are_told_in_one_line(shell: Shell, up: Up) -> None:
    for arguments, says in {
        ("deal", "show", "0x12"): "expected 32 bytes",
        ("deal", "run", ZERO, "--secret", "one"): "expected N=NAME",
        ("deal", "run", ZERO, "--seal", "--no-encrypt"): "not encrypted",
        ("secret", "split", "dataset", ZERO, "--expires", "soon"): "expected a date",
        ("secret", "split", "dataset", ZERO): "give --file",
        ("deal", "show", "0x" + "00" * 32): "deal",
        ("app", "build", "nowhere"): "sealdeal.toml",
        ("dataset", "protect", "nowhere.csv"): "cannot read",
        ("wallet", "create"): "exists already",
        ("account", "deposit", "many"): "expected an amount",
        ("account", "deposit", "1000000"): "fund it first",
        ("account", "show", "--wallet", "nobody"): "wallet create nobody",
    }.items():
        _, err = await shell.run(*arguments, code=1)
        assert says in err
        assert "Traceback" not in err


async def test_a_wrong_password_opens_nothing(shell: Shell, up: Up) -> None:
    other = Shell(shell.home, shell.home)
    other.environment = shell.environment | {"SEALDEAL_PASSWORD": "wrong"}
    _, err = await other.run("account", "show", code=1)
    assert "password" in err


# ---- Contracts ---------------------------------------------------------------------------------------------


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def anvil() -> AsyncIterator[Anvil]:
    """An empty development chain."""
    async with Anvil(chain_id=1337) as running:
        yield running


CONTRACTS = {
    "hub",
    "token",
    "appregistry",
    "datasetregistry",
    "workerpoolregistry",
    "quorum",
    "dataprotector",
}


async def test_contracts_by_default_are_an_official_network(shell: Shell, anvil: Anvil) -> None:
    out, _ = await shell.run("contracts", "deploy", "--rpc-url", anvil.url, "--json")
    assert out.count("\n") == 1
    made = json.loads(out)
    assert set(made) == CONTRACTS | {"admin_key", "holder_key"}
    assert made["quorum"] is None
    hub = await Hub.connect(anvil.rpc, address(made["hub"]))
    assert hub.addresses.to_json() == {name: made[name] for name in CONTRACTS} | {"dataprotector": None}
    assert [category.name for category in await hub.categories()] == ["XS", "S", "M", "L", "XL"]
    admin, holder = Key(unhex(made["admin_key"])), Key(unhex(made["holder_key"]))
    assert await hub.read(hub.hub, "owner") == admin.address != holder.address
    assert await hub.token_balance(holder.address) == 87_000_000 * RLC
    # both have money for gas
    await hub.using(Sender(anvil.rpc, Wallet(holder))).transfer_token(admin.address, RLC)
    await Sender(anvil.rpc, Wallet(admin)).transact(hub.hub, "createCategory", "XXL", "", 100_000)


async def test_contracts_as_the_options_say(shell: Shell, anvil: Anvil) -> None:
    members, owner = [f"0x{n:040x}" for n in (1, 2, 3)], "0x" + "77" * 20
    deploy = ("contracts", "deploy", "--rpc-url", anvil.url)
    first = await shell.json(*deploy, "--owner", owner, "--holder", owner)
    assert set(first) == CONTRACTS
    made = await shell.json(
        *(*deploy, "--token", first["token"], "--previous", first["hub"], "--base-uri", "https://here"),
        *("--category", "tiny:a: b:7", "--category", "huge::700000"),
        *("--quorum", *members, "--threshold", "2", "--trust", "hardware", "--grace", "60"),
    )
    assert set(made) == CONTRACTS | {"admin_key"}
    assert made["token"] == first["token"]
    told = await shell.json("contracts", "verify", made["hub"], "--rpc-url", anvil.url)
    choices = {one["name"]: one["choices"] for one in told["contracts"]}
    assert choices["Hub"]["categories"] == [["tiny", "a: b", 7], ["huge", "", 700_000]]
    assert choices["Quorum"] == {"members": members, "threshold": 2, "trust": "hardware", "grace": 60}
    assert choices["Rlc"] == {"holder": owner}
    again = await shell.json(*deploy, "--tee-broker", made["quorum"])
    assert again["quorum"] == made["quorum"]


async def test_contracts_for_production(shell: Shell, anvil: Anvil) -> None:
    """They belong to the quorum, or nobody, or to whom the option says; verify tells what was chosen."""
    node, somebody = ("--rpc-url", anvil.url), "0x" + "77" * 20
    deploy = ("contracts", "deploy", *node, "--profile", "production")
    terms = ("--quorum", somebody, "--threshold", "1", "--trust", "hardware")
    for options, owner in (((), ZERO), (terms, None), (("--owner", somebody), somebody)):
        made = await shell.json(*deploy, *options)
        assert set(made) == CONTRACTS | {"holder_key"}
        hub = await Hub.connect(anvil.rpc, address(made["hub"]))
        assert await hub.read(hub.hub, "owner") == (owner or made["quorum"])
        told = await shell.json("contracts", "verify", made["hub"], *node)
        (choices,) = [one["choices"] for one in told["contracts"] if one["name"] == "Hub"]
        assert (choices["kitty_capped"], choices["changes_delayed"]) == (True, True)
        assert choices["teebroker"] == made["quorum"] or (choices["teebroker"], made["quorum"]) == (
            ZERO,
            None,
        )
    out, _ = await shell.run("contracts", "verify", made["hub"], *node)
    assert "deployed with: kitty_capped true" in out
    official = await shell.json(*deploy[:-1], "official")
    assert "admin_key" in official
    out, _ = await shell.run("contracts", "verify", official["hub"], *node)
    assert "deployed with: kitty_capped false" in out


async def test_a_wallet_pays_for_contracts(shell: Shell, anvil: Anvil) -> None:
    payer = await shell.json("wallet", "create", "payer")
    deploy = ("contracts", "deploy", "--rpc-url", anvil.url, "--wallet", "payer", "--json")
    _, err = await shell.run(*deploy, code=1)
    assert "fund it" in err
    await anvil.fund(address(payer["address"]))
    out, err = await shell.run(*deploy)
    assert set(json.loads(out)) == CONTRACTS
    assert err == f"deploying from nonce 0 of {payer['address']}: if cut off, --resume 0\n"
    assert await shell.json(*deploy[:-1], "--resume", "0") == json.loads(out)


async def test_contracts_that_differ_are_told_exactly(shell: Shell, anvil: Anvil) -> None:
    made = await shell.json("contracts", "deploy", "--rpc-url", anvil.url)
    node, door = ("--rpc-url", anvil.url), ("--dataprotector", made["dataprotector"])
    verify = ("contracts", "verify", made["hub"], *door, *node)
    told = await shell.json(*verify)
    assert (told["verified"], told["chain_id"]) == (True, 1337)
    assert all(one["compared"] and len(one["source_hash"]) == 64 for one in told["contracts"])
    assert "DataProtector" in {one["name"] for one in told["contracts"]}
    out, _ = await shell.run(*verify)
    assert {line.split()[0] for line in out.splitlines() if not line.startswith(" ")} == {"same"}
    good = unhex(await anvil.rpc.call("eth_getCode", made["appregistry"], "latest"))
    bad = good[:5000] + bytes([good[5000] ^ 1]) + good[5001:]
    await anvil.rpc.call("anvil_setCode", made["appregistry"], hexstr(bad))
    out, _ = await shell.run(*verify, "--json", code=1)
    told = json.loads(out)
    assert told["verified"] is False
    (wrong,) = [one for one in told["contracts"] if one["differences"]]
    assert (wrong["name"], wrong["address"]) == ("AppRegistry", made["appregistry"])
    assert "bytes differ, from byte 5000 on: expected 0x" in wrong["differences"][0]
    out, _ = await shell.run(*verify, "--code-only", code=1)
    assert "differs  AppRegistry" in out


async def test_the_local_network_is_as_compiled(shell: Shell, up: Up) -> None:
    told = await shell.json("contracts", "verify")
    assert told["verified"] is True
    assert [one["address"] for one in told["contracts"] if one["name"] == "Quorum"] == [
        up.document["contracts"]["quorum"]
    ]
    shown = await shell.json("contracts", "quorum", "show")
    assert (len(shown["members"]), shown["threshold"], shown["trust"]) == (3, 2, "simulated")


async def test_the_members_of_a_quorum_change_it(shell: Shell, anvil: Anvil) -> None:
    members = [(await shell.json("wallet", "create", f"node-{n}"))["address"] for n in range(3)]
    node = ("--rpc-url", anvil.url)
    terms = ("--quorum", *members[:2], "--threshold", "2", "--trust", "simulated")
    made = await shell.json("contracts", "deploy", *node, *terms)
    change, at = ("contracts", "quorum"), ("--at", made["quorum"], *node)
    await shell.json(*change, "propose", "change.json", "--add", members[2], "--remove", members[0], *at)
    await shell.json(*change, "propose", "other.json", "--add", members[2], *at)
    (shell.home / "copy.json").write_bytes((shell.home / "change.json").read_bytes())
    await shell.json(*change, "sign", "change.json", *node, "--wallet", "node-0")
    submit = (*change, "submit", *node, "--wallet", "node-2")
    for arguments, says in {
        (*change, "propose", "change.json", *at): "exists already",
        (*change, "sign", "copy.json", *node, "--wallet", "node-2"): "is no member",
        (*submit, "change.json"): "expected 2 members' signatures of this decision, got 1",
        (*submit, "change.json", "other.json"): "one and the same decision",
        (*submit, "nowhere.json"): "cannot read",
    }.items():
        _, err = await shell.run(*arguments, code=1)
        assert says in err
    await shell.json(*change, "sign", "copy.json", *node, "--wallet", "node-1")
    await anvil.fund(address(members[2]))
    done = await shell.json(*submit, "change.json", "copy.json")
    assert (done["members"], done["threshold"], done["changes"]) == (members[1:], 2, 1)
    _, err = await shell.run(*change, "sign", "other.json", *node, "--wallet", "node-1", code=1)
    assert "propose anew" in err
    altered = json.loads((shell.home / "copy.json").read_text())
    altered["change"]["threshold"] = 1
    (shell.home / "copy.json").write_text(json.dumps(altered))
    _, err = await shell.run(*submit, "copy.json", code=1)
    assert "is not of this decision" in err


async def test_a_quorum_is_deployed_alone(shell: Shell, anvil: Anvil) -> None:
    node = ("--rpc-url", anvil.url)
    payer = await shell.json("wallet", "create", "quorum-payer")
    await anvil.fund(address(payer["address"]))
    members = [f"0x{n:040x}" for n in (1, 2, 3)]
    terms = ("--threshold", "2", "--trust", "hardware", "--grace", "60")
    made = await shell.json(
        "contracts", "quorum", "deploy", *members, *terms, *node, "--wallet", "quorum-payer"
    )
    assert (made["members"], made["threshold"], made["trust"], made["grace"]) == (members, 2, "hardware", 60)
    shown = await shell.json("contracts", "quorum", "show", "--at", made["quorum"], *node)
    assert shown == made


async def test_a_quorum_that_owns_the_hub_calls_it(shell: Shell, anvil: Anvil) -> None:
    members = [(await shell.json("wallet", "create", f"owner-{n}"))["address"] for n in range(2)]
    node = ("--rpc-url", anvil.url)
    terms = ("--quorum", *members, "--threshold", "2", "--trust", "simulated", "--profile", "production")
    made = await shell.json("contracts", "deploy", *node, *terms)
    quorum, hub = ("contracts", "quorum"), ("--on", made["hub"], "--at", made["quorum"], *node)
    create = (*quorum, "call", "call.json", "createCategory", "XXL", "{}")
    for arguments, says in {
        (*create, "86400", *hub): "expected --contract",
        (*create, *hub, "--contract", "hub"): "expected 3 arguments, got 2",
        (*create, "a day", *hub, "--contract", "hub"): "expected a uint256, got 'a day'",
    }.items():
        _, err = await shell.run(*arguments, code=1)
        assert says in err
    await shell.json(*create, "86400", *hub, "--contract", "hub")
    for n in range(2):
        await shell.json(*quorum, "sign", "call.json", *node, "--wallet", f"owner-{n}")
    await anvil.fund(address(members[0]))
    views = Hub(anvil.rpc, Addresses.from_json({name: made[name] for name in Addresses.__annotations__}))
    with pytest.raises(NotFound):
        await views.category(5)
    done = await shell.json(*quorum, "submit", "call.json", *node, "--wallet", "owner-0")
    assert done["changes"] == 1
    added = await views.category(5)
    assert (added.name, added.reference_time) == ("XXL", 86400)


async def test_mistakes_about_contracts_are_told_in_one_line(shell: Shell, anvil: Anvil) -> None:
    deploy, somebody = ("contracts", "deploy", "--rpc-url", anvil.url), "0x" + "12" * 20
    for arguments, says in {
        (*deploy, "--category", "tiny:300"): "NAME:DESCRIPTION:SECONDS",
        (*deploy, "--category", f"long::{2**31}"): "time reference",
        (*deploy, "--threshold", "2"): "--quorum MEMBER",
        (*deploy, "--quorum", somebody): "--threshold and --trust",
        (*deploy, "--quorum", "0x12", "--threshold", "1", "--trust", "hardware"): "20-byte address",
        (*deploy, "--token", somebody, "--holder", somebody): "--token or --holder",
        (*deploy, "--resume", "0"): "throw-away keys are not kept",
        (*deploy, "--previous", somebody): "expected a hub",
        ("contracts", "verify", somebody, "--rpc-url", anvil.url): "expected a hub",
        ("contracts", "deploy", "--rpc-url", "http://127.0.0.1:1"): "does not answer",
    }.items():
        _, err = await shell.run(*arguments, code=1)
        assert says in err, (arguments, err)
        assert "Traceback" not in err
    await shell.run("contracts", "deploy", code=2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_stop_leaves_nothing_and_the_next_start_continues(
    tmp_path: Path, cache: Path, number: int
) -> None:
    shell = Shell(tmp_path, cache)
    first = await Up.start(shell)
    wallet = await shell.json("wallet", "create")
    await shell.json("wallet", "fund", "7")
    await first.stop(number)
    again = await Up.start(shell)
    try:
        assert again.document == first.document
        assert (await shell.json("wallet", "show")) == {
            "address": wallet["address"],
            "wallet": "7 RLC",
            "stake": "0 RLC",
            "locked": "0 RLC",
        }
        _, err = await shell.run("up", code=1)
        assert "another process" in err
    finally:
        await again.stop()


async def test_the_demo_prints_one_document(shell: Shell) -> None:
    document = await shell.json("demo")
    names = [step["name"] for step in document["steps"]]
    assert names == [
        "Request",
        "Matching",
        "Deal",
        "Distribution",
        "Sealed execution",
        "Data",
        "Result",
        "Delivery",
        "Settlement",
    ]
    assert all(set(step) == {"name", "seconds", "actor", "transactions"} for step in document["steps"])
    moves = [move for step in document["steps"] for move in step["transactions"]]
    assert len({move["hash"] for move in moves}) == 3
    assert all(20_000 < move["gas"] < 1_000_000 for move in moves)
    changes = {name: held["after"] - held["before"] for name, held in document["balances"].items()}
    assert len(changes) == 6
    assert sum(changes.values()) == 0
    assert changes["requester"] < 0 < changes["data provider"]
    assert document["trust"] == "simulated"
    assert document["result"]["auc"]["mean"] > 0.98
    assert Path(document["receipt"]).is_file()


async def test_ctrl_c_ends_the_demo_at_any_moment(shell: Shell) -> None:
    for seconds, lines in ((0.5, 0), (1.5, 0), (0, 1), (0, 8)):  # before it says something, and after
        mark = secrets.token_hex(8)
        process = await shell.start("demo", mark=mark)
        await asyncio.sleep(seconds)
        assert process.stdout is not None
        for _ in range(lines):
            assert await asyncio.wait_for(process.stdout.readline(), 120)
        assert marked(mark)
        process.send_signal(signal.SIGINT)
        _, err = await asyncio.wait_for(process.communicate(), 120)
        assert process.returncode in (130, 0, -signal.SIGINT), err.decode()  # the last: before Python is up
        assert "Traceback" not in err.decode()
        assert not marked(mark)


def marked(mark: str) -> list[str]:
    """Processes that have a mark in their environment: what was started under it and still runs."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if (
                entry.name.isdigit()
                and f"SEALDEAL_TEST_MARK={mark}".encode() in (entry / "environ").read_bytes()
            ):
                found.append((entry / "cmdline").read_text().replace("\0", " "))
    return found
