"""A deal is watched step by step, and found again in the market's lists: follow_task.py NETWORK_FILE"""

import sys
import tempfile
from pathlib import Path

from sealdeal.model.orders import Params
from sealdeal.model.types import RLC
from sealdeal.sdk.images import build_app_image
from sealdeal.sdk.network import Network
from sealdeal.sdk.sync import Sealdeal

network = Network.load(Path(sys.argv[1]))
with (
    Sealdeal.newcomer(network, 20 * RLC, in_escrow=20 * RLC) as alice,
    tempfile.TemporaryDirectory() as folder,
):
    (Path(folder) / "sealdeal.toml").write_text('name = "hi"\nentrypoint = ["python3", "main.py"]\n')
    (Path(folder) / "main.py").write_text(
        "import json, os, sys\n"
        "out = os.environ['IEXEC_OUT']\n"
        "print('working on', sys.argv[1:])\n"
        "open(out + '/hi.txt', 'w').write('hi')\n"
        "json.dump({'deterministic-output-path': out + '/hi.txt'}, open(out + '/computed.json', 'w'))\n"
    )
    app = alice.publish_app(build_app_image(Path(folder), cache=Path(folder) / "cache"))
    print(f"a run costs {alice.quote(app.address).price} nRLC now")

    deal = alice.deal_of(alice.request(app.address, params=Params(args="one two")))
    (taskid,) = deal.task_ids()
    for event in alice.steps(taskid):
        print(event)
    assert alice.result(taskid).files["hi.txt"] == b"hi"

    deals = alice.do(alice.market.deals(requester=alice.key.address))
    assert [found.dealid for found in deals.items] == [deal.dealid]
