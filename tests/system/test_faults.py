"""Apps that misbehave. What the guest can prove to be the app's fault is attested and paid; what the host
could have caused is not contributed, tried elsewhere, and ends in a refund."""

from __future__ import annotations

import asyncio
import dataclasses
import secrets

import pytest

from sealdeal.model.deals import TaskStatus
from sealdeal.model.orders import TEE_TDX, Params, RequestOrder, tag
from sealdeal.model.types import RLC
from sealdeal.sdk.images import build_app_image
from sealdeal.worker import cgroups

from .conftest import ECHO, POOL_PRICE, QUICK, World

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize(
    ("source", "cause", "says"),
    [
        ("import sys; sys.exit(3)", "APP_COMPUTE_FAILED", "3"),
        ("raise RuntimeError('my own fault')", "APP_COMPUTE_FAILED", "my own fault"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "APP_COMPUTE_FAILED", ""),
        ("print('no computed.json')", "POST_COMPUTE_COMPUTED_FILE_NOT_FOUND", "computed.json"),
        ("open('/usr/evil', 'w')", "APP_COMPUTE_FAILED", "Read-only file system"),
        ("open('/iexec_in/evil', 'w')", "APP_COMPUTE_FAILED", ""),
    ],
    ids=["exits 3", "raises", "crashes", "forgets computed.json", "writes outside", "writes its input"],
)
async def test_an_apps_own_fault_is_attested_and_paid(
    world: World, source: str, cause: str, says: str
) -> None:
    provider, requester = await world.person(), await world.requester()
    app = await world.app(provider, source, price=RLC)
    deal = await world.buy(requester, app.address)
    task = await world.ended(requester, deal)
    assert task.status is TaskStatus.COMPLETED
    assert (await requester.balance()).total == 100 * RLC - RLC - POOL_PRICE
    files = (await world.result(requester, task.taskid)).files
    told = b"\n".join(files.values()).decode()
    assert cause in told
    assert says in told
    assert [c for _, c in await world.attempts(requester, task.taskid)] == [cause]


async def test_a_deal_that_nobody_could_run_is_attested_and_paid(world: World) -> None:
    """An app without a checksum, and a result to be encrypted for nobody: no secret leaves, nothing runs."""
    provider, owner = await world.person(), await world.person()
    image = build_app_image(world.image_folder(ECHO), cache=world.cache)
    bare = await provider.publish_app(dataclasses.replace(image, checksum=bytes(32)))
    sound = await provider.publish_app(image)
    for app, cause in (
        (bare, "APP_IMAGE_DOWNLOAD_FAILED"),
        (sound, "POST_COMPUTE_ENCRYPTION_PUBLIC_KEY_MISSING"),
    ):
        data = await world.data(owner, b"patients", app.address)
        keyless = await world.person(in_escrow=100 * RLC)
        quote = await keyless.quote(app.address, dataset=data.address)
        order = RequestOrder(
            app=app.address,
            dataset=data.address,
            workerpoolmaxprice=quote.workerpool,
            requester=keyless.key.address,
            beneficiary=keyless.key.address,
            tag=tag(TEE_TDX),
            params=Params(result_encryption=app is sound).to_text(),
            salt=secrets.token_bytes(32),
        )
        deal = await keyless.deal_of(await keyless.publish(order))
        task = await world.ended(keyless, deal)
        assert task.status is TaskStatus.COMPLETED
        result = await keyless.result(task.taskid)
        assert set(result.files) == {"computed.json", "error.txt"}
        assert cause in result.files["error.txt"].decode()
        assert result.receipt is not None
        assert result.receipt.proof["doors"] == {}
        assert [found for _, found in await world.attempts(keyless, task.taskid)] == [cause]


HOG = "held = []\nwhile True:\n    held.append(b'x' * (128 << 20))"


@pytest.mark.parametrize(
    ("source", "cause"),
    [("while True: pass", "APP_COMPUTE_TIMEOUT"), (HOG, "APP_OUT_OF_MEMORY")],
    ids=["loops for ever", "eats memory"],
)
async def test_what_the_host_could_have_caused_ends_in_a_refund(
    world: World, source: str, cause: str
) -> None:
    if source == HOG and cgroups.missing():
        pytest.skip("cgroups cannot be written here: nothing bounds an app's memory, as the worker says")
    provider, requester = await world.person(), await world.requester()
    app = await world.app(provider, source, price=RLC)
    deal = await world.buy(requester, app.address, category=QUICK)
    task = await world.given_up(requester, deal)
    assert task.status is TaskStatus.FAILED
    attempts = await world.attempts(requester, task.taskid)
    assert {found for _, found in attempts} == {cause}
    assert len(attempts) > 1, "it was tried elsewhere"
    balance = await requester.balance()
    assert (balance.total, balance.locked) == (100 * RLC, 0)


async def test_one_bad_app_does_not_stop_others(world: World) -> None:
    provider, requester = await world.person(), await world.requester()
    bad = await world.app(provider, "while True: pass")
    good = await world.app(provider, ECHO)
    stuck = await world.buy(requester, bad.address, category=QUICK)
    deals = [await world.buy(requester, good.address) for _ in range(2)]
    ends = await asyncio.gather(*(world.ended(requester, deal) for deal in deals))
    assert {task.status for task in ends} == {TaskStatus.COMPLETED}
    assert (await world.given_up(requester, stuck)).status is TaskStatus.FAILED
