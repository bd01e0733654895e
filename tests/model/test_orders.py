import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealdeal.model.eip712 import hub_domain
from sealdeal.model.errors import InvalidInput
from sealdeal.model.keys import Key, recover_digest
from sealdeal.model.orders import (
    ORDER_TYPES,
    PARAM_NAMES,
    AppOrder,
    Kind,
    Params,
    RequestOrder,
    Signed,
    kind_of,
    tag,
    tag_names,
)
from sealdeal.model.types import address

OWNER = Key(b"\x07" * 32)

# poco.md §4, from the official contracts
TYPE_HASHES = {
    Kind.APP: "60815a0eeec47dddf1615fe53b31d016c31444e01b9d796db365443a6445d008",
    Kind.DATASET: "6cfc932a5a3d22c4359295b9f433edff52b60703fa47690a04a83e40933dd47c",
    Kind.WORKERPOOL: "aa3429fb281b34691803133d3d978a75bb77c617ed6bc9aa162b9b30920022bb",
    Kind.REQUEST: "f24e853034a3a450aba845a82914fbb564ad85accca6cf62be112a154520fae0",
}


@pytest.mark.parametrize("kind", Kind)
def test_type_hashes_are_the_official_ones(kind: Kind) -> None:
    assert ORDER_TYPES[kind].type_hash().hex() == TYPE_HASHES[kind]


def test_an_order_is_signed_for_one_hub_on_one_chain() -> None:
    order = AppOrder(app=OWNER.address, appprice=3)
    here, there = hub_domain(1, address(b"h" * 20)), hub_domain(2, address(b"h" * 20))
    signed = Signed.by(OWNER, order, here)
    assert recover_digest(signed.hash(here), signed.sign) == OWNER.address
    assert recover_digest(signed.hash(there), signed.sign) != OWNER.address
    assert Signed.from_json(Kind.APP, json.loads(json.dumps(signed.to_json()))) == signed
    assert signed.as_tuple() == (*order.as_tuple(), signed.sign)
    assert kind_of(order) is Kind.APP


def test_an_unsigned_order_is_refused() -> None:
    with pytest.raises(InvalidInput, match="sign"):
        Signed.from_json(Kind.REQUEST, RequestOrder(app=OWNER.address).to_json())


def test_tags_for_people() -> None:
    assert tag_names(tag(0b1001)) == "tee,tdx"
    assert tag_names(tag(1 << 9)) == "bit 9"
    assert tag_names(tag(0)) == "none"


params = st.builds(
    Params,
    args=st.text(),
    input_files=st.lists(st.text(), max_size=2).map(tuple),
    secrets=st.dictionaries(st.integers(0, 9), st.text(), max_size=2),
    result_encryption=st.booleans(),
    result_storage_provider=st.sampled_from(["ipfs", "dropbox"]),
)


@given(params)
def test_params_read_back(given_params: Params) -> None:
    assert Params.parse(given_params.to_text()) == given_params


@given(st.text())
def test_any_text_is_params(text: str) -> None:
    parsed = Params.parse(text)
    assert isinstance(parsed, Params)


@pytest.mark.parametrize(
    "text",
    ["--fast", '{"unknown": 1}', '{"iexec_args": 3}', "[1]", '{"iexec_secrets": {"a": "b"}}', "[" * 5_000],
)
def test_what_is_not_the_known_json_is_all_arguments(text: str) -> None:
    assert Params.parse(text) == Params(args=text)


def test_a_sealed_digest_is_asked_for_in_a_way_that_others_pass_over() -> None:
    """As the secret number 0: the network skips numbers below 1, and knows the key (wire.md §2.2, §5.2)."""
    asked = Params(args="x", secrets={1: "token"}, sealed_digest=True)
    text = asked.to_text()
    assert Params.parse(text) == asked
    assert json.loads(text)["iexec_secrets"] == {"0": "sealdeal:digest=sealed", "1": "token"}
    assert set(json.loads(text)) <= set(PARAM_NAMES)
    assert not Params.parse('{"iexec_secrets": {"0": "another"}}').sealed_digest
    assert Params.parse('{"iexec_secrets": {"0": "another"}}').secrets == {0: "another"}
