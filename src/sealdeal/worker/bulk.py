"""What a worker finds out of a bulk's datasets, so that its guest need not ask a chain.

The guest checks the documents against the deal, and in a TEE the SMS nodes compare the rest with theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

from sealdeal.chain import Hub
from sealdeal.guest.hello import BulkPlace, Hello
from sealdeal.model.bulk import BulkFault, Documents, check_named, gives_in_bulk, told, told_slice
from sealdeal.model.deals import Deal
from sealdeal.model.errors import IntegrityError, InvalidInput, NotFound, TooLarge, Unavailable
from sealdeal.model.types import Block

from .downloads import Downloads
from .relay import AttemptFailed


async def look_at_bulk(
    hub: Hub, downloads: Downloads, deal: Deal, index: int, block: Block
) -> tuple[BulkPlace, ...]:
    """Where the datasets of a task's slice lie, and which fit the deal; nothing for documents that are wrong.

    Raises AttemptFailed when the documents can't be had.
    """
    cid = deal.parsed_params.bulk_cid
    try:
        check_named(cid)
        listed = (await downloads.get(f"/ipfs/{cid}")).read_bytes()
        own = (await downloads.get(f"/ipfs/{told_slice(cid, listed, index)}")).read_bytes()
        orders = Documents(listed, own).orders(cid, index)
    except BulkFault:
        return ()
    except (NotFound, TooLarge, IntegrityError, InvalidInput, Unavailable) as missing:
        raise AttemptFailed(
            "PRE_COMPUTE_INPUT_FILE_DOWNLOAD_FAILED", f"the deal's bulk {cid:.100}: {missing}"
        ) from None
    infos = await hub.datasets([signed.order.dataset for signed in orders], block)
    fits = await hub.compatible(orders, deal.dealid, block)
    return tuple(
        BulkPlace(*told(info), info is not None and fit and gives_in_bulk(signed.order))
        for signed, info, fit in zip(orders, infos, fits, strict=True)
    )


def bulk_files(downloads: Downloads, hello: Hello) -> dict[str, Callable[[], Coroutine[Any, Any, Path]]]:
    """Name, as the guest asks for it -> download, of a bulk's documents and datasets."""
    cid = hello.deal.parsed_params.bulk_cid
    if not cid:
        return {}

    async def own() -> Path:
        listed = (await downloads.get(f"/ipfs/{cid}")).read_bytes()
        return await downloads.get(f"/ipfs/{told_slice(cid, listed, hello.index)}")

    files = {f"dataset/{n}": partial(downloads.get, place.multiaddr) for n, place in enumerate(hello.bulk, 1)}
    return {"bulk/index": partial(downloads.get, f"/ipfs/{cid}"), "bulk/slice": own, **files}
