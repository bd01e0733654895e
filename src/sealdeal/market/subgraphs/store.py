"""The entities of the subgraphs, in tables that follow from their models.

All tables are derived: dropped and filled again from the chain when a model changes. What a batch of events
changes is noted as it was before, so that a reorganisation can be undone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from sealdeal.db import DERIVED, Bytes32, Database, Uint256, open_database, tables_of
from sealdeal.model.errors import InvalidInput
from sealdeal.model.types import MAX_UINT256, RLC, Block

from ..following import Overtaken
from .entities import Entity, Field, Form, Model, model

KEPT_BLOCKS = 256
"""Steps that can be undone."""
MODELS = {name: model(name) for name in ("poco", "dataprotector")}
DEEP = 4
"""Filters within filters, at most."""
_AT_ONCE = 400  # ids in one statement

tables = tables_of("subgraphs")

_BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_blocks = sa.Table(
    "graph_blocks",
    tables,
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("hash", Bytes32, nullable=False),
    sa.Column("timestamp", sa.BigInteger, nullable=False),
    info=DERIVED,
)
_undo = sa.Table(
    "graph_undo",
    tables,
    sa.Column("sequence", _BIG, primary_key=True),
    sa.Column("block", sa.BigInteger, nullable=False, index=True),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("entity", sa.Text, nullable=False),
    sa.Column("id", sa.Text, nullable=False),
    sa.Column("before", sa.JSON(none_as_null=True)),  # null: it was not there
    info=DERIVED,
)
_links = sa.Table(
    "graph_links",
    tables,
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("entity", sa.Text, nullable=False),
    sa.Column("field", sa.Text, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("place", sa.Integer, nullable=False),
    sa.Column("target", sa.Text, nullable=False),
    sa.PrimaryKeyConstraint("model", "entity", "field", "source", "place"),
    sa.Index("graph_links_back", "model", "entity", "field", "target"),
    info=DERIVED,
)
_TYPES: dict[Form, Any] = {
    Form.TEXT: sa.Text,
    Form.WHOLE: Uint256,
    Form.AMOUNT: Uint256,
    Form.INT: sa.BigInteger,
}
_ORDERED = ("timestamp", "creationTimestamp", "lastUsageTimestamp")


def _table(of: Model, entity: Entity) -> sa.Table:
    name = f"graph_{of.name}_{entity.name.lower()}"
    columns = [
        sa.Column(
            each.name,
            _TYPES[each.form],
            primary_key=each.name == "id",
            index=each.name != "id" and (bool(each.target) or each.name in _ORDERED),
        )
        for each in entity.columns()
    ]
    return sa.Table(name, tables, *columns, info=DERIVED)


_tables = {
    (of.name, entity.name): _table(of, entity) for of in MODELS.values() for entity in of.entities.values()
}

Row = dict[str, Any]
"""An entity: field -> value; lists of others as lists of their ids."""


@dataclass(frozen=True, slots=True)
class Add:
    """A change of a number by so much."""

    by: int


@dataclass(slots=True)
class Changes:
    """What a batch makes of entities; later values win."""

    rows: dict[tuple[str, str, str], Row] = field(default_factory=dict)
    """(model, entity, id) -> the fields that change."""

    def put(self, entity: str, id: str, of: str = "poco", /, **values: Any) -> None:
        """Make an entity, or change these fields of it."""
        known = self.rows.setdefault((of, entity, id), {})
        for name, value in values.items():
            if isinstance(value, Add) and (held := known.get(name)) is not None:
                value = Add(held.by + value.by) if isinstance(held, Add) else held + value.by
            known[name] = value


@dataclass(frozen=True, slots=True)
class Query:
    """Which entities, in which order."""

    where: Mapping[str, Any] | None = None
    order: str = "id"
    descending: bool = False
    skip: int = 0
    first: int = 100


class GraphStore:
    """The subgraphs' entities. Made by `open`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    async def open(cls, url: str) -> GraphStore:
        return cls(await open_database(url, tables))

    async def close(self) -> None:
        await self._database.close()

    # --- write

    async def recent_blocks(self) -> list[Block]:
        """The blocks that it can go back to, newest first."""
        async with self._database.read() as db:
            rows = await db.execute(sa.select(_blocks).order_by(_blocks.c.number.desc()))
            return [Block(row.number, row.hash, row.timestamp) for row in rows]

    async def apply(self, expected: Block | None, block: Block, changes: Changes) -> None:
        """One step from `expected` to `block`. Raises Overtaken unless the store stands there."""
        async with self._database.write() as db:
            await self._at(db, expected)
            await self._write(db, block.number, changes)
            values = {"number": block.number, "hash": block.hash, "timestamp": block.timestamp}
            if expected is None or expected.number != block.number:
                await db.execute(sa.insert(_blocks).values(**values))
            oldest = (
                sa.select(_blocks.c.number).order_by(_blocks.c.number.desc()).offset(KEPT_BLOCKS).limit(1)
            )
            if (number := (await db.execute(oldest)).scalar()) is not None:
                await db.execute(sa.delete(_blocks).where(_blocks.c.number <= number))
                await db.execute(sa.delete(_undo).where(_undo.c.block <= number))

    async def roll_back(self, to: Block) -> None:
        """Undo every step after `to`, which was one."""
        async with self._database.write() as db:
            notes = sa.select(_undo).where(_undo.c.block > to.number).order_by(_undo.c.sequence.desc())
            for note in (await db.execute(notes)).all():
                table, of = _tables[note.model, note.entity], (note.model, note.entity)
                await db.execute(sa.delete(table).where(table.c.id == note.id))
                await self._unlink(db, of, note.id)
                if note.before is not None:
                    await self._insert(db, of, [note.before])
            await db.execute(sa.delete(_undo).where(_undo.c.block > to.number))
            await db.execute(sa.delete(_blocks).where(_blocks.c.number > to.number))

    async def forget(self) -> None:
        """Drop everything: the chain went back further than can be undone."""
        async with self._database.write() as db:
            for table in reversed(tables.sorted_tables):
                await db.execute(sa.delete(table))

    async def _at(self, db: AsyncConnection, expected: Block | None) -> None:
        if self._database.dialect == "postgresql":
            await db.execute(sa.text("LOCK TABLE graph_blocks IN EXCLUSIVE MODE"))
        newest = sa.select(_blocks).order_by(_blocks.c.number.desc()).limit(1)
        row = (await db.execute(newest)).one_or_none()
        if (row.hash if row else None) != (expected.hash if expected else None):
            raise Overtaken

    async def _write(self, db: AsyncConnection, block: int, changes: Changes) -> None:
        groups: dict[tuple[str, str], dict[str, Row]] = {}
        for (name, entity, id), values in changes.rows.items():
            groups.setdefault((name, entity), {})[id] = values
        for of, wanted in groups.items():
            before = await self._get(db, *of, list(wanted))
            notes = [
                {"block": block, "model": of[0], "entity": of[1], "id": id, "before": before.get(id)}
                for id in wanted
                if before.get(id) is None or _changed(before[id], wanted[id])
            ]
            if not notes:
                continue
            await db.execute(sa.insert(_undo), notes)
            table, fresh = _tables[of], []
            for note in notes:
                id = str(note["id"])
                old = before.get(id)
                new = {**(old or {"id": id}), **{n: _sum(old, n, v) for n, v in wanted[id].items()}}
                if old is not None:
                    await db.execute(sa.delete(table).where(table.c.id == id))
                    await self._unlink(db, of, id)
                fresh.append(new)
            await self._insert(db, of, fresh)

    async def _insert(self, db: AsyncConnection, of: tuple[str, str], rows: Sequence[Row]) -> None:
        entity = MODELS[of[0]].entities[of[1]]
        columns = [each.name for each in entity.columns()]
        await db.execute(sa.insert(_tables[of]), [{name: row.get(name) for name in columns} for row in rows])
        links = [
            {
                "model": of[0],
                "entity": of[1],
                "field": each.name,
                "source": row["id"],
                "place": n,
                "target": to,
            }
            for row in rows
            for each in entity.lists()
            for n, to in enumerate(row.get(each.name) or [])
        ]
        if links:
            await db.execute(sa.insert(_links), links)

    async def _unlink(self, db: AsyncConnection, of: tuple[str, str], id: str) -> None:
        if any(True for _ in MODELS[of[0]].entities[of[1]].lists()):
            mine = (_links.c.model == of[0]) & (_links.c.entity == of[1]) & (_links.c.source == id)
            await db.execute(sa.delete(_links).where(mine))

    # --- read

    async def get(self, name: str, entity: str, ids: Iterable[str]) -> dict[str, Row]:
        """Entities by id; those that are not there are left out."""
        async with self._database.read() as db:
            return await self._get(db, name, entity, list(ids))

    async def _get(self, db: AsyncConnection, name: str, entity: str, ids: list[str]) -> dict[str, Row]:
        table, found = _tables[name, entity], dict[str, Row]()
        for start in range(0, len(ids), _AT_ONCE):
            some = sa.select(table).where(table.c.id.in_(ids[start : start + _AT_ONCE]))
            found |= {row.id: dict(row._mapping) for row in await db.execute(some)}
        await self._add_lists(db, name, entity, found)
        return found

    async def _add_lists(self, db: AsyncConnection, name: str, entity: str, rows: dict[str, Row]) -> None:
        lists = [each.name for each in MODELS[name].entities[entity].lists()]
        if not lists:
            return
        ids = list(rows)
        for row in rows.values():
            row.update({each: [] for each in lists})
        for start in range(0, len(ids), _AT_ONCE):
            mine = (_links.c.model == name) & (_links.c.entity == entity)
            some = mine & _links.c.source.in_(ids[start : start + _AT_ONCE])
            for link in await db.execute(sa.select(_links).where(some).order_by(_links.c.place)):
                rows[link.source][link.field].append(link.target)

    async def find(self, name: str, entity: str, query: Query) -> list[Row]:
        """Entities that fit. Raises InvalidInput for a filter or an order that does not exist."""
        of = MODELS[name]
        kind, table = of.entities[entity], _tables[name, entity]
        statement = sa.select(table)
        if query.where:
            statement = statement.where(_where(of, kind, table, query.where))
        source: Any = table
        field, _, nested = query.order.partition("__")
        if field not in table.c:
            raise InvalidInput(f"expected a field of {entity} to order by, got {query.order!r:.80}")
        key = table.c[field]
        if nested:
            target = kind.fields[field].target
            other = _tables[name, target].alias("ordering") if (name, target) in _tables else None
            if other is None or nested not in other.c:
                raise InvalidInput(f"expected a field of {entity} to order by, got {query.order!r:.80}")
            source, key = table.outerjoin(other, other.c.id == key), other.c[nested]
        statement = statement.select_from(source)
        way = sa.desc if query.descending else sa.asc
        statement = statement.order_by(way(key), way(table.c.id)).offset(query.skip).limit(query.first)
        async with self._database.read() as db:
            found = {row.id: dict(row._mapping) for row in await db.execute(statement)}
            await self._add_lists(db, name, entity, found)
        return list(found.values())

    async def count(self, name: str, entity: str, where: Mapping[str, Any] | None = None) -> int:
        of, table = MODELS[name], _tables[name, entity]
        statement = sa.select(sa.func.count()).select_from(table)
        if where:
            statement = statement.where(_where(of, of.entities[entity], table, where))
        async with self._database.read() as db:
            return int((await db.execute(statement)).scalar_one())


def _changed(before: Row, wanted: Row) -> bool:
    return any(before.get(name) != _sum(before, name, value) for name, value in wanted.items())


def _sum(before: Row | None, name: str, value: Any) -> Any:
    return ((before or {}).get(name) or 0) + value.by if isinstance(value, Add) else value


# ------------------------------------------------------------------------------------------- filters


def _where(of: Model, entity: Entity, table: Any, where: Mapping[str, Any], deep: int = 0) -> Any:
    if deep > DEEP:
        raise InvalidInput(f"expected filters at most {DEEP} deep")
    clauses = []
    for name, value in where.items():
        if name in ("and", "or"):
            parts = [_where(of, entity, table, part, deep + 1) for part in value or []]
            if parts:
                clauses.append(sa.and_(*parts) if name == "and" else sa.or_(*parts))
            continue
        field, operator = _operator(entity, name)
        if operator == "_":
            clauses.append(_nested(of, entity, field, table, value or {}, deep + 1))
        elif field.many:
            clauses.append(_listed(of, entity, field, table, operator, value))
        else:
            clauses.append(_compared(table.c[field.name], field, operator, value))
    return sa.and_(sa.true(), *clauses)


def _operator(entity: Entity, name: str) -> tuple[Field, str]:
    """The longest field that the name begins with, and what follows it."""
    for at in sorted(
        (n for n in entity.fields if name == n or name.startswith(f"{n}_")), key=len, reverse=True
    ):
        return entity.fields[at], "_" if name == f"{at}_" else name[len(at) :].removeprefix("_")
    raise InvalidInput(f"expected a filter of {entity.name}, got {name!r:.80}")


def _nested(of: Model, entity: Entity, field: Field, table: Any, where: Mapping[str, Any], deep: int) -> Any:
    """Whether what the field points to fits."""
    clauses = []
    for target in of.members(field.target):
        other = _tables[of.name, target.name].alias()
        fits = _where(of, target, other, where, deep)
        if field.derived:
            back = target.fields[field.derived]
            if back.many:
                ids = sa.select(_links.c.target).join(other, other.c.id == _links.c.source)
                ids = ids.where(_linked(of, target, back), fits)
            else:
                ids = sa.select(other.c[back.name]).where(fits)
            clauses.append(table.c.id.in_(ids))
        elif field.many:
            ids = sa.select(_links.c.source).join(other, other.c.id == _links.c.target)
            clauses.append(table.c.id.in_(ids.where(_linked(of, entity, field), fits)))
        else:
            clauses.append(table.c[field.name].in_(sa.select(other.c.id).where(fits)))
    return sa.or_(sa.false(), *clauses)


def _linked(of: Model, entity: Entity, field: Field) -> Any:
    return (_links.c.model == of.name) & (_links.c.entity == entity.name) & (_links.c.field == field.name)


def _listed(of: Model, entity: Entity, field: Field, table: Any, operator: str, value: Any) -> Any:
    """Lists: whether they have all of these; equal to these."""
    wanted = [_plain(field, each) for each in value or []]
    linked = _linked(of, entity, field)
    has = [
        table.c.id.in_(sa.select(_links.c.source).where(linked, _links.c.target == each)) for each in wanted
    ]
    everything = sa.and_(sa.true(), *has)
    match operator:
        case "contains":
            return everything
        case "not_contains":
            return sa.not_(everything) if wanted else sa.true()
        case "" | "not":
            size = sa.select(sa.func.count()).where(linked, _links.c.source == table.c.id).scalar_subquery()
            same = everything & (size == len(wanted))
            return same if operator == "" else sa.not_(same)
    raise InvalidInput(f"expected contains or not_contains of {field.name}, got {operator!r:.40}")


def _compared(column: Any, field: Field, operator: str, value: Any) -> Any:
    if operator in ("in", "not_in"):
        among = column.in_([_plain(field, each) for each in value or []])
        return among if operator == "in" else sa.not_(among)
    if value is None and operator in ("", "not"):
        return column.is_(None) if operator == "" else column.is_not(None)
    wanted = _plain(field, value)
    match operator:
        case "":
            return column == wanted
        case "not":
            return sa.or_(column != wanted, column.is_(None))
        case "gt":
            return column > wanted
        case "gte":
            return column >= wanted
        case "lt":
            return column < wanted
        case "lte":
            return column <= wanted
    negative, operator = operator.startswith("not_"), operator.removeprefix("not_")
    if operator.endswith("_nocase"):
        operator, column, wanted = operator.removesuffix("_nocase"), sa.func.lower(column), wanted.lower()
    parts = {"contains": (1, 1), "starts_with": (0, 1), "ends_with": (1, 0)}
    if operator not in parts or field.form is not Form.TEXT:
        raise InvalidInput(f"expected a comparison of {field.name}, got {operator!r:.40}")
    if field.kind == "Bytes":  # part of the bytes, with or without 0x
        wanted = wanted.removeprefix("0x") if operator != "starts_with" else wanted
    before, after = parts[operator]
    escaped = wanted.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    like = column.like("%" * before + escaped + "%" * after, escape="\\")
    return sa.not_(like) if negative else like


def _plain(field: Field, value: Any) -> Any:
    """A filter's value as it is kept. Raises InvalidInput."""
    try:
        match field.form:
            case Form.TEXT:
                text = str(value)
                return text.lower() if text[:2] in ("0x", "0X") else text
            case Form.AMOUNT:
                number = int(Decimal(str(value)) * RLC)
            case _:
                number = int(str(value))
    except (ValueError, InvalidOperation, OverflowError):
        raise InvalidInput(f"expected a number for {field.name}, got {value!r:.80}") from None
    if not 0 <= number <= MAX_UINT256:
        raise InvalidInput(f"expected {field.name} from 0 to 2^256 - 1, got {value!r:.90}")
    return number
