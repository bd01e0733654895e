"""Owned table of market/: what its matcher said of each match."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from sealdeal.db import Bytes32

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "market_matches",
        sa.Column("dealid", Bytes32, nullable=False),
        sa.Column("document", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("dealid"),
    )
