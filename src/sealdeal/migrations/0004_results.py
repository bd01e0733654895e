"""Owned tables of results/: who may upload the result of a task, and what was uploaded."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from sealdeal.db import AddressColumn, Bytes32, Uint256

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "results_authorisations",
        sa.Column("task", Bytes32),
        sa.Column("worker", AddressColumn),
        sa.Column("enclave", AddressColumn, nullable=False),
        sa.Column("signature", sa.LargeBinary, nullable=False),
        sa.Column("dealid", Bytes32, nullable=False),
        sa.Column("task_index", Uint256, nullable=False),
        sa.Column("consumed", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("task", "worker"),
    )
    op.create_table(
        "results_archives",
        sa.Column("task", Bytes32),
        sa.Column("worker", AddressColumn),
        sa.Column("cid", sa.Text, nullable=False),
        sa.Column("sha256", Bytes32, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("timestamp", sa.BigInteger, nullable=False),
        sa.Column("store", AddressColumn, nullable=False),
        sa.Column("signature", sa.LargeBinary, nullable=False),
        sa.Column("proof", sa.Text),
        sa.PrimaryKeyConstraint("task", "worker"),
    )
