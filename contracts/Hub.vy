# pragma version 0.4.3
# pragma optimize gas
"""
@title Hub: matching orders, the life of tasks, and the escrow
@license Apache-2.0
@notice The one address of the protocol. This contract holds what every deal runs through; calls that it does not know
        are delegated to HubAdmin (rare changes), which delegates those it does not know to HubViews (reads). All
        three initialise the same modules in the same order, so they share one storage layout (the build checks it).

        exports:
          deals   matchOrders
          tasks   initialize initializeArray contribute reveal finalize contributeAndFinalize
          escrow  deposit withdraw
          and, by delegation, everything in HubAdmin and HubViews

        modules:
          settings    the owner's decisions, categories, mirror of the registries
          ledger      balances, locks, the kitty
          blobs       bytes kept as code
          orders      EIP-712 hashes, signatures, restrictions, used volumes
          deals       the record of a match
          tasks       the record of a task
          settlement  who gets what
@dev Deployment, from one account, nonces n, n+1, ... (any order will do as long as the hub's address is known):

       n    Rlc(...), or any ERC-20 as base token
       n+1  HubViews(hub, token)
       n+2  HubAdmin(hub, token, views)
       n+3  AppRegistry(hub, creation code of App)      registries push their entries into the hub: each is told
       n+4  DatasetRegistry(hub, creation code of Dataset)                       its address, nobody asks them
       n+5  WorkerpoolRegistry(hub, creation code of Workerpool)
       n+6  Hub(token, admin, appregistry, datasetregistry, workerpoolregistry, categories)
       then, if wanted, setTeeBroker(quorum), and createCategory(...) for categories that come later

     `hub` is the address that the deployer's nonce n+6 will have: keccak256(rlp([deployer, nonce]))[12:].
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


interface Owned:
    def owner() -> address: view


# Bound of a delegated call's answer. The longest is viewApp with every text at its bound, below 7000 bytes.
ANSWER: constant(uint256) = 16384

# Gas of a callback until the owner sets another.
CALLBACK_GAS: constant(uint256) = 100000

# Solidity's Panic(uint256) codes.
PANIC_ASSERT: constant(uint256) = 1
PANIC_OVERFLOW: constant(uint256) = 17

# Selector of a callback's receiveResult(bytes32,bytes).
RECEIVE_RESULT: constant(bytes4) = method_id("receiveResult(bytes32,bytes)", output_type=bytes4)

# Where calls that this contract does not know are delegated to.
ADMIN: immutable(address)


@deploy
def __init__(
    token: address,
    admin: address,
    appregistry: address,
    datasetregistry: address,
    workerpoolregistry: address,
    categories: DynArray[types.Category, settings.EARLY_CATEGORIES],
):
    clocks: uint256 = 0
    for i: uint256 in range(len(categories), bound=settings.EARLY_CATEGORIES):
        clocks |= (categories[i].workClockTimeRef + 1) << (32 * i)
    settings.__init__(token, clocks)
    orders.__init__(self)
    ADMIN = admin
    settings.owner = msg.sender
    settings._set_registries(appregistry, datasetregistry, workerpoolregistry)
    settings._set_callback_gas(CALLBACK_GAS)
    log events.OwnershipTransferred(previousOwner=empty(address), newOwner=msg.sender)
    for category: types.Category in categories:
        settings._create_category(category)


@external
@payable
@raw_return
def __default__() -> Bytes[ANSWER]:
    # No calldata: a blob in the making asks for its bytes (blobs.vy). In any other transaction, or with ether: refused.
    if len(msg.data) == 0:
        assert len(blobs.held) != 0 and msg.value == 0, "fallback-disabled"
        return blobs.held
    return raw_call(ADMIN, msg.data, max_outsize=ANSWER, is_delegate_call=True)


# ---- Deals ---------------------------------------------------------------------------------------------------------

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
        self._mismatch("00")
    if settings._clock(_requestorder.category) == 0:
        self._mismatch("01")
    if _requestorder.trust > _workerpoolorder.trust:
        self._mismatch("02")
    if _requestorder.appmaxprice < _apporder.appprice:
        self._mismatch("03")
    if _requestorder.datasetmaxprice < _datasetorder.datasetprice:
        self._mismatch("04")
    if _requestorder.workerpoolmaxprice < _workerpoolorder.workerpoolprice:
        self._mismatch("05")
    app_tag: uint256 = convert(_apporder.tag, uint256)
    tag: uint256 = (
        app_tag | (convert(_datasetorder.tag, uint256) & ~types.TAG_FRAMEWORKS) | convert(_requestorder.tag, uint256)
    )
    if tag & ~convert(_workerpoolorder.tag, uint256) != 0:
        self._mismatch("06")
    if (tag ^ app_tag) & types.TAG_TEE != 0:
        self._mismatch("07")

    # Each names or admits the others; restrictions are mostly zero, so they are first looked at together.
    if _requestorder.app != _apporder.app:
        self._mismatch("10")
    if _requestorder.dataset != _datasetorder.dataset:
        self._mismatch("11")
    if (
        convert(_requestorder.workerpool, uint256)
        | convert(_apporder.datasetrestrict, uint256)
        | convert(_apporder.workerpoolrestrict, uint256)
        | convert(_apporder.requesterrestrict, uint256)
        | convert(_datasetorder.apprestrict, uint256)
        | convert(_datasetorder.workerpoolrestrict, uint256)
        | convert(_datasetorder.requesterrestrict, uint256)
        | convert(_workerpoolorder.apprestrict, uint256)
        | convert(_workerpoolorder.datasetrestrict, uint256)
        | convert(_workerpoolorder.requesterrestrict, uint256)
    ) != 0:
        self._admit(_requestorder.workerpool, _workerpoolorder.workerpool, "12")
        self._admit(_apporder.datasetrestrict, _datasetorder.dataset, "13")
        self._admit(_apporder.workerpoolrestrict, _workerpoolorder.workerpool, "14")
        self._admit(_apporder.requesterrestrict, _requestorder.requester, "15")
        self._admit(_datasetorder.apprestrict, _apporder.app, "16")
        self._admit(_datasetorder.workerpoolrestrict, _workerpoolorder.workerpool, "17")
        self._admit(_datasetorder.requesterrestrict, _requestorder.requester, "18")
        self._admit(_workerpoolorder.apprestrict, _apporder.app, "19")
        self._admit(_workerpoolorder.datasetrestrict, _datasetorder.dataset, "1a")
        self._admit(_workerpoolorder.requesterrestrict, _requestorder.requester, "1b")

    # Each is registered and signed by its owner, and has volume left.
    domain: bytes32 = orders._domain()
    app: uint256 = settings.entries[_apporder.app]
    if (app >> settings.KIND) & settings.KIND_MASK != settings.APP:
        self._unregistered(_apporder.app, "20")
    app_owner: address = convert(app & types.ADDRESS_MASK, address)
    app_hash: bytes32 = orders._digest(
        domain,
        orders._asset_struct(
            orders.APP_TYPE, _apporder.app, _apporder.appprice, _apporder.volume, _apporder.tag,
            _apporder.datasetrestrict, _apporder.workerpoolrestrict, _apporder.requesterrestrict, _apporder.salt,
        )
    )
    if not orders._recovers(app_owner, app_hash, _apporder.sign):
        if not orders._consents(app_owner, app_hash, _apporder.sign, True):
            self._mismatch("21")
    app_used: uint256 = orders.consumed[app_hash]
    volume: uint256 = unsafe_sub(_apporder.volume, app_used)

    dataset: uint256 = 0
    dataset_owner: address = empty(address)
    dataset_hash: bytes32 = empty(bytes32)
    dataset_used: uint256 = 0
    dataset_price: uint256 = 0
    if _datasetorder.dataset != empty(address):
        dataset = settings.entries[_datasetorder.dataset]
        if (dataset >> settings.KIND) & settings.KIND_MASK != settings.DATASET:
            self._unregistered(_datasetorder.dataset, "30")
        dataset_owner = convert(dataset & types.ADDRESS_MASK, address)
        dataset_hash = orders._digest(
            domain,
            orders._asset_struct(
                orders.DATASET_TYPE, _datasetorder.dataset, _datasetorder.datasetprice, _datasetorder.volume,
                _datasetorder.tag, _datasetorder.apprestrict, _datasetorder.workerpoolrestrict,
                _datasetorder.requesterrestrict, _datasetorder.salt,
            )
        )
        if not orders._recovers(dataset_owner, dataset_hash, _datasetorder.sign):
            if not orders._consents(dataset_owner, dataset_hash, _datasetorder.sign, True):
                self._mismatch("31")
        dataset_price = _datasetorder.datasetprice
        dataset_used = orders.consumed[dataset_hash]
        volume = min(volume, unsafe_sub(_datasetorder.volume, dataset_used))

    workerpool: uint256 = settings.entries[_workerpoolorder.workerpool]
    if (workerpool >> settings.KIND) & settings.KIND_MASK != settings.WORKERPOOL:
        self._unregistered(_workerpoolorder.workerpool, "40")
    workerpool_owner: address = convert(workerpool & types.ADDRESS_MASK, address)
    workerpool_hash: bytes32 = orders._digest(
        domain,
        orders._workerpool_struct(
            _workerpoolorder.workerpool, _workerpoolorder.workerpoolprice, _workerpoolorder.volume,
            _workerpoolorder.tag, _workerpoolorder.category, _workerpoolorder.trust, _workerpoolorder.apprestrict,
            _workerpoolorder.datasetrestrict, _workerpoolorder.requesterrestrict, _workerpoolorder.salt,
        )
    )
    if not orders._recovers(workerpool_owner, workerpool_hash, _workerpoolorder.sign):
        if not orders._consents(workerpool_owner, workerpool_hash, _workerpoolorder.sign, True):
            self._mismatch("41")
    workerpool_used: uint256 = orders.consumed[workerpool_hash]
    volume = min(volume, unsafe_sub(_workerpoolorder.volume, workerpool_used))

    request_hash: bytes32 = orders._digest(
        domain,
        orders._request_struct(
            _requestorder.app, _requestorder.appmaxprice, _requestorder.dataset, _requestorder.datasetmaxprice,
            _requestorder.workerpool, _requestorder.workerpoolmaxprice, _requestorder.requester,
            _requestorder.volume, _requestorder.tag, _requestorder.category, _requestorder.trust,
            _requestorder.beneficiary, _requestorder.callback, keccak256(_requestorder.params), _requestorder.salt,
        )
    )
    if not orders._recovers(_requestorder.requester, request_hash, _requestorder.sign):
        if not orders._consents(_requestorder.requester, request_hash, _requestorder.sign, True):
            self._mismatch("50")
    first: uint256 = 0
    dealid: bytes32 = empty(bytes32)
    first, dealid = deals._next(request_hash)
    volume = min(volume, unsafe_sub(_requestorder.volume, first))
    if volume == 0:
        self._mismatch("60")

    # Record the deal. Prices that the packing could not hold are above the supply: nobody could lock them.
    if (_apporder.appprice | dataset_price | _workerpoolorder.workerpoolprice) >= ledger.SUPPLY_LIMIT:
        self._unpayable(
            _apporder.appprice,
            dataset_price,
            _workerpoolorder.workerpoolprice,
            volume,
            (workerpool >> settings.STAKE_RATIO) & settings.STAKE_RATIO_MASK,
        )
    assert unsafe_add(first, volume) < deals.VOLUME_LIMIT, "deals: volume above 2**24"
    assert _requestorder.trust < deals.TRUST_LIMIT, "deals: trust above 2**32"
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
    blobs.held = concat(deals._head(deal), convert(_requestorder.params, Bytes[types.PARAMS]))
    blobs._put(convert(convert(dealid, uint256) & deals.KEY_MASK, bytes32))
    orders.consumed[app_hash] = unsafe_add(app_used, volume)
    if dataset != 0:
        orders.consumed[dataset_hash] = unsafe_add(dataset_used, volume)
    orders.consumed[workerpool_hash] = unsafe_add(workerpool_used, volume)
    if volume != _requestorder.volume:
        orders.consumed[request_hash] = unsafe_add(first, volume)

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


@internal
@view
def _unregistered(asset: address, code: String[2]):
    """
    @notice Refuse an asset that its registry does not know. First it is asked for its owner, which reverts without data
            where there is none, because the official contracts look in this order.
    """
    owner: address = staticcall Owned(asset).owner()
    self._mismatch(code)


@internal
@view
def _admit(restriction: address, account: address, code: String[2]):
    if not orders._admits(restriction, account):
        self._mismatch(code)


@internal
@pure
def _mismatch(code: String[2]):
    raise concat("iExecV5-matchOrders-0x", code)


@internal
@pure
def _unpayable(app_price: uint256, dataset_price: uint256, workerpool_price: uint256, volume: uint256, ratio: uint256):
    """
    @notice Refuse a price above the supply as the official arithmetic would: by overflow if it overflows, in its order.
    """
    if workerpool_price > max_value(uint256) // max(ratio, 1):
        self._panic(PANIC_OVERFLOW)
    price: uint256 = unsafe_add(app_price, dataset_price)
    if price < app_price or unsafe_add(price, workerpool_price) < price:
        self._panic(PANIC_OVERFLOW)
    if unsafe_add(price, workerpool_price) > max_value(uint256) // volume:
        self._panic(PANIC_OVERFLOW)
    raise "IexecEscrow: Transfer amount exceeds balance"


@internal
@pure
def _panic(code: uint256):
    raw_revert(abi_encode(code, method_id=method_id("Panic(uint256)")))


# ---- Tasks ---------------------------------------------------------------------------------------------------------

@external
def initialize(_dealid: bytes32, idx: uint256) -> bytes32:
    return tasks._begin(_dealid, idx)


@external
def initializeArray(_dealid: DynArray[bytes32, types.BATCH], _idx: DynArray[uint256, types.BATCH]) -> bool:
    assert len(_dealid) == len(_idx)
    for i: uint256 in range(len(_dealid), bound=types.BATCH):
        tasks._begin(_dealid[i], _idx[i])
    return True


@external
def contribute(
    _taskid: bytes32,
    _resultHash: bytes32,
    _resultSeal: bytes32,
    _enclaveChallenge: address,
    _enclaveSign: Bytes[types.SIGNATURE],
    _authorizationSign: Bytes[types.SIGNATURE],
):
    word: uint256 = tasks.words[_taskid]
    assert tasks._status(word) == types.ACTIVE
    deal: deals.Terms = deals._read(tasks._deal(word))
    timeref: uint256 = settings._timeref(deal.category)
    assert block.timestamp < unsafe_add(deal.start, unsafe_mul(timeref, types.CONTRIBUTION_DEADLINE_RATIO))
    count: uint256 = tasks._count(word)
    assert count < types.CONTRIBUTORS, "tasks: too many contributors"
    for place: uint256 in range(count, bound=types.CONTRIBUTORS):
        assert tasks._read_contribution(_taskid, place).worker != msg.sender
    authoriser: address = self._authoriser(deal.workerpool, deal.tag, _enclaveChallenge)
    authorised: bytes32 = tasks._authorisation(msg.sender, _taskid, _enclaveChallenge)
    if not orders._recovers(authoriser, authorised, _authorizationSign):
        assert orders._consents(authoriser, authorised, _authorizationSign, False)
    if _enclaveChallenge != empty(address):
        attested: bytes32 = tasks._attested(_resultHash, _resultSeal)
        if not orders._recovers(_enclaveChallenge, attested, _enclaveSign):
            assert orders._consents(_enclaveChallenge, attested, _enclaveSign, False)

    weight: uint256 = max(ledger._score(msg.sender) // 3, 3) - 1
    tasks._write_contribution(
        _taskid, count, self._log2(weight), msg.sender, _resultHash, _resultSeal, _enclaveChallenge
    )
    ledger._lock(msg.sender, settlement._worker_stake(deal))
    log events.TaskContribute(taskid=_taskid, worker=msg.sender, hash=_resultHash)

    winners: uint256 = 1
    consensus: bool = True
    if deal.trust > 1:
        consensus = tasks._weigh(_taskid, count, _resultHash, weight, deal.trust)
        if consensus:
            marks: uint256 = tasks.marks[_taskid]
            for place: uint256 in range(count, bound=types.CONTRIBUTORS):
                if (
                    tasks._mark(marks, place) == tasks.CONTRIBUTED
                    and tasks._read_contribution(_taskid, place).hash == _resultHash
                ):
                    winners += 1
    elif count > 0:
        # After a reopening.
        tasks._lead(_taskid, count)
    word += 1 << tasks.CONTRIBUTORS
    if consensus:
        word = (
            tasks._with_status(word, types.REVEALING)
            | (winners << tasks.WINNERS)
            | (unsafe_add(block.timestamp, unsafe_mul(timeref, types.REVEAL_DEADLINE_RATIO)) << tasks.DEADLINE)
        )
        log events.TaskConsensus(taskid=_taskid, consensus=_resultHash)
    tasks.words[_taskid] = word


@external
def reveal(_taskid: bytes32, _resultDigest: bytes32):
    word: uint256 = tasks.words[_taskid]
    assert tasks._status(word) == types.REVEALING
    assert block.timestamp < word >> tasks.DEADLINE
    hash: bytes32 = tasks._result_hash(_taskid, _resultDigest)
    seal: bytes32 = tasks._result_seal(msg.sender, _taskid, _resultDigest)
    count: uint256 = tasks._count(word)
    if count == 1:
        # The only contributor, and so the winner. That it revealed is told by the counter.
        entry: tasks.Entry = tasks._read_contribution(_taskid, 0)
        assert (word >> tasks.REVEALS) & tasks.COUNT_MASK == 0
        assert entry.worker == msg.sender and entry.hash == hash and entry.seal == seal
    else:
        assert tasks._read_contribution(_taskid, tasks._winner(_taskid)).hash == hash
        marks: uint256 = tasks.marks[_taskid]
        found: bool = False
        for place: uint256 in range(count, bound=types.CONTRIBUTORS):
            entry: tasks.Entry = tasks._read_contribution(_taskid, place)
            if entry.worker == msg.sender:
                assert tasks._mark(marks, place) == tasks.CONTRIBUTED
                assert entry.hash == hash and entry.seal == seal
                tasks.marks[_taskid] = tasks._marked(marks, place, tasks.PROVED)
                found = True
                break
        assert found
    tasks.words[_taskid] = word + (1 << tasks.REVEALS)
    tasks.digests[_taskid] = _resultDigest
    log events.TaskReveal(taskid=_taskid, worker=msg.sender, digest=_resultDigest)


@external
def finalize(_taskid: bytes32, _results: Bytes[types.RESULT], _resultsCallback: Bytes[types.RESULT]):
    word: uint256 = tasks.words[_taskid]
    assert tasks._status(word) == types.REVEALING
    deal: deals.Terms = deals._read(tasks._deal(word))
    scheduler: address = settings.owners[deal.workerpool]
    assert msg.sender == scheduler
    assert block.timestamp < deal.start + settings._timeref(deal.category) * types.FINAL_DEADLINE_RATIO
    reveals: uint256 = (word >> tasks.REVEALS) & tasks.COUNT_MASK
    assert reveals == (word >> tasks.WINNERS) & tasks.COUNT_MASK or (
        reveals > 0 and word >> tasks.DEADLINE <= block.timestamp
    )
    if deal.callback != empty(address) or len(_resultsCallback) != 0:
        assert keccak256(_resultsCallback) == tasks.digests[_taskid]

    start: uint256 = 0
    length: uint256 = 0
    start, length = tasks._kept(_results)
    blobs.held = concat(
        tasks._result_head(start, length, len(_resultsCallback)), slice(_results, start, length), _resultsCallback
    )
    blobs._put(_taskid)
    tasks.words[_taskid] = tasks._with_status(word, types.COMPLETED)
    settlement._pay_resources(deal, scheduler, _taskid)
    count: uint256 = tasks._count(word)
    if count == 1:
        worker: address = tasks._read_contribution(_taskid, 0).worker
        ledger._unlock(worker, settlement._worker_stake(deal))
        settlement._pay_worker(deal.workerpool_price, deal.scheduler_ratio, scheduler, worker, _taskid)
    else:
        settlement._pay_workers(deal, scheduler, _taskid, count)
    log events.TaskFinalize(taskid=_taskid, results=_results)
    if deal.callback != empty(address):
        limit: uint256 = settings._callback_gas()
        success: bool = raw_call(
            deal.callback,
            abi_encode(_taskid, _resultsCallback, method_id=RECEIVE_RESULT),
            gas=limit,
            revert_on_failure=False,
        )
        self._check_callback(success, limit)


@external
def contributeAndFinalize(
    _taskid: bytes32,
    _resultDigest: bytes32,
    _results: Bytes[types.RESULT],
    _resultsCallback: Bytes[types.RESULT],
    _enclaveChallenge: address,
    _enclaveSign: Bytes[types.SIGNATURE],
    _authorizationSign: Bytes[types.SIGNATURE],
):
    word: uint256 = tasks.words[_taskid]
    # Active, and without a contribution.
    assert word >> tasks.STATUS == types.ACTIVE
    deal: deals.Terms = deals._read(word & deals.KEY_MASK)
    timeref: uint256 = settings._timeref(deal.category)
    assert block.timestamp < unsafe_add(deal.start, unsafe_mul(timeref, types.CONTRIBUTION_DEADLINE_RATIO))
    assert deal.trust == 1
    if deal.callback != empty(address) or len(_resultsCallback) != 0:
        assert keccak256(_resultsCallback) == _resultDigest
    hash: bytes32 = tasks._result_hash(_taskid, _resultDigest)
    authoriser: address = self._authoriser(deal.workerpool, deal.tag, _enclaveChallenge)
    authorised: bytes32 = tasks._authorisation(msg.sender, _taskid, _enclaveChallenge)
    if not orders._recovers(authoriser, authorised, _authorizationSign):
        assert orders._consents(authoriser, authorised, _authorizationSign, False)
    if _enclaveChallenge != empty(address):
        seal: bytes32 = tasks._result_seal(msg.sender, _taskid, _resultDigest)
        attested: bytes32 = tasks._attested(hash, seal)
        if not orders._recovers(_enclaveChallenge, attested, _enclaveSign):
            assert orders._consents(_enclaveChallenge, attested, _enclaveSign, False)

    start: uint256 = 0
    length: uint256 = 0
    start, length = tasks._kept(_results)
    blobs.held = concat(
        tasks._direct_head(start, length, len(_resultsCallback), msg.sender, _enclaveChallenge, _resultDigest),
        slice(_results, start, length),
        _resultsCallback,
    )
    blobs._put(_taskid)
    # One contributor, who won and revealed.
    tasks.words[_taskid] = (
        (word & (2**tasks.STATUS - 1))
        | (types.COMPLETED << tasks.STATUS)
        | (1 << tasks.CONTRIBUTORS)
        | (1 << tasks.WINNERS)
        | (1 << tasks.REVEALS)
        | (unsafe_add(block.timestamp, unsafe_mul(timeref, types.REVEAL_DEADLINE_RATIO)) << tasks.DEADLINE)
    )
    scheduler: address = settings.owners[deal.workerpool]
    settlement._pay_resources(deal, scheduler, _taskid)
    settlement._pay_worker(deal.workerpool_price, deal.scheduler_ratio, scheduler, msg.sender, _taskid)
    log events.TaskContribute(taskid=_taskid, worker=msg.sender, hash=hash)
    log events.TaskConsensus(taskid=_taskid, consensus=hash)
    log events.TaskReveal(taskid=_taskid, worker=msg.sender, digest=_resultDigest)
    log events.TaskFinalize(taskid=_taskid, results=_results)
    if deal.callback != empty(address):
        limit: uint256 = settings._callback_gas()
        success: bool = raw_call(
            deal.callback,
            abi_encode(_taskid, _resultsCallback, method_id=RECEIVE_RESULT),
            gas=limit,
            revert_on_failure=False,
        )
        self._check_callback(success, limit)


@internal
@view
def _authoriser(workerpool: uint256, tag: uint256, enclave: address) -> address:
    """
    @notice Who has to authorise a contribution: the scheduler, or, for one from an enclave, the TEE broker if there is
            one. Reverts without data if the deal asks for an enclave and there is none.
    """
    if enclave == empty(address):
        assert tag & types.TAG_TEE == 0
    else:
        broker: address = settings._broker()
        if broker != empty(address):
            return broker
    return settings.owners[workerpool]


@internal
@pure
def _log2(number: uint256) -> uint256:
    power: uint256 = 0
    for i: uint256 in range(128):
        if number >> (power + 1) == 0:
            break
        power += 1
    return power


@internal
@view
def _check_callback(success: bool, limit: uint256):
    """
    @notice Whether a callback succeeds is its own affair, but it must have had its gas.
    """
    if msg.gas <= limit // 63:
        self._panic(PANIC_ASSERT)


# ---- Escrow --------------------------------------------------------------------------------------------------------

@external
def deposit(amount: uint256) -> bool:
    assert extcall Token(settings.TOKEN).transferFrom(msg.sender, self, amount), "failled-transferFrom"
    ledger._mint(msg.sender, amount)
    return True


@external
def withdraw(amount: uint256) -> bool:
    ledger._burn(msg.sender, amount)
    extcall Token(settings.TOKEN).transfer(msg.sender, amount)
    return True
