"""Restrictions that name a group (ERC-734): the engine asks the chain whom it admits."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from eth_abi.abi import encode

from sealdeal.model.orders import RequestOrder, Signed
from sealdeal.model.types import RLC, Address
from tests.contracts.actors import BURNS, GROUP, compiled
from tests.market.conftest import Stand
from tests.market.test_engine import deals, quiet, salt
from tests.network import Network


async def group_of(network: Network, *members: Address) -> Address:
    """The address of a new group with these members."""
    code = compiled(GROUP) + encode(["address[]"], [members])
    made = (await network.as_("hub_owner").sender.send(None, code)).contract
    assert made
    return made


async def test_offers_restricted_to_groups_serve_their_members(stand: Stand) -> None:
    """Each of the four restricts somebody to a group that admits him; then to one that does not."""
    network = stand.network
    app, dataset, pool, request = await network.orders(volume=5)
    assert dataset
    apps = await group_of(network, app.order.app)
    pools = await group_of(network, pool.order.workerpool)
    askers = await group_of(network, network.address("requester"))
    nobody = await group_of(network)
    signed = {
        "app_provider": replace(app.order, workerpoolrestrict=pools, requesterrestrict=askers),
        "data_provider": replace(dataset.order, apprestrict=apps, workerpoolrestrict=pools),
        "pool_owner": replace(pool.order, apprestrict=apps, requesterrestrict=askers),
    }
    for role, order in signed.items():
        await stand.publish(role, network.sign(role, order))
    closed = replace(pool.order, workerpoolprice=RLC, requesterrestrict=nobody)
    await stand.publish("pool_owner", network.sign("pool_owner", closed))
    quote = await stand.client.quote_for(request.order)
    assert quote.volume == 5 and quote.parts[0].workerpoolprice == 40 * RLC
    asked = network.sign("requester", replace(request.order, workerpool=pools))
    await stand.publish("requester", asked)
    (deal,) = await deals(stand, 1)
    assert deal.volume == 5 and deal.workerpool.price == 40 * RLC


async def test_a_group_that_refuses_is_named_and_asked_again(stand: Stand) -> None:
    network = stand.network
    app, dataset, pool, request = await network.orders(with_dataset=False)
    group = await group_of(network)
    kept = network.sign("app_provider", replace(app.order, requesterrestrict=group))
    await stand.publish_all(kept, dataset, pool)
    waiting = await stand.publish("requester", request)
    assert await quiet(stand) == 0
    why = await stand.client.why(waiting.hash)
    asker = network.address("requester")
    assert why.constraint == f"the app's owner allows only requester {group}, not {asker}"
    admitting = await group_of(network, asker)
    code = await network.rpc.call("eth_getCode", admitting, "latest")
    slots = {"member": await _slot(network, admitting, asker)}
    await network.rpc.call("anvil_setCode", group, code)
    await network.rpc.call("anvil_setStorageAt", group, slots["member"], "0x" + (1).to_bytes(32, "big").hex())
    (deal,) = await deals(stand, 1)
    assert deal.request_hash == waiting.hash


async def _slot(network: Network, group: Address, member: Address) -> str:
    """Where a group keeps that this is a member: the only slot that it reads when it is asked."""
    call = {
        "to": group,
        "data": "0xd202158d" + encode(["address", "uint256"], [member, 4]).hex(),
    }
    found = await network.rpc.call("eth_createAccessList", call, "latest")
    (access,) = [entry for entry in found["accessList"] if entry["address"].lower() == group.lower()]
    (slot,) = access["storageKeys"]
    return str(slot)


async def test_a_contract_that_is_no_group_and_one_that_burns_gas_admit_nobody(stand: Stand) -> None:
    network = stand.network
    app, dataset, pool, request = await network.orders(with_dataset=False)
    burns = (await network.as_("hub_owner").sender.send(None, BURNS)).contract
    assert burns
    for number, restricted in enumerate((burns, network.addresses.token)):
        order = replace(pool.order, requesterrestrict=restricted, workerpoolprice=1, salt=salt(number))
        await stand.publish("pool_owner", network.sign("pool_owner", order))
    await stand.publish_all(app, dataset, request)
    assert await quiet(stand) == 0
    await stand.publish("pool_owner", pool)
    (deal,) = await deals(stand, 1)
    assert deal.workerpool_hash == pool.hash(network.domain)


async def test_a_member_of_the_pools_group_is_chosen_though_others_are_cheaper(stand: Stand) -> None:
    network = stand.network
    app, dataset, pool, request = await network.orders(with_dataset=False)
    other, _ = await network.as_("worker").create_workerpool("[simulated] other")
    group = await group_of(network, pool.order.workerpool)
    cheap = network.sign("worker", replace(pool.order, workerpool=other, workerpoolprice=1))
    await stand.publish("worker", cheap)
    await stand.publish_all(app, dataset, pool)
    wanted: Signed[RequestOrder] = network.sign("requester", replace(request.order, workerpool=group))
    await asyncio.gather(stand.publish("requester", wanted))
    (deal,) = await deals(stand, 1)
    assert deal.workerpool.pointer == pool.order.workerpool
