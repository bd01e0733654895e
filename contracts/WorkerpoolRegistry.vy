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

# Where policies lie in a record.
POLICY_MASK: constant(uint256) = (2**24 - 1) << 160


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
def setPolicy(caller: address, stake_ratio: uint256, scheduler_ratio: uint256) -> uint256:
    """
    @notice A workerpool passes on its `changePolicy`.
    @param caller Who called it: must be its owner.
    @return Its record before.
    """
    id: uint256 = convert(msg.sender, uint256)
    record: uint256 = registry._records[id]
    assert record != 0, "WorkerpoolRegistry: caller is not a workerpool"
    assert caller == registry._owner(record), "caller is not the owner"
    assert scheduler_ratio <= 100
    # The official pool has no bound; a deal records this ratio in 16 bits.
    assert stake_ratio < 2**16, "WorkerpoolRegistry: stake ratio above 65535"
    registry._write(id, (record & ~POLICY_MASK) | (stake_ratio << 160) | (scheduler_ratio << 176))
    return record


@internal
@pure
def _setup(description: String[types.BLOB]) -> Bytes[registry.SETUP]:
    return abi_encode(description, method_id=method_id("initialize(string)"))
