# pragma version 0.4.3
# pragma optimize gas
"""
@title HubAdmin: what changes the hub rarely
@license Apache-2.0
@notice Runs in the hub, by delegation. What it does not know goes on to HubViews.

        exports:
          orders    manageAppOrder manageDatasetOrder manageWorkerpoolOrder manageRequestOrder
                    broadcastAppOrder broadcastDatasetOrder broadcastWorkerpoolOrder broadcastRequestOrder
          deals     sponsorMatchOrders
          tasks     reopen claim claimArray initializeAndClaimArray
          token     transfer transferFrom approve increaseAllowance decreaseAllowance approveAndCall
          escrow    depositFor depositForArray withdrawTo receiveApproval recover
          registry  sync
          owner     createCategory setTeeBroker setCallbackGas transferOwnership
"""
import types
import events
import settings
import ledger
import blobs
import orders
import deals
import tasks
import settlement

initializes: settings
initializes: ledger[settings := settings]
initializes: blobs
initializes: orders
initializes: deals[blobs := blobs, orders := orders]
initializes: tasks[settings := settings, blobs := blobs]
initializes: settlement[settings := settings, ledger := ledger, tasks := tasks]


interface Token:
    def transferFrom(source: address, to: address, amount: uint256) -> bool: nonpayable
    def transfer(to: address, amount: uint256) -> bool: nonpayable
    def balanceOf(account: address) -> uint256: view


interface Spender:
    def receiveApproval(
        sender: address, amount: uint256, token: address, data: Bytes[types.PAYLOAD]
    ) -> bool: nonpayable


interface Owned:
    def owner() -> address: view


# Longest answer of a delegated call, as in Hub.
ANSWER: constant(uint256) = 16384

# EIP-712 types of an order's operation: the order's own type follows the operation's.
APP_OPERATION_TYPE: constant(bytes32) = 0x0638bb0702457e2b4b01be8a202579b8bf97e587fb4f2cc4d4aad01f21a06ee0
DATASET_OPERATION_TYPE: constant(bytes32) = 0x075eb6f7578ff4292c241bd2484cd5c1d5e6ecc2ddd3317e1d8176b5a45865ec
WORKERPOOL_OPERATION_TYPE: constant(bytes32) = 0x322d980b7d7a6a1f7c39ff0c5445da6ae1d8e0393ff0dd468c8be3e2c8644388
REQUEST_OPERATION_TYPE: constant(bytes32) = 0x0ded7b52c2d77595a40d242eca751df172b18e686326dbbed3f4748828af77c7

# Selector of Hub's matchOrders(AppOrder,DatasetOrder,WorkerpoolOrder,RequestOrder).
MATCH_ORDERS: constant(bytes4) = 0x156194d4

# Where calls that this contract does not know are delegated to.
VIEWS: immutable(address)


@deploy
def __init__(hub: address, token: address, views: address):
    settings.__init__(token, 0)
    orders.__init__(hub)
    VIEWS = views


@external
@payable
@raw_return
def __default__() -> Bytes[ANSWER]:
    return raw_call(VIEWS, msg.data, max_outsize=ANSWER, is_delegate_call=True)


# ---- Orders --------------------------------------------------------------------------------------------------------

@external
def manageAppOrder(_apporderoperation: types.AppOrderOperation):
    owner: address = staticcall Owned(_apporderoperation.order.app).owner()
    struct_hash: bytes32 = orders._asset_struct(
        orders.APP_TYPE, _apporderoperation.order.app, _apporderoperation.order.appprice,
        _apporderoperation.order.volume, _apporderoperation.order.tag, _apporderoperation.order.datasetrestrict,
        _apporderoperation.order.workerpoolrestrict, _apporderoperation.order.requesterrestrict,
        _apporderoperation.order.salt,
    )
    digest: bytes32 = self._manage(
        owner,
        APP_OPERATION_TYPE,
        struct_hash,
        _apporderoperation.operation,
        _apporderoperation.order.volume,
        _apporderoperation.sign,
    )
    if _apporderoperation.operation == types.SIGN:
        log events.SignedAppOrder(appHash=digest)
    else:
        log events.ClosedAppOrder(appHash=digest)


@external
def manageDatasetOrder(_datasetorderoperation: types.DatasetOrderOperation):
    owner: address = staticcall Owned(_datasetorderoperation.order.dataset).owner()
    struct_hash: bytes32 = orders._asset_struct(
        orders.DATASET_TYPE, _datasetorderoperation.order.dataset, _datasetorderoperation.order.datasetprice,
        _datasetorderoperation.order.volume, _datasetorderoperation.order.tag, _datasetorderoperation.order.apprestrict,
        _datasetorderoperation.order.workerpoolrestrict, _datasetorderoperation.order.requesterrestrict,
        _datasetorderoperation.order.salt,
    )
    digest: bytes32 = self._manage(
        owner,
        DATASET_OPERATION_TYPE,
        struct_hash,
        _datasetorderoperation.operation,
        _datasetorderoperation.order.volume,
        _datasetorderoperation.sign,
    )
    if _datasetorderoperation.operation == types.SIGN:
        log events.SignedDatasetOrder(datasetHash=digest)
    else:
        log events.ClosedDatasetOrder(datasetHash=digest)


@external
def manageWorkerpoolOrder(_workerpoolorderoperation: types.WorkerpoolOrderOperation):
    owner: address = staticcall Owned(_workerpoolorderoperation.order.workerpool).owner()
    struct_hash: bytes32 = orders._workerpool_struct(
        _workerpoolorderoperation.order.workerpool, _workerpoolorderoperation.order.workerpoolprice,
        _workerpoolorderoperation.order.volume, _workerpoolorderoperation.order.tag,
        _workerpoolorderoperation.order.category, _workerpoolorderoperation.order.trust,
        _workerpoolorderoperation.order.apprestrict, _workerpoolorderoperation.order.datasetrestrict,
        _workerpoolorderoperation.order.requesterrestrict, _workerpoolorderoperation.order.salt,
    )
    digest: bytes32 = self._manage(
        owner,
        WORKERPOOL_OPERATION_TYPE,
        struct_hash,
        _workerpoolorderoperation.operation,
        _workerpoolorderoperation.order.volume,
        _workerpoolorderoperation.sign,
    )
    if _workerpoolorderoperation.operation == types.SIGN:
        log events.SignedWorkerpoolOrder(workerpoolHash=digest)
    else:
        log events.ClosedWorkerpoolOrder(workerpoolHash=digest)


@external
def manageRequestOrder(_requestorderoperation: types.RequestOrderOperation):
    struct_hash: bytes32 = orders._request_struct(
        _requestorderoperation.order.app, _requestorderoperation.order.appmaxprice,
        _requestorderoperation.order.dataset, _requestorderoperation.order.datasetmaxprice,
        _requestorderoperation.order.workerpool, _requestorderoperation.order.workerpoolmaxprice,
        _requestorderoperation.order.requester, _requestorderoperation.order.volume, _requestorderoperation.order.tag,
        _requestorderoperation.order.category, _requestorderoperation.order.trust,
        _requestorderoperation.order.beneficiary, _requestorderoperation.order.callback,
        keccak256(_requestorderoperation.order.params), _requestorderoperation.order.salt,
    )
    digest: bytes32 = self._manage(
        _requestorderoperation.order.requester,
        REQUEST_OPERATION_TYPE,
        struct_hash,
        _requestorderoperation.operation,
        _requestorderoperation.order.volume,
        _requestorderoperation.sign,
    )
    if _requestorderoperation.operation == types.SIGN:
        log events.SignedRequestOrder(requestHash=digest)
    else:
        log events.ClosedRequestOrder(requestHash=digest)


@external
def broadcastAppOrder(_apporder: types.AppOrder):
    log events.BroadcastAppOrder(apporder=_apporder)


@external
def broadcastDatasetOrder(_datasetorder: types.DatasetOrder):
    log events.BroadcastDatasetOrder(datasetorder=_datasetorder)


@external
def broadcastWorkerpoolOrder(_workerpoolorder: types.WorkerpoolOrder):
    log events.BroadcastWorkerpoolOrder(workerpoolorder=_workerpoolorder)


@external
def broadcastRequestOrder(_requestorder: types.RequestOrder):
    log events.BroadcastRequestOrder(requestorder=_requestorder)


@internal
def _manage(
    owner: address,
    operation_type: bytes32,
    struct_hash: bytes32,
    operation: uint8,
    volume: uint256,
    sign: Bytes[types.SIGNATURE],
) -> bytes32:
    """
    @notice Presign an order, or use up its volume, in the name of its owner: the sender, or who signed the operation.
    @return The order's hash.
    """
    assert operation <= types.CLOSE
    if owner != msg.sender:
        digest: bytes32 = orders._digest(
            orders._domain(), keccak256(abi_encode(operation_type, struct_hash, convert(operation, uint256)))
        )
        if not orders._recovers(owner, digest, sign):
            assert orders._consents(owner, digest, sign, False), "invalid-sender-or-signature"
    order: bytes32 = orders._digest(orders._domain(), struct_hash)
    if operation == types.SIGN:
        orders.presigned[order] = owner
    elif operation_type == REQUEST_OPERATION_TYPE:
        deals._close(order, volume)
    else:
        orders.consumed[order] = volume
    return order


# ---- Deals and tasks -----------------------------------------------------------------------------------------------

@external
def sponsorMatchOrders(
    _apporder: types.AppOrder,
    _datasetorder: types.DatasetOrder,
    _workerpoolorder: types.WorkerpoolOrder,
    _requestorder: types.RequestOrder,
) -> bytes32:
    """
    @notice `matchOrders`, paid by the sender. Nothing can change state between the two lines that set the sponsor:
            all that a match calls are views.
    """
    deals.sponsor = msg.sender
    answer: Bytes[32] = raw_call(
        self,
        abi_encode(_apporder, _datasetorder, _workerpoolorder, _requestorder, method_id=MATCH_ORDERS),
        max_outsize=32,
        is_delegate_call=True,
    )
    deals.sponsor = empty(address)
    dealid: bytes32 = convert(answer, bytes32)
    log events.DealSponsored(dealId=dealid, sponsor=msg.sender)
    return dealid


@external
def reopen(_taskid: bytes32):
    """
    @notice Start a task again whose winners were all silent: they are rejected.
    """
    word: uint256 = tasks.words[_taskid]
    deal: deals.Terms = deals._read(tasks._deal(word))
    assert msg.sender == settings.owners[deal.workerpool]
    assert tasks._status(word) == types.REVEALING
    assert block.timestamp < deal.start + settings._timeref(deal.category) * types.FINAL_DEADLINE_RATIO
    assert word >> tasks.DEADLINE <= block.timestamp and (word >> tasks.REVEALS) & tasks.COUNT_MASK == 0
    winner: tasks.Entry = tasks._read_contribution(_taskid, tasks._winner(_taskid))
    tasks._discard(_taskid, winner.hash, tasks._count(word))
    tasks.words[_taskid] = tasks._with_status(word & (2**tasks.WINNERS - 1), types.ACTIVE)
    log events.TaskReopen(taskid=_taskid)


@external
def claim(_taskid: bytes32):
    self._claim(_taskid)


@external
def claimArray(_taskid: DynArray[bytes32, types.BATCH]) -> bool:
    for taskid: bytes32 in _taskid:
        self._claim(taskid)
    return True


@external
def initializeAndClaimArray(_dealid: DynArray[bytes32, types.BATCH], _idx: DynArray[uint256, types.BATCH]) -> bool:
    assert len(_dealid) == len(_idx)
    for i: uint256 in range(len(_dealid), bound=types.BATCH):
        self._claim(tasks._begin(_dealid[i], _idx[i]))
    return True


@internal
def _claim(taskid: bytes32):
    word: uint256 = tasks.words[taskid]
    status: uint256 = tasks._status(word)
    assert status == types.ACTIVE or status == types.REVEALING
    deal: deals.Terms = deals._read(tasks._deal(word))
    assert deal.start + settings._timeref(deal.category) * types.FINAL_DEADLINE_RATIO <= block.timestamp
    tasks.words[taskid] = tasks._with_status(word, types.FAILED)
    settlement._refund(deal, taskid, tasks._count(word))
    log events.TaskClaimed(taskid=taskid)


# ---- Staked RLC as an ERC-20 ---------------------------------------------------------------------------------------

@external
def transfer(recipient: address, amount: uint256) -> bool:
    ledger._transfer(msg.sender, recipient, amount)
    return True


@external
def transferFrom(sender: address, recipient: address, amount: uint256) -> bool:
    ledger._transfer(sender, recipient, amount)
    allowed: uint256 = ledger.allowances[sender][msg.sender]
    assert amount <= allowed
    ledger._approve(sender, msg.sender, allowed - amount)
    return True


@external
def approve(spender: address, amount: uint256) -> bool:
    ledger._approve(msg.sender, spender, amount)
    return True


@external
def increaseAllowance(spender: address, addedValue: uint256) -> bool:
    ledger._approve(msg.sender, spender, ledger.allowances[msg.sender][spender] + addedValue)
    return True


@external
def decreaseAllowance(spender: address, subtractedValue: uint256) -> bool:
    ledger._approve(msg.sender, spender, ledger.allowances[msg.sender][spender] - subtractedValue)
    return True


@external
def approveAndCall(spender: address, amount: uint256, extraData: Bytes[types.PAYLOAD]) -> bool:
    ledger._approve(msg.sender, spender, amount)
    assert extcall Spender(spender).receiveApproval(msg.sender, amount, self, extraData), "approval-refused"
    return True


# ---- Escrow --------------------------------------------------------------------------------------------------------

@external
def depositFor(amount: uint256, target: address) -> bool:
    self._deposit(msg.sender, amount, target)
    return True


@external
def depositForArray(amounts: DynArray[uint256, types.BATCH], targets: DynArray[address, types.BATCH]) -> bool:
    assert len(amounts) == len(targets), "invalid-array-length"
    for i: uint256 in range(len(amounts), bound=types.BATCH):
        self._deposit(msg.sender, amounts[i], targets[i])
    return True


@external
def withdrawTo(amount: uint256, target: address) -> bool:
    ledger._burn(msg.sender, amount)
    extcall Token(settings.TOKEN).transfer(target, amount)
    return True


@external
def receiveApproval(sender: address, amount: uint256, token: address, data: Bytes[types.PAYLOAD]) -> bool:
    """
    @notice Deposit for who approved the hub through the base token's `approveAndCall`. Anyone may call it: the tokens
            go to the account of whom they come from.
    """
    assert token == settings.TOKEN, "wrong-token"
    self._deposit(sender, amount, sender)
    return True


@external
def recover() -> uint256:
    """
    @notice Credit the owner with base tokens that were sent to the hub without a deposit.
    """
    settings._only_owner()
    excess: uint256 = staticcall Token(settings.TOKEN).balanceOf(self) - ledger.supply
    ledger._mint(settings.owner, excess)
    return excess


@internal
def _deposit(source: address, amount: uint256, target: address):
    assert extcall Token(settings.TOKEN).transferFrom(source, self, amount), "failled-transferFrom"
    ledger._mint(target, amount)


# ---- Registries ----------------------------------------------------------------------------------------------------

@external
def sync(entry: address, packed: uint256):
    """
    @notice A registry tells of a new entry, or of an entry's new owner or policy.
    """
    settings._sync(entry, packed)


# ---- Owner ---------------------------------------------------------------------------------------------------------

@external
def createCategory(name: String[types.LABEL], description: String[types.LABEL], workClockTimeRef: uint256) -> uint256:
    settings._only_owner()
    return settings._create_category(
        types.Category(name=name, description=description, workClockTimeRef=workClockTimeRef)
    )


@external
def setTeeBroker(_teebroker: address):
    settings._only_owner()
    settings._set_broker(_teebroker)


@external
def setCallbackGas(_callbackgas: uint256):
    settings._only_owner()
    settings._set_callback_gas(_callbackgas)


@external
def transferOwnership(_newOwner: address):
    if msg.sender != settings.owner:
        raw_revert(abi_encode(msg.sender, settings.owner, method_id=method_id("NotContractOwner(address,address)")))
    log events.OwnershipTransferred(previousOwner=settings.owner, newOwner=_newOwner)
    settings.owner = _newOwner
