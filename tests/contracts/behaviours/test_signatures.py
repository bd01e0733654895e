"""verifySignature, verifyPresignature, verifyPresignatureOrSignature (poco.md §5)."""

from __future__ import annotations

import pytest

from sealdeal.model.types import keccak
from tests.contracts.behaviours.stage import (
    BAD_FORMAT,
    KINDS,
    NO,
    OWNERS,
    YES,
    answer,
    answering,
    presign,
    refused,
)
from tests.contracts.world import World

HASH = keccak(b"a message")
WALLET_SIGN = b"what only the wallet understands"
BY_SIGNATURE = pytest.mark.parametrize("function", ["verifySignature", "verifyPresignatureOrSignature"])
BY_PRESIGNATURE = pytest.mark.parametrize("function", ["verifyPresignature", "verifyPresignatureOrSignature"])
EACH_KIND = pytest.mark.parametrize("kind", KINDS)


# ---- Signatures --------------------------------------------------------------------------------------------


@BY_SIGNATURE
def test_of_smart_contract(world: World, function: str) -> None:
    assert answer(world, "stranger", function, answering(world, YES), HASH, WALLET_SIGN) is True


@BY_SIGNATURE
def test_fail_of_smart_contract_when_validation_returns_false(world: World, function: str) -> None:
    assert answer(world, "stranger", function, answering(world, NO), HASH, WALLET_SIGN) is False


@BY_SIGNATURE
def test_fail_of_smart_contract_when_validation_reverts(world: World, function: str) -> None:
    """A revert is a no, even if its data would be a yes."""
    wallet = answering(world, YES, revert=True)
    assert answer(world, "stranger", function, wallet, HASH, WALLET_SIGN) is False


@BY_SIGNATURE
def test_of_eoa(world: World, function: str) -> None:
    sign = world.keys["app"].sign_digest(HASH)
    assert answer(world, "stranger", function, world.who("app"), HASH, sign) is True


@BY_SIGNATURE
def test_of_eoa_when_compact_signature(world: World, function: str) -> None:
    """EIP-2098: the parity is the top bit of s."""
    r, s, v = (sign := world.keys["app"].sign_digest(HASH))[:32], sign[32:64], sign[64]
    compact = r + bytes([s[0] | (v - 27) << 7]) + s[1:]
    assert answer(world, "stranger", function, world.who("app"), HASH, compact) is True


@BY_SIGNATURE
@pytest.mark.parametrize("length", [0, 1, 63, 66])
def test_fail_of_eoa_when_invalid_format(world: World, function: str, length: int) -> None:
    assert refused(world, "stranger", function, world.who("app"), HASH, b"\x01" * length) == BAD_FORMAT


@BY_SIGNATURE
def test_fail_of_eoa_when_bad_signer(world: World, function: str) -> None:
    sign = world.keys["stranger"].sign_digest(HASH)
    assert answer(world, "stranger", function, world.who("app"), HASH, sign) is False


# ---- Presignatures -----------------------------------------------------------------------------------------


def asks(world: World, function: str, role: str, hashed: bytes) -> bool:
    """Has this role presigned this hash? A signature that goes along is a stranger's."""
    sign = [world.keys["stranger"].sign_digest(hashed)] if function.endswith("OrSignature") else []
    found: bool = answer(world, "stranger", function, world.who(role), hashed, *sign)
    return found


@EACH_KIND
@BY_PRESIGNATURE
def test_when_the_presignature_is_valid_for(world: World, function: str, kind: str) -> None:
    order = world.four(dataset=True)[KINDS.index(kind)]
    presign(world, kind, order)
    assert asks(world, function, OWNERS[kind], order.hash(world.domain))


@EACH_KIND
@BY_PRESIGNATURE
def test_fail_when_not_presigned_and_invalid_signature_for(world: World, function: str, kind: str) -> None:
    order = world.four(dataset=True)[KINDS.index(kind)]
    assert not asks(world, function, OWNERS[kind], order.hash(world.domain))


@EACH_KIND
@BY_PRESIGNATURE
def test_fail_with_an_incorrect_account_for_presignature(world: World, function: str, kind: str) -> None:
    order = world.four(dataset=True)[KINDS.index(kind)]
    presign(world, kind, order)
    assert not asks(world, function, "sponsor", order.hash(world.domain))


@EACH_KIND
@BY_PRESIGNATURE
def test_fail_for_an_unknown_messagehash(world: World, function: str, kind: str) -> None:
    presign(world, kind, world.four(dataset=True)[KINDS.index(kind)])
    assert not asks(world, function, OWNERS[kind], HASH)
