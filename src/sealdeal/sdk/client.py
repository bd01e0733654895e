"""The API people use: publish apps, protect data, grant it, buy runs, follow them, fetch results.

    async with Sealdeal(network, key) as deals:
        app = await deals.publish_app(image, price=1 * RLC)
        data = await deals.protect_dataset(csv, name="patients")
        await deals.grant(data.address, app=app.address, price=2 * RLC)
        request = await deals.request(app.address, dataset=data.address)
        deal = await deals.deal_of(request)
        result = await deals.result(deal.task_ids()[0], private_key)

It holds no state but the wallet's key; everything else is read from the network when it is needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sealdeal.model import sealing
from sealdeal.model.bulk import MAX_DATASETS
from sealdeal.model.deals import Deal, Task, deal_id
from sealdeal.model.errors import Conflict, InvalidInput, NotFound, Unavailable
from sealdeal.model.keys import Key
from sealdeal.model.matches import Match, Word
from sealdeal.model.matching import Terms
from sealdeal.model.orders import (
    BATCH,
    TEE_TDX,
    AppOrder,
    DatasetOrder,
    Params,
    RequestOrder,
    Signed,
    WorkerpoolOrder,
    choosing,
    tag,
)
from sealdeal.model.types import RLC, ZERO, Address, Bytes32, hexstr, unhex

from .bulks import Bulk, granted_in_bulk, store_bulk
from .buying import estimate_match, match_by_oneself
from .custody import SecretId
from .events import Event, Topic, Webhook, add_webhook, drop_webhook, list_webhooks, watch
from .market_answers import MarketQuote
from .matches import check_match
from .network import Network
from .pool import TaskEvent
from .receiving import Receiving, Result
from .sms import RESULT_KEY_NAME


@dataclass(frozen=True)
class Quote:
    """What a request would pay each of the three at most now, in nRLC per task."""

    app: int
    dataset: int
    workerpool: int
    found: MarketQuote | None = None
    """The orders, the cost of all, and how long such tasks took, from a market that tells."""

    def raised(self, percent: int) -> Quote:
        """With so many per cent more, rounded up: room for prices that rise before the match."""
        prices = (self.app, self.dataset, self.workerpool)
        app, dataset, workerpool = (-(-price * (100 + percent) // 100) for price in prices)
        return Quote(app, dataset, workerpool, self.found)

    @property
    def price(self) -> int:
        return self.app + self.dataset + self.workerpool


class Sealdeal(Receiving):
    """A network as one user sees it. Use it as an async context, or call `close`."""

    # --- runs -------------------------------------------------------------------------------------

    async def quote(
        self,
        app: Address,
        *,
        dataset: Address = ZERO,
        category: int = 0,
        volume: int = 1,
        workerpool: Address = ZERO,
        batch: bool = False,
    ) -> Quote:
        """What `volume` runs would cost now, of workerpools that settle in batches if `batch`.

        Raises NotFound naming what nobody offers.
        """
        me = self._signer.address if self._signer else ZERO
        wanted = RequestOrder(
            app=app,
            dataset=dataset,
            workerpool=workerpool,
            requester=me,
            volume=volume,
            category=category,
            tag=tag(TEE_TDX | BATCH if batch else TEE_TDX),
        )
        with contextlib.suppress(NotFound):  # a marketplace that does not quote: its lists are read instead
            found = await self.market.quote_for(wanted)
            if found.parts:
                return Quote(*found.most, found)
        return await self._book_quote(app, dataset, category, batch)

    async def _book_quote(self, app: Address, dataset: Address, category: int, batch: bool) -> Quote:
        bits = BATCH if batch else None
        me = self._signer.address if self._signer else ZERO
        apps, pools = await asyncio.gather(
            self.market.app_orders(app, dataset=dataset, requester=me),
            self.market.workerpool_orders(
                category=category, app=app, dataset=dataset, requester=me, min_tag=bits
            ),
        )
        data = await self.market.dataset_orders(dataset, app=app, requester=me) if dataset != ZERO else None
        for found, what in (
            (apps, f"app {app}"),
            (pools, f"a run of category {category} by any workerpool"),
            (data, f"dataset {dataset} for this app"),
        ):
            if found is not None and not found.items:
                raise NotFound(f"no open order offers {what} to this requester")
        return Quote(
            apps.items[0].order.appprice,
            data.items[0].order.datasetprice if data else 0,
            pools.items[0].order.workerpoolprice,
        )

    async def estimate(
        self,
        app: Signed[AppOrder],
        dataset: Signed[DatasetOrder] | None,
        workerpool: Signed[WorkerpoolOrder],
        request: Signed[RequestOrder],
    ) -> Terms:
        """What a match of these orders would give now: how many tasks, at what price.

        Not more than what is left of each order, and what the escrows of requester and workerpool can pay
        for. Raises Mismatch naming all that does not fit.
        """
        return await estimate_match(self.hub, app, dataset, workerpool, request)

    async def request(
        self,
        app: Address,
        *,
        dataset: Address = ZERO,
        params: Params | None = None,
        category: int = 0,
        volume: int = 1,
        max_prices: Quote | None = None,
        workerpool: Address = ZERO,
        beneficiary: Address | None = None,
        batch: bool = False,
        slippage: int = 0,
        matcher: Address | None = None,
        unpublished: bool = False,
    ) -> Bytes32:
        """Ask for `volume` runs, at the best offers' prices unless `max_prices` says other ones; the hash.

        `slippage`: per cent that it may pay more than that. `unpublished`: nobody sees the request before
        this wallet has matched it by itself, with the quoted orders. `matcher`: who alone, but for the
        requester, may match it (two such requests must differ in their params).

        The request waits in the market until it is matched, with given `max_prices` even while nobody
        offers its app or data. Raises Conflict when its payment does not lie in the escrow (`deposit`), or
        the SMS nodes lack a secret: the dataset's key, one of the requester's, the beneficiary's result key.
        `batch`: the tasks are to be settled many at a time, by a workerpool that offers it.
        """
        wanted = params or Params(result_encryption=True)
        receiver = beneficiary or self.key.address
        await self._check_secrets(dataset, wanted, receiver if wanted.result_encryption else None)
        limits = max_prices or await self.quote(
            app, dataset=dataset, category=category, volume=volume, workerpool=workerpool, batch=batch
        )
        limits = limits.raised(slippage)
        need, have = limits.price * volume, (await self.hub.account(self.signer.address)).stake
        if have < need:
            raise Conflict(
                f"{need} nRLC must lie in the escrow to pay this request, {have} do: "
                f"deposit {need - have} more"
            )
        order = RequestOrder(
            app=app,
            appmaxprice=limits.app,
            dataset=dataset,
            datasetmaxprice=limits.dataset,
            workerpool=workerpool,
            workerpoolmaxprice=limits.workerpool,
            requester=self.signer.address,
            volume=volume,
            tag=tag(TEE_TDX | BATCH if batch else TEE_TDX),
            category=category,
            beneficiary=receiver,
            params=wanted.to_text(),
            salt=choosing(matcher) if matcher else secrets.token_bytes(32),
        )
        if unpublished:
            signed = Signed.by(self.signer, order, await self.hub.domain())
            return await match_by_oneself(self.hub, self.market, signed)
        return await self.publish(order, standing=max_prices is not None)

    async def _check_secrets(self, dataset: Address, params: Params, receiver: Address | None) -> None:
        """Refuse a request whose task would want a secret that the SMS nodes have not."""
        needed = []
        if dataset != ZERO:
            fix = f"its owner must protect dataset {dataset} again, or refresh its key"
            needed.append((SecretId.dataset(dataset), "the dataset's key", fix))
        for name in sorted({name for number, name in params.secrets.items() if number > 0}):
            fix = f"`sealdeal secret split requester {name}`"
            needed.append(
                (SecretId.requester(self.signer.address, name), f"the requester's secret {name!r}", fix)
            )
        for which, what, mend in needed:
            found, now = await self.secrets.status(which), self.secrets.now()
            if not found.available(now):
                held = len(found.groups[0].live(now)) if found.groups else 0
                least = found.groups[0].threshold if found.groups else await self.secrets.quorum.threshold()
                raise Conflict(f"{held} SMS nodes hold {what} for new deals, {least} are needed: {mend}")
        if receiver is not None:
            asked = (
                node.has_secret(sealing.SecretKind.NAMED, receiver, RESULT_KEY_NAME) for node in self.nodes
            )
            held = sum(found is True for found in await asyncio.gather(*asked, return_exceptions=True))
            if held < (least := await self.secrets.quorum.threshold()):
                raise Conflict(
                    f"{held} SMS nodes hold the result key of {receiver}, {least} are needed: share it with "
                    "`sealdeal wallet result-key`, or ask for no encryption"
                )

    async def prepare_bulk(
        self,
        app: Address,
        datasets: Sequence[Address],
        *,
        per_task: int = MAX_DATASETS,
        workerpool: Address = ZERO,
    ) -> Bulk:
        """Share out datasets among tasks, `per_task` each, and store which task works on which.

        Then `request(app, params=Params(bulk_cid=bulk.cid, …), volume=bulk.volume)` asks for these tasks.
        `workerpool`: the one that the request will name, for grants that are restricted to it. Raises
        NotFound for data that nobody granted to this requester and app in bulk, Conflict for data whose key
        the SMS nodes lack.
        """
        me, pool = self.signer.address, workerpool if workerpool != ZERO else None
        orders = [
            await granted_in_bulk(self.market, one, app=app, requester=me, pool=pool) for one in datasets
        ]
        for dataset in datasets:
            await self._check_secrets(dataset, Params(), None)
        return await store_bulk(self.results, orders, per_task)

    async def deal_of(self, request: Bytes32, *, timeout: float = 60.0, first: int = 0) -> Deal:
        """The deal that a request made (its part that begins at task `first`), as soon as it exists.

        Raises Unavailable after `timeout` seconds, with the market's reason why nothing matched.
        """

        async def made() -> Deal | None:
            with contextlib.suppress(NotFound):
                return await self.hub.deal(deal_id(request, first))
            return None

        if (deal := await _within(timeout, made)) is None:
            why = (await self.market.why(request)).constraint
            raise Unavailable(f"not matched within {timeout:g} s: {why or 'nothing is in the way'}")
        return deal

    async def check_match(self, dealid: Bytes32) -> Word[Match]:
        """What the matcher signed of a deal, if it is true and was the best that its book had.

        Raises what `matches.check_match` raises: IntegrityError when it was not.
        """
        return await check_match(self.hub, self.market, dealid)

    async def wait(self, taskid: Bytes32, *, timeout: float = 600.0) -> Task:
        """The task once it has ended, completed or failed. Raises Unavailable after `timeout` seconds."""

        async def ended() -> Task | None:
            task = await self.hub.task(taskid)
            return task if task.ended else None

        if (task := await _within(timeout, ended)) is None:
            raise Unavailable(f"task {hexstr(taskid)} has not ended within {timeout:g} s; it still may")
        return task

    async def run(
        self,
        app: Address,
        *,
        dataset: Address = ZERO,
        params: Params | None = None,
        category: int = 0,
        private_key: bytes | None = None,
        timeout: float = 600.0,
    ) -> Result:
        """Buy one run at the best offers' prices, wait for it, and fetch its result: `request` to `result`.

        The result is encrypted if `private_key` (PEM) is given, or `params` say so. Raises what these raise;
        NotFound for a task that failed, and was paid back.
        """
        wanted = params or Params(result_encryption=private_key is not None)
        request = await self.request(app, dataset=dataset, params=wanted, category=category)
        (taskid,) = (await self.deal_of(request, timeout=timeout)).task_ids()
        await self.wait(taskid, timeout=timeout)
        return await self.result(taskid, private_key)

    # --- what the market tells --------------------------------------------------------------------

    async def events(
        self,
        *,
        topics: Collection[Topic] = (),
        requester: Address | None = None,
        dealid: Bytes32 | None = None,
        after: int | None = None,
    ) -> AsyncIterator[Event]:
        """Orders, deals and tasks as they happen, for ever: `sdk.events.watch`.

        `topics`: of `orders`, `deals`, `tasks`; all without it. `after`: an event's id, to go on after it; 0
        for all that the market keeps; without it, from now on.
        """
        async for event in watch(self.market, topics=topics, requester=requester, dealid=dealid, after=after):
            yield event

    async def add_webhook(
        self,
        url: str,
        *,
        requester: Address | None = None,
        beneficiary: Address | None = None,
        app: Address | None = None,
        dataset: Address | None = None,
        workerpool: Address | None = None,
        dealid: Bytes32 | None = None,
    ) -> Webhook:
        """Have the ends of this wallet's tasks told to `url`, which must answer already.

        Or of one requester, beneficiary, app, dataset, workerpool or deal instead. The answer's `secret`,
        which is not shown again, is for `sdk.events.verify_webhook`.
        """
        filters = {
            "requester": requester,
            "beneficiary": beneficiary,
            "app": app,
            "dataset": dataset,
            "workerpool": workerpool,
            "dealid": dealid,
        }
        given = {name: value for name, value in filters.items() if value is not None}
        return await add_webhook(self.market, url, self.signer, **given)

    async def webhooks(self) -> list[Webhook]:
        """This wallet's webhooks."""
        return await list_webhooks(self.market, self.signer)

    async def drop_webhook(self, id: str) -> None:
        """End a webhook. Raises NotFound."""
        await drop_webhook(self.market, id, self.signer)

    async def steps(self, taskid: Bytes32) -> AsyncIterator[TaskEvent]:
        """A task's steps from the first, each as its scheduler tells it, until the task has ended.

        Waits for a scheduler that does not know the task yet or does not answer; wrap it in a timeout. Raises
        InvalidInput on a network without a scheduler.
        """
        if self.scheduler is None:
            raise InvalidInput("this network's file names no scheduler, who could tell a task's steps")
        cursor = 0
        while True:
            try:
                async for event in self.scheduler.follow(taskid, cursor):
                    cursor = event.cursor
                    yield event
                return
            except (NotFound, Unavailable):
                await asyncio.sleep(0.05)


async def newcomer(network: Network, amount: int = 100 * RLC, *, in_escrow: int = 0) -> Key:
    """A new key with `amount` nRLC, `in_escrow` of them deposited, and money for gas, of a local network.

    Raises InvalidInput on any other network, whose file holds no funder's key.
    """
    if (funder := network.accounts.get("funder")) is None:
        raise InvalidInput("only a local network (`sealdeal up`) has a faucet: this file names no funder")
    key = Key.generate(secrets.token_bytes)
    async with Sealdeal(network, Key(unhex(funder["key"]))) as faucet:
        await faucet.faucet(key.address, amount)
    if in_escrow:
        async with Sealdeal(network, key) as here:
            await here.deposit(in_escrow)
    return key


_Found = TypeVar("_Found")


async def _within(timeout: float, ask: Callable[[], Awaitable[_Found | None]]) -> _Found | None:
    """What `ask` finds: asked at once, then ever more rarely, until `timeout` seconds have passed (None)."""
    end, pause = time.monotonic() + timeout, 0.02
    while (found := await ask()) is None and time.monotonic() < end:
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, 1.0)
    return found
