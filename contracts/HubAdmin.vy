# pragma version 0.4.3
# pragma optimize gas
"""
@title HubAdmin: what changes the hub rarely
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
import life
import escrow
import management
import configuration

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
initializes: management[settings := settings, orders := orders, deals := deals]
initializes: configuration[settings := settings, ledger := ledger]

exports: (
    management.manageAppOrder,
    management.manageDatasetOrder,
    management.manageWorkerpoolOrder,
    management.manageRequestOrder,
    management.broadcastAppOrder,
    management.broadcastDatasetOrder,
    management.broadcastWorkerpoolOrder,
    management.broadcastRequestOrder,
    matching.sponsorMatchOrders,
    life.initializeArray,
    life.reopen,
    life.claim,
    life.claimArray,
    life.initializeAndClaimArray,
    escrow.deposit,
    escrow.depositFor,
    escrow.depositForArray,
    escrow.withdraw,
    escrow.withdrawTo,
    escrow.receiveApproval,
    escrow.recover,
    escrow.transfer,
    escrow.transferFrom,
    escrow.approve,
    escrow.increaseAllowance,
    escrow.decreaseAllowance,
    escrow.approveAndCall,
    configuration.transferOwnership,
    configuration.configure,
    configuration.setTeeBroker,
    configuration.setCallbackGas,
    configuration.changeRegistries,
    configuration.createCategory,
    configuration.applyChange,
    configuration.sync,
    configuration.updateEntries,
    configuration.updateDomainSeparator,
    configuration.importScore,
)


@deploy
def __init__(hub: address, token: address):
    settings.__init__(token, [])
    orders.__init__(hub)


@external
@payable
@raw_return
def __default__() -> Bytes[33]:
    return types.NOT_MINE
