"""A gateway on the owner's machine: unmodified clients push whole secrets to it, and it splits them.

It speaks the protocol's routes (wire.md §2). No secret leaves this machine whole, but named values, which are
public keys and tokens that every node needs. It signs the documents of its own wallets' secrets only, and a
push already proves that the wallet's owner meant it: the pusher signed that very value.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse

from sealdeal import __version__
from sealdeal.chain import Hub
from sealdeal.model.errors import (
    Conflict,
    Forbidden,
    InvalidInput,
    NotFound,
    SealdealError,
    Unavailable,
)
from sealdeal.model.keys import Key
from sealdeal.model.sealing import SecretKind
from sealdeal.model.types import Address, Bytes32
from sealdeal.sdk.custody import SecretId, Status
from sealdeal.sdk.http import answer_errors
from sealdeal.sdk.secrets import PreparedSplit, Secrets, SplitIncomplete

from .wire import Bounded, LoopbackOnly, add_secret_routes, check_name, check_push, check_size

log = logging.getLogger("sealdeal.gateway")
"""What clients do not show: the network's SDK judges answers by their status alone."""


class WalletMissing(Forbidden):
    """This gateway splits the secrets of its own wallets only: start one with the wallet that signed."""


@dataclass(frozen=True, slots=True, repr=False)
class _Unfinished:
    """A split that some nodes stored and others did not."""

    value: Bytes32
    """sha256 of the secret."""
    rest: PreparedSplit


class Gateway:
    """What the routes do: split, push on, and ask the nodes."""

    def __init__(
        self,
        secrets: Secrets,
        hub: Hub,
        keys: Iterable[Key],
        *,
        nodes: Collection[str] = (),
        threshold: int | None = None,
    ) -> None:
        """`keys`: of the wallets whose secrets it splits. `nodes`, `threshold`: as for `Secrets.split`."""
        self.secrets, self.hub = secrets, hub
        self.keys = {key.address: key for key in keys}
        self._nodes, self._threshold = tuple(nodes), threshold
        self._unfinished: dict[SecretId, _Unfinished] = {}
        self._locks: dict[SecretId, asyncio.Lock] = {}

    async def holds(self, kind: SecretKind, subject: Address, name: str) -> bool:
        """Whether enough nodes hold matching parts for a deal made now.

        Raises Unavailable when the nodes that do not answer make the difference.
        """
        check_name(kind, name)
        status = await self.secrets.status(SecretId(kind, subject, name))
        if await self._there(status):
            return True
        now, silent = self.secrets.now(), len(status.silent)
        lacking = {group.threshold - len(group.live(now)) for group in status.groups}
        if silent >= min({await self.secrets.quorum.threshold()} | lacking):
            raise Unavailable(
                f"{silent} of the network's SMS nodes do not say whether they hold it: try again"
            )
        return False

    async def _there(self, status: Status) -> bool:
        if status.secret.kind is SecretKind.NAMED:  # each node has its own whole copy
            held = sum(holding.info is not None for holding in status.holdings)
            return held >= await self.secrets.quorum.threshold()
        return status.available(self.secrets.now())

    async def push(
        self,
        kind: SecretKind,
        subject: Address,
        name: str,
        value: bytes,
        signature: str,
        *,
        update: bool = False,
    ) -> None:
        """Split a whole secret among the nodes; returns when all have stored. Named ones are passed on whole.

        Raises Unauthorized unless its owner signed it, WalletMissing when that is no wallet here, TooLarge,
        InvalidInput, Conflict when it is there, SplitIncomplete (the same push again goes on).
        """
        check_name(kind, name)
        owner, _ = await check_push(self.hub, kind, subject, name, value, signature)
        key = self.keys.get(owner)
        if key is None:
            why = (
                f"this gateway splits the secrets of {', '.join(sorted(self.keys))} only, this one is of "
                f"{owner}: start `sealdeal secret gateway` with that wallet, on its owner's machine"
            )
            log.warning("refused: %s", why)
            raise WalletMissing(why)
        check_size(value)
        secret = SecretId(kind, subject, name)
        async with self._locks.setdefault(secret, asyncio.Lock()):
            try:
                if kind is SecretKind.NAMED:
                    await self._pass_on(key, secret, value, update=update)
                else:
                    await self._split(key, secret, value)
            except SealdealError as failed:
                log.warning("not shared: %s: %s", secret, failed)
                raise
            log.info("shared: %s", secret)

    async def _split(self, key: Key, secret: SecretId, value: bytes) -> None:
        begun = self._unfinished.get(secret)
        same = hashlib.sha256(value).digest()
        try:
            status = await self.secrets.status(secret)
            if begun and begun.value == same and begun.rest.document.version >= status.version:
                await begun.rest.send((await self.secrets.nodes())[0])
            else:
                now = self.secrets.now()
                for group in status.groups:
                    # what some nodes lack, and all of them say so, is no secret yet: begin again
                    if group.open(now) and (group.complete or status.silent):
                        raise Conflict(
                            f"the nodes hold a {secret} already; it is never replaced through a gateway: "
                            "`sealdeal secret refresh` does that"
                        )
                await self.secrets.split(
                    key,
                    secret,
                    value,
                    nodes=self._nodes,
                    threshold=self._threshold,
                    replace=bool(status.groups),
                )
        except SplitIncomplete as failed:
            if failed.retry is not None:
                self._unfinished[secret] = _Unfinished(same, failed.retry)
            raise
        self._unfinished.pop(secret, None)

    async def _pass_on(self, key: Key, secret: SecretId, value: bytes, *, update: bool) -> None:
        """Give every node a named value. Those that have it take it as the next one."""
        there = await self._there(await self.secrets.status(secret))
        if there and not update:
            raise Conflict(f"the nodes hold a {secret} already: PUT replaces it")
        if update and not there:
            raise NotFound(f"the nodes hold no {secret}: POST adds it")
        try:
            text = value.decode()
        except UnicodeDecodeError:
            raise InvalidInput("expected a named value of UTF-8 text, got other bytes") from None
        await self.secrets.push_named(key, secret.name, text)


def create_app(gateway: Gateway) -> FastAPI:
    """The gateway's HTTP face: for this machine only, since whole secrets come in."""
    app = FastAPI(title="Sealdeal secret gateway", version=__version__)
    answer_errors(app)
    app.add_middleware(Bounded)
    why = "whole secrets come in here: this gateway answers its owner's machine only"
    app.add_middleware(LoopbackOnly, error=Forbidden, why=why)

    @app.get("/version", response_class=PlainTextResponse)
    async def version() -> str:
        return __version__

    @app.get("/actuator/health")
    async def health() -> dict[str, str]:
        return {"status": "UP"}

    add_secret_routes(app, gateway.holds, gateway.push)
    return app
