"""A workerpool's scheduler, and what it keeps on offer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace

from sealdeal.chain import Heartbeat, Quorum
from sealdeal.chain.local import is_development_chain
from sealdeal.model.errors import InvalidInput, SealdealError
from sealdeal.model.orders import BATCH
from sealdeal.model.types import Address
from sealdeal.pool.app import create_app
from sealdeal.pool.offers import Offer, Offers
from sealdeal.pool.rules import PoolSettings, Rules
from sealdeal.pool.scheduler import Scheduler
from sealdeal.sdk.market import MarketClient
from sealdeal.sdk.sms import SmsClient

from .hosting import Process

log = logging.getLogger("sealdeal.services")

NODE_PATIENCE = 30.0
"""Seconds for which a scheduler that starts waits for a silent SMS node, once enough others have answered."""


async def start(
    process: Process,
    offered: Sequence[Offer],
    *,
    rules: Rules | None = None,
    nodes: tuple[tuple[Address, str], ...] | None = None,
) -> tuple[Scheduler, Offers]:
    """Open it; the process's key is the workerpool's owner's. `nodes`: of the quorum, and their URLs, where
    they need not be asked. Raises InvalidInput where there is no pool."""
    rules = rules or Rules()
    said, network, listener = process.hosting, process.network, process.listen()
    if network.workerpool is None:
        raise InvalidInput("expected `workerpool` in the network file, the pool to schedule for; got none")
    settings = PoolSettings(
        workerpool=network.workerpool,
        nodes=await _nodes(process) if nodes is None else nodes,
        results_url=network.services.results,
        public_url=process.name,
        confirmations=said.confirmations,
        origin=said.origin,
        rules=rules,
    )
    heart = (
        Heartbeat(process.rpc, depth=said.confirmations) if await is_development_chain(process.rpc) else None
    )
    scheduler = await Scheduler.open(
        process.database,
        process.acting,
        process.key,
        settings,
        waiting=heart.waiting if heart else None,
        transports=process.transports,
    )
    process.closes(scheduler.close)
    process.serve(create_app(scheduler), listener)
    url = network.services.market
    market = MarketClient(url, network.chain_id, transport=process.transport(url))
    process.closes(market.close)
    batch = BATCH if rules.batch else 0
    asked = [replace(offer, tag_bits=offer.tag_bits | batch) for offer in offered]
    offers = Offers(process.acting, process.key, settings.workerpool, market, asked)
    process.work += [scheduler.run(), offers.run(), *([heart.run()] if heart else [])]
    return scheduler, offers


async def _nodes(process: Process) -> tuple[tuple[Address, str], ...]:
    """The quorum's members that answer, and their URLs: all, unless some are silent for too long."""
    quorum, urls = process.network.contracts.quorum, process.network.services.sms
    if quorum is None:
        return ()
    needed = await Quorum(process.rpc, quorum).threshold()
    found: dict[str, Address] = {}
    clock = asyncio.get_running_loop().time
    began = clock()
    while len(found) < len(urls):
        for url in urls:
            if url not in found:
                try:
                    async with SmsClient(url) as client:
                        found[url] = (await client.node()).address
                except SealdealError as silent:
                    log.warning("%s", silent)
        if len(found) >= needed and clock() - began > NODE_PATIENCE:
            break
        await asyncio.sleep(0.5 if len(found) < len(urls) else 0)
    return tuple((found[url], url) for url in urls if url in found)
