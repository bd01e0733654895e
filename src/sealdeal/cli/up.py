"""`sealdeal up`: the local network, kept running until Ctrl-C, its state in one folder."""

from __future__ import annotations

import asyncio
import json as json_format
from pathlib import Path

from cyclopts import App

from sealdeal.node import CHAIN_ID, LocalNetwork
from sealdeal.sdk.network import Network

from . import options, session
from .session import AsJson

up = App(name="up", help="Start the local network and keep it.")


@up.default
async def start(*, state: Path | None = None, chain_id: int = CHAIN_ID, json: AsJson = False) -> None:
    """Start the local network, print where everything is, and run until Ctrl-C.

    After a stop the same command continues where it was. Other commands find the network by themselves
    (with `--state DIR`: set SEALDEAL_NETWORK to DIR/network.json).

    Parameters
    ----------
    state
        Folder of the network's state: chain, databases, blobs, keys.
    chain_id
        The chain's id; wallets and orders are tied to it.
    """
    settings = session.settings()
    folder = state or settings.state
    session.stop_on_signals()
    made = LocalNetwork(
        folder,
        cache=settings.cache,
        anvil=settings.anvil,
        chain_id=chain_id,
        confirmations=settings.confirmations,
        worker=options.workers(settings),
        app_network=settings.worker_network,
        registries=session.registries(),
        market=options.market(settings),
        sms=options.sms(settings),
        result_store=settings.result_store,
    )
    try:
        async with made:
            if json:
                print(json_format.dumps(made.network.to_json()), flush=True)
            else:
                _tell(made.network, folder, made.missing)
            await made.wait()
    except asyncio.CancelledError:  # Ctrl-C or SIGTERM: the network has stopped in order
        if not json:
            print("stopped; the same command continues here")


def _tell(network: Network, folder: Path, missing: tuple[str, ...]) -> None:
    at = network.services
    print(f"network of simulated TEEs, chain {network.chain_id}, state in {folder}")
    for name, url in {
        "chain": network.rpc_url,
        "market": at.market,
        "scheduler": at.scheduler,
        "results": at.results,
        **{f"sms node {n}": url for n, url in enumerate(at.sms)},
        "subgraph": at.subgraph,
        "poco subgraph": at.poco_subgraph,
    }.items():
        print(f"  {name:<13} {url}")
    for name, contract in network.contracts.to_json().items():
        print(f"  {name:<20} {contract}")
    print(f"  {'workerpool':<20} {network.workerpool}")
    for limit in missing:
        print(f"not enforced on this machine: {limit}")
    print(
        "the TEEs are simulated: whoever controls this machine can read everything. Ctrl-C stops.", flush=True
    )
