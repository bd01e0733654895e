# pragma version 0.4.3
"""
@title Settings: the hub's owner and what the owner decides, the categories, and the mirror of the registries
@license Apache-2.0
@notice The state, and how it is read and written. What is called from outside is in configuration.vy.
"""
import types
import events

# Parts of the common word, drawn below.
BROKER_MASK: constant(uint256) = 2**160 - 1
CALLBACK_GAS: constant(uint256) = 160
CALLBACK_GAS_MASK: constant(uint256) = 2**30 - 1
KITTY_CAPPED: constant(uint256) = 190
CHANGES_DELAYED: constant(uint256) = 191
KITTY: constant(uint256) = 192

# Bounds of what an owner may set: what the packed words can hold.
CALLBACK_GAS_LIMIT: constant(uint256) = 2**30
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

# Above the kind in a registrar's word.
FORMER: constant(uint256) = 2**8


interface Entry:
    def registry() -> address: view


struct Label:
    name: String[types.LABEL]
    description: String[types.LABEL]


# A decision of the owner that waits.
struct Change:
    arguments: uint256[3]  # of the function, as words
    effective: uint256  # unix time from which on it may be applied; zero when nothing waits


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
#     160  gas of a callback                                                                             30
#     190  whether the kitty pays a task's scheduler at most the stake that the scheduler had in that task 1
#     191  whether what the owner decides about broker, callback gas and registries waits                   1
#     192  frozen balance of the kitty, nRLC                                                             64
# Bits 190 and 191 are options of the deployment: the constructor writes them, nothing else does.
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

# Registry -> the kind of entry it may push, which never changes; zero for everyone else. Plus FORMER once it was
# replaced: it may still tell of the entries it has.
registrars: HashMap[address, uint256]

# The registry of apps, for clients: the hub asks no registry.
appregistry: address

# The registry of datasets.
datasetregistry: address

# The registry of workerpools.
workerpoolregistry: address

# Selector of one of the owner's functions -> its last call, while that waits (if changes are delayed).
changes: HashMap[bytes4, Change]

# A hub of version 3, from which workers' scores can be imported; zero for none. Never changes.
v3hub: address


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


# ---- The common word -----------------------------------------------------------------------------------------------

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
@pure
def _check_callback_gas(limit: uint256):
    assert limit < CALLBACK_GAS_LIMIT, "settings: callback gas above 2**30"


@internal
def _set_callback_gas(limit: uint256):
    """
    @dev It was checked.
    """
    self.common = (self.common & ~(CALLBACK_GAS_MASK << CALLBACK_GAS)) | (limit << CALLBACK_GAS)


@internal
@view
def _option(place: uint256) -> bool:
    return (self.common >> place) & 1 != 0


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

@internal
def _set_registries(app: address, dataset: address, workerpool: address):
    """
    @notice Entries of former registries count on, and these tell on of their changes, until `updateEntries`
            (configuration.vy) looks them up.
    """
    for former: address in [self.appregistry, self.datasetregistry, self.workerpoolregistry]:
        self.registrars[former] |= FORMER
    self.appregistry = app
    self.datasetregistry = dataset
    self.workerpoolregistry = workerpool
    self._appoint(app, APP)
    self._appoint(dataset, DATASET)
    self._appoint(workerpool, WORKERPOOL)


@internal
def _appoint(registry: address, kind: uint256):
    known: uint256 = self.registrars[registry] & KIND_MASK
    if known == 0 or known == kind:
        self.registrars[registry] = kind


@internal
def _sync(entry: address, pushed: uint256):
    """
    @notice Keep what the sender, a registry, tells of an entry. Of nobody else's: whichever registries the owner
            chooses, they cannot touch an entry that says that it is of another.
    """
    registrar: uint256 = self.registrars[msg.sender]
    kind: uint256 = registrar & KIND_MASK
    assert kind != 0 and kind == (pushed >> KIND) & KIND_MASK, "settings: not a registry of this kind"
    assert (pushed >> SCHEDULER_RATIO) & SCHEDULER_RATIO_MASK <= 100, "settings: scheduler ratio above 100"
    assert staticcall Entry(entry).registry() == msg.sender, "settings: not an entry of this registry"
    held: uint256 = self.entries[entry]
    record: uint256 = pushed & RECORD_MASK
    if registrar & FORMER != 0 and (held >> KIND) & KIND_MASK == 0:
        # Known by now or not, it does not count.
        record &= ~(KIND_MASK << KIND)
    title: uint256 = held >> TITLE
    if title == 0 or record & types.ADDRESS_MASK != held & types.ADDRESS_MASK:
        title = self.titles + 1
        self.titles = title
        self.assets[title] = entry
        self.owners[title] = convert(record & types.ADDRESS_MASK, address)
    self.entries[entry] = record | (title << TITLE)
