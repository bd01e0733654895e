"""Published orders, and how the market's tables hold them: rows, and what a filter asks of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from sealdeal.model.orders import Kind, Signed, tag_bits
from sealdeal.model.types import Address, Block, hexstr

from .book import Offer, Status, price_of
from .journal import iso_time, order_document
from .shelves import LIMBS, shelf_of
from .tables import OPEN, book, groups, is_kind, orders

MAX_SAFE = 2**53 - 1
"""The largest number that the marketplace's JSON carries: JavaScript's Number.MAX_SAFE_INTEGER."""
BULK_VOLUME = MAX_SAFE - 1
_CHUNK = 500  # values in one IN (…)


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
    groups: tuple[Address, ...] = ()
    """Contracts that it names, and that turned out to be groups."""


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
    or_groups: bool = False
    """Let `admits` pass groups too, whomever they admit."""


# ----------------------------------------------------------------------------------------------- rows


def _limbs(bits: int) -> dict[str, int]:
    """A tag as SQL can mask it: its four 64-bit words, lowest first, as signed numbers."""
    words = ((bits >> 64 * i) & (2**64 - 1) for i in range(4))
    return {limb: word - 2**64 if word >> 63 else word for limb, word in zip(LIMBS, words, strict=True)}


def book_row(new: Publication, sequence: int) -> dict[str, Any]:
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


def publication_of(row: Any) -> Publication:
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


def order_text(row: Any) -> str:
    """JSON of `Record.document`, of a row with the order's own JSON as `text`, which is not read."""
    bulk = f',"bulk":{"true" if row.bulk else "false"}' if row.kind == Kind.DATASET else ""
    return (
        f'{{"orderHash":"{hexstr(row.hash)}","order":{row.text},"remaining":{row.remaining},'
        f'"status":"{row.status}","publicationTimestamp":"{iso_time(row.published_at / 1000)}",'
        f'"signer":"{row.signer}"{bulk}}}'
    )


def _admits(
    column: sa.ColumnElement[Any], values: tuple[Address, ...], or_groups: bool
) -> sa.ColumnElement[bool]:
    named = column.in_(values)
    return sa.or_(named, is_group(column)) if or_groups else named


def is_group(column: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
    """Whether a restriction is a group."""
    return column.in_(sa.select(groups.c.address))


def conditions(wanted: OrderFilter, of: sa.Table = book) -> list[sa.ColumnElement[bool]]:
    """What a filter asks of the open orders, or of the shelves, on which no asset and no volume is told."""
    found: list[sa.ColumnElement[bool]] = [is_kind(wanted.kind, of)]
    if of is book:
        found.append(OPEN)
    found += [of.c[column] == value for column, value in wanted.equal.items()]
    found += [_admits(of.c[column], values, wanted.or_groups) for column, values in wanted.admits.items()]
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


def parts(values: Sequence[Any]) -> Iterable[Sequence[Any]]:
    """These values, as many at a time as one statement takes."""
    return (values[i : i + _CHUNK] for i in range(0, len(values), _CHUNK))
