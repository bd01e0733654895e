# pragma version 0.4.3
# pragma optimize gas
"""
@title HubBatch: batches, and what can be asked about orders before they are matched
@license Apache-2.0
@notice Runs in the hub, by delegation. Every function answers one word at most: a longer answer says that this piece
        has no such function.
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
import matching
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
initializes: escrow[settings := settings, ledger := ledger]

exports: (
    batches.settleBatch,
    matching.computeDealVolume,
    matching.assertDatasetDealCompatibility,
)


@deploy
def __init__(hub: address, token: address, categories: DynArray[types.Category, settings.EARLY_CATEGORIES]):
    settings.__init__(token, categories)
    orders.__init__(hub)


@external
@payable
@raw_return
def __default__() -> Bytes[33]:
    return types.NOT_MINE
