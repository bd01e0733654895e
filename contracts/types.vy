# pragma version 0.4.3
"""
@title Types: what callers see, the bounds, the protocol's constants
@license Apache-2.0
@notice Structs of the official ABI, fields in ABI order, and the numbers that more than one file needs.
@dev Bounds cost gas even when unused (Vyper reserves memory for them). Longer arguments are refused by the ABI
     decoder, without data; the official contracts have no bound.
"""

SIGNATURE: constant(uint256) = 1024  # an expiry and 15 signatures of a quorum, or an EIP-1271 wallet's
PARAMS: constant(uint256) = 4096
RESULT: constant(uint256) = 1024  # results, and data for the callback
CONTRIBUTORS: constant(uint256) = 63  # per task: places, groups and counters of six bits
BATCH: constant(uint256) = 128  # items of an array call
LABEL: constant(uint256) = 512  # texts of a category
TEXT: constant(uint256) = 1024  # names and types of entries
BLOB: constant(uint256) = 2048  # bytes of an entry, and a workerpool's description
PAYLOAD: constant(uint256) = 12288  # data of approveAndCall: four signed orders fit

# Percent.
KITTY_RATIO: constant(uint256) = 10
WORKERPOOL_STAKE_RATIO: constant(uint256) = 30

# nRLC.
KITTY_MIN: constant(uint256) = 10**9

# In units of the category's time reference.
CONTRIBUTION_DEADLINE_RATIO: constant(uint256) = 7
REVEAL_DEADLINE_RATIO: constant(uint256) = 2
FINAL_DEADLINE_RATIO: constant(uint256) = 10

# ERC-734 purpose that a group contract answers for.
GROUPMEMBER_PURPOSE: constant(uint256) = 4

# First 20 bytes of keccak256("iExecKitty"), as a number, minus one.
KITTY_ADDRESS: constant(address) = 0x99c2268479b93fDe36232351229815DF80837e23

# Lowest tag bit: the deal runs in a TEE.
TAG_TEE: constant(uint256) = 1

# Bits of a dataset order's tag that name a TEE framework (Scone, Gramine, TDX); matching ignores them (PoCo 6.2.0).
TAG_FRAMEWORKS: constant(uint256) = 14

# Tag bit that asks for the deal's tasks to be settled in batches: like any bit, its workerpool has to offer it.
TAG_BATCH: constant(uint256) = 2**128

# Task status.
ACTIVE: constant(uint256) = 1
REVEALING: constant(uint256) = 2
COMPLETED: constant(uint256) = 3
FAILED: constant(uint256) = 4

# What a piece of the hub answers to a call that it does not know: longer than any answer it has.
NOT_MINE: constant(Bytes[33]) = x"000000000000000000000000000000000000000000000000000000000000000000"

# Order operations.
SIGN: constant(uint8) = 0
CLOSE: constant(uint8) = 1

ADDRESS_MASK: constant(uint256) = 2**160 - 1

# Solidity's Panic(uint256) codes.
PANIC_ASSERT: constant(uint256) = 1
PANIC_OVERFLOW: constant(uint256) = 17


struct EIP712Domain:
    name: String[32]
    version: String[32]
    chainId: uint256
    verifyingContract: address


# ---- Orders --------------------------------------------------------------------------------------------------------

struct AppOrder:
    app: address
    appprice: uint256
    volume: uint256
    tag: bytes32
    datasetrestrict: address
    workerpoolrestrict: address
    requesterrestrict: address
    salt: bytes32
    sign: Bytes[SIGNATURE]


struct DatasetOrder:
    dataset: address
    datasetprice: uint256
    volume: uint256
    tag: bytes32
    apprestrict: address
    workerpoolrestrict: address
    requesterrestrict: address
    salt: bytes32
    sign: Bytes[SIGNATURE]


struct WorkerpoolOrder:
    workerpool: address
    workerpoolprice: uint256
    volume: uint256
    tag: bytes32
    category: uint256
    trust: uint256
    apprestrict: address
    datasetrestrict: address
    requesterrestrict: address
    salt: bytes32
    sign: Bytes[SIGNATURE]


struct RequestOrder:
    app: address
    appmaxprice: uint256
    dataset: address
    datasetmaxprice: uint256
    workerpool: address
    workerpoolmaxprice: uint256
    requester: address
    volume: uint256
    tag: bytes32
    category: uint256
    trust: uint256
    beneficiary: address
    callback: address
    params: String[PARAMS]
    salt: bytes32
    sign: Bytes[SIGNATURE]


struct AppOrderOperation:
    order: AppOrder
    operation: uint8
    sign: Bytes[SIGNATURE]


struct DatasetOrderOperation:
    order: DatasetOrder
    operation: uint8
    sign: Bytes[SIGNATURE]


struct WorkerpoolOrderOperation:
    order: WorkerpoolOrder
    operation: uint8
    sign: Bytes[SIGNATURE]


struct RequestOrderOperation:
    order: RequestOrder
    operation: uint8
    sign: Bytes[SIGNATURE]


# ---- What views answer ---------------------------------------------------------------------------------------------

struct Resource:
    pointer: address
    owner: address
    price: uint256


struct Deal:
    app: Resource
    dataset: Resource
    workerpool: Resource
    trust: uint256
    category: uint256
    tag: bytes32
    requester: address
    beneficiary: address
    callback: address
    params: String[PARAMS]
    startTime: uint256
    botFirst: uint256
    botSize: uint256
    workerStake: uint256
    schedulerRewardRatio: uint256
    sponsor: address


struct DealBoost:
    appOwner: address
    appPrice: uint96
    datasetOwner: address
    datasetPrice: uint96
    workerpoolOwner: address
    workerpoolPrice: uint96
    requester: address
    workerReward: uint96
    callback: address
    deadline: uint40
    botFirst: uint16
    botSize: uint16
    shortTag: bytes3
    sponsor: address


struct Task:
    status: uint8
    dealid: bytes32
    idx: uint256
    timeref: uint256
    contributionDeadline: uint256
    revealDeadline: uint256
    finalDeadline: uint256
    consensusValue: bytes32
    revealCounter: uint256
    winnerCounter: uint256
    contributors: DynArray[address, CONTRIBUTORS]
    resultDigest: bytes32
    results: Bytes[RESULT]
    resultsTimestamp: uint256
    resultsCallback: Bytes[RESULT]


struct Contribution:
    status: uint8
    resultHash: bytes32
    resultSeal: bytes32
    enclaveChallenge: address
    weight: uint256


struct Account:
    stake: uint256
    locked: uint256


struct Category:
    name: String[LABEL]
    description: String[LABEL]
    workClockTimeRef: uint256


struct AppInfo:
    owner: address
    m_appName: String[TEXT]
    m_appType: String[TEXT]
    m_appMultiaddr: Bytes[BLOB]
    m_appChecksum: bytes32
    m_appMREnclave: Bytes[BLOB]


struct DatasetInfo:
    owner: address
    m_datasetName: String[TEXT]
    m_datasetMultiaddr: Bytes[BLOB]
    m_datasetChecksum: bytes32


struct WorkerpoolInfo:
    owner: address
    m_workerpoolDescription: String[BLOB]
    m_workerStakeRatioPolicy: uint256
    m_schedulerRewardRatioPolicy: uint256


@internal
@pure
def _panic(code: uint256):
    """
    @notice Revert as Solidity does.
    """
    raw_revert(abi_encode(code, method_id=method_id("Panic(uint256)")))
