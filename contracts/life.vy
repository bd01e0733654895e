# pragma version 0.4.3
"""
@title Life: what happens to a task, from its beginning to its result or its refund
@license Apache-2.0
"""
import types
import events
import settings
import ledger
import orders
import blobs
import deals
import tasks
import settlement

uses: settings
uses: ledger
uses: blobs
uses: orders
uses: tasks
uses: settlement

# Selector of a callback's receiveResult(bytes32,bytes).
RECEIVE_RESULT: constant(bytes4) = method_id("receiveResult(bytes32,bytes)", output_type=bytes4)


@external
def initialize(_dealid: bytes32, idx: uint256) -> bytes32:
    first: uint256 = 0
    size: uint256 = 0
    workerpool: uint256 = 0
    batches: bool = False
    first, size, workerpool, batches = deals._range(_dealid)
    return tasks._begin(_dealid, idx, first, size, settings.assets[workerpool], batches)


@external
def initializeArray(_dealid: DynArray[bytes32, types.BATCH], _idx: DynArray[uint256, types.BATCH]) -> bool:
    assert len(_dealid) == len(_idx)
    first: uint256 = 0
    size: uint256 = 0
    title: uint256 = 0
    batches: bool = False
    workerpool: address = empty(address)
    for i: uint256 in range(len(_dealid), bound=types.BATCH):
        if i == 0 or _dealid[i] != _dealid[unsafe_sub(i, 1)]:
            first, size, title, batches = deals._range(_dealid[i])
            workerpool = settings.assets[title]
        tasks._begin(_dealid[i], _idx[i], first, size, workerpool, batches)
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
        assert tasks._worker(tasks.contributors[tasks._key(_taskid, place)]) != msg.sender
    authoriser: address = self._authoriser(deal, _enclaveChallenge)
    authorised: bytes32 = tasks._authorisation(msg.sender, _taskid, _enclaveChallenge)
    assert orders._signed(authoriser, authorised, _authorizationSign, False)
    if _enclaveChallenge != empty(address):
        attested: bytes32 = tasks._attested(_resultHash, _resultSeal)
        assert orders._signed(_enclaveChallenge, attested, _enclaveSign, False)

    weight: uint256 = max(ledger._score(msg.sender) // 3, 3) - 1
    group: uint256 = tasks._join(
        _taskid, count, msg.sender, weight, _resultHash, _resultSeal, _enclaveChallenge
    )
    ledger._lock(msg.sender, settlement._worker_stake(deal))
    log events.TaskContribute(taskid=_taskid, worker=msg.sender, hash=_resultHash)

    winners: uint256 = 1
    consensus: bool = True
    if deal.trust > 1:
        consensus, winners = tasks._weigh(_taskid, count + 1, group, deal.trust)
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
    key: bytes32 = tasks._key(_taskid, tasks._place(_taskid, count, msg.sender))
    contributor: uint256 = tasks.contributors[key]
    assert contributor >> tasks.MARK == tasks.CONTRIBUTED
    group: uint256 = tasks._group(contributor)
    assert count == 1 or group == tasks._consensus(_taskid, word)
    common: bytes32 = tasks._key(_taskid, group)
    if (word >> tasks.REVEALS) & tasks.COUNT_MASK == 0:
        assert tasks.hashes[common] == hash
        tasks.hashes[common] = _resultDigest
    else:
        assert count > 1 and tasks.hashes[common] == _resultDigest
    assert tasks.seals[key] == seal
    if count > 1:
        tasks.contributors[key] = contributor | (tasks.PROVED << tasks.MARK)
    tasks.words[_taskid] = word + (1 << tasks.REVEALS)
    log events.TaskReveal(taskid=_taskid, worker=msg.sender, digest=_resultDigest)


@external
def finalize(_taskid: bytes32, _results: Bytes[types.RESULT], _resultsCallback: Bytes[types.RESULT]):
    word: uint256 = tasks.words[_taskid]
    assert tasks._status(word) == types.REVEALING
    deal: deals.Terms = deals._read(tasks._deal(word))
    scheduler: address = settlement._owner(deal.workerpool_owner, deal.workerpool)
    assert msg.sender == scheduler
    assert block.timestamp < deal.start + settings._timeref(deal.category) * types.FINAL_DEADLINE_RATIO
    reveals: uint256 = (word >> tasks.REVEALS) & tasks.COUNT_MASK
    assert reveals == (word >> tasks.WINNERS) & tasks.COUNT_MASK or (
        reveals > 0 and word >> tasks.DEADLINE <= block.timestamp
    )
    if deal.callback != empty(address) or len(_resultsCallback) != 0:
        assert keccak256(_resultsCallback) == tasks._revealed(_taskid, word)

    short: bool = False
    kept: bytes32 = empty(bytes32)
    told: uint256 = 0
    short, kept, told = tasks._short(_results)
    if short and (len(_resultsCallback) == 0 or len(_resultsCallback) == 32 or len(_resultsCallback) == 64):
        if len(_resultsCallback) != 0:
            tasks._keep_callback(_taskid, word, extract32(_resultsCallback, 0))
            if len(_resultsCallback) == 64:
                tasks.seconds[_taskid] = extract32(_resultsCallback, 32)
        tasks._keep_short(_taskid, word, kept, told | (len(_resultsCallback) << (tasks.CALLBACK - 5)))
    else:
        blobs.held = concat(
            empty(bytes1), convert(convert(len(_results), uint16), bytes2), _results, _resultsCallback,
        )
        blobs._put(_taskid)
    tasks.words[_taskid] = tasks._with_status(word, types.COMPLETED)
    settlement._pay_resources(deal, scheduler, _taskid)
    count: uint256 = tasks._count(word)
    if count == 1:
        worker: address = tasks._worker(tasks.contributors[_taskid])
        ledger._unlock(worker, settlement._worker_stake(deal))
        settlement._pay_worker(deal.workerpool_price, deal.scheduler_ratio, scheduler, worker, _taskid)
    else:
        settlement._pay_workers(deal, scheduler, _taskid, count)
    log events.TaskFinalize(taskid=_taskid, results=_results)
    if deal.callback != empty(address) and not self._call_back(deal.callback, _taskid, _resultsCallback):
        types._panic(types.PANIC_ASSERT)


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
    authoriser: address = self._authoriser(deal, _enclaveChallenge)
    authorised: bytes32 = tasks._authorisation(msg.sender, _taskid, _enclaveChallenge)
    assert orders._signed(authoriser, authorised, _authorizationSign, False)
    if _enclaveChallenge != empty(address):
        seal: bytes32 = tasks._result_seal(msg.sender, _taskid, _resultDigest)
        attested: bytes32 = tasks._attested(hash, seal)
        assert orders._signed(_enclaveChallenge, attested, _enclaveSign, False)

    compact: bool = False
    multihash: bytes32 = empty(bytes32)
    compact, multihash = tasks._multihash(_results)
    if compact:
        blobs.held = concat(
            convert(convert(tasks.DIRECT | tasks.CID, uint8), bytes1),
            convert(msg.sender, bytes20), convert(_enclaveChallenge, bytes20), _resultDigest, multihash, _resultsCallback,
        )
    else:
        blobs.held = concat(
            convert(convert(tasks.DIRECT, uint8), bytes1),
            convert(msg.sender, bytes20), convert(_enclaveChallenge, bytes20), _resultDigest,
            convert(convert(len(_results), uint16), bytes2), _results, _resultsCallback,
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
    scheduler: address = settlement._owner(deal.workerpool_owner, deal.workerpool)
    settlement._pay_resources(deal, scheduler, _taskid)
    settlement._pay_worker(deal.workerpool_price, deal.scheduler_ratio, scheduler, msg.sender, _taskid)
    log events.TaskContribute(taskid=_taskid, worker=msg.sender, hash=hash)
    log events.TaskConsensus(taskid=_taskid, consensus=hash)
    log events.TaskReveal(taskid=_taskid, worker=msg.sender, digest=_resultDigest)
    log events.TaskFinalize(taskid=_taskid, results=_results)
    if deal.callback != empty(address) and not self._call_back(deal.callback, _taskid, _resultsCallback):
        types._panic(types.PANIC_ASSERT)


@external
def reopen(_taskid: bytes32):
    """
    @notice Start a task again whose winners were all silent: they are rejected.
    """
    word: uint256 = tasks.words[_taskid]
    deal: deals.Terms = deals._read(tasks._deal(word))
    assert msg.sender == settlement._owner(deal.workerpool_owner, deal.workerpool)
    assert tasks._status(word) == types.REVEALING
    assert block.timestamp < deal.start + settings._timeref(deal.category) * types.FINAL_DEADLINE_RATIO
    assert word >> tasks.DEADLINE <= block.timestamp and (word >> tasks.REVEALS) & tasks.COUNT_MASK == 0
    tasks._reject(_taskid, word)
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
        first: uint256 = 0
        size: uint256 = 0
        workerpool: uint256 = 0
        batches: bool = False
        first, size, workerpool, batches = deals._range(_dealid[i])
        self._claim(tasks._begin(_dealid[i], _idx[i], first, size, settings.assets[workerpool], batches))
    return True


@internal
@view
def _authoriser(deal: deals.Terms, enclave: address) -> address:
    """
    @notice Who has to authorise a contribution: the scheduler, or, for one from an enclave, the TEE broker if there is
            one. Reverts without data if the deal asks for an enclave and there is none.
    """
    if enclave == empty(address):
        assert deal.tag & types.TAG_TEE == 0
    else:
        broker: address = settings._broker()
        if broker != empty(address):
            return broker
    return settlement._owner(deal.workerpool_owner, deal.workerpool)


@internal
def _call_back(consumer: address, taskid: bytes32, data: Bytes[types.RESULT]) -> bool:
    """
    @return Whether a callback has had its gas. Whether it succeeds is its own affair.
    """
    limit: uint256 = settings._callback_gas()
    success: bool = raw_call(
        consumer,
        abi_encode(taskid, data, method_id=RECEIVE_RESULT),
        gas=limit,
        revert_on_failure=False,
    )
    return msg.gas > limit // 63


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
