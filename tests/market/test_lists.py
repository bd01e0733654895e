"""What SQL finds for a request is what the rules find in the whole book."""

from __future__ import annotations

import random
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from sealdeal.market.book import Candidates, Offer, Status, best_fill, price_of
from sealdeal.market.lists import Lists
from sealdeal.market.records import Change, OrderFilter, Publication
from sealdeal.market.store import MarketStore
from sealdeal.model.orders import (
    SCONE,
    TEE,
    TEE_TDX,
    AppOrder,
    DatasetOrder,
    Kind,
    RequestOrder,
    Signed,
    WorkerpoolOrder,
    kind_of,
    tag,
)
from sealdeal.model.types import ZERO, Block, keccak
from tests.market.conftest import emptied
from tests.market.test_book import APP, DATA, POOLS, REQUESTER, STRANGER

GENESIS = Block(0, bytes(32), 0)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[MarketStore]:
    opened = await MarketStore.open(f"sqlite+aiosqlite:///{tmp_path}/market.db")
    await opened.apply(None, GENESIS, [], [], [], read_at=0)
    yield opened
    await opened.close()


async def publish(store: MarketStore, order: Any, time: int = 0) -> Offer[Any]:
    hash = keccak(repr(order).encode())
    new = Publication(hash, kind_of(order), Signed(order, b""), STRANGER, time, order.volume, True, GENESIS)
    record = await store.publish(new, 10**6)
    assert record
    return record.offer


def random_order(rng: random.Random) -> Any:
    def restricted(*to: Any) -> Any:
        return rng.choice([ZERO, ZERO, ZERO, STRANGER, *to])

    common: dict[str, Any] = {
        "volume": rng.randint(1, 3),
        "tag": tag(rng.choice([0, TEE, TEE, TEE_TDX, TEE | SCONE, TEE | 1 << 255, 1 << 64])),
        "salt": rng.randbytes(32),
    }
    price = rng.randint(0, 3)
    match rng.randrange(3):
        case 0:
            return AppOrder(
                rng.choice([APP, APP, APP, STRANGER]),
                price,
                datasetrestrict=restricted(DATA),
                workerpoolrestrict=restricted(*POOLS),
                requesterrestrict=restricted(REQUESTER),
                **common,
            )
        case 1:
            return DatasetOrder(
                DATA,
                price,
                apprestrict=restricted(APP),
                workerpoolrestrict=restricted(*POOLS),
                requesterrestrict=restricted(REQUESTER),
                **common,
            )
        case _:
            return WorkerpoolOrder(
                rng.choice(POOLS),
                price,
                category=rng.randint(0, 1),
                trust=rng.randint(0, 2),
                apprestrict=restricted(APP),
                datasetrestrict=restricted(DATA),
                requesterrestrict=restricted(REQUESTER),
                **common,
            )


@pytest.mark.parametrize("seed", range(12))
async def test_the_candidates_hold_the_best_fill_of_the_whole_book(store: MarketStore, seed: int) -> None:
    rng = random.Random(seed)
    offers = [await publish(store, random_order(rng)) for _ in range(60)]

    def of(kind: type) -> list[Offer[Any]]:
        return [offer for offer in offers if isinstance(offer.order, kind)]

    found = 0
    for number in range(40):
        order = RequestOrder(
            APP,
            rng.randint(0, 3),
            rng.choice([ZERO, DATA]),
            rng.randint(0, 3),
            rng.choice([ZERO, ZERO, *POOLS]),
            rng.randint(0, 3),
            REQUESTER,
            rng.randint(1, 3),
            tag(rng.choice([0, 0, TEE, TEE_TDX])),
            rng.randint(0, 1),
            rng.randint(0, 2),
        )
        request = Offer(keccak(b"%d" % number), 0, Signed(order, b""), order.volume, REQUESTER)
        aside = {offer.hash for offer in offers if rng.random() < 0.1}
        whole = [
            [o for o in of(kind) if o.hash not in aside] for kind in (AppOrder, DatasetOrder, WorkerpoolOrder)
        ]
        if order.dataset == ZERO:
            whole[1] = []
        best = best_fill(request, Candidates(whole[0], whole[1], whole[2]))
        assert best_fill(request, await Lists(store).candidates(order, without=aside)) == best
        found += best is not None
    assert found, "a book in which nothing ever fits shows nothing"


async def test_no_number_of_cheaper_offers_hides_the_one_that_fits(store: MarketStore) -> None:
    """Spam below the price of the only pool that the app allows."""
    await publish(store, AppOrder(APP, workerpoolrestrict=POOLS[1]))
    for number in range(300):
        await publish(store, WorkerpoolOrder(POOLS[0], salt=number.to_bytes(32, "big")))
    fitting = await publish(store, WorkerpoolOrder(POOLS[1], 5))
    order = RequestOrder(APP, workerpoolmaxprice=9, requester=REQUESTER)
    request = Offer(bytes(32), 0, Signed(order, b""), 1, REQUESTER)
    fill = best_fill(request, await Lists(store).candidates(order))
    assert fill and fill.workerpool == fitting


async def test_a_new_offer_wakes_the_requests_it_may_serve_and_no_others(store: MarketStore) -> None:
    base = RequestOrder(APP, 0, workerpoolmaxprice=2, requester=REQUESTER, trust=1)
    mine = await publish(store, base, 1)
    rich = await publish(store, replace(base, workerpoolmaxprice=9), 2)
    other_app = await publish(store, replace(base, app=STRANGER), 3)
    elsewhere = await publish(store, replace(base, workerpool=POOLS[1]), 4)
    smaller = await publish(store, replace(base, category=1), 5)
    lists = Lists(store)

    async def woken(order: Any) -> list[bytes]:
        return [turn.hash for turn in await lists.waiting([(await publish(store, order)).hash])]

    pool = WorkerpoolOrder(POOLS[0], 2, trust=1)
    assert await woken(pool) == [rich.hash, mine.hash, other_app.hash]
    assert await woken(replace(pool, workerpoolprice=3)) == [rich.hash]
    assert await woken(replace(pool, trust=0)) == []
    assert await woken(replace(pool, workerpool=POOLS[1], category=0)) == [
        rich.hash,
        mine.hash,
        other_app.hash,
        elsewhere.hash,
    ]
    assert await woken(AppOrder(STRANGER)) == [other_app.hash]
    assert await woken(DatasetOrder(DATA)) == []
    everyone = [rich.hash, mine.hash, other_app.hash, elsewhere.hash, smaller.hash]
    assert [turn.hash for turn in await lists.waiting()] == everyone


@pytest.fixture(params=["SQLite", "PostgreSQL"])
async def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[MarketStore]:
    """An empty store on each kind of database."""
    url = f"sqlite+aiosqlite:///{tmp_path}/market.db"
    if request.param == "PostgreSQL":
        url = await emptied(request.getfixturevalue("postgres_url"))
    opened = await MarketStore.open(url)
    await opened.apply(None, GENESIS, [], [], [], read_at=0)
    yield opened
    await opened.close()


@pytest.mark.parametrize("seed", range(2))
async def test_a_list_is_as_long_as_it_says_and_in_order_however_it_is_read(
    anywhere: MarketStore, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gathered from the tops of shelves, or read in the book's order: what the filter says, page by page."""
    store, rng, times = anywhere, random.Random(seed), dict[bytes, int]()
    found = []
    for _ in range(90):
        found.append(await publish(store, random_order(rng), time := rng.randrange(5)))
        times[found[-1].hash] = time
    gone = rng.sample(found, 25)
    for offer in gone[:15]:
        status = rng.choice([Status.FILLED, Status.CANCELED, Status.DEAD])
        await store.apply(GENESIS, GENESIS, [Change(offer.hash, status, 0)], [], [], read_at=0)
    for offer in gone[15:]:
        await store.unpublish(kind_of(offer.order), STRANGER, hash=offer.hash)
    left = [offer for offer in found if offer not in gone]
    for offer in (spent := [o for o in left if o.remaining == 3][:5]):
        await store.apply(GENESIS, GENESIS, [Change(offer.hash, Status.OPEN, 1)], [], [], read_at=0)
    left = [replace(o, remaining=1) if o in spent else o for o in left]
    lists, asked = Lists(store), 0
    for kind in (Kind.APP, Kind.DATASET, Kind.WORKERPOOL, Kind.REQUEST):
        for wanted in (
            OrderFilter(kind),
            OrderFilter(kind, min_tag=TEE),
            OrderFilter(kind, max_tag=TEE),
            OrderFilter(kind, min_volume=2),
            OrderFilter(kind, min_volume=4),
            OrderFilter(kind, category=1, min_volume=3),
            OrderFilter(kind, admits={"requesterrestrict": (ZERO, REQUESTER)}),
            OrderFilter(kind, {"signer": STRANGER}),
            OrderFilter(kind, {"workerpool": POOLS[0]}, category=1),
        ):
            fitting = sorted(
                (price_of(o.order), times[o.hash], o.hash)
                for o in left
                if kind_of(o.order) is kind and fits(o, wanted)
            )
            asked += bool(fitting)
            for most, tops in ((0, 0), (1000, 0), (2, 1000), (1000, 1000)):
                monkeypatch.setattr("sealdeal.market.lists.MERGED", most)
                monkeypatch.setattr("sealdeal.market.lists.GATHERED", tops)
                pages = [await lists.list_orders(wanted, skip, 7) for skip in range(0, len(fitting) + 7, 7)]
                assert {count for _, count in pages} == {len(fitting)}
                read = [(one.rank, one.published_at, one.hash) for page, _ in pages for one in page]
                assert read == fitting
    assert asked >= 15, "lists of nothing show nothing"
    counts = await lists.counts()
    assert sum(counts.values()) == len({hash for kind in Kind for hash in await hashes(lists, kind)})


def fits(offer: Offer[Any], wanted: OrderFilter) -> bool:
    """Whether a filter admits an offer, read from the order itself."""
    order, bits = offer.order, int.from_bytes(offer.order.tag, "big")
    return (
        all(
            getattr(order, name, None) == value or (name == "signer" and offer.signer == value)
            for name, value in wanted.equal.items()
        )
        and all(getattr(order, name) in values for name, values in wanted.admits.items())
        and wanted.category in (None, getattr(order, "category", None))
        and bits & wanted.min_tag == wanted.min_tag
        and (wanted.max_tag is None or bits & ~wanted.max_tag == 0)
        and offer.remaining >= wanted.min_volume
    )


async def test_no_list_of_one_assets_orders_reads_the_book_of_all(store: MarketStore) -> None:
    """SQLite, which has no statistics, looks them up by the asset, whatever else a list asks."""
    lists = Lists(store)
    wanted = [OrderFilter(kind, {kind.value: STRANGER}) for kind in (Kind.APP, Kind.DATASET, Kind.WORKERPOOL)]
    for name in ("app", "dataset", "requester", "beneficiary"):
        wanted += [OrderFilter(Kind.REQUEST, {name: STRANGER}, category=category) for category in (None, 1)]
    wanted += [OrderFilter(Kind.WORKERPOOL, {"workerpool": STRANGER}, category=1, min_volume=2)]
    for one in wanted:
        [column] = one.equal
        with looked_at() as statements:
            await lists.list_orders(one, 0, 20)
        found = await looked_up(store, statements, "market_book")
        assert column in found and found <= {column, "hash"}, one
    with looked_at() as statements:
        await lists.list_deals({"app": STRANGER, "category": 1}, 0, 20)
    assert await looked_up(store, statements, "market_deals") == {"app"}


async def test_a_page_and_its_number_are_found_in_the_index_by_shelf_alone(store: MarketStore) -> None:
    """By SQLite's other index of the same shelves each order would have to be looked up in the book."""
    for price in (1, 2):
        await publish(store, WorkerpoolOrder(POOLS[0], price, volume=2, category=1))
    with looked_at() as statements:
        page, count = await Lists(store).list_orders(
            OrderFilter(Kind.WORKERPOOL, category=1, min_volume=2), 0, 20
        )
    assert len(page) == count == 2
    plans = await planned(store, statements)
    by_shelf = [step for step in plans if "market_book " in step and "shelf=?" in step]
    assert len(by_shelf) == 2, "the number, and the page"
    assert all("COVERING INDEX market_book_by_shelf " in step for step in by_shelf), by_shelf


@contextmanager
def looked_at() -> Iterator[list[tuple[str, Any]]]:
    """The queries that are asked meanwhile, each with its parameters."""
    found: list[tuple[str, Any]] = []

    def execute(_: sa.Connection, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        if statement.startswith("SELECT"):
            found.append((statement, parameters))

    sa.event.listen(sa.Engine, "before_cursor_execute", execute)
    try:
        yield found
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", execute)


async def planned(store: MarketStore, statements: list[tuple[str, Any]]) -> list[str]:
    """The steps in which SQLite answers these queries."""
    async with store.read() as connection:
        return [
            row.detail
            for statement, parameters in statements
            for row in await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        ]


async def looked_up(store: MarketStore, statements: list[tuple[str, Any]], table: str) -> set[str]:
    """The columns by which SQLite finds rows of a table for these queries; "" where it reads all of them."""
    found = set()
    for step in await planned(store, statements):
        if re.match(rf"(SEARCH|SCAN) {table}\b", step):
            by = re.search(r"\((\w+)=\?", step)
            found.add(by[1] if by else "")
    return found


async def hashes(lists: Lists, kind: Kind) -> list[bytes]:
    return [order.hash for order in (await lists.list_orders(OrderFilter(kind), 0, 1000))[0]]


async def test_the_queue_of_requests_is_read_a_page_at_a_time(store: MarketStore) -> None:
    """Some pay alike, some came in the same millisecond, some wait for either offer: each is read once."""
    base = RequestOrder(APP, 0, workerpoolmaxprice=2, requester=REQUESTER)
    for number in range(17):
        salt = number.to_bytes(32, "big")
        await publish(store, replace(base, workerpoolmaxprice=2 + number % 3, salt=salt), number // 4)
    offers = [await publish(store, order) for order in (AppOrder(APP), WorkerpoolOrder(POOLS[0], 1))]
    lists = Lists(store)
    for of in (None, [offer.hash for offer in offers]):
        queue = await lists.waiting(of)
        assert len(queue) == 17 and queue == sorted(queue)
        read, last = [], None
        while page := await lists.waiting(of, last, limit=5):
            assert len(page) <= 5
            read += page
            last = page[-1]
        assert read == queue
