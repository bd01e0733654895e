# pragma version 0.4.3
"""
@title Boost: deals whose results are pushed in one transaction, and not kept
@license Apache-2.0
@notice A boost deal is a blob under the key that a classic deal of its id would have; they share the request orders'
        used volumes, so an id is one or the other's. It keeps what the end of a task needs, and no more: the rest is
        told by its event alone. From byte 0:

          0  flags             1   128, plus those of the parts below
          1  first             2
          3  size              2
          5  deadline          5   seconds: results until then, claims from then on
         10  tag               3   its low part
         13  scheduler ratio   1   percent
         14  dealid           10   its high part
         24  app price         8   nRLC, as all prices
         32  workerpool price  8
         40  app owner        20
         60  scheduler        20   the workerpool's owner
         80  sponsor          20
        100  if flag 1: dataset price 8, dataset owner 20   (else there is no dataset)
             if flag 2: callback 20                         (else none)
             if flag 4: requester 20                        (else the sponsor)

        Of a task only the status is kept, in its word (tasks.vy), which names no deal.
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
import life

uses: settings
uses: ledger
uses: blobs
uses: orders
uses: deals
uses: tasks
uses: settlement
uses: life

# Flags, as drawn above, besides deals.BOOST.
DATASET: constant(uint256) = 1
CALLBACK: constant(uint256) = 2
REQUESTER: constant(uint256) = 4

# Lengths of the parts.
FIXED: constant(uint256) = 100
DATASET_PART: constant(uint256) = 28
ADDRESS_PART: constant(uint256) = 20
RARE: constant(uint256) = DATASET_PART + 2 * ADDRESS_PART

MASK_40: constant(uint256) = 2**40 - 1

# Bits that the official contracts have for a price, and for a number of tasks.
PRICE_BITS: constant(uint256) = 96
VOLUME_BITS: constant(uint256) = 16

# Selector of matchOrdersBoost(AppOrder,DatasetOrder,WorkerpoolOrder,RequestOrder).
MATCH_ORDERS_BOOST: constant(bytes4) = 0x8a8b3607


# Amounts in nRLC, times in seconds, ratios in percent.
struct Terms:
    sponsor: address
    requester: address
    app_owner: address
    dataset_owner: address  # zero when there is no dataset
    scheduler: address
    callback: address
    app_price: uint256
    dataset_price: uint256
    workerpool_price: uint256
    deadline: uint256
    first: uint256
    size: uint256  # zero when there is no deal
    tag: uint256
    scheduler_ratio: uint256


# ---- Matching ------------------------------------------------------------------------------------------------------

@external
def matchOrdersBoost(
    appOrder: types.AppOrder,
    datasetOrder: types.DatasetOrder,
    workerpoolOrder: types.WorkerpoolOrder,
    requestOrder: types.RequestOrder,
) -> bytes32:
    """
    @notice Make a boost deal of four orders that fit, as many tasks as all of them have left. The sponsor pays; that is
            the requester, unless `sponsorMatchOrdersBoost` named another for the time of this call.
    """
    # The terms agree. The workerpool's trust is not asked for.
    assert requestOrder.trust <= 1, "PocoBoost: Bad trust level"
    assert requestOrder.category == workerpoolOrder.category, "PocoBoost: Category mismatch"
    clock: uint256 = settings._clock(requestOrder.category)
    assert clock != 0, "PocoBoost: Unknown category"
    assert requestOrder.appmaxprice >= appOrder.appprice, "PocoBoost: Overpriced app"
    assert requestOrder.datasetmaxprice >= datasetOrder.datasetprice, "PocoBoost: Overpriced dataset"
    assert requestOrder.workerpoolmaxprice >= workerpoolOrder.workerpoolprice, "PocoBoost: Overpriced workerpool"
    app_tag: uint256 = convert(appOrder.tag, uint256)
    tag: uint256 = app_tag | convert(datasetOrder.tag, uint256) | convert(requestOrder.tag, uint256)
    assert tag & ~convert(workerpoolOrder.tag, uint256) == 0, "PocoBoost: Workerpool tag does not match demand"
    assert (tag ^ app_tag) & types.TAG_TEE == 0, "PocoBoost: App tag does not match demand"

    # Each names or admits the others; restrictions are mostly zero, so they are first looked at together.
    assert requestOrder.app == appOrder.app, "PocoBoost: App mismatch"
    assert requestOrder.dataset == datasetOrder.dataset, "PocoBoost: Dataset mismatch"
    if requestOrder.workerpool != workerpoolOrder.workerpool:
        assert orders._admits(
            requestOrder.workerpool, workerpoolOrder.workerpool
        ), "PocoBoost: Workerpool restricted by request order"
    if (
        convert(appOrder.datasetrestrict, uint256)
        | convert(appOrder.workerpoolrestrict, uint256)
        | convert(appOrder.requesterrestrict, uint256)
        | convert(datasetOrder.apprestrict, uint256)
        | convert(datasetOrder.workerpoolrestrict, uint256)
        | convert(datasetOrder.requesterrestrict, uint256)
        | convert(workerpoolOrder.apprestrict, uint256)
        | convert(workerpoolOrder.datasetrestrict, uint256)
        | convert(workerpoolOrder.requesterrestrict, uint256)
    ) != 0:
        self._expect_admitted(
            orders._refusing(
                appOrder.datasetrestrict, appOrder.workerpoolrestrict, appOrder.requesterrestrict,
                datasetOrder.apprestrict, datasetOrder.workerpoolrestrict, datasetOrder.requesterrestrict,
                workerpoolOrder.apprestrict, workerpoolOrder.datasetrestrict, workerpoolOrder.requesterrestrict,
                appOrder.app, datasetOrder.dataset, workerpoolOrder.workerpool, requestOrder.requester,
            )
        )

    # Each is registered and signed by its owner, and has volume left.
    domain: bytes32 = orders._domain()
    app: uint256 = settings.entries[appOrder.app]
    assert (app >> settings.KIND) & settings.KIND_MASK == settings.APP, "PocoBoost: App not registered"
    app_owner: address = convert(app & types.ADDRESS_MASK, address)
    app_hash: bytes32 = orders._digest(
        domain,
        orders._asset_struct(
            orders.APP_TYPE, appOrder.app, appOrder.appprice, appOrder.volume, appOrder.tag,
            appOrder.datasetrestrict, appOrder.workerpoolrestrict, appOrder.requesterrestrict, appOrder.salt,
        )
    )
    app_word: uint256 = orders.words[app_hash]
    assert orders._signed(
        app_owner, app_hash, appOrder.sign, True
    ), "PocoBoost: Invalid app order signature"
    volume: uint256 = unsafe_sub(appOrder.volume, app_word >> orders.USED)

    dataset_owner: address = empty(address)
    dataset_hash: bytes32 = empty(bytes32)
    dataset_word: uint256 = 0
    dataset_price: uint256 = 0
    if datasetOrder.dataset != empty(address):
        dataset: uint256 = settings.entries[datasetOrder.dataset]
        assert (
            (dataset >> settings.KIND) & settings.KIND_MASK == settings.DATASET
        ), "PocoBoost: Dataset not registered"
        dataset_owner = convert(dataset & types.ADDRESS_MASK, address)
        dataset_hash = orders._digest(
            domain,
            orders._asset_struct(
                orders.DATASET_TYPE, datasetOrder.dataset, datasetOrder.datasetprice, datasetOrder.volume,
                datasetOrder.tag, datasetOrder.apprestrict, datasetOrder.workerpoolrestrict,
                datasetOrder.requesterrestrict, datasetOrder.salt,
            )
        )
        dataset_word = orders.words[dataset_hash]
        assert orders._signed(
            dataset_owner, dataset_hash, datasetOrder.sign, True
        ), "PocoBoost: Invalid dataset order signature"
        dataset_price = datasetOrder.datasetprice
        volume = min(volume, unsafe_sub(datasetOrder.volume, dataset_word >> orders.USED))

    workerpool: uint256 = settings.entries[workerpoolOrder.workerpool]
    assert (
        (workerpool >> settings.KIND) & settings.KIND_MASK == settings.WORKERPOOL
    ), "PocoBoost: Workerpool not registered"
    scheduler: address = convert(workerpool & types.ADDRESS_MASK, address)
    workerpool_hash: bytes32 = orders._digest(
        domain,
        orders._workerpool_struct(
            workerpoolOrder.workerpool, workerpoolOrder.workerpoolprice, workerpoolOrder.volume,
            workerpoolOrder.tag, workerpoolOrder.category, workerpoolOrder.trust, workerpoolOrder.apprestrict,
            workerpoolOrder.datasetrestrict, workerpoolOrder.requesterrestrict, workerpoolOrder.salt,
        )
    )
    workerpool_word: uint256 = orders.words[workerpool_hash]
    assert orders._signed(
        scheduler, workerpool_hash, workerpoolOrder.sign, True
    ), "PocoBoost: Invalid workerpool order signature"
    volume = min(volume, unsafe_sub(workerpoolOrder.volume, workerpool_word >> orders.USED))

    request_hash: bytes32 = orders._digest(
        domain,
        orders._request_struct(
            requestOrder.app, requestOrder.appmaxprice, requestOrder.dataset, requestOrder.datasetmaxprice,
            requestOrder.workerpool, requestOrder.workerpoolmaxprice, requestOrder.requester,
            requestOrder.volume, requestOrder.tag, requestOrder.category, requestOrder.trust,
            requestOrder.beneficiary, requestOrder.callback, keccak256(requestOrder.params), requestOrder.salt,
        )
    )
    assert orders._signed(
        requestOrder.requester, request_hash, requestOrder.sign, True
    ), "PocoBoost: Invalid request order signature"
    assert orders._chosen(
        requestOrder.salt, requestOrder.requester, settings.TOKEN
    ), "PocoBoost: Request order chooses another matcher"
    first: uint256 = 0
    dealid: bytes32 = empty(bytes32)
    first, dealid = deals._next(request_hash)
    volume = min(volume, unsafe_sub(requestOrder.volume, first))
    assert (
        volume > 0 and (app_word | dataset_word | workerpool_word) >> orders.WIDE == 0
    ), "PocoBoost: One or more orders consumed"

    # What the official contracts keep in fewer bits, in their order. (A deadline fits into its 40: settings.vy bounds
    # time references.) Prices that the packing could not hold are above the supply: nobody could lock them.
    if (appOrder.appprice | dataset_price | workerpoolOrder.workerpoolprice) >= ledger.SUPPLY_LIMIT:
        self._expect_narrow(appOrder.appprice, PRICE_BITS)
        self._expect_narrow(workerpoolOrder.workerpoolprice, PRICE_BITS)
    if (first | volume) > deals.MASK_16:
        self._expect_narrow(first, VOLUME_BITS)
        self._expect_narrow(volume, VOLUME_BITS)
    if (appOrder.appprice | dataset_price | workerpoolOrder.workerpoolprice) >= ledger.SUPPLY_LIMIT:
        self._expect_narrow(dataset_price, PRICE_BITS)
        raise "IexecEscrow: Transfer amount exceeds balance"

    sponsor: address = deals.sponsor
    if sponsor == empty(address):
        sponsor = requestOrder.requester
    blobs.held = self._record(
        dealid,
        Terms(
            sponsor=sponsor,
            requester=requestOrder.requester,
            app_owner=app_owner,
            dataset_owner=dataset_owner,
            scheduler=scheduler,
            callback=requestOrder.callback,
            app_price=appOrder.appprice,
            dataset_price=dataset_price,
            workerpool_price=workerpoolOrder.workerpoolprice,
            deadline=unsafe_add(
                block.timestamp, unsafe_mul(unsafe_sub(clock, 1), types.CONTRIBUTION_DEADLINE_RATIO)
            ),
            first=first,
            size=volume,
            tag=tag & deals.MASK_24,
            scheduler_ratio=(workerpool >> settings.SCHEDULER_RATIO) & settings.SCHEDULER_RATIO_MASK,
        )
    )
    blobs._put(convert(convert(dealid, uint256) & deals.KEY_MASK, bytes32))
    use: uint256 = volume << orders.USED
    orders.words[app_hash] = unsafe_add(app_word, use)
    if dataset_hash != empty(bytes32):
        orders.words[dataset_hash] = unsafe_add(dataset_word, use)
    orders.words[workerpool_hash] = unsafe_add(workerpool_word, use)
    if volume != requestOrder.volume:
        orders.words[request_hash] = unsafe_add(orders.words[request_hash], use)

    # Lock the money. Prices are below 2**64 and the volume below 2**16.
    ledger._lock(
        sponsor,
        unsafe_mul(
            unsafe_add(unsafe_add(appOrder.appprice, dataset_price), workerpoolOrder.workerpoolprice), volume
        ),
    )
    ledger._lock(scheduler, unsafe_mul(settlement._scheduler_stake(workerpoolOrder.workerpoolprice), volume))
    log events.SchedulerNoticeBoost(
        workerpool=workerpoolOrder.workerpool,
        dealId=dealid,
        app=appOrder.app,
        dataset=datasetOrder.dataset,
        category=requestOrder.category,
        tag=convert(tag, bytes32),
        params=requestOrder.params,
        beneficiary=requestOrder.beneficiary,
    )
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
def sponsorMatchOrdersBoost(
    appOrder: types.AppOrder,
    datasetOrder: types.DatasetOrder,
    workerpoolOrder: types.WorkerpoolOrder,
    requestOrder: types.RequestOrder,
) -> bytes32:
    """
    @notice `matchOrdersBoost`, paid by the sender. Nothing can change state between the two lines that set the
            sponsor: all that a match calls are views.
    """
    deals.sponsor = msg.sender
    answer: Bytes[32] = raw_call(
        self,
        abi_encode(appOrder, datasetOrder, workerpoolOrder, requestOrder, method_id=MATCH_ORDERS_BOOST),
        max_outsize=32,
        is_delegate_call=True,
    )
    deals.sponsor = empty(address)
    dealid: bytes32 = convert(answer, bytes32)
    log events.DealSponsoredBoost(dealId=dealid, sponsor=msg.sender)
    return dealid


@internal
@pure
def _expect_admitted(refusing: uint256):
    """
    @param refusing What `orders._refusing` found.
    """
    assert refusing != 1, "PocoBoost: Dataset restricted by app order"
    assert refusing != 2, "PocoBoost: Workerpool restricted by app order"
    assert refusing != 3, "PocoBoost: Requester restricted by app order"
    assert refusing != 4, "PocoBoost: App restricted by dataset order"
    assert refusing != 5, "PocoBoost: Workerpool restricted by dataset order"
    assert refusing != 6, "PocoBoost: Requester restricted by dataset order"
    assert refusing != 7, "PocoBoost: App restricted by workerpool order"
    assert refusing != 8, "PocoBoost: Dataset restricted by workerpool order"
    assert refusing != 9, "PocoBoost: Requester restricted by workerpool order"


@internal
@pure
def _expect_narrow(number: uint256, bits: uint256):
    """
    @notice Refuse a number of more bits as the official contracts do.
    """
    if number >> bits != 0:
        raw_revert(abi_encode(bits, number, method_id=method_id("SafeCastOverflowedUintDowncast(uint8,uint256)")))


# ---- Tasks ---------------------------------------------------------------------------------------------------------

@external
def pushResultBoost(
    dealId: bytes32,
    index: uint256,
    results: Bytes[types.RESULT],
    resultsCallback: Bytes[types.RESULT],
    authorizationSign: Bytes[types.SIGNATURE],
    enclaveChallenge: address,
    enclaveSign: Bytes[types.SIGNATURE],
):
    deal: Terms = self._read(dealId)
    taskid: bytes32 = tasks._id(dealId, index)
    self._expect_unset(deal.size, index, taskid)
    assert block.timestamp < deal.deadline, "PocoBoost: Deadline reached"
    authoriser: address = deal.scheduler
    if enclaveChallenge == empty(address):
        assert deal.tag & types.TAG_TEE == 0, "PocoBoost: Tag requires enclave challenge"
    else:
        broker: address = settings._broker()
        if broker != empty(address):
            authoriser = broker
    authorised: bytes32 = tasks._authorisation(msg.sender, taskid, enclaveChallenge)
    assert orders._signed(
        authoriser, authorised, authorizationSign, False
    ), "PocoBoost: Invalid contribution authorization signature"
    if enclaveChallenge != empty(address):
        digest: bytes32 = empty(bytes32)
        if deal.callback == empty(address):
            digest = keccak256(results)
        else:
            digest = keccak256(resultsCallback)
        attested: bytes32 = keccak256(concat(tasks.PERSONAL, tasks._result_seal(msg.sender, taskid, digest)))
        assert orders._signed(
            enclaveChallenge, attested, enclaveSign, False
        ), "PocoBoost: Invalid enclave signature"

    tasks.words[taskid] = types.COMPLETED << tasks.STATUS
    ledger._seize(deal.sponsor, self._price(deal), taskid)
    reward: uint256 = settlement._worker_reward(deal.workerpool_price, deal.scheduler_ratio)
    ledger._reward(msg.sender, reward, taskid)
    if deal.app_price > 0:
        ledger._reward(deal.app_owner, deal.app_price, taskid)
    if deal.dataset_price > 0:
        ledger._reward(deal.dataset_owner, deal.dataset_price, taskid)
    stake: uint256 = settlement._scheduler_stake(deal.workerpool_price)
    ledger._unlock(deal.scheduler, stake)
    fee: uint256 = unsafe_add(unsafe_sub(deal.workerpool_price, reward), ledger._draw_kitty(stake, taskid, 1))
    ledger._reward(deal.scheduler, fee, taskid)
    log events.ResultPushedBoost(dealId=dealId, index=index, results=results)

    if deal.callback != empty(address):
        assert len(resultsCallback) > 0, "PocoBoost: Callback requires data"
        assert life._call_back(
            deal.callback, taskid, resultsCallback
        ), "PocoBoost: Not enough gas after callback"


@external
def claimBoost(dealId: bytes32, index: uint256):
    deal: Terms = self._read(dealId)
    taskid: bytes32 = tasks._id(dealId, index)
    self._expect_unset(deal.size, index, taskid)
    assert deal.deadline <= block.timestamp, "PocoBoost: Deadline not reached"
    tasks.words[taskid] = types.FAILED << tasks.STATUS
    settlement._give_back(
        deal.sponsor,
        self._price(deal),
        deal.scheduler,
        settlement._scheduler_stake(deal.workerpool_price),
        taskid,
    )
    log events.TaskClaimed(taskid=taskid)


@internal
@view
def _expect_unset(size: uint256, index: uint256, taskid: bytes32):
    assert index < size, "PocoBoost: Unknown task"
    assert tasks.words[taskid] == 0, "PocoBoost: Task status not unset"


@internal
@pure
def _price(deal: Terms) -> uint256:
    """
    @return Of one task, for the sponsor.
    """
    return unsafe_add(unsafe_add(deal.app_price, deal.dataset_price), deal.workerpool_price)


# ---- Views ---------------------------------------------------------------------------------------------------------

@external
@view
def viewDealBoost(id: bytes32) -> types.DealBoost:
    deal: Terms = self._read(id)
    return types.DealBoost(
        appOwner=deal.app_owner,
        appPrice=convert(deal.app_price, uint96),
        datasetOwner=deal.dataset_owner,
        datasetPrice=convert(deal.dataset_price, uint96),
        workerpoolOwner=deal.scheduler,
        workerpoolPrice=convert(deal.workerpool_price, uint96),
        requester=deal.requester,
        workerReward=convert(settlement._worker_reward(deal.workerpool_price, deal.scheduler_ratio), uint96),
        callback=deal.callback,
        deadline=convert(deal.deadline, uint40),
        botFirst=convert(deal.first, uint16),
        botSize=convert(deal.size, uint16),
        shortTag=convert(convert(deal.tag, uint24), bytes3),
        sponsor=deal.sponsor,
    )


# ---- The format: written and read here and nowhere else ------------------------------------------------------------

@internal
@pure
def _record(dealid: bytes32, deal: Terms) -> Bytes[FIXED + RARE]:
    flags: uint256 = deals.BOOST
    dataset: Bytes[DATASET_PART] = b""
    callback: Bytes[ADDRESS_PART] = b""
    requester: Bytes[ADDRESS_PART] = b""
    if deal.dataset_owner != empty(address):
        flags |= DATASET
        dataset = slice(
            convert((deal.dataset_price << 192) | (convert(deal.dataset_owner, uint256) << 32), bytes32),
            0,
            DATASET_PART,
        )
    if deal.callback != empty(address):
        flags |= CALLBACK
        callback = concat(convert(deal.callback, bytes20), b"")
    if deal.requester != deal.sponsor:
        flags |= REQUESTER
        requester = concat(convert(deal.requester, bytes20), b"")
    return concat(
        convert(
            (flags << 248) | (deal.first << 232) | (deal.size << 216) | (deal.deadline << 176) | (deal.tag << 152)
            | (deal.scheduler_ratio << 144) | ((convert(dealid, uint256) >> deals.KEY_BITS) << 64) | deal.app_price,
            bytes32,
        ),
        convert(convert(deal.workerpool_price, uint64), bytes8),
        convert(deal.app_owner, bytes20),
        convert(deal.scheduler, bytes20),
        convert(deal.sponsor, bytes20),
        dataset,
        callback,
        requester,
    )


@internal
@view
def _read(dealid: bytes32) -> Terms:
    """
    @return The boost deal of exactly this id, or nothing.
    """
    place: address = blobs._at(convert(convert(dealid, uint256) & deals.KEY_MASK, bytes32))
    if place.codesize < FIXED:
        return empty(Terms)
    code: Bytes[FIXED] = slice(place.code, 0, FIXED)
    head: uint256 = convert(extract32(code, 0), uint256)
    flags: uint256 = head >> 248
    if flags < deals.BOOST or (head >> 64) & deals.MASK_80 != convert(dealid, uint256) >> deals.KEY_BITS:
        return empty(Terms)
    second: uint256 = convert(extract32(code, 32), uint256)
    sponsor: address = convert(convert(extract32(code, 68), uint256) & types.ADDRESS_MASK, address)
    requester: address = sponsor
    dataset_price: uint256 = 0
    dataset_owner: address = empty(address)
    callback: address = empty(address)
    if flags != deals.BOOST:
        # Each part is read with the 32 bytes that end with it: the fixed part precedes them all.
        end: uint256 = FIXED
        if flags & DATASET != 0:
            end += DATASET_PART
            part: uint256 = deals._word(place, end)
            dataset_price = (part >> 160) & deals.MASK_64
            dataset_owner = convert(part & types.ADDRESS_MASK, address)
        if flags & CALLBACK != 0:
            end += ADDRESS_PART
            callback = convert(deals._word(place, end) & types.ADDRESS_MASK, address)
        if flags & REQUESTER != 0:
            end += ADDRESS_PART
            requester = convert(deals._word(place, end) & types.ADDRESS_MASK, address)
    return Terms(
        sponsor=sponsor,
        requester=requester,
        app_owner=convert((second >> 32) & types.ADDRESS_MASK, address),
        dataset_owner=dataset_owner,
        scheduler=convert(convert(extract32(code, 48), uint256) & types.ADDRESS_MASK, address),
        callback=callback,
        app_price=head & deals.MASK_64,
        dataset_price=dataset_price,
        workerpool_price=second >> 192,
        deadline=(head >> 176) & MASK_40,
        first=(head >> 232) & deals.MASK_16,
        size=(head >> 216) & deals.MASK_16,
        tag=(head >> 152) & deals.MASK_24,
        scheduler_ratio=(head >> 144) & deals.MASK_8,
    )
