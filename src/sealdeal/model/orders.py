"""The four orders, as their owners sign them (poco.md §2, §4).

Prices are nRLC per task. Volumes count tasks. A restriction is an address, a group contract (ERC-734),
or zero for anyone. Tags are 256 independent bits; the contracts themselves read bit 0 (TEE) only.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, Self, TypeVar

from .eip712 import Address, Bytes32_, Domain, String, Typed, Uint256, digest
from .errors import InvalidInput
from .keys import Signer
from .types import ZERO, ZERO32, Bytes32, address, address_bytes, hexstr, keccak, unhex
from .types import Address as AddressType

TEE, SCONE, GRAMINE, TDX, GPU = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 8
"""Bits of a tag (wire.md §0.2)."""
BATCH = 1 << 128
"""Bit of a tag that asks a pool to settle the deal's tasks in batches (model/batches.py). Ours alone."""
TEE_TDX = TEE | TDX
FRAMEWORKS = SCONE | GRAMINE | TDX
"""Bits that a dataset order may carry without any effect (poco.md §15)."""


_CHOSEN = b"sealdeal:mtc"


def choosing(matcher: AddressType) -> Bytes32:
    """The salt of a request that only this account, or the requester, may match.

    Nothing is left in it to tell two requests that are alike: their params must differ.
    """
    return _CHOSEN + address_bytes(matcher)


def chosen_matcher(salt: Bytes32) -> AddressType | None:
    """Whom a request's salt chooses to match it; None when anyone may."""
    return address(hexstr(salt[12:])) if salt[:12] == _CHOSEN else None


def tag(bits: int) -> Bytes32:
    """A tag with these bits."""
    return bits.to_bytes(32, "big")


def tag_bits(value: Bytes32) -> int:
    """The bits of a tag as a number."""
    return int.from_bytes(value, "big")


def tag_names(value: Bytes32) -> str:
    """`tee,tdx`, for people; bits without a name show as `bit 9`."""
    names = {0: "tee", 1: "scone", 2: "gramine", 3: "tdx", 8: "gpu", 128: "batch"}
    bits = tag_bits(value)
    return ",".join(names.get(i, f"bit {i}") for i in range(256) if bits >> i & 1) or "none"


class Kind(StrEnum):
    """The four kinds of order; the value names them in routes and errors."""

    APP = "app"
    DATASET = "dataset"
    WORKERPOOL = "workerpool"
    REQUEST = "request"


@dataclass(frozen=True)
class AppOrder(Typed):
    """An app's owner sells runs of the app."""

    app: Address
    appprice: Uint256 = 0
    volume: Uint256 = 1
    tag: Bytes32_ = ZERO32
    datasetrestrict: Address = ZERO
    workerpoolrestrict: Address = ZERO
    requesterrestrict: Address = ZERO
    salt: Bytes32_ = ZERO32


@dataclass(frozen=True)
class DatasetOrder(Typed):
    """A dataset's owner sells uses of the dataset."""

    dataset: Address
    datasetprice: Uint256 = 0
    volume: Uint256 = 1
    tag: Bytes32_ = ZERO32
    apprestrict: Address = ZERO
    workerpoolrestrict: Address = ZERO
    requesterrestrict: Address = ZERO
    salt: Bytes32_ = ZERO32


@dataclass(frozen=True)
class WorkerpoolOrder(Typed):
    """A workerpool's owner sells executions of one category."""

    workerpool: Address
    workerpoolprice: Uint256 = 0
    volume: Uint256 = 1
    tag: Bytes32_ = ZERO32
    category: Uint256 = 0
    trust: Uint256 = 0
    apprestrict: Address = ZERO
    datasetrestrict: Address = ZERO
    requesterrestrict: Address = ZERO
    salt: Bytes32_ = ZERO32


@dataclass(frozen=True)
class RequestOrder(Typed):
    """A requester asks for `volume` tasks at these prices at most."""

    app: Address
    appmaxprice: Uint256 = 0
    dataset: Address = ZERO
    datasetmaxprice: Uint256 = 0
    workerpool: Address = ZERO
    workerpoolmaxprice: Uint256 = 0
    requester: Address = ZERO
    volume: Uint256 = 1
    tag: Bytes32_ = ZERO32
    category: Uint256 = 0
    trust: Uint256 = 0
    beneficiary: Address = ZERO
    callback: Address = ZERO
    params: String = ""
    salt: Bytes32_ = ZERO32


Order = AppOrder | DatasetOrder | WorkerpoolOrder | RequestOrder
T = TypeVar("T", AppOrder, DatasetOrder, WorkerpoolOrder, RequestOrder)
ORDER_TYPES: dict[Kind, type[Any]] = {
    Kind.APP: AppOrder,
    Kind.DATASET: DatasetOrder,
    Kind.WORKERPOOL: WorkerpoolOrder,
    Kind.REQUEST: RequestOrder,
}


def kind_of(order: Order) -> Kind:
    """Which of the four kinds an order is."""
    return next(kind for kind, cls in ORDER_TYPES.items() if isinstance(order, cls))


@dataclass(frozen=True)
class Signed(Generic[T]):
    """An order with the signature of its owner (`0x` when it was presigned on chain)."""

    order: T
    sign: bytes

    @classmethod
    def by(cls, signer: Signer, order: T, domain: Domain) -> Signed[T]:
        """`order` signed under the hub's domain."""
        return cls(order, signer.sign_digest(digest(domain, order)))

    def hash(self, domain: Domain) -> Bytes32:
        """The order's hash, which the contracts, the market and the deal know it by."""
        return digest(domain, self.order)

    def as_tuple(self) -> tuple[Any, ...]:
        """The ABI tuple: the fields, then the signature."""
        return (*self.order.as_tuple(), self.sign)

    def to_json(self) -> dict[str, Any]:
        """The wire's flat object: the fields and `sign`."""
        return {**self.order.to_json(), "sign": hexstr(self.sign)}

    @classmethod
    def from_json(cls, kind: Kind, value: Any) -> Signed[Any]:
        """The opposite of `to_json`. Raises InvalidInput, naming the field."""
        if not isinstance(value, dict) or "sign" not in value:
            raise InvalidInput(f"expected a signed {kind}order object with a sign field, got {value!r}")
        fields = {name: v for name, v in value.items() if name != "sign"}
        return Signed(ORDER_TYPES[kind].from_json(fields), unhex(value["sign"]))


NO_DATASET: Signed[DatasetOrder] = Signed(DatasetOrder(dataset=ZERO, volume=0), b"")
"""What the contracts take in place of a dataset order when a deal has no dataset."""


@dataclass(frozen=True)
class OrderOperation:
    """Sign (0) or close (1) an order on chain, by its owner or with the owner's signature."""

    signed: Signed[Any]
    operation: int
    sign: bytes = b""

    def hash(self, domain: Domain) -> Bytes32:
        """What the owner signs for others to send it (poco.md §4: the order is a struct inside)."""
        order = self.signed.order
        inner, name = order.type_string(), type(order).__name__
        kind = keccak(f"{name}Operation({name} order,uint256 operation){inner}".encode())
        struct = keccak(kind + order.struct_hash() + self.operation.to_bytes(32, "big"))
        return keccak(b"\x19\x01" + domain.separator + struct)

    def as_tuple(self) -> tuple[Any, ...]:
        return (self.signed.as_tuple(), self.operation, self.sign)


PARAM_NAMES = (
    "iexec_args",
    "iexec_input_files",
    "iexec_secrets",
    "iexec_result_encryption",
    "iexec_result_storage_provider",
    "iexec_result_storage_proxy",
    "bulk_cid",
)


SEALED_DIGEST = "sealdeal:digest=sealed"
"""The name of a secret number 0 that asks for a sealed digest."""


@dataclass(frozen=True)
class Params:
    """What a requester tells the app and the network, kept in the request order's `params` (wire.md §5.2)."""

    args: str = ""
    """Split like a shell and appended to the app's entry point."""
    input_files: tuple[str, ...] = ()
    """URLs fetched into the app's input folder."""
    secrets: dict[int, str] = field(default_factory=dict)
    """n -> name of the requester's secret given to the app as IEXEC_REQUESTER_SECRET_n."""
    result_encryption: bool = False
    """The result is encrypted for the beneficiary; without a key the task fails."""
    result_storage_provider: str = "ipfs"
    result_storage_proxy: str = ""
    bulk_cid: str = ""
    sealed_digest: bool = False
    """The digest on chain is salted, and the encrypted result padded (model.results). Written as the secret
    number 0, which the protocol's workers and nodes pass over."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a params string as the network does: any unknown key or malformed JSON makes it all `args`."""
        try:
            given = json.loads(text) if text else {}
            if not isinstance(given, dict) or set(given) - set(PARAM_NAMES):
                raise ValueError
            files = given.get("iexec_input_files", [])
            secrets = given.get("iexec_secrets", {})
            texts = [given.get(name, "") for name in ("iexec_args", "iexec_result_storage_proxy", "bulk_cid")]
            provider = given.get("iexec_result_storage_provider", "ipfs")
            encryption = given.get("iexec_result_encryption", False)
            sound = (
                isinstance(files, list)
                and isinstance(secrets, dict)
                and isinstance(encryption, bool)
                and all(isinstance(v, str) for v in [*files, *secrets.values(), *texts, provider])
            )
            if not sound:
                raise ValueError
            numbered = {int(n): name for n, name in secrets.items()}
            sealed = numbered.get(0) == SEALED_DIGEST
            if sealed:
                del numbered[0]
            return cls(
                args=texts[0],
                input_files=tuple(files),
                secrets=numbered,
                result_encryption=encryption,
                result_storage_provider=provider,
                result_storage_proxy=texts[1],
                bulk_cid=texts[2],
                sealed_digest=sealed,
            )
        except (ValueError, RecursionError):
            return cls(args=text)

    def to_text(self) -> str:
        """The JSON text that goes into the order; only what differs from nothing is written."""
        secrets = {0: SEALED_DIGEST, **self.secrets} if self.sealed_digest else self.secrets
        members: dict[str, Any] = {
            "iexec_args": self.args,
            "iexec_input_files": list(self.input_files),
            "iexec_secrets": {str(n): name for n, name in secrets.items()},
            "iexec_result_encryption": self.result_encryption,
            "iexec_result_storage_provider": self.result_storage_provider,
            "iexec_result_storage_proxy": self.result_storage_proxy,
            "bulk_cid": self.bulk_cid,
        }
        return json.dumps({k: v for k, v in members.items() if v}, separators=(",", ":"))


def owner_field(order: Order) -> AddressType:
    """The asset whose owner signs the order; for a request, the requester who signs it."""
    match order:
        case AppOrder():
            return order.app
        case DatasetOrder():
            return order.dataset
        case WorkerpoolOrder():
            return order.workerpool
        case RequestOrder():
            return order.requester


__all__ = [
    "BATCH",
    "FRAMEWORKS",
    "GPU",
    "GRAMINE",
    "NO_DATASET",
    "ORDER_TYPES",
    "SCONE",
    "TDX",
    "TEE",
    "TEE_TDX",
    "AppOrder",
    "DatasetOrder",
    "Kind",
    "Order",
    "OrderOperation",
    "Params",
    "RequestOrder",
    "Signed",
    "WorkerpoolOrder",
    "kind_of",
    "owner_field",
    "tag",
    "tag_bits",
    "tag_names",
]
