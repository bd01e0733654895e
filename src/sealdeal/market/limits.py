"""Who may ask how often: the official limit of requests (wire.md §1.1), and errors of the last resort.

As there: a window of a minute begins with a client's first request, the headers tell what is left of it, and
this machine and the pages of some origins are not limited. Unlike there, a header cannot be used to get
around it: `X-Real-IP` and `X-Forwarded-For` count from trusted proxies only, an origin's pages have a higher
limit instead of none, and an IPv6 network of 64 bits is one client.
"""

from __future__ import annotations

import ipaddress
import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("sealdeal.market")

EXPOSED = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "Retry-After")
"""Headers that pages of other origins may read."""
_LARGER = 100  # times the limit that pages of exempt origins have
_CLIENTS = 100_000  # remembered at once; the oldest windows are forgotten first
_FEED = "/ws"  # whose polling is bounded by its sessions: only opening one counts


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one client may ask."""

    requests: int = 100
    """In one period; 0: no limit."""
    period: float = 60.0
    """Seconds."""
    origins: tuple[str, ...] = ("iex.ec",)
    """Domains whose pages, and whose subdomains' pages, have a hundred times as much."""
    proxies: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    """Networks whose word on where a request came from is believed."""
    streams: int = 50
    """Event streams that one client may have open."""


@dataclass(slots=True)
class _Window:
    ends: float
    left: int


class RateLimit:
    """ASGI middleware that refuses what is over the limit, and answers what nobody else caught."""

    def __init__(self, app: ASGIApp, limits: Limits, clock: Callable[[], float] = time.time) -> None:
        """`clock`: seconds since 1970."""
        self._app, self._limits, self._clock = app, limits, clock
        self._proxies = [ipaddress.ip_network(network) for network in limits.proxies]
        self._windows: dict[str, _Window] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            scope["sealdeal.client"] = self.client(scope)
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False
        headers: dict[str, str] = {}

        async def answer(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                MutableHeaders(scope=message).update(headers)
            await send(message)

        client = scope["sealdeal.client"] = self.client(scope)
        headers, refused = self._spend(client, scope)
        if refused:
            body = {"ok": False, "error": "Rate limit exceeded"}
            await JSONResponse(body, 429)(scope, receive, answer)
            return
        try:
            await self._app(scope, receive, answer)
        except Exception:
            log.exception("answered 500: %s %s", scope["method"], scope["path"])
            if begun:
                raise
            await JSONResponse({"ok": False, "error": "Internal error"}, 500)(scope, receive, answer)

    def client(self, scope: Scope) -> str:
        """Who asks, as an IP address, or a network of IPv6 addresses."""
        address = _address((scope.get("client") or ("",))[0])
        if address is None:
            return ""
        headers = Headers(scope=scope)
        if self._is_proxy(address):
            if (told := _address(headers.get("x-real-ip", ""))) is not None:
                address = told
            else:
                for hop in reversed(headers.get("x-forwarded-for", "").split(",")):
                    if (told := _address(hop)) is None:
                        break
                    address = told
                    if not self._is_proxy(told):
                        break
        if isinstance(address, ipaddress.IPv6Address) and not address.is_loopback:
            return str(ipaddress.ip_network((address, 64), strict=False))
        return str(address)

    def _is_proxy(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
        return any(address.version == known.version and address in known for known in self._proxies)

    def _spend(self, client: str, scope: Scope) -> tuple[dict[str, str], bool]:
        """The headers that tell a client where it stands, and whether this request is one too many."""
        limit = self._limits.requests
        if not limit or scope["method"] == "OPTIONS" or _is_local(client):
            return {}, False
        if scope["path"].startswith(_FEED) and b"sid=" in scope["query_string"]:
            return {}, False
        favoured = self._favours(Headers(scope=scope).get("origin", ""))
        if favoured:
            limit, client = limit * _LARGER, f"{client} page"
        now = self._clock()
        window = self._windows.get(client)
        if window is None or window.ends <= now:
            self._windows.pop(client, None)
            self._forget(now)
            window = self._windows[client] = _Window(now + self._limits.period, limit)
        refused = window.left <= 0
        window.left = max(0, window.left - 1)
        headers = {
            "X-RateLimit-Limit": str(limit),
            "X-RateLimit-Remaining": str(window.left),
            "X-RateLimit-Reset": str(int(window.ends)),
        }
        if refused:
            return {**headers, "Retry-After": str(max(1, round(window.ends - now)))}, True
        return {} if favoured else headers, False

    def _favours(self, origin: str) -> bool:
        scheme, _, host = origin.lower().partition("://")
        host = host.partition(":")[0]
        return scheme in ("http", "https") and any(
            host == domain or host.endswith(f".{domain}") for domain in self._limits.origins
        )

    def _forget(self, now: float) -> None:
        """Windows are kept in the order in which they began, which is that in which they end."""
        while self._windows:
            oldest = next(iter(self._windows))
            if self._windows[oldest].ends > now and len(self._windows) < _CLIENTS:
                return
            del self._windows[oldest]


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(text.strip())
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def _is_local(client: str) -> bool:
    address = _address(client)
    return address is not None and address.is_loopback


class OpenStreams:
    """How many streams each client has open."""

    def __init__(self, most: int, in_all: int = 10_000) -> None:
        """`most`: of one client, unless it is on this machine."""
        self._most, self._in_all = most, in_all
        self._open: Counter[str] = Counter()

    @property
    def in_use(self) -> int:
        """How many are open."""
        return self._open.total()

    def open(self, client: str) -> bool:
        """Count one more; False when it is one too many. Every one that was counted has to be closed."""
        if self.in_use >= self._in_all or (self._open[client] >= self._most and not _is_local(client)):
            return False
        self._open[client] += 1
        return True

    def close(self, client: str) -> None:
        self._open[client] -= 1
        if self._open[client] <= 0:
            del self._open[client]
