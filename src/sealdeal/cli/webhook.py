"""`sealdeal webhook`: have ends of tasks told to a program, and check what comes there."""

from __future__ import annotations

import json as json_
import sys
from pathlib import Path
from typing import Any

from cyclopts import App

from sealdeal.model.errors import InvalidInput, NotFound
from sealdeal.model.types import address, bytes32
from sealdeal.sdk.events import FILTERS, Webhook, verify_webhook

from . import session
from .session import AsJson, WalletName

webhook = App(name="webhook", help="Have ends of tasks told to a program.")


@webhook.command
async def add(url: str, *, of: str | None = None, wallet: WalletName = None, json: AsJson = False) -> None:
    """Have the ends of tasks told to an address on the web, which must answer already.

    It prints the secret that messages are signed with, once: keep it.

    Parameters
    ----------
    url
        Where messages go, by https.
    of
        `NAME=VALUE`: tasks of this requester, beneficiary, app, dataset, workerpool or dealid. Default: those
        that the wallet requests.
    """
    filter = dict([_filter(of)]) if of else {}
    async with session.connected(session.unlock(wallet)) as client:
        session.show(_shown(await client.add_webhook(url, **filter)), as_json=json)


@webhook.command(name="list")
async def list_(*, wallet: WalletName = None, json: AsJson = False) -> None:
    """The wallet's webhooks."""
    async with session.connected(session.unlock(wallet)) as client:
        found = await client.webhooks()
    if json:
        print(json_.dumps([_shown(one) for one in found], indent=2))
        return
    for one in found:
        print(f"{one.id}  {one.url}  {' '.join(f'{name}={value}' for name, value in one.filter.items())}")


@webhook.command
async def drop(id: str, *, wallet: WalletName = None, json: AsJson = False) -> None:
    """End a webhook.

    Parameters
    ----------
    id
        As `sealdeal webhook list` shows it.
    """
    async with session.connected(session.unlock(wallet)) as client:
        await client.drop_webhook(id)
    session.show({"dropped": id}, as_json=json)


@webhook.command
def check(body: str, *, secret: Path, header: session.Words = (), json: AsJson = False) -> None:
    """Check that a message came from the market, unchanged and just now; print what it says.

    Parameters
    ----------
    body
        File with the message's body, as it came; `-`: standard input.
    secret
        File with the webhook's secret, `whsec_…`.
    header
        `NAME=VALUE` of webhook-id, webhook-timestamp and webhook-signature.
    """
    headers = dict(_pair(word, "a header") for word in header)
    try:
        content = sys.stdin.buffer.read() if body == "-" else Path(body).read_bytes()
        key = secret.read_text().strip()
    except OSError as unreadable:
        raise NotFound(f"{unreadable.filename} cannot be read: {unreadable.strerror}") from None
    session.show(verify_webhook(key, headers, content), as_json=json)


def _shown(hook: Webhook) -> dict[str, Any]:
    return {"id": hook.id, "url": hook.url, **hook.filter} | ({"secret": hook.secret} if hook.secret else {})


def _pair(word: str, what: str) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if not (name and equals):
        raise InvalidInput(f"expected {what} as NAME=VALUE, got {word!r}")
    return name, value


def _filter(word: str) -> tuple[str, Any]:
    name, value = _pair(word, "a filter")
    if name not in FILTERS:
        raise InvalidInput(f"expected a filter of {', '.join(FILTERS)}, got {name!r}")
    return name, bytes32(value) if name == "dealid" else address(value)
