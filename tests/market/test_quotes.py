"""A quote is what the engine then makes of the same request."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sealdeal.market.quotes import times_of
from sealdeal.model.orders import TEE_TDX
from sealdeal.model.types import RLC
from tests.market.conftest import Running, Stand
from tests.market.test_engine import deals, salt


async def test_a_quote_is_what_the_engine_then_makes(stand: Stand) -> None:
    network = stand.network
    app, dataset, pool, request = await network.orders(volume=5)
    offers = [
        network.sign("pool_owner", replace(pool.order, volume=n, workerpoolprice=price * RLC, salt=salt(n)))
        for n, price in ((1, 30), (2, 10), (3, 20))
    ]
    await stand.publish_all(app, dataset, *offers)
    assert dataset
    asked: dict[str, Any] = {
        "dataset": dataset.order.dataset,
        "requester": network.address("requester"),
        "bits": TEE_TDX,
    }
    quote = await stand.client.quote(app.order.app, volume=5, **asked)
    parts = [(part.volume, part.workerpoolprice // RLC) for part in quote.parts]
    assert parts == [(2, 10), (3, 20)]
    assert (quote.volume, quote.wanted, quote.missing, quote.time) == (5, 5, None, None)
    assert quote.cost == (2 * 18 + 3 * 28) * RLC
    await stand.publish("requester", request)
    made = await deals(stand, 2)
    assert [(deal.volume, deal.workerpool.price // RLC) for deal in made] == parts
    assert [deal.workerpool_hash for deal in made] == [part.workerpoolorder_hash for part in quote.parts]


async def test_a_quote_tells_what_is_missing_for_the_rest(book: Stand) -> None:
    network = book.network
    app, dataset, pool, _ = await network.orders(volume=3)
    assert dataset
    asked: dict[str, Any] = {
        "dataset": dataset.order.dataset,
        "requester": network.address("requester"),
        "bits": TEE_TDX,
    }
    nothing = await book.client.quote(app.order.app, **asked)
    assert (nothing.volume, nothing.cost, nothing.missing) == (0, 0, f"no app order for app {app.order.app}")
    await book.publish_all(app, dataset, pool)
    some = await book.client.quote(app.order.app, volume=7, **asked)
    assert (some.volume, some.cost) == (3, 3 * 48 * RLC)
    assert some.missing == "the app order's volume is used up"
    other = await book.client.quote(app.order.app, category=3, **asked)
    assert other.missing == "no workerpool order in category 3"


async def test_a_quote_tells_how_long_such_tasks_took(running: Running) -> None:
    book = await running.start(matching=False)
    network = book.network
    deal = await network.deal()
    await network.complete(deal)
    quote = await book.client.quote(deal.app.pointer, category=deal.category)
    assert quote.time and quote.time.tasks == 1 and quote.time.median == quote.time.p95
    assert (await book.client.quote(deal.app.pointer, category=deal.category + 1)).time is None


@given(st.lists(st.integers(0, 10**6), min_size=1))
def test_the_percentiles_are_the_least_times_that_so_many_tasks_kept(seconds: list[int]) -> None:
    found = times_of(seconds)
    assert found and found.tasks == len(seconds)
    for value, share in ((found.median, 50), (found.p95, 95)):
        assert sum(time <= value for time in seconds) * 100 >= share * len(seconds)
        assert sum(time < value for time in seconds) * 100 < share * len(seconds)
