# pragma version 0.4.3
"""
@title Deals: the record of a match, one blob each
@license Apache-2.0
@notice A deal never changes, so it is a blob under its dealid. From byte 0:

          0  head     29   bits, from the highest: flags 8 | tag 8 | start 40 | first 16 | size 16 | category 8 |
                           trust 8 | timeref 24 | schedulerRatio 8 | stakeRatio 16 | app price 40 |
                           workerpool price 40
         29  dealid           32
         61  app index         4   in its registry
         65  app owner        20
         85  workerpool       20
        105  workerpool owner 20
        125  requester        20
        145  if flag 1:       dataset index 4, dataset owner 20, dataset price 5
             if flag 2:       sponsor 20       (else the requester)
             if flag 4:       callback 20      (else none)
             if flag 8:       beneficiary 20   (else the requester)
             if flag 16:      tag 32           (else the head's 8 bits are all of it)
             if flag 32:      the high parts of what the head is too narrow for, 18 bytes, bits from the highest:
                              first 16 | size 16 | category 8 | trust 24 | timeref 8 | app price 24 |
                              workerpool price 24 | dataset price 24
        then params, to the end

        Flag 64 is kept for boost deals, which share the dealids; flag 128 stays 0 (see blobs.vy).
@dev Prices are below 2**64 because their payer could lock them; the rest is bounded where it enters.
"""
import types
import blobs
import orders

uses: blobs
uses: orders

DATASET: constant(uint256) = 1
SPONSOR: constant(uint256) = 2
CALLBACK: constant(uint256) = 4
BENEFICIARY: constant(uint256) = 8
TAG: constant(uint256) = 16
WIDE: constant(uint256) = 32

# Length of what every deal has.
FIXED: constant(uint256) = 145

# Largest first + size, and trust, of a deal.
VOLUME_LIMIT: constant(uint256) = 2**32
TRUST_LIMIT: constant(uint256) = 2**32


# Who pays the deal that is being made, when not its requester. Set for the time of `sponsorMatchOrders`.
sponsor: transient(address)


# A deal without its params. Amounts in nRLC, times in seconds, ratios in percent.
struct Terms:
    dealid: bytes32
    app: uint256  # its index
    app_owner: address
    app_price: uint256
    dataset: uint256  # its index; means nothing when there is none
    dataset_owner: address  # zero when there is none
    dataset_price: uint256
    workerpool: address
    workerpool_owner: address
    workerpool_price: uint256
    requester: address
    sponsor: address
    beneficiary: address
    callback: address
    tag: uint256
    trust: uint256
    category: uint256
    timeref: uint256  # of the category
    start: uint256
    first: uint256
    size: uint256
    stake_ratio: uint256
    scheduler_ratio: uint256


@internal
@pure
def _id(request: bytes32, first: uint256) -> bytes32:
    return keccak256(concat(request, convert(first, bytes32)))


@internal
@view
def _consumed(request: bytes32) -> uint256:
    """
    @return Used volume of a request order: of the slot, or, where a first deal took all of it, that deal's size.
    """
    used: uint256 = orders.consumed[request]
    if used == 0:
        place: address = blobs._at(self._id(request, 0))
        if place.is_contract:
            used = self._read(place).size
    return used


# ---- The format: written and read here and nowhere else ------------------------------------------------------------

@internal
def _write(deal: Terms):
    """
    @dev The caller has put the params into `blobs.body`.
    """
    flags: uint256 = 0
    dataset: Bytes[29] = b""
    sponsor: Bytes[20] = b""
    callback: Bytes[20] = b""
    beneficiary: Bytes[20] = b""
    tag: Bytes[32] = b""
    high: Bytes[18] = b""
    if deal.dataset_owner != empty(address):
        flags |= DATASET
        dataset = slice(
            abi_encode((deal.dataset << 200) | (convert(deal.dataset_owner, uint256) << 40) | (deal.dataset_price & (2**40 - 1))),
            3, 29,
        )
    if deal.sponsor != deal.requester:
        flags |= SPONSOR
        sponsor = concat(convert(deal.sponsor, bytes20), b"")
    if deal.callback != empty(address):
        flags |= CALLBACK
        callback = concat(convert(deal.callback, bytes20), b"")
    if deal.beneficiary != deal.requester:
        flags |= BENEFICIARY
        beneficiary = concat(convert(deal.beneficiary, bytes20), b"")
    if deal.tag >= 256:
        flags |= TAG
        tag = slice(convert(deal.tag, bytes32), 0, 32)
    wide: uint256 = (
        ((deal.first >> 16) << 128) | ((deal.size >> 16) << 112) | ((deal.category >> 8) << 104)
        | ((deal.trust >> 8) << 80) | ((deal.timeref >> 24) << 72) | ((deal.app_price >> 40) << 48)
        | ((deal.workerpool_price >> 40) << 24) | (deal.dataset_price >> 40)
    )
    if wide != 0:
        flags |= WIDE
        high = slice(convert(wide, bytes32), 14, 18)
    head: uint256 = (
        (flags << 224) | ((deal.tag & 255) << 216) | (deal.start << 176) | ((deal.first & 65535) << 160)
        | ((deal.size & 65535) << 144) | ((deal.category & 255) << 136) | ((deal.trust & 255) << 128)
        | ((deal.timeref & (2**24 - 1)) << 104) | (deal.scheduler_ratio << 96) | (deal.stake_ratio << 80)
        | ((deal.app_price & (2**40 - 1)) << 40) | (deal.workerpool_price & (2**40 - 1))
    )
    blobs._put(
        deal.dealid,
        concat(
            convert(convert(head, uint232), bytes29),
            deal.dealid,
            convert(convert(deal.app, uint32), bytes4),
            convert(deal.app_owner, bytes20),
            convert(deal.workerpool, bytes20),
            convert(deal.workerpool_owner, bytes20),
            convert(deal.requester, bytes20),
            dataset, sponsor, callback, beneficiary, tag, high,
        ),
    )


@internal
@view
def _read(place: address) -> Terms:
    """
    @dev Reverts without data where there is no deal.
    """
    code: Bytes[FIXED] = slice(place.code, 0, FIXED)
    head: uint256 = convert(extract32(code, 0), uint256) >> 24
    flags: uint256 = head >> 224
    deal: Terms = Terms(
        dealid=extract32(code, 29),
        app=convert(extract32(code, 33), uint256) & (2**32 - 1),
        app_owner=convert(convert(extract32(code, 53), uint256) & types.ADDRESS_MASK, address),
        app_price=(head >> 40) & (2**40 - 1),
        dataset=0,
        dataset_owner=empty(address),
        dataset_price=0,
        workerpool=convert(convert(extract32(code, 73), uint256) & types.ADDRESS_MASK, address),
        workerpool_owner=convert(convert(extract32(code, 93), uint256) & types.ADDRESS_MASK, address),
        workerpool_price=head & (2**40 - 1),
        requester=convert(convert(extract32(code, 113), uint256) & types.ADDRESS_MASK, address),
        sponsor=convert(convert(extract32(code, 113), uint256) & types.ADDRESS_MASK, address),
        beneficiary=convert(convert(extract32(code, 113), uint256) & types.ADDRESS_MASK, address),
        callback=empty(address),
        tag=(head >> 216) & 255,
        trust=(head >> 128) & 255,
        category=(head >> 136) & 255,
        timeref=(head >> 104) & (2**24 - 1),
        start=(head >> 176) & (2**40 - 1),
        first=(head >> 160) & 65535,
        size=(head >> 144) & 65535,
        stake_ratio=(head >> 80) & 65535,
        scheduler_ratio=(head >> 96) & 255,
    )
    # Each optional part is read with the 32 bytes that end with it: something always precedes it.
    end: uint256 = FIXED
    if flags & DATASET != 0:
        end += 29
        word: uint256 = self._word(place, end)
        deal.dataset = (word >> 200) & (2**32 - 1)
        deal.dataset_owner = convert((word >> 40) & types.ADDRESS_MASK, address)
        deal.dataset_price = word & (2**40 - 1)
    if flags & SPONSOR != 0:
        end += 20
        deal.sponsor = convert(self._word(place, end) & types.ADDRESS_MASK, address)
    if flags & CALLBACK != 0:
        end += 20
        deal.callback = convert(self._word(place, end) & types.ADDRESS_MASK, address)
    if flags & BENEFICIARY != 0:
        end += 20
        deal.beneficiary = convert(self._word(place, end) & types.ADDRESS_MASK, address)
    if flags & TAG != 0:
        end += 32
        deal.tag = self._word(place, end)
    if flags & WIDE != 0:
        end += 18
        wide: uint256 = self._word(place, end)
        deal.first |= ((wide >> 128) & 65535) << 16
        deal.size |= ((wide >> 112) & 65535) << 16
        deal.category |= ((wide >> 104) & 255) << 8
        deal.trust |= ((wide >> 80) & (2**24 - 1)) << 8
        deal.timeref |= ((wide >> 72) & 255) << 24
        deal.app_price |= ((wide >> 48) & (2**24 - 1)) << 40
        deal.workerpool_price |= ((wide >> 24) & (2**24 - 1)) << 40
        deal.dataset_price |= (wide & (2**24 - 1)) << 40
    return deal


@internal
@view
def _params(place: address) -> String[types.PARAMS]:
    flags: uint256 = convert(slice(place.code, 0, 1), uint256)
    offset: uint256 = (
        FIXED + 29 * (flags & 1) + 20 * (((flags >> 1) & 1) + ((flags >> 2) & 1) + ((flags >> 3) & 1))
        + 32 * ((flags >> 4) & 1) + 18 * ((flags >> 5) & 1)
    )
    return convert(blobs._from(place, offset), String[types.PARAMS])


@internal
@view
def _word(place: address, end: uint256) -> uint256:
    return convert(convert(slice(place.code, end - 32, 32), bytes32), uint256)
