"""The owner's settings, and the domain that orders are signed under (poco.md §11).

The official hub is configured after its deployment, ours by its constructor.
"""

from __future__ import annotations

from typing import Any

import pytest
from eth_abi.abi import encode

from sealdeal.model.eip712 import hub_domain
from sealdeal.model.types import ZERO, ZERO32, Address, keccak
from tests.contracts import official
from tests.contracts.behaviours.stage import (
    NO_DATA,
    NOT_OWNER,
    act,
    answering,
    refused,
    tuples,
    word,
)
from tests.contracts.world import CHAIN_ID, Contract, World, text


def unconfigured(world: World) -> Contract:
    """Another official hub, as it is before `configure`."""
    chain, sender = world.chain, world.owner.address
    library = chain.deploy(official.bytecode(official.LIBRARY), sender)

    def cut(facet: str) -> tuple[Address, int, list[bytes]]:
        return (
            chain.deploy(official.bytecode(facet, library), sender),
            official.ADD,
            official.selectors(facet),
        )

    cuts = [cut(facet) for facet in ("OwnershipFacet", "IexecConfigurationFacet", "IexecPocoAccessorsFacet")]
    init = chain.deploy(official.bytecode("DiamondInit"), sender), keccak(b"init()")[:4]
    arguments = encode([official.CUT, "(address,address,bytes)"], [cuts, (sender, *init)])
    at = chain.deploy(official.bytecode("Diamond") + arguments, sender)
    return Contract(chain, official.abi("Hub"), at, sender)


def settings(world: World, v3hub: Address = ZERO) -> tuple[Any, ...]:
    """Arguments of `configure`."""
    registries = world.apps.address, world.datasets.address, world.workerpools.address
    return world.token.address, "Staked RLC", "SRLC", 9, *registries, v3hub


def seen(hub: Contract) -> tuple[Any, ...]:
    """What of them the hub shows."""
    registries = hub.appregistry(), hub.datasetregistry(), hub.workerpoolregistry()
    return hub.token(), hub.name(), hub.symbol(), hub.decimals(), *registries


# ---- Configuring -------------------------------------------------------------------------------------------


def test_configure(world: World) -> None:
    hub = world.hub
    if world.suite == "official":
        hub = unconfigured(world)
        assert (hub.token(), hub.eip712domain_separator(), hub.callbackgas()) == (ZERO, ZERO32, 0)
        assert act(world, "owner", "configure", *settings(world), on=hub).events == []
    assert seen(hub) == settings(world)[:-1]
    assert hub.eip712domain_separator() == hub_domain(CHAIN_ID, hub.address).separator
    assert hub.callbackgas() == 100_000


@pytest.mark.needs("configure")
def test_not_configure_when_sender_is_not_owner(world: World) -> None:
    assert refused(world, "stranger", "configure", *settings(world)) == NOT_OWNER


@pytest.mark.needs("configure")
def test_not_configure_when_already_configured(world: World) -> None:
    assert refused(world, "owner", "configure", *settings(world)) == text("already-configured")


# ---- The domain --------------------------------------------------------------------------------------------


def test_get_domain(world: World) -> None:
    assert world.hub.domain() == {
        "name": "iExecODB",
        "version": "5.0.0",
        "chainId": CHAIN_ID,
        "verifyingContract": world.hub.address,
    }


@pytest.mark.needs("updateDomainSeparator")
def test_update_domain_separator(world: World) -> None:
    """By anyone. On the same chain nothing changes."""
    before = world.hub.eip712domain_separator()
    assert act(world, "stranger", "updateDomainSeparator").events == []
    assert world.hub.eip712domain_separator() == before == world.domain.separator
    world.deal()


@pytest.mark.needs("updateDomainSeparator")
def test_not_update_domain_separator_when_not_configured(world: World) -> None:
    """Ours has its domain from the beginning."""
    if world.suite == "official":
        hub = unconfigured(world)
        assert refused(world, "stranger", "updateDomainSeparator", on=hub) == text("not-configured")
    else:
        act(world, "stranger", "updateDomainSeparator")


# ---- Scores of the past ------------------------------------------------------------------------------------


@pytest.mark.needs("importScore")
def test_import_score(world: World) -> None:
    """Out of a hub of version 3, which only the official deployment can have."""
    if world.suite == "official":
        hub, worker = unconfigured(world), world.who("worker")
        act(world, "owner", "configure", *settings(world, answering(world, word(17))), on=hub)
        assert act(world, "stranger", "importScore", worker, on=hub).events == []
        assert hub.viewScore(worker) == 17
    else:
        assert refused(world, "stranger", "importScore", world.who("worker")) == NO_DATA


@pytest.mark.needs("importScore")
def test_not_import_score_when_no_v3_iexechub_configured(world: World) -> None:
    assert refused(world, "stranger", "importScore", world.who("worker")) == NO_DATA


@pytest.mark.needs("importScore")
def test_not_import_score_when_already_imported(world: World) -> None:
    if world.suite == "official":
        hub, worker = unconfigured(world), world.who("worker")
        act(world, "owner", "configure", *settings(world, answering(world, word(17))), on=hub)
        act(world, "stranger", "importScore", worker, on=hub)
        assert refused(world, "owner", "importScore", worker, on=hub) == text("score-already-imported")
    else:
        assert refused(world, "owner", "importScore", world.who("worker")) == NO_DATA


# ---- What the owner may change -----------------------------------------------------------------------------


def test_set_tee_broker(world: World) -> None:
    assert world.hub.teebroker() == ZERO
    assert act(world, "owner", "setTeeBroker", world.who("broker")).events == []
    assert world.hub.teebroker() == world.who("broker")


def test_not_set_tee_broker_when_sender_is_not_the_owner(world: World) -> None:
    assert refused(world, "stranger", "setTeeBroker", world.who("broker")) == NOT_OWNER


def test_set_callback_gas(world: World) -> None:
    assert act(world, "owner", "setCallbackGas", 200_000).events == []
    assert world.hub.callbackgas() == 200_000


def test_not_set_callback_gas_when_sender_is_not_the_owner(world: World) -> None:
    assert refused(world, "stranger", "setCallbackGas", 0) == NOT_OWNER


@pytest.mark.needs("changeRegistries")
def test_change_registries(world: World) -> None:
    """From then on the old ones' entries are strangers."""
    orders = world.four()
    registry = answering(world, word(0))
    others = registry, world.datasets.address, world.workerpools.address
    assert act(world, "owner", "changeRegistries", *others).events == []
    assert seen(world.hub)[4:] == others
    if world.suite == "ours":  # a match asks no registry, so somebody has to ask for it
        act(world, "stranger", "updateEntries", [world.app])
    assert refused(world, "stranger", "matchOrders", *tuples(orders)) == text("iExecV5-matchOrders-0x20")


@pytest.mark.needs("changeRegistries")
def test_not_change_registries_when_sender_is_not_the_owner(world: World) -> None:
    assert refused(world, "stranger", "changeRegistries", ZERO, ZERO, ZERO) == NOT_OWNER


def test_set_owner_at_deployment(world: World) -> None:
    """A stranger's attempt to take the hub has an error of its own."""
    owner, stranger = world.owner.address, world.who("stranger")
    assert world.hub.owner() == owner
    error = keccak(b"NotContractOwner(address,address)")[:4] + encode(["address"] * 2, [stranger, owner])
    assert refused(world, "stranger", "transferOwnership", stranger) == error
    done = act(world, "owner", "transferOwnership", stranger)
    assert done.events == [("OwnershipTransferred", owner, stranger)]
    assert world.hub.owner() == stranger
    assert refused(world, "owner", "setCallbackGas", 1) == NOT_OWNER
