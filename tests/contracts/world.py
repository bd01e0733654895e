"""The hub and everything around it on an anvil of its own: shipped artefacts, real receipts, exact reverts.

Calls are synchronous. `hub.f(...)` reads if the ABI says view, else sends a transaction and returns its
`Done`; `refusal(hub, "f", ...)` returns the revert data of a call that must fail.
"""

from __future__ import annotations

import ctypes
import http.client
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Self

from eth_abi.abi import decode, encode

from sealdeal.chain.local import HARDFORK, anvil_binary, free_port
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
from sealdeal.model.types import RLC, ZERO, Address, address, hexstr, keccak

BUILD = Path(__file__).parents[2] / "contracts" / "build"
CHAIN_ID = 31337
GAS = 20_000_000
PR_SET_PDEATHSIG = 1
TIMEREF = 300
"""Seconds of category 0."""
CATEGORIES = (("XS", "a", TIMEREF), ("S", "b", 1200), ("M", "c", 3600))
WORKER_RATIO, SCHEDULER_RATIO = 35, 5
"""Policies of the workerpool, those of the worked example in poco.md §9."""
APP_PRICE, DATASET_PRICE, POOL_PRICE = 3 * RLC, 5 * RLC, 40 * RLC
WEALTH = 10_000 * RLC
"""Stake of every role at the beginning."""


@cache
def artefact(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((BUILD / f"{name}.json").read_text())
    return loaded


def code(name: str) -> bytes:
    return bytes.fromhex(artefact(name)["bytecode"][2:])


def key(role: str) -> Key:
    """The same key for a role in every run."""
    return Key(keccak(f"sealdeal test {role}".encode()))


def text(reason: str) -> bytes:
    """Revert data of `Error(string)`."""
    return bytes.fromhex("08c379a0") + encode(["string"], [reason])


def panic(number: int) -> bytes:
    """Revert data of `Panic(uint256)`."""
    return bytes.fromhex("4e487b71") + number.to_bytes(32, "big")


class Refused(Exception):
    """A call that reverted; `data` is what it said."""

    def __init__(self, message: str, data: bytes) -> None:
        super().__init__(f"{message}: {data!r}")
        self.data = data


# ---- Chain -------------------------------------------------------------------------------------------------


class Chain:
    """One anvil process and a connection to it."""

    def __init__(self) -> None:
        self.port = free_port()
        flags = f"--port {self.port} --chain-id {CHAIN_ID} --hardfork {HARDFORK} --gas-limit 1000000000 "
        flags += "--base-fee 0 --gas-price 0 --accounts 1 --order fifo --auto-impersonate --silent"
        libc = ctypes.CDLL(None)
        # On Linux the kernel ends it with us, however we end.
        self._process = subprocess.Popen(
            [str(anvil_binary()), *flags.split()],
            preexec_fn=lambda: (
                libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL) if sys.platform == "linux" else None
            ),
        )
        self._connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        deadline = time.monotonic() + 30
        while True:
            try:
                self.rpc("eth_chainId")
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise
                self._connection.close()
                time.sleep(0.02)

    def close(self) -> None:
        self._connection.close()
        self._process.kill()
        self._process.wait()

    def rpc(self, method: str, *params: Any) -> Any:
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        self._connection.request("POST", "/", body, {"Content-Type": "application/json"})
        answer = json.loads(self._connection.getresponse().read())
        if "error" in answer:
            error = answer["error"]
            data = error.get("data") or "0x"
            raise Refused(error["message"], bytes.fromhex(data[2:]) if isinstance(data, str) else b"")
        return answer["result"]

    def call(self, to: str, data: bytes, sender: str) -> bytes:
        request = {"to": to, "data": hexstr(data), "from": sender, "gas": hex(GAS)}
        return bytes.fromhex(self.rpc("eth_call", request, "latest")[2:])

    def send(self, to: str | None, data: bytes, sender: str, gas: int = GAS) -> dict[str, Any]:
        """Mine a transaction. Raises Refused with its revert data."""
        request = {"data": hexstr(data), "from": sender, "gas": hex(gas), "gasPrice": "0x0"} | (
            {"to": to} if to else {}
        )
        # Anvil's own choice of a nonce sometimes counts transactions that a revert has undone.
        request["nonce"] = self.rpc("eth_getTransactionCount", sender, "latest")
        sent = self.rpc("eth_sendTransaction", request)
        deadline = time.monotonic() + 30
        # Mined at once, but the receipt may come a moment later.
        while (receipt := self.rpc("eth_getTransactionReceipt", sent)) is None:
            if time.monotonic() > deadline:
                raise AssertionError(f"transaction {sent} was not mined")
            time.sleep(0.001)
        if receipt["status"] == "0x0":
            trace = self.rpc("debug_traceTransaction", receipt["transactionHash"], {"tracer": "callTracer"})
            raise Refused("transaction", bytes.fromhex(trace.get("output", "0x")[2:]))
        mined: dict[str, Any] = receipt
        return mined

    def deploy(self, data: bytes, sender: str) -> Address:
        return address(self.send(None, data, sender)["contractAddress"])

    def now(self) -> int:
        return int(self.rpc("eth_getBlockByNumber", "latest", False)["timestamp"], 16)

    def at(self, timestamp: int) -> None:
        """The next block, and each call until then, is at this time."""
        self.rpc("evm_setNextBlockTimestamp", timestamp)
        self.rpc("evm_mine")
        self.rpc("evm_setNextBlockTimestamp", timestamp + 1)

    @contextmanager
    def undone(self) -> Iterator[None]:
        """What happens inside never happened."""
        snapshot = self.rpc("evm_snapshot")
        try:
            yield
        finally:
            self.rpc("evm_revert", snapshot)
            # A transaction of the undone past may be waiting in the pool again, with a nonce that is ours.
            self.rpc("anvil_dropAllTransactions")


# ---- Contracts ---------------------------------------------------------------------------------------------


def kind(entry: dict[str, Any]) -> str:
    """The ABI type of an argument, tuples spelled out."""
    if not entry["type"].startswith("tuple"):
        return str(entry["type"])
    return f"({','.join(map(kind, entry['components']))}){entry['type'][5:]}"


def signature(entry: dict[str, Any]) -> str:
    return f"{entry['name']}({','.join(map(kind, entry['inputs']))})"


class View(dict[str, Any]):
    """A struct: fields as items and as attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def plain(entry: dict[str, Any], value: Any) -> Any:
    """Decoded values with checksummed addresses and named fields."""
    if entry["type"].endswith("[]"):
        inner = {**entry, "type": entry["type"][:-2]}
        return [plain(inner, item) for item in value]
    if entry["type"] == "tuple":
        return View({c["name"]: plain(c, v) for c, v in zip(entry["components"], value, strict=True)})
    return address(value) if entry["type"] == "address" else value


@dataclass(frozen=True)
class Done:
    """A mined transaction."""

    receipt: dict[str, Any]
    events: list[tuple[Any, ...]]
    """(name, arguments in ABI order …) of each, in order."""
    result: Any
    """What the call returned."""

    @property
    def gas(self) -> int:
        return int(self.receipt["gasUsed"], 16)

    @property
    def timestamp(self) -> int:
        return int(self.receipt["logs"][0]["blockTimestamp"], 16)

    @property
    def names(self) -> list[str]:
        return [event[0] for event in self.events]


class Contract:
    """A deployed contract, by its ABI. `sender` is the default one."""

    def __init__(self, chain: Chain, name: str, at: Address, sender: str) -> None:
        self.chain, self.address, self.sender = chain, at, sender
        self._functions: dict[str, dict[str, Any]] = {}
        self._events: dict[str, dict[str, Any]] = {}
        for entry in artefact(name)["abi"]:
            if entry["type"] == "function":
                self._functions[entry["name"]] = entry
            elif entry["type"] == "event":
                self._events[hexstr(keccak(signature(entry).encode()))] = entry

    def encode(self, function: str, *args: Any) -> bytes:
        entry = self._functions[function]
        return keccak(signature(entry).encode())[:4] + encode([kind(i) for i in entry["inputs"]], args)

    def decode(self, function: str, data: bytes) -> Any:
        outputs = self._functions[function]["outputs"]
        values = [plain(o, v) for o, v in zip(outputs, decode([kind(o) for o in outputs], data), strict=True)]
        return values[0] if len(values) == 1 else tuple(values) if values else None

    def call(self, function: str, *args: Any, sender: str | None = None) -> Any:
        """What the function would answer; changes nothing."""
        data = self.chain.call(self.address, self.encode(function, *args), sender or self.sender)
        return self.decode(function, data)

    def send(self, function: str, *args: Any, sender: str | None = None, gas: int = GAS) -> Done:
        receipt = self.chain.send(self.address, self.encode(function, *args), sender or self.sender, gas)
        return Done(receipt, self.events(receipt), None)

    def events(self, receipt: dict[str, Any]) -> list[tuple[Any, ...]]:
        """The contract's own events in a receipt."""
        found: list[tuple[Any, ...]] = []
        for log in receipt["logs"]:
            if address(log["address"]) == self.address:
                found.append(self._event(log))
        return found

    def _event(self, log: dict[str, Any]) -> tuple[Any, ...]:
        entry = self._events[log["topics"][0]]
        topics = iter(log["topics"][1:])
        data = decode([kind(i) for i in entry["inputs"] if not i["indexed"]], bytes.fromhex(log["data"][2:]))
        rest = iter(data)
        values = [
            decode([i["type"]], bytes.fromhex(next(topics)[2:]))[0] if i["indexed"] else next(rest)
            for i in entry["inputs"]
        ]
        return (entry["name"], *(plain(i, v) for i, v in zip(entry["inputs"], values, strict=True)))

    def __getattr__(self, function: str) -> Any:
        if function not in self.__dict__.get("_functions", {}):
            raise AttributeError(function)
        if self._functions[function]["stateMutability"] in ("view", "pure"):
            return lambda *args, **options: self.call(function, *args, **options)
        return lambda *args, **options: self.send(function, *args, **options)


def refusal(contract: Contract, function: str, *args: Any, sender: str | None = None) -> bytes:
    """Revert data of a call that must fail."""
    try:
        answer = contract.call(function, *args, sender=sender)
    except Refused as refused:
        return refused.data
    raise AssertionError(f"{function} did not revert; it answered {answer!r}")


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

    chain: Chain
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
    def start(cls) -> Self:
        chain = Chain()
        try:
            return cls._on(chain)
        except BaseException:
            chain.close()
            raise

    @classmethod
    def _on(cls, chain: Chain) -> Self:
        owner = key("owner")
        sender = owner.address
        chain.rpc("anvil_setBalance", sender, hex(10**24))

        # The order of Hub.vy: the hub comes seventh after the token.
        token = chain.deploy(code("Rlc") + encode(["address"], [sender]), sender)
        nonce = int(chain.rpc("eth_getTransactionCount", sender, "latest"), 16)
        hub = created(sender, nonce + 6)
        views, boost, admin = (
            chain.deploy(code(piece) + encode(["address", "address"], [hub, token]), sender)
            for piece in ("HubViews", "HubBoost", "HubAdmin")
        )
        registries = [
            chain.deploy(code(f"{entry}Registry") + encode(["address", "bytes"], [hub, code(entry)]), sender)
            for entry in ("App", "Dataset", "Workerpool")
        ]
        found = chain.deploy(
            code("Hub")
            + encode(
                ["address"] * 7 + ["(string,string,uint256)[]"],
                [token, admin, boost, views, *registries, CATEGORIES],
            ),
            sender,
        )
        assert found == hub
        apps, datasets, workerpools = (
            Contract(chain, f"{entry}Registry", at, sender)
            for entry, at in zip(("App", "Dataset", "Workerpool"), registries, strict=True)
        )
        world = cls(
            chain,
            owner,
            Contract(chain, "Rlc", token, sender),
            Contract(chain, "Hub", hub, sender),
            apps,
            datasets,
            workerpools,
        )
        world._furnish()
        return world

    def _furnish(self) -> None:
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
        Contract(self.chain, "Workerpool", made, self.who(owner)).changePolicy(WORKER_RATIO, SCHEDULER_RATIO)
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
