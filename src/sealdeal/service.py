"""One service of a network in a process of its own, beside others on this machine or elsewhere.

`run` starts one of `SERVICES` for the network that a document describes (sdk.network). What it keeps lies in
its database and its state folder, so that a process that is killed goes on where it was when it is started
again. Two markets, schedulers or result stores may share a PostgreSQL database; each SMS node has its own.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from starlette.types import ASGIApp

from sealdeal.chain import Heartbeat, Hub, Quorum, Rpc, Sender, Wallet
from sealdeal.chain.local import is_development_chain
from sealdeal.market.app import create_app as market_app
from sealdeal.market.market import Market
from sealdeal.market.options import MarketOptions
from sealdeal.market.subgraphs import Subgraphs
from sealdeal.model.bulk import MAX_DOCUMENT_BYTES
from sealdeal.model.errors import InvalidInput, SealdealError
from sealdeal.model.evidence import DCAP, SEV_SNP
from sealdeal.model.keys import Key
from sealdeal.model.types import Address, keccak, unhex
from sealdeal.node import OFFERS
from sealdeal.pool.app import create_app as pool_app
from sealdeal.pool.offers import Offer, Offers
from sealdeal.pool.rules import PoolSettings
from sealdeal.pool.scheduler import Scheduler
from sealdeal.results.app import create_app as results_app
from sealdeal.results.places import open_blobs
from sealdeal.results.uploads import Results
from sealdeal.sdk import serving
from sealdeal.sdk.guest_release import build_guest_release
from sealdeal.sdk.http import Failover
from sealdeal.sdk.market import MarketClient
from sealdeal.sdk.network import Network
from sealdeal.sdk.pool import PoolClient
from sealdeal.sdk.registry import Registries
from sealdeal.sdk.results import ResultsClient
from sealdeal.sdk.sms import SmsClient
from sealdeal.sdk.vendors import vendor_get
from sealdeal.sms.app import create_app as sms_app
from sealdeal.sms.options import SmsOptions
from sealdeal.sms.release import Node
from sealdeal.tee import DcapVerifier, SimulatedPlatform, vendors
from sealdeal.tee.collateral import AMD_URL, INTEL_URL, AmdKds, Collateral, Pccs, Source
from sealdeal.worker.agent import Worker
from sealdeal.worker.options import WorkerOptions
from sealdeal.worker.proxy import NetworkMode

log = logging.getLogger("sealdeal.service")

PATIENCE = 60.0
"""Seconds for which a chain that does not answer is asked again."""
STORE_PATIENCE = 60.0
"""Seconds for which a worker tries to reach the result store."""
NODE_PATIENCE = 30.0
"""Seconds for which a scheduler that starts waits for a silent SMS node, once enough others have answered."""


@dataclass(frozen=True)
class Hosting:
    """What an operator says of one service."""

    network: Network
    key: Key
    """A market's matcher's, the workerpool's owner's, a worker's, an SMS node's, or a result store's."""
    state: Path
    """Folder of this service's own: transactions on their way, caches, an SQLite database."""
    cache: Path
    database: str = ""
    """URL; empty: an SQLite file in `state`."""
    listen: tuple[str, int] = ("127.0.0.1", 0)
    public_url: str = ""
    """As others reach this service; empty: as it listens."""
    confirmations: int = 1
    origin: int = 0
    """A block before the network's contracts were deployed, from which the chain is read."""
    platform: SimulatedPlatform | None = None
    """Of a worker in a simulated network."""
    blobs: str = ""
    """Where a result store keeps content (results.places); empty: a folder in `state`."""
    schedulers: tuple[str, ...] = ()
    """URLs of the pool's schedulers, for a worker; none: the network's."""
    offers: tuple[Offer, ...] = OFFERS
    """What a scheduler keeps published."""
    market: MarketOptions = field(default_factory=MarketOptions)
    sms: SmsOptions = field(default_factory=SmsOptions)
    unsafe_simulated_public: bool = False
    """Whether a simulated SMS node answers other machines."""
    worker: WorkerOptions = field(default_factory=WorkerOptions)
    registries: Registries | None = None
    app_network: NetworkMode = "off"


async def run(service: str, hosting: Hosting, ready: Callable[[str], None]) -> None:
    """Run one of `SERVICES` until cancelled; `ready` is told its URL (a worker's address) when it answers.

    Raises InvalidInput for what does not fit, and what the service fails with.
    """
    if service not in SERVICES:
        raise InvalidInput(f"expected one of {', '.join(SERVICES)}, got {service!r}")
    _allow_many_files()
    async with AsyncExitStack() as stack:
        process = _Process(hosting, stack)
        await SERVICES[service](process)
        try:
            async with asyncio.TaskGroup() as group:
                for work in process.work:
                    group.create_task(work)
                ready(process.name)
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None  # the first says why; the others were stopped for it


def _allow_many_files() -> None:
    """Have as many connections as the system allows: a shell's 1,024 are soon used up by idle clients."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class _Process:
    """What one process opens, and closes at its end."""

    def __init__(self, hosting: Hosting, stack: AsyncExitStack) -> None:
        self.hosting, self.stack = hosting, stack
        self.network, self.key = hosting.network, hosting.key
        self.work: list[Coroutine[Any, Any, None]] = []
        self.name = ""
        hosting.state.mkdir(parents=True, exist_ok=True)
        self.rpc = Rpc(self.network.rpc_url, patience=PATIENCE)
        self.closes(self.rpc.aclose)
        self.sender = Sender(self.rpc, Wallet(self.key), outbox=hosting.state / "outbox")
        self.hub = Hub(self.rpc, self.network.contracts)
        self.acting = self.hub.using(self.sender)

    def closes(self, close: Callable[[], Awaitable[Any]]) -> None:
        self.stack.push_async_callback(close)

    @property
    def database(self) -> str:
        file = (self.hosting.state / "service.db").absolute()
        return self.hosting.database or f"sqlite+aiosqlite:///{file}"

    def listen(self) -> socket.socket:
        """Bind, so that the URL is known; who connects from now on is answered once `serve` runs."""
        host, port = self.hosting.listen
        try:
            family, kind, protocol, _, where = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=socket.AI_PASSIVE
            )[0]
            listener = socket.socket(family, kind, protocol)
            self.stack.callback(listener.close)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(where)
        except OSError as failed:
            raise InvalidInput(
                f"expected an address to listen at, got {host}:{port}: {failed.strerror}"
            ) from None
        shown = f"[{host}]" if ":" in host else host
        self.name = self.hosting.public_url or f"http://{shown}:{listener.getsockname()[1]}"
        return listener

    def serve(self, app: ASGIApp, listener: socket.socket) -> None:
        self.work.append(serving.Server(serving.config(app)).answer(listener))

    async def nodes(self) -> tuple[tuple[Address, str], ...]:
        """The quorum's members that answer, and their URLs: all, unless some are silent for too long."""
        if self.network.contracts.quorum is None:
            return ()
        needed = await Quorum(self.rpc, self.network.contracts.quorum).threshold()
        found: dict[str, Address] = {}
        clock = asyncio.get_running_loop().time
        began = clock()
        while len(found) < len(self.network.services.sms):
            for url in self.network.services.sms:
                if url not in found:
                    try:
                        async with SmsClient(url) as client:
                            found[url] = (await client.node()).address
                    except SealdealError as silent:
                        log.warning("%s", silent)
            if len(found) >= needed and clock() - began > NODE_PATIENCE:
                break
            await asyncio.sleep(0.5 if len(found) < len(self.network.services.sms) else 0)
        return tuple((found[url], url) for url in self.network.services.sms if url in found)


# --- the services ---------------------------------------------------------------------------------


async def _market(process: _Process) -> None:
    said, listener = process.hosting, process.listen()
    market = await Market.open(
        process.database,
        process.acting,
        limits=said.market.limits,
        private_webhooks=said.market.private_webhooks,
        origin=said.origin,
    )
    process.closes(market.close)
    store = ResultsClient(process.network.services.results)
    process.closes(store.close)
    market.subgraphs = subgraphs = await Subgraphs.open(
        process.database,
        process.hub,
        protector=process.network.contracts.dataprotector,
        fetch=partial(store.fetch, limit=MAX_DOCUMENT_BYTES),
        origin=said.origin,
    )
    process.closes(subgraphs.close)
    process.serve(market_app(market), listener)
    process.work += [market.run(), subgraphs.run()]


async def _pool(process: _Process) -> None:
    said, network, listener = process.hosting, process.network, process.listen()
    if network.workerpool is None:
        raise InvalidInput("expected `workerpool` in the network file, the pool to schedule for; got none")
    settings = PoolSettings(
        workerpool=network.workerpool,
        nodes=await process.nodes(),
        results_url=network.services.results,
        public_url=process.name,
        confirmations=said.confirmations,
        origin=said.origin,
    )
    heart = (
        Heartbeat(process.rpc, depth=said.confirmations) if await is_development_chain(process.rpc) else None
    )
    scheduler = await Scheduler.open(
        process.database,
        process.acting,
        process.key,
        settings,
        waiting=heart.waiting if heart else None,
    )
    process.closes(scheduler.close)
    process.serve(pool_app(scheduler), listener)
    market = MarketClient(network.services.market, network.chain_id)
    process.closes(market.close)
    offers = Offers(process.acting, process.key, settings.workerpool, market, said.offers)
    process.work += [scheduler.run(), offers.run(), *([heart.run()] if heart else [])]


async def _results(process: _Process) -> None:
    listener = process.listen()
    blobs = open_blobs(process.hosting.blobs, process.hosting.state / "blobs")
    tokens = keccak(b"sealdeal upload tokens" + process.key.secret)
    results = await Results.open(process.database, blobs, process.hub, process.key, tokens)
    process.closes(results.close)
    process.serve(results_app(results), listener)


async def _sms(process: _Process) -> None:
    said, network, listener = process.hosting, process.network, process.listen()
    simulated = network.trust == "simulated"
    if simulated and network.tee_root is None:
        raise InvalidInput("expected `tee_root` in the file of a simulated network, got none")
    get = vendor_get()
    sources: dict[str, Source] = {DCAP: Pccs(get, INTEL_URL), SEV_SNP: AmdKds(get, AMD_URL)}
    witness = Rpc(said.sms.witness_rpc) if said.sms.witness_rpc else None
    if witness:
        process.closes(witness.aclose)
    storage_key = await said.sms.storage_key(process.key.address)
    if storage_key is None:
        raise InvalidInput(
            "expected a key for the node's database: set SEALDEAL_SMS_STORAGE_KEY_FILE or "
            "SEALDEAL_SMS_STORAGE_KEY_COMMAND"
        )
    peers = [SmsClient(url) for url in network.services.sms if url != process.name]
    for peer in peers:
        process.closes(peer.close)
    release = await asyncio.to_thread(build_guest_release, said.cache)
    node = await Node.open(
        process.database,
        key=process.key,
        storage_key=storage_key,
        hub=process.hub,
        verifiers=[DcapVerifier(unhex(network.tee_root or ""))] if simulated else vendors(),
        guest_releases=[release.digest],
        confirmations=said.confirmations,
        door=said.sms.door,
        peers=peers,
        witness=witness,
        policies=said.sms.policies(),
        collateral=None if simulated else Collateral(sources, folder=said.state / "collateral"),
    )
    process.closes(node.close)
    process.serve(sms_app(node, unsafe_simulated_public=said.unsafe_simulated_public), listener)


async def _worker(process: _Process) -> None:
    said, network = process.hosting, process.network
    if said.platform is None:
        raise InvalidInput(
            "expected a simulated platform for this worker: set SEALDEAL_PLATFORM to the network's "
            "platform.json (this version starts guests on simulated platforms only)"
        )
    urls = said.schedulers or ((network.services.scheduler,) if network.services.scheduler else ())
    if not urls:
        raise InvalidInput("expected a scheduler to work for: set SEALDEAL_SCHEDULERS to its URL")
    pool = PoolClient(urls[0], key=process.key, transport=Failover(urls))
    store = network.services.results  # a result that is computed is worth a wait
    results = ResultsClient(store, transport=Failover([store], STORE_PATIENCE))
    for client in (pool, results):
        process.closes(client.close)
    bounds = said.worker.bounds(1)
    worker = Worker(
        hub=process.hub,
        sender=process.sender,
        pool=pool,
        results=results,
        sms={},  # the scheduler names them, and the quorum's contract says which count
        platform=said.platform,
        release=await asyncio.to_thread(build_guest_release, said.cache),
        cache=said.state,
        confirmations=said.confirmations,
        slots=said.worker.slots,
        driver=said.worker.driver,
        bounds=bounds,
        limits=said.worker.limits(bounds),
        network=said.app_network,
        registries=said.registries,
    )
    for limit in worker.missing:
        log.warning("not enforced on this machine: %s", limit)
    process.name = process.key.address
    process.work.append(worker.run())


SERVICES: Final[dict[str, Callable[[_Process], Awaitable[None]]]] = {
    "market": _market,
    "pool": _pool,
    "worker": _worker,
    "sms": _sms,
    "results": _results,
}
