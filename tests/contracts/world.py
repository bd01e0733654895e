"""The hub and everything around it, ours or the official ones, on a chain of its own.

Calls are synchronous. `hub.f(...)` reads if the ABI says view, else sends a transaction and returns its
`Done`; `refusal(hub, "f", ...)` returns the revert data of a call that must fail. The same test body runs on
either suite and on either chain: `World.start(Revm(), "official")`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, field
from typing import Any, Literal, Self

from eth_abi.abi import encode

from sealdeal.model.deals import authorisation_message, result_hash, result_seal, task_id
from sealdeal.model.eip712 import Domain, hub_domain
from sealdeal.model.keys import Key
from sealdeal.model.orders import (
    NO_DATASET,
    AppOrder,
    DatasetOrder,
    RequestOrder,
    Signed,
    WorkerpoolOrder,
    tag,
)
from sealdeal.model.types import RLC, ZERO, Address, address, keccak
from tests.contracts import official
from tests.contracts.chain import (
    BUILD,
    CHAIN_ID,
    GAS,
    Abi,
    Backend,
    Chain,
    Contract,
    Done,
    Refused,
    View,
    artefact,
    code,
    kind,
    panic,
    plain,
    refusal,
    signature,
    text,
)

__all__ = [
    "BUILD",
    "CHAIN_ID",
    "GAS",
    "Backend",
    "Chain",
    "Contract",
    "Done",
    "Enclave",
    "Options",
    "Refused",
    "Suite",
    "View",
    "World",
    "artefact",
    "code",
    "created",
    "key",
    "kind",
    "panic",
    "plain",
    "refusal",
    "signature",
    "text",
]

Suite = Literal["ours", "official"]

TIMEREF = 300
"""Seconds of category 0."""
CATEGORIES = (("XS", "a", TIMEREF), ("S", "b", 1200), ("M", "c", 3600))
WORKER_RATIO, SCHEDULER_RATIO = 35, 5
"""Policies of the workerpool, those of the worked example in poco.md §9."""
APP_PRICE, DATASET_PRICE, POOL_PRICE = 3 * RLC, 5 * RLC, 40 * RLC
WEALTH = 10_000 * RLC
"""Stake of every role at the beginning."""


def key(role: str) -> Key:
    """The same key for a role in every run."""
    return Key(keccak(f"sealdeal test {role}".encode()))


# ---- Suites ------------------------------------------------------------------------------------------------


def abi_of(suite: Suite) -> Callable[[str], Abi]:
    """ABIs of a suite by name: "Hub", "App", "AppRegistry" …"""
    return official.abi if suite == "official" else lambda name: artefact(name)["abi"]


@dataclass(frozen=True)
class Options:
    """What the deployer of our hub chooses; by default what is official."""

    broker: Address = ZERO
    v3hub: Address = ZERO
    kitty_capped: bool = False
    changes_delayed: bool = False


def deploy_ours(
    chain: Backend,
    sender: str,
    token: Address,
    categories: Sequence[tuple[str, str, int]],
    options: Options = Options(),
) -> tuple[Address, Address, Address, Address]:
    """Our contracts around this base token: hub, and registries of apps, datasets, workerpools."""
    # The order of Hub.vy: the hub comes eighth after the token.
    hub = created(sender, chain.nonce(sender) + 7)
    early = "(string,string,uint256)[]"
    views = chain.deploy(code("HubViews") + encode(["address", "address"], [hub, token]), sender)
    batch, boost = (
        chain.deploy(code(piece) + encode(["address", "address", early], [hub, token, categories]), sender)
        for piece in ("HubBatch", "HubBoost")
    )
    admin = chain.deploy(code("HubAdmin") + encode(["address", "address"], [hub, token]), sender)
    apps, datasets, workerpools = (
        chain.deploy(code(f"{entry}Registry") + encode(["address", "bytes"], [hub, code(entry)]), sender)
        for entry in ("App", "Dataset", "Workerpool")
    )
    found = chain.deploy(
        code("Hub")
        + encode(
            ["address"] * 8 + [early, "address", "address", "bool", "bool"],
            [token, admin, boost, batch, views, apps, datasets, workerpools, categories, *astuple(options)],
        ),
        sender,
    )
    assert found == hub
    return hub, apps, datasets, workerpools


# ---- The network -------------------------------------------------------------------------------------------


@dataclass
class Enclave:
    """What a worker sends with a result: all four values of `contribute`, signed."""

    digest: bytes
    hash: bytes
    seal: bytes
    challenge: Address
    sign: bytes
    authorization: bytes


@dataclass
class World:
    """A deployed network, its roles rich, one app, one dataset, one workerpool."""

    chain: Backend
    suite: Suite
    owner: Key
    token: Contract
    hub: Contract
    apps: Contract
    datasets: Contract
    workerpools: Contract
    app: Address = ZERO
    dataset: Address = ZERO
    pool: Address = ZERO
    keys: dict[str, Key] = field(default_factory=dict)
    _salts: int = 0

    ROLES = ("app", "dataset", "scheduler", "requester", "sponsor", "worker", "worker2", "worker3", "worker4")

    @classmethod
    def start(
        cls,
        chain: Backend | None = None,
        suite: Suite = "ours",
        *,
        furnished: bool = True,
        options: Options = Options(),
    ) -> Self:
        """On this chain, which is the world's from now on; on an anvil of its own, if none is given.

        Unfurnished, it is freshly deployed: `furnish()` brings roles, stakes and entries. Options are ours.
        """
        chain = chain or Chain()
        try:
            world = cls._on(chain, suite, options)
            if furnished:
                world.furnish()
            return world
        except BaseException:
            chain.close()
            raise

    @classmethod
    def _on(cls, chain: Backend, suite: Suite, options: Options) -> Self:
        owner = key("owner")
        sender = owner.address
        chain.fund(sender, 10**24)
        token = chain.deploy(code("Rlc") + encode(["address"], [sender]), sender)
        hub, *registries = (
            official.deploy(chain, sender, token, CATEGORIES)
            if suite == "official"
            else deploy_ours(chain, sender, token, CATEGORIES, options)
        )
        abi = abi_of(suite)
        apps, datasets, workerpools = (
            Contract(chain, abi(f"{entry}Registry"), at, sender)
            for entry, at in zip(("App", "Dataset", "Workerpool"), registries, strict=True)
        )
        return cls(
            chain,
            suite,
            owner,
            Contract(chain, "Rlc", token, sender),
            Contract(chain, abi("Hub"), hub, sender),
            apps,
            datasets,
            workerpools,
        )

    @property
    def official_hub(self) -> Contract:
        """The hub, of either suite, by the official ABI."""
        return Contract(self.chain, official.abi("Hub"), self.hub.address, self.owner.address)

    def entry(self, kind: str, at: Address, sender: str) -> Contract:
        """The entry of this kind, "App", "Dataset" or "Workerpool", at an address."""
        return Contract(self.chain, abi_of(self.suite)(kind), at, sender)

    def furnish(self) -> None:
        """Roles with stakes, an app, a dataset and a workerpool."""
        for role in self.ROLES:
            self.keys[role] = key(role)
            self.enrich(self.keys[role].address)
        self.keys |= {role: key(role) for role in ("broker", "enclave", "stranger")}
        self.app = self.new_app("an app")
        self.dataset = self.new_dataset("a dataset")
        self.pool = self.new_pool("a pool")

    def enrich(self, account: Address, amount: int = WEALTH) -> None:
        """Give an account this much stake."""
        self.token.transfer(account, amount)
        self.token.approve(self.hub.address, amount, sender=account)
        if amount:
            self.hub.deposit(amount, sender=account)

    def who(self, role: str) -> Address:
        return self.keys[role].address

    def new_app(self, name: str, owner: str = "app") -> Address:
        arguments = (self.who(owner), name, "DOCKER", b"/ipfs/QmImage", b"\x01" * 32, b"")
        made: Address = self.apps.call("createApp", *arguments)
        self.apps.createApp(*arguments)
        return made

    def new_dataset(self, name: str, owner: str = "dataset") -> Address:
        arguments = (self.who(owner), name, b"/ipfs/QmData", b"\x02" * 32)
        made: Address = self.datasets.call("createDataset", *arguments)
        self.datasets.createDataset(*arguments)
        return made

    def new_pool(self, name: str, owner: str = "scheduler") -> Address:
        made: Address = self.workerpools.call("createWorkerpool", self.who(owner), name)
        self.workerpools.createWorkerpool(self.who(owner), name)
        self.entry("Workerpool", made, self.who(owner)).changePolicy(WORKER_RATIO, SCHEDULER_RATIO)
        return made

    @property
    def domain(self) -> Domain:
        return hub_domain(CHAIN_ID, self.hub.address)

    def account(self, role: str) -> tuple[int, int]:
        """(free, locked) nRLC of a role or an address."""
        at = role if role.startswith("0x") else self.who(role)
        found = self.hub.viewAccount(at)
        return found.stake, found.locked

    # ---- Orders

    def salt(self) -> bytes:
        """Another one at each call."""
        self._salts += 1
        return keccak(self._salts.to_bytes(32, "big"))

    def app_order(self, **changes: Any) -> AppOrder:
        given = {"app": self.app, "appprice": APP_PRICE, "salt": self.salt()}
        return AppOrder(**{**given, **changes})

    def dataset_order(self, **changes: Any) -> DatasetOrder:
        given = {"dataset": self.dataset, "datasetprice": DATASET_PRICE, "salt": self.salt()}
        return DatasetOrder(**{**given, **changes})

    def pool_order(self, **changes: Any) -> WorkerpoolOrder:
        given = {"workerpool": self.pool, "workerpoolprice": POOL_PRICE, "salt": self.salt()}
        return WorkerpoolOrder(**{**given, **changes})

    def request_order(self, **changes: Any) -> RequestOrder:
        given = {
            "app": self.app,
            "appmaxprice": APP_PRICE,
            "datasetmaxprice": DATASET_PRICE,
            "workerpoolmaxprice": POOL_PRICE,
            "requester": self.who("requester"),
            "beneficiary": self.who("requester"),
            "salt": self.salt(),
        }
        return RequestOrder(**{**given, **changes})

    def signed(self, order: Any, role: str | None = None) -> Signed[Any]:
        """By the owner, or by another role."""
        owners = {AppOrder: "app", DatasetOrder: "dataset", WorkerpoolOrder: "scheduler"}
        return Signed.by(self.keys[role or owners.get(type(order), "requester")], order, self.domain)

    def four(
        self,
        *,
        dataset: bool = False,
        tee: bool = False,
        volume: int = 1,
        app: dict[str, Any] | None = None,
        data: dict[str, Any] | None = None,
        pool: dict[str, Any] | None = None,
        request: dict[str, Any] | None = None,
    ) -> tuple[Signed[Any], ...]:
        """Four signed orders that fit, with these changes."""
        common = {"volume": volume} | ({"tag": tag(1)} if tee else {})
        return (
            self.signed(self.app_order(**{**common, **(app or {})})),
            self.signed(self.dataset_order(**{"volume": volume, **(data or {})})) if dataset else NO_DATASET,
            self.signed(self.pool_order(**{**common, **(pool or {})})),
            self.signed(
                self.request_order(
                    **{**common, "dataset": self.dataset if dataset else ZERO, **(request or {})}
                )
            ),
        )

    def match(self, orders: tuple[Signed[Any], ...], sender: str = "stranger") -> tuple[bytes, Done]:
        """The deal's id and its transaction."""
        done = self.hub.matchOrders(*(o.as_tuple() for o in orders), sender=self.who(sender))
        return next(event[1] for event in done.events if event[0] == "OrdersMatched"), done

    def deal(self, **options: Any) -> bytes:
        return self.match(self.four(**options))[0]

    def task(self, **options: Any) -> bytes:
        """A new deal's first task, initialised."""
        return self.first_task(self.deal(**options))

    def first_task(self, dealid: bytes, index: int = 0) -> bytes:
        self.hub.initialize(dealid, index)
        return task_id(dealid, index)

    # ---- Contributions

    def enclave(
        self,
        taskid: bytes,
        *,
        worker: str = "worker",
        digest: bytes = keccak(b"result"),
        tee: bool = False,
        signer: str = "scheduler",
        enclave: str = "enclave",
    ) -> Enclave:
        """A contribution of this worker, authorised by `signer`; with `tee`, from an enclave."""
        who = self.who(worker)
        challenge = self.who(enclave) if tee else ZERO
        hashed, seal = result_hash(taskid, digest), result_seal(who, taskid, digest)
        message = authorisation_message(who, taskid, challenge)
        return Enclave(
            digest,
            hashed,
            seal,
            challenge,
            self.keys[enclave].sign_message(keccak(hashed + seal)) if tee else b"",
            self.keys[signer].sign_message(message),
        )

    def contribute(self, taskid: bytes, worker: str = "worker", **options: Any) -> Done:
        made = self.enclave(taskid, worker=worker, **options)
        done: Done = self.hub.contribute(
            taskid,
            made.hash,
            made.seal,
            made.challenge,
            made.sign,
            made.authorization,
            sender=self.who(worker),
        )
        return done

    def direct(
        self, taskid: bytes, results: bytes, callback: bytes = b"", worker: str = "worker", **options: Any
    ) -> Done:
        """contributeAndFinalize."""
        done: Done = self.hub.contributeAndFinalize(
            *self.direct_arguments(taskid, results, callback, worker=worker, **options),
            sender=self.who(worker),
        )
        return done

    def direct_arguments(
        self, taskid: bytes, results: bytes, callback: bytes = b"", **options: Any
    ) -> tuple[Any, ...]:
        if callback:
            options = {"digest": keccak(callback)} | options
        made = self.enclave(taskid, **options)
        return taskid, made.digest, results, callback, made.challenge, made.sign, made.authorization


def created(deployer: str, nonce: int) -> Address:
    """Where CREATE puts the deployer's contract of this nonce (RLP of the two, small nonces only)."""
    assert 0 < nonce < 128
    return address(keccak(b"\xd6\x94" + bytes.fromhex(deployer[2:]) + bytes([nonce]))[12:])
