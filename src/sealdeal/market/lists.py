"""Every question that the market answers from its tables: lists, and offers for the engine."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
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
from sealdeal.model.types import ZERO, Address, Block

from .book import Candidates, Offer
from .groups import Groups, Pair
from .journal import tasks
from .records import OrderFilter, conditions, is_group, order_text, parts, record_of, records
from .shelves import shelves
from .store import MarketStore
from .tables import OPEN, book, categories, deals, groups, identity, is_kind, orders

CANDIDATES = 200
"""Offers of one app or dataset, cheapest first, that are looked at; and of a category, to explain."""
COUNTED = 10_000
"""Orders, or shelves of them, up to which a list says exactly how long it is."""
MERGED, GATHERED = 1_000, 40_000
"""Shelves, and orders at their tops, among which a page is looked for; of more, the book is read in its
order."""
QUEUED = 200
"""Requests that the engine takes from the queue at a time."""
TIMED = 1_000
"""Tasks whose time is looked at, the newest deals' first."""
_ORDER = (book.c.rank, book.c.published_at, book.c.hash)
_LISTED = tuple(
    book.c[name] for name in ("hash", "kind", "status", "remaining", "published_at", "signer", "rank", "bulk")
)
"""What lists show of an order beside its own JSON, and sort by."""
_TEXT_OF_ORDER = sa.cast(orders.c.document, sa.Text).label("text")
_TEXT_OF_DEAL = sa.cast(deals.c.document, sa.Text).label("text")
"""As it is stored, to be passed on unread."""


class Turn(NamedTuple):
    """A request's place in the queue: they sort as they are served."""

    rank: int
    """What it pays a workerpool at most, negative."""
    published_at: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Listed:
    """An open order in a list."""

    hash: bytes
    rank: int
    """Its price; of a request negative."""
    published_at: int
    text: str
    """JSON of its document, less its chain."""


class Lists:
    """Questions to a market's store."""

    def __init__(self, store: MarketStore, asking: Groups | None = None) -> None:
        """`asking`: asks groups, which admit nobody without it."""
        self._store, self._groups = store, asking

    async def list_orders(self, wanted: OrderFilter, skip: int, limit: int) -> tuple[list[Listed], int]:
        """A page of open orders, best price first, then oldest; and how many there are in all.

        The number is exact, or at least COUNTED.
        """
        async with self._store.read() as connection:
            count, page = await _page(connection, wanted, skip + limit)
            if skip >= count < COUNTED:
                return [], count
            top = page.offset(skip).limit(limit).subquery()
            whole = (
                sa.select(*_LISTED, _TEXT_OF_ORDER)
                .join(top, top.c.hash == book.c.hash)
                .join(orders, orders.c.hash == top.c.hash)
            )
            rows = (await connection.execute(whole)).all()
        found = [Listed(row.hash, row.rank, row.published_at, order_text(row)) for row in rows]
        return sorted(found, key=lambda one: (one.rank, one.published_at, one.hash)), count

    async def deal(self, dealid: bytes) -> dict[str, Any] | None:
        """A deal's document."""
        async with self._store.read() as connection:
            query = sa.select(deals.c.document).where(deals.c.dealid == dealid)
            return (await connection.execute(query)).scalar()

    async def list_deals(self, equal: Mapping[str, Any], skip: int, limit: int) -> tuple[list[str], int]:
        """A page of deals, newest first: the JSON of each. `equal`: column -> value, as named on the wire.

        How many there are in all is exact up to COUNTED.
        """
        where = [deals.c[name] == value for name, value in equal.items() if name != "category"]
        if "category" in equal:
            where.append(_of_category(deals, equal["category"], alone=not where))
        page = sa.select(_TEXT_OF_DEAL).where(*where).order_by(deals.c.block.desc(), deals.c.dealid.desc())
        async with self._store.read() as connection:
            count = await _counted(connection, sa.select(sa.literal(1)).select_from(deals).where(*where))
            rows = await connection.execute(page.offset(skip).limit(limit))
            return list(rows.scalars()), max(count, skip + 1) if count == COUNTED else count

    async def last_deals(self, category: int | None, limit: int) -> list[dict[str, Any]]:
        """The documents of a category's newest deals."""
        page = sa.select(deals.c.document).order_by(deals.c.block.desc(), deals.c.dealid.desc()).limit(limit)
        async with self._store.read() as connection:
            return list((await connection.execute(page.where(deals.c.category == category))).scalars())

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
        query = sa.select(shelves.c.kind, sa.func.sum(shelves.c.open)).group_by(shelves.c.kind)
        async with self._store.read() as connection:
            found = {Kind(kind): int(count) for kind, count in await connection.execute(query)}
        return {kind: found.get(kind, 0) for kind in Kind}

    # ---------------------------------------------------------------------------------- matching

    async def candidates(
        self, request: RequestOrder, without: Collection[bytes] = (), at: Block | None = None
    ) -> Candidates:
        """The offers among which the best fill of a request is, less those in `without`.

        Apps and datasets: of those that are alike but for price and volume, the first by price and time.
        Workerpools: for everything that some app's and some dataset's offer ask of it together, the first
        by price and time; so no number of cheaper offers that do not fit can hide one that does. Groups are
        asked at block `at`; of the workerpools that may be in a group, those of the CANDIDATES best offers.
        """
        tee = tag_bits(request.tag) & TEE
        in_group = await self._are_groups({request.workerpool} - {ZERO})
        named = request.workerpool != ZERO and not in_group
        place = {"workerpoolrestrict": (ZERO, request.workerpool)} if named else {}
        asker = {"requesterrestrict": (ZERO, request.requester)}
        app = OrderFilter(
            Kind.APP,
            {"app": request.app},
            {"datasetrestrict": (ZERO, request.dataset), **asker, **place},
            min_tag=tee,
            or_groups=True,
        )
        data = OrderFilter(
            Kind.DATASET,
            {"dataset": request.dataset},
            {"apprestrict": (ZERO, request.app), **asker, **place},
            or_groups=True,
        )
        async with self._store.read() as connection:
            apps = await _tops(connection, app, request.appmaxprice, without)
            datasets = (
                await _tops(connection, data, request.datasetmaxprice, without)
                if request.dataset != ZERO
                else []
            )
            of_pools = await _groups_of_pools(connection, request.category)
        places = {offer.order.workerpoolrestrict for offer in (*apps, *datasets)}
        known = in_group | await self._are_groups(places - {ZERO})
        pairs = {*_pairs(request, (*apps, *datasets)), *of_pools(request)}
        pairs |= {(group, fixed) for group in known for fixed in (*places, request.workerpool)}
        pairs = {(group, one) for group, one in pairs if group != one and ZERO not in (group, one)}
        admitted = await self._admitted(pairs, at)
        found = Candidates(apps, datasets, [], admitted, len(admitted) < len(pairs))
        apps = [o for o in apps if all(found.admits(*pair) for pair in _pairs(request, [o]))]
        datasets = [o for o in datasets if all(found.admits(*pair) for pair in _pairs(request, [o]))]
        pools: dict[bytes, Offer[WorkerpoolOrder]] = {}
        for asked, bits in _asked_of_pools(request, apps, datasets):
            among, single = asked & known, asked - known
            if len(single) > 1 or any(not found.admits(group, one) for group in among for one in single):
                continue
            wanted = OrderFilter(
                Kind.WORKERPOOL,
                dict.fromkeys(["workerpool"] if single else [], next(iter(single), ZERO)),
                {
                    f"{name}restrict": (ZERO, own, *(group for group, who in admitted if who == own))
                    for name, own in _own(request).items()
                },
                category=request.category,
                min_tag=bits,
                min_trust=request.trust,
            )
            most = request.workerpoolmaxprice
            if among and not single:
                offer, more = await self._best_in_groups(wanted, most, without, among, at)
                found = replace(found, admitted=found.admitted | more, refused=found.refused or offer is None)
            else:
                async with self._store.read() as connection:
                    offer = await _best_offer(connection, wanted, most, without)
            if offer is not None:
                pools[offer.hash] = offer
        return replace(found, apps=apps, datasets=datasets, workerpools=list(pools.values()))

    async def _best_in_groups(
        self,
        wanted: OrderFilter,
        most: int,
        without: Collection[bytes],
        among: Collection[Address],
        at: Block | None,
    ) -> tuple[Offer[WorkerpoolOrder] | None, frozenset[Pair]]:
        """The first offer by price, then time, of a workerpool that these groups admit; whom they admit."""
        async with self._store.read() as connection:
            offers = await _offers(connection, wanted, most, without=without)
        asked = {(group, offer.order.workerpool) for group in among for offer in offers}
        admitted = await self._admitted(asked, at)
        fitting = (o for o in offers if all((group, o.order.workerpool) in admitted for group in among))
        return next(fitting, None), admitted

    async def _are_groups(self, addresses: Collection[Address]) -> set[Address]:
        return await self._store.groups(addresses) if addresses else set()

    async def _admitted(self, pairs: Collection[Pair], at: Block | None) -> frozenset[Pair]:
        return await self._groups.admitted(pairs, at) if pairs and self._groups else frozenset()

    async def durations(self, app: Address, category: int) -> list[int]:
        """Seconds from the deal to the completion of each of the last tasks of an app in a category."""
        query = (
            sa.select(tasks.c.ended_at - deals.c.timestamp)
            .join(deals, deals.c.dealid == tasks.c.dealid)
            .where(deals.c.app == app, deals.c.category == category, tasks.c.status == "completed")
            .order_by(deals.c.block.desc())
            .limit(TIMED)
        )
        async with self._store.read() as connection:
            return [int(seconds) for seconds in (await connection.execute(query)).scalars()]

    async def neighbours(self, request: RequestOrder, at: Block | None = None) -> Candidates:
        """The offers of a request's app, dataset and category, whether or not they fit it."""
        anywhere = request.workerpool == ZERO or await self._are_groups({request.workerpool})
        place = {} if anywhere else {"workerpool": request.workerpool}
        async with self._store.read() as connection:
            found = Candidates(
                await _offers(connection, OrderFilter(Kind.APP, {"app": request.app})),
                await _offers(connection, OrderFilter(Kind.DATASET, {"dataset": request.dataset}))
                if request.dataset != ZERO
                else [],
                await _offers(connection, OrderFilter(Kind.WORKERPOOL, place, category=request.category)),
            )
        offers: list[Offer[Any]] = [*found.apps, *found.datasets]
        places = {request.workerpool, *(offer.order.workerpoolrestrict for offer in offers)}
        pools = {offer.order.workerpool for offer in found.workerpools}
        pairs = {*_pairs(request, (*offers, *found.workerpools)), *product(places, pools)}
        known = await self._are_groups({group for group, _ in pairs} - {ZERO})
        return replace(found, admitted=await self._admitted({p for p in pairs if p[0] in known}, at))

    async def open_of(self, signers: Collection[Address]) -> list[bytes]:
        """The open orders of these signers."""
        if not signers:
            return []
        query = sa.select(book.c.hash).where(OPEN, book.c.signer.in_(signers))
        async with self._store.read() as connection:
            return list((await connection.execute(query)).scalars())

    async def waiting(
        self, offers: Collection[bytes] | None = None, after: Turn | None = None, limit: int = QUEUED
    ) -> list[Turn]:
        """A page of the open requests that these offers may serve (None: all), as lists show them: the best
        paying first, then the oldest. `after`: the last of the page before."""
        columns = (book.c.rank, book.c.published_at, book.c.hash)
        found: set[Turn] = set()
        async with self._store.read() as connection:

            async def add(*where: sa.ColumnElement[bool]) -> None:
                query = sa.select(*columns).where(is_kind(Kind.REQUEST), OPEN, *where)
                if after is not None:
                    key = (
                        sa.literal(value, column.type) for value, column in zip(after, columns, strict=True)
                    )
                    query = query.where(sa.tuple_(*columns) > sa.tuple_(*key))
                rows = await connection.execute(query.order_by(*_ORDER).limit(limit))
                found.update(Turn(*row) for row in rows)
                for late in sorted(found)[limit:]:
                    found.discard(late)

            if offers is None:
                await add()
            for part in parts(list(offers or ())):
                for offer in (
                    await connection.execute(sa.select(book).where(book.c.hash.in_(part), OPEN))
                ).all():
                    if offer.kind == Kind.REQUEST:
                        await add(book.c.hash == offer.hash)
                    elif offer.kind == Kind.WORKERPOOL:
                        await add(
                            book.c.category == offer.category,
                            book.c.rank <= -offer.price,
                            book.c.trust <= offer.trust,
                            sa.or_(
                                book.c.workerpool.in_((ZERO, offer.workerpool)), is_group(book.c.workerpool)
                            ),
                        )
                    else:
                        column = identity(Kind(offer.kind))
                        await add(book.c[column] == getattr(offer, column))
        return sorted(found)


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
    rows = await connection.execute(query.order_by(book.c.rank, book.c.sequence).limit(limit))
    return [record_of(row).offer for row in rows]


async def _tops(
    connection: AsyncConnection, wanted: OrderFilter, most: int, without: Collection[bytes]
) -> list[Offer[Any]]:
    """Of each shelf, the first offer by price, then time: whatever it does not fit, none below it does."""
    number = sa.func.row_number().over(partition_by=book.c.shelf, order_by=(book.c.rank, book.c.sequence))
    where = (*conditions(wanted), book.c.rank <= most, book.c.hash.not_in(without))
    ranked = sa.select(book.c.hash, number.label("number")).where(*where).subquery()
    query = records().join(ranked, sa.and_(ranked.c.hash == book.c.hash, ranked.c.number == 1))
    rows = await connection.execute(query.order_by(book.c.rank, book.c.sequence))
    return [record_of(row).offer for row in rows]


async def _best_offer(
    connection: AsyncConnection, wanted: OrderFilter, most: int, without: Collection[bytes]
) -> Offer[Any] | None:
    """The first by price, then time: the tops of the shelves that fit, compared."""
    if wanted.equal:
        found = await _offers(connection, wanted, most, without=without, limit=1)
        return found[0] if found else None
    top = (
        sa.select(book.c.hash)
        .where(book.c.shelf == shelves.c.key, OPEN, book.c.rank <= most, book.c.hash.not_in(without))
        .order_by(book.c.rank, book.c.sequence)
        .limit(1)
        .scalar_subquery()
    )
    tops = (await connection.execute(sa.select(top).where(*conditions(wanted, shelves)))).scalars()
    best: Offer[Any] | None = None
    for part in parts([hash for hash in tops if hash is not None]):
        query = records().where(book.c.hash.in_(part)).order_by(book.c.rank, book.c.sequence).limit(1)
        for row in await connection.execute(query):
            offer: Offer[Any] = record_of(row).offer
            if best is None or (offer.price, offer.sequence) < (best.price, best.sequence):
                best = offer
    return best


async def _page(connection: AsyncConnection, wanted: OrderFilter, reach: int) -> tuple[int, sa.Select[Any]]:
    """How many orders a filter admits, and the query for their hashes in order, to be read up to `reach`."""
    if wanted.equal:  # of one asset or owner: there is an index for each
        where = conditions(replace(wanted, category=None))
        if wanted.category is not None:
            where.append(_of_category(book, wanted.category, alone=False))
        rows = sa.select(book.c.hash).where(*where)
        return await _counted(connection, rows), rows.order_by(*_ORDER)
    enough = [book.c.remaining >= wanted.min_volume] if wanted.min_volume > 1 else []
    on = sa.select(shelves.c.key, shelves.c.open).where(*conditions(wanted, shelves))
    found = (await connection.execute(on.limit(MERGED + 1))).all()
    many = len(found) > MERGED
    keys = on.with_only_columns(shelves.c.key) if many else [row.key for row in found]
    if enough:
        count = await _counted(connection, _tops_of(connection, keys, enough, COUNTED))
    elif many:
        some = on.limit(COUNTED).subquery()
        count = int((await connection.execute(sa.select(sa.func.sum(some.c.open)))).scalar_one())
    else:
        count = sum(row.open for row in found)
    if many or sum(min(row.open, reach) for row in found) > GATHERED:
        return count, sa.select(book.c.hash).where(*conditions(wanted)).order_by(*_ORDER)
    tops = _tops_of(connection, keys, enough, reach).subquery()
    return count, sa.select(tops.c.hash).order_by(tops.c.rank, tops.c.published_at, tops.c.hash)


def _tops_of(
    connection: AsyncConnection,
    keys: list[bytes] | sa.Select[tuple[bytes]],
    enough: Collection[sa.ColumnElement[bool]],
    reach: int,
) -> sa.Select[Any]:
    """What lists sort by, of the first `reach` orders of each of these shelves, and maybe of more of them.

    All of it lies in the index by shelf. PostgreSQL would otherwise read and sort whole shelves; SQLite, in a
    sort that ends after some rows, leaves a shelf at the first that is too late.
    """
    query = sa.select(*_ORDER).where(OPEN, *enough)
    if connection.dialect.name == "sqlite":
        return query.where(book.c.shelf.in_(keys))
    if isinstance(keys, list):
        keys = sa.select(sa.func.unnest(sa.literal(keys, ARRAY(sa.LargeBinary))).label("key"))
    each = keys.subquery()
    top = query.where(book.c.shelf == each.c.key).order_by(*_ORDER).limit(reach).lateral()
    return sa.select(*top.c).select_from(each.join(top, sa.true()))


def _of_category(of: sa.Table, category: int, *, alone: bool) -> sa.ColumnElement[bool]:
    """Whether rows are of a category. Unless that is asked alone, they are not looked up by it: SQLite, which
    has no statistics, does not know that a category has more of them than an asset or an account."""
    column: sa.ColumnElement[int] = of.c.category
    return (column if alone else column + 0) == category


async def _counted(connection: AsyncConnection, rows: sa.Select[Any]) -> int:
    query = sa.select(sa.func.count()).select_from(rows.limit(COUNTED).subquery())
    return int((await connection.execute(query)).scalar_one())


def _own(request: RequestOrder) -> dict[str, Address]:
    """What of a request a restriction of this name is about."""
    return {"app": request.app, "dataset": request.dataset, "requester": request.requester}


def _pairs(request: RequestOrder, offers: Collection[Offer[Any]]) -> set[Pair]:
    """(restriction, account) of what these offers ask of the request itself, less what needs no asking."""
    found = set()
    for offer in offers:
        for name, own in _own(request).items():
            restriction = getattr(offer.order, f"{name}restrict", ZERO)
            if restriction not in (ZERO, own):
                found.add((restriction, own))
    return found


async def _groups_of_pools(connection: AsyncConnection, category: int) -> Callable[[RequestOrder], set[Pair]]:
    """The groups that workerpools' offers of a category are restricted to, and what they would be asked."""
    found: dict[str, list[Address]] = {"app": [], "dataset": [], "requester": []}
    for name in found if (await connection.execute(sa.select(groups).limit(1))).first() else ():
        column = shelves.c[f"{name}restrict"]
        where = (is_kind(Kind.WORKERPOOL, shelves), shelves.c.category == category, is_group(column))
        rows = await connection.execute(sa.select(column).distinct().where(*where).limit(CANDIDATES))
        found[name] = list(rows.scalars())
    return lambda request: {(group, own) for name, own in _own(request).items() for group in found[name]}


def _asked_of_pools(
    request: RequestOrder, apps: Collection[Offer[AppOrder]], datasets: Collection[Offer[DatasetOrder]]
) -> set[tuple[frozenset[Address], int]]:
    """All that the workerpool must be, or be in, and its tag, for each pair of an app and a dataset."""

    def asked(offers: Collection[Offer[Any]], ignored: int) -> set[tuple[Address, int]]:
        return {(o.order.workerpoolrestrict, tag_bits(o.order.tag) & ~ignored) for o in offers}

    of_data = asked(datasets, FRAMEWORKS) if request.dataset != ZERO else {(ZERO, 0)}
    return {
        (frozenset({first, second, request.workerpool} - {ZERO}), bits | more | tag_bits(request.tag))
        for (first, bits), (second, more) in product(asked(apps, 0), of_data)
    }
