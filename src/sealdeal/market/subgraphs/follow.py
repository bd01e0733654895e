"""Keeps the subgraphs at the head of the chain, and fetches the documents of bulks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from sealdeal.chain import (
    Batch,
    Contract,
    Follower,
    Hub,
    Progress,
    artefact,
)
from sealdeal.model.bulk import MAX_DOCUMENT_BYTES, check_document, slice_cids, slice_orders
from sealdeal.model.deals import task_id
from sealdeal.model.errors import InvalidInput, SealdealError
from sealdeal.model.types import Address, Block, hexstr, unhex

from ..following import Overtaken, keep_up, readable
from ..journal import UNREACHABLE
from .reading import NAMES, Reading
from .store import Changes, GraphStore, Query

log = logging.getLogger("sealdeal.market.subgraphs")

Fetch = Callable[[str], Awaitable[bytes]]
"""CID -> its content."""

BULK_PATIENCE = 2.0
"""Seconds that a reader waits for the documents of the newest bulks."""
_RETRY_BULK = 30.0


class Subgraphs:
    """Both subgraphs of one network. Made by `open`; `run` keeps them at the head of the chain."""

    def __init__(
        self,
        store: GraphStore,
        hub: Hub,
        protector: Address | None,
        fetch: Fetch | None,
        origin: int,
        interval: float,
    ) -> None:
        self.store, self.hub, self._fetch = store, hub, fetch
        self._origin, self._interval, self._protector = origin, interval, protector
        self._contracts = [hub.hub, *hub.registries.values()]
        if protector:
            self._contracts.append(Contract(protector, artefact("DataProtector").abi))
        self._progress = Progress(hub)
        self._bulks, self._fetched = asyncio.Event(), asyncio.Event()
        self._fetched.set()

    @classmethod
    async def open(
        cls,
        database: str,
        hub: Hub,
        *,
        protector: Address | None = None,
        fetch: Fetch | None = None,
        origin: int = 0,
        interval: float = 0.2,
    ) -> Subgraphs:
        """Open both, kept in `database` (a URL, see db.open_database).

        `protector`: the DataProtector contract. `fetch`: where the documents of bulks are; without it none
        has slices. `origin`: a block before the hub's first event.
        """
        return cls(await GraphStore.open(database), hub, protector, fetch, origin, interval)

    async def close(self) -> None:
        await self.store.close()

    async def run(self) -> None:
        """Follow the chain until cancelled."""
        async with asyncio.TaskGroup() as parts:
            parts.create_task(
                keep_up(
                    "the subgraphs wait",
                    self._start,
                    apply=self._apply,
                    roll_back=self._roll_back,
                    interval=self._interval,
                )
            )
            if self._fetch:
                parts.create_task(self._fill())

    async def caught_up(self) -> Block:
        """The block that the store shows, no older than the head now. Raises Unavailable."""
        block = await self._progress.caught_up()
        if self._fetch and not self._fetched.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(BULK_PATIENCE):
                    await self._fetched.wait()
        return self._progress.block or block

    async def _start(self) -> Follower:
        known = await self.store.recent_blocks()
        self._progress.begin(known[0] if known else None)
        return Follower(
            self.hub.rpc,
            self._contracts,
            start=known or None,
            origin=self._origin,
            names=NAMES,
            interval=self._interval,
        )

    async def _roll_back(self, to: Block) -> None:
        if any(block.hash == to.hash for block in await self.store.recent_blocks()):
            await self.store.roll_back(to)
            self._progress.move(to)
            return
        await self.store.forget()  # further than can be undone: all over again
        self._progress.begin(None)
        raise Overtaken

    async def _apply(self, batch: Batch) -> None:
        changes = Changes()
        if batch.events:
            block = await readable(self.hub, batch.block)
            changes = await Reading(self.hub, self.store, batch, block).changes()
        await self.store.apply(self._progress.block, batch.block, changes)
        if any(entity == "Bulk" for _, entity, _ in changes.rows):
            self._fetched.clear()
            self._bulks.set()
        self._progress.move(batch.block)

    # --- bulks

    async def _fill(self) -> None:
        """Fetch the documents of bulks, whenever there are new ones, and again after a while."""
        while True:
            self._bulks.clear()
            missing = []
            try:
                await self._progress.caught_up()
                missing = await self.store.find("poco", "Bulk", Query({"sliceCount": None}, first=1000))
                for bulk in missing:
                    await self._fill_one(bulk["id"], bulk["hash"])
            except (SealdealError, Overtaken, *UNREACHABLE) as wrong:
                log.warning("a bulk waits for its documents: %s", wrong)
            self._fetched.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(_RETRY_BULK):  # asyncio.wait_for of 3.11 can lose a cancellation
                    await self._bulks.wait()

    async def _fill_one(self, dealid: str, cid: str) -> None:
        deal = (await self.store.get("poco", "Deal", [dealid])).get(dealid)
        if deal is None:
            return
        changes = Changes()
        try:
            slices = slice_cids(await self._document(cid))
            for index in range(deal["botFirst"], min(deal["botFirst"] + deal["botSize"], len(slices))):
                await self._slice(changes, dealid, index, slices[index])
        except InvalidInput as wrong:
            log.info("deal %s: %s", dealid, wrong)
        made = sum(entity == "BulkSlice" for _, entity, _ in changes.rows)
        changes.put("Bulk", dealid, sliceCount=made)
        for _ in range(20):  # the index moves in between
            at = self._progress.block
            if at is None or not (await self.store.get("poco", "Deal", [dealid])):
                return
            with suppress(Overtaken):
                await self.store.apply(at, at, changes)
                return
            await asyncio.sleep(self._interval / 2)

    async def _slice(self, changes: Changes, dealid: str, index: int, cid: str) -> None:
        id, task = f"{dealid}-{index}", hexstr(task_id(unhex(dealid), index))
        datasets, orders = [], []
        for place, signed in enumerate(slice_orders(await self._document(cid))):
            order, name = signed.order, f"{task}-{place}"
            changes.put(
                "DatasetOrder",
                name,
                dataset=order.dataset.lower(),
                datasetprice=order.datasetprice,
                volume=order.volume,
                tag=hexstr(order.tag),
                apprestrict=order.apprestrict.lower(),
                workerpoolrestrict=order.workerpoolrestrict.lower(),
                requesterrestrict=order.requesterrestrict.lower(),
                salt=hexstr(order.salt),
                sign=hexstr(signed.sign),
            )
            datasets.append(order.dataset.lower())
            orders.append(name)
        changes.put(
            "BulkSlice",
            id,
            hash=cid,
            bulk=dealid,
            task=task,
            index=index,
            datasets=datasets,
            datasetOrders=orders,
        )

    async def _document(self, cid: str) -> bytes:
        assert self._fetch is not None
        found = await self._fetch(cid)
        if len(found) > MAX_DOCUMENT_BYTES:
            raise InvalidInput(f"the document {cid} of a bulk is too large")
        check_document(cid, found)
        return found
