"""Owned tables of sms/: secrets, spent nonces, enclaves, the audit."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from sealdeal.db import AddressColumn, Bytes32, Uint256

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "sms_secrets",
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("subject", AddressColumn, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("version", Uint256, nullable=False),
        sa.Column("door", sa.Text, nullable=False),
        sa.Column("document", sa.Text),
        sa.Column("signature", sa.LargeBinary, nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("stored_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("kind", "subject", "name"),
    )
    op.create_table(
        "sms_enclaves",
        sa.Column("task", Bytes32, nullable=False),
        sa.Column("slot", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("attempt", Uint256, nullable=False),
        sa.Column("worker", AddressColumn, nullable=False),
        sa.Column("enclave", AddressColumn, nullable=False),
        sa.Column("hpke_key", Bytes32, nullable=False),
        sa.PrimaryKeyConstraint("task", "slot"),
        sa.UniqueConstraint("task", "attempt", name="sms_enclaves_attempt"),
        sa.CheckConstraint("slot >= 0 AND slot < 3", name="sms_enclaves_slot"),
    )
    op.create_table(
        "sms_nonces",
        sa.Column("id", Bytes32, nullable=False),
        sa.Column("expires", sa.BigInteger, nullable=False),
        sa.Column("enclave", AddressColumn, nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_sms_nonces_expires", "sms_nonces", ["expires"])
    op.create_table(
        "sms_audit",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("time", sa.BigInteger, nullable=False),
        sa.Column("task", Bytes32, nullable=False),
        sa.Column("deal", Bytes32, nullable=False),
        sa.Column("app", AddressColumn, nullable=False),
        sa.Column("app_checksum", Bytes32, nullable=False),
        sa.Column("dataset", AddressColumn, nullable=False),
        sa.Column("worker", AddressColumn, nullable=False),
        sa.Column("attempt", Uint256, nullable=False),
        sa.Column("enclave", AddressColumn, nullable=False),
        sa.Column("platform", sa.Text, nullable=False),
        sa.Column("measurement", sa.Text, nullable=False),
        sa.Column("released", sa.Text, nullable=False),
    )
    op.create_index("ix_sms_audit_task", "sms_audit", ["task"])
    op.create_index("ix_sms_audit_dataset", "sms_audit", ["dataset"])
