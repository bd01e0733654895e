"""Orders are signed, published, found, withdrawn, cancelled, matched by hand: trade_orders.py NETWORK_FILE"""

import secrets
import sys
from dataclasses import replace
from pathlib import Path

from sealdeal.model.orders import AppOrder, Kind, Params, RequestOrder
from sealdeal.model.types import RLC
from sealdeal.sdk.network import Network
from sealdeal.sdk.sync import Sealdeal

network = Network.load(Path(sys.argv[1]))
provider = Sealdeal.newcomer(network, 0)
requester = Sealdeal.newcomer(network, 20 * RLC, in_escrow=20 * RLC)
with provider, requester:
    me = requester.key.address
    app, _ = provider.do(provider.hub.create_app("echo", "DOCKER", b"registry.example/echo:1", b"\x02" * 32))
    offer = AppOrder(app=app, appprice=2 * RLC, volume=5, salt=secrets.token_bytes(32))
    cheap = replace(offer, appprice=RLC, requesterrestrict=me, salt=secrets.token_bytes(32))
    provider.publish(offer)
    hash = provider.publish(cheap)

    everyone, mine = (requester.do(requester.market.app_orders(app, requester=who)) for who in (None, me))
    assert [found.order.appprice for found in everyone.items] == [2 * RLC]
    assert [found.order.appprice for found in mine.items] == [RLC, 2 * RLC]

    provider.do(provider.market.unpublish(Kind.APP, hash, provider.key))  # out of the book, valid on chain
    provider.cancel(provider.sign(cheap))  # and for ever

    best = requester.do(requester.market.app_orders(app)).items[0].signed
    pool = requester.do(requester.market.workerpool_orders(category=0)).items[0].signed
    asked = RequestOrder(
        app=app,
        appmaxprice=best.order.appprice,
        workerpoolmaxprice=pool.order.workerpoolprice,
        requester=me,
        beneficiary=me,
        params=Params(args="hello").to_text(),
        salt=secrets.token_bytes(32),
    )
    request = requester.sign(asked)
    terms = requester.estimate(best, None, pool, request)
    print(f"{terms.volume} task for {terms.payer_lock} nRLC")
    dealid, _ = requester.do(requester.hub.match_orders(best, None, pool, request))
    deal = requester.do(requester.hub.deal(dealid))
    locked = requester.balance().locked
    print(f"deal 0x{dealid.hex()}: {deal.bot_size} task at {deal.price} nRLC, {locked} are locked")
