"""Every question that the market answers from its tables: lists, and offers for the engine."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import product
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from sealdeal.model.orders import (
    FRAMEWORKS,
    TEE,
    AppOrder,
    DatasetOrder,
    Kind,
    RequestOrder,
    WorkerpoolOrder,
    tag_bits,
)
from sealdeal.model.types import ZERO, Address

from .book import Candidates, Offer
from .store import (
    OPEN,
    MarketStore,
    OrderFilter,
    Record,
    book,
    categories,
    conditions,
    deals,
    identity,
    parts,
    record_of,
    records,
)

CANDIDATES = 200
"""Offers of one app or dataset, cheapest first, that are looked at; and of a category, to explain."""


class Lists:
    """Questions to a market's store."""

    def __init__(self, store: MarketStore) -> None:
        self._store = store

    async def list_orders(self, wanted: OrderFilter, skip: int, limit: int) -> tuple[list[Record], int]:
        """A page of open orders, best price first, then oldest; and how many there are in all."""
        where = conditions(wanted)
        price = book.c.price.desc() if wanted.kind is Kind.REQUEST else book.c.price
        page = records().where(*where).order_by(price, book.c.published_at, book.c.hash)
        async with self._store.read() as connection:
            count = await connection.execute(sa.select(sa.func.count()).select_from(book).where(*where))
            rows = await connection.execute(page.offset(skip).limit(limit))
            return [record_of(row) for row in rows], int(count.scalar_one())

    async def deal(self, dealid: bytes) -> dict[str, Any] | None:
        """A deal's document."""
        async with self._store.read() as connection:
            query = sa.select(deals.c.document).where(deals.c.dealid == dealid)
            return (await connection.execute(query)).scalar()

    async def list_deals(
        self, equal: Mapping[str, Any], skip: int, limit: int
    ) -> tuple[list[dict[str, Any]], int]:
        """A page of deals, newest first. `equal`: column -> value, as named on the wire."""
        where = [deals.c[name] == value for name, value in equal.items()]
        page = sa.select(deals.c.document).where(*where).order_by(deals.c.block.desc(), deals.c.dealid)
        async with self._store.read() as connection:
            count = await connection.execute(sa.select(sa.func.count()).select_from(deals).where(*where))
            rows = await connection.execute(page.offset(skip).limit(limit))
            return [row.document for row in rows], int(count.scalar_one())

    async def category(self, catid: int) -> dict[str, Any] | None:
        """A category's document."""
        async with self._store.read() as connection:
            query = sa.select(categories.c.document).where(categories.c.catid == catid)
            return (await connection.execute(query)).scalar()

    async def list_categories(
        self, least: int, most: int | None, skip: int, limit: int
    ) -> tuple[list[dict[str, Any]], int]:
        """A page of categories with a reference time between `least` and `most` seconds, shortest first."""
        time = categories.c.work_clock_time_ref
        where = [time >= least] + ([time <= most] if most is not None else [])
        page = sa.select(categories.c.document).where(*where).order_by(time, categories.c.catid)
        async with self._store.read() as connection:
            count = await connection.execute(sa.select(sa.func.count()).select_from(categories).where(*where))
            rows = await connection.execute(page.offset(skip).limit(limit))
            return [row.document for row in rows], int(count.scalar_one())

    async def counts(self) -> dict[Kind, int]:
        """How many open orders of each kind there are."""
        query = sa.select(book.c.kind, sa.func.count()).where(OPEN).group_by(book.c.kind)
        async with self._store.read() as connection:
            found = {Kind(kind): int(count) for kind, count in await connection.execute(query)}
        return {kind: found.get(kind, 0) for kind in Kind}

    # ---------------------------------------------------------------------------------- matching

    async def candidates(self, request: RequestOrder, without: Collection[bytes] = ()) -> Candidates:
        """The offers among which the best fill of a request is, less those in `without`.

        Apps and datasets: all that fit as far as one offer alone can tell (an owner has few open ones).
        Workerpools: for everything that some app's and some dataset's offer ask of it together, the first
        by price and time; so no number of cheaper offers that do not fit can hide one that does.
        """
        tee = tag_bits(request.tag) & TEE
        place = {} if request.workerpool == ZERO else {"workerpoolrestrict": (ZERO, request.workerpool)}
        asker = {"requesterrestrict": (ZERO, request.requester)}
        app = OrderFilter(
            Kind.APP,
            {"app": request.app},
            {"datasetrestrict": (ZERO, request.dataset), **asker, **place},
            min_tag=tee,
        )
        data = OrderFilter(
            Kind.DATASET, {"dataset": request.dataset}, {"apprestrict": (ZERO, request.app), **asker, **place}
        )
        async with self._store.read() as connection:
            apps = await _offers(connection, app, request.appmaxprice, without=without)
            datasets = (
                await _offers(connection, data, request.datasetmaxprice, without=without)
                if request.dataset != ZERO
                else []
            )
            pools: dict[bytes, Offer[WorkerpoolOrder]] = {}
            for pool, bits in _asked_of_pools(request, apps, datasets):
                wanted = OrderFilter(
                    Kind.WORKERPOOL,
                    {} if pool == ZERO else {"workerpool": pool},
                    {"apprestrict": (ZERO, request.app), "datasetrestrict": (ZERO, request.dataset), **asker},
                    category=request.category,
                    min_tag=bits,
                    min_trust=request.trust,
                )
                most = request.workerpoolmaxprice
                for offer in await _offers(connection, wanted, most, without=without, limit=1):
                    pools[offer.hash] = offer
        return Candidates(apps, datasets, list(pools.values()))

    async def neighbours(self, request: RequestOrder) -> Candidates:
        """The offers of a request's app, dataset and category, whether or not they fit it."""
        place = {} if request.workerpool == ZERO else {"workerpool": request.workerpool}
        async with self._store.read() as connection:
            return Candidates(
                await _offers(connection, OrderFilter(Kind.APP, {"app": request.app})),
                await _offers(connection, OrderFilter(Kind.DATASET, {"dataset": request.dataset}))
                if request.dataset != ZERO
                else [],
                await _offers(connection, OrderFilter(Kind.WORKERPOOL, place, category=request.category)),
            )

    async def waiting(self, offers: Collection[bytes] | None = None) -> list[bytes]:
        """Open requests that these offers may serve (None: all), the best paying first, then oldest."""
        columns = (book.c.hash, book.c.price, book.c.sequence)
        found: dict[bytes, tuple[int, int]] = {}
        async with self._store.read() as connection:

            async def add(*where: sa.ColumnElement[bool]) -> None:
                query = sa.select(*columns).where(book.c.kind == Kind.REQUEST, OPEN, *where)
                for row in await connection.execute(query):
                    found[row.hash] = (-row.price, row.sequence)

            if offers is None:
                await add()
            for part in parts(list(offers or ())):
                for offer in (
                    await connection.execute(sa.select(book).where(book.c.hash.in_(part), OPEN))
                ).all():
                    if offer.kind == Kind.REQUEST:
                        found[offer.hash] = (-offer.price, offer.sequence)
                    elif offer.kind == Kind.WORKERPOOL:
                        await add(
                            book.c.category == offer.category,
                            book.c.price >= offer.price,
                            book.c.trust <= offer.trust,
                            book.c.workerpool.in_((ZERO, offer.workerpool)),
                        )
                    else:
                        column = identity(Kind(offer.kind))
                        await add(book.c[column] == getattr(offer, column))
        return sorted(found, key=lambda hash: found[hash])


async def _offers(
    connection: AsyncConnection,
    wanted: OrderFilter,
    most: int | None = None,
    *,
    without: Collection[bytes] = (),
    limit: int = CANDIDATES,
) -> list[Offer[Any]]:
    query = records().where(*conditions(wanted))
    if most is not None:
        query = query.where(book.c.price <= most)
    if without:
        query = query.where(book.c.hash.not_in(without))
    rows = await connection.execute(query.order_by(book.c.price, book.c.sequence).limit(limit))
    return [record_of(row).offer for row in rows]


def _asked_of_pools(
    request: RequestOrder, apps: Collection[Offer[AppOrder]], datasets: Collection[Offer[DatasetOrder]]
) -> set[tuple[Address, int]]:
    """Which the workerpool must be (zero: any) and its tag, for each pair of an app and a dataset."""

    def asked(offers: Collection[Offer[Any]], ignored: int) -> set[tuple[Address, int]]:
        return {(o.order.workerpoolrestrict, tag_bits(o.order.tag) & ~ignored) for o in offers}

    of_data = asked(datasets, FRAMEWORKS) if request.dataset != ZERO else {(ZERO, 0)}
    found = set()
    for (first, bits), (second, more) in product(asked(apps, 0), of_data):
        places = {first, second, request.workerpool} - {ZERO}
        if len(places) <= 1:
            found.add((next(iter(places), ZERO), bits | more | tag_bits(request.tag)))
    return found
