"""Reads and acts on real contracts."""

from __future__ import annotations

from dataclasses import replace

import pytest
from vyper import compile_code

from sealdeal.chain import BlockGone, Hub, Quorum, Reverted, RpcError
from sealdeal.chain.errors import BadAnswer
from sealdeal.model.deals import (
    AccountState,
    AppInfo,
    ContributionStatus,
    TaskStatus,
    authorisation_message,
    deal_id,
    result_hash,
    result_seal,
    task_id,
)
from sealdeal.model.errors import Conflict, InvalidInput, NotFound
from sealdeal.model.keys import message_digest
from sealdeal.model.orders import Kind
from sealdeal.model.types import RLC, ZERO, address, keccak, unhex
from tests.network import PURSE, QUICK, STAKE, Network, key


async def test_a_hub_tells_its_other_contracts(network: Network) -> None:
    hub = await Hub.connect(network.rpc, network.addresses.hub)
    assert hub.addresses == replace(network.addresses, dataprotector=None)  # which knows the hub, not it
    assert type(hub.addresses).from_json(hub.addresses.to_json()) == hub.addresses
    with pytest.raises(BadAnswer, match="expected a hub"):
        await Hub.connect(network.rpc, address(b"\x42" * 20))
    with pytest.raises(BadAnswer, match="expected a hub"):
        await Hub.connect(network.rpc, network.addresses.token)


async def test_a_hub_without_sender_only_reads(network: Network) -> None:
    with pytest.raises(InvalidInput, match="needs a wallet"):
        await network.hub.withdraw(1)


async def test_money_in_and_out(network: Network) -> None:
    hub, me = network.as_("requester"), network.address("requester")
    receipt = await hub.deposit(7 * RLC)
    assert {"Approval", "Transfer"} <= {event.name for event in receipt.events}
    assert await hub.account(me) == AccountState(STAKE + 7 * RLC, 0)
    assert await hub.token_balance(me) == PURSE - 7 * RLC
    await hub.withdraw(STAKE + 7 * RLC)
    await hub.transfer_token(network.address("worker"), RLC)
    assert await hub.token_balance(me) == PURSE + STAKE - RLC
    with pytest.raises(Reverted, match="free stake is lower"):
        await hub.withdraw(1)
    with pytest.raises(Reverted, match="transfer amount exceeds balance"):
        await hub.transfer_token(ZERO.replace("0x00", "0x01"), 10**18)  # type: ignore[arg-type]


async def test_assets_are_registered_once_where_predicted(network: Network) -> None:
    hub, owner = network.as_("app_provider"), network.address("app_provider")
    args = ("name", "DOCKER", b"/ipfs/x", keccak(b"x"))
    predicted = await hub.predict_app(*args, owner=owner)
    assert not await hub.is_registered(Kind.APP, predicted)
    with pytest.raises(NotFound, match="there is no app"):
        await hub.app(predicted)
    with pytest.raises(NotFound):
        await hub.owner_of(predicted)
    app, _ = await hub.create_app(*args)
    assert app == predicted and await hub.is_registered("app", app)
    info = await hub.app(app)
    assert info == AppInfo(owner, *args, mrenclave=b"")
    assert await hub.owner_of(app) == owner and await hub.assets_of("app", owner) == [app]
    with pytest.raises(Conflict, match=app):
        await hub.create_app(*args)
    one, receipt = await hub.create_dataset("d", b"/ipfs/y", keccak(b"y"), intent=b"once")
    assert (await hub.create_dataset("d", b"/ipfs/y", keccak(b"y"), intent=b"once")) == (one, receipt)
    await hub.transfer_asset("app", app, network.address("worker"))
    assert await hub.owner_of(app) == network.address("worker")


async def test_a_workerpools_policy(network: Network) -> None:
    hub = network.as_("pool_owner")
    pool, _ = await hub.create_workerpool("a pool")
    assert (await hub.workerpool(pool)).worker_stake_ratio == 30
    await hub.change_policy(pool, 35, 5)
    info = await hub.workerpool(pool)
    assert (info.worker_stake_ratio, info.scheduler_reward_ratio, info.description) == (35, 5, "a pool")
    with pytest.raises(Reverted, match="at most 100"):
        await hub.change_policy(pool, 35, 101)


async def test_a_deal_from_orders_to_pay(network: Network) -> None:
    app, dataset, pool, request = await network.orders(volume=2, category=QUICK)
    dealid, receipt = await network.as_("requester").match_orders(app, dataset, pool, request)
    request_hash = request.hash(network.domain)
    assert dealid == deal_id(request_hash, 0)
    deal = await network.hub.deal(dealid, receipt.block)
    assert (deal.bot_first, deal.bot_size, deal.price) == (0, 2, 48 * RLC)
    assert deal.requester == deal.sponsor == network.address("requester")
    assert deal.start_time == receipt.block.timestamp and deal.tee and deal.has_dataset
    assert await network.hub.consumed_many([request_hash, keccak(b"other")]) == [2, 0]
    before = await network.hub.task(task_id(dealid, 0), receipt.block)
    assert before.status is TaskStatus.UNSET
    taskid = await network.complete(deal, results=b"here")
    task = await network.hub.task(taskid)
    assert (task.status, task.results, task.contributors) == (
        TaskStatus.COMPLETED,
        b"here",
        (network.address("worker"),),
    )
    found = await network.hub.contribution(taskid, network.address("worker"))
    assert found.status is ContributionStatus.PROVED and found.enclave == key("enclave").address
    assert (await network.hub.account(network.address("requester"))).locked == 48 * RLC
    await network.as_("pool_owner").initialize_array([(dealid, 1)])
    await network.pass_time(25)
    await network.as_("worker").claim_array([task_id(dealid, 1)])
    assert await network.hub.account(network.address("requester")) == AccountState(STAKE - 48 * RLC, 0)
    with pytest.raises(NotFound, match="there is no deal"):
        await network.hub.deal(keccak(b"no deal"))


async def test_contributions_of_several_workers(network: Network) -> None:
    """Without an enclave the pool's owner authorises; consensus, reveals, finalisation."""
    orders = await network.orders(bits=0, with_dataset=False)
    dealid, _ = await network.as_("requester").match_orders(*orders)
    taskid, digest = task_id(dealid, 0), keccak(b"result")
    await network.as_("pool_owner").initialize(dealid, 0)
    worker = network.address("worker")
    permission = key("pool_owner").sign_message(authorisation_message(worker, taskid, ZERO))
    hub = network.as_("worker")
    await hub.contribute(
        taskid, result_hash(taskid, digest), result_seal(worker, taskid, digest), ZERO, b"", permission
    )
    assert (await hub.task(taskid)).status is TaskStatus.REVEALING
    with pytest.raises(Reverted, match="only the pool's owner"):
        await network.as_("pool_owner").reopen(taskid)
    await hub.reveal(taskid, digest)
    await network.as_("pool_owner").finalize(taskid, b"result")
    assert (await hub.task(taskid)).status is TaskStatus.COMPLETED
    assert await hub.score(worker) == 0


async def test_refusals_of_a_match_are_explained(network: Network) -> None:
    requester = network.as_("requester")
    assets = await network.assets()
    app, dataset, pool, request = await network.orders(assets)
    plain = (await network.orders(assets, bits=0))[2]
    with pytest.raises(Reverted, match=r"0x06.*tag lacks a bit"):
        await requester.match_orders(app, dataset, plain, request)
    forged = type(app)(app.order, request.sign)
    with pytest.raises(Reverted, match="not signed by the app's owner"):
        await requester.match_orders(forged, dataset, pool, request)
    await network.as_("app_provider").manage_order(app, "close")
    with pytest.raises(Reverted, match="used up or cancelled"):
        await requester.match_orders(app, dataset, pool, request)
    await requester.withdraw(STAKE)
    rich = await network.orders(assets, salt=keccak(b"another"))
    with pytest.raises(Reverted, match="deposit more"):
        await requester.match_orders(*rich)
    dealid, receipt = await network.as_("worker").match_orders(*rich, sponsored=True)
    assert (await network.hub.deal(dealid, receipt.block)).sponsor == network.address("worker")


async def test_orders_signed_on_chain_need_no_signature(network: Network) -> None:
    app, dataset, pool, request = await network.orders()
    bare = type(app)(app.order, b"")
    await network.as_("app_provider").manage_order(app.order, "sign")
    assert await network.hub.presigned(app.hash(network.domain)) == network.address("app_provider")
    assert (await network.as_("requester").match_orders(bare, dataset, pool, request))[0]
    with pytest.raises(Reverted, match="only the asset's owner"):
        await network.as_("worker").manage_order(pool, "close", signature=pool.sign)
    with pytest.raises(Reverted, match="invalid-signature-format"):
        await network.as_("worker").manage_order(pool, "close")


async def test_signatures_are_verified_by_the_hub(network: Network) -> None:
    digest, owner = keccak(b"something"), key("requester")
    assert await network.hub.verify_signature(owner.address, digest, owner.sign_digest(digest))
    assert not await network.hub.verify_signature(owner.address, digest, key("worker").sign_digest(digest))
    assert not await network.hub.verify_signature(owner.address, digest, b"short")


GROUP = """
# pragma version 0.4.3
MEMBER: immutable(address)

@deploy
def __init__(member: address):
    MEMBER = member

@external
@view
def keyHasPurpose(key: bytes32, purpose: uint256) -> bool:
    assert purpose == 4
    return key == convert(MEMBER, bytes32)
"""


async def test_restrictions_admit_an_account_or_a_group(network: Network) -> None:
    member, other = network.address("worker"), network.address("requester")
    code = unhex(compile_code(GROUP, output_formats=["bytecode"])["bytecode"])
    made = await network.as_("hub_owner").sender.send(None, code + unhex(member).rjust(32, b"\0"))
    group = made.contract
    assert group
    admits = network.hub.admits
    assert await admits(ZERO, other) and await admits(other, other) and not await admits(member, other)
    assert await admits(group, member) and not await admits(group, other)
    assert not await admits(network.addresses.token, member)  # a contract that is no group


async def test_reads_are_pinned_to_their_block(network: Network) -> None:
    hub, me = network.as_("requester"), network.address("requester")
    before = await hub.block()
    receipt = await hub.deposit(RLC)
    assert (await hub.account(me, before)).stake == STAKE
    assert (await hub.account(me, receipt.block)).stake == STAKE + RLC
    await network.mine(3)
    assert (await hub.final_block(3)) == receipt.block
    await network.rpc.call("anvil_reorg", 4, [])
    with pytest.raises(BlockGone, match="take a new block"):
        await hub.account(me, receipt.block)
    assert (await hub.account(me, before)).stake == STAKE


async def test_nodes_without_pinning_by_hash_are_checked_by_number(network: Network) -> None:
    hub, me = Hub(network.rpc, network.addresses), network.address("requester")
    real = network.rpc.batch

    async def old(calls, **options):  # type: ignore[no-untyped-def]
        message = "invalid argument 1: json: cannot unmarshal object into Go value of type string"
        if any(isinstance(part, dict) and "blockHash" in part for call in calls for part in call[1:]):
            return [RpcError(-32602, message) for _ in calls]
        return await real(calls, **options)

    network.rpc.batch = old  # type: ignore[method-assign]
    try:
        before = await hub.block()
        assert (await hub.account(me, before)).stake == STAKE
        gone = (await network.as_("requester").deposit(1)).block
        await network.rpc.call("anvil_reorg", 1, [])
        with pytest.raises(BlockGone):
            await hub.account(me, gone)
    finally:
        del network.rpc.batch


async def test_the_hubs_owner_adds_categories(network: Network) -> None:
    number, _ = await network.as_("hub_owner").create_category("new", "of a test", 77)
    found = await network.hub.category(number)
    assert (found.id, found.name, found.reference_time) == (6, "new", 77)
    times = [category.reference_time for category in await network.hub.categories()]
    assert times == [300, 1200, 3600, 10800, 36000, 2, 77]
    with pytest.raises(NotFound):
        await network.hub.category(7)
    with pytest.raises(Reverted, match="only the contract's owner"):
        await network.as_("requester").create_category("x", "y", 1)


async def test_the_quorum_grants_together(network: Network) -> None:
    quorum = network.quorum
    assert isinstance(quorum, Quorum)
    assert (await quorum.threshold(), await quorum.trust()) == (2, "simulated")
    assert set(await quorum.members()) == {key(f"node_{i}").address for i in range(3)}
    worker, taskid, enclave = network.address("worker"), keccak(b"task"), key("enclave").address
    asked = message_digest(authorisation_message(worker, taskid, enclave))
    await network.mine()  # an idle chain's clock stands still
    assert await quorum.is_valid(asked, network.authorisation(worker, taskid, enclave))
    assert not await quorum.is_valid(asked, network.authorisation(worker, taskid, enclave, nodes=1))
    assert not await quorum.is_valid(asked, network.authorisation(worker, taskid, enclave, life=-60))
    assert not await quorum.is_valid(keccak(b"else"), network.authorisation(worker, taskid, enclave))
    await network.as_("hub_owner").set_tee_broker(ZERO)
    assert (await Hub.connect(network.rpc, network.addresses.hub)).addresses.quorum is None


async def test_the_transaction_that_completed_a_task_is_found(network: Network) -> None:
    hub, before = network.hub, await network.hub.block()
    deal = await network.deal()
    with pytest.raises(NotFound, match="completed task"):
        await hub.settlement(deal.task_ids()[0])
    taskid = await network.complete(deal)
    settled = await hub.settlement(taskid, before.number)
    assert settled.event("TaskFinalize")["taskid"] == taskid
    assert {event.name for event in settled.events} >= {"Seize", "Reward", "Unlock", "TaskContribute"}
    assert await hub.receipt(settled.tx_hash) == settled
    with pytest.raises(NotFound, match="no mined transaction"):
        await hub.receipt(bytes(32))
