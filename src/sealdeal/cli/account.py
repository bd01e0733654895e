"""`sealdeal account`: money in the hub's escrow, from which deals are paid."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from cyclopts import App

from sealdeal.model.types import Address, address, format_rlc, hexstr, parse_rlc
from sealdeal.sdk.client import Sealdeal
from sealdeal.sdk.purse import Moved

from . import session
from .session import AsJson, WalletName
from .wallet import holdings, shown

account = App(name="account", help="Money in the hub's escrow, from which deals are paid.")


@account.command
async def show(*, wallet: WalletName = None, json: AsJson = False) -> None:
    """What the wallet's account holds: in the wallet, free in the escrow, locked by deals."""
    key = session.unlock(wallet)
    async with session.connected(key) as client:
        session.show(await holdings(client, key.address), as_json=json)


@account.command
async def deposit(amount: str, *, wallet: WalletName = None, json: AsJson = False) -> None:
    """Move RLC from the wallet into the escrow.

    Parameters
    ----------
    amount
        How much, such as `10` or `1.5 RLC`.
    """
    await _move(Sealdeal.deposit, amount, wallet, json)


@account.command
async def withdraw(amount: str, *, wallet: WalletName = None, json: AsJson = False) -> None:
    """Move free RLC from the escrow back to the wallet.

    Parameters
    ----------
    amount
        How much, such as `10` or `1.5 RLC`.
    """
    await _move(Sealdeal.withdraw, amount, wallet, json)


@account.command
async def approve(spender: str, amount: str, *, wallet: WalletName = None, json: AsJson = False) -> None:
    """Let another account take RLC out of this one's escrow; `0` takes that back.

    Parameters
    ----------
    spender
        Whose address.
    amount
        How much at most, such as `10` or `1.5 RLC`.
    """
    async with session.connected(session.unlock(wallet)) as client:
        receipt = await client.approve(address(spender), parse_rlc(amount))
        answer = await _allowed(client, client.key.address, spender)
        session.show({**answer, "transaction": hexstr(receipt.tx_hash)}, as_json=json)


@account.command
async def allowance(
    spender: str, *, owner: str | None = None, wallet: WalletName = None, json: AsJson = False
) -> None:
    """How much another account may take out of an escrow.

    Parameters
    ----------
    spender
        Whose address.
    owner
        Whose escrow; the wallet's by default.
    """
    key = None if owner else session.unlock(wallet)
    async with session.connected(key) as client:
        who = address(owner) if owner else client.key.address
        session.show(await _allowed(client, who, spender), as_json=json)


async def _allowed(client: Sealdeal, owner: Address, spender: str) -> dict[str, str]:
    left = await client.allowance(address(spender), owner)
    return {"owner": owner, "spender": address(spender), "allowance": format_rlc(left)}


async def _move(
    act: Callable[[Sealdeal, int], Awaitable[Moved]], amount: str, wallet: str | None, as_json: bool
) -> None:
    async with session.connected(session.unlock(wallet)) as client:
        moved = await act(client, parse_rlc(amount))
        owned = shown(client.key.address, moved.balance)
        session.show({**owned, "transaction": hexstr(moved.receipt.tx_hash)}, as_json=as_json)
