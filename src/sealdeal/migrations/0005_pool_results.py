"""Owned table of pool/: results of batched deals, until they are settled."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from sealdeal.db import AddressColumn, Bytes32

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "pool_results",
        sa.Column("task", Bytes32),
        sa.Column("worker", AddressColumn, nullable=False),
        sa.Column("enclave", AddressColumn, nullable=False),
        sa.Column("digest", Bytes32, nullable=False),
        sa.Column("signature", sa.LargeBinary, nullable=False),
        sa.Column("authorisation", sa.LargeBinary, nullable=False),
        sa.Column("cid", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("task"),
    )
