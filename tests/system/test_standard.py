"""Deals without a TEE. No offer can refuse one, and one left undone would cost the pool its stake."""

from __future__ import annotations

import secrets

import pytest

from sealdeal.model.cid import multiaddr_bytes
from sealdeal.model.deals import Deal, TaskStatus
from sealdeal.model.orders import AppOrder, DatasetOrder, Params, RequestOrder, Signed, tag
from sealdeal.model.sealing import checksum
from sealdeal.model.types import RLC, ZERO, Address
from sealdeal.sdk.client import Sealdeal

from .conftest import ECHO, POOL_PRICE, World, told

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def bought(
    world: World,
    source: str,
    params: Params,
    *,
    price: int = 0,
    data: tuple[Sealdeal, Address, int] | None = None,
) -> tuple[Sealdeal, Sealdeal, Deal]:
    """A deal of tag 0, matched with the pool's open offer: (app provider, requester, deal).

    `data`: the dataset's owner, its address, its price.
    """
    provider, requester = await world.person(), await world.requester()
    app, domain = await world.app(provider, source), await provider.hub.domain()
    salt, none = secrets.token_bytes(32), tag(0)
    offer = Signed.by(provider.key, AppOrder(app=app.address, appprice=price, tag=none, salt=salt), domain)
    owner, dataset, fee = data or (provider, ZERO, 0)
    given = DatasetOrder(dataset=dataset, datasetprice=fee, apprestrict=app.address, tag=none, salt=salt)
    pool = (await requester.market.workerpool_orders(category=0)).items[0].signed
    asked = RequestOrder(
        app=app.address,
        appmaxprice=price,
        dataset=dataset,
        datasetmaxprice=fee,
        workerpoolmaxprice=POOL_PRICE,
        requester=requester.key.address,
        beneficiary=requester.key.address,
        params=params.to_text(),
        tag=none,
        salt=salt,
    )
    dealid, _ = await requester.hub.match_orders(
        offer,
        Signed.by(owner.key, given, domain) if data else None,
        pool,
        Signed.by(requester.key, asked, domain),
    )
    deal = await requester.hub.deal(dealid)
    assert not deal.tee
    return provider, requester, deal


async def test_it_completes_and_pays_everyone(world: World) -> None:
    owner = await world.person()
    plain = b"x,y\n1,2\n"
    stored = await owner.results.add(plain)
    dataset, _ = await owner.hub.create_dataset("open", multiaddr_bytes(f"/ipfs/{stored}"), checksum(plain))
    pool = world.network.network.accounts["workerpool_owner"]["address"]
    workers = [key.address for key in world.network.worker_keys()]
    before = {who: (await owner.balance(who)).total for who in (pool, *workers)}  # type: ignore[arg-type]

    provider, requester, deal = await bought(
        world, ECHO, Params(args="one"), price=2 * RLC, data=(owner, dataset, 3 * RLC)
    )
    task = await world.ended(requester, deal)
    assert task.status is TaskStatus.COMPLETED
    result = await requester.result(task.taskid)
    assert told(result) == {"bytes": len(plain), "args": ["one"], "index": 0}
    assert result.receipt is None, "nobody vouches for it"
    assert [cause for _, cause in await world.attempts(requester, task.taskid)] == [""]

    assert (await provider.balance()).total == 102 * RLC
    assert (await owner.balance()).total == 103 * RLC
    spent = await requester.balance()
    assert (spent.total, spent.locked) == (100 * RLC - 5 * RLC - POOL_PRICE, 0)
    gained = {who: (await owner.balance(who)).total - had for who, had in before.items()}  # type: ignore[arg-type]
    assert gained.pop(pool) == POOL_PRICE // 100
    assert sorted(gained.values()) == [0, POOL_PRICE - POOL_PRICE // 100]


COPY = ECHO + 'open(os.path.join(out, "data"), "wb").write(data)\n'


async def test_protected_data_stay_ciphertext(world: World) -> None:
    """An owner who lets anything but a TEE use protected data gives away ciphertext, and no key."""
    owner = await world.person()
    dataset = await owner.protect_dataset(b"a marker of a row", name="protected")
    _, requester, deal = await bought(world, COPY, Params(), data=(owner, dataset.address, 0))
    task = await world.ended(requester, deal)
    assert task.status is TaskStatus.COMPLETED
    given = (await requester.result(task.taskid)).files["data"]
    assert checksum(given) == dataset.checksum
    assert b"marker" not in given


async def test_an_apps_own_fault_is_paid(world: World) -> None:
    _, requester, deal = await bought(world, "import sys; sys.exit(3)", Params(), price=RLC)
    task = await world.ended(requester, deal)
    assert task.status is TaskStatus.COMPLETED
    assert (await requester.balance()).total == 100 * RLC - RLC - POOL_PRICE
    result = await requester.result(task.taskid)
    assert b"exit code: 3" in result.files["error.txt"] and result.receipt is None
    assert [cause for _, cause in await world.attempts(requester, task.taskid)] == ["APP_COMPUTE_FAILED"]


async def test_encryption_cannot_be_had_and_never_becomes_plaintext(world: World) -> None:
    """The requester has a result key, but SMS nodes name it to attested guests only."""
    provider, requester, deal = await bought(world, ECHO, Params(result_encryption=True), price=RLC)
    task = await world.ended(requester, deal)
    assert task.status is TaskStatus.COMPLETED
    result = await requester.result(task.taskid)
    assert set(result.files) == {"computed.json", "error.txt"}
    cause, message = result.files["error.txt"].decode().splitlines()
    assert cause == "cause: POST_COMPUTE_ENCRYPTION_PUBLIC_KEY_MISSING"
    assert "deals without a TEE cannot have one" in message
    assert (await provider.balance()).total == 101 * RLC
    causes = [cause for _, cause in await world.attempts(requester, task.taskid)]
    assert causes == ["POST_COMPUTE_ENCRYPTION_PUBLIC_KEY_MISSING"]
