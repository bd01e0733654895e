# pragma version 0.4.3
# pragma optimize gas
"""
@title Hub: the one address of the protocol
@license Apache-2.0
@notice This piece answers what every deal runs through. Every other call is delegated: to HubAdmin (rare changes), or
        HubBoost (boost deals), or HubBatch (batches), or HubViews (reads). Which piece answers what is told by the
        `exports` below and in theirs; what the answer is, by the module that is named. All pieces initialise all
        modules that have state, in the same order, so they share one storage layout (the build checks it).

        modules:
          settings    the owner's decisions, categories, mirror of the registries
          ledger      balances, locks, the kitty
          blobs       bytes kept as code
          orders      EIP-712 hashes, signatures, restrictions, used volumes
          deals       the record of a match
          tasks       the record of a task
          settlement  who gets what
          batches     many tasks of a deal settled in one transaction
          matching    four signed orders become a deal
          life        what happens to a task
          escrow      RLC become staked RLC and back
          management  orders signed and closed on chain
          configuration  what the owner decides, and what the registries tell
          boost       deals whose results are pushed in one transaction, and not kept
@dev Deployment, from one account, nonces n, n+1, ... (any order will do as long as the hub's address is known):

       n    Rlc(...), or any ERC-20 as base token
       n+1  HubViews(hub, token)
       n+2  HubBatch(hub, token, categories)
       n+3  HubBoost(hub, token, categories)
       n+4  HubAdmin(hub, token)
       n+5  AppRegistry(hub, creation code of App)      registries push their entries into the hub: each is told
       n+6  DatasetRegistry(hub, creation code of Dataset)                       its address, nobody asks them
       n+7  WorkerpoolRegistry(hub, creation code of Workerpool)
       n+8  Hub(token, admin, boost, batch, views, appregistry, datasetregistry, workerpoolregistry, categories,
                 teebroker, v3hub, kitty_capped, changes_delayed)
       then, if wanted, createCategory(...) for categories that come later

     `hub` is the address that the deployer's nonce n+8 will have: keccak256(rlp([deployer, nonce]))[12:].
"""
import types
import events
import settings
import ledger
import blobs
import orders
import deals
import tasks
import settlement
import batches
import matching
import life
import escrow

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
initializes: matching[settings := settings, ledger := ledger, blobs := blobs, orders := orders, deals := deals]
initializes: life[
    settings := settings, ledger := ledger, blobs := blobs, orders := orders, tasks := tasks, settlement := settlement
]
initializes: escrow[settings := settings, ledger := ledger]

exports: (
    matching.matchOrders,
    life.initialize,
    life.reveal,
    life.contribute,
    life.finalize,
    life.contributeAndFinalize,
)

# Longest answer: viewApp with every text at its bound, below 7000 bytes, and a blob in the making.
ANSWER: constant(uint256) = 8192

# Longest answer of a piece that has the function; a longer one says that it has not.
WORD: constant(uint256) = 32

# Gas of a callback until the owner sets another.
CALLBACK_GAS: constant(uint256) = 100000

# Selector of batches.vy's settleBatch.
SETTLE_BATCH: constant(bytes4) = method_id(
    "settleBatch(bytes32,uint256,uint256,uint256,address[],bytes,uint256,bytes,bytes32[2][],bytes,bytes)",
    output_type=bytes4,
)

# The other pieces, in the order in which they are asked.
ADMIN: immutable(address)
BOOST: immutable(address)
BATCH: immutable(address)
VIEWS: immutable(address)


@deploy
def __init__(
    token: address,
    admin: address,
    boost: address,
    batch: address,
    views: address,
    appregistry: address,
    datasetregistry: address,
    workerpoolregistry: address,
    categories: DynArray[types.Category, settings.EARLY_CATEGORIES],
    teebroker: address,
    v3hub: address,
    kitty_capped: bool,
    changes_delayed: bool,
):
    """
    @param teebroker Who authorises enclaves; zero: the owner of each workerpool.
    @param v3hub A hub of version 3 whose scores count, or zero.
    @param kitty_capped Whether the kitty pays for a task at most the stake that its scheduler had in it. Otherwise, as
           officially, a deal for nothing with oneself takes a tenth of the kitty.
    @param changes_delayed Whether a change of broker, callback gas or registries waits (configuration.vy).
    """
    settings.__init__(token, categories)
    orders.__init__(self)
    ADMIN = admin
    BOOST = boost
    BATCH = batch
    VIEWS = views
    settings.owner = msg.sender
    settings._set_registries(appregistry, datasetregistry, workerpoolregistry)
    settings.v3hub = v3hub
    settings.common = (
        convert(teebroker, uint256)
        | (CALLBACK_GAS << settings.CALLBACK_GAS)
        | (convert(kitty_capped, uint256) << settings.KITTY_CAPPED)
        | (convert(changes_delayed, uint256) << settings.CHANGES_DELAYED)
    )
    log events.OwnershipTransferred(previousOwner=empty(address), newOwner=msg.sender)
    for category: types.Category in categories:
        settings._create_category(category)


@external
@payable
@raw_return
def __default__() -> Bytes[ANSWER]:
    # No calldata: a blob in the making asks for its bytes (blobs.vy). In any other transaction, or with ether: refused.
    if len(msg.data) == 0:
        assert len(blobs.held) != 0 and msg.value == 0, "fallback-disabled"
        return blobs.held
    # A batch is long: not every piece is to copy it.
    batch: bool = len(msg.data) > 3 and convert(slice(msg.data, 0, 4), bytes4) == SETTLE_BATCH
    for piece: address in [ADMIN, BOOST, BATCH]:
        if batch and piece != BATCH:
            continue
        answer: Bytes[WORD + 1] = raw_call(piece, msg.data, max_outsize=WORD + 1, is_delegate_call=True)
        if len(answer) <= WORD:
            return answer
    return raw_call(VIEWS, msg.data, max_outsize=ANSWER, is_delegate_call=True)
