"""Owned tables of market/: orders as their owners published them, and challenges not yet answered."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from sealdeal.db import AddressColumn, Bytes32

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "market_orders",
        sa.Column("sequence", sa.BigInteger().with_variant(sa.Integer, "sqlite"), nullable=False),
        sa.Column("hash", Bytes32, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("signer", AddressColumn, nullable=False),
        sa.Column("document", sa.JSON, nullable=False),
        sa.Column("published_at", sa.BigInteger, nullable=False),
        sa.Column("published_block", sa.BigInteger, nullable=False),
        sa.Column("remaining", sa.BigInteger, nullable=False),
        sa.Column("standing", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("sequence"),
        sa.UniqueConstraint("hash"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "market_challenges",
        sa.Column("hash", Bytes32, nullable=False),
        sa.Column("address", AddressColumn, nullable=False),
        sa.Column("issued_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("hash"),
    )
    op.create_index("market_challenges_by_age", "market_challenges", ["issued_at"])
