"""Links to IPFS become 32 bytes and links again: tasks.vy's arithmetic against base 58 by its definition."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vyper.compiler import output

from tests.contracts import links
from tests.contracts.chain import Contract
from tests.contracts.revm import Revm
from tests.contracts.sources import SOURCES, compiled

NO_DIGIT = 2**256 - 1
SEVERAL = 3_000
"""Random words that everybody can wait for."""
WORD_EDGES = sorted(
    {n % 2**256 for bit in range(257) for n in (2**bit - 1, 2**bit, 2**bit + 1)}
    | {n % 2**256 for power in range(45) for n in (58**power - 1, 58**power, 58**power + 1)}
    | {0xFF << 8 * n for n in range(32)}
)
"""Where a bit, a byte or a digit begins or ends."""


@pytest.fixture(scope="module")
def tasks() -> Contract:
    """tests/contracts/Links.vy, which calls the module's own functions."""
    data = compiled(Path(__file__).with_name("Links.vy"), SOURCES)
    chain = Revm()
    sender = "0x" + "11" * 20
    return Contract(chain, output.build_abi_output(data), chain.deploy(bytes(data.bytecode), sender), sender)


def number(tasks: Contract, text: bytes) -> int | None:
    """What the contract makes of 32 characters."""
    found: int = tasks.number(int.from_bytes(text, "big"))
    return None if found == NO_DIGIT else found


def expected(text: bytes) -> int | None:
    return links.value(text.decode("latin-1"))


# ---- Digits ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("others", ["1", "z", "k"])
def test_every_character_at_every_place(tasks: Contract, others: str) -> None:
    """All 256 bytes at each of 32 places, the others the lowest digit, the highest, or one between."""
    for place in range(32):
        for byte in range(256):
            text = others.encode() * place + bytes([byte]) + others.encode() * (31 - place)
            assert number(tasks, text) == expected(text), text


def test_numbers_of_32_digits(tasks: Contract) -> None:
    random = Random(58)
    for _ in range(SEVERAL):
        text = "".join(random.choices(links.ALPHABET, k=32)).encode()
        assert number(tasks, text) == expected(text)
    for value in {edge % 58**32 for edge in WORD_EDGES} | {58**32 - 1}:
        assert number(tasks, links.digits(value, 32).encode()) == value


@given(text=st.binary(min_size=32, max_size=32))
def test_words_that_are_no_number(tasks: Contract, text: bytes) -> None:
    assert number(tasks, text) == expected(text)


# ---- Links -------------------------------------------------------------------------------------------------


def test_every_hash_has_a_link_of_46_characters() -> None:
    """What the contract's split of a CID rests on: the first two of its digits are always "Qm"."""
    for end in (links.FIRST, links.LAST):
        assert links.digits(end, 46).startswith("Qm")


def test_links_are_written_and_read(tasks: Contract) -> None:
    random = Random(46)
    words = [*WORD_EDGES, *(random.getrandbits(256) for _ in range(SEVERAL))]
    for word in words:
        hashed = word.to_bytes(32, "big")
        link = links.link(hashed)
        assert tasks.link(hashed) == link
        assert tasks.multihash(link) == (True, hashed)


def test_every_other_byte_of_a_link(tasks: Contract) -> None:
    """All 256 bytes at each of its 89 places: it is still a link only if they say another CID."""
    whole = links.link(bytes(range(100, 132)))
    for place in range(len(whole)):
        for byte in range(256):
            other = whole[:place] + bytes([byte]) + whole[place + 1 :]
            hashed = links.multihash(other)
            found, kept = tasks.multihash(other)
            assert found == (hashed is not None), other
            assert not found or kept == hashed


def test_the_ends_of_the_range(tasks: Contract) -> None:
    """Of all numbers of 46 digits those are CIDs that begin with 0x1220; some below are "Qm…" as well."""
    for end in (links.FIRST, links.LAST + 1):
        for near in (*range(-300, 300), *(sign * 2**bit for bit in range(9, 256) for sign in (-1, 1))):
            text = links.around(links.digits(end + near, 46).encode())
            found, kept = tasks.multihash(text)
            assert found == (links.FIRST <= end + near <= links.LAST)
            assert not found or kept == links.multihash(text)
    assert links.digits(links.FIRST - 1, 46).startswith("Qm")


@given(results=links.near)
def test_what_is_almost_a_link(tasks: Contract, results: bytes) -> None:
    hashed = links.multihash(results)
    found, kept = tasks.multihash(results)
    assert found == (hashed is not None)
    assert not found or kept == hashed
    if found:
        assert tasks.link(kept) == results


# ---- Short results -----------------------------------------------------------------------------------------


def check_short(tasks: Contract, results: bytes) -> None:
    """39 bytes and their length fit into slots, or a link."""
    fits, kept, told = tasks.short(results)
    hashed = links.multihash(results)
    if len(results) <= 39:
        padded = results.ljust(39, b"\0")
        assert (fits, kept) == (True, padded[:32])
        assert told == int.from_bytes(padded[32:], "big") | (len(results) + 1) << 56
    else:
        assert fits == (hashed is not None)
        assert not fits or (kept, told) == (hashed, 0)


def test_results_of_each_length(tasks: Contract) -> None:
    for length in range(100):
        check_short(tasks, bytes(range(1, length + 1)))
        check_short(tasks, bytes(length))


@given(results=links.sized(90) | links.near)
def test_what_fits_into_slots(tasks: Contract, results: bytes) -> None:
    check_short(tasks, results)
