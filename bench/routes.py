"""Requests per second of each service's hot routes, against an application that only answers.

A whole network runs in this process, with a deal done; its applications are asked directly, one request after
another, as is the bare one beside each. The chain is asked where the services ask it. What a server and a
socket cost is the same for all, and not in it.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import httpx2

from bench import Ratio
from bench._asgi import ask, bare
from bench.deal import ARGUMENTS, EXAMPLE, RECORDS
from sealdeal.model.orders import Params
from sealdeal.model.results import result_location
from sealdeal.model.types import RLC, hexstr
from sealdeal.node import LocalNetwork
from sealdeal.sdk.client import Sealdeal, newcomer
from sealdeal.sdk.images import build_app_image

SECONDS = 0.2
"""For which each route is asked at a time; the quickest of ROUNDS counts."""
ROUNDS = 5
PATIENCE = 60.0
"""Seconds after which a route that is asked so is said not to answer."""


async def rate(act: Callable[[], Awaitable[object]]) -> float:
    """Calls per second, the most of a few rounds."""
    best = 0.0
    for _ in range(ROUNDS):
        count, start = 0, time.perf_counter()
        while (taken := time.perf_counter() - start) < SECONDS:
            await act()
            count += 1
        best = max(best, count / taken)
    return best


async def measure() -> AsyncIterator[Ratio]:
    """Each route, and the bare application in the same moment."""
    with tempfile.TemporaryDirectory(prefix="sealdeal-bench-") as folder:
        root = Path(folder)
        async with LocalNetwork(root / "state", cache=root / "cache") as network:
            card, key = network.network, await newcomer(network.network, in_escrow=50 * RLC)
            async with Sealdeal(card, key, transports=network.transports) as user:
                routes = await _routes(user, root / "cache")
            at = card.services
            services = {
                "market": at.market,
                "SMS": at.sms[0],
                "scheduler": at.scheduler,
                "results": at.results,
            }
            for name, url in routes:
                where = services[name]
                assert where is not None
                app: Any = cast(httpx2.ASGITransport, network.transports[where]).app
                shown = re.sub("/(0x|ba|Qm)[^/]{30,}", "/…", url.partition("?")[0])
                try:
                    async with asyncio.timeout(PATIENCE):
                        ours = await rate(lambda app=app, url=url: ask(app, url))  # type: ignore[misc]
                except TimeoutError:
                    raise TimeoutError(f"{name}: GET {shown} has not answered for {PATIENCE:g} s") from None
                reference = await rate(lambda url=url: ask(bare, url))  # type: ignore[misc]
                yield Ratio(f"{name}: GET {shown}", ours, "a bare ASGI application", reference, "1/s")


async def _routes(user: Sealdeal, cache: Path) -> list[tuple[str, str]]:
    """(service, path and query) of the hot routes, about a task that is done."""
    image = await asyncio.to_thread(build_app_image, EXAMPLE, cache=cache)
    app = await user.publish_app(image, price=RLC)
    data = await user.protect_dataset(RECORDS.read_bytes(), name="records")
    await user.grant(data.address, app=app.address, price=RLC)
    params = Params(args=" ".join(ARGUMENTS))
    request = await user.request(app.address, dataset=data.address, params=params)
    deal = await user.deal_of(request)
    task = await user.wait(deal.task_ids()[0])
    chain = f"chainId={user.network.chain_id}"
    taskid, me = hexstr(task.taskid), user.key.address
    cid = await user.results.cid_at(result_location(task.results))
    return [
        ("market", f"/workerpoolorders?{chain}&category=0"),
        ("market", f"/apporders?{chain}&app={app.address}"),
        ("market", f"/deals?{chain}&requester={me}"),
        ("market", f"/deals/{hexstr(deal.dealid)}?{chain}"),
        ("market", f"/challenge?{chain}&address={me}"),
        ("market", f"/quote?{chain}&app={app.address}&dataset={data.address}"),
        ("SMS", "/node"),
        ("SMS", f"/shares?kind=dataset-key&subject={data.address}"),
        ("scheduler", f"/tasks/{taskid}"),
        ("scheduler", "/metrics"),
        ("results", f"/v1/results/{taskid}/ipfshash"),
        ("results", f"/ipfs/{cid}"),
    ]
