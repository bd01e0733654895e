"""Matching a request of one's own, unpublished: nobody sees it before it is a deal."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from sealdeal.chain import Hub, Reverted
from sealdeal.model.errors import Conflict, NotFound
from sealdeal.model.orders import Kind, RequestOrder, Signed
from sealdeal.model.types import Bytes32

from .market import MarketClient

TRIES = 20
"""Deals that one request is matched into at most, with the tries in which others were quicker."""


async def match_by_oneself(hub: Hub, market: MarketClient, request: Signed[RequestOrder]) -> Bytes32:
    """Match a signed request with the best offers of the market, as the hub's sender; the request's hash.

    Raises NotFound when not all of it could be had within its prices: what was matched before stays. Raises
    Conflict when others are quicker again and again.
    """
    order, hash = request.order, request.hash(await hub.domain())
    limits = (order.appmaxprice, order.datasetmaxprice, order.workerpoolmaxprice)
    for _ in range(TRIES):
        left = order.volume - await hub.consumed(hash)
        if left <= 0:
            return hash
        found = await market.quote_for(order, left)
        missing = f"{left} of {order.volume} tasks could not be had"
        if not found.parts:
            raise NotFound(f"{missing}: {found.missing}")
        part = found.parts[0]
        asked = (part.appprice, part.datasetprice, part.workerpoolprice)
        if any(price > most for price, most in zip(asked, limits, strict=True)):
            raise NotFound(f"{missing}: the best offers now ask {asked} nRLC, the request gives {limits}")
        data = part.datasetorder_hash
        app, pool = await asyncio.gather(
            market.order(Kind.APP, part.apporder_hash),
            market.order(Kind.WORKERPOOL, part.workerpoolorder_hash),
        )
        dataset = (await market.order(Kind.DATASET, data)).signed if data else None
        with suppress(Reverted):  # others were quicker, or an offer is dead: the next quote tells
            await hub.match_orders(app.signed, dataset, pool.signed, request)
    raise Conflict("the best offers were gone again and again before this request could be matched")
