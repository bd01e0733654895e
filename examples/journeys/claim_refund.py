"""Nobody runs a task in time, and its requester gets everything back: claim_refund.py NETWORK_FILE"""

import secrets
import sys
import time
from pathlib import Path

from sealdeal.model.deals import TaskStatus
from sealdeal.model.keys import Key
from sealdeal.model.orders import AppOrder, RequestOrder, WorkerpoolOrder
from sealdeal.model.types import RLC, unhex
from sealdeal.sdk.network import Network
from sealdeal.sdk.sync import Sealdeal

network = Network.load(Path(sys.argv[1]))
with (
    Sealdeal(network, Key(unhex(network.accounts["hub_owner"]["key"]))) as hub_owner,
    Sealdeal.newcomer(network, 10 * RLC, in_escrow=10 * RLC) as idle,
    Sealdeal.newcomer(network, 10 * RLC, in_escrow=10 * RLC) as alice,
):
    second, _ = hub_owner.do(hub_owner.hub.create_category("a second", "to show a timeout", 1))
    pool, _ = idle.do(idle.hub.create_workerpool("a pool without workers"))
    app, _ = idle.do(idle.hub.create_app("never run", "DOCKER", b"registry.example/x:1", b"\x04" * 32))

    salt, me = secrets.token_bytes(32), alice.key.address
    offer = idle.sign(AppOrder(app=app, salt=salt))
    work = idle.sign(WorkerpoolOrder(workerpool=pool, workerpoolprice=RLC, category=second, salt=salt))
    asked = RequestOrder(
        app=app, workerpoolmaxprice=RLC, requester=me, beneficiary=me, category=second, salt=salt
    )
    dealid, _ = alice.do(alice.hub.match_orders(offer, None, work, alice.sign(asked)))
    assert alice.balance().locked == RLC

    deal = alice.do(alice.hub.deal(dealid))
    time.sleep(11)  # ten times what the category allows
    alice.claim(dealid)
    (taskid,) = deal.task_ids()
    assert alice.do(alice.hub.task(taskid)).status is TaskStatus.FAILED
    assert alice.balance().stake == 10 * RLC
    print("the task has failed, and its price lies in the escrow again")
