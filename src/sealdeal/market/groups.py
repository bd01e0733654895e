"""Groups (ERC-734) that orders are restricted to: which contracts they are, and whom they admit.

Both are asked on chain. That a restriction is a group is found out once, when an order that names it is
published; whom it admits is asked at the block of each decision, for groups tell nobody when it changes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sealdeal.chain import Hub
from sealdeal.model.types import ZERO, Address, Block

from .shelves import RESTRICTIONS
from .store import MarketStore

ASKED = 500
"""Questions to groups that one decision may cost; beyond them the answer is no."""

Pair = tuple[Address, Address]
"""(group, account)."""


class Groups:
    """Asks a market's groups."""

    def __init__(self, store: MarketStore, hub: Hub) -> None:
        self._store, self._hub = store, hub

    async def found_in(self, order: Any, block: Block) -> tuple[Address, ...]:
        """Which of an order's restrictions are groups that the store does not know yet."""
        named = {getattr(order, name, ZERO) for name in (*RESTRICTIONS, "workerpool")} - {ZERO}
        new = sorted(named - await self._store.groups(named))
        answers = await self._hub.group_answers([(address, address) for address in new], block)
        return tuple(group for group, said in zip(new, answers, strict=True) if said is not None)

    async def admitted(self, pairs: Iterable[Pair], block: Block | None) -> frozenset[Pair]:
        """Those of these pairs whose group admits the account."""
        asked = sorted(set(pairs))[:ASKED]
        answers = await self._hub.group_answers(asked, block)
        return frozenset(pair for pair, said in zip(asked, answers, strict=True) if said)
