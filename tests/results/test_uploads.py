"""Uploads bound to their task: the chain, the authorisation and the enclave decide."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from sealdeal.model.batches import short_digest
from sealdeal.model.deals import Deal, authorisation_message, enclave_message, result_hash, result_seal
from sealdeal.model.errors import BadSignature, Conflict, InvalidInput, NotFound, TooLarge, Unauthorized
from sealdeal.model.keys import Key
from sealdeal.model.orders import BATCH, TEE_TDX
from sealdeal.model.types import ZERO, hexstr, keccak
from sealdeal.results.app import create_app
from sealdeal.results.blobs import FolderStore
from sealdeal.results.uploads import Claim, Results
from sealdeal.sdk.http import in_memory
from sealdeal.sdk.results import PROOF_LIMIT, Authorisation, ResultsClient, store_domain
from tests.network import CHAIN_ID, Network, key

ARCHIVE = b"PK\x05\x06" + bytes(18)
DIGEST = keccak(b"digest")
ENCLAVE = key("enclave")
STORE = key("store")


@dataclass
class Store:
    """A result store, and one open task of a TEE deal."""

    network: Network
    results: Results
    app: Any
    client: ResultsClient
    deal: Deal

    @property
    def task(self) -> bytes:
        return self.deal.task_ids()[0]

    def authorisation(self, role: str = "worker", enclave: Key = ENCLAVE, **grants: Any) -> Authorisation:
        worker = self.network.address(role)
        blob = self.network.authorisation(worker, self.task, enclave.address, **grants)
        return Authorisation(self.task, worker, enclave.address, blob, self.deal.dealid)

    async def token(self, role: str = "worker", **options: Any) -> str:
        return await self.client.token(self.authorisation(role, **options), key(role))

    async def upload(self, token: str, role: str = "worker", archive: bytes = ARCHIVE, **changed: Any) -> str:
        worker = self.network.address(role)
        options = {
            "task": self.task,
            "digest": DIGEST,
            "enclave_signature": ENCLAVE.sign_message(enclave_message(worker, self.task, DIGEST)),
            **changed,
        }
        return await self.client.upload(token, archive=archive, **options)


@pytest.fixture
async def store(network: Network, tmp_path: Path) -> AsyncIterator[Store]:
    url = f"sqlite+aiosqlite:///{tmp_path}/results.db"
    results = await Results.open(url, FolderStore(tmp_path / "blobs"), network.hub, STORE, bytes(32))
    app = create_app(results)
    deal = await network.deal()
    await network.as_("pool_owner").initialize(deal.dealid, 0)
    async with ResultsClient("http://store", in_memory(app)) as client:
        yield Store(network, results, app, client, deal)
    await results.close()


async def test_a_result_from_token_to_proof(store: Store) -> None:
    token = await store.token()
    assert not await store.client.uploaded(token, store.task)
    location = await store.upload(token)
    assert await store.client.uploaded(token, store.task)
    assert await store.client.link(store.task) == location
    assert await store.client.fetch(location.removeprefix("/ipfs/")) == ARCHIVE

    signed = await store.client.receipt(store.task)
    signed.check(store_domain(CHAIN_ID, store.network.addresses.hub))
    receipt = signed.receipt
    assert (signed.store, receipt.worker) == (STORE.address, store.network.address("worker"))
    assert (receipt.task, f"/ipfs/{receipt.cid}") == (store.task, location)
    assert (receipt.size, receipt.sha256) == (len(ARCHIVE), hashlib.sha256(ARCHIVE).digest())
    with pytest.raises(BadSignature, match="was signed by"):
        replace(signed, receipt=replace(receipt, size=7)).check(
            store_domain(CHAIN_ID, store.network.addresses.hub)
        )

    with pytest.raises(NotFound, match="no proof"):
        await store.client.proof(store.task)
    proof = {"manifest": {"a": 1}, "evidence": "0x12"}
    await store.client.put_proof(token, store.task, proof)
    await store.client.put_proof(token, store.task, proof)
    assert await store.client.proof(store.task) == proof
    with pytest.raises(Conflict, match="a different one"):
        await store.client.put_proof(token, store.task, {"manifest": "another"})


async def test_a_callback_has_a_proof_and_nothing_else_to_upload(store: Store) -> None:
    """Its result goes to a contract, on the chain."""
    proof = {"evidence": "0x12", "storeReceipt": None}
    token = await store.token()
    with pytest.raises(NotFound, match="the proof comes after it"):
        await store.client.put_proof(token, store.task, proof)
    assets = await store.network.assets("second")
    deal = await store.network.deal(assets=assets, callback=key("callback").address)
    await store.network.as_("pool_owner").initialize(deal.dealid, 0)
    called = replace(store, deal=deal)
    with pytest.raises(NotFound, match="the proof comes after it"):
        await store.client.put_proof(token, called.task, proof)  # it has asked for no token for this one
    await store.client.put_proof(await called.token(), called.task, proof)
    assert await store.client.proof(called.task) == proof
    with pytest.raises(NotFound, match="no result"):
        await store.client.link(called.task)


@pytest.mark.parametrize("form", ["base64", "bytes"])
async def test_the_wires_two_forms(store: Store, form: str) -> None:
    worker = store.network.address("worker")
    given = store.authorisation()
    async with httpx2.AsyncClient(base_url="http://store", transport=in_memory(store.app)) as http:
        signature = hexstr(key("worker").sign_message(given.message))
        answer = await http.post(
            "/v1/results/token", json=given.to_json(), headers={"Authorization": signature}
        )
        assert answer.headers["content-type"].startswith("text/plain")
        token = answer.text
        assert token.count(".") == 2
        body = {
            "chainTaskId": hexstr(store.task),
            "dealId": hexstr(store.deal.dealid),
            "taskIndex": 0,
            "image": "app",
            "cmd": "run",
            "zip": base64.b64encode(ARCHIVE).decode() if form == "base64" else list(ARCHIVE),
            "deterministHash": hexstr(DIGEST),
            "enclaveSignature": hexstr(ENCLAVE.sign_message(enclave_message(worker, store.task, DIGEST))),
        }
        answer = await http.post("/v1/results", json=body, headers={"Authorization": token})
        assert (answer.status_code, answer.text[:8]) == (200, "/ipfs/Qm")
        url = f"/v1/results/{hexstr(store.task)}"
        assert (await http.get(f"{url}/ipfshash")).text == answer.text.removeprefix("/ipfs/")
        assert (await http.head(url, headers={"Authorization": token})).status_code == 204
        assert (await http.head(url)).status_code == 401
        assert (await http.get(f"/v1/results/{hexstr(keccak(b'none'))}/ipfshash")).status_code == 404
        again = await http.post("/v1/results", json=body, headers={"Authorization": token})
        assert (again.status_code, "already uploaded" in again.text) == (401, True)


async def test_an_archive_as_it_is(store: Store, tmp_path: Path) -> None:
    """What is too long for the wire's form goes as a stream; everything else is as there."""
    worker = store.network.address("worker")
    (archive := tmp_path / "archive").write_bytes(bytes(range(256)) * 10_000)
    claim: dict[str, Any] = {
        "task": store.task,
        "digest": DIGEST,
        "enclave_signature": ENCLAVE.sign_message(enclave_message(worker, store.task, DIGEST)),
    }
    send = store.client.upload_archive
    with pytest.raises(Unauthorized, match="token"):
        await send("junk", archive=archive, **claim)
    token = await store.token()
    with pytest.raises(Unauthorized, match="to sign this digest"):
        await send(token, archive=archive, **{**claim, "digest": keccak(b"other")})
    (nothing := tmp_path / "nothing").write_bytes(b"")
    with pytest.raises(InvalidInput, match="got no bytes"):
        await send(token, archive=nothing, **claim)
    location = await send(token, archive=archive, **claim)
    assert await store.client.fetch(location.removeprefix("/ipfs/")) == archive.read_bytes()
    receipt = (await store.client.receipt(store.task)).receipt
    assert receipt.sha256 == hashlib.sha256(archive.read_bytes()).digest()
    assert (receipt.size, f"/ipfs/{receipt.cid}") == (2_560_000, location)
    with pytest.raises(Unauthorized, match="already uploaded"):
        await send(token, archive=archive, **claim)


async def test_nothing_of_an_archive_is_read_before_its_claim_is_found_good(store: Store) -> None:
    async def body() -> AsyncIterator[bytes]:
        pytest.fail("the body was read")
        yield b""

    claim = Claim(store.task, keccak(b"other"), ENCLAVE.sign_message(keccak(b"something")))
    with pytest.raises(Unauthorized, match="to sign this digest"):
        await store.results.accept_archive(await store.token(), claim, body())


async def test_an_archive_over_the_limit_leaves_nothing(store: Store, tmp_path: Path) -> None:
    worker = store.network.address("worker")
    signature = ENCLAVE.sign_message(enclave_message(worker, store.task, DIGEST))

    async def body() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield bytes(1 << 20)

    claim, token = Claim(store.task, DIGEST, signature), await store.token()
    with pytest.raises(TooLarge):
        await store.results.accept_archive(token, claim, body(), limit=3 << 20)
    assert not any(path.is_file() for path in (tmp_path / "blobs").rglob("*"))
    await store.upload(token)


async def test_tokens_are_for_those_the_chain_would_take(store: Store) -> None:
    good = store.authorisation()
    worker = key("worker")
    with pytest.raises(Unauthorized, match="signature of the worker"):
        await store.client.token(good, key("second_worker"))
    refused = {
        "one grant of two": store.authorisation(nodes=1),
        "expired grants": store.authorisation(life=-5),
        "another enclave": replace(good, enclave=key("impostor").address),
        "another task": replace(good, task=keccak(b"none")),
        "no signature": replace(good, signature=b""),
        "the pool's owner instead of the quorum": replace(
            good, signature=key("pool_owner").sign_message(good.message)
        ),
        "no enclave": replace(
            good,
            enclave=ZERO,
            signature=key("pool_owner").sign_message(authorisation_message(good.worker, good.task, ZERO)),
        ),
    }
    for name, given in refused.items():
        with pytest.raises(Unauthorized):
            await store.client.token(given, worker)
            pytest.fail(name)


async def test_no_token_after_the_final_deadline(store: Store) -> None:
    await store.network.pass_time(10 * 300 + 1)
    with pytest.raises(Unauthorized, match="final deadline"):
        await store.token()


async def test_uploads_that_the_enclave_did_not_sign(store: Store) -> None:
    token = await store.token()
    with pytest.raises(Unauthorized):
        await store.upload(token, digest=keccak(b"another digest"))
    with pytest.raises(Unauthorized):
        await store.upload(token, enclave_signature=b"")
    impostor = key("impostor").sign_message(
        enclave_message(store.network.address("worker"), store.task, DIGEST)
    )
    with pytest.raises(Unauthorized, match="to sign this digest"):
        await store.upload(token, enclave_signature=impostor)
    with pytest.raises(NotFound):
        await store.client.link(store.task)
    await store.upload(token)  # what was refused has used nothing up


@pytest.mark.parametrize("token", ["", "junk", "a.b.c"])
async def test_uploads_without_a_token(store: Store, token: str) -> None:
    await store.token()
    with pytest.raises(Unauthorized, match="token"):
        await store.upload(token)
    with pytest.raises(Unauthorized, match="token"):
        await store.client.put_proof(token, store.task, {})


async def test_a_token_is_of_one_worker(store: Store) -> None:
    await store.token("worker")
    foreign = await store.token("second_worker", enclave=key("impostor"))
    with pytest.raises(Unauthorized):
        await store.upload(foreign, "worker")


async def test_no_upload_when_the_task_has_ended(store: Store) -> None:
    deal = await store.network.deal(assets=await store.network.assets("second"))
    await store.network.complete(deal)
    other = Authorisation(deal.task_ids()[0], store.network.address("worker"), ENCLAVE.address, b"")
    blob = store.network.authorisation(other.worker, other.task, ENCLAVE.address)
    token = await store.client.token(replace(other, signature=blob), key("worker"))
    signature = ENCLAVE.sign_message(enclave_message(other.worker, other.task, DIGEST))
    with pytest.raises(Unauthorized, match="COMPLETED"):
        await store.upload(token, task=other.task, enclave_signature=signature)


async def test_a_second_worker_may_upload_after_the_first_was_lost(store: Store) -> None:
    """The chain takes one of them; whoever asks for the task's result gets that one."""
    first = await store.upload(await store.token("worker"))
    second = await store.upload(
        await store.token("second_worker"), "second_worker", archive=b"another archive"
    )
    assert first != second
    worker = store.network.address("worker")
    assert (await store.client.receipt(store.task, worker)).receipt.worker == worker
    taken = await _contribute(store, "worker")
    assert taken == store.task
    assert await store.client.link(store.task) == first


async def _contribute(store: Store, role: str) -> bytes:
    given = store.authorisation(role)
    signature = ENCLAVE.sign_message(enclave_message(given.worker, given.task, DIGEST))
    await store.network.as_(role).contribute_and_finalize(
        given.task, DIGEST, b"result", b"", ENCLAVE.address, signature, given.signature
    )
    return given.task


async def test_a_new_enclave_of_the_same_worker_may_upload_again(store: Store) -> None:
    await store.upload(await store.token())
    token = await store.token()
    with pytest.raises(Unauthorized, match="already uploaded"):
        await store.upload(token)
    fresh = key("fresh enclave")
    token = await store.token(enclave=fresh)
    signature = fresh.sign_message(enclave_message(store.network.address("worker"), store.task, DIGEST))
    await store.upload(token, enclave_signature=signature)


async def test_standard_deals_need_the_pools_word(store: Store) -> None:
    network = store.network
    assets = await network.assets("standard")
    deal = await network.deal(assets=assets, bits=0, with_dataset=False)
    (task,) = deal.task_ids()
    await network.as_("pool_owner").initialize(deal.dealid, 0)
    worker = network.address("worker")
    message = authorisation_message(worker, task, ZERO)
    for signer, welcome in (("pool_owner", True), ("second_worker", False)):
        given = Authorisation(task, worker, ZERO, key(signer).sign_message(message))
        if not welcome:
            with pytest.raises(Unauthorized, match="workerpool's owner"):
                await store.client.token(given, key("worker"))
            continue
        token = await store.client.token(given, key("worker"))
        location = await store.upload(token, task=task, enclave_signature=b"")
        assert await store.client.link(task) == location


async def test_an_agreed_result_is_opened(store: Store) -> None:
    """A worker that revealed the right digest uploads the files that it stands for, and no others."""
    network = store.network
    assets = await network.assets("agreed")
    deal = await network.deal(assets=assets, bits=0, with_dataset=False)
    (task,) = deal.task_ids()
    await network.as_("pool_owner").initialize(deal.dealid, 0)
    worker = network.address("worker")
    files = {"result.txt": b"42", "computed.json": b'{"deterministic-output-path":"/iexec_out/result.txt"}'}
    digest = hashlib.sha256(b"42").digest()
    word = key("pool_owner").sign_message(authorisation_message(worker, task, ZERO))
    token = await store.client.token(Authorisation(task, worker, ZERO, word), key("worker"))
    hub = network.as_("worker")
    await hub.deposit(10**9)
    hash_, seal = result_hash(task, digest), result_seal(worker, task, digest)
    await hub.contribute(task, hash_, seal, ZERO, b"", word)
    options: dict[str, Any] = {"task": task, "digest": digest, "enclave_signature": b""}
    with pytest.raises(Unauthorized, match="expected a revealed contribution"):
        await store.upload(token, archive=zipped(files), **options)
    await hub.reveal(task, digest)
    with pytest.raises(Unauthorized, match="not the one that this worker contributed"):
        await store.upload(token, archive=zipped(files), **options | {"digest": DIGEST})
    for other in (zipped(files | {"result.txt": b"43"}), zipped({"result.txt": b"42"}), b"no archive"):
        with pytest.raises(Unauthorized, match="expected an archive of the digest"):
            await store.upload(token, archive=other, **options)
    location = await store.upload(token, archive=zipped(files), **options)
    assert await store.client.link(task) == location


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


async def test_limits(store: Store) -> None:
    token = await store.token()
    with pytest.raises(TooLarge, match="result archive"):
        await store.upload(token, archive=bytes(49 << 20))
    await store.upload(token)
    with pytest.raises(TooLarge, match="proof may have"):
        await store.client.put_proof(token, store.task, {"x": "y" * PROOF_LIMIT})


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b"[" * 50_000, b'{"chainTaskId":"0x12","deterministHash":"0x","zip":"AA=="}']
    + [
        b'{"chainTaskId":"0x12","deterministHash":"0x34","zip":%s}' % z
        for z in (b"5", b"[256]", b"[[]]", b'"?"')
    ],
)
async def test_malformed_uploads(store: Store, body: bytes) -> None:
    token = await store.token()
    with pytest.raises(InvalidInput, match="expected"):
        await store.client.request("POST", "/v1/results", content=body, headers={"Authorization": token})


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"chainTaskId":1}', b"null"])
async def test_malformed_authorisations(store: Store, body: bytes) -> None:
    with pytest.raises(InvalidInput, match="expected"):
        await store.client.request("POST", "/v1/results/token", content=body, headers={"Authorization": "0x"})


async def test_a_task_that_has_not_begun_is_found_in_a_batched_deal_only(store: Store) -> None:
    network = store.network
    assets = await network.assets("bags")
    store.deal = await network.deal(assets=assets, bits=TEE_TDX | BATCH, volume=2)
    digest = short_digest(DIGEST)
    worker = network.address("worker")
    signature = ENCLAVE.sign_message(enclave_message(worker, store.task, digest))
    right = store.authorisation()
    with pytest.raises(Unauthorized, match="not on the chain"):
        await store.client.token(replace(right, index=1), key("worker"))
    token = await store.client.token(right, key("worker"))
    location = await store.upload(token, digest=digest, enclave_signature=signature)
    assert await store.client.link(store.task) == location

    store.deal = await network.deal(assets=assets, volume=2)
    with pytest.raises(Unauthorized, match="not on the chain"):
        await store.token()
