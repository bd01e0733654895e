"""Upload tokens: made by this store, for one wallet, for a while."""

from __future__ import annotations

import base64
import json

import pytest

from sealdeal.model.errors import Unauthorized
from sealdeal.model.types import address
from sealdeal.results.tokens import LIFETIME, make_token, wallet_of

SECRET = bytes(range(32))
WORKER = address("0x" + "ab" * 20)


def test_the_wallet_comes_back() -> None:
    token = make_token(SECRET, WORKER, 1_000)
    assert wallet_of(SECRET, token, 1_000) == WORKER
    head, claims, _ = token.split(".")
    assert json.loads(base64.urlsafe_b64decode(head + "==")) == {"alg": "HS256"}
    assert json.loads(base64.urlsafe_b64decode(claims + "=="))["aud"] == WORKER


def test_it_expires() -> None:
    token = make_token(SECRET, WORKER, 1_000)
    wallet_of(SECRET, token, 1_000 + LIFETIME - 1)
    with pytest.raises(Unauthorized, match="expired"):
        wallet_of(SECRET, token, 1_000 + LIFETIME)


def _with_head(token: str, head: dict[str, str]) -> str:
    _, claims, seal = token.split(".")
    return f"{base64.urlsafe_b64encode(json.dumps(head).encode()).decode().rstrip('=')}.{claims}.{seal}"


@pytest.mark.parametrize(
    "spoil", ["empty", "other secret", "other wallet", "alg none", "no seal", "junk", "not ascii"]
)
def test_forgeries(spoil: str) -> None:
    token = make_token(SECRET, WORKER, 1_000)
    head, claims, seal = token.split(".")
    other = json.loads(base64.urlsafe_b64decode(claims + "==")) | {"aud": address("0x" + "cd" * 20)}
    claims_of_other = base64.urlsafe_b64encode(json.dumps(other).encode()).decode().rstrip("=")
    forged = {
        "empty": "",
        "other secret": make_token(bytes(32), WORKER, 1_000),
        "other wallet": f"{head}.{claims_of_other}.{seal}",
        "alg none": _with_head(token, {"alg": "none"}),
        "no seal": f"{head}.{claims}.",
        "junk": "a.b.c",
        "not ascii": "é.é.é",
    }[spoil]
    with pytest.raises(Unauthorized, match="token"):
        wallet_of(SECRET, forged, 1_000)
