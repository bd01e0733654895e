"""What holds of the hub at any time, whoever calls whatever in whichever order.

Each invariant is a function whose docstring states it and whose body is the check. Three sources are
compared: what the hub's views answer (`at.hub`), what the rules make of the calls it took (`at.books`), and
what its events add up to (`at.chronicle`); books.py has the latter two. Amounts are nRLC.

`QUICK` are cheap enough to be checked after every call, `EVERY` are all of them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property

from sealdeal.model.deals import KITTY
from sealdeal.model.types import ZERO, Address
from tests.contracts.books import COMPLETED, FAILED, Books, Chronicle, Deal
from tests.contracts.chain import Contract

NOTHING: Counter[Address] = Counter()


@dataclass
class At:
    """The hub after a call: read what you need, it will not change meanwhile."""

    hub: Contract
    token: Contract
    books: Books
    chronicle: Chronicle
    moved: set[Address] = field(default_factory=set)
    """Accounts that the last call moved something of."""

    @cached_property
    def everyone(self) -> set[Address]:
        """Every account that ever had a stake, a lock or a score; the hub and the kitty are two of them."""
        books, chronicle = self.books, self.chronicle
        known = {*books.stakes, *self.locked, *books.scores, *chronicle.stakes, *chronicle.locked}
        return known - {ZERO}

    @cached_property
    def locked(self) -> Counter[Address]:
        return self.books.locked()

    @cached_property
    def supply(self) -> int:
        return int(self.hub.totalSupply())


# ---- Money -------------------------------------------------------------------------------------------------


def every_token_is_backed(at: At) -> None:
    """The base tokens that the hub holds, but for those sent to it without a deposit, are the supply of
    staked tokens: deposits, minus withdrawals, plus what the owner recovered."""
    held = at.token.balanceOf(at.hub.address)
    assert at.supply == at.books.supply
    assert held == at.supply + at.books.gifts
    assert -at.chronicle.stakes[ZERO] == at.supply


def stakes_locks_and_kitty_are_all_there_is(at: At) -> None:
    """The stakes of all accounts, all that is locked, and the kitty sum up to the supply."""
    total = 0
    for account in at.everyone:
        seen = at.hub.viewAccount(account)
        total += seen.stake + seen.locked
    assert total == at.supply


def everyone_has_their_own(at: At) -> None:
    """Every account's stake is what the rules and its own events make it."""
    for account in at.everyone:
        _has_its_own(at, account)


def who_was_touched_has_their_own(at: At) -> None:
    """The same of those whom the last call moved something of."""
    for account in at.moved:
        _has_its_own(at, account)


def _has_its_own(at: At, account: Address) -> None:
    seen = at.hub.viewAccount(account)
    assert seen.stake == at.books.stakes[account], account
    if account != at.hub.address:
        assert seen.stake == at.chronicle.stakes[account], account
    # Nobody's lock is spent for another's deal: what is locked is, to the token, what an account still owes
    # to open tasks that it pays, open tasks that it schedules, and open tasks to which it contributed.
    assert seen.locked == at.locked[account], account
    assert seen.locked == at.chronicle.locked[account], account


def balances_are_said_in_one_way(at: At) -> None:
    """balanceOf and frozenOf say what viewAccount says."""
    for account in at.everyone:
        seen = at.hub.viewAccount(account)
        assert (at.hub.balanceOf(account), at.hub.frozenOf(account)) == (seen.stake, seen.locked), account


def the_kitty_is_what_schedulers_lost(at: At) -> None:
    """The kitty holds the stakes of the schedulers of claimed tasks, minus what it paid: nothing else enters
    it, and it pays only schedulers of completed tasks; where it is capped, at most what they had at stake."""
    assert at.hub.frozenOf(KITTY) == at.books.kitty
    entered = left = 0
    for ref, won in at.chronicle.settled.items():
        if ref in at.books.deals:
            # The batches of a deal.
            ends = [task for task in at.books.tasks.values() if task.batched and task.deal.dealid == ref]
        else:
            ends = [at.books.tasks[ref]]
        if won[KITTY] > 0:
            assert [task.status for task in ends] == [FAILED] and won[KITTY] == ends[0].deal.stake
            entered += won[KITTY]
        elif won[KITTY] < 0:
            assert all(task.status == COMPLETED for task in ends)
            assert not at.books.capped or -won[KITTY] <= sum(task.deal.stake for task in ends)
            left -= won[KITTY]
    assert entered - left == at.books.kitty


def allowances_are_what_was_approved(at: At) -> None:
    """An allowance is what was approved, minus what was spent of it."""
    for (owner, spender), amount in at.books.allowances.items():
        assert at.hub.allowance(owner, spender) == amount == at.chronicle.allowances[owner, spender]


# ---- Orders and deals --------------------------------------------------------------------------------------


def no_order_is_oversold(at: At) -> None:
    """The deals that were made of an order have at most its volume together, and the hub counts just them; of
    a closed order all is used, and no deal is made any more."""
    for order, volume in at.books.volumes.items():
        sold = sum(at.books.deals[dealid].size for dealid in at.books.sold[order])
        assert sold <= volume
        assert at.chronicle.sold[order] == sold
        assert at.hub.viewConsumed(order) == (volume if order in at.books.closed else sold)
    assert at.chronicle.closed == at.books.closed


def a_presigner_is_who_signed(at: At) -> None:
    for order, owner in at.books.presigned.items():
        assert at.hub.viewPresigned(order) == owner


def deals_never_change(at: At) -> None:
    """A deal says for ever what was agreed: who pays, who is paid, how much, whoever owns the assets now."""
    for dealid, deal in at.books.deals.items():
        if deal.boost:
            _boost_deals_never_change(at, deal)
            continue
        seen = at.hub.viewDeal(dealid)
        assert (seen.app.pointer, seen.app.owner, seen.app.price) == (
            deal.app,
            deal.app_owner,
            deal.app_price,
        )
        assert (seen.dataset.pointer, seen.dataset.owner, seen.dataset.price) == (
            deal.dataset,
            deal.dataset_owner,
            deal.dataset_price,
        )
        assert (seen.workerpool.pointer, seen.workerpool.owner, seen.workerpool.price) == (
            deal.pool,
            deal.scheduler,
            deal.pool_price,
        )
        assert (seen.sponsor, seen.requester, seen.callback) == (deal.sponsor, deal.requester, deal.callback)
        assert (seen.botFirst, seen.botSize, seen.startTime) == (deal.first, deal.size, deal.start)
        assert (seen.trust, int.from_bytes(seen.tag, "big")) == (deal.trust, deal.tag)
        assert (seen.workerStake, seen.schedulerRewardRatio) == (deal.worker_stake, deal.scheduler_ratio)


def _boost_deals_never_change(at: At, deal: Deal) -> None:
    """What a boost deal tells of itself: not its assets, nor what it is for."""
    seen = at.hub.viewDealBoost(deal.dealid)
    assert at.hub.viewDeal(deal.dealid).sponsor == ZERO, "a boost deal is no other"
    assert (seen.appOwner, seen.appPrice) == (deal.app_owner, deal.app_price)
    assert (seen.datasetOwner, seen.datasetPrice) == (deal.dataset_owner, deal.dataset_price)
    assert (seen.workerpoolOwner, seen.workerpoolPrice) == (deal.scheduler, deal.pool_price)
    assert (seen.sponsor, seen.requester, seen.callback) == (deal.sponsor, deal.requester, deal.callback)
    assert (seen.botFirst, seen.botSize, seen.deadline) == (deal.first, deal.size, deal.final_deadline)
    assert int.from_bytes(seen.shortTag, "big") == deal.tag % 2**24
    assert seen.workerReward == deal.pool_price * (100 - deal.scheduler_ratio) // 100


def deals_of_one_request_do_not_overlap(at: At) -> None:
    """Each task index of a request order belongs to one deal: the next begins where the last ended."""
    following: Counter[bytes] = Counter()
    for deal in at.books.deals.values():
        assert deal.first == following[deal.request]
        following[deal.request] += deal.size


def every_deals_money_ends_with_its_actors_or_its_payer(at: At) -> None:
    """A task that is completed costs its payer the price, and its workers who were wrong or silent their
    stake: exactly that, and the kitty's share, goes to the owners of app, dataset and pool and to the workers
    who were right, each as the rules say. A task that failed costs its payer and its workers nothing, its
    scheduler the stake. Nobody else wins or loses."""
    assert set(at.chronicle.settled) <= {*at.books.tasks, *at.books.deals}
    for taskid, task in at.books.tasks.items():
        won = _won(at.chronicle, taskid)
        if task.batched or not task.ended:
            assert not won
            continue
        assert sum(won.values()) == 0, "tokens made or lost"
        assert won == _won(at.books, taskid)
        deal = task.deal
        actors = {deal.sponsor, deal.app_owner, deal.dataset_owner, deal.scheduler, *task.contributions}
        assert deal.boost or set(won) <= actors | {KITTY}
        if task.status == FAILED:
            assert set(won) <= {deal.scheduler, KITTY}
    for dealid in at.books.deals:
        # What ended in batches, all tasks of a deal together.
        won = _won(at.chronicle, dealid)
        assert sum(won.values()) == 0, "tokens made or lost"
        assert won == _won(at.books, dealid)


def _won(books: Books | Chronicle, ref: bytes) -> dict[Address, int]:
    return {who: amount for who, amount in books.settled.get(ref, NOTHING).items() if amount}


# ---- Tasks -------------------------------------------------------------------------------------------------


def tasks_end_once(at: At) -> None:
    """A task ends by one TaskFinalize, ResultPushedBoost or TaskClaimed, and what it was then it stays."""
    for taskid, task in at.books.tasks.items():
        assert at.chronicle.endings[taskid] == task.ended
    assert set(at.chronicle.endings) <= set(at.books.tasks)


def tasks_are_as_far_as_they_got(at: At) -> None:
    """Status, consensus, counters, deadlines and contributions of a task are those that the rules give it."""
    for taskid, task in at.books.tasks.items():
        seen, deal = at.hub.viewTask(taskid), task.deal
        if deal.boost:
            # Nothing else is kept.
            assert (seen.status, seen.contributors) == (task.status, [])
            continue
        assert (seen.status, seen.dealid) == (task.status, deal.dealid)
        assert (seen.consensusValue, seen.winnerCounter) == (task.consensus, task.winners)
        assert (seen.revealCounter, seen.revealDeadline) == (task.reveals, task.reveal_deadline)
        assert seen.contributionDeadline == deal.contribution_deadline
        assert seen.finalDeadline == deal.final_deadline
        assert seen.contributors == list(task.contributions)
        for worker, given in task.contributions.items():
            found = at.hub.viewContribution(taskid, worker)
            assert (found.status, found.resultHash, found.resultSeal, found.weight) == (
                given.status,
                given.hash,
                given.seal,
                given.weight,
            )


def scores_follow_the_results(at: At) -> None:
    """A worker's score rises by one for each replicated task that it proved, and falls to two thirds for each
    that it did not; nothing else moves it."""
    for worker in at.everyone:
        assert at.hub.viewScore(worker) == at.books.scores[worker] == at.chronicle.scores[worker], worker


QUICK = (every_token_is_backed, who_was_touched_has_their_own)
EVERY = (
    every_token_is_backed,
    stakes_locks_and_kitty_are_all_there_is,
    everyone_has_their_own,
    balances_are_said_in_one_way,
    the_kitty_is_what_schedulers_lost,
    allowances_are_what_was_approved,
    no_order_is_oversold,
    a_presigner_is_who_signed,
    deals_never_change,
    deals_of_one_request_do_not_overlap,
    every_deals_money_ends_with_its_actors_or_its_payer,
    tasks_end_once,
    tasks_are_as_far_as_they_got,
    scores_follow_the_results,
)
