# pragma version 0.4.3
"""
@title Workerpool: a workerpool in the WorkerpoolRegistry
@license Apache-2.0
@dev Its policies lie in the registry's record of it (drawn in registry.vy), beside its owner, because the hub
     mirrors that word; the registry checks them.
"""
import entry
import types

initializes: entry

# Whose it is: registry(), owner(), and the refused setName.
exports: entry.__interface__


interface Registry:
    def packed(entry: address) -> uint256: view
    def setPolicy(caller: address, stake_ratio: uint256, scheduler_ratio: uint256) -> uint256: nonpayable


event PolicyUpdate:
    oldWorkerStakeRatioPolicy: uint256
    newWorkerStakeRatioPolicy: uint256
    oldSchedulerRewardRatioPolicy: uint256
    newSchedulerRewardRatioPolicy: uint256


# What the pool says about itself, and how people find its scheduler.
m_workerpoolDescription: public(String[types.BLOB])


@deploy
def __init__():
    entry.__init__()


@external
def initialize(description: String[types.BLOB]):
    entry._only_registry()
    self.m_workerpoolDescription = description


@external
def changePolicy(stake_ratio: uint256, scheduler_ratio: uint256):
    """
    @notice Set, for later deals, the percentages of the pool's price that a worker stakes and that the pool's
            owner keeps.
    """
    old: uint256 = extcall Registry(entry.registry).setPolicy(msg.sender, stake_ratio, scheduler_ratio)
    log PolicyUpdate(
        oldWorkerStakeRatioPolicy=self._stake_ratio(old),
        newWorkerStakeRatioPolicy=stake_ratio,
        oldSchedulerRewardRatioPolicy=self._scheduler_ratio(old),
        newSchedulerRewardRatioPolicy=scheduler_ratio,
    )


@external
@view
def m_workerStakeRatioPolicy() -> uint256:
    return self._stake_ratio(staticcall Registry(entry.registry).packed(self))


@external
@view
def m_schedulerRewardRatioPolicy() -> uint256:
    return self._scheduler_ratio(staticcall Registry(entry.registry).packed(self))


@internal
@pure
def _stake_ratio(record: uint256) -> uint256:
    return (record >> 160) & 65535


@internal
@pure
def _scheduler_ratio(record: uint256) -> uint256:
    return (record >> 176) & 255
