"""Two sets of books beside the hub's own: what its rules make of the calls it took, and what its events say.

`Books` is told each call and decides by itself, from the rules of the protocol (PoCo 6.1.0), whether it may
succeed and who is owed what afterwards. It keeps no locked balances: what an account has locked follows from
the deals and contributions that are open. `Chronicle` is told nothing but events, and adds them up.
invariants.py compares both with what the hub's views answer. Amounts are nRLC, times unix seconds.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sealdeal.model.deals import KITTY, result_hash, result_seal, task_id
from sealdeal.model.orders import BATCH, AppOrder, DatasetOrder, RequestOrder, Signed, WorkerpoolOrder
from sealdeal.model.types import ZERO, ZERO32, Address, Bytes32, keccak

TEE = 1
FRAMEWORKS = 0b1110
ACTIVE, REVEALING, COMPLETED, FAILED = 1, 2, 3, 4
CONTRIBUTED, PROVED, REJECTED = 1, 2, 3


class Refuse(Exception):
    """The rules refuse this call; nothing was changed."""


def demand(fits: bool, rule: str) -> None:
    if not fits:
        raise Refuse(rule)


# ---- What there is -----------------------------------------------------------------------------------------


@dataclass
class Asset:
    """An app, dataset or workerpool."""

    owner: Address
    stake_ratio: int = 0
    """Per cent of the pool's price that a worker stakes."""
    scheduler_ratio: int = 0
    """Per cent of the pool's price that its owner keeps."""


@dataclass(frozen=True)
class Sold:
    """A signed order, its hash, and by whom `sign` is (None: by nobody)."""

    signed: Signed[Any]
    hash: Bytes32
    signer: Address | None

    @property
    def order(self) -> Any:
        return self.signed.order


@dataclass(frozen=True)
class Deal:
    """The terms of a match, which never change. Prices are per task."""

    dealid: Bytes32
    request: Bytes32
    """Hash of the request order; the tasks of all its deals are numbered together."""
    sponsor: Address
    requester: Address
    app: Address
    app_owner: Address
    app_price: int
    dataset: Address
    dataset_owner: Address
    dataset_price: int
    pool: Address
    scheduler: Address
    pool_price: int
    first: int
    size: int
    trust: int
    tag: int
    callback: Address
    start: int
    timeref: int
    scheduler_ratio: int
    worker_stake: int
    """What each worker of `contribute` locks."""
    boost: bool = False
    """Whether its results are pushed: then nobody begins its tasks, and they are counted from 0."""

    @property
    def price(self) -> int:
        """What the sponsor locks for each task."""
        return self.app_price + self.dataset_price + self.pool_price

    @property
    def stake(self) -> int:
        """What the scheduler locks for each task."""
        return self.pool_price * 30 // 100

    @property
    def contribution_deadline(self) -> int:
        return self.start + 7 * self.timeref

    @property
    def final_deadline(self) -> int:
        """From here on its tasks are given up."""
        return self.contribution_deadline if self.boost else self.start + 10 * self.timeref

    @property
    def indices(self) -> range:
        """Of its tasks."""
        return range(self.size) if self.boost else range(self.first, self.first + self.size)


@dataclass
class Contribution:
    hash: Bytes32
    seal: Bytes32
    weight: int
    """Floor of the base-2 logarithm of the worker's weight."""
    status: int = CONTRIBUTED


@dataclass
class Task:
    """A task that was initialised; or of a boost deal, one that ended."""

    deal: Deal
    status: int = ACTIVE
    contributions: dict[Address, Contribution] = field(default_factory=dict)
    groups: Counter[Bytes32] = field(default_factory=Counter)
    """Result hash -> weight of those who agree on it."""
    total: int = 1
    consensus: Bytes32 = ZERO32
    winners: int = 0
    reveals: int = 0
    reveal_deadline: int = 0
    digest: Bytes32 = ZERO32

    batched: bool = False
    """Whether it ended in a batch: then its money is told by its deal."""

    @property
    def ended(self) -> bool:
        return self.status in (COMPLETED, FAILED)


# ---- By the rules ------------------------------------------------------------------------------------------


class Books:
    """What the rules make of the calls that were accepted. Every method raises Refuse and changes nothing,
    or changes what the hub must have changed."""

    def __init__(self, hub: Address, owner: Address, *, capped: bool = False, delayed: bool = False) -> None:
        """`capped`, `delayed`: whether the deployment chose that the kitty pays a task at most its stake, and
        that some of the owner's decisions wait."""
        self.hub, self.owner, self.capped, self.delayed = hub, owner, capped, delayed
        self.tokens: Counter[Address] = Counter()
        """Base tokens of everyone, the hub too."""
        self.stakes: Counter[Address] = Counter()
        self.allowances: Counter[tuple[Address, Address]] = Counter()
        self.supply = 0
        self.kitty = 0
        self.broker = ZERO
        self.waiting: dict[str, tuple[int, Callable[[], None]]] = {}
        """Function of the owner -> from when on its last call may be applied, and what it does."""
        self.imported: set[Address] = set()
        """Workers whose score of an older hub was imported."""
        self.timerefs: list[int] = []
        self.assets: dict[Address, Asset] = {}
        self.scores: Counter[Address] = Counter()
        self.used: Counter[Bytes32] = Counter()
        """Order hash -> volume that was sold or closed."""
        self.volumes: dict[Bytes32, int] = {}
        """Order hash -> its volume, of every order that was ever used."""
        self.closed: set[Bytes32] = set()
        self.presigned: dict[Bytes32, Address] = {}
        self.deals: dict[Bytes32, Deal] = {}
        self.sold: dict[Bytes32, list[Bytes32]] = defaultdict(list)
        """Order hash -> the deals that were made of it."""
        self.tasks: dict[Bytes32, Task] = {}
        self.open: Counter[Bytes32] = Counter()
        """Deal -> its tasks that have not ended, initialised or not."""
        self.settled: dict[Bytes32, Counter[Address]] = {}
        """Task that ended -> what everyone won or lost by it; the kitty is one of them. Of those that ended
        in batches, a deal's together, under its id."""

    def locked(self) -> Counter[Address]:
        """What everyone has locked: the price and the scheduler's stake of each task that has not ended, the
        stakes of those who contributed to it, and the kitty."""
        locked = Counter({KITTY: self.kitty})
        for dealid, tasks in self.open.items():
            deal = self.deals[dealid]
            locked[deal.sponsor] += deal.price * tasks
            locked[deal.scheduler] += deal.stake * tasks
        for task in self.tasks.values():
            if not task.ended:
                for worker in task.contributions:
                    locked[worker] += task.deal.worker_stake
        return locked

    # ---- Escrow

    def deposit(self, source: Address, amounts: Iterable[int], targets: Iterable[Address]) -> None:
        pairs = list(zip(amounts, targets, strict=True))
        total = sum(amount for amount, _ in pairs)
        demand(self.tokens[source] >= total, "base tokens")
        demand(all(target != ZERO for _, target in pairs), "nobody's account")
        self._move(source, self.hub, total)
        for amount, target in pairs:
            self.stakes[target] += amount
        self.supply += total

    def withdraw(self, sender: Address, amount: int, target: Address) -> None:
        demand(self.stakes[sender] >= amount, "stake")
        demand(target != ZERO, "the base token is not burnt")
        self.stakes[sender] -= amount
        self.supply -= amount
        self._move(self.hub, target, amount)

    def gift(self, sender: Address, amount: int) -> None:
        """Base tokens sent to the hub without a deposit."""
        demand(self.tokens[sender] >= amount, "base tokens")
        self._move(sender, self.hub, amount)

    def recover(self, sender: Address) -> None:
        demand(sender == self.owner, "owner")
        self.stakes[self.owner] += self.gifts
        self.supply += self.gifts

    @property
    def gifts(self) -> int:
        """Base tokens that the hub holds and nobody deposited."""
        return self.tokens[self.hub] - self.supply

    def _move(self, source: Address, to: Address, amount: int) -> None:
        self.tokens[source] -= amount
        self.tokens[to] += amount

    # ---- Staked tokens as an ERC-20

    def transfer(self, source: Address, to: Address, amount: int, spender: Address | None = None) -> None:
        demand(to != ZERO, "nobody's account")
        demand(self.stakes[source] >= amount, "stake")
        if spender is not None:
            demand(self.allowances[source, spender] >= amount, "allowance")
            self.allowances[source, spender] -= amount
        self.stakes[source] -= amount
        self.stakes[to] += amount

    def approve(self, sender: Address, spender: Address, amount: int) -> None:
        demand(0 <= amount < 2**256, "a number")
        self.allowances[sender, spender] = amount

    # ---- Assets and settings

    def sell(self, sender: Address, asset: Address, to: Address) -> None:
        demand(self.assets[asset].owner == sender and to != ZERO, "owner")
        self.assets[asset].owner = to

    def change_policy(self, sender: Address, pool: Address, stake_ratio: int, scheduler_ratio: int) -> None:
        demand(self.assets[pool].owner == sender and scheduler_ratio <= 100, "owner, percent")
        self.assets[pool].stake_ratio, self.assets[pool].scheduler_ratio = stake_ratio, scheduler_ratio

    def set_broker(self, sender: Address, broker: Address, now: int) -> None:
        def change() -> None:
            self.broker = broker

        self.decide(sender, "setTeeBroker", change, now)

    def decide(self, sender: Address, function: str, change: Callable[[], None], now: int) -> None:
        """A decision of the owner that waits, if the deployment chose so, until all deals of now can end."""
        demand(sender == self.owner, "owner")
        if self.delayed:
            self.waiting[function] = (now + 10 * max(self.timerefs), change)
        else:
            change()

    def apply(self, function: str, now: int) -> None:
        demand(function in self.waiting, "nothing waits")
        effective, change = self.waiting[function]
        demand(effective <= now, "too early")
        del self.waiting[function]
        change()

    def own(self, sender: Address, owner: Address) -> None:
        demand(sender == self.owner, "owner")
        self.owner = owner

    def import_score(self, worker: Address, score: int) -> None:
        demand(worker not in self.imported, "once")
        self.imported.add(worker)
        self.scores[worker] = max(self.scores[worker], score)

    # ---- Orders

    def manage(
        self, sender: Address, owner: Address, signer: Address | None, sold: Sold, close: bool
    ) -> None:
        demand(owner in (sender, signer), "sender or signature")
        self.volumes[sold.hash] = sold.order.volume
        if close:
            self.used[sold.hash] = sold.order.volume
            self.closed.add(sold.hash)
        else:
            self.presigned[sold.hash] = owner

    def left(self, *orders: Sold) -> int:
        """Tasks that these orders have left together."""
        return min(int(sold.order.volume) - self.used[sold.hash] for sold in orders)

    def match(
        self,
        sponsor: Address,
        app: Sold,
        dataset: Sold | None,
        pool: Sold,
        request: Sold,
        now: int,
        boost: bool = False,
    ) -> Deal:
        """A deal of these orders, paid by the sponsor."""
        a: AppOrder = app.order
        p: WorkerpoolOrder = pool.order
        r: RequestOrder = request.order
        d: DatasetOrder = dataset.order if dataset else DatasetOrder(dataset=ZERO)
        orders = [app, pool, request] + ([dataset] if dataset else [])
        # Boost asks for the dataset's frameworks too, and does not look at what trust the pool offers.
        tag = _bits(a.tag) | (_bits(d.tag) & ~(0 if boost else FRAMEWORKS)) | _bits(r.tag)
        demand(r.category == p.category and r.category < len(self.timerefs), "category")
        demand(r.trust <= (1 if boost else p.trust), "trust")
        demand(r.appmaxprice >= a.appprice, "app price")
        demand(r.datasetmaxprice >= d.datasetprice, "dataset price")
        demand(r.workerpoolmaxprice >= p.workerpoolprice, "pool price")
        demand(tag & ~_bits(p.tag) == 0 and (tag ^ _bits(a.tag)) & TEE == 0, "tags")
        demand(r.app == a.app and r.dataset == d.dataset, "assets")
        for restriction, account in (
            (r.workerpool, p.workerpool),
            (a.datasetrestrict, d.dataset),
            (a.workerpoolrestrict, p.workerpool),
            (a.requesterrestrict, r.requester),
            (d.apprestrict, a.app),
            (d.workerpoolrestrict, p.workerpool),
            (d.requesterrestrict, r.requester),
            (p.apprestrict, a.app),
            (p.datasetrestrict, d.dataset),
            (p.requesterrestrict, r.requester),
        ):
            demand(restriction in (ZERO, account), "restriction")
        for sold, owner in (
            (app, self.assets[a.app].owner),
            *([(dataset, self.assets[d.dataset].owner)] if dataset else []),
            (pool, self.assets[p.workerpool].owner),
            (request, r.requester),
        ):
            demand(owner in (sold.signer, self.presigned.get(sold.hash)), "signature")
        size = self.left(*orders)
        demand(size > 0, "volume")
        asset = self.assets[p.workerpool]
        deal = Deal(
            dealid=keccak(request.hash + self.used[request.hash].to_bytes(32, "big")),
            request=request.hash,
            sponsor=sponsor,
            requester=r.requester,
            app=a.app,
            app_owner=self.assets[a.app].owner,
            app_price=a.appprice,
            dataset=d.dataset,
            dataset_owner=self.assets[d.dataset].owner if dataset else ZERO,
            dataset_price=d.datasetprice if dataset else 0,
            pool=p.workerpool,
            scheduler=asset.owner,
            pool_price=p.workerpoolprice,
            first=self.used[request.hash],
            size=size,
            trust=max(r.trust, 1),
            tag=tag,
            callback=r.callback,
            start=now,
            timeref=self.timerefs[r.category],
            scheduler_ratio=asset.scheduler_ratio,
            worker_stake=p.workerpoolprice * asset.stake_ratio // 100,
            boost=boost,
        )
        locks = Counter({sponsor: deal.price * size})
        locks[deal.scheduler] += deal.stake * size
        demand(all(self.stakes[account] >= amount for account, amount in locks.items()), "stake")
        self.stakes.subtract(locks)
        for sold in orders:
            self.used[sold.hash] += size
            self.volumes[sold.hash] = sold.order.volume
            self.sold[sold.hash].append(deal.dealid)
        self.deals[deal.dealid] = deal
        self.open[deal.dealid] = size
        return deal

    def deposit_and_match(
        self,
        source: Address,
        amount: int,
        app: Sold,
        dataset: Sold | None,
        pool: Sold,
        request: Sold,
        now: int,
    ) -> None:
        """Both or nothing; for who asks for the match only."""
        demand(request.order.requester == source, "requester")
        self.deposit(source, [amount], [source])
        try:
            self.match(source, app, dataset, pool, request, now)
        except Refuse:
            self.withdraw(source, amount, source)
            raise

    # ---- Tasks

    def initialize(self, pairs: Sequence[tuple[Bytes32, int]]) -> None:
        """Begin tasks, each given by deal and index: all or none."""
        for dealid, index in pairs:
            if dealid not in self.deals:
                raise Refuse("no such deal")
            deal = self.deals[dealid]
            demand(not deal.boost and index in deal.indices, "of this deal")
        taskids = [task_id(*pair) for pair in pairs]
        demand(len(set(taskids)) == len(taskids) and not set(taskids) & set(self.tasks), "once")
        for taskid, (dealid, _) in zip(taskids, pairs, strict=True):
            self.tasks[taskid] = Task(self.deals[dealid])

    def _authorised(self, deal: Deal, enclave: Address, authoriser: Address, attested: bool) -> None:
        demand(enclave != ZERO or deal.tag & TEE == 0, "enclave")
        brokered = enclave != ZERO and self.broker != ZERO
        demand(authoriser == (self.broker if brokered else deal.scheduler), "authorisation")
        demand(enclave == ZERO or attested, "enclave's signature")

    def contribute(
        self,
        worker: Address,
        taskid: Bytes32,
        given: tuple[Bytes32, Bytes32],
        enclave: Address,
        authoriser: Address,
        attested: bool,
        now: int,
    ) -> None:
        """`given` is hash and seal, `authoriser` who signed the authorisation, `attested` whether the enclave
        signed the result."""
        task = self._task(taskid, ACTIVE)
        deal = task.deal
        demand(now < deal.contribution_deadline, "contribution deadline")
        demand(worker not in task.contributions, "one contribution each")
        self._authorised(deal, enclave, authoriser, attested)
        demand(self.stakes[worker] >= deal.worker_stake, "stake")
        self.stakes[worker] -= deal.worker_stake
        hashed, seal = given
        weight = max(self.scores[worker] // 3, 3) - 1
        task.contributions[worker] = Contribution(hashed, seal, weight.bit_length() - 1)
        heavier = max(task.groups[hashed], 1) * weight
        task.total += heavier - task.groups[hashed]
        task.groups[hashed] = heavier
        if heavier * deal.trust > task.total * (deal.trust - 1):
            task.status, task.consensus = REVEALING, hashed
            task.reveal_deadline = now + 2 * deal.timeref
            task.winners = sum(
                c.hash == hashed and c.status == CONTRIBUTED for c in task.contributions.values()
            )

    def reveal(self, worker: Address, taskid: Bytes32, digest: Bytes32, now: int) -> None:
        task = self._task(taskid, REVEALING)
        demand(now < task.reveal_deadline, "reveal deadline")
        if worker not in task.contributions:
            raise Refuse("no contribution")
        found = task.contributions[worker]
        demand(found.status == CONTRIBUTED, "once")
        demand(found.hash == task.consensus == result_hash(taskid, digest), "hash")
        demand(found.seal == result_seal(worker, taskid, digest), "seal")
        found.status = PROVED
        task.reveals += 1
        task.digest = digest

    def reopen(self, sender: Address, taskid: Bytes32, now: int) -> None:
        task = self._task(taskid, REVEALING)
        demand(sender == task.deal.scheduler, "scheduler")
        demand(task.reveal_deadline <= now < task.deal.final_deadline, "deadlines")
        demand(task.reveals == 0, "nobody revealed")
        for contribution in task.contributions.values():
            if contribution.hash == task.consensus:
                contribution.status = REJECTED
        task.total -= task.groups.pop(task.consensus)
        task.status, task.consensus, task.winners, task.reveal_deadline = ACTIVE, ZERO32, 0, 0

    def finalize(self, sender: Address, taskid: Bytes32, callback_data: bytes, now: int) -> None:
        task = self._task(taskid, REVEALING)
        deal = task.deal
        demand(sender == deal.scheduler, "scheduler")
        demand(now < deal.final_deadline, "final deadline")
        late = task.reveals > 0 and task.reveal_deadline <= now
        demand(task.reveals == task.winners or late, "revealed")
        self._callback_data(deal, callback_data, task.digest)
        paid = self._pay_resources(deal)
        losers = [w for w, c in task.contributions.items() if c.status != PROVED]
        provers = {w: c.weight for w, c in task.contributions.items() if c.status == PROVED}
        rest = deal.pool_price + deal.worker_stake * len(losers)
        pot = rest * (100 - deal.scheduler_ratio) // 100
        for worker in losers:
            paid[worker] -= deal.worker_stake
            self.scores[worker] = self.scores[worker] * 2 // 3
        for worker, weight in provers.items():
            reward = pot * weight // sum(provers.values())
            paid[worker] += reward
            rest -= reward
            self.stakes[worker] += deal.worker_stake
            if len(task.contributions) > 1:
                self.scores[worker] += 1
        paid[deal.scheduler] += rest
        # What losers lose was locked, and is not taken from their stake again.
        self._end(taskid, task, paid, dict.fromkeys(losers, deal.worker_stake))

    def contribute_and_finalize(
        self,
        worker: Address,
        taskid: Bytes32,
        digest: Bytes32,
        callback_data: bytes,
        enclave: Address,
        authoriser: Address,
        attested: bool,
        now: int,
    ) -> None:
        task = self._task(taskid, ACTIVE)
        deal = task.deal
        demand(now < deal.contribution_deadline, "contribution deadline")
        demand(not task.contributions and deal.trust == 1, "alone")
        self._callback_data(deal, callback_data, digest)
        self._authorised(deal, enclave, authoriser, attested)
        paid = self._pay_resources(deal)
        self._pay_one(deal, worker, paid)
        self._prove(task, taskid, worker, digest, now)
        self._end(taskid, task, paid, {})

    def claim(self, taskids: Sequence[Bytes32], now: int) -> None:
        """Give up tasks that were begun: all or none."""
        tasks = [self._task(taskid, ACTIVE, REVEALING) for taskid in taskids]
        demand(len(set(taskids)) == len(taskids), "once")
        demand(all(task.deal.final_deadline <= now for task in tasks), "final deadline")
        for taskid, task in zip(taskids, tasks, strict=True):
            self._fail(taskid, task)

    def initialize_and_claim(self, pairs: Sequence[tuple[Bytes32, int]], now: int) -> None:
        """Give up tasks that nobody began: all or none."""
        known = [self.deals[dealid] for dealid, _ in pairs if dealid in self.deals]
        demand(all(deal.final_deadline <= now for deal in known), "final deadline")
        self.initialize(pairs)
        self.claim([task_id(*pair) for pair in pairs], now)

    # ---- Boost

    def push(
        self,
        worker: Address,
        dealid: Bytes32,
        index: int,
        callback_data: bytes,
        enclave: Address,
        authoriser: Address,
        attested: bool,
        now: int,
    ) -> None:
        task = self._boosted(dealid, index)
        deal = task.deal
        demand(now < deal.contribution_deadline, "deadline")
        self._authorised(deal, enclave, authoriser, attested)
        demand(deal.callback == ZERO or len(callback_data) > 0, "callback data")
        paid = self._pay_resources(deal)
        self._pay_one(deal, worker, paid)
        self._end(task_id(dealid, index), task, paid, {})

    def claim_boost(self, dealid: Bytes32, index: int, now: int) -> None:
        task = self._boosted(dealid, index)
        demand(task.deal.final_deadline <= now, "deadline")
        self._fail(task_id(dealid, index), task)

    def _boosted(self, dealid: Bytes32, index: int) -> Task:
        deal = self.deals.get(dealid)
        if deal is None or not deal.boost or index not in deal.indices:
            raise Refuse("of a boost deal")
        demand(task_id(dealid, index) not in self.tasks, "once")
        return Task(deal)

    # ---- Batches

    def settle_batch(
        self,
        sender: Address,
        dealid: Bytes32,
        chosen: Mapping[int, tuple[Address, Bytes32]],
        authoriser: Address,
        attested: bool,
        now: int,
    ) -> None:
        """`chosen`: index -> worker and digest, of the tasks to be settled; they were authorised with others
        by `authoriser`, and each enclave signed if `attested`."""
        if dealid not in self.deals:
            raise Refuse("no such deal")
        deal = self.deals[dealid]
        demand(
            not deal.boost and deal.size > 1 and deal.tag & (TEE | BATCH) == TEE | BATCH, "a bag that asks"
        )
        demand(deal.trust == 1 and deal.callback == ZERO, "trust, callback")
        demand(sender == deal.scheduler, "scheduler")
        demand(now < deal.contribution_deadline, "contribution deadline")
        demand(self.broker != ZERO and authoriser == self.broker and attested, "signatures")
        demand(set(chosen) <= set(deal.indices), "of this deal")
        waiting = {}
        for index in sorted(chosen):
            task = self.tasks.get(task_id(dealid, index), Task(deal))
            if task.status == ACTIVE and not task.contributions:
                waiting[index] = task
        demand(bool(waiting), "one that has not ended")
        together = self.settled.pop(dealid, Counter())
        for index, task in waiting.items():
            (worker, digest), taskid = chosen[index], task_id(dealid, index)
            paid = self._pay_resources(deal)
            self._pay_one(deal, worker, paid)
            self._prove(task, taskid, worker, digest, now)
            task.batched = True
            self._end(taskid, task, paid, {})
            together.update(self.settled.pop(taskid))
        self.settled[dealid] = together

    # ---- Ends

    def _task(self, taskid: Bytes32, *statuses: int) -> Task:
        if taskid not in self.tasks:
            raise Refuse("no such task")
        demand(self.tasks[taskid].status in statuses, "status")
        return self.tasks[taskid]

    @staticmethod
    def _callback_data(deal: Deal, data: bytes, digest: Bytes32) -> None:
        demand((deal.callback == ZERO and not data) or keccak(data) == digest, "callback data")

    def _pay_resources(self, deal: Deal) -> Counter[Address]:
        """What a success begins with: who wins and loses how much, but for the pool's price."""
        paid = Counter({deal.sponsor: -deal.price})
        paid[deal.app_owner] += deal.app_price
        if deal.dataset_price:
            paid[deal.dataset_owner] += deal.dataset_price
        share = min(max(self.kitty * 10 // 100, 10**9), self.kitty)
        if self.capped:
            share = min(share, deal.stake)
        paid[KITTY] -= share
        paid[deal.scheduler] += share
        return paid

    @staticmethod
    def _prove(task: Task, taskid: Bytes32, worker: Address, digest: Bytes32, now: int) -> None:
        """Its only contribution is consensus, and revealed at once."""
        task.consensus = result_hash(taskid, digest)
        task.reveals = task.winners = 1
        task.reveal_deadline, task.digest = now + 2 * task.deal.timeref, digest
        seal = result_seal(worker, taskid, digest)
        task.contributions[worker] = Contribution(task.consensus, seal, 0, PROVED)

    @staticmethod
    def _pay_one(deal: Deal, worker: Address, paid: Counter[Address]) -> None:
        """The pool's price, to its only worker and the scheduler."""
        reward = deal.pool_price * (100 - deal.scheduler_ratio) // 100
        paid[worker] += reward
        paid[deal.scheduler] += deal.pool_price - reward

    def _fail(self, taskid: Bytes32, task: Task) -> None:
        """The price goes back to the sponsor, the workers' stakes to them, the scheduler's into the kitty."""
        deal = task.deal
        self.stakes[deal.sponsor] += deal.price
        for worker in task.contributions:
            self.stakes[worker] += deal.worker_stake
        self.kitty += deal.stake
        self.settled[taskid] = Counter({KITTY: deal.stake})
        self.settled[taskid][deal.scheduler] -= deal.stake
        self._close(taskid, task, FAILED)

    def _end(self, taskid: Bytes32, task: Task, paid: Counter[Address], lost: dict[Address, int]) -> None:
        """Complete a task by which everyone won or lost this. What was locked was in no stake: the price, the
        scheduler's, the kitty's, and what workers lost."""
        deal = task.deal
        self.settled[taskid] = paid
        self.kitty += paid[KITTY]
        for account, amount in paid.items():
            if account != KITTY:
                self.stakes[account] += amount
        self.stakes[deal.sponsor] += deal.price
        self.stakes[deal.scheduler] += deal.stake
        for worker, amount in lost.items():
            self.stakes[worker] += amount
        self._close(taskid, task, COMPLETED)

    def _close(self, taskid: Bytes32, task: Task, status: int) -> None:
        task.status = status
        self.tasks[taskid] = task
        self.open[task.deal.dealid] -= 1
        if not self.open[task.deal.dealid]:
            del self.open[task.deal.dealid]


# ---- By the events -----------------------------------------------------------------------------------------


class Chronicle:
    """What the hub's events add up to, for anyone who reads nothing else."""

    def __init__(self, hub: Address) -> None:
        self.hub = hub
        self.stakes: Counter[Address] = Counter()
        """Of everyone but the hub, whose transfers are those of locks, unlocks and rewards too. What the zero
        address lacks was minted."""
        self.locked: Counter[Address] = Counter()
        self.scores: Counter[Address] = Counter()
        self.allowances: Counter[tuple[Address, Address]] = Counter()
        self.settled: dict[Bytes32, Counter[Address]] = defaultdict(Counter)
        """Task -> what everyone won or lost by it (Reward, Seize)."""
        self.endings: Counter[Bytes32] = Counter()
        """Task -> how often it was finalised, pushed or claimed."""
        self.sold: Counter[Bytes32] = Counter()
        """Order hash -> sum of the volumes of its matches."""
        self.closed: set[Bytes32] = set()

    def read(self, events: Iterable[Sequence[Any]]) -> set[Address]:
        """Enter a transaction's events, (name, arguments …) each; returns whose balances they move."""
        moved: set[Address] = set()
        for name, *values in events:
            match name, values:
                case "Transfer", (source, to, amount):
                    self.stakes[source] -= amount
                    self.stakes[to] += amount
                    moved |= {source, to}
                case "Approval", (owner, spender, amount):
                    self.allowances[owner, spender] = amount
                case "Lock", (account, amount):
                    self.locked[account] += amount
                    moved.add(account)
                case "Unlock", (account, amount):
                    self.locked[account] -= amount
                case "Seize", (account, amount, ref):
                    self.locked[account] -= amount
                    self.settled[ref][account] -= amount
                    moved.add(account)
                case "Reward", (account, amount, ref):
                    self.settled[ref][account] += amount
                case "AccurateContribution", (worker, _):
                    self.scores[worker] += 1
                case "FaultyContribution", (worker, _):
                    self.scores[worker] = self.scores[worker] * 2 // 3
                case ("TaskFinalize", (taskid, _)) | ("TaskClaimed", (taskid,)):
                    self.endings[taskid] += 1
                case "ResultPushedBoost", (dealid, index, _):
                    self.endings[task_id(dealid, index)] += 1
                case "OrdersMatched", (_, *hashes, volume):
                    for order in hashes:
                        self.sold[order] += volume
                case (
                    "ClosedAppOrder" | "ClosedDatasetOrder" | "ClosedWorkerpoolOrder" | "ClosedRequestOrder",
                    (order,),
                ):
                    self.closed.add(order)
        return moved - {ZERO, self.hub}


def _bits(tag: bytes) -> int:
    return int.from_bytes(tag, "big")
