"""Matching orders by oneself: what it would give, and with a request that nobody sees before it is a deal."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import Any

from sealdeal.chain import Hub, Reverted
from sealdeal.model.errors import Conflict, Mismatch, NotFound
from sealdeal.model.matching import Remaining, Terms, match, reasons
from sealdeal.model.orders import AppOrder, DatasetOrder, Kind, RequestOrder, Signed, WorkerpoolOrder
from sealdeal.model.types import Address, Bytes32

from .market import MarketClient

TRIES = 20
"""Deals that one request is matched into at most, with the tries in which others were quicker."""


async def estimate_match(
    hub: Hub,
    app: Signed[AppOrder],
    dataset: Signed[DatasetOrder] | None,
    workerpool: Signed[WorkerpoolOrder],
    request: Signed[RequestOrder],
) -> Terms:
    """What a match would give at the newest block. Raises Mismatch naming all that does not fit."""
    domain, block = await hub.domain(), await hub.block()
    orders: list[Signed[Any]] = [app, workerpool, request, *([dataset] if dataset else [])]
    used = await hub.consumed_many([signed.hash(domain) for signed in orders], block)
    left = [signed.order.volume - count for signed, count in zip(orders, used, strict=True)]
    remaining = Remaining(left[0], left[3] if dataset else 0, left[1], left[2])
    parts = app.order, dataset.order if dataset else None, workerpool.order, request.order
    asked: list[tuple[Address, Address]] = []

    def note(restriction: Address, account: Address) -> bool:
        asked.append((restriction, account))
        return True

    reasons(*parts, remaining, note)  # groups answer on chain: first which are asked, then what they say
    admitted = {pair: await hub.admits(*pair, block) for pair in set(asked)}
    terms = match(*parts, remaining, lambda *pair: admitted[pair])
    owner = await hub.owner_of(workerpool.order.workerpool, block)
    payer, scheduler = [await hub.account(who, block) for who in (request.order.requester, owner)]
    one = replace(terms, volume=1)
    for role, account, lock in (
        ("the requester", payer, one.payer_lock),
        ("the workerpool's owner", scheduler, one.scheduler_lock),
    ):
        if lock and (tasks := account.stake // lock) < terms.volume:
            if not tasks:
                text = f"{role} has {account.stake} nRLC free in the escrow, {lock} are needed for a task"
                raise Mismatch(text, (text,))
            terms = replace(terms, volume=tasks)
    return terms


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
