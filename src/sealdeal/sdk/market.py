"""The marketplace's client (wire.md §1). It works against the official marketplace too, but for `standing`
requests, `quote`, `why` and what a matcher signs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Literal

from sealdeal.model.keys import Signer
from sealdeal.model.matches import Match, Word, read_match, read_place
from sealdeal.model.orders import (
    AppOrder,
    DatasetOrder,
    Kind,
    RequestOrder,
    Signed,
    T,
    WorkerpoolOrder,
    kind_of,
    tag,
    tag_bits,
)
from sealdeal.model.types import Address, bytes32, hexstr

from .challenges import authorization
from .http import Client, Transport
from .market_answers import (
    CategoryRecord,
    DealRecord,
    MarketQuote,
    Metrics,
    Page,
    Published,
    Why,
    page_of,
)

AnyOne = Literal["any"]
"""A filter that lets every value pass, restricted or not."""
PAGE_SIZES = range(10, 1001)
"""What a page may hold; 20 when not told."""


class MarketClient(Client):
    """A marketplace, for one chain.

    Raises its errors as model.errors: InvalidInput (400), Forbidden (403), NotFound (404), Unavailable.
    """

    def __init__(self, base_url: str, chain_id: int, transport: Transport | None = None) -> None:
        super().__init__(base_url, transport)
        self.chain_id = chain_id

    async def _call(self, method: str, path: str, query: Mapping[str, Any] | None = None, **rest: Any) -> Any:
        params = {"chainId": str(self.chain_id)} | _query(query or {})
        return await self.json(method, path, params=params, **rest)

    async def version(self) -> str:
        return str((await self._call("GET", "/version"))["version"])

    async def metrics(self) -> Metrics:
        return Metrics.model_validate(await self._call("GET", "/metrics"))

    # --- publish

    async def challenge(self, account: Address) -> dict[str, Any]:
        """A challenge for this account, as typed data; `authorization` answers it."""
        answer = await self._call("GET", "/challenge", {"address": account})
        return dict(answer["data"])

    async def _authorized(self, signer: Signer) -> dict[str, str]:
        document = await self.challenge(signer.address)
        return {"authorization": authorization(self.chain_id, document, signer)}

    async def authorized_json(self, method: str, path: str, signer: Signer, **rest: Any) -> Any:
        """A request that `signer` authorises, once, and the JSON value of its answer."""
        return await self._call(method, path, headers=await self._authorized(signer), **rest)

    async def publish(self, signed: Signed[T], signer: Signer, *, standing: bool = False) -> Published[T]:
        """Publish a signed order of any kind as its signer.

        `standing`, for requests: it waits even while its app or dataset has no offer. Raises Forbidden
        with the marketplace's reason.
        """
        kind = kind_of(signed.order)
        body: dict[str, Any] = {"order": signed.to_json()} | ({"standing": True} if standing else {})
        headers = await self._authorized(signer)
        answer = await self._call("POST", f"/{kind}orders", json=body, headers=headers)
        place = read_place(answer["place"]) if "place" in answer else None
        return replace(Published.from_json(kind, answer["published"]), place=place)

    async def unpublish(self, kind: Kind, hash: bytes, signer: Signer) -> bytes:
        """Take one open order out of the book. It stays valid on chain: close it there to end it."""
        (gone,) = await self._unpublish(kind, signer, {"orderHash": hexstr(hash)})
        return gone

    async def unpublish_last(self, kind: Kind, asset: Address, signer: Signer) -> bytes:
        """Take out the newest open order of an asset (of a requester)."""
        body = {"target": "unpublish_last", _owner_field(kind): asset}
        (gone,) = await self._unpublish(kind, signer, body)
        return gone

    async def unpublish_all(self, kind: Kind, asset: Address, signer: Signer) -> list[bytes]:
        """Take out every open order of an asset (of a requester)."""
        return await self._unpublish(kind, signer, {"target": "unpublish_all", _owner_field(kind): asset})

    async def _unpublish(self, kind: Kind, signer: Signer, body: Mapping[str, str]) -> list[bytes]:
        headers = await self._authorized(signer)
        answer = await self._call("PUT", f"/{kind}orders", json=body, headers=headers)
        return [bytes32(value) for value in answer["unpublished"]]

    # --- order books: open orders, best price first, then oldest

    async def orders(self, kind: Kind, **filters: Any) -> Page[Published[Any]]:
        """The book of any kind, with the filters of `app_orders`, `dataset_orders`, …"""
        books: dict[Kind, Callable[..., Awaitable[Page[Any]]]] = {
            Kind.APP: self.app_orders,
            Kind.DATASET: self.dataset_orders,
            Kind.WORKERPOOL: self.workerpool_orders,
            Kind.REQUEST: self.request_orders,
        }
        return await books[kind](**filters)

    async def app_orders(
        self,
        app: Address | AnyOne | None = None,
        *,
        owner: Address | None = None,
        dataset: Address | AnyOne | None = None,
        only_dataset: bool = False,
        workerpool: Address | AnyOne | None = None,
        only_workerpool: bool = False,
        requester: Address | AnyOne | None = None,
        only_requester: bool = False,
        min_tag: int | None = None,
        max_tag: int | None = None,
        min_volume: int | None = None,
        page: int = 0,
        page_size: int = 20,
    ) -> Page[Published[AppOrder]]:
        """Offers of an app, or of everything that `owner` owns.

        `dataset`, `workerpool`, `requester`: also offers restricted to that one (with `only_…` no others);
        without them restricted offers are not shown, `"any"` shows all. `min_tag`, `max_tag`: bits that the
        order's tag must have, and beyond which it may have none.
        """
        return await self._orders(
            Kind.APP,
            {
                "app": app,
                "appOwner": owner,
                "dataset": dataset,
                "isDatasetStrict": only_dataset,
                "workerpool": workerpool,
                "isWorkerpoolStrict": only_workerpool,
                "requester": requester,
                "isRequesterStrict": only_requester,
            },
            {"minTag": min_tag, "maxTag": max_tag, "minVolume": min_volume},
            page,
            page_size,
        )

    async def dataset_orders(
        self,
        dataset: Address | AnyOne | None = None,
        *,
        owner: Address | None = None,
        app: Address | AnyOne | None = None,
        only_app: bool = False,
        workerpool: Address | AnyOne | None = None,
        only_workerpool: bool = False,
        requester: Address | AnyOne | None = None,
        only_requester: bool = False,
        min_tag: int | None = None,
        max_tag: int | None = None,
        min_volume: int | None = None,
        bulk_only: bool = False,
        page: int = 0,
        page_size: int = 20,
    ) -> Page[Published[DatasetOrder]]:
        """Offers of a dataset; filters as in `app_orders`. `bulk_only`: free ones without end, for bulks."""
        return await self._orders(
            Kind.DATASET,
            {
                "dataset": dataset,
                "datasetOwner": owner,
                "app": app,
                "isAppStrict": only_app,
                "workerpool": workerpool,
                "isWorkerpoolStrict": only_workerpool,
                "requester": requester,
                "isRequesterStrict": only_requester,
                "bulkOnly": bulk_only,
            },
            {"minTag": min_tag, "maxTag": max_tag, "minVolume": min_volume},
            page,
            page_size,
        )

    async def workerpool_orders(
        self,
        *,
        category: int | None = None,
        workerpool: Address | None = None,
        owner: Address | None = None,
        app: Address | AnyOne | None = None,
        only_app: bool = False,
        dataset: Address | AnyOne | None = None,
        only_dataset: bool = False,
        requester: Address | AnyOne | None = None,
        only_requester: bool = False,
        min_tag: int | None = None,
        max_tag: int | None = None,
        min_trust: int | None = None,
        min_volume: int | None = None,
        page: int = 0,
        page_size: int = 20,
    ) -> Page[Published[WorkerpoolOrder]]:
        """Offers of workerpools; filters as in `app_orders`."""
        return await self._orders(
            Kind.WORKERPOOL,
            {
                "category": category,
                "workerpool": workerpool,
                "workerpoolOwner": owner,
                "app": app,
                "isAppStrict": only_app,
                "dataset": dataset,
                "isDatasetStrict": only_dataset,
                "requester": requester,
                "isRequesterStrict": only_requester,
            },
            {"minTag": min_tag, "maxTag": max_tag, "minTrust": min_trust, "minVolume": min_volume},
            page,
            page_size,
        )

    async def request_orders(
        self,
        *,
        category: int | None = None,
        requester: Address | None = None,
        beneficiary: Address | None = None,
        app: Address | AnyOne | None = None,
        dataset: Address | AnyOne | None = None,
        workerpool: Address | AnyOne | None = None,
        only_workerpool: bool = False,
        min_tag: int | None = None,
        max_tag: int | None = None,
        max_trust: int | None = None,
        min_volume: int | None = None,
        page: int = 0,
        page_size: int = 20,
    ) -> Page[Published[RequestOrder]]:
        """Requests that wait, the best paying first; without `workerpool` those that name none."""
        return await self._orders(
            Kind.REQUEST,
            {
                "category": category,
                "requester": requester,
                "beneficiary": beneficiary,
                "app": app,
                "dataset": dataset,
                "workerpool": workerpool,
                "isWorkerpoolStrict": only_workerpool,
            },
            {"minTag": min_tag, "maxTag": max_tag, "maxTrust": max_trust, "minVolume": min_volume},
            page,
            page_size,
        )

    async def _orders(
        self,
        kind: Kind,
        names: Mapping[str, Any],
        bounds: Mapping[str, int | None],
        page: int,
        page_size: int,
    ) -> Page[Any]:
        limits = {name: tag(v) if name.endswith("Tag") and v is not None else v for name, v in bounds.items()}
        query = {**names, **limits, "pageIndex": page, "pageSize": page_size}
        answer = await self._call("GET", f"/{kind}orders", query)
        return page_of(answer, "orders", lambda found: Published.from_json(kind, found))

    async def order(self, kind: Kind, hash: bytes) -> Published[Any]:
        """One order, whatever its status. Raises NotFound."""
        answer = await self._call("GET", f"/{kind}orders/{hexstr(hash)}")
        place = read_place(answer["place"]) if "place" in answer else None
        return replace(Published.from_json(kind, answer), place=place)

    async def why(self, request_hash: bytes) -> Why:
        """Why a published request is unmatched: the nearest offers and what fails. Raises NotFound."""
        return Why.model_validate(await self._call("GET", f"/requestorders/{hexstr(request_hash)}/why"))

    async def quote_for(self, order: RequestOrder, volume: int | None = None) -> MarketQuote:
        """What this request (for `volume` tasks, if said) would cost now, whatever prices it gives."""
        return await self.quote(
            order.app,
            dataset=order.dataset,
            workerpool=order.workerpool,
            requester=order.requester,
            category=order.category,
            trust=order.trust,
            bits=tag_bits(order.tag),
            volume=volume or order.volume,
        )

    async def quote(
        self,
        app: Address,
        *,
        dataset: Address | None = None,
        workerpool: Address | None = None,
        requester: Address | None = None,
        category: int = 0,
        trust: int = 0,
        bits: int = 0,
        volume: int = 1,
    ) -> MarketQuote:
        """What `volume` such tasks would cost now, from which orders, and how long such tasks took.

        `bits`: the tag that the request will have. Only a Sealdeal marketplace knows: NotFound from others.
        """
        query = {
            "app": app,
            "dataset": dataset,
            "workerpool": workerpool,
            "requester": requester,
            "category": category,
            "trust": trust,
            "tag": tag(bits),
            "volume": volume,
        }
        return MarketQuote.model_validate((await self._call("GET", "/quote", query))["quote"])

    async def match_of(self, dealid: bytes) -> Word[Match]:
        """The matcher's word on what it chose a deal's orders from. Raises NotFound for others' deals."""
        return read_match((await self._call("GET", f"/deals/{hexstr(dealid)}/match"))["match"])

    # --- deals and categories

    async def deal(self, dealid: bytes) -> DealRecord:
        """Raises NotFound."""
        return DealRecord.model_validate(await self._call("GET", f"/deals/{hexstr(dealid)}"))

    async def deals(
        self,
        *,
        category: int | None = None,
        requester: Address | None = None,
        beneficiary: Address | None = None,
        app: Address | None = None,
        dataset: Address | None = None,
        workerpool: Address | None = None,
        app_owner: Address | None = None,
        dataset_owner: Address | None = None,
        workerpool_owner: Address | None = None,
        apporder: bytes | None = None,
        datasetorder: bytes | None = None,
        workerpoolorder: bytes | None = None,
        requestorder: bytes | None = None,
        page: int = 0,
        page_size: int = 20,
    ) -> Page[DealRecord]:
        """Deals, newest first. The order filters are order hashes."""
        answer = await self._call(
            "GET",
            "/deals",
            {
                "category": category,
                "requester": requester,
                "beneficiary": beneficiary,
                "app": app,
                "dataset": dataset,
                "workerpool": workerpool,
                "appOwner": app_owner,
                "datasetOwner": dataset_owner,
                "workerpoolOwner": workerpool_owner,
                "apporderHash": apporder,
                "datasetorderHash": datasetorder,
                "workerpoolorderHash": workerpoolorder,
                "requestorderHash": requestorder,
                "pageIndex": page,
                "pageSize": page_size,
            },
        )
        return page_of(answer, "deals", DealRecord.model_validate)

    async def category(self, catid: int) -> CategoryRecord:
        """Raises NotFound."""
        return CategoryRecord.model_validate(await self._call("GET", f"/categories/{catid}"))

    async def categories(
        self, *, least: int | None = None, most: int | None = None, page: int = 0, page_size: int = 20
    ) -> Page[CategoryRecord]:
        """Categories with a reference time in these bounds (seconds), shortest first."""
        query = {"minWorkClockTimeRef": least, "maxWorkClockTimeRef": most}
        answer = await self._call("GET", "/categories", {**query, "pageIndex": page, "pageSize": page_size})
        return page_of(answer, "categories", CategoryRecord.model_validate)

    async def prices(self, category: int) -> list[tuple[int, int, int]]:
        """(block time in s, workerpool price in nRLC, tasks) of a category's last 100 deals, newest first."""
        answer = await self._call("GET", "/ohlc", {"category": category})
        return [
            (int(datetime.fromisoformat(time).timestamp()), int(price), int(volume))
            for time, price, volume in answer["ohlc"]
        ]

    async def every_deal(self, **filters: Any) -> AsyncIterator[DealRecord]:
        """All deals that `deals` with these filters gives, page after page."""
        page = 0
        while True:
            found = await self.deals(**filters, page=page, page_size=PAGE_SIZES[-1])
            for deal in found.items:
                yield deal
            if not found.more:
                return
            page += 1


def _owner_field(kind: Kind) -> str:
    return "requester" if kind is Kind.REQUEST else kind.value


def _query(values: Mapping[str, Any]) -> dict[str, str]:
    """Query parameters: None is left out, flags are said only when set."""
    found = {}
    for name, value in values.items():
        if value is None or value is False:
            continue
        found[name] = "true" if value is True else hexstr(value) if isinstance(value, bytes) else str(value)
    return found
