"""Several datasets in one task: the documents that a deal's `bulk_cid` names (wire.md §2.2).

    bulk_cid     → JSON array of CIDs, one for each task, by its absolute index
    element [i]  → JSON array of at most 100 signed orders of datasets, all of which task i works on

Both are content-addressed, so that the deal on chain fixes them: whoever is shown them needs to trust nobody.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from .cid import cid_in, cid_of, cid_version, multiaddr_text, parse_cid
from .deals import DatasetInfo
from .eip712 import Domain, digest
from .errors import BadSignature, InvalidInput
from .keys import recover_digest
from .orders import DatasetOrder, Kind, Signed
from .types import ZERO, ZERO32, Address, Bytes32, address, bytes32, hexstr, unhex

BULK_VOLUME: Final = 2**53 - 2
"""An order of at least this volume may be used in bulk: the same order in any number of deals, uncounted."""
BULK_PRICE: Final = 0
"""Of such an order: nobody pays for the data of a bulk."""
MAX_DATASETS: Final = 100
"""Datasets of one task."""
MAX_DOCUMENT_BYTES: Final = 1 << 20
"""Of the list of slices (some 20,000 tasks), and of a slice."""

DatasetOrders = tuple[Signed[DatasetOrder], ...]


class BulkFault(InvalidInput):
    """The deal's own documents are wrong, and anybody who reads them finds the same."""


@dataclass(frozen=True, slots=True)
class Documents:
    """What is shown of a task's bulk: the list of slices, and the task's own slice, as they lie."""

    index: bytes
    slice: bytes
    """Empty when the list has none for the task."""

    def orders(self, bulk_cid: str, task_index: int) -> DatasetOrders:
        """The orders of that task, once both documents are what their CIDs say.

        Raises InvalidInput for other documents, BulkFault for true ones that are wrong.
        """
        cid = told_slice(bulk_cid, self.index, task_index)
        check_document(cid, self.slice)
        try:
            return slice_orders(self.slice)
        except InvalidInput as wrong:
            raise BulkFault(str(wrong)) from None

    def to_json(self) -> dict[str, str]:
        return {"index": hexstr(self.index), "slice": hexstr(self.slice)}

    @classmethod
    def from_json(cls, value: Any) -> Documents:
        """The opposite of `to_json`. Raises InvalidInput."""
        if not isinstance(value, dict) or not {"index", "slice"} <= set(value):
            raise InvalidInput("expected index and slice of a bulk as 0x hexadecimal")
        return cls(unhex(value["index"]), unhex(value["slice"]))


@dataclass(frozen=True, slots=True)
class BulkDataset:
    """One of a task's datasets, as its guest was told of it. Nothing here depends on when one looks."""

    dataset: Address
    owner: Address
    """Whose key signed its order; zero, or anybody, for a wallet that signs by other means."""
    multiaddr: str
    checksum: Bytes32

    @property
    def somewhere(self) -> bool:
        """Whether its bytes are said to lie where a worker can look for them."""
        return self.multiaddr.startswith(("http://", "https://")) or _is_content(self.multiaddr)

    def to_json(self) -> dict[str, str]:
        plain = dataclasses.asdict(self)
        return {**plain, "checksum": hexstr(self.checksum)}

    @classmethod
    def from_json(cls, value: Any) -> BulkDataset:
        """The opposite of `to_json`. Raises InvalidInput."""
        if not isinstance(value, dict) or set(value) != {"dataset", "owner", "multiaddr", "checksum"}:
            raise InvalidInput("expected dataset, owner, multiaddr and checksum of a dataset in a bulk")
        if not all(isinstance(member, str) for member in value.values()):
            raise InvalidInput("expected texts as the members of a dataset in a bulk")
        return cls(
            address(value["dataset"]), address(value["owner"]), value["multiaddr"], bytes32(value["checksum"])
        )


def gives_in_bulk(order: DatasetOrder) -> bool:
    """Whether an owner lets any number of deals have the data, for nothing.

    The hub would call an order with a price compatible too, and pays nobody for it.
    """
    return order.datasetprice == BULK_PRICE and order.volume >= BULK_VOLUME


def make_documents(
    orders: Sequence[Signed[DatasetOrder]], per_task: int = MAX_DATASETS
) -> tuple[bytes, list[bytes]]:
    """The list of slices, and the slices, of so many datasets each. Raises InvalidInput."""
    if not 1 <= per_task <= MAX_DATASETS:
        raise InvalidInput(f"expected 1 to {MAX_DATASETS} datasets for each task, got {per_task}")
    if not orders:
        raise InvalidInput("expected at least one dataset in a bulk, got none")
    if wrong := next((signed.order for signed in orders if not gives_in_bulk(signed.order)), None):
        raise InvalidInput(
            f"expected orders for nothing and without end in a bulk, got {wrong.volume} uses at "
            f"{wrong.datasetprice} nRLC of {wrong.dataset}"
        )
    parts = [orders[n : n + per_task] for n in range(0, len(orders), per_task)]
    slices = [_compact([signed.to_json() for signed in part]) for part in parts]
    index = _compact([cid_of(document) for document in slices])
    for document in (index, *slices):
        check_document(cid_of(document), document)
    return index, slices


def _compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _is_content(location: str) -> bool:
    try:
        return bool(cid_in(location))
    except InvalidInput:
        return False


def check_document(cid: str, document: bytes) -> None:
    """Raises InvalidInput unless that is the content of the CID."""
    if len(document) > MAX_DOCUMENT_BYTES:
        raise InvalidInput(f"expected at most {MAX_DOCUMENT_BYTES} bytes at {cid}, got {len(document)}")
    if (found := cid_of(document, cid_version(cid))) != cid:
        raise InvalidInput(f"expected the content of {cid:.100}, got that of {found}")


def check_named(bulk_cid: str) -> None:
    """Raises BulkFault for what is no CID, and so names nothing."""
    try:
        parse_cid(bulk_cid)
    except InvalidInput as wrong:
        raise BulkFault(str(wrong)) from None


def told_slice(bulk_cid: str, index: bytes, task_index: int) -> str:
    """The CID of a task's slice, in the list that the deal names. Raises as `Documents.orders` does."""
    check_named(bulk_cid)
    check_document(bulk_cid, index)
    try:
        return slice_cid(index, task_index)
    except InvalidInput as wrong:
        raise BulkFault(str(wrong)) from None


def slice_cids(index: bytes) -> list[str]:
    """The CIDs of all slices. Raises InvalidInput."""
    found = _array(index, "of the CIDs of a bulk's slices")
    for cid in found:
        if not isinstance(cid, str):
            raise InvalidInput(f"expected the CID of a bulk's slice, got {cid!r:.80}")
        parse_cid(cid)
    return found


def slice_cid(index: bytes, task_index: int) -> str:
    """The CID of one task's slice. Raises InvalidInput when there is none."""
    found = slice_cids(index)
    if not 0 <= task_index < len(found):
        raise InvalidInput(f"expected a slice for task {task_index}, got a bulk of {len(found)} slices")
    return found[task_index]


def slice_orders(document: bytes) -> DatasetOrders:
    """The orders in a slice. Raises InvalidInput."""
    found = _array(document, "of signed orders of datasets")
    if not 1 <= len(found) <= MAX_DATASETS:
        raise InvalidInput(f"expected 1 to {MAX_DATASETS} datasets in a slice of a bulk, got {len(found)}")
    known = {field.name for field in dataclasses.fields(DatasetOrder)} | {"sign"}
    orders = []
    for each in found:
        members = {name: v for name, v in each.items() if name in known} if isinstance(each, dict) else each
        orders.append(Signed.from_json(Kind.DATASET, members))
    return tuple(orders)


def signer_of(signed: Signed[DatasetOrder], domain: Domain) -> Address:
    """Whose key signed an order; zero when no key did."""
    try:
        return recover_digest(digest(domain, signed.order), signed.sign)
    except BadSignature:
        return ZERO


def bulk_datasets(
    orders: Iterable[Signed[DatasetOrder]], domain: Domain, infos: Iterable[tuple[str, Bytes32]]
) -> tuple[BulkDataset, ...]:
    """What a guest is told of its datasets. `infos`: `told` of each, as on chain."""
    return tuple(
        BulkDataset(signed.order.dataset, signer_of(signed, domain), multiaddr, checksum)
        for signed, (multiaddr, checksum) in zip(orders, infos, strict=True)
    )


def told(info: DatasetInfo | None) -> tuple[str, Bytes32]:
    """(where its bytes lie, their checksum), of a dataset as the chain shows it; nothing for what is none."""
    if info is None:
        return "", ZERO32
    try:
        return multiaddr_text(info.multiaddr), info.checksum
    except InvalidInput:
        return "", info.checksum


def _array(document: bytes, what: str) -> list[Any]:
    try:
        found = json.loads(document.decode())
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list):
        raise InvalidInput(f"expected a JSON array {what}")
    return found
