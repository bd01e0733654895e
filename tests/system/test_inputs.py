"""Inputs that are not what was promised: each is refused with its reason, and nobody loses money."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sealdeal.chain import Reverted
from sealdeal.model import sealing
from sealdeal.model.cid import multiaddr_bytes
from sealdeal.model.deals import TaskStatus
from sealdeal.model.errors import Conflict, SealdealError
from sealdeal.model.keys import Key
from sealdeal.model.orders import TEE_TDX, AppOrder, Params, RequestOrder, Signed, tag
from sealdeal.model.results import generate_result_key
from sealdeal.model.types import RLC, Address, hexstr, unhex
from sealdeal.pool.rules import Rules
from sealdeal.sdk.client import Sealdeal
from sealdeal.sdk.images import build_app_image
from sealdeal.sdk.pool import TaskEvent
from sealdeal.sdk.sms import RESULT_KEY_NAME

from .conftest import ECHO, QUICK, World, local_network

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def refunded(
    world: World, requester: Sealdeal, app: Address, dataset: Address | None, cause: str
) -> None:
    """Buying this run fails everywhere with `cause`, and the requester gets everything back."""
    options = {"dataset": dataset} if dataset else {}
    deal = await world.buy(requester, app, category=QUICK, **options)  # type: ignore[arg-type]
    task = await world.given_up(requester, deal)
    assert task.status is TaskStatus.FAILED
    assert {c for _, c in await world.attempts(requester, task.taskid)} == {cause}
    assert (await requester.balance()).stake == 100 * RLC


async def test_a_dataset_whose_bytes_changed_is_not_used(world: World) -> None:
    provider, owner, requester = await world.person(), await world.person(), await world.requester()
    app = await world.app(provider, ECHO)
    key = sealing.dataset_key(secrets.token_bytes)
    promised = sealing.encrypt_dataset(b"promised", key, secrets.token_bytes)
    changed = await owner.results.add(promised[:-1] + bytes([promised[-1] ^ 1]))
    made, _ = await owner.hub.create_dataset(
        "changed", multiaddr_bytes(f"/ipfs/{changed}"), hashlib.sha256(promised).digest()
    )
    await owner.share_secret(key.encode(), kind=sealing.SecretKind.DATASET_KEY, subject=made)
    await owner.grant(made, app=app.address)
    await refunded(world, requester, app.address, made, "PRE_COMPUTE_INVALID_DATASET_CHECKSUM")


async def test_an_image_whose_digest_differs_is_not_started(world: World) -> None:
    provider, requester = await world.person(), await world.requester()
    image = build_app_image(world.image_folder(ECHO), cache=world.cache)
    other = dataclasses.replace(image, checksum=hashlib.sha256(b"another image").digest())
    app = await provider.publish_app(other)
    await refunded(world, requester, app.address, None, "APP_IMAGE_DOWNLOAD_FAILED")


async def test_a_worker_without_stake_gets_no_work_where_the_pool_asks_for_it(
    tmp_path: Path, cache: Path
) -> None:
    """The reason is stored and told; with the stake deposited the task goes on."""
    async with local_network(tmp_path / "state", cache, rules=Rules(require_stake=True)) as network:
        strict = World(network, tmp_path, cache)
        async with strict.stack:
            provider, requester = await strict.person(), await strict.requester()
            app = await strict.app(provider, ECHO)
            deal = await strict.buy(requester, app.address)
            taskid = deal.task_ids()[0]
            assert deal.worker_stake == 3 * RLC // 10
            async with asyncio.timeout(60):
                told = [event async for event in until_cause(requester.steps(taskid), "STAKE_TOO_LOW")]
            assert "300000000 nRLC" in told[-1].message
            assert await strict.attempts(requester, taskid) == []

            worker = network.worker_keys()[0]
            funder = Key(unhex(network.network.accounts["funder"]["key"]))
            async with Sealdeal(network.network, funder, transports=network.transports) as faucet:
                await faucet.faucet(worker.address, RLC)
            async with Sealdeal(network.network, worker, transports=network.transports) as staking:
                await staking.deposit(RLC)
            task = await strict.ended(requester, deal)
            assert (task.status, task.contributors) == (TaskStatus.COMPLETED, (worker.address,))


async def until_cause(events: AsyncIterator[TaskEvent], cause: str) -> AsyncIterator[TaskEvent]:
    """Events up to the first with a cause."""
    async for event in events:
        yield event
        if event.cause == cause:
            return


async def test_an_order_with_a_wrong_signature_is_refused(world: World) -> None:
    provider = await world.person()
    app = await world.app(provider, ECHO)
    order = AppOrder(app=app.address, tag=tag(TEE_TDX), salt=secrets.token_bytes(32))
    forged = Signed.by(Key.generate(secrets.token_bytes), order, await provider.hub.domain())
    with pytest.raises(SealdealError, match="invalid sign"):
        await provider.market.publish(forged, provider.key)


async def test_a_requester_without_money_is_told_how_much_is_missing(world: World) -> None:
    provider, poor = await world.person(), await world.person()
    app = await world.app(provider, ECHO, price=7 * RLC)
    await poor.share_result_key(generate_result_key(2048)[1])
    with pytest.raises(Conflict, match="deposit 8000000000 more"):
        await poor.request(app.address)
    quote = await poor.quote(app.address)
    order = RequestOrder(
        app=app.address,
        appmaxprice=quote.app,
        workerpoolmaxprice=quote.workerpool,
        requester=poor.key.address,
        tag=tag(TEE_TDX),
        salt=secrets.token_bytes(32),
    )
    with pytest.raises(SealdealError, match="requester stake is too low"):
        await poor.publish(order)


async def test_a_request_whose_secrets_are_missing_is_not_made(world: World) -> None:
    provider, owner = await world.person(), await world.person()
    keyless = await world.person(in_escrow=100 * RLC)
    app = await world.app(provider, ECHO)
    with pytest.raises(Conflict, match="0 SMS nodes hold the result key"):
        await keyless.request(app.address)
    bare, _ = await owner.hub.create_dataset("no key", b"nowhere", bytes(32))
    await owner.grant(bare, app=app.address)
    with pytest.raises(Conflict, match="0 SMS nodes hold the dataset's key"):
        await keyless.request(app.address, dataset=bare, params=Params())
    await keyless.nodes[0].push_named_secret(keyless.key, RESULT_KEY_NAME, generate_result_key(2048)[1])
    await keyless.request(app.address)  # the node has told the others


async def test_spent_volume_is_not_matched_again(world: World) -> None:
    provider, requester = await world.person(), await world.requester()
    app = await world.app(provider, ECHO)
    mine = AppOrder(app=app.address, volume=1, tag=tag(TEE_TDX), salt=secrets.token_bytes(32))
    domain = await provider.hub.domain()
    pool = (await requester.market.workerpool_orders(category=0)).items[0].signed
    signed = Signed.by(provider.key, mine, domain)

    async def matched() -> None:
        asked = RequestOrder(
            app=app.address,
            workerpoolmaxprice=RLC,
            requester=requester.key.address,
            tag=tag(TEE_TDX),
            salt=secrets.token_bytes(32),
        )
        await requester.hub.match_orders(signed, None, pool, Signed.by(requester.key, asked, domain))

    await matched()
    with pytest.raises(Reverted, match="0x60"):
        await matched()
    with pytest.raises(SealdealError, match="already consumed"):
        await provider.market.publish(signed, provider.key)


async def test_the_contract_refuses_a_deal_that_nobody_signed(world: World) -> None:
    requester = await world.requester()
    stranger = Key.generate(secrets.token_bytes)
    domain = await requester.hub.domain()
    pool = (await requester.market.workerpool_orders(category=0)).items[0].signed
    provider = await world.person()
    app = await world.app(provider, ECHO)
    asked = RequestOrder(
        app=app.address, workerpoolmaxprice=RLC, requester=requester.key.address, tag=tag(TEE_TDX)
    )
    for signed_app, signed_pool, asker, code in [
        (stranger, pool, requester.key, "0x21"),
        (provider.key, Signed(pool.order, stranger.sign_digest(bytes(32))), requester.key, "0x41"),
        (provider.key, pool, stranger, "0x50"),
    ]:
        offer = Signed.by(signed_app, AppOrder(app=app.address, tag=tag(TEE_TDX)), domain)
        with pytest.raises(Reverted, match=code):
            await requester.hub.match_orders(offer, None, signed_pool, Signed.by(asker, asked, domain))
    assert (await requester.balance()).locked == 0


async def test_a_key_pushed_whole_to_one_node_is_split_and_the_receipt_says_so(world: World) -> None:
    """As unmodified clients do: they know one SMS, and ask it alone."""
    provider, owner, requester = await world.person(), await world.person(), await world.requester()
    app = await world.app(provider, ECHO)
    key = sealing.dataset_key(secrets.token_bytes)
    sealed = sealing.encrypt_dataset(b"pushed", key, secrets.token_bytes)
    where = await owner.results.add(sealed)
    made, _ = await owner.hub.create_dataset(
        "pushed", multiaddr_bytes(f"/ipfs/{where}"), hashlib.sha256(sealed).digest()
    )
    await owner.nodes[1].push_dataset_key(owner.key, made, key)
    for node in owner.nodes:
        assert await node.has_secret(sealing.SecretKind.DATASET_KEY, made)
    await owner.grant(made, app=app.address)
    deal = await world.buy(requester, app.address, dataset=made)
    task = await world.ended(requester, deal)
    assert task.status is TaskStatus.COMPLETED
    receipt = await requester.receipt(task)
    assert (
        receipt is not None
        and receipt.proof["doors"] == {"dataset-key": "split"}
        and not receipt.proof["blamed"]
    )
    trails = [await node.audit(owner.key, sealing.SecretKind.DATASET_KEY, made) for node in owner.nodes]
    told = {(line.task, line.door) for trail in trails for line in trail.lines}
    assert told == {(hexstr(task.taskid), "split")}
