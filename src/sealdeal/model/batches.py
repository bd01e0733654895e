"""Batches: many tasks of one deal settled in one transaction (contracts/batches.vy).

A batch is about one page of a deal: 256 tasks, page 0 from the deal's first. Its leaves say which worker's
enclave did which task; the quorum authorises all of them with one signature of `Batch`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from .deals import Deal, task_id
from .eip712 import Bytes, Bytes32_, Typed, Uint256
from .errors import InvalidInput
from .types import Address, Bytes32, address, address_bytes

PAGE: Final = 256
MAX_TASKS: Final = 128
"""Tasks of one batch."""
MAX_WORKERS: Final = 32
"""Different workers of one batch."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """This worker's enclave may end this task."""

    index: int
    """Absolute index of the task in its request."""
    worker: Address
    enclave: Address


@dataclass(frozen=True)
class Batch(Typed):
    """What the TEE broker signs, under the hub's domain."""

    dealid: Bytes32_
    page: Uint256
    tasks: Uint256
    """A bit for each task, from the page's first."""
    workers: Bytes
    """20 bytes each."""
    assigned: Bytes
    """For each task the place of its worker, a byte; empty if there is one worker."""
    enclaves: Bytes
    """20 bytes for each task."""

    @classmethod
    def of(cls, deal: Deal, leaves: Sequence[Leaf]) -> Self:
        """The batch of these leaves, whatever their order.

        Raises InvalidInput for none or too many, for tasks of several pages, and for a task twice.
        """
        ordered = sorted(leaves, key=lambda leaf: leaf.index)
        workers = sorted({leaf.worker for leaf in ordered})
        places = [leaf.index - deal.bot_first for leaf in ordered]
        pages = {place // PAGE for place in places}
        if not 1 <= len(ordered) <= MAX_TASKS or len(workers) > MAX_WORKERS:
            raise InvalidInput(
                f"expected a batch of 1 to {MAX_TASKS} tasks and at most {MAX_WORKERS} workers, "
                f"got {len(ordered)} and {len(workers)}"
            )
        if (
            len(pages) != 1
            or len(set(places)) != len(places)
            or not 0 <= places[0] <= places[-1] < deal.bot_size
        ):
            raise InvalidInput(f"expected different tasks of one page of the deal, got {places}")
        (page,) = pages
        return cls(
            dealid=deal.dealid,
            page=page,
            tasks=sum(1 << place % PAGE for place in places),
            workers=b"".join(map(address_bytes, workers)),
            assigned=bytes(workers.index(leaf.worker) for leaf in ordered) if len(workers) > 1 else b"",
            enclaves=b"".join(address_bytes(leaf.enclave) for leaf in ordered),
        )

    def leaves(self, deal: Deal) -> list[Leaf]:
        """Its leaves by index. Raises InvalidInput unless it is as `of` makes it, for this deal."""
        places = [bit for bit in range(PAGE) if self.tasks >> bit & 1]
        workers, enclaves = _addresses(self.workers), _addresses(self.enclaves)
        assigned = self.assigned if len(workers) != 1 else bytes(len(places))
        if not len(places) == len(enclaves) == len(assigned) or any(of >= len(workers) for of in assigned):
            raise InvalidInput(
                f"expected an enclave and a worker for each of {len(places)} tasks, got {len(enclaves)} and "
                f"{len(assigned)}"
            )
        first = deal.bot_first + PAGE * self.page
        leaves = [
            Leaf(first + place, workers[of], enclave)
            for place, of, enclave in zip(places, assigned, enclaves, strict=True)
        ]
        if self.of(deal, leaves) != self:
            raise InvalidInput("expected a batch in its canonical form")
        return leaves

    def task_ids(self, deal: Deal) -> list[Bytes32]:
        """The ids of its tasks, in order."""
        return [task_id(deal.dealid, leaf.index) for leaf in self.leaves(deal)]


def compact_signature(signature: bytes) -> tuple[bytes, bytes]:
    """(r, s with v's parity as its highest bit) of a 65-byte signature: EIP-2098."""
    r, s, v = signature[:32], int.from_bytes(signature[32:64], "big"), signature[64]
    return r, (s | (v - 27 & 1) << 255).to_bytes(32, "big")


def _addresses(packed: bytes) -> list[Address]:
    if len(packed) % 20:
        raise InvalidInput(f"expected addresses of 20 bytes each, got {len(packed)} bytes")
    return [address(packed[i : i + 20]) for i in range(0, len(packed), 20)]
