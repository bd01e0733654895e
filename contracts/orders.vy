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
    "AppOrder(address app,uint256 appprice,uint256 volume,bytes32 tag,address datasetrestrict,"
    "address workerpoolrestrict,address requesterrestrict,bytes32 salt)"
)
DATASET_TYPE: constant(bytes32) = keccak256(
    "DatasetOrder(address dataset,uint256 datasetprice,uint256 volume,bytes32 tag,address apprestrict,"
    "address workerpoolrestrict,address requesterrestrict,bytes32 salt)"
)
WORKERPOOL_TYPE: constant(bytes32) = keccak256(
    "WorkerpoolOrder(address workerpool,uint256 workerpoolprice,uint256 volume,bytes32 tag,uint256 category,"
    "uint256 trust,address apprestrict,address datasetrestrict,address requesterrestrict,bytes32 salt)"
)
REQUEST_TYPE: constant(bytes32) = keccak256(
    "RequestOrder(address app,uint256 appmaxprice,address dataset,uint256 datasetmaxprice,address workerpool,"
    "uint256 workerpoolmaxprice,address requester,uint256 volume,bytes32 tag,uint256 category,uint256 trust,"
    "address beneficiary,address callback,string params,bytes32 salt)"
)

# What EIP-712 puts before the separator.
PREFIX: constant(bytes2) = 0x1901

# Of the domain.
NAME: constant(String[8]) = "iExecODB"
VERSION: constant(String[5]) = "5.0.0"

# EIP-1271: the answer that means yes.
MAGIC: constant(bytes32) = 0x1626ba7e00000000000000000000000000000000000000000000000000000000

# EIP-2: the highest s that a signature may have.
HALF_ORDER: constant(uint256) = 57896044618658097711785492504343953926418782139537452191302581570759080747168

# What a request order's salt begins with if it chooses who may match it, whose address follows: the 12 bytes
# "sealdeal:mtc", as a number.
CHOSEN: constant(uint256) = 35713337706267254260117632099

# Parts of an order's word, drawn below.
USED: constant(uint256) = 160
WIDE: constant(uint256) = 255
USED_LIMIT: constant(uint256) = 2**95

# The chain at deployment.
CHAIN: immutable(uint256)

# The domain separator at deployment; on another chain (after a split) it is computed anew each time.
SEPARATOR: immutable(bytes32)

# Order hash -> what the chain knows of the order, bits from the lowest:
#   0  presigner  160   who signed it on chain (zero: nobody)
# 160  used        95   volume that deals have used, or the whole volume once closed. Not written for a request order
#                       that its first deal uses up, or that is closed before: a blob tells (see `deals._next`)
# 255  wide         1   the order is closed, and its volume, which 95 bits could not hold, is in `wide`
words: HashMap[bytes32, uint256]

# Order hash -> its volume, of an order that is closed with a volume of more than 95 bits.
wide: HashMap[bytes32, uint256]


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
def _domain() -> bytes32:
    """
    @return The domain separator of now.
    """
    if chain.id == CHAIN:
        return SEPARATOR
    return self._separator(self)


@internal
@pure
def _digest(domain: bytes32, struct_hash: bytes32) -> bytes32:
    """
    @return What a wallet signs: a struct hash under a domain.
    """
    return keccak256(concat(PREFIX, domain, struct_hash))


@internal
@pure
def _asset_struct(
    order_type: bytes32, asset: address, price: uint256, volume: uint256, tag: bytes32,
    restrict: address, restrict2: address, restrict3: address, salt: bytes32,
) -> bytes32:
    """
    @notice Struct hash of an app order or a dataset order, which differ in their type and the names of their fields.
    """
    return keccak256(abi_encode(order_type, asset, price, volume, tag, restrict, restrict2, restrict3, salt))


@internal
@pure
def _workerpool_struct(
    workerpool: address, price: uint256, volume: uint256, tag: bytes32, category: uint256, trust: uint256,
    apprestrict: address, datasetrestrict: address, requesterrestrict: address, salt: bytes32,
) -> bytes32:
    return keccak256(
        abi_encode(
            WORKERPOOL_TYPE, workerpool, price, volume, tag, category, trust, apprestrict, datasetrestrict,
            requesterrestrict, salt,
        )
    )


@internal
@pure
def _request_struct(
    app: address, appmaxprice: uint256, dataset: address, datasetmaxprice: uint256, workerpool: address,
    workerpoolmaxprice: uint256, requester: address, volume: uint256, tag: bytes32, category: uint256,
    trust: uint256, beneficiary: address, callback: address, params_hash: bytes32, salt: bytes32,
) -> bytes32:
    return keccak256(
        abi_encode(
            REQUEST_TYPE, app, appmaxprice, dataset, datasetmaxprice, workerpool, workerpoolmaxprice, requester,
            volume, tag, category, trust, beneficiary, callback, params_hash, salt,
        )
    )


# ---- Signatures ----------------------------------------------------------------------------------------------------
#
# An account's key is tried first, which reads neither slot nor code, so that ordinary signers cost least. An account with
# code may sign with its key too (EIP-7702).

@internal
@view
def _signed(identity: address, digest: bytes32, sign: Bytes[types.SIGNATURE], order: bool) -> bool:
    """
    @return Whether `identity` signed: with its key, in 65 bytes (r, s, v) or the 64 of EIP-2098; on chain, if the
            digest is an `order`'s; or as EIP-1271 says.
    """
    # A failed recovery gives the zero address: nobody's.
    length: uint256 = len(sign)
    if (length == 65 or length == 64) and identity != empty(address):
        s: uint256 = convert(extract32(sign, 32), uint256)
        v: uint256 = 0
        if length == 65:
            v = convert(extract32(sign, 33), uint256) & 255
        else:
            v = (s >> 255) + 27
            s &= 2**255 - 1
        if s <= HALF_ORDER and identity == ecrecover(digest, v, convert(extract32(sign, 0), uint256), s):
            return True
    if order and identity != empty(address) and self._presigner(digest) == identity:
        return True
    # EIP-1271. A refusal by revert is a no; an answer that is not a bytes4 reverts. What has no code should have signed
    # with its key, in one of the two forms.
    if not identity.is_contract:
        assert length == 65 or length == 64, "invalid-signature-format"
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
    magic: bytes32 = extract32(answer, 0)
    assert convert(magic, uint256) << 32 == 0
    return magic == MAGIC


# ---- The word ------------------------------------------------------------------------------------------------------

@internal
@view
def _used(order: bytes32, word: uint256) -> uint256:
    """
    @return What the word of this order tells of its used volume.
    """
    if word >> WIDE != 0:
        return self.wide[order]
    return word >> USED


@internal
@view
def _consumed(order: bytes32) -> uint256:
    return self._used(order, self.words[order])


@internal
def _consume(order: bytes32, volume: uint256):
    """
    @notice The order is closed: all of its volume is used.
    """
    used: uint256 = volume
    if volume >= USED_LIMIT:
        self.wide[order] = volume
        used = USED_LIMIT
    self.words[order] = (self.words[order] & types.ADDRESS_MASK) | (used << USED)


@internal
@view
def _presigner(order: bytes32) -> address:
    return convert(self.words[order] & types.ADDRESS_MASK, address)


@internal
def _presign(order: bytes32, signer: address):
    self.words[order] = (self.words[order] & ~types.ADDRESS_MASK) | convert(signer, uint256)


# ---- Restrictions --------------------------------------------------------------------------------------------------

@internal
@view
def _chosen(salt: bytes32, requester: address, token: address) -> bool:
    """
    @return Whether the sender may match this request order: whom its salt chooses, if it does choose, or the requester,
            for whom the base token speaks too (escrow.vy, `receiveApproval`).
    """
    word: uint256 = convert(salt, uint256)
    if word >> 160 != CHOSEN:
        return True
    return (
        msg.sender == requester or msg.sender == convert(word & types.ADDRESS_MASK, address) or msg.sender == token
    )


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


@internal
@view
def _refusing(
    app_dataset: address, app_workerpool: address, app_requester: address,
    dataset_app: address, dataset_workerpool: address, dataset_requester: address,
    workerpool_app: address, workerpool_dataset: address, workerpool_requester: address,
    app: address, dataset: address, workerpool: address, requester: address,
) -> uint256:
    """
    @return Which restriction of three orders, in the order in which they stand here and from 1, is the first that does
            not let in whom it is about; zero: none.
    """
    restrictions: address[9] = [
        app_dataset, app_workerpool, app_requester, dataset_app, dataset_workerpool, dataset_requester,
        workerpool_app, workerpool_dataset, workerpool_requester,
    ]
    accounts: address[9] = [
        dataset, workerpool, requester, app, workerpool, requester, app, dataset, requester,
    ]
    for i: uint256 in range(9):
        if not self._admits(restrictions[i], accounts[i]):
            return i + 1
    return 0
