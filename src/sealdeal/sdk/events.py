"""What a market tells: its event stream, followed over breaks, and webhooks, made and verified.

async for event in watch(market, topics=["tasks"], requester=me):
    print(event.name, event.data["taskid"])
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sealdeal.model.errors import BadSignature, IntegrityError, InvalidInput, Unavailable
from sealdeal.model.keys import Signer
from sealdeal.model.types import Address, hexstr

from .market import MarketClient

Topic = Literal["orders", "deals", "tasks"]
TOPICS: tuple[Topic, ...] = ("orders", "deals", "tasks")
FILTERS = ("requester", "beneficiary", "app", "dataset", "workerpool", "dealid")
"""What a webhook may name of a deal."""
_RETRY = 2.0
_TOLERANCE = 300  # seconds, as the specification of webhooks recommends


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in the market."""

    id: int
    """The cursor to go on from after it."""
    name: str
    """docs/market.md lists them; `reset`: events were missed, read the lists again."""
    data: dict[str, Any]


async def watch(
    client: MarketClient,
    *,
    topics: Collection[Topic] = (),
    requester: Address | None = None,
    dealid: bytes | None = None,
    after: int | None = None,
) -> AsyncIterator[Event]:
    """Events as they happen, for ever: those after the cursor `after` (0: all that are kept), or new ones.

    Connects again when the stream breaks off, and misses nothing that is still kept. Raises what the market
    refuses with, and Unavailable when it does not answer at the first try. `client` must reach the market by
    a socket: a transport in memory gives whole answers only.
    """
    query = {"chainId": str(client.chain_id)}
    query |= {"topics": ",".join(topics)} if topics else {}
    query |= {"requester": requester} if requester else {}
    query |= {"dealid": hexstr(dealid)} if dealid else {}
    reached = False
    while True:
        headers = {} if after is None else {"Last-Event-ID": str(after)}
        try:
            name, data = "", ""
            async for line in _lines(client, query, headers):
                reached = True
                key, _, value = line.partition(":")
                value = value.removeprefix(" ")
                if key == "id" and value.isdigit():
                    after = int(value)
                elif key == "event":
                    name = value
                elif key == "data":
                    data += value
                elif not line:
                    if name and after is not None:
                        yield Event(after, name, _object(data))
                    name, data = "", ""
        except Unavailable:
            if not reached:
                raise
        await asyncio.sleep(_RETRY)


async def _lines(
    client: MarketClient, query: Mapping[str, str], headers: Mapping[str, str]
) -> AsyncIterator[str]:
    rest = b""
    async for piece in client.stream("/events", params=query, headers=headers):
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line.decode()


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise IntegrityError(f"expected a JSON object as an event's data, got {text[:80]!r}")
    return found


# ------------------------------------------------------------------------------------------ webhooks


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where the ends of tasks are told."""

    id: str
    url: str
    filter: dict[str, str]
    """What a deal must have, by its name: `{"requester": "0x…"}`."""
    secret: str | None = None
    """To verify messages with; only the answer to `add_webhook` has it."""

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Webhook:
        known = ("id", "url", "secret", "created")
        return cls(
            str(found["id"]),
            str(found["url"]),
            {name: str(value) for name, value in found.items() if name not in known},
            found.get("secret"),
        )


async def add_webhook(client: MarketClient, url: str, signer: Signer, **filter: Address | bytes) -> Webhook:
    """Have the ends of tasks told to `url`, which must answer already.

    `filter`: one of requester, beneficiary, app, dataset, workerpool or dealid; without it, the tasks that
    the signer requests. Keep the answer's `secret`: it is not shown again.
    """
    chosen = {name: hexstr(value) if isinstance(value, bytes) else value for name, value in filter.items()}
    answer = await client.authorized_json("POST", "/webhooks", signer, json={"url": url, **chosen})
    return Webhook.from_json(answer["webhook"])


async def list_webhooks(client: MarketClient, signer: Signer) -> list[Webhook]:
    """The signer's webhooks."""
    answer = await client.authorized_json("GET", "/webhooks", signer)
    return [Webhook.from_json(found) for found in answer["webhooks"]]


async def drop_webhook(client: MarketClient, id: str, signer: Signer) -> None:
    """End a webhook. Raises NotFound."""
    await client.authorized_json("DELETE", f"/webhooks/{id}", signer)


def signature(secret: bytes, id: str, timestamp: int, body: bytes) -> str:
    """The header `webhook-signature` of a message."""
    said = f"{id}.{timestamp}.".encode() + body
    return f"v1,{base64.b64encode(hmac.digest(secret, said, hashlib.sha256)).decode()}"


def verify_webhook(
    secret: str, headers: Mapping[str, str], body: bytes, *, now: float | None = None
) -> dict[str, Any]:
    """The content of a message that came to a webhook: `{"type", "timestamp", "data"}`.

    Raises BadSignature for one that the market did not send, or sent more than five minutes ago. `headers`
    by any case; `now`: seconds since 1970. The same message can come twice: compare `webhook-id`.
    """
    given = {name.lower(): value for name, value in headers.items()}
    try:
        id, at, signatures = (given[f"webhook-{name}"] for name in ("id", "timestamp", "signature"))
        key, sent = base64.b64decode(secret.removeprefix("whsec_"), validate=True), int(at)
    except KeyError as missing:
        raise BadSignature(f"a webhook's message must have the header {missing}") from None
    except ValueError:
        raise InvalidInput("expected a secret whsec_… and a timestamp in seconds") from None
    right = signature(key, id, sent, body).encode()
    if not any(hmac.compare_digest(right, s.encode()) for s in signatures.split(" ")):
        raise BadSignature("the message is not signed with this webhook's secret: do not act on it")
    if abs((time.time() if now is None else now) - sent) > _TOLERANCE:
        raise BadSignature(f"the message was signed more than {_TOLERANCE} s ago: it may be a replay")
    return _object(body.decode())
