"""Links to IPFS as results hold them, and what is almost one; base 58 by its definition."""

from __future__ import annotations

import hypothesis.strategies as st

ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
HEAD, TAIL = b'{ "storage": "ipfs", "location": "/ipfs/', b'" }'
LENGTH = len(HEAD) + 46 + len(TAIL)
SHA256 = 0x1220
"""What a CID of version 0 begins with, of the 34 bytes that its 46 characters stand for."""
FIRST, LAST = SHA256 << 256, (SHA256 + 1 << 256) - 1
"""The lowest and the highest of those numbers."""


def digits(number: int, length: int) -> str:
    """In base 58, with ones (its zeros) in front."""
    text = ""
    for _ in range(length):
        number, digit = divmod(number, 58)
        text = ALPHABET[digit] + text
    assert number == 0, "more digits than that"
    return text


def value(text: str) -> int | None:
    """What the digits stand for; None if one is no digit."""
    number = 0
    for letter in text:
        if letter not in ALPHABET:
            return None
        number = number * 58 + ALPHABET.index(letter)
    return number


def around(cid: bytes) -> bytes:
    return HEAD + cid + TAIL


def link(multihash: bytes) -> bytes:
    """The usual link to this SHA-256 hash."""
    return around(digits(FIRST | int.from_bytes(multihash, "big"), 46).encode())


def multihash(results: bytes) -> bytes | None:
    """The hash that is linked to; None if the results are not a usual link."""
    if len(results) != LENGTH or not results.startswith(HEAD) or not results.endswith(TAIL):
        return None
    number = value(results[len(HEAD) : -len(TAIL)].decode("latin-1"))
    if number is None or not FIRST <= number <= LAST:
        return None
    return (number - FIRST).to_bytes(32, "big")


# ---- Strategies --------------------------------------------------------------------------------------------

EDGES = [0, 1, 57, 58, 2**32 - 1, 2**32, 2**128 - 1, 2**128, 58**32 - 1, 58**32, 2**255, 2**256 - 1]
"""Hashes, as numbers, where the halves that the contract computes with meet or run full."""


def sized(longest: int) -> st.SearchStrategy[bytes]:
    """Bytes of any length up to this, each as likely: left alone, hypothesis makes few that are long."""
    return st.integers(0, longest).flatmap(lambda n: st.binary(min_size=n, max_size=n))


hashes = st.binary(min_size=32, max_size=32) | st.sampled_from(EDGES).map(lambda n: n.to_bytes(32, "big"))
usual = hashes.map(link)
base58 = st.text(ALPHABET, min_size=44, max_size=44)
numbers = (
    st.integers(FIRST - 2**40, FIRST + 2**40)
    | st.integers(LAST - 2**40, LAST + 2**40)
    | st.integers(0, 58**46 - 1)
    | st.integers(0x1200 << 256, 0x1240 << 256)
)
"""Around the ends of the range, and far from them."""


@st.composite
def spoilt(draw: st.DrawFn) -> bytes:
    """A usual link with one byte of it another, one more or one less."""
    whole = draw(usual)
    at = draw(st.integers(0, len(whole)))
    instead = draw(st.sampled_from([b"0", b"O", b"I", b"l", b" ", b'"', b"\x80", b"\xff", b"1", b"z", b""]))
    return whole[:at] + instead + whole[at + draw(st.integers(0, 1)) :]


near: st.SearchStrategy[bytes] = st.one_of(
    usual,
    base58.map(lambda text: around(b"Qm" + text.encode())),
    numbers.map(lambda number: around(digits(number, 46).encode())),
    spoilt(),
    # CIDs of version 1, longer and shorter ones, other spacing.
    st.text("abcdefghijklmnopqrstuvwxyz234567", min_size=58, max_size=58).map(
        lambda t: around(b"b" + t.encode())
    ),
    st.binary(min_size=40, max_size=50).map(around),
    usual.map(lambda whole: whole.replace(b" ", b"")),
    usual.map(lambda whole: whole.replace(b'": "', b'" :"')),
    usual.map(lambda whole: whole.replace(b"ipfs", b"ipns")),
    usual.map(bytes.upper),
)
"""Usual links, and others of about that look."""
