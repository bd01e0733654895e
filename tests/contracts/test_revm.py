"""The in-process chain does what tests rely on, and what anvil does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sealdeal.model.keys import Key
from sealdeal.model.types import Address, address, keccak
from tests.contracts.chain import CHAIN_ID, Backend, Chain, Refused
from tests.contracts.revm import Revm

SENDER = address(keccak(b"somebody")[12:])
WORD = 32


@pytest.fixture(params=[Chain, Revm], scope="module")
def chain(request: pytest.FixtureRequest) -> Iterator[Backend]:
    started: Backend = request.param()
    yield started
    started.close()


def installed(chain: Backend, runtime: str) -> Address:
    """A contract with this code, in hex."""
    code = bytes.fromhex(runtime.replace(" ", ""))
    return chain.deploy(bytes([0x60, len(code), 0x80, 0x60, 9, 0x5F, 0x39, 0x5F, 0xF3]) + code, SENDER)


def number(answer: bytes) -> int:
    assert len(answer) == WORD
    return int.from_bytes(answer)


COUNTER = "5f54 6001 01 80 5f55 5f52 6020 5ff3"
"""Adds one to slot 0 and returns it."""
TRANSIENT = "5f5c 6001 01 80 5f5d 5f52 6020 5ff3"
"""The same with transient slot 0."""


def test_sends_stay_and_calls_do_not(chain: Backend) -> None:
    counter = installed(chain, COUNTER)
    assert number(chain.call(counter, b"", SENDER)) == 1
    chain.send(counter, b"", SENDER)
    assert [number(chain.call(counter, b"", SENDER)) for _ in range(2)] == [2, 2]


def test_what_is_undone_never_happened(chain: Backend) -> None:
    counter = installed(chain, COUNTER)
    chain.send(counter, b"", SENDER)
    before = chain.now()
    with chain.undone():
        chain.at(before + 1_000)
        chain.send(counter, b"", SENDER)
        with chain.undone():
            chain.send(counter, b"", SENDER)
            made = installed(chain, COUNTER)
        assert number(chain.call(counter, b"", SENDER)) == 3
        assert chain.call(made, b"", SENDER) == b""
    assert number(chain.call(counter, b"", SENDER)) == 2
    assert chain.now() < before + 1_000


def test_what_a_failed_undone_block_did_is_undone_too(chain: Backend) -> None:
    counter = installed(chain, COUNTER)
    with pytest.raises(ZeroDivisionError), chain.undone():
        chain.send(counter, b"", SENDER)
        raise ZeroDivisionError
    assert number(chain.call(counter, b"", SENDER)) == 1


@pytest.mark.parametrize(
    ("runtime", "data"),
    [
        ("60aa 5f53 6001 5ffd", b"\xaa"),  # one byte
        ("5f5ffd", b""),
        ("fe", b""),  # an invalid instruction
        ("6020 5ff3", None),  # no failure: a word of zeros
        ("63deadbeef 5f52 610104 5ffd", bytes(28) + bytes.fromhex("deadbeef") + bytes(0x104 - WORD)),
    ],
)
def test_revert_data_are_exact(chain: Backend, runtime: str, data: bytes | None) -> None:
    contract = installed(chain, runtime)
    if data is None:
        assert chain.call(contract, b"", SENDER) == bytes(WORD)
        return
    for act in (chain.call, chain.send):
        with pytest.raises(Refused) as caught:
            act(contract, b"", SENDER)
        assert caught.value.data == data


def test_a_refused_transaction_leaves_no_state(chain: Backend) -> None:
    contract = installed(chain, "36 15 600c 57 6001 5f55 5f5ffd 5b 5f54 5f52 6020 5ff3")
    with pytest.raises(Refused):
        chain.send(contract, b"x", SENDER)
    assert number(chain.call(contract, b"", SENDER)) == 0


def test_a_constructor_that_fails_says_so(chain: Backend) -> None:
    with pytest.raises(Refused) as caught:
        chain.deploy(bytes.fromhex("60aa5f5360015ffd"), SENDER)
    assert caught.value.data == b"\xaa"


def test_time_is_set_and_goes_on(chain: Backend) -> None:
    clock = installed(chain, "42 5f52 6020 5ff3")
    log = installed(chain, "42 5f52 6020 5fa0")
    then = chain.now() + 5_000
    chain.at(then)
    assert chain.now() == then == number(chain.call(clock, b"", SENDER))
    receipt = chain.send(log, b"", SENDER)
    assert int(receipt["logs"][0]["data"], 16) == then + 1 == int(receipt["logs"][0]["blockTimestamp"], 16)
    assert chain.now() == then + 1


def test_logs_have_their_address_topics_and_data(chain: Backend) -> None:
    contract = installed(chain, "60aa 5f53 6022 6011 6001 5fa2")
    receipt = chain.send(contract, b"", SENDER)
    (log,) = receipt["logs"]
    assert address(log["address"]) == contract
    assert log["topics"] == ["0x" + "00" * 31 + "11", "0x" + "00" * 31 + "22"] and log["data"] == "0xaa"
    assert int(receipt["gasUsed"], 16) > 21_000
    assert chain.send(installed(chain, COUNTER), b"", SENDER)["logs"] == []


def test_transient_storage_ends_with_its_transaction(chain: Backend) -> None:
    contract = installed(chain, TRANSIENT)
    chain.send(contract, b"", SENDER)
    assert [number(chain.call(contract, b"", SENDER)) for _ in range(2)] == [1, 1]


def test_calls_know_their_sender_and_chain(chain: Backend) -> None:
    assert address(chain.call(installed(chain, "33 5f52 6020 5ff3"), b"", SENDER)[12:]) == SENDER
    assert address(chain.call(installed(chain, "32 5f52 6020 5ff3"), b"", SENDER)[12:]) == SENDER
    assert number(chain.call(installed(chain, "46 5f52 6020 5ff3"), b"", SENDER)) == CHAIN_ID


def test_currency_and_nonces(chain: Backend) -> None:
    rich = address(keccak(b"rich")[12:])
    chain.fund(rich, 10**18)
    balance = installed(chain, "33 31 5f52 6020 5ff3")
    assert number(chain.call(balance, b"", rich)) == 10**18
    first = chain.nonce(rich)
    chain.deploy(b"", rich)
    assert chain.nonce(rich) == first + 1


def test_signatures_recover(chain: Backend) -> None:
    """ecrecover, by far the most used precompile here."""
    key = Key(keccak(b"a signer"))
    digest = keccak(b"a digest")
    signed = key.sign_digest(digest)
    forward = installed(chain, "36 5f 5f 37 6020 5f 36 5f 6001 5a fa 50 6020 5f f3")
    data = digest + bytes(31) + signed[64:] + signed[:64]
    assert address(chain.call(forward, data, SENDER)[12:]) == key.address


def test_the_in_process_chain_has_no_rpc_and_says_what_has() -> None:
    with pytest.raises(NotImplementedError, match="use Chain"):
        Revm().rpc("eth_chainId")


def test_its_time_does_not_go_back() -> None:
    chain = Revm()
    with pytest.raises(ValueError, match="none can follow"):
        chain.at(chain.now())


def test_too_little_gas_to_start_is_no_refusal() -> None:
    chain = Revm()
    with pytest.raises(RuntimeError, match="gas limit"):
        chain.send(installed(chain, COUNTER), b"", SENDER, gas=20_000)


def test_what_its_rules_lack_is_what_its_docstring_says() -> None:
    """When these fail, a newer revm knows more: tests of delegated accounts may come here."""
    chain = Revm()
    add = installed(chain, "5f 5f 610100 5f 600b 61ea60 fa 3d 5f52 6020 5ff3")
    assert number(chain.call(add, b"", SENDER)) == 0  # a precompile of BLS12-381 would answer 128 bytes
    with pytest.raises(RuntimeError, match="RejectCallerWithCode"):
        chain.send(add, b"", add)


def test_states_that_anvil_puts_on_disk_are_removed_with_it() -> None:
    chain = Chain()
    try:
        for _ in range(600):  # of which it keeps 500 in memory
            chain.rpc("evm_mine")
        assert any(chain.states.rglob("*.json"))
    finally:
        chain.close()
    assert not chain.states.exists()
