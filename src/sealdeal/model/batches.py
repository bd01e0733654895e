"""Many tasks of one deal settled in one transaction: what the quorum authorises, what the scheduler sends.

A deal asks for it by a bit of its tag (`orders.BATCH`). The rules are in contracts/batches.vy: a batch is of
one page of the deal, 256 tasks counted from its first; its tasks and workers are named by their places in
lists, and all of them are authorised by one signature of the TEE broker, over the `Batch`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from .eip712 import Bytes, Bytes32_, Domain, Typed, Uint256, digest
from .errors import InvalidInput
from .types import ZERO32, Address, Bytes32, address, address_bytes

PAGE = 256
"""Tasks of a page."""
MAX_TASKS, MAX_WORKERS = 128, 32
"""Of a batch."""
SHORT = 20
"""Bytes of a digest that enclaves sign for a deal that asks for batches: as many as an address has. The
contract takes any digest, but keeps, for every task of a batch, as many bytes as the longest has."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """A worker may end a task with what this enclave signs."""

    index: int
    """Of the task in its request order, as `Deal.indices` counts."""
    worker: Address
    enclave: Address


@dataclass(frozen=True, slots=True)
class Proof:
    """What an enclave made of a task."""

    digest: Bytes32
    signature: bytes
    """Personal, of `deals.enclave_message`: the same that contributeAndFinalize asks for."""


@dataclass(frozen=True)
class Batch(Typed):
    """A list of leaves as the TEE broker signs it, under the hub's domain."""

    dealid: Bytes32_
    page: Uint256
    tasks: Uint256
    """A bit for each task of the page; the following are of these tasks, from the lowest bit."""
    workers: Bytes
    """Addresses."""
    assigned: Bytes
    """The place of each task's worker, a byte; nothing if there is only one worker."""
    enclaves: Bytes
    """Addresses."""

    @classmethod
    def of(cls, dealid: Bytes32, first: int, leaves: Iterable[Leaf]) -> Self:
        """The batch of these leaves; `first` is the index of the deal's first task.

        Raises InvalidInput if there are none, too many, or too many workers, if a task is named twice, or if
        they are not of one page.
        """
        ordered = sorted(leaves, key=lambda leaf: leaf.index)
        if not 1 <= len(ordered) <= MAX_TASKS:
            raise InvalidInput(f"expected 1 to {MAX_TASKS} tasks for a batch, got {len(ordered)}")
        places = [leaf.index - first for leaf in ordered]
        if len(set(places)) != len(places):
            raise InvalidInput("expected each task once in a batch")
        if places[0] < 0 or places[0] // PAGE != places[-1] // PAGE:
            given = f"{ordered[0].index} to {ordered[-1].index}"
            raise InvalidInput(f"expected tasks of one page, {PAGE} from {first} on, got {given}")
        workers = list(dict.fromkeys(leaf.worker for leaf in ordered))
        if len(workers) > MAX_WORKERS:
            raise InvalidInput(f"expected at most {MAX_WORKERS} workers in a batch, got {len(workers)}")
        assigned = bytes(workers.index(leaf.worker) for leaf in ordered)
        return cls(
            dealid,
            places[0] // PAGE,
            sum(1 << place % PAGE for place in places),
            b"".join(map(address_bytes, workers)),
            assigned if len(workers) > 1 else b"",
            b"".join(address_bytes(leaf.enclave) for leaf in ordered),
        )

    def leaves(self, first: int) -> list[Leaf]:
        """What it authorises, by index. Raises InvalidInput if its parts do not fit each other."""
        indices = [first + PAGE * self.page + bit for bit in range(PAGE) if self.tasks >> bit & 1]
        workers, enclaves = _addresses(self.workers), _addresses(self.enclaves)
        assigned = self.assigned or bytes(len(indices))
        if (
            self.tasks >> PAGE
            or not 1 <= len(indices) <= MAX_TASKS
            or not 1 <= len(workers) <= MAX_WORKERS
            or bool(self.assigned) != (len(workers) > 1)
            or not len(assigned) == len(enclaves) == len(indices)
            or max(assigned) >= len(workers)
        ):
            raise InvalidInput("expected a worker and an enclave for each task of a batch")
        return [
            Leaf(index, workers[place], enclave)
            for index, place, enclave in zip(indices, assigned, enclaves, strict=True)
        ]

    def settle(
        self, first: int, proofs: Mapping[int, Proof], directory: str, authorisation: bytes
    ) -> tuple[Any, ...]:
        """The arguments of `settleBatch` that settle the tasks that have a proof, by index.

        `directory` is the CID of the results, `authorisation` the TEE broker's signature of this batch.
        Raises InvalidInput if there is no proof, or one of a task that is not in the batch.
        """
        leaves = self.leaves(first)
        if not proofs or proofs.keys() - {leaf.index for leaf in leaves}:
            raise InvalidInput("expected proofs of tasks of the batch, one at least")
        chosen = [leaf.index for leaf in leaves if leaf.index in proofs]
        width = max(len(proofs[index].digest.rstrip(b"\0")) for index in chosen)
        signatures = [
            _compact(proofs[leaf.index].signature)
            if leaf.index in proofs
            else (bytes(12) + address_bytes(leaf.enclave), ZERO32)
            for leaf in leaves
        ]
        return (
            self.dealid,
            self.page,
            self.tasks,
            sum(1 << (index - first) % PAGE for index in chosen),
            _addresses(self.workers),
            self.assigned,
            width,
            b"".join(proofs[index].digest[:width] for index in chosen),
            signatures,
            directory.encode(),
            authorisation,
        )


def batch_message(domain: Domain, batch: Batch) -> Bytes32:
    """What the hub asks its TEE broker about; `domain` is the hub's."""
    return digest(domain, batch)


def batch_result(directory: str, index: int) -> bytes:
    """The result of a task that ended in a batch."""
    return b'{ "storage": "ipfs", "location": "/ipfs/%s/%d" }' % (directory.encode(), index)


def short_digest(full: Bytes32) -> Bytes32:
    """The digest that an enclave signs for a deal that asks for batches."""
    return full[:SHORT] + bytes(32 - SHORT)


def _addresses(packed: bytes) -> list[Address]:
    if len(packed) % 20:
        raise InvalidInput(f"expected addresses of 20 bytes each, got {len(packed)} bytes")
    return [address(packed[at : at + 20]) for at in range(0, len(packed), 20)]


def _compact(signature: bytes) -> tuple[bytes, bytes]:
    """r, and s with the parity in its top bit (EIP-2098)."""
    if len(signature) != 65:
        raise InvalidInput(f"expected a signature of 65 bytes, got {len(signature)}")
    s = int.from_bytes(signature[32:64], "big") | (signature[64] - 27) << 255
    return signature[:32], s.to_bytes(32, "big")
