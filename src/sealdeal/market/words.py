"""What the matcher says and signs: of each order its place in the book, of each match what it chose from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from sealdeal.chain import Hub
from sealdeal.db import OWNED, Bytes32
from sealdeal.model.deals import deal_id
from sealdeal.model.matches import Match, Place, Word, match_domain
from sealdeal.model.types import Block

from .book import Fill
from .journal import tables
from .records import Record
from .store import MarketStore
from .tables import orders

matches = sa.Table(
    "market_matches",
    tables,
    sa.Column("dealid", Bytes32, primary_key=True),
    sa.Column("document", sa.JSON, nullable=False),
    info=OWNED,
)


class Words:
    """Signs with the wallet that `hub` sends from."""

    def __init__(self, store: MarketStore, hub: Hub, chain_id: int) -> None:
        self._store, self._key = store, hub.sender.wallet.key
        self._domain = match_domain(chain_id, hub.addresses.hub)

    def place(self, order: Record) -> Word[Place]:
        """The word on an order's place in the book."""
        said = Place(order.hash, order.sequence, order.published_at)
        return Word.by(self._key, said, self._domain)

    async def newest(self) -> int:
        """The last place given. Ask before the offers are read: what comes later is no promise."""
        query = sa.select(sa.func.max(orders.c.sequence))
        async with self._store.read() as connection:
            return (await connection.execute(query)).scalar() or 0

    async def chose(self, fill: Fill, sequence: int, block: Block, aside: Iterable[bytes]) -> Word[Match]:
        """Sign what was chosen, and keep it before it is sent: a deal without its word looks like a lie."""
        request = fill.request
        first = request.order.volume - request.remaining
        said = Match(
            request=request.hash,
            first=first,
            app=fill.app.hash,
            dataset=fill.dataset.hash if fill.dataset else bytes(32),
            workerpool=fill.workerpool.hash,
            price=fill.terms.price,
            volume=fill.terms.volume,
            sequence=sequence,
            block=block.number,
            aside=tuple(sorted(set(aside))),
        )
        word = Word.by(self._key, said, self._domain)
        dealid = deal_id(request.hash, first)
        async with self._store.write() as connection:
            await connection.execute(sa.delete(matches).where(matches.c.dealid == dealid))
            await connection.execute(sa.insert(matches).values(dealid=dealid, document=word.to_json()))
        return word


async def match_of(store: MarketStore, dealid: bytes) -> dict[str, Any] | None:
    """The matcher's word on a deal; None for a deal that somebody else made."""
    query = sa.select(matches.c.document).where(matches.c.dealid == dealid)
    async with store.read() as connection:
        return (await connection.execute(query)).scalar()
