"""An app, a dataset and a workerpool are predicted, registered, listed, given away: register_assets.py
NETWORK_FILE"""

import sys
from pathlib import Path

from sealdeal.model.orders import Kind
from sealdeal.sdk.network import Network
from sealdeal.sdk.sync import Sealdeal

network = Network.load(Path(sys.argv[1]))
with Sealdeal.newcomer(network, 0) as alice, Sealdeal.newcomer(network, 0) as bob:
    hub, me = alice.hub, alice.key.address
    terms = ("hello", "DOCKER", b"registry.example/hello:1", bytes(31) + b"\x01")
    expected = alice.do(hub.predict_app(*terms, owner=me))  # from its terms, before it exists
    app, _ = alice.do(hub.create_app(*terms))
    dataset, _ = alice.do(hub.create_dataset("notes", b"https://data.example/notes", bytes(31) + b"\x02"))
    pool, _ = alice.do(hub.create_workerpool("two machines under a desk"))
    assert app == expected
    assert alice.do(hub.app(app)).name == "hello"
    assert alice.do(hub.assets_of(Kind.APP, me)) == [app]

    for kind, asset in ((Kind.APP, app), (Kind.DATASET, dataset), (Kind.WORKERPOOL, pool)):
        alice.do(hub.transfer_asset(kind, asset, bob.key.address))
        assert bob.do(bob.hub.owner_of(asset)) == bob.key.address
        print(f"{kind} {asset} now belongs to {bob.key.address}")
