"""JSON-RPC over HTTP: the only place where bytes go to a node and come back."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import random
from collections.abc import Sequence
from typing import Any, Self
from urllib.parse import urlsplit

import httpx2

from .errors import BadAnswer, ChainUnreachable, Reverted, RpcError

log = logging.getLogger("sealdeal.chain")

BATCH = 100
"""Requests in one HTTP body, at most: what the strictest public providers accept."""

_BUSY = frozenset({429, 502, 503, 504})
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Rpc:
    """One node. Reads are repeated while it does not answer, for `patience` seconds; sends never are.

    `timeout` and `patience` are seconds. Errors: ChainUnreachable (no answer, or a busy proxy),
    RpcError (the node's own), Reverted (a contract refused), BadAnswer (not JSON-RPC).
    """

    def __init__(self, url: str, *, timeout: float = 10.0, patience: float = 0.0) -> None:
        host = urlsplit(url).hostname or url
        self.url = url
        self.name = f"the chain's node at {host}:{urlsplit(url).port or ''}".rstrip(":")  # no key in a path
        self.patience = patience
        self._http = httpx2.AsyncClient(
            timeout=timeout, trust_env=host not in LOOPBACK, verify=url.startswith("https:")
        )
        self._ids = itertools.count(1)
        self._chain_id: int | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def call(self, method: str, *params: Any, patience: float | None = None) -> Any:
        """The result of one request."""
        (answer,) = await self.batch([(method, *params)], patience=patience)
        return answer

    async def batch(
        self, calls: Sequence[tuple[Any, ...]], *, patience: float | None = None, raising: bool = True
    ) -> list[Any]:
        """The results of many requests `(method, *params)`, in order, in as few round trips as fit.

        The first refusal is raised; with `raising=False` it is returned in its place instead.
        """
        answers: list[Any] = []
        for first in range(0, len(calls), BATCH):
            answers += await self._ask(
                calls[first : first + BATCH], self.patience if patience is None else patience
            )
        if raising:
            for answer in answers:
                if isinstance(answer, Exception):
                    raise answer
        return answers

    async def chain_id(self) -> int:
        """The node's chain id, asked once."""
        if self._chain_id is None:
            self._chain_id = int(await self.call("eth_chainId"), 16)
        return self._chain_id

    async def _ask(self, calls: Sequence[tuple[Any, ...]], patience: float) -> list[Any]:
        bodies = [
            {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": params}
            for method, *params in calls
        ]
        content = json.dumps(bodies[0] if len(bodies) == 1 else bodies, separators=(",", ":"))
        repeatable = all(_repeatable(call[0]) for call in calls)
        clock = asyncio.get_running_loop().time
        began, delay, tries = clock(), 0.05, 0
        while True:
            try:
                return self._read(bodies, await self._post(content))
            except ChainUnreachable as gone:
                tries += 1
                # a kept connection that the node has closed meanwhile is no outage: always try twice
                if not repeatable or (tries > 1 and clock() - began >= patience):
                    raise
                log.debug("%s; trying again", gone)
            if tries > 1:
                await asyncio.sleep(delay * random.uniform(0.7, 1.3))
                delay = min(delay * 2, 1.0)

    async def _post(self, content: str) -> Any:
        try:
            response = await self._http.post(
                self.url, content=content, headers={"content-type": "application/json"}
            )
        except (httpx2.TransportError, OSError) as failed:
            raise ChainUnreachable(
                f"{self.name} does not answer ({type(failed).__name__}: {failed})"
            ) from None
        if response.status_code in _BUSY:
            raise ChainUnreachable(f"{self.name} is busy (HTTP {response.status_code})")
        try:
            return response.json()
        except ValueError:
            raise BadAnswer(
                f"expected JSON-RPC from {self.name}, got HTTP {response.status_code}: "
                f"{response.text[:80]!r}; check the URL"
            ) from None

    def _read(self, bodies: list[dict[str, Any]], answer: Any) -> list[Any]:
        items = answer if isinstance(answer, list) else [answer]
        if not all(isinstance(item, dict) for item in items):
            raise BadAnswer(f"expected JSON-RPC objects from {self.name}, got {str(answer)[:80]!r}")
        if len(items) == 1 and len(bodies) > 1 and "error" in items[0]:  # a batch refused as a whole
            return [_refusal(items[0]["error"], body) for body in bodies]
        by_id = {item.get("id"): item for item in items}
        results = []
        for body in bodies:
            item = by_id.get(body["id"], items[0] if len(items) == len(bodies) == 1 else None)
            if item is None or ("error" not in item and "result" not in item):
                raise BadAnswer(f"{self.name} gave neither a result nor an error for {body['method']}")
            results.append(_refusal(item["error"], body) if item.get("error") else item["result"])
        return results


def _repeatable(method: str) -> bool:
    """May the request be made twice? Reads may; what mines, changes or sends may not."""
    return method.startswith(("eth_", "net_", "web3_")) and not method.startswith("eth_send")


def _refusal(error: Any, body: dict[str, Any]) -> RpcError | Reverted:
    if not isinstance(error, dict):
        return RpcError(0, str(error), method=body["method"])
    message, data = str(error.get("message", "")), error.get("data")
    if isinstance(data, dict):  # some nodes wrap it: {"data": {"data": "0x…"}}
        data = data.get("data") or data.get("result")
    if error.get("code") == 3 or "revert" in message.lower():
        start = data.find("0x") if isinstance(data, str) else -1  # Nethermind says "Reverted 0x…"
        try:
            return Reverted(bytes.fromhex(data[start + 2 :]) if start >= 0 else b"")  # type: ignore[index]
        except ValueError:
            return Reverted(reason=message)
    return RpcError(int(error.get("code", 0)), message, data, body["method"])
