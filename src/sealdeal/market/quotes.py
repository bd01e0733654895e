"""What a request would cost now, from which orders, and how long such tasks took."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sealdeal.model.orders import RequestOrder, Signed, tag
from sealdeal.model.types import ZERO, Block, hexstr

from .book import Candidates, Explanation, Fill, Offer, best_fill, explain
from .fields import Fields
from .lists import Lists
from .records import MAX_SAFE

PARTS = 50
"""Deals at most that a quote takes a request apart into."""
PARAMETERS = (
    "app",
    "dataset",
    "workerpool",
    "requester",
    "beneficiary",
    "category",
    "trust",
    "tag",
    "volume",
)


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds that tasks took, from their deal to their result."""

    tasks: int
    """Of how many."""
    median: int
    p95: int


@dataclass(frozen=True, slots=True)
class Quote:
    """The deals that a request would become now, the cheapest first."""

    parts: tuple[Fill, ...]
    wanted: int
    """Tasks asked for."""
    times: Times | None
    """None when no such task has completed yet."""
    missing: Explanation | None
    """Why not all tasks could be had; None when they could, or when the quote has PARTS parts."""

    @property
    def volume(self) -> int:
        """Tasks that could be had, of those asked for."""
        return sum(part.terms.volume for part in self.parts)

    @property
    def cost(self) -> int:
        """nRLC for all of them."""
        return sum(part.terms.payer_lock for part in self.parts)


async def quote(lists: Lists, request: RequestOrder, at: Block | None = None) -> Quote:
    """What the book has for a request whose prices say the most that it would give (MAX_SAFE: anything)."""
    found: list[Fill] = []
    used: dict[bytes, int] = {}
    left = request.volume
    missing = None
    while left and len(found) < PARTS:
        asked: Offer[RequestOrder] = Offer(bytes(32), 0, Signed(request, b""), left, request.requester)
        spent = [hash for hash, rest in used.items() if rest <= 0]
        candidates = _less(await lists.candidates(request, spent, at), used)
        fill = best_fill(asked, candidates)
        if fill is None:
            missing = explain(asked, _less(await lists.neighbours(request, at), used))
            break
        found.append(fill)
        left -= fill.terms.volume
        for offer in (fill.app, fill.dataset, fill.workerpool):
            if offer is not None:
                used[offer.hash] = offer.remaining - fill.terms.volume
    durations = await lists.durations(request.app, request.category)
    return Quote(tuple(found), request.volume, times_of(durations), missing)


def times_of(durations: Sequence[int]) -> Times | None:
    """Median and 95th percentile: the least time within which so many of the tasks were done."""
    if not durations:
        return None
    ordered = sorted(durations)
    at = [ordered[math.ceil(len(ordered) * share) - 1] for share in (0.5, 0.95)]
    return Times(len(ordered), *at)


def _less(found: Candidates, used: dict[bytes, int]) -> Candidates:
    def rest(offers: Sequence[Offer[Any]]) -> list[Offer[Any]]:
        return [replace(offer, remaining=used.get(offer.hash, offer.remaining)) for offer in offers]

    return replace(
        found, apps=rest(found.apps), datasets=rest(found.datasets), workerpools=rest(found.workerpools)
    )


# --------------------------------------------------------------------------------------------- route


def asked(fields: Fields) -> RequestOrder:
    """The request that a query describes. Raises InvalidInput."""
    requester, limit = fields.address("requester") or ZERO, MAX_SAFE
    return RequestOrder(
        app=fields.required_address("app"),
        appmaxprice=limit,
        dataset=fields.address("dataset") or ZERO,
        datasetmaxprice=limit,
        workerpool=fields.address("workerpool") or ZERO,
        workerpoolmaxprice=limit,
        requester=requester,
        volume=fields.number("volume", 1) or 1,
        tag=fields.hash("tag") or tag(0),
        category=fields.number("category") or 0,
        trust=fields.number("trust") or 0,
        beneficiary=fields.address("beneficiary") or requester,
    )


def document(found: Quote) -> dict[str, Any]:
    """A quote as the wire shows it."""
    times, missing = found.times, found.missing
    return {
        "volume": found.volume,
        "wanted": found.wanted,
        "cost": found.cost,
        "parts": [_part(fill) for fill in found.parts],
        "time": {"tasks": times.tasks, "median": times.median, "p95": times.p95} if times else None,
        "missing": missing.constraint or "nothing else fits" if missing else None,
    }


def _part(fill: Fill) -> dict[str, Any]:
    terms = fill.terms
    return {
        "apporderHash": hexstr(fill.app.hash),
        "datasetorderHash": hexstr(fill.dataset.hash) if fill.dataset else None,
        "workerpoolorderHash": hexstr(fill.workerpool.hash),
        "workerpool": fill.workerpool.order.workerpool,
        "appprice": terms.app_price,
        "datasetprice": terms.dataset_price,
        "workerpoolprice": terms.workerpool_price,
        "volume": terms.volume,
    }


Answer = Callable[[Any, Fields], Awaitable[dict[str, Any]]]


def answer(lists: Lists, caught_up: Callable[[], Awaitable[Block]]) -> Answer:
    """The route's answer."""

    async def get_quote(_: Any, fields: Fields) -> dict[str, Any]:
        wanted = asked(fields)
        return {"quote": document(await quote(lists, wanted, await caught_up()))}

    return get_quote
