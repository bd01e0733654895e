"""Boost deals, as the marketplace shows deals: what the chain keeps of them, and what only their events tell.

The hub's `viewDeal` has no Boost deal; `viewDealBoost` has what the end of its tasks needs, the notice to the
scheduler has the rest. Its tasks never begin: a result is pushed, or, from the deadline on, the task is
claimed. The event of such a claim names the task only, and no view names its deal.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Any

from sealdeal.chain import Contract, Event, Hub
from sealdeal.model.deals import Deal, Resource, task_id
from sealdeal.model.errors import NotFound
from sealdeal.model.types import Block, Bytes32, hexstr, unhex

SEARCHED = 100_000
"""Tasks of overdue deals that are looked through for one whose claim does not name its deal."""


@dataclass(frozen=True, slots=True)
class BoostDeal:
    """A Boost deal."""

    deal: Deal
    """The share that the scheduler keeps is told from what workers get."""
    until: int
    """Results are taken before, claims from then on: unix seconds."""


async def boost_deals(
    hub: Hub, notices: Iterable[Event], times: Mapping[int, int], at: Block
) -> dict[Bytes32, BoostDeal]:
    """The deals of these `SchedulerNoticeBoost` events, by id. `times`: of blocks, by number, in seconds.

    Raises NotFound for a deal that `at` does not have.
    """
    told = {bytes(event["dealId"]): event for event in notices}
    views = await hub.read_many([(hub.hub, "viewDealBoost", dealid) for dealid in told], at=at)
    return {
        dealid: _deal(dealid, notice, times[notice.block_number], view)
        for (dealid, notice), view in zip(told.items(), views, strict=True)
    }


def _deal(dealid: Bytes32, notice: Event, began: int, view: Any) -> BoostDeal:
    app, app_price, data, data_price, pool, pool_price, requester, reward, callback, *rest = view
    until, first, size, _tag, sponsor = rest
    if not size:
        raise NotFound(f"there is no boost deal {hexstr(dealid)} on this chain at that block")
    deal = Deal(
        dealid=dealid,
        app=Resource(notice["app"], app, app_price),
        dataset=Resource(notice["dataset"], data, data_price),
        workerpool=Resource(notice["workerpool"], pool, pool_price),
        trust=1,
        category=notice["category"],
        tag=bytes(notice["tag"]),
        requester=requester,
        beneficiary=notice["beneficiary"],
        callback=callback,
        params=notice["params"],
        start_time=began,
        bot_first=first,
        bot_size=size,
        worker_stake=0,
        scheduler_reward_ratio=100 + (-100 * reward // pool_price) if pool_price else 0,
        sponsor=sponsor,
    )
    return BoostDeal(deal, until)


async def claimed_tasks(
    hub: Hub, claims: Iterable[Event], overdue: AsyncIterator[tuple[Bytes32, int]]
) -> dict[Bytes32, tuple[Bytes32, int]]:
    """Task -> (deal, index), of `TaskClaimed` events whose tasks have no record.

    A call of `claimBoost` in the transaction's data says it, be it a wallet's or inside a call of a contract.
    For a contract that makes up the call itself, `overdue` (deals, and how many tasks each has) is searched;
    what is not among its first SEARCHED is left out.
    """
    missing = {bytes(event["taskid"]): event.tx_hash for event in claims}
    found: dict[Bytes32, tuple[Bytes32, int]] = {}
    hashes = sorted(set(missing.values()))
    calls = [("eth_getTransactionByHash", hexstr(hash)) for hash in hashes]
    for transaction in await hub.rpc.batch(calls) if calls else []:
        for dealid, index in _called(unhex(transaction["input"]) if transaction else b"", hub.hub):
            if (taskid := task_id(dealid, index)) in missing:
                found[taskid] = dealid, index
    left, searched = missing.keys() - found.keys(), 0
    if left:
        async for dealid, size in overdue:
            found |= await asyncio.to_thread(_among, left, dealid, size)
            left, searched = left - found.keys(), searched + size
            if not left or searched >= SEARCHED:
                break
    return found


def _among(wanted: Set[Bytes32], dealid: Bytes32, size: int) -> dict[Bytes32, tuple[Bytes32, int]]:
    ids = ((task_id(dealid, index), index) for index in range(size))
    return {taskid: (dealid, index) for taskid, index in ids if taskid in wanted}


def _called(data: bytes, hub: Contract) -> list[tuple[Bytes32, int]]:
    """What looks like a call of `claimBoost(dealId, index)` in a transaction's data."""
    selector = unhex(hub.request("claimBoost", bytes(32), 0)["data"])[:4]
    found, at = [], data.find(selector)
    while at >= 0 and at + 68 <= len(data):
        index = int.from_bytes(data[at + 36 : at + 68], "big")
        if index < 2**16:
            found.append((data[at + 4 : at + 36], index))
        at = data.find(selector, at + 1)
    return found
