"""Apps, datasets and workerpools themselves (poco.md §13)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from eth_abi.abi import encode

from sealdeal.model.types import ZERO, keccak
from tests.contracts.behaviours.stage import NO_DATA, act, refused, refused_raw
from tests.contracts.world import SCHEDULER_RATIO, WORKER_RATIO, Contract, World, text

REINITIALISED = text("already initialized")
NOT_THE_OWNER = text("caller is not the owner")


@dataclass(frozen=True)
class Kind:
    """An entry of the world, its owner's role, its getters and what it was made with."""

    entry: str
    owner: str
    made_with: dict[str, Any]

    def of(self, world: World) -> Contract:
        at = {"App": world.app, "Dataset": world.dataset, "Workerpool": world.pool}[self.entry]
        return world.entry(self.entry, at, world.who(self.owner))

    def registry(self, world: World) -> Contract:
        return {"App": world.apps, "Dataset": world.datasets, "Workerpool": world.workerpools}[self.entry]


APP = Kind(
    "App",
    "app",
    {
        "m_appName": "an app",
        "m_appType": "DOCKER",
        "m_appMultiaddr": b"/ipfs/QmImage",
        "m_appChecksum": b"\x01" * 32,
        "m_appMREnclave": b"",
    },
)
DATASET = Kind(
    "Dataset",
    "dataset",
    {"m_datasetName": "a dataset", "m_datasetMultiaddr": b"/ipfs/QmData", "m_datasetChecksum": b"\x02" * 32},
)
WORKERPOOL = Kind("Workerpool", "scheduler", {"m_workerpoolDescription": "a pool"})
EACH_KIND = pytest.mark.parametrize("kind", [APP, DATASET, WORKERPOOL], ids=lambda kind: kind.entry)


@pytest.fixture
def pool(world: World) -> Contract:
    return WORKERPOOL.of(world)


@EACH_KIND
def test_read_initialized_details(world: World, kind: Kind) -> None:
    entry = kind.of(world)
    assert {getter: entry.call(getter) for getter in kind.made_with} == kind.made_with
    assert entry.owner() == world.who(kind.owner)
    assert entry.registry() == kind.registry(world).address


@EACH_KIND
def test_not_reinitialize_created(world: World, kind: Kind) -> None:
    """Neither the entry nor the proxy that it is behind, by its owner or anyone."""
    entry = kind.of(world)
    proxy = keccak(b"initialize(address,bytes)")[:4] + encode(["address", "bytes"], [ZERO, b""])
    for role in (kind.owner, "owner", "stranger"):
        assert refused(world, role, "initialize", *kind.made_with.values(), on=entry) == REINITIALISED
    assert refused_raw(world, entry.address, proxy) == NO_DATA


@EACH_KIND
def test_revert_when_setname_is_called_for_reverse_registration(world: World, kind: Kind) -> None:
    arguments = ("setName", ZERO, "a name")
    entry = kind.of(world)
    unsupported = text("Operation not supported on this chain")
    assert refused(world, kind.owner, *arguments, on=entry) == unsupported
    assert refused(world, "stranger", *arguments, on=entry) == NOT_THE_OWNER


def test_a_new_workerpools_policies(world: World) -> None:
    """30 % and 1 %, until its owner changes them."""
    made = world.workerpools.call("createWorkerpool", world.who("app"), "new")
    world.workerpools.createWorkerpool(world.who("app"), "new")
    new = world.entry("Workerpool", made, world.who("app"))
    assert (new.m_workerStakeRatioPolicy(), new.m_schedulerRewardRatioPolicy()) == (30, 1)


def test_update_workerpool_policy_configuration(world: World, pool: Contract) -> None:
    done = act(world, "scheduler", "changePolicy", 150, 100, on=pool)
    assert done.events == [("PolicyUpdate", WORKER_RATIO, 150, SCHEDULER_RATIO, 100)]
    assert (pool.m_workerStakeRatioPolicy(), pool.m_schedulerRewardRatioPolicy()) == (150, 100)


def test_not_update_policy_configuration_when_sender_is_not_the_owner(world: World, pool: Contract) -> None:
    assert refused(world, "stranger", "changePolicy", 1, 1, on=pool) == NOT_THE_OWNER


def test_reject_invalid_configuration(world: World, pool: Contract) -> None:
    """A scheduler that keeps more than everything; a worker's stake may be any part of the price."""
    assert refused(world, "scheduler", "changePolicy", 35, 101, on=pool) == NO_DATA
    act(world, "scheduler", "changePolicy", 65535, 0, on=pool)
