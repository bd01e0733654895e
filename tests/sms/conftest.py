"""Three SMS nodes on the test network, and a guest to ask them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_bytes
from typing import Any

import pytest

from sealdeal.model.cid import multiaddr_text
from sealdeal.model.deals import Assignment, Deal, pool_domain
from sealdeal.model.eip712 import digest
from sealdeal.model.evidence import Evidence, Manifest, report_data
from sealdeal.model.keys import Key
from sealdeal.model.release import Gathered, Release, gather
from sealdeal.model.sealing import Door, SealingKey, SecretKind
from sealdeal.model.types import ZERO32, Address, unhex
from sealdeal.sdk.http import in_memory
from sealdeal.sdk.secrets import SplitReceipt, split_to_nodes
from sealdeal.sdk.sms import SmsClient
from sealdeal.sms.app import create_app
from sealdeal.sms.release import Node
from sealdeal.tee import DcapVerifier, SimulatedPlatform
from tests.network import CHAIN_ID, NODES, THRESHOLD, Network

RELEASE = b"\x77" * 32
"""Digest of the guest release that the nodes trust."""
PLATFORM = SimulatedPlatform.generate(int(time.time()))
CONFIRMATIONS = 1


class Clock:
    """The machine's, plus what a test says."""

    offset = 0.0

    def __call__(self) -> float:
        return time.time() + self.offset


@dataclass
class Nodes:
    """The quorum's nodes: each with its own key, database and HTTP face."""

    network: Network
    folder: Path
    clock: Clock = field(default_factory=Clock)
    running: dict[Address, Node] = field(default_factory=dict)
    clients: dict[Address, SmsClient] = field(default_factory=dict)

    async def start(self, role: str, **changes: Any) -> Node:
        """Start one, or start it again over the same database."""
        options: dict[str, Any] = {
            "key": self.network.key(role),
            "storage_key": self.network.key(f"storage of {role}").secret,
            "hub": self.network.hub,
            "verifiers": [DcapVerifier(PLATFORM.root_der)],
            "guest_releases": [RELEASE],
            "confirmations": CONFIRMATIONS,
            "clock": self.clock,
            "door": Door.SINGLE,
        }
        if old := self.running.pop(options["key"].address, None):
            await self.clients[old.address].close()
            await old.close()
        node = await Node.open(self.url(role), **{**options, **changes})
        self.running[node.address] = node
        self.clients[node.address] = SmsClient("http://node", in_memory(create_app(node)))
        return node

    def url(self, role: str) -> str:
        return f"sqlite+aiosqlite:///{self.folder}/{role}.db"

    @property
    def first(self) -> SmsClient:
        return self.clients[self.network.address(NODES[0])]

    async def close(self) -> None:
        for address, node in self.running.items():
            await self.clients[address].close()
            await node.close()

    async def split(self, secret: bytes, subject: Address, owner: Key, **changes: Any) -> SplitReceipt:
        """The owner splits a secret among all nodes."""
        terms: dict[str, Any] = {
            "kind": SecretKind.DATASET_KEY,
            "name": "",
            "version": 1,
            "threshold": THRESHOLD,
            "clients": self.clients,
            "chain_id": CHAIN_ID,
            "hub": self.network.addresses.hub,
            "rng": token_bytes,
        }
        return await split_to_nodes(secret, subject=subject, owner=owner, **{**terms, **changes})


@dataclass
class Guest:
    """An honest guest of one attempt; tests change what they want to see refused."""

    nodes: Nodes
    deal: Deal
    assignment: Assignment
    signature: bytes
    key: Key = field(default_factory=lambda: Key.generate(token_bytes))
    sealing: SealingKey = field(default_factory=lambda: SealingKey.generate(token_bytes))
    result_key: str = ""
    index: int = 0
    """The task's, from the deal's first."""

    @property
    def place(self) -> tuple[bytes, int]:
        return self.deal.dealid, self.deal.bot_first + self.index

    @property
    def network(self) -> Network:
        return self.nodes.network

    async def nonces(self, clients: list[SmsClient] | None = None) -> dict[Address, bytes]:
        found = [
            await c.nonces(self.assignment, self.signature, self.place)
            for c in clients or self.nodes.clients.values()
        ]
        self.result_key = found[0].beneficiaryKey
        return {nonce.node: unhex(nonce.nonce) for nonce in found}

    async def manifest(self, **changes: Any) -> Manifest:
        hub, quorum = self.network.hub, self.network.quorum
        app = await hub.app(self.deal.app.pointer)
        dataset = await hub.dataset(self.deal.dataset.pointer) if self.deal.has_dataset else None
        made = Manifest.of(
            chain_id=CHAIN_ID,
            hub=hub.addresses.hub,
            quorum=quorum.address,
            deal=self.deal,
            task_index=self.place[1],
            worker=self.assignment.worker,
            attempt=self.assignment.attempt,
            app_multiaddr=multiaddr_text(app.multiaddr),
            app_checksum=app.checksum,
            dataset_multiaddr=multiaddr_text(dataset.multiaddr) if dataset else "",
            dataset_checksum=dataset.checksum if dataset else ZERO32,
            result_key=self.result_key,
            nodes=await quorum.members(),
            threshold=await quorum.threshold(),
        )
        return dataclasses.replace(made, **changes)

    def evidence(
        self,
        manifest: Manifest,
        nonces: dict[Address, bytes],
        *,
        platform: SimulatedPlatform = PLATFORM,
        release: bytes = RELEASE,
        checksum: bytes | None = None,
    ) -> Evidence:
        bound = report_data(manifest.hash(), self.sealing.public, self.key.address, nonces.items())
        registers = platform.measure(release, checksum or manifest.app_checksum)
        return platform.evidence(bound, registers, int(self.nodes.clock()))

    async def ask(
        self,
        client: SmsClient,
        nonces: dict[Address, bytes],
        *,
        manifest: Manifest | None = None,
        evidence: Callable[[Manifest, dict[Address, bytes]], Evidence] | None = None,
        **changes: Any,
    ) -> Release:
        """One node's answer."""
        told = manifest or await self.manifest()
        terms: dict[str, Any] = {
            "manifest": told,
            "evidence": (evidence or self.evidence)(told, nonces),
            "hpke_key": self.sealing.public,
            "enclave": self.key.address,
            "nonces": nonces,
            "place": self.place,
        }
        return await client.releases(self.assignment, self.signature, **{**terms, **changes})

    async def gather(self, roles: Sequence[str] = NODES) -> Gathered:
        """As a guest does: nonces of the nodes that are there, one quote, every node's answer."""
        clients = [self.nodes.clients[self.network.address(role)] for role in roles]
        nonces = await self.nonces(clients)
        manifest = await self.manifest()
        answers = [await self.ask(client, nonces, manifest=manifest) for client in clients]
        return gather(manifest, self.sealing, self.key.address, answers)

    async def refused(self, client: SmsClient | None = None, **options: Any) -> Release:
        """`ask` the first node (which a test expects to raise)."""
        nonces = await self.nonces()
        return await self.ask(client or self.nodes.first, nonces, **options)


@pytest.fixture
async def nodes(network: Network, tmp_path: Path) -> AsyncIterator[Nodes]:
    made = Nodes(network, tmp_path)
    for role in NODES:
        await made.start(role)
    yield made
    await made.close()


@pytest.fixture
def guest_of(nodes: Nodes) -> Callable[..., Any]:
    """`await guest_of(deal)`: the task is initialised, deep enough, and assigned."""

    async def make(
        deal: Deal,
        *,
        initialise: bool = True,
        worker: str = "worker",
        pool: str = "pool_owner",
        **changes: Any,
    ) -> Guest:
        network = nodes.network
        if initialise:
            await network.as_("pool_owner").initialize(deal.dealid, deal.bot_first)
            await network.mine(CONFIRMATIONS)
        terms: dict[str, Any] = {
            "task": deal.task_ids()[0],
            "worker": network.address(worker),
            "attempt": 1,
            "deadline": int(nodes.clock()) + 600,
        }
        assignment = Assignment(**{**terms, **changes})
        signed = digest(pool_domain(CHAIN_ID, network.addresses.hub), assignment)
        return Guest(nodes, deal, assignment, network.key(pool).sign_digest(signed))

    return make
