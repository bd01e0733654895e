"""SMS nodes: their messages, why they refuse, and their typed client. The owner's side is in `secrets`.

The protocol's routes (wire.md §2) take whole secrets as text; ours take shares, and
release to attested guests.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import quote

import pydantic

from sealdeal.model.batches import Batch
from sealdeal.model.bulk import Documents
from sealdeal.model.deals import Assignment
from sealdeal.model.errors import (
    BadSignature,
    Conflict,
    Forbidden,
    InvalidInput,
    NotFound,
    SecretRefused,
    Unavailable,
)
from sealdeal.model.evidence import Evidence, Manifest, canonical_json
from sealdeal.model.keys import Key, recover_message
from sealdeal.model.release import Release
from sealdeal.model.sealing import (
    APP_SECRET_NAME,
    AUDIT_SECONDS,
    Door,
    Revocation,
    SecretKind,
    SecretShares,
    audit_challenge,
    owner_challenge,
)
from sealdeal.model.types import ZERO32, Address, Bytes32, hexstr, keccak, unhex

from .http import Client, Message

RESULT_KEY_NAME = "iexec-result-encryption-public-key"
"""The named secret that is a beneficiary's public key (wire.md §2)."""

# --- why a node refuses ---------------------------------------------------------------------------


class NotFinalYet(Unavailable):
    """The task is on chain, but not as deep as this node requires: wait for blocks and ask again."""


class TaskNotActive(SecretRefused):
    """Secrets leave only for a task that waits for its result."""

    status = 409


class DeadlinePassed(SecretRefused):
    """The task's, or the assignment's, time is over."""

    status = 409


class AssignmentRefused(SecretRefused):
    """The assignment is not one that the deal's workerpool owner signed."""


class NotTeeDeal(SecretRefused):
    """The deal does not ask for a TEE: it gets neither secrets nor grants."""


class ManifestDiffers(SecretRefused):
    """The guest was told something else than the chain says; the message names the fields."""


class NonceRefused(SecretRefused):
    """The nonce is not this node's, is for another task, has expired or was spent: ask for a new one."""


class AttemptTaken(SecretRefused):
    """This attempt at the task has an enclave already; an attempt has one."""

    status = 409


class TooManyAttempts(SecretRefused):
    """The task has had all the attempts it may have."""

    status = 409


class BatchRefused(SecretRefused):
    """A batch has a task whose worker and enclave this node never granted; the message names the tasks."""


class NotInQuorum(SecretRefused):
    """This node is no member of the hub's quorum: its grant would not count."""


class SecretRevoked(SecretRefused):
    """Its owner revoked the secret before this deal was made: the owner has to share it anew."""


class SecretExpired(SecretRefused):
    """The deal was made after the end that its owner set: the owner has to share it anew."""


class WholeRefused(Forbidden):
    """This node takes shares only: split the secret where its owner is (`sealdeal secret gateway`)."""


class ChainDisputed(Unavailable):
    """The chain and the witness that a node reads disagree, or one of them is held back: nothing leaves."""


class ClockBehind(Unavailable):
    """The node's clock is behind the chain's: nothing leaves before its operator has set it."""


class SimulatedOnly(Forbidden):
    """A node of a simulated network answers this machine alone: it protects nothing."""


# --- messages -------------------------------------------------------------------------------------


class NodeInfo(Message):
    """`GET /node`."""

    address: Address
    """The node's key: it signs grants and answers with it."""
    chainId: int
    hub: Address
    quorum: Address
    trust: str
    """`hardware` or `simulated`."""
    version: str
    confirmations: int
    """Blocks on top of a deal and its task before anything leaves."""
    door: str = Door.SINGLE.value
    """What becomes of a whole secret: `split` among all nodes, kept here (`single`), or refused (`own`)."""


class Shared(Message):
    """`POST /shares`: one node's share of a split secret."""

    document: dict[str, Any]
    """`SecretShares`."""
    signature: str
    """Of the document, on `secrets_domain`. Door `own`: the owner's. Door `split`: the personal signature of
    `vouch_challenge` by the node that made the shares."""
    share: str
    door: str = Door.OWN.value
    """Who split it: `own`, its owner; `split`, a node that it was pushed to."""


class ShareInfo(Message):
    """`GET /shares?kind=&subject=&name=`: what a node says of a secret, to anyone; nothing of its value."""

    node: Address
    kind: str
    subject: Address
    name: str
    door: str
    formerly: str
    """`split` when an owner's share took the place of one that a node had made: that node saw the secret."""
    version: int
    documentHash: str
    """Struct hash of the `SecretShares`: equal where shares match; zero for a whole secret."""
    threshold: int
    """How many shares recombine it; 1 for a whole secret."""
    nodes: list[Address]
    """Who should hold a share; this node alone for a whole secret."""
    storedAt: int
    """Unix time by the node's clock."""
    expires: int
    """Deals made then or later get nothing; 0: never."""
    revokedAt: int
    """The same by a revocation; 0: not revoked."""


class Named(Message):
    """`POST /named`: a named value for this node alone, in place of what is there."""

    owner: Address
    name: str
    value: str
    """Text."""
    signature: str
    """The owner's, of `owner_challenge`."""


class Revoked(Message):
    """`POST /revocations`, and the answer."""

    revocation: dict[str, Any]
    """`Revocation`."""
    signature: str
    """The owner's, of the revocation, on `secrets_domain`."""
    revokedAt: int = 0
    """In the answer: the chain time from which the node counts."""


class AuditLine(Message):
    """One time that a secret, or a share of it, left a node."""

    id: int
    """Rises from line to line, not always by one."""
    time: int
    """Unix time by the node's clock."""
    task: str
    deal: str
    app: Address
    appChecksum: str
    worker: Address
    attempt: int
    enclave: Address
    platform: str
    """Platform id of the evidence."""
    measurement: dict[str, str]
    """Register -> 0x hexadecimal."""
    version: int
    door: str


class AuditTrail(Message):
    """`GET /audit?kind=&subject=&name=[&after=]`; the Authorization header signs `audit_challenge`."""

    node: Address
    kind: str
    subject: Address
    name: str
    after: int
    """The id that the lines come after."""
    lines: list[AuditLine]
    more: bool
    """Whether there are lines beyond these: ask again, `after` the last id."""
    time: int
    """Unix time by the node's clock."""
    signature: str = "0x"
    """The node's personal signature of `digest`."""

    def digest(self) -> Bytes32:
        """keccak("sealdeal audit trail 1" ‖ canonical JSON of everything but the signature)."""
        return keccak(b"sealdeal audit trail 1" + canonical_json(self.model_dump(exclude={"signature"})))


class Assigned(Message):
    """An assignment, and where its task lies."""

    assignment: dict[str, Any]
    signature: str
    """The workerpool owner's, on `pool_domain`."""
    dealid: str = hexstr(ZERO32)
    """The task's deal: a task that has not begun can't be found by its id."""
    index: Annotated[int, pydantic.Field(ge=0, lt=2**256)] = 0
    """The task's, in its request."""


class NonceRequest(Assigned):
    """`POST /tee/nonces`."""


class Nonce(Message):
    """What a node gives for a true assignment."""

    node: Address
    nonce: str
    """0x hexadecimal, to be put into the report data."""
    expires: int
    """Unix time by the node's clock."""
    beneficiaryKey: str
    """Key text for the result; empty when the deal does not ask for encryption, or the node has none."""


class NodeNonce(Message):
    """One of the nonces that the report data covers."""

    node: Address
    nonce: str


class BatchGrant(Message):
    """What a node answers to `POST /tee/batches`."""

    node: Address
    validUntil: int
    """Chain time in seconds: the deal's contribution deadline."""
    signature: str
    """The node's, of `Grant` on the quorum's domain."""


class ReleaseRequest(Assigned):
    """`POST /tee/releases`; the answer is a `model.release.Release`."""

    manifest: dict[str, Any]
    evidence: dict[str, Any]
    hpkeKey: str
    enclave: str
    nonces: list[NodeNonce]
    bulk: dict[str, str] | None = None
    """`model.bulk.Documents` of the task's slice, when its deal names a bulk."""


# --- client ---------------------------------------------------------------------------------------


class SmsClient(Client):
    """One SMS node, by URL or in memory."""

    async def node(self) -> NodeInfo:
        """Who it is and what it serves."""
        return NodeInfo.model_validate(await self.json("GET", "/node"))

    async def version(self) -> str:
        return (await self.request("GET", "/version")).text

    async def has_secret(self, kind: str, subject: Address, name: str = "") -> bool:
        """Whether the node holds this secret, whole or a share of it."""
        path, query = _route(kind, subject, name)
        try:
            await self.request("HEAD", path, params=query)
        except NotFound:
            return False
        return True

    async def push(
        self, kind: str, owner: Key, subject: Address, name: str, value: str, *, update: bool = False
    ) -> None:
        """Give this one node a whole secret, which it can read (door `single`). `update` replaces one.

        Raises Unauthorized unless `owner` owns `subject`, TooLarge over 4096 bytes, Conflict if it is there.
        """
        path, query = _route(kind, subject, name)
        signed = owner.sign_message(owner_challenge(kind, subject, name, value.encode()))
        headers = {"Authorization": hexstr(signed), "Content-Type": "text/plain; charset=utf-8"}
        method = "PUT" if update else "POST"
        await self.request(method, path, params=query, headers=headers, content=value.encode())

    async def push_dataset_key(self, owner: Key, dataset: Address, key: str) -> None:
        """Give this node a dataset's whole key, for ever; `secrets.split_to_nodes` keeps it from any one."""
        await self.push(SecretKind.DATASET_KEY, owner, dataset, "", key)

    async def push_app_secret(self, owner: Key, app: Address, value: str) -> None:
        """Give this node an app's secret, for ever."""
        await self.push(SecretKind.APP_SECRET, owner, app, APP_SECRET_NAME, value)

    async def push_requester_secret(self, requester: Key, name: str, value: str) -> None:
        """Give this node a requester's secret, for ever."""
        await self.push(SecretKind.REQUESTER_SECRET, requester, requester.address, name, value)

    async def push_named_secret(self, owner: Key, name: str, value: str) -> None:
        """Set or replace a named value, such as a public key for results (`RESULT_KEY_NAME`)."""
        try:
            await self.push(SecretKind.NAMED, owner, owner.address, name, value)
        except Conflict:
            await self.push(SecretKind.NAMED, owner, owner.address, name, value, update=True)

    async def put_named(self, owner: Address, name: str, value: bytes, signature: bytes) -> None:
        """Set or replace a named value at this node alone. `signature`: the owner's, as `push` makes it."""
        body = Named(owner=owner, name=name, value=value.decode(), signature=hexstr(signature))
        await self.request("POST", "/named", json=body.model_dump())

    async def post_share(
        self,
        document: SecretShares,
        signature: bytes,
        share: bytes,
        *,
        door: Door = Door.OWN,
    ) -> None:
        """Give this node its share. The same again is fine; Conflict when it holds another secret there."""
        body = Shared(
            document=document.to_json(),
            signature=hexstr(signature),
            share=hexstr(share),
            door=door,
        )
        await self.request("POST", "/shares", json=body.model_dump())

    async def share_info(self, kind: str, subject: Address, name: str = "") -> ShareInfo:
        """What the node holds under a name, for anyone to see. Raises NotFound."""
        query = {"kind": str(kind), "subject": subject, "name": name}
        return ShareInfo.model_validate(await self.json("GET", "/shares", params=query))

    async def revoke(self, revocation: Revocation, signature: bytes) -> int:
        """Close a secret for deals made later; the chain time from which this node counts.

        The same again is fine. Raises Unauthorized unless its owner signed, NotFound when the node holds
        nothing under that name.
        """
        body = Revoked(revocation=revocation.to_json(), signature=hexstr(signature))
        answer = await self.json("POST", "/revocations", json=body.model_dump())
        return Revoked.model_validate(answer).revokedAt

    async def audit(
        self,
        owner: Key,
        kind: str,
        subject: Address,
        name: str = "",
        *,
        after: int = 0,
        now: float | None = None,
    ) -> AuditTrail:
        """Who got the secret from this node, oldest first; lines come some hundred at a time (`more`).

        `now`: unix time by the caller's clock. Raises Unauthorized unless `owner` owns `subject`,
        BadSignature when the answer is not signed by the node that `node()` names.
        """
        node = (await self.node()).address
        period = int(time.time() if now is None else now) // AUDIT_SECONDS
        signed = owner.sign_message(audit_challenge(node, kind, subject, name, period))
        query = {"kind": str(kind), "subject": subject, "name": name, "after": str(after)}
        answer = await self.json("GET", "/audit", params=query, headers={"Authorization": hexstr(signed)})
        trail = AuditTrail.model_validate(answer)
        asked = (node, str(kind), subject, name, after)
        if (trail.node, trail.kind, trail.subject, trail.name, trail.after) != asked:
            raise BadSignature(f"node {node} answered for another secret than the one asked about")
        if recover_message(trail.digest(), unhex(trail.signature)) != node:
            raise BadSignature(f"node {node}: its audit is not signed by its key")
        return trail

    async def nonces(
        self, assignment: Assignment, signature: bytes, place: tuple[bytes, int] = (ZERO32, 0)
    ) -> Nonce:
        """A nonce for the guest of this assignment. `place`: (dealid, index) of a task that has not begun."""
        dealid, index = hexstr(place[0]), place[1]
        body = NonceRequest(
            assignment=assignment.to_json(), signature=hexstr(signature), dealid=dealid, index=index
        )
        return Nonce.model_validate(await self.json("POST", "/tee/nonces", json=body.model_dump()))

    async def releases(
        self,
        assignment: Assignment,
        signature: bytes,
        *,
        manifest: Manifest,
        evidence: Evidence,
        hpke_key: bytes,
        enclave: Address,
        nonces: Mapping[Address, bytes],
        place: tuple[bytes, int] = (ZERO32, 0),
        bulk: Documents | None = None,
    ) -> Release:
        """Sealed secrets and a grant, for a guest whose evidence convinces the node. `gather` checks them."""
        body = ReleaseRequest(
            dealid=hexstr(place[0]),
            index=place[1],
            assignment=assignment.to_json(),
            signature=hexstr(signature),
            manifest=manifest.to_json(),
            evidence=evidence.to_json(),
            hpkeKey=hexstr(hpke_key),
            enclave=enclave,
            nonces=[NodeNonce(node=node, nonce=hexstr(nonce)) for node, nonce in nonces.items()],
            bulk=bulk.to_json() if bulk else None,
        )
        return Release.from_json(await self.json("POST", "/tee/releases", json=body.model_dump()))

    async def grant_batch(self, batch: Batch) -> BatchGrant:
        """The node's word for a batch. Raises BatchRefused unless it granted each of its leaves before."""
        return BatchGrant.model_validate(await self.json("POST", "/tee/batches", json=batch.to_json()))


def _route(kind: str, subject: Address, name: str) -> tuple[str, dict[str, str]]:
    match kind:
        case SecretKind.DATASET_KEY:
            return "/secrets/web3", {"secretAddress": subject}
        case SecretKind.NAMED:
            return "/secrets/web2", {"ownerAddress": subject, "secretName": name}
        case SecretKind.APP_SECRET:
            return f"/apps/{subject}/secrets", {}
        case SecretKind.REQUESTER_SECRET:
            return f"/requesters/{subject}/secrets/{quote(name, safe='')}", {}
    raise InvalidInput(f"expected a kind of secret ({', '.join(SecretKind)}), got {kind!r}")
