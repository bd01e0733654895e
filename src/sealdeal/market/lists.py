"""Every question that the market answers from its tables: lists, and offers for the engine."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from ..model.orders import TEE, Kind, RequestOrder, tag_bits
from ..model.types import ZERO
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
"""Offers of each kind, cheapest first, that one search for a match looks at."""


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

    async def candidates(self, request: RequestOrder) -> Candidates:
        """The cheapest offers that fit a request as far as one offer alone can tell."""
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
        pool = OrderFilter(
            Kind.WORKERPOOL,
            {} if request.workerpool == ZERO else {"workerpool": request.workerpool},
            {"apprestrict": (ZERO, request.app), "datasetrestrict": (ZERO, request.dataset), **asker},
            category=request.category,
            min_tag=tag_bits(request.tag),
            min_trust=request.trust,
        )
        async with self._store.read() as connection:
            return Candidates(
                await _offers(connection, app, request.appmaxprice),
                await _offers(connection, data, request.datasetmaxprice) if request.dataset != ZERO else [],
                await _offers(connection, pool, request.workerpoolmaxprice),
            )

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
    connection: AsyncConnection, wanted: OrderFilter, most: int | None = None
) -> list[Offer[Any]]:
    query = records().where(*conditions(wanted))
    if most is not None:
        query = query.where(book.c.price <= most)
    rows = await connection.execute(query.order_by(book.c.price, book.c.sequence).limit(CANDIDATES))
    return [record_of(row).offer for row in rows]
