# pragma version 0.4.3
"""
@title Blobs: bytes kept as the code of a contract, byte for byte at a third of the price of slots
@license Apache-2.0
@notice A blob lives at the CREATE2 address of its key, made by a constant creation code that asks its creator (this
        hub, which answers from transient storage) for the bytes. So the address depends on the key alone and can be
        computed without a slot, and the code is the bytes themselves.
@dev A second CREATE2 onto the same key would burn all gas it was given: callers make sure that a key is new. Code
     may not begin with 0xEF (EIP-3541): no format's first byte is above 0x87.
"""
import types

# STATICCALL the creator with empty calldata, return what it returned.
INITCODE: constant(Bytes[15]) = x"5f5f5f5f335afa503d5f5f3e3d5ff3"
INITCODE_HASH: constant(bytes32) = keccak256(x"5f5f5f5f335afa503d5f5f3e3d5ff3")

# Return what follows.
COPY: constant(Bytes[11]) = x"600b380380600b5f395ff3"

# What an address made by CREATE2 is hashed with.
CREATE2: constant(bytes1) = 0xff

# Longest blob: a deal's fixed and optional parts (252) and its params.
LENGTH: constant(uint256) = 252 + types.PARAMS

# The blob in the making, or the transaction's last one: emptying it would cost as much as a write.
held: transient(Bytes[LENGTH])


@internal
@view
def _at(key: bytes32) -> address:
    """
    @return Where the blob of a key is, or would be.
    """
    digest: bytes32 = keccak256(concat(CREATE2, convert(self, bytes20), key, INITCODE_HASH))
    return convert(convert(digest, uint256) & types.ADDRESS_MASK, address)


@internal
def _put(key: bytes32):
    """
    @notice Keep `held` under a key that was never used.
    @dev The caller fills `held` itself, from its own memory: an argument would be copied, and reserve memory below
         every caller.
    """
    made: address = raw_create(INITCODE, salt=key)


@internal
@view
def _from(place: address, offset: uint256) -> Bytes[types.PARAMS]:
    """
    @return The blob's bytes from `offset` on. For views: it reads word by word, then byte by byte.
    """
    size: uint256 = place.codesize
    rest: Bytes[types.PARAMS] = b""
    at: uint256 = offset
    for i: uint256 in range(types.PARAMS // 32):
        if at + 32 > size:
            break
        rest = convert(concat(rest, slice(place.code, at, 32)), Bytes[types.PARAMS])
        at += 32
    for i: uint256 in range(31):
        if at == size:
            break
        rest = convert(concat(rest, slice(place.code, at, 1)), Bytes[types.PARAMS])
        at += 1
    return rest
