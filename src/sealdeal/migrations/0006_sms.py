"""Owned tables of sms/: split doors, revocations, who was given each secret, nonces across a restart.

Documents have an end since then, which what their owners signed before does not say: those shares could not
be checked any more, and their owners split again.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from sealdeal.db import AddressColumn, Bytes32, Uint256

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(sa.text("DELETE FROM sms_secrets WHERE document IS NOT NULL"))
    op.add_column("sms_secrets", sa.Column("voucher", AddressColumn))
    op.add_column("sms_secrets", sa.Column("formerly", sa.Text))
    op.create_table(
        "sms_revocations",
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("subject", AddressColumn, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("version", Uint256, nullable=False),
        sa.Column("since", Uint256, nullable=False),
        sa.Column("signature", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("kind", "subject", "name"),
    )
    op.create_table(
        "sms_left",
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("subject", AddressColumn, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("line", sa.Integer, nullable=False, autoincrement=False),
        sa.PrimaryKeyConstraint("kind", "subject", "name", "line"),
    )
    op.create_table(
        "sms_handover",
        sa.Column("epoch", Bytes32, nullable=False),
        sa.Column("closed_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("epoch"),
    )
