"""Owned table of market/: the groups that orders are restricted to."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from sealdeal.db import AddressColumn

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "market_groups",
        sa.Column("address", AddressColumn, nullable=False),
        sa.PrimaryKeyConstraint("address"),
    )
