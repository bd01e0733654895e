# pragma version 0.4.3
"""
@title Settings: the hub's owner and what the owner decides, the categories, and the mirror of the registries
@license Apache-2.0
"""
import types
import events

# Parts of the common word, drawn below.
BROKER_MASK: constant(uint256) = 2**160 - 1
CALLBACK_GAS: constant(uint256) = 160
CALLBACK_GAS_MASK: constant(uint256) = 2**32 - 1
KITTY: constant(uint256) = 192

# Bounds of what an owner may set: what the packed words can hold.
CALLBACK_GAS_LIMIT: constant(uint256) = 2**32
TIMEREF_LIMIT: constant(uint256) = 2**31
CATEGORY_LIMIT: constant(uint256) = 2**16

# How many categories may exist from the beginning; a word holds 32 bits of each.
EARLY_CATEGORIES: constant(uint256) = 8

# Kinds of entry.
APP: constant(uint256) = 1
DATASET: constant(uint256) = 2
WORKERPOOL: constant(uint256) = 3

# Parts of an entry's word above its owner, drawn below.
STAKE_RATIO: constant(uint256) = 160
SCHEDULER_RATIO: constant(uint256) = 176
KIND: constant(uint256) = 184
TITLE: constant(uint256) = 192
STAKE_RATIO_MASK: constant(uint256) = 2**16 - 1
SCHEDULER_RATIO_MASK: constant(uint256) = 2**8 - 1
KIND_MASK: constant(uint256) = 2**8 - 1

# What is kept of a registry's word: all below the title.
RECORD_MASK: constant(uint256) = 2**TITLE - 1


struct Label:
    name: String[types.LABEL]
    description: String[types.LABEL]


# The base token, of which staked RLC are receipts. Never changes: it backs every balance.
TOKEN: immutable(address)

# Time references of the categories that exist from the beginning, plus one, 32 bits each from the lowest: so that most
# matches and tasks read no slot for theirs. Zero for those made later, and for all of them in HubAdmin and HubViews,
# which read the slots.
EARLY_CLOCKS: immutable(uint256)

# May change the settings below; has no power over anyone's balance.
owner: address

# What every settlement reads, in one word so that it pays for one slot:
#   bit 0  TEE broker, the signer of authorisations for enclaves (zero: the workerpool's owner signs)   160
#     160  gas of a callback                                                                             32
#     192  frozen balance of the kitty, nRLC                                                             64
common: uint256

# Number of categories; they are never removed or changed.
categories: uint256

# Category -> its time reference in seconds, plus one; zero where there is no such category. Early ones are here too.
# Apart from the texts because deals read it.
clocks: HashMap[uint256, uint256]

# Category -> its texts.
labels: HashMap[uint256, Label]

# Entry -> what matching needs to know of it, so that a match calls no registry: the word that its registry pushes at
# each change (drawn in registry.vy), but for the number of its title in the upper 64 bits, in place of the index:
#   bit 0  owner 160 | 160 stakeRatio 16 | 176 schedulerRatio 8 | 184 kind 8 | 192 title 64
entries: HashMap[address, uint256]

# A title is an entry while one account owns it; numbered from 1. Deals keep the number: three bytes in place of two
# addresses, or of one, for a deal of several tasks keeps the owners too.
titles: uint256

# Title -> its entry.
assets: HashMap[uint256, address]

# Title -> its owner: who is paid, also after a sale, for deals that were made before and do not keep their owners.
owners: HashMap[uint256, address]

# Registry -> the kind of entry it may push; zero for everyone else.
registrars: HashMap[address, uint256]

# The registry of apps, for clients: the hub asks no registry.
appregistry: address

# The registry of datasets.
datasetregistry: address

# The registry of workerpools.
workerpoolregistry: address


@deploy
def __init__(token: address, early: DynArray[types.Category, EARLY_CATEGORIES]):
    """
    @param early The categories that exist from the beginning, for a piece to know their time references.
    """
    TOKEN = token
    clocks: uint256 = 0
    for i: uint256 in range(len(early), bound=EARLY_CATEGORIES):
        clocks |= (early[i].workClockTimeRef + 1) << (32 * i)
    EARLY_CLOCKS = clocks


@internal
@view
def _only_owner():
    assert msg.sender == self.owner, "Ownable: caller is not the owner"


@external
def transferOwnership(_newOwner: address):
    if msg.sender != self.owner:
        raw_revert(abi_encode(msg.sender, self.owner, method_id=method_id("NotContractOwner(address,address)")))
    log events.OwnershipTransferred(previousOwner=self.owner, newOwner=_newOwner)
    self.owner = _newOwner


# ---- The common word -----------------------------------------------------------------------------------------------

@external
def setTeeBroker(_teebroker: address):
    self._only_owner()
    self._set_broker(_teebroker)


@external
def setCallbackGas(_callbackgas: uint256):
    self._only_owner()
    self._set_callback_gas(_callbackgas)


@internal
@view
def _broker() -> address:
    return convert(self.common & BROKER_MASK, address)


@internal
def _set_broker(broker: address):
    self.common = (self.common & ~BROKER_MASK) | convert(broker, uint256)


@internal
@view
def _callback_gas() -> uint256:
    return (self.common >> CALLBACK_GAS) & CALLBACK_GAS_MASK


@internal
def _set_callback_gas(limit: uint256):
    assert limit < CALLBACK_GAS_LIMIT, "settings: callback gas above 2**32"
    self.common = (self.common & ~(CALLBACK_GAS_MASK << CALLBACK_GAS)) | (limit << CALLBACK_GAS)


@internal
@view
def _kitty() -> uint256:
    return self.common >> KITTY


@internal
def _set_kitty(amount: uint256):
    """
    @dev Fits: the supply is below 2**64.
    """
    self.common = (self.common & (2**KITTY - 1)) | (amount << KITTY)


# ---- Categories ----------------------------------------------------------------------------------------------------

@external
def createCategory(name: String[types.LABEL], description: String[types.LABEL], workClockTimeRef: uint256) -> uint256:
    self._only_owner()
    return self._create_category(
        types.Category(name=name, description=description, workClockTimeRef=workClockTimeRef)
    )


@internal
def _create_category(category: types.Category) -> uint256:
    number: uint256 = self.categories
    assert number < CATEGORY_LIMIT, "settings: more than 2**16 categories"
    assert category.workClockTimeRef < TIMEREF_LIMIT, "settings: time reference above 2**31 seconds"
    self.categories = number + 1
    self.clocks[number] = category.workClockTimeRef + 1
    self.labels[number] = Label(name=category.name, description=category.description)
    log events.CreateCategory(
        catid=number,
        name=category.name,
        description=category.description,
        workClockTimeRef=category.workClockTimeRef,
    )
    return number


@internal
@view
def _clock(category: uint256) -> uint256:
    """
    @return The category's time reference in seconds, plus one; zero where there is no such category.
    """
    if category < EARLY_CATEGORIES:
        clock: uint256 = (EARLY_CLOCKS >> (32 * category)) & (2**32 - 1)
        if clock != 0:
            return clock
    return self.clocks[category]


@internal
@view
def _timeref(category: uint256) -> uint256:
    """
    @return Seconds, of a category that exists.
    """
    return unsafe_sub(self._clock(category), 1)


@internal
@view
def _category(category: uint256) -> types.Category:
    """
    @dev Reverts without data where there is none.
    """
    clock: uint256 = self.clocks[category]
    assert clock != 0
    label: Label = self.labels[category]
    return types.Category(name=label.name, description=label.description, workClockTimeRef=clock - 1)


# ---- Registries and their entries ----------------------------------------------------------------------------------

@external
def sync(entry: address, packed: uint256):
    """
    @notice A registry tells of a new entry, or of an entry's new owner or policy.
    """
    self._sync(entry, packed)


@internal
def _set_registries(app: address, dataset: address, workerpool: address):
    self.appregistry = app
    self.datasetregistry = dataset
    self.workerpoolregistry = workerpool
    self.registrars[app] = APP
    self.registrars[dataset] = DATASET
    self.registrars[workerpool] = WORKERPOOL


@internal
def _sync(entry: address, record: uint256):
    kind: uint256 = self.registrars[msg.sender]
    assert kind != 0 and kind == (record >> KIND) & KIND_MASK, "settings: not a registry of this kind"
    owner: uint256 = record & types.ADDRESS_MASK
    held: uint256 = self.entries[entry]
    title: uint256 = held >> TITLE
    if title == 0 or owner != held & types.ADDRESS_MASK:
        title = self.titles + 1
        self.titles = title
        self.assets[title] = entry
        self.owners[title] = convert(owner, address)
    self.entries[entry] = (record & RECORD_MASK) | (title << TITLE)
