"""Random actors who call the hub, and the books that are kept meanwhile.

One step is one number: it decides who does what. So a run is a list of numbers, the same list is the same
run, and a shorter list is a smaller run. Most steps are sensible (a match of orders that fit, a contribution
to a task that waits for it); some are not, and whether the hub takes a call is compared with the rules each
time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from random import Random
from typing import Any, TypeVar

from eth_abi.abi import encode

from sealdeal.model.batches import Batch, Leaf, Proof, batch_message, short_digest
from sealdeal.model.deals import KITTY, enclave_message, result_hash, result_seal, task_id
from sealdeal.model.keys import Key
from sealdeal.model.orders import (
    BATCH,
    NO_DATASET,
    AppOrder,
    DatasetOrder,
    OrderOperation,
    RequestOrder,
    Signed,
    WorkerpoolOrder,
    tag,
)
from sealdeal.model.types import RLC, ZERO, Address, Bytes32, keccak
from tests.contracts.actors import BURNS, RECORDER, compiled, says
from tests.contracts.books import (
    ACTIVE,
    CONTRIBUTED,
    REVEALING,
    TEE,
    Asset,
    Books,
    Chronicle,
    Deal,
    Refuse,
    Sold,
    Task,
)
from tests.contracts.chain import Contract, Refused
from tests.contracts.invariants import EVERY, QUICK, At
from tests.contracts.revm import Revm
from tests.contracts.world import CATEGORIES, SCHEDULER_RATIO, WEALTH, WORKER_RATIO, Options, World, key

PROFILES: dict[str, dict[str, Any]] = {
    "official": {},
    "production": {"kitty_capped": True, "changes_delayed": True},
}
"""What a deployment may choose."""
OLD_SCORE = 17
"""What the hub of version 3 says of every worker."""
POCKET = 1_000 * RLC
"""Base tokens of every actor at the beginning."""
VETERANS = ((("worker", "worker2"), 16), (("worker3", "worker4"), 12))
"""Who has a score at the beginning, and which."""
FULL_CHECK = 50
"""Steps from one check of every invariant to the next."""
ANSWERS = (b"the result", b"another")
"""What workers find out, and tell callbacks; a task's digest is its hash."""
DIRECTORY = "QmUbh7ugQ9WVprTVYjzrCS4d9cCy73zUz4MMchsrqzzu1w"
"""Of a batch's results."""
ANY = b"\1" * 65
"""Nobody's signature."""

T = TypeVar("T")
DEFAULTS: dict[str, tuple[Any, ...]] = {
    "setTeeBroker": (ZERO,),
    "setCallbackGas": (0,),
    "changeRegistries": (ZERO, ZERO, ZERO),
}
"""Arguments of the functions of the owner that may wait."""

Found = tuple[Bytes32, Task]
Rule = Callable[[Address, int], None]
"""What the rules make of a call by this sender at this time. Raises Refuse, or enters it into the books."""


@dataclass(frozen=True)
class Call:
    contract: Contract
    function: str
    arguments: tuple[Any, ...]
    sender: Address
    rule: Rule


class Counted(Revm):
    """A chain that knows how often it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.transactions = self.reads = 0

    def call(self, to: str, data: bytes, sender: str) -> bytes:
        self.reads += 1
        return super().call(to, data, sender)

    def send(self, to: str | None, data: bytes, sender: str, gas: int = 20_000_000) -> dict[str, Any]:
        self.transactions += 1
        return super().send(to, data, sender, gas)

    def turn(self, account: Address, slot: int, bit: int) -> None:
        """Turn one bit of an account's storage, as no transaction does. `undone` does not turn it back."""
        held = self._evm.storage(account, slot)
        self._evm.insert_account_storage(account, slot, held ^ (1 << bit))


class Stage:
    """A world with several assets of each kind, deployed once; each run starts from it anew."""

    def __init__(self, profile: str = "official") -> None:
        self.chain = Counted()
        old = self.chain.deploy(says(encode(["uint256"], [OLD_SCORE])), key("an older hub").address)
        self.options = Options(v3hub=old, **PROFILES[profile])
        self.world = World.start(self.chain, options=self.options)
        world = self.world
        self.keys = {world.who(role): world.keys[role] for role in World.ROLES}
        self.actors = list(self.keys)
        for actor in self.actors:
            world.token.transfer(actor, POCKET)
            world.token.approve(world.hub.address, 2**256 - 1, sender=actor)
        self.apps = [world.app, world.new_app("another app", "worker")]
        self.datasets = [world.dataset, world.new_dataset("another dataset", "requester")]
        self.pools = [world.pool, world.new_pool("another pool", "worker2")]
        sender = world.owner.address
        self._train()
        self.callbacks = [
            self.chain.deploy(code, sender)
            for code in (compiled(RECORDER), says(b""), says(b"", reverts=True), BURNS)
        ]
        self.accepted: Counter[str] = Counter()
        """Function -> how often the hub took a call of it, in all runs."""
        self.refused: Counter[str] = Counter()

    def _train(self) -> None:
        """Give four workers a score, so that their weights differ. It costs nobody anything."""
        world = self.world
        for workers, score in VETERANS:
            for rounds, trust in ((min(score, 12), 3), (max(score - 12, 0), 5)):
                # Two agree on it, neither could alone: a score of 12 is more weight.
                pool, request = {"workerpoolprice": 0, "trust": trust}, {"trust": trust}
                deal = (
                    world.deal(volume=rounds, app={"appprice": 0}, pool=pool, request=request)
                    if rounds
                    else b""
                )
                for index in range(rounds):
                    taskid = world.first_task(deal, index)
                    for worker in workers:
                        world.contribute(taskid, worker)
                    for worker in workers:
                        world.hub.reveal(taskid, keccak(b"result"), sender=world.who(worker))
                    world.hub.finalize(taskid, b"", b"", sender=world.who("scheduler"))

    def books(self) -> tuple[Books, Chronicle]:
        """What is so at the beginning of each run."""
        world = self.world
        books = Books(
            world.hub.address,
            world.owner.address,
            capped=self.options.kitty_capped,
            delayed=self.options.changes_delayed,
        )
        chronicle = Chronicle(world.hub.address)
        for actor in self.actors:
            books.stakes[actor] = chronicle.stakes[actor] = WEALTH
            books.tokens[actor] = POCKET
        books.supply = WEALTH * len(self.actors)
        chronicle.stakes[ZERO] = -books.supply
        books.tokens[world.hub.address] = books.supply
        for workers, score in VETERANS:
            for worker in workers:
                books.scores[world.who(worker)] = chronicle.scores[world.who(worker)] = score
        books.timerefs = [timeref for _, _, timeref in CATEGORIES]
        owners = (("app", "worker"), ("dataset", "requester"), ("scheduler", "worker2"))
        for assets, roles in zip((self.apps, self.datasets, self.pools), owners, strict=True):
            for asset, role in zip(assets, roles, strict=True):
                books.assets[asset] = Asset(world.who(role))
        for pool in self.pools:
            books.assets[pool] = Asset(books.assets[pool].owner, WORKER_RATIO, SCHEDULER_RATIO)
        return books, chronicle

    @contextmanager
    def run(self) -> Iterator[Machine]:
        with self.chain.undone():
            yield Machine(self)


class Machine:
    """One run."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.chain = stage, stage.chain
        world = self.world = stage.world
        self.hub, self.token = world.hub, world.token
        self.books, self.chronicle = stage.books()
        self.rng = Random(0)
        self.orders: dict[type[Any], list[Sold]] = {
            kind: [] for kind in (AppOrder, DatasetOrder, WorkerpoolOrder, RequestOrder)
        }
        self.calls: list[Call] = []
        self.log: list[str] = []
        self.steps = self._salts = 0

    def step(self, number: int) -> None:
        """Do what the number says; 0 is nothing. Raises AssertionError if that breaks an invariant."""
        if not number:
            return
        self.rng = Random(number)
        self.steps += 1
        (action,) = self.rng.choices(ACTIONS, WEIGHTS)
        try:
            action(self)
            if self.steps % FULL_CHECK == 0:
                self.check()
        except AssertionError as error:
            for line in self.log[-40:]:
                error.add_note(line)
            raise

    def check(self) -> None:
        """Every invariant, of everything."""
        at = At(self.hub, self.token, self.books, self.chronicle)
        for invariant in EVERY:
            invariant(at)

    def settle(self) -> None:
        """Everything comes to its end: when all deadlines have passed, whoever can withdraws what is theirs,
        and the hub is left with the kitty, and with what nobody has the key for."""
        if deadlines := [self.books.deals[dealid].final_deadline for dealid in self.books.open]:
            self._until(max(deadlines))
        for taskid, _ in self._unended():
            self._hub("claim", taskid, rule=self._claiming([taskid]))
        for dealid, deal in self.books.deals.items():
            for index in deal.indices:
                if task_id(dealid, index) in self.books.tasks:
                    continue
                if deal.boost:
                    self._hub("claimBoost", dealid, index, rule=self._claiming_boost(dealid, index))
                else:
                    rule = self._giving_up([(dealid, index)])
                    self._hub("initializeAndClaimArray", [dealid], [index], rule=rule)
        stuck = {account: amount for account, amount in self.books.locked().items() if amount}
        assert set(stuck) <= {KITTY}
        for actor in self.stage.actors:
            self._withdraw(actor, self.books.stakes[actor], actor)
        self.check()
        left = sum(amount for account, amount in self.books.stakes.items() if account not in self.stage.keys)
        assert self.token.balanceOf(self.hub.address) == self.books.kitty + left + self.books.gifts

    # ---- Calls

    def attempt(self, call: Call) -> bool:
        """Make a call, and enter it into the books if it was taken. It must be taken if, and only if, the
        rules say so. Returns whether."""
        self.calls.append(call)
        said = b""
        try:
            done = call.contract.send(call.function, *call.arguments, sender=call.sender)
        except Refused as refused:
            done, said = None, refused.data
        why = None
        try:
            call.rule(call.sender, self.chain.now())
        except Refuse as refuse:
            why = refuse
        self.log.append(f"{self._show(call)}: {'taken' if done else f'refused ({why})'}")
        (self.stage.accepted if done else self.stage.refused)[call.function] += 1
        assert done is None or why is None, f"{call.function} was taken, but there is a rule: {why}"
        assert done is not None or why is not None, (
            f"{call.function} was refused, {said!r}, but no rule says so"
        )
        if done is None:
            return False
        events = done.events if call.contract is self.hub else self.hub.events(done.receipt)
        moved = self.chronicle.read(events)
        at = At(self.hub, self.token, self.books, self.chronicle, moved)
        for invariant in QUICK:
            invariant(at)
        return True

    def _hub(self, function: str, *arguments: Any, rule: Rule, sender: Address | None = None) -> bool:
        return self.attempt(Call(self.hub, function, arguments, sender or self._actor(), rule))

    def _show(self, call: Call) -> str:
        names = {self.world.who(role): role for role in self.world.keys}

        def show(value: Any) -> str:
            if isinstance(value, bytes):
                return value[:4].hex()
            if isinstance(value, tuple | list):
                return f"({', '.join(map(show, value))})"
            return names.get(value, str(value))[:24]

        at = self.chain.now()
        return f"{at} {names.get(call.sender, call.sender)}: {call.function}{show(call.arguments)}"

    # ---- Choices

    def _often(self, percent: int = 90) -> bool:
        return self.rng.randrange(100) < percent

    def _actor(self) -> Address:
        return self.rng.choice(self.stage.actors)

    def _distinct(self, items: list[T]) -> list[T]:
        """Mostly without repetitions."""
        return list(dict.fromkeys(items)) if self._often(85) else items

    def _account(self) -> Address:
        """Mostly an actor; the hub, the kitty, nobody, and someone without a key too."""
        odd = (self.hub.address, KITTY, ZERO, self.world.who("stranger"), self.stage.callbacks[0])
        return self._actor() if self._often() else self.rng.choice(odd)

    def _amount(self, held: int) -> int:
        """Of what somebody holds: a part, all of it, nothing, too much."""
        return self.rng.choice(
            (self.rng.randrange(held + 1), self.rng.randrange(held // 8 + 1), 0, held, held + 1)
        )

    def _price(self) -> int:
        choices = (0, 1, RLC, 10 * RLC, self.rng.randrange(100 * RLC), self.rng.randrange(10**8) * 1000)
        return self.rng.choice(choices)

    def _task(self, *statuses: int) -> Found | None:
        """A task, mostly one with such a status; of these, mostly a recent one."""
        tasks = list(self.books.tasks.items())
        fitting = [item for item in tasks if item[1].status in statuses]
        chosen = fitting if fitting and self._often(92) else tasks
        return self.rng.choice(chosen[-6:] if self._often(70) else chosen) if chosen else None

    def _unended(self) -> list[Found]:
        return [item for item in self.books.tasks.items() if not item[1].ended]

    def _until(self, time: int) -> None:
        """The next transaction is at this time, or as soon as it can be."""
        if time - 1 > self.chain.now():
            self.chain.at(time - 1)

    def _key(self, address: Address) -> Key | None:
        keys = {key.address: key for key in (*self.stage.keys.values(), *self.world.keys.values())}
        return keys.get(address)

    # ---- Orders

    def _sold(self, order: Any, signer: Address | None) -> Sold:
        """The order, signed, and kept for later matches."""
        domain = self.world.domain
        key = self._key(signer) if signer else None
        signed = Signed.by(key, order, domain) if key else Signed(order, b"")
        sold = Sold(signed, signed.hash(domain), signer if key else None)
        self.orders[type(order)].append(sold)
        return sold

    def _salt(self) -> Bytes32:
        self._salts += 1
        return self._salts.to_bytes(32, "big")

    def _signer(self, owner: Address) -> Address | None:
        """Mostly the owner; sometimes nobody, or somebody else."""
        return owner if self._often(98) else self.rng.choice((None, self._actor()))

    def _old(self, kind: type[Any], fits: Callable[[Any], bool]) -> Sold | None:
        """An order that was used before and, mostly, has volume left."""
        known = [sold for sold in self.orders[kind][-12:] if fits(sold.order)]
        left = [sold for sold in known if self.books.left(sold) > 0]
        chosen = left if left and self._often(95) else known
        return self.rng.choice(chosen) if chosen else None

    def _asset_order(self, kind: type[Any], assets: Sequence[Address], bits: int) -> Sold:
        if self._often(55) and (old := self._old(kind, lambda order: order.tag == tag(bits))):
            return old
        asset, volume = self.rng.choice(assets), self.rng.choice((1, 1, 2, 3, 5, 12))
        name = {AppOrder: "app", DatasetOrder: "dataset", WorkerpoolOrder: "workerpool"}[kind]
        terms = {name: asset, f"{name}price": self._price(), "volume": volume, "tag": tag(bits)}
        if kind is WorkerpoolOrder:
            terms |= {"category": self.rng.randrange(3), "trust": self.rng.choice((1, 3, 5, 6))}
        if not self._often(98):
            terms["requesterrestrict"] = self._actor()
        return self._sold(kind(**terms, salt=self._salt()), self._signer(self.books.assets[asset].owner))

    def _request(self, app: Any, dataset: Any, pool: Any, bits: int, boost: bool) -> Sold:
        """For these orders; or an old one, which may not fit."""

        def fits(order: Any) -> bool:
            prices = order.appmaxprice >= app.appprice and order.workerpoolmaxprice >= pool.workerpoolprice
            wanted = (app.app, dataset.dataset, pool.category)
            fast = order.trust <= 1 or not boost
            return prices and fast and (order.app, order.dataset, order.category) == wanted

        if self._often(50) and (old := self._old(RequestOrder, fits)):
            return old
        requester = self._actor()
        alone = (boost or bits & BATCH) and self._often(90)
        trusts = (0, 1) if alone else (0, 1, 1, 2, 3, 3, 4, 5)
        order = RequestOrder(
            app=app.app,
            appmaxprice=app.appprice + self.rng.choice((0, 0, 5 * RLC)),
            dataset=dataset.dataset,
            datasetmaxprice=dataset.datasetprice + self.rng.choice((0, 5 * RLC)),
            workerpool=self.rng.choice((ZERO, pool.workerpool)),
            workerpoolmaxprice=pool.workerpoolprice + self.rng.choice((0, 20 * RLC)),
            requester=requester,
            volume=self.rng.choice((2, 3, 6, 12) if bits & BATCH else (1, 1, 2, 3, 6)),
            tag=tag(bits),
            category=pool.category,
            trust=self.rng.choice([trust for trust in trusts if trust <= pool.trust]),
            beneficiary=self._account(),
            callback=ZERO
            if bits & BATCH and self._often()
            else self.rng.choice((ZERO, ZERO, *self.stage.callbacks, self.world.who("stranger"))),
            params="x" * self.rng.choice((0, 5, 31, 32, 33, 64, 200)),
            salt=self._salt(),
        )
        if not self._often(95):
            spoilt = (
                {"category": (pool.category + 1) % 5},
                {"trust": pool.trust + 1},
                {"appmaxprice": max(app.appprice - 1, 0)},
                {"workerpoolmaxprice": max(pool.workerpoolprice - 1, 0)},
                {"datasetmaxprice": max(dataset.datasetprice - 1, 0)},
                {"tag": tag(bits ^ TEE)},
                {"workerpool": self.rng.choice(self.stage.pools)},
            )
            order = replace(order, **self.rng.choice(spoilt))
        return self._sold(order, self._signer(requester))

    def match(self, boost: bool = False, bag: bool = False) -> None:
        bits = TEE | BATCH if bag else self.rng.choice((0, 0, TEE, TEE | 2, TEE | BATCH))
        dataset = self._asset_order(DatasetOrder, self.stage.datasets, bits) if self._often(50) else None
        app = self._asset_order(AppOrder, self.stage.apps, bits)
        pool = self._asset_order(WorkerpoolOrder, self.stage.pools, bits)
        data = dataset.signed if dataset else NO_DATASET
        sponsored, boost = self._often(30), boost or self._often(15)
        request = self._request(app.order, data.order, pool.order, bits, boost)
        orders = tuple(signed.as_tuple() for signed in (app.signed, data, pool.signed, request.signed))

        def rule(sender: Address, now: int) -> None:
            sponsor = sender if sponsored else request.order.requester
            self.books.match(sponsor, app, dataset, pool, request, now, boost)

        if not sponsored and not boost and self._often(12):
            self._deposit_and_match(orders, app, dataset, pool, request)
            return
        function = ("sponsorMatchOrders" if sponsored else "matchOrders") + ("Boost" if boost else "")
        self._hub(function, *orders, rule=rule)

    def _deposit_and_match(
        self, orders: tuple[Any, ...], app: Sold, dataset: Sold | None, pool: Sold, request: Sold
    ) -> None:
        """What the base token's approveAndCall brings about."""
        source = request.order.requester if self._often(95) else self._actor()
        amount = self._amount(self.books.tokens[source])
        data = self.hub.encode("matchOrders", *orders)

        def rule(_: Address, now: int) -> None:
            self.books.deposit_and_match(source, amount, app, dataset, pool, request, now)

        self._hub("receiveApproval", source, amount, self.token.address, data, rule=rule)

    def manage(self) -> None:
        """Presign or close an order."""
        known = [sold for orders in self.orders.values() for sold in orders[-8:]]
        if not known:
            return
        sold, close = self.rng.choice(known), self._often(40)
        names: dict[type[Any], tuple[str, str]] = {
            AppOrder: ("manageAppOrder", "app"),
            DatasetOrder: ("manageDatasetOrder", "dataset"),
            WorkerpoolOrder: ("manageWorkerpoolOrder", "workerpool"),
            RequestOrder: ("manageRequestOrder", "requester"),
        }
        function, of = names[type(sold.order)]
        at = getattr(sold.order, of)

        def rule(sender: Address, _: int) -> None:
            owner = at if of == "requester" else self.books.assets[at].owner
            self.books.manage(sender, owner, None, sold, close)

        owner = at if of == "requester" else self.books.assets[at].owner
        operation = OrderOperation(sold.signed, int(close)).as_tuple()
        self._hub(function, operation, rule=rule, sender=owner if self._often() else self._actor())

    # ---- Tasks

    def work(self) -> None:
        """What some task waits for: so that many come to an end, and in many ways."""
        if not (tasks := self._unended()):
            self.begin() if self.books.open else self.match()
            return
        found = self.rng.choice(tasks[-5:])
        task, now = found[1], self.chain.now() + 1
        if task.deal.final_deadline <= now:
            self.claim()
        elif task.status == ACTIVE and now < task.deal.contribution_deadline and self._idle(task):
            alone = not task.contributions and task.deal.trust == 1
            (self.contribute_and_finalize if alone and self._often(40) else self.contribute)(found)
        elif task.status == ACTIVE:
            self._until(task.deal.final_deadline)
        elif task.reveals == task.winners or (task.reveals and task.reveal_deadline <= now):
            self.finalize(found)
        elif now < task.reveal_deadline and self._often(96):
            self.reveal(found)
        else:
            self._until(task.reveal_deadline)
            self.reopen(found)

    def begin(self) -> None:
        """Initialise one task, or some at once."""
        if not self.books.deals or (not self._unbegun() and self._often()):
            self.match()
            return
        pairs = self._distinct([self._place() for _ in range(self.rng.choice((1, 1, 1, 2, 3)))])
        rule: Rule = lambda _, __: self.books.initialize(pairs)  # noqa: E731
        if len(pairs) == 1:
            self._hub("initialize", *pairs[0], rule=rule)
        else:
            self._hub("initializeArray", *zip(*pairs, strict=True), rule=rule)

    def _unbegun(self, boost: bool = False) -> list[tuple[Bytes32, int]]:
        """Tasks of recent deals that nobody began or pushed."""
        return [
            (deal.dealid, index)
            for deal in list(self.books.deals.values())[-12:]
            for index in deal.indices
            if deal.boost == boost and task_id(deal.dealid, index) not in self.books.tasks
        ]

    def _place(self, boost: bool = False) -> tuple[Bytes32, int]:
        """A deal and an index, mostly of a task that nobody began or pushed."""
        new = self._unbegun(boost)
        if new and self._often(95):
            return self.rng.choice(new)
        deal = self.rng.choice(list(self.books.deals.values()))
        return deal.dealid, max(deal.first + self.rng.randrange(-1, deal.size + 1), 0)

    def _idle(self, task: Task) -> list[Address]:
        """Who has not contributed to it."""
        return [actor for actor in self.stage.actors if actor not in task.contributions]

    def _effort(self, taskid: Bytes32, task: Task) -> tuple[Address, bytes, Any, Address, bool]:
        """A worker, what it found out, all that it sends, who authorised it, whether an enclave signed."""
        new = self._idle(task)
        worker = self.rng.choice(new) if new and self._often(95) else self._actor()
        answer = ANSWERS[0] if self._often(85) else ANSWERS[1]
        tee = bool(task.deal.tag & TEE) if self._often(92) else self._often(50)
        right = self.books.broker if tee and self.books.broker != ZERO else task.deal.scheduler
        authoriser = right if self._often(95) else self._actor()
        signer = next(role for role, key in self.world.keys.items() if key.address == authoriser)
        role = next(role for role, key in self.world.keys.items() if key.address == worker)
        sent = self.world.enclave(taskid, worker=role, digest=keccak(answer), tee=tee, signer=signer)
        attested = tee and self._often(95)
        if tee and not attested:
            sent = replace(sent, sign=sent.authorization)
        return worker, answer, sent, authoriser, attested

    def contribute(self, found: Found | None = None) -> None:
        if not (found := found or self._task(ACTIVE)):
            return
        taskid, task = found
        worker, _, sent, authoriser, attested = self._effort(taskid, task)
        given = (sent.hash, sent.seal)
        self._hub(
            "contribute",
            taskid,
            *given,
            sent.challenge,
            sent.sign,
            sent.authorization,
            # Another worker's authorisation is nobody's signature of this one.
            rule=lambda sender, now: self.books.contribute(
                sender, taskid, given, sent.challenge, authoriser if sender == worker else ZERO, attested, now
            ),
            sender=worker,
        )

    def reveal(self, found: Found | None = None) -> None:
        if not (found := found or self._task(REVEALING)):
            return
        taskid, task = found
        hashes = {result_hash(taskid, keccak(answer)): keccak(answer) for answer in ANSWERS}
        agreeing = [
            worker
            for worker, given in task.contributions.items()
            if given.hash == task.consensus and given.status == CONTRIBUTED
        ]
        worker = self.rng.choice(agreeing) if agreeing and self._often(93) else self._actor()
        right = hashes.get(task.consensus, b"\1" * 32)
        digest = right if self._often(95) else keccak(self.rng.choice(ANSWERS))
        self._hub(
            "reveal",
            taskid,
            digest,
            rule=lambda sender, now: self.books.reveal(sender, taskid, digest, now),
            sender=worker,
        )

    def finalize(self, found: Found | None = None) -> None:
        if not (found := found or self._task(REVEALING)):
            return
        taskid, task = found
        data = self._callback_data(task, task.digest)
        self._hub(
            "finalize",
            taskid,
            self._results(),
            data,
            rule=lambda sender, now: self.books.finalize(sender, taskid, data, now),
            sender=task.deal.scheduler if self._often(95) else self._actor(),
        )

    def _callback_data(self, task: Task, digest: Bytes32) -> bytes:
        """What a callback is told: mostly the answer that has this digest, if it is told anything."""
        told = next((answer for answer in ANSWERS if keccak(answer) == digest), b"")
        if task.deal.callback == ZERO and self._often(85):
            return b""
        return told if self._often(93) else self.rng.choice((b"", *ANSWERS))

    def _results(self) -> bytes:
        link = b'{ "storage": "ipfs", "location": "/ipfs/Qm%s" }' % (b"k" * 44)
        return self.rng.choice((b"", link, b"r" * self.rng.choice((1, 31, 32, 33, 500))))

    def contribute_and_finalize(self, found: Found | None = None) -> None:
        if not (found := found or self._task(ACTIVE)):
            return
        taskid, task = found
        worker, answer, sent, authoriser, attested = self._effort(taskid, task)
        data = self._callback_data(task, keccak(answer))
        self._hub(
            "contributeAndFinalize",
            taskid,
            sent.digest,
            self._results(),
            data,
            sent.challenge,
            sent.sign,
            sent.authorization,
            rule=lambda sender, now: self.books.contribute_and_finalize(
                sender,
                taskid,
                sent.digest,
                data,
                sent.challenge,
                authoriser if sender == worker else ZERO,
                attested and sender == worker,
                now,
            ),
            sender=worker,
        )

    def reopen(self, found: Found | None = None) -> None:
        if not (found := found or self._task(REVEALING)):
            return
        taskid, task = found
        self._hub(
            "reopen",
            taskid,
            rule=lambda sender, now: self.books.reopen(sender, taskid, now),
            sender=task.deal.scheduler if self._often() else self._actor(),
        )

    def claim(self) -> None:
        late = [item for item in self._unended() if item[1].deal.final_deadline <= self.chain.now()]
        taskids = self._distinct(
            [
                self.rng.choice(late)[0] if late and self._often(80) else found[0]
                for _ in range(self.rng.choice((1, 1, 2, 3)))
                if (found := self._task(ACTIVE, REVEALING))
            ]
        )
        if len(taskids) == 1:
            self._hub("claim", *taskids, rule=self._claiming(taskids))
        else:
            self._hub("claimArray", taskids, rule=self._claiming(taskids))

    def _claiming(self, taskids: list[Bytes32]) -> Rule:
        return lambda _, now: self.books.claim(taskids, now)

    def give_up(self) -> None:
        """Initialise and claim at once."""
        if not self.books.deals:
            return
        pairs = self._distinct([self._place() for _ in range(self.rng.choice((1, 2, 3)))])
        arguments = zip(*pairs, strict=True)
        self._hub("initializeAndClaimArray", *arguments, rule=self._giving_up(pairs))

    def _giving_up(self, pairs: list[tuple[Bytes32, int]]) -> Rule:
        return lambda _, now: self.books.initialize_and_claim(pairs, now)

    def wait(self) -> None:
        """Until a deadline, exactly or almost; or for some time."""
        tasks = [task for task in self.books.tasks.values() if not task.ended]
        if not tasks or not self._often(80):
            self._until(self.chain.now() + self.rng.choice((2, 300, 700, 3600)))
            return
        task = self.rng.choice(tasks[-10:])
        deadlines = [task.deal.contribution_deadline, task.deal.final_deadline, task.reveal_deadline]
        self._until(self.rng.choice(deadlines) + self.rng.choice((-1, 0, 1)))

    # ---- Boost

    def push(self) -> None:
        if not self.books.deals or (not self._unbegun(boost=True) and self._often()):
            self.match(boost=True)
            return
        dealid, index = self._place(boost=True)
        deal, taskid = self.books.deals[dealid], task_id(dealid, index)
        worker, _, sent, authoriser, _ = self._effort(taskid, Task(deal))
        results, told = self._results(), b""
        if deal.callback != ZERO and self._often(95):
            told = self.rng.choice(ANSWERS)
        digest = keccak(results if deal.callback == ZERO else told)
        attested = sent.challenge != ZERO and self._often(95)
        sign = (
            self.world.keys["enclave"].sign_message(result_seal(worker, taskid, digest)) if attested else ANY
        )
        self._hub(
            "pushResultBoost",
            dealid,
            index,
            results,
            told,
            sent.authorization,
            sent.challenge,
            sign if sent.challenge != ZERO else b"",
            rule=lambda sender, now: self.books.push(
                sender,
                dealid,
                index,
                told,
                sent.challenge,
                authoriser if sender == worker else ZERO,
                attested and sender == worker,
                now,
            ),
            sender=worker,
        )

    def claim_boost(self) -> None:
        if not self.books.deals:
            return
        dealid, index = self._place(boost=True)
        if self._often(30):
            self._until(self.books.deals[dealid].final_deadline)
        self._hub("claimBoost", dealid, index, rule=self._claiming_boost(dealid, index))

    def _claiming_boost(self, dealid: Bytes32, index: int) -> Rule:
        return lambda _, now: self.books.claim_boost(dealid, index, now)

    # ---- Batches

    def _asks_for_batches(self, deal: Deal) -> bool:
        asks = not deal.boost and deal.size > 1 and deal.trust == 1 and deal.callback == ZERO
        return asks and bool(deal.tag & BATCH) and self.chain.now() + 1 < deal.contribution_deadline

    def settle_batch(self) -> None:
        if self.books.broker == ZERO and self._often():
            broker = self.world.who("broker")
            rule: Rule = lambda sender, now: self.books.set_broker(sender, broker, now)  # noqa: E731
            self._hub("setTeeBroker", broker, rule=rule, sender=self.books.owner)
            return
        deals = [deal for deal in list(self.books.deals.values())[-15:] if deal.dealid in self.books.open]
        fitting = [deal for deal in deals if self._asks_for_batches(deal)]
        if not fitting and self._often():
            self.match(bag=True)
            return
        if not deals:
            return
        deal = self.rng.choice(fitting if fitting and self._often() else deals)
        authorised = sorted(self.rng.sample(deal.indices, self.rng.randrange(deal.size) + 1))
        workers = [self._actor() for _ in range(self.rng.choice((1, 1, 2, 3)))]
        enclaves = [self.world.keys[role] for role in ("enclave", "stranger")]
        leaves = [
            Leaf(index, self.rng.choice(workers), self.rng.choice(enclaves).address) for index in authorised
        ]
        by = {leaf.index: leaf for leaf in leaves}
        settled = (
            authorised
            if self._often(60)
            else self.rng.sample(authorised, self.rng.randrange(len(leaves)) + 1)
        )
        attested, short = self._often(93), self._often(60)
        proofs = {}
        for index in settled:
            digest = keccak(self.rng.choice(ANSWERS) + bytes([index % 256]))
            digest = short_digest(digest) if short else digest
            message = enclave_message(by[index].worker, task_id(deal.dealid, index), digest)
            signer = next(key for key in enclaves if (key.address == by[index].enclave) == attested)
            proofs[index] = Proof(digest, signer.sign_message(message))
        authoriser = self.world.who("broker") if self._often(96) else self._actor()
        signing = self._key(authoriser)
        assert signing is not None
        first = deal.indices[0]
        batch = Batch.of(deal.dealid, first, leaves)
        authorisation = signing.sign_digest(batch_message(self.world.domain, batch))
        chosen = {index: (by[index].worker, proof.digest) for index, proof in proofs.items()}
        self._hub(
            "settleBatch",
            *batch.settle(first, proofs, DIRECTORY, authorisation),
            rule=lambda sender, now: self.books.settle_batch(
                sender, deal.dealid, chosen, authoriser, attested, now
            ),
            sender=deal.scheduler if self._often(95) else self._actor(),
        )

    # ---- Money

    def deposit(self) -> None:
        source = self._actor()
        held = self.books.tokens[source]
        amounts = [self._amount(held // 4) for _ in range(self.rng.choice((0, 1, 2, 3)))]
        targets = [self._account() for _ in amounts]
        amount = self._amount(held)
        kind = self.rng.randrange(4)
        if kind == 0:
            rule: Rule = lambda sender, _: self.books.deposit(sender, [amount], [sender])  # noqa: E731
            self._hub("deposit", amount, rule=rule, sender=source)
        elif kind == 1:
            target = self._account()
            rule = lambda sender, _: self.books.deposit(sender, [amount], [target])  # noqa: E731
            self._hub("depositFor", amount, target, rule=rule, sender=source)
        elif kind == 2:
            rule = lambda sender, _: self.books.deposit(sender, amounts, targets)  # noqa: E731
            self._hub("depositForArray", amounts, targets, rule=rule, sender=source)
        else:
            # Anyone may call it, for whoever gave the hub an allowance.
            rule = lambda _, __: self.books.deposit(source, [amount], [source])  # noqa: E731
            self._hub("receiveApproval", source, amount, self.token.address, b"", rule=rule)

    def withdraw(self) -> None:
        source = self._actor()
        self._withdraw(source, self._amount(self.books.stakes[source]), self._account())

    def _withdraw(self, source: Address, amount: int, target: Address) -> None:
        if target == source:
            rule: Rule = lambda sender, _: self.books.withdraw(sender, amount, sender)  # noqa: E731
            self._hub("withdraw", amount, rule=rule, sender=source)
        else:
            rule = lambda sender, _: self.books.withdraw(sender, amount, target)  # noqa: E731
            self._hub("withdrawTo", amount, target, rule=rule, sender=source)

    def gift(self) -> None:
        """Base tokens for the hub, without a deposit; the owner may recover them."""
        if self._often(50):
            owner = self.books.owner if self._often() else self._actor()
            self._hub("recover", rule=lambda sender, _: self.books.recover(sender), sender=owner)
            return
        source = self._actor()
        amount = self._amount(self.books.tokens[source] // 8)
        rule: Rule = lambda sender, _: self.books.gift(sender, amount)  # noqa: E731
        self.attempt(Call(self.token, "transfer", (self.hub.address, amount), source, rule))

    def transfer(self) -> None:
        source, to = self._actor(), self._account()
        amount = self._amount(self.books.stakes[source] // 4)
        if self._often(60):
            rule: Rule = lambda sender, _: self.books.transfer(sender, to, amount)  # noqa: E731
            self._hub("transfer", to, amount, rule=rule, sender=source)
            return
        granted = [pair for pair, allowed in self.books.allowances.items() if allowed]
        source, spender = self.rng.choice(granted) if granted and self._often() else (source, self._actor())
        rule = lambda sender, _: self.books.transfer(source, to, amount, sender)  # noqa: E731
        self._hub("transferFrom", source, to, amount, rule=rule, sender=spender)

    def approve(self) -> None:
        owner, spender = self._actor(), self._actor()
        allowed, amount = self.books.allowances[owner, spender], self._amount(WEALTH)
        function, then = self.rng.choice(
            (
                ("approve", lambda before: amount),
                ("increaseAllowance", lambda before: before + amount),
                ("decreaseAllowance", lambda before: before - amount),
            )
        )
        if function == "decreaseAllowance" and self._often(60):
            amount = self._amount(allowed)

        def rule(sender: Address, _: int) -> None:
            self.books.approve(sender, spender, then(self.books.allowances[sender, spender]))

        self._hub(function, spender, amount, rule=rule, sender=owner)

    # ---- Assets and settings

    def sell(self) -> None:
        """An asset changes hands; deals that were made before still pay the seller."""
        registries = (
            (self.world.apps, self.stage.apps),
            (self.world.datasets, self.stage.datasets),
            (self.world.workerpools, self.stage.pools),
        )
        registry, assets = self.rng.choice(registries)
        asset, to = self.rng.choice(assets), self._actor()
        seller = self.books.assets[asset].owner if self._often() else self._actor()

        def rule(sender: Address, _: int) -> None:
            # The call names its seller, who must be the owner, and who must be its sender.
            if sender != seller:
                raise Refuse("sender")
            self.books.sell(seller, asset, to)

        self.attempt(Call(registry, "transferFrom", (seller, to, int(asset, 16)), seller, rule))

    def change_policy(self) -> None:
        pool = self.rng.choice(self.stage.pools)
        ratios = (self.rng.choice((0, 30, 35, 100, 250)), self.rng.choice((0, 1, 5, 50, 100, 101)))
        owner = self.books.assets[pool].owner if self._often() else self._actor()
        rule: Rule = lambda sender, _: self.books.change_policy(sender, pool, *ratios)  # noqa: E731
        entry = self.world.entry("Workerpool", pool, owner)
        self.attempt(Call(entry, "changePolicy", ratios, owner, rule))

    def administer(self) -> None:
        owner = self.books.owner if self._often(85) else self._actor()
        broker = self.rng.choice((ZERO, self.world.who("broker"), self.world.who("broker")))

        def category(sender: Address, _: int) -> None:
            if sender != self.books.owner:
                raise Refuse("owner")
            self.books.timerefs.append(77)

        entries = [*self.stage.apps, *self.stage.datasets, *self.stage.pools]

        def never(_: Address, __: int) -> None:
            raise Refuse("never")

        match self.rng.randrange(13):
            case 0 | 1 | 2:
                rule: Rule = lambda sender, now: self.books.set_broker(sender, broker, now)  # noqa: E731
                self._hub("setTeeBroker", broker, rule=rule, sender=owner)
            case 3 | 4 | 5:
                function = self.rng.choice(list(self.books.waiting) or ["setTeeBroker"])
                if function in self.books.waiting and self._often(70):
                    self._until(self.books.waiting[function][0])
                selector = self.hub.encode(function, *DEFAULTS[function])[:4]
                self._hub("applyChange", selector, rule=lambda _, now: self.books.apply(function, now))
            case 6:
                limit = self.rng.choice((0, 50_000, 200_000))
                rule = self._deciding("setCallbackGas")
                self._hub("setCallbackGas", limit, rule=rule, sender=owner)
            case 7:
                # For what is so already.
                registries = (self.world.apps, self.world.datasets, self.world.workerpools)
                at = [registry.address for registry in registries]
                self._hub("changeRegistries", *at, rule=self._deciding("changeRegistries"), sender=owner)
            case 8:
                self._hub("createCategory", "new", "category", 77, rule=category, sender=owner)
            case 9:
                to = self._actor()
                rule = lambda sender, _: self.books.own(sender, to)  # noqa: E731
                self._hub("transferOwnership", to, rule=rule, sender=owner)
            case 10:
                # Nobody but a registry tells the hub who owns what.
                word = int(self._actor(), 16) | 1 << 184
                self._hub("sync", self.rng.choice(self.stage.apps), word, rule=never)
            case 11:
                same: Rule = lambda _, __: None  # noqa: E731
                self._hub("updateEntries", self.rng.sample(entries, 2), rule=same)
                self._hub("updateDomainSeparator", rule=same)
                nobody = (self.token.address, "", "", 9, *entries[:4])
                self._hub("configure", *nobody, rule=never, sender=owner)
            case 12:
                worker = self._actor()
                if self._hub("importScore", worker, rule=self._importing(worker)):
                    # No event tells of it.
                    self.chronicle.scores[worker] = self.books.scores[worker]

    def _deciding(self, function: str) -> Rule:
        """A decision that changes nothing here."""
        return lambda sender, now: self.books.decide(sender, function, lambda: None, now)

    def _importing(self, worker: Address) -> Rule:
        return lambda _, __: self.books.import_score(worker, OLD_SCORE)

    def again(self) -> None:
        """A call of before, by whoever made it or by another."""
        if self.calls:
            call = self.rng.choice(self.calls[-30:])
            self.attempt(call if self._often(60) else replace(call, sender=self._actor()))


_WEIGHTED: tuple[tuple[Callable[[Machine], None], int], ...] = (
    (Machine.match, 14),
    (Machine.begin, 6),
    (Machine.work, 45),
    (Machine.contribute, 4),
    (Machine.reveal, 3),
    (Machine.finalize, 2),
    (Machine.contribute_and_finalize, 2),
    (Machine.reopen, 1),
    (Machine.claim, 2),
    (Machine.give_up, 1),
    (Machine.wait, 1),
    (Machine.push, 6),
    (Machine.claim_boost, 1),
    (Machine.settle_batch, 5),
    (Machine.deposit, 3),
    (Machine.withdraw, 3),
    (Machine.gift, 1),
    (Machine.transfer, 3),
    (Machine.approve, 2),
    (Machine.manage, 2),
    (Machine.sell, 2),
    (Machine.change_policy, 1),
    (Machine.administer, 2),
    (Machine.again, 4),
)
ACTIONS = [action for action, _ in _WEIGHTED]
WEIGHTS = [weight for _, weight in _WEIGHTED]
