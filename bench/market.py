"""A full order book: publishing, listing and matching in it, against their limits and an empty book.

`./dev bench market` has 20,000 open orders in SQLite and in PostgreSQL; `./dev bench market --orders=1000000`
as many as are said, in PostgreSQL only beyond 100,000. PostgreSQL runs with its usual settings: each
publication is written to the disk. Pages are those that the market's API answers, with the chain asked where
its head is; what is over the limit is measured again, up to eight times, and the quietest time counts: others
who use the machine only ever add to it. The rows are those that publishing makes, loaded in bulk.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from bench import Ratio
from bench._asgi import ask
from sealdeal.chain import Addresses, Anvil, Hub
from sealdeal.db import AddressColumn
from sealdeal.market.app import create_app
from sealdeal.market.book import Offer, best_fill
from sealdeal.market.challenges import Authorization
from sealdeal.market.fields import DEAL_ADDRESSES, DEAL_HASHES
from sealdeal.market.lists import Lists
from sealdeal.market.market import Market
from sealdeal.market.records import Publication, book_row
from sealdeal.market.shelves import fill, shelf_of
from sealdeal.market.store import MarketStore
from sealdeal.market.tables import book, deals, orders
from sealdeal.model.orders import (
    SCONE,
    TEE,
    TEE_TDX,
    AppOrder,
    DatasetOrder,
    Order,
    RequestOrder,
    Signed,
    WorkerpoolOrder,
    kind_of,
    tag,
)
from sealdeal.model.types import RLC, ZERO, Address, Block, address, hexstr, keccak
from tests.postgres import programs, running

SIZE = 20_000
ON_SQLITE = 100_000
"""Orders beyond which SQLite is not measured."""
PAGE_LIMIT = 0.020
"""Seconds in which a page of a list is to be answered, 99 times of 100."""
PAGES, PAGE_SIZE, ROUNDS = 50, 20, 8
BATCH = 10_000
CHAIN_ID = 31337
GENESIS = Block(0, bytes(32), 0)
APPS, CATEGORIES = 1_000, 5


def account(number: int) -> Address:
    return address("0x" + keccak(b"bench" + number.to_bytes(8, "big"))[-20:].hex())


def made(rng: random.Random, number: int) -> Order:
    """The n-th order: of ten, four workerpools' offers, three datasets', two apps', one request.

    One workerpool in a hundred has TDX, and asks the highest prices: the best of them is below all others.
    """
    salt = number.to_bytes(32, "big")
    someone = account(rng.randrange(APPS))
    match rng.randrange(10):
        case 0 | 1 | 2 | 3:
            rare = rng.randrange(100) == 0
            return WorkerpoolOrder(
                workerpool=account(number % 50_000),
                workerpoolprice=rng.randrange(100) * RLC + (100 * RLC if rare else 0),
                volume=rng.randrange(1, 100),
                tag=tag(TEE_TDX if rare else rng.choice([0, TEE, TEE | SCONE])),
                category=rng.randrange(CATEGORIES),
                trust=rng.choice([0, 1, 5, 10]),
                apprestrict=rng.choice([ZERO] * 9 + [someone]),
                requesterrestrict=rng.choice([ZERO] * 19 + [someone]),
                salt=salt,
            )
        case 4 | 5 | 6:
            return DatasetOrder(
                dataset=account(number),
                datasetprice=rng.randrange(10) * RLC,
                volume=2**53 - 2,
                tag=tag(TEE_TDX),
                apprestrict=someone,
                salt=salt,
            )
        case 7 | 8:
            return AppOrder(
                app=account(number % APPS),
                appprice=rng.randrange(10) * RLC,
                volume=2**53 - 2,
                tag=tag(TEE_TDX),
                salt=salt,
            )
        case _:
            return RequestOrder(
                app=account(number % APPS),
                appmaxprice=0,
                workerpoolmaxprice=rng.randrange(50) * RLC,
                requester=account(number),
                volume=1,
                tag=tag(TEE_TDX),
                category=rng.randrange(CATEGORIES),
                beneficiary=account(number),
                salt=salt,
            )


NOWHERE = Addresses(*(account(2**50 + number) for number in range(5)))
"""A hub of which the chain tells nothing."""


def publication(order: Order, signer: Address, at: int, block: Block) -> Publication:
    hash = keccak(repr(order).encode())
    signed: Signed[Any] = Signed(order, bytes(65))
    return Publication(hash, kind_of(order), signed, signer, at, order.volume, True, block)


async def filled(url: str, size: int) -> MarketStore:
    """A market with `size` open orders, and a tenth as many deals."""
    store = await MarketStore.open(url)
    rng, counted, known = random.Random(7), Counter[bytes](), dict[bytes, Any]()
    indexes = [index for table in (orders, book, deals) for index in table.indexes]
    async with store.write() as connection:
        for index in indexes:
            await connection.run_sync(index.drop)
        for start in range(0, size, BATCH):
            published, shown = [], []
            for number in range(start, min(start + BATCH, size)):
                new = publication(made(rng, number), account(number), number, GENESIS)
                published.append(
                    {
                        "sequence": number + 1,
                        "hash": new.hash,
                        "kind": new.kind,
                        "signer": new.signer,
                        "document": new.signed.to_json(),
                        "published_at": new.published_at,
                        "published_block": 0,
                        "remaining": new.remaining,
                        "standing": True,
                    }
                )
                row = book_row(new, number + 1)
                shown.append(row)
                counted[row["shelf"]] += 1
                if row["shelf"] not in known:
                    known[row["shelf"]] = shelf_of(row)
            await load(connection, orders, published)
            await load(connection, book, shown)
        await load(connection, deals, [deal(rng, number) for number in range(size // 10)])
        await fill(connection, counted, known)
        if connection.dialect.name == "postgresql" and size:
            numbers = f"pg_get_serial_sequence('market_orders', 'sequence'), {size}"
            await connection.execute(sa.text(f"SELECT setval({numbers})"))
        for index in indexes:
            await connection.run_sync(index.create)
    if size and url.startswith("postgresql"):  # as PostgreSQL does by itself before long
        engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
        async with engine.connect() as connection:
            await connection.execute(sa.text("VACUUM ANALYZE"))
        await engine.dispose()
    await store.apply(None, GENESIS, [], [], [], read_at=0)
    return store


async def load(connection: AsyncConnection, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    """Insert many rows: on PostgreSQL by COPY, which takes a tenth of the time."""
    if not rows:
        return
    if connection.dialect.name != "postgresql":
        await connection.execute(sa.insert(table), rows)
        return
    columns = [(column.name, _raw(column, connection.dialect)) for column in table.c]
    raw = (await connection.get_raw_connection()).driver_connection
    assert raw is not None
    await raw.copy_records_to_table(
        table.name,
        records=[tuple(convert(row.get(name)) for name, convert in columns) for row in rows],
        columns=[name for name, _ in columns],
    )


def _raw(column: sa.Column[Any], dialect: sa.Dialect) -> Callable[[Any], Any]:
    """What the driver is given for a value of a column."""
    if isinstance(column.type, sa.JSON):
        return json.dumps
    if isinstance(column.type, AddressColumn):
        return lambda value: None if value is None else bytes.fromhex(value[2:])
    return lambda value: value


def deal(rng: random.Random, number: int) -> dict[str, Any]:
    """The row of a deal, with a document about as long as a real one's."""
    keys = {name: account(rng.randrange(APPS)) for name in DEAL_ADDRESSES}
    hashes = {name: keccak(f"{name} {number // 2}".encode()) for name in DEAL_HASHES}
    dealid = keccak(f"deal {number}".encode())
    texts = {name: hexstr(value) for name, value in hashes.items()}
    document = {"dealid": hexstr(dealid), **keys, **texts, "params": "x" * 200}
    place = {"dealid": dealid, "block": number // 3, "timestamp": number, "category": number % CATEGORIES}
    return {**place, "document": document, **keys, **hashes}


LISTS = {
    "workerpools of a category": "workerpoolorders?category=1",
    "workerpools with TDX for a requester": (
        f"workerpoolorders?app={account(3)}&requester={account(4)}&dataset=any&minTag={hexstr(tag(TEE_TDX))}"
    ),
    "workerpools, whatever they ask": "workerpoolorders?app=any&dataset=any&requester=any",
    "workerpools with TDX, whatever they ask": (
        f"workerpoolorders?app=any&dataset=any&requester=any&minTag={hexstr(tag(TEE_TDX))}"
    ),
    "workerpools that have 50 tasks": "workerpoolorders?category=1&minVolume=50",
    "workerpools that have 50 tasks, whatever they ask": (
        "workerpoolorders?app=any&dataset=any&requester=any&minVolume=50"
    ),
    "requests of a category": "requestorders?category=2",
    "requests of an app": f"requestorders?app={account(8)}&workerpool=any",
    "all datasets' offers": "datasetorders?dataset=any&app=any&workerpool=any&requester=any",
    "all datasets' offers to an app": f"datasetorders?dataset=any&app={account(5)}",
    "all apps' offers": "apporders?app=any",
    "offers of an app": f"apporders?app={account(7)}",
    "deals": "deals?",
    "deals of a requester": f"deals?requester={account(9)}",
    "deals of an app in a category": f"deals?app={account(9)}&category=2",
}


async def times(act: Callable[[int], Awaitable[object]], count: int) -> list[float]:
    """Seconds of each of `count` calls, in order of size, after some to warm up."""
    for number in range(10):
        await act(number % count)
    taken = []
    for number in range(count):
        start = time.perf_counter()
        await act(number)
        taken.append(time.perf_counter() - start)
    return sorted(taken)


def p99(taken: list[float]) -> float:
    return taken[len(taken) * 99 // 100]


async def measured(where: str, store: MarketStore, empty: MarketStore, size: int) -> AsyncIterator[Ratio]:
    lists, few = Lists(store), Lists(empty)
    what = f"{size:,} orders, {where}"
    async with served(store) as app:
        for name, path in LISTS.items():

            async def page(number: int, path: str = path) -> None:
                await ask(app, f"/{path}&chainId={CHAIN_ID}&pageIndex={number % PAGES}&pageSize={PAGE_SIZE}")

            quiet = p99(await times(page, 4 * PAGES))
            for _ in range(ROUNDS - 1):
                if quiet > PAGE_LIMIT:
                    quiet = min(quiet, p99(await times(page, 4 * PAGES)))
            yield Ratio(f"{what}: 99th percentile of pages of {name}", quiet, "the limit", PAGE_LIMIT, "s")
    request = RequestOrder(
        app=account(7),
        appmaxprice=10 * RLC,
        workerpoolmaxprice=1_000 * RLC,
        requester=account(1),
        tag=tag(TEE_TDX),
        category=1,
        trust=5,
    )
    asked: Offer[RequestOrder] = Offer(bytes(32), 0, Signed(request, b""), 1, account(1))

    async def match(lists: Lists) -> None:
        found = best_fill(asked, await lists.candidates(request))
        assert found and int.from_bytes(found.workerpool.order.tag, "big") & TEE_TDX == TEE_TDX

    for new in some_offers():
        await publish(empty, new)
    ours = statistics.median(await times(lambda _: match(lists), 40))
    reference = statistics.median(await times(lambda _: match(few), 40))
    yield Ratio(f"{what}: the best match of a request", ours, "in a book of two", reference, "s")
    fresh = random.Random(9)

    async def publishing(at: MarketStore, first: int) -> float:
        """Seconds of a publication, which spends the answer to a challenge."""
        numbers = iter(range(first, first + 100))
        answers = {n: Authorization(keccak(b"%d" % n), account(n)) for n in range(first, first + 100)}
        for number in answers:
            await at.challenges.add(keccak(b"%d" % number), account(number))

        async def another(_: int) -> None:
            number = next(numbers)
            new = publication(made(fresh, 2**40 + number), account(number), number, GENESIS)
            await publish(at, new, answers[number])

        return statistics.median(await times(another, 60))

    ours, reference = await publishing(store, 0), await publishing(empty, 100)
    yield Ratio(f"{what}: publishing, the chain's part aside", ours, "into an empty book", reference, "s")


async def publish(at: MarketStore, new: Publication, by: Authorization | None = None) -> None:
    """At the block that the market's index shows."""
    await at.publish(replace(new, block=(await at.recent_blocks())[0]), 10**9, by=by)


def some_offers() -> Iterator[Publication]:
    common: dict[str, Any] = {"tag": tag(TEE_TDX), "volume": 9}
    yield publication(AppOrder(app=account(7), appprice=0, **common), account(2), 0, GENESIS)
    pool = WorkerpoolOrder(workerpool=account(9), workerpoolprice=0, category=1, trust=10, **common)
    yield publication(pool, account(3), 0, GENESIS)


@asynccontextmanager
async def served(store: MarketStore) -> AsyncIterator[Any]:
    """The API of a market that only lists, with its index at the head of a chain on which nothing happens."""
    async with Anvil(chain_id=CHAIN_ID) as anvil:
        hub = Hub(anvil.rpc, NOWHERE)
        await store.apply(GENESIS, await hub.block(), [], [], [], read_at=0)
        market = Market(store, hub, CHAIN_ID, matching=False)
        following = asyncio.create_task(market.index.run())
        try:
            yield create_app(market)
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)


@asynccontextmanager
async def databases(size: int) -> AsyncIterator[dict[str, tuple[str, str]]]:
    """Name -> URL of a database to fill, and of one that stays empty."""
    with tempfile.TemporaryDirectory(prefix="sealdeal-bench-") as folder:
        found = {}
        if size <= ON_SQLITE:
            full, empty = (f"sqlite+aiosqlite:///{folder}/{name}.db" for name in ("full", "empty"))
            found["SQLite"] = (full, empty)
        if (bin := programs()) is None:
            yield found
            return
        with running(Path(bin)) as full, running(Path(bin)) as empty:
            yield {**found, "PostgreSQL": (full, empty)}


async def measure(size: int = SIZE) -> AsyncIterator[Ratio]:
    """Every list, a match and a publication in a book of `size` open orders."""
    async with databases(size) as found:
        for name, (url, other) in found.items():
            store, empty = await filled(url, size), await filled(other, 0)
            try:
                async for ratio in measured(name, store, empty, size):
                    yield ratio
            finally:
                await store.close()
                await empty.close()


def report(options: list[str]) -> int:
    """Print them. `--orders=N`: in a book of N."""
    size = SIZE
    for option in options:
        name, _, value = option.partition("=")
        if name != "--orders" or not value.isdigit():
            print(f"{option}: no such option here; there is --orders=N")
            return 2
        size = int(value)

    async def show() -> None:
        async for ratio in measure(size):
            print(
                f"{ratio.ratio:8.3g}×  {ratio.name}: {ratio.ours * 1000:,.3g} ms"
                f"  against {ratio.reference * 1000:,.3g} ms ({ratio.against})",
                flush=True,
            )

    asyncio.run(show())
    return 0
