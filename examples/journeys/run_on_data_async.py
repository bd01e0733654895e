"""An app runs on protected data three times at once, with asyncio: run_on_data_async.py NETWORK_FILE"""

import asyncio
import sys
import tempfile
from pathlib import Path

from sealdeal.model.results import generate_result_key
from sealdeal.model.types import RLC
from sealdeal.sdk.client import Sealdeal, newcomer
from sealdeal.sdk.images import build_app_image
from sealdeal.sdk.network import Network

FOLDER = Path(__file__).parents[1] / "breast-cancer"


async def main(network: Network) -> None:
    keys = [await newcomer(network, 30 * RLC, in_escrow=20 * RLC) for _ in range(2)]
    async with Sealdeal(network, keys[0]) as provider, Sealdeal(network, keys[1]) as researcher:
        with tempfile.TemporaryDirectory() as cache:
            image = await asyncio.to_thread(build_app_image, FOLDER, cache=Path(cache))
            app = await provider.publish_app(image, price=1 * RLC)
        data = await provider.protect_dataset(FOLDER / "data" / "breast_cancer.csv", name="records")
        await provider.grant(data.address, app=app.address, price=1 * RLC)

        private_key, public_key = generate_result_key()
        await researcher.share_result_key(public_key)
        results = await asyncio.gather(
            *(researcher.run(app.address, dataset=data.address, private_key=private_key) for _ in range(3))
        )
        print([result.receipt.taskid for result in results if result.receipt])


asyncio.run(main(Network.load(Path(sys.argv[1]))))
