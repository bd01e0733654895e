"""The hosts that an app declares, and which addresses a stranger may lead us to.

An app is cut off from every network. One that needs a host names it in its image's configuration, under the
label `io.sealdeal.hosts`: `name:port` of each, separated by commas. The app's checksum covers it, so that the
declaration is measured with the app, and whoever grants a dataset to that app can read it before.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from .errors import InvalidInput

HOSTS_LABEL: Final = "io.sealdeal.hosts"
MAX_HOSTS: Final = 16
"""As many as somebody can judge who is asked to trust them."""
_LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_LAST: Final = re.compile(r"[a-z]{2,63}|xn--[a-z0-9-]{0,58}[a-z0-9]")
"""No digit may end a name that is no internationalised one: 127.1 and 10.0.0.0x1 are addresses to libc."""
_INNER: Final = ("localhost", "local", "internal", "onion")
"""Last labels that never lead to a public host."""
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_PLATFORM: Final = ipaddress.IPv4Address("168.63.129.16")
"""Azure's machines reach their platform's own service there, by an address that looks public."""


@dataclass(frozen=True, slots=True, order=True)
class Host:
    """One port of one host, by its DNS name."""

    name: str
    """In lower case, at least two labels, without a dot at its end; never an address."""
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """`name:port`, written just so. Raises InvalidInput."""
        name, colon, port = text.rpartition(":")
        labels = name.split(".")
        plain = colon and len(name) <= 253 and len(labels) > 1 and all(map(_LABEL.fullmatch, labels))
        if not plain or not _LAST.fullmatch(labels[-1]) or labels[-1] in _INNER:
            raise InvalidInput(
                f"expected a public host's DNS name and a port, as in api.example.org:443; got {text[:280]!r}"
            )
        if not re.fullmatch(r"[1-9][0-9]{0,4}", port, re.ASCII) or int(port) > 65535:
            raise InvalidInput(f"expected a port from 1 to 65535 after {name}:, got {port[:20]!r}")
        return cls(name, int(port))

    def __str__(self) -> str:
        return f"{self.name}:{self.port}"


def parse_hosts(text: str) -> tuple[Host, ...]:
    """The hosts of a label's text, sorted. Raises InvalidInput for too many, or one that is none."""
    given = text.split(",") if text else []
    if len(given) > MAX_HOSTS:
        raise InvalidInput(f"expected at most {MAX_HOSTS} hosts in {HOSTS_LABEL}, got {len(given)}")
    return tuple(sorted({Host.parse(host) for host in given}))


def hosts_text(hosts: Iterable[Host]) -> str:
    """The label's text: the same for the same hosts in whatever order."""
    text = ",".join(map(str, sorted(set(hosts))))
    parse_hosts(text)
    return text


def declared_hosts(config: Mapping[str, Any]) -> tuple[Host, ...]:
    """What the `config` member of an OCI image configuration declares: none without the label.

    Raises InvalidInput for a declaration that cannot be read: nobody may guess what it means.
    """
    labels = config.get("Labels") or {}
    text = labels.get(HOSTS_LABEL, "") if isinstance(labels, dict) else None
    if not isinstance(text, str):
        raise InvalidInput(f"expected a text as the image's label {HOSTS_LABEL}")
    return parse_hosts(text)


def is_public(address: str) -> bool:
    """Whether an IP address (text) is one of the public internet, however it is wrapped.

    Not for what a name resolves to at another moment: connect to the address that was asked about.
    """
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None or found in _NAT64:  # the very same host, written longer
            return is_public(str(ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)))
        tunnels = (found.sixtofour, *(found.teredo or ()))
        if any(inner is not None and not is_public(str(inner)) for inner in tunnels):
            return False
    return found.is_global and not (found.is_multicast or found.is_reserved or found == _PLATFORM)
