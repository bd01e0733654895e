"""The market: who may publish what (wire.md §1.2, §1.4, §1.5), with its index and its engine.

The chain's facts that a publication is judged by are read at the block that the index shows, and the order
enters the book only if the index is still there: so no event can slip between the judgement and the book.
"""

from __future__ import annotations

import asyncio
import secrets
import string
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from sealdeal.chain import Hub
from sealdeal.model.errors import Forbidden, NotFound, Unavailable
from sealdeal.model.keys import Rng
from sealdeal.model.orders import (
    TEE,
    Kind,
    RequestOrder,
    Signed,
    WorkerpoolOrder,
    chosen_matcher,
    owner_field,
    tag_bits,
)
from sealdeal.model.types import ZERO, Address, Block, format_rlc, hexstr
from sealdeal.sdk.challenges import challenge_document, challenge_hash

from .book import Explanation, explain, stake_needed
from .challenges import Authorization
from .engine import Engine
from .feed import Feed
from .following import Overtaken
from .groups import Groups
from .index import Index
from .limits import Limits
from .lists import Lists
from .records import Publication, Record
from .store import MarketStore
from .subgraphs import Subgraphs
from .webhooks import Webhooks
from .words import match_of

MAX_OPEN_ORDERS = 50
"""Open orders of one kind that a wallet may have (the official market's MAX_OPEN_ORDERS_PER_WALLET)."""
_TRIES = 20  # a publication that the index overtakes is judged again, at the block it shows then
_ALPHANUMERIC = string.ascii_letters + string.digits


class Market:
    """One network's marketplace. Made by `open`; `run` keeps it at the head of the chain and matching."""

    def __init__(
        self,
        store: MarketStore,
        hub: Hub,
        chain_id: int,
        *,
        matching: bool = True,
        origin: int = 0,
        interval: float = 0.2,
        confirmations: int = 0,
        max_open_orders: int = MAX_OPEN_ORDERS,
        limits: Limits | None = None,
        private_webhooks: bool = False,
        rng: Rng = secrets.token_bytes,
    ) -> None:
        self.store, self._groups = store, Groups(store, hub)
        self.lists = Lists(store, self._groups)
        self.feed, self.limits = Feed(store.journal), limits or Limits()
        self.webhooks = Webhooks(store.journal, private=private_webhooks, rng=rng)
        self._at_end: list[Callable[[], Awaitable[None]]] = [self.webhooks.close]
        self.hub, self.chain_id = hub, chain_id
        self.subgraphs: Subgraphs | None = None
        """Served beside the market's API, when they are opened before it is."""
        self.index = Index(store, hub, origin=origin, interval=interval, confirmations=confirmations)
        self.engine = Engine(store, hub, self.index, chain_id) if matching else None
        self.index.listeners.append(lambda _: self._moved())
        self.max_open_orders, self._rng = max_open_orders, rng

    @classmethod
    async def open(cls, database: str, hub: Hub, **options: Any) -> Market:
        """Open the market of `hub`, kept in `database` (a URL, see db.open_database).

        `matching`: match with the hub's sender (True), or only keep the book. `origin`: a block before the
        hub's first event. `interval`: seconds between looks at the chain. `confirmations`: show the chain
        only this deep (0: its head). `max_open_orders`: of one kind and wallet. `limits`: how much a client
        may ask. `private_webhooks`: also call addresses that are not of the public internet.
        """
        chain_id = await hub.rpc.chain_id()
        if options.get("matching", True):
            _ = hub.sender  # raises InvalidInput now rather than at the first match
        return cls(await MarketStore.open(database), hub, chain_id, **options)

    async def run(self) -> None:
        """Index and match until cancelled."""
        async with asyncio.TaskGroup() as parts:
            parts.create_task(self.index.run())
            parts.create_task(self.feed.run())
            parts.create_task(self.webhooks.run())
            if self.engine:
                parts.create_task(self.engine.run())

    def at_end(self, close: Callable[[], Awaitable[None]]) -> None:
        """Have this called when the market closes."""
        self._at_end.append(close)

    async def close(self) -> None:
        for close in self._at_end:
            await close()
        await self.store.close()

    def _moved(self) -> None:
        """The journal tells of the chain, which may be for webhooks too."""
        self.feed.wake()
        self.webhooks.wake()

    # --- who asks

    async def challenge(self, account: Address) -> dict[str, Any]:
        """A fresh challenge for this account, as the typed data that its wallet signs."""
        noise = "".join(_ALPHANUMERIC[byte % len(_ALPHANUMERIC)] for byte in self._rng(32))
        text = f"Sign this message to log into iExec Gateway: {noise}"
        await self.store.challenges.add(challenge_hash(self.chain_id, text), account)
        return challenge_document(self.chain_id, text)

    @asynccontextmanager
    async def authorized(self, header: str | None) -> AsyncIterator[Authorization]:
        """Who answered a challenge, for one request: what is done within.

        It is spent with the transaction that is given it; else at the end, whatever came of the request.
        Raises Forbidden, not saying what was wrong.
        """
        by = await self.store.challenges.answered(header, self.hub)
        try:
            yield by
        finally:
            if not by.spent:
                async with self.store.write(by):
                    pass

    # --- publish

    async def publish(
        self, kind: Kind, signed: Signed[Any], by: Authorization, *, standing: bool = False
    ) -> Record:
        """Put a signed order into the book, which spends `by`, in one transaction.

        Raises Forbidden with the first rule that the order breaks.
        """
        standing = standing and kind is Kind.REQUEST
        hash = signed.hash(await self.hub.domain())
        for _ in range(_TRIES):
            block = await self.index.caught_up()
            present = await self.store.order(hash)
            if present is not None and present.status != "dead":
                raise Forbidden("order already published")
            remaining = await self._judge(kind, signed, hash, by.account, block, standing)
            groups = await self._groups.found_in(signed.order, block)
            new = Publication(hash, kind, signed, by.account, _now(), remaining, standing, block, groups)
            try:
                record = await self.store.publish(new, self.max_open_orders, by=by)
            except Overtaken:
                continue
            if record is None:
                raise self._too_many(kind, by.account)
            self.feed.wake()
            if self.engine:
                self.engine.consider([hash])
            return record
        raise Unavailable("the chain moves faster than this order can be checked; try again")

    def _too_many(self, kind: Kind, signer: Address) -> Forbidden:
        most = self.max_open_orders
        return Forbidden(f"maximum of {most} published open {kind}order has been reached for wallet {signer}")

    async def _judge(
        self, kind: Kind, signed: Signed[Any], hash: bytes, by: Address, block: Block, standing: bool
    ) -> int:
        """The rules of wire.md §1.4 from step 2 on, in its order and words; the tasks left in the order."""
        order, hub = signed.order, self.hub
        signer = await self._owner(kind, owner_field(order), block)
        if signer != by:
            raise Forbidden(f"only order signer {signer} can publish an order")
        if not await self._is_signed(signer, hash, signed.sign, block):
            raise Forbidden("invalid sign")
        if await self.store.open_count(kind, signer) >= self.max_open_orders:
            raise self._too_many(kind, signer)
        remaining = int(order.volume) - await hub.consumed(hash, block)
        if remaining <= 0:
            raise Forbidden("order already consumed")
        needed = stake_needed(order, remaining)
        if needed and (await hub.account(signer, block)).stake < needed:
            if isinstance(order, WorkerpoolOrder):
                raise Forbidden("workerpool owner's stake is too low to cover required workerpool lock")
            raise Forbidden(
                "requester stake is too low to cover requestorder payment, "
                f"minimum stake required is {needed} nRLC"
            )
        if isinstance(order, RequestOrder) and not standing:
            await self._offers_exist(order)
        return remaining

    async def _owner(self, kind: Kind, asset: Address, block: Block) -> Address:
        if kind is Kind.REQUEST:
            return asset
        if not await self.hub.is_registered(kind, asset, block):
            raise Forbidden("Resource not deployed")
        return await self.hub.owner_of(asset, block)

    async def _is_signed(self, signer: Address, hash: bytes, sign: bytes, block: Block) -> bool:
        if not sign:
            return await self.hub.presigned(hash, block) == signer != ZERO
        return await self.hub.agrees(signer, hash, sign, block)

    async def _offers_exist(self, order: RequestOrder) -> None:
        """Whether a request's app and dataset are on offer, within its prices."""
        best = await self.store.best_price(Kind.APP, order)
        if best is None:
            tee = "tee enabled " if tag_bits(order.tag) & TEE else ""
            raise Forbidden(f"No {tee}apporder published for app {order.app}")
        if best > order.appmaxprice:
            raise Forbidden(f"appmaxprice for app {order.app} is too low, actual best price is {best} nRLC")
        if order.dataset == ZERO:
            return
        best = await self.store.best_price(Kind.DATASET, order)
        if best is None:
            raise Forbidden(f"No datasetorder published for dataset {order.dataset}")
        if best > order.datasetmaxprice:
            raise Forbidden(
                f"datasetmaxprice for dataset {order.dataset} is too low, actual best price is {best} nRLC"
            )

    async def unpublish(
        self,
        kind: Kind,
        by: Authorization,
        *,
        hash: bytes | None = None,
        asset: Address | None = None,
        last: bool = False,
    ) -> list[bytes]:
        """Delete open orders of who asks: one by hash, or all (or the last) of an asset. Spends `by`.

        Raises Forbidden when there is none.
        """
        signer = by.account
        gone, _ = await self.store.unpublish(kind, signer, hash=hash, asset=asset, last=last, by=by)
        self.feed.wake()
        if not gone and hash is not None:
            raise Forbidden(f"{kind}order with orderHash {hexstr(hash)} is not published")
        if not gone:
            field = "requester" if kind is Kind.REQUEST else kind
            raise Forbidden(f"no open {kind}order published by signer {signer} for {field} {asset}")
        return gone

    # --- the matcher's word

    def place(self, order: Record) -> dict[str, Any] | None:
        """The matcher's signed word on the order's place in the book; None in a market that only lists."""
        return self.engine.words.place(order).to_json() if self.engine else None

    async def match_of(self, dealid: bytes) -> dict[str, Any]:
        """The matcher's signed word on a deal. Raises NotFound."""
        if (found := await match_of(self.store, dealid)) is None:
            raise NotFound("this market's matcher did not make this deal")
        return found

    # --- why

    async def why(self, hash: bytes) -> tuple[Record, Explanation]:
        """A published request, and what keeps it from being matched. Raises NotFound."""
        block = await self.index.caught_up()
        record = await self.store.order(hash, Kind.REQUEST)
        if record is None:
            raise NotFound("requestorder not found")
        order: RequestOrder = record.signed.order
        notes = self.engine.notes(hash) if self.engine else {}
        stake = (await self.hub.account(record.signer, block)).stake
        if stake < (needed := stake_needed(order, 1)):
            notes[hash] = (
                f"the requester has {format_rlc(stake)} in escrow, one task may cost {format_rlc(needed)}"
            )
        if self.engine and self.engine.not_mine(order):
            notes[hash] = (
                f"the request chooses matcher {chosen_matcher(order.salt)}, which is not this market's"
            )
        found = await self.lists.neighbours(order, block)
        return record, explain(record.offer, found, notes)


def _now() -> int:
    return int(time.time() * 1000)
