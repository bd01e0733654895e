"""Where a network is: the chain, the contracts, the services. What `sealdeal up --json` prints.

One JSON document describes a network to every client: `sealdeal up` writes it into its state folder, and a
user of another network writes one by hand. Only a local network's holds `accounts`: throw-away keys.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from sealdeal.chain import Addresses
from sealdeal.model.errors import InvalidInput, NotFound
from sealdeal.model.types import Address, address


@dataclass(frozen=True)
class Services:
    """A URL each; None where this network has no such service."""

    market: str
    results: str
    scheduler: str | None
    sms: tuple[str, ...]
    """One for each node of the quorum."""
    ipfs_gateway: str | None = None
    ipfs_node: str | None = None
    compass: str | None = None
    web: str | None = None
    subgraph: str | None = None
    """DataProtector's index, in GraphQL: its `subgraphUrl`."""
    poco_subgraph: str | None = None
    """The protocol's index, in GraphQL: the SDK's `pocoSubgraphURL`."""


@dataclass(frozen=True)
class Network:
    """A network's address card."""

    rpc_url: str
    chain_id: int
    contracts: Addresses
    services: Services
    workerpool: Address | None = None
    """The workerpool that `services.scheduler` works for."""
    trust: str = "hardware"
    """Trust class of the quorum: `hardware` or `simulated`."""
    tee_root: str | None = None
    """The simulated platform's root certificate (DER, 0x hexadecimal); None trusts Intel's."""
    accounts: dict[str, dict[str, str]] = field(default_factory=dict)
    """A local network's throw-away keys: name -> address, key. Empty anywhere else."""

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "contracts": self.contracts.to_json()}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Raises InvalidInput, naming what is missing or unknown."""
        try:
            members = dict(value)
            services = dict(members.pop("services"))
            pool = members.pop("workerpool", None)
            return cls(
                contracts=Addresses.from_json(members.pop("contracts")),
                services=Services(**{**services, "sms": tuple(services["sms"])}),
                workerpool=address(pool) if pool else None,
                **members,
            )
        except (TypeError, KeyError, ValueError, AttributeError) as wrong:
            raise InvalidInput(
                f"expected a network's JSON document, as `sealdeal up --json` prints: {wrong}"
            ) from None

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a network file. Raises NotFound when there is none, InvalidInput when it is not one."""
        try:
            return cls.from_json(json.loads(path.read_text()))
        except FileNotFoundError:
            raise NotFound(
                f"there is no network file at {path}: start a local network with `sealdeal up`, "
                "or name another file with SEALDEAL_NETWORK"
            ) from None
        except json.JSONDecodeError as wrong:
            raise InvalidInput(f"{path} is not JSON: {wrong}") from None
