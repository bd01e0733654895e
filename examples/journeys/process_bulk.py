"""The data of many owners are worked on in one deal, some in each task: process_bulk.py NETWORK_FILE"""

import sys
import tempfile
from pathlib import Path

from sealdeal.model.orders import Params
from sealdeal.model.types import RLC
from sealdeal.sdk.images import build_app_image
from sealdeal.sdk.network import Network
from sealdeal.sdk.sync import Sealdeal

MAIN = """
import json, os
into, out, total = os.environ["IEXEC_IN"], os.environ["IEXEC_OUT"], 0
for n in range(1, int(os.environ["IEXEC_BULK_SLICE_SIZE"]) + 1):
    path = os.path.join(into, os.environ[f"IEXEC_DATASET_{n}_FILENAME"])
    if os.path.exists(path):  # an owner may have taken theirs back
        total += int(open(path).read())
open(out + "/sum.txt", "w").write(str(total))
json.dump({"deterministic-output-path": out + "/sum.txt"}, open(out + "/computed.json", "w"))
"""

network = Network.load(Path(sys.argv[1]))
with (
    Sealdeal.newcomer(network, 0) as anna,
    Sealdeal.newcomer(network, 0) as ben,
    Sealdeal.newcomer(network, 20 * RLC, in_escrow=20 * RLC) as researcher,
    tempfile.TemporaryDirectory() as folder,
):
    (Path(folder) / "sealdeal.toml").write_text('name = "sum"\nentrypoint = ["python3", "main.py"]\n')
    (Path(folder) / "main.py").write_text(MAIN)
    app = researcher.publish_app(build_app_image(Path(folder), cache=Path(folder) / "cache"))

    data = []
    for owner, number in ((anna, 10), (ben, 20), (anna, 30)):
        made = owner.protect_dataset(str(number).encode(), name=f"number {number}")
        owner.grant(made.address, app=app.address, bulk=True)  # for nothing, and uncounted
        data.append(made.address)

    bulk = researcher.prepare_bulk(app.address, data, per_task=2)
    request = researcher.request(app.address, params=Params(bulk_cid=bulk.cid), volume=bulk.volume)
    tasks = researcher.deal_of(request).task_ids()
    sums = [researcher.result(researcher.wait(task).taskid).files["sum.txt"] for task in tasks]
    assert sums == [b"30", b"30"]
    print(f"{len(data)} datasets in {len(tasks)} tasks: sums {b', '.join(sums).decode()}")
