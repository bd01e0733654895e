# pragma version 0.4.3
"""
@title A deal's record gives back what was put into it
@notice Packed, kept as a blob, and read again: for all values that the hub lets in. Every combination of optional
        parts is one path. The parts are independent, so each check takes a few of them and leaves the others as they
        mostly are.
"""
import types
import blobs
import orders
import deals
import checks

initializes: blobs
initializes: orders
initializes: deals[blobs := blobs, orders := orders]

# The blob's key: the low part of the dealid. Its place is a hash of it, which is taken for one of its own.
KEY: constant(uint256) = 2**175 + 12345


@deploy
def __init__():
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
@pure
def _plain(requester: address) -> deals.Terms:
    deal: deals.Terms = empty(deals.Terms)
    deal.dealid = convert(KEY, bytes32)
    deal.requester = requester
    deal.sponsor = requester
    deal.beneficiary = requester
    return deal


@internal
def _keep(deal: deals.Terms):
    head: bytes29 = empty(bytes29)
    rest: bytes30 = empty(bytes30)
    rare: Bytes[deals.RARE] = b""
    head, rest, rare = deals._parts(deal)
    blobs.held = concat(head, rest, rare)
    blobs._put(convert(KEY, bytes32))


@internal
def _demand_kept(deal: deals.Terms):
    self._keep(deal)
    read: deals.Terms = deals._read(KEY)
    checks._demand(read.dealid == deal.dealid)
    checks._demand(read.requester == deal.requester)
    checks._demand(read.sponsor == deal.sponsor)
    checks._demand(read.beneficiary == deal.beneficiary)
    checks._demand(read.callback == deal.callback)
    checks._demand(read.app == deal.app)
    checks._demand(read.dataset == deal.dataset)
    checks._demand(read.workerpool == deal.workerpool)
    checks._demand(read.app_owner == deal.app_owner)
    checks._demand(read.dataset_owner == deal.dataset_owner)
    checks._demand(read.workerpool_owner == deal.workerpool_owner)
    checks._demand(read.app_price == deal.app_price)
    checks._demand(read.dataset_price == deal.dataset_price)
    checks._demand(read.workerpool_price == deal.workerpool_price)
    checks._demand(read.tag == deal.tag)
    checks._demand(read.category == deal.category)
    checks._demand(read.trust == deal.trust)
    checks._demand(read.start == deal.start)
    checks._demand(read.first == deal.first)
    checks._demand(read.size == deal.size)
    checks._demand(read.scheduler_ratio == deal.scheduler_ratio)
    checks._demand(read.stake_ratio == deal.stake_ratio)
    checks._demand(deals._exists(deal.dealid))


@external
def check_accounts(high: uint80, requester: address, sponsor: address, beneficiary: address, callback: address):
    deal: deals.Terms = self._plain(requester)
    deal.dealid = convert((convert(high, uint256) << deals.KEY_BITS) | KEY, bytes32)
    deal.sponsor = sponsor
    deal.beneficiary = beneficiary
    deal.callback = callback
    self._demand_kept(deal)


@external
def check_owners(requester: address, sponsor: address, app_owner: address, dataset_owner: address, scheduler: address):
    """
    @notice Either all three are kept, or none.
    """
    assert scheduler != empty(address)
    deal: deals.Terms = self._plain(requester)
    deal.sponsor = sponsor
    deal.app_owner = app_owner
    deal.dataset_owner = dataset_owner
    deal.workerpool_owner = scheduler
    self._demand_kept(deal)


@external
def check_numbers(
    sponsor: address,
    tag: uint256,
    category: uint16,
    trust: uint32,
    start: uint40,
    first: uint24,
    size: uint24,
    scheduler_ratio: uint8,
    stake_ratio: uint16,
):
    deal: deals.Terms = self._plain(sponsor)
    deal.requester = empty(address)
    deal.tag = tag
    deal.category = convert(category, uint256)
    deal.trust = convert(trust, uint256)
    deal.start = convert(start, uint256)
    deal.first = convert(first, uint256)
    deal.size = convert(size, uint256)
    deal.scheduler_ratio = convert(scheduler_ratio, uint256)
    deal.stake_ratio = convert(stake_ratio, uint256)
    self._demand_kept(deal)


@external
def check_titles(callback: address, app: uint40, dataset: uint40, workerpool: uint40, start: uint40):
    deal: deals.Terms = self._plain(empty(address))
    deal.callback = callback
    deal.app = convert(app, uint256)
    deal.dataset = convert(dataset, uint256)
    deal.workerpool = convert(workerpool, uint256)
    deal.start = convert(start, uint256)
    self._demand_kept(deal)


@external
def check_one_price(sponsor: address, which: uint8, price: uint64, start: uint40):
    deal: deals.Terms = self._plain(empty(address))
    deal.sponsor = sponsor
    deal.start = convert(start, uint256)
    if which == 0:
        deal.app_price = convert(price, uint256)
    elif which == 1:
        deal.dataset_price = convert(price, uint256)
    else:
        deal.workerpool_price = convert(price, uint256)
    self._demand_kept(deal)


@external
@view
def range_of(dealid: bytes32) -> (uint256, uint256, uint256, bool):
    return deals._range(dealid)


@external
def check_range(
    high: uint80, other: uint80, first: uint24, size: uint24, workerpool: uint40, start: uint40, tag: uint256
):
    """
    @notice What the beginning of a task reads: of exactly this deal, not of another that has the same key.
    """
    deal: deals.Terms = self._plain(empty(address))
    deal.dealid = convert((convert(high, uint256) << deals.KEY_BITS) | KEY, bytes32)
    deal.first = convert(first, uint256)
    deal.size = convert(size, uint256)
    deal.workerpool = convert(workerpool, uint256)
    deal.start = convert(start, uint256)
    # A bag keeps its owners.
    deal.workerpool_owner = types.KITTY_ADDRESS
    deal.tag = tag
    self._keep(deal)
    asked: bytes32 = convert((convert(other, uint256) << deals.KEY_BITS) | KEY, bytes32)
    call: Bytes[36] = abi_encode(asked, method_id=method_id("range_of(bytes32)"))
    done: bool = False
    answer: Bytes[128] = b""
    done, answer = raw_call(self, call, max_outsize=128, is_static_call=True, revert_on_failure=False)
    checks._demand(done == (high == other))
    checks._demand(deals._exists(asked) == (high == other))
    if done:
        checks._demand(convert(extract32(answer, 0), uint256) == deal.first)
        checks._demand(convert(extract32(answer, 32), uint256) == deal.size)
        checks._demand(convert(extract32(answer, 64), uint256) == deal.workerpool)
        # One that asks for batches is never taken for one that does not.
        if tag & types.TAG_BATCH != 0:
            checks._demand(convert(extract32(answer, 96), uint256) == 1)


@external
def check_closed(narrow: uint32, wide: uint256, is_wide: bool):
    """
    @notice A closed request order, for which there was no deal, is used up; its mark is no deal.
    """
    hash: bytes32 = keccak256(convert(5, bytes32))
    volume: uint256 = wide if is_wide else convert(narrow, uint256)
    deals._close(hash, volume)
    used: uint256 = 0
    dealid: bytes32 = empty(bytes32)
    used, dealid = deals._next(hash)
    checks._demand(used == volume)
    checks._demand(not deals._exists(deals._id(hash, 0)))
