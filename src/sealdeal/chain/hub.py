"""A network's contracts: everything that `reads` answers, and every act.

Acts need a sender. Each waits until it is mined, gives the receipt, and raises Reverted with the contract's
reason; `intent` names the act so that it is done once, also over a crash (see `sender`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from sealdeal.model.batches import Batch, Proof
from sealdeal.model.deals import Deal, TaskStatus
from sealdeal.model.errors import Conflict, InvalidInput, NotFound
from sealdeal.model.orders import (
    NO_DATASET,
    AppOrder,
    DatasetOrder,
    Kind,
    Order,
    OrderOperation,
    RequestOrder,
    Signed,
    WorkerpoolOrder,
    kind_of,
)
from sealdeal.model.types import Address, Bytes32, address, hexstr, unhex

from .contract import Contract, artefact
from .errors import BadAnswer, Reverted, RpcError
from .reads import Addresses, HubReads, Reader
from .rpc import Rpc
from .sender import Receipt, Sender, mined

CLAIMS: Final = 64
"""Tasks that are claimed in one transaction, so that it fits into a block; the hub takes twice as many."""


class Hub(HubReads):
    """A hub with its token and registries, read and written."""

    def __init__(self, rpc: Rpc, addresses: Addresses, sender: Sender | None = None) -> None:
        super().__init__(rpc, addresses)
        self._sender = sender

    @classmethod
    async def connect(cls, rpc: Rpc, hub: Address, sender: Sender | None = None) -> Hub:
        """The network of a hub, asked for its other contracts. Raises BadAnswer when it is no hub."""
        reader, contract = Reader(rpc), Contract(hub, artefact("Hub").abi)
        names = ("token", "appregistry", "datasetregistry", "workerpoolregistry", "teebroker")
        try:
            token, apps, datasets, pools, broker = await reader.read_many(
                [(contract, name) for name in names]
            )
        except (BadAnswer, Reverted) as refused:
            raise BadAnswer(
                f"expected a hub at {hub}, got: {refused}; check the address and the chain"
            ) from None
        quorum = None
        try:
            await reader.read(Contract(broker, artefact("Quorum").abi), "threshold")
            quorum = broker
        except (BadAnswer, Reverted):
            pass  # no broker, a single key, or somebody else's contract
        return cls(rpc, Addresses(hub, token, apps, datasets, pools, quorum), sender)

    def using(self, sender: Sender | None) -> Hub:
        """The same network, acted on by another account."""
        return Hub(self.rpc, self.addresses, sender)

    @property
    def sender(self) -> Sender:
        """Who acts. Raises InvalidInput when this hub is for reading only."""
        if self._sender is None:
            raise InvalidInput("this act needs a wallet: give the Hub a Sender")
        return self._sender

    # --- what was done

    async def receipt(self, tx_hash: Bytes32) -> Receipt:
        """A mined transaction of anyone's, with this network's events in it. Raises NotFound."""
        raw = await self.rpc.call("eth_getTransactionReceipt", hexstr(tx_hash))
        if raw is None:
            raise NotFound(f"{self.rpc.name} has no mined transaction {hexstr(tx_hash)}")
        return await mined(self.rpc, raw, self.contracts)

    async def settlement(self, taskid: Bytes32, since: int = 0) -> Receipt:
        """The transaction that completed a task, looked for from block `since` on. Raises NotFound."""
        wanted = {
            "address": self.addresses.hub,
            "fromBlock": hex(since),
            "toBlock": "latest",
            "topics": [hexstr(self.hub.abi.topic("TaskFinalize")), hexstr(taskid)],
        }
        logs = await self.rpc.call("eth_getLogs", wanted)
        if not logs:
            raise NotFound(f"no transaction since block {since} completed task {hexstr(taskid)}")
        return await self.receipt(unhex(logs[-1]["transactionHash"]))

    async def _act(
        self,
        contract: Contract,
        function: str,
        *args: Any,
        gas: int | None = None,
        intent: bytes | None = None,
    ) -> Receipt:
        return await self.sender.transact(
            contract, function, *args, gas=gas, intent=intent, contracts=self.contracts
        )

    # --- money

    async def deposit(self, amount: int, *, intent: bytes | None = None) -> Receipt:
        """Move nRLC from the wallet into the hub's escrow, as free stake."""
        return await self._act(self.token, "approveAndCall", self.addresses.hub, amount, b"", intent=intent)

    async def withdraw(self, amount: int, *, intent: bytes | None = None) -> Receipt:
        """Move free stake (nRLC) back into the wallet."""
        return await self._act(self.hub, "withdraw", amount, intent=intent)

    async def transfer_token(self, to: Address, amount: int, *, intent: bytes | None = None) -> Receipt:
        """Give nRLC from the wallet to another wallet."""
        return await self._act(self.token, "transfer", to, amount, intent=intent)

    # --- the escrow as an ERC-20 token

    async def approve(self, spender: Address, amount: int, *, intent: bytes | None = None) -> Receipt:
        """Let `spender` move up to `amount` nRLC of the sender's free stake; 0 takes that back."""
        return await self._act(self.hub, "approve", spender, amount, intent=intent)

    async def transfer_stake(
        self, to: Address, amount: int, *, source: Address | None = None, intent: bytes | None = None
    ) -> Receipt:
        """Give free stake (nRLC) to another account's: one's own, or what `source` approved."""
        if source is None:
            return await self._act(self.hub, "transfer", to, amount, intent=intent)
        return await self._act(self.hub, "transferFrom", source, to, amount, intent=intent)

    # --- assets

    async def predict_app(
        self,
        name: str,
        type: str,
        multiaddr: bytes,
        checksum: Bytes32,
        mrenclave: bytes = b"",
        *,
        owner: Address,
    ) -> Address:
        """Where `create_app` with the same values puts the app, or has put it."""
        return await self._predict(Kind.APP, owner, name, type, multiaddr, checksum, mrenclave)

    async def predict_dataset(
        self, name: str, multiaddr: bytes, checksum: Bytes32, *, owner: Address
    ) -> Address:
        """Where `create_dataset` with the same values puts the dataset."""
        return await self._predict(Kind.DATASET, owner, name, multiaddr, checksum)

    async def predict_workerpool(self, description: str, *, owner: Address) -> Address:
        """Where `create_workerpool` with the same values puts the workerpool."""
        return await self._predict(Kind.WORKERPOOL, owner, description)

    async def create_app(
        self,
        name: str,
        type: str,
        multiaddr: bytes,
        checksum: Bytes32,
        mrenclave: bytes = b"",
        *,
        owner: Address | None = None,
        intent: bytes | None = None,
    ) -> tuple[Address, Receipt]:
        """Register an app. Raises Conflict when the owner has this very app already."""
        return await self._create(Kind.APP, owner, name, type, multiaddr, checksum, mrenclave, intent=intent)

    async def create_dataset(
        self,
        name: str,
        multiaddr: bytes,
        checksum: Bytes32,
        *,
        owner: Address | None = None,
        schema: str | None = None,
        intent: bytes | None = None,
    ) -> tuple[Address, Receipt]:
        """Register a dataset, and tell through DataProtector what is inside if there is a `schema` (JSON).

        Raises Conflict when the owner has this very dataset already.
        """
        terms = (name, multiaddr, checksum)
        return await self._create(Kind.DATASET, owner, *terms, schema=schema, intent=intent)

    async def create_workerpool(
        self, description: str, *, owner: Address | None = None, intent: bytes | None = None
    ) -> tuple[Address, Receipt]:
        """Register a workerpool. Raises Conflict when the owner has one of that description already."""
        return await self._create(Kind.WORKERPOOL, owner, description, intent=intent)

    async def _predict(self, kind: Kind, owner: Address, *args: Any) -> Address:
        return address(await self.read(self.registries[kind], f"predict{kind.capitalize()}", owner, *args))

    async def _create(
        self, kind: Kind, owner: Address | None, *args: Any, intent: bytes | None, schema: str | None = None
    ) -> tuple[Address, Receipt]:
        registry, owner = self.registries[kind], owner or self.sender.address
        asset = await self._predict(kind, owner, *args)
        if intent is None and await self.is_registered(kind, asset):
            raise Conflict(f"this very {kind} exists already, at {asset}: use it, or change a value")
        if schema is None:
            receipt = await self._act(registry, f"create{kind.capitalize()}", owner, *args, intent=intent)
            return asset, receipt
        if (door := self.addresses.dataprotector) is None:
            raise InvalidInput("this network's file names no `dataprotector`, which tells a dataset's schema")
        contract, (name, *rest) = Contract(door, artefact("DataProtector").abi), args
        made = ("createDatasetWithSchema", owner, name, schema, *rest)
        return asset, await self._act(contract, *made, intent=intent)

    async def transfer_asset(
        self, kind: Kind | str, asset: Address, to: Address, *, intent: bytes | None = None
    ) -> Receipt:
        """Give an app, dataset or workerpool to another owner; deals already made keep the old one."""
        function = "safeTransferFrom(address,address,uint256)"
        number = int(asset, 16)
        return await self._act(
            self.registries[Kind(kind)], function, self.sender.address, to, number, intent=intent
        )

    async def change_policy(
        self,
        workerpool: Address,
        worker_stake_ratio: int,
        scheduler_reward_ratio: int,
        *,
        intent: bytes | None = None,
    ) -> Receipt:
        """Set, for later deals, what workers stake and the scheduler keeps (per cent of the price)."""
        pool = Contract(workerpool, artefact("Workerpool").abi)
        return await self._act(
            pool, "changePolicy", worker_stake_ratio, scheduler_reward_ratio, intent=intent
        )

    # --- orders and deals

    async def match_orders(
        self,
        app: Signed[AppOrder],
        dataset: Signed[DatasetOrder] | None,
        workerpool: Signed[WorkerpoolOrder],
        request: Signed[RequestOrder],
        *,
        sponsored: bool = False,
        most_gas: int | None = None,
        intent: bytes | None = None,
    ) -> tuple[Bytes32, Receipt]:
        """Make a deal of four orders; the requester pays, or, `sponsored`, the sender. (dealid, receipt).

        `most_gas`: it is tried without a transaction first, and may use no more gas than this in either:
        what smart wallets do when they are asked for their word is theirs to say.
        """
        orders = [order.as_tuple() for order in (app, dataset or NO_DATASET, workerpool, request)]
        function = "sponsorMatchOrders" if sponsored else "matchOrders"
        if most_gas is not None:
            call = self.hub.request(function, *orders) | {"from": self.sender.address, "gas": hex(most_gas)}
            try:
                await self.rpc.call("eth_call", call, "latest")
            except Reverted as refused:
                raise self.hub.explain(refused, function) from None
            except RpcError as refused:
                if "gas" not in refused.message.lower():
                    raise
                raise Reverted(reason=f"more than {most_gas} gas is needed", doing=function) from None
        receipt = await self._act(self.hub, function, *orders, gas=most_gas, intent=intent)
        return bytes(receipt.event("OrdersMatched")["dealid"]), receipt

    async def manage_order(
        self,
        order: Signed[Any] | Order,
        action: Literal["sign", "close"],
        *,
        signature: bytes = b"",
        intent: bytes | None = None,
    ) -> Receipt:
        """Sign an order on chain, or close it for ever, as its owner or with the owner's `signature`."""
        signed: Signed[Any] = order if isinstance(order, Signed) else Signed(order, b"")
        operation = OrderOperation(signed, ("sign", "close").index(action), signature)
        function = f"manage{kind_of(signed.order).capitalize()}Order"
        return await self._act(self.hub, function, operation.as_tuple(), intent=intent)

    async def initialize(self, dealid: Bytes32, index: int, *, intent: bytes | None = None) -> Receipt:
        """Open one task of a deal."""
        return await self._act(self.hub, "initialize", dealid, index, intent=intent)

    async def initialize_array(
        self, tasks: Sequence[tuple[Bytes32, int]], *, intent: bytes | None = None
    ) -> Receipt:
        """Open many tasks (dealid, index), all or none."""
        dealids, indices = [dealid for dealid, _ in tasks], [index for _, index in tasks]
        return await self._act(self.hub, "initializeArray", dealids, indices, intent=intent)

    # --- tasks

    async def contribute(
        self,
        taskid: Bytes32,
        result_hash: Bytes32,
        result_seal: Bytes32,
        enclave: Address,
        enclave_signature: bytes,
        authorisation: bytes,
        *,
        intent: bytes | None = None,
    ) -> Receipt:
        """Commit to a result, as a worker, with a stake."""
        args = (taskid, result_hash, result_seal, enclave, enclave_signature, authorisation)
        return await self._act(self.hub, "contribute", *args, intent=intent)

    async def reveal(self, taskid: Bytes32, digest: Bytes32, *, intent: bytes | None = None) -> Receipt:
        """Show the digest that was committed to, after the consensus."""
        return await self._act(self.hub, "reveal", taskid, digest, intent=intent)

    async def reopen(self, taskid: Bytes32, *, intent: bytes | None = None) -> Receipt:
        """Take contributions again after a consensus that nobody revealed, as the pool's owner."""
        return await self._act(self.hub, "reopen", taskid, intent=intent)

    async def finalize(
        self, taskid: Bytes32, results: bytes, callback: bytes = b"", *, intent: bytes | None = None
    ) -> Receipt:
        """End a revealed task and pay everyone, as the pool's owner."""
        return await self._act(self.hub, "finalize", taskid, results, callback, intent=intent)

    async def contribute_and_finalize(
        self,
        taskid: Bytes32,
        digest: Bytes32,
        results: bytes,
        callback: bytes,
        enclave: Address,
        enclave_signature: bytes,
        authorisation: bytes,
        *,
        intent: bytes | None = None,
    ) -> Receipt:
        """Give the result and end the task in one step, as the worker of a deal of trust 1."""
        args = (taskid, digest, results, callback, enclave, enclave_signature, authorisation)
        return await self._act(self.hub, "contributeAndFinalize", *args, intent=intent)

    async def settle_batch(
        self,
        deal: Deal,
        batch: Batch,
        proofs: Mapping[int, Proof],
        directory: str,
        authorisation: bytes,
        *,
        intent: bytes | None = None,
    ) -> Receipt:
        """End the tasks of a batch that have a proof (by index) and have not ended, as the pool's owner.

        `directory`: CID of the folder that has the results by index; `authorisation`: the TEE broker's.
        """
        args = batch.settle(deal.bot_first, proofs, directory, authorisation)
        return await self._act(self.hub, "settleBatch", *args, intent=intent)

    async def claim(self, taskid: Bytes32, *, intent: bytes | None = None) -> Receipt:
        """Fail a task whose final deadline has passed; the payer gets everything back."""
        return await self._act(self.hub, "claim", taskid, intent=intent)

    async def claim_array(self, taskids: Sequence[Bytes32], *, intent: bytes | None = None) -> Receipt:
        """Claim many tasks, all or none."""
        return await self._act(self.hub, "claimArray", list(taskids), intent=intent)

    async def initialize_and_claim_array(
        self, tasks: Sequence[tuple[Bytes32, int]], *, intent: bytes | None = None
    ) -> Receipt:
        """Claim many tasks (dealid, index) that have not begun, all or none."""
        dealids, indices = [dealid for dealid, _ in tasks], [index for _, index in tasks]
        return await self._act(self.hub, "initializeAndClaimArray", dealids, indices, intent=intent)

    async def claim_deal(self, deal: Deal) -> list[Receipt]:
        """Claim all tasks of a deal that have not ended, begun or not, up to `CLAIMS` in a transaction."""
        tasks = dict(zip(deal.indices(), await self.tasks(deal.task_ids()), strict=True))
        idle = [(deal.dealid, n) for n, task in tasks.items() if task.status is TaskStatus.UNSET]
        begun = [t.taskid for t in tasks.values() if t.status is not TaskStatus.UNSET and not t.ended]
        return [
            *[await self.initialize_and_claim_array(idle[n : n + CLAIMS]) for n in _steps(idle)],
            *[await self.claim_array(begun[n : n + CLAIMS]) for n in _steps(begun)],
        ]

    # --- the hub's owner

    async def create_category(
        self, name: str, description: str, reference_time: int, *, intent: bytes | None = None
    ) -> tuple[int, Receipt]:
        """Add a category of tasks of `reference_time` seconds. (its number, receipt)."""
        args = (name, description, reference_time)
        receipt = await self._act(self.hub, "createCategory", *args, intent=intent)
        return int(receipt.event("CreateCategory")["catid"]), receipt

    async def set_tee_broker(self, broker: Address, *, intent: bytes | None = None) -> Receipt:
        """Say who authorises enclaves from now on."""
        return await self._act(self.hub, "setTeeBroker", broker, intent=intent)


def _steps(items: Sequence[Any]) -> range:
    return range(0, len(items), CLAIMS)
