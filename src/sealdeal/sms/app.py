"""A node's routes: the protocol's secrets (wire.md §2), shares, and release to attested guests."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Any

from fastapi import FastAPI, Header, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from sealdeal import __version__
from sealdeal.model.batches import Batch
from sealdeal.model.deals import Assignment
from sealdeal.model.errors import InvalidInput, NotFound, TooLarge
from sealdeal.model.evidence import Evidence, Manifest, TrustClass
from sealdeal.model.sealing import APP_SECRET_NAME, SecretKind, SecretShares
from sealdeal.model.types import Address, address, bytes32, unhex
from sealdeal.sdk.http import answer_errors
from sealdeal.sdk.sms import BatchGrant, NodeInfo, Nonce, NonceRequest, ReleaseRequest, Shared, SimulatedOnly

from .release import Node

BODY_LIMIT = 1 << 20
"""Bytes of any request: evidence with its collateral, in hexadecimal, has most."""
SECRET_BODY_LIMIT = 64 << 10
"""Bytes of a secret's body that are read in order to say, to its owner only, that it is too large."""

Signature = Annotated[str, Header(alias="Authorization")]


def create_app(node: Node, *, unsafe_simulated_public: bool = False) -> FastAPI:
    """The HTTP face of a node. A simulated one answers this machine only, but `unsafe_simulated_public`."""
    app = FastAPI(title="Sealdeal SMS node", version=__version__)
    answer_errors(app)
    app.add_middleware(_Bounded)
    if node.trust is TrustClass.SIMULATED and not unsafe_simulated_public:
        app.add_middleware(_LoopbackOnly)

    @app.get("/version", response_class=PlainTextResponse)
    async def version() -> str:
        return __version__

    @app.get("/actuator/health")
    async def health() -> dict[str, str]:
        return {"status": "UP"}

    @app.get("/node")
    async def info() -> NodeInfo:
        """Who this node is and what it serves."""
        return NodeInfo(
            address=node.address,
            chainId=node.chain_id,
            hub=node.hub.addresses.hub,
            quorum=node.quorum.address,
            trust=node.trust,
            version=__version__,
            confirmations=node.confirmations,
        )

    # --- whole secrets, as on the wire ------------------------------------------------------------

    async def head(kind: SecretKind, subject: str, name: str) -> Response:
        if not await node.holds(kind, address(subject), name):
            raise NotFound(f"no {kind} of {subject} here")
        return Response(status_code=204)

    async def write(
        request: Request, kind: SecretKind, subject: str, name: str, signature: str, update: bool = False
    ) -> Response:
        value = await request.body()
        if len(value) > SECRET_BODY_LIMIT:
            raise TooLarge(f"expected a secret of at most 4096 bytes, got {len(value)}")
        await node.push(kind, address(subject), name, value, signature, update=update)
        return Response(status_code=204)

    @app.head("/secrets/web3", status_code=204)
    async def has_dataset_key(secretAddress: str) -> Response:
        return await head(SecretKind.DATASET_KEY, secretAddress, "")

    @app.post("/secrets/web3", status_code=204)
    async def add_dataset_key(
        request: Request, secretAddress: str, authorization: Signature = ""
    ) -> Response:
        return await write(request, SecretKind.DATASET_KEY, secretAddress, "", authorization)

    @app.head("/secrets/web2", status_code=204)
    async def has_named(ownerAddress: str, secretName: str) -> Response:
        return await head(SecretKind.NAMED, ownerAddress, secretName)

    @app.post("/secrets/web2", status_code=204)
    async def add_named(
        request: Request, ownerAddress: str, secretName: str, authorization: Signature = ""
    ) -> Response:
        return await write(request, SecretKind.NAMED, ownerAddress, secretName, authorization)

    @app.put("/secrets/web2", status_code=204)
    async def replace_named(
        request: Request, ownerAddress: str, secretName: str, authorization: Signature = ""
    ) -> Response:
        return await write(request, SecretKind.NAMED, ownerAddress, secretName, authorization, update=True)

    @app.head("/apps/{app_address}/secrets", status_code=204)
    async def has_app_secret(app_address: str) -> Response:
        return await head(SecretKind.APP_SECRET, app_address, APP_SECRET_NAME)

    @app.post("/apps/{app_address}/secrets", status_code=204)
    async def add_app_secret(request: Request, app_address: str, authorization: Signature = "") -> Response:
        return await write(request, SecretKind.APP_SECRET, app_address, APP_SECRET_NAME, authorization)

    @app.head("/requesters/{requester}/secrets/{key}", status_code=204)
    async def has_requester_secret(requester: str, key: str) -> Response:
        return await head(SecretKind.REQUESTER_SECRET, requester, key)

    @app.post("/requesters/{requester}/secrets/{key}", status_code=204)
    async def add_requester_secret(
        request: Request, requester: str, key: str, authorization: Signature = ""
    ) -> Response:
        try:
            return await write(request, SecretKind.REQUESTER_SECRET, requester, key, authorization)
        except TooLarge as wrong:  # this route alone says 400 (wire.md §2)
            raise InvalidInput(str(wrong)) from None

    # --- ours ---------------------------------------------------------------------------------------

    @app.post("/shares", status_code=204)
    async def share(body: Shared) -> Response:
        """Keep this node's share of a split secret."""
        document = SecretShares.from_json(body.document)
        await node.put_share(document, unhex(body.signature), unhex(body.share))
        return Response(status_code=204)

    @app.post("/tee/nonces")
    async def nonce(body: NonceRequest) -> Nonce:
        """A nonce for the guest of an assignment."""
        place = bytes32(body.dealid), body.index
        return await node.nonce(Assignment.from_json(body.assignment), unhex(body.signature), place)

    @app.post("/tee/releases")
    async def release(body: ReleaseRequest) -> dict[str, Any]:
        """Sealed secrets and a grant for an attested guest."""
        answer = await node.release(
            Assignment.from_json(body.assignment),
            unhex(body.signature),
            manifest=Manifest.from_json(body.manifest),
            evidence=Evidence.from_json(body.evidence),
            hpke_key=bytes32(body.hpkeKey),
            enclave=address(body.enclave),
            nonces=_nonces(body),
            place=(bytes32(body.dealid), body.index),
        )
        return answer.to_json()

    @app.post("/tee/batches")
    async def grant_batch(body: dict[str, Any]) -> BatchGrant:
        """A grant for many tasks of a deal at once, whose enclaves this node granted one by one before."""
        return await node.grant_batch(Batch.from_json(body))

    return app


def _nonces(body: ReleaseRequest) -> list[tuple[Address, bytes]]:
    return [(address(given.node), unhex(given.nonce)) for given in body.nonces]


class _Bounded:
    """Refuses a body over BODY_LIMIT, as soon as it is known to be."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        pieces, size = [], 0
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return None
            pieces.append(message.get("body", b""))
            size += len(pieces[-1])
            if size > BODY_LIMIT:
                refusal = TooLarge(f"expected a body of at most {BODY_LIMIT} bytes, got more")
                return await _answer(refusal, scope, receive, send)
            if not message.get("more_body"):
                break
        whole: Any = {"type": "http.request", "body": b"".join(pieces), "more_body": False}
        told = False

        async def replay() -> Any:
            nonlocal told
            if told:
                return await receive()
            told = True
            return whole

        return await self.app(scope, replay, send)


class _LoopbackOnly:
    """Lets in clients of this machine only, and none that a proxy passes on from elsewhere."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
            passed_on = [*headers.get(b"x-forwarded-for", "").split(","), headers.get(b"x-real-ip", "")]
            # no client: a Unix socket
            clients = [scope["client"][0]] if scope.get("client") else []
            for client in clients + [origin.strip() for origin in passed_on if origin.strip()]:
                if not _loopback(client):
                    refusal = SimulatedOnly(
                        f"this node's TEE is simulated and protects nothing: it answers this machine only, "
                        f"not {client[:60]} (--unsafe-simulated-public lifts that)"
                    )
                    return await _answer(refusal, scope, receive, send)
        return await self.app(scope, receive, send)


def _loopback(client: str) -> bool:
    try:
        found = ipaddress.ip_address(client)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return bool((mapped or found).is_loopback)


async def _answer(error: TooLarge | SimulatedOnly, scope: Scope, receive: Receive, send: Send) -> None:
    await JSONResponse({"error": error.code, "message": str(error)}, error.status)(scope, receive, send)
