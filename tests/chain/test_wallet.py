"""Keystores and signed transactions, against eth-account."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
import rlp as oracle_rlp  # type: ignore[import-untyped]
from eth_account import Account
from hypothesis import given, settings
from hypothesis import strategies as st

from sealdeal.chain import KeystoreError, Wallet
from sealdeal.chain.wallet import Transaction, create_address, decrypt, encrypt, rlp
from sealdeal.model.errors import Conflict, NotFound
from sealdeal.model.keys import Key
from sealdeal.model.types import address, hexstr, keccak

KEY = Key(keccak(b"test requester"))
LIGHT = 2**10


@given(
    st.integers(1, 2**63),
    st.integers(0, 2**63),
    st.integers(0, 2**90),
    st.integers(21_000, 2**40),
    st.none() | st.binary(min_size=20, max_size=20),
    st.integers(0, 2**100),
    st.binary(max_size=300),
)
@settings(max_examples=40, deadline=None)
def test_signed_transactions_equal_the_oracles(
    chain_id: int, nonce: int, fee: int, gas: int, to: bytes | None, value: int, data: bytes
) -> None:
    transaction = Transaction(chain_id, nonce, fee // 2, fee, gas, address(to) if to else None, value, data)
    given_to = {"to": transaction.to} if to else {}
    signed = Account.sign_transaction(
        {
            "type": 2,
            "chainId": chain_id,
            "nonce": nonce,
            "maxPriorityFeePerGas": fee // 2,
            "maxFeePerGas": fee,
            "gas": gas,
            "value": value,
            "data": data,
            **given_to,
        },
        KEY.secret,
    )
    assert Wallet(KEY).sign_transaction(transaction) == bytes(signed.raw_transaction)


nested = st.recursive(st.binary(max_size=80), lambda inner: st.lists(inner, max_size=4), max_leaves=8)


@given(nested)
@settings(deadline=None)
def test_rlp_equals_the_oracle(item: object) -> None:
    assert rlp(item) == oracle_rlp.encode(item)  # type: ignore[arg-type]


def test_addresses_of_deployments() -> None:
    # the first contract of anvil's first account, known to everybody who ever ran it
    deployer = address("0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266")
    assert create_address(deployer, 0) == "0x5FbDB2315678afecb367f032d93F642f64180aa3"
    assert create_address(deployer, 1) == "0xe7f1725E7734CE288F8367e1Bb143E90bb3F0512"


def test_a_keystore_is_private_complete_and_readable_by_others(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "requester.json"
    Wallet(KEY).save(path, "correct horse", scrypt_n=LIGHT)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["requester.json"]
    assert Account.decrypt(path.read_text(), "correct horse") == KEY.secret
    assert Wallet.load(path, "correct horse").address == KEY.address
    assert hexstr(KEY.secret)[2:] not in path.read_text()


def test_keystores_of_others_are_read() -> None:
    for kdf in ("scrypt", "pbkdf2"):
        theirs = Account.encrypt(KEY.secret, "word", kdf=kdf, iterations=LIGHT)
        assert decrypt(theirs, "word").secret == KEY.secret


def test_a_wrong_password_says_so(tmp_path: Path) -> None:
    path = tmp_path / "k.json"
    Wallet(KEY).save(path, "right", scrypt_n=LIGHT)
    with pytest.raises(KeystoreError, match="wrong password"):
        Wallet.load(path, "wrong")


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    path = tmp_path / "k.json"
    Wallet(KEY).save(path, "a", scrypt_n=LIGHT)
    before = path.read_bytes()
    with pytest.raises(Conflict):
        Wallet(KEY).save(path, "b", scrypt_n=LIGHT)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1
    Wallet(KEY).save(path, "b", scrypt_n=LIGHT, overwrite=True)
    assert Wallet.load(path, "b").address == KEY.address


def test_a_missing_or_damaged_keystore_is_named(tmp_path: Path) -> None:
    path = tmp_path / "k.json"
    with pytest.raises(NotFound, match=r"k\.json"):
        Wallet.load(path, "x")
    good = encrypt(KEY, "x", scrypt_n=LIGHT)
    crypto = good["crypto"]
    bad: list[object] = [
        "text",
        {},
        {**good, "version": 1},
        {**good, "crypto": {**crypto, "kdf": "argon2"}},
        {**good, "crypto": {**crypto, "mac": "zz"}},
        {**good, "crypto": {**crypto, "kdfparams": {**crypto["kdfparams"], "n": 3}}},
        {**good, "crypto": {**crypto, "kdfparams": {**crypto["kdfparams"], "n": 2**40}}},
        {**good, "crypto": {**crypto, "kdfparams": {**crypto["kdfparams"], "dklen": 0}}},
        {**good, "address": "00" * 20},
    ]
    for keystore in bad:
        path.write_text(json.dumps(keystore))
        with pytest.raises(KeystoreError):
            Wallet.load(path, "x")
    path.write_text("{torn")
    with pytest.raises(KeystoreError, match="expected a V3 keystore"):
        Wallet.load(path, "x")
