"""What a match of given orders would give, and why not, as the chain stands."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sealdeal.model.errors import Mismatch
from sealdeal.model.types import RLC
from sealdeal.sdk.buying import estimate_match
from tests.network import STAKE, Network

PRICE = 48 * RLC
"""Of a task: the app's, the dataset's and the workerpool's together."""


async def test_it_is_what_is_left_of_the_orders_at_their_prices(network: Network) -> None:
    assets = await network.assets()
    orders = await network.orders(assets, volume=5)
    terms = await estimate_match(network.hub, *orders)
    assert (terms.volume, terms.price, terms.payer_lock) == (5, PRICE, 5 * PRICE)
    fewer = await network.orders(assets, volume=2, salt=b"\1" * 32)
    await network.as_("requester").match_orders(*orders[:3], fewer[3])
    assert (await estimate_match(network.hub, *orders)).volume == 3
    await network.as_("app_provider").manage_order(orders[0], "close")
    with pytest.raises(Mismatch, match="the app order's volume is used up"):
        await estimate_match(network.hub, *orders)


async def test_it_is_not_more_than_the_escrows_can_pay_for(network: Network) -> None:
    orders = await network.orders(volume=10, with_dataset=False)
    assert (await estimate_match(network.hub, *orders)).volume == 10
    await network.as_("requester").withdraw(STAKE - 2 * (PRICE - 5 * RLC) - 1)
    assert (await estimate_match(network.hub, *orders)).volume == 2
    await network.as_("pool_owner").withdraw(STAKE - 12 * RLC)  # 30 per cent of its price for each task
    assert (await estimate_match(network.hub, *orders)).volume == 1
    await network.as_("pool_owner").withdraw(1)
    with pytest.raises(Mismatch, match="the workerpool's owner has 11999999999 nRLC free in the escrow"):
        await estimate_match(network.hub, *orders)


async def test_all_that_does_not_fit_is_named(network: Network) -> None:
    app, dataset, pool, request = await network.orders()
    worker = network.address("worker")
    cheap = network.sign("requester", replace(request.order, appmaxprice=RLC))
    closed = network.sign("app_provider", replace(app.order, requesterrestrict=worker))
    with pytest.raises(Mismatch) as failed:
        await estimate_match(network.hub, closed, dataset, pool, cheap)
    assert len(failed.value.reasons) == 2
    assert "2 RLC above the maximum of 1 RLC" in str(failed.value)
    assert f"the app's owner allows only requester {worker}" in str(failed.value)
