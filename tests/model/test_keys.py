import pytest
from eth_account import Account
from eth_account.messages import encode_defunct
from hypothesis import given
from hypothesis import strategies as st

from sealdeal.model.errors import BadSignature, InvalidInput
from sealdeal.model.keys import Key, recover_digest, recover_message

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
secrets = st.integers(1, ORDER - 1).map(lambda n: n.to_bytes(32, "big"))
words = st.binary(min_size=32, max_size=32)


@given(secrets, words)
def test_signatures_are_eth_accounts(secret: bytes, message: bytes) -> None:
    key, oracle = Key(secret), Account.from_key(secret)
    assert key.address == oracle.address
    assert key.sign_message(message) == bytes(oracle.sign_message(encode_defunct(message)).signature)
    assert recover_message(message, key.sign_message(message)) == key.address


@given(secrets, words)
def test_compact_signatures_are_read(secret: bytes, digest: bytes) -> None:
    key = Key(secret)
    full = key.sign_digest(digest)
    compact = full[:32] + bytes([full[32] | (full[64] - 27) << 7]) + full[33:64]
    assert recover_digest(digest, compact) == key.address


@given(secrets, words)
def test_a_signature_in_the_upper_half_is_refused(secret: bytes, digest: bytes) -> None:
    full = Key(secret).sign_digest(digest)
    high = (ORDER - int.from_bytes(full[32:64], "big")).to_bytes(32, "big")
    with pytest.raises(BadSignature, match="upper half"):
        recover_digest(digest, full[:32] + high + bytes([55 - full[64]]))


@pytest.mark.parametrize("junk", [b"", bytes(65), bytes(64) + b"\x1b", b"\xff" * 65, bytes(66)])
def test_junk_is_no_signature(junk: bytes) -> None:
    with pytest.raises(BadSignature):
        recover_digest(bytes(32), junk)


@pytest.mark.parametrize("secret", [b"", bytes(32), b"\xff" * 32, b"x" * 31])
def test_what_is_no_key_is_refused(secret: bytes) -> None:
    with pytest.raises(InvalidInput, match="private key"):
        Key(secret)


def test_a_key_does_not_show_its_secret() -> None:
    assert Key(b"\x01" * 32).secret.hex() not in repr(Key(b"\x01" * 32))
