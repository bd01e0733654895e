# pragma version 0.4.3
"""
@title Settings: the hub's owner and what the owner decides, the categories, and the mirror of the registries
@license Apache-2.0
"""
import types

BROKER_MASK: constant(uint256) = 2**160 - 1
CALLBACK_GAS: constant(uint256) = 160
CALLBACK_GAS_MASK: constant(uint256) = 2**32 - 1
KITTY: constant(uint256) = 192

# Bounds of what an owner may set: what the packed words can hold.
CALLBACK_GAS_LIMIT: constant(uint256) = 2**32
TIMEREF_LIMIT: constant(uint256) = 2**31
CATEGORY_LIMIT: constant(uint256) = 2**16

APP: constant(uint256) = 1
DATASET: constant(uint256) = 2
WORKERPOOL: constant(uint256) = 3


struct Label:
    name: String[types.LABEL]
    description: String[types.LABEL]


# The base token, of which staked RLC are receipts. Never changes: it backs every balance.
TOKEN: immutable(address)

# May change the settings below; has no power over anyone's balance.
owner: address

# What every settlement reads, in one word so that it pays for one slot:
#   bit 0  TEE broker, the signer of authorisations for enclaves (zero: the workerpool's owner signs)   160
#     160  gas of a callback                                                                             32
#     192  frozen balance of the kitty, nRLC                                                             64
common: uint256

# Number of categories; they are never removed or changed.
categories: uint256

# Category -> its time reference in seconds, plus one; zero where there is no such category. Apart from the texts
# because every match reads it.
clocks: HashMap[uint256, uint256]

# Category -> its texts.
labels: HashMap[uint256, Label]

# Entry -> the word that its registry keeps about it (owner 160, stakeRatio 16, schedulerRatio 8, kind 8, index 32,
# from the lowest bit; drawn in registry.vy), pushed at each change, so that a match calls no registry.
entries: HashMap[address, uint256]

# Registry -> the kind of entry it may push; zero for everyone else.
registrars: HashMap[address, uint256]

# The three registries that `viewDeal` and clients ask.
appregistry: address
datasetregistry: address
workerpoolregistry: address


@deploy
def __init__(token: address):
    TOKEN = token


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

@internal
def _create_category(label: Label, timeref: uint256) -> uint256:
    category: uint256 = self.categories
    assert category < CATEGORY_LIMIT, "settings: more than 2**16 categories"
    assert timeref < TIMEREF_LIMIT, "settings: time reference above 2**31 seconds"
    self.categories = category + 1
    self.clocks[category] = timeref + 1
    self.labels[category] = label
    return category


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
    self.appregistry = app
    self.datasetregistry = dataset
    self.workerpoolregistry = workerpool
    self.registrars[app] = APP
    self.registrars[dataset] = DATASET
    self.registrars[workerpool] = WORKERPOOL


@internal
def _sync(entry: address, record: uint256):
    kind: uint256 = self.registrars[msg.sender]
    assert kind != 0 and kind == self._kind(record), "settings: not a registry of this kind"
    self.entries[entry] = record


@internal
@pure
def _owner(record: uint256) -> address:
    return convert(record & types.ADDRESS_MASK, address)


@internal
@pure
def _stake_ratio(record: uint256) -> uint256:
    return (record >> 160) & 65535


@internal
@pure
def _scheduler_ratio(record: uint256) -> uint256:
    return (record >> 176) & 255


@internal
@pure
def _kind(record: uint256) -> uint256:
    return (record >> 184) & 255


@internal
@pure
def _index(record: uint256) -> uint256:
    return (record >> 192) & (2**32 - 1)
