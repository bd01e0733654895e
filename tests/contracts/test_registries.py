"""The three ERC-721 registries: what they answer, refuse and tell the hub (poco.md §13)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import boa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealdeal.model.types import address, keccak
from tests.contracts.evm import ZERO, account, at, calldata, code, compiled, inline, refused, signatures

MIRROR = """
packed: public(HashMap[address, uint256])
syncs: public(uint256)

@external
def sync(entry: address, word: uint256):
    self.packed[entry] = word
    self.syncs += 1
"""

APP_ARGS = ("app", "DOCKER", b"/ipfs/QmImage", b"\x01" * 32, b"")
DATASET_ARGS = ("dataset", b"/ipfs/QmData", b"\x02" * 32)
POOL_ARGS = ("pool of the test",)


@dataclass(frozen=True)
class Kind:
    """What differs between the three registries."""

    number: int
    entry: str
    name: str
    symbol: str
    initialize: str
    args: tuple[Any, ...]
    policy: int = 0

    @property
    def registry(self) -> str:
        return f"{self.entry}Registry"

    def deploy(self, hub: str = ZERO) -> Any:
        return compiled(self.registry).deploy(hub, code(self.entry))

    def create(self, registry: Any, owner: str, name: str = "") -> str:
        args = (name or self.args[0], *self.args[1:])
        return str(getattr(registry, f"create{self.entry}")(owner, *args))

    def predict(self, registry: Any, owner: str, name: str = "") -> str:
        args = (name or self.args[0], *self.args[1:])
        return str(getattr(registry, f"predict{self.entry}")(owner, *args))

    def packed(self, owner: str, index: int) -> int:
        return int(owner, 16) | self.policy << 160 | self.number << 184 | index << 192


KINDS = [
    Kind(
        1,
        "App",
        "iExec Application Registry (V5)",
        "iExecAppsV5",
        "initialize(string,string,bytes,bytes32,bytes)",
        APP_ARGS,
    ),
    Kind(
        2,
        "Dataset",
        "iExec Dataset Registry (V5)",
        "iExecDatasetsV5",
        "initialize(string,bytes,bytes32)",
        DATASET_ARGS,
    ),
    Kind(
        3,
        "Workerpool",
        "iExec Workerpool Registry (V5)",
        "iExecWorkerpoolV5",
        "initialize(string)",
        POOL_ARGS,
        policy=30 | 1 << 16,
    ),
]


@pytest.fixture(autouse=True)
def undone() -> Iterator[None]:
    with boa.env.anchor():
        yield


@pytest.fixture(params=KINDS, ids=lambda kind: kind.registry)
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest.fixture
def hub() -> Any:
    return inline(MIRROR)


@pytest.fixture
def registry(kind: Kind, hub: Any) -> Any:
    return kind.deploy(hub.address)


@pytest.fixture
def provider() -> str:
    return account("provider")


@pytest.fixture
def stranger() -> str:
    return account("stranger")


@pytest.fixture
def buyer() -> str:
    return account("buyer")


# ---- The collection ----------------------------------------------------------------------------------------


OFFICIAL = {
    "approve(address,uint256)",
    "balanceOf(address)",
    "baseURI()",
    "getApproved(uint256)",
    "initialize(address)",
    "initialized()",
    "isApprovedForAll(address,address)",
    "isRegistered(address)",
    "master()",
    "name()",
    "owner()",
    "ownerOf(uint256)",
    "previous()",
    "proxyCode()",
    "proxyCodeHash()",
    "renounceOwnership()",
    "safeTransferFrom(address,address,uint256)",
    "safeTransferFrom(address,address,uint256,bytes)",
    "setApprovalForAll(address,bool)",
    "setBaseURI(string)",
    "setName(address,string)",
    "supportsInterface(bytes4)",
    "symbol()",
    "tokenByIndex(uint256)",
    "tokenOfOwnerByIndex(address,uint256)",
    "tokenURI(uint256)",
    "totalSupply()",
    "transferFrom(address,address,uint256)",
    "transferOwnership(address)",
}

MAKERS = {
    "App": "App(address,string,string,bytes,bytes32,bytes)",
    "Dataset": "Dataset(address,string,bytes,bytes32)",
    "Workerpool": "Workerpool(address,string)",
}


def test_every_official_function_is_there(kind: Kind) -> None:
    makers = {f"{verb}{MAKERS[kind.entry]}" for verb in ("create", "predict")}
    ours = {"packed(address)", "entryAt(uint256)"} | (
        {"setPolicy(address,uint256,uint256)"} if kind.entry == "Workerpool" else set()
    )
    assert signatures(kind.registry) == {*OFFICIAL, *makers} | ours


def test_name_and_symbol(kind: Kind, registry: Any) -> None:
    assert (registry.name(), registry.symbol()) == (kind.name, kind.symbol)


def test_interfaces(registry: Any) -> None:
    for known in ("01ffc9a7", "80ac58cd", "5b5e139f", "780e9d63"):
        assert registry.supportsInterface(bytes.fromhex(known))
    for unknown in ("ffffffff", "00000000", "36372b07"):
        assert not registry.supportsInterface(bytes.fromhex(unknown))


def test_master_is_deployed_by_the_registry(kind: Kind, registry: Any) -> None:
    assert boa.env.get_code(registry.master())
    assert at(kind.entry, registry.master()).registry() == registry.address


def test_proxy_code_is_what_entries_are_made_of(kind: Kind, registry: Any, provider: str) -> None:
    master = bytes.fromhex(registry.master()[2:])
    runtime = bytes.fromhex("363d3d373d3d3d363d73") + master + bytes.fromhex("5af43d82803e903d91602b57fd5bf3")
    assert registry.proxyCode() == bytes.fromhex("602d3d8160093d39f3") + runtime
    assert registry.proxyCodeHash() == keccak(registry.proxyCode())
    assert boa.env.get_code(kind.create(registry, provider)) == runtime


def test_it_takes_no_native_currency(registry: Any, stranger: str) -> None:
    boa.env.set_balance(stranger, 10)
    with pytest.raises(Exception, match=r"b''|Revert"):
        boa.env.raw_call(registry.address, sender=stranger, value=1)


# ---- Creating ----------------------------------------------------------------------------------------------


def test_creation_gives_a_token(kind: Kind, registry: Any, provider: str, stranger: str) -> None:
    entry = kind.create(registry, provider)
    [transfer] = registry.get_logs()
    assert type(transfer).__name__ == "Transfer"
    assert (transfer.from_, transfer.to, transfer.tokenId) == (ZERO, provider, int(entry, 16))
    assert registry.ownerOf(int(entry, 16)) == provider
    assert registry.balanceOf(provider) == 1
    assert registry.balanceOf(stranger) == 0
    assert registry.totalSupply() == 1
    assert registry.tokenByIndex(0) == registry.tokenOfOwnerByIndex(provider, 0) == int(entry, 16)
    assert registry.entryAt(0) == entry
    assert registry.entryAt(1) == ZERO
    assert registry.isRegistered(entry)
    assert not registry.isRegistered(stranger)


def test_creation_tells_the_hub(kind: Kind, hub: Any, registry: Any, provider: str, buyer: str) -> None:
    first, second = kind.create(registry, provider, "first"), kind.create(registry, buyer, "second")
    assert hub.packed(first) == registry.packed(first) == kind.packed(provider, 0)
    assert hub.packed(second) == registry.packed(second) == kind.packed(buyer, 1)
    assert hub.syncs() == 2
    assert registry.packed(provider) == 0


def test_prediction_is_the_documented_formula(kind: Kind, registry: Any, provider: str) -> None:
    salt = keccak(calldata(kind.initialize, *kind.args) + bytes.fromhex(provider[2:]))
    digest = keccak(b"\xff" + bytes.fromhex(registry.address[2:]) + salt + registry.proxyCodeHash())
    expected = address(digest[12:])
    assert kind.predict(registry, provider) == expected
    assert kind.create(registry, provider) == expected
    assert kind.predict(registry, provider) == expected  # existing or not


def test_owner_and_content_both_decide_the_address(
    kind: Kind, registry: Any, provider: str, buyer: str
) -> None:
    made = {
        kind.create(registry, provider),
        kind.create(registry, buyer),
        kind.create(registry, provider, "b"),
    }
    assert len(made) == 3


def test_the_same_again_is_refused_and_cheap(kind: Kind, registry: Any, provider: str, buyer: str) -> None:
    entry = kind.create(registry, provider)
    with refused("Create2: Failed on deploy"):
        kind.create(registry, provider)
    registry.transferFrom(provider, buyer, int(entry, 16), sender=provider)
    before = boa.env.get_gas_used()
    with refused("Create2: Failed on deploy"):
        kind.create(registry, provider)
    assert (
        0 < boa.env.get_gas_used() - before < 50_000
    )  # a CREATE2 onto existing code would have burned all of it


def test_anyone_may_create_for_anyone_but_nobody(
    kind: Kind, registry: Any, provider: str, stranger: str
) -> None:
    with boa.env.prank(stranger):
        entry = kind.create(registry, provider)
        assert registry.ownerOf(int(entry, 16)) == provider
        with refused("ERC721: mint to the zero address"):
            kind.create(registry, ZERO)


def test_a_registry_without_a_hub_works_alone(kind: Kind, provider: str, buyer: str) -> None:
    registry = kind.deploy()
    entry = kind.create(registry, provider)
    registry.transferFrom(provider, buyer, int(entry, 16), sender=provider)
    assert registry.packed(entry) == kind.packed(buyer, 0)


def test_nothing_is_created_before_the_hub_exists(kind: Kind, provider: str, stranger: str) -> None:
    registry = kind.deploy(stranger)
    with refused():
        kind.create(registry, provider)


def test_longest_texts_fit_and_longer_ones_are_refused(provider: str) -> None:
    registry = KINDS[0].deploy()
    longest = ("n" * 1024, "t" * 1024, b"m" * 2048, b"\xff" * 32, b"e" * 2048)
    app = at("App", registry.createApp(provider, *longest))
    found = (app.m_appName(), app.m_appType(), app.m_appMultiaddr(), app.m_appChecksum())
    assert (*found, app.m_appMREnclave()) == longest
    for place, longer in ((0, "n" * 1025), (1, "t" * 1025), (2, b"m" * 2049), (4, b"e" * 2049)):
        args = [*longest[:place], longer, *longest[place + 1 :]]
        call = calldata(f"create{MAKERS['App']}", provider, *args)
        with pytest.raises(Exception, match="b''"):  # refused by the ABI decoder, without data
            boa.env.raw_call(registry.address, data=call)


# ---- Its owner ---------------------------------------------------------------------------------------------


def test_initialize_once_by_the_owner(kind: Kind, registry: Any, stranger: str) -> None:
    assert not registry.initialized()
    with refused("Ownable: caller is not the owner"):
        registry.initialize(ZERO, sender=stranger)
    registry.initialize(ZERO)
    assert (registry.initialized(), registry.previous()) == (True, ZERO)
    with refused():
        registry.initialize(ZERO)


def test_entries_of_the_previous_registry_count(kind: Kind, registry: Any, provider: str) -> None:
    successor = kind.deploy()
    entry = kind.create(registry, provider)
    assert not successor.isRegistered(entry)
    successor.initialize(registry.address)
    assert successor.previous() == registry.address
    assert successor.isRegistered(entry)
    assert not successor.isRegistered(provider)
    assert not registry.isRegistered(kind.create(successor, provider))


def test_base_uri(kind: Kind, registry: Any, provider: str, stranger: str) -> None:
    entry = int(kind.create(registry, provider), 16)
    assert (registry.baseURI(), registry.tokenURI(entry)) == ("", "")
    with refused("Ownable: caller is not the owner"):
        registry.setBaseURI("https://stranger/", sender=stranger)
    registry.setBaseURI("https://nfts-metadata.example/app/134/")
    assert registry.baseURI() == "https://nfts-metadata.example/app/134/"
    assert registry.tokenURI(entry) == f"https://nfts-metadata.example/app/134/{entry}"
    with refused("ERC721Metadata: URI query for nonexistent token"):
        registry.tokenURI(1)


def test_set_name_is_always_refused(registry: Any, stranger: str) -> None:
    with refused("Ownable: caller is not the owner"):
        registry.setName(stranger, "name.eth", sender=stranger)
    with refused("Operation not supported on this chain"):
        registry.setName(stranger, "name.eth")


def test_ownership(registry: Any, stranger: str, buyer: str) -> None:
    deployer = registry.owner()
    assert deployer == boa.env.eoa
    with refused("Ownable: caller is not the owner"):
        registry.transferOwnership(stranger, sender=stranger)
    with refused("Ownable: new owner is the zero address"):
        registry.transferOwnership(ZERO)
    registry.transferOwnership(buyer)
    [change] = registry.get_logs()
    assert (change.previousOwner, change.newOwner, registry.owner()) == (deployer, buyer, buyer)
    with refused("Ownable: caller is not the owner"):
        registry.renounceOwnership()
    registry.renounceOwnership(sender=buyer)
    assert registry.owner() == ZERO
    with refused("Ownable: caller is not the owner"):
        registry.setBaseURI("x", sender=buyer)


# ---- ERC-721 -----------------------------------------------------------------------------------------------


@pytest.fixture
def token(kind: Kind, registry: Any, provider: str) -> int:
    return int(kind.create(registry, provider), 16)


def test_transfer_moves_the_asset_and_tells_the_hub(
    kind: Kind, hub: Any, registry: Any, token: int, provider: str, buyer: str
) -> None:
    registry.approve(buyer, token, sender=provider)
    registry.transferFrom(provider, buyer, token, sender=buyer)
    approval, transfer = registry.get_logs()
    assert (approval.owner, approval.approved, approval.tokenId) == (provider, ZERO, token)
    assert (transfer.from_, transfer.to, transfer.tokenId) == (provider, buyer, token)
    assert registry.getApproved(token) == ZERO
    assert (registry.balanceOf(provider), registry.balanceOf(buyer)) == (0, 1)
    assert at(kind.entry, registry.entryAt(0)).owner() == buyer
    assert hub.packed(registry.entryAt(0)) == kind.packed(buyer, 0)


def test_texts_of_refusals(registry: Any, token: int, provider: str, stranger: str) -> None:
    nobody = 2**200 + 7  # no address has this number
    with refused("ERC721: owner query for nonexistent token"):
        registry.ownerOf(nobody)
    with refused("ERC721: balance query for the zero address"):
        registry.balanceOf(ZERO)
    with refused("ERC721: transfer caller is not owner nor approved"):
        registry.transferFrom(provider, stranger, token, sender=stranger)
    with refused("ERC721: operator query for nonexistent token"):
        registry.transferFrom(provider, stranger, nobody, sender=provider)
    with refused("ERC721: transfer of token that is not own"):
        registry.transferFrom(stranger, provider, token, sender=provider)
    with refused("ERC721: transfer to the zero address"):
        registry.transferFrom(provider, ZERO, token, sender=provider)
    with refused("EnumerableSet: index out of bounds"):
        registry.tokenOfOwnerByIndex(provider, 1)
    with refused("EnumerableMap: index out of bounds"):
        registry.tokenByIndex(1)
    with refused("ERC721: approval to current owner"):
        registry.approve(provider, token, sender=provider)
    with refused("ERC721: approve caller is not owner nor approved for all"):
        registry.approve(stranger, token, sender=stranger)
    with refused("ERC721: owner query for nonexistent token"):
        registry.approve(stranger, nobody, sender=provider)
    with refused("ERC721: approved query for nonexistent token"):
        registry.getApproved(nobody)
    with refused("ERC721: approve to caller"):
        registry.setApprovalForAll(provider, True, sender=provider)


def test_operators(registry: Any, token: int, provider: str, buyer: str, stranger: str) -> None:
    registry.setApprovalForAll(stranger, True, sender=provider)
    [log] = registry.get_logs()
    assert (log.owner, log.operator, log.approved) == (provider, stranger, True)
    assert registry.isApprovedForAll(provider, stranger)
    registry.approve(buyer, token, sender=stranger)
    assert registry.getApproved(token) == buyer
    registry.transferFrom(provider, buyer, token, sender=stranger)
    with refused("ERC721: transfer caller is not owner nor approved"):
        registry.transferFrom(buyer, provider, token, sender=stranger)
    registry.setApprovalForAll(stranger, False, sender=provider)
    assert not registry.isApprovedForAll(provider, stranger)


RECEIVER = """
event Received:
    operator: address
    source: address
    id: uint256
    data: Bytes[64]

mode: uint256

@deploy
def __init__(mode: uint256):
    self.mode = mode

@external
def onERC721Received(operator: address, source: address, id: uint256, data: Bytes[64]) -> bytes4:
    log Received(operator=operator, source=source, id=id, data=data)
    if self.mode == 1:
        return 0x00000000
    assert self.mode != 2, "receiver says no"
    assert self.mode != 3
    return 0x150b7a02
"""


def test_safe_transfers(registry: Any, token: int, provider: str, buyer: str, stranger: str) -> None:
    willing = inline(RECEIVER, 0)
    registry.safeTransferFrom(provider, buyer, token, sender=provider)
    registry.setApprovalForAll(stranger, True, sender=buyer)
    registry.safeTransferFrom(buyer, willing.address, token, b"note", sender=stranger)
    [log] = [entry for entry in registry.get_logs() if type(entry).__name__ == "Received"]
    assert (log.operator, log.source, log.id, log.data) == (stranger, buyer, token, b"note")
    assert registry.ownerOf(token) == willing.address


NUMBERED = """
NUMBER: immutable(uint256)

@deploy
def __init__(number: uint256):
    NUMBER = number

@external
def onERC721Received(operator: address, source: address, id: uint256, data: Bytes[64]) -> uint256:
    return NUMBER
"""


def test_a_receiver_that_answers_no_bytes4_is_no_receiver(registry: Any, token: int, provider: str) -> None:
    with refused("ERC721: transfer to non ERC721Receiver implementer"):
        registry.safeTransferFrom(provider, inline(NUMBERED, 2).address, token, sender=provider)


def test_a_receiver_may_add_to_its_answer(registry: Any, token: int, provider: str) -> None:
    answer = (0x150B7A02 << 224) + 1
    registry.safeTransferFrom(provider, inline(NUMBERED, answer).address, token, sender=provider)


def test_safe_transfers_refused(registry: Any, token: int, provider: str) -> None:
    for mode, text in ((1, "ERC721: transfer to non ERC721Receiver implementer"), (2, "receiver says no")):
        with refused(text):
            registry.safeTransferFrom(provider, inline(RECEIVER, mode).address, token, sender=provider)
    for deaf in (inline(RECEIVER, 3), inline("x: uint256")):
        with refused("ERC721: transfer to non ERC721Receiver implementer"):
            registry.safeTransferFrom(provider, deaf.address, token, sender=provider)
    with refused():  # an answer that is no bytes4
        mute = inline("@external\n@payable\ndef __default__():\n    pass")
        registry.safeTransferFrom(provider, mute.address, token, sender=provider)
    assert registry.ownerOf(token) == provider


def test_a_registry_serves_its_own_entries_only(provider: str) -> None:
    pools, others = KINDS[2].deploy(), KINDS[2].deploy()
    foreign = KINDS[2].create(others, provider)
    for caller in (provider, foreign, pools.address):
        with refused("WorkerpoolRegistry: caller is not a workerpool"):
            pools.setPolicy(provider, 1, 1, sender=caller)
        with refused("WorkerpoolRegistry: caller is not a workerpool"):
            pools.setPolicy(ZERO, 1, 1, sender=caller)


# ---- Enumeration against a model ---------------------------------------------------------------------------

OWNERS = 3
moves = st.lists(
    st.tuples(st.sampled_from(("create", "transfer")), st.integers(0, 40), st.integers(0, OWNERS - 1)),
    max_size=14,
)


@settings(max_examples=25)
@given(moves=moves)
def test_enumeration_follows_openzeppelin(moves: list[tuple[str, int, int]]) -> None:
    """Creation appends; a transfer puts the owner's last token in the leaving one's place."""
    with boa.env.anchor():
        kind = KINDS[2]
        hub = inline(MIRROR)
        registry = kind.deploy(hub.address)
        owners = [account(f"owner {n}") for n in range(OWNERS)]
        made: list[str] = []
        held: list[list[str]] = [[] for _ in owners]
        for verb, which, target in moves:
            if verb == "create":
                made.append(kind.create(registry, owners[target], f"pool {len(made)}"))
                held[target].append(made[-1])
            elif made:
                entry = made[which % len(made)]
                source = next(n for n, tokens in enumerate(held) if entry in tokens)
                registry.transferFrom(owners[source], owners[target], int(entry, 16), sender=owners[source])
                place = held[source].index(entry)
                held[source][place] = held[source][-1]
                held[source].pop()
                held[target].append(entry)
        assert [registry.tokenByIndex(i) for i in range(registry.totalSupply())] == [int(e, 16) for e in made]
        for owner, tokens in zip(owners, held, strict=True):
            count = registry.balanceOf(owner)
            listed = [registry.tokenOfOwnerByIndex(owner, i) for i in range(count)]
            assert listed == [int(entry, 16) for entry in tokens]
            for entry in tokens:
                assert registry.ownerOf(int(entry, 16)) == owner
                assert hub.packed(entry) == kind.packed(owner, made.index(entry))
