"""An app runs on protected data; its result is decrypted and verified: run_on_data.py NETWORK_FILE"""

import sys
import tempfile
from pathlib import Path

from sealdeal.model.results import generate_result_key
from sealdeal.model.types import RLC
from sealdeal.sdk.images import build_app_image
from sealdeal.sdk.network import Network
from sealdeal.sdk.sync import Sealdeal

network, here = Network.load(Path(sys.argv[1])), Path(__file__).parent
with (
    Sealdeal.newcomer(network) as developer,
    Sealdeal.newcomer(network) as hospital,
    Sealdeal.newcomer(network, 20 * RLC, in_escrow=20 * RLC) as researcher,
):
    with tempfile.TemporaryDirectory() as cache:
        image = build_app_image(here.parent / "breast-cancer", cache=Path(cache))
        app = developer.publish_app(image, price=1 * RLC)

    records = here.parent / "breast-cancer" / "data" / "breast_cancer.csv"
    data = hospital.protect_dataset(records, name="records")
    hospital.grant(data.address, app=app.address, price=2 * RLC)

    private_key, public_key = generate_result_key()
    researcher.share_result_key(public_key)
    result = researcher.run(app.address, dataset=data.address, private_key=private_key)

    assert result.receipt is not None, "verified: by which image, on which data, in which enclave"
    print({name: len(content) for name, content in result.files.items()})
    print(f"the hospital earned {hospital.balance().stake} nRLC; receipt of {result.receipt.taskid}")
