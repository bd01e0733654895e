"""Vendors' collateral services over HTTP: the `Get` that `sealdeal.tee.collateral` asks for."""

from __future__ import annotations

import ssl

import httpx2

from sealdeal.model.errors import Unavailable
from sealdeal.model.evidence import MAX_COLLATERAL_BYTES
from sealdeal.tee.collateral import Answer, Get

from .http import Transport

TIMEOUT = 15.0
"""Seconds for one question to a vendor."""


def vendor_get(transport: Transport | None = None, timeout: float = TIMEOUT) -> Get:
    """A GET with bounds on time and size. What it returns raises Unavailable for anything but a 200."""

    trusted = ssl.create_default_context()  # reading the system's roots takes longer than a question

    async def get(url: str) -> Answer:
        try:
            async with (
                httpx2.AsyncClient(transport=transport, timeout=timeout, verify=trusted) as client,
                client.stream("GET", url) as response,
            ):
                body = bytearray()
                async for part in response.aiter_bytes():
                    body += part
                    if len(body) > MAX_COLLATERAL_BYTES:
                        raise Unavailable(
                            f"expected at most {MAX_COLLATERAL_BYTES} bytes from {url}, got more"
                        )
        except (httpx2.HTTPError, httpx2.InvalidURL) as failed:
            raise Unavailable(f"{url} does not answer: {failed or type(failed).__name__}") from None
        if response.status_code != 200:
            raise Unavailable(f"expected collateral from {url}, got status {response.status_code}")
        return Answer(bytes(body), {name.lower(): value for name, value in response.headers.items()})

    return get
