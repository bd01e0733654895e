"""Questions to vendors over real HTTP: bounded in time and size, and never sent elsewhere."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from sealdeal.model.errors import Unavailable
from sealdeal.model.evidence import MAX_COLLATERAL_BYTES
from sealdeal.sdk.vendors import vendor_get
from tests.tee.test_collateral import served


async def test_an_answer_has_its_body_and_headers_in_lower_case() -> None:
    with served({"/crl?a=b": ({"TCB-Info-Issuer-Chain": "pem"}, b"body")}) as (url, asked):
        answer = await vendor_get()(f"{url}/crl?a=b")
    assert (answer.body, answer.headers["tcb-info-issuer-chain"]) == (b"body", "pem")
    assert asked == ["/crl?a=b"]


async def test_only_a_200_of_bounded_size_counts() -> None:
    limit = MAX_COLLATERAL_BYTES
    with served({"/good": ({}, b"x" * limit), "/large": ({}, b"x" * (limit + 1))}) as (url, _):
        assert len((await vendor_get()(f"{url}/good")).body) == limit
        with pytest.raises(Unavailable, match=f"expected at most {limit} bytes"):
            await vendor_get()(f"{url}/large")
        with pytest.raises(Unavailable, match="got status 404"):
            await vendor_get()(f"{url}/other")


@pytest.fixture
def silent() -> Iterator[str]:
    """A service that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


async def test_a_service_that_never_answers_is_left(silent: str) -> None:
    with pytest.raises(Unavailable, match="does not answer"):
        await vendor_get(timeout=0.2)(f"{silent}/crl")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "ftp://127.0.0.1/", "not a url", "http://[::1"])
async def test_a_wrong_url_is_unavailable(url: str) -> None:
    with pytest.raises(Unavailable, match="does not answer"):
        await vendor_get(timeout=2)(url)
