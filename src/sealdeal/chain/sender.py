"""Sending transactions: fees, nonces that survive concurrency and a crash, waiting, reasons.

One lane per account in a process hands out nonces, under a lock. What was signed is in the outbox before it
is sent; only a nonce that somebody else used frees an intent for another transaction.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sealdeal.model.errors import NotFound
from sealdeal.model.types import Address, Block, address, hexstr, keccak, unhex

from .abi import Event
from .contract import Contract, events
from .errors import BadAnswer, ChainUnreachable, NotMined, OutOfGasMoney, Reverted, RpcError
from .outbox import Entry, Outbox
from .rpc import Rpc
from .wallet import Transaction, Wallet

log = logging.getLogger("sealdeal.chain")

GAS_MARGIN = 1.25
GAS_EXTRA = 20_000
"""Gas on top of the estimate: what a transaction costs changes with what is mined just before it."""
MIN_TIP = 10**6
"""wei per gas for the block's maker, where recent blocks show none."""
BUMP_AFTER = 30.0
"""Seconds without a receipt before a known transaction is offered with higher fees."""
CHECK_AFTER = 1.0
"""Seconds without a receipt before the sender asks whether the transaction is still known."""
LOST_AFTER = 5.0
"""Seconds for which a nonce must be seen used, without any receipt of ours, before another one is taken: a
provider's replicas differ for a while, and a second transaction would pay twice."""
INTERNAL = -32603
"""JSON-RPC's "internal error": the node does not say whether it took the transaction."""


@dataclass(frozen=True)
class Receipt:
    """A mined transaction that succeeded."""

    tx_hash: bytes
    block: Block
    gas_used: int
    effective_gas_price: int
    """wei per gas."""
    events: tuple[Event, ...]
    """Those of the contracts that the sender was told about, in order."""
    contract: Address | None = None
    """What a deployment created."""

    def event(self, name: str) -> Event:
        """The first event of that name. Raises NotFound."""
        for event in self.events:
            if event.name == name:
                return event
        raise NotFound(f"expected the event {name} in transaction {hexstr(self.tx_hash)}")


async def mined(rpc: Rpc, raw: dict[str, Any], contracts: Iterable[Contract]) -> Receipt:
    """The receipt in JSON-RPC's words, with the events of some contracts."""
    header = await rpc.call("eth_getBlockByHash", raw["blockHash"], False)
    if header is None:
        raise ChainUnreachable(
            f"the block of transaction {raw['transactionHash']} was just reorganised away; ask again"
        )
    return Receipt(
        unhex(raw["transactionHash"]),
        Block(int(raw["blockNumber"], 16), unhex(raw["blockHash"]), int(header["timestamp"], 16)),
        int(raw["gasUsed"], 16),
        int(raw["effectiveGasPrice"], 16),
        tuple(events(raw["logs"], contracts)),
        address(raw["contractAddress"]) if raw.get("contractAddress") else None,
    )


class _Lane:
    """What all senders of one account in this process share."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.flying: dict[int, bytes] = {}
        """nonce -> intent of what was sent and not seen mined."""
        self.outboxes: dict[Path | None, Outbox] = {}


_LANES: weakref.WeakValueDictionary[tuple[int, str, Address], _Lane] = weakref.WeakValueDictionary()


def _lane(url: str, account: Address) -> _Lane:
    key = (id(asyncio.get_running_loop()), url, account)
    lane = _LANES.get(key)
    if lane is None:
        _LANES[key] = lane = _Lane()
    return lane


class Submitted:
    """A transaction that was sent; `await receipt()` gives what became of it."""

    def __init__(self, sender: Sender, entry: Entry, call: _Call) -> None:
        self._sender, self._entry, self._call = sender, entry, call
        self._clock = asyncio.get_running_loop().time
        self._bumped = self._clock()
        self._lost: float | None = None
        """Since when its nonce is seen used, and no receipt of it."""

    @property
    def tx_hash(self) -> bytes:
        """Its hash now; another one after its fees were raised."""
        return self._entry.mined or self._entry.hashes[-1]

    async def receipt(self) -> Receipt:
        """Wait until it is mined. Raises Reverted, or NotMined when the sender's patience ends."""
        began, checked, delay, down = self._clock(), self._clock(), 0.004, False
        while True:
            try:
                if raw := await self._sender._raw_receipt(self._entry.hashes):
                    return await self._sender._finish(self._entry, self._call, raw)
                if self._entry.mined or self._clock() - checked > CHECK_AFTER:
                    checked = self._clock()
                    await self._look_after()
                down = False
            except ChainUnreachable as gone:
                if not down:
                    log.warning("%s; still waiting for transaction %s", gone, hexstr(self.tx_hash))
                down = True
            if self._clock() - began > self._sender.patience:
                raise NotMined(
                    f"transaction {hexstr(self.tx_hash)} of {self._sender.address} is in no block after "
                    f"{self._sender.patience:.0f} s; it stays sent: ask again with the same intent",
                    self.tx_hash,
                )
            await asyncio.sleep(delay)
            delay = min(delay * 1.6, 1.0)

    async def _look_after(self) -> None:
        """No receipt for a while: offer it again, or for more, make its turn come, or take another nonce."""
        sender, entry = self._sender, self._entry
        entry.mined = None  # if it was, a reorganisation took it back
        used = await sender._used()
        if used > entry.nonce:
            self._lost = self._lost or self._clock()
            if self._clock() - self._lost < LOST_AFTER or await sender._raw_receipt(entry.hashes):
                return
            # another transaction has the nonce: this one can never be mined, so a new one is safe
            sender._drop(entry)
            again = await sender._submit(self._call, entry.intent if entry.named else None)
            self._entry, self._lost = again._entry, None
            return
        self._lost = None
        if not await sender._known(entry):
            await sender._resend(entry)
        elif self._clock() - self._bumped > BUMP_AFTER:
            self._bumped = self._clock()
            await sender._bump(entry, self._call)
        if used < entry.nonce:
            await sender._fill(entry)


@dataclass(frozen=True)
class _Call:
    to: Address | None
    data: bytes
    value: int
    gas: int | None
    contract: Contract | None
    function: str
    contracts: tuple[Contract, ...]


class Sender:
    """Sends from one wallet.

    `outbox`: a folder where transactions survive a crash (None: memory only). `patience`: seconds to wait
    for a receipt, the node's absences included. `max_fee`: never offer more wei per gas.
    """

    def __init__(
        self,
        rpc: Rpc,
        wallet: Wallet,
        *,
        outbox: Path | None = None,
        patience: float = 120.0,
        max_fee: int | None = None,
    ) -> None:
        self.rpc, self.wallet, self.address = rpc, wallet, wallet.address
        self.patience, self.max_fee = patience, max_fee
        self._folder = outbox
        self._lane: _Lane | None = None
        self._outbox: Outbox | None = None

    async def send(
        self,
        to: Address | None,
        data: bytes = b"",
        *,
        value: int = 0,
        gas: int | None = None,
        intent: bytes | None = None,
        contracts: Iterable[Contract] = (),
    ) -> Receipt:
        """Send and wait. Raises Reverted (mostly by the estimate, before sending), NotMined, OutOfGasMoney.

        `intent` names what this act is: asked again, also after a crash, it gives the first one's receipt.
        A transaction that reverted did nothing and frees its intent. `contracts` decode the events.
        """
        submitted = await self.submit(to, data, value=value, gas=gas, intent=intent, contracts=contracts)
        return await submitted.receipt()

    async def submit(
        self,
        to: Address | None,
        data: bytes = b"",
        *,
        value: int = 0,
        gas: int | None = None,
        intent: bytes | None = None,
        contracts: Iterable[Contract] = (),
    ) -> Submitted:
        """As `send`, without waiting. Without `gas` the estimate is made before what is still on its way."""
        return await self._submit(_Call(to, data, value, gas, None, "", tuple(contracts)), intent)

    async def transact(
        self,
        contract: Contract,
        function: str,
        *args: Any,
        gas: int | None = None,
        intent: bytes | None = None,
        contracts: Iterable[Contract] = (),
    ) -> Receipt:
        """Call a function of a contract in a transaction; a refusal names the function and the reason."""
        data = contract.abi.encode(function, *args)
        known = tuple({c.address: c for c in (*contracts, contract)}.values())
        call = _Call(contract.address, data, 0, gas, contract, function, known)
        return await (await self._submit(call, intent)).receipt()

    async def next_nonce(self) -> int:
        """The nonce that the next transaction gets, if nobody else sends in between."""
        lane, _ = await self._ready()
        async with lane.lock:
            return await self._next_nonce(lane)

    async def recover(self) -> list[bytes]:
        """Send again what a crash may have left unsent; the hashes of all that is not mined yet.

        Called by itself before the first transaction; call it at start to have it done early.
        """
        lane, outbox = await self._ready()
        return await self._recover(lane, outbox)

    async def _recover(self, lane: _Lane, outbox: Outbox) -> list[bytes]:
        waiting = sorted((e for e in outbox.entries.values() if not e.mined), key=lambda e: e.nonce)
        left = []
        for entry in waiting:
            used = await self._used()
            raw = await self._raw_receipt(entry.hashes)
            if raw and entry.named and int(raw["status"], 16) == 1:
                entry.mined = unhex(raw["transactionHash"])
                await asyncio.to_thread(outbox.write, entry)
            elif raw or (used > entry.nonce and not entry.named):
                outbox.remove(entry)
                lane.flying.pop(entry.nonce, None)
            elif used <= entry.nonce:  # else it seems lost, which the next send of the intent makes sure of
                lane.flying[entry.nonce] = entry.intent
                await self._resend(entry)
                left.append(entry.hashes[-1])
        return left

    async def _ready(self) -> tuple[_Lane, Outbox]:
        if self._lane is None:
            self._lane = _lane(self.rpc.url, self.address)
        lane, boxes = self._lane, self._lane.outboxes
        if self._folder not in boxes:
            chain_id = await self.rpc.chain_id()
            async with lane.lock:
                if self._folder not in boxes:
                    found = await asyncio.to_thread(Outbox, self._folder, self.address, chain_id)
                    await self._recover(lane, found)
                    boxes[self._folder] = found
        self._outbox = boxes[self._folder]
        return lane, self._outbox

    # --- sending

    async def _submit(self, call: _Call, intent: bytes | None) -> Submitted:
        lane, outbox = await self._ready()
        name = intent or secrets.token_bytes(16)
        if name in outbox.entries:
            return Submitted(self, outbox.entries[name], call)
        try:
            gas, tip, fee = await self._price(call)
        except Reverted:
            twin = outbox.entries.get(name)  # what it did meanwhile is why the act is refused now
            if twin is None:
                raise
            return Submitted(self, twin, call)
        async with lane.lock:
            if name in outbox.entries:
                return Submitted(self, outbox.entries[name], call)
            chain_id = await self.rpc.chain_id()
            floor = 0
            for _ in range(8):
                nonce = max(floor, await self._next_nonce(lane))
                transaction = Transaction(chain_id, nonce, tip, fee, gas, call.to, call.value, call.data)
                raw = self.wallet.sign_transaction(transaction)
                entry = Entry(self.address, chain_id, name, intent is not None, nonce, [raw])
                await asyncio.to_thread(outbox.write, entry)
                lane.flying[nonce] = name
                try:
                    if await self._post(raw):
                        return Submitted(self, entry, call)
                except (ChainUnreachable, BadAnswer):  # it may have arrived: the wait finds out
                    return Submitted(self, entry, call)
                except (RpcError, OutOfGasMoney) as refused:
                    if isinstance(refused, RpcError) and refused.number == INTERNAL:
                        return Submitted(self, entry, call)
                    self._drop(entry)
                    raise
                # somebody else with the same key took the nonce, so this one was refused for good
                self._drop(entry)
                floor = nonce + 1
            raise RpcError(0, f"the nonces of {self.address} are always taken; who else uses its key?")

    async def _next_nonce(self, lane: _Lane) -> int:
        tags = ("latest", "pending")
        calls = [("eth_getTransactionCount", self.address, tag) for tag in tags]
        latest, pending = (int(n, 16) for n in await self.rpc.batch(calls, patience=self.patience))
        for nonce in [n for n in lane.flying if n < latest]:
            del lane.flying[nonce]  # mined, and nobody waited for it
        return max([pending, *(nonce + 1 for nonce in lane.flying)])

    async def _ask(self, method: str, *params: Any) -> Any:
        return await self.rpc.call(method, *params, patience=self.patience)

    async def _post(self, raw: bytes) -> bool:
        """Send the bytes. False: the nonce was used, by another transaction than this one."""
        try:
            await self.rpc.call("eth_sendRawTransaction", hexstr(raw))
        except RpcError as refused:
            text = refused.message.lower()
            if "already known" in text or "already imported" in text or "known transaction" in text:
                return True
            if "nonce too low" in text or "replacement" in text:
                return await self._raw_receipt([keccak(raw)]) is not None
            if "insufficient funds" in text:
                raise OutOfGasMoney(
                    f"{self.address} has too little native currency for gas: fund it ({refused.message})"
                ) from None
            raise
        return True

    async def _price(self, call: _Call) -> tuple[int, int, int]:
        """(gas limit, tip, max fee)."""
        asked: list[tuple[Any, ...]] = [("eth_feeHistory", "0x5", "latest", [50])]
        if call.gas is None:
            asked.append(("eth_estimateGas", self._request(call)))
        answers = await self.rpc.batch(asked, patience=self.patience, raising=False)
        for answer in answers:
            if isinstance(answer, Reverted) and call.contract:
                raise call.contract.explain(answer, call.function)
            if isinstance(answer, RpcError) and "insufficient funds" in answer.message.lower():
                raise OutOfGasMoney(f"{self.address} has too little native currency for gas: fund it")
            if isinstance(answer, Exception):
                raise answer
        history = answers[0]
        base = int(history["baseFeePerGas"][-1], 16)
        tips = sorted(int(row[0], 16) for row in history.get("reward") or [] if row)
        # no two are alike: equal acts of two processes with one key must not merge into one transaction
        tip = max(tips[len(tips) // 2] if tips else 0, 2 * MIN_TIP) - secrets.randbelow(MIN_TIP)
        fee = 2 * base + tip
        if self.max_fee is not None:
            fee, tip = min(fee, self.max_fee), min(tip, self.max_fee)
        gas = call.gas if call.gas is not None else int(int(answers[1], 16) * GAS_MARGIN) + GAS_EXTRA
        return gas, tip, fee

    def _request(self, call: _Call) -> dict[str, str]:
        request = {"from": self.address, "data": hexstr(call.data), "value": hex(call.value)}
        return request | ({"to": call.to} if call.to else {})

    # --- waiting

    def _drop(self, entry: Entry) -> None:
        assert self._lane and self._outbox
        self._outbox.remove(entry)
        if self._lane.flying.get(entry.nonce) == entry.intent:
            del self._lane.flying[entry.nonce]

    async def _raw_receipt(self, hashes: Sequence[bytes]) -> dict[str, Any] | None:
        calls = [("eth_getTransactionReceipt", hexstr(tx_hash)) for tx_hash in hashes]
        for answer in await self.rpc.batch(calls):
            if answer and answer.get("blockHash"):
                return dict(answer)
        return None

    async def _used(self) -> int:
        """How many of the account's nonces are used up."""
        return int(await self._ask("eth_getTransactionCount", self.address, "latest"), 16)

    async def _known(self, entry: Entry) -> bool:
        return await self.rpc.call("eth_getTransactionByHash", hexstr(entry.hashes[-1])) is not None

    async def _finish(self, entry: Entry, call: _Call, raw: dict[str, Any]) -> Receipt:
        assert self._lane and self._outbox
        tx_hash = unhex(raw["transactionHash"])
        if int(raw["status"], 16) != 1:
            self._drop(entry)
            raise await self._why(call, raw)
        if self._lane.flying.get(entry.nonce) == entry.intent:
            del self._lane.flying[entry.nonce]
        if not entry.named:
            self._outbox.remove(entry)
        elif entry.mined != tx_hash:
            entry.mined = tx_hash
            await asyncio.to_thread(self._outbox.write, entry)
        return await mined(self.rpc, raw, call.contracts)

    async def _why(self, call: _Call, raw: dict[str, Any]) -> Reverted:
        """The reason of a mined failure: the same call where it was mined, on what came before it."""
        tx_hash, number = unhex(raw["transactionHash"]), int(raw["blockNumber"], 16)
        found = Reverted(tx_hash=tx_hash, doing=call.function)
        for at in (number - 1, number):
            (answer,) = await self.rpc.batch([("eth_call", self._request(call), hex(at))], raising=False)
            if isinstance(answer, Reverted):
                found = Reverted(answer.data, tx_hash=tx_hash, doing=call.function)
                return call.contract.explain(found, call.function) if call.contract else found
        sent = await self.rpc.call("eth_getTransactionByHash", hexstr(tx_hash))
        if sent and int(raw["gasUsed"], 16) == int(sent["gas"], 16):
            return Reverted(reason="out of gas", tx_hash=tx_hash, doing=call.function)
        return found

    async def _resend(self, entry: Entry) -> None:
        """Offer the same bytes again. A refusal is no news: the wait looks at what the chain says."""
        with contextlib.suppress(RpcError, OutOfGasMoney, ChainUnreachable):
            await self.rpc.call("eth_sendRawTransaction", hexstr(entry.raws[-1]))

    async def _bump(self, entry: Entry, call: _Call) -> None:
        """The same act at the same nonce for more: nodes want 10 % more at least to replace."""
        assert self._lane and self._outbox
        sent = await self.rpc.call("eth_getTransactionByHash", hexstr(entry.hashes[-1]))
        if sent is None:
            return
        _, tip, fee = await self._price(_Call(None, b"", 0, 0, None, "", ()))
        tip = max(tip, int(sent["maxPriorityFeePerGas"], 16) * 5 // 4 + 1)
        fee = max(fee, int(sent["maxFeePerGas"], 16) * 5 // 4 + 1, tip)
        if self.max_fee is not None and fee > self.max_fee:
            return
        gas = int(sent["gas"], 16)
        raw = self.wallet.sign_transaction(
            Transaction(entry.chain_id, entry.nonce, tip, fee, gas, call.to, call.value, call.data)
        )
        async with self._lane.lock:
            entry.raws.append(raw)
            await asyncio.to_thread(self._outbox.write, entry)
            log.info(
                "transaction nonce %d of %s offered again for %d wei per gas", entry.nonce, self.address, fee
            )
            await self._resend(entry)

    async def _fill(self, entry: Entry) -> None:
        """After a chain went back, nonces below may be free again and block this one: use them up."""
        lane, outbox = await self._ready()
        async with lane.lock:
            first = int(await self.rpc.call("eth_getTransactionCount", self.address, "pending"), 16)
            for nonce in range(first, entry.nonce):
                if nonce in lane.flying:
                    if blocking := outbox.entries.get(lane.flying[nonce]):
                        await self._resend(blocking)
                    continue
                _, tip, fee = await self._price(_Call(None, b"", 0, 0, None, "", ()))
                filler = Transaction(entry.chain_id, nonce, tip, fee, 21_000, self.address, 0, b"")
                log.info("filling the free nonce %d of %s", nonce, self.address)
                await self._post(self.wallet.sign_transaction(filler))
