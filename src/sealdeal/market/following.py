"""How a store of the market's keeps up with the chain: the index of orders, and the subgraphs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from sealdeal.chain import Batch, BlockGone, Follower, Hub, RolledBack
from sealdeal.model.errors import SealdealError
from sealdeal.model.types import Block

from .journal import UNREACHABLE

log = logging.getLogger("sealdeal.market")

STATES: Final = 64
"""Blocks below the head whose state every node still has (full nodes keep 128)."""
_RETRY: Final = 1.0
"""Seconds after the chain or the database was at fault."""


class Overtaken(Exception):
    """A store is not, or no longer, at the block that a decision read: read again, decide again."""


async def keep_up(
    what: str,
    start: Callable[[], Awaitable[Follower]],
    *,
    apply: Callable[[Batch], Awaitable[None]],
    roll_back: Callable[[Block], Awaitable[None]],
    interval: float,
) -> None:
    """Take each step of the follower that `start` makes from what is stored; ends by cancellation only.

    Begins again `interval` seconds after another market node was quicker or the chain moved, and later while
    the chain or the database is at fault, of which the log is told as `what`.
    """
    while True:
        try:
            async for item in await start():
                await (roll_back(item.to) if isinstance(item, RolledBack) else apply(item))
        except (Overtaken, BlockGone):
            await asyncio.sleep(interval)
        except (SealdealError, *UNREACHABLE) as wrong:
            log.warning("%s: %s", what, wrong)
            await asyncio.sleep(_RETRY)


async def readable(hub: Hub, block: Block) -> Block:
    """`block`, or, when nodes may have forgotten its state, one that is settled and still readable.

    What is read then is already as the events in between will leave it; applying these again changes nothing.
    """
    settled = await hub.final_block(STATES)
    return settled if settled.number > block.number else block
