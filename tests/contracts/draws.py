"""What a life on two hubs (life.py) is drawn from: calls, orders, and what may be wrong with them.

Most of what is drawn would succeed, so that lives get somewhere: orders fit but for a few drawn changes, a
contribution is good but for a drawn flaw. Values sit at the edges of what is packed, compared or divided.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from random import Random
from typing import Any

from sealdeal.model.types import RLC
from tests.contracts.chances import Draw, any_of, coin, each, just, made, maybe, one_of, several
from tests.contracts.differential import FORMS, PARTS, Call, Name
from tests.contracts.world import POOL_PRICE

HUB, TOKEN, ZERO = Name("hub"), Name("token"), Name("zero")

WORKERS = ("worker", "worker2", "worker3", "worker4", "sponsor")
PEOPLE = (*WORKERS, "requester", "app", "dataset", "scheduler", "stranger", "owner", "wallet")
CONTRACTS = (
    *("recorder", "meddler", "burns", "reverts", "reverts with text", "group of all", "group of nobody"),
    *("says magic", "says magic and more", "says magic twice", "says four bytes", "says nothing"),
    *("says zero", "says true", "says two", "says an owner", "says received", "says received and more"),
)
ACCOUNTS = (*PEOPLE, "zero", "hub", "kitty", "token", "apps", "delegated", "enclave", *CONTRACTS)
GROUPS = (
    *("fits", "group of all", "group of nobody", "stranger", "says true", "says zero", "says two"),
    *("says nothing", "says four bytes", "reverts", "says magic twice"),
)
"""What a restriction may name; "fits" is what it has to admit."""
CALLBACKS = ("zero", "zero", "recorder", "meddler", "stranger", "burns", "reverts", "says nothing")
HUGE = (2**64 - 1, 2**64, 2**96, 2**255, 2**256 - 1)
PRICES = (
    *((3 * RLC, 5 * RLC, 40 * RLC), (0, 0, 0), (1, 1, 1), (0, 0, 13_000_000_007), (7, 0, 999_999_999)),
    *((RLC, 1, POOL_PRICE + 1), (123_456_789, 10**15, 33)),
)
AMOUNTS = (0, 1, RLC, 40 * RLC, 10**12, *HUGE)
TAGS = (0, 1, 2, 3, 8, 9, 1 << 4, 1 << 8, 1 << 128, 1 << 200, 2**256 - 1)
TRUSTS = (0, 1, 2, 3, 4, 5, 8, 9, 2**32 - 1, 2**32, 2**256 - 1)
VOLUMES = (0, 1, 2, 3, 10, 255, 256, 2**16, 2**24 - 1, 2**24, 2**256 - 1)


class Row(bytes):
    """Many equal bytes, told as such."""

    def __repr__(self) -> str:
        return f"{self[:1]!r} * {len(self)}" if self else "b''"


RESULTS = (
    *(b"", b"a result", b"\xef\x00", b"\x00", *(Row(b"x" * length) for length in (31, 32, 33, 1024))),
    b'{ "storage": "ipfs", "location": "/ipfs/QmRcJ8o7nYEnNJ8o7nYEnNJ8o7nYEnNJ8o7nYEnNJ8o7nY" }',
    b'{ "storage": "ipfs", "location": "/ipfs/Qm" }',
    b'{ "storage": "ipfs", "location": "/ipfs/Qm" } ',
    b'{ "storage": "ipfs", "location": "/ipfs/Qm0123456789012345678901234567890123456789" ]',
    b'{ "storage": "dropbox", "location": "/ipfs/Qm0123456789012345678901234567890123456789" }',
)
DATA = (b"data 0", b"data 1", b"")
"""What a callback is told; a result's digest is the hash of one of them."""


@dataclass(frozen=True)
class Share:
    """An amount as it is drawn: of what the payer will have."""

    of: str

    def amount(self, balance: int) -> int:
        return {"half": balance // 2, "all": balance, "one more than all": balance + 1}[self.of]

    def __repr__(self) -> str:
        return self.of


class Told:
    """A dataclass that tells what in it is not as usual."""

    def __repr__(self) -> str:
        told = [
            f"{field.name}={getattr(self, field.name)!r}"
            for field in fields(self)  # type: ignore[arg-type]
            if getattr(self, field.name) != field.default
        ]
        return f"{type(self).__name__}({', '.join(told)})"


def named(values: Iterable[str]) -> Draw:
    return any_of([Name(value) for value in values])


people, accounts = named(PEOPLE), named(ACCOUNTS)
people_or_delegated = named((*PEOPLE, "delegated"))
indices = any_of(range(8))
forms = any_of(FORMS)
mostly_plain = one_of(just("plain"), just("plain"), forms)
amounts = any_of((0, 1, RLC, *HUGE, *3 * tuple(map(Share, ("half", "all", "one more than all")))))


# ---- Orders ------------------------------------------------------------------------------------------------

RESTRICTIONS = {
    "app": ("datasetrestrict", "workerpoolrestrict", "requesterrestrict"),
    "dataset": ("apprestrict", "workerpoolrestrict", "requesterrestrict"),
    "pool": ("apprestrict", "datasetrestrict", "requesterrestrict"),
    "request": ("workerpool",),
}
ASSETS = ("stranger", "zero", "hub", "says an owner", "says zero", "app#0", "dataset#0", "pool#0")
"""What may stand where an asset should."""
SIGNERS = ("stranger", "requester", "wallet", "delegated")


def change(where: str, name: str, values: Sequence[Any]) -> list[Draw]:
    """For each of these orders: ("order.field", one of the values)."""
    return [each(just(f"{part}.{name}"), any_of(values)) for part in where.split()]


changes = (
    *(draw for part, names in RESTRICTIONS.items() for name in names for draw in change(part, name, GROUPS)),
    *change("app dataset pool request", "tag", TAGS),
    *change("app dataset pool request", "volume", VOLUMES),
    *change("app dataset pool request", "sign", list(FORMS)),
    *change("app dataset pool request", "signer", SIGNERS),
    *change("pool request both", "category", (0, 1, 2, 3, 2**256 - 1)),
    *change("pool request both", "trust", TRUSTS),
    *change("app", "appprice", AMOUNTS),
    *change("dataset", "datasetprice", AMOUNTS),
    *change("pool", "workerpoolprice", AMOUNTS),
    *change("request", "appmaxprice", AMOUNTS),
    *change("request", "datasetmaxprice", AMOUNTS),
    *change("request", "workerpoolmaxprice", AMOUNTS),
    *change("app request both", "app", ASSETS),
    *change("dataset request both", "dataset", ASSETS),
    *change("pool", "workerpool", ASSETS),
    *change("request", "params", ("", "{}", "x" * 31, "é" * 40, "y" * 4096)),
    *change("request", "requester", ("zero", "stranger", "says magic", "says nothing", "reverts")),
    *change("request", "beneficiary", ("zero", "stranger", "hub")),
)


@dataclass(frozen=True, repr=False)
class Terms(Told):
    """Four orders that fit, before anything in them is changed."""

    app: int = 0
    dataset: int | None = None
    pool: int = 0
    requester: str = "requester"
    volumes: tuple[int, int, int, int] = (1, 1, 1, 1)
    prices: tuple[int, int, int] = PRICES[0]
    generous: bool = False
    """Whether the request would pay anything."""
    tee: bool = False
    category: int = 0
    trust: int = 0
    callback: str = "zero"


small = any_of((1, 1, 1, 2, 3))
terms = made(
    Terms,
    app=indices,
    dataset=maybe(indices),
    pool=indices,
    requester=any_of(("requester", "requester", "sponsor", "wallet", "delegated", "scheduler")),
    volumes=each(small, small, small, small),
    prices=any_of(PRICES),
    generous=coin,
    tee=coin,
    category=any_of((0, 0, 1, 2)),
    trust=any_of((0, 1, 1, 1, 2, 3, 5)),
    callback=any_of(CALLBACKS),
)


@dataclass(frozen=True, repr=False)
class Draft(Told):
    """Four orders to be made."""

    terms: Terms = Terms()
    changed: tuple[tuple[str, Any], ...] = ()
    """("request.trust", 2) and the like, after all was made to fit; "both" is every order that has it."""
    again: int | None = None
    """Take up these orders that were there before …"""
    anew: tuple[str, ...] = ()
    """… but for these parts."""


parts = any_of(PARTS.values())
drafts = made(
    Draft,
    terms=terms,
    changed=several(one_of(*changes), 0, 2),
    again=maybe(indices, 0.3),
    anew=several(parts, 0, 2),
)


# ---- Calls that need nothing of what came before -----------------------------------------------------------


def calls(to: Draw | Name, function: str, *args: Any, sender: Draw = people) -> Draw:
    """Calls of one function; draws stand for what is drawn."""
    draws = [arg if callable(arg) else just(arg) for arg in args]
    where = to if callable(to) else just(to)
    return lambda random: Call(where(random), function, each(*draws)(random), sender(random))


def arrays(function: str) -> Draw:
    """Amounts and targets, as many of both, or not."""
    items = several(each(any_of((0, 1, RLC, 10**14)), accounts), 0, 3)

    def draw(random: Random) -> Call:
        chosen = items(random)
        given = [amount for amount, _ in chosen] + [1] * (random.random() < 0.2)
        return Call(HUB, function, (given, [target for _, target in chosen]), people(random))

    return draw


tokens = any_of((HUB, TOKEN))
spenders = one_of(just(HUB), accounts)
owner_or_not = named(("owner", "owner", "owner", "stranger"))

escrow = one_of(
    calls(HUB, "deposit", amounts),
    calls(HUB, "withdraw", amounts),
    calls(HUB, "depositFor", amounts, accounts),
    calls(HUB, "withdrawTo", amounts, accounts),
    arrays("depositForArray"),
    calls(tokens, "transfer(address,uint256)", accounts, amounts),
    calls(tokens, "transferFrom(address,address,uint256)", people, accounts, amounts),
    calls(tokens, "approve(address,uint256)", spenders, amounts),
    calls(TOKEN, "approve(address,uint256)", HUB, 10**15),
    calls(HUB, "increaseAllowance", accounts, amounts),
    calls(HUB, "decreaseAllowance", accounts, any_of((0, 0, 1, RLC, 2**256 - 1))),
    calls(
        tokens,
        "approveAndCall(address,uint256,bytes)",
        spenders,
        amounts,
        any_of((b"", b"\1", b"x" * 100)),
    ),
    calls(TOKEN, "approveAndCall(address,uint256,bytes)", HUB, any_of((0, 1, RLC)), b""),
    calls(HUB, "receiveApproval", people, any_of((0, 1, RLC, 10**15)), any_of((TOKEN, TOKEN, HUB)), b""),
    calls(HUB, "recover", sender=owner_or_not),
)
"""Everything that moves money without a deal."""

brokers = named(("zero", "broker", "broker", "wallet", "says magic", "reverts", "says nothing"))
registries = named(("apps", "datasets", "pools"))
first_entries = named(("app#0", "dataset#0", "pool#0"))
gas = any_of((0, 50_000, 100_000, 200_000, 2_000_000, 2_000_000, 2**30 - 1, 2**30, 2**256 - 1))
settings = one_of(
    calls(HUB, "setTeeBroker", brokers, sender=owner_or_not),
    calls(HUB, "setTeeBroker", brokers, sender=owner_or_not),
    calls(HUB, "setCallbackGas", gas, sender=owner_or_not),
    calls(HUB, "setCallbackGas", 2_000_000, sender=owner_or_not),
    calls(
        HUB,
        "createCategory",
        any_of(("", "XS", "x" * 512, "x" * 513)),
        any_of(("", "é", "x" * 512)),
        any_of((0, 1, 60, 2**31 - 1, 2**31, 2**256 - 1)),
        sender=owner_or_not,
    ),
    calls(HUB, "transferOwnership", named(("owner", "owner", "stranger", "zero"))),
    calls(HUB, "updateDomainSeparator"),
    calls(HUB, "configure", TOKEN, "", "", 9, *[ZERO] * 4, sender=owner_or_not),
    calls(HUB, "importScore", people),
    calls(HUB, "changeRegistries", Name("apps"), Name("datasets"), Name("pools"), sender=owner_or_not),
    calls(registries, "setBaseURI(string)", any_of(("", "https://a/")), sender=owner_or_not),
    calls(registries, "setName(address,string)", accounts, "x", sender=owner_or_not),
    calls(registries, "initialize(address)", ZERO, sender=owner_or_not),
    calls(registries, "transferOwnership(address)", accounts, sender=owner_or_not),
    calls(registries, "renounceOwnership()", sender=owner_or_not),
    calls(first_entries, "setName(address,string)", accounts, "x"),
)
"""What owners decide, and what nobody may."""

# ---- Contributions -----------------------------------------------------------------------------------------

FLAWS = (
    *("hash", "seal", "digest", "sender", "no authorisation", "another's authorisation"),
    *("for another enclave", "enclave missing", "not the enclave's signature", "enclave without need"),
    *("enclave wallet", "enclave says magic", "enclave says nothing", "enclave reverts"),
    *(f"authorisation: {form}" for form in FORMS),
    *(f"attestation: {form}" for form in FORMS),
)
"""What is wrong, or unusual, with a contribution."""
flaws = maybe(any_of(FLAWS), 0.4)
workers, told, results = map(any_of, (WORKERS, DATA, RESULTS))
