"""A node's JSON-RPC as wallets expect it: gas estimates have a margin, and pages of any origin may ask.

The official SDK sends what `eth_estimateGas` answers and not a unit more (wire.md §0.7). A node that knows it
exactly knows too little: when another transaction empties an account between the estimate and the block, a
storage word that was to be changed has to be made anew, for 17,100 gas more, and the call runs out. Nodes of
Arbitrum answer with a margin; this door gives any node one. Everything else passes unread.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from sealdeal.model.errors import SealdealError

from .rpc import LOOPBACK, Rpc

BODY_LIMIT: Final = 32 << 20
"""Bytes of a request."""
TRANSFER: Final = 21_000
"""Gas of a bare transfer: it runs no code, and who sends all that he has needs it exact."""
PART: Final = 4
"""The margin is this part of the estimate: a quarter,"""
LEAST: Final = 40_000
"""and enough to make two words anew at least."""


class GasDoor:
    """The ASGI application in front of the node at `url`. Close it."""

    def __init__(self, url: str) -> None:
        self._rpc = Rpc(url)
        self._http = httpx2.AsyncClient(timeout=120.0, trust_env=urlsplit(url).hostname not in LOOPBACK)
        self._url = url
        self._limit: int | None = None
        self.app = Starlette(
            routes=[Route("/", self._answer, methods=["POST"])],
            middleware=[
                Middleware(
                    CORSMiddleware,
                    allow_origins=["*"],
                    allow_methods=["*"],
                    allow_headers=["*"],
                    allow_private_network=True,
                )
            ],
        )

    async def close(self) -> None:
        await self._http.aclose()
        await self._rpc.aclose()

    async def _answer(self, request: Request) -> Response:
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > BODY_LIMIT:
                return _refused(-32600, f"a request may have {BODY_LIMIT} bytes", 413)
        headers = {"Content-Type": "application/json"}
        sent = self._http.build_request("POST", self._url, content=bytes(body), headers=headers)
        try:
            got = await self._http.send(sent, stream=True)
            if b"eth_estimateGas" in body:
                content = await self._with_margins(bytes(body), await got.aread())
                await got.aclose()
                return Response(content, got.status_code, media_type="application/json")
        except httpx2.HTTPError as failed:
            return _refused(-32603, f"the node does not answer ({type(failed).__name__}): try again", 502)

        async def rest() -> AsyncIterator[bytes]:
            try:
                async for piece in got.aiter_bytes():
                    yield piece
            finally:
                await got.aclose()

        return StreamingResponse(rest(), got.status_code, media_type="application/json")

    async def _with_margins(self, asked: bytes, answered: bytes) -> bytes:
        try:
            requests, answers = json.loads(asked), json.loads(answered)
        except (ValueError, RecursionError):
            return answered
        calls = requests if isinstance(requests, list) else [requests]
        estimates = {
            _key(call.get("id")): call.get("params")
            for call in calls
            if isinstance(call, dict) and call.get("method") == "eth_estimateGas"
        }
        for answer in answers if isinstance(answers, list) else [answers]:
            if isinstance(answer, dict) and _key(answer.get("id")) in estimates and "result" in answer:
                params = estimates[_key(answer.get("id"))]
                answer["result"] = await self._padded(answer["result"], params)
        return json.dumps(answers, separators=(",", ":")).encode()

    async def _padded(self, estimate: Any, params: Any) -> Any:
        """`estimate` with its margin, within the block's gas and the caller's own bound."""
        try:
            gas = int(estimate, 16)
            if gas == TRANSFER:
                return estimate
            if self._limit is None:
                block = await self._rpc.call("eth_getBlockByNumber", "latest", False)
                self._limit = int(block["gasLimit"], 16)
            bound = self._limit
            call = params[0] if isinstance(params, list) and params else None
            if isinstance(call, dict) and isinstance(call.get("gas"), str):
                bound = min(bound, int(call["gas"], 16))
        except (ValueError, TypeError, KeyError, SealdealError):
            return estimate
        return hex(max(gas, min(gas + max(gas // PART, LEAST), bound)))


def _key(number: Any) -> str:
    return json.dumps(number)


def _refused(code: int, message: str, status: int) -> JSONResponse:
    return JSONResponse({"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": message}}, status)
