"""Who may upload the result of which task (wire.md §3.1), and what the store then says about it.

The chain decides: the task must be open, and the authorisation must be one that the hub itself would take
from this worker. For a TEE deal the enclave named in it must have signed the digest (poco.md §4). For a deal
without a TEE the pool owner's word lets the worker upload while the task is active, before it contributes and
ends the task in one step (`contributeAndFinalize`). Where several workers must agree (trust above 1), it must
be the digest that the worker revealed, as on the wire.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from sealdeal.chain import Hub, Reverted
from sealdeal.model import eip712
from sealdeal.model.cid import pieces
from sealdeal.model.deals import (
    ContributionStatus,
    Deal,
    Task,
    TaskStatus,
    enclave_message,
    result_hash,
    task_id,
)
from sealdeal.model.errors import (
    IntegrityError,
    InvalidInput,
    NotFound,
    TooLarge,
    Unauthorized,
)
from sealdeal.model.keys import Key, message_digest, recover_message
from sealdeal.model.results import UnsafeArchive
from sealdeal.model.types import ZERO, Address, Block, bytes32, hexstr, unhex
from sealdeal.sdk.results import (
    ARCHIVE_LIMIT,
    PROOF_LIMIT,
    Authorisation,
    SignedReceipt,
    StorageReceipt,
    store_domain,
)

from .blobs import Blobs
from .contents import digest_of_archive
from .store import ResultStore
from .tokens import make_token, wallet_of

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Claim:
    """What an upload says of itself."""

    task: bytes
    digest: bytes
    enclave_signature: bytes


@dataclass(frozen=True, slots=True)
class Upload:
    """What a worker's post-compute sends."""

    claim: Claim
    archive: bytes

    @classmethod
    def parse(cls, body: bytes) -> Upload:
        """Read the JSON of POST /v1/results; `zip` is base64 text or an array of byte values.

        Raises InvalidInput, naming the member that is wrong.
        """
        given = _object(body)
        missing = [name for name in ("chainTaskId", "deterministHash", "zip") if name not in given]
        if missing:
            raise InvalidInput(
                f"expected a result with chainTaskId, deterministHash and zip; missing: {missing}"
            )
        packed = given["zip"]
        try:
            # bytes(3) would be three zeroes: only a list may be an array
            archive = bytes(packed) if isinstance(packed, list) else base64.b64decode(packed, validate=True)
        except (ValueError, TypeError, binascii.Error):
            raise InvalidInput("expected zip to be base64 text or an array of byte values") from None
        if not archive:
            raise InvalidInput("expected zip to hold the result archive, it is empty")
        signature = unhex(given.get("enclaveSignature") or "0x")
        return cls(
            Claim(bytes32(given["chainTaskId"]), bytes32(given["deterministHash"]), signature), archive
        )


class Results:
    """The result store: blobs, what is known about tasks, and the chain it believes."""

    def __init__(
        self, store: ResultStore, blobs: Blobs, hub: Hub, key: Key, secret: bytes, clock: Callable[[], float]
    ) -> None:
        if len(secret) < 32:
            raise InvalidInput(f"expected a token secret of 32 bytes or more, got {len(secret)}")
        self.store, self.blobs, self.hub, self.key = store, blobs, hub, key
        self._secret, self._clock = secret, clock
        self._domain: eip712.Domain | None = None

    @classmethod
    async def open(
        cls,
        database_url: str,
        blobs: Blobs,
        hub: Hub,
        key: Key,
        secret: bytes,
        clock: Callable[[], float] = time.time,
    ) -> Results:
        """`key` signs storage receipts; `secret` (32 bytes that the caller keeps) makes upload tokens."""
        return cls(await ResultStore.open(database_url), blobs, hub, key, secret, clock)

    async def close(self) -> None:
        await self.store.close()

    async def domain(self) -> eip712.Domain:
        """Where this store's receipts count."""
        if self._domain is None:
            chain_id = await self.hub.rpc.chain_id()
            self._domain = store_domain(chain_id, self.hub.addresses.hub)
        return self._domain

    async def authorise(self, given: Authorisation, signature: bytes) -> str:
        """Give `given.worker` a token, if the chain would let it contribute. Raises Unauthorized otherwise.

        `signature`: the worker's personal signature of the authorisation's message.
        """
        signer = recover_message(given.message, signature)
        if signer != given.worker:
            raise Unauthorized(f"expected the signature of the worker {given.worker}, it is by {signer}")
        at, task, deal = await self._on_chain(given)
        if self._now(at) >= task.final_deadline:
            raise Unauthorized("the task's final deadline has passed: no result is taken any more")
        if (given.enclave != ZERO) != deal.tee:
            wanted = "an enclave" if deal.tee else "no enclave (this is not a TEE deal)"
            raise Unauthorized(f"expected an authorisation with {wanted}, got enclave {given.enclave}")
        await self._check_authorisation(given, deal, at)
        await self.store.keep_authorisation(given)
        return make_token(self._secret, given.worker, int(self._clock()))

    async def _check_authorisation(self, given: Authorisation, deal: Deal, at: Block) -> None:
        broker = await self.hub.tee_broker(at) if given.enclave != ZERO else ZERO
        signer = broker if broker != ZERO else deal.workerpool.owner
        try:
            good = await self.hub.verify_signature(signer, message_digest(given.message), given.signature, at)
        except Reverted as refused:
            raise Unauthorized(f"the hub can't read the authorisation's signature: {refused}") from None
        if not good:
            who = "the TEE broker" if broker != ZERO else "the workerpool's owner"
            raise Unauthorized(
                f"expected the authorisation to be signed by {who} {signer}: the hub says it is not"
            )

    async def _on_chain(self, given: Authorisation) -> tuple[Block, Task, Deal]:
        """The task at the newest block. One that has not begun counts in a batched deal only, and is found by
        what the authorisation says about its place."""
        at = await self.hub.block()
        try:
            task = await self.hub.task(given.task, at)
            if task.status is not TaskStatus.UNSET:
                return at, task, await self.hub.deal(task.dealid, at)
            if given.index < 2**256 and task_id(given.dealid, given.index) == given.task:
                deal = await self.hub.deal(given.dealid, at)
                if deal.batched and given.index in deal.indices():
                    return at, await self.hub.task_of(deal, given.index, at), deal
        except NotFound:
            pass
        raise Unauthorized(f"task {hexstr(given.task)} is not on the chain (block {at.number})")

    async def accept(self, token: str, upload: Upload) -> str:
        """Store a result; returns `/ipfs/CID`. Raises Unauthorized unless this worker may upload it now."""
        return await self.accept_archive(token, upload.claim, _pieces(upload.archive))

    async def accept_archive(
        self, token: str, claim: Claim, archive: AsyncIterable[bytes], *, limit: int = ARCHIVE_LIMIT
    ) -> str:
        """`accept`, while the archive arrives: nothing of it is taken in before its claim is found good.

        Raises TooLarge over `limit` bytes, InvalidInput for none, StoreFull.
        """
        worker = self.wallet(token)
        given, agreed = await self._allowed(worker, claim)
        sha256 = hashlib.sha256()

        async def hashed() -> AsyncIterator[bytes]:
            async for piece in archive:
                sha256.update(piece)
                yield piece

        stored = await self.blobs.put(hashed(), limit=limit)
        if not stored.size:
            raise InvalidInput("expected a result archive, got no bytes")
        if agreed:
            await self._check_content(stored.cid, claim)
        now = int(self._clock())
        receipt = StorageReceipt(claim.task, worker, stored.cid, sha256.digest(), stored.size, now)
        signature = self.key.sign_digest(eip712.digest(await self.domain(), receipt))
        await self.store.keep_archive(SignedReceipt(receipt, self.key.address, signature), given)
        return f"/ipfs/{stored.cid}"

    async def _allowed(self, worker: Address, upload: Claim) -> tuple[Authorisation, bool]:
        """The authorisation that lets `worker` upload this now, and whether workers agreed on its digest.

        Raises Unauthorized.
        """
        given = await self.store.authorisation(upload.task, worker)
        at, task, deal = await self._on_chain(given)
        if given.enclave != ZERO:
            if not deal.awaits(task):
                raise Unauthorized(f"expected an ACTIVE task, it is {task.status.name}")
            message = enclave_message(worker, upload.task, upload.digest)
            signer = recover_message(message, upload.enclave_signature)
            if signer != given.enclave:
                raise Unauthorized(f"expected enclave {given.enclave} to sign this digest, {signer} did")
            return given, False
        return given, await self._check_standard(task, deal, upload, given, at)

    async def _check_content(self, cid: str, claim: Claim) -> None:
        """Raises Unauthorized unless the archive's own files stand for the digest that it came with."""
        try:
            found = await digest_of_archive(self.blobs, cid)
        except (IntegrityError, UnsafeArchive, TooLarge) as wrong:
            raise Unauthorized(f"expected an archive of the digest that was agreed on: {wrong}") from None
        if found != claim.digest:
            raise Unauthorized(
                f"expected an archive of the digest {hexstr(claim.digest)}, its files have {hexstr(found)}"
            )

    async def _check_standard(
        self, task: Task, deal: Deal, upload: Claim, given: Authorisation, at: Block
    ) -> bool:
        """No enclave vouches: either the pool's owner alone does, or the workers' consensus on chain (True).

        The wire knows the second only (§3.1): its workers reveal, then upload. A result that is contributed
        and finalised at once has no such phase; it must lie here before it says on chain where it lies.
        """
        if task.status == TaskStatus.ACTIVE and deal.trust <= 1:
            return False
        if task.status != TaskStatus.REVEALING:
            raise Unauthorized(f"expected a task in its reveal phase, it is {task.status.name}")
        contribution = await self.hub.contribution(upload.task, given.worker, at)
        if contribution.status != ContributionStatus.PROVED:
            raise Unauthorized(f"expected a revealed contribution, it is {contribution.status.name}")
        if contribution.result_hash != result_hash(upload.task, upload.digest):
            raise Unauthorized("the digest is not the one that this worker contributed")
        return True

    def wallet(self, token: str) -> Address:
        """The wallet that holds `token`. Raises Unauthorized."""
        return wallet_of(self._secret, token, int(self._clock()))

    async def find(self, taskid: bytes, worker: Address | None = None) -> SignedReceipt:
        """The receipt of a task's result: of `worker`, or of the one whom the chain has accepted, or else the
        latest. Raises NotFound.
        """
        found = [(signed.receipt.worker, signed) for signed in await self.store.archives_of(taskid)]
        return await self._accepted(taskid, worker, found, "result of it was uploaded here")

    async def proof(self, taskid: bytes, worker: Address | None = None) -> str:
        """The public attestation bundle of a task's result, as JSON; whose: as `find`. Raises NotFound."""
        found = await self.store.proofs_of(taskid)
        return await self._accepted(taskid, worker, found, "proof of it was published here")

    async def _accepted(
        self, taskid: bytes, worker: Address | None, found: list[tuple[Address, T]], what: str
    ) -> T:
        if worker is None and len(found) > 1:
            try:
                contributors = (await self.hub.task(taskid)).contributors
            except NotFound:
                contributors = ()
            found.sort(key=lambda one: one[0] not in contributors)  # stable: the latest first
        for whose, one in found:
            if worker in (None, whose):
                return one
        raise NotFound(f"task {hexstr(taskid)}: no {what}")

    async def publish_proof(self, token: str, taskid: bytes, body: bytes) -> None:
        """Keep the public attestation bundle of a result, once. It comes after the upload, unless the deal
        has a callback, which leaves none to upload. Raises Unauthorized, NotFound, TooLarge, Conflict.
        """
        worker = self.wallet(token)
        proof = json.dumps(_object(body), sort_keys=True, separators=(",", ":"))
        if len(proof) > PROOF_LIMIT:
            raise TooLarge(f"a proof may have {PROOF_LIMIT} bytes, this one has {len(proof)}")
        if all(signed.receipt.worker != worker for signed in await self.store.archives_of(taskid)):
            await self._check_called_back(taskid, worker)
        await self.store.keep_proof(taskid, worker, proof)

    async def _check_called_back(self, taskid: bytes, worker: Address) -> None:
        """Raises NotFound unless `worker` may work on this task, and its result goes to a contract."""
        try:
            _, _, deal = await self._on_chain(await self.store.authorisation(taskid, worker))
        except Unauthorized:
            deal = None
        if deal is None or deal.callback == ZERO:
            raise NotFound(f"{worker} has uploaded no result of this task: the proof comes after it")

    def _now(self, at: Block) -> float:
        # An idle local chain mines nothing, so its newest block may be old.
        return max(at.timestamp, self._clock())


def _object(body: bytes) -> dict[str, Any]:
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        raise InvalidInput("expected the body to be a JSON object")
    return given


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    for piece in pieces(data, 1 << 20):
        yield piece
