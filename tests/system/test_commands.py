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
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

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
        return cls(process, json.loads(await asyncio.wait_for(process.stdout.readline(), 60)))

    async def stop(self, number: int = signal.SIGINT) -> None:
        """As Ctrl-C does; nothing of it may be left."""
        if self.process.returncode is None:
            self.process.send_signal(number)
            await asyncio.wait_for(self.process.communicate(), 30)
        services = self.document["services"]
        urls = [self.document["rpc_url"], services["market"], services["results"], *services["sms"]]
        assert all(closed(url) for url in urls)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shell(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Shell:
    return Shell(tmp_path_factory.mktemp("home"), cache)


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
    }
    assert set(said["services"]) == {
        "market",
        "results",
        "ipfs_gateway",
        "ipfs_node",
        "scheduler",
        "compass",
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
    data = await shell.json("dataset", "protect", "patients.csv")
    await shell.json("dataset", "grant", data["dataset"], "--app", app["app"], "--price", "0.25")
    deal = await shell.json("deal", "run", app["app"], "--dataset", data["dataset"], "--args", "one two")
    (taskid,) = deal["tasks"]
    assert (await shell.json("deal", "show", deal["deal"]))["tasks"] == {taskid: "COMPLETED"}
    shown = await shell.json("task", "show", taskid)
    assert shown["status"] == "COMPLETED"
    steps, _ = await shell.run("task", "show", taskid, "--follow")
    assert "attested" in steps
    got = await shell.json("result", "get", taskid, "--out", "result")
    assert json.loads((shell.home / "result" / "result.json").read_text())["bytes"] == 6
    assert (await shell.json("result", "verify", got["receipt"]))["verified"] is True
    owned = await shell.json("account", "show")
    assert (owned["stake"], owned["locked"]) == ("19 RLC", "0 RLC")  # it sold the app and the data to itself
    await shell.json("account", "withdraw", "19")
    assert (await shell.json("wallet", "show"))["wallet"] == "49 RLC"


async def test_mistakes_are_told_in_one_line(shell: Shell, up: Up) -> None:
    for arguments, says in {
        ("deal", "show", "0x12"): "expected 32 bytes",
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
    for seconds in (0.5, 2.5, 4.0, 5.5):
        mark = secrets.token_hex(8)
        process = await shell.start("demo", mark=mark)
        await asyncio.sleep(seconds)
        assert marked(mark)
        process.send_signal(signal.SIGINT)
        _, err = await asyncio.wait_for(process.communicate(), 30)
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
