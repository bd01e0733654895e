"""Who may ask how often, and who cannot get around it."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from sealdeal.market.limits import Limits, RateLimit

THREE = Limits(requests=3, proxies=("127.0.0.0/8", "10.0.0.0/8"))


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["path"] == "/wrong":
        raise RuntimeError("a flaw")
    await PlainTextResponse(Request(scope).scope["sealdeal.client"])(scope, receive, send)


class Stand:
    def __init__(self, limits: Limits = THREE) -> None:
        self.clock = Clock()
        self.app = RateLimit(answer, limits, self.clock)

    async def get(self, peer: str, path: str = "/", method: str = "GET", **headers: Any) -> httpx2.Response:
        transport = httpx2.ASGITransport(app=self.app, client=(peer, 1))
        async with httpx2.AsyncClient(transport=transport, base_url="http://market") as client:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            return await client.request(method, path, headers=names)


async def test_a_client_has_so_many_requests_in_a_minute() -> None:
    stand = Stand()
    for left in (2, 1, 0):
        found = await stand.get("8.8.8.8")
        assert found.status_code == 200
        assert found.headers["x-ratelimit-limit"] == "3"
        assert found.headers["x-ratelimit-remaining"] == str(left)
        assert found.headers["x-ratelimit-reset"] == "1000060"
        stand.clock.now += 10
    over = await stand.get("8.8.8.8")
    assert (over.status_code, over.json()) == (429, {"ok": False, "error": "Rate limit exceeded"})
    assert over.headers["retry-after"] == "30" and over.headers["x-ratelimit-remaining"] == "0"
    assert (await stand.get("8.8.4.4")).status_code == 200
    stand.clock.now += 30
    assert (await stand.get("8.8.8.8")).headers["x-ratelimit-remaining"] == "2"


async def test_this_machine_and_preflights_are_not_limited() -> None:
    stand = Stand()
    for _ in range(5):
        for peer in ("127.0.0.1", "::1", "::ffff:127.0.0.1"):
            found = await stand.get(peer)
            assert found.status_code == 200 and "x-ratelimit-limit" not in found.headers
        assert (await stand.get("8.8.8.8", method="OPTIONS")).status_code == 200


async def test_pages_of_a_favoured_origin_have_more_and_not_without_end() -> None:
    stand = Stand(Limits(requests=1))
    for _ in range(100):
        found = await stand.get("8.8.8.8", origin="https://explorer.iex.ec")
        assert found.status_code == 200 and "x-ratelimit-limit" not in found.headers
    assert (await stand.get("8.8.8.8", origin="https://explorer.iex.ec")).status_code == 429
    for origin in ("https://iex.ec.evil.org", "https://notiex.ec", "iex.ec"):
        peer = f"9.9.9.{len(origin)}"
        assert (await stand.get(peer, origin=origin)).status_code == 200
        assert (await stand.get(peer, origin=origin)).status_code == 429


@pytest.mark.parametrize(
    ("peer", "headers", "client"),
    [
        ("8.8.8.8", {"x_real_ip": "1.1.1.1", "x_forwarded_for": "2.2.2.2"}, "8.8.8.8"),
        ("10.1.1.1", {"x_real_ip": "1.1.1.1", "x_forwarded_for": "2.2.2.2"}, "1.1.1.1"),
        ("10.1.1.1", {"x_forwarded_for": "2.2.2.2"}, "2.2.2.2"),
        ("10.1.1.1", {"x_forwarded_for": "6.6.6.6, 2.2.2.2, 10.9.9.9"}, "2.2.2.2"),
        ("10.1.1.1", {"x_forwarded_for": "rubbish"}, "10.1.1.1"),
        ("10.1.1.1", {}, "10.1.1.1"),
        ("2001:db8::1", {}, "2001:db8::/64"),
        ("::ffff:8.8.8.8", {}, "8.8.8.8"),
    ],
)
async def test_only_proxies_that_are_trusted_say_who_asks(
    peer: str, headers: dict[str, str], client: str
) -> None:
    assert (await Stand().get(peer, **headers)).text == client


async def test_a_flaw_is_answered_in_the_dialect(caplog: pytest.LogCaptureFixture) -> None:
    found = await Stand().get("8.8.8.8", "/wrong")
    assert (found.status_code, found.json()) == (500, {"ok": False, "error": "Internal error"})
    assert "a flaw" in caplog.text


async def test_what_a_flood_of_clients_leaves_behind_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sealdeal.market.limits._CLIENTS", 10)
    stand = Stand()
    for n in range(50):
        await stand.get(f"8.8.8.{n}")
    assert len(stand.app._windows) <= 10
