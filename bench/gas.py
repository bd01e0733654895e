"""Gas of the protocol on our contracts, from anvil's receipts, against the official PoCo 6.1.0's.

The official figures were measured on the same anvil and hardfork, in the same conditions, which each
scenario starts from: a market with another deal open, accounts that hold stake, an empty kitty, params of 80
bytes, prices of 3, 5 and 40 RLC. All orders of a scenario are new (in the official figures too): an order
used before costs less, see `g_second_match_of_same_orders`. Results are the usual link to IPFS, 89 bytes.
A callback's consumer does nothing, its data are 32 bytes. Everything is deterministic: the snapshot in
contracts/gas.json is compared gas by gas.

    python -m bench.gas            # the table
    python -m bench.gas --write    # and the snapshot
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench import Ratio
from sealdeal.chain.local import HARDFORK
from sealdeal.model.orders import Signed
from sealdeal.model.types import RLC, Address, keccak
from tests.contracts.world import TIMEREF, Contract, Done, World, key

SNAPSHOT = Path(__file__).parents[1] / "contracts" / "gas.json"
PARAMS = "x" * 80
RESULTS = b'{ "storage": "ipfs", "location": "/ipfs/QmUbh7ugQ9WVprTVYjzrCS4d9cCy73zUz4MMchsrqzzu1w" }'
CALLBACK_DATA = b"\x01" * 32

OFFICIAL = {
    "a_fast": 1_442_957,
    "a_fast_callback": 1_557_673,
    "a_fast_dataset": 1_578_882,
    "a_standard": 1_717_462,
    "a_standard_callback": 1_832_365,
    "a_standard_dataset": 1_853_423,
    "a_standard_kitty": 1_730_228,
    "b_tee": 1_768_760,
    "b_tee_dataset": 1_904_697,
    "b_tee_fast": 1_494_120,
    "b_tee_fast_dataset": 1_630_069,
    "b_tee_fast_dataset_broker": 1_630_133,
    "c_trust3_reopen": 2_931_677,
    "c_trust5_3workers": 2_544_732,
    "c_trust5_3workers_dataset": 2_680_669,
    "d_bag10": 10_203_702,
    "d_bag10_dataset": 10_447_825,
    "d_bag10_fast": 7_458_304,
    "d_bag10_tee_fast_dataset": 8_034_297,
    "d_bag100": 95_139_142,
    "d_bag100_fast": 67_685_534,
    "f_claim_3_disagreeing": 2_061_286,
    "f_claim_bag10": 2_763_006,
    "f_claim_initialized": 1_096_583,
    "f_claim_revealing": 1_509_057,
    "f_claim_uninitialized": 1_011_980,
    "g_broadcast": 42_586,
    "g_close_order": 75_571,
    "g_group_restriction": 720_925,
    "g_presigned": 1_133_159,
    "g_second_match_of_same_orders": 1_393_550,
    "g_smart_wallet_requester": 731_385,
    "g_sponsored": 1_731_044,
    "h_escrow": 735_254,
    "setup": 2_014_169,
}
"""Total gas of each scenario on the official contracts: their npm artefacts, anvil 1.7.1, prague."""

Steps = list[tuple[str, int]]
"""(transaction, its gas), in order."""


class Scenes:
    """The scenarios, on a world of their own. Each is undone before the next."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.steps: Steps = []
        # A market that lives: everyone was paid once, and another deal is open.
        settled = world.task(dataset=True, tee=True, request={"params": PARAMS})
        world.direct(settled, RESULTS, tee=True)
        world.deal(dataset=True, tee=True, request={"params": PARAMS})

    def run(self, name: str) -> Steps:
        """Play one scenario; its transactions."""
        self.steps = []
        self.world._salts = 1_000_000  # the same orders in whatever order scenarios are played
        with self.world.chain.undone():
            SCENARIOS[name](self)
        return self.steps

    def note(self, name: str, done: Done) -> Done:
        self.steps.append((name, done.gas))
        return done

    # ---- Pieces

    def match(self, orders: tuple[Signed[Any], ...], name: str = "matchOrders") -> bytes:
        dealid, done = self.world.match(orders)
        self.note(name, done)
        return dealid

    def deal(self, *, request: dict[str, Any] | None = None, **options: Any) -> bytes:
        return self.match(self.world.four(request={"params": PARAMS} | (request or {}), **options))

    def task(self, **options: Any) -> bytes:
        dealid = self.deal(**options)
        self.note("initialize", self.world.hub.initialize(dealid, 0))
        return _task(dealid, 0)

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
            play(_task(dealid, index))

    def answering(self, word: int) -> Address:
        """A contract that answers one word to anything."""
        runtime = bytes([0x7F]) + word.to_bytes(32, "big") + bytes.fromhex("5f5260205ff3")
        init = bytes([0x60, len(runtime), 0x80, 0x60, 9, 0x5F, 0x39, 0x5F, 0xF3]) + runtime
        return self.world.chain.deploy(init, self.world.who("stranger"))

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
        failed = self.world.task()
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
        signed = self.world.signed(self.world.request_order(params=PARAMS))
        done = self.world.hub.manageRequestOrder(
            (signed.as_tuple(), 1, b""), sender=self.world.who("requester")
        )
        self.note("manageRequestOrder(CLOSE)", done)

    def broadcast(self) -> None:
        signed = self.world.signed(self.world.request_order(params=PARAMS))
        self.note("broadcastRequestOrder", self.world.hub.broadcastRequestOrder(signed.as_tuple()))

    def presigned(self) -> None:
        orders = self.world.four(dataset=True, request={"params": PARAMS})
        kinds = {"App": "app", "Dataset": "dataset", "Workerpool": "scheduler", "Request": "requester"}
        unsigned = tuple(Signed(o.order, b"") for o in orders)
        for (kind, role), order in zip(kinds.items(), unsigned, strict=True):
            call = f"manage{kind}Order"
            done = self.world.hub.send(call, (order.as_tuple(), 0, b""), sender=self.world.who(role))
            self.note(f"{call}(SIGN)", done)
        self.match(unsigned, "matchOrders (presigned)")

    def twice(self) -> None:
        orders = self.world.four(volume=2, pool={"volume": 1}, request={"params": PARAMS})
        self.match(orders, "matchOrders (first use)")
        pool = self.world.signed(self.world.pool_order(volume=1))
        self.match((*orders[:2], pool, orders[3]), "matchOrders (orders in use)")

    def group(self) -> None:
        self.deal(app={"requesterrestrict": self.answering(1)})

    def wallet(self) -> None:
        requester = self.answering(0x1626BA7E << 224)
        self.world.enrich(requester)
        request = {"requester": requester, "beneficiary": requester, "params": PARAMS}
        *orders, signed = self.world.four(request=request)
        self.match((*orders, Signed(signed.order, b"\x01" * 65)), "matchOrders (EIP-1271 requester)")

    def sponsored(self) -> None:
        orders = [o.as_tuple() for o in self.world.four(request={"params": PARAMS})]
        done = self.world.hub.sponsorMatchOrders(*orders, sender=self.world.who("sponsor"))
        dealid = self.note("sponsorMatchOrders", done).events[-1][1]
        self.note("initialize", self.world.hub.initialize(dealid, 0))
        self.standard(_task(dealid, 0))

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
        created = world.apps.createApp(new, "an-app", "DOCKER", multiaddr, checksum, b"")
        self.note("createApp", created)
        self.note("createDataset", world.datasets.createDataset(new, "a-dataset", multiaddr, checksum))
        pool = world.workerpools.call("createWorkerpool", new, "a workerpool")
        self.note("createWorkerpool", world.workerpools.createWorkerpool(new, "a workerpool"))
        self.note("changePolicy", Contract(world.chain, "Workerpool", pool, new).changePolicy(35, 5))

    def broker(self) -> None:
        self.world.hub.setTeeBroker(self.world.who("broker"))
        self.fast(self.task(dataset=True, tee=True), tee=True, signer="broker")

    def consumer(self) -> dict[str, Any]:
        return {"request": {"callback": self.answering(1)}}


def _task(dealid: bytes, index: int) -> bytes:
    return keccak(dealid + index.to_bytes(32, "big"))


SCENARIOS: dict[str, Callable[[Scenes], None]] = {
    "a_fast": lambda s: s.fast(s.task()),
    "a_fast_callback": lambda s: s.fast(s.task(**s.consumer()), CALLBACK_DATA),
    "a_fast_dataset": lambda s: s.fast(s.task(dataset=True)),
    "a_standard": lambda s: s.standard(s.task()),
    "a_standard_callback": lambda s: s.standard(s.task(**s.consumer()), CALLBACK_DATA),
    "a_standard_dataset": lambda s: s.standard(s.task(dataset=True)),
    "a_standard_kitty": lambda s: s.with_kitty(),
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


def run(names: list[str] | None = None) -> list[dict[str, Any]]:
    """Play the scenarios. Each: `scenario`, `ours`, `official` and `ratio` of the total gas, `hardfork`, and
    `transactions`, a list of [name, gas]."""
    world = World.start()
    try:
        scenes = Scenes(world)
        found = []
        for name in names or list(SCENARIOS):
            steps = scenes.run(name)
            ours = sum(gas for _, gas in steps)
            found.append(
                {
                    "scenario": name,
                    "ours": ours,
                    "official": OFFICIAL[name],
                    "ratio": ours / OFFICIAL[name],
                    "hardfork": HARDFORK,
                    "transactions": [list(step) for step in steps],
                }
            )
        return found
    finally:
        world.chain.close()


def measure() -> Iterator[Ratio]:
    """The totals, for `python -m bench`."""
    for row in run():
        yield Ratio(row["scenario"], row["ours"], f"PoCo 6.1.0, {HARDFORK}", row["official"], "gas")


def snapshot(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What contracts/gas.json holds: scenario -> transaction -> the gas of each, in order."""
    scenarios: dict[str, dict[str, list[int]]] = {}
    for row in rows:
        each = scenarios.setdefault(row["scenario"], {})
        for name, gas in row["transactions"]:
            each.setdefault(name, []).append(gas)
    return {
        scenario: {name: gases[0] if len(gases) == 1 else _folded(gases) for name, gases in each.items()}
        for scenario, each in scenarios.items()
    }


def _folded(gases: list[int]) -> Any:
    """All of a few, the extremes and the sum of many."""
    if len(gases) <= 4:
        return gases
    return {"count": len(gases), "least": min(gases), "most": max(gases), "total": sum(gases)}


def main() -> int:
    rows = run()
    print(
        f"{'scenario':32} {'ours':>12} {'official':>12} {'ratio':>6}   "
        f"hardfork {HARDFORK}, params of {len(PARAMS)} bytes"
    )
    for row in rows:
        print(f"{row['scenario']:32} {row['ours']:>12,} {row['official']:>12,} {row['ratio']:>6.3f}")
    if "--write" in sys.argv[1:]:
        SNAPSHOT.write_text(json.dumps(snapshot(rows), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
