from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealdeal.model.errors import Mismatch
from sealdeal.model.matching import Remaining, Terms, match, reasons
from sealdeal.model.orders import (
    FRAMEWORKS,
    TEE,
    TEE_TDX,
    AppOrder,
    DatasetOrder,
    RequestOrder,
    WorkerpoolOrder,
    tag,
)
from sealdeal.model.types import RLC, ZERO, address

APP, DATA, POOL, ASKER, OTHER = (address(bytes([n]) * 20) for n in range(1, 6))


def fitting() -> dict[str, Any]:
    return {
        "app": AppOrder(app=APP, appprice=3 * RLC, volume=10, tag=tag(TEE_TDX)),
        "dataset": DatasetOrder(dataset=DATA, datasetprice=5 * RLC, volume=8, tag=tag(TEE)),
        "workerpool": WorkerpoolOrder(
            workerpool=POOL, workerpoolprice=40 * RLC, volume=6, tag=tag(TEE_TDX), trust=5
        ),
        "request": RequestOrder(
            app=APP,
            appmaxprice=3 * RLC,
            dataset=DATA,
            datasetmaxprice=5 * RLC,
            workerpoolmaxprice=40 * RLC,
            requester=ASKER,
            volume=4,
            tag=tag(TEE_TDX),
        ),
    }


def test_fitting_orders_agree_on_terms() -> None:
    terms = match(**fitting())
    assert terms == Terms(3 * RLC, 5 * RLC, 40 * RLC, 4, tag(TEE_TDX), 1, 0)
    assert terms.payer_lock == 4 * 48 * RLC
    assert terms.scheduler_lock == 4 * 12 * RLC


def test_the_least_volume_left_decides() -> None:
    assert match(**fitting(), remaining=Remaining(9, 2, 6, 4)).volume == 2


def test_without_a_dataset_its_volume_does_not_count() -> None:
    orders = fitting() | {"dataset": None}
    orders["request"] = replace(orders["request"], dataset=ZERO)
    assert match(**orders).price == 43 * RLC


@pytest.mark.parametrize(
    ("which", "change", "code", "says"),
    [
        ("workerpool", {"category": 3}, 0x00, "category 3"),
        ("request", {"trust": 6}, 0x02, "trust 5, asked for is 6"),
        ("app", {"appprice": 6 * RLC}, 0x03, "3 RLC above the maximum of 3 RLC"),
        ("dataset", {"datasetprice": 6 * RLC}, 0x04, "dataset's price is 1 RLC above"),
        ("workerpool", {"workerpoolprice": 43 * RLC}, 0x05, "workerpool's price is 3 RLC above"),
        ("workerpool", {"tag": tag(TEE)}, 0x06, "lacks tag tdx"),
        ("app", {"tag": tag(0)}, 0x07, "does not say TEE"),
        ("request", {"app": OTHER}, 0x10, "for app"),
        ("request", {"dataset": OTHER}, 0x11, "for dataset"),
        ("request", {"workerpool": OTHER}, 0x12, "asks for workerpool"),
        ("app", {"datasetrestrict": OTHER}, 0x13, "app's owner allows only dataset"),
        ("app", {"workerpoolrestrict": OTHER}, 0x14, "app's owner allows only workerpool"),
        ("app", {"requesterrestrict": OTHER}, 0x15, "app's owner allows only requester"),
        ("dataset", {"apprestrict": OTHER}, 0x16, f"data owner allows only app {OTHER}, not {APP}"),
        ("dataset", {"workerpoolrestrict": OTHER}, 0x17, "data owner allows only workerpool"),
        ("dataset", {"requesterrestrict": OTHER}, 0x18, "data owner allows only requester"),
        ("workerpool", {"apprestrict": OTHER}, 0x19, "workerpool allows only app"),
        ("workerpool", {"datasetrestrict": OTHER}, 0x1A, "workerpool allows only dataset"),
        ("workerpool", {"requesterrestrict": OTHER}, 0x1B, "workerpool allows only requester"),
        ("dataset", {"volume": 0}, 0x60, "dataset order's volume is used up"),
    ],
)
def test_each_rule_alone(which: str, change: dict[str, Any], code: int, says: str) -> None:
    orders = fitting()
    orders[which] = replace(orders[which], **change)
    (reason,) = reasons(**orders)
    assert reason.code == code
    assert says in reason.text
    with pytest.raises(Mismatch) as refused:
        match(**orders)
    assert refused.value.reasons == (reason.text,)


def test_every_reason_is_told_at_once() -> None:
    orders = fitting()
    orders["workerpool"] = replace(
        orders["workerpool"], workerpoolprice=50 * RLC, apprestrict=OTHER, category=1
    )
    assert [reason.code for reason in reasons(**orders)] == [0x00, 0x05, 0x19]


@given(st.integers(0, FRAMEWORKS))
def test_framework_bits_of_a_dataset_do_not_count(bits: int) -> None:
    orders = fitting()
    orders["dataset"] = replace(orders["dataset"], tag=tag(bits & FRAMEWORKS))
    assert match(**orders).tag == tag(TEE_TDX)


def test_a_group_may_admit() -> None:
    orders = fitting()
    orders["dataset"] = replace(orders["dataset"], apprestrict=OTHER)
    assert match(**orders, admits=lambda restriction, account: True).volume == 4
