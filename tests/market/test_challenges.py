"""An authorization is good for one request, and costs a publication no commit of its own (wire.md §1.2)."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from sealdeal.market.challenges import CHALLENGE_LIFE
from sealdeal.market.tables import challenges
from sealdeal.model.orders import Signed
from sealdeal.model.types import hexstr
from sealdeal.sdk.challenges import authorization
from tests.market.conftest import Running, Stand
from tests.market.test_groups import group_of
from tests.network import CHAIN_ID

REFUSED = (403, "invalid authorization")


@pytest.fixture(params=["SQLite", "PostgreSQL"])
def anywhere(request: pytest.FixtureRequest) -> Running:
    """Markets on each kind of database."""
    found: Running = request.getfixturevalue("running" if request.param == "SQLite" else "on_postgres")
    return found


@contextmanager
def commits() -> Iterator[list[set[str]]]:
    """The transactions that are committed meanwhile and wrote: of each, the tables."""
    open_ones: dict[sa.Connection, set[str]] = {}
    found: list[set[str]] = []

    def begin(connection: sa.Connection) -> None:
        open_ones[connection] = set()

    def execute(connection: sa.Connection, _: Any, statement: str, *__: Any) -> None:
        if wrote := re.match(r"(?:INSERT INTO|UPDATE|DELETE FROM) (\w+)", statement):
            open_ones[connection].add(wrote[1])

    def commit(connection: sa.Connection) -> None:
        if open_ones[connection]:
            found.append(open_ones[connection])

    heard = (("begin", begin), ("before_cursor_execute", execute), ("commit", commit))
    for name, listener in heard:
        sa.event.listen(sa.Engine, name, listener)
    try:
        yield found
    finally:
        for name, listener in heard:
            sa.event.remove(sa.Engine, name, listener)


async def post(stand: Stand, header: dict[str, str], signed: Signed[Any]) -> tuple[int, str]:
    """The status and error of a publication of an app's order."""
    answer = await stand.http.post(
        "/apporders", params={"chainId": str(CHAIN_ID)}, json={"order": signed.to_json()}, headers=header
    )
    return answer.status_code, answer.json().get("error", "")


async def put(stand: Stand, header: dict[str, str], **body: str) -> tuple[int, str]:
    """The status and error of taking out an app's orders."""
    answer = await stand.http.put("/apporders", params={"chainId": str(CHAIN_ID)}, json=body, headers=header)
    return answer.status_code, answer.json().get("error", "")


def salted(stand: Stand, signed: Signed[Any], number: int) -> Signed[Any]:
    """The same order of the app's provider, in another copy."""
    return stand.network.sign("app_provider", replace(signed.order, salt=number.to_bytes(32, "big")))


async def test_a_publication_is_one_commit_and_so_is_its_end(anywhere: Running) -> None:
    """Its authorization, a group that nobody named before, the order, and what is told of it."""
    book = await anywhere.start(matching=False)
    app, *_ = await book.network.orders()
    group = await group_of(book.network, book.network.address("requester"))
    await book.market.index.caught_up()
    kept = book.network.sign("app_provider", replace(app.order, requesterrestrict=group))
    header = await book.authorization("app_provider")
    with commits() as written:
        assert await post(book, header, kept) == (200, "")
    (together,) = written
    assert {"market_challenges", "market_orders", "market_book", "market_groups", "market_events"} <= together
    header = await book.authorization("app_provider")
    with commits() as written:
        hash = hexstr(kept.hash(book.network.domain))
        assert await put(book, header, orderHash=hash) == (200, "")
    (together,) = written
    assert {"market_challenges", "market_orders", "market_book", "market_events"} <= together


async def test_one_answer_publishes_one_of_two_orders_at_once(anywhere: Running) -> None:
    """At two nodes of the market: their database decides."""
    book, other = [await anywhere.start(matching=False) for _ in range(2)]
    app, *_ = await book.network.orders()
    header = await book.authorization("app_provider")
    signed = [salted(book, app, number) for number in range(4)]
    answers = await asyncio.gather(*(post((book, other)[n % 2], header, one) for n, one in enumerate(signed)))
    assert sorted(answers) == [(200, ""), *[REFUSED] * 3]
    assert (await book.client.app_orders(app.order.app)).count == 1
    assert await post(book, header, signed[0]) == REFUSED


async def test_a_refused_request_spends_its_answer(anywhere: Running) -> None:
    book = await anywhere.start(matching=False, max_open_orders=1)
    app, *_ = await book.network.orders()
    provider = book.network.address("app_provider")
    await book.publish("app_provider", app)
    invalid = replace(salted(book, app, 1), sign=bytes(65))
    malformed = replace(app, order=replace(app.order, volume=0))
    for signed, refusal in (
        (app, (403, "order already published")),
        (malformed, (400, "volume must be greater than or equal to 1")),
        (invalid, (403, "invalid sign")),
        (
            salted(book, app, 2),
            (403, f"maximum of 1 published open apporder has been reached for wallet {provider}"),
        ),
    ):
        header = await book.authorization("app_provider")
        assert await post(book, header, signed) == refusal
        assert await post(book, header, signed) == REFUSED
    targets = "unpublish_orderHash, unpublish_last, unpublish_all"
    nothing = hexstr(bytes(32))
    for body, refusal in (
        ({"orderHash": nothing}, (403, f"apporder with orderHash {nothing} is not published")),
        ({"target": "x"}, (400, f"target must be one of the following values: {targets}")),
    ):
        header = await book.authorization("app_provider")
        assert await put(book, header, **body) == refusal
        assert await put(book, header, **body) == REFUSED
    assert (await book.client.app_orders(app.order.app)).count == 1


async def test_a_webhooks_answer_is_spent_too(book: Stand) -> None:
    header = await book.authorization("requester")
    query = {"chainId": str(CHAIN_ID)}
    listed = await book.http.get("/webhooks", params=query, headers=header)
    assert listed.json() == {"ok": True, "webhooks": []}
    again = await book.http.get("/webhooks", params=query, headers=header)
    assert (again.status_code, again.json()["error"]) == REFUSED
    header = await book.authorization("requester")
    gone = await book.http.delete("/webhooks/wh_none", params=query, headers=header)
    assert (gone.status_code, gone.json()["error"]) == (404, "webhook not found")
    again = await book.http.delete("/webhooks/wh_none", params=query, headers=header)
    assert (again.status_code, again.json()["error"]) == REFUSED


async def test_several_challenges_of_one_wallet_may_be_open(book: Stand) -> None:
    app, *_ = await book.network.orders()
    headers = [await book.authorization("app_provider") for _ in range(2)]
    for number, header in enumerate(headers):
        assert (await post(book, header, salted(book, app, number)))[0] == 200


async def test_an_old_challenge_is_not_answered(book: Stand) -> None:
    app, *_ = await book.network.orders()
    provider = book.network.key("app_provider")
    document = await book.client.challenge(provider.address)
    async with book.market.store.write() as connection:
        long_ago = int((time.time() - CHALLENGE_LIFE) * 1000) - 1
        await connection.execute(sa.update(challenges).values(issued_at=long_ago))
    header = {"authorization": authorization(CHAIN_ID, document, provider)}
    assert await post(book, header, app) == REFUSED
    assert (await book.client.app_orders(app.order.app)).count == 0
