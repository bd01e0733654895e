"""What a workerpool offers, kept in the market: used up or gone, an offer is published again."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from sealdeal.chain import Hub
from sealdeal.model.deals import WORKERPOOL_STAKE_RATIO
from sealdeal.model.errors import SealdealError
from sealdeal.model.keys import Key, Rng
from sealdeal.model.orders import TEE_TDX, Signed, WorkerpoolOrder, tag
from sealdeal.model.types import RLC, ZERO, Address
from sealdeal.sdk.market import MarketClient

log = logging.getLogger("sealdeal.pool")

LOOK_EVERY = 5.0
"""Seconds between looks at the market."""


@dataclass(frozen=True, slots=True)
class Offer:
    """Executions of one category at one price."""

    category: int
    price: int
    """nRLC per task."""
    volume: int
    """Tasks in one order; the owner's free stake may allow fewer."""
    tag_bits: int = TEE_TDX
    trust: int = 1
    app: Address = ZERO
    dataset: Address = ZERO
    requester: Address = ZERO
    """Whom the offer is restricted to; zero: anyone."""


OFFERS = tuple(Offer(category=c, price=p * RLC, volume=100) for c, p in enumerate((1, 2, 5, 12, 40)))
"""What a workerpool asks for a task of each category, unless its operator says otherwise."""


class Offers:
    """Keeps a pool's offers open. `run` it beside the scheduler."""

    def __init__(
        self,
        hub: Hub,
        owner: Key,
        workerpool: Address,
        market: MarketClient,
        offers: Sequence[Offer],
        *,
        rng: Rng = secrets.token_bytes,
    ) -> None:
        """`owner` signs: it owns the workerpool."""
        self._hub, self._owner, self._workerpool, self._market = hub, owner, workerpool, market
        self._offers, self._rng = tuple(offers), rng
        self._refused: dict[Offer, str] = {}
        """Why an offer is not in the market, so that it is said once."""

    async def run(self) -> None:
        """Keep offering until cancelled. Outlives absences of the market and of the chain."""
        while True:
            await self.renew_all()
            await asyncio.sleep(LOOK_EVERY)

    async def renew_all(self) -> None:
        """Publish every offer that is not open; what is refused is logged, and tried again later."""
        for offer in self._offers:
            try:
                await self.renew(offer)
                self._refused.pop(offer, None)
            except SealdealError as refused:
                if self._refused.get(offer) != str(refused):
                    log.warning("the offer for category %d is not in the market: %s", offer.category, refused)
                self._refused[offer] = str(refused)

    async def renew(self, offer: Offer) -> bytes | None:
        """Publish an offer unless it is open; the new order's hash. Raises what market and chain refuse."""
        listed = await self._market.workerpool_orders(
            workerpool=self._workerpool, category=offer.category, app="any", dataset="any", requester="any"
        )
        if any(self._is(offer, found.order) for found in listed.items):
            return None
        volume = await self._affordable(offer)
        if volume == 0:
            log.warning("no free stake is left to offer category %d: deposit more", offer.category)
            return None
        order = WorkerpoolOrder(
            workerpool=self._workerpool,
            workerpoolprice=offer.price,
            volume=volume,
            tag=tag(offer.tag_bits),
            category=offer.category,
            trust=offer.trust,
            apprestrict=offer.app,
            datasetrestrict=offer.dataset,
            requesterrestrict=offer.requester,
            salt=self._rng(32),
        )
        signed = Signed.by(self._owner, order, await self._hub.domain())
        return (await self._market.publish(signed, self._owner)).hash

    @staticmethod
    def _is(offer: Offer, order: WorkerpoolOrder) -> bool:
        return (order.workerpoolprice, order.tag, order.trust) == (
            offer.price,
            tag(offer.tag_bits),
            offer.trust,
        ) and (order.apprestrict, order.datasetrestrict, order.requesterrestrict) == (
            offer.app,
            offer.dataset,
            offer.requester,
        )

    async def _affordable(self, offer: Offer) -> int:
        """How many tasks the owner's free stake covers (30 % of the price each), at most the offer's."""
        each = offer.price * WORKERPOOL_STAKE_RATIO // 100
        if each == 0:
            return offer.volume
        free = (await self._hub.account(self._owner.address)).stake
        return min(offer.volume, free // each)
