"""Where our hub may answer otherwise than the official one: rows of docs/compatibility.md that calls reach.

The differential machine (test_differential.py) accepts these and nothing else. Each has an example, which a
test runs, so that none outlives its reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from sealdeal.model.orders import FRAMEWORKS, Kind, tag_bits
from sealdeal.model.types import keccak
from tests.contracts.chain import panic, text
from tests.contracts.differential import (
    Answers,
    Call,
    Difference,
    Name,
    Order,
    Outcome,
    Sign,
    SignedOrder,
)

HUB, TOKEN, ZERO, OWNER = Name("hub"), Name("token"), Name("zero"), Name("owner")
UNSUPPORTED = keccak(b"UnsupportedOperation(bytes4)")[:4]
MATCHES = ("matchOrders", "sponsorMatchOrders")
LONGEST = {
    "createCategory": 512,
    "createWorkerpool": 2048,
    "predictWorkerpool": 2048,
    "approveAndCall": 12288,
    "receiveApproval": 12288,
}
"""Bytes of a text or of data that ours takes, by function; 1024 elsewhere."""
LONGEST_PARAMS = 4096
TASKS, TRUST, SECONDS, GAS, RATIO = 2**24, 2**32, 2**31, 2**30, 2**16
"""What ours takes less than: tasks, trust, a category's seconds, gas of callbacks, a worker's stake (%)."""


def orders(call: Call, *kinds: Kind) -> list[Order]:
    """Orders among a call's arguments, those in operations included."""
    found = [a for arg in call.args for a in (arg if isinstance(arg, tuple) else (arg,))]
    return [a.order for a in found if isinstance(a, SignedOrder) and (not kinds or a.order.kind in kinds)]


def signs(thing: object) -> Iterator[Sign]:
    """Signatures among arguments."""
    if isinstance(thing, tuple | list):
        for item in thing:
            yield from signs(item)
    elif isinstance(thing, SignedOrder):
        yield from signs(thing.sign)
    elif isinstance(thing, Sign):
        yield thing


def is_too_long(call: Call) -> bool:
    texts = [a for a in call.args if isinstance(a, str | bytes) and not isinstance(a, Name)]
    return (
        any(len(t.encode() if isinstance(t, str) else t) > LONGEST.get(call.what, 1024) for t in texts)
        or any(sign.form == "1025 bytes" for sign in signs(call.args))
        or any(len(order["params"].encode()) > LONGEST_PARAMS for order in orders(call, Kind.REQUEST))
    )


def is_about_nobodys_signature(call: Call) -> bool:
    """Whether the zero address should have signed: as requester, as owner, or as the one who is asked for."""
    return (
        any(order["requester"] == ZERO for order in orders(call, Kind.REQUEST))
        or "says zero" in [order.asset for order in orders(call)]
        or (call.what.startswith("verify") and call.args[0] == ZERO)
    )


def framework_bits(call: Call) -> bool:
    concerned = (*MATCHES, "assertDatasetDealCompatibility")
    return call.what in concerned and any(
        tag_bits(order["tag"]) & FRAMEWORKS for order in orders(call, Kind.DATASET)
    )


def refuses(reason: str | None) -> Callable[[Answers], bool]:
    """Ours refuses with this text, or without data; the official one may do anything."""
    return lambda answers: answers.ours == Outcome(False, text(reason) if reason else b"")


def misses_a_signature(outcome: Outcome) -> bool:
    """Whether an outcome is that a signature does not count."""
    codes = [text(f"iExecV5-matchOrders-0x{code}") for code in ("21", "31", "41", "50")]
    others = [outcome == Outcome(True, bytes(32)), outcome.ok is False and b"signature" in outcome.data]
    return outcome.data in codes or any(others) or (not outcome.ok and not outcome.data)


def hub_holds_the_locked(answers: Answers) -> bool:
    """The official balance of the hub is ours and all that is frozen."""
    pair, official, ours = answers.pair, answers.official.data, answers.ours.data
    frozen = sum(pair.number("hub", "frozenOf", account) for account in pair.everyone())
    balances = [int.from_bytes(data[:32], "big") for data in (official, ours)]
    return official[32:] == ours[32:] and balances[0] == balances[1] + frozen


def sponsor_pays(answers: Answers) -> bool:
    """Ours seizes a boost deal's sponsor; the official one its requester, if it can."""
    [deal, *_] = answers.call.args
    view = answers.pair.view(Call(HUB, "viewDealBoost", (deal,))).data
    requester, sponsor = (answers.pair.sides[0].named(view[32 * i : 32 * (i + 1)]) for i in (6, 13))
    official, ours = answers.official, answers.ours
    if requester == sponsor:
        return False
    if official == Outcome(False, panic(17)):  # the requester has too little locked
        later = ("PocoBoost: Callback requires data", "PocoBoost: Not enough gas after callback")
        return ours.ok or ours.data in map(text, later)
    if not ours.ok:
        return False
    hub, topics, data = ours.logs[0]
    return data[:32] == sponsor and official.logs == ((hub, topics, requester + data[32:]), *ours.logs[1:])


def no_price_of_no_dataset(answers: Answers) -> bool:
    """Ours locks less for a boost deal, and all else is equal; or the official one cannot lock so much."""
    official, ours = answers.official, answers.ours
    return ours.ok and (not official.ok or official.logs[2:] == ours.logs[2:])


DIFFERENCES = (
    Difference(
        row="`receiveApproval` with data makes the match that they are the call of",
        concerns=lambda call: call.what in ("approveAndCall", "receiveApproval") and call.args[-1] != b"",
        allowed=lambda answers: (
            not answers.ours.ok and (answers.ours.data == b"" or answers.ours.data[:4] == UNSUPPORTED)
        ),
        example=lambda life: Call(TOKEN, "approveAndCall", (HUB, 0, b"x" * 100), OWNER),
    ),
    Difference(
        row="`balanceOf(hub)` is what anyone sent to that account",
        concerns=lambda call: (
            call.what in ("balanceOf", "viewAccount", "viewAccountABILegacy")
            and call.to == HUB == call.args[0]
        ),
        allowed=hub_holds_the_locked,
        example=lambda life: life.after_a_match(Call(HUB, "balanceOf", (HUB,))),
    ),
    Difference(
        row="Longest arguments, in bytes",
        concerns=is_too_long,
        allowed=refuses(None),
        example=lambda life: life.matching(("request.params", "x" * 4097)),
    ),
    Difference(
        row="The zero address signs nothing",
        concerns=is_about_nobodys_signature,
        allowed=lambda answers: misses_a_signature(answers.ours),
        example=lambda life: life.matching(
            ("request.requester", "zero"), ("request.sign", "junk"), function="sponsorMatchOrders"
        ),
    ),
    Difference(
        row="An account with code may also sign with its key",
        concerns=lambda call: any(sign.signer == "delegated" for sign in signs(call.args)),
        allowed=lambda answers: misses_a_signature(answers.official),
        example=lambda life: life.matching(
            ("request.requester", "delegated"), ("request.signer", "delegated")
        ),
    ),
    Difference(
        row="Bits 1 to 3 (the TEE frameworks) of a dataset order's tag are ignored",
        concerns=framework_bits,
        allowed=lambda answers: (
            answers.official.data == text("iExecV5-matchOrders-0x06")
            or b"Tag compatibility" in answers.official.data
        ),
        example=lambda life: life.matching(("dataset.tag", 8), dataset=0),
        leaves_a_trace=True,
    ),
    Difference(
        row="The tasks of one request order, all its deals together, stay below 2^24, trust below 2^32",
        concerns=lambda call: (
            call.what in MATCHES
            and any(o["volume"] >= TASKS or o["trust"] >= TRUST for o in orders(call, Kind.REQUEST))
        ),
        allowed=refuses("deals: volume above 2**24 or trust above 2**32"),
        example=lambda life: life.matching(("both.trust", TRUST)),
    ),
    Difference(
        row="time references below 2^31 s",
        concerns=lambda call: call.what == "createCategory" and call.args[2] >= SECONDS,
        allowed=refuses("settings: time reference above 2**31 seconds"),
        example=lambda life: Call(HUB, "createCategory", ("", "", SECONDS), OWNER),
    ),
    Difference(
        row="gas of callbacks below 2^30",
        concerns=lambda call: call.what == "setCallbackGas" and call.args[0] >= GAS,
        allowed=refuses("settings: callback gas above 2**30"),
        example=lambda life: Call(HUB, "setCallbackGas", (GAS,), OWNER),
    ),
    Difference(
        row="A worker's stake ratio above 65535 % is refused",
        concerns=lambda call: call.what == "changePolicy" and call.args[0] >= RATIO,
        allowed=refuses("WorkerpoolRegistry: stake ratio above 65535"),
        example=lambda life: Call(
            Name("pool#0"), "changePolicy(uint256,uint256)", (RATIO, 1), Name("scheduler")
        ),
    ),
    Difference(
        row="Of a boost deal that another sponsors, the sponsor is seized",
        concerns=lambda call: call.what == "pushResultBoost",
        allowed=sponsor_pays,
        example=lambda life: life.pushing(sponsored=True),
    ),
    Difference(
        row="A boost deal without a dataset locks no price for one",
        concerns=lambda call: (
            call.what in ("matchOrdersBoost", "sponsorMatchOrdersBoost")
            and any(o.asset == ZERO and o["datasetprice"] for o in orders(call, Kind.DATASET))
        ),
        allowed=no_price_of_no_dataset,
        example=lambda life: life.matching(
            ("dataset.datasetprice", 1), ("request.datasetmaxprice", 1), function="matchOrdersBoost"
        ),
    ),
    Difference(
        row="Calldata that end before an argument of any length does",
        concerns=lambda call: (
            call.spoil != "" and re.search(r"bytes\b|string|\[\]", call.signature) is not None
        ),
        allowed=lambda answers: answers.official == Outcome(False, b""),
        example=lambda life: Call(HUB, "initializeArray", ([], []), OWNER, spoil="a byte less"),
    ),
)
