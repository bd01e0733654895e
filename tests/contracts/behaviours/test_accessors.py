"""What the hub tells (poco.md §3, §6, §8, §11). Views are also checked where what they show changes."""

from __future__ import annotations

from sealdeal.model.deals import KITTY
from sealdeal.model.eip712 import hub_domain
from sealdeal.model.types import RLC, ZERO, ZERO32, keccak
from tests.contracts.behaviours.stage import (
    COMPLETED,
    DIGEST,
    PRICE,
    RESULTS,
    Agreed,
    act,
    answering,
    contribution,
    presign,
    refused,
    revealed,
    revealing,
    started,
    task_of,
    trusting,
    word,
)
from tests.contracts.world import CATEGORIES, CHAIN_ID, SCHEDULER_RATIO, WEALTH, WORKER_RATIO, World, text

# ---- Money -------------------------------------------------------------------------------------------------


def test_name(world: World) -> None:
    assert world.hub.name() == "Staked RLC"


def test_symbol(world: World) -> None:
    assert world.hub.symbol() == "SRLC"


def test_decimals(world: World) -> None:
    assert world.hub.decimals() == 9


def test_totalsupply(world: World) -> None:
    before = world.hub.totalSupply()
    act(world, "requester", "withdraw", 7)
    assert world.hub.totalSupply() == before - 7


def test_balanceof(world: World) -> None:
    world.deal(dataset=True)
    assert world.hub.balanceOf(world.who("requester")) == WEALTH - PRICE


def test_balanceof_the_hub(world: World) -> None:
    """Its locked tokens are there in the official hub's books; in ours they are in `frozenOf` alone."""
    world.deal(dataset=True)
    act(world, "worker", "transfer", world.hub.address, 5)
    locked = sum(world.account(role)[1] for role in ("requester", "scheduler"))
    assert world.hub.balanceOf(world.hub.address) == (locked + 5 if world.suite == "official" else 5)


def test_frozenof(world: World) -> None:
    world.deal(dataset=True)
    assert world.hub.frozenOf(world.who("requester")) == PRICE


def test_allowance(world: World) -> None:
    act(world, "requester", "approve", world.who("app"), 9)
    assert world.hub.allowance(world.who("requester"), world.who("app")) == 9
    assert world.hub.allowance(world.who("app"), world.who("requester")) == 0


def test_viewaccount(world: World) -> None:
    world.deal(dataset=True)
    account = {"stake": WEALTH - PRICE, "locked": PRICE}
    assert world.hub.viewAccount(world.who("requester")) == account
    assert world.hub.viewAccount(world.who("stranger")) == {"stake": 0, "locked": 0}


def test_token(world: World) -> None:
    assert world.hub.token() == world.token.address


# ---- Deals and tasks ---------------------------------------------------------------------------------------


def test_viewdeal(world: World) -> None:
    agreed = Agreed(world.four(dataset=True, request={"params": "some params"}))
    dealid, done = world.match(agreed.orders)
    assert world.hub.viewDeal(dealid) == agreed.deal(world, done.timestamp)
    none = {"pointer": ZERO, "owner": ZERO, "price": 0}
    unknown = world.hub.viewDeal(keccak(dealid))
    assert unknown.app == unknown.dataset == unknown.workerpool == none
    assert (unknown.requester, unknown.startTime, unknown.botSize, unknown.params) == (ZERO, 0, 0, "")


def test_viewconsumed(world: World) -> None:
    app, dataset, pool, request = world.four(volume=5)
    part = world.signed(world.pool_order(volume=2))
    world.match((app, dataset, part, request))
    seen = [world.hub.viewConsumed(order.hash(world.domain)) for order in (app, part, request, pool)]
    assert seen == [2, 2, 2, 0]
    assert world.hub.viewConsumed(ZERO32) == 0


def test_viewpresigned(world: World) -> None:
    order = world.signed(world.app_order())
    assert world.hub.viewPresigned(order.hash(world.domain)) == ZERO
    presign(world, "App", order)
    assert world.hub.viewPresigned(order.hash(world.domain)) == world.who("app")


def test_viewtask(world: World) -> None:
    """At its end, with all there is to see."""
    taskid = revealed(world, "worker", "worker2", **trusting(3))
    deadline = task_of(world, taskid).revealDeadline
    act(world, "scheduler", "finalize", taskid, RESULTS, b"")
    task = task_of(world, taskid)
    start = started(world, task.dealid)
    assert task == {
        "status": COMPLETED,
        "dealid": task.dealid,
        "idx": 0,
        "timeref": CATEGORIES[0][2],
        "contributionDeadline": start + 7 * CATEGORIES[0][2],
        "revealDeadline": deadline,
        "finalDeadline": start + 10 * CATEGORIES[0][2],
        "consensusValue": contribution(world, taskid)[1],
        "revealCounter": 2,
        "winnerCounter": 2,
        "contributors": [world.who("worker"), world.who("worker2")],
        "resultDigest": DIGEST,
        "results": RESULTS,
        "resultsTimestamp": 0,
        "resultsCallback": b"",
    }


def test_viewcontribution(world: World) -> None:
    taskid = revealing(world)
    _, hashed, seal, *_ = contribution(world, taskid)
    assert world.hub.viewContribution(taskid, world.who("worker")) == {
        "status": 1,
        "resultHash": hashed,
        "resultSeal": seal,
        "enclaveChallenge": ZERO,
        "weight": 1,
    }
    assert set(world.hub.viewContribution(taskid, world.who("worker2")).values()) == {0, ZERO32, ZERO}


def test_viewscore(world: World) -> None:
    """One more for each replicated task that a worker was right about; a third less when wrong."""
    for count in (1, 2, 3):
        taskid = revealed(world, "worker", "worker2", **trusting(3))
        act(world, "scheduler", "finalize", taskid, RESULTS, b"")
        assert world.hub.viewScore(world.who("worker")) == count
    taskid = revealing(world, "worker", "worker2", **trusting(3))
    act(world, "worker2", "reveal", taskid, DIGEST)
    world.chain.at(task_of(world, taskid).revealDeadline)
    act(world, "scheduler", "finalize", taskid, RESULTS, b"")
    assert world.hub.viewScore(world.who("worker")) == 2
    assert world.hub.viewScore(world.who("worker2")) == 4


def test_get_result_of_task(world: World) -> None:
    taskid = world.task()
    world.direct(taskid, RESULTS, b"for the callback")
    assert world.hub.resultFor(taskid) == b"for the callback"


def test_not_get_result_when_task_is_not_completed(world: World) -> None:
    for taskid in (revealed(world), keccak(b"no task")):
        assert refused(world, "stranger", "resultFor", taskid) == text("task-pending")


# ---- Settings ----------------------------------------------------------------------------------------------


def test_countcategory(world: World) -> None:
    act(world, "owner", "createCategory", "name", "description", 1)
    assert world.hub.countCategory() == len(CATEGORIES) + 1


def test_appregistry(world: World) -> None:
    assert world.hub.appregistry() == world.apps.address


def test_datasetregistry(world: World) -> None:
    assert world.hub.datasetregistry() == world.datasets.address


def test_workerpoolregistry(world: World) -> None:
    assert world.hub.workerpoolregistry() == world.workerpools.address


def test_teebroker(world: World, broker: str) -> None:
    assert world.hub.teebroker() == world.who(broker)


def test_callbackgas(world: World) -> None:
    assert world.hub.callbackgas() == 100_000


# ---- Assets ------------------------------------------------------------------------------------------------


def test_viewapp(world: World) -> None:
    assert tuple(world.hub.viewApp(world.app).values()) == (
        world.who("app"),
        "an app",
        "DOCKER",
        b"/ipfs/QmImage",
        b"\x01" * 32,
        b"",
    )
    assert refused(world, "stranger", "viewApp", world.who("app")) == b""


def test_viewdataset(world: World) -> None:
    dataset = (world.who("dataset"), "a dataset", b"/ipfs/QmData", b"\x02" * 32)
    assert tuple(world.hub.viewDataset(world.dataset).values()) == dataset
    assert refused(world, "stranger", "viewDataset", world.who("app")) == b""


def test_viewworkerpool(world: World) -> None:
    pool = (world.who("scheduler"), "a pool", WORKER_RATIO, SCHEDULER_RATIO)
    assert tuple(world.hub.viewWorkerpool(world.pool).values()) == pool
    assert refused(world, "stranger", "viewWorkerpool", answering(world, word(1))) == b""


# ---- Constants ---------------------------------------------------------------------------------------------


def test_contributiondeadlineratio(world: World) -> None:
    assert world.hub.contribution_deadline_ratio() == 7


def test_revealdeadlineratio(world: World) -> None:
    assert world.hub.reveal_deadline_ratio() == 2


def test_finaldeadlineratio(world: World) -> None:
    assert world.hub.final_deadline_ratio() == 10


def test_workerpoolstakeratio(world: World) -> None:
    assert world.hub.workerpool_stake_ratio() == 30


def test_kittyratio(world: World) -> None:
    assert world.hub.kitty_ratio() == 10


def test_kittymin(world: World) -> None:
    assert world.hub.kitty_min() == RLC


def test_kittyaddress(world: World) -> None:
    assert world.hub.kitty_address() == KITTY


def test_groupmemberpurpose(world: World) -> None:
    assert world.hub.groupmember_purpose() == 4


def test_eip712domainseparator(world: World) -> None:
    assert world.hub.eip712domain_separator() == hub_domain(CHAIN_ID, world.hub.address).separator
