"""The market's tables and every query on them.

`market_orders` and `market_challenges` are owned. The rest is derived from them and from the chain:
`market_book` holds, for each published order, what the chain says of it and the columns that lists filter
on; deals, categories and the cursor come from the chain alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from sealdeal.db import DERIVED, OWNED, AddressColumn, Bytes32, Database, open_database
from sealdeal.model.orders import TEE, Kind, RequestOrder, Signed, tag_bits
from sealdeal.model.types import ZERO, Address, Block, hexstr

from .book import Offer, Status, price_of
from .journal import (
    Happening,
    Journal,
    TaskStep,
    begin,
    forget_tasks_after,
    is_news,
    note_tasks,
    order_document,
    record,
    tables,
    tasks,
)
from .shelves import LIMBS, RESTRICTIONS, fill, put, shelf_of, take

orders = sa.Table(
    "market_orders",
    tables,
    sa.Column("sequence", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("hash", Bytes32, nullable=False, unique=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("signer", AddressColumn, nullable=False),
    sa.Column("document", sa.JSON, nullable=False),  # the wire's flat object, with sign
    sa.Column("published_at", sa.BigInteger, nullable=False),  # ms since 1970
    sa.Column("published_block", sa.BigInteger, nullable=False),  # where the publication's checks were read
    sa.Column("remaining", sa.BigInteger, nullable=False),  # tasks left at that block
    sa.Column("standing", sa.Boolean, nullable=False),  # a request that waits even without an app's offer
    sqlite_autoincrement=True,
    info=OWNED,
)

challenges = sa.Table(
    "market_challenges",
    tables,
    sa.Column("hash", Bytes32, primary_key=True),
    sa.Column("address", AddressColumn, nullable=False),
    sa.Column("issued_at", sa.BigInteger, nullable=False),  # ms since 1970
    sa.Index("market_challenges_by_age", "issued_at"),
    info=OWNED,
)

book = sa.Table(
    "market_book",
    tables,
    sa.Column("hash", Bytes32, primary_key=True),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("remaining", sa.BigInteger, nullable=False),
    sa.Column("block", sa.BigInteger, nullable=False),  # the block at which status and remaining were read
    sa.Column("signer", AddressColumn, nullable=False),
    sa.Column("published_at", sa.BigInteger, nullable=False),
    sa.Column("standing", sa.Boolean, nullable=False),
    sa.Column("price", sa.BigInteger, nullable=False),  # of the offer; of a request, the workerpool's maximum
    sa.Column("rank", sa.BigInteger, nullable=False),  # lowest first: a request's price counts negative
    sa.Column("shelf", sa.LargeBinary(16), nullable=False),
    sa.Column("volume", sa.BigInteger, nullable=False),
    *(sa.Column(limb, sa.BigInteger, nullable=False) for limb in LIMBS),
    *(
        sa.Column(name, AddressColumn)
        for name in ("app", "dataset", "workerpool", "requester", "beneficiary")
    ),
    *(sa.Column(name, AddressColumn) for name in RESTRICTIONS),
    sa.Column("category", sa.BigInteger),
    sa.Column("trust", sa.BigInteger),
    sa.Column("bulk", sa.Boolean, nullable=False),
    info=DERIVED,
)
OPEN = book.c.status == sa.literal_column("'open'")
"""Literally, as a planner knows the partial indexes by it; so with kinds."""
_PRIORITY = ("rank", "published_at", "hash")
for _name, _kind, _columns in (
    ("apps", "app", ("app", *_PRIORITY)),
    ("datasets", "dataset", ("dataset", *_PRIORITY)),
    ("workerpools", "workerpool", ("workerpool", *_PRIORITY)),
    ("requests_of_app", "request", ("app", *_PRIORITY)),
    ("requests_of_dataset", "request", ("dataset", *_PRIORITY)),
    ("requests_of_requester", "request", ("requester", *_PRIORITY)),
    ("requests_of_beneficiary", "request", ("beneficiary", *_PRIORITY)),
    ("by_shelf", None, ("shelf", *_PRIORITY)),
    ("by_time", None, ("shelf", "rank", "sequence")),
    ("by_rank", None, ("kind", *_PRIORITY)),
    ("by_category", None, ("kind", "category", *_PRIORITY)),
    ("by_signer", None, ("signer", "kind")),
):
    _where = sa.and_(book.c.kind == sa.literal_column(f"'{_kind}'"), OPEN) if _kind else OPEN
    sa.Index(
        f"market_book_{_name}",
        *(book.c[column] for column in _columns),
        sqlite_where=_where,
        postgresql_where=_where,
    )
sa.Index("market_book_by_block", book.c.block)

_DEAL_KEYS: dict[str, type[sa.types.TypeDecorator[Any]]] = {
    "requester": AddressColumn,
    "beneficiary": AddressColumn,
    "app": AddressColumn,
    "dataset": AddressColumn,
    "workerpool": AddressColumn,
    "appOwner": AddressColumn,
    "datasetOwner": AddressColumn,
    "workerpoolOwner": AddressColumn,
    "apporderHash": Bytes32,
    "datasetorderHash": Bytes32,
    "workerpoolorderHash": Bytes32,
    "requestorderHash": Bytes32,
}
deals = sa.Table(
    "market_deals",
    tables,
    sa.Column("dealid", Bytes32, primary_key=True),
    sa.Column("block", sa.BigInteger, nullable=False),
    sa.Column("timestamp", sa.BigInteger, nullable=False),  # of the block, seconds since 1970
    sa.Column("document", sa.JSON, nullable=False),  # the wire's object
    sa.Column("category", sa.BigInteger, nullable=False),
    sa.Column("boost_until", sa.BigInteger),  # of a Boost deal: when its tasks can be claimed, in seconds
    *(sa.Column(name, kind, nullable=False) for name, kind in _DEAL_KEYS.items()),
    sa.Index("market_deals_by_block", "block", "dealid"),
    sa.Index("market_deals_by_category", "category", "block"),
    sa.Index("market_deals_by_boost", "boost_until"),
    sa.Index("market_deals_by_request", "requestorderHash"),
    sa.Index("market_deals_by_requester", "requester"),
    sa.Index("market_deals_by_app", "app"),
    sa.Index("market_deals_by_dataset", "dataset"),
    sa.Index("market_deals_by_workerpool", "workerpool"),
    info=DERIVED,
)

categories = sa.Table(
    "market_categories",
    tables,
    sa.Column("catid", sa.BigInteger, primary_key=True),
    sa.Column("block", sa.BigInteger, nullable=False),
    sa.Column("work_clock_time_ref", sa.BigInteger, nullable=False),
    sa.Column("document", sa.JSON, nullable=False),
    info=DERIVED,
)

cursor = sa.Table(
    "market_cursor",
    tables,
    sa.Column("number", sa.BigInteger, primary_key=True),
    sa.Column("hash", Bytes32, nullable=False),
    sa.Column("timestamp", sa.BigInteger, nullable=False),
    info=DERIVED,
)

KEPT_BLOCKS = 256
"""Blocks behind the cursor that are remembered, to find the way back after a reorganisation."""
_CHUNK = 500  # values in one IN (…)


class Overtaken(Exception):
    """The index is not, or no longer, at the block that a decision read: read again, decide again."""


@dataclass(frozen=True, slots=True)
class Record:
    """A published order as the market knows it."""

    hash: bytes
    kind: Kind
    signed: Signed[Any]
    signer: Address
    sequence: int
    published_at: int
    """Milliseconds since 1970."""
    standing: bool
    status: Status
    remaining: int
    block: int
    """Number of the block at which status and remaining were read."""

    @property
    def offer(self) -> Offer[Any]:
        return Offer(self.hash, self.sequence, self.signed, self.remaining, self.signer)

    @property
    def document(self) -> dict[str, Any]:
        """As the wire shows it, less its chain."""
        return order_document(
            self.hash,
            self.kind,
            self.signed,
            self.signer,
            self.status,
            self.remaining,
            self.published_at,
            BULK_VOLUME,
        )


@dataclass(frozen=True, slots=True)
class Publication:
    """An order about to enter the book, with what its checks saw."""

    hash: bytes
    kind: Kind
    signed: Signed[Any]
    signer: Address
    published_at: int
    remaining: int
    standing: bool
    block: Block


@dataclass(frozen=True, slots=True)
class Change:
    """What a block made of an order."""

    hash: bytes
    status: Status
    remaining: int


@dataclass(frozen=True, slots=True)
class OrderFilter:
    """Which open orders a list wants (wire.md §1.3)."""

    kind: Kind
    equal: Mapping[str, Address] = field(default_factory=dict)
    """Column -> the value it must have."""
    admits: Mapping[str, tuple[Address, ...]] = field(default_factory=dict)
    """Column of a restriction -> the values it may have."""
    category: int | None = None
    min_tag: int = 0
    max_tag: int | None = None
    min_volume: int = 0
    min_trust: int = 0
    max_trust: int | None = None
    bulk_only: bool = False


MAX_SAFE = 2**53 - 1
"""The largest number that the marketplace's JSON carries: JavaScript's Number.MAX_SAFE_INTEGER."""
BULK_VOLUME = MAX_SAFE - 1


class MarketStore:
    """The market's database."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self.journal = Journal(database)

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
                    rows = [_book_row(_publication(row), row.sequence) for row in part]
                    for shelf in map(shelf_of, rows):
                        known[shelf["key"]] = shelf
                        counted[shelf["key"]] += 1
                    await connection.execute(sa.insert(book), rows)
                await fill(connection, counted, known)
        return store

    def read(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A connection to read with (`lists` does)."""
        return self._db.read()

    def write(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A transaction (`words` writes one)."""
        return self._db.write()

    async def close(self) -> None:
        await self._db.close()

    # -------------------------------------------------------------------------------- challenges

    async def add_challenge(self, hash: bytes, address: Address, now: int, forget_before: int) -> None:
        """Remember a challenge (times in ms), and forget those issued before `forget_before`."""
        async with self._db.write() as connection:
            await connection.execute(sa.delete(challenges).where(challenges.c.issued_at < forget_before))
            await connection.execute(sa.insert(challenges).values(hash=hash, address=address, issued_at=now))

    async def spend_challenge(self, hash: bytes, address: Address, not_before: int) -> bool:
        """Take a challenge away; False when there is none with this hash for this address."""
        async with self._db.write() as connection:
            spent = await connection.execute(
                sa.delete(challenges).where(
                    challenges.c.hash == hash,
                    challenges.c.address == address,
                    challenges.c.issued_at >= not_before,
                )
            )
            return bool(spent.rowcount)

    # ------------------------------------------------------------------------------- publication

    async def publish(self, new: Publication, most_open: int) -> Record | None:
        """Put an order into the book; None when the signer has `most_open` open ones of the kind already.

        Raises Overtaken when the index is not at the block at which the order was checked, and when the order
        is in the book already and not dead.
        """
        async with self._db.write() as connection:
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
            row = _book_row(new, sequence)
            await connection.execute(sa.insert(book).values(row))
            await put(connection, shelf_of(row))
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

        Those are the offers whose restrictions are zero or the request's own values (groups do not count),
        and that say TEE if the request does. None when there is none.
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
    ) -> tuple[list[bytes], list[bytes]]:
        """Delete open orders of this signer: one by hash, or all (or the last) of an asset.

        Returns their hashes, and those of the requests that died with them.
        """
        where = [is_kind(kind), OPEN, book.c.signer == signer]
        if hash is not None:
            where.append(book.c.hash == hash)
        if asset is not None:
            where.append(book.c[identity(kind)] == asset)
        query = sa.select(book).where(*where).order_by(book.c.sequence.desc())
        async with self._db.write() as connection:
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


# ------------------------------------------------------------------------------------------- queries


def identity(kind: Kind) -> str:
    """The column that names whose orders they are."""
    return "requester" if kind is Kind.REQUEST else kind.value


def is_kind(kind: Kind, of: sa.Table = book) -> sa.ColumnElement[bool]:
    """Whether an order, or all of a shelf, is of this kind."""
    return of.c.kind == sa.literal_column(f"'{kind.value}'")


def _limbs(bits: int) -> dict[str, int]:
    """A tag as SQL can mask it: its four 64-bit words, lowest first, as signed numbers."""
    words = ((bits >> 64 * i) & (2**64 - 1) for i in range(4))
    return {limb: word - 2**64 if word >> 63 else word for limb, word in zip(LIMBS, words, strict=True)}


def _book_row(new: Publication, sequence: int) -> dict[str, Any]:
    order = new.signed.order
    row = {
        "hash": new.hash,
        "sequence": sequence,
        "kind": new.kind,
        "status": Status.OPEN,
        "remaining": new.remaining,
        "block": new.block.number,
        "signer": new.signer,
        "published_at": new.published_at,
        "standing": new.standing,
        "price": (price := price_of(order)),
        "rank": -price if new.kind is Kind.REQUEST else price,
        "volume": order.volume,
        **_limbs(tag_bits(order.tag)),
    }
    row["bulk"] = new.kind is Kind.DATASET and price == 0 and order.volume >= BULK_VOLUME
    for column in (c.name for c in book.c):
        if column not in row:
            row[column] = getattr(order, column, None)
    row["shelf"] = shelf_of(row)["key"]
    return row


def _publication(row: Any) -> Publication:
    kind = Kind(row.kind)
    block = Block(row.published_block, bytes(32), 0)
    signed = Signed.from_json(kind, row.document)
    return Publication(
        row.hash, kind, signed, row.signer, row.published_at, row.remaining, row.standing, block
    )


def records() -> sa.Select[Any]:
    return sa.select(book, orders.c.document).join(orders, orders.c.hash == book.c.hash)


def record_of(row: Any) -> Record:
    return Record(
        row.hash,
        Kind(row.kind),
        Signed.from_json(Kind(row.kind), row.document),
        row.signer,
        row.sequence,
        row.published_at,
        row.standing,
        Status(row.status),
        row.remaining,
        row.block,
    )


def conditions(wanted: OrderFilter, of: sa.Table = book) -> list[sa.ColumnElement[bool]]:
    """What a filter asks of the open orders, or of the shelves, on which no asset and no volume is told."""
    found: list[sa.ColumnElement[bool]] = [is_kind(wanted.kind, of)]
    if of is book:
        found.append(OPEN)
    found += [of.c[column] == value for column, value in wanted.equal.items()]
    found += [of.c[column].in_(values) for column, values in wanted.admits.items()]
    if wanted.category is not None:
        found.append(of.c.category == wanted.category)
    for limb, mask in _limbs(wanted.min_tag).items():
        if mask:
            found.append(of.c[limb].bitwise_and(mask) == mask)
    if wanted.max_tag is not None:
        for limb, mask in _limbs(2**256 - 1 ^ wanted.max_tag).items():
            if mask:
                found.append(of.c[limb].bitwise_and(mask) == 0)
    if wanted.min_volume > 1 and of is book:  # an open order has a task left
        found.append(of.c.remaining >= wanted.min_volume)
    if wanted.min_trust:
        found.append(of.c.trust >= wanted.min_trust)
    if wanted.max_trust is not None:
        found.append(of.c.trust <= wanted.max_trust)
    if wanted.bulk_only:
        found.append(of.c.bulk)
    return found


async def _best_price(connection: AsyncConnection, kind: Kind, request: RequestOrder) -> int | None:
    admits = {
        "workerpoolrestrict": (ZERO, request.workerpool),
        "requesterrestrict": (ZERO, request.requester),
    }
    if kind is Kind.APP:
        admits["datasetrestrict"] = (ZERO, request.dataset)
        wanted = OrderFilter(kind, {"app": request.app}, admits, min_tag=tag_bits(request.tag) & TEE)
    else:
        admits["apprestrict"] = (ZERO, request.app)
        wanted = OrderFilter(kind, {"dataset": request.dataset}, admits)
    lowest = await connection.execute(sa.select(sa.func.min(book.c.price)).where(*conditions(wanted)))
    price: int | None = lowest.scalar()
    return price


async def _lock(connection: AsyncConnection) -> None:
    """One writer at a time moves the cursor or asks where it is; SQLite has but one writer anyway."""
    if connection.dialect.name == "postgresql":
        await connection.execute(sa.text("LOCK TABLE market_cursor IN EXCLUSIVE MODE"))


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
    for change in changes:
        row = (await connection.execute(records().where(book.c.hash == change.hash))).first()
        if row is None or row.block > number:
            continue
        await connection.execute(
            sa.update(book)
            .where(book.c.hash == change.hash)
            .values(status=change.status, remaining=change.remaining, block=number)
        )
        changed.append(change.hash)
        was, kind = Status(row.status), Kind(row.kind)
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


def parts(values: Sequence[Any]) -> Iterable[Sequence[Any]]:
    return (values[i : i + _CHUNK] for i in range(0, len(values), _CHUNK))
