"""What SQL finds for a request is what the rules find in the whole book."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sealdeal.market.book import Candidates, Offer, Status, best_fill
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


@pytest.mark.parametrize("seed", range(2))
async def test_a_list_is_as_long_as_it_says_and_in_order_however_it_is_read(
    store: MarketStore, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Merged from shelves, or read in the book's order: the same pages; the number is what pages hold."""
    rng = random.Random(seed)
    found = [await publish(store, random_order(rng), rng.randrange(5)) for _ in range(60)]
    for gone in rng.sample(found, 15):
        status = rng.choice([Status.FILLED, Status.CANCELED, Status.DEAD])
        await store.apply(GENESIS, GENESIS, [Change(gone.hash, status, 0)], [], [], read_at=0)
    for gone in rng.sample(found, 10):
        await store.unpublish(kind_of(gone.order), STRANGER, hash=gone.hash)
    lists = Lists(store)
    for kind in (Kind.APP, Kind.DATASET, Kind.WORKERPOOL, Kind.REQUEST):
        for wanted in (
            OrderFilter(kind),
            OrderFilter(kind, min_tag=TEE),
            OrderFilter(kind, max_tag=TEE),
            OrderFilter(kind, min_volume=2),
            OrderFilter(kind, admits={"requesterrestrict": (ZERO, REQUESTER)}),
            OrderFilter(kind, {"signer": STRANGER}),
        ):
            read = []
            for merged in (0, 1000):
                monkeypatch.setattr("sealdeal.market.lists.MERGED", merged)
                pages = [await lists.list_orders(wanted, skip, 16) for skip in range(0, 64, 16)]
                orders = [order for page, _ in pages for order in page]
                assert {count for _, count in pages} == {len(orders)}
                read.append([order.hash for order in orders])
            assert read[0] == read[1]
            ranks = [(order.rank, order.published_at, order.hash) for order in orders]
            assert ranks == sorted(ranks)
    counts = await lists.counts()
    assert sum(counts.values()) == len({hash for kind in Kind for hash in await hashes(lists, kind)})


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
