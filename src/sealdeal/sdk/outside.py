"""Requests to hosts that strangers name: to public addresses only, and to the very one that was looked at.

A name can lead to a public address when it is looked up, and to one in our own network a moment later. So the
address that was looked at is the one that is connected to, while the certificate has to be the name's.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping

import httpx2

from sealdeal.model.errors import Forbidden, InvalidInput, Unavailable
from sealdeal.model.hosts import is_public


def parse_url(text: str) -> httpx2.URL:
    """Raises InvalidInput."""
    try:
        return httpx2.URL(text)
    except (httpx2.InvalidURL, ValueError) as error:
        raise InvalidInput(f"expected a URL, got {text!r:.200} ({error})") from None


async def public_address(host: str) -> str:
    """An address of the host, if none of its addresses is private. Raises Forbidden, Unavailable."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Unavailable(f"the host {host!r:.200} has no address: {error}") from None
    addresses = [str(address[0]) for *_, address in found]
    for address in addresses:
        if not is_public(address):
            raise Forbidden(f"expected a public host, {host!r:.200} leads to {address}")
    return addresses[0]


def request_at(
    client: httpx2.AsyncClient,
    method: str,
    url: httpx2.URL,
    address: str,
    headers: Mapping[str, str],
    content: bytes | AsyncIterator[bytes] | None = None,
) -> httpx2.Request:
    """A request for `url` to the host at `address`. Use a client for one host only: connections are kept by
    address, and one address may serve many."""
    return client.build_request(
        method,
        url.copy_with(host=address),
        headers={"host": url.netloc.decode(), **headers},
        content=content,
        extensions={"sni_hostname": url.host},
    )
