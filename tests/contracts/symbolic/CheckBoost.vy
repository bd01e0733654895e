# pragma version 0.4.3
"""
@title A boost deal's record gives back what was put into it
"""
import types
import settings
import ledger
import blobs
import orders
import deals
import tasks
import settlement
import life
import boost
import checks

initializes: settings
initializes: ledger[settings := settings]
initializes: blobs
initializes: orders
initializes: deals[blobs := blobs, orders := orders]
initializes: tasks
initializes: settlement[settings := settings, ledger := ledger, tasks := tasks]
initializes: life[
    settings := settings, ledger := ledger, blobs := blobs, orders := orders, tasks := tasks, settlement := settlement
]
initializes: boost[
    settings := settings, ledger := ledger, blobs := blobs, orders := orders, deals := deals, tasks := tasks,
    settlement := settlement, life := life
]

# As in CheckDeals.
KEY: constant(uint256) = 2**175 + 12345


@deploy
def __init__():
    settings.__init__(empty(address), [])
    orders.__init__(self)


@external
@payable
@raw_return
def __default__() -> Bytes[blobs.LENGTH]:
    """
    @dev As the hub's: a blob in the making asks for its bytes.
    """
    return blobs.held


@internal
def _demand_kept(high: uint80, deal: boost.Terms):
    dealid: bytes32 = convert((convert(high, uint256) << deals.KEY_BITS) | KEY, bytes32)
    blobs.held = boost._record(dealid, deal)
    blobs._put(convert(KEY, bytes32))
    read: boost.Terms = boost._read(dealid)
    checks._demand(read.sponsor == deal.sponsor)
    checks._demand(read.requester == deal.requester)
    checks._demand(read.app_owner == deal.app_owner)
    checks._demand(read.dataset_owner == deal.dataset_owner)
    checks._demand(read.scheduler == deal.scheduler)
    checks._demand(read.callback == deal.callback)
    checks._demand(read.app_price == deal.app_price)
    checks._demand(read.dataset_price == deal.dataset_price)
    checks._demand(read.workerpool_price == deal.workerpool_price)
    checks._demand(read.deadline == deal.deadline)
    checks._demand(read.first == deal.first)
    checks._demand(read.size == deal.size)
    checks._demand(read.tag == deal.tag)
    checks._demand(read.scheduler_ratio == deal.scheduler_ratio)
    # It is no classic deal, and nobody begins its tasks.
    checks._demand(not deals._exists(dealid))
    # Another dealid of the same key has no deal.
    other: bytes32 = convert(convert(dealid, uint256) ^ (1 << 200), bytes32)
    checks._demand(boost._read(other).size == 0)


@external
def check_accounts(
    high: uint80,
    sponsor: address,
    requester: address,
    app_owner: address,
    dataset_owner: address,
    scheduler: address,
    callback: address,
):
    deal: boost.Terms = empty(boost.Terms)
    deal.sponsor = sponsor
    deal.requester = requester
    deal.app_owner = app_owner
    deal.dataset_owner = dataset_owner
    deal.scheduler = scheduler
    deal.callback = callback
    deal.size = 1
    self._demand_kept(high, deal)


@external
def check_numbers(
    app_price: uint64,
    dataset_price: uint64,
    workerpool_price: uint64,
    deadline: uint40,
    first: uint16,
    size: uint16,
    tag: uint24,
    scheduler_ratio: uint8,
    callback: address,
):
    """
    @notice With a dataset: without one, there is no price of it (boost.vy).
    """
    deal: boost.Terms = empty(boost.Terms)
    deal.dataset_owner = types.KITTY_ADDRESS
    deal.app_price = convert(app_price, uint256)
    deal.dataset_price = convert(dataset_price, uint256)
    deal.workerpool_price = convert(workerpool_price, uint256)
    deal.deadline = convert(deadline, uint256)
    deal.first = convert(first, uint256)
    deal.size = convert(size, uint256)
    deal.tag = convert(tag, uint256)
    deal.scheduler_ratio = convert(scheduler_ratio, uint256)
    deal.callback = callback
    self._demand_kept(0, deal)
