"""A worker."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from sealdeal.model.errors import InvalidInput
from sealdeal.model.types import Address
from sealdeal.sdk.http import Failover
from sealdeal.sdk.pool import PoolClient
from sealdeal.sdk.registry import Registries
from sealdeal.sdk.results import ResultsClient
from sealdeal.sdk.sms import SmsClient
from sealdeal.worker.agent import Worker
from sealdeal.worker.cgroups import Bounds
from sealdeal.worker.options import WorkerOptions
from sealdeal.worker.proxy import NetworkMode
from sealdeal.worker.relay import Platform

from .hosting import Process

log = logging.getLogger("sealdeal.services")

STORE_PATIENCE = 60.0
"""Seconds for which a worker tries to reach the result store: a result that is computed is worth a wait."""


async def start(
    process: Process,
    options: WorkerOptions,
    *,
    platform: Platform | None,
    schedulers: Sequence[str] = (),
    registries: Registries | None,
    app_network: NetworkMode,
    bounds: Bounds | None = None,
    sms: Mapping[Address, SmsClient] | None = None,
    warn: bool = True,
) -> Worker:
    """Open it; the process's key is the wallet that it is paid to. `schedulers`: URLs of the pool's; none:
    the network's. `bounds`: of each guest, if not as the options say. `sms`: nodes that are reached otherwise
    than by the URLs that the scheduler tells. `warn`: whether the log names what this machine does not
    enforce. Raises InvalidInput for what is missing.
    """
    said, services = process.hosting, process.network.services
    if platform is None:
        raise InvalidInput(
            "expected a simulated platform for this worker: set SEALDEAL_PLATFORM to the network's "
            "platform.json (this version starts guests on simulated platforms only)"
        )
    urls = tuple(schedulers) or ((services.scheduler,) if services.scheduler else ())
    if not urls:
        raise InvalidInput("expected a scheduler to work for: set SEALDEAL_SCHEDULERS to its URL")
    pool = PoolClient(urls[0], key=process.key, transport=process.transport(urls[0]) or Failover(urls))
    results = ResultsClient(services.results, transport=Failover([services.results], STORE_PATIENCE))
    for client in (pool, results):
        process.closes(client.close)
    bounds = bounds or options.bounds(1)
    worker = Worker(
        hub=process.hub,
        sender=process.sender,
        pool=pool,
        results=results,
        sms=sms or {},  # the scheduler names all, and the quorum's contract says which count
        platform=platform,
        release=await process.release(),
        cache=said.state,
        confirmations=said.confirmations,
        slots=options.slots,
        driver=options.driver,
        bounds=bounds,
        limits=options.limits(bounds),
        network=app_network,
        registries=registries,
    )
    for limit in worker.missing if warn else ():
        log.warning("not enforced on this machine: %s", limit)
    process.name = process.key.address
    process.work.append(worker.run())
    return worker
