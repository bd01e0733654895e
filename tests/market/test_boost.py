"""Boost deals: listed like others, and the ends of their tasks told, though none of them has a record."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sealdeal.market import boost
from sealdeal.model.deals import result_seal, task_id
from sealdeal.model.types import RLC, ZERO, hexstr, keccak, unhex
from tests.market.conftest import Running, Stand
from tests.market.test_index import reorganise, status
from tests.network import QUICK, Network, key


async def boosted(network: Network, *orders: Any) -> bytes:
    """The id of a Boost deal of these orders, which anybody can make."""
    hub = network.as_("worker")
    receipt = await hub.sender.transact(
        hub.hub, "matchOrdersBoost", *(order.as_tuple() for order in orders), contracts=hub.contracts
    )
    return bytes(receipt.event("OrdersMatched")["dealid"])


async def pushed(network: Network, dealid: bytes, index: int, results: bytes) -> bytes:
    """Push a result as a worker with an enclave does; the task's id."""
    hub, worker, enclave = network.as_("worker"), network.address("worker"), key("enclave")
    taskid = task_id(dealid, index)
    sign = enclave.sign_message(result_seal(worker, taskid, keccak(results)))
    grant = network.authorisation(worker, taskid, enclave.address)
    arguments = (dealid, index, results, b"", grant, enclave.address, sign)
    await hub.sender.transact(hub.hub, "pushResultBoost", *arguments)
    return taskid


async def claimed(network: Network, dealid: bytes, index: int, *, by_contract: bool = False) -> bytes:
    """Claim a task, as a wallet does or by a contract in whose transaction the call cannot be read."""
    hub = network.as_("second_worker")
    if not by_contract:
        await hub.sender.transact(hub.hub, "claimBoost", dealid, index)
        return task_id(dealid, index)
    call = unhex(hub.hub.request("claimBoost", dealid, index)["data"])
    code = b"\x63" + call[:4] + unhex("0x60e01b600052")  # its pieces, put together in the contract's memory
    code += b"\x7f" + call[4:36] + unhex("0x600452") + b"\x7f" + call[36:] + unhex("0x602452")
    code += unhex("0x60006000604460006000") + b"\x73" + unhex(hub.hub.address) + unhex("0x5af160006000f3")
    submitted = await hub.sender.submit(None, code, gas=1_000_000)
    await submitted.receipt()
    return task_id(dealid, index)


async def told(stand: Stand) -> list[tuple[str, Any]]:
    """Events of deals and tasks since the journal began."""
    await stand.market.index.caught_up()
    found = await stand.market.store.journal.after(0, 1000)
    return [(event.name, event.document) for event in found if event.topic in ("deals", "tasks")]


async def test_a_boost_deal_is_listed_with_all_that_a_deal_has(book: Stand) -> None:
    network = book.network
    signed = await network.orders(volume=3, category=QUICK)
    published = await book.publish_all(*signed)
    few = network.sign("requester", replace(signed[3].order, volume=2, salt=b"\1" * 32))
    dealid = await boosted(network, signed[0], signed[1], signed[2], few)
    deal = await book.client.deal(dealid)
    assert signed[1]
    app, dataset, pool, request = signed[0].order, signed[1].order, signed[2].order, few.order
    assert (deal.app.pointer, deal.app.price, deal.app.owner) == (
        app.app,
        3 * RLC,
        network.address("app_provider"),
    )
    assert (deal.dataset.pointer, deal.dataset.price) == (dataset.dataset, 5 * RLC)
    assert (deal.workerpool.pointer, deal.workerpool.owner) == (
        pool.workerpool,
        network.address("pool_owner"),
    )
    assert (deal.requester, deal.beneficiary) == (request.requester, request.beneficiary)
    assert (deal.tag, deal.params, deal.category) == (request.tag, request.params, QUICK)
    assert (deal.volume, deal.bot_first, deal.callback, deal.request_hash) == (
        2,
        0,
        ZERO,
        few.hash(network.domain),
    )
    share = (await network.hub.workerpool(pool.workerpool)).scheduler_reward_ratio
    assert (deal.scheduler_reward_ratio, deal.worker_stake, deal.trust) == (share, 0, 1)
    assert (await network.hub.block(deal.block_number)).timestamp == deal.start_time
    assert (await book.client.deals(requester=request.requester)).count == 1
    assert [await status(book, one) for one in published] == [("open", 1)] * 3 + [("open", 3)]


async def test_ends_of_boost_tasks_are_told(book: Stand) -> None:
    network = book.network
    first = await boosted(network, *await network.orders(volume=3, category=QUICK))
    second = await boosted(network, *await network.orders(await network.assets("b"), category=QUICK))
    done = await pushed(network, first, 0, b"result")
    await network.pass_time(60)
    by_wallet = await claimed(network, first, 1)
    by_contract = await claimed(network, first, 2, by_contract=True)
    last = await claimed(network, second, 0, by_contract=True)
    *_, completed, failed, hidden, other = await told(book)
    assert completed[0] == "task_completed" and completed[1]["taskid"] == hexstr(done)
    assert unhex(completed[1]["results"]) == b"result"
    for taskid, dealid, index, (name, document) in (
        (by_wallet, first, 1, failed),
        (by_contract, first, 2, hidden),
        (last, second, 0, other),
    ):
        assert (name, document["status"], document["index"]) == ("task_failed", "FAILED", index)
        assert (document["taskid"], document["dealid"]) == (hexstr(taskid), hexstr(dealid))
        assert document["requester"] == network.address("requester")
    assert [size async for size in book.market.store.overdue_boosts(2**40)] == []


async def test_the_search_for_a_claimed_task_has_an_end(book: Stand, monkeypatch: Any) -> None:
    """Who makes many deals to be searched through hides one claim's deal, and stops nothing."""
    monkeypatch.setattr(boost, "SEARCHED", 3)
    network = book.network
    deals = [
        await boosted(network, *await network.orders(await network.assets(name), volume=2, category=QUICK))
        for name in "abc"
    ]
    await network.pass_time(60)
    await claimed(network, deals[0], 1, by_contract=True)
    await claimed(network, deals[2], 1, by_contract=True)
    failed = [document["dealid"] for name, document in await told(book) if name == "task_failed"]
    assert failed == [hexstr(deals[2])]


async def test_boost_deals_are_found_after_a_restart_and_undone_with_their_branch(running: Running) -> None:
    """Read in one batch, the deal with the claim of its task; and taken back as others are."""
    network = running.network
    snapshot = await network.rpc.call("evm_snapshot")
    dealid = await boosted(network, *await network.orders(category=QUICK))
    await network.pass_time(60)
    taskid = await claimed(network, dealid, 0, by_contract=True)
    book = await running.start(matching=False)
    (made, _), (name, document) = await told(book)
    assert (made, name, document["taskid"]) == ("deal_created", "task_failed", hexstr(taskid))
    await reorganise(network, snapshot)
    *_, (task, reverted), (gone, removed) = await told(book)
    assert (task, reverted["taskid"]) == ("task_reverted", hexstr(taskid))
    assert (gone, removed["dealid"]) == ("deal_removed", hexstr(dealid))
    assert (await book.client.deals()).count == 0
