# pragma version 0.4.3
# pragma optimize gas
"""
@title HubViews: what can be read of the hub
@license Apache-2.0
@notice Runs in the hub, by delegation. Last in the line: what it does not know is refused.

        functions:
          deals     viewDeal, and from boost: viewDealBoost
          tasks     viewTask viewContribution viewScore resultFor
          orders    viewConsumed viewPresigned verifySignature verifyPresignature verifyPresignatureOrSignature
          accounts  viewAccount balanceOf frozenOf allowance totalSupply name symbol decimals token
          assets    viewApp viewDataset viewWorkerpool appregistry datasetregistry workerpoolregistry
          settings  owner teebroker callbackgas kitty_capped changes_delayed viewChange viewCategory countCategory domain
                    eip712domain_separator
          constants contribution_deadline_ratio reveal_deadline_ratio final_deadline_ratio workerpool_stake_ratio
                    kitty_ratio kitty_min kitty_address groupmember_purpose
          legacy    viewAccountABILegacy viewDealABILegacy_pt1 viewDealABILegacy_pt2 viewConfigABILegacy
                    viewTaskABILegacy viewContributionABILegacy viewCategoryABILegacy
"""
import types
import settings
import ledger
import blobs
import orders
import deals
import tasks
import settlement
import batches
import escrow
import life
import boost

initializes: settings
initializes: ledger[settings := settings]
initializes: blobs
initializes: orders
initializes: deals[blobs := blobs, orders := orders]
initializes: tasks
initializes: settlement[settings := settings, ledger := ledger, tasks := tasks]
initializes: batches[
    settings := settings, ledger := ledger, orders := orders, tasks := tasks, settlement := settlement
]
initializes: escrow[settings := settings, ledger := ledger]
initializes: life[
    settings := settings, ledger := ledger, blobs := blobs, orders := orders, tasks := tasks, settlement := settlement
]
initializes: boost[
    settings := settings, ledger := ledger, blobs := blobs, orders := orders, deals := deals, tasks := tasks,
    settlement := settlement, life := life
]

exports: (boost.viewDealBoost,)


# All that the three kinds of entry answer.
interface Asset:
    def owner() -> address: view
    def m_appName() -> String[types.TEXT]: view
    def m_appType() -> String[types.TEXT]: view
    def m_appMultiaddr() -> Bytes[types.BLOB]: view
    def m_appChecksum() -> bytes32: view
    def m_appMREnclave() -> Bytes[types.BLOB]: view
    def m_datasetName() -> String[types.TEXT]: view
    def m_datasetMultiaddr() -> Bytes[types.BLOB]: view
    def m_datasetChecksum() -> bytes32: view
    def m_workerpoolDescription() -> String[types.BLOB]: view
    def m_workerStakeRatioPolicy() -> uint256: view
    def m_schedulerRewardRatioPolicy() -> uint256: view


@deploy
def __init__(hub: address, token: address):
    settings.__init__(token, [])
    orders.__init__(hub)


@external
@payable
def __default__():
    raise "fallback-disabled"


# ---- Deals ---------------------------------------------------------------------------------------------------------

@external
@view
def viewDeal(_id: bytes32) -> types.Deal:
    return self._deal(_id)


@internal
@view
def _deal(dealid: bytes32) -> types.Deal:
    if not deals._exists(dealid):
        return empty(types.Deal)
    terms: deals.Terms = deals._read(deals._key(dealid))
    return types.Deal(
        app=self._resource(terms.app, terms.app_price),
        dataset=self._resource(terms.dataset, terms.dataset_price),
        workerpool=self._resource(terms.workerpool, terms.workerpool_price),
        trust=terms.trust,
        category=terms.category,
        tag=convert(terms.tag, bytes32),
        requester=terms.requester,
        beneficiary=terms.beneficiary,
        callback=terms.callback,
        params=deals._params(deals._key(dealid)),
        startTime=terms.start,
        botFirst=terms.first,
        botSize=terms.size,
        workerStake=settlement._worker_stake(terms),
        schedulerRewardRatio=terms.scheduler_ratio,
        sponsor=terms.sponsor,
    )


@internal
@view
def _resource(title: uint256, price: uint256) -> types.Resource:
    return types.Resource(pointer=settings.assets[title], owner=settings.owners[title], price=price)


# ---- Tasks ---------------------------------------------------------------------------------------------------------

@external
@view
def viewTask(_taskid: bytes32) -> types.Task:
    return self._task(_taskid)


@external
@view
def viewContribution(_taskid: bytes32, _worker: address) -> types.Contribution:
    return self._contribution(_taskid, _worker)


@external
@view
def viewScore(_worker: address) -> uint256:
    return ledger._score(_worker)


@external
@view
def resultFor(_taskid: bytes32) -> Bytes[types.RESULT]:
    """
    @notice What the task's callback was told.
    """
    word: uint256 = tasks.words[_taskid]
    if self._settled(_taskid, word).word != 0:
        return b""
    assert tasks._status(word) == types.COMPLETED, "task-pending"
    return tasks._read_result(_taskid, word)[1]


@internal
@view
def _settled(taskid: bytes32, word: uint256) -> batches.Settled:
    """
    @return What a batch tells of a task. Only what has no word, or is completed without a contributor, may be in one.
    """
    if word == 0 or word >> tasks.STATUS == types.COMPLETED:
        return batches._find(taskid)
    return empty(batches.Settled)


@internal
@view
def _task(taskid: bytes32) -> types.Task:
    word: uint256 = tasks.words[taskid]
    batch: batches.Settled = self._settled(taskid, word)
    word |= batch.word
    if word == 0:
        return empty(types.Task)
    task: types.Task = empty(types.Task)
    task.status = convert(tasks._status(word), uint8)
    if tasks._deal(word) == 0:
        # Of a boost task (boost.vy).
        return task
    deal: deals.Terms = deals._read(tasks._deal(word))
    task.dealid = deal.dealid
    task.idx = (word >> tasks.INDEX) & tasks.INDEX_MASK
    task.timeref = settings._timeref(deal.category)
    task.contributionDeadline = deal.start + task.timeref * types.CONTRIBUTION_DEADLINE_RATIO
    task.revealDeadline = word >> tasks.DEADLINE
    task.finalDeadline = deal.start + task.timeref * types.FINAL_DEADLINE_RATIO
    task.revealCounter = (word >> tasks.REVEALS) & tasks.COUNT_MASK
    task.winnerCounter = (word >> tasks.WINNERS) & tasks.COUNT_MASK
    if batch.word != 0:
        task.revealDeadline = batch.time + task.timeref * types.REVEAL_DEADLINE_RATIO
        task.results = batch.results
        task.consensusValue = tasks._result_hash(taskid, batch.digest)
        task.resultDigest = batch.digest
        task.contributors.append(batch.worker)
        return task
    task.results, task.resultsCallback = tasks._read_result(taskid, word)
    if tasks._is_direct(taskid):
        entry: tasks.Entry = tasks._read_direct(taskid)
        task.consensusValue = entry.hash
        task.resultDigest = tasks._direct_digest(taskid)
        task.contributors.append(entry.worker)
        return task
    task.resultDigest = tasks._digest(taskid, word)
    for place: uint256 in range(tasks._count(word), bound=types.CONTRIBUTORS):
        task.contributors.append(tasks._worker(tasks.contributors[tasks._key(taskid, place)]))
    if task.winnerCounter != 0:
        task.consensusValue = tasks._hash(taskid, word, tasks._consensus(taskid, word))
    return task


@internal
@view
def _contribution(taskid: bytes32, worker: address) -> types.Contribution:
    word: uint256 = tasks.words[taskid]
    batch: batches.Settled = self._settled(taskid, word)
    if batch.word != 0:
        if batch.worker == worker:
            return self._shown(
                tasks.Entry(
                    worker=worker,
                    hash=tasks._result_hash(taskid, batch.digest),
                    seal=tasks._result_seal(worker, taskid, batch.digest),
                    enclave=batch.enclave,
                    weight=0,
                    mark=tasks.PROVED,
                )
            )
        return empty(types.Contribution)
    count: uint256 = tasks._count(word)
    if tasks._is_direct(taskid):
        entry: tasks.Entry = tasks._read_direct(taskid)
        if entry.worker == worker:
            return self._shown(entry)
        return empty(types.Contribution)
    for place: uint256 in range(count, bound=types.CONTRIBUTORS):
        if tasks._worker(tasks.contributors[tasks._key(taskid, place)]) == worker:
            return self._shown(tasks._entry(taskid, word, place))
    return empty(types.Contribution)


@internal
@pure
def _shown(entry: tasks.Entry) -> types.Contribution:
    """
    @dev A status is its mark plus one: zero is "no contribution".
    """
    return types.Contribution(
        status=convert(entry.mark + 1, uint8),
        resultHash=entry.hash,
        resultSeal=entry.seal,
        enclaveChallenge=entry.enclave,
        weight=entry.weight,
    )


# ---- Orders --------------------------------------------------------------------------------------------------------

@external
@view
def viewConsumed(_id: bytes32) -> uint256:
    used: uint256 = orders._consumed(_id)
    if used == 0:
        # A request order may be used up without a slot (deals.vy).
        return deals._next(_id)[0]
    return used


@external
@view
def viewPresigned(_id: bytes32) -> address:
    return orders._presigner(_id)


@external
@view
def verifySignature(_identity: address, _hash: bytes32, _signature: Bytes[types.SIGNATURE]) -> bool:
    return orders._signed(_identity, _hash, _signature, False)


@external
@view
def verifyPresignature(_identity: address, _hash: bytes32) -> bool:
    return _identity != empty(address) and orders._presigner(_hash) == _identity


@external
@view
def verifyPresignatureOrSignature(_identity: address, _hash: bytes32, _signature: Bytes[types.SIGNATURE]) -> bool:
    return orders._signed(_identity, _hash, _signature, True)


# ---- Accounts ------------------------------------------------------------------------------------------------------

@external
@view
def viewAccount(account: address) -> types.Account:
    return types.Account(stake=ledger._balance(account), locked=ledger._frozen(account))


@external
@view
def balanceOf(account: address) -> uint256:
    return ledger._balance(account)


@external
@view
def frozenOf(account: address) -> uint256:
    return ledger._frozen(account)


@external
@view
def allowance(account: address, spender: address) -> uint256:
    return ledger.allowances[account][spender]


@external
@view
def totalSupply() -> uint256:
    return ledger.supply


@external
@view
def name() -> String[10]:
    return "Staked RLC"


@external
@view
def symbol() -> String[4]:
    return "SRLC"


@external
@view
def decimals() -> uint8:
    return 9


@external
@view
def token() -> address:
    return settings.TOKEN


# ---- Assets --------------------------------------------------------------------------------------------------------

@external
@view
def viewApp(app: address) -> types.AppInfo:
    asset: Asset = Asset(app)
    return types.AppInfo(
        owner=staticcall asset.owner(),
        m_appName=staticcall asset.m_appName(),
        m_appType=staticcall asset.m_appType(),
        m_appMultiaddr=staticcall asset.m_appMultiaddr(),
        m_appChecksum=staticcall asset.m_appChecksum(),
        m_appMREnclave=staticcall asset.m_appMREnclave(),
    )


@external
@view
def viewDataset(dataset: address) -> types.DatasetInfo:
    asset: Asset = Asset(dataset)
    return types.DatasetInfo(
        owner=staticcall asset.owner(),
        m_datasetName=staticcall asset.m_datasetName(),
        m_datasetMultiaddr=staticcall asset.m_datasetMultiaddr(),
        m_datasetChecksum=staticcall asset.m_datasetChecksum(),
    )


@external
@view
def viewWorkerpool(workerpool: address) -> types.WorkerpoolInfo:
    asset: Asset = Asset(workerpool)
    return types.WorkerpoolInfo(
        owner=staticcall asset.owner(),
        m_workerpoolDescription=staticcall asset.m_workerpoolDescription(),
        m_workerStakeRatioPolicy=staticcall asset.m_workerStakeRatioPolicy(),
        m_schedulerRewardRatioPolicy=staticcall asset.m_schedulerRewardRatioPolicy(),
    )


@external
@view
def appregistry() -> address:
    return settings.appregistry


@external
@view
def datasetregistry() -> address:
    return settings.datasetregistry


@external
@view
def workerpoolregistry() -> address:
    return settings.workerpoolregistry


# ---- Settings ------------------------------------------------------------------------------------------------------

@external
@view
def owner() -> address:
    return settings.owner


@external
@view
def teebroker() -> address:
    return settings._broker()


@external
@view
def callbackgas() -> uint256:
    return settings._callback_gas()


@external
@view
def kitty_capped() -> bool:
    return settings._option(settings.KITTY_CAPPED)


@external
@view
def changes_delayed() -> bool:
    return settings._option(settings.CHANGES_DELAYED)


@external
@view
def viewChange(_selector: bytes4) -> settings.Change:
    """
    @notice What waits, and until when at least: the last call of this function of the owner's.
    """
    return settings.changes[_selector]


@external
@view
def viewCategory(_catid: uint256) -> types.Category:
    return settings._category(_catid)


@external
@view
def countCategory() -> uint256:
    return settings.categories


@external
@view
def domain() -> types.EIP712Domain:
    return types.EIP712Domain(name=orders.NAME, version=orders.VERSION, chainId=chain.id, verifyingContract=self)


@external
@view
def eip712domain_separator() -> bytes32:
    return orders._separator(self)


# ---- Constants -----------------------------------------------------------------------------------------------------

@external
@pure
def contribution_deadline_ratio() -> uint256:
    return types.CONTRIBUTION_DEADLINE_RATIO


@external
@pure
def reveal_deadline_ratio() -> uint256:
    return types.REVEAL_DEADLINE_RATIO


@external
@pure
def final_deadline_ratio() -> uint256:
    return types.FINAL_DEADLINE_RATIO


@external
@pure
def workerpool_stake_ratio() -> uint256:
    return types.WORKERPOOL_STAKE_RATIO


@external
@pure
def kitty_ratio() -> uint256:
    return types.KITTY_RATIO


@external
@pure
def kitty_min() -> uint256:
    return types.KITTY_MIN


@external
@pure
def kitty_address() -> address:
    return types.KITTY_ADDRESS


@external
@pure
def groupmember_purpose() -> uint256:
    return types.GROUPMEMBER_PURPOSE


# ---- Legacy: the same reads, flat ----------------------------------------------------------------------------------

@external
@view
def viewAccountABILegacy(account: address) -> (uint256, uint256):
    return ledger._balance(account), ledger._frozen(account)


@external
@view
def viewDealABILegacy_pt1(
    _id: bytes32,
) -> (address, address, uint256, address, address, uint256, address, address, uint256):
    deal: types.Deal = self._deal(_id)
    return (
        deal.app.pointer, deal.app.owner, deal.app.price,
        deal.dataset.pointer, deal.dataset.owner, deal.dataset.price,
        deal.workerpool.pointer, deal.workerpool.owner, deal.workerpool.price,
    )


@external
@view
def viewDealABILegacy_pt2(_id: bytes32) -> (uint256, bytes32, address, address, address, String[types.PARAMS]):
    deal: types.Deal = self._deal(_id)
    return deal.trust, deal.tag, deal.requester, deal.beneficiary, deal.callback, deal.params


@external
@view
def viewConfigABILegacy(_id: bytes32) -> (uint256, uint256, uint256, uint256, uint256, uint256):
    deal: types.Deal = self._deal(_id)
    return deal.category, deal.startTime, deal.botFirst, deal.botSize, deal.workerStake, deal.schedulerRewardRatio


@external
@view
def viewTaskABILegacy(
    _taskid: bytes32,
) -> (
    uint8, bytes32, uint256, uint256, uint256, uint256, uint256, bytes32, uint256, uint256,
    DynArray[address, types.CONTRIBUTORS], Bytes[types.RESULT],
):
    task: types.Task = self._task(_taskid)
    return (
        task.status, task.dealid, task.idx, task.timeref, task.contributionDeadline, task.revealDeadline,
        task.finalDeadline, task.consensusValue, task.revealCounter, task.winnerCounter, task.contributors,
        task.results,
    )


@external
@view
def viewContributionABILegacy(_taskid: bytes32, _worker: address) -> (uint8, bytes32, bytes32, address):
    entry: types.Contribution = self._contribution(_taskid, _worker)
    return entry.status, entry.resultHash, entry.resultSeal, entry.enclaveChallenge


@external
@view
def viewCategoryABILegacy(_catid: uint256) -> (String[types.LABEL], String[types.LABEL], uint256):
    category: types.Category = settings._category(_catid)
    return category.name, category.description, category.workClockTimeRef
