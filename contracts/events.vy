# pragma version 0.4.3
"""
@title Events: every event of the hub, as the official ABI has them
@license Apache-2.0
@dev `from` is a keyword in Vyper; the build gives `from_` its ABI name back.
"""
import types

# ---- ERC-20 of staked tokens, and the escrow -----------------------------------------------------------------------

event Transfer:
    from_: indexed(address)
    to: indexed(address)
    value: uint256


event Approval:
    owner: indexed(address)
    spender: indexed(address)
    value: uint256


event Lock:
    owner: address
    amount: uint256


event Unlock:
    owner: address
    amount: uint256


event Reward:
    owner: address
    amount: uint256
    ref: bytes32


event Seize:
    owner: address
    amount: uint256
    ref: bytes32


# ---- Orders --------------------------------------------------------------------------------------------------------

event SignedAppOrder:
    appHash: bytes32


event SignedDatasetOrder:
    datasetHash: bytes32


event SignedWorkerpoolOrder:
    workerpoolHash: bytes32


event SignedRequestOrder:
    requestHash: bytes32


event ClosedAppOrder:
    appHash: bytes32


event ClosedDatasetOrder:
    datasetHash: bytes32


event ClosedWorkerpoolOrder:
    workerpoolHash: bytes32


event ClosedRequestOrder:
    requestHash: bytes32


event BroadcastAppOrder:
    apporder: types.AppOrder


event BroadcastDatasetOrder:
    datasetorder: types.DatasetOrder


event BroadcastWorkerpoolOrder:
    workerpoolorder: types.WorkerpoolOrder


event BroadcastRequestOrder:
    requestorder: types.RequestOrder


# ---- Deals ---------------------------------------------------------------------------------------------------------

event SchedulerNotice:
    workerpool: indexed(address)
    dealid: bytes32


event OrdersMatched:
    dealid: bytes32
    appHash: bytes32
    datasetHash: bytes32
    workerpoolHash: bytes32
    requestHash: bytes32
    volume: uint256


event DealSponsored:
    dealId: bytes32
    sponsor: address


event SchedulerNoticeBoost:
    workerpool: indexed(address)
    dealId: bytes32
    app: address
    dataset: address
    category: uint256
    tag: bytes32
    params: String[types.PARAMS]
    beneficiary: address


event DealSponsoredBoost:
    dealId: bytes32
    sponsor: address


# ---- Tasks ---------------------------------------------------------------------------------------------------------

event TaskInitialize:
    taskid: indexed(bytes32)
    workerpool: indexed(address)


event TaskContribute:
    taskid: indexed(bytes32)
    worker: indexed(address)
    hash: bytes32


event TaskConsensus:
    taskid: indexed(bytes32)
    consensus: bytes32


event TaskReveal:
    taskid: indexed(bytes32)
    worker: indexed(address)
    digest: bytes32


event TaskReopen:
    taskid: indexed(bytes32)


event TaskFinalize:
    taskid: indexed(bytes32)
    results: Bytes[types.RESULT]


event TaskClaimed:
    taskid: indexed(bytes32)


event ResultPushedBoost:
    dealId: bytes32
    index: uint256
    results: Bytes[types.RESULT]


event AccurateContribution:
    worker: indexed(address)
    taskid: indexed(bytes32)


event FaultyContribution:
    worker: indexed(address)
    taskid: indexed(bytes32)


# ---- Administration ------------------------------------------------------------------------------------------------

event CreateCategory:
    catid: uint256
    name: String[types.LABEL]
    description: String[types.LABEL]
    workClockTimeRef: uint256


event OwnershipTransferred:
    previousOwner: indexed(address)
    newOwner: indexed(address)


# ---- Not in the official ABI ---------------------------------------------------------------------------------------

# Only where changes are delayed: what waits, and until when at least.
event ChangeScheduled:
    selector: indexed(bytes4)
    arguments: uint256[3]
    effective: uint256


event ChangeApplied:
    selector: indexed(bytes4)
    arguments: uint256[3]
