"""Data and results in the guest: formats of datasets, sealed digests, archives of any length."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sealdeal.guest.unpack import unpack_image
from sealdeal.model import streams
from sealdeal.model.batches import short_digest
from sealdeal.model.deals import enclave_message
from sealdeal.model.errors import IntegrityError
from sealdeal.model.images import ImageReader
from sealdeal.model.keys import recover_message
from sealdeal.model.orders import BATCH, TEE_TDX, Params
from sealdeal.model.results import (
    PADDING_ENTRY,
    SEAL_ENTRY,
    check_digest,
    decrypt_result,
    generate_result_key,
    salt_of,
    sealed_digest,
)
from sealdeal.model.types import hexstr
from sealdeal.sdk.guest_release import GuestRelease
from sealdeal.worker.relay import AttemptFailed
from sealdeal.worker.sandbox import BubblewrapSandbox

from .conftest import BOUNDS
from .test_task import ECHO
from .world import CALLBACK, WORKER, Scene

MakeScene = Callable[..., Scene]

SAY = """
    import json, os, sys
    out = os.environ["IEXEC_OUT"]
    for name, text in zip(sys.argv[1::2], sys.argv[2::2]):
        open(out + "/" + name, "w").write(text)
    told = {"deterministic-output-path": out + "/answer", "callback-data": "0x0102"}
    if "callback" not in sys.argv:
        del told["callback-data"]
    json.dump(told, open(out + "/computed.json", "w"))
"""


@pytest.fixture(scope="module")
def keys() -> tuple[bytes, str]:
    return generate_result_key(2048)


async def test_a_dataset_in_our_format_reaches_the_app(scene: MakeScene) -> None:
    task = scene(ECHO, dataset=b"abcdefghij" * 100_000, form=streams.Format.CHUNKED)
    assert task.encrypted.startswith(b"SDST")
    await task.run()
    assert task.result()["result.txt"] == b"ABCDEFGHIJ" * 100_000


async def test_an_altered_chunk_is_named_though_the_chain_has_its_checksum(scene: MakeScene) -> None:
    """The chain's checksum is of the file that its owner registered, which may itself be broken."""
    task = scene(ECHO, dataset=bytes(1 << 20), form=streams.Format.CHUNKED)
    broken = bytearray(task.encrypted)
    broken[-100] ^= 1
    task.encrypted = bytes(broken)
    task.files["dataset"].write_bytes(task.encrypted)
    with pytest.raises(AttemptFailed, match="chunk 3") as failed:
        await task.run()
    assert failed.value.cause == "PRE_COMPUTE_DATASET_DECRYPTION_FAILED"


async def test_a_sealed_digest_says_nothing_without_its_salt(
    scene: MakeScene, keys: tuple[bytes, str]
) -> None:
    private, public = keys
    seen = []
    for args in ("answer yes", "answer no", "answer yes"):
        task = scene(SAY, params=Params(args, sealed_digest=True, result_encryption=True), result_key=public)
        done = await task.run()
        files = decrypt_result(task.store.archive, private)
        plain = hashlib.sha256(args.split()[1].encode()).digest()
        assert done.digest == sealed_digest(plain, salt_of(files[SEAL_ENTRY])) != plain
        assert check_digest(plain, files[SEAL_ENTRY], done.digest, task.deal.settled_digest) == "sealed"
        with pytest.raises(IntegrityError, match="on chain it is"):
            check_digest(plain, None, done.digest, task.deal.settled_digest)
        message = enclave_message(WORKER.address, task.task, done.digest)
        assert recover_message(message, done.enclave_signature) == done.enclave
        assert task.store.proof["statement"]["digest"] == hexstr(done.digest)
        assert Params.parse(task.store.proof["manifest"]["params"]).sealed_digest
        assert set(files) == {
            "answer",
            "computed.json",
            "stdout.txt",
            "stderr.txt",
            SEAL_ENTRY,
            PADDING_ENTRY,
        }
        seen.append((done.digest, len(task.store.archive)))
    assert len({digest for digest, _ in seen}) == 3  # also for the same answer
    assert len({size for _, size in seen}) == 1  # and the size does not tell either


async def test_a_sealed_digest_of_a_batched_deal_is_short_too(scene: MakeScene) -> None:
    task = scene(SAY, params=Params("answer yes", sealed_digest=True), bits=TEE_TDX | BATCH)
    done = await task.run()
    plain, files = hashlib.sha256(b"yes").digest(), task.result()
    assert done.digest == short_digest(sealed_digest(plain, salt_of(files[SEAL_ENTRY])))
    assert PADDING_ENTRY not in files  # what is not encrypted hides nothing


async def test_a_callbacks_digest_is_never_sealed(scene: MakeScene) -> None:
    """The contract compares it with the data, which are public."""
    task = scene(SAY, params=Params("answer yes callback x", sealed_digest=True), callback=CALLBACK)
    done = await task.run()
    assert check_digest(done.digest, None, done.digest, task.deal.settled_digest) == "plain"
    assert done.callback == b"\x01\x02"


async def test_an_app_cannot_write_the_seal_itself(scene: MakeScene) -> None:
    task = scene(SAY, params=Params(f"answer yes {SEAL_ENTRY} {{}}", sealed_digest=True))
    done = await task.run()
    assert done.fault_cause == "POST_COMPUTE_OUT_FOLDER_ZIP_FAILED"
    free = scene(SAY, params=Params(f"answer yes {SEAL_ENTRY} mine"))
    done = await free.run()
    assert (done.fault_cause, free.result()[SEAL_ENTRY]) == ("", b"mine")


async def test_an_archive_that_the_wires_form_has_no_room_for_goes_as_it_is(
    scene: MakeScene, keys: tuple[bytes, str]
) -> None:
    private, public = keys
    noise = """
        import json, os
        with open("/iexec_out/noise", "wb") as file:
            for _ in range(50):
                file.write(os.urandom(1 << 20))
        told = {"deterministic-output-path": "/iexec_out/noise"}
        json.dump(told, open("/iexec_out/computed.json", "w"))
    """
    task = scene(noise, params=Params(result_encryption=True), result_key=public)
    done = await task.run()
    assert set(task.store.upload) == {"chainTaskId", "deterministHash", "enclaveSignature"}
    assert task.store.upload["deterministHash"] == hexstr(done.digest)
    files = decrypt_result(task.store.archive, private)
    assert hashlib.sha256(files["noise"]).digest() == done.digest
    assert json.loads(done.results)["location"].startswith("/ipfs/Qm")
    assert task.store.proof["storeReceipt"]["receipt"]["size"] == str(len(task.store.archive))


async def test_what_the_app_read_makes_room_for_its_results_archive(
    scene: MakeScene, release: GuestRelease, tmp_path: Path
) -> None:
    """Image and data, then image, output and archive are there at once; never all four."""
    copy = """
        import json, os, shutil
        shutil.copyfile(f"/iexec_in/{os.environ['IEXEC_DATASET_FILENAME']}", "/iexec_out/copy")
        json.dump({"deterministic-output-path": "/iexec_out/copy"}, open("/iexec_out/computed.json", "w"))
    """
    data = os.urandom(40 << 20)
    task = scene(copy, dataset=data)
    (root := tmp_path / "root").mkdir()
    with task.image.archive.open("rb") as file:
        unpack_image(ImageReader(file, task.image.checksum, max_bytes=1 << 30), root)
    image = sum(-(-path.lstat().st_size // 4096) * 4096 for path in root.rglob("*"))
    bounds = replace(BOUNDS, work=image + (5 * len(data)) // 2)
    task.sandbox = BubblewrapSandbox(release, hashlib.sha256(str(tmp_path).encode()).hexdigest()[:12], bounds)
    done = await task.run()
    assert done.digest == hashlib.sha256(data).digest()
