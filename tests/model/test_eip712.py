from dataclasses import dataclass

import pytest
from eth_account.messages import _hash_eip191_message, encode_typed_data
from hypothesis import given
from hypothesis import strategies as st

from sealdeal.model.eip712 import (
    Address,
    AddressList,
    Bool,
    Bytes,
    Bytes32_,
    Bytes32List,
    Domain,
    String,
    Typed,
    Uint256,
    digest,
)
from sealdeal.model.errors import InvalidInput
from sealdeal.model.types import address

words = st.binary(min_size=32, max_size=32)
addresses = st.binary(min_size=20, max_size=20).map(address)


@dataclass(frozen=True)
class Everything(Typed):
    who: Address
    amount: Uint256
    salt: Bytes32_
    yes: Bool
    text: String
    blob: Bytes
    members: AddressList
    roots: Bytes32List


everything = st.builds(
    Everything,
    who=addresses,
    amount=st.integers(0, 2**256 - 1),
    salt=words,
    yes=st.booleans(),
    text=st.text(),
    blob=st.binary(),
    members=st.lists(addresses, max_size=3).map(tuple),
    roots=st.lists(words, max_size=3).map(tuple),
)
domains = st.builds(Domain, st.text(), st.text(), st.none() | st.integers(0, 2**64), st.none() | addresses)


@given(domains, everything)
def test_the_digest_is_eth_accounts(domain: Domain, message: Everything) -> None:
    types = {"Everything": [{"name": n, "type": t} for n, t in Everything.fields()]}
    types["EIP712Domain"] = [{"name": n, "type": t} for n, t, _ in domain.fields()]
    full = {
        "types": types,
        "domain": {n: v for n, _, v in domain.fields()},
        "primaryType": "Everything",
        "message": {
            n: list(v) if isinstance(v := getattr(message, n), tuple) else v for n, _ in message.fields()
        },
    }
    assert digest(domain, message) == _hash_eip191_message(encode_typed_data(full_message=full))


@given(everything)
def test_json_reads_back(message: Everything) -> None:
    assert Everything.from_json(message.to_json()) == message


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"amount": -1}, "Everything.amount"),
        ({"amount": True}, "Everything.amount"),
        ({"amount": 2**256}, "Everything.amount"),
        ({"who": "0x00"}, "Everything.who"),
        ({"salt": "0x00"}, "Everything.salt"),
        ({"text": 7}, "Everything.text"),
        ({"text": "\ud800"}, "Everything.text"),
        ({"salt": 32}, "Everything.salt"),
        ({"blob": 1 << 40}, "Everything.blob"),
        ({"members": [20]}, "Everything.members"),
        ({"members": "0x00"}, "Everything.members"),
        ({"extra": 1}, "no field extra"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, object], says: str) -> None:
    good = Everything(address(bytes(20)), 1, bytes(32), True, "", b"", (), ()).to_json()
    with pytest.raises(InvalidInput, match=says):
        Everything.from_json({**good, **change})
    with pytest.raises(InvalidInput, match="lacks who"):
        Everything.from_json({k: v for k, v in good.items() if k != "who"})
