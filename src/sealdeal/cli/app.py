"""`sealdeal app`: from a folder to something others can buy runs of."""

from __future__ import annotations

import asyncio
from pathlib import Path

from cyclopts import App

from sealdeal.model.cid import cid_of
from sealdeal.model.types import ZERO, address, hexstr, parse_rlc
from sealdeal.sdk.apps import look
from sealdeal.sdk.bases import fetch_base
from sealdeal.sdk.images import BuiltImage, build_app_image
from sealdeal.sdk.registry import Reference
from sealdeal.sdk.results import file_pieces

from . import session
from .session import AsJson, WalletName

app = App(name="app", help="Build and publish apps.")


@app.command
async def build(
    folder: Path, *, base: str | None = None, push: bool = False, to: str | None = None, json: AsJson = False
) -> None:
    """Make an app's image from a folder and this machine's Python, or on another image, without Docker.

    Parameters
    ----------
    folder
        The app: its files and `sealdeal.toml` (name, entry point, needs).
    base
        Image to build on: an OCI layout (folder or tar), or `registry/repository@sha256:…`.
    push
        Upload it to the network's store, so that workers can fetch it.
    to
        Put it into this registry instead: `registry/repository:tag`.
    """
    image = await _built(folder, base)
    multiaddr = f"/ipfs/{cid_of(file_pieces(image.archive))}"
    if to is not None:
        multiaddr = await _put(image, to)
    elif push:
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
    base: str | None = None,
    to: str | None = None,
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
    base
        Image to build on: an OCI layout (folder or tar), or `registry/repository@sha256:…`.
    to
        Put the image into this registry, `registry/repository:tag`, instead of the network's store.
    """
    key = session.unlock(wallet)
    image = await _built(folder, base)
    async with session.connected(key) as client:
        made = await client.publish_app(
            image,
            price=parse_rlc(price),
            dataset=address(dataset),
            requester=address(requester),
            multiaddr=await _put(image, to) if to is not None else "",
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


async def _built(folder: Path, base: str | None) -> BuiltImage:
    """The image of the app in `folder`, on `base` if that is given."""
    cache = session.settings().cache
    layout = Path(base) if base else None
    if base and not Path(base).exists():
        layout = await fetch_base(base, cache, session.registries(loopback=True))
    return await asyncio.to_thread(build_app_image, folder, cache=cache, base=layout)


async def _put(image: BuiltImage, to: str) -> str:
    """Put an image into a registry; its multiaddr there."""
    return str(await session.registries(loopback=True).push(image.archive, Reference.parse(to)))
