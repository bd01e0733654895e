"""Shelves: open orders that are alike in all that lists filter by and matching asks, price and asset aside.

The orders of a book fall into few such classes. How many lie on each is kept as orders come and go, so that a
list knows how long it is; and within a shelf orders lie by price and time, so that the first pages of a list
and the best offer for a request are the tops of the shelves that fit, however many orders lie below them or
on others.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from sealdeal.db import DERIVED, AddressColumn

from .journal import tables

LIMBS = tuple(f"tag{i}" for i in range(4))
"""A tag as four signed 64-bit numbers, so that SQL can mask it."""
RESTRICTIONS = tuple(f"{name}restrict" for name in ("app", "dataset", "workerpool", "requester"))

shelves = sa.Table(
    "market_shelves",
    tables,
    sa.Column("key", sa.LargeBinary(16), primary_key=True),
    sa.Column("open", sa.BigInteger, nullable=False),  # orders on it; a shelf without any is taken away
    sa.Column("kind", sa.Text, nullable=False),
    *(sa.Column(limb, sa.BigInteger, nullable=False) for limb in LIMBS),
    *(sa.Column(name, AddressColumn) for name in RESTRICTIONS),
    sa.Column("workerpool", AddressColumn),  # which a request names
    sa.Column("category", sa.BigInteger),
    sa.Column("trust", sa.BigInteger),
    sa.Column("bulk", sa.Boolean, nullable=False),  # free and without end: a dataset's offer for bulks
    sa.Index("market_shelves_by_kind", "kind", "open"),
    sa.Index("market_shelves_by_category", "kind", "category", "requesterrestrict", "apprestrict", "open"),
    sa.Index("market_shelves_by_requester", "kind", "requesterrestrict", "apprestrict"),
    info=DERIVED,
)
_FIELDS = tuple(column.name for column in shelves.c if column.name not in ("key", "open"))


def shelf_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """The shelf, less how many it holds, of an order with the columns `row`."""
    found = {name: row[name] for name in _FIELDS}
    found["kind"] = str(row["kind"])
    if found["kind"] != "request":
        found["workerpool"] = None  # there it is whose order it is, not what it asks
    text = repr([found[name] for name in _FIELDS])
    return {"key": hashlib.blake2b(text.encode(), digest_size=16).digest(), **found}


async def fill(connection: AsyncConnection, counted: Counter[bytes], known: Mapping[bytes, Any]) -> None:
    """Put up the shelves of a new book. `known`: key -> the shelf's columns."""
    await connection.execute(sa.delete(shelves))
    rows = [{**known[key], "open": count} for key, count in counted.items()]
    for start in range(0, len(rows), 1000):
        await connection.execute(sa.insert(shelves), rows[start : start + 1000])


async def put(connection: AsyncConnection, shelf: Mapping[str, Any]) -> None:
    """One more order lies on this shelf."""
    grown = sa.update(shelves).where(shelves.c.key == shelf["key"]).values(open=shelves.c.open + 1)
    if not (await connection.execute(grown)).rowcount:
        await connection.execute(sa.insert(shelves).values(**shelf, open=1))


async def take(connection: AsyncConnection, keys: Iterable[bytes]) -> None:
    """Orders are gone from these shelves: a key for each order."""
    for key, count in Counter(keys).items():
        left = sa.update(shelves).where(shelves.c.key == key).values(open=shelves.c.open - count)
        await connection.execute(left)
        await connection.execute(sa.delete(shelves).where(shelves.c.key == key, shelves.c.open <= 0))
