"""App, Dataset and Workerpool: what an entry says about itself, and who may change it (poco.md §13)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boa
import pytest

from tests.contracts.evm import ZERO, abi, account, at, code, compiled, inline, refused, signatures

APP = ("app", "DOCKER", b"/ipfs/QmImage", b"\x01" * 32, b"measured")
DATASET = ("dataset", b"/ipfs/QmData", b"\x02" * 32)
POOL = ("a pool",)

MIRROR = """
packed: public(HashMap[address, uint256])

@external
def sync(entry: address, word: uint256):
    self.packed[entry] = word
"""


@pytest.fixture(autouse=True)
def undone() -> Iterator[None]:
    with boa.env.anchor():
        yield


@pytest.fixture
def provider() -> str:
    return account("provider")


@pytest.fixture
def stranger() -> str:
    return account("stranger")


@pytest.fixture
def hub() -> Any:
    return inline(MIRROR)


def deploy(kind: str, hub: str = ZERO) -> Any:
    return compiled(f"{kind}Registry").deploy(hub, code(kind))


@pytest.fixture
def app(provider: str) -> Any:
    return at("App", deploy("App").createApp(provider, *APP))


@pytest.fixture
def dataset(provider: str) -> Any:
    return at("Dataset", deploy("Dataset").createDataset(provider, *DATASET))


@pytest.fixture
def pools(hub: Any) -> Any:
    return deploy("Workerpool", hub.address)


@pytest.fixture
def pool(pools: Any, provider: str) -> Any:
    return at("Workerpool", pools.createWorkerpool(provider, *POOL))


COMMON = {"registry()", "owner()", "setName(address,string)"}


@pytest.mark.parametrize(
    ("kind", "own"),
    [
        (
            "App",
            "initialize(string,string,bytes,bytes32,bytes) m_appName() m_appType() m_appMultiaddr() "
            "m_appChecksum() m_appMREnclave()",
        ),
        (
            "Dataset",
            "initialize(string,bytes,bytes32) m_datasetName() m_datasetMultiaddr() m_datasetChecksum()",
        ),
        (
            "Workerpool",
            "initialize(string) m_workerpoolDescription() m_workerStakeRatioPolicy() "
            "m_schedulerRewardRatioPolicy() changePolicy(uint256,uint256)",
        ),
    ],
)
def test_every_official_function_is_there_and_no_other(kind: str, own: str) -> None:
    assert signatures(kind) == COMMON | set(own.split())


def test_policy_event_has_the_official_names() -> None:
    [event] = [entry for entry in abi("Workerpool") if entry["type"] == "event"]
    assert [item["name"] for item in event["inputs"]] == [
        "oldWorkerStakeRatioPolicy",
        "newWorkerStakeRatioPolicy",
        "oldSchedulerRewardRatioPolicy",
        "newSchedulerRewardRatioPolicy",
    ]


# ---- Details -----------------------------------------------------------------------------------------------


def test_app_details(app: Any, provider: str) -> None:
    found = (
        app.m_appName(),
        app.m_appType(),
        app.m_appMultiaddr(),
        app.m_appChecksum(),
        app.m_appMREnclave(),
    )
    assert found == APP
    assert app.owner() == provider


def test_dataset_details(dataset: Any, provider: str) -> None:
    assert (dataset.m_datasetName(), dataset.m_datasetMultiaddr(), dataset.m_datasetChecksum()) == DATASET
    assert dataset.owner() == provider


def test_workerpool_details(pool: Any, pools: Any, provider: str) -> None:
    assert pool.m_workerpoolDescription() == "a pool"
    assert (pool.m_workerStakeRatioPolicy(), pool.m_schedulerRewardRatioPolicy()) == (30, 1)
    assert (pool.owner(), pool.registry()) == (provider, pools.address)


def test_empty_details() -> None:
    apps = deploy("App")
    app = at("App", apps.createApp(account("provider"), "", "", b"", bytes(32), b""))
    found = (
        app.m_appName(),
        app.m_appType(),
        app.m_appMultiaddr(),
        app.m_appChecksum(),
        app.m_appMREnclave(),
    )
    assert found == ("", "", b"", bytes(32), b"")


def test_entries_do_not_share_their_details(provider: str) -> None:
    datasets = deploy("Dataset")
    first = at("Dataset", datasets.createDataset(provider, "long " * 20, b"one", b"\x01" * 32))
    second = at("Dataset", datasets.createDataset(provider, "two", b"two", b"\x02" * 32))
    assert (first.m_datasetName(), second.m_datasetName()) == ("long " * 20, "two")


# ---- Once and for ever -------------------------------------------------------------------------------------


def test_no_entry_can_be_initialised_again(
    app: Any, dataset: Any, pool: Any, provider: str, stranger: str
) -> None:
    for entry, args in ((app, APP), (dataset, DATASET), (pool, POOL)):
        for caller in (provider, stranger):
            with refused("already initialized"):
                entry.initialize(*args, sender=caller)


def test_no_master_can_be_initialised(stranger: str) -> None:
    for kind, args in (("App", APP), ("Dataset", DATASET), ("Workerpool", POOL)):
        master = at(kind, deploy(kind).master())
        with refused("already initialized"):
            master.initialize(*args, sender=stranger)
        with refused("ERC721: owner query for nonexistent token"):
            master.owner()


def test_set_name_is_always_refused(app: Any, dataset: Any, pool: Any, provider: str, stranger: str) -> None:
    for entry in (app, dataset, pool):
        with refused("caller is not the owner"):
            entry.setName(stranger, "name.eth", sender=stranger)
        with refused("Operation not supported on this chain"):
            entry.setName(stranger, "name.eth", sender=provider)


# ---- Policies ----------------------------------------------------------------------------------------------


def test_change_policy(hub: Any, pools: Any, pool: Any, provider: str) -> None:
    before = pools.packed(pool.address)
    pool.changePolicy(35, 5, sender=provider)
    [event] = [log for log in pool.get_logs() if type(log).__name__ == "PolicyUpdate"]
    assert tuple(event) == (pool.address, 30, 35, 1, 5)
    assert (pool.m_workerStakeRatioPolicy(), pool.m_schedulerRewardRatioPolicy()) == (35, 5)
    assert hub.packed(pool.address) == pools.packed(pool.address)
    changed = before ^ pools.packed(pool.address)
    assert changed == ((30 ^ 35) | (1 ^ 5) << 16) << 160  # nothing but the two ratios
    pool.changePolicy(65535, 100, sender=provider)
    assert (pool.m_workerStakeRatioPolicy(), pool.m_schedulerRewardRatioPolicy()) == (65535, 100)
    pool.changePolicy(0, 0, sender=provider)
    assert (pool.m_workerStakeRatioPolicy(), pool.m_schedulerRewardRatioPolicy()) == (0, 0)
    assert pool.owner() == provider


def test_change_policy_refused(pool: Any, provider: str, stranger: str) -> None:
    for ratios in ((35, 5), (35, 101), (65536, 5)):
        with refused("caller is not the owner"):
            pool.changePolicy(*ratios, sender=stranger)
    with refused():
        pool.changePolicy(35, 101, sender=provider)
    with refused("WorkerpoolRegistry: stake ratio above 65535"):
        pool.changePolicy(65536, 5, sender=provider)
    assert (pool.m_workerStakeRatioPolicy(), pool.m_schedulerRewardRatioPolicy()) == (30, 1)


def test_policies_follow_a_sale(hub: Any, pools: Any, pool: Any, provider: str) -> None:
    pool.changePolicy(50, 7, sender=provider)
    buyer = account("buyer")
    pools.transferFrom(provider, buyer, int(pool.address, 16), sender=provider)
    assert (pool.m_workerStakeRatioPolicy(), pool.m_schedulerRewardRatioPolicy()) == (50, 7)
    assert hub.packed(pool.address) == pools.packed(pool.address)
    assert pools.packed(pool.address) & (2**160 - 1) == int(buyer, 16)
    with refused("caller is not the owner"):
        pool.changePolicy(1, 1, sender=provider)
    pool.changePolicy(1, 1, sender=buyer)
