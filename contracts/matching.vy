# pragma version 0.4.3
"""
@title Matching: four signed orders become a deal
@license Apache-2.0
"""
import types
import events
import settings
import ledger
import blobs
import orders
import deals
import settlement

uses: settings
uses: ledger
uses: blobs
uses: orders
uses: deals


interface Owned:
    def owner() -> address: view


# "iExecV5-matchOrders-0x", 22 bytes from the highest; two hexadecimal digits follow.
MISMATCH: constant(bytes32) = 0x694578656356352d6d617463684f72646572732d307800000000000000000000

# Selector of matchOrders(AppOrder,DatasetOrder,WorkerpoolOrder,RequestOrder).
MATCH_ORDERS: constant(bytes4) = 0x156194d4


@external
def matchOrders(
    _apporder: types.AppOrder,
    _datasetorder: types.DatasetOrder,
    _workerpoolorder: types.WorkerpoolOrder,
    _requestorder: types.RequestOrder,
) -> bytes32:
    """
    @notice Make a deal of four orders that fit, as many tasks as all of them have left. The sponsor pays; that is the
            requester, unless HubAdmin's `sponsorMatchOrders` named another for the time of this call.
    """
    # The terms agree.
    if _requestorder.category != _workerpoolorder.category:
        self._mismatch(0x00)
    if settings._clock(_requestorder.category) == 0:
        self._mismatch(0x01)
    if _requestorder.trust > _workerpoolorder.trust:
        self._mismatch(0x02)
    if _requestorder.appmaxprice < _apporder.appprice:
        self._mismatch(0x03)
    if _requestorder.datasetmaxprice < _datasetorder.datasetprice:
        self._mismatch(0x04)
    if _requestorder.workerpoolmaxprice < _workerpoolorder.workerpoolprice:
        self._mismatch(0x05)
    app_tag: uint256 = convert(_apporder.tag, uint256)
    tag: uint256 = (
        app_tag | (convert(_datasetorder.tag, uint256) & ~types.TAG_FRAMEWORKS) | convert(_requestorder.tag, uint256)
    )
    if tag & ~convert(_workerpoolorder.tag, uint256) != 0:
        self._mismatch(0x06)
    if (tag ^ app_tag) & types.TAG_TEE != 0:
        self._mismatch(0x07)

    # Each names or admits the others; restrictions are mostly zero, so they are first looked at together.
    if _requestorder.app != _apporder.app:
        self._mismatch(0x10)
    if _requestorder.dataset != _datasetorder.dataset:
        self._mismatch(0x11)
    if _requestorder.workerpool != _workerpoolorder.workerpool:
        if not orders._admits(_requestorder.workerpool, _workerpoolorder.workerpool):
            self._mismatch(0x12)
    if (
        convert(_apporder.datasetrestrict, uint256)
        | convert(_apporder.workerpoolrestrict, uint256)
        | convert(_apporder.requesterrestrict, uint256)
        | convert(_datasetorder.apprestrict, uint256)
        | convert(_datasetorder.workerpoolrestrict, uint256)
        | convert(_datasetorder.requesterrestrict, uint256)
        | convert(_workerpoolorder.apprestrict, uint256)
        | convert(_workerpoolorder.datasetrestrict, uint256)
        | convert(_workerpoolorder.requesterrestrict, uint256)
    ) != 0:
        refusing: uint256 = orders._refusing(
            _apporder.datasetrestrict, _apporder.workerpoolrestrict, _apporder.requesterrestrict,
            _datasetorder.apprestrict, _datasetorder.workerpoolrestrict, _datasetorder.requesterrestrict,
            _workerpoolorder.apprestrict, _workerpoolorder.datasetrestrict, _workerpoolorder.requesterrestrict,
            _apporder.app, _datasetorder.dataset, _workerpoolorder.workerpool, _requestorder.requester,
        )
        if refusing != 0:
            self._mismatch(convert(convert(18 + refusing, uint8), bytes1))

    # Each is registered and signed by its owner, and has volume left.
    domain: bytes32 = orders._domain()
    app: uint256 = settings.entries[_apporder.app]
    if (app >> settings.KIND) & settings.KIND_MASK != settings.APP:
        self._unregistered(_apporder.app, 0x20)
    app_owner: address = convert(app & types.ADDRESS_MASK, address)
    app_hash: bytes32 = orders._digest(
        domain,
        orders._asset_struct(
            orders.APP_TYPE, _apporder.app, _apporder.appprice, _apporder.volume, _apporder.tag,
            _apporder.datasetrestrict, _apporder.workerpoolrestrict, _apporder.requesterrestrict, _apporder.salt,
        )
    )
    app_word: uint256 = orders.words[app_hash]
    if not orders._signed(app_owner, app_hash, _apporder.sign, True):
        self._mismatch(0x21)
    volume: uint256 = unsafe_sub(_apporder.volume, app_word >> orders.USED)

    dataset: uint256 = 0
    dataset_owner: address = empty(address)
    dataset_hash: bytes32 = empty(bytes32)
    dataset_word: uint256 = 0
    dataset_price: uint256 = 0
    if _datasetorder.dataset != empty(address):
        dataset = settings.entries[_datasetorder.dataset]
        if (dataset >> settings.KIND) & settings.KIND_MASK != settings.DATASET:
            self._unregistered(_datasetorder.dataset, 0x30)
        dataset_owner = convert(dataset & types.ADDRESS_MASK, address)
        dataset_hash = orders._digest(
            domain,
            orders._asset_struct(
                orders.DATASET_TYPE, _datasetorder.dataset, _datasetorder.datasetprice, _datasetorder.volume,
                _datasetorder.tag, _datasetorder.apprestrict, _datasetorder.workerpoolrestrict,
                _datasetorder.requesterrestrict, _datasetorder.salt,
            )
        )
        dataset_word = orders.words[dataset_hash]
        if not orders._signed(dataset_owner, dataset_hash, _datasetorder.sign, True):
            self._mismatch(0x31)
        dataset_price = _datasetorder.datasetprice
        volume = min(volume, unsafe_sub(_datasetorder.volume, dataset_word >> orders.USED))

    workerpool: uint256 = settings.entries[_workerpoolorder.workerpool]
    if (workerpool >> settings.KIND) & settings.KIND_MASK != settings.WORKERPOOL:
        self._unregistered(_workerpoolorder.workerpool, 0x40)
    workerpool_owner: address = convert(workerpool & types.ADDRESS_MASK, address)
    workerpool_hash: bytes32 = orders._digest(
        domain,
        orders._workerpool_struct(
            _workerpoolorder.workerpool, _workerpoolorder.workerpoolprice, _workerpoolorder.volume,
            _workerpoolorder.tag, _workerpoolorder.category, _workerpoolorder.trust, _workerpoolorder.apprestrict,
            _workerpoolorder.datasetrestrict, _workerpoolorder.requesterrestrict, _workerpoolorder.salt,
        )
    )
    workerpool_word: uint256 = orders.words[workerpool_hash]
    if not orders._signed(workerpool_owner, workerpool_hash, _workerpoolorder.sign, True):
        self._mismatch(0x41)
    volume = min(volume, unsafe_sub(_workerpoolorder.volume, workerpool_word >> orders.USED))

    request_hash: bytes32 = orders._digest(
        domain,
        orders._request_struct(
            _requestorder.app, _requestorder.appmaxprice, _requestorder.dataset, _requestorder.datasetmaxprice,
            _requestorder.workerpool, _requestorder.workerpoolmaxprice, _requestorder.requester,
            _requestorder.volume, _requestorder.tag, _requestorder.category, _requestorder.trust,
            _requestorder.beneficiary, _requestorder.callback, keccak256(_requestorder.params), _requestorder.salt,
        )
    )
    if not orders._signed(_requestorder.requester, request_hash, _requestorder.sign, True):
        self._mismatch(0x50)
    if not orders._chosen(_requestorder.salt, _requestorder.requester, settings.TOKEN):
        self._mismatch(0x51)
    first: uint256 = 0
    dealid: bytes32 = empty(bytes32)
    first, dealid = deals._next(request_hash)
    volume = min(volume, unsafe_sub(_requestorder.volume, first))
    if volume == 0 or (app_word | dataset_word | workerpool_word) >> orders.WIDE != 0:
        self._mismatch(0x60)

    # Record the deal. Prices that the packing could not hold are above the supply: nobody could lock them.
    if (_apporder.appprice | dataset_price | _workerpoolorder.workerpoolprice) >= ledger.SUPPLY_LIMIT:
        self._unpayable(
            _apporder.appprice,
            dataset_price,
            _workerpoolorder.workerpoolprice,
            volume,
            (workerpool >> settings.STAKE_RATIO) & settings.STAKE_RATIO_MASK,
        )
    if unsafe_add(first, volume) >= deals.VOLUME_LIMIT or _requestorder.trust >= deals.TRUST_LIMIT:
        raise "deals: volume above 2**24 or trust above 2**32"
    sponsor: address = deals.sponsor
    if sponsor == empty(address):
        sponsor = _requestorder.requester
    deal: deals.Terms = deals.Terms(
        dealid=dealid,
        requester=_requestorder.requester,
        sponsor=sponsor,
        beneficiary=_requestorder.beneficiary,
        callback=_requestorder.callback,
        app=app >> settings.TITLE,
        dataset=dataset >> settings.TITLE,
        workerpool=workerpool >> settings.TITLE,
        app_owner=empty(address),
        dataset_owner=empty(address),
        workerpool_owner=empty(address),
        app_price=_apporder.appprice,
        dataset_price=dataset_price,
        workerpool_price=_workerpoolorder.workerpoolprice,
        tag=tag,
        category=_requestorder.category,
        trust=max(_requestorder.trust, 1),
        start=block.timestamp,
        first=first,
        size=volume,
        scheduler_ratio=(workerpool >> settings.SCHEDULER_RATIO) & settings.SCHEDULER_RATIO_MASK,
        stake_ratio=(workerpool >> settings.STAKE_RATIO) & settings.STAKE_RATIO_MASK,
    )
    if volume > 1:
        # An only task can look them up.
        deal.app_owner = app_owner
        deal.dataset_owner = dataset_owner
        deal.workerpool_owner = workerpool_owner
    head: bytes29 = empty(bytes29)
    rest: bytes30 = empty(bytes30)
    rare: Bytes[deals.RARE] = b""
    head, rest, rare = deals._parts(deal)
    blobs.held = concat(head, rest, rare, convert(_requestorder.params, Bytes[types.PARAMS]))
    blobs._put(convert(convert(dealid, uint256) & deals.KEY_MASK, bytes32))
    use: uint256 = volume << orders.USED
    orders.words[app_hash] = unsafe_add(app_word, use)
    if dataset != 0:
        orders.words[dataset_hash] = unsafe_add(dataset_word, use)
    orders.words[workerpool_hash] = unsafe_add(workerpool_word, use)
    if volume != _requestorder.volume:
        orders.words[request_hash] = unsafe_add(orders.words[request_hash], use)

    # Lock the money. Prices are below 2**64 and the volume below 2**24.
    ledger._lock(
        sponsor,
        unsafe_mul(
            unsafe_add(unsafe_add(_apporder.appprice, dataset_price), _workerpoolorder.workerpoolprice), volume
        ),
    )
    ledger._lock(
        workerpool_owner, unsafe_mul(settlement._scheduler_stake(_workerpoolorder.workerpoolprice), volume)
    )
    log events.SchedulerNotice(workerpool=_workerpoolorder.workerpool, dealid=dealid)
    log events.OrdersMatched(
        dealid=dealid,
        appHash=app_hash,
        datasetHash=dataset_hash,
        workerpoolHash=workerpool_hash,
        requestHash=request_hash,
        volume=volume,
    )
    return dealid


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
@view
def computeDealVolume(
    _apporder: types.AppOrder,
    _datasetorder: types.DatasetOrder,
    _workerpoolorder: types.WorkerpoolOrder,
    _requestorder: types.RequestOrder,
) -> uint256:
    """
    @notice Tasks that these orders have left together. Checks nothing else.
    """
    domain: bytes32 = orders._domain()
    app_hash: bytes32 = orders._digest(
        domain,
        orders._asset_struct(
            orders.APP_TYPE, _apporder.app, _apporder.appprice, _apporder.volume, _apporder.tag,
            _apporder.datasetrestrict, _apporder.workerpoolrestrict, _apporder.requesterrestrict, _apporder.salt,
        ),
    )
    volume: uint256 = _apporder.volume - orders._consumed(app_hash)
    if _datasetorder.dataset != empty(address):
        dataset_hash: bytes32 = orders._digest(
            domain,
            orders._asset_struct(
                orders.DATASET_TYPE, _datasetorder.dataset, _datasetorder.datasetprice, _datasetorder.volume,
                _datasetorder.tag, _datasetorder.apprestrict, _datasetorder.workerpoolrestrict,
                _datasetorder.requesterrestrict, _datasetorder.salt,
            ),
        )
        volume = min(volume, _datasetorder.volume - orders._consumed(dataset_hash))
    workerpool_hash: bytes32 = orders._digest(
        domain,
        orders._workerpool_struct(
            _workerpoolorder.workerpool, _workerpoolorder.workerpoolprice, _workerpoolorder.volume,
            _workerpoolorder.tag, _workerpoolorder.category, _workerpoolorder.trust, _workerpoolorder.apprestrict,
            _workerpoolorder.datasetrestrict, _workerpoolorder.requesterrestrict, _workerpoolorder.salt,
        ),
    )
    volume = min(volume, _workerpoolorder.volume - orders._consumed(workerpool_hash))
    request_hash: bytes32 = orders._digest(
        domain,
        orders._request_struct(
            _requestorder.app, _requestorder.appmaxprice, _requestorder.dataset, _requestorder.datasetmaxprice,
            _requestorder.workerpool, _requestorder.workerpoolmaxprice, _requestorder.requester, _requestorder.volume,
            _requestorder.tag, _requestorder.category, _requestorder.trust, _requestorder.beneficiary,
            _requestorder.callback, keccak256(_requestorder.params), _requestorder.salt,
        ),
    )
    return min(volume, _requestorder.volume - deals._next(request_hash)[0])


@external
@view
def assertDatasetDealCompatibility(_datasetorder: types.DatasetOrder, _dealid: bytes32):
    """
    @notice Refuses, with a reason, a dataset order that could not be added to a deal made without a dataset.
    """
    digest: bytes32 = orders._digest(
        orders._domain(),
        orders._asset_struct(
            orders.DATASET_TYPE, _datasetorder.dataset, _datasetorder.datasetprice, _datasetorder.volume,
            _datasetorder.tag, _datasetorder.apprestrict, _datasetorder.workerpoolrestrict,
            _datasetorder.requesterrestrict, _datasetorder.salt,
        ),
    )
    if orders._consumed(digest) >= _datasetorder.volume:
        self._incompatible("Dataset order is revoked or fully consumed")
    owner: address = staticcall Owned(_datasetorder.dataset).owner()
    if not orders._signed(owner, digest, _datasetorder.sign, True):
        self._incompatible("Invalid dataset order signature")
    if not deals._exists(_dealid):
        self._incompatible("Deal not found")
    deal: deals.Terms = deals._read(deals._key(_dealid))
    if deal.dataset != 0:
        self._incompatible("Deal already has a dataset")
    if not orders._admits(_datasetorder.apprestrict, settings.assets[deal.app]):
        self._incompatible("App restriction not satisfied")
    if not orders._admits(_datasetorder.workerpoolrestrict, settings.assets[deal.workerpool]):
        self._incompatible("Workerpool restriction not satisfied")
    if not orders._admits(_datasetorder.requesterrestrict, deal.requester):
        self._incompatible("Requester restriction not satisfied")
    tag: uint256 = convert(_datasetorder.tag, uint256) & ~types.TAG_FRAMEWORKS
    if tag & ~deal.tag != 0:
        self._incompatible("Tag compatibility not satisfied")


@internal
@pure
def _incompatible(reason: String[64]):
    raw_revert(abi_encode(reason, method_id=method_id("IncompatibleDatasetOrder(string)")))


# ---- Refusals --------------------------------------------------------------------------------------------------------

@internal
@view
def _unregistered(asset: address, code: bytes1):
    """
    @notice Refuse an asset that its registry does not know. First it is asked for its owner, which reverts without data
            where there is none, because the official contracts look in this order.
    """
    owner: address = staticcall Owned(asset).owner()
    self._mismatch(code)


@internal
@pure
def _mismatch(code: bytes1):
    number: uint256 = convert(code, uint256)
    low: uint256 = (number & 15) + 48
    if low > 57:
        # From "9" to "a".
        low += 39
    text: uint256 = convert(MISMATCH, uint256) | (((number >> 4) + 48) << 72) | (low << 64)
    raw_revert(abi_encode(convert(32, uint256), convert(24, uint256), text, method_id=method_id("Error(string)")))


@internal
@pure
def _unpayable(app_price: uint256, dataset_price: uint256, workerpool_price: uint256, volume: uint256, ratio: uint256):
    """
    @notice Refuse a price above the supply as the official arithmetic would: by overflow if it overflows, in its order.
    """
    product: uint256 = self._times(workerpool_price, ratio)
    price: uint256 = self._plus(self._plus(app_price, dataset_price), workerpool_price)
    product = self._times(price, volume)
    raise "IexecEscrow: Transfer amount exceeds balance"


@internal
@pure
def _times(number: uint256, other: uint256) -> uint256:
    if number != 0 and unsafe_div(unsafe_mul(number, other), number) != other:
        types._panic(types.PANIC_OVERFLOW)
    return unsafe_mul(number, other)


@internal
@pure
def _plus(number: uint256, other: uint256) -> uint256:
    if unsafe_add(number, other) < number:
        types._panic(types.PANIC_OVERFLOW)
    return unsafe_add(number, other)
