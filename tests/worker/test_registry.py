"""Images from registries: by digest, with credentials where wanted, never from where a stranger points."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime
import io
import json
import platform
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from hypothesis import given
from hypothesis import strategies as st

from sealdeal.model.errors import (
    Forbidden,
    IntegrityError,
    InvalidInput,
    NotFound,
    RateLimited,
    SealdealError,
    TooLarge,
    Unauthorized,
    Unavailable,
)
from sealdeal.model.images import BuiltArchive, Entry, ImageReader, archive, layer, of_bytes
from sealdeal.model.manifests import MACHINES, MANIFEST_TYPE, digest_text
from sealdeal.model.tars import members
from sealdeal.sdk.registry import Reference, Registries, _Visit
from sealdeal.worker.registry import Images
from tests.registry import PASSWORD, USER, Running, running

from .test_downloads import Store

HERE = MACHINES.get(platform.machine(), platform.machine())


Answer = tuple[int, Mapping[str, str], bytes]
"""Status, headers and body of an HTTP answer."""


def image(text: bytes = b"hello", machine: str = HERE, layers: int = 2) -> BuiltArchive:
    tars = [of_bytes(b"".join(layer([Entry(f"f{n}", lambda: text)]))) for n in range(layers)]
    return archive(
        [("", tar) for tar in tars], architecture=machine, process={"Entrypoint": ["/f0"]}, labels={}
    )


def content(built: BuiltArchive) -> bytes:
    return b"".join(built.chunks())


def images(folder: Path, registries: Registries, *, limit: int = 1 << 20, kept: int = 1 << 20) -> Images:
    folder.mkdir(exist_ok=True)
    downloads = Store(folder / "store").downloads(folder, limit=limit, kept=kept)
    return Images(downloads, registries, limit=limit)


async def pushed(
    folder: Path, registry: Running, built: BuiltArchive, tag: str = "", known: Registries | None = None
) -> Reference:
    file = folder / f"{built.checksum.hex()}.tar"
    file.write_bytes(content(built))
    known = known or Registries(loopback=True)
    return await known.push(file, Reference.parse(f"{registry.host}/team/app{tag}"))


@pytest.fixture(scope="module")
def registry() -> Iterator[Running]:
    with running() as started:
        yield started


@pytest.fixture
def near(registry: Running) -> Registries:
    return Registries.read([f"http://{registry.host}"])


async def test_an_image_is_fetched_by_digest_once_and_is_what_was_pushed(
    tmp_path: Path, registry: Running, near: Registries
) -> None:
    built = image()
    reference = await pushed(tmp_path, registry, built, ":1.0")
    known = images(tmp_path / "worker", near)
    for text in (str(reference), f"docker://{registry.host}/team/app:1.0", f"{registry.host}/team/app"):
        place = await known.get(text, built.checksum)
        assert place.read_bytes() == content(built)
    registry.blob(built.checksum).rename(tmp_path / "taken away")
    try:
        assert (await known.get(str(reference), built.checksum)) == place
        with pytest.raises(SealdealError):
            await images(tmp_path / "another", near).get(str(reference), built.checksum)
    finally:
        (tmp_path / "taken away").rename(registry.blob(built.checksum))
    assert [p.name for p in (tmp_path / "worker/content").iterdir()] == [f"image-{built.checksum.hex()}"]
    assert list((tmp_path / "another/content").iterdir()) == []


async def test_many_layers_and_the_same_one_twice_come_in_their_order(
    tmp_path: Path, registry: Running, near: Registries
) -> None:
    contents = [bytes([n % 5]) * 70_000 for n in range(9)]
    tars = [b"".join(layer([Entry("f", partial(bytes, data))])) for data in contents]
    layers = [("", of_bytes(tar)) for tar in tars]
    built = archive(layers, architecture=HERE, process={"Cmd": ["/f"]}, labels={})
    reference = await pushed(tmp_path, registry, built)
    place = await images(tmp_path / "worker", near).get(str(reference), built.checksum)
    with place.open("rb") as file:
        reader = ImageReader(file, built.checksum, max_bytes=1 << 20)
        reader.config()
        assert [b"".join(iter(partial(came.read, 1000), b"")) for came in reader.layers()] == tars


async def test_an_image_that_is_not_there_is_named(
    tmp_path: Path, registry: Running, near: Registries
) -> None:
    with pytest.raises(NotFound, match=f"{registry.host}/no/such"):
        await images(tmp_path, near).get(f"{registry.host}/no/such", bytes(32))


async def test_a_registry_with_passwords(tmp_path: Path) -> None:
    built = image()
    with running(passwords=True) as registry:
        file = tmp_path / "config.json"
        word = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        file.write_text(json.dumps({"auths": {f"http://{registry.host}/v1/": {"auth": word}}}))
        known = Registries.read([f"http://{registry.host}"], file)
        reference = await pushed(tmp_path, registry, built, known=known)
        place = await images(tmp_path / "a", known).get(str(reference), built.checksum)
        assert place.read_bytes() == content(built)
        nobody = Registries.read([f"http://{registry.host}"])
        with pytest.raises(Unauthorized, match="SEALDEAL_REGISTRY_CREDENTIALS"):
            await images(tmp_path / "b", nobody).get(str(reference), built.checksum)
        wrong = Registries(nobody.near, {registry.host: (USER, "guessed")})
        with pytest.raises(Unauthorized, match="refused these credentials") as refused:
            await images(tmp_path / "c", wrong).get(str(reference), built.checksum)
        assert "guessed" not in str(refused.value) and "guessed" not in repr(wrong)


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def issuer_of(key: rsa.RSAPrivateKey, certificate: bytes) -> Callable[[str, Mapping[str, str]], Answer]:
    """An issuer of tokens that Debian's registry takes: for USER to push and pull, for others to pull."""

    def answer(path: str, headers: Mapping[str, str]) -> Answer:
        asked = {name: values[0] for name, values in parse_qs(urlsplit(path).query).items()}
        kind, _, rest = asked["scope"].partition(":")
        name, _, _ = rest.rpartition(":")
        word = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        may = ["pull", "push"] if headers.get("authorization") == f"Basic {word}" else ["pull"]
        now = int(time.time())
        head = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(certificate).decode()]}
        claims: dict[str, Any] = {"iss": "tests", "sub": USER, "aud": asked["service"], "jti": "1"}
        claims |= {"exp": now + 60, "nbf": now - 60, "iat": now - 60}
        claims["access"] = [{"type": kind, "name": name, "actions": may}]
        signed = ".".join(_base64(json.dumps(part).encode()) for part in (head, claims))
        signature = key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return 200, {}, json.dumps({"token": f"{signed}.{_base64(signature)}"}).encode()

    return answer


async def test_a_registry_with_tokens(tmp_path: Path) -> None:
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tests")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (tmp_path / "root.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    answers = issuer_of(key, certificate.public_bytes(serialization.Encoding.DER))
    async with played(answers) as issuer:
        told = {"realm": f"http://{issuer.host}/token", "service": "it", "issuer": "tests"}
        auth = {"token": {**told, "rootcertbundle": str(tmp_path / "root.pem")}}
        starting = running(auth=auth)
        registry = await asyncio.to_thread(starting.__enter__)
        try:
            near = {host: f"http://{host}" for host in (registry.host, issuer.host)}
            built = image()
            with pytest.raises(Unauthorized):
                await pushed(tmp_path, registry, built, known=Registries(near))
            known = Registries(near, {registry.host: (USER, PASSWORD)})
            reference = await pushed(tmp_path, registry, built, known=known)
            place = await images(tmp_path / "worker", Registries(near)).get(str(reference), built.checksum)
            assert place.read_bytes() == content(built)
        finally:
            starting.__exit__(None, None, None)


# --- a registry that a test plays: what Debian's would never say ------------------------------------


class Played:
    """Answers as told, and keeps what it was asked."""

    def __init__(self, answer: Callable[[str, Mapping[str, str]], Answer]) -> None:
        self.answer = answer
        self.asked: list[tuple[str, Mapping[str, str]]] = []
        self.host = ""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in head[1:] if line)}
                path = head[0].split()[1]
                self.asked.append((path, headers))
                status, told, body = self.answer(path, headers)
                told = {"Content-Length": str(len(body)), **told}
                lines = [f"HTTP/1.1 {status} x", *(f"{k}: {v}" for k, v in told.items())]
                writer.write("\r\n".join([*lines, "", ""]).encode() + body)
                await writer.drain()
                if int(told["Content-Length"]) != len(body):
                    break
        writer.close()


@contextlib.asynccontextmanager
async def played(answer: Callable[[str, Mapping[str, str]], Answer]) -> AsyncIterator[Played]:
    it = Played(answer)
    server = await asyncio.start_server(it, "127.0.0.1", 0)
    it.host = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield it


def parts(built: BuiltArchive) -> dict[str, bytes]:
    """Digest -> blob, the manifest too."""
    found = {}
    for member in members(io.BytesIO(content(built))):
        found["sha256:" + member.name.rpartition("/")[2]] = b"".join(iter(partial(member.read, 1 << 20), b""))
    return found


async def fetch(folder: Path, it: Played, built: BuiltArchive, **options: Any) -> bytes:
    """What a worker that knows this registry gets of the image."""
    near = Registries({it.host: f"http://{it.host}"}, **options)
    return (await images(folder, near).get(f"{it.host}/team/app", built.checksum)).read_bytes()


async def test_tokens_are_asked_for_where_the_registry_says_with_its_credentials_only(tmp_path: Path) -> None:
    built = image()
    blobs = parts(built)
    basic = "Basic " + base64.b64encode(b"me:secret").decode()

    def tokens(path: str, headers: Mapping[str, str]) -> Answer:
        assert path == "/token?service=it&scope=repository%3Ateam%2Fapp%3Apull", path
        good = headers.get("authorization") == basic
        return (200, {}, b'{"token": "a.b-c"}') if good else (401, {}, b"")

    def serve(path: str, headers: Mapping[str, str]) -> Answer:
        if headers.get("authorization") != "Bearer a.b-c":
            realm = f'Bearer realm="{path and realms[0]}",service="it",scope="repository:team/app:pull"'
            return 401, {"WWW-Authenticate": realm}, b""
        digest = path.rpartition("/")[2]
        if "/blobs/" in path and digest != json.loads(blobs[digest_text(built.checksum)])["config"]["digest"]:
            return 307, {"Location": f"http://{cdn.host}/{digest}"}, b""
        return 200, {"Content-Type": MANIFEST_TYPE}, blobs[digest]

    realms: list[str] = []
    async with (
        played(tokens) as issuer,
        played(serve) as it,
        played(lambda path, headers: (200, {}, blobs[path[1:]])) as cdn,
    ):
        realms.append(f"http://{issuer.host}/token")
        near = {host: f"http://{host}" for host in (it.host, issuer.host, cdn.host)}
        known = Registries(near, {it.host: ("me", "secret")})
        place = await images(tmp_path, known).get(f"{it.host}/team/app", built.checksum)
        assert place.read_bytes() == content(built)
        assert len(issuer.asked) == 1 and len(cdn.asked) == 2
        assert all("authorization" not in headers for _, headers in cdn.asked)
        with pytest.raises(Unauthorized):
            await images(tmp_path / "other", Registries(near)).get(f"{it.host}/team/app", built.checksum)


@pytest.mark.parametrize(
    "token", [b"", b"[]", b'{"token": 5}', b'{"token": "a\\nb"}', b"[" * 40_000, b"x" * (1 << 17)]
)
async def test_what_is_no_token_is_refused(tmp_path: Path, token: bytes) -> None:
    def serve(path: str, headers: Mapping[str, str]) -> Answer:
        if path.startswith("/token"):
            return 200, {}, token
        return 401, {"WWW-Authenticate": f'Bearer realm="http://{headers["host"]}/token"'}, b""

    async with played(serve) as it:
        with pytest.raises((Unavailable, TooLarge)):
            await fetch(tmp_path, it, image())


INNER = [
    "http://127.0.0.1:1/",
    "https://127.0.0.1/",
    "http://169.254.169.254/latest/meta-data",
    "https://10.0.0.1/x",
    "https://[::1]/",
    "http://example.org/",
    "https://user:word@example.org/",
    "file:///etc/passwd",
    "//169.254.169.254/",
]


@pytest.mark.parametrize("url", INNER)
async def test_a_registry_leads_to_no_other_place_in_the_workers_network(tmp_path: Path, url: str) -> None:
    async with played(lambda path, headers: (307, {"Location": url}, b"")) as it:
        with pytest.raises((Forbidden, InvalidInput, Unavailable)):
            await fetch(tmp_path, it, image())
        assert len(it.asked) == 1
    challenge = {"WWW-Authenticate": f'Bearer realm="{url}"'}
    async with played(lambda path, headers: (401, challenge, b"")) as it:
        with pytest.raises((Forbidden, InvalidInput)):
            await fetch(tmp_path, it, image(), credentials={it.host: ("me", "secret")})
        assert len(it.asked) == 1


async def test_a_strangers_address_does_not_lead_into_the_workers_network(
    tmp_path: Path, registry: Running, near: Registries
) -> None:
    built = image()
    await pushed(tmp_path, registry, built)
    for host in (registry.host, "localhost:5000", "169.254.169.254:80", "10.0.0.1:5000"):
        with pytest.raises(Forbidden, match="SEALDEAL_REGISTRIES"):
            await images(tmp_path / "worker", Registries()).get(f"{host}/team/app", built.checksum)


async def test_a_public_registry_may_not_lead_to_one_in_the_workers_network(tmp_path: Path) -> None:
    """Not even to one that is known there: who names that one names it on chain."""
    known = Registries({"localhost:5000": "http://localhost:5000"})
    async with _Visit(known, Reference.parse("registry.example.org/app")) as visit:
        with pytest.raises(Forbidden):
            await visit._way(httpx2.URL("http://localhost:5000/v2/"))
    async with _Visit(known, Reference.parse("localhost:5000/app")) as visit:
        assert (await visit._way(httpx2.URL("http://localhost:5000/v2/")))[1] == "localhost"


@pytest.mark.parametrize(
    ("status", "error"),
    [(403, Forbidden), (404, NotFound), (429, RateLimited), (500, Unavailable), (200, IntegrityError)],
)
async def test_refusals_have_names(tmp_path: Path, status: int, error: type[SealdealError]) -> None:
    async with played(lambda path, headers: (status, {}, b"{}")) as it:
        with pytest.raises(error, match=it.host):
            await fetch(tmp_path, it, image())


async def test_redirections_in_a_circle_end(tmp_path: Path) -> None:
    async with played(lambda path, headers: (307, {"Location": path}, b"")) as it:
        with pytest.raises(Unavailable, match="redirections"):
            await fetch(tmp_path, it, image())
        assert len(it.asked) < 10


async def test_a_connection_that_breaks_leaves_nothing(tmp_path: Path) -> None:
    built = image(b"x" * 5000)
    blobs = parts(built)

    def serve(path: str, headers: Mapping[str, str]) -> Answer:
        data = blobs[path.rpartition("/")[2]]
        return (200, {"Content-Length": str(len(data))}, data[:100]) if len(data) > 5000 else (200, {}, data)

    async with played(serve) as it:
        with pytest.raises(Unavailable, match="does not answer"):
            await fetch(tmp_path, it, built)
    assert list((tmp_path / "content").iterdir()) == []


async def test_too_large_an_image_is_refused_before_its_layers_are_fetched(tmp_path: Path) -> None:
    built = image(b"x" * 5000)
    blobs = parts(built)
    async with played(lambda path, headers: (200, {}, blobs[path.rpartition("/")[2]])) as it:
        near = Registries({it.host: f"http://{it.host}"})
        with pytest.raises(TooLarge, match="at most 10000 bytes"):
            await images(tmp_path, near, limit=10_000).get(f"{it.host}/team/app", built.checksum)
        assert len(it.asked) == 1


async def test_an_image_for_another_machine_is_named(tmp_path: Path) -> None:
    built = image(machine="s390x")
    blobs = parts(built)
    async with played(lambda path, headers: (200, {}, blobs[path.rpartition("/")[2]])) as it:
        with pytest.raises(InvalidInput, match=f"for linux/{HERE}, got one for linux/s390x"):
            await fetch(tmp_path, it, built)


async def test_an_address_that_names_another_image_than_the_checksum_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="the app's checksum"):
        text = f"registry.example.org/app@{digest_text(bytes(32))}"
        await images(tmp_path, Registries()).get(text, bytes([1]) * 32)


# --- addresses ----------------------------------------------------------------------------------------

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("docker://registry.example.org/team/app:1.2", "registry.example.org/team/app:1.2"),
        (f"localhost:5000/app@{DIGEST}", f"localhost:5000/app@{DIGEST}"),
        (f"localhost/app:a@{DIGEST}", f"localhost/app:a@{DIGEST}"),
        ("iexechub/python-hello-world:8.0.0", "docker.io/iexechub/python-hello-world:8.0.0"),
        ("registry.hub.docker.com/iexechub/app:1", "docker.io/iexechub/app:1"),
        ("docker.io/python", "docker.io/library/python"),
        ("python:3.11", "docker.io/library/python:3.11"),
    ],
)
def test_addresses_are_read_as_docker_reads_them(text: str, whole: str) -> None:
    assert str(Reference.parse(text)) == whole
    assert str(Reference.parse(whole)) == whole


@pytest.mark.parametrize(
    "text",
    [
        *("", "/", "a/", "A/b", "registry.example.org/", "registry.example.org//a", "https://x.org/a", "a b"),
        *("x.org:port/a", "x.org/../a", "user@x.org/a", "x.org/a@sha256:00", "x.org/a@md5:00", "-x.org/a"),
        *("x.org/a?b", "x.org/a#b", "x.org/a\n", "x.org/é", "x.org\\a/b", "[::1]:5000/a", "a" * 600),
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        Reference.parse(text)


@given(st.text(st.sampled_from("ab.:/@-_A0\n sha256docker"), max_size=60) | st.text(max_size=40))
def test_any_address_is_read_the_same_twice_or_refused(text: str) -> None:
    try:
        read = Reference.parse(text)
    except InvalidInput:
        return
    assert Reference.parse(str(read)) == read
    assert not set(read.host + read.repository) & set("@?#\\ \n%")


@pytest.mark.parametrize("content", [b"", b"[]", b'{"auths": {"x": {}}}', b'{"auths": {"x": {"auth": "!"}}}'])
def test_a_file_of_credentials_that_is_none_is_named_without_its_words(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(InvalidInput, match="auths"):
        Registries.read((), tmp_path / "config.json")
    with pytest.raises(NotFound, match="nowhere"):
        Registries.read((), tmp_path / "nowhere")


@pytest.mark.parametrize("url", ["localhost:5000", "ftp://x", "http://", "http://x/path", "http://x:port"])
def test_a_registry_of_ones_own_is_named_by_its_url(url: str) -> None:
    with pytest.raises(InvalidInput):
        Registries.read([url])
