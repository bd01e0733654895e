"""A task inside the enclave, from hello to done: what is contributed, and what only fails."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from sealdeal.model.batches import short_digest
from sealdeal.model.deals import (
    ResultStatement,
    authorisation_blob,
    enclave_message,
    result_domain,
)
from sealdeal.model.eip712 import digest as typed_digest
from sealdeal.model.keys import recover_digest, recover_message
from sealdeal.model.orders import BATCH, TEE_TDX, Params
from sealdeal.model.results import decrypt_result, generate_result_key
from sealdeal.model.sealing import SecretKind
from sealdeal.model.types import address, hexstr, keccak, unhex
from sealdeal.worker import cgroups
from sealdeal.worker.relay import AttemptFailed, Done

from .world import APP, CALLBACK, CHAIN_ID, HUB, NODES, OWNER, REQUESTER, WORKER, Scene

MakeScene = Callable[..., Scene]

ECHO = """
    import json, os, sys
    data = open(os.environ["IEXEC_IN"] + "/" + os.environ["IEXEC_DATASET_FILENAME"]).read()
    out = os.environ["IEXEC_OUT"]
    with open(out + "/result.txt", "w") as file:
        file.write(data.upper() + " ".join(sys.argv[1:]))
    with open(out + "/computed.json", "w") as file:
        json.dump({"deterministic-output-path": out + "/result.txt"}, file)
    print("said")
    print("complained", file=sys.stderr)
"""
QUIET = """
    import json, os
    out = os.environ["IEXEC_OUT"]
    open(out + "/result.txt", "w").write("done")
    json.dump({"deterministic-output-path": out + "/result.txt"}, open(out + "/computed.json", "w"))
"""


async def test_a_task_gives_a_result_that_everyone_can_check(scene: MakeScene) -> None:
    task = scene(ECHO, dataset=b"patients ", params=Params(args="one 'two three'"))
    done = await task.run()

    files = task.result()
    assert files["result.txt"] == b"PATIENTS one two three"
    assert (files["stdout.txt"], files["stderr.txt"]) == (b"said\n", b"complained\n")
    assert set(files) == {"computed.json", "result.txt", "stdout.txt", "stderr.txt"}
    assert done.digest == hashlib.sha256(b"PATIENTS one two three").digest()
    assert (done.fault_cause, done.exit_code, done.callback) == ("", 0, b"")

    said = json.loads(done.results)
    assert said["storage"] == "ipfs" and said["location"].startswith("/ipfs/Qm")
    message = enclave_message(WORKER.address, task.task, done.digest)
    assert recover_message(message, done.enclave_signature) == done.enclave
    proof = task.store.proof
    grants = {address(n): unhex(g["signature"]) for n, g in proof["grants"].items()}
    assert done.authorisation == authorisation_blob(2_000_000_000, dict(sorted(grants.items())[:2]))
    statement = ResultStatement.from_json(proof["statement"])
    signer = recover_digest(
        typed_digest(result_domain(CHAIN_ID, HUB), statement), unhex(proof["statementSignature"])
    )
    assert signer == done.enclave
    assert statement == ResultStatement(
        task.task, WORKER.address, done.digest, keccak(done.results), bytes(32)
    )
    assert task.store.upload["enclaveSignature"] == hexstr(done.enclave_signature)
    phases = list(dict.fromkeys(s["phase"] for s in task.statuses))
    assert phases == [
        *(
            "APP_DOWNLOADING",
            "APP_DOWNLOADED",
            "DATA_DOWNLOADING",
            "DATA_DOWNLOADED",
            "COMPUTING",
            "COMPUTED",
        ),
        *("RESULT_UPLOADING", "RESULT_UPLOADED"),
    ]
    assert [s["step"] for s in task.statuses if "step" in s] == ["attested", "secrets", "app", "uploaded"]


async def test_the_app_sees_the_environment_of_the_protocol_and_nothing_else(scene: MakeScene) -> None:
    show = """
        import json, os
        json.dump(dict(os.environ), open("/iexec_out/environment", "w"))
        told = {"deterministic-output-path": "/iexec_out/environment"}
        json.dump(told, open("/iexec_out/computed.json", "w"))
    """
    task = scene(
        show,
        params=Params(secrets={1: "token", 2: "absent"}),
        wanted=(("app-secret", "1"), ("requester-secret", "token"), ("requester-secret", "absent")),
    )
    task.split(SecretKind.APP_SECRET, APP, "1", b"of the developer")
    task.give(
        NODES[2], SecretKind.REQUESTER_SECRET, REQUESTER.address, "token", b"of the requester", REQUESTER
    )
    await task.run()
    seen = json.loads(task.result()["environment"])
    expected = {
        "IEXEC_TASK_ID": hexstr(task.task),
        "IEXEC_DEAL_ID": hexstr(task.deal.dealid),
        "IEXEC_TASK_INDEX": "5",
        "IEXEC_BOT_TASK_INDEX": "5",
        "IEXEC_BOT_FIRST_INDEX": "4",
        "IEXEC_BOT_SIZE": "3",
        "IEXEC_IN": "/iexec_in",
        "IEXEC_OUT": "/iexec_out",
        "IEXEC_DATASET_ADDRESS": "0x" + "0" * 40,
        "IEXEC_DATASET_FILENAME": "0x" + "0" * 40,
        "IEXEC_INPUT_FILES_NUMBER": "0",
        "IEXEC_APP_DEVELOPER_SECRET": "of the developer",
        "IEXEC_APP_DEVELOPER_SECRET_1": "of the developer",
        "IEXEC_REQUESTER_SECRET_1": "of the requester",
    }
    assert {k: v for k, v in seen.items() if k.startswith("IEXEC_")} == expected
    assert set(seen) - set(expected) <= {
        *("PATH", "HOME", "TMPDIR", "LANG", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "PWD", "LC_CTYPE")
    }


async def test_input_files_lie_under_the_hash_of_their_url(scene: MakeScene) -> None:
    url = "https://example.org/table.csv"
    read = """
        import json, os
        name = os.environ["IEXEC_INPUT_FILE_NAME_1"]
        text = open(os.environ["IEXEC_INPUT_FILES_FOLDER"] + "/" + name).read()
        told = {"callback-data": "0x" + (name + text).encode().hex()}
        json.dump(told, open("/iexec_out/computed.json", "w"))
    """
    task = scene(read, params=Params(input_files=(url,)))
    task.files["input/1"] = task.folder / "table"
    task.files["input/1"].write_text("cells")
    done = await task.run()
    assert done.callback.decode() == "0x" + hashlib.sha256(url.encode()).hexdigest() + "cells"
    assert done.digest == keccak(done.callback)


async def test_an_encrypted_result_opens_for_its_beneficiary_alone(scene: MakeScene) -> None:
    private, text = generate_result_key(2048)
    task = scene(ECHO, dataset=b"marker-of-a-row", params=Params(result_encryption=True), result_key=text)
    done = await task.run()
    assert decrypt_result(task.store.archive, private)["result.txt"] == b"MARKER-OF-A-ROW"
    assert b"MARKER" not in task.store.archive and b"result.txt" not in task.store.archive
    key = unhex(task.store.proof["statement"]["beneficiaryKey"])
    assert key == hashlib.sha256(text.encode()).digest()
    assert done.digest == hashlib.sha256(b"MARKER-OF-A-ROW").digest()


async def test_a_callback_gets_its_data_and_nothing_is_stored(scene: MakeScene) -> None:
    task = scene(
        """
        import json
        json.dump({"callback-data": "0x00ff"}, open("/iexec_out/computed.json", "w"))
        """,
        callback=CALLBACK,
    )
    done = await task.run()
    assert (done.callback, done.digest) == (b"\x00\xff", keccak(b"\x00\xff"))
    assert json.loads(done.results) == {"storage": "ethereum", "location": CALLBACK}
    assert not task.store.upload and task.store.proof["storeReceipt"] is None


# --- the app's own faults: attested, contributed, paid --------------------------------------------

FAULTS = {
    "exits with a code": ("raise SystemExit(3)", "APP_COMPUTE_FAILED", 3),
    "raises": ("raise ValueError('bad row')", "APP_COMPUTE_FAILED", 1),
    "dies of a signal": ("import os; os.abort()", "APP_COMPUTE_FAILED", 134),
    "writes no computed.json": ("pass", "POST_COMPUTE_COMPUTED_FILE_NOT_FOUND", 0),
    "writes nonsense": (
        "open('/iexec_out/computed.json', 'w').write('{')",
        "POST_COMPUTE_RESULT_DIGEST_COMPUTATION_FAILED",
        0,
    ),
    "names a result that is not there": (
        """open('/iexec_out/computed.json', 'w').write('{"deterministic-output-path": "/iexec_out/x"}')""",
        "POST_COMPUTE_RESULT_DIGEST_COMPUTATION_FAILED",
        0,
    ),
    "names a result elsewhere": (
        """open('/iexec_out/computed.json', 'w').write('{"deterministic-output-path": "/etc/passwd"}')""",
        "POST_COMPUTE_RESULT_DIGEST_COMPUTATION_FAILED",
        0,
    ),
    "writes many files": (
        "[open(f'/iexec_out/{n}', 'w') for n in range(1001)]",
        "POST_COMPUTE_OUT_FOLDER_ZIP_FAILED",
        0,
    ),
    "uses a long name": (
        "open('/iexec_out/' + 'n' * 32, 'w')",
        "POST_COMPUTE_TOO_LONG_RESULT_FILE_NAME",
        0,
    ),
    "writes outside its folder": ("open('/app/notes', 'w')", "APP_COMPUTE_FAILED", 1),
}


@pytest.mark.parametrize(("text", "cause", "code"), FAULTS.values(), ids=FAULTS.keys())
async def test_an_apps_own_fault_is_an_attested_error(
    scene: MakeScene, text: str, cause: str, code: int
) -> None:
    task = scene(text)
    done = await task.run()
    assert (done.fault_cause, done.exit_code) == (cause, code)
    files = task.result()
    assert set(files) == {"computed.json", "error.txt"}
    assert f"cause: {cause}\n" in files["error.txt"].decode()
    assert f"exit code: {code}\n" in files["error.txt"].decode()
    said = json.loads(files["computed.json"])
    assert said == {"deterministic-output-path": "/iexec_out/error.txt", "error-message": cause}
    assert done.digest == hashlib.sha256(files["error.txt"]).digest()
    assert recover_message(enclave_message(WORKER.address, task.task, done.digest), done.enclave_signature)


async def test_an_attested_error_quotes_the_app_to_its_beneficiary_only(scene: MakeScene) -> None:
    private, text = generate_result_key(2048)
    task = scene("raise ValueError('secret row 17')", params=Params(result_encryption=True), result_key=text)
    done = await task.run()
    assert b"secret row 17" in decrypt_result(task.store.archive, private)["error.txt"]
    everything_else = repr((done, task.store.proof, task.store.upload, task.statuses))
    assert "secret row 17" not in everything_else
    assert b"secret row 17" not in task.store.archive


async def test_a_callback_without_data_calls_back_with_none(scene: MakeScene) -> None:
    done = await scene(QUIET, callback=CALLBACK).run()
    assert (done.callback, done.digest) == (b"", keccak(b""))
    assert done.fault_cause == "POST_COMPUTE_RESULT_DIGEST_COMPUTATION_FAILED"


async def test_a_program_that_is_not_in_the_image_is_the_apps_fault(
    scene: MakeScene, tmp_path: Any, cache: Any
) -> None:
    from sealdeal.sdk.images import build_app_image

    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "sealdeal.toml").write_text('name = "x"\nentrypoint = ["no-such-program"]\n')
    (folder / "file").write_text("x")
    done = await scene(build_app_image(folder, cache=cache)).run()
    assert (done.fault_cause, done.exit_code) == ("APP_COMPUTE_FAILED", 127)


# --- what the host could have caused: reported, never contributed ---------------------------------


async def fails(task: Scene) -> AttemptFailed:
    with pytest.raises(AttemptFailed) as failed:
        await task.run()
    assert not task.store.upload and not task.store.proof
    return failed.value


async def test_an_app_that_loops_runs_out_of_its_time(scene: MakeScene) -> None:
    failed = await fails(scene("while True: pass", seconds=1))
    assert failed.cause == "APP_COMPUTE_TIMEOUT"


needs_cgroups = pytest.mark.skipif(bool(cgroups.missing()), reason="cgroups cannot be written here")
"""Nothing else bounds memory and processes: the worker says so at its start."""


@needs_cgroups
async def test_an_app_that_eats_memory_is_killed_and_named(scene: MakeScene) -> None:
    failed = await fails(scene("x = [bytearray(64 << 20) for _ in range(64)]"))
    assert failed.cause == "APP_OUT_OF_MEMORY"


async def test_an_app_that_floods_its_tmp_is_stopped(scene: MakeScene) -> None:
    done = await scene(
        "open('/tmp/x', 'wb').write(bytes(8 << 20))", limits={"temporary_bytes": 4 << 20}
    ).run()
    assert done.exit_code == 1


@needs_cgroups
async def test_a_fork_bomb_ends_with_the_app(scene: MakeScene) -> None:
    bomb = """
        import os, time
        for _ in range(10_000):
            try:
                if os.fork() == 0:
                    time.sleep(60); os._exit(0)
            except OSError:
                raise SystemExit(9)
    """
    done = await scene(bomb).run()
    assert done.exit_code == 9


async def test_an_app_that_shouts_is_cut_short(scene: MakeScene) -> None:
    shout = QUIET + "    print('x' * 3_000_000)\n"
    task = scene(shout, limits={"log_bytes": 1000})
    await task.run()
    assert task.result()["stdout.txt"] == b"x" * 1000


async def test_a_changed_dataset_is_refused(scene: MakeScene) -> None:
    task = scene(ECHO, dataset=b"patients")
    task.files["dataset"].write_bytes(task.encrypted[:-1] + b"\x00")
    failed = await fails(task)
    assert failed.cause == "PRE_COMPUTE_INVALID_DATASET_CHECKSUM"
    assert "changed after it was protected" in str(failed)


async def test_a_dataset_whose_key_is_another_one_is_refused(scene: MakeScene) -> None:
    task = scene(ECHO, dataset=b"patients")
    for node in task.nodes.values():
        node.secrets.clear()
    from .world import DATASET

    task.split(SecretKind.DATASET_KEY, DATASET, "", b"A" * 43 + b"=")
    assert (await fails(task)).cause == "PRE_COMPUTE_DATASET_DECRYPTION_FAILED"


async def test_another_image_is_refused(scene: MakeScene, app: Any) -> None:
    task = scene(QUIET)
    task.files["image"] = app("print('another')").archive
    failed = await fails(task)
    assert failed.cause == "APP_IMAGE_DOWNLOAD_FAILED" and "expected the manifest" in str(failed)


async def test_an_image_with_a_changed_byte_is_refused(scene: MakeScene) -> None:
    task = scene(QUIET)
    data = bytearray(task.image.archive.read_bytes())
    data[data.index(b'out = os.environ["IEXEC_OUT"]')] ^= 1
    task.files["image"] = task.folder / "image"
    task.files["image"].write_bytes(data)
    failed = await fails(task)
    assert failed.cause == "APP_IMAGE_DOWNLOAD_FAILED" and "layer 2" in str(failed)


async def test_an_image_that_is_not_there_fails_by_name(scene: MakeScene) -> None:
    task = scene(QUIET)
    task.files["image"] = task.folder / "nowhere"
    assert (await fails(task)).cause == "APP_IMAGE_DOWNLOAD_FAILED"


async def test_encryption_without_a_key_is_attested_as_an_error_and_nothing_runs(scene: MakeScene) -> None:
    task = scene(ECHO, dataset=b"patients", params=Params(result_encryption=True), result_key="")
    done = await task.run()
    assert done.fault_cause == "POST_COMPUTE_ENCRYPTION_PUBLIC_KEY_MISSING"
    assert set(task.result()) == {"computed.json", "error.txt"}
    assert "COMPUTING" not in [status["phase"] for status in task.statuses]


async def test_a_key_that_is_none_fails_before_the_app_runs(scene: MakeScene) -> None:
    task = scene(QUIET, params=Params(result_encryption=True), result_key="bm90IGEga2V5")
    assert (await fails(task)).cause == "POST_COMPUTE_MALFORMED_ENCRYPTION_PUBLIC_KEY"
    assert "COMPUTING" not in [s["phase"] for s in task.statuses]


@pytest.mark.parametrize("params", [Params(bulk_cid="QmBulk"), Params(result_storage_provider="dropbox")])
async def test_what_no_guest_does_is_attested_as_an_error(scene: MakeScene, params: Params) -> None:
    """The deal itself says so; left undone it would cost the pool its stake."""
    task = scene(QUIET, params=params)
    done = await task.run()
    assert done.fault_cause == "TASK_DESCRIPTION_INVALID"
    assert b"TASK_DESCRIPTION_INVALID" in task.result()["error.txt"]
    assert "COMPUTING" not in [status["phase"] for status in task.statuses]


async def test_a_store_that_names_another_content_is_not_believed(scene: MakeScene) -> None:
    task = scene(QUIET)
    task.store.misbehave = lambda path, status, said: (
        (status, said.replace(b"Qm", b"Qn")) if path == "/v1/results" else (status, said)
    )
    with pytest.raises(AttemptFailed) as failed:
        await task.run()
    assert failed.value.cause == "POST_COMPUTE_IPFS_UPLOAD_FAILED" and not task.store.proof


async def test_a_killed_guest_is_lost_not_hanging(scene: MakeScene, sandbox: Any) -> None:
    task = scene("import time; time.sleep(60)", seconds=60)
    started = sandbox.start

    class Spy:
        capabilities = sandbox.capabilities
        guest: Any = None

        async def start(self, slot: int) -> Any:
            self.guest = await started(slot)
            return self.guest

    spy = task.sandbox = Spy()  # type: ignore[assignment]
    running = asyncio.create_task(task.run())
    while not any(s["phase"] == "COMPUTING" for s in task.statuses):
        await asyncio.sleep(0.02)
    await spy.guest.kill()
    with pytest.raises(AttemptFailed) as failed:
        await running
    assert failed.value.cause == "GUEST_LOST"


def test_done_is_read_strictly() -> None:
    with pytest.raises(AttemptFailed):
        Done.read({"enclave": OWNER.address})


async def test_a_batched_deals_digest_is_short(scene: MakeScene) -> None:
    task = scene(QUIET, bits=TEE_TDX | BATCH)
    done = await task.run()
    assert done.digest == short_digest(hashlib.sha256(b"done").digest())
    message = enclave_message(WORKER.address, task.task, done.digest)
    assert recover_message(message, done.enclave_signature) == done.enclave
    assert task.store.upload["deterministHash"] == hexstr(done.digest)
    assert ResultStatement.from_json(task.store.proof["statement"]).digest == done.digest
