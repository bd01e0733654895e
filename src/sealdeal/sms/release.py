"""A node: what it lets go to attested guests.

It believes nobody: chain (its own final block), assignment, manifest, nonce and evidence are each checked
here, whatever other nodes say.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from secrets import token_bytes

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from sealdeal import tee
from sealdeal.chain import Hub, Quorum, Rpc
from sealdeal.model.batches import Batch, batch_message
from sealdeal.model.bulk import BulkDataset, Documents
from sealdeal.model.cid import multiaddr_text
from sealdeal.model.deals import Assignment, Deal, Grant, pool_domain, quorum_domain, task_id
from sealdeal.model.eip712 import digest, hub_domain
from sealdeal.model.errors import BadSignature, InvalidInput, NotFound
from sealdeal.model.evidence import (
    Claims,
    Evidence,
    Manifest,
    TrustClass,
    Verifier,
    report_data,
    tdx_registers,
)
from sealdeal.model.keys import Key, Rng, recover_digest
from sealdeal.model.policy import (
    AllOf,
    Measurement,
    MeasurementIn,
    NoDebug,
    NotExpired,
    Policy,
    ReportData,
    TcbStatusIn,
    TeeIs,
    TrustIs,
)
from sealdeal.model.release import Name, Release, SealedItem, grant_digest
from sealdeal.model.results import check_result_key
from sealdeal.model.sealing import APP_SECRET_NAME, Door, SecretKind, release_info, seal
from sealdeal.model.types import ZERO, ZERO32, Address, Block, Bytes32, bytes32, hexstr
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
    SecretExpired,
    SecretRevoked,
    SmsClient,
)
from sealdeal.tee.collateral import Collateral

from .limits import Gate, Limits
from .nonces import Nonces, members_mark
from .owners import Owners
from .parcel import Parcel, parcel_of
from .store import Closed, Held, Released, SecretStore
from .view import NOWHERE, ChainView, Place, View

BATCHES_AT_ONCE = 4
"""Batches for which a node reads the chain at the same time."""


class Node:
    """One SMS node. Made by `open`, which refuses what must not start."""

    def __init__(
        self,
        *,
        key: Key,
        store: SecretStore,
        owners: Owners,
        chain: ChainView,
        nonces: Nonces,
        chain_id: int,
        verifiers: Sequence[Verifier],
        trust: TrustClass,
        guest_releases: Mapping[Bytes32, int | None],
        machines: Iterable[Mapping[str, bytes]],
        policies: Iterable[Policy],
        collateral: Collateral | None,
        limits: Limits,
        clock: Callable[[], float],
    ) -> None:
        self.key, self.store, self.owners, self.chain, self.chain_id = key, store, owners, chain, chain_id
        self.hub, self.quorum, self.confirmations = chain.hub, chain.quorum, chain.confirmations
        self.address, self.trust, self.nonces = key.address, trust, nonces
        self._verifiers, self._releases = tuple(verifiers), dict(guest_releases)
        self._machines = tuple(machines)
        self._policies, self._collateral, self._clock = tuple(policies), collateral, clock
        self._batches = asyncio.Semaphore(
            BATCHES_AT_ONCE
        )  # a pool's word costs nothing, reading the chain does
        self._gates = {kind: Gate(limits, time.monotonic) for kind in ("nonce", "release")}

    @classmethod
    async def open(
        cls,
        database_url: str,
        *,
        key: Key,
        storage_key: bytes,
        hub: Hub,
        verifiers: Sequence[Verifier],
        guest_releases: Iterable[Bytes32] | Mapping[Bytes32, int | None] = (),
        machines: Iterable[Mapping[str, bytes]] = (),
        confirmations: int,
        quorum: Quorum | None = None,
        door: Door = Door.OWN,
        peers: Sequence[SmsClient] = (),
        witness: Rpc | None = None,
        tcb_statuses: Iterable[str] = ("UpToDate",),
        policies: Iterable[Policy] = (),
        collateral: Collateral | None = None,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.time,
        rng: Rng = token_bytes,
    ) -> Node:
        """Start a node.

        `key` signs grants and answers; `storage_key` (32 bytes) encrypts its database; `guest_releases` are
        the digests of the guests it trusts, or these with the unix time until which it does (one with a
        flaw may stay a while, for workers to change it); `machines` the registers of guests' machines that
        it trusts (all but the app's, which is the deal's); `confirmations` blocks must lie on what it acts
        on; `quorum` is the hub's own unless told. `door`: what becomes of whole secrets; `peers`: the other
        nodes, for `split` and to tell whether enough hold shares. `witness`: a second RPC, of another
        operator, which must show the same chain. `policies`: what is required of evidence beyond its own
        checks, such as a list of platforms; `collateral`: the node's own, in place of what guests bring.
        Raises InvalidInput when the roots' trust class is not the quorum's.
        """
        if quorum is None:
            if hub.addresses.quorum is None:
                raise InvalidInput(
                    f"the hub {hub.addresses.hub} has no quorum of SMS nodes: name the quorum contract"
                )
            quorum = Quorum(hub.rpc, hub.addresses.quorum)
        ends = guest_releases if isinstance(guest_releases, Mapping) else dict.fromkeys(guest_releases)
        releases, trusted = {bytes32(release): until for release, until in ends.items()}, list(machines)
        if not releases and not trusted:
            raise InvalidInput("expected the digest of at least one guest release to trust, got none")
        if not all(trusted):
            raise InvalidInput(
                "expected registers of each machine to trust, got none: it would be any machine"
            )
        trust = TrustClass(await quorum.trust())
        classes = {verifier.trust for verifier in verifiers}
        if classes != {trust}:
            raise InvalidInput(
                f"the quorum {quorum.address} is for {trust} evidence, and the roots configured here are "
                f"{' and '.join(sorted(classes)) or 'none'}: a node serves one trust class"
            )
        chain_id = await hub.rpc.chain_id()
        if witness is not None and (other := await witness.chain_id()) != chain_id:
            raise InvalidInput(f"expected a witness of chain {chain_id}, got one of chain {other}")
        store = await SecretStore.open(database_url, _derive(storage_key, b"sealdeal sms secrets 1"))
        nonce_key = _derive(storage_key, b"sealdeal sms nonces 1")
        return cls(
            key=key,
            store=store,
            owners=Owners(
                key=key,
                store=store,
                hub=hub,
                quorum=quorum,
                chain_id=chain_id,
                door=door,
                peers=peers,
                clock=clock,
                rng=rng,
            ),
            chain=ChainView(hub, quorum, confirmations, clock, witness),
            nonces=Nonces(key.address, nonce_key, clock, rng, await store.take_over()),
            chain_id=chain_id,
            verifiers=verifiers,
            trust=trust,
            guest_releases=releases,
            machines=trusted,
            policies=(TcbStatusIn(frozenset(tcb_statuses)), *policies),
            collateral=collateral,
            limits=limits or Limits(),
            clock=clock,
        )

    async def close(self) -> None:
        """Stop in order: the next process takes this one's nonces for a minute."""
        try:
            await self.store.hand_over(self.nonces.epoch, self._now())
        finally:
            await self.store.close()

    async def nonce(self, assignment: Assignment, signature: bytes, place: Place = NOWHERE) -> Nonce:
        """A nonce for the guest of a true assignment, and the beneficiary's key.

        `place`: where the task lies, for one of a batched deal that has not begun. Raises a SecretRefused
        that says why, NotFinalYet (ask again later), another Unavailable, or RateLimited.
        """
        signer = self._signer(assignment, signature)
        async with self._gates["nonce"].admit(*_asker(assignment, signer)):
            view = await self.chain.of(assignment, signer, place)
            if self.address not in view.nodes:
                raise NotInQuorum(f"node {self.address} is no member of quorum {self.quorum.address}")
            result_key = await self._result_key(view.deal)
            nonce, expires = self.nonces.give(assignment, members_mark(view.nodes, view.threshold))
        return Nonce(node=self.address, nonce=hexstr(nonce), expires=expires, beneficiaryKey=result_key)

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
        bulk: Documents | None = None,
    ) -> Release:
        """This node's sealed secrets and its grant for the guest that the evidence is about.

        `bulk`: what the deal's `bulk_cid` names, for a deal that names one.
        Raises a SecretRefused or EvidenceRefused that says why, NotFinalYet, another Unavailable, or
        RateLimited; nothing left then.
        """
        signer = self._signer(assignment, signature)
        async with self._gates["release"].admit(*_asker(assignment, signer)):
            if enclave == ZERO:
                raise InvalidInput("expected the guest's signing address, got the zero address")
            fresh = self.nonces.check(nonces, assignment)
            view = await self._as_of(await self.chain.of(assignment, signer, place), manifest, fresh.members)
            parcel = await parcel_of(self.hub, self.chain_id, view, bulk)
            expected = self._manifest(view, assignment, await self._result_key(view.deal), parcel.datasets)
            if differences := expected.differences(manifest):
                raise ManifestDiffers(
                    "the manifest is not what this node's chain shows: " + "; ".join(differences)
                )
            for node, _ in nonces:
                if node not in view.nodes:
                    raise NonceRefused(f"expected nonces of the quorum's nodes, got one of {node}")
            bound = report_data(expected.hash(), hpke_key, enclave, nonces)
            claims = await self._judge(evidence, view.app.checksum, bound)

            held, missing = ([], []) if expected.impossible else await self._deserved(view.deal, parcel)
            answer = self._answer(view, expected, hpke_key, enclave, held, missing)
            line = self._line(view, assignment, enclave, claims, held)
            await self.store.commit_release(line, hpke_key, fresh.id, fresh.expires)
        return answer

    async def grant_batch(self, batch: Batch) -> BatchGrant:
        """This node's grant for a batch, each of whose leaves it granted before.

        Raises InvalidInput for what is no batch of the deal, BatchRefused, NotFinalYet, or another
        SecretRefused that says why.
        """
        async with self._batches:
            return await self._grant_batch(batch)

    async def _grant_batch(self, batch: Batch) -> BatchGrant:
        block = await self.chain.final()
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
        self.chain.check_clock(block)
        members = await self.quorum.members(block)
        if self.address not in members and not await self._speak([self.address], block):
            raise NotInQuorum(f"node {self.address} is no member of quorum {self.quorum.address}")
        asked = batch_message(hub_domain(self.chain_id, self.hub.addresses.hub), batch)
        granted = digest(quorum_domain(self.chain_id, self.quorum.address), Grant(asked, until))
        signature = hexstr(self.key.sign_digest(granted))
        return BatchGrant(node=self.address, validUntil=until, signature=signature)

    def _signer(self, assignment: Assignment, signature: bytes) -> Address:
        domain = pool_domain(self.chain_id, self.hub.addresses.hub)
        try:
            return recover_digest(digest(domain, assignment), signature)
        except BadSignature as wrong:
            raise AssignmentRefused(f"task {hexstr(assignment.task)}: {wrong}") from None

    async def _as_of(self, view: View, manifest: Manifest, mark: bytes) -> View:
        """The view with the quorum as it was when this guest got its nonce, if its members may still speak.

        A change of members in between would otherwise end every attempt under way. Raises NotInQuorum.
        """
        told = manifest.nodes, manifest.threshold
        if (
            members_mark(view.nodes, view.threshold) != mark == members_mark(*told)
            and manifest.threshold >= view.threshold
            and await self._speak(manifest.nodes, view.block)
        ):
            view = replace(view, nodes=manifest.nodes, threshold=manifest.threshold)
        if self.address not in view.nodes:
            raise NotInQuorum(f"node {self.address} is no member of quorum {self.quorum.address}")
        return view

    async def _speak(self, nodes: Iterable[Address], block: Block) -> bool:
        """Whether the grants of all of these count, as members or within their grace."""
        asked = (self.quorum.valid_until(node, block) for node in nodes)
        return all(until >= block.timestamp for until in await asyncio.gather(*asked))

    def _manifest(
        self, view: View, assignment: Assignment, result_key: str, datasets: Iterable[BulkDataset]
    ) -> Manifest:
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
            datasets=datasets,
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

    async def _judge(self, evidence: Evidence, app_checksum: Bytes32, bound: bytes) -> Claims:
        now = self._now()
        if self._collateral is not None:
            evidence = replace(evidence, collateral=await self._collateral.for_(evidence, now))
        claims = tee.verify(self._verifiers, evidence, now)
        guests = {
            f"guest {hexstr(release)}": Measurement(tdx_registers(release, app_checksum), until)
            for release, until in self._releases.items()
        }
        app = {"mr_config_id": tdx_registers(bytes(32), app_checksum)["mr_config_id"]}
        for number, machine in enumerate(self._machines):
            guests[f"machine {number}"] = Measurement({**machine, **app})
        policy = AllOf(
            TrustIs(self.trust),
            TeeIs("tdx"),
            NoDebug(),
            NotExpired(),
            *self._policies,
            MeasurementIn(guests),
            ReportData(bound),
        )
        policy.check(claims, now)
        return claims

    async def _deserved(self, deal: Deal, parcel: Parcel) -> tuple[list[Held], list[Name]]:
        """What this node holds of the secrets that the deal entitles its app to, and what it lacks.

        The contract let the deal be made only with an order of the dataset's owner for this app. Raises
        SecretRevoked or SecretExpired for the dataset's key, without which there is nothing to run; an app's
        or a requester's secret that ended before the deal is merely lacking, as one that was never given, and
        so is the key of one of many datasets.
        """
        many = {each.dataset for each in parcel.datasets}
        wanted = [(SecretKind.DATASET_KEY, each, "") for each in sorted(many & parcel.usable)]
        missing: list[Name] = [(SecretKind.DATASET_KEY.value, each) for each in sorted(many - parcel.usable)]
        if deal.has_dataset:
            wanted.append((SecretKind.DATASET_KEY, deal.dataset.pointer, ""))
        wanted.append((SecretKind.APP_SECRET, deal.app.pointer, APP_SECRET_NAME))
        for name in sorted({name for n, name in deal.parsed_params.secrets.items() if n > 0}):
            wanted.append((SecretKind.REQUESTER_SECRET, deal.requester, name))
        found = await self.store.find_all(wanted)
        held = []
        for kind, subject, name in wanted:
            if (kind, subject, name) in found:
                try:
                    held.append(_good(*found[kind, subject, name], deal))
                    continue
                except (SecretRevoked, SecretExpired):
                    if kind is SecretKind.DATASET_KEY and subject not in many:
                        raise
            one_of_many = kind is SecretKind.DATASET_KEY and subject in many
            missing.append((kind.value, subject if one_of_many else name))
        return held, missing

    def _answer(
        self,
        view: View,
        manifest: Manifest,
        hpke_key: bytes,
        enclave: Address,
        held: Sequence[Held],
        missing: Sequence[Name],
    ) -> Release:
        until = view.task.contribution_deadline
        return Release(
            node=self.address,
            manifest_hash=manifest.hash(),
            hpke_key=hpke_key,
            enclave=enclave,
            sealed=tuple(self._sealed(secret, manifest, hpke_key) for secret in held),
            missing=tuple(missing),
            valid_until=until,
            grant=self.key.sign_digest(grant_digest(manifest, enclave, until)),
        ).signed(self.key)

    def _line(
        self, view: View, assignment: Assignment, enclave: Address, claims: Claims, held: Sequence[Held]
    ) -> Released:
        return Released(
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
            released=[[s.kind, s.subject, s.name, s.version, s.door] for s in held],
        )

    def _sealed(self, held: Held, manifest: Manifest, hpke_key: bytes) -> SealedItem:
        name = held.subject if _is_one_of_many(held, manifest) else held.name
        info = release_info(manifest.hash(), self.address, held.kind, name, held.version)
        return SealedItem(
            kind=held.kind,
            name=name,
            version=held.version,
            door=held.door,
            document=held.document,
            signature=held.signature,
            ciphertext=seal(hpke_key, held.value, info),
            formerly=held.formerly,
        )

    def _now(self) -> int:
        return int(self._clock())


def _asker(assignment: Assignment, signer: Address) -> tuple[Hashable, Hashable]:
    """Who asks, and for which attempt: the signer is part of both, or anyone could use up another's share."""
    who = assignment.worker, signer
    return who, (who, assignment.task, assignment.attempt)


def _good(held: Held, closed: Closed | None, deal: Deal) -> Held:
    """Deals made before an end or a revocation keep what they were promised."""
    what = f"the {held.kind} of {held.subject}, version {held.version}"
    if closed and held.version <= closed.version and deal.start_time >= closed.since:
        raise SecretRevoked(
            f"{what}, is revoked for deals made from {closed.since} on; this one is of {deal.start_time}"
        )
    if held.document and 0 < held.document.expires <= deal.start_time:
        raise SecretExpired(
            f"{what}, was for deals made before {held.document.expires}; this one is of {deal.start_time}"
        )
    return held


def _is_one_of_many(held: Held, manifest: Manifest) -> bool:
    """Whether it is the key of one of a bulk's datasets, which is named by the dataset then."""
    many = any(each.dataset == held.subject for each in manifest.datasets)
    return many and held.kind == SecretKind.DATASET_KEY and held.subject != manifest.dataset


def _derive(key: bytes, purpose: bytes) -> bytes:
    return HKDF(SHA256(), 32, None, purpose).derive(bytes32(key))
