"""Several datasets in one task: the documents that a deal's `bulk_cid` names (wire.md §2.2).

    bulk_cid     → JSON array of CIDs, one for each task, by its absolute index
    element [i]  → JSON array of at most 100 signed orders of datasets, all of which task i works on

Both are content-addressed, so that the deal on chain fixes them: whoever is shown them needs to trust nobody.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from .cid import cid_of, cid_version, parse_cid
from .eip712 import Domain, digest
from .errors import BadSignature, InvalidInput
from .keys import recover_digest
from .orders import DatasetOrder, Kind, Signed
from .types import ZERO, Address, Bytes32, address, bytes32, hexstr

BULK_VOLUME: Final = 2**53 - 2
"""An order of at least this volume may be used in bulk: the same order in any number of deals, uncounted."""
MAX_DATASETS: Final = 100
"""Datasets of one task."""
MAX_DOCUMENT_BYTES: Final = 1 << 20
"""Of the list of slices (some 20,000 tasks), and of a slice."""

DatasetOrders = tuple[Signed[DatasetOrder], ...]


@dataclass(frozen=True, slots=True)
class Documents:
    """What is shown of a task's bulk: the list of slices, and the task's own slice, as they lie."""

    index: bytes
    slice: bytes

    def orders(self, bulk_cid: str, task_index: int) -> DatasetOrders:
        """The orders of that task, once both documents are what their CIDs say.

        Raises InvalidInput. What it then says of documents that match is true for everybody: the deal itself
        is at fault.
        """
        check_document(bulk_cid, self.index)
        cid = slice_cid(self.index, task_index)
        check_document(cid, self.slice)
        return slice_orders(self.slice)


@dataclass(frozen=True, slots=True)
class BulkDataset:
    """One of a task's datasets, as its guest was told of it. Nothing here depends on when one looks."""

    dataset: Address
    owner: Address
    """Whose key signed its order; zero, or anybody, for a wallet that signs by other means."""
    multiaddr: str
    checksum: Bytes32

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


def check_document(cid: str, document: bytes) -> None:
    """Raises InvalidInput unless that is the content of the CID."""
    if len(document) > MAX_DOCUMENT_BYTES:
        raise InvalidInput(f"expected at most {MAX_DOCUMENT_BYTES} bytes at {cid}, got {len(document)}")
    if (found := cid_of(document, cid_version(cid))) != cid:
        raise InvalidInput(f"expected the content of {cid:.100}, got that of {found}")


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
    orders: DatasetOrders, domain: Domain, infos: Iterable[tuple[str, Bytes32]]
) -> tuple[BulkDataset, ...]:
    """What a guest is told of its datasets. `infos`: (multiaddr as text, checksum) of each, as on chain."""
    return tuple(
        BulkDataset(signed.order.dataset, signer_of(signed, domain), multiaddr, checksum)
        for signed, (multiaddr, checksum) in zip(orders, infos, strict=True)
    )


def _array(document: bytes, what: str) -> list[Any]:
    try:
        found = json.loads(document)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list):
        raise InvalidInput(f"expected a JSON array {what}")
    return found
