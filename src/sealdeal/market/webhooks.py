"""Webhooks: the end of a task, told to an address on the web, signed, and tried again until it is heard.

Messages and signatures are those of the Standard Webhooks specification (standardwebhooks.com), which has
libraries in every language: `webhook-id`, `webhook-timestamp`, and `webhook-signature`, an HMAC-SHA256 of
`id.timestamp.body`. Who makes a webhook chooses where this node connects to: so only addresses of the public
internet are called, over TLS, at the very address that was looked at, and redirections are not followed.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import secrets
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import httpx2

from sealdeal import __version__
from sealdeal.model.errors import Forbidden, InvalidInput, NotFound
from sealdeal.model.hosts import is_public
from sealdeal.model.keys import Rng
from sealdeal.model.types import Address, address, bytes32, hexstr, unhex
from sealdeal.sdk.events import FILTERS, signature

from .journal import UNREACHABLE, Delivery, Journal, Webhook, iso_time

log = logging.getLogger("sealdeal.market")

MOST_WEBHOOKS = 20
"""Of one wallet."""
MOST_URL = 2000
PAUSES = (5, 30, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""Seconds between tries of one message; after the last it is given up: three days in all."""
TIMEOUT = 10.0
"""Seconds in which a receiver must answer."""
_AT_ONCE = 32  # messages under way, one for each webhook
_LOOK = 5.0  # seconds between looks at what is due, for what other nodes queued

Resolve = Callable[[str, int], Awaitable[list[str]]]


async def resolve(name: str, port: int) -> list[str]:
    """The addresses of a name, by this machine's resolver."""
    found = await asyncio.get_running_loop().getaddrinfo(name, port, type=socket.SOCK_STREAM)
    return [str(entry[0]) for *_, entry in found]


class Webhooks:
    """Makes webhooks, and delivers to them."""

    def __init__(
        self,
        journal: Journal,
        *,
        private: bool = False,
        rng: Rng = secrets.token_bytes,
        resolve: Resolve = resolve,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        """`private`: also call addresses that are not public, and plain HTTP. `trust`: of receivers' TLS."""
        self._journal, self._private, self._rng, self._resolve = journal, private, rng, resolve
        self._woken = asyncio.Event()
        self._http = httpx2.AsyncClient(
            timeout=TIMEOUT,
            follow_redirects=False,
            trust_env=False,
            verify=trust or True,
            limits=httpx2.Limits(max_connections=_AT_ONCE, max_keepalive_connections=0),
        )

    def wake(self) -> None:
        """Look at what is due now: something was queued."""
        self._woken.set()

    async def close(self) -> None:
        await self._http.aclose()

    # --- made

    async def add(self, account: Address, url: str, filters: Mapping[str, str]) -> dict[str, Any]:
        """Make a webhook for tasks of the deals that a filter names (none: those that `account` requested).

        Its document, with the secret, which is not shown again. Raises InvalidInput for an address that may
        not be called or does not answer, Forbidden when the account has too many.
        """
        if len(filters) > 1:
            raise InvalidInput(f"at most one of {', '.join(FILTERS)} can be chosen")
        name, text = next(iter(filters.items()), ("requester", account))
        value = bytes32(text) if name == "dealid" else unhex(address(text))
        new = Webhook(
            f"wh_{self._rng(12).hex()}", account, url, self._rng(32), name, value, int(time.time() * 1000)
        )
        self._check(url)
        ping = {"type": "webhook.ping", "timestamp": iso_time(time.time()), "data": {"webhook": new.id}}
        status = await self._send(new, f"msg_{self._rng(16).hex()}", json.dumps(ping))
        if not isinstance(status, int) or not 200 <= status < 300:
            raise InvalidInput(f"url must answer a signed webhook.ping with 2xx, but: {_told(status)}")
        if not await self._journal.add_webhook(new, MOST_WEBHOOKS):
            raise Forbidden(f"maximum of {MOST_WEBHOOKS} webhooks has been reached for wallet {account}")
        return {**_document(new), "secret": f"whsec_{base64.b64encode(new.secret).decode()}"}

    async def list(self, account: Address) -> list[dict[str, Any]]:
        """An account's webhooks, without their secrets."""
        return [_document(found) for found in await self._journal.webhooks(account)]

    async def drop(self, account: Address, id: str) -> None:
        """End a webhook. Raises NotFound when the account has no such one."""
        if not await self._journal.drop_webhook(id, account):
            raise NotFound("webhook not found")

    def _check(self, url: str) -> tuple[str, int]:
        """The name and port of an address. Raises InvalidInput for one that is not called."""
        try:
            if len(url) > MOST_URL or any(ord(char) <= 32 or ord(char) > 126 for char in url):
                raise ValueError
            parts = urlsplit(url)
            port = parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError:
            raise InvalidInput("url is not a valid URL") from None
        if parts.scheme != "https" and not (self._private and parts.scheme == "http"):
            raise InvalidInput("url must begin with https://")
        if not parts.hostname or parts.username or parts.password or parts.fragment:
            raise InvalidInput("url must have a host, and neither user, password nor fragment")
        return parts.hostname, port

    # --- delivered

    async def run(self) -> None:
        """Deliver what is due, for ever; ends by cancellation only."""
        under_way: dict[str, asyncio.Task[None]] = {}
        try:
            while True:
                self._woken.clear()
                under_way = {id: task for id, task in under_way.items() if not task.done()}
                try:
                    await self._start(under_way)
                    due = await self._journal.next_due()
                except UNREACHABLE as wrong:
                    log.warning("webhooks wait: %s", wrong)
                    due = None
                pause = _LOOK if due is None else min(_LOOK, max(0.05, due / 1000 - time.time()))
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._woken.wait()
        finally:
            for task in under_way.values():
                task.cancel()
            await asyncio.gather(*under_way.values(), return_exceptions=True)

    async def _start(self, under_way: dict[str, asyncio.Task[None]]) -> None:
        free = _AT_ONCE - len(under_way)
        if free <= 0:
            return
        now = int(time.time() * 1000)
        lease = now + int(3000 * TIMEOUT)
        for delivery in await self._journal.take_deliveries(now, lease, free, list(under_way)):
            task = asyncio.create_task(self._deliver(delivery))
            task.add_done_callback(lambda _: self.wake())
            under_way[delivery.webhook.id] = task

    async def _deliver(self, delivery: Delivery) -> None:
        hook = delivery.webhook
        status = await self._send(hook, delivery.id, delivery.body)
        try:
            if isinstance(status, int) and 200 <= status < 300:
                await self._journal.settle_delivery(delivery.id, None)
            elif status == 410:  # the specification's way for a receiver to end it
                await self._journal.drop_webhook(hook.id)
            elif delivery.attempts < len(PAUSES):
                pause = PAUSES[delivery.attempts]
                log.info("webhook %s: %s; again in %d s", hook.id, _told(status), pause)
                await self._journal.settle_delivery(delivery.id, int((time.time() + pause) * 1000))
            else:
                log.warning("webhook %s: %s; message %s is given up", hook.id, _told(status), delivery.id)
                await self._journal.settle_delivery(delivery.id, None)
        except UNREACHABLE as wrong:  # its lease ends, and it is sent again
            log.warning("webhook %s: %s", hook.id, wrong)

    async def _send(self, hook: Webhook, id: str, body: str) -> int | Exception:
        """What the receiver answers, or why it did not."""
        try:
            async with asyncio.timeout(TIMEOUT):
                name, port = self._check(hook.url)
                url = httpx2.URL(hook.url)
                found = await self._resolve(name, port)
                if not found or not (self._private or all(map(is_public, found))):
                    raise InvalidInput(f"{name} is not on the public internet")
                now = int(time.time())
                headers = {
                    "host": url.netloc.decode("ascii"),
                    "content-type": "application/json",
                    "user-agent": f"sealdeal/{__version__}",
                    "webhook-id": id,
                    "webhook-timestamp": str(now),
                    "webhook-signature": signature(hook.secret, id, now, body.encode()),
                }
                request = self._http.build_request(
                    "POST",
                    url.copy_with(host=found[0]),
                    content=body.encode(),
                    headers=headers,
                    extensions={"sni_hostname": name},
                )
                answer = await self._http.send(request, stream=True)
                await answer.aclose()  # whatever it says besides is not read
                return int(answer.status_code)
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError, InvalidInput) as wrong:
            return wrong


def _told(status: int | Exception) -> str:
    if isinstance(status, int):
        return f"it answered {status}"
    if isinstance(status, InvalidInput):
        return str(status)
    return f"it does not answer ({type(status).__name__})"


def _document(hook: Webhook) -> dict[str, Any]:
    value = hexstr(hook.value) if hook.field == "dealid" else address(hexstr(hook.value))
    return {"id": hook.id, "url": hook.url, hook.field: value, "created": iso_time(hook.created_at / 1000)}
