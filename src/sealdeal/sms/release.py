"""A node: what it keeps for owners, and what it lets go to attested guests.

It believes nobody: chain (its own final block), assignment, manifest, nonce and evidence are each checked
here, whatever other nodes say. Nodes never talk to each other.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from secrets import token_bytes

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from sealdeal import tee
from sealdeal.chain import Hub, Quorum
from sealdeal.model.batches import Batch, batch_message
from sealdeal.model.cid import multiaddr_text
from sealdeal.model.deals import (
    AppInfo,
    Assignment,
    DatasetInfo,
    Deal,
    Grant,
    Task,
    TaskStatus,
    pool_domain,
    quorum_domain,
    task_id,
)
from sealdeal.model.eip712 import digest, hub_domain
from sealdeal.model.errors import (
    BadSignature,
    ChainError,
    InvalidInput,
    NotFound,
    TooLarge,
    Unauthorized,
)
from sealdeal.model.evidence import (
    Claims,
    Evidence,
    Manifest,
    TrustClass,
    Verifier,
    report_data,
    tdx_registers,
)
from sealdeal.model.keys import Key, Rng, recover_digest, recover_message
from sealdeal.model.policy import (
    AllOf,
    AnyOf,
    NoDebug,
    NotExpired,
    Registers,
    ReportData,
    TcbStatusIn,
    TeeIs,
    TrustIs,
)
from sealdeal.model.release import Name, Release, SealedItem, grant_digest
from sealdeal.model.results import check_result_key
from sealdeal.model.sealing import (
    APP_SECRET_NAME,
    MAX_SECRET_BYTES,
    Door,
    SecretKind,
    SecretShares,
    owner_challenge,
    release_info,
    seal,
    secrets_domain,
)
from sealdeal.model.types import ZERO, ZERO32, Address, Block, Bytes32, address_bytes, bytes32, hexstr
from sealdeal.sdk.sms import (
    RESULT_KEY_NAME,
    AssignmentRefused,
    BatchGrant,
    BatchRefused,
    DeadlinePassed,
    ManifestDiffers,
    Nonce,
    NonceRefused,
    NotFinalYet,
    NotInQuorum,
    NotTeeDeal,
    TaskNotActive,
)

from .store import Held, Released, SecretStore
from .wire import check_name

NONCE_SECONDS = 600
"""Life of a nonce: a guest gathers nonces, a quote and answers in a few seconds."""

Place = tuple[Bytes32, int]
"""(dealid, index): where a task lies that can't be found by its id, because it has not begun."""
NOWHERE: Place = (ZERO32, 0)

_PAYLOAD_SLACK = 128  # a share is as long as the salted, padded payload


@dataclass(frozen=True, slots=True)
class _View:
    """One task as this node's final block shows it."""

    block: Block
    task: Task
    deal: Deal
    app: AppInfo
    dataset: DatasetInfo | None
    nodes: tuple[Address, ...]
    threshold: int


class Node:
    """One SMS node. Made by `open`, which refuses what must not start."""

    def __init__(
        self,
        *,
        key: Key,
        storage_key: bytes,
        store: SecretStore,
        hub: Hub,
        quorum: Quorum,
        chain_id: int,
        verifiers: Sequence[Verifier],
        trust: TrustClass,
        guest_releases: Iterable[Bytes32],
        confirmations: int,
        tcb_statuses: Iterable[str],
        clock: Callable[[], float],
        rng: Rng,
    ) -> None:
        self.key, self.store, self.hub, self.quorum, self.chain_id = key, store, hub, quorum, chain_id
        self.address, self.trust, self.confirmations = key.address, trust, confirmations
        self._verifiers, self._releases = tuple(verifiers), tuple(guest_releases)
        self._tcb, self._clock, self._rng = frozenset(tcb_statuses), clock, rng
        self._nonce_key = _derive(storage_key, b"sealdeal sms nonces 1")

    @classmethod
    async def open(
        cls,
        database_url: str,
        *,
        key: Key,
        storage_key: bytes,
        hub: Hub,
        verifiers: Sequence[Verifier],
        guest_releases: Iterable[Bytes32],
        confirmations: int,
        quorum: Quorum | None = None,
        tcb_statuses: Iterable[str] = ("UpToDate",),
        clock: Callable[[], float] = time.time,
        rng: Rng = token_bytes,
    ) -> Node:
        """Start a node.

        `key` signs grants and answers; `storage_key` (32 bytes) encrypts its database; `guest_releases` are
        the digests of the guests it trusts; `confirmations` blocks must lie on what it acts on; `quorum`
        is the hub's own unless told. Raises InvalidInput when the roots' trust class is not the quorum's.
        """
        if quorum is None:
            if hub.addresses.quorum is None:
                raise InvalidInput(
                    f"the hub {hub.addresses.hub} has no quorum of SMS nodes: name the quorum contract"
                )
            quorum = Quorum(hub.rpc, hub.addresses.quorum)
        releases = [bytes32(release) for release in guest_releases]
        if not releases:
            raise InvalidInput("expected the digest of at least one guest release to trust, got none")
        trust = TrustClass(await quorum.trust())
        classes = {verifier.trust for verifier in verifiers}
        if classes != {trust}:
            raise InvalidInput(
                f"the quorum {quorum.address} is for {trust} evidence, and the roots configured here are "
                f"{' and '.join(sorted(classes)) or 'none'}: a node serves one trust class"
            )
        chain_id = await hub.rpc.chain_id()
        return cls(
            key=key,
            storage_key=storage_key,
            store=await SecretStore.open(database_url, _derive(storage_key, b"sealdeal sms secrets 1")),
            hub=hub,
            quorum=quorum,
            chain_id=chain_id,
            verifiers=verifiers,
            trust=trust,
            guest_releases=releases,
            confirmations=confirmations,
            tcb_statuses=tcb_statuses,
            clock=clock,
            rng=rng,
        )

    async def close(self) -> None:
        await self.store.close()

    # --- for owners -------------------------------------------------------------------------------

    async def push(
        self,
        kind: SecretKind,
        subject: Address,
        name: str,
        value: bytes,
        signature: str,
        *,
        update: bool = False,
    ) -> None:
        """Keep a whole secret (door `single`), or replace a named one. The checks' order is the protocol's.

        Raises InvalidInput (name, empty), Unauthorized, TooLarge, Conflict, NotFound.
        """
        check_name(kind, name)
        challenge = owner_challenge(kind, subject, name, value)
        try:
            given = bytes.fromhex(signature.removeprefix("0x"))
            signer = recover_message(challenge, given)
        except (ValueError, BadSignature):
            raise Unauthorized(
                "expected an Authorization header: the owner's signature of this secret"
            ) from None
        await self._owned_by(signer, kind, subject)
        if len(value) > MAX_SECRET_BYTES:
            raise TooLarge(f"expected a secret of at most {MAX_SECRET_BYTES} bytes, got {len(value)}")
        if not value:
            raise InvalidInput("expected a secret in the body, got nothing")
        held = Held(kind, subject, name, 1, Door.SINGLE, None, given, value)
        if update:
            await self.store.replace(held, self._now())
        else:
            await self.store.add(held, self._now())

    async def holds(self, kind: SecretKind, subject: Address, name: str) -> bool:
        """Whether there is a secret, or a share of one, under this name."""
        check_name(kind, name)
        return await self.store.holds(kind, subject, name)

    async def put_share(self, document: SecretShares, signature: bytes, share: bytes) -> None:
        """Keep this node's share of a secret that its owner split (door `own`); the same again is fine.

        Raises InvalidInput or SecretRefused when share and document do not fit this node, Unauthorized when
        the owner did not sign, Conflict when something else is there.
        """
        kind = SecretKind(document.kind)
        if kind is SecretKind.NAMED:
            raise InvalidInput(
                "expected the secret of a dataset, an app or a requester: named ones are not split"
            )
        check_name(kind, document.name)
        if len(share) > MAX_SECRET_BYTES + _PAYLOAD_SLACK:
            raise TooLarge(
                f"expected a share of a secret of at most {MAX_SECRET_BYTES} bytes, got {len(share)}"
            )
        document.check_share(self.address, share)
        signer = recover_digest(
            digest(secrets_domain(self.chain_id, self.hub.addresses.hub), document), signature
        )
        await self._owned_by(signer, kind, document.subject)
        held = Held(
            kind, document.subject, document.name, document.version, Door.OWN, document, signature, share
        )
        await self.store.put_share(held, self._now())

    async def _owned_by(self, signer: Address, kind: SecretKind, subject: Address) -> None:
        owner = subject
        if kind in (SecretKind.DATASET_KEY, SecretKind.APP_SECRET):
            try:
                owner = await self.hub.owner_of(subject)
            except (NotFound, ChainError):
                raise Unauthorized(
                    f"expected a dataset or app on this chain, {subject} has no owner"
                ) from None
        if signer != owner:
            raise Unauthorized(
                f"expected the signature of {owner}, the owner of {subject}; got one of {signer}"
            )

    # --- for guests -------------------------------------------------------------------------------

    async def nonce(self, assignment: Assignment, signature: bytes, place: Place = NOWHERE) -> Nonce:
        """A nonce for the guest of a true assignment, and the beneficiary's key.

        `place`: where the task lies, for one of a batched deal that has not begun. Raises a SecretRefused
        that says why, or NotFinalYet (ask again later).
        """
        view = await self._view(assignment, signature, place)
        result_key = await self._result_key(view.deal)
        expires = self._now() + NONCE_SECONDS
        head = expires.to_bytes(8, "big") + self._rng(16)
        nonce = hexstr(head + self._mac(head, assignment))
        return Nonce(node=self.address, nonce=nonce, expires=expires, beneficiaryKey=result_key)

    async def release(
        self,
        assignment: Assignment,
        signature: bytes,
        *,
        manifest: Manifest,
        evidence: Evidence,
        hpke_key: bytes,
        enclave: Address,
        nonces: Sequence[tuple[Address, bytes]],
        place: Place = NOWHERE,
    ) -> Release:
        """This node's sealed secrets and its grant for the guest that the evidence is about.

        Raises a SecretRefused or EvidenceRefused that says why, or NotFinalYet; nothing left then.
        """
        if enclave == ZERO:
            raise InvalidInput("expected the guest's signing address, got the zero address")
        nonce, expires = self._own_nonce(nonces, assignment)
        view = await self._view(assignment, signature, place)
        expected = self._manifest(view, assignment, await self._result_key(view.deal))
        if differences := expected.differences(manifest):
            raise ManifestDiffers(
                "the manifest is not what this node's chain shows: " + "; ".join(differences)
            )
        for node, _ in nonces:
            if node not in view.nodes:
                raise NonceRefused(f"expected nonces of the quorum's nodes, got one of {node}")
        bound = report_data(expected.hash(), hpke_key, enclave, nonces)
        claims = self._judge(evidence, view.app.checksum, bound)

        held, missing = ([], []) if expected.impossible else await self._deserved(view.deal)
        until = view.task.contribution_deadline
        answer = Release(
            node=self.address,
            manifest_hash=expected.hash(),
            hpke_key=hpke_key,
            enclave=enclave,
            sealed=tuple(self._sealed(secret, expected, hpke_key) for secret in held),
            missing=tuple(missing),
            valid_until=until,
            grant=self.key.sign_digest(grant_digest(expected, enclave, until)),
        ).signed(self.key)
        line = Released(
            time=self._now(),
            task=view.task.taskid,
            deal=view.deal.dealid,
            app=view.deal.app.pointer,
            app_checksum=view.app.checksum,
            dataset=view.deal.dataset.pointer,
            worker=assignment.worker,
            attempt=assignment.attempt,
            enclave=enclave,
            platform=hexstr(claims.platform_id),
            measurement={name: hexstr(value) for name, value in claims.registers.items()},
            released=[[secret.kind, secret.name, secret.version, secret.door] for secret in held],
        )
        await self.store.commit_release(line, hpke_key, hashlib.sha256(nonce).digest(), expires)
        return answer

    async def grant_batch(self, batch: Batch) -> BatchGrant:
        """This node's grant for a batch, each of whose leaves it granted before.

        Raises InvalidInput for what is no batch of the deal, BatchRefused, NotFinalYet, or another
        SecretRefused that says why.
        """
        block = await self.hub.final_block(self.confirmations)
        try:
            deal = await self.hub.deal(batch.dealid, block)
        except NotFound:
            raise NotFinalYet(f"deal {hexstr(batch.dealid)} is not on chain at this node's depth") from None
        if not deal.batched:
            raise BatchRefused(f"deal {hexstr(batch.dealid)} does not ask for batches")
        leaves = {
            (task_id(deal.dealid, leaf.index), leaf.worker, leaf.enclave)
            for leaf in batch.leaves(deal.bot_first)
            if leaf.index in deal.indices()
        }
        if len(leaves) != batch.tasks.bit_count():
            raise BatchRefused("expected tasks of the deal, got some beyond its last")
        if unknown := leaves - await self.store.granted({task for task, _, _ in leaves}):
            tasks = ", ".join(sorted(hexstr(task) for task, _, _ in unknown))
            raise BatchRefused(f"this node granted nothing to these tasks' workers and enclaves: {tasks}")
        until = (await self.hub.task_of(deal, min(deal.indices()), block)).contribution_deadline
        if max(self._now(), block.timestamp) >= until:
            raise DeadlinePassed(f"deal {hexstr(deal.dealid)}: the contribution deadline ended at {until}")
        if self.address not in await self.quorum.members(block):
            raise NotInQuorum(f"node {self.address} is no member of quorum {self.quorum.address}")
        asked = batch_message(hub_domain(self.chain_id, self.hub.addresses.hub), batch)
        granted = digest(quorum_domain(self.chain_id, self.quorum.address), Grant(asked, until))
        signature = hexstr(self.key.sign_digest(granted))
        return BatchGrant(node=self.address, validUntil=until, signature=signature)

    async def _view(self, assignment: Assignment, signature: bytes, place: Place) -> _View:
        """The task and all around it at one final block, once the assignment deserves it."""
        block = await self.hub.final_block(self.confirmations)
        named = f"task {hexstr(assignment.task)}"
        found = await self._waiting(assignment.task, place, block)
        if found is None:
            if await self._waiting(assignment.task, place, None):
                raise NotFinalYet(
                    f"{named} is not {self.confirmations} blocks deep yet at this node: ask again in a moment"
                )
            status = (await self.hub.task(assignment.task, block)).status
            raise TaskNotActive(f"expected {named} to be ACTIVE, it is {status.name}")
        task, deal = found
        try:
            signer = recover_digest(
                digest(pool_domain(self.chain_id, self.hub.addresses.hub), assignment), signature
            )
        except BadSignature as wrong:
            raise AssignmentRefused(f"{named}: {wrong}") from None
        if signer != deal.workerpool.owner:
            raise AssignmentRefused(
                f"expected an assignment of {named} signed by the workerpool's owner "
                f"{deal.workerpool.owner}, got one of {signer}"
            )
        if not deal.tee:
            raise NotTeeDeal(f"expected a deal that asks for a TEE, the tag of {named} is {hexstr(deal.tag)}")
        now = max(self._now(), block.timestamp)
        for what, deadline in (
            ("contribution deadline", task.contribution_deadline),
            ("assignment", assignment.deadline),
        ):
            if now >= deadline:
                raise DeadlinePassed(f"{named}: the {what} ended at {deadline}, it is {now}")
        app, dataset, nodes, threshold = await asyncio.gather(
            self.hub.app(deal.app.pointer, block),
            self._dataset(deal, block),
            self.quorum.members(block),
            self.quorum.threshold(block),
        )
        if self.address not in nodes:
            raise NotInQuorum(f"node {self.address} is no member of quorum {self.quorum.address}")
        return _View(block, task, deal, app, dataset, nodes, threshold)

    async def _waiting(self, taskid: bytes, place: Place, at: Block | None) -> tuple[Task, Deal] | None:
        """The task and its deal, if it waits for a result: it is ACTIVE, or has not begun in a batched deal.

        Anyone may begin a task for its gas: what has not begun gets nothing that it could not get then.
        """
        task = await self.hub.task(taskid, at)
        if task.status is TaskStatus.ACTIVE:
            return task, await self.hub.deal(task.dealid, at)
        dealid, index = place
        if task.status is not TaskStatus.UNSET or index < 0 or task_id(dealid, index) != taskid:
            return None
        try:
            deal = await self.hub.deal(dealid, at)
        except NotFound:
            return None
        if not deal.batched or index not in deal.indices():
            return None
        return await self.hub.task_of(deal, index, at), deal

    async def _dataset(self, deal: Deal, block: Block) -> DatasetInfo | None:
        return await self.hub.dataset(deal.dataset.pointer, block) if deal.has_dataset else None

    def _manifest(self, view: _View, assignment: Assignment, result_key: str) -> Manifest:
        return Manifest.of(
            chain_id=self.chain_id,
            hub=self.hub.addresses.hub,
            quorum=self.quorum.address,
            deal=view.deal,
            task_index=view.task.idx,
            worker=assignment.worker,
            attempt=assignment.attempt,
            app_multiaddr=multiaddr_text(view.app.multiaddr),
            app_checksum=view.app.checksum,
            dataset_multiaddr=multiaddr_text(view.dataset.multiaddr) if view.dataset else "",
            dataset_checksum=view.dataset.checksum if view.dataset else ZERO32,
            result_key=result_key,
            nodes=view.nodes,
            threshold=view.threshold,
        )

    async def _result_key(self, deal: Deal) -> str:
        """The beneficiary's key when the deal asks for encryption; empty when this node has no usable one."""
        if not deal.parsed_params.result_encryption:
            return ""
        held = await self.store.find(SecretKind.NAMED, deal.beneficiary, RESULT_KEY_NAME)
        try:
            text = held.value.decode() if held else ""
            check_result_key(text)
            return text
        except (InvalidInput, UnicodeDecodeError):
            return ""

    def _judge(self, evidence: Evidence, app_checksum: Bytes32, bound: bytes) -> Claims:
        now = self._now()
        claims = tee.verify(self._verifiers, evidence, now)
        guests = (Registers.exactly(tdx_registers(release, app_checksum)) for release in self._releases)
        policy = AllOf(
            TrustIs(self.trust),
            TeeIs("tdx"),
            NoDebug(),
            TcbStatusIn(self._tcb),
            NotExpired(),
            AnyOf(*guests),
            ReportData(bound),
        )
        policy.check(claims, now)
        return claims

    async def _deserved(self, deal: Deal) -> tuple[list[Held], list[Name]]:
        """What this node holds of the secrets that the deal entitles its app to, and what it lacks.

        The contract let the deal be made only with an order of the dataset's owner for this app.
        """
        wanted: list[tuple[SecretKind, Address, str]] = []
        if deal.has_dataset:
            wanted.append((SecretKind.DATASET_KEY, deal.dataset.pointer, ""))
        wanted.append((SecretKind.APP_SECRET, deal.app.pointer, APP_SECRET_NAME))
        for name in sorted({name for n, name in deal.parsed_params.secrets.items() if n > 0}):
            wanted.append((SecretKind.REQUESTER_SECRET, deal.requester, name))
        held, missing = [], []
        for kind, subject, name in wanted:
            if found := await self.store.find(kind, subject, name):
                held.append(found)
            else:
                missing.append((kind.value, name))
        return held, missing

    def _sealed(self, held: Held, manifest: Manifest, hpke_key: bytes) -> SealedItem:
        info = release_info(manifest.hash(), self.address, held.kind, held.name, held.version)
        return SealedItem(
            kind=held.kind,
            name=held.name,
            version=held.version,
            door=held.door,
            document=held.document,
            signature=held.signature,
            ciphertext=seal(hpke_key, held.value, info),
        )

    # --- nonces: a MAC with an expiry, so that nothing is stored before one is spent ----------------

    def _mac(self, head: bytes, assignment: Assignment) -> bytes:
        """24 bytes over (node, task, worker, attempt, expiry, random)."""
        bound = b"sealdeal nonce 1" + address_bytes(self.address) + assignment.task
        bound += address_bytes(assignment.worker) + assignment.attempt.to_bytes(32, "big") + head
        return hmac.digest(self._nonce_key, bound, "sha256")[:24]

    def _own_nonce(
        self, nonces: Sequence[tuple[Address, bytes]], assignment: Assignment
    ) -> tuple[bytes, int]:
        own = [nonce for node, nonce in nonces if node == self.address]
        if len(own) != 1 or len(nonces) > 255:
            raise NonceRefused(f"expected one nonce of node {self.address}, got {len(own)}")
        (nonce,) = own
        expires = int.from_bytes(nonce[:8], "big")
        if len(nonce) != 48 or not hmac.compare_digest(nonce[24:], self._mac(nonce[:24], assignment)):
            raise NonceRefused("expected a nonce that this node gave for this task, worker and attempt")
        if self._now() >= expires:
            raise NonceRefused(f"expected a nonce that is still good, got one that expired at {expires}")
        return nonce, expires

    def _now(self) -> int:
        return int(self._clock())


def _derive(key: bytes, purpose: bytes) -> bytes:
    return HKDF(SHA256(), 32, None, purpose).derive(bytes32(key))
