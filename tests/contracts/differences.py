"""Where our hub may answer otherwise than the official one: rows of docs/compatibility.md that calls reach.

The differential machine (test_differential.py) accepts these and nothing else. Each has an example, which a
test runs, so that none outlives its reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from sealdeal.model.orders import FRAMEWORKS, Kind, tag_bits
from tests.contracts.chain import text
from tests.contracts.differential import (
    Call,
    Difference,
    Name,
    Order,
    Outcome,
    Pair,
    Sign,
    SignedOrder,
    TokenId,
)

if TYPE_CHECKING:
    pass

HUB, ZERO, OWNER = Name("hub"), Name("zero"), Name("owner")
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
TASKS, TRUST, SECONDS, GAS, RATIO = 2**24, 2**32, 2**31, 2**32, 2**16
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


def refuses(reason: str | None) -> Callable[[Outcome, Outcome, Pair], bool]:
    """Ours refuses with this text, or without data; the official one may do anything."""
    return lambda _, ours, __: ours == Outcome(False, text(reason) if reason else b"")


def misses_a_signature(outcome: Outcome) -> bool:
    """Whether an outcome is that a signature does not count."""
    codes = [text(f"iExecV5-matchOrders-0x{code}") for code in ("21", "31", "41", "50")]
    others = [outcome == Outcome(True, bytes(32)), outcome.ok is False and b"signature" in outcome.data]
    return outcome.data in codes or any(others) or (not outcome.ok and not outcome.data)


def hub_holds_the_locked(official: Outcome, ours: Outcome, pair: Pair) -> bool:
    """The official balance of the hub is ours and all that is frozen."""
    frozen = sum(pair.number("hub", "frozenOf", account) for account in pair.everyone())
    official_balance, our_balance = (int.from_bytes(o.data[:32], "big") for o in (official, ours))
    return official.data[32:] == ours.data[32:] and official_balance == our_balance + frozen


DIFFERENCES = (
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
        allowed=lambda official, ours, _: misses_a_signature(ours),
        example=lambda life: life.matching(
            ("request.requester", "zero"), ("request.sign", "junk"), function="sponsorMatchOrders"
        ),
    ),
    Difference(
        row="An account with code may also sign with its key",
        concerns=lambda call: any(sign.signer == "delegated" for sign in signs(call.args)),
        allowed=lambda official, ours, _: misses_a_signature(official),
        example=lambda life: life.matching(
            ("request.requester", "delegated"), ("request.signer", "delegated")
        ),
    ),
    Difference(
        row="Bits 1 to 3 (the TEE frameworks) of a dataset order's tag are ignored",
        concerns=framework_bits,
        allowed=lambda official, ours, _: (
            official.data == text("iExecV5-matchOrders-0x06") or b"Tag compatibility" in official.data
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
        row="gas of callbacks below 2^32",
        concerns=lambda call: call.what == "setCallbackGas" and call.args[0] >= GAS,
        allowed=refuses("settings: callback gas above 2**32"),
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
)

UNDECIDED = (
    Difference(
        row="Calldata that end before an argument of any length does",
        concerns=lambda call: (
            call.spoil != "" and re.search(r"bytes\b|string|\[\]", call.signature) is not None
        ),
        allowed=lambda official, _, __: official == Outcome(False, b""),
        example=lambda life: Call(HUB, "initializeArray", ([], []), OWNER, spoil="a byte less"),
    ),
    Difference(
        row="A receiver of tokens that says more than a bytes4",
        concerns=lambda call: call.what == "safeTransferFrom" and call.args[1] == "says received and more",
        allowed=refuses("ERC721: transfer to non ERC721Receiver implementer"),
        example=lambda life: Call(
            Name("apps"),
            "safeTransferFrom(address,address,uint256)",
            (Name("app"), Name("says received and more"), TokenId(Name("app#0"))),
            Name("app"),
        ),
    ),
)
"""Found and told, undecided: a row, or the official behaviour? Each has a test that fails until then."""
