"""Do four orders fit? The contract's rules (poco.md §7), with every reason at once, in words.

What needs the chain (who owns what, whether a signature holds, whether an account can pay) is not here:
callers pass what they know. Group restrictions (ERC-734) are asked on chain too: `admits` is the caller's
answer to "does this restriction admit this account", and defaults to equality.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .deals import WORKERPOOL_STAKE_RATIO
from .errors import Mismatch
from .orders import (
    FRAMEWORKS,
    TEE,
    AppOrder,
    DatasetOrder,
    RequestOrder,
    WorkerpoolOrder,
    tag,
    tag_bits,
    tag_names,
)
from .types import ZERO, Address, Bytes32, format_rlc

Admits = Callable[[Address, Address], bool]


def admits_exactly(restriction: Address, account: Address) -> bool:
    """A restriction without groups: zero admits anyone, an address admits itself."""
    return restriction in (ZERO, account)


@dataclass(frozen=True, slots=True)
class Remaining:
    """Tasks left in each order: its volume less what the chain has consumed."""

    app: int
    dataset: int
    workerpool: int
    request: int


@dataclass(frozen=True, slots=True)
class Terms:
    """What four fitting orders agree on. Amounts are nRLC."""

    app_price: int
    dataset_price: int
    workerpool_price: int
    volume: int
    tag: Bytes32
    trust: int
    category: int

    @property
    def price(self) -> int:
        """What one task costs."""
        return self.app_price + self.dataset_price + self.workerpool_price

    @property
    def payer_lock(self) -> int:
        """What the payer locks."""
        return self.price * self.volume

    @property
    def scheduler_lock(self) -> int:
        """What the workerpool's owner locks: floored per task, then multiplied."""
        return self.workerpool_price * WORKERPOOL_STAKE_RATIO // 100 * self.volume


@dataclass(frozen=True, slots=True)
class Reason:
    """One constraint that fails. `code` is the contract's (0x00…0x60), `party` whose order or wish it is."""

    code: int
    party: str
    text: str


def _over(price: int, most: int) -> str:
    return f"{format_rlc(price - most)} above the maximum of {format_rlc(most)}"


def reasons(
    app: AppOrder,
    dataset: DatasetOrder | None,
    workerpool: WorkerpoolOrder,
    request: RequestOrder,
    remaining: Remaining | None = None,
    admits: Admits = admits_exactly,
) -> list[Reason]:
    """Every rule that fails, in the contract's order; empty when the orders fit."""
    data = dataset or DatasetOrder(dataset=ZERO, volume=0)
    wanted = tag_bits(app.tag) | tag_bits(data.tag) & ~FRAMEWORKS | tag_bits(request.tag)
    missing = wanted & ~tag_bits(workerpool.tag)
    pool, program, asker = workerpool.workerpool, app.app, request.requester
    left = remaining or Remaining(app.volume, data.volume, workerpool.volume, request.volume)
    restrictions = [
        (0x12, "request", request.workerpool, pool, "the requester asks for workerpool"),
        (0x13, "app", app.datasetrestrict, data.dataset, "the app's owner allows only dataset"),
        (0x14, "app", app.workerpoolrestrict, pool, "the app's owner allows only workerpool"),
        (0x15, "app", app.requesterrestrict, asker, "the app's owner allows only requester"),
        (0x16, "dataset", data.apprestrict, program, "the data owner allows only app"),
        (0x17, "dataset", data.workerpoolrestrict, pool, "the data owner allows only workerpool"),
        (0x18, "dataset", data.requesterrestrict, asker, "the data owner allows only requester"),
        (0x19, "workerpool", workerpool.apprestrict, program, "the workerpool allows only app"),
        (0x1A, "workerpool", workerpool.datasetrestrict, data.dataset, "the workerpool allows only dataset"),
        (0x1B, "workerpool", workerpool.requesterrestrict, asker, "the workerpool allows only requester"),
    ]
    found = [
        (
            0x00,
            "workerpool",
            request.category != workerpool.category,
            f"the workerpool offers category {workerpool.category}, asked for is {request.category}",
        ),
        (
            0x02,
            "workerpool",
            request.trust > workerpool.trust,
            f"the workerpool offers trust {workerpool.trust}, asked for is {request.trust}",
        ),
        (
            0x03,
            "app",
            request.appmaxprice < app.appprice,
            f"the app's price is {_over(app.appprice, request.appmaxprice)}",
        ),
        (
            0x04,
            "dataset",
            request.datasetmaxprice < data.datasetprice,
            f"the dataset's price is {_over(data.datasetprice, request.datasetmaxprice)}",
        ),
        (
            0x05,
            "workerpool",
            request.workerpoolmaxprice < workerpool.workerpoolprice,
            f"the workerpool's price is {_over(workerpool.workerpoolprice, request.workerpoolmaxprice)}",
        ),
        (0x06, "workerpool", bool(missing), f"the workerpool lacks tag {tag_names(tag(missing))}"),
        (
            0x07,
            "app",
            bool((wanted ^ tag_bits(app.tag)) & TEE),
            "a TEE is asked for, and the app's order does not say TEE",
        ),
        (0x10, "app", request.app != program, f"the request is for app {request.app}, not {program}"),
        (
            0x11,
            "dataset",
            request.dataset != data.dataset,
            f"the request is for dataset {request.dataset}, not {data.dataset}",
        ),
        *[
            (code, party, not admits(restriction, account), f"{text} {restriction}, not {account}")
            for code, party, restriction, account, text in restrictions
        ],
        (0x60, "app", left.app <= 0, "the app order's volume is used up"),
        (0x60, "dataset", dataset is not None and left.dataset <= 0, "the dataset order's volume is used up"),
        (0x60, "workerpool", left.workerpool <= 0, "the workerpool order's volume is used up"),
        (0x60, "request", left.request <= 0, "the request order's volume is used up"),
    ]
    return [Reason(code, party, text) for code, party, fails, text in found if fails]


def match(
    app: AppOrder,
    dataset: DatasetOrder | None,
    workerpool: WorkerpoolOrder,
    request: RequestOrder,
    remaining: Remaining | None = None,
    admits: Admits = admits_exactly,
) -> Terms:
    """What the four orders agree on.

    Raises Mismatch with every failing constraint. `remaining` defaults to the orders' whole volumes.
    """
    failing = reasons(app, dataset, workerpool, request, remaining, admits)
    if failing:
        texts = tuple(reason.text for reason in failing)
        raise Mismatch("the orders do not fit: " + "; ".join(texts), texts)
    left = remaining or Remaining(
        app.volume, dataset.volume if dataset else 0, workerpool.volume, request.volume
    )
    volumes = [left.app, left.workerpool, left.request] + ([left.dataset] if dataset else [])
    bits = tag_bits(app.tag) | (tag_bits(dataset.tag) & ~FRAMEWORKS if dataset else 0) | tag_bits(request.tag)
    return Terms(
        app_price=app.appprice,
        dataset_price=dataset.datasetprice if dataset else 0,
        workerpool_price=workerpool.workerpoolprice,
        volume=min(volumes),
        tag=tag(bits),
        trust=max(request.trust, 1),
        category=request.category,
    )
