"""What people do most, in as few lines as our SDK takes; journeys/shortest.mjs: with the official one.

The functions have the same names there, and both are run: see test_shortest.py.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from sealdeal.model.orders import Params
from sealdeal.model.results import generate_result_key
from sealdeal.model.sealing import SecretKind
from sealdeal.model.types import RLC, Address
from sealdeal.sdk.images import BuiltImage
from sealdeal.sdk.sync import Sealdeal


def money(one: Sealdeal, other: Address) -> int:
    one.send(other, 5 * RLC, gas_money=10**16)
    one.deposit(3 * RLC)
    one.approve(other, 1 * RLC)
    return one.withdraw(1 * RLC).balance.stake


def offer(developer: Sealdeal, image: BuiltImage) -> Address:
    return developer.publish_app(image).address


def secrets(one: Sealdeal, app: Address) -> None:
    one.share_secret(b"for every run", kind=SecretKind.APP_SECRET, subject=app, name="1")
    one.share_secrets({"login": b"for my runs", "password": b"for them too"})


def protect(owner: Sealdeal, plain: bytes, app: Address) -> Address:
    dataset = owner.protect_dataset(plain, name="data").address
    owner.grant(dataset, app=app, bulk=True)
    return dataset


def run(requester: Sealdeal, app: Address, dataset: Address) -> str:
    private_key, public_key = generate_result_key()
    requester.share_result_key(public_key)
    result = requester.run(app, dataset=dataset, private_key=private_key)
    return str(json.loads(result.files["result.json"])["data"])


def bulk(requester: Sealdeal, app: Address, datasets: Sequence[Address]) -> list[str]:
    made = requester.prepare_bulk(app, datasets, per_task=1)
    request = requester.request(app, params=Params(bulk_cid=made.cid), volume=made.volume)
    tasks = [requester.wait(taskid) for taskid in requester.deal_of(request).task_ids()]
    results = [requester.result(task.taskid).files["result.json"] for task in tasks]
    return [str(json.loads(result)["bulk"][0]) for result in results]
