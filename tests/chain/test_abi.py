"""The codec against eth-abi, which every Python wallet uses."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from eth_abi.abi import decode as oracle_decode
from eth_abi.abi import encode as oracle_encode
from hypothesis import given, settings
from hypothesis import strategies as st

from sealdeal.chain import Reverted
from sealdeal.chain.abi import Abi, Kind, decode, encode, kind
from sealdeal.chain.errors import BadAnswer
from sealdeal.model.errors import InvalidInput
from sealdeal.model.types import address

LEAVES = {
    Kind("uint", 256): st.integers(0, 2**256 - 1),
    Kind("uint", 8): st.integers(0, 255),
    Kind("int", 128): st.integers(-(2**127), 2**127 - 1),
    Kind("address"): st.binary(min_size=20, max_size=20).map(address),
    Kind("bool"): st.booleans(),
    Kind("bytes", 32): st.binary(min_size=32, max_size=32),
    Kind("bytes", 4): st.binary(min_size=4, max_size=4),
    Kind("bytes"): st.binary(max_size=70),
    Kind("string"): st.text(max_size=40),
}


@st.composite
def typed_values(draw: st.DrawFn, depth: int = 2) -> tuple[Kind, object]:
    shape = draw(st.sampled_from(["leaf", "leaf", "array", "fixed", "tuple"] if depth else ["leaf"]))
    if shape == "leaf":
        k = draw(st.sampled_from(list(LEAVES)))
        return k, draw(LEAVES[k])
    if shape == "tuple":
        members = draw(st.lists(typed_values(depth - 1), min_size=1, max_size=3))
        parts = tuple(k for k, _ in members)
        return Kind("tuple", 0, parts, tuple(f"m{i}" for i in range(len(parts)))), tuple(
            v for _, v in members
        )
    part, value = draw(typed_values(depth - 1))
    count = draw(st.integers(1 if shape == "fixed" else 0, 3))
    return Kind(shape, count if shape == "fixed" else 0, (part,)), [value] * count


def plain(value: object) -> object:
    """Addresses in lower case, sequences as lists: the spelling that both sides share."""
    if isinstance(value, str) and value.startswith("0x") and len(value) == 42:
        return value.lower()
    return [plain(v) for v in value] if isinstance(value, list | tuple) else value


@given(st.lists(typed_values(), max_size=4))
@settings(max_examples=150, deadline=None)
def test_both_ways_equal_the_oracle(items: list[tuple[Kind, object]]) -> None:
    kinds, values = [k for k, _ in items], [v for _, v in items]
    names = [str(k) for k in kinds]
    data = encode(kinds, values)
    assert data == oracle_encode(names, values)
    assert plain(decode(kinds, data)) == plain(list(oracle_decode(names, data))) == plain(values)


@given(st.lists(typed_values(), min_size=1, max_size=3), st.data())
@settings(max_examples=100, deadline=None)
def test_data_cut_short_or_garbled_never_breaks_out(
    items: list[tuple[Kind, object]], data: st.DataObject
) -> None:
    kinds = [k for k, _ in items]
    raw = bytearray(encode(kinds, [v for _, v in items]))
    if raw:
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    cut = bytes(raw[: data.draw(st.integers(0, len(raw)))])
    with contextlib.suppress(BadAnswer):
        decode(kinds, cut)


@pytest.mark.parametrize(
    "name, value",
    [
        ("uint8", 256),
        ("uint256", -1),
        ("uint256", "1"),
        ("bytes32", b"short"),
        ("bool", 1),
        ("address", "0x12"),
        ("uint256[2]", [1]),
        ("uint256[]", 1),
        ("string", 5),
    ],
)
def test_values_that_do_not_fit_are_refused(name: str, value: object) -> None:
    with pytest.raises(InvalidInput):
        encode([kind({"type": name})], [value])


def test_unknown_types_functions_and_events_are_named() -> None:
    with pytest.raises(InvalidInput, match="fixed128x18"):
        kind({"type": "fixed128x18"})
    abi = Abi([{"type": "function", "name": "f", "inputs": [], "outputs": []}])
    with pytest.raises(InvalidInput, match="0 functions g"):
        abi.encode("g")
    with pytest.raises(InvalidInput, match="no event Gone"):
        abi.topic("Gone")


def test_overloaded_functions_are_told_apart() -> None:
    two = [{"type": "uint256"}, {"type": "uint256"}]
    abi = Abi(
        [
            {"type": "function", "name": "f", "inputs": [{"type": "uint256"}], "outputs": []},
            {"type": "function", "name": "f", "inputs": two, "outputs": []},
            {"type": "function", "name": "g", "inputs": [{"type": "uint256"}], "outputs": []},
            {"type": "function", "name": "g", "inputs": [{"type": "bytes"}], "outputs": []},
        ]
    )
    assert abi.encode("f", 1)[:4] == bytes.fromhex("b3de648b")  # keccak of f(uint256)
    assert abi.encode("f", 1, 2) != abi.encode("f", 1)
    assert abi.encode("g(bytes)", b"x")
    with pytest.raises(InvalidInput, match="2 functions g"):
        abi.encode("g", 1)


def test_structs_have_names_and_custom_errors_have_words() -> None:
    struct = {
        "type": "tuple",
        "components": [{"name": "from", "type": "bool"}, {"name": "b", "type": "uint256"}],
    }
    k = kind(struct)
    (found,) = decode([k], encode([k], [(True, 7)]))
    assert found == (True, 7) and found.b == 7
    inputs = [{"type": "string"}]
    abi = Abi([{"type": "error", "name": "IncompatibleDatasetOrder", "inputs": inputs}])
    data = bytes.fromhex("0afd9382") + encode([Kind("string")], ["Deal not found"])
    assert abi.reason(data) == "IncompatibleDatasetOrder: Deal not found"
    assert abi.reason(data[:20]) == "IncompatibleDatasetOrder(unreadable)"
    assert abi.reason(b"\1\2\3\4") is None


def test_match_codes_are_explained() -> None:
    said = str(Reverted(reason="iExecV5-matchOrders-0x06", doing="matchOrders"))
    assert "0x06" in said and "tag lacks a bit" in said
    assert "deadline" in str(Reverted(doing="contribute"))
    assert "deposit more" in str(Reverted(reason="IexecEscrow: Transfer amount exceeds balance"))


ENTRY: dict[str, Any] = {"type": "function", "name": "f", "stateMutability": "nonpayable", "outputs": []}
KINDS = ["uint256", "int8", "bool", "address", "bytes", "bytes4", "string", "uint256[]", "(bool,string)[2]"]
INPUTS: list[dict[str, Any]] = [{"type": k, "name": "x"} for k in KINDS[:-1]]
INPUTS += [{"type": "tuple[2]", "name": "x", "components": [{"type": "bool"}, {"type": "string"}]}]
WRITTEN = ["0x10", "-7", "true", "0x" + "12" * 20, "0xff", "0x01020304", "12", "[1, 2]"]
WRITTEN += ['[[true, "a"], [false, ""]]']
MEANT: list[Any] = [16, -7, True, "0x" + "12" * 20, b"\xff", bytes([1, 2, 3, 4]), "12", [1, 2]]
MEANT += [[(True, "a"), (False, "")]]


def test_arguments_as_people_write_them() -> None:
    found = Abi([ENTRY | {"inputs": INPUTS}])
    assert found.encode_texts("f", WRITTEN) == found.encode("f", *MEANT)


@pytest.mark.parametrize("n", range(len(KINDS) - 3))
def test_an_argument_that_is_none_is_named(n: int) -> None:
    found = Abi([ENTRY | {"inputs": [INPUTS[n]]}])
    with pytest.raises(InvalidInput, match="expected"):
        found.encode_texts("f", ["a word"])
    with pytest.raises(InvalidInput, match="expected 1 arguments, got 2"):
        found.encode_texts("f", [WRITTEN[n]] * 2)
