"""The pure rules of the book, against a search of every combination with the model's own rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sealdeal.market.book import Candidates, Fill, Offer, Status, best_fill, explain, stake_needed, status_of
from sealdeal.model.errors import Mismatch
from sealdeal.model.matching import Remaining, match
from sealdeal.model.orders import (
    SCONE,
    TEE,
    TEE_TDX,
    AppOrder,
    DatasetOrder,
    RequestOrder,
    Signed,
    WorkerpoolOrder,
    tag,
)
from sealdeal.model.types import RLC, ZERO, Address, address, keccak


def named(name: str) -> Address:
    return address(keccak(name.encode())[12:])


APP, DATA, REQUESTER, STRANGER = map(named, ("app", "data", "requester", "stranger"))
POOLS = [named("pool 1"), named("pool 2")]


def offer(order: Any, sequence: int, remaining: int | None = None) -> Offer[Any]:
    return Offer(
        keccak(b"%d" % sequence),
        sequence,
        Signed(order, b""),
        order.volume if remaining is None else remaining,
        STRANGER,
    )


# ------------------------------------------------------------------------------------------ property

prices = st.integers(0, 4)
tags = st.sampled_from([0, TEE, TEE_TDX, SCONE, TEE | 1 << 200]).map(tag)
pools = st.sampled_from([ZERO, *POOLS])
volumes = st.integers(0, 3)


def restricted(to: Address) -> st.SearchStrategy[Address]:
    return st.sampled_from([ZERO, ZERO, to, STRANGER])


apps = st.builds(
    AppOrder,
    st.sampled_from([APP, APP, APP, STRANGER]),
    prices,
    st.integers(1, 3),
    tags,
    datasetrestrict=restricted(DATA),
    workerpoolrestrict=pools,
    requesterrestrict=restricted(REQUESTER),
)
datasets = st.builds(
    DatasetOrder,
    st.just(DATA),
    prices,
    st.integers(1, 3),
    tags,
    apprestrict=restricted(APP),
    workerpoolrestrict=pools,
    requesterrestrict=restricted(REQUESTER),
)
workerpools = st.builds(
    WorkerpoolOrder,
    st.sampled_from(POOLS),
    prices,
    st.integers(1, 3),
    tags,
    st.integers(0, 1),
    st.integers(0, 2),
    apprestrict=restricted(APP),
    datasetrestrict=restricted(DATA),
    requesterrestrict=restricted(REQUESTER),
)
requests = st.builds(
    RequestOrder,
    st.just(APP),
    prices,
    st.sampled_from([ZERO, DATA]),
    prices,
    pools,
    prices,
    st.just(REQUESTER),
    st.integers(1, 3),
    tags,
    st.integers(0, 1),
    st.integers(0, 2),
)


@st.composite
def books(draw: Callable[..., Any]) -> tuple[Offer[RequestOrder], Candidates]:
    orders = [
        *draw(st.lists(apps, max_size=4)),
        *draw(st.lists(datasets, max_size=4)),
        *draw(st.lists(workerpools, max_size=4)),
    ]
    sequences = draw(st.permutations(range(1, len(orders) + 1)))
    offers = [offer(o, n, min(draw(volumes), o.volume)) for o, n in zip(orders, sequences, strict=True)]
    request = offer(draw(requests), 0)

    def of(kind: type) -> list[Offer[Any]]:
        return [o for o in offers if isinstance(o.order, kind)]

    return request, Candidates(
        of(AppOrder), of(DatasetOrder) if request.order.dataset != ZERO else [], of(WorkerpoolOrder)
    )


def every_fill(request: Offer[RequestOrder], found: Candidates) -> list[Fill]:
    """All sets that the model's rules accept."""
    fits = []
    data: list[Offer[DatasetOrder] | None] = [None] if request.order.dataset == ZERO else [*found.datasets]
    for app, dataset, pool in product(found.apps, data, found.workerpools):
        left = Remaining(
            app.remaining, dataset.remaining if dataset else 0, pool.remaining, request.remaining
        )
        try:
            terms = match(app.order, dataset.order if dataset else None, pool.order, request.order, left)
        except Mismatch:
            continue
        fits.append(Fill(app, dataset, pool, request, terms))
    return fits


@settings(max_examples=500)
@given(books())
def test_the_fill_is_the_best_of_all_that_the_rules_accept(
    book: tuple[Offer[RequestOrder], Candidates],
) -> None:
    """Nothing that the rules refuse, nothing when nothing fits, price before time, and always the same."""
    request, found = book
    fits = every_fill(request, found)
    best = best_fill(request, found)
    assert best == min(fits, key=lambda fill: fill.rank, default=None)
    shuffled = Candidates(found.apps[::-1], found.datasets[::-1], found.workerpools[::-1])
    assert best_fill(request, shuffled) == best
    if best:
        used: list[Any] = [best.app, best.workerpool, request, best.dataset or request]
        assert 1 <= best.terms.volume <= min(offer.remaining for offer in used)


@settings(max_examples=300)
@given(books())
def test_partial_fills_go_on_until_nothing_fits_and_never_exceed_a_volume(
    book: tuple[Offer[RequestOrder], Candidates],
) -> None:
    request, found = book
    everything: list[Any] = [request, *found.apps, *found.datasets, *found.workerpools]
    left = {o.hash: o.remaining for o in everything}
    for _ in range(20):
        now = replace(request, remaining=left[request.hash])

        def still(offers: Any) -> list[Offer[Any]]:
            return [replace(o, remaining=left[o.hash]) for o in offers if left[o.hash]]

        fill = best_fill(now, Candidates(still(found.apps), still(found.datasets), still(found.workerpools)))
        if fill is None:
            break
        for o in (fill.app, fill.dataset, fill.workerpool, fill.request):
            if o:
                left[o.hash] -= fill.terms.volume
    else:
        raise AssertionError("each fill uses up an order, so there can't be so many")
    assert all(remaining >= 0 for remaining in left.values())
    if left[request.hash]:
        assert (
            best_fill(now, Candidates(still(found.apps), still(found.datasets), still(found.workerpools)))
            is None
        )


@settings(max_examples=500)
@given(books())
def test_the_explanation_agrees_with_the_match(book: tuple[Offer[RequestOrder], Candidates]) -> None:
    """A constraint is named exactly when nothing fits, as far as single offers tell."""
    request, found = book
    same_app = Candidates(
        [o for o in found.apps if o.order.app == APP],
        found.datasets,
        [
            o
            for o in found.workerpools
            if o.order.category == request.order.category
            and request.order.workerpool in (ZERO, o.order.workerpool)
        ],
    )
    said = explain(request, same_app)
    if best_fill(request, found) is None:
        assert said.constraint
    if said.constraint is None:
        assert every_fill(request, found)
    for near in (*said.apps, *said.datasets, *said.workerpools):
        assert all(near.failing)


# ---------------------------------------------------------------------------------------------- why

ASK = RequestOrder(
    APP,
    3 * RLC,
    DATA,
    5 * RLC,
    workerpoolmaxprice=2 * RLC,
    requester=REQUESTER,
    tag=tag(TEE_TDX),
)
GOOD = Candidates(
    [offer(AppOrder(APP, 3 * RLC, tag=tag(TEE_TDX)), 1)],
    [offer(DatasetOrder(DATA, 5 * RLC, tag=tag(TEE_TDX)), 2)],
    [offer(WorkerpoolOrder(POOLS[0], 2 * RLC, tag=tag(TEE_TDX)), 3)],
)


def constraint(found: Candidates, ask: RequestOrder = ASK, **more: Any) -> str | None:
    return explain(offer(ask, 0), found, **more).constraint


def test_nothing_is_in_the_way_of_a_request_that_fits() -> None:
    assert best_fill(offer(ASK, 0), GOOD)
    said = explain(offer(ASK, 0), GOOD)
    assert said.constraint is None
    assert [near.failing for near in (*said.apps, *said.datasets, *said.workerpools)] == [(), (), ()]


def test_a_price_above_the_maximum_is_told_with_the_difference() -> None:
    dear = offer(WorkerpoolOrder(POOLS[0], 5 * RLC, tag=tag(TEE_TDX)), 3)
    told = constraint(replace(GOOD, workerpools=[dear]))
    assert told == "the workerpool's price is 3 RLC above the maximum of 2 RLC"


def test_a_restriction_of_the_data_owner_is_told_with_the_app_that_is_allowed() -> None:
    kept = offer(DatasetOrder(DATA, tag=tag(TEE_TDX), apprestrict=STRANGER), 2)
    assert (
        constraint(replace(GOOD, datasets=[kept])) == f"the data owner allows only app {STRANGER}, not {APP}"
    )


def test_a_tag_that_no_workerpool_has_is_told_as_such() -> None:
    plain = offer(WorkerpoolOrder(POOLS[0], tag=tag(TEE)), 3)
    assert (
        constraint(replace(GOOD, workerpools=[plain])) == "no workerpool order in category 0 has tag tee,tdx"
    )


def test_kinds_without_any_offer_are_told() -> None:
    assert constraint(replace(GOOD, apps=[])) == f"no app order for app {APP}"
    assert constraint(replace(GOOD, datasets=[])) == f"no dataset order for dataset {DATA}"
    assert constraint(replace(GOOD, workerpools=[])) == "no workerpool order in category 0"


def test_a_dataset_that_wants_a_tee_asks_for_an_app_that_says_so() -> None:
    ask = replace(ASK, tag=tag(0))
    plain = replace(GOOD, apps=[offer(AppOrder(APP, tag=tag(0)), 1)])
    assert constraint(plain, ask) == "the dataset wants a TEE, and the app's order does not say TEE"
    assert constraint(GOOD, ask) is None


def test_the_nearest_offer_comes_first_and_what_the_chain_said_counts() -> None:
    far = offer(WorkerpoolOrder(POOLS[0], 9 * RLC, tag=tag(0)), 3)
    near = offer(WorkerpoolOrder(POOLS[1], 3 * RLC, tag=tag(TEE_TDX)), 4)
    said = explain(offer(ASK, 0), replace(GOOD, workerpools=[far, near]))
    assert [n.offer.sequence for n in said.workerpools] == [4, 3]
    assert said.constraint == "the workerpool's price is 1 RLC above the maximum of 2 RLC"
    noted = constraint(GOOD, notes={GOOD.workerpools[0].hash: "its owner has too little stake"})
    assert noted == "its owner has too little stake"
    asker = offer(ASK, 0)
    assert (
        explain(asker, GOOD, {asker.hash: "the requester has 0 RLC"}).constraint == "the requester has 0 RLC"
    )


# --------------------------------------------------------------------------------------------- life


def test_stakes_are_floored_per_task_then_multiplied() -> None:
    assert stake_needed(WorkerpoolOrder(POOLS[0], 33, volume=10), 10) == 9 * 10
    assert stake_needed(RequestOrder(APP, 1, DATA, 2, ZERO, 3, volume=4), 3) == 18
    assert stake_needed(AppOrder(APP, 10), 1) == 0


def test_an_orders_status_follows_from_the_chains_facts() -> None:
    order = WorkerpoolOrder(POOLS[0], 100, volume=2)

    def status(consumed: int = 0, closed: bool = False, owner: Address = STRANGER, stake: int = 60) -> Status:
        return status_of(order, consumed, closed, STRANGER, owner, stake)

    assert status() == Status.OPEN
    assert status(stake=59) == Status.DEAD
    assert status(consumed=1, stake=30) == Status.OPEN
    assert status(consumed=2, stake=0) == Status.FILLED
    assert status(consumed=2, closed=True) == Status.CANCELED
    assert status(owner=REQUESTER) == Status.DEAD
