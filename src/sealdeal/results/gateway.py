"""The IPFS gateway (wire.md §3.2): content by its CID, whole or a range, and paths through directories."""

from __future__ import annotations

import html
import mimetypes
import re
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from sealdeal.model.cid import directory_links
from sealdeal.model.errors import InvalidInput, NotFound
from sealdeal.sdk.http import error_body

from .blobs import Blobs

DEPTH = 32
"""Directories within each other that a path may name."""
INDEX = "index.html"
RAW = "application/vnd.ipld.raw"


def gateway_routes(blobs: Blobs) -> APIRouter:
    """`/ipfs/…` of a store."""
    routes = APIRouter()

    @routes.head("/ipfs/{cid}")
    @routes.get("/ipfs/{cid}")
    async def root(cid: str, request: Request) -> Response:
        """Content by its CID, whole or a range of it; a directory's list, or its block with `format=raw`."""
        return await _answer(blobs, cid, "", request)

    @routes.head("/ipfs/{cid}/{path:path}")
    @routes.get("/ipfs/{cid}/{path:path}")
    async def below(cid: str, path: str, request: Request) -> Response:
        """What lies under this path in a directory."""
        return await _answer(blobs, cid, path, request)

    return routes


async def _answer(blobs: Blobs, root: str, path: str, request: Request) -> Response:
    names = [name for name in path.split("/") if name]
    cid = await resolve(blobs, root, names)
    headers = {
        "Cache-Control": "public, max-age=29030400, immutable",
        "Etag": f'"{cid}"',
        "X-Ipfs-Path": quote(f"/ipfs/{'/'.join([root, *names])}"),
        "X-Ipfs-Roots": cid,
        # Anyone may add anything: a browser must not run it in this origin's name.
        "Content-Security-Policy": "sandbox",
        "X-Content-Type-Options": "nosniff",
    }
    asked = request.query_params
    if (asked.get("format") or ("raw" if RAW in request.headers.get("accept", "") else "")) == "raw":
        block = await blobs.directory(cid)
        return Response(block, media_type=RAW, headers=headers | {"Etag": f'"{cid}.raw"'})
    if _named(request.headers.get("if-none-match", ""), headers["Etag"]):
        await check_here(blobs, cid)
        return Response(status_code=304, headers=headers)
    try:
        size = await blobs.size(cid)
    except NotFound as missing:
        links = directory_links(await _directory(blobs, cid, missing))
        if INDEX not in links:
            headers["Etag"] = f'"DirIndex-{cid}"'
            page = _listing("/".join([root, *names]), links)
            return Response(page, media_type="text/html", headers=headers)
        cid, names = links[INDEX], [*names, INDEX]
        size = await blobs.size(cid)
    headers["Accept-Ranges"] = "bytes"
    name = asked.get("filename") or (names[-1] if names else "")
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    if asked.get("filename") or asked.get("download") == "true":
        way = "attachment" if asked.get("download") == "true" else "inline"
        headers["Content-Disposition"] = f"{way}; filename*=UTF-8''{quote((name or cid)[:255], safe='')}"
    wanted = request.headers.get("range")
    if wanted and request.headers.get("if-range", headers["Etag"]) != headers["Etag"]:
        wanted = None
    found = byte_range(wanted, size)
    if found is None:
        headers["Content-Range"] = f"bytes */{size}"
        wrong = InvalidInput(f"expected a range within {size} bytes, got {str(wanted)[:100]!r}")
        return JSONResponse(error_body(wrong), 416, headers)
    start, stop = found
    partial = (start, stop) != (0, size)
    if partial:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    headers["Content-Length"] = str(stop - start)
    status = 206 if partial else 200
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=kind)
    return StreamingResponse(blobs.read(cid, start, stop), status, headers=headers, media_type=kind)


async def resolve(blobs: Blobs, cid: str, names: list[str]) -> str:
    """The CID at the end of a path. Raises NotFound."""
    if len(names) > DEPTH:
        raise InvalidInput(f"a path may have {DEPTH} names, this one has {len(names)}")
    for name in names:
        links = directory_links(await blobs.directory(cid))
        if name not in links:
            raise NotFound(f"there is no {name[:100]!r} in directory {cid}")
        cid = links[name]
    return cid


async def check_here(blobs: Blobs, cid: str) -> None:
    """Raises NotFound unless `cid` is a file or a directory of this store."""
    try:
        await blobs.size(cid)
    except NotFound as missing:
        await _directory(blobs, cid, missing)


async def _directory(blobs: Blobs, cid: str, missing: NotFound) -> bytes:
    """The block of a directory, or the error that there is no such file."""
    try:
        return await blobs.directory(cid)
    except NotFound:
        raise missing from None


def _listing(path: str, links: dict[str, str]) -> str:
    rows = "\n".join(
        f'<li><a href="/ipfs/{quote(path)}/{quote(name, safe="")}">{html.escape(name)}</a> <code>{cid}</code>'
        for name, cid in sorted(links.items())
    )
    title = html.escape(f"/ipfs/{path}")
    return f'<!doctype html><meta charset="utf-8"><title>{title}</title><h1>{title}</h1><ul>\n{rows}\n</ul>\n'


def _named(header: str, etag: str) -> bool:
    """Whether If-None-Match names this entity (RFC 9110 §13.1.2: weak comparison)."""
    return header.strip() == "*" or etag in [
        one.strip().removeprefix("W/") for one in header[:4096].split(",")
    ]


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
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
