"""The three registries (poco.md §13)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from eth_abi.abi import encode

from sealdeal.model.types import ZERO, Address, address, keccak
from tests.contracts import official
from tests.contracts.behaviours.stage import NO_DATA, NOT_OWNER, act, answer, refused
from tests.contracts.world import Contract, World, abi_of, code, text

OFFICIAL_PROXY = bytes.fromhex("bd603b4fb17e88a3e7ff7a91b72bd89d0f6998fd53853f996c534d822df34587")
SOMEBODY = address("0x" + "5b" * 20)


@dataclass(frozen=True)
class Kind:
    """What differs between the three."""

    entry: str
    name: str
    symbol: str
    initialize: str
    arguments: tuple[Any, ...]
    first: str
    """A getter of the entry; the first of its arguments."""
    of: Callable[[World], Contract]

    def create(self, world: World, registry: Contract, owner: str = "app") -> tuple[Address, Any]:
        arguments = world.who(owner), *self.arguments
        made: Address = answer(world, "stranger", f"create{self.entry}", *arguments, on=registry)
        return made, act(world, "stranger", f"create{self.entry}", *arguments, on=registry)

    def fresh(self, world: World) -> Contract:
        """Another registry of the same suite, of which no hub knows."""
        name = f"{self.entry}Registry"
        if world.suite == "official":
            creation = official.bytecode(name)
        else:
            creation = code(name) + encode(["address", "bytes"], [ZERO, code(self.entry)])
        sender = world.owner.address
        return Contract(world.chain, abi_of(world.suite)(name), world.chain.deploy(creation, sender), sender)


APP = Kind(
    "App",
    "iExec Application Registry (V5)",
    "iExecAppsV5",
    "initialize(string,string,bytes,bytes32,bytes)",
    ("another app", "DOCKER", b"/ipfs/QmImage", b"\x01" * 32, b"measured"),
    "m_appName",
    lambda world: world.apps,
)
DATASET = Kind(
    "Dataset",
    "iExec Dataset Registry (V5)",
    "iExecDatasetsV5",
    "initialize(string,bytes,bytes32)",
    ("another dataset", b"/ipfs/QmData", b"\x02" * 32),
    "m_datasetName",
    lambda world: world.datasets,
)
WORKERPOOL = Kind(
    "Workerpool",
    "iExec Workerpool Registry (V5)",
    "iExecWorkerpoolV5",
    "initialize(string)",
    ("another pool",),
    "m_workerpoolDescription",
    lambda world: world.workerpools,
)


@pytest.fixture(params=[APP, DATASET, WORKERPOOL], ids=lambda kind: kind.entry)
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest.fixture
def registry(world: World, kind: Kind) -> Contract:
    return kind.of(world)


# ---- The collection ----------------------------------------------------------------------------------------


def test_initialize_new_deployed_registries(world: World, kind: Kind, registry: Contract) -> None:
    fresh = kind.fresh(world)
    assert (fresh.initialized(), fresh.previous()) == (False, ZERO)
    act(world, "owner", "initialize", registry.address, on=fresh)
    assert (fresh.initialized(), fresh.previous()) == (True, registry.address)


def test_not_initialize_when_user_is_not_the_owner(world: World, kind: Kind) -> None:
    assert refused(world, "stranger", "initialize", ZERO, on=kind.fresh(world)) == NOT_OWNER


def test_not_reinitialize(world: World, kind: Kind) -> None:
    fresh = kind.fresh(world)
    act(world, "owner", "initialize", ZERO, on=fresh)
    assert refused(world, "owner", "initialize", ZERO, on=fresh) == NO_DATA


def test_retrieve_base_uri(world: World, kind: Kind, registry: Contract) -> None:
    made, _ = kind.create(world, registry)
    for base in ("", "https://example.org/31337/"):
        act(world, "owner", "setBaseURI", base, on=registry)
        assert registry.baseURI() == base
        assert registry.tokenURI(int(made, 16)) == (base and f"{base}{int(made, 16)}")


def test_not_set_base_uri_when_user_is_not_the_owner(world: World, registry: Contract) -> None:
    assert refused(world, "stranger", "setBaseURI", "mine", on=registry) == NOT_OWNER


def test_check_that_masters_are_deployed_at_master_addresses(
    world: World, kind: Kind, registry: Contract
) -> None:
    master = world.entry(kind.entry, registry.master(), world.owner.address)
    assert master.call(kind.first) == ""


def test_retrieve_correct_erc_721_name(kind: Kind, registry: Contract) -> None:
    assert registry.name() == kind.name


def test_retrieve_correct_erc_721_symbol(kind: Kind, registry: Contract) -> None:
    assert registry.symbol() == kind.symbol


def predicted(kind: Kind, registry: Contract, owner: Address) -> Address:
    """CREATE2 of the proxy's code; the salt is of the entry's initialisation and its owner."""
    types = kind.initialize[kind.initialize.index("(") + 1 : -1].split(",")
    init = keccak(kind.initialize.encode())[:4] + encode(types, kind.arguments)
    salt = keccak(init + bytes.fromhex(owner[2:]))
    return address(
        keccak(b"\xff" + bytes.fromhex(registry.address[2:]) + salt + registry.proxyCodeHash())[12:]
    )


def test_return_the_correct_value_for_proxycode(world: World, registry: Contract) -> None:
    """Creation code of all its entries: the official proxy's, or ours, a clone of the master (ERC-1167)."""
    assert keccak(registry.proxyCode()) == registry.proxyCodeHash()
    if world.suite == "official":
        assert registry.proxyCodeHash() == OFFICIAL_PROXY
    else:
        assert bytes.fromhex(registry.master()[2:]) in registry.proxyCode()


def test_return_the_correct_value_for_proxycodehash(world: World, kind: Kind, registry: Contract) -> None:
    made, _ = kind.create(world, registry)
    assert made == predicted(kind, registry, world.who("app"))


def test_return_the_correct_value_for_previous_registry(world: World, kind: Kind, registry: Contract) -> None:
    """Its entries count as registered, and are not this registry's tokens."""
    old, _ = kind.create(world, registry)
    fresh = kind.fresh(world)
    assert fresh.isRegistered(old) is False
    act(world, "owner", "initialize", registry.address, on=fresh)
    assert fresh.previous() == registry.address
    assert fresh.isRegistered(old) is True
    assert fresh.totalSupply() == 0


def test_current_regitries_be_initialized(world: World, registry: Contract) -> None:
    """The official deployment has done it here; for ours the owner does (chain/deploy.py)."""
    if world.suite == "ours":
        act(world, "owner", "initialize", ZERO, on=registry)
    assert registry.initialized() is True
    assert refused(world, "owner", "initialize", ZERO, on=registry) == NO_DATA


def test_revert_when_setname_is_called_for_reverse_registration(world: World, registry: Contract) -> None:
    arguments = ("setName", SOMEBODY, "a name")
    assert refused(world, "owner", *arguments, on=registry) == text("Operation not supported on this chain")
    assert refused(world, "stranger", *arguments, on=registry) == NOT_OWNER


# ---- Entries -----------------------------------------------------------------------------------------------


def test_predict_the_correct_address_for_future_creation(
    world: World, kind: Kind, registry: Contract
) -> None:
    arguments = world.who("app"), *kind.arguments
    before = answer(world, "stranger", f"predict{kind.entry}", *arguments, on=registry)
    made, _ = kind.create(world, registry)
    assert answer(world, "stranger", f"predict{kind.entry}", *arguments, on=registry) == before == made


def test_create_the_and_check_token_details(world: World, kind: Kind, registry: Contract) -> None:
    supply, owner = registry.totalSupply(), world.who("sponsor")
    made, done = kind.create(world, registry, "sponsor")
    token = int(made, 16)
    assert done.events == [("Transfer", ZERO, owner, token)]
    assert (registry.totalSupply(), registry.balanceOf(owner)) == (supply + 1, 1)
    assert registry.ownerOf(token) == owner
    assert registry.tokenByIndex(supply) == registry.tokenOfOwnerByIndex(owner, 0) == token
    assert registry.tokenURI(token) == (registry.baseURI() and f"{registry.baseURI()}{token}")
    assert registry.getApproved(token) == ZERO
    entry = world.entry(kind.entry, made, owner)
    assert (entry.owner(), entry.registry(), entry.call(kind.first)) == (
        owner,
        registry.address,
        kind.arguments[0],
    )


def test_check_that_a_new_is_well_registered(world: World, kind: Kind, registry: Contract) -> None:
    made, _ = kind.create(world, registry)
    assert registry.isRegistered(made) is True


def test_not_have_a_random_address_registered_in_registry(registry: Contract) -> None:
    for unknown in (SOMEBODY, ZERO, registry.master()):
        assert registry.isRegistered(unknown) is False


def test_not_allow_creating_the_same_twice(world: World, kind: Kind, registry: Contract) -> None:
    """For another owner it is another entry."""
    kind.create(world, registry)
    arguments = world.who("app"), *kind.arguments
    assert refused(world, "stranger", f"create{kind.entry}", *arguments, on=registry) == text(
        "Create2: Failed on deploy"
    )
    kind.create(world, registry, "sponsor")


def test_check_that_a_new_app_is_well_registered_on_new_app_registry(world: World) -> None:
    fresh = APP.fresh(world)
    act(world, "owner", "initialize", world.apps.address, on=fresh)
    made, _ = APP.create(world, fresh)
    assert fresh.isRegistered(made) is fresh.isRegistered(world.app) is True
    assert world.apps.isRegistered(made) is False
    assert fresh.tokenByIndex(0) == int(made, 16)
