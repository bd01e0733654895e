"""A market: order book, matching, index of the chain."""

from __future__ import annotations

from functools import partial

from sealdeal.market.app import create_app
from sealdeal.market.market import Market
from sealdeal.market.options import MarketOptions
from sealdeal.market.subgraphs import Subgraphs
from sealdeal.model.bulk import MAX_DOCUMENT_BYTES
from sealdeal.sdk.results import ResultsClient

from .hosting import Process


async def start(process: Process, options: MarketOptions) -> None:
    """Open it; the process's key is its matcher's."""
    said, listener = process.hosting, process.listen()
    market = await Market.open(
        process.database,
        process.acting,
        limits=options.limits,
        private_webhooks=options.private_webhooks,
        origin=said.origin,
    )
    process.closes(market.close)
    results = process.network.services.results
    store = ResultsClient(results, transport=process.transport(results))
    process.closes(store.close)
    market.subgraphs = subgraphs = await Subgraphs.open(
        process.database,
        process.hub,
        protector=process.network.contracts.dataprotector,
        fetch=partial(store.fetch, limit=MAX_DOCUMENT_BYTES),
        origin=said.origin,
    )
    process.closes(subgraphs.close)
    process.serve(create_app(market), listener)
    process.work += [market.run(), subgraphs.run()]
