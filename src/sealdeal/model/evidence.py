"""What a TEE proved, and the manifest that ties it to one task.

Evidence ──verifier (sealdeal.tee)──▶ Claims ──Policy.check (policy.py)──▶ nothing, or a named refusal.

A verifier establishes who signed what; a policy decides whether that is acceptable for a deal. The guest
has no view of a chain, so all it was told is in its `Manifest`, whose hash is in the evidence:
`report_data`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, Self

from .deals import Deal, task_id
from .errors import EvidenceRefused, InvalidInput
from .orders import Params
from .types import Address, Bytes32, address, address_bytes, bytes32, hexstr, unhex

# --- refusals -------------------------------------------------------------------------------------


class EmptyPolicy(EvidenceRefused):
    """A policy that requires nothing accepts nothing."""


class NotAuthentic(EvidenceRefused):
    """The evidence is malformed, or not signed by the root that was expected."""


class WrongRoot(NotAuthentic):
    """The evidence is signed under another root than the one expected."""


class Revoked(NotAuthentic):
    """The vendor has revoked a certificate that the evidence rests on."""


class StaleEvidence(EvidenceRefused):
    """The evidence was made too long ago, or in the future: have it made again, and check the clocks."""


class Supervised(EvidenceRefused):
    """Something else has power over the guest: a paravisor, a service TD or a migration agent."""


class UnknownKind(EvidenceRefused):
    """There is no verifier for evidence of this kind."""


class WrongTrust(EvidenceRefused):
    """The root that signed is of another trust class than the one required."""


class WrongTee(EvidenceRefused):
    """The evidence comes from another kind of TEE than those required."""


class DebugEnabled(EvidenceRefused):
    """The TEE was started in debug mode: its owner can read its memory."""


class WrongTcb(EvidenceRefused):
    """The platform's firmware or microcode is not at a level that the policy accepts."""


class WrongRegister(EvidenceRefused):
    """What was measured is not what was expected: another guest, or another app."""


class MeasurementExpired(WrongRegister):
    """What was measured was accepted once, and is no longer."""


class WrongReportData(EvidenceRefused):
    """The evidence was made for another session: other keys, other nonces, or another manifest."""


class CollateralExpired(EvidenceRefused):
    """The vendor's collateral is no longer valid: fetch it again."""


class CollateralRollback(EvidenceRefused):
    """The source of collateral gave an older one than it gave before."""


class PlatformRefused(EvidenceRefused):
    """This machine is not one of those accepted."""


# --- evidence and claims --------------------------------------------------------------------------


class TrustClass(StrEnum):
    """Follows from the root that verified, and from nothing else."""

    HARDWARE = "hardware"
    SIMULATED = "simulated"


DCAP = "dcap"
"""Evidence kind: an Intel quote (TDX v4 and v5, SGX v3) with QuoteCollateralV3 JSON as collateral."""
SEV_SNP = "sev-snp"
"""Evidence kind: AMD's report, with certificates and revocation list in PEM as collateral."""
NITRO = "nitro"
"""Evidence kind: an attestation document of AWS Nitro, which brings its own certificates."""

MAX_QUOTE_BYTES = 64 * 1024
MAX_COLLATERAL_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a TEE says about itself, as bytes from a stranger."""

    kind: str
    """The format, which names the verifier: `dcap`, `sev-snp` or `nitro`."""
    quote: bytes
    """The signed report."""
    collateral: bytes | None = None
    """The vendor's certificates, revocation lists and TCB levels, if they came along."""

    def to_json(self) -> dict[str, Any]:
        """`{kind, quote, collateral}` with bytes as 0x hexadecimal."""
        return {
            "kind": self.kind,
            "quote": hexstr(self.quote),
            "collateral": None if self.collateral is None else hexstr(self.collateral),
        }

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """The opposite of `to_json`. Raises InvalidInput when malformed or over the size limits."""
        kind, quote, collateral = _members(value, "evidence", ("kind", "quote", "collateral"))
        if not isinstance(kind, str) or len(kind) > 32:
            raise InvalidInput(f"evidence.kind: expected a short word such as 'dcap', got {str(kind)[:80]!r}")
        for name, text, limit in (
            ("quote", quote, MAX_QUOTE_BYTES),
            ("collateral", collateral or "", MAX_COLLATERAL_BYTES),
        ):
            if not isinstance(text, str) or len(text) > 2 + 2 * limit:
                raise InvalidInput(f"evidence.{name}: expected at most {limit} bytes as 0x hexadecimal")
        return cls(kind, unhex(quote), None if collateral is None else unhex(collateral))


@dataclass(frozen=True, slots=True)
class Claims:
    """What a verifier established: authentic, not yet judged."""

    tee: str
    """`tdx`, `sgx`, `sev-snp` or `nitro`."""
    trust: TrustClass
    """The class of the root that verified the chain."""
    registers: Mapping[str, bytes]
    """Measurements by name.

    TDX: mrtd, rtmr0…rtmr3, mr_config_id, mr_owner, mr_owner_config, mr_seam. SGX: mr_enclave, mr_signer, isv.
    SEV-SNP: measurement, host_data, family_id, image_id, id_key_digest, author_key_digest. Nitro: pcr0, ….
    """
    report_data: bytes
    """64 bytes that the guest chose (Nitro: its `user_data`, of any length)."""
    tcb_status: str
    """The vendor's word for the platform's level: `UpToDate`, `OutOfDate`, …; empty where it gives none."""
    advisories: tuple[str, ...]
    """Open security advisories of that level."""
    debug: bool
    """Whether the TEE's memory can be read by its owner."""
    platform_id: bytes
    """The machine's permanent id (Intel's PPID, AMD's chip id, Nitro's instance): for lists and rate limits.

    Empty when the owner of the machine hides it.
    """
    valid_until: int
    """Unix time at which the first part of the collateral expires."""
    tcb_eval: int
    """The collateral's TCB evaluation number: it grows, so a minimum stops a rollback. 0: there is none."""
    tcb: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Security versions of the platform's firmware, by part.

    TDX and SGX: cpu0…cpu15, pce; TDX also svn0…svn15 (svn0 of the module, svn1 its major version). SEV-SNP:
    bootloader, tee, snp, microcode, and fmc from Turin on.
    """

    def to_json(self) -> dict[str, Any]:
        """For people and receipts."""
        plain = dataclasses.asdict(self)
        plain["registers"] = {name: hexstr(value) for name, value in self.registers.items()}
        plain["report_data"], plain["platform_id"] = hexstr(self.report_data), hexstr(self.platform_id)
        return {**plain, "trust": self.trust.value, "advisories": list(self.advisories)}


class Verifier(Protocol):
    """Bytes (and collateral) to Claims, pure. `sealdeal.tee` has one per kind of evidence."""

    kind: str
    trust: TrustClass

    def verify(self, evidence: Evidence, now: int) -> Claims:
        """Raises EvidenceRefused (NotAuthentic, UnknownKind, CollateralExpired, …)."""
        ...


# --- measurements ---------------------------------------------------------------------------------


def tdx_registers(guest_release: Bytes32, app_checksum: Bytes32) -> dict[str, bytes]:
    """What a TDX guest of ours measures: the one rule, used by the platform and by every policy.

    `guest_release`: digest of the guest's release; `app_checksum`: sha256 of the app's OCI manifest, as the
    app's registry entry says. mrtd = release ‖ 16 zero bytes, mr_config_id = checksum ‖ 16 zero bytes (the
    guest compares the image it starts with it); rtmr0…rtmr3 stay zero, nothing is extended at run time.
    """
    return {
        "mrtd": bytes32(guest_release) + bytes(16),
        "mr_config_id": bytes32(app_checksum) + bytes(16),
        **{f"rtmr{i}": bytes(48) for i in range(4)},
    }


# --- the manifest ---------------------------------------------------------------------------------


def canonical_json(value: Any) -> bytes:
    """The one spelling of a JSON value: sorted keys, no spaces, UTF-8. Raises InvalidInput."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    except (TypeError, ValueError) as wrong:  # UnicodeEncodeError is a ValueError
        raise InvalidInput(f"expected a JSON value of valid text, got: {wrong}") from None


@dataclass(frozen=True)
class Manifest:
    """Everything a guest was told about its task. Each SMS node rebuilds it from its own final block.

    Its JSON has the same fields in camelCase; bytes are 0x hexadecimal.
    """

    chain_id: int
    hub: Address
    quorum: Address
    """The hub's TEE-broker contract, whose members are `nodes`."""
    deal_id: Bytes32
    deal_hash: Bytes32
    """`Deal.fingerprint` of the whole deal as the chain shows it."""
    task_id: Bytes32
    task_index: int
    """Absolute index of the task in its request."""
    worker: Address
    attempt: int
    params: str
    """The deal's parameters, verbatim."""
    app: Address
    app_owner: Address
    """As the deal records it, when the orders met."""
    app_multiaddr: str
    """Where the app's image lies, as text."""
    app_checksum: Bytes32
    """sha256 of the image's OCI manifest."""
    dataset: Address
    """Or the zero address: then the other three are zero, empty and zero."""
    dataset_owner: Address
    dataset_multiaddr: str
    dataset_checksum: Bytes32
    """sha256 of the encrypted dataset."""
    requester: Address
    beneficiary: Address
    callback: Address
    result_key: str
    """The beneficiary's public key text when the deal asks for an encrypted result, else empty."""
    nodes: tuple[Address, ...]
    """The quorum's members, ascending."""
    threshold: int
    """How many of them must grant."""
    version: int = 1

    def __post_init__(self) -> None:
        ordered = sorted(set(self.nodes), key=str.lower)
        if len(ordered) != len(self.nodes):
            raise InvalidInput("manifest.nodes: expected different nodes, got a repeated one")
        if not 1 <= self.threshold <= len(ordered):
            raise InvalidInput(
                f"manifest.threshold: expected 1 to {len(ordered)}, the number of nodes, got {self.threshold}"
            )
        object.__setattr__(self, "nodes", tuple(ordered))

    @classmethod
    def of(
        cls,
        *,
        chain_id: int,
        hub: Address,
        quorum: Address,
        deal: Deal,
        task_index: int,
        worker: Address,
        attempt: int,
        app_multiaddr: str,
        app_checksum: Bytes32,
        dataset_multiaddr: str,
        dataset_checksum: Bytes32,
        result_key: str,
        nodes: Iterable[Address],
        threshold: int,
    ) -> Self:
        """The manifest of one task, from a deal and what its resources and quorum say.

        Guest and nodes both build it here. Raises InvalidInput for an index outside the deal.
        """
        if task_index not in deal.indices():
            raise InvalidInput(f"expected a task index in {deal.indices()}, got {task_index}")
        return cls(
            chain_id=chain_id,
            hub=hub,
            quorum=quorum,
            deal_id=deal.dealid,
            deal_hash=deal.fingerprint(),
            task_id=task_id(deal.dealid, task_index),
            task_index=task_index,
            worker=worker,
            attempt=attempt,
            params=deal.params,
            app=deal.app.pointer,
            app_owner=deal.app.owner,
            app_multiaddr=app_multiaddr,
            app_checksum=app_checksum,
            dataset=deal.dataset.pointer,
            dataset_owner=deal.dataset.owner,
            dataset_multiaddr=dataset_multiaddr,
            dataset_checksum=dataset_checksum,
            requester=deal.requester,
            beneficiary=deal.beneficiary,
            callback=deal.callback,
            result_key=result_key,
            nodes=tuple(nodes),
            threshold=threshold,
        )

    @property
    def impossible(self) -> str:
        """The cause (wire.md §5.4) for which nobody's guest can run this task; empty when there is none.

        Nodes release no secret for such a task, but they grant: its enclave says so on chain, since the pool
        would lose its stake for a deal that it could not refuse.
        """
        return impossible(self.app_checksum, self.params, self.result_key)

    def to_json(self) -> dict[str, Any]:
        """camelCase members; integers as numbers, bytes as 0x hexadecimal."""
        return {_camel(f.name): _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """The opposite of `to_json`, exact: a missing or unknown member raises InvalidInput, named."""
        fields = dataclasses.fields(cls)
        members = _members(value, "manifest", tuple(_camel(f.name) for f in fields))
        return cls(**{f.name: _parse(f, member) for f, member in zip(fields, members, strict=True)})

    def canonical(self) -> bytes:
        """The bytes that are hashed."""
        return canonical_json(self.to_json())

    def hash(self) -> Bytes32:
        """sha256 of `canonical`."""
        return hashlib.sha256(self.canonical()).digest()

    def differences(self, came: Manifest) -> list[str]:
        """Fields in which `came` differs from this one: `field: expected …, got …`."""
        mine, theirs = self.to_json(), came.to_json()
        return [
            f"{name}: expected {_brief(mine[name])}, got {_brief(theirs[name])}"
            for name in mine
            if mine[name] != theirs[name]
        ]


def impossible(app_checksum: Bytes32, params: str, result_key: str) -> str:
    """The cause for which a task cannot be run by anyone, from what the chain and the beneficiary say."""
    if not any(app_checksum):
        return "APP_IMAGE_DOWNLOAD_FAILED"  # no image has the checksum zero
    if Params.parse(params).result_encryption and not result_key:
        return "POST_COMPUTE_ENCRYPTION_PUBLIC_KEY_MISSING"
    return ""


def report_data(
    manifest_hash: Bytes32, hpke_public: bytes, enclave: Address, nonces: Iterable[tuple[Address, bytes]]
) -> bytes:
    """The 64 bytes that a quote must carry (DESIGN, Trust).

    SHA-512("sealdeal report data 1" ‖ H(manifest) ‖ H(hpke key) ‖ enclave address ‖ H(nonces)), H = SHA-256;
    nonces are (node, nonce), sorted by node, each written as 20 bytes ‖ H(nonce).
    """
    listed = sorted((address_bytes(node), nonce) for node, nonce in nonces)
    if not listed or len({node for node, _ in listed}) != len(listed):
        raise InvalidInput("expected nonces of different nodes, at least one; got none or a repeated node")
    gathered = b"".join(node + hashlib.sha256(nonce).digest() for node, nonce in listed)
    return hashlib.sha512(
        b"sealdeal report data 1"
        + bytes32(manifest_hash)
        + hashlib.sha256(hpke_public).digest()
        + address_bytes(enclave)
        + hashlib.sha256(gathered).digest()
    ).digest()


# --- JSON -----------------------------------------------------------------------------------------


def _members(value: Any, what: str, names: tuple[str, ...]) -> list[Any]:
    if not isinstance(value, dict):
        raise InvalidInput(f"expected a JSON object ({what}), got {type(value).__name__}")
    if missing := [name for name in names if name not in value]:
        raise InvalidInput(f"{what} lacks {', '.join(missing)}")
    if unknown := [str(name)[:40] for name in value if name not in names]:
        raise InvalidInput(f"{what} has no member {', '.join(unknown)}")
    return [value[name] for name in names]


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return hexstr(value)
    return list(value) if isinstance(value, tuple) else value


def _parse(field: dataclasses.Field[Any], value: Any) -> Any:
    name, kind = field.name, str(field.type)
    try:
        if kind == "int":
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**256:
                raise InvalidInput(f"expected a whole number, got {str(value)[:80]!r}")
            return value
        if kind == "str" or kind == "Address" or kind == "Bytes32":
            if not isinstance(value, str):
                raise InvalidInput(f"expected text, got {type(value).__name__}")
            return value if kind == "str" else address(value) if kind == "Address" else bytes32(value)
        if not isinstance(value, list) or len(value) > 255:
            raise InvalidInput("expected a list of at most 255 addresses")
        return tuple(address(node) for node in value)
    except InvalidInput as wrong:
        raise InvalidInput(f"manifest.{_camel(name)}: {wrong}") from None


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else f"{text[:117]}…"
