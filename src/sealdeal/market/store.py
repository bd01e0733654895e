"""What happens to the market's orders: publication, and what the chain makes of them. The market's SQL that
writes; `lists` has what reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from sealdeal.db import Database, open_database
from sealdeal.model.orders import TEE, Kind, RequestOrder, tag_bits
from sealdeal.model.types import ZERO, Address, Block, hexstr

from .book import Status
from .challenges import Authorization, Challenges
from .following import Overtaken
from .journal import (
    Happening,
    Journal,
    TaskStep,
    begin,
    forget_tasks_after,
    is_news,
    note_tasks,
    record,
    tables,
    tasks,
)
from .records import (
    Change,
    OrderFilter,
    Publication,
    Record,
    book_row,
    conditions,
    parts,
    publication_of,
    record_of,
    records,
)
from .shelves import fill, put, shelf_of, take
from .tables import OPEN, book, categories, cursor, deals, groups, identity, is_kind, orders

KEPT_BLOCKS = 256
"""Blocks behind the cursor that are remembered, to find the way back after a reorganisation."""


class MarketStore:
    """The market's database."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self.journal, self.challenges = Journal(database), Challenges(database)

    @classmethod
    async def open(cls, url: str) -> MarketStore:
        """Open, migrate, and fill the book from the published orders if it is new."""
        store = cls(await open_database(url, tables))
        async with store._db.write() as connection:
            await _lock(connection)
            await begin(connection)
            if (await connection.execute(sa.select(cursor).limit(1))).first() is None:
                await connection.execute(sa.delete(book))
                published = await connection.stream(sa.select(orders).order_by(orders.c.sequence))
                counted, known = Counter[bytes](), dict[bytes, Any]()
                async for part in published.partitions(1000):
                    rows = [book_row(publication_of(row), row.sequence) for row in part]
                    for shelf in map(shelf_of, rows):
                        known[shelf["key"]] = shelf
                        counted[shelf["key"]] += 1
                    await connection.execute(sa.insert(book), rows)
                await fill(connection, counted, known)
        return store

    def read(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A connection to read with (`lists` does)."""
        return self._db.read()

    @asynccontextmanager
    async def write(self, by: Authorization | None = None) -> AsyncIterator[AsyncConnection]:
        """A transaction, which spends what authorises it. Raises Forbidden when that is spent already."""
        async with self._db.write() as connection:
            if by is not None:
                await by.spend(connection)
            yield connection
        if by is not None:
            by.spent = True

    async def close(self) -> None:
        await self._db.close()

    # ------------------------------------------------------------------------------- publication

    async def publish(
        self, new: Publication, most_open: int, *, by: Authorization | None = None
    ) -> Record | None:
        """Put an order into the book; None when the signer has `most_open` open ones of the kind already.

        All of it is one transaction, and spends `by`. Raises Overtaken when the index is not at the block at
        which the order was checked, and when the order is in the book already and not dead; Forbidden when
        `by` is spent.
        """
        async with self.write(by) as connection:
            await _lock(connection)
            await _expect_cursor(connection, new.block)
            present = await connection.execute(sa.select(book.c.status).where(book.c.hash == new.hash))
            if present.scalar() not in (None, "dead"):
                raise Overtaken
            if await self._open_count(connection, new.kind, new.signer) >= most_open:
                return None
            await connection.execute(sa.delete(orders).where(orders.c.hash == new.hash))
            await connection.execute(sa.delete(book).where(book.c.hash == new.hash))
            added = await connection.execute(
                sa.insert(orders).values(
                    hash=new.hash,
                    kind=new.kind,
                    signer=new.signer,
                    document=new.signed.to_json(),
                    published_at=new.published_at,
                    published_block=new.block.number,
                    remaining=new.remaining,
                    standing=new.standing,
                )
            )
            sequence = int(added.inserted_primary_key[0])  # type: ignore[index]
            row = book_row(new, sequence)
            await connection.execute(sa.insert(book).values(row))
            await put(connection, shelf_of(row))
            await _add_groups(connection, new.groups)
            published = Record(
                new.hash,
                new.kind,
                new.signed,
                new.signer,
                sequence,
                new.published_at,
                new.standing,
                Status.OPEN,
                new.remaining,
                new.block.number,
            )
            await record(connection, [_published(published)])
        return published

    async def open_count(self, kind: Kind, signer: Address) -> int:
        """How many open orders of a kind this wallet has."""
        async with self._db.read() as connection:
            return await self._open_count(connection, kind, signer)

    async def _open_count(self, connection: AsyncConnection, kind: Kind, signer: Address) -> int:
        query = sa.select(sa.func.count()).where(is_kind(kind), OPEN, book.c.signer == signer)
        return int((await connection.execute(query)).scalar_one())

    async def best_price(self, kind: Kind, request: RequestOrder) -> int | None:
        """The lowest price of the open offers of the request's app or dataset on which it may count.

        Those are the offers whose restrictions are zero, the request's own values or groups, whomever these
        admit, and that say TEE if the request does. None when there is none.
        """
        async with self._db.read() as connection:
            return await _best_price(connection, kind, request)

    async def unpublish(
        self,
        kind: Kind,
        signer: Address,
        *,
        hash: bytes | None = None,
        asset: Address | None = None,
        last: bool = False,
        by: Authorization | None = None,
    ) -> tuple[list[bytes], list[bytes]]:
        """Delete open orders of this signer: one by hash, or all (or the last) of an asset.

        Spends `by`, even when there is none. Returns their hashes, and those of the requests that died with
        them. Raises Forbidden when `by` is spent.
        """
        where = [is_kind(kind), OPEN, book.c.signer == signer]
        if hash is not None:
            where.append(book.c.hash == hash)
        if asset is not None:
            where.append(book.c[identity(kind)] == asset)
        query = sa.select(book).where(*where).order_by(book.c.sequence.desc())
        async with self.write(by) as connection:
            await _lock(connection)
            gone = (await connection.execute(query.limit(1) if last else query)).all()
            await take(connection, [row.shelf for row in gone])
            for part in parts([row.hash for row in gone]):
                await connection.execute(sa.delete(book).where(book.c.hash.in_(part)))
                await connection.execute(sa.delete(orders).where(orders.c.hash.in_(part)))
            number = (await connection.execute(sa.select(sa.func.max(cursor.c.number)))).scalar() or 0
            died = await _kill_dependants(connection, gone, number)
            left = [_unpublished(kind, row.hash) for row in gone]
            await record(connection, [*left, *(_unpublished(Kind.REQUEST, hash) for hash in died)])
        return [row.hash for row in gone], died

    async def order(self, hash: bytes, kind: Kind | None = None) -> Record | None:
        """One order of any status."""
        where = [book.c.hash == hash] + ([book.c.kind == kind] if kind else [])
        async with self._db.read() as connection:
            row = (await connection.execute(records().where(*where))).one_or_none()
        return record_of(row) if row else None

    # ------------------------------------------------------------------------------------ groups

    async def groups(self, among: Collection[Address]) -> set[Address]:
        """Which of these are known groups."""
        async with self._db.read() as connection:
            query = sa.select(groups.c.address).where(groups.c.address.in_(list(among)))
            return set((await connection.execute(query)).scalars())

    # ------------------------------------------------------------------------------------- index

    async def recent_blocks(self) -> list[Block]:
        """The blocks up to which the index was brought lately, newest first; the first is the cursor."""
        async with self._db.read() as connection:
            rows = await connection.execute(sa.select(cursor).order_by(cursor.c.number.desc()))
            return [Block(row.number, row.hash, row.timestamp) for row in rows]

    async def touched(
        self,
        *,
        hashes: Collection[bytes] = (),
        assets: Collection[tuple[Kind, Address]] = (),
        signers: Collection[Address] = (),
    ) -> list[Record]:
        """Orders on which an event may bear: these open or dead ones, the open ones of these assets, and the
        open workerpool orders and requests of these signers."""
        found: dict[bytes, Record] = {}
        async with self._db.read() as connection:

            async def add(*where: sa.ColumnElement[bool]) -> None:
                for row in await connection.execute(records().where(*where)):
                    found[row.hash] = record_of(row)

            for part in parts(list(hashes)):
                await add(book.c.hash.in_(part), book.c.status.in_(("open", "dead")))
            for kind, asset in assets:
                await add(is_kind(kind), OPEN, book.c[identity(kind)] == asset)
            for part in parts(list(signers)):
                await add(book.c.signer.in_(part), book.c.kind.in_(("workerpool", "request")), OPEN)
        return list(found.values())

    async def overdue_boosts(self, at: int) -> AsyncIterator[tuple[bytes, int]]:
        """Boost deals that could be claimed from at `at` (s), the latest first, and how many tasks each has.

        Those of which every task has ended are left out.
        """
        ended = sa.select(sa.func.count()).where(tasks.c.dealid == deals.c.dealid).scalar_subquery()
        query = sa.select(deals.c.dealid, deals.c.document, ended.label("ended"))
        query = query.where(deals.c.boost_until <= at).order_by(deals.c.boost_until.desc())
        async with self._db.read() as connection:
            async for row in await connection.stream(query):
                if row.ended < row.document["botSize"]:
                    yield row.dealid, row.document["botSize"]

    async def read_after(self, number: int) -> list[Record]:
        """Orders whose state was read at a block above `number`."""
        async with self._db.read() as connection:
            return [
                record_of(row) for row in await connection.execute(records().where(book.c.block > number))
            ]

    async def orphans(self, since: int) -> dict[bytes, int]:
        """Orders that died with a branch which parted at block `since` or later, and where it parted.

        They are dead at the very block at which they entered the book: `roll_back` takes a publication of the
        lost branch down to where that parted, and what an event kills is dead at a later block. (A request
        whose app's last offer was unpublished in that block may be among them; it waits for another.)
        """
        query = sa.select(book.c.hash, book.c.block).join(orders, orders.c.hash == book.c.hash)
        query = query.where(book.c.status == Status.DEAD, book.c.block >= since)
        query = query.where(orders.c.published_block == book.c.block)
        async with self._db.read() as connection:
            return {row.hash: row.block for row in await connection.execute(query)}

    async def apply(
        self,
        previous: Block | None,
        block: Block,
        changes: Sequence[Change],
        new_deals: Sequence[Mapping[str, Any]],
        new_categories: Sequence[Mapping[str, Any]],
        steps: Sequence[TaskStep] = (),
        *,
        read_at: int,
    ) -> list[bytes]:
        """Move the cursor from `previous` to `block` with all that happened between, in one transaction.

        `read_at`: number of the block at which `changes` were read, `block`'s or a later one. Returns the
        hashes of the orders that changed, dependants included. Raises Overtaken when the cursor is not at
        `previous`.
        """
        async with self._db.write() as connection:
            await _lock(connection)
            await _expect_cursor(connection, previous)
            for table, key, rows in ((deals, "dealid", new_deals), (categories, "catid", new_categories)):
                for row in rows:
                    await connection.execute(sa.delete(table).where(table.c[key] == row[key]))
                    await connection.execute(sa.insert(table).values(**row))
            changed, happened = await _change(connection, changes, read_at)
            made = [
                Happening("deals", "deal_created", row["document"], row["requester"], row["dealid"])
                for row in new_deals
            ]
            found = {row.dealid: row.document for row in await _deals(connection, steps)}
            ended = await note_tasks(connection, steps, found, is_news(block))
            if is_news(block):
                await record(connection, [*made, *happened, *ended])
            await connection.execute(sa.delete(cursor).where(cursor.c.number == block.number))
            await connection.execute(
                sa.insert(cursor).values(number=block.number, hash=block.hash, timestamp=block.timestamp)
            )
            await connection.execute(sa.delete(cursor).where(cursor.c.number < block.number - KEPT_BLOCKS))
        return changed

    async def roll_back(self, to: Block, changes: Sequence[Change], *, read_at: int) -> list[bytes]:
        """Forget everything above `to`; `changes` is what the orders read above it are now, at `read_at`."""
        async with self._db.write() as connection:
            await _lock(connection)
            query = sa.select(deals.c.dealid, deals.c.requester).where(deals.c.block > to.number)
            lost = [
                Happening("deals", "deal_removed", {"dealid": hexstr(dealid)}, requester, dealid)
                for dealid, requester in await connection.execute(query)
            ]
            for table in (deals, categories):
                await connection.execute(sa.delete(table).where(table.c.block > to.number))
            undone = await forget_tasks_after(connection, to.number)
            await connection.execute(sa.delete(cursor).where(cursor.c.number >= to.number))
            await connection.execute(
                sa.insert(cursor).values(number=to.number, hash=to.hash, timestamp=to.timestamp)
            )
            await connection.execute(
                sa.update(orders)
                .where(orders.c.published_block > to.number)
                .values(published_block=to.number)
            )
            await connection.execute(sa.update(book).where(book.c.block > to.number).values(block=to.number))
            changed, happened = await _change(connection, changes, read_at)
            await record(connection, [*undone, *lost, *happened])
            return changed


# ------------------------------------------------------------------------------------ in a transaction


async def _best_price(connection: AsyncConnection, kind: Kind, request: RequestOrder) -> int | None:
    admits = {
        "workerpoolrestrict": (ZERO, request.workerpool),
        "requesterrestrict": (ZERO, request.requester),
    }
    if kind is Kind.APP:
        admits["datasetrestrict"] = (ZERO, request.dataset)
        tee = tag_bits(request.tag) & TEE
        wanted = OrderFilter(kind, {"app": request.app}, admits, min_tag=tee, or_groups=True)
    else:
        admits["apprestrict"] = (ZERO, request.app)
        wanted = OrderFilter(kind, {"dataset": request.dataset}, admits, or_groups=True)
    lowest = await connection.execute(sa.select(sa.func.min(book.c.price)).where(*conditions(wanted)))
    price: int | None = lowest.scalar()
    return price


async def _lock(connection: AsyncConnection) -> None:
    """One writer at a time moves the cursor or asks where it is; SQLite has but one writer anyway."""
    if connection.dialect.name == "postgresql":
        await connection.execute(sa.text("LOCK TABLE market_cursor IN EXCLUSIVE MODE"))


async def _add_groups(connection: AsyncConnection, found: Collection[Address]) -> None:
    """Remember these contracts as groups."""
    if found:
        await connection.execute(sa.delete(groups).where(groups.c.address.in_(list(found))))
        await connection.execute(sa.insert(groups), [{"address": group} for group in found])


async def _expect_cursor(connection: AsyncConnection, block: Block | None) -> None:
    query = sa.select(cursor.c.number, cursor.c.hash).order_by(cursor.c.number.desc()).limit(1)
    top = (await connection.execute(query)).first()
    if (tuple(top) if top else None) != ((block.number, block.hash) if block else None):
        raise Overtaken


async def _deals(connection: AsyncConnection, steps: Sequence[TaskStep]) -> list[Any]:
    """The deals of these tasks."""
    found: list[Any] = []
    for part in parts(sorted({step.dealid for step in steps})):
        query = sa.select(deals.c.dealid, deals.c.document).where(deals.c.dealid.in_(part))
        found += (await connection.execute(query)).all()
    return found


def _published(order: Record) -> Happening:
    return Happening("orders", f"{order.kind}order_published", order.document)


def _unpublished(kind: Kind, hash: bytes) -> Happening:
    return Happening("orders", f"{kind}order_unpublished", {"orderHash": hexstr(hash)})


async def _change(
    connection: AsyncConnection, changes: Sequence[Change], number: int
) -> tuple[list[bytes], list[Happening]]:
    """Write what a block made of orders not read at a later one, and of those that depend on them.

    The hashes of the orders that changed, and what to tell of them.
    """
    changed: list[bytes] = []
    gone: list[Any] = []
    happened: list[Happening] = []
    rows = [(c, (await connection.execute(records().where(book.c.hash == c.hash))).first()) for c in changes]
    present = [(change, row) for change, row in rows if row is not None and row.block <= number]
    for change, row in sorted(present, key=lambda pair: bool(pair[1].kind == Kind.REQUEST)):  # offers first
        revives = change.status is Status.OPEN and row.status == Status.DEAD
        if revives and not await _may_revive(connection, row):
            continue
        await connection.execute(
            sa.update(book)
            .where(book.c.hash == change.hash)
            .values(status=change.status, remaining=change.remaining, block=number)
        )
        changed.append(change.hash)
        was, kind = Status(row.status), Kind(row.kind)
        if revives:  # as if it were published now
            await connection.execute(
                sa.update(orders)
                .where(orders.c.hash == change.hash)
                .values(published_block=number, remaining=change.remaining)
            )
        now = replace(record_of(row), status=change.status, remaining=change.remaining)
        if was is Status.OPEN and change.status is not Status.OPEN:
            await take(connection, [row.shelf])
        elif was is not Status.OPEN and change.status is Status.OPEN:
            await put(connection, shelf_of(row._mapping))
        if change.status is not Status.OPEN:
            gone.append(row)
            if was is Status.OPEN:
                happened.append(_unpublished(kind, change.hash))
        elif was is not Status.OPEN:
            happened.append(_published(now))
        elif row.remaining != change.remaining:
            happened.append(replace(_published(now), name=f"{kind}order_updated"))
    died = await _kill_dependants(connection, gone, number)
    return changed + died, happened + [_unpublished(Kind.REQUEST, hash) for hash in died]


async def _may_revive(connection: AsyncConnection, row: Any) -> bool:
    """Whether a dead order, of which the chain says nothing bad any more, does not die as a dependant."""
    if row.kind != Kind.REQUEST or row.standing:
        return True
    order = record_of(row).signed.order
    wanted = [(Kind.APP, order.appmaxprice)]
    if order.dataset != ZERO:
        wanted.append((Kind.DATASET, order.datasetmaxprice))
    for kind, most in wanted:
        best = await _best_price(connection, kind, order)
        if best is None or best > most:
            return False
    return True


async def _kill_dependants(connection: AsyncConnection, gone: Iterable[Any], number: int) -> list[bytes]:
    """Requests (not the standing ones) whose app or dataset has no offer left that they can afford."""
    dead: list[bytes] = []
    assets = {(Kind(row.kind), getattr(row, row.kind)) for row in gone if row.kind in ("app", "dataset")}
    for kind, asset in sorted(assets):
        query = records().where(
            is_kind(Kind.REQUEST), OPEN, book.c.standing.is_(False), book.c[kind.value] == asset
        )
        for row in (await connection.execute(query)).all():
            request = record_of(row)
            order = request.signed.order
            most = order.appmaxprice if kind is Kind.APP else order.datasetmaxprice
            best = await _best_price(connection, kind, order)
            if best is None or best > most:
                await connection.execute(
                    sa.update(book).where(book.c.hash == row.hash).values(status=Status.DEAD, block=number)
                )
                await take(connection, [row.shelf])
                dead.append(row.hash)
    return dead
