"""`sealdeal contracts quorum`: who is in a quorum, and how its members decide: who is one, and what it calls.

A decision is a file. One member proposes it; each of those who agree signs it, in one file after another or
in copies; whoever has enough signatures submits them.
"""

from __future__ import annotations

import json as json_format
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from cyclopts import App, Parameter

from sealdeal.chain import Quorum, QuorumTerms, Rpc, Sender, Wallet, artefact, deploy_quorum
from sealdeal.chain.errors import WrongChain
from sealdeal.model.deals import Change, Execute, quorum_domain
from sealdeal.model.eip712 import digest
from sealdeal.model.errors import BadSignature, Conflict, Forbidden, InvalidInput
from sealdeal.model.keys import recover_digest
from sealdeal.model.types import Address, Bytes32, address, hexstr, unhex

from . import session
from .session import AsJson, WalletName, Words

quorum = App(name="quorum", help="Deploy a quorum, look at it, change its members, call as it.")

LIFE = 7 * 24 * 3600
"""Seconds for which a decision may be submitted, unless its proposer says otherwise."""

_KINDS: dict[str, type[Change] | type[Execute]] = {"change": Change, "call": Execute}
"""Member of a proposal's file -> what it holds."""
_CALLED = {
    "hub": "Hub",
    "token": "Rlc",
    "appregistry": "AppRegistry",
    "datasetregistry": "DatasetRegistry",
    "workerpoolregistry": "WorkerpoolRegistry",
    "quorum": "Quorum",
}
"""Contracts of a network -> whose ABI they answer."""


@dataclass(frozen=True)
class Proposal:
    """A decision of one quorum, with the signatures that it has so far."""

    chain_id: int
    quorum: Address
    decision: Change | Execute
    """A change of its members, or a call that it makes."""
    signatures: dict[Address, bytes] = field(default_factory=dict)

    @property
    def digest(self) -> Bytes32:
        """What members sign."""
        return digest(quorum_domain(self.chain_id, self.quorum), self.decision)

    def to_json(self) -> dict[str, Any]:
        return {
            "chain_id": self.chain_id,
            "quorum": self.quorum,
            next(k for k, kind in _KINDS.items() if isinstance(self.decision, kind)): self.decision.to_json(),
            "signatures": {signer: hexstr(signature) for signer, signature in self.signatures.items()},
        }

    @classmethod
    def load(cls, path: Path) -> Self:
        """Raises InvalidInput for another file, BadSignature for a signature that is not its signer's."""
        try:
            value = json_format.loads(path.read_text())
            (kind,) = _KINDS.keys() & value.keys()
            made = cls(
                int(value["chain_id"]),
                address(value["quorum"]),
                _KINDS[kind].from_json(value[kind]),
                {address(signer): unhex(text) for signer, text in value["signatures"].items()},
            )
        except OSError as wrong:
            raise InvalidInput(f"cannot read {path}: {wrong.strerror}") from None
        except (ValueError, KeyError, TypeError, AttributeError) as wrong:
            raise InvalidInput(
                f"expected a decision of a quorum in {path}, as `propose` and `call` write one: {wrong}"
            ) from None
        for signer, signature in made.signatures.items():
            if recover_digest(made.digest, signature) != signer:
                raise BadSignature(f"{path}: the signature of {signer} is not of this decision")
        return made

    def save(self, path: Path) -> None:
        """Write the file, in one step."""
        draft = path.with_name(f"{path.name}.new")
        draft.write_text(json_format.dumps(self.to_json(), indent=1) + "\n")
        draft.replace(path)


@quorum.command
async def show(*, at: str | None = None, rpc_url: str | None = None, json: AsJson = False) -> None:
    """A quorum's members, how many must agree, and what else it was made with.

    Parameters
    ----------
    at
        The quorum's address; else the network file's.
    rpc_url
        The chain's node; else the network file's.
    """
    async with _node(rpc_url) as rpc:
        session.show(await _described(_quorum(rpc, at)), as_json=json)


@quorum.command(name="deploy")
async def deploy_(
    *members: str,
    threshold: int,
    trust: Literal["hardware", "simulated"],
    grace: int = 3600,
    rpc_url: str | None = None,
    wallet: WalletName = None,
    json: AsJson = False,
) -> None:
    """Deploy a quorum alone: beside a hub without a TEE broker, such as the official one.

    Parameters
    ----------
    members
        The addresses with which its SMS nodes sign.
    threshold
        How many of them must agree.
    trust
        The only evidence of TEEs that they accept.
    grace
        Seconds for which grants of a removed member still count.
    rpc_url
        The chain's node; else the network file's.
    """
    terms = QuorumTerms([address(member) for member in members], threshold, trust, grace)
    async with _node(rpc_url) as rpc:
        outbox = session.settings().wallets / "outbox"
        made = await deploy_quorum(Sender(rpc, Wallet(session.unlock(wallet)), outbox=outbox), terms)
        session.show(await _described(_quorum(rpc, made)), as_json=json)


@quorum.command
async def propose(
    file: Path,
    *,
    add: Words = (),
    remove: Words = (),
    threshold: int | None = None,
    compromised: Annotated[bool, Parameter(negative=())] = False,
    life: int = LIFE,
    at: str | None = None,
    rpc_url: str | None = None,
    json: AsJson = False,
) -> None:
    """Write a change of a quorum's members, for them to sign.

    Parameters
    ----------
    file
        The file to write.
    add
        Addresses of new members.
    remove
        Addresses of members who leave.
    threshold
        How many must agree from then on; as many as now by default.
    compromised
        Those who leave lose their voice at once, instead of after the quorum's grace.
    life
        Seconds from now until when the change may be submitted.
    at
        The quorum's address; else the network file's.
    rpc_url
        The chain's node; else the network file's.
    """
    session.refuse_existing(file)
    async with _node(rpc_url) as rpc:
        found = _quorum(rpc, at)
        change = Change(
            tuple(address(member) for member in add),
            tuple(address(member) for member in remove),
            await found.threshold() if threshold is None else threshold,
            compromised,
            await found.changes(),
            (await found.block()).timestamp + life,
        )
        made = Proposal(await rpc.chain_id(), found.address, change)
    made.save(file)
    session.show(made.to_json(), as_json=json)


@quorum.command
async def call(
    file: Path,
    function: str,
    *arguments: str,
    on: str = "hub",
    contract: Literal["hub", "token", "appregistry", "datasetregistry", "workerpoolregistry", "quorum"]
    | None = None,
    life: int = LIFE,
    at: str | None = None,
    rpc_url: str | None = None,
    json: AsJson = False,
) -> None:
    """Write a call that a quorum is to make, such as one of the hub that it owns, for its members to sign.

    Parameters
    ----------
    file
        The file to write.
    function
        Its name, or signature where a name has several.
    arguments
        Numbers, addresses, 0x hexadecimal, true, false, texts; JSON for lists.
    on
        The contract that is called: one of the network file's (hub, token, appregistry, …), or an address.
    contract
        What the address is; else what `on` names.
    life
        Seconds from now until when it may be submitted.
    at
        The quorum's address; else the network file's.
    rpc_url
        The chain's node; else the network file's.
    """
    session.refuse_existing(file)
    kind = contract or on
    if kind not in _CALLED:
        raise InvalidInput(f"expected --contract (one of {', '.join(_CALLED)}) with an address, got none")
    target = session.network().contracts.to_json()[on] if on in _CALLED else address(on)
    if target is None:
        raise InvalidInput(f"this network has no {on}: name a contract's address with --on")
    data = artefact(_CALLED[kind]).abi.encode_texts(function, arguments)
    async with _node(rpc_url) as rpc:
        found = _quorum(rpc, at)
        until = (await found.block()).timestamp + life
        decision = Execute(address(target), data, await found.changes(), until)
        made = Proposal(await rpc.chain_id(), found.address, decision)
    made.save(file)
    session.show(made.to_json(), as_json=json)


@quorum.command
async def sign(
    file: Path, *, rpc_url: str | None = None, wallet: WalletName = None, json: AsJson = False
) -> None:
    """Sign a decision as the member that the wallet is, and write the signature into the file.

    Parameters
    ----------
    file
        The decision, as `propose` or `call` wrote it.
    rpc_url
        The chain's node; else the network file's.
    """
    proposal = Proposal.load(file)
    async with _node(rpc_url) as rpc:
        found = await _open(rpc, proposal)
        key = session.unlock(wallet)
        if key.address not in await found.members():
            raise Forbidden(
                f"{key.address} is no member of the quorum {found.address}: it cannot sign for it"
            )
    proposal.signatures[key.address] = key.sign_digest(proposal.digest)
    proposal.save(file)
    session.show(proposal.to_json(), as_json=json)


@quorum.command
async def submit(
    *files: Path, rpc_url: str | None = None, wallet: WalletName = None, json: AsJson = False
) -> None:
    """Carry out a decision that enough members signed. Any wallet may pay for it.

    Parameters
    ----------
    files
        The decision, or copies of it, with the members' signatures.
    rpc_url
        The chain's node; else the network file's.
    """
    proposals = [Proposal.load(file) for file in files]
    if len({proposal.digest for proposal in proposals}) != 1:
        raise InvalidInput("expected files of one and the same decision")
    async with _node(rpc_url) as rpc:
        found = await _open(rpc, proposals[0])
        members, threshold = await found.members(), await found.threshold()
        signed = {
            signer: signature
            for proposal in proposals
            for signer, signature in proposal.signatures.items()
            if signer in members
        }
        if len(signed) < threshold:
            raise Conflict(f"expected {threshold} members' signatures of this decision, got {len(signed)}")
        outbox = session.settings().wallets / "outbox"
        sender = Sender(rpc, Wallet(session.unlock(wallet)), outbox=outbox)
        decision = proposals[0].decision
        if isinstance(decision, Change):
            receipt = await found.change_members(sender, decision, signed)
        else:
            receipt = await found.execute(sender, decision, signed)
        session.show({**await _described(found), "transaction": hexstr(receipt.tx_hash)}, as_json=json)


def _node(rpc_url: str | None) -> Rpc:
    return Rpc(rpc_url or session.network().rpc_url, patience=10.0)


def _quorum(rpc: Rpc, at: str | None) -> Quorum:
    place = address(at) if at else session.network().contracts.quorum
    if place is None:
        raise InvalidInput("this network's TEE broker is no quorum: name one with --at")
    return Quorum(rpc, place)


async def _open(rpc: Rpc, proposal: Proposal) -> Quorum:
    """The quorum of a decision that may still be made. Raises WrongChain, Conflict."""
    if (chain_id := await rpc.chain_id()) != proposal.chain_id:
        raise WrongChain(
            f"the decision is for chain {proposal.chain_id}, and {rpc.name} is of chain {chain_id}"
        )
    found, decision = Quorum(rpc, proposal.quorum), proposal.decision
    if (count := await found.changes()) != decision.nonce:
        raise Conflict(
            f"this is decision {decision.nonce} of {found.address}, and its next one is {count}: propose anew"
        )
    if (await found.block()).timestamp > decision.validUntil:
        raise Conflict("the time of this decision is over: propose it anew")
    return found


async def _described(found: Quorum) -> dict[str, Any]:
    return {
        "quorum": found.address,
        "members": list(await found.members()),
        "threshold": await found.threshold(),
        "trust": await found.trust(),
        "grace": await found.grace(),
        "changes": await found.changes(),
    }
