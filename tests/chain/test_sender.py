"""Nonces, fees, intents, crashes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sealdeal.chain import Anvil, NotMined, Reverted, Rpc, Sender
from sealdeal.chain import sender as sender_module
from sealdeal.chain.errors import ChainUnreachable, OutOfGasMoney
from sealdeal.chain.local import ETHER
from sealdeal.chain.reads import Reader
from sealdeal.model.errors import ChainError
from sealdeal.model.types import hexstr, keccak
from tests.chain.counter import Counter, wallet


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """One node has no replicas that lag behind."""
    monkeypatch.setattr(sender_module, "LOST_AFTER", 0.3)
    monkeypatch.setattr(sender_module, "CHECK_AFTER", 0.2)


async def total(counter: Counter) -> int:
    return int(await Reader(counter.rpc).read(counter.contract, "total"))


async def nonce(rpc: Rpc, sender: Sender) -> int:
    return int(await rpc.call("eth_getTransactionCount", sender.address, "latest"), 16)


async def test_a_receipt_says_what_it_cost(counter: Counter) -> None:
    before = int(await counter.rpc.call("eth_getBalance", counter.sender.address, "latest"), 16)
    receipt = await counter.sender.transact(counter.contract, "count", 1, "")
    after = int(await counter.rpc.call("eth_getBalance", counter.sender.address, "latest"), 16)
    assert before - after == receipt.gas_used * receipt.effective_gas_price
    header = await counter.rpc.call("eth_getBlockByHash", hexstr(receipt.block.hash), False)
    assert int(header["timestamp"], 16) == receipt.block.timestamp


async def test_fifty_at_once_from_one_wallet(counter: Counter) -> None:
    first = await nonce(counter.rpc, counter.sender)
    twin = Sender(counter.rpc, counter.sender.wallet)
    senders = [counter.sender, twin]
    receipts = await asyncio.gather(
        *(senders[i % 2].transact(counter.contract, "count", 1, str(i)) for i in range(50))
    )
    assert await total(counter) == 50
    assert sorted(r.events[0]["total"] for r in receipts) == list(range(1, 51))
    assert [r.events[0]["note"] for r in receipts] == [str(i) for i in range(50)]  # each got its own receipt
    assert await nonce(counter.rpc, counter.sender) == first + 50


async def test_two_processes_with_the_same_key_share_its_nonces(counter: Counter, anvil: Anvil) -> None:
    async with Rpc(anvil.url.replace("127.0.0.1", "localhost")) as other:  # another url: another lane
        stranger = Sender(other, counter.sender.wallet, patience=20.0)
        senders = [counter.sender, stranger]
        await asyncio.gather(
            *(senders[i % 2].transact(counter.contract, "count", 1, "", gas=200_000) for i in range(20))
        )
    assert await total(counter) == 20


async def test_a_refusal_costs_nothing_when_the_estimate_shows_it(counter: Counter) -> None:
    first = await nonce(counter.rpc, counter.sender)
    with pytest.raises(Reverted, match="count: Counter: step is zero"):
        await counter.sender.transact(counter.contract, "count", 0, "")
    assert await nonce(counter.rpc, counter.sender) == first


async def test_a_mined_refusal_has_its_reason_and_hash(counter: Counter) -> None:
    with pytest.raises(Reverted, match="step is zero") as refused:
        await counter.sender.transact(counter.contract, "count", 0, "", gas=100_000)
    assert refused.value.tx_hash and refused.value.reason == "Counter: step is zero"
    with pytest.raises(Reverted, match="out of gas"):
        await counter.sender.transact(counter.contract, "count", 1, "x" * 64, gas=30_000)
    assert (await counter.sender.transact(counter.contract, "count", 1, "")).gas_used


async def test_without_money_for_gas(chain: Rpc, counter: Counter) -> None:
    poor = Sender(chain, wallet("poor"))
    with pytest.raises(OutOfGasMoney, match=poor.address):
        await poor.transact(counter.contract, "count", 1, "")


async def test_one_intent_is_one_transaction(counter: Counter) -> None:
    first = await counter.sender.transact(counter.contract, "count", 1, "a", intent=b"x")
    again = await counter.sender.transact(counter.contract, "count", 1, "a", intent=b"x")
    assert first == again and await total(counter) == 1
    receipts = await asyncio.gather(
        *(counter.sender.transact(counter.contract, "count", 1, "b", intent=b"y") for _ in range(8))
    )
    assert len({r.tx_hash for r in receipts}) == 1 and await total(counter) == 2


async def test_a_twin_of_a_done_intent_is_not_told_that_it_can_not_be_done(counter: Counter) -> None:
    await counter.sender.transact(counter.contract, "at_most", 1, intent=b"once")
    assert (await counter.sender.transact(counter.contract, "at_most", 1, intent=b"once")).events
    with pytest.raises(Reverted, match="limit reached"):
        await counter.sender.transact(counter.contract, "at_most", 1, intent=b"other")


async def test_a_failed_intent_may_be_tried_again(counter: Counter) -> None:
    with pytest.raises(Reverted):
        await counter.sender.transact(counter.contract, "count", 0, "", gas=100_000, intent=b"z")
    assert (await counter.sender.transact(counter.contract, "count", 3, "", intent=b"z")).events


async def test_an_intent_survives_its_sender(counter: Counter, tmp_path: Path) -> None:
    one = Sender(counter.rpc, counter.sender.wallet, outbox=tmp_path)
    first = await one.transact(counter.contract, "count", 1, "", intent=b"x")
    await one.transact(counter.contract, "count", 1, "")
    (kept,) = tmp_path.iterdir()  # what had no name is forgotten
    assert json.loads(kept.read_text())["mined"] == hexstr(first.tx_hash)
    sender_module._LANES.clear()  # another process
    two = Sender(counter.rpc, counter.sender.wallet, outbox=tmp_path)
    assert await two.transact(counter.contract, "count", 1, "", intent=b"x") == first
    assert await total(counter) == 2


async def test_an_unreadable_outbox_stops_the_sender(counter: Counter, tmp_path: Path) -> None:
    sender = Sender(counter.rpc, counter.sender.wallet, outbox=tmp_path)
    await sender.transact(counter.contract, "count", 1, "", intent=b"x")
    next(tmp_path.iterdir()).write_text("{}")
    sender_module._LANES.clear()
    with pytest.raises(ChainError, match="unreadable"):
        await Sender(counter.rpc, counter.sender.wallet, outbox=tmp_path).transact(
            counter.contract, "count", 1, "", intent=b"x"
        )
    assert await total(counter) == 1


async def test_a_reorganised_intent_is_sent_again_as_it_was(counter: Counter, tmp_path: Path) -> None:
    sender = Sender(counter.rpc, counter.sender.wallet, outbox=tmp_path)
    point = await counter.rpc.call("evm_snapshot")
    first = await sender.transact(counter.contract, "count", 1, "", intent=b"x")
    assert await counter.rpc.call("evm_revert", point) and await total(counter) == 0
    again = await sender.transact(counter.contract, "count", 1, "", intent=b"x")
    assert again.tx_hash == first.tx_hash and await total(counter) == 1


async def test_an_intent_whose_nonce_went_elsewhere_gets_another(counter: Counter, tmp_path: Path) -> None:
    sender = Sender(counter.rpc, counter.sender.wallet, outbox=tmp_path)
    point = await counter.rpc.call("evm_snapshot")
    first = await sender.transact(counter.contract, "count", 1, "", intent=b"x")
    assert await counter.rpc.call("evm_revert", point)
    await counter.sender.transact(counter.contract, "count", 10, "")  # takes the nonce that x had
    again = await sender.transact(counter.contract, "count", 1, "", intent=b"x")
    assert again.tx_hash != first.tx_hash and await total(counter) == 11


async def test_a_cancelled_send_is_not_forgotten(counter: Counter) -> None:
    """Whoever waits may go away while the bytes are under way; the intent still is one transaction."""
    real, arrived = counter.sender._post, asyncio.Event()

    async def slow(raw: bytes) -> bool:
        await real(raw)
        arrived.set()
        await asyncio.sleep(60)
        return True

    counter.sender._post = slow  # type: ignore[method-assign]
    sending = asyncio.create_task(counter.sender.transact(counter.contract, "count", 1, "", intent=b"x"))
    await arrived.wait()
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    del counter.sender._post
    assert await counter.sender.transact(counter.contract, "count", 1, "", intent=b"x")
    assert await counter.sender.transact(counter.contract, "count", 1, "")
    assert await total(counter) == 2


@pytest.mark.parametrize("arrives", [True, False])
async def test_an_answer_that_is_lost_changes_nothing(counter: Counter, arrives: bool) -> None:
    real = counter.sender._post

    async def lossy(raw: bytes) -> bool:
        if arrives:
            await real(raw)
        raise ChainUnreachable("the connection broke")

    counter.sender._post = lossy  # type: ignore[method-assign]
    assert await counter.sender.transact(counter.contract, "count", 1, "")
    assert await total(counter) == 1


async def test_transactions_above_a_rolled_back_nonce_are_not_stuck(counter: Counter) -> None:
    await counter.rpc.call("evm_setAutomine", False)
    try:
        low = await counter.sender.submit(None, b"", gas=100_000)
        data = counter.contract.abi.encode("count", 1, "")
        high = await counter.sender.submit(counter.contract.address, data)
        # the node loses the lower one, as when its memory pool is full
        await counter.rpc.call("anvil_dropTransaction", hexstr(low.tx_hash))
        await counter.rpc.call("evm_setAutomine", True)
        await counter.rpc.call("evm_mine")
        receipt = await high.receipt()
        assert receipt.gas_used and (await low.receipt()).contract
    finally:
        await counter.rpc.call("evm_setAutomine", True)


async def test_free_nonces_below_are_used_up(counter: Counter) -> None:
    point = await counter.rpc.call("evm_snapshot")
    for _ in range(2):
        await counter.sender.transact(counter.contract, "count", 1, "")
    await counter.rpc.call("evm_setAutomine", False)
    try:
        data = counter.contract.abi.encode("count", 5, "")
        sent = await counter.sender.submit(counter.contract.address, data, gas=200_000)
        assert await counter.rpc.call("evm_revert", point)  # the two before it are gone
    finally:
        await counter.rpc.call("evm_setAutomine", True)
    assert await sent.receipt() and await total(counter) == 5


async def test_fees_are_raised_when_it_takes_too_long(
    counter: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender_module, "BUMP_AFTER", 0.2)
    monkeypatch.setattr(sender_module, "CHECK_AFTER", 0.1)
    await counter.rpc.call("evm_setAutomine", False)
    try:
        data = counter.contract.abi.encode("count", 1, "")
        sent = await counter.sender.submit(counter.contract.address, data, intent=b"dear")
        cheap = await counter.rpc.call("eth_getTransactionByHash", hexstr(sent.tx_hash))
        waiting = asyncio.create_task(sent.receipt())
        dear = None
        while dear is None or dear["hash"] == cheap["hash"]:  # it has a new hash before the node knows it
            await asyncio.sleep(0.02)
            dear = await counter.rpc.call("eth_getTransactionByHash", hexstr(sent.tx_hash))
    finally:
        await counter.rpc.call("evm_setAutomine", True)
    await counter.rpc.call("evm_mine")
    receipt = await waiting
    assert dear["nonce"] == cheap["nonce"] and int(dear["maxFeePerGas"], 16) > int(cheap["maxFeePerGas"], 16)
    assert hexstr(receipt.tx_hash) != cheap["hash"] and await total(counter) == 1


async def test_the_cap_on_fees_is_kept(counter: Counter) -> None:
    careful = Sender(counter.rpc, counter.sender.wallet, max_fee=2 * 10**9)
    receipt = await careful.transact(counter.contract, "count", 1, "")
    sent = await counter.rpc.call("eth_getTransactionByHash", hexstr(receipt.tx_hash))
    assert int(sent["maxFeePerGas"], 16) <= 2 * 10**9


async def test_what_is_not_mined_in_time_says_so_and_goes_on(counter: Counter) -> None:
    hasty = Sender(counter.rpc, counter.sender.wallet, patience=0.3)
    await counter.rpc.call("evm_setAutomine", False)
    try:
        with pytest.raises(NotMined) as late:
            await hasty.transact(counter.contract, "count", 1, "", intent=b"slow")
    finally:
        await counter.rpc.call("evm_setAutomine", True)
    await counter.rpc.call("evm_mine")
    receipt = await hasty.transact(counter.contract, "count", 1, "", intent=b"slow")
    assert receipt.tx_hash == late.value.tx_hash and await total(counter) == 1


def thread_states(pid: int) -> Iterator[str]:
    """A letter for each thread, as in proc(5): a signal stops a process some time after it is sent."""
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(FileNotFoundError):  # it has ended
            yield stat.read_text().rpartition(")")[2].split()[0]


async def test_a_node_that_is_away_for_a_while(tmp_path: Path) -> None:
    async with Anvil(chain_id=5) as chain:
        sender = Sender(chain.rpc, wallet("operator"), patience=30.0)
        await chain.fund(sender.address, ETHER)
        assert chain.pid
        async with Rpc(chain.url, timeout=0.3) as impatient:
            stopped = Sender(impatient, wallet("operator"), patience=30.0)
            await stopped.send(stopped.address)
            os.kill(chain.pid, signal.SIGSTOP)
            try:
                while any(state != "T" for state in thread_states(chain.pid)):
                    await asyncio.sleep(0.01)
                sending = asyncio.create_task(stopped.send(stopped.address, value=1))
                with pytest.raises(ChainUnreachable):
                    await impatient.call("eth_chainId")
            finally:
                os.kill(chain.pid, signal.SIGCONT)
            assert (await sending).gas_used == 21_000


CRASHER = """
import asyncio, sys
from pathlib import Path
from sealdeal.chain import Rpc, Sender, Wallet
from sealdeal.model.keys import Key

async def main():
    url, secret, outbox, to, data = sys.argv[1:]
    rpc = Rpc(url)
    sender = Sender(rpc, Wallet(Key(bytes.fromhex(secret))), outbox=Path(outbox))
    if len(sys.argv) and "--unsent" in data:
        async def lost(raw):
            print("signed", flush=True)
            await asyncio.sleep(600)
        sender._post = lost
        data = data.replace("--unsent", "")
    submitted = await sender.submit(to, bytes.fromhex(data), intent=b"pay once", gas=200_000)
    print("sent", flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.parametrize("moment", ["signed", "sent"])
async def test_a_killed_sender_pays_once(counter: Counter, anvil: Anvil, tmp_path: Path, moment: str) -> None:
    """SIGKILL between writing and sending, or between sending and the receipt; then start again."""
    data = counter.contract.abi.encode("count", 7, "").hex() + ("--unsent" if moment == "signed" else "")
    secret = counter.sender.wallet.key.secret.hex()
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-c", CRASHER, anvil.url, secret, str(tmp_path), counter.contract.address, data],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": "src"},
    )
    assert process.stdout
    assert (await process.stdout.readline()).decode().strip() == moment
    process.kill()
    await process.wait()
    assert len(list(tmp_path.glob("*.json"))) == 1
    assert await total(counter) == (0 if moment == "signed" else 7)
    sender = Sender(counter.rpc, counter.sender.wallet, outbox=tmp_path, patience=20.0)
    assert len(await sender.recover()) <= 1
    receipt = await sender.transact(counter.contract, "count", 7, "", intent=b"pay once")
    assert receipt.events[0]["total"] == 7 and await total(counter) == 7
    await sender.transact(counter.contract, "count", 1, "")  # the nonces go on without a gap
    assert await total(counter) == 8
    assert keccak(b"pay once")[:16].hex() in next(tmp_path.glob("*.json")).name
