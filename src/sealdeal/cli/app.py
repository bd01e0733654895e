"""`sealdeal app`: from a folder to something others can buy runs of."""

from __future__ import annotations

from pathlib import Path

from cyclopts import App

from sealdeal.model.cid import cid_of
from sealdeal.model.types import ZERO, address, hexstr, parse_rlc
from sealdeal.sdk.apps import look
from sealdeal.sdk.images import build_app_image
from sealdeal.sdk.results import file_pieces

from . import session
from .session import AsJson, WalletName

app = App(name="app", help="Build and publish apps.")


@app.command
async def build(folder: Path, *, push: bool = False, json: AsJson = False) -> None:
    """Make an app's image from a folder and this machine's Python, without Docker.

    Parameters
    ----------
    folder
        The app: its files and `sealdeal.toml` (name, entry point, needs).
    push
        Upload it to the network's store, so that workers can fetch it.
    """
    image = build_app_image(folder, cache=session.settings().cache)
    multiaddr = f"/ipfs/{cid_of(file_pieces(image.archive))}"
    if push:
        async with session.connected() as client:
            multiaddr = await client.push_image(image)
    answer = {
        "name": image.name,
        "checksum": hexstr(image.checksum),
        "multiaddr": multiaddr,
        "archive": str(image.archive),
    }
    session.show(answer, as_json=json)


@app.command
async def show(app: str, *, json: AsJson = False) -> None:
    """What an app is: its entry on chain, and what its measured image says, the hosts it may reach among it.

    Parameters
    ----------
    app
        The app's address.
    """
    async with session.connected() as client:
        found = await look(address(app), client.hub, client.results, session.registries())
    session.show(
        {
            "app": address(app),
            "name": found.name,
            "owner": found.owner,
            "checksum": hexstr(found.checksum),
            "multiaddr": found.multiaddr,
            "entrypoint": list(found.process.entrypoint),
            "hosts": [str(host) for host in found.hosts],
        },
        as_json=json,
    )


@app.command
async def publish(
    folder: Path,
    *,
    price: str = "0",
    dataset: str = ZERO,
    requester: str = ZERO,
    wallet: WalletName = None,
    json: AsJson = False,
) -> None:
    """Build a folder's image, register the app on chain, and offer runs of it in the market.

    Parameters
    ----------
    folder
        The app: its files and `sealdeal.toml`.
    price
        RLC per run.
    dataset
        Offer runs on this dataset only.
    requester
        Offer runs to this requester only.
    """
    key = session.unlock(wallet)
    image = build_app_image(folder, cache=session.settings().cache)
    async with session.connected(key) as client:
        made = await client.publish_app(
            image, price=parse_rlc(price), dataset=address(dataset), requester=address(requester)
        )
    session.show(
        {
            "app": made.address,
            "name": image.name,
            "checksum": hexstr(made.checksum),
            "multiaddr": made.multiaddr,
            "order": hexstr(made.order or b""),
        },
        as_json=json,
    )
