"""What it takes one SMS node to release, and a guest to gather: HTTP in memory, a real chain, SQLite.

A release is one attested guest's: nonce, chain, evidence, sealing, grant, one transaction. Its parts are
timed in the same run, each as a share of the whole; what is left is HTTP, JSON and the rest. The start of a
guest's sandbox is not in it: `bench sandbox` has that.
"""

from __future__ import annotations

import asyncio
import dataclasses
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from secrets import token_bytes
from typing import Any

import dcap_qvl  # type: ignore[import-untyped]

from bench import Ratio, fastest
from sealdeal.chain import Anvil
from sealdeal.chain.local import ETHER
from sealdeal.model.deals import Assignment, Change, Deal, pool_domain, quorum_domain
from sealdeal.model.eip712 import digest
from sealdeal.model.release import gather
from sealdeal.sdk.sms import SmsClient
from sealdeal.sms.limits import Limits
from sealdeal.sms.release import Node
from tests.network import CHAIN_ID, NODES, Network, build, key
from tests.sms.conftest import CONFIRMATIONS, PLATFORM, Guest, Nodes

TASKS = 60
AT_ONCE = 8
"""Guests that ask at the same time."""
PARTS = {
    "reading the chain": ("chain", "of"),
    "judging the evidence": (None, "_judge"),
    "reading the secrets": (None, "_deserved"),
    "sealing and signing": (None, "_answer"),
    "the transaction": ("store", "commit_release"),
}


async def measure() -> AsyncIterator[Ratio]:
    """Releases per second, where their time goes, and a guest's way to its secrets with 3 and 5 nodes."""
    with tempfile.TemporaryDirectory(prefix="sealdeal-bench-") as folder:
        async with Anvil(chain_id=CHAIN_ID) as anvil:
            network = Network(anvil, await build(anvil))
            nodes = Nodes(network, Path(folder))
            try:
                async for ratio in _with_nodes(network, nodes):
                    yield ratio
            finally:
                await nodes.close()


async def _with_nodes(network: Network, nodes: Nodes) -> AsyncIterator[Ratio]:
    for role in NODES:
        await nodes.start(role, limits=Limits(asks=10**6))
    deal = await _deal(network, nodes)
    own = network.address(NODES[0])
    guests = [await _guest(nodes, deal, index) for index in range(TASKS)]
    asked = [(guest, await guest.nonces(), await guest.manifest()) for guest in guests]
    prepared = [
        (guest, nonces, manifest, guest.evidence(manifest, nonces)) for guest, nonces, manifest in asked
    ]

    async def release(client: SmsClient, one: Any) -> None:
        guest, nonces, manifest, evidence = one
        await guest.ask(client, nonces, manifest=manifest, evidence=lambda *_: evidence)

    spent = _timed(nodes.running[own])
    first, rest = prepared[:20], prepared[20:]
    begun = time.perf_counter()
    for one in first:
        await release(nodes.first, one)
    whole = (time.perf_counter() - begun) / len(first)
    for what, seconds in spent.items():
        yield Ratio(f"a release: {what}", seconds / len(first) * 1e3, "the whole release", whole * 1e3, "ms")

    places = asyncio.Semaphore(AT_ONCE)

    async def one_of_many(one: Any) -> None:
        async with places:
            await release(nodes.first, one)

    begun = time.perf_counter()
    await asyncio.gather(*map(one_of_many, rest))
    rate = len(rest) / (time.perf_counter() - begun)
    evidence, now = prepared[0][3], int(nodes.clock())
    verifier = dcap_qvl.QuoteVerifier(PLATFORM.root_der)
    collateral = dcap_qvl.QuoteCollateralV3.from_json((evidence.collateral or b"").decode())
    policy = dcap_qvl.QuotePolicy.claims_only(now)
    bare = fastest(lambda: verifier.verify_with_policy(evidence.quote, collateral, now, policy), number=20)
    yield Ratio(
        f"releases of one node, {AT_ONCE} at once", rate, "bare verifications of a quote", 1 / bare, "1/s"
    )

    three = await _gathering(nodes, await _deal(network, nodes), NODES)
    more = ("node_3", "node_4")
    await _add(network, nodes, more)
    five = await _gathering(nodes, await _deal(network, nodes), (*NODES, *more))
    yield Ratio(
        "a guest's first request to secrets in hand, 3 nodes", three * 1e3, "one release", whole * 1e3, "ms"
    )
    yield Ratio("the same with 5 nodes", five * 1e3, "with 3", three * 1e3, "ms")


def _timed(node: Node) -> dict[str, float]:
    """Let the node add up the seconds that its parts take."""
    spent: dict[str, float] = defaultdict(float)

    def watched(what: str, act: Callable[..., Any]) -> Callable[..., Any]:
        async def later(found: Awaitable[Any], begun: float) -> Any:
            try:
                return await found
            finally:
                spent[what] += time.perf_counter() - begun

        def now(*arguments: Any, **options: Any) -> Any:
            begun = time.perf_counter()
            found = act(*arguments, **options)
            if asyncio.iscoroutine(found):
                return later(found, begun)
            spent[what] += time.perf_counter() - begun
            return found

        return now

    for what, (part, name) in PARTS.items():
        owner = getattr(node, part) if part else node
        setattr(owner, name, watched(what, getattr(owner, name)))
    return spent


async def _deal(network: Network, nodes: Nodes) -> Deal:
    """A bag of tasks that wait, on a dataset whose key the nodes hold in shares."""
    assets = await network.assets(token_bytes(4).hex())
    app, dataset, pool, request = await network.orders(assets, volume=TASKS, salt=token_bytes(32))
    assert dataset is not None
    dealid, receipt = await network.as_("requester").match_orders(
        network.sign("app_provider", dataclasses.replace(app.order, appprice=0)),
        network.sign("data_provider", dataclasses.replace(dataset.order, datasetprice=0)),
        network.sign("pool_owner", dataclasses.replace(pool.order, workerpoolprice=0)),
        request,
    )
    deal = await network.hub.deal(dealid, receipt.block)
    await nodes.split(b"the key of the dataset, base64 of 32 bytes", assets[1], network.key("data_provider"))
    for first in range(0, TASKS, 20):
        some = list(deal.indices())[first : first + 20]
        await network.as_("pool_owner").initialize_array([(dealid, index) for index in some])
    await network.mine(CONFIRMATIONS)
    return deal


async def _guest(nodes: Nodes, deal: Deal, index: int) -> Guest:
    network = nodes.network
    task = deal.task_ids()[index]
    assignment = Assignment(task, network.address("worker"), 1, int(nodes.clock()) + 600)
    signed = digest(pool_domain(CHAIN_ID, network.addresses.hub), assignment)
    return Guest(nodes, deal, assignment, network.key("pool_owner").sign_digest(signed), index=index)


async def _gathering(nodes: Nodes, deal: Deal, roles: Sequence[str]) -> float:
    """Seconds of the quickest guest of a few, which asks all nodes at once, as guests do."""
    clients = [nodes.clients[nodes.network.address(role)] for role in roles]
    taken = []
    for index in range(10):
        guest = await _guest(nodes, deal, index)
        manifest = await guest.manifest()
        begun = time.perf_counter()
        asked = await asyncio.gather(*(guest.nonces([client]) for client in clients))
        nonces = {node: nonce for one in asked for node, nonce in one.items()}
        evidence = guest.evidence(manifest, nonces)
        answers = await asyncio.gather(
            *(guest.ask(c, nonces, manifest=manifest, evidence=lambda *_: evidence) for c in clients)  # noqa: B023
        )
        gather(manifest, guest.sealing, guest.key.address, answers)
        taken.append(time.perf_counter() - begun)
    return min(taken)


async def _add(network: Network, nodes: Nodes, roles: Sequence[str]) -> None:
    """Two more members, and a threshold of 3."""
    for role in roles:
        await network.anvil.fund(key(role).address, ETHER)
    change = Change(
        add=tuple(key(role).address for role in roles),
        remove=(),
        threshold=3,
        compromised=False,
        nonce=await network.quorum.changes(),
        validUntil=2**60,
    )
    signed = digest(quorum_domain(CHAIN_ID, network.quorum.address), change)
    signatures = {key(role).address: key(role).sign_digest(signed) for role in NODES[:2]}
    await network.quorum.change_members(network.as_("requester").sender, change, signatures)
    await network.mine(CONFIRMATIONS)
    for role in roles:
        await nodes.start(role, limits=Limits(asks=10**6))
