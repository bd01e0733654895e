"""HTTP between the parts: the base of every client, and the one place that maps errors to HTTP.

A service raises a `SealdealError`; its client raises the same class again. On the wire an error is
`{"error": text, "code": code}` with the class's status: the iExec SDK shows its users what `error` says. The
marketplace speaks its own dialect (`{"ok": false, "error": text}`, wire.md §1), which clients read as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
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


class Failover(Transport):
    """To one of several equal services: to the same one until it takes no connection, then to the next."""

    def __init__(self, urls: Sequence[str], patience: float = 0.0) -> None:
        """`urls`: without paths; requests may be made to any of them. `patience`: seconds for which all
        of them are tried again, as while one that stopped is started again.
        """
        self._urls, self._at, self._patience = [httpx2.URL(url) for url in urls], 0, patience
        self._inner = httpx2.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        clock = asyncio.get_running_loop().time
        refusals, until = 0, clock() + self._patience
        while True:
            there = self._urls[self._at]
            request.url = request.url.copy_with(scheme=there.scheme, host=there.host, port=there.port)
            request.headers["Host"] = there.netloc.decode("ascii")
            try:
                return await self._inner.handle_async_request(request)
            except (httpx2.ConnectError, httpx2.ConnectTimeout):  # nothing was sent
                self._at = (self._at + 1) % len(self._urls)
                refusals += 1
                if refusals >= len(self._urls) and clock() > until:
                    raise
            if refusals % len(self._urls) == 0:
                await asyncio.sleep(0.5)

    async def aclose(self) -> None:
        await self._inner.aclose()


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
    code, text = str(body.get("code", "")), body.get("error") or body.get("Message")  # as IPFS nodes say
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


def error_body(error: SealdealError) -> dict[str, str]:
    """What is answered in place of a result."""
    return {"error": str(error), "code": error.code}


def answer_errors(app: FastAPI) -> None:
    """Make `app` answer errors as this module says, and let browsers of any origin call it (wire.md §0)."""
    # imported here: commands are clients, and start in half the time without the servers' framework
    from fastapi.exceptions import RequestValidationError
    from fastapi.middleware.cors import CORSMiddleware
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import JSONResponse

    @app.exception_handler(SealdealError)
    async def refused(_: Request, error: SealdealError) -> JSONResponse:
        wait = {"Retry-After": str(error.retry_after)} if isinstance(error, RateLimited) else None
        return JSONResponse(error_body(error), error.status, headers=wait)

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, error: RequestValidationError) -> JSONResponse:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        return JSONResponse(error_body(InvalidInput(wrong)), InvalidInput.status)

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> JSONResponse:
        names = {400: "InvalidInput", 404: "NotFound", 405: "InvalidInput"}
        body = {"error": str(error.detail), "code": names.get(error.status_code, "SealdealError")}
        return JSONResponse(body, error.status_code, headers=error.headers)

    app.add_middleware(
        CORSMiddleware,
        allow_origins=["*"],
        allow_methods=["*"],
        allow_headers=["*"],
        expose_headers=["*"],  # a range's place, an entity's tag, how long to wait
        allow_private_network=True,  # pages of the web call services on their user's machine
    )
