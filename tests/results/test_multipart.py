"""multipart/form-data in pieces of any size, against httpx's encoder."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealdeal.model.errors import InvalidInput, TooLarge
from sealdeal.results.multipart import HEADER_LIMIT, Multipart, boundary_of, filename_of


async def cut(body: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


async def read(body: bytes, boundary: bytes, size: int) -> list[tuple[str, bytes]]:
    form = Multipart(cut(body, size), boundary)
    return [(filename_of(head), b"".join([p async for p in form.data()])) async for head in form.parts()]


contents = st.lists(
    st.binary(max_size=200) | st.sampled_from([b"\r\n", b"\r\n--", b"--x", b"\r\n--x\r"]), max_size=4
)


@given(contents, st.integers(1, 50))
async def test_what_httpx_sends_is_read(files: list[bytes], size: int) -> None:
    named = [("file", (f"name {i}", data)) for i, data in enumerate(files)]
    request = httpx2.Request("POST", "http://store", files=named or [("file", ("empty", b""))])
    body, kind = request.read(), request.headers["content-type"]
    expected = [(f"name {i}", data) for i, data in enumerate(files)] or [("empty", b"")]
    assert await read(body, boundary_of(kind), size) == expected


async def test_a_part_left_unread_is_skipped() -> None:
    body = b"preamble\r\n--x\r\nA: 1\r\n\r\nfirst\r\n--x\r\nA: 2\r\n\r\nsecond\r\n--x--\r\nepilogue"
    form = Multipart(cut(body, 3), b"x")
    assert [head.strip() async for head in form.parts()] == ["A: 1", "A: 2"]


@pytest.mark.parametrize(
    "body", [b"", b"--x", b"--x\r\n", b"--x\r\nA: 1\r\n\r\ndata", b"--y\r\n\r\n\r\n--y--"]
)
async def test_a_body_that_ends_early(body: bytes) -> None:
    with pytest.raises(InvalidInput, match="ends before"):
        await read(body, b"x", 5)


async def test_endless_headers() -> None:
    with pytest.raises(TooLarge, match="headers"):
        await read(b"--x\r\n" + b"a" * (HEADER_LIMIT + 10), b"x", 1000)


@pytest.mark.parametrize(
    "kind", ["", "application/json", "multipart/form-data", "multipart/mixed; boundary=x"]
)
def test_content_types_without_a_form(kind: str) -> None:
    with pytest.raises(InvalidInput, match="multipart/form-data with a boundary"):
        boundary_of(kind)


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ('Content-Disposition: form-data; name="file"; filename="a.zip"', "a.zip"),
        ('Content-Disposition: form-data; name="file"; filename="../../etc/passwd"', "etc/passwd"),
        ('Content-Disposition: form-data; filename="C:\\\\x\\\\y.txt"', "y.txt"),
        ("Content-Disposition: form-data; filename=plain", "plain"),
        ("Content-Disposition: form-data; name=path", ""),
    ],
)
def test_file_names(headers: str, name: str) -> None:
    assert filename_of(headers) == name
