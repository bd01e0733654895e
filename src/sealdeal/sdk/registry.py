"""Images from OCI registries, and to them: named by digest, so that a registry can withhold, and not deceive.

Which image an address on chain means says the app's checksum, the digest of one platform's manifest; a tag is
for people, and never asked for.

Strangers write these addresses, and registries redirect: only https to public addresses is spoken, to the
very address that was looked at. What lies in a network of one's own is named beforehand (`Registries`).

Protocol: https://github.com/opencontainers/distribution-spec, with Docker's tokens
(https://distribution.github.io/distribution/spec/auth/token/).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import ipaddress
import json
import os
import re
import sys
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import httpx2

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
from sealdeal.model.images import ARCHIVE_END, archive_head, blob_header
from sealdeal.model.manifests import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    INDEX_TYPE,
    MANIFEST_TYPE,
    MAX_DOCUMENT_BYTES,
    Descriptor,
    digest_text,
    read_configuration,
    read_manifest,
)
from sealdeal.model.references import HUB, HUB_NAMES
from sealdeal.model.references import Reference as Reference
from sealdeal.model.tars import BLOCK, Kind, Member, members
from sealdeal.model.types import Bytes32

from .outside import parse_url, public_address, request_at

MAX_REDIRECTS: Final = 5
AT_ONCE: Final = 3
"""Layers fetched side by side."""
_TIMEOUT: Final = 30.0
_TOKEN_BYTES: Final = 64 << 10
_PIECE: Final = 1 << 20
_HUB_URL: Final = "https://registry-1.docker.io"
_NEAR: Final = ". A registry in your own network is named in SEALDEAL_REGISTRIES"


@dataclass(frozen=True, slots=True)
class Registries:
    """What is known of registries beforehand: those in one's own network, and as whom to ask."""

    near: Mapping[str, str] = field(default_factory=dict)
    """Host -> URL of registries that may lie at a private address, or speak plain http."""
    credentials: Mapping[str, tuple[str, str]] = field(default_factory=dict, repr=False)
    """Host -> (user, password)."""
    loopback: bool = False
    """Whether any registry on this machine may be spoken to, in plain http: for one's own commands, never for
    what strangers name."""

    @classmethod
    def read(
        cls, urls: Iterable[str] = (), credentials: Path | None = None, *, loopback: bool = False
    ) -> Registries:
        """`urls`: of registries in one's own network; `credentials`: a file as Docker's `config.json`.

        Raises InvalidInput.
        """
        near = {}
        for url in urls:
            parts = parse_url(url)
            if parts.scheme not in ("http", "https") or not parts.host or parts.path not in ("", "/"):
                raise InvalidInput(f"expected a registry as http(s)://host:port, got {url!r:.200}")
            near[parts.netloc.decode()] = _origin(parts)
        return cls(near, _credentials(credentials) if credentials else {}, loopback)

    def url(self, host: str) -> str:
        """Where a registry answers."""
        if host == HUB:
            return _HUB_URL
        return self.near.get(host) or (
            f"http://{host}" if self.loopback and _on_loopback(host) else f"https://{host}"
        )

    def is_near(self, origin: str) -> bool:
        """Whether this origin may be spoken to wherever it lies."""
        scheme, _, host = origin.partition("://")
        return origin in self.near.values() or (self.loopback and scheme == "http" and _on_loopback(host))

    async def pull(
        self, reference: Reference, checksum: Bytes32, place: Path, *, limit: int, machine: str = ""
    ) -> None:
        """Write the image whose manifest has this checksum to `place`, as an archive (`model.images`).

        `limit`: bytes of its layers as they are stored; `machine`: OCI's name of the machine it must be for.
        The manifest, the configuration and every layer are compared with their digests; nothing is at `place`
        unless all are right. Raises IntegrityError, InvalidInput, TooLarge, and what a registry refuses with.
        """
        reference.check(checksum)
        async with _Visit(self, reference) as visit:
            head, layers = await visit.documents(checksum, limit, machine)
            handle, name = tempfile.mkstemp(prefix=".image-", dir=place.parent)
            try:
                with open(handle, "wb") as out:
                    out.write(head)
                    await visit.layers(layers, out)
                os.replace(name, place)
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name)
                raise

    async def head(self, location: str, checksum: Bytes32) -> bytes:
        """How the archive of an app's image begins: manifest and configuration. Raises as `pull` does."""
        reference = Reference.parse(location)
        reference.check(checksum)
        async with _Visit(self, reference) as visit:
            return (await visit.documents(checksum, sys.maxsize, ""))[0]

    async def push(self, archive: Path, reference: Reference) -> Reference:
        """Put an archive of ours into a registry, under its tag if it has one; the reference by digest."""
        async with _Visit(self, reference) as visit:
            with archive.open("rb") as file:
                manifest = b""
                for member in members(file):
                    digest = member.name.removeprefix("blobs/sha256/")
                    if digest == member.name or member.kind is not Kind.FILE:
                        continue
                    if manifest:
                        await visit.put_blob(digest, member)
                    else:  # first in the archive, last in the registry: it names what must be there
                        manifest = b"".join(_pieces(member))
            checksum = hashlib.sha256(manifest).digest()
            await visit.put_manifest(manifest, checksum)
        return Reference(reference.host, reference.repository, "", checksum)


class _Visit:
    """What one operation says to one registry, and to where that one sends it."""

    def __init__(self, registries: Registries, reference: Reference) -> None:
        self._registries, self._reference = registries, reference
        self._url = _origin(parse_url(registries.url(reference.host)))
        self._near = registries.is_near(self._url)
        self._base = f"{self._url}/v2/{reference.repository}"
        self._stack = contextlib.AsyncExitStack()
        self._ways: dict[str, tuple[httpx2.AsyncClient, str]] = {}
        self._authorization = ""

    async def __aenter__(self) -> _Visit:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    # --- reading ----------------------------------------------------------------------------------

    async def documents(self, checksum: Bytes32, limit: int, machine: str) -> tuple[bytes, list[Descriptor]]:
        """(how the archive begins, its layers)."""
        accepted = ", ".join((MANIFEST_TYPE, DOCKER_MANIFEST, INDEX_TYPE, DOCKER_LIST))
        path = f"{self._base}/manifests/{digest_text(checksum)}"
        data = await self._whole(path, "the manifest", checksum, MAX_DOCUMENT_BYTES, accepted)
        manifest = read_manifest(data)
        if (size := sum(layer.size for layer in manifest.layers)) > limit:
            raise TooLarge(f"{self._reference}: expected at most {limit} bytes of layers, got {size}")
        config = manifest.config
        told = await self._whole(
            f"{self._base}/blobs/{digest_text(config.digest)}",
            "the configuration",
            config.digest,
            min(config.size, MAX_DOCUMENT_BYTES),
        )
        system, made_for = read_configuration(told, manifest).platform
        if machine and (system, made_for) != ("linux", machine):
            raise InvalidInput(
                f"{self._reference}: expected an image for linux/{machine}, got one for {system}/{made_for}"
            )
        head = archive_head(Descriptor(checksum, len(data), MANIFEST_TYPE))
        for descriptor, content in ((Descriptor(checksum, len(data), ""), data), (config, told)):
            head += blob_header(descriptor) + content + bytes(-len(content) % BLOCK)
        return head, list(manifest.layers)

    async def layers(self, layers: list[Descriptor], out: IO[bytes]) -> None:
        """Write each layer behind its header, several at once."""
        gate = asyncio.Semaphore(AT_ONCE)
        tasks = []

        async def fetch(number: int, layer: Descriptor, place: int) -> None:
            async with gate:
                url = f"{self._base}/blobs/{digest_text(layer.digest)}"
                async with contextlib.aclosing(
                    self._checked(url, f"layer {number}", layer.digest, layer.size)
                ) as pieces:
                    async for piece in pieces:
                        os.pwrite(out.fileno(), piece, place)
                        place += len(piece)

        place = out.tell()
        out.flush()
        for number, layer in enumerate(layers, 1):
            os.pwrite(out.fileno(), header := blob_header(layer), place)
            place += len(header)
            tasks.append(asyncio.create_task(fetch(number, layer, place)))
            place += layer.size + -layer.size % BLOCK
        os.pwrite(out.fileno(), ARCHIVE_END, place)
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _whole(self, url: str, what: str, digest: Bytes32, limit: int, accept: str = "*/*") -> bytes:
        return b"".join([p async for p in self._checked(url, what, digest, limit, accept, exact=False)])

    async def _checked(
        self, url: str, what: str, digest: Bytes32, size: int, accept: str = "*/*", *, exact: bool = True
    ) -> AsyncGenerator[bytes, None]:
        """The bytes of that digest, of at most `size` bytes. Raises IntegrityError at the end otherwise."""
        hashed, left = hashlib.sha256(), size
        headers = {"accept": accept, "accept-encoding": "identity"}
        async with self._open("GET", url, headers) as response:
            try:
                async for piece in response.aiter_raw():
                    left -= len(piece)
                    if left < 0:
                        raise IntegrityError(
                            f"{self._reference}: {what} has more than the {size} bytes that it should have"
                        )
                    hashed.update(piece)
                    yield piece
            except httpx2.HTTPError as failed:
                raise self._away(failed) from None
        if hashed.digest() != digest or (exact and left):
            raise IntegrityError(
                f"{self._reference}: {what}: expected {digest_text(digest)}, got "
                f"{digest_text(hashed.digest())}: this registry serves something else"
            )

    # --- writing ----------------------------------------------------------------------------------

    async def put_blob(self, digest: str, member: Member) -> None:
        """Upload what the registry has not got yet."""
        with contextlib.suppress(NotFound):
            async with self._open("HEAD", f"{self._base}/blobs/sha256:{digest}"):
                return
        async with self._open("POST", f"{self._base}/blobs/uploads/", {"content-length": "0"}) as begun:
            place = self._url_from(f"{self._base}/blobs/uploads/", begun)
        place = str(parse_url(place).copy_merge_params({"digest": f"sha256:{digest}"}))
        headers = {"content-type": "application/octet-stream", "content-length": str(member.size)}

        async def body() -> AsyncIterator[bytes]:
            while piece := await asyncio.to_thread(member.read, _PIECE):
                yield piece

        async with self._open("PUT", place, headers, body()):
            pass

    async def put_manifest(self, manifest: bytes, checksum: Bytes32) -> None:
        name = self._reference.tag or digest_text(checksum)
        async with self._open(
            "PUT", f"{self._base}/manifests/{name}", {"content-type": MANIFEST_TYPE}, manifest
        ):
            pass

    # --- http -------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _open(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        content: bytes | AsyncIterator[bytes] | None = None,
    ) -> AsyncIterator[httpx2.Response]:
        """A successful answer: asked with what the registry wants to know, and where it sends us."""
        logged_in = False
        for _ in range(MAX_REDIRECTS + 2):
            own = _origin(parse_url(url)) == self._url
            said = {"authorization": self._authorization} if own and self._authorization else {}
            response = await self._send(method, url, {**(headers or {}), **said}, content)
            try:
                if response.status_code == 401 and own and not logged_in:
                    logged_in = True
                    challenges = response.headers.get_list("www-authenticate")
                    await response.aclose()
                    await self._log_in(challenges)
                    continue
                if response.is_redirect and method == "GET":
                    url = self._url_from(url, response)
                    continue
                if not response.is_success:
                    raise self._refusal(response.status_code)
                yield response
                return
            finally:
                await response.aclose()
        raise Unavailable(
            f"{self._reference}: expected the image, got more than {MAX_REDIRECTS} redirections"
        )

    async def _send(
        self, method: str, url: str, headers: Mapping[str, str], content: bytes | AsyncIterator[bytes] | None
    ) -> httpx2.Response:
        parts = parse_url(url)
        client, address = await self._way(parts)
        try:
            request = request_at(client, method, parts, address, headers, content)
            return await client.send(request, stream=True)
        except httpx2.HTTPError as failed:
            raise self._away(failed) from None

    async def _way(self, url: httpx2.URL) -> tuple[httpx2.AsyncClient, str]:
        """A client for this host alone, and the address at which it was looked at. Raises Forbidden."""
        origin = _origin(url)
        if origin not in self._ways:
            if self._near and self._registries.is_near(origin):
                address = url.host
            elif url.scheme != "https" or url.userinfo:
                raise Forbidden(f"{self._reference}: expected https, got {origin}{_NEAR}")
            else:
                try:
                    address = await public_address(url.host)
                except Forbidden as inner:
                    raise Forbidden(f"{self._reference}: {inner}{_NEAR}") from None
            client = httpx2.AsyncClient(timeout=_TIMEOUT)
            await self._stack.enter_async_context(client)
            self._ways.setdefault(origin, (client, address))
        return self._ways[origin]

    async def _log_in(self, challenges: list[str]) -> None:
        """Do what a 401 asks for. Raises Unauthorized."""
        known = self._registries.credentials.get(self._reference.host)
        basic = "Basic " + base64.b64encode(":".join(known).encode()).decode() if known else ""
        for challenge in challenges:
            scheme, _, rest = challenge.strip().partition(" ")
            told = {name.lower(): value for name, value in re.findall(r'(\w+)="([^"]*)"', rest)}
            if scheme.lower() == "bearer" and "realm" in told:
                self._authorization = f"Bearer {await self._token(told, basic)}"
                return
            if scheme.lower() == "basic" and basic:
                self._authorization = basic
                return
        raise self._refusal(401)

    async def _token(self, told: Mapping[str, str], basic: str) -> str:
        asked = {name: told[name] for name in ("service", "scope") if name in told}
        url = str(parse_url(told["realm"]).copy_merge_params(asked))
        headers = {"authorization": basic} if basic else {}
        response = await self._send("GET", url, {"accept-encoding": "identity", **headers}, None)
        try:
            if not response.is_success:
                raise self._refusal(response.status_code)
            data = b""
            async for piece in response.aiter_raw():
                data += piece
                if len(data) > _TOKEN_BYTES:
                    raise TooLarge(f"{self._reference}: a token of more than {_TOKEN_BYTES} bytes")
            answer = json.loads(data)
            token = answer.get("token") or answer.get("access_token")
        except httpx2.HTTPError as failed:
            raise self._away(failed) from None
        except (ValueError, AttributeError, RecursionError):
            token = None
        finally:
            await response.aclose()
        if not isinstance(token, str) or not re.fullmatch(r"[\x21-\x7e]+", token):
            raise Unavailable(f"{self._reference}: expected a token from {told['realm']!r:.200}, got none")
        return token

    def _url_from(self, url: str, response: httpx2.Response) -> str:
        """Where an answer sends us."""
        try:
            return str(parse_url(url).join(response.headers["location"]))
        except (KeyError, httpx2.InvalidURL, ValueError):
            raise Unavailable(f"{self._reference}: its registry sends us nowhere") from None

    def _refusal(self, status: int) -> SealdealError:
        host, what = self._reference.host, str(self._reference)
        if status == 401:
            known = host in self._registries.credentials
            how = "it refused these credentials" if known else "give them in SEALDEAL_REGISTRY_CREDENTIALS"
            return Unauthorized(f"{what}: its registry wants credentials of {host}; {how}")
        kinds: dict[int, tuple[type[SealdealError], str]] = {
            403: (Forbidden, "its registry denies access"),
            404: (NotFound, "its registry has no such image; apps name a platform's manifest by its digest"),
            429: (RateLimited, "its registry wants us to wait; credentials raise its limits"),
        }
        kind, words = kinds.get(status, (Unavailable, f"its registry answered {status}"))
        return kind(f"{what}: {words}")

    def _away(self, failed: Exception) -> Unavailable:
        return Unavailable(
            f"{self._reference}: its registry does not answer ({type(failed).__name__}: {failed})"
        )


def _pieces(member: Member) -> Iterator[bytes]:
    while piece := member.read(_PIECE):
        yield piece


def _origin(url: httpx2.URL) -> str:
    return f"{url.scheme}://{url.netloc.decode()}"


def _on_loopback(host: str) -> bool:
    name = host.rpartition(":")[0] or host
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return name == "localhost"


def _credentials(path: Path) -> dict[str, tuple[str, str]]:
    """Host -> (user, password), from a file as Docker's `config.json`. Its words appear in no message."""
    found = {}
    try:
        auths: Any = json.loads(path.read_bytes())["auths"]
        for key, entry in auths.items():
            text = base64.b64decode(entry["auth"], validate=True).decode()
            user, colon, password = text.partition(":")
            if not colon or not user:
                raise ValueError("no user")
            host = key.removeprefix("https://").removeprefix("http://").split("/")[0]
            found[HUB if host in HUB_NAMES else host] = (user, password)
    except FileNotFoundError:
        raise NotFound(f"expected credentials of registries in {path}, which is not there") from None
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidInput(
            f'{path}: expected {{"auths": {{"HOST": {{"auth": base64 of USER:PASSWORD}}}}}} '
            f"({type(error).__name__}); programs that keep credentials elsewhere are not asked"
        ) from None
    return found
