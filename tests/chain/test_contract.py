from __future__ import annotations

import pytest

from sealdeal.chain import Contract, Reverted, artefact
from sealdeal.chain.abi import encode
from sealdeal.chain.contract import events
from sealdeal.chain.errors import BadAnswer
from sealdeal.chain.reads import Reader
from sealdeal.model.errors import NotFound
from sealdeal.model.types import ZERO, address
from tests.chain.counter import Counter


async def test_answers_are_values_with_names(counter: Counter) -> None:
    reader = Reader(counter.rpc)
    pair = await reader.read(counter.contract, "pair")
    assert (pair.a, pair.b) == (counter.contract.address, 0) == pair
    assert await reader.read_many(
        [(counter.contract, "total"), (counter.contract, "last", counter.sender.address)]
    ) == [0, 0]


async def test_events_of_known_contracts_are_decoded(counter: Counter) -> None:
    receipt = await counter.sender.transact(counter.contract, "count", 5, "five")
    (event,) = receipt.events
    assert event.name == "Counted"
    assert event.args == {"by": counter.sender.address, "total": 5, "note": "five"}
    assert (event.block_number, event.block_hash) == (receipt.block.number, receipt.block.hash)
    assert (event.tx_hash, event.log_index) == (receipt.tx_hash, 0)
    with pytest.raises(NotFound, match="expected the event Other"):
        receipt.event("Other")
    logs = await counter.rpc.call("eth_getLogs", {"fromBlock": "0x0", "address": counter.contract.address})
    assert events(logs, [counter.contract]) == [event]
    assert events(logs, [Contract(ZERO, counter.contract.abi)]) == []


@pytest.mark.parametrize(
    "function, args, reason",
    [
        ("count", (0, ""), "Counter: step is zero"),
        ("subtract", (1, 2), None),
        ("silent", (), None),
    ],
)
async def test_refusals_name_function_and_reason(
    counter: Counter, function: str, args: tuple[object, ...], reason: str | None
) -> None:
    with pytest.raises(Reverted) as refused:
        await Reader(counter.rpc).read(counter.contract, function, *args)
    assert refused.value.reason == reason and function in str(refused.value)


async def test_custom_errors_have_their_name(counter: Counter) -> None:
    reader, contract = Reader(counter.rpc), counter.contract
    user, owner = address(b"\x11" * 20), address(b"\x22" * 20)
    two = bytes.fromhex("ff4127cb") + bytes(12) + b"\x11" * 20 + bytes(12) + b"\x22" * 20
    with pytest.raises(Reverted) as refused:
        await reader.read(contract, "refuse", two)
    assert refused.value.reason == f"NotContractOwner({user}, {owner})"
    with pytest.raises(Reverted, match="0xdeadbeef"):
        await reader.read(contract, "refuse", bytes.fromhex("deadbeef"))
    panic = bytes.fromhex("4e487b71") + encode(contract.abi.constructor, []) + (0x11).to_bytes(32, "big")
    with pytest.raises(Reverted, match="arithmetic overflow"):
        await reader.read(contract, "refuse", panic)


async def test_no_contract_there_is_said(counter: Counter) -> None:
    nowhere = Contract(address(b"\x42" * 20), counter.contract.abi)
    with pytest.raises(BadAnswer, match="no such contract"):
        await Reader(counter.rpc).read(nowhere, "total")


def test_a_missing_artefact_is_named() -> None:
    with pytest.raises(NotFound, match=r"NoSuch\.json"):
        artefact("NoSuch")
