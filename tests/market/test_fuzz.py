"""Every route of the market, asked anything: it answers in its dialect, and is never at fault."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.generation import GenerationMode

from sealdeal.market.app import create_app
from sealdeal.sdk.challenges import authorization
from tests.market.conftest import Stand
from tests.market.server import served
from tests.network import CHAIN_ID, key

UNASKED = {"/events", "/version"}
"""What never ends, and what can be asked in one way only."""


def _probe(url: str, operations: list[Any], mode: GenerationMode) -> None:
    """Send routes what their description allows, or does not."""
    requester = key("requester")
    cases = [operation.as_strategy(generation_mode=mode) for operation in operations]

    @settings(suppress_health_check=list(HealthCheck))
    @given(case=st.one_of(cases))
    def ask(case: Any) -> None:
        parts = case.as_transport_kwargs(base_url=url)
        headers = {name: str(value) for name, value in (parts.get("headers") or {}).items()}
        if case.operation.method.upper() in ("POST", "PUT", "DELETE"):
            query = {"chainId": str(CHAIN_ID), "address": requester.address}
            challenge = client.get(f"{url}/challenge", params=query).json()["data"]
            headers["authorization"] = authorization(CHAIN_ID, challenge, requester)
        body = {name: parts[name] for name in ("json", "data") if parts.get(name) is not None}
        if not isinstance(body.get("data"), bytes | str | None):
            body["json"] = body.pop("data")
        if "data" in body:
            body["content"] = body.pop("data")
        try:
            request = client.build_request(
                parts["method"], parts["url"], params=parts.get("params"), headers=headers, **body
            )
        except (httpx2.InvalidURL, UnicodeError, ValueError, TypeError):
            return  # nothing that a client can send
        answer = client.send(request)
        assert answer.status_code < 500, (case, answer.text)
        if answer.headers.get("content-type") == "application/json":
            document = answer.json()
            assert document["ok"] is (answer.status_code == 200)
            assert document["ok"] or isinstance(document["error"], str)

    with httpx2.Client(timeout=30) as client:
        ask()


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["right", "wrong"])
async def test_no_question_is_the_markets_fault(book: Stand, mode: GenerationMode) -> None:
    await book.publish_all(*await book.network.orders())
    app = create_app(book.market)
    schema = schemathesis.openapi.from_dict(app.openapi())
    operations: list[Any] = [found.ok() for found in schema.get_all_operations()]  # type: ignore[union-attr]
    paths = {operation.path for operation in operations}
    assert {"/apporders", "/deals", "/challenge", "/webhooks", *UNASKED} <= paths
    async with served(book.market, app) as url:
        asked = [operation for operation in operations if operation.path not in UNASKED]
        await asyncio.to_thread(_probe, url, asked, mode)
    assert (await book.get("/apporders", app="any")).json()["ok"] is True
