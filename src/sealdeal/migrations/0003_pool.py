"""Owned tables of pool/: attempts, the steps that were told, workers' logs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from sealdeal.db import AddressColumn, Bytes32

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "pool_attempts",
        sa.Column("task", Bytes32),
        sa.Column("number", sa.Integer),
        sa.Column("worker", AddressColumn, nullable=False),
        sa.Column("deadline", sa.BigInteger, nullable=False),
        sa.Column("signature", sa.LargeBinary, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("ended", sa.Boolean, nullable=False),
        sa.Column("step", sa.Text, nullable=False),
        sa.Column("cause", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("exit_code", sa.Integer),
        sa.Column("tx_hash", Bytes32),
        sa.Column("enclave", AddressColumn),
        sa.Column("seen", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("task", "number"),
    )
    op.create_index("ix_pool_attempts_worker", "pool_attempts", ["worker"])
    op.create_index("ix_pool_attempts_ended", "pool_attempts", ["ended"])
    op.create_table(
        "pool_events",
        sa.Column("cursor", sa.BigInteger().with_variant(sa.Integer, "sqlite")),
        sa.Column("task", Bytes32, nullable=False),
        sa.Column("time", sa.Float, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("worker", AddressColumn),
        sa.Column("attempt", sa.Integer),
        sa.Column("step", sa.Text, nullable=False),
        sa.Column("cause", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("tx_hash", Bytes32),
        sa.Column("block", sa.BigInteger),
        sa.Column("once", sa.Text),
        sa.PrimaryKeyConstraint("cursor"),
        sa.UniqueConstraint("once"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_pool_events_task", "pool_events", ["task"])
    op.create_table(
        "pool_logs",
        sa.Column("task", Bytes32),
        sa.Column("worker", AddressColumn),
        sa.Column("stdout", sa.Text, nullable=False),
        sa.Column("stderr", sa.Text, nullable=False),
        sa.Column("time", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("task", "worker"),
    )
    op.create_index("ix_pool_logs_time", "pool_logs", ["time"])
