# pragma version 0.4.3
"""
@title Quorum: the hub's TEE broker, t of n SMS nodes
@license Apache-2.0
@notice A hub asks its TEE broker whether an enclave may contribute to a task. Here no single node can say
        yes: the answer is yes (EIP-1271) when `threshold` members signed the same grant. Members change by
        the members' own signatures; this contract has no owner. It may own others, such as the hub: then what an
        owner does takes as many signatures. Should fewer than `threshold` members be left who can sign, nothing
        can be granted or changed any more, and the hub's owner, if it has another, names another quorum.
@dev Every authorisation is a blob:

       32 bytes   validUntil, the last second of its life (unix time, big-endian)
       65 bytes   r, s, v of the first signer; low s, v 27 or 28
       ...        one signature for each further signer, in strictly ascending order of their addresses

     Each signs the EIP-712 digest, in this contract's domain ("Sealdeal Quorum", "1", chain id, address), of

       Grant(bytes32 digest,uint256 validUntil)
       Change(address[] add,address[] remove,uint256 threshold,bool compromised,uint256 nonce,uint256 validUntil)
       Execute(address target,bytes data,uint256 nonce,uint256 validUntil)

     where `digest` is the hash that the hub asks about.
"""

event MemberAdded:
    member: indexed(address)

event MemberRemoved:
    member: indexed(address)
    validUntil: uint256

event ThresholdChanged:
    threshold: uint256

event Executed:
    target: indexed(address)
    nonce: uint256
    data: Bytes[DATA]


# Most members.
SIZE: constant(uint256) = 15

# Longest grace, in seconds: 90 days.
MAX_GRACE: constant(uint256) = 90 * 86400

# Length of a signature, and of the longest blob.
SIGNATURE: constant(uint256) = 65
BLOB: constant(uint256) = 32 + SIZE * SIGNATURE

# Longest calldata of what the members decide to execute: a category's three texts and more.
DATA: constant(uint256) = 2048

# EIP-1271's yes, and what is said instead of it.
ACCEPTED: constant(bytes4) = 0x1626ba7e
REFUSED: constant(bytes4) = 0xffffffff

# s of a signature that cannot be turned into another valid one (secp256k1's order, halved).
LOW_S: constant(bytes32) = 0x7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0

# A member that was not removed signs until for ever.
ALWAYS: constant(uint256) = max_value(uint256)

DOMAIN_TYPE: constant(bytes32) = keccak256(
    "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
)
GRANT_TYPE: constant(bytes32) = keccak256("Grant(bytes32 digest,uint256 validUntil)")
CHANGE_TYPE: constant(bytes32) = keccak256(
    "Change(address[] add,address[] remove,uint256 threshold,bool compromised,uint256 nonce,uint256 validUntil)"
)
EXECUTE_TYPE: constant(bytes32) = keccak256(
    "Execute(address target,bytes data,uint256 nonce,uint256 validUntil)"
)


# "hardware" or "simulated": what evidence its members accept. Fixed for ever, so that a network of the one
# class cannot become the other under its users.
trust: public(immutable(String[9]))

# Seconds for which a removed member's signatures still count, so that a change does not void grants under
# way.
grace: public(immutable(uint256))

# The chain at deployment, and the domain separator there: the usual case costs no hashing.
CHAIN: immutable(uint256)
SEPARATOR: immutable(bytes32)

# How many members must sign.
threshold: public(uint256)

# Number of changes and executions so far; each names it, so none can be replayed, and they happen in the order
# in which the members agreed on them.
nonce: public(uint256)

# Signer -> last second at which a signature counts: for ever for a member, the end of grace for a removed
# one, 0 for a stranger or a compromised one.
validUntil: public(HashMap[address, uint256])

# The members, in no particular order: for readers, and to count them.
_members: DynArray[address, SIZE]


@deploy
def __init__(members: DynArray[address, SIZE], threshold: uint256, grace_: uint256, trust_: String[9]):
    """
    @param members Addresses with which the nodes sign.
    @param threshold How many of them must agree.
    @param grace_ Seconds for which a removed member still counts.
    @param trust_ "hardware" or "simulated".
    """
    assert trust_ == "hardware" or trust_ == "simulated", "Quorum: trust is hardware or simulated"
    assert grace_ <= MAX_GRACE, "Quorum: grace is above 90 days"
    trust = trust_
    grace = grace_
    CHAIN = chain.id
    SEPARATOR = self._separator()
    self._add(members)
    self._set_threshold(threshold)


# ---- Grants ------------------------------------------------------------------------------------------------

@external
@view
def isValidSignature(hash: bytes32, blob: Bytes[BLOB]) -> bytes4:
    """
    @notice EIP-1271: 0x1626ba7e if the quorum grants `hash`, else 0xffffffff. It reverts only for a blob
            longer than 15 signatures.
    """
    if len(blob) < 32:
        return REFUSED
    if self._signed(keccak256(abi_encode(GRANT_TYPE, hash, extract32(blob, 0))), blob, False):
        return ACCEPTED
    return REFUSED


# ---- Changes -----------------------------------------------------------------------------------------------

@external
def changeMembers(
    add: DynArray[address, SIZE],
    remove: DynArray[address, SIZE],
    threshold: uint256,
    compromised: bool,
    nonce: uint256,
    blob: Bytes[BLOB],
):
    """
    @notice Remove and add members and set the threshold, as `threshold` current members signed. Anyone may
            send it.
    @param compromised Whether the removed lose their voice at once rather than after `grace`. With it,
           members removed earlier whose grace still runs may be named too.
    """
    assert nonce == self.nonce, "Quorum: nonce is not the current one"
    assert len(blob) >= 32, "Quorum: not authorised"
    change: bytes32 = keccak256(
        abi_encode(
            CHANGE_TYPE,
            self._hash(add),
            self._hash(remove),
            threshold,
            compromised,
            nonce,
            extract32(blob, 0),
        )
    )
    assert self._signed(change, blob, True), "Quorum: not authorised"
    self.nonce = nonce + 1
    self._remove(remove, compromised)
    self._add(add)
    self._set_threshold(threshold)


# ---- Executions --------------------------------------------------------------------------------------------

@external
def execute(target: address, data: Bytes[DATA], nonce: uint256, blob: Bytes[BLOB]):
    """
    @notice Make a call as this contract, as `threshold` current members signed. Anyone may send it. If the target
            refuses, nothing happened, and the same signatures may be tried again.
    """
    assert nonce == self.nonce, "Quorum: nonce is not the current one"
    assert len(blob) >= 32, "Quorum: not authorised"
    decision: bytes32 = keccak256(
        abi_encode(EXECUTE_TYPE, target, keccak256(data), nonce, extract32(blob, 0))
    )
    assert self._signed(decision, blob, True), "Quorum: not authorised"
    assert target.is_contract, "Quorum: the target has no code"
    # First, so that the target cannot call back with the same signatures.
    self.nonce = nonce + 1
    log Executed(target=target, nonce=nonce, data=data)
    raw_call(target, data)


# ---- Views -------------------------------------------------------------------------------------------------

@external
@view
def members() -> DynArray[address, SIZE]:
    return self._members


@external
@view
def isMember(account: address) -> bool:
    return self.validUntil[account] == ALWAYS


@external
@view
def eip712domain_separator() -> bytes32:
    return self._domain()


# ---- How signatures count ----------------------------------------------------------------------------------

@internal
@view
def _signed(struct_hash: bytes32, blob: Bytes[BLOB], members_only: bool) -> bool:
    """
    @dev Whether `blob`, of at least 32 bytes, has not expired and holds nothing but signatures over the
         struct, at least `threshold`, by distinct signers whose voice counts now.
    """
    count: uint256 = (len(blob) - 32) // SIGNATURE
    if len(blob) != 32 + count * SIGNATURE or count < self.threshold:
        return False
    if block.timestamp > convert(extract32(blob, 0), uint256):
        return False
    digest: bytes32 = keccak256(concat(x"1901", self._domain(), struct_hash))
    # Ascending signers are distinct ones; a failed recovery gives zero, which ascends from nothing.
    last: uint256 = 0
    for i: uint256 in range(count, bound=SIZE):
        at: uint256 = 32 + i * SIGNATURE
        r: bytes32 = extract32(blob, at)
        s: bytes32 = extract32(blob, at + 32)
        v: uint256 = convert(slice(blob, at + 64, 1), uint256)
        if convert(s, uint256) > convert(LOW_S, uint256) or (v != 27 and v != 28):
            return False
        signer: address = ecrecover(digest, v, r, s)
        if convert(signer, uint256) <= last:
            return False
        last = convert(signer, uint256)
        if self.validUntil[signer] < (ALWAYS if members_only else block.timestamp):
            return False
    return True


@internal
@view
def _domain() -> bytes32:
    return SEPARATOR if chain.id == CHAIN else self._separator()


@internal
@view
def _separator() -> bytes32:
    return keccak256(abi_encode(DOMAIN_TYPE, keccak256("Sealdeal Quorum"), keccak256("1"), chain.id, self))


@internal
@pure
def _hash(accounts: DynArray[address, SIZE]) -> bytes32:
    """
    @dev EIP-712's hash of an array: its elements, each in 32 bytes, without offset and length.
    """
    return keccak256(slice(abi_encode(accounts), 64, 32 * len(accounts)))


# ---- How members change ------------------------------------------------------------------------------------

@internal
def _add(accounts: DynArray[address, SIZE]):
    assert len(self._members) + len(accounts) <= SIZE, "Quorum: more than 15 members"
    for account: address in accounts:
        assert account != empty(address), "Quorum: the zero address cannot sign"
        assert self.validUntil[account] != ALWAYS, "Quorum: already a member"
        self.validUntil[account] = ALWAYS
        self._members.append(account)
        log MemberAdded(member=account)


@internal
def _remove(accounts: DynArray[address, SIZE], compromised: bool):
    until: uint256 = 0 if compromised else block.timestamp + grace
    for account: address in accounts:
        if self.validUntil[account] == ALWAYS:
            self._drop(account)
        else:
            assert compromised and self.validUntil[account] != 0, "Quorum: not a member"
        self.validUntil[account] = until
        log MemberRemoved(member=account, validUntil=until)


@internal
def _drop(account: address):
    last: address = self._members.pop()
    if last == account:
        return
    for i: uint256 in range(len(self._members), bound=SIZE):
        if self._members[i] == account:
            self._members[i] = last
            return


@internal
def _set_threshold(threshold: uint256):
    assert 0 < threshold, "Quorum: threshold is zero"
    assert threshold <= len(self._members), "Quorum: threshold is above the number of members"
    self.threshold = threshold
    log ThresholdChanged(threshold=threshold)
