# pragma version 0.4.3
"""
@title Configuration: what the owner decides, what registries tell, and scores of an older hub
@license Apache-2.0
@notice Where the deployment chose delayed changes, a decision about the TEE broker, the gas of callbacks or the
        registries waits until every deal of its day has met its final deadline; then anyone may apply it. A decision
        that is made again takes the place of the one that waits, and waits from the beginning: so the owner takes
        one back by deciding for what is already so.
"""
import types
import events
import settings
import ledger

uses: settings
uses: ledger


interface Registry:
    def isRegistered(entry: address) -> bool: view


interface Scores:
    def viewScore(worker: address) -> uint256: view


# Selectors of what may wait.
SET_TEE_BROKER: constant(bytes4) = method_id("setTeeBroker(address)", output_type=bytes4)
SET_CALLBACK_GAS: constant(bytes4) = method_id("setCallbackGas(uint256)", output_type=bytes4)
CHANGE_REGISTRIES: constant(bytes4) = method_id("changeRegistries(address,address,address)", output_type=bytes4)

# Above every score that is imported, so that it fits its part of an account's word for ever.
SCORE_LIMIT: constant(uint256) = 2**64


# ---- The owner -------------------------------------------------------------------------------------------------------

@external
def transferOwnership(_newOwner: address):
    if msg.sender != settings.owner:
        raw_revert(abi_encode(msg.sender, settings.owner, method_id=method_id("NotContractOwner(address,address)")))
    log events.OwnershipTransferred(previousOwner=settings.owner, newOwner=_newOwner)
    settings.owner = _newOwner


@external
def configure(
    _token: address,
    _name: String[types.LABEL],
    _symbol: String[types.LABEL],
    _decimals: uint8,
    _appregistry: address,
    _datasetregistry: address,
    _workerpoolregistry: address,
    _v3_iexecHub: address,
):
    """
    @notice Always refused: the constructor did it.
    """
    settings._only_owner()
    raise "already-configured"


@external
def setTeeBroker(_teebroker: address):
    settings._only_owner()
    self._decide(SET_TEE_BROKER, [convert(_teebroker, uint256), 0, 0])


@external
def setCallbackGas(_callbackgas: uint256):
    settings._only_owner()
    settings._check_callback_gas(_callbackgas)
    self._decide(SET_CALLBACK_GAS, [_callbackgas, 0, 0])


@external
def changeRegistries(_appregistry: address, _datasetregistry: address, _workerpoolregistry: address):
    settings._only_owner()
    self._decide(
        CHANGE_REGISTRIES,
        [
            convert(_appregistry, uint256),
            convert(_datasetregistry, uint256),
            convert(_workerpoolregistry, uint256),
        ],
    )


@external
def createCategory(name: String[types.LABEL], description: String[types.LABEL], workClockTimeRef: uint256) -> uint256:
    settings._only_owner()
    return settings._create_category(
        types.Category(name=name, description=description, workClockTimeRef=workClockTimeRef)
    )


# ---- Changes that wait -----------------------------------------------------------------------------------------------

@external
def applyChange(_selector: bytes4):
    """
    @notice Carry out what was decided by a call of this function of the owner's, once it has waited.
    """
    change: settings.Change = settings.changes[_selector]
    assert change.effective != 0, "configuration: nothing waits"
    assert change.effective <= block.timestamp, "configuration: too early"
    settings.changes[_selector] = empty(settings.Change)
    self._apply(_selector, change.arguments)
    log events.ChangeApplied(selector=_selector, arguments=change.arguments)


@internal
def _decide(selector: bytes4, arguments: uint256[3]):
    if not settings._option(settings.CHANGES_DELAYED):
        self._apply(selector, arguments)
        return
    effective: uint256 = block.timestamp + self._delay()
    settings.changes[selector] = settings.Change(arguments=arguments, effective=effective)
    log events.ChangeScheduled(selector=selector, arguments=arguments, effective=effective)


@internal
def _apply(selector: bytes4, arguments: uint256[3]):
    if selector == SET_TEE_BROKER:
        settings._set_broker(self._address(arguments[0]))
    elif selector == SET_CALLBACK_GAS:
        settings._set_callback_gas(arguments[0])
    else:
        settings._set_registries(
            self._address(arguments[0]), self._address(arguments[1]), self._address(arguments[2])
        )


@internal
@view
def _delay() -> uint256:
    """
    @return Seconds from a match to the final deadline in the longest category of now.
    """
    longest: uint256 = 1
    for category: uint256 in range(settings.categories, bound=settings.CATEGORY_LIMIT):
        longest = max(longest, settings.clocks[category])
    return unsafe_mul(unsafe_sub(longest, 1), types.FINAL_DEADLINE_RATIO)


@internal
@pure
def _address(word: uint256) -> address:
    return convert(word, address)


# ---- Entries ---------------------------------------------------------------------------------------------------------

@external
def sync(entry: address, packed: uint256):
    """
    @notice A registry tells of a new entry, or of an entry's new owner or policy.
    """
    settings._sync(entry, packed)


@external
def updateEntries(_entries: DynArray[address, types.BATCH]):
    """
    @notice After a change of registries: of the entries that the hub knows, let those count, and only those, that are
            registered in the registry of their kind of now. Anyone may call it. A match asks no registry, so until
            this is called an entry counts as before.
    """
    for entry: address in _entries:
        held: uint256 = settings.entries[entry]
        if held == 0:
            continue
        kind: uint256 = settings.registrars[staticcall settings.Entry(entry).registry()] & settings.KIND_MASK
        registry: address = settings.workerpoolregistry
        if kind == settings.APP:
            registry = settings.appregistry
        elif kind == settings.DATASET:
            registry = settings.datasetregistry
        if not (registry.is_contract and staticcall Registry(registry).isRegistered(entry)):
            kind = 0
        settings.entries[entry] = (held & ~(settings.KIND_MASK << settings.KIND)) | (kind << settings.KIND)


# ---- The past --------------------------------------------------------------------------------------------------------

@external
def updateDomainSeparator():
    """
    @notice Nothing to do: the separator follows the chain (orders.vy).
    """
    pass


@external
def importScore(_worker: address):
    """
    @notice Once per worker, raise its score to what it was in the hub of version 3. Reverts without data if there is
            none.
    """
    assert not ledger.imported[_worker], "score-already-imported"
    score: uint256 = staticcall Scores(settings.v3hub).viewScore(_worker)
    assert score < SCORE_LIMIT, "configuration: score above 2**64"
    ledger._raise_score(_worker, score)
    ledger.imported[_worker] = True
