"""The protocol's routes for secrets (wire.md §2), their checks and bounds: for a node and for a gateway."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Protocol

from fastapi import FastAPI, Header, Request, Response
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from sealdeal.chain import Hub
from sealdeal.model.errors import (
    BadSignature,
    ChainError,
    Forbidden,
    InvalidInput,
    NotFound,
    SealdealError,
    TooLarge,
    Unauthorized,
)
from sealdeal.model.keys import recover_message
from sealdeal.model.sealing import APP_SECRET_NAME, MAX_SECRET_BYTES, SecretKind, owner_challenge
from sealdeal.model.types import Address, address
from sealdeal.sdk.http import error_body

BODY_LIMIT = 1 << 20
"""Bytes of any request: evidence with its collateral, in hexadecimal, has most."""
SECRET_BODY_LIMIT = 64 << 10
"""Bytes of a secret's body that are read in order to say, to its owner only, that it is too large."""

MAX_NAME_BYTES = 256
"""Length of a named secret's name."""

_REQUESTER_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")

Signature = Annotated[str, Header(alias="Authorization")]

Holds = Callable[[SecretKind, Address, str], Awaitable[bool]]
"""(kind, subject, name) -> whether the secret is there for guests."""


class Push(Protocol):
    """Take a whole secret; `signature` is the Authorization header. The order of checks is the protocol's."""

    async def __call__(
        self,
        kind: SecretKind,
        subject: Address,
        name: str,
        value: bytes,
        signature: str,
        *,
        update: bool = False,
    ) -> None: ...


def add_secret_routes(app: FastAPI, holds: Holds, push: Push) -> None:
    """Let unmodified clients ask `app` for secrets and push whole ones."""

    async def head(kind: SecretKind, subject: str, name: str) -> Response:
        if not await holds(kind, address(subject), name):
            raise NotFound(f"no {kind} of {subject} here")
        return Response(status_code=204)

    async def write(
        request: Request, kind: SecretKind, subject: str, name: str, signature: str, update: bool = False
    ) -> Response:
        value = await request.body()
        if len(value) > SECRET_BODY_LIMIT:
            raise TooLarge(f"expected a secret of at most 4096 bytes, got {len(value)}")
        await push(kind, address(subject), name, value, signature, update=update)
        return Response(status_code=204)

    @app.head("/secrets/web3", status_code=204)
    async def has_dataset_key(secretAddress: str) -> Response:
        return await head(SecretKind.DATASET_KEY, secretAddress, "")

    @app.post("/secrets/web3", status_code=204)
    async def add_dataset_key(
        request: Request, secretAddress: str, authorization: Signature = ""
    ) -> Response:
        return await write(request, SecretKind.DATASET_KEY, secretAddress, "", authorization)

    @app.head("/secrets/web2", status_code=204)
    async def has_named(ownerAddress: str, secretName: str) -> Response:
        return await head(SecretKind.NAMED, ownerAddress, secretName)

    @app.post("/secrets/web2", status_code=204)
    async def add_named(
        request: Request, ownerAddress: str, secretName: str, authorization: Signature = ""
    ) -> Response:
        return await write(request, SecretKind.NAMED, ownerAddress, secretName, authorization)

    @app.put("/secrets/web2", status_code=204)
    async def replace_named(
        request: Request, ownerAddress: str, secretName: str, authorization: Signature = ""
    ) -> Response:
        return await write(request, SecretKind.NAMED, ownerAddress, secretName, authorization, update=True)

    @app.head("/apps/{app_address}/secrets", status_code=204)
    async def has_app_secret(app_address: str) -> Response:
        return await head(SecretKind.APP_SECRET, app_address, APP_SECRET_NAME)

    @app.post("/apps/{app_address}/secrets", status_code=204)
    async def add_app_secret(request: Request, app_address: str, authorization: Signature = "") -> Response:
        return await write(request, SecretKind.APP_SECRET, app_address, APP_SECRET_NAME, authorization)

    @app.head("/requesters/{requester}/secrets/{key}", status_code=204)
    async def has_requester_secret(requester: str, key: str) -> Response:
        return await head(SecretKind.REQUESTER_SECRET, requester, key)

    @app.post("/requesters/{requester}/secrets/{key}", status_code=204)
    async def add_requester_secret(
        request: Request, requester: str, key: str, authorization: Signature = ""
    ) -> Response:
        try:
            return await write(request, SecretKind.REQUESTER_SECRET, requester, key, authorization)
        except TooLarge as wrong:  # this route alone says 400 (wire.md §2)
            raise InvalidInput(str(wrong)) from None


def check_name(kind: SecretKind, name: str) -> None:
    """Bounds of a secret's name. Raises InvalidInput."""
    sound = {
        SecretKind.DATASET_KEY: name == "",
        SecretKind.APP_SECRET: name == APP_SECRET_NAME,
        SecretKind.REQUESTER_SECRET: _REQUESTER_NAME.fullmatch(name) is not None,
        SecretKind.NAMED: 1 <= len(name.encode(errors="surrogatepass")) <= MAX_NAME_BYTES,
    }[kind]
    if not sound:
        raise InvalidInput(
            f"expected the name of a {kind}: requester-secret 1 to 64 of A-Z a-z 0-9 _ -, named 1 to "
            f"{MAX_NAME_BYTES} bytes, app-secret '1', dataset-key none; got {name[:80]!r}"
        )


async def owner_of(hub: Hub, kind: SecretKind, subject: Address) -> Address:
    """The owner on chain of a dataset or app, or the account itself. Raises Unauthorized."""
    if kind not in (SecretKind.DATASET_KEY, SecretKind.APP_SECRET):
        return subject
    try:
        return await hub.owner_of(subject)
    except (NotFound, ChainError):
        raise Unauthorized(f"expected a dataset or app on this chain, {subject} has no owner") from None


async def check_signer(hub: Hub, signer: Address, kind: SecretKind, subject: Address) -> None:
    """Raises Unauthorized unless the secret is the signer's."""
    if signer != (owner := await owner_of(hub, kind, subject)):
        raise Unauthorized(f"expected the signature of {owner}, the owner of {subject}; got one of {signer}")


async def check_push(
    hub: Hub, kind: SecretKind, subject: Address, name: str, value: bytes, signature: str
) -> tuple[Address, bytes]:
    """The owner who signed a whole secret, and the signature's bytes. Raises Unauthorized."""
    try:
        given = bytes.fromhex(signature.removeprefix("0x"))
        signer = recover_message(owner_challenge(kind, subject, name, value), given)
    except (ValueError, BadSignature):
        raise Unauthorized("expected an Authorization header: the owner's signature of this secret") from None
    await check_signer(hub, signer, kind, subject)
    return signer, given


def check_size(value: bytes) -> None:
    """Bounds of a whole secret, of which only its owner is told. Raises TooLarge, InvalidInput."""
    if len(value) > MAX_SECRET_BYTES:
        raise TooLarge(f"expected a secret of at most {MAX_SECRET_BYTES} bytes, got {len(value)}")
    if not value:
        raise InvalidInput("expected a secret in the body, got nothing")


class Bounded:
    """Refuses a body over BODY_LIMIT, as soon as it is known to be."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        pieces, size = [], 0
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return None
            pieces.append(message.get("body", b""))
            size += len(pieces[-1])
            if size > BODY_LIMIT:
                refusal = TooLarge(f"expected a body of at most {BODY_LIMIT} bytes, got more")
                return await _answer(refusal, scope, receive, send)
            if not message.get("more_body"):
                break
        whole: Any = {"type": "http.request", "body": b"".join(pieces), "more_body": False}
        told = False

        async def replay() -> Any:
            nonlocal told
            if told:
                return await receive()
            told = True
            return whole

        return await self.app(scope, replay, send)


class LoopbackOnly:
    """Lets in clients of this machine only, and none that a proxy passes on from elsewhere."""

    def __init__(self, app: ASGIApp, error: type[Forbidden], why: str) -> None:
        """Others are refused with `error`, whose message begins with `why`."""
        self.app, self.error, self.why = app, error, why

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
            passed_on = [*headers.get(b"x-forwarded-for", "").split(","), headers.get(b"x-real-ip", "")]
            # no client: a Unix socket
            clients = [scope["client"][0]] if scope.get("client") else []
            for client in clients + [origin.strip() for origin in passed_on if origin.strip()]:
                if not _loopback(client):
                    return await _answer(self.error(f"{self.why}, not {client[:60]}"), scope, receive, send)
        return await self.app(scope, receive, send)


def _loopback(client: str) -> bool:
    try:
        found = ipaddress.ip_address(client)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return bool((mapped or found).is_loopback)


async def _answer(error: SealdealError, scope: Scope, receive: Receive, send: Send) -> None:
    await JSONResponse(error_body(error), error.status)(scope, receive, send)
