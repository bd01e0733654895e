"""Addresses of images in registries, as `docker pull` takes them.

An app's address on chain may be one, with or without `docker://`: `registry.example.org/team/app:1.2`. Which
image it is says the app's checksum, the digest of one platform's manifest; a tag is for people.

Grammar: https://github.com/distribution/reference, without user names and IPv6 literals.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from .errors import IntegrityError, InvalidInput
from .manifests import digest_text, parse_digest
from .types import Bytes32

HUB: Final = "docker.io"
HUB_NAMES: Final = (HUB, "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com")
"""What people, and apps on chain, call Docker's own registry."""

_NAME: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE: Final = re.compile(
    r"(?:docker://)?"
    r"(?:(?P<host>(?=[^/]*[.:]|localhost/)(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?)(?::\d{1,5})?)/)?"
    rf"(?P<repository>{_NAME}(?:/{_NAME})*)"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64}))?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Reference:
    """Where an image is, and which one it is if the reference says so."""

    host: str
    repository: str
    tag: str = ""
    digest: Bytes32 | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Raises InvalidInput."""
        found = _REFERENCE.fullmatch(text) if len(text) <= 512 else None
        if found is None:
            raise InvalidInput(
                f"expected an image as registry/repository, with @sha256:… or a tag, got {text!r:.200}"
            )
        host, repository = found["host"] or HUB, found["repository"]
        if host in HUB_NAMES:
            host, repository = HUB, repository if "/" in repository else f"library/{repository}"
        digest = found["digest"]
        return cls(host, repository, found["tag"] or "", parse_digest(digest) if digest else None)

    def check(self, checksum: Bytes32) -> None:
        """Raises IntegrityError when the reference names another image than the checksum."""
        if self.digest not in (None, checksum):
            raise IntegrityError(
                f"expected the image of the app's checksum, {digest_text(checksum)}, got the address {self}"
            )

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.host}/{self.repository}{tag}" + (f"@{digest_text(self.digest)}" if self.digest else "")
