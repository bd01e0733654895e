"""Databases: SQLite for one machine, PostgreSQL for many, through the same SQLAlchemy Core.

Each service has its own database and declares its tables on one `MetaData`, made by `tables_of`. A table is
*owned* (what it holds exists nowhere else: created and changed only by the migrations) or *derived* (can be
indexed from the chain again: made from the declaration, dropped whenever the declaration differs).

Amounts are 256-bit: use `Uint256`. SQLAlchemy's `Numeric` goes through a float on SQLite and corrupts
10^18 + 1.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.schema import CreateIndex, CreateTable

from .model.errors import Conflict, InvalidInput
from .model.types import MAX_UINT256, Address, address, address_bytes

__all__ = [
    "DERIVED",
    "OWNED",
    "AddressColumn",
    "Bytes32",
    "Database",
    "Uint256",
    "migrate",
    "open_database",
    "tables_of",
]

OWNED: dict[str, Any] = {"kind": "owned"}
"""`info` of a table that only migrations create and change."""

DERIVED: dict[str, Any] = {"kind": "derived"}
"""`info` of a table that is dropped and indexed again when its declaration changed."""

MIGRATIONS = Path(__file__).parent / "migrations"

_LOCK = 0x5EA1DEA1  # PostgreSQL advisory lock: two nodes that start together migrate one after the other
_BUSY_MS = 15_000  # how long SQLite waits for another process's write


class Uint256(sa.types.TypeDecorator[int]):
    """An integer from 0 to 2^256 - 1 as 32 big-endian bytes: exact, and compares and sorts as a number."""

    impl = sa.LargeBinary(32)
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: sa.Dialect) -> bytes | None:
        if value is not None and not 0 <= value <= MAX_UINT256:
            raise InvalidInput(f"expected an integer from 0 to 2^256 - 1, got {value}")
        return None if value is None else value.to_bytes(32, "big")

    def process_result_value(self, value: bytes | None, dialect: sa.Dialect) -> int | None:
        return None if value is None else int.from_bytes(value, "big")


class Bytes32(sa.types.TypeDecorator[bytes]):
    """Exactly 32 bytes: a hash, a tag."""

    impl = sa.LargeBinary(32)
    cache_ok = True

    def process_bind_param(self, value: bytes | None, dialect: sa.Dialect) -> bytes | None:
        if value is not None and len(value) != 32:
            raise InvalidInput(f"expected 32 bytes, got {len(value)}")
        return value


class AddressColumn(sa.types.TypeDecorator[Address]):
    """An address, stored as its 20 bytes, given and returned checksummed."""

    impl = sa.LargeBinary(20)
    cache_ok = True

    def process_bind_param(self, value: Address | None, dialect: sa.Dialect) -> bytes | None:
        return None if value is None else address_bytes(address(value))

    def process_result_value(self, value: bytes | None, dialect: sa.Dialect) -> Address | None:
        return None if value is None else address(value)


def tables_of(service: str, derived_version: int = 1) -> sa.MetaData:
    """The `MetaData` on which a service declares its tables, each with `info=OWNED` or `info=DERIVED`.

    Raise `derived_version` when derived rows must be computed again although no column changed.
    """
    return sa.MetaData(info={"service": service, "derived_version": derived_version})


def _kind(table: sa.Table) -> str:
    kind: str | None = table.info.get("kind")
    if kind not in ("owned", "derived"):
        raise InvalidInput(f"table {table.name} must be declared with info=OWNED or info=DERIVED")
    return kind


# ------------------------------------------------------------------------------------------ database


class Database:
    """One service's database. Made by `open_database`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.dialect = engine.dialect.name
        # One writer at a time inside a process costs nothing on SQLite and spares its sleeping busy handler.
        self._writer = asyncio.Lock() if self.dialect == "sqlite" else None

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection whose reads all see one state of the database."""
        async with self.engine.connect() as connection:
            if self.dialect == "postgresql":
                await connection.execution_options(isolation_level="REPEATABLE READ")
            yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """One transaction: committed at the end, rolled back by an exception. Must not be nested."""
        async with self._writer or nullcontext(), self.engine.connect() as connection:
            await connection.execution_options(sealdeal_write=True)
            async with connection.begin():
                yield connection

    async def close(self) -> None:
        """Give back every connection."""
        await self.engine.dispose()

    async def __aenter__(self) -> Database:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def open_database(url: str, tables: sa.MetaData) -> Database:
    """Open a database, bring owned tables up to date, and make derived tables as `tables` declares them.

    `url`: `sqlite+aiosqlite:///relative.db`, `sqlite+aiosqlite:////absolute.db` (its folder is made) or
    `postgresql+asyncpg://user:password@host/name`. Raises InvalidInput for any other, Conflict when a newer
    version of this program has migrated the database.
    """
    engine = _engine(url)
    try:
        await migrate(engine)
        async with engine.connect() as connection:
            await connection.execution_options(sealdeal_write=True)
            async with connection.begin():
                await connection.run_sync(_make_derived, tables)
    except BaseException:
        await engine.dispose()
        raise
    return Database(engine)


def _engine(url: str) -> AsyncEngine:
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError:
        parsed = None
    if parsed is None or parsed.drivername not in ("sqlite+aiosqlite", "postgresql+asyncpg"):
        shown = parsed.render_as_string(hide_password=True) if parsed else url
        raise InvalidInput(
            f"expected a database URL sqlite+aiosqlite:///FILE or postgresql+asyncpg://…, got {shown!r}"
        )
    if parsed.drivername == "postgresql+asyncpg":
        return create_async_engine(parsed, pool_pre_ping=True)
    if parsed.database in (None, "", ":memory:"):
        raise InvalidInput("expected a file after sqlite+aiosqlite:///: connections share nothing in memory")
    Path(str(parsed.database)).parent.mkdir(parents=True, exist_ok=True)
    engine = create_async_engine(parsed)
    sa.event.listen(engine.sync_engine, "connect", _on_connect)
    sa.event.listen(engine.sync_engine, "begin", _on_begin)
    return engine


def _on_connect(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # we say BEGIN: the driver forgets it for DDL
    cursor = connection.cursor()
    for pragma in (f"busy_timeout={_BUSY_MS}", "journal_mode=WAL", "foreign_keys=ON", "synchronous=FULL"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _on_begin(connection: sa.Connection) -> None:
    # A deferred transaction that reads, then writes, fails at once (no waiting) if another wrote in between.
    writes = connection.get_execution_options().get("sealdeal_write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


# ---------------------------------------------------------------------------------------- migrations


async def migrate(engine: AsyncEngine) -> None:
    """Apply the migrations that this database lacks, in one transaction, from the files of this package."""
    async with engine.connect() as connection:
        await connection.execution_options(sealdeal_write=True)
        async with connection.begin():
            if engine.dialect.name == "postgresql":
                await connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
            await connection.run_sync(_upgrade)


def _upgrade(connection: sa.Connection) -> None:
    if _is_newest(connection):
        return
    # imported here: with what it brings it takes 12 MiB, of a service that runs for months
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("version_locations", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    script = ScriptDirectory.from_config(config)
    known = {revision.revision for revision in script.walk_revisions()}
    with EnvironmentContext(config, script, fn=lambda at, _: script._upgrade_revs("head", at)) as context:
        context.configure(connection=connection, transactional_ddl=False)  # the caller has the transaction
        present = context.get_context().get_current_heads()
        if unknown := [revision for revision in present if revision not in known]:
            raise Conflict(
                f"the database is at migration {unknown[0]}, which this version does not know: "
                "it was used by a newer Sealdeal; upgrade the program or restore a backup"
            )
        context.run_migrations()


def _is_newest(connection: sa.Connection) -> bool:
    """Whether the last migration was applied: they are one line, in the order of their files."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return False
    newest = max(file.name[:4] for file in MIGRATIONS.glob("[0-9]*.py"))
    return list(connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalars()) == [newest]


_versions = sa.Table(
    "derived_versions",
    sa.MetaData(),
    sa.Column("service", sa.Text, primary_key=True),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("tables", sa.JSON, nullable=False),  # to drop, also when a later declaration has other names
)


def _make_derived(connection: sa.Connection, tables: sa.MetaData) -> None:
    """Drop and make again the derived tables of one service, unless they were made from this declaration."""
    derived = [table for table in tables.sorted_tables if _kind(table) == "derived"]
    service = tables.info["service"]
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
    _versions.create(connection, checkfirst=True)
    wanted = f"{tables.info['derived_version']}-{_fingerprint(derived, connection.dialect)}"
    present = connection.execute(sa.select(_versions).where(_versions.c.service == service)).one_or_none()
    if present is not None and present.version == wanted:
        return
    for name in reversed(present.tables if present is not None else []):
        connection.exec_driver_sql(f'DROP TABLE IF EXISTS "{name}"')
    tables.create_all(connection, tables=derived, checkfirst=False)
    connection.execute(sa.delete(_versions).where(_versions.c.service == service))
    names = [table.name for table in derived]
    connection.execute(sa.insert(_versions).values(service=service, version=wanted, tables=names))


def _fingerprint(tables: list[sa.Table], dialect: sa.Dialect) -> str:
    """The same for the same declaration; another as soon as a column, a key or an index differs."""
    texts = []
    for table in tables:
        texts.append(str(CreateTable(table).compile(dialect=dialect)))
        texts += sorted(str(CreateIndex(index).compile(dialect=dialect)) for index in table.indexes)
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]
