"""What the result store remembers about tasks: who may upload, and what was uploaded. All of it owned."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from sealdeal.db import OWNED, AddressColumn, Bytes32, Database, Uint256, open_database, tables_of
from sealdeal.model.errors import Conflict, Unauthorized
from sealdeal.model.types import ZERO, Address
from sealdeal.sdk.results import Authorisation, SignedReceipt, StorageReceipt

tables = tables_of("results")

authorisations = sa.Table(
    "results_authorisations",
    tables,
    sa.Column("task", Bytes32, primary_key=True),
    sa.Column("worker", AddressColumn, primary_key=True),
    sa.Column("enclave", AddressColumn, nullable=False),
    sa.Column("signature", sa.LargeBinary, nullable=False),
    sa.Column("dealid", Bytes32, nullable=False),
    sa.Column("task_index", Uint256, nullable=False),
    sa.Column("consumed", sa.Boolean, nullable=False),
    info=OWNED,
)

archives = sa.Table(
    "results_archives",
    tables,
    sa.Column("task", Bytes32, primary_key=True),
    sa.Column("worker", AddressColumn, primary_key=True),
    sa.Column("cid", sa.Text, nullable=False),
    sa.Column("sha256", Bytes32, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("timestamp", sa.BigInteger, nullable=False),
    sa.Column("store", AddressColumn, nullable=False),
    sa.Column("signature", sa.LargeBinary, nullable=False),
    info=OWNED,
)

proofs = sa.Table(
    "results_proofs",
    tables,
    sa.Column("task", Bytes32, primary_key=True),
    sa.Column("worker", AddressColumn, primary_key=True),
    sa.Column("proof", sa.Text, nullable=False),
    info=OWNED,
)
"""Attestation bundles, as JSON. The result of a callback has one and no archive: it is on the chain."""


class ResultStore:
    """The tables of results/."""

    def __init__(self, database: Database) -> None:
        self.database = database

    @classmethod
    async def open(cls, url: str) -> ResultStore:
        return cls(await open_database(url, tables))

    async def close(self) -> None:
        await self.database.close()

    async def keep_authorisation(self, given: Authorisation) -> None:
        """Remember an authorisation. The same one again stays consumed if it was; another replaces it."""
        row = {
            "task": given.task,
            "worker": given.worker,
            "enclave": given.enclave,
            "signature": given.signature,
            "dealid": given.dealid,
            "task_index": given.index,
            "consumed": False,
        }
        which = (authorisations.c.task == given.task) & (authorisations.c.worker == given.worker)
        async with self.database.write() as connection:
            present = (await connection.execute(sa.select(authorisations).where(which))).one_or_none()
            if present is not None and present.enclave == given.enclave:
                row["consumed"] = present.consumed
            await connection.execute(sa.delete(authorisations).where(which))
            await connection.execute(sa.insert(authorisations).values(row))

    async def authorisation(self, task: bytes, worker: Address) -> Authorisation:
        """The authorisation that `worker` has left to use for `task`. Raises Unauthorized."""
        which = (authorisations.c.task == task) & (authorisations.c.worker == worker)
        async with self.database.read() as connection:
            row = (await connection.execute(sa.select(authorisations).where(which))).one_or_none()
        if row is None:
            raise Unauthorized(f"no authorisation of {worker} for this task: ask for a token with it first")
        if row.consumed:
            raise Unauthorized(f"{worker} has already uploaded the result of this task")
        return Authorisation(row.task, row.worker, row.enclave, row.signature, row.dealid, row.task_index)

    async def keep_archive(self, given: SignedReceipt, used: Authorisation) -> None:
        """Record an upload and consume its authorisation, both or neither.

        Raises Unauthorized the second time.
        """
        receipt = given.receipt
        row: dict[str, Any] = {
            "task": receipt.task,
            "worker": receipt.worker,
            "cid": receipt.cid,
            "sha256": receipt.sha256,
            "size": receipt.size,
            "timestamp": receipt.timestamp,
            "store": given.store,
            "signature": given.signature,
        }
        async with self.database.write() as connection:
            spent = await connection.execute(
                sa.update(authorisations)
                .where(
                    authorisations.c.task == used.task,
                    authorisations.c.worker == used.worker,
                    authorisations.c.enclave == used.enclave,
                    authorisations.c.consumed == sa.false(),
                )
                .values(
                    consumed=used.enclave != ZERO
                )  # without an enclave it proves a pool's trust, as often as used
            )
            if spent.rowcount != 1:
                raise Unauthorized(f"{used.worker} has already uploaded the result of this task")
            which = (archives.c.task == receipt.task) & (archives.c.worker == receipt.worker)
            await connection.execute(sa.delete(archives).where(which))
            await connection.execute(sa.insert(archives).values(row))

    async def archives_of(self, task: bytes) -> list[SignedReceipt]:
        """The receipt of every result uploaded for `task`, the latest first: one per worker that tried."""
        query = sa.select(archives).where(archives.c.task == task)
        async with self.database.read() as connection:
            rows = (await connection.execute(query.order_by(archives.c.timestamp.desc()))).all()
        return [_receipt(row) for row in rows]

    async def keep_proof(self, task: bytes, worker: Address, proof: str) -> None:
        """Publish a proof, once. Raises Conflict for a second, different one."""
        which = (proofs.c.task == task) & (proofs.c.worker == worker)
        async with self.database.write() as connection:
            row = (await connection.execute(sa.select(proofs.c.proof).where(which))).one_or_none()
            if row is None:
                values = {"task": task, "worker": worker, "proof": proof}
                await connection.execute(sa.insert(proofs).values(values))
            elif row.proof != proof:
                raise Conflict("this task has a proof already, and a different one")

    async def proofs_of(self, task: bytes) -> list[tuple[Address, str]]:
        """Every proof published for `task`, with its worker."""
        async with self.database.read() as connection:
            rows = (await connection.execute(sa.select(proofs).where(proofs.c.task == task))).all()
        return [(row.worker, row.proof) for row in rows]


def _receipt(row: Any) -> SignedReceipt:
    receipt = StorageReceipt(row.task, row.worker, row.cid, row.sha256, row.size, row.timestamp)
    return SignedReceipt(receipt, row.store, row.signature)
