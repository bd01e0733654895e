"""A full order book: publishing, listing and matching in it, against their limits and an empty book.

`./dev bench market` has 20,000 open orders in SQLite and in PostgreSQL; `./dev bench market --orders=1000000`
as many as are said, in PostgreSQL only beyond 100,000. PostgreSQL runs with its usual settings: each
publication is written to the disk.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from bench import Ratio
from sealdeal.db import open_database
from sealdeal.market.book import Offer, best_fill
from sealdeal.market.journal import tables
from sealdeal.market.lists import Lists
from sealdeal.market.records import OrderFilter, Publication
from sealdeal.market.store import MarketStore
from sealdeal.market.tables import orders
from sealdeal.model.orders import (
    SCONE,
    TEE,
    TEE_TDX,
    AppOrder,
    DatasetOrder,
    Kind,
    Order,
    RequestOrder,
    Signed,
    WorkerpoolOrder,
    kind_of,
    tag,
)
from sealdeal.model.types import RLC, ZERO, Address, Block, address, keccak
from tests.postgres import programs, running

SIZE = 20_000
ON_SQLITE = 100_000
"""Orders beyond which SQLite is not measured."""
PAGE_LIMIT = 0.020
"""Seconds in which a page of a list is to be answered, 99 times of 100."""
PAGES, PAGE_SIZE = 50, 20
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


def publication(order: Order, signer: Address, at: int) -> Publication:
    hash = keccak(repr(order).encode())
    signed: Signed[Any] = Signed(order, bytes(65))
    return Publication(hash, kind_of(order), signed, signer, at, order.volume, True, GENESIS)


async def filled(url: str, size: int) -> MarketStore:
    """A market with `size` open orders: the table that is owned is written, the book made of it."""
    database = await open_database(url, tables)
    rng = random.Random(7)
    for start in range(0, size, 5_000):
        rows = []
        for number in range(start, min(start + 5_000, size)):
            new = publication(made(rng, number), account(number), number)
            rows.append(
                {
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
        async with database.write() as connection:
            await connection.execute(sa.insert(orders), rows)
    await database.close()
    store = await MarketStore.open(url)
    await store.apply(None, GENESIS, [], [], [], read_at=0)
    database = await open_database(url, tables)
    async with database.write() as connection:
        await connection.execute(sa.text("ANALYZE"))
    await database.close()
    return store


LISTS = {
    "workerpools of a category": OrderFilter(
        Kind.WORKERPOOL,
        admits={f"{name}restrict": (ZERO,) for name in ("app", "dataset", "requester")},
        category=1,
    ),
    "workerpools with TDX for a requester": OrderFilter(
        Kind.WORKERPOOL,
        admits={"apprestrict": (ZERO, account(3)), "requesterrestrict": (ZERO, account(4))},
        min_tag=TEE_TDX,
    ),
    "workerpools, whatever they ask": OrderFilter(Kind.WORKERPOOL),
    "requests of a category": OrderFilter(Kind.REQUEST, admits={"workerpool": (ZERO,)}, category=2),
    "requests of an app": OrderFilter(Kind.REQUEST, {"app": account(8)}),
    "all datasets' offers": OrderFilter(Kind.DATASET),
    "all datasets' offers to an app": OrderFilter(
        Kind.DATASET, admits={"apprestrict": (ZERO, account(5)), "requesterrestrict": (ZERO,)}
    ),
    "all apps' offers": OrderFilter(Kind.APP),
    "offers of an app": OrderFilter(Kind.APP, {"app": account(7)}),
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
    for name, wanted in LISTS.items():

        async def page(number: int, wanted: OrderFilter = wanted) -> None:
            await lists.list_orders(wanted, number % PAGES * PAGE_SIZE, PAGE_SIZE)

        yield Ratio(
            f"{what}: 99th percentile of pages of {name}",
            p99(await times(page, 4 * PAGES)),
            "the limit",
            PAGE_LIMIT,
            "s",
        )
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
        await empty.publish(new, 10**9)
    ours = statistics.median(await times(lambda _: match(lists), 40))
    reference = statistics.median(await times(lambda _: match(few), 40))
    yield Ratio(f"{what}: the best match of a request", ours, "in a book of two", reference, "s")
    fresh = random.Random(9)

    async def publish(at: MarketStore, number: int) -> None:
        await at.publish(publication(made(fresh, 2**40 + number), account(number), number), 10**9)

    numbers = iter(range(10**6))
    ours = statistics.median(await times(lambda _: publish(store, next(numbers)), 60))
    reference = statistics.median(await times(lambda _: publish(empty, next(numbers)), 60))
    yield Ratio(f"{what}: publishing, the chain's part aside", ours, "into an empty book", reference, "s")


def some_offers() -> Iterator[Publication]:
    common: dict[str, Any] = {"tag": tag(TEE_TDX), "volume": 9}
    yield publication(AppOrder(app=account(7), appprice=0, **common), account(2), 0)
    pool = WorkerpoolOrder(workerpool=account(9), workerpoolprice=0, category=1, trust=10, **common)
    yield publication(pool, account(3), 0)


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
