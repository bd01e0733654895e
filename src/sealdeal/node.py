"""Assembly: which parts of a network run in this process, and who talks to whom.

`LocalNetwork` is a whole network in one process besides the chain: market, SMS nodes, scheduler, workers
and result store, each on its own port of this machine for clients outside, and in memory for each other.
Its state lies in one folder; started again on it, the network continues where it was. Several processes may
each run some `parts` of one folder's network: then those meet over HTTP.

    network.json      what clients need to find it (sdk.network)
    local.json        keys, ports and addresses, mode 600: a local network's keys are throw-away
    chain.json.gz     the chain, as anvil dumps it
    *.db              databases; blobs/ the result store; worker-N/ caches; outbox/ transactions under way
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import httpx2
from starlette.types import ASGIApp

from sealdeal.chain import (
    CATEGORIES,
    Addresses,
    Anvil,
    DeployOptions,
    Hub,
    QuorumTerms,
    Rpc,
    Sender,
    Wallet,
    deploy,
    deploy_data_protector,
)
from sealdeal.chain.door import GasDoor
from sealdeal.market.options import MarketOptions
from sealdeal.model.errors import Conflict, InvalidInput, SealdealError
from sealdeal.model.evidence import DCAP
from sealdeal.model.keys import Key
from sealdeal.model.sealing import Door
from sealdeal.model.types import RLC, address, hexstr, unhex
from sealdeal.pool.offers import OFFERS, Offer
from sealdeal.pool.rules import Rules
from sealdeal.sdk import serving
from sealdeal.sdk.guest_release import GuestRelease, build_guest_release
from sealdeal.sdk.http import Transport, in_memory
from sealdeal.sdk.network import Network, Services
from sealdeal.sdk.registry import Registries
from sealdeal.sdk.sms import SmsClient
from sealdeal.services import market, memory, pool, results, sms
from sealdeal.services import worker as workers
from sealdeal.services.hosting import Hosting, Process
from sealdeal.sms.options import SmsOptions
from sealdeal.tee import SimulatedPlatform
from sealdeal.tee.collateral import Collateral
from sealdeal.worker import drivers
from sealdeal.worker.cgroups import Bounds
from sealdeal.worker.options import WorkerOptions
from sealdeal.worker.proxy import NetworkMode
from sealdeal.worker.vm.measure import MachinePlatform, of_any_app

log = logging.getLogger("sealdeal.node")

CHAIN_ID = 65_535
NODES, THRESHOLD, WORKERS = 3, 2, 2
POOL_STAKE = 10_000 * RLC
"""Put in escrow by the workerpool's owner when a network is made: it covers the offers below."""
GAS_MONEY = 10_000 * 10**18
"""Native currency given to each account of a local network, in wei."""
SAVE_EVERY = 5.0
"""Seconds between dumps of the chain while it grows: what a SIGKILL of this process may cost."""

LOCAL_MARKET = MarketOptions()
LOCAL_SMS = SmsOptions(door=Door.SPLIT)
"""A local network takes whole secrets from unmodified clients, and splits them."""
LOCAL_WORKERS = WorkerOptions()
"""Its workers share the machine."""

_SMS = tuple(f"sms-{n}" for n in range(NODES))
_SERVED = ("results", *_SMS, "market", "scheduler")
_OUTBOXES = {"market": "matcher", "scheduler": "workerpool_owner"}


class LocalNetwork:
    """A network of simulated TEEs on this machine. Use it as an async context; `wait` keeps it running."""

    def __init__(
        self,
        state: Path,
        *,
        cache: Path,
        anvil: Path | None = None,
        chain_id: int = CHAIN_ID,
        confirmations: int = 1,
        workers: int = WORKERS,
        categories: tuple[tuple[str, str, int], ...] = (),
        offers: tuple[Offer, ...] = OFFERS,
        rules: Rules | None = None,
        worker: WorkerOptions = LOCAL_WORKERS,
        bounds: Bounds | None = None,
        registries: Registries | None = None,
        market: MarketOptions = LOCAL_MARKET,
        sms: SmsOptions = LOCAL_SMS,
        app_network: NetworkMode = "off",
        result_store: str = "",
        parts: Collection[str] | None = None,
        tap: Callable[[str, ASGIApp], ASGIApp] | None = None,
    ) -> None:
        """`state`, `cache`: folders, made when they do not exist. `categories`: (name, description, seconds)
        to add to the five of the protocol. `offers`: what the workerpool keeps published; `rules`: its
        scheduler's. `market`: its market's. `sms`: its nodes'. `worker`: its workers'; `bounds`: of
        each guest, if not as that says. `registries`: of images, known to workers. `app_network`:
        whether apps may reach the hosts that they declare. `result_store`: where content is kept, if not in
        `state` (results.places). `parts`: which of `chain, results,
        sms-0…, market, scheduler, worker-0…` run here; who has `chain` begins a network. `tap` is put around
        each service's application, given its name, to watch what it is asked and answers.
        """
        self._worker_names = tuple(f"worker-{n}" for n in range(workers))
        everything = ("chain", *_SERVED, *self._worker_names)
        self.parts = frozenset(everything if parts is None else parts)
        if unknown := self.parts - set(everything):
            raise InvalidInput(
                f"expected parts among {', '.join(everything)}; got {', '.join(sorted(unknown))}"
            )
        self.state, self.cache = state, cache
        self.chain_id, self.confirmations = chain_id, confirmations
        self._anvil_binary, self._categories, self._offers, self._tap = anvil, categories, offers, tap
        self._rules, self._sms_options, self._market_options = rules or Rules(), sms, market
        here = len(self.parts.intersection(self._worker_names))
        self._worker_options = worker
        self._bounds = bounds or (worker.bounds(here) if here else Bounds())
        self._registries = registries
        self._app_network: NetworkMode = app_network
        self._result_store = result_store
        self._stack = contextlib.AsyncExitStack()
        self._tasks: list[asyncio.Task[None]] = []
        self._failed: asyncio.Future[None] | None = None
        self.transports: dict[str, Transport] = {}
        """By URL: how a client in this process reaches each service in memory."""
        self.missing: tuple[str, ...] = ()
        """Limits on apps that this machine cannot enforce."""

    # --- life -------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def wait(self) -> None:
        """Run until cancelled; raises what a part failed with, if one does."""
        assert self._failed is not None
        await self._failed

    async def stop(self) -> None:
        """Stop every part, workers first, and save the chain. Safe to call twice."""
        workers = [task for task in self._tasks if task.get_name() in self._worker_names]
        for group in (workers, self._tasks):
            for task in group:
                task.cancel()
            await asyncio.gather(*group, return_exceptions=True)
        self._tasks.clear()
        await self._stack.aclose()

    def _run(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Keep a part running; its failure is the network's."""

        async def watched() -> None:
            try:
                await work
            except Exception as wrong:
                log.exception("%s stopped", name)
                assert self._failed is not None
                if not self._failed.done():
                    self._failed.set_exception(wrong)

        task = asyncio.create_task(watched(), name=name)
        task.add_done_callback(lambda _: work.close())  # of one that was cancelled before it began
        self._tasks.append(task)

    def _close_at_end(self, close: Callable[[], Awaitable[Any]]) -> None:
        self._stack.push_async_callback(close)

    # --- start ------------------------------------------------------------------------------------

    async def _start(self) -> None:
        memory.give_back()
        self._failed = asyncio.get_running_loop().create_future()
        self._failed.add_done_callback(lambda f: f.cancelled() or f.exception())
        self.state.mkdir(parents=True, exist_ok=True)
        first = "chain" in self.parts
        if first:
            self._stack.enter_context(_locked(self.state))
        self._kept = Kept.load(self.state / "local.json", self._worker_names, may_write=first)
        self._listeners = {name: self._listen(name) for name in _SERVED if first or name in self.parts}
        building = asyncio.create_task(asyncio.to_thread(build_guest_release, self.cache))
        try:
            await (self._start_chain() if first else self._join_chain())
        finally:
            self.release = await building
        if first:
            self._start_door()
        self.platform = self._platform()
        self._machine = await asyncio.to_thread(
            drivers.machine, self._worker_options.driver, self.release, self.cache
        )
        starts: dict[str, Callable[[], Awaitable[None]]] = {
            "results": self._start_results,
            **{name: partial(self._start_sms, name) for name in _SMS},
            "market": self._start_market,
            "scheduler": self._start_scheduler,
            **{name: partial(self._start_worker, name) for name in self._worker_names},
        }
        for name, start in starts.items():
            if name in self.parts:
                await start()
        if first:
            _write_private(self.state / "network.json", json.dumps(self.network.to_json(), indent=1))
            self._kept.save()
            self._run("save", self._save_often())

    async def _join_chain(self) -> None:
        """Use the chain that another process of this network runs."""
        self.rpc = Rpc(f"http://127.0.0.1:{self._kept.ports['chain']}", patience=60.0)
        self._close_at_end(self.rpc.aclose)
        self.addresses = Addresses.from_json(self._kept.addresses or {})
        self.hub = Hub(self.rpc, self.addresses)

    async def _start_chain(self) -> None:
        anvil = Anvil(
            binary=self._anvil_binary,
            port=self._kept.ports.get("chain", 0),
            chain_id=self.chain_id,
            state=self.state / "chain.json.gz",
        )
        self._kept.ports["chain"] = anvil.port
        self.anvil = await self._stack.enter_async_context(anvil)
        self.rpc = Rpc(anvil.url, patience=60.0)
        self._close_at_end(self.rpc.aclose)
        if self._kept.addresses is None:
            self._kept.addresses = (await self._make_network()).to_json()
            await anvil.save()
            self._kept.save()
        self._close_at_end(anvil.save)
        self.addresses = Addresses.from_json(self._kept.addresses)
        if self.addresses.dataprotector is None:  # the network is older than this contract
            registry = self.addresses.datasetregistry
            made = await deploy_data_protector(self._sender("hub_owner"), registry)
            self.addresses = replace(self.addresses, dataprotector=made)
            self._kept.addresses = self.addresses.to_json()
            await anvil.save()
            self._kept.save()
        self.hub = Hub(self.rpc, self.addresses)

    def _start_door(self) -> None:
        """Where wallets meet the chain: their estimates of gas get a margin there."""
        door = GasDoor(self.rpc.url)
        self._close_at_end(door.close)
        self._listeners["rpc"] = self._listen("rpc")
        self._serve("rpc", door.app)

    async def _make_network(self) -> Addresses:
        """Deploy the contracts, fund the accounts, and make the workerpool."""
        await asyncio.gather(*(self.anvil.fund(self._key(n).address, GAS_MONEY) for n in self._kept.keys))
        owner, funder, pool = (self._key(n) for n in ("hub_owner", "funder", "workerpool_owner"))
        options = DeployOptions(
            categories=(*CATEGORIES, *self._categories),
            holder=funder.address,
            broker=QuorumTerms([self._key(name).address for name in _SMS], THRESHOLD, "simulated"),
        )
        addresses = await deploy(Sender(self.rpc, Wallet(owner)), options)
        hub = Hub(self.rpc, addresses)
        await hub.using(Sender(self.rpc, Wallet(funder))).transfer_token(pool.address, POOL_STAKE)
        pool_hub = hub.using(Sender(self.rpc, Wallet(pool)))
        made, _ = await pool_hub.create_workerpool("[simulated] local workerpool of this machine")
        await pool_hub.deposit(POOL_STAKE)
        self._kept.workerpool = made
        return addresses

    def _platform(self) -> SimulatedPlatform:
        """This machine's simulated TEE hardware; its root is what the network's nodes trust."""
        path = self.state / "platform.json"
        if not path.exists():
            _write_private(path, SimulatedPlatform.generate(int(time.time())).to_json())
        return SimulatedPlatform.from_json(path.read_text())

    async def _start_results(self) -> None:
        part = self._part("results", "store")
        await results.start(part, self._result_store)
        self._work(part)

    async def _start_sms(self, name: str) -> None:
        part = self._part(name, name)
        await sms.start(
            part,
            self._sms_options,
            name=name,
            storage_key=self._key(f"{name}-storage").secret,
            collateral=Collateral({DCAP: self.platform}),
            machines=[of_any_app(self._machine)] if self._machine else [],
        )
        self._work(part)

    async def _start_market(self) -> None:
        part = self._part("market", "matcher")
        await market.start(part, self._market_options)
        self._work(part)

    async def _start_scheduler(self) -> None:
        part = self._part("scheduler", "workerpool_owner")
        nodes = tuple((self._key(name).address, self._url(name)) for name in _SMS)
        self.scheduler, offers = await pool.start(part, self._offers, rules=self._rules, nodes=nodes)
        await offers.renew_all()  # whoever comes when the network is up finds them
        self._work(part)

    async def _start_worker(self, name: str) -> None:
        part = self._part(name, name, state=self.state / name)
        nodes = {n: SmsClient(self._url(n), transport=part.transport(self._url(n))) for n in _SMS}
        for client in nodes.values():
            self._close_at_end(client.close)
        worker = await workers.start(
            part,
            self._worker_options,
            platform=MachinePlatform(self._machine, self.platform) if self._machine else self.platform,
            registries=self._registries,
            app_network=self._app_network,
            bounds=self._bounds,
            sms={self._key(n).address: client for n, client in nodes.items()},
            warn=False,  # `missing` has it
        )
        self.missing = tuple(worker.missing)
        self._work(part)

    async def _save_often(self) -> None:
        saved = -1
        while True:
            await asyncio.sleep(SAVE_EVERY)
            with contextlib.suppress(SealdealError):
                head = (await self.hub.block()).number
                if head != saved:
                    await self.anvil.save()
                    saved = head

    # --- parts ------------------------------------------------------------------------------------

    def _part(self, name: str, key: str, *, state: Path | None = None) -> _Part:
        """Where the service of this name runs, with this key."""
        said = Hosting(
            network=self.network,
            key=self._key(key),
            state=state or self.state,
            cache=self.cache,
            database=self._database("pool" if name == "scheduler" else name),
            confirmations=self.confirmations,
        )
        return _Part(self, name, said, self._stack)

    def _work(self, part: _Part) -> None:
        for work in part.work:
            self._run(part.role, work)

    def _key(self, name: str) -> Key:
        return Key(unhex(self._kept.keys[name]))

    def _sender(self, name: str) -> Sender:
        return Sender(self.rpc, Wallet(self._key(name)), outbox=self.state / "outbox" / name)

    def _database(self, name: str) -> str:
        return f"sqlite+aiosqlite:///{(self.state / f'{name}.db').absolute()}"

    def _url(self, name: str) -> str:
        return f"http://127.0.0.1:{self._kept.ports[name]}"

    def _listen(self, name: str) -> socket.socket:
        """A socket on the port kept for a service, or on a free one that is kept from now on.

        The process with the chain has one for each service and listens on none but its own: it holds the
        others against strangers, while SO_REUSEADDR lets the process that runs the service listen there.
        """
        # IPPROTO_TCP: without it asyncio does not set TCP_NODELAY, and each request costs 40 ms
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._stack.callback(listener.close)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        port = self._kept.ports.get(name, 0)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as busy:
            raise Conflict(
                f"port {port}, kept for {name} in {self.state}, is taken: {busy.strerror}"
            ) from None
        self._kept.ports[name] = listener.getsockname()[1]
        return listener

    def _serve(self, name: str, app: ASGIApp) -> None:
        """Answer on the service's port, and in memory."""
        app = self._tap(name, app) if self._tap else app
        self.transports[self._url(name)] = in_memory(app)
        self._run(f"{name} server", serving.Server(serving.config(app)).answer(self._listeners[name]))

    # --- what users see ---------------------------------------------------------------------------

    @property
    def network(self) -> Network:
        """What clients need to know, with the local network's throw-away keys."""
        keys = {name: self._key(name) for name in ("funder", "hub_owner", "workerpool_owner")}
        store, scheduler, market = (self._url(n) for n in ("results", "scheduler", "market"))
        return Network(
            rpc_url=self._url("rpc"),
            chain_id=self.chain_id,
            contracts=self.addresses,
            services=Services(
                market=market,
                results=store,
                scheduler=scheduler,
                sms=tuple(self._url(name) for name in _SMS),
                ipfs_gateway=store,
                ipfs_node=store,
                compass=scheduler,
                subgraph=f"{market}/subgraphs/dataprotector",
                poco_subgraph=f"{market}/subgraphs/poco",
            ),
            workerpool=address(self._kept.workerpool or ""),
            trust="simulated",
            tee_root=hexstr(self.platform.root_der),
            accounts={n: {"address": k.address, "key": hexstr(k.secret)} for n, k in keys.items()},
        )

    def worker_keys(self) -> list[Key]:
        """The wallets that this network's workers sign with and are paid to."""
        return [self._key(name) for name in self._worker_names]


class Kept:
    """What a local network remembers of itself besides chain and databases: keys, ports, addresses."""

    def __init__(self, path: Path, content: dict[str, Any]) -> None:
        self.path = path
        self.keys: dict[str, str] = content.get("keys", {})
        self.ports: dict[str, int] = content.get("ports", {})
        self.addresses: dict[str, Any] | None = content.get("addresses")
        self.workerpool: str | None = content.get("workerpool")

    @classmethod
    def load(cls, path: Path, workers: Collection[str], *, may_write: bool) -> Kept:
        """Read it; who may write begins it, and makes the keys that are missing.

        Raises Conflict for a file that is damaged, or that another process should have made.
        """
        if not may_write and not path.exists():
            raise Conflict(
                f"there is no network in {path.parent} yet: start the process with its chain first"
            )
        try:
            kept = cls(path, json.loads(path.read_text()) if path.exists() else {})
        except (ValueError, AttributeError):
            raise Conflict(
                f"{path} is damaged: restore it, or begin anew with another --state folder"
            ) from None
        if may_write:
            names = ["funder", "hub_owner", "workerpool_owner", "matcher", "store", *_SMS, *workers]
            for name in [*names, *(f"{node}-storage" for node in _SMS)]:
                kept.keys.setdefault(name, hexstr(Key.generate(secrets.token_bytes).secret))
            kept.save()
        return kept

    def save(self) -> None:
        members = {n: getattr(self, n) for n in ("keys", "ports", "addresses", "workerpool")}
        _write_private(self.path, json.dumps(members, indent=1))


class _Part(Process):
    """A service of a network that runs in this process with others."""

    def __init__(
        self, local: LocalNetwork, role: str, said: Hosting, stack: contextlib.AsyncExitStack
    ) -> None:
        super().__init__(said, stack, local.rpc, local.state / "outbox" / _OUTBOXES.get(role, role))
        self._local, self.role, self.transports = local, role, local.transports

    def listen(self) -> socket.socket:
        self.name = self._local._url(self.role)
        return self._local._listeners[self.role]

    def serve(self, app: ASGIApp, listener: socket.socket) -> None:
        self._local._serve(self.role, app)

    def transport(self, url: str, /) -> Transport:
        return _Later(self.transports, url)

    async def release(self) -> GuestRelease:
        return self._local.release


class _Later(httpx2.AsyncBaseTransport):
    """To a service that may start later: in memory if it then runs in this process, else by URL."""

    def __init__(self, transports: Mapping[str, Transport], url: str) -> None:
        self._transports, self._url = transports, url
        self._by_url: httpx2.AsyncHTTPTransport | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if (near := self._transports.get(self._url)) is not None:
            return await near.handle_async_request(request)
        self._by_url = self._by_url or httpx2.AsyncHTTPTransport()
        return await self._by_url.handle_async_request(request)

    async def aclose(self) -> None:
        if self._by_url is not None:
            await self._by_url.aclose()


def _write_private(path: Path, text: str) -> None:
    """Replace a file at once, readable by its owner only."""
    temporary = path.with_name(path.name + ".new")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


@contextlib.contextmanager
def _locked(state: Path) -> Iterator[None]:
    """Hold a state folder alone. Raises Conflict when another process does."""
    with (state / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Conflict(
                f"another process runs the network of {state}: stop it, or choose another --state"
            ) from None
        yield
