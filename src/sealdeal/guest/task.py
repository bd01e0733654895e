"""One task from the worker's hello to the result: what happens inside the enclave, in order."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sealdeal.model.cid import cid_of
from sealdeal.model.deals import ResultStatement, enclave_message, result_domain, task_id
from sealdeal.model.eip712 import digest as typed_digest
from sealdeal.model.errors import InvalidInput, SealdealError
from sealdeal.model.orders import Params
from sealdeal.model.sealing import SecretKind, encrypt_result
from sealdeal.model.types import ZERO, Address, Bytes32, hexstr, keccak

from . import app, inputs
from .admission import Admission, Asking
from .failures import AppFault, Failure
from .hello import Hello
from .outputs import COMPUTED, OUT, Outputs, write_archive
from .stream import Channel

ERROR_FILE: Final = "error.txt"
_STDERR_TAIL: Final = 8 << 10
_PIECE: Final = 768 << 10
"""Divisible by 3, so that pieces of base64 join without padding."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is contributed."""

    digest: Bytes32
    callback: bytes
    archive: Path
    fault: AppFault | None
    exit_code: int | None


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
    process: Any,
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


class Delivery:
    """The result on its way out: encrypted, stored, signed for."""

    def __init__(self, channel: Channel, hello: Hello, admission: Admission, outcome: Outcome) -> None:
        self.channel, self.hello, self.admission, self.outcome = channel, hello, admission, outcome
        manifest = admission.manifest
        self.task, self.worker = manifest.task_id, manifest.worker
        message = enclave_message(self.worker, self.task, outcome.digest)
        self.signature = admission.enclave.sign_message(message)

    def deliver(self, work: Path) -> dict[str, Any]:
        """Store result and proof; returns the members of `done`. Raises Failure."""
        enclave, hello = self.admission.enclave, self.hello
        login = {"enclave": enclave.address, "authorization": hexstr(self.admission.gathered.authorisation)}
        self._told(self.channel.call("login", None, **login), "the result store's login")
        self.channel.event("status", phase="RESULT_UPLOADING")
        receipt = None
        if hello.deal.callback != ZERO:
            results = {"storage": "ethereum", "location": hello.deal.callback}
        else:
            sealed = self._seal(work)
            receipt = self._upload(sealed)
            results = {"storage": "ipfs", "location": "/ipfs/" + receipt["receipt"]["cid"]}
        said = json.dumps(results).encode()
        key = self.admission.manifest.result_key
        statement = ResultStatement(
            task=self.task,
            worker=self.worker,
            digest=self.outcome.digest,
            results=keccak(said),
            beneficiaryKey=hashlib.sha256(key.encode()).digest() if key else bytes(32),
        )
        signed = enclave.sign_digest(typed_digest(result_domain(hello.chain_id, hello.hub), statement))
        proof = {
            **self.admission.proof(),
            "statement": statement.to_json(),
            "statementSignature": hexstr(signed),
            "storeReceipt": receipt,
        }
        path = f"/v1/results/{hexstr(self.task)}/proof"
        self._http("PUT", path, [json.dumps(proof).encode()], "the proof's upload")
        self.channel.event("status", phase="RESULT_UPLOADED", step="uploaded")
        fault = self.outcome.fault
        return {
            "taskId": hexstr(self.task),
            "worker": self.worker,
            "attempt": hello.attempt,
            "enclave": enclave.address,
            "digest": hexstr(self.outcome.digest),
            "results": hexstr(said),
            "callback": hexstr(self.outcome.callback),
            "enclaveSignature": hexstr(self.signature),
            "authorization": hexstr(self.admission.gathered.authorisation),
            "statement": statement.to_json(),
            "statementSignature": hexstr(signed),
            "proof": proof,
            "error": {"cause": fault.cause, "message": str(fault)} if fault else None,
            "exitCode": self.outcome.exit_code,
        }

    def _seal(self, work: Path) -> Path:
        """The archive as it leaves: encrypted when the deal asks for it, and then never otherwise."""
        if not self.hello.deal.parsed_params.result_encryption:
            return self.outcome.archive
        sealed = work / "sealed.zip"
        try:
            with sealed.open("xb") as out:
                encrypt_result(
                    out,
                    _pieces(self.outcome.archive),
                    self.admission.manifest.result_key,
                    secrets.token_bytes,
                )
        except (InvalidInput, OSError) as error:
            raise Failure("POST_COMPUTE_ENCRYPTION_FAILED", str(error)) from None
        return sealed

    def _upload(self, archive: Path) -> dict[str, Any]:
        """wire.md §3.1; returns the store's receipt, compared with what was sent."""
        cid, digest = cid_of(_pieces(archive)), hashlib.sha256()
        for piece in _pieces(archive):
            digest.update(piece)
        head = {
            "chainTaskId": hexstr(self.task),
            "dealId": hexstr(self.hello.deal.dealid),
            "taskIndex": self.hello.index,
            "image": self.hello.app_multiaddr,
            "cmd": self.hello.deal.parsed_params.args,
            "deterministHash": hexstr(self.outcome.digest),
            "enclaveSignature": hexstr(self.signature),
        }

        def body() -> Iterator[bytes]:
            yield json.dumps(head).encode()[:-1] + b', "zip": "'
            for piece in _pieces(archive):
                yield base64.b64encode(piece)
            yield b'"}'

        location = (
            self._http("POST", "/v1/results", body(), "the result's upload").decode(errors="replace").strip()
        )
        if location != f"/ipfs/{cid}":
            raise Failure(
                "POST_COMPUTE_IPFS_UPLOAD_FAILED",
                f"expected the store to answer /ipfs/{cid}, got {location:.100}",
            )
        path = f"/v1/results/{hexstr(self.task)}/receipt?worker={self.worker}"
        try:
            receipt: dict[str, Any] = json.loads(self._http("GET", path, None, "the store's receipt"))
            came = receipt["receipt"]
            told = {
                "task": hexstr(self.task),
                "worker": self.worker,
                "cid": cid,
                "sha256": hexstr(digest.digest()),
            }
            wrong = [name for name, value in told.items() if came[name] != value]
        except (ValueError, KeyError, TypeError):
            wrong = ["form"]
        if wrong:
            raise Failure(
                "POST_COMPUTE_IPFS_UPLOAD_FAILED", f"the store's receipt is for something else ({wrong[0]})"
            )
        return receipt

    def _http(self, method: str, path: str, body: Any, what: str) -> bytes:
        headers = {"content-type": "application/json"} if body is not None else {}
        call = self.channel.call("http", body, dest="results", method=method, path=path, headers=headers)
        answer = self._told(call, what)
        try:
            content = call.content(1 << 20)
        except SealdealError as error:
            raise Failure("POST_COMPUTE_IPFS_UPLOAD_FAILED", f"{what}: {error}") from None
        if not 200 <= int(answer.get("status", 0)) < 300:
            said = content[:300].decode(errors="replace")
            raise Failure(
                "POST_COMPUTE_IPFS_UPLOAD_FAILED",
                f"{what}: the store answered {answer.get('status')}, {said}",
            )
        return content

    def _told(self, call: Any, what: str) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = call.answer()
            return answer
        except SealdealError as error:
            raise Failure("POST_COMPUTE_IPFS_UPLOAD_FAILED", f"{what}: {error}") from None


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as handle:
        while piece := handle.read(_PIECE):
            yield piece
