"""The words of behaviour tests: roles that act or are refused, money that moved, contracts that answer.

A role is a name of `World.keys`, "owner" (of the hub), "nobody" (the zero address), "kitty", or an address.
Amounts are nRLC. "The four" are the four signed orders of a match; changes to them are keyword arguments of
`World.four`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from sealdeal.model.deals import KITTY, deal_id, task_id
from sealdeal.model.orders import AppOrder, DatasetOrder, RequestOrder, Signed, WorkerpoolOrder, tag_bits
from sealdeal.model.types import ZERO, ZERO32, Address, keccak
from tests.contracts.world import (
    APP_PRICE,
    DATASET_PRICE,
    POOL_PRICE,
    SCHEDULER_RATIO,
    WORKER_RATIO,
    Contract,
    Done,
    Refused,
    Suite,
    World,
    abi_of,
    refusal,
    text,
)

PRICE = APP_PRICE + DATASET_PRICE + POOL_PRICE
"""What a task with a dataset costs its payer."""
STAKE = POOL_PRICE * 30 // 100
"""What the scheduler locks for a task."""
WORKER_STAKE = POOL_PRICE * WORKER_RATIO // 100
WORKER_REWARD = POOL_PRICE * (100 - SCHEDULER_RATIO) // 100
SCHEDULER_REWARD = POOL_PRICE - WORKER_REWARD
UNSET, ACTIVE, REVEALING, COMPLETED, FAILED = range(5)
RESULTS = b'{ "storage": "ipfs", "location": "/ipfs/QmUbh7ugQ9WVprTVYjzrCS4d9cCy73zUz4MMchsrqzzu1w" }'
DIGEST = keccak(b"result")
"""Of the result that `World.contribute` contributes."""

NO_DATA = b""
BAD_FORMAT = text("invalid-signature-format")
NOT_OWNER = text("Ownable: caller is not the owner")
TOO_POOR = text("IexecEscrow: Transfer amount exceeds balance")
NOBODY_PAYS = text("IexecEscrow: Transfer from empty address")
FALLBACK = text("fallback-disabled")

ORDER_TYPES: dict[str, type[Any]] = {
    "App": AppOrder,
    "Dataset": DatasetOrder,
    "Workerpool": WorkerpoolOrder,
    "Request": RequestOrder,
}
KINDS = tuple(ORDER_TYPES)
"""The kinds of order, in the order of `World.four`."""
PARTS = dict(zip(KINDS, ("app", "data", "pool", "request"), strict=True))
"""The name of a kind's changes in `World.four`."""
OWNERS = dict(zip(KINDS, ("app", "dataset", "scheduler", "requester"), strict=True))
"""The role that signs a kind of order."""

Four = tuple[Signed[Any], ...]


def has(suite: Suite, *names: str) -> bool:
    """Does the suite's hub have all these functions or errors?"""
    return set(names) <= {entry.get("name") for entry in abi_of(suite)("Hub")}


# ---- Acting ------------------------------------------------------------------------------------------------


def who(world: World, role: str) -> Address:
    others = {"owner": world.owner.address, "nobody": ZERO, "kitty": KITTY}
    return others.get(role) or (Address(role) if role.startswith("0x") else world.who(role))


def act(world: World, role: str, function: str, *args: Any, on: Contract | None = None) -> Done:
    """The role sends a transaction, to the hub if nothing else is said."""
    return (on or world.hub).send(function, *args, sender=who(world, role))


def answer(world: World, role: str, function: str, *args: Any, on: Contract | None = None) -> Any:
    """What the role's transaction would return."""
    return (on or world.hub).call(function, *args, sender=who(world, role))


def refused(world: World, role: str, function: str, *args: Any, on: Contract | None = None) -> bytes:
    """The revert data of the role's transaction, which must fail."""
    return refusal(on or world.hub, function, *args, sender=who(world, role))


def refused_raw(world: World, to: Address, data: bytes = b"") -> bytes:
    """The revert data of a call that no ABI knows."""
    try:
        answered = world.chain.call(to, data, world.who("stranger"))
    except Refused as refusal:
        return refusal.data
    raise AssertionError(f"{data!r} did not revert; it answered {answered!r}")


def leave(world: World, role: str, amount: int) -> None:
    """The role withdraws all but this."""
    act(world, role, "withdraw", world.account(role)[0] - amount)


@contextmanager
def moves(world: World) -> Iterator[dict[str, tuple[int, int]]]:
    """What the block changes in the hub's accounts: role -> (free, locked), known once it has ended."""
    holders = {role: who(world, role) for role in (*world.keys, "kitty", "owner")}
    before = {role: world.account(at) for role, at in holders.items()}
    moved: dict[str, tuple[int, int]] = {}
    yield moved
    for role, at in holders.items():
        (free, locked), (was_free, was_locked) = world.account(at), before[role]
        if (free, locked) != (was_free, was_locked):
            moved[role] = free - was_free, locked - was_locked


def lock(world: World, role: str, amount: int) -> list[tuple[Any, ...]]:
    """Events of a lock."""
    at = who(world, role)
    return [("Transfer", at, world.hub.address, amount), ("Lock", at, amount)]


def unlock(world: World, role: str, amount: int) -> list[tuple[Any, ...]]:
    at = who(world, role)
    return [("Transfer", world.hub.address, at, amount), ("Unlock", at, amount)]


def reward(world: World, role: str, amount: int, taskid: bytes) -> list[tuple[Any, ...]]:
    at = who(world, role)
    return [("Transfer", world.hub.address, at, amount), ("Reward", at, amount, taskid)]


def seize(world: World, role: str, amount: int, taskid: bytes) -> list[tuple[Any, ...]]:
    return [("Seize", who(world, role), amount, taskid)]


def payment(
    world: World, taskid: bytes, *, payer: str = "requester", dataset: bool = True
) -> list[tuple[Any, ...]]:
    """Events that every settlement begins with."""
    return [
        *seize(world, payer, PRICE if dataset else PRICE - DATASET_PRICE, taskid),
        *reward(world, "app", APP_PRICE, taskid),
        *(reward(world, "dataset", DATASET_PRICE, taskid) if dataset else []),
        *unlock(world, "scheduler", STAKE),
    ]


def feed_kitty(amount: int, taskid: bytes) -> list[tuple[Any, ...]]:
    return [("Reward", KITTY, amount, taskid), ("Lock", KITTY, amount)]


# ---- Orders ------------------------------------------------------------------------------------------------


def tuples(orders: Four) -> tuple[Any, ...]:
    """The four as arguments of a call."""
    return tuple(order.as_tuple() for order in orders)


def naming(kind: str, at: Address) -> dict[str, Any]:
    """Changes to the four so that they are about this app, dataset or workerpool, or of this requester."""
    if kind == "Request":
        return {"request": {"requester": at}}
    asset = {kind.lower(): at}
    return {PARTS[kind]: asset} if kind == "Workerpool" else {PARTS[kind]: asset, "request": asset}


def with_sign(orders: Four, kind: str, sign: bytes) -> Four:
    """The same, one of them with another signature."""
    return tuple(replace(o, sign=sign) if k == kind else o for k, o in zip(KINDS, orders, strict=True))


def consumed(world: World, orders: Four) -> list[int]:
    return [world.hub.viewConsumed(order.hash(world.domain)) for order in orders]


def operation_sign(world: World, kind: str, order: Any, operation: int, role: str) -> bytes:
    """A role's signature of an operation on an order; its struct hash is spelled out in poco.md §4."""
    cls = ORDER_TYPES[kind]
    full = f"{cls.__name__}Operation({cls.__name__} order,uint256 operation){cls.type_string()}"
    struct = keccak(keccak(full.encode()) + order.struct_hash() + operation.to_bytes(32, "big"))
    return world.keys[role].sign_digest(keccak(b"\x19\x01" + world.domain.separator + struct))


def presign(world: World, kind: str, signed: Signed[Any]) -> Done:
    """Its owner signs an order on chain."""
    return act(world, OWNERS[kind], f"manage{kind}Order", (signed.as_tuple(), 0, b""))


@dataclass(frozen=True)
class Agreed:
    """What four orders of the usual prices must lead to."""

    orders: Four
    volume: int = 1
    first: int = 0
    payer: str = "requester"

    @property
    def price(self) -> int:
        """Of one task."""
        app, dataset, pool, _ = (o.order for o in self.orders)
        return int(app.appprice + pool.workerpoolprice + (dataset.datasetprice if self.has_dataset else 0))

    @property
    def has_dataset(self) -> bool:
        return bool(self.orders[1].order.dataset != ZERO)

    def dealid(self, world: World) -> bytes:
        return deal_id(self.orders[3].hash(world.domain), self.first)

    def moved(self) -> dict[str, tuple[int, int]]:
        paid, staked = self.price * self.volume, STAKE * self.volume
        return {self.payer: (-paid, paid), "scheduler": (-staked, staked)}

    def hashes(self, world: World) -> list[bytes]:
        hashes = [o.hash(world.domain) for o in self.orders]
        return hashes if self.has_dataset else [hashes[0], ZERO32, *hashes[2:]]

    def events(self, world: World) -> list[tuple[Any, ...]]:
        """Without the event of a sponsor."""
        return [
            *lock(world, self.payer, self.price * self.volume),
            *lock(world, "scheduler", STAKE * self.volume),
            ("SchedulerNotice", self.orders[2].order.workerpool, self.dealid(world)),
            ("OrdersMatched", self.dealid(world), *self.hashes(world), self.volume),
        ]

    def deal(self, world: World, start: int) -> dict[str, Any]:
        """What `viewDeal` shows."""
        app, dataset, pool, request = (o.order for o in self.orders)
        bits = tag_bits(app.tag) | tag_bits(dataset.tag) | tag_bits(request.tag)

        def resource(pointer: str, owner: str, price: int) -> dict[str, Any]:
            return {"pointer": pointer, "owner": world.who(owner), "price": price}

        none = {"pointer": ZERO, "owner": ZERO, "price": 0}
        return {
            "app": resource(app.app, "app", app.appprice),
            "dataset": resource(dataset.dataset, "dataset", dataset.datasetprice)
            if self.has_dataset
            else none,
            "workerpool": resource(pool.workerpool, "scheduler", pool.workerpoolprice),
            "trust": max(request.trust, 1),
            "category": request.category,
            "tag": bits.to_bytes(32, "big"),
            "requester": request.requester,
            "beneficiary": request.beneficiary,
            "callback": request.callback,
            "params": request.params,
            "startTime": start,
            "botFirst": self.first,
            "botSize": self.volume,
            "workerStake": pool.workerpoolprice * WORKER_RATIO // 100,
            "schedulerRewardRatio": SCHEDULER_RATIO,
            "sponsor": who(world, self.payer),
        }


def trusting(trust: int) -> dict[str, Any]:
    """Changes to the four for this trust: two workers must agree for 3 or 4, three for 5 to 8."""
    return {"pool": {"trust": trust}, "request": {"trust": trust}}


def started(world: World, dealid: bytes) -> int:
    return int(world.hub.viewDeal(dealid).startTime)


# ---- Tasks -------------------------------------------------------------------------------------------------


def task_of(world: World, taskid: bytes) -> Any:
    return world.hub.viewTask(taskid)


def contribution(world: World, taskid: bytes, **options: Any) -> tuple[Any, ...]:
    """Arguments of `contribute`; options are those of `World.enclave`."""
    made = world.enclave(taskid, **options)
    return taskid, made.hash, made.seal, made.challenge, made.sign, made.authorization


def revealing(world: World, *workers: str, **options: Any) -> bytes:
    """A task whose workers have agreed; one if no other is named."""
    taskid = world.task(**options)
    for worker in workers or ("worker",):
        world.contribute(taskid, worker)
    assert task_of(world, taskid).status == REVEALING
    return taskid


def reveal(world: World, taskid: bytes, worker: str = "worker", digest: bytes = DIGEST) -> Done:
    return act(world, worker, "reveal", taskid, digest)


def revealed(world: World, *workers: str, **options: Any) -> bytes:
    """A task whose workers have agreed and revealed."""
    taskid = revealing(world, *workers, **options)
    for worker in workers or ("worker",):
        reveal(world, taskid, worker)
    return taskid


def finalize(world: World, taskid: bytes, results: bytes = RESULTS, callback: bytes = b"") -> Done:
    return act(world, "scheduler", "finalize", taskid, results, callback)


def later(world: World, dealid: bytes, ratio: int, seconds: int = 0) -> None:
    """The next transaction is `ratio` reference times and `seconds` after the deal's start."""
    category = world.hub.viewCategory(world.hub.viewDeal(dealid).category)
    world.chain.at(started(world, dealid) + ratio * category.workClockTimeRef + seconds)


def tasks_of(dealid: bytes, count: int) -> list[bytes]:
    return [task_id(dealid, index) for index in range(count)]


# ---- Contracts ---------------------------------------------------------------------------------------------

YES = bytes.fromhex("1626ba7e").ljust(32, b"\0")
"""A wallet's consent (EIP-1271)."""
NO = b"\xff" * 4 + bytes(28)
TRUE, FALSE = (1).to_bytes(32, "big"), bytes(32)


def install(world: World, runtime: bytes) -> Address:
    """A contract of this code."""
    init = bytes([0x60, len(runtime), 0x80, 0x60, 9, 0x5F, 0x39, 0x5F, 0xF3]) + runtime
    return world.chain.deploy(init, world.who("stranger"))


def answering(world: World, data: bytes, *, revert: bool = False) -> Address:
    """A contract that gives this answer to whatever it is asked, or reverts with it.

    A wallet that consents (YES) or not (NO), a group that admits everyone (TRUE) or nobody (FALSE), a thing
    with an owner."""
    size = len(data)
    body = bytes([0x60, size, 0x60, 12, 0x5F, 0x39, 0x60, size, 0x5F, 0xFD if revert else 0xF3])
    return install(world, body.ljust(12, b"\0") + data)


def recorder(world: World) -> Address:
    """A contract that keeps what it was called with, for `recorded`."""
    return install(
        world, bytes.fromhex("36601257 5f545f52600154602052 60405ff3 5b5a600155365f5f37365f205f5500")
    )


def recorded(world: World, at: Address) -> tuple[bytes, int]:
    """keccak256 of a recorder's last calldata, and the gas it had."""
    found = world.chain.call(at, b"", world.who("stranger"))
    return found[:32], int.from_bytes(found[32:], "big")


def burner(world: World) -> Address:
    """A contract that burns all gas it gets."""
    return install(world, bytes.fromhex("5b5f56"))


def paying(world: World, to: Address) -> Address:
    """A contract that passes on what it is called with, and pays one wei with it."""
    code = f"365f5f37 5f5f365f600173{to[2:]}5af1 3d5f5f3e 602b57 3d5ffd 5b3d5ff3"
    made = install(world, bytes.fromhex(code))
    world.chain.fund(made, 1)
    return made


def word(value: Address | int) -> bytes:
    """What a function answers that returns this."""
    number = int(value, 16) if isinstance(value, str) else value
    return number.to_bytes(32, "big")


def owned_by(world: World, owner: Address, kind: str) -> Address:
    """A new app, dataset or workerpool of this owner, of which the registry knows."""
    registry = {"App": world.apps, "Dataset": world.datasets, "Workerpool": world.workerpools}[kind]
    arguments: dict[str, tuple[Any, ...]] = {
        "App": ("theirs", "DOCKER", b"/ipfs/QmTheirs", b"\x03" * 32, b""),
        "Dataset": ("theirs", b"/ipfs/QmTheirs", b"\x03" * 32),
        "Workerpool": ("theirs",),
    }
    call = (f"create{kind}", owner, *arguments[kind])
    made: Address = registry.call(*call)
    registry.send(*call)
    return made
