"""The marketplace: its messages and its client (wire.md §1).

The client works against the official marketplace too, but for `standing` requests, `quote` and `why`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

import pydantic
from pydantic.alias_generators import to_camel

from sealdeal.chain.wallet import Wallet
from sealdeal.model import eip712
from sealdeal.model.eip712 import Domain, String, Typed
from sealdeal.model.errors import IntegrityError, InvalidInput
from sealdeal.model.keys import Key
from sealdeal.model.matches import Match, Place, Word, read_match, read_place
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
from sealdeal.model.types import Address, address, bytes32, hexstr

from .http import Client, Transport

AnyOne = Literal["any"]
"""A filter that lets every value pass, restricted or not."""
Signer = Key | Wallet
Item = TypeVar("Item")

PAGE_SIZES = range(10, 1001)
"""What a page may hold; 20 when not told."""


# ---------------------------------------------------------------------------------------- challenges


@dataclass(frozen=True)
class Challenge(Typed):
    """What a wallet signs to publish or unpublish, once."""

    challenge: String


def challenge_domain(chain_id: int) -> Domain:
    """Where challenges count."""
    return Domain("iExec Gateway", "1", chain_id)


def challenge_hash(chain_id: int, text: str) -> bytes:
    """The 32 bytes that are signed for a challenge of this text."""
    return eip712.digest(challenge_domain(chain_id), Challenge(text))


def challenge_document(chain_id: int, text: str) -> dict[str, Any]:
    """The typed data that wallets are shown (wire.md §1.2)."""
    return {
        "types": {
            "EIP712Domain": [
                {"name": "name", "type": "string"},
                {"name": "version", "type": "string"},
                {"name": "chainId", "type": "uint256"},
            ],
            "Challenge": [{"name": "challenge", "type": "string"}],
        },
        "domain": {"name": "iExec Gateway", "version": "1", "chainId": str(chain_id)},
        "primaryType": "Challenge",
        "message": {"challenge": text},
    }


def authorization(chain_id: int, document: Mapping[str, Any], signer: Signer) -> str:
    """The header that answers a challenge: `hash_signature_address`.

    Only a challenge is signed: raises IntegrityError when the marketplace asks for another signature.
    """
    text = document.get("message", {}).get("challenge") if isinstance(document, Mapping) else None
    if not isinstance(text, str) or document != challenge_document(chain_id, text):
        raise IntegrityError(
            "the marketplace asked to sign something that is no challenge for this chain; nothing was signed"
        )
    key = _key(signer)
    digest = challenge_hash(chain_id, text)
    return f"{hexstr(digest)}_{hexstr(key.sign_digest(digest))}_{key.address}"


def _key(signer: Signer) -> Key:
    return signer.key if isinstance(signer, Wallet) else signer


# ------------------------------------------------------------------------------------------ messages

_Hash = Annotated[bytes, pydantic.BeforeValidator(bytes32), pydantic.PlainSerializer(hexstr)]
_Address = Annotated[str, pydantic.BeforeValidator(address)]


class _Answer(pydantic.BaseModel):
    """Base of what the marketplace answers. Members that a newer one adds are ignored."""

    model_config = pydantic.ConfigDict(
        frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True
    )


@dataclass(frozen=True, slots=True)
class Published(Generic[T]):
    """An order as the marketplace shows it."""

    hash: bytes
    signed: Signed[T]
    remaining: int
    """Tasks left."""
    status: str
    """`open`, `filled`, `canceled`, or `dead` (cannot match any more; may be published again)."""
    publication_timestamp: str
    """ISO 8601."""
    signer: Address
    place: Word[Place] | None = None
    """The matcher's word on its place in the book; given at publication it is evidence: keep it."""

    @property
    def order(self) -> T:
        return self.signed.order

    @classmethod
    def from_json(cls, kind: Kind, found: Mapping[str, Any]) -> Published[Any]:
        """Read the wire's document."""
        try:
            return Published(
                bytes32(found["orderHash"]),
                Signed.from_json(kind, found["order"]),
                int(found["remaining"]),
                str(found["status"]),
                str(found["publicationTimestamp"]),
                address(found["signer"]),
            )
        except KeyError as missing:
            raise IntegrityError(f"the marketplace's {kind}order lacks {missing}") from None


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """Part of a list."""

    items: tuple[Item, ...]
    count: int
    """How many there are in all."""
    more: bool
    """Whether the next page may hold some."""


class ResourceRecord(_Answer):
    """An app, dataset or workerpool in a deal."""

    pointer: _Address
    owner: _Address
    price: int
    """nRLC per task."""


class DealRecord(_Answer):
    """A deal as the marketplace indexed it."""

    dealid: _Hash
    app: ResourceRecord
    dataset: ResourceRecord
    workerpool: ResourceRecord
    requester: _Address
    beneficiary: _Address
    callback: _Address
    app_hash: _Hash
    dataset_hash: _Hash
    workerpool_hash: _Hash
    request_hash: _Hash
    params: str
    volume: int
    """Tasks."""
    category: int
    tag: _Hash
    trust: int
    start_time: int
    bot_first: int
    bot_size: int
    worker_stake: int
    scheduler_reward_ratio: int
    block_number: int
    block_timestamp: str
    transaction_hash: _Hash


class CategoryRecord(_Answer):
    """A size of task."""

    catid: int
    name: str
    description: str
    work_clock_time_ref: int
    """Seconds."""
    transaction_hash: _Hash
    block_number: int
    block_timestamp: str


class Metrics(_Answer):
    """Open orders, and how far the index is."""

    last_block: int
    checkpoint_block: int
    apporders: int
    datasetorders: int
    workerpoolorders: int
    requestorders: int


class NearestOffer(_Answer):
    """An offer near to what a request wants."""

    order_hash: _Hash
    price: int
    remaining: int
    failing: tuple[str, ...]
    """Every constraint that keeps it from the request; none when it would do."""


class Why(_Answer):
    """Why a request is not matched, or not in full."""

    order_hash: _Hash
    status: str
    remaining: int
    constraint: str | None
    """The one constraint to change first; None when nothing is in the way."""
    apporders: tuple[NearestOffer, ...]
    datasetorders: tuple[NearestOffer, ...]
    workerpoolorders: tuple[NearestOffer, ...]


class QuotedPart(_Answer):
    """One deal that a request would become."""

    apporder_hash: _Hash
    datasetorder_hash: _Hash | None
    workerpoolorder_hash: _Hash
    workerpool: str
    appprice: int
    datasetprice: int
    workerpoolprice: int
    """nRLC per task, as the others."""
    volume: int
    """Tasks."""


class TimesTaken(_Answer):
    """Seconds from the deal to the result, of completed tasks."""

    tasks: int
    """Of how many of the last ones."""
    median: int
    p95: int


class MarketQuote(_Answer):
    """What a request would cost now, before anything is signed."""

    volume: int
    """Tasks that could be had now, of those asked for."""
    wanted: int
    cost: int
    """nRLC for all that could be had."""
    parts: tuple[QuotedPart, ...]
    """The deals, in the order in which they would be made."""
    time: TimesTaken | None
    """What tasks of this app in this category took; None when none has completed yet."""
    missing: str | None
    """What keeps the rest from being had; None when there is none."""

    @property
    def most(self) -> tuple[int, int, int]:
        """The highest prices in it, of app, dataset and workerpool, in nRLC per task."""
        prices = [(part.appprice, part.datasetprice, part.workerpoolprice) for part in self.parts]
        app, dataset, workerpool = (max(found) for found in zip(*prices, strict=True))
        return app, dataset, workerpool


# -------------------------------------------------------------------------------------------- client


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
        document = await self.challenge(_key(signer).address)
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
        return _page(answer, "orders", lambda found: Published.from_json(kind, found))

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
        return _page(answer, "deals", DealRecord.model_validate)

    async def category(self, catid: int) -> CategoryRecord:
        """Raises NotFound."""
        return CategoryRecord.model_validate(await self._call("GET", f"/categories/{catid}"))

    async def categories(
        self, *, least: int | None = None, most: int | None = None, page: int = 0, page_size: int = 20
    ) -> Page[CategoryRecord]:
        """Categories with a reference time in these bounds (seconds), shortest first."""
        query = {"minWorkClockTimeRef": least, "maxWorkClockTimeRef": most}
        answer = await self._call("GET", "/categories", {**query, "pageIndex": page, "pageSize": page_size})
        return _page(answer, "categories", CategoryRecord.model_validate)

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


def _page(answer: Mapping[str, Any], name: str, read: Any) -> Page[Any]:
    if not isinstance(answer.get(name), list):
        raise InvalidInput(f"expected a marketplace's list of {name}, got {str(answer)[:80]}")
    items = tuple(read(found) for found in answer[name])
    return Page(items, int(answer.get("count", len(items))), bool(answer.get("nextPage")))
