"""A node's routes: the protocol's secrets (wire.md §2), shares, and release to attested guests."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import FastAPI, Query, Response
from fastapi.responses import PlainTextResponse

from sealdeal import __version__
from sealdeal.model.batches import Batch
from sealdeal.model.bulk import Documents
from sealdeal.model.deals import Assignment
from sealdeal.model.errors import InvalidInput
from sealdeal.model.evidence import Evidence, Manifest, TrustClass
from sealdeal.model.sealing import Door, Revocation, SecretKind, SecretShares
from sealdeal.model.types import Address, address, bytes32, unhex
from sealdeal.sdk.http import answer_errors
from sealdeal.sdk.sms import (
    AuditTrail,
    BatchGrant,
    Named,
    NodeInfo,
    Nonce,
    NonceRequest,
    ReleaseRequest,
    Revoked,
    Shared,
    ShareInfo,
    SimulatedOnly,
)

from .release import Node
from .wire import Bounded, LoopbackOnly, Signature, add_secret_routes

Line = Annotated[int, Query(ge=0, lt=2**63)]


def create_app(node: Node, *, unsafe_simulated_public: bool = False) -> FastAPI:
    """The HTTP face of a node. A simulated one answers this machine only, but `unsafe_simulated_public`."""
    owners = node.owners
    app = FastAPI(title="Sealdeal SMS node", version=__version__)
    answer_errors(app)
    app.add_middleware(Bounded)
    if node.trust is TrustClass.SIMULATED and not unsafe_simulated_public:
        why = (
            "this node's TEE is simulated and protects nothing (--unsafe-simulated-public lifts that): "
            "it answers this machine only"
        )
        app.add_middleware(LoopbackOnly, error=SimulatedOnly, why=why)

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
            door=owners.door,
        )

    add_secret_routes(app, owners.holds, owners.push)

    # --- ours ---------------------------------------------------------------------------------------

    @app.post("/shares", status_code=204)
    async def share(body: Shared) -> Response:
        """Keep this node's share of a split secret."""
        await owners.put_share(
            SecretShares.from_json(body.document),
            unhex(body.signature),
            unhex(body.share),
            _door(body.door),
        )
        return Response(status_code=204)

    @app.get("/shares")
    async def share_info(kind: SecretKind, subject: str, name: str = "") -> ShareInfo:
        """What this node says of a secret, to anyone."""
        return await owners.info(kind, address(subject), name)

    @app.post("/named", status_code=204)
    async def named(body: Named) -> Response:
        """Keep a named value here, in place of what is there: nodes copy what was pushed to one of them."""
        await owners.put_named(address(body.owner), body.name, body.value.encode(), body.signature)
        return Response(status_code=204)

    @app.post("/revocations")
    async def revoke(body: Revoked) -> Revoked:
        """Close a secret for deals made later."""
        since = await owners.revoke(Revocation.from_json(body.revocation), unhex(body.signature))
        return body.model_copy(update={"revokedAt": since})

    @app.get("/audit")
    async def audit(
        kind: SecretKind, subject: str, name: str = "", after: Line = 0, authorization: Signature = ""
    ) -> AuditTrail:
        """Who got a secret from this node, for its owner."""
        return await owners.audit(kind, address(subject), name, after, authorization)

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
            bulk=Documents.from_json(body.bulk) if body.bulk else None,
        )
        return answer.to_json()

    @app.post("/tee/batches")
    async def grant_batch(body: dict[str, Any]) -> BatchGrant:
        """A grant for many tasks of a deal at once, whose enclaves this node granted one by one before."""
        return await node.grant_batch(Batch.from_json(body))

    return app


def _door(text: str) -> Door:
    try:
        return Door(text)
    except ValueError:
        raise InvalidInput(f"expected a door ({', '.join(Door)}), got {text[:40]!r}") from None


def _nonces(body: ReleaseRequest) -> list[tuple[Address, bytes]]:
    return [(address(given.node), unhex(given.nonce)) for given in body.nonces]
