"""The order book's rules, pure: which offers serve a request best, why none does, and when an order is dead.

Price first, then time: of all sets of offers that fit a request, the one whose task costs least; of equal
ones, the one whose workerpool's offer, then app's, then dataset's, was published first. The rules of a match
are `model.matching`'s alone; nothing here accepts a set that it refuses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Generic

from sealdeal.model.deals import WORKERPOOL_STAKE_RATIO
from sealdeal.model.errors import Mismatch
from sealdeal.model.matching import Admits, Reason, Remaining, Terms, admits_exactly, match, reasons
from sealdeal.model.orders import (
    TEE,
    AppOrder,
    DatasetOrder,
    Order,
    RequestOrder,
    Signed,
    T,
    WorkerpoolOrder,
    tag,
    tag_bits,
    tag_names,
)
from sealdeal.model.types import ZERO, Address, Bytes32

NEAREST = 3
"""Offers of each kind that `explain` shows."""


_PRICES = (0x03, 0x04, 0x05)  # the rules on prices


class Status(StrEnum):
    """An order's life (wire.md §1.6)."""

    OPEN = "open"
    FILLED = "filled"
    CANCELED = "canceled"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Offer(Generic[T]):
    """A published order."""

    hash: Bytes32
    sequence: int
    """Its place in the sequence of publications: lower came first."""
    signed: Signed[T]
    remaining: int
    """Tasks left."""
    signer: Address

    @property
    def order(self) -> T:
        return self.signed.order

    @property
    def price(self) -> int:
        """nRLC per task; of a request, the workerpool's maximum."""
        return price_of(self.signed.order)


@dataclass(frozen=True, slots=True)
class Candidates:
    """Open offers that may serve one request, of each kind by price, then sequence."""

    apps: Sequence[Offer[AppOrder]]
    datasets: Sequence[Offer[DatasetOrder]]
    """Empty for a request without a dataset."""
    workerpools: Sequence[Offer[WorkerpoolOrder]]
    admitted: frozenset[tuple[Address, Address]] = frozenset()
    """(group, account): whom the groups among the offers' restrictions admit."""
    refused: bool = False
    """Whether a group refused somebody; it may admit him later, and tells nobody."""

    def admits(self, restriction: Address, account: Address) -> bool:
        """A restriction admits anyone, its own account, or a group's members."""
        return admits_exactly(restriction, account) or (restriction, account) in self.admitted


@dataclass(frozen=True, slots=True)
class Fill:
    """Four orders that fit, and what they agree on."""

    app: Offer[AppOrder]
    dataset: Offer[DatasetOrder] | None
    workerpool: Offer[WorkerpoolOrder]
    request: Offer[RequestOrder]
    terms: Terms

    @property
    def rank(self) -> tuple[int, int, int, int]:
        """Lower is better: price of a task, then time of the workerpool's, the app's, the dataset's offer."""
        data = self.dataset.sequence if self.dataset else 0
        return self.terms.price, self.workerpool.sequence, self.app.sequence, data


def price_of(order: Order) -> int:
    """nRLC per task that an offer asks; of a request, the most it gives a workerpool."""
    match order:
        case AppOrder():
            return order.appprice
        case DatasetOrder():
            return order.datasetprice
        case WorkerpoolOrder():
            return order.workerpoolprice
        case RequestOrder():
            return order.workerpoolmaxprice


# ---------------------------------------------------------------------------------------- best match


def best_fill(request: Offer[RequestOrder], candidates: Candidates) -> Fill | None:
    """The best set of offers for `request`, or None when no set fits.

    Deterministic: it depends on the offers' contents and sequence numbers alone. Linear in the number of
    apps and datasets for each workerpool: what ties an app to a dataset is one bit (TEE) alone, all else
    ties each of them to the workerpool and the request.
    """
    best: Fill | None = None
    cheapest_app = min((offer.price for offer in candidates.apps), default=0)
    cheapest_data = min((offer.price for offer in candidates.datasets), default=0)
    for pool in sorted(candidates.workerpools, key=_priority):
        if best and pool.price + cheapest_app + cheapest_data > best.terms.price:
            break
        for fill in _fills(request, candidates, pool, candidates.admits):
            if best is None or fill.rank < best.rank:
                best = fill
    return best


def _priority(offer: Offer[Any]) -> tuple[int, int]:
    return offer.price, offer.sequence


def _fills(
    request: Offer[RequestOrder], candidates: Candidates, pool: Offer[WorkerpoolOrder], admits: Admits
) -> Iterable[Fill]:
    """The sets with this workerpool's offer among which the best is."""
    apps = [a for a in sorted(candidates.apps, key=_priority) if _app_fits(a, pool, request, admits)]
    if request.order.dataset == ZERO:
        pairs: list[tuple[Offer[AppOrder] | None, Offer[DatasetOrder] | None]] = [(_first(apps), None)]
    else:
        data = [d for d in sorted(candidates.datasets, key=_priority) if _data_fits(d, pool, request, admits)]
        in_tee = [app for app in apps if tag_bits(app.order.tag) & TEE]
        anywhere = [offer for offer in data if not tag_bits(offer.order.tag) & TEE]
        pairs = [(_first(apps), _first(anywhere)), (_first(in_tee), _first(data))]
    for app, dataset in pairs:
        if app is None or (dataset is None and request.order.dataset != ZERO):
            continue
        left = Remaining(
            app.remaining, dataset.remaining if dataset else 0, pool.remaining, request.remaining
        )
        try:
            terms = match(
                app.order, dataset.order if dataset else None, pool.order, request.order, left, admits
            )
        except Mismatch:
            continue
        yield Fill(app, dataset, pool, request, terms)


def _first(offers: Sequence[Offer[T]]) -> Offer[T] | None:
    return offers[0] if offers else None


def _any_dataset(request: RequestOrder) -> DatasetOrder | None:
    """A dataset's offer that stands in nobody's way."""
    return None if request.dataset == ZERO else DatasetOrder(dataset=request.dataset)


def _any_app(request: RequestOrder, dataset: DatasetOrder | None) -> AppOrder:
    """An app's offer that stands in nobody's way: it says TEE exactly when that is asked for."""
    asked = tag_bits(request.tag) | (tag_bits(dataset.tag) if dataset else 0)
    return AppOrder(app=request.app, tag=tag(asked & TEE))


def _app_fits(
    app: Offer[AppOrder], pool: Offer[WorkerpoolOrder], request: Offer[RequestOrder], admits: Admits
) -> bool:
    left = Remaining(app.remaining, 1, pool.remaining, request.remaining)
    return not reasons(app.order, _any_dataset(request.order), pool.order, request.order, left, admits)


def _data_fits(
    data: Offer[DatasetOrder], pool: Offer[WorkerpoolOrder], request: Offer[RequestOrder], admits: Admits
) -> bool:
    left = Remaining(1, data.remaining, pool.remaining, request.remaining)
    return not reasons(
        _any_app(request.order, data.order), data.order, pool.order, request.order, left, admits
    )


# ----------------------------------------------------------------------------------------------- why


@dataclass(frozen=True, slots=True)
class Nearest:
    """An offer and what keeps it from serving the request; nothing when it would."""

    offer: Offer[Any]
    failing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a request is unmatched."""

    constraint: str | None
    """The one constraint to change first; None when a set fits and is only waiting for its transaction."""
    apps: tuple[Nearest, ...]
    datasets: tuple[Nearest, ...]
    workerpools: tuple[Nearest, ...]


def explain(
    request: Offer[RequestOrder],
    candidates: Candidates,
    notes: Mapping[Bytes32, str] | None = None,
) -> Explanation:
    """The nearest offers of each kind, with every constraint that fails.

    `candidates` are offers of the request's app, dataset and category, whatever their prices and
    restrictions. `notes`: hash -> why the chain refuses that order (a stake too low, a bad signature).
    """
    order, notes, admits = request.order, notes or {}, candidates.admits
    free_pool = WorkerpoolOrder(
        workerpool=order.workerpool,
        tag=tag(2**256 - 1),
        category=order.category,
        trust=order.trust,
    )

    def judged(offers: Iterable[Offer[Any]], judge: Callable[[Any], list[Reason]]) -> list[Nearest]:
        """The nearest first: where fewest constraints fail, and rather a price than another."""
        found = []
        for offer in offers:
            failing = judge(offer)
            noted = (notes[offer.hash],) if offer.hash in notes else ()
            near = Nearest(offer, tuple(reason.text for reason in failing) + noted)
            others = sum(reason.code not in _PRICES for reason in failing)
            found.append((len(near.failing), others, *_priority(offer), near))
        return [near for *_, near in sorted(found, key=lambda ranked: ranked[:-1])]

    def of_app(offer: Offer[AppOrder]) -> list[Reason]:
        pool = replace(free_pool, workerpool=offer.order.workerpoolrestrict)
        left = Remaining(offer.remaining, 1, 1, 1)
        found = reasons(offer.order, _any_dataset(order), _where(pool, order), order, left, admits)
        return [reason for reason in found if reason.party == "app"]

    def of_data(offer: Offer[DatasetOrder]) -> list[Reason]:
        pool = replace(free_pool, workerpool=offer.order.workerpoolrestrict)
        left = Remaining(1, offer.remaining, 1, 1)
        app = _any_app(order, offer.order)
        found = reasons(app, offer.order, _where(pool, order), order, left, admits)
        return [reason for reason in found if reason.party == "dataset"]

    apps = judged(candidates.apps, of_app)
    datasets = judged(candidates.datasets, of_data)
    best_data = datasets[0].offer.order if datasets else _any_dataset(order)
    if apps and best_data and tag_bits(best_data.tag) & TEE and not tag_bits(apps[0].offer.order.tag) & TEE:
        apps = judged(candidates.apps, lambda o: _with_data(of_app(o), o.order, best_data, order))
    best_app = apps[0].offer.order if apps else _any_app(order, best_data)

    def of_pool(offer: Offer[WorkerpoolOrder]) -> list[Reason]:
        left = Remaining(1, 1, offer.remaining, 1)
        found = reasons(best_app, best_data, offer.order, order, left, admits)
        # what app and data owners, and the request, say about the workerpool is a fault of the pairing
        return [r for r in found if r.party == "workerpool" or r.code in (0x12, 0x14, 0x17)]

    pools = judged(candidates.workerpools, of_pool)
    return Explanation(
        _constraint(request, apps, datasets, pools, notes),
        tuple(apps[:NEAREST]),
        tuple(datasets[:NEAREST]),
        tuple(pools[:NEAREST]),
    )


def _where(pool: WorkerpoolOrder, request: RequestOrder) -> WorkerpoolOrder:
    """A free workerpool at the place that the request names, if it names one."""
    return pool if request.workerpool == ZERO else replace(pool, workerpool=request.workerpool)


def _with_data(found: list[Reason], app: AppOrder, data: DatasetOrder, request: RequestOrder) -> list[Reason]:
    if any(reason.code == 0x07 for reason in found) or tag_bits(app.tag) & TEE:
        return found
    return [*found, Reason(0x07, "app", "the dataset wants a TEE, and the app's order does not say TEE")]


def _constraint(
    request: Offer[RequestOrder],
    apps: Sequence[Nearest],
    datasets: Sequence[Nearest],
    pools: Sequence[Nearest],
    notes: Mapping[Bytes32, str],
) -> str | None:
    order = request.order
    if request.remaining <= 0:
        return "the request order's volume is used up"
    for near, nobody in (
        (apps, f"no app order for app {order.app}"),
        (datasets if order.dataset != ZERO else None, f"no dataset order for dataset {order.dataset}"),
        (pools, f"no workerpool order in category {order.category}"),
    ):
        if near is not None and not near:
            return nobody
    asked = tag_bits(order.tag)
    if pools and all(asked & ~tag_bits(near.offer.order.tag) for near in pools):
        return f"no workerpool order in category {order.category} has tag {tag_names(order.tag)}"
    blocked = [near[0] for near in (apps, datasets, pools) if near and near[0].failing]
    if blocked:
        return min(blocked, key=lambda near: len(near.failing)).failing[0]
    return notes.get(request.hash)


# ------------------------------------------------------------------------------------ an order's life


def stake_needed(order: Order, remaining: int) -> int:
    """nRLC that the signer must have in escrow for the order to stay in the book (wire.md §1.4, §1.6)."""
    match order:
        case WorkerpoolOrder():
            return order.workerpoolprice * WORKERPOOL_STAKE_RATIO // 100 * remaining
        case RequestOrder():
            return (order.appmaxprice + order.datasetmaxprice + order.workerpoolmaxprice) * remaining
        case _:
            return 0


def status_of(
    order: Order, consumed: int, closed: bool, signer: Address, owner: Address, stake: int
) -> Status:
    """What the chain's facts make of an order. `owner` is the asset's (of a request, the requester)."""
    remaining = order.volume - consumed
    if closed:
        return Status.CANCELED
    if remaining <= 0:
        return Status.FILLED
    if owner != signer or stake < stake_needed(order, remaining):
        return Status.DEAD
    return Status.OPEN
