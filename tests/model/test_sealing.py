"""Sealing, splitting, and the formats of datasets and results."""

from __future__ import annotations

import base64
import itertools
import random
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealdeal.model.eip712 import digest
from sealdeal.model.errors import IntegrityError, InvalidInput, SecretRefused, TooLarge
from sealdeal.model.keys import Key, recover_digest
from sealdeal.model.sealing import (
    SealingKey,
    SecretKind,
    SecretShares,
    Share,
    checksum,
    combine,
    commitment,
    dataset_key,
    decrypt_dataset,
    encrypt_dataset,
    encrypt_dataset_pieces,
    owner_challenge,
    recover_secret,
    release_info,
    seal,
    secrets_domain,
    share_secret,
    split,
)
from sealdeal.model.types import address, address_bytes, keccak

DATASET, HUB = address(b"\x07" * 20), address(b"\x01" * 20)
NODES = tuple(address(bytes([n]) * 20) for n in (0xA1, 0xB2, 0xC3, 0xD4, 0xE5))


def rng_of(seed: int) -> Callable[[int], bytes]:
    return random.Random(seed).randbytes


# --- HPKE -----------------------------------------------------------------------------------------


def test_only_the_key_and_the_same_purpose_open() -> None:
    key, other = SealingKey.generate(rng_of(1)), SealingKey.generate(rng_of(2))
    info = release_info(b"\x01" * 32, NODES[0], "dataset-key", "", 1)
    sealed = seal(key.public, b"secret", info)
    assert key.open(sealed, info) == b"secret" and len(sealed) == 32 + 6 + 16
    assert SealingKey(rng_of(1)(32)).public == key.public
    for opener, text, purpose in (
        (other, sealed, info),
        (key, sealed[:-1], info),
        (key, b"", info),
        (key, bytes([sealed[0] ^ 1]) + sealed[1:], info),
        (key, sealed[:-1] + bytes([sealed[-1] ^ 1]), info),
        (key, sealed, release_info(b"\x02" * 32, NODES[0], "dataset-key", "", 1)),
        (key, sealed, release_info(b"\x01" * 32, NODES[1], "dataset-key", "", 1)),
        (key, sealed, release_info(b"\x01" * 32, NODES[0], "app-secret", "", 1)),
        (key, sealed, release_info(b"\x01" * 32, NODES[0], "dataset-key", "x", 1)),
        (key, sealed, release_info(b"\x01" * 32, NODES[0], "dataset-key", "", 2)),
    ):
        with pytest.raises(SecretRefused):
            opener.open(text, purpose)


def test_release_info_cannot_be_shifted_between_fields() -> None:
    args = (b"\x01" * 32, NODES[0])
    assert release_info(*args, "ab", "c", 1) != release_info(*args, "a", "bc", 1)


def test_unusable_public_keys_are_refused() -> None:
    for public in (b"", b"\x01" * 31, bytes(32)):  # the last is a point of small order
        with pytest.raises(InvalidInput):
            seal(public, b"secret", b"")


# --- Shamir ---------------------------------------------------------------------------------------


@given(
    st.binary(min_size=1, max_size=80),
    st.integers(1, 6).flatmap(lambda n: st.tuples(st.integers(1, n), st.just(n))),
    st.integers(0, 2**32),
    st.randoms(),
)
def test_any_threshold_of_shares_gives_the_secret(
    secret: bytes, terms: tuple[int, int], seed: int, chance: random.Random
) -> None:
    threshold, count = terms
    shares = split(secret, threshold, count, rng_of(seed))
    assert [share.index for share in shares] == list(range(1, count + 1))
    chosen = chance.sample(shares, chance.randint(threshold, count))
    assert combine(chosen) == secret


def test_fewer_shares_fit_every_secret_equally() -> None:
    """t - 1 shares of one byte, over all randomness: each value of the share occurs once for each secret."""
    for secret in (b"\x00", b"\x7f", b"\xff"):
        for index in (1, 2, 3):
            seen = {split(secret, 2, 3, lambda n, r=r: bytes([r]))[index - 1].value for r in range(256)}  # type: ignore[misc]
            assert len(seen) == 256


def test_the_field_is_that_of_aes() -> None:
    # 0x57 · 0x83 = 0xc1 (FIPS 197 §4.2): with coefficient 0x83 the share at x = 0x57 of 0 is 0xc1
    assert split(b"\x00", 2, 0x57, lambda n: b"\x83")[0x56].value == b"\xc1"


def test_malformed_splits_and_shares_are_refused() -> None:
    for threshold, count in ((0, 1), (2, 1), (1, 256)):
        with pytest.raises(InvalidInput):
            split(b"x", threshold, count, rng_of(1))
    with pytest.raises(InvalidInput):
        split(b"", 1, 1, rng_of(1))
    good = split(b"xy", 2, 3, rng_of(1))
    for shares in ([], [good[0], good[0]], [good[0], Share(2, b"x")], [Share(0, b"xy")], [Share(256, b"xy")]):
        with pytest.raises(InvalidInput):
            combine(shares)


# --- secrets split among nodes --------------------------------------------------------------------


def shared(
    secret: bytes = b"hunter2", threshold: int = 3, count: int = 5, seed: int = 1
) -> tuple[SecretShares, dict[Any, bytes]]:
    return share_secret(
        secret,
        kind=SecretKind.DATASET_KEY,
        subject=DATASET,
        name="",
        version=1,
        threshold=threshold,
        nodes=NODES[:count],
        rng=rng_of(seed),
    )


@given(st.binary(min_size=1, max_size=200), st.integers(0, 2**32), st.permutations(NODES))
def test_any_threshold_of_nodes_recovers(secret: bytes, seed: int, order: list[Any]) -> None:
    document, shares = shared(secret, seed=seed)
    assert recover_secret(document, {node: shares[node] for node in order[:3]}) == secret


def test_a_liar_is_named_and_set_aside() -> None:
    document, shares = shared()
    for liar in NODES:
        told = {**shares, liar: bytes([shares[liar][0] ^ 1]) + shares[liar][1:]}
        assert recover_secret(document, told) == b"hunter2"
        with pytest.raises(SecretRefused, match=f"node {liar} lied"):
            document.check_share(liar, told[liar])
        few = {
            liar: told[liar],
            **dict(itertools.islice(((n, s) for n, s in shares.items() if n != liar), 2)),
        }
        with pytest.raises(SecretRefused, match=f"expected 3 shares.*got 2.*node {liar} lied"):
            recover_secret(document, few)


def test_another_nodes_share_does_not_pass_for_ones_own() -> None:
    document, shares = shared()
    with pytest.raises(SecretRefused, match="lied"):
        document.check_share(NODES[0], shares[NODES[1]])
    with pytest.raises(SecretRefused, match="one of the secret's nodes"):
        document.check_share(HUB, shares[NODES[0]])


def test_two_nodes_of_three_learn_nothing_from_a_guess() -> None:
    """Low entropy does not help: the same secret split twice gives other hashes, commitments and shares."""
    one, other = shared(b"0000", seed=1), shared(b"0000", seed=2)
    assert one[0].secretHash != other[0].secretHash
    assert set(one[0].commitments).isdisjoint(other[0].commitments)
    assert set(one[1].values()).isdisjoint(other[1].values())
    single, shares = shared(b"0000", threshold=1, count=1)  # even where the share is the payload itself
    assert single.secretHash not in (keccak(b"0000"), keccak(shares[NODES[0]][32:]))


def test_shares_hide_the_secrets_length() -> None:
    lengths = {len(next(iter(shared(b"x" * n)[1].values()))) for n in range(1, 29)}
    assert lengths == {64}


def test_an_owner_who_commits_to_nonsense_is_noticed() -> None:
    document, shares = shared(threshold=1)
    false = {node: bytes(64) for node in NODES}
    forged = SecretShares(
        **{**document.to_json(), "commitments": tuple(commitment(i + 1, bytes(64)) for i in range(5))}
    )
    with pytest.raises(SecretRefused, match="its owner must split it again"):
        recover_secret(forged, false)
    assert recover_secret(document, shares) == b"hunter2"


def test_documents_are_checked_when_made() -> None:
    good = shared()[0].to_json()
    for change in (
        {"threshold": 0},
        {"threshold": 6},
        {"nodes": [NODES[0]] * 5},
        {"commitments": good["commitments"][:4]},
        {"version": 0},
        {"kind": "password"},
    ):
        with pytest.raises(InvalidInput, match="SecretShares"):
            SecretShares.from_json({**good, **change})
    assert SecretShares.from_json(good) == shared()[0]


def test_the_document_is_signed_by_eip_712() -> None:
    from eth_account import Account
    from eth_account.messages import encode_typed_data

    document = shared()[0]
    names = SecretShares.fields()
    full = encode_typed_data(
        {"name": "Sealdeal Secrets", "version": "1", "chainId": 65432, "verifyingContract": HUB},
        {"SecretShares": [{"name": name, "type": kind} for name, kind in names]},
        dict(document.to_json()),
    )
    owner = Key(b"\x01" * 32)
    signature = owner.sign_digest(digest(secrets_domain(65432, HUB), document))
    assert Account.recover_message(full, signature=signature) == owner.address
    assert recover_digest(digest(secrets_domain(65432, HUB), document), signature) == owner.address


def test_sizes_of_secrets() -> None:
    assert recover_secret(*shared(b"x" * 4096)) == b"x" * 4096
    with pytest.raises(TooLarge):
        shared(b"x" * 4097)
    with pytest.raises(InvalidInput):
        shared(b"")


def test_challenges_are_those_of_the_wire() -> None:
    domain, subject, value = keccak(b"IEXEC_SMS_DOMAIN"), address_bytes(DATASET), keccak(b"v")
    assert owner_challenge("dataset-key", DATASET, "", b"v") == keccak(domain + subject + value)
    for kind, name in (("named", "n"), ("app-secret", "1"), ("requester-secret", "k")):
        expected = keccak(domain + subject + keccak(name.encode()) + value)
        assert owner_challenge(kind, DATASET, name, b"v") == expected


# --- datasets -------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=70), max_size=6), st.integers(1, 40))
def test_dataset_round_trip_in_any_pieces(pieces: list[bytes], size: int) -> None:
    key, plain = dataset_key(rng_of(1)), b"".join(pieces)
    encrypted = encrypt_dataset(plain, key, rng_of(2))
    assert encrypted == b"".join(encrypt_dataset_pieces(pieces, key, rng_of(2)))
    assert len(encrypted) == 16 + len(plain) // 16 * 16 + 16
    cut = [encrypted[i : i + size] for i in range(0, len(encrypted), size)]
    assert b"".join(decrypt_dataset(cut, key)) == b"".join(decrypt_dataset(encrypted, key)) == plain


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl program")
def test_openssl_reads_our_datasets() -> None:
    key = dataset_key(rng_of(1))
    encrypted = encrypt_dataset(b"patient,age\n1,2\n", key, rng_of(2))
    options = ["-K", base64.b64decode(key).hex(), "-iv", encrypted[:16].hex()]
    shown = subprocess.run(
        ["openssl", "enc", "-d", "-aes-256-cbc", *options],
        input=encrypted[16:],
        capture_output=True,
        check=True,
    )
    assert shown.stdout == b"patient,age\n1,2\n"


def test_damaged_datasets_and_keys_are_refused() -> None:
    key = dataset_key(rng_of(1))
    encrypted = encrypt_dataset(b"x" * 40, key, rng_of(2))
    for text in (b"", encrypted[:15], encrypted[:16], encrypted[:-1], encrypted[:-16]):
        with pytest.raises(IntegrityError):
            b"".join(decrypt_dataset(text, key))
    with pytest.raises(IntegrityError):
        b"".join(decrypt_dataset(encrypted, dataset_key(rng_of(9))))
    for bad in ("", "xx", key[:-4], "é" * 44, base64.b64encode(bytes(31)).decode()):
        with pytest.raises(InvalidInput):
            encrypt_dataset(b"", bad, rng_of(1))
    assert len(checksum(encrypted)) == 32
