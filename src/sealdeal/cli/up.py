"""`sealdeal up`: the local network, kept running until Ctrl-C, its state in one folder."""

from __future__ import annotations

import asyncio
import json as json_format
from pathlib import Path

from cyclopts import App

from sealdeal.market.limits import Limits
from sealdeal.market.options import MarketOptions, networks
from sealdeal.model.sealing import Door
from sealdeal.node import CHAIN_ID, LocalNetwork
from sealdeal.sdk.network import Network
from sealdeal.settings import Settings
from sealdeal.sms.options import SmsOptions, platform_ids

from . import session
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
        worker=session.workers(),
        app_network=settings.worker_network,
        registries=session.registries(),
        market=market_options(settings),
        sms=sms_options(settings),
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


def market_options(settings: Settings) -> MarketOptions:
    """What the settings say of a market."""
    limits = Limits(
        requests=settings.market_rate_limit,
        period=settings.market_rate_period,
        proxies=networks(settings.market_proxies),
    )
    return MarketOptions(limits, settings.market_private_webhooks)


def sms_options(settings: Settings) -> SmsOptions:
    """What the settings say of SMS nodes."""
    return SmsOptions(
        door=Door(settings.sms_door),
        storage_key_file=settings.sms_storage_key_file,
        storage_key_command=settings.sms_storage_key_command,
        witness_rpc=settings.sms_witness_rpc,
        platforms=platform_ids(settings.sms_platforms),
        banned_platforms=platform_ids(settings.sms_banned_platforms),
        min_tcb_evaluation=settings.sms_min_tcb_evaluation,
    )


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
