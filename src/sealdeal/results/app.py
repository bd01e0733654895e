"""The result store's routes: the result proxy of wire.md §3.1, and the IPFS node and gateway of §3.2."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Annotated, Any

from fastapi import FastAPI, Header, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse

from sealdeal import __version__
from sealdeal.model.cid import block_cid, directory_links
from sealdeal.model.errors import InvalidInput, NotFound, TooLarge
from sealdeal.model.types import address, bytes32, unhex
from sealdeal.sdk.http import answer_errors
from sealdeal.sdk.results import ADD_LIMIT, ARCHIVE_LIMIT, PROOF_LIMIT, UPLOAD_LIMIT, Authorisation

from .blobs import BLOCK_LIMIT
from .multipart import Multipart, boundary_of, filename_of
from .uploads import Claim, Results, Upload

AUTHORISATION_LIMIT = 16 << 10
"""Bytes of a token request's body: a quorum's blob has 15 signatures at most."""

_UNSUPPORTED = {"wrap-with-directory": ("", "false"), "trickle": ("", "false"), "only-hash": ("", "false")}
"""Options of kubo's add that would change the CID or keep nothing, and the values that do not."""

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
        return (await results.find(bytes32(taskid))).receipt.receipt.cid

    @app.get("/v1/results/{taskid}/receipt")
    async def receipt(taskid: str, worker: str | None = None) -> dict[str, Any]:
        """The store's signed receipt."""
        found = await results.find(bytes32(taskid), address(worker) if worker else None)
        return found.receipt.to_json()

    @app.put("/v1/results/{taskid}/proof", status_code=204)
    async def publish_proof(taskid: str, request: Request, authorization: Token = "") -> Response:
        """Publish the attestation bundle of a result, once."""
        results.wallet(authorization)
        await results.publish_proof(authorization, bytes32(taskid), await _body(request, 2 * PROOF_LIMIT))
        return Response(status_code=204)

    @app.get("/v1/results/{taskid}/proof")
    async def proof(taskid: str, worker: str | None = None) -> Response:
        found = await results.find(bytes32(taskid), address(worker) if worker else None)
        if found.proof is None:
            return JSONResponse({"error": "NotFound", "message": "no proof was published for this task"}, 404)
        return Response(found.proof, media_type="application/json")

    @app.post("/api/v0/add")
    async def add(request: Request) -> Response:
        """kubo's add: every file of the form is stored; one line of JSON for each."""
        version = _add_version(dict(request.query_params))
        form = Multipart(request.stream(), boundary_of(request.headers.get("content-type", "")))
        lines = []
        async for headers in form.parts():
            if "application/x-directory" in headers.lower():
                raise InvalidInput("expected files: folders are not stored here, add a zip of it")
            stored = await results.blobs.put(form.data(), version, limit=ADD_LIMIT)
            name = filename_of(headers) or stored.cid
            lines.append(json.dumps({"Name": name, "Hash": stored.cid, "Size": str(stored.size)}))
        if not lines:
            raise InvalidInput("expected a form with a file, it has none")
        return Response("\n".join(lines) + "\n", media_type="application/json")

    @app.post("/api/v0/block/put")
    async def put_block(request: Request) -> dict[str, Any]:
        """kubo's block/put, for directories: their one dag-pb block."""
        if request.query_params.get("cid-codec") != "dag-pb":
            raise InvalidInput(
                "expected cid-codec=dag-pb: blocks of directories are stored here, and no others"
            )
        form = Multipart(request.stream(), boundary_of(request.headers.get("content-type", "")))
        async for _ in form.parts():
            block = b""
            async for piece in form.data():
                block += piece
                if len(block) > BLOCK_LIMIT:
                    raise TooLarge(f"a block may have {BLOCK_LIMIT} bytes here")
            await results.blobs.put_directory(block)
            return {"Key": block_cid(block, 1), "Size": len(block)}
        raise InvalidInput("expected a form with a block, it has none")

    @app.head("/ipfs/{cid}", operation_id="head_content")
    @app.get("/ipfs/{cid}")
    async def gateway(cid: str, request: Request) -> Response:
        """Content by its CID, whole or a range of it; of a directory its block, with `format=raw`."""
        if request.query_params.get("format") == "raw":
            block = await results.blobs.directory(cid)
            headers = {"X-Content-Type-Options": "nosniff"}
            return Response(block, media_type="application/vnd.ipld.raw", headers=headers)
        return await content(cid, f"/ipfs/{cid}", request)

    @app.head("/ipfs/{cid}/{name}", operation_id="head_in_directory")
    @app.get("/ipfs/{cid}/{name}")
    async def in_directory(cid: str, name: str, request: Request) -> Response:
        """The content of this name in a directory."""
        links = directory_links(await results.blobs.directory(cid))
        if name not in links:
            raise NotFound(f"there is no {name[:100]!r} in directory {cid}")
        return await content(links[name], f"/ipfs/{cid}/{name}", request)

    async def content(cid: str, path: str, request: Request) -> Response:
        size = await results.blobs.size(cid)
        headers = {
            "Accept-Ranges": "bytes",
            "Cache-Control": "public, max-age=29030400, immutable",
            "Etag": f'"{cid}"',
            "X-Ipfs-Path": path,
            # Anyone may add anything: a browser must not run it in this origin's name.
            "Content-Security-Policy": "sandbox",
            "X-Content-Type-Options": "nosniff",
        }
        if request.headers.get("if-none-match") == headers["Etag"]:
            return Response(status_code=304, headers=headers)
        found = _range(request.headers.get("range"), size)
        if found is None:
            headers["Content-Range"] = f"bytes */{size}"
            message = f"expected a range within {size} bytes, got {request.headers['range'][:100]!r}"
            return JSONResponse({"error": "InvalidInput", "message": message}, 416, headers)
        start, stop = found
        partial = (start, stop) != (0, size)
        if partial:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        headers["Content-Length"] = str(stop - start)
        kind, status = "application/octet-stream", 206 if partial else 200
        if request.method == "HEAD":
            return Response(status_code=status, headers=headers, media_type=kind)
        body = results.blobs.read(cid, start, stop)
        return StreamingResponse(body, status_code=status, headers=headers, media_type=kind)

    return app


def _range(header: str | None, size: int) -> tuple[int, int] | None:
    """First and past-the-last byte of a single range (RFC 9110 §14); None when it can't be satisfied.

    Other units, several ranges and malformed ones are ignored, as the RFC allows: the whole is sent.
    """
    found = re.fullmatch(r"bytes=\s*(\d{0,18})-(\d{0,18})\s*", header or "")
    if not found or (not found[1] and not found[2]):
        return 0, size
    if not found[1]:  # the last n bytes
        return (max(0, size - int(found[2])), size) if int(found[2]) and size else None
    start = int(found[1])
    stop = min(size, int(found[2]) + 1) if found[2] else size
    if found[2] and int(found[2]) < start:
        return 0, size
    return (start, stop) if start < size else None


def _add_version(query: dict[str, str]) -> int:
    """The CID version that kubo's options ask for. Raises InvalidInput for what would give another CID."""
    version = query.get("cid-version", "0") or "0"
    if version not in ("0", "1"):
        raise InvalidInput(f"expected cid-version 0 or 1, got {version!r}")
    if query.get("raw-leaves", "") not in ("", "true" if version == "1" else "false"):
        raise InvalidInput("raw leaves go with cid-version=1 and only with it")
    if query.get("hash", "sha2-256") not in ("", "sha2-256"):
        raise InvalidInput("expected hash=sha2-256, the only one here")
    if query.get("chunker", "size-262144") not in ("", "size-262144"):
        raise InvalidInput("expected chunker=size-262144, the only one here")
    for name, allowed in _UNSUPPORTED.items():
        if query.get(name, "") not in allowed:
            raise InvalidInput(f"{name}={query[name]} is not supported here")
    return int(version)


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
