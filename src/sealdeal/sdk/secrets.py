"""The owner's side of secrets: split here, and given to SMS nodes in shares (door `own`)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from sealdeal.model.eip712 import digest
from sealdeal.model.errors import SealdealError, Unavailable
from sealdeal.model.keys import Key, Rng
from sealdeal.model.sealing import SecretShares, secrets_domain, share_secret
from sealdeal.model.types import Address

from .sms import SmsClient


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
