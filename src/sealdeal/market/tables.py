"""The market's tables of orders, deals and categories.

`market_orders` and `market_challenges` are owned. The rest is derived from them and from the chain:
`market_book` holds, for each published order, what the chain says of it and the columns that lists filter
on; deals, categories and the cursor come from the chain alone.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from sealdeal.db import DERIVED, OWNED, AddressColumn, Bytes32
from sealdeal.model.orders import Kind

from .journal import tables
from .shelves import LIMBS, RESTRICTIONS

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

groups = sa.Table(
    "market_groups",
    tables,
    sa.Column("address", AddressColumn, primary_key=True),
    info=OWNED,
)
"""Contracts that an order was restricted to and that answered as groups (ERC-734) when it was published."""

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
    ("apps_by_rank", "app", _PRIORITY),
    ("datasets_by_rank", "dataset", _PRIORITY),
    ("workerpools_by_rank", "workerpool", _PRIORITY),
    ("workerpools_by_category", "workerpool", ("category", *_PRIORITY)),
    ("requests_by_rank", "request", _PRIORITY),
    ("requests_by_category", "request", ("category", *_PRIORITY)),
    ("by_shelf", None, ("shelf", *_PRIORITY, "remaining", "status")),  # all that SQLite finds pages by
    ("by_time", None, ("shelf", "rank", "sequence")),
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
    sa.Index("market_deals_by_boost", "boost_until"),
    *(
        sa.Index(f"market_deals_by_{name}".lower(), name, "block", "dealid")
        for name in ("category", *_DEAL_KEYS)
    ),
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


def identity(kind: Kind) -> str:
    """The column that names whose orders they are."""
    return "requester" if kind is Kind.REQUEST else kind.value


def is_kind(kind: Kind, of: sa.Table = book) -> sa.ColumnElement[bool]:
    """Whether an order, or all of a shelf, is of this kind."""
    return of.c.kind == sa.literal_column(f"'{kind.value}'")
