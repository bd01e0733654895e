"""What the operator of a pool decides."""

from __future__ import annotations

from dataclasses import dataclass, field

from sealdeal.model.types import Address

ATTEMPTS = 3
"""Attempts at one task. The SMS nodes vouch for no more (DESIGN, enclave identity)."""
LOST_AFTER = 60.0
"""Seconds without a poll after which a worker counts as lost."""


@dataclass(frozen=True, slots=True)
class Rules:
    """A pool's settings that bear on decisions."""

    attempts: int = ATTEMPTS
    lost_after: float = LOST_AFTER
    require_stake: bool = False
    """Give work only to workers whose free stake covers the deal's worker stake, which the contract
    does not ask for in contributeAndFinalize."""
    batch: bool = True
    """Offer to settle the tasks of deals that ask for it in batches."""


@dataclass(frozen=True)
class PoolSettings:
    """What an operator decides."""

    workerpool: Address
    nodes: tuple[tuple[Address, str], ...] = ()
    """The SMS nodes of the quorum and their URLs, as workers reach them."""
    results_url: str = ""
    public_url: str = ""
    """This scheduler's URL, as others reach it."""
    confirmations: int = 0
    """Depth below the newest block at which the chain is believed."""
    origin: int = 0
    """The block at which the contracts were deployed, or any before the pool's first deal."""
    whitelist: frozenset[Address] | None = None
    """The workers admitted; None admits any."""
    rules: Rules = field(default_factory=Rules)
    required_worker_version: str = ""
