"""`sealdeal contracts`: a network's contracts, put on any chain and compared with those of this package."""

from __future__ import annotations

import json as json_format
import secrets
import sys
from dataclasses import replace
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from sealdeal.chain import Compared, DeployOptions, Hub, QuorumTerms, Rpc, Sender, Wallet, artefact, verify
from sealdeal.chain import deploy as deploy_contracts
from sealdeal.chain.deploy import BASE_URI, CATEGORIES
from sealdeal.chain.local import give_gas_money, is_development_chain
from sealdeal.model.errors import InvalidInput
from sealdeal.model.keys import Key
from sealdeal.model.types import ZERO, address, hexstr

from . import session
from .session import AsJson, WalletName, Words

contracts = App(name="contracts", help="Deploy a network's contracts, compare them, change a quorum.")
contracts.command(
    "sealdeal.cli.quorum:quorum", name="quorum", help="Look at a quorum, and change its members."
)

PATIENCE = 600.0
"""Seconds to wait for a transaction's block, on chains of any kind."""


@contracts.command
async def deploy(
    *,
    rpc_url: str,
    category: Words = (),
    token: str | None = None,
    holder: str | None = None,
    tee_broker: str | None = None,
    quorum: Words = (),
    threshold: int | None = None,
    trust: Literal["hardware", "simulated"] | None = None,
    grace: int | None = None,
    owner: str | None = None,
    previous: str | None = None,
    base_uri: str = BASE_URI,
    profile: Literal["official", "production"] = "official",
    resume: int | None = None,
    wallet: WalletName = None,
    json: AsJson = False,
) -> None:
    """Deploy a whole network's contracts, settle what they start with, and compare them with the artefacts.

    The wallet pays, and nothing else may be sent from its account meanwhile. On a development chain (anvil,
    Hardhat), unless a wallet is named, fresh keys do that the node funds, and they are printed: `admin_key`
    owns the hub, `holder_key` the tokens.

    Parameters
    ----------
    rpc_url
        The chain's node.
    category
        A size of task as NAME:DESCRIPTION:SECONDS, once for each; all of them, in place of the official five.
    token
        Base token that exists already, instead of deploying one.
    holder
        Who gets the deployed token's whole supply.
    tee_broker
        TEE broker that exists already, a quorum or any other; without one each pool's owner is its own.
    quorum
        Members of a quorum to deploy as TEE broker: the addresses with which its SMS nodes sign.
    threshold
        How many of them must agree.
    trust
        The only evidence of TEEs that they accept.
    grace
        Seconds for which grants of a removed member still count; 3600 by default.
    owner
        Who owns hub and registries in the end; the zero address: nobody, for ever.
    previous
        An earlier hub, whose registries' entries count as registered.
    base_uri
        Where the assets' tokens are described; an empty text: nowhere.
    profile
        `official`: as the official hub. `production`: the kitty pays for a task at most its scheduler's
        stake in it; a change of broker, callback gas or registries waits until every deal of its day has
        ended; hub and registries are the deployed quorum's, else nobody's, unless --owner names somebody.
    resume
        Go on with the deployment that began with this nonce of the account; all other options as they were.
    """
    if token and holder:
        raise InvalidInput("expected --token or --holder: nobody is given a token that exists already")
    async with Rpc(rpc_url, timeout=60.0, patience=60.0) as rpc:
        earlier = (await Hub.connect(rpc, address(previous))).addresses if previous else None
        options = DeployOptions(
            categories=[_category(text) for text in category] or CATEGORIES,
            token=address(token) if token else None,
            holder=address(holder) if holder else None,
            broker=_broker(tee_broker, quorum, threshold, trust, grace),
            owner=address(owner) if owner else None,
            previous=(earlier.appregistry, earlier.datasetregistry, earlier.workerpoolregistry)
            if earlier
            else (ZERO, ZERO, ZERO),
            base_uri=base_uri,
        )
        if profile == "production":
            options = replace(options, kitty_capped=True, changes_delayed=True)
            if options.owner is None:
                options = replace(options, owner="quorum" if quorum else ZERO)
        keys: dict[str, str] = {}
        if wallet is None and await is_development_chain(rpc):
            if resume is not None:
                raise InvalidInput(
                    "expected --wallet with --resume: throw-away keys are not kept, so deploy anew"
                )
            admin, options = await _throw_away(rpc, options, keys)
            sender = Sender(rpc, Wallet(admin))
        else:
            outbox = session.settings().wallets / "outbox"
            sender = Sender(rpc, Wallet(session.unlock(wallet)), outbox=outbox, patience=PATIENCE)
            first = await sender.next_nonce() if resume is None else resume
            print(
                f"deploying from nonce {first} of {sender.address}: if cut off, --resume {first}",
                file=sys.stderr,
            )
        made = await deploy_contracts(sender, options, first=resume)
    answer = {**made.to_json(), **keys}
    if json:
        print(json_format.dumps(answer))
    else:
        session.show(
            {
                **answer,
                "next": f"sealdeal contracts verify {made.hub} --dataprotector {made.dataprotector} "
                f"--rpc-url {rpc_url}",
            },
            as_json=False,
        )


async def _throw_away(rpc: Rpc, options: DeployOptions, keys: dict[str, str]) -> tuple[Key, DeployOptions]:
    """A funded key to deploy with, and the options with a holder; `keys` gets the secrets worth telling."""
    admin, holder = (Key.generate(secrets.token_bytes) for _ in range(2))
    await give_gas_money(rpc, admin.address)
    if options.owner is None:
        keys["admin_key"] = hexstr(admin.secret)
    if options.token is None and options.holder is None:
        await give_gas_money(rpc, holder.address)
        keys["holder_key"] = hexstr(holder.secret)
        options = replace(options, holder=holder.address)
    return admin, options


def _category(text: str) -> tuple[str, str, int]:
    name, _, rest = text.partition(":")
    description, _, seconds = rest.rpartition(":")
    if not name or text.count(":") < 2 or not seconds.isdecimal():
        raise InvalidInput(f"expected a category NAME:DESCRIPTION:SECONDS, got {text!r}")
    return name, description, int(seconds)


def _broker(
    tee_broker: str | None,
    members: tuple[str, ...],
    threshold: int | None,
    trust: Literal["hardware", "simulated"] | None,
    grace: int | None,
) -> Any:
    if not members:
        if threshold is not None or trust is not None or grace is not None:
            raise InvalidInput("expected --quorum MEMBER… with --threshold, --trust or --grace")
        return address(tee_broker) if tee_broker else None
    if tee_broker is not None or threshold is None or trust is None:
        raise InvalidInput("expected --threshold and --trust, and no --tee-broker, with --quorum")
    return QuorumTerms(
        [address(member) for member in members], threshold, trust, 3600 if grace is None else grace
    )


@contracts.command(name="verify")
async def verify_(
    hub: str | None = None,
    *,
    dataprotector: str | None = None,
    rpc_url: str | None = None,
    since: int = 0,
    code_only: Annotated[bool, Parameter(negative=())] = False,
    json: AsJson = False,
) -> int:
    """Compare a network's contracts with those of this package, byte for byte, and say exactly what differs.

    Compared are the deployed code and its immutables, and the code and arguments of the transactions that
    created hub, registries, token and quorum. The exit code is 1 when anything differs.

    Parameters
    ----------
    hub
        The hub to compare, which names the other contracts; else those of the network file.
    dataprotector
        The network's DataProtector, which the hub does not know of.
    rpc_url
        The chain's node; else the network file's.
    since
        The block of the deployment, or one before it, for nodes that do not search all blocks at once.
    code_only
        Leave out how the contracts were created, as for those that another contract deployed.
    """
    url = rpc_url or session.network().rpc_url
    async with Rpc(url, timeout=60.0, patience=10.0) as rpc:
        addresses = (await Hub.connect(rpc, address(hub))).addresses if hub else session.network().contracts
        if dataprotector:
            addresses = replace(addresses, dataprotector=address(dataprotector))
        found = await verify(rpc, addresses, since=since, code_only=code_only)
        chain_id = await rpc.chain_id()
    same = not any(one.differences for one in found)
    if json:
        told = [_described(one) for one in found]
        print(_text({"verified": same, "chain_id": chain_id, "contracts": told}, indent=2))
    else:
        _tell(found)
    return 0 if same else 1


def _described(one: Compared) -> dict[str, Any]:
    answer = {"name": one.name, "address": one.address, "compared": one.ours, "differences": one.differences}
    if one.ours:
        made = artefact(one.name)
        answer |= {"choices": one.choices, "compiler": made.compiler, "source_hash": made.source_hash}
    return answer


def _text(value: Any, indent: int | None = None) -> str:
    return json_format.dumps(value, indent=indent, default=hexstr)  # bytes are all that JSON does not know


def _tell(found: list[Compared]) -> None:
    for one in found:
        verdict = "differs" if one.differences else "same" if one.ours else "other"
        print(f"{verdict:<8} {one.name:<20} {one.address}")
        for difference in one.differences:
            print(f"           {difference}")
        for name, value in one.choices.items():
            print(f"           deployed with: {name} {_text(value)}")
    if any(not one.ours for one in found):
        print("other: not of this package, so there is nothing to compare it with")
