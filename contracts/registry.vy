# pragma version 0.4.3
"""
@title Registry: an ERC-721 collection whose tokens are entry contracts
@license Apache-2.0
@notice What AppRegistry, DatasetRegistry and WorkerpoolRegistry share: Ownable, ERC-721 with metadata and
        enumeration, CREATE2 entries, and the mirror of every entry in the hub. A token's id is its entry's
        address as a number. Tokens are never burned. Texts of refusals are those of the official registries
        (OpenZeppelin 3.3), bare `assert`s refuse without data, as there.
@dev Everything about one token is one word, its record. All but its last field is pushed into the hub whenever
     it changes, so a match reads no registry. The hub keeps the first four fields; where the index was, it puts
     a number of its own (the title: settings.vy).

       bit   0  owner           160
           160  stakeRatio       16   percent of the pool's price that a worker stakes (workerpools only)
           176  schedulerRatio    8   percent of the pool's price that its owner keeps (workerpools only)
           184  kind              8   1 app, 2 dataset, 3 workerpool
           192  index            32   place in this registry, from 0: `tokenByIndex`
           224  place            32   place in its owner's list, from 0: `tokenOfOwnerByIndex` (not pushed)

     32 bits hold any index: 2**32 creations would cost more than 10**15 gas.
"""
import types


interface Hub:
    def sync(entry: address, packed: uint256): nonpayable

interface Previous:
    def isRegistered(entry: address) -> bool: view


event Transfer:
    from_: indexed(address)
    to: indexed(address)
    tokenId: indexed(uint256)

event Approval:
    owner: indexed(address)
    approved: indexed(address)
    tokenId: indexed(uint256)

event ApprovalForAll:
    owner: indexed(address)
    operator: indexed(address)
    approved: bool

event OwnershipTransferred:
    previousOwner: indexed(address)
    newOwner: indexed(address)


# Longest calldata of an entry's `initialize`: an app's selector, five head words, two texts, two blobs.
SETUP: constant(uint256) = 4 + 5 * 32 + 2 * (32 + types.TEXT) + 2 * (32 + types.BLOB)

# Longest data of a safe transfer.
DATA: constant(uint256) = 4096

# What a contract is asked before it is given a token safely, and what it answers to take it.
ON_RECEIVED: constant(bytes4) = 0x150b7a02

# Longest reason of a receiver's refusal that is passed on; the rest is cut off.
REASON: constant(uint256) = 1024

# Creation code of an ERC-1167 proxy, before and after the master's address.
PROXY_HEAD: constant(Bytes[19]) = x"602d3d8160093d39f3363d3d373d3d3d363d73"
PROXY_TAIL: constant(Bytes[15]) = x"5af43d82803e903d91602b57fd5bf3"

# Parts of a record: its owner, and what the hub is told.
OWNER_MASK: constant(uint256) = 2**160 - 1
MIRROR_MASK: constant(uint256) = 2**224 - 1


# Who is told of each new owner and policy; zero for a registry on its own.
HUB: immutable(address)

# The code of every entry; made by this registry, so it knows whose entries are real.
master: public(immutable(address))

# What CREATE2 runs for every entry: the address of an entry depends on it, and clients may compute it.
proxyCode: public(immutable(Bytes[54]))

# Its hash, a factor of every entry's address.
proxyCodeHash: public(immutable(bytes32))

# Bits 160 to 191 of a newborn entry's record: its kind and default policies.
TRAITS: immutable(uint256)

# ERC-721 metadata of the collection: its name.
name: public(immutable(String[64]))

# The same: its symbol.
symbol: public(immutable(String[32]))

# Who may set the base URI and, once, the previous registry. Has no power over entries.
owner: public(address)

# An earlier registry whose entries count as registered here (they are not mirrored in the hub).
previous: public(address)

# Whether `previous` was settled; it cannot change afterwards.
initialized: public(bool)

# What `tokenURI` puts before the id.
baseURI: public(String[256])

# Number of entries, and so the next entry's index.
totalSupply: public(uint256)

# Index -> entry, in the order of creation: `tokenByIndex`. The hub does not ask for it.
entryAt: public(HashMap[uint256, address])

# Token id -> record, as drawn above; zero where there is no token. Keyed by the whole number, so that an id
# above 160 bits is a token that does not exist rather than a decoding error.
_records: HashMap[uint256, uint256]

# Owner -> number of entries.
_balances: HashMap[address, uint256]

# Owner -> place -> token id: `tokenOfOwnerByIndex`.
_owned: HashMap[address, HashMap[uint256, uint256]]

# Token id -> who else may transfer this one token.
_approvals: HashMap[uint256, address]

# Owner -> operator -> may transfer all of the owner's tokens.
isApprovedForAll: public(HashMap[address, HashMap[address, bool]])


@deploy
def __init__(hub: address, entry_code: Bytes[16384], traits: uint256, name_: String[64], symbol_: String[32]):
    """
    @param hub The hub's address (it may not exist yet, but nothing can be created before it does), or zero.
    @param entry_code Creation code of the entries' master, a contract whose constructor takes no arguments.
    @param traits Bits 160 to 191 of a new record.
    """
    HUB = hub
    TRAITS = traits
    name = name_
    symbol = symbol_
    master = raw_create(entry_code)
    proxyCode = concat(PROXY_HEAD, convert(master, bytes20), PROXY_TAIL)
    proxyCodeHash = keccak256(proxyCode)
    self._own(msg.sender)


# ---- Ownable -----------------------------------------------------------------------------------------------

@external
def transferOwnership(new_owner: address):
    self._only_owner()
    assert new_owner != empty(address), "Ownable: new owner is the zero address"
    self._own(new_owner)


@external
def renounceOwnership():
    self._only_owner()
    self._own(empty(address))


@internal
def _own(new_owner: address):
    log OwnershipTransferred(previousOwner=self.owner, newOwner=new_owner)
    self.owner = new_owner


@internal
@view
def _only_owner():
    assert msg.sender == self.owner, "Ownable: caller is not the owner"


# ---- The registry itself -----------------------------------------------------------------------------------

@external
def initialize(previous_registry: address):
    """
    @notice Settle, once, which earlier registry's entries count as registered here; zero for none.
    """
    self._only_owner()
    assert not self.initialized
    self.initialized = True
    self.previous = previous_registry


@external
def setBaseURI(base_uri: String[256]):
    self._only_owner()
    self.baseURI = base_uri


@external
def setName(ens: address, reverse_name: String[types.TEXT]):
    """
    @notice Always refused: it named a registry in ENS, which the protocol's chains do not have.
    """
    self._only_owner()
    raise "Operation not supported on this chain"


@external
@view
def isRegistered(entry: address) -> bool:
    if self._records[self._id(entry)] != 0:
        return True
    if self.previous == empty(address):
        return False
    return staticcall Previous(self.previous).isRegistered(entry)


@external
@view
def packed(entry: address) -> uint256:
    """
    @notice What the hub was told about an entry: its record without `place`; zero if it is not of this
            registry.
    """
    return self._records[self._id(entry)] & MIRROR_MASK


# ---- Making entries ----------------------------------------------------------------------------------------

@internal
def _create(owner: address, setup: Bytes[SETUP]) -> address:
    """
    @param setup Calldata of the entry's `initialize`; with the owner it decides the address.
    """
    assert owner != empty(address), "ERC721: mint to the zero address"
    salt: bytes32 = self._salt(owner, setup)
    # Looked up first, because a CREATE2 onto existing code burns all gas it was given.
    assert self._records[self._id(self._address(salt))] == 0, "Create2: Failed on deploy"
    entry: address = raw_create(proxyCode, salt=salt)
    raw_call(entry, setup)

    index: uint256 = self.totalSupply
    self.totalSupply = index + 1
    self.entryAt[index] = entry
    self._give(self._id(entry), TRAITS | (index << 192), empty(address), owner)
    return entry


@internal
@view
def _predict(owner: address, setup: Bytes[SETUP]) -> address:
    return self._address(self._salt(owner, setup))


@internal
@pure
def _salt(owner: address, setup: Bytes[SETUP]) -> bytes32:
    return keccak256(concat(setup, convert(owner, bytes20)))


@internal
@view
def _address(salt: bytes32) -> address:
    digest: bytes32 = keccak256(concat(x"ff", convert(self, bytes20), salt, proxyCodeHash))
    return convert(convert(digest, uint256) & OWNER_MASK, address)


@internal
@pure
def _id(entry: address) -> uint256:
    return convert(entry, uint256)


# ---- ERC-721 -----------------------------------------------------------------------------------------------

@external
@view
def supportsInterface(interface_id: bytes4) -> bool:
    # ERC-165, ERC-721, ERC-721 Metadata, ERC-721 Enumerable
    return interface_id in [0x01ffc9a7, 0x80ac58cd, 0x5b5e139f, 0x780e9d63]


@external
@view
def balanceOf(owner: address) -> uint256:
    assert owner != empty(address), "ERC721: balance query for the zero address"
    return self._balances[owner]


@external
@view
def ownerOf(id: uint256) -> address:
    return self._owner_of(id)


@external
@view
def tokenURI(id: uint256) -> String[334]:
    assert self._records[id] != 0, "ERC721Metadata: URI query for nonexistent token"
    if len(self.baseURI) == 0:
        return ""
    return concat(self.baseURI, uint2str(id))


@external
@view
def tokenByIndex(index: uint256) -> uint256:
    assert index < self.totalSupply, "EnumerableMap: index out of bounds"
    return self._id(self.entryAt[index])


@external
@view
def tokenOfOwnerByIndex(owner: address, index: uint256) -> uint256:
    assert index < self._balances[owner], "EnumerableSet: index out of bounds"
    return self._owned[owner][index]


@external
@view
def getApproved(id: uint256) -> address:
    assert self._records[id] != 0, "ERC721: approved query for nonexistent token"
    return self._approvals[id]


@external
def approve(to: address, id: uint256):
    owner: address = self._owner_of(id)
    assert to != owner, "ERC721: approval to current owner"
    assert (
        msg.sender == owner or self.isApprovedForAll[owner][msg.sender]
    ), "ERC721: approve caller is not owner nor approved for all"
    self._approve(owner, to, id)


@external
def setApprovalForAll(operator: address, approved: bool):
    assert operator != msg.sender, "ERC721: approve to caller"
    self.isApprovedForAll[msg.sender][operator] = approved
    log ApprovalForAll(owner=msg.sender, operator=operator, approved=approved)


@external
def transferFrom(source: address, to: address, id: uint256):
    self._transfer(source, to, id)


@external
def safeTransferFrom(source: address, to: address, id: uint256, data: Bytes[DATA] = b""):
    self._transfer(source, to, id)
    # Last, because the receiver may call back into this registry.
    if not to.is_contract:
        return
    success: bool = False
    answer: Bytes[REASON] = b""
    success, answer = raw_call(
        to,
        abi_encode(msg.sender, source, id, data, method_id=ON_RECEIVED),
        max_outsize=REASON,
        revert_on_failure=False,
    )
    if not success and len(answer) != 0:
        raw_revert(answer)
    if not success or convert(extract32(answer, 0), uint256) >> 224 != convert(ON_RECEIVED, uint256):
        raise "ERC721: transfer to non ERC721Receiver implementer"


@internal
@view
def _owner_of(id: uint256) -> address:
    record: uint256 = self._records[id]
    assert record != 0, "ERC721: owner query for nonexistent token"
    return self._owner(record)


@internal
@pure
def _owner(record: uint256) -> address:
    return convert(record & OWNER_MASK, address)


@internal
def _approve(owner: address, to: address, id: uint256):
    self._approvals[id] = to
    log Approval(owner=owner, approved=to, tokenId=id)


@internal
def _transfer(source: address, to: address, id: uint256):
    record: uint256 = self._records[id]
    assert record != 0, "ERC721: operator query for nonexistent token"
    owner: address = self._owner(record)
    assert (
        msg.sender == owner
        or msg.sender == self._approvals[id]
        or self.isApprovedForAll[owner][msg.sender]
    ), "ERC721: transfer caller is not owner nor approved"
    assert source == owner, "ERC721: transfer of token that is not own"
    assert to != empty(address), "ERC721: transfer to the zero address"
    self._approve(owner, empty(address), id)

    # The last of the owner's list takes the leaving token's place.
    place: uint256 = record >> 224
    last: uint256 = self._balances[owner] - 1
    if place != last:
        moved: uint256 = self._owned[owner][last]
        self._owned[owner][place] = moved
        self._records[moved] = (self._records[moved] & MIRROR_MASK) | (place << 224)
    self._owned[owner][last] = 0
    self._balances[owner] = last

    self._give(id, record & MIRROR_MASK & ~OWNER_MASK, owner, to)


@internal
def _give(id: uint256, traits: uint256, source: address, to: address):
    """
    @dev Put a token that is on nobody's list at the end of `to`'s. `traits` is a record without owner and
         place.
    """
    place: uint256 = self._balances[to]
    self._balances[to] = place + 1
    self._owned[to][place] = id
    log Transfer(from_=source, to=to, tokenId=id)
    self._write(id, convert(to, uint256) | traits | (place << 224))


@internal
def _write(id: uint256, record: uint256):
    """
    @dev The only way a record's pushed part changes, so that the hub cannot miss one.
    """
    self._records[id] = record
    if HUB != empty(address):
        extcall Hub(HUB).sync(convert(id, address), record & MIRROR_MASK)
