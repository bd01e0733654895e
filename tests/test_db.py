"""Databases: exact columns, transactions, migrations equal to declarations, derived tables made anew."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects import sqlite
from sqlalchemy.ext.asyncio import create_async_engine

from sealdeal.db import (
    DERIVED,
    MIGRATIONS,
    OWNED,
    AddressColumn,
    Bytes32,
    Database,
    Uint256,
    migrate,
    open_database,
    tables_of,
)
from sealdeal.model.errors import Conflict, InvalidInput
from sealdeal.model.types import address
from tests.postgres import postgres_url  # noqa: F401  # a fixture

SERVICES = ("market", "sms", "pool", "results")

tables = tables_of("probe")
amounts = sa.Table(
    "probe_amounts",
    tables,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("amount", Uint256, index=True),
    sa.Column("account", AddressColumn),
    sa.Column("hash", Bytes32),
    info=DERIVED,
)


@pytest.fixture(params=["sqlite", "postgresql"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path}/a folder/probe.db"
    server: str = request.getfixturevalue("postgres_url")
    engine = create_async_engine(server)
    async with engine.begin() as connection:
        await connection.execute(sa.text("DROP SCHEMA public CASCADE"))
        await connection.execute(sa.text("CREATE SCHEMA public"))
    await engine.dispose()
    return server


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    async with await open_database(url, tables) as opened:
        yield opened


async def test_256_bit_amounts_are_exact_and_sort_as_numbers(database: Database) -> None:
    values = [2**255 + 12345, 7, 10**18 + 1, 2**256 - 1, 0, 256, 255]
    async with database.write() as connection:
        await connection.execute(sa.insert(amounts), [{"amount": v} for v in values])
    query = sa.select(amounts.c.amount).where(amounts.c.amount >= 7).order_by(amounts.c.amount)
    async with database.read() as connection:
        found = list((await connection.execute(query)).scalars())
    assert found == sorted(v for v in values if v >= 7)


async def test_addresses_and_hashes_come_back_as_they_went_in(database: Database) -> None:
    owner = address("0x" + "ab" * 20)
    async with database.write() as connection:
        await connection.execute(sa.insert(amounts).values(id=1, account=owner.lower(), hash=b"\x01" * 32))
    async with database.read() as connection:
        row = (await connection.execute(sa.select(amounts).where(amounts.c.account == owner))).one()
    assert (row.account, row.hash, row.amount) == (owner, b"\x01" * 32, None)


@given(st.one_of(st.integers(max_value=-1), st.integers(min_value=2**256)))
def test_what_is_no_uint256_is_refused(value: int) -> None:
    with pytest.raises(InvalidInput, match="from 0 to 2\\^256 - 1"):
        Uint256().process_bind_param(value, sqlite.dialect())


@given(st.binary(max_size=64).filter(lambda b: len(b) != 32))
def test_what_is_not_32_bytes_is_refused(value: bytes) -> None:
    with pytest.raises(InvalidInput, match="expected 32 bytes"):
        Bytes32().process_bind_param(value, sqlite.dialect())


async def test_an_exception_rolls_the_transaction_back(database: Database) -> None:
    with pytest.raises(RuntimeError):
        async with database.write() as connection:
            await connection.execute(sa.insert(amounts).values(amount=1))
            raise RuntimeError
    async with database.read() as connection:
        assert (await connection.execute(sa.select(sa.func.count()).select_from(amounts))).scalar() == 0


async def test_a_reader_sees_one_state_while_others_write(database: Database) -> None:
    count = sa.select(sa.func.count()).select_from(amounts)
    async with database.read() as reader:
        before = (await reader.execute(count)).scalar()
        async with database.write() as writer:
            await writer.execute(sa.insert(amounts).values(amount=1))
        assert (await reader.execute(count)).scalar() == before == 0


async def test_many_writers_in_two_databases_on_one_file_all_succeed(url: str) -> None:
    async def add(to: Database, amount: int) -> None:
        async with to.write() as connection:
            found = await connection.execute(sa.select(sa.func.coalesce(sa.func.max(amounts.c.id), 0)))
            if to.dialect == "postgresql":
                await connection.execute(sa.text("LOCK TABLE probe_amounts IN EXCLUSIVE MODE"))
                found = await connection.execute(sa.select(sa.func.coalesce(sa.func.max(amounts.c.id), 0)))
            await connection.execute(sa.insert(amounts).values(id=found.scalar_one() + 1, amount=amount))

    async with await open_database(url, tables) as one, await open_database(url, tables) as other:
        await asyncio.gather(*(add(database, i) for i in range(20) for database in (one, other)))
        async with one.read() as connection:
            assert (await connection.execute(sa.select(sa.func.max(amounts.c.id)))).scalar() == 40


async def test_derived_tables_are_kept_until_their_declaration_changes(url: str) -> None:
    async def rows(declared: sa.MetaData) -> int:
        async with await open_database(url, declared) as database, database.read() as connection:
            query = sa.text("SELECT count(*) FROM probe_amounts")
            return int((await connection.execute(query)).scalar_one())

    async with await open_database(url, tables) as database, database.write() as connection:
        await connection.execute(sa.insert(amounts).values(amount=1))
    assert await rows(tables) == 1

    renamed = tables_of("probe")
    sa.Table("probe_other", renamed, sa.Column("id", sa.Integer, primary_key=True), info=DERIVED)
    async with await open_database(url, renamed) as database, database.engine.connect() as connection:
        names = await connection.run_sync(lambda c: sa.inspect(c).get_table_names())
    assert "probe_amounts" not in names and "probe_other" in names

    assert await rows(tables) == 0
    async with await open_database(url, tables) as database, database.write() as connection:
        await connection.execute(sa.insert(amounts).values(amount=1))
    newer = tables_of("probe", derived_version=2)
    amounts.to_metadata(newer)
    assert await rows(newer) == 0


async def test_a_table_that_is_neither_owned_nor_derived_is_refused(tmp_path: Path) -> None:
    careless = tables_of("probe")
    sa.Table("probe_x", careless, sa.Column("id", sa.Integer, primary_key=True))
    with pytest.raises(InvalidInput, match="probe_x must be declared"):
        await open_database(f"sqlite+aiosqlite:///{tmp_path}/x.db", careless)


@pytest.mark.parametrize(
    "wrong", ["", "x", "sqlite:///x.db", "sqlite+aiosqlite://", "sqlite+aiosqlite:///:memory:", "mysql://h/d"]
)
async def test_another_url_is_refused_with_the_ones_that_work(wrong: str) -> None:
    with pytest.raises(InvalidInput, match="sqlite\\+aiosqlite:///"):
        await open_database(wrong, tables)


async def test_a_password_is_not_shown() -> None:
    with pytest.raises(InvalidInput) as refused:
        await open_database("mysql://user:hunter2@h/d", tables)
    assert "hunter2" not in str(refused.value)


async def test_a_database_of_a_newer_version_is_left_alone(url: str) -> None:
    async with await open_database(url, tables) as database, database.write() as connection:
        await connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(Conflict, match="newer Sealdeal"):
        await open_database(url, tables)


async def test_a_database_that_is_up_to_date_is_opened_without_the_tool(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("alembic.config", "alembic.script"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError):
        await open_database(url, tables)
    monkeypatch.undo()
    await (await open_database(url, tables)).close()
    for name in ("alembic.config", "alembic.script"):
        monkeypatch.setitem(sys.modules, name, None)
    await (await open_database(url, tables)).close()


def test_migrations_are_one_line_in_the_order_of_their_files() -> None:
    files = sorted(path.stem for path in MIGRATIONS.glob("0*.py"))
    modules = [importlib.import_module(f"sealdeal.migrations.{name}") for name in files]
    numbers = [module.revision for module in modules]
    assert numbers == [name[:4] for name in files] == [f"{n:04}" for n in range(1, len(files) + 1)]
    assert [module.down_revision for module in modules] == [None, *numbers[:-1]]


def shape(connection: sa.Connection) -> dict[str, object]:
    """Everything that a database says of its tables, comparable."""
    found = sa.inspect(connection)
    return {
        name: {
            "columns": [(c["name"], str(c["type"]), c["nullable"]) for c in found.get_columns(name)],
            "key": found.get_pk_constraint(name)["constrained_columns"],
            "unique": sorted(str(u["column_names"]) for u in found.get_unique_constraints(name)),
            "indexes": sorted(
                (str(i["name"]), str(i["column_names"]), bool(i["unique"]))
                for i in found.get_indexes(name)
                if not i.get("duplicates_constraint")
            ),
        }
        for name in found.get_table_names()
    }


async def test_migrations_make_what_the_services_declare(database: Database) -> None:
    """So a declaration of an owned table that is changed without a migration is found."""
    await migrate(database.engine)  # a second time does nothing
    async with database.write() as connection:
        migrated = await connection.run_sync(shape)
        for name in ("alembic_version", "derived_versions", "probe_amounts"):
            del migrated[name]
        for name in migrated:
            await connection.execute(sa.text(f"DROP TABLE {name}"))
        for service in SERVICES:
            importlib.import_module(f"sealdeal.{service}.app")  # some declare tables in several files
            declared: sa.MetaData = importlib.import_module(f"sealdeal.{service}.store").tables
            owned = [table for table in declared.sorted_tables if table.info == OWNED]
            assert all(table.name.startswith(f"{service}_") for table in owned)
            await connection.run_sync(declared.create_all, tables=owned)
        present = await connection.run_sync(shape)
    assert {name: present[name] for name in migrated} == migrated
    assert set(present) - set(migrated) == {"alembic_version", "derived_versions", "probe_amounts"}
