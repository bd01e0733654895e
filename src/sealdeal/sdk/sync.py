"""`client.Sealdeal` without `await`, for scripts and notebooks.

    with Sealdeal(network, key) as deals:
        app = deals.publish_app(image, price=1 * RLC)
        data = deals.protect_dataset(csv, name="patients")
        deals.grant(data.address, app=app.address, price=2 * RLC)
        result = deals.run(app.address, dataset=data.address, private_key=private_key)

Every method of the asynchronous one is here, with the same parameters, results and errors. What its parts
(`hub`, `market`, `secrets`, `scheduler`, `results`) do is asynchronous still, and `do` waits for it:
`deals.do(deals.hub.claim(taskid))`. All of it runs in one event loop, in a thread of its own; so this works
inside another event loop too, which it then holds up.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Iterator
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from sealdeal.chain import Hub, Quorum, Sender
from sealdeal.model.errors import InvalidInput
from sealdeal.model.keys import Key, Signer
from sealdeal.model.types import RLC, Address, Bytes32

from . import client
from .events import Event, Topic
from .market import MarketClient
from .network import Network
from .pool import PoolClient, TaskEvent
from .results import ResultsClient
from .secrets import Secrets

P = ParamSpec("P")
T = TypeVar("T")


def _blocking(
    method: Callable[Concatenate[client.Sealdeal, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Sealdeal, P], T]:
    """The method of the asynchronous client as one that waits for its answer."""

    @functools.wraps(method)
    def blocking(self: Sealdeal, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.do(method(self.client, *args, **kwargs))

    return blocking


class Sealdeal:
    """A network as one user sees it. Use it as a context, or call `close`; from one thread or many."""

    def __init__(
        self,
        network: Network,
        key: Key | None = None,
        *,
        signer: Signer | None = None,
        outbox: Path | None = None,
    ) -> None:
        """`key` signs orders and transactions; without one the network can only be read. `signer`: who signs
        orders, and owns apps, instead: a `SmartWallet`, while `key` still pays the gas. `outbox`: a folder in
        which transactions survive a crash.
        """
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="sealdeal", daemon=True)
        self._thread.start()

        async def begin() -> client.Sealdeal:
            return client.Sealdeal(network, key, signer=signer, outbox=outbox)

        try:
            self.client = self.do(begin())
        except BaseException:
            self._stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of connections and of the thread. Safe to call twice."""
        if not self._loop.is_closed():
            try:
                self.do(self.client.close())
            finally:
                self._stop()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # --- parts ------------------------------------------------------------------------------------

    def do(self, act: Awaitable[T]) -> T:
        """Wait for anything asynchronous of this client or its parts. An interrupt cancels it."""
        if threading.current_thread() is self._thread:
            if asyncio.iscoroutine(act):
                act.close()
            raise InvalidInput("this would wait for itself: inside a coroutine, use the asynchronous client")

        async def awaited() -> T:
            return await act

        future = asyncio.run_coroutine_threadsafe(awaited(), self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def each(self, stream: AsyncIterator[T]) -> Iterator[T]:
        """The items of an asynchronous stream of this client or its parts, as they come."""

        async def ended() -> None:
            if (close := getattr(stream, "aclose", None)) is not None:
                await close()

        async def following() -> tuple[T] | None:
            try:
                return (await anext(stream),)
            except StopAsyncIteration:
                return None

        try:
            while (item := self.do(following())) is not None:
                yield item[0]
        finally:
            self.do(ended())

    @property
    def network(self) -> Network:
        return self.client.network

    @property
    def key(self) -> Key:
        """The key that signs. Raises InvalidInput when this client can only read."""
        return self.client.key

    @property
    def signer(self) -> Signer:
        """Whose orders these are: the key unless another was given. Raises as `key` does."""
        return self.client.signer

    @property
    def sender(self) -> Sender:
        """Sends this wallet's transactions. Raises as `key` does."""
        return self.client.sender

    @property
    def hub(self) -> Hub:
        """The contracts: everything that can be read of them, and every act."""
        return self.client.hub

    @property
    def quorum(self) -> Quorum | None:
        """The SMS nodes' contract, if there is one."""
        return self.client.quorum

    @property
    def market(self) -> MarketClient:
        """Order books, deals, prices."""
        return self.client.market

    @property
    def results(self) -> ResultsClient:
        """Where results, images and ciphertexts lie."""
        return self.client.results

    @property
    def scheduler(self) -> PoolClient | None:
        """The workerpool's, who tells how tasks go."""
        return self.client.scheduler

    @property
    def secrets(self) -> Secrets:
        """The owner's side of secrets: status, refresh, revocation, audit."""
        return self.client.secrets

    # --- acts -------------------------------------------------------------------------------------

    balance = _blocking(client.Sealdeal.balance)
    ether = _blocking(client.Sealdeal.ether)
    send = _blocking(client.Sealdeal.send)
    send_ether = _blocking(client.Sealdeal.send_ether)
    deposit = _blocking(client.Sealdeal.deposit)
    withdraw = _blocking(client.Sealdeal.withdraw)
    approve = _blocking(client.Sealdeal.approve)
    allowance = _blocking(client.Sealdeal.allowance)
    sweep = _blocking(client.Sealdeal.sweep)
    claim = _blocking(client.Sealdeal.claim)
    faucet = _blocking(client.Sealdeal.faucet)
    push_image = _blocking(client.Sealdeal.push_image)
    publish_app = _blocking(client.Sealdeal.publish_app)
    protect_dataset = _blocking(client.Sealdeal.protect_dataset)
    protected_data = _blocking(client.Sealdeal.protected_data)
    share_secret = _blocking(client.Sealdeal.share_secret)
    share_secrets = _blocking(client.Sealdeal.share_secrets)
    grant = _blocking(client.Sealdeal.grant)
    sign = _blocking(client.Sealdeal.sign)
    publish = _blocking(client.Sealdeal.publish)
    cancel = _blocking(client.Sealdeal.cancel)
    share_result_key = _blocking(client.Sealdeal.share_result_key)
    quote = _blocking(client.Sealdeal.quote)
    prepare_bulk = _blocking(client.Sealdeal.prepare_bulk)
    estimate = _blocking(client.Sealdeal.estimate)
    request = _blocking(client.Sealdeal.request)
    check_match = _blocking(client.Sealdeal.check_match)
    deal_of = _blocking(client.Sealdeal.deal_of)
    wait = _blocking(client.Sealdeal.wait)
    run = _blocking(client.Sealdeal.run)
    result = _blocking(client.Sealdeal.result)
    save_result = _blocking(client.Sealdeal.save_result)
    receipt = _blocking(client.Sealdeal.receipt)
    verify = _blocking(client.Sealdeal.verify)

    add_webhook = _blocking(client.Sealdeal.add_webhook)
    webhooks = _blocking(client.Sealdeal.webhooks)
    drop_webhook = _blocking(client.Sealdeal.drop_webhook)

    def events(
        self,
        *,
        topics: Collection[Topic] = (),
        requester: Address | None = None,
        dealid: Bytes32 | None = None,
        after: int | None = None,
    ) -> Iterator[Event]:
        """Orders, deals and tasks as they happen, for ever; as `client.Sealdeal.events`."""
        return self.each(self.client.events(topics=topics, requester=requester, dealid=dealid, after=after))

    def steps(self, taskid: Bytes32) -> Iterator[TaskEvent]:
        """A task's steps from the first, each as its scheduler tells it, until the task has ended."""
        return self.each(self.client.steps(taskid))

    @classmethod
    def newcomer(cls, network: Network, amount: int = 100 * RLC, *, in_escrow: int = 0) -> Self:
        """A client with a new key on a local network; as `client.newcomer`."""
        return cls(network, asyncio.run(client.newcomer(network, amount, in_escrow=in_escrow)))
