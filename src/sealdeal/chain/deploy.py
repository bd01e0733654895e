"""A network's contracts, put on a chain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sealdeal.model.errors import ChainError
from sealdeal.model.types import Address

from .contract import Contract, artefact
from .reads import Addresses
from .sender import Sender
from .wallet import create_address

CATEGORIES = (
    ("XS", "about 5 minutes", 300),
    ("S", "about 20 minutes", 1_200),
    ("M", "about an hour", 3_600),
    ("L", "about 3 hours", 10_800),
    ("XL", "about 10 hours", 36_000),
)
"""(name, description, reference time in seconds) of categories 0 to 4, as on every network (poco.md §3)."""


@dataclass(frozen=True)
class QuorumTerms:
    """The TEE broker to deploy."""

    members: Sequence[Address]
    """The SMS nodes' addresses, 15 at most."""
    threshold: int
    trust: Literal["hardware", "simulated"]
    """The only evidence that its members accept, for ever."""
    grace: int = 3_600
    """Seconds for which grants of a removed member still count."""


async def deploy(
    sender: Sender,
    quorum: QuorumTerms | None = None,
    *,
    extra_categories: Sequence[tuple[str, str, int]] = (),
    holder: Address | None = None,
    token: Address | None = None,
) -> Addresses:
    """Deploy token, registries, quorum and hub, owned by the sender, ready for deals.

    `holder` (the sender, if not given) gets the token's whole supply; `token` is a base token that exists
    already. Nothing else may be sent from the account meanwhile: addresses follow from its nonces. Raises
    ChainError when something was.
    """
    first = await sender.next_nonce()
    names = ["HubViews", "HubBoost", "HubAdmin", "AppRegistry", "DatasetRegistry", "WorkerpoolRegistry", "Hub"]
    names += ([] if token else ["Rlc"]) + (["Quorum"] if quorum else [])
    place = {name: create_address(sender.address, first + at) for at, name in enumerate(names)}
    base, hub = token or place["Rlc"], place["Hub"]
    registries = (place["AppRegistry"], place["DatasetRegistry"], place["WorkerpoolRegistry"])
    arguments: dict[str, tuple[Any, ...]] = {
        "HubViews": (hub, base),
        "HubBoost": (hub, base),
        "HubAdmin": (hub, base),
        "AppRegistry": (hub, artefact("App").bytecode),
        "DatasetRegistry": (hub, artefact("Dataset").bytecode),
        "WorkerpoolRegistry": (hub, artefact("Workerpool").bytecode),
        "Hub": (base, *(place[name] for name in ("HubAdmin", "HubBoost", "HubViews")), *registries, [*CATEGORIES, *extra_categories]),
        "Rlc": (holder or sender.address,),
    }
    if quorum:
        arguments["Quorum"] = (list(quorum.members), quorum.threshold, quorum.grace, quorum.trust)
    sent = {name: await sender.submit(None, artefact(name).creation(*arguments[name])) for name in place}
    for name, submitted in sent.items():
        if (created := (await submitted.receipt()).contract) != place[name]:
            raise ChainError(
                f"expected {name} at {place[name]}, got {created}: another transaction of {sender.address} "
                "came in between; deploy again, from an account that nothing else uses"
            )
    if quorum:
        abi = Contract(hub, artefact("Hub").abi).abi
        await (await sender.submit(hub, abi.encode("setTeeBroker", place["Quorum"]))).receipt()
    return Addresses(hub, base, *registries, place.get("Quorum"))
