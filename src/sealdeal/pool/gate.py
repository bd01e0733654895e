"""Who asks: workers sign each request, requesters sign a challenge to read logs."""

from __future__ import annotations

import hashlib
import hmac
from collections import deque
from collections.abc import Callable, Mapping

from sealdeal.chain import Hub
from sealdeal.model.eip712 import Domain, digest
from sealdeal.model.errors import BadSignature, Forbidden, InvalidInput, Unauthorized
from sealdeal.model.keys import recover_digest
from sealdeal.model.types import Address, address, bytes32, hexstr, keccak, unhex
from sealdeal.sdk.pool import CLOCK_WINDOW, Challenge, WorkerMessage, logs_domain, worker_domain

CHALLENGE_SECONDS = 3600
"""A log challenge is good for an hour at least, two at most (wire.md §4.1: reusable for 60 minutes)."""


class Gate:
    """Checks who asks. `secret`: what challenges are made of, so that none has to be remembered."""

    def __init__(
        self, hub: Hub, chain_id: int, scheduler: Address, secret: bytes, clock: Callable[[], float]
    ) -> None:
        self._hub, self._chain_id, self._scheduler = hub, chain_id, scheduler
        self._secret, self._clock = secret, clock
        self._workers: Domain = worker_domain(chain_id, hub.addresses.hub)
        self._used: set[bytes] = set()
        self._ages: deque[tuple[float, bytes]] = deque()

    # --- workers

    def worker(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Address:
        """The worker who signed this request. Raises Unauthorized when nobody did, late, or twice."""
        try:
            claimed = address(headers["x-sealdeal-worker"])
            stamp = int(headers["x-sealdeal-timestamp"])
            signature = unhex(headers["x-sealdeal-signature"])
        except (KeyError, ValueError, InvalidInput):
            names = "X-Sealdeal-Worker, X-Sealdeal-Timestamp and X-Sealdeal-Signature"
            raise Unauthorized(
                f"expected the headers {names}: the worker's wallet signs each request"
            ) from None
        now = self._clock()
        if abs(now - stamp / 1000) > CLOCK_WINDOW:
            raise Unauthorized(
                f"the request was signed at {stamp / 1000:.0f}, it is {now:.0f} here: set the worker's clock"
            )
        message = digest(
            self._workers, WorkerMessage(self._scheduler, f"{method} {path}", keccak(body), stamp)
        )
        signer = recover_digest(message, signature)
        if signer != claimed:
            raise BadSignature(
                f"expected the signature of worker {claimed} over this request, it is {signer}'s"
            )
        self._once(now, keccak(message + unhex(signer)))
        return signer

    def _once(self, now: float, use: bytes) -> None:
        while self._ages and self._ages[0][0] < now - 2 * CLOCK_WINDOW:
            self._used.discard(self._ages.popleft()[1])
        if use in self._used:
            raise Unauthorized("this very request was made before: each one is signed anew")
        self._used.add(use)
        self._ages.append((now, use))

    # --- requesters

    def challenge(self, account: Address) -> tuple[Challenge, Domain]:
        """What `account` signs to read the logs of its tasks."""
        return self._challenge(account, int(self._clock()) // CHALLENGE_SECONDS), logs_domain(self._chain_id)

    def _challenge(self, account: Address, hour: int) -> Challenge:
        text = hmac.digest(self._secret, f"{account} {hour}".encode(), hashlib.sha256).hex()[:32]
        return Challenge(f"Sign this message to log into iExec Core: {text}")

    async def requester(self, authorization: str, expected: Address) -> None:
        """Check `hash_signature_address` of a requester's answer. Raises Unauthorized, Forbidden."""
        try:
            told, signature, claimed = authorization.split("_")
            told32, raw, account = bytes32(told), unhex(signature), address(claimed)
        except (ValueError, InvalidInput):
            raise Unauthorized(
                "expected Authorization: <hash>_<signature>_<address> of a log challenge"
            ) from None
        if account != expected:
            raise Forbidden(f"only the deal's requester {expected} may read these logs, not {account}")
        hour = int(self._clock()) // CHALLENGE_SECONDS
        domain = logs_domain(self._chain_id)
        if told32 not in [digest(domain, self._challenge(account, hour - ago)) for ago in (0, 1)]:
            raise Unauthorized(f"{hexstr(told32)} is no challenge of this scheduler, or too old: ask for one")
        try:
            signer: Address | None = recover_digest(told32, raw)
        except BadSignature:
            signer = None
        # A contract's account signs in its own way: the hub knows how to ask it.
        if signer != account and not await self._hub.verify_signature(account, told32, raw):
            raise Unauthorized(f"the challenge was not signed by {account}")
