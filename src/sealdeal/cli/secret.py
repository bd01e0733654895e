"""`sealdeal secret`: keys of datasets, secrets of apps and requesters, and who may have them."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import json as json_format
import socket
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import uvicorn
from cyclopts import App, Parameter

from sealdeal.model.errors import Conflict, InvalidInput, NotFound, SealdealError
from sealdeal.model.sealing import Door
from sealdeal.model.types import Address, address
from sealdeal.sdk.custody import Group, SecretId
from sealdeal.sdk.secrets import SplitIncomplete, SplitReceipt
from sealdeal.sdk.sms import SmsClient
from sealdeal.sdk.vault import Vault

from . import session
from .session import AsJson, Expires, Nodes, Threshold, WalletName, Words

secret = App(name="secret", help="Share secrets with SMS nodes, and see who has them.")

Kind = Literal["dataset", "app", "requester", "named"]
"""A dataset's key, an app's secret, one of the requester's secrets, or a named public value."""
Value = Annotated[
    Path | None,
    Parameter(
        name="--file", help="Where the value is (`-`: standard input), without one newline at its end."
    ),
]

GATEWAY_PORT = 13300
"""The protocol's own (wire.md §2)."""


@secret.command
async def push(
    kind: Kind,
    of: str,
    *,
    to: str | None = None,
    file: Value = None,
    wallet: WalletName = None,
    json: AsJson = False,
) -> None:
    """Push a whole value by the network's own route, as unmodified clients do.

    Named values go to every node. Anything else can be read by the node it is pushed to: use `split` instead.

    Parameters
    ----------
    kind
        `dataset`, `app`, `requester` or `named`.
    of
        The dataset's or the app's address, or the name of the wallet's own secret.
    to
        URL of one node, or of a gateway.
    """
    key = session.unlock(wallet)
    which = _which(kind, of, key.address)
    value = _read(file, which)
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise InvalidInput("expected text to push, got other bytes: `secret split` takes any bytes") from None
    async with session.connected(key) as client:
        if to is None and kind == "named":
            told: dict[str, Any] = {"nodes": list(await client.secrets.push_named(key, of, text))}
        else:
            url = to or client.network.services.sms[0]
            async with SmsClient(url) as node:
                await node.push(which.kind, key, which.subject, which.name, text)
                told = {"to": url}
                with contextlib.suppress(SealdealError):  # a gateway has no such route
                    told["door"] = (await node.node()).door
    session.show({"secret": str(which), **told}, as_json=json)


@secret.command
async def split(
    kind: Kind,
    of: str,
    *,
    file: Value = None,
    nodes: Nodes = (),
    threshold: Threshold = None,
    expires: Expires = None,
    forget: bool = False,
    wallet: WalletName = None,
    json: AsJson = False,
) -> None:
    """Split a value on this machine and give each node its share: no node ever sees it whole.

    Parameters
    ----------
    kind
        `dataset`, `app` or `requester`.
    of
        The dataset's or the app's address, or the name of the wallet's own secret.
    forget
        Keep no copy beside the wallet. The nodes give none back.
    """
    name, end = wallet or session.settings().wallet, session.when(expires)
    key = session.unlock(name)
    which, copies = _which(kind, of, key.address), session.vault(name, key)
    value = _read(file, which, copies)
    async with session.connected(key) as client:
        with _kept(None if forget else copies, which, value):
            receipt = await client.secrets.split(
                key, which, value, nodes=nodes, threshold=threshold, expires=end
            )
    session.show({"secret": str(which), **_shared(receipt)}, as_json=json)


@secret.command
async def status(
    kind: Kind, of: str, *, owner: str | None = None, wallet: WalletName = None, json: AsJson = False
) -> None:
    """Which nodes hold what of a secret, and through which door it came, by their own words.

    Parameters
    ----------
    kind
        `dataset`, `app`, `requester` or `named`.
    of
        The dataset's or the app's address, or the name of an account's secret.
    owner
        That account; the wallet's by default.
    """
    needs_account = kind in ("requester", "named")
    account = address(owner) if owner else session.unlock(wallet).address if needs_account else None
    which = _which(kind, of, account)
    async with session.connected() as client:
        found = await client.secrets.status(which)
        now = client.secrets.now()
    answer: dict[str, Any] = {
        "secret": str(which),
        "available": found.available(now),
        "groups": [_group(group, now) for group in found.groups],
        "nodes": {
            holding.url: holding.problem or (f"version {holding.info.version}" if holding.info else "nothing")
            for holding in found.holdings
        },
    }
    if json:
        return session.show(answer, as_json=True)
    groups = {f"version {group.version}": _in_words(group, now) for group in reversed(found.groups)}
    session.show({"secret": str(which), **groups, **answer["nodes"]}, as_json=False)


@secret.command
async def refresh(
    kind: Kind,
    of: str,
    *,
    file: Value = None,
    nodes: Nodes = (),
    threshold: Threshold = None,
    expires: Expires = None,
    wallet: WalletName = None,
    json: AsJson = False,
) -> None:
    """Split a secret anew, among the same nodes or others, and close the old version at those that leave.

    Deals made before keep their grant. The value comes from the copy beside the wallet, unless it is given.

    Parameters
    ----------
    kind
        `dataset`, `app` or `requester`.
    of
        The dataset's or the app's address, or the name of the wallet's own secret.
    """
    name, end = wallet or session.settings().wallet, session.when(expires)
    key = session.unlock(name)
    which, copies = _which(kind, of, key.address), session.vault(name, key)
    value = _read(file, which, copies)
    async with session.connected(key) as client:
        with _kept(copies if file else None, which, value):
            done = await client.secrets.refresh(
                key, which, value, nodes=nodes, threshold=threshold, expires=end
            )
    answer = {
        "secret": str(which),
        **_shared(done.receipt),
        "left": list(done.revoked),
        "untold": done.untold,
    }
    session.show(answer, as_json=json)


@secret.command
async def revoke(
    kind: Kind, of: str, *, at: str | None = None, wallet: WalletName = None, json: AsJson = False
) -> None:
    """Let no deal made from now on have a secret. Deals made before keep what they were promised.

    Parameters
    ----------
    kind
        `dataset`, `app` or `requester`.
    of
        The dataset's or the app's address, or the name of the wallet's own secret.
    at
        A later date or time from now, as for `--expires`.
    """
    key = session.unlock(wallet)
    which = _which(kind, of, key.address)
    async with session.connected(key) as client:
        told = await client.secrets.revoke(key, which, at=session.when(at) or None)
    counts = {node: _date(since) for node, since in told.items()}
    session.show({"secret": str(which), "revoked_from": counts}, as_json=json)


@secret.command
async def audit(kind: Kind, of: str, *, wallet: WalletName = None, json: AsJson = False) -> None:
    """Who got a secret: each node's signed words, and where they contradict each other.

    Parameters
    ----------
    kind
        `dataset`, `app`, `requester` or `named`.
    of
        The dataset's or the app's address, or the name of the wallet's own secret.
    """
    key = session.unlock(wallet)
    which = _which(kind, of, key.address)
    async with session.connected(key) as client:
        found = await client.secrets.audit(key, which)
    uses = [
        {
            "time": use.line.time,
            "task": use.line.task,
            "attempt": use.line.attempt,
            "deal": use.line.deal,
            "app": use.line.app,
            "app_checksum": use.line.appChecksum,
            "measurement": use.line.measurement,
            "worker": use.line.worker,
            "platform": use.line.platform,
            "version": use.line.version,
            "door": use.line.door,
            "nodes": sorted(use.nodes),
        }
        for use in found.uses
    ]
    answer = {
        "secret": str(which),
        "answered": list(found.answered),
        "silent": found.silent,
        "disagreements": list(found.disagreements),
        "uses": uses,
    }
    if json:
        return session.show(answer, as_json=True)
    print(f"{which}: {len(uses)} uses, told by {len(found.answered)} nodes")
    for use in found.uses:
        line = use.line
        print(
            f"  {_date(line.time)}  task {line.task} attempt {line.attempt}, app {line.app}, "
            f"worker {line.worker}, version {line.version} (door {line.door}), {len(use.nodes)} nodes"
        )
    for url, why in found.silent.items():
        print(f"not heard: {url}: {why}")
    for said in found.disagreements:
        print(f"contradiction: {said}")


@secret.command
async def gateway(
    *,
    port: int = GATEWAY_PORT,
    wallets: Annotated[Words, Parameter(name="--wallets")] = (),
    nodes: Nodes = (),
    threshold: Threshold = None,
    json: AsJson = False,
) -> None:
    """Split what unmodified clients push: give them this URL as `smsURL`. Runs until Ctrl-C.

    It answers programs on this machine only, and splits the secrets of its own wallets.

    Parameters
    ----------
    port
        Where it listens, on 127.0.0.1; 0 for a free one.
    wallets
        Wallets whose secrets it splits; the one in the settings by default.
    """
    from sealdeal.sms.gateway import Gateway, create_app

    session.stop_on_signals()
    keys = [session.unlock(name) for name in wallets or (session.settings().wallet,)]
    async with session.connected() as client:
        made = Gateway(client.secrets, client.hub, keys, nodes=nodes, threshold=threshold)
        listener = _listen(port)
        server = _Server(uvicorn.Config(create_app(made), log_level="warning", lifespan="off"))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            while not server.started and not serving.done():
                await asyncio.sleep(0.01)
            url = "http://{}:{}".format(*listener.getsockname())
            owners = [key.address for key in keys]
            if json:
                print(json_format.dumps({"url": url, "owners": owners}), flush=True)
            else:
                print(f"smsURL {url}: splits the secrets of {', '.join(owners)}. Ctrl-C stops.", flush=True)
            await asyncio.shield(serving)
        except asyncio.CancelledError:  # Ctrl-C or SIGTERM
            server.should_exit = True
            await serving
            if not json:
                print("stopped")


class _Server(uvicorn.Server):
    """Leaves signals to the command."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _listen(port: int) -> socket.socket:
    # IPPROTO_TCP: without it asyncio does not set TCP_NODELAY, and each request costs 40 ms
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError as busy:
        listener.close()
        raise Conflict(f"port {port} is taken ({busy.strerror}): choose another with --port") from None
    return listener


# --- arguments and answers ------------------------------------------------------------------------


def _which(kind: Kind, of: str, account: Address | None) -> SecretId:
    if kind == "dataset":
        return SecretId.dataset(address(of))
    if kind == "app":
        return SecretId.app(address(of))
    assert account is not None
    return SecretId.requester(account, of) if kind == "requester" else SecretId.named(account, of)


def _read(file: Path | None, which: SecretId, copies: Vault | None = None) -> bytes:
    """The value: from a file or standard input, the copy beside the wallet, or typed.

    Never an argument, which every program on the machine could see.
    """
    if file is not None:
        try:
            value = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        except OSError as wrong:
            raise InvalidInput(f"cannot read {file}: {wrong.strerror}") from None
        return value.removesuffix(b"\n").removesuffix(b"\r")
    if copies is not None:
        with contextlib.suppress(NotFound):
            return copies.get(which)
    if not sys.stdin.isatty():
        raise InvalidInput(f"the value of the {which} is needed: give --file (`-` for standard input)")
    return getpass.getpass(f"Value of the {which}: ").encode()


@contextlib.contextmanager
def _kept(copies: Vault | None, which: SecretId, value: bytes) -> Iterator[None]:
    """Keep a copy of what a node stored a share of, and of nothing that all refused: an older copy may be the
    true one."""
    try:
        yield
    except SplitIncomplete as failed:
        if copies is not None and failed.stored:
            copies.keep(which, value)
        raise
    if copies is not None:
        copies.keep(which, value)


def _date(unix: int) -> str:
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _shared(receipt: SplitReceipt) -> dict[str, Any]:
    document = receipt.document
    answer: dict[str, Any] = {
        "door": Door.OWN.value,
        "version": document.version,
        "threshold": document.threshold,
        "nodes": list(document.nodes),
    }
    if document.expires:
        answer["expires"] = _date(document.expires)
    if document.threshold == 1:
        answer["note"] = "each of these nodes can read it alone"
    return answer


def _group(group: Group, now: int) -> dict[str, Any]:
    return {
        "door": group.door.value,
        "version": group.version,
        "threshold": group.threshold,
        "nodes": list(group.nodes),
        "holders": list(group.holders),
        "expires": group.expires,
        "revoked": dict(group.revoked),
        "seen_whole": group.seen,
        "open": group.open(now),
    }


def _in_words(group: Group, now: int) -> str:
    """`split` and `single` are never called t of n: a node has seen the secret."""
    if group.door is Door.SINGLE:
        text = f"whole on {len(group.holders)} nodes, each of which can read it"
    else:
        text = f"shares on {len(group.holders)} of {len(group.nodes)} nodes, {group.threshold} recombine it"
        if group.door is Door.SPLIT:
            text += "; a node split it and saw it whole"
        elif group.seen:
            text += "; a node saw it whole before its owner split it"
    ends = [_date(group.expires)] if group.expires else []
    ends += [f"{_date(when)} at {node}" for node, when in group.revoked.items()]
    closing = f"; ends {', '.join(ends)}" if ends else ""
    return f"{text} (door {group.door}){closing}{'' if group.open(now) else '; not for new deals'}"
