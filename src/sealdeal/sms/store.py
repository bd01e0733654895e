"""A node's tables, all owned, and encryption at rest: without the node's storage key a copy is useless."""

from __future__ import annotations

import json
import secrets as randomness
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import sqlalchemy as sa
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy.ext.asyncio import AsyncConnection

from sealdeal.db import OWNED, AddressColumn, Bytes32, Database, Uint256, open_database, tables_of
from sealdeal.model.errors import Conflict, IntegrityError, NotFound, Unavailable
from sealdeal.model.evidence import canonical_json
from sealdeal.model.sealing import Door, SecretShares
from sealdeal.model.types import Address, hexstr
from sealdeal.sdk.sms import AttemptTaken, NonceRefused, TooManyAttempts

MAX_ATTEMPTS = 3
"""Attempts at one task that may get secrets and a grant."""

tables = tables_of("sms")

_secrets = sa.Table(
    "sms_secrets",
    tables,
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("subject", AddressColumn, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("version", Uint256, nullable=False),
    sa.Column("door", sa.Text, nullable=False),
    sa.Column("document", sa.Text),  # JSON of SecretShares, for a share
    sa.Column("signature", sa.LargeBinary, nullable=False),
    sa.Column("sealed", sa.LargeBinary, nullable=False),  # nonce (12) ‖ AES-256-GCM
    sa.Column("stored_at", sa.BigInteger, nullable=False),
    sa.Column("voucher", AddressColumn),  # of a share that a node made
    sa.Column("formerly", sa.Text),
    info=OWNED,
)
_revocations = sa.Table(
    "sms_revocations",
    tables,
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("subject", AddressColumn, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("version", Uint256, nullable=False),
    sa.Column("since", Uint256, nullable=False),  # chain time
    sa.Column("signature", sa.LargeBinary, nullable=False),
    info=OWNED,
)
_enclaves = sa.Table(
    "sms_enclaves",
    tables,
    sa.Column("task", Bytes32, primary_key=True),
    sa.Column(
        "slot", sa.Integer, primary_key=True
    ),  # 0 … MAX_ATTEMPTS - 1: the database itself enforces the limit
    sa.Column("attempt", Uint256, nullable=False),
    sa.Column("worker", AddressColumn, nullable=False),
    sa.Column("enclave", AddressColumn, nullable=False),
    sa.Column("hpke_key", Bytes32, nullable=False),
    sa.UniqueConstraint("task", "attempt", name="sms_enclaves_attempt"),
    sa.CheckConstraint(f"slot >= 0 AND slot < {MAX_ATTEMPTS}", name="sms_enclaves_slot"),
    info=OWNED,
)
_nonces = sa.Table(
    "sms_nonces",
    tables,
    sa.Column("id", Bytes32, primary_key=True),
    sa.Column("expires", sa.BigInteger, nullable=False, index=True),
    sa.Column("enclave", AddressColumn, nullable=False),
    info=OWNED,
)
_audit = sa.Table(
    "sms_audit",
    tables,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("time", sa.BigInteger, nullable=False),
    sa.Column("task", Bytes32, nullable=False, index=True),
    sa.Column("deal", Bytes32, nullable=False),
    sa.Column("app", AddressColumn, nullable=False),
    sa.Column("app_checksum", Bytes32, nullable=False),
    sa.Column("dataset", AddressColumn, nullable=False, index=True),
    sa.Column("worker", AddressColumn, nullable=False),
    sa.Column("attempt", Uint256, nullable=False),
    sa.Column("enclave", AddressColumn, nullable=False),
    sa.Column("platform", sa.Text, nullable=False),
    sa.Column("measurement", sa.Text, nullable=False),  # JSON: register -> 0x hexadecimal
    sa.Column("released", sa.Text, nullable=False),  # JSON: [[kind, subject, name, version, door], …]
    info=OWNED,
)
_left = sa.Table(  # finds the lines of a secret
    "sms_left",
    tables,
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("subject", AddressColumn, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("line", sa.Integer, primary_key=True, autoincrement=False),
    info=OWNED,
)
_handover = sa.Table(
    "sms_handover",
    tables,
    sa.Column("epoch", Bytes32, primary_key=True),
    sa.Column("closed_at", sa.BigInteger, nullable=False),
    info=OWNED,
)


@dataclass(frozen=True, slots=True, repr=False)
class Held:
    """A secret as this node holds it."""

    kind: str
    subject: Address
    name: str
    version: int
    door: str
    document: SecretShares | None
    """For a share."""
    signature: bytes
    """As `SealedItem` has it."""
    value: bytes
    """The share, or the whole secret."""
    voucher: Address | None = None
    """Door `split`: the node that made the shares."""
    formerly: str = ""
    """`split` for an owner's share in place of one that a node had made: that node saw the secret."""
    stored_at: int = field(default=0, compare=False)
    """Unix time by the node's clock."""


@dataclass(frozen=True, slots=True)
class Closed:
    """A revocation as it counts here."""

    version: int
    """This one and all before it."""
    since: int
    """Chain time: deals made then or later get nothing."""


@dataclass(frozen=True, slots=True)
class Released:
    """One line of the audit: what left for whom. Written in the transaction that lets it leave."""

    time: int
    """Unix time by the node's clock."""
    task: bytes
    deal: bytes
    app: Address
    app_checksum: bytes
    dataset: Address
    worker: Address
    attempt: int
    enclave: Address
    platform: str
    """Platform id of the evidence, 0x hexadecimal."""
    measurement: dict[str, str]
    """Register -> 0x hexadecimal."""
    released: list[list[Any]]
    """[kind, subject, name, version, door] of each secret; empty when only a grant was given."""


Named = tuple[str, Address, str]
"""(kind, subject, name)."""


class SecretStore:
    """Secrets, spent nonces, enclaves and the audit of one node."""

    def __init__(self, database: Database, key: bytes) -> None:
        """`key`: 32 bytes that encrypt the secrets."""
        self._database, self._aead = database, AESGCM(key)

    @classmethod
    async def open(cls, url: str, key: bytes) -> SecretStore:
        """Open and migrate. Raises IntegrityError when the database was written with another key."""
        store = cls(await open_database(url, tables), key)
        try:
            async with store._database.read() as connection:
                row = (await connection.execute(sa.select(_secrets).limit(1))).one_or_none()
            if row is not None:
                store._held(row)
        except BaseException:
            await store.close()
            raise
        return store

    async def close(self) -> None:
        await self._database.close()

    async def add(self, held: Held, now: int) -> None:
        """Keep a new secret. Raises Conflict when there is one under that name."""
        async with self._write() as connection:
            if await self._row(connection, held.kind, held.subject, held.name):
                raise Conflict(
                    f"this node holds a {held.kind} of {held.subject} already; it is never replaced"
                )
            await self._check_open(connection, held)
            await connection.execute(sa.insert(_secrets).values(self._columns(held, now)))

    async def replace(self, held: Held, now: int) -> None:
        """Replace a whole named secret by the next version. Raises NotFound when there is none."""
        async with self._write() as connection:
            row = await self._row(connection, held.kind, held.subject, held.name)
            if row is None:
                raise NotFound(
                    f"this node holds no {held.kind} secret of that name of {held.subject}: add it"
                )
            await self._overwrite(connection, replace(held, version=row.version + 1), now)

    async def put(self, held: Held, now: int) -> None:
        """Add a whole named secret, or replace it by the next version."""
        async with self._write() as connection:
            row = await self._row(connection, held.kind, held.subject, held.name)
            if row is None:
                await connection.execute(sa.insert(_secrets).values(self._columns(held, now)))
            else:
                await self._overwrite(connection, replace(held, version=row.version + 1), now)

    async def put_share(self, held: Held, now: int) -> None:
        """Keep a share: a new one, the same again, or a later version of one.

        The owner's takes the place of one that a node made, never the reverse; a node's, of that node's own
        only. Raises Conflict when a whole secret is there (it was seen whole: a share
        would hide that), when the version is revoked, or for a document of the same or a later version.
        """
        async with self._write() as connection:
            row = await self._row(connection, held.kind, held.subject, held.name)
            await self._check_open(connection, held)
            if row is None:
                await connection.execute(sa.insert(_secrets).values(self._columns(held, now)))
                return
            known = self._held(row)
            if known.document is None:
                raise Conflict(
                    f"this node was given the whole {held.kind} of {held.subject} before "
                    f"(door {known.door}): that can't be made t of n any more"
                )
            if known.document == held.document and known.value == held.value:
                return
            if Door.SPLIT in (known.door, held.door):
                if held.door != Door.OWN and (known.door, known.voucher) != (held.door, held.voucher):
                    raise Conflict(
                        f"this node holds a share of the {held.kind} of {held.subject} (door {known.door}): "
                        "only its owner may split that anew"
                    )
                held = replace(held, formerly=Door.SPLIT if held.door == Door.OWN else "")
            else:
                held = replace(held, formerly=known.formerly)
            if held.version <= known.version and held.door == known.door:
                raise Conflict(
                    f"this node holds version {known.version} of the {held.kind} of {held.subject}, "
                    f"got another of version {held.version}: split it again with a higher one"
                )
            await self._overwrite(connection, held, now)

    async def find(self, kind: str, subject: Address, name: str) -> Held | None:
        """What this node holds under a name."""
        async with self._database.read() as connection:
            row = await self._row(connection, kind, subject, name)
        return None if row is None else self._held(row)

    async def revoke(
        self, kind: str, subject: Address, name: str, closed: Closed, signature: bytes
    ) -> Closed:
        """Close a version and those before it. Of two for the same version the earlier time counts.

        Returns what counts now. Raises NotFound when nothing is held under that name.
        """
        c = _revocations.c
        where = (c.kind == kind, c.subject == subject, c.name == name)
        async with self._write() as connection:
            if await self._row(connection, kind, subject, name) is None:
                raise NotFound(f"this node holds no {kind} of {subject} of that name: nothing to revoke")
            row = (await connection.execute(sa.select(_revocations).where(*where))).one_or_none()
            values = {"version": closed.version, "since": closed.since, "signature": signature}
            if row is None:
                named = {"kind": kind, "subject": subject, "name": name}
                await connection.execute(sa.insert(_revocations).values(named | values))
            elif (closed.version, -closed.since) > (row.version, -row.since):
                await connection.execute(sa.update(_revocations).where(*where).values(values))
            else:
                return Closed(row.version, row.since)
        return closed

    async def closed(self, kind: str, subject: Address, name: str) -> Closed | None:
        """The revocation under a name, if there is one."""
        async with self._database.read() as connection:
            return await self._closed(connection, kind, subject, name)

    async def _closed(
        self, connection: AsyncConnection, kind: str, subject: Address, name: str
    ) -> Closed | None:
        c = _revocations.c
        query = sa.select(c.version, c.since).where(c.kind == kind, c.subject == subject, c.name == name)
        row = (await connection.execute(query)).one_or_none()
        return None if row is None else Closed(row.version, row.since)

    async def _check_open(self, connection: AsyncConnection, held: Held) -> None:
        closed = await self._closed(connection, held.kind, held.subject, held.name)
        if closed is not None and held.version <= closed.version:
            raise Conflict(
                f"version {held.version} of the {held.kind} of {held.subject} is revoked, as are all up to "
                f"{closed.version}: split it with a higher one"
            )

    async def find_all(self, names: Sequence[Named]) -> dict[Named, tuple[Held, Closed | None]]:
        """What this node holds under these names, each with its revocation: one read for a whole release."""
        c, r = _secrets.c, _revocations.c
        same = (r.kind == c.kind) & (r.subject == c.subject) & (r.name == c.name)
        wanted = [
            (c.kind == kind) & (c.subject == subject) & (c.name == name) for kind, subject, name in names
        ]
        query = (
            sa.select(_secrets, r.version.label("closed"), r.since)
            .outerjoin(_revocations, same)
            .where(sa.or_(sa.false(), *wanted))
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        return {
            (row.kind, row.subject, row.name): (
                self._held(row),
                None if row.closed is None else Closed(row.closed, row.since),
            )
            for row in rows
        }

    async def holds(self, kind: str, subject: Address, name: str) -> bool:
        """Whether this node holds anything under a name."""
        async with self._database.read() as connection:
            return await self._row(connection, kind, subject, name) is not None

    async def commit_release(self, line: Released, hpke_key: bytes, nonce: bytes, expires: int) -> None:
        """Spend the nonce, bind the enclave to the attempt and write the audit: all, or nothing leaves.

        The same enclave may come again with the same or another nonce. Raises NonceRefused when another
        enclave spent it, AttemptTaken when the attempt has another enclave, TooManyAttempts.
        """
        async with self._write() as connection:
            await connection.execute(sa.delete(_nonces).where(_nonces.c.expires < line.time))
            query = sa.select(_nonces.c.enclave).where(_nonces.c.id == nonce)
            spender = (await connection.execute(query)).scalar_one_or_none()
            if spender is None:
                spent = {"id": nonce, "expires": expires, "enclave": line.enclave}
                await connection.execute(sa.insert(_nonces).values(spent))
            elif spender != line.enclave:
                raise NonceRefused("expected an unspent nonce, got one that another enclave has spent")
            await self._bind(connection, line, hpke_key)
            columns = {name: getattr(line, name) for name in Released.__dataclass_fields__}
            columns["measurement"] = json.dumps(line.measurement, sort_keys=True)
            columns["released"] = json.dumps(line.released)
            done = await connection.execute(sa.insert(_audit).values(columns))
            assert done.inserted_primary_key is not None
            (number,) = done.inserted_primary_key
            if left := [
                {"kind": kind, "subject": subject, "name": name, "line": number}
                for kind, subject, name, *_ in line.released
            ]:
                await connection.execute(sa.insert(_left), left)

    async def _bind(self, connection: AsyncConnection, line: Released, hpke_key: bytes) -> None:
        query = sa.select(_enclaves).where(_enclaves.c.task == line.task).with_for_update()
        rows = (await connection.execute(query)).all()
        for row in rows:
            if row.attempt == line.attempt:
                if (row.worker, row.enclave, row.hpke_key) != (line.worker, line.enclave, hpke_key):
                    raise AttemptTaken(
                        f"attempt {line.attempt} at task {hexstr(line.task)} has enclave {row.enclave} of "
                        f"worker {row.worker}: the pool must start another attempt"
                    )
                return
        if len(rows) >= MAX_ATTEMPTS:
            raise TooManyAttempts(
                f"expected at most {MAX_ATTEMPTS} attempts at task {hexstr(line.task)}, got one more"
            )
        bound = {"task": line.task, "slot": len(rows), "attempt": line.attempt, "worker": line.worker}
        bound |= {"enclave": line.enclave, "hpke_key": hpke_key}
        await connection.execute(sa.insert(_enclaves).values(bound))

    async def granted(self, tasks: Collection[bytes]) -> set[tuple[bytes, Address, Address]]:
        """(task, worker, enclave) of each grant that was given for these tasks."""
        some = _enclaves.c.task.in_(list(tasks))
        query = sa.select(_enclaves.c.task, _enclaves.c.worker, _enclaves.c.enclave).where(some)
        async with self._database.read() as connection:
            return {(row.task, row.worker, row.enclave) for row in await connection.execute(query)}

    async def audit(self, task: bytes | None = None, dataset: Address | None = None) -> list[Released]:
        """What left, oldest first; for one task or one dataset, or all."""
        query = sa.select(_audit).order_by(_audit.c.id)
        if task is not None:
            query = query.where(_audit.c.task == task)
        if dataset is not None:
            query = query.where(_audit.c.dataset == dataset)
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).mappings().all()
        return [_released(row) for row in rows]

    async def trail(
        self, kind: str, subject: Address, name: str, *, after: int, limit: int
    ) -> list[tuple[int, Released]]:
        """The lines by which one secret left, with their numbers, oldest first, beyond number `after`."""
        c = _left.c
        query = (
            sa.select(_audit)
            .join(_left, c.line == _audit.c.id)
            .where(c.kind == kind, c.subject == subject, c.name == name, c.line > after)
            .order_by(c.line)
            .limit(limit)
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).mappings().all()
        return [(int(row["id"]), _released(row)) for row in rows]

    async def hand_over(self, epoch: bytes, now: int) -> None:
        """Leave word for the next process: nonces of this epoch are good, and the spent ones are here."""
        async with self._write() as connection:
            await connection.execute(sa.delete(_handover))
            await connection.execute(sa.insert(_handover).values(epoch=epoch, closed_at=now))

    async def take_over(self) -> tuple[bytes, int] | None:
        """That word, once: (epoch, unix time). None after a crash, or on a copy made of a running node."""
        async with self._write() as connection:
            row = (await connection.execute(sa.select(_handover))).one_or_none()
            await connection.execute(sa.delete(_handover))
        return None if row is None else (row.epoch, row.closed_at)

    @asynccontextmanager
    async def _write(self) -> AsyncIterator[AsyncConnection]:
        """One transaction. On PostgreSQL, two that insert the same key at once end here for one of them."""
        try:
            async with self._database.write() as connection:
                yield connection
        except sa.exc.IntegrityError:
            raise Unavailable(
                "another request for the same secret or task is being served: try again"
            ) from None

    async def _row(self, connection: AsyncConnection, kind: str, subject: Address, name: str) -> Any:
        c = _secrets.c
        query = sa.select(_secrets).where(c.kind == kind, c.subject == subject, c.name == name)
        return (await connection.execute(query)).one_or_none()

    async def _overwrite(self, connection: AsyncConnection, held: Held, now: int) -> None:
        c = _secrets.c
        where = (c.kind == held.kind, c.subject == held.subject, c.name == held.name)
        await connection.execute(sa.update(_secrets).where(*where).values(self._columns(held, now)))

    def _columns(self, held: Held, now: int) -> dict[str, Any]:
        nonce = randomness.token_bytes(12)
        return {
            "kind": held.kind,
            "subject": held.subject,
            "name": held.name,
            "version": held.version,
            "door": held.door,
            "document": canonical_json(held.document.to_json()).decode() if held.document else None,
            "signature": held.signature,
            "sealed": nonce + self._aead.encrypt(nonce, held.value, _context(held)),
            "stored_at": now,
            "voucher": held.voucher,
            "formerly": held.formerly,
        }

    def _held(self, row: Any) -> Held:
        document = SecretShares.from_json(json.loads(row.document)) if row.document else None
        held = Held(
            kind=row.kind,
            subject=row.subject,
            name=row.name,
            version=row.version,
            door=row.door,
            document=document,
            signature=row.signature,
            value=b"",
            voucher=row.voucher,
            formerly=row.formerly or "",
            stored_at=row.stored_at,
        )
        try:
            value = self._aead.decrypt(row.sealed[:12], row.sealed[12:], _context(held))
        except InvalidTag:
            raise IntegrityError(
                f"the {row.kind} of {row.subject} does not open: the storage key is not this database's, "
                "or the row was altered"
            ) from None
        return replace(held, value=value)


def _released(row: Any) -> Released:
    columns = {name: row[name] for name in Released.__dataclass_fields__}
    columns["measurement"] = json.loads(row["measurement"])
    columns["released"] = json.loads(row["released"])
    return Released(**columns)


def _context(held: Held) -> bytes:
    """What a ciphertext belongs to: rows can't be exchanged, nor a door or a document be changed."""
    document = hexstr(held.document.struct_hash()) if held.document else None
    bound = [held.kind, held.subject, held.name, held.version, held.door, document]
    return canonical_json(bound + [held.formerly] * bool(held.formerly))
