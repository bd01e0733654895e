"""Who asks: challenges, each of which an account answers once (wire.md §1.2)."""

from __future__ import annotations

import time

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from sealdeal.chain import Hub
from sealdeal.db import Database
from sealdeal.model.errors import BadSignature, Forbidden, InvalidInput
from sealdeal.model.keys import recover_digest
from sealdeal.model.types import ZERO, Address, address, bytes32, unhex

from .tables import challenges

CHALLENGE_LIFE = 600
"""Seconds for which a challenge can be answered."""


class Authorization:
    """A challenge that `account` answered: good for one request, in one of whose transactions it is spent."""

    def __init__(self, challenge: bytes, account: Address) -> None:
        self.account = account
        self.spent = False
        """Whether a transaction that spent it was committed."""
        self._challenge = challenge

    async def spend(self, connection: AsyncConnection) -> None:
        """Spend it with this transaction. Raises Forbidden when another request did."""
        gone = await connection.execute(
            sa.delete(challenges).where(
                challenges.c.hash == self._challenge, challenges.c.address == self.account
            )
        )
        if not gone.rowcount:
            raise _refusal()


class Challenges:
    """The challenges that were given out and not answered yet."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def add(self, hash: bytes, account: Address) -> None:
        """Remember a challenge, and forget those that are too old to be answered."""
        now = _now()
        async with self._db.write() as connection:
            await connection.execute(sa.delete(challenges).where(challenges.c.issued_at < _oldest(now)))
            await connection.execute(sa.insert(challenges).values(hash=hash, address=account, issued_at=now))

    async def answered(self, header: str | None, hub: Hub) -> Authorization:
        """What the header `authorization` gives, not spent yet. Raises Forbidden, not saying why.

        A challenge is answered with the account's key, or as its contract agrees (EIP-1271), which is asked
        for none but challenges that are open: anything else costs the chain nothing.
        """
        try:
            hash, signed, claimed = (header or "").split("_")
            digest, signature, account = bytes32(hash), unhex(signed), address(claimed)
        except (ValueError, InvalidInput):
            raise _refusal() from None
        if account == ZERO or not await self._open(digest, account):
            raise _refusal()
        if not _by_key(digest, signature, account) and not await hub.agrees(account, digest, signature):
            raise _refusal()
        return Authorization(digest, account)

    async def _open(self, hash: bytes, account: Address) -> bool:
        """Whether this account was given this challenge, lately, and did not use it."""
        query = sa.select(challenges.c.hash).where(
            challenges.c.hash == hash,
            challenges.c.address == account,
            challenges.c.issued_at >= _oldest(_now()),
        )
        async with self._db.read() as connection:
            return (await connection.execute(query)).first() is not None


def _by_key(digest: bytes, signature: bytes, account: Address) -> bool:
    try:
        return recover_digest(digest, signature) == account
    except BadSignature:
        return False


def _refusal() -> Forbidden:
    return Forbidden("invalid authorization")


def _oldest(now: int) -> int:
    """When a challenge was given out at the earliest that can be answered at `now` (ms)."""
    return now - CHALLENGE_LIFE * 1000


def _now() -> int:
    return int(time.time() * 1000)
