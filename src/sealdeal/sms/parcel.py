"""Many datasets in one task: which of them a deal may have the keys of, by a node's own final block."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from sealdeal.chain import Hub
from sealdeal.model.bulk import BulkDataset, BulkFault, Documents, bulk_datasets, gives_in_bulk, told
from sealdeal.model.eip712 import hub_domain
from sealdeal.model.errors import InvalidInput
from sealdeal.model.types import Address

from .view import View


@dataclass(frozen=True, slots=True)
class Parcel:
    """The datasets of one task of a bulk."""

    datasets: tuple[BulkDataset, ...] = ()
    usable: frozenset[Address] = frozenset()
    """Those whose owners let this deal have them, as this node's final block shows it."""


async def parcel_of(hub: Hub, chain_id: int, view: View, shown: Documents | None) -> Parcel:
    """The datasets of the task's slice, and of which of them the deal may have the keys.

    Raises InvalidInput for other documents than the deal names. Of true ones that are wrong nothing follows:
    the guest finds the same, and says so.
    """
    deal = view.deal
    cid = deal.parsed_params.bulk_cid
    if not cid:
        return Parcel()
    if shown is None:
        raise InvalidInput(f"expected the documents of the deal's bulk {cid:.100}, got none")
    try:
        orders = shown.orders(cid, view.task.idx)
    except BulkFault:
        return Parcel()
    infos, fits = await asyncio.gather(
        hub.datasets([signed.order.dataset for signed in orders], view.block),
        hub.compatible(orders, deal.dealid, view.block),
    )
    usable = {
        signed.order.dataset
        for signed, info, fit in zip(orders, infos, fits, strict=True)
        if info is not None and fit and gives_in_bulk(signed.order)
    }
    domain = hub_domain(chain_id, hub.addresses.hub)
    return Parcel(bulk_datasets(orders, domain, map(told, infos)), frozenset(usable))
