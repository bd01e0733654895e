"""What the marketplace is asked: queries, bodies and orders, read and refused in the words of wire.md §1."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Any

from fastapi import Request
from pydantic_core import from_json

from sealdeal.model.errors import InvalidInput, TooLarge
from sealdeal.model.orders import ORDER_TYPES, Kind, Signed
from sealdeal.model.types import ZERO, Address, address, bytes32, unhex

from .records import MAX_SAFE, OrderFilter

MAX_BODY = 256 * 1024
"""Bytes of a request's body; an order without long params has under 2 KiB."""
PAGE_SIZE, LEAST_PAGE, MOST_PAGE = 20, 10, 1000

_IDENTITIES = {
    Kind.APP: ("app",),
    Kind.DATASET: ("dataset",),
    Kind.WORKERPOOL: ("workerpool",),
    Kind.REQUEST: ("requester", "beneficiary", "app", "dataset"),
}
"""Filters on who or what an order is for; `any` is no filter."""
_OWNERS = {Kind.APP: "appOwner", Kind.DATASET: "datasetOwner", Kind.WORKERPOOL: "workerpoolOwner"}
_RESTRICTIONS = {
    Kind.APP: ("dataset", "workerpool", "requester"),
    Kind.DATASET: ("app", "workerpool", "requester"),
    Kind.WORKERPOOL: ("app", "dataset", "requester"),
    Kind.REQUEST: ("workerpool",),
}
"""Filters on whom an order is restricted to (rule R of wire.md §1.3)."""
_NUMBERS = {
    Kind.APP: ("minVolume",),
    Kind.DATASET: ("minVolume",),
    Kind.WORKERPOOL: ("category", "minTrust", "minVolume"),
    Kind.REQUEST: ("category", "maxTrust", "minVolume"),
}
DEAL_ADDRESSES = (
    "requester",
    "beneficiary",
    "app",
    "dataset",
    "workerpool",
    "appOwner",
    "datasetOwner",
    "workerpoolOwner",
)
DEAL_HASHES = ("apporderHash", "datasetorderHash", "workerpoolorderHash", "requestorderHash")

PAGING = ("pageIndex", "pageSize", "page")


class Fields:
    """Parameters of a query, a path or a body, read as the official marketplace reads them."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self.fields = fields

    def required(self, name: str) -> str:
        value = self.fields.get(name)
        if value in (None, ""):
            raise InvalidInput(f"{name} is a required field")
        return str(value)

    def address(self, name: str) -> Address | None:
        value = self.fields.get(name)
        if value is None:
            return None
        try:
            if not isinstance(value, str) or value[:2].lower() != "0x":
                raise InvalidInput
            return address(value)
        except InvalidInput:
            raise InvalidInput(f"{name} is not a valid ethereum address") from None

    def address_or_any(self, name: str) -> Address | None:
        """None when it is not given, and for `any`, which lets everything pass."""
        if self.is_any(name):
            return None
        try:
            return self.address(name)
        except InvalidInput:
            raise InvalidInput(f'{name} is neither "any" nor a valid ethereum address') from None

    def is_any(self, name: str) -> bool:
        return self.fields.get(name) == "any"

    def required_address(self, name: str) -> Address:
        self.required(name)
        value = self.address(name)
        assert value is not None
        return value

    def hash(self, name: str) -> bytes | None:
        value = self.fields.get(name)
        if value is None:
            return None
        try:
            if not isinstance(value, str) or value[:2].lower() != "0x":
                raise InvalidInput
            return bytes32(value)
        except InvalidInput:
            raise InvalidInput(f"{name} must be a bytes32 hexstring") from None

    def required_hash(self, name: str) -> bytes:
        self.required(name)
        value = self.hash(name)
        assert value is not None
        return value

    def number(self, name: str, least: int = 0, most: int = MAX_SAFE) -> int | None:
        """An integer; text is cast as JavaScript does."""
        value = self.fields.get(name)
        if value is None:
            return None
        number = _cast(value)
        if number is None:
            cast = f"(cast from the value `{json.dumps(value)}`)"
            raise InvalidInput(f"{name} must be a `number` type, but the final value was: `NaN` {cast}.")
        if number != int(number):
            raise InvalidInput(f"{name} must be an integer")
        if number < least:
            raise InvalidInput(f"{name} must be greater than or equal to {least}")
        if number > most:
            raise InvalidInput(f"{name} must be less than or equal to {most}")
        return int(number)

    def flag(self, name: str) -> bool:
        value = str(self.fields.get(name, "false")).lower()
        if value not in ("true", "false", "1", "0"):
            raise InvalidInput(
                f"{name} must be a `boolean` type, but the final value was: `{json.dumps(value)}`."
            )
        return value in ("true", "1")

    def page(self) -> tuple[int, int]:
        """(skip, limit)."""
        size = self.number("pageSize", LEAST_PAGE, MOST_PAGE) or PAGE_SIZE
        if "pageIndex" not in self.fields and "page" in self.fields:  # the old way: what to skip
            return self.number("page") or 0, PAGE_SIZE
        return (self.number("pageIndex") or 0) * size, size


def _cast(value: object) -> int | float | None:
    """The number that JavaScript sees in a JSON value, as far as it is finite; None for NaN."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return int(value) if isinstance(value, int | str) else value if isfinite(value) else None
    except ValueError:
        pass
    try:
        number = float(value)
    except ValueError:
        return None
    return number if isfinite(number) else None


def filter_names(kind: Kind) -> list[str]:
    """The parameters with which orders of a kind are filtered."""
    names = [*_IDENTITIES[kind], *([_OWNERS[kind]] if kind in _OWNERS else [])]
    for name in _RESTRICTIONS[kind]:
        names += [name, f"is{name.capitalize()}Strict"]
    return [*names, "minTag", "maxTag", *_NUMBERS[kind], *(["bulkOnly"] if kind is Kind.DATASET else [])]


def order_filter(kind: Kind, fields: Fields) -> OrderFilter:
    """Which orders a query asks for. Raises InvalidInput."""
    equal: dict[str, Address] = {}
    admits: dict[str, tuple[Address, ...]] = {}
    for name in _IDENTITIES[kind]:
        if (wanted := fields.address_or_any(name)) is not None:
            equal[name] = wanted
    if (owner := fields.address(_OWNERS[kind]) if kind in _OWNERS else None) is not None:
        equal["signer"] = owner
    if kind in (Kind.APP, Kind.DATASET) and kind not in fields.fields and owner is None:
        raise InvalidInput(f"{kind} or {kind}Owner is required")
    for name in _RESTRICTIONS[kind]:
        if fields.is_any(name):
            continue
        column = "workerpool" if kind is Kind.REQUEST else f"{name}restrict"
        named = fields.address_or_any(name)
        strict = fields.flag(f"is{name.capitalize()}Strict")
        admits[column] = (ZERO,) if named is None else (named,) if strict else (ZERO, named)
    most = fields.hash("maxTag")
    least_trust = fields.number("minTrust") or 0 if "minTrust" in _NUMBERS[kind] else 0
    return OrderFilter(
        kind,
        equal,
        admits,
        category=fields.number("category") if "category" in _NUMBERS[kind] else None,
        min_tag=int.from_bytes(fields.hash("minTag") or b"", "big"),
        max_tag=None if most is None else int.from_bytes(most, "big"),
        min_volume=fields.number("minVolume", 1) or 0,
        min_trust=least_trust if least_trust > 1 else 0,  # trust 0 and 1 are the same to a deal
        max_trust=fields.number("maxTrust") if "maxTrust" in _NUMBERS[kind] else None,
        bulk_only=kind is Kind.DATASET and fields.flag("bulkOnly"),
    )


async def body_of(request: Request) -> Fields:
    """The fields of a request's body, a JSON object. Raises TooLarge, InvalidInput."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY:
            raise TooLarge(f"a body may have {MAX_BODY} bytes")
    try:
        found = from_json(body or b"{}", allow_inf_nan=False)  # json.loads can overflow the stack
    except ValueError:
        raise InvalidInput("the body is not JSON") from None
    if not isinstance(found, dict):
        raise InvalidInput("the body must be a JSON object")
    return Fields(found)


def signed_order(kind: Kind, body: Fields) -> Signed[Any]:
    """The body's order, each field checked; unknown ones are dropped, as the official marketplace does."""
    given = body.fields.get("order")
    if given is None:
        raise InvalidInput("order is a required field")
    if not isinstance(given, dict):
        raise InvalidInput(f"order is not a valid signed {kind}order")
    fields, found = Fields(given), dict[str, Any]()
    for name, sol in ORDER_TYPES[kind].fields():
        if sol == "string":
            value = given.get(name, "")
            if not isinstance(value, str):
                raise InvalidInput(f"{name} must be a `string` type")
            found[name] = value
            continue
        fields.required(name)
        if sol == "address":
            found[name] = fields.address(name)
        elif sol == "bytes32":
            found[name] = fields.hash(name)
        else:
            found[name] = fields.number(name, 1 if name == "volume" else 0)
    sign = fields.required("sign")
    try:
        if sign[:2] != "0x":
            raise InvalidInput
        return Signed(ORDER_TYPES[kind](**found), unhex(sign))
    except InvalidInput:
        raise InvalidInput("sign must be a valid signature") from None


# ------------------------------------------------------------------------------------- documentation


def documented(method: str, path: str, names: Iterable[str], chain_id: int) -> dict[str, Any]:
    """What OpenAPI says of a route, beyond what the framework knows: `names` are its parameters."""
    found = [{"name": "chainId", "in": "query", "required": True, "schema": {"enum": [str(chain_id)]}}]
    found += [{"name": name, "in": "query", "required": False, "schema": _schema(name)} for name in names]
    for part in path.split("/"):
        if part.startswith("{"):
            name = part[1:-1]
            found.append({"name": name, "in": "path", "required": True, "schema": _schema(name)})
    document: dict[str, Any] = {"parameters": found}
    authorised = method != "GET" or path == "/webhooks"
    if authorised:
        found.append({"name": "authorization", "in": "header", "required": True, "schema": _TEXT})
    if method in ("POST", "PUT"):
        content = {"application/json": {"schema": _body_schema(method, path)}}
        document["requestBody"] = {"required": True, "content": content}
    return document


_TEXT = {"type": "string"}
_ADDRESS = {"type": "string", "pattern": "^0x[0-9a-fA-F]{40}$"}
_HASH = {"type": "string", "pattern": "^0x[0-9a-f]{64}$"}
_WHOLE = {"type": "integer", "minimum": 0, "maximum": MAX_SAFE}
_SCHEMAS: dict[str, dict[str, Any]] = {
    "pageIndex": _WHOLE,
    "pageSize": {"type": "integer", "minimum": LEAST_PAGE, "maximum": MOST_PAGE},
    "page": _WHOLE,
    "category": _WHOLE,
    "catid": _WHOLE,
    "minVolume": {**_WHOLE, "minimum": 1},
    "minTrust": _WHOLE,
    "maxTrust": _WHOLE,
    "minWorkClockTimeRef": _WHOLE,
    "maxWorkClockTimeRef": _WHOLE,
    "lastEventId": _WHOLE,
    "bulkOnly": {"type": "boolean"},
    **dict.fromkeys(("minTag", "maxTag", "orderHash", "dealid", *DEAL_HASHES), _HASH),
}


def _schema(name: str) -> dict[str, Any]:
    if name.startswith("is") and name.endswith("Strict"):
        return {"type": "boolean"}
    return _SCHEMAS.get(name, _TEXT)


def _body_schema(method: str, path: str) -> dict[str, Any]:
    if path == "/webhooks":
        return {"type": "object", "required": ["url"], "properties": {"url": _TEXT, "requester": _ADDRESS}}
    kind = Kind(path.strip("/").removesuffix("orders"))
    if method == "PUT":
        targets = {"enum": ["unpublish_orderHash", "unpublish_last", "unpublish_all"]}
        asset = "requester" if kind is Kind.REQUEST else kind.value
        return {"type": "object", "properties": {"target": targets, "orderHash": _HASH, asset: _ADDRESS}}
    types = {"address": _ADDRESS, "bytes32": _HASH, "string": _TEXT}
    order = {name: types.get(sol, _WHOLE) for name, sol in ORDER_TYPES[kind].fields()}
    order["sign"] = {"type": "string", "pattern": "^0x([0-9a-f]{2})*$"}
    schema = {"type": "object", "required": [*order], "properties": order}
    return {"type": "object", "required": ["order"], "properties": {"order": schema}}
