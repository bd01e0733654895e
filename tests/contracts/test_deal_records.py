"""Used volumes, presignatures and owners are exact, whatever shares their slots (orders.vy, deals.vy).

As in test_records.py both suites get the same calls, and have to show the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from sealdeal.model.orders import Signed, tag
from sealdeal.model.types import ZERO, keccak
from tests.contracts.both import accounts, both, refusal_of
from tests.contracts.world import DATASET_PRICE, TIMEREF, World

Four = tuple[Signed[Any], ...]

KINDS = ("App", "Dataset", "Workerpool", "Request")
OWNERS = ("app", "dataset", "scheduler", "requester")
PARTS = ("app", "data", "pool", "request")
"""The name of a kind's changes in `World.four`."""
FREE = dict(zip(PARTS, ("appprice", "datasetprice", "workerpoolprice", ""), strict=True))
SIGN, CLOSE = 0, 1
CONSUMER = "0x" + "cc" * 20
"""Whom a callback goes to: an account without code."""
DEALS_LIMIT = 2**24
"""All deals of a request order together stay below this many tasks on ours."""

# ---- Orders ------------------------------------------------------------------------------------------------

EDGES = [
    1,
    2,
    3,
    4,
    2**24 - 1,
    2**24,
    2**32 - 1,
    2**32,
    2**95 - 1,
    2**95,
    2**95 + 1,
    2**96,
    2**255,
    2**256 - 1,
]
"""Volumes that some part of a word just holds, or just does not."""


@dataclass(frozen=True)
class Step:
    """One thing that happens to the four orders."""

    what: str
    """sign or close one, or match."""
    kind: int = 0
    """Which is signed or closed; in a match, which is replaced by another order."""
    small: int = 0
    """The other order's volume; if 0, none is replaced."""
    bare: bool = False
    """The orders come without signatures: they should have been signed on chain."""


def four(world: World, volumes: tuple[int, ...]) -> Four:
    """Orders that cost nothing, of these volumes."""
    changes: dict[str, Any] = {
        part: {"volume": volume} | ({FREE[part]: 0} if FREE[part] else {})
        for part, volume in zip(PARTS, volumes, strict=True)
    }
    return world.four(dataset=True, **changes)


class Orders:
    """Four orders on one suite, and what should be known of them."""

    def __init__(self, world: World, volumes: tuple[int, ...]) -> None:
        self.world, self.volumes = world, volumes
        self.orders = four(world, volumes)
        self.hashes = [order.hash(world.domain) for order in self.orders]
        self.used = [0] * 4
        self.signers = [ZERO] * 4
        self.seen: list[Any] = []

    def look(self) -> None:
        hub = self.world.hub
        assert [hub.viewConsumed(hashed) for hashed in self.hashes] == self.used
        assert [hub.viewPresigned(hashed) for hashed in self.hashes] == self.signers
        for hashed, owner, signer in zip(self.hashes, OWNERS, self.signers, strict=True):
            assert hub.verifyPresignature(self.world.who(owner), hashed) == (signer != ZERO)
        left = [volume - used for volume, used in zip(self.volumes, self.used, strict=True)]
        assert hub.computeDealVolume(*(order.as_tuple() for order in self.orders)) == min(left)

    def take(self, step: Step) -> None:
        if step.what == "match":
            self.match(step)
        else:
            signed, owner = self.orders[step.kind], OWNERS[step.kind]
            operation = SIGN if step.what == "sign" else CLOSE
            function = f"manage{KINDS[step.kind]}Order"
            assert refusal_of(self.world, owner, function, (signed.as_tuple(), operation, b"")) is None
            if step.what == "sign":
                self.signers[step.kind] = self.world.who(owner)
            else:
                self.used[step.kind] = self.volumes[step.kind]
        self.look()

    def match(self, step: Step) -> None:
        matched, used, volumes = list(self.orders), list(self.used), list(self.volumes)
        if step.small:
            matched[step.kind] = four(self.world, (step.small,) * 4)[step.kind]
            used[step.kind], volumes[step.kind] = 0, step.small
        taken = min(volume - use for volume, use in zip(volumes, used, strict=True))
        if used[-1] + taken >= DEALS_LIMIT:
            return  # the official hub takes it
        arguments = [(*o.as_tuple()[:-1], b"") if step.bare else o.as_tuple() for o in matched]
        refused = refusal_of(self.world, "stranger", "matchOrders", *arguments)
        self.seen.append(refused)
        if not step.bare:
            assert (refused is None) == (taken > 0)
        if refused is None:
            self.used = [
                use if step.small and kind == step.kind else use + taken for kind, use in enumerate(self.used)
            ]


def live(world: World, volumes: tuple[int, ...], steps: list[Step]) -> list[Any]:
    """What each match of these steps was refused with; raises AssertionError where a view is not true."""
    orders = Orders(world, volumes)
    orders.look()
    for step in steps:
        orders.take(step)
    return orders.seen


kinds = st.integers(0, 3)
steps = st.lists(
    st.builds(Step, what=st.sampled_from(["sign", "close"]), kind=kinds)
    | st.builds(Step, what=st.just("match"), kind=kinds, small=st.integers(0, 3), bare=st.booleans()),
    max_size=10,
)
volumes = st.sampled_from(EDGES) | st.integers(1, 6) | st.integers(1, 2**256 - 1)
SIGNED = [Step("sign", kind) for kind in range(4)]
CLOSED = [Step("close", kind) for kind in range(4)]
PART, ALL, BARE = Step("match", 2, 1), Step("match"), Step("match", bare=True)


@given(volumes=st.tuples(volumes, volumes, volumes, volumes), steps=steps)
@example(volumes=(2**256 - 1,) * 4, steps=[*SIGNED, Step("match", 1, 2), PART, *CLOSED, *SIGNED, ALL])
@example(volumes=(2**95 - 1,) * 4, steps=[*CLOSED, *SIGNED, ALL])
@example(volumes=(2**95,) * 4, steps=[PART, *CLOSED, *SIGNED, BARE])
@example(volumes=(3, 3, 3, 3), steps=[*SIGNED, BARE, *CLOSED, ALL])
@example(volumes=(4, 4, 4, 4), steps=[PART, *SIGNED, BARE, *CLOSED, *CLOSED])
@example(volumes=(2**24 - 1, 2**95, 2**255, 2**24), steps=[Step("match", 3, 3), ALL, *SIGNED, *CLOSED])
@example(volumes=(2**32 - 1, 1, 1, 2**32 - 1), steps=[Step("close", 3), Step("sign", 3), ALL])
@example(volumes=(1, 1, 1, 2**32), steps=[Step("sign", 3), Step("close", 3), Step("close", 3), ALL])
def test_orders_remember_what_was_signed_and_used(volumes: tuple[int, ...], steps: list[Step]) -> None:
    """In every order of presigning, matching in part or whole, and closing, for volumes of any size."""
    with both() as (ours, theirs):
        assert live(ours, volumes, steps) == live(theirs, volumes, steps)


# ---- Owners ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sale:
    """A deal, and the assets that are sold afterwards."""

    volume: int = 2
    dataset: bool = True
    wide_tag: bool = False
    odd_price: bool = False
    consumer: bool = False
    sponsored: bool = False
    params: str = ""
    sold: frozenset[int] = frozenset({0, 1, 2})
    """Which of app, dataset and workerpool."""
    back: frozenset[int] = frozenset()
    """Which of these the buyer gives back."""
    endings: tuple[str, ...] = ("finalised", "directly", "claimed")
    """Of the deal's tasks, as many as it has."""


def matched(world: World, sale: Sale) -> bytes:
    """The deal's id."""
    bits = tag(2**200) if sale.wide_tag else bytes(32)
    orders = world.four(
        dataset=sale.dataset,
        volume=sale.volume,
        app={"appprice": 1 if sale.odd_price else 10**6, "tag": bits},
        data={"datasetprice": DATASET_PRICE // 1000},
        pool={"workerpoolprice": 10**7, "tag": bits},
        request={
            "callback": CONSUMER if sale.consumer else ZERO,
            "beneficiary": world.who("worker4"),
            "params": sale.params,
        },
    )
    function = "sponsorMatchOrders" if sale.sponsored else "matchOrders"
    arguments = [order.as_tuple() for order in orders]
    dealid: bytes = world.hub.call(function, *arguments, sender=world.who("sponsor"))
    world.hub.send(function, *arguments, sender=world.who("sponsor"))
    return dealid


def sell(world: World, which: frozenset[int], source: str, to: str) -> None:
    """From these roles; an empty one stands for the first owner."""
    assets = ((world.apps, world.app), (world.datasets, world.dataset), (world.workerpools, world.pool))
    for n in sorted(which):
        registry, asset = assets[n]
        seller, buyer = (world.who(role or OWNERS[n]) for role in (source, to))
        registry.transferFrom(seller, buyer, int(asset, 16), sender=seller)


def end(world: World, dealid: bytes, index: int, ending: str) -> list[bytes | None]:
    """The task ends so, for the scheduler of the match; what another owner of the workerpool is told."""
    if ending == "claimed":
        world.hub.initializeAndClaimArray([dealid], [index])
        return []
    taskid, data = world.first_task(dealid, index), b"for the consumer"
    digest = keccak(data)
    forged = world.enclave(taskid, digest=digest, signer="worker3")
    refused = [
        refusal_of(
            world, "worker", "contribute", taskid, forged.hash, forged.seal, ZERO, b"", forged.authorization
        )
    ]
    if ending == "directly":
        world.direct(taskid, b"", data)
        return refused
    world.contribute(taskid, digest=digest)
    world.hub.reveal(taskid, digest, sender=world.who("worker"))
    refused.append(refusal_of(world, "worker3", "finalize", taskid, b"", data))
    world.hub.finalize(taskid, b"", data, sender=world.who("scheduler"))
    assert refused == [b"", b""]
    return refused


def settle(world: World, sale: Sale) -> list[Any]:
    """What the deal's record shows, and who is paid for its tasks."""
    dealid = matched(world, sale)
    deal = world.hub.viewDeal(dealid)
    dataset_owner = world.who("dataset") if sale.dataset else ZERO
    assert deal.app.owner == world.who("app")
    assert deal.dataset.owner == dataset_owner
    assert deal.workerpool.owner == world.who("scheduler")
    sell(world, sale.sold, "", "worker3")
    sell(world, sale.sold & sale.back, "worker3", "")
    assert world.hub.viewDeal(dealid) == deal

    assets = {world.app: "app", world.dataset: "dataset", world.pool: "workerpool", ZERO: "none"}
    named = [
        (name, {**value, "pointer": assets[value["pointer"]]} if isinstance(value, dict) else value)
        for name, value in deal.items()
        if name != "startTime"
    ]
    seen: list[Any] = [named]
    indices = sorted({0, min(1, sale.volume - 1), sale.volume - 1})
    for index, ending in sorted(
        zip(indices, sale.endings, strict=False), key=lambda pair: pair[1] == "claimed"
    ):
        if ending == "claimed":
            world.chain.at(deal.startTime + 10 * TIMEREF)
        seen.append((end(world, dealid, index, ending), accounts(world)))
    return seen


sales = st.builds(
    Sale,
    volume=st.sampled_from([1, 2, 3, 255, 256, 300]),
    dataset=st.booleans(),
    wide_tag=st.booleans(),
    odd_price=st.booleans(),
    consumer=st.booleans(),
    sponsored=st.booleans(),
    params=st.sampled_from(["", "p", "x" * 31, "é" * 40]),
    sold=st.frozensets(st.integers(0, 2)),
    back=st.frozensets(st.integers(0, 2)),
    endings=st.permutations(["finalised", "directly", "claimed"]).map(tuple),
)


@given(sale=sales)
@example(sale=Sale())
@example(sale=Sale(volume=1))
@example(sale=Sale(volume=1, endings=("claimed",)))
@example(
    sale=Sale(volume=300, wide_tag=True, odd_price=True, consumer=True, sponsored=True, params="x" * 200)
)
@example(sale=Sale(dataset=False, back=frozenset({0, 2})))
def test_a_deal_belongs_to_the_owners_of_its_match(sale: Sale) -> None:
    """Whether its record keeps them (a bag) or a title tells (an only task), and whatever is beside them."""
    with both() as (ours, theirs):
        assert settle(ours, sale) == settle(theirs, sale)
