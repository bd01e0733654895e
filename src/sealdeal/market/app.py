"""The marketplace API (wire.md §1): routes, parameters, and errors in the words that its clients know."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from sealdeal import __version__
from sealdeal.model.errors import (
    ChainError,
    Conflict,
    Forbidden,
    InvalidInput,
    NotFound,
    RateLimited,
    SealdealError,
    TooLarge,
    Unauthorized,
    Unavailable,
)
from sealdeal.model.orders import Kind
from sealdeal.model.types import Address, hexstr
from sealdeal.sdk.events import FILTERS, TOPICS

from . import quotes
from .book import Nearest
from .challenges import Authorization
from .feed import EventStream, Wanted, cursor_of, sockets
from .fields import (
    DEAL_ADDRESSES,
    DEAL_HASHES,
    PAGING,
    Fields,
    body_of,
    documented,
    filter_names,
    order_filter,
    signed_order,
)
from .journal import UNREACHABLE
from .limits import EXPOSED, OpenStreams, RateLimit
from .market import Market
from .records import Record
from .subgraphs.app import add_subgraphs

log = logging.getLogger("sealdeal.market")


_EVENTS = ("topics", "requester", "dealid", "lastEventId")


def create_app(market: Market, streams: OpenStreams | None = None) -> FastAPI:
    """The API of one market, and of the subgraphs beside it. `streams`: counts those that are open."""
    app = FastAPI(title="Sealdeal marketplace", version=__version__, redoc_url=None)
    _answer_in_dialect(app)
    limits = market.limits
    app.add_middleware(RateLimit, limits=limits)
    app.add_middleware(
        CORSMiddleware,
        allow_origins=["*"],
        allow_methods=["*"],
        allow_headers=["*"],
        expose_headers=EXPOSED,
        allow_private_network=True,
    )
    only_chain, streams = market.chain_id, streams or OpenStreams(limits.streams)
    socket, end = sockets(market.feed, only_chain, streams)
    app.mount("/ws", socket)
    market.at_end(end)
    if market.subgraphs:
        add_subgraphs(app, market.subgraphs)

    def chain(fields: Fields) -> None:
        given = fields.required("chainId")
        if given != str(only_chain):
            raise InvalidInput(f"chainId {given} is not supported")

    def authorized(request: Request) -> AbstractAsyncContextManager[Authorization]:
        return market.authorized(request.headers.get("authorization"))

    async def asker(request: Request) -> Address:
        """Who asks, by an authorization that is spent before anything is done."""
        async with authorized(request) as by:
            return by.account

    def route(
        method: str, path: str, *parameters: str
    ) -> Callable[[Callable[[Request, Fields], Awaitable[dict[str, Any] | Response]]], Any]:
        """A route that wants chainId, and whose answer is `{"ok": true, …}`."""

        def add(answer: Callable[[Request, Fields], Awaitable[dict[str, Any] | Response]]) -> Any:
            async def endpoint(request: Request) -> Response:
                fields = Fields(request.query_params)
                chain(fields)
                told = await answer(request, fields)
                return told if isinstance(told, Response) else JSONResponse({"ok": True, **told})

            name = f"{method.lower()}_{path.strip('/').replace('/', '_').replace('{', '').replace('}', '')}"
            extra = documented(method, path, parameters, only_chain)
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

    @route("GET", "/categories", "minWorkClockTimeRef", "maxWorkClockTimeRef", *PAGING)
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

    @route("GET", "/deals", "category", *DEAL_ADDRESSES, *DEAL_HASHES, *PAGING)
    async def deals(_: Request, fields: Fields) -> Response:
        equal: dict[str, Any] = {}
        for names, read in ((DEAL_ADDRESSES, fields.address), (DEAL_HASHES, fields.hash)):
            equal |= {name: value for name in names if (value := read(name)) is not None}
        if (catid := fields.number("category")) is not None:
            equal["category"] = catid
        skip, limit = fields.page()
        await market.index.caught_up()
        found, count = await market.lists.list_deals(equal, skip, limit)
        return _page_of_texts("deals", found, only_chain, count, skip, limit)

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
        found = await market.lists.last_deals(fields.number("category"), 100)
        rows = [[doc["blockTimestamp"], doc["workerpool"]["price"], doc["volume"]] for doc in found]
        return {"ohlc": rows}

    def order_routes(kind: Kind) -> None:
        @route("GET", f"/{kind}orders", *filter_names(kind), *PAGING)
        async def list_orders(_: Request, fields: Fields) -> Response:
            wanted = order_filter(kind, fields)
            skip, limit = fields.page()
            await market.index.caught_up()
            found, count = await market.lists.list_orders(wanted, skip, limit)
            return _page_of_texts("orders", [one.text for one in found], only_chain, count, skip, limit)

        @route("GET", f"/{kind}orders/{{orderHash}}")
        async def one_order(request: Request, _: Fields) -> dict[str, Any]:
            hash = Fields(request.path_params).required_hash("orderHash")
            await market.index.caught_up()
            record = await market.store.order(hash, kind)
            if record is None:
                raise NotFound(f"{kind}order not found")
            place = market.place(record)
            return {**_document(record, only_chain), **({"place": place} if place else {})}

        @route("POST", f"/{kind}orders")
        async def publish(request: Request, _: Fields) -> dict[str, Any]:
            body = await body_of(request)
            async with authorized(request) as by:
                signed = signed_order(kind, body)
                standing = body.fields.get("standing", False)
                if not isinstance(standing, bool):
                    raise InvalidInput("standing must be a `boolean` type")
                record = await market.publish(kind, signed, by, standing=standing)
            place = market.place(record)
            return {"published": _document(record, only_chain), **({"place": place} if place else {})}

        @route("PUT", f"/{kind}orders")
        async def unpublish(request: Request, _: Fields) -> dict[str, Any]:
            body = await body_of(request)
            async with authorized(request) as by:
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
                gone = await market.unpublish(kind, by, **chosen)
            return {"unpublished": [hexstr(hash) for hash in gone]}

    for kind in Kind:
        order_routes(kind)

    @app.get("/events", openapi_extra=documented("GET", "/events", _EVENTS, only_chain))
    async def events(request: Request) -> EventStream:
        fields = Fields(request.query_params)
        chain(fields)
        topics = frozenset(str(fields.fields.get("topics", ",".join(TOPICS))).split(","))
        if unknown := topics.difference(TOPICS):
            raise InvalidInput(
                f"topics must be one or more of the following values: {', '.join(TOPICS)}; "
                f"got {min(unknown)!r}"
            )
        wanted = Wanted(topics, fields.address("requester"), fields.hash("dealid"))
        after = cursor_of(request.headers.get("last-event-id") or fields.fields.get("lastEventId"))
        client = request.scope["sealdeal.client"]
        if not streams.open(client):
            raise RateLimited("Rate limit exceeded")

        return EventStream(market.feed.stream(wanted, after), lambda: streams.close(client))

    @route("POST", "/webhooks")
    async def add_webhook(request: Request, _: Fields) -> dict[str, Any]:
        body = await body_of(request)
        by = await asker(request)
        filters: dict[str, str] = {}
        for name in FILTERS:
            value = body.hash(name) if name == "dealid" else body.address(name)
            if value is not None:
                filters[name] = hexstr(value) if isinstance(value, bytes) else value
        return {"webhook": await market.webhooks.add(by, body.required("url"), filters)}

    @route("GET", "/webhooks")
    async def list_webhooks(request: Request, _: Fields) -> dict[str, Any]:
        by = await asker(request)
        return {"webhooks": await market.webhooks.list(by)}

    @route("DELETE", "/webhooks/{id}")
    async def drop_webhook(request: Request, _: Fields) -> dict[str, Any]:
        by = await asker(request)
        await market.webhooks.drop(by, request.path_params["id"])
        return {"deleted": request.path_params["id"]}

    @route("GET", "/deals/{dealid}/match")
    async def match(request: Request, _: Fields) -> dict[str, Any]:
        return {"match": await market.match_of(Fields(request.path_params).required_hash("dealid"))}

    route("GET", "/quote", *quotes.PARAMETERS)(quotes.answer(market.lists, market.index.caught_up))

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


# ------------------------------------------------------------------------------------------- answers


def _document(record: Record, chain_id: int) -> dict[str, Any]:
    """An order as the wire shows it."""
    return _in_chain(record.document, chain_id)


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


def _page_of_texts(name: str, found: list[str], chain_id: int, count: int, skip: int, limit: int) -> Response:
    """A page of objects whose JSON is there already: to read and write it again costs more than the rest."""
    following = f',"nextPage":{skip + limit}' if len(found) == limit else ""
    items = ",".join(f'{text[:-1]},"chainId":{chain_id}}}' for text in found)
    whole = f'{{"ok":true,"{name}":[{items}],"count":{count}{following}}}'
    return Response(whole, media_type="application/json")


def _answer_in_dialect(app: FastAPI) -> None:
    """Errors as the marketplace's clients know them (wire.md §1.1), in place of `sdk.http`'s form."""

    def refusal(status: int, text: str) -> JSONResponse:
        return JSONResponse({"ok": False, "error": text}, status)

    @app.exception_handler(SealdealError)
    async def refused(_: Request, error: SealdealError) -> JSONResponse:
        match error:
            case InvalidInput() | TooLarge() | NotFound():
                return refusal(error.status, str(error))
            case RateLimited():
                return JSONResponse({"ok": False, "error": str(error)}, 429, {"Retry-After": "60"})
            case Forbidden() | Conflict() | Unauthorized():
                return refusal(403, str(error))
            case ChainError() | Unavailable():
                log.warning("answered 500: %s", error)
                return refusal(500, "Something went wrong, you should retry later.")
            case _:
                log.error("answered 500: %s", error)
                return refusal(500, "Internal error")

    async def unreachable(_: Request, error: Exception) -> JSONResponse:
        log.warning("answered 500: the database: %s", error)
        return refusal(500, "Something went wrong, you should retry later.")

    for kind in UNREACHABLE:
        app.add_exception_handler(kind, unreachable)

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> JSONResponse:
        return refusal(error.status_code, str(error.detail))

    @app.exception_handler(Exception)
    async def unforeseen(_: Request, error: Exception) -> JSONResponse:
        return refusal(500, "Internal error")
