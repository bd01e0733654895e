"""A hub amid imps: contracts that call back from wherever the hub calls them (imps.py)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from eth_abi.abi import encode

from sealdeal.model.batches import Batch, Leaf, Proof
from sealdeal.model.deals import (
    KITTY,
    authorisation_message,
    enclave_message,
    result_hash,
    result_seal,
    task_id,
)
from sealdeal.model.orders import BATCH, NO_DATASET, TEE, OrderOperation, Signed, tag
from sealdeal.model.types import RLC, ZERO, Address, Bytes32, keccak
from tests.contracts.actors import compiled
from tests.contracts.chain import Contract, Refused, text
from tests.contracts.imps import HOOKED, IMP, WITNESS, abi
from tests.contracts.revm import Revm
from tests.contracts.world import Options, World, key

APP_KIND = 1 << 184
"""In what a registry tells of an entry."""
ANY = b"\1" * 65
"""A signature that an imp accepts, as every other."""
DIGEST = keccak(b"told")
REFUSED = {"sync", "configure", "applyChange"}
"""What the imp cannot do: it is no registry, the hub is configured, nothing waits."""
IDLE = {"updateDomainSeparator"}
"""Functions that write nothing, whoever calls them."""
GAS = 200_000_000
SLOT = re.compile(r"\b(\d+): StorageSlot \{ previous_or_original_value: \d+, present_value: (\d+) \}")
ACCOUNT = re.compile(r"(0x[0-9a-fA-F]{40}): Account \{")


class Still(Revm):
    """A chain whose clock stands, unless it is moved: two calls in two transactions are as late as in one."""

    def send(self, to: str | None, data: bytes, sender: str, gas: int = GAS) -> dict[str, Any]:
        self._timestamp -= 1
        return super().send(to, data, sender, GAS)

    def state(self, *without: Address) -> dict[str, Any]:
        """All storage and code, but of these accounts. Read from what pyrevm prints of its journal."""
        parts = ACCOUNT.split(self._evm.journal_str)
        state: dict[str, Any] = {}
        for account, found in zip(parts[1::2], parts[2::2], strict=True):
            if account.lower() in {other.lower() for other in without}:
                continue
            storage = found.partition("storage: {")[2]
            slots = SLOT.findall(storage)
            held = {slot: value for slot, value in slots if value != "0"}
            code_hash = re.search(r"code_hash: (\w+)", found)
            assert code_hash
            if held or self._evm.get_code(account):
                state[account] = (code_hash[1], held)
        return state


@dataclass(frozen=True)
class Call:
    contract: Contract
    function: str
    arguments: tuple[Any, ...]
    sender: Address

    @property
    def data(self) -> bytes:
        return self.contract.encode(self.function, *self.arguments)


@dataclass(frozen=True)
class Outer:
    """A call in which the hub asks or tells an imp something."""

    call: Call
    before: tuple[Call, ...] = ()
    """What makes it so."""
    refusal: bytes | None = None
    """What it is refused with, if it is refused anyway."""


class Scene:
    """A hub whose base token has hooks. An imp owns the hub, an app, a dataset and a workerpool, and there
    are tasks in every state, so that every call has one that it could do something with."""

    def __init__(self) -> None:
        self.chain = Still()
        whose = encode(["address"], [key("requester").address])
        self.imp = self.chain.deploy(compiled(IMP) + whose, key("an imp's maker").address)
        self.world = world = World.start(self.chain, options=Options(v3hub=self.imp))
        owner = world.owner.address
        self.hub, self.token = world.hub, Contract(self.chain, abi(HOOKED), world.token.address, owner)
        self.requester, self.worker = world.who("requester"), world.who("worker")
        self.witness = Contract(self.chain, abi(WITNESS), self.chain.deploy(compiled(WITNESS), owner), owner)
        self.puppet = Contract(self.chain, abi(IMP), self.imp, owner)
        for holder in (self.imp, self.requester):
            self.token.transfer(holder, 1000 * RLC)
        self.token.approve(self.hub.address, 2**255, sender=owner)
        self.token.approve(self.hub.address, 2**255, sender=self.requester)
        self.hub.depositFor(10_000 * RLC, self.imp)
        self.as_imp(self.token, "approve", self.hub.address, 2**255)
        self.hub.approve(self.imp, 100 * RLC, sender=self.requester)
        self.app = self._made(world.apps, "createApp", self.imp, "imp's", "DOCKER", b"", b"\1" * 32, b"")
        self.dataset = self._made(world.datasets, "createDataset", self.imp, "imp's", b"", b"\2" * 32)
        self.pool = self._made(world.workerpools, "createWorkerpool", self.imp, "imp's")
        self.token.transfer(self.hub.address, 2 * RLC)
        self.hub.setCallbackGas(10_000_000)
        self.hub.setTeeBroker(self.imp)
        self.hub.transferOwnership(self.imp)
        self._begin_tasks()

    def _made(self, registry: Contract, function: str, *arguments: Any) -> Address:
        made: Address = registry.call(function, *arguments)
        registry.send(function, *arguments)
        return made

    def _begin_tasks(self) -> None:
        start = self.chain.now()
        late = self.deal(category=0, volume=5)
        self.claimable = [self.world.first_task(late, index) for index in range(3)]
        self.unbegun = (late, 3)
        self.boost_late = self.deal("matchOrdersBoost", category=0, volume=2)
        self.silent = self.world.first_task(self.deal(category=1))
        self.contribute(self.silent, self.worker)
        self.chain.at(start + 3100)
        self.hub.claim(self.claimable[2])  # feeds the kitty
        fresh = self.deal(volume=9)
        self.fresh = [self.world.first_task(fresh, index) for index in range(6)]
        self.later = fresh
        self.boosted = self.deal("matchOrdersBoost", volume=3)
        self.boost_told = self.deal("matchOrdersBoost", volume=3, callback=self.imp)
        asks = tag(TEE | BATCH)
        self.batched = self.deal(volume=6, app={"tag": tag(TEE)}, pool={"tag": asks}, tag=asks)
        told = self.deal(volume=4, callback=self.imp)
        self.told = [self.world.first_task(told, index) for index in range(3)]
        for taskid, worker in (
            (self.fresh[2], self.imp),
            (self.fresh[3], self.worker),
            (self.told[0], self.worker),
        ):
            self.contribute(taskid, worker)
            if worker != self.imp:
                self.hub.reveal(taskid, DIGEST, sender=worker)

    # ---- What is sent

    def as_imp(self, contract: Contract, function: str, *arguments: Any) -> None:
        self.puppet.execute(contract.address, contract.encode(function, *arguments))

    def orders(
        self,
        *,
        category: int = 2,
        volume: int = 1,
        tee: bool = False,
        app: dict[str, Any] | None = None,
        data: dict[str, Any] | None = None,
        pool: dict[str, Any] | None = None,
        **request: Any,
    ) -> tuple[Any, ...]:
        """Four orders for the imp's assets, signed by imps, as the hub takes them."""
        world, bits = self.world, tag(int(tee))
        common = {"volume": volume, "tag": bits}
        a = world.app_order(**{"app": self.app, **common, **(app or {})})
        p = world.pool_order(**{"workerpool": self.pool, "category": category, **common, **(pool or {})})
        r = world.request_order(
            **{
                "app": a.app,
                "requester": self.imp,
                "category": category,
                "dataset": self.dataset if data is not None else ZERO,
                **common,
                **request,
            }
        )
        d = NO_DATASET
        if data is not None:
            d = Signed(world.dataset_order(**{"dataset": self.dataset, "volume": volume, **data}), ANY)
        sign = ANY if r.requester == self.imp else world.signed(r).sign
        return tuple(order.as_tuple() for order in (Signed(a, ANY), d, Signed(p, ANY), Signed(r, sign)))

    def deal(self, function: str = "matchOrders", **options: Any) -> Bytes32:
        done = self.hub.send(function, *self.orders(**options))
        dealid: Bytes32 = next(event[1] for event in done.events if event[0] == "OrdersMatched")
        return dealid

    def effort(self, taskid: Bytes32, worker: Address) -> tuple[Any, ...]:
        """What `contribute` is given."""
        return taskid, result_hash(taskid, DIGEST), result_seal(worker, taskid, DIGEST), ZERO, b"", ANY

    def push(self, dealid: Bytes32, index: int) -> tuple[Any, ...]:
        """What `pushResultBoost` is given."""
        return dealid, index, b"", b"told", ANY, ZERO, b""

    def batch(self, *indices: int) -> tuple[Any, ...]:
        """What `settleBatch` is given."""
        enclave = self.world.keys["enclave"]
        batch = Batch.of(self.batched, 0, (Leaf(i, self.worker, enclave.address) for i in indices))
        proofs = {
            i: Proof(
                DIGEST, enclave.sign_message(enclave_message(self.worker, task_id(self.batched, i), DIGEST))
            )
            for i in indices
        }
        return batch.settle(0, proofs, "Qm" + "x" * 44, ANY)

    def contribute(self, taskid: Bytes32, worker: Address) -> None:
        if worker == self.imp:
            self.as_imp(self.hub, "contribute", *self.effort(taskid, worker))
        else:
            self.hub.contribute(*self.effort(taskid, worker), sender=worker)

    def of_hub(self, function: str, *arguments: Any, sender: Address | None = None) -> Call:
        return Call(self.hub, function, arguments, sender or self.requester)

    def through_imp(self, call: Call) -> Call:
        return Call(self.puppet, "execute", (call.contract.address, call.data), self.requester)

    # ---- What is called from inside

    def inner(self) -> dict[str, Call]:
        """A call of every function that changes the hub, each of which succeeds if the imp makes it by itself
        (but for REFUSED); and calls about the very tasks that outer calls are about."""
        operation = OrderOperation(Signed(self.world.app_order(app=self.app), ANY), 1).as_tuple()
        dataset = OrderOperation(Signed(self.world.dataset_order(dataset=self.dataset), ANY), 1).as_tuple()
        pool = OrderOperation(Signed(self.world.pool_order(workerpool=self.pool), ANY), 1).as_tuple()
        request = OrderOperation(Signed(self.world.request_order(requester=self.imp), ANY), 1).as_tuple()
        orders = self.orders(data={})
        told, direct = self.told[0], self.told[1]
        calls: dict[str, tuple[Any, ...]] = {
            "manageAppOrder": (operation,),
            "manageDatasetOrder": (dataset,),
            "manageWorkerpoolOrder": (pool,),
            "manageRequestOrder": (request,),
            "broadcastAppOrder": (orders[0],),
            "broadcastDatasetOrder": (orders[1],),
            "broadcastWorkerpoolOrder": (orders[2],),
            "broadcastRequestOrder": (orders[3],),
            "matchOrders": orders,
            "sponsorMatchOrders": self.orders(volume=2),
            "matchOrdersBoost": self.orders(volume=3),
            "sponsorMatchOrdersBoost": self.orders(volume=4),
            "pushResultBoost": self.push(self.boosted, 0),
            "pushResultBoost of the same": self.push(self.boost_told, 0),
            "claimBoost": (self.boost_late, 0),
            "claimBoost of the same": (self.boost_told, 0),
            "settleBatch": self.batch(0, 1),
            "settleBatch of the same": self.batch(2, 3),
            "initialize": (self.later, 6),
            "initializeArray": ([self.later] * 2, [7, 8]),
            "contribute": self.effort(self.fresh[0], self.imp),
            "contribute to the same": self.effort(direct, self.imp),
            "reveal": (self.fresh[2], DIGEST),
            "finalize": (self.fresh[3], b"", b""),
            "finalize the same": (told, b"", b"told"),
            "contributeAndFinalize": (self.fresh[1], DIGEST, b"", b"", ZERO, b"", ANY),
            "contributeAndFinalize the same": (direct, DIGEST, b"", b"told", ZERO, b"", ANY),
            "reopen": (self.silent,),
            "reopen the same": (told,),
            "claim": (self.claimable[0],),
            "claim the same": (told,),
            "claimArray": (self.claimable[:2],),
            "initializeAndClaimArray": ([self.unbegun[0]], [self.unbegun[1]]),
            "deposit": (3 * RLC,),
            "depositFor": (3 * RLC, self.requester),
            "depositForArray": ([RLC, RLC], [self.requester, self.imp]),
            "withdraw": (7 * RLC,),
            "withdrawTo": (7 * RLC, self.requester),
            "recover": (),
            "receiveApproval": (self.requester, 2 * RLC, self.token.address, b""),
            "transfer": (self.requester, 5 * RLC),
            "transferFrom": (self.requester, self.imp, 5 * RLC),
            "approve": (self.requester, 9),
            "increaseAllowance": (self.requester, 9),
            "decreaseAllowance": (self.requester, 0),
            "approveAndCall": (self.imp, 9, b""),
            "sync": (self.app, int(self.imp, 16) | 1 << 184),
            "updateEntries": ([self.app],),
            "configure": (self.imp, "", "", 9, self.imp, self.imp, self.imp, self.imp),
            "importScore": (self.worker,),
            "applyChange": (b"\0" * 4,),
            "changeRegistries": (self.imp, self.requester, self.worker),
            "setTeeBroker": (self.requester,),
            "setCallbackGas": (4_000_000,),
            "createCategory": ("new", "category", 9),
            "transferOwnership": (self.requester,),
        }
        return {
            name: Call(self.hub, name.split()[0], arguments, self.imp) for name, arguments in calls.items()
        }

    # ---- Hooks

    def telling(self, late: bool) -> tuple[Call, ...]:
        return (Call(self.token, "tell", (self.imp, late, False), self.requester),)

    def writing(self) -> dict[str, Outer]:
        """Outer calls whose hooks may write."""
        deposits = {
            "deposit": (5 * RLC,),
            "depositFor": (5 * RLC, self.imp),
            "depositForArray": ([RLC, 4 * RLC], [self.imp, self.requester]),
            "receiveApproval": (self.requester, 5 * RLC, self.token.address, b""),
            "withdraw": (5 * RLC,),
            "withdrawTo": (5 * RLC, self.imp),
        }
        direct = (self.told[1], DIGEST, b"", b"told", ZERO, b"", ANY)
        app = int(self.world.app, 16)
        safe = Call(
            self.world.apps,
            "safeTransferFrom(address,address,uint256)",
            (self.world.who("app"), self.imp, app),
            self.world.who("app"),
        )
        return {
            **{
                f"{name}, token {'moved' if late else 'not moved yet'}": Outer(
                    self.of_hub(name, *arguments), self.telling(late)
                )
                for name, arguments in deposits.items()
                for late in (False, True)
            },
            "finalize, callback": Outer(
                self.through_imp(self.of_hub("finalize", self.told[0], b"", b"told"))
            ),
            "contributeAndFinalize, callback": Outer(
                self.of_hub("contributeAndFinalize", *direct, sender=self.worker)
            ),
            "pushResultBoost, callback": Outer(
                self.of_hub("pushResultBoost", *self.push(self.boost_told, 0), sender=self.worker)
            ),
            "approveAndCall, spender": Outer(self.of_hub("approveAndCall", self.imp, 5, b"x")),
            "an entry's safe transfer, receiver": Outer(safe),
        }

    def asking(self) -> dict[str, Outer]:
        """Outer calls whose hooks are asked something, and may not write."""
        world, imp = self.world, self.imp
        outers = {
            "matchOrders, wallets": Outer(self.of_hub("matchOrders", *self.orders(data={}))),
            "matchOrdersBoost, wallets": Outer(self.of_hub("matchOrdersBoost", *self.orders(data={}))),
            "sponsorMatchOrdersBoost, wallets": Outer(
                self.of_hub("sponsorMatchOrdersBoost", *self.orders(data={}))
            ),
            "sponsorMatchOrders, wallets": Outer(self.of_hub("sponsorMatchOrders", *self.orders(data={}))),
            "settleBatch, broker": Outer(self.through_imp(self.of_hub("settleBatch", *self.batch(2, 3)))),
            "recover, token": Outer(
                self.through_imp(self.of_hub("recover")),
                (Call(self.token, "tell", (imp, False, True), self.requester),),
            ),
        }
        outers["importScore, an older hub"] = Outer(self.of_hub("importScore", self.worker))
        # The imp is an entry of a registry that is the imp, too.
        appoint = Call(self.hub, "changeRegistries", (imp, world.datasets.address, self.pool), imp)
        tell = Call(self.hub, "sync", (imp, int(imp, 16) | APP_KIND), imp)
        outers["sync, entry"] = Outer(self.through_imp(tell), (self.through_imp(appoint),))
        outers["updateEntries, entry and registry"] = Outer(
            self.of_hub("updateEntries", [imp]), (self.through_imp(appoint), self.through_imp(tell))
        )
        restrictions = {
            "app": ("datasetrestrict", "workerpoolrestrict", "requesterrestrict"),
            "data": ("apprestrict", "workerpoolrestrict", "requesterrestrict"),
            "pool": ("apprestrict", "datasetrestrict", "requesterrestrict"),
        }
        given: dict[str, dict[str, Any]] = {
            f"{part}'s {name}": {"data": {}, part: {name: imp}}
            for part, names in restrictions.items()
            for name in names
        }
        for name, options in {**given, "request's workerpool": {"workerpool": imp}}.items():
            orders = self.orders(requester=self.requester, **options)
            for function in ("matchOrders", "matchOrdersBoost"):
                outers[f"{function}, group as {name}"] = Outer(self.of_hub(function, *orders))
        # An entry that no registry knows is asked for its owner before it is refused.
        unknown: dict[str, dict[str, Any]] = {
            "20": {"app": {"app": imp}},
            "30": {"data": {"dataset": imp}, "dataset": imp},
            "40": {"pool": {"workerpool": imp}},
        }
        for number, options in unknown.items():
            outers[f"matchOrders, owner of an unknown entry, {number}"] = Outer(
                self.of_hub("matchOrders", *self.orders(**options)),
                refusal=text(f"iExecV5-matchOrders-0x{number}"),
            )
        entries: dict[str, Any] = {
            "manageAppOrder": world.app_order(app=imp),
            "manageDatasetOrder": world.dataset_order(dataset=imp),
            "manageWorkerpoolOrder": world.pool_order(workerpool=imp),
        }
        for function, order in entries.items():
            operation = OrderOperation(Signed(order, b""), 0).as_tuple()
            outers[f"{function}, owner of an entry"] = Outer(self.of_hub(function, operation))
        owned: dict[str, Any] = {
            "manageAppOrder": world.app_order(app=self.app),
            "manageDatasetOrder": world.dataset_order(dataset=self.dataset),
            "manageWorkerpoolOrder": world.pool_order(workerpool=self.pool),
            "manageRequestOrder": world.request_order(requester=imp),
        }
        for function, order in owned.items():
            operation = OrderOperation(Signed(order, b""), 1, ANY).as_tuple()
            outers[f"{function}, wallet"] = Outer(self.of_hub(function, operation))
        for role in ("scheduler", "broker", "enclave"):
            outers[f"contribute, {role}"] = self._effort_by("contribute", role)
            outers[f"contributeAndFinalize, {role}"] = self._effort_by("contributeAndFinalize", role)
            outers[f"pushResultBoost, {role}"] = self._effort_by("pushResultBoost", role)
        return outers

    def _effort_by(self, function: str, role: str) -> Outer:
        """A worker's result that an imp authorises, as scheduler or broker, or attests, as enclave."""
        world, worker = self.world, self.worker
        dealid, index = self.boosted, 1
        taskid = {
            "contribute": self.fresh[4],
            "contributeAndFinalize": self.fresh[5],
            "pushResultBoost": task_id(dealid, index),
        }[function]
        digest = keccak(b"") if function == "pushResultBoost" else DIGEST
        hashed, seal = result_hash(taskid, digest), result_seal(worker, taskid, digest)
        attested = seal if function == "pushResultBoost" else keccak(hashed + seal)
        challenge = {"scheduler": ZERO, "broker": world.who("enclave"), "enclave": self.imp}[role]
        signed = world.keys["enclave"].sign_message(attested) if role == "broker" else ANY
        authorised = ANY
        if role == "enclave":
            authorised = world.keys["broker"].sign_message(authorisation_message(worker, taskid, challenge))
        arguments = {
            "contribute": (taskid, hashed, seal, challenge, signed, authorised),
            "contributeAndFinalize": (taskid, digest, b"", b"", challenge, signed, authorised),
            "pushResultBoost": (dealid, index, b"", b"", authorised, challenge, signed),
        }[function]
        named = {"scheduler": ZERO, "broker": self.imp, "enclave": world.who("broker")}[role]
        setting = self.through_imp(Call(self.hub, "setTeeBroker", (named,), self.imp))
        return Outer(self.of_hub(function, *arguments, sender=worker), (setting,))

    # ---- Runs

    def make(self, *calls: Call) -> bytes | None:
        """Make calls one after the other; the revert data of the last, if it is refused."""
        for call in calls:
            try:
                call.contract.send(call.function, *call.arguments, sender=call.sender)
            except Refused as refused:
                assert call is calls[-1], f"{call.function} was refused: {refused.data!r}"
                return refused.data
        return None

    def state(self) -> dict[str, Any]:
        """Everything but the imp's own notes."""
        return self.chain.state(self.imp)

    def arm(self, call: Call) -> Call:
        return Call(self.puppet, "arm", (call.contract.address, call.data), self.requester)

    def views(self) -> list[bytes]:
        """Everything that one can read of whom and what the calls are about."""
        accounts = (self.imp, self.requester, self.worker, self.hub.address, KITTY, self.world.owner.address)
        batched = (task_id(self.batched, index) for index in (0, 2))
        tasks = (*self.told, *self.fresh, *self.claimable, self.silent, *batched)
        return [
            self.hub.encode("totalSupply"),
            *(self.hub.encode("viewAccount", account) for account in accounts),
            *(self.hub.encode("viewScore", account) for account in accounts),
            *(self.hub.encode("allowance", self.requester, account) for account in accounts),
            *(self.hub.encode("viewTask", taskid) for taskid in tasks),
            *(self.hub.encode("viewContribution", taskid, self.worker) for taskid in tasks),
            *(self.hub.encode("resultFor", taskid) for taskid in tasks),
            *(self.hub.encode("viewTask", task_id(self.boost_told, index)) for index in (0, 1)),
            self.hub.encode("viewDealBoost", self.boost_told),
            self.hub.encode("owner"),
            self.hub.encode("teebroker"),
        ]

    def solvent(self) -> bool:
        """Whether all stakes, locks and the kitty are together the supply, and the hub holds it."""
        accounts = {self.imp, self.hub.address, KITTY, *map(self.world.who, self.world.keys)}
        views = [self.hub.viewAccount(account) for account in accounts | {self.world.owner.address}]
        supply, held = self.hub.totalSupply(), self.token.balanceOf(self.hub.address)
        return bool(sum(view.stake + view.locked for view in views) == supply <= held)
