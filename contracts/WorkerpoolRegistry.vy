# pragma version 0.4.3
"""
@title WorkerpoolRegistry: the collection of workerpools
@license Apache-2.0
"""
import registry
import types

initializes: registry

# ERC-721 with its enumeration and metadata, ownership, and what is common to the three: see registry.vy.
exports: registry.__interface__


KIND: constant(uint256) = 3

# Policies of a new workerpool, in percent.
STAKE_RATIO: constant(uint256) = 30
SCHEDULER_RATIO: constant(uint256) = 1


@deploy
def __init__(hub: address, workerpool_code: Bytes[16384]):
    """
    @param hub The hub that mirrors the entries (it may be deployed later), or zero.
    @param workerpool_code Creation code of Workerpool.
    """
    registry.__init__(
        hub,
        workerpool_code,
        (KIND << 184) | (SCHEDULER_RATIO << 176) | (STAKE_RATIO << 160),
        "iExec Workerpool Registry (V5)",
        "iExecWorkerpoolV5",
    )


@external
def createWorkerpool(owner: address, description: String[types.BLOB]) -> address:
    return registry._create(owner, self._setup(description))


@external
@view
def predictWorkerpool(owner: address, description: String[types.BLOB]) -> address:
    return registry._predict(owner, self._setup(description))


@external
def setPolicy(stake_ratio: uint256, scheduler_ratio: uint256):
    """
    @notice For a workerpool about itself, from its `changePolicy`, which checks the owner and the bounds.
    """
    record: uint256 = registry._records[convert(msg.sender, uint256)]
    assert record != 0, "WorkerpoolRegistry: caller is not a workerpool"
    registry._set_policy(msg.sender, stake_ratio, scheduler_ratio)


@internal
@pure
def _setup(description: String[types.BLOB]) -> Bytes[registry.SETUP]:
    return abi_encode(description, method_id=method_id("initialize(string)"))
