"""Gas of a one-task TEE deal with a dataset, against the official PoCo contracts (6.1.0).

The official figures are receipts of anvil 1.7.1 with the prague rules, made as ours are here: orders that
were never used before, on a market where another deal is open, with params of 80 bytes, and a TEE broker that
authorises the enclave (there one key, here two of three nodes).
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from bench import Ratio
from sealdeal.chain import Anvil
from sealdeal.model.deals import enclave_message, task_id
from sealdeal.model.orders import Params
from sealdeal.model.types import keccak
from tests.network import CHAIN_ID, Network, build, key

OFFICIAL = {"matchOrders": 858_037, "initialize": 228_925, "contributeAndFinalize": 543_171}
PARAMS = Params(args="--rounds 5 --trees 12345")
RESULTS = b'{"storage":"ipfs","location":"/ipfs/QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWKPbdG"}'


async def measure() -> AsyncIterator[Ratio]:
    """Each transaction of the deal, and all of them together."""
    async with Anvil(chain_id=CHAIN_ID) as anvil:
        network = Network(anvil, await build(anvil))
        assets = await network.assets()
        await network.as_("requester").match_orders(*await network.orders(assets, params=PARAMS))
        orders = await network.orders(assets, params=PARAMS, salt=keccak(b"second"))
        dealid, matched = await network.as_("requester").match_orders(*orders)
        initialized = await network.as_("pool_owner").initialize(dealid, 0)
        taskid, worker, enclave = task_id(dealid, 0), network.address("worker"), key("enclave")
        value = keccak(RESULTS)
        ended = await network.as_("worker").contribute_and_finalize(
            taskid,
            value,
            RESULTS,
            b"",
            enclave.address,
            enclave.sign_message(enclave_message(worker, taskid, value)),
            network.authorisation(worker, taskid, enclave.address),
        )
    ours = dict(zip(OFFICIAL, (matched.gas_used, initialized.gas_used, ended.gas_used), strict=True))
    for name, gas in ours.items():
        yield Ratio(name, gas, "the official contracts", OFFICIAL[name], "gas")
    total = sum(ours.values())
    yield Ratio("a one-task TEE deal", total, "the official contracts", sum(OFFICIAL.values()), "gas")
