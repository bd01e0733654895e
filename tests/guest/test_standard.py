"""A task of a deal without a TEE: the same sandboxes, and nobody who vouches."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from sealdeal.model.orders import Params
from sealdeal.model.sealing import SecretKind
from sealdeal.model.types import ZERO, keccak
from sealdeal.worker.relay import AttemptFailed

from .test_task import ECHO, QUIET
from .world import CALLBACK, NODES, REQUESTER, Scene

MakeScene = Callable[..., Scene]


async def test_it_runs_without_evidence_and_signs_nothing(scene: MakeScene) -> None:
    task = scene(ECHO, dataset=b"open data ", params=Params(args="one"), bits=0)
    done = await task.run()
    assert task.result()["result.txt"] == b"OPEN DATA one"
    assert done.digest == hashlib.sha256(b"OPEN DATA one").digest()
    assert (done.enclave, done.enclave_signature, done.authorisation) == (ZERO, b"", b"")
    assert (done.fault_cause, done.exit_code) == ("", 0)
    assert task.store.upload["enclaveSignature"] == "0x" and not task.store.proof
    assert not any(node.asked for node in task.nodes.values())
    assert [s["step"] for s in task.statuses if "step" in s] == ["app", "uploaded"]


async def test_no_secret_is_asked_for_or_given(scene: MakeScene) -> None:
    show = """
        import json, os
        json.dump(dict(os.environ), open("/iexec_out/environment", "w"))
        told = {"deterministic-output-path": "/iexec_out/environment"}
        json.dump(told, open("/iexec_out/computed.json", "w"))
    """
    task = scene(show, params=Params(secrets={1: "token"}), bits=0)
    task.give(NODES[0], SecretKind.REQUESTER_SECRET, REQUESTER.address, "token", b"a secret", REQUESTER)
    await task.run()
    seen = json.loads(task.result()["environment"])
    assert seen["IEXEC_TASK_INDEX"] == "5" and not [name for name in seen if "SECRET" in name]


async def test_a_dataset_equals_its_checksum_unless_that_is_zero(scene: MakeScene) -> None:
    with pytest.raises(AttemptFailed) as failed:
        await scene(ECHO, dataset=b"data", bits=0, promised=keccak(b"other data")).run()
    assert failed.value.cause == "PRE_COMPUTE_INVALID_DATASET_CHECKSUM"


async def test_a_checksum_of_zero_promises_nothing(scene: MakeScene) -> None:
    task = scene(ECHO, dataset=b"data", bits=0, promised=bytes(32))
    await task.run()
    assert task.result()["result.txt"] == b"DATA"


async def test_a_callback_gets_its_data(scene: MakeScene) -> None:
    source = """
        import json
        json.dump({"callback-data": "0x00ff"}, open("/iexec_out/computed.json", "w"))
    """
    done = await scene(source, callback=CALLBACK, bits=0).run()
    assert (done.callback, done.digest, done.enclave) == (b"\x00\xff", keccak(b"\x00\xff"), ZERO)


async def test_an_apps_own_fault_is_a_result(scene: MakeScene) -> None:
    task = scene("raise SystemExit(3)", bits=0)
    done = await task.run()
    assert (done.fault_cause, done.exit_code) == ("APP_COMPUTE_FAILED", 3)
    files = task.result()
    assert b"exit code: 3\n" in files["error.txt"]
    assert done.digest == hashlib.sha256(files["error.txt"]).digest()


IMPOSSIBLE = {
    "encryption": (
        Params(result_encryption=True),
        "POST_COMPUTE_ENCRYPTION_PUBLIC_KEY_MISSING",
        "deals without a TEE cannot have one",
    ),
    "a bulk that is none": (Params(bulk_cid="QmBulk"), "TASK_DESCRIPTION_INVALID", "the deal's bulk"),
    "another storage": (
        Params(result_storage_provider="dropbox"),
        "TASK_DESCRIPTION_INVALID",
        "here ipfs is the one storage",
    ),
}


@pytest.mark.parametrize(("params", "cause", "says"), IMPOSSIBLE.values(), ids=IMPOSSIBLE.keys())
async def test_what_nobody_could_do_is_an_error_that_is_contributed(
    scene: MakeScene, params: Params, cause: str, says: str
) -> None:
    task = scene(ECHO, dataset=b"for your eyes only", params=params, bits=0)
    done = await task.run()
    assert (done.fault_cause, done.exit_code) == (cause, None)
    files = task.result()
    first, second = files["error.txt"].decode().splitlines()
    assert first == f"cause: {cause}" and second.startswith("message: ") and says in second
    assert json.loads(files["computed.json"])["error-message"] == cause
    assert done.digest == hashlib.sha256(files["error.txt"]).digest()
    assert "COMPUTING" not in [s["phase"] for s in task.statuses], "the app never ran"


async def test_an_app_without_a_checksum_is_not_started(scene: MakeScene, app: Any) -> None:
    image = dataclasses.replace(app(QUIET), checksum=bytes(32))
    done = await scene(image, bits=0).run()
    assert done.fault_cause == "APP_IMAGE_DOWNLOAD_FAILED"


async def test_encryption_and_a_callback_give_no_plaintext_either(scene: MakeScene) -> None:
    task = scene(QUIET, callback=CALLBACK, params=Params(result_encryption=True), bits=0)
    done = await task.run()
    assert (done.callback, done.digest) == (b"", keccak(b""))
    assert done.fault_cause == "POST_COMPUTE_ENCRYPTION_PUBLIC_KEY_MISSING"
