"""What an operator decides for a market: how much a client may ask, and where its webhooks may lead."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from sealdeal.model.errors import InvalidInput

from .limits import Limits


@dataclass(frozen=True, slots=True)
class MarketOptions:
    """One market node's."""

    limits: Limits = field(default_factory=Limits)
    private_webhooks: bool = False
    """Whether webhooks may lead to addresses that are not of the public internet, and by plain HTTP."""


def networks(text: str) -> tuple[str, ...]:
    """Networks (or addresses) of a setting, separated by commas. Raises InvalidInput."""
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    for part in found:
        try:
            ipaddress.ip_network(part)
        except ValueError:
            raise InvalidInput(f"expected a network such as 10.0.0.0/8, got {part!r}") from None
    return found
