"""A random life on two hubs: rules that chances.py lives, each giving calls to both (differential.py)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from sealdeal.model.deals import authorisation_message, deal_id, result_hash, result_seal, task_id
from sealdeal.model.eip712 import digest
from sealdeal.model.keys import message_digest
from sealdeal.model.orders import Kind, tag
from sealdeal.model.types import RLC, address_bytes, keccak
from tests.contracts import draws
from tests.contracts.chances import Lived, any_of, coin, each, maybe, rule, several
from tests.contracts.differences import is_too_long
from tests.contracts.differential import (
    PARTS,
    SPOILS,
    STRANGER,
    Call,
    Calldata,
    Name,
    Order,
    Outcome,
    Pair,
    Sign,
    SignedOrder,
    TokenId,
    hub_functions,
)
from tests.contracts.draws import (
    ACCOUNTS,
    DATA,
    HUB,
    PEOPLE,
    RESTRICTIONS,
    RESULTS,
    TOKEN,
    WORKERS,
    ZERO,
    Draft,
    Share,
    Terms,
    flaws,
    indices,
    parts,
    people,
    results,
    told,
    workers,
)

ENTRIES = {
    "app": ("createApp(address,string,string,bytes,bytes32,bytes)", "apps"),
    "dataset": ("createDataset(address,string,bytes,bytes32)", "datasets"),
    "pool": ("createWorkerpool(address,string)", "pools"),
}
ENTRY_VIEWS = {
    "app": ("m_appName", "m_appType", "m_appMultiaddr", "m_appChecksum", "m_appMREnclave"),
    "dataset": ("m_datasetName", "m_datasetMultiaddr", "m_datasetChecksum"),
    "pool": ("m_workerpoolDescription", "m_workerStakeRatioPolicy", "m_schedulerRewardRatioPolicy"),
}
HUB_VIEW = {"app": "viewApp", "dataset": "viewDataset", "pool": "viewWorkerpool"}

OPERATIONS = {
    Kind.APP: "0638bb0702457e2b4b01be8a202579b8bf97e587fb4f2cc4d4aad01f21a06ee0",
    Kind.DATASET: "075eb6f7578ff4292c241bd2484cd5c1d5e6ecc2ddd3317e1d8176b5a45865ec",
    Kind.WORKERPOOL: "322d980b7d7a6a1f7c39ff0c5445da6ae1d8e0393ff0dd468c8be3e2c8644388",
    Kind.REQUEST: "0ded7b52c2d77595a40d242eca751df172b18e686326dbbed3f4748828af77c7",
}
"""EIP-712 types of operations (poco.md §4)."""


@dataclass
class Entry:
    name: Name
    kind: str
    owner: str


@dataclass
class Deal:
    name: Name
    first: int
    size: int
    scheduler: str
    trust: int
    tee: bool
    callback: bool
    boost: bool

    @property
    def indices(self) -> range:
        """A boost deal counts its tasks from zero."""
        return range(self.size) if self.boost else range(self.first, self.first + self.size)


@dataclass
class Task:
    name: Name
    deal: Deal
    index: int


UNSET, ACTIVE, REVEALING, COMPLETED, FAILED = range(5)
MATCHES = ("matchOrders", "sponsorMatchOrders", "matchOrdersBoost", "sponsorMatchOrdersBoost")


def names(thing: Any) -> Iterator[Name]:
    """All names among arguments."""
    if isinstance(thing, Name):
        yield thing
    elif isinstance(thing, TokenId):
        yield thing.entry
    elif isinstance(thing, SignedOrder):
        yield thing.order.name
    elif isinstance(thing, tuple | list):
        for item in thing:
            yield from names(item)


class Life(Lived):
    """What happens on two hubs."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.undone = self.pair.undone()
        self.undone.__enter__()
        self.entries = {
            kind: [Entry(Name(f"{kind}#0"), kind, owner)]
            for kind, owner in (("app", "app"), ("dataset", "dataset"), ("pool", "scheduler"))
        }
        self.fours: list[dict[str, SignedOrder]] = []
        """Orders that were matched, or tried, by part."""
        self.deals: list[Deal] = []
        self.tasks: list[Task] = []
        self.broker = "zero"
        self.salts = 0
        self.about: dict[Name, list[Call]] = {}
        """Name -> the questions whose answers a call that names it may change."""
        self.questions: list[Call] = []
        self.asked = 0
        for function, (_, kind) in hub_functions().items():
            if (
                kind != "nonpayable"
                and "()" in hub_functions()[function][0]
                and not self.pair.missing(function)
            ):
                self.question(HUB, function)
        for account in ACCOUNTS:
            self.about_account(Name(account))
        for registry in ("apps", "datasets", "pools"):
            for view in ("owner", "previous", "initialized", "baseURI", "name", "symbol", "totalSupply"):
                self.question(Name(registry), f"{view}()")
        for entries in self.entries.values():
            self.about_entry(entries[0])
        for interface in ("01ffc9a7", "1f931c1c", "48e2b093", "7f5828d0", "80ac58cd", "ffffffff"):
            for at in ("apps", "datasets", "pools") + (
                ("hub",) * (not self.pair.missing("supportsInterface"))
            ):
                self.question(Name(at), "supportsInterface(bytes4)", bytes.fromhex(interface))
        for category in (0, 1, 2, 3):
            for view in ("viewCategory", "viewCategoryABILegacy"):
                self.question(HUB, view, category)

    def end(self) -> None:
        try:
            if not self.pair.failed:
                for question in self.questions:
                    self.pair.ask(question)
        finally:
            self.undone.__exit__(None, None, None)

    # ---- Questions

    def question(self, to: Name, function: str, *args: Any, about: tuple[Name, ...] = ()) -> None:
        call = Call(to, function, args)
        self.questions.append(call)
        for name in about:
            self.about.setdefault(name, []).append(call)

    def about_account(self, account: Name) -> None:
        for view in ("viewAccount", "balanceOf", "frozenOf", "viewScore", "viewAccountABILegacy"):
            self.question(HUB, view, account)
        self.question(TOKEN, "balanceOf(address)", account)
        for spender in ("hub", "stranger", "requester", "says true"):
            self.question(HUB, "allowance", account, Name(spender))
        self.question(TOKEN, "allowance(address,address)", account, HUB)
        for registry in ("apps", "datasets", "pools"):
            self.question(Name(registry), "balanceOf(address)", account)
            for place in (0, 1):
                self.question(Name(registry), "tokenOfOwnerByIndex(address,uint256)", account, place)

    def about_entry(self, entry: Entry) -> None:
        name, registry = entry.name, Name(ENTRIES[entry.kind][1])
        for view in (*ENTRY_VIEWS[entry.kind], "owner", "registry"):
            self.question(name, f"{view}()", about=(name,))
        for view in HUB_VIEW.values():
            self.question(HUB, view, name, about=(name,))
        self.question(registry, "isRegistered(address)", name, about=(name,))
        for view in ("ownerOf", "getApproved"):
            self.question(registry, f"{view}(uint256)", TokenId(name), about=(name,))
        self.question(registry, "tokenByIndex(uint256)", len(self.entries[entry.kind]) - 1, about=(name,))

    def about_order(self, name: Name) -> None:
        for view in ("viewConsumed", "viewPresigned"):
            self.question(HUB, view, name, about=(name,))
        for account in ("requester", "app", "zero"):
            self.question(HUB, "verifyPresignature", Name(account), name, about=(name,))

    def about_deal(self, deal: Name) -> None:
        for view in ("viewDeal", "viewDealABILegacy_pt1", "viewDealABILegacy_pt2", "viewConfigABILegacy"):
            self.question(HUB, view, deal, about=(deal,))
        if not self.pair.missing("viewDealBoost"):
            self.question(HUB, "viewDealBoost", deal, about=(deal,))

    def about_task(self, task: Name) -> None:
        for view in ("viewTask", "viewTaskABILegacy", "resultFor"):
            self.question(HUB, view, task, about=(task,))
        for worker in (*WORKERS, "stranger"):
            for view in ("viewContribution", "viewContributionABILegacy"):
                self.question(HUB, view, task, Name(worker), about=(task,))

    # ---- Acting

    def act(
        self, to: Name, function: str, *args: Any, sender: Name, value: int = 0, spoil: str = ""
    ) -> Outcome:
        return self.give(Call(to, function, args, sender, value, spoil))

    def give(self, call: Call) -> Outcome:
        """Give a call to both, then ask what it may have changed, and some of everything else."""
        call = replace(
            call, args=tuple(self.amount(call, a) if isinstance(a, Share) else a for a in call.args)
        )
        outcome = self.pair.both(call)
        for name in {*names(call.args), call.sender, call.to}:
            for question in self.about.get(name, ()):
                self.pair.ask(question)
        for account in (*PEOPLE, "kitty", "delegated", "meddler"):
            self.pair.ask(Call(HUB, "viewAccount", (Name(account),)))
        for _ in range(20):
            self.asked = (self.asked + 1) % len(self.questions)
            self.pair.ask(self.questions[self.asked])
        return outcome

    def amount(self, call: Call, share: Share) -> int:
        of_token = call.to == TOKEN or call.what in ("deposit", "depositFor", "receiveApproval")
        payer = call.args[0] if call.what in ("transferFrom", "receiveApproval") else call.sender
        return share.amount(self.pair.number("token" if of_token else "hub", "balanceOf(address)", payer))

    # ---- Escrow and settings

    @rule(6, call=draws.escrow)
    def move_money(self, call: Call) -> None:
        self.give(call)

    @rule(2, call=draws.settings)
    def change_settings(self, call: Call) -> None:
        if call.to == HUB and self.pair.missing(call.what):
            return
        if self.give(call).ok and call.what == "setTeeBroker":
            self.broker = call.args[0]

    # ---- Registries

    @rule(
        1,
        kind=any_of(sorted(ENTRIES)),
        owner=people,
        text=any_of(("", "new", "newer", "x" * 1024, "x" * 1025)),
        sender=people,
    )
    def create(self, kind: str, owner: Name, text: str, sender: Name) -> None:
        function, registry = ENTRIES[kind]
        args = {
            "app": (owner, text, "DOCKER", b"/ipfs/x", b"\1" * 32, b"y" * 33),
            "dataset": (owner, text, b"z" * 70, bytes(32)),
            "pool": (owner, text),
        }[kind]
        self.about_prediction(kind, args)
        name = Name(f"{kind} {text[:6]}{len(text)} of {owner}")
        if self.act(Name(registry), function, *args, sender=sender).ok and name in self.pair.sides[0].values:
            self.entries[kind].append(Entry(name, kind, owner))
            self.about_entry(self.entries[kind][-1])

    def about_prediction(self, kind: str, args: tuple[Any, ...]) -> None:
        """Learn where an entry will be: which the call to create it will be compared with."""
        function, registry = ENTRIES[kind]
        predict = Call(Name(registry), function.replace("create", "predict"), args)
        if not is_too_long(predict):
            self.pair.define(
                f"{kind} {args[1][:6]}{len(args[1])} of {args[0]}",
                lambda side: side.chain.call(side.at(registry), predict.data(side), side.at("stranger"))[12:],
            )

    @rule(
        2,
        kind=any_of(sorted(ENTRIES)),
        i=indices,
        sender=maybe(people, 0.4),
        to=draws.accounts,
        what=any_of(("transferFrom", "safeTransferFrom", "approve", "setApprovalForAll")),
        source=maybe(people, 0.4),
    )
    def sell(self, kind: str, i: int, sender: Name | None, to: Name, what: str, source: Name | None) -> None:
        entry = pick(self.entries[kind], i)
        sender, source = sender or sendable(entry.owner), source or Name(entry.owner)
        registry, token = Name(ENTRIES[kind][1]), TokenId(entry.name)
        match what:
            case "approve":
                self.act(registry, "approve(address,uint256)", to, token, sender=sender)
            case "setApprovalForAll":
                self.act(registry, "setApprovalForAll(address,bool)", to, i % 2 == 0, sender=sender)
            case _:
                function = f"{what}(address,address,uint256)"
                if self.act(registry, function, source, to, token, sender=sender).ok:
                    entry.owner = to

    @rule(
        1,
        i=indices,
        sender=maybe(people, 0.4),
        stake=any_of((0, 1, 30, 35, 100, 250, 65_535, 65_536, 2**256 - 1)),
        ratio=any_of((0, 1, 5, 99, 100, 101, 2**256 - 1)),
    )
    def change_policy(self, i: int, sender: Name | None, stake: int, ratio: int) -> None:
        pool = pick(self.entries["pool"], i)
        self.act(
            pool.name, "changePolicy(uint256,uint256)", stake, ratio, sender=sender or sendable(pool.owner)
        )

    # ---- Orders

    def owner_of(self, asset: str) -> str:
        for entries in self.entries.values():
            for entry in entries:
                if entry.name == asset:
                    return entry.owner
        return "requester" if asset == "says an owner" else "stranger"

    def make(self, draft: Draft) -> dict[str, SignedOrder]:
        """Four signed orders by their parts."""
        t = draft.terms
        old: dict[str, SignedOrder] = {}
        if draft.again is not None and self.fours:
            before = pick(self.fours, draft.again)
            old = {part: signed for part, signed in before.items() if part not in draft.anew}
        app = pick(self.entries["app"], t.app).name
        dataset = ZERO if t.dataset is None else pick(self.entries["dataset"], t.dataset).name
        pool = pick(self.entries["pool"], t.pool).name
        price = dict(zip(("app", "dataset", "pool"), t.prices, strict=True))
        if dataset == ZERO:
            price["dataset"] = 0
        common = {"tag": tag(int(t.tee))}
        fields: dict[str, dict[str, Any]] = {
            "app": {"app": app, "appprice": price["app"], **common},
            "dataset": {"dataset": dataset, "datasetprice": price["dataset"], "tag": tag(0)},
            "pool": {
                "workerpool": pool,
                "workerpoolprice": price["pool"],
                "category": t.category,
                "trust": t.trust,
                **common,
            },
            "request": {
                "app": app,
                "appmaxprice": 2**256 - 1 if t.generous else price["app"],
                "dataset": dataset,
                "datasetmaxprice": 2**256 - 1 if t.generous else price["dataset"],
                "workerpool": ZERO,
                "workerpoolmaxprice": 2**256 - 1 if t.generous else price["pool"],
                "requester": Name(t.requester),
                "category": t.category,
                "trust": t.trust,
                "beneficiary": Name(t.requester),
                "callback": Name(t.callback),
                "params": "",
                **common,
            },
        }
        for (part, given), volume in zip(fields.items(), t.volumes, strict=True):
            given["volume"] = volume
            for restriction in RESTRICTIONS[part]:
                given.setdefault(restriction, ZERO)
        signing: dict[str, dict[str, Any]] = {part: {} for part in fields}
        for path, value in draft.changed:
            where, name = path.split(".")
            for part in [p for p in fields if where in (p, "both")]:
                if name in ("sign", "signer"):
                    signing[part][name] = value
                elif name in fields[part]:
                    fields[part][name] = self.meant(fields, part, name, value)
        four = {}
        for kind, part in PARTS.items():
            order = old[part].order if part in old else self.order(kind, fields[part])
            four[part] = old[part] if part in old and not signing[part] else self.sign(order, **signing[part])
        if four not in self.fours:
            self.fours.append(four)
        return four

    @staticmethod
    def meant(fields: dict[str, dict[str, Any]], part: str, name: str, value: Any) -> Any:
        """A drawn value as an order's field takes it."""
        if name == "tag":
            return tag(value)
        if value == "fits":
            fitting = {"app": "app", "dataset": "dataset", "requester": "requester"}
            of = fitting.get(name.removesuffix("restrict"))
            return fields["request"][of] if of else fields["pool"]["workerpool"]
        return Name(value) if isinstance(value, str) and name != "params" else value

    def order(self, kind: Kind, fields: dict[str, Any]) -> Order:
        """One with a salt of its own."""
        self.salts += 1
        name = Name(f"{PARTS[kind]}order#{self.salts}")
        order = Order(name, kind, tuple({**fields, "salt": tag(self.salts)}.items()))
        self.pair.define(name, lambda side: digest(side.world.domain, order.model(side)))
        self.about_order(name)
        return order

    def owner_of_order(self, order: Order) -> str:
        return order["requester"] if order.kind is Kind.REQUEST else self.owner_of(order.asset)

    def sign(self, order: Order, sign: str = "plain", signer: str | None = None) -> SignedOrder:
        """Signed by whom it should be signed by, unless said otherwise."""
        if order.kind is Kind.DATASET and order.asset == ZERO and sign == "plain":
            return SignedOrder(order, b"")
        return SignedOrder(order, Sign(signer or signer_of(self.owner_of_order(order)), order.name, sign))

    def next_deal(self, request: Order) -> tuple[Name, int]:
        """The deal that a match of this request would make, and its first task."""
        first = self.pair.number("hub", "viewConsumed", request.name)
        name = f"deal({request.name}, {first})"
        return self.pair.define(name, lambda side: deal_id(side.values[request.name], first)), first

    def matching(self, *changed: tuple[str, Any], function: str = "matchOrders", **terms: Any) -> Call:
        """A match of fitting orders but for these changes."""
        four = self.make(Draft(Terms(**terms), changed))
        self.next_deal(four["request"].order)
        return Call(HUB, function, tuple(four.values()), Name("sponsor"))

    def pushing(self, *, sponsored: bool) -> Call:
        """The result of a boost deal's task that was just matched."""
        function = "sponsorMatchOrdersBoost" if sponsored else "matchOrdersBoost"
        self.settle(function, self.make(Draft()), Name("sponsor"))
        task = self.task_of(self.deals[-1], 0)
        authorisation = self.contribution(task, "worker", b"", None)[-1]
        args = (task.deal.name, 0, b"", b"", authorisation, ZERO, b"")
        return Call(HUB, "pushResultBoost", args, Name("worker"))

    def after_a_match(self, call: Call) -> Call:
        """This call, when tokens are locked."""
        self.pair.both(self.matching())
        return call

    @rule(5, function=any_of(MATCHES), sender=people, draft=draws.drafts)
    def match(self, function: str, sender: Name, draft: Draft) -> None:
        """Match orders that may not fit, or were matched before."""
        function = "matchOrders" if self.pair.missing(function) else function
        self.settle(function, self.make(for_boost(draft) if "Boost" in function else draft), sender)

    def settle(self, function: str, four: dict[str, SignedOrder], sender: Name) -> None:
        """Match these orders, and remember the deal."""
        deal, first = self.next_deal(four["request"].order)
        self.about_deal(deal)
        self.pair.ask(Call(HUB, "computeDealVolume", tuple(four.values())))
        scheduler = self.owner_of(four["pool"].order.asset)
        outcome = self.act(HUB, function, *four.values(), sender=sender)
        for question in self.about[deal]:
            self.pair.ask(question)
        self.remember(deal, first, four, scheduler, outcome, boost=function.endswith("Boost"))

    def remember(
        self,
        deal: Name,
        first: int,
        four: dict[str, SignedOrder],
        scheduler: str,
        outcome: Outcome,
        *,
        boost: bool,
    ) -> None:
        if not outcome.ok:
            return
        request = four["request"].order
        matched = next(data for _, topics, data in outcome.logs if topics[0] == MATCHED)
        tagged = [part for part, signed in four.items() if signed.order["tag"][-1] & 1]
        self.deals.append(
            Deal(
                name=deal,
                first=first,
                size=int.from_bytes(matched[-32:], "big"),
                scheduler=scheduler,
                trust=max(1, request["trust"]),
                tee=bool({"app", "dataset", "request"} & set(tagged)),
                callback=request["callback"] != ZERO,
                boost=boost,
            )
        )

    @rule(2, draft=draws.drafts, amount=any_of((0, 1, 43 * RLC, 2**255)))
    def deposit_and_match(self, draft: Draft, amount: int) -> None:
        """The requester's `approveAndCall` of the base token, whose data are the match: as 6.2.0 has it."""
        four = self.make(draft)
        payer = four["request"].order["requester"]
        if payer not in PEOPLE:
            return
        deal, first = self.next_deal(four["request"].order)
        scheduler = self.owner_of(four["pool"].order.asset)
        matched = Call(HUB, "matchOrders", tuple(four.values()), payer)
        deposit = Call(TOKEN, "approveAndCall(address,uint256,bytes)", (HUB, amount, b""), payer)
        together = replace(deposit, args=(HUB, amount, Calldata(matched)))
        outcome = self.pair.joined((deposit, matched), together, OPERATION_FAILED)
        self.remember(deal, first, four, scheduler, outcome, boost=False)

    @rule(4, terms=draws.terms, boost=coin, sender=people, begun=any_of((True, True, True, False)))
    def deal(self, terms: Terms, boost: bool, sender: Name, begun: bool) -> None:
        """A deal of orders that fit, its tasks begun."""
        made = len(self.deals)
        function = (
            "matchOrdersBoost" if boost and not self.pair.missing("matchOrdersBoost") else "matchOrders"
        )
        self.settle(function, self.make(Draft(terms)), sender)
        for deal in self.deals[made:]:
            for index in deal.indices if begun and not deal.boost else ():
                self.initialize(deal, index, sender)

    @rule(
        3,
        part=parts,
        operation=any_of((0, 0, 1, 1, 2)),
        draft=draws.drafts,
        sender=maybe(people, 0.4),
        signer=maybe(draws.people_or_delegated, 0.4),
        form=draws.mostly_plain,
        unsigned=coin,
    )
    def manage(
        self,
        part: str,
        operation: int,
        draft: Draft,
        sender: Name | None,
        signer: Name | None,
        form: str,
        unsigned: bool,
    ) -> None:
        """Sign or close an order on chain: as its owner (no sender told), or with a signature.

        Then match it, perhaps without a signature.
        """
        four = self.make(draft)
        signed = four[part]
        order, owner = signed.order, self.owner_of_order(signed.order)
        operation_type = bytes.fromhex(OPERATIONS[order.kind])
        name = self.pair.define(
            f"operation {operation} on {order.name}",
            lambda side: keccak(
                b"\x19\x01"
                + side.world.domain.separator
                + keccak(operation_type + order.model(side).struct_hash() + operation.to_bytes(32, "big"))
            ),
        )
        sign = Sign(signer or signer_of(owner), name, form)
        function = next(f for f in hub_functions() if f.lower() == f"manage{order.kind}order")
        self.act(HUB, function, (signed, operation, sign), sender=sender or sendable(owner))
        if unsigned:
            four = {**four, part: SignedOrder(order, b"")}
        self.settle("matchOrders", four, sender or STRANGER)

    @rule(1, part=parts, draft=draws.drafts, sender=people)
    def broadcast(self, part: str, draft: Draft, sender: Name) -> None:
        signed = self.make(draft)[part]
        function = next(f for f in hub_functions() if f.lower() == f"broadcast{signed.order.kind}order")
        self.act(HUB, function, signed, sender=sender)

    @rule(
        1,
        when=lambda life: life.fours,
        i=indices,
        part=parts,
        identity=maybe(draws.accounts),
        signer=maybe(draws.people_or_delegated, 0.4),
        form=draws.mostly_plain,
    )
    def verify(self, i: int, part: str, identity: Name | None, signer: Name | None, form: str) -> None:
        """Ask whether somebody signed."""
        order = pick(self.fours, i)[part].order
        identity = identity or signer or Name("wallet")
        sign = Sign(signer or signer_of(identity), order.name, form)
        for view in ("verifySignature", "verifyPresignatureOrSignature"):
            self.pair.ask(Call(HUB, view, (identity, order.name, sign)))

    @rule(2, when=lambda life: life.deals, draft=draws.drafts, i=indices)
    def check_compatibility(self, draft: Draft, i: int) -> None:
        """Might this dataset order join that deal?"""
        terms = replace(draft.terms, dataset=draft.terms.dataset or 0)
        four = self.make(replace(draft, terms=terms))
        name = pick([deal.name for deal in self.deals] + [four["request"].order.name], i)
        self.pair.ask(Call(HUB, "assertDatasetDealCompatibility", (four["dataset"], name)))

    # ---- Tasks

    def status(self, task: Task) -> int:
        return self.pair.number("hub", "viewTaskABILegacy", task.name)

    def deadline(self, task: Task, which: int) -> int:
        """Contribution, reveal, or final: 0, 1, 2."""
        view = self.pair.view(Call(HUB, "viewTaskABILegacy", (task.name,)))
        return int.from_bytes(view.data[32 * (4 + which) : 32 * (5 + which)], "big")

    def in_status(self, *statuses: int) -> list[Task]:
        return [task for task in self.tasks if self.status(task) in statuses] or self.tasks

    def task_of(self, deal: Deal, index: int) -> Task:
        name = self.pair.define(
            f"task({deal.name}, {index})", lambda side: task_id(side.values[deal.name], index)
        )
        return Task(name, deal, index)

    def begun(self, deal: Deal, index: int) -> None:
        task = self.task_of(deal, index)
        if task.name not in [known.name for known in self.tasks]:
            self.tasks.append(task)
            self.about_task(task.name)

    @rule(2, when=lambda life: life.deals, i=indices, index=any_of(range(-1, 5)), sender=people)
    def initialize_task(self, i: int, index: int, sender: Name) -> None:
        deal = pick(self.deals, i)
        self.initialize(deal, max(0, deal.first + index), sender)

    def initialize(self, deal: Deal, index: int, sender: Name) -> None:
        self.task_of(deal, index)
        if self.act(HUB, "initialize", deal.name, index, sender=sender).ok:
            self.begun(deal, index)

    @rule(
        2,
        when=lambda life: life.deals,
        given=several(each(indices, any_of(range(3))), 0, 3),
        odd=any_of((False, False, False, True)),
        sender=people,
        claimed=coin,
    )
    def initialize_tasks(self, given: Any, odd: bool, sender: Name, claimed: bool) -> None:
        """Several at once, of any deals; or initialise and claim them, when all are late."""
        chosen = [(pick(self.deals, i), index) for i, index in given]
        chosen = [(deal, deal.first + index) for deal, index in chosen]
        for deal, idx in chosen:
            self.task_of(deal, idx)
        if claimed and given:
            self.pair.wait(10 * 3600)
        function = "initializeAndClaimArray" if claimed else "initializeArray"
        places = [idx for _, idx in chosen] + [0] * odd
        if self.act(HUB, function, [deal.name for deal, _ in chosen], places, sender=sender).ok:
            for deal, idx in chosen:
                self.begun(deal, idx)

    def contribution(
        self, task: Task, worker: str, data: bytes, flaw: str | None
    ) -> tuple[bytes, Name, Name, Name, Any, Any]:
        """Digest, result hash, seal, enclave, its signature, authorisation."""
        digest_, at = keccak(data), task.name
        claimed = keccak(b"another") if flaw == "digest" else digest_
        enclave = "enclave" if task.deal.tee or flaw == "enclave without need" else "zero"
        if flaw == "enclave missing":
            enclave = "zero"
        elif flaw in ("enclave wallet", "enclave says magic", "enclave says nothing", "enclave reverts"):
            enclave = flaw.removeprefix("enclave ")

        def hash_of(d: bytes) -> Name:
            return self.pair.define(
                f"hash({at}, {d.hex()[:8]})", lambda side: result_hash(side.values[at], d)
            )

        def seal_of(d: bytes, w: str) -> Name:
            return self.pair.define(
                f"seal({w}, {at}, {d.hex()[:8]})",
                lambda side: result_seal(side.at(w), side.values[at], d),
            )

        hashed = hash_of(keccak(b"another") if flaw == "hash" else claimed)
        seal = seal_of(claimed, "stranger" if flaw == "seal" else worker)
        attested = self.pair.define(
            f"attestation({hashed}, {seal})",
            lambda side: message_digest(keccak(side.values[hashed] + side.values[seal])),
        )
        meant = "worker" if flaw == "for another enclave" else enclave
        authorised = self.pair.define(
            f"authorisation({worker}, {at}, {meant})",
            lambda side: message_digest(
                authorisation_message(side.at(worker), side.values[at], side.at(meant))
            ),
        )
        authoriser = task.deal.scheduler if enclave == "zero" or self.broker == "zero" else self.broker
        if flaw == "another's authorisation":
            authoriser = "stranger"
        signer = "stranger" if flaw == "not the enclave's signature" else enclave
        sign = Sign(signer, attested) if enclave != "zero" else b""
        authorisation = Sign(authoriser, authorised, "empty" if flaw == "no authorisation" else "plain")
        # These the hub may compute for itself.
        hash_of(digest_)
        seal_of(digest_, "stranger" if flaw == "sender" else worker)
        what, _, form = (flaw or "").partition(": ")
        if what == "attestation" and isinstance(sign, Sign):
            sign = replace(sign, form=form)
        if what == "authorisation":
            authorisation = replace(authorisation, form=form)
        return digest_, hashed, seal, Name(enclave), sign, authorisation

    @rule(4, when=lambda life: life.tasks, i=indices, worker=workers, data=told, flaw=flaws)
    def contribute(self, i: int, worker: str, data: bytes, flaw: str | None) -> None:
        self.contribute_to(pick(self.in_status(ACTIVE), i), worker, data, flaw)

    def contribute_to(self, task: Task, worker: str, data: bytes, flaw: str | None = None) -> None:
        _, hashed, seal, enclave, sign, authorisation = self.contribution(task, worker, data, flaw)
        sender = Name("stranger" if flaw == "sender" else worker)
        args = (task.name, hashed, seal, enclave, sign, authorisation)
        self.act(HUB, "contribute", *args, sender=sender)

    @rule(
        4,
        when=lambda life: life.tasks,
        i=indices,
        worker=workers,
        data=told,
        results=results,
        told=maybe(any_of((*DATA, b"x" * 1024, b"x" * 1025)), 0.3),
        flaw=flaws,
    )
    def contribute_and_finalize(
        self, i: int, worker: str, data: bytes, results: bytes, told: bytes | None, flaw: str | None
    ) -> None:
        self.finish_alone(pick(self.in_status(ACTIVE), i), worker, data, results, told, flaw)

    def finish_alone(
        self,
        task: Task,
        worker: str,
        data: bytes,
        results: bytes,
        told: bytes | None = None,
        flaw: str | None = None,
    ) -> None:
        digest_, _, _, enclave, sign, authorisation = self.contribution(task, worker, data, flaw)
        if told is None:
            told = data if task.deal.callback else b""
        sender = Name("stranger" if flaw == "sender" else worker)
        args = (task.name, digest_, results, told, enclave, sign, authorisation)
        self.act(HUB, "contributeAndFinalize", *args, sender=sender)

    @rule(2, when=lambda life: life.tasks, i=indices, worker=any_of((*WORKERS, "stranger")), data=told)
    def reveal(self, i: int, worker: str, data: bytes) -> None:
        self.act(HUB, "reveal", pick(self.in_status(REVEALING), i).name, keccak(data), sender=Name(worker))

    @rule(1, when=lambda life: life.tasks, i=indices, sender=maybe(people, 0.3))
    def reopen(self, i: int, sender: Name | None) -> None:
        task = pick(self.in_status(REVEALING), i)
        self.act(HUB, "reopen", task.name, sender=sender or sendable(task.deal.scheduler))

    @rule(
        3,
        when=lambda life: life.tasks,
        i=indices,
        results=results,
        told=maybe(any_of((*DATA, b"x" * 1025)), 0.3),
        sender=maybe(people, 0.3),
    )
    def finalize(self, i: int, results: bytes, told: bytes | None, sender: Name | None) -> None:
        task = pick(self.in_status(REVEALING), i)
        self.finish(task, results, told, sender)

    def finish(
        self, task: Task, results: bytes, told: bytes | None = None, sender: Name | None = None
    ) -> None:
        if told is None:
            digest_ = self.pair.view(Call(HUB, "viewTask", (task.name,))).data[32 * 12 : 32 * 13]
            known = {keccak(data): data for data in DATA}
            told = known.get(digest_, b"") if task.deal.callback else b""
        args = (task.name, results, told)
        self.act(HUB, "finalize", *args, sender=sender or sendable(task.deal.scheduler))

    @rule(
        8,
        when=lambda life: life.tasks,
        i=indices,
        workers=several(any_of(range(5)), 1, 6),
        data=any_of(DATA[:2]),
        alone=coin,
        silent=coin,
    )
    def go_on(self, i: int, workers: tuple[int, ...], data: bytes, alone: bool, silent: bool) -> None:
        """Whatever a task needs next, done well, a few times: so that lives come to their ends."""
        task = pick(self.in_status(ACTIVE, REVEALING), i)
        for worker in workers:
            self.next_step(task, worker, data, alone)
        if silent and self.status(task) == REVEALING and self.deadline(task, 1) > self.pair.time:
            self.pair.until(self.deadline(task, 1))
            self.act(HUB, "reopen", task.name, sender=sendable(task.deal.scheduler))

    @rule(0.3, worker=any_of(WORKERS[:2]), tasks=any_of((5, 13, 20)), wrong=coin)
    def career(self, worker: str, tasks: int, wrong: bool) -> None:
        """Many replicated tasks, done well, so that scores rise; the last, perhaps, falsely by one."""
        made = len(self.deals)
        terms = Terms(trust=3, volumes=(tasks,) * 4, prices=(0, 0, 0))
        self.settle("matchOrders", self.make(Draft(terms)), STRANGER)
        for deal in self.deals[made:]:
            for index in deal.indices:
                self.initialize(deal, index, STRANGER)
                task = self.task_of(deal, index)
                last = wrong and index == deal.indices[-1]
                for who, data in ((worker, DATA[last]), ("worker3", DATA[0]), ("worker4", DATA[0])):
                    self.contribute_to(task, who, data)
                for who in ("worker3", "worker4", worker):
                    self.act(HUB, "reveal", task.name, keccak(DATA[0]), sender=Name(who))
                self.finish(task, b"")

    def next_step(self, task: Task, worker: int, data: bytes, alone: bool) -> None:
        standing = {
            w: self.pair.number("hub", "viewContributionABILegacy", task.name, Name(w)) for w in WORKERS
        }
        if self.status(task) == ACTIVE:
            fresh = [w for w in WORKERS if standing[w] == 0]
            if alone and task.deal.trust == 1 and len(fresh) == len(WORKERS):
                self.finish_alone(task, WORKERS[worker], data, RESULTS[1])
            elif fresh:
                self.contribute_to(task, fresh[worker % len(fresh)], data)
        elif self.status(task) == REVEALING:
            consensus = self.pair.view(Call(HUB, "viewTask", (task.name,))).data[32 * 8 : 32 * 9]
            for w in (w for w in WORKERS if standing[w] == 1):
                contributed = self.pair.view(Call(HUB, "viewContribution", (task.name, Name(w)))).data[32:64]
                if contributed == consensus:
                    for known in DATA:
                        self.act(HUB, "reveal", task.name, keccak(known), sender=Name(w))
                    return
            self.finish(task, RESULTS[1])

    @rule(
        2,
        when=lambda life: life.tasks,
        given=several(indices, 0, 3),
        sender=people,
        alone=coin,
        late=any_of((-1, 0, 0, None)),
    )
    def claim(self, given: tuple[int, ...], sender: Name, alone: bool, late: int | None) -> None:
        """Claim some tasks, perhaps around the last one's final deadline."""
        tasks = [pick(self.in_status(ACTIVE, REVEALING), i) for i in given]
        if late is not None and tasks:
            self.pair.until(max([self.pair.time + 1, *(self.deadline(task, 2) + late for task in tasks)]))
        chosen = [task.name for task in tasks]
        if alone and chosen:
            self.act(HUB, "claim", chosen[0], sender=sender)
        else:
            self.act(HUB, "claimArray", chosen, sender=sender)

    # ---- Boost

    def boosts(self) -> list[Deal]:
        return [deal for deal in self.deals if deal.boost]

    @rule(
        6,
        when=lambda life: life.boosts(),
        i=indices,
        index=any_of((0, 0, 0, 1, 2)),
        worker=workers,
        results=results,
        told=told,
        flaw=flaws,
    )
    def push_result(
        self, i: int, index: int, worker: str, results: bytes, told: bytes, flaw: str | None
    ) -> None:
        deal = pick(self.boosts(), i)
        task = self.task_of(deal, index)
        if task.name not in self.about:
            self.about_task(task.name)
        _, _, _, enclave, sign, authorisation = self.contribution(task, worker, told, flaw)
        if enclave != ZERO:
            content = told if deal.callback else results
            content = b"another" if flaw == "digest" else content
            attested = self.pair.define(
                f"boost attestation({worker}, {task.name}, {keccak(content).hex()[:8]})",
                lambda side: message_digest(
                    keccak(address_bytes(side.at(worker)) + side.values[task.name] + keccak(content))
                ),
            )
            sign = replace(sign, message=attested)
        sender = Name("stranger" if flaw == "sender" else worker)
        args = (deal.name, index, results, told, authorisation, enclave, sign)
        self.act(HUB, "pushResultBoost", *args, sender=sender)

    @rule(
        3,
        when=lambda life: life.boosts(),
        i=indices,
        index=any_of((0, 0, 0, 1, 2)),
        sender=people,
        late=any_of((-1, 0, 0, None)),
    )
    def claim_boost(self, i: int, index: int, sender: Name, late: int | None) -> None:
        """Claim, perhaps around the deadline."""
        deal = pick(self.boosts(), i)
        self.task_of(deal, index)
        if late is not None:
            view = self.pair.view(Call(HUB, "viewDealBoost", (deal.name,))).data
            deadline = int.from_bytes(view[32 * 9 : 32 * 10], "big")
            self.pair.until(max(deadline + late, self.pair.time + 1))
        self.act(HUB, "claimBoost", deal.name, index, sender=sender)

    # ---- Time, and calls that nobody would make

    @rule(1, seconds=any_of((1, 60, 300, 700, 1200)))
    def wait(self, seconds: int) -> None:
        self.pair.wait(seconds)

    @rule(2, when=lambda life: life.tasks, i=indices, which=any_of((0, 1, 2)), offset=any_of((-1, 0, 1)))
    def wait_for_deadline(self, i: int, which: int, offset: int) -> None:
        deadline = self.deadline(pick(self.in_status(ACTIVE, REVEALING), i), which) + offset
        if self.pair.time < deadline < self.pair.time + 10**7:
            self.pair.until(deadline)

    @rule(
        1,
        which=any_of(("transfer", "allow", "array", "deposit", "text", "match", "view", "owner")),
        spoil=any_of(sorted(SPOILS)),
        value=any_of((0, 0, 1)),
        i=indices,
    )
    def spoilt(self, which: str, spoil: str, value: int, i: int) -> None:
        calls: dict[str, tuple[Any, ...]] = {
            "transfer": ("transfer", Name("stranger"), 1),
            "allow": ("allowance", Name("requester"), HUB),
            "array": ("initializeArray", [], []),
            "deposit": ("depositForArray", [0], [Name("stranger")]),
            "text": ("createCategory", "name", "description", 60),
            "view": ("viewAccount", Name("requester")),
            "owner": ("setTeeBroker", ZERO),
        }
        if which == "match" and self.fours:
            four = pick(self.fours, i)
            self.next_deal(four["request"].order)
            calls["match"] = ("matchOrders", *four.values())
        function, *args = calls.get(which, calls["transfer"])
        sender = Name("owner") if which in ("text", "owner") else Name("requester")
        if self.act(HUB, function, *args, sender=sender, value=value, spoil=spoil).ok and which == "owner":
            self.broker = "unknown"


OPERATION_FAILED = keccak(b"OperationFailed()")[:4]
MATCHED = keccak(b"OrdersMatched(bytes32,bytes32,bytes32,bytes32,bytes32,uint256)")


def pick(items: Any, i: int) -> Any:
    """One of them, the newest first."""
    return items[-1 - i % len(items)]


def signer_of(account: str) -> str:
    """Whose key speaks for an account: a delegated one is asked as a wallet."""
    return "wallet" if account == "delegated" else account


def for_boost(draft: Draft) -> Draft:
    """Boost knows no trust."""
    return replace(draft, terms=replace(draft.terms, trust=min(1, draft.terms.trust)))


def sendable(account: str) -> Name:
    """Who sends what this account would: contracts but the wallet send nothing."""
    return Name(account if account in PEOPLE else "stranger")
