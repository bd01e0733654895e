"""A network of ours around the official contracts: everything but the hub, its facets and its registries."""

from __future__ import annotations

import asyncio
import http.client
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sealdeal.chain import CATEGORIES, Addresses, Anvil, Hub, QuorumTerms, Sender, Wallet, deploy_quorum
from sealdeal.chain.contract import artefact
from sealdeal.model.keys import Key
from sealdeal.model.types import Address
from sealdeal.node import GAS_MONEY, NODES, POOL_STAKE, THRESHOLD, LocalNetwork
from tests.contracts import official
from tests.contracts.chain import Chain


class OfficialNetwork(LocalNetwork):
    """A local network whose hub is the official one, deployed as its authors deploy it: without a broker.

    The quorum of its SMS nodes is a contract beside it, of which the hub knows nothing.
    """

    async def _make_network(self) -> Addresses:
        await asyncio.gather(*(self.anvil.fund(self._key(n).address, GAS_MONEY) for n in self._kept.keys))
        owner, funder, pool = (self._key(n) for n in ("hub_owner", "funder", "workerpool_owner"))
        members = [self._key(f"sms-{n}").address for n in range(NODES)]
        found = await official_contracts(self.anvil, funder, owner, self._categories)
        terms = QuorumTerms(members, THRESHOLD, "simulated")
        addresses = replace(found, quorum=await deploy_quorum(Sender(self.rpc, Wallet(owner)), terms))
        hub = Hub(self.rpc, addresses)
        await hub.using(Sender(self.rpc, Wallet(funder))).transfer_token(pool.address, POOL_STAKE)
        scheduler = hub.using(Sender(self.rpc, Wallet(pool)))
        self._kept.workerpool, _ = await scheduler.create_workerpool("[simulated] ours, on the official hub")
        await scheduler.deposit(POOL_STAKE)
        return addresses


async def official_contracts(
    anvil: Anvil, funder: Key, owner: Key | None = None, categories: Sequence[tuple[str, str, int]] = ()
) -> Addresses:
    """The official hub and registries around a token that the funder has all of, owned by `owner`, else by
    the funder; with the usual categories and these."""
    owner = owner or funder
    for key in (funder, owner):
        await anvil.fund(key.address, GAS_MONEY)
    created = await Sender(anvil.rpc, Wallet(owner)).send(None, artefact("Rlc").creation(funder.address))
    assert created.contract is not None
    places = await asyncio.to_thread(
        _deploy, anvil.port, owner.address, created.contract, (*CATEGORIES, *categories)
    )
    return Addresses(places[0], created.contract, *places[1:])


def _deploy(
    port: int, owner: Address, token: Address, categories: Sequence[tuple[str, str, int]]
) -> tuple[Address, Address, Address, Address]:
    chain = _Running(port)
    try:
        chain.rpc("anvil_impersonateAccount", owner)
        return official.deploy(chain, owner, token, categories)
    finally:
        chain.rpc("anvil_stopImpersonatingAccount", owner)
        chain.close()


class _Running(Chain):
    """A chain that somebody else runs, and on which gas costs something."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def close(self) -> None:
        self._connection.close()

    def rpc(self, method: str, *params: Any) -> Any:
        if method == "eth_sendTransaction":
            params = ({k: v for k, v in params[0].items() if k != "gasPrice"},)
        return super().rpc(method, *params)
