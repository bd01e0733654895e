"""The scenarios that `./dev bench gas` plays on both suites, from anvil's receipts, in one run.

Each is played under the same conditions: the same keys, salts, base token and calls. Most start from a market
that lives: accounts hold stake, everyone was paid once, another deal is open, the kitty is empty. Params are
80 bytes, results 36 (a binary CID); app, dataset and workerpool cost 3, 5 and 40 RLC; the request names its
workerpool; a callback's data are 64 bytes, of which its consumer stores the hash. All orders of a scenario
are new; an order used before costs less, see `g_second_match_of_same_orders`.

Everything is deterministic: contracts/gas.json, the snapshot of ours, is compared gas by gas. The official
contracts were also measured elsewhere, with other keys and another base token (recorded.json); that the
totals agree shows that these are the same scenarios.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

from eth_abi.abi import encode
from vyper import compile_code

from sealdeal.chain.local import HARDFORK
from sealdeal.model.batches import Batch, Leaf, Proof, batch_message, short_digest
from sealdeal.model.deals import enclave_message, task_id
from sealdeal.model.orders import BATCH, TEE, Signed, tag
from sealdeal.model.types import RLC, Address, address_bytes, keccak
from tests.contracts.world import TIMEREF, Done, Suite, World, key

SNAPSHOT = Path(__file__).parents[1] / "contracts" / "gas.json"
RECORDED = Path(__file__).parent / "recorded.json"
"""Scenario -> total gas of the official contracts elsewhere: their npm artefacts, anvil 1.7.1, prague."""
ACTORS = Path(__file__).parent / "contracts"
SUITES: tuple[Suite, ...] = ("official", "ours")
PARAMS = "x" * 80
RESULTS = b"x" * 36
CALLBACK_DATA = b"\x01" * 64
DIRECTORY = "QmUbh7ugQ9WVprTVYjzrCS4d9cCy73zUz4MMchsrqzzu1w"
"""Of the results of a batch, each of which is a link of 91 or 92 bytes."""

Steps = list[tuple[str, int]]
"""(transaction, its gas), in order."""


class Scenes:
    """The scenarios, on a world of their own that is not furnished yet. Each is undone before the next."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.steps: Steps = []

    def play(self, names: Sequence[str]) -> dict[str, Steps]:
        """The transactions of those scenarios whose functions this suite has."""
        found: dict[str, Steps] = {}
        for fill, chosen in (
            (None, EMPTY_NETWORK),
            (self.world.furnish, EMPTY_ESCROW),
            (self.open_market, SCENARIOS.keys() - EMPTY_NETWORK - EMPTY_ESCROW),
        ):
            if fill:
                fill()
            for name in names:
                if name in chosen and all(self.world.hub.has(need) for need in needs(name)):
                    found[name] = self.played(SCENARIOS[name])
        return found

    def open_market(self) -> None:
        """A market that lives: everyone was paid once, and another deal is open."""
        world = self.world
        settled = world.task(dataset=True, tee=True, request=self.request())
        world.direct(settled, RESULTS, tee=True)
        world.deal(dataset=True, tee=True, request=self.request())

    def played(self, act: Callable[[Scenes], None]) -> Steps:
        """Its transactions, with the same salts whatever was played before."""
        self.steps = []
        self.world._salts = 1_000_000
        with self.world.chain.undone():
            act(self)
        return self.steps

    def note(self, name: str, done: Done) -> Done:
        self.steps.append((name, done.gas))
        return done

    # ---- Pieces

    def match(self, orders: tuple[Signed[Any], ...], name: str = "matchOrders") -> bytes:
        dealid, done = self.world.match(orders)
        self.note(name, done)
        return dealid

    def request(self, **changes: Any) -> dict[str, Any]:
        """What a usual request says."""
        return {"params": PARAMS, "workerpool": self.world.pool} | changes

    def four(self, *, request: dict[str, Any] | None = None, **options: Any) -> tuple[Signed[Any], ...]:
        return self.world.four(request=self.request(**(request or {})), **options)

    def deal(self, **options: Any) -> bytes:
        return self.match(self.four(**options))

    def task(self, **options: Any) -> bytes:
        dealid = self.deal(**options)
        self.note("initialize", self.world.hub.initialize(dealid, 0))
        return task_id(dealid, 0)

    def fast(self, taskid: bytes, callback: bytes = b"", **options: Any) -> None:
        self.note("contributeAndFinalize", self.world.direct(taskid, RESULTS, callback, **options))

    def contribute(self, taskid: bytes, worker: str = "worker", **options: Any) -> None:
        self.note("contribute", self.world.contribute(taskid, worker, **options))

    def reveal(self, taskid: bytes, worker: str = "worker", digest: bytes = keccak(b"result")) -> None:
        self.note("reveal", self.world.hub.reveal(taskid, digest, sender=self.world.who(worker)))

    def finalize(self, taskid: bytes, callback: bytes = b"") -> None:
        sender = self.world.who("scheduler")
        self.note("finalize", self.world.hub.finalize(taskid, RESULTS, callback, sender=sender))

    def standard(self, taskid: bytes, callback: bytes = b"", **options: Any) -> None:
        digest = keccak(callback or b"result")
        self.contribute(taskid, digest=digest, **options)
        self.reveal(taskid, digest=digest)
        self.finalize(taskid, callback)

    def claim(self, taskid: bytes) -> None:
        self.world.chain.at(self.world.hub.viewTask(taskid).finalDeadline)
        self.note("claim", self.world.hub.claim(taskid))

    def bag(self, size: int, play: Callable[[bytes], None], **options: Any) -> None:
        dealid = self.deal(volume=size, **options)
        for start in range(0, size, 50):
            indices = list(range(start, min(start + 50, size)))
            done = self.world.hub.initializeArray([dealid] * len(indices), indices)
            self.note(f"initializeArray[{len(indices)}]", done)
        for index in range(size):
            play(task_id(dealid, index))

    def actor(self, name: str, *accounts: Address) -> Address:
        """A contract of bench/contracts, made for these accounts."""
        arguments = encode(["address"] * len(accounts), accounts)
        return self.world.chain.deploy(_creation(name) + arguments, self.world.who("stranger"))

    # ---- Longer scenarios

    def replicated(self, **options: Any) -> None:
        trust = {"pool": {"trust": 5}, "request": {"trust": 5}}
        taskid = self.task(**trust, **options)
        workers = ("worker", "worker2", "worker3")
        for worker in workers:
            self.contribute(taskid, worker)
        for worker in workers:
            self.reveal(taskid, worker)
        self.finalize(taskid)

    def reopened(self) -> None:
        taskid = self.task(pool={"trust": 3}, request={"trust": 3})
        for worker in ("worker", "worker2"):
            self.contribute(taskid, worker, digest=keccak(b"silent"))
        self.world.chain.at(self.world.hub.viewTask(taskid).revealDeadline)
        self.note("reopen", self.world.hub.reopen(taskid, sender=self.world.who("scheduler")))
        for worker in ("worker3", "worker4"):
            self.contribute(taskid, worker)
        for worker in ("worker3", "worker4"):
            self.reveal(taskid, worker)
        self.finalize(taskid)

    def with_kitty(self) -> None:
        failed = self.world.task(request=self.request())
        self.world.chain.at(self.world.hub.viewTask(failed).finalDeadline)
        self.world.hub.claim(failed)
        self.standard(self.task())

    def disagreeing(self) -> None:
        taskid = self.task(pool={"trust": 5}, request={"trust": 5})
        for worker in ("worker", "worker2", "worker3"):
            self.contribute(taskid, worker, digest=keccak(worker.encode()))
        self.claim(taskid)

    def claim_revealing(self) -> None:
        taskid = self.task()
        self.contribute(taskid)
        self.claim(taskid)

    def claim_bag(self, size: int) -> None:
        dealid = self.deal(volume=size)
        self.world.chain.at(self.world.chain.now() + 10 * TIMEREF)
        done = self.world.hub.initializeAndClaimArray([dealid] * size, list(range(size)))
        self.note(f"initializeAndClaimArray[{size}]", done)

    def close(self) -> None:
        signed = self.world.signed(self.world.request_order(**self.request()))
        done = self.world.hub.manageRequestOrder(
            (signed.as_tuple(), 1, b""), sender=self.world.who("requester")
        )
        self.note("manageRequestOrder(CLOSE)", done)

    def broadcast(self) -> None:
        signed = self.world.signed(self.world.request_order(**self.request()))
        self.note("broadcastRequestOrder", self.world.hub.broadcastRequestOrder(signed.as_tuple()))

    def presigned(self) -> None:
        orders = self.four(dataset=True)
        kinds = {"App": "app", "Dataset": "dataset", "Workerpool": "scheduler", "Request": "requester"}
        unsigned = tuple(Signed(o.order, b"") for o in orders)
        for (kind, role), order in zip(kinds.items(), unsigned, strict=True):
            call = f"manage{kind}Order"
            done = self.world.hub.send(call, (order.as_tuple(), 0, b""), sender=self.world.who(role))
            self.note(f"{call}(SIGN)", done)
        self.match(unsigned, "matchOrders (presigned)")

    def twice(self) -> None:
        """Two deals of one app order and one workerpool order, whose requests take any workerpool."""
        several = {"volume": 2}
        orders = self.world.four(app=several, pool=several, request={"params": PARAMS})
        self.match(orders, "matchOrders (first use)")
        again = self.world.signed(self.world.request_order(params=PARAMS))
        self.match((*orders[:3], again), "matchOrders (orders in use)")

    def group(self) -> None:
        self.deal(app={"requesterrestrict": self.actor("Group", self.world.who("requester"))})

    def wallet(self) -> None:
        requester = self.actor("Wallet", self.world.who("requester"))
        self.world.enrich(requester)
        orders = self.four(request={"requester": requester})
        self.match(orders, "matchOrders (EIP-1271 requester)")

    def sponsored(self) -> None:
        orders = [o.as_tuple() for o in self.four()]
        done = self.world.hub.sponsorMatchOrders(*orders, sender=self.world.who("sponsor"))
        dealid = self.note("sponsorMatchOrders", done).events[-1][1]
        self.note("initialize", self.world.hub.initialize(dealid, 0))
        self.standard(task_id(dealid, 0))

    def escrow(self) -> None:
        world, hub = self.world, self.world.hub
        new = key("a new depositor").address
        world.token.transfer(new, 1_000 * RLC)
        world.token.approve(hub.address, 900 * RLC, sender=new)
        self.note("deposit (first)", hub.deposit(10 * RLC, sender=new))
        self.note("deposit (again)", hub.deposit(10 * RLC, sender=new))
        targets = [key(f"target {n}").address for n in range(11)]
        self.note("depositFor", hub.depositFor(RLC, targets[10], sender=new))
        self.note("depositForArray[10]", hub.depositForArray([RLC] * 10, targets[:10], sender=new))
        self.note(
            "token.approveAndCall(hub)", world.token.approveAndCall(hub.address, 5 * RLC, b"", sender=new)
        )
        self.note("transfer", hub.transfer(world.who("requester"), RLC, sender=new))
        self.note("withdraw (part)", hub.withdraw(RLC, sender=new))

    def setup(self) -> None:
        world = self.world
        new = key("a newcomer").address
        world.token.transfer(new, 1_000 * RLC)
        self.note(
            "token.approveAndCall(hub)",
            world.token.approveAndCall(world.hub.address, 500 * RLC, b"", sender=new),
        )
        checksum = keccak(b"image")
        multiaddr = b"registry.example.org/an-app@sha256"
        created = world.apps.createApp(new, "an-app", "DOCKER", multiaddr, checksum, b"\x01" * 64)
        self.note("createApp", created)
        self.note("createDataset", world.datasets.createDataset(new, "a-dataset", multiaddr, checksum))
        pool = world.workerpools.call("createWorkerpool", new, "a workerpool")
        self.note("createWorkerpool", world.workerpools.createWorkerpool(new, "a workerpool"))
        self.note("changePolicy", world.entry("Workerpool", pool, new).changePolicy(35, 5))

    def broker(self) -> None:
        self.world.hub.setTeeBroker(self.world.who("broker"))
        self.fast(self.task(dataset=True, tee=True), tee=True, signer="broker")

    def batch(self, size: int) -> None:
        """A bag that asks for batches, an enclave for each task; where there are none, one by one."""
        world, worker, asks = self.world, self.world.who("worker"), {"tag": tag(TEE | BATCH)}
        world.hub.setTeeBroker(world.who("broker"))
        if not world.hub.has("settleBatch"):
            fast = lambda task: self.fast(task, tee=True, signer="broker")  # noqa: E731
            return self.bag(size, fast, tee=True, pool=asks, request=asks)
        dealid = self.deal(volume=size, tee=True, pool=asks, request=asks)
        enclaves = [key(f"enclave {index}") for index in range(size)]
        batch = Batch.of(dealid, 0, (Leaf(i, worker, enclave.address) for i, enclave in enumerate(enclaves)))
        digests = [short_digest(keccak(b"result %d" % index)) for index in range(size)]
        messages = [enclave_message(worker, task_id(dealid, i), digest) for i, digest in enumerate(digests)]
        proofs = {
            i: Proof(digests[i], enclave.sign_message(messages[i])) for i, enclave in enumerate(enclaves)
        }
        authorisation = world.keys["broker"].sign_digest(batch_message(world.domain, batch))
        arguments = batch.settle(0, proofs, DIRECTORY, authorisation)
        done = world.hub.settleBatch(*arguments, sender=world.who("scheduler"))
        self.note(f"settleBatch[{size}]", done)

    def consumer(self) -> dict[str, Any]:
        return {"request": {"callback": self.actor("Consumer")}}

    # ---- Boost

    def boost(self, **options: Any) -> bytes:
        world = self.world
        orders = [order.as_tuple() for order in self.four(**options)]
        done = self.note(
            "matchOrdersBoost", world.hub.matchOrdersBoost(*orders, sender=world.who("stranger"))
        )
        dealid: bytes = next(event[1] for event in done.events if event[0] == "OrdersMatched")
        return dealid

    def push(self, dealid: bytes, index: int = 0, callback: bytes = b"", tee: bool = False) -> None:
        world, taskid, worker = self.world, task_id(dealid, index), self.world.who("worker")
        made = world.enclave(taskid, tee=tee)
        message = boost_message(worker, taskid, callback or RESULTS)
        sign = world.keys["enclave"].sign_message(message) if tee else b""
        rest = (RESULTS, callback, made.authorization, made.challenge, sign)
        self.note("pushResultBoost", world.hub.pushResultBoost(dealid, index, *rest, sender=worker))

    def boost_bag(self, size: int) -> None:
        dealid = self.boost(volume=size)
        for index in range(size):
            self.push(dealid, index)

    def boost_claim(self) -> None:
        dealid = self.boost()
        self.world.chain.at(self.world.hub.viewDealBoost(dealid).deadline)
        self.note("claimBoost", self.world.hub.claimBoost(dealid, 0))


def boost_message(worker: Address, taskid: bytes, data: bytes) -> bytes:
    """What an enclave signs of a boost result, or of the callback's data if there is a callback."""
    return keccak(address_bytes(worker) + taskid + keccak(data))


@cache
def _creation(name: str) -> bytes:
    """Creation code of one of bench/contracts, without arguments."""
    source = (ACTORS / f"{name}.vy").read_text()
    return bytes.fromhex(compile_code(source, output_formats=["bytecode"])["bytecode"][2:])


EMPTY_NETWORK = frozenset({"setup"})
"""Scenarios of a network that nobody has used."""
EMPTY_ESCROW = frozenset({"a_standard_empty_escrow"})
"""Scenarios where nothing is locked yet, and nobody was ever paid."""
SCENARIOS: dict[str, Callable[[Scenes], None]] = {
    "a_fast": lambda s: s.fast(s.task()),
    "a_fast_callback": lambda s: s.fast(s.task(**s.consumer()), CALLBACK_DATA),
    "a_fast_dataset": lambda s: s.fast(s.task(dataset=True)),
    "a_standard": lambda s: s.standard(s.task()),
    "a_standard_callback": lambda s: s.standard(s.task(**s.consumer()), CALLBACK_DATA),
    "a_standard_dataset": lambda s: s.standard(s.task(dataset=True)),
    "a_standard_kitty": lambda s: s.with_kitty(),
    "a_standard_empty_escrow": lambda s: s.standard(s.task()),
    "b_tee": lambda s: s.standard(s.task(tee=True), tee=True),
    "b_tee_dataset": lambda s: s.standard(s.task(dataset=True, tee=True), tee=True),
    "b_tee_fast": lambda s: s.fast(s.task(tee=True), tee=True),
    "b_tee_fast_dataset": lambda s: s.fast(s.task(dataset=True, tee=True), tee=True),
    "b_tee_fast_dataset_broker": lambda s: s.broker(),
    "c_trust3_reopen": lambda s: s.reopened(),
    "c_trust5_3workers": lambda s: s.replicated(),
    "c_trust5_3workers_dataset": lambda s: s.replicated(dataset=True),
    "d_bag10": lambda s: s.bag(10, s.standard),
    "d_bag10_dataset": lambda s: s.bag(10, s.standard, dataset=True),
    "d_bag10_fast": lambda s: s.bag(10, s.fast),
    "d_bag10_tee_fast_dataset": lambda s: s.bag(10, lambda t: s.fast(t, tee=True), dataset=True, tee=True),
    "d_bag100": lambda s: s.bag(100, s.standard),
    "d_bag100_fast": lambda s: s.bag(100, s.fast),
    "d_batch100": lambda s: s.batch(100),
    "e_boost": lambda s: s.push(s.boost()),
    "e_boost_bag10": lambda s: s.boost_bag(10),
    "e_boost_bag100": lambda s: s.boost_bag(100),
    "e_boost_claim": lambda s: s.boost_claim(),
    "e_boost_dataset": lambda s: s.push(s.boost(dataset=True)),
    "e_boost_tee": lambda s: s.push(s.boost(tee=True), tee=True),
    "e_boost_tee_dataset_callback": lambda s: s.push(
        s.boost(dataset=True, tee=True, **s.consumer()), callback=CALLBACK_DATA, tee=True
    ),
    "f_claim_3_disagreeing": lambda s: s.disagreeing(),
    "f_claim_bag10": lambda s: s.claim_bag(10),
    "f_claim_initialized": lambda s: s.claim(s.task()),
    "f_claim_revealing": lambda s: s.claim_revealing(),
    "f_claim_uninitialized": lambda s: s.claim_bag(1),
    "g_broadcast": lambda s: s.broadcast(),
    "g_close_order": lambda s: s.close(),
    "g_group_restriction": lambda s: s.group(),
    "g_presigned": lambda s: s.presigned(),
    "g_second_match_of_same_orders": lambda s: s.twice(),
    "g_smart_wallet_requester": lambda s: s.wallet(),
    "g_sponsored": lambda s: s.sponsored(),
    "h_escrow": lambda s: s.escrow(),
    "setup": lambda s: s.setup(),
}


def needs(scenario: str) -> tuple[str, ...]:
    """Functions without which a scenario cannot be played."""
    return ("matchOrdersBoost", "pushResultBoost", "claimBoost") if scenario.startswith("e_boost") else ()


ADMINISTRATION = frozenset({"g_broadcast", "g_close_order", "h_escrow", "setup"})
"""Escrow, registries, and orders closed or told on chain."""
CONTRIBUTORS = frozenset(
    {"c_trust3_reopen", "c_trust5_3workers", "c_trust5_3workers_dataset", "f_claim_3_disagreeing"}
)
"""Deals with several workers on a task."""
FASTEST = frozenset({"b_tee_fast_dataset", "b_tee_fast_dataset_broker", "d_bag10_tee_fast_dataset"})
"""TEE deals with a dataset, each result in one transaction."""
OURS_ALONE = frozenset({"d_batch100"})
"""Deals that have no counterpart: on the official contracts the same is done one by one."""


def target(scenario: str) -> float:
    """The largest ratio to the official total that we accept."""
    if scenario.startswith("e_boost"):
        return 0.55
    if scenario in OURS_ALONE:
        return 0.04
    for scenarios, ratio in ((FASTEST, 0.27), (CONTRIBUTORS, 0.40), (ADMINISTRATION, 1.0)):
        if scenario in scenarios:
            return ratio
    return 0.30


ZERO_BYTE = 12
"""Gas that a transaction saves for each byte of its data that is zero."""
OTHER_CODE = {
    "g_group_restriction": 0.001,
    "g_smart_wallet_requester": 0.001,
    "h_escrow": 0.003,
    "setup": 0.003,
}
"""By how much scenarios may differ whose group, wallet or base token was another when they were recorded."""


def agree(scenario: str, official: int, transactions: int) -> bool | None:
    """Whether a total is the recorded one, but for the zero bytes of other keys' signatures and addresses.

    None if none was recorded.
    """
    recorded = _recorded().get(scenario)
    if recorded is None:
        return None
    difference = abs(official - recorded)
    if scenario in OTHER_CODE:
        return difference <= OTHER_CODE[scenario] * recorded
    return difference % ZERO_BYTE == 0 and difference <= 3 * ZERO_BYTE * transactions


@cache
def _recorded() -> dict[str, int]:
    loaded: dict[str, int] = json.loads(RECORDED.read_text())
    return loaded


def run(names: Sequence[str] | None = None, suites: Sequence[Suite] = SUITES) -> list[dict[str, Any]]:
    """Play the scenarios.

    Each: `scenario`; `official` and `ours`, the total gas, None where it was not played; their `ratio`, its
    `target` and whether it `holds`; `recorded`, the official total as measured elsewhere, and whether the two
    agree (`agrees`); `hardfork`; and `transactions`, by suite a list of [name, gas].
    """
    played: dict[str, dict[str, Steps]] = {}
    for suite in suites:
        world = World.start(suite=suite, furnished=False)
        try:
            played[suite] = Scenes(world).play(names or list(SCENARIOS))
        finally:
            world.chain.close()
    rows = []
    for name in names or SCENARIOS:
        steps = {suite: each[name] for suite, each in played.items() if name in each}
        official, ours = (_total(steps.get(suite)) for suite in SUITES)
        ratio = ours / official if ours and official else None
        rows.append(
            {
                "scenario": name,
                "official": official,
                "ours": ours,
                "ratio": ratio,
                "target": target(name),
                "holds": ratio <= target(name) if ratio else None,
                "recorded": _recorded().get(name),
                "agrees": agree(name, official, len(steps["official"])) if official else None,
                "hardfork": HARDFORK,
                "transactions": {suite: [list(step) for step in each] for suite, each in steps.items()},
            }
        )
    return rows


def _total(steps: Steps | None) -> int | None:
    return sum(gas for _, gas in steps) if steps else None


def functions(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each transaction the mean over all its calls in these scenarios.

    Each: `function`, `calls` (ours, if there are any), `official` and `ours` (None where nothing was played),
    `ratio`.
    """
    gases: dict[str, dict[str, list[int]]] = {}
    for row in rows:
        for suite, steps in row["transactions"].items():
            for name, gas in steps:
                gases.setdefault(name, {}).setdefault(suite, []).append(gas)
    found = []
    for name, each in sorted(gases.items()):
        official, ours = (round(fmean(each[suite])) if suite in each else None for suite in SUITES)
        found.append(
            {
                "function": name,
                "calls": len(each.get("ours") or each["official"]),
                "official": official,
                "ours": ours,
                "ratio": ours / official if ours and official else None,
            }
        )
    return found


def snapshot(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What contracts/gas.json holds: scenario -> transaction of ours -> the gas of each, in order."""
    scenarios: dict[str, dict[str, list[int]]] = {}
    for row in rows:
        for name, gas in row["transactions"].get("ours", []):
            scenarios.setdefault(row["scenario"], {}).setdefault(name, []).append(gas)
    return {
        scenario: {name: gases[0] if len(gases) == 1 else _folded(gases) for name, gases in each.items()}
        for scenario, each in scenarios.items()
    }


def _folded(gases: list[int]) -> Any:
    """All of a few, the extremes and the sum of many."""
    if len(gases) <= 4:
        return gases
    return {"count": len(gases), "least": min(gases), "most": max(gases), "total": sum(gases)}
