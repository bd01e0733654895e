"""The official PoCo 6.1.0, out of its npm package, deployed as its authors deploy it.

An ERC-2535 diamond: facets that it delegates to, and a library of order hashes that some of them link. The
package has no artefacts of the diamond's own facets, which come from elsewhere; the records of a live
deployment have their bytecode.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from eth_abi.abi import encode

from sealdeal.model.types import ZERO, Address, keccak
from tests.contracts.chain import Abi, Backend, Contract, signature

PACKAGE = Path(sys.prefix).parent / "npm" / "@iexec" / "poco"
"""Where ./dev unpacks it, beside this environment."""
LIBRARY = "IexecLibOrders_v5"
BASE = ("DiamondCutFacet", "DiamondLoupeFacet", "OwnershipFacet")
"""Facets that the diamond is born with."""
FACETS = (
    "IexecAccessorsABILegacyFacet",
    "IexecCategoryManagerFacet",
    "IexecConfigurationExtraFacet",
    "IexecConfigurationFacet",
    "IexecERC20Facet",
    "IexecEscrowTokenFacet",
    "IexecOrderManagementFacet",
    "IexecPoco1Facet",
    "IexecPoco2Facet",
    "IexecPocoAccessorsFacet",
    "IexecPocoBoostFacet",
    "IexecPocoBoostAccessorsFacet",
    "IexecRelayFacet",
)
RECEIVE, FALLBACK = bytes(4), b"\xff" * 4
"""What stands for empty calldata and for unknown functions among a facet's selectors."""
ADD = 0
CUT = "(address,uint8,bytes4[])[]"


@cache
def artefact(name: str) -> dict[str, Any]:
    """ABI, bytecode and link references of a contract."""
    if not PACKAGE.is_dir():
        raise AssertionError(f"the official contracts are not at {PACKAGE}; run ./dev setup")
    paths = sorted((PACKAGE / "artifacts").rglob(f"{name}.json")) or [
        PACKAGE / "deployments" / "arbitrum" / f"{name}.json"
    ]
    loaded: dict[str, Any] = json.loads(paths[0].read_text())
    return loaded


@cache
def abi(name: str) -> Abi:
    """ABI of a contract, "Hub" being all facets' together."""
    if name != "Hub":
        entries: Abi = artefact(name)["abi"]
        return entries
    every = [entry for facet in (*BASE, *FACETS) for entry in artefact(facet)["abi"] if "name" in entry]
    return list({(entry["type"], signature(entry)): entry for entry in every}.values())


def bytecode(name: str, library: Address = ZERO) -> bytes:
    """Creation code, linked."""
    found = artefact(name)
    text = found["bytecode"][2:]
    for references in found.get("linkReferences", {}).values():
        for place in references[LIBRARY]:
            start, end = 2 * place["start"], 2 * (place["start"] + place["length"])
            text = text[:start] + library[2:] + text[end:]
    return bytes.fromhex(text)


def selectors(facet: str) -> list[bytes]:
    """What of a facet the diamond delegates to it."""
    found = [
        keccak(signature(entry).encode())[:4]
        for entry in artefact(facet)["abi"]
        if entry["type"] == "function"
    ]
    special = {"receive": RECEIVE, "fallback": FALLBACK}
    return found + [special[entry["type"]] for entry in artefact(facet)["abi"] if entry["type"] in special]


def deploy(
    chain: Backend, sender: str, token: Address, categories: Sequence[tuple[str, str, int]]
) -> tuple[Address, Address, Address, Address]:
    """Deploy and configure everything around this base token, owned by the sender, with boost.

    Gives hub, and registries of apps, datasets, workerpools.
    """
    library = chain.deploy(bytecode(LIBRARY), sender)
    start = chain.deploy(bytecode("DiamondInit"), sender)
    taken: set[bytes] = set()

    def cut(facets: Sequence[str]) -> list[tuple[Address, int, list[bytes]]]:
        cuts = []
        for facet in facets:
            new = [selector for selector in selectors(facet) if selector not in taken]
            taken.update(new)
            cuts.append((chain.deploy(bytecode(facet, library), sender), ADD, new))
        return cuts

    init = keccak(b"init()")[:4]
    arguments = encode([CUT, "(address,address,bytes)"], [cut(BASE), (sender, start, init)])
    hub = Contract(chain, abi("Hub"), chain.deploy(bytecode("Diamond") + arguments, sender), sender)
    hub.diamondCut(cut(FACETS), ZERO, b"")

    registries = []
    for entry in ("App", "Dataset", "Workerpool"):
        name = f"{entry}Registry"
        registry = Contract(chain, abi(name), chain.deploy(bytecode(name), sender), sender)
        registry.initialize(ZERO)
        registry.setBaseURI(f"https://nfts-metadata.iex.ec/{entry.lower()}/31337/")
        registries.append(registry.address)
    apps, datasets, workerpools = registries
    hub.configure(token, "Staked RLC", "SRLC", 9, apps, datasets, workerpools, ZERO)
    for category in categories:
        hub.createCategory(*category)
    return hub.address, apps, datasets, workerpools
