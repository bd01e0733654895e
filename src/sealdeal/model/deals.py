"""Deals, tasks, contributions: what the chain says, and what is signed about it (poco.md §2, §4, §8).

The views (`Deal`, `Task`, …) are what the contracts answer at one block. The identifiers and hashes are
computed as the contracts compute them; `‖` below is packed concatenation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from .eip712 import Address, AddressList, Bool, Bytes, Bytes32_, Domain, Typed, Uint256
from .errors import InvalidInput
from .orders import TEE, Params, tag_bits
from .types import ZERO, Bytes32, address_bytes, keccak
from .types import Address as AddressType

CONTRIBUTION_RATIO, REVEAL_RATIO, FINAL_RATIO = 7, 2, 10
"""Deadlines in units of a category's reference time (poco.md §3)."""
WORKERPOOL_STAKE_RATIO = 30
"""Per cent of the workerpool's price that its owner locks for each task."""
KITTY = AddressType("0x99c2268479b93fDe36232351229815DF80837e23")
KITTY_RATIO, KITTY_MIN = 10, 10**9
"""A settled task gives its scheduler 10 % of the kitty, 1 RLC at least, all of it at most."""


class TaskStatus(IntEnum):
    UNSET = 0
    ACTIVE = 1
    REVEALING = 2
    COMPLETED = 3
    FAILED = 4


class ContributionStatus(IntEnum):
    UNSET = 0
    CONTRIBUTED = 1
    PROVED = 2
    REJECTED = 3


@dataclass(frozen=True, slots=True)
class Resource:
    """An app, dataset or workerpool as it was when the deal was made."""

    pointer: AddressType
    owner: AddressType
    price: int
    """nRLC per task."""


@dataclass(frozen=True, slots=True)
class Deal:
    """`viewDeal`, with its id."""

    dealid: Bytes32
    app: Resource
    dataset: Resource
    workerpool: Resource
    trust: int
    category: int
    tag: Bytes32
    requester: AddressType
    beneficiary: AddressType
    callback: AddressType
    params: str
    start_time: int
    bot_first: int
    bot_size: int
    worker_stake: int
    """nRLC that each worker locks to contribute (not for contributeAndFinalize)."""
    scheduler_reward_ratio: int
    """Per cent of the workerpool's price that its owner keeps."""
    sponsor: AddressType
    """Who pays."""

    @property
    def tee(self) -> bool:
        """Whether the deal asks for a trusted execution environment."""
        return bool(tag_bits(self.tag) & TEE)

    @property
    def has_dataset(self) -> bool:
        return self.dataset.pointer != ZERO

    @property
    def price(self) -> int:
        """nRLC that one task costs the sponsor."""
        return self.app.price + self.dataset.price + self.workerpool.price

    @property
    def parsed_params(self) -> Params:
        return Params.parse(self.params)

    def indices(self) -> range:
        """The indices of the deal's tasks."""
        return range(self.bot_first, self.bot_first + self.bot_size)

    def task_ids(self) -> list[Bytes32]:
        return [task_id(self.dealid, index) for index in self.indices()]

    def fingerprint(self) -> Bytes32:
        """keccak-256 of every field: the deal as the chain shows it, in 32 bytes (for the manifest)."""
        parts = []
        for resource in (self.app, self.dataset, self.workerpool):
            parts += [address_bytes(resource.pointer), address_bytes(resource.owner), _word(resource.price)]
        for number in (self.trust, self.category, self.start_time, self.bot_first, self.bot_size):
            parts.append(_word(number))
        for number in (self.worker_stake, self.scheduler_reward_ratio):
            parts.append(_word(number))
        for account in (self.requester, self.beneficiary, self.callback, self.sponsor):
            parts.append(address_bytes(account))
        return keccak(b"".join([self.dealid, *parts, self.tag, keccak(self.params.encode())]))


@dataclass(frozen=True, slots=True)
class Task:
    """`viewTask`, with its id. An unknown task is UNSET with everything zero."""

    taskid: Bytes32
    status: TaskStatus
    dealid: Bytes32
    idx: int
    timeref: int
    contribution_deadline: int
    reveal_deadline: int
    final_deadline: int
    consensus_value: Bytes32
    reveal_counter: int
    winner_counter: int
    contributors: tuple[AddressType, ...]
    result_digest: Bytes32
    results: bytes
    results_callback: bytes

    @property
    def ended(self) -> bool:
        return self.status in (TaskStatus.COMPLETED, TaskStatus.FAILED)


@dataclass(frozen=True, slots=True)
class Contribution:
    """`viewContribution`."""

    status: ContributionStatus
    result_hash: Bytes32
    result_seal: Bytes32
    enclave: AddressType
    weight: int


@dataclass(frozen=True, slots=True)
class Category:
    """A size of task; the reference time T sets every deadline."""

    id: int
    name: str
    description: str
    reference_time: int
    """Seconds. An app may run for T; contributions end at 7 T, everything at 10 T after the match."""


@dataclass(frozen=True, slots=True)
class AccountState:
    """An account in the hub's escrow, in nRLC."""

    stake: int
    """Free to use or to withdraw."""
    locked: int
    """Held for deals under way."""


@dataclass(frozen=True, slots=True)
class AppInfo:
    owner: AddressType
    name: str
    type: str
    multiaddr: bytes
    checksum: Bytes32
    """sha256 of the OCI manifest: the app's measurement. Zero: the app gets no secrets."""
    mrenclave: bytes


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    owner: AddressType
    name: str
    multiaddr: bytes
    checksum: Bytes32
    """sha256 of the encrypted file."""


@dataclass(frozen=True, slots=True)
class WorkerpoolInfo:
    owner: AddressType
    description: str
    worker_stake_ratio: int
    scheduler_reward_ratio: int


def _word(number: int) -> bytes:
    return number.to_bytes(32, "big")


def deal_id(request_hash: Bytes32, first: int) -> Bytes32:
    """keccak(requestHash ‖ index of the deal's first task)."""
    return keccak(request_hash + _word(first))


def task_id(dealid: Bytes32, index: int) -> Bytes32:
    """keccak(dealid ‖ index)."""
    return keccak(dealid + _word(index))


def result_hash(taskid: Bytes32, digest: Bytes32) -> Bytes32:
    """keccak(taskid ‖ resultDigest): what a contribution publishes first."""
    return keccak(taskid + digest)


def result_seal(worker: AddressType, taskid: Bytes32, digest: Bytes32) -> Bytes32:
    """keccak(worker ‖ taskid ‖ resultDigest): ties a contribution to its worker."""
    return keccak(address_bytes(worker) + taskid + digest)


def enclave_message(worker: AddressType, taskid: Bytes32, digest: Bytes32) -> Bytes32:
    """keccak(resultHash ‖ resultSeal): the enclave makes a personal signature of it."""
    return keccak(result_hash(taskid, digest) + result_seal(worker, taskid, digest))


def authorisation_message(worker: AddressType, taskid: Bytes32, enclave: AddressType) -> Bytes32:
    """keccak(worker ‖ taskid ‖ enclave): the TEE broker, or the pool's owner, personally signs it."""
    return keccak(address_bytes(worker) + taskid + address_bytes(enclave))


@dataclass(frozen=True)
class Assignment(Typed):
    """The pool gives a task to a worker. All that a scheduler owns; it authorises nothing on chain."""

    task: Bytes32_
    worker: Address
    attempt: Uint256
    """From 1. At most three attempts get grants."""
    deadline: Uint256
    """Chain time in seconds after which the task may be given to another."""


@dataclass(frozen=True)
class Grant(Typed):
    """An SMS node vouches for (worker, task, enclave): `digest` is the hash the hub asks the quorum about."""

    digest: Bytes32_
    validUntil: Uint256
    """Chain time in seconds."""


@dataclass(frozen=True)
class Change(Typed):
    """The members of a quorum decide who is one, and how many of them must agree."""

    add: AddressList
    remove: AddressList
    threshold: Uint256
    compromised: Bool
    """Whether the removed lose their voice at once, rather than after the quorum's grace."""
    nonce: Uint256
    """Number of changes and executions so far: none counts twice."""
    validUntil: Uint256
    """Chain time in seconds."""


@dataclass(frozen=True)
class Execute(Typed):
    """The members of a quorum decide that it makes a call, such as one that only the hub's owner may make."""

    target: Address
    data: Bytes
    """Calldata."""
    nonce: Uint256
    """Number of changes and executions so far: none counts twice."""
    validUntil: Uint256
    """Chain time in seconds."""


@dataclass(frozen=True)
class ResultStatement(Typed):
    """The enclave says where the result lies and for whom it is; the protocol's own signature does not."""

    task: Bytes32_
    worker: Address
    digest: Bytes32_
    results: Bytes32_
    """keccak of the `results` bytes that go on chain."""
    beneficiaryKey: Bytes32_
    """sha256 of the beneficiary's key text, zero when the result is not encrypted."""


def pool_domain(chain_id: int, hub: AddressType) -> Domain:
    """Where assignments count."""
    return Domain("Sealdeal Pool", "1", chain_id, hub)


def quorum_domain(chain_id: int, quorum: AddressType) -> Domain:
    """Where grants, changes of members and executions count: the quorum contract checks this one."""
    return Domain("Sealdeal Quorum", "1", chain_id, quorum)


def result_domain(chain_id: int, hub: AddressType) -> Domain:
    """Where result statements count."""
    return Domain("Sealdeal Result", "1", chain_id, hub)


MAX_GRANTS = 15
"""The quorum contract takes 15 signatures at most."""


def authorisation_blob(valid_until: int, signatures: Mapping[AddressType, bytes]) -> bytes:
    """What makes a quorum act: validUntil (32 bytes) ‖ 65-byte signatures, ascending by signer.

    Raises InvalidInput for no signature, too many, or one that is not 65 bytes long.
    """
    if not 1 <= len(signatures) <= MAX_GRANTS or any(len(s) != 65 for s in signatures.values()):
        raise InvalidInput(f"expected 1 to {MAX_GRANTS} signatures of 65 bytes, got {len(signatures)}")
    ordered = [signatures[signer] for signer in sorted(signatures, key=address_bytes)]
    return _word(valid_until) + b"".join(ordered)
