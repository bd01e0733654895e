"""A whole TEE deal, from the block of the match to the decrypted result, against its parts, each run bare.

The parts: starting bubblewrap, the same app on the same data alone in bubblewrap, and as many transactions as
the task takes, one after another. What the deal takes beyond their sum is ours: following the chain,
assignment, evidence, release of the key, decryption, encryption, storage, HTTP.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from bench import Ratio, fastest
from sealdeal.model.keys import Key
from sealdeal.model.orders import Params
from sealdeal.model.results import generate_result_key
from sealdeal.model.types import RLC, unhex
from sealdeal.node import LocalNetwork
from sealdeal.sdk.client import Sealdeal
from sealdeal.sdk.images import build_app_image

EXAMPLE = Path(__file__).parents[1] / "examples" / "breast-cancer"
RECORDS = EXAMPLE / "data" / "breast_cancer.csv"
ARGUMENTS = ["--folds", "5"]
DEALS = 3
TRANSACTIONS = 2
"""After the match: initialize, and contributeAndFinalize."""


async def measure() -> AsyncIterator[Ratio]:
    """The best of a few deals, after one to warm up, against the sum of the parts and each of them."""
    with tempfile.TemporaryDirectory(prefix="sealdeal-bench-") as folder:
        root = Path(folder)
        async with LocalNetwork(root / "state", cache=root / "cache") as network:
            key = Key.generate(secrets.token_bytes)
            funder = Key(unhex(network.network.accounts["funder"]["key"]))
            async with Sealdeal(network.network, funder, transports=network.transports) as faucet:
                await faucet.faucet(key.address, 100 * RLC)
            async with Sealdeal(network.network, key, transports=network.transports) as user:
                whole = await _deals(user, root / "cache")
                chain = min([await _transactions(user) for _ in range(5)])
        sandbox = fastest(lambda: _in_bubblewrap(root, ["/bin/true"]))
        app = fastest(lambda: _in_bubblewrap(root, [sys.executable, str(EXAMPLE / "main.py"), *ARGUMENTS]), 3)
    total = sandbox + app + chain
    yield Ratio("a deal, match to decrypted result", whole, "its parts, run bare", total, "s")
    yield Ratio("a deal, match to decrypted result", whole, "the app alone in bubblewrap", app, "s")
    yield Ratio("a deal, match to decrypted result", whole, "bubblewrap starting `true`", sandbox, "s")
    yield Ratio("a deal, match to decrypted result", whole, f"{TRANSACTIONS} bare transactions", chain, "s")


async def _deals(user: Sealdeal, cache: Path) -> float:
    """Seconds of the quickest deal."""
    image = await asyncio.to_thread(build_app_image, EXAMPLE, cache=cache)
    app = await user.publish_app(image, price=RLC)
    data = await user.protect_dataset(RECORDS.read_bytes(), name="records")
    await user.grant(data.address, app=app.address, price=RLC)
    private, key_text = generate_result_key()
    await user.share_result_key(key_text)
    await user.deposit(80 * RLC)
    params = Params(args=" ".join(ARGUMENTS), result_encryption=True)
    taken = []
    for _ in range(1 + DEALS):
        heads: dict[int, float] = {}
        watching = asyncio.create_task(_watch(user, heads))
        request = await user.request(app.address, dataset=data.address, params=params)
        deal = await user.deal_of(request)
        task = await user.wait(deal.task_ids()[0])
        result = await user.result(task.taskid, private)
        end = time.monotonic()
        watching.cancel()
        assert "result.json" in result.files
        matched = await _block_of(user, (await user.market.deal(deal.dealid)).transaction_hash)
        taken.append(end - heads[matched])
    return min(taken[1:])


async def _watch(user: Sealdeal, heads: dict[int, float]) -> None:
    """When each block was first seen."""
    while True:
        heads.setdefault(int(await user.rpc.call("eth_blockNumber"), 16), time.monotonic())
        await asyncio.sleep(0.005)


async def _block_of(user: Sealdeal, transaction: bytes) -> int:
    receipt = await user.rpc.call("eth_getTransactionReceipt", "0x" + transaction.hex())
    return int(receipt["blockNumber"], 16)


async def _transactions(user: Sealdeal) -> float:
    start = time.monotonic()
    for _ in range(TRANSACTIONS):
        await user.deposit(1)
    return time.monotonic() - start


def _in_bubblewrap(root: Path, command: list[str]) -> None:
    out = root / "out"
    out.mkdir(exist_ok=True)
    environment = {
        "PATH": os.environ["PATH"],
        "IEXEC_IN": str(RECORDS.parent),
        "IEXEC_OUT": str(out),
        "IEXEC_DATASET_FILENAME": RECORDS.name,
    }
    isolated = [
        "bwrap",
        "--unshare-all",
        "--die-with-parent",
        "--ro-bind",
        "/",
        "/",
        "--bind",
        str(out),
        str(out),
    ]
    subprocess.run([*isolated, *command], env=environment, check=True, stdout=subprocess.DEVNULL)
