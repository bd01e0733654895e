"""Upload tokens: JSON Web Tokens, HS256 (RFC 7519, RFC 7515), of one form and no other."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import uuid

from sealdeal.model.errors import InvalidInput, Unauthorized
from sealdeal.model.types import Address, address

LIFETIME = 24 * 3600
"""Seconds that a token is good for. (Official tokens never expire; clients ask for one at each upload.)"""

_HEADER = base64.urlsafe_b64encode(b'{"alg":"HS256"}').rstrip(b"=")


def _seal(secret: bytes, head_and_claims: bytes) -> bytes:
    return base64.urlsafe_b64encode(hmac.digest(secret, head_and_claims, hashlib.sha256)).rstrip(b"=")


def make_token(secret: bytes, wallet: Address, now: int) -> str:
    """A token for `wallet`. `now`: seconds since 1970."""
    claims = {"aud": wallet, "sub": str(uuid.uuid4()), "iat": now, "exp": now + LIFETIME}
    body = _HEADER + b"." + base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=")
    return (body + b"." + _seal(secret, body)).decode()


def wallet_of(secret: bytes, token: str, now: int) -> Address:
    """The wallet a token was made for. Raises Unauthorized when it is not ours, or has expired."""
    body, _, seal = token.strip().encode().rpartition(b".")
    # The header is compared as a whole: a token that asks for another algorithm is no token.
    if not body.startswith(_HEADER + b".") or not hmac.compare_digest(seal, _seal(secret, body)):
        raise Unauthorized("expected an upload token of this store: ask POST /v1/results/token for one")
    try:
        claims = json.loads(base64.urlsafe_b64decode(body[len(_HEADER) + 1 :] + b"=="))
        wallet, expiry = address(claims["aud"]), int(claims["exp"])
    except (ValueError, KeyError, TypeError, InvalidInput):
        raise Unauthorized("the upload token has none of the members expected") from None
    if now >= expiry:
        raise Unauthorized("the upload token has expired: ask POST /v1/results/token for another")
    return wallet
