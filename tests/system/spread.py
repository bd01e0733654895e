"""A network as `sealdeal units` writes it: a process for each service, in a network namespace of its own.

The chain and PostgreSQL are this process's; the others reach them over a bridge and a Unix socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from sealdeal.chain import Anvil
from sealdeal.cli.units import write
from sealdeal.model.keys import Key
from sealdeal.model.types import unhex
from sealdeal.sdk.guest_release import build_guest_release
from sealdeal.sdk.network import Network
from tests.postgres import programs, running

from .conftest import World

COUNTS: dict[str, Any] = {"market": 2, "pool": 2, "sms": 3, "worker": 4}
NAMES = ["results", *(f"{kind}-{n}" for kind, count in COUNTS.items() for n in range(count))]


def ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"


def namespaces() -> bool:
    """Whether this machine lets us make network namespaces and join them by a bridge."""
    name = f"sd{secrets.token_hex(3)}"
    tried = [
        ["ip", "link", "add", name, "type", "bridge"],
        ["ip", "netns", "add", name],
        ["ip", "netns", "exec", name, "true"],
    ]
    try:
        return shutil.which("ip") is not None and all(
            subprocess.run(words, capture_output=True).returncode == 0 for words in tried
        )
    finally:
        for words in (["ip", "netns", "del", name], ["ip", "link", "del", name]):
            with contextlib.suppress(OSError):
                subprocess.run(words, capture_output=True)


@dataclass
class Spread:
    """The processes by name, and how clients find them."""

    folder: Path
    cache: Path
    bridge: str
    """Name of the bridge and start of the namespaces'; empty: all on the loopback interface."""
    stranger: str
    """An address of this machine that our clients do not come from."""
    children: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)

    @property
    def network(self) -> Network:
        return Network.load(self.folder / "network.json")

    def seen_from(self, number: int) -> Any:
        """What a client knows whose market and scheduler are the ones of this number."""
        at = self.network.services
        services = replace(at, market=self.url(f"market-{number}"), scheduler=self.url(f"pool-{number}"))
        return SimpleNamespace(network=replace(self.network, services=services), transports={})

    def settings(self, name: str) -> dict[str, str]:
        lines = (self.folder / f"{name}.env").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)

    def key(self, name: str) -> Key:
        return Key(unhex((self.folder / "keys" / f"{name}.key").read_text().strip()))

    def url(self, name: str) -> str:
        return self.settings(name)["SEALDEAL_PUBLIC_URL"]

    async def start(self, name: str) -> None:
        """Start it as its unit does, and wait until it answers."""
        unit = (self.folder / "systemd" / f"sealdeal-{name}.service").read_text()
        (words,) = [line.split()[1:] for line in unit.splitlines() if line.startswith("ExecStart=")]
        inside = ["ip", "netns", "exec", f"{self.bridge}{NAMES.index(name)}"] if self.bridge else []
        # a machine for each worker: this one's halves would not do for four
        small = {"SEALDEAL_WORKER_MEMORY": "1GiB", "SEALDEAL_WORKER_CPUS": "1"}
        with (self.folder / f"{name}.log").open("ab") as log:
            self.children[name] = child = await asyncio.create_subprocess_exec(
                *inside,
                *[sys.executable, "-m", "sealdeal", *words],
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env={**os.environ, **small, **self.settings(name), "SEALDEAL_CACHE": str(self.cache)},
                start_new_session=True,
            )
        assert child.stdout is not None
        said = await asyncio.wait_for(child.stdout.readline(), 120)
        assert said, (self.folder / f"{name}.log").read_text()[-2000:]

    async def kill(self, name: str) -> None:
        """SIGKILL: no farewell."""
        child = self.children.pop(name)
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()

    async def end(self) -> None:
        await asyncio.gather(*(self.kill(name) for name in list(self.children)))


@asynccontextmanager
async def relay(host: str, port: int, to: int) -> AsyncIterator[None]:
    """Hand what comes to host:port on to a port of this machine that listens on 127.0.0.1 only."""

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await source.read(1 << 16):
                sink.write(piece)
                await sink.drain()
        sink.close()

    async def passed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", to)
        await asyncio.gather(pump(reader, back), pump(there, writer))

    server = await asyncio.start_server(passed, host, port)
    try:
        yield
    finally:
        server.close()


async def _databases(url: str) -> str:
    """Make each service's database; their URL with `{service}`."""
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        for name in ("market", "pool", "results", *(f"sms_{n}" for n in range(COUNTS["sms"]))):
            await connection.execute(sa.text(f'CREATE DATABASE "{name}"'))
    await engine.dispose()
    return url.replace("/postgres?", "/{service}?")


@asynccontextmanager
async def spread(folder: Path, cache: Path) -> AsyncIterator[tuple[World, Spread]]:
    """The whole network, every process in a namespace if this machine allows it."""
    bin = programs()
    assert bin is not None
    async with AsyncExitStack() as stack:
        url = stack.enter_context(running(bin, "-c fsync=off -c max_connections=200"))
        anvil = await stack.enter_async_context(Anvil(chain_id=65_535))
        bridge = f"sd{secrets.token_hex(3)}" if namespaces() else ""
        hosts: tuple[str, ...] = ()
        rpc_url, subnet = anvil.url, ""
        if bridge:
            subnet = f"10.{secrets.randbelow(100) + 100}.{secrets.randbelow(250)}"
            ip("link", "add", bridge, "type", "bridge")
            stack.callback(ip, "link", "del", bridge)
            ip("addr", "add", f"{subnet}.1/24", "dev", bridge)
            ip("addr", "add", f"{subnet}.2/24", "dev", bridge)
            ip("link", "set", bridge, "up")
            for number in range(len(NAMES)):
                name = f"{bridge}{number}"
                ip("netns", "add", name)
                stack.callback(ip, "netns", "del", name)
                ip("link", "add", name, "master", bridge, "type", "veth", "peer", "eth0", "netns", name)
                ip("link", "set", name, "up")
                ip("-n", name, "addr", "add", f"{subnet}.{number + 10}/24", "dev", "eth0")
                ip("-n", name, "link", "set", "eth0", "up")
                ip("-n", name, "link", "set", "lo", "up")
            hosts = tuple(f"{name}={subnet}.{number + 10}" for number, name in enumerate(NAMES))
            await stack.enter_async_context(relay(f"{subnet}.1", anvil.port, anvil.port))
            rpc_url = f"http://{subnet}.1:{anvil.port}"
        network = folder / "network"
        await write(
            network, rpc_url=rpc_url, database=await _databases(url), host=hosts, threshold=2, **COUNTS
        )
        await asyncio.to_thread(build_guest_release, cache)  # once, rather than in each process
        made = Spread(network, cache, bridge, f"{subnet}.2" if bridge else "127.0.0.1")
        stack.push_async_callback(made.end)
        await asyncio.gather(*(made.start(name) for name in NAMES))
        world = World(made.seen_from(0), folder, cache)
        await stack.enter_async_context(world.stack)
        yield world, made
