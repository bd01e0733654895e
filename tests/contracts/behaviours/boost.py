"""Boost deals: what they must record and tell, and what their workers send (poco.md §10)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sealdeal.model.deals import authorisation_message, result_seal, task_id
from sealdeal.model.orders import tag_bits
from sealdeal.model.types import ZERO, keccak
from tests.contracts.behaviours.stage import RESULTS, STAKE, Agreed, Four, act, lock, refused, tuples, who
from tests.contracts.world import SCHEDULER_RATIO, TIMEREF, Done, World, text


def refusal(words: str) -> bytes:
    return text(f"PocoBoost: {words}")


@dataclass(frozen=True)
class BoostAgreed(Agreed):
    """What four orders must lead to in a boost deal."""

    @property
    def tag(self) -> bytes:
        app, dataset, _, request = (o.order for o in self.orders)
        return (tag_bits(app.tag) | tag_bits(dataset.tag) | tag_bits(request.tag)).to_bytes(32, "big")

    def events(self, world: World) -> list[tuple[Any, ...]]:
        app, dataset, pool, request = (o.order for o in self.orders)
        told = self.dealid(world), app.app, dataset.dataset, request.category, self.tag
        sponsored = [("DealSponsoredBoost", self.dealid(world), who(world, self.payer))]
        return [
            *lock(world, self.payer, self.price * self.volume),
            *lock(world, "scheduler", STAKE * self.volume),
            ("SchedulerNoticeBoost", pool.workerpool, *told, request.params, request.beneficiary),
            ("OrdersMatched", self.dealid(world), *self.hashes(world), self.volume),
            *(sponsored if self.payer == "sponsor" else []),
        ]

    def deal(self, world: World, start: int) -> dict[str, Any]:
        """What `viewDealBoost` shows."""
        app, dataset, pool, request = (o.order for o in self.orders)
        return {
            "appOwner": world.who("app"),
            "appPrice": app.appprice,
            "datasetOwner": world.who("dataset") if self.has_dataset else ZERO,
            "datasetPrice": dataset.datasetprice if self.has_dataset else 0,
            "workerpoolOwner": world.who("scheduler"),
            "workerpoolPrice": pool.workerpoolprice,
            "requester": request.requester,
            "workerReward": pool.workerpoolprice * (100 - SCHEDULER_RATIO) // 100,
            "callback": request.callback,
            "deadline": start + 7 * TIMEREF,
            "botFirst": self.first,
            "botSize": self.volume,
            "shortTag": self.tag[-3:],
            "sponsor": who(world, self.payer),
        }


def boost(world: World, orders: Four, payer: str = "requester") -> bytes:
    """The id of a new boost deal."""
    if payer == "requester":
        done = act(world, "stranger", "matchOrdersBoost", *tuples(orders))
    else:
        done = act(world, payer, "sponsorMatchOrdersBoost", *tuples(orders))
    return bytes(next(event[1] for event in done.events if event[0] == "OrdersMatched"))


def pushing(
    world: World,
    dealid: bytes,
    index: int = 0,
    *,
    callback: bytes = b"",
    worker: str = "worker",
    tee: bool = False,
    signer: str = "scheduler",
    enclave: str = "enclave",
) -> tuple[Any, ...]:
    """Arguments of `pushResultBoost`; the enclave signs the callback's data, or, without one, the results."""
    at, taskid = world.who(worker), task_id(dealid, index)
    challenge = world.who(enclave) if tee else ZERO
    message = result_seal(at, taskid, keccak(callback or RESULTS))
    return (
        dealid,
        index,
        RESULTS,
        callback,
        world.keys[signer].sign_message(authorisation_message(at, taskid, challenge)),
        challenge,
        world.keys[enclave].sign_message(message) if tee else b"",
    )


def push(world: World, dealid: bytes, index: int = 0, *, worker: str = "worker", **options: Any) -> Done:
    return act(world, worker, "pushResultBoost", *pushing(world, dealid, index, worker=worker, **options))


def refused_push(
    world: World, dealid: bytes, index: int = 0, *, worker: str = "worker", **options: Any
) -> bytes:
    arguments = pushing(world, dealid, index, worker=worker, **options)
    return refused(world, worker, "pushResultBoost", *arguments)
