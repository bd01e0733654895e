"""The owner's side of secrets: split them among SMS nodes, see who holds what, refresh, revoke, read audits.

    secrets = Secrets(clients, chain_id=…, hub=…, quorum=quorum)
    await secrets.split(key, SecretId.dataset(address), value)          # door `own`
    print((await secrets.status(SecretId.dataset(address))).groups)

Nothing is kept here but in memory. A node's word is its own: what nodes say is shown side by side.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from secrets import token_bytes

from sealdeal.chain import Quorum
from sealdeal.model.eip712 import digest
from sealdeal.model.errors import (
    Conflict,
    IntegrityError,
    InvalidInput,
    NotFound,
    SealdealError,
    Unavailable,
)
from sealdeal.model.keys import Key, Rng
from sealdeal.model.sealing import Door, Revocation, SecretKind, SecretShares, secrets_domain, share_secret
from sealdeal.model.types import Address

from .custody import Audit, Holding, SecretId, Status
from .sms import AuditLine, SmsClient

MAX_AUDIT_PAGES = 1000
"""Answers of one node's audit that are read: a node may not keep its reader for ever."""

# --- splitting ------------------------------------------------------------------------------------


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
            if (client := clients.get(node)) is None:
                return Unavailable("it does not answer")
            try:
                await client.post_share(self.document, self.signature, self.shares[node])
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
    expires: int = 0,
) -> SplitReceipt:
    """Split a secret here, sign who holds what, and give each node its share (door `own`).

    `clients`: by the node's address; any `threshold` of them suffice to release it, fewer learn nothing.
    `expires`: unix time from which deals get it no more; 0 never.
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
        expires=expires,
    )
    signature = owner.sign_digest(digest(secrets_domain(chain_id, hub), document))
    return await PreparedSplit(document, signature, shares).send(clients)


# --- the network's nodes, to an owner --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Refreshed:
    """A secret that has moved to other nodes, or was split anew among the same."""

    receipt: SplitReceipt
    revoked: dict[Address, int]
    """Nodes that left -> chain time from which their old shares are closed."""
    untold: dict[str, str]
    """Nodes (URL or address) that may still hold old shares and were not told -> why."""


class RevocationIncomplete(Unavailable):
    """Not every node was told of a revocation. `told` were; the others release until they are: repeat it."""

    def __init__(self, message: str, told: Mapping[Address, int] | None = None) -> None:
        super().__init__(message)
        self.told = dict(told or {})


class Secrets:
    """A network's SMS nodes, as the owner of secrets meets them."""

    def __init__(
        self,
        clients: Sequence[SmsClient],
        *,
        chain_id: int,
        hub: Address,
        quorum: Quorum,
        rng: Rng = token_bytes,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.clients, self.chain_id, self.hub, self.quorum = tuple(clients), chain_id, hub, quorum
        self._rng, self._clock = rng, clock

    def now(self) -> int:
        """Unix time by this machine's clock."""
        return int(self._clock())

    async def nodes(self) -> tuple[dict[Address, SmsClient], dict[str, str]]:
        """(nodes that answer for this network, URL -> why another one does not count)."""
        answers = await asyncio.gather(*(self._node(client) for client in self.clients))
        found: dict[Address, SmsClient] = {}
        silent: dict[str, str] = {}
        for client, answer in zip(self.clients, answers, strict=True):
            if isinstance(answer, SealdealError):
                silent[client.base_url] = str(answer)
            elif answer in found:
                silent[client.base_url] = f"it says to be {answer}, as {found[answer].base_url} does"
            else:
                found[answer] = client
        return found, silent

    async def _node(self, client: SmsClient) -> Address | SealdealError:
        try:
            info = await client.node()
        except SealdealError as failed:
            return failed
        if (info.chainId, info.hub) != (self.chain_id, self.hub):
            return InvalidInput(f"it serves hub {info.hub} on chain {info.chainId}, not this network's")
        return info.address

    # --- sharing ----------------------------------------------------------------------------------

    async def split(
        self,
        owner: Key,
        secret: SecretId,
        value: bytes,
        *,
        nodes: Collection[str] = (),
        threshold: int | None = None,
        expires: int = 0,
        replace: bool = False,
    ) -> SplitReceipt:
        """Split a secret here and give each node its share (door `own`).

        `nodes`: addresses or URLs of members of the quorum; all of them when empty. `threshold`: how many
        recombine it; the quorum's by default. `expires`: unix time, 0 never. `replace`: as the next version
        of what is there. Raises Conflict when it is there, InvalidInput for a choice that cannot work,
        Unavailable when a chosen node is silent (nothing was sent), SplitIncomplete when one failed.
        """
        if secret.kind is SecretKind.NAMED:
            raise InvalidInput(
                "named values are public keys and tokens that every node needs whole: push them"
            )
        if expires and expires <= self.now():
            raise InvalidInput(f"expected an end in the future, got {expires}: no deal would get the secret")
        chosen = await self._chosen(nodes)
        if threshold is None:
            threshold = await self.quorum.threshold()
            if threshold > len(chosen):
                raise InvalidInput(
                    f"expected at least {threshold} nodes, the quorum's threshold, got {len(chosen)}: name "
                    "more of them, or say how many shall suffice"
                )
        if not 1 <= threshold <= len(chosen):
            raise InvalidInput(f"expected a threshold from 1 to {len(chosen)}, the nodes, got {threshold}")
        status = await self.status(secret)
        if unknown := {str(h.node): h.problem for h in status.holdings if h.problem and h.node in chosen}:
            raise Unavailable(
                f"expected chosen nodes to say what they hold of the {secret}: {_listed(unknown)}"
            )
        if status.groups and not replace:
            raise Conflict(
                f"the {secret} is there already, version {status.version}: refresh it to replace it"
            )
        whole = {node for group in status.groups if group.door is Door.SINGLE for node in group.holders}
        if seen := sorted(whole & chosen.keys()):
            raise Conflict(
                f"the {secret} was given whole to {', '.join(seen)} (door single): a share there would hide "
                "that; choose other nodes, or make a new secret"
            )
        return await split_to_nodes(
            value,
            kind=secret.kind,
            subject=secret.subject,
            name=secret.name,
            version=status.version + 1,
            threshold=threshold,
            clients=chosen,
            owner=owner,
            chain_id=self.chain_id,
            hub=self.hub,
            rng=self._rng,
            expires=expires,
        )

    async def push_named(self, owner: Key, name: str, value: str) -> tuple[Address, ...]:
        """Give every node a named value, whole: a public key, or a token that each node needs.

        In place of an older one; safe to repeat. Raises Unavailable, naming the nodes that lack it.
        """
        found, failed = await self.nodes()
        answers = await asyncio.gather(
            *(client.push_named_secret(owner, name, value) for client in found.values()),
            return_exceptions=True,
        )
        for client, answer in zip(found.values(), answers, strict=True):
            if isinstance(answer, Unavailable):
                failed[client.base_url] = str(answer)
            elif answer is not None:
                raise answer
        if failed:
            raise Unavailable(f"not every node has the named value yet, repeat it: {_listed(failed)}")
        return tuple(found)

    async def _chosen(self, wanted: Collection[str]) -> dict[Address, SmsClient]:
        """The members of the quorum that are named by address or URL; all when none is."""
        (found, silent), members = await asyncio.gather(self.nodes(), self.quorum.members())
        if not wanted:
            if silent:
                raise Unavailable(
                    f"not all nodes answer ({_listed(silent)}): wait, or name those that shall hold shares"
                )
            chosen = {node: client for node, client in found.items() if node in members}
        else:
            chosen = {}
            for text in wanted:
                name = text.rstrip("/").lower()
                node = next((n for n, c in found.items() if name in (n.lower(), c.base_url.lower())), None)
                if node is None:
                    why = silent.get(text.rstrip("/"), "no node of this network has that URL or address")
                    raise Unavailable(f"expected a node that answers, {text}: {why}")
                if node not in members:
                    raise InvalidInput(
                        f"expected members of the quorum {self.quorum.address}, {text} is none: no guest "
                        "would ask it"
                    )
                chosen[node] = found[node]
        if not chosen:
            raise Unavailable(f"no node of the quorum {self.quorum.address} answers ({_listed(silent)})")
        return chosen

    async def refresh(
        self,
        owner: Key,
        secret: SecretId,
        value: bytes,
        *,
        nodes: Collection[str] = (),
        threshold: int | None = None,
        expires: int = 0,
    ) -> Refreshed:
        """Split a secret anew, as the next version, among the same nodes or others; close the old one.

        Deals made before keep their grant everywhere. Raises NotFound when there is nothing to refresh, else
        as `split` does; nodes that leave are told only after all new ones stored.
        """
        before = await self.status(secret)
        if not before.groups:
            raise NotFound(f"no node holds the {secret}: split it first")
        stay, least = set(await self._chosen(nodes)), await self.quorum.threshold()
        leaving = {h.node for h in before.holdings if h.info and h.node and h.node not in stay}
        if leaving and len(stay) < least:  # who lost a dataset's key grants nothing for it
            raise InvalidInput(
                f"expected at least {least} nodes, whose grants a task needs, got {len(stay)}: those that "
                "lose their share refuse later deals"
            )
        receipt = await self.split(
            owner, secret, value, nodes=nodes, threshold=threshold, expires=expires, replace=True
        )
        untold = {h.url: h.problem for h in before.holdings if h.problem and h.node not in stay}
        found, _ = await self.nodes()
        signed = self._revocation(owner, secret, receipt.document.version - 1, None)
        told, failed = await self._tell({n: c for n, c in found.items() if n in leaving}, *signed)
        gone = {str(node): "it does not answer any more" for node in leaving - found.keys()}
        return Refreshed(receipt, told, {**untold, **gone, **{str(n): why for n, why in failed.items()}})

    async def revoke(self, owner: Key, secret: SecretId, *, at: int | None = None) -> dict[Address, int]:
        """Close a secret, all versions there are, for deals made from unix time `at` (now) on.

        Deals made before keep what they were promised. Node -> chain time from which it counts. Raises
        NotFound when no node holds the secret, RevocationIncomplete when one could not be told.
        """
        status = await self.status(secret)
        if not status.groups and not status.silent:
            raise NotFound(f"no node holds the {secret}")
        found, _ = await self.nodes()
        holders = {h.node for h in status.holdings if h.info and h.node}
        signed = self._revocation(owner, secret, max(1, status.version), at)
        told, failed = await self._tell({n: c for n, c in found.items() if n in holders}, *signed)
        untold = {**status.silent, **{str(node): why for node, why in failed.items()}}
        if untold:
            raise RevocationIncomplete(
                f"{len(told)} nodes were told that the {secret} is revoked, these were not: "
                f"{_listed(untold)}; repeat it, since enough of them together still release it",
                told,
            )
        return told

    def _revocation(
        self, owner: Key, secret: SecretId, version: int, at: int | None
    ) -> tuple[Revocation, bytes]:
        made = Revocation(
            kind=secret.kind,
            subject=secret.subject,
            name=secret.name,
            version=version,
            time=self.now() if at is None else at,
        )
        return made, owner.sign_digest(digest(secrets_domain(self.chain_id, self.hub), made))

    async def _tell(
        self, clients: Mapping[Address, SmsClient], revocation: Revocation, signature: bytes
    ) -> tuple[dict[Address, int], dict[Address, str]]:
        """(node -> since when it counts, node -> why it was not told)."""
        answers = await asyncio.gather(
            *(client.revoke(revocation, signature) for client in clients.values()), return_exceptions=True
        )
        told, failed = {}, {}
        for node, answer in zip(clients, answers, strict=True):
            if isinstance(answer, int):
                told[node] = answer
            elif isinstance(answer, SealdealError):
                failed[node] = str(answer)
            else:
                raise answer
        return told, failed

    # --- looking ----------------------------------------------------------------------------------

    async def status(self, secret: SecretId) -> Status:
        """Who holds what of a secret, asked of every node of the network."""
        found, silent = await self.nodes()
        holdings = await asyncio.gather(*(self._holding(n, c, secret) for n, c in found.items()))
        lost = [Holding(url, None, None, why) for url, why in silent.items()]
        return Status(secret, (*holdings, *lost))

    async def _holding(self, node: Address, client: SmsClient, secret: SecretId) -> Holding:
        try:
            info = await client.share_info(secret.kind, secret.subject, secret.name)
        except NotFound:
            return Holding(client.base_url, node, None)
        except SealdealError as failed:
            return Holding(client.base_url, node, None, str(failed))
        if (info.node, info.kind, info.subject, info.name) != (
            node,
            secret.kind,
            secret.subject,
            secret.name,
        ):
            return Holding(client.base_url, node, None, "it answers for another node or secret")
        return Holding(client.base_url, node, info)

    async def audit(self, owner: Key, secret: SecretId) -> Audit:
        """Who got a secret, by each node's signed words. Nodes that do not answer truly are named in it."""
        found, silent = await self.nodes()
        answers = await asyncio.gather(*(self._trail(client, owner, secret) for client in found.values()))
        trails: dict[Address, list[AuditLine]] = {}
        for (node, client), answer in zip(found.items(), answers, strict=True):
            if isinstance(answer, SealdealError):
                silent[client.base_url] = str(answer)
            else:
                trails[node] = answer
        return Audit.of(secret, trails, silent)

    async def _trail(
        self, client: SmsClient, owner: Key, secret: SecretId
    ) -> list[AuditLine] | SealdealError:
        lines: list[AuditLine] = []
        after = 0
        try:
            for _ in range(MAX_AUDIT_PAGES):
                page = await client.audit(
                    owner, secret.kind, secret.subject, secret.name, after=after, now=self._clock()
                )
                for line in page.lines:
                    if line.id <= after:
                        raise IntegrityError("its lines do not rise")
                    after = line.id
                lines += page.lines
                if not page.more:
                    return lines
        except SealdealError as failed:
            return failed
        return IntegrityError(f"its audit does not end after {MAX_AUDIT_PAGES} answers")


def _listed(problems: Mapping[str, str]) -> str:
    return "; ".join(f"{where}: {why}" for where, why in problems.items()) or "none"
