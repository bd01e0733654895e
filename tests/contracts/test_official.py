"""The same deals on {ours, official} × {anvil, revm}: the same events, balances, views and refusals."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sealdeal.model.deals import KITTY, deal_id, result_hash, task_id
from sealdeal.model.orders import Signed
from sealdeal.model.types import keccak
from tests.contracts import official
from tests.contracts.chain import Chain, Contract, Done, refusal, signature, text
from tests.contracts.revm import Revm
from tests.contracts.world import APP_PRICE, CATEGORIES, POOL_PRICE, WORKER_RATIO, World

RESULTS = b'{ "storage": "ipfs", "location": "/ipfs/QmUbh7ugQ9WVprTVYjzrCS4d9cCy73zUz4MMchsrqzzu1w" }'
DIGEST = keccak(b"result")
OTHER = keccak(b"another result")
KINDS = ("app", "dataset", "workerpool", "request")


@pytest.fixture(scope="module")
def worlds() -> Iterator[dict[str, World]]:
    """By name, such as "official on Revm"."""
    started: dict[str, World] = {}
    try:
        for kind in (Chain, Revm):
            started[f"ours on {kind.__name__}"] = World.start(kind(), "ours")
            started[f"official on {kind.__name__}"] = World.start(kind(), "official")
        yield started
    finally:
        for world in started.values():
            world.chain.close()


class Transcript:
    """What one world answers. Whatever depends on the addresses of its contracts goes by name."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.hub = world.official_hub
        self.lines: list[Any] = []
        self.names: dict[Any, str] = {
            world.hub.address: "the hub",
            world.app: "the app",
            world.dataset: "the dataset",
            world.pool: "the pool",
            KITTY: "the kitty",
        } | {world.who(role): role for role in world.ROLES}

    def name(self, orders: tuple[Signed[Any], ...]) -> bytes:
        """Name everything that follows from these orders, by our own arithmetic. Gives the deal's id."""
        for kind, order in zip(KINDS, orders, strict=True):
            self.names[order.hash(self.world.domain)] = f"the {kind} order"
        dealid = deal_id(orders[3].hash(self.world.domain), 0)
        self.names[dealid] = "the deal"
        for index in range(3):
            taskid = task_id(dealid, index)
            self.names[taskid] = f"task {index}"
            for digest in (DIGEST, OTHER):
                self.names[result_hash(taskid, digest)] = f"a result of task {index}"
        return dealid

    def note(self, done: Done) -> Done:
        """The hub's events, by the official ABI on either suite."""
        for event in self.hub.events(done.receipt):
            self.lines.append(tuple(self.names.get(value, value) for value in event))
        return done

    def refuse(self, function: str, *args: Any, sender: str = "stranger") -> None:
        data = refusal(self.hub, function, *args, sender=self.world.who(sender))
        self.lines.append((function, "refused", data))

    def balances(self) -> None:
        for role in self.world.ROLES:
            self.lines.append((role, self.world.account(role)))
        self.lines.append(("kitty", self.world.account(KITTY)))
        self.lines.append(("staked", self.hub.totalSupply(), self.world.token.balanceOf(self.hub.address)))


def fast(transcript: Transcript) -> None:
    """A TEE deal of three tasks with a dataset: one by contributeAndFinalize, one claimed, one left."""
    world, hub = transcript.world, transcript.hub
    orders = world.four(dataset=True, tee=True, volume=3)
    dealid = transcript.name(orders)
    plain = [order.as_tuple() for order in orders]
    transcript.note(hub.matchOrders(*plain, sender=world.who("stranger")))
    transcript.refuse("matchOrders", *plain)
    transcript.balances()
    transcript.note(hub.initializeArray([dealid] * 2, [0, 1]))
    transcript.refuse("initialize", dealid, 1)
    transcript.refuse("initialize", dealid, 3)
    first, second = task_id(dealid, 0), task_id(dealid, 1)
    transcript.refuse("contributeAndFinalize", *world.direct_arguments(first, RESULTS), sender="worker")
    transcript.note(world.direct(first, RESULTS, tee=True))
    transcript.refuse("claim", second)
    world.chain.at(hub.viewTask(second).finalDeadline)
    transcript.note(hub.claim(second))
    transcript.balances()
    transcript.lines.append((hub.viewTask(first).results, hub.resultFor(first), hub.viewTask(second).status))


def standard(transcript: Transcript) -> None:
    """Trust 3: three workers agree, one does not; the scheduler finalizes."""
    world, hub = transcript.world, transcript.hub
    trust = {"trust": 3}
    orders = world.four(pool=trust, request=trust)
    dealid = transcript.name(orders)
    transcript.note(hub.matchOrders(*(o.as_tuple() for o in orders), sender=world.who("requester")))
    transcript.note(hub.initialize(dealid, 0))
    taskid = task_id(dealid, 0)
    transcript.note(world.contribute(taskid, "worker2", digest=OTHER))
    transcript.note(world.contribute(taskid, "worker", digest=DIGEST))
    transcript.note(world.contribute(taskid, "worker3", digest=DIGEST))
    transcript.refuse("reveal", taskid, DIGEST, sender="worker")
    transcript.note(world.contribute(taskid, "worker4", digest=DIGEST))
    transcript.refuse("reveal", taskid, OTHER, sender="worker2")
    transcript.note(hub.reveal(taskid, DIGEST, sender=world.who("worker")))
    transcript.refuse("finalize", taskid, RESULTS, b"", sender="scheduler")
    transcript.note(hub.reveal(taskid, DIGEST, sender=world.who("worker3")))
    transcript.note(hub.reveal(taskid, DIGEST, sender=world.who("worker4")))
    transcript.refuse("finalize", taskid, RESULTS, b"", sender="stranger")
    transcript.note(hub.finalize(taskid, RESULTS, b"", sender=world.who("scheduler")))
    transcript.balances()
    for role in ("worker", "worker2", "worker3", "worker4"):
        transcript.lines.append(
            (hub.viewScore(world.who(role)), hub.viewContribution(taskid, world.who(role)).status)
        )


def played(world: World, story: Callable[[Transcript], None]) -> list[Any]:
    with world.chain.undone():
        transcript = Transcript(world)
        story(transcript)
        return transcript.lines


@pytest.mark.parametrize("story", [fast, standard])
def test_a_whole_deal_goes_the_same_on_either_suite_and_chain(
    worlds: dict[str, World], story: Callable[[Transcript], None]
) -> None:
    transcripts = {name: played(world, story) for name, world in worlds.items()}
    reference = transcripts.pop("official on Chain")
    assert len(transcripts) == 3
    for name, transcript in transcripts.items():
        assert transcript == reference, name
    names = [line[0] for line in reference]
    assert {"OrdersMatched", "TaskInitialize", "TaskContribute", "TaskConsensus", "TaskFinalize"} <= set(
        names
    )


def test_the_story_of_a_standard_deal_is_the_one_of_the_rules(worlds: dict[str, World]) -> None:
    """So that the comparison above does not compare two nothings."""
    transcript = played(worlds["official on Revm"], standard)
    accounts = {line[0]: line[1] for line in transcript if isinstance(line[0], str) and len(line) == 2}
    stake = POOL_PRICE * WORKER_RATIO // 100
    rich = 10_000 * 10**9
    assert accounts["requester"] == (rich - APP_PRICE - POOL_PRICE, 0)
    assert accounts["app"] == (rich + APP_PRICE, 0) and accounts["dataset"] == (rich, 0)
    assert accounts["worker2"] == (rich - stake, 0) and accounts["worker"][0] > rich
    assert ("finalize", "refused", b"") in transcript


def test_boost_runs_by_the_official_interface(worlds: dict[str, World]) -> None:
    ran = []
    for name, world in worlds.items():
        if not name.startswith("official"):
            continue
        with world.chain.undone():
            orders = world.four(volume=2)
            done = world.official_hub.matchOrdersBoost(*(o.as_tuple() for o in orders))
            dealid = deal_id(orders[3].hash(world.domain), 0)
            taskid = task_id(dealid, 1)
            made = world.enclave(taskid)
            done = world.official_hub.pushResultBoost(
                dealid,
                1,
                RESULTS,
                b"",
                made.authorization,
                made.challenge,
                made.sign,
                sender=world.who("worker"),
            )
            assert ("ResultPushedBoost", dealid, 1, RESULTS) in done.events
            assert world.hub.viewDealBoost(dealid).botSize == 2
            assert world.hub.viewTask(taskid).status == 3
            ran.append(name)
    assert ran == ["official on Chain", "official on Revm"]


def test_the_official_hub_is_configured_as_on_its_networks(worlds: dict[str, World]) -> None:
    world = worlds["official on Revm"]
    hub = world.hub
    assert (hub.name(), hub.symbol(), hub.decimals()) == ("Staked RLC", "SRLC", 9)
    assert hub.token() == world.token.address and hub.owner() == world.owner.address
    assert hub.countCategory() == len(CATEGORIES)
    assert tuple(hub.viewCategory(0).values()) == CATEGORIES[0]
    registries = (world.apps.address, world.datasets.address, world.workerpools.address)
    assert (hub.appregistry(), hub.datasetregistry(), hub.workerpoolregistry()) == registries
    assert hub.eip712domain_separator() == world.domain.separator
    assert refusal(hub, "configure", *(world.token.address, "", "", 9, *registries, registries[0])) == text(
        "already-configured"
    )


def test_every_official_function_is_reachable(worlds: dict[str, World]) -> None:
    """As many as poco.md counts (appendix A), each delegated to a facet that is there."""
    hub = worlds["official on Revm"].hub
    functions = [signature(entry) for entry in official.abi("Hub") if entry["type"] == "function"]
    assert len(functions) == len(set(functions)) == 101
    for function in functions:
        facet = hub.facetAddress(keccak(function.encode())[:4])
        assert int(facet, 16) != 0, function


def test_the_linked_library_leaves_no_placeholder() -> None:
    library = "0x" + "c0ffee" * 6 + "c0de"
    linked = official.bytecode("IexecPoco1Facet", library)  # type: ignore[arg-type]
    places = [
        place["start"]
        for place in official.artefact("IexecPoco1Facet")["linkReferences"][
            "contracts/libs/IexecLibOrders_v5.sol"
        ][official.LIBRARY]
    ]
    assert len(places) == 5
    assert all(linked[start : start + 20].hex() == library[2:] for start in places)


def test_an_unknown_function_is_refused_by_the_official_fallback(worlds: dict[str, World]) -> None:
    for name, world in worlds.items():
        nothing = [
            {"type": "function", "name": "nothing", "inputs": [], "outputs": [], "stateMutability": "view"}
        ]
        contract = Contract(world.chain, nothing, world.hub.address, world.owner.address)
        assert refusal(contract, "nothing") == text("fallback-disabled"), name
