"""The subgraphs over HTTP: `POST /subgraphs/NAME` with a GraphQL request, as a graph node takes it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from inspect import isawaitable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from graphql import DocumentNode, GraphQLError, execute, get_operation_ast, parse, validate

from sealdeal.model.errors import NotFound, SealdealError

from ..fields import body_of
from .follow import Subgraphs
from .live import Live
from .schema import Reading, resolve, schema, type_of
from .store import MODELS

log = logging.getLogger("sealdeal.market.subgraphs")

MAX_TOKENS = 4000
"""Words of a query."""
MAX_ERRORS = 20
SECONDS = 20.0
"""For one request, besides waiting for the index."""


_BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["query"],
                "properties": {
                    "query": {"type": "string", "example": "{ deals(first: 10) { id tasks { id status } } }"},
                    "variables": {"type": "object"},
                    "operationName": {"type": "string"},
                },
            }
        }
    },
}


def add_subgraphs(app: FastAPI, subgraphs: Subgraphs) -> None:
    """`POST /subgraphs/poco` and `POST /subgraphs/dataprotector`: `{query, variables, operationName}`."""

    @app.post("/subgraphs/{name}", openapi_extra={"requestBody": _BODY})
    async def answer(name: str, request: Request) -> JSONResponse:
        if name not in MODELS:
            raise NotFound(f"expected a subgraph among {', '.join(MODELS)}, got {name!r:.80}")
        given = (await body_of(request)).fields
        return JSONResponse(await _answer(subgraphs, name, given))


async def _answer(subgraphs: Subgraphs, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    query, variables, operation = (given.get(part) for part in ("query", "variables", "operationName"))
    if not isinstance(query, str) or not isinstance(variables or {}, dict):
        return _failed(GraphQLError("expected a JSON object with a query, and variables as an object"))
    try:
        document = await asyncio.to_thread(_parsed, name, query)
        asked = get_operation_ast(document, operation if isinstance(operation, str) else None)
        if asked is None or asked.operation.value != "query":
            raise GraphQLError("expected one query, or the operationName of one")
        block = await subgraphs.caught_up()
        reading = Reading(MODELS[name], subgraphs.store, Live(subgraphs.hub, subgraphs.store), block)
        result = execute(
            schema(name),
            document,
            context_value=reading,
            variable_values=variables or {},
            operation_name=operation if isinstance(operation, str) else None,
            field_resolver=resolve,
            type_resolver=type_of,
        )
        if isawaitable(result):
            async with asyncio.timeout(SECONDS):
                result = await result
    except GraphQLError as wrong:
        return _failed(wrong)
    except TimeoutError:
        return _failed(GraphQLError(f"expected a request that takes at most {SECONDS:.0f} s; ask for less"))
    except SealdealError as wrong:
        return _failed(GraphQLError(f"{wrong.code}: {wrong}"))
    for error in result.errors or ():
        if error.original_error is not None and not isinstance(error.original_error, GraphQLError):
            log.error("a field of subgraph %s failed", name, exc_info=error.original_error)
    return dict(result.formatted)


def _parsed(name: str, query: str) -> DocumentNode:
    document = parse(query, max_tokens=MAX_TOKENS)
    if errors := validate(schema(name), document, max_errors=MAX_ERRORS):
        raise errors[0]
    return document


def _failed(wrong: GraphQLError) -> dict[str, Any]:
    return {"errors": [wrong.formatted]}
