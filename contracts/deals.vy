# pragma version 0.4.3
"""
@title Deals: the record of a match, one blob each
@license Apache-2.0
@notice A deal never changes, so it is a blob. Its key is the low 176 bits of its dealid; a task keeps these, and the
        blob the other 80. App, dataset and workerpool are named by their titles (see settings.vy), which stand for
        the entry and for who owned it at the match. From byte 0, bits from the highest:

          0  head     29   flags 8 | tag 4 | category 4 | trust 8 | start 32 | first 8 | size 8 | scheduler ratio 8 |
                           stake ratio 8 | app 24 | dataset 24 | workerpool 24 | app price 24 | dataset price 24 |
                           workerpool price 24   (a title of 0: none; prices in units of 10**6 nRLC)
         29  dealid   10   its high part
         39  requester         20
         59  if flag 1:   sponsor 20       (else the requester)
             if flag 2:   callback 20      (else none)
             if flag 4:   beneficiary 20   (else the requester)
             if flag 64:  owners 60, 20 each: app, dataset, workerpool   (else the titles tell; a bag keeps them, so that
                          not each of its tasks has to look)
             if flag 8:   tag 32           (else the head's 4 bits are all of it; bit 128 of a bag's tag asks for batches)
             if flag 16:  prices in nRLC 24, 8 each: app, dataset, workerpool   (else the head has them)
             if flag 32:  the high parts of what the head is too narrow for, 17 bytes: category 16 | trust 24 |
                          start 8 | first 16 | size 16 | stake ratio 8 | app 16 | dataset 16 | workerpool 16
        then params, to the end

        Shorter than that is what is no deal: a closed request order, kept where its first deal would be. From byte 0:
        zero 1, then the order's volume, 4 bytes, or 32 if these are too narrow. Flag 128 begins a boost deal (boost.vy);
        if it is a request order's first, the 4 bytes that follow are its size.
@dev Prices are below 2**64 because their payer could lock them; volume and trust are bounded by the limits below, the
     rest where it enters. Titles have 40 bits: so many would cost more than 10**16 gas.
"""
import types
import blobs
import orders

uses: blobs
uses: orders

# Flags, as drawn above.
SPONSOR: constant(uint256) = 1
CALLBACK: constant(uint256) = 2
BENEFICIARY: constant(uint256) = 4
TAG: constant(uint256) = 8
PRICES: constant(uint256) = 16
WIDE: constant(uint256) = 32
OWNERS: constant(uint256) = 64
BOOST: constant(uint256) = 128

# Lengths of the parts.
FIXED: constant(uint256) = 59
ADDRESS_PART: constant(uint256) = 20
TAG_PART: constant(uint256) = 32
PRICES_PART: constant(uint256) = 24
OWNERS_PART: constant(uint256) = 60
WIDE_PART: constant(uint256) = 17
RARE: constant(uint256) = 3 * ADDRESS_PART + TAG_PART + PRICES_PART + OWNERS_PART + WIDE_PART
CLOSED_PART: constant(uint256) = 5
CLOSED_WIDE_PART: constant(uint256) = 33

# Length of each flag's part, a byte each, from the lowest.
PARTS: constant(uint256) = (
    ADDRESS_PART | (ADDRESS_PART << 8) | (ADDRESS_PART << 16) | (TAG_PART << 24) | (PRICES_PART << 32)
    | (WIDE_PART << 40) | (OWNERS_PART << 48)
)

# In the head: more than one task, and a tag of more than 4 bits, of which one may ask for batches.
BAG: constant(uint256) = (TAG | OWNERS) << 224

# Unit of the head's prices, nRLC.
PRICE_UNIT: constant(uint256) = 10**6

# Above the tasks of a request order, all its deals together, and above a deal's trust.
VOLUME_LIMIT: constant(uint256) = 2**24
TRUST_LIMIT: constant(uint256) = 2**32

MASK_4: constant(uint256) = 2**4 - 1
MASK_8: constant(uint256) = 2**8 - 1
MASK_16: constant(uint256) = 2**16 - 1
MASK_24: constant(uint256) = 2**24 - 1
MASK_32: constant(uint256) = 2**32 - 1
MASK_64: constant(uint256) = 2**64 - 1
MASK_80: constant(uint256) = 2**80 - 1

# The part of a dealid that is its blob's key.
KEY_BITS: constant(uint256) = 176
KEY_MASK: constant(uint256) = 2**KEY_BITS - 1


# A deal without its params. Amounts in nRLC, times in seconds, ratios in percent; app, dataset and workerpool are
# titles, and their owners are zero where the titles have to be asked.
struct Terms:
    dealid: bytes32
    requester: address
    sponsor: address
    beneficiary: address
    callback: address
    app: uint256
    dataset: uint256  # zero when there is none
    workerpool: uint256
    app_owner: address
    dataset_owner: address
    workerpool_owner: address
    app_price: uint256
    dataset_price: uint256
    workerpool_price: uint256
    tag: uint256
    category: uint256
    trust: uint256
    start: uint256
    first: uint256
    size: uint256
    scheduler_ratio: uint256
    stake_ratio: uint256


# Who pays the deal that is being made, when not its requester. Set for the time of `sponsorMatchOrders`.
sponsor: transient(address)


# ---- Where deals are -----------------------------------------------------------------------------------------------

@internal
@pure
def _id(request: bytes32, first: uint256) -> bytes32:
    return keccak256(abi_encode(request, first))


@internal
@pure
def _key(dealid: bytes32) -> uint256:
    return convert(dealid, uint256) & KEY_MASK


@internal
@view
def _place(key: uint256) -> address:
    return blobs._at(convert(key, bytes32))


@internal
@view
def _dealid(key: uint256) -> bytes32:
    """
    @return The whole id of the classic deal that has this key.
    """
    return convert(((self._word(self._place(key), 39) & MASK_80) << KEY_BITS) | key, bytes32)


@internal
@view
def _exists(dealid: bytes32) -> bool:
    place: address = self._place(self._key(dealid))
    if place.codesize < FIXED or convert(slice(place.code, 0, 1), uint256) >= BOOST:
        return False
    return self._word(place, 39) & MASK_80 == convert(dealid, uint256) >> KEY_BITS


# ---- How much of a request order is used ---------------------------------------------------------------------------

@internal
@view
def _next(request: bytes32) -> (uint256, bytes32):
    """
    @return Used volume of a request order, and the dealid that its next deal will have.
    @dev A request order that its first deal uses up has no slot, nor has one that is closed before: a blob tells. No
         blob where its first deal would be means unused, a closed mark there all of its volume, a deal there, of
         either kind, its slot, or, if that is zero, the deal's size.
    """
    dealid: bytes32 = self._id(request, 0)
    place: address = blobs._at(convert(convert(dealid, uint256) & KEY_MASK, bytes32))
    if not place.is_contract:
        return 0, dealid
    used: uint256 = orders._consumed(request)
    if used == 0:
        begin: uint256 = convert(slice(place.code, 0, CLOSED_PART), uint256)
        if place.codesize == CLOSED_WIDE_PART:
            used = self._word(place, CLOSED_WIDE_PART)
        elif place.codesize == CLOSED_PART or begin >> 32 >= BOOST:
            used = begin & MASK_32
        else:
            used = self._range(dealid)[1]
    return used, self._id(request, used)


@internal
def _close(request: bytes32, volume: uint256):
    key: uint256 = self._key(self._id(request, 0))
    if self._place(key).is_contract:
        orders._consume(request, volume)
        return
    if volume <= MASK_32:
        blobs.held = concat(empty(bytes1), convert(convert(volume, uint32), bytes4))
    else:
        blobs.held = concat(empty(bytes1), convert(volume, bytes32))
    blobs._put(convert(key, bytes32))


# ---- The format: written and read here and nowhere else ------------------------------------------------------------

@internal
@pure
def _parts(deal: Terms) -> (bytes29, bytes30, Bytes[RARE]):
    """
    @return The blob in parts: the head, what else is fixed, and what is rare. The caller appends the params.
    """
    flags: uint256 = 0
    if deal.sponsor != deal.requester:
        flags = SPONSOR
    if deal.callback != empty(address):
        flags |= CALLBACK
    if deal.beneficiary != deal.requester:
        flags |= BENEFICIARY
    if deal.tag > MASK_4:
        flags |= TAG
    app_price: uint256 = unsafe_div(deal.app_price, PRICE_UNIT)
    dataset_price: uint256 = unsafe_div(deal.dataset_price, PRICE_UNIT)
    workerpool_price: uint256 = unsafe_div(deal.workerpool_price, PRICE_UNIT)
    if (
        (app_price | dataset_price | workerpool_price) > MASK_24
        # Rounded down, they sum up to the same only if none was rounded.
        or unsafe_mul(unsafe_add(unsafe_add(app_price, dataset_price), workerpool_price), PRICE_UNIT)
        != unsafe_add(unsafe_add(deal.app_price, deal.dataset_price), deal.workerpool_price)
    ):
        flags |= PRICES
        app_price = 0
        dataset_price = 0
        workerpool_price = 0
    if (
        (deal.app | deal.dataset | deal.workerpool) > MASK_24
        or (deal.trust | deal.first | deal.size | deal.stake_ratio) > MASK_8
        or deal.start > MASK_32
        or deal.category > MASK_4
    ):
        flags |= WIDE
    if deal.workerpool_owner != empty(address):
        flags |= OWNERS
    rare: Bytes[RARE] = b""
    if flags != 0:
        rare = self._rare(deal, flags)
    head: uint256 = (
        (flags << 224) | ((deal.tag & MASK_4) << 220) | ((deal.category & MASK_4) << 216)
        | ((deal.trust & MASK_8) << 208) | ((deal.start & MASK_32) << 176) | ((deal.first & MASK_8) << 168)
        | ((deal.size & MASK_8) << 160) | (deal.scheduler_ratio << 152) | ((deal.stake_ratio & MASK_8) << 144)
        | ((deal.app & MASK_24) << 120) | ((deal.dataset & MASK_24) << 96) | ((deal.workerpool & MASK_24) << 72)
        | (app_price << 48) | (dataset_price << 24) | workerpool_price
    )
    return (
        convert(convert(head, uint232), bytes29),
        convert(
            convert(((convert(deal.dealid, uint256) >> KEY_BITS) << 160) | convert(deal.requester, uint256), uint240),
            bytes30,
        ),
        rare,
    )


@internal
@pure
def _rare(deal: Terms, flags: uint256) -> Bytes[RARE]:
    """
    @return What the fixed part is followed by.
    """
    rare: Bytes[RARE] = b""
    flag: uint256[6] = [SPONSOR, CALLBACK, BENEFICIARY, OWNERS, OWNERS, OWNERS]
    part: address[6] = [
        deal.sponsor, deal.callback, deal.beneficiary, deal.app_owner, deal.dataset_owner, deal.workerpool_owner
    ]
    for i: uint256 in range(6):
        if flags & flag[i] != 0:
            rare = convert(concat(rare, convert(part[i], bytes20)), Bytes[RARE])
    if flags & TAG != 0:
        rare = convert(concat(rare, convert(deal.tag, bytes32)), Bytes[RARE])
    if flags & PRICES != 0:
        prices: uint256 = (deal.app_price << 128) | (deal.dataset_price << 64) | deal.workerpool_price
        rare = convert(concat(rare, convert(convert(prices, uint192), bytes24)), Bytes[RARE])
    if flags & WIDE != 0:
        high: uint256 = (
            ((deal.category >> 4) << 120) | ((deal.trust >> 8) << 96) | ((deal.start >> 32) << 88)
            | ((deal.first >> 8) << 72) | ((deal.size >> 8) << 56) | ((deal.stake_ratio >> 8) << 48)
            | ((deal.app >> 24) << 32) | ((deal.dataset >> 24) << 16) | (deal.workerpool >> 24)
        )
        rare = convert(concat(rare, convert(convert(high, uint136), bytes17)), Bytes[RARE])
    return rare


@internal
@view
def _read(key: uint256) -> Terms:
    """
    @dev Reverts without data where there is no deal.
    """
    place: address = blobs._at(convert(key, bytes32))
    code: Bytes[FIXED] = slice(place.code, 0, FIXED)
    head: uint256 = convert(extract32(code, 0), uint256) >> 24
    second: uint256 = convert(extract32(code, FIXED - 32), uint256)
    requester: address = convert(second & types.ADDRESS_MASK, address)
    deal: Terms = Terms(
        dealid=convert((((second >> 160) & MASK_80) << KEY_BITS) | key, bytes32),
        requester=requester,
        sponsor=requester,
        beneficiary=requester,
        callback=empty(address),
        app=(head >> 120) & MASK_24,
        dataset=(head >> 96) & MASK_24,
        workerpool=(head >> 72) & MASK_24,
        app_owner=empty(address),
        dataset_owner=empty(address),
        workerpool_owner=empty(address),
        app_price=unsafe_mul((head >> 48) & MASK_24, PRICE_UNIT),
        dataset_price=unsafe_mul((head >> 24) & MASK_24, PRICE_UNIT),
        workerpool_price=unsafe_mul(head & MASK_24, PRICE_UNIT),
        tag=(head >> 220) & MASK_4,
        category=(head >> 216) & MASK_4,
        trust=(head >> 208) & MASK_8,
        start=(head >> 176) & MASK_32,
        first=(head >> 168) & MASK_8,
        size=(head >> 160) & MASK_8,
        scheduler_ratio=(head >> 152) & MASK_8,
        stake_ratio=(head >> 144) & MASK_8,
    )
    flags: uint256 = head >> 224
    if flags == 0:
        return deal
    # Each part is read with the 32 bytes that end with it: the fixed part precedes them all.
    end: uint256 = FIXED
    if flags & SPONSOR != 0:
        end = unsafe_add(end, ADDRESS_PART)
        deal.sponsor = convert(self._word(place, end) & types.ADDRESS_MASK, address)
    if flags & CALLBACK != 0:
        end = unsafe_add(end, ADDRESS_PART)
        deal.callback = convert(self._word(place, end) & types.ADDRESS_MASK, address)
    if flags & BENEFICIARY != 0:
        end = unsafe_add(end, ADDRESS_PART)
        deal.beneficiary = convert(self._word(place, end) & types.ADDRESS_MASK, address)
    if flags & OWNERS != 0:
        end = unsafe_add(end, OWNERS_PART)
        owners: Bytes[OWNERS_PART] = slice(place.code, unsafe_sub(end, OWNERS_PART), OWNERS_PART)
        deal.app_owner = convert(convert(extract32(owners, 0), uint256) >> 96, address)
        deal.dataset_owner = convert(convert(extract32(owners, 20), uint256) >> 96, address)
        deal.workerpool_owner = convert(convert(extract32(owners, 28), uint256) & types.ADDRESS_MASK, address)
    if flags & TAG != 0:
        end = unsafe_add(end, TAG_PART)
        deal.tag = self._word(place, end)
    if flags & PRICES != 0:
        end = unsafe_add(end, PRICES_PART)
        prices: uint256 = self._word(place, end)
        deal.app_price = (prices >> 128) & MASK_64
        deal.dataset_price = (prices >> 64) & MASK_64
        deal.workerpool_price = prices & MASK_64
    if flags & WIDE != 0:
        high: uint256 = self._high(place, flags)
        deal.category |= ((high >> 120) & MASK_16) << 4
        deal.trust |= ((high >> 96) & MASK_24) << 8
        deal.start |= ((high >> 88) & MASK_8) << 32
        deal.first |= ((high >> 72) & MASK_16) << 8
        deal.size |= ((high >> 56) & MASK_16) << 8
        deal.stake_ratio |= ((high >> 48) & MASK_8) << 8
        deal.app |= ((high >> 32) & MASK_16) << 24
        deal.dataset |= ((high >> 16) & MASK_16) << 24
        deal.workerpool |= (high & MASK_16) << 24
    return deal


@internal
@view
def _range(dealid: bytes32) -> (uint256, uint256, uint256, bool):
    """
    @notice What the beginning of a task needs. Reverts without data if there is no deal of exactly this id.
    @return first, size, the workerpool's title, and whether this is a bag that may ask for batches.
    """
    place: address = blobs._at(convert(convert(dealid, uint256) & KEY_MASK, bytes32))
    code: Bytes[39] = slice(place.code, 0, 39)
    assert convert(dealid, uint256) >> KEY_BITS == convert(extract32(code, 7), uint256) & MASK_80
    head: uint256 = convert(extract32(code, 0), uint256) >> 24
    assert head < BOOST << 224
    first: uint256 = (head >> 168) & MASK_8
    size: uint256 = (head >> 160) & MASK_8
    workerpool: uint256 = (head >> 72) & MASK_24
    if head & (WIDE << 224) != 0:
        high: uint256 = self._high(place, head >> 224)
        first |= ((high >> 72) & MASK_16) << 8
        size |= ((high >> 56) & MASK_16) << 8
        workerpool |= (high & MASK_16) << 24
    return first, size, workerpool, head & BAG == BAG


@internal
@view
def _params(key: uint256) -> String[types.PARAMS]:
    place: address = self._place(key)
    flags: uint256 = convert(slice(place.code, 0, 1), uint256)
    return convert(blobs._from(place, self._end(flags)), String[types.PARAMS])


@internal
@pure
def _end(flags: uint256) -> uint256:
    """
    @return Where the params begin.
    """
    end: uint256 = FIXED
    for i: uint256 in range(7):
        if (flags >> i) & 1 != 0:
            end = unsafe_add(end, (PARTS >> (8 * i)) & MASK_8)
    return end


@internal
@view
def _high(place: address, flags: uint256) -> uint256:
    """
    @return The high parts, as a number.
    """
    return self._word(place, self._end(flags)) & (2 ** (8 * WIDE_PART) - 1)


@internal
@view
def _word(place: address, end: uint256) -> uint256:
    return convert(convert(slice(place.code, unsafe_sub(end, 32), 32), bytes32), uint256)
