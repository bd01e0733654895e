"""A matcher's word: signed with each deal and each place, and proof against it when it matches worse."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sealdeal.market.book import Candidates, Fill, best_fill
from sealdeal.market.lists import Lists
from sealdeal.model.errors import BadSignature, Conflict, IntegrityError, Mismatch, NotFound
from sealdeal.model.matches import Match, Orders, Place, Word, better, match_domain, read_match, read_place
from sealdeal.model.orders import Kind
from sealdeal.model.types import RLC
from sealdeal.sdk.matches import check_match
from tests.market.conftest import Running, Stand
from tests.market.test_engine import deals, salt
from tests.network import CHAIN_ID, Network


def domains(network: Network) -> dict[str, Any]:
    return {"orders_on": network.domain, "words_on": match_domain(CHAIN_ID, network.addresses.hub)}


async def test_each_deal_has_its_matchers_word_and_each_order_its_place(stand: Stand) -> None:
    network = stand.network
    app, dataset, pool, request = await network.orders()
    cheap = network.sign("pool_owner", replace(pool.order, workerpoolprice=20 * RLC, salt=salt(1)))
    offers = await stand.publish_all(app, dataset, pool, cheap)
    late = await stand.publish("requester", request)
    (deal,) = await deals(stand, 1)
    told = await stand.client.match_of(deal.dealid)
    at = domains(network)
    told.check(at["words_on"])
    assert told.matcher == network.address("hub_owner")
    assert (told.said.workerpool, told.said.price, told.said.volume) == (
        cheap.hash(network.domain),
        28 * RLC,
        1,
    )
    places = {order.hash: order.place for order in (*offers, late) if order.place}
    assert len(places) == 5 and max(place.said.sequence for place in places.values()) == told.said.sequence
    with pytest.raises(Conflict, match="cost 20000000000 nRLC per task more than the match: it is no worse"):
        better(told, Orders(app, dataset, pool, request), places, **at)
    with pytest.raises(NotFound, match="did not make this deal"):
        await stand.client.match_of(bytes(32))


async def test_a_market_that_only_lists_gives_no_word(running: Running) -> None:
    book = await running.start(matching=False)
    app, *_ = await book.network.orders()
    assert (await book.publish("app_provider", app)).place is None


async def test_a_worse_match_is_proved_by_the_matchers_own_words(
    network: Network,
) -> None:
    app, dataset, pool, request = await network.orders()
    cheap = network.sign("pool_owner", replace(pool.order, workerpoolprice=20 * RLC, salt=salt(1)))
    elsewhere = network.sign("pool_owner", replace(cheap.order, category=3))
    key, at = network.key("hub_owner"), domains(network)
    assert dataset
    said = Match(
        request=request.hash(network.domain),
        first=0,
        app=app.hash(network.domain),
        dataset=dataset.hash(network.domain),
        workerpool=pool.hash(network.domain),
        price=48 * RLC,
        volume=1,
        sequence=7,
        block=1,
        aside=(),
    )

    def word(said: Any, by: str = "hub_owner") -> Word[Any]:
        return Word.by(network.key(by), said, at["words_on"])

    hash = cheap.hash(network.domain)
    instead, place = Orders(app, dataset, cheap, request), Place(hash, 5, 0)
    told = read_match(Word.by(key, said, at["words_on"]).to_json())
    assert better(told, instead, {hash: read_place(word(place).to_json())}, **at) == 20 * RLC

    def refused(what: str, told: Word[Match] = told, given: Any = None, instead: Orders = instead) -> None:
        given = {hash: word(place)} if given is None else given
        with pytest.raises((Conflict, Mismatch, BadSignature), match=what):
            better(told, instead, given, **at)

    refused("add its place", given={})
    refused("add its place", given={hash: word(replace(place, order=bytes(32)))})
    refused("was in the book of", given={hash: word(place, "requester")})
    refused("was signed by", given={hash: replace(word(place), said=replace(place, sequence=1))})
    refused("came as number 8, after the match", given={hash: word(replace(place, sequence=8))})
    refused("was signed by", told=replace(told, said=replace(said, sequence=9)))
    refused("left out order", told=word(replace(said, aside=(hash,))))
    refused("is of request", told=word(replace(said, request=bytes(32))))
    other = elsewhere.hash(network.domain)
    wrong = Orders(app, dataset, elsewhere, request)
    refused("offers category 3", given={other: word(Place(other, 1, 0))}, instead=wrong)


async def test_a_place_is_the_order_of_publication(stand: Stand) -> None:
    app, dataset, *_ = await stand.network.orders()
    published = await stand.publish_all(app, dataset)
    first, second = [order.place for order in published]
    assert first and second and first.said.sequence < second.said.sequence
    assert (await stand.client.order(Kind.APP, published[0].hash)).place == first


async def test_a_match_that_was_the_best_is_found_true(stand: Stand) -> None:
    """A cheaper offer that came after it, or one that does not fit, says nothing against it."""
    network = stand.network
    app, dataset, pool, request = await network.orders()
    plain = network.sign("pool_owner", replace(pool.order, workerpoolprice=RLC, category=1, salt=salt(1)))
    await stand.publish_all(app, dataset, plain, pool, request)
    (deal,) = await deals(stand, 1)
    late = network.sign("pool_owner", replace(pool.order, workerpoolprice=RLC, salt=salt(2)))
    await stand.publish("pool_owner", late)
    told = await check_match(network.hub, stand.client, deal.dealid)
    assert told.said.workerpool == pool.hash(network.domain)
    with pytest.raises(NotFound):
        await check_match(network.hub, stand.client, bytes(32))


async def test_a_matcher_that_chose_worse_is_told_by_how_much(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It passes over the cheapest workerpool, and says nothing of having left it out."""
    network = stand.network
    app, dataset, pool, request = await network.orders()
    cheap = network.sign("pool_owner", replace(pool.order, workerpoolprice=15 * RLC, salt=salt(1)))

    def worst(asked: Any, found: Candidates) -> Fill | None:
        return best_fill(asked, replace(found, workerpools=found.workerpools[-1:]))

    async def every(self: Lists, order: Any, without: Any = (), at: Any = None) -> Candidates:
        return await self.neighbours(order, at)

    monkeypatch.setattr("sealdeal.market.engine.best_fill", worst)
    monkeypatch.setattr(Lists, "candidates", every)
    await stand.publish_all(app, dataset, cheap, pool, request)
    (deal,) = await deals(stand, 1)
    assert deal.workerpool_hash == pool.hash(network.domain)
    with pytest.raises(IntegrityError, match="would have cost 25 RLC less for each task"):
        await check_match(network.hub, stand.client, deal.dealid)
