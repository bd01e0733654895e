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
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from sealdeal.chain import Quorum
from sealdeal.chain import Receipt as TxReceipt
from sealdeal.model import results, sealing
from sealdeal.model.bulk import BULK_VOLUME, MAX_DATASETS
from sealdeal.model.cid import multiaddr_bytes
from sealdeal.model.deals import Deal, Task, TaskStatus, deal_id
from sealdeal.model.errors import Conflict, IntegrityError, InvalidInput, NotFound, Unavailable
from sealdeal.model.keys import Key
from sealdeal.model.matching import Terms
from sealdeal.model.orders import (
    BATCH,
    TEE_TDX,
    AppOrder,
    DatasetOrder,
    Order,
    Params,
    RequestOrder,
    Signed,
    T,
    WorkerpoolOrder,
    choosing,
    tag,
)
from sealdeal.model.policy import ReportData
from sealdeal.model.receipts import Receipt
from sealdeal.model.streams import Format, new_key
from sealdeal.model.types import RLC, ZERO, Address, Bytes32, address, hexstr, unhex
from sealdeal.tee import DcapVerifier

from .archives import encrypt_file, unpack_result
from .bulks import Bulk, granted_in_bulk, store_bulk
from .buying import estimate_match, match_by_oneself
from .custody import SecretId
from .events import Event, Topic, Webhook, add_webhook, drop_webhook, list_webhooks, watch
from .http import Transport
from .images import BuiltImage
from .market import MarketClient, MarketQuote
from .network import Network
from .pool import PoolClient, TaskEvent
from .purse import Purse
from .results import ARCHIVE_LIMIT, ResultsClient, SignedReceipt, store_domain
from .secrets import Secrets, SplitReceipt
from .sms import RESULT_KEY_NAME, SmsClient
from .vault import Vault

UNLIMITED = BULK_VOLUME - 1
"""The largest volume that every client of the network can read back exactly (wire.md §1.4), and that does not
give data away in bulk."""
RESULT_LIMIT = 512 << 20
"""Bytes of a result archive that are held in memory."""


@dataclass(frozen=True)
class Published:
    """An asset that is on chain, with what it took."""

    address: Address
    order: Bytes32 | None
    """Hash of the order published for it, if any."""
    multiaddr: str
    checksum: Bytes32
    transactions: tuple[TxReceipt, ...]


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


@dataclass(frozen=True)
class Result:
    """A task's decrypted result and the receipt that proves where it comes from."""

    files: dict[str, bytes]
    """The archive's files; the app's own next to computed.json, stdout.txt and stderr.txt."""
    receipt: Receipt | None
    """None for a result without an enclave's statement (of a deal without a TEE, or another network's)."""


@dataclass(frozen=True)
class SavedResult:
    """A task's decrypted result in a folder."""

    files: tuple[str, ...]
    """Relative names, sorted."""
    receipt: Receipt | None


@dataclass(frozen=True)
class Completed:
    """A completed task, and where its result lies."""

    task: Task
    deal: Deal
    receipt: Receipt | None
    cid: str

    def check_form(self, digest: str) -> None:
        """Raises IntegrityError when a sealed digest was asked for and the chain shows a plain one."""
        if self.receipt is not None and self.receipt.sealed_digest and digest != "sealed":
            raise IntegrityError("the deal asks for a sealed digest, and the one on chain is plain")


class Sealdeal(Purse):
    """A network as one user sees it. Use it as an async context, or call `close`."""

    def __init__(
        self,
        network: Network,
        key: Key | None = None,
        *,
        outbox: Path | None = None,
        transports: Mapping[str, Transport] | None = None,
    ) -> None:
        """`key` signs orders and transactions; without one the network can only be read. `outbox`: a folder
        in which transactions survive a crash. `transports`: by URL, for services in this process.
        """
        super().__init__(network, key, outbox)
        inside = transports or {}
        at = network.services
        quorum = network.contracts.quorum
        self.quorum = Quorum(self.rpc, quorum) if quorum else None
        self.market = MarketClient(at.market, network.chain_id, transport=inside.get(at.market))
        self.results = ResultsClient(at.results, transport=inside.get(at.results))
        self.nodes = [SmsClient(url, transport=inside.get(url)) for url in at.sms]
        self.scheduler = (
            PoolClient(at.scheduler, transport=inside.get(at.scheduler)) if at.scheduler is not None else None
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        closing = [self.market.close(), self.results.close(), *(node.close() for node in self.nodes)]
        if self.scheduler:
            closing.append(self.scheduler.close())
        await asyncio.gather(*closing, self.rpc.aclose())

    # --- apps and data ----------------------------------------------------------------------------

    async def push_image(self, image: BuiltImage) -> str:
        """Upload an app's image to the network's store; its multiaddr, `/ipfs/CID`."""
        return f"/ipfs/{await self.results.add(image.archive, image.name)}"

    async def publish_app(
        self,
        image: BuiltImage,
        *,
        name: str = "",
        price: int = 0,
        volume: int = UNLIMITED,
        dataset: Address = ZERO,
        requester: Address = ZERO,
        multiaddr: str = "",
    ) -> Published:
        """Upload an image, register the app on chain and offer `volume` runs at `price` nRLC each.

        `dataset`, `requester`: whom the offer is restricted to. `multiaddr`: where the image lies already, in
        a registry. The same app again only renews its offer.
        """
        multiaddr = multiaddr or await self.push_image(image)
        made, receipt = await self._create_app(name or image.name, multiaddr, image.checksum)
        order = AppOrder(
            app=made,
            appprice=price,
            volume=volume,
            tag=tag(TEE_TDX),
            datasetrestrict=dataset,
            requesterrestrict=requester,
            salt=secrets.token_bytes(32),
        )
        return Published(made, await self.publish(order), multiaddr, image.checksum, receipt)

    async def _create_app(
        self, name: str, multiaddr: str, checksum: Bytes32
    ) -> tuple[Address, tuple[TxReceipt, ...]]:
        terms = (name, "DOCKER", multiaddr_bytes(multiaddr), checksum)
        try:
            made, receipt = await self.hub.create_app(*terms)
        except Conflict:
            return await self.hub.predict_app(*terms, owner=self.key.address), ()
        return made, (receipt,)

    async def protect_dataset(
        self,
        plain: bytes | Path,
        *,
        name: str,
        form: Format = Format.STANDARD,
        nodes: Collection[str] = (),
        threshold: int | None = None,
        expires: int = 0,
        vault: Vault | None = None,
    ) -> Published:
        """Encrypt data, store the ciphertext, register the dataset on chain, split its key among the nodes.

        Nobody can use the dataset until its owner grants it. What is stored is ciphertext; the key exists in
        this process's memory only, then in shares: `threshold` of them (default: the quorum's) recombine it.
        `form`: how it is encrypted. A file is read in pieces, and may have any size.
        `vault` keeps a copy for its owner, without which it can never be moved to other nodes. `nodes`,
        `expires`: as for `Secrets.split`, which may be repeated with the copy if it fails.
        """
        key = new_key(form, secrets.token_bytes)
        with tempfile.TemporaryDirectory(prefix="sealdeal-") as folder:
            sealed = Path(folder) / "dataset"
            checksum = await asyncio.to_thread(encrypt_file, plain, key, sealed)
            multiaddr = f"/ipfs/{await self.results.add(sealed, 'dataset')}"
        made, receipt = await self.hub.create_dataset(name, multiaddr_bytes(multiaddr), checksum)
        if vault is not None:
            vault.keep(SecretId.dataset(made), key.encode())
        await self.share_secret(
            key.encode(),
            kind=sealing.SecretKind.DATASET_KEY,
            subject=made,
            nodes=nodes,
            threshold=threshold,
            expires=expires,
        )
        return Published(made, None, multiaddr, checksum, (receipt,))

    async def share_secret(
        self,
        secret: bytes,
        *,
        kind: str,
        subject: Address,
        name: str = "",
        nodes: Collection[str] = (),
        threshold: int | None = None,
        expires: int = 0,
    ) -> SplitReceipt:
        """Split a secret among SMS nodes, so that `threshold` of them (default: the quorum's) recombine it.

        `kind`: a `SecretKind`; `subject`: whose secret it is (the dataset, the app, or oneself). Options and
        errors are those of `Secrets.split`.
        """
        which = SecretId(sealing.SecretKind(kind), subject, name)
        return await self.secrets.split(
            self.key, which, secret, nodes=nodes, threshold=threshold, expires=expires
        )

    @property
    def secrets(self) -> Secrets:
        """The owner's side of secrets: status, refresh, revocation, audit.

        Raises InvalidInput on a network without SMS nodes.
        """
        if self.quorum is None:
            raise InvalidInput("this network's hub has no quorum of SMS nodes: secrets cannot be split")
        here = self.network
        return Secrets(self.nodes, chain_id=here.chain_id, hub=here.contracts.hub, quorum=self.quorum)

    async def _threshold(self) -> int:
        return await self.secrets.quorum.threshold()

    async def grant(
        self,
        dataset: Address,
        *,
        app: Address,
        price: int = 0,
        volume: int = UNLIMITED,
        requester: Address = ZERO,
        workerpool: Address = ZERO,
        bulk: bool = False,
    ) -> Bytes32:
        """Let one app (or group) use a dataset `volume` times at `price` nRLC each; the order's hash.

        `bulk`: also together with others' data in one task (`prepare_bulk`), for nothing and uncounted.
        """
        if app == ZERO:
            raise InvalidInput(
                "name the app that may read the data: a grant to every app gives the data to anyone"
            )
        if bulk and (price, volume) != (0, UNLIMITED):
            raise InvalidInput("nobody pays for data in bulk, or counts them: expected no price, no volume")
        order = DatasetOrder(
            dataset=dataset,
            datasetprice=price,
            volume=BULK_VOLUME if bulk else volume,
            tag=tag(TEE_TDX),
            apprestrict=app,
            workerpoolrestrict=workerpool,
            requesterrestrict=requester,
            salt=secrets.token_bytes(32),
        )
        return await self.publish(order)

    async def sign(self, order: T) -> Signed[T]:
        """Sign an order; whoever is given it may match it, published or not, until it is cancelled."""
        return Signed.by(self.key, order, await self.hub.domain())

    async def publish(self, order: Order, *, standing: bool = False) -> Bytes32:
        """Sign an order and publish it in the market; its hash.

        `standing`, for requests: it waits even while nobody offers its app or dataset.
        """
        domain = await self.hub.domain()
        signed: Signed[Any] = Signed.by(self.key, order, domain)
        await self.market.publish(signed, self.key, standing=standing)
        return signed.hash(domain)

    async def cancel(self, signed: Signed[Any]) -> TxReceipt:
        """Close an order on chain, for ever: it can no longer be matched by anyone."""
        return await self.hub.manage_order(signed, "close")

    # --- runs -------------------------------------------------------------------------------------

    async def share_result_key(self, key_text: str) -> None:
        """Give every SMS node the public key that results for this account are encrypted with.

        Raises Unavailable when a node does not answer; safe to repeat.
        """
        for node in self.nodes:  # not at once: each may give it to the others
            await node.push_named_secret(self.key, RESULT_KEY_NAME, key_text)

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
        me = self._key.address if self._key else ZERO
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
        me = self._key.address if self._key else ZERO
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
        need, have = limits.price * volume, (await self.hub.account(self.key.address)).stake
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
            requester=self.key.address,
            volume=volume,
            tag=tag(TEE_TDX | BATCH if batch else TEE_TDX),
            category=category,
            beneficiary=receiver,
            params=wanted.to_text(),
            salt=choosing(matcher) if matcher else secrets.token_bytes(32),
        )
        if unpublished:
            signed = Signed.by(self.key, order, await self.hub.domain())
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
                (SecretId.requester(self.key.address, name), f"the requester's secret {name!r}", fix)
            )
        for which, what, mend in needed:
            found, now = await self.secrets.status(which), self.secrets.now()
            if not found.available(now):
                held = len(found.groups[0].live(now)) if found.groups else 0
                least = found.groups[0].threshold if found.groups else await self._threshold()
                raise Conflict(f"{held} SMS nodes hold {what} for new deals, {least} are needed: {mend}")
        if receiver is not None:
            asked = (
                node.has_secret(sealing.SecretKind.NAMED, receiver, RESULT_KEY_NAME) for node in self.nodes
            )
            held = sum(found is True for found in await asyncio.gather(*asked, return_exceptions=True))
            if held < (least := await self._threshold()):
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
        me, pool = self.key.address, workerpool if workerpool != ZERO else None
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
        return await add_webhook(self.market, url, self.key, **given)

    async def webhooks(self) -> list[Webhook]:
        """This wallet's webhooks."""
        return await list_webhooks(self.market, self.key)

    async def drop_webhook(self, id: str) -> None:
        """End a webhook. Raises NotFound."""
        await drop_webhook(self.market, id, self.key)

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

    # --- results ----------------------------------------------------------------------------------

    async def result(self, taskid: Bytes32, private_key: bytes | None = None) -> Result:
        """Fetch a completed task's result, decrypt it, and check what the enclave signed.

        `private_key`: PEM of the beneficiary's key, for an encrypted result. Raises NotFound for a task
        without a result, IntegrityError when anything differs from what was signed.
        """
        found = await self._found(taskid)
        archive = await self.results.fetch(found.cid, limit=RESULT_LIMIT)
        if not results.is_encrypted_result(archive):
            files = results.unzip_result(archive)
        elif private_key is None:
            raise InvalidInput("the result is encrypted for its beneficiary: give the private key")
        else:
            files = results.decrypt_result(archive, private_key)
        plain, seal = results.digest_of(files), files.get(results.SEAL_ENTRY)
        form = results.check_digest(plain, seal, found.task.result_digest, found.deal.settled_digest)
        found.check_form(form)
        if form == "sealed":
            files.pop(results.PADDING_ENTRY, None)
        return Result(files, found.receipt)

    async def save_result(
        self, taskid: Bytes32, folder: Path, private_key: bytes | None = None
    ) -> SavedResult:
        """`result` of any size: written into the new folder `folder`, all of it and checked, or nothing."""
        if folder.exists():
            raise Conflict(f"{folder} exists already: a result is written into a new folder")
        found = await self._found(taskid)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".sealdeal-") as aside:
            archive = Path(aside) / "archive"
            await self.results.download(found.cid, archive, limit=ARCHIVE_LIMIT)
            unpacked = await asyncio.to_thread(
                unpack_result,
                archive,
                Path(aside) / "files",
                expected=found.task.result_digest,
                settled=found.deal.settled_digest,
                private_key=private_key,
            )
            found.check_form(unpacked.digest)
            (Path(aside) / "files").rename(folder)
        return SavedResult(unpacked.files, found.receipt)

    async def _found(self, taskid: Bytes32) -> Completed:
        task = await self.hub.task(taskid)
        if task.status is not TaskStatus.COMPLETED:
            raise NotFound(f"task {hexstr(taskid)} has no result: it is {task.status.name}")
        receipt, deal = await asyncio.gather(self.receipt(task), self.hub.deal(task.dealid))
        cid = await self.results.cid_at(results.result_location(task.results))
        return Completed(task, deal, receipt, cid)

    async def receipt(self, task: Task) -> Receipt | None:
        """The verified receipt of a completed task; None when no enclave vouches for it on chain."""
        worker = task.contributors[0]
        if (await self.hub.contribution(task.taskid, worker)).enclave == ZERO:
            return None
        proof = await self.results.proof(task.taskid, worker)
        deal, matched = await asyncio.gather(self.hub.deal(task.dealid), self.market.deal(task.dealid))
        settled = await self.hub.settlement(task.taskid, matched.block_number)
        receipt = Receipt(
            version=1,
            trust=self.network.trust,
            chain_id=self.network.chain_id,
            hub=self.network.contracts.hub,
            quorum=self.network.contracts.quorum or ZERO,
            dealid=hexstr(task.dealid),
            taskid=hexstr(task.taskid),
            worker=worker,
            price=deal.price,
            digest=hexstr(task.result_digest),
            results=task.results.decode(errors="replace"),
            transaction=hexstr(settled.tx_hash),
            block=settled.block.number,
            proof=proof,
        )
        await self.verify(receipt)
        return receipt

    async def verify(self, receipt: Receipt) -> None:
        """Check a receipt against the chain, and its evidence against the root this network trusts.

        The evidence is judged at the time of the transaction that settled the task: its collateral expires.
        Raises IntegrityError (signatures, chain) or EvidenceRefused (the TEE's evidence).
        """
        nodes = receipt.check()
        taskid, quorum = unhex(receipt.taskid), self.quorum
        settled = await self.hub.settlement(taskid, receipt.block)
        task = await self.hub.task(taskid)
        enclave = (await self.hub.contribution(taskid, address(receipt.worker))).enclave
        for what, told, found in (
            ("transaction", receipt.transaction, hexstr(settled.tx_hash)),
            ("digest", receipt.digest, hexstr(task.result_digest)),
            ("results", receipt.results, task.results.decode(errors="replace")),
            ("enclave", receipt.enclave, enclave),
            ("quorum", receipt.quorum, self.network.contracts.quorum or ZERO),
        ):
            if told != found:
                raise IntegrityError(f"the receipt's {what} is {told}, on chain it is {found}")
        if quorum is not None:
            granted, threshold = nodes & set(await quorum.members()), await quorum.threshold()
            if len(granted) < threshold:
                raise IntegrityError(
                    f"the receipt holds grants of {len(granted)} nodes, {threshold} are needed"
                )
        if (stored := receipt.proof.get("storeReceipt")) is not None:
            SignedReceipt.from_json(stored).check(store_domain(receipt.chain_id, address(receipt.hub)))
        root = unhex(self.network.tee_root) if self.network.tee_root else None
        claims = DcapVerifier(root).verify(receipt.evidence, settled.block.timestamp)
        ReportData(receipt.expected_report_data()).check(claims, settled.block.timestamp)


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
