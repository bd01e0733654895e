"""The marketplace API (wire.md §1): routes, parameters, and errors in the words that its clients know."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from math import isfinite
from typing import Any

from fastapi import FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse
from pydantic_core import from_json
from starlette.exceptions import HTTPException

from sealdeal import __version__
from sealdeal.model.errors import (
    ChainError,
    Conflict,
    Forbidden,
    InvalidInput,
    NotFound,
    SealdealError,
    TooLarge,
    Unauthorized,
    Unavailable,
)
from sealdeal.model.orders import ORDER_TYPES, Kind, Signed
from sealdeal.model.types import ZERO, Address, address, bytes32, hexstr, unhex

from .book import Nearest
from .index import iso_time
from .market import Market
from .store import BULK_VOLUME, MAX_SAFE, OrderFilter, Record

log = logging.getLogger("sealdeal.market")

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
_DEAL_ADDRESSES = (
    "requester",
    "beneficiary",
    "app",
    "dataset",
    "workerpool",
    "appOwner",
    "datasetOwner",
    "workerpoolOwner",
)
_DEAL_HASHES = ("apporderHash", "datasetorderHash", "workerpoolorderHash", "requestorderHash")


def create_app(market: Market) -> FastAPI:
    """The API of one market."""
    app = FastAPI(title="Sealdeal marketplace", version=__version__, redoc_url=None)
    _answer_in_dialect(app)
    app.add_middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["*"], allow_headers=["*"])
    only_chain = market.chain_id

    def chain(fields: Fields) -> None:
        given = fields.required("chainId")
        if given != str(only_chain):
            raise InvalidInput(f"chainId {given} is not supported")

    def route(
        method: str, path: str, *parameters: str
    ) -> Callable[[Callable[[Request, Fields], Awaitable[dict[str, Any]]]], Any]:
        """A route that wants chainId, and whose answer is `{"ok": true, …}`."""
        documented = [
            {"name": name, "in": "query", "required": name == "chainId", "schema": {"type": "string"}}
            for name in ("chainId", *parameters)
        ]

        def add(answer: Callable[[Request, Fields], Awaitable[dict[str, Any]]]) -> Any:
            async def endpoint(request: Request) -> JSONResponse:
                fields = Fields(request.query_params)
                chain(fields)
                return JSONResponse({"ok": True, **await answer(request, fields)})

            name = f"{method.lower()}_{path.strip('/').replace('/', '_').replace('{', '').replace('}', '')}"
            extra = {"parameters": documented + _path_parameters(path)}
            app.add_api_route(path, endpoint, methods=[method], name=name, openapi_extra=extra)
            return answer

        return add

    @app.get("/version")
    async def version() -> dict[str, Any]:
        return {"ok": True, "version": __version__}

    @route("GET", "/challenge", "address")
    async def challenge(_: Request, fields: Fields) -> dict[str, Any]:
        return {"data": await market.challenge(fields.required_address("address"))}

    @route("GET", "/metrics")
    async def metrics(_: Request, __: Fields) -> dict[str, Any]:
        number = market.index.cursor.number if market.index.cursor else 0
        counts = {f"{kind}orders": count for kind, count in (await market.lists.counts()).items()}
        return {"lastBlock": number, "checkpointBlock": number, **counts}

    @route("GET", "/categories", "minWorkClockTimeRef", "maxWorkClockTimeRef", *_PAGING)
    async def categories(_: Request, fields: Fields) -> dict[str, Any]:
        least, most = fields.number("minWorkClockTimeRef") or 0, fields.number("maxWorkClockTimeRef")
        skip, limit = fields.page()
        await market.index.caught_up()
        found, count = await market.lists.list_categories(least, most, skip, limit)
        return _page("categories", [_in_chain(doc, only_chain) for doc in found], count, skip, limit)

    @route("GET", "/categories/{catid}")
    async def category(request: Request, _: Fields) -> dict[str, Any]:
        catid = Fields(request.path_params).number("catid")
        await market.index.caught_up()
        found = await market.lists.category(catid or 0)
        if found is None:
            raise NotFound("category not found")
        return _in_chain(found, only_chain)

    @route("GET", "/deals", "category", *_DEAL_ADDRESSES, *_DEAL_HASHES, *_PAGING)
    async def deals(_: Request, fields: Fields) -> dict[str, Any]:
        equal: dict[str, Any] = {}
        for names, read in ((_DEAL_ADDRESSES, fields.address), (_DEAL_HASHES, fields.hash)):
            equal |= {name: value for name in names if (value := read(name)) is not None}
        if (catid := fields.number("category")) is not None:
            equal["category"] = catid
        skip, limit = fields.page()
        await market.index.caught_up()
        found, count = await market.lists.list_deals(equal, skip, limit)
        return _page("deals", [_in_chain(doc, only_chain) for doc in found], count, skip, limit)

    @route("GET", "/deals/{dealid}")
    async def deal(request: Request, _: Fields) -> dict[str, Any]:
        dealid = Fields(request.path_params).required_hash("dealid")
        await market.index.caught_up()
        found = await market.lists.deal(dealid)
        if found is None:
            raise NotFound("deal not found")
        return _in_chain(found, only_chain)

    @route("GET", "/ohlc", "category")
    async def ohlc(_: Request, fields: Fields) -> dict[str, Any]:
        fields.required("category")
        await market.index.caught_up()
        found, _count = await market.lists.list_deals({"category": fields.number("category")}, 0, 100)
        rows = [[doc["blockTimestamp"], doc["workerpool"]["price"], doc["volume"]] for doc in found]
        return {"ohlc": rows}

    def order_routes(kind: Kind) -> None:
        @route("GET", f"/{kind}orders", *_filter_names(kind), *_PAGING)
        async def list_orders(_: Request, fields: Fields) -> dict[str, Any]:
            wanted = _order_filter(kind, fields)
            skip, limit = fields.page()
            await market.index.caught_up()
            found, count = await market.lists.list_orders(wanted, skip, limit)
            return _page("orders", [_document(r, only_chain) for r in found], count, skip, limit)

        @route("GET", f"/{kind}orders/{{orderHash}}")
        async def one_order(request: Request, _: Fields) -> dict[str, Any]:
            hash = Fields(request.path_params).required_hash("orderHash")
            await market.index.caught_up()
            record = await market.store.order(hash, kind)
            if record is None:
                raise NotFound(f"{kind}order not found")
            return _document(record, only_chain)

        @route("POST", f"/{kind}orders")
        async def publish(request: Request, _: Fields) -> dict[str, Any]:
            body = await _body(request)
            signed = _signed_order(kind, body)
            standing = body.fields.get("standing", False)
            if not isinstance(standing, bool):
                raise InvalidInput("standing must be a `boolean` type")
            by = await market.authorized(request.headers.get("authorization"))
            record = await market.publish(kind, signed, by, standing=standing)
            return {"published": _document(record, only_chain)}

        @route("PUT", f"/{kind}orders")
        async def unpublish(request: Request, _: Fields) -> dict[str, Any]:
            body = await _body(request)
            target = body.fields.get("target", "unpublish_orderHash")
            targets = ("unpublish_orderHash", "unpublish_last", "unpublish_all")
            if target not in targets:
                raise InvalidInput(f"target must be one of the following values: {', '.join(targets)}")
            chosen: dict[str, Any]
            if target == "unpublish_orderHash":
                chosen = {"hash": body.required_hash("orderHash")}
            else:
                field = "requester" if kind is Kind.REQUEST else kind.value
                chosen = {"asset": body.required_address(field), "last": target == "unpublish_last"}
            by = await market.authorized(request.headers.get("authorization"))
            gone = await market.unpublish(kind, by, **chosen)
            return {"unpublished": [hexstr(hash) for hash in gone]}

    for kind in Kind:
        order_routes(kind)

    @route("GET", "/requestorders/{orderHash}/why")
    async def why(request: Request, _: Fields) -> dict[str, Any]:
        record, found = await market.why(Fields(request.path_params).required_hash("orderHash"))
        return {
            "orderHash": hexstr(record.hash),
            "status": record.status,
            "remaining": record.remaining,
            "constraint": found.constraint,
            "apporders": [_nearest(near) for near in found.apps],
            "datasetorders": [_nearest(near) for near in found.datasets],
            "workerpoolorders": [_nearest(near) for near in found.workerpools],
        }

    return app


# ---------------------------------------------------------------------------------------- parameters

_PAGING = ("pageIndex", "pageSize", "page")


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


def _filter_names(kind: Kind) -> list[str]:
    names = [*_IDENTITIES[kind], *([_OWNERS[kind]] if kind in _OWNERS else [])]
    for name in _RESTRICTIONS[kind]:
        names += [name, f"is{name.capitalize()}Strict"]
    return [*names, "minTag", "maxTag", *_NUMBERS[kind], *(["bulkOnly"] if kind is Kind.DATASET else [])]


def _order_filter(kind: Kind, fields: Fields) -> OrderFilter:
    equal: dict[str, Address] = {}
    admits: dict[str, tuple[Address, ...]] = {}
    for name in _IDENTITIES[kind]:
        anyone = fields.fields.get(name) == "any"
        if not anyone and (wanted := fields.address(name)) is not None:
            equal[name] = wanted
    if (owner := fields.address(_OWNERS[kind]) if kind in _OWNERS else None) is not None:
        equal["signer"] = owner
    if kind in (Kind.APP, Kind.DATASET) and kind not in fields.fields and owner is None:
        raise InvalidInput(f"{kind} or {kind}Owner is required")
    for name in _RESTRICTIONS[kind]:
        if fields.fields.get(name) == "any":
            continue
        column = "workerpool" if kind is Kind.REQUEST else f"{name}restrict"
        named = fields.address(name)
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


async def _body(request: Request) -> Fields:
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


def _signed_order(kind: Kind, body: Fields) -> Signed[Any]:
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


def _path_parameters(path: str) -> list[dict[str, Any]]:
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]


# ------------------------------------------------------------------------------------------- answers


def _document(record: Record, chain_id: int) -> dict[str, Any]:
    """An order as the wire shows it."""
    document = {
        "orderHash": hexstr(record.hash),
        "order": record.signed.to_json(),
        "chainId": chain_id,
        "remaining": record.remaining,
        "status": record.status,
        "publicationTimestamp": iso_time(record.published_at / 1000),
        "signer": record.signer,
    }
    if record.kind is Kind.DATASET:
        order = record.signed.order
        document["bulk"] = order.volume >= BULK_VOLUME and order.datasetprice == 0
    return document


def _in_chain(document: Mapping[str, Any], chain_id: int) -> dict[str, Any]:
    return {**document, "chainId": chain_id}


def _nearest(near: Nearest) -> dict[str, Any]:
    offer = near.offer
    return {
        "orderHash": hexstr(offer.hash),
        "price": offer.price,
        "remaining": offer.remaining,
        "failing": list(near.failing),
    }


def _page(name: str, found: list[dict[str, Any]], count: int, skip: int, limit: int) -> dict[str, Any]:
    following = {"nextPage": skip + limit} if len(found) == limit else {}
    return {name: found, "count": count, **following}


def _answer_in_dialect(app: FastAPI) -> None:
    """Errors as the marketplace's clients know them (wire.md §1.1), in place of `sdk.http`'s form."""

    def refusal(status: int, text: str) -> JSONResponse:
        return JSONResponse({"ok": False, "error": text}, status)

    @app.exception_handler(SealdealError)
    async def refused(_: Request, error: SealdealError) -> JSONResponse:
        match error:
            case InvalidInput() | TooLarge() | NotFound():
                return refusal(error.status, str(error))
            case Forbidden() | Conflict() | Unauthorized():
                return refusal(403, str(error))
            case ChainError() | Unavailable():
                log.warning("answered 500: %s", error)
                return refusal(500, "Something went wrong, you should retry later.")
            case _:
                log.error("answered 500: %s", error)
                return refusal(500, "Internal error")

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> JSONResponse:
        return refusal(error.status_code, str(error.detail))

    @app.exception_handler(Exception)
    async def unforeseen(_: Request, error: Exception) -> JSONResponse:
        return refusal(500, "Internal error")
