"""The result store's routes: the result proxy of wire.md §3.1, and the IPFS node and gateway of §3.2."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any

from fastapi import FastAPI, Header, Request, Response
from fastapi.responses import PlainTextResponse

from sealdeal import __version__
from sealdeal.model.errors import InvalidInput, TooLarge
from sealdeal.model.types import address, bytes32, unhex
from sealdeal.sdk.http import answer_errors
from sealdeal.sdk.results import ARCHIVE_LIMIT, PROOF_LIMIT, UPLOAD_LIMIT, Authorisation

from .gateway import gateway_routes
from .kubo import kubo_routes
from .uploads import Claim, Results, Upload

AUTHORISATION_LIMIT = 16 << 10
"""Bytes of a token request's body: a quorum's blob has 15 signatures at most."""

Token = Annotated[str, Header(alias="Authorization")]


def create_app(results: Results) -> FastAPI:
    """The HTTP face of a result store."""
    app = FastAPI(title="Sealdeal result store", version=__version__)
    answer_errors(app)

    @app.get("/version", response_class=PlainTextResponse)
    async def version() -> str:
        return __version__

    @app.get("/actuator/health")
    async def health() -> dict[str, str]:
        return {"status": "UP"}

    @app.post("/v1/results/token", response_class=PlainTextResponse)
    async def token(request: Request, authorization: Token = "") -> str:
        """A token for the worker named in a WorkerpoolAuthorization, who signs its hash."""
        body = await _body(request, AUTHORISATION_LIMIT)
        return await results.authorise(Authorisation.from_json(_json(body)), unhex(authorization))

    @app.post("/v1/results", response_class=PlainTextResponse)
    async def upload(request: Request, authorization: Token = "") -> str:
        """Store a task's result archive."""
        results.wallet(authorization)  # before the body is taken in: strangers send nothing large
        body = await _body(request, UPLOAD_LIMIT)
        return await results.accept(authorization, await asyncio.to_thread(Upload.parse, body))

    @app.put("/v1/results/{taskid}/archive", response_class=PlainTextResponse)
    async def upload_archive(
        taskid: str, request: Request, digest: str, signature: str = "0x", authorization: Token = ""
    ) -> str:
        """Store a task's result archive of any size: the body is the archive itself."""
        claim = Claim(bytes32(taskid), bytes32(digest), unhex(signature))
        return await results.accept_archive(authorization, claim, request.stream(), limit=ARCHIVE_LIMIT)

    @app.head("/v1/results/{taskid}", status_code=204)
    async def uploaded(taskid: str, authorization: Token = "") -> Response:
        results.wallet(authorization)
        await results.find(bytes32(taskid))
        return Response(status_code=204)

    @app.get("/v1/results/{taskid}/ipfshash", response_class=PlainTextResponse)
    async def ipfshash(taskid: str) -> str:
        return (await results.find(bytes32(taskid))).receipt.cid

    @app.get("/v1/results/{taskid}/receipt")
    async def receipt(taskid: str, worker: str | None = None) -> dict[str, Any]:
        """The store's signed receipt."""
        found = await results.find(bytes32(taskid), address(worker) if worker else None)
        return found.to_json()

    @app.put("/v1/results/{taskid}/proof", status_code=204)
    async def publish_proof(taskid: str, request: Request, authorization: Token = "") -> Response:
        """Publish the attestation bundle of a result, once."""
        results.wallet(authorization)
        await results.publish_proof(authorization, bytes32(taskid), await _body(request, 2 * PROOF_LIMIT))
        return Response(status_code=204)

    @app.get("/v1/results/{taskid}/proof")
    async def proof(taskid: str, worker: str | None = None) -> Response:
        found = await results.proof(bytes32(taskid), address(worker) if worker else None)
        return Response(found, media_type="application/json")

    for routes in (kubo_routes(results.blobs), gateway_routes(results.blobs)):
        app.router.routes.extend(routes.routes)
    return app


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise InvalidInput("expected a JSON body") from None


async def _body(request: Request, limit: int) -> bytes:
    """The request's body, refused as soon as it is known to be over `limit` bytes."""
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise TooLarge(f"the body may have {limit} bytes here")
        chunks.append(chunk)
    return b"".join(chunks)
