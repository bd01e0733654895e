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
          tasks   initialize initializeArray initializeAndClaimArray contribute reveal finalize contributeAndFinalize
                  claim claimArray
          escrow  deposit depositFor withdraw withdrawTo
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
       n+6  Hub(token, admin, appregistry, datasetregistry, workerpoolregistry)
       then createCategory(...) for each category and, if wanted, setTeeBroker(quorum)

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
initializes: tasks[blobs := blobs]
initializes: settlement[ledger := ledger, tasks := tasks]


interface Token:
    def transferFrom(source: address, to: address, amount: uint256) -> bool: nonpayable
    def transfer(to: address, amount: uint256) -> bool: nonpayable


interface Owned:
    def owner() -> address: view


# Longest answer of a delegated call: viewTask with everything at its bound.
ANSWER: constant(uint256) = 16384

# Gas of a callback until the owner sets another.
CALLBACK_GAS: constant(uint256) = 100000

# Solidity's Panic(uint256) codes.
PANIC_ASSERT: constant(uint256) = 1
PANIC_OVERFLOW: constant(uint256) = 17

# Where calls that this contract does not know are delegated to.
ADMIN: immutable(address)


@deploy
def __init__(
    token: address, admin: address, appregistry: address, datasetregistry: address, workerpoolregistry: address
):
    settings.__init__(token)
    orders.__init__(self)
    ADMIN = admin
    settings.owner = msg.sender
    settings._set_registries(appregistry, datasetregistry, workerpoolregistry)
    settings._set_callback_gas(CALLBACK_GAS)
    log events.OwnershipTransferred(previousOwner=empty(address), newOwner=msg.sender)


@external
@payable
@raw_return
def __default__() -> Bytes[ANSWER]:
    if len(msg.data) == 0:
        return blobs._served()
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
    clock: uint256 = settings.clocks[_requestorder.category]
    if clock == 0:
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

    # Each names or admits the others.
    if _requestorder.app != _apporder.app:
        self._mismatch("10")
    if _requestorder.dataset != _datasetorder.dataset:
        self._mismatch("11")
    if not orders._admits(_requestorder.workerpool, _workerpoolorder.workerpool):
        self._mismatch("12")
    if not orders._admits(_apporder.datasetrestrict, _datasetorder.dataset):
        self._mismatch("13")
    if not orders._admits(_apporder.workerpoolrestrict, _workerpoolorder.workerpool):
        self._mismatch("14")
    if not orders._admits(_apporder.requesterrestrict, _requestorder.requester):
        self._mismatch("15")
    if not orders._admits(_datasetorder.apprestrict, _apporder.app):
        self._mismatch("16")
    if not orders._admits(_datasetorder.workerpoolrestrict, _workerpoolorder.workerpool):
        self._mismatch("17")
    if not orders._admits(_datasetorder.requesterrestrict, _requestorder.requester):
        self._mismatch("18")
    if not orders._admits(_workerpoolorder.apprestrict, _apporder.app):
        self._mismatch("19")
    if not orders._admits(_workerpoolorder.datasetrestrict, _datasetorder.dataset):
        self._mismatch("1a")
    if not orders._admits(_workerpoolorder.requesterrestrict, _requestorder.requester):
        self._mismatch("1b")

    # Each is registered and signed by its owner, and has volume left.
    app: uint256 = self._entry(_apporder.app, settings.APP, "20")
    app_hash: bytes32 = orders._digest(orders._app_struct(_apporder))
    if not orders._authentic(settings._owner(app), app_hash, _apporder.sign):
        self._mismatch("21")
    app_used: uint256 = orders.consumed[app_hash]
    volume: uint256 = _apporder.volume - app_used

    dataset: uint256 = 0
    dataset_hash: bytes32 = empty(bytes32)
    dataset_used: uint256 = 0
    dataset_price: uint256 = 0
    if _datasetorder.dataset != empty(address):
        dataset = self._entry(_datasetorder.dataset, settings.DATASET, "30")
        dataset_hash = orders._digest(orders._dataset_struct(_datasetorder))
        if not orders._authentic(settings._owner(dataset), dataset_hash, _datasetorder.sign):
            self._mismatch("31")
        dataset_used = orders.consumed[dataset_hash]
        dataset_price = _datasetorder.datasetprice
        volume = min(volume, _datasetorder.volume - dataset_used)

    workerpool: uint256 = self._entry(_workerpoolorder.workerpool, settings.WORKERPOOL, "40")
    workerpool_hash: bytes32 = orders._digest(orders._workerpool_struct(_workerpoolorder))
    if not orders._authentic(settings._owner(workerpool), workerpool_hash, _workerpoolorder.sign):
        self._mismatch("41")
    workerpool_used: uint256 = orders.consumed[workerpool_hash]
    volume = min(volume, _workerpoolorder.volume - workerpool_used)

    request_hash: bytes32 = orders._digest(orders._request_struct(_requestorder))
    if not orders._authentic(_requestorder.requester, request_hash, _requestorder.sign):
        self._mismatch("50")
    first: uint256 = orders.consumed[request_hash]
    volume = min(volume, _requestorder.volume - first)
    dealid: bytes32 = deals._id(request_hash, first)
    # A request used up by its first deal shows it by that deal only.
    if volume == 0 or (first == 0 and blobs._at(dealid).is_contract):
        self._mismatch("60")

    # Record the deal. Prices that the packing could not hold are above the supply: nobody could lock them.
    if (_apporder.appprice | dataset_price | _workerpoolorder.workerpoolprice) >= ledger.SUPPLY_LIMIT:
        self._unpayable(
            _apporder.appprice, dataset_price, _workerpoolorder.workerpoolprice, volume, settings._stake_ratio(workerpool)
        )
    assert first + volume <= deals.VOLUME_LIMIT, "deals: volume above 2**32"
    assert _requestorder.trust < deals.TRUST_LIMIT, "deals: trust above 2**32"
    sponsor: address = deals.sponsor
    if sponsor == empty(address):
        sponsor = _requestorder.requester
    blobs.body = convert(_requestorder.params, Bytes[types.PARAMS])
    deals._write(
        deals.Terms(
            dealid=dealid,
            app=settings._index(app),
            app_owner=settings._owner(app),
            app_price=_apporder.appprice,
            dataset=settings._index(dataset),
            dataset_owner=settings._owner(dataset),
            dataset_price=dataset_price,
            workerpool=_workerpoolorder.workerpool,
            workerpool_owner=settings._owner(workerpool),
            workerpool_price=_workerpoolorder.workerpoolprice,
            requester=_requestorder.requester,
            sponsor=sponsor,
            beneficiary=_requestorder.beneficiary,
            callback=_requestorder.callback,
            tag=tag,
            trust=max(_requestorder.trust, 1),
            category=_requestorder.category,
            timeref=clock - 1,
            start=block.timestamp,
            first=first,
            size=volume,
            stake_ratio=settings._stake_ratio(workerpool),
            scheduler_ratio=settings._scheduler_ratio(workerpool),
        )
    )
    orders.consumed[app_hash] = app_used + volume
    if dataset != 0:
        orders.consumed[dataset_hash] = dataset_used + volume
    orders.consumed[workerpool_hash] = workerpool_used + volume
    if first != 0 or volume != _requestorder.volume:
        orders.consumed[request_hash] = first + volume

    # Lock the money.
    ledger._lock(sponsor, (_apporder.appprice + dataset_price + _workerpoolorder.workerpoolprice) * volume)
    ledger._lock(
        settings._owner(workerpool), settlement._scheduler_stake(_workerpoolorder.workerpoolprice) * volume
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
def _entry(entry: address, kind: uint256, code: String[2]) -> uint256:
    """
    @return The registered entry's record. Others are first asked for their owner, which reverts without data where
            there is none, because the official contracts look in this order.
    """
    record: uint256 = settings.entries[entry]
    if settings._kind(record) != kind:
        owner: address = staticcall Owned(entry).owner()
        self._mismatch(code)
    return record


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
    return self._initialize(_dealid, idx)


@external
def initializeArray(_dealid: DynArray[bytes32, types.BATCH], _idx: DynArray[uint256, types.BATCH]) -> bool:
    assert len(_dealid) == len(_idx)
    for i: uint256 in range(len(_dealid), bound=types.BATCH):
        self._initialize(_dealid[i], _idx[i])
    return True


@external
def initializeAndClaimArray(_dealid: DynArray[bytes32, types.BATCH], _idx: DynArray[uint256, types.BATCH]) -> bool:
    assert len(_dealid) == len(_idx)
    for i: uint256 in range(len(_dealid), bound=types.BATCH):
        self._claim(self._initialize(_dealid[i], _idx[i]))
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
    assert block.timestamp < deal.start + deal.timeref * types.CONTRIBUTION_DEADLINE_RATIO
    count: uint256 = tasks._count(word)
    assert count < types.CONTRIBUTORS, "tasks: too many contributors"
    for place: uint256 in range(count, bound=types.CONTRIBUTORS):
        assert tasks._read_contribution(_taskid, place).worker != msg.sender
    self._check_enclave(
        deal, _taskid, _resultHash, _resultSeal, _enclaveChallenge, _enclaveSign, _authorizationSign
    )

    weight: uint256 = max(ledger._score(msg.sender) // 3, 3) - 1
    tasks._write_contribution(
        _taskid, count, self._log2(weight), msg.sender, _resultHash, _resultSeal, _enclaveChallenge
    )
    ledger._lock(msg.sender, settlement._worker_stake(deal))
    log events.TaskContribute(taskid=_taskid, worker=msg.sender, hash=_resultHash)

    winners: uint256 = 1
    consensus: bool = True
    if deal.trust > 1:
        consensus = tasks._weigh(_taskid, _resultHash, weight, deal.trust)
        if consensus:
            marks: uint256 = tasks.marks[_taskid]
            for place: uint256 in range(count, bound=types.CONTRIBUTORS):
                if (
                    tasks._mark(marks, place) == tasks.CONTRIBUTED
                    and tasks._read_contribution(_taskid, place).hash == _resultHash
                ):
                    winners += 1
    word += 1 << tasks.CONTRIBUTORS
    if consensus:
        word = (
            tasks._with_status(word, types.REVEALING)
            | (count << tasks.WINNER)
            | (winners << tasks.WINNERS)
            | ((block.timestamp + deal.timeref * types.REVEAL_DEADLINE_RATIO) << tasks.DEADLINE)
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
        winner: uint256 = (word >> tasks.WINNER) & tasks.COUNT_MASK
        assert tasks._read_contribution(_taskid, winner).hash == hash
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
    assert msg.sender == deal.workerpool_owner
    assert block.timestamp < deal.start + deal.timeref * types.FINAL_DEADLINE_RATIO
    reveals: uint256 = (word >> tasks.REVEALS) & tasks.COUNT_MASK
    assert reveals == (word >> tasks.WINNERS) & tasks.COUNT_MASK or (
        reveals > 0 and word >> tasks.DEADLINE <= block.timestamp
    )
    if deal.callback != empty(address) or len(_resultsCallback) != 0:
        assert keccak256(_resultsCallback) == tasks.digests[_taskid]

    blobs.body = _results
    blobs.tail = _resultsCallback
    tasks._write_result(_taskid, len(_results), len(_resultsCallback) != 0)
    tasks.words[_taskid] = tasks._with_status(word, types.COMPLETED)
    settlement._pay_resources(deal, _taskid)
    count: uint256 = tasks._count(word)
    if count == 1:
        worker: address = tasks._read_contribution(_taskid, 0).worker
        ledger._unlock(worker, settlement._worker_stake(deal))
        settlement._pay_worker(deal, _taskid, worker)
    else:
        settlement._pay_workers(deal, _taskid, count)
    log events.TaskFinalize(taskid=_taskid, results=_results)
    if deal.callback != empty(address):
        self._call_back(deal.callback, _taskid, _resultsCallback)


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
    assert tasks._status(word) == types.ACTIVE
    deal: deals.Terms = deals._read(tasks._deal(word))
    assert block.timestamp < deal.start + deal.timeref * types.CONTRIBUTION_DEADLINE_RATIO
    assert tasks._count(word) == 0
    assert deal.trust == 1
    if deal.callback != empty(address) or len(_resultsCallback) != 0:
        assert keccak256(_resultsCallback) == _resultDigest
    hash: bytes32 = tasks._result_hash(_taskid, _resultDigest)
    self._check_enclave(
        deal,
        _taskid,
        hash,
        tasks._result_seal(msg.sender, _taskid, _resultDigest),
        _enclaveChallenge,
        _enclaveSign,
        _authorizationSign,
    )

    blobs.body = _results
    blobs.tail = _resultsCallback
    tasks._write_direct(
        _taskid, len(_results), len(_resultsCallback) != 0, msg.sender, _enclaveChallenge, _resultDigest
    )
    # One contributor, who won and revealed.
    tasks.words[_taskid] = (
        tasks._with_status(word, types.COMPLETED)
        | (1 << tasks.CONTRIBUTORS)
        | (1 << tasks.WINNERS)
        | (1 << tasks.REVEALS)
        | ((block.timestamp + deal.timeref * types.REVEAL_DEADLINE_RATIO) << tasks.DEADLINE)
    )
    settlement._pay_resources(deal, _taskid)
    settlement._pay_worker(deal, _taskid, msg.sender)
    log events.TaskContribute(taskid=_taskid, worker=msg.sender, hash=hash)
    log events.TaskConsensus(taskid=_taskid, consensus=hash)
    log events.TaskReveal(taskid=_taskid, worker=msg.sender, digest=_resultDigest)
    log events.TaskFinalize(taskid=_taskid, results=_results)
    if deal.callback != empty(address):
        self._call_back(deal.callback, _taskid, _resultsCallback)


@external
def claim(_taskid: bytes32):
    self._claim(_taskid)


@external
def claimArray(_taskid: DynArray[bytes32, types.BATCH]) -> bool:
    for taskid: bytes32 in _taskid:
        self._claim(taskid)
    return True


@internal
def _initialize(dealid: bytes32, idx: uint256) -> bytes32:
    place: address = blobs._at(dealid)
    deal: deals.Terms = deals._read(place)
    assert idx >= deal.first and idx < deal.first + deal.size
    taskid: bytes32 = tasks._id(dealid, idx)
    assert tasks.words[taskid] == 0
    tasks.words[taskid] = convert(place, uint256) | (idx << tasks.INDEX) | (types.ACTIVE << tasks.STATUS)
    log events.TaskInitialize(taskid=taskid, workerpool=deal.workerpool)
    return taskid


@internal
def _claim(taskid: bytes32):
    word: uint256 = tasks.words[taskid]
    status: uint256 = tasks._status(word)
    assert status == types.ACTIVE or status == types.REVEALING
    deal: deals.Terms = deals._read(tasks._deal(word))
    assert deal.start + deal.timeref * types.FINAL_DEADLINE_RATIO <= block.timestamp
    tasks.words[taskid] = tasks._with_status(word, types.FAILED)
    settlement._refund(deal, taskid, tasks._count(word))
    log events.TaskClaimed(taskid=taskid)


@internal
@view
def _check_enclave(
    deal: deals.Terms,
    taskid: bytes32,
    hash: bytes32,
    seal: bytes32,
    enclave: address,
    enclave_sign: Bytes[types.SIGNATURE],
    authorization: Bytes[types.SIGNATURE],
):
    """
    @notice The sender may contribute to this task, and its enclave, if any, made this result.
    """
    assert enclave != empty(address) or deal.tag & types.TAG_TEE == 0
    signer: address = deal.workerpool_owner
    if enclave != empty(address):
        broker: address = settings._broker()
        if broker != empty(address):
            signer = broker
    assert orders._vouched(
        signer, keccak256(concat(convert(msg.sender, bytes20), taskid, convert(enclave, bytes20))), authorization
    )
    if enclave != empty(address):
        assert orders._vouched(enclave, keccak256(concat(hash, seal)), enclave_sign)


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
def _call_back(target: address, taskid: bytes32, data: Bytes[types.RESULT]):
    """
    @notice Tell the deal's callback its result. Whether it succeeds is its own affair, but it must have had its gas.
    """
    limit: uint256 = settings._callback_gas()
    success: bool = raw_call(
        target,
        abi_encode(taskid, data, method_id=method_id("receiveResult(bytes32,bytes)")),
        gas=limit,
        revert_on_failure=False,
    )
    if msg.gas <= limit // 63:
        self._panic(PANIC_ASSERT)


# ---- Escrow --------------------------------------------------------------------------------------------------------

@external
def deposit(amount: uint256) -> bool:
    self._deposit(msg.sender, amount)
    return True


@external
def depositFor(amount: uint256, target: address) -> bool:
    self._deposit(target, amount)
    return True


@external
def withdraw(amount: uint256) -> bool:
    self._withdraw(msg.sender, amount)
    return True


@external
def withdrawTo(amount: uint256, target: address) -> bool:
    self._withdraw(target, amount)
    return True


@internal
def _deposit(target: address, amount: uint256):
    assert extcall Token(settings.TOKEN).transferFrom(msg.sender, self, amount), "failled-transferFrom"
    ledger._mint(target, amount)


@internal
def _withdraw(target: address, amount: uint256):
    ledger._burn(msg.sender, amount)
    extcall Token(settings.TOKEN).transfer(target, amount)
