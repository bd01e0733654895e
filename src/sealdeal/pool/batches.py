"""Batched deals: what their workers hand in, and how it is settled, many tasks in one transaction.

Nothing is remembered of a settlement under way: the same results lead to the same transaction, which the
sender sends once, and what a transaction settled is skipped by the hub if another names it again.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Mapping

from sealdeal.chain import Hub, Quorum, Receipt, Reverted
from sealdeal.model.batches import (
    MAX_TASKS,
    MAX_WORKERS,
    Batch,
    Leaf,
    Proof,
    batch_message,
    short_digest,
)
from sealdeal.model.deals import (
    MAX_GRANTS,
    Deal,
    Grant,
    authorisation_blob,
    authorisation_message,
    enclave_message,
    quorum_domain,
)
from sealdeal.model.eip712 import digest, hub_domain
from sealdeal.model.errors import InvalidInput, SealdealError, Unavailable
from sealdeal.model.keys import message_digest, recover_digest, recover_message
from sealdeal.model.types import Address, Bytes32, keccak
from sealdeal.sdk.http import Transport
from sealdeal.sdk.pool import Handed
from sealdeal.sdk.results import ResultsClient
from sealdeal.sdk.sms import SmsClient

from .rules import PoolSettings
from .store import AttemptRow, ResultRow


class Batches:
    """Takes results and settles them, for one pool. `hub` acts for the pool's owner."""

    def __init__(
        self,
        hub: Hub,
        chain_id: int,
        settings: PoolSettings,
        transports: Mapping[str, Transport] | None = None,
    ) -> None:
        """`transports`: by URL, for services in this process."""
        inside = transports or {}
        self._hub, self._chain_id = hub, chain_id
        self._domain = hub_domain(chain_id, hub.addresses.hub)
        url = settings.results_url
        self._results = ResultsClient(url, inside.get(url))
        self._nodes = {node: SmsClient(at, inside.get(at)) for node, at in settings.nodes}

    async def close(self) -> None:
        await asyncio.gather(self._results.close(), *(node.close() for node in self._nodes.values()))

    # --- taking

    async def take(self, row: AttemptRow, deal: Deal, handed: Handed) -> ResultRow:
        """What an attempt handed in, once the hub would settle it and the result lies in the store.

        So no worker can spoil the batch of others. Raises InvalidInput, NotFound (no result was uploaded), or
        Unavailable.
        """
        if not deal.batched:
            raise InvalidInput("the deal does not ask for batches: contribute the result to the hub")
        if handed.digest != short_digest(handed.digest):
            raise InvalidInput("expected a short digest, padded with zeros: the deal asks for batches")
        signer = recover_message(enclave_message(row.worker, row.task, handed.digest), handed.signature)
        if signer != handed.enclave or len(handed.signature) != 65:
            raise InvalidInput(
                f"expected enclave {handed.enclave} to sign the digest in 65 bytes, {signer} did"
            )
        asked = message_digest(authorisation_message(row.worker, row.task, handed.enclave))
        broker = await self._hub.tee_broker()
        if not await self._hub.verify_signature(broker, asked, handed.authorisation):
            raise InvalidInput(f"expected the TEE broker {broker} to authorise the enclave: the hub says no")
        cid = (await self._results.receipt(row.task, row.worker)).receipt.cid
        return ResultRow(
            task=row.task,
            worker=row.worker,
            enclave=handed.enclave,
            digest=handed.digest,
            signature=handed.signature,
            authorisation=handed.authorisation,
            cid=cid,
        )

    # --- settling

    async def settle(self, deal: Deal, found: Mapping[int, ResultRow]) -> Receipt | None:
        """Settle tasks of one page, by index; the last transaction's receipt.

        In one batch, unless it has too many workers, or no `threshold` nodes granted all of its enclaves.
        Raises Unavailable when too few nodes answer, what the store refuses, NotMined, or, when nothing was
        settled, Reverted: every task had ended, or the time is over, and the chain shows it soon.
        """
        receipt, refused = None, None
        for part in _parts(found):
            try:
                receipt = await self._settle(deal, part)
            except Reverted as reason:
                refused = reason
            except TooFewNodes:
                groups = self._by_granters(part)
                if len(groups) < 2:
                    raise
                for group in groups:
                    receipt = await self._settle(deal, group)
        if receipt is None and refused is not None:
            raise refused
        return receipt

    async def _settle(self, deal: Deal, found: Mapping[int, ResultRow]) -> Receipt:
        leaves = [Leaf(index, row.worker, row.enclave) for index, row in found.items()]
        batch = Batch.of(deal.dealid, deal.bot_first, leaves)
        proofs = {index: Proof(row.digest, row.signature) for index, row in found.items()}
        directory = await self._results.put_directory({str(i): row.cid for i, row in found.items()})
        authorisation = await self._authorise(batch)
        intent = keccak(b"settleBatch" + batch.struct_hash() + directory.encode())
        return await self._hub.settle_batch(deal, batch, proofs, directory, authorisation, intent=intent)

    async def _authorise(self, batch: Batch) -> bytes:
        """The quorum's word for a batch. Raises TooFewNodes."""
        quorum, asked = self._quorum, batch_message(self._domain, batch)
        threshold, members = await asyncio.gather(quorum.threshold(), quorum.members())

        async def ask(node: Address, client: SmsClient) -> tuple[Address, int, bytes]:
            grant = await client.grant_batch(batch)
            signature = bytes.fromhex(grant.signature.removeprefix("0x"))
            signed = digest(quorum_domain(self._chain_id, quorum.address), Grant(asked, grant.validUntil))
            if node not in members or recover_digest(signed, signature) != node:
                raise InvalidInput(f"expected a grant of node {node}, got another's")
            return node, grant.validUntil, signature

        answers = await asyncio.gather(
            *(ask(node, client) for node, client in self._nodes.items()), return_exceptions=True
        )
        by_time: dict[int, dict[Address, bytes]] = defaultdict(dict)
        refused = []
        for answer in answers:
            if isinstance(answer, SealdealError | ValueError):
                refused.append(str(answer))
            elif isinstance(answer, BaseException):
                raise answer
            else:
                node, until, signature = answer
                by_time[until][node] = signature
        until, grants = max(by_time.items(), key=lambda item: len(item[1]), default=(0, {}))
        if len(grants) < threshold:
            why = "; ".join(refused) or "none refused"
            raise TooFewNodes(f"{len(grants)} of {threshold} needed nodes granted a batch: {why}")
        return authorisation_blob(until, dict(sorted(grants.items())[: min(threshold, MAX_GRANTS)]))

    @property
    def _quorum(self) -> Quorum:
        broker = self._hub.addresses.quorum
        if broker is None:
            raise InvalidInput("the hub has no quorum of SMS nodes: nothing can be settled in batches")
        return Quorum(self._hub.rpc, broker)

    def _by_granters(self, found: Mapping[int, ResultRow]) -> list[dict[int, ResultRow]]:
        """The same results, by the nodes that vouched for each: a node that was away for some refuses all."""
        groups: dict[frozenset[Address], dict[int, ResultRow]] = defaultdict(dict)
        for index, row in found.items():
            groups[self._granters(row)][index] = row
        return list(groups.values())

    def _granters(self, row: ResultRow) -> frozenset[Address]:
        until, signatures = int.from_bytes(row.authorisation[:32], "big"), row.authorisation[32:]
        asked: Bytes32 = message_digest(authorisation_message(row.worker, row.task, row.enclave))
        signed = digest(quorum_domain(self._chain_id, self._quorum.address), Grant(asked, until))
        pieces = (signatures[i : i + 65] for i in range(0, len(signatures), 65))
        return frozenset(recover_digest(signed, piece) for piece in pieces)


class TooFewNodes(Unavailable):
    """Fewer SMS nodes than the quorum's threshold vouched for a batch: it is tried again in time."""


def _parts(found: Mapping[int, ResultRow]) -> Iterator[dict[int, ResultRow]]:
    """As few batches as hold them, in order."""
    part: dict[int, ResultRow] = {}
    workers: set[Address] = set()
    for index, row in sorted(found.items()):
        if len(part) == MAX_TASKS or len(workers | {row.worker}) > MAX_WORKERS:
            yield part
            part, workers = {}, set()
        part[index] = row
        workers.add(row.worker)
    if part:
        yield part
