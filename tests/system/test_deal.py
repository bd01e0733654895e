"""One deal from signed orders to paid actors, and what each of them may know."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from eth_abi.abi import encode

from sealdeal.model.deals import TaskStatus, deal_id
from sealdeal.model.errors import Conflict, IntegrityError, NotFound
from sealdeal.model.keys import Key, SmartWallet
from sealdeal.model.orders import TEE_TDX, Params, WorkerpoolOrder, tag
from sealdeal.model.receipts import Receipt
from sealdeal.model.results import generate_result_key
from sealdeal.model.sealing import Door
from sealdeal.model.types import RLC, ZERO, unhex
from sealdeal.sdk.client import Sealdeal
from sealdeal.sdk.custody import SecretId
from tests.contracts.actors import WALLET, compiled

from .conftest import ECHO, POOL_PRICE, World, distributed, local_network, told

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["embedded", "distributed"])
async def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, cache: Path
) -> AsyncIterator[World]:
    """The same tests on a network in one process, and on one whose services are processes of their own."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "embedded":
        async with local_network(folder / "state", cache) as network:
            made = World(network, folder, cache)
            async with made.stack:
                yield made
    else:
        apart = [
            ("results", "market"),
            ("sms-0",),
            ("sms-1", "sms-2"),
            ("scheduler",),
            ("worker-0", "worker-1"),
        ]
        async with distributed(folder, cache, ["chain"], *apart) as (made, _):
            yield made


async def test_a_deal_pays_everyone_and_tells_only_the_beneficiary(world: World) -> None:
    provider, owner = await world.person(), await world.person()
    requester = await world.requester()
    app = await world.app(provider, ECHO, price=2 * RLC)
    data = await world.data(owner, b"x" * 12345, app.address, price=3 * RLC)
    operator = world.network.network.accounts["workerpool_owner"]["address"]
    everyone = [c.key.address for c in (provider, owner, requester)] + [
        operator,
        *(k.address for k in world.network.worker_keys()),
    ]
    before = [(await requester.balance(who)).total for who in everyone]  # type: ignore[arg-type]

    deal = await world.buy(requester, app.address, dataset=data.address, args="one 'two three'")
    task = await world.ended(requester, deal)
    assert task.status is TaskStatus.COMPLETED
    result = await world.result(requester, task.taskid)
    assert told(result) == {"bytes": 12345, "args": ["one", "two three"], "index": 0}

    after = [(await requester.balance(who)).total for who in everyone]  # type: ignore[arg-type]
    changes = [b - a for a, b in zip(before, after, strict=True)]
    assert changes[:3] == [2 * RLC, 3 * RLC, -5 * RLC - POOL_PRICE]
    assert changes[3] == POOL_PRICE // 100
    assert sorted(changes[4:]) == [0, POOL_PRICE - POOL_PRICE // 100]
    assert sum(changes) == 0

    with pytest.raises(IntegrityError, match="another key"):
        await requester.result(task.taskid, generate_result_key(2048)[0])


async def test_a_receipt_verifies_and_a_changed_one_does_not(world: World) -> None:
    provider, requester = await world.person(), await world.requester()
    app = await world.app(provider, ECHO)
    deal = await world.buy(requester, app.address)
    task = await world.ended(requester, deal)
    receipt = (await world.result(requester, task.taskid)).receipt
    assert receipt is not None
    assert receipt.trust == "simulated"
    again = Receipt.from_json(json.loads(json.dumps(receipt.to_json())))
    await requester.verify(again)
    assert len(again.check()) >= 2

    for change in (
        {"digest": "0x" + "11" * 32},
        {"results": receipt.results.replace("Qm", "Qn")},
        {"worker": requester.key.address},
        {"transaction": "0x" + "33" * 32},
        {"quorum": requester.key.address},
        {"proof": {**receipt.proof, "grants": {}}},
        {"proof": {**receipt.proof, "enclave": requester.key.address}},
        {"proof": {**receipt.proof, "hpkeKey": "0x" + "22" * 32}},
        {"proof": {k: v for k, v in receipt.proof.items() if k != "evidence"}},
    ):
        with pytest.raises(Exception, match=r"should be|incomplete|grants|expected|on chain") as refused:
            await requester.verify(dataclasses.replace(receipt, **change))
        assert type(refused.value).__name__ in ("IntegrityError", "WrongReportData"), change


SECRETS = """
import hashlib, json, os
found = {n: hashlib.sha256(v.encode()).hexdigest() for n, v in os.environ.items() if "_SECRET" in n}
out = os.environ["IEXEC_OUT"]
with open(os.path.join(out, "result.json"), "w") as file:
    json.dump(found, file)
with open(os.path.join(out, "computed.json"), "w") as file:
    json.dump({"deterministic-output-path": os.path.join(out, "result.json")}, file)
"""
"""An app that tells which secrets it was given, by their hashes."""


async def test_secrets_of_developer_and_requester_reach_the_app_alone(world: World) -> None:
    """Split by their owners, and pushed whole as unmodified clients do; each use is in the nodes' audits."""
    provider, requester = await world.person(), await world.requester()
    app = await world.app(provider, SECRETS)
    developers = SecretId.app(app.address)
    await provider.secrets.split(provider.key, developers, b"of the developer")
    own = SecretId.requester(requester.key.address, "first")
    await requester.secrets.split(requester.key, own, "é of the requester".encode(), threshold=3)
    await requester.nodes[0].push_requester_secret(requester.key, "second", "pushed whole")
    params = Params(secrets={1: "first", 4: "second"}, result_encryption=True)
    with pytest.raises(Conflict, match="the requester's secret 'absent'"):
        await requester.request(app.address, params=dataclasses.replace(params, secrets={2: "absent"}))

    deal = await requester.deal_of(await requester.request(app.address, params=params))
    task = await world.ended(requester, deal)
    assert task.status is TaskStatus.COMPLETED
    developer = hashlib.sha256(b"of the developer").hexdigest()
    assert told(await world.result(requester, task.taskid)) == {
        "IEXEC_APP_DEVELOPER_SECRET": developer,
        "IEXEC_APP_DEVELOPER_SECRET_1": developer,
        "IEXEC_REQUESTER_SECRET_1": hashlib.sha256("é of the requester".encode()).hexdigest(),
        "IEXEC_REQUESTER_SECRET_4": hashlib.sha256(b"pushed whole").hexdigest(),
    }

    audit = await provider.secrets.audit(provider.key, developers)
    (use,) = [use for use in audit.uses if unhex(use.line.task) == task.taskid]
    assert len(use.nodes) >= 2 and audit.silent == {} and audit.disagreements == ()
    assert (use.line.app, unhex(use.line.appChecksum), use.line.worker) == (
        app.address,
        app.checksum,
        task.contributors[0],
    )
    pushed = SecretId.requester(requester.key.address, "second")
    (group,) = (await requester.secrets.status(pushed)).groups
    assert (group.door, group.seen, len(group.holders)) == (Door.SPLIT, True, 3)


async def test_a_bag_of_tasks_runs_on_both_workers(world: World) -> None:
    provider, requester = await world.person(), await world.requester()
    app = await world.app(provider, ECHO)
    deal = await world.buy(requester, app.address, volume=4)
    tasks = await asyncio.gather(*(world.ended(requester, deal, i) for i in range(4)))
    assert [task.status for task in tasks] == [TaskStatus.COMPLETED] * 4
    results = [told(await world.result(requester, task.taskid)) for task in tasks]
    assert [found["index"] for found in results] == [0, 1, 2, 3]


async def test_a_standing_request_waits_for_its_match(world: World) -> None:
    """It pays less than any workerpool asks; when one offers that, the deal is made."""
    provider, requester = await world.person(), await world.requester()
    app = await world.app(provider, ECHO, price=5 * RLC)
    quote = await requester.quote(app.address)
    assert quote.app == 5 * RLC
    pool_low = dataclasses.replace(quote, workerpool=POOL_PRICE - 1)
    request = await requester.request(app.address, max_prices=pool_low, params=Params(result_encryption=True))
    await asyncio.sleep(0.5)
    why = await requester.market.why(request)
    assert "workerpool" in (why.constraint or "")
    assert any("above" in text for offer in why.workerpoolorders for text in offer.failing)
    with pytest.raises(NotFound):
        await requester.market.deal(deal_id(request, 0))

    operator = Key(unhex(world.network.network.accounts["workerpool_owner"]["key"]))
    cheap = WorkerpoolOrder(
        workerpool=world.network.network.workerpool or ZERO,
        workerpoolprice=POOL_PRICE - 1,
        tag=tag(TEE_TDX),
        requesterrestrict=requester.key.address,
        salt=bytes(32),
    )
    async with Sealdeal(world.network.network, operator, transports=world.network.transports) as pool:
        await pool.publish(cheap)
    deal = await requester.deal_of(request)
    assert deal.workerpool.price == POOL_PRICE - 1
    assert (await world.ended(requester, deal)).status is TaskStatus.COMPLETED


async def test_wallets_that_are_contracts_offer_and_buy(world: World) -> None:
    """One owns the app, the other asks: their owners' keys sign for them, and pay the gas."""
    there, inside = world.network.network, world.network.transports
    people = [await world.person(10 * RLC), await world.requester(10 * RLC)]
    wallets = []
    for person in people:
        code = compiled(WALLET) + encode(["address"], [person.key.address])
        made = (await person.sender.send(None, code)).contract
        assert made
        wallets.append(SmartWallet(made, person.key))
    provider, requester = [
        await world.stack.enter_async_context(Sealdeal(there, wallet.key, signer=wallet, transports=inside))
        for wallet in wallets
    ]
    app = await world.app(provider, ECHO, price=RLC)
    assert await provider.hub.owner_of(app.address) == provider.signer.address
    with pytest.raises(Conflict, match=f"deposit {RLC + POOL_PRICE} more"):
        await world.buy(requester, app.address)
    await requester.hub.transfer_stake(requester.signer.address, RLC + POOL_PRICE)
    deal = await world.buy(requester, app.address, args="bought")
    assert (deal.app.owner, deal.requester) == (provider.signer.address, requester.signer.address)
    task = await world.ended(requester, deal)
    assert task.status is TaskStatus.COMPLETED
    assert told(await world.result(requester, task.taskid))["args"] == ["bought"]
    assert (await provider.balance(provider.signer.address)).stake == RLC
    assert (await requester.balance(requester.signer.address)).total == 0
