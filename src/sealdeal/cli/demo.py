"""`sealdeal demo`: one whole deal on a network made for it, each of the nine steps as it happens.

The network is real in every part but the TEE's hardware, which is simulated. The data are the Wisconsin
breast-cancer records; the app trains a classifier on them and gives away its coefficients, never a row.
"""

from __future__ import annotations

import asyncio
import contextlib
import json as json_format
import secrets
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table

from sealdeal.model.errors import IntegrityError, NotFound
from sealdeal.model.keys import Key
from sealdeal.model.orders import Params
from sealdeal.model.results import generate_result_key
from sealdeal.model.types import RLC, Address, format_rlc, hexstr, unhex
from sealdeal.node import LocalNetwork
from sealdeal.sdk.assets import Published
from sealdeal.sdk.client import Sealdeal
from sealdeal.sdk.images import build_app_image
from sealdeal.sdk.pool import Attempt
from sealdeal.sdk.purse import Balance

from . import options, session
from .result import save_receipt
from .session import AsJson

demo = App(name="demo", help="Watch one whole deal on a network made for it.")

STEPS = (
    "Request",
    "Matching",
    "Deal",
    "Distribution",
    "Sealed execution",
    "Data",
    "Result",
    "Delivery",
    "Settlement",
)
APP_PRICE, DATA_PRICE = 2 * RLC, 3 * RLC
ALLOWANCE = {"requester": 100 * RLC, "app provider": 10 * RLC, "data provider": 10 * RLC}
"""What the faucet gives the people of the demo, in nRLC."""


@dataclass(frozen=True)
class Transaction:
    hash: str
    gas: int


@dataclass(frozen=True)
class Step:
    name: str
    seconds: float
    actor: str
    transactions: tuple[Transaction, ...] = ()


@dataclass
class Story:
    """What has happened so far, told as it happens: with colours at a terminal, else as plain lines."""

    console: Console
    client: Sealdeal
    """Asked what transactions cost."""
    steps: list[Step] = field(default_factory=list)
    since: float = field(default_factory=time.monotonic)

    def say(self, text: str) -> None:
        self.console.print(f"  {text}", highlight=False)

    async def done(self, actor: str, text: str, *hashes: bytes) -> None:
        """The next step has happened: tell it, with the transactions it took."""
        now = time.monotonic()
        spent, self.since = now - self.since, now
        name = STEPS[len(self.steps)]
        hub = self.client.hub
        moves = tuple([Transaction(hexstr(h), (await hub.receipt(h)).gas_used) for h in hashes])
        self.steps.append(Step(name, round(spent, 3), actor, moves))
        self.console.print(
            f"[bold]{len(self.steps)} {name:<16}[/] [cyan]{actor}[/]: {text} [dim]({spent:.2f} s)[/]",
            highlight=False,
        )
        for move in moves:
            self.console.print(f"    [dim]tx {move.hash}, {move.gas:,} gas[/]", highlight=False)


@demo.default
async def run(
    *,
    json: AsJson = False,
    keep: Annotated[Path | None, Parameter(help="Keep the network's state in this folder.")] = None,
) -> None:
    """Make a network, protect data, publish an app, buy a run, and show each step of the deal.

    The network is gone afterwards, unless `--keep` names a folder for its state; the receipt stays.
    """
    session.stop_on_signals()
    console = Console(quiet=json, soft_wrap=True)
    with contextlib.ExitStack() as stack:
        state = keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sealdeal-demo-")))
        began = time.monotonic()
        settings = session.settings()
        network = LocalNetwork(
            state,
            cache=settings.cache,
            anvil=settings.anvil,
            confirmations=settings.confirmations,
            worker=options.workers(settings),
        )
        async with network:
            console.print(f"[bold]A network of simulated TEEs[/] is up ({time.monotonic() - began:.1f} s)")
            for limit in network.missing:
                console.print(f"  not enforced on this machine: {limit}", highlight=False)
            document = await _deal(network, console)
    if json:
        print(json_format.dumps(document, indent=1))
    else:
        console.print(f"Receipt: {document['receipt']}", highlight=False)
        console.print(f"All of it took {time.monotonic() - began:.1f} s.")


async def _deal(network: LocalNetwork, console: Console) -> dict[str, Any]:
    people = {name: Key.generate(secrets.token_bytes) for name in ALLOWANCE}
    places: dict[str, Address] = {name: key.address for name, key in people.items()}
    places["workerpool operator"] = network.scheduler.key.address
    places |= {f"worker {n + 1}": key.address for n, key in enumerate(network.worker_keys())}
    async with contextlib.AsyncExitStack() as stack:

        async def client(key: Key) -> Sealdeal:
            made = Sealdeal(network.network, key, transports=network.transports)
            return await stack.enter_async_context(made)

        requester, provider, owner = [await client(key) for key in people.values()]
        story = Story(console, requester)
        await _fund(await client(Key(unhex(network.network.accounts["funder"]["key"]))), places)
        before = await _balances(requester, places)
        app, data = await _prepare(story, provider, owner, requester)
        private, key_text = await asyncio.to_thread(generate_result_key)
        await requester.share_result_key(key_text)
        await requester.deposit(50 * RLC)
        taskid = await _nine_steps(story, requester, app, data, places)
        fetched = await requester.result(taskid, private)
        result = json_format.loads(fetched.files["result.json"])
        if fetched.receipt is None:
            raise IntegrityError(f"no enclave stated anything about task {hexstr(taskid)}")
        receipt = save_receipt(fetched.receipt)
        await story.done(
            "requester", f"downloaded and decrypted {len(fetched.files)} files; the enclave's word holds"
        )
        await _settled(story, requester, taskid, places)
        after = await _balances(requester, places)
        _show_balances(console, before, after)
        _show_result(console, result)
        return {
            "trust": network.network.trust,
            "steps": [asdict(step) for step in story.steps],
            "balances": {n: {"before": before[n].total, "after": after[n].total} for n in places},
            "result": result,
            "receipt": str(receipt),
        }


async def _fund(faucet: Sealdeal, places: Mapping[str, Address]) -> None:
    for name, amount in ALLOWANCE.items():
        await faucet.faucet(places[name], amount)


async def _prepare(
    story: Story, provider: Sealdeal, owner: Sealdeal, requester: Sealdeal
) -> tuple[Published, Published]:
    """What happens before anyone asks for anything: an app is published, data are protected and granted."""
    folder = example("breast-cancer")
    image = await asyncio.to_thread(build_app_image, folder, cache=session.settings().cache)
    app = await provider.publish_app(image, price=APP_PRICE)
    story.say(
        f"app provider published {image.name} ({image.size >> 20} MiB, sha256 {image.checksum.hex()[:16]}…)"
    )
    records = (folder / "data" / "breast_cancer.csv").read_bytes()
    data = await owner.protect_dataset(records, name="Wisconsin breast cancer")
    await owner.grant(data.address, app=app.address, price=DATA_PRICE, requester=requester.key.address)
    story.say(
        f"data provider protected {len(records):,} bytes, split the key among nodes, granted this app alone"
    )
    return app, data


async def _nine_steps(
    story: Story, requester: Sealdeal, app: Published, data: Published, places: Mapping[str, Address]
) -> bytes:
    """Steps 1 to 7; the rest needs the result. Returns the task."""
    story.since = time.monotonic()
    request = await requester.request(
        app.address, dataset=data.address, params=Params(args="--folds 5", result_encryption=True)
    )
    await story.done("requester", f"asks for one run of the app on the data, order {hexstr(request)[:18]}…")
    deal = await requester.deal_of(request)
    await story.done("market", "four signed orders fit; simulated, and sent to the hub")
    matched = (await requester.market.deal(deal.dealid)).transaction_hash
    locked = f"{format_rlc(deal.price)} of the requester and the pool's stake"
    await story.done("hub contract", f"deal {hexstr(deal.dealid)[:18]}… checked, {locked} locked", matched)
    taskid = deal.task_ids()[0]
    await _follow(story, requester, taskid, {who: name for name, who in places.items()})
    return taskid


async def _follow(story: Story, requester: Sealdeal, taskid: bytes, names: Mapping[str, str]) -> None:
    """Steps 4 to 7, as the scheduler and the worker report them."""
    worker, initialised, quorum = "", b"", await _quorum(requester)
    async for event in requester.steps(taskid):
        who = names.get(event.worker or "", "worker")
        if event.kind == "task" and event.status == "INITIALIZED" and event.tx_hash:
            initialised = event.tx_hash
        if event.kind != "attempt":
            continue
        if event.status == Attempt.CREATED:
            again = f", attempt {event.attempt}" if (event.attempt or 1) > 1 else ""
            if len(story.steps) == 3:
                moves = [initialised] if initialised else []
                await story.done(
                    "scheduler", f"task {hexstr(taskid)[:18]}… assigned to {who}, signed{again}", *moves
                )
            worker = who
        elif event.step == "attested" and len(story.steps) == 4:
            await story.done(
                worker, "image fetched by digest; the guest made its keys inside and was attested"
            )
        elif event.step == "secrets" and len(story.steps) == 5:
            await story.done("SMS nodes", f"{quorum} released their shares of the key to this guest alone")
        elif event.status == Attempt.CONTRIBUTE_AND_FINALIZE_DONE:
            moves = [event.tx_hash] if event.tx_hash else []
            fault = f"; the app failed: {event.message}" if event.cause else ""
            await story.done(worker, f"digest signed by the guest's key, and on chain{fault}", *moves)
            return
        elif event.cause:
            story.say(f"{worker}: {event.cause}: {event.message}; it is tried again elsewhere")


async def _quorum(requester: Sealdeal) -> str:
    """`2 of 3`: how many SMS nodes it takes, of how many."""
    assert requester.quorum is not None
    return f"{await requester.quorum.threshold()} of {len(await requester.quorum.members())}"


async def _settled(story: Story, requester: Sealdeal, taskid: bytes, places: Mapping[str, Address]) -> None:
    """Step 9, told from the events of the transaction that settled the task."""
    names = {who: name for name, who in places.items()}
    (settling,) = story.steps[6].transactions
    paid = [
        f"{names.get(event['owner'], event['owner'])} {format_rlc(event['amount'])}"
        for event in (await requester.hub.receipt(unhex(settling.hash))).events
        if event.name == "Reward" and event["ref"] == taskid
    ]
    status = (await requester.hub.task(taskid)).status.name
    await story.done("hub contract", f"task {status}: paid {', '.join(paid)}", unhex(settling.hash))


async def _balances(client: Sealdeal, places: Mapping[str, Address]) -> dict[str, Balance]:
    found = await asyncio.gather(*(client.balance(who) for who in places.values()))
    return dict(zip(places, found, strict=True))


def _show_balances(console: Console, before: Mapping[str, Balance], after: Mapping[str, Balance]) -> None:
    table = Table(title="What everyone owns: wallet, stake and locked together", title_justify="left")
    table.add_column("actor")
    for heading in ("before", "after", "change"):
        table.add_column(heading, justify="right")
    changes = {name: after[name].total - before[name].total for name in before}
    for name, change in changes.items():
        table.add_row(name, format_rlc(before[name].total), format_rlc(after[name].total), format_rlc(change))
    table.add_section()
    table.add_row("sum of changes", "", "", format_rlc(sum(changes.values())))
    console.print(table)


def _show_result(console: Console, result: Mapping[str, Any]) -> None:
    console.print("[bold]Result[/], decrypted by the requester:")
    for name, value in result.items():
        text = json_format.dumps(value)
        console.print(f"  {name}: {text if len(text) < 90 else text[:87] + '…'}", highlight=False)


def example(name: str) -> Path:
    """An example's folder: in the installed package, or in the checkout. Raises NotFound."""
    here = Path(__file__).resolve()
    for root in (here.parents[1] / "examples", here.parents[3] / "examples"):
        if (root / name).is_dir():
            return root / name
    raise NotFound(f"the example {name} is not installed with this package")
