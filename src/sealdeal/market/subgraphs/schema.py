"""A subgraph in GraphQL, with the queries, filters and orders that a graph node makes of its entities."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from typing import Any

from graphql import GraphQLError, GraphQLResolveInfo, GraphQLScalarType, GraphQLSchema, build_schema

from sealdeal.model.errors import InvalidInput, SealdealError
from sealdeal.model.types import RLC, Block, hexstr

from .entities import Entity, Field, Form, Model, model
from .live import Live
from .store import GraphStore, Query, Row

MOST = 1000
"""Entities of one list."""
MOST_SKIPPED = 100_000
BUDGET = 50_000
"""Entities that one request may read."""
TYPE = "__typename"

_COMPARED = ("", "_not", "_gt", "_lt", "_gte", "_lte")
_PARTS = tuple(
    f"_{no}{part}{case}"
    for part in ("contains", "starts_with", "ends_with")
    for no in ("", "not_")
    for case in ("", "_nocase")
)
_VALUES = {
    "String": "String",
    "ID": "ID",
    "Bytes": "Bytes",
    "BigInt": "BigInt",
    "BigDecimal": "BigDecimal",
    "Int": "Int",
}


@cache
def schema(name: str) -> GraphQLSchema:
    """The schema of the subgraph of that name."""
    of = model(name)
    made = build_schema("\n".join(_written(of)), assume_valid_sdl=True)
    for scalar in ("Bytes", "BigInt", "BigDecimal"):
        kind = made.type_map[scalar]
        assert isinstance(kind, GraphQLScalarType)
        kind.coerce_output_value = str
    return made


def _written(of: Model) -> list[str]:
    lines = [
        "scalar Bytes scalar BigInt scalar BigDecimal",
        "enum OrderDirection { asc desc }",
        "input Block_height { hash: Bytes number: Int number_gte: Int }",
        "type _Block_ { hash: Bytes number: Int! timestamp: Int }",
        "type _Meta_ { block: _Block_! deployment: String! hasIndexingErrors: Boolean! }",
        "enum _SubgraphErrorPolicy_ { allow deny }",
    ]
    lines += [f"enum {name} {{ {' '.join(values)} }}" for name, values in of.enums.items()]
    for word, kinds in (("interface", of.interfaces), ("type", of.entities)):
        for kind in kinds.values():
            implemented = f" implements {' & '.join(kind.interfaces)}" if kind.interfaces else ""
            fields = " ".join(_field(of, each) for each in kind.fields.values())
            lines.append(f"{word} {kind.name}{implemented} {{ {fields} }}")
            lines.append(f"input {kind.name}_filter {{ {' '.join(_filters(kind))} }}")
            lines.append(f"enum {kind.name}_orderBy {{ {' '.join(_orders(of, kind))} }}")
    queries = ["_meta(block: Block_height): _Meta_"]
    errors = "subgraphError: _SubgraphErrorPolicy_! = deny"
    for kind in [*of.entities.values(), *of.interfaces.values()]:
        queries.append(f"{kind.one}(id: ID!, block: Block_height, {errors}): {kind.name}")
        queries.append(f"{kind.all}({_arguments(kind.name)}, block: Block_height, {errors}): [{kind.name}!]!")
    return [*lines, f"type Query {{ {' '.join(queries)} }}"]


def _arguments(kind: str) -> str:
    return (
        f"skip: Int = 0, first: Int = 100, orderBy: {kind}_orderBy, orderDirection: OrderDirection, "
        f"where: {kind}_filter"
    )


def _field(of: Model, each: Field) -> str:
    arguments = f"({_arguments(each.kind)})" if each.many and each.target else ""
    return f"{each.name}{arguments}: {each.written}"


def _filters(kind: Entity) -> list[str]:
    found = [f"and: [{kind.name}_filter] or: [{kind.name}_filter]"]
    for each in kind.fields.values():
        if each.target:
            found.append(f"{each.name}_: {each.target}_filter")
        if not each.kept:
            continue
        if each.many:
            found += [f"{each.name}{part}: [String!]" for part in ("", "_not", "_contains", "_not_contains")]
            continue
        value = "String" if each.target else _VALUES.get(each.kind, each.kind)
        found += [f"{each.name}{part}: {value}" for part in _COMPARED]
        found += [f"{each.name}{part}: [{value}!]" for part in ("_in", "_not_in")]
        if each.form is Form.TEXT and value in ("String", "Bytes"):
            found += [f"{each.name}{part}: {value}" for part in _PARTS]
    return found


def _orders(of: Model, kind: Entity) -> list[str]:
    found = []
    for each in kind.columns():
        found.append(each.name)
        if each.target in of.entities:
            found += [f"{each.name}__{below.name}" for below in of.entities[each.target].columns()]
    return found


# ------------------------------------------------------------------------------------------- answers


@dataclass
class Reading:
    """One request: what it may still read, and what it reads together."""

    of: Model
    store: GraphStore
    live: Live
    block: Block
    left: int = BUDGET
    _wanted: dict[str, dict[str, asyncio.Future[Row | None]]] = field(default_factory=dict)

    def spend(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise GraphQLError(
                f"expected a request that reads at most {BUDGET} entities; ask for less at a time"
            )

    async def one(self, kind: str, id: str) -> Row | None:
        """An entity, or one that implements an interface; asked for together with others of this moment."""
        if kind in self.of.interfaces:
            for member in self.of.members(kind):
                if (found := await self.one(member.name, id)) is not None:
                    return found
            return None
        wanted = self._wanted.setdefault(kind, {})
        if id not in wanted:
            self.spend(1)
            wanted[id] = asyncio.get_running_loop().create_future()
            if len(wanted) == 1:
                asyncio.get_running_loop().call_soon(lambda: asyncio.ensure_future(self._load(kind)))
        return await wanted[id]

    async def _load(self, kind: str) -> None:
        waiting = self._wanted.pop(kind)
        try:
            found = await self.store.get(self.of.name, kind, waiting)
        except Exception as wrong:
            for future in waiting.values():
                future.set_exception(wrong)
            return
        for id, future in waiting.items():
            row = found.get(id)
            future.set_result(None if row is None else {TYPE: kind, **row})

    async def many(
        self, kind: str, given: Mapping[str, Any], fixed: Mapping[str, Any] | None = None
    ) -> list[Row]:
        """A list of entities, with the arguments of a query. `fixed`: a filter besides the caller's."""
        skip, first = given.get("skip") or 0, given.get("first", 100)
        if not 0 <= (first or 0) <= MOST or not 0 <= skip <= MOST_SKIPPED:
            raise GraphQLError(f"expected first from 0 to {MOST} and skip from 0 to {MOST_SKIPPED}")
        where = {"and": [part for part in (fixed, given.get("where")) if part]}
        order, descending = given.get("orderBy") or "id", given.get("orderDirection") == "desc"
        members = self.of.members(kind)
        shared = len(members) > 1 or kind in self.of.interfaces
        found: list[Row] = []
        for member in members:
            query = Query(
                where, order, descending, 0 if shared else skip, (skip + first) if shared else (first or 0)
            )
            rows = await self.store.find(self.of.name, member.name, query)
            self.spend(len(rows))
            found += [{TYPE: member.name, **row} for row in rows]
        if shared:
            found.sort(
                key=lambda row: (row.get(order) is not None, row.get(order), row["id"]), reverse=descending
            )
            found = found[skip : skip + first]
        return found


def resolve(source: Any, info: GraphQLResolveInfo[Any], **given: Any) -> Any:
    """Any field of any type: what its row holds at once, anything else as something to wait for."""
    reading: Reading = info.context
    if info.parent_type.name == "Query":
        return _spoken(_root(reading, info.field_name, given))
    kind = reading.of.entities.get(info.parent_type.name)
    if kind is None:  # of _meta
        return source[info.field_name]
    each = kind.fields[info.field_name]
    if each.kept and not each.target and each.form is not Form.AMOUNT:
        return source.get(each.name)
    return _spoken(_value(reading, source, each, given))


async def _spoken(answer: Awaitable[Any]) -> Any:
    """The answer, or our error as GraphQL's."""
    try:
        return await answer
    except InvalidInput as wrong:
        raise GraphQLError(str(wrong)) from None
    except SealdealError as wrong:
        raise GraphQLError(f"{wrong.code}: {wrong}") from None


async def _root(reading: Reading, name: str, given: Mapping[str, Any]) -> Any:
    if name == "_meta":
        at = reading.block
        block = {"hash": hexstr(at.hash), "number": at.number, "timestamp": at.timestamp}
        return {"block": block, "deployment": reading.of.name, "hasIndexingErrors": False}
    _no_past(given, reading.block)
    for kind in [*reading.of.entities.values(), *reading.of.interfaces.values()]:
        if kind.name == "Protocol" and name in (kind.one, kind.all):
            rows: list[Row] = [{TYPE: "Protocol", "id": "iExec"}]
            return rows if name == kind.all else rows[0]
        if name == kind.one:
            id = str(given["id"])
            return await reading.one(kind.name, id.lower() if id[:2] in ("0x", "0X") else id)
        if name == kind.all:
            return await reading.many(kind.name, given)
    raise AssertionError(name)


def _no_past(given: Mapping[str, Any], at: Block) -> None:
    """The past is not kept; a client that wants at least a block has it."""
    asked = given.get("block") or {}
    past = asked.get("number") not in (None, at.number) or asked.get("hash") not in (None, hexstr(at.hash))
    if past or (asked.get("number_gte") or 0) > at.number:
        raise GraphQLError(f"expected a query at the newest block, {at.number}: this index keeps no other")


async def _value(reading: Reading, row: Row, field: Field, given: Mapping[str, Any]) -> Any:
    if field.live:
        reading.spend(1)
        found = await reading.live.value(row, field.name, reading.block)
        if field.target and found is not None:
            return await reading.one(field.target, found) or {TYPE: field.target, "id": found}
    elif field.derived:
        target = reading.of.members(field.target)[0].fields[field.derived]
        back = {f"{field.derived}_contains": [row["id"]]} if target.many else {field.derived: row["id"]}
        if not field.many:
            return next(iter(await reading.many(field.target, {"first": 1}, back)), None)
        return await reading.many(field.target, given, back)
    elif field.many:
        skip, first = given.get("skip") or 0, given.get("first", 100)
        rows = await asyncio.gather(*(reading.one(field.target, id) for id in row[field.name]))
        return [found for found in rows if found is not None][skip : skip + first]
    else:
        found = row.get(field.name)
        if field.target:
            return None if found is None else await reading.one(field.target, found)
    return _rlc(found) if field.form is Form.AMOUNT and found is not None else found


def _rlc(amount: int) -> str:
    text = format(Decimal(amount) / RLC if amount < 10**20 else Decimal(amount).scaleb(-9), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def type_of(row: Row, _info: GraphQLResolveInfo[Any], _kind: Any) -> str:
    """Which entity a row of an interface is."""
    return str(row[TYPE])
