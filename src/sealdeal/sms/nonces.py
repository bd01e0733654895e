"""Nonces: authenticated and with an end, so that nothing is stored before one is spent.

What was spent is in the database. A database can be set back to a copy, which has forgotten some of it; so
each process has an *epoch* of its own, and takes nonces of its own epoch only. A node that stops in order
leaves its epoch to the next process, once, for a minute: all that was spent under it is in the database that
it closed. A crash, or a copy made while a node ran, leaves nothing.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sealdeal.model.deals import Assignment
from sealdeal.model.keys import Rng
from sealdeal.model.types import Address, address_bytes
from sealdeal.sdk.sms import NonceRefused

NONCE_SECONDS = 600
"""Life of a nonce: a guest gathers nonces, a quote and answers in a few seconds."""
HANDOVER_SECONDS = 60
"""How long after an orderly stop the next process takes its nonces."""
_HEAD, _MAC = 8 + 16 + 16, 24


def members_mark(nodes: Iterable[Address], threshold: int) -> bytes:
    """16 bytes that stand for the quorum's members and threshold."""
    listed = b"".join(address_bytes(node) for node in sorted(nodes, key=str.lower))
    return hashlib.sha256(threshold.to_bytes(32, "big") + listed).digest()[:16]


@dataclass(frozen=True, slots=True)
class Fresh:
    """A nonce that this node gave for the assignment, and that is still good."""

    nonce: bytes
    expires: int
    members: bytes
    """`members_mark` of the quorum when it was given."""

    @property
    def id(self) -> bytes:
        """What is stored when it is spent."""
        return hashlib.sha256(self.nonce).digest()


class Nonces:
    """One process's."""

    def __init__(
        self,
        node: Address,
        key: bytes,
        clock: Callable[[], float],
        rng: Rng,
        left: tuple[bytes, int] | None = None,
    ) -> None:
        """`key`: 32 bytes; `left`: the epoch that the process before left, and when it stopped."""
        self._node, self._clock, self._rng = node, clock, rng
        self.epoch = rng(32)
        epochs = [self.epoch]
        if left is not None and -1 <= clock() - left[1] <= HANDOVER_SECONDS:
            epochs.append(left[0])
        self._keys = [hmac.digest(key, b"epoch" + epoch, "sha256") for epoch in epochs]

    def give(self, assignment: Assignment, members: bytes) -> tuple[bytes, int]:
        """expiry (8) ‖ random (16) ‖ members' mark (16) ‖ MAC (24), and the expiry (unix time)."""
        expires = int(self._clock()) + NONCE_SECONDS
        head = expires.to_bytes(8, "big") + self._rng(16) + members
        return head + self._mac(self._keys[0], head, assignment), expires

    def check(self, nonces: Sequence[tuple[Address, bytes]], assignment: Assignment) -> Fresh:
        """This node's among those that the guest shows. Raises NonceRefused."""
        own = [nonce for node, nonce in nonces if node == self._node]
        if len(own) != 1 or len(nonces) > 255:
            raise NonceRefused(f"expected one nonce of node {self._node}, got {len(own)}")
        (nonce,) = own
        head, expires = nonce[:_HEAD], int.from_bytes(nonce[:8], "big")
        macs = (self._mac(key, head, assignment) for key in self._keys)
        if len(nonce) != _HEAD + _MAC or not any(hmac.compare_digest(nonce[_HEAD:], mac) for mac in macs):
            raise NonceRefused(
                "expected a nonce that this node gave for this task, worker and attempt since it was "
                "started: ask for a new one"
            )
        if int(self._clock()) >= expires:
            raise NonceRefused(f"expected a nonce that is still good, got one that expired at {expires}")
        return Fresh(nonce, expires, head[24:])

    def _mac(self, key: bytes, head: bytes, assignment: Assignment) -> bytes:
        """Over (node, task, worker, attempt, expiry, random, members)."""
        bound = b"sealdeal nonce 2" + address_bytes(self._node) + assignment.task
        bound += address_bytes(assignment.worker) + assignment.attempt.to_bytes(32, "big") + head
        return hmac.digest(key, bound, "sha256")[:_MAC]
