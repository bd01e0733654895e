"""A deal made by the official JavaScript SDK, from the order book to the decrypted result, against the same
deal made by ours on the same network.

The JavaScript SDK's own observer asks every five seconds; what a deal takes of these is shown beside.
"""

from __future__ import annotations

import asyncio
import secrets
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from bench import Ratio
from sealdeal.model.keys import Key
from sealdeal.model.orders import Params
from sealdeal.model.results import generate_result_key
from sealdeal.model.types import RLC, unhex
from sealdeal.node import LocalNetwork
from sealdeal.sdk.client import Sealdeal
from sealdeal.sdk.images import BuiltImage, build_app_image
from tests.compat.world import APP, PURSES, document, place, purses, push_app, run

DEALS = 3


async def measure() -> AsyncIterator[Ratio]:
    """The best of a few deals of each kind, after one to warm up."""
    with tempfile.TemporaryDirectory(prefix="sealdeal-bench-") as folder:
        root = Path(folder)
        source = root / "echo"
        source.mkdir()
        (source / "sealdeal.toml").write_text('name = "echo"\nentrypoint = ["python3", "main.py"]\n')
        (source / "main.py").write_text(APP)
        async with LocalNetwork(root / "state", cache=root / "cache") as network:
            image = await asyncio.to_thread(build_app_image, source, cache=root / "cache")
            told = document(
                network.network,
                await purses(network.network, PURSES, network.transports),
                await push_app(network.network, image),
            )
            ours = await _deals(network, image)
            went = await run(place(root), "latency", {**told, "deals": DEALS})
            checks = went.checks
            if (
                wrong := [f"{name}: {check.error}" for name, check in checks.items() if not check.ok]
                or went.said
            ):
                raise RuntimeError(f"the JavaScript SDK's deals did not all work: {wrong}")
            ours = min(ours, await _deals(network, image))  # before and after: a machine has its moods
    asked = min(checks[f"deal {n + 1}"].seconds for n in range(DEALS))
    observed = min(checks[f"observed deal {n + 1}"].seconds for n in range(DEALS))
    yield Ratio("a deal by the JavaScript SDK, book to decrypted result", asked, "by our SDK", ours, "s")
    yield Ratio("the same with its own observer", observed, "by our SDK", ours, "s")


async def _deals(network: LocalNetwork, image: BuiltImage) -> float:
    """Seconds of the quickest deal of our SDK, which speaks HTTP to the services as the other does."""
    key = Key.generate(secrets.token_bytes)
    funder = Key(unhex(network.network.accounts["funder"]["key"]))
    async with Sealdeal(network.network, funder) as faucet:
        await faucet.faucet(key.address, 100 * RLC)
    async with Sealdeal(network.network, key) as user:
        app = await user.publish_app(image)
        await user.deposit(100 * RLC)
        private, text = generate_result_key(2048)
        await user.share_result_key(text)
        taken = []
        for _ in range(1 + DEALS):
            begun = time.monotonic()
            params = Params(args="x", result_encryption=True)
            request = await user.request(app.address, params=params)
            deal = await user.deal_of(request)
            task = await user.wait(deal.task_ids()[0])
            await user.result(task.taskid, private)
            taken.append(time.monotonic() - begun)
        return min(taken[1:])
