"""What a marketplace answers (wire.md §1): orders, deals, categories, and what only ours tells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

import pydantic
from pydantic.alias_generators import to_camel

from sealdeal.model.errors import IntegrityError, InvalidInput
from sealdeal.model.matches import Place, Word
from sealdeal.model.orders import Kind, Signed, T
from sealdeal.model.types import Address, address, bytes32, hexstr

Item = TypeVar("Item")

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


def page_of(answer: Mapping[str, Any], name: str, read: Any) -> Page[Any]:
    """A list that was answered, each item read by `read`. Raises InvalidInput."""
    if not isinstance(answer.get(name), list):
        raise InvalidInput(f"expected a marketplace's list of {name}, got {str(answer)[:80]}")
    items = tuple(read(found) for found in answer[name])
    return Page(items, int(answer.get("count", len(items))), bool(answer.get("nextPage")))
