"""The result on its way out: sealed for its beneficiary, stored, signed for."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sealdeal.model.cid import cid_of
from sealdeal.model.deals import ResultStatement, enclave_message, result_domain, task_id
from sealdeal.model.eip712 import digest as typed_digest
from sealdeal.model.errors import InvalidInput, SealdealError
from sealdeal.model.results import encrypt_result
from sealdeal.model.types import ZERO, Bytes32, hexstr, keccak

from .admission import Admission
from .failures import AppFault, Failure
from .hello import Hello
from .stream import Call, Channel

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
    ran: bool = True
    """Whether the app was run. If not, `archive` holds nothing that it wrote or read."""


class Delivery:
    """Takes one outcome out of the guest."""

    def __init__(self, channel: Channel, hello: Hello, admission: Admission | None, outcome: Outcome) -> None:
        """Without an `admission` (a deal without a TEE) nobody vouches for the result here: it is stored
        unsigned, without a proof, and the worker adds its pool's word.
        """
        self.channel, self.hello, self.admission, self.outcome = channel, hello, admission, outcome
        self.task, self.worker = task_id(hello.deal.dealid, hello.index), hello.worker
        self.digest = hello.deal.settled_digest(outcome.digest)
        self.enclave, self.signature, self.authorisation = ZERO, b"", b""
        if admission is not None:
            message = enclave_message(self.worker, self.task, self.digest)
            self.enclave = admission.enclave.address
            self.signature = admission.enclave.sign_message(message)
            self.authorisation = admission.gathered.authorisation

    def deliver(self, work: Path) -> dict[str, Any]:
        """Store result and proof; returns the members of `done`. Raises Failure."""
        login = {"enclave": self.enclave, "authorization": hexstr(self.authorisation)}
        self._told(self.channel.call("login", None, **login), "the result store's login")
        self.channel.event("status", phase="RESULT_UPLOADING")
        receipt = None
        if self.hello.deal.callback != ZERO:
            results = {"storage": "ethereum", "location": self.hello.deal.callback}
        else:
            sealed = self._seal(work)
            receipt = self._upload(sealed)
            results = {"storage": "ipfs", "location": "/ipfs/" + receipt["receipt"]["cid"]}
        said = json.dumps(results).encode()
        stated = self._state(self.admission, said, receipt) if self.admission is not None else {}
        self.channel.event("status", phase="RESULT_UPLOADED", step="uploaded")
        fault = self.outcome.fault
        return {
            "taskId": hexstr(self.task),
            "worker": self.worker,
            "attempt": self.hello.attempt,
            "enclave": self.enclave,
            "digest": hexstr(self.digest),
            "results": hexstr(said),
            "callback": hexstr(self.outcome.callback),
            "enclaveSignature": hexstr(self.signature),
            "authorization": hexstr(self.authorisation),
            **stated,
            "error": {"cause": fault.cause, "message": str(fault)} if fault else None,
            "exitCode": self.outcome.exit_code,
        }

    def _state(self, admission: Admission, results: bytes, receipt: dict[str, Any] | None) -> dict[str, Any]:
        """Sign where the result lies and for whom, publish the proof; what `done` says of both."""
        key = admission.manifest.result_key
        statement = ResultStatement(
            task=self.task,
            worker=self.worker,
            digest=self.digest,
            results=keccak(results),
            beneficiaryKey=hashlib.sha256(key.encode()).digest() if key else bytes(32),
        )
        domain = result_domain(self.hello.chain_id, self.hello.hub)
        stated = {
            "statement": statement.to_json(),
            "statementSignature": hexstr(admission.enclave.sign_digest(typed_digest(domain, statement))),
        }
        signature = {"enclaveSignature": hexstr(self.signature)}
        proof = {**admission.proof(), **stated, **signature, "storeReceipt": receipt}
        path = f"/v1/results/{hexstr(self.task)}/proof"
        self._http("PUT", path, [json.dumps(proof).encode()], "the proof's upload")
        return {**stated, "proof": proof}

    def _seal(self, work: Path) -> Path:
        """The archive as it leaves: encrypted when the deal asks for it, and then never otherwise."""
        if not self.hello.deal.parsed_params.result_encryption:
            return self.outcome.archive
        key = self.admission.manifest.result_key if self.admission is not None else ""
        if not key:
            if self.outcome.ran:
                raise Failure("POST_COMPUTE_ENCRYPTION_PUBLIC_KEY_MISSING", "there is no key to encrypt with")
            return self.outcome.archive
        sealed = work / "sealed.zip"
        try:
            with sealed.open("xb") as out:
                encrypt_result(
                    out,
                    _pieces(self.outcome.archive),
                    key,
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
            "deterministHash": hexstr(self.digest),
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

    def _http(self, method: str, path: str, body: Iterable[bytes] | None, what: str) -> bytes:
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

    def _told(self, call: Call, what: str) -> dict[str, Any]:
        try:
            return call.answer()
        except SealdealError as error:
            raise Failure("POST_COMPUTE_IPFS_UPLOAD_FAILED", f"{what}: {error}") from None


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as handle:
        while piece := handle.read(_PIECE):
            yield piece
