"""Data are protected, found, granted, revoked, and given to a new owner: share_data.py NETWORK_FILE"""

import sys
from pathlib import Path

from sealdeal.model.orders import Kind
from sealdeal.model.types import RLC
from sealdeal.sdk.network import Network
from sealdeal.sdk.sync import Sealdeal

network = Network.load(Path(sys.argv[1]))
with Sealdeal.newcomer(network, 0) as owner, Sealdeal.newcomer(network, 0) as heir:
    app, _ = owner.do(owner.hub.create_app("reader", "DOCKER", b"registry.example/reader:1", b"\x03" * 32))
    data = owner.protect_dataset(b"what only that app may read", name="diary", schema={"diary": "string"})
    (found,) = heir.protected_data(schema=["diary:string"], owner=owner.key.address)
    assert found.address == data.address
    grant = owner.grant(data.address, app=app, price=1 * RLC, volume=10)
    owner.grant(data.address, app=app, requester=heir.key.address)  # free for one reader

    grants = owner.do(owner.market.dataset_orders(data.address, app=app, requester="any"))
    assert sorted(one.order.datasetprice for one in grants.items) == [0, 1 * RLC]
    for one in grants.items:
        if one.hash == grant:
            owner.cancel(one.signed)  # on chain: nobody can use it any more, whoever kept a copy

    owner.do(owner.hub.transfer_asset(Kind.DATASET, data.address, heir.key.address))
    assert heir.do(heir.hub.assets_of(Kind.DATASET, heir.key.address)) == [data.address]
    print(f"{data.address} belongs to {heir.key.address}, and so does what it earns")
