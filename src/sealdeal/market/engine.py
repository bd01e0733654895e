"""The matcher: turns the book's best fills into deals.

It wakes when an order is published or the index moves, looks at the requests that this may serve, the best
paying first, then the oldest, and sends `matchOrders` for each one's best fill until it is served in full or
nothing fits. The chain decides: an order that it refuses is set aside with the reason, for a time that
doubles each time, and is looked at again earlier when something about it changes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sealdeal.chain import Hub, NotMined, Reverted
from sealdeal.model.deals import deal_id
from sealdeal.model.errors import ChainError, Unavailable
from sealdeal.model.orders import Kind, RequestOrder, chosen_matcher
from sealdeal.model.types import Address, Block, format_rlc, hexstr, keccak

from .book import Fill, Offer, best_fill
from .groups import Groups
from .index import Index, Moved
from .journal import UNREACHABLE
from .lists import Lists, Turn
from .store import MarketStore
from .words import Words

log = logging.getLogger("sealdeal.market")

FIRST_PAUSE, LONGEST_PAUSE = 2.0, 300.0
"""Seconds that an order is set aside, the first time and at most."""
MATCH_GAS = 3_000_000
"""Gas that a match may use: several times what four keys take, room for four smart wallets."""
PATIENT = 3
"""Refusals of one signer's orders after which all its orders are set aside, each time twice as long."""
_GROUPS = b"groups"  # in the place of an order, in the pauses
_ATTEMPTS = 100  # fills of one request in a row before the others have their turn

_BLAMED = {0x2: Kind.APP, 0x3: Kind.DATASET, 0x4: Kind.WORKERPOOL, 0x5: Kind.REQUEST}
"""High digit of a refusal's code (iExecV5-matchOrders-0x21 …) -> whose signature or registration failed."""


@dataclass(frozen=True, slots=True)
class Aside:
    """Why an order is not used for now."""

    reason: str
    signer: Address
    until: float
    """On the monotonic clock."""


Place = tuple[bytes, bytes]
"""(order, request): where an order is set aside; the order twice when it is for every request."""


class Engine:
    """Matches with the wallet that `hub` sends from."""

    def __init__(self, store: MarketStore, hub: Hub, index: Index, chain_id: int) -> None:
        self._store, self.words = store, Words(store, hub, chain_id)
        self._lists = Lists(store, Groups(store, hub))
        self._hub, self._index = hub, index
        self._fresh: set[bytes] = set()
        self._all = True
        self._woken = asyncio.Event()
        self._aside: dict[Place, Aside] = {}
        self._pauses: dict[Place, float] = {}
        self._strikes: dict[Address, int] = {}
        self._shunned: dict[Address, float] = {}
        self._later: dict[bytes, asyncio.TimerHandle] = {}
        index.listeners.append(self._moved)

    def consider(self, hashes: Iterable[bytes]) -> None:
        """Look at these orders, and what they may serve, soon."""
        self._fresh |= set(hashes)
        self._woken.set()

    def notes(self, request: bytes) -> dict[bytes, str]:
        """Order -> why it is set aside, for this request or for all."""
        return {
            order: aside.reason for (order, asker), aside in self._aside.items() if asker in (order, request)
        }

    async def run(self) -> None:
        """Match for ever; ends by cancellation only."""
        while True:
            try:
                while self._index.cursor is None:
                    await asyncio.sleep(0.05)
                fresh, self._fresh = self._fresh, set()
                everything, self._all = self._all, False
                self._woken.clear()
                fresh |= self._due()
                if everything or fresh:
                    await self._round(None if everything else fresh)
                await self._pause(self._next_due())
            except (ChainError, Unavailable, *UNREACHABLE) as wrong:
                log.warning("matching waits: %s", wrong)
                self._all = True
                await asyncio.sleep(FIRST_PAUSE)

    async def _pause(self, seconds: float | None) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):  # asyncio.wait_for of Python 3.11 can lose a cancellation
                await self._woken.wait()

    async def _round(self, offers: Collection[bytes] | None) -> None:
        """Serve the requests that these offers (None: all) may serve, in their order, a page at a time.

        What is published while a market that was started goes through its whole book does not wait for it.
        """
        last: Turn | None = None
        while page := await self._lists.waiting(offers, last):
            for turn in page:
                await self._serve(turn.hash)
            last = page[-1]
            if offers is None and self._fresh:
                fresh, self._fresh = self._fresh, set()
                await self._round(fresh)

    # --- one request

    async def _serve(self, request_hash: bytes) -> None:
        """Match one request until it is served or nothing fits."""
        for _ in range(_ATTEMPTS):
            block = await self._index.caught_up()
            record = await self._store.order(request_hash, Kind.REQUEST)
            if record is None or record.status != "open" or (request_hash, request_hash) in self._aside:
                return
            request: Offer[RequestOrder] = record.offer
            if self.not_mine(request.order):
                return
            newest = await self.words.newest()
            aside = [order for order, asker in self._aside if asker in (order, request_hash)]
            aside += await self._lists.open_of(self._out_of_favour())
            candidates = await self._lists.candidates(request.order, without=aside, at=block)
            fill = best_fill(request, candidates)
            if fill is None:
                if candidates.refused:
                    self._ask_again(request_hash)
                return
            if await self._can_pay(fill, block):
                await self.words.chose(fill, newest, block, aside)
                await self._send(fill)
        self.consider([request_hash])

    async def _can_pay(self, fill: Fill, block: Block) -> bool:
        """Whether both escrow accounts cover the deal; sets the one aside that does not."""
        payer, owner = fill.request.signer, fill.workerpool.signer
        accounts = [self._hub.account(account, block) for account in (payer, owner)]
        have, staked = (account.stake for account in await asyncio.gather(*accounts))
        asked, lock = fill.terms.payer_lock, fill.terms.scheduler_lock
        if have < asked:
            self._set_aside(
                fill.request,
                f"the requester has {format_rlc(have)} in escrow, the deal locks {format_rlc(asked)}",
            )
            return False
        if staked < lock:
            self._set_aside(
                fill.workerpool,
                f"the workerpool's owner has {format_rlc(staked)} in escrow, a deal locks {format_rlc(lock)}",
                fill.request,
            )
            return False
        return True

    async def _send(self, fill: Fill) -> None:
        request = fill.request
        orders = [fill.app.hash, fill.dataset.hash if fill.dataset else bytes(32), fill.workerpool.hash]
        dealid = deal_id(request.hash, request.order.volume - request.remaining)
        try:
            dealid, receipt = await self._hub.match_orders(
                fill.app.signed,
                fill.dataset.signed if fill.dataset else None,
                fill.workerpool.signed,
                request.signed,
                most_gas=MATCH_GAS,
                intent=keccak(b"match" + dealid + b"".join(orders)),
            )
        except Reverted as refused:
            await self._blame(fill, refused)
            return
        except NotMined as late:
            self._set_aside(request, str(late))
            return
        log.info("deal %s: %d tasks, block %d", hexstr(dealid), fill.terms.volume, receipt.block.number)
        for order in (*orders, request.hash):
            self._forget(order)
        for offer in (fill.app, fill.dataset, fill.workerpool, request):
            if offer is not None:
                self._strikes.pop(offer.signer, None)
        with suppress(Unavailable):  # a slow index: the next look reads the chain's refusal instead
            await self._index.reached(receipt.block)
        after = await self._store.order(request.hash, Kind.REQUEST)
        if after is not None and after.remaining == request.remaining and after.status == "open":
            self._set_aside(request, f"the deal {hexstr(dealid)} is made and the index does not show it yet")

    async def _blame(self, fill: Fill, refused: Reverted) -> None:
        """Set aside the order that the contract refused; for this request alone when it did not say which."""
        reason = refused.reason or ""
        head, _, code = reason.partition("matchOrders-0x")
        kind = _BLAMED.get(int(code[:1], 16)) if head and code else None
        offers = {
            Kind.APP: fill.app,
            Kind.DATASET: fill.dataset,
            Kind.WORKERPOOL: fill.workerpool,
            Kind.REQUEST: fill.request,
        }
        offer = offers.get(kind) if kind else None
        if offer is None and not code:
            offer = await self._denied([one for one in offers.values() if one is not None])
        if offer is not None:
            self._set_aside(offer, str(refused))
            self._strike(offer.signer)
        else:
            self._set_aside(fill.workerpool, str(refused), fill.request)

    async def _denied(self, offers: Sequence[Offer[Any]]) -> Offer[Any] | None:
        """The first order whose signer does not say, with little gas, that it is his."""
        for offer in offers:
            sign = offer.signed.sign  # empty: it is signed on chain
            if sign and not await self._hub.agrees(offer.signer, offer.hash, sign):
                return offer
        return None

    def not_mine(self, request: RequestOrder) -> bool:
        """Whether a request chooses another matcher, whose match alone the hub accepts."""
        chosen = chosen_matcher(request.salt)
        return chosen is not None and self._hub.sender.address not in (chosen, request.requester)

    # --- set aside

    def _ask_again(self, request: bytes) -> None:
        """Look at a request later: a group may admit then whom it refuses now."""
        if request not in self._later:
            pause = self._pauses[_GROUPS, request] = min(
                2 * self._pauses.get((_GROUPS, request), FIRST_PAUSE / 2), LONGEST_PAUSE
            )
            self._later[request] = asyncio.get_running_loop().call_later(pause, self._again, request)

    def _again(self, request: bytes) -> None:
        del self._later[request]
        self.consider([request])

    def _strike(self, signer: Address) -> None:
        """One more refusal, found by a simulation that costs time: a wallet may say so at will."""
        strikes = self._strikes[signer] = self._strikes.get(signer, 0) + 1
        if strikes >= PATIENT:
            pause = min(FIRST_PAUSE * 2 ** (strikes - PATIENT), LONGEST_PAUSE)
            self._shunned[signer] = time.monotonic() + pause
            log.info("all orders of %s are set aside for %.0f s: refused %d times", signer, pause, strikes)

    def _out_of_favour(self) -> list[Address]:
        """Signers whose orders are all set aside now."""
        now = time.monotonic()
        self._shunned = {signer: until for signer, until in self._shunned.items() if until > now}
        return list(self._shunned)

    def _set_aside(self, offer: Offer[Any], reason: str, request: Offer[RequestOrder] | None = None) -> None:
        place = (offer.hash, request.hash if request else offer.hash)
        pause = self._pauses[place] = min(2 * self._pauses.get(place, FIRST_PAUSE / 2), LONGEST_PAUSE)
        self._aside[place] = Aside(reason, offer.signer, time.monotonic() + pause)
        log.info("order %s is set aside for %.0f s: %s", hexstr(offer.hash), pause, reason)

    def _due(self) -> set[bytes]:
        """Orders whose time aside is over, to be looked at again."""
        now = time.monotonic()
        places = [place for place, aside in self._aside.items() if aside.until <= now]
        for place in places:
            del self._aside[place]
        return {request for _, request in places}

    def _next_due(self) -> float | None:
        """Seconds until the next order's time aside is over."""
        if not self._aside:
            return None
        return max(0.0, min(aside.until for aside in self._aside.values()) - time.monotonic())

    def _moved(self, moved: Moved) -> None:
        """What was set aside may work now if the order changed or its signer got money."""
        places = [
            place
            for place, aside in self._aside.items()
            if not moved.changed.isdisjoint(place) or aside.signer in moved.credited
        ]
        for place in places:
            del self._aside[place]
            self._pauses.pop(place, None)
        self.consider({*moved.changed, *(request for _, request in places)})

    def _forget(self, order: bytes) -> None:
        """A match worked: what this order failed at before is no longer held against it."""
        for place in [place for place in self._pauses if place[0] == order or place == (_GROUPS, order)]:
            del self._pauses[place]
