"""Owned tables of results/: proofs apart from archives, because the result of a callback has no archive."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from sealdeal.db import AddressColumn, Bytes32

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "results_proofs",
        sa.Column("task", Bytes32, nullable=False),
        sa.Column("worker", AddressColumn, nullable=False),
        sa.Column("proof", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("task", "worker"),
    )
    op.execute(
        "INSERT INTO results_proofs (task, worker, proof) "
        "SELECT task, worker, proof FROM results_archives WHERE proof IS NOT NULL"
    )
    with op.batch_alter_table("results_archives") as archives:
        archives.drop_column("proof")
