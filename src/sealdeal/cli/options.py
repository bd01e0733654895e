"""What the settings say of each service, in its own words.

Each function imports the service that it speaks of: a process of one service loads no other's.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from sealdeal.model.errors import InvalidInput
from sealdeal.model.types import parse_rlc
from sealdeal.sdk.keyfile import private_text
from sealdeal.settings import Settings

if TYPE_CHECKING:
    from sealdeal.market.options import MarketOptions
    from sealdeal.pool.offers import Offer
    from sealdeal.sms.options import SmsOptions
    from sealdeal.tee import SimulatedPlatform
    from sealdeal.worker.options import WorkerOptions


def market(said: Settings) -> MarketOptions:
    """Of a market."""
    from sealdeal.market.limits import Limits
    from sealdeal.market.options import MarketOptions, networks

    limits = Limits(
        requests=said.market_rate_limit,
        period=said.market_rate_period,
        proxies=networks(said.market_proxies),
    )
    return MarketOptions(limits, said.market_private_webhooks)


def offers(text: str) -> tuple[Offer, ...]:
    """Of a workerpool: CATEGORY:PRICE in RLC, or CATEGORY:PRICE:TASKS, with commas; the usual when empty.

    Raises InvalidInput.
    """
    from sealdeal.pool.offers import OFFERS, Offer

    if not text.strip():
        return OFFERS
    found = []
    for part in text.split(","):
        category, _, rest = part.strip().partition(":")
        price, _, volume = rest.partition(":")
        volume = volume or "100"
        if not (category.isdecimal() and volume.isdecimal() and price):
            raise InvalidInput(f"expected an offer CATEGORY:PRICE or CATEGORY:PRICE:TASKS, got {part!r}")
        found.append(Offer(category=int(category), price=parse_rlc(price), volume=int(volume)))
    return tuple(found)


def platform(path: Path | None) -> SimulatedPlatform | None:
    """What a worker of a simulated network pretends to have."""
    from sealdeal.tee import SimulatedPlatform

    return SimulatedPlatform.from_json(private_text(path)) if path else None


def schedulers(text: str) -> tuple[str, ...]:
    """URLs with commas."""
    return tuple(re.findall(r"[^,\s]+", text))


def sms(said: Settings) -> SmsOptions:
    """Of an SMS node."""
    from sealdeal.model.sealing import Door
    from sealdeal.sms.options import SmsOptions, platform_ids

    return SmsOptions(
        door=Door(said.sms_door),
        storage_key_file=said.sms_storage_key_file,
        storage_key_command=said.sms_storage_key_command,
        witness_rpc=said.sms_witness_rpc,
        platforms=platform_ids(said.sms_platforms),
        banned_platforms=platform_ids(said.sms_banned_platforms),
        min_tcb_evaluation=said.sms_min_tcb_evaluation,
    )


def workers(said: Settings) -> WorkerOptions:
    """Of the workers on this machine."""
    from sealdeal.worker.machine import Machine
    from sealdeal.worker.options import WorkerOptions

    here = Machine.here()
    return WorkerOptions(
        driver=said.worker_driver,
        slots=said.worker_slots,
        machine=Machine(
            memory=said.worker_memory or here.memory,
            cpus=said.worker_cpus or here.cpus,
            processes=said.worker_processes,
            disk=said.worker_disk,
        ),
        image_bytes=said.worker_image_size,
        dataset_bytes=said.worker_dataset_size,
        output_bytes=said.worker_output_size,
    )
