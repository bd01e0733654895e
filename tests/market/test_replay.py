"""The same orders in the same sequence give the same matches; several matchers make each deal once."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

from sealdeal.chain import Addresses, Anvil
from sealdeal.market.book import Status, best_fill
from sealdeal.market.lists import Lists
from sealdeal.market.records import Change, Publication, record_of, records
from sealdeal.market.store import MarketStore
from sealdeal.market.tables import book
from sealdeal.model.matches import Match
from sealdeal.model.orders import AppOrder, Kind, RequestOrder, Signed, WorkerpoolOrder, kind_of
from sealdeal.model.types import Block
from tests.conftest import undone
from tests.market.conftest import Running, Stand
from tests.market.test_engine import deals, quiet, salt
from tests.network import Network

ROLES = {Kind.APP: "app_provider", Kind.WORKERPOOL: "pool_owner", Kind.REQUEST: "requester"}
GENESIS = Block(0, bytes(32), 0)


async def random_orders(network: Network, seed: int) -> list[Signed[Any]]:
    """Offers of one app and one workerpool, and requests for it, that fit each other in many ways."""
    rng, (app, _, pool) = random.Random(seed), await network.assets()
    orders: list[Any] = [AppOrder(app, rng.randrange(3), volume=9, salt=salt(n)) for n in range(3)]
    for number in range(6):
        trust, volume = rng.choice([0, 0, 5]), rng.randrange(1, 4)
        orders.append(WorkerpoolOrder(pool, rng.randrange(4), volume, trust=trust, salt=salt(number)))
    requester = network.address("requester")
    for number in range(6):
        volume, trust, most = rng.randrange(1, 4), rng.choice([0, 0, 5]), rng.randrange(1, 5)
        terms: dict[str, Any] = {"appmaxprice": 2, "workerpoolmaxprice": most, "requester": requester}
        orders.append(RequestOrder(app, volume=volume, trust=trust, salt=salt(number), **terms))
    rng.shuffle(orders)
    return [network.sign(ROLES[kind_of(order)], order) for order in orders]


async def publish(stand: Stand, signed: Signed[Any]) -> None:
    options = {"standing": True} if kind_of(signed.order) is Kind.REQUEST else {}
    await stand.publish(ROLES[kind_of(signed.order)], signed, **options)


async def settled(stand: Stand) -> list[Match]:
    """What the matcher says of each deal, in their order, once there are no more of them."""
    count = -1
    while count < (count := (await stand.client.deals()).count):
        await asyncio.sleep(1.0)
    made = (await stand.client.deals(page_size=100)).items
    ordered = sorted(made, key=lambda deal: deal.block_number)
    return [(await stand.client.match_of(deal.dealid)).said for deal in ordered]


async def stored(store: MarketStore) -> list[Publication]:
    """All orders, as their publications were stored, in their sequence."""
    async with store.read() as connection:
        rows = (await connection.execute(records().order_by(book.c.sequence))).all()
    found = [record_of(row) for row in rows]
    assert [one.sequence for one in found] == sorted({one.sequence for one in found})
    return [
        Publication(
            one.hash,
            one.kind,
            one.signed,
            one.signer,
            one.published_at,
            one.signed.order.volume,
            True,
            GENESIS,
        )
        for one in found
    ]


async def test_the_same_sequence_of_orders_gives_the_same_matches(
    running: Running, anvil: Anvil, contracts: Addresses, tmp_path: Path
) -> None:
    """A market goes through its book, and another, on the same chain, through what the first one stored."""
    network = running.network
    orders = await random_orders(network, 3)
    listed = await running.start(matching=False)
    for signed in orders:
        await publish(listed, signed)
    sequence = await stored(listed.market.store)
    await running.stop()
    async with undone(network.rpc):
        first = await settled(await running.start())
        await running.stop()
    again = Running(Network(anvil, contracts), tmp_path / "again")
    try:
        copy = await again.start(matching=False)
        for one in sequence:
            await publish(copy, one.signed)
        await again.stop()
        second = await settled(await again.start())
    finally:
        await again.stop()

    def choices(said: list[Match]) -> list[Match]:
        return [replace(match, block=0) for match in said]

    assert len(first) > 3 and choices(first) == choices(second)


async def test_each_match_follows_from_the_orders_stored_before_it(running: Running, tmp_path: Path) -> None:
    """Orders come all at once while the engine matches; its words are what the stored sequence gives."""
    network = running.network
    orders = await random_orders(network, 7)
    stand = await running.start()
    await asyncio.gather(*(publish(stand, signed) for signed in orders))
    said = await settled(stand)
    assert len(said) > 3
    sequence = await stored(stand.market.store)
    places = {one.hash: number for number, one in enumerate(sequence, 1)}
    store = await MarketStore.open(f"sqlite+aiosqlite:///{tmp_path}/replay.db")
    await store.apply(None, GENESIS, [], [], [], read_at=0)
    left = {one.hash: one.remaining for one in sequence}
    published = 0
    for match in said:
        until = max(match.sequence, *(places[h] for h in (match.app, match.workerpool, match.request)))
        for one in sequence[published:until]:
            await store.publish(one, 10**6)
        published = max(published, until)
        asked = await store.order(match.request)
        assert asked and asked.signed.order.volume - left[match.request] == match.first
        # what came after this choice, and before one that was replayed, is not there yet
        hidden = {one.hash for one in sequence[until:published]}
        candidates = await Lists(store).candidates(asked.signed.order, {*match.aside, *hidden})
        fill = best_fill(asked.offer, candidates)
        assert fill and (fill.app.hash, fill.workerpool.hash) == (match.app, match.workerpool)
        assert (fill.terms.price, fill.terms.volume) == (match.price, match.volume)
        changes = []
        for hash in (match.app, match.workerpool, match.request):
            left[hash] -= match.volume
            changes.append(Change(hash, Status.OPEN if left[hash] else Status.FILLED, left[hash]))
        await store.apply(GENESIS, GENESIS, changes, [], [], read_at=0)
    await store.close()


async def test_of_two_matchers_one_makes_the_deal_and_the_other_loses_one_transaction(
    running: Running, tmp_path: Path
) -> None:
    """Two markets have the same orders; both send the match before either is mined."""
    network = running.network
    roles = ("hub_owner", "worker")
    stands = []
    for role in roles:
        running.url = f"sqlite+aiosqlite:///{tmp_path}/{role}.db"
        stands.append(await running.start(hub=network.as_(role)))
    app, dataset, pool, request = await network.orders(volume=2)
    for stand in stands:
        await stand.publish_all(app, dataset, pool)
    sent = [await _sent(network, role) for role in roles]
    await network.rpc.call("evm_setAutomine", False)
    await asyncio.gather(*(stand.publish("requester", request) for stand in stands))
    async with asyncio.timeout(20):
        while int((await network.rpc.call("txpool_status"))["pending"], 16) < len(roles):
            await asyncio.sleep(0.02)
    await network.rpc.call("evm_mine")
    await network.rpc.call("evm_setAutomine", True)
    made = [await deals(stand, 1) for stand in stands]
    assert made[0][0].dealid == made[1][0].dealid and made[0][0].volume == 2
    for stand in stands:
        assert await quiet(stand) == 1
        assert (await stand.client.order(Kind.REQUEST, request.hash(network.domain))).status == "filled"
    assert [await _sent(network, role) for role in roles] == [count + 1 for count in sent]


async def _sent(network: Network, role: str) -> int:
    return int(await network.rpc.call("eth_getTransactionCount", network.address(role), "pending"), 16)
