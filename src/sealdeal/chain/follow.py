"""Events in order, from a block on, over reorganisations and outages.

The follower gives what lies between one block and the next it was shown, so a consumer that stores the last
`Batch.block` together with what it derived from the batch misses nothing and repeats nothing. `Progress` has
the consumer's own readers wait until it shows the head.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sealdeal.model.errors import NotFound, Unavailable
from sealdeal.model.types import Block, hexstr, unhex

from .abi import Event
from .contract import Contract, events
from .errors import BadAnswer, ChainUnreachable, RpcError, WrongChain
from .reads import Reader, header_block
from .rpc import Rpc

log = logging.getLogger("sealdeal.chain")

RANGE = 1000
"""Blocks in one eth_getLogs while catching up; halved while the provider refuses, then doubled again."""
LINKED = 32
"""Up to this many new blocks, every header is read and the chain of hashes checked."""
TRAIL = 256
"""Blocks remembered to find how far a reorganisation goes back."""
PATIENCE = 5.0
"""Seconds that a reader waits for a store to reach the head of the chain."""


@dataclass(frozen=True)
class Batch:
    """Everything that the contracts emitted after the block shown before, up to and including `block`."""

    block: Block
    events: tuple[Event, ...]
    """In the order of the chain. None at all is normal: the head moved on."""


@dataclass(frozen=True)
class RolledBack:
    """The chain dropped what was shown above `to`: undo it. What replaced it follows."""

    to: Block


class _Moved(Exception):
    """The chain changed while it was read; read again."""


class Follower:
    """Follows contracts: `async for item in follower` never ends, and gives `Batch` or `RolledBack`.

    `start`: the last block that was dealt with, or several of them, any order (the newest that is still on
    the chain counts, after a RolledBack if that is not the newest given); without it, block `origin`.
    `confirmations`: show only blocks that lie this deep below the newest. `names`: these events only.
    `interval`: seconds between looks at the head. `lag`: seconds for which a node may show an older head
    than before (a slow replica) without that being a rollback.
    """

    def __init__(
        self,
        rpc: Rpc,
        contracts: Iterable[Contract],
        *,
        confirmations: int = 0,
        start: Block | Sequence[Block] | None = None,
        origin: int = 0,
        names: Iterable[str] | None = None,
        interval: float = 0.2,
        lag: float = 2.0,
    ) -> None:
        self.rpc, self.contracts = rpc, tuple(contracts)
        self.confirmations, self.origin, self.interval, self.lag = confirmations, origin, interval, lag
        given = [start] if isinstance(start, Block) else list(start or ())
        self._trail = deque(sorted(given, key=lambda block: block.number), maxlen=TRAIL)
        self._names = None if names is None else frozenset(names)
        topics = {t for c in self.contracts for t in self._topics(c)}
        self._filter: dict[str, Any] = {"address": [c.address for c in self.contracts]}
        if names is not None:
            self._filter["topics"] = [[hexstr(topic) for topic in sorted(topics)]]
        self._range = RANGE
        self._behind: float | None = None
        self._seen: str | None = None  # a head that had nothing new

    def _topics(self, contract: Contract) -> Iterable[bytes]:
        for name in self._names or ():
            if contract.abi.has_event(name):
                yield contract.abi.topic(name)

    @property
    def cursor(self) -> Block | None:
        """The last block shown; None before the first."""
        return self._trail[-1] if self._trail else None

    async def __aiter__(self) -> AsyncIterator[Batch | RolledBack]:
        down = False
        while True:
            try:
                item = await self._next()
                down = False
            except (ChainUnreachable, RpcError, BadAnswer) as gone:
                if not down:
                    log.warning("%s; following goes on when it answers again", gone)
                down, item = True, None
            except _Moved:
                item = None
            if item is not None:
                yield item
            else:
                await asyncio.sleep(self.interval)

    async def _next(self) -> Batch | RolledBack | None:
        """The next thing to show; None when there is nothing new."""
        if not self._trail:
            self._trail.append(await self._header(self.origin))
        cursor = self._trail[-1]
        head = await self.rpc.call("eth_getBlockByNumber", "latest", False)
        if head["hash"] == self._seen:
            return None
        kept = await self.rpc.call("eth_getBlockByNumber", hex(cursor.number), False)
        if kept is None or unhex(kept["hash"]) != cursor.hash:
            return await self._roll_back(int(head["number"], 16) < cursor.number)
        self._behind = None
        target = int(head["number"], 16) - self.confirmations
        if target <= cursor.number:
            self._seen = head["hash"]
            return None
        block, found = await self._read(cursor, min(target, cursor.number + self._range))
        self._trail.append(block)
        return Batch(block, found)

    async def _roll_back(self, shorter: bool) -> RolledBack | None:
        clock = asyncio.get_running_loop().time()
        if shorter and self.lag:
            self._behind = self._behind or clock
            if clock - self._behind < self.lag:
                return None
        self._behind = None
        while self._trail:
            known = list(self._trail)[-100:]
            calls = [("eth_getBlockByNumber", hex(block.number), False) for block in known]
            for block, now in reversed(list(zip(known, await self.rpc.batch(calls), strict=True))):
                if now is not None and unhex(now["hash"]) == block.hash:
                    return RolledBack(block)
                self._trail.pop()
        ground = await self._header(self.origin)
        self._trail.append(ground)
        return RolledBack(ground)

    async def _header(self, number: int) -> Block:
        found = await self.rpc.call("eth_getBlockByNumber", hex(number), False)
        if found is None:
            raise WrongChain(
                f"{self.rpc.name} has no block {number}, from which the contracts are followed; check the URL"
            )
        return header_block(found)

    async def _read(self, cursor: Block, last: int) -> tuple[Block, tuple[Event, ...]]:
        """The block `last` and the events after `cursor` up to it, all of one chain; else raises _Moved."""
        while True:
            span = {"fromBlock": hex(cursor.number + 1), "toBlock": hex(last)}
            linked = last - cursor.number <= LINKED
            numbers = range(cursor.number + 1, last + 1) if linked else (last,)
            headers = [("eth_getBlockByNumber", hex(number), False) for number in numbers]
            ends = [("eth_getBlockByNumber", hex(number), False) for number in (cursor.number, last)]
            *before, logs, first_now, last_now = await self.rpc.batch(
                [*headers, ("eth_getLogs", self._filter | span), *ends], raising=False
            )
            refused = next(
                (a for a in (*before, logs, first_now, last_now) if isinstance(a, Exception)), None
            )
            if isinstance(refused, RpcError) and refused is logs and last > cursor.number + 1:
                self._range = max(1, (last - cursor.number) // 2)
                last = cursor.number + self._range
                continue
            if refused is not None:
                raise refused
            if any(header is None for header in (*before, first_now, last_now)):
                raise _Moved
            break
        hashes = {int(header["number"], 16): header["hash"] for header in before}
        if first_now["hash"] != hexstr(cursor.hash) or last_now["hash"] != hashes[last]:
            raise _Moved
        if linked:
            parents = [hexstr(cursor.hash), *(header["hash"] for header in before)]
            if any(header["parentHash"] != parent for header, parent in zip(before, parents, strict=False)):
                raise _Moved
            if any(entry["blockHash"] != hashes[int(entry["blockNumber"], 16)] for entry in logs):
                raise _Moved
        self._range = min(RANGE, self._range * 2)
        ordered = sorted(logs, key=lambda entry: (int(entry["blockNumber"], 16), int(entry["logIndex"], 16)))
        found = events(ordered, self.contracts)
        if self._names is not None:
            found = [event for event in found if event.name in self._names]
        return header_block(last_now), tuple(found)


class Progress:
    """How far somebody has come who stores what a follower gives; for readers who want no less than the head.

    What was stored before the start may be of a branch that is gone since. Its block's number, however high,
    says nothing until the chain has shown that very block.
    """

    def __init__(self, reader: Reader, confirmations: int = 0) -> None:
        """`confirmations`: as the follower's."""
        self._reader, self._confirmations = reader, confirmations
        self._block: Block | None = None
        self._seen = False  # whether the chain has shown it since the start
        self._step = asyncio.Event()

    @property
    def block(self) -> Block | None:
        """The block that the store shows; None until there is one."""
        return self._block

    def begin(self, stored: Block | None) -> None:
        """Following begins, or begins again, from what is stored."""
        self._move(stored, seen=False)

    def move(self, block: Block) -> None:
        """The store shows what the follower gave last."""
        self._move(block, seen=True)

    def _move(self, block: Block | None, *, seen: bool) -> None:
        self._block, self._seen = block, seen
        self._step.set()
        self._step = asyncio.Event()

    async def caught_up(self, patience: float = PATIENCE) -> Block:
        """The block that the store shows, once it is no older than the head at the time of the call.

        A chain that does not answer is not waited for: what is known is as good as it gets. Raises
        Unavailable when the store does not get there within `patience` seconds.
        """
        try:
            async with asyncio.timeout(patience):
                head = await self._reader.final_block(self._confirmations)
        except (ChainUnreachable, TimeoutError):
            if self._block is None:
                raise Unavailable("the chain does not answer and nothing is indexed yet; try again") from None
            return self._block
        return await self.reached(head, patience)

    async def reached(self, block: Block, patience: float = PATIENCE) -> Block:
        """Wait until the store shows `block` or a later one. Raises Unavailable after `patience` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while True:
                    step = self._step
                    if (at := await self._shown(block)) is not None:
                        return at
                    await step.wait()
        at_most = "nothing" if self._block is None else f"block {self._block.number}"
        raise Unavailable(f"the index shows {at_most}, the chain is at block {block.number}; try again")

    async def _shown(self, block: Block) -> Block | None:
        """Where the store is, if that is `block` or a later one."""
        at = self._block
        if at is None or at.hash == block.hash:
            return at
        if at.number <= block.number:
            return None
        if not self._seen:
            with suppress(NotFound):
                kept = (await self._reader.block(at.number)).hash == at.hash
                self._seen = self._seen or (kept and self._block == at)
        return at if self._seen and self._block == at else None
