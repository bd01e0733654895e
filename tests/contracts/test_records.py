"""Results and contributions come back as they were given, whatever shares their slots (tasks.vy).

The official contracts keep each value apart. So both suites get the same calls, and have to show the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sealdeal.model.deals import result_hash, result_seal, task_id
from sealdeal.model.types import ZERO, address, keccak
from tests.contracts import links
from tests.contracts.both import SUITES, WORKERS, accounts, both, give_score, refusal_of, world_of
from tests.contracts.world import TIMEREF, Suite, World

UNSET, ACTIVE, REVEALING, COMPLETED, FAILED = range(5)
NOT_LEGACY = ("resultDigest", "resultsTimestamp", "resultsCallback")
"""Fields of a task that its legacy view does not have."""
CONSUMER = address("0x" + "cc" * 20)
"""Whom a callback goes to: an account without code."""

# ---- Results -----------------------------------------------------------------------------------------------

WORD, SPARSE = b"\x01" * 32, b"\x00" * 31 + b"\x01"
CALLBACKS = [
    b"",
    *(bytes(n) for n in (1, 31, 32, 33, 63, 64, 65, 96, 1024)),
    *(b"\xff" * n for n in (1, 31, 32, 33, 63, 64, 65, 96, 1024)),
    WORD + bytes(32),
    bytes(32) + WORD,
    SPARSE + SPARSE,
]
"""Data around what has a slot: one word or two, of zeros too."""
RESULTS = [bytes(range(1, n + 1)) for n in (0, 1, 31, 32, 33, 38, 39, 40, 64, 89)] + [bytes(32), bytes(39)]
"""Results around what has a slot, none of whose bytes are alike, or all zeros."""
any_data = st.sampled_from(CALLBACKS) | links.sized(100) | links.sized(1024)
any_results = st.sampled_from(RESULTS) | links.sized(45) | links.near | links.sized(1024)


WAYS = {"standard": False, "direct": True}


def check_results(world: World, direct: bool, results: bytes, data: bytes, consumer: bool) -> None:
    """A task that ends so shows what it was given, to the byte, and its only contribution."""
    with world.chain.undone():
        taskid = world.task(request={"callback": CONSUMER if consumer else ZERO})
        digest = keccak(data)
        if direct:
            done = world.direct(taskid, results, data, digest=digest)
        else:
            world.contribute(taskid, digest=digest)
            world.hub.reveal(taskid, digest, sender=world.who("worker"))
            done = world.hub.finalize(taskid, results, data, sender=world.who("scheduler"))
        assert done.events[-1] == ("TaskFinalize", taskid, results)
        task = world.hub.viewTask(taskid)
        assert (task.status, task.results, task.resultsCallback) == (COMPLETED, results, data)
        assert (task.resultDigest, task.contributors) == (digest, [world.who("worker")])
        assert task.consensusValue == result_hash(taskid, digest)
        assert world.hub.viewTaskABILegacy(taskid)[-1] == results
        assert world.hub.resultFor(taskid) == data
        seen = world.hub.viewContribution(taskid, world.who("worker"))
        assert (seen.status, seen.resultHash) == (2, task.consensusValue)
        assert seen.resultSeal == result_seal(world.who("worker"), taskid, digest)


@pytest.mark.parametrize("way", WAYS)
def test_results_that_just_fit_or_do_not(way: str) -> None:
    for results in (*RESULTS, links.link(bytes(32)), links.link(b"\xff" * 32)):
        for data in CALLBACKS:
            check_results(world_of("ours"), WAYS[way], results, data, consumer=bool(data))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("suite", SUITES)
@given(results=any_results, data=any_data, consumer=st.booleans())
def test_any_results_come_back(suite: Suite, way: str, results: bytes, data: bytes, consumer: bool) -> None:
    check_results(world_of(suite), WAYS[way], results, data, consumer)


# ---- Contributions -----------------------------------------------------------------------------------------

FORMS: dict[str, Callable[[bytes, bytes, bytes], tuple[bytes, bytes]]] = {
    "honest": lambda hashed, seal, digest: (hashed, seal),
    "copied": lambda hashed, seal, digest: (hashed, keccak(seal)),
    "naked": lambda hashed, seal, digest: (digest, seal),
    "zero": lambda hashed, seal, digest: (bytes(32), bytes(32)),
}
"""Hash and seal as they should be -> as they are contributed."""


@dataclass(frozen=True)
class Bid:
    """What a worker contributes, and whether it reveals."""

    answer: int = 0
    """Which of the plan's answers it found."""
    sealed: int | None = None
    """Which its seal is of, if of another; that one it will try to reveal as well."""
    form: str = "honest"
    enclave: bool = False
    silent: bool = False


@dataclass(frozen=True)
class Plan:
    """A task's life: the workers contribute one after another, reveal, and the scheduler finalises."""

    bids: tuple[Bid, ...]
    trust: int = 1
    scores: tuple[int, ...] = (0,) * len(WORKERS)
    answers: tuple[bytes, ...] = (b"an answer", b"another")
    """What workers find out: data for the callback, of which a digest is the hash."""
    reopenings: int = 0
    """How often the scheduler reopens the task before the next bid."""
    consumer: bool = False
    told: int | None = None
    """Which answer the callback is told when the task is finalised; if none, no data."""
    results: bytes = b""
    ends: bool = True
    """Finalised as soon as that is possible; else nobody does, and it is claimed."""


class Life:
    """A plan lived through on one suite. Raises AssertionError where a view is not true."""

    def __init__(self, world: World, plan: Plan) -> None:
        self.world, self.plan = world, plan
        for role, score in zip(WORKERS, plan.scores, strict=True):
            give_score(world, role, score)
        consumer = CONSUMER if plan.consumer else ZERO
        self.dealid = world.deal(
            pool={"trust": plan.trust}, request={"trust": plan.trust, "callback": consumer}
        )
        self.taskid = task_id(self.dealid, 0)
        self.start: int = world.hub.viewDeal(self.dealid).startTime
        self.digests = [keccak(answer) for answer in plan.answers]
        self.sent: dict[str, tuple[bytes, bytes, str]] = {}
        """Worker -> hash, seal and enclave of its contribution."""
        self.names: dict[Any, str] = {self.dealid: "the deal"} | {
            result_hash(self.taskid, digest): f"hash {n}" for n, digest in enumerate(self.digests)
        }
        """What is another value on the other suite."""
        self.seen: list[tuple[Any, ...]] = []
        """Each call, what it was refused with, and what there was to see afterwards."""

    def look(self) -> tuple[dict[str, Any], list[tuple[int, int]]]:
        """The task; status and weight of each worker's contribution. Their values are looked at here."""
        task = self.world.hub.viewTask(self.taskid)
        legacy = tuple(value for name, value in task.items() if name not in NOT_LEGACY)
        assert self.world.hub.viewTaskABILegacy(self.taskid) == legacy
        marks = []
        for role in WORKERS:
            kept = self.world.hub.viewContribution(self.taskid, self.world.who(role))
            expected = self.sent.get(role, (bytes(32), bytes(32), ZERO))
            assert (kept.resultHash, kept.resultSeal, kept.enclaveChallenge) == expected
            legacy = self.world.hub.viewContributionABILegacy(self.taskid, self.world.who(role))
            assert legacy == tuple(kept.values())[:4]
            marks.append((kept.status, kept.weight))
        named = {k: self.names.get(v, v) if isinstance(v, bytes) else v for k, v in task.items()}
        times = {k: v - self.start for k, v in task.items() if k.endswith("Deadline") and v}
        return named | times, marks

    def act(self, by: str, function: str, *args: Any) -> bool:
        refused = refusal_of(self.world, by, function, *args)
        self.seen.append((by, function, refused, *self.look()))
        return refused is None

    @property
    def status(self) -> int:
        return int(self.world.hub.viewTask(self.taskid).status)

    def contribute(self, role: str, bid: Bid) -> None:
        digest = self.digests[bid.answer]
        made = self.world.enclave(self.taskid, worker=role, digest=digest, tee=bid.enclave)
        sealed = digest if bid.sealed is None else self.digests[bid.sealed]
        seal = result_seal(self.world.who(role), self.taskid, sealed)
        hashed, seal = FORMS[bid.form](made.hash, seal, digest)
        sign = self.world.keys["enclave"].sign_message(keccak(hashed + seal)) if bid.enclave else b""
        if self.status == ACTIVE:
            self.sent[role] = hashed, seal, made.challenge
        self.act(role, "contribute", self.taskid, hashed, seal, made.challenge, sign, made.authorization)

    def silence(self) -> None:
        """The time for reveals is over."""
        self.world.chain.at(self.world.hub.viewTask(self.taskid).revealDeadline)

    def finalize(self) -> None:
        data = b"" if self.plan.told is None else self.plan.answers[self.plan.told]
        if self.act("scheduler", "finalize", self.taskid, self.plan.results, data):
            assert self.world.hub.resultFor(self.taskid) == data
            assert self.world.hub.viewTask(self.taskid).results == self.plan.results


def play(world: World, plan: Plan) -> list[Any]:
    """Live through a plan: all that could be seen, after each call."""
    life = Life(world, plan)
    life.look()
    life.act("worker", "initialize", life.dealid, 0)
    reopenings = plan.reopenings
    for role, bid in zip(WORKERS, plan.bids, strict=False):
        if life.status == REVEALING and reopenings:
            reopenings -= 1
            life.silence()
            life.act("scheduler", "reopen", life.taskid)
        life.contribute(role, bid)
    for role, bid in zip(WORKERS, plan.bids, strict=False):
        known = [bid.answer, bid.answer] if bid.sealed is None else [bid.answer, bid.sealed]
        for answer in () if bid.silent else known:  # the second time it is refused
            life.act(role, "reveal", life.taskid, life.digests[answer])
    if plan.ends and life.status == REVEALING:
        life.finalize()
        if life.status == REVEALING:
            life.silence()
            life.finalize()
    world.chain.at(life.start + 10 * TIMEREF)
    life.act("stranger", "claim", life.taskid)
    return [*life.seen, accounts(world)]


bids = st.builds(
    Bid,
    answer=st.sampled_from([0, 0, 0, 1]),
    sealed=st.sampled_from([None] * 6 + [0, 1]),
    form=st.sampled_from(["honest"] * 7 + ["copied", "naked", "zero"]),
    enclave=st.booleans(),
    silent=st.sampled_from([False] * 5 + [True]),
)
TOP = 3 * 2**24 + 2
"""The highest score whose weight is kept exactly."""
scores = st.sampled_from([0, 0, 0, 1, 8, 9, 11, 12, 24, 1_000, 3 * 2**12, 3 * 2**23, TOP]) | st.integers(
    0, TOP
)


def weight(score: int) -> int:
    return max(score // 3, 3) - 1


@st.composite
def plans(draw: st.DrawFn, *, weighty: bool = False) -> Plan:
    """Usual lives; or those of experienced workers, and a trust that they just reach, or just do not."""
    all_bids = draw(st.lists(bids, min_size=1, max_size=len(WORKERS)).map(tuple))
    held = tuple(draw(scores) for _ in WORKERS) if weighty else (0,) * len(WORKERS)
    trust = draw(st.sampled_from([1, 2, 3]) | st.integers(0, 9))
    if weighty:
        together = prod(weight(score) for score in held[: draw(st.integers(1, 3))])
        trust = min(max(together + draw(st.integers(-2, 2)), 0), 2**32 - 1)
    return Plan(
        bids=all_bids,
        trust=trust,
        scores=held,
        answers=(draw(any_data), draw(any_data)),
        reopenings=draw(st.integers(0, 2)),
        consumer=draw(st.booleans()),
        told=draw(st.sampled_from([0, 0, 0, 1, None])),
        results=draw(any_results),
        ends=draw(st.sampled_from([True, True, True, False])),
    )


RIGHT, WRONG, SILENT = Bid(), Bid(answer=1), Bid(silent=True)
TWO_WORDS = (WORD + bytes(32), b"another")


@given(plan=plans())
@example(plan=Plan((WRONG, RIGHT, RIGHT, RIGHT), 3, answers=TWO_WORDS, told=0, results=RESULTS[6]))
@example(plan=Plan((WRONG, SILENT, RIGHT, RIGHT), 3, answers=(WORD, b""), told=0, results=links.link(WORD)))
@example(plan=Plan((SILENT, SILENT, RIGHT, RIGHT), 3, answers=TWO_WORDS, told=0, reopenings=1))
@example(plan=Plan((WRONG, SILENT, SILENT, SILENT, WRONG), 3, answers=(b"", WORD), told=1, reopenings=1))
@example(plan=Plan((SILENT, RIGHT), 1, answers=TWO_WORDS, told=0, reopenings=1))
@example(plan=Plan((SILENT, WRONG, RIGHT), 1, answers=(WORD, WORD[::-1] + WORD), told=0, reopenings=2))
@example(plan=Plan((RIGHT, RIGHT), 3, ends=False))
@example(plan=Plan((SILENT,) * 5, 9))
@example(plan=Plan((RIGHT, Bid(sealed=1), RIGHT), 5))
@example(plan=Plan((Bid(form="zero"), Bid(form="zero"), RIGHT, RIGHT, RIGHT), 3))
def test_contributions_are_shown_as_they_came(plan: Plan) -> None:
    """Hash, seal and enclave of each, in every state, though most of it is not kept to the end."""
    with both() as (ours, theirs):
        assert play(ours, plan) == play(theirs, plan)


@pytest.mark.parametrize("trust", [1, 3])
@pytest.mark.parametrize("reopenings", [0, 1])
def test_every_life_of_three_workers(trust: int, reopenings: int) -> None:
    """Each right, wrong, or right and silent; one word or two for the callback, results that fit or not."""
    answers = (WORD + WORD[::-1], WORD)
    for n, three in enumerate(product((RIGHT, WRONG, SILENT), repeat=3)):
        kept = RESULTS[n % len(RESULTS)]
        plan = Plan(three, trust, answers=answers, reopenings=reopenings, told=n % 2, results=kept)
        with both() as (ours, theirs):
            assert play(ours, plan) == play(theirs, plan)


@given(plan=plans(weighty=True))
@example(plan=Plan((RIGHT,), 2**24 - 1, (TOP, 0, 0, 0, 0)))
@example(plan=Plan((RIGHT,), 2**24, (TOP, 0, 0, 0, 0)))
@example(plan=Plan((RIGHT, RIGHT), 2**32 - 1, (TOP, 3 * 2**8, 0, 0, 0)))
@example(plan=Plan((RIGHT, RIGHT, WRONG), 2**32 - 1, (3 * 2**16 + 3, 3 * 2**16, TOP, 0, 0)))
def test_scores_and_trust_decide_alike(plan: Plan) -> None:
    """Consensus, weights, rewards and scores of workers with any experience up to the bound."""
    with both() as (ours, theirs):
        assert play(ours, plan) == play(theirs, plan)


@pytest.mark.parametrize("score", [TOP + 1, 3 * 2**40, 2**100])
def test_a_weight_has_a_bound(score: int) -> None:
    """Above 2**24 - 1 it stays there, as compatibility.md says; such a score takes 50 million tasks."""
    for trust, agreed in ((2**24 - 1, True), (2**24, False)):
        plan = Plan((RIGHT,), trust, (score, 0, 0, 0, 0))
        with both() as (ours, theirs):
            task, marks = play(ours, plan)[1][3:]
            assert (task["status"] == REVEALING, marks[0]) == (agreed, (1, 23))
            task, marks = play(theirs, plan)[1][3:]
            assert (task["status"] == REVEALING, marks[0]) == (True, (1, weight(score).bit_length() - 1))
