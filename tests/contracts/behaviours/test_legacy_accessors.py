"""The views of the legacy ABI: the same in other shapes (poco.md §11)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contracts.behaviours.stage import NO_DATA, refused
from tests.contracts.world import CATEGORIES, World


@pytest.fixture
def dealid(world: World) -> bytes:
    request = {"params": "some params", "beneficiary": world.who("sponsor"), "callback": world.who("app")}
    return world.deal(dataset=True, tee=True, volume=2, request=request)


@pytest.fixture
def taskid(world: World, dealid: bytes) -> bytes:
    """Of a worker who contributed from an enclave."""
    taskid = world.first_task(dealid)
    world.contribute(taskid, tee=True)
    return taskid


def fields(view: dict[str, Any], *names: str) -> tuple[Any, ...]:
    return tuple(view[name] for name in names)


def test_abilegacy_return_deal_part1(world: World, dealid: bytes) -> None:
    deal = world.hub.viewDeal(dealid)
    resources = [*deal.app.values(), *deal.dataset.values(), *deal.workerpool.values()]
    assert world.hub.viewDealABILegacy_pt1(dealid) == tuple(resources)


def test_abilegacy_return_deal_part2(world: World, dealid: bytes) -> None:
    deal = world.hub.viewDeal(dealid)
    expected = fields(deal, "trust", "tag", "requester", "beneficiary", "callback", "params")
    assert world.hub.viewDealABILegacy_pt2(dealid) == expected


def test_abilegacy_return_deal_config(world: World, dealid: bytes) -> None:
    deal = world.hub.viewDeal(dealid)
    names = "category", "startTime", "botFirst", "botSize", "workerStake", "schedulerRewardRatio"
    assert world.hub.viewConfigABILegacy(dealid) == fields(deal, *names)


def test_abilegacy_return_account(world: World, dealid: bytes) -> None:
    assert world.hub.viewAccountABILegacy(world.who("requester")) == world.account("requester")


def test_abilegacy_return_task(world: World, taskid: bytes) -> None:
    task = world.hub.viewTask(taskid)
    absent = "resultDigest", "resultsTimestamp", "resultsCallback"
    assert world.hub.viewTaskABILegacy(taskid) == fields(task, *(n for n in task if n not in absent))


def test_abilegacy_return_contribution(world: World, taskid: bytes) -> None:
    seen = world.hub.viewContribution(taskid, world.who("worker"))
    names = "status", "resultHash", "resultSeal", "enclaveChallenge"
    assert world.hub.viewContributionABILegacy(taskid, world.who("worker")) == fields(seen, *names)


def test_abilegacy_return_category(world: World) -> None:
    for index, category in enumerate(CATEGORIES):
        assert world.hub.viewCategoryABILegacy(index) == category
    assert refused(world, "stranger", "viewCategoryABILegacy", len(CATEGORIES)) == NO_DATA
