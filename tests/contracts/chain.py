"""Chains to run contracts on, and contracts on them.

`Backend` is what a chain can do for a test. `Chain` is anvil: the real thing, with receipts whose gas counts.
`Revm` (revm.py) is the same in-process, a hundred times faster.
"""

from __future__ import annotations

import ctypes
import http.client
import json
import signal
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from eth_abi.abi import decode, encode

from sealdeal.chain.local import HARDFORK, anvil_binary, free_port
from sealdeal.model.types import Address, address, hexstr, keccak

BUILD = Path(__file__).parents[2] / "contracts" / "build"
CHAIN_ID = 31337
GAS = 20_000_000
PR_SET_PDEATHSIG = 1

Abi = Sequence[dict[str, Any]]


@cache
def artefact(name: str) -> dict[str, Any]:
    """One of ours, as compiled into contracts/build."""
    loaded: dict[str, Any] = json.loads((BUILD / f"{name}.json").read_text())
    return loaded


def code(name: str) -> bytes:
    """Creation code of one of ours, without constructor arguments."""
    return bytes.fromhex(artefact(name)["bytecode"][2:])


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


# ---- Chains ------------------------------------------------------------------------------------------------


class Backend(ABC):
    """A chain of its own: each transaction a block, gas for nothing, anyone may send as anyone."""

    @abstractmethod
    def call(self, to: str, data: bytes, sender: str) -> bytes:
        """The answer of a call, which changes nothing. Raises Refused with its revert data."""

    @abstractmethod
    def send(self, to: str | None, data: bytes, sender: str, gas: int = GAS) -> dict[str, Any]:
        """Mine a transaction; its receipt. Raises Refused with its revert data."""

    @abstractmethod
    def deploy(self, data: bytes, sender: str) -> Address:
        """Where the contract of this creation code now is."""

    @abstractmethod
    def nonce(self, account: str) -> int:
        """Of the account's next contract."""

    @abstractmethod
    def fund(self, account: str, wei: int) -> None:
        """Give the account exactly this much native currency."""

    @abstractmethod
    def now(self) -> int:
        """Timestamp of the latest block, in seconds."""

    @abstractmethod
    def at(self, timestamp: int) -> None:
        """Each call until the next block is at this time, and the next block a second later."""

    @abstractmethod
    def undone(self) -> AbstractContextManager[None]:
        """What happens inside never happened."""

    @abstractmethod
    def close(self) -> None:
        """The chain is gone."""

    def rpc(self, method: str, *params: Any) -> Any:
        """JSON-RPC, for what only a whole node can do. Raises NotImplementedError where there is none."""
        raise NotImplementedError(f"{type(self).__name__} has no JSON-RPC, so no {method}: use Chain")


class Chain(Backend):
    """One anvil process and a connection to it."""

    def __init__(self) -> None:
        self.port = free_port()
        # Where anvil keeps old states: hundreds of megabytes in a long run, which it never deletes itself.
        self._folder = tempfile.TemporaryDirectory(prefix="sealdeal-states-")
        self.states = Path(self._folder.name)
        flags = f"--port {self.port} --chain-id {CHAIN_ID} --hardfork {HARDFORK} --gas-limit 1000000000 "
        flags += "--base-fee 0 --gas-price 0 --accounts 1 --order fifo --auto-impersonate --silent"
        libc = ctypes.CDLL(None)
        # On Linux the kernel ends it with us, however we end.
        self._process = subprocess.Popen(
            [str(anvil_binary()), *flags.split(), "--cache-path", str(self.states)],
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
        self._folder.cleanup()

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

    def nonce(self, account: str) -> int:
        return int(self.rpc("eth_getTransactionCount", account, "latest"), 16)

    def fund(self, account: str, wei: int) -> None:
        self.rpc("anvil_setBalance", account, hex(wei))

    def at(self, timestamp: int) -> None:
        self.rpc("evm_setNextBlockTimestamp", timestamp)
        self.rpc("evm_mine")
        self.rpc("evm_setNextBlockTimestamp", timestamp + 1)

    @contextmanager
    def undone(self) -> Iterator[None]:
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
    """A deployed contract, by its ABI. `sender` is the default one.

    `abi` may be the name of one of our artefacts. Of overloaded functions the last one goes by its name; each
    goes by its signature too.
    """

    def __init__(self, chain: Backend, abi: Abi | str, at: Address, sender: str) -> None:
        self.chain, self.address, self.sender = chain, at, sender
        self._functions: dict[str, dict[str, Any]] = {}
        self._events: dict[str, dict[str, Any]] = {}
        for entry in artefact(abi)["abi"] if isinstance(abi, str) else abi:
            if entry["type"] == "function":
                self._functions[entry["name"]] = self._functions[signature(entry)] = entry
            elif entry["type"] == "event":
                self._events[hexstr(keccak(signature(entry).encode()))] = entry

    def has(self, function: str) -> bool:
        """Whether the ABI knows the function, by name or signature."""
        return function in self._functions

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
