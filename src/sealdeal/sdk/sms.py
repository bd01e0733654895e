"""SMS nodes: their messages, why they refuse, their typed client, and the owner's side of splitting a secret.

The protocol's routes (wire.md §2) take whole secrets as text; ours take shares, and
release to attested guests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import quote

import pydantic

from sealdeal.model.batches import Batch
from sealdeal.model.deals import Assignment
from sealdeal.model.eip712 import digest
from sealdeal.model.errors import (
    Conflict,
    Forbidden,
    InvalidInput,
    NotFound,
    SealdealError,
    SecretRefused,
    Unavailable,
)
from sealdeal.model.evidence import Evidence, Manifest
from sealdeal.model.keys import Key, Rng
from sealdeal.model.release import Release
from sealdeal.model.sealing import (
    APP_SECRET_NAME,
    SecretKind,
    SecretShares,
    owner_challenge,
    secrets_domain,
    share_secret,
)
from sealdeal.model.types import ZERO32, Address, hexstr

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


class Shared(Message):
    """`POST /shares`: one node's share of a secret that its owner split."""

    document: dict[str, Any]
    """`SecretShares`."""
    signature: str
    """The owner's, of the document, on `secrets_domain`."""
    share: str


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
        """Give this node a dataset's whole key, for ever; `split_to_nodes` keeps it from any single node."""
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

    async def post_share(self, document: SecretShares, signature: bytes, share: bytes) -> None:
        """Give this node its share. The same again is fine; Conflict when it holds another secret there."""
        body = Shared(document=document.to_json(), signature=hexstr(signature), share=hexstr(share))
        await self.request("POST", "/shares", json=body.model_dump())

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


# --- the owner's side -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SplitReceipt:
    """A secret that was split: every node stored its share."""

    document: SecretShares
    signature: bytes
    """The owner's, of the document."""


class SplitIncomplete(Unavailable):
    """Not every node stored its share. `stored` did; call again with `retry` to give the others theirs."""

    def __init__(
        self, message: str, stored: tuple[Address, ...] = (), retry: PreparedSplit | None = None
    ) -> None:
        super().__init__(message)
        self.stored = stored
        self.retry = retry


@dataclass(frozen=True, slots=True, repr=False)
class PreparedSplit:
    """A split secret on its way to the nodes. It holds every share: keep it in memory only."""

    document: SecretShares
    signature: bytes
    shares: Mapping[Address, bytes]

    async def send(self, clients: Mapping[Address, SmsClient]) -> SplitReceipt:
        """Give each node its share; safe to repeat. Raises SplitIncomplete, saying who stored, who not."""

        async def give(node: Address) -> SealdealError | None:
            try:
                await clients[node].post_share(self.document, self.signature, self.shares[node])
            except SealdealError as failed:
                return failed
            return None

        nodes = self.document.nodes
        failures = dict(zip(nodes, await asyncio.gather(*map(give, nodes)), strict=True))
        if bad := {node: failed for node, failed in failures.items() if failed}:
            stored = tuple(node for node in nodes if node not in bad)
            raise SplitIncomplete(
                f"expected all {len(nodes)} nodes to store their share, {len(stored)} did "
                f"({', '.join(stored) or 'none'}); refused: "
                + "; ".join(f"{node}: {failed}" for node, failed in bad.items()),
                stored,
                self,
            )
        return SplitReceipt(self.document, self.signature)


async def split_to_nodes(
    secret: bytes,
    *,
    kind: str,
    subject: Address,
    name: str,
    version: int,
    threshold: int,
    clients: Mapping[Address, SmsClient],
    owner: Key,
    chain_id: int,
    hub: Address,
    rng: Rng,
) -> SplitReceipt:
    """Split a secret here, sign who holds what, and give each node its share (door `own`).

    `clients`: by the node's address; any `threshold` of them suffice to release it, fewer learn nothing.
    Raises SplitIncomplete when a node failed: `await error.retry.send(clients)` goes on with the same
    shares. After a crash, split again with a higher `version`: nodes replace, guests take the newest.
    """
    document, shares = share_secret(
        secret,
        kind=kind,
        subject=subject,
        name=name,
        version=version,
        threshold=threshold,
        nodes=sorted(clients, key=str.lower),
        rng=rng,
    )
    signature = owner.sign_digest(digest(secrets_domain(chain_id, hub), document))
    return await PreparedSplit(document, signature, shares).send(clients)
