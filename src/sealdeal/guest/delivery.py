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

from sealdeal.model.cid import CidHasher
from sealdeal.model.deals import ResultStatement, enclave_message, result_domain, task_id
from sealdeal.model.eip712 import digest as typed_digest
from sealdeal.model.errors import InvalidInput, SealdealError
from sealdeal.model.results import (
    JSON_ARCHIVE_BYTES,
    SEAL_ENTRY,
    encrypt_result,
    seal_text,
    sealed_digest,
)
from sealdeal.model.types import ZERO, Bytes32, hexstr, keccak

from .admission import Admission
from .archive import Entry, bytes_entry, file_pieces, zip_pieces
from .failures import AppFault, Failure
from .hello import Hello
from .stream import Call, Channel

_PIECE: Final = 768 << 10
"""Divisible by 3, so that pieces of base64 join without padding."""
_ZIP64: Final = 1 << 30
"""Bytes of output above which a container is written so that it may have more than 2 GiB."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is contributed."""

    digest: Bytes32
    callback: bytes
    entries: tuple[Entry, ...]
    """The files of the result; they can be read once."""
    fault: AppFault | None
    exit_code: int | None
    ran: bool = True
    """Whether the app was run. If not, `entries` hold nothing that it wrote or read."""


def seals(hello: Hello) -> bool:
    """Whether the digest on chain is to say nothing of the result to others. A callback's data are on chain
    themselves."""
    deal = hello.deal
    return deal.tee and deal.parsed_params.sealed_digest and deal.callback == ZERO


class Delivery:
    """Takes one outcome out of the guest."""

    def __init__(self, channel: Channel, hello: Hello, admission: Admission | None, outcome: Outcome) -> None:
        """Without an `admission` (a deal without a TEE) nobody vouches for the result here: it is stored
        unsigned, without a proof, and the worker adds its pool's word.
        """
        self.channel, self.hello, self.admission, self.outcome = channel, hello, admission, outcome
        self.task, self.worker = task_id(hello.deal.dealid, hello.index), hello.worker
        self.entries, digest = outcome.entries, outcome.digest
        if seals(hello):
            salt = secrets.token_bytes(32)
            self.entries, digest = (
                (*self.entries, bytes_entry(SEAL_ENTRY, seal_text(salt))),
                sealed_digest(digest, salt),
            )
        self.digest = hello.deal.settled_digest(digest)
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
            receipt = self._upload(self._pack(work / "result.zip"))
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

    def _pack(self, place: Path) -> Path:
        """The archive as it leaves: encrypted when the deal asks for it, and then never otherwise.

        Nothing that is to be encrypted is written down in the clear once more.
        """
        key = ""
        if self.hello.deal.parsed_params.result_encryption:
            key = self.admission.manifest.result_key if self.admission is not None else ""
            if not key and self.outcome.ran:
                raise Failure("POST_COMPUTE_ENCRYPTION_PUBLIC_KEY_MISSING", "there is no key to encrypt with")
        plain = zip_pieces(self.entries, pad=bool(key) and seals(self.hello))
        large = sum(entry.size for entry in self.entries) > _ZIP64
        try:
            with place.open("xb") as out:
                if key:
                    encrypt_result(out, plain, key, secrets.token_bytes, large=large)
                else:
                    out.writelines(plain)
        except InvalidInput as error:
            raise Failure("POST_COMPUTE_ENCRYPTION_FAILED", str(error)) from None
        except OSError as error:
            raise Failure("POST_COMPUTE_OUT_FOLDER_ZIP_FAILED", f"no room for the result: {error}") from None
        return place

    def _upload(self, archive: Path) -> dict[str, Any]:
        """wire.md §3.1, or as it is when that form has no room for it; returns the store's receipt, compared
        with what was sent."""
        hasher, digest = CidHasher(), hashlib.sha256()

        def pieces() -> Iterator[bytes]:
            for piece in file_pieces(archive, _PIECE):
                hasher.update(piece)
                digest.update(piece)
                yield piece

        what, signature = "the result's upload", hexstr(self.signature)
        if archive.stat().st_size <= JSON_ARCHIVE_BYTES:
            answer = self._http("POST", "/v1/results", self._json_form(pieces()), what)
        else:
            query = f"digest={hexstr(self.digest)}&signature={signature}"
            path = f"/v1/results/{hexstr(self.task)}/archive?{query}"
            answer = self._http("PUT", path, pieces(), what, kind="application/zip")
        location, cid = answer.decode(errors="replace").strip(), hasher.cid()
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

    def _json_form(self, archive: Iterator[bytes]) -> Iterator[bytes]:
        head = {
            "chainTaskId": hexstr(self.task),
            "dealId": hexstr(self.hello.deal.dealid),
            "taskIndex": self.hello.index,
            "image": self.hello.app_multiaddr,
            "cmd": self.hello.deal.parsed_params.args,
            "deterministHash": hexstr(self.digest),
            "enclaveSignature": hexstr(self.signature),
        }
        yield json.dumps(head).encode()[:-1] + b', "zip": "'
        for piece in archive:
            yield base64.b64encode(piece)
        yield b'"}'

    def _http(
        self,
        method: str,
        path: str,
        body: Iterable[bytes] | None,
        what: str,
        *,
        kind: str = "application/json",
    ) -> bytes:
        headers = {"content-type": kind} if body is not None else {}
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
