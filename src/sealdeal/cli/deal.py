"""`sealdeal deal`: buy runs, and look at deals."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from cyclopts import App

from sealdeal.model.deals import Deal
from sealdeal.model.errors import Conflict, InvalidInput
from sealdeal.model.orders import TEE_TDX, Params, tag_names
from sealdeal.model.types import ZERO, address, bytes32, format_rlc, hexstr, parse_rlc
from sealdeal.sdk.client import Quote, Sealdeal

from . import session
from .session import AsJson, WalletName, Words
from .task import follow
from .wallet import share_result_key

deal = App(name="deal", help="Buy runs and look at deals.")


@deal.command
async def run(
    app: str,
    *,
    dataset: str = ZERO,
    args: str = "",
    category: int = 0,
    volume: int = 1,
    batch: bool = False,
    secret: Words = (),
    max_price: str | None = None,
    slippage: int = 0,
    matcher: str | None = None,
    unpublished: bool = False,
    encrypt: bool = True,
    seal: bool = False,
    wait: bool = True,
    timeout: float = 300,
    wallet: WalletName = None,
    json: AsJson = False,
) -> None:
    """Ask for runs of an app, wait for the deal, and follow its first task to the end.

    Parameters
    ----------
    app
        The app's address.
    dataset
        The dataset it shall run on.
    args
        Arguments for the app, split like a shell's.
    category
        Size of the task: 0 XS (5 min), 1 S (20 min), 2 M (1 h), 3 L (3 h), 4 XL (10 h).
    volume
        How many tasks.
    batch
        Have them settled many at a time, by a workerpool that offers it: for large bags.
    secret
        `N=NAME`: the app finds the wallet's secret of that name in IEXEC_REQUESTER_SECRET_N. May be repeated.
    max_price
        Refuse when one task costs more RLC than this, all together.
    slippage
        Per cent that it may cost more than now, should prices rise before it is matched.
    matcher
        Account that alone, but for this wallet, may match the request.
    unpublished
        Show the request to nobody: this wallet matches it with the offers itself.
    encrypt
        Encrypt the result for this wallet's result key, which is made if there is none.
    seal
        Let neither the digest on chain nor the size of the result tell what is in it: for short results.
    wait
        Wait for the first task's end.
    timeout
        Seconds to wait for the deal, and then for the task.
    """
    if seal and not encrypt:
        raise InvalidInput("a result that is not encrypted can't be sealed: leave out --no-encrypt")
    secrets = dict(_numbered(word) for word in secret)
    async with session.connected(session.unlock(wallet)) as client:
        program, data = address(app), address(dataset)
        quote: Quote = await client.quote(
            program, dataset=data, category=category, volume=volume, batch=batch
        )
        if max_price is not None and (most := quote.raised(slippage).price) > parse_rlc(max_price):
            raise Conflict(f"one task may cost {format_rlc(most)} now, above your maximum of {max_price}")
        if encrypt:
            await share_result_key(client, wallet or session.settings().wallet)
        request = await client.request(
            program,
            dataset=data,
            params=Params(args=args, result_encryption=encrypt, secrets=secrets, sealed_digest=seal),
            category=category,
            volume=volume,
            max_prices=quote,
            batch=batch,
            slippage=slippage,
            matcher=address(matcher) if matcher is not None else None,
            unpublished=unpublished,
        )
        made = await client.deal_of(request, timeout=timeout)
        taskid = made.task_ids()[0]
        if not json:
            print(f"deal {hexstr(made.dealid)}: {made.bot_size} task(s) at {format_rlc(made.price)} each")
        if wait:
            await follow(client, taskid, quiet=json, timeout=timeout)
        answer = {
            "deal": hexstr(made.dealid),
            "request": hexstr(request),
            "tasks": [hexstr(task) for task in made.task_ids()],
            "price": format_rlc(made.price),
            "next": f"sealdeal result get {hexstr(taskid)}",
        }
        session.show(answer, as_json=json)


@deal.command
async def quote(
    app: str,
    *,
    dataset: str = ZERO,
    category: int = 0,
    volume: int = 1,
    json: AsJson = False,
) -> None:
    """What runs would cost now at offers open to anyone, how many there are, and how long such runs took.

    Parameters
    ----------
    app
        The app's address.
    dataset
        The dataset they shall run on.
    category
        Size of the task: 0 XS (5 min), 1 S (20 min), 2 M (1 h), 3 L (3 h), 4 XL (10 h).
    volume
        How many tasks.
    """
    async with session.connected() as client:
        found = await client.market.quote(
            address(app), dataset=address(dataset), category=category, bits=TEE_TDX, volume=volume
        )
        answer = found.model_dump(mode="json")
        if not json:
            answer["cost"] = format_rlc(found.cost)
        session.show(answer, as_json=json)


def _numbered(word: str) -> tuple[int, str]:
    """`N=NAME`, as a number of the app's and the name of a secret."""
    number, equals, name = word.partition("=")
    if not (equals and name and number.isascii() and number.isdigit() and 0 < int(number) < 10_000):
        raise InvalidInput(f"expected N=NAME, as in --secret 1=token, with N from 1; got {word!r}")
    return int(number), name


@deal.command
async def show(dealid: str, *, json: AsJson = False) -> None:
    """A deal as the chain shows it.

    Parameters
    ----------
    dealid
        The deal's id, 0x and 64 digits.
    """
    async with session.connected() as client:
        session.show(await _described(client, await client.hub.deal(bytes32(dealid))), as_json=json)


@deal.command
async def check_match(dealid: str, *, json: AsJson = False) -> None:
    """Check that a deal was the best that its matcher's book had, as the matcher signed it.

    Ends with an error when what it signed differs from the chain, or when an offer that was in its book, and
    is still open, would have cost less.

    Parameters
    ----------
    dealid
        The deal's id, 0x and 64 digits.
    """
    async with session.connected() as client:
        session.show((await client.check_match(bytes32(dealid))).to_json(), as_json=json)


@deal.command
async def why(request: str, *, json: AsJson = False) -> None:
    """Why a request is not matched: what stands between it and the nearest offers.

    Parameters
    ----------
    request
        Hash of the request order.
    """
    async with session.connected() as client:
        answer = await client.market.why(bytes32(request))
        session.show(answer.model_dump(mode="json"), as_json=json)


async def _described(client: Sealdeal, made: Deal) -> dict[str, Any]:
    states = [task.status.name if task else "UNSET" for task in await client.hub.tasks(made.task_ids())]
    members = {
        name: hexstr(value) if isinstance(value, bytes) else value
        for name, value in asdict(made).items()
        if name not in ("app", "dataset", "workerpool")
    }
    for name in ("app", "dataset", "workerpool"):
        resource = getattr(made, name)
        members[name] = f"{resource.pointer} at {format_rlc(resource.price)} to {resource.owner}"
    return {
        **members,
        "tag": tag_names(made.tag),
        "tasks": {hexstr(i): s for i, s in zip(made.task_ids(), states, strict=True)},
    }
