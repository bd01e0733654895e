"""One task from the worker's hello to the result: what happens inside the enclave, in order."""

from __future__ import annotations

import hashlib
import json
import secrets
from pathlib import Path
from typing import Final

from sealdeal.model.deals import task_id
from sealdeal.model.images import Process
from sealdeal.model.orders import Params
from sealdeal.model.results import COMPUTED, OUT
from sealdeal.model.sealing import SecretKind
from sealdeal.model.types import ZERO, Address, hexstr, keccak

from . import app, inputs
from .admission import Asking
from .delivery import Delivery, Outcome
from .failures import AppFault, Failure
from .hello import Hello
from .outputs import Outputs, write_archive
from .stream import Channel

ERROR_FILE: Final = "error.txt"
_STDERR_TAIL: Final = 8 << 10


def run(channel: Channel, work: Path, bwrap: Path) -> None:
    """Do the task that `channel` opens with, in the empty folder `work`, and say `done`.

    Raises Failure (nothing is to be contributed), or BrokenStream when the worker went away.
    """
    hello = Hello.from_json(channel.hello())
    deal, params = hello.deal, hello.deal.parsed_params
    _refuse_unknown(hello, params)
    folders = {name: work / name for name in ("root", "in", "out")}
    for folder in folders.values():
        folder.mkdir()

    asking = Asking(channel, hello, secrets.token_bytes)
    asking.begin()
    channel.event("status", phase="APP_DOWNLOADING")
    process = inputs.fetch_image(channel, hello, folders["root"])
    channel.event("status", phase="APP_DOWNLOADED")
    asking.prove()
    encrypted = work / "dataset"
    channel.event("status", phase="DATA_DOWNLOADING", step="attested")
    if deal.has_dataset:
        inputs.fetch_dataset(channel, hello, encrypted)
    for number, url in enumerate(params.input_files, 1):
        inputs.fetch_input(channel, number, url, folders["in"], hello.limits.dataset_bytes)
    admission = asking.admission()
    found = admission.gathered.secrets
    if deal.has_dataset:
        key = found[(SecretKind.DATASET_KEY.value, "")]
        inputs.open_dataset(encrypted, folders["in"] / deal.dataset.pointer, key)

    channel.event(
        "status", phase="DATA_DOWNLOADED", step="secrets", message=_blame(admission.gathered.blamed)
    )
    channel.event("status", phase="COMPUTING", step="app")
    environment = _environment(hello, params, found)
    outcome = _compute(hello, params, process, environment, folders, work, bwrap)
    channel.event("status", phase="COMPUTED")
    channel.event("done", **Delivery(channel, hello, admission, outcome).deliver(work))


def _blame(blamed: dict[Address, str]) -> str:
    return "; ".join(f"set aside node {node}: {why}" for node, why in sorted(blamed.items()))


def _refuse_unknown(hello: Hello, params: Params) -> None:
    """Fail now for what this guest does not do, rather than leave it out silently."""
    if not hello.deal.tee:
        raise Failure(
            "TASK_DESCRIPTION_INVALID", "the deal's tag does not ask for a TEE, and this guest is one"
        )
    if params.bulk_cid:
        raise Failure("TASK_DESCRIPTION_INVALID", "the deal asks for several datasets in one task (bulk_cid)")
    if params.result_storage_provider != "ipfs" and hello.deal.callback == ZERO:
        raise Failure("TASK_DESCRIPTION_INVALID", "the deal asks for another storage of its result than ipfs")


def _environment(hello: Hello, params: Params, found: dict[tuple[str, str], bytes]) -> dict[str, str]:
    """wire.md §5.2 and §2.2."""
    deal = hello.deal
    variables = {
        "HOME": "/tmp",
        "TMPDIR": "/tmp",
        "IEXEC_TASK_ID": hexstr(task_id(deal.dealid, hello.index)),
        "IEXEC_DEAL_ID": hexstr(deal.dealid),
        "IEXEC_TASK_INDEX": str(hello.index),
        "IEXEC_IN": "/iexec_in",
        "IEXEC_OUT": OUT,
        "IEXEC_BOT_SIZE": str(deal.bot_size),
        "IEXEC_BOT_FIRST_INDEX": str(deal.bot_first),
        "IEXEC_BOT_TASK_INDEX": str(hello.index),
        "IEXEC_DATASET_ADDRESS": deal.dataset.pointer,
        "IEXEC_DATASET_FILENAME": deal.dataset.pointer,
        "IEXEC_INPUT_FILES_NUMBER": str(len(params.input_files)),
    }
    if params.input_files:
        variables["IEXEC_INPUT_FILES_FOLDER"] = "/iexec_in"
    for number, url in enumerate(params.input_files, 1):
        variables[f"IEXEC_INPUT_FILE_NAME_{number}"] = inputs.input_name(url)
    for (kind, _), value in found.items():
        if kind == SecretKind.APP_SECRET:
            text = _text(value, "the app developer's secret")
            variables |= {"IEXEC_APP_DEVELOPER_SECRET": text, "IEXEC_APP_DEVELOPER_SECRET_1": text}
    for number, name in params.secrets.items():
        held = found.get((SecretKind.REQUESTER_SECRET.value, name))
        if number > 0 and held is not None:
            variables[f"IEXEC_REQUESTER_SECRET_{number}"] = _text(held, f"the requester's secret {name}")
    return variables


def _text(value: bytes, what: str) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise Failure("TASK_DESCRIPTION_INVALID", f"{what} is no text, and cannot be in an app's environment")
    return text


def _compute(
    hello: Hello,
    params: Params,
    process: Process,
    environment: dict[str, str],
    folders: dict[str, Path],
    work: Path,
    bwrap: Path,
) -> Outcome:
    """Run the app and pack what it left, or the error that it is to blame for."""
    archive = work / "result.zip"
    stderr, exit_code = b"", None
    try:
        ended = app.run_app(
            bwrap,
            folders["root"],
            folders["in"],
            folders["out"],
            process,
            params.args,
            environment,
            hello.limits,
        )
        stderr, exit_code = ended.stderr, ended.exit_code
        if ended.exit_code:
            raise AppFault("APP_COMPUTE_FAILED", _how(ended.exit_code), ended.exit_code)
        outputs = Outputs(folders["out"], hello.limits)
        try:
            computed = outputs.computed()
            if hello.deal.callback != ZERO and computed.callback is None:
                raise AppFault(
                    "POST_COMPUTE_RESULT_DIGEST_COMPUTATION_FAILED",
                    f"the deal asks for a callback and its {COMPUTED} has no callback-data",
                )
            with archive.open("xb") as out:
                outputs.archive(out, {"stdout.txt": ended.stdout, "stderr.txt": ended.stderr})
        finally:
            outputs.close()
        return Outcome(computed.digest, computed.callback or b"", archive, None, exit_code)
    except AppFault as fault:
        if fault.exit_code is None:
            fault.exit_code = exit_code
        archive.unlink(missing_ok=True)
        error = _error_text(fault, stderr)
        said = {"deterministic-output-path": f"{OUT}/{ERROR_FILE}", "error-message": fault.cause}
        with archive.open("xb") as out:
            write_archive(out, [(COMPUTED, [json.dumps(said).encode()]), (ERROR_FILE, [error])])
        # A callback's digest must be that of its data, on chain: an error calls back with none.
        callback = hello.deal.callback != ZERO
        digest = keccak(b"") if callback else hashlib.sha256(error).digest()
        return Outcome(digest, b"", archive, fault, fault.exit_code)


def _how(exit_code: int) -> str:
    return (
        f"the app ended by signal {exit_code - 128}"
        if exit_code > 128
        else f"the app exited with code {exit_code}"
    )


def _error_text(fault: AppFault, stderr: bytes) -> bytes:
    """error.txt: for the beneficiary, so that it may quote the app."""
    lines = [f"cause: {fault.cause}", f"message: {fault}"]
    if fault.exit_code is not None:
        lines.append(f"exit code: {fault.exit_code}")
    tail = stderr[-_STDERR_TAIL:].decode(errors="replace")
    return "\n".join([*lines, "", "the end of the app's standard error:", tail]).encode()
