# pragma version 0.4.3
"""
@title Management: orders signed and closed on chain, and broadcast
@license Apache-2.0
"""
import types
import events
import settings
import orders
import deals

uses: settings
uses: orders
uses: deals


interface Owned:
    def owner() -> address: view


# EIP-712 types of an order's operation: the order's own type follows the operation's.
APP_OPERATION_TYPE: constant(bytes32) = 0x0638bb0702457e2b4b01be8a202579b8bf97e587fb4f2cc4d4aad01f21a06ee0
DATASET_OPERATION_TYPE: constant(bytes32) = 0x075eb6f7578ff4292c241bd2484cd5c1d5e6ecc2ddd3317e1d8176b5a45865ec
WORKERPOOL_OPERATION_TYPE: constant(bytes32) = 0x322d980b7d7a6a1f7c39ff0c5445da6ae1d8e0393ff0dd468c8be3e2c8644388
REQUEST_OPERATION_TYPE: constant(bytes32) = 0x0ded7b52c2d77595a40d242eca751df172b18e686326dbbed3f4748828af77c7


@external
def manageAppOrder(_apporderoperation: types.AppOrderOperation):
    owner: address = self._owner(_apporderoperation.order.app)
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
    owner: address = self._owner(_datasetorderoperation.order.dataset)
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
    owner: address = self._owner(_workerpoolorderoperation.order.workerpool)
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
@view
def _owner(asset: address) -> address:
    """
    @notice Of an entry that the registries told of, or of any other contract that has an owner. Reverts without data
            where there is none.
    """
    entry: uint256 = settings.entries[asset]
    if entry != 0:
        return convert(entry & types.ADDRESS_MASK, address)
    return staticcall Owned(asset).owner()


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
        assert orders._signed(owner, digest, sign, False), "invalid-sender-or-signature"
    order: bytes32 = orders._digest(orders._domain(), struct_hash)
    if operation == types.SIGN:
        orders._presign(order, owner)
    elif operation_type == REQUEST_OPERATION_TYPE:
        deals._close(order, volume)
    else:
        orders._consume(order, volume)
    return order
