"""The scheduler's messages and its typed client, for workers and for users.

Users read what the wire's scheduler tells (wire.md §4.1), and follow a task step by step. Workers pull:
one long poll at a time is their heartbeat and their inbox, and every request is signed by their wallet.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

import pydantic
from pydantic.alias_generators import to_camel

from sealdeal.model.deals import Assignment
from sealdeal.model.eip712 import Address, Bytes32_, Domain, String, Typed, Uint256, digest
from sealdeal.model.errors import Conflict, InvalidInput, Unauthorized
from sealdeal.model.keys import Key, recover_digest
from sealdeal.model.orders import BATCH, TEE_TDX
from sealdeal.model.types import Address as AddressType
from sealdeal.model.types import address, bytes32, hexstr, keccak, unhex

from .http import Client, Message, Transport

MAX_WAIT = 25.0
"""Seconds that a long poll is held at most."""
CLOCK_WINDOW = 60.0
"""Seconds by which a worker's clock may differ from the scheduler's."""
LOG_LIMIT = 100_000
"""Characters kept of each log, from its end (wire.md §4.1)."""
MESSAGE_LIMIT = 2_000
"""Characters kept of a message."""


class AttemptEnded(Conflict):
    """This attempt is over (lost, expired, or the task ended): stop working on it."""


class Attempt(StrEnum):
    """How far an attempt is: the wire's words for a replicate (§4.4), in order."""

    CREATED = "CREATED"
    STARTING = "STARTING"
    STARTED = "STARTED"
    APP_DOWNLOADING = "APP_DOWNLOADING"
    APP_DOWNLOADED = "APP_DOWNLOADED"
    DATA_DOWNLOADING = "DATA_DOWNLOADING"
    DATA_DOWNLOADED = "DATA_DOWNLOADED"
    COMPUTING = "COMPUTING"
    COMPUTED = "COMPUTED"
    RESULT_UPLOADING = "RESULT_UPLOADING"
    RESULT_UPLOADED = "RESULT_UPLOADED"
    CONTRIBUTE_AND_FINALIZE_ONGOING = "CONTRIBUTE_AND_FINALIZE_ONGOING"
    CONTRIBUTE_AND_FINALIZE_DONE = "CONTRIBUTE_AND_FINALIZE_DONE"
    COMPLETED = "COMPLETED"
    START_FAILED = "START_FAILED"
    APP_DOWNLOAD_FAILED = "APP_DOWNLOAD_FAILED"
    DATA_DOWNLOAD_FAILED = "DATA_DOWNLOAD_FAILED"
    COMPUTE_FAILED = "COMPUTE_FAILED"
    RESULT_UPLOAD_FAILED = "RESULT_UPLOAD_FAILED"
    CONTRIBUTE_AND_FINALIZE_FAILED = "CONTRIBUTE_AND_FINALIZE_FAILED"
    FAILED = "FAILED"
    ABORTED = "ABORTED"
    WORKER_LOST = "WORKER_LOST"

    @property
    def rank(self) -> int:
        """Its place in the order; a worker never goes back."""
        return list(Attempt).index(self)

    @property
    def ended(self) -> bool:
        """Whether nothing follows."""
        return self.rank >= Attempt.COMPLETED.rank

    @property
    def failed(self) -> bool:
        """Whether the task has to be tried again."""
        return self.rank > Attempt.COMPLETED.rank


RESERVED = frozenset({Attempt.CREATED, Attempt.COMPLETED, Attempt.WORKER_LOST})
"""What only the scheduler says, from what the chain shows."""


def _assignment(value: Any) -> Assignment:
    return value if isinstance(value, Assignment) else Assignment.from_json(value)


Hex = Annotated[bytes, pydantic.BeforeValidator(lambda v: unhex(v) if isinstance(v, str) else v),
                pydantic.PlainSerializer(hexstr, return_type=str)]  # fmt: skip
Hex32 = Annotated[bytes, pydantic.BeforeValidator(bytes32), pydantic.PlainSerializer(hexstr, return_type=str)]
Account = Annotated[AddressType, pydantic.BeforeValidator(address)]


class _Camel(Message):
    """JSON members are camelCase."""

    model_config = pydantic.ConfigDict(alias_generator=to_camel, arbitrary_types_allowed=True)

    def json_bytes(self) -> bytes:
        return self.model_dump_json(by_alias=True).encode()


class SmsNode(_Camel):
    """An SMS node of the quorum, and where this pool's workers reach it."""

    address: Account
    url: str


class PoolConfig(_Camel):
    """What everyone may know of a scheduler: the wire's six members, then ours."""

    worker_pool_address: Account
    scheduler_public_address: str
    """The scheduler's URL."""
    config_server_url: str
    result_repository_url: Annotated[str, pydantic.Field(alias="resultRepositoryURL")]
    ask_for_replicate_period: int
    """Milliseconds."""
    required_worker_version: str
    scheduler: Account
    """The key that signs assignments: the workerpool's owner."""
    chain_id: int
    hub: Account
    nodes: tuple[SmsNode, ...] = ()
    lost_after: float
    """Seconds without a poll after which a worker counts as lost."""


class Running(_Camel):
    """Something a worker has been given and has not ended."""

    task: Hex32
    attempt: int


class WorkerState(_Camel):
    """What a worker says with each poll."""

    slots: Annotated[int, pydantic.Field(ge=0, le=1024)] = 1
    """Tasks that it can run at once."""
    running: tuple[Running, ...] = ()
    tags: Annotated[int, pydantic.Field(ge=0, lt=2**256)] = TEE_TDX | BATCH
    """Tag bits that it can serve."""
    standard: bool = False
    """Whether it runs deals without a TEE too."""
    name: Annotated[str, pydantic.Field(max_length=100)] = ""
    version: Annotated[str, pydantic.Field(max_length=100)] = ""


class Work(_Camel):
    """A task for this worker, signed by the workerpool's owner."""

    assignment: Annotated[
        Assignment,
        pydantic.PlainValidator(_assignment),
        pydantic.PlainSerializer(lambda a: a.to_json(), return_type=dict[str, Any]),
    ]
    signature: Hex
    dealid: Hex32
    index: int
    tee: bool
    nodes: tuple[SmsNode, ...] = ()
    results: str = ""
    """URL of the result store."""

    @property
    def task(self) -> bytes:
        return self.assignment.task

    @property
    def attempt(self) -> int:
        return self.assignment.attempt

    @property
    def deadline(self) -> int:
        """Seconds of the chain's time."""
        return self.assignment.deadline

    def check(self, domain: Domain, owner: AddressType) -> None:
        """Raises Unauthorized unless `owner` signed the assignment on `model.deals.pool_domain`."""
        signer = recover_digest(digest(domain, self.assignment), self.signature)
        if signer != owner:
            raise Unauthorized(f"expected an assignment of the pool's owner {owner}, it is by {signer}")


class Handed(_Camel):
    """A result of a batched deal: what the worker would contribute, for the scheduler to settle."""

    enclave: Account
    digest: Hex32
    signature: Hex
    """The enclave's, as the hub wants it."""
    authorisation: Hex
    """The quorum's word for (worker, task, enclave)."""


class Granted(_Camel):
    """What SMS nodes granted, for the pool of a hub without a TEE broker."""

    enclave: Account
    authorisation: Hex
    """The quorum's word for (worker, task, enclave)."""


class Report(_Camel):
    """What a worker says about an attempt."""

    status: Attempt
    step: Annotated[str, pydantic.Field(max_length=100)] = ""
    """What goes on within the status, in a word for people: `attested`, `secrets`, `app`."""
    cause: Annotated[str, pydantic.Field(pattern=r"^[A-Z0-9_]{0,100}$")] = ""
    """Why it failed (wire.md §5.4), or what failed inside an app whose failure was attested and paid."""
    message: str = ""
    exit_code: int | None = None
    stdout: str | None = None
    stderr: str | None = None
    tx_hash: Hex32 | None = None
    enclave: Account | None = None
    result: Handed | None = None
    """Of a batched deal, with `CONTRIBUTE_AND_FINALIZE_ONGOING`: the scheduler settles it."""

    @pydantic.field_validator("message")
    @classmethod
    def _short(cls, value: str) -> str:
        return value[:MESSAGE_LIMIT]

    @pydantic.field_validator("stdout", "stderr")
    @classmethod
    def _tail(cls, value: str | None) -> str | None:
        return value[-LOG_LIMIT:] if value is not None else None


class TaskEvent(_Camel):
    """One step of a task, as the pool saw it."""

    cursor: int
    time: float
    """Seconds since 1970, by the scheduler's clock."""
    kind: str
    """`task`, or `attempt` when it is about one worker's attempt."""
    status: str
    """A word of the wire: a task's (§4.3) or a replicate's (§4.4)."""
    worker: Account | None = None
    attempt: int | None = None
    step: str = ""
    cause: str = ""
    message: str = ""
    tx_hash: Hex32 | None = None
    block: int | None = None


class Events(_Camel):
    """Steps after a cursor, and the cursor to ask with next."""

    events: tuple[TaskEvent, ...]
    cursor: int
    ended: bool
    """Whether the task has ended: nothing follows."""


@dataclass(frozen=True)
class WorkerMessage(Typed):
    """What a worker's wallet signs for each request. Signed on `worker_domain`."""

    scheduler: Address
    """The key of the scheduler that it is meant for."""
    action: String
    """Method, space, path: `POST /tasks/0x…/attempts/1`."""
    body: Bytes32_
    """keccak of the body's bytes."""
    timestamp: Uint256
    """Milliseconds since 1970."""


def worker_domain(chain_id: int, hub: AddressType) -> Domain:
    """Where workers' messages count."""
    return Domain("Sealdeal Worker", "1", chain_id, hub)


@dataclass(frozen=True)
class Challenge(Typed):
    """What a requester signs to read logs (wire.md §4.1)."""

    challenge: String

    def typed_data(self, domain: Domain) -> dict[str, Any]:
        """The bare EIP-712 object of the route."""
        members = domain.fields()
        return {
            "types": {
                "EIP712Domain": [{"name": name, "type": kind} for name, kind, _ in members],
                "Challenge": [{"name": "challenge", "type": "string"}],
            },
            "domain": {name: value for name, _, value in members},
            "primaryType": "Challenge",
            "message": self.to_json(),
        }


def logs_domain(chain_id: int) -> Domain:
    """Where log challenges count."""
    return Domain("iExec Core", "1", chain_id)


class PoolClient(Client):
    """A scheduler, by URL or in memory. Users need no key; a worker gives its wallet's."""

    def __init__(
        self,
        base_url: str,
        *,
        key: Key | None = None,
        transport: Transport | None = None,
        timeout: float = 30.0,
    ) -> None:
        super().__init__(base_url, transport, timeout)
        self._key, self._stamp = key, 0
        self._config: PoolConfig | None = None

    # --- everyone

    async def version(self) -> str:
        return (await self.request("GET", "/version")).text

    async def metrics(self) -> dict[str, Any]:
        return dict(await self.json("GET", "/metrics"))

    async def config(self) -> PoolConfig:
        """What the scheduler says of itself, asked each time."""
        self._config = PoolConfig.model_validate(await self.json("GET", "/workers/config"))
        return self._config

    async def task(self, task: bytes) -> dict[str, Any]:
        """The wire's task document (§4.1). Raises NotFound."""
        return dict(await self.json("GET", f"/tasks/{hexstr(task)}"))

    async def replicate(self, task: bytes, worker: AddressType) -> dict[str, Any]:
        """What one worker did for a task. Raises NotFound."""
        return dict(await self.json("GET", f"/tasks/{hexstr(task)}/replicates/{worker}"))

    async def events(self, task: bytes, after: int = 0, wait: float = MAX_WAIT) -> Events:
        """The steps after `after`; waits up to `wait` seconds for the first. Raises NotFound."""
        query = {"after": after, "wait": wait}
        timeout = self._http.timeout.read or 30.0
        found = await self.json("GET", f"/tasks/{hexstr(task)}/events", params=query, timeout=timeout + wait)
        return Events.model_validate(found)

    async def follow(self, task: bytes, after: int = 0) -> AsyncIterator[TaskEvent]:
        """Every step as it happens, until the task has ended. Raises NotFound."""
        while True:
            batch = await self.events(task, after)
            for event in batch.events:
                yield event
            if batch.ended:
                return
            after = batch.cursor

    async def logs(self, task: bytes, key: Key) -> list[dict[str, str]]:
        """The workers' logs of a task: walletAddress, stdout, stderr. `key` is the requester's.

        Raises Forbidden for anyone else, NotFound when there are none (any more).
        """
        data = await self.json("GET", "/tasks/logs/challenge", params={"address": key.address})
        try:
            challenge = Challenge.from_json(data["message"])
            told = digest(logs_domain(int(data["domain"]["chainId"])), challenge)
        except (KeyError, TypeError, ValueError):
            raise InvalidInput(f"expected an EIP-712 challenge, got {str(data)[:100]}") from None
        proof = f"{hexstr(told)}_{hexstr(key.sign_digest(told))}_{key.address}"
        found = await self.json("GET", f"/tasks/{hexstr(task)}/logs", headers={"Authorization": proof})
        return list(found["computeLogsList"])

    async def compass(self, chain_id: int, workerpool: AddressType) -> str:
        """The URL of a workerpool's scheduler, from the directory that workerpools are looked up in."""
        return str((await self.json("GET", f"/{chain_id}/workerpools/{workerpool}"))["apiUrl"])

    # --- workers

    async def poll(self, state: WorkerState, wait: float = MAX_WAIT) -> Work | None:
        """Say what this worker does, and take work; None when there is none after `wait` seconds.

        It is the heartbeat: call it again at once, also while every slot is taken. One call at a time.
        Raises Unauthorized (signature, clock), Forbidden (not admitted to this pool).
        """
        path = f"/workers/{self._wallet.address}/assignments"
        answer = await self._signed("POST", path, state.json_bytes(), wait=wait, params={"wait": wait})
        return Work.model_validate(json.loads(answer)) if answer else None

    async def report(self, task: bytes, attempt: int, report: Report) -> None:
        """Say how an attempt goes. Raises AttemptEnded when it is over: stop then."""
        await self._signed("POST", f"/tasks/{hexstr(task)}/attempts/{attempt}", report.json_bytes())

    async def authorise(self, task: bytes, attempt: int, granted: Granted | None = None) -> bytes:
        """The pool owner's authorisation to contribute: without an enclave, to a standard deal; or, on a hub
        without a TEE broker, with the enclave that SMS nodes `granted`.

        Raises Forbidden when the pool may not say it for this deal, AttemptEnded when the attempt is over.
        """
        path = f"/tasks/{hexstr(task)}/attempts/{attempt}/authorisation"
        body = granted.json_bytes() if granted else b""
        return unhex(json.loads(await self._signed("POST", path, body))["signature"])

    @property
    def _wallet(self) -> Key:
        if self._key is None:
            raise InvalidInput("this needs a worker's key: PoolClient(url, key=…)")
        return self._key

    async def _signed(self, method: str, path: str, body: bytes, wait: float = 0.0, **options: Any) -> bytes:
        config = self._config or await self.config()
        # Two equal messages in one millisecond would have one signature, and the second be a replay.
        self._stamp = max(self._stamp + 1, time.time_ns() // 1_000_000)
        message = WorkerMessage(config.scheduler, f"{method} {path}", keccak(body), self._stamp)
        signature = self._wallet.sign_digest(digest(worker_domain(config.chain_id, config.hub), message))
        headers = {
            "Content-Type": "application/json",
            "X-Sealdeal-Worker": self._wallet.address,
            "X-Sealdeal-Timestamp": str(self._stamp),
            "X-Sealdeal-Signature": hexstr(signature),
        }
        timeout = (self._http.timeout.read or 30.0) + wait
        answer = await self.request(method, path, content=body, headers=headers, timeout=timeout, **options)
        return answer.content


__all__ = [
    "Attempt",
    "AttemptEnded",
    "Challenge",
    "Events",
    "Handed",
    "PoolClient",
    "PoolConfig",
    "Report",
    "Running",
    "SmsNode",
    "TaskEvent",
    "Work",
    "WorkerMessage",
    "WorkerState",
    "logs_domain",
    "worker_domain",
]
