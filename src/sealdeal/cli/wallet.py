"""`sealdeal wallet`: encrypted keys on this machine."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Annotated, Any

from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cyclopts import App, Parameter

from sealdeal.chain import Wallet
from sealdeal.model.errors import InvalidInput, NotFound
from sealdeal.model.keys import Key
from sealdeal.model.results import generate_result_key, result_key_text
from sealdeal.model.types import Address, address, format_rlc, hexstr, parse_rlc, unhex
from sealdeal.sdk.client import Sealdeal
from sealdeal.sdk.purse import Balance

from . import session
from .session import AsJson, WalletName

wallet = App(name="wallet", help="Keys on this machine, encrypted with a password.")


@wallet.command
def create(name: str = "default", *, key: str | None = None, json: AsJson = False) -> None:
    """Make a wallet.

    Parameters
    ----------
    name
        Name of the wallet.
    key
        Import this private key (0x…) instead of making a fresh one.
    """
    path = session.wallet_file(name)
    session.refuse_existing(path)
    made = Key(unhex(key)) if key else Key.generate(secrets.token_bytes)
    Wallet(made).save(path, session.password(name, new=True))
    session.show({"name": name, "address": made.address, "file": str(path)}, as_json=json)


@wallet.command(name="list")
def list_(*, json: AsJson = False) -> None:
    """The wallets on this machine."""
    found = sorted(p for p in session.settings().wallets.glob("*.json") if p.is_file())
    session.show({path.stem: _address_in(path) for path in found}, as_json=json)


@wallet.command
async def show(*, wallet: WalletName = None, json: AsJson = False) -> None:
    """A wallet's address and what it owns on the network."""
    name = wallet or session.settings().wallet
    path = session.wallet_file(name)
    if not path.exists():
        raise NotFound(f"there is no wallet {name}: make one with `sealdeal wallet create {name}`")
    owner = address(_address_in(path))
    async with session.connected() as client:
        session.show(await holdings(client, owner), as_json=json)


@wallet.command
async def fund(
    amount: str = "100 RLC", *, to: str | None = None, wallet: WalletName = None, json: AsJson = False
) -> None:
    """Take RLC (and gas) from the local network's faucet.

    Parameters
    ----------
    amount
        How much, such as `100` or `1.5 RLC`.
    to
        Address to fund instead of the wallet's.
    """
    path = session.wallet_file(wallet or session.settings().wallet)
    if to is None and not path.exists():
        raise NotFound(
            f"there is no wallet {path.stem}: make one with `sealdeal wallet create`, or name an address"
        )
    target = address(to or _address_in(path))
    funder = session.network().accounts.get("funder")
    if funder is None:
        raise InvalidInput("this network has no faucet: only a local network's file holds a funder's key")
    async with session.connected(Key(unhex(funder["key"]))) as client:
        sent = await client.faucet(target, parse_rlc(amount))
        session.show({**await holdings(client, target), "transaction": hexstr(sent.tx_hash)}, as_json=json)


@wallet.command
async def send(
    to: str,
    amount: str,
    *,
    ether: Annotated[bool, Parameter(negative=())] = False,
    wallet: WalletName = None,
    json: AsJson = False,
) -> None:
    """Give RLC, or the chain's own currency, to another wallet.

    Parameters
    ----------
    to
        Whose address.
    amount
        How much, such as `10` or `1.5 RLC`; with --ether whole wei.
    ether
        The currency that gas is paid with, instead of RLC.
    """
    if ether and not amount.isdecimal():
        raise InvalidInput(f"expected whole wei with --ether, got {amount!r}")
    async with session.connected(session.unlock(wallet)) as client:
        if ether:
            sent = await client.send_ether(address(to), int(amount))
        else:
            sent = await client.send(address(to), parse_rlc(amount))
        owned = await holdings(client, client.key.address)
        session.show({**owned, "transaction": hexstr(sent.tx_hash)}, as_json=json)


@wallet.command
async def sweep(to: str, *, wallet: WalletName = None, json: AsJson = False) -> None:
    """Empty the wallet into another: all its RLC, then its ether but for what gas may cost.

    What lies in the escrow stays: withdraw it before.

    Parameters
    ----------
    to
        Whose address.
    """
    async with session.connected(session.unlock(wallet)) as client:
        done = await client.sweep(address(to))
        owned = await holdings(client, client.key.address)
        session.show({**owned, "transactions": [hexstr(one.tx_hash) for one in done]}, as_json=json)


@wallet.command
async def result_key(*, wallet: WalletName = None, json: AsJson = False) -> None:
    """Make the key that results for this wallet are encrypted with, and tell the network its public half.

    Run again, it tells the network once more and changes nothing.
    """
    name = wallet or session.settings().wallet
    async with session.connected(session.unlock(name)) as client:
        text = await share_result_key(client, name)
    session.show(
        {"wallet": name, "file": str(session.result_key_file(name)), "public_key": text}, as_json=json
    )


async def share_result_key(client: Sealdeal, name: str) -> str:
    """Give the nodes the public half of a wallet's result key, made if there is none yet; its text."""
    secret, path = session.password(name), session.result_key_file(name)
    text = result_key_text(read_result_key(path, secret) if path.exists() else make_result_key(path, secret))
    await client.share_result_key(text)
    return text


def make_result_key(path: Path, secret: str) -> bytes:
    """Write a fresh private key, encrypted with a password; the key as an open PEM."""
    private, _ = generate_result_key()
    lock = BestAvailableEncryption(secret.encode()) if secret else NoEncryption()
    closed = load_pem_private_key(private, None).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock)
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(closed)
    return private


def read_result_key(path: Path, secret: str) -> bytes:
    """The private key as an open PEM. Raises InvalidInput for a wrong password."""
    try:
        key = load_pem_private_key(path.read_bytes(), secret.encode() or None)
    except (ValueError, TypeError):
        raise InvalidInput(f"expected the password of the result key {path}, got another one") from None
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


async def holdings(client: Sealdeal, owner: Address) -> dict[str, Any]:
    """What an account holds now, for people."""
    return shown(owner, await client.balance(owner))


def shown(owner: Address, balance: Balance) -> dict[str, Any]:
    """What an account holds, for people."""
    return {
        "address": owner,
        "wallet": format_rlc(balance.wallet),
        "stake": format_rlc(balance.stake),
        "locked": format_rlc(balance.locked),
    }


def _address_in(path: Path) -> str:
    try:
        return str(address(json.loads(path.read_text())["address"]))
    except (ValueError, KeyError, TypeError):
        raise InvalidInput(f"{path} is not a wallet (a V3 keystore with an address)") from None
