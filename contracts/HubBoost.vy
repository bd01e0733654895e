# pragma version 0.4.3
# pragma optimize gas
"""
@title HubBoost: boost deals and batches, which keep less and cost less
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
initializes: escrow[settings := settings, ledger := ledger]

exports: (batches.settleBatch,)


@deploy
def __init__(hub: address, token: address):
    settings.__init__(token, 0)
    orders.__init__(hub)


@external
@payable
@raw_return
def __default__() -> Bytes[33]:
    return types.NOT_MINE
