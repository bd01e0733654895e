"""The life of orders as the chain moves under them: deals, closings, sales, stakes, reorganisations."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from sealdeal.chain import Hub
from sealdeal.market.following import STATES
from sealdeal.model.errors import Forbidden, Unavailable
from sealdeal.model.orders import (
    AppOrder,
    DatasetOrder,
    Kind,
    RequestOrder,
    Signed,
    WorkerpoolOrder,
    kind_of,
)
from sealdeal.model.types import RLC, hexstr
from sealdeal.sdk.market_answers import Published
from tests.market.conftest import Running, Stand
from tests.network import Network


async def status(book: Stand, published: Published[Any]) -> tuple[str, int]:
    """(status, remaining) of an order, as the market says it now."""
    found = await book.client.order(kind_of(published.order), published.hash)
    return found.status, found.remaining


Four = tuple[Signed[AppOrder], Signed[DatasetOrder], Signed[WorkerpoolOrder], Signed[RequestOrder]]


async def four(book: Stand, **options: Any) -> tuple[Four, list[Published[Any]]]:
    """Four orders that fit, published."""
    app, dataset, pool, request = await book.network.orders(**options)
    assert dataset
    return (app, dataset, pool, request), await book.publish_all(app, dataset, pool, request)


async def reorganise(network: Network, snapshot: str) -> None:
    """Take the chain back to `snapshot` and let it grow past where it was, empty."""
    height = (await network.hub.block()).number
    assert await network.rpc.call("evm_revert", snapshot)
    await network.mine(height - (await network.hub.block()).number + 2)


async def test_a_match_fills_orders_and_gives_a_deal(book: Stand) -> None:
    network = book.network
    signed, published = await four(book, volume=3)
    few = network.sign("requester", replace(signed[3].order, volume=2, salt=bytes(31) + b"\1"))
    dealid, receipt = await network.as_("requester").match_orders(signed[0], signed[1], signed[2], few)
    assert [await status(book, one) for one in published] == [("open", 1)] * 3 + [("open", 3)]
    deal = await book.client.deal(dealid)
    assert (deal.volume, deal.bot_first, deal.tag, deal.params) == (2, 0, few.order.tag, few.order.params)
    assert deal.app.price == 3 * RLC and deal.workerpool.owner == network.address("pool_owner")
    assert deal.block_number == receipt.block.number and deal.transaction_hash == receipt.tx_hash
    assert deal.request_hash == few.hash(network.domain)
    again = network.sign("requester", replace(few.order, salt=b"\2" * 32))
    await network.as_("requester").match_orders(signed[0], signed[1], signed[2], again)
    assert [await status(book, one) for one in published[:3]] == [("filled", 0)] * 3


async def test_deals_are_listed_newest_first_by_every_filter(book: Stand) -> None:
    network = book.network
    signed, published = await four(book, volume=4)
    requests = [
        network.sign("requester", replace(signed[3].order, volume=1, salt=bytes([i]) * 32)) for i in (1, 2, 3)
    ]
    deals = [
        (await network.as_("requester").match_orders(signed[0], signed[1], signed[2], one))[0]
        for one in requests
    ]
    first = await book.client.deal(deals[0])
    everything = (await book.client.deals()).items
    assert [deal.dealid for deal in everything] == deals[::-1]
    filters: dict[str, Any] = {
        "category": 0,
        "requester": first.requester,
        "beneficiary": first.beneficiary,
        "app": first.app.pointer,
        "dataset": first.dataset.pointer,
        "workerpool": first.workerpool.pointer,
        "app_owner": first.app.owner,
        "dataset_owner": first.dataset.owner,
        "workerpool_owner": first.workerpool.owner,
        "apporder": published[0].hash,
        "datasetorder": published[1].hash,
        "workerpoolorder": published[2].hash,
    }
    for name, value in filters.items():
        assert (await book.client.deals(**{name: value})).count == 3, name
        other = (
            1
            if name == "category"
            else value[::-1]
            if isinstance(value, bytes)
            else network.hub.addresses.hub
        )
        without: dict[str, Any] = {name: other}
        assert (await book.client.deals(**without)).count == 0, name
    only = await book.client.deals(requestorder=requests[1].hash(network.domain))
    assert [deal.dealid for deal in only.items] == [deals[1]]
    assert [deal.dealid async for deal in book.client.every_deal(category=0)] == deals[::-1]
    prices = await book.get("/ohlc", category=0)
    assert prices.json()["ohlc"] == [[deal.block_timestamp, 40 * RLC, 1] for deal in everything]
    times = [(await network.hub.block(deal.block_number)).timestamp for deal in everything]
    assert await book.client.prices(0) == [(time, 40 * RLC, 1) for time in times]
    assert await book.client.prices(1) == []


async def test_a_deal_is_listed_as_soon_as_it_is_mined(book: Stand) -> None:
    """What DataProtector relies on: ask for the request's deals right after the match (wire.md §6.6)."""
    network = book.network
    for number in range(5):
        orders = await network.orders(await network.assets(str(number)))
        dealid, _ = await network.as_("requester").match_orders(*orders)
        found = await book.client.deals(requestorder=orders[3].hash(network.domain))
        assert [deal.dealid for deal in found.items] == [dealid]


async def test_orders_closed_on_chain_are_canceled(book: Stand) -> None:
    network = book.network
    signed, published = await four(book)
    roles = ("app_provider", "data_provider", "pool_owner", "requester")
    everything: list[Signed[Any]] = [*signed]
    for role, order, shown in list(zip(roles, everything, published, strict=True))[::-1]:
        await network.as_(role).manage_order(order, "close")
        assert await status(book, shown) == ("canceled", 0)
    assert (await book.client.app_orders("any")).count == 0
    for role, order in zip(roles, everything, strict=True):
        with pytest.raises(Forbidden, match="order already published"):
            await book.publish(role, order)


async def test_a_request_dies_with_its_dataset_order(book: Stand) -> None:
    network = book.network
    signed, published = await four(book)
    await network.as_("data_provider").manage_order(signed[1], "close")
    assert await status(book, published[3]) == ("dead", 1)
    assert await status(book, published[0]) == ("open", 1)


async def test_an_asset_that_is_sold_kills_its_old_owners_orders(book: Stand) -> None:
    network = book.network
    signed, published = await four(book)
    app = signed[0].order.app
    await network.as_("app_provider").transfer_asset(Kind.APP, app, network.address("worker"))
    assert await status(book, published[0]) == ("dead", 1)
    assert await status(book, published[3]) == ("dead", 1), "a dependant"
    new = await book.publish("worker", network.sign("worker", signed[0].order), standing=False)
    assert new.hash == published[0].hash and new.status == "open", "a dead order may be published again"
    assert new.signer == network.address("worker")


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_stake_that_leaves_kills_what_it_covered(running: Running, restarted: bool) -> None:
    book = await running.start(matching=False)
    network = book.network
    signed, published = await four(book)
    free = network.sign("pool_owner", replace(signed[2].order, workerpoolprice=0))
    costless = await book.publish("pool_owner", free)
    await network.as_("pool_owner").withdraw(500 * RLC - 12 * RLC + 1)
    assert await status(book, published[2]) == ("dead", 1)
    assert await status(book, costless) == ("open", 1)
    await network.as_("requester").withdraw(500 * RLC - 48 * RLC)
    assert await status(book, published[3]) == ("open", 1), "still covered, to the last nRLC"
    await network.as_("requester").withdraw(1)
    assert await status(book, published[3]) == ("dead", 1)
    if restarted:
        await running.stop()
        book = await running.start(matching=False)
    await network.as_("requester").deposit(100 * RLC)
    assert await status(book, published[3]) == ("dead", 1), "money that returns revives nothing"
    assert (await book.publish("requester", signed[3])).status == "open"


async def test_new_categories_are_indexed(book: Stand) -> None:
    _, receipt = await book.network.as_("hub_owner").create_category("tiny", "for tests", 7)
    found = (await book.client.categories(least=7, most=7)).items[0]
    assert (found.catid, found.name, found.description) == (6, "tiny", "for tests")
    assert (found.block_number, found.transaction_hash) == (receipt.block.number, receipt.tx_hash)


async def test_a_reorganisation_takes_everything_back(book: Stand) -> None:
    """Match, closing, sale, stake, category: each on a branch that is lost."""
    network = book.network
    signed, published = await four(book)
    assets = await network.assets("second")
    more = [one for one in await network.orders(assets, salt=b"\5" * 32) if one]
    others = await book.publish_all(*more)
    before = [await status(book, one) for one in (*published, *others)]
    assert before == [("open", 1)] * 8
    snapshot = await network.rpc.call("evm_snapshot")

    dealid, _ = await network.as_("requester").match_orders(*signed)
    await network.as_("app_provider").manage_order(more[0], "close")
    await network.as_("data_provider").transfer_asset(Kind.DATASET, assets[1], network.address("worker"))
    await network.as_("pool_owner").withdraw(480 * RLC)
    await network.as_("hub_owner").create_category("tiny", "for tests", 7)
    after = [await status(book, one) for one in (*published, *others)]
    assert after == [("filled", 0)] * 4 + [("canceled", 0), ("dead", 1), ("dead", 1), ("dead", 1)]
    assert (await book.client.deals()).count == 1 and (await book.client.categories()).count == 7

    await reorganise(network, snapshot)
    assert [await status(book, one) for one in (*published, *others)] == before
    assert (await book.client.deals()).count == 0 and (await book.client.categories()).count == 6
    again, _ = await network.as_("requester").match_orders(*signed)
    assert again == dealid and [await status(book, one) for one in published] == [("filled", 0)] * 4


@pytest.mark.parametrize("lost", [1, 2])
@pytest.mark.parametrize("restarted", [False, True])
async def test_what_was_built_on_a_lost_branch_is_back_when_that_is_mined_again(
    running: Running, restarted: bool, lost: int
) -> None:
    """An app, a stake, and orders that need them, all of the same minute as the reorganisation.

    `lost`: how many branches in turn do not last. `restarted`: the market knows only what it stored.
    """
    book = await running.start(matching=False)
    network = book.network
    await book.client.deals()
    await network.as_("requester").withdraw(500 * RLC)
    before = await network.rpc.call("evm_snapshot")
    await network.as_("requester").deposit(48 * RLC)
    signed, published = await four(book)
    assert [await status(book, one) for one in published] == [("open", 1)] * 4
    for _ in range(lost):
        await reorganise(network, before)
        assert [await status(book, one) for one in published] == [("dead", 1)] * 4, "nothing of it is there"
        if restarted:
            await running.stop()
            book = await running.start(matching=False)
            assert [await status(book, one) for one in published] == [("dead", 1)] * 4
        before = await network.rpc.call("evm_snapshot")
        assets = await network.assets()
        assert assets[0] == signed[0].order.app
        await book.client.deals()
        await network.as_("requester").deposit(48 * RLC)
        assert [await status(book, one) for one in published] == [("open", 1)] * 4
    await network.as_("requester").match_orders(*signed)
    assert [await status(book, one) for one in published] == [("filled", 0)] * 4


async def test_a_request_does_not_come_back_without_its_app(book: Stand) -> None:
    """It died when its app's offer was unpublished, and a reorganisation brings no publication back."""
    network = book.network
    signed, published = await four(book)
    snapshot = await network.rpc.call("evm_snapshot")
    await network.mine()
    await book.client.deals()
    await book.client.unpublish(Kind.APP, published[0].hash, network.key("app_provider"))
    assert await status(book, published[3]) == ("dead", 1)
    await reorganise(network, snapshot)
    assert await status(book, published[3]) == ("dead", 1)
    assert await status(book, published[2]) == ("open", 1)
    again = await book.publish("app_provider", signed[0])
    assert again.status == "open" and (await book.publish("requester", signed[3])).status == "open"


async def test_a_restart_goes_on_where_it_was_and_sees_what_it_missed(running: Running) -> None:
    book = await running.start(matching=False)
    network = book.network
    signed, published = await four(book)
    at = book.market.index.cursor
    await running.stop()
    dealid, _ = await network.as_("requester").match_orders(*signed)
    await network.mine(50)
    book = await running.start(matching=False)
    assert at and (await book.market.store.recent_blocks())[0].number >= at.number
    assert [await status(book, one) for one in published] == [("filled", 0)] * 4
    assert (await book.client.deal(dealid)).dealid == dealid


async def test_a_reorganisation_during_an_absence_is_noticed(running: Running) -> None:
    book = await running.start(matching=False)
    network = book.network
    signed, published = await four(book)
    await book.client.categories()
    snapshot = await network.rpc.call("evm_snapshot")
    await network.as_("requester").match_orders(*signed)
    assert (await book.client.deals()).count == 1
    await running.stop()
    await reorganise(network, snapshot)
    book = await running.start(matching=False)
    assert [await status(book, one) for one in published] == [("open", 1)] * 4
    assert (await book.client.deals()).count == 0


async def test_a_chain_that_became_shorter_during_an_absence_is_not_outlived_by_what_was_stored(
    running: Running,
) -> None:
    """A stored block with a higher number than the head says nothing: its branch may be gone."""
    book = await running.start(matching=False)
    network = book.network
    signed, published = await four(book)
    snapshot = await network.rpc.call("evm_snapshot")
    await network.as_("requester").match_orders(*signed)
    await network.mine(5)
    assert (await book.client.deals()).count == 1
    await running.stop()
    assert await network.rpc.call("evm_revert", snapshot)
    await network.mine()
    book = await running.start(matching=False)
    assert [await status(book, one) for one in published] == [("open", 1)] * 4
    assert (await book.client.deals()).count == 0


async def test_a_market_that_has_come_further_than_it_now_shows_answers_at_once(running: Running) -> None:
    """More confirmations than before: what is stored is of this chain, and above what is asked for."""
    book = await running.start(matching=False)
    network = book.network
    _, published = await four(book)
    await running.stop()
    book = await running.start(matching=False, confirmations=5)
    assert await status(book, published[0]) == ("open", 1)
    head = await network.hub.block()
    assert book.market.index.cursor == head


async def test_derived_tables_are_indexed_again_to_the_same(running: Running, monkeypatch: Any) -> None:
    """Drop everything derived: it comes back the same, from the chain and the publications."""
    book = await running.start(matching=False)
    network = book.network
    signed, published = await four(book)
    few = network.sign("requester", replace(signed[3].order, salt=b"\1" * 32))
    more = await book.publish_all(
        *(one for one in await network.orders(await network.assets("second")) if one)
    )
    closing = network.sign("app_provider", replace(signed[0].order, salt=b"\3" * 32))
    closed = await book.publish("app_provider", closing)
    await network.as_("requester").match_orders(signed[0], signed[1], signed[2], few)
    await network.as_("app_provider").manage_order(closing, "close")
    everything = [*published, *more, closed]
    before = [await status(book, one) for one in everything]
    assert before == [("filled", 0)] * 3 + [("dead", 1)] + [("open", 1)] * 4 + [("canceled", 0)]
    documents = (await book.get("/deals")).json(), (await book.get("/categories")).json()
    await running.stop()

    from sealdeal.market import journal

    monkeypatch.setitem(journal.tables.info, "derived_version", 999)
    book = await running.start(matching=False)
    assert [await status(book, one) for one in everything] == before
    assert ((await book.get("/deals")).json(), (await book.get("/categories")).json()) == documents


async def test_two_market_nodes_on_one_database_agree(running: Running) -> None:
    one = await running.start(matching=False)
    other = await running.start(matching=False)
    signed, published = await four(one)
    await asyncio.gather(
        *(
            one.network.as_(role).manage_order(order, "close")
            for role, order in list[tuple[str, Signed[Any]]](
                [("app_provider", signed[0]), ("data_provider", signed[1])]
            )
        )
    )
    for book in (one, other):
        assert [await status(book, shown) for shown in published[:2]] == [("canceled", 0)] * 2
        assert (await book.client.categories()).count == 6


async def test_an_order_published_between_two_blocks_misses_nothing(book: Stand) -> None:
    """Publications race with the closings of the very same orders: none may stay open."""
    network = book.network
    app, *_ = await network.orders()
    orders = [network.sign("app_provider", replace(app.order, salt=bytes([i]) * 32)) for i in range(12)]

    async def publish(order: Signed[Any]) -> None:
        try:
            await book.publish("app_provider", order)
        except Exception as refused:
            assert "order already consumed" in str(refused)

    async def close(order: Signed[Any]) -> None:
        await asyncio.sleep(0.03)
        await network.as_("app_provider").manage_order(order, "close")

    await asyncio.gather(*(act(order) for order in orders for act in (publish, close)))
    assert (await book.client.app_orders("any")).count == 0


async def test_an_index_that_does_not_get_there_says_so(book: Stand) -> None:
    await book.client.deals()
    head = await book.network.hub.block()
    later = replace(head, number=head.number + 5, hash=b"\1" * 32)
    with pytest.raises(Unavailable, match=f"the index shows block {head.number}, the chain is at block"):
        await book.market.index.reached(later, 0.05)


async def test_confirmations_keep_the_newest_blocks_out(running: Running) -> None:
    book = await running.start(matching=False, confirmations=3)
    network = book.network
    dealid, receipt = await network.as_("requester").match_orders(*await network.orders())
    assert (await book.client.deals()).count == 0
    await network.mine(3)
    assert [deal.dealid for deal in (await book.client.deals()).items] == [dealid]
    assert hexstr(dealid) in (await book.get("/deals")).text and receipt.block.number


async def test_after_a_long_absence_no_forgotten_state_is_asked_for(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nodes forget the state of old blocks: what happened long ago is judged by a younger one."""
    book = await running.start(matching=False)
    network = book.network
    signed, published = await four(book, volume=2)
    few = network.sign("requester", replace(signed[3].order, volume=1, salt=b"\1" * 32))
    await running.stop()
    await network.as_("requester").match_orders(signed[0], signed[1], signed[2], few)
    await network.as_("app_provider").manage_order(signed[0], "close")
    await network.mine(2 * STATES)

    asked: list[int] = []
    read = Hub.consumed_many

    async def recorded(hub: Hub, hashes: Any, at: Any = None) -> list[int]:
        asked.append(at.number)
        return await read(hub, hashes, at)

    monkeypatch.setattr(Hub, "consumed_many", recorded)
    book = await running.start(matching=False)
    states = [await status(book, one) for one in published]
    assert states == [("canceled", 0), ("open", 1), ("open", 1), ("dead", 2)]
    head = (await network.hub.block()).number
    assert asked and min(asked) >= head - STATES
