"""Anvil as a kept chain."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sealdeal.chain import Anvil, BlockGone, Contract, Heartbeat, Rpc, Sender
from sealdeal.chain import sender as sender_module
from sealdeal.chain.abi import Abi
from sealdeal.chain.errors import AnvilFailed, AnvilMissing, RpcError
from sealdeal.chain.follow import Batch, Follower, RolledBack
from sealdeal.chain.local import ETHER, anvil_binary, give_gas_money, is_development_chain
from sealdeal.chain.reads import Reader
from sealdeal.model.types import ZERO, hexstr
from tests.chain.counter import wallet
from tests.chain.test_rpc import Node, error, result
from tests.network import CHAIN_ID, Network, build


def running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    return state != "Z"


async def test_it_starts_on_a_free_port_and_stops_completely() -> None:
    chain = Anvil(chain_id=424242)
    await chain.start()
    pid = chain.pid
    assert pid and os.getsid(pid) != os.getsid(0)  # a Ctrl-C in our terminal does not reach it
    assert await chain.rpc.chain_id() == 424242
    assert (await chain.rpc.call("anvil_nodeInfo"))["hardFork"] == "Prague"
    await chain.stop()
    assert chain.pid is None and not running(pid)
    await chain.rpc.aclose()


async def test_money_is_made_on_development_chains_only(anvil: Anvil, chain: Rpc) -> None:
    assert await is_development_chain(chain)
    poor = wallet("poor").address
    await give_gas_money(chain, poor, 123)
    assert int(await chain.call("eth_getBalance", poor, "latest"), 16) == 123
    for answer in (error(code=-32601, message="the method is not there"), (404, b"no"), result(None)):
        async with Node(answer) as other:
            assert not await is_development_chain(other)


def test_a_missing_binary_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AnvilMissing, match="nothing-here"):
        anvil_binary(tmp_path / "nothing-here")
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AnvilMissing, match="npm install"):
        anvil_binary()


async def test_a_taken_port_is_an_error(anvil: Anvil) -> None:
    second = Anvil(port=anvil.port, chain_id=1)
    with pytest.raises(AnvilFailed, match=str(anvil.port)):
        await second.start()
    await second.rpc.aclose()
    assert await anvil.rpc.call("eth_chainId") == hex(65432)


async def test_a_start_that_is_given_up_leaves_no_process(anvil: Anvil) -> None:
    chain = Anvil(chain_id=8)
    starting = asyncio.create_task(chain.start())
    while chain.pid is None:
        await asyncio.sleep(0)
    pid = chain.pid
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert chain.pid is None and not running(pid)
    await chain.rpc.aclose()


PARENT = """
import asyncio
from sealdeal.chain import Anvil

async def main():
    chain = Anvil()
    await chain.start()
    print(chain.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills the children of the killed")
async def test_it_dies_with_a_parent_that_is_killed() -> None:
    parent = await asyncio.create_subprocess_exec(
        *[sys.executable, "-c", PARENT], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": "src"}
    )
    assert parent.stdout
    pid = int(await parent.stdout.readline())
    assert running(pid)
    parent.kill()
    await parent.wait()
    for _ in range(1500):
        if not running(pid):
            return
        await asyncio.sleep(0.02)
    raise AssertionError("anvil outlived its parent")


async def populated(chain: Anvil, code: bytes, abi: Abi) -> tuple[Contract, Sender]:
    sender = Sender(chain.rpc, wallet("operator"))
    await chain.fund(sender.address, ETHER)
    created = await sender.send(None, code)
    assert created.contract
    contract = Contract(created.contract, abi)
    for word in ("one", "two"):
        await sender.transact(contract, "count", 1, word)
    return contract, sender


async def test_a_kept_chain_goes_on_with_its_whole_history(
    counter_code: tuple[bytes, Abi], tmp_path: Path
) -> None:
    state = tmp_path / "chain" / "state.json.gz"
    async with Anvil(chain_id=9, state=state) as chain:
        contract, sender = await populated(chain, *counter_code)
        before = await Reader(chain.rpc).block()
        logs = await chain.rpc.call("eth_getLogs", {"fromBlock": "0x0", "address": contract.address})
        receipts = [await chain.rpc.call("eth_getTransactionReceipt", log["transactionHash"]) for log in logs]
        hashes = [(await Reader(chain.rpc).block(n)).hash for n in range(before.number + 1)]
        await chain.save()
        port = chain.port
    async with Anvil(chain_id=9, state=state, port=port) as chain:
        reader = Reader(chain.rpc)
        assert [(await reader.block(n)).hash for n in range(before.number + 1)] == hashes
        assert await chain.rpc.call("eth_getLogs", {"fromBlock": "0x0", "address": contract.address}) == logs
        assert [
            await chain.rpc.call("eth_getTransactionReceipt", log["transactionHash"]) for log in logs
        ] == receipts
        assert await reader.read(contract, "total") == 2
        final = await reader.final_block(4)  # decisions read a few blocks deep, at once after a start
        assert await reader.read(contract, "total", at=final) == 2
        again = Sender(chain.rpc, sender.wallet)
        receipt = await again.transact(contract, "count", 1, "three")
        assert receipt.block.timestamp >= before.timestamp
        follower = Follower(chain.rpc, [contract], start=before, interval=0.01)
        seen = []
        async for item in follower:
            assert isinstance(item, Batch)
            seen += [event["note"] for event in item.events]
            if seen:
                break
        assert seen == ["three"]


async def test_a_kept_network_goes_on_with_its_deals(tmp_path: Path) -> None:
    state = tmp_path / "state"
    async with Anvil(chain_id=CHAIN_ID, state=state) as chain:
        network = Network(chain, await build(chain))
        deal = await network.deal(volume=2)
        done = await network.complete(deal)
        task = await network.hub.task(done)
        seen = await network.hub.block((await network.hub.block()).number - 1)
        await chain.save()
    async with Anvil(chain_id=CHAIN_ID, state=state) as chain:
        network = Network(chain, network.addresses)
        assert await network.hub.deal(deal.dealid) == deal and await network.hub.task(done) == task
        with pytest.raises(BlockGone, match="take a new block"):  # as on a full node: old states are dropped
            await network.hub.task(done, seen)
        names: list[str] = []
        async for item in Follower(chain.rpc, network.hub.contracts, interval=0.01):
            assert isinstance(item, Batch)
            names += [event.name for event in item.events]
            if item.block.number > seen.number + 1:
                break
        assert names.count("OrdersMatched") == names.count("TaskFinalize") == 1
        await network.complete(deal, 1)


async def test_followers_and_senders_outlive_a_restart_with_an_older_state(
    counter_code: tuple[bytes, Abi], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine lost its power: what was mined after the last save never happened."""
    monkeypatch.setattr(sender_module, "LOST_AFTER", 0.3)
    chain = Anvil(chain_id=9, state=tmp_path / "state")
    await chain.start()
    contract, sender = await populated(chain, *counter_code)
    await chain.save()
    items = aiter(Follower(chain.rpc, [contract], interval=0.01, lag=0.1))
    await sender.transact(contract, "count", 1, "lost", intent=b"three")
    words: list[str] = []
    while "lost" not in words:
        item = await anext(items)
        assert isinstance(item, Batch)
        words += [event["note"] for event in item.events]
    waiting = asyncio.ensure_future(anext(items))
    await chain.stop()
    away = asyncio.create_task(sender.transact(contract, "count", 1, "four"))
    await asyncio.sleep(0.5)
    await chain.start()
    assert isinstance(await asyncio.wait_for(waiting, 60), RolledBack)
    assert (await asyncio.wait_for(away, 60)).events
    again = await sender.transact(contract, "count", 1, "lost", intent=b"three")
    assert again.events[0]["total"] == 4 == await Reader(chain.rpc).read(contract, "total")
    await chain.stop()
    await chain.rpc.aclose()


async def test_an_unreadable_state_falls_back_to_the_one_before(
    counter_code: tuple[bytes, Abi], tmp_path: Path
) -> None:
    state = tmp_path / "state"
    async with Anvil(chain_id=9, state=state) as chain:
        contract, sender = await populated(chain, *counter_code)
        await chain.save()
        await sender.transact(contract, "count", 1, "three")
        await chain.save()
    state.write_bytes(state.read_bytes()[:-100])  # torn
    async with Anvil(chain_id=9, state=state) as chain:
        assert await Reader(chain.rpc).read(contract, "total") == 2
        await chain.save()
    (tmp_path / "state.1").write_bytes(b"")
    state.write_bytes(b"{}")
    async with Rpc("http://127.0.0.1:1"):
        with pytest.raises(AnvilFailed, match="neither"):
            await Anvil(chain_id=9, state=state).start()


async def test_the_heartbeat_gives_depth_and_time_and_rests(anvil: Anvil, chain: Rpc) -> None:
    heart = Heartbeat(chain, depth=3, interval=0.05, poll=0.01)
    reader = Reader(chain)
    beating = asyncio.create_task(heart.run())
    try:
        operator = wallet("operator")
        await anvil.fund(operator.address, ETHER)
        mined = (await Sender(chain, operator).send(operator.address)).block.number
        while (await reader.block()).number < mined + 3:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        assert (await reader.block()).number == mined + 3  # and no further
        with heart.waiting("task 0x1"), heart.waiting("task 0x1"), heart.waiting("task 0x2"):
            assert heart.reasons == ("task 0x1", "task 0x2")
            while (await reader.block()).number < mined + 6:
                await asyncio.sleep(0.01)
        assert not heart.reasons
    finally:
        beating.cancel()
    assert hexstr((await reader.block()).hash)


async def test_states_bounds_how_far_back_reads_go() -> None:
    async with Anvil(chain_id=9, states=4) as chain:
        tag = {"blockHash": (await chain.rpc.call("eth_getBlockByNumber", "latest", False))["hash"]}
        await chain.rpc.call("anvil_mine", "0x2")
        assert await chain.rpc.call("eth_getBalance", ZERO, tag) == "0x0"
        await chain.rpc.call("anvil_mine", "0x6")
        with pytest.raises(RpcError, match="BlockOutOfRange"):
            await chain.rpc.call("eth_getBalance", ZERO, tag)
