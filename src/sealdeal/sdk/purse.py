"""A wallet's money: in its account, in the hub's escrow, in the chain's own currency."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sealdeal.chain import Hub, Rpc, Sender, Wallet
from sealdeal.chain import Receipt as TxReceipt
from sealdeal.model.deals import AccountState
from sealdeal.model.errors import Conflict, InvalidInput
from sealdeal.model.keys import Key, Signer
from sealdeal.model.types import Address, Block

from .network import Network


@dataclass(frozen=True)
class Balance:
    """What an account owns, in nRLC."""

    wallet: int
    stake: int
    locked: int

    @property
    def total(self) -> int:
        return self.wallet + self.stake + self.locked


@dataclass(frozen=True)
class Moved:
    """Money that went into the escrow, or out of it."""

    receipt: TxReceipt
    balance: Balance
    """What the account owned then, at the transaction's block."""


class Purse:
    """One account on a network's chain. Part of `client.Sealdeal`."""

    def __init__(
        self, network: Network, key: Key | None, outbox: Path | None, signer: Signer | None = None
    ) -> None:
        self.network = network
        self._key, self._signer = key, signer or key
        self.rpc = Rpc(network.rpc_url, patience=30.0)
        self._sender = Sender(self.rpc, Wallet(key), outbox=outbox) if key else None
        self.hub = Hub(self.rpc, network.contracts, self._sender)

    @property
    def key(self) -> Key:
        """The key that signs. Raises InvalidInput when this client can only read."""
        if self._key is None:
            raise InvalidInput("this needs a wallet: create one with `sealdeal wallet create`, or pass a key")
        return self._key

    @property
    def signer(self) -> Signer:
        """Whose orders these are, and who answers to the market: the key unless another was given.

        Raises as `key` does.
        """
        return self._signer or self.key

    @property
    def sender(self) -> Sender:
        """Sends this wallet's transactions. Raises as `key` does."""
        if self._sender is None:
            raise InvalidInput("this needs a wallet: create one with `sealdeal wallet create`, or pass a key")
        return self._sender

    async def balance(self, who: Address | None = None) -> Balance:
        """Wallet, stake and locked amounts of an account (default: one's own), in nRLC."""
        return await self._balance(who or self.key.address, await self.hub.block())

    async def _balance(self, account: Address, block: Block) -> Balance:
        escrow: AccountState = await self.hub.account(account, block)
        return Balance(await self.hub.token_balance(account, block), escrow.stake, escrow.locked)

    async def ether(self, who: Address | None = None) -> int:
        """What an account (default: one's own) has for gas, in wei."""
        return int(await self.rpc.call("eth_getBalance", who or self.key.address, "latest"), 16)

    async def send(self, to: Address, amount: int, *, gas_money: int = 0) -> TxReceipt:
        """Give nRLC from the wallet to another wallet, and before that, if it wants some, `gas_money` wei.

        Returns the receipt of the RLC. Raises Conflict when there are too few of them, before anything is
        sent; OutOfGasMoney.
        """
        await self._afford(amount, "payment")
        if gas_money:
            await self.send_ether(to, gas_money)
        return await self.hub.transfer_token(to, amount)

    async def send_ether(self, to: Address, amount: int) -> TxReceipt:
        """Give wei, the chain's own currency, to another account. Raises OutOfGasMoney."""
        return await self.sender.send(to, value=amount)

    async def deposit(self, amount: int) -> Moved:
        """Move nRLC from the wallet to the hub's escrow, where deals can use them.

        Returns what is where once that is mined. Raises Conflict when the wallet has less.
        """
        await self._afford(amount, "deposit")
        return await self._moved(await self.hub.deposit(amount))

    async def _afford(self, amount: int, what: str) -> None:
        have = await self.hub.token_balance(self.key.address)
        if have < amount:
            raise Conflict(f"the wallet holds {have} nRLC, a {what} of {amount} was asked for: fund it first")

    async def withdraw(self, amount: int) -> Moved:
        """Move free nRLC from the escrow back to the wallet; as `deposit`."""
        have = (await self.hub.account(self.key.address)).stake
        if have < amount:
            raise Conflict(f"{have} nRLC are free in the escrow, a withdrawal of {amount} was asked for")
        return await self._moved(await self.hub.withdraw(amount))

    async def _moved(self, receipt: TxReceipt) -> Moved:
        return Moved(receipt, await self._balance(self.key.address, receipt.block))

    async def approve(self, spender: Address, amount: int) -> TxReceipt:
        """Let `spender` take up to `amount` nRLC out of this account's escrow; 0 takes that back."""
        return await self.hub.approve(spender, amount)

    async def allowance(self, spender: Address, owner: Address | None = None) -> int:
        """How many nRLC `spender` may take out of the escrow of `owner` (default: oneself)."""
        return await self.hub.allowance(owner or self.key.address, spender)

    async def sweep(self, to: Address) -> list[TxReceipt]:
        """Empty the wallet into another: all its RLC, then its ether but for what gas may cost.

        What lies in the escrow stays: `withdraw` it before. An empty wallet makes no transaction.
        """
        done = []
        if amount := await self.hub.token_balance(self.key.address):
            done.append(await self.hub.transfer_token(to, amount))
        bare = {"from": self.key.address, "to": to, "value": "0x1"}
        price, gas = await self.rpc.batch([("eth_gasPrice",), ("eth_estimateGas", bare)], raising=False)
        if isinstance(price, Exception):
            raise price
        if isinstance(gas, Exception):  # not even the gas for that is left
            return done
        most, limit = 2 * int(price, 16), int(gas, 16)
        if (rest := await self.ether() - most * limit) > 0:
            bounded = Sender(self.rpc, self.sender.wallet, patience=self.sender.patience, max_fee=most)
            done.append(await bounded.send(to, value=rest, gas=limit))
        return done

    async def claim(self, dealid: bytes) -> list[TxReceipt]:
        """Have a deal's tasks that nobody ended in time failed, and its payer refunded, whoever that is.

        Raises Reverted before the deal's final deadline.
        """
        return await self.hub.claim_deal(await self.hub.deal(dealid))

    async def faucet(self, to: Address, amount: int, gas_money: int = 10**18) -> TxReceipt:
        """Give away `amount` nRLC and `gas_money` wei: what a local network's funder does for newcomers."""
        return await self.send(to, amount, gas_money=gas_money)
