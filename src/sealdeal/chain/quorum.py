"""The quorum contract: the hub's TEE broker, t of n SMS nodes."""

from __future__ import annotations

from collections.abc import Mapping

from sealdeal.model.deals import Change, Execute, authorisation_blob
from sealdeal.model.types import Address, Block, Bytes32, address

from .contract import Contract, artefact
from .reads import Reader
from .rpc import Rpc
from .sender import Receipt, Sender

_ACCEPTED = bytes.fromhex("1626ba7e")  # EIP-1271


class Quorum(Reader):
    """Reads of one quorum, each pinned to a block when `at` is given."""

    def __init__(self, rpc: Rpc, quorum: Address) -> None:
        super().__init__(rpc)
        self.address = quorum
        self.contract = Contract(quorum, artefact("Quorum").abi)

    async def members(self, at: Block | None = None) -> tuple[Address, ...]:
        """The nodes' addresses, in no particular order."""
        return tuple(address(member) for member in await self.read(self.contract, "members", at=at))

    async def threshold(self, at: Block | None = None) -> int:
        """How many of them must agree."""
        return int(await self.read(self.contract, "threshold", at=at))

    async def trust(self, at: Block | None = None) -> str:
        """`hardware` or `simulated`: the only evidence its members accept. It never changes."""
        return str(await self.read(self.contract, "trust", at=at))

    async def is_valid(self, digest: Bytes32, blob: bytes, at: Block | None = None) -> bool:
        """Does the contract take the blob as an authorisation of the digest, at that block's time?"""
        answer = await self.read(self.contract, "isValidSignature", digest, blob, at=at)
        return bytes(answer) == _ACCEPTED

    async def changes(self, at: Block | None = None) -> int:
        """How many changes of members and executions there were: the nonce of the next one."""
        return int(await self.read(self.contract, "nonce", at=at))

    async def grace(self, at: Block | None = None) -> int:
        """Seconds for which a removed member's grants still count. It never changes."""
        return int(await self.read(self.contract, "grace", at=at))

    async def valid_until(self, account: Address, at: Block | None = None) -> int:
        """The last second at which its signature counts: 2^256 - 1 for a member, 0 for a stranger."""
        return int(await self.read(self.contract, "validUntil", account, at=at))

    async def change_members(
        self, sender: Sender, change: Change, signatures: Mapping[Address, bytes]
    ) -> Receipt:
        """Carry out a change that enough members signed, from any account. Raises Reverted."""
        *fields, until = change.as_tuple()
        blob = authorisation_blob(until, signatures)
        return await sender.transact(self.contract, "changeMembers", *fields, blob)

    async def execute(
        self, sender: Sender, decision: Execute, signatures: Mapping[Address, bytes]
    ) -> Receipt:
        """Make a call as the quorum that enough members signed, from any account. Raises Reverted."""
        *fields, until = decision.as_tuple()
        blob = authorisation_blob(until, signatures)
        return await sender.transact(self.contract, "execute", *fields, blob)
