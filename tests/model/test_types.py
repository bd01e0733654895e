from typing import Any

import pytest
from eth_utils import keccak as oracle_keccak
from eth_utils import to_checksum_address
from hypothesis import given
from hypothesis import strategies as st

from sealdeal.model.errors import InvalidInput
from sealdeal.model.types import RLC, address, as_bytes, bytes32, format_rlc, keccak, parse_rlc, unhex


@given(st.binary(min_size=20, max_size=20))
def test_an_address_is_spelled_as_eip55_says(raw: bytes) -> None:
    assert str(address(raw)) == to_checksum_address(raw)
    assert address("0x" + raw.hex().upper()) == address(raw)


@given(st.binary())
def test_keccak_is_the_evms(data: bytes) -> None:
    assert keccak(data) == oracle_keccak(data)


@pytest.mark.parametrize("wrong", ["", "0x12", "0x" + "g" * 40, b"short", "0x" + "1" * 41])
def test_what_is_no_address_is_refused(wrong: str | bytes) -> None:
    with pytest.raises(InvalidInput, match="expected"):
        address(wrong)


def test_what_is_not_32_bytes_is_refused() -> None:
    with pytest.raises(InvalidInput, match="32 bytes"):
        bytes32(b"x" * 31)
    with pytest.raises(InvalidInput, match="hexadecimal"):
        unhex("0xzz")


@pytest.mark.parametrize("wrong", [20, 32, 1 << 40, -1, 1.5, float("inf"), None, True, [0] * 32, {}])
def test_what_json_has_besides_text_is_not_taken_for_bytes(wrong: Any) -> None:
    for read in (address, bytes32, as_bytes):
        with pytest.raises(InvalidInput, match="hexadecimal bytes"):
            read(wrong)


@given(st.integers(0, 2**96))
def test_an_amount_for_people_reads_back(amount: int) -> None:
    assert parse_rlc(format_rlc(amount)) == amount
    assert parse_rlc(f"{amount} nRLC") == amount


def test_amounts() -> None:
    assert parse_rlc("1.5") == 3 * RLC // 2
    assert format_rlc(-RLC // 2) == "-0.5 RLC"


@pytest.mark.parametrize("wrong", ["", "x", "-1", "0.0000000001", "1 ETH", "1 2 RLC", "NaN", "Infinity"])
def test_what_is_no_amount_is_refused(wrong: str) -> None:
    with pytest.raises(InvalidInput, match="amount"):
        parse_rlc(wrong)
