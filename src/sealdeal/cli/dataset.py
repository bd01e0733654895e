"""`sealdeal dataset`: protect data, and say who may use it."""

from __future__ import annotations

from pathlib import Path

from cyclopts import App

from sealdeal.model.errors import InvalidInput
from sealdeal.model.types import ZERO, address, hexstr, parse_rlc
from sealdeal.sdk.client import UNLIMITED

from . import session
from .session import AsJson, Expires, Nodes, Threshold, WalletName

dataset = App(name="dataset", help="Protect data and grant its use.")


@dataset.command
async def protect(
    file: Path,
    *,
    name: str | None = None,
    nodes: Nodes = (),
    threshold: Threshold = None,
    expires: Expires = None,
    forget: bool = False,
    wallet: WalletName = None,
    json: AsJson = False,
) -> None:
    """Encrypt a file, store it, register it on chain, and split its key among the SMS nodes.

    Parameters
    ----------
    file
        The data in the clear. It does not leave this machine in the clear.
    name
        Its public name; the file's name by default.
    forget
        Keep no copy of the key beside the wallet. The nodes give none back, so it can never be refreshed.
    """
    owner = wallet or session.settings().wallet
    try:
        plain = file.read_bytes()
    except OSError as wrong:
        raise InvalidInput(f"cannot read {file}: {wrong.strerror}") from None
    key = session.unlock(owner)
    async with session.connected(key) as client:
        made = await client.protect_dataset(
            plain,
            name=name or file.name,
            nodes=nodes,
            threshold=threshold,
            expires=session.when(expires),
            vault=None if forget else session.vault(owner, key),
        )
    session.show(
        {
            "dataset": made.address,
            "checksum": hexstr(made.checksum),
            "multiaddr": made.multiaddr,
            "next": f"sealdeal dataset grant {made.address} --app ADDRESS",
        },
        as_json=json,
    )


@dataset.command
async def grant(
    dataset: str,
    *,
    app: str,
    price: str = "0",
    volume: int = UNLIMITED,
    requester: str = ZERO,
    workerpool: str = ZERO,
    wallet: WalletName = None,
    json: AsJson = False,
) -> None:
    """Let one app use a dataset: publish an order for it in the market.

    Parameters
    ----------
    dataset
        The dataset's address.
    app
        The only app (or group) that may read the data.
    price
        RLC per use.
    volume
        How many uses.
    requester
        Only for this requester (or group).
    workerpool
        Only on this workerpool (or group).
    """
    async with session.connected(session.unlock(wallet)) as client:
        order = await client.grant(
            address(dataset),
            app=address(app),
            price=parse_rlc(price),
            volume=volume,
            requester=address(requester),
            workerpool=address(workerpool),
        )
    session.show({"order": hexstr(order), "dataset": dataset, "app": app, "price": price}, as_json=json)
