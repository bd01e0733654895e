"""What a user puts on offer: apps, data, the secrets behind them, and orders that say who may use them."""

from __future__ import annotations

import asyncio
import json
import secrets
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from sealdeal.chain import Quorum
from sealdeal.chain import Receipt as TxReceipt
from sealdeal.model import sealing
from sealdeal.model.bulk import BULK_VOLUME
from sealdeal.model.cid import multiaddr_bytes
from sealdeal.model.errors import Conflict, InvalidInput
from sealdeal.model.keys import Key, Signer
from sealdeal.model.orders import TEE_TDX, AppOrder, DatasetOrder, Order, OrderOperation, Signed, T, tag
from sealdeal.model.streams import Format, new_key
from sealdeal.model.types import ZERO, Address, Bytes32

from .archives import encrypt_file
from .custody import SecretId
from .http import Transport
from .images import BuiltImage
from .market import MarketClient
from .network import Network
from .pool import PoolClient
from .protected import ProtectedData, Sought, find_protected
from .purse import Purse
from .results import ResultsClient
from .secrets import Secrets, SplitReceipt
from .sms import RESULT_KEY_NAME, SmsClient
from .vault import Vault

UNLIMITED = BULK_VOLUME - 1
"""The largest volume that every client of the network can read back exactly (wire.md §1.4), and that does not
give data away in bulk."""


@dataclass(frozen=True)
class Published:
    """An asset that is on chain, with what it took."""

    address: Address
    order: Bytes32 | None
    """Hash of the order published for it, if any."""
    multiaddr: str
    checksum: Bytes32
    transactions: tuple[TxReceipt, ...]


class Assets(Purse):
    """One account's apps, data, secrets and orders. Part of `client.Sealdeal`."""

    def __init__(
        self,
        network: Network,
        key: Key | None = None,
        *,
        signer: Signer | None = None,
        outbox: Path | None = None,
        transports: Mapping[str, Transport] | None = None,
    ) -> None:
        """`key` signs orders and transactions; without one the network can only be read. `signer`: who signs
        orders, and owns apps, instead: a `SmartWallet`, while `key` still pays the gas. `outbox`: a folder in
        which transactions survive a crash. `transports`: by URL, for services in this process.
        """
        super().__init__(network, key, outbox, signer)
        self._transports = inside = transports or {}
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
            made, receipt = await self.hub.create_app(*terms, owner=self.signer.address)
        except Conflict:
            return await self.hub.predict_app(*terms, owner=self.signer.address), ()
        return made, (receipt,)

    async def protect_dataset(
        self,
        plain: bytes | Path,
        *,
        name: str,
        form: Format = Format.STANDARD,
        schema: Mapping[str, Any] | None = None,
        nodes: Collection[str] = (),
        threshold: int | None = None,
        expires: int = 0,
        vault: Vault | None = None,
    ) -> Published:
        """Encrypt data, store the ciphertext, register the dataset on chain, split its key among the nodes.

        Nobody can use the dataset until its owner grants it. What is stored is ciphertext; the key exists in
        this process's memory only, then in shares: `threshold` of them (default: the quorum's) recombine it.
        `form`: how it is encrypted. A file is read in pieces, and may have any size.
        `schema`: what is said to be inside, by which `protected_data` finds it: {"email": "string"}.
        `vault` keeps a copy for its owner, without which it can never be moved to other nodes. `nodes`,
        `expires`: as for `Secrets.split`, which may be repeated with the copy if it fails.
        """
        key = new_key(form, secrets.token_bytes)
        with tempfile.TemporaryDirectory(prefix="sealdeal-") as folder:
            sealed = Path(folder) / "dataset"
            checksum = await asyncio.to_thread(encrypt_file, plain, key, sealed)
            multiaddr = f"/ipfs/{await self.results.add(sealed, 'dataset')}"
        told = None if schema is None else json.dumps(schema, separators=(",", ":"), ensure_ascii=False)
        made, receipt = await self.hub.create_dataset(name, multiaddr_bytes(multiaddr), checksum, schema=told)
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

    async def protected_data(
        self,
        *,
        schema: Sequence[str] = (),
        owner: Address | None = None,
        since: int | None = None,
        page: int = 0,
    ) -> list[ProtectedData]:
        """Data that were registered with a schema, newest first, a hundred to a page.

        `schema`: parts that they must have (`email:string`); `since`: unix seconds. Raises InvalidInput on a
        network without DataProtector's index.
        """
        if (url := self.network.services.subgraph) is None:
            raise InvalidInput("this network's file names no `subgraph`, which finds data by their schema")
        where = Sought(tuple(schema), owner, since)
        return await find_protected(url, self._transports, where, page)

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

    async def share_secrets(
        self,
        named: Mapping[str, bytes],
        *,
        nodes: Collection[str] = (),
        threshold: int | None = None,
        expires: int = 0,
    ) -> dict[str, SplitReceipt]:
        """Split this wallet's own secrets, name -> value, all at once: a login and its password, say.

        Runs are given those that their `Params(secrets={1: name})` name. Options are those of
        `Secrets.split`; its first error is raised when every other secret is shared, or has failed too.
        """
        owner, to = self.key, self.secrets
        terms: dict[str, Any] = {"nodes": nodes, "threshold": threshold, "expires": expires}
        done = await asyncio.gather(
            *(
                to.split(owner, SecretId.requester(owner.address, name), value, **terms)
                for name, value in named.items()
            ),
            return_exceptions=True,
        )
        receipts = {}
        for name, one in zip(named, done, strict=True):
            if isinstance(one, BaseException):
                raise one
            receipts[name] = one
        return receipts

    @property
    def secrets(self) -> Secrets:
        """The owner's side of secrets: status, refresh, revocation, audit.

        Raises InvalidInput on a network without SMS nodes.
        """
        if self.quorum is None:
            raise InvalidInput("this network's hub has no quorum of SMS nodes: secrets cannot be split")
        here = self.network
        return Secrets(self.nodes, chain_id=here.chain_id, hub=here.contracts.hub, quorum=self.quorum)

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
        return Signed.by(self.signer, order, await self.hub.domain())

    async def publish(self, order: Order, *, standing: bool = False) -> Bytes32:
        """Sign an order and publish it in the market; its hash.

        `standing`, for requests: it waits even while nobody offers its app or dataset.
        """
        domain = await self.hub.domain()
        signed: Signed[Any] = Signed.by(self.signer, order, domain)
        await self.market.publish(signed, self.signer, standing=standing)
        return signed.hash(domain)

    async def cancel(self, signed: Signed[Any]) -> TxReceipt:
        """Close an order on chain, for ever: it can no longer be matched by anyone."""
        if self.signer.address == self.key.address:
            return await self.hub.manage_order(signed, "close")
        closing = OrderOperation(signed, 1).hash(await self.hub.domain())
        return await self.hub.manage_order(signed, "close", signature=self.signer.sign_digest(closing))

    async def share_result_key(self, key_text: str) -> None:
        """Give every SMS node the public key that results for this account are encrypted with.

        Raises Unavailable when a node does not answer; safe to repeat.
        """
        for node in self.nodes:  # not at once: each may give it to the others
            await node.push_named_secret(self.key, RESULT_KEY_NAME, key_text)
