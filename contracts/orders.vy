# pragma version 0.4.3
"""
@title Orders: what is signed, by whom, for whom, and how much of it is used
@license Apache-2.0
"""
import types

# ---- EIP-712 -------------------------------------------------------------------------------------------------------

DOMAIN_TYPE: constant(bytes32) = keccak256(
    "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
)
APP_TYPE: constant(bytes32) = keccak256(
    "AppOrder(address app,uint256 appprice,uint256 volume,bytes32 tag,address datasetrestrict,address workerpoolrestrict,address requesterrestrict,bytes32 salt)"
)
DATASET_TYPE: constant(bytes32) = keccak256(
    "DatasetOrder(address dataset,uint256 datasetprice,uint256 volume,bytes32 tag,address apprestrict,address workerpoolrestrict,address requesterrestrict,bytes32 salt)"
)
WORKERPOOL_TYPE: constant(bytes32) = keccak256(
    "WorkerpoolOrder(address workerpool,uint256 workerpoolprice,uint256 volume,bytes32 tag,uint256 category,uint256 trust,address apprestrict,address datasetrestrict,address requesterrestrict,bytes32 salt)"
)
REQUEST_TYPE: constant(bytes32) = keccak256(
    "RequestOrder(address app,uint256 appmaxprice,address dataset,uint256 datasetmaxprice,address workerpool,uint256 workerpoolmaxprice,address requester,uint256 volume,bytes32 tag,uint256 category,uint256 trust,address beneficiary,address callback,string params,bytes32 salt)"
)

NAME: constant(String[8]) = "iExecODB"
VERSION: constant(String[5]) = "5.0.0"

# EIP-1271 and EIP-2: the answer that means yes, and the highest s that a signature may have.
MAGIC: constant(bytes32) = 0x1626ba7e00000000000000000000000000000000000000000000000000000000
HALF_ORDER: constant(uint256) = 57896044618658097711785492504343953926418782139537452191302581570759080747168

# The chain and the domain separator at deployment; after a chain split the separator is computed anew each time.
CHAIN: immutable(uint256)
SEPARATOR: immutable(bytes32)

# Order hash -> volume that deals have used, or the whole volume once closed. A request order that one deal uses up is
# not written here: the deal itself shows it (see `deals._consumed`).
consumed: HashMap[bytes32, uint256]

# Order hash -> who signed it on chain.
presigned: HashMap[bytes32, address]


@deploy
def __init__(hub: address):
    CHAIN = chain.id
    SEPARATOR = self._separator(hub)


@internal
@view
def _separator(hub: address) -> bytes32:
    return keccak256(abi_encode(DOMAIN_TYPE, keccak256(NAME), keccak256(VERSION), chain.id, hub))


@internal
@view
def _digest(struct_hash: bytes32) -> bytes32:
    """
    @return What a wallet signs: the struct hash under this hub's domain.
    """
    separator: bytes32 = SEPARATOR
    if chain.id != CHAIN:
        separator = self._separator(self)
    return keccak256(concat(x"1901", separator, struct_hash))


@internal
@pure
def _app_struct(order: types.AppOrder) -> bytes32:
    return keccak256(
        abi_encode(
            APP_TYPE, order.app, order.appprice, order.volume, order.tag, order.datasetrestrict,
            order.workerpoolrestrict, order.requesterrestrict, order.salt,
        )
    )


@internal
@pure
def _dataset_struct(order: types.DatasetOrder) -> bytes32:
    return keccak256(
        abi_encode(
            DATASET_TYPE, order.dataset, order.datasetprice, order.volume, order.tag, order.apprestrict,
            order.workerpoolrestrict, order.requesterrestrict, order.salt,
        )
    )


@internal
@pure
def _workerpool_struct(order: types.WorkerpoolOrder) -> bytes32:
    return keccak256(
        abi_encode(
            WORKERPOOL_TYPE, order.workerpool, order.workerpoolprice, order.volume, order.tag, order.category,
            order.trust, order.apprestrict, order.datasetrestrict, order.requesterrestrict, order.salt,
        )
    )


@internal
@pure
def _request_struct(order: types.RequestOrder) -> bytes32:
    return keccak256(
        abi_encode(
            REQUEST_TYPE, order.app, order.appmaxprice, order.dataset, order.datasetmaxprice, order.workerpool,
            order.workerpoolmaxprice, order.requester, order.volume, order.tag, order.category, order.trust,
            order.beneficiary, order.callback, keccak256(order.params), order.salt,
        )
    )


# ---- Signatures ----------------------------------------------------------------------------------------------------

@internal
@view
def _recovers(identity: address, digest: bytes32, sign: Bytes[types.SIGNATURE]) -> bool:
    """
    @return Whether `sign` is the signature of the key behind `identity`: 65 bytes (r, s, v) or 64 (EIP-2098).
    """
    r: uint256 = 0
    s: uint256 = 0
    v: uint256 = 0
    if len(sign) == 65:
        s = convert(extract32(sign, 32), uint256)
        v = convert(extract32(sign, 33), uint256) & 255
    elif len(sign) == 64:
        s = convert(extract32(sign, 32), uint256)
        v = (s >> 255) + 27
        s &= 2**255 - 1
    else:
        return False
    r = convert(extract32(sign, 0), uint256)
    # A failed recovery gives the zero address, which must be nobody's signature.
    return s <= HALF_ORDER and identity != empty(address) and ecrecover(digest, v, r, s) == identity


@internal
@view
def _approves(identity: address, digest: bytes32, sign: Bytes[types.SIGNATURE]) -> bool:
    """
    @return Whether the contract at `identity` says by EIP-1271 that it signed. A refusal by revert is a no; an
            answer that is not a bytes4 reverts.
    """
    if not identity.is_contract:
        assert len(sign) == 65 or len(sign) == 64, "invalid-signature-format"
        return False
    success: bool = False
    answer: Bytes[32] = b""
    success, answer = raw_call(
        identity,
        abi_encode(digest, sign, method_id=method_id("isValidSignature(bytes32,bytes)")),
        max_outsize=32,
        is_static_call=True,
        revert_on_failure=False,
    )
    if not success:
        return False
    word: bytes32 = extract32(answer, 0)
    assert convert(word, uint256) << 32 == 0
    return word == MAGIC


@internal
@view
def _signed(identity: address, digest: bytes32, sign: Bytes[types.SIGNATURE]) -> bool:
    """
    @notice `verifySignature`. An account with code may sign with its key too (EIP-7702), which saves a cold look at
            the code of every ordinary signer.
    """
    return self._recovers(identity, digest, sign) or self._approves(identity, digest, sign)


@internal
@view
def _presigned(identity: address, digest: bytes32) -> bool:
    return identity != empty(address) and self.presigned[digest] == identity


@internal
@view
def _authentic(identity: address, digest: bytes32, sign: Bytes[types.SIGNATURE]) -> bool:
    """
    @notice `verifyPresignatureOrSignature`. The recovery comes first because it reads no slot; what can revert comes
            last, so that a presigned order passes whatever its signature is.
    """
    return (
        self._recovers(identity, digest, sign)
        or self._presigned(identity, digest)
        or self._approves(identity, digest, sign)
    )


@internal
@view
def _vouched(identity: address, message: bytes32, sign: Bytes[types.SIGNATURE]) -> bool:
    """
    @return Whether `identity` signed 32 bytes as a personal message (EIP-191).
    """
    return self._signed(identity, keccak256(concat(b"\x19Ethereum Signed Message:\n32", message)), sign)


# ---- Restrictions --------------------------------------------------------------------------------------------------

@internal
@view
def _admits(restriction: address, account: address) -> bool:
    """
    @return Whether an order's restriction lets an account in: zero is anyone, an account is itself, a contract may be
            an ERC-734 group.
    """
    if restriction == empty(address) or restriction == account:
        return True
    if not restriction.is_contract:
        return False
    success: bool = False
    answer: Bytes[32] = b""
    success, answer = raw_call(
        restriction,
        abi_encode(account, types.GROUPMEMBER_PURPOSE, method_id=method_id("keyHasPurpose(bytes32,uint256)")),
        max_outsize=32,
        is_static_call=True,
        revert_on_failure=False,
    )
    if not success:
        return False
    word: uint256 = convert(extract32(answer, 0), uint256)
    assert word <= 1
    return word == 1
