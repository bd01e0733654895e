"""`sealdeal run`: one service of a network in this process, as the settings say."""

from __future__ import annotations

import asyncio
import json as json_format
import re
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from sealdeal import service as services
from sealdeal.model.errors import InvalidInput
from sealdeal.model.keys import Key
from sealdeal.model.types import parse_rlc
from sealdeal.node import OFFERS
from sealdeal.pool.offers import Offer
from sealdeal.service import Hosting
from sealdeal.settings import Settings
from sealdeal.sms.options import parse_key, private_text
from sealdeal.tee import SimulatedPlatform

from . import session
from .session import AsJson
from .up import market_options, sms_options

run = App(name="run", help="Run one service of a network in a process of its own.")

Service = Literal["market", "pool", "worker", "sms", "results"]


@run.default
async def start(
    service: Service,
    /,
    *,
    unsafe_simulated_public: Annotated[bool, Parameter(negative=())] = False,
    json: AsJson = False,
) -> None:
    """Run one service until SIGTERM or Ctrl-C, as the environment's settings say (docs/operate.md).

    Parameters
    ----------
    service
        Which: `market`, `pool` (a workerpool's scheduler), `worker`, `sms` (a node of the quorum), `results`.
    unsafe_simulated_public
        Let an SMS node of a simulated network answer other machines: it protects nothing.
    """
    settings = session.settings()
    hosting = hosting_of(settings, unsafe_simulated_public=unsafe_simulated_public)
    session.stop_on_signals()
    try:
        await services.run(service, hosting, partial(_tell, service, json))
    except asyncio.CancelledError:  # stopped in order
        if not json:
            print(f"{service} stopped")


def _tell(service: str, json: bool, name: str) -> None:
    kind = "worker" if service == "worker" else "url"
    print(json_format.dumps({"service": service, kind: name}) if json else f"{service} {name}", flush=True)


def hosting_of(settings: Settings, *, unsafe_simulated_public: bool = False) -> Hosting:
    """What the settings say of one service. Raises InvalidInput for what is missing or malformed."""
    if settings.key_file is None:
        raise InvalidInput("expected the key that this service signs with: set SEALDEAL_KEY_FILE")
    platform = settings.platform
    return Hosting(
        network=session.network(),
        key=Key(parse_key(private_text(settings.key_file), str(settings.key_file))),
        state=settings.state,
        cache=settings.cache,
        database=settings.database.get_secret_value() if settings.database else "",
        listen=endpoint(settings.listen),
        public_url=settings.public_url.rstrip("/"),
        confirmations=settings.confirmations,
        origin=settings.origin,
        platform=_platform(platform) if platform else None,
        blobs=settings.blobs,
        schedulers=tuple(re.findall(r"[^,\s]+", settings.schedulers)),
        offers=offers(settings.offers),
        market=market_options(settings),
        sms=sms_options(settings),
        unsafe_simulated_public=unsafe_simulated_public,
        worker=session.workers(),
        registries=session.registries(),
        app_network=settings.worker_network,
    )


def _platform(path: Path) -> SimulatedPlatform:
    return SimulatedPlatform.from_json(private_text(path))


def endpoint(text: str) -> tuple[str, int]:
    """HOST:PORT, the host of IPv6 in brackets. Raises InvalidInput."""
    found = re.fullmatch(r"(?:\[([0-9a-fA-F:]+)\]|([^:\s]+)):(\d{1,5})", text)
    if found is None or int(found[3]) > 65_535:
        raise InvalidInput(f"expected HOST:PORT to listen at, got {text!r}")
    return found[1] or found[2], int(found[3])


def offers(text: str) -> tuple[Offer, ...]:
    """CATEGORY:PRICE in RLC, or CATEGORY:PRICE:TASKS, with commas; the default's when empty."""
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
