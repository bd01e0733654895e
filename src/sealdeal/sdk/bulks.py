"""Many datasets in one deal, as who asks for it prepares them (wire.md §2.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sealdeal.model.bulk import make_documents, slice_cids
from sealdeal.model.cid import cid_of
from sealdeal.model.errors import IntegrityError, NotFound
from sealdeal.model.orders import DatasetOrder, Signed
from sealdeal.model.types import Address

from .market import MarketClient
from .results import ResultsClient


@dataclass(frozen=True)
class Bulk:
    """Datasets that are shared out among tasks, as it is stored."""

    cid: str
    """What the request's `bulk_cid` names."""
    slices: tuple[tuple[Address, ...], ...]
    """The datasets of each task."""

    @property
    def volume(self) -> int:
        """How many tasks to ask for: another number leaves data out, or makes tasks without any."""
        return len(self.slices)


async def granted_in_bulk(
    market: MarketClient, dataset: Address, *, app: Address, requester: Address, pool: Address | None
) -> Signed[DatasetOrder]:
    """The newest order by which a requester may have a dataset in bulk. Raises NotFound."""
    found = await market.dataset_orders(
        dataset, app=app, requester=requester, workerpool=pool, bulk_only=True
    )
    if not found.items:
        raise NotFound(
            f"nobody lets {requester} have dataset {dataset} in bulk with app {app}: its owner must grant it "
            "so (`sealdeal dataset grant --bulk`)"
        )
    return found.items[-1].signed


async def store_bulk(results: ResultsClient, orders: Sequence[Signed[DatasetOrder]], per_task: int) -> Bulk:
    """Store the documents of a bulk where workers find them. Raises InvalidInput, Unavailable."""
    index, documents = make_documents(orders, per_task)
    for expected, document in zip([*slice_cids(index), cid_of(index)], [*documents, index], strict=True):
        if (stored := await results.add(document)) != expected:
            raise IntegrityError(f"expected the store to know it as {expected}, got {stored}")
    datasets = [signed.order.dataset for signed in orders]
    parts = tuple(tuple(datasets[n : n + per_task]) for n in range(0, len(datasets), per_task))
    return Bulk(cid_of(index), parts)
