"""A matcher's word: what place an order has in its book, and what it chose a match from.

A matcher signs both, so that matching somebody worse than its book's best leaves proof: its word that the
better offer was there, next to its word on the match (`better`). Both are signed as EIP-712 messages on
`match_domain`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from . import types as t
from .eip712 import Bytes32_, Bytes32List, Domain, Typed, Uint256, digest
from .errors import BadSignature, Conflict, InvalidInput
from .keys import Key, recover_digest
from .matching import Remaining, Terms, match
from .orders import AppOrder, DatasetOrder, Kind, RequestOrder, Signed, WorkerpoolOrder
from .types import address, hexstr, unhex


@dataclass(frozen=True)
class Place(Typed):
    """An order came into the book as the `sequence`-th."""

    order: Bytes32_
    sequence: Uint256
    published: Uint256
    """Milliseconds since 1970, by the matcher's clock."""


@dataclass(frozen=True)
class Match(Typed):
    """These orders are the best for this request, of all in the book up to `sequence`."""

    request: Bytes32_
    first: Uint256
    """Index of the deal's first task."""
    app: Bytes32_
    dataset: Bytes32_
    """Zero for none."""
    workerpool: Bytes32_
    price: Uint256
    """nRLC per task."""
    volume: Uint256
    sequence: Uint256
    """The last place that was given when it chose."""
    block: Uint256
    """Number of the block at which the book was read."""
    aside: Bytes32List
    """Offers that it left out, because the chain refused them before."""


W = TypeVar("W", Place, Match)


def match_domain(chain_id: int, hub: t.Address) -> Domain:
    """Where a matcher's word counts."""
    return Domain("Sealdeal Matcher", "1", chain_id, hub)


@dataclass(frozen=True)
class Word(Generic[W]):
    """What a matcher said, who it is, and the 65-byte signature."""

    said: W
    matcher: t.Address
    signature: bytes

    @classmethod
    def by(cls, key: Key, said: W, domain: Domain) -> Word[W]:
        return cls(said, key.address, key.sign_digest(digest(domain, said)))

    def check(self, domain: Domain) -> None:
        """Raises BadSignature unless `matcher` signed it."""
        signer = recover_digest(digest(domain, self.said), self.signature)
        if signer != self.matcher:
            raise BadSignature(f"expected the word of matcher {self.matcher}, it was signed by {signer}")

    def to_json(self) -> dict[str, Any]:
        said, signature = self.said.to_json(), hexstr(self.signature)
        return {"said": said, "matcher": self.matcher, "signature": signature}


def _read(kind: type[W], value: Any) -> Word[W]:
    if not isinstance(value, Mapping) or not {"said", "matcher", "signature"} <= set(value):
        raise InvalidInput(f"expected an object with said, matcher and signature, got {value!r:.80}")
    return Word(kind.from_json(value["said"]), address(value["matcher"]), unhex(value["signature"]))


def read_place(value: Any) -> Word[Place]:
    """The opposite of `to_json`. Raises InvalidInput."""
    return _read(Place, value)


def read_match(value: Any) -> Word[Match]:
    """The opposite of `to_json`. Raises InvalidInput."""
    return _read(Match, value)


@dataclass(frozen=True)
class Orders:
    """Four orders, and the domain that they are signed on."""

    app: Signed[AppOrder]
    dataset: Signed[DatasetOrder] | None
    workerpool: Signed[WorkerpoolOrder]
    request: Signed[RequestOrder]

    def terms(self) -> Terms:
        """What they agree on for one task. Raises Mismatch."""
        return match(
            self.app.order,
            self.dataset.order if self.dataset else None,
            self.workerpool.order,
            self.request.order,
            Remaining(1, 1, 1, 1),
        )

    def hashes(self, domain: Domain) -> dict[Kind, bytes]:
        """Zero for no dataset."""
        return {
            Kind.APP: self.app.hash(domain),
            Kind.DATASET: self.dataset.hash(domain) if self.dataset else bytes(32),
            Kind.WORKERPOOL: self.workerpool.hash(domain),
            Kind.REQUEST: self.request.hash(domain),
        }


def better(
    told: Word[Match],
    instead: Orders,
    places: Mapping[bytes, Word[Place]],
    *,
    orders_on: Domain,
    words_on: Domain,
) -> int:
    """By how many nRLC per task a request was matched worse than its matcher's book allowed.

    `instead`: the request with the offers that it could have had; `places`: hash -> the matcher's word for
    each of them that is not in the match itself. `orders_on`, `words_on`: `hub_domain` and `match_domain`.
    What this cannot tell is whether an offer was open at the match's block: the hub's record of it does.
    Raises BadSignature, Mismatch (the orders do not fit), Conflict (nothing is wrong with the match).
    """
    told.check(words_on)
    said, hashes = told.said, instead.hashes(orders_on)
    if hashes[Kind.REQUEST] != said.request:
        raise Conflict(f"the match is of request {hexstr(said.request)}, these are orders for another")
    for hash in {hashes[Kind.APP], hashes[Kind.DATASET], hashes[Kind.WORKERPOOL]} - {bytes(32)}:
        if hash in (said.app, said.dataset, said.workerpool):
            continue
        if (place := places.get(hash)) is None or place.said.order != hash:
            raise Conflict(f"nothing shows that order {hexstr(hash)} was in the book: add its place")
        place.check(words_on)
        if place.matcher != told.matcher:
            raise Conflict(f"order {hexstr(hash)} was in the book of {place.matcher}, not of {told.matcher}")
        if place.said.sequence > said.sequence:
            raise Conflict(
                f"order {hexstr(hash)} came as number {place.said.sequence}, "
                f"after the match, which looked at {said.sequence}"
            )
        if hash in said.aside:
            raise Conflict(f"the matcher said that it left out order {hexstr(hash)}, as refused before")
    saved = said.price - instead.terms().price
    if saved <= 0:
        raise Conflict(f"these orders cost {-saved} nRLC per task more than the match: it is no worse")
    return saved
