"""Was a deal its matcher's best? What the matcher signed, against the chain and against its own book."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

from sealdeal.chain import Hub
from sealdeal.model.errors import Conflict, IntegrityError, Mismatch
from sealdeal.model.matches import Match, Orders, Word, better, match_domain
from sealdeal.model.orders import Kind, tag_bits
from sealdeal.model.types import Bytes32, format_rlc, hexstr

from .market import MarketClient
from .market_answers import Published

LOOKED_AT = 100
"""Open offers of each kind, the cheapest first, that a match is compared with."""


async def check_match(hub: Hub, market: MarketClient, dealid: Bytes32) -> Word[Match]:
    """What the matcher signed of a deal, once it is found true and no open offer shows that it chose worse.

    Raises NotFound for a deal that this market's matcher did not make; BadSignature; IntegrityError when the
    word differs from the deal on chain, or when an offer that was in the matcher's book before, is open still
    and was not left out for a reason, would have cost less. Offers that are gone by now show nothing: whoever
    published one compares with the place that the market signed then (`model.matches.better`).
    """
    told, deal, record = await asyncio.gather(market.match_of(dealid), hub.deal(dealid), market.deal(dealid))
    domain = await hub.domain()
    words_on = match_domain(market.chain_id, hub.addresses.hub)
    told.check(words_on)
    receipt, said = await hub.receipt(record.transaction_hash), told.said
    matches = (one for one in receipt.events if one.name == "OrdersMatched")
    event = next((one for one in matches if bytes(one["dealid"]) == dealid), None)
    if event is None:
        raise IntegrityError(f"transaction {hexstr(receipt.tx_hash)} made no deal {hexstr(dealid)}")
    for what, signed, made in (
        ("request", said.request, bytes(event["requestHash"])),
        ("app's order", said.app, bytes(event["appHash"])),
        ("dataset's order", said.dataset, bytes(event["datasetHash"])),
        ("workerpool's order", said.workerpool, bytes(event["workerpoolHash"])),
        ("first task", said.first, deal.bot_first),
        ("number of tasks", said.volume, deal.bot_size),
        ("price", said.price, deal.price),
    ):
        if signed != made:
            shown = [hexstr(value) if isinstance(value, bytes) else value for value in (signed, made)]
            raise IntegrityError(f"the matcher signed {what} {shown[0]}, on chain it is {shown[1]}")
    hashes = [(Kind.APP, said.app), (Kind.WORKERPOOL, said.workerpool), (Kind.REQUEST, said.request)]
    app, workerpool, request = await asyncio.gather(*(market.order(*one) for one in hashes))
    dataset = (await market.order(Kind.DATASET, said.dataset)).signed if any(said.dataset) else None
    orders = Orders(app.signed, dataset, workerpool.signed, request.signed)
    async for kind, offer in _cheaper(market, orders):
        place = (await market.order(kind, offer.hash)).place
        if place is None:
            continue
        other: dict[str, Any] = {kind.value: offer.signed}
        with suppress(Conflict, Mismatch):
            saved = better(
                told, replace(orders, **other), {offer.hash: place}, orders_on=domain, words_on=words_on
            )
            raise IntegrityError(
                f"matched worse than the book allowed: {kind}order {hexstr(offer.hash)}, number "
                f"{place.said.sequence} of the {said.sequence} that the matcher looked at, would have cost "
                f"{format_rlc(saved)} less for each task; keep both words as evidence against {told.matcher}"
            )
    return told


async def _cheaper(market: MarketClient, than: Orders) -> AsyncIterator[tuple[Kind, Published[Any]]]:
    """Open offers for the same request that ask less than those that it got."""
    order = than.request.order
    asker: dict[str, Any] = {"requester": order.requester, "page_size": LOOKED_AT}
    for app in (await market.app_orders(order.app, dataset=order.dataset, workerpool="any", **asker)).items:
        if app.order.appprice < than.app.order.appprice:
            yield Kind.APP, app
    bits = tag_bits(order.tag) or None
    pools = await market.workerpool_orders(
        category=order.category, app=order.app, dataset=order.dataset, min_tag=bits, **asker
    )
    for pool in pools.items:
        if pool.order.workerpoolprice < than.workerpool.order.workerpoolprice:
            yield Kind.WORKERPOOL, pool
    if than.dataset is not None:
        page = await market.dataset_orders(order.dataset, app=order.app, workerpool="any", **asker)
        for data in page.items:
            if data.order.datasetprice < than.dataset.order.datasetprice:
                yield Kind.DATASET, data
