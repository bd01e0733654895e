"""A network's contracts with funded actors, for tests of every room.

async def test_it(network):
    hub = network.as_("requester")
    deal = await network.deal()                  # app, dataset, workerpool, four signed orders, matched
    await network.mine(3)
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from sealdeal.chain import (
    CATEGORIES,
    Addresses,
    Anvil,
    DeployOptions,
    Hub,
    Quorum,
    QuorumTerms,
    Rpc,
    Sender,
    Wallet,
    deploy,
)
from sealdeal.chain.local import ETHER
from sealdeal.model.deals import (
    Deal,
    Grant,
    authorisation_blob,
    authorisation_message,
    enclave_message,
    quorum_domain,
    task_id,
)
from sealdeal.model.eip712 import Domain, digest, hub_domain
from sealdeal.model.keys import Key, message_digest
from sealdeal.model.orders import (
    TEE_TDX,
    AppOrder,
    DatasetOrder,
    Params,
    RequestOrder,
    Signed,
    WorkerpoolOrder,
    tag,
)
from sealdeal.model.types import RLC, Address, keccak

ROLES = ("hub_owner", "app_provider", "data_provider", "pool_owner", "requester", "worker", "second_worker")
NODES = ("node_0", "node_1", "node_2")
THRESHOLD = 2
CHAIN_ID = 65432
QUICK = 5
"""The number of the category of 2 seconds."""
PURSE = 1_000 * RLC
STAKE = 500 * RLC
"""What every actor has in the wallet, and in the hub, when a test begins."""


def key(role: str) -> Key:
    """The key of a role: the same in every run."""
    return Key(keccak(b"sealdeal test " + role.encode()))


@dataclass
class Network:
    """Contracts on the session's anvil. Everything a test does to them is undone after it."""

    anvil: Anvil
    addresses: Addresses
    _hubs: dict[str, Hub] = field(default_factory=dict)

    @property
    def rpc(self) -> Rpc:
        return self.anvil.rpc

    @property
    def url(self) -> str:
        return self.anvil.url

    @property
    def domain(self) -> Domain:
        return hub_domain(CHAIN_ID, self.addresses.hub)

    @property
    def hub(self) -> Hub:
        """For reading."""
        return Hub(self.rpc, self.addresses)

    @property
    def quorum(self) -> Quorum:
        assert self.addresses.quorum
        return Quorum(self.rpc, self.addresses.quorum)

    def key(self, role: str) -> Key:
        return key(role)

    def address(self, role: str) -> Address:
        return key(role).address

    def as_(self, role: str) -> Hub:
        """The hub, acted on by a role."""
        if role not in self._hubs:
            sender = Sender(self.rpc, Wallet(key(role)), patience=30.0)
            self._hubs[role] = Hub(self.rpc, self.addresses, sender)
        return self._hubs[role]

    async def mine(self, blocks: int = 1) -> None:
        await self.rpc.call("anvil_mine", hex(blocks))

    async def pass_time(self, seconds: int) -> None:
        """Let the chain's clock jump, and mine a block then."""
        await self.rpc.call("evm_increaseTime", seconds)
        await self.mine()

    def sign(self, role: str, order: Any) -> Signed[Any]:
        return Signed.by(key(role), order, self.domain)

    async def assets(self, name: str = "test") -> tuple[Address, Address, Address]:
        """An app, a dataset and a workerpool, of their providers."""
        app, _ = await self.as_("app_provider").create_app(name, "DOCKER", b"/ipfs/app", keccak(b"image"))
        dataset, _ = await self.as_("data_provider").create_dataset(name, b"/ipfs/data", keccak(b"data"))
        pool, _ = await self.as_("pool_owner").create_workerpool(f"[simulated] {name}")
        return app, dataset, pool

    async def orders(
        self,
        assets: tuple[Address, Address, Address] | None = None,
        *,
        volume: int = 1,
        category: int = 0,
        bits: int = TEE_TDX,
        params: Params | None = None,
        with_dataset: bool = True,
        salt: bytes = bytes(32),
        **request: Any,
    ) -> tuple[Signed[AppOrder], Signed[DatasetOrder] | None, Signed[WorkerpoolOrder], Signed[RequestOrder]]:
        """Four signed orders that fit: app 3, dataset 5, workerpool 40 RLC."""
        app, dataset, pool = assets or await self.assets()
        common: dict[str, Any] = {"volume": volume, "tag": tag(bits), "salt": salt}
        requester = self.address("requester")
        terms: dict[str, Any] = {
            "appmaxprice": 3 * RLC,
            "datasetmaxprice": 5 * RLC,
            "workerpoolmaxprice": 40 * RLC,
            "category": category,
            "beneficiary": requester,
            "params": (params or Params(args="run")).to_text(),
            **({"dataset": dataset} if with_dataset else {}),
            **common,
            **request,
        }
        pool_order = WorkerpoolOrder(pool, 40 * RLC, category=category, **common)
        dataset_order = self.sign("data_provider", DatasetOrder(dataset, 5 * RLC, **common))
        return (
            self.sign("app_provider", AppOrder(app, 3 * RLC, **common)),
            dataset_order if with_dataset else None,
            self.sign("pool_owner", pool_order),
            self.sign("requester", RequestOrder(app=app, requester=requester, **terms)),
        )

    async def deal(self, **options: Any) -> Deal:
        """A deal of `orders(**options)`."""
        dealid, receipt = await self.as_("requester").match_orders(*await self.orders(**options))
        return await self.hub.deal(dealid, receipt.block)

    def authorisation(
        self, worker: Address, taskid: bytes, enclave: Address, *, nodes: int = THRESHOLD, life: int = 3600
    ) -> bytes:
        """What the SMS nodes give together for an enclave."""
        assert self.addresses.quorum
        until = int(time.time()) + life
        grant = Grant(message_digest(authorisation_message(worker, taskid, enclave)), until)
        said = digest(quorum_domain(CHAIN_ID, self.addresses.quorum), grant)
        return authorisation_blob(until, {key(n).address: key(n).sign_digest(said) for n in NODES[:nodes]})

    async def complete(self, deal: Deal, index: int | None = None, *, results: bytes = b"result") -> bytes:
        """Initialise a task and end it as an honest worker with an enclave would. Its id."""
        index = deal.bot_first if index is None else index
        taskid, worker, enclave = task_id(deal.dealid, index), self.address("worker"), key("enclave")
        await self.as_("pool_owner").initialize(deal.dealid, index)
        value = keccak(results)
        await self.as_("worker").contribute_and_finalize(
            taskid,
            value,
            results,
            b"",
            enclave.address,
            enclave.sign_message(enclave_message(worker, taskid, value)),
            self.authorisation(worker, taskid, enclave.address),
        )
        return taskid


async def build(anvil: Anvil) -> Addresses:
    """Deploy everything, give every role gas, a purse and a stake."""
    owner = Sender(anvil.rpc, Wallet(key("hub_owner")))
    for role in (*ROLES, *NODES):
        await anvil.fund(key(role).address, 1_000 * ETHER)
    terms = QuorumTerms([key(node).address for node in NODES], THRESHOLD, "simulated")
    categories = (*CATEGORIES, ("quick", "for tests", 2))
    addresses = await deploy(owner, DeployOptions(categories=categories, broker=terms))
    token = Hub(anvil.rpc, addresses).token
    calls = [token.abi.encode("transfer", key(role).address, PURSE + STAKE) for role in ROLES[1:]]
    sent = [await owner.submit(addresses.token, call) for call in calls]
    for submitted in sent:
        await submitted.receipt()
    for role in ROLES[1:]:
        await Hub(anvil.rpc, addresses, Sender(anvil.rpc, Wallet(key(role)))).deposit(STAKE)
    return addresses
