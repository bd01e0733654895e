"""What a subgraph has: its entities and their fields, read from its .graphql file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path

from graphql import (
    EnumTypeDefinitionNode,
    FieldDefinitionNode,
    InterfaceTypeDefinitionNode,
    ListTypeNode,
    NamedTypeNode,
    NonNullTypeNode,
    ObjectTypeDefinitionNode,
    StringValueNode,
    TypeNode,
    parse,
)


class Form(StrEnum):
    """How a value is kept and compared."""

    TEXT = "text"
    """ID, String, Bytes (0x hexadecimal), an enum's member, another entity's id."""
    WHOLE = "whole"
    """BigInt: an integer up to 2^256 - 1."""
    AMOUNT = "amount"
    """BigDecimal: RLC to the reader, nRLC here."""
    INT = "int"


_FORMS = {"BigInt": Form.WHOLE, "BigDecimal": Form.AMOUNT, "Int": Form.INT}


@dataclass(frozen=True, slots=True)
class Field:
    """One field of an entity."""

    name: str
    kind: str
    """Its type's name, without list and non-null."""
    written: str
    """Its type as written."""
    form: Form
    many: bool
    target: str
    """The entity, or the interface, that it points to; empty for a value."""
    derived: str
    """The field of `target` that points here; empty when this field itself is kept."""
    live: bool
    """Asked of the chain, not kept."""

    @property
    def kept(self) -> bool:
        return not self.derived and not self.live


@dataclass(frozen=True, slots=True)
class Entity:
    """One type of a subgraph."""

    name: str
    fields: dict[str, Field]
    interfaces: tuple[str, ...]

    @property
    def one(self) -> str:
        """Name of the query for one by id."""
        return self.name[0].lower() + self.name[1:]

    @property
    def all(self) -> str:
        """Name of the query for many."""
        match self.one[-1]:
            case "s":
                return self.one + "es"
            case "y":
                return self.one[:-1] + "ies"
        return self.one + "s"

    def columns(self) -> Iterator[Field]:
        """The fields that one row holds."""
        return (field for field in self.fields.values() if field.kept and not field.many)

    def lists(self) -> Iterator[Field]:
        """The fields that are lists of other entities' ids."""
        return (field for field in self.fields.values() if field.kept and field.many)


@dataclass(frozen=True, slots=True)
class Model:
    """All that a subgraph has."""

    name: str
    entities: dict[str, Entity]
    interfaces: dict[str, Entity]
    enums: dict[str, tuple[str, ...]]

    def members(self, name: str) -> list[Entity]:
        """The entity of that name, or those that implement the interface of that name."""
        if name in self.entities:
            return [self.entities[name]]
        return [entity for entity in self.entities.values() if name in entity.interfaces]


@cache
def model(name: str) -> Model:
    """`poco` or `dataprotector`."""
    definitions = parse((Path(__file__).parent / f"{name}.graphql").read_text()).definitions
    enums = {
        node.name.value: tuple(value.name.value for value in node.values or ())
        for node in definitions
        if isinstance(node, EnumTypeDefinitionNode)
    }
    objects = [node for node in definitions if isinstance(node, ObjectTypeDefinitionNode)]
    shared = [node for node in definitions if isinstance(node, InterfaceTypeDefinitionNode)]
    known = {node.name.value for node in [*objects, *shared]}

    def read(node: ObjectTypeDefinitionNode | InterfaceTypeDefinitionNode) -> Entity:
        fields = {field.name.value: _field(field, known) for field in node.fields or ()}
        return Entity(node.name.value, fields, tuple(i.name.value for i in node.interfaces or ()))

    return Model(
        name,
        {node.name.value: read(node) for node in objects},
        {node.name.value: read(node) for node in shared},
        enums,
    )


def _field(node: FieldDefinitionNode, known: set[str]) -> Field:
    kind, many, written = _type(node.type)
    derived, live = "", False
    for directive in node.directives or ():
        live |= directive.name.value == "live"
        for argument in directive.arguments or ():
            assert isinstance(argument.value, StringValueNode)
            derived = argument.value.value
    form = _FORMS.get(kind, Form.TEXT)
    return Field(node.name.value, kind, written, form, many, kind if kind in known else "", derived, live)


def _type(node: TypeNode) -> tuple[str, bool, str]:
    match node:
        case NonNullTypeNode():
            kind, many, written = _type(node.type)
            return kind, many, f"{written}!"
        case ListTypeNode():
            kind, _, written = _type(node.type)
            return kind, True, f"[{written}]"
        case NamedTypeNode():
            return node.name.value, False, node.name.value
    raise AssertionError("a type of GraphQL is named, a list or non-null")
