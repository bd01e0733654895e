"""`sealdeal dataset`: protect data, and say who may use it."""

from __future__ import annotations

from pathlib import Path

from cyclopts import App

from sealdeal.model.errors import Forbidden, InvalidInput, NotFound, SealdealError
from sealdeal.model.streams import Format
from sealdeal.model.types import ZERO, address, hexstr, parse_rlc
from sealdeal.sdk.apps import look
from sealdeal.sdk.assets import UNLIMITED
from sealdeal.sdk.client import Sealdeal

from . import session
from .session import AsJson, Expires, Nodes, Threshold, WalletName

dataset = App(name="dataset", help="Protect data and grant its use.")


@dataset.command
async def protect(
    file: Path,
    *,
    name: str | None = None,
    format: Format = Format.STANDARD,
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
    format
        How it is encrypted: `standard`, as all tools of the network do, or `chunked`, which detects every
        change by itself, and which Sealdeal's guests alone open.
    forget
        Keep no copy of the key beside the wallet. The nodes give none back, so it can never be refreshed.
    """
    owner = wallet or session.settings().wallet
    if not file.is_file():
        raise InvalidInput(f"cannot read {file}: there is no such file")
    key = session.unlock(owner)
    async with session.connected(key) as client:
        made = await client.protect_dataset(
            file,
            name=name or file.name,
            form=format,
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
    bulk: bool = False,
    allow_hosts: bool = False,
    wallet: WalletName = None,
    json: AsJson = False,
) -> None:
    """Let one app use a dataset: publish an order for it in the market.

    An app that declares hosts can send the data there; then, or when that cannot be told, nothing is granted
    unless `--allow-hosts` says that it is meant.

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
    bulk
        Also together with others' data in one task, for nothing and uncounted.
    allow_hosts
        The app may reach the hosts that it declares (`sealdeal app show`).
    """
    async with session.connected(session.unlock(wallet)) as client:
        hosts = await _hosts(client, app, allowed=allow_hosts)
        order = await client.grant(
            address(dataset),
            app=address(app),
            price=parse_rlc(price),
            volume=volume,
            requester=address(requester),
            workerpool=address(workerpool),
            bulk=bulk,
        )
    answer = {"order": hexstr(order), "dataset": dataset, "app": app, "hosts": hosts, "price": price}
    session.show(answer, as_json=json)


async def _hosts(client: Sealdeal, app: str, *, allowed: bool) -> list[str] | None:
    """The hosts that an app may reach, None when nobody can tell. Raises Forbidden for what was not meant."""
    try:
        facts = await look(address(app), client.hub, client.results, session.registries())
    except SealdealError as unknown:
        group = (
            isinstance(unknown, NotFound) and (await client.rpc.call("eth_getCode", app, "latest")) != "0x"
        )
        why = "it may be a group, of whatever apps" if group else str(unknown)
        if not allowed:
            raise Forbidden(
                f"nobody can tell which hosts {app} may reach ({why}): if it may have the data nevertheless, "
                "add --allow-hosts"
            ) from None
        return None
    found = [str(host) for host in facts.hosts]
    if found and not allowed:
        raise Forbidden(
            f"the app can send the data to {', '.join(found)}, which its image declares: if that is meant, "
            "add --allow-hosts"
        )
    return found
