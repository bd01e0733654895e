"""The part of an IPFS node's RPC API (kubo's, `/api/v0`) that its clients store and read content with.

Everything that is added stays: `pin=false` is heard and changes nothing. What would give another CID than the
one a client computes, or ask for what is not done here, is refused by name.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, Callable, Coroutine, Mapping
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.routing import APIRoute

from sealdeal import __version__
from sealdeal.model.cid import CidHasher, block_cid, cid_version, dag_size, directory_block, directory_links
from sealdeal.model.errors import InvalidInput, NotFound, SealdealError, TooLarge
from sealdeal.sdk.results import ADD_LIMIT

from .blobs import BLOCK_LIMIT, Blobs, Stored
from .gateway import check_here, resolve
from .multipart import Multipart, boundary_of, filename_of

ENTRIES = 20_000
"""Files and directories of one form."""
_UNSUPPORTED = frozenset(
    ("trickle", "nocopy", "fscache", "inline", "preserve-mode", "preserve-mtime", "mode", "mtime", "to-files")
)
"""Options of kubo's add that would change the CID, or ask for more than to keep content."""

Query = Mapping[str, str]
Tree = dict[str, "Tree | tuple[str, int]"]
"""A directory: under each name another, or a file's CID and the bytes of its blocks."""


class _Route(APIRoute):
    """Errors have the form that an IPFS node's have."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                return await handle(request)
            except SealdealError as error:
                return JSONResponse({"Message": str(error), "Code": 0, "Type": "error"}, error.status)

        return handled


def kubo_routes(blobs: Blobs) -> APIRouter:
    """`/api/v0/…` of a store."""
    routes = APIRouter(prefix="/api/v0", route_class=_Route)

    @routes.post("/version")
    async def version() -> dict[str, str]:
        return {"Version": f"0.0.0-sealdeal-{__version__}", "Commit": "", "Repo": "0", "System": ""}

    @routes.post("/add")
    async def add(request: Request) -> Response:
        """Every file and directory of the form is stored; one line of JSON for each."""
        query = request.query_params
        version, only_hash = _add_version(query), _flag(query, "only-hash")
        form = Multipart(request.stream(), boundary_of(request.headers.get("content-type", "")))
        lines: list[dict[str, str | int]] = []
        tree: Tree = {}
        async for headers in form.parts():
            path = filename_of(headers)
            if len(lines) >= ENTRIES:
                raise TooLarge(f"a form may have {ENTRIES} files here")
            if "application/x-directory" in headers.lower():
                _folder(tree, path.split("/") if path else [])
                continue
            stored = await (_hashed(form.data(), version) if only_hash else blobs.put(form.data(), version))
            size, path = dag_size(stored.size, version), path or stored.cid
            *folders, name = path.split("/")
            _folder(tree, folders)[name] = (stored.cid, size)
            if _flag(query, "progress"):
                lines.append({"Name": path, "Bytes": stored.size})
            lines.append({"Name": path, "Hash": stored.cid, "Size": str(size)})
        if not tree:
            raise InvalidInput("expected a form with a file, it has none")

        async def fold(folder: Tree, path: str) -> tuple[str, int]:
            entries = {
                name: await fold(entry, f"{path}/{name}".lstrip("/")) if isinstance(entry, dict) else entry
                for name, entry in folder.items()
            }
            block = directory_block(entries)
            if not only_hash:
                await blobs.put_directory(block)
            found = block_cid(block, version), len(block) + sum(size for _, size in entries.values())
            lines.append({"Name": path, "Hash": found[0], "Size": str(found[1])})
            return found

        if _flag(query, "wrap-with-directory"):
            await fold(tree, "")
        else:
            for name, entry in tree.items():
                if isinstance(entry, dict):
                    await fold(entry, name)
        body = "".join(json.dumps(line) + "\n" for line in lines)
        return Response(body, media_type="application/json", headers={"X-Chunked-Output": "1"})

    @routes.post("/block/put")
    async def put_block(request: Request) -> dict[str, Any]:
        """The one dag-pb block of a directory."""
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
            await blobs.put_directory(block)
            return {"Key": block_cid(block, 1), "Size": len(block)}
        raise InvalidInput("expected a form with a block, it has none")

    @routes.post("/block/get")
    async def block_get(request: Request) -> Response:
        """The block of a directory."""
        block = await blobs.directory(await found(request))
        return Response(block, media_type="application/octet-stream")

    @routes.post("/cat")
    async def cat(request: Request) -> Response:
        """A file, or `length` bytes of it from `offset` on."""
        query = request.query_params
        cid = await found(request)
        size = await blobs.size(cid)
        start = min(size, _number(query, "offset", 0))
        stop = min(size, start + _number(query, "length", size))
        return StreamingResponse(blobs.read(cid, start, stop), media_type="text/plain")

    @routes.post("/files/stat")
    async def stat(request: Request) -> dict[str, Any]:
        """What lies at `/ipfs/CID`: a file or a directory, and how large it is."""
        cid = await found(request)
        try:
            size = await blobs.size(cid)
        except NotFound:
            block = await blobs.directory(cid)
            links, total = len(directory_links(block)), len(block)
            return {"Hash": cid, "Size": 0, "CumulativeSize": total, "Blocks": links, "Type": "directory"}
        total = dag_size(size, cid_version(cid))
        return {"Hash": cid, "Size": size, "CumulativeSize": total, "Blocks": 0, "Type": "file"}

    @routes.post("/pin/add")
    async def pin(request: Request) -> dict[str, list[str]]:
        """Whether it is here: what is here stays."""
        cid = await found(request)
        await check_here(blobs, cid)
        return {"Pins": [cid]}

    async def found(request: Request) -> str:
        """The CID that `arg` names: `CID`, `/ipfs/CID`, with a path below it or without."""
        cid, *names = request.query_params.get("arg", "").removeprefix("/ipfs/").strip("/").split("/")
        return await resolve(blobs, cid, names)

    return routes


async def _hashed(pieces: AsyncIterable[bytes], version: int) -> Stored:
    """What `put` would answer."""
    hasher, size = CidHasher(version), 0
    async for piece in pieces:
        hasher.update(piece)
        size += len(piece)
        if size > ADD_LIMIT:
            raise TooLarge(f"a file may have {ADD_LIMIT} bytes here, this one is longer")
    return Stored(hasher.cid(), size)


def _folder(tree: Tree, names: list[str]) -> Tree:
    """The directory of this path, made where it is missing. Raises InvalidInput when a file has its name."""
    for name in names:
        entry = tree.setdefault(name, {})
        if not isinstance(entry, dict):
            raise InvalidInput(f"{name[:100]!r} is a file and a directory in this form")
        tree = entry
    return tree


def _flag(query: Query, name: str) -> bool:
    """A boolean as Go reads it. Raises InvalidInput."""
    said = query.get(name, "false")
    if said.lower() in ("1", "t", "true", ""):
        return True
    if said.lower() in ("0", "f", "false"):
        return False
    raise InvalidInput(f"expected {name} to be true or false, got {said[:40]!r}")


def _number(query: Query, name: str, default: int) -> int:
    said = query.get(name) or str(default)
    if not said.isdecimal() or len(said) > 18:
        raise InvalidInput(f"expected {name} to be a number from 0, got {said[:40]!r}")
    return int(said)


def _add_version(query: Query) -> int:
    """The CID version that kubo's options ask for. Raises InvalidInput for what would give another CID."""
    version = query.get("cid-version", "0") or "0"
    if version not in ("0", "1"):
        raise InvalidInput(f"expected cid-version 0 or 1, got {version[:40]!r}")
    if "raw-leaves" in query and _flag(query, "raw-leaves") != (version == "1"):
        raise InvalidInput("raw leaves go with cid-version=1 and only with it")
    if query.get("hash", "sha2-256") not in ("", "sha2-256"):
        raise InvalidInput("expected hash=sha2-256, the only one here")
    if query.get("chunker", "size-262144") not in ("", "size-262144"):
        raise InvalidInput("expected chunker=size-262144, the only one here")
    for name in _UNSUPPORTED.intersection(query):
        if query[name] not in ("", "false", "0"):
            raise InvalidInput(f"{name}={query[name][:40]} is not supported here")
    return int(version)
