"""`sealdeal run`: one service of a network in this process, as the settings say."""

from __future__ import annotations

import asyncio
import json as json_format
import re
from functools import partial
from typing import Annotated, Literal

from cyclopts import App, Parameter

from sealdeal.model.errors import InvalidInput
from sealdeal.model.keys import Key
from sealdeal.sdk.keyfile import parse_key, private_text
from sealdeal.services import hosting
from sealdeal.services.hosting import Hosting, Start
from sealdeal.settings import Settings

from . import options, session
from .session import AsJson

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
    said = hosting_of(settings)
    chosen = start_of(service, settings, simulated_public=unsafe_simulated_public)
    session.stop_on_signals()
    try:
        await hosting.run(chosen, said, partial(_tell, service, json))
    except asyncio.CancelledError:  # stopped in order
        if not json:
            print(f"{service} stopped")


def _tell(service: str, json: bool, name: str) -> None:
    kind = "worker" if service == "worker" else "url"
    print(json_format.dumps({"service": service, kind: name}) if json else f"{service} {name}", flush=True)


def hosting_of(settings: Settings) -> Hosting:
    """What the settings say of any service. Raises InvalidInput for what is missing or malformed."""
    if settings.key_file is None:
        raise InvalidInput("expected the key that this service signs with: set SEALDEAL_KEY_FILE")
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
    )


def start_of(service: Service, settings: Settings, *, simulated_public: bool = False) -> Start:
    """The service with what the settings say of it. Raises InvalidInput.

    It is loaded here and no other is: what a worker's process does not need would take half of its memory.
    """
    match service:
        case "market":
            from sealdeal.services import market

            return partial(market.start, options=options.market(settings))
        case "pool":
            from sealdeal.services import pool

            return partial(pool.start, offered=options.offers(settings.offers))
        case "worker":
            from sealdeal.services import worker

            return partial(
                worker.start,
                options=options.workers(settings),
                platform=options.platform(settings.platform),
                schedulers=options.schedulers(settings.schedulers),
                registries=session.registries(),
                app_network=settings.worker_network,
            )
        case "sms":
            from sealdeal.services import sms

            return partial(
                sms.start,
                options=options.sms(settings),
                simulated_public=simulated_public,
            )
        case "results":
            from sealdeal.services import results

            return partial(results.start, place=settings.result_store)


def endpoint(text: str) -> tuple[str, int]:
    """HOST:PORT, the host of IPv6 in brackets. Raises InvalidInput."""
    found = re.fullmatch(r"(?:\[([0-9a-fA-F:]+)\]|([^:\s]+)):(\d{1,5})", text)
    if found is None or int(found[3]) > 65_535:
        raise InvalidInput(f"expected HOST:PORT to listen at, got {text!r}")
    return found[1] or found[2], int(found[3])
