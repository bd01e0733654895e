import json
import re
from pathlib import Path

import pytest
from eth_abi.packed import encode_packed
from eth_account.messages import encode_typed_data
from eth_utils import keccak
from hypothesis import given
from hypothesis import strategies as st

from sealdeal.model import deals
from sealdeal.model.eip712 import Typed, digest
from sealdeal.model.errors import InvalidInput
from sealdeal.model.types import address, address_bytes

words = st.binary(min_size=32, max_size=32)
addresses = st.binary(min_size=20, max_size=20).map(address)


@given(words, st.integers(0, 2**256 - 1))
def test_ids_are_packed_hashes(word: bytes, index: int) -> None:
    packed = keccak(encode_packed(["bytes32", "uint256"], [word, index]))
    assert deals.deal_id(word, index) == deals.task_id(word, index) == packed


@given(addresses, words, words, addresses)
def test_what_workers_and_enclaves_sign(worker: str, task: bytes, digest: bytes, enclave: str) -> None:
    seal = keccak(encode_packed(["address", "bytes32", "bytes32"], [worker, task, digest]))
    assert deals.result_seal(address(worker), task, digest) == seal
    hashed = keccak(task + digest)
    assert deals.enclave_message(address(worker), task, digest) == keccak(hashed + seal)
    packed = encode_packed(["address", "bytes32", "address"], [worker, task, enclave])
    assert deals.authorisation_message(address(worker), task, address(enclave)) == keccak(packed)


@given(
    st.dictionaries(addresses, st.binary(min_size=65, max_size=65), min_size=1, max_size=15),
    st.integers(0, 2**64),
)
def test_a_quorums_blob_ascends_by_signer(signatures: dict[str, bytes], until: int) -> None:
    blob = deals.authorisation_blob(until, {address(k): v for k, v in signatures.items()})
    assert blob[:32] == until.to_bytes(32, "big")
    ordered = sorted(signatures, key=lambda a: address_bytes(address(a)))
    assert [blob[32 + 65 * i :][:65] for i in range(len(signatures))] == [signatures[a] for a in ordered]


@pytest.mark.parametrize(
    "signatures", [{}, {"0x" + "11" * 20: b"short"}, {"0x%040x" % i: bytes(65) for i in range(16)}]
)
def test_a_blob_that_the_quorum_would_refuse_is_not_made(signatures: dict[str, bytes]) -> None:
    with pytest.raises(InvalidInput, match="signatures of 65 bytes"):
        deals.authorisation_blob(1, {address(k): v for k, v in signatures.items()})


def test_the_kitty_is_the_hash_of_its_name_less_one() -> None:
    assert int(deals.KITTY, 16) == int.from_bytes(keccak(b"iExecKitty")[:20], "big") - 1


SOURCE = Path(__file__).parents[2] / "contracts" / "Quorum.vy"


@pytest.mark.parametrize("typed", [deals.Grant, deals.Change])
def test_what_a_quorum_reads_is_typed_as_it_reads_it(typed: type[Typed]) -> None:
    assert re.search(rf'keccak256\(\s*"{re.escape(typed.type_string())}"\s*\)', SOURCE.read_text())


changes = st.builds(
    deals.Change,
    add=st.lists(addresses, max_size=3).map(tuple),
    remove=st.lists(addresses, max_size=3).map(tuple),
    threshold=st.integers(0, 15),
    compromised=st.booleans(),
    nonce=st.integers(0, 2**256 - 1),
    validUntil=st.integers(0, 2**64),
)


@given(changes)
def test_a_change_survives_its_file(change: deals.Change) -> None:
    assert deals.Change.from_json(json.loads(json.dumps(change.to_json()))) == change


@given(changes, st.integers(1, 2**64), addresses)
def test_wallets_sign_the_same_change(change: deals.Change, chain_id: int, quorum: str) -> None:
    domain = deals.quorum_domain(chain_id, address(quorum))
    shown = encode_typed_data(
        domain_data={name: value for name, _, value in domain.fields()},
        message_types={"Change": [{"name": name, "type": kind} for name, kind in change.fields()]},
        message_data=change.to_json(),
    )
    assert digest(domain, change) == keccak(b"\x19\x01" + shown.header + shown.body)
