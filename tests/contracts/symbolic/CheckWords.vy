# pragma version 0.4.3
"""
@title The words of orders, tasks and contributors: what is put into one part leaves the others alone
"""
import types
import settings
import ledger
import blobs
import orders
import deals
import tasks
import settlement
import checks

initializes: settings
initializes: ledger[settings := settings]
initializes: blobs
initializes: orders
initializes: deals[blobs := blobs, orders := orders]
initializes: tasks
initializes: settlement[settings := settings, ledger := ledger, tasks := tasks]


@deploy
def __init__():
    settings.__init__(empty(address), [])
    orders.__init__(self)


# ---- Orders --------------------------------------------------------------------------------------------------------

@external
def check_order(order: bytes32, other: bytes32, presigner: address, signer: address, volume: uint256, word: uint256):
    """
    @notice Presigned, closed and presigned again, with any volume.
    """
    assert order != other
    orders.words[other] = word
    orders._presign(order, presigner)
    checks._demand(orders._presigner(order) == presigner and orders._consumed(order) == 0)
    orders._consume(order, volume)
    checks._demand(orders._presigner(order) == presigner and orders._consumed(order) == volume)
    orders._presign(order, signer)
    checks._demand(orders._presigner(order) == signer and orders._consumed(order) == volume)
    checks._demand(orders.words[other] == word)


# ---- Tasks ---------------------------------------------------------------------------------------------------------

@external
def begin(dealid: bytes32, idx: uint256, first: uint256, size: uint256, batches: bool):
    tasks._begin(dealid, idx, first, size, empty(address), batches)


@external
def check_begin(dealid: bytes32, idx: uint256, first: uint256, size: uint256, batches: bool, begun: uint256):
    """
    @notice Any index of the deal, once, and no other; none that ended in a batch. Other tasks' bits stay as they are.
    """
    assert first < deals.VOLUME_LIMIT and size < deals.VOLUME_LIMIT and first + size < deals.VOLUME_LIMIT
    call: Bytes[164] = abi_encode(
        dealid, idx, first, size, batches, method_id=method_id("begin(bytes32,uint256,uint256,uint256,bool)")
    )
    inside: bool = idx >= first and idx < first + size
    page: bytes32 = tasks._page(dealid, unsafe_sub(idx, first) >> 8)
    bit: uint256 = 1 << (unsafe_sub(idx, first) & 255)
    tasks.begun[page] = begun
    free: bool = not batches or begun & bit == 0
    checks._demand(raw_call(self, call, revert_on_failure=False) == (inside and free))
    if inside and free and batches:
        checks._demand(tasks.begun[page] == begun | bit)
    else:
        checks._demand(tasks.begun[page] == begun)
    word: uint256 = tasks.words[tasks._id(dealid, idx)]
    if word != 0:
        checks._demand(tasks._deal(word) == deals._key(dealid))
        checks._demand((word >> tasks.INDEX) & tasks.INDEX_MASK == idx)
        checks._demand(tasks._status(word) == types.ACTIVE)
        checks._demand(word >> tasks.CONTRIBUTORS == 0)
        checks._demand(not raw_call(self, call, revert_on_failure=False))


@external
def check_status(word: uint256, status: uint8):
    """
    @notice Another status, and nothing else, whatever the word.
    """
    assert status < 8
    changed: uint256 = tasks._with_status(word, convert(status, uint256))
    checks._demand(tasks._status(changed) == convert(status, uint256))
    checks._demand((changed ^ word) & ~(tasks.STATUS_MASK << tasks.STATUS) == 0)


@external
def check_contributions(one: uint256, two: uint256, a: bytes32, b: bytes32, seal: bytes32, enclave: address):
    """
    @notice Two workers, of one mind or of two. All that they sent can be read, also once both are rejected.
    """
    # Cut off rather than checked, so that a part of a word is seen to be constant.
    first: address = convert(one & types.ADDRESS_MASK, address)
    second: address = convert(two & types.ADDRESS_MASK, address)
    taskid: bytes32 = keccak256(convert(7, bytes32))
    word: uint256 = (types.ACTIVE << tasks.STATUS) | (2 << tasks.CONTRIBUTORS)
    checks._demand(tasks._join(taskid, 0, first, 5, a, seal, enclave) == 0)
    group: uint256 = tasks._join(taskid, 1, second, 2, b, a, empty(address))
    checks._demand(group == (0 if a == b else 1))
    entry: tasks.Entry = tasks._entry(taskid, word, 0)
    checks._demand(entry.worker == first and entry.hash == a and entry.seal == seal and entry.enclave == enclave)
    checks._demand(entry.mark == tasks.CONTRIBUTED and entry.weight == 2)
    entry = tasks._entry(taskid, word, 1)
    checks._demand(entry.worker == second and entry.hash == b and entry.seal == a)
    checks._demand(entry.enclave == empty(address) and entry.mark == tasks.CONTRIBUTED and entry.weight == 1)
    # The second brought the consensus, and nobody reveals.
    tasks._reject(taskid, word)
    entry = tasks._entry(taskid, word, 0)
    checks._demand(entry.worker == first and entry.hash == a and entry.seal == seal and entry.enclave == enclave)
    checks._demand(entry.mark == (tasks.REJECTED if a == b else tasks.CONTRIBUTED) and entry.weight == 2)
    entry = tasks._entry(taskid, word, 1)
    checks._demand(entry.worker == second and entry.hash == b and entry.mark == tasks.REJECTED)


@external
def check_weight(one: uint256, weight: uint256):
    """
    @notice A weight too heavy for its part is as heavy as that can be.
    """
    taskid: bytes32 = keccak256(convert(7, bytes32))
    first: address = convert(one & types.ADDRESS_MASK, address)
    group: uint256 = tasks._join(taskid, 0, first, weight, taskid, taskid, empty(address))
    kept: uint256 = tasks.contributors[tasks._key(taskid, 0)]
    checks._demand((kept >> tasks.WEIGHT) & tasks.WEIGHT_MASK == min(weight, tasks.WEIGHT_MASK))
    checks._demand(tasks._worker(kept) == first and tasks._group(kept) == 0 and kept >> tasks.MARK == 0)


@external
def check_digits(text: uint256):
    """
    @notice Of all texts of 32 characters, exactly those are read that have digits of base 58 only.
    """
    strange: uint256 = 0
    for i: uint256 in range(32):
        c: uint256 = (text >> (8 * i)) & 255
        # No branches: there would be too many.
        strange |= convert(c < 49, uint256) | (convert(c > 57, uint256) & convert(c < 65, uint256))
        strange |= (convert(c > 90, uint256) & convert(c < 97, uint256)) | convert(c > 122, uint256)
        strange |= convert(c == 73, uint256) | convert(c == 79, uint256) | convert(c == 108, uint256)
    checks._demand((tasks._number(text) == max_value(uint256)) == (strange != 0))


# ---- Settlement ----------------------------------------------------------------------------------------------------

@external
def check_stakes(app: uint64, dataset: uint64, workerpool: uint64, stake_ratio: uint16, volume: uint24):
    """
    @notice What is computed without looking for an overflow has none.
    """
    deal: deals.Terms = empty(deals.Terms)
    deal.app_price = convert(app, uint256)
    deal.dataset_price = convert(dataset, uint256)
    deal.workerpool_price = convert(workerpool, uint256)
    deal.stake_ratio = convert(stake_ratio, uint256)
    price: uint256 = settlement._price(deal)
    checks._demand(price == deal.app_price + deal.dataset_price + deal.workerpool_price)
    checks._demand(unsafe_mul(price, convert(volume, uint256)) == price * convert(volume, uint256))
    stake: uint256 = settlement._scheduler_stake(deal.workerpool_price)
    checks._demand(stake == deal.workerpool_price * types.WORKERPOOL_STAKE_RATIO // 100)
    checks._demand(unsafe_mul(stake, convert(volume, uint256)) == stake * convert(volume, uint256))
    checks._demand(settlement._worker_stake(deal) == deal.workerpool_price * deal.stake_ratio // 100)


@external
def check_pay_worker(worker: address, scheduler: address, price: uint64, ratio: uint8, a: uint64, b: uint64):
    """
    @notice The worker's share and the scheduler's are the price, rounding included.
    """
    assert ratio <= 100 and worker != scheduler
    paid: uint256 = convert(price, uint256)
    assert convert(a, uint256) + convert(b, uint256) + paid < 2**64
    ledger.accounts[worker] = convert(a, uint256)
    ledger.accounts[scheduler] = convert(b, uint256)
    settlement._pay_worker(paid, convert(ratio, uint256), scheduler, worker, empty(bytes32))
    reward: uint256 = paid * (100 - convert(ratio, uint256)) // 100
    checks._demand(ledger.accounts[worker] == convert(a, uint256) + reward)
    checks._demand(ledger.accounts[scheduler] == convert(b, uint256) + paid - reward)
