from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator

import pytest

from sealdeal.chain import Anvil, Batch, Contract, Follower, RolledBack, Rpc, RpcError, Sender
from sealdeal.chain.abi import Abi, Event
from sealdeal.chain.contract import events
from sealdeal.chain.errors import WrongChain
from sealdeal.chain.local import ETHER
from sealdeal.chain.reads import Reader
from sealdeal.model.types import Block, keccak
from tests.chain.counter import Counter, wallet

Items = AsyncIterator[Batch | RolledBack]


def follow(counter: Counter, **options: object) -> Follower:
    return Follower(counter.rpc, [counter.contract], **{"interval": 0.01, "lag": 0.0, **options})  # type: ignore[arg-type]


async def soon(items: Items) -> Batch | RolledBack:
    return await asyncio.wait_for(anext(items), 60)


async def notes(items: Items, count: int) -> list[str]:
    """The notes of the next events, without any rollback between them."""
    found: list[str] = []
    while len(found) < count:
        item = await soon(items)
        assert isinstance(item, Batch), item
        found += [event["note"] for event in item.events if event.name == "Counted"]
    return found


async def count(counter: Counter, *words: str) -> None:
    for word in words:
        await counter.sender.transact(counter.contract, "count", 1, word)


async def test_events_come_once_and_in_order(counter: Counter) -> None:
    await count(counter, *"abc")
    items = aiter(follow(counter))
    assert await notes(items, 3) == list("abc")
    await asyncio.gather(*(count(counter, word) for word in "def"))
    assert sorted(await notes(items, 3)) == list("def")


async def test_batches_are_linked_and_cover_every_block(counter: Counter) -> None:
    follower = follow(counter)
    items = aiter(follower)
    first = await soon(items)
    assert isinstance(first, Batch) and follower.cursor == first.block
    await counter.rpc.call("evm_mine")
    second = await soon(items)
    assert isinstance(second, Batch) and second.events == ()
    header = await counter.rpc.call("eth_getBlockByNumber", hex(second.block.number), False)
    assert second.block.number == first.block.number + 1
    assert header["parentHash"] == "0x" + first.block.hash.hex()


async def test_it_goes_on_from_a_stored_block(counter: Counter) -> None:
    await count(counter, "a")
    stored = await Reader(counter.rpc).block()
    await count(counter, "b")
    assert await notes(aiter(follow(counter, start=stored)), 1) == ["b"]


async def test_depth_is_waited_for(counter: Counter) -> None:
    start = await Reader(counter.rpc).block()
    items = aiter(follow(counter, start=start, confirmations=3))
    await count(counter, "deep")
    waiting = asyncio.create_task(notes(items, 1))
    await counter.rpc.call("anvil_mine", "0x2")
    await asyncio.sleep(0.1)
    assert not waiting.done()
    await counter.rpc.call("evm_mine")
    assert await waiting == ["deep"]


async def test_only_the_named_events(counter: Counter) -> None:
    await count(counter, "a")
    items = aiter(follow(counter, names=["Counted"]))
    assert await notes(items, 1) == ["a"]
    none = await soon(aiter(follow(counter, names=["Other"])))
    assert isinstance(none, Batch) and none.events == ()


async def test_a_reorganisation_is_taken_back_and_replayed(counter: Counter) -> None:
    start = await Reader(counter.rpc).block()
    items = aiter(follow(counter, start=start))
    await count(counter, "kept")
    kept = await soon(items)
    assert isinstance(kept, Batch) and [e["note"] for e in kept.events] == ["kept"]
    await count(counter, "lost", "lost too")
    assert await notes(items, 2) == ["lost", "lost too"]
    await counter.rpc.call("anvil_reorg", 2, [])  # two empty blocks instead
    back = await soon(items)
    assert back == RolledBack(kept.block)
    after = await soon(items)
    assert isinstance(after, Batch) and after.events == () and after.block.number == kept.block.number + 2
    await count(counter, "new")
    assert await notes(items, 1) == ["new"]


async def test_a_chain_that_became_shorter(counter: Counter) -> None:
    start = await Reader(counter.rpc).block()
    items = aiter(follow(counter, start=start))
    point = await counter.rpc.call("evm_snapshot")
    await count(counter, "lost")
    assert await notes(items, 1) == ["lost"]
    await counter.rpc.call("evm_revert", point)
    assert await soon(items) == RolledBack(start)
    await count(counter, "new")
    assert await notes(items, 1) == ["new"]


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_the_chain_does_the_consumer_ends_with_what_the_chain_says(
    counter: Counter, seed: int
) -> None:
    """Blocks with and without events, reorganisations, rollbacks; looked at now and then."""
    rng = random.Random(seed)
    start = await Reader(counter.rpc).block()
    items = aiter(follow(counter, start=start, confirmations=rng.choice([0, 0, 2])))
    seen: list[Event] = []

    async def look(word: str) -> None:
        """Consume up to an event of now, and make it deep enough to be shown."""
        await count(counter, word)
        await counter.rpc.call("anvil_mine", "0x2")
        while word not in [event["note"] for event in seen]:
            item = await soon(items)
            if isinstance(item, RolledBack):
                seen[:] = [event for event in seen if event.block_number <= item.to.number]
            else:
                seen.extend(item.events)

    points = []
    for step in range(25):
        head = (await Reader(counter.rpc).block()).number
        match rng.choice(["events", "events", "empty", "reorg", "snapshot", "revert", "look"]):
            case "events":
                await count(counter, *(f"{step}.{i}" for i in range(rng.randint(1, 3))))
            case "empty":
                await counter.rpc.call("anvil_mine", hex(rng.randint(1, 40)))
            case "reorg" if head > start.number:
                await counter.rpc.call("anvil_reorg", min(rng.randint(1, 5), head - start.number), [])
            case "snapshot":
                points.append(await counter.rpc.call("evm_snapshot"))
            case "revert" if points:
                at = rng.randrange(len(points))
                await counter.rpc.call("evm_revert", points[at])
                del points[at:]
            case "look":
                await look(f"look {step}")
    await look("the end")
    span = {"fromBlock": hex(start.number + 1), "toBlock": "latest", "address": counter.contract.address}
    assert seen == events(await counter.rpc.call("eth_getLogs", span), [counter.contract])


async def test_a_node_that_lags_behind_is_no_rollback(counter: Counter) -> None:
    start = await Reader(counter.rpc).block()
    items = aiter(follow(counter, start=start, lag=60.0))
    await count(counter, "a")
    assert await notes(items, 1) == ["a"]
    cursor = await Reader(counter.rpc).block()
    lower = await counter.rpc.call("eth_getBlockByNumber", hex(cursor.number - 1), False)
    real, times = counter.rpc.batch, iter(range(3))
    stale = [False]

    async def behind(calls, **options):  # type: ignore[no-untyped-def]
        if calls[0][1] == "latest":
            stale[0] = next(times, None) is not None
            return [lower] if stale[0] else await real(calls, **options)
        return [None] if stale[0] and calls[0][1] == hex(cursor.number) else await real(calls, **options)

    counter.rpc.batch = behind  # type: ignore[method-assign]
    try:
        waiting = asyncio.ensure_future(notes(items, 1))
        await count(counter, "b")
        assert await waiting == ["b"] and next(times, None) is None
    finally:
        del counter.rpc.batch


async def test_a_reorganisation_while_nobody_looked(counter: Counter) -> None:
    """The consumer was down; its newest stored block is gone, an older one is not."""
    old = await Reader(counter.rpc).block()
    await count(counter, "lost")
    new = await Reader(counter.rpc).block()
    await counter.rpc.call("anvil_reorg", 1, [])
    await count(counter, "new")
    items = aiter(follow(counter, start=[new, old]))
    assert await soon(items) == RolledBack(old)
    assert await notes(items, 1) == ["new"]


async def test_a_stored_block_of_nowhere_goes_back_to_the_origin(counter: Counter) -> None:
    await count(counter, "a")
    alien = Block(3, keccak(b"another chain"), 0)
    items = aiter(follow(counter, start=alien))
    back = await soon(items)
    assert isinstance(back, RolledBack) and back.to.number == 0
    assert (await notes(items, 1))[-1:] == ["a"]


async def test_an_origin_that_is_not_there_is_another_chain(counter: Counter) -> None:
    with pytest.raises(WrongChain):
        await soon(aiter(follow(counter, origin=10**9)))


async def test_long_ranges_are_halved_when_the_provider_refuses(counter: Counter) -> None:
    await count(counter, "a")
    await counter.rpc.call("anvil_mine", hex(200))
    await count(counter, "b")
    real, spans = counter.rpc.batch, []

    async def strict(calls, **options):  # type: ignore[no-untyped-def]
        answers = await real(calls, **options)
        for i, call in enumerate(calls):
            if call[0] == "eth_getLogs":
                spans.append(int(call[1]["toBlock"], 16) - int(call[1]["fromBlock"], 16) + 1)
                if spans[-1] > 50:
                    answers[i] = RpcError(-32005, "query returned more than 10000 results")
        return answers

    counter.rpc.batch = strict  # type: ignore[method-assign]
    try:
        assert await notes(aiter(follow(counter)), 2) == ["a", "b"]
    finally:
        del counter.rpc.batch
    assert max(spans) > 100 and any(span <= 50 for span in spans)


async def test_an_outage_is_survived(
    counter_code: tuple[bytes, Abi], caplog: pytest.LogCaptureFixture
) -> None:
    """The node stands still, and then goes on."""
    async with Anvil(chain_id=7) as chain, Rpc(chain.url, timeout=0.2) as rpc:
        code, abi = counter_code
        sender = Sender(chain.rpc, wallet("operator"))
        await chain.fund(sender.address, ETHER)
        created = await sender.send(None, code)
        assert created.contract and chain.pid
        contract = Contract(created.contract, abi)
        items = aiter(Follower(rpc, [contract], interval=0.01))
        await sender.transact(contract, "count", 1, "before")
        assert await notes(items, 1) == ["before"]
        os.kill(chain.pid, signal.SIGSTOP)
        waiting = asyncio.create_task(notes(items, 1))
        await asyncio.sleep(1.0)
        os.kill(chain.pid, signal.SIGCONT)
        await sender.transact(contract, "count", 1, "after")
        assert await waiting == ["after"]
    assert len([r for r in caplog.records if "goes on when it answers again" in r.message]) == 1
