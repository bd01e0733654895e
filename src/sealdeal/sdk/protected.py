"""Data whose schema their owners told, as DataProtector's index has them (GraphQL, wire.md §6.6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from sealdeal.model.cid import multiaddr_text
from sealdeal.model.errors import InvalidInput, Unavailable
from sealdeal.model.types import Address, address, unhex

from .http import Client, Transport

PAGE: Final = 100
_QUERY: Final = """
query ($start: Int!, $range: Int!, $where: ProtectedData_filter) {
  protectedDatas(where: $where, skip: $start, first: $range,
    orderBy: creationTimestamp, orderDirection: desc) {
    id name owner { id } schema { id } creationTimestamp multiaddr
  }
}"""


@dataclass(frozen=True)
class ProtectedData:
    """A dataset that was registered with a schema."""

    address: Address
    name: str
    owner: Address
    schema: frozenset[str]
    """`path:type` of each part, as its first owner told: `email:string`, `photo.front:image/png`."""
    created_at: int
    """Unix seconds."""
    multiaddr: str


@dataclass(frozen=True)
class Sought:
    """Which are wanted; without a word all."""

    schema: tuple[str, ...] = ()
    """Parts that they must have."""
    owner: Address | None = None
    since: int | None = None
    """Unix seconds."""

    @property
    def where(self) -> list[dict[str, Any]]:
        return [
            *([{"schema_contains": list(self.schema)}] if self.schema else []),
            *([{"owner": self.owner.lower()}] if self.owner else []),
            *([{"creationTimestamp_gte": self.since}] if self.since is not None else []),
        ]


async def find_protected(
    url: str, transports: Mapping[str, Transport], sought: Sought, page: int = 0
) -> list[ProtectedData]:
    """Those that have all that is sought, newest first. Raises Unavailable."""
    variables: dict[str, Any] = {"start": page * PAGE, "range": PAGE}
    if where := sought.where:
        variables["where"] = {"and": where}
    parts = urlsplit(url)
    base = f"{parts.scheme}://{parts.netloc}"
    async with Client(base, transports.get(base)) as index:
        answer = await index.json("POST", parts.path, json={"query": _QUERY, "variables": variables})
    try:
        return [_read(one) for one in answer["data"]["protectedDatas"]]
    except (KeyError, TypeError, ValueError, InvalidInput):
        raise Unavailable(f"expected protected data of the index {url}, got {str(answer)[:300]}") from None


def _read(one: Any) -> ProtectedData:
    return ProtectedData(
        address(one["id"]),
        str(one["name"]),
        address(one["owner"]["id"]),
        frozenset(str(entry["id"]) for entry in one["schema"]),
        int(one["creationTimestamp"]),
        multiaddr_text(unhex(one["multiaddr"])),
    )
