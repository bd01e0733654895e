"""The owner's side of a node: what it keeps, through which door, and what it tells of it.

Between each other, nodes exchange only what an owner pushed to one of them to be split (door `split`), named
values that are the same on all, and what anyone may ask: which shares they hold.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from sealdeal.chain import Hub, Quorum
from sealdeal.model.eip712 import digest
from sealdeal.model.errors import (
    BadSignature,
    Conflict,
    InvalidInput,
    NotFound,
    SealdealError,
    TooLarge,
    Unauthorized,
    Unavailable,
)
from sealdeal.model.keys import Key, Rng, recover_digest, recover_message
from sealdeal.model.sealing import (
    AUDIT_SECONDS,
    MAX_PUSHED_BYTES,
    MAX_SECRET_BYTES,
    Door,
    Revocation,
    SecretKind,
    SecretShares,
    audit_challenge,
    secrets_domain,
    share_secret,
    vouch_challenge,
    with_push,
)
from sealdeal.model.types import ZERO32, Address, hexstr
from sealdeal.sdk.sms import (
    RESULT_KEY_NAME,
    AuditLine,
    AuditTrail,
    ShareInfo,
    SmsClient,
    WholeRefused,
)

from .store import Closed, Held, SecretStore
from .wire import check_name, check_push, check_signer, check_size, owner_of

PUBLIC_NAMES = frozenset([RESULT_KEY_NAME])
"""Named values that are no secrets: a node whose door is `own` takes them too."""
PEER_SECONDS = 5.0
"""How long a client that asks whether a secret is there waits for the other nodes."""
AUDIT_LINES = 200
"""Lines of an audit in one answer."""

T = TypeVar("T")

_PAYLOAD_SLACK = 128  # a share is as long as the salted, padded payload


class Owners:
    """What owners ask of a node."""

    def __init__(
        self,
        *,
        key: Key,
        store: SecretStore,
        hub: Hub,
        quorum: Quorum,
        chain_id: int,
        door: Door,
        peers: Sequence[SmsClient],
        clock: Callable[[], float],
        rng: Rng,
    ) -> None:
        self.address, self.door, self.store = key.address, door, store
        self._key, self._hub, self._quorum, self._clock, self._rng = key, hub, quorum, clock, rng
        self._domain = secrets_domain(chain_id, hub.addresses.hub)
        self._peers, self._known = tuple(peers), dict[Address, SmsClient]()

    # --- whole secrets ----------------------------------------------------------------------------

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
        """Take a whole secret as this node's door says, or replace a named one. The checks' order is the
        protocol's.

        Raises WholeRefused (door `own`), InvalidInput (name, empty), Unauthorized, TooLarge, Conflict,
        NotFound; Unavailable when not every node stored its share: push it again.
        """
        check_name(kind, name)
        if self.door is Door.OWN and (kind is not SecretKind.NAMED or name not in PUBLIC_NAMES):
            raise WholeRefused(
                "this node takes shares only, so that no node ever sees a secret: split it where its owner "
                "is, with `sealdeal secret split`, or `sealdeal secret gateway` for clients that push here"
            )
        held = await self._whole(kind, subject, name, value, signature)
        if kind is SecretKind.NAMED:
            await self._name(held, update)
        elif self.door is Door.SPLIT:
            await self._split(held)
        else:
            await self.store.add(held, self._now())

    async def put_named(self, owner: Address, name: str, value: bytes, signature: str) -> None:
        """Keep a named value of an account here, whatever was there; it goes no further.

        Raises as `push` does.
        """
        check_name(SecretKind.NAMED, name)
        if self.door is Door.OWN and name not in PUBLIC_NAMES:
            raise WholeRefused("this node takes no named values but public keys for results")
        held = await self._whole(SecretKind.NAMED, owner, name, value, signature)
        await self.store.put(held, self._now())

    async def _whole(
        self, kind: SecretKind, subject: Address, name: str, value: bytes, signature: str
    ) -> Held:
        _, given = await check_push(self._hub, kind, subject, name, value, signature)
        check_size(value)
        return Held(kind, subject, name, 1, Door.SINGLE, None, given, value)

    async def _name(self, held: Held, update: bool) -> None:
        """A named value is the same on all nodes: with door `split`, this first gives it to the others."""
        if self.door is Door.SPLIT:
            there = await self.store.holds(held.kind, held.subject, held.name)
            if there and not update:
                raise Conflict(f"this node holds a value of that name of {held.subject}: replace it (PUT)")
            if update and not there:
                raise NotFound(f"this node holds no value of that name of {held.subject}: add it (POST)")

            async def give(client: SmsClient) -> None:
                await client.put_named(held.subject, held.name, held.value, held.signature)

            others = await self._others(await self._quorum.members())
            await self._all({node: give(client) for node, client in others.items()})
        await (self.store.replace if update else self.store.add)(held, self._now())

    async def _split(self, held: Held) -> None:
        """Split a whole secret among all members, with this node's word that it did.

        Its own share comes last, so that a push that failed half way can be made again.
        """
        if await self.store.holds(held.kind, held.subject, held.name):
            raise Conflict(f"this node holds a {held.kind} of {held.subject} already; it is never replaced")
        members, threshold = await asyncio.gather(self._quorum.members(), self._quorum.threshold())
        if self.address not in members:
            raise Unavailable(f"node {self.address} is no member of the quorum: push to one that is")
        others = await self._others(members)
        infos = await self._all(
            {node: _info_of(client, held) for node, client in others.items()}, "say what they hold"
        )
        version = 1
        for info in infos.values():
            if info is not None:
                if info.door != Door.SPLIT or info.revokedAt:
                    raise Conflict(
                        f"node {info.node} holds a {held.kind} of {held.subject} already (door {info.door}); "
                        "only its owner can split it anew"
                    )
                version = max(version, info.version + 1)
        document, shares = share_secret(
            with_push(held.value, held.signature),
            kind=held.kind,
            subject=held.subject,
            name=held.name,
            version=version,
            threshold=threshold,
            nodes=sorted(members, key=str.lower),
            rng=self._rng,
            limit=MAX_PUSHED_BYTES,
        )
        vouched = self._key.sign_message(vouch_challenge(digest(self._domain, document)))

        async def give(node: Address, client: SmsClient) -> None:
            await client.post_share(document, vouched, shares[node], door=Door.SPLIT)

        await self._all({node: give(node, client) for node, client in others.items()})
        await self.put_share(document, vouched, shares[self.address], Door.SPLIT)

    # --- shares -----------------------------------------------------------------------------------

    async def put_share(
        self,
        document: SecretShares,
        signature: bytes,
        share: bytes,
        door: Door = Door.OWN,
    ) -> None:
        """Keep this node's share of a secret that its owner split (`own`), or a node (`split`).

        The same again is fine. Raises InvalidInput or SecretRefused when share and document do not fit this
        node, Unauthorized when the owner did not sign, or no member vouched, Conflict when something else
        is there.
        """
        kind = SecretKind(document.kind)
        if kind is SecretKind.NAMED or door is Door.SINGLE:
            raise InvalidInput(
                "expected a share of a secret of a dataset, an app or a requester: others are not split"
            )
        check_name(kind, document.name)
        if len(share) > MAX_SECRET_BYTES + _PAYLOAD_SLACK:
            raise TooLarge(
                f"expected a share of a secret of at most {MAX_SECRET_BYTES} bytes, got {len(share)}"
            )
        document.check_share(self.address, share)
        if document.expires and document.expires <= self._now():
            raise InvalidInput(
                f"expected a secret that is still good, got one that ended at {document.expires}"
            )
        voucher = None
        if door is Door.OWN:
            await check_signer(
                self._hub, recover_digest(digest(self._domain, document), signature), kind, document.subject
            )
        else:
            voucher = await self._check_voucher(document, signature)
            await owner_of(self._hub, kind, document.subject)
        held = Held(
            kind,
            document.subject,
            document.name,
            document.version,
            door,
            document,
            signature,
            share,
            voucher=voucher,
        )
        await self.store.put_share(held, self._now())

    async def _check_voucher(self, document: SecretShares, signature: bytes) -> Address:
        """The member that split the secret. That its owner pushed it is for the guest to see, which has the
        whole.
        """
        voucher = recover_message(vouch_challenge(digest(self._domain, document)), signature)
        members, threshold = await asyncio.gather(self._quorum.members(), self._quorum.threshold())
        if voucher not in members or voucher not in document.nodes:
            raise Unauthorized(
                f"expected the word of a member of the quorum who holds a share itself, got one of {voucher}"
            )
        if document.threshold < threshold or document.expires:
            raise InvalidInput(
                f"expected a node's split to need at least {threshold} shares and to have no end, got "
                f"{document.threshold} shares, end {document.expires}"
            )
        return voucher

    async def revoke(self, revocation: Revocation, signature: bytes) -> int:
        """Close a secret for deals made later; the chain time from which that counts here.

        Never for deals that are made already: it counts from after the newest block at the earliest. Raises
        Unauthorized unless the owner signed, NotFound when nothing is held under that name.
        """
        kind = SecretKind(revocation.kind)
        check_name(kind, revocation.name)
        signer = recover_digest(digest(self._domain, revocation), signature)
        await check_signer(self._hub, signer, kind, revocation.subject)
        since = max(revocation.time, (await self._hub.block()).timestamp + 1)
        closed = await self.store.revoke(
            kind, revocation.subject, revocation.name, Closed(revocation.version, since), signature
        )
        return closed.since

    # --- what is held, and who got it ---------------------------------------------------------------

    async def holds(self, kind: SecretKind, subject: Address, name: str) -> bool:
        """Whether deals made now can have it: it is here whole, or enough nodes hold matching shares.

        A node without peers can speak for itself only.
        """
        check_name(kind, name)
        own = await self._own_info(kind, subject, name)
        if kind is SecretKind.NAMED or not self._peers or (own and own.door == Door.SINGLE):
            return own is not None and _live(own, self._now())
        asked = (
            asyncio.wait_for(client.share_info(kind, subject, name), PEER_SECONDS) for client in self._peers
        )
        answers = await asyncio.gather(*asked, return_exceptions=True)
        infos = [own, *(answer for answer in answers if isinstance(answer, ShareInfo))]
        live = {
            (info.node, info.documentHash, info.threshold)
            for info in infos
            if info and info.door != Door.SINGLE and _live(info, self._now())
        }
        matching = Counter((document, threshold) for _, document, threshold in live)
        return any(count >= threshold for (_, threshold), count in matching.items())

    async def info(self, kind: SecretKind, subject: Address, name: str) -> ShareInfo:
        """What is held under a name, for anyone; nothing in it depends on the secret. Raises NotFound."""
        check_name(kind, name)
        if (found := await self._own_info(kind, subject, name)) is None:
            raise NotFound(f"this node holds no {kind} of {subject} of that name")
        return found

    async def _own_info(self, kind: SecretKind, subject: Address, name: str) -> ShareInfo | None:
        held, closed = await asyncio.gather(
            self.store.find(kind, subject, name), self.store.closed(kind, subject, name)
        )
        if held is None:
            return None
        document = held.document
        return ShareInfo(
            node=self.address,
            kind=kind,
            subject=subject,
            name=name,
            door=held.door,
            formerly=held.formerly,
            version=held.version,
            documentHash=hexstr(document.struct_hash() if document else ZERO32),
            threshold=document.threshold if document else 1,
            nodes=list(document.nodes) if document else [self.address],
            storedAt=held.stored_at,
            expires=document.expires if document else 0,
            revokedAt=closed.since if closed and held.version <= closed.version else 0,
        )

    async def audit(
        self, kind: SecretKind, subject: Address, name: str, after: int, signature: str
    ) -> AuditTrail:
        """Who got the secret, for its owner. Raises Unauthorized."""
        check_name(kind, name)
        now = self._now()
        try:
            given = bytes.fromhex(signature.removeprefix("0x"))
            periods = (now // AUDIT_SECONDS + step for step in (0, -1, 1))
            signers = {
                recover_message(audit_challenge(self.address, kind, subject, name, period), given)
                for period in periods
            }
        except (ValueError, BadSignature):
            raise Unauthorized(
                "expected an Authorization header: the owner's signature of this question"
            ) from None
        owner = await owner_of(self._hub, kind, subject)
        if owner not in signers:
            raise Unauthorized(
                f"expected the signature of {owner}, the owner of {subject}, of the last minutes: another "
                "key signed, or the clocks differ"
            )
        found = await self.store.trail(kind, subject, name, after=after, limit=AUDIT_LINES + 1)
        lines = []
        for number, line in found[:AUDIT_LINES]:
            version, door = next(
                (v, d) for k, s, n, v, d in line.released if (k, s, n) == (kind, subject, name)
            )
            lines.append(
                AuditLine(
                    id=number,
                    time=line.time,
                    task=hexstr(line.task),
                    deal=hexstr(line.deal),
                    app=line.app,
                    appChecksum=hexstr(line.app_checksum),
                    worker=line.worker,
                    attempt=line.attempt,
                    enclave=line.enclave,
                    platform=line.platform,
                    measurement=line.measurement,
                    version=version,
                    door=door,
                )
            )
        trail = AuditTrail(
            node=self.address,
            kind=kind,
            subject=subject,
            name=name,
            after=after,
            lines=lines,
            more=len(found) > AUDIT_LINES,
            time=now,
        )
        return trail.model_copy(update={"signature": hexstr(self._key.sign_message(trail.digest()))})

    # --- who else holds some -------------------------------------------------------

    async def _others(self, members: Sequence[Address]) -> dict[Address, SmsClient]:
        """The other members. Raises Unavailable when this node was not told of one, or can't reach it."""
        unknown = [client for client in self._peers if client not in self._known.values()]
        found = await asyncio.gather(*(client.node() for client in unknown), return_exceptions=True)
        for client, info in zip(unknown, found, strict=True):
            if not isinstance(info, BaseException):
                self._known[info.address] = client
        others = {node: self._known[node] for node in members if node in self._known and node != self.address}
        if lacking := set(members) - {*others, self.address}:
            raise Unavailable(
                f"expected to reach every member of the quorum, {', '.join(sorted(lacking))} is not among "
                "this node's peers or does not answer: try again, or let its operator add the peer"
            )
        return others

    async def _all(
        self, asked: Mapping[Address, Awaitable[T]], what: str = "store its part"
    ) -> dict[Address, T]:
        """Every node's answer. Raises Conflict when one holds something else, Unavailable when one fails."""
        answers = await asyncio.gather(*asked.values(), return_exceptions=True)
        done = dict(zip(asked, answers, strict=True))
        failed = {node: answer for node, answer in done.items() if isinstance(answer, BaseException)}
        for answer in failed.values():
            if not isinstance(answer, SealdealError):
                raise answer
        if failed:
            kind = (
                Conflict if all(isinstance(answer, Conflict) for answer in failed.values()) else Unavailable
            )
            why = "; ".join(f"{node}: {answer}" for node, answer in failed.items())
            raise kind(f"expected every node to {what}, {len(failed)} did not: {why}")
        return {node: answer for node, answer in done.items() if not isinstance(answer, BaseException)}

    def _now(self) -> int:
        return int(self._clock())


async def _info_of(client: SmsClient, held: Held) -> ShareInfo | None:
    try:
        return await client.share_info(held.kind, held.subject, held.name)
    except NotFound:
        return None


def _live(info: ShareInfo, now: int) -> bool:
    """Whether deals made now get it."""
    return not (info.expires and info.expires <= now) and not (info.revokedAt and info.revokedAt <= now)
