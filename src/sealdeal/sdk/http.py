"""HTTP between the parts: the base of every client, and the one place that maps errors to HTTP.

A service raises a `SealdealError`; its client raises the same class again. On the wire an error is
`{"error": code, "message": text}` with the class's status; the marketplace speaks its own dialect
(`{"ok": false, "error": text}`, wire.md §1), which clients read as well.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, Self

import httpx2
import pydantic

from sealdeal.model.errors import InvalidInput, RateLimited, SealdealError, TooLarge, Unavailable

if TYPE_CHECKING:
    from fastapi import FastAPI

Transport = httpx2.AsyncBaseTransport


class Message(pydantic.BaseModel):
    """Base of the JSON bodies that the parts exchange: frozen, and unknown members are refused."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


def in_memory(app: Any) -> Transport:
    """A transport to a service in this process. Answers are buffered whole: streams want a socket."""
    return httpx2.ASGITransport(app=app)


class Client:
    """A connection to one service, by URL or in memory. Close it, or use it as an async context."""

    def __init__(self, base_url: str, transport: Transport | None = None, timeout: float = 30.0) -> None:
        """`timeout`: seconds without progress after which Unavailable is raised."""
        self.base_url = base_url.rstrip("/")
        self._http = httpx2.AsyncClient(base_url=self.base_url, transport=transport, timeout=timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def request(self, method: str, path: str, **options: Any) -> httpx2.Response:
        """One request; options are httpx's (params, json, content, headers, timeout).

        Raises the service's own error, or Unavailable when it does not answer.
        """
        try:
            response = await self._http.request(method, path, **options)
        except httpx2.HTTPError as failed:
            raise self._unavailable(failed) from None
        if response.is_error:
            raise error_of(response, self.base_url)
        return response

    async def json(self, method: str, path: str, **options: Any) -> Any:
        """`request`, and the JSON value of its answer."""
        return (await self.request(method, path, **options)).json()

    async def exchange(self, method: str, path: str, *, limit: int, **options: Any) -> tuple[int, bytes]:
        """One request whose answer is passed on, whatever it is: (status, body).

        Raises TooLarge for a body of more than `limit` bytes, Unavailable when there is no answer.
        """
        try:
            async with self._http.stream(method, path, **options) as response:
                body = bytearray()
                async for piece in response.aiter_bytes():
                    body += piece
                    if len(body) > limit:
                        raise TooLarge(f"{self.base_url}{path} answers with more than {limit} bytes")
                return response.status_code, bytes(body)
        except httpx2.HTTPError as failed:
            raise self._unavailable(failed) from None

    async def stream(self, path: str, **options: Any) -> AsyncIterator[bytes]:
        """The body of a GET, piece by piece. Raises as `request` does, and for a redirection too."""
        try:
            async with self._http.stream("GET", path, **options) as response:
                if not response.is_success:
                    await response.aread()
                    raise error_of(response, self.base_url)
                async for piece in response.aiter_bytes():
                    yield piece
        except httpx2.HTTPError as failed:
            raise self._unavailable(failed) from None

    def _unavailable(self, failed: Exception) -> Unavailable:
        return Unavailable(
            f"{self.base_url} does not answer ({type(failed).__name__}: {failed}); is it running?"
        )


def _classes(root: type[SealdealError] = SealdealError) -> dict[str, type[SealdealError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found |= _classes(child)
    return found


def error_of(response: httpx2.Response, where: str) -> SealdealError:
    """The error that an answer with an error status stands for."""
    try:
        body = response.json()
    except ValueError:
        body = None
    body = body if isinstance(body, Mapping) else {}
    code, text = str(body.get("error", "")), body.get("message") or body.get("error")
    known = _classes()
    chosen = known.get(code) or next(
        (c for c in known.values() if c.status == response.status_code), SealdealError
    )
    message = (
        str(text) if text else f"{where} answered {response.status_code}: {response.text[:200] or 'no body'}"
    )
    try:
        return chosen(message)
    except TypeError:  # a class that wants more than a message
        return SealdealError(message)


def answer_errors(app: FastAPI) -> None:
    """Make `app` answer errors as this module says, and let browsers of any origin call it (wire.md §0)."""
    # imported here: commands are clients, and start in half the time without the servers' framework
    from fastapi.exceptions import RequestValidationError
    from fastapi.middleware.cors import CORSMiddleware
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import JSONResponse, Response

    @app.exception_handler(SealdealError)
    async def refused(_: Request, error: SealdealError) -> JSONResponse:
        wait = {"Retry-After": str(error.retry_after)} if isinstance(error, RateLimited) else None
        return JSONResponse({"error": error.code, "message": str(error)}, error.status, headers=wait)

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, error: RequestValidationError) -> JSONResponse:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        return JSONResponse(
            {"error": InvalidInput.code, "message": str(InvalidInput(wrong))}, InvalidInput.status
        )

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, __: ClientDisconnect) -> Response:
        return Response(status_code=400)  # nobody hears it; whoever goes away is no error in our log

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> JSONResponse:
        names = {400: "InvalidInput", 404: "NotFound", 405: "InvalidInput"}
        body = {"error": names.get(error.status_code, "SealdealError"), "message": str(error.detail)}
        return JSONResponse(body, error.status_code, headers=error.headers)

    app.add_middleware(
        CORSMiddleware,
        allow_origins=["*"],
        allow_methods=["*"],
        allow_headers=["*"],
        allow_private_network=True,  # pages of the web call services on their user's machine
    )
