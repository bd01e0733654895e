# pragma version 0.4.3
"""
@title Workerpool: a workerpool in the WorkerpoolRegistry
@license Apache-2.0
@dev Its policies lie in the registry's record of it, beside its owner, because the hub mirrors that word.
"""
import entry
import types

initializes: entry

# Whose it is: registry(), owner(), and the refused setName.
exports: entry.__interface__


interface Registry:
    def packed(entry: address) -> uint256: view
    def setPolicy(stake_ratio: uint256, scheduler_ratio: uint256): nonpayable


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
    @notice Set, for later deals, the percentages that a worker stakes of its reward and that the scheduler
            keeps.
    """
    entry._only_owner()
    assert scheduler_ratio <= 100
    # The official pool has no bound; a deal records this ratio in 16 bits.
    assert stake_ratio < 2**16, "Workerpool: stake ratio above 65535"
    old: uint256 = self._packed()
    log PolicyUpdate(
        oldWorkerStakeRatioPolicy=(old >> 160) & 65535,
        newWorkerStakeRatioPolicy=stake_ratio,
        oldSchedulerRewardRatioPolicy=(old >> 176) & 255,
        newSchedulerRewardRatioPolicy=scheduler_ratio,
    )
    extcall Registry(entry.registry).setPolicy(stake_ratio, scheduler_ratio)


@external
@view
def m_workerStakeRatioPolicy() -> uint256:
    return (self._packed() >> 160) & 65535


@external
@view
def m_schedulerRewardRatioPolicy() -> uint256:
    return (self._packed() >> 176) & 255


@internal
@view
def _packed() -> uint256:
    return staticcall Registry(entry.registry).packed(self)
