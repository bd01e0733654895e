# pragma version 0.4.3
"""
@title Settlement: who gets what when a task ends
@license Apache-2.0
@notice P is the price of one task (app + dataset + workerpool), W the workerpool's part, S the scheduler's stake. The
        order of payments is the official one, which is the order of events. Prices are below 2**64 and ratios at most
        100 (a worker's stake: below 2**16), so nothing here overflows.
"""
import types
import settings
import deals
import ledger
import tasks

uses: settings
uses: ledger
uses: tasks


@internal
@pure
def _price(deal: deals.Terms) -> uint256:
    return unsafe_add(unsafe_add(deal.app_price, deal.dataset_price), deal.workerpool_price)


@internal
@pure
def _scheduler_stake(workerpool_price: uint256) -> uint256:
    return unsafe_div(unsafe_mul(workerpool_price, types.WORKERPOOL_STAKE_RATIO), 100)


@internal
@pure
def _worker_stake(deal: deals.Terms) -> uint256:
    return unsafe_div(unsafe_mul(deal.workerpool_price, deal.stake_ratio), 100)


@internal
@pure
def _worker_reward(workerpool_price: uint256, scheduler_ratio: uint256) -> uint256:
    """
    @return What an only worker gets of W; the rest is the scheduler's.
    """
    return unsafe_div(unsafe_mul(workerpool_price, unsafe_sub(100, scheduler_ratio)), 100)


@internal
@view
def _owner(kept: address, title: uint256) -> address:
    """
    @return Who owned an asset at the match: as the deal keeps it, or its title tells.
    """
    if kept != empty(address):
        return kept
    return settings.owners[title]


@internal
def _pay_resources(deal: deals.Terms, scheduler: address, taskid: bytes32):
    """
    @notice What every success begins with: P from the sponsor, their prices to app and dataset, S back and a share of
            the kitty to the scheduler. W remains to be shared.
    """
    ledger._seize(
        deal.sponsor, unsafe_add(unsafe_add(deal.app_price, deal.dataset_price), deal.workerpool_price), taskid
    )
    if deal.app_price > 0:
        ledger._reward(self._owner(deal.app_owner, deal.app), deal.app_price, taskid)
    if deal.dataset_price > 0:
        ledger._reward(self._owner(deal.dataset_owner, deal.dataset), deal.dataset_price, taskid)
    stake: uint256 = self._scheduler_stake(deal.workerpool_price)
    ledger._unlock(scheduler, stake)
    share: uint256 = ledger._draw_kitty(stake, taskid, 1)
    if share > 0:
        ledger._reward(scheduler, share, taskid)


@internal
def _pay_batch(deal: deals.Terms, scheduler: address, dealid: bytes32, count: uint256):
    """
    @notice What `_pay_resources` pays, for many tasks of a deal at once: each sum is theirs, one by one.
    """
    ledger._seize(deal.sponsor, unsafe_mul(self._price(deal), count), dealid)
    if deal.app_price > 0:
        ledger._reward(self._owner(deal.app_owner, deal.app), unsafe_mul(deal.app_price, count), dealid)
    if deal.dataset_price > 0:
        ledger._reward(self._owner(deal.dataset_owner, deal.dataset), unsafe_mul(deal.dataset_price, count), dealid)
    stake: uint256 = self._scheduler_stake(deal.workerpool_price)
    ledger._unlock(scheduler, unsafe_mul(stake, count))
    share: uint256 = ledger._draw_kitty(stake, dealid, count)
    if share > 0:
        ledger._reward(scheduler, share, dealid)


@internal
def _pay_worker(price: uint256, ratio: uint256, scheduler: address, worker: address, taskid: bytes32):
    """
    @notice W, between one worker and its scheduler, who keeps `ratio` percent.
    """
    reward: uint256 = self._worker_reward(price, ratio)
    ledger._reward(worker, reward, taskid)
    ledger._reward(scheduler, unsafe_sub(price, reward), taskid)


@internal
def _pay_workers(deal: deals.Terms, scheduler: address, taskid: bytes32, count: uint256):
    """
    @notice W and the stakes of those who were wrong or silent, between the proved, by weight, and the scheduler.
    """
    stake: uint256 = self._worker_stake(deal)
    weights: uint256 = 0
    total: uint256 = deal.workerpool_price
    for place: uint256 in range(count, bound=types.CONTRIBUTORS):
        contributor: uint256 = tasks.contributors[tasks._key(taskid, place)]
        if contributor >> tasks.MARK == tasks.PROVED:
            weights += self._share(contributor)
        else:
            total += stake
    pot: uint256 = total * (100 - deal.scheduler_ratio) // 100
    for place: uint256 in range(count, bound=types.CONTRIBUTORS):
        contributor: uint256 = tasks.contributors[tasks._key(taskid, place)]
        worker: address = tasks._worker(contributor)
        if contributor >> tasks.MARK == tasks.PROVED:
            reward: uint256 = pot * self._share(contributor) // weights
            total -= reward
            ledger._unlock(worker, stake)
            ledger._reward(worker, reward, taskid)
            ledger._praise(worker, taskid)
        else:
            ledger._seize(worker, stake, taskid)
            ledger._blame(worker, taskid)
    ledger._reward(scheduler, total, taskid)


@internal
@pure
def _share(contributor: uint256) -> uint256:
    """
    @return A contributor's weight among those who are paid.
    """
    return tasks._log2((contributor >> tasks.WEIGHT) & tasks.WEIGHT_MASK)


@internal
def _give_back(sponsor: address, price: uint256, scheduler: address, stake: uint256, taskid: bytes32):
    """
    @notice What every failure begins with: P back to the sponsor, S to the kitty.
    """
    ledger._unlock(sponsor, price)
    ledger._seize(scheduler, stake, taskid)
    ledger._feed_kitty(stake, taskid)


@internal
def _refund(deal: deals.Terms, taskid: bytes32, count: uint256):
    """
    @notice Failure: P back to the sponsor, S to the kitty, every worker's stake back.
    """
    self._give_back(
        deal.sponsor,
        self._price(deal),
        self._owner(deal.workerpool_owner, deal.workerpool),
        self._scheduler_stake(deal.workerpool_price),
        taskid,
    )
    for place: uint256 in range(count, bound=types.CONTRIBUTORS):
        ledger._unlock(tasks._worker(tasks.contributors[tasks._key(taskid, place)]), self._worker_stake(deal))
