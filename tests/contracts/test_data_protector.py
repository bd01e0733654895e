"""DataProtector: a dataset and what is inside it, in one transaction (wire.md §6.6)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boa
import pytest
from eth.exceptions import Revert
from eth_abi.abi import decode, encode
from hypothesis import given
from hypothesis import strategies as st

from sealdeal.model.types import address, keccak
from tests.contracts.evm import ZERO, account, at, calldata, code, compiled, inline, refused, signatures

CREATE = "createDatasetWithSchema(address,string,string,bytes,bytes32)"
SCHEMA, TRANSFER = keccak(b"DatasetSchema(address,string)"), keccak(b"Transfer(address,address,uint256)")
NAME, MULTIADDR, CHECKSUM = "patients", b"/ipfs/QmData", b"\x02" * 32
TOLD = '{"email":"string","photo":{"front":"image/png"}}'
LONGEST = 8192

HUB = """
packed: public(HashMap[address, uint256])

@external
def sync(entry: address, word: uint256):
    self.packed[entry] = word
"""

MEDDLER = """
# A registry that calls back before it answers.
interface Door:
    def createDatasetWithSchema(owner: address, name: String[8], schema: String[8], multiaddr: Bytes[8],
        checksum: bytes32) -> address: nonpayable

calls: public(uint256)

@external
def createDataset(owner: address, name: String[1024], multiaddr: Bytes[2048], checksum: bytes32) -> address:
    self.calls += 1
    if self.calls == 1:
        extcall Door(msg.sender).createDatasetWithSchema(owner, "inner", "inner", b"", checksum)
    return convert(self.calls, address)
"""


@pytest.fixture(autouse=True)
def undone() -> Iterator[None]:
    with boa.env.anchor():
        yield


@pytest.fixture(scope="module")
def hub() -> Any:
    return inline(HUB)


@pytest.fixture(scope="module")
def registry(hub: Any) -> Any:
    return compiled("DatasetRegistry").deploy(hub.address, code("Dataset"))


@pytest.fixture(scope="module")
def door(registry: Any) -> Any:
    return compiled("DataProtector").deploy(registry.address)


@pytest.fixture
def provider() -> str:
    return account("provider")


@pytest.fixture
def stranger() -> str:
    return account("stranger")


def logs(door: Any) -> list[tuple[str, tuple[bytes, ...], bytes]]:
    """(who, topics, data) of each event of the last call."""
    entries = door._computation.get_raw_log_entries()
    return [(address(e[1]), tuple(t.to_bytes(32, "big") for t in e[2]), e[3]) for e in entries]


def word(who: str) -> bytes:
    return bytes(12) + bytes.fromhex(who[2:])


def create(door: Any, owner: str, schema: str = TOLD, name: str = NAME, **how: Any) -> str:
    return str(door.createDatasetWithSchema(owner, name, schema, MULTIADDR, CHECKSUM, **how))


def test_it_is_what_dataprotector_calls(door: Any, registry: Any) -> None:
    """No other function: nobody owns it, nothing is kept in it, it takes no money."""
    assert signatures("DataProtector") == {CREATE, "registry()"}
    assert door.registry() == registry.address
    assert not compiled("DataProtector").compiler_data.storage_layout.get("storage_layout")
    rich = account("rich")
    boa.env.set_balance(rich, 1)
    for data in (b"", calldata(CREATE, rich, NAME, TOLD, MULTIADDR, CHECKSUM)):
        with pytest.raises(Revert, match="b''"):
            boa.env.raw_call(door.address, data=data, sender=rich, value=1)


def test_a_dataset_is_as_the_registry_itself_makes_it(
    door: Any, registry: Any, hub: Any, provider: str
) -> None:
    expected = registry.predictDataset(provider, NAME, MULTIADDR, CHECKSUM)
    made = create(door, provider, sender=provider)
    assert made == expected
    assert registry.ownerOf(int(made, 16)) == provider
    assert registry.isRegistered(made) and hub.packed(made) == registry.packed(made) != 0
    entry = at("Dataset", made)
    assert (entry.m_datasetName(), entry.m_datasetMultiaddr()) == (NAME, MULTIADDR)
    assert (entry.m_datasetChecksum(), entry.owner()) == (CHECKSUM, provider)
    assert (registry.totalSupply(), registry.balanceOf(provider)) == (1, 1)


def test_the_registry_tells_of_the_owner_and_the_door_of_the_schema(
    door: Any, registry: Any, provider: str
) -> None:
    made = create(door, provider)
    transfer, schema = logs(door)
    assert transfer == (address(registry.address), (TRANSFER, bytes(32), word(provider), word(made)), b"")
    assert schema == (address(door.address), (SCHEMA, word(made)), encode(["string"], [TOLD]))


def test_anyone_may_pay_and_nobody_else_gets_it(
    door: Any, registry: Any, provider: str, stranger: str
) -> None:
    """As in the registry: whoever names an owner gives away, and gains no right."""
    made = create(door, provider, sender=stranger)
    assert registry.ownerOf(int(made, 16)) == provider
    assert registry.balanceOf(stranger) == registry.balanceOf(door.address) == 0
    for thief in (stranger, str(door.address)):
        with refused("ERC721: transfer caller is not owner nor approved"):
            registry.transferFrom(provider, thief, int(made, 16), sender=thief)


def test_what_the_registry_refuses_is_refused_in_its_words(door: Any, registry: Any, provider: str) -> None:
    create(door, provider)
    with refused("Create2: Failed on deploy"):
        create(door, provider, "another schema makes no other dataset")
    with refused("ERC721: mint to the zero address"):
        create(door, ZERO)
    assert registry.totalSupply() == 1


def test_longest_texts_fit_and_longer_ones_are_refused(door: Any, provider: str) -> None:
    longest = ("n" * 1024, "s" * LONGEST, b"m" * 2048)
    made = door.createDatasetWithSchema(provider, *longest, CHECKSUM)
    assert logs(door)[1][2] == encode(["string"], [longest[1]])
    assert at("Dataset", made).m_datasetMultiaddr() == longest[2]
    for place, longer in enumerate(("n" * 1025, "s" * (LONGEST + 1), b"m" * 2049)):
        texts = (*longest[:place], longer, *longest[place + 1 :])
        with pytest.raises(Revert, match="b''"):  # refused by the ABI decoder, without data
            boa.env.raw_call(door.address, data=calldata(CREATE, provider, *texts, CHECKSUM))


def test_calldata_that_end_too_early_are_refused(door: Any, provider: str) -> None:
    whole = calldata(CREATE, provider, NAME, TOLD, MULTIADDR, CHECKSUM)
    far = whole[:36] + b"\xff" * 32 + whole[68:]  # where the name is said to lie
    for data in (whole[:4], whole[:36], whole[: 4 + 5 * 32 - 1], far):
        with pytest.raises(Revert, match="b''"):
            boa.env.raw_call(door.address, data=data)


@pytest.mark.parametrize(
    "source",
    ["", "@external\ndef __default__():\n    pass", "@external\ndef __default__():\n    raise 'closed'"],
    ids=["nobody", "one that answers nothing", "one that refuses"],
)
def test_without_a_registry_nothing_is_told(source: str, provider: str) -> None:
    where = inline(source).address if source else account("nobody")
    door = compiled("DataProtector").deploy(where)
    with refused("closed" if "raise" in source else None):
        create(door, provider)


def test_a_registry_that_calls_back_gains_nothing(provider: str) -> None:
    """The door keeps nothing, so both calls are what they would have been one after the other."""
    meddler = inline(MEDDLER)
    door = compiled("DataProtector").deploy(meddler.address)
    assert int(create(door, provider, "outer"), 16) == 2
    told = [(int.from_bytes(topics[1], "big"), decode(["string"], data)[0]) for _, topics, data in logs(door)]
    assert told == [(2, "inner"), (2, "outer")]
    assert meddler.calls() == 2


def test_the_schema_costs_little_beside_the_dataset(door: Any, registry: Any, provider: str) -> None:
    with boa.env.anchor():
        registry.createDataset(provider, NAME, MULTIADDR, CHECKSUM)
        alone = registry._computation.get_gas_used()
    create(door, provider)
    assert door._computation.get_gas_used() - alone < 10_000


@given(schema=st.text(max_size=LONGEST // 4), name=st.text(max_size=256))
def test_any_text_is_told_as_it_is(door: Any, schema: str, name: str) -> None:
    provider = account("provider")
    with boa.env.anchor():
        made = create(door, provider, schema, name)
        assert decode(["string"], logs(door)[1][2]) == (schema,)
        assert at("Dataset", made).m_datasetName() == name
