"""Both suites, given the same calls: each has a chain of its own in this process, and five workers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any, get_args

from eth_abi.abi import encode

from sealdeal.model.deals import KITTY
from sealdeal.model.types import Address, keccak
from tests.contracts.revm import Revm
from tests.contracts.world import Refused, Suite, World, artefact, key

SUITES: tuple[Suite, ...] = get_args(Suite)
WORKERS = ("worker", "worker2", "worker3", "worker4", "worker5")
STORAGE = 0x5862653C6982C162832160CF30593645E8487B257E44D77CDD6B51EEE2651B00
"""Where the official hub's storage begins (ERC-7201)."""
SCORES = 18
"""Which of its slots is that of the scores."""
SCORE = 128
"""The lowest bit of the score in an account's word of ours."""


class Altered(Revm):
    """A chain whose slots can be written without a transaction."""

    def slot(self, account: Address, slot: int) -> int:
        return int(self._evm.storage(account, slot))

    def write(self, account: Address, slot: int, value: int) -> None:
        """`undone` does not undo this."""
        self._evm.insert_account_storage(account, slot, value)


@cache
def world_of(suite: Suite) -> World:
    world = World.start(Altered(), suite)
    world.keys["worker5"] = key("worker5")
    world.enrich(world.who("worker5"))
    return world


@contextmanager
def both() -> Iterator[list[World]]:
    """Ours, then the official one; what happens to them inside is undone."""
    worlds = [world_of(suite) for suite in SUITES]
    with ExitStack() as stack:
        for world in worlds:
            stack.enter_context(world.chain.undone())
        yield worlds


def give_score(world: World, role: str, score: int) -> None:
    """The worker's score is this from now on, and not undone."""
    chain, hub, account = world.chain, world.hub.address, int(world.who(role), 16)
    assert isinstance(chain, Altered)
    if world.suite == "ours":
        layout = artefact("Hub")["layout"]["storage_layout"]
        slot = _slot(layout["ledger"]["accounts"]["slot"], account)
        chain.write(hub, slot, chain.slot(hub, slot) % 2**SCORE | score << SCORE)
    else:
        chain.write(hub, _slot(account, STORAGE + SCORES), score)
    assert world.hub.viewScore(world.who(role)) == score


def _slot(first: int, second: int) -> int:
    """Of a mapping: Vyper hashes the mapping's slot before the key, Solidity after it."""
    return int.from_bytes(keccak(encode(["uint256"] * 2, [first, second])), "big")


def refusal_of(world: World, by: str, function: str, *args: Any) -> bytes | None:
    """Send it; what the revert said, or None where there was none."""
    try:
        world.hub.send(function, *args, sender=world.who(by))
    except Refused as refused:
        return refused.data
    return None


def accounts(world: World) -> dict[str, tuple[int, ...]]:
    """Role -> stake, locked, score."""
    return {
        role: (*world.account(at), world.hub.viewScore(at))
        for role, at in ({role: key.address for role, key in world.keys.items()} | {"kitty": KITTY}).items()
    }
