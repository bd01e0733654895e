"""What owners are shown of an app before they trust it: its own image's words, or an error."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sealdeal.model.cid import multiaddr_bytes
from sealdeal.model.errors import IntegrityError, InvalidInput, NotFound
from sealdeal.model.hosts import HOSTS_LABEL, Host
from sealdeal.model.images import BuiltArchive, Entry, archive, layer, of_bytes
from sealdeal.model.types import ZERO, Address
from sealdeal.results.app import create_app
from sealdeal.results.blobs import FolderStore
from sealdeal.results.uploads import Results
from sealdeal.sdk.apps import look
from sealdeal.sdk.http import in_memory
from sealdeal.sdk.registry import Reference, Registries
from sealdeal.sdk.results import ResultsClient
from tests.network import Network, key
from tests.registry import running


def image(hosts: str, size: int = 1000) -> BuiltArchive:
    tar = of_bytes(b"".join(layer([Entry("run", lambda: bytes(size))])))
    labels = {HOSTS_LABEL: hosts} if hosts else {}
    return archive([("", tar)], architecture="amd64", process={"Entrypoint": ["/run"]}, labels=labels)


@pytest.fixture
async def store(network: Network, tmp_path: Path) -> AsyncIterator[ResultsClient]:
    blobs, database = FolderStore(tmp_path / "blobs"), f"sqlite+aiosqlite:///{tmp_path}/results.db"
    results = await Results.open(database, blobs, network.hub, key("store"), bytes(32))
    async with ResultsClient("http://store", transport=in_memory(create_app(results))) as client:
        yield client
    await results.close()


async def published(network: Network, location: str, checksum: bytes) -> Address:
    provider = network.as_("app_provider")
    made, _ = await provider.create_app("app", "DOCKER", multiaddr_bytes(location), checksum)
    return made


async def test_hosts_are_read_from_the_image_that_is_measured(network: Network, store: ResultsClient) -> None:
    for hosts, expected in {
        "api.example.org:443": (Host("api.example.org", 443),),
        "": (),
    }.items():
        built = image(hosts, size=300_000)
        location = f"/ipfs/{await store.add(b''.join(built.chunks()))}"
        facts = await look(await published(network, location, built.checksum), network.hub, store)
        assert facts.hosts == expected and facts.process.entrypoint == ("/run",)
        assert (facts.owner, facts.checksum) == (key("app_provider").address, built.checksum)
        assert facts.multiaddr == location


async def test_another_image_than_the_measured_one_is_not_believed(
    network: Network, store: ResultsClient
) -> None:
    shown, measured = image(""), image("bad.example.org:443")
    location = f"/ipfs/{await store.add(b''.join(shown.chunks()))}"
    with pytest.raises(IntegrityError):
        await look(await published(network, location, measured.checksum), network.hub, store)


async def test_what_cannot_be_known_is_an_error(network: Network, store: ResultsClient) -> None:
    with pytest.raises(NotFound):
        await look(ZERO, network.hub, store)
    with pytest.raises(InvalidInput, match="no checksum"):
        await look(await published(network, "r.example.org/a", bytes(32)), network.hub, store)
    with pytest.raises(InvalidInput, match="cannot look"):
        await look(await published(network, "r.example.org/a", b"\1" * 32), network.hub, store)
    absent = "/ipfs/QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG"
    with pytest.raises(NotFound):
        await look(await published(network, absent, b"\1" * 32), network.hub, store)
    strange = image("*.example.org:443")
    location = f"/ipfs/{await store.add(b''.join(strange.chunks()))}"
    with pytest.raises(InvalidInput, match="public host"):
        await look(await published(network, location, strange.checksum), network.hub, store)


async def test_an_image_in_a_registry_is_looked_at_there(
    network: Network, store: ResultsClient, tmp_path: Path
) -> None:
    built, known = image("api.example.org:443"), Registries(loopback=True)
    with running() as registry:
        file = tmp_path / "image.tar"
        file.write_bytes(b"".join(built.chunks()))
        await known.push(file, Reference.parse(f"{registry.host}/team/app:1"))
        app = await published(network, f"{registry.host}/team/app:1", built.checksum)
        facts = await look(app, network.hub, store, known)
    assert facts.hosts == (Host("api.example.org", 443),)
