"""Reads, settings, the registries' mirror, and the ABI of the hub's one address (poco.md §3, §11)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from eth_abi.abi import encode

from sealdeal.model.types import ZERO, address, keccak
from tests.contracts.world import CATEGORIES, Contract, World, artefact, code, refusal, signature, text

SOMEBODY = address("0x" + "5b" * 20)
NOT_OWNER = text("Ownable: caller is not the owner")


# ---- ABI ---------------------------------------------------------------------------------------------------

# What the official hub has not, and what a hub that is no diamond has not.
OURS = {
    "settleBatch",
    "sync",
    "updateEntries",
    "applyChange",
    "viewChange",
    "kitty_capped",
    "changes_delayed",
}
DIAMOND = {
    "diamondCut",
    "facets",
    "facetFunctionSelectors",
    "facetAddresses",
    "facetAddress",
    "supportsInterface",
}

OFFICIAL = Path(__file__).parents[1] / "vectors" / "poco-abi.txt"


def official() -> list[tuple[str, str, str]]:
    """(selector or topic, what, signature) of the official ABI."""
    lines = [line.split(maxsplit=2) for line in OFFICIAL.read_text().splitlines() if line and line[0] != "#"]
    return [(a, b, c) for a, b, c in lines]


def test_every_official_function_is_there() -> None:
    ours = {
        "0x" + keccak(signature(e).encode())[:4].hex(): e
        for e in artefact("Hub")["abi"]
        if e["type"] == "function"
    }
    names = set()
    for selector, kind, official_signature in official():
        if kind == "event":
            continue
        name = official_signature.split("(")[0]
        if name in DIAMOND:
            continue
        assert selector in ours, official_signature
        mutability = ours[selector]["stateMutability"]
        assert mutability == kind or (kind, mutability) == ("pure", "view"), official_signature
        names.add(name)
    assert {e["name"] for e in ours.values()} - names == OURS


def test_every_event_is_official() -> None:
    events = {
        "0x" + keccak(signature(e).encode()).hex(): e["name"]
        for e in artefact("Hub")["abi"]
        if e["type"] == "event"
    }
    known = {selector: s.split("(")[0] for selector, kind, s in official() if kind == "event"}
    others = {name for topic, name in events.items() if topic not in known}
    assert others == {"ChangeScheduled", "ChangeApplied"}, "those of delayed changes"
    assert {topic: name for topic, name in events.items() if topic in known}.items() <= known.items()
    missing = set(known.values()) - set(events.values())
    assert missing == {"DiamondCut"}


def test_event_arguments_have_their_official_names() -> None:
    [transfer] = [e for e in artefact("Hub")["abi"] if e.get("name") == "Transfer"]
    assert [(i["name"], i["indexed"]) for i in transfer["inputs"]] == [
        ("from", True),
        ("to", True),
        ("value", False),
    ]


def test_the_abi_names_errors_and_fallbacks() -> None:
    kinds = {e["type"] for e in artefact("Hub")["abi"]}
    assert kinds == {"constructor", "error", "event", "fallback", "function", "receive"}


# ---- Constants ---------------------------------------------------------------------------------------------


def test_constants(world: World) -> None:
    hub = world.hub
    assert (hub.contribution_deadline_ratio(), hub.reveal_deadline_ratio(), hub.final_deadline_ratio()) == (
        7,
        2,
        10,
    )
    assert (hub.workerpool_stake_ratio(), hub.kitty_ratio(), hub.kitty_min()) == (30, 10, 10**9)
    assert hub.groupmember_purpose() == 4
    assert hub.kitty_address() == address("0x99c2268479b93fDe36232351229815DF80837e23")
    derived = int.from_bytes(keccak(b"iExecKitty")[:20], "big") - 1
    assert int(hub.kitty_address(), 16) == derived


# ---- Settings ----------------------------------------------------------------------------------------------


def test_settings_at_first(world: World) -> None:
    hub = world.hub
    assert hub.owner() == world.owner.address
    assert (hub.teebroker(), hub.callbackgas()) == (ZERO, 100_000)
    assert hub.appregistry() == world.apps.address
    assert hub.datasetregistry() == world.datasets.address
    assert hub.workerpoolregistry() == world.workerpools.address
    assert hub.countCategory() == len(CATEGORIES)
    for number, (name, description, seconds) in enumerate(CATEGORIES):
        found = hub.viewCategory(number)
        assert tuple(found.values()) == (name, description, seconds)
        assert hub.viewCategoryABILegacy(number) == (name, description, seconds)


def test_the_owner_settles(world: World) -> None:
    hub = world.hub
    for function, arguments in (
        ("setTeeBroker", (SOMEBODY,)),
        ("setCallbackGas", (5,)),
        ("createCategory", ("n", "d", 9)),
    ):
        assert refusal(hub, function, *arguments, sender=world.who("stranger")) == NOT_OWNER
    hub.setTeeBroker(SOMEBODY)
    hub.setCallbackGas(2**30 - 1)
    assert (hub.teebroker(), hub.callbackgas()) == (SOMEBODY, 2**30 - 1)
    hub.setCallbackGas(0)
    hub.setTeeBroker(ZERO)
    assert (hub.teebroker(), hub.callbackgas()) == (ZERO, 0)
    assert refusal(hub, "setCallbackGas", 2**30) == text("settings: callback gas above 2**30")


def test_create_category(world: World) -> None:
    number = world.hub.call("createCategory", "n", "d" * 512, 0)
    done = world.hub.createCategory("n", "d" * 512, 0)
    assert done.events == [("CreateCategory", number, "n", "d" * 512, 0)]
    assert tuple(world.hub.viewCategory(number).values()) == ("n", "d" * 512, 0)
    assert world.hub.countCategory() == number + 1
    for function in ("viewCategory", "viewCategoryABILegacy"):
        assert refusal(world.hub, function, number + 1) == b""
        assert refusal(world.hub, function, 2**255) == b""
    assert refusal(world.hub, "createCategory", "n" * 513, "d", 0) == b""
    assert refusal(world.hub, "createCategory", "n", "d" * 513, 0) == b""
    above = text("settings: time reference above 2**31 seconds")
    assert refusal(world.hub, "createCategory", "n", "d", 2**31) == above
    for _ in range(20):
        world.hub.createCategory("later", "", 7)
    dealid = world.deal(pool={"category": 20}, request={"category": 20})
    assert world.hub.viewDeal(dealid).category == 20
    assert world.hub.viewTask(world.first_task(dealid)).timeref == 7


def test_ownership(world: World) -> None:
    stranger, owner = world.who("stranger"), world.owner.address
    error = keccak(b"NotContractOwner(address,address)")[:4] + encode(["address"] * 2, [stranger, owner])
    assert refusal(world.hub, "transferOwnership", stranger, sender=stranger) == error
    done = world.hub.transferOwnership(stranger)
    assert done.events == [("OwnershipTransferred", owner, stranger)]
    assert refusal(world.hub, "setCallbackGas", 1, sender=owner) == NOT_OWNER
    world.hub.transferOwnership(ZERO, sender=stranger)
    assert world.hub.owner() == ZERO


# ---- Assets ------------------------------------------------------------------------------------------------


def test_asset_views(world: World) -> None:
    app = world.hub.viewApp(world.app)
    assert tuple(app.values()) == (world.who("app"), "an app", "DOCKER", b"/ipfs/QmImage", b"\1" * 32, b"")
    dataset = world.hub.viewDataset(world.dataset)
    assert tuple(dataset.values()) == (world.who("dataset"), "a dataset", b"/ipfs/QmData", b"\2" * 32)
    pool = world.hub.viewWorkerpool(world.pool)
    assert tuple(pool.values()) == (world.who("scheduler"), "a pool", 35, 5)
    for function in ("viewApp", "viewDataset", "viewWorkerpool"):
        assert refusal(world.hub, function, SOMEBODY) == b""


def test_asset_views_show_the_longest_texts(world: World) -> None:
    owner, name, kind, where, mrenclave = SOMEBODY, "n" * 1024, "t" * 1024, b"m" * 2048, b"e" * 2048

    def made(registry: Contract, function: str, *arguments: Any) -> str:
        entry: str = registry.call(function, *arguments)
        registry.send(function, *arguments)
        return entry

    app = made(world.apps, "createApp", owner, name, kind, where, b"\1" * 32, mrenclave)
    dataset = made(world.datasets, "createDataset", owner, name, where, b"\2" * 32)
    pool = made(world.workerpools, "createWorkerpool", owner, "d" * 2048)
    assert tuple(world.hub.viewApp(app).values()) == (owner, name, kind, where, b"\1" * 32, mrenclave)
    assert tuple(world.hub.viewDataset(dataset).values()) == (owner, name, where, b"\2" * 32)
    assert tuple(world.hub.viewWorkerpool(pool).values()) == (owner, "d" * 2048, 30, 1)


def test_only_registries_push(world: World) -> None:
    packed = world.apps.packed(world.app)
    reason = text("settings: not a registry of this kind")
    assert refusal(world.hub, "sync", world.app, packed) == reason
    assert refusal(world.hub, "sync", world.app, packed, sender=world.datasets.address) == reason
    assert world.hub.call("sync", world.app, packed, sender=world.apps.address) is None


# ---- Legacy views ------------------------------------------------------------------------------------------


def test_legacy_views(world: World) -> None:
    dealid = world.deal(dataset=True, tee=True, request={"params": "p", "callback": SOMEBODY})
    deal = world.hub.viewDeal(dealid)
    assert world.hub.viewDealABILegacy_pt1(dealid) == (
        *deal.app.values(),
        *deal.dataset.values(),
        *deal.workerpool.values(),
    )
    assert world.hub.viewDealABILegacy_pt2(dealid) == (
        deal.trust,
        deal.tag,
        deal.requester,
        deal.beneficiary,
        deal.callback,
        "p",
    )
    assert world.hub.viewConfigABILegacy(dealid) == (
        deal.category,
        deal.startTime,
        deal.botFirst,
        deal.botSize,
        deal.workerStake,
        deal.schedulerRewardRatio,
    )
    taskid = world.first_task(dealid)
    world.contribute(taskid, tee=True)
    task: dict[str, Any] = world.hub.viewTask(taskid)
    without = [v for k, v in task.items() if k not in ("resultDigest", "resultsTimestamp", "resultsCallback")]
    assert world.hub.viewTaskABILegacy(taskid) == tuple(without)
    seen = world.hub.viewContribution(taskid, world.who("worker"))
    assert world.hub.viewContributionABILegacy(taskid, world.who("worker")) == tuple(seen.values())[:4]
    assert world.hub.viewAccountABILegacy(world.who("requester")) == world.account("requester")


def test_views_of_nothing(world: World) -> None:
    nothing = keccak(b"nothing")
    assert set(map(str, world.hub.viewTask(nothing).values())) <= {"0", str(bytes(32)), "[]", str(b"")}
    assert world.hub.viewContribution(nothing, SOMEBODY).status == 0
    assert world.hub.viewPresigned(nothing) == ZERO
    assert world.hub.viewConsumed(nothing) == 0
    assert world.hub.viewScore(SOMEBODY) == 0


# ---- The artefacts -----------------------------------------------------------------------------------------


def test_a_piece_called_directly_has_no_owner(world: World) -> None:
    hub, token = world.hub.address, world.token.address
    arguments = encode(["address"] * 3, [hub, token, hub])
    at = world.chain.deploy(code("HubAdmin") + arguments, world.owner.address)
    piece = Contract(world.chain, "HubAdmin", at, world.owner.address)
    assert refusal(piece, "createCategory", "n", "d", 1) == NOT_OWNER


@pytest.mark.parametrize("name", ["Hub", "HubAdmin", "HubViews"])
def test_code_fits(world: World, name: str) -> None:
    assert len(bytes.fromhex(artefact(name)["runtime"][2:])) < 24_576
    assert len(bytes.fromhex(artefact(name)["bytecode"][2:])) < 49_152
